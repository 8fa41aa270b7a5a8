"""Identification by a hasher of bands: half-second clips, transpositions, other tempi, levels."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
import soundfile
import soxr

import seqhash
from seqhash import songbook
from seqhash.codes import AS_IS
from seqhash.index import calibration, compare, identify, listen, windows
from seqhash.index.catalogue import Collection, Row
from seqhash.index.searcher import Heard
from seqhash.index.together import Found
from seqhash.search import hamming

WORKS = [work.work_id for work in songbook.works()][:9]
ABSENT = 2  # of them are not in the index


@pytest.fixture(scope="module")
def hasher():
    return seqhash.load_hasher("semitone-32")


@pytest.fixture(scope="module")
def music(hasher):
    rendered = {work: songbook.render(work, "orig", seed=0) for work in WORKS}
    return {
        work: soxr.resample(samples, songbook.SAMPLE_RATE, hasher.sample_rate).astype("f")
        for work, samples in rendered.items()
    }


@pytest.fixture(scope="module")
def searcher(hasher, music):
    return searcher_of(hasher, {work: music[work] for work in WORKS[:-ABSENT]})


def searcher_of(hasher, there):
    """An index of recordings by their titles."""
    recordings = [hasher.hash_samples(samples) for samples in there.values()]
    rows = [
        Row(i, f"{title}.flac", f"{i:064x}", title, "", "", 0.0, len(recordings[i]), {})
        for i, title in enumerate(there)
    ]
    return identify.Searcher(hasher, rows, Collection.of(recordings))


def excerpts(music, works, seconds, *, seed, each, rate=8_000):
    """(work, s, samples) from where it sounds."""
    rng, count = np.random.default_rng(seed), round(seconds * rate)
    for work in works:
        samples = music[work]
        for place in rng.integers(rate, len(samples) - count - rate, each):
            yield work, place / rate, samples[place : place + count]


def answers(searcher, clips):
    """(title asked, s asked, match or None) of each clip."""
    return [(work, place, next(iter(searcher.identify(clip)), None)) for work, place, clip in clips]


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "least"), [(1.0, 0.9), (0.5, 0.5)])
def test_short_clips_are_found_at_their_offset(searcher, music, seconds, least):
    asked = answers(searcher, excerpts(music, WORKS[:-ABSENT], seconds, seed=1, each=2))
    right = [(place, match) for work, place, match in asked if match and match.title == work]
    assert len(right) >= least * len(asked)
    errors = [abs(match.offset - match.start - place) for place, match in right]
    assert np.median(errors) <= 0.02


def transposed(clip, rate, semitones):
    return librosa.effects.pitch_shift(clip, sr=rate, n_steps=semitones).astype("f")


def faster(clip, rate, factor):
    """As a record played too fast: pitch and tempo together."""
    return soxr.resample(clip, rate * factor, rate).astype("f")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "by", "pitch", "tempo"),
    [(transposed, 2, 2.0, 1.0), (transposed, -2, -2.0, 1.0), (faster, 1.1, 12 * np.log2(1.1), 1.1)],
    ids=["up", "down", "faster"],
)
def test_what_was_changed_is_found_as_a_variant(searcher, music, change, by, pitch, tempo):
    rate = searcher.hasher.sample_rate
    clips = [
        (work, place, change(clip, rate, by))
        for work, place, clip in excerpts(music, WORKS[:-ABSENT:2], 2.0, seed=2, each=1)
    ]
    asked = answers(searcher, clips)
    right = [match for work, _, match in asked if match and match.title == work]
    as_is = answers(replace(searcher, variants=False), clips)
    assert len(right) >= 0.8 * len(asked)
    assert np.median([match.pitch for match in right]) == pytest.approx(pitch, abs=0.5)
    assert np.median([match.tempo for match in right]) == pytest.approx(tempo, abs=0.02)
    assert sum(match is not None for *_, match in as_is) <= 1


@pytest.mark.slow
def test_a_variant_is_asked_roughly_and_measured_at_each_shift(searcher, music):
    hasher, (_, _, clip) = searcher.hasher, next(iter(excerpts(music, WORKS, 2.5, seed=9, each=1)))
    asked = np.stack([c[:36] for c in hasher.hash_query(hasher.frames_of([clip]), weighted=True)])
    found, exact = searcher._likely(asked[None], 4), searcher._nearest(asked[None], 4)
    np.testing.assert_array_equal(found.row[:, 0], exact.row[:, 0])  # it is there
    words, starts = searcher.collection.words, searcher.collection.starts
    for query, distances, rows in zip(asked, found.distance, found.row, strict=True):
        assert (np.diff(distances) >= 0).all()
        assert len(set(rows.tolist())) == 4
        recording = np.searchsorted(starts, rows, side="right")
        assert (rows + 36 <= starts[recording]).all()
        beside = words[rows[:, None] + np.arange(36)]
        measured = hamming.code_distances(query[None], beside).sum(axis=1)
        np.testing.assert_array_equal(distances, measured)


class Ear:
    """Hears by a searcher alone."""

    def __init__(self, searcher):
        self.searcher, self.plain = searcher, replace(searcher, variants=False)

    def hear(self, samples, *, variants):
        searcher = self.searcher if variants else self.plain
        return [Found(match, "", False) for match in searcher.identify(samples)]

    def along(self, samples, found, offset):
        changed = found.match.tempo != 1 or found.match.pitch
        return None if changed else self.searcher.along(samples, found.match.recording, offset)


@pytest.mark.slow
def test_in_a_stream_what_was_changed_is_told_within_three_seconds(searcher, music):
    rate, changes = searcher.hasher.sample_rate, [(transposed, 1), (faster, 1.05), (transposed, -2)]
    parts = [np.zeros(4 * rate, np.float32)]
    for (change, by), work in zip(changes, WORKS, strict=False):
        clip = change(music[work][10 * rate : 22 * rate], rate, by)
        parts += [clip, np.zeros(6 * rate, np.float32)]
    ends = np.cumsum([len(part) for part in parts]) / rate
    ear = Ear(replace(searcher, false_positive_rate=0.01 / listen.ASKED))
    told = list(listen.listen([np.concatenate(parts)], ear, sample_rate=rate, least=1.0))
    begun = dict[str, float]()
    for event in told:
        begun.setdefault(event.found.match.title, event.time)
    assert list(begun) == WORKS[:3]
    late = [time - begin for time, begin in zip(begun.values(), ends[::2], strict=False)]
    assert max(late) <= 3


@pytest.mark.slow
def test_what_is_not_there_is_not_found(searcher, music):
    clips = [
        clip
        for seconds in (0.5, 1.0, 3.0)
        for _, _, clip in excerpts(music, WORKS[-ABSENT:], seconds, seed=3, each=8)
    ]
    found = [bool(searcher.identify(clip)) for clip in clips]
    assert sum(found) <= 1


@pytest.mark.slow
def test_an_answer_is_the_same_again_and_heeds_no_level_nor_offset(searcher, music):
    for _, _, clip in excerpts(music, WORKS[:-ABSENT:2], 1.0, seed=4, each=1):
        first = searcher.identify(clip)
        assert first
        assert searcher.identify(clip) == first
        assert searcher.identify((clip * 0.01).astype("f")) == first
        assert searcher.identify(clip + np.float32(0.1)) == first


@pytest.mark.slow
def test_an_index_of_any_size_answers_its_own_and_no_stranger(hasher, music):
    """One to eight recordings, sounds of two seconds alone, four versions of one piece."""
    rate, stranger = hasher.sample_rate, music[WORKS[-1]]
    versions = {
        version: soxr.resample(
            songbook.render("greensleeves", version, seed=0), songbook.SAMPLE_RATE, rate
        ).astype("f")
        for version in songbook.VERSIONS
    }
    sounds = {f"{i}": music[WORKS[i % 8]][(6 + i) * rate : (8 + i) * rate] for i in range(16)}
    sets = [{work: music[work] for work in WORKS[:n]} for n in (1, 2, 4, 8)]
    for there in (*sets, versions, sounds, {"0": sounds["0"]}):
        searcher, right, asked = searcher_of(hasher, there), 0, 0
        for title in list(there)[-4:]:
            for clip in (there[title][4 * rate : 7 * rate], there[title][: 2 * rate]):
                if len(clip):
                    found = searcher.identify(clip)
                    right, asked = right + ([m.title for m in found[:1]] == [title]), asked + 1
        assert right == asked, list(there)
        clips = [stranger[i * rate : (i + 3) * rate] for i in (3, 9, 15, 21)]
        assert not any(searcher.identify(clip) for clip in clips), list(there)


def sparse(seed, seconds, rate=8_000):
    """A plain tune over the beat that all of them have: decaying harmonics, clicks."""
    rng, out, beat = (
        np.random.default_rng(seed),
        np.zeros(round(seconds * rate)),
        round(0.536 * rate),
    )
    time_ = np.arange(2 * beat) / rate
    for begin in range(0, len(out) - 2 * beat, beat // 2):
        pitch = (
            110 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11]) / 12) * rng.choice([1, 4], p=[0.2, 0.8])
        )
        harmonics = [rng.random() / k * np.sin(2 * np.pi * k * pitch * time_) for k in range(1, 5)]
        out[begin : begin + 2 * beat] += np.sum(harmonics, axis=0) * np.exp(-4 * time_)
        if begin % beat == 0:
            out[begin : begin + 400] += rng.standard_normal(400) * np.exp(-np.arange(400) / 80)
    return (out / np.abs(out).max()).astype("f")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 8, 12])
def test_a_second_of_a_plain_tune_is_found_among_its_like(hasher, count):
    """Which is not many deviations from anything, and yet the same as nothing else."""
    songs = {f"{seed}": sparse(seed, 30.0) for seed in range(count)}
    searcher = searcher_of(hasher, songs)
    clips = list(excerpts(songs, songs, 1.0, seed=1, each=12 // count))
    right = [
        match is not None and match.title == title for title, _, match in answers(searcher, clips)
    ]
    assert sum(right) >= 0.8 * len(right)
    assert searcher.reach(1.0) >= 0.8
    shorter = searcher.survey([sparse(0, 30.0)[:2_400]])  # nothing is that near by accident
    assert (shorter.matches, shorter.reach) == ([], searcher.reach(0.3))
    assert shorter.reach < 0.5
    strangers = {f"{seed}": sparse(seed, 30.0) for seed in range(100, 104)}
    clips = excerpts(strangers, strangers, 1.0, seed=2, each=8)
    assert sum(bool(searcher.identify(clip)) for *_, clip in clips) <= 1


@pytest.mark.slow
def test_a_short_sound_that_is_alone_finds_its_own(hasher):
    """Its windows share most of their codes, so that they alone say little of what is typical."""
    rate, rng = hasher.sample_rate, np.random.default_rng(0)
    right, false = [], []
    for seed in range(8):
        sound, stranger = (sparse(one, 20.0)[3 * rate : 9 * rate // 2] for one in (seed, 50 + seed))
        searcher = searcher_of(hasher, {"": sound})
        places = rng.integers(0, rate // 2, 3)
        right += [bool(searcher.identify(sound[place : place + rate])) for place in places]
        false += [bool(searcher.identify(stranger[place : place + rate])) for place in places]
    assert sum(right) >= 20
    assert not any(false)


@pytest.mark.slow
@pytest.mark.parametrize("copies", [3, 9])
def test_a_collection_in_several_formats_finds_its_own_and_no_stranger(hasher, copies):
    """Most trials meet a copy of themselves then, which says nothing of strangers."""
    songs, there = {f"{seed}": sparse(seed, 30.0) for seed in range(8)}, {}
    for title, song in songs.items():
        for copy in range(copies):
            noise = (
                0.003 * copy * np.random.default_rng(copy).standard_normal(len(song) - 37 * copy)
            )
            there[f"{title}.{copy}"] = (song[37 * copy :] + noise).astype("f")
    searcher = searcher_of(hasher, there)
    for seconds in (1.0, 3.0):
        clips = list(excerpts(songs, songs, seconds, seed=3, each=2))
        found = [match and match.title[0] for *_, match in answers(searcher, clips)]
        right = [title == asked for title, (asked, *_) in zip(found, clips, strict=True)]
        assert sum(right) >= len(right) - 2
    strangers = {f"{seed}": sparse(seed, 30.0) for seed in range(100, 108)}
    clips = excerpts(strangers, strangers, 1.0, seed=2, each=3)
    assert sum(bool(searcher.identify(clip)) for *_, clip in clips) <= 1


@pytest.mark.slow
def test_another_edit_that_nobody_labelled_says_nothing_of_strangers(hasher):
    """Else its windows would be the nearest trials, and a clip would have to be nearer still."""
    tunes = [sparse(seed, 30.0) for seed in range(32)]
    edits = [np.concatenate([tune[3_100:80_000], tune[121_300:]]) for tune in tunes[:5]]

    def needed(recordings, n):
        words = hasher.hash_many(recordings)
        starts = np.cumsum([0, *map(len, words)])
        null = calibration.estimate(
            np.concatenate(words), starts, np.arange(len(words)),
            n=n, tries=2, code_rate=hasher.code_rate, many_bits=True,
        )  # fmt: skip
        return calibration.largest(null, 0.01)

    for n in (13, 77):
        assert needed(tunes + edits, n) > needed(tunes, n) - 1


@pytest.mark.slow
def test_a_timbre_that_a_recording_has_all_over_is_no_copy(hasher):
    """Of what is silent but for its end, and of held sounds, whatever else is there."""
    rate, time_ = hasher.sample_rate, np.arange(80_000) / hasher.sample_rate
    rng = np.random.default_rng(0)

    def tone(pitch, harmonics=1):
        return sum(np.sin(2 * np.pi * k * pitch * time_) / k for k in range(1, 2 * harmonics, 2))

    late, click = np.zeros(80_000), np.full(80_000, 0.4)
    late[-rate:], click[36_000] = sparse(7, 3.0)[rate : 2 * rate], 0.9
    held = {"hum": tone(50, 4), "tone": tone(440), "late": late, "click": click}
    pink = np.fft.irfft(np.fft.rfft(rng.standard_normal(80_000)) / np.sqrt(np.arange(40_001) + 1))
    strangers = [tone(50), tone(60), tone(100), tone(440, 4), tone(440) * (1 + 0.5 * tone(5))]
    strangers += [pink, 1e-5 * rng.standard_normal(80_000), rng.standard_normal(80_000)]
    for others in (0, 4, 12):
        there = held | {f"{seed}": sparse(seed, 10.0) for seed in range(others)}
        searcher = searcher_of(hasher, {name: x.astype("f") for name, x in there.items()})
        for stranger in strangers:
            samples = (0.3 * stranger / np.abs(stranger).max()).astype("f")
            for clip in (samples, samples[: 3 * rate], samples[:rate]):
                assert searcher.identify(clip) == []
        for name in ("late", *map(str, range(others))):
            assert searcher.identify(there[name].astype("f"))[0].title == name


@pytest.mark.slow
def test_what_a_file_went_through_changes_no_answer(searcher, music, tmp_path):
    """Level down to where 16 bits end, offset, polarity, another channel, other rates."""
    rate, path = searcher.hasher.sample_rate, tmp_path / "x.flac"
    for work, _, clip in excerpts(music, WORKS[:-ABSENT:2], 3.0, seed=6, each=1):
        files = {f"{level} dB": (clip * 10 ** (level / 20), rate) for level in (-6, -20, -50)}
        files |= {f"{to} Hz": (soxr.resample(clip, rate, to), to) for to in (11_025, 48_000)}
        files |= {"offset": (0.8 * clip + 0.1, rate), "polarity": (-clip, rate)}
        files |= {"a silent side": (np.stack([clip, 0 * clip], 1), rate)}
        for what, (samples, to) in files.items():
            soundfile.write(path, samples, to)
            found = searcher.identify_file(path, channel="mix")
            assert [match.title for match in found[:1]] == [work], what


def test_a_groove_that_two_pieces_share_is_no_copy():
    rng = np.random.default_rng(0)

    def differ(codes, share):
        flips = np.packbits(rng.random((len(codes), 32)) < share, axis=1).view(np.uint32)
        return codes ^ flips

    groove, piece = rng.integers(0, 2**32, (2, 64, 1), dtype=np.uint32)
    same_groove = np.concatenate([differ(groove, 0.25) for _ in range(30)])
    query = np.concatenate([differ(groove, 0.25) for _ in range(2)])
    assert windows.stands_out(query, same_groove, 640, 20, 32) < 0.2
    copy = differ(same_groove[640:768], 0.35)
    assert windows.stands_out(copy, same_groove, 640, 20, 32) > 0.6
    loop = np.concatenate([piece] * 30)  # a copy of one repeat is a copy of all
    assert windows.stands_out(differ(loop[640:768], 0.3), loop, 640, 20, 32) > 0.6
    assert windows.stands_out(query, same_groove[640:768], 0, 20, 32) == np.inf  # nothing beside


@pytest.mark.slow
def test_a_copy_is_known_from_begin_to_end_however_steady_it_is(hasher):
    """Whose windows tell nothing: a loop of a second, a tone."""
    steady, other = np.zeros((40, 1), np.uint32), np.arange(40, dtype=np.uint32)[:, None]
    words = [steady, other, steady, steady[:39]]
    rows = [Row(i, f"{i}", f"{i:064x}", "", "", "", 0.0, len(words[i]), {}) for i in range(4)]
    searcher = identify.Searcher(hasher, rows, Collection.of(words))
    weighted = np.concatenate([steady, other, other], axis=1)
    found = searcher._wholes(weighted)
    assert [match.recording for match in found] == [0, 2]
    for match in found:
        assert (match.start, match.offset, match.distance, match.bit_error_rate) == (0, 0, 0, 0)
        assert match.end == 39 / 16 + hasher.segment_seconds
    views = iter([(AS_IS, [weighted])])
    heard = Heard([], hasher.sample_rate)
    heard.seconds = 2.4995
    matches = searcher._answer(views, heard)
    assert [(m.recording, m.start, m.end) for m in matches] == [(0, 0.0, 2.4995), (2, 0.0, 2.4995)]
    assert searcher._wholes(steady[:38]) == []


@pytest.mark.slow
def test_nothing_begins_or_ends_in_digital_silence(searcher, hasher, music):
    rate, title = hasher.sample_rate, WORKS[0]
    silence, song = np.zeros(20 * rate, np.float32), music[title]
    first, second = song[10 * rate : 18 * rate], song[3 * rate : 9 * rate]
    found = searcher.identify(np.concatenate([silence, first, silence, second]))
    assert [match.title for match in found] == [title, title]
    found = sorted(found, key=lambda match: match.start)
    for match, times in zip(found, ((20, 28, 10), (48, 54, 3)), strict=True):
        assert (match.start, match.end, match.offset) == pytest.approx(times, abs=0.5)
        assert match.bit_error_rate < 0.2
    (match,) = searcher.identify(np.concatenate([silence[:rate], first[: 3 * rate]]))
    assert (match.start, match.end) == pytest.approx((1, 4), abs=0.4)
    padded = np.concatenate([silence, first, silence])
    compared = compare.compare_variants(first, padded, hasher=hasher, shifts=4)
    assert compare.verdict(compared, code_rate=hasher.code_rate) == "same"
    assert (compared.start_a, compared.start_b) == pytest.approx((0, 20), abs=0.1)


@pytest.mark.slow
def test_every_place_of_a_clip_is_listed_and_the_nearest_misses(searcher, hasher, music):
    rate, piece = hasher.sample_rate, music[WORKS[0]][8_000 : 8_000 + 16_000]
    loop = hasher.hash_samples(np.tile(piece, 25))  # 50 s, a place every 2 s
    other = np.concatenate([music[WORKS[1]][: 5 * rate], piece, music[WORKS[1]][5 * rate :]])
    words = [hasher.hash_samples(other), loop, *searcher.collection.words[None, :20_000]]
    rows = [Row(i, f"{i}", f"{i:064x}", "", "", "", 0.0, len(words[i]), {}) for i in range(3)]
    every = replace(searcher, rows=rows, collection=Collection.of(words), everywhere=True)
    survey = every.survey([piece[:12_000]])
    places = {r: [] for r in range(3)}
    for match in survey.matches:
        places[match.recording].append(match.offset - match.start)
    assert sorted(places[1]) == pytest.approx([2.0 * i for i in range(25)], abs=0.04)
    assert any(abs(place - 5) < 0.04 for place in places[0])
    assert survey.needed == pytest.approx(2)
    misses = searcher.survey([music[WORKS[-1]][16_000:40_000]])
    assert misses.matches == []
    assert 0 < len(misses.misses) <= 3
    assert all(miss.score < misses.needed for miss in misses.misses)
