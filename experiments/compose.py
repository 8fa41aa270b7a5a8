r"""Random works in several versions as a corpus of covers: to choose on, and to be other music.

    python -m experiments.compose --works=20 --seed=2 --directory=runs/generated
    python -m experiments.compose --works=1000 --versions=1 --seed=3 --directory=runs/others

The works and versions that ``experiments.train_covers`` trains on where seed and number are its own
(seed 1): take another. Writes FLAC files, a JSON file of each work, and manifest.csv last; works
that are there are kept, so a run that was stopped goes on by the same command. Half a second of a
core for each recording.
"""

import csv
import io
import json
from pathlib import Path

import soundfile
from absl import flags
from tqdm import tqdm

from seqhash import files, parallel
from seqhash.songbook import book, composer

from . import script

_DIRECTORY = flags.DEFINE_string("directory", None, "where to write", required=True)
_WORKS = flags.DEFINE_integer("works", 20, "random works", lower_bound=1)
_VERSIONS = flags.DEFINE_integer(
    "versions", 4, "of each; the first is the original", lower_bound=1, upper_bound=4
)
_SEED = flags.DEFINE_integer("seed", 2, "of the works")
_PROGRESS = flags.DEFINE_boolean("progress", True, "progress bars")

COLUMNS = ("path", "recording_id", "work_id", "role", "genre", "key_shift", "tempo_factor", "kind")


def main() -> int:
    """Composes, plays and writes; returns the exit status."""
    folder = Path(_DIRECTORY.value)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(number, _SEED.value, _VERSIONS.value, folder) for number in range(_WORKS.value)]
    played = parallel.in_processes(record, jobs, workers=parallel.cores())
    bar = tqdm(played, total=len(jobs), unit="work", disable=None if _PROGRESS.value else True)
    rows = [row for _, made in sorted(bar, key=lambda result: result[0]) for row in made]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    with files.replacing(folder / "manifest.csv") as file:
        file.write(text.getvalue().encode())
    print(f"{folder / 'manifest.csv'}: {len(rows)} recordings of {len(jobs)} works")
    return 0


def record(number: int, seed: int, count: int, folder: Path) -> list[dict[str, object]]:
    """A work in so many versions, each a file; its rows of the manifest, which are a file too, and
    what says that all others are there.
    """
    told = folder / f"{seed}-{number}.json"
    if told.is_file() and len(kept := json.loads(told.read_text())) >= count:
        return kept[:count]
    work, versions = composer.play(number, seed, count)
    first, rows = versions[0], []
    for i, version in enumerate(versions):
        name = f"{seed}-{number}-{i}"
        with (
            files.replacing(folder / f"{name}.flac") as whole,
            soundfile.SoundFile(whole, "w", book.SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file,
        ):
            file.write(version.samples)
        values = (
            f"{name}.flac", name, f"{seed}-{number}", "cover" if i else "original", work.genre,
            version.key_shift - first.key_shift, round(first.beat / version.beat, 3), version.kind,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    script.write_json(told, rows)
    return rows


if __name__ == "__main__":
    script.run(main, resumes=True)
