r"""Trains on a prepared corpus, reporting after every epoch; a killed run goes on by the same
command. The codes are measured after the first epochs and then after every fifth
(--evaluate_every), which changes no number of the training.

    python -m experiments.train --workdir=runs/mine --set train.epochs=40 model.hidden_size=256
    python -m experiments.train --workdir=W --coordinator=HOST:PORT --processes=2 --process=0

Writes WORKDIR/checkpoints, metrics.jsonl, config.json and figures/training.png.

The second is for several hosts, each with a process of its own number, the first of them at HOST.
On a TPU slice and under Slurm or Open MPI --distributed alone does, as JAX finds out the rest. All
of them need the same WORKDIR, on a disk that they share, and as many devices each.

Expect 1,000 segments a second on a core with AVX-512 (400 to 500 without): 5 minutes for 40 epochs
over 0.8 h, 12 for 1.86 h on 2 cores. On that, the loss goes from 13 (nothing is reconstructed) to
4.1 with H alone handed over; it falls further with model.handover=hidden_and_cell, around the hash
(docs/decisions.md).
"""

from pathlib import Path
from typing import Any

import jax
from absl import flags

from seqhash import evaluate, features, figures, parallel, train
from seqhash.config import to_flat_dict

from . import script

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run, prepared by experiments.prepare", required=True
)
_SET = flags.DEFINE_multi_string(
    "set", [], "change of the config, as model.hidden_size=256; any number"
)
_RESIDENT = flags.DEFINE_float(
    "resident_gigabytes", 4.0, "frames up to this size stay on the device", lower_bound=0
)
_CHECKPOINT = flags.DEFINE_float(
    "checkpoint_seconds", 60.0, "between checkpoints inside an epoch", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed",
    False,
    "train with the other processes of this job; what is not told is found out",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for all to meet at"
)
_PROCESSES = flags.DEFINE_integer(
    "processes", None, "number of processes that train together", lower_bound=1
)
_PROCESS = flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0)
_EVALUATE = flags.DEFINE_integer(
    "evaluate_every",
    5,
    "epochs between measurements of the codes; the first few and the last are measured anyway",
    lower_bound=1,
)
_PROGRESS = flags.DEFINE_boolean("progress", True, "progress bars")

EARLY = 6  # the first epochs, whose codes are all measured: they change most there


def main() -> int:
    """Trains; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    store = features.open_store(workdir / "features")
    config = features.config_for(store, _SET.value)
    parallel.use_all_cores(config.train.batch_size // (_PROCESSES.value or 1))
    where = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if _DISTRIBUTED.value or where != (None, None, None):
        jax.distributed.initialize(*where)
    speaks = jax.process_index() == 0  # and writes
    if speaks:
        script.report_lost(store.recordings)

    told, epochs = [], config.train.epochs

    def tell(row: dict[str, Any]) -> None:
        told.append(row)
        if speaks:
            print(_line(row), flush=True)

    _, rows = train.train(
        config,
        store,
        workdir=workdir,
        evaluate=lambda hasher: evaluate.epoch_metrics(hasher, store.recordings, store.cepstra),
        evaluated={*range(EARLY), *range(0, epochs, _EVALUATE.value), epochs},
        report=tell,
        resident_bytes=int(_RESIDENT.value * 2**30),
        checkpoint_seconds=_CHECKPOINT.value,
        progress=_PROGRESS.value,
    )
    if not speaks:
        return 0
    if not told:
        print(f"All {epochs} epochs were trained before: the run in {workdir} is finished.")
    script.write_json(workdir / "config.json", to_flat_dict(config))
    originals = sum(recording.role == "original" for recording in store.recordings)
    chance = 1 / originals if originals else None
    figures.training_figure(rows, workdir / "figures" / "training.png", chance=chance)
    return 0


def _line(row: dict[str, Any]) -> str:
    parts = [f"epoch {row['epoch']:3d}", f"train loss {row['train_loss']:.3f}"]
    if row["validation_loss"] is not None:
        parts.append(f"validation loss {row['validation_loss']:.3f}")
    if "collision_rate" in row:
        parts.append(f"collisions {100 * row['collision_rate']:.2f} %")
        parts.append(f"dead bits {row['dead_bits']}")
    parts += [f"accuracy@{n} {100 * value:.1f} %" for n, value in row.get("accuracy", {}).items()]
    if "segments_per_second" in row:
        parts.append(f"{row['segments_per_second']:.0f} segments/s")
    return "  ".join(parts)


if __name__ == "__main__":
    script.run(main, more_of="set", resumes=True)
