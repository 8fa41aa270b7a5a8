import dataclasses
import functools
import hashlib
import json
import math
import random
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh

from seqhash import batches, checkpoint, corpus, features, train
from seqhash.codes import Hasher
from seqhash.config import Config, from_flat_dict, override, to_flat_dict
from tests.processes import QUICKLY, Running

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SMALL = override(
    Config(),
    {
        "model.hidden_size": 32,
        "segment.frames": 10,
        "segment.hop": 5,
        "train.batch_size": 8,
        "train.epochs": 3,
        "train.warmup_steps": 4,
        "train.validation_fraction": 0.25,
    },
)


def small_store(recordings: int = 4, frames: int = 700) -> features.Store:
    """A store of random walks in 13 dimensions, one of them too short for a segment."""
    rng = np.random.default_rng(0)
    walks = [
        np.cumsum(rng.standard_normal((frames + 10 * i, 13)), axis=0) * 0.3
        for i in range(recordings)
    ]
    cepstra = tuple(walk.astype(np.float32) for walk in [*walks, walks[0][:7]])
    rows = tuple(
        corpus.Recording(f"r{i}", Path(f"r{i}.wav"), "", "", "", "", {})
        for i in range(len(cepstra))
    )
    return features.Store(rows, cepstra, {}, ())


def one_device() -> Mesh:
    return Mesh(np.asarray(jax.devices()[:1]), ("data",))


def losses_of(config: Config, **options) -> list[float]:
    rows = [
        p.row
        for p in train.fit(
            config, batches.make_dataset(small_store(), config=config), progress=False, **options
        )
    ]
    return [row["train_loss"] for row in rows if row]


def leaves(state) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def test_dataset_holds_out_whole_recordings_and_takes_statistics_from_training_alone():
    store = small_store()
    dataset = batches.make_dataset(store, config=SMALL)
    held_out = set(dataset.validation[:, 0])
    assert held_out
    assert not held_out & set(dataset.training[:, 0])
    frames = np.concatenate(
        [c for i, c in enumerate(store.cepstra) if i not in held_out and len(c) >= 10]
    )
    np.testing.assert_allclose(dataset.statistics.mean, frames.mean(axis=0), rtol=0.05, atol=0.05)
    for recording, first in dataset.training:
        assert first % 5 == 0
        assert first + 10 <= len(store.cepstra[recording])


def test_a_corpus_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"train\.batch_size = 100000 needs"):
        batches.make_dataset(small_store(), config=override(SMALL, {"train.batch_size": 100_000}))


def test_every_epoch_visits_segments_once_in_an_order_of_its_own():
    dataset = batches.make_dataset(small_store(), config=SMALL)
    first, second = (batches.epoch_order(dataset, epoch, SMALL) for epoch in (0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(len(dataset.training)))
    assert (first != second).any()
    np.testing.assert_array_equal(first, batches.epoch_order(dataset, 0, SMALL))
    other = override(SMALL, {"train.seed": 1})
    assert (first != batches.epoch_order(dataset, 0, other)).any()


@pytest.mark.slow
def test_loss_goes_down_from_the_variance():
    values = losses_of(
        override(SMALL, {"train.epochs": 8, "train.learning_rate": 1e-2}), mesh=one_device()
    )
    assert 8 < values[0] < 18  # 13 standardised coefficients, nothing reconstructed
    assert values[-1] < 0.7 * values[0]


@pytest.mark.slow
def test_step_is_adam_on_the_clipped_gradient():
    """One step of the compiled path against optax by hand."""
    config = override(
        SMALL, {"train.schedule": "constant", "train.warmup_steps": 0, "train.clip_norm": 0.5}
    )
    dataset = batches.make_dataset(small_store(), config=config)
    state = train.init_state(config, steps=10)
    batch = batches.gather(dataset.frames, dataset.training[:8], segment_frames=10)
    optimizer = train.make_optimizer(config.train, steps=10)
    after, loss = jax.jit(functools.partial(train.train_step, config=config, optimizer=optimizer))(
        state, batch
    )
    assert np.isfinite(loss)

    def mean_loss(params):
        return jnp.mean(train.batch_loss(params, batch, config=config))

    grads = jax.jit(jax.grad(mean_loss))(state.params)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grads)))
    clipped = jax.tree.map(lambda g: g * jnp.minimum(1, 0.5 / norm), grads)
    # Adam's first step is lr * g / (|g| + eps).
    expected = jax.tree.map(lambda p, g: p - 3e-3 * g / (jnp.abs(g) + 1e-8), state.params, clipped)
    for a, b in zip(leaves(after.params), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_streamed_and_resident_frames_train_alike():
    """But for roundings, which on some processors are others in the one program."""
    streamed = losses_of(SMALL, mesh=one_device(), resident_bytes=0)
    assert streamed == pytest.approx(losses_of(SMALL, mesh=one_device()), rel=1e-5)


@pytest.mark.slow
def test_runs_of_several_seeds_share_a_program():
    config = override(
        SMALL, {"train.epochs": 1, "train.validation_fraction": 0.0}
    )  # all have as many steps
    first, programs = losses_of(config, mesh=one_device()), train.make_stretch.cache_info().misses
    assert losses_of(override(config, {"train.seed": 1}), mesh=one_device()) != first
    assert train.make_stretch.cache_info().misses == programs


@pytest.mark.slow
def test_four_devices_train_as_one():
    assert len(jax.devices()) == 4
    one, four = losses_of(SMALL, mesh=one_device()), losses_of(SMALL)
    np.testing.assert_allclose(four, one, rtol=1e-4)  # sums are taken in another order


def test_batches_must_divide_among_the_devices():
    with pytest.raises(ValueError, match="multiple of the 4 devices, got 6"):
        losses_of(override(SMALL, {"train.batch_size": 6}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"segment.normalisation": "recording", "train.optimizer": "adamw"},
        {"segment.normalisation": "segment", "train.optimizer": "sgd", "train.learning_rate": 1e-3},
        {"segment.normalisation": "none", "train.learning_rate": 1e-2},
    ],
)
def test_other_normalisations_and_optimizers_train(changes):
    values = losses_of(override(SMALL, changes | {"train.epochs": 2}), mesh=one_device())
    assert values[-1] < values[0]


