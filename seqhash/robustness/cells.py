"""Degraded excerpts, identified by several systems: plan, one cell, and the summary of all (paper,
V).

A **cell** is one degradation at one query length: every system is asked the same clips. Three kinds
of clips are cut: *queries* of recordings in the index; *strangers* of recordings that are not,
which say how often a system answers falsely; and *calibration* clips of other recordings that are
not, degraded with other noises and rooms, on which the scores for 1 % false answers are set. No
recording, noise or room is used for both.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqhash import metrics
from seqhash.robustness.degrade import Degradation
from seqhash.robustness.systems import SAMPLE_RATE, System

SPARE_SECONDS = 0.02  # a clip is so much longer: exactly 1 s is one MFCC frame short of a segment
NEAR_SECONDS = 0.5
QUIET = 1e-4  # RMS of a clip that is not asked for: there is nothing in it
ALLOWED = 0.01  # false answers, where systems are compared
OUTSIDE = 50  # clips of either kind outside the index, at least


class Place(NamedTuple):
    """Where a clip is cut."""

    recording: int
    share: float  # of the room that a clip of its length has


class Plan(NamedTuple):
    """What is asked, the same for all degradations, lengths and systems."""

    indexed: tuple[int, ...]  # recordings
    queries: tuple[Place, ...]
    strangers: tuple[Place, ...]
    calibration: tuple[Place, ...]


def make_plan(works: Sequence[str], *, queries: int, left_out: float, seed: int) -> Plan:
    """Leaves out some works (two at least: half of them for calibration), and spreads the places
    evenly.

    Args:
      works: one label for each recording.
      queries: places in the index; a quarter as many of either kind outside, but OUTSIDE at least.
      left_out: share of the works.
      seed: of everything.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(works))
    count = max(2, round(left_out * len(order)))
    if len(order) < count + 1:
        raise ValueError(
            f"The corpus has {len(order)} works: three are needed, two of them to leave out."
        )
    kinds = order[count:], order[: count // 2], order[count // 2 : count]
    recordings = [np.flatnonzero(np.isin(works, kind)) for kind in kinds]
    indexed, strangers, calibration = recordings
    outside = max(OUTSIDE, -(-queries // 4))
    return Plan(
        tuple(int(i) for i in indexed),
        _places(indexed, queries, rng),
        _places(strangers, outside, rng),
        _places(calibration, outside, rng),
    )


def _places(recordings: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Place, ...]:
    """Places spread evenly over the recordings."""
    chosen = np.resize(rng.permutation(recordings), count)
    return tuple(
        Place(int(recording), float(share))
        for recording, share in zip(chosen, rng.random(count), strict=True)
    )


def cut(samples: np.ndarray, place: Place, *, seconds: float, degradation: Degradation, seed: int):
    """A degraded clip and where it begins in the recording, in seconds; None where there is no room
    or no sound.
    """
    wanted = round((seconds + SPARE_SECONDS) * degradation.time_scale * SAMPLE_RATE)
    if len(samples) < wanted:
        return None
    begin = round(place.share * (len(samples) - wanted))
    clip = samples[begin : begin + wanted]
    if np.sqrt(np.mean(np.square(clip, dtype=np.float64))) < QUIET:
        return None
    name = zlib.crc32(f"{degradation.name} {seconds} {place}".encode())
    return degradation.apply(clip, np.random.default_rng([seed, name])), begin / SAMPLE_RATE


def run_cell(
    systems: Sequence[System],
    indexes: Mapping[str, Any],
    recordings: Sequence[np.ndarray],
    plan: Plan,
    *,
    seconds: float,
    reported: Degradation,
    calibrating: Degradation,
    seed: int,
) -> dict[str, Any]:
    """Asks every system the same clips.

    Args:
      systems: to compare.
      indexes: of the plan's indexed recordings, by the system's name.
      recordings: float32 (samples,) each, all of them.
      plan: of ``make_plan``.
      seconds: length of the clips.
      reported: what is done to the queries and the strangers.
      calibrating: the same with other noises and rooms, for the calibration clips.
      seed: of the degradations.

    Returns:
      For each system lists over clips, as JSON takes them.
    """
    numbers = {recording: i for i, recording in enumerate(plan.indexed)}
    clips: dict[str, list] = {}
    for kind, places, degradation in (
        ("queries", plan.queries, reported),
        ("strangers", plan.strangers, reported),
        ("calibration", plan.calibration, calibrating),
    ):
        made = [
            (
                place,
                cut(
                    recordings[place.recording],
                    place,
                    seconds=seconds,
                    degradation=degradation,
                    seed=seed,
                ),
            )
            for place in places
        ]
        clips[kind] = [(place, *found) for place, found in made if found is not None]
    cell: dict[str, Any] = {}
    for system in systems:
        index, answers = indexes[system.name], {}
        begun = _cpu_seconds()
        for kind, group in clips.items():
            answers[kind] = system.candidates(index, [clip for _, clip, _ in group])
        elapsed = (_cpu_seconds() - begun) * 1000 / max(1, sum(map(len, clips.values())))
        cell[system.name] = {
            "recording": [place.recording for place, _, _ in clips["queries"]],
            "hit": [
                bool(a) and a[0].recording == numbers[p.recording]
                for a, (p, _, _) in zip(answers["queries"], clips["queries"], strict=True)
            ],
            "near": [
                bool(a)
                and a[0].recording == numbers[p.recording]
                and abs(a[0].offset - begin - reported.time_scale * a[0].start) <= NEAR_SECONDS
                for a, (p, _, begin) in zip(answers["queries"], clips["queries"], strict=True)
            ],
            "score": _scores(answers["queries"]),
            "strangers": _scores(answers["strangers"]),
            "calibration": _scores(answers["calibration"]),
            "ms": elapsed,
            **_bit_errors(
                system, index, [(numbers[p.recording], *clip) for p, *clip in clips["queries"]]
            ),
        }
    return cell


def _cpu_seconds() -> float:
    """Of this process and of the programs that it ran."""
    return sum(os.times()[:4])


def _scores(answers) -> list[float | None]:
    """The best answer's score of each clip; None where there is no answer."""
    return [found[0].score if found else None for found in answers]


BIT_ERROR_CLIPS = 60  # of a cell, enough for a histogram


def _bit_errors(
    system: System, index: Any, clips: list[tuple[int, np.ndarray, float]]
) -> dict[str, list[float]]:
    """Bit error rates of some clips against their own place in the index (``true``), and against
    another clip's.

    Args:
      system: whose codes.
      index: of the system.
      clips: (number in the index, samples, where it begins in s) each.
    """
    some = clips[:: max(1, len(clips) // BIT_ERROR_CLIPS)]
    places = [(number, begin) for number, _, begin in some]
    others = [*places[1:], *places[:1]]
    rates = [
        system.bit_errors(index, clip, [own, other])
        for (_, clip, _), own, other in zip(some, places, others, strict=True)
    ]
    return {
        "bit_error_true": [r[0] for r in rates if r],
        "bit_error_random": [r[1] for r in rates if r],
    }


# -------------------------------------------------------------------------------------- the summary


def summarise(
    cells: Mapping[tuple[str, float], Mapping[str, Any]],
    systems: Sequence[System],
    *,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """One row for each system, degradation and length, by the cells of ``run_cell``."""
    rows = []
    for system in systems:
        for length in sorted({length for _, length in cells}):
            own = {name: cell[system.name] for (name, at), cell in cells.items() if at == length}
            needed = _score_at(
                ALLOWED, [score for cell in own.values() for score in cell["calibration"]]
            )
            rows += [
                _row(system, name, length, cell, needed, resamples) for name, cell in own.items()
            ]
    return rows


def _row(
    system: System,
    degradation: str,
    length: float,
    cell: Mapping[str, Any],
    needed: float,
    resamples: int,
) -> dict:
    hit, groups = np.array(cell["hit"], bool), [str(i) for i in cell["recording"]]
    interval = metrics.share(hit, np.ones(len(hit)), groups=groups, resamples=resamples)
    score = _numbers(cell["score"])
    strangers = _numbers(cell["strangers"])
    return {
        "system": system.name,
        "degradation": degradation,
        "length": length,
        "queries": len(hit),
        "hit": interval[0],
        "hit_low": interval[1],
        "hit_high": interval[2],
        "near": _mean(cell["near"]),
        "hit_at_1_percent_false": _mean(hit & (score > needed)),
        "false_positive": _mean((strangers >= system.default_score) & np.isfinite(strangers)),
        "bit_error_true": _mean(cell["bit_error_true"]),
        "bit_error_random": _mean(cell["bit_error_random"]),
        "bytes_per_second": system.bytes_per_second,
        "ms_per_query": cell["ms"],
    }


def differences(cells, systems: Sequence[System], *, resamples: int = 1000) -> list[dict[str, Any]]:
    """Hit rate of the first system minus that of each other, on the same clips, recordings drawn
    whole.
    """
    rows = []
    for (degradation, length), cell in cells.items():
        first = cell[systems[0].name]
        groups, ones = [str(i) for i in first["recording"]], np.ones(len(first["hit"]))
        for other in systems[1:]:
            interval = metrics.paired_difference(
                first["hit"], cell[other.name]["hit"], ones, groups=groups, resamples=resamples
            )
            rows.append(
                {
                    "a": systems[0].name,
                    "b": other.name,
                    "degradation": degradation,
                    "length": length,
                }
                | dict(zip(("value", "low", "high"), interval, strict=True))
            )
    return rows


def half_found(
    rows: Sequence[Mapping[str, Any]], degradations: Mapping[str, Degradation]
) -> list[dict[str, Any]]:
    """The SNR at which half of the queries are found (Wang 2003), by linear interpolation between
    the SNRs measured.
    """
    result = []
    families = ("white noise", "noise", "mix")
    keys = sorted({(row["system"], row["length"]) for row in rows})
    for family in families:
        for system, length in keys:
            points = sorted(
                (degradations[row["degradation"]].strength, row["hit"])
                for row in rows
                if (row["system"], row["length"]) == (system, length)
                and degradations[row["degradation"]].family == family
            )
            if len(points) < 2:
                continue
            snr, note = _crossing(points)
            result.append(
                {"system": system, "noise": family, "length": length, "snr_db": snr, "note": note}
            )
    return result


def _crossing(points: Sequence[tuple[float, float]]) -> tuple[float | None, str]:
    if points[-1][1] < 0.5:
        return None, f"fewer than half at {points[-1][0]:g} dB"
    if points[0][1] >= 0.5:
        return None, f"more than half at {points[0][0]:g} dB"
    above = max(i for i in range(len(points) - 1) if points[i][1] < 0.5)
    (a, low), (b, high) = points[above], points[above + 1]
    return a + (b - a) * (0.5 - low) / (high - low), ""


def histograms(cells, systems: Sequence[System]) -> dict[str, Any]:
    """Bit error rates of true and of random pairs, over all cells."""
    edges = np.linspace(0, 0.7, 71)
    result = {}
    for system in systems:
        pairs = {
            kind: [v for cell in cells.values() for v in cell[system.name][f"bit_error_{kind}"]]
            for kind in ("true", "random")
        }
        if pairs["true"]:
            counts = {
                kind: np.histogram(values, edges)[0].tolist() for kind, values in pairs.items()
            }
            result[system.name] = {"edges": edges.tolist(), **counts}
    return result


def _score_at(rate: float, scores: Sequence[float | None]) -> float:
    """The score that a share ``rate`` of these exceed."""
    return (
        float(np.quantile(_numbers(scores), 1 - rate, method="higher")) if scores else float("inf")
    )


def _numbers(scores: Sequence[float | None]) -> np.ndarray:
    return np.array([-np.inf if score is None else score for score in scores], np.float64)


def _mean(values) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
