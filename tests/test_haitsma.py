"""The Philips fingerprint against a plain numpy one at the full rate, scipy, brute force and hand
arithmetic.
"""

import functools
import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
import scipy.stats

from seqhash import songbook
from seqhash.robustness import systems
from seqhash.robustness.baselines import haitsma
from seqhash.robustness.baselines.haitsma import DEFAULT, PAPER, HaitsmaConfig

pytestmark = pytest.mark.usefixtures("compiled_quickly")

HOP = 186  # samples at 16 kHz
CLIP = 24_000  # samples of most clips: the search compiles once for each length
LOOKUP = HaitsmaConfig(search="lookup")


def band_music(seconds: float, seed: int, *, pitch: float = 1.0) -> np.ndarray:
    """Ninety partials that come and go at random, all multiplied by a factor, over a little
    noise.
    """
    rng = np.random.default_rng(seed)
    samples = round(16_000 * seconds)
    t = np.arange(samples) / 16_000
    signal = np.zeros(samples)
    for hz, phase in zip(np.geomspace(250, 2300, 90), rng.uniform(0, 6.28, 90), strict=True):
        level = np.interp(
            t,
            np.arange(0, seconds + 0.2, 0.12),
            rng.exponential(1, len(np.arange(0, seconds + 0.2, 0.12))),
        )
        signal += level * np.sin(2 * np.pi * hz * pitch * t + phase)
    return (0.005 * signal + 1e-4 * rng.standard_normal(samples)).astype(np.float32)


def with_noise(samples: np.ndarray, decibels: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(samples))
    level = np.sqrt(np.mean(samples**2) / np.mean(noise**2)) * 10 ** (-decibels / 20)
    return (samples + level * noise).astype(np.float32)


def plain_energies(samples: np.ndarray) -> np.ndarray:
    """E(n, m) at 16 kHz, with no low-pass and no decimation: frames of 5952 samples on the same
    grid of frequencies.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(5952) / 5952)
    edges = 300 * (2000 / 300) ** (np.arange(34) / 33)
    rows = []
    for start in range(0, len(samples) // 3 * 3 - 5952 + 1, HOP):
        spectrum = np.fft.fft(samples[start : start + 5952].astype(np.float64) * window, 6144)
        hz = np.arange(6144) * 16_000 / 6144
        half = 16_000 / 6144 / 2  # a bin belongs to a band from its edge on, to the nearest bin
        rows.append(
            [
                np.sum(np.abs(spectrum[(hz >= a - half) & (hz < b - half)]) ** 2)
                for a, b in itertools.pairwise(edges)
            ]
        )
    return np.array(rows)


def plain_bits(energies: np.ndarray) -> np.ndarray:
    """F(n, m) by the paper's formula, one bit at a time."""
    frames, bits = len(energies), np.zeros((len(energies) - 1, 32), int)
    for n, m in itertools.product(range(1, frames), range(32)):
        e = energies
        bits[n - 1, m] = e[n, m] - e[n, m + 1] - (e[n - 1, m] - e[n - 1, m + 1]) > 0
    return bits


def bits_of(codes: np.ndarray) -> np.ndarray:
    return (codes[:, 0, None] >> np.arange(32)[None]) & 1


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.bitwise_count(a ^ b).sum() / (32 * len(a)))


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    works = [work.work_id for work in songbook.works()]
    real = [songbook.render(work, "orig", seed=3)[: 9 * 16_000] for work in works[:2]]
    return real + [band_music(9, seed) for seed in (31, 32, 33)]


@pytest.fixture(scope="module")
def index(recordings):
    return haitsma.add(recordings)


# -------------------------------------------------------------------------------------------- codes


def test_energies_are_the_plain_ones_at_the_full_rate():
    signal = band_music(2.3, 0) + 0.2 * np.sin(
        2 * np.pi * 5000 * np.arange(36_800) / 16_000
    ).astype(np.float32)
    expected = plain_energies(signal)
    got = np.asarray(haitsma.band_energies(signal))
    assert got.shape == expected.shape == (haitsma.frame_count(len(signal)), 33)
    # A third of the samples is a ninth of the energy. The low-pass is flat and 80 dB down, to about
    # 1e-3.
    np.testing.assert_allclose(9 * got, expected, rtol=3e-3, atol=1e-4 * expected.mean())


