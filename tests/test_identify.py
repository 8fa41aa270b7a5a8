"""Identification of excerpts of the songbook, which is real enough; and the parts, by hand
arithmetic.
"""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.special
import soundfile

import seqhash
from seqhash import songbook
from seqhash.audio import AudioError
from seqhash.codes import AS_IS
from seqhash.index import calibration, identify, windows
from seqhash.index.catalogue import Collection, Entry, Identity, IndexFileError, Row, open_index
from seqhash.index.searcher import _groups, _Hits
from seqhash.search import hamming, planar

RATE = 16_000
WORKS = [work.work_id for work in songbook.works()][::2]


@pytest.fixture(scope="module")
def hasher():
    return seqhash.load_hasher("paper-128")


@pytest.fixture(scope="module")
def music():
    return {work: songbook.render(work, "orig", seed=0) for work in WORKS}


@pytest.fixture(scope="module")
def index(hasher, music, tmp_path_factory):
    """All works but the last two."""
    path = tmp_path_factory.mktemp("index") / "index"
    entries = [
        Entry(
            f"{work}.flac",
            f"{i:064x}",
            hasher.hash_samples(music[work]),
            len(music[work]) / RATE,
            title=work,
        )
        for i, work in enumerate(WORKS[:-2])
    ]
    with open_index(path, identity=Identity.of(hasher), create=True) as opened:
        opened.add(entries)
    return path


@pytest.fixture(scope="module")
def searcher(index, hasher):
    return identify.open_searcher(index, hasher)


def _excerpts(music, works, seconds, seed, each=3):
    rng = np.random.default_rng(seed)
    for work in works:
        for place in rng.integers(0, len(music[work]) - seconds * RATE, each):
            yield work, place / RATE, music[work][place : place + seconds * RATE]


@pytest.mark.slow
def test_excerpts_are_found_at_their_offsets(searcher, music):
    errors, hits = [], []
    for work, place, excerpt in _excerpts(music, WORKS[:-2], 5, seed=1):
        matches = searcher.identify(excerpt)
        hits.append(bool(matches) and matches[0].title == work)
        if hits[-1]:
            best = matches[0]
            errors.append(abs(best.offset - best.start - place))
            assert 0 <= best.start < best.end <= 5.3
            assert best.score >= 2
            assert best.distance == round(
                best.bit_error_rate * 128 * (1 + round(4 * (best.end - best.start - 1)))
            )
            assert matches == sorted(matches, key=lambda match: -match.score)
    assert np.mean(hits) >= 0.95
    assert np.median(errors) < 0.05
    assert np.mean(np.array(errors) < 0.1) > 0.8


@pytest.mark.slow
def test_the_package_identifies_a_clip_in_one_call(
    index, searcher, hasher, music, tmp_path, monkeypatch
):
    asked = []

    def opened(path, hasher, **options):  # one that is calibrated already
        asked.append((path, hasher.name, options))
        return searcher

    monkeypatch.setattr(identify, "open_searcher", opened)
    clip = music[WORKS[1]][40_000 : 40_000 + 5 * RATE]
    soundfile.write(tmp_path / "clip.flac", clip, RATE)
    (match,) = seqhash.identify(index, tmp_path / "clip.flac")  # by the index's own hasher
    assert match.title == WORKS[1]
    given = replace(hasher, name="mine")
    (match,) = seqhash.identify(index, clip, hasher=given, false_positive_rate=0.1)
    assert match.title == WORKS[1]
    rates = [{"false_positive_rate": rate} for rate in (0.01, 0.1)]
    assert asked == [(index, "paper-128", rates[0]), (index, "mine", rates[1])]


@pytest.mark.slow
def test_what_is_not_there_is_not_found(searcher, music):
    answers = [
        bool(searcher.identify(excerpt))
        for _, _, excerpt in _excerpts(music, WORKS[-2:], 5, seed=2, each=20)
    ]
    assert np.mean(answers) <= 0.1
    noise = np.random.default_rng(3).standard_normal(5 * RATE).astype(np.float32) / 10
    assert searcher.identify(noise) == []


