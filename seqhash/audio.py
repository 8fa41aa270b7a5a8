"""Any audio file to mono float32 samples at an explicit rate, on the host (paper, III: first
channel, 16 kHz).

What libsndfile reads, it decodes (WAV, AIFF, AU, W64, CAF, VOC, FLAC, Ogg, MPEG audio and others);
PyAV decodes the rest, where it is installed (``libav``). soxr resamples. All of it goes block by
block, so that files of hours take the memory of a block. A file that cannot be used is an
``AudioError`` that names the file and the reason, never an error of these libraries.

**Damage.** One rule for every container: what can be decoded is used, joined where something is
missing, and what is lost is a ``Flaw`` with the file's name, the place and the seconds. With
``strict`` a flaw is an ``AudioError``. docs/files.md says what is seen of which format.
"""

import contextlib
import io
import itertools
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import soundfile
import soxr

from seqhash import containers, libav

# Hz; beyond these a header is damaged, and resampling would take any amount of memory
RATES = (1_000, 768_000)
RAW = {"s16le": ("<i2", 32768.0), "f32le": ("<f4", 1.0)}  # raw samples: dtype, full scale
# a sample beyond is no audio, whatever its scale; the power spectrum of 1e19 overflows float32
LARGEST = 1e12
FAINT = 1e-4  # a peak below, -80 dB, is told ...
BESIDE = 1e-2  # ... and one that is so much lower than another channel's
FLAWS = 5  # of a file that are told one by one
LENGTHENED = 0.01  # s that a file may lack of what is needed: 1 s is 1 s, whatever a frame needs
# source samples per read; fixed, so that samples do not depend on the block size asked for
_FEED = 1 << 16
LIVE_SECONDS = 0.25  # of a stream that are read at a time
# kinds that are sent as streams, and are read without seeking
_LIVE = ("MPEG audio", "Ogg", "FLAC", "AAC", "AC-3", "MPEG transport stream", "Matroska or WebM")
_TAGGED = "a tagged file"  # of no other kind: MPEG audio, if anything
_MPEG_SUFFIXES = (".mp3", ".mp2", ".mp1", ".mpga", ".mpa")


