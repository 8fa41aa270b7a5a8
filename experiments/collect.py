r"""A training set that anyone can have: permissively licensed music and noises of Debian packages.

    python -m experiments.collect --workdir=data --against=music.csv --against=noise.csv
    python -m experiments.collect --workdir=data --packages=FOLDER     # of .deb files; no apt-get

Fetches ten packages (830 MB) by ``apt-get download``, which any user may call, or takes those that
are there; keeps the files under CC0, CC BY, MIT, BSD or in the public domain
(seqhash/trainingset/sources.py); renders MIDI pieces where fluidsynth is installed, speaks where
espeak-ng is, and adds the built-in songbook. What an evaluation corpus (--against) holds too, by
search or by title, is left out with all recordings of its work, and said. Writes
WORKDIR/manifest.csv (music), WORKDIR/noise.csv and WORKDIR/SOURCES.md; a run that was stopped goes
on by the same command. Expect 10 minutes on 2 cores and 2 GB of disk.
"""

import functools
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from absl import flags
from tqdm import tqdm

from seqhash import audio, corpus, songbook, tables
from seqhash.files import replacing
from seqhash.trainingset import gather, overlap
from seqhash.trainingset.archives import ArchiveError
from seqhash.trainingset.sources import READ, SOURCES, packages

from . import script

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the training set", required=True)
_PACKAGES = flags.DEFINE_string("packages", None, "folder of .deb files; default: apt-get download")
_AGAINST = flags.DEFINE_multi_string(
    "against", [], "manifest or folder of an evaluation corpus, to have nothing in common with"
)
_MIDI_SECONDS = flags.DEFINE_float(
    "midi_seconds", 40.0, "rendered of each MIDI piece by each sound font; 0: none", 0.0
)
_SONGBOOK = flags.DEFINE_boolean("songbook", True, "add the built-in songbook")
_SEED = flags.DEFINE_integer("seed", 0, "of the songbook, the voices and the synthetic noises", 0)
_WORKERS = flags.DEFINE_integer("workers", 2, "recordings made at a time", lower_bound=1)
_STRICT = flags.DEFINE_boolean("strict", False, "exit with status 3 if something could not be had")

Row = dict[str, str]


class Failure(NamedTuple):
    """What could not be had."""

    name: str
    reason: str


