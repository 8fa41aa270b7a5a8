"""Landmarks: peaks where the tones are, hashes by hand, offsets by counting, recordings found where
they were cut.
"""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, special, stats

from seqhash import audio, corpus, songbook
from seqhash.robustness import systems
from seqhash.robustness.baselines import wang

RATE = 16_000
CONFIG = wang.DEFAULT
WORKS = songbook.works()


@pytest.fixture(scope="module")
def recordings():
    """Six recordings of six works."""
    return [songbook.render(work.work_id, "orig", seed=3) for work in WORKS[:12:2]]


@pytest.fixture(scope="module")
def index(recordings):
    return wang.add(recordings)


def _noise(seconds: float, *, seed: int, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(
        np.float32
    )


def _tones(events: list[tuple[float, float]], *, seconds: float) -> np.ndarray:
    """Short Gaussian tone bursts at (s, Hz)."""
    time = np.arange(round(seconds * RATE)) / RATE
    bursts = [
        np.exp(-0.5 * ((time - at) / 0.02) ** 2) * np.sin(2 * np.pi * hz * (time - at))
        for at, hz in events
    ]
    return (0.5 * np.sum(bursts, axis=0)).astype(np.float32)


# -------------------------------------------------------------------------------------------- peaks


def test_peaks_are_where_the_tones_are():
    events = [(0.5, 500.0), (0.9, 1500.0), (1.3, 812.5), (1.3, 3000.0), (1.8, 250.0)]
    peaks = wang.find_peaks(
        _tones(events, seconds=2.2), shifts=1, density=30, config=replace(CONFIG, range_db=40)
    )
    centres = (peaks.frame * CONFIG.frame_step + CONFIG.frame_length / 2) / RATE
    found = sorted(zip(centres, peaks.bin * RATE / CONFIG.frame_length, strict=True))
    assert len(found) == len(events)
    for (seconds, hz), (true_seconds, true_hz) in zip(found, events, strict=True):
        assert (
            abs(seconds - true_seconds) <= CONFIG.frame_step / RATE
        )  # half a step to either side, and the sampling
        assert abs(hz - true_hz) <= RATE / CONFIG.frame_length / 2


def test_grids_of_a_query_begin_a_fraction_of_a_frame_apart():
    tone = _tones([(0.5, 1000.0), (1.0, 2000.0)], seconds=1.5)
    peaks = wang.find_peaks(tone, shifts=4, density=30, config=replace(CONFIG, range_db=40))
    assert peaks.grid.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    centres = (
        peaks.frame + peaks.grid / 4
    ) * CONFIG.frame_step / RATE + CONFIG.frame_length / 2 / RATE
    np.testing.assert_allclose(centres, [0.5, 1.0] * 4, atol=0.5 * CONFIG.frame_step / RATE + 1e-9)
    for grid in range(4):  # each is the analysis of the samples without the first of them
        alone = wang.find_peaks(
            tone[grid * 64 :], shifts=1, density=30, config=replace(CONFIG, range_db=40)
        )
        np.testing.assert_array_equal(alone.frame, peaks.frame[peaks.grid == grid])


def test_peaks_are_local_maxima_of_scipy():
    samples = _noise(3, seed=0)
    config = replace(CONFIG, prominence=8.0, density=1e6)
    peaks = wang.find_peaks(samples, shifts=1, density=1e6, config=config)
    framed = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 1024)[::256]
    spectrum = np.abs(np.fft.rfft(framed * _hann(1024)))[:, 1:256]
    level = 20 * np.log10(spectrum)
    size = (2 * config.region_frames + 1, 2 * config.region_bins + 1)
    highest = ndimage.maximum_filter(level, size, mode="constant", cval=-np.inf)
    inside = ndimage.uniform_filter(np.ones_like(level), size, mode="constant")
    mean = ndimage.uniform_filter(level, size, mode="constant") / inside
    frame, place = np.nonzero((level == highest) & (level > mean + 8.0))
    assert len(frame) > 20
    np.testing.assert_array_equal(np.stack([peaks.frame, peaks.bin]), np.stack([frame, place + 1]))


def _hann(length: int) -> np.ndarray:
    return np.hanning(length + 1)[:-1]


