r"""Who still finds it: systems x degradations x lengths, with false answers, intervals and an HTML
report.

    python -m experiments.robustness --corpus=music.csv --workdir=runs/robustness
        [--noise=N.csv --rooms=R.csv]
    python -m experiments.robustness --corpus=music.csv --workdir=runs/quick --quick  # 5 minutes

Every system is asked the same clips. Two fifths of the works are left out of the index: one half
of them says how often a system answers falsely, the other sets the scores for 1 % false answers,
with noises and rooms of their own (every other one of the lists, or other synthesised ones). Writes
WORKDIR/robustness.json, WORKDIR/report.html and pictures. A run that was stopped goes on by the
same command. About an hour for 60 recordings, 500 queries and 2 cores.
"""

import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from seqhash import files, parallel
from seqhash.evaluate import versions
from seqhash.export import DEFAULT
from seqhash.robustness import cells, degrade, report, run, systems

from . import audfprint, script

DEFAULT_DEGRADATIONS = (
    "clean,white_noise_10db,white_noise_5db,white_noise_0db,noise_10db,noise_5db,noise_0db,"
    "noise_-5db,mix_0db,room,mp3_16k,opus_8k,gsm,telephone,speed_+2%,tempo_+5%,pitch_+1,bar"
)
QUICK_DEGRADATIONS = "clean,white_noise_0db,noise_5db,noise_0db,room,gsm,telephone,speed_+2%"
DEFAULT_SYSTEMS, QUICK_SYSTEMS = (
    "hasher,untrained,projection,philips,shazam",
    "hasher,philips,shazam",
)
DEFAULT_LENGTHS, QUICK_LENGTHS = "1,2,3,5,10", "1,3"

_CORPUS = flags.DEFINE_string("corpus", None, "manifest or folder of recordings", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the results", required=True)
_NOISE = flags.DEFINE_string("noise", None, "manifest or folder of noises; default: synthesised")
_ROOMS = flags.DEFINE_string(
    "rooms", None, "manifest or folder of room impulse responses; default: synthesised"
)
_SYSTEMS = flags.DEFINE_list(
    "systems",
    None,
    f"of {', '.join(systems.NAMED)}, hasher:FIELD=VALUE (as hasher:patch.hop=4) and, where it is "
    "installed, audfprint (slow); default: " + DEFAULT_SYSTEMS,
)
_AUDFPRINT = flags.DEFINE_string(
    "audfprint", None, "folder of audfprint.py; default: the package audfprint2"
)
_OUTSIDE = flags.DEFINE_multi_string(
    "outside", [], "NAME=COMMAND: an outside program, see seqhash/robustness/systems.py"
)
_DEGRADATIONS = flags.DEFINE_list("degradations", None, "names; all of them: --degradations=all")
_LENGTHS = flags.DEFINE_list("lengths", None, f"of the queries, seconds; default {DEFAULT_LENGTHS}")
_QUERIES = flags.DEFINE_integer("queries", None, "of each cell; default 500", lower_bound=1)
_HASHER = flags.DEFINE_string("hasher", DEFAULT, "of the package, or an exported one")
_LEFT_OUT = flags.DEFINE_float(
    "left_out", 0.4, "share of the works that is not in the index", 0.0, 0.5
)
_DISTRACTORS = flags.DEFINE_string(
    "distractors", None, "manifest or folder of other music, put into the hashers' indexes"
)
_DISTRACTOR_CODES = flags.DEFINE_integer(
    "distractor_codes", 0, "codes more in the hashers' indexes, made up where the other music ends",
    lower_bound=0,
)  # fmt: skip
_QUICK = flags.DEFINE_bool("quick", False, "8 degradations, 1 and 3 s, 60 queries, three systems")
_WORKERS = flags.DEFINE_integer("workers", None, "processes; default: the cores", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the places and the degradations")


def main() -> int:
    """Measures, summarises, draws; returns the exit status."""
    begun, workdir = time.perf_counter(), Path(_WORKDIR.value)
    lengths = _seconds(_LENGTHS.value or _default(DEFAULT_LENGTHS, QUICK_LENGTHS))
    names = _DEGRADATIONS.value or _default(DEFAULT_DEGRADATIONS, QUICK_DEGRADATIONS)
    names = degrade.chosen(names)
    programs = workdir / "outside"
    chosen: list[str | systems.Outside] = [
        audfprint.system(programs, _AUDFPRINT.value) if name == "audfprint" else name
        for name in _SYSTEMS.value or _default(DEFAULT_SYSTEMS, QUICK_SYSTEMS)
    ]
    task = run.Task(
        corpus=_CORPUS.value,
        noise=_NOISE.value,
        rooms=_ROOMS.value,
        hasher=_HASHER.value,
        systems=(*chosen, *(systems.outside(text, programs) for text in _OUTSIDE.value)),
        queries=_QUERIES.value or (60 if _QUICK.value else 500),
        left_out=_LEFT_OUT.value,
        distractor_codes=_DISTRACTOR_CODES.value,
        seed=_SEED.value,
        distractors=_DISTRACTORS.value,
    )
    contestants, survey = run.contestants(task), run.survey(task)
    script.report_failures(survey.skipped)
    degradations = run.reported(survey)
    workdir.mkdir(parents=True, exist_ok=True)
    measured = run.measure(
        task,
        survey,
        workdir / "cells",
        [(name, length) for length in lengths for name in names],
        workers=_WORKERS.value or parallel.cores(),
    )
    rows = cells.summarise(measured, contestants)
    result = {
        "command": script.command("robustness"),
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": time.perf_counter() - begun,
        "settings": task._asdict()
        | {"systems": [one if isinstance(one, str) else one.command for one in task.systems]}
        | {"lengths": lengths, "recordings": survey.counts()},
        "systems": {
            system.name: {
                "description": system.description,
                "bytes_per_second": system.bytes_per_second,
            }
            for system in contestants
        },
        "degradations": {
            name: {
                "family": degradations[name].family,
                "strength": degradations[name].strength,
                "description": degrade.described(degradations[name]),
            }
            for name in names
        },
        "rows": rows,
        "half_found_snr": cells.half_found(rows, degradations),
        "histograms": cells.histograms(measured, contestants),
        "differences": cells.differences(measured, contestants),
        "examples": [
            *run.examples(survey, [degradations[name] for name in names], workdir, seed=task.seed),
            *run.found_by_one(task, survey, measured, workdir),
        ],
        "skipped": [[str(path), reason] for path, reason in survey.skipped],
    }
    path = workdir / "robustness.json"
    script.write_json(path, result)
    result = files.read_json(path)  # as a reader of the file sees it
    print(report.table(result))
    print(f"Report: {report.html(result, workdir)}; numbers: {path}")
    return 0


def _default(full: str, quick: str) -> list[str]:
    return (quick if _QUICK.value else full).split(",")


def _seconds(values: Sequence[str]) -> list[float]:
    """The lengths, each once; ValueError names the flag."""
    try:
        lengths = [float(value) for value in values]
    except ValueError:
        lengths = []
    if not lengths or not all(0 < length < math.inf for length in lengths):
        raise ValueError(f"--lengths must be seconds, as 0.5,1,3, got {','.join(values)!r}.")
    return [int(length) if length.is_integer() else length for length in dict.fromkeys(lengths)]


if __name__ == "__main__":
    script.run(main, resumes=True)
