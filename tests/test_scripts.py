"""The scripts as a user calls them: processes of their own, on a corpus of seconds, in one shared
workdir.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import seqhash
from experiments import tables
from tests.processes import ENVIRONMENT, QUICKLY, ROOT, Ended, run_module, run_with_forks

pytestmark = pytest.mark.slow

TINY = [
    f"--set={change}"
    for change in (
        "model.hidden_size=32",
        "train.epochs=2",
        "train.batch_size=16",
        "train.validation_fraction=0.2",
    )
]
HEADER = "path,recording_id,work_id,role,genre,title,key_shift\n"
VERSIONS = (  # file type, sample rate, seconds, role, genre, semitones
    ("wav", 16_000, 6.0, "original", "country", 0),
    ("flac", 22_050, 6.5, "cover", "country", 0),
    ("ogg", 44_100, 7.0, "cover", "classical", 5),
)
CODES = (
    20,
    22,
    24,
)  # of 6, 6.5 and 7 s: ceil((samples - 400) / 160) + 1 frames, 100 a segment, one every 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two works of twelve tones each in covers/, a third and a fourth in others/, and the files of
    all scripts.
    """
    folder = tmp_path_factory.mktemp("scripts")
    rows = [row for work in (0, 1) for row in write_work(folder / "covers", work)]
    (folder / "covers" / "covers.csv").write_text(HEADER + "".join(rows))
    others = [row for work in (2, 3) for row in write_work(folder / "others", work)]
    columns = [",".join(np.array(row.split(","))[[0, 2, 3]]) for row in others]
    (folder / "others" / "others.csv").write_text("\n".join(["path,work_id,role", *columns]) + "\n")
    return folder


def write_work(folder: Path, work: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(work)
    notes, rows = rng.integers(48, 72, 12), []
    for suffix, rate, seconds, role, genre, shift in VERSIONS:
        time = np.arange(round(seconds * rate)) / rate
        frequency = 440 * 2 ** ((notes[(12 * time / seconds).astype(int)] + shift - 69) / 12)
        tones = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.1 * np.sin(
            4 * np.pi * frequency * time
        )
        name = f"work{work}_{suffix}"
        soundfile.write(
            folder / f"{name}.{suffix}", tones + 0.01 * rng.standard_normal(len(time)), rate
        )
        rows.append(f"{name}.{suffix},{name},work{work},{role},{genre},Work {work},{shift}\n")
    return rows


def script(name: str, *arguments: str, run=run_module) -> Ended:
    """script("train", "--workdir=...", ...): what the process ended with. Bad input or good, never
    a traceback.
    """
    done = run(f"experiments.{name}", *arguments, **QUICKLY)
    assert "Traceback" not in done.err, done.err[-3000:]
    return done


@pytest.fixture(scope="module")
def reproduced(folder) -> tuple[Path, Ended]:
    """The workdir that reproduce made, every stage of it, and what it said."""
    workdir = folder / "run"
    done = script(
        "reproduce",
        f"--workdir={workdir}",
        f"--corpus={folder / 'covers/covers.csv'}",
        "--export=mine",
        *TINY,
    )
    assert done.status == 0, done.err[-3000:]
    return workdir, done


@pytest.fixture
def copied(reproduced, tmp_path) -> Path:
    """A workdir of one's own, for what would change the shared one."""
    return shutil.copytree(reproduced[0], tmp_path / "run")


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob(pattern))
        if p.is_file()
    }


def strict_json(path: Path):
    def refuse(constant):
        raise AssertionError(f"{path.name} holds {constant}, which is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("prepare", "corpus workdir set workers strict"),
        (
            "train",
            "workdir set resident_gigabytes checkpoint_seconds distributed coordinator progress "
            "evaluate_every",
        ),
        ("evaluate", "workdir corpus hasher lengths resamples"),
        ("export", "workdir directory name made_by"),
        ("ablate", "workdir change seeds set"),
        ("reproduce", "workdir corpus training_corpus set export"),
        ("show", "workdir corpus clips"),
        ("train_covers", "directory name works seed set progress"),
        ("compose", "works versions seed directory"),
        ("ablate_covers", "corpus workdir change set"),
        ("train_pairs", "corpus noise rooms directory name leave_out set progress"),
        ("collect", "workdir packages against midi_seconds songbook seed workers strict"),
    ],
)
def test_help_names_the_flags(name, flags):
    done = script(name, "--help")
    assert f"python -m experiments.{name}" in done.out
    for flag in flags.split():
        assert f"--{flag}:" in done.out.replace("[no]", "")


