"""Two processes that add to one index, and remove from it, while five read it: nobody is refused,
and everybody sees whole groups, and all that was reported before and is not being removed.

A few seconds; ``SEQHASH_CROWD=600 pytest -s tests/test_crowd.py`` goes on for ten minutes.
"""

import collections
import multiprocessing
import os
import time

import numpy as np
import pytest

from seqhash.index.catalogue import Entry, Identity, open_index

SECONDS = float(os.environ.get("SEQHASH_CROWD", "4"))
IDENTITY = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)
ADDERS, READERS = 2, 5
GROUP, KEPT, OLDEST = 3, 40, 10  # recordings; groups that an adder keeps, and removes at a time
PAUSE = 0.15  # s, of all of them: two cores bear it


def entry(number):
    words = np.random.default_rng(number).integers(0, 2**32, (20 + number % 90, 4), np.uint32)
    return Entry(f"/music/{number}", f"{number:064x}", words, 8.0)


def group(adder, step):
    """Numbers of the recordings that an adder adds at once."""
    return [GROUP * (ADDERS * step + adder) + i for i in range(GROUP)]


def adder(path, which, first, end, until):
    """``first`` and ``end``: of its groups that are to be there, set before and after a change."""
    with open_index(path) as index:
        while time.monotonic() < until:
            step = end[which]
            assert index.add(map(entry, group(which, step))) == [True] * GROUP
            end[which] = step + 1
            if step - first[which] >= KEPT:
                old = range(first[which], first[which] + OLDEST)
                first[which] += OLDEST
                numbers = {n for s in old for n in group(which, s)}
                ids = [row.id for row in index.rows() if int(row.digest, 16) in numbers]
                assert index.remove(ids) == len(numbers)
                if which == 0:
                    index.compact()
            time.sleep(PAUSE)


def reader(path, which, first, end, until, done):
    """Reads through a connection that stays open, or opens the index each time."""
    kept = open_index(path, readonly=True) if which % 2 else None
    reads, longest = 0, 0.0
    while time.monotonic() < until:
        before, begin = list(end), time.monotonic()
        index = kept or open_index(path, readonly=True)
        with index.snapshot():
            rows, collection = index.rows(), index.load()
        if which == 0:
            assert index.verify() == []
        if not kept:
            index.close()
        longest = max(longest, time.monotonic() - begin)
        seen, after = {int(row.digest, 16) for row in rows}, list(first)
        for i, row in enumerate(rows):
            words = collection.words[collection.starts[i] : collection.starts[i + 1]]
            np.testing.assert_array_equal(words, entry(int(row.digest, 16)).words)
        for one in range(ADDERS):
            assert seen.issuperset(n for s in range(after[one], before[one]) for n in group(one, s))
        counts = collections.Counter(number // GROUP for number in seen)
        assert set(counts.values()) <= {GROUP}
        reads += 1
        time.sleep(PAUSE)
    done.put((reads, longest))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process")  # jax's threads, of which forks have nothing
@pytest.mark.filterwarnings("ignore:os.fork")
def test_two_that_add_and_five_that_read(tmp_path):
    path, until = tmp_path / "i", time.monotonic() + SECONDS
    with open_index(path, identity=IDENTITY, create=True) as index:
        context = multiprocessing.get_context("fork")
        first, end = context.Array("q", ADDERS), context.Array("q", ADDERS)
        done, steps = context.Queue(), (first, end, until)
        calls = [(adder, (path, i, *steps)) for i in range(ADDERS)]
        calls += [(reader, (path, i, *steps, done)) for i in range(READERS)]
        index.close()  # no connection is carried into a fork
    processes = [context.Process(target=run, args=arguments) for run, arguments in calls]
    for process in processes:
        process.start()
    read = [done.get(timeout=SECONDS + 60) for _ in range(READERS)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    with open_index(path, readonly=True) as index:
        there = {int(row.digest, 16) for row in index.rows()}
        assert index.verify() == []
    steps = [(one, step) for one in range(ADDERS) for step in range(first[one], end[one])]
    assert there == {number for step in steps for number in group(*step)}
    reads, longest = zip(*read, strict=True)
    assert min(reads) > 2
    added = GROUP * sum(end)
    print(f"{added} added, {sum(reads)} reads; the longest took {max(longest):.2f} s")
