"""A run of the report: what can be read, who holds it, and which cells are there already.

The parent reads every recording once, a block at a time, to learn what is in it (``survey``).
Samples and indexes are the workers', one copy in each: about 230 MB an hour of audio. A cell that
an earlier run of the same settings and the same audio left in the folder is not measured again.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import soundfile
from tqdm import tqdm

from seqhash import audio, corpus, digests, parallel
from seqhash.export import load_hasher
from seqhash.files import read_json, replacing
from seqhash.robustness import cells, degrade, systems
from seqhash.robustness.degrade import SAMPLE_RATE, Degradation

BLOCK_SECONDS = 60.0
EXAMPLE_SECONDS = 4.0
EXAMPLE_SHARE = 0.4  # of the recording, before an example begins


class Task(NamedTuple):
    """What is asked for."""

    corpus: str  # manifest or folder
    noise: str | None  # the same; None: synthesised
    rooms: str | None  # the same, of impulse responses
    hasher: str  # a packaged name or a directory
    systems: tuple[str | systems.Outside, ...]  # of ``systems.NAMED``, or programs
    queries: int
    left_out: float  # share of the works
    distractor_codes: int
    seed: int
    distractors: str | None = None  # manifest or folder of other music in the hashers' indexes


class Sounds(NamedTuple):
    """Noises or rooms, float32 (samples,) each: of the reported queries, and of the thresholds."""

    reported: Sequence[np.ndarray]
    calibrating: Sequence[np.ndarray]


class Survey(NamedTuple):
    """What a task's files hold, without their samples."""

    paths: tuple[Path, ...]  # of the recordings that can be read
    plan: cells.Plan
    loudest: int  # recording in the index
    noises: Sounds
    rooms: Sounds
    skipped: tuple[tuple[Path, str], ...]  # (path, reason)
    digest: str  # of all that was heard
    distractors: tuple[Path, ...] = ()  # of other music, that can be read

    def counts(self) -> dict[str, int]:
        """Recordings in the index, and left out."""
        indexed = len(self.plan.indexed)
        return {"indexed": indexed, "left_out": len(self.paths) - indexed}


def survey(task: Task) -> Survey:
    """Reads all files of a task once.

    Raises:
      ValueError: fewer than three works can be read, or fewer than two noises or rooms.
    """
    listed = corpus.recordings(task.corpus)
    heard = parallel.map_all(_power, [recording.path for recording in listed])
    others = corpus.recordings(task.distractors) if task.distractors else ()
    others_heard = parallel.map_all(_power, [one.path for one in others])
    kept = [(one, got) for one, got in zip(listed, heard, strict=True) if isinstance(got, float)]
    skipped = [
        (one.path, got)
        for one, got in zip([*listed, *others], [*heard, *others_heard], strict=True)
        if isinstance(got, str)
    ]
    plan = cells.make_plan(
        [recording.work or recording.id for recording, _ in kept],
        queries=task.queries,
        left_out=task.left_out,
        seed=task.seed,
    )
    noises = _sounds("noise", task.noise, skipped) or Sounds(
        degrade.synthetic_noises(0), degrade.synthetic_noises(1)
    )
    rooms = _sounds("rooms", task.rooms, skipped) or Sounds(
        degrade.synthetic_rooms(0), degrade.synthetic_rooms(1)
    )
    return Survey(
        tuple(recording.path for recording, _ in kept),
        plan,
        max(plan.indexed, key=lambda i: kept[i][1]),
        noises,
        rooms,
        tuple(skipped),
        digests.of(
            [_content(named) for named in (task.corpus, task.noise, task.rooms, task.distractors)]
        ),
        tuple(
            one.path
            for one, got in zip(others, others_heard, strict=True)
            if isinstance(got, float)
        ),
    )


def _content(listed: str | None) -> str:
    recordings = corpus.recordings(listed) if listed else ()
    return digests.of_corpus(recordings, digests.of_files([one.path for one in recordings]))


def _power(path: Path) -> float | str:
    """Mean square of a recording, or why it cannot be read."""
    count, energy = 0, 0.0
    try:
        for block in audio.blocks(path, sample_rate=SAMPLE_RATE, block_seconds=BLOCK_SECONDS):
            count += len(block)
            energy += float(np.sum(np.square(block, dtype=np.float64)))
    except audio.AudioError as error:
        return error.reason
    return energy / count


