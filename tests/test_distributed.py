import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from jax.sharding import Mesh

from experiments import script
from seqhash import batches, checkpoint, corpus, features, figures, parallel, train
from seqhash.config import Config, override
from tests.processes import QUICKLY, Ended, Running, run_here
from tests.test_train import SMALL, leaves, losses_of, small_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_quickly")]

ONE_EPOCH = override(SMALL, {"train.epochs": 1})


def one_of_two(address: str, index: int, folder: Path) -> None:
    """Saves what one of two processes has trained and read.

    Their clocks disagree about when a checkpoint is due: by that of process 0 never inside an
    epoch, by the other's after every stretch.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address,
        num_processes=2,
        process_id=index,
        initialization_timeout=30,
        shutdown_timeout_seconds=5,
    )
    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    store, options = (
        small_store(),
        {"checkpoint_seconds": -1.0 if index else 1e9, "progress": False},
    )
    hasher, rows = train.train(ONE_EPOCH, store, workdir=folder / "run", **options)
    # Restored, there is nothing left to do.
    again, _ = train.train(ONE_EPOCH, store, workdir=folder / "run", **options)
    assert again.digest == hasher.digest

    dataset, read, gather = batches.make_dataset(store, config=ONE_EPOCH), [], batches.gather
    next_streamed, _, _ = batches.sources(
        dataset, ONE_EPOCH, Mesh(np.asarray(jax.devices()), ("data",)), 0
    )
    batches.gather = lambda frames, segments, **cut: (
        read.append(len(segments)),
        gather(frames, segments, **cut),
    )[1]
    streamed = next_streamed(batches.epoch_order(dataset, 0, ONE_EPOCH), 3)
    parts = [
        np.concatenate([s.data for s in field.addressable_shards], axis=1) for field in streamed
    ]
    fields = dict(zip(streamed._fields, parts, strict=True))
    weights = {str(i): leaf for i, leaf in enumerate(leaves(hasher.params))}
    np.savez(
        folder / f"{index}.npz",
        losses=[row["train_loss"] for row in rows],
        read=read,
        **fields,
        **weights,
    )


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return any_port.getsockname()[1]


def run_two(
    function: Callable[..., None], *arguments: Any, timeout: float = 240, **environment: str
) -> list[Ended]:
    """What ``function(address, index, *arguments)`` ends with in two processes.

    Where one has failed, the other might wait for it and is killed; both are when time is over.
    """
    address = f"localhost:{free_port()}"
    processes = [
        Running(function, address, index, *arguments, **QUICKLY, **environment) for index in (0, 1)
    ]
    deadline = time.monotonic() + timeout
    while None in (codes := [running.process.exitcode for running in processes]):
        if any(codes):  # the other may just now be ending, too
            deadline = min(deadline, time.monotonic() + 10)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for running in processes:
        running.process.kill()
    return [running.ended() for running in processes]


def said(ended: list[Ended]) -> str:
    """All that they said; -9: killed, after the other had failed or time was over."""
    return "\n".join(f"{one.err[-2000:]}\n({i} ended: {one.status})" for i, one in enumerate(ended))


def test_two_processes_of_two_devices_train_as_one_process_of_four(tmp_path):
    assert (jax.device_count(), jax.process_count()) == (4, 1)
    two_devices = "--xla_force_host_platform_device_count=2"
    ended = run_two(one_of_two, tmp_path, XLA_FLAGS=two_devices)
    assert [one.status for one in ended] == [0, 0], said(ended)
    first, second = (dict(np.load(tmp_path / f"{index}.npz")) for index in (0, 1))
    np.testing.assert_allclose(
        first["losses"], losses_of(ONE_EPOCH), rtol=1e-4
    )  # sums are taken in another order
    dataset = batches.make_dataset(small_store(), config=ONE_EPOCH)
    for name in first.keys() - {"read", *batches.Batch._fields}:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)  # losses and weights
    # A stretch that starts at the fourth batch of eight, of which each process has read half.
    order = batches.epoch_order(dataset, 0, ONE_EPOCH)[3 * 8 : (3 + batches.STRETCH) * 8]
    whole = batches.gather(
        dataset.frames, dataset.training[order], segment_frames=ONE_EPOCH.segment.frames
    )
    for name, field in whole._asdict().items():
        halves = np.concatenate([first[name], second[name]], axis=1)
        np.testing.assert_array_equal(halves, np.reshape(field, halves.shape), err_msg=name)
    assert first["read"].tolist() == second["read"].tolist() == [batches.STRETCH * 4]


CHANGES = [
    "segment.frames=10",
    "segment.hop=1",
    "model.hidden_size=32",
    "train.epochs=1",
    "train.validation_fraction=0",
]  # 29 batches an epoch


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A workdir with the features of two recordings of 19 s."""
    folder = tmp_path_factory.mktemp("distributed")
    for i in range(2):
        noise = 0.1 * np.random.default_rng(i).standard_normal(19 * 16_000)
        soundfile.write(folder / f"{i}.wav", noise, 16_000)
    features.prepare_for(Config(), corpus.recordings(folder), folder / "run" / "features")
    return folder / "run"


def train_script(
    address: str, index: int, workdir: Path, cores: tuple[int, ...], *seeds: int
) -> None:
    """One host's ``experiments.train``, on its cores, with its seed; the second may not write."""

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("Only process 0 writes.")

    parallel.cores = lambda: cores[index]
    if index:
        script.write_json = figures.training_figure = refuse
    run_here(
        "experiments.train",
        f"--workdir={workdir}",
        "--checkpoint_seconds=0",
        f"--coordinator={address}",
        "--processes=2",
        f"--process={index}",
        *(f"--set={change}" for change in [*CHANGES, f"train.seed={seeds[index]}"]),
    )


def test_the_script_trains_on_two_hosts_and_goes_on_in_the_middle_of_an_epoch(prepared, tmp_path):
    workdir = shutil.copytree(prepared, tmp_path / "run")
    ended = run_two(train_script, workdir, (1, 1), 0, 0)
    assert [one.status for one in ended] == [0, 0], said(ended)
    assert ended[0].out.count("epoch") == 2
    assert "epoch" not in ended[1].out
    assert (workdir / "config.json").exists()
    whole, rows = checkpoint.load_trained(workdir / "checkpoints"), train.read_rows(workdir)
    assert (whole.step, [row["epoch"] for row in rows]) == (29, [0, 1])

    shutil.rmtree(workdir / "checkpoints" / "29")
    assert checkpoint.load_trained(workdir / "checkpoints").step == batches.STRETCH
    ended = run_two(train_script, workdir, (1, 1), 0, 0)
    assert [one.status for one in ended] == [0, 0], said(ended)
    assert ended[0].out.count("epoch") == 1
    again, rows_again = checkpoint.load_trained(workdir / "checkpoints"), train.read_rows(workdir)
    for ours, theirs in zip(leaves(again.params), leaves(whole.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for row in (rows[1], rows_again[1]):
        del row["segments_per_second"]
    assert rows_again == rows


@pytest.mark.parametrize(
    ("cores", "seeds", "says"),
    [
        ((2, 1), (0, 0), "Every process must have as many devices, got [2, 1]."),
        ((1, 1), (0, 5), "must have the same config and corpus, got others in processes [1]"),
    ],
    ids=["devices", "configs"],
)
def test_hosts_that_do_not_fit_together_are_refused_by_both(prepared, cores, seeds, says):
    ended = run_two(train_script, prepared, cores, *seeds)
    assert [one.status for one in ended] == [2, 2], said(ended)
    assert all(says in one.err for one in ended), said(ended)
    assert not (prepared / "checkpoints").exists()
