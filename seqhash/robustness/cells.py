"""Degraded excerpts, identified by several systems: plan, one cell, and the summary of all (paper,
V).

A **cell** is one degradation at one query length: every system is asked the same clips. Three kinds
of clips are cut: *present* queries of recordings in the index; *absent* queries of recordings that
are not, which say how often a system answers falsely; and *calibration* clips of other recordings
that are not, degraded with other noises and rooms, on which the scores for 1 % false answers are
set. No recording, noise or room is used for both.
"""

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqhash import metrics
from seqhash.index.searcher import Match
from seqhash.robustness.degrade import SAMPLE_RATE, SNR_FAMILIES, Degradation
from seqhash.robustness.systems import Position, System

Clips = list[tuple["Place", np.ndarray, float]]  # samples, and where they begin in s
Measured = Mapping[str, Mapping[str, Any]]  # lists over clips, by system: a cell
Cells = Mapping[tuple[str, float], Measured]  # by degradation and length in s

SPARE_SECONDS = 0.02  # a clip is so much longer: exactly 1 s is one MFCC frame short of a segment
NEAR_SECONDS = 0.5
QUIET = 1e-4  # RMS of a clip that is not asked for: there is nothing in it
ALLOWED = 0.01  # false answers, where systems are compared
OUTSIDE = 50  # clips of either kind outside the index, at least
BIT_ERROR_CLIPS = 60  # of a cell, enough for a histogram


class Place(NamedTuple):
    """Where a clip is cut."""

    recording: int
    share: float  # of the room that a clip of its length has


class Plan(NamedTuple):
    """What is asked, the same for all degradations, lengths and systems."""

    indexed: tuple[int, ...]  # recordings
    present: tuple[Place, ...]
    absent: tuple[Place, ...]
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
            f"Three works that can be read are needed, two of them to leave out, got {len(order)}."
        )
    kinds = order[count:], order[: count // 2], order[count // 2 : count]
    recordings = [np.flatnonzero(np.isin(works, kind)) for kind in kinds]
    indexed, absent, calibration = recordings
    outside = max(OUTSIDE, -(-queries // 4))
    return Plan(
        tuple(int(i) for i in indexed),
        _places(indexed, queries, rng),
        _places(absent, outside, rng),
        _places(calibration, outside, rng),
    )


def _places(recordings: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Place, ...]:
    """Places spread evenly over the recordings."""
    chosen = np.resize(rng.permutation(recordings), count)
    return tuple(
        Place(int(recording), float(share))
        for recording, share in zip(chosen, rng.random(count), strict=True)
    )


def cut(
    samples: np.ndarray, place: Place, *, seconds: float, degradation: Degradation, seed: int
) -> tuple[np.ndarray, float] | None:
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
    name = zlib.crc32(f"{degradation.name} {seconds:g} {place}".encode())
    return degradation.apply(np.random.default_rng([seed, name]), clip), begin / SAMPLE_RATE


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
      reported: what is done to the present and the absent queries.
      calibrating: the same with other noises and rooms, for the calibration clips.
      seed: of the degradations.

    Returns:
      For each system lists over clips, as JSON takes them.
    """
    kinds = (
        ("present", plan.present, reported),
        ("absent", plan.absent, reported),
        ("calibration", plan.calibration, calibrating),
    )
    clips: dict[str, Clips] = {}
    for kind, places, degradation in kinds:
        clips[kind] = []
        for place in places:
            samples = recordings[place.recording]
            made = cut(samples, place, seconds=seconds, degradation=degradation, seed=seed)
            if made is not None:
                clips[kind].append((place, *made))
    numbers = {recording: i for i, recording in enumerate(plan.indexed)}
    right = [(numbers[place.recording], begin) for place, _, begin in clips["present"]]
    cell: dict[str, Any] = {}
    for system in systems:
        index, answers, begun = indexes[system.name], {}, _cpu_seconds()
        for kind, group in clips.items():
            answers[kind] = system.candidates(index, [clip for _, clip, _ in group])
        elapsed = (_cpu_seconds() - begun) * 1000 / max(1, sum(map(len, clips.values())))
        best = [found[0] if found else None for found in answers["present"]]
        hit = [
            one is not None and one.recording == number
            for one, (number, _) in zip(best, right, strict=True)
        ]
        late = [
            math.inf if one is None else one.offset - begin - reported.time_scale * one.start
            for one, (_, begin) in zip(best, right, strict=True)
        ]
        cell[system.name] = {
            "recording": [place.recording for place, _, _ in clips["present"]],
            "hit": hit,
            "near": [
                same and abs(one) <= NEAR_SECONDS for same, one in zip(hit, late, strict=True)
            ],
            "score": _scores(answers["present"]),
            "absent": _scores(answers["absent"]),
            "calibration": _scores(answers["calibration"]),
            "ms": elapsed,
            **_bit_errors(system, index, [clip for _, clip, _ in clips["present"]], right),
        }
    return cell


def _cpu_seconds() -> float:
    """Of this process and of the programs that it ran."""
    return sum(os.times()[:4])


def _scores(answers: Sequence[Sequence[Match]]) -> list[float | None]:
    """The best answer's score of each clip; None where there is no answer."""
    return [found[0].score if found else None for found in answers]


def _bit_errors(
    system: System, index: Any, clips: Sequence[np.ndarray], places: Sequence[Position]
) -> dict[str, list[float]]:
    """Bit error rates of some clips against their own place in the index (``true``), and against
    another clip's (``random``).

    Args:
      system: whose codes.
      index: of the system.
      clips: samples.
      places: of each.
    """
    some = slice(None, None, max(1, len(clips) // BIT_ERROR_CLIPS))
    own, others = places[some], [*places[some][1:], *places[some][:1]]
    rates = [
        system.bit_errors(index, clip, [true, random])
        for clip, true, random in zip(clips[some], own, others, strict=True)
    ]
    return {
        "bit_error_true": [r[0] for r in rates if r],
        "bit_error_random": [r[1] for r in rates if r],
    }


# -------------------------------------------------------------------------------------- the summary


def summarise(
    cells: Cells, systems: Sequence[System], *, resamples: int = 1000
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
) -> dict[str, Any]:
    hit, groups = np.array(cell["hit"], bool), [str(i) for i in cell["recording"]]
    interval = metrics.share(hit, np.ones(len(hit)), groups=groups, resamples=resamples)
    score = _numbers(cell["score"])
    absent = _numbers(cell["absent"])
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
        "false_positive": _mean((absent >= system.default_score) & np.isfinite(absent)),
        "bit_error_true": _mean(cell["bit_error_true"]),
        "bit_error_random": _mean(cell["bit_error_random"]),
        "bytes_per_second": system.bytes_per_second,
        "ms_per_query": cell["ms"],
    }


def differences(
    cells: Cells, systems: Sequence[System], *, resamples: int = 1000
) -> list[dict[str, Any]]:
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
    keys = sorted({(row["system"], row["length"]) for row in rows})
    for family in SNR_FAMILIES:
        for system, length in keys:
            points = sorted(
                (degradations[row["degradation"]].strength, row["hit"])
                for row in rows
                if (row["system"], row["length"]) == (system, length)
                and degradations[row["degradation"]].family == family
                and not math.isnan(row["hit"])
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


def histograms(cells: Cells, systems: Sequence[System]) -> dict[str, Any]:
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


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