class AudioError(ValueError):
    """A file that cannot be used as audio: which one, and why."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class PassingError(AudioError):
    """A file that is not the reason itself: the next time it may be read."""


class Flaw(NamedTuple):
    """What is wrong with a file that is used all the same."""

    path: Path
    reason: str
    start: float | None = None  # s, of what was decoded
    seconds: float | None = None  # that are lost; None, not known or nothing

    @property
    def text(self) -> str:
        place = "" if self.start is None else f" at {self.start:.2f} s"
        if self.seconds is None:
            return self.reason + (place and f",{place}")
        return f"{self.reason}: {self.seconds:.2f} s lost{place}"

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class FlawWarning(UserWarning):
    """A file that is used although something is wrong with it."""


def warn(flaw: Flaw) -> None:
    """A Python warning: what happens to flaws where nothing else is said."""
    warnings.warn(str(flaw), FlawWarning, stacklevel=2)


def check_channel(channel: str) -> str:
    """A choice of channel as it is written: ``first``, ``mix`` (the mean), or a number from 1.

    Raises:
      ValueError: it is none of these.
    """
    if channel in ("first", "mix"):
        return channel
    if not (channel.isascii() and channel.isdecimal() and int(channel) > 0):
        raise ValueError(f"channel must be first, mix or a number from 1, got {channel!r}.")
    return "first" if int(channel) == 1 else str(int(channel))


def blocks(
    path: str | os.PathLike[str],
    *,
    sample_rate: int,
    block_seconds: float = 60.0,
    minimum_seconds: float = 0.0,
    channel: str = "first",
    strict: bool = False,
    report: Callable[[Flaw], None] = warn,
) -> Iterator[np.ndarray]:
    """One channel of a file, block by block; the samples do not depend on ``block_seconds``.

    Args:
      path: the file.
      sample_rate: of the result, Hz.
      block_seconds: length of every block but the last, which is what is left.
      minimum_seconds: a shorter file is an error; one that lacks less than ``LENGTHENED`` is
        lengthened by silence.
      channel: ``first``, ``mix`` (the mean of all), or a number from 1.
      strict: a flaw is an error.
      report: is told each flaw, at the latest when the last block was taken.

    Yields:
      float32 (samples,). A file at this rate already gives its samples unchanged; else n samples at
      rate r become round(n * sample_rate / r).

    Raises:
      AudioError: missing, not a regular file, empty, not audio, too short, without that channel,
        samples that are NaN, infinite or beyond ``LARGEST``, or digital silence (all are the same).
        What can only be known at the end is raised there, after the blocks, so a consumer that
        stops early does not learn of it.
    """
    block = _block(sample_rate, block_seconds)
    file = Path(path)
    teller = _Teller(file, strict, report)
    sounds = _sounds(file, minimum_seconds, teller)
    return _finished(sounds, check_channel(channel), sample_rate, block, minimum_seconds, teller)


def read(
    path: str | os.PathLike[str],
    *,
    sample_rate: int,
    minimum_seconds: float = 0.0,
    channel: str = "first",
    strict: bool = False,
    report: Callable[[Flaw], None] = warn,
) -> np.ndarray:
    """A whole channel, float32 (samples,): the blocks of ``blocks`` joined, with its errors."""
    parts = blocks(
        path,
        sample_rate=sample_rate,
        minimum_seconds=minimum_seconds,
        channel=channel,
        strict=strict,
        report=report,
    )
    return np.concatenate(list(parts))


def stream_blocks(
    file: BinaryIO,
    *,
    encoding: str,
    rate: int,
    sample_rate: int,
    block_seconds: float = 60.0,
    minimum_seconds: float = 0.0,
    channel: str = "first",
    strict: bool = False,
    report: Callable[[Flaw], None] = warn,
) -> Iterator[np.ndarray]:
    """A stream that cannot be sought, such as standard input: a file with a header, whatever
    ``blocks`` reads; else raw mono samples.

    WAV of plain samples comes as it arrives; so do, with PyAV, the kinds that are sent as streams,
    whose end is then no cut. All else is written to a temporary file, and comes when it is there.

    Args:
      file: buffered, read to its end.
      encoding, rate: of raw samples, as of ``raw_blocks``.
      sample_rate, ...: as of ``blocks``; a block is yielded when it is full.

    Yields:
      float32 (samples,).

    Raises:
      AudioError: of the path ``-``, as of ``blocks`` and of ``raw_blocks``.
    """
    block = _block(sample_rate, block_seconds)
    path, channel = Path("-"), check_channel(channel)
    head, tagged = file.read(containers.LONGEST_MAGIC), False
    while begin := containers.tag_length(head):
        head, tagged = _after(file, head, begin), True
    if not (tagged or containers.kind_of(head)):
        head = head[containers.joined_at(head) or 0 :]
    teller, rest = _Teller(path, strict, report), cast(BinaryIO, _Rejoined(head, file))
    if not (kind := containers.kind_of(head) or (_TAGGED if tagged else "")):
        if channel not in ("first", "mix"):
            raise AudioError(path, f"channel {channel} is not there, raw samples have 1")
        return raw_blocks(
            rest,
            encoding,
            rate=rate,
            sample_rate=sample_rate,
            block_seconds=block_seconds,
            minimum_seconds=minimum_seconds,
            strict=strict,
            report=report,
        )
    sounds = _streamed(rest, path, kind, minimum_seconds, teller)
    if kind == "WAV" and (form := containers.plain_wav(head)):
        sounds = _plain_files(rest, form, minimum_seconds, teller)
    return _finished(sounds, channel, sample_rate, block, minimum_seconds, teller)


def unusable(samples: np.ndarray) -> str | None:
    """What is wrong with the values of samples, as a phrase; None where nothing is."""
    # False where one is NaN.
    if samples.min(initial=0) >= -LARGEST and samples.max(initial=0) <= LARGEST:
        return None
    finite = np.isfinite(samples).all()
    return f"samples beyond {LARGEST:g}" if finite else "NaN or infinite samples"


def raw_blocks(
    file: BinaryIO,
    encoding: str,
    *,
    rate: int,
    sample_rate: int,
    block_seconds: float = 60.0,
    minimum_seconds: float = 0.0,
    strict: bool = False,
    report: Callable[[Flaw], None] = warn,
) -> Iterator[np.ndarray]:
    """Raw mono samples of a stream without a header, block by block, in the memory of a block.

    Args:
      file: buffered, read to its end.
      encoding: a key of ``RAW``.
      rate: of the stream, Hz.
      sample_rate, block_seconds, minimum_seconds, strict, report: as of ``blocks``.

    Yields:
      float32 (samples,).

    Raises:
      AudioError: of the path ``-``: no samples, too short, samples that are NaN, infinite or beyond
        ``LARGEST``.
    """
    teller = _Teller(Path("-"), strict, report)
    samples = _resampled(_raw_samples(file, encoding, rate, minimum_seconds, teller), sample_rate)
    least = _samples(minimum_seconds, sample_rate)
    return _regrouped(_lengthened(samples, least), round(block_seconds * sample_rate))


def tags(path: str | os.PathLike[str]) -> dict[str, str]:
    """Title, artist and album, where the file says them; AudioError where it cannot be read."""
    said: dict[str, str] = {}
    try:
        with open(path, "rb", buffering=0) as file:
            spliced = containers.Spliced(file, ((0, os.fstat(file.fileno()).st_size),))
            try:
                with soundfile.SoundFile(spliced) as handle:
                    said = handle.copy_metadata()
            except (soundfile.SoundFileError, TypeError):
                spliced.seek(0)
                with contextlib.suppress(libav.LibavError):
                    next(libav.decoded(cast(BinaryIO, spliced), _say_nothing, said), None)
            spliced.check()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unread(Path(path), error) from error
    names = ("title", "artist", "album")
    return {name: said[name].strip() for name in names if said.get(name, "").strip()}


_Sound = tuple[int, np.ndarray]  # Hz, float32 (samples, channels)


def _block(sample_rate: int, block_seconds: float) -> int:
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}.")
    block = round(block_seconds * sample_rate)
    if block <= 0:
        raise ValueError(f"block_seconds must be at least one sample, got {block_seconds}.")
    return block


def _finished(
    sounds: Iterable[_Sound],
    channel: str,
    sample_rate: int,
    block: int,
    minimum_seconds: float,
    teller: "_Teller",
) -> Iterator[np.ndarray]:
    mono = _one_channel(sounds, channel, minimum_seconds, teller)
    least = _samples(minimum_seconds, sample_rate)
    return _regrouped(_lengthened(_resampled(mono, sample_rate), least), block)


def _samples(seconds: float, rate: int) -> int:
    return math.ceil(seconds * rate - 1e-6)


class _Teller:
    """Tells flaws of a file: the first ones, and of the others how much they are in all."""

    def __init__(self, path: Path, strict: bool, report: Callable[[Flaw], None]) -> None:
        self.path, self.strict, self.report = path, strict, report
        self._told, self._lost = 0, 0.0

    def __call__(
        self, reason: str, start: float | None = None, seconds: float | None = None
    ) -> None:
        flaw = Flaw(self.path, reason, start, seconds)
        if self.strict:
            raise AudioError(self.path, flaw.text)
        self._told += 1
        if self._told <= FLAWS:
            self.report(flaw)
        else:
            self._lost += seconds or 0.0

    def end(self) -> None:
        if self._told > FLAWS:
            more = f"damaged in {self._told - FLAWS} more places"
            self.report(Flaw(self.path, more, None, self._lost))


# Decoding.


def _sounds(path: Path, minimum_seconds: float, tell: _Teller) -> Iterator[_Sound]:
    """What the decoders make of a file."""
    try:
        if not path.exists():
            raise AudioError(path, "no such file")
        if path.is_dir():
            raise AudioError(path, "a folder, not a file")
        if not path.is_file():
            raise AudioError(path, "not a regular file")  # a pipe would block for ever
        with open(path, "rb", buffering=0) as file:
            named_mpeg = path.suffix.lower() in _MPEG_SUFFIXES
            yield from _decoded(path, file, minimum_seconds, tell, named_mpeg=named_mpeg)
    except OSError as error:
        raise _unread(path, error) from error


def _unread(path: Path, error: OSError) -> PassingError:
    return PassingError(path, f"cannot be read ({error.strerror or error})")


def _decoded(
    path: Path, file: BinaryIO, minimum_seconds: float, tell: _Teller, *, named_mpeg: bool
) -> Iterator[_Sound]:
    source = containers.Source(file)
    if not source.size:
        raise AudioError(path, "an empty file (0 bytes)")
    pieces = containers.pieces(source, named_mpeg=named_mpeg)
    if not pieces:
        raise AudioError(path, "not audio: no MPEG frame in it")
    if left_out := containers.begin_of(source) - containers.after_tags(source.at):
        tell(f"it begins within a frame: its first {left_out} bytes are left out")
    start = 0.0
    for number, piece in enumerate(pieces):
        try:
            handle, spliced = _open(path, file, piece)
        except soundfile.SoundFileError as error:
            if number:
                tell(f"a part that cannot be read ({_text(error)})", start)
                continue
            yield from _by_libav(path, file, source, pieces, _text(error), tell)
            return
        if len(pieces) == 1 and not piece.holes:  # before the first block goes out
            why = piece.detail if piece.counted > 1 else ""
            _check_length(path, handle.frames / handle.samplerate, minimum_seconds, why)
        start = yield from _piece(path, file, source, piece, (handle, spliced), start, tell)


class _Forward(soundfile.SoundFile):
    """A file that is read from begin to end. soundfile seeks after every read, and behind damage
    that leads elsewhere.
    """

    def seekable(self) -> bool:
        return False


_Opened = tuple[_Forward, containers.Spliced]


def _open(path: Path, file: BinaryIO, piece: containers.Piece) -> _Opened:
    spliced = containers.Spliced(file, piece.spans)
    try:
        handle = _Forward(spliced)
    finally:  # whatever libsndfile makes of a read that failed
        spliced.check()
    _check_rate(path, handle.samplerate)
    return handle, spliced


def _check_rate(path: Path, rate: int) -> None:
    low, high = RATES
    if not low <= rate <= high:
        raise AudioError(path, f"a sample rate from {low} to {high} Hz expected, got {rate}")


def _piece(
    path: Path,
    file: BinaryIO,
    source: containers.Source,
    piece: containers.Piece,
    opened: _Opened,
    start: float,
    tell: _Teller,
) -> Generator[_Sound, None, float]:
    """What libsndfile decodes of a piece that begins at ``start`` s; returns where it ends."""
    (handle, spliced), rate = opened, opened[0].samplerate
    for hole in piece.holes:
        tell(hole.reason, start + hole.start, _known(hole.seconds))
    promised = handle.frames if handle.frames < 1 << 62 else 0  # not known
    count, lost, skip, left = 0, 0, 0, min(handle.frames, piece.decodable or handle.frames)
    buffer = np.empty((_FEED, handle.channels), np.float32)
    at, failed = piece, -1  # the run that is decoded, and the sample at which that failed last
    runs = list[tuple[containers.Piece, int]]()  # that are left of a damaged stream
    while left > 0 or runs:
        try:
            # Not beyond the end: FLAC would look for more there.
            part = handle.read(out=buffer[: min(_FEED, left)])
        except soundfile.SoundFileError:
            if count + lost == failed:
                break
            failed = count + lost
            runs = containers.without_damage(source, at, failed, failed + _FEED)
            part, left = buffer[:0], 0
        spliced.check()
        left = left - len(part) if len(part) else 0
        yield rate, part[skip:].copy()
        count, skip = count + len(part[skip:]), max(0, skip - len(part))
        if left <= 0 and runs:
            at, first = runs.pop(0)
            handle, spliced = _open(path, file, at)
            skip, gap, left = max(0, count + lost - first), first - count - lost, handle.frames
            if gap > 0:
                tell("damaged FLAC frames", start + count / rate, gap / rate)
                lost += gap
    end = start + count / rate
    missing = 0 if piece.holes else promised - count - lost
    beyond = promised * (piece.counted - 1)
    if beyond < 0:
        tell(f"{piece.detail}; all are used")
    if missing > piece.slack or beyond > 0:
        reason = piece.detail if beyond >= 0 and piece.detail else "damaged"
        tell(reason, end, (max(missing, 0) + max(beyond, 0)) / rate)
    return end


def _by_libav(
    path: Path,
    file: BinaryIO,
    source: containers.Source,
    pieces: list[containers.Piece],
    error: str,
    tell: _Teller,
) -> Iterator[_Sound]:
    """What PyAV decodes of a file that libsndfile does not open, because of ``error``."""
    begin = containers.begin_of(source)
    kind = containers.kind_of(source.at(begin, containers.LONGEST_MAGIC))
    if not kind:
        raise AudioError(path, f"not audio that can be read ({error})")
    start = 0.0
    for piece in pieces:
        for hole in piece.holes:
            tell(hole.reason, start + hole.start, _known(hole.seconds))
        spliced = containers.Spliced(file, piece.spans)
        stream = cast(BinaryIO, spliced)
        try:
            # What is known to be lost is not told again as a gap.
            for rate, samples in libav.decoded(stream, tell if not piece.holes else _say_nothing):
                spliced.check()
                _check_rate(path, rate)
                start += len(samples) / rate
                yield rate, samples
        except libav.LibavError as other:
            spliced.check()
            reason = f"{kind} that libsndfile does not read ({error}); {other}"
            if kind == "MP4" and libav.is_installed() and not containers.has_moov(source, begin):
                reason = "cut or damaged: MP4 without its table of contents (moov)"
            raise AudioError(path, reason) from other
        spliced.check()
        if piece.counted > 1:
            tell(piece.detail, start, (piece.counted - 1) * start)


def _say_nothing(*_: object) -> None:
    pass


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def _streamed(
    file: BinaryIO, path: Path, kind: str, minimum_seconds: float, tell: _Teller
) -> Iterator[_Sound]:
    """A stream with a header: by PyAV as it comes, else whole, by way of a temporary file."""
    if kind in _LIVE and libav.is_installed():
        try:
            yield from libav.decoded(file, tell)
        except libav.LibavError as error:
            raise AudioError(path, f"{kind} that cannot be read ({error})") from error
        return
    with tempfile.TemporaryFile(buffering=0) as copy:
        shutil.copyfileobj(file, copy)
        yield from _decoded(path, copy, minimum_seconds, tell, named_mpeg=kind == _TAGGED)


def _after(file: BinaryIO, head: bytes, begin: int) -> bytes:
    """What begins so many bytes after the head of a stream, as far as it tells the kind."""
    begin -= len(head)
    while begin > 0 and (passed := file.read(min(begin, 1 << 20))):
        begin -= len(passed)
    head = head[len(head) + begin :] if begin < 0 else b""
    return head + file.read(containers.LONGEST_MAGIC - len(head))


def _plain_files(
    file: BinaryIO, form: containers.PlainWav | None, minimum_seconds: float, tell: _Teller
) -> Iterator[_Sound]:
    """Samples of a WAV stream as they come, and of what is joined to it."""
    while form:
        file.read(form.begin)
        head = yield from _plain_samples(file, form, tell)
        while head and containers.kind_of(head) not in containers.CONTAINERS:
            head = _after(file, head, containers.chunk_length(head))
        if not head:
            return
        form, file = containers.plain_wav(head), cast(BinaryIO, _Rejoined(head, file))
    yield from _streamed(file, tell.path, "", minimum_seconds, tell)


def _plain_samples(
    file: BinaryIO, form: containers.PlainWav, tell: _Teller
) -> Generator[_Sound, None, bytes]:
    """Samples of a WAV stream as they come; returns what is read of that which follows them."""
    width, count, ended = form.bits // 8 * form.channels, 0, False
    left = form.length  # bytes; without end where the header leaves it open
    after = b""
    while not ended:
        part = int(min(math.ceil(LIVE_SECONDS * form.rate) * width, left))
        data = file.read(part)
        ended = len(data) < part
        left -= len(data)
        count += len(data) // width
        if not left:
            after = file.read(containers.LONGEST_MAGIC)
            padding = containers.before_chunk(after)
            if padding is None:
                counted = f"its header counts {form.length:.0f} bytes of samples"
                tell(f"{counted}, more follow; all are used")
                data, left = data + after, math.inf
                data += file.read(-len(data) % width)
            after = after[padding:]
        ended = ended or not left
        raw = np.frombuffer(data[: len(data) - len(data) % width], np.uint8)
        raw = raw.reshape(-1, form.bits // 8)
        if form.floats:
            values: np.ndarray = raw.view(f"<f{form.bits // 8}").astype(np.float32)
        elif form.bits == 8:
            values = (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
        else:
            wide = np.zeros((len(raw), 4), np.uint8)
            wide[:, -raw.shape[1] :] = raw
            values = wide.view("<i4").astype(np.float32) / np.float32(2**31)
        yield form.rate, values.reshape(-1, form.channels)
    if 0 < left < math.inf:
        place, lost = count / form.rate, left / width / form.rate
        tell(f"cut: {left:.0f} of {form.length:.0f} bytes of samples are missing", place, lost)
    return after if not left else b""


class _Rejoined(io.RawIOBase):
    """A stream of which the first bytes have been read."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        if count < 0:
            head, self._head = self._head, b""
            return head + self._rest.read()
        head, self._head = self._head[:count], self._head[count:]
        return head + (self._rest.read(count - len(head)) if len(head) < count else b"")