@pytest.mark.slow
def test_a_mix_is_taken_apart(searcher, music, tmp_path):
    noise = np.random.default_rng(4).standard_normal(9 * RATE).astype(np.float32) / 10
    a, b, absent = music[WORKS[1]], music[WORKS[4]], music[WORKS[-1]]
    parts = [
        a[40_000 : 40_000 + 13 * RATE],
        noise,
        b[100_000 : 100_000 + 11 * RATE],
        absent[: 12 * RATE],
    ]
    soundfile.write(tmp_path / "mix.flac", np.concatenate(parts), RATE)
    found = sorted(searcher.identify_file(tmp_path / "mix.flac"), key=lambda match: match.start)
    assert [match.title for match in found] == [WORKS[1], WORKS[4]]
    for match, (start, end, offset) in zip(found, [(0, 13, 2.5), (22, 33, 6.25)], strict=True):
        assert match.start == pytest.approx(start, abs=1.0)
        assert match.end == pytest.approx(end, abs=1.0)
        assert match.offset - match.start == pytest.approx(offset - start, abs=0.1)


@pytest.mark.slow
def test_short_queries_may_hold_two_recordings_or_begin_before_one(searcher, music):
    a, b, absent = music[WORKS[1]], music[WORKS[4]], music[WORKS[-1]]
    two = searcher.identify(np.concatenate([a[160_000:240_000], b[100_000:180_000]]))
    assert sorted((m.title, round(m.start / 5)) for m in two) == sorted(
        [(WORKS[1], 0), (WORKS[4], 1)]
    )
    before = searcher.identify(np.concatenate([absent[: 3 * RATE], a[: 5 * RATE]]))
    assert [m.title for m in before] == [WORKS[1]]
    assert before[0].offset - before[0].start == pytest.approx(-3.0, abs=0.1)


@pytest.mark.slow
def test_a_passage_played_twice_is_found_twice(searcher, music):
    once = music[WORKS[1]][100_000 : 100_000 + 12 * RATE]
    found = searcher.identify(np.concatenate([once, once]))
    assert [m.title for m in found] == [WORKS[1]] * 2
    assert sorted(m.start for m in found) == pytest.approx([0.0, 12.0], abs=1.5)


@pytest.mark.slow
def test_recordings_shorter_than_the_query_are_found_in_it(hasher, music):
    parts = [music[work][160_000 : 160_000 + 5 * RATE] for work in WORKS]
    words = [hasher.hash_samples(part) for part in parts]
    searcher = _searcher(hasher, words)
    assert [m.recording for m in searcher.identify(parts[3])] == [3]
    rest = 0.1 * np.random.default_rng(5).standard_normal(6 * RATE).astype(np.float32)
    (match,) = searcher.identify(np.concatenate([rest, parts[3], rest]))
    assert (match.recording, round(match.start)) == (3, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [3, 8, 20])
def test_silence_and_steady_tones_match_nothing(searcher, hasher, seconds):
    rng = np.random.default_rng(6)
    kinds = {
        "dither": lambda count: np.round(0.7 * rng.standard_normal(count)) / 2**15,
        "tone": lambda count: 0.3 * np.sin(2 * np.pi * 440 * np.arange(count) / RATE),
        "hum": lambda count: (
            0.1 * np.sin(np.arange(count) * 2 * np.pi * 50 / RATE)
            + rng.standard_normal(count) / 1000
        ),
    }
    words, starts, ids = searcher.collection
    for name, signal in kinds.items():
        own = hasher.hash_samples(signal(25 * RATE).astype(np.float32))
        row = Row(99, f"{name}.flac", "", "", "", "", 25.0, len(own), {})
        more = Collection(
            np.concatenate([words, own]),
            np.append(starts, len(words) + len(own)),
            np.append(ids, 99),
        )
        there = identify.Searcher(hasher, [*searcher.rows, row], more)
        assert there.identify(signal(seconds * RATE + 1234).astype(np.float32)) == [], name


