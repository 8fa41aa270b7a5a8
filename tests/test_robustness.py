"""The plan, the summary and the script, on what can be counted by hand and on the songbook."""

import itertools
import json
import sys
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import soundfile

from experiments import audfprint
from seqhash import songbook
from seqhash.config import override
from seqhash.export import export_hasher, load_hasher
from seqhash.index.identify import Match
from seqhash.robustness import cells, degrade, run, systems
from seqhash.robustness.systems import SAMPLE_RATE, Learned, Outside, Philips
from tests.processes import run_module

CLEAN = degrade.Degradation("clean", "clean", 0.0, partial(degrade.gain, decibels=0.0))


def _match(recording, score, offset=0.0, start=0.0):
    return Match(recording, "", "", start, start + 1, offset, 0, 0.0, score)


@dataclass(frozen=True)
class Ears:
    """Knows each recording by its level, and hears its offset: a system whose answers are known."""

    name: str = "ears"
    description: str = "test"
    bytes_per_second: float = 1.0
    default_score: float = 2.0
    late: float = 0.0

    def add(self, recordings):
        return [float(one.max()) for one in recordings]

    def candidates(self, index, clips):
        answers = []
        for clip in clips:
            nearest = int(np.argmin(np.abs(np.array(index) - clip.max())))
            score = 3.0 if abs(index[nearest] - clip.max()) < 1e-6 else 1.0
            answers.append(
                [_match(nearest, score, float(clip[:2].min() / clip.max()) * 100 + self.late)]
            )
        return answers

    def bit_errors(self, index, clip, places):
        return [abs(index[recording] - float(clip.max())) for recording, _ in places]


def _recordings():
    """Rising lines: the first sample of a clip says where it was cut; the levels differ."""
    time = np.arange(100 * SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE / 100
    return [
        ((1 + i) / 40 * np.where(np.arange(len(time)) % 2, 1, time)).astype(np.float32)
        for i in range(12)
    ]


@pytest.fixture(scope="module")
def cell():
    plan = cells.make_plan([f"w{i}" for i in range(12)], queries=40, left_out=0.34, seed=1)
    recordings, system = _recordings(), Ears()
    indexes = {"ears": system.add([recordings[i] for i in plan.indexed])}
    late = Ears("late", late=0.7)
    indexes["late"] = indexes["ears"]
    made = cells.run_cell(
        [system, late],
        indexes,
        recordings,
        plan,
        seconds=3,
        reported=CLEAN,
        calibrating=CLEAN,
        seed=0,
    )
    return made, plan


def test_the_plan_keeps_the_works_apart():
    works = [f"w{i // 2}" for i in range(40)]
    plan = cells.make_plan(works, queries=100, left_out=0.2, seed=0)
    kinds = [
        {works[p.recording] for p in places}
        for places in (plan.present, plan.absent, plan.calibration)
    ]
    assert not kinds[0] & kinds[1]
    assert not kinds[0] & kinds[2]
    assert not kinds[1] & kinds[2]
    assert len(kinds[1]) == len(kinds[2]) == 2
    counts = np.bincount([p.recording for p in plan.present])
    assert counts[list(plan.indexed)].min() >= 100 // len(plan.indexed)
    assert plan == cells.make_plan(works, queries=100, left_out=0.2, seed=0)
    with pytest.raises(ValueError, match="Three works"):
        cells.make_plan(["a", "b"], queries=1, left_out=0.1, seed=0)


def test_a_cell_asks_all_systems_the_same_and_judges_offsets(cell):
    made, plan = cell
    assert made["ears"]["recording"] == made["late"]["recording"]
    assert len(made["ears"]["hit"]) == len(plan.present)
    assert all(made["ears"]["hit"] + made["ears"]["near"] + made["late"]["hit"])
    assert not any(made["late"]["near"])  # 0.7 s late
    assert set(made["ears"]["absent"]) == {1.0}


def test_bit_errors_are_against_a_clips_own_place_and_anothers(cell):
    made, _ = cell
    assert 40 <= len(made["ears"]["bit_error_true"]) == len(made["ears"]["bit_error_random"]) <= 120
    assert max(made["ears"]["bit_error_true"]) < 1e-6
    assert np.mean(made["ears"]["bit_error_random"]) > 1 / 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["philips", "ours"])
