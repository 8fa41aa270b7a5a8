"""The search against numpy brute force and faiss: distances, rows, order, borders, shards."""

import itertools
import threading

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqhash import parallel
from seqhash.search import hamming, kernels, planar, plans

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def _collection(seed, recordings, words, *, longest=60, distinct=None):
    """Codes and starts; few distinct codes make many ties."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(0, longest, recordings))])
    codes = rng.integers(0, 2**32, (starts[-1], words), np.uint32)
    if distinct:
        codes = rng.integers(0, 2**32, (distinct, words), np.uint32)[
            rng.integers(0, distinct, starts[-1])
        ]
    return codes, starts


def _queries(seed, codes, count, n, *, flip=0.1):
    """Windows of the codes with some bits flipped."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, max(1, len(codes) - n), count)
    windows = np.stack([np.resize(codes[row : row + n], (n, codes.shape[1])) for row in rows])
    flips = np.packbits(rng.random((*windows.shape, 32)) < flip, axis=-1, bitorder="little").view(
        "<u4"
    )[..., 0]
    return windows ^ flips


def _brute_force(codes, starts, queries):
    """Distances (queries, rows) of every window, NOWHERE where none begins."""
    rows, n = len(codes), queries.shape[1]
    distance = np.full((len(queries), rows), hamming.NOWHERE, np.int64)
    for low, high in itertools.pairwise(starts):
        for row in range(low, high - n + 1):
            distance[:, row] = np.bitwise_count(queries ^ codes[None, row : row + n]).sum(
                axis=(1, 2), dtype=np.int64
            )
    return distance


def _expected(distance, k):
    rows = np.broadcast_to(np.arange(distance.shape[1])[None], distance.shape)
    order = np.lexsort((rows, distance), axis=1)[:, :k]
    best = np.take_along_axis(distance, order, 1)
    missing = ((0, 0), (0, k - best.shape[1]))
    best = np.pad(best, missing, constant_values=hamming.NOWHERE)
    order = np.pad(order, missing, constant_values=-1)
    return best, np.where(best < hamming.NOWHERE, order, -1)


def _assert_agrees(found, distance, k):
    best, rows = _expected(distance, k)
    np.testing.assert_array_equal(found.distance, best)
    np.testing.assert_array_equal(found.row, rows)
    assert found.exact.all()


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    recordings=st.integers(0, 40),
    words=st.sampled_from([1, 3, 4]),
    n=st.sampled_from([1, 4, 9, 18]),
    k=st.sampled_from([1, 10]),
    distinct=st.sampled_from([None, 1, 5]),
    progressive=st.booleans(),
    little=st.sampled_from([0, plans.LITTLE]),  # a program for each length, and one for all
)
def test_search_is_brute_force(seed, recordings, words, n, k, distinct, progressive, little):
    codes, starts = _collection(seed, recordings, words, distinct=distinct)
    queries = _queries(seed, codes, 3, n) if len(codes) else np.zeros((3, n, words), np.uint32)
    database = planar.build(codes, starts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "LITTLE", little)
        found = hamming.search(database, queries, k, progressive=progressive)
    _assert_agrees(found, _brute_force(codes, starts, queries), k)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "n"), [(4, 1), (3, 2), (4, 9), (2, 17), (4, 40)])
def test_bits_are_counted_alike_with_and_without_adders(monkeypatch, words, n):
    monkeypatch.setattr(plans, "LITTLE", 0)
    codes, starts = _collection(words, 40, words, longest=300)
    queries = _queries(n, codes, 2, n)
    database, distance = planar.build(codes, starts), _brute_force(codes, starts, queries)
    for vectors in (True, False):
        monkeypatch.setattr(plans, "counts_vectors", lambda vectors=vectors: vectors)
        _assert_agrees(hamming.search(database, queries, 10), distance, 10)


@pytest.mark.parametrize("terms", [1, 2, 3, 8, 36, 135])
@pytest.mark.parametrize("adders", [True, False])
def test_ones_are_the_bits_set_in_all_terms(terms, adders):
    values = np.random.default_rng(terms).integers(0, 2**32, (terms, 50), np.uint32)
    values[:, 0], values[:, 1] = 2**32 - 1, 0
    np.testing.assert_array_equal(
        kernels.bits_set(list(jnp.asarray(values)), adders=adders),
        np.bitwise_count(values).sum(axis=0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 100])