# From what was decoded to blocks.


def _one_channel(
    sounds: Iterable[_Sound], channel: str, minimum_seconds: float, tell: _Teller
) -> Iterator[_Sound]:
    """(Hz, float32 (samples,)) of the channel asked for, checked."""
    path, seconds, loud, low, high = tell.path, 0.0, 0.0, math.inf, -math.inf
    for rate, samples in sounds:
        chosen = _chosen(path, samples, channel)
        if wrong := unusable(chosen):
            place = f"within {len(samples) / rate:.2g} s of {seconds:.2f} s"
            raise AudioError(path, f"{wrong} {place}")
        seconds += len(chosen) / rate
        if len(samples):  # a constant is no sound
            low, high = min(low, float(chosen.min())), max(high, float(chosen.max()))
        if len(samples) and samples.shape[1] > 1:
            with np.errstate(invalid="ignore"):  # another channel may be infinite
                swing = np.minimum(np.abs(samples).max(axis=0), np.ptp(samples, axis=0))
            loud = max(loud, float(swing.max()))
        yield rate, np.ascontiguousarray(chosen)
    _check_length(path, seconds, minimum_seconds)
    which = {"mix": "the mix of its channels", "first": "the first channel"}.get(
        channel, f"channel {channel}"
    )
    other = "; another has sound (--channel)" if loud else ""
    if low == high:
        raise AudioError(path, f"digital silence: every sample of {which} is {low:.2g}{other}")
    peak = min(max(-low, high), high - low)
    if peak < BESIDE * loud:
        tell(f"{which} is {20 * math.log10(loud / peak):.0f} dB below another (--channel)")
    elif peak < FAINT:
        tell(f"{which} is nearly silent, {20 * math.log10(peak):.0f} dB at most")
    tell.end()