def test_blocks_leave_no_seam(monkeypatch):
    samples = _noise(4, seed=1)
    whole = wang.fingerprint(samples, query=True)
    monkeypatch.setattr(wang, "BLOCK", 4 * 7)
    np.testing.assert_array_equal(wang.fingerprint(samples, query=True), whole)


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("axis", [0, 2])
def test_running_maximum_is_scipys(radius, axis):
    values = np.random.default_rng(radius).standard_normal((9, 2, 13))
    wanted = ndimage.maximum_filter1d(
        values, 2 * radius + 1, axis=axis, mode="constant", cval=-np.inf
    )
    np.testing.assert_array_equal(wang.running_maximum(values, radius, axis=axis), wanted)


def test_strongest_by_brute_force():
    rng = np.random.default_rng(4)
    time, level = np.sort(rng.integers(0, 200, 120)), rng.integers(0, 20, 120)  # with ties
    kept = wang.strongest(time, level, radius=15, count=4)
    for i in range(120):
        near = [j for j in range(120) if j != i and abs(time[j] - time[i]) <= 15]
        exceed = sum(level[j] > level[i] or (level[j] == level[i] and j < i) for j in near)
        assert kept[i] == (exceed < 4)


def test_density_is_kept():
    for density in (5, 15):
        peaks = wang.find_peaks(_noise(20, seed=2), shifts=1, density=density)
        assert 0.6 * density < len(peaks.frame) / 20 <= 1.2 * density


def test_a_steady_tone_is_thinned():
    tone = (0.5 * np.sin(2 * np.pi * 1000 / RATE * np.arange(4 * RATE))).astype(
        np.float32
    )  # every frame is the same
    peaks = wang.find_peaks(tone, shifts=1, density=1000, config=replace(CONFIG, density=1000))
    assert np.all(peaks.bin == 64)
    assert len(peaks.frame) < 4 * CONFIG.frame_rate / 2


def test_gain_changes_nothing():
    samples = _noise(3, seed=5)
    np.testing.assert_array_equal(
        wang.fingerprint(samples * np.float32(2**-7)), wang.fingerprint(samples)
    )


# ---------------------------------------------------------------------------------------- landmarks


def test_hashes_round_trip():
    rng = np.random.default_rng(6)
    parts = rng.integers(0, 1024, (3, 500))
    parts[:, 0], parts[:, 1] = 0, 1023
    hashes = wang.pack(*parts)
    assert hashes.dtype == np.uint32
    np.testing.assert_array_equal(np.stack(wang.unpack(hashes)), parts)
    assert (
        int(wang.pack(np.array([3]), np.array([5]), np.array([7]))[0]) == 3 * 2**20 + 5 * 2**10 + 7
    )


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("value", [-1, 1024])
def test_hashes_do_not_wrap(part, value):
    parts = [np.array([9]), np.array([9]), np.array([9])]
    parts[part] = np.array([value])
    with pytest.raises(ValueError, match="0 to 1023"):
        wang.pack(*parts)


def test_pairs_by_brute_force():
    rng = np.random.default_rng(7)
    config = replace(CONFIG, zone_start=2, zone_frames=20, zone_bins=30)
    cells = sorted(set(zip(*rng.integers(0, [[3], [60], [80]], (3, 150)).tolist(), strict=True)))
    grid, frame, place = np.array(cells).T
    anchor, target = wang.pair(
        wang.Peaks(grid, frame, place, np.zeros(len(grid))), fan_out=3, config=config
    )
    wanted = []
    for i, (g, f, b) in enumerate(cells):
        zone = [
            j
            for j, (other, at, bin_) in enumerate(cells)
            if other == g and 2 <= at - f <= 20 and abs(bin_ - b) <= 30
        ]
        wanted += [(i, j) for j in zone[:3]]
    assert sorted(zip(anchor.tolist(), target.tolist(), strict=True)) == wanted


def test_fingerprint_of_two_bursts_is_one_landmark():
    marks = wang.fingerprint(
        _tones([(0.512, 1000.0), (1.024, 1250.0)], seconds=1.5), config=replace(CONFIG, range_db=40)
    )
    assert marks.dtype == np.uint32
    assert marks.shape == (1, 2)
    anchor, target, frames = (int(part[0]) for part in wang.unpack(marks[:, 0]))
    assert (anchor, target, frames) == (64, 80, 32)  # 15.625 Hz, 16 ms
    assert marks[0, 1] == 30  # whose middle is 0.512 s


