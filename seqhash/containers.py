"""What the bytes of an audio file say: where its sound lies, how much there should be, what is
damaged; and from that a file that libsndfile reads to its end.

libsndfile believes headers: it stops where a header counts too few samples, refuses what a pipe
left open, reads the first of several joined streams, and takes a cut file for a whole one. So the
containers are walked here first, and what is handed to it are ``Piece``s: parts of the file, with
a length or a header put right between them. A file that is as it should be is one piece, the whole.

==============  ====================================================================================
WAV, RF64,      the chunk of samples is longer than the file: cut; its length is 0, open or too
AIFF, 8SVX,     small, and what follows is no chunk: all that follows are samples
CAF, W64, AU
VOC             the last block is longer than the file
FLAC            the last frame tells how many samples there are; at damage that the decoder meets,
                frames whose CRC-16 is wrong are left out
Ogg             pages whose CRC-32 is wrong are left out; chained streams are pieces
MPEG audio      frames are counted; what lies between them is left out; each change of rate or
                channels is a piece; a Xing/Info header with another count is corrected
ID3, APE tags   passed over, before any of these
==============  ====================================================================================
"""

import bisect
import io
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO, Literal, NamedTuple

_WINDOW = 1 << 16  # bytes read at a time
_JUNK = 1 << 16  # bytes before the first MPEG frame that are searched for it, as mpg123 does
_RUN = 4  # MPEG headers in a row that are no accident
_LARGEST_FRAME = 1 << 20  # bytes of a FLAC frame, which a hole may follow
_TAIL = 1 << 18  # bytes at the end of a FLAC file that hold its last frames
_SURPLUS = 1 << 12  # bytes after the samples that are no chunk, and still are nothing of note


class Hole(NamedTuple):
    """Sound that a piece lacks, in seconds of the piece."""

    start: float
    seconds: float
    reason: str


class Piece(NamedTuple):
    """A part of a file that is a file for libsndfile."""

    spans: tuple[bytes | tuple[int, int], ...]  # bytes, or (begin, end) of the file
    counted: float = 1.0  # what the header counts, as a multiple of what is there
    detail: str = ""  # why that is another number
    holes: tuple[Hole, ...] = ()
    slack: int = 0  # samples that may be missing at the end of a whole one
    decodable: int | None = None  # samples, where the decoder would go on with what is not there
    stream: tuple[int, int] | None = None  # where a FLAC stream lies, whose damage can be skipped