def test_bit_errors_of_real_codes(name):
    system = Philips() if name == "philips" else Learned(name, "test", load_hasher("paper-128"))
    recordings = [
        songbook.render(work.work_id, "orig", seed=0)[: 20 * SAMPLE_RATE]
        for work in songbook.works()[:3]
    ]
    index = system.add(recordings)
    begin = 7.06  # between two codes
    clip = recordings[1][round(begin * SAMPLE_RATE) :][: 3 * SAMPLE_RATE]
    own, late, other, past = system.bit_errors(
        index, clip, [(1, begin), (1, begin + 5), (2, begin), (2, 60.0)]
    )
    assert own < 0.12
    assert min(late, other) > own + 0.1
    assert past == 1.0  # there is nothing to compare with


def _projection(**changes):
    """A hasher of other numbers: random projection of the MFCC segment."""
    packaged = load_hasher("paper-128")
    config = override(packaged.config, {key.replace("_", ".", 1): v for key, v in changes.items()})
    return systems.projection(replace(packaged, config=config)).hasher


GRID = {  # sample rate, hop, bits, frames of a segment (1 to 2 s)
    "8 kHz": {"mfcc_sample_rate": 8_000, "mfcc_high_hz": 4_000, "segment_frames": 50},
    "8 kHz, 10 ms": {
        "mfcc_sample_rate": 8_000, "mfcc_frame_length": 200, "mfcc_frame_step": 80,
        "mfcc_high_hz": 4_000, "segment_hop": 10, "model_hidden_size": 32,
    },
    "22 kHz": {"mfcc_sample_rate": 22_050, "segment_hop": 50, "model_hidden_size": 512},
    "half a second": {"segment_frames": 50, "segment_hop": 10, "model_hidden_size": 64},
    "two seconds": {"segment_frames": 200, "segment_hop": 50},
    "hop of 32": {"segment_hop": 32, "model_hidden_size": 96},
}  # fmt: skip


