"""What an answer costs: ``python -m experiments.benchmark identify``.

A clip of 3 s among 10 million codes of each packaged hasher: twelve works of the songbook, and
codes of theirs that are disguised. *Present*: of a recording that is there. *Absent*: of one that
is not, which is asked as all variants. The first answer, which estimates the null distribution and
compiles, is told apart.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import soxr
from tqdm import tqdm

from seqhash import songbook, tables
from seqhash.export import load_hasher, packaged
from seqhash.index.identify import Searcher
from seqhash.robustness import systems

CODES, QUICK_CODES = 10_000_000, 200_000
WORKS, SECONDS, PLACE = 12, 3.02, 20.0
KINDS = ("first", "present", "absent")


def measure(*, rounds: int, quick: bool) -> dict[str, Any]:
    """Seconds of an answer by each hasher, medians; each hasher is asked in turn."""
    works = [work.work_id for work in songbook.works()][: WORKS + 1]
    made = [songbook.render(work, "orig", seed=0) for work in works]
    asked, result = dict[str, tuple[Searcher, list[np.ndarray]]](), dict[str, Any]()
    for name in packaged():
        hasher = load_hasher(name)
        heard = [soxr.resample(one, songbook.SAMPLE_RATE, hasher.sample_rate) for one in made]
        system = systems.Learned(name, "", hasher)
        index = systems.with_distractors(
            system,
            system.add_codes(hasher.hash_many(heard[:-1])),
            codes=QUICK_CODES if quick else CODES,
            seed=0,
        )
        first = round(PLACE * hasher.sample_rate)
        clips = [one[first : first + round(SECONDS * hasher.sample_rate)] for one in heard]
        index = replace(index, false_positive_rate=0.01)
        asked[name] = index, [clips[0], clips[-1]]
        result[name] = {
            "codes": len(index.collection.words),
            "hours": len(index.collection.words) / hasher.code_rate / 3600,
            "first": _seconds(index, clips[1]),
            "found": bool(index.identify(clips[0])),
            **{kind: list[float]() for kind in ("present", "absent")},
        }
        index.identify(clips[-1])  # what an absent one compiles besides
    for _ in tqdm(range(rounds), unit="round", leave=False, disable=None):
        for name, (index, clips) in asked.items():
            for kind, clip in zip(("present", "absent"), clips, strict=True):
                result[name][kind].append(_seconds(index, clip))
    for row in result.values():
        row |= {kind: statistics.median(row[kind]) for kind in ("present", "absent")}
    return result


def _seconds(index: Searcher, clip: np.ndarray) -> float:
    begun = time.perf_counter()
    index.identify(clip)
    return time.perf_counter() - begun


def table(result: Mapping[str, Any]) -> str:
    """In Markdown."""
    lines = [["a 3 s clip, ms", "codes", "hours", "first answer", "present", "found", "absent"]]
    for name, row in result.items():
        first, present, absent = (f"{1000 * row[kind]:,.0f}" for kind in KINDS)
        found = "yes" if row["found"] else "no"
        sizes = (f"{row['codes']:,}", f"{row['hours']:,.0f}")
        lines.append([name, *sizes, first, present, found, absent])
    return tables.markdown(lines, left=1)
