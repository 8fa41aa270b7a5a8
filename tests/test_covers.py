"""Versions of works: lines of windows in random codes, and answers about chords that are played
again."""

import json

import numpy as np
import pytest
import soundfile

from seqhash import cli, cover_codes, export
from seqhash.index import covers, identify
from seqhash.index.catalogue import Collection, Entry, Identity, Row, open_index

RING = 120
RATE = 8_000


def codes(seed, count=200):
    """Signs of random codes, which neighbours share half of as codes of music do."""
    made = np.random.default_rng(seed).standard_normal((count + 3, RING))
    return np.where(made[3:] + made[2:-1] + made[1:-2] > 0, 1.0, -1.0).astype(np.float32)


def disguised(part, *, tempo=1.0, by=0, flipped=0.3, seed=0):
    """A part as other players have it: faster, higher, with so many other bits."""
    rows = np.rint(np.arange(int(len(part) / tempo)) * tempo).astype(int)
    other = np.random.default_rng(seed).random((len(rows), RING)) < flipped
    return cover_codes.turned(np.where(other, -1, 1) * part[np.minimum(rows, len(part) - 1)], -by)


def weigh(query, parts, step=4, n=9):
    asked = cover_codes.asked(query, weighted=False)[..., :RING].astype(np.float32)
    rng, every = np.random.default_rng(0), np.concatenate(parts)
    sample = every[rng.integers(0, len(every) - n, 256)[:, None] + np.arange(n)]
    return covers.weigh(asked, parts, sample, step=step), asked, sample


@pytest.fixture(scope="module")
def parts():
    return [codes(seed, 150 + 10 * seed) for seed in range(12)]


@pytest.mark.parametrize(("tempo", "by"), [(1.0, 0), (1.12, 3), (0.86, 10)])
def test_a_disguised_part_is_found_in_its_key_at_its_tempo_and_place(parts, tempo, by):
    query = disguised(parts[7][50:150], tempo=tempo, by=by)
    weighed, asked, sample = weigh(query, parts)
    far = covers.standing_out(weighed, np.ones(len(parts), bool))
    assert far.argmax() == 7
    assert far[7] > 8
    assert np.delete(far, 7).max() < 4
    assert weighed.rotation[7] == by
    place, found = int(weighed.place[7]), float(weighed.tempo[7])
    line = covers.line(asked[by], parts[7], sample, step=4, place=place, tempo=found)
    assert line.tempo == pytest.approx(tempo, abs=0.03)
    assert line.place - line.first * line.tempo == pytest.approx(50, abs=2)
    assert line.last - line.first > 0.8 * len(query)
    words = cover_codes.words_of(cover_codes.turned(query, by))
    distance, compared = covers.differing(words, cover_codes.words_of(parts[7]), line)
    assert 0.25 < distance / (RING * compared) < 0.42


def test_a_line_ends_where_its_recording_does(parts):
    """What is played before the recording and after it is no part of it."""
    query = disguised(np.concatenate([parts[5][:30], parts[3], parts[6][:30]]))
    weighed, asked, sample = weigh(query, parts)
    place, tempo = int(weighed.place[3]), float(weighed.tempo[3])
    line = covers.line(asked[0], parts[3], sample, step=4, place=place, tempo=tempo)
    assert 0 <= line.place < 6
    assert 30 <= line.first < 36
    assert 0 <= 30 + len(parts[3]) - line.last < 6


def test_padding_and_batches_change_nothing(parts, monkeypatch):
    query = disguised(parts[3][20:80], by=5)
    whole, asked, sample = weigh(query, parts)
    monkeypatch.setattr(covers, "ROWS", 1)
    for i, part in enumerate(parts[:4]):
        one = covers.weigh(asked, [part], sample, step=4)
        assert [values[0] for values in one] == pytest.approx([values[i] for values in whole])


def test_a_query_wins_the_same_in_every_key(parts):
    """Where all music is in one key: a query in another is turned there, as any would be."""
    scale = np.random.default_rng(0).random(RING) < 0.4
    tonal = [np.where(scale, np.float32(1), part) for part in parts]
    own, *_ = weigh(disguised(tonal[7][50:150]), tonal)
    other, *_ = weigh(disguised(tonal[7][50:150], by=4), tonal)
    assert own.rotation[7] == 0
    assert other.rotation[7] == 4
    np.testing.assert_allclose(other.gain, own.gain, rtol=1e-3)
    np.testing.assert_allclose(other.backwards, own.backwards, rtol=1e-3)


def test_what_has_no_order_wins_nothing(parts):
    """A tone that is held, and the mirror image of what is asked."""
    held = np.tile(parts[0][:1], (160, 1))
    weighed, *_ = weigh(disguised(held[:80], flipped=0.1), [*parts, held])
    assert weighed.gain[-1] > 3 * weighed.gain[:-1].max()
    assert abs(weighed.gain[-1] - weighed.backwards[-1]) < 0.1 * weighed.gain[-1]
    weighed, *_ = weigh(disguised(parts[4][::-1][30:110]), parts)
    assert weighed.gain[4] - weighed.backwards[4] < 0