@pytest.mark.parametrize("distinct", [None, 2000, 3])
def test_blocks_are_selected_by_runs(k, distinct):
    codes, starts = _collection(k, 1500, 2, distinct=distinct)
    database, queries = planar.build(codes, starts), _queries(1, codes, 5, 1)
    plan = plans.choose(database, 1, k, queries=5, partial=False)
    by_runs = plan.blocks >= 4 * kernels.RUN * (plans.selected_blocks(k) + 1)
    assert by_runs == (k < 100)  # both ways are taken
    _assert_agrees(hamming.search(database, queries, k), _brute_force(codes, starts, queries), k)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "n", "count", "devices"), [(4, 1, 2, 1), (3, 5, 1, 4), (4, 9, 1, 1), (4, 9, 2, 1)]
)
def test_few_queries_meet_all_rows_one_by_one(monkeypatch, words, n, count, devices):
    monkeypatch.setattr(plans, "LITTLE", 0)
    codes, starts = _collection(n, 600, words, longest=53)
    rows = int(starts[np.searchsorted(starts, 3600 * devices)])
    codes, starts = codes[:rows], starts[starts <= rows]
    mesh = (
        None
        if devices == 1
        else jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), (planar.AXIS,))
    )
    database, queries = planar.build(codes, starts, mesh=mesh), _queries(count, codes, count, n)
    chosen, choose = [], plans.choose

    def choosing(*args, **kwargs):
        chosen.append(choose(*args, **kwargs))
        return chosen[-1]

    monkeypatch.setattr(plans, "choose", choosing)
    for progressive in (False, True):
        found = hamming.search(database, queries, 3, progressive=progressive)
        _assert_agrees(found, _brute_force(codes, starts, queries), 3)
    assert len(chosen) > 2  # a full and, where there is a part to scan, a progressive one
    assert all(plan.one_by_one == (count == 1 or plans.counts_vectors()) for plan in chosen)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 9])
def test_more_neighbours_than_windows_and_thousands_of_rows(n):
    codes, starts = _collection(1, 300, 4, longest=200)
    queries = _queries(2, codes, 16, n)
    database, distance = planar.build(codes, starts), _brute_force(codes, starts, queries)
    _assert_agrees(hamming.search(database, queries, 1000), distance, 1000)
    few = planar.build(codes[: starts[3]], starts[:4])
    distance = _brute_force(codes[: starts[3]], starts[:4], queries)
    _assert_agrees(hamming.search(few, queries, 1000), distance, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "n"), [(1, 256), (4, 40), (16, 12)])
def test_long_windows_take_several_programs(words, n):
    codes, starts = _collection(3, 12, words, longest=700)
    queries = _queries(4, codes, 4, n, flip=0.2)
    distance = _brute_force(codes, starts, queries)
    database = planar.build(codes, starts)
    for progressive in (False, True):
        _assert_agrees(hamming.search(database, queries, progressive=progressive), distance, 1)


def test_a_window_longer_than_the_spare_rows():
    codes, starts = _collection(5, 3, 1, longest=9000)
    n = planar.SPARE + 100
    queries = _queries(6, codes, 1, n)
    _assert_agrees(
        hamming.search(planar.build(codes, starts), queries, 2),
        _brute_force(codes, starts, queries),
        2,
    )


def test_silence_everywhere_is_settled_by_row():
    codes = np.zeros((50_000, 4), np.uint32)
    found = hamming.search(
        planar.build(codes, np.array([0, 20_000, 50_000])), np.zeros((9, 4), np.uint32), 100
    )
    np.testing.assert_array_equal(found.row[0], np.arange(100))
    assert (found.distance == 0).all()


