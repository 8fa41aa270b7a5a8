"""What libsndfile is to read of a file."""

from seqhash.containers import chunks, flac, mp4, mpeg, ogg
from seqhash.containers.kinds import LONGEST_MAGIC, joined_at, kind_of
from seqhash.containers.source import Piece, Source, lacking, whole
from seqhash.containers.tags import after_tags


def pieces(source: Source, *, named_mpeg: bool = False) -> list[Piece]:
    """What libsndfile is to read of a file, one after the other; the whole where nothing is known
    of it, empty where it is said to be MPEG audio and has none.

    Args:
      named_mpeg: it is called .mp3 or the like.
    """
    found, begin = list[Piece](), begin_of(source)
    if named_mpeg and not kind_of(source.at(begin, LONGEST_MAGIC)):
        return mpeg.pieces(source, begin, source.size)
    following: int | None = begin
    while following is not None:
        begin, following = following, None
        kind = kind_of(source.at(begin, LONGEST_MAGIC))
        if kind in chunks.CONTAINERS:
            here, following = chunks.pieces(source, begin, kind)
            found += here or [whole(source, begin)]
        elif kind == "VOC":
            here, following = chunks.voc(source, begin)
            found += here
        else:
            found += _pieces(source, begin, kind)
    return found


def begin_of(source: Source) -> int:
    """Where a file begins behind its tags, and one without a beginning with its first frame."""
    begin = after_tags(source.at)
    head = source.at(begin, LONGEST_MAGIC)
    return begin if kind_of(head) else begin + (joined_at(head) or 0)


def _pieces(source: Source, begin: int, kind: str) -> list[Piece]:
    """Of what begins there, up to the file's end."""
    if kind == "FLAC":
        return flac.pieces(source, begin)
    if kind == "Ogg":
        return ogg.pieces(source, begin)
    if kind == "MP4":
        return mp4.pieces(source, begin)
    if kind == "MPEG audio" or (begin and not kind):
        return mpeg.pieces(source, begin, source.size) or [whole(source, begin)]
    alone, there = whole(source, begin), source.size - begin
    if kind == "NIST":
        alone = chunks.nist(source, begin)
    elif kind == "AVI":
        alone = lacking(alone, there, source.number(begin + 4, 4, "little") + 8, "bytes")
    elif kind == "MPEG transport stream":
        alone = lacking(alone, there, there + -there % 188, "bytes")
    return [alone]
