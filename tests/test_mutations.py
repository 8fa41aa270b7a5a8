"""Damaged indexes, npz files and exported hashers: each is refused in words, or read rightly.

A few; ``SEQHASH_MUTATIONS=10000 pytest tests/test_mutations.py`` tries ten thousand of each kind.
"""

import contextlib
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from seqhash import export, exported
from seqhash.index import exchange, follow
from seqhash.index.catalogue import Entry, File, Identity, IndexFileError, open_index

MUTATIONS = int(os.environ.get("SEQHASH_MUTATIONS", "40"))
IDENTITY = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)
LONGEST, LARGEST = 10.0, 1.0  # s for one file, GB more


def mutated(data, seed):
    """Bytes with one to three faults: a bit, a cut, zeros, bytes more, other bytes, bytes less."""
    rng, data = np.random.default_rng(seed), bytearray(data)
    for _ in range(rng.integers(1, 4)):
        kind, size = rng.integers(6), int(rng.integers(1, 64))
        place = int(rng.integers(len(data))) if data else 0
        there = slice(place, place + size)
        if kind == 0 and data:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[there] = bytes(len(data[there]))
        elif kind == 3:
            data[place:place] = rng.bytes(size)
        elif kind == 4:
            data[there] = rng.bytes(len(data[there]))
        else:
            del data[there]
    return bytes(data)


@pytest.fixture
def bounded():
    """bounded(f): runs it, in bounded time; at the end memory has stayed bounded too."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run(function, *arguments):
        begin = time.monotonic()
        try:
            return function(*arguments)
        finally:
            assert time.monotonic() - begin < LONGEST

    yield run
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LARGEST * 2**20  # KiB


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("mutations") / "i", np.random.default_rng(0)
    with open_index(path, identity=IDENTITY, create=True) as opened:
        for i in range(6):
            words = rng.integers(0, 2**32, (30, 4), np.uint32)
            entry = Entry(f"/m/{i}", f"{i:064x}", words, 8.0, title="Air", metadata={"a": "b"})
            copy = File(f"/copy/{i}", entry.digest, "1 2 3")
            bad = File(f"/bad/{i}", f"{i + 50:064x}", "1 2 3", "not audio", "reader")
            opened.add([entry], [File(f"/m/{i}", entry.digest, "1 2 3"), copy, bad])
    return path


def all_of(path):
    with open_index(path, readonly=True) as opened:
        problems, (words, starts, ids) = opened.verify(), opened.load()
        places = [opened.places(i) for i in ids.tolist()]
        files = opened.files(), opened.astray(), places
        return problems, opened.rows(), words.tobytes(), starts.tolist(), opened.identity, files


def use(path):
    """Changes an index in every way."""
    with open_index(path, identity=IDENTITY, create=True) as opened:
        new = Entry("/new", "f" * 64, np.ones((3, 4), np.uint32), 1.0)
        opened.add([new], [File("/new", new.digest)])
        follow.follow(opened, fresh=[new.digest], roots=[Path("/m")], seen=set(), prune=False)
        opened.remove([1])
        opened.compact()


def test_damaged_indexes(tmp_path, index, bounded):
    right, data, path = all_of(index), index.read_bytes(), tmp_path / "i"
    refused = 0
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(data, seed))
        (tmp_path / "i-journal").unlink(missing_ok=True)
        try:
            problems, *facts, files = bounded(all_of, path)
            assert facts == list(right[1:-1]), f"seed {seed}"
            assert problems or files == right[-1], f"seed {seed}"
        except IndexFileError:
            refused += 1
        with contextlib.suppress(IndexFileError):
            bounded(use, path)
    assert refused > MUTATIONS / 4


def test_damaged_npz_files(tmp_path, index, bounded):
    with open_index(index, readonly=True) as opened:
        exchange.export_npz(opened, tmp_path / "right.npz")
    data, path, made = (tmp_path / "right.npz").read_bytes(), tmp_path / "x.npz", tmp_path / "i"

    def bring():
        identity, _ = exchange.npz_made_of(path)
        with open_index(made, identity=identity, create=True) as opened:
            exchange.import_npz(opened, path)
        return all_of(made)[2]

    right = all_of(index)[2]
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(data, seed))
        made.unlink(missing_ok=True)
        with contextlib.suppress(IndexFileError):
            assert bounded(bring) == right, f"seed {seed}"


@pytest.mark.parametrize("name", ["semitone-32", "paper-128"])
def test_damaged_hashers(tmp_path, name, bounded):
    source, right = exported.find_hasher(name), export.load_hasher(name).digest
    for seed in range(MUTATIONS // 4):
        shutil.copytree(source, tmp_path / "hasher", dirs_exist_ok=True)
        file = tmp_path / "hasher" / ("hasher.json" if seed % 2 else "weights.npz")
        file.write_bytes(mutated(file.read_bytes(), seed))
        with contextlib.suppress(export.HasherError):
            assert bounded(export.load_hasher, tmp_path / "hasher").digest == right, f"seed {seed}"