@pytest.mark.parametrize("steps", [1, 3, 104])
@pytest.mark.parametrize("warmup", [0, 4, 100])
@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_schedule_is_that_of_optax_at_every_step(kind, warmup, steps):
    changes = {"learning_rate": 2.0, "schedule": kind, "warmup_steps": warmup}
    config = override(SMALL, {f"train.{name}": value for name, value in changes.items()}).train
    warmup = min(warmup, steps // 2)
    first, last = 2 / (warmup + 1), 2.0 if kind == "constant" else 0.2
    expected = optax.warmup_cosine_decay_schedule(first, 2.0, warmup, steps, last)
    step = jnp.arange(steps + 2)
    rates = jax.vmap(functools.partial(train.learning_rate, config=config, steps=steps))(step)
    np.testing.assert_allclose(rates, jax.vmap(expected)(step), rtol=1e-6)


def test_nan_stops_with_the_step_and_the_metric():
    store = small_store()
    dataset = batches.make_dataset(store, config=SMALL)
    store.cepstra[dataset.training[0, 0]][:] = np.nan
    with pytest.raises(train.TrainingDiverged, match=r"train_loss is nan at step \d+"):
        list(train.fit(SMALL, dataset, progress=False, mesh=one_device()))


def test_a_nan_among_the_epoch_metrics_stops_it_too(tmp_path):
    with pytest.raises(train.TrainingDiverged, match="collision_rate is nan after epoch 0, step 0"):
        train.train(
            SMALL, small_store(), evaluate=lambda _: {"collision_rate": math.nan}, progress=False
        )


@pytest.mark.parametrize("kept", [True, False])
def test_a_state_that_is_not_finite_after_a_finite_loss_is_never_kept(tmp_path, monkeypatch, kept):
    """The update that spoils it is the last before the epoch's checkpoint."""
    config = override(SMALL, {"train.epochs": 1, "train.validation_fraction": 0.0})

    def spoiled(*arguments, **keywords):
        for progress in fit(*arguments, **keywords):
            if progress.epoch == 1:
                params = jax.tree.map(lambda leaf: leaf.at[-1].set(jnp.inf), progress.state.params)
                progress = progress._replace(state=progress.state._replace(params=params))
            yield progress

    fit = train.fit
    monkeypatch.setattr(train, "fit", spoiled)
    workdir = tmp_path if kept else None
    with pytest.raises(train.TrainingDiverged, match=r"params/\S+ is not finite after step \d+"):
        train.train(config, small_store(), workdir=workdir, progress=False, mesh=one_device())
    assert not kept or not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_train_returns_a_hasher_and_writes_rows_and_checkpoints(tmp_path):
    told = []
    hasher, rows = train.train(
        SMALL,
        small_store(),
        workdir=tmp_path,
        evaluate=lambda h: {"bits": h.states_of(small_store().cepstra[0]).shape[1]},
        evaluated={0, 2},
        report=told.append,
        progress=False,
        mesh=one_device(),
    )
    assert isinstance(hasher, Hasher)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert rows == told == train.read_rows(tmp_path)
    assert [row.get("bits") for row in rows] == [32, None, 32, None]
    assert rows[2]["segments_per_second"] > 0
    trained = checkpoint.load_trained(tmp_path / "checkpoints")
    assert (trained.config, trained.epoch, trained.step) == (SMALL, 3, rows[-1]["step"])
    again = checkpoint.hasher_of(trained, name="again")
    assert again.digest == hasher.digest
    recordings = np.unique(batches.make_dataset(small_store(), config=SMALL).training[:, 0])
    states = np.concatenate([hasher.states_of(small_store().cepstra[i]) for i in recordings])
    np.testing.assert_allclose(trained.medians, np.median(states, axis=0), atol=1e-5)
    # Run again, there is nothing left to do.
    same, same_rows = train.train(
        SMALL, small_store(), workdir=tmp_path, progress=False, mesh=one_device()
    )
    assert same.digest == hasher.digest
    assert same_rows == rows


@pytest.mark.slow
def test_another_config_in_the_same_workdir_is_refused(tmp_path):
    config = override(SMALL, {"train.epochs": 1})
    train.train(config, small_store(), workdir=tmp_path, progress=False, mesh=one_device())
    with pytest.raises(checkpoint.CheckpointError, match=r"train.seed is 0 there, 5 here"):
        train.train(
            override(config, {"train.seed": 5}), small_store(), workdir=tmp_path, progress=False
        )


@pytest.mark.slow
def test_a_run_can_be_lengthened_and_not_shortened(tmp_path):
    constant = {"train.schedule": "constant", "train.warmup_steps": 0}
    short, long = (override(SMALL, constant | {"train.epochs": n}) for n in (1, 2))
    whole, _ = train.train(long, small_store(), progress=False, mesh=one_device())
    options = {"workdir": tmp_path, "progress": False, "mesh": one_device()}
    train.train(short, small_store(), **options)
    longer, rows = train.train(long, small_store(), **options)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert longer.digest == whole.digest
    with pytest.raises(checkpoint.CheckpointError, match=r"train.epochs is 2 there, 1 here"):
        train.train(short, small_store(), **options)


def test_a_run_from_before_there_was_a_field_goes_on(tmp_path, request):
    options = {"workdir": tmp_path, "progress": False, "mesh": one_device()}
    config = override(SMALL, {"train.epochs": 1})
    hasher, rows = train.train(config, small_store(), **options)
    request.getfixturevalue("later")
    flat = to_flat_dict(config)
    resumed, same_rows = train.train(from_flat_dict(flat), small_store(), **options)
    assert (resumed.digest, same_rows) == (hasher.digest, rows)
    with pytest.raises(checkpoint.CheckpointError, match=r"mfcc.dither is 0.0 there, 0.5 here"):
        train.train(from_flat_dict(flat | {"mfcc.dither": 0.5}), small_store(), **options)


def test_a_run_of_a_version_with_other_fields_is_refused_by_name(tmp_path, monkeypatch):
    options = {"workdir": tmp_path, "progress": False, "mesh": one_device()}
    config = override(SMALL, {"train.epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "to_flat_dict", lambda c: to_flat_dict(c) | {"mfcc.shape": 1})
        train.train(config, small_store(), **options)
    for read in (
        lambda: train.train(config, small_store(), **options),
        lambda: checkpoint.load_trained(tmp_path / "checkpoints"),
    ):
        with pytest.raises(checkpoint.CheckpointError, match=r"another version: .*'mfcc\.shape'"):
            read()


def test_another_corpus_in_the_same_workdir_is_refused(tmp_path):
    config = override(SMALL, {"train.epochs": 1})
    train.train(config, small_store(), workdir=tmp_path, progress=False, mesh=one_device())
    with pytest.raises(checkpoint.CheckpointError, match="a run on other recordings"):
        train.train(
            config, small_store(frames=800), workdir=tmp_path, progress=False, mesh=one_device()
        )


def test_a_run_goes_on_with_the_same_audio_and_with_no_other(tmp_path):
    options = {"workdir": tmp_path, "progress": False, "mesh": one_device()}
    config, store = override(SMALL, {"train.epochs": 1}), small_store()
    hasher, _ = train.train(config, store, **options)
    moved = [dataclasses.replace(r, path=Path("/copy") / r.path, title="x") for r in store[0]]
    assert train.train(config, store._replace(recordings=moved), **options)[0].digest == (
        hasher.digest
    )
    other = store._replace(cepstra=tuple(one[::-1] for one in store.cepstra))  # under its names
    with pytest.raises(checkpoint.CheckpointError, match="a run on other recordings"):
        train.train(config, other, **options)
    # Ids choose what is held out: what would train is not what has trained.
    renamed = [dataclasses.replace(r, id=f"x{r.id}") for r in store.recordings]
    with pytest.raises(checkpoint.CheckpointError, match="a run on other recordings"):
        train.train(config, store._replace(recordings=renamed), **options)


def test_a_run_that_knows_its_corpus_by_ids_and_lengths_goes_on(tmp_path, monkeypatch):
    """As version 0.1 noted it."""
    options = {"workdir": tmp_path, "progress": False, "mesh": one_device()}
    config, store = override(SMALL, {"train.epochs": 1}), small_store()
    rows = repr([(r.id, len(c)) for r, c in zip(store[0], store[1], strict=True)])
    digest = hashlib.sha256(rows.encode()).hexdigest()
    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "save", lambda *a, **keywords: save(*a, **keywords | {"corpus": digest})
        )
        hasher, _ = train.train(config, store, **options)
    assert checkpoint.load_trained(tmp_path / "checkpoints").corpus == digest
    assert train.train(config, store, **options)[0].digest == hasher.digest


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="train first"):
        checkpoint.load_trained(tmp_path / "nowhere")
    with pytest.raises(checkpoint.CheckpointError, match="train first"):
        checkpoint.load_trained(tmp_path)


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_loads_on_one(tmp_path):
    four, _ = train.train(SMALL, small_store(), workdir=tmp_path, progress=False)
    assert (
        checkpoint.hasher_of(checkpoint.load_trained(tmp_path / "checkpoints"), name="x").digest
        == four.digest
    )
    resumed, _ = train.train(
        SMALL, small_store(), workdir=tmp_path, progress=False, mesh=one_device()
    )
    assert resumed.digest == four.digest


def test_ctrl_c_while_a_checkpoint_is_saved_is_heeded_when_it_is(tmp_path, monkeypatch):
    save = ocp.CheckpointManager.save

    def interrupted(*arguments, **keywords):
        signal.raise_signal(signal.SIGINT)
        return save(*arguments, **keywords)

    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(SMALL, small_store(), workdir=tmp_path, progress=False, mesh=one_device())
    assert checkpoint.load_trained(tmp_path / "checkpoints").epoch == 1


def test_a_second_ctrl_c_is_heeded_at_once():
    reached = []

    def impatient():
        with checkpoint._interrupts_held():
            for place in ("held", "heeded", "never"):
                reached.append(place)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        impatient()
    assert reached == ["held", "heeded"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def train_and_save(workdir: Path, result: Path) -> None:
    options = {"workdir": workdir, "checkpoint_seconds": 0, "mesh": one_device(), "progress": False}
    hasher, rows = train.train(SMALL, small_store(frames=900), **options)
    weights = {str(i): leaf for i, leaf in enumerate(leaves(hasher.params))}
    np.savez(result, losses=[row["train_loss"] for row in rows], **weights)


def run_training(workdir: Path, result: Path, *, kill_after: float | None = None) -> bool:
    """Trains in a process of its own; True if it was killed."""
    running = Running(train_and_save, workdir, result, **QUICKLY)
    if kill_after is not None:
        # Counted from the first row of metrics on: before that there is nothing that could be lost.
        while running.process.is_alive() and not (workdir / "metrics.jsonl").exists():
            time.sleep(0.02)
        time.sleep(kill_after)
        running.process.kill()
    status, _, errors = running.ended(timeout=120)
    assert status in (0, -signal.SIGKILL), errors[-2000:]
    return status == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_bit_equal(tmp_path):
    run_training(tmp_path / "whole", tmp_path / "whole.npz")
    rng, kills = random.Random(0), 0
    for _ in range(2):
        kills += run_training(
            tmp_path / "killed", tmp_path / "killed.npz", kill_after=rng.uniform(0.0, 0.6)
        )
    run_training(tmp_path / "killed", tmp_path / "killed.npz")
    assert kills >= 1
    whole, killed = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "killed.npz")
    assert len(whole["losses"]) == 4
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], killed[name], err_msg=name)
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(4))


def test_a_line_that_a_kill_has_cut_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 0, "accuracy": {"1": 0.5}}\n{"epoch": 1, "accuracy": {"1": 0.5}'
    )
    assert train.read_rows(tmp_path) == [{"epoch": 0, "accuracy": {"1": 0.5}}]
    assert train.read_rows(tmp_path / "nowhere") == []