def _chosen(path: Path, samples: np.ndarray, channel: str) -> np.ndarray:
    if channel == "mix":
        return samples.mean(axis=1, dtype=np.float32)
    number = 1 if channel == "first" else int(channel)
    if number > samples.shape[1]:
        raise AudioError(path, f"channel {number} is not there, it has {samples.shape[1]}")
    return samples[:, number - 1]


def _raw_samples(
    file: BinaryIO, encoding: str, rate: int, minimum_seconds: float, tell: _Teller
) -> Iterator[_Sound]:
    path, (dtype, scale), size = tell.path, RAW[encoding], 0
    width = np.dtype(dtype).itemsize
    # No more than a moment at a time: someone may be waiting for what a live stream holds.
    while data := file.read(math.ceil(LIVE_SECONDS * rate) * width):
        size += len(data)
        data = data[: len(data) - size % width]  # of the last read
        with np.errstate(invalid="ignore"):  # a signalling NaN is told below
            samples = np.frombuffer(data, dtype).astype(np.float32) / np.float32(scale)
        if wrong := unusable(samples):
            raise AudioError(path, f"{wrong} before {size // width / rate:.2f} s")
        yield rate, samples
    if size < width:
        raise AudioError(path, f"raw {encoding} samples expected, got {size} bytes")
    if size % width:
        tell(f"cut: {size % width} of {width} bytes of its last sample", size // width / rate)
    _check_length(path, size // width / rate, minimum_seconds)


def _check_length(path: Path, seconds: float, minimum_seconds: float, why: str = "") -> None:
    why = f"; {why}" if why else ""
    if not seconds:
        raise AudioError(path, f"no samples{why}")
    if seconds < minimum_seconds - LENGTHENED:
        needed = f"at least {minimum_seconds:g} s needed"
        raise AudioError(path, f"too short: {seconds:.3f} s, {needed}{why}")


def _resampled(parts: Iterable[_Sound], sample_rate: int) -> Iterator[np.ndarray]:
    """Samples at one rate: each stretch of another one goes through a filter of its own."""
    for rate, stretch in itertools.groupby(parts, key=lambda part: part[0]):
        if rate == sample_rate:
            yield from (samples for _, samples in stretch)
            continue
        stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
        for _, samples in stretch:
            yield stream.resample_chunk(samples)
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _lengthened(parts: Iterable[np.ndarray], least: int) -> Iterator[np.ndarray]:
    """The same samples, and silence up to so many."""
    for part in parts:
        least -= len(part)
        yield part
    if least > 0:
        yield np.zeros(least, np.float32)


def _regrouped(parts: Iterable[np.ndarray], block: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of equal length, which a jitted consumer compiles once for."""
    held, count = [], 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count >= block:
            joined = np.concatenate(held)
            whole = count - count % block
            for start in range(0, whole, block):
                yield joined[start : start + block]
            held, count = [joined[whole:].copy()], count - whole
    if count:
        yield np.concatenate(held)


def _text(error: BaseException) -> str:
    text = str(getattr(error, "error_string", error)).strip().rstrip(".")
    # What libsndfile says of MPEG audio that mpg123 cannot begin with.
    return "nothing can be decoded" if text.startswith("File does not exist") else text