def test_reproduce_runs_every_stage_and_compares_with_the_paper(reproduced):
    workdir, done = reproduced
    commands = [line.split()[3] for line in done.out.splitlines() if line.startswith("$ python")]
    assert commands == [
        f"experiments.{name}" for name in ("evaluate", "prepare", "train", "evaluate", "export")
    ]
    assert "6 prepared, 0 already there, 0 failed" in done.out
    result = strict_json(workdir / "results.json")
    measured = f"{100 * result['cover_accuracy']['9']['value']:.2f}"
    line = next(
        line for line in done.out.splitlines() if line.startswith("accuracy, 9 hashes (3 s)")
    )
    assert line.split()[-6:-2] == ["20.28", "%", measured, "%"]


def test_train_wrote_its_metrics_and_config(reproduced):
    workdir, done = reproduced
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all(
        math.isfinite(row[name])
        for row in rows
        for name in ("train_loss", "validation_loss", "collision_rate")
    )
    assert [f"epoch {n:3d}" in done.out for n in range(4)] == [True, True, True, False]
    config = strict_json(workdir / "config.json")
    assert (config["model.hidden_size"], config["train.epochs"], config["mfcc.coeffs"]) == (
        32,
        2,
        13,
    )
    assert is_picture(workdir / "figures" / "training.png")


def test_results_have_the_table_the_floors_and_how_it_was_made(reproduced):
    workdir, _ = reproduced
    result = strict_json(workdir / "results.json")
    assert list(result["cover_accuracy"]) == ["1", "9", "17", "37"]
    for n, accuracy in result["cover_accuracy"].items():
        windows = 2 * sum(max(0, codes - int(n) + 1) for codes in CODES[1:])
        assert accuracy["windows"] == windows
        if windows:
            assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
        else:
            assert (accuracy["value"], accuracy["low"], accuracy["high"]) == (None, None, None)
    assert result["unique_rate"] * 2 * sum(CODES) == pytest.approx(
        round(result["unique_rate"] * 2 * sum(CODES))
    )
    assert 0 <= result["collision_rate"] <= 1
    floors = {
        "chance",
        "trained, threshold median",
        "untrained LSTM",
        "random projection",
        "PCA-sign",
        "random codes",
    }
    assert set(result["floors"]) == floors
    assert result["floors"]["chance"]["cover_accuracy"]["1"]["value"] == 0.5
    assert result["config"] == strict_json(workdir / "config.json")
    assert {"python", "jax", "numpy"} <= set(result["versions"])
    printed = tables.keep(result, "paper-songbook")["paper"].splitlines()
    assert printed[3].startswith("| trained, threshold zero ")
    assert result["corpus"] == {"recordings": 6, "originals": 2, "covers": 4, "works_left_out": []}
    assert result["training"]["setting"] == "trained on the recordings evaluated"
    for name in ("mfcc", "pca", "accuracy", "bits"):
        assert is_picture(workdir / "figures" / f"{name}.png")


def test_export_loads_and_its_card_has_the_table(reproduced, folder):
    workdir, _ = reproduced
    hasher = seqhash.load_hasher(workdir / "mine")
    samples, rate = soundfile.read(folder / "covers" / "work0_wav.wav", dtype="float32")
    assert rate == hasher.config.mfcc.sample_rate
    assert hasher.hash_samples(samples).shape == (CODES[0], 1)
    card = (workdir / "mine" / "README.md").read_text()
    assert card.startswith("# mine\n")
    assert hasher.digest in card
    assert f"    python -m experiments.reproduce --workdir={workdir} --corpus=" in card
    for row in ("| mine ", "| untrained LSTM ", "| random codes ", "Trained minus untrained LSTM"):
        assert row in card


