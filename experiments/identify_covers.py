r"""Covers, identified: which recording, in which key, at which tempo; and false answers where the
work is left out of the index.

    python -m experiments.identify_covers --corpus=covers.csv --others=music.csv \
        --workdir=runs/identify-covers

The originals of --corpus and all recordings of --others are the index. Every cover is asked as
excerpts of its middle and as a whole by the searcher that ``seqhash identify`` uses: where its
original is in the index (a hit is a first answer with the right recording), and where it is not.
The recordings of the index are asked too, each without itself and its work: more queries that are
absent. Rates at several stated false-positive rates. Writes WORKDIR/identify_covers.json; 5 minutes
for 30 covers among 63 recordings on 2 cores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from seqhash import audio, corpus, metrics, tables
from seqhash.export import load_hasher
from seqhash.index import ingest
from seqhash.index.catalogue import Identity, open_index
from seqhash.index.identify import Match, Searcher, open_searcher

from . import script

_CORPUS = flags.DEFINE_string("corpus", None, "manifest of originals and covers", required=True)
_OTHERS = flags.DEFINE_multi_string("others", [], "manifest or folder of other recordings")
_LEAVE_OUT = flags.DEFINE_list("leave_out", [], "ids of others that are versions of the works")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of index and results", required=True)
_HASHER = flags.DEFINE_string("hasher", "harmony-120", "of the package, or an exported one")
_LENGTHS = flags.DEFINE_list("lengths", ["10", "30", "whole"], "of the queries, s")

RATES = (0.1, 0.01, 0.001)  # stated


class _Row(NamedTuple):
    """One query."""

    length: str
    work: str
    present: bool
    score: float  # of the first answer
    right: bool  # it is the original
    key: bool  # and in the right key; True where the manifest does not say
    tempo: float  # of the query over what the manifest says; nan where it does not


def main() -> int:
    """Identifies; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    hasher = load_hasher(_HASHER.value)
    recordings = corpus.recordings(_CORPUS.value)
    corpus.require_covers(recordings)
    others = [
        recording
        for path in _OTHERS.value
        for recording in corpus.recordings(path)
        if recording.id not in _LEAVE_OUT.value
    ]
    known = [one for one in recordings if one.role == "original"] + others
    covers = [one for one in recordings if one.role == "cover"]
    path = workdir / "codes.index"
    path.unlink(missing_ok=True)
    with open_index(path, identity=Identity.of(hasher), create=True) as index:
        counts = ingest.add_files(index, hasher, known, workers=2, progress=True)
        script.report_failures(counts.failed)
        searcher = open_searcher(index, hasher)
    works = {str(one.path): one.work or one.id for one in known}
    failed = list[tuple[str, str]]()
    rows = list(_rows(searcher, works, covers, known, failed))
    script.report_failures(failed)
    result = {
        "command": script.command("identify_covers"),
        "corpus": str(_CORPUS.value),
        "hasher": {"name": hasher.name, "digest": hasher.digest},
        "recordings": len(searcher.rows),
        "versions": {
            length: _summary([row for row in rows if row.length == length])
            for length in _LENGTHS.value
        },
    }
    script.write_json(workdir / "identify_covers.json", result)
    print(_table(result))
    print(f"Numbers: {workdir / 'identify_covers.json'}")
    return 0


def _rows(
    searcher: Searcher,
    works: dict[str, str],
    covers: Sequence[corpus.Recording],
    known: Sequence[corpus.Recording],
    failed: list[tuple[str, str]],
) -> Iterator[_Row]:
    """The queries' answers; covers that cannot be read are noted as failed."""
    rate = searcher.hasher.sample_rate
    asked = [(one, True) for one in covers] + [(one, False) for one in known]
    for recording, is_cover in tqdm(asked, unit="recording", disable=None):
        try:
            samples = audio.read(recording.path, sample_rate=rate)
        except audio.AudioError as error:
            if is_cover:  # the others were told when the index was made
                failed.append((str(recording.path), error.reason))
            continue
        work = recording.work or recording.id
        left = [i for i, row in enumerate(searcher.rows) if works[row.path] != work]
        rest = replace(
            searcher,
            rows=[searcher.rows[i] for i in left],
            collection=searcher.collection.subset(left),
        )
        for length in _LENGTHS.value:
            count = len(samples) if length == "whole" else round(float(length) * rate)
            low = (len(samples) - count) // 2
            if low < 0:
                continue
            clip = samples[low : low + count]
            if is_cover:
                yield _row(searcher.candidates(clip), length, recording, works, present=True)
            yield _row(rest.candidates(clip), length, recording, works, present=False)


def _row(
    matches: Sequence[Match],
    length: str,
    recording: corpus.Recording,
    works: dict[str, str],
    *,
    present: bool,
) -> _Row:
    work = recording.work or recording.id
    if not matches:
        return _Row(length, work, present, 0.0, right=False, key=False, tempo=np.nan)
    best, shift = matches[0], recording.extra.get("key_shift", "")
    right = works[best.path] == work
    key = right and (not shift or round(float(shift) - best.pitch) % 12 == 0)
    played = recording.extra.get("tempo_factor", "")
    tempo = best.tempo / float(played) if right and played else np.nan
    return _Row(length, work, present, best.score, right, key, tempo)


def _summary(rows: Sequence[_Row]) -> dict[str, Any]:
    """At each stated rate, with 95 % intervals by resampling works."""
    present, absent = [r for r in rows if r.present], [r for r in rows if not r.present]
    stated = {}
    for rate in RATES:
        needed = -np.log10(rate)
        stated[f"{rate:g}"] = {
            "hit": _rate([r.right and r.score >= needed for r in present], present),
            "wrong": _rate([not r.right and r.score >= needed for r in present], present),
            "false_positive": _rate([r.score >= needed for r in absent], absent),
        }
    found = [row for row in present if row.right and row.score >= 2]
    tempi = [abs(np.log(row.tempo)) for row in found if not np.isnan(row.tempo)]
    return {
        "queries": len(present),
        "absent_queries": len(absent),
        "stated": stated,
        "key": float(np.mean([row.key for row in found])) if found else None,
        "tempo_error_median": float(np.expm1(np.median(tempi))) if tempi else None,
    }


def _rate(part: Sequence[bool], rows: Sequence[_Row]) -> dict[str, float]:
    groups = [row.work for row in rows]
    return metrics.share(part, np.ones(len(rows)), groups=groups)._asdict()


def _table(result: dict[str, Any]) -> str:
    """Found, wrong and answered falsely at each stated rate, in %."""
    lines = [
        ["query", "stated", "found", "wrong", "absent and answered", "right key", "tempo off by"]
    ]
    for length, row in result["versions"].items():
        for rate, cells in row["stated"].items():
            values = [f"{100 * cells[n]['value']:.1f}" for n in ("hit", "wrong", "false_positive")]
            told = (row["key"], row["tempo_error_median"])
            both = ["" if one is None else f"{100 * one:.1f}" for one in told]
            lines.append([length, f"{100 * float(rate):g} %", *values, *both])
    return tables.markdown(lines, left=2)


if __name__ == "__main__":
    script.run(main)
