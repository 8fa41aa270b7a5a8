"""Training (paper, IV): a pure step, stretches of steps on the device, and the linear loop around
them.

All that is random is a function of (seed, epoch) and all that is ordered a function of the step, so
a resumed run needs the train state and nothing else, and equals a run that was not interrupted (bit
by bit, on one machine with the same number of threads).

One mesh axis, ``data``: the state is replicated, a batch is sharded. Nothing here assumes that all
devices belong to this process: after ``jax.distributed.initialize`` every process makes the same
calls, on a corpus and a workdir that all of them see. Orbax writes with all of them; whatever else
is written, process 0 writes.
"""

import contextlib
import dataclasses
import functools
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from seqhash import autoencoder, batches, checkpoint, digests, features, losses, mfcc
from seqhash.batches import STRETCH, Batch, Dataset, Frames
from seqhash.codes import Hasher, make_hasher
from seqhash.config import CodeConfig, Config, TrainConfig, encoding_part, to_flat_dict
from seqhash.files import replacing

LOSS_BATCH = 256  # segments of a program that only measures the loss
MEDIAN_SEGMENTS = 4_096  # how many training states the medians are taken over
FIRST_LOSS_SEGMENTS = 2048  # how many training segments measure the loss before the first step


class TrainingDiverged(FloatingPointError):
    """A metric is no longer finite; the message names it and the step."""


class TrainState(NamedTuple):
    """All that changes in training. A checkpoint is this."""

    step: jax.Array  # int32, steps done
    loss_sum: jax.Array  # float32, sum of the losses of this epoch's steps so far
    params: Any
    opt_state: Any


def learning_rate(step: jax.Array, *, config: TrainConfig, steps: int) -> jax.Array:
    """Linear warm-up, then constant, or a cosine to ``final_fraction`` of the peak at the last of
    ``steps``.

    As optax.warmup_cosine_decay_schedule has it, from 1 / (warmup + 1) of the peak on. Written out,
    because of optax's the compiler makes other roundings in the program of streamed batches than
    in that of resident frames, which are to train alike.
    """
    warmup = min(config.warmup_steps, steps // 2)
    rate = config.learning_rate * jnp.minimum(1.0, (step + 1) / (warmup + 1))
    if config.schedule == "constant":
        return rate
    done = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
    return rate * (
        config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * done))
    )


def make_optimizer(config: TrainConfig, *, steps: int) -> optax.GradientTransformation:
    """Clipping by the global norm, then the config's optimizer on its schedule."""
    rate = functools.partial(learning_rate, config=config, steps=steps)
    makers: dict[str, Callable[..., optax.GradientTransformation]] = {
        "adam": optax.adam,
        "adamw": optax.adamw,
        "sgd": functools.partial(optax.sgd, momentum=0.9),
    }
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    return optax.chain(clip, makers[config.optimizer](rate))


def init_state(config: Config, *, steps: int) -> TrainState:
    """The state before the first step."""
    params = autoencoder.init_params(
        jax.random.fold_in(jax.random.key(config.train.seed), 0), config
    )
    opt_state = make_optimizer(config.train, steps=steps).init(params)
    return TrainState(jnp.int32(0), jnp.float32(0), params, opt_state)


def batch_loss(params: Any, batch: Batch, *, config: Config) -> jax.Array:
    """Reconstruction error of each normalised segment of a batch: float32 (batch,)."""
    segments = mfcc.normalise(
        batch.segments, mfcc.Statistics(batch.mean, batch.std), config=config.segment
    )
    _, reconstruction = autoencoder.reconstruct(params, segments, config=config)
    return jax.vmap(losses.reconstruction_error)(segments, reconstruction)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    config: Config,
    optimizer: optax.GradientTransformation,
    mean: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[TrainState, jax.Array]:
    """One update: the next state and the loss before it. ``mean`` averages loss and gradient over
    the devices.
    """
    loss, grads = jax.value_and_grad(
        lambda params: jnp.mean(batch_loss(params, batch, config=config))
    )(state.params)
    loss, grads = mean((loss, grads))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, state.loss_sum + loss, params, opt_state), loss