def test_numbers_of_another_model_are_not_in_the_card(copied):
    """The run goes back to its first epoch, as if results.json were of a later or earlier
    checkpoint.
    """
    newest = max((copied / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    done = script("export", f"--workdir={copied}", f"--directory={copied / 'mine'}", "--name=mine")
    assert (done.status, "results.json: of another model" in done.err) == (0, True)
    card = (copied / "mine" / "README.md").read_text()
    assert "Trained for 1 of 2 epochs" in card
    command = f"    python -m experiments.train --workdir={copied}"
    assert f"{command} --set=model.hidden_size=32 --set=train.epochs=2" in card
    assert card.endswith("Not evaluated.\n")
    done = script("evaluate", f"--workdir={copied}", "--resamples=10")
    assert "epoch 1 of 2: not finished\n" in done.out
    training = strict_json(copied / "results.json")["training"]
    assert [row["epoch"] for row in training["epochs"]] == [0, 1]
    assert set(training["loss"]) == {"0", "1"}


def test_export_leaves_a_folder_alone_that_is_no_hasher(reproduced, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = script("export", f"--workdir={reproduced[0]}", f"--directory={tmp_path}", "--name=mine")
    assert (done.status, [path.name for path in tmp_path.iterdir()]) == (2, ["thesis.txt"])
    assert "something else than a hasher" in done.err


def test_run_again_nothing_is_made_anew_and_other_covers_are_told_apart(copied, folder):
    def made():
        return (
            contents(copied, "*.npy")
            | contents(copied / "checkpoints", "*")
            | contents(copied, "metrics.jsonl")
        )

    before, config = made(), (copied / "config.json").read_bytes()
    corpora = [
        f"--training_corpus={folder / 'covers/covers.csv'}",
        f"--corpus={folder / 'others/others.csv'}",
    ]
    several = [change.removeprefix("--set=") for change in TINY]
    done = script(
        "reproduce", f"--workdir={copied}", "--set", *several, *corpora, run=run_with_forks
    )
    assert done.status == 0, done.err[-3000:]
    assert "0 prepared, 6 already there, 0 failed" in done.out
    assert "epoch   1 " not in done.out
    assert "All 2 epochs were trained before" in done.out
    after = made()
    assert len(before) > 10
    assert {name: after.get(name) for name in before} == before
    assert (copied / "config.json").read_bytes() == config
    assert "Setting: trained only on other recordings." in done.out
    assert strict_json(copied / "results.json")["training"]["recordings"] == 6


def test_a_bad_file_is_listed_and_with_strict_it_is_the_exit_status(folder, tmp_path):
    (folder / "covers" / "broken.wav").write_text("no audio at all")
    manifest = folder / "covers" / "one_bad.csv"
    manifest.write_text("path\nwork0_wav.wav\nbroken.wav\nwork1_ogg.ogg\n")
    done = script("prepare", f"--corpus={manifest}", f"--workdir={tmp_path}")
    assert (done.status, done.out) == (0, "2 prepared, 0 already there, 1 failed\n")
    assert "skipped" in done.err
    assert "broken.wav" in done.err
    done = script("prepare", f"--corpus={manifest}", f"--workdir={tmp_path}", "--strict")
    # A damaged file may have been used before, so all are read anew, once.
    assert (done.status, done.out) == (3, "2 prepared, 0 already there, 1 failed\n")
    done = script("prepare", f"--corpus={manifest}", f"--workdir={tmp_path}", "--strict")
    assert (done.status, done.out) == (3, "0 prepared, 2 already there, 1 failed\n")
    manifest.write_text("path\nbroken.wav\n")
    done = script("prepare", f"--corpus={manifest}", f"--workdir={tmp_path / 'none'}")
    assert (done.status, done.out) == (2, "0 prepared, 0 already there, 1 failed\n")
    assert "holds no recording that can be used" in done.err


def test_prepare_refuses_what_features_do_not_depend_on(folder, tmp_path):
    run = tmp_path / "run"
    command = ["prepare", f"--corpus={folder / 'covers/covers.csv'}", f"--workdir={run}"]
    done = script(*command, "--set=mfcc.coeffs=20", "--set=segment.hop=50")
    assert (done.status, done.out, run.exists()) == (2, "", False)
    assert (
        "--set=segment.hop=50: features depend on the fields mfcc.* only; give this to train."
        in done.err
    )


def test_all_that_is_wrong_with_a_manifest_is_told_at_once(folder, tmp_path):
    manifest = folder / "covers" / "wrong.csv"
    rows = [
        "work0_wav.wav,a,w,original",
        "lost.wav,b,w,cover",
        "work0_flac.flac,c,w,copy",
        "work1_wav.wav,d,w",
    ]
    manifest.write_text("\n".join(["path,recording_id,work_id,role", *rows]) + "\n")
    done = script("prepare", f"--corpus={manifest}", f"--workdir={tmp_path / 'run'}")
    assert (done.status, done.out) == (2, "")
    for line in (3, 4, 5):
        assert f"wrong.csv:{line}: " in done.err
    assert "wrong.csv:2" not in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set=model.size=64"], ["model.size", "model.hidden_size", "train.seed"]),
        ([*TINY, "--set=train.seed=7"], ["train.seed", "7", "another workdir"]),
        ([*TINY, "--set=mfcc.coeffs=20"], ["mfcc.coeffs=20", "run prepare"]),
        ([*TINY, "stray"], ["'stray'", "--help"]),
    ],
    ids=["unknown field", "another config", "other features", "stray argument"],
)
def test_train_refuses_what_does_not_fit_the_workdir(reproduced, arguments, says):
    workdir, _ = reproduced
    before = contents(workdir, "*.json*")
    done = script("train", f"--workdir={workdir}", *arguments)
    assert (done.status, done.out) == (2, "")
    for words in says:
        assert words in done.err
    assert contents(workdir, "*.json*") == before


def test_train_diverging_ends_in_a_sentence(copied):
    shutil.rmtree(copied / "checkpoints")
    explosive = [
        "--set=train.learning_rate=1e30",
        "--set=train.optimizer=sgd",
        "--set=train.clip_norm=0",
    ]
    done = script("train", f"--workdir={copied}", *TINY, *explosive, "--noprogress")
    assert done.status == 2
    assert "train.learning_rate" in done.err


def test_train_stopped_by_ctrl_c_says_so_and_goes_on(copied):
    shutil.rmtree(copied / "checkpoints")
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        f"--workdir={copied}",
        *TINY,
        "--set=train.epochs=100000",
    ]
    environment, pipe = os.environ | ENVIRONMENT | QUICKLY, subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert any(
                line.startswith("epoch   1 ") for line in process.stdout
            )  # as soon as it trains
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "stopped; the same command goes on where it was" in err
    assert "Traceback" not in err