@pytest.mark.slow
def test_jingles_among_songs_are_found_in_a_long_query(hasher, music, searcher):
    stranger, *others = (
        music[WORKS[-1]],
        music[WORKS[-2]],
        songbook.render(songbook.works()[1].work_id, "orig", seed=0),
    )
    jingles = [other[round(3.3 * RATE) :][: 5 * RATE] for other in others]
    words = [hasher.hash_samples(jingle) for jingle in jingles]
    collection = searcher.collection
    rows = searcher.rows + [
        searcher.rows[0]._replace(id=90 + i, title=f"jingle {i}", work=f"j{i}") for i in range(2)
    ]
    starts = np.append(
        collection.starts, collection.starts[-1] + np.cumsum([len(one) for one in words])
    )
    together = Collection(
        np.concatenate([collection.words, *words]), starts, np.array([row.id for row in rows])
    )
    broadcast = np.concatenate(
        [stranger[: 9 * RATE], jingles[0], stranger[9 * RATE : 20 * RATE], jingles[1]]
    )
    matches = identify.Searcher(hasher, rows, together).identify(broadcast)
    assert sorted((match.title, round(match.start - match.offset)) for match in matches) == [
        ("jingle 0", 9),
        ("jingle 1", 25),
    ]


def _searcher(hasher, recordings, **options):
    """Of the words of each recording."""
    rows = [
        Row(i, f"{i}.flac", f"{i:064x}", "", "", "", 0.0, len(words), {})
        for i, words in enumerate(recordings)
    ]
    return identify.Searcher(hasher, rows, Collection.of(recordings), **options)


class CodesAsSamples(SimpleNamespace):
    """A hasher of nothing: what is asked are the codes themselves."""

    code_rate, segment_seconds, bits, shifts, many_bits = 4.0, 1.0, 128, 1, False
    sample_rate = 4  # a code is a sample

    def views(self, blocks, *, shifts, weighted):
        yield AS_IS, [np.concatenate(list(blocks))]


@pytest.mark.slow
def test_one_query_has_one_answer_whatever_was_asked_before():
    rng = np.random.default_rng(0)
    recordings = list(rng.integers(0, 2**32, (60, 120, 4), np.uint32))
    flips = np.packbits(rng.random((120, 128)) < 0.3, axis=1, bitorder="little").view("<u4")
    recordings[1] = recordings[0] ^ flips
    queries = [recordings[0][at : at + 2] for at in range(0, 120, 6)]
    searcher = _searcher(CodesAsSamples(), recordings)
    first = [searcher._identify([query]) for query in queries]
    found = [[match.recording for match in matches] for matches in first]
    assert found.count([0, 1]) > len(queries) / 2
    for at in range(600):
        searcher._identify([recordings[2 + at % 58][at % 100 :][:2]])
    assert [searcher._identify([query]) for query in queries] == first
    fresh = _searcher(CodesAsSamples(), recordings)
    assert [fresh._identify([query]) for query in reversed(queries)] == first[::-1]


@pytest.mark.slow
def test_answers_on_several_devices_are_those_on_one(hasher, searcher, index, music):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (planar.AXIS,))
    assert mesh.size == 4
    several = identify.open_searcher(index, hasher, mesh=mesh)
    for _, _, excerpt in _excerpts(music, WORKS[:3] + WORKS[-1:], 5, seed=5, each=2):
        assert several.identify(excerpt) == searcher.identify(excerpt)
        assert several.candidates(excerpt) == searcher.candidates(excerpt)
    assert len(several._database.planes.devices()) == 4
    assert searcher.mesh is None  # CPUs are used by threads


