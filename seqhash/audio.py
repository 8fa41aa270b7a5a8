"""Any audio file to mono float32 samples at an explicit rate, on the host (paper, III: first
channel, 16 kHz).

WAV, AIFF and AU (8 to 32 bit integers, floats), FLAC, Ogg (Vorbis, Opus) and MP3 at any rate and
channel count are decoded by libsndfile and resampled by soxr, block by block, so that files of
hours take the memory of a block. A bad file is an ``AudioError`` that names the file and the
reason, never an error of these libraries.

How a cut file is known, since libsndfile mostly reads it without a word:

========  ==========================================================================================
WAV       the data chunk is longer than the file (also RF64); a length that was left open by a pipe
          is believed
FLAC      the decoder loses its place, or there are fewer samples than the header promises
Ogg       the last page is cut, or does not end its stream
MP3       fewer bytes or samples than the Xing/Info header promises; without one, the last MPEG
          frame is cut, so that a cut exactly between two MPEG frames goes unseen
========  ==========================================================================================
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import soundfile
import soxr

# Hz; beyond these a header is damaged, and resampling would take any amount of memory
RATES = (1_000, 768_000)
RAW = {"s16le": ("<i2", 32768.0), "f32le": ("<f4", 1.0)}  # raw samples: dtype, full scale
# a sample beyond is no audio, whatever its scale; the power spectrum of 1e19 overflows float32
LARGEST = 1e12
# source samples per read; fixed, so that samples do not depend on the block size asked for
_FEED = 1 << 16
_JUNK = 1 << 16  # bytes before the first MPEG frame that are searched for it, as mpg123 does


class AudioError(ValueError):
    """A file that cannot be used as audio: which one, and why."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def blocks(
    path: str | os.PathLike[str],
    *,
    sample_rate: int,
    block_seconds: float = 60.0,
    minimum_seconds: float = 0.0,
) -> Iterator[np.ndarray]:
    """The first channel of a file, block by block; the samples do not depend on ``block_seconds``.

    Args:
      path: the file.
      sample_rate: of the result, Hz.
      block_seconds: length of every block but the last, which is what is left.
      minimum_seconds: a shorter file is an error.

    Yields:
      float32 (samples,). A file at this rate already gives its samples unchanged; else n samples at
      rate r become round(n * sample_rate / r).

    Raises:
      AudioError: missing, not a regular file, empty, not audio, truncated, damaged, too short,
        samples that are NaN, infinite or beyond ``LARGEST``, or digital silence (every sample 0).
        What can only be known at the end is raised there, after the blocks, so a consumer that
        stops early does not learn of it.
    """
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}.")
    block = round(block_seconds * sample_rate)
    if block <= 0:
        raise ValueError(f"block_seconds must be at least one sample, got {block_seconds}.")
    return _blocks(Path(path), sample_rate, block, minimum_seconds)


def read(
    path: str | os.PathLike[str], *, sample_rate: int, minimum_seconds: float = 0.0
) -> np.ndarray:
    """The whole first channel, float32 (samples,): the blocks of ``blocks`` joined, with its
    errors.
    """
    return np.concatenate(
        list(blocks(path, sample_rate=sample_rate, minimum_seconds=minimum_seconds))
    )


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
) -> Iterator[np.ndarray]:
    """Raw mono samples of a stream without a header, block by block, in the memory of a block.

    Args:
      file: buffered, read to its end.
      encoding: a key of ``RAW``.
      rate: of the stream, Hz.
      sample_rate, block_seconds, minimum_seconds: as of ``blocks``.

    Yields:
      float32 (samples,).

    Raises:
      AudioError: of the path ``-``: no samples, half a sample at the end, too short, samples that
        are NaN, infinite or beyond ``LARGEST``.
    """
    samples = _raw_samples(file, encoding, rate, minimum_seconds)
    return _regrouped(_resampled(samples, rate, sample_rate), round(block_seconds * sample_rate))


