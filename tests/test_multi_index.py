import itertools

import numpy as np
import pytest

from seqhash.search import multi_index
from seqhash.search.hamming import NOWHERE


def collection(
    rng: np.random.Generator, lengths, words: int, *, dull: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Random codes of recordings of those lengths; dull ones have few distinct values: full
    buckets, and ties.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    codes = rng.integers(0, 2**32, (int(starts[-1]), words), dtype=np.uint32)
    return (codes & np.uint32(0x0103)) if dull else codes, starts


def flipped(rng: np.random.Generator, codes: np.ndarray, share: float) -> np.ndarray:
    """The codes with each bit flipped with that probability."""
    flips = rng.random((*codes.shape, 32)) < share
    return codes ^ np.packbits(flips, axis=-1, bitorder="little").view("<u4")[..., 0]


def queries_like(
    rng: np.random.Generator, codes: np.ndarray, n: int, count: int, share: float = 0.1
) -> np.ndarray:
    """Windows from anywhere, borders included, with flipped bits; random ones where the collection
    is too short.
    """
    if len(codes) < n:
        return rng.integers(0, 2**32, (count, n, codes.shape[1]), dtype=np.uint32)
    rows = rng.integers(0, len(codes) - n + 1, count)
    return flipped(rng, codes[rows[:, None] + np.arange(n)], share)


def brute_force(codes: np.ndarray, starts: np.ndarray, query: np.ndarray) -> list[tuple[int, int]]:
    """(distance, row) of every window, in order: one XOR after another."""
    n = len(query)
    windows = [row for low, high in itertools.pairwise(starts) for row in range(low, high - n + 1)]
    return sorted(
        (int(np.bitwise_count(codes[row : row + n] ^ query).sum()), int(row)) for row in windows
    )


def answers(found, query: int) -> list[tuple[int, int]]:
    real = found.row[query] >= 0
    assert (found.distance[query][~real] == NOWHERE).all()
    assert not real[np.argmin(real) :].any() or real.all()  # padding comes last
    return list(
        zip(found.distance[query][real].tolist(), found.row[query][real].tolist(), strict=True)
    )


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_called_exact_is_the_brute_force_answer(seed, monkeypatch):
    """And any other answer is true windows with their true distances, in order, without
    repetition.
    """
    rng = np.random.default_rng(seed)
    words, n = int(rng.choice([1, 2, 3, 4])), int(rng.integers(1, 13))
    codes, starts = collection(
        rng, rng.integers(0, 40, int(rng.integers(0, 8))), words, dull=seed % 3 == 0
    )
    tables = multi_index.build(
        codes, starts, bits=None if seed % 4 == 0 else int(rng.integers(1, 12))
    )
    for share in (0.0, 0.03, 0.12):
        queries = queries_like(rng, codes, n, 3, share)
        k, limit = (
            int(rng.choice([1, 2, 10, 500])),
            None if rng.random() < 0.5 else int(rng.integers(0, 40 * n)),
        )
        monkeypatch.setattr(multi_index, "CAP", rng.choice([1, 4, 256]))
        radius = int(rng.integers(0, 4))
        found = multi_index.search(tables, queries, k, radius=radius, limit=limit)
        assert found.distance.shape == found.row.shape == (3, k)
        assert (found.distance.dtype, found.row.dtype, found.exact.dtype) == (
            np.int32,
            np.int64,
            bool,
        )
        for query in range(3):
            wanted = brute_force(codes, starts, queries[query])
            wanted = [pair for pair in wanted if limit is None or pair[0] <= limit]
            got = answers(found, query)
            assert got == sorted(set(got))
            assert set(got) <= set(wanted)
            if found.exact[query]:
                assert got == wanted[:k]


@pytest.mark.parametrize(
    ("words", "n", "bits"), [(4, 3, 8), (2, 9, 8), (1, 12, 5), (1, 1, 9), (4, 1, 11), (3, 5, 13)]
)
@pytest.mark.parametrize("radius", [0, 1, 2])
def test_all_windows_below_the_bound_are_found(words, n, bits, radius, monkeypatch):
    """The pigeonhole where it is tight: radius + 1 flips in every substring but one, which has
    radius.
    """
    rng = np.random.default_rng(words + n)
    substrings = 32 * words // bits
    spread = np.zeros(
        (4 * words, 256, substrings), np.int64
    )  # bit s b + i of a code is bit i of substring s
    for substring, place in np.ndindex(substrings, bits):
        octet, bit = divmod(substring * bits + place, 8)
        spread[octet, :, substring] += (np.arange(256) >> bit & 1) << place
    monkeypatch.setattr(multi_index, "_substrings", lambda words, bits: (bits, spread))
    codes, starts = collection(rng, [20 * n, 0, n - 1, n, 30 * n], words)
    query = rng.integers(0, 2**32, (n, words), dtype=np.uint32)
    bound = (radius + 1) * n * substrings

    def at_the_bound(spare: int) -> np.ndarray:
        """The query with radius + 1 flips in each substring, but for ``spare`` of them."""
        flips = np.zeros((n, 32 * words), np.uint8)
        for code, substring in np.ndindex(n, substrings):
            flips[code, substring * bits + rng.permutation(bits)[: radius + 1]] = 1
        flips[tuple(rng.permutation(np.argwhere(flips))[:spare].T)] = 0
        return query ^ np.packbits(flips, axis=1, bitorder="little").view("<u4")

    rows = [*range(0, 20 * n, n), *range(21 * n - 1, 52 * n - 1, n)]
    for index, row in enumerate(rows):
        codes[row : row + n] = at_the_bound(index % 2)
    tables = multi_index.build(codes, starts, bits=bits)
    wanted = brute_force(codes, starts, query)
    near = [pair for pair in wanted if pair[0] < bound]
    assert len(near) >= len(rows) // 2
    found = multi_index.search(tables, query, len(near) + 1, radius=radius, limit=bound - 1)
    assert found.exact.all()
    assert answers(found, 0) == near
    # One bit more is missed, and not called exact.
    more = multi_index.search(tables, query, len(wanted), radius=radius, limit=bound)
    assert not more.exact.any()
    assert len(answers(more, 0)) < sum(distance <= bound for distance, _ in wanted)


@pytest.mark.parametrize("bits", [None, 8, 14, 20])
def test_semantic_hashing_finds_the_whole_ball(bits):
    """32-bit codes in one table (or a few), n = 1: every code within the radius, for each of many
    queries.
    """
    rng = np.random.default_rng(5)
    centres = rng.integers(0, 2**32, (40, 1), dtype=np.uint32)
    codes = flipped(rng, centres[rng.integers(0, 40, 3000)], 0.06)
    tables = multi_index.build(codes, np.array([0, 1000, 3000]), bits=bits)
    queries = flipped(rng, centres[:, None], 0.03)
    for limit in (0, 1, 3):
        found = multi_index.search(tables, queries, 300, radius=limit, limit=limit)
        assert found.exact.all()
        distance = np.bitwise_count(queries[:, 0] ^ codes[:, 0][None, :]).astype(np.int32)
        near = [np.lexsort((np.arange(3000), row))[: (row <= limit).sum()] for row in distance]
        for query, rows in enumerate(near):
            assert answers(found, query) == [(distance[query, row], row) for row in rows]
    assert sum(map(len, near)) > 100


def test_a_window_stays_inside_its_recording():
    rng = np.random.default_rng(0)
    codes, starts = collection(rng, [20, 20], 4)
    tables = multi_index.build(codes, starts)
    across = codes[16:24][None]  # four codes of each recording
    found = multi_index.search(tables, across, 40, radius=0)
    assert 16 not in found.row
    assert found.distance.min() > 0
    for row in (0, 12, 20, 32):  # first and last windows of both
        found = multi_index.search(tables, codes[row : row + 8], radius=0)
        assert (found.distance.item(), found.row.item(), found.exact.item()) == (0, row, True)


def test_ties_go_to_the_first_row_and_all_are_given():
    rng = np.random.default_rng(0)
    codes, starts = collection(rng, [500], 4)
    copies = np.arange(300, 460, 10)
    codes[copies[:, None] + np.arange(5)] = codes[:5]
    found = multi_index.search(multi_index.build(codes, starts), codes[:5], 9, radius=1)
    assert found.exact.all()
    np.testing.assert_array_equal(found.row, [[0, *copies[:8]]])


def test_distances_of_long_windows_pass_65535():
    codes, starts = collection(np.random.default_rng(0), [1200], 4)
    query = ~codes
    query[0] = codes[0]
    found = multi_index.search(multi_index.build(codes, starts), query, radius=0)
    assert (found.distance.item(), found.row.item()) == (1199 * 128, 0)


@pytest.fixture(scope="module")
def large():
    rng = np.random.default_rng(1)
    codes, starts = collection(rng, [1000] * 200, 4)
    rows = rng.integers(0, 200, 300) * 1000 + rng.integers(0, 991, 300)
    return multi_index.build(codes, starts), rows, codes[rows[:, None] + np.arange(9)]


def test_finds_and_proves_noisy_windows_without_looking_at_many(large, monkeypatch):
    tables, rows, windows = large
    queries = flipped(np.random.default_rng(2), windows, 0.1)
    seen = []
    verify = multi_index._verify
    monkeypatch.setattr(multi_index, "_verify", lambda *a: (seen.append(len(a[2])), verify(*a))[1])
    one = multi_index.search(tables, queries, radius=1)
    assert (one.row[:, 0] == rows).mean() >= 0.999
    assert sum(seen) / 300 < 2000  # of 198,400 windows
    two = multi_index.search(tables, queries, radius=2)
    assert two.exact.all()
    np.testing.assert_array_equal(two.row[:, 0], rows)
    flips = np.bitwise_count(windows ^ queries).sum(axis=(1, 2))
    np.testing.assert_array_equal(two.distance[:, 0], flips)
    assert one.exact.mean() < 1  # radius 1 proves less than (1 + 1) 9 m
    np.testing.assert_array_equal(one.exact, flips < 2 * 9 * tables.substrings)


def test_one_query_and_a_batch_give_the_same(large):
    tables, _, windows = large
    queries = flipped(np.random.default_rng(3), windows[:70], 0.15)
    batch = multi_index.search(tables, queries, 3, radius=1)
    for index, query in enumerate(queries):
        single = multi_index.search(tables, query, 3, radius=1)
        for got, wanted in zip(single, batch, strict=True):
            np.testing.assert_array_equal(got[0], wanted[index])


def test_options_that_stop_early(large, monkeypatch):
    tables, rows, windows = large
    shells = []
    shell = multi_index._shell
    monkeypatch.setattr(
        multi_index, "_shell", lambda bits, radius: (shells.append(radius), shell(bits, radius))[1]
    )

    def looked_up(queries, **options):
        """(the last radius looked up, the answer)"""
        shells.clear()
        found = multi_index.search(tables, queries, **options)
        return max(shells), found

    rng = np.random.default_rng(4)
    near, far = flipped(rng, windows[:1], 0.13), rng.integers(0, 2**32, (1, 9, 4), dtype=np.uint32)
    assert looked_up(windows[:1], radius=3)[0] == 0  # distance 0 is below the bound at once
    assert looked_up(far, radius=2)[0] == 1  # a stranger's distance is out of reach
    depth, found = looked_up(near, radius=2)
    assert (depth, found.exact.item(), found.row.item()) == (2, True, rows[0])
    depth, found = looked_up(far, radius=3, limit=100)
    assert (depth, found.exact.item()) == (1, True)
    assert found.row.item() == -1  # proven that there is nothing


def test_full_buckets_are_capped_and_the_proof_withdrawn(monkeypatch):
    rng = np.random.default_rng(0)
    codes, starts = collection(rng, [4000], 4)
    codes[1000:3000] = codes[0]  # a long silence
    tables = multi_index.build(codes, starts)
    silence, other = codes[1000:1005], codes[50:55]
    capped = multi_index.search(tables, silence, 5, radius=1)
    assert not capped.exact.any()
    assert (capped.distance == 0).all()
    assert multi_index.search(tables, other, radius=1).exact.all()  # meets none of them
    seen = []
    verify = multi_index._verify
    monkeypatch.setattr(multi_index, "_verify", lambda *a: (seen.append(len(a[2])), verify(*a))[1])
    multi_index.search(tables, silence, 5, radius=0)
    assert 0 < sum(seen) <= multi_index.CAP * 5 * tables.substrings
    monkeypatch.setattr(multi_index, "CAP", 4000)
    whole = multi_index.search(tables, silence, 5, radius=1)
    assert whole.exact.all()
    np.testing.assert_array_equal(whole.row, [[1000, 1001, 1002, 1003, 1004]])


def test_many_candidates_are_taken_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    codes, starts = collection(rng, [700], 2, dull=True)
    tables = multi_index.build(codes, starts, bits=4)
    queries = queries_like(rng, codes, 3, 40)
    monkeypatch.setattr(multi_index, "CAP", 700)
    whole = multi_index.search(tables, queries, 20, radius=2)
    monkeypatch.setattr(multi_index, "_CANDIDATES", 50)
    monkeypatch.setattr(multi_index, "_BLOCK", 7)
    monkeypatch.setattr(multi_index, "_QUERIES", 3)
    for got, wanted in zip(multi_index.search(tables, queries, 20, radius=2), whole, strict=True):
        np.testing.assert_array_equal(got, wanted)
    again = multi_index.build(codes, starts, bits=4)
    np.testing.assert_array_equal(again.order, tables.order)
    np.testing.assert_array_equal(again.offsets, tables.offsets)


@pytest.mark.parametrize(("lengths", "n"), [([], 1), ([0, 0], 3), ([2, 1, 2], 3)])
def test_no_window_at_all(lengths, n):
    codes, starts = collection(np.random.default_rng(0), lengths, 4)
    tables = multi_index.build(codes, starts)
    found = multi_index.search(tables, np.zeros((2, n, 4), np.uint32), 3, radius=1)
    assert (found.row == -1).all()
    assert (found.distance == NOWHERE).all()
    assert found.exact.all()
    assert multi_index.search(tables, np.zeros((0, n, 4), np.uint32), 3).row.shape == (0, 3)


def test_tables_are_sorted_rows():
    codes, starts = collection(np.random.default_rng(0), [5000], 4)
    tables = multi_index.build(codes, starts, bits=16)
    values = multi_index._values(tables.spread, codes)
    for substring in range(8):
        order = np.argsort(values[:, substring], kind="stable")
        np.testing.assert_array_equal(tables.order[substring], order)
        edges = np.searchsorted(values[order, substring], np.arange(2**16 + 1))
        np.testing.assert_array_equal(tables.offsets[substring], edges)


def test_substrings_are_made_of_bits_that_tell_codes_apart():
    codes, starts = collection(np.random.default_rng(0), [5000], 4)
    codes[:, 1] = 7  # 32 constant bits
    codes[:, 3] = flipped(
        np.random.default_rng(1), codes[:, 2], 0.05
    )  # 32 repeated ones, or nearly
    tables = multi_index.build(codes, starts, bits=24)
    used = tables.spread[:, 1 << np.arange(8)].reshape(128, 5) > 0
    assert (used.sum(axis=0) == 24).all()
    left_over = np.flatnonzero(~used.any(axis=1))
    assert len(left_over) == 8
    assert set(left_over // 32) == {1}
    assert not (used[64:96] & used[96:]).any()  # a bit and its copy never meet in one substring


def test_a_proof_takes_the_emptiest_buckets():
    whole = np.array(
        [[True, True, False, True], [True, True, True, True], [True, False, True, True]]
    )
    hits = np.array([[9, 5, 0, 7], [4, 3, 2, 1], [1, 1, 1, 1]])
    chosen = multi_index._choose(whole, hits, np.array([2, 9, 0]))
    np.testing.assert_array_equal(chosen, [[False, True, False, True], [True] * 4, [False] * 4])


def test_bits_of_an_address_grow_with_rows_and_with_repetition():
    rng = np.random.default_rng(0)
    assert multi_index.build(*collection(rng, [100], 4)).bits == 8
    uniform, starts = collection(rng, [5000], 4)
    assert multi_index.build(uniform, starts).bits == 13
    assert (
        multi_index.build(uniform & np.uint32(0x11111111), starts).bits == 14
    )  # 15 would be one table less
    one = multi_index.build(*collection(rng, [5000], 1))
    assert (one.bits, one.substrings) == (13, 2)
    assert one.nbytes < 5000 * (2 + 4 * 2) + 2 * 4 * (2**13 + 1) + 4 * 256 * 2 * 8 + 100


def test_what_cannot_be_searched_is_refused():
    codes, starts = collection(np.random.default_rng(0), [50], 4)
    tables = multi_index.build(codes, starts)
    with pytest.raises(ValueError, match="words must be uint32"):
        multi_index.build(codes.astype(np.int64), starts)
    with pytest.raises(ValueError, match=r"number of rows, 50"):
        multi_index.build(codes, np.array([0, 49]))
    with pytest.raises(ValueError, match="1 to 26, got 27"):
        multi_index.build(codes, starts, bits=27)
    with pytest.raises(ValueError, match=r"n >= 1, 4\), got uint32 \(1, 3, 2\)"):
        multi_index.search(tables, np.zeros((3, 2), np.uint32))
    with pytest.raises(ValueError, match="got k=0"):
        multi_index.search(tables, codes[:3], 0)
    with pytest.raises(ValueError, match="got k=1, radius=-1"):
        multi_index.search(tables, codes[:3], radius=-1)
