"""A hasher and a corpus of covers to the paper's table (IV), with floors beside every number.

Originals are the database, every window of every cover is a query (paper, III). The rules for ties
and intervals are those of ``metrics``.
"""

import functools
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from seqhash import controls, cover_codes, metrics, mfcc, paper, tables
from seqhash.codes import Hasher
from seqhash.config import Config, to_flat_dict
from seqhash.corpus import Recording

# a bootstrap over fewer works has hardly any different draws: its interval says nothing
MIN_WORKS = 5
# initial weights and projections differ by a few points: floors are pooled over seeds
FLOOR_SEEDS = 3
# floors that a model is told from in words
UNLEARNED = ("untrained LSTM", "random projection", "random kernel")
RANKED_CODES = 17  # of the windows by which whole recordings are compared: 5 s
PACKAGES = (
    "seqhash",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "librosa",
    "scikit-learn",
)


class System(NamedTuple):
    """One row of the table: tallies by number of hashes, pooled over seeds, and the codes' health
    (first seed).
    """

    tallies: dict[int, metrics.Tally]
    collisions: metrics.Collisions
    dead_bits: int
    effective_bits: float
    by_seed: list[dict[int, float]]


class Roles(NamedTuple):
    """Indices of the originals and of the covers that are asked; works whose covers are not, having
    no original.
    """

    originals: list[int]
    covers: list[int]
    lost: list[str]


def roles(recordings: Sequence[Recording]) -> Roles:
    """Who answers and who is asked. A file that cannot be read may take a work's original out of a
    feature store.
    """
    originals = [i for i, recording in enumerate(recordings) if recording.role == "original"]
    covers = [i for i, recording in enumerate(recordings) if recording.role == "cover"]
    works = {recordings[i].work for i in originals}
    lost = sorted({recordings[i].work for i in covers} - works)
    return Roles(originals, [i for i in covers if recordings[i].work in works], lost)


