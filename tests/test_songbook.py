"""The built-in corpus: notation, arrangement, synthesis and the files. Only a few of the 80
recordings are rendered.
"""

import csv
import dataclasses
import re
from fractions import Fraction
from importlib import resources

import librosa
import numpy as np
import pytest
import soundfile

from seqhash.songbook import arrangement, book, notation, synth

TUNE = """X:1
F:scale
T:A Scale
C:nobody
G:country
M:3/4
L:1/8
Q:1/4=120
P:AB
K:D
P:A
"D"A2 | d2 ^c=c _B>A | "A7"e4- e/f3/2 | "NC"d4 |
P:B
z2 | "Bm"f6- | f4 z2 | D,2 d'2 |
"""


def parse(text=TUNE):
    return notation.parse(text, name="tune")


def test_notes_by_hand():
    (work,) = parse()
    part = work.parts[0]
    assert (work.metre, work.tempo, work.tonic, work.order, part.bars) == (
        (3, 4),
        120.0,
        2,
        "AB",
        3,
    )
    # D major: c and f are sharp; =c and _B hold for their bar only; > lends half of the second note
    # to the first.
    assert part.notes == (
        (-1.0, 1.0, 69), (0.0, 1.0, 74), (1.0, 0.5, 73), (1.5, 0.5, 72), (2.0, 0.75, 70),
        (2.75, 0.25, 69), (3.0, 2.25, 76), (5.25, 0.75, 78), (6.0, 2.0, 74),
    )  # fmt: skip
    assert part.chords == (
        (0.0, 3.0, 2, (0, 4, 7)),
        (3.0, 3.0, 9, (0, 4, 7, 10)),
        (6.0, 3.0, 0, ()),
    )
    assert work.parts[1].notes == ((0.0, 5.0, 78), (6.0, 1.0, 50), (7.0, 1.0, 86))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("d2 ^c=c", "d3 ^c=c", 12, "a bar of 3 quarter notes expected, got 7/2"),
        ('"NC"d4 |', '"NC"d6 |', 12, "a bar of 2 quarter notes expected, got 3"),
        ("D,2 d'2 |", "D,2 d'2", 14, "ends with a bar line"),
        (" D,2", " H2", 14, 'cannot read "H2'),
        ("e4-", '"Xm"e4-', 12, "a chord is a root"),
        ("f6- | f4", "f6- | g4", 14, "a tie joins"),
        (
            'z2 | "Bm"f6- | f4 z2 | D,2 d',
            '"Bm"f6- | f4 z2 | D,4 d',
            13,
            "the pickup of part B is 0",
        ),
        ('"Bm"f6', "f6", 13, "a part begins with a chord"),
        ('z2 | "Bm"', 'z2 | >"Bm"', 14, "> stands behind a note"),
        ("\nz2 | ", "\n-z2 | ", 14, "a tie stands behind a note"),
        ("f4 z2", "f0 z2", 14, "a length is not 0"),
        ("M:3/4", "M:three", 6, "a metre such as 3/4 expected, got 'three'"),
        ("K:D", "K:H", 10, "a key such as"),
        ("P:AB", "P:AC", 9, "no part C"),
        ("L:1/8\n", "", 1, "no L: line"),
        ("K:D\n", "", 1, "no K: line"),
        ("P:A\n", "", 11, "music of a part expected"),
        ("X:1\n", "", 1, "a tune begins with X:"),
    ],
)
def test_an_error_names_its_line(old, new, line, message):
    assert TUNE.count(old) == 1
    with pytest.raises(ValueError, match=f"^tune, line {line}: ") as error:
        parse(TUNE.replace(old, new))
    assert message in str(error.value)


def test_errors_across_a_file():
    with pytest.raises(ValueError, match="line 15: a second tune with F:scale"):
        parse(TUNE + TUNE)
    with pytest.raises(ValueError, match="line 10: this tune has no part"):
        parse(TUNE[: TUNE.index("P:A\n")])
    with pytest.raises(ValueError, match="line 11: a part has notes"):
        parse(TUNE[: TUNE.index("P:A\n")] + "P:A\n")


