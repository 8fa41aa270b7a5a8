"""Oracles: brute force with ``np.bitwise_count`` and Python sets, hand-made ties, scipy's bootstrap
and binomial.
"""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from seqhash import audio, export, metrics
from seqhash.metrics import NO_WINDOW, Collisions, Tally
from seqhash.search import hamming, planar


def codes_of(*numbers):
    """One-word codes: codes_of(1, 2) is a recording of two codes."""
    return np.array(numbers, np.uint32).reshape(-1, 1)


def random_codes(generator, count, words, levels):
    """Few ``levels`` make many equal codes, and so many ties."""
    return generator.integers(levels, size=(count, words), dtype=np.uint32)


def brute_nearest(query, references, n):
    distances, positions = [], []
    for i in range(len(query) - n + 1):
        row = []
        for reference in references:
            there = [
                int(np.bitwise_count(query[i : i + n] ^ reference[j : j + n]).sum())
                for j in range(len(reference) - n + 1)
            ]
            smallest = min(there, default=NO_WINDOW)
            row.append((smallest, there.count(smallest)))
        distances.append([d for d, _ in row])
        positions.append([p for _, p in row])
    return distances, positions


def brute_judge(query, references, right, n):
    """The paper's rule, word by word, on one list of all windows of the database."""
    strict = lenient = 0
    for i in range(len(query) - n + 1):
        everywhere = [
            (int(np.bitwise_count(query[i : i + n] ^ reference[j : j + n]).sum()), r)
            for r, reference in enumerate(references)
            for j in range(len(reference) - n + 1)
        ]
        smallest = min((d for d, _ in everywhere), default=None)
        winners = [r for d, r in everywhere if d == smallest]
        strict += winners == [right]
        lenient += set(winners) == {right}
    return strict, lenient


@pytest.mark.parametrize("words", [1, 4, 8])
@pytest.mark.parametrize("levels", [2, 3, 2**32])
def test_nearest_equals_brute_force(words, levels):
    generator = np.random.default_rng(words)
    query = random_codes(generator, 23, words, levels)
    references = [random_codes(generator, count, words, levels) for count in (31, 9, 40, 3, 0)]
    lengths = (1, 2, 3, 7, 9, 17, 23, 24)
    found = metrics.nearest(query, references, lengths=lengths)
    assert tuple(found) == lengths
    for n in lengths:
        distances, positions = brute_nearest(query, references, n)
        assert found[n].distance.dtype == np.int32
        assert found[n].distance.shape == (max(23 - n + 1, 0), 5)
        np.testing.assert_array_equal(
            found[n].distance, np.array(distances, np.int32).reshape(-1, 5)
        )
        np.testing.assert_array_equal(
            found[n].positions, np.array(positions, np.int32).reshape(-1, 5)
        )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    query_codes=st.integers(0, 12),
    reference_codes=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    n=st.integers(1, 13),
)
def test_nearest_and_judge_equal_brute_force_for_any_sizes(seed, query_codes, reference_codes, n):
    generator = np.random.default_rng(seed)
    query = random_codes(generator, query_codes, 1, 4)
    references = [random_codes(generator, count, 1, 4) for count in reference_codes]
    found = metrics.nearest(query, references, lengths=[n])[n]
    distances, positions = brute_nearest(query, references, n)
    assert found.distance.tolist() == distances
    assert found.positions.tolist() == positions
    strict, lenient = metrics.judge(found, 0)
    assert (strict.sum(), lenient.sum()) == brute_judge(query, references, 0, n)


def searched(query, references, n):
    """``metrics.nearest`` by the popcount search, which is asked for all windows there are."""
    starts = np.cumsum([0, *map(len, references)])
    windows = np.lib.stride_tricks.sliding_window_view(query, n, axis=0).transpose(0, 2, 1)
    database = planar.build(np.concatenate(references), starts)
    found = hamming.search(database, np.ascontiguousarray(windows), int(starts[-1]))
    recording, _ = planar.locate(starts, found.row)
    distance = np.full((len(windows), len(references)), NO_WINDOW, np.int32)
    positions = np.zeros_like(distance)
    for r in range(len(references)):
        there = np.where(recording == r, found.distance, NO_WINDOW)
        distance[:, r] = there.min(axis=1)
        nearest = (recording == r) & (there == distance[:, r, None])
        positions[:, r] = nearest.sum(axis=1)
    return metrics.Nearest(distance, positions)