class Source:
    """A file's bytes at any place, read by the window."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._descriptor = file, file.fileno()
        self.size = os.fstat(self._descriptor).st_size
        self._start, self._held = 0, b""

    def at(self, position: int, count: int) -> bytes:
        """So many bytes from a position; fewer at the end."""
        if position >= self.size:  # where a damaged length leads
            return b""
        offset = position - self._start
        if not 0 <= offset <= len(self._held) - count:
            self._held = os.pread(self._descriptor, max(count, _WINDOW), position)
            self._start, offset = position, 0
        return self._held[offset : offset + count]

    def number(self, position: int, count: int, order: Literal["big", "little"]) -> int:
        return int.from_bytes(self.at(position, count), order)

    def matches(self, pattern: bytes, begin: int, end: int, width: int) -> Iterator[int]:
        """Where a regular expression of ``width`` bytes matches, overlaps included."""
        compiled = re.compile(b"(?=" + pattern + b")", re.DOTALL)
        for low in range(begin, end, 1 << 20):
            piece = os.pread(self._descriptor, min((1 << 20) + width - 1, end - low), low)
            for found in compiled.finditer(piece):
                yield low + found.start()


class Spliced(io.RawIOBase):
    """The spans of a piece as one file that can be read and sought."""

    def __init__(self, file: BinaryIO, spans: Sequence[bytes | tuple[int, int]]) -> None:
        self._file, self._descriptor, self._spans = file, file.fileno(), spans
        lengths = [len(s) if isinstance(s, bytes) else s[1] - s[0] for s in spans]
        self._begins = [0]
        for length in lengths:
            self._begins.append(self._begins[-1] + length)
        self._position = 0
        self.error: OSError | None = None  # which libsndfile would take for the end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._begins[-1]}
        self._position = max(0, base[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills the buffer, or reads to the end: a short read is an end to libsndfile."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and self._position < self._begins[-1]:
            data = self._read(len(view) - filled)
            if not data:
                break
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._position += len(data)
        return filled

    def _read(self, count: int) -> bytes:
        which = bisect.bisect_right(self._begins, self._position) - 1
        span, offset = self._spans[which], self._position - self._begins[which]
        if isinstance(span, bytes):
            return span[offset : offset + count]
        try:
            begin = span[0] + offset
            return os.pread(self._descriptor, min(count, span[1] - begin), begin)
        except OSError as error:
            self.error = error
            return b""


# What a file is, by its first bytes.

_KINDS = (
    (rb"RIFF....WAVE|RIFX....WAVE|RF64....WAVE", "WAV"),
    (rb"FORM....(AIF[FC]|8SVX|16SV)", "AIFF"),
    (rb"riff\x2e\x91\xcf\x11", "W64"),
    (rb"caff\0", "CAF"),
    (rb"\.snd|dns\.", "AU"),
    (rb"Creative Voice File\x1a", "VOC"),
    (rb"fLaC", "FLAC"),
    (rb"OggS", "Ogg"),
    (rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", "MP4"),
    (rb"\x1aE\xdf\xa3", "Matroska or WebM"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
    (rb"\x0b\x77|\x77\x0b", "AC-3"),
    (rb"\xff[\xf0\xf1\xf8\xf9][\x40-\x7f\x80-\xbf]", "AAC"),
    (rb"ADIF", "AAC"),
    (rb"RIFF....AVI ", "AVI"),
    (rb"FLV\x01", "FLV"),
    (rb"#!AMR", "AMR"),
    (rb"MAC ", "Monkey's Audio"),
    (rb"wvpk", "WavPack"),
    (rb"TTA[12]", "TTA"),
    (rb"MPCK|MP\+", "Musepack"),
    (rb"DSD |FRM8", "DSD"),
    (rb"\.RMF", "RealAudio"),
    (rb"tBaK", "TAK"),
    (rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80", "DTS"),
    (rb"\x47.{187}\x47.{187}\x47", "MPEG transport stream"),
    (rb"\0\0\x01\xba", "MPEG program stream"),
    (rb"....\xf8\x72\x6f[\xba\xbb]", "TrueHD"),
    (rb"RIFF....QLCM|ea3\x03|ajkg|NutM|nut/multimedia|\x06\x0e\x2b\x34", "rare sound or film"),
)
LIBSNDFILE = ("WAV", "AIFF", "W64", "CAF", "AU", "VOC", "FLAC", "Ogg", "MPEG audio")
LONGEST_MAGIC = 1 << 13  # bytes that tell a kind


def kind_of(head: bytes) -> str:
    """What a file is that begins so, tags left aside; empty where that is not known."""
    for pattern, name in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return name
    return "MPEG audio" if _in_a_row(lambda p, n: head[p : p + n], 0, len(head)) else ""


def after_tags(at: Callable[[int, int], bytes]) -> int:
    """Where a file begins behind the ID3v2 and APE tags in front of it."""
    position = 0
    while length := _tag_length(at(position, 32)):
        position += length
    return position


def _tag_length(head: bytes) -> int:
    """Bytes of the tag that begins so; 0 where none does."""
    if head[:3] == b"ID3" and len(head) >= 10:
        length = sum((byte & 0x7F) << s for byte, s in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return 10 + length + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else 0


def pieces(source: Source, *, mpeg: bool = False) -> list[Piece]:
    """What libsndfile is to read of a file, one after the other; the whole where nothing is known
    of it, empty where it says of itself that it is MPEG audio and has none.

    Args:
      mpeg: it is called .mp3 or the like.
    """
    begin = after_tags(source.at)
    if mpeg and not kind_of(source.at(begin, LONGEST_MAGIC)):
        return _mpeg(source, begin, source.size)
    return pieces_from(source, begin)


def pieces_from(source: Source, begin: int) -> list[Piece]:
    """``pieces`` of what begins there."""
    head = source.at(begin, LONGEST_MAGIC)
    kind = kind_of(head)
    if kind in _CHUNKS:
        return _chunked(source, begin, kind)
    if kind == "VOC":
        return [_voc(source, begin)]
    if kind == "FLAC":
        return _flac(source, begin)
    if kind == "Ogg":
        return _ogg(source, begin)
    if kind == "MPEG audio" or (begin and not kind):
        return _mpeg(source, begin, source.size) or [_whole(source, begin)]
    if kind == "MP4":
        return _mp4(source, begin)
    if kind == "AVI":
        promised = source.number(begin + 4, 4, "little") + 8
        return [_lacking(_whole(source, begin), source.size - begin, promised, "bytes")]
    if kind == "MPEG transport stream":
        there = source.size - begin
        return [_lacking(_whole(source, begin), there, there + -there % 188, "bytes")]
    if head[:8] == b"NIST_1A\n":
        return [_nist(source, begin, head)]
    return [_whole(source, begin)]


def _lacking(piece: Piece, there: int, promised: int, what: str) -> Piece:
    """A piece that is cut where less is there than was promised."""
    if promised <= there or there <= 0:
        return piece
    return piece._replace(
        counted=promised / there, detail=f"cut: {there} of {promised} {what} are there"
    )


def _mp4(source: Source, begin: int) -> list[Piece]:
    """A file for each ftyp on the uppermost level."""
    starts, position = [begin], begin
    while len(head := source.at(position, 16)) == 16:
        if head[4:8] == b"ftyp" and position > begin:
            starts.append(position)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length
        position += max(length, 8)
    return [Piece(((low, high),)) for low, high in pairwise([*starts, source.size])]


class PlainWav(NamedTuple):
    """A WAV header in front of plain samples."""

    begin: int  # of the samples
    rate: int  # Hz
    channels: int
    bits: int  # of a sample
    floats: bool
    length: float  # bytes of samples; infinite where that is left open


def plain_wav(head: bytes, begin: int) -> PlainWav | None:
    """What a WAV file says that begins so; None where its samples are no plain ones, or the header
    is longer.
    """
    position, form = begin + 12, b""
    while len(head) >= position + 8 and head[begin : begin + 4] == b"RIFF":
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


def _whole(source: Source, begin: int) -> Piece:
    before_tag = source.size - 128
    tag = begin < before_tag and source.at(before_tag, 3) == b"TAG"
    return Piece(((begin, before_tag if tag else source.size),))


# Containers of chunks: samples in one of them, whose length is before it.


class _Samples(NamedTuple):
    """The chunk of samples."""

    begin: int  # of the samples
    promised: int | None  # bytes of them; None, left open
    field: int  # where this number stands
    write: Callable[[int], bytes]  # the field for so many bytes
    is_chunk: Callable[[int], bool]  # whether one begins there
    mpeg: bool = False  # they are MPEG audio


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
    return not length or length >= 0xFFFFF000 or 0x7FFFF000 <= length <= 0x7FFFFFFF


def begins_chunk(head: bytes) -> bool:
    """Whether a stream of chunks may go on so, or is at its end."""
    return len(head) < 8 or _printable(head[:4]) or _printable(head[1:5])


def _iff(source: Source, begin: int) -> _Samples | None:
    for name, length, position in _walk(source, begin + 12, "big"):
        if name in (b"SSND", b"BODY"):
            promised = None if length in (0, 8, 0xFFFFFFFF) else length
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
    promised = None if length in (0, 0xFFFFFFFF) else length
    samples = begin + source.number(begin + 4, 4, order)
    return _Samples(samples, promised, begin + 8, _field(4, order), lambda at: False)


_CHUNKS = {"WAV": _riff, "AIFF": _iff, "CAF": _caf, "W64": _w64, "AU": _au}


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


def _chunked(source: Source, begin: int, kind: str) -> list[Piece]:
    samples = _CHUNKS[kind](source, begin)
    if samples is None or samples.begin >= source.size:
        return [_whole(source, begin)]
    there, promised, detail = source.size - samples.begin, samples.promised, ""
    if promised is None:
        if samples.is_chunk(samples.begin):
            return [_whole(source, begin)]  # a chunk that is empty indeed
    elif promised <= there:
        ends = {samples.begin + promised + pad for pad in (0, promised % 2, -promised % 8)}
        known = any(samples.is_chunk(at) or _tag_length(source.at(at, 32)) for at in ends)
        another = _another(source, sorted(ends), kind)
        if known or another or there - promised <= max(_SURPLUS, promised // 100):
            first = Piece(((begin, another or source.size),))
            if samples.mpeg:
                return _mpeg(source, samples.begin, samples.begin + promised) + (
                    pieces_from(source, another) if another else []
                )
            return [first, *(pieces_from(source, another) if another else [])]
        detail = f"its header counts {promised} of {there} bytes of samples"
    else:
        detail = f"cut: {there} of {promised} bytes of samples are there"
    if samples.mpeg:
        return _mpeg(source, samples.begin, source.size) or [_whole(source, begin)]
    field = samples.write(there)
    spans = ((begin, samples.field), field, (samples.field + len(field), source.size))
    if kind == "CAF" and (decodable := _caf_packets(source, begin, there - 4)) is not None:
        return [Piece(spans, detail=detail, decodable=decodable)]
    return [Piece(spans, (promised or there) / there, detail)]


def _another(source: Source, ends: list[int], kind: str) -> int | None:
    """Where another file is joined to one whose samples end there."""
    for end in ends:
        if kind_of(source.at(end, 64)) in _CHUNKS:
            return end
    if kind in ("WAV", "AIFF"):
        little = source.at(0, 4) in (b"RIFF", b"RF64")
        for name, _, position in _walk(source, ends[0], "little" if little else "big"):
            if name in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
                return position - 8
    return None


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


def has_moov(source: Source, position: int) -> bool:
    """Whether an MP4 file has its table of contents."""
    while len(head := source.at(position, 16)) == 16 and head[4:8] != b"moov":
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length
        position += max(length, 8)
    return head[4:8] == b"moov"


def _nist(source: Source, begin: int, head: bytes) -> Piece:
    """NIST SPHERE: a header of text."""
    fields = dict(re.findall(rb"(\w+) -i (\d+)", head[:1024]))
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    promised = math.prod(int(fields.get(name, b"0")) for name in names)
    length = re.match(rb"\s*(\d+)", head[8:16])
    there = source.size - begin - int(length[1] if length else b"0")
    return _lacking(_whole(source, begin), there, promised, "bytes of samples")


def _voc(source: Source, begin: int) -> Piece:
    position, sound, missing = begin + source.number(begin + 20, 2, "little"), 0, 0
    while (name := source.at(position, 1)) not in (b"", b"\0"):
        length = source.number(position + 1, 3, "little")
        position += 4 + length
        if name in (b"\x01", b"\x02", b"\x09"):
            sound += length
            missing = max(0, position - source.size)
    return _lacking(_whole(source, begin), sound - missing, sound, "bytes of samples")


# FLAC (RFC 9639).


class _FlacFrame(NamedTuple):
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


def _flac_frame(head: bytes, begin: int, fixed: int) -> _FlacFrame | None:
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
    return _FlacFrame(begin, number if head[1] & 1 else number * fixed, count)


def _flac_frames(source: Source, stream: int, begin: int, end: int) -> Iterator[_FlacFrame]:
    """Those of a stream whose headers are whole and that touch another one: a header alone may be
    an accident.
    """
    fixed = source.number(stream + 8, 2, "big")
    held: _FlacFrame | None = None
    touched = False
    for position in source.matches(rb"\xff[\xf8\xf9]", begin, end, 2):
        if (frame := _flac_frame(source.at(position, 16), position, fixed)) is None:
            continue
        if held and frame.first == held.first + held.samples:
            yield held
            held, touched = frame, True
        elif held is None or not touched:
            held = frame
        elif frame.first > held.first + held.samples:
            yield held
            held, touched = frame, False
    if held and touched:
        yield held


def _flac(source: Source, begin: int) -> list[Piece]:
    starts = [begin, *source.matches(rb"fLaC[\0\x80]\0\0\x22", begin + 1, source.size, 8)]
    return [_flac_stream(source, low, high) for low, high in pairwise([*starts, source.size])]


def _flac_stream(source: Source, begin: int, end: int) -> Piece:
    total = source.number(begin + 21, 5, "big") & 0xFFFFFFFFF
    there = _flac_end(source, (begin, end)) or total
    whole = Piece(((begin, end),), stream=(begin, end))
    if there == total:
        return whole
    detail = f"its header counts {total} of {there} samples" if total else ""
    if there < total:
        detail = f"cut: {there} of {total} samples are there"
    spans = (_flac_head(source, begin, there, 26), (begin + 26, end))
    return whole._replace(spans=spans, counted=total / there if total else 1.0, detail=detail)


def _flac_head(source: Source, begin: int, samples: int, count: int) -> bytes:
    """The first bytes of a stream, of so many samples."""
    head = bytearray(source.at(begin, count))
    head[21:26] = (samples | (head[21] & 0xF0) << 32).to_bytes(5, "big")
    return bytes(head)


def flac_without_damage(
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
    frames = list[_FlacFrame]()
    last_span = piece.spans[-1]
    assert isinstance(last_span, tuple)
    for frame in _flac_frames(source, begin, last_span[0], end):
        if frame.first + frame.samples > sample:
            frames.append(frame)
            if frame.first >= beyond:
                break
    if not frames:
        return []
    runs = list[tuple[int, int, int, int]]()  # (first byte, end, first sample, end)
    for frame, after in zip(frames, [*(f.begin for f in frames[1:]), end], strict=True):
        last = frame.first + frame.samples
        if frame.first >= beyond:  # all behind it, damaged or not
            after, last = end, _flac_end(source, piece.stream) or last
        elif after - frame.begin > _LARGEST_FRAME or not _flac_is_whole(
            source.at(frame.begin, after - frame.begin)
        ):
            continue
        if runs and runs[-1][3] == frame.first:
            runs[-1] = (runs[-1][0], after, runs[-1][2], last)
        else:
            runs.append((frame.begin, after, frame.first, last))
    found = list[tuple[Piece, int]]()
    for low, high, first, last in runs:
        head = _flac_head(source, begin, last - first, 42)
        alone = head[:4] + b"\x80" + head[5:]  # STREAMINFO, the last block of metadata
        found.append((piece._replace(spans=(alone, (low, high))), first))
    return found


def _flac_end(source: Source, stream: tuple[int, int]) -> int:
    """Samples that there are, by the last frame; 0 where that is not found."""
    begin, end = stream
    last = list(_flac_frames(source, begin, max(begin, end - _TAIL), end))
    return last[-1].first + last[-1].samples if last else 0


def _flac_is_whole(data: bytes) -> bool:
    """Whether a frame's CRC-16 is right; after the last one, a tag may follow."""
    return len(data) > 2 and 0 in (_crc16(data), _crc16(data[:-128]))