@functools.lru_cache(maxsize=16)  # runs of several seeds compile once, if they have as many steps
def make_stretch(
    config: Config, mesh: Mesh, *, steps: int, batch_at: Callable[..., Batch], source_spec: Any
) -> Callable:
    """A jitted ``stretch(state, count, source)``: ``count`` <= STRETCH steps without the host
    between them.

    Every device walks its own part of each batch (shard_map: left to itself, the compiler runs the
    scans over time on whole batches, on every device), and one mean over the mesh a step keeps
    their states equal.

    Args:
      config: calls with equal arguments share a compiled program. The seed does not matter; ``fit``
        leaves it out.
      steps: of the whole run, for the schedule.
      batch_at: ``batch_at(source, i, config=config) -> Batch``, a device's part of the i-th batch
        of the stretch.
      source_spec: how a source is laid out over the mesh.

    Returns:
      A function to (state, losses (STRETCH,)), of which the first ``count`` are set. ``count`` is a
      run-time value: an epoch's last, shorter stretch compiles nothing. The state is donated.
    """
    optimizer = make_optimizer(config.train, steps=steps)
    step = functools.partial(
        train_step,
        config=config,
        optimizer=optimizer,
        mean=functools.partial(jax.lax.pmean, axis_name="data"),
    )

    def stretch(state: TrainState, count: jax.Array, source: Any) -> tuple[TrainState, jax.Array]:
        def one_step(
            i: jax.Array, carry: tuple[TrainState, jax.Array]
        ) -> tuple[TrainState, jax.Array]:
            state, values = carry
            state, loss = step(state, batch_at(source, i, config=config))
            return state, values.at[i].set(loss)

        return jax.lax.fori_loop(0, count, one_step, (state, jnp.zeros(STRETCH)))

    everywhere = PartitionSpec()
    # check_vma would sum gradients over the mesh by itself; here the mean is taken in train_step,
    # for all to see.
    on_mesh = jax.shard_map(
        stretch,
        mesh=mesh,
        in_specs=(everywhere, everywhere, source_spec),
        out_specs=(everywhere, everywhere),
        check_vma=False,
    )
    return jax.jit(on_mesh, donate_argnums=0)


class Progress(NamedTuple):
    """Where ``fit`` is, each time it hands over."""

    epoch: int  # epochs finished
    state: TrainState
    row: dict[str, Any] | None  # the epoch's metrics; None between, at a point worth a checkpoint


