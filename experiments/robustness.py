r"""Who still finds it: systems x degradations x lengths, with false answers, intervals and an HTML
report.

    python -m experiments.robustness --corpus=music.csv --workdir=runs/robustness [--noise=N.csv --rooms=R.csv]
    python -m experiments.robustness --corpus=music.csv --workdir=runs/quick --quick          # 5 minutes

Every system is asked the same clips. A tenth of the works is left out of the index: one half of
them says how often a system answers falsely, the other sets the scores for 1 % false answers, with
noises and rooms of their own (every other one of the lists, or other synthesised ones). Writes
WORKDIR/robustness.json, WORKDIR/report.html and pictures. A run that was stopped goes on by the
same command. About an hour for 60 recordings, 500 queries and 2 cores.
"""

import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import audfprint, script
from seqhash import audio, corpus, digests, parallel
from seqhash.codes import Hasher
from seqhash.evaluate import versions
from seqhash.export import load_hasher
from seqhash.robustness import cells, degrade, report, systems

DEFAULT_DEGRADATIONS = (
    *(
        "clean",
        "white_noise_10db",
        "white_noise_5db",
        "white_noise_0db",
        "noise_10db",
        "noise_5db",
        "noise_0db",
    ),
    *(
        "noise_-5db",
        "mix_0db",
        "room",
        "mp3_16k",
        "opus_8k",
        "gsm",
        "telephone",
        "speed_+2%",
        "tempo_+5%",
        "pitch_+1",
    ),
    "bar",
)
QUICK_DEGRADATIONS = (
    "clean",
    "white_noise_0db",
    "noise_5db",
    "noise_0db",
    "room",
    "gsm",
    "telephone",
    "speed_+2%",
)
DEFAULT_SYSTEMS = ("hasher", "untrained", "projection", "philips", "shazam")
DISGUISED = 0.15  # bits flipped in a distractor that is a copy of another
EXAMPLE_SECONDS = 4.0

