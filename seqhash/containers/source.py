"""A file's bytes at any place, and parts of it as files of their own."""

import bisect
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

WINDOW = 1 << 16  # bytes read at a time
MOST = 10_000  # tags, joined files or places of damage, beyond which a file is made up to be slow


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
            self._held = os.pread(self._descriptor, max(count, WINDOW), position)
            self._start, offset = position, 0
        return self._held[offset : offset + count]

    def number(self, position: int, count: int, order: Literal["big", "little"]) -> int:
        return int.from_bytes(self.at(position, count), order)

    def matches(self, pattern: bytes, begin: int, end: int, width: int) -> Iterator[int]:
        """Where a regular expression of ``width`` bytes matches, overlaps included."""
        compiled = re.compile(pattern, re.DOTALL)
        low, size = begin, 1 << 12  # more at a time the longer it takes: often the next is near
        while low < end:
            piece = os.pread(self._descriptor, min(size + width - 1, end - low), low)
            found = compiled.search(piece)  # which looks for a first byte at memchr's speed
            while found:
                yield low + found.start()
                found = compiled.search(piece, found.start() + 1)
            low, size = low + size, min(2 * size, 1 << 20)


class Spliced(io.RawIOBase):
    """The spans of a piece as one file that can be read and sought."""

    def __init__(self, file: BinaryIO, spans: Sequence[bytes | tuple[int, int]]) -> None:
        self._file, self._descriptor, self._spans = file, file.fileno(), spans
        lengths = [len(s) if isinstance(s, bytes) else s[1] - s[0] for s in spans]
        self._begins = [0]
        for length in lengths:
            self._begins.append(self._begins[-1] + length)
        self._position = 0
        self.error: OSError | None = None  # which decoders would take for the end

    def check(self) -> None:
        """Raises the OSError that reading has met."""
        if self.error:
            raise self.error

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


def whole(source: Source, begin: int) -> Piece:
    before_tag = source.size - 128
    tag = begin < before_tag and source.at(before_tag, 3) == b"TAG"
    return Piece(((begin, before_tag if tag else source.size),))


def lacking(piece: Piece, there: int, promised: int, what: str) -> Piece:
    """A piece that is cut where less is there than was promised."""
    if promised <= there or there <= 0:
        return piece
    return piece._replace(
        counted=promised / there, detail=f"cut: {there} of {promised} {what} are there"
    )
