"""A hasher and a corpus of covers to the paper's table (IV), with floors beside every number.

Originals are the database, every window of every cover is a query (paper, III). The rules for ties and intervals are
those of ``metrics``.
"""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from seqhash import floors, metrics, mfcc
from seqhash.codes import Hasher
from seqhash.config import Config, to_flat_dict
from seqhash.corpus import Recording

FLOOR_SEEDS = 3  # initial weights and projections differ by a few points: floors are pooled over seeds
PAPER = {"accuracy": {1: 0.1042, 9: 0.2028}, "collision_rate": 0.2009, "loss": {"epoch 0": 8.883, "epoch 40": 1.662}}
PACKAGES = ("seqhash", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "librosa", "scikit-learn")


class System(NamedTuple):
    """One row of the table: tallies by number of hashes, pooled over seeds, and the codes' health (first seed)."""

    tallies: dict[int, metrics.Tally]
    collisions: metrics.Collisions
    dead_bits: int
    effective_bits: float
    by_seed: list[dict[int, float]]


def hash_corpus(hasher: Hasher, cepstra: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Words of every recording."""
    return [hasher.hash_cepstra(np.asarray(one)) for one in cepstra]


def measure(
    codes_by_seed: Sequence[list[np.ndarray]], recordings: Sequence[Recording], *, lengths: Sequence[int]
) -> System:
    """Measures one system, from its codes under one or several seeds."""
    originals = [i for i, recording in enumerate(recordings) if recording.role == "original"]
    covers = [i for i, recording in enumerate(recordings) if recording.role == "cover"]
    all_tallies = [
        metrics.tally_covers(
            [codes[i] for i in covers],
            [recordings[i].work for i in covers],
            [codes[i] for i in originals],
            [recordings[i].work for i in originals],
            lengths=lengths,
        )
        for codes in codes_by_seed
    ]
    pooled = {
        n: metrics.Tally(
            *(np.sum(fields, axis=0) for fields in zip(*(tallies[n] for tallies in all_tallies), strict=True))
        )
        for n in lengths
    }
    values = [{n: float(t[n].strict.sum() / max(1, t[n].windows.sum())) for n in lengths} for t in all_tallies]
    first = codes_by_seed[0]
    return System(pooled, metrics.collisions(first), metrics.dead_bits(first), metrics.effective_bits(first), values)


def epoch_metrics(hasher: Hasher, recordings: Sequence[Recording], cepstra: Sequence[np.ndarray]) -> dict[str, Any]:
    """What a training run reports after each epoch: unique and collision rate, accuracy at 1 and 9 hashes.

    Over all recordings; the accuracies only where the recordings have roles.
    """
    codes = hash_corpus(hasher, cepstra)
    repeats = metrics.collisions(codes)
    row: dict[str, Any] = {
        "unique_rate": repeats.unique_rate,
        "collision_rate": repeats.collision_rate,
        "dead_bits": metrics.dead_bits(codes),
        "effective_bits": metrics.effective_bits(codes),
    }
    if any(recording.role == "cover" for recording in recordings):
        tallies = measure([codes], recordings, lengths=(1, 9)).tallies
        row["accuracy"] = {n: float(t.strict.sum() / max(1, t.windows.sum())) for n, t in tallies.items()}
    return row


def floor_systems(
    config: Config,
    statistics: mfcc.Statistics,
    training: Sequence[np.ndarray],
    recordings: Sequence[Recording],
    cepstra: Sequence[np.ndarray],
    *,
    lengths: Sequence[int],
) -> dict[str, System]:
    """The floors of the table. training: cepstra that PCA-sign is fitted on, (frames, coeffs) each."""
    keys = [jax.random.key(1000 + seed) for seed in range(FLOOR_SEEDS)]
    codes = {
        "untrained LSTM": [hash_corpus(floors.untrained(key, config, statistics), cepstra) for key in keys],
        "random projection": [hash_corpus(floors.random_projection(key, config, statistics), cepstra) for key in keys],
        "PCA-sign": [hash_corpus(floors.pca_sign(training, config, statistics), cepstra)],
    }
    shape = codes["PCA-sign"][0]
    codes["random codes"] = [floors.random_codes(seed, shape) for seed in range(FLOOR_SEEDS)]
    return {name: measure(by_seed, recordings, lengths=lengths) for name, by_seed in codes.items()}


def report(
    system: System,
    others: Mapping[str, System],
    recordings: Sequence[Recording],
    *,
    config: Config,
    resamples: int = 1000,
) -> dict[str, Any]:
    """The table as data: what ``results.json`` holds.

    Args:
      system: the trained hasher's.
      others: floors and companions, by name.
      recordings: of the corpus, in order.
      config: of the trained hasher.
      resamples: of the bootstrap.
    """
    covers = [recording for recording in recordings if recording.role == "cover"]
    works = [recording.work for recording in covers]
    originals = sum(recording.role == "original" for recording in recordings)
    result = _as_data(system, covers, resamples)
    result["floors"] = {"chance": {"cover_accuracy": {str(n): {"value": 1 / originals} for n in system.tallies}}}
    result["floors"] |= {name: _as_data(other, covers, resamples) for name, other in others.items()}
    result["gain"] = {
        name: {str(n): _difference(system.tallies[n], other.tallies[n], works, resamples) for n in system.tallies}
        for name, other in others.items()
    }
    result["config"] = to_flat_dict(config)
    result["versions"] = versions()
    result["corpus"] = {"recordings": len(recordings), "originals": originals, "covers": len(covers)}
    return result


def table(result: Mapping[str, Any], *, name: str = "trained") -> str:
    """The report as text: accuracy in % under the strict rule with its 95 % interval, and the health of the codes."""
    lengths = list(result["cover_accuracy"])
    head = [
        "",
        *(f"{n} hash{'es' if n != '1' else ''}" for n in lengths),
        "ties in one rec. ok",
        "collisions",
        "dead",
        "eff. bits",
    ]
    rows = [["paper", *(_percent(PAPER["accuracy"].get(int(n))) for n in lengths), "", "20.09 %", "", ""]]  # type: ignore[attr-defined]
    rows.append(_row(name, result, lengths))
    rows += [_row(floor, values, lengths) for floor, values in result["floors"].items()]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def verdict(result: Mapping[str, Any]) -> str:
    """Whether training bought anything, in plain words: the paired difference to each floor at each length."""
    lines = []
    for name in ("untrained LSTM", "random projection"):
        parts = []
        for n, gain in result["gain"][name].items():
            word = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "no different"
            parts.append(
                f"{n}: {100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}] {word}"
            )
        lines.append(f"Trained minus {name}, points of accuracy by number of hashes: " + "; ".join(parts) + ".")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Python's and the packages' versions, and the device that jax computes on."""
    found = {"python": platform.python_version(), "device": jax.devices()[0].device_kind}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _as_data(system: System, covers: Sequence[Recording], resamples: int) -> dict[str, Any]:
    repeats = system.collisions
    by_length = {}
    for n, tally in system.tallies.items():
        entry = _accuracy(tally, covers, np.ones(len(covers), bool), resamples)
        entry["splits"] = {name: _accuracy(tally, covers, mask, resamples) for name, mask in splits(covers).items()}
        entry["by_seed"] = [values[n] for values in system.by_seed]
        by_length[str(n)] = entry
    return {
        "cover_accuracy": by_length,
        "unique_rate": repeats.unique_rate,
        "collision_rate": repeats.collision_rate,
        "collisions": repeats._asdict(),
        "dead_bits": system.dead_bits,
        "effective_bits": system.effective_bits,
    }


def splits(covers: Sequence[Recording]) -> dict[str, np.ndarray]:
    """Masks (covers,) by genre, and by whether the cover keeps the original's key, where the manifest tells."""
    masks = {}
    for genre in sorted({cover.genre for cover in covers} - {""}):
        masks[f"genre {genre}"] = np.array([cover.genre == genre for cover in covers])
    shifts = [cover.extra.get("key_shift", "") for cover in covers]
    if all(shifts):
        kept = np.array([float(shift) % 12 == 0 for shift in shifts])
        masks |= {"same key": kept, "other key": ~kept}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _accuracy(tally: metrics.Tally, covers: Sequence[Recording], mask: np.ndarray, resamples: int) -> dict[str, Any]:
    works = [cover.work for cover, keep in zip(covers, mask, strict=True) if keep]
    return metrics.accuracy(metrics.subset(tally, mask), works, resamples=resamples)._asdict()


def _difference(a: metrics.Tally, b: metrics.Tally, works: Sequence[str], resamples: int) -> dict[str, float]:
    """Accuracy of a minus that of b, drawing whole works: the covers of a work succeed and fail together.

    A tally may pool several seeds, so shares are compared, not counts.
    """
    windows = np.maximum(a.windows, 1)
    share_a, share_b = a.strict / windows, b.strict / np.maximum(b.windows, 1)
    weights = a.windows
    difference = metrics.paired_difference(
        share_a * weights, share_b * weights, weights, groups=works, resamples=resamples
    )
    return difference._asdict()


def _row(name: str, values: Mapping[str, Any], lengths: Sequence[str]) -> list[str]:
    cells = [name]
    for n in lengths:
        accuracy = values["cover_accuracy"][n]
        interval = f" [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]" if "low" in accuracy else ""
        cells.append(_percent(accuracy["value"]) + interval)
    if "collision_rate" not in values:
        return [*cells, "", "", "", ""]
    lenient = " / ".join(f"{100 * values['cover_accuracy'][n]['lenient']:.1f}" for n in lengths)
    return [
        *cells,
        lenient,
        f"{100 * values['collision_rate']:.2f} %",
        str(values["dead_bits"]),
        f"{values['effective_bits']:.0f}",
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
