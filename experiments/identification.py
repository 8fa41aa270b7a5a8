r"""Excerpts of recordings, identified: hits, offsets, and false answers on recordings that are left
out of the index.

    python -m experiments.identification --corpus=music.csv --workdir=runs/identification

Every work is left out of the index once: in five folds, a fifth of them each. From every recording,
excerpts of each length are cut at random places, not on the grid of the codes, and identified twice
by the searcher that ``seqhash identify`` uses: where the recording is in the index, and where it is
not. A hit is a first answer with the right recording. Writes WORKDIR/identification.json; 3 minutes
for an hour of audio on 2 cores.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from seqhash import audio, corpus, metrics, tables
from seqhash.export import DEFAULT, load_hasher
from seqhash.index import ingest
from seqhash.index.catalogue import Identity, open_index
from seqhash.index.identify import FALSE_POSITIVE_RATE, Match, Searcher, open_searcher

from . import script

_CORPUS = flags.DEFINE_string("corpus", None, "manifest or folder of recordings", required=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the index and the results", required=True
)
_HASHER = flags.DEFINE_string("hasher", DEFAULT, "of the package, or an exported one")
_LENGTHS = flags.DEFINE_list(
    "lengths", ["1", "2", "3", "5", "10"], "of the excerpts, whole seconds"
)
_EXCERPTS = flags.DEFINE_integer("excerpts", 10, "from each recording and length", lower_bound=1)
_FOLDS = flags.DEFINE_integer(
    "folds", 5, "a part of the works that is left out of the index at a time", lower_bound=2
)
_SHIFTS = flags.DEFINE_integer(
    "shifts", None, "of a query inside one hop; default: the hasher's own", lower_bound=1
)
_RATE = flags.DEFINE_float(
    "false_positive_rate", FALSE_POSITIVE_RATE, "stated to the searcher", 0.0, 1.0
)
_SEED = flags.DEFINE_integer("seed", 0, "of the places of the excerpts")


def main() -> int:
    """Identifies; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    lengths = script.whole_numbers("lengths", _LENGTHS.value)
    hasher = load_hasher(_HASHER.value)
    recordings = corpus.recordings(_CORPUS.value)
    path = workdir / "codes.index"
    path.unlink(missing_ok=True)
    with open_index(path, identity=Identity.of(hasher), create=True) as index:
        script.report_failures(
            ingest.add_files(index, hasher, recordings, workers=2, progress=True).failed
        )
        everything = open_searcher(
            index, hasher, false_positive_rate=_RATE.value, shifts=_SHIFTS.value
        )
    works = sorted({_work(recording) for recording in recordings})
    rows: list[dict] = []
    for fold in range(_FOLDS.value):
        outside, asked = (
            set(works[fold :: _FOLDS.value]),
            set(works[(fold + 1) % _FOLDS.value :: _FOLDS.value]),
        )
        searcher = _without(everything, {str(r.path) for r in recordings if _work(r) in outside})
        rows += _answers(
            searcher, [r for r in recordings if _work(r) in outside | asked], lengths, fold
        )
    result = {
        "command": script.command("identification"),
        "corpus": str(_CORPUS.value),
        "hasher": {"name": hasher.name, "digest": hasher.digest},
        "shifts": _SHIFTS.value or hasher.shifts,
        "stated_false_positive_rate": _RATE.value,
        "recordings": len(everything.rows),
        "folds": _FOLDS.value,
        "lengths": {
            str(length): _summary([row for row in rows if row["length"] == length])
            for length in lengths
        },
    }
    script.write_json(workdir / "identification.json", result)
    print(_table(result))
    print(f"Numbers: {workdir / 'identification.json'}")
    return 0


def _work(recording: corpus.Recording) -> str:
    return recording.work or recording.id


def _without(searcher: Searcher, paths: set[str]) -> Searcher:
    """The searcher of an index that does not have some recordings."""
    kept = [i for i, row in enumerate(searcher.rows) if row.path not in paths]
    rows, collection = [searcher.rows[i] for i in kept], searcher.collection.subset(kept)
    return replace(searcher, rows=rows, collection=collection)


def _answers(searcher: Searcher, recordings, lengths: tuple[int, ...], fold: int) -> list[dict]:
    """One row for each excerpt."""
    rows, rng = [], np.random.default_rng([_SEED.value, fold])
    ids = {row.path: row.id for row in searcher.rows}
    rate = searcher.hasher.sample_rate
    spare = round(0.02 * rate)  # python_speech_features counts 99 frames in exactly 1 s
    for recording in tqdm(
        recordings, unit="recording", desc=f"fold {fold + 1}", leave=False, disable=None
    ):
        try:
            samples = audio.read(recording.path, sample_rate=rate)
        except audio.AudioError:
            continue  # named when the index was made
        for length in lengths:
            count = round(length * rate) + spare
            for place in rng.integers(0, max(1, len(samples) - count), _EXCERPTS.value):
                excerpt = samples[place : place + count]
                if len(excerpt) < count or not excerpt.any():
                    continue
                matches, right = searcher.identify(excerpt), ids.get(str(recording.path))
                rows.append(_row(matches, right, place / rate, length, recording))
    return rows


def _row(matches: list[Match], right: int | None, place: float, length: int, recording) -> dict:
    best = matches[0] if matches else None
    hit = best is not None and best.recording == right
    return {
        "recording": recording.id,
        "length": length,
        "present": right is not None,
        "answered": best is not None,
        "hit": hit,
        "offset_error": abs(best.offset - best.start - place) if best is not None and hit else None,
        "bit_error_rate": best.bit_error_rate if best is not None and hit else None,
    }


def _summary(rows: list[dict]) -> dict:
    """Rates with 95 % intervals by resampling recordings."""
    present, absent = [r for r in rows if r["present"]], [r for r in rows if not r["present"]]
    errors = np.array([row["offset_error"] for row in present if row["hit"]] or [np.nan])
    return {
        "queries": len(present),
        "hit": _rate(present, lambda row: row["hit"]),
        "wrong": _rate(present, lambda row: row["answered"] and not row["hit"]),
        "absent_queries": len(absent),
        "false_positive": _rate(absent, lambda row: row["answered"]),
        "offset_error_median": float(np.median(errors)),
        "within_100_ms": float(np.mean(errors < 0.1)),
        "bit_error_rate_median": float(
            np.median([r["bit_error_rate"] for r in present if r["hit"]] or [np.nan])
        ),
    }


def _rate(rows: list[dict], what: Callable[[dict], bool]) -> dict:
    part, groups = [what(row) for row in rows], [row["recording"] for row in rows]
    return metrics.share(part, np.ones(len(rows)), groups=groups)._asdict()


def _table(result: dict) -> str:
    head = ["excerpt", "found, %", "wrong, %", "absent and answered, %"]
    lines = [[*head, "median offset error, ms", "within 100 ms, %"]]
    for length, row in result["lengths"].items():
        cells = (_interval(row[name]) for name in ("hit", "wrong", "false_positive"))
        offset, near = row["offset_error_median"] * 1000, row["within_100_ms"] * 100
        lines.append([f"{length} s", *cells, f"{offset:.0f}", f"{near:.1f}"])
    return tables.markdown(lines, left=1)


def _interval(rate: dict) -> str:
    return f"{rate['value'] * 100:.1f} ({rate['low'] * 100:.1f}-{rate['high'] * 100:.1f})"


if __name__ == "__main__":
    script.run(main)