def _sounds(flag: str, listed: str | None, skipped: list[tuple[Path, str]]) -> Sounds | None:
    """Noises or rooms: the second, fourth ... for what is reported, the others for the thresholds.

    What cannot be read joins ``skipped``. None where none are listed.
    """
    if listed is None:
        return None
    read = []
    recordings = corpus.recordings(listed)
    for recording in recordings:
        try:
            read.append(audio.read(recording.path, sample_rate=SAMPLE_RATE))
        except audio.AudioError as error:
            skipped.append((recording.path, error.reason))
    if len(read) < 2:
        raise ValueError(
            f"--{flag} must name at least two files that can be read, one for what is reported and "
            f"one for the thresholds, got {len(read)} of {len(recordings)} in {listed}."
        )
    return Sounds(read[1::2], read[0::2])


def contestants(task: Task) -> list[systems.System]:
    """The systems of a task.

    Raises:
      ValueError: an unknown one, or two of one name.
    """
    hasher = load_hasher(task.hasher)
    made = [
        systems.named(one, hasher) if isinstance(one, str) else one
        for one in dict.fromkeys(task.systems)
    ]
    names = [system.name for system in made]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"Systems must have different names, got {min(twice)} twice.")
    return made


def reported(survey: Survey) -> dict[str, Degradation]:
    """What is done to the queries that are reported, by name."""
    return degrade.registry(survey.noises.reported, survey.rooms.reported)


class _Worker(NamedTuple):
    """What one process holds."""

    systems: list[systems.System]
    indexes: dict[str, Any]
    recordings: list[np.ndarray]
    plan: cells.Plan
    reported: dict[str, Degradation]
    calibrating: dict[str, Degradation]
    seed: int


_worker: _Worker | None = None  # of this process


def _start(task: Task, survey: Survey) -> None:
    global _worker
    recordings = [audio.read(path, sample_rate=SAMPLE_RATE) for path in survey.paths]
    indexed, made, indexes = [recordings[i] for i in survey.plan.indexed], contestants(task), {}
    for system in made:
        index = system.add(indexed)
        if (task.distractor_codes or task.distractors) and isinstance(system, systems.Learned):
            index = systems.with_distractors(
                system,
                index,
                system.hash_files(survey.distractors),
                codes=task.distractor_codes,
                seed=task.seed,
            )
        indexes[system.name] = index
    calibrating = degrade.registry(
        survey.noises.calibrating, survey.rooms.calibrating, degrade.synthetic_music(1)
    )
    _worker = _Worker(
        made, indexes, recordings, survey.plan, reported(survey), calibrating, task.seed
    )


def _cell(name: str, length: float) -> dict[str, Any]:
    assert _worker is not None
    return cells.run_cell(
        _worker.systems,
        _worker.indexes,
        _worker.recordings,
        _worker.plan,
        seconds=length,
        reported=_worker.reported[name],
        calibrating=_worker.calibrating[name],
        seed=_worker.seed,
    )