def test_the_works():
    works = book.works()
    assert len(works) == len({work.work_id for work in works}) == 20
    assert (
        [work.genre for work in works].count("country")
        == [work.genre for work in works].count("classical")
        == 10
    )
    for work in works:
        for (
            part
        ) in work.parts:  # the parser has checked each bar; this adds them up again, rests and all
            assert part.chords[0].start == 0
            ends = [chord.start + chord.duration for chord in part.chords]
            assert ends[:-1] == [chord.start for chord in part.chords[1:]]
            assert ends[-1] == part.bars * work.bar
            assert all(note.start + note.duration <= ends[-1] + 1e-9 for note in part.notes)
            assert all(40 <= note.pitch <= 96 for note in part.notes)
        seconds = sum(part.bars for part in work.parts) * work.bar * 60 / work.tempo
        assert seconds > 13  # no phrase is heard six times in 40 s
        assert (
            int(work.composer.split("-")[-1].split(")")[0]) < 1926 if "(" in work.composer else True
        )


def test_bars_by_a_second_count():
    """Lengths of the letters between bar lines, added up without the parser; broken rhythm stays
    within its bar.
    """
    text = (
        resources.files("seqhash.songbook")
        .joinpath("data/songbook.txt")
        .read_text(encoding="utf-8")
    )
    tunes = text.split("X:")[1:]
    for tune, work in zip(tunes, book.works(), strict=True):
        unit = Fraction(re.search(r"^L:(.*)$", tune, re.M)[1])
        metre = Fraction(re.search(r"^M:(.*)$", tune, re.M)[1])
        body = re.split(r"^K:.*$", tune, flags=re.M)[1]
        for block, part in zip(
            re.split(r"^P:[A-E]$", body, flags=re.M)[1:], work.parts, strict=True
        ):
            bars = [
                sum(
                    Fraction(int(above or 1), int(below or 2) if slash else 1)
                    for above, slash, below in re.findall(r"[A-Ga-gz][,']*(\d*)(/?)(\d*)", bar)
                )
                * unit
                for bar in re.sub(r'"[^"]*"', "", block).split("|")[:-1]
            ]
            if bars[0] != metre:
                assert bars.pop(0) + bars.pop() == metre
                bars.append(metre)
            assert set(bars) == {metre}, work.work_id
            assert len(bars) == part.bars


def test_the_tunes_are_those():
    """First intervals of a few tunes in semitones, from any songbook."""
    known = {
        "oh_susanna": [2, 2, 3, 0, 2, -2, -3, -4],
        "ode_to_joy": [0, 1, 2, 0, -2, -1, -2, -2, 0, 2, 2],
        "fur_elise": [-1, 1, -1, 1, -5, 3, -2, -3],
        "auld_lang_syne": [5, 0, 0, 4, -2, -2, 2, 2],
        "mountain_king": [2, 1, 2, 2, -4, 4, -1, -4, 4, -1, -4, 4],
        "amazing_grace": [5, 4, -4, 4, -2, -2, -3, -2],
    }
    for work in book.works():
        if work.work_id in known:
            pitches = [note.pitch for note in work.parts[0].notes]
            expected = known[work.work_id]
            assert np.diff(pitches).tolist()[: len(expected)] == expected, work.work_id


@pytest.mark.parametrize("instrument", synth.INSTRUMENTS)
def test_pitch_of_every_instrument(instrument):
    model = synth.INSTRUMENTS[instrument]
    pitch = (model.low + model.high) // 2
    event = synth.Event(start=0.1, duration=1.6, pitch=pitch, loudness=0.8)
    samples = synth.play(
        np.random.default_rng(0), instrument, [event], samples=2 * synth.SAMPLE_RATE
    )
    steady = samples[4_800:24_000]
    power = np.abs(np.fft.rfft(steady * np.hanning(len(steady)), 1 << 18)) ** 2
    frequencies = np.fft.rfftfreq(1 << 18, 1 / synth.SAMPLE_RATE)
    expected = 440 * 2 ** ((pitch - 69) / 12)
    near = np.abs(np.log2(frequencies.clip(1) / expected)) < 0.5 / 12
    found = np.sum(frequencies[near] * power[near]) / np.sum(
        power[near]
    )  # the centre of vibrato and of detuned strings
    assert abs(1200 * np.log2(found / expected)) < 8
    assert np.isfinite(samples).all()
    assert 0.02 < np.abs(samples).max() < 2


