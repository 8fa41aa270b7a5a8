"""Checkpoints of a training run, by orbax, with the config inside.

A checkpoint is the train state, what turns it into a hasher (statistics of the training frames,
medians of the training states), and the config as JSON. The newest three are kept; resuming needs
the newest, so there is no "best".
"""

import contextlib
import signal
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from seqhash import mfcc
from seqhash.codes import Hasher, make_hasher
from seqhash.config import Config, from_flat_dict, override, to_flat_dict

KEPT = 3


class CheckpointError(ValueError):
    """No checkpoint, or one that does not belong here; the message says which and what to do."""


class Trained(NamedTuple):
    """What a checkpoint holds for hashing."""

    config: Config
    params: Any  # numpy leaves
    statistics: mfcc.Statistics
    medians: np.ndarray  # (hidden,); zeros before the first epoch ended
    step: int
    epoch: int
    corpus: str  # one of ``batches.digests_of`` the training corpus


@contextlib.contextmanager
def open_manager(directory: str | Path) -> Iterator[ocp.CheckpointManager]:
    """A manager of the checkpoints in a directory, made where it is missing; at the end it waits
    for what it writes.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True)
    with _interrupts_held():
        manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)
    try:
        yield manager
    finally:
        with _interrupts_held():
            manager.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C is heeded at the end, a second one at once.

    Orbax, interrupted in its own calls, leaves threads that wait minutes for each other, and so
    would the interpreter.
    """
    held, before = False, signal.getsignal(signal.SIGINT)
    # Other threads are not interrupted; a handler that is not Python's could not be put back.
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def hold(*_: Any) -> None:
        nonlocal held
        signal.signal(signal.SIGINT, before)
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def save(
    manager: ocp.CheckpointManager,
    state: Any,
    *,
    config: Config,
    corpus: str,
    statistics: mfcc.Statistics,
    medians: np.ndarray,
    epoch: int,
) -> None:
    """Starts writing a checkpoint of a train state; the state may be donated as soon as this
    returns.
    """
    meta = {"config": to_flat_dict(config), "corpus": corpus, "epoch": epoch}
    # As numpy arrays, which load on any number of devices.
    hashing = {
        "params": jax.device_get(state.params),
        "mean": np.asarray(statistics.mean),
        "std": np.asarray(statistics.std),
        "medians": np.asarray(medians),
    }
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        hashing=ocp.args.StandardSave(hashing),
        meta=ocp.args.JsonSave(meta),
    )
    with _interrupts_held():
        manager.save(int(state.step), args=items)


def restore(
    manager: ocp.CheckpointManager, like: Any, *, config: Config, corpus: Collection[str]
) -> tuple[Any, np.ndarray, int] | None:
    """(train state, medians, epochs finished) of the newest checkpoint, or None where there is
    none.

    Args:
      like: a train state, placed on the devices where the restored one shall be.
      config: must be the checkpoint's own, but that a run may be lengthened (``train.epochs``);
        CheckpointError lists the fields that differ.
      corpus: digests of the training corpus; one must be the checkpoint's own.
    """
    step = manager.latest_step()
    if step is None:
        return None
    meta = _read(manager, step, meta=ocp.args.JsonRestore())["meta"]
    _require_same(meta["config"], config, manager.directory)
    if meta["corpus"] not in corpus:
        raise CheckpointError(
            f"{manager.directory}: holds a run on other recordings; use another workdir."
        )
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    items = _read(
        manager, step, state=ocp.args.StandardRestore(abstract), hashing=ocp.args.StandardRestore()
    )
    return items["state"], np.asarray(items["hashing"]["medians"]), int(meta["epoch"])


def load_trained(directory: str | Path) -> Trained:
    """The newest checkpoint of a directory as what hashing needs, on any number of devices."""
    if not Path(directory).is_dir():
        raise CheckpointError(f"{directory}: no checkpoints here; train first.")
    with open_manager(directory) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"{directory}: no checkpoints here; train first.")
        items = _read(
            manager, step, hashing=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()
        )
    hashing = jax.tree.map(np.asarray, items["hashing"])
    return Trained(
        _config_of(items["meta"]["config"], directory),
        hashing["params"],
        mfcc.Statistics(hashing["mean"], hashing["std"]),
        hashing["medians"],
        int(step),
        int(items["meta"]["epoch"]),
        items["meta"]["corpus"],
    )


def hasher_of(trained: Trained, *, name: str, threshold: str | None = None) -> Hasher:
    """The hasher of a checkpoint; threshold, if given, stands in for the config's ``zero`` or
    ``median``.
    """
    config = (
        trained.config
        if threshold is None
        else override(trained.config, {"code.threshold": threshold})
    )
    return make_hasher(
        config, trained.params, trained.statistics, name=name, medians=trained.medians
    )


def _read(manager: ocp.CheckpointManager, step: int, **items: Any) -> Any:
    try:
        with _interrupts_held():
            return manager.restore(step, args=ocp.args.Composite(**items))
    except (ValueError, KeyError, FileNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{manager.directory}: checkpoint {step} cannot be read: {error}"
        ) from error


def _config_of(saved: dict[str, Any], directory: Any) -> Config:
    try:
        return from_flat_dict(saved)
    except ValueError as error:
        raise CheckpointError(f"{directory}: holds a run of another version: {error}") from error


def _require_same(saved: dict[str, Any], config: Config, directory: Any) -> None:
    theirs = to_flat_dict(_config_of(saved, directory))
    differing = [
        f"{name} is {theirs[name]!r} there, {value!r} here"
        for name, value in to_flat_dict(config).items()
        if theirs[name] != value and not (name == "train.epochs" and theirs[name] < value)
    ]
    if differing:
        raise CheckpointError(
            f"{directory}: holds a run with another config ({'; '.join(differing)}); "
            "use another workdir, or the same config."
        )