def measure(
    task: Task, survey: Survey, folder: Path, wanted: Sequence[tuple[str, float]], *, workers: int
) -> dict[tuple[str, float], Any]:
    """The cells of some degradations and lengths, with a bar on stderr for those that are made.

    Args:
      task, survey: of this run.
      folder: where cells are kept.
      wanted: (degradation, length in s) of each.
      workers: processes, each with all the audio and its indexes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(task, survey)
    paths = {cell: folder / f"{key}-{cell[0]}-{cell[1]:g}s.json" for cell in wanted}
    missing = [cell for cell, path in paths.items() if not path.is_file()]
    if missing:
        made = parallel.in_processes(
            _cell,
            missing,
            workers=min(workers, len(missing)),
            start=_start,
            start_with=(task, survey),
        )
        for cell, measured in tqdm(
            made, total=len(missing), unit="cell", desc="robustness", disable=None
        ):
            with replacing(paths[cell]) as file:
                file.write(json.dumps(measured, allow_nan=False).encode())
    return {cell: read_json(path) for cell, path in paths.items()}


def _key(task: Task, survey: Survey) -> str:
    """Of what decides a cell: the settings, the audio and the hashers, whatever their paths."""

    def identity(system: systems.System) -> dict[str, Any]:
        if isinstance(system, systems.Learned):
            hasher, asked = system.hasher, (system.weighted, system.variants)
            return {"name": system.name, "digest": hasher.digest, "asked": asked}
        settings = dataclasses.asdict(cast("Any", system))
        return settings | {"folder": ""} if isinstance(system, systems.Outside) else settings

    decides = task._replace(
        corpus="", noise=None, rooms=None, hasher="", systems=(), distractors=None
    )
    return digests.of([decides, list(map(identity, contestants(task))), survey.digest])[:12]


def examples(
    survey: Survey, degradations: Sequence[Degradation], workdir: Path, *, seed: int
) -> list[dict[str, str]]:
    """A few seconds of the loudest recording under each degradation, as files in
    ``workdir``/examples.
    """
    folder = workdir / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    samples = audio.read(survey.paths[survey.loudest], sample_rate=SAMPLE_RATE)
    place, made = cells.Place(survey.loudest, EXAMPLE_SHARE), []
    for one in degradations:
        clip = cells.cut(samples, place, seconds=EXAMPLE_SECONDS, degradation=one, seed=seed)
        if clip is not None:
            path = folder / f"{one.name}.flac"
            soundfile.write(path, clip[0], SAMPLE_RATE)
            made.append({"degradation": one.name, "path": str(path.relative_to(workdir))})
    return made


def found_by_one(
    task: Task,
    survey: Survey,
    measured: Mapping[tuple[str, float], Any],
    workdir: Path,
    *,
    count: int = 3,
) -> list[dict[str, str]]:
    """Queries that the first system finds and no other kind of fingerprint does, and the places
    where they come from, as files in ``workdir``/examples: those it is most sure of, each of
    another recording and degradation.
    """
    made = contestants(task)
    own = made[0]
    others = [one.name for one in made[1:] if not _akin(one, own)]
    found = []
    for (name, length), cell in measured.items() if others else ():
        first = cell[own.name]
        alone = np.array(first["hit"], bool)
        for other in others:
            alone &= ~np.array(cell[other]["hit"], bool)
        found += [(first["score"][i], name, length, i) for i in np.flatnonzero(alone)]
    folder, shown, used = workdir / "examples", list[dict[str, str]](), set[Any]()
    for score, name, length, i in sorted(found, key=lambda one: -(one[0] or 0)):
        recording = measured[name, length][own.name]["recording"][i]
        if score is None or score < own.default_score or used & {name, recording}:
            continue
        used |= {name, recording}
        samples = audio.read(survey.paths[recording], sample_rate=SAMPLE_RATE)
        asked = [place for place in survey.plan.present if place.recording == recording]
        before = measured[name, length][own.name]["recording"][:i].count(recording)
        cut = functools.partial(cells.cut, samples, seconds=length, seed=task.seed)
        heard = (cut(place, degradation=reported(survey)[name]) for place in asked)
        clip, begin = [one for one in heard if one is not None][before]
        clean = samples[round(begin * SAMPLE_RATE) :][: len(clip)]
        number, title = len(used) // 2, survey.paths[recording].stem
        where = f"only {own.name} finds it, of {length:g} s"
        for kind, sound, said in (
            ("query", clip, f"{where}: {title} at {begin:.1f} s"),
            ("place", clean, f"what query {number} is: {title} at {begin:.1f} s"),
        ):
            path = folder / f"{kind}-{number}.flac"
            soundfile.write(path, sound, SAMPLE_RATE)
            relative = str(path.relative_to(workdir))
            shown.append({"degradation": name, "path": relative, "said": said})
        if number == count:
            break
    return shown


def _akin(one: systems.System, own: systems.System) -> bool:
    """Whether a system is the first one asked otherwise, or a control of its front end."""
    if not (isinstance(one, systems.Learned) and isinstance(own, systems.Learned)):
        return False
    return one.hasher.config.encoder.front_end == own.hasher.config.encoder.front_end