@pytest.mark.slow
def test_shards_on_devices_equal_one():
    codes, starts = _collection(12, 200, 4, longest=100)
    queries = _queries(13, codes, 5, 9, flip=0.25)
    one = planar.build(codes, starts)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), (planar.AXIS,))
    four = planar.build(codes, starts, mesh=mesh)
    assert len(four.used) == 4
    assert set(four.first) <= set(starts)
    for a, b in zip(
        hamming.search(one, queries, 10), hamming.search(four, queries, 10), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_database_stays_on_the_device_that_was_the_default(monkeypatch):
    """The platform is that of the database, whatever else this machine has; threads included."""
    codes, starts = _collection(23, 60, 4)
    queries = _queries(24, codes, 40, 2)
    other = jax.devices()[2]
    with jax.default_device(other):
        database = planar.build(codes, starts)
    monkeypatch.setattr(jax, "default_backend", lambda: pytest.fail("asked for the default"))
    monkeypatch.setattr(parallel, "cores", lambda: 4)
    monkeypatch.setattr(plans, "THREAD_POPCOUNTS", 1)
    devices, run = set(), hamming._nearest

    def nearest(*arguments, **static):
        found = run(*arguments, **static)
        devices.update(found.distance.devices())
        return found

    monkeypatch.setattr(hamming, "_nearest", nearest)
    _assert_agrees(hamming.search(database, queries), _brute_force(codes, starts, queries), 1)
    assert database.on_cpu
    assert devices == {other}


def test_an_option_that_this_jaxlib_does_not_know_is_left_out(monkeypatch):
    known = plans.CPU_OPTIONS
    assert plans.compiler_options("cpu") == known
    assert plans.compiler_options("gpu") is None
    monkeypatch.setattr(plans, "CPU_OPTIONS", {"xla_cpu_of_another_year": 1, **known})
    assert plans.compiler_options("cpu") == known
    codes, starts = _collection(25, 9, 4)
    program = plans.Program(
        hamming._nearest.function, static_argnames=hamming._nearest.static_argnames
    )
    monkeypatch.setattr(hamming, "_nearest", program)
    queries = _queries(26, codes, 2, 3)
    found = hamming.search(planar.build(codes, starts), queries)
    _assert_agrees(found, _brute_force(codes, starts, queries), 1)


def test_several_shards_on_one_device(monkeypatch):
    monkeypatch.setattr(planar, "SHARD_ROWS", 3000)
    codes, starts = _collection(14, 200, 4, longest=100)
    queries = _queries(15, codes, 5, 9, flip=0.25)
    database = planar.build(codes, starts)
    assert len(database.used) > 2
    _assert_agrees(hamming.search(database, queries, 10), _brute_force(codes, starts, queries), 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recordings", "words", "k"), [(3, 4, 1), (400, 1, 20), (400, 4, 1), (3000, 2, 20)]
)
def test_a_single_code(recordings, words, k):
    codes, starts = _collection(21, recordings, words)
    database = planar.build(codes, starts)
    for flip in (0.1, 0.5):
        queries = _queries(22, codes, 1, 1, flip=flip)
        _assert_agrees(
            hamming.search(database, queries, k), _brute_force(codes, starts, queries), k
        )


@pytest.mark.slow
@pytest.mark.parametrize("progressive", [False, True])
def test_batches_in_threads_equal_one_after_another(monkeypatch, progressive):
    codes, starts = _collection(8, 40, 2)
    database, queries = planar.build(codes, starts), _queries(9, codes, 50, 7, flip=0.3)
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    alone = hamming.search(database, queries, progressive=progressive)
    monkeypatch.setattr(parallel, "cores", lambda: 4)
    monkeypatch.setattr(plans, "THREAD_POPCOUNTS", 1)
    names = set()
    answer = hamming.attempted
    monkeypatch.setattr(
        hamming, "attempted", lambda *a: (names.add(threading.current_thread().name), answer(*a))[1]
    )
    together = hamming.search(database, queries, progressive=progressive)
    assert len(names) > 1
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_windows_of_all_lengths_share_a_program_in_a_small_collection():
    codes, starts = _collection(5, 20, 4, longest=300)
    database, programs = planar.build(codes, starts), []
    for n in (4, 5, 9, 17, 33, 64):
        queries = _queries(n, codes, 4, n)
        _assert_agrees(
            hamming.search(database, queries, progressive=False),
            _brute_force(codes, starts, queries),
            1,
        )
        programs.append(len(hamming._nearest.compiled))
    assert len(set(programs)) == 1


def test_one_program_serves_a_bucket():
    codes, starts = _collection(16, 100, 4)
    bigger = np.concatenate([codes, codes[: starts[1]]]), np.append(starts, starts[-1] + starts[1])
    hamming.search(planar.build(codes, starts), _queries(17, codes, 3, 20), 4)
    programs = len(hamming._nearest.compiled)
    hamming.search(planar.build(*bigger), _queries(18, codes, 4, 19), 4)
    assert len(hamming._nearest.compiled) == programs


def test_distances_of_faiss():
    faiss = pytest.importorskip("faiss")
    codes, starts = _collection(19, 100, 4, longest=1000)
    queries = _queries(20, codes, 50, 1, flip=0.3)
    index = faiss.IndexBinaryFlat(128)
    index.add(codes.view(np.uint8))
    distance, _ = index.search(np.ascontiguousarray(queries[:, 0]).view(np.uint8), 20)
    np.testing.assert_array_equal(
        hamming.search(planar.build(codes, starts), queries, 20).distance, distance
    )


def test_shapes_in_signatures_are_checked_in_this_run():
    with pytest.raises(jaxtyping.TypeCheckError, match="values"):
        kernels.smallest(jnp.zeros(3), 1)


def test_mistakes_are_named():
    codes, starts = _collection(21, 5, 4)
    database = planar.build(codes, starts)
    with pytest.raises(ValueError, match=r"4 words \(12 where bits are weighted\), the query's 2"):
        hamming.search(database, np.zeros((1, 3, 2), np.uint32))
    with pytest.raises(ValueError, match="uint32"):
        hamming.search(database, np.zeros((1, 3, 4), np.int64))
    with pytest.raises(ValueError, match="k must be"):
        hamming.search(database, codes[:3], 0)
    with pytest.raises(ValueError, match="starts must rise"):
        planar.build(codes, np.array([0, 3]))


# ---------------------------------------------------------------------------------------- weighted


def _weighted(queries, seed):
    """The queries with random weights 0 to 3 of their bits: (queries, n, 3 words)."""
    planes = np.random.default_rng(seed).integers(0, 2**32, (2, *queries.shape), np.uint32)
    return np.concatenate([queries, *planes], axis=2)


def _weighted_brute_force(codes, starts, queries):
    """Bit by bit: the sum of the weights of all bits that differ."""
    bits = np.unpackbits(np.ascontiguousarray(queries).view(np.uint8), axis=2, bitorder="little")
    bits, one, two = np.split(bits.astype(np.int64), 3, axis=2)
    there = np.unpackbits(np.ascontiguousarray(codes).view(np.uint8), axis=1, bitorder="little")
    n = queries.shape[1]
    distance = np.full((len(queries), len(codes)), hamming.NOWHERE, np.int64)
    for low, high in itertools.pairwise(starts):
        for row in range(low, high - n + 1):
            different = bits != there[None, row : row + n]
            distance[:, row] = (different * (one + 2 * two)).sum(axis=(1, 2))
    return distance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "n", "count", "k", "distinct", "progressive"),
    [
        (1, 14, 2, 3, None, False),  # unrolled, one by one
        (1, 14, 20, 3, 5, True),  # ties, a part of the codes
        (1, 46, 2, 16, None, False),  # a loop over the codes
        (4, 2, 9, 4, None, True),  # a part of the words
        (4, 9, 3, 1, None, None),
    ],
)
def test_weighted_search_is_brute_force(words, n, count, k, distinct, progressive):
    codes, starts = _collection(n, 60, words, longest=120, distinct=distinct)
    queries = _weighted(_queries(5, codes, count, n), 7)
    database = planar.build(codes, starts)
    found = hamming.search(database, queries, k, progressive=progressive)
    _assert_agrees(found, _weighted_brute_force(codes, starts, queries), k)


