import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from seqhash import export
from seqhash.index import compare
from tests.test_mfcc import music_like

RATE = 16_000


def random_words(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


def by_hand(words_a, words_b):
    """Chance, and of every lag (score, overlap, begin in A, begin in B, distance), by Python's
    integers.
    """
    bits = 32 * words_a.shape[1]
    distance = [
        [sum((int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True)) for b in words_b]
        for a in words_a
    ]
    chance = sum(map(sum, distance)) / (len(words_a) * len(words_b) * bits)
    found = {}
    for lag in range(1 - len(words_b), len(words_a)):
        pairs = [(i, i - lag) for i in range(len(words_a)) if 0 <= i - lag < len(words_b)]
        wrong = sum(distance[i][j] for i, j in pairs)
        score = (chance - wrong / (len(pairs) * bits)) * math.sqrt(len(pairs))
        found[lag] = (score, len(pairs), *pairs[0], wrong)
    return chance, found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_the_best_lag_is_that_of_a_loop_over_bits(codes_a, codes_b, words, seed):
    a, b = random_words(seed, codes_a, words), random_words(seed + 1, codes_b, words)
    found = compare.compare_codes(a, b, 4.0)
    chance, lags = by_hand(a, b)
    assert found.chance == pytest.approx(chance)
    least = min(codes_a, codes_b, 8)  # codes in two seconds
    best = max(score for score, overlap, *_ in lags.values() if overlap >= least)
    score, overlap, begin_a, begin_b, wrong = lags[round(4 * (found.start_a - found.start_b))]
    assert score == pytest.approx(best)
    assert found.score == pytest.approx(score)
    assert found.codes == overlap
    assert (4 * found.start_a, 4 * found.start_b, found.distance) == (begin_a, begin_b, wrong)
    assert found.differences.shape == (overlap, 32 * words)
    assert found.differences.sum() == wrong


def test_bits_that_differ_are_in_their_places():
    a = random_words(0, 5, 2)
    b = a.copy()
    b[3, 1] ^= np.uint32(1 << 5)
    found = compare.compare_codes(a, b, 4.0)
    assert np.argwhere(found.differences).tolist() == [[3, 37]]
    assert found.bit_error_rate == 1 / (5 * 64)


def test_a_noisy_excerpt_is_found_where_it_was_cut():
    rng = np.random.default_rng(1)
    a = random_words(2, 400, 4)
    flips = np.packbits(rng.random((20, 128)) < 0.2, axis=1, bitorder="little").view("<u4")
    found = compare.compare_codes(a, a[321:341] ^ flips, 4.0)
    assert (found.start_a, found.start_b, found.codes) == (321 / 4, 0, 20)
    assert found.bit_error_rate == np.bitwise_count(flips).sum() / (20 * 128)
    turned = compare.compare_codes(a[321:341] ^ flips, a, 4.0)
    assert (turned.start_a, turned.start_b, turned.distance) == (0, 321 / 4, found.distance)


def test_codes_all_alike_are_compared_whole():
    found = compare.compare_codes(np.zeros((4, 1), np.uint32), np.zeros((6, 1), np.uint32), 4.0)
    assert (found.codes, found.start_a, found.start_b, found.bit_error_rate) == (4, 0, 0, 0)


@pytest.mark.parametrize(
    ("a", "b", "rate", "message"),
    [
        (random_words(0, 0, 4), random_words(0, 2, 4), 4.0, "words_a"),
        (random_words(0, 2, 4), random_words(0, 2, 4).astype(np.int32), 4.0, "words_b"),
        (random_words(0, 2, 4), random_words(0, 2, 1), 4.0, "4 and 1 words"),
        (random_words(0, 2, 4), random_words(0, 2, 4), 0.0, "code_rate"),
    ],
)
def test_what_cannot_be_compared_is_said(a, b, rate, message):
    with pytest.raises(ValueError, match=message):
        compare.compare_codes(a, b, rate)


@pytest.fixture(scope="module")
def hasher():
    return export.load_hasher("paper-128")


@pytest.fixture(scope="module")
def recording():
    return music_like(20 * RATE)


def test_shifts_bring_an_excerpt_off_the_grid_near_it(hasher, recording):
    begin = 130_010  # half a hop off the grid of 4000 samples
    excerpt = recording[begin : begin + 4 * RATE]
    found = compare.compare_samples(recording, excerpt, hasher=hasher, shifts=4)
    assert abs(found.start_a - found.start_b - begin / RATE) <= 0.032
    plain = compare.compare_samples(recording, excerpt, hasher=hasher, shifts=1)
    assert found.bit_error_rate < plain.bit_error_rate


def test_a_recording_of_one_code_can_be_compared(hasher, recording):
    found = compare.compare_samples(recording[:16_081], recording[:16_081], hasher=hasher, shifts=4)
    assert (found.codes, found.distance, found.start_a) == (1, 0, 0)
    with pytest.raises(ValueError, match="words_a"):
        compare.compare_samples(recording[:16_000], recording, hasher=hasher, shifts=4)
    with pytest.raises(ValueError, match="shifts"):
        compare.compare_samples(recording, recording, hasher=hasher, shifts=0)


def test_a_match_is_drawn_from_the_grid_of_the_reference(hasher, recording):
    words = hasher.hash_samples(recording)
    begin = 100_100
    query = recording[begin : begin + 5 * RATE]
    found = compare.compare_match(
        query, words, start=0.0, end=5.0, offset=begin / RATE, hasher=hasher
    )
    first = math.ceil(begin / 4000)  # code of the reference from which the two share the grid
    assert found.start_b == first / 4
    assert found.start_a == pytest.approx((first * 4000 - begin) / RATE)
    assert found.codes == 16
    assert found.distance <= 3  # the very same samples, but for the one before the first
    early = compare.compare_match(
        recording[:80_000], words[8:], start=0.0, end=5.0, offset=-2.0, hasher=hasher
    )
    assert (early.start_a, early.start_b) == (2.0, 0.0)
    assert early.distance <= 3
    for shift in (0, 800, 2400):  # one segment, as a query of about 1 s has it
        clip = recording[8000 - shift : 8000 + 16_240]
        start = shift / RATE
        short = compare.compare_match(
            clip, words, start=start, end=start + 1, offset=0.5, hasher=hasher
        )
        assert (short.codes, short.start_a, short.start_b) == (1, pytest.approx(start), 0.5)
        assert short.distance <= 3
    with pytest.raises(ValueError, match="reference"):
        compare.compare_match(query, words, start=0.0, end=5.0, offset=100.0, hasher=hasher)


def test_what_was_played_faster_is_shorter_in_the_picture():
    words = np.random.default_rng(0).integers(0, 2**32, (40, 1), np.uint32)
    found = compare.compare_codes(words, words, 16.0)._replace(start_a=3.0, tempo=1.25)
    figure = compare.draw_differences(found, title="", code_rate=16.0)
    for axes in figure.axes:
        assert axes.get_xlim() == pytest.approx((3.0, 3.0 + 40 / 16 / 1.25))


def test_the_picture_shows_the_bits(tmp_path):
    a = random_words(0, 40, 4)
    found = compare.compare_codes(a, a, 4.0)
    path = compare.differences_figure(
        found, tmp_path / "new" / "same.png", title="same", code_rate=4.0
    )
    other = compare.compare_codes(a, a ^ np.uint32(2**32 - 1), 4.0)
    assert other.bit_error_rate > 0.4
    black = compare.differences_figure(other, tmp_path / "other.png", title="same", code_rate=4.0)
    assert imread(black)[..., :3].mean() < imread(path)[..., :3].mean() - 0.1
    nothing, one = compare.draw_differences(found, title="", code_rate=4.0), a.copy()
    one[0, 0] ^= 1
    one = compare.draw_differences(compare.compare_codes(a, one, 4.0), title="", code_rate=4.0)
    assert [[text.get_text() for text in figure.axes[0].texts] for figure in (nothing, one)] == [
        ["no bit differs"],
        [],
    ]
    dollars = compare.differences_figure(
        found, tmp_path / "names.png", title="pay $x_{ and $.wav", code_rate=4.0
    )
    assert dollars.exists()
    long = compare.draw_differences(found, title="a rather long name " * 10, code_rate=4.0)
    FigureCanvasAgg(long).draw()
    box = long.axes[0].title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= long.bbox.width
    with pytest.raises(ValueError, match="png"):
        compare.differences_figure(found, tmp_path / "same.pdf", title="same", code_rate=4.0)


# Verdicts.


def judged(words_a, words_b):
    found = compare.compare_codes(words_a, words_b, 16.0)
    return compare.verdict(found, code_rate=16.0), found


def flipped(words, share, seed=0):
    """Words with a share of their bits turned."""
    bits = np.random.default_rng(seed).random((*words.shape, 32)) < share
    return words ^ np.packbits(bits, axis=-1, bitorder="little").view("<u4")[..., 0]


def test_a_verdict_by_hand():
    a, b = random_words(1, 400, 1), random_words(2, 500, 1)
    assert judged(a, a)[0] == "same"
    assert judged(flipped(a[100:250], 0.1), a)[0] == "same"
    assert judged(flipped(a[100:250], 0.3), a)[0] == "related"  # in noise
    mixed = np.concatenate([b[:200], a[50:200], b[350:]])
    assert judged(mixed, a)[0] == "related"  # they share a part
    verdict, found = judged(a, b)
    assert verdict == "unrelated"
    assert 0 < found.deviations < compare.UNRELATED
    assert judged(a[:60], b)[0] == "cannot tell"  # too short
    steady = np.zeros((300, 1), np.uint32)
    assert judged(steady, steady)[0] == "same"  # a copy
    assert judged(steady, steady[:200])[0] == "cannot tell"
    assert judged(flipped(steady, 0.05), flipped(steady, 0.05, 1))[0] == "cannot tell"
    needed = found._replace(deviations=compare.RELATED + 0.1, tempo=1.02)
    assert compare.verdict(needed._replace(deviations=1.0), code_rate=16.0) == "unrelated"


def test_where_both_are_steady_a_moment_that_agrees_says_nothing():
    a, b = np.zeros((300, 1), np.uint32), np.full((300, 1), 2**32 - 1, np.uint32)
    a[-4:] = b[:4] = random_words(0, 1, 1)
    verdict, found = judged(a, b)
    assert verdict == "unrelated"
    assert found.codes >= 32  # two seconds


def test_a_steady_copy_is_not_tried_as_played_otherwise():
    words = np.zeros((300, 1), np.uint32)
    words[:4] = 2**32 - 1  # it begins
    facts = {"sample_rate": 8000, "hop": 500, "code_rate": 16.0}
    hasher = SimpleNamespace(**facts, hash_samples=lambda samples: words)  # and no views
    samples = np.zeros(80_000, np.float32)
    found = compare.compare_variants(samples, samples, hasher=hasher, shifts=1)
    assert compare.verdict(found, code_rate=16.0) == "same"


def test_deviations_are_counted_from_the_other_alignments():
    a, b = random_words(3, 60, 2), random_words(4, 50, 2)
    found = compare.compare_codes(a, b, 4.0)
    _, lags = by_hand(a, b)
    scores = np.array([score for score, overlap, *_ in lags.values() if overlap >= 8])
    deviation = 1.4826 * np.median(np.abs(scores - np.median(scores)))
    assert found.deviations == pytest.approx((found.score - np.median(scores)) / deviation)
    assert (found.codes_a, found.codes_b) == (60, 50)
