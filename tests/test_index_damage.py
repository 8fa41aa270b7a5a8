"""index.py on a damaged file: every flipped bit and every cut is reported, or changes nothing that
is read.

A few at random; SEQHASH_FLIPS=40000 pytest tests/test_index_damage.py tries most bits of the file,
in ten minutes.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from seqhash.index.catalogue import Entry, File, Identity, IndexFileError, open_index

FLIPS = int(os.environ.get("SEQHASH_FLIPS", "300"))
IDENTITY = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """An index of eight recordings of 30 codes."""
    path = tmp_path_factory.mktemp("damage") / "i"
    rng = np.random.default_rng(0)
    with open_index(path, identity=IDENTITY, create=True) as index:
        for i in range(8):
            words = rng.integers(0, 2**32, (30, 4), np.uint32)
            index.add(
                [
                    Entry(
                        f"/music/{i}.flac",
                        f"{i:064x}",
                        words,
                        8.0,
                        title="Air",
                        metadata={"a": "b"},
                    )
                ],
                [File(f"/music/{i}.flac", f"{i:064x}", "1 2 3")],
            )
    return path


def _read(path: Path) -> tuple[list[str], object]:
    """What ``verify`` says, and what a reader gets; None where he is told of the damage."""
    try:
        with open_index(path, identity=IDENTITY) as index:
            problems = index.verify()
    except IndexFileError as error:
        problems = [str(error)]
    try:
        with open_index(path, readonly=True) as index:
            words, starts, ids = index.load()
            return problems, (
                index.rows(),
                words.tobytes(),
                starts.tobytes(),
                ids.tobytes(),
                index.identity,
                # A damaged line of these is told by ``verify``, and says nothing.
                problems or index.files(),
            )
    except IndexFileError:
        return problems, None


def test_a_flipped_bit(path, tmp_path):
    content, (problems, whole) = path.read_bytes(), _read(path)
    assert not problems
    damaged, reported = tmp_path / "i", 0
    for bit in np.random.default_rng(0).permutation(8 * len(content))[:FLIPS].tolist():
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(data)
        problems, read = _read(damaged)
        told = (*whole[:-1], problems or whole[-1])
        assert read is None or read == told, f"bit {bit}: {problems}"
        reported += bool(problems)
    assert reported > FLIPS / 20  # most of the file is free room, where a bit means nothing


def test_a_file_cut_anywhere(path, tmp_path):
    content, damaged = path.read_bytes(), tmp_path / "i"
    for size in np.random.default_rng(1).integers(1, len(content), max(20, FLIPS // 50)).tolist():
        damaged.write_bytes(content[:size])
        problems, read = _read(damaged)
        assert problems, f"cut to {size} bytes"
        assert read is None
