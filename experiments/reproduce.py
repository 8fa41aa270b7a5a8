r"""What the package can do, and the whole paper in order: a corpus, its features, 40 epochs of
training, the table, the figures, an exported hasher.

    python -m experiments.reproduce --workdir=runs/demo     # the built-in songbook (make demo)
    python -m experiments.reproduce --workdir=runs/mine --corpus=covers.csv     # covers of your own
    python -m experiments.reproduce --workdir=runs/mine --corpus=covers.csv \
        --training_corpus=music.csv

The songbook is first indexed, and clips and covers are found by the packaged hashers
(``experiments.show``); then the paper's model is trained. Each stage is a command of its own,
printed before it runs; what is done is not done again, so a killed run goes on by the same command.

Expect 10 minutes for the songbook and 14 for 1.86 h of audio on 2 cores with AVX-512, twice that on
slow ones without, and accuracies of 5 and 8 % (songbook), 7 to 10 and 15 to 18 % (real covers) at 1
and 9 hashes; chance is 5 %, the paper reports 10.42 and 20.28, the untrained LSTM has as much
(docs/results.md).
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from seqhash import corpus, evaluate, files, paper, songbook, tables
from seqhash.config import Config, override

from . import script

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "folder of the run")
_CORPUS = flags.DEFINE_string(
    "corpus", None, "manifest of covers (.csv); default: the built-in songbook"
)
_TRAINING_CORPUS = flags.DEFINE_string(
    "training_corpus", None, "manifest or folder to train on instead of --corpus"
)
_SET = flags.DEFINE_multi_string(
    "set", [], "change of the config, as model.hidden_size=256; any number"
)
_EXPORT = flags.DEFINE_string(
    "export", None, "also export the hasher under this name, to WORKDIR/NAME"
)

COVER_HASHER = "harmony-120"  # of the package, measured beside the paper's model


def main() -> int:
    """Runs every stage; returns the first exit status that is not 0."""
    started, workdir = time.monotonic(), Path(_WORKDIR.value)
    manifest = _CORPUS.value or str(songbook.write(workdir / "songbook"))
    found = corpus.recordings(manifest)
    corpus.require_covers(found)  # an error now, not after hours of training
    evaluate.splits([recording for recording in found if recording.role == "cover"])
    override(Config(), _SET.value)
    changes = [f"--set={change}" for change in _SET.value]
    features = [change for change in changes if change.startswith("--set=mfcc.")]
    where = f"--workdir={workdir}"
    beside = workdir / COVER_HASHER
    stages = [
        ["evaluate", f"--hasher={COVER_HASHER}", f"--corpus={manifest}", f"--workdir={beside}"],
        ["prepare", where, f"--corpus={_TRAINING_CORPUS.value or manifest}", *features],
        ["train", where, *changes],
        ["evaluate", where, f"--corpus={manifest}"],
    ]
    if _EXPORT.value:
        made_by = shlex.join(["python", "-m", f"{__package__}.reproduce", *sys.argv[1:]])
        named = [
            f"--directory={workdir / _EXPORT.value}",
            f"--name={_EXPORT.value}",
            f"--made_by={made_by}",
        ]
        stages.append(["export", where, *named])
    if _CORPUS.value is None:
        stages.insert(0, ["show", where])
    for name, *arguments in stages:
        command = [sys.executable, "-m", f"{__package__}.{name}", *arguments]
        print("$", shlex.join(["python", *command[1:]]), flush=True)
        status = subprocess.run(command, check=False).returncode
        if status:
            print(f"error: {name} ended with status {status}", file=sys.stderr)
            return status
    _compare_with_paper(*(files.read_json(folder / "results.json") for folder in (workdir, beside)))
    minutes = (time.monotonic() - started) / 60
    print(f"Done in {minutes:.1f} minutes. Pictures: {workdir / 'figures'}")
    return 0


def _compare_with_paper(result: dict[str, Any], versions: dict[str, Any]) -> None:
    """The paper's own table, ours beside it, and the package's hasher of works."""
    rows, accuracy, other = (
        result["training"]["epochs"], result["cover_accuracy"], versions["cover_accuracy"],
    )  # fmt: skip
    shares = [
        ("accuracy, 1 hash (1 s)", paper.ACCURACY[1], accuracy["1"], other["1"]),
        ("accuracy, 9 hashes (3 s)", paper.ACCURACY[9], accuracy["9"], other["9"]),
    ]
    first, second, last = (f"{row['train_loss']:.3f}" for row in (*rows[:2], rows[-1]))
    collisions = (paper.COLLISION_RATE, result["collision_rate"], versions["collision_rate"])
    table = [
        ["", "paper", "here", COVER_HASHER],
        *(
            [name, *map(_percent, (reported, here["value"], there["value"]))]
            for name, reported, here, there in shares
        ),
        ["collision rate", *map(_percent, collisions)],
        ["loss before training; mean of epoch 1", f"{paper.FIRST_LOSS}", f"{first}; {second}", ""],
        [f"loss, epoch {rows[-1]['epoch']}", f"{paper.LAST_LOSS}", last, ""],
    ]
    print(f"\n{tables.text(table, left=1)}")


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.2f} %"


if __name__ == "__main__":
    script.run(main, more_of="set", resumes=True)