@pytest.mark.slow
def test_several_accelerators_are_all_used(index, hasher, monkeypatch):
    for count, expected in ((1, None), (3, 3)):
        devices = [SimpleNamespace(platform="gpu") for _ in range(count)]
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: [*devices, *CPUS])
        monkeypatch.setattr(identify, "Mesh", lambda devices, axes: (len(devices), axes))
        mesh = identify.open_searcher(index, hasher).mesh
        assert mesh == (expected and (expected, (planar.AXIS,)))


CPUS = [SimpleNamespace(platform="cpu")] * 4


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, 10, 20])
def test_an_exact_copy_has_no_errors_and_the_right_offset(searcher, music, seconds):
    for work in WORKS[:4]:
        best = searcher.identify(music[work][5 * RATE : (5 + seconds) * RATE])[0]
        assert (best.title, best.offset - best.start) == (work, 5.0)
        assert best.bit_error_rate < 0.005


@pytest.mark.slow
def test_where_chances_tie_the_smallest_distance_wins():
    rng = np.random.default_rng(1)
    recordings = list(rng.integers(0, 2**32, (40, 200, 4), np.uint32))
    row = recordings[3]
    near = row.copy()
    near[:, 0] ^= np.uint32(7)  # 3 bits of 128: as sure as none, -log10 of the probability being 30

    class Shifted(CodesAsSamples):
        shifts = 3

        def views(self, blocks, *, shifts, weighted):
            yield AS_IS, [near[50:90], row[50:90], near[50:90]]

    (match,) = _searcher(Shifted(), recordings)._identify([])
    assert (match.distance, match.score) == (0, 30.0)
    assert match.start == pytest.approx(1 / 12)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 2, 8])
def test_an_exact_loop_against_itself_is_one_match(hasher, searcher, music, seconds):
    loop = np.tile(music[WORKS[-1]][100_000 : 100_000 + seconds * RATE], 60)[: 60 * RATE]
    parts = [searcher._words(i) for i in range(len(searcher.rows))]
    together = _searcher(hasher, [*parts, hasher.hash_samples(loop)])
    (match,) = together.identify(loop)
    assert (match.recording, match.offset, match.start, match.end) == (len(parts), 0, 0, 59.75)
    assert match.distance == 0


