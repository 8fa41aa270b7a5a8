r"""What each part of a hasher of bands is worth: one change at a time, each trained and measured.

    python -m experiments.ablate_pairs --corpus=runs/material/manifest.csv \
        --noise=runs/material/noise.csv --test_corpus=choosing.csv --workdir=runs/parts \
        --change=patch.frames=17 --change=encoder.kind=lstm --change=pairs.soft=0

Trains the base and each change by ``experiments.train_pairs``, then asks all of them, and the
controls that learned nothing, the same degraded clips of other recordings. A change is a
comma-separated list of fields. Writes WORKDIR/ablation.json and ablation.md: hits in the mean of
the cells, and their difference from the base, paired over recordings. A run that was stopped goes
on by the same command.

Expect 2 to 5 minutes a kernel, three times that for an lstm, and some minutes to ask them all.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from seqhash import metrics, parallel
from seqhash.robustness import cells, degrade, report, run, systems

from . import script

_CORPUS = flags.DEFINE_string("corpus", None, "recordings to train on", required=True)
_NOISE = flags.DEFINE_string("noise", None, "noises to train with", required=True)
_LEAVE_OUT = flags.DEFINE_string("leave_out", "", "as train_pairs has it")
_TEST_CORPUS = flags.DEFINE_string("test_corpus", None, "recordings to ask for", required=True)
_TEST_NOISE = flags.DEFINE_string("test_noise", None, "noises to ask in; default: synthesised")
_TEST_ROOMS = flags.DEFINE_string("test_rooms", None, "rooms to ask in; default: synthesised")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of hashers and results", required=True)
_CHANGE = flags.DEFINE_multi_string(
    "change", [], "comma-separated changes of one row, as patch.frames=17; repeatable"
)
_SET = flags.DEFINE_multi_string("set", [], "change of the base, for all rows; repeatable")
_CLOSED_FORM = flags.DEFINE_boolean("closed_form", True, "train_pairs --closed_form as a control")
_CONTROLS = flags.DEFINE_list(
    "controls",
    "unweighted,as it is,bits,untrained,projection",
    f"systems beside them, of {', '.join(systems.NAMED)}",
)
_DEGRADATIONS = flags.DEFINE_list(
    "degradations", "noise_0db,noise_-5db,white_noise_0db,room,mix_0db,bar", "names"
)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "of a clip", 0.1)
_QUERIES = flags.DEFINE_integer("queries", 200, "of each cell", lower_bound=1)
_LEFT_OUT = flags.DEFINE_float("left_out", 0.4, "share of the works not in the index", 0.0, 0.5)
_WORKERS = flags.DEFINE_integer("workers", None, "processes; default: the cores", lower_bound=1)


def main() -> int:
    """Trains what is missing, measures, prints the table; returns the exit status."""
    workdir, names = Path(_WORKDIR.value), degrade.chosen(_DEGRADATIONS.value)
    changes = ["", *_CHANGE.value, *(["closed form"] if _CLOSED_FORM.value else [])]
    folders = [_trained(workdir / "hashers", change) for change in changes]
    task = run.Task(
        corpus=_TEST_CORPUS.value,
        noise=_TEST_NOISE.value,
        rooms=_TEST_ROOMS.value,
        hasher=str(folders[0]),
        systems=("hasher", *map(str, folders[1:]), *_CONTROLS.value),
        queries=_QUERIES.value,
        left_out=_LEFT_OUT.value,
        distractor_codes=0,
        seed=0,
    )
    contestants, survey = run.contestants(task), run.survey(task)
    script.report_failures(survey.skipped)
    wanted = [(name, _SECONDS.value) for name in names]
    workers = _WORKERS.value or parallel.cores()
    measured = run.measure(task, survey, workdir / "cells", wanted, workers=workers)
    rows = cells.summarise(measured, contestants)
    result = {
        "command": script.command("ablate_pairs"),
        "recordings": survey.counts(),
        "systems": {system.name: _summary(system, rows, measured) for system in contestants},
        "base": contestants[0].name,
        "rows": rows,
    }
    script.write_json(workdir / "ablation.json", result)
    shown = report.ablation(result)
    (workdir / "ablation.md").write_text(shown + "\n")
    print(shown)
    return 0


def _trained(folder: Path, change: str) -> Path:
    """The hasher of a change, which is trained where it is not there."""
    name = change or "base"
    directory = folder / re.sub(r"[^\w.=+-]+", "_", name)
    closed = change == "closed form"
    fields = [*_SET.value, *([] if closed else filter(None, change.split(",")))]
    arguments = [f"--name={name}", f"--corpus={_CORPUS.value}", f"--noise={_NOISE.value}"]
    arguments += [f"--leave_out={_LEAVE_OUT.value}", f"--closed_form={str(closed).lower()}"]
    arguments += [f"--set={field}" for field in fields]
    return script.trained("train_pairs", arguments, directory)


def _summary(
    system: systems.System,
    rows: Sequence[Mapping[str, Any]],
    measured: Mapping[tuple[str, float], Any],
) -> dict[str, Any]:
    """A system in the mean of the cells, and its hits beyond those of the first one."""
    own = [row for row in rows if row["system"] == system.name]
    first = next(iter(measured.values()))
    base = next(name for name in first if isinstance(first[name], dict) and "hit" in first[name])
    hits = {name: _pooled(measured, name, "hit") for name in (base, system.name)}
    value, low, high = metrics.paired_difference(
        hits[system.name],
        hits[base],
        np.ones(len(hits[base])),
        groups=[str(i) for i in _pooled(measured, base, "recording")],
    )
    return {
        "hit": float(np.mean([row["hit"] for row in own])),
        "hit_at_1_percent_false": float(np.mean([row["hit_at_1_percent_false"] for row in own])),
        "beyond_base": {"value": value, "low": low, "high": high},
        "bytes_per_second": system.bytes_per_second,
    }


def _pooled(measured: Mapping[tuple[str, float], Any], system: str, field: str) -> np.ndarray:
    return np.concatenate([np.asarray(cell[system][field]) for cell in measured.values()])


if __name__ == "__main__":
    script.run(main, more_of="set", resumes=True)