@pytest.fixture(scope="module")
def works():
    """The first 20 s of six works."""
    names = [work.work_id for work in songbook.works()[:6]]
    return [songbook.render(name, "orig", seed=0)[: 20 * SAMPLE_RATE] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "hop of 32" else pytest.mark.slow) for name in GRID],
)
def test_any_hasher_is_asked_at_its_own_rate(name, works):
    """Clean clips are found, and where they are in seconds; too short ones have no answer."""
    system = Learned("grid", "test", _projection(**GRID[name]))
    plan = cells.make_plan(list("abcdef"), queries=8, left_out=0.34, seed=0)
    plan = plan._replace(absent=(), calibration=())
    works = [one[: 12 * SAMPLE_RATE] for one in works]  # later, one is played again from its start
    index = system.add([works[i] for i in plan.indexed])
    seconds = np.diff(index.collection.starts) / system.hasher.code_rate
    assert seconds == pytest.approx(12, abs=2.1)
    asked = {"seconds": 5, "reported": CLEAN, "calibrating": CLEAN, "seed": 0}
    cell = cells.run_cell([system], {"grid": index}, works, plan, **asked)["grid"]
    assert all(cell["hit"])
    assert all(cell["near"])
    assert np.mean(cell["bit_error_true"]) < 0.15
    assert np.mean(cell["bit_error_random"]) > 0.25
    (found,) = system.candidates(index, [works[plan.indexed[2]][6 * SAMPLE_RATE :][:80_320]])
    assert found[0].recording == 2
    assert found[0].offset - found[0].start == pytest.approx(6, abs=0.1)
    assert found[0].end == pytest.approx(5, abs=1 / system.hasher.code_rate + 0.1)
    short = np.ones(SAMPLE_RATE // 4, np.float32)
    assert system.candidates(index, [short]) == [[]]
    assert system.bit_errors(index, short, [(0, 0.0)]) == []


@pytest.mark.slow
def test_the_published_forms_have_doors(works):
    """Philips as published looks up with flipped bits and answers by its bit error rate."""
    hasher = load_hasher("paper-128")
    made = {name: systems.named(name, hasher) for name in systems.NAMED}
    assert [one.name for one in made.values()] == ["paper-128", *list(made)[1:]]
    with pytest.raises(ValueError, match=r"Unknown system 'philip'; there are hasher, .*philips"):
        systems.named("philip", hasher)
    recordings, absent = works[:3], works[4][: 4 * SAMPLE_RATE]
    clip = recordings[1][5 * SAMPLE_RATE :][: 4 * SAMPLE_RATE]
    for name in ("philips-paper", "philips-transposed", "shazam-paper", "shazam-sparse"):
        system = made[name]
        found, other = system.candidates(system.add(recordings), [clip, absent])
        assert found[0].recording == 1, name
        assert found[0].offset - found[0].start == pytest.approx(5, abs=0.03), name
        assert found[0].score >= system.default_score, name
        assert all(match.score < system.default_score for match in other), name
    paper = made["philips-paper"]
    assert paper.default_score == -0.35
    (found,) = paper.candidates(paper.add(recordings), [clip])
    assert [match.score for match in found] == [-match.bit_error_rate for match in found]
    assert made["shazam-sparse"].bytes_per_second == 480
    pitched = degrade.registry()["pitch_-2"].apply(np.random.default_rng(0), clip)
    first = [
        made[name].candidates(made[name].add(recordings), [pitched])[0][0].score
        for name in ("philips", "philips-transposed")
    ]
    assert first[0] < 2 < first[1]


def test_the_summary_counts(cell):
    made, _ = cell
    made = {name: dict(values) for name, values in made.items()}
    half = len(made["ears"]["hit"]) // 2
    made["ears"]["hit"] = [True] * half + [False] * (len(made["ears"]["hit"]) - half)
    made["ears"]["absent"] = [2.5, 1.0, None, 3.0]
    made["ears"]["calibration"] = [2.9] * 100
    made["ears"]["score"] = [3.0] * (half // 2) + [2.0] * (len(made["ears"]["hit"]) - half // 2)
    rows = cells.summarise({("clean", 3.0): made}, [Ears(), Ears("late")])
    row = rows[0]
    assert row["hit"] == pytest.approx(0.5)
    assert row["hit_low"] < 0.5 < row["hit_high"]
    assert row["false_positive"] == pytest.approx(0.5)
    assert row["hit_at_1_percent_false"] == pytest.approx(half // 2 / len(made["ears"]["hit"]))
    assert [r["system"] for r in rows] == ["ears", "late"]
    (difference,) = cells.differences({("clean", 3.0): made}, [Ears(), Ears("late")])
    assert difference["value"] == pytest.approx(-0.5)


def test_a_cell_of_no_clips_is_summed_up_too():
    """A length that no recording has, beside one that it has."""
    plan = cells.make_plan(["a", "b", "c"], queries=4, left_out=0.3, seed=0)
    recordings, system = [one[: 4 * SAMPLE_RATE] for one in _recordings()[:3]], Ears()
    index = {"ears": system.add([recordings[i] for i in plan.indexed])}
    names = ("white_noise_20db", "white_noise_10db")
    made = {
        (name, seconds): cells.run_cell(
            [system], index, recordings, plan,
            seconds=seconds, reported=CLEAN, calibrating=CLEAN, seed=0,
        )
        for name in names for seconds in (0.5, 10)
    }  # fmt: skip
    rows = cells.summarise(made, [system])
    assert [row["queries"] for row in rows] == [4, 4, 0, 0]
    assert np.isnan(rows[2]["hit"])
    (half,) = cells.half_found(rows, degrade.registry())
    assert half["length"] == 0.5
    assert cells.differences(made, [system, system])[1]["length"] == 10
    assert cells.histograms(made, [system])["ears"]["true"]


@pytest.mark.slow
def test_half_is_found_between_two_ratios():
    def row(snr, hit):
        return {"system": "a", "length": 3, "degradation": f"white_noise_{snr}db", "hit": hit}

    found = cells.half_found([row(10, 0.9), row(0, 0.1), row(5, 0.7)], degrade.registry())
    assert found == [
        {
            "system": "a",
            "noise": "white noise",
            "length": 3,
            "snr_db": pytest.approx(10 / 3),
            "note": "",
        }
    ]
    (never,) = cells.half_found([row(10, 0.4), row(0, 0.1)], degrade.registry())
    assert never["snr_db"] is None
    assert "fewer" in never["note"]


def test_a_clip_without_room_or_sound_is_left_out():
    place = cells.Place(0, 0.5)
    assert (
        cells.cut(np.ones(SAMPLE_RATE, np.float32), place, seconds=3, degradation=CLEAN, seed=0)
        is None
    )
    assert (
        cells.cut(
            np.zeros(9 * SAMPLE_RATE, np.float32), place, seconds=3, degradation=CLEAN, seed=0
        )
        is None
    )
    faster = degrade.registry()["speed_+4%"]
    clip, begin = cells.cut(
        np.ones(9 * SAMPLE_RATE, np.float32), place, seconds=3, degradation=faster, seed=0
    )
    assert len(clip) == pytest.approx(3.02 * SAMPLE_RATE, abs=2)
    assert begin == pytest.approx((9 - 3.02 * 1.04) / 2, abs=0.01)


def test_an_outside_program_answers_by_csv(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import csv, sys\n"
        "references, clips, answers = (sys.argv[i] for i in (1, 2, 3))\n"
        "first = open(references).read().split()[1]\n"
        "with open(answers, 'w', newline='') as file:\n"
        "    rows = csv.writer(file)\n"
        "    rows.writerow(['clip', 'track', 'offset', 'score'])\n"
        "    rows.writerow([open(clips).read().split()[0], first, '12.5', '7'])\n"
    )
    command = f"{sys.executable} {program} {{references}} {{clips}} {{answers}}"
    system = Outside("mine", command, str(tmp_path / "folder"))
    index = system.add([np.zeros(100, np.float32), np.ones(100, np.float32) / 2])
    found = system.candidates(index, [np.zeros(50, np.float32)] * 2)
    assert [(m.recording, m.offset, m.score) for m in found[0]] == [(1, 12.5, 7.0)]
    assert found[1] == []
    broken = Outside(
        "broken", f"{sys.executable} -c 'raise SystemExit(4)' {{clips}}", str(tmp_path / "folder")
    )
    with pytest.raises(ValueError, match=r"broken.*ended with 4"):
        broken.candidates(index, [np.zeros(50, np.float32)])
    for answer in (
        "clip,track,offset,score\nelse.wav,x,1,2\n",
        "clip,offset\nx,1\n",
        "clip,track,offset,score\n,,,\n",
    ):
        (tmp_path / "answer.csv").write_text(answer)
        wrong = Outside(
            "wrong", f"cp {tmp_path / 'answer.csv'} {{answers}}", str(tmp_path / "folder")
        )
        with pytest.raises(ValueError, match="wrong: line 2 of its answers"):
            wrong.candidates(index, [np.zeros(50, np.float32)])


@pytest.mark.parametrize("name", ["references", "clips", "folder", "answers"])
def test_only_the_known_names_of_a_command_are_replaced(tmp_path, name):
    """Programs have braces of their own: awk '{print $1}', ${HOME}, {clip}."""
    command = f"printf '%s' '{{print $1}} {{0}} {{}} {{clip}} {{' ${{X}} {{{name}}} >&2; exit 4"
    system = Outside("awk", command, str(tmp_path))
    with pytest.raises(ValueError, match=r"ended with 4: \{print \$1\} \{0\} \{\} \{clip\} \{/"):
        system.candidates(system.add([np.ones(9, np.float32)]), [np.zeros(9, np.float32)])


def test_an_answer_that_is_no_number_is_named(tmp_path):
    command = "echo clip,track,offset,score >{answers}; paste -d, {clips} {references} | "
    command += "awk '{print $1 \",1,nan\"}' >>{answers}"
    system = Outside("nan", command, str(tmp_path))
    index = system.add([np.zeros(50, np.float32)])
    with pytest.raises(ValueError, match=r"nan: line 2 of its answers.*must be finite"):
        system.candidates(index, [np.zeros(50, np.float32)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("command", "must be NAME=COMMAND"),
        ("=x {clips} {answers}", "must be NAME=COMMAND"),
        ("a/b=x {clips} {answers}", "must be NAME=COMMAND"),
        ("mine=", "must be NAME=COMMAND"),
        ("mine=x {clip} {answers}", "the command must have {clips} in it"),
        ("mine=x {references}", "the command must have {clips} and {answers} in it"),
    ],
)
def test_an_outside_command_that_could_not_answer_is_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        systems.outside(text, tmp_path)


@pytest.mark.skipif(audfprint.missing(None) is not None, reason=str(audfprint.missing(None)))
def test_audfprint_finds_what_it_was_given(tmp_path):
    recordings = [songbook.render(work.work_id, "orig", seed=0) for work in songbook.works()[:3]]
    system = audfprint.system(
        tmp_path / "a folder", None
    )  # it answers in prose, from which names are parsed
    index = system.add(recordings[:2])
    second = 10 * SAMPLE_RATE
    clips = [
        recordings[1][second : 2 * second],
        np.zeros(200, np.float32),
        recordings[2][second : 2 * second],
    ]
    found, nothing, absent = system.candidates(index, clips)
    assert found[0].recording == 1
    assert found[0].score >= system.default_score
    assert found[0].offset == pytest.approx(10, abs=0.1)
    assert nothing == []
    assert all(match.score < system.default_score for match in absent)


def test_audfprint_says_why_it_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"has no audfprint.py"):
        audfprint.system(tmp_path, str(tmp_path))


def _task(folder, **changes):
    """A task on three works, with the sounds in a folder; without bad.wav what is heard is well."""
    corpus = folder / "corpus"
    for number in range(3):
        _write(corpus / f"{number}.wav", (1 + number) * _recordings()[1][:SAMPLE_RATE])
    return run.Task(
        corpus=str(corpus), noise=None, rooms=None, hasher="paper-128", systems=("philips",),
        queries=3, left_out=0.1, distractor_codes=0, seed=0,
    )._replace(**changes)  # fmt: skip


def _write(path, samples):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE)


@pytest.mark.slow
def test_distractors_are_other_music_and_made_up_music_and_a_clip_is_found_among_them(works):
    """Of what is made up many are of one work: they are not each other's strangers."""
    system = Learned("bands", "test", load_hasher("semitone-32"))
    own, other = system.add(works[:3]), system.add(works[3:4]).collection.words
    index = systems.with_distractors(system, own, [other], codes=20 * len(other), seed=0)
    rows, starts, words = index.rows, index.collection.starts, index.collection.words
    assert len(words) - len(own.collection.words) == pytest.approx(20 * len(other), rel=0.06)
    np.testing.assert_array_equal(words[starts[3] : starts[4]], other)
    assert {row.work for row in rows[4:]} == {row.work for row in rows[:4]}
    pairs = [(a, b) for a, b in itertools.pairwise(starts) if b - a == starts[1]]
    same = [np.bitwise_count(words[a:b] ^ words[: starts[1]]).sum() for a, b in pairs]
    assert same[0] == 0
    assert min(same[1:]) > 0.4 * 32 * starts[1]  # no copies
    clip = works[1][8 * SAMPLE_RATE : 11 * SAMPLE_RATE]
    (best, *_), = system.candidates(index, [clip])  # fmt: skip
    assert best.recording == 1
    assert best.score > 4


def test_other_music_is_put_into_the_indexes_of_hashers(tmp_path):
    folder = tmp_path / "others"
    _write(folder / "1.wav", _recordings()[3][: 5 * SAMPLE_RATE])
    (folder / "2.wav").write_text("no sound")
    task = _task(tmp_path, distractors=str(folder))
    found = run.survey(task)
    assert [path.name for path in found.distractors] == ["1.wav"]
    assert [path.name for path, _ in found.skipped] == ["2.wav"]
    assert found.digest != run.survey(task._replace(distractors=None)).digest


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["noise", "rooms"])
@pytest.mark.parametrize("bad", ["none", "silent", "text"])
def test_two_noises_and_two_rooms_are_needed(tmp_path, flag, bad):
    """One list serves what is reported and the thresholds; what cannot be read is in neither."""
    listed = tmp_path / flag
    _write(listed / "1.wav", np.linspace(0, 0.5, 100))
    if bad == "silent":
        _write(listed / "2.wav", np.zeros(100))
    if bad == "text":
        (listed / "2.wav").write_text("no sound")
    task = _task(tmp_path, **{flag: str(listed)})
    total = 1 if bad == "none" else 2
    with pytest.raises(ValueError, match=f"--{flag} must name at least two .* got 1 of {total} in"):
        run.survey(task)
    _write(listed / "3.wav", np.linspace(0, 0.25, 200))
    found = run.survey(task)
    sounds = found.noises if flag == "noise" else found.rooms
    assert [[len(one) for one in half] for half in sounds] == [[200], [100]]
    assert [path.name for path, _ in found.skipped] == ([] if bad == "none" else ["2.wav"])


