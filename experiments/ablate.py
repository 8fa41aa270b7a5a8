r"""A list of config changes x seeds on a prepared corpus of covers, to one table.

    python -m experiments.ablate --workdir=runs/tune --seeds=0,1 --change= \
        --change=model.handover=hidden_and_cell \
        --change=model.decoder_input=own,model.decoder_order=forward

Each --change is a comma-separated list of fields (empty: the base). Every run has its own folder
below WORKDIR/ablation, so that the same command goes on where a killed one stopped, and further
changes add rows to those of the same base, seeds and recordings. Writes WORKDIR/ablation.json and
ablation.md. The last epoch is reported, none is picked.

Expect one training a row: 5 to 12 minutes for 40 epochs over an hour or two on 2 cores. One seed
moves accuracy by 1 to 3 points, more than most changes do (docs/decisions.md has the table on
which the defaults were chosen).
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from seqhash import batches, checkpoint, digests, evaluate, features, files, parallel, tables, train
from seqhash.config import Config, from_flat_dict, identity, override, to_flat_dict

from . import script

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder prepared by experiments.prepare", required=True
)
_CHANGE = flags.DEFINE_multi_string(
    "change", [""], "comma-separated changes of one row, as model.layers=2; repeatable"
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "values of train.seed, one run each")
_SET = flags.DEFINE_multi_string("set", [], "change of the base, for all rows; repeatable")
_COLUMNS = ("train_loss", "validation_loss", "collision_rate", "dead_bits", "effective_bits")


def main() -> int:
    """Runs what is missing and prints the table; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    store = features.open_store(workdir / "features")
    script.require_covers(store)
    base = features.config_for(store, _SET.value)
    seeds = script.whole_numbers("seeds", _SEEDS.value)
    asked = {change: _configs(base, change, seeds) for change in _CHANGE.value}
    new = list(itertools.chain(*asked.values()))
    for config in new:
        features.require(store, config)
    parallel.use_all_cores(math.gcd(*(config.train.batch_size for config in new)))
    earlier = {
        change: _configs(base, change, seeds)
        for change in _earlier(workdir / "ablation.json", base)
    }
    configs = {
        change: ones
        for change, ones in earlier.items()
        if all(_row(c, store, workdir).exists() for c in ones)
    }
    configs |= asked
    rows: dict[str, list[dict[str, Any]]] = {change: [] for change in configs}
    plan = [
        (change, seed, one)
        for change, ones in configs.items()
        for seed, one in zip(seeds, ones, strict=True)
    ]
    for number, (change, seed, config) in enumerate(plan, 1):
        print(f"[{number}/{len(plan)}] {change or 'base'}, seed {seed}", flush=True)
        rows[change].append(_run(config, store, workdir))
        result = {
            "base": to_flat_dict(base),
            "seeds": _SEEDS.value,
            "rows": rows,
            "versions": evaluate.versions(),
        }
        script.write_json(workdir / "ablation.json", result)
    text = _table(rows)
    (workdir / "ablation.md").write_text(text + "\n")
    print(text)
    return 0


def _configs(base: Config, change: str, seeds: Sequence[int]) -> list[Config]:
    """Of one row: a config a seed."""
    return [
        override(base, [*filter(None, change.split(",")), f"train.seed={seed}"]) for seed in seeds
    ]


def _earlier(path: Path, base: Config) -> list[str]:
    """The changes that earlier calls on the same base asked for."""
    earlier = files.read_json(path) if path.exists() else {}
    same = earlier and identity(from_flat_dict(earlier["base"])) == identity(base)
    return list(earlier["rows"]) if same else []


def _row(config: Config, store: features.Store, workdir: Path) -> Path:
    """Where the measures of one run go: by config, what trains, and what is measured on."""
    measured_on = digests.of_corpus(store.recordings, digests.of_store(store))
    trained_on = batches.digests_of(store, config=config)[0]
    key = digests.of([identity(config), trained_on, measured_on])[:16]
    return workdir / "ablation" / key / "row.json"


def _run(config: Config, store: features.Store, workdir: Path) -> dict[str, Any]:
    """Trains and measures one config, or reads what an earlier call measured."""
    done = _row(config, store, workdir)
    if done.exists():
        return files.read_json(done)
    folder = done.parent
    folder.mkdir(parents=True, exist_ok=True)
    hasher, epochs = train.train(config, store, workdir=folder)
    row = {name: epochs[-1][name] for name in ("train_loss", "validation_loss")}
    row |= evaluate.epoch_metrics(hasher, store.recordings, store.cepstra)
    trained = checkpoint.load_trained(folder / "checkpoints")
    for kind in ("zero", "median"):
        variant = checkpoint.hasher_of(trained, name=kind, threshold=kind)
        codes = evaluate.hash_corpus(variant, store.cepstra)
        measured = evaluate.measure([codes], store.recordings, lengths=(1, 9, 17, 37))
        row[f"accuracy_{kind}"] = {
            str(n): value if measured.tallies[n].windows.any() else None
            for n, value in measured.by_seed[0].items()
        }
        row[f"collision_rate_{kind}"] = measured.collisions.collision_rate
    script.write_json(done, row)
    return row


def _table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: means over seeds; accuracies strict, in %, at 1 / 9 / 17 / 37 hashes."""
    head = ["change", "train loss", "validation loss", "collisions, %", "dead bits", "eff. bits"]
    head += ["accuracy, threshold 0", "threshold median"]
    lines = [head]
    for change, seeds in rows.items():
        if not seeds:
            continue
        mean = {name: _mean([row[name] for row in seeds]) for name in _COLUMNS}
        cells = [change or "base", f"{mean['train_loss']:.2f}", f"{mean['validation_loss']:.2f}"]
        cells += [
            f"{100 * mean['collision_rate']:.2f}",
            f"{mean['dead_bits']:.0f}",
            f"{mean['effective_bits']:.0f}",
        ]
        for kind in ("zero", "median"):
            by_length = [
                _mean([row[f"accuracy_{kind}"][n] for row in seeds])
                for n in seeds[0][f"accuracy_{kind}"]
            ]
            cells.append(" / ".join(f"{100 * value:.1f}" for value in by_length))
        lines.append(cells)
    return tables.markdown(lines)


def _mean(values: list[float | None]) -> float:
    return float(np.mean([math.nan if value is None else value for value in values]))


if __name__ == "__main__":
    script.run(main, resumes=True)