def main() -> int:
    """Collects; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    others = [  # errors first
        ("/".join([*Path(path).parts[-2:], other.id]), other)
        for path in _AGAINST.value
        for other in corpus.recordings(path)
    ]
    failed: list[Failure] = []
    files = _files(workdir, failed)
    rows = _record(_recordings(files), workdir, failed)
    music, noises = ([r for r in rows if bool(r["work_id"]) is music] for music in (True, False))
    music += _songbook(workdir) if _SONGBOOK.value else []
    shared = _overlaps([*music, *noises], workdir, others) if others else []
    left_out = _left_out([*music, *noises], shared)
    music, noises = (
        [r for r in part if r["recording_id"] not in left_out] for part in (music, noises)
    )
    if not music:
        raise ValueError(f"{workdir}: no music could be had.")
    gather.write_manifest(workdir / "manifest.csv", music)
    gather.write_manifest(workdir / "noise.csv", noises)
    used = sorted({(file.package, file.package_digest) for file in files})
    with replacing(workdir / "SOURCES.md") as file:
        file.write(_sources(music, noises, used, shared).encode())
    script.report_failures(failed)
    for found in shared:
        print(f"left out {found.id}: {found.other}, {found.why}")
    print(
        f"{len(music)} recordings of {len({r['work_id'] for r in music})} works, "
        f"{_hours(music):.2f} h; {len(noises)} noises, {_hours(noises):.2f} h; "
        f"{len(left_out)} left out, {len(failed)} failed"
    )
    return script.EXIT_STRICT if failed and _STRICT.value else 0


def _files(workdir: Path, failed: list[Failure]) -> list[gather.File]:
    """The files of all packages."""
    folder = Path(_PACKAGES.value or workdir / "packages")
    if _PACKAGES.value and not folder.is_dir():
        raise ValueError(f"--packages={folder}: no such folder.")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for package in tqdm(packages(SOURCES), desc="packages", unit="package", disable=None):
        sources = tuple(source for source in SOURCES if source.package == package)
        try:
            found = gather.fetch(package, folder, download=not _PACKAGES.value)
            files += gather.unpack(found, sources, workdir / "unpacked")
        except (gather.GatherError, ArchiveError) as error:
            failed.append(Failure(package, str(error)))
    return files


def _recordings(files: Sequence[gather.File]) -> list[gather.Recording]:
    """All that is made of files, and what is made of nothing."""
    by_use = defaultdict(list)
    for file in files:
        by_use[file.source.use].append(file)
    made = [gather.decoded(file) for file in (*by_use["music"], *by_use["noise"])]
    if _installed("fluidsynth", "MIDI pieces are not rendered") and _MIDI_SECONDS.value:
        for midi in by_use["midi"]:
            made += gather.rendered(midi, by_use["soundfont"], seconds=_MIDI_SECONDS.value)
    speakers = defaultdict(list)
    for file in by_use["speech"]:
        speakers[file.source.package].append(file)
    espeak = _installed("espeak-ng", "its twelve voices are left out")
    made += gather.speech(dict(speakers), espeak=espeak, seed=_SEED.value)
    return made + gather.synthetic(seed=_SEED.value)


def _installed(program: str, else_: str) -> bool:
    there = shutil.which(program) is not None
    if not there:
        print(f"{program} is not installed, so {else_}: apt-get install {program}", file=sys.stderr)
    return there


def _record(
    recordings: Sequence[gather.Recording], workdir: Path, failed: list[Failure]
) -> list[Row]:
    """Makes recordings, several at a time; returns the rows of those that could be made."""

    def one(recording: gather.Recording) -> Row | Failure:
        try:
            return gather.row(recording, gather.record(recording, workdir))
        except (audio.AudioError, gather.GatherError) as error:
            return Failure(recording.id, str(error))

    pool = ThreadPoolExecutor(_WORKERS.value)
    try:
        bar = tqdm(
            pool.map(one, recordings), "recordings", len(recordings), unit="recording", disable=None
        )
        results = list(bar)
    finally:  # at Ctrl-C those that have not begun are dropped
        pool.shutdown(cancel_futures=True)
    failed += [result for result in results if isinstance(result, Failure)]
    return [result for result in results if not isinstance(result, Failure)]


def _songbook(workdir: Path) -> list[Row]:
    """Rows of the built-in songbook, which is rendered where it is not there."""
    manifest = songbook.write(workdir / "songbook", seed=_SEED.value, workers=_WORKERS.value)
    return [
        {
            "path": f"songbook/{recording.path.name}",
            "recording_id": f"songbook_{recording.id}",
            "work_id": f"songbook_{recording.work}",
            "role": recording.role,
            "title": recording.title,
            "genre": recording.genre,
            "artist": recording.extra["composer"],
            "licence": f"public domain (tune), {gather.OWN} (recording)",
            "source": "seqhash.songbook",
            "duration_s": recording.extra["duration_s"],
        }
        for recording in corpus.read_manifest(manifest)
    ]


def _overlaps(
    rows: Sequence[Row], workdir: Path, others: Sequence[tuple[str, corpus.Recording]]
) -> list[overlap.Overlap]:
    """What test sets hold of rows, by title and, of those that are not made here, by search."""
    titles = [(row["recording_id"], row["title"]) for row in rows if row["work_id"]]
    found = list(overlap.by_title(titles, [(id, other.title) for id, other in others]))
    read = functools.partial(audio.read, sample_rate=overlap.SAMPLE_RATE)
    names, bar = [id for id, _ in others], tqdm(others, "test sets", unit="recording", disable=None)
    landmarks = overlap.index(read(other.path) for _, other in bar)
    foreign = [row for row in rows if gather.OWN not in row["licence"]]
    for row in tqdm(foreign, "searching", unit="recording", disable=None):
        samples = read(workdir / row["path"])
        found += overlap.by_search(landmarks, names, row["recording_id"], samples)
    return found


def _left_out(rows: Sequence[Row], shared: Iterable[overlap.Overlap]) -> set[str]:
    """Ids of the recordings that are shared, and of all others of their works."""
    found = {one.id for one in shared}
    works = {row["work_id"] for row in rows if row["recording_id"] in found} - {""}
    return found | {row["recording_id"] for row in rows if row["work_id"] in works}


def _hours(rows: Iterable[Row]) -> float:
    return sum(float(row["duration_s"]) for row in rows) / 3600


def _sources(
    music: Sequence[Row],
    noises: Sequence[Row],
    used: Sequence[tuple[str, str]],
    shared: Sequence[overlap.Overlap],
) -> str:
    """SOURCES.md: licences, packages, credits, and what was left out."""
    lines = ["# Sources of this training set", "", "All recordings were cut, mixed or resampled."]
    for title, rows in (("Music", music), ("Noises", noises)):
        hours: dict[tuple[str, str], float] = defaultdict(float)
        for row in rows:
            hours[row["licence"], row["artist"] or "-"] += float(row["duration_s"]) / 3600
        cells = [[licence, by, f"{h:.2f}"] for (licence, by), h in sorted(hours.items())]
        table = [["licence", "by", "hours"], *cells]
        lines += ["", f"## {title}", "", tables.markdown(table, left=2)]
    table = [["file", "SHA-256", "its licences were read"]]
    for package, digest in used:
        same = READ[package.split("_")[0]] == digest
        read = "in this version" if same else "in another version: compare its copyright file"
        table.append([package, digest, read])
    lines += ["", "## Packages", "", tables.markdown(table)]
    lines += ["", "## Left out, as an evaluation corpus has it too", ""]
    lines += [f"- {one.id}: {one.other}, {one.why}" for one in shared] or ["Nothing was found."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    script.run(main, resumes=True)