def fit(
    config: Config,
    dataset: Dataset,
    *,
    state: TrainState | None = None,
    mesh: Mesh | None = None,
    resident_bytes: int = 4 << 30,
    progress: bool = True,
) -> Iterator[Progress]:
    """Trains, and yields after every stretch (row = None) and every epoch (its losses and speed as
    a row).

    Args:
      config: the model and how it is trained.
      dataset: from ``batches.make_dataset``.
      state: where to go on; None starts anew. At step 0, epoch 0 is yielded first: the untrained
        model.
      mesh: devices, one axis ``data``, as many of each process; None takes all.
      resident_bytes: frames up to this size stay on the device, more are streamed.
      progress: a bar on the screen.

    Raises:
      ValueError: the devices cannot share a batch.
      TrainingDiverged: a loss is not finite.
    """
    mesh = _mesh_for(config, mesh)
    per_epoch = batches.steps_per_epoch(dataset, config)
    steps = per_epoch * config.train.epochs
    state = _on_all(init_state(config, steps=steps) if state is None else state, mesh)
    next_source, batch_at, source_spec = batches.sources(dataset, config, mesh, resident_bytes)
    any_seed = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=0))
    stretch = make_stretch(any_seed, mesh, steps=steps, batch_at=batch_at, source_spec=source_spec)
    done = int(state.step)
    if done == 0:
        some = dataset.training[:: max(1, len(dataset.training) // FIRST_LOSS_SEGMENTS)]
        first_loss = mean_loss(state.params, dataset.frames, some, config=config)
        validation_loss = mean_loss(state.params, dataset.frames, dataset.validation, config=config)
        yield Progress(
            0,
            state,
            {"epoch": 0, "step": 0, "train_loss": first_loss, "validation_loss": validation_loss},
        )
    for epoch in range(done // per_epoch, config.train.epochs):
        order = batches.epoch_order(dataset, epoch, config)
        first, begun = done - epoch * per_epoch, time.perf_counter()
        bar = tqdm(
            total=per_epoch, initial=first, unit="step",
            desc=f"epoch {epoch + 1}/{config.train.epochs}",
            disable=None if progress and jax.process_index() == 0 else True, leave=False,
        )  # fmt: skip
        pending: tuple[int, int, Any] = (done, 0, None)
        for start in range(first, per_epoch, STRETCH):
            count = min(STRETCH, per_epoch - start)
            state, values = stretch(state, np.int32(count), next_source(order, start))
            # The losses of the stretch before are fetched once this one is under way: the device
            # never waits.
            _check_losses(*pending)
            pending = (epoch * per_epoch + start, count, values)
            bar.update(count)
            if start + count < per_epoch:
                yield Progress(epoch, state, None)
        loss = _check_losses(*pending)
        bar.set_postfix(loss=f"{loss:.3f}")
        bar.close()
        seconds = time.perf_counter() - begun
        done = (epoch + 1) * per_epoch
        row = {
            "epoch": epoch + 1,
            "step": done,
            "train_loss": float(state.loss_sum) / per_epoch,
            "validation_loss": mean_loss(
                state.params, dataset.frames, dataset.validation, config=config
            ),
            "segments_per_second": (per_epoch - first) * config.train.batch_size / seconds,
        }
        state = state._replace(loss_sum=_on_all(jnp.float32(0), mesh))
        yield Progress(epoch + 1, state, row)


def train(
    config: Config,
    store: features.Store,
    *,
    workdir: str | Path | None = None,
    evaluate: Callable[[Hasher], dict[str, Any]] | None = None,
    evaluated: Container[int] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    mesh: Mesh | None = None,
    resident_bytes: int = 4 << 30,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
) -> tuple[Hasher, list[dict[str, Any]]]:
    """Trains a hasher: what the scripts and ablations call, ``train(override(base, change),
    store)``.

    Args:
      config: the model and how it is trained.
      store: the prepared corpus.
      workdir: where checkpoints (``checkpoints/``) and metric lines (``metrics.jsonl``) go. The
        same call on a workdir whose run was killed goes on from its newest checkpoint. One of more
        epochs goes on too, at the rates that the longer schedule has from there on. None keeps
        nothing.
      evaluate: further metrics of an epoch, from the hasher as it is then.
      evaluated: the epochs that have them; None, all.
      report: is told every epoch's row of metrics, as it comes.
      checkpoint_seconds: between checkpoints inside a long epoch; one is written after every epoch
        anyway.

    Returns:
      The trained hasher, and one row of metrics for each epoch, epoch 0 being the untrained model.

    Raises:
      TrainingDiverged: a metric or a number of the state is not finite.
      CheckpointError: the workdir holds another config's run, or one on another corpus.
      ValueError: the processes were given different configs or corpora.
    """
    dataset = batches.make_dataset(store, config=config)
    mesh = _mesh_for(config, mesh)
    _check_same_everywhere(config, dataset)
    steps = batches.steps_per_epoch(dataset, config) * config.train.epochs
    state = _on_all(init_state(config, steps=steps), mesh)
    medians, rows = np.zeros(config.model.hidden_size, np.float32), list[dict[str, Any]]()
    with contextlib.ExitStack() as stack:
        manager = None
        if workdir is not None:
            manager = stack.enter_context(checkpoint.open_manager(Path(workdir) / "checkpoints"))
            restored = checkpoint.restore(manager, state, config=config, corpus=dataset.digests)
            if restored is not None:
                state, medians, epoch = restored
                rows = [row for row in read_rows(workdir) if row["epoch"] <= epoch]
            _write_rows(workdir, rows)
        saved = time.monotonic()
        run = fit(
            config,
            dataset,
            state=state,
            mesh=mesh,
            resident_bytes=resident_bytes,
            progress=progress,
        )
        for epoch, state, row in run:
            due = row is not None or (
                manager and _of_first_process(time.monotonic() - saved > checkpoint_seconds)
            )
            # Where it is the loss that is not finite, ``fit`` is about to say so.
            if due := due and math.isfinite(state.loss_sum):
                _check_state(state)
            if row is not None:
                medians = training_medians(dataset, state.params, config=config)
                hasher = _hasher(config, dataset, state.params, medians)
                if evaluate and (evaluated is None or epoch in evaluated):
                    row = row | evaluate(hasher)
                _check_row(row)
                rows.append(row)
                _write_rows(workdir, rows[-1:], append=True)
                if report:
                    report(row)
            if manager and due and int(state.step):
                checkpoint.save(
                    manager,
                    state,
                    config=config,
                    corpus=dataset.digests[0],
                    statistics=dataset.statistics,
                    medians=medians,
                    epoch=epoch,
                )
                saved = time.monotonic()
    return _hasher(config, dataset, state.params, medians), rows


def training_medians(dataset: Dataset, params: Any, *, config: Config) -> np.ndarray:
    """Median of each unit over (up to MEDIAN_SEGMENTS, evenly spaced) training states: float32
    (hidden,).
    """
    some = dataset.training[:: -(-len(dataset.training) // MEDIAN_SEGMENTS)]
    states = _of_segments(_states, params, dataset.frames, some, config=encoding_part(config))
    return np.median(states, axis=0)


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """The metric lines of a workdir, one for each finished epoch."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed run may be cut
            rows.append(json.loads(line))
    return rows


def mean_loss(params: Any, frames: Frames, segments: np.ndarray, *, config: Config) -> float | None:
    """Mean reconstruction error over segments (recording, first frame); None where there are
    none.
    """
    if not len(segments):
        return None
    config = dataclasses.replace(config, train=TrainConfig(), code=CodeConfig())
    values = _of_segments(_losses, params, frames, segments, config=config)
    return float(np.mean(values, dtype=np.float64))


def batch_states(params: Any, batch: Batch, *, config: Config) -> jax.Array:
    """H of the segments of a batch: float32 (batch, hidden)."""
    segments = mfcc.normalise(
        batch.segments, mfcc.Statistics(batch.mean, batch.std), config=config.segment
    )
    return autoencoder.encode(params, segments, config=config)


_losses = jax.jit(batch_loss, static_argnames=("config",))
_states = jax.jit(batch_states, static_argnames=("config",))


def _of_segments(
    program: Callable, params: Any, frames: Frames, segments: np.ndarray, *, config: Config
) -> np.ndarray:
    """What a jitted ``program(params, batch, config=config)`` gives for segments (recording, first
    frame): (segments, ...).

    Each process computes all of it, its devices in turn: a program of the whole mesh would need
    batches that all processes share, and this is a few of them an epoch. For the same reason they
    come from the host, also where the frames are resident.
    """
    shards = len(jax.tree.leaves(params)[0].addressable_shards)
    copies = [
        jax.tree.map(lambda leaf, i=i: leaf.addressable_data(i), params) for i in range(shards)
    ]

    def part(start: int) -> np.ndarray:
        some = segments[start : start + LOSS_BATCH]
        batch = batches.gather(
            frames, np.resize(some, (LOSS_BATCH, 2)), segment_frames=config.segment.frames
        )
        own = copies[start // LOSS_BATCH % shards]
        return np.asarray(program(own, batch, config=config))[: len(some)]

    with ThreadPoolExecutor(shards) as pool:
        return np.concatenate(list(pool.map(part, range(0, len(segments), LOSS_BATCH))))


def _mesh_for(config: Config, mesh: Mesh | None) -> Mesh:
    """The mesh, by default of all devices; ValueError where they cannot share a batch."""
    mesh = mesh or Mesh(np.asarray(jax.devices()), ("data",))
    each = Counter(device.process_index for device in mesh.devices.flat)
    if len(set(each.values())) > 1:
        raise ValueError(f"Every process must have as many devices, got {[*each.values()]}.")
    batch_size, devices = config.train.batch_size, mesh.devices.size
    if batch_size % devices:
        raise ValueError(
            f"train.batch_size must be a multiple of the {devices} devices, got {batch_size}."
        )
    return mesh


def _on_all(tree: Any, mesh: Mesh) -> Any:
    """A copy on every device of the mesh.

    From the host: what JAX makes of an array of the one device that a process has cannot be saved
    (0.10: addressable_shards raises).
    """
    return jax.device_put(jax.device_get(tree), NamedSharding(mesh, PartitionSpec()))


def _check_same_everywhere(config: Config, dataset: Dataset) -> None:
    """ValueError, in every process, where they would train on, or with, different things."""
    ours = digests.of([to_flat_dict(config), dataset.digests])
    digest = np.frombuffer(bytes.fromhex(ours), np.uint8)
    every = np.reshape(multihost_utils.process_allgather(digest), (-1, len(digest)))
    if different := np.flatnonzero((every != every[0]).any(axis=1)).tolist():
        raise ValueError(
            "Every process must have the same config and corpus, "
            f"got others in processes {different} than in process 0."
        )


def _check_losses(first_step: int, count: int, values: jax.Array | None) -> float:
    """The last of ``count`` losses; raises at the first that is not finite."""
    if values is None:
        return math.nan
    for i, loss in enumerate(np.asarray(values)[:count]):
        if not np.isfinite(loss):
            raise TrainingDiverged(
                f"train_loss is {loss} at step {first_step + i + 1}; "
                "try a smaller train.learning_rate or train.clip_norm."
            )
    return float(loss)


def _check_state(state: TrainState) -> None:
    """Raises where a number of the state is not finite: a loss tells of the state before it."""
    names = jax.tree_util.tree_leaves_with_path(state)
    for (path, _), finite in zip(names, jax.device_get(_are_finite(state)), strict=True):
        if not finite:
            raise TrainingDiverged(
                f"{jax.tree_util.keystr(path, simple=True, separator='/')} is not finite "
                f"after step {int(state.step)}; "
                "try a smaller train.learning_rate or train.clip_norm."
            )


@jax.jit
def _are_finite(tree: Any) -> list[jax.Array]:
    return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]


def _of_first_process(value: bool) -> bool:
    """What process 0 says: all must save at the same step, and their clocks differ."""
    return (
        value
        if jax.process_count() == 1
        else bool(multihost_utils.broadcast_one_to_all(np.int32(value)))
    )


def _hasher(config: Config, dataset: Dataset, params: Any, medians: np.ndarray) -> Hasher:
    return make_hasher(
        config, jax.device_get(params), dataset.statistics, name="trained", medians=medians
    )


def _check_row(row: dict[str, Any]) -> None:
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise TrainingDiverged(
                f"{name} is {value} after epoch {row['epoch']}, step {row['step']}."
            )


def _write_rows(
    workdir: str | Path | None, rows: list[dict[str, Any]], *, append: bool = False
) -> None:
    if workdir is None or jax.process_index() != 0:
        return
    path = Path(workdir) / "metrics.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("ab") if append else replacing(path) as file:
        file.write(text.encode())