def assert_is_the_search(query, references, lengths):
    """The product's numbers, and so strict and lenient counts, are the popcount search's."""
    product = metrics.nearest(query, references, lengths=lengths)
    for n in lengths:
        popcounts = searched(query, references, n)
        np.testing.assert_array_equal(product[n].distance, popcounts.distance)
        np.testing.assert_array_equal(product[n].positions, popcounts.positions)
        for right in range(len(references)):
            for ours, theirs in zip(
                metrics.judge(product[n], right), metrics.judge(popcounts, right), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)
    return product


@pytest.mark.slow
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("levels", [2, 2**32])
def test_the_product_and_the_popcount_search_are_one(compiled_quickly, words, levels):
    generator = np.random.default_rng(words)
    references = [random_codes(generator, count, words, levels) for count in (60, 8, 45, 0)]
    query = random_codes(generator, 40, words, levels)
    query[:20] = references[0][30:50]
    references[2][5:35] = references[0][20:50]  # ties between recordings, of whole windows
    product = assert_is_the_search(query, references, (1, 9, 17))
    tied = product[9].distance[:12, 0] == product[9].distance[:12, 2]
    assert tied.all()
    assert levels > 2 or (product[1].positions > 1).any()


@pytest.mark.slow
def test_the_product_and_the_popcount_search_are_one_on_real_codes(compiled_quickly, corpora):
    hasher = export.load_hasher("paper-128")
    files = sorted((corpora / "covers-real" / "audio").iterdir())[:4]
    seconds = 40 * hasher.sample_rate
    read = [audio.read(file, sample_rate=hasher.sample_rate)[:seconds] for file in files]
    query, *references = map(hasher.hash_samples, read)
    assert_is_the_search(query, [*references, query[40:60]], (1, 9, 17, 37))


@pytest.mark.parametrize("name", ["_BLOCK", "_TABLE"])
def test_nearest_joins_blocks_of_the_query(monkeypatch, name):
    generator = np.random.default_rng(0)
    query = random_codes(generator, 200, 1, 5)
    references = [random_codes(generator, count, 1, 5) for count in (30, 12)]
    monkeypatch.setattr(metrics, name, 1)  # blocks of 64 windows: the smallest
    found = metrics.nearest(query, references, lengths=(1, 9))
    for n in (1, 9):
        distances, positions = brute_nearest(query, references, n)
        assert found[n].distance.tolist() == distances
        assert found[n].positions.tolist() == positions


def test_nearest_is_exact_where_sums_exceed_16_bits():
    n = 300  # 300 * 128 bits = 38,400 > 32,767
    zeros, ones = np.zeros((n, 4), np.uint32), np.full((n, 4), 2**32 - 1, np.uint32)
    found = metrics.nearest(zeros, [zeros, ones], lengths=[n])[n]
    assert found.distance.tolist() == [[0, n * 128]]


def test_distance_of_a_known_bit():
    """Bit 35 is bit 3 of word 1."""
    query = np.array([[0, 1 << 3]], np.uint32)
    assert metrics.nearest(query, [np.zeros((1, 2), np.uint32)], lengths=[1])[
        1
    ].distance.tolist() == [[1]]
    means = metrics.bit_means([query])
    assert means.shape == (64,)
    assert np.flatnonzero(means).tolist() == [35]


# The query is code 0. A reference's 0 is at distance 0, a 1 at distance 1, a 3 at distance 2.
@pytest.mark.parametrize(
    ("own", "other", "strict", "lenient"),
    [
        ((0, 3), (1, 3), True, True),  # one nearest window, the right one
        ((1, 3), (0, 3), False, False),  # the wrong recording
        ((0, 3), (0, 3), False, False),  # a tie between recordings
        ((0, 0), (1, 3), False, True),  # a tie within the right recording
        ((0, 0), (0, 3), False, False),  # both ties
        ((1, 3), (0, 0), False, False),  # a tie within the wrong recording
        ((1, 3), (3, 3), True, True),  # nearest need not mean equal
        ((), (3, 3), False, False),  # the right recording has no window
        ((3, 3), (), False, True),  # the wrong one has none
        ((), (), False, False),  # no windows at all
    ],
)
def test_ties_by_hand(own, other, strict, lenient):
    found = metrics.nearest(codes_of(0), [codes_of(*other), codes_of(*own)], lengths=[1])[1]
    assert [bool(rule[0]) for rule in metrics.judge(found, 1)] == [strict, lenient]