def _raw_samples(
    file: BinaryIO, encoding: str, rate: int, minimum_seconds: float
) -> Iterator[np.ndarray]:
    path, (dtype, scale), size = Path("-"), RAW[encoding], 0
    width = np.dtype(dtype).itemsize
    while data := file.read(_FEED * width):
        size += len(data)
        if size % width:  # the last read
            break
        samples = np.frombuffer(data, dtype).astype(np.float32) / np.float32(scale)
        if wrong := unusable(samples):
            raise AudioError(path, f"{wrong} before {size // width / rate:.2f} s")
        yield samples
    if not size or size % width:
        raise AudioError(path, f"raw {encoding} samples expected, got {size} bytes")
    _check_length(path, size // width, rate, minimum_seconds)


def _blocks(
    path: Path, sample_rate: int, block: int, minimum_seconds: float
) -> Iterator[np.ndarray]:
    promise = _check_container(path)
    with _open(path) as handle:
        samples = _first_channel(
            path, handle, handle.frames if promise is None else promise, minimum_seconds
        )
        yield from _regrouped(_resampled(samples, handle.samplerate, sample_rate), block)


def _open(path: Path) -> soundfile.SoundFile:
    try:
        handle = soundfile.SoundFile(os.fsencode(path))  # of a str it takes UTF-8 only
    # TypeError: a suffix for headerless files, .raw
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise AudioError(path, f"not audio that can be read ({_text(error)})") from error
    low, high = RATES
    if not low <= handle.samplerate <= high:
        handle.close()
        raise AudioError(
            path, f"a sample rate from {low} to {high} Hz expected, got {handle.samplerate}"
        )
    if handle.frames >= 1 << 62:
        handle.close()
        raise AudioError(
            path,
            "its header does not say how many samples there are (FLAC from a pipe?); write it anew",
        )
    return handle


def _first_channel(
    path: Path, handle: soundfile.SoundFile, promise: int, minimum_seconds: float
) -> Iterator[np.ndarray]:
    """Source samples of the first channel in reads of ``_FEED``, checked; ``promise``: how many
    there should be.
    """
    rate, count, silent = handle.samplerate, 0, True
    _check_length(path, handle.frames, rate, minimum_seconds)  # before the first block goes out
    buffer = np.empty((_FEED, handle.channels), np.float32)
    while True:
        try:
            got = handle.read(out=buffer)[:, 0]
        except (soundfile.SoundFileError, OSError) as error:
            place = f"within {_FEED / rate:.2g} s of {count / rate:.2f} s"
            raise AudioError(path, f"truncated or damaged {place} ({_text(error)})") from error
        if not len(got):
            break
        if wrong := unusable(got):
            raise AudioError(path, f"{wrong} within {_FEED / rate:.2g} s of {count / rate:.2f} s")
        count += len(got)
        silent = silent and not got.any()
        yield got.copy()
    if count < promise:
        cause = (
            "truncated or damaged"
            if promise == handle.frames
            else "an MP3 of variable rate without a Xing header"
        )
        raise AudioError(path, f"{cause}: {count} of {promise} samples can be read")
    _check_length(path, count, rate, minimum_seconds)
    if silent:
        raise AudioError(path, "digital silence: every sample of the first channel is 0")


def _check_length(path: Path, count: int, rate: int, minimum_seconds: float) -> None:
    if not count:
        raise AudioError(path, "no samples")
    if count < minimum_seconds * rate:
        raise AudioError(
            path, f"too short: {count / rate:.3f} s, at least {minimum_seconds:g} s needed"
        )


def _resampled(
    samples: Iterable[np.ndarray], source_rate: int, sample_rate: int
) -> Iterator[np.ndarray]:
    if source_rate == sample_rate:
        yield from samples
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    for part in samples:
        yield stream.resample_chunk(part)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


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
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


# What libsndfile does not tell: whether the container is whole.


def _check_container(path: Path) -> int | None:
    """Samples that there should be at least, where the container says it better than libsndfile;
    None elsewhere.
    """
    try:
        if not path.exists():
            raise AudioError(path, "no such file")
        if path.is_dir():
            raise AudioError(path, "a folder, not a file")
        if not path.is_file():
            raise AudioError(path, "not a regular file")  # a pipe would block for ever
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise AudioError(path, "an empty file (0 bytes)")
            return _inspect(path, file, size)
    except OSError as error:
        raise AudioError(path, f"cannot be read ({error.strerror or error})") from error


def _inspect(path: Path, file: BinaryIO, size: int) -> int | None:
    magic = _bytes(file, 0, 4)
    if magic in (b"RIFF", b"RIFX", b"RF64"):
        _check_riff(path, file, size)
    elif magic == b"OggS":
        _check_ogg(path, file, size)
    elif magic[:3] == b"ID3" or path.suffix.lower() == ".mp3" or _mpeg_frame(magic):
        return _mpeg_promise(path, file, size)
    elif path.suffix.lower() in (".au", ".snd") and magic not in (b".snd", b"dns."):
        # libsndfile would take any bytes for samples.
        raise AudioError(path, "not audio: no AU header in it")
    return None


def _bytes(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _check_riff(path: Path, file: BinaryIO, size: int) -> None:
    head = _bytes(file, 0, 12)
    if head[8:] != b"WAVE":
        return  # a film or a picture: libsndfile says so
    order: Literal["big", "little"] = "big" if head[:4] == b"RIFX" else "little"
    position, long_length = 12, None
    while position + 8 <= size:
        name = _bytes(file, position, 4)
        length = int.from_bytes(_bytes(file, position + 4, 4), order)
        position += 8
        if name == b"ds64":  # RF64: the lengths that do not fit 32 bits
            long_length = int.from_bytes(_bytes(file, position + 8, 8), "little")
        if name == b"data":
            # Written by a pipe.
            left_open = length >= 0xFFFFF000 or 0x7FFFF000 <= length <= 0x7FFFFFFF
            promised = length if long_length is None else long_length
            if promised > size - position and (long_length is not None or not left_open):
                raise AudioError(
                    path, f"truncated: {size - position} of {promised} bytes of samples are there"
                )
            return
        position += length + length % 2
    raise AudioError(path, "truncated or damaged: no data chunk")


def _check_ogg(path: Path, file: BinaryIO, size: int) -> None:
    position, ended = 0, False
    while position >= 0:
        header = _bytes(file, position, 27 + 255)
        lengths = header[27 : 27 + header[26]] if len(header) >= 27 else b""
        following = position + 27 + len(lengths) + sum(lengths)
        if len(header) < 27 or len(lengths) < header[26] or following > size:
            raise AudioError(path, "truncated: the last Ogg page is cut")
        if header[5] & 2 and ended:
            raise AudioError(
                path,
                "several Ogg streams one after the other, of which only the first would be read",
            )
        ended = bool(header[5] & 4)
        position = _find_page(file, following)
    if not ended:
        raise AudioError(path, "truncated: the last Ogg page does not end its stream")


def _find_page(file: BinaryIO, position: int) -> int:
    """Where the next Ogg page starts, nearly always here; -1 if nowhere."""
    while piece := _bytes(file, position, 4):
        if piece == b"OggS":
            return position
        at = _bytes(file, position, _JUNK).find(b"OggS", 1)
        # A page that starts in the last 3 bytes is found next time.
        position += at if at > 0 else _JUNK - 3
    return -1


class _MpegFrame(NamedTuple):
    """What the four bytes of an MPEG audio Layer III header (ISO 11172-3, 13818-3) tell."""

    length: int  # bytes, header included
    samples: int  # per channel
    xing: int  # bytes from its start to where a Xing/Info header would be


_KBPS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _mpeg_frame(header: bytes) -> _MpegFrame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    kbps, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer != 1 or kbps in (0, 15) or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = _KBPS[3 if version == 3 else 2][kbps] * 1000
    mono = header[3] >> 6 == 3
    if version == 3:
        return _MpegFrame(144 * bits // hertz + padding, 1152, 21 if mono else 36)
    return _MpegFrame(72 * bits // hertz + padding, 576, 13 if mono else 21)


def _mpeg_promise(path: Path, file: BinaryIO, size: int) -> int | None:
    start, head = 0, _bytes(file, 0, 10)
    if head[:3] == b"ID3" and len(head) == 10:
        length = sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        start = 10 + length + (10 if head[5] & 0x10 else 0)
    # Some taggers put ID3 before FLAC, some people call it .mp3.
    if _bytes(file, start, 4) == b"fLaC":
        return None
    junk = _first_mpeg_frame(_bytes(file, start, _JUNK))
    if junk is None:
        raise AudioError(path, "not audio: no MPEG frame in it")
    start += junk
    frame = _mpeg_frame(_bytes(file, start, 4))
    tag = _bytes(file, start + (frame.xing if frame else 0), 16)
    if tag[:4] not in (b"Xing", b"Info") or not int.from_bytes(tag[4:8], "big") & 1:
        return _walk_mpeg(path, file, size, start)
    promised = int.from_bytes(tag[12:16], "big") if tag[7] & 2 else 0
    if promised > size - start:  # here, because mpg123 would write about it to stderr
        raise AudioError(path, f"truncated: {size - start} of {promised} bytes are there")
    return None  # libsndfile takes the number of samples from the Xing header


def _first_mpeg_frame(head: bytes) -> int | None:
    """Where the first header is that is followed by another one, or by the end."""
    position = head.find(b"\xff")
    while position >= 0:
        if frame := _mpeg_frame(head[position : position + 4]):
            following = head[position + frame.length : position + frame.length + 4]
            if not following or _mpeg_frame(following):
                return position
        position = head.find(b"\xff", position + 1)
    return None


def _walk_mpeg(path: Path, file: BinaryIO, size: int, position: int) -> int:
    """Samples by counting frames: without a Xing header libsndfile guesses from the first frame and
    stops there.
    """
    samples = 0
    while frame := _mpeg_frame(_bytes(file, position, 4)):
        position += frame.length
        if position > size:
            raise AudioError(path, "truncated: the last MPEG frame is cut")
        samples += frame.samples
    # A first frame that leans on one before it, and a guess a little short.
    return max(samples - 2 * 1152, 0)