def test_evaluate_needs_roles_and_the_features_of_the_training(copied, folder):
    done = script("evaluate", f"--workdir={copied}", f"--corpus={folder / 'others'}")
    assert done.status == 2
    assert "Cover accuracy needs a manifest with the columns work_id and role" in done.err
    again = script(
        "prepare",
        f"--workdir={copied}",
        f"--corpus={folder / 'covers/covers.csv'}",
        "--set=mfcc.lifter=0",
    )
    assert again.out.startswith("6 prepared")
    done = script("evaluate", f"--workdir={copied}")
    assert done.status == 2
    assert "mfcc.lifter=22" in done.err


def test_evaluate_refuses_features_of_other_recordings_than_the_training(copied, folder):
    script("prepare", f"--workdir={copied}", f"--corpus={folder / 'others/others.csv'}")
    done = script("evaluate", f"--workdir={copied}")
    assert (done.status, done.out) == (2, "")
    assert "holds other recordings than the model was trained on; run prepare" in done.err


def test_a_copied_corpus_is_the_same_one(copied, folder, tmp_path):
    shutil.copytree(folder / "covers", tmp_path / "copy")
    corpus = f"--corpus={tmp_path / 'copy' / 'covers.csv'}"
    done = script("evaluate", f"--workdir={copied}", corpus, "--resamples=10")
    assert "Setting: trained on the recordings evaluated." in done.out, done.err[-3000:]
    assert script("prepare", f"--workdir={copied}", corpus).out.startswith("0 prepared, 6 already")
    done = script("train", f"--workdir={copied}", *TINY)
    assert "All 2 epochs were trained before" in done.out, done.err[-3000:]


def test_other_audio_under_the_same_names_is_another_corpus(copied, folder, tmp_path):
    shutil.copytree(folder / "covers", tmp_path / "covers")
    corpus = f"--corpus={tmp_path / 'covers' / 'covers.csv'}"
    script("prepare", f"--workdir={copied}", corpus)
    ablate = ["ablate", f"--workdir={copied}", "--change=", *TINY]
    assert script(*ablate).status == 0
    rows = set(copied.glob("ablation/*/row.json"))
    for other in (folder / "others").glob("work2_*"):  # as long, and now called work0
        shutil.copy(other, tmp_path / "covers" / other.name.replace("work2", "work0"))
    done = script("evaluate", f"--workdir={copied}", corpus, "--resamples=10")
    assert "Setting: trained on 3 of the 6 recordings evaluated." in done.out, done.err[-3000:]
    assert script("prepare", f"--workdir={copied}", corpus).out.startswith("3 prepared, 3 already")
    done = script("train", f"--workdir={copied}", *TINY)
    assert (done.status, "a run on other recordings" in done.err) == (2, True)
    done = script(*ablate)
    assert done.status == 0, done.err[-3000:]
    (measured,) = set(copied.glob("ablation/*/row.json")) - rows
    row = strict_json(copied / "ablation.json")["rows"][""][0]
    assert row == strict_json(measured)


