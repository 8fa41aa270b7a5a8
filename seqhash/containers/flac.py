"""FLAC (RFC 9639): how many samples there are, and what is left where frames are damaged."""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from seqhash.containers.source import MOST, Piece, Source

_LARGEST_FRAME = 1 << 20  # bytes of a FLAC frame, which a hole may follow
_TAIL = 1 << 18  # bytes at the end of a FLAC file that hold its last frames


class Frame(NamedTuple):
    begin: int  # byte of the file
    first: int  # sample
    samples: int


_CRC8 = [0] * 256
_CRC16 = [0] * 256
for _byte in range(256):
    _short, _long = _byte, _byte << 8
    for _ in range(8):
        _short = (_short << 1 ^ (0x07 if _short & 0x80 else 0)) & 0xFF
        _long = (_long << 1 ^ (0x8005 if _long & 0x8000 else 0)) & 0xFFFF
    _CRC8[_byte], _CRC16[_byte] = _short, _long


def pieces(source: Source, begin: int) -> list[Piece]:
    joined = source.matches(rb"fLaC[\0\x80]\0\0\x22", begin + 1, source.size, 8)
    starts = [begin, *islice(joined, MOST // 10)]
    return [_piece(source, low, high) for low, high in pairwise([*starts, source.size])]


def _piece(source: Source, begin: int, end: int) -> Piece:
    total = source.number(begin + 21, 5, "big") & 0xFFFFFFFFF
    there = _end(source, (begin, end)) or total
    whole = Piece(((begin, end),), stream=(begin, end))
    if there == total:
        return whole
    detail = f"its header counts {total} of {there} samples" if total else ""
    if there < total:
        detail = f"cut: {there} of {total} samples are there"
    spans = (_head(source, begin, there, 26), (begin + 26, end))
    return whole._replace(spans=spans, counted=total / there if total else 1.0, detail=detail)


def without_damage(
    source: Source, piece: Piece, sample: int, beyond: int
) -> list[tuple[Piece, int]]:
    """What is left of a FLAC stream from where its decoder failed, without damaged frames that
    begin before ``beyond``: (a run of frames, its first sample). One piece would not do, since
    libFLAC fills with silence what is missing in it.

    Args:
      sample: all before this one was decoded.
      beyond: the damage begins before this one.
    """
    if piece.stream is None:
        return []
    begin, end = piece.stream
    left, last_span = list[Frame](), piece.spans[-1]
    assert isinstance(last_span, tuple)
    for frame in frames(source, begin, last_span[0], end):
        if frame.first + frame.samples > sample:
            left.append(frame)
            if frame.first >= beyond:
                break
    if not left:
        return []
    runs = list[tuple[int, int, int, int]]()  # (first byte, end, first sample, end)
    for frame, after in zip(left, [*(f.begin for f in left[1:]), end], strict=True):
        last = frame.first + frame.samples
        if frame.first >= beyond:  # all behind it, damaged or not
            after, last = end, _end(source, piece.stream) or last
        elif after - frame.begin > _LARGEST_FRAME or not is_whole(
            source.at(frame.begin, after - frame.begin)
        ):
            continue
        if runs and runs[-1][3] == frame.first:
            runs[-1] = (runs[-1][0], after, runs[-1][2], last)
        else:
            runs.append((frame.begin, after, frame.first, last))
    found = list[tuple[Piece, int]]()
    for low, high, first, last in runs:
        head = _head(source, begin, last - first, 42)
        alone = head[:4] + b"\x80" + head[5:]  # STREAMINFO, the last block of metadata
        found.append((piece._replace(spans=(alone, (low, high))), first))
    return found


def _end(source: Source, stream: tuple[int, int]) -> int:
    """Samples that there are, by the last frame; 0 where that is not found."""
    begin, end = stream
    last = list(frames(source, begin, max(begin, end - _TAIL), end))
    return last[-1].first + last[-1].samples if last else 0


def _head(source: Source, begin: int, samples: int, count: int) -> bytes:
    """The first bytes of a stream, of so many samples."""
    head = bytearray(source.at(begin, count))
    head[21:26] = (samples | (head[21] & 0xF0) << 32).to_bytes(5, "big")
    return bytes(head)


def frames(source: Source, stream: int, begin: int, end: int) -> Iterator[Frame]:
    """Those of a stream whose headers are whole and that touch another one: a header alone may be
    an accident.
    """
    fixed = source.number(stream + 8, 2, "big")
    last, alone = 0, dict[int, Frame]()  # the end of the last one; by theirs, those that touch none
    for position in source.matches(rb"\xff[\xf8\xf9]", begin, end, 2):
        if (frame := _frame(source.at(position, 16), position, fixed)) is None:
            continue
        before, after = alone.get(frame.first), frame.first + frame.samples
        if before or (last and frame.first == last):
            if before:
                yield before
            yield frame
            last, alone = after, {}
        elif frame.first >= last:
            alone[after] = frame


def _frame(head: bytes, begin: int, fixed: int) -> Frame | None:
    """The frame whose header (16 bytes hold any) begins so.

    Args:
      fixed: samples of a frame, where frames of equal length are numbered.
    """
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    size, rate = head[2] >> 4, head[2] & 15
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # of a number as in UTF-8
    width = max(ones, 1)
    if not size or rate == 15 or head[3] >> 4 > 10 or ones == 1 or ones > 7:
        return None
    number = head[4] & (0x7F >> ones)
    for byte in head[5 : 4 + width]:
        number = number << 6 | byte & 0x3F
    position = 4 + width
    extra = {6: 1, 7: 2}.get(size, 0)
    count = int.from_bytes(head[position : position + extra], "big") + 1
    if not extra:
        count = 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
    position += extra + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if len(head) <= position or _crc8(head[:position]) != head[position]:
        return None
    return Frame(begin, number if head[1] & 1 else number * fixed, count)


def is_whole(data: bytes) -> bool:
    """Whether a frame's CRC-16 is right; after the last one, a tag may follow."""
    return len(data) > 2 and 0 in (_crc16(data), _crc16(data[:-128]))


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC16[crc >> 8 ^ byte] ^ crc << 8 & 0xFFFF
    return crc