def kick_and_hat(bpm: float, seconds: float, seed: int) -> np.ndarray:
    """A drum machine: a decaying tone on the beat, a short noise off it."""
    rng, count, beat = np.random.default_rng(seed), round(seconds * RATE), round(60 / bpm * RATE)
    samples, t = np.zeros(count + beat), np.arange(4000)
    for begin in range(0, count - 4000, beat):
        samples[begin : begin + 4000] += 0.7 * np.exp(-t / 800) * np.sin(2 * np.pi * 55 * t / RATE)
        hat = 0.1 * rng.standard_normal(800) * np.exp(-np.arange(800) / 150)
        samples[begin + beat // 2 : begin + beat // 2 + 800] += hat
    return samples[:count].astype(np.float32)


@pytest.mark.slow
def test_a_bare_rhythm_at_another_tempo_is_no_match(hasher, searcher):
    parts = [searcher._words(i) for i in range(len(searcher.rows))]
    drums = kick_and_hat(121, 60, 1)
    together = _searcher(hasher, [*parts, hasher.hash_samples(drums)])
    answers = [
        together.identify(kick_and_hat(bpm, seconds, seconds))
        for bpm in (110, 123, 128)
        for seconds in (5, 10, 30)
    ]
    assert sum(map(bool, answers)) <= 1  # one in sixteen is answered, all the same
    for seconds in (5, 30):  # of the very recording it is
        (match,) = together.identify(drums[10 * RATE : (10 + seconds) * RATE])
        assert (match.recording, match.offset - match.start) == (len(parts), 10)


@pytest.mark.slow
def test_an_empty_index_finds_nothing(hasher, tmp_path, music):
    path = tmp_path / "index"
    open_index(path, identity=Identity.of(hasher), create=True).close()
    assert identify.open_searcher(path, hasher).identify(music[WORKS[0]][: 3 * RATE]) == []


@pytest.mark.slow
def test_one_recording_is_enough(hasher, music):
    words = hasher.hash_samples(music[WORKS[0]])
    searcher = _searcher(hasher, [words])
    found = searcher.identify(music[WORKS[0]][100_000:180_000])
    assert [match.recording for match in found] == [0]
    assert searcher.identify(music[WORKS[5]][100_000:180_000]) == []


@pytest.mark.slow
def test_bad_queries_are_named(searcher, hasher, tmp_path):
    with pytest.raises(ValueError, match="longer than 1 s"):
        searcher.identify(np.ones(8000, np.float32))
    with pytest.raises(ValueError, match="finite"):
        searcher.identify(np.full(RATE * 3, np.nan, np.float32))
    with pytest.raises(AudioError, match=r"missing\.wav"):
        searcher.identify_file(tmp_path / "missing.wav")
    soundfile.write(tmp_path / "short.wav", np.full(4000, 0.5), RATE)
    with pytest.raises(AudioError, match=r"short\.wav"):
        searcher.identify_file(tmp_path / "short.wav")


@pytest.mark.slow
def test_another_hasher_is_refused(index, hasher):
    with pytest.raises(IndexFileError, match=r"paper-128.*other|other.*paper-128"):
        identify.open_searcher(
            index, replace(hasher, name="other", thresholds=hasher.thresholds + 0.1)
        )


# ---------------------------------------------------------------------------------------- the parts


def _hits(window, shift, recording, row, chance):
    count = len(window)
    return _Hits(
        *(np.array(v) for v in (window, shift, recording, row, [1] * count, [2] * count, chance))
    )


def test_windows_that_share_no_code_are_evidence_together():
    begins = np.array([0, 10, 20, 30])  # of 20 codes each
    for chances, evidence in (
        ([-2.0, -5.0, -2.0, -1.0], -6.0),  # windows 1 and 3, not 0 and 2
        ([-2.0, 0.0, -2.0, 0.0], -4.0),
        ([-2.0, -5.0, 0.0, 0.0], -5.0),
    ):
        assert windows.evidence(np.array(chances), begins, 20) == evidence


def test_hits_agree_by_recording_alignment_and_time():
    begins = np.array([0, 10, 20, 200])
    hits = _hits(
        [0, 1, 2, 3, 1], [0, 4, 0, 0, 0], [5, 5, 5, 5, 6], [100, 111, 140, 300, 110], [-1.0] * 5
    )
    groups = _groups(hits, begins, 5, 4.0)
    assert sorted(sorted(group.tolist()) for group in groups) == [
        [0, 1],
        [2],
        [3],
        [4],
    ]  # 3 is 45 s after 1


def test_the_extent_is_the_best_of_all_that_hold_the_seed():
    rng = np.random.default_rng(6)
    for _ in range(20):
        gains = rng.standard_normal(40)
        first, last = windows.extent(gains, 15, 27)
        assert first <= 18
        assert last >= 24
        ranges = [(gains[a:b].sum(), a, b) for a in range(19) for b in range(24, 41)]
        assert gains[first:last].sum() == pytest.approx(max(ranges)[0])


@pytest.mark.parametrize(
    ("count", "length", "begins"), [(9, 9, [0]), (42, 42, [0]), (52, 20, [0, 10, 20, 30, 32])]
)
def test_long_queries_are_cut_into_windows(count, length, begins):
    found = windows.cut(count, 4.0)
    assert found[0] == length
    assert found[1].tolist() == begins


def _works(seed, count, rows=200):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (count * rows, 4), np.uint32), np.arange(count + 1) * rows


