"""MPEG audio (ISO 11172-3, 13818-3): its frames, counted, and runs of one kind."""

import re
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from seqhash.containers.source import WINDOW, Hole, Piece, Source
from seqhash.containers.tags import tag_length

_JUNK = 1 << 24  # bytes before the first frame that are searched for it: pictures, wrong tags
_TRIES = (
    100_000  # headers that begin no run, in 600 MB of random bytes, before the rest is given up
)
_RUN = 4  # MPEG headers in a row that are no accident


class Frame(NamedTuple):
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
_HEADERS: dict[bytes, Frame | None] = {}  # those met; a stream has few


def pieces(source: Source, begin: int, size: int) -> list[Piece]:
    """From a byte to another one of the file."""
    start = _resynchronised(source, begin, min(begin + _JUNK, size), size)
    if start is None:
        return []
    runs, position = list[_Run](), start
    headers = 0
    while position < size:
        frame = frame_of(source.at(position, 4))
        if frame is None or not runs or frame.kind != runs[-1].first.kind:
            if tag := tag_length(source.at(position, 32)):
                position += tag
                continue
            found = None
            if runs and runs[-1].last:
                # The last frame may be cut where another file is joined to it.
                found = _resynchronised(source, runs[-1].last + 4, position, size)
                position = runs[-1].give_back() if found else position
            found = found or _resynchronised(source, position, size, size)
            rest = source.at(position, min((found or size) - position, WINDOW)).strip(b"\0")
            if runs and rest and not re.match(rb"LYRICS|3DI", rest):
                lost = (found or size) - position
                runs[-1].skip(lost, "bytes that are no MPEG frames")
            if found is None:
                break
            position = found
            frame = frame_of(source.at(position, 4))
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
    alone = len(runs) == 1 and headers == 1  # with one header, whose count is all there is
    return [_piece(source, (start, size), run, alone=alone) for run in runs if run.frames]


class _Run:
    """Frames of one kind, one after the other."""

    def __init__(self, first: Frame) -> None:
        self.first = first
        self.spans, self.holes = list[tuple[int, int]](), list[Hole]()
        self.frames = self.bytes = self.last = 0  # last: where the last frame begins
        self.head = b""  # the first frame with a Xing/Info header
        self.surplus = ""  # of a header that counts too few
        self.right = False  # whether the last header counted what is there
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
        self.right = bool(self._counted) and abs(missing) <= 1
        if self._counted and missing > 1 + self._lost // 20:  # some count the header's own frame
            if self.holes and self.holes[-1].reason.startswith("cut"):
                self.holes.pop()
                missing += 1
            self._lose(missing, f"cut: {there} of {self._counted} MPEG frames are there")
        elif self._counted and there > self._counted + 1:
            self.surplus = f"its header counts {self._counted} of {there} MPEG frames"
        self._counted = 0

    def _lose(self, frames: int, reason: str) -> None:
        self._lost += frames
        second = self.first.samples / self.first.rate
        self.holes.append(Hole(self.frames * second, frames * second, reason))


def _piece(source: Source, span: tuple[int, int], run: _Run, *, alone: bool) -> Piece:
    slack = 2 * run.first.samples  # a first frame that leans on one before it
    if alone and run.right and len(run.spans) == 1 and not run.holes:
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
        made = frame_of(bytes(header))
        assert made
        frame = bytearray(made.length)
        frame[:4] = header
        frame[xing : xing + 4] = b"Info"
        frame[xing + 7] = 1
    frame[xing + 8 : xing + 12] = run.frames.to_bytes(4, "big")
    if frame[xing + 7] & 2:
        frame[xing + 12 : xing + 16] = (run.bytes + len(frame)).to_bytes(4, "big")
    return bytes(frame)


def _resynchronised(source: Source, begin: int, end: int, size: int) -> int | None:
    """Where frames begin again, before ``end``."""
    # Without what no header may have, so that it is quick through bytes that are all alike.
    tried = source.matches(rb"\xff[\xe2-\xe7\xf2-\xff][\x10-\xef]", begin, end, 3)
    for position in islice(tried, _TRIES):
        if in_a_row(source.at, position, size):
            return position
    return None


def in_a_row(at: Callable[[int, int], bytes], position: int, size: int) -> Frame | None:
    """The frame there, where as many of its kind follow as are no accident, or all to the end."""
    first = frame = frame_of(at(position, 4))
    for _ in range(_RUN - 1):
        if frame is None or first is None or frame.kind != first.kind:
            return None
        position += frame.length
        if position >= size:
            return first if position == size else None
        if tag_length(at(position, 32)):
            return first
        frame = frame_of(at(position, 4))
    return first if frame and first and frame.kind == first.kind else None


def frame_of(header: bytes) -> Frame | None:
    if header not in _HEADERS:
        if len(_HEADERS) > 1 << 16:
            _HEADERS.clear()
        _HEADERS[header] = _parsed(header)
    return _HEADERS[header]


def _parsed(header: bytes) -> Frame | None:
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
    return Frame(length, samples, xing, hertz, layer, kind)
