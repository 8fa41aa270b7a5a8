r"""A list of config changes x seeds on a prepared corpus of covers, to one table.

    python -m experiments.ablate --workdir=runs/tune --change= --change=model.handover=hidden_and_cell \
        --change=model.decoder_input=own,model.decoder_order=forward --seeds=0,1

Each --change is a comma-separated list of fields (empty: the base). Every run has its own folder below
WORKDIR/ablation, so that the same command goes on where a killed one stopped, and further changes add rows. Writes
WORKDIR/ablation.json and ablation.md. The last epoch is reported, none is picked.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import workdir as layout
from seqhash import checkpoint, evaluate, features
from seqhash import train as training
from seqhash.config import Config, override, to_flat_dict

_WORKDIR = flags.DEFINE_string("workdir", None, "folder prepared by experiments.prepare", required=True)
_CHANGE = flags.DEFINE_multi_string("change", [""], "comma-separated changes of one row, as model.layers=2; repeatable")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "values of train.seed, one run each")
_SET = flags.DEFINE_multi_string("set", [], "change of the base, for all rows; repeatable")
_COLUMNS = ("train_loss", "validation_loss", "collision_rate", "dead_bits", "effective_bits")


def main() -> int:
    """Runs what is missing and prints the table; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    store = features.open_store(layout.store_path(workdir))
    layout.require_covers(store)
    base = layout.config_for(store, _SET.value)
    seeds = layout.whole_numbers("seeds", _SEEDS.value)
    plan = [(change, seed) for change in _CHANGE.value for seed in seeds]
    configs = [override(base, [*filter(None, change.split(",")), f"train.seed={seed}"]) for change, seed in plan]
    for config in configs:
        layout.require_features(store, config)
    layout.use_all_cores(math.gcd(*(config.train.batch_size for config in configs)))
    rows: dict[str, list[dict[str, Any]]] = {change: [] for change in _CHANGE.value}
    for number, ((change, seed), config) in enumerate(zip(plan, configs, strict=True), 1):
        print(f"[{number}/{len(plan)}] {change or 'base'}, seed {seed}", flush=True)
        rows[change].append(_run(config, store, workdir))
        result = {"base": to_flat_dict(base), "seeds": _SEEDS.value, "rows": rows, "versions": evaluate.versions()}
        layout.write_json(workdir / "ablation.json", result)
    text = _table(rows)
    (workdir / "ablation.md").write_text(text + "\n")
    print(text)
    return 0


def _run(config: Config, store: features.Store, workdir: Path) -> dict[str, Any]:
    """Trains and measures one config, or reads what an earlier call measured."""
    digest = hashlib.sha256(json.dumps([to_flat_dict(config), [r.id for r in store.recordings]]).encode()).hexdigest()
    folder = workdir / "ablation" / digest[:16]
    done = folder / "row.json"
    if done.exists():
        return json.loads(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    hasher, epochs = training.train(config, store, workdir=folder)
    row = {name: epochs[-1][name] for name in ("train_loss", "validation_loss")}
    row |= evaluate.epoch_metrics(hasher, store.recordings, store.cepstra)
    trained = checkpoint.load_trained(folder / "checkpoints")
    for kind in ("zero", "median"):
        variant = checkpoint.hasher_of(trained, name=kind, threshold=kind)
        codes = evaluate.hash_corpus(variant, store.cepstra)
        measured = evaluate.measure([codes], store.recordings, lengths=(1, 9, 17, 37))
        row[f"accuracy_{kind}"] = {
            str(n): value if measured.tallies[n].windows.any() else None for n, value in measured.by_seed[0].items()
        }
        row[f"collision_rate_{kind}"] = measured.collisions.collision_rate
    layout.write_json(done, row)
    return row


def _table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: means over seeds; accuracies strict, in %, at 1 / 9 / 17 / 37 hashes."""
    head = ["change", "train loss", "validation loss", "collisions, %", "dead bits", "eff. bits"]
    head += ["accuracy, threshold 0", "threshold median"]
    lines = [head, ["---"] * len(head)]
    for change, seeds in rows.items():
        if not seeds:
            continue
        mean = {name: _mean([row[name] for row in seeds]) for name in _COLUMNS}
        cells = [change or "base", f"{mean['train_loss']:.2f}", f"{mean['validation_loss']:.2f}"]
        cells += [f"{100 * mean['collision_rate']:.2f}", f"{mean['dead_bits']:.0f}", f"{mean['effective_bits']:.0f}"]
        for kind in ("zero", "median"):
            by_length = [_mean([row[f"accuracy_{kind}"][n] for row in seeds]) for n in seeds[0][f"accuracy_{kind}"]]
            cells.append(" / ".join(f"{100 * value:.1f}" for value in by_length))
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _mean(values: list[float | None]) -> float:
    return float(np.mean([math.nan if value is None else value for value in values]))


if __name__ == "__main__":
    layout.run(main)