def test_what_stands_out_counts_neither_for_the_mean_nor_when_it_was_chosen():
    rng = np.random.default_rng(0)
    backwards = 20 + rng.standard_normal(60)
    won = 3 + 2.5 * rng.standard_normal(60)
    nothing = np.zeros(60, int)
    weighed = covers.Weighed(backwards + won, backwards, nothing, nothing, nothing)
    usual = covers.standing_out(weighed, np.ones(60, bool))
    assert abs(usual.mean()) < 0.3
    assert 0.8 < usual.std() < 1.2
    weighed.gain[:6] += 60  # six versions of one work
    far = covers.standing_out(weighed, np.ones(60, bool))
    assert far[:6].min() > 15
    np.testing.assert_allclose(far[6:], usual[6:], atol=0.5)
    alone = covers.standing_out(covers.Weighed(*(v[:1] for v in weighed)), np.ones(1, bool))
    assert 15 < alone[0] < 40  # what is usual, where nothing else is known
    chances = covers.log_probability(np.array([-1.0, 0.0, 4.0, 6.0]), 60)
    assert chances[0] == chances[1] == 0
    assert -1.0 < chances[2] < -0.4
    assert chances[3] < -2.5


def test_long_recordings_are_cut_and_empty_ones_left_out():
    starts = np.array([0, 900, 900, 900 + 2_900, 3_801])
    cut = covers.stretches(starts, 4.0)
    assert cut.recording.tolist() == [0, 2, 2, 2, 2, 3]
    assert cut.begin.tolist() == [0, 900, 1_500, 2_100, 2_600, 3_800]
    assert cut.end.tolist() == [900, 2_100, 2_700, 3_300, 3_800, 3_801]
    assert covers.pieces(480, 4.0) == [(0, 480)]
    assert covers.pieces(481, 4.0) == [(0, 480), (1, 481)]


# ------------------------------------------------------------------------------------------ answers


def played(pitches, seconds=0.5):
    """Chords (notes, 3) of five decaying partials, MIDI numbers."""
    time = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((pitches[..., None] - 69) / 12) * np.arange(1, 6)
    parts = np.sin(2 * np.pi * hz[..., None] * time) * np.exp(-3 * time) / np.arange(1, 6)[:, None]
    return (0.05 * parts.sum(axis=(1, 2)).reshape(-1)).astype(np.float32)


def chords(seed, count=60):
    return np.random.default_rng(seed).integers(50, 74, (count, 3))


@pytest.fixture(scope="module")
def searcher():
    hasher = export.load_hasher("harmony-120")
    assert hasher.sample_rate == RATE
    words = [hasher.hash_samples(played(chords(seed))) for seed in range(6)]
    rows = [
        Row(i, f"{i}.flac", f"{i:064x}", f"title {i}", "", f"work {i}", 30.0, len(one), {})
        for i, one in enumerate(words)
    ]
    return identify.make_searcher(hasher, rows, Collection.of(words))


@pytest.fixture(scope="module")
def cover():
    """The second half of work 4 and three semitones above, a ninth faster."""
    return played(chords(4)[24:] + 3, 0.45)


def test_a_cover_is_named_with_key_tempo_and_place(searcher, cover):
    best, *others = searcher.identify(cover)
    assert not others
    assert (best.recording, best.work, best.pitch) == (4, "work 4", 3.0)
    assert best.tempo == pytest.approx(0.5 / 0.45, abs=0.04)
    assert best.offset - best.start * best.tempo == pytest.approx(12.0, abs=0.6)
    assert best.end - best.start > 12
    assert best.score > 3
    assert best.bit_error_rate < 0.35
    assert searcher.identify(cover) == [best]
    assert searcher.identify(played(chords(99))) == []


def test_of_many_recordings_those_are_weighed_that_have_neighbours(searcher, cover, monkeypatch):
    (wanted,) = searcher.identify(cover)
    monkeypatch.setattr(covers, "EVERY", 3)
    monkeypatch.setattr(covers, "DRAWN", 2)
    (best,) = searcher.identify(cover)
    assert best._replace(score=0) == wanted._replace(score=0)


def test_misses_are_told_and_what_can_be_answered(searcher, cover):
    survey = searcher.survey([cover[: 4 * RATE]])
    assert survey.needed == pytest.approx(2)
    copy = played(chords(4))  # from begin to end, whatever is asked of it
    (whole,) = searcher.identify(copy)
    assert (whole.distance, whole.start, whole.score) == (0, 0.0, 30.0)
    assert searcher.survey([copy]).matches == [whole]
    assert all(match.score >= 2 for match in survey.matches)
    assert all(miss.score < 2 for miss in survey.misses)
    assert searcher.reach(20.0) == 1.0
    assert searcher.reach(1.0) == 0.0
    assert searcher.reach(0.5) == 0.0
    with pytest.raises(ValueError, match=r"at least 0\.956 s long"):
        searcher.identify(cover[:7_000])


def test_the_command_names_work_key_and_tempo(searcher, cover, tmp_path, capsys):
    index = tmp_path / "works.index"
    with open_index(index, identity=Identity.of(searcher.hasher), create=True) as opened:
        words = np.split(searcher.collection.words, searcher.collection.starts[1:-1])
        opened.add(
            Entry(row.path, row.digest, one, row.duration, row.title, "", row.work)
            for row, one in zip(searcher.rows, words, strict=True)
        )
    soundfile.write(tmp_path / "cover.wav", cover, RATE)
    arguments = ["identify", f"--index={index}", str(tmp_path / "cover.wav")]
    assert cli.main([*arguments, f"--plot={tmp_path / 'p.png'}"]) == 0
    table = capsys.readouterr().out
    assert "title 4 (4.flac), which is gone  work 4" in table
    assert "+3.0 semitones, +1" in table
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert cli.main([*arguments, "--json"]) == 0
    (match,) = json.loads(capsys.readouterr().out)["matches"]
    assert (match["work"], match["pitch"]) == ("work 4", 3.0)
    assert 1.05 < match["tempo"] < 1.17
