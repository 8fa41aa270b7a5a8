"""The nearest windows in any rotation against numpy: ties, penalties, recordings that end."""

import itertools

import numpy as np
import pytest

from seqhash.search import hamming, planar, rotations
from seqhash.search.kernels import NOWHERE

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def collection():
    """Codes of few bits, so that ties abound, in recordings of which one is shorter than a
    window."""
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, 40, 3, 90, 0, 67])
    words = rng.integers(0, 16, (starts[-1], 2), np.uint32)
    return words, starts, planar.build(words, starts)


def nearest(words, starts, query, penalties):
    """(distance, row, rotation) of all windows, sorted, by two loops."""
    found = []
    for recording, (low, high) in enumerate(itertools.pairwise(starts)):
        for row in range(low, high - query.shape[1] + 1):
            for rotation, codes in enumerate(query):
                there = words[row : row + len(codes)]
                distance = int(hamming.code_distances(codes, there).sum())
                found.append((distance + int(penalties[rotation, recording]), row, rotation))
    return sorted(found)


@pytest.mark.parametrize("columns", [2, 6], ids=["plain", "weighted"])
def test_the_nearest_in_any_rotation_are_those_of_numpy(collection, columns):
    words, starts, database = collection
    rng = np.random.default_rng(1)
    queries = rng.integers(0, 16, (2, 12, 5, columns), np.uint32)
    for largest in (0, 9):
        penalties = rng.integers(0, largest + 1, (2, 12, len(starts) - 1))
        given = {"starts": starts, "penalties": penalties} if largest else {}
        found = rotations.search(database, queries, 10, **given)
        for i, query in enumerate(queries):
            expected = nearest(words, starts, query, penalties[i])[:10]
            assert [*zip(*(values[i].tolist() for values in found), strict=True)] == expected


@pytest.mark.slow
def test_a_penalty_that_turns_the_order_is_proven_by_keeping_more(monkeypatch):
    """All that is near is in a recording of which the penalty makes the farthest."""
    words = np.repeat(np.array([[15, 15], [0, 0]], np.uint32), [40, 16], axis=0)
    starts = np.array([0, 40, 56])
    query, penalties = np.zeros((1, 3, 5, 2), np.uint32), np.zeros((1, 3, 2), np.int64)
    query[0, 2] = 1  # a rotation that is a little nearer to the first recording
    penalties[0, :, 1] = 100
    kept, attempted = set(), hamming.attempted
    monkeypatch.setattr(hamming, "attempted", lambda *a: kept.add(a[2]) or attempted(*a))
    database = planar.build(words, starts)
    found = rotations.search(database, query, 2, starts=starts, penalties=penalties)
    expected = nearest(words, starts, query[0], penalties[0])[:2]
    assert [*zip(*(values[0].tolist() for values in found), strict=True)] == expected
    assert len(kept) > 1


def test_rotations_in_which_nothing_is_near_are_proven_by_a_part_of_their_codes(monkeypatch):
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**32, (5_000, 4), np.uint32)
    starts = np.arange(0, 5_001, 500)
    queries = rng.integers(0, 2**32, (2, 12, 9, 4), np.uint32)
    queries[0, 7], queries[1, 2] = words[1_234:1_243], words[77:86]
    database = planar.build(words, starts)
    wanted = rotations.search(database, queries, 1)
    plans_used, attempted = [], hamming.attempted
    monkeypatch.setattr(
        hamming, "attempted", lambda *a: plans_used.append(a[3].plan) or attempted(*a)
    )
    found = rotations.search(database, queries, 1, progressive=True)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.row.ravel().tolist() == [1_234, 77]
    assert found.rotation.ravel().tolist() == [7, 2]
    assert {len(plan.offsets) for plan in plans_used} == {3}


def test_where_a_part_of_the_codes_misleads_the_answer_is_proven_by_all():
    """Hundreds of windows have the codes that the progressive scan looks at."""
    rng = np.random.default_rng(4)
    words = rng.integers(0, 2**32, (5_000, 4), np.uint32)
    queries = rng.integers(0, 2**32, (1, 12, 9, 4), np.uint32)
    for code in (0, 4, 8):
        words[code::20] = queries[0, 5, code]
    words[1_234:1_243] = queries[0, 5] ^ np.uint32(257)
    database = planar.build(words, np.arange(0, 5_001, 500))
    found = rotations.search(database, queries, 1, progressive=True)
    assert [*map(int, np.concatenate(found).ravel())] == [9 * 4 * 2, 1_234, 5]


def test_what_is_not_there_is_nowhere(collection):
    _, starts, database = collection
    found = rotations.search(database, np.zeros((2, 12, 91, 2), np.uint32), 4)
    assert (found.distance == NOWHERE).all()
    assert (found.row == -1).all()
    assert (found.rotation == -1).all()
    for wrong in (np.full((2, 12, 5), -1), np.zeros((2, 12, 4), int)):
        with pytest.raises(ValueError, match="Penalties must be at least 0"):
            rotations.search(
                database, np.zeros((2, 12, 5, 2), np.uint32), 4, starts=starts, penalties=wrong
            )