def _plain(work, **changes):
    base = book.arrangements(work, seed=0)[0]
    quiet = {
        "ornaments": 0.0,
        "swing": 0.0,
        "timing": 0.0,
        "harmony": "",
        "second": "",
        "lead": "violin",
        "drums": "kit",
    }
    return dataclasses.replace(base, **(quiet | changes))


def test_tempo_factor_and_key_shift_reach_the_notes():
    work = next(work for work in book.works() if work.work_id == "ode_to_joy")
    starts, pitches = {}, {}
    for name, tempo, key in (("plain", 1.0, 0), ("fast", 1.25, 0), ("high", 1.0, 3)):
        played = arrangement.perform(
            np.random.default_rng(0),
            work,
            _plain(work, tempo_factor=tempo, key_shift=key, rubato=0.0, seconds=29.0),
        )
        (lead,) = [events for instrument, _, events in played.players if instrument == "violin"]
        starts[name] = np.array([event.start for event in lead[:30]])
        pitches[name] = np.array([event.pitch for event in lead[:30]])
    np.testing.assert_allclose(np.diff(starts["plain"][:4]), 60 / 126, atol=1e-9)  # Q:1/4=126
    np.testing.assert_allclose(np.diff(starts["plain"]), 1.25 * np.diff(starts["fast"]), atol=1e-9)
    assert set((pitches["high"] - pitches["plain"]) % 12) == {3}


def test_rubato_keeps_the_tempo_as_a_whole():
    work = book.works()[0]
    ends = []
    for rubato in (0.0, 0.06):
        played = arrangement.perform(
            np.random.default_rng(1), work, _plain(work, rubato=rubato, tempo_factor=1.0)
        )
        ends.append(played.seconds)
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)


@pytest.mark.slow
def test_key_shift_is_heard():
    """Mean chroma of a cover, rotated by key_shift, fits the original's best."""
    work = next(work for work in book.works() if work.work_id == "petzold_minuet")
    chroma = []
    for key in (0, 3):
        plan = _plain(
            work, key_shift=key, tempo_factor=1.0, drums="", substitution=0.0, thinning=0.0
        )
        played = arrangement.perform(np.random.default_rng(0), work, plan)
        rng, size = np.random.default_rng(0), 10 * synth.SAMPLE_RATE
        mix = np.zeros(size, np.float32)
        for instrument, _, events in played.players:
            mix += synth.play(
                rng, instrument, [event for event in events if event.start < 9], samples=size
            )
        heard = synth.record(rng, mix, plan.room)
        chroma.append(
            librosa.feature.chroma_stft(y=heard, sr=synth.SAMPLE_RATE, n_fft=4096, tuning=0.0).mean(
                axis=1
            )
        )
    fits = [float(np.corrcoef(chroma[0], np.roll(chroma[1], -shift))[0, 1]) for shift in range(12)]
    assert int(np.argmax(fits)) == 3


@pytest.fixture(scope="module")
def rendered():
    pairs = [("yankee_doodle", "orig"), ("greensleeves", "cov1")]
    return {pair: book.render(*pair, seed=0) for pair in pairs}