# Ogg (RFC 3533).


class _Page(NamedTuple):
    begin: int
    end: int
    flags: int  # 2: the first of its stream, 4: the last
    granule: int
    serial: bytes
    whole: bool


_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(data: bytes) -> int:
    """CRC-32 of Ogg: zlib's polynomial with the bits of all bytes mirrored, without its xors."""
    mirrored = zlib.crc32(data.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _ogg_pages(source: Source, position: int) -> Iterator[_Page | int]:
    """Pages in their order; instead of bytes that are none, their number."""
    while position < source.size:
        page = _ogg_page(source, position)
        if page is None:
            begin = position
            tag = _tag_length(source.at(position, 32))
            following = source.matches(b"OggS", position + max(tag, 1), source.size, 4)
            position = next(following, source.size)
            if not tag or position < source.size:
                yield position - begin
            continue
        yield page
        position = page.end


def _ogg_page(source: Source, position: int) -> _Page | None:
    head = source.at(position, 27 + 255)
    if len(head) < 27 or head[:4] != b"OggS" or len(head) < 27 + head[26]:
        return None
    end = position + 27 + head[26] + sum(head[27 : 27 + head[26]])
    data = source.at(position, end - position)
    if len(data) < end - position:
        return None
    whole = _ogg_crc(data[:22] + bytes(4) + data[26:]) == int.from_bytes(data[22:26], "little")
    if not whole and source.at(end, 4) not in (b"OggS", b""):
        return None  # its lengths are damaged: the next page is searched for
    granule = int.from_bytes(head[6:14], "little", signed=True)
    return _Page(position, end, head[5], granule, head[14:18], whole)


def _ogg(source: Source, begin: int) -> list[Piece]:
    links, link = list[list[_Page | int]](), list[_Page | int]()
    data = False  # whether the link has more than the pages that begin its streams
    for page in _ogg_pages(source, begin):
        if isinstance(page, _Page) and page.whole and page.flags & 2 and data:
            links.append(link)
            link, data = [], False
        data = data or not isinstance(page, _Page) or not page.flags & 2
        link.append(page)
    return [_ogg_link(source, pages) for pages in [*links, link]]


def _ogg_link(source: Source, pages: list[_Page | int]) -> Piece:
    first = next((p for p in pages if isinstance(p, _Page) and p.whole), None)
    if first is None:
        return _whole(source, 0)
    rate = _ogg_rate(source.at(first.begin + 28, 64))
    spans, holes = list[tuple[int, int]](), list[Hole]()
    granule, bad, at, ended = 0, 0, 0.0, False
    base: int | None = None  # of granules; a recording of a radio begins anywhere
    for page in pages:
        if not isinstance(page, _Page) or not page.whole:
            bad += 1
            at = max(granule - (base or 0), 0) / rate
            continue
        if bad and page.granule > granule:
            # To the end of this page, of which the first packets lean on what is lost.
            seconds = (page.granule - granule) / rate * bad / (bad + 1)
            holes.append(Hole(at, seconds, "damaged Ogg pages"))
            bad = 0
        if page.granule > 0:
            granule = page.granule
            base = granule if base is None and granule > 10 * rate else base or 0
        ended = ended or bool(page.flags & 4)
        if spans and spans[-1][1] == page.begin:
            spans[-1] = spans[-1][0], page.end
        else:
            spans.append((page.begin, page.end))
    if not ended:
        place = max(granule - (base or 0), 0) / rate
        holes.append(Hole(place, float("nan"), "cut: its last Ogg page is missing"))
    elif bad:
        holes.append(Hole(at, float("nan"), "damaged Ogg pages at its end"))
    return Piece(tuple(spans), holes=tuple(holes))


def _ogg_rate(packet: bytes) -> float:
    """Granules a second of the stream that begins so; without end where that is not known."""
    if packet[:7] == b"\x01vorbis":
        return float(int.from_bytes(packet[12:16], "little") or 1)
    if packet[:8] == b"Speex   ":
        return float(int.from_bytes(packet[36:40], "little") or 1)
    if packet[:5] == b"\x7fFLAC":
        return float(int.from_bytes(packet[27:30], "big") >> 4 or 1)
    return 48_000.0  # Opus, whatever its rate was


# MPEG audio (ISO 11172-3, 13818-3).


class _MpegFrame(NamedTuple):
    """What the four bytes of a header tell."""

    length: int  # bytes, header included
    samples: int  # per channel
    xing: int  # bytes from its start to where a Xing/Info header would be
    rate: int  # Hz
    layer: int
    kind: int  # version, layer, rate and whether it is mono: what does not change in a stream


_KBPS = {  # by (MPEG-1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEADERS: dict[bytes, _MpegFrame | None] = {}  # those met; a stream has few


def _mpeg_frame(header: bytes) -> _MpegFrame | None:
    if header not in _HEADERS:
        if len(_HEADERS) > 1 << 16:
            _HEADERS.clear()
        _HEADERS[header] = _parsed(header)
    return _HEADERS[header]


def _parsed(header: bytes) -> _MpegFrame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    layer = 4 - (header[1] >> 1 & 3)
    kbps, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or kbps in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = _KBPS[first, layer][kbps] * 1000
    mono = header[3] >> 6 == 3
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    slot = 4 if layer == 1 else 1
    length = (samples // 8 // slot * bits // hertz + padding) * slot
    xing = (21 if mono else 36) if first else (13 if mono else 21)
    kind = (header[1] & 0x1E) << 8 | header[2] & 0x0C | mono
    return _MpegFrame(length, samples, xing, hertz, layer, kind)


def _in_a_row(at: Callable[[int, int], bytes], position: int, size: int) -> _MpegFrame | None:
    """The frame there, where as many of its kind follow as are no accident, or all to the end."""
    first = frame = _mpeg_frame(at(position, 4))
    for _ in range(_RUN - 1):
        if frame is None or first is None or frame.kind != first.kind:
            return None
        position += frame.length
        if position >= size:
            return first if position == size else None
        if _tag_length(at(position, 32)):
            return first
        frame = _mpeg_frame(at(position, 4))
    return first if frame and first and frame.kind == first.kind else None


def _resynchronised(source: Source, begin: int, end: int, size: int) -> int | None:
    """Where frames begin again, before ``end``."""
    # Without what no header may have, so that it is quick through bytes that are all alike.
    for position in source.matches(rb"\xff[\xe2-\xe7\xf2-\xff][\x10-\xef]", begin, end, 3):
        if _in_a_row(source.at, position, size):
            return position
    return None


class _Run:
    """Frames of one kind, one after the other."""

    def __init__(self, first: _MpegFrame) -> None:
        self.first = first
        self.spans, self.holes = list[tuple[int, int]](), list[Hole]()
        self.frames = self.bytes = self.last = 0  # last: where the last frame begins
        self.head = b""  # the first frame with a Xing/Info header
        self.surplus = ""  # of a header that counts too few
        self._counted = self._since = self._lost = 0  # frames by the last such header, before, lost

    def take(self, begin: int, length: int) -> None:
        if self.spans and self.spans[-1][1] == begin:
            self.spans[-1] = self.spans[-1][0], begin + length
        else:
            self.spans.append((begin, begin + length))
        self.frames += 1
        self.bytes += length
        self.last = begin

    def give_back(self) -> int:
        """Without the last frame, which is not whole; where it begins."""
        begin, end = self.spans[-1]
        self.frames -= 1
        self.bytes -= end - self.last
        self.spans[-1:] = [(begin, self.last)] if begin < self.last else []
        return self.last

    def skip(self, count: int, reason: str) -> None:
        """So many bytes that are no frames: as many seconds as frames of the mean length have."""
        mean = self.bytes / max(self.frames, 1) or self.first.length
        self._lose(max(1, round(count / mean)), reason)

    def count_by(self, head: bytes) -> None:
        """A frame with a header that counts those that follow."""
        self.settle()
        self.head = self.head or head
        at = self.first.xing + 7
        self._counted = int.from_bytes(head[at + 1 : at + 5], "big") if head[at] & 1 else 0
        self._since, self._lost = self.frames, 0

    def settle(self) -> None:
        """At the end of what a header counted."""
        there = self.frames - self._since
        missing = self._counted - there - self._lost
        if self._counted and missing > 1 + self._lost // 20:  # some count the header's own frame
            if self.holes and self.holes[-1].reason.startswith("cut"):
                self.holes.pop()
                missing += 1
            self._lose(missing, f"cut: {there} of {self._counted} MPEG frames are there")
        elif self._counted and missing < -1:
            self.surplus = f"its header counts {self._counted} of {there} MPEG frames"
        self._counted = 0

    def _lose(self, frames: int, reason: str) -> None:
        self._lost += frames
        second = self.first.samples / self.first.rate
        self.holes.append(Hole(self.frames * second, frames * second, reason))


def _mpeg(source: Source, begin: int, size: int) -> list[Piece]:
    """From a byte to another one of the file."""
    start = _resynchronised(source, begin, min(begin + _JUNK, size), size)
    if start is None:
        return []
    runs, position = list[_Run](), start
    headers = 0
    while position < size:
        frame = _mpeg_frame(source.at(position, 4))
        if frame is None or not runs or frame.kind != runs[-1].first.kind:
            if tag := _tag_length(source.at(position, 32)):
                position += tag
                continue
            found = None
            if runs and runs[-1].last:
                # The last frame may be cut where another file is joined to it.
                found = _resynchronised(source, runs[-1].last + 4, position, size)
                position = runs[-1].give_back() if found else position
            found = found or _resynchronised(source, position, size, size)
            rest = source.at(position, min((found or size) - position, _WINDOW)).strip(b"\0")
            if runs and rest and not re.match(rb"LYRICS|3DI", rest):
                lost = (found or size) - position
                runs[-1].skip(lost, "bytes that are no MPEG frames")
            if found is None:
                break
            position = found
            frame = _mpeg_frame(source.at(position, 4))
            assert frame
            if not runs or frame.kind != runs[-1].first.kind:
                runs.append(_Run(frame))
        run = runs[-1]
        if position + frame.length > size:
            run.skip(frame.length, "cut: the last MPEG frame is not whole")
            break
        if source.at(position + frame.xing, 4) in (b"Xing", b"Info"):
            run.count_by(source.at(position, frame.length))
            headers += 1
        else:
            run.take(position, frame.length)
        position += frame.length
    for run in runs:
        run.settle()
    alone = len(runs) == 1 and headers == 1
    return [_mpeg_piece(source, (start, size), run, alone=alone) for run in runs if run.frames]


def _mpeg_piece(source: Source, span: tuple[int, int], run: _Run, *, alone: bool) -> Piece:
    slack = 2 * run.first.samples  # a first frame that leans on one before it
    if alone and len(run.spans) == 1 and not run.holes and not run.surplus:
        return Piece((span,), slack=slack)
    # mpg123 knows Xing/Info headers of layer III alone.
    head = (_info_frame(source, run),) if run.first.layer == 3 else ()
    counted = 0.0 if run.surplus else 1.0
    return Piece((*head, *run.spans), counted, run.surplus, tuple(run.holes), slack)


def _info_frame(source: Source, run: _Run) -> bytes:
    """A frame that tells mpg123 how many follow: the run's own, corrected, or one without more."""
    xing = run.first.xing
    if run.head and run.head[xing + 7] & 1:
        frame = bytearray(run.head)
    else:
        header = bytearray(source.at(run.spans[0][0], 4))
        header[1] |= 1  # no checksum
        header[2] = header[2] & 0x0C | 0x90
        made = _mpeg_frame(bytes(header))
        assert made
        frame = bytearray(made.length)
        frame[:4] = header
        frame[xing : xing + 4] = b"Info"
        frame[xing + 7] = 1
    frame[xing + 8 : xing + 12] = run.frames.to_bytes(4, "big")
    if frame[xing + 7] & 2:
        frame[xing + 12 : xing + 16] = (run.bytes + len(frame)).to_bytes(4, "big")
    return bytes(frame)