def hash_corpus(hasher: Hasher, cepstra: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Words of every recording. Each device of this process takes its share of them."""
    devices = jax.local_devices()

    def hash_one(i: int) -> np.ndarray:
        with jax.default_device(devices[i % len(devices)]):
            return hasher.hash_cepstra(np.asarray(cepstra[i]))

    with ThreadPoolExecutor(len(devices)) as pool:
        return list(pool.map(hash_one, range(len(cepstra))))


def measure(
    codes_by_seed: Sequence[list[np.ndarray]],
    recordings: Sequence[Recording],
    *,
    lengths: Sequence[int],
    distractors: Sequence[np.ndarray] = (),
) -> System:
    """Measures one system, from its codes under one or several seeds; of works without an original
    nothing is asked.

    Args:
      codes_by_seed: of each recording, uint32 (codes, words).
      recordings: of the corpus, in order.
      lengths: numbers of codes a window.
      distractors: codes of recordings of other works, which stand among the originals.
    """
    originals, covers, _ = roles(recordings)
    all_tallies = [
        metrics.tally_covers(
            [codes[i] for i in covers],
            [recordings[i].work for i in covers],
            [codes[i] for i in originals],
            [recordings[i].work for i in originals],
            lengths=lengths,
            distractors=distractors,
        )
        for codes in codes_by_seed
    ]
    return _system(all_tallies, codes_by_seed[0])


def measure_keys(
    states_by_seed: Sequence[Sequence[np.ndarray]],
    recordings: Sequence[Recording],
    *,
    lengths: Sequence[int],
    rule: str = "plain",
    distractors: Sequence[np.ndarray] = (),
) -> System:
    """Measures a hasher whose codes turn with the key, each window at the nearest of 12 rotations.

    Args:
      states_by_seed: of each recording, float32 (codes, ring).
      recordings: of the corpus, in order; of works without an original nothing is asked.
      lengths: numbers of codes a window.
      rule: ``plain``, Hamming distances (the paper's rule); ``weighted``, the query's bits weighted
        and other keys than its own penalised; ``oracle``, weighted, in the one key that the
        manifest's ``key_shift`` says, of the covers that have it.
      distractors: of ``measure``.
    """
    originals, covers, _ = roles(recordings)
    weighted = rule != "plain"
    penalties = cover_codes.same_key(lengths) if rule == "weighted" else None
    shifts = {i: _semitones(recordings[i]) for i in covers}
    all_tallies, words = [], []
    for states in states_by_seed:
        codes = [cover_codes.words_of(one) for one in states]
        queries = (cover_codes.asked(states[i], weighted=weighted) for i in covers)
        if rule == "oracle":  # where it is not known nothing is asked
            queries = (
                query[[round(known) % len(query)]] if known is not None else query[:, :0]
                for query, known in zip(queries, shifts.values(), strict=True)
            )
        all_tallies.append(
            metrics.tally_versions(
                list(queries),
                [recordings[i].work for i in covers],
                [codes[i] for i in originals],
                [recordings[i].work for i in originals],
                lengths=lengths,
                distractors=distractors,
                penalties=penalties,
            )
        )
        words.append(codes)
    return _system(all_tallies, words[0])


def _system(all_tallies: Sequence[dict[int, metrics.Tally]], codes: list[np.ndarray]) -> System:
    """Tallies pooled over seeds, and the health of the first seed's codes."""
    lengths = list(all_tallies[0])
    pooled = {
        n: metrics.Tally(
            *(
                np.sum(fields, axis=0)
                for fields in zip(*(tallies[n] for tallies in all_tallies), strict=True)
            )
        )
        for n in lengths
    }
    values = [
        {n: float(t[n].strict.sum() / max(1, t[n].windows.sum())) for n in lengths}
        for t in all_tallies
    ]
    return System(
        pooled,
        metrics.collisions(codes),
        metrics.dead_bits(codes),
        metrics.effective_bits(codes),
        values,
    )


def report_keys(
    states: Sequence[np.ndarray],
    control: Sequence[np.ndarray],
    recordings: Sequence[Recording],
    *,
    lengths: Sequence[int],
    config: Config,
    resamples: int = 1000,
    distractors: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """``report`` of a hasher whose codes turn with the key, and beside it what a query knows more.

    ``cover_accuracy`` is of plain Hamming distances at the nearest of 12 rotations, and so are the
    floors; ``cover_accuracy_weighted`` and ``cover_accuracy_oracle`` are the other rules of
    ``measure_keys``; ``map``, ``mr1`` and ``top10`` are of whole recordings, each asked for its
    other versions. Their intervals draw works. Among distractors the three rules alone are
    measured, neither the control nor whole recordings: what grows with the distractors is one
    search a rule.

    Args:
      states: of each recording, float32 (codes, ring).
      control: the same of the unlearned kernel.
      recordings: of the corpus, in order.
      lengths: numbers of codes a window.
      config: of the hasher.
      resamples: of the bootstrap.
      distractors: of ``measure``.
    """
    measured = functools.partial(measure_keys, recordings=recordings, lengths=lengths)
    plain = measured([states], distractors=distractors)
    others = {} if distractors else {"random kernel": measured([control])}
    result = report(
        plain,
        others,
        recordings,
        config=config,
        resamples=resamples,
        distractors=len(distractors),
    )
    covers = [recordings[i] for i in roles(recordings).covers]
    for rule in ("weighted", "oracle"):
        system = measured([states], rule=rule, distractors=distractors)
        data = _as_data(system, covers, resamples)["cover_accuracy"]
        if any(values["windows"] for values in data.values()):
            result[f"cover_accuracy_{rule}"] = data
    if distractors:
        return result
    works = [recording.work for recording in recordings]
    queries = [cover_codes.asked(one, weighted=True) for one in states]
    codes = [cover_codes.words_of(one) for one in states]
    alike = metrics.alikeness(queries, codes, length=RANKED_CODES)
    ranking = metrics.rank_versions(alike, works)
    asked = [works[i] for i in ranking.query]
    once = np.ones(len(asked))
    measures = {
        "map": ranking.average_precision,
        "mr1": ranking.first,
        "top10": ranking.in_ten,
    }
    for name, values in measures.items():
        interval = metrics.share(values, once, groups=asked, resamples=resamples)
        result[name] = interval._asdict() | {"recordings": len(asked)}
    return result


def epoch_metrics(
    hasher: Hasher, recordings: Sequence[Recording], cepstra: Sequence[np.ndarray]
) -> dict[str, Any]:
    """What a training run reports after each epoch: unique and collision rate, accuracy at 1 and 9
    hashes.

    Over all recordings; the accuracies only where there are covers and their originals.
    """
    codes = hash_corpus(hasher, cepstra)
    repeats = metrics.collisions(codes)
    row: dict[str, Any] = {
        "unique_rate": repeats.unique_rate,
        "collision_rate": repeats.collision_rate,
        "dead_bits": metrics.dead_bits(codes),
        "effective_bits": metrics.effective_bits(codes),
    }
    if roles(recordings).covers:
        tallies = measure([codes], recordings, lengths=(1, 9)).tallies
        row["accuracy"] = {
            n: float(t.strict.sum() / max(1, t.windows.sum())) for n, t in tallies.items()
        }
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
    """The floors of the table. training: cepstra that PCA-sign is fitted on, (frames, coeffs)
    each.
    """
    keys = [jax.random.key(1000 + seed) for seed in range(FLOOR_SEEDS)]
    codes = {
        "untrained LSTM": [
            hash_corpus(controls.untrained(key, config, statistics), cepstra) for key in keys
        ],
        "random projection": [
            hash_corpus(controls.random_projection(key, config, statistics), cepstra)
            for key in keys
        ],
        "PCA-sign": [hash_corpus(controls.pca_sign(training, config, statistics), cepstra)],
    }
    shape = codes["PCA-sign"][0]
    codes["random codes"] = [controls.random_codes(seed, shape) for seed in range(FLOOR_SEEDS)]
    return {name: measure(by_seed, recordings, lengths=lengths) for name, by_seed in codes.items()}


def report(
    system: System,
    others: Mapping[str, System],
    recordings: Sequence[Recording],
    *,
    config: Config,
    resamples: int = 1000,
    distractors: int = 0,
) -> dict[str, Any]:
    """The table as data: what ``results.json`` holds.

    Args:
      system: the trained hasher's.
      others: floors and companions, by name.
      recordings: of the corpus, in order.
      config: of the trained hasher.
      resamples: of the bootstrap.
      distractors: recordings among the originals that are not of the corpus.
    """
    known = roles(recordings)
    covers = [recordings[i] for i in known.covers]
    works = [cover.work for cover in covers]
    originals = len(known.originals) + distractors
    result = _as_data(system, covers, resamples)
    result["floors"] = {
        "chance": {"cover_accuracy": {str(n): {"value": 1 / originals} for n in system.tallies}}
    }
    result["floors"] |= {name: _as_data(other, covers, resamples) for name, other in others.items()}
    result["gain"] = {
        name: {
            str(n): _difference(tally, other.tallies[n], works, resamples)
            for n, tally in system.tallies.items()
            if tally.windows.any()
        }
        for name, other in others.items()
    }
    result["config"] = to_flat_dict(config)
    result["versions"] = versions()
    counts = {
        "recordings": len(recordings) + distractors,
        "originals": originals,
        "covers": len(covers),
    }
    result["corpus"] = counts | {"works_left_out": known.lost}
    return result


def table(result: Mapping[str, Any], *, name: str = "trained") -> str:
    """The report as a Markdown table: accuracy in %, strict rule, with its 95 % interval; health of
    the codes.
    """
    lengths = list(result["cover_accuracy"])
    head = [
        "",
        *(_hashes(n) for n in lengths),
        "a tie in one recording is right",
        "collisions (within + between), %",
    ]
    reported = ["paper, its own corpus", *(_percent(paper.ACCURACY.get(int(n))) for n in lengths)]
    rows = [
        [*reported, "", _percent(paper.COLLISION_RATE), "", ""],
        _row(name, result, lengths),
    ]
    rows += [_row(floor, values, lengths) for floor, values in result["floors"].items()]
    return tables.markdown([[*head, "dead bits", "effective bits"], *rows])


def table_of_hashers(rows: Mapping[str, Any]) -> str:
    """Accuracy in % by lengths of several hashers, of each corpus plain and weighted, in Markdown.

    Args:
      rows: by name of the hasher, its ``numbers`` and, by corpus and rule, shares of each length.
    """
    corpora = [name for name in next(iter(rows.values())) if name != "numbers"]
    head = [f"`{of}`, {rule}" for of in corpora for rule in ("plain", "weighted")]
    lines = [["", "numbers", *head]]
    for name, row in rows.items():
        cells = [row[of][rule] for of in corpora for rule in ("plain", "weighted")]
        shown = (" / ".join(_percent(value, 0) or "-" for value in one) for one in cells)
        lines.append([f"`{name}`" if "=" in name else name, f"{row['numbers']:,}", *shown])
    return tables.markdown(lines, left=1)


def split_table(result: Mapping[str, Any], *, name: str = "trained") -> str:
    """Accuracy in % by genre and by key, as a Markdown table; empty where the manifest tells
    neither.
    """
    lengths = list(result["cover_accuracy"])
    systems = {name: result} | {
        floor: values for floor, values in result["floors"].items() if floor in UNLEARNED
    }
    rows = [
        [
            f"{split}: {system}",
            *(_percent(values["cover_accuracy"][n]["splits"][split]["value"]) for n in lengths),
        ]
        for split in result["cover_accuracy"][lengths[0]]["splits"]
        for system, values in systems.items()
    ]
    return tables.markdown([["", *(_hashes(n) for n in lengths)], *rows]) if rows else ""


def keys_table(result: Mapping[str, Any]) -> str:
    """Of a hasher whose codes turn with the key, what a query knows more: accuracy in %, strict
    rule, with its 95 % interval over works, as a Markdown table; then the field's measures.
    """
    lengths = list(result["cover_accuracy"])
    rules = {
        "cover_accuracy": "plain Hamming, nearest of 12 rotations",
        "cover_accuracy_weighted": "query weights, same-key prior",
        "cover_accuracy_oracle": "query weights, true key known",
    }
    rows = [
        [title, *(_cell(result[rule][n], "work_") for n in lengths)]
        for rule, title in rules.items()
        if rule in result
    ]
    table = tables.markdown([["", *(_hashes(n) for n in lengths)], *rows])
    whole = {name: result[name] for name in ("map", "mr1", "top10") if name in result}
    if not whole:
        return table
    words = ", ".join(
        f"{name.upper()} {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        for name, found in whole.items()
    )
    return f"{table}\nWhole recordings, each asked for its other versions: {words}."


def verdict(result: Mapping[str, Any]) -> str:
    """Whether training bought anything, in plain words: the paired difference to each floor at each
    length.
    """
    lines = []
    for name in (name for name in UNLEARNED if name in result["gain"]):
        parts = []
        for n, gain in result["gain"][name].items():
            word = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "no different"
            if gain["works"] < MIN_WORKS:
                word = "too few works to say"
            parts.append(
                f"{n}: {100 * gain['value']:+.1f} "
                f"[{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}] {word}"
            )
        lines.append(
            f"Trained minus {name}, points of accuracy by number of hashes: "
            + "; ".join(parts)
            + "."
        )
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
        entry["splits"] = {
            name: _accuracy(tally, covers, mask, resamples) for name, mask in splits(covers).items()
        }
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
    """Masks (covers,) by genre, and by whether the cover keeps the original's key, of those whose
    manifest tells.

    ValueError, with the cover's id: a key_shift (semitones) that is no number.
    """
    masks = {}
    for genre in sorted({cover.genre for cover in covers} - {""}):
        masks[f"genre {genre}"] = np.array([cover.genre == genre for cover in covers])
    shifts = [_semitones(cover) for cover in covers]
    masks["same key"] = np.array([shift is not None and shift % 12 == 0 for shift in shifts])
    masks["other key"] = np.array([shift is not None and shift % 12 != 0 for shift in shifts])
    return {name: mask for name, mask in masks.items() if mask.any()}


def _semitones(cover: Recording) -> float | None:
    text = cover.extra.get("key_shift", "").strip()
    try:
        shift = float(text) if text else None
    except ValueError:
        shift = math.nan
    if shift is not None and not math.isfinite(shift):
        raise ValueError(f"{cover.id}: key_shift must be a number, got {text!r}.")
    return shift


def _accuracy(
    tally: metrics.Tally, covers: Sequence[Recording], mask: np.ndarray, resamples: int
) -> dict[str, Any]:
    works = [cover.work for cover, keep in zip(covers, mask, strict=True) if keep]
    return metrics.accuracy(metrics.subset(tally, mask), works, resamples=resamples)._asdict()


def _difference(
    a: metrics.Tally, b: metrics.Tally, works: Sequence[str], resamples: int
) -> dict[str, Any]:
    """Accuracy of a minus that of b, drawing whole works: the covers of a work succeed and fail
    together.

    A tally may pool several seeds, so shares are compared, not counts.
    """
    windows = np.maximum(a.windows, 1)
    share_a, share_b = a.strict / windows, b.strict / np.maximum(b.windows, 1)
    weights = a.windows
    difference = metrics.paired_difference(
        share_a * weights, share_b * weights, weights, groups=works, resamples=resamples
    )
    asked = {work for work, windows in zip(works, a.windows, strict=True) if windows}
    return difference._asdict() | {"works": len(asked)}


def _row(name: str, values: Mapping[str, Any], lengths: Sequence[str]) -> list[str]:
    cells = [name, *(_cell(values["cover_accuracy"][n]) for n in lengths)]
    if "collision_rate" not in values:
        return [*cells, "", "", "", ""]
    lenient = " / ".join(_percent(values["cover_accuracy"][n]["lenient"], 1) for n in lengths)
    repeats = values["collisions"]
    parts = f"({_percent(repeats['within_rate'])} + {_percent(repeats['between_rate'])})"
    health = [str(values["dead_bits"]), f"{values['effective_bits']:.0f}"]
    return [*cells, lenient, f"{_percent(values['collision_rate'])} {parts}", *health]


def _cell(accuracy: Mapping[str, Any], interval: str = "") -> str:
    """Accuracy in % and its interval; ``work_`` is the one over works."""
    low, high = (accuracy.get(f"{interval}{end}") for end in ("low", "high"))
    measured = low is not None and accuracy["windows"]
    beside = f" [{_percent(low, 1)}, {_percent(high, 1)}]" if measured else ""
    return _percent(accuracy["value"]) + beside


def _hashes(n: str) -> str:
    return f"{n} hash{'es' if n != '1' else ''}"


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"
