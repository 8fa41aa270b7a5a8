"""What libsndfile does not read, by PyAV (FFmpeg's libraries), if it is installed: AAC, ALAC, WMA,
AC-3, films and what else there is. The package's extra ``audio`` brings it.

Only containers of sound and film are opened, by their bytes and never by their name: a play list
or a name that FFmpeg would take for an address leads nowhere.
"""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

INSTALL = 'pip install "seqhash[audio]"'
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,loas,m4v,matroska,mlp,"
    "mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,qcp,rm,shn,sox,tak,truehd,tta,voc,w64,wav,wv,xwma"
)
# Those whose length is not guessed from the bit rate.
_TIMED = {"ape", "asf", "avi", "caf", "matroska", "mov", "ogg", "tak", "tta", "wav", "wv", "aiff"}
_FULL_SCALE = {"u8": 128.0, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}
_BUFFER, _LIVE_BUFFER = 2**15, 2**10  # bytes read at a time; of a stream, where 32 KiB may be 16 s
_PLANES = 8  # channels beyond which PyAV reads what is not there
_GAP = 0.5  # s between where sound should be and where it is, that are told ...
_COUNTED = 0.05  # ... and where frames say the number of their first sample
_SHORT = 0.1  # s that a file may be shorter than it says, for a codec's delay

Tell = Callable[[str, float | None, float | None], None]  # reason, place and seconds of a loss


class LibavError(ValueError):
    """Nothing can be decoded, or PyAV is not installed: why."""


def is_installed() -> bool:
    """Whether PyAV is there."""
    return importlib.util.find_spec("av") is not None


def decoded(
    file: BinaryIO, tell: Tell, tags: dict[str, str] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """The first audio stream of a file, as it comes: (Hz, float32 (samples, channels)).

    Args:
      file: from its beginning; sought only if it can be.
      tell: is told what is lost.
      tags: is given the file's own tags, by lower-case names.

    Raises:
      LibavError: says why nothing can be decoded.
    """
    try:
        import av
    except ImportError as error:
        raise LibavError(f"it needs PyAV: {INSTALL}") from error
    av.logging.set_level(av.logging.PANIC)  # what is lost is told
    # Tags need not be Unicode. PyAV 19 has them with surrogates, and knows no other way.
    lenient: dict[str, Any] = (
        {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    )
    try:
        container = av.open(
            file,
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": ""},
            buffer_size=_BUFFER if file.seekable() else _LIVE_BUFFER,
            **lenient,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise LibavError(_text(error)) from error
    with container:
        if not container.streams.audio:
            raise LibavError("there is no sound in it")
        stream = container.streams.audio[0]
        if tags is not None:
            said = (container.metadata | stream.metadata).items()
            tags |= {_unicode(name).lower(): _unicode(value) for name, value in said}
        yield from _decoded(av, container, stream, tell)


def _decoded(av: Any, container: Any, stream: Any, tell: Tell) -> Iterator[tuple[int, np.ndarray]]:
    seconds, bad, failure = 0.0, 0.0, ""  # s decoded; s that failed since
    begin: float | None = None  # of the file's time
    unheard = False  # whether the last packet gave nothing
    for packet in _packets(av, container, stream):
        if isinstance(packet, Exception):
            tell(f"damaged, and not read further ({_text(packet)})", seconds, None)
            break
        if packet.is_corrupt:
            failure = "cut"
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            bad += float((packet.duration or 0) * (packet.time_base or 0))
            failure = _text(error)
            continue
        unheard = not frames and (unheard or bool(packet.size))
        for frame in frames:
            if frame.format.is_planar and frame.layout.nb_channels > _PLANES:
                failure = f"{frame.layout.nb_channels} channels"
                continue
            if frame.time is not None:
                begin = frame.time if begin is None else begin
                ahead = frame.time - begin - seconds
                if ahead > (_COUNTED if container.format.name == "flac" else _GAP):
                    tell("a gap", seconds, ahead)
                    begin += ahead
                    bad, failure = 0.0, ""
            if failure:
                tell(f"damaged ({failure})", seconds, bad or None)
                bad, failure = 0.0, ""
            samples = _samples(frame)
            seconds += len(samples) / frame.sample_rate
            yield frame.sample_rate, samples
    if not seconds:
        raise LibavError(failure or "no sound can be decoded")
    missing = (_promised(container, stream) or 0.0) - seconds - max(begin or 0.0, 0.0)
    if missing > _SHORT:
        tell("cut or damaged", seconds, missing)
    elif failure or unheard:
        tell(f"damaged ({failure or 'the last packet is not whole'})", seconds, bad or None)


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Those of a stream; at last the error that the container can be read no further for."""
    packets = container.demux(stream)
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.EOFError):
            return
        except av.FFmpegError as error:
            yield error
            return


def _samples(frame: Any) -> np.ndarray:
    """float32 (samples, channels) of a decoded frame, whatever its layout and type."""
    values = frame.to_ndarray()
    planar = frame.format.is_planar
    values = values.T if planar else values.reshape(-1, frame.layout.nb_channels)
    scale = _FULL_SCALE.get(frame.format.name.removesuffix("p"))
    samples = values.astype(np.float32)
    if scale is None:
        return samples
    return (samples - 128.0) / 128.0 if scale == 128.0 else samples / np.float32(scale)


def _promised(container: Any, stream: Any) -> float | None:
    """Seconds that a file says it has."""
    if not _TIMED & set(container.format.name.split(",")):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if text := stream.metadata.get("DURATION"):  # Matroska
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    alone = len(container.streams) == 1
    return container.duration / 1e6 if alone and container.duration else None


def _unicode(text: str) -> str:
    """Text without surrogates, which no index and no terminal takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