def test_windows_never_cross_recordings():
    """1, 2 occurs across the boundary of the references but in neither of them."""
    found = metrics.nearest(codes_of(1, 2), [codes_of(7, 1), codes_of(2, 7)], lengths=[2])[2]
    assert (found.distance > 0).all()


def test_cover_accuracy_equals_brute_force():
    generator = np.random.default_rng(3)
    references = [random_codes(generator, count, 1, 99) for count in (20, 14, 3)]
    queries = [random_codes(generator, count, 1, 99) for count in (15, 9, 2, 0, 12)]
    works = ["b", "a", "c", "a", "b"]
    result = metrics.cover_accuracy(
        queries, works, references, ["a", "b", "c"], lengths=(1, 2, 4), resamples=20
    )
    for n in (1, 2, 4):
        judged = [
            brute_judge(q, references, "abc".index(w), n)
            for q, w in zip(queries, works, strict=True)
        ]
        windows = np.array([max(len(query) - n + 1, 0) for query in queries])
        strict, lenient = np.array(judged).T
        assert result[n].value == pytest.approx(strict.sum() / windows.sum())
        assert result[n].lenient == pytest.approx(lenient.sum() / windows.sum())
        assert 0 < strict.sum() < lenient.sum()  # the example has what it is to show
        assert result[n].by_recording == pytest.approx(
            np.mean(strict[windows > 0] / windows[windows > 0])
        )
        assert (result[n].windows, result[n].recordings) == (windows.sum(), (windows > 0).sum())
        assert result[n].works == (3 if n < 4 else 2)


def test_a_database_finds_itself():
    generator = np.random.default_rng(1)
    originals = [random_codes(generator, 50, 4, 2**32) for _ in range(5)]
    result = metrics.cover_accuracy(originals, "abcde", originals, "abcde", resamples=10)
    for n in metrics.PAPER_LENGTHS:
        assert result[n][:8] == (1.0,) * 8
        assert result[n].by_recording == 1.0
        assert result[n].windows == 5 * (50 - n + 1)


def test_accuracy_by_hand():
    tally = Tally(
        strict=np.array([1, 0, 9]), lenient=np.array([2, 0, 9]), windows=np.array([10, 0, 10])
    )
    result = metrics.accuracy(tally, ["a", "b", "a"], resamples=200)
    assert (result.value, result.lenient, result.by_recording) == (0.5, 0.55, 0.5)
    assert (result.low, result.high) == (0.1, 0.9)  # draws of two recordings: 0.1, 0.5 or 0.9
    assert (result.work_low, result.work_high) == (0.5, 0.5)  # only one work has windows
    assert (result.windows, result.recordings, result.works) == (20, 2, 1)


def test_by_recording_weighs_each_cover_alike():
    tally = Tally(strict=np.array([1, 0]), lenient=np.array([1, 0]), windows=np.array([1, 99]))
    result = metrics.accuracy(tally, "ab", resamples=5)
    assert (result.value, result.by_recording) == (0.01, 0.5)


