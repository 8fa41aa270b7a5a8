import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from seqhash import batches
from tests.test_train import SMALL, losses_of, small_store

pytestmark = pytest.mark.slow

# What starts a run of several processes, then the same calls as in one. Their clocks disagree about when a checkpoint
# is due: by that of process 0 never inside an epoch, by the other's after every stretch.
RUN = """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
address, index, workdir, result = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
jax.distributed.initialize(
    address, num_processes=2, process_id=index, initialization_timeout=30, shutdown_timeout_seconds=5
)
import numpy as np
from jax.sharding import Mesh
from seqhash import batches, train
from tests.test_train import SMALL, leaves, small_store
assert (jax.device_count(), jax.local_device_count()) == (4, 2)
store, options = small_store(), {"checkpoint_seconds": -1.0 if index else 1e9, "progress": False}
hasher, rows = train.train(SMALL, store, workdir=workdir, **options)
again, _ = train.train(SMALL, store, workdir=workdir, **options)  # restored: there is nothing left to do
assert again.digest == hasher.digest

dataset = batches.make_dataset(store, config=SMALL)
next_streamed, _, _ = batches.sources(dataset, SMALL, Mesh(np.asarray(jax.devices()), ("data",)), 0)
read, gather = [], batches.gather
batches.gather = lambda frames, segments, **cut: (read.append(len(segments)), gather(frames, segments, **cut))[1]
streamed = next_streamed(batches.epoch_order(dataset, 0, SMALL), 3)
parts = [np.concatenate([s.data for s in field.addressable_shards], axis=1) for field in streamed]
weights = {str(i): leaf for i, leaf in enumerate(leaves(hasher.params))}
np.savez(result, losses=[r["train_loss"] for r in rows], read=read, **dict(zip(streamed._fields, parts)), **weights)
"""


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return any_port.getsockname()[1]


def run_two(script: str, folder: Path, *, timeout: float) -> list[dict[str, np.ndarray]]:
    """What a script saves in each of two processes of two devices. Fails with all they said, at the latest in time."""
    address = f"localhost:{free_port()}"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = []
    for index in (0, 1):
        command = [sys.executable, "-c", script, address, str(index), str(folder / "run"), str(folder / f"{index}.npz")]
        with (folder / f"{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, stdout=log, stderr=log)
            )
    deadline = time.monotonic() + timeout
    # Where one has failed the other would wait for it.
    while None in (codes := [process.poll() for process in processes]) and not any(codes):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.wait(timeout=10)
    if any(process.returncode for process in processes):  # -9: killed, after the other had failed or time was over
        said = [f"{(folder / f'{i}.log').read_text()}\n({i} ended: {p.returncode})" for i, p in enumerate(processes)]
        pytest.fail("\n".join(text[-2000:] for text in said), pytrace=False)
    return [dict(np.load(folder / f"{index}.npz")) for index in (0, 1)]


def test_two_processes_of_two_devices_train_as_one_process_of_four(tmp_path):
    assert (jax.device_count(), jax.process_count()) == (4, 1)
    first, second = run_two(RUN, tmp_path, timeout=120)
    np.testing.assert_allclose(first["losses"], losses_of(SMALL), rtol=1e-4)  # sums are taken in another order
    dataset = batches.make_dataset(small_store(), config=SMALL)
    for name in first.keys() - {"read", *batches.Batch._fields}:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)  # losses and weights
    # A stretch that starts at the fourth batch of eight, of which each process has read half.
    order = batches.epoch_order(dataset, 0, SMALL)[3 * 8 : (3 + batches.STRETCH) * 8]
    whole = batches.gather(dataset.frames, dataset.training[order], segment_frames=SMALL.segment.frames)
    for name, field in whole._asdict().items():
        halves = np.concatenate([first[name], second[name]], axis=1)
        np.testing.assert_array_equal(halves, np.reshape(field, halves.shape), err_msg=name)
    assert first["read"].tolist() == second["read"].tolist() == [batches.STRETCH * 4]