def test_codes_are_the_papers_formula(recordings):
    for signal in (
        band_music(2, 1),
        recordings[0][:40_000],
        with_noise(recordings[1][:40_000], 0, 0),
    ):
        energies = plain_energies(signal)
        expected = plain_bits(energies)
        got = bits_of(haitsma.fingerprint(signal))
        assert got.shape == expected.shape
        assert (
            got != expected
        ).mean() < 3e-3  # where a difference is nearly nothing, rounding decides
        wrong = haitsma.differences(signal)[got != expected]
        assert np.abs(wrong).max(initial=0) < 2e-3 * np.abs(haitsma.differences(signal)).max()


def test_differences_by_hand():
    energies = np.zeros((3, 33), np.float32)
    energies[0, :3], energies[1, :3], energies[2, :3] = (1, 2, 4), (5, 1, 4), (5, 1, 4)
    # (5 - 1) - (1 - 2) = 5; (1 - 4) - (2 - 4) = -1; 4 - 4 = 0; then nothing changes.
    signed = np.asarray(haitsma.energy_differences(energies))
    assert signed.shape == (2, 32)
    assert signed[0, :3].tolist() == [5, -1, 0]
    assert not signed[1].any()
    assert np.asarray(haitsma.to_words(signed)).tolist() == [[1], [0]]
    last = np.zeros((1, 32), np.float32)
    last[0, 31] = 1
    assert np.asarray(haitsma.to_words(last)).tolist() == [[2**31]]


def test_a_tone_that_swells_sets_its_bit_and_clears_the_one_below():
    t = np.arange(16_000) / 16_000
    edges = np.geomspace(300, 2000, 34)
    tone = (0.1 + 0.5 * t) * np.sin(2 * np.pi * np.sqrt(edges[10] * edges[11]) * t)
    bits = bits_of(haitsma.fingerprint(tone.astype(np.float32)))
    assert bits[:, 10].all()
    assert not bits[:, 9].any()


def test_lengths_and_rates():
    assert DEFAULT.code_rate == pytest.approx(86.02, abs=0.01)
    assert DEFAULT.frame_length / DEFAULT.rate == pytest.approx(0.372)
    assert [haitsma.frame_count(n) for n in (0, 5951, 5952, 6137, 6138, 16_000)] == [
        0,
        0,
        1,
        1,
        2,
        55,
    ]
    for samples in (0, 5952, 6138, 16_000, 6138 + 62 * HOP, 6138 + 63 * HOP):
        codes = haitsma.fingerprint(band_music(2, 0)[:samples])
        assert codes.dtype == np.uint32
        assert codes.shape == (max(0, haitsma.frame_count(samples) - 1), 1)


def test_a_compiled_pure_function_and_a_shorter_bucket_give_the_same():
    signal = band_music(2.5, 2)
    energies = jax.jit(functools.partial(haitsma.band_energies, config=DEFAULT))(signal)
    codes = np.asarray(haitsma.to_words(haitsma.energy_differences(energies)))
    assert error(codes, haitsma.fingerprint(signal)) < 1e-3
    short = haitsma.fingerprint(signal[: 6138 + 20 * HOP])
    assert error(short[:-1], codes[: len(short) - 1]) < 1e-3


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_give_nearly_the_same_codes(rate):
    import soxr

    decimation = {8_000: 1, 44_100: 8}[rate]
    step = round(rate / decimation * 0.011625)
    config = HaitsmaConfig(
        sample_rate=rate,
        decimation=decimation,
        frame_step=step,
        frame_length=32 * step,
        fft_length=4096,
    )
    signal = band_music(3, 3)
    codes = haitsma.fingerprint(
        soxr.resample(signal, 16_000, rate).astype(np.float32), config=config
    )
    there = np.round(np.arange(len(codes)) / config.code_rate * DEFAULT.code_rate).astype(int)
    there = there[there < len(haitsma.fingerprint(signal))]
    assert error(codes[: len(there)], haitsma.fingerprint(signal)[there]) < 0.08