@pytest.mark.slow
@pytest.mark.parametrize("query", [False, True])
@pytest.mark.parametrize("samples", [0, 1, 1023, 1024, 1280, 5 * RATE])
def test_silence_and_short_clips_have_no_landmarks(samples, query, index):
    silent = np.zeros(samples, np.float32)
    assert wang.fingerprint(silent, query=query).shape == (0, 2)
    if samples < RATE:
        assert wang.fingerprint(_noise(samples / RATE, seed=0), query=query).shape == (0, 2)
    assert wang.identify(index, [silent, silent], all_candidates=True) == [[], []]


def test_a_constant_has_no_landmarks():
    assert len(wang.fingerprint(np.full(2 * RATE, 0.3, np.float32))) == 0


@pytest.mark.parametrize(
    "samples",
    [np.zeros((2, 100), np.float32), np.zeros(100, np.int16), np.full(2000, np.nan, np.float32)],
)
def test_bad_samples(samples):
    with pytest.raises(ValueError, match="Samples must be"):
        wang.fingerprint(samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_step": 0}, "frame_step must be at least 1"),
        ({"shifts": 3}, "shifts must divide"),
        ({"frame_step": 2048}, "at most 1024"),
        ({"density": 0.0}, "density must be positive"),
        ({"high_hz": 9000.0}, "between 0 and 8000 Hz"),
        ({"low_hz": 4000.0}, "between 0 and 8000 Hz"),
        ({"frame_length": 8192}, "room for the bins"),
        ({"zone_frames": 1024}, "zone_frames must be"),
        ({"zone_frames": 1}, "zone_frames must be"),
        ({"clump": 0.0}, "clump must be positive"),
        ({"false_positive_rate": 1.0}, "between 0 and 1"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


# ----------------------------------------------------------------------------------------- matching


def _hits(rows: list[tuple[int, int, int, int]]) -> wang.Hits:
    clip, reference, recording, offset = np.array(rows, np.int64).reshape(-1, 4).T
    return wang.Hits(clip, np.arange(len(clip)), reference, recording, offset)


def test_offsets_are_counted_as_by_hand():
    # Unit: a quarter of a frame, so a bin is 8 units wide, and bins begin every 4.
    hits = _hits(
        [
            (0, 10, 0, 8),  # bins from 4 and from 8
            (0, 11, 0, 11),  # the same
            (0, 12, 0, 12),  # bins from 8 and from 12
            (0, 12, 0, 13),  # the same landmark again: not counted twice
            (0, 20, 1, -5),  # bins from -12 and from -8
            (1, 11, 0, 40),  # another clip: bins from 36 and from 40
        ]
    )
    best = wang.fullest(hits, np.array([100, 50]), span=30, shifts=4)
    assert best.clip.tolist() == [0, 0, 1]
    assert best.recording.tolist() == [0, 1, 0]
    assert best.begin.tolist() == [2, -3, 9]  # frames
    assert best.landmarks.tolist() == [3, 1, 1]
    assert best.total.tolist() == [6, 2, 2]


def test_offsets_by_brute_force():
    rng = np.random.default_rng(8)
    lengths, span = np.array([40, 7, 90]), 20
    rows = []
    for clip in range(3):
        for _ in range(200):
            recording = int(rng.integers(3))
            offset = int(rng.integers(-(span - 1) * 4, lengths[recording] * 4))
            rows.append((clip, int(rng.integers(30)) + 30 * recording, recording, offset))
    best = wang.fullest(_hits(rows), lengths, span=span, shifts=4)
    bins: dict[tuple[int, int], dict[int, set[int]]] = {}
    for clip, reference, recording, offset in rows:
        for begin in (offset // 4, offset // 4 - 1):
            bins.setdefault((clip, recording), {}).setdefault(begin, set()).add(reference)
    assert list(zip(best.clip.tolist(), best.recording.tolist(), strict=True)) == sorted(bins)
    for key, begin, count, total in zip(
        sorted(bins), best.begin, best.landmarks, best.total, strict=True
    ):
        counts = {begin: len(references) for begin, references in bins[key].items()}
        assert count == max(counts.values())
        assert begin == min(b for b, c in counts.items() if c == count)
        assert total == sum(counts.values())


def test_too_large_a_histogram_says_so():
    with pytest.raises(ValueError, match="too large"):
        wang.fullest(_hits([(0, 2**40, 0, 0)]), np.array([2**24]), span=30, shifts=4)


def test_tail_is_scipys():
    count, rate = (
        axis.ravel() for axis in np.meshgrid([1 / 3, 1, 2, 5.5, 30, 400], [1e-6, 0.01, 0.3, 1, 20])
    )
    below = rate < count
    wanted = special.gammainc(count[below], rate[below])
    shown = wanted > 1e-300
    np.testing.assert_allclose(
        10 ** wang.log10_tail(count, rate)[below][shown], wanted[shown], rtol=1e-9
    )
    np.testing.assert_allclose(
        10 ** wang.log10_tail(np.array([4.0]), np.array([0.5])), stats.poisson.sf(3, 0.5)
    )
    assert (
        10 ** wang.log10_tail(np.array([3.0]), np.array([50.0]))[0] > 0.3
    )  # fewer than expected: no evidence


def test_score_by_hand():
    # 6 landmarks, clumps of 3: two events where (29 + 1) / 100 / 3 = 0.1 is expected; 1 - e^-0.1 (1
    # + 0.1)
    scores = wang.score(np.array([6]), np.array([29]), np.array([100]), np.array([1000]), clump=3.0)
    np.testing.assert_allclose(scores, -np.log10(1000 * (1 - np.exp(-0.1) * 1.1)))


# --------------------------------------------------------------------------------------- recordings


@pytest.mark.parametrize("seconds", [2.0, 5.0])
def test_excerpts_are_found_where_they_were_cut(recordings, index, seconds):
    rng = np.random.default_rng(9)
    truth, clips = [], []
    for recording, samples in enumerate(recordings):
        for _ in range(3):
            begin = int(rng.integers(len(samples) - seconds * RATE))
            truth.append((recording, begin / RATE))
            clips.append(samples[begin : begin + round(seconds * RATE)])
    answers = wang.identify(index, clips)
    found = 0
    for (recording, begin), matches in zip(truth, answers, strict=True):
        if not matches or matches[0].recording != recording:
            continue
        best = matches[0]
        found += abs(best.offset - best.start - begin) < 0.02
        assert 0 <= best.start < best.end <= seconds
        assert best.score >= 2
        assert 0 < best.bit_error_rate < 1
        assert best.distance / best.bit_error_rate == pytest.approx(
            len(wang.fingerprint(clips[truth.index((recording, begin))], query=True))
        )
    assert found >= len(truth) - 1  # a piece may repeat itself to the sample


def test_the_whole_recording_in_noise_and_quieter(recordings, index):
    rng = np.random.default_rng(10)
    clip = recordings[4][7 * RATE + 77 : 13 * RATE] * np.float32(0.2)
    noisy = clip + (0.5 * clip.std() * rng.standard_normal(len(clip))).astype(np.float32)  # 6 dB
    (matches,) = wang.identify(index, [noisy])
    assert matches[0].recording == 4
    assert matches[0].offset - matches[0].start == pytest.approx(7 + 77 / RATE, abs=0.02)


def test_what_is_not_there_is_not_answered(recordings, index):
    clips = [_noise(5, seed=seed) for seed in range(11, 15)]
    assert wang.identify(index, clips) == [[]] * 4
    candidates = wang.identify(index, clips, all_candidates=True)
    assert all(matches and matches[0].score < 2 for matches in candidates)
    for matches in candidates:
        assert len(matches) <= wang.CANDIDATES
        assert all(a.score >= b.score for a, b in itertools.pairwise(matches))
        assert max(Counter(match.recording for match in matches).values()) == 1


def test_another_work_by_the_same_synthesiser_is_far_less_sure(recordings, index):
    other = songbook.render(WORKS[1].work_id, "orig", seed=3)[
        5 * RATE : 10 * RATE
    ]  # whose notes are the same sounds
    wrong, right = wang.identify(
        index, [other, recordings[0][5 * RATE : 10 * RATE]], all_candidates=True
    )
    assert wrong[0].score < 10 < 100 < right[0].score


def test_two_recordings_in_one_query(recordings, index):
    clip = np.concatenate(
        [recordings[0][8 * RATE : 13 * RATE], recordings[3][16 * RATE : 21 * RATE]]
    )
    (matches,) = wang.identify(index, [clip])
    by_recording = {match.recording: match for match in matches}
    assert set(by_recording) == {0, 3}
    assert by_recording[0].start < 0.5
    assert 4.0 < by_recording[0].end <= 5.1
    assert by_recording[0].offset - by_recording[0].start == pytest.approx(8, abs=0.02)
    assert 4.9 < by_recording[3].start < 5.5
    assert by_recording[3].offset - (by_recording[3].start - 5) == pytest.approx(16, abs=0.02)


def test_batches_do_not_change_answers(recordings, index, monkeypatch):
    clips = [samples[3 * RATE : (5 + i) * RATE] for i, samples in enumerate(recordings)] + [
        np.zeros(RATE, np.float32)
    ]
    together = wang.identify(index, clips, all_candidates=True)
    alone = [wang.identify(index, [clip], all_candidates=True)[0] for clip in clips]
    assert together == alone
    monkeypatch.setattr(wang, "BATCH", 2)
    assert wang.identify(index, clips) == [wang.identify(index, [clip])[0] for clip in clips]
    monkeypatch.setattr(wang, "HITS", 1)
    assert [len(queries) for queries in _cut(index, clips)] == [1] * len(clips)


def _cut(index: wang.Landmarks, clips: list[np.ndarray]) -> list[list[np.ndarray]]:
    queries = [wang.fingerprint(clip, query=True) for clip in clips]
    return [queries[batch] for batch in wang._batches(index, queries)]


def test_deterministic(recordings, index):
    again = wang.add(recordings)
    np.testing.assert_array_equal(again.hashes, index.hashes)
    np.testing.assert_array_equal(again.positions, index.positions)
    clips = [recordings[1][RATE : 4 * RATE]]
    assert wang.identify(index, clips) == wang.identify(again, clips)


def test_empty_collections_and_no_clips(recordings, index):
    clip = recordings[0][: 2 * RATE]
    for empty in (wang.add([]), wang.add([np.zeros(RATE, np.float32)])):
        assert wang.identify(empty, [clip], all_candidates=True) == [[]]
        assert empty.bytes_per_second == 0
    assert wang.identify(index, []) == []


def test_collection_holds_every_landmark(recordings, index):
    prints = [wang.fingerprint(samples) for samples in recordings]
    assert len(index.hashes) == sum(map(len, prints))
    assert (np.diff(index.hashes.astype(np.int64)) >= 0).all()
    recording = np.searchsorted(index.starts, index.positions, side="right") - 1
    for number, marks in enumerate(prints):
        mine = recording == number
        pairs = np.stack([index.hashes[mine], index.positions[mine] - index.starts[number]], axis=1)
        assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, marks.tolist()))
    seconds = sum(map(len, recordings)) / RATE
    assert index.bytes_per_second == pytest.approx(8 * len(index.hashes) / seconds, rel=1e-3)
    assert 0 < index.bytes_per_second <= systems.Shazam().bytes_per_second


def test_landmarks_past_the_end_are_refused():
    marks = np.array([[1, 5]], np.uint32)
    with pytest.raises(ValueError, match="Recording 1 has 5 frames"):
        wang.from_fingerprints([marks, marks], [6, 5], config=CONFIG)


@pytest.mark.parametrize("config", [wang.PAPER, wang.SPARSE])
def test_systems(recordings, config):
    system = systems.Shazam(config=config)
    index = system.add(recordings[:3])
    (matches,) = system.candidates(index, [recordings[2][9 * RATE + 100 : 14 * RATE]])
    assert matches[0].recording == 2
    assert matches[0].offset - matches[0].start == pytest.approx(9 + 100 / RATE, abs=0.03)


@pytest.mark.slow
def test_real_music(corpora):
    manifest = corpus.read_manifest(corpora / "music" / "manifest.csv")
    recordings = [audio.read(one.path, sample_rate=RATE)[: 40 * RATE] for one in manifest[9:15]]
    index = wang.add(recordings)
    begins = [round((3.1 + 2.37 * i) * RATE) for i in range(6)]
    clips = [
        samples[begin : begin + 3 * RATE] for samples, begin in zip(recordings, begins, strict=True)
    ]
    answers = wang.identify(index, clips)
    assert [matches[0].recording for matches in answers] == list(range(6))