def test_samples_are_sane(rendered):
    for samples in rendered.values():
        assert samples.dtype == np.float32
        assert 30 <= len(samples) / book.SAMPLE_RATE <= 45
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() < 1
        assert -30 < 20 * np.log10(np.sqrt(np.mean(samples**2))) < -12
        frames = samples[: len(samples) // 8_000 * 8_000].reshape(-1, 8_000)
        assert (np.abs(frames).max(axis=1) > 1e-5).all()  # no digital silence


def test_same_seed_same_samples(rendered):
    again = book.render("greensleeves", "cov1", seed=0)
    assert np.array_equal(again, rendered["greensleeves", "cov1"])
    assert not np.array_equal(book.render("greensleeves", "cov1", seed=1)[:80_000], again[:80_000])


def test_covers_differ_from_their_original():
    for work in book.works():
        original, close, *others = book.arrangements(work, seed=0)
        assert (original.key_shift, original.tempo_factor) == (0, 1)
        families = [synth.INSTRUMENTS[plan.lead].family for plan in (original, close, *others)]
        assert (
            families[0] == families[1]
        )  # cov1: a band like the original's, the same key, near its tempo
        assert len(set(families)) == 3
        assert (close.key_shift, close.chords, close.pattern) == (
            0,
            original.chords,
            original.pattern,
        )
        assert 0.9 <= close.tempo_factor <= 1.1
        assert close.room != original.room
        assert all(0.78 <= plan.tempo_factor <= 1.28 for plan in others)
    covers = [plan for work in book.works() for plan in book.arrangements(work, seed=0)[1:]]
    assert 0.45 < np.mean([plan.key_shift != 0 for plan in covers]) < 0.65


def test_unknown_names():
    with pytest.raises(ValueError, match=r"work_id must be one of oh_susanna, .*got 'x'"):
        book.render("x", "orig", seed=0)
    with pytest.raises(ValueError, match=r"version must be one of orig, .*got 'x'"):
        book.render("oh_susanna", "x", seed=0)


@pytest.fixture
def short(monkeypatch):
    """Renders noise of a second instead of music, and counts."""
    calls = []

    def render(work_id, version, *, seed):
        calls.append((work_id, version))
        return np.random.default_rng(seed).uniform(-0.1, 0.1, book.SAMPLE_RATE).astype(np.float32)

    monkeypatch.setattr(book, "render", render)
    return calls


def test_write_and_go_on(tmp_path, short):
    manifest = book.write(tmp_path, seed=3, workers=1, progress=False)
    assert len(short) == 80
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == book.COLUMNS
    assert [row["path"] for row in rows[:2]] == ["oh_susanna_orig.flac", "oh_susanna_cov1.flac"]
    assert len({row["recording_id"] for row in rows}) == 80
    for work in book.works():
        mine = [row for row in rows if row["work_id"] == work.work_id]
        assert [row["role"] for row in mine] == ["original", "cover", "cover", "cover"]
        assert {row["genre"] for row in mine} == {work.genre}
        for row, plan in zip(mine, book.arrangements(work, seed=3), strict=True):
            assert (int(row["key_shift"]), float(row["tempo_factor"])) == (
                plan.key_shift,
                plan.tempo_factor,
            )
    info = soundfile.info(tmp_path / rows[5]["path"])
    assert (info.samplerate, info.channels, info.subtype, info.duration) == (
        16_000,
        1,
        "PCM_16",
        1.0,
    )
    assert {path.suffix for path in tmp_path.iterdir()} == {
        ".flac",
        ".csv",
    }  # nothing partial is left

    short.clear()
    (tmp_path / "fur_elise_cov2.flac").write_bytes(b"cut short")
    (tmp_path / "blue_danube_orig.flac").unlink()
    book.write(tmp_path, seed=3, workers=1, progress=False)
    assert short == [("fur_elise", "cov2"), ("blue_danube", "orig")]
    short.clear()
    book.write(tmp_path, seed=4, workers=1, progress=False)
    assert len(short) == 80  # another seed is another corpus


@pytest.mark.slow
def test_workers_do_not_change_a_sample(tmp_path, rendered):
    """A process of its own makes the same file as this one."""
    job = ("yankee_doodle", "orig", 0, "tag", tmp_path)
    assert list(book._record_all([job, ("greensleeves", "cov1", *job[2:])], 2)) == [None, None]
    for pair in (job[:2], ("greensleeves", "cov1")):
        samples, _ = soundfile.read(tmp_path / f"{pair[0]}_{pair[1]}.flac", dtype="int16")
        assert np.abs(samples - np.rint(rendered[pair].astype(float) * 32767)).max() <= 1
        soundfile.write(tmp_path / "here.flac", rendered[pair], book.SAMPLE_RATE, "PCM_16")
        assert np.array_equal(samples, soundfile.read(tmp_path / "here.flac", dtype="int16")[0])