def test_subset_equals_a_tally_of_the_subset():
    generator = np.random.default_rng(5)
    references = [random_codes(generator, 30, 1, 99) for _ in range(3)]
    queries = [random_codes(generator, 20, 1, 99) for _ in range(6)]
    works = list("abcabc")
    keep = np.array([True, False, True, True, False, False])
    whole = metrics.tally_covers(queries, works, references, "abc", lengths=[1])[1]
    part = metrics.tally_covers(
        [q for q, k in zip(queries, keep, strict=True) if k],
        [w for w, k in zip(works, keep, strict=True) if k],
        references,
        "abc",
        lengths=[1],
    )[1]
    for a, b in zip(metrics.subset(whole, keep), part, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.lenient.sum() > part.lenient.sum()


def test_interval_agrees_with_scipy_bootstrap():
    generator = np.random.default_rng(2)
    windows = generator.integers(50, 300, 60)
    correct = generator.binomial(windows, generator.beta(2, 8, 60))
    ours = metrics.share(correct, windows, resamples=4000, seed=1)
    theirs = scipy.stats.bootstrap(
        (correct, windows),
        lambda c, w, axis: c.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = theirs.high - theirs.low
    # Both are Monte Carlo: a 2.5 % quantile of 4,000 draws has a standard error of about 1.2 % of
    # the width.
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)
    assert ours.value == correct.sum() / windows.sum()


def test_interval_of_independent_queries_is_binomial():
    correct = np.arange(400) % 4 == 0
    ours = metrics.share(correct, np.ones(400), resamples=4000)
    low, high = scipy.stats.norm.interval(0.95, 0.25, math.sqrt(0.25 * 0.75 / 400))
    assert ours.value == 0.25
    assert ours.low == pytest.approx(low, abs=0.005)
    assert ours.high == pytest.approx(high, abs=0.005)


def test_interval_over_works_is_wider_when_covers_of_a_work_agree():
    works = np.repeat(np.arange(20), 3)
    correct = 5 * works
    single = metrics.share(correct, np.full(60, 100), resamples=2000)
    grouped = metrics.share(correct, np.full(60, 100), groups=works, resamples=2000)
    assert grouped.value == single.value == 0.475
    # A third as many independent draws: wider by sqrt(3).
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(
        math.sqrt(3), rel=0.15
    )


def test_draws_depend_on_the_seed_alone():
    correct, windows = np.arange(30), np.full(30, 40)
    first = metrics.share(correct, windows, seed=0)
    assert metrics.share(correct, windows, seed=0) == first
    assert metrics.share(correct, windows, seed=1)[1:] != first[1:]


def test_paired_difference_cancels_what_is_hard_for_both():
    generator = np.random.default_rng(4)
    windows = np.full(60, 100)
    b = generator.integers(0, 90, 60)
    a = b + generator.integers(
        2, 6, 60
    )  # a little better everywhere, on queries of very unequal difficulty
    difference = metrics.paired_difference(a, b, windows)
    assert difference.value == pytest.approx((a.sum() - b.sum()) / 6000)
    assert 0.02 < difference.low < difference.value < difference.high < 0.06
    alone = metrics.share(a, windows)
    assert alone.high - alone.low > 5 * (difference.high - difference.low)
    assert metrics.paired_difference(a, a, windows) == (0, 0, 0)
    reverse = metrics.paired_difference(b, a, windows)
    assert reverse == pytest.approx((-difference.value, -difference.high, -difference.low))


def test_collisions_by_hand():
    # 9 codes: 1 twice in the first recording, 2 in both, 3 thrice in the second; distinct: 1 2 3 4.
    codes = [codes_of(1, 1, 2), codes_of(2, 3, 3, 3, 4, 4)]
    result = metrics.collisions(codes)
    assert result == pytest.approx(Collisions(4 / 9, 5 / 9, 4 / 9, 1 / 9, 9, 0, 0.0))


def test_collisions_of_silence_are_counted_apart():
    codes = [codes_of(0, 0, 5), codes_of(0, 0, 5, 6, 6)]
    silence = [np.array([True, True, False]), np.array([True, True, False, False, False])]
    result = metrics.collisions(codes, silence=silence)
    assert result[:5] == metrics.collisions(codes)[:5]
    assert result.collision_rate == pytest.approx(5 / 8)
    # Sounding alone: 5, 5, 6, 6 repeat twice, so 3 of the 5 repeats are silence's.
    assert (result.silent, result.silence_rate) == (4, pytest.approx(3 / 8))


@given(st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=5))
def test_collisions_equal_python_sets(recordings):
    result = metrics.collisions([codes_of(*recording) for recording in recordings])
    total = sum(map(len, recordings))
    distinct = len(set().union(*recordings))
    assert result.codes == total
    assert result.unique_rate == (distinct / total if total else 1.0)
    assert result.collision_rate == pytest.approx(1 - result.unique_rate)
    assert result.within_rate + result.between_rate == pytest.approx(result.collision_rate)
    repeats = sum(len(recording) - len(set(recording)) for recording in recordings)
    assert result.within_rate == pytest.approx(repeats / max(total, 1))