# --------------------------------------------------------------------------------------- properties


def test_gain_does_not_matter(recordings):
    signal = recordings[2][:32_000]
    codes = haitsma.fingerprint(signal)
    np.testing.assert_array_equal(
        haitsma.fingerprint(signal / 64), codes
    )  # a power of two is exact
    assert error(haitsma.fingerprint(signal * np.float32(0.0137)), codes) < 1e-3


@pytest.mark.parametrize("hops", [1, 7, 100])
def test_a_shift_by_whole_hops_shifts_the_codes(recordings, hops):
    signal = recordings[3][:48_000]
    codes = haitsma.fingerprint(signal[hops * HOP :])
    # The filter reads 30 samples before the first, which are missing, under the beginning of a Hann
    # window.
    assert error(codes, haitsma.fingerprint(signal)[hops:]) < 2e-3


def test_half_a_hop_changes_few_bits(recordings):
    signal = recordings[3][:48_000]
    codes = haitsma.fingerprint(signal[HOP // 2 :])
    assert 1e-3 < error(codes, haitsma.fingerprint(signal)[: len(codes)]) < 0.08


def test_unreliable_bits_are_the_ones_that_noise_flips(recordings):
    signal = recordings[4][:80_000]
    signed = haitsma.differences(signal)
    flipped = bits_of(haitsma.fingerprint(with_noise(signal, 10, 0))) != (signed > 0)
    rank = np.argsort(
        np.argsort(np.abs(signed), axis=1), axis=1
    )  # 0: the least reliable of its code
    assert flipped[rank < 4].mean() > 4 * flipped[rank >= 28].mean()


def test_silence_has_code_zero_and_is_neither_looked_up_nor_found():
    gap = np.zeros(48_000, np.float32)
    assert not haitsma.fingerprint(gap).any()
    index = haitsma.add([np.concatenate([band_music(4, 5), gap]), gap])
    assert (index.table(0)[0] != 0).all()
    assert len(index.table(0)[0]) < len(index.words)
    for config in (DEFAULT, LOOKUP, PAPER):
        assert haitsma.identify(index, [gap], config=config, all_candidates=True) == [[]]
    # Half a clip of silence: found by the other half, and the silence counts as half wrong.
    clip = np.concatenate([band_music(4, 5)[-CLIP // 2 :], gap[: CLIP // 2]])
    ((best, *_),) = haitsma.identify(index, [clip])
    assert best.recording == 0
    assert best.offset == pytest.approx(3.25, abs=0.02)
    assert 0.1 < best.bit_error_rate < 0.3


# --------------------------------------------------------------------------------- how near is near


@pytest.mark.parametrize(
    ("rate", "bits"),
    [(0.5, 1728), (0.45, 8192), (0.35, 8192), (0.2, 8192), (0.0, 26_528), (0.6, 64)],
)
def test_score_is_the_normal_tail(rate, bits):
    z = (1 - 2 * rate) * np.sqrt(bits) / 3
    expected = -scipy.stats.norm.logsf(z) / np.log(10) - 5
    assert haitsma.score(rate, bits=bits, tries=10**5) == pytest.approx(
        expected, rel=1e-4, abs=1e-6
    )


def test_limit_follows_the_length_and_accepts_at_the_rate():
    limits = [haitsma.limit(32 * n, tries=362_000, config=DEFAULT) for n in (54, 226, 828)]
    # 0.5 - 1.5 * 5.43 / sqrt(bits): 5.43 deviations are one in a hundred of 362,000 windows.
    np.testing.assert_allclose(limits, [0.304, 0.404, 0.450], atol=1e-3)
    assert haitsma.score(limits[0], bits=32 * 54, tries=362_000) == pytest.approx(2)
    assert haitsma.limit(32 * 54, tries=362_000, config=PAPER) == 0.35


# ------------------------------------------------------------------------------------------- search


def brute_force(index, clip, config) -> tuple[int, float, float] | None:
    """(recording, offset, bit error rate) of the best window, by loops over all of them."""
    query, signed = haitsma.fingerprint(clip), haitsma.differences(clip)
    best = None
    for recording, (low, high) in enumerate(itertools.pairwise(index.starts)):
        for row in range(low, high - len(query) + 1):
            window = index.words[row : row + len(query)]
            if config.search == "lookup":
                for there, code, reliability in zip(
                    window[:, 0], query[:, 0], np.abs(signed), strict=True
                ):
                    weak = sum(1 << int(bit) for bit in np.argsort(reliability)[: config.flips])
                    if there and code and not (int(there) ^ int(code)) & ~weak:
                        break
                else:
                    continue
            distance = error(query, window)
            if best is None or distance < best[2]:
                best = recording, (row - low) * HOP / 16_000, distance
    return best


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [DEFAULT, LOOKUP, replace(LOOKUP, flips=3)], ids=["exhaustive", "lookup", "flips"]
)
def test_search_is_brute_force(config, monkeypatch):
    monkeypatch.setattr(haitsma, "PIECE", 150)  # so that the look-up takes more than one piece
    signals = [band_music(2.5, seed) for seed in range(3)]
    index = haitsma.add(signals)
    clips = [with_noise(signals[i % 3][5000 + 37 * i :][:CLIP], -3 * i, i) for i in range(5)]
    clips.append(band_music(1.5, 9))
    answers = haitsma.identify(index, clips, config=config, all_candidates=True)
    for clip, matches in zip(clips, answers, strict=True):
        expected = brute_force(index, clip, config)
        if expected is None:
            assert matches == []
            continue
        best = min(matches, key=lambda match: match.bit_error_rate)
        assert (best.recording, best.bit_error_rate) == (expected[0], pytest.approx(expected[2]))
        assert best.offset == pytest.approx(expected[1])


def test_flips_are_all_combinations_of_the_least_reliable_bits():
    reliability = np.full((2, 32), 9.0)
    reliability[0, [3, 31]] = 1, 2
    reliability[1, [0, 7]] = 2, 1
    assert haitsma.flip_masks(reliability, 0).tolist() == [[0], [0]]
    masks = haitsma.flip_masks(reliability, 2)
    assert masks.dtype == np.uint32
    assert [sorted(row) for row in masks.tolist()] == [[0, 8, 2**31, 2**31 + 8], [0, 1, 128, 129]]
    assert len(set(haitsma.flip_masks(reliability, 10)[0].tolist())) == 1024


def test_flips_find_what_exact_codes_do_not(recordings, index):
    clips = [with_noise(signal[20_000:][:CLIP], 0, i) for i, signal in enumerate(recordings)]
    found = [
        sum(
            bool(m) and m[0].recording == i
            for i, m in enumerate(haitsma.identify(index, clips, config=config))
        )
        for config in (LOOKUP, replace(LOOKUP, flips=8), DEFAULT)
    ]
    assert found[0] < found[1] <= found[2]
    assert found[2] == 5


@pytest.mark.parametrize("config", [DEFAULT, replace(LOOKUP, flips=3), PAPER])
def test_clips_at_random_offsets_are_found_where_they_are(recordings, index, config):
    rng = np.random.default_rng(1)
    wanted, clips = [], []
    for seconds in (1.5, 1.5) * 4 if config.search == "exhaustive" else (1.0, 1.7, 3.0, 5.0) * 2:
        recording, first = int(rng.integers(len(recordings))), int(rng.integers(0, 6 * 16_000))
        wanted.append((recording, first / 16_000))
        clips.append(
            with_noise(recordings[recording][first : first + round(16_000 * seconds)], 15, first)
        )
    answers = haitsma.identify(index, clips, config=config)
    assert [matches[0].recording for matches in answers] == [recording for recording, _ in wanted]
    for clip, (best, *_), (_, offset) in zip(clips, answers, wanted, strict=True):
        assert best.offset - best.start == pytest.approx(
            offset, abs=0.0125
        )  # a code, and a bit for noise
        assert best.bit_error_rate < 0.25
        assert best.score > 2
        assert best.end <= len(clip) / 16_000 + 1e-9
    one = haitsma.identify(index, clips[2:3], config=config)[
        0
    ]  # a batch answers as its clips do alone
    assert one == answers[2]


@pytest.mark.parametrize("config", [DEFAULT, LOOKUP])
def test_what_is_not_there_is_not_found_but_its_best_candidate_can_be_had(recordings, config):
    index = haitsma.add(recordings[:4])
    clips = [band_music(1.5, seed) for seed in range(75, 80)]
    assert haitsma.identify(index, clips, config=config) == [[]] * 5
    candidates = haitsma.identify(index, clips, config=config, all_candidates=True)
    assert all(match.score < 2 for matches in candidates for match in matches)
    assert config.search == "lookup" or all(candidates)
    scores = [[match.score for match in matches] for matches in candidates]
    assert scores == [sorted(row, reverse=True) for row in scores]


def test_the_papers_threshold_accepts_more_of_a_short_query_than_one_that_follows_the_length(index):
    clip = [band_music(0.6, 3)]
    ((candidate, *_),) = haitsma.identify(index, clip, config=DEFAULT, all_candidates=True)
    assert 0.2 < candidate.bit_error_rate < 0.35
    assert haitsma.identify(index, clip, config=DEFAULT) == [[]]
    assert haitsma.identify(index, clip, config=replace(DEFAULT, threshold="paper"))[0]


def test_blocks_find_two_recordings_in_one_clip(recordings, index):
    clip = np.concatenate([recordings[0][16_000:72_000], recordings[4][32_000:88_000]])
    matches = haitsma.identify(index, [clip], config=replace(DEFAULT, block=256))[0]
    lags = {match.recording: match.offset - match.start for match in matches}
    assert lags[0] == pytest.approx(1.0, abs=0.02)
    assert lags[4] == pytest.approx(2.0 - 3.5, abs=0.02)
    assert {match.recording for match in matches} == {0, 4}
    assert max(match.end for match in matches) == pytest.approx(
        7, abs=0.02
    )  # the last block ends with the clip
    short = haitsma.identify(index, [recordings[0][:CLIP]], config=replace(DEFAULT, block=256))
    assert short == haitsma.identify(index, [recordings[0][:CLIP]])


def test_a_window_does_not_run_over_the_end_of_a_recording(recordings, index):
    across = np.concatenate([recordings[0][-CLIP // 2 :], recordings[1][: CLIP // 2]])
    for config in (DEFAULT, replace(LOOKUP, flips=2)):
        for match in haitsma.identify(index, [across], config=config, all_candidates=True)[0]:
            last = round(match.offset * DEFAULT.code_rate) + len(haitsma.fingerprint(across))
            assert last <= np.diff(index.starts)[match.recording]


# -------------------------------------------------------------------------------------------- pitch


def test_shifted_words_by_hand():
    words = np.array([[0b1011]], np.uint32)
    assert haitsma.shifted(words, 1).tolist() == [[0b101]]
    assert haitsma.shifted(words, -2).tolist() == [[0b101100]]
    assert int(haitsma.shared_bits(0)) == 2**32 - 1
    assert int(haitsma.shared_bits(3)) == 2**29 - 1
    assert int(haitsma.shared_bits(-1)) == 2**32 - 2


@pytest.mark.parametrize("shift", [2, -3])
def test_flipped_bits_move_with_the_shift(shift):
    rng = np.random.default_rng(0)
    index = haitsma.from_codes([rng.integers(1, 2**32, (200, 1), np.uint32)])
    weak = 9  # of the query: wrong in each code, and known to be unreliable
    reliability = np.where(np.arange(32) == weak, 0.1, 1.0)[None, None].repeat(12, axis=1)
    query = haitsma.shifted(index.words[50:62], -shift) ^ np.uint32(1 << weak)
    query = (haitsma.shifted(query, shift) & haitsma.shared_bits(shift))[None]
    heard = np.ones((1, 12), bool)
    assert haitsma._look_up(index, query, heard, reliability, shift, 0).row.max() == -1
    found = haitsma._look_up(index, query, heard, reliability, shift, 1)
    assert (found.row[0, 0], found.distance[0, 0]) == (50, 12)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["exhaustive", "lookup"])
@pytest.mark.parametrize("semitone", [-2, 1])
def test_a_transposed_clip_is_found_by_shifted_bits_only(search, semitone):
    index = haitsma.add([band_music(5, seed) for seed in range(4)])
    clip = [band_music(5, 2, pitch=2 ** (semitone / 12))[16_000:][:CLIP]]
    config = HaitsmaConfig(search=search, flips=3 if search == "lookup" else 0)
    assert haitsma.identify(index, clip, config=config) == [[]]
    ((best, *_),) = haitsma.identify(index, clip, config=replace(config, semitones=2))
    assert best.recording == 2
    assert best.offset == pytest.approx(1.0, abs=0.03)
    assert best.bit_error_rate < 0.3
    assert best.distance == round(
        best.bit_error_rate * (32 - abs(semitone)) * len(haitsma.fingerprint(clip[0]))
    )


def test_an_untransposed_clip_is_found_among_the_shifts_too(recordings, index):
    clip = [recordings[3][50_000:][:CLIP]]
    plain = haitsma.identify(index, clip)[0][0]
    best = haitsma.identify(index, clip, config=HaitsmaConfig(semitones=3))[0][0]
    assert (best.recording, best.offset, best.distance) == (
        plain.recording,
        plain.offset,
        plain.distance,
    )
    assert best.score == pytest.approx(
        plain.score - np.log10(7)
    )  # seven times as many windows compared


# -------------------------------------------------------------------------------------------- edges


def test_nothing_to_find_and_nothing_to_find_it_in(recordings, index):
    assert haitsma.identify(index, []) == []
    short = np.zeros(100, np.float32)
    assert haitsma.identify(index, [short, recordings[0][:6138]], all_candidates=True)[0] == []
    for config in (DEFAULT, LOOKUP):
        nothing = haitsma.add([], config=config)
        assert haitsma.identify(nothing, [recordings[0][:CLIP]]) == [[]]
        brief = haitsma.add([recordings[0][:16_000], short], config=config)
        assert haitsma.identify(brief, [recordings[0][:CLIP]]) == [[]]


def test_as_a_system(recordings):
    system = systems.Philips(config=replace(DEFAULT, semitones=1))
    assert system.name == "philips"
    assert system.bytes_per_second == pytest.approx(344.1, abs=0.1)
    matches = system.candidates(system.add(recordings[:2]), [recordings[1][40_000:][:CLIP]])
    assert matches[0][0].recording == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "fast"}, "search must be one of exhaustive, lookup, got 'fast'"),
        ({"threshold": ""}, "threshold must be one of length, paper"),
        ({"flips": 11}, "flips must be 0 to 10, got 11"),
        ({"semitones": -1}, "semitones must be 0 to 16, got -1"),
        ({"block": 5000}, "block must be 0 to 4096"),
        ({"false_positive_rate": 1.0}, "false_positive_rate must be between 0 and 1"),
        ({"frame_length": 4000}, "step <= length <= fft_length"),
        ({"high_hz": 2700.0}, "between 0 and 2666.67 Hz"),
        ({"fft_length": 128, "frame_length": 124}, "Some bands have no bin"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HaitsmaConfig(**options)


def test_samples_and_configs_that_do_not_fit_are_refused(index):
    with pytest.raises(ValueError, match="finite"):
        haitsma.identify(index, [np.full(16_000, np.nan, np.float32)])
    with pytest.raises(ValueError, match="mono floats"):
        haitsma.fingerprint(np.zeros((2, 16_000), np.float32))
    with pytest.raises(ValueError, match="would not be analysed as the recordings"):
        haitsma.identify(index, [], config=HaitsmaConfig(low_hz=200.0))
