import socket
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from seqhash import batches, train
from seqhash.config import override
from tests.processes import QUICKLY, Running
from tests.test_train import SMALL, leaves, losses_of, small_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_quickly")]

ONE_EPOCH = override(SMALL, {"train.epochs": 1})


def one_of_two(address: str, index: int, workdir: Path, result: Path) -> None:
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
    hasher, rows = train.train(ONE_EPOCH, store, workdir=workdir, **options)
    again, _ = train.train(
        ONE_EPOCH, store, workdir=workdir, **options
    )  # restored: there is nothing left to do
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
    np.savez(result, losses=[row["train_loss"] for row in rows], read=read, **fields, **weights)


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return any_port.getsockname()[1]


def run_two(folder: Path, *, timeout: float) -> list[dict[str, np.ndarray]]:
    """What each of two processes of two devices saves. Fails with all they said, at the latest in
    time.
    """
    address = f"localhost:{free_port()}"
    two_devices = "--xla_force_host_platform_device_count=2"
    results = [folder / f"{index}.npz" for index in (0, 1)]
    processes = [
        Running(
            one_of_two, address, index, folder / "run", result, XLA_FLAGS=two_devices, **QUICKLY
        )
        for index, result in enumerate(results)
    ]
    deadline = time.monotonic() + timeout
    # Where one has failed the other would wait for it.
    while None in (codes := [running.process.exitcode for running in processes]) and not any(codes):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for running in processes:
        running.process.kill()
    ended = [running.ended() for running in processes]
    if any(one.status for one in ended):  # -9: killed, after the other had failed or time was over
        said = [
            f"{one.err[-2000:]}\n({index} ended: {one.status})" for index, one in enumerate(ended)
        ]
        pytest.fail("\n".join(said), pytrace=False)
    return [dict(np.load(result)) for result in results]


def test_two_processes_of_two_devices_train_as_one_process_of_four(tmp_path):
    assert (jax.device_count(), jax.process_count()) == (4, 1)
    first, second = run_two(tmp_path, timeout=120)
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
