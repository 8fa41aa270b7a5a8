"""Ogg (RFC 3533): its pages, and the streams that are chained in it."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from seqhash.containers.source import MOST, Hole, Piece, Source, whole
from seqhash.containers.tags import tag_length

JITTER = 960  # granules, 20 ms: nearer than that to what its packets hold, an Opus page means it


class _Page(NamedTuple):
    begin: int
    end: int
    flags: int  # 2: the first of its stream, 4: the last
    granule: int
    serial: bytes
    whole: bool


def pieces(source: Source, begin: int) -> list[Piece]:
    links, link = list[list[_Page | int]](), list[_Page | int]()
    data = False  # whether the link has more than the pages that begin its streams
    for page in _pages(source, begin):
        if isinstance(page, _Page) and page.whole and page.flags & 2 and data:
            links.append(link)
            link, data = [], False
        data = data or not isinstance(page, _Page) or not page.flags & 2
        link.append(page)
    return [_piece(source, pages) for pages in [*links, link]]


def _piece(source: Source, pages: list[_Page | int]) -> Piece:
    first = next((p for p in pages if isinstance(p, _Page) and p.whole), None)
    if first is None:
        return whole(source, 0)
    head = source.at(first.begin + 28, 64)
    rate, opus = _rate(head), _Opus() if head.startswith(b"OpusHead") else None
    spans, holes = list[bytes | tuple[int, int]](), list[Hole]()
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
        before = spans[-1] if spans else b""
        # Another stream may lie between the pages, as of a film.
        if opus and page.serial == first.serial and (mended := opus.mended(source, page)):
            spans.append(mended)
        elif isinstance(before, tuple) and before[1] == page.begin:
            spans[-1] = before[0], page.end
        else:
            spans.append((page.begin, page.end))
    if not ended:
        place = max(granule - (base or 0), 0) / rate
        holes.append(Hole(place, float("nan"), "cut: its last Ogg page is missing"))
    elif bad:
        holes.append(Hole(at, float("nan"), "damaged Ogg pages at its end"))
    # Of Vorbis a last block may be counted that no decoder makes.
    slack = 1 << (head[28] >> 4) if head.startswith(b"\x01vorbis") and len(head) > 28 else 0
    return Piece(tuple(spans), holes=tuple(holes), slack=slack)


class _Opus:
    """Granules of an Opus stream, page by page. FFmpeg takes them from the time stamps of what it
    encodes, which jitter where that was Vorbis; libsndfile ends at a page that counts fewer samples
    than its packets hold.
    """

    def __init__(self) -> None:
        self.granule: int | None = None  # of the last page, put right; none before the first
        self.begun = b""  # the first two bytes of a packet that goes on in the next page

    def mended(self, source: Source, page: _Page) -> bytes:
        """The page with the granule that its packets make, empty where it has it, or another one
        for a reason: a gap, the end.
        """
        data = source.at(page.begin, page.end - page.begin)
        samples = self._samples(data)
        if page.granule < 0 or not samples:
            return b""
        before, self.granule = self.granule, page.granule
        if before is None:
            return b""
        more = page.granule - before - samples
        if more == 0 or more >= JITTER or (more < 0 and page.flags & 4):
            return b""
        self.granule = before + samples
        granule = self.granule.to_bytes(8, "little")
        crc = _crc(data[:6] + granule + data[14:22] + bytes(4) + data[26:]).to_bytes(4, "little")
        return data[:6] + granule + data[14:22] + crc + data[26:]

    def _samples(self, data: bytes) -> int:
        """At 48 kHz, of the packets that end in a page."""
        at, samples = 27 + data[26], 0
        if not data[5] & 1:  # what was begun before goes on in a page that is lost
            self.begun = b""
        for size in data[27:at]:
            self.begun = self.begun or data[at : at + min(size, 2)]
            at += size
            if size < 255:
                samples += _opus_samples(self.begun)
                self.begun = b""
        return samples


def _opus_samples(packet: bytes) -> int:
    """Of an Opus packet, by its first two bytes (RFC 6716, section 3.1); 0 of the headers."""
    if not packet or packet == b"Op":
        return 0
    mode, count = packet[0] >> 3, packet[0] & 3
    if mode < 12:
        frame = (480, 960, 1920, 2880)[mode & 3]
    else:
        frame = (480, 960)[mode & 1] if mode < 16 else (120, 240, 480, 960)[mode & 3]
    if count < 3:
        return frame * (1, 2, 2)[count]
    return frame * (packet[1] & 63) if len(packet) > 1 else 0


def _pages(source: Source, position: int) -> Iterator[_Page | int]:
    """Pages in their order; instead of bytes that are none, their number."""
    bad = 0
    while position < source.size and bad < MOST:
        page = _page(source, position)
        if page is None:
            bad += 1
            begin = position
            tag = tag_length(source.at(position, 32))
            following = source.matches(b"OggS", position + max(tag, 1), source.size, 4)
            position = next(following, source.size)
            if not tag or position < source.size:
                yield position - begin
            continue
        yield page
        position = page.end


def _page(source: Source, position: int) -> _Page | None:
    head = source.at(position, 27 + 255)
    if len(head) < 27 or head[:5] != b"OggS\0" or len(head) < 27 + head[26]:
        return None
    end = position + 27 + head[26] + sum(head[27 : 27 + head[26]])
    data = source.at(position, end - position)
    if len(data) < end - position:
        return None
    whole = _crc(data[:22] + bytes(4) + data[26:]) == int.from_bytes(data[22:26], "little")
    if not whole and source.at(end, 4) not in (b"OggS", b""):
        return None  # its lengths are damaged: the next page is searched for
    granule = int.from_bytes(head[6:14], "little", signed=True)
    return _Page(position, end, head[5], granule, head[14:18], whole)


def _rate(packet: bytes) -> float:
    """Granules a second of the stream that begins so; without end where that is not known."""
    if packet[:7] == b"\x01vorbis":
        return float(int.from_bytes(packet[12:16], "little") or 1)
    if packet[:8] == b"Speex   ":
        return float(int.from_bytes(packet[36:40], "little") or 1)
    if packet[:5] == b"\x7fFLAC":
        return float(int.from_bytes(packet[27:30], "big") >> 4 or 1)
    return 48_000.0  # Opus, whatever its rate was


_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _crc(data: bytes) -> int:
    """CRC-32 of Ogg: zlib's polynomial with the bits of all bytes mirrored, without its xors."""
    mirrored = zlib.crc32(data.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
