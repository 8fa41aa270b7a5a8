"""MP4 and QuickTime: atoms, of which one is the table of contents."""

from itertools import pairwise

from seqhash.containers.source import MOST, Piece, Source


def pieces(source: Source, begin: int) -> list[Piece]:
    """A file for each ftyp on the uppermost level."""
    starts, position = [begin], begin
    for _ in range(MOST):
        if len(head := source.at(position, 16)) < 16:
            break
        if head[4:8] == b"ftyp" and position > begin:
            starts.append(position)
            if len(starts) > MOST // 10:
                break
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length
        position += max(length, 8)
    return [Piece(((low, high),)) for low, high in pairwise([*starts, source.size])]


def has_moov(source: Source, position: int) -> bool:
    """Whether an MP4 file has its table of contents."""
    for _ in range(MOST):
        if len(head := source.at(position, 16)) < 16 or head[4:8] == b"moov":
            break
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length
        position += max(length, 8)
    return head[4:8] == b"moov"
