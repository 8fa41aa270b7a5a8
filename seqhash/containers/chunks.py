"""Containers of plain or packed samples: one chunk of them, whose length is before it."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from seqhash.containers import mpeg
from seqhash.containers.kinds import kind_of
from seqhash.containers.source import MOST, Piece, Source, lacking, whole
from seqhash.containers.tags import tag_length

_SURPLUS = 1 << 12  # bytes after the samples that are no chunk, and still are nothing of note


class PlainWav(NamedTuple):
    """A WAV header in front of plain samples."""

    begin: int  # of the samples
    rate: int  # Hz
    channels: int
    bits: int  # of a sample
    floats: bool
    length: float  # bytes of samples; infinite where that is left open


class _Samples(NamedTuple):
    """The chunk of samples."""

    begin: int  # of the samples
    promised: int | None  # bytes of them; None, left open
    field: int  # where this number stands
    write: Callable[[int], bytes]  # the field for so many bytes
    is_chunk: Callable[[int], bool]  # whether one begins there
    mpeg: bool = False  # they are MPEG audio


def pieces(source: Source, begin: int, kind: str) -> tuple[list[Piece], int | None]:
    """The pieces of a file that begins there, and where another one is joined to it."""
    samples = CONTAINERS[kind](source, begin)
    if samples is None or samples.begin >= source.size:
        return [whole(source, begin)], None
    there, promised, detail = source.size - samples.begin, samples.promised, ""
    if promised is None:
        if samples.is_chunk(samples.begin):
            return [whole(source, begin)], None  # a chunk that is empty indeed
    elif promised <= there:
        end = samples.begin + promised
        ends = sorted({end, end + promised % 2, end + -promised % 8})  # as chunks are padded
        known = any(samples.is_chunk(at) or tag_length(source.at(at, 32)) for at in ends)
        another = _another(source, begin, ends, kind)
        if known or another or there - promised <= max(_SURPLUS, promised // 100):
            alone = [Piece(((begin, another),))] if another else [whole(source, begin)]
            return mpeg.pieces(source, samples.begin, end) if samples.mpeg else alone, another
        detail = f"its header counts {promised} of {there} bytes of samples"
    else:
        detail = f"cut: {there} of {promised} bytes of samples are there"
    if samples.mpeg:
        return mpeg.pieces(source, samples.begin, source.size), None
    field = samples.write(there)
    spans = ((begin, samples.field), field, (samples.field + len(field), source.size))
    if kind == "CAF" and (decodable := _caf_packets(source, begin, there - 4)) is not None:
        return [Piece(spans, detail=detail, decodable=decodable)], None
    return [Piece(spans, (promised or there) / there, detail)], None


def _another(source: Source, begin: int, ends: list[int], kind: str) -> int | None:
    """Where another file is joined to one whose samples end at one of some places."""
    for end in ends:
        if kind_of(source.at(end, 64)) in CONTAINERS:
            return end
    if kind in ("WAV", "AIFF"):
        little = source.at(begin, 4) in (b"RIFF", b"RF64")
        for name, _, position in _walk(source, ends[0], "little" if little else "big"):
            if name in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
                return position - 8
    return None


def plain_wav(head: bytes) -> PlainWav | None:
    """What a WAV file says that begins so; None where its samples are no plain ones, or the header
    is longer.
    """
    position, form = 12, b""
    while len(head) >= position + 8 and head.startswith(b"RIFF"):
        name, length = (
            head[position : position + 4],
            int.from_bytes(head[position + 4 : position + 8], "little"),
        )
        position += 8
        if name == b"data" and len(form) >= 16:
            tag, channels = (int.from_bytes(form[i : i + 2], "little") for i in (0, 2))
            rate, bits = int.from_bytes(form[4:8], "little"), int.from_bytes(form[14:16], "little")
            tag = int.from_bytes(form[24:26], "little") if tag == 0xFFFE else tag
            good = (tag == 1 and bits in (8, 16, 24, 32)) or (tag == 3 and bits in (32, 64))
            if not good or not channels:
                return None
            open_length = math.inf if _left_open(length) else length
            return PlainWav(position, rate, channels, bits, tag == 3, open_length)
        form = head[position : position + length] if name == b"fmt " else form
        position += length + length % 2
    return None


def before_chunk(head: bytes) -> int | None:
    """Bytes of padding before the chunk, the tag or the end of a stream that follows samples; None
    where none of these does.
    """
    for padding in (0, 1):
        name = head[padding : padding + 4]
        if len(head) < 8 or _printable(name) or tag_length(head[padding:]):
            return padding
    return None


def chunk_length(head: bytes) -> int:
    """Bytes of the chunk of a WAV file, or the tag, that begins so."""
    length = int.from_bytes(head[4:8], "little")
    return tag_length(head) or 8 + length + length % 2


def _riff(source: Source, begin: int) -> _Samples | None:
    order: Literal["big", "little"] = "big" if source.at(begin, 4) == b"RIFX" else "little"
    mpeg = False
    long: tuple[int, int] | None = None  # RF64: the length that does not fit 32 bits, and its place
    for name, length, position in _walk(source, begin + 12, order):
        if name == b"ds64":
            long = source.number(position + 8, 8, "little"), position + 8
        if name == b"fmt ":
            mpeg = source.number(position, 2, order) in (0x50, 0x55)
        if name != b"data":
            continue
        check = _fourcc(source, order)
        if long and length == 0xFFFFFFFF:
            return _Samples(position, long[0], long[1], lambda n: n.to_bytes(8, "little"), check)
        promised = None if _left_open(length) else length
        return _Samples(position, promised, position - 4, _field(4, order), check, mpeg)
    return None


def _left_open(length: int) -> bool:
    """Whether a length of 32 bits is one that a pipe leaves."""
    return not length or length >= 0xFFFFF000 or 0x7FFFF000 <= length <= 0x80000000


def _iff(source: Source, begin: int) -> _Samples | None:
    for name, length, position in _walk(source, begin + 12, "big"):
        if name in (b"SSND", b"BODY"):
            # SoX leaves 2^31 - 2^24 and the like.
            is_open = _left_open(length) or length == 8 or 0x7F000000 <= length <= 0x80000008
            promised = None if is_open else length
            check = _fourcc(source, "big")
            return _Samples(position, promised, position - 4, _field(4, "big"), check)
    return None


def _caf(source: Source, begin: int) -> _Samples | None:
    position = begin + 8
    while len(head := source.at(position, 12)) == 12:
        length = int.from_bytes(head[4:], "big", signed=True)
        position += 12
        if head[:4] == b"data":
            promised = length if length > 4 else None

            def is_chunk(at: int) -> bool:
                size = source.number(at + 4, 8, "big")
                return _printable(source.at(at, 4)) and at + 12 + size <= source.size

            return _Samples(position, promised, position - 8, _field(8, "big"), is_chunk)
        position += max(length, 0)
    return None


def _w64(source: Source, begin: int) -> _Samples | None:
    position = begin + 40
    while len(head := source.at(position, 24)) == 24:
        length = int.from_bytes(head[16:], "little")
        if head[:4] == b"data":
            promised = length - 24 if 24 < length < 1 << 62 else None

            def is_chunk(at: int) -> bool:
                size = source.number(at + 16, 8, "little")
                return _printable(source.at(at, 4)) and 24 <= size <= source.size - at

            def write(count: int) -> bytes:
                return (count + 24).to_bytes(8, "little")

            return _Samples(position + 24, promised, position + 16, write, is_chunk)
        position += max(24, length + -length % 8)
    return None


def _au(source: Source, begin: int) -> _Samples | None:
    order: Literal["big", "little"] = "big" if source.at(begin, 4) == b".snd" else "little"
    length = source.number(begin + 8, 4, order)
    promised = None if _left_open(length) else length
    samples = begin + source.number(begin + 4, 4, order)
    return _Samples(samples, promised, begin + 8, _field(4, order), lambda at: False)


CONTAINERS = {"WAV": _riff, "AIFF": _iff, "CAF": _caf, "W64": _w64, "AU": _au}


def _walk(
    source: Source, position: int, order: Literal["big", "little"]
) -> Iterator[tuple[bytes, int, int]]:
    """Chunks of a name and a length of four bytes each: (name, length, begin of its content)."""
    while len(head := source.at(position, 8)) == 8:
        length = int.from_bytes(head[4:], order)
        yield head[:4], length, position + 8
        position += 8 + length + length % 2


def _fourcc(source: Source, order: Literal["big", "little"]) -> Callable[[int], bool]:
    def is_chunk(at: int) -> bool:
        size = source.number(at + 4, 4, order)
        return _printable(source.at(at, 4)) and at + 8 + size <= source.size

    return is_chunk


def _field(width: int, order: Literal["big", "little"]) -> Callable[[int], bytes]:
    return lambda count: min(count, 256**width - 1).to_bytes(width, order)


def _printable(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _caf_packets(source: Source, begin: int, there: int) -> int | None:
    """Samples of the packets that are whole in so many bytes; None where packets are all equal, or
    their table is not there.
    """
    position, frames = begin + 8, 0
    while len(head := source.at(position, 12)) == 12 and head[:4] != b"data":
        length = int.from_bytes(head[4:], "big")
        if head[:4] == b"desc":
            frames = source.number(position + 12 + 20, 4, "big")
        if head[:4] == b"pakt":
            packets = size = 0
            for byte in source.at(position + 12 + 24, min(length - 24, source.size)):
                size = size << 7 | byte & 0x7F
                if byte < 0x80:
                    there -= size
                    if there < 0 or not size:
                        break
                    packets, size = packets + 1, 0
            return packets * frames
        position += 12 + length
    return None


def nist(source: Source, begin: int) -> Piece:
    """NIST SPHERE: a header of text."""
    head = source.at(begin, 1024)
    fields = dict(re.findall(rb"(\w+) -(?:i|s\d+) (\d+)", head))
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    promised = math.prod(int(fields.get(name, b"0")) for name in names)
    length = re.match(rb"\s*(\d+)", head[8:16])
    there = source.size - begin - int(length[1] if length else b"0")
    return lacking(whole(source, begin), there, promised, "bytes of samples")


def voc(source: Source, begin: int) -> tuple[list[Piece], int | None]:
    """``pieces`` of a VOC: blocks, up to one of no name."""
    position, sound, missing = begin + source.number(begin + 20, 2, "little"), 0, 0
    for _ in range(10 * MOST):
        if (name := source.at(position, 1)) in (b"", b"\0"):
            break
        length = source.number(position + 1, 3, "little")
        position += 4 + length
        if name in (b"\x01", b"\x02", b"\x09"):
            sound += length
            missing = max(0, position - source.size)
    if kind_of(source.at(position + 1, 64)) == "VOC":
        return [Piece(((begin, position + 1),))], position + 1
    return [lacking(whole(source, begin), sound - missing, sound, "bytes of samples")], None