def test_collisions_compare_all_words():
    a = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [9, 2, 3, 4]], np.uint32)
    assert metrics.collisions([a]).collision_rate == 0
    assert metrics.collisions([a, a[:2]]).between_rate == pytest.approx(2 / 5)


def test_dead_bits_by_hand():
    bits = np.zeros((1000, 32), bool)
    bits[:19, 0] = bits[:20, 1] = bits[:980, 2] = bits[:981, 3] = bits[:500, 4] = True
    codes = (bits * 2 ** np.arange(32)).sum(axis=1).astype(np.uint32).reshape(-1, 1)
    np.testing.assert_allclose(
        metrics.bit_means([codes[:300], codes[300:]])[:5], [0.019, 0.02, 0.98, 0.981, 0.5]
    )
    assert metrics.dead_bits([codes[:300], codes[300:]]) == 32 - 3  # all but bits 1, 2 and 4


def test_effective_bits_of_independent_and_copied_bits():
    generator = np.random.default_rng(0)
    independent = random_codes(generator, 20_000, 2, 2**32)
    # E[sum_ij C_ij^2] = bits + bits (bits - 1) / codes: 64 / (1 + 63 / 20,000) = 63.8
    assert metrics.effective_bits([independent]) == pytest.approx(63.8, abs=0.1)
    copied = np.where(generator.random((500, 1)) < 0.5, 2**32 - 1, 0).astype(np.uint32)
    assert metrics.effective_bits([copied]) == pytest.approx(1)
    complements = np.where(generator.random((500, 1)) < 0.5, 0xFFFF0000, 0x0000FFFF).astype(
        np.uint32
    )
    assert metrics.effective_bits([complements]) == pytest.approx(1)
    assert metrics.effective_bits([independent & 7]) == pytest.approx(
        6, abs=0.01
    )  # the other 58 are constant


def test_effective_bits_equal_eigenvalues():
    generator = np.random.default_rng(7)
    codes = random_codes(generator, 300, 1, 2**32) & random_codes(generator, 300, 1, 2**20)
    signs = np.array(
        [[1.0 if code >> j & 1 else -1.0 for j in range(32)] for code in codes.ravel().tolist()]
    )
    eigenvalues = np.linalg.eigvalsh(np.cov(signs.T))
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert metrics.effective_bits([codes[:100], codes[100:]]) == pytest.approx(expected, rel=1e-6)


def test_nothing_to_measure():
    empty = np.zeros((0, 4), np.uint32)
    assert (
        metrics.collisions([])
        == metrics.collisions([empty])
        == Collisions(1.0, 0.0, 0.0, 0.0, 0, 0, 0.0)
    )
    for codes in ([], [empty]):
        assert metrics.dead_bits(codes) == 0
        assert metrics.effective_bits(codes) == 0.0
    assert metrics.effective_bits([np.full((5, 4), 7, np.uint32)]) == 0.0
    result = metrics.cover_accuracy([empty], "a", [empty], "a")[9]
    assert math.isnan(result.value)
    assert math.isnan(result.by_recording)
    assert (result.windows, result.recordings, result.works) == (0, 0, 0)
    assert metrics.cover_accuracy([], [], [], [])[1].windows == 0