_CORPUS = flags.DEFINE_string("corpus", None, "manifest or folder of recordings", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the results", required=True)
_NOISE = flags.DEFINE_string("noise", None, "manifest or folder of noises; default: synthesised")
_ROOMS = flags.DEFINE_string(
    "rooms", None, "manifest or folder of room impulse responses; default: synthesised"
)
_SYSTEMS = flags.DEFINE_list(
    "systems", list(DEFAULT_SYSTEMS), "and, where it is installed, audfprint: slow"
)
_AUDFPRINT = flags.DEFINE_string(
    "audfprint", None, "folder of audfprint.py; default: the package audfprint2"
)
_OUTSIDE = flags.DEFINE_multi_string(
    "outside", [], "NAME=COMMAND: an outside program, see seqhash/systems.py"
)
_DEGRADATIONS = flags.DEFINE_list("degradations", None, "names; all of them: --degradations=all")
_LENGTHS = flags.DEFINE_list("lengths", None, "of the queries, whole seconds; default 1,2,3,5,10")
_QUERIES = flags.DEFINE_integer("queries", None, "of each cell; default 500", lower_bound=1)
_HASHER = flags.DEFINE_string("hasher", None, "exported hasher; default: the package's own")
_LEFT_OUT = flags.DEFINE_float(
    "left_out", 0.1, "share of the works that is not in the index", 0.0, 0.5
)
_DISTRACTORS = flags.DEFINE_integer(
    "distractor_codes", 0, "codes added to the hashers' indexes", lower_bound=0
)
_QUICK = flags.DEFINE_bool("quick", False, "8 degradations, 1 and 3 s, 60 queries, three systems")
_WORKERS = flags.DEFINE_integer("workers", None, "processes; default: the cores", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the places and the degradations")


class Task(NamedTuple):
    """What a worker needs to know; it loads the rest itself."""

    corpus: str
    noise: str | None
    rooms: str | None
    systems: tuple[str, ...]
    outside: tuple[str, ...]
    audfprint: str | None
    hasher: str | None
    queries: int
    left_out: float
    distractor_codes: int
    seed: int
    folder: str


def main() -> int:
    """Measures, summarises, draws; returns the exit status."""
    begun, workdir = time.perf_counter(), Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    quick = _QUICK.value
    chosen = tuple(_SYSTEMS.value)
    if quick and not flags.FLAGS["systems"].present:
        chosen = ("hasher", "philips", "shazam")
    lengths = script.whole_numbers(
        "lengths", _LENGTHS.value or (["1", "3"] if quick else ["1", "2", "3", "5", "10"])
    )
    task = Task(
        _CORPUS.value, _NOISE.value, _ROOMS.value, chosen, tuple(_OUTSIDE.value),
        _AUDFPRINT.value, _HASHER.value,
        _QUERIES.value or (60 if quick else 500), _LEFT_OUT.value, _DISTRACTORS.value, _SEED.value,
        str(workdir / "outside"),
    )  # fmt: skip
    loaded = _Loaded(task)
    names = list(_DEGRADATIONS.value or (QUICK_DEGRADATIONS if quick else DEFAULT_DEGRADATIONS))
    names = list(loaded.reported) if names == ["all"] else names
    unknown = [name for name in names if name not in loaded.reported]
    if unknown:
        raise ValueError(
            f"Unknown degradation {unknown[0]!r}; there are {', '.join(loaded.reported)}."
        )
    script.report_failures(loaded.skipped)
    cells = _measure(
        task, workdir / "cells", [(name, length) for length in lengths for name in names]
    )
    rows = cells.summarise(cells, loaded.systems)
    result = {
        "command": "python -m experiments.robustness " + " ".join(sys.argv[1:]),
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": time.perf_counter() - begun,
        "settings": {name: value for name, value in task._asdict().items() if name != "folder"}
        | {"lengths": list(lengths), "recordings": loaded.counts()},
        "systems": {
            system.name: {
                "description": system.description,
                "bytes_per_second": system.bytes_per_second,
            }
            for system in loaded.systems
        },
        "degradations": {name: _described(loaded.reported[name]) for name in names},
        "rows": rows,
        "half_found_snr": cells.half_found(rows, loaded.reported),
        "histograms": cells.histograms(cells, loaded.systems),
        "differences": cells.differences(cells, loaded.systems),
        "examples": _examples(loaded, names, workdir),
        "skipped": [[str(path), reason] for path, reason in loaded.skipped],
    }
    script.write_json(workdir / "robustness.json", result)
    result = json.loads(
        (workdir / "robustness.json").read_text()
    )  # as a reader of the file sees it
    print(report.table(result))
    print(f"Report: {report.html(result, workdir)}; numbers: {workdir / 'robustness.json'}")
    return 0


def _described(degradation: degrade.Degradation) -> dict[str, Any]:
    family, strength = degradation.family, degradation.strength
    parts = " + ".join(degrade.CHAINS.get(degradation.name, ()))
    return {
        "family": family,
        "strength": strength,
        "description": parts or f"{family}, {strength:g}",
    }


class _Loaded:
    """Recordings, degradations, systems and (in a worker) their indexes."""

    def __init__(self, task: Task) -> None:
        self.task = task
        hasher = load_hasher(task.hasher or "paper-128")
        self.systems = [_system(name, hasher, task) for name in task.systems]
        for text in task.outside:
            name, _, command = text.partition("=")
            if not command:
                raise ValueError(f"--outside must be NAME=COMMAND, got {text!r}.")
            self.systems.append(systems.Outside(name, command, str(Path(task.folder) / name)))
        listed = corpus.recordings(task.corpus)
        read = [(recording, _read(recording.path)) for recording in listed]
        self.skipped = [
            (recording.path, found) for recording, found in read if isinstance(found, str)
        ]
        kept = [(recording, found) for recording, found in read if not isinstance(found, str)]
        self.samples = [samples for _, samples in kept]
        works = [recording.work or recording.id for recording, _ in kept]
        self.plan = cells.make_plan(
            works, queries=task.queries, left_out=task.left_out, seed=task.seed
        )
        (noise, other_noise), (rooms, other_rooms) = (
            self._halves(task.noise),
            self._halves(task.rooms),
        )
        self.reported = degrade.registry(noise, rooms)
        self.calibrating = degrade.registry(
            other_noise or degrade.synthetic_noises(1),
            other_rooms or degrade.synthetic_rooms(1),
            degrade.synthetic_music(1),
        )
        self.indexes: dict[str, Any] = {}

    def _halves(
        self, listed: str | None
    ) -> tuple[list[np.ndarray] | None, list[np.ndarray] | None]:
        """Of noises or rooms: the second, fourth ... for what is reported, the others for the
        thresholds.
        """
        if listed is None:
            return None, None
        read = [(recording, _read(recording.path)) for recording in corpus.recordings(listed)]
        self.skipped += [
            (recording.path, found) for recording, found in read if isinstance(found, str)
        ]
        halves = [
            [found for _, found in read[first::2] if not isinstance(found, str)] for first in (1, 0)
        ]
        return halves[0], halves[1]

    def index(self) -> None:
        """Makes the indexes."""
        indexed = [self.samples[i] for i in self.plan.indexed]
        for system in self.systems:
            self.indexes[system.name] = system.add(indexed)
            if self.task.distractor_codes and isinstance(system, systems.Learned):
                self.indexes[system.name] = _crowded(system, self.indexes[system.name], self.task)

    def counts(self) -> dict[str, int]:
        """Recordings in the index, and left out."""
        return {
            "indexed": len(self.plan.indexed),
            "left_out": len(self.samples) - len(self.plan.indexed),
        }


def _system(name: str, hasher: Hasher, task: Task) -> systems.System:
    described = "this package's hasher, as seqhash identify searches it"
    known: dict[str, Callable[[], systems.System]] = {
        "hasher": lambda: systems.Learned(hasher.name, described, hasher),
        "untrained": lambda: systems.untrained(hasher),
        "projection": lambda: systems.projection(hasher),
        "philips": systems.Philips,
        "shazam": systems.Shazam,
    }
    if name == "audfprint":
        return audfprint.system(Path(task.folder), task.audfprint)
    if name not in known:
        raise ValueError(f"Unknown system {name!r}; there are {', '.join(known)}, audfprint.")
    return known[name]()


def _read(path: Path) -> np.ndarray | str:
    """Samples, or why there are none."""
    try:
        return audio.read(path, sample_rate=systems.SAMPLE_RATE)
    except audio.AudioError as error:
        return error.reason


def _crowded(system: systems.Learned, index, task: Task):
    """The index with distractors: codes of its own recordings, whole, each bit flipped with a
    chance of DISGUISED.
    """
    rng = np.random.default_rng(task.seed)
    starts, words = index.collection.starts, index.collection.words
    own = [words[a:b] for a, b in itertools.pairwise(starts)]
    more: list[np.ndarray] = []
    while sum(map(len, more)) < task.distractor_codes:
        copy = own[len(more) % len(own)]
        flips = np.packbits(
            rng.random((*copy.shape, 32)) < DISGUISED, axis=-1, bitorder="little"
        ).view("<u4")[..., 0]
        more.append(np.roll(copy, rng.integers(len(copy)), axis=0) ^ flips)
    return system.add_codes(own + more)


_worker: _Loaded | None = None


def _start(task: Task) -> None:
    global _worker
    _worker = _Loaded(task)
    _worker.index()


def _cell(name: str, length: int) -> dict[str, Any]:
    assert _worker is not None
    return cells.run_cell(
        _worker.systems, _worker.indexes, _worker.samples, _worker.plan, seconds=length,
        reported=_worker.reported[name], calibrating=_worker.calibrating[name], seed=_worker.task.seed,
    )  # fmt: skip


def _key(task: Task) -> str:
    """Of the settings, the hasher, and what is heard in the recordings, noises and rooms."""

    def heard(listed: str | None) -> str:
        recordings = corpus.recordings(listed) if listed else ()
        contents = digests.of_files([recording.path for recording in recordings])
        return digests.of_corpus(recordings, contents)

    hasher = load_hasher(task.hasher or "paper-128")
    content = {name: heard(getattr(task, name)) for name in ("corpus", "noise", "rooms")}
    content |= {"hasher": f"{hasher.name} {hasher.digest}", "folder": ""}
    return digests.of(task._asdict() | content)


def _measure(
    task: Task, folder: Path, wanted: list[tuple[str, int]]
) -> dict[tuple[str, float], dict[str, Any]]:
    """The cells, those that an earlier run of the same settings left in the folder not again."""
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(task)[:12]
    paths = {cell: folder / f"{key}-{cell[0]}-{cell[1]}s.json" for cell in wanted}
    missing = [cell for cell in wanted if not paths[cell].is_file()]
    if missing:
        workers = min(_WORKERS.value or parallel.cores(), len(missing))
        cells = parallel.in_processes(
            _cell, missing, workers=workers, start=_start, start_with=(task,)
        )
        for cell, measured in tqdm(cells, total=len(missing), unit="cell", desc="robustness"):
            script.write_json(paths[cell], measured)
    return {cell: json.loads(path.read_text()) for cell, path in paths.items()}


def _examples(loaded: _Loaded, names: list[str], workdir: Path) -> list[dict[str, str]]:
    """A few seconds of one recording under each degradation."""
    import soundfile

    folder = workdir / "examples"
    folder.mkdir(exist_ok=True)
    loudest = max(loaded.plan.indexed, key=lambda i: float(np.mean(np.square(loaded.samples[i]))))
    examples, place = [], cells.Place(loudest, 0.4)
    for name in names:
        made = cells.cut(
            loaded.samples[loudest],
            place,
            seconds=EXAMPLE_SECONDS,
            degradation=loaded.reported[name],
            seed=loaded.task.seed,
        )
        if made is not None:
            path = folder / f"{name}.flac"
            soundfile.write(path, made[0], systems.SAMPLE_RATE)
            examples.append({"degradation": name, "path": str(path.relative_to(workdir))})
    return examples


if __name__ == "__main__":
    script.run(main)