def test_reproduce_looks_at_its_input_before_hours_of_training(folder, tmp_path):
    done = script("reproduce", f"--workdir={tmp_path / 'run'}", f"--corpus={folder / 'others'}")
    assert (done.status, done.out) == (2, "")
    assert "no recording has the role original" in done.err


def test_a_bad_key_shift_is_found_before_anything_is_computed(reproduced, folder, tmp_path):
    manifest = folder / "covers" / "bad_key.csv"
    manifest.write_text((folder / "covers/covers.csv").read_text().replace("Work 1,5", "Work 1,up"))
    commands = (
        ["evaluate", f"--workdir={reproduced[0]}"],
        ["reproduce", f"--workdir={tmp_path / 'new'}"],
    )
    for command in commands:
        done = script(*command, f"--corpus={manifest}")
        assert (done.status, done.out) == (2, "")
        assert "work1_ogg: key_shift must be a number, got 'up'" in done.err
    assert not (reproduced[0] / "evaluation").exists()
    assert not (tmp_path / "new").exists()


def test_ablate_makes_a_row_for_each_change_once(reproduced):
    workdir, _ = reproduced
    command = [
        "ablate",
        f"--workdir={workdir}",
        "--change=",
        "--change=model.handover=hidden_and_cell",
        *TINY,
    ]
    done = script(*command)
    assert done.status == 0, done.err[-3000:]
    table = (workdir / "ablation.md").read_text()
    assert table in done.out
    rows = [line.split("|")[1:-1] for line in table.splitlines()]
    assert [row[0].strip() for row in rows[2:]] == ["base", "model.handover=hidden_and_cell"]
    assert len({len(row) for row in rows}) == 1
    assert "nan" in rows[2][-1]  # no cover has 37 hashes
    measured = strict_json(workdir / "ablation.json")
    assert measured["base"] == strict_json(workdir / "config.json")
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert (
        measured["rows"][""][0]["collision_rate"] == last["collision_rate"]
    )  # the base is the run reproduced above
    assert measured["rows"][""][0]["accuracy_zero"]["37"] is None

    metrics = {path: path.stat().st_mtime_ns for path in workdir.glob("ablation/*/metrics.jsonl")}
    assert len(metrics) == 2
    again = script(*command)
    assert (again.status, again.out) == (0, done.out)
    assert {
        path: path.stat().st_mtime_ns for path in workdir.glob("ablation/*/metrics.jsonl")
    } == metrics

    changes = ["", "model.handover=hidden_and_cell", "code.threshold=median"]
    more = script(*command[:2], f"--change={changes[2]}", *TINY)
    assert more.out.startswith("[1/3] base, seed 0"), more.err[-3000:]
    assert list(strict_json(workdir / "ablation.json")["rows"]) == changes
    assert (workdir / "ablation.md").read_text().startswith(table)
    other = script(*command[:2], "--change=", *TINY, "--set=code.threshold=median")
    assert other.out.startswith("[1/1] base, seed 0"), other.err[-3000:]  # of another base


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--change=mfcc.coeffs=20"], "mfcc.coeffs=20"),
        (["--seeds=0,one"], "--seeds"),
    ],
    ids=["features", "seeds"],
)
def test_ablate_refuses_what_it_cannot_run(reproduced, arguments, says):
    done = script("ablate", f"--workdir={reproduced[0]}", *TINY, *arguments)
    assert (done.status, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize("name", ["train", "export"])
def test_an_empty_workdir_is_told_what_to_run_first(tmp_path, name):
    more = [f"--directory={tmp_path / 'mine'}", "--name=mine"] if name == "export" else []
    done = script(name, f"--workdir={tmp_path}", *more)
    assert done.status == 2
    assert "train first" in done.err or "prepare makes one" in done.err
    assert not list(tmp_path.iterdir())
