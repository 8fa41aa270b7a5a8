"""Training by pairs as a user calls it: a process of its own, on files of seconds."""

import json

import numpy as np
import pytest
import soundfile

import seqhash
from tests.processes import Ended, run_module
from tests.test_pairs import tune
from tests.test_scripts import script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tunes and a file that is no audio in music/, noise in noise/, something in other/."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("music", "noise", "other", "short"):
        (folder / name).mkdir()
    for i in range(3):
        soundfile.write(folder / "music" / f"{i}.wav", tune(3, i), 8_000)
    (folder / "music" / "broken.wav").write_text("no audio at all")
    lines = [f"{i}.wav,CC0,{source}" for i, source in enumerate(("a", "b", "b"))]
    manifest = ["path,licence,source", *lines, "broken.wav,CC0,a", ""]
    (folder / "music" / "music.csv").write_text("\n".join(manifest))
    noise = np.random.default_rng(0).normal(0, 0.1, 30_000)
    soundfile.write(folder / "noise" / "noise.flac", noise, 16_000)
    soundfile.write(folder / "short" / "short.wav", tune(0.5, 0), 8_000)
    (folder / "other" / "thesis.txt").write_text("years of work")
    return folder


def train(folder, *more: str, music: str = "music/music.csv", directory: str = "mine") -> Ended:
    paths = [f"--corpus={folder / music}", f"--noise={folder / 'noise'}", "--noprogress"]
    where = [f"--directory={folder / directory}", "--name=mine"]
    small = ["--set", "pairs.steps=2", "pairs.batch_size=8", "pairs.seconds=0.6"]
    return script("train_pairs", *paths, *where, *small, *more)


def test_a_hasher_is_trained_exported_and_described(folder):
    done = train(folder, "patch.bits=32", "--leave_out=a")
    assert done.status == 0, done.err
    hasher = seqhash.load_hasher(folder / "mine")
    assert f"{folder / 'mine'}: loss " in done.out
    assert hasher.digest[:12] in done.out
    assert (hasher.name, hasher.bits, hasher.config.pairs.steps) == ("mine", 32, 2)
    assert hasher.hash_samples(tune(2, 7)).shape[1] == 1
    rows = json.loads((folder / "mine" / "losses.json").read_text())
    assert [row["step"] for row in rows] == [2]
    card = (folder / "mine" / "README.md").read_text()
    assert card.startswith("# mine\n")
    assert hasher.digest in card
    assert "on 2 recordings (0.0 h) and 1 noises" in card
    assert "Licences of the recordings: CC0." in card
    command = (
        f"    python -m experiments.train_pairs --corpus={folder / 'music/music.csv'} --noise="
    )
    assert command in card  # the paths as they were typed
    assert "--set pairs.steps=2 pairs.batch_size=8" in card
    weights = (folder / "mine" / "weights.npz").read_bytes()

    again = train(folder, "--leave_out=a")  # replaces it, by the same bits
    assert (again.status, again.out) == (0, done.out)
    assert (folder / "mine" / "weights.npz").read_bytes() == weights


def test_what_cannot_be_read_is_listed(folder):
    rooms = folder / "rooms"
    rooms.mkdir()
    soundfile.write(rooms / "room.wav", np.exp(-np.arange(900) / 200), 8_000)
    (rooms / "ruin.wav").write_text("no audio at all")
    done = train(folder, f"--rooms={rooms}", directory="all")
    assert done.status == 0
    assert "broken.wav" in done.err
    assert "ruin.wav" in done.err
    assert "on 3 recordings" in (folder / "all" / "README.md").read_text()


@pytest.mark.parametrize(
    ("where", "more", "said"),
    [
        ({"music": "nowhere"}, [], "nowhere: no such file or folder"),
        ({"music": "short"}, [], "needs recordings of 1.3 s that sound, got none"),
        ({"directory": "other"}, [], "other: holds something else than a hasher"),
        ({}, ["pairs.stepz=2"], "pairs.stepz"),
        ({}, ["pairs.batch_size=0"], "pairs.batch_size"),
        ({}, ["--rooms=nowhere.csv"], "nowhere.csv"),
    ],
)
def test_bad_input_ends_in_one_line(folder, where, more, said):
    done = train(folder, *more, **where)
    assert (done.status, done.out) == (2, "")
    (line,) = [line for line in done.err.splitlines() if not line.startswith("skipped ")]
    assert line.startswith("error: ")
    assert said in line
    assert [path.name for path in (folder / "other").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["train_pairs", "collect"])
def test_nothing_given_is_told_what_is_needed(name):
    done = run_module(f"experiments.{name}")
    assert done.status != 0
    assert "Traceback" not in done.err


def test_one_change_at_a_time_is_trained_and_asked(folder, tmp_path):
    asked = tmp_path / "asked"
    asked.mkdir()
    for i in range(4):
        soundfile.write(asked / f"{i}.wav", tune(8, 10 + i), 8_000)
    flags = [
        f"--corpus={folder / 'music/music.csv'}", f"--noise={folder / 'noise'}",
        f"--test_corpus={asked}", f"--workdir={tmp_path / 'parts'}", "--degradations=clean",
        "--queries=4", "--workers=1", "--noclosed_form", "--controls=unweighted",
        "--change=patch.frames=9", "--set", "pairs.steps=2", "pairs.batch_size=8",
        "pairs.seconds=0.6",
    ]  # fmt: skip
    done = script("ablate_pairs", *flags)
    assert done.status == 0, done.err
    result = json.loads((tmp_path / "parts" / "ablation.json").read_text())
    assert list(result["systems"]) == ["base", "patch.frames=9", "unweighted"]
    assert done.err.count("training: ") == 2
    again = script("ablate_pairs", *flags)
    assert (again.status, again.out) == (0, done.out)
    assert "training: " not in again.err