ONE = np.zeros((3, 4), np.uint32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.nearest(ONE.astype(np.int32), [ONE], lengths=[1]),
            r"query\[0\] .* uint32 .*, got int32",
        ),
        (
            lambda: metrics.nearest(ONE, [ONE, ONE[0]], lengths=[1]),
            r"references\[1\] .* got uint32 of shape \(4,\)",
        ),
        (
            lambda: metrics.nearest(ONE, [[[1]]], lengths=[1]),
            r"references\[0\] must be a numpy array.*got list",
        ),
        (
            lambda: metrics.nearest(ONE, [ONE[:, :2]], lengths=[1]),
            r"references\[0\] must have 4 words a code, got 2",
        ),
        (lambda: metrics.collisions([ONE[:, :0]]), "at least 1 word a code, got 0"),
        (lambda: metrics.nearest(ONE, [ONE], lengths=[]), "lengths must be"),
        (lambda: metrics.nearest(ONE, [ONE], lengths=[0]), "each at least 1"),
        (lambda: metrics.nearest(ONE, [ONE], lengths=[1.5]), "whole numbers"),
        (lambda: metrics.judge(metrics.nearest(ONE, [ONE], lengths=[1])[1], 1), "0 to 0, got 1"),
        (lambda: metrics.judge(metrics.nearest(ONE, [ONE], lengths=[1])[1], -1), "got -1"),
        (
            lambda: metrics.tally_covers([ONE], [], [ONE], "a"),
            "query_works must .* expected 1, got 0",
        ),
        (
            lambda: metrics.tally_covers([ONE], "a", [ONE], "ab"),
            "reference_works must .* expected 1, got 2",
        ),
        (lambda: metrics.tally_covers([ONE], "z", [ONE], "a"), r"without a reference: \['z'\]"),
        (
            lambda: metrics.tally_covers([ONE], "a", [ONE, ONE], "aa"),
            r"several references of \['a'\]",
        ),
        (
            lambda: metrics.tally_covers([ONE[:, :1]], "a", [ONE], "a"),
            r"queries\[0\] must have 4 words",
        ),
        (
            lambda: metrics.cover_accuracy([ONE], "a", [ONE], "a", resamples=0),
            "resamples must be at least 1, got 0",
        ),
        (lambda: metrics.share([1, 2], [1]), "alike, got"),
        (lambda: metrics.share([1], [-1]), "at least 0, got -1"),
        (lambda: metrics.share([1], [1], groups="ab"), "groups must .* expected 1, got 2"),
        (lambda: metrics.paired_difference([1, 1], [1], [1]), "one shape, got"),
        (lambda: metrics.collisions([ONE], silence=[]), "silence must .* expected 1, got 0"),
        (
            lambda: metrics.collisions([ONE], silence=[np.zeros(2, bool)]),
            r"silence\[0\] must be bool \(3,\)",
        ),
        (
            lambda: metrics.subset(Tally(*np.ones((3, 2), int)), np.array([1, 0])),
            "keep must be bool",
        ),
        (lambda: metrics.subset(Tally(*np.ones((3, 2), int)), [True]), r"of shape \(2,\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_metrics_and_figures_do_not_import_jax():
    """They run in worker processes, where jax would take its threads and memory."""
    command = "import sys, seqhash.metrics, seqhash.figures; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def brute_versions(query, references, right, n, penalty):
    """The same of variants with weights: each window of the database at its nearest variant."""
    signs = [np.where(bits_of(reference), 1, -1) for reference in references]
    strict = lenient = 0
    for i in range(query.shape[1] - n + 1):
        everywhere = []
        for r, reference in enumerate(signs):
            for j in range(len(reference) - n + 1):
                asked = query[:, i : i + n].astype(int)
                wrong = np.sign(asked) == -reference[j : j + n]
                distances = (np.abs(asked) * wrong).sum(axis=(1, 2)) + penalty
                everywhere.append((int(distances.min()), r))
        smallest = min(d for d, _ in everywhere)
        winners = [r for d, r in everywhere if d == smallest]
        strict += winners == [right]
        lenient += set(winners) == {right}
    return strict, lenient


def bits_of(codes):
    return np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little").astype(bool)


@pytest.mark.parametrize("others", [(), (9, 2, 25, 4)])
@pytest.mark.parametrize(("most", "penalised"), [(1, False), (1, True), (31, True), (127, False)])
def test_versions_equal_brute_force(most, penalised, others, monkeypatch):
    """Ties, weights, unused bits, penalties, a query in several blocks, sums over 16 bits; others
    that are right for nobody, in parts.
    """
    monkeypatch.setattr(metrics, "_BLOCK", 1)
    monkeypatch.setattr(metrics, "_PART", 5)
    generator = np.random.default_rng(most)
    references = [random_codes(generator, count, 1, 6) for count in (20, 1, 33)]
    distractors = [random_codes(generator, count, 1, 6) for count in others]
    queries = []
    for count in (90, 12):
        signs = generator.choice([-1, 1], (3, count, 32)).astype(np.int8)
        weights = generator.integers(0, most + 1, (count, 32)).astype(np.int8)
        signs[:, :, 3:] = -1  # as in the references, of which many are alike
        queries.append((signs * (weights if most > 1 else 1)).astype(np.int8))
    queries[0][:, :, 30:] = 0
    lengths = (1, 4)
    penalties = {n: np.array([0, 1, 3 * n]) * penalised for n in lengths}
    made = metrics.tally_versions(
        queries,
        ["c", "a"],
        references,
        ["a", "b", "c"],
        lengths=lengths,
        distractors=distractors,
        penalties=penalties,
    )
    for n in lengths:
        for i, (query, right) in enumerate(zip(queries, (2, 0), strict=True)):
            every = references + distractors
            wanted = brute_versions(query, every, right, n, penalties[n])
            assert (made[n].strict[i], made[n].lenient[i]) == wanted
            assert made[n].windows[i] == query.shape[1] - n + 1
    assert sum(made[n].strict.sum() for n in lengths) > 0


def test_one_variant_of_plain_bits_is_the_papers_rule():
    generator = np.random.default_rng(0)
    references = [random_codes(generator, 40, 2, 5) for _ in range(4)]
    queries = [random_codes(generator, 50, 2, 5) for _ in range(4)]
    works = list("abcd")
    signs = [np.where(bits_of(query), 1, -1).astype(np.int8)[None] for query in queries]
    one = metrics.tally_covers(queries, works, references, works, lengths=(1, 9))
    other = metrics.tally_versions(signs, works, references, works, lengths=(1, 9))
    for n in (1, 9):
        np.testing.assert_array_equal(one[n], other[n])
    with pytest.raises(ValueError, match=r"queries\[0\] must be int8 \(variants, codes, 64\)"):
        metrics.tally_versions([signs[0][0]], ["a"], references, works)


def test_distractors_have_no_window_or_are_of_another_kind():
    generator = np.random.default_rng(0)
    codes = random_codes(generator, 9, 2, 2**32 - 1)
    for distractors in ([codes[:8], codes[:0]], [codes[:0]], []):  # none has a window of nine
        tally = metrics.tally_covers(
            [codes], "a", [codes], "a", lengths=[9, 10], distractors=distractors
        )
        assert [tally[n].strict[0] for n in (9, 10)] == [1, 0]
    twin = metrics.tally_covers([codes], "a", [codes], "a", lengths=[9], distractors=[codes])
    assert twin[9].lenient[0] == 0
    with pytest.raises(ValueError, match=r"distractors\[0\] must have 2 words a code, got 1"):
        metrics.tally_covers([codes], "a", [codes], "a", distractors=[codes[:, :1]])


def test_alikeness_by_hand():
    generator = np.random.default_rng(0)
    references = [random_codes(generator, count, 1, 2**32 - 1) for count in (9, 12, 2)]
    asked = np.where(bits_of(references[1]), 1, -1).astype(np.int8)
    query = np.stack([generator.choice([-1, 1], asked.shape).astype(np.int8), asked])
    made = metrics.alikeness([query, query[:, :2]], references, length=3)
    assert made[0, 1] == 1  # the second variant is the recording itself
    assert (made[:, 2] == -1).all()  # too short to have a window
    assert (made[1] == -1).all()  # so is the second query
    signs, best = np.where(bits_of(references[0]), 1, -1), []
    for variant in query.astype(int):
        sums = [
            [(variant[i : i + 3] * signs[j : j + 3]).sum() / 96 for j in range(7)]
            for i in range(len(variant) - 2)
        ]
        best.append(np.max(sums, axis=1).mean())
    assert made[0, 0] == pytest.approx(max(best))


def test_ranks_are_scikit_learns():
    from sklearn.metrics import average_precision_score

    generator = np.random.default_rng(0)
    works, alike = [*"aaabbbbcd", *"aaadd"], generator.random((14, 14))
    made = metrics.rank_versions(alike, works)
    assert made.query.tolist() == [i for i, work in enumerate(works) if work != "c"]
    for i, precision, first, ten in zip(*made, strict=True):
        others = [j for j in range(14) if j != i]
        right = np.array([works[j] == works[i] for j in others])
        assert precision == pytest.approx(average_precision_score(right, alike[i, others]))
        order = np.argsort(-alike[i, others])
        assert first == 1 + np.flatnonzero(right[order])[0]
        assert ten == pytest.approx(right[order][:10].sum() / right.sum())
    nothing = metrics.rank_versions(np.zeros((2, 2)), ["a", "b"])
    assert len(nothing.query) == 0
    with pytest.raises(ValueError, match="one work per recording"):
        metrics.rank_versions(alike, works[1:])
