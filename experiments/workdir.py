"""What the scripts share: where things are in a workdir, and how they end when the user's input is
wrong.

W/features/        feature store of the training corpus (prepare)
W/config.json      config of the run (train)
W/checkpoints/     orbax checkpoints, config inside (train)
W/metrics.jsonl    one line an epoch (train)
W/evaluation/      feature store of another evaluated corpus (evaluate)
W/results.json     the table (evaluate), pictures beside it in W/figures/
"""

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from seqhash import corpus, evaluate, features, mfcc, parallel
from seqhash.config import Config, from_flat_dict, override, to_flat_dict
from seqhash.train import TrainingDiverged

SEGMENTS_A_CORE = 32  # smallest part of a batch that keeps a core busy
EXIT_BAD_INPUT = 2  # a message on stderr says what
EXIT_STRICT = 3  # --strict, and some files could not be used
EXIT_STOPPED = 130  # by Ctrl-C, as shells count


def store_path(workdir: str | Path) -> Path:
    """The feature store of the training corpus."""
    return Path(workdir) / "features"


def figures(workdir: str | Path) -> Path:
    """The folder of pictures, made where it is missing."""
    path = Path(workdir) / "figures"
    path.mkdir(parents=True, exist_ok=True)
    return path


def prepare(
    recordings: Sequence[corpus.Recording], directory: Path, config: Config, *, workers: int = 2
) -> features.Report:
    """Features of recordings into a store, skipping what is there and current."""
    settings = {
        name: value for name, value in to_flat_dict(config).items() if name.startswith("mfcc.")
    }
    return features.prepare(
        recordings,
        directory,
        features=lambda blocks: mfcc.stream(blocks, config=config.mfcc),
        settings=settings,
        sample_rate=config.mfcc.sample_rate,
        minimum_seconds=mfcc.shortest_seconds(config.segment.frames, config=config.mfcc),
        workers=workers,
    )


def config_for(store: features.Store, changes: Sequence[str]) -> Config:
    """The config of a run on prepared features: what they were made with, then the changes.

    ValueError where a change asks for other features than the store has.
    """
    base = from_flat_dict(store.settings)
    config = override(base, changes)
    require_features(store, config)
    return config


def require_features(store: features.Store, config: Config) -> None:
    """Raises ValueError, naming the fields, where a store was prepared otherwise than a config
    asks.
    """
    asked = {
        name: value for name, value in to_flat_dict(config).items() if name.startswith("mfcc.")
    }
    other = [
        f"{name}={value}" for name, value in asked.items() if store.settings.get(name) != value
    ]
    if other:
        raise ValueError(
            f"The features were prepared otherwise than {', '.join(other)}: run prepare with it first."
        )


def use_all_cores(batch_size: int = 1 << 20) -> None:
    """Makes the CPU's cores devices of their own, each walking a part of a batch. Call before jax
    computes.

    One program on two cores is no faster than on one (the products of a step are too small to
    share); two devices are 1.8 times as fast as one core. A device keeps at least SEGMENTS_A_CORE
    segments; GPUs and TPUs do not change.
    """
    most = min(parallel.cores(), batch_size // SEGMENTS_A_CORE)
    devices = max(n for n in range(1, max(1, most) + 1) if batch_size % n == 0)
    jax.config.update("jax_num_cpu_devices", devices)


def write_json(path: Path, value: Any) -> None:
    """Written whole or not at all; what is not a number (an accuracy over no windows) becomes
    null.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(_strict(value), indent=1, allow_nan=False) + "\n")
    fresh.replace(path)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole_numbers(flag: str, values: Sequence[str]) -> tuple[int, ...]:
    """The numbers of a list flag; ValueError names the flag."""
    if not values or not all(value.strip().isdecimal() for value in values):
        raise ValueError(f"--{flag} must be whole numbers, as 1,9, got {','.join(values)!r}.")
    return tuple(int(value) for value in values)


def report_failures(failed: Sequence[tuple[Any, str]]) -> None:
    """Lists what could not be used, on stderr."""
    for path, reason in failed:
        print(f"skipped {path}: {reason}", file=sys.stderr)


def report_lost(recordings: Sequence[corpus.Recording]) -> None:
    """Names, on stderr, the works whose covers are not asked."""
    for work in evaluate.roles(recordings).lost:
        print(f"work {work} is left out: its original could not be read", file=sys.stderr)


def require_covers(store: features.Store) -> None:
    """Names the works that are left out; raises ManifestError where that leaves no covers."""
    report_lost(store.recordings)
    known = evaluate.roles(store.recordings)
    corpus.require_covers([store.recordings[i] for i in (*known.originals, *known.covers)])


def run(main: Callable[[], int | None], *, more_of: str = "") -> None:
    """Runs a script's main under absl; bad input ends in one line on stderr and EXIT_BAD_INPUT, not
    in a traceback.

    more_of: a flag that takes any number of name=value: ``--set a=1 b=2`` is ``--set a=1 --set
      b=2``.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        changes = [word for word in argv[1:] if more_of and "=" in word]
        if stray := [word for word in argv[1:] if word not in changes]:
            print(f"unexpected argument {stray[0]!r}; see --help", file=sys.stderr)
            return EXIT_BAD_INPUT
        if more_of:
            flags.FLAGS[more_of].value += changes  # type: ignore[operator]
        try:
            return main()
        except (ValueError, OSError, TrainingDiverged) as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_BAD_INPUT
        except KeyboardInterrupt:
            print("stopped; the same command goes on where it was", file=sys.stderr)
            return EXIT_STOPPED

    flags.FLAGS.set_gnu_getopt()  # flags may follow other words
    logging.set_verbosity(logging.WARNING)  # jax and orbax tell much that is of no use here
    app.run(guarded)