@pytest.mark.slow
def test_the_survey_keeps_no_samples_and_knows_the_audio_by_its_content(tmp_path):
    task = _task(tmp_path)
    found = run.survey(task)
    assert found.counts() == {"indexed": 1, "left_out": 2}
    assert found.loudest == found.plan.indexed[0]
    (tmp_path / "corpus").rename(tmp_path / "moved")
    moved = task._replace(corpus=str(tmp_path / "moved"))
    again = run.survey(moved)
    assert (again.digest, again.plan) == (found.digest, found.plan)
    assert run._key(moved, again) == run._key(task, found)
    _write(tmp_path / "moved" / "1.wav", _recordings()[5][:SAMPLE_RATE])
    other = run.survey(moved)
    assert other.plan == found.plan
    assert run._key(moved, other) != run._key(task, found)
    assert run._key(moved._replace(seed=1), again) != run._key(moved, again)
    (tmp_path / "moved" / "1.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"Three works that can be read .* got 2\."):
        run.survey(moved)


def test_a_hasher_exported_anew_to_the_same_folder_is_another(tmp_path):
    task = _task(tmp_path, hasher=str(tmp_path / "hasher"), systems=("hasher",))
    found, keys = run.survey(task), []
    hasher = load_hasher("paper-128")
    for mean in (hasher.statistics.mean, hasher.statistics.mean + 1):
        statistics = hasher.statistics._replace(mean=mean)
        export_hasher(replace(hasher, statistics=statistics), tmp_path / "hasher", card="")
        keys.append(run._key(task, found))
    assert keys[0] != keys[1]


@pytest.mark.slow
def test_cells_are_others_where_works_are_shared_otherwise_or_noises_are_rooms(tmp_path):
    task, manifest = _task(tmp_path), tmp_path / "corpus.csv"
    _write(tmp_path / "corpus" / "3.wav", _recordings()[4][:SAMPLE_RATE])
    for name in "12":
        _write(tmp_path / "sounds" / f"{name}.wav", np.linspace(0, 0.5, 100))

    def key(last="v,original", **changes):
        lines = [f"corpus/{i}.wav,w{i},original" for i in range(3)]
        manifest.write_text("\n".join(["path,work_id,role", *lines, f"corpus/3.wav,{last}"]))
        changed = task._replace(corpus=str(manifest), **changes)
        return run._key(changed, run.survey(changed))

    sounds = str(tmp_path / "sounds")
    assert key() == key()
    assert len({key(), key("w0,cover"), key(noise=sounds), key(rooms=sounds)}) == 4


def test_a_hasher_by_another_name_has_cells_of_its_own(tmp_path):
    """Its answers stand under its name."""
    task, hasher = _task(tmp_path, systems=("hasher",)), load_hasher("paper-128")
    found = run.survey(task)
    export_hasher(replace(hasher, name="mine"), tmp_path / "mine", card="")
    export_hasher(hasher, tmp_path / "same", card="")
    key = run._key(task, found)
    assert run._key(task._replace(hasher=str(tmp_path / "same")), found) == key
    assert run._key(task._replace(hasher=str(tmp_path / "mine")), found) != key


def test_systems_have_different_names(tmp_path):
    assert len(run.contestants(_task(tmp_path, systems=("shazam", "philips", "shazam")))) == 2
    other = Outside("philips", "x", "y")
    with pytest.raises(ValueError, match="different names, got philips twice"):
        run.contestants(_task(tmp_path, systems=("philips", other)))


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_the_script_writes_the_contract(tmp_path_factory, again):
    folder = tmp_path_factory.getbasetemp() / "robustness"
    folder.mkdir(exist_ok=True)
    if not again:
        lines = ["path"]
        for work in songbook.works()[:4]:
            soundfile.write(
                folder / f"{work.work_id}.flac",
                songbook.render(work.work_id, "orig", seed=0),
                SAMPLE_RATE,
            )
            lines.append(f"{work.work_id}.flac")
        (folder / "list.csv").write_text("\n".join(lines) + "\n")
    flags = f"--corpus={folder / 'list.csv'} --workdir={folder / 'w'}"
    flags += " --queries=6 --lengths=2,2.5 --workers=1"
    flags += " --degradations=clean,telephone --systems=hasher"
    done = run_module("experiments.robustness", *flags.split())
    assert done.status == 0, done.err[-2000:]
    made = {path.name: path.stat().st_mtime_ns for path in (folder / "w" / "cells").iterdir()}
    assert len(made) == 4
    if again:  # measures nothing anew
        assert made == json.loads((folder / "made.json").read_text())
    (folder / "made.json").write_text(json.dumps(made))
    result = json.loads((folder / "w" / "robustness.json").read_text())
    assert {(row["system"], row["degradation"]) for row in result["rows"]} == {
        (system, name) for system in ("semitone-32",) for name in ("clean", "telephone")
    }
    contract = (
        "system degradation length queries hit hit_low hit_high near hit_at_1_percent_false "
        "false_positive bit_error_true bit_error_random bytes_per_second ms_per_query"
    )
    assert set(result["rows"][0]) == set(contract.split())
    clean = {row["system"]: row["hit"] for row in result["rows"] if row["degradation"] == "clean"}
    assert clean["semitone-32"] >= 0.8
    assert (folder / "w" / "report.html").is_file()


@pytest.mark.slow
def test_what_one_system_alone_finds_can_be_played(tmp_path):
    task = _task(tmp_path, hasher="semitone-32", systems=("hasher", "bits", "philips"), queries=9)
    found = run.survey(task)
    recordings = [place.recording for place in found.plan.present]
    alone = [i == 4 for i in range(len(recordings))]
    none = [False] * len(recordings)
    ours = {"recording": recordings, "hit": alone, "score": [9.0] * len(recordings)}
    cell = {"semitone-32": ours, "bits": ours, "philips": ours | {"hit": none}}
    (tmp_path / "examples").mkdir()
    query, place = run.found_by_one(task, found, {("gain_-20db", 0.5): cell}, tmp_path)
    assert query["said"].startswith("only semitone-32 finds it, of 0.5 s: ")
    assert found.paths[recordings[4]].stem in query["said"]
    degraded, clean = (soundfile.read(tmp_path / one["path"])[0] for one in (query, place))
    np.testing.assert_allclose(degraded, 0.1 * clean, atol=2e-4)
    begin = float(query["said"].rsplit(" ", 2)[1])  # to a tenth of a second
    whole = soundfile.read(found.paths[recordings[4]])[0]
    places = range(max(0, round((begin - 0.05) * SAMPLE_RATE)), len(whole) - len(clean) + 1)
    assert min(np.abs(whole[i : i + len(clean)] - clean).max() for i in places) < 1e-3
    both = cell | {"philips": ours}
    assert run.found_by_one(task, found, {("gain_-20db", 0.5): both}, tmp_path) == []


def test_a_field_of_a_hasher_of_bands_may_be_another():
    hasher = load_hasher("semitone-32")
    half = systems.named("hasher:patch.hop=4", hasher)
    assert (half.name, half.bytes_per_second) == ("semitone-32 patch.hop=4", 32)
    samples = _recordings()[1][: 3 * SAMPLE_RATE : 2]
    np.testing.assert_array_equal(
        half.hasher.hash_samples(samples), hasher.hash_samples(samples)[::2]
    )
    with pytest.raises(ValueError, match=r"patch\.hops"):
        systems.named("hasher:patch.hops=4", hasher)