@pytest.mark.slow
def test_weights_of_one_are_the_plain_distance():
    codes, starts = _collection(3, 20, 2)
    queries = _queries(1, codes, 4, 9)
    ones, none = np.full_like(queries, 2**32 - 1), np.zeros_like(queries)
    database = planar.build(codes, starts)
    plain = hamming.search(database, queries, 5)
    weighted = hamming.search(database, np.concatenate([queries, ones, none], axis=2), 5)
    np.testing.assert_array_equal(weighted.distance, plain.distance)
    np.testing.assert_array_equal(weighted.row, plain.row)


@pytest.mark.parametrize(("n", "words"), [(40, 1), (9, 4)])  # more words than a rough scan compares
def test_what_is_near_is_likely_found_and_its_distance_is_of_all_codes_and_weights(n, words):
    codes, starts = _collection(4, 60, words, longest=120)
    queries = _weighted(_queries(6, codes, 9, n), 8)
    found = hamming.likely(planar.build(codes, starts), queries, 4)
    every = _weighted_brute_force(codes, starts, queries)
    there = found.row >= 0
    distance = np.take_along_axis(every, np.maximum(found.row, 0), axis=1)
    np.testing.assert_array_equal(found.distance[there], distance[there])
    assert (np.diff(found.distance, axis=1) >= 0).all()
    assert not found.exact.any()
    near = every.min(axis=1) < 12 * n * words  # half of chance: it was cut inside one recording
    assert near.sum() > 3
    np.testing.assert_array_equal(found.distance[near, 0], every[near].min(axis=1))
