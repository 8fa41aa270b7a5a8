"""ID3 and APE tags: how long they are, so that they are passed over."""

from collections.abc import Callable

from seqhash.containers.source import MOST


def after_tags(at: Callable[[int, int], bytes]) -> int:
    """Where a file begins behind the ID3v2 and APE tags in front of it."""
    position = 0
    for _ in range(MOST):
        if not (length := tag_length(at(position, 32))):
            break
        position += length
    return position


def tag_length(head: bytes) -> int:
    """Bytes of the tag that begins so; 0 where none does."""
    if head[:3] == b"ID3" and len(head) >= 10:
        length = sum((byte & 0x7F) << s for byte, s in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return 10 + length + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else 0