@pytest.mark.slow
def test_the_false_positive_rate_is_as_stated():
    words, starts = _works(7, 40)
    null = calibration.estimate(
        words, starts, np.arange(40), n=4, tries=2, code_rate=4.0, many_bits=False
    )
    queries = np.random.default_rng(8).integers(0, 2**32, (4000, 4, 4), np.uint32)
    nearest = hamming.search(planar.build(words, starts), queries, 1).distance[:, 0]
    usual = calibration.typical(null.sample, queries, many_bits=False)
    nearness = calibration.nearness(nearest, usual).reshape(-1, 2).min(1)
    chance = 10 ** calibration.log_probability(null, nearness)
    for rate in (0.01, 0.05, 0.2):
        assert 0.2 * rate <= np.mean(chance <= rate) <= 2 * rate
        limit = np.array(calibration.largest(null, rate))
        assert 10 ** calibration.log_probability(null, limit) == pytest.approx(rate, rel=0.02)


def test_a_few_copies_do_not_spoil_the_rate():
    words, starts = _works(9, 40)
    words[starts[1] : starts[2]] = words[: starts[1]]  # two works of forty are one
    null = calibration.estimate(
        words, starts, np.arange(40), n=4, tries=2, code_rate=4.0, many_bits=False
    )
    honest = calibration.estimate(
        *_works(9, 40), np.arange(40), n=4, tries=2, code_rate=4.0, many_bits=False
    )
    assert calibration.largest(null, 0.01) == pytest.approx(
        calibration.largest(honest, 0.01), rel=0.2
    )


def test_versions_of_one_work_are_kept_together():
    words, starts = _works(10, 40)
    words[: starts[20]] = words[starts[20] :]  # every recording twice, and known to be
    null = calibration.estimate(
        words, starts, np.arange(40) % 20, n=4, tries=2, code_rate=4.0, many_bits=False
    )
    assert null.minima.min() > 0.5


def test_the_order_of_the_recordings_does_not_matter():
    words, starts = _works(12, 30)
    order = np.random.default_rng(13).permutation(30)
    mixed = words.reshape(30, 200, 4)[order].reshape(-1, 4)
    one = calibration.estimate(
        words, starts, np.arange(30), n=4, tries=2, code_rate=4.0, many_bits=False
    )
    other = calibration.estimate(mixed, starts, order, n=4, tries=2, code_rate=4.0, many_bits=False)
    assert (one.mean, one.deviation, one.copies) == (other.mean, other.deviation, other.copies)
    np.testing.assert_array_equal(one.minima, other.minima)


def test_uneven_halves_share_one_program(monkeypatch):
    monkeypatch.setattr(hamming._nearest, "compiled", programs := set())
    words, _ = _works(14, 40)
    starts = np.append(0, np.cumsum(np.tile([40, 760], 10)))
    calibration.estimate(words, starts, np.arange(20), n=4, tries=2, code_rate=4.0, many_bits=False)
    assert len(programs) == 1


def test_the_normal_distribution_is_scipys():
    deviations = np.linspace(-37, 5, 1_000).reshape(2, 500)
    wanted = scipy.special.log_ndtr(deviations)
    np.testing.assert_allclose(calibration.log_normal(deviations), wanted, rtol=1e-9)


def test_an_answer_loads_no_scipy():
    code = """
import sys
import numpy as np
import seqhash
from seqhash.index import identify
from seqhash.index.catalogue import Collection, Row
rng = np.random.default_rng(0)
words = [rng.integers(0, 2**32, (200, 1), np.uint32) for _ in range(10)]
rows = [Row(i, f"{i}", f"{i:064x}", "", "", "", 12.0, 200, {}) for i in range(10)]
hasher = seqhash.load_hasher("semitone-32")
searcher = identify.make_searcher(hasher, rows, Collection.of(words))
searcher.identify(rng.standard_normal(3 * hasher.sample_rate).astype("f"))
sys.exit("scipy.special" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_windows_longer_than_every_recording():
    assert (
        calibration.estimate(
            *_works(11, 10, rows=20), np.arange(10), n=30, tries=5, code_rate=4.0, many_bits=False
        )
        is None
    )
