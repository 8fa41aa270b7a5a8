r"""What each part of a hasher of works is worth: one change at a time, each trained and measured.

    python -m experiments.compose --works=20 --seed=2 --directory=runs/generated
    python -m experiments.ablate_covers --corpus=choosing.csv \
        --corpus=runs/generated/manifest.csv --workdir=runs/parts \
        --change=encoder.kind=kernel --change=pairs.soft=0

Trains the base and each change by ``experiments.train_covers``, all on the same works, and measures
them and the unlearned kernel on each corpus as ``experiments.evaluate --hasher`` does: windows at
the nearest of twelve rotations, plain and weighted, of the middle of each cover. A change is a
comma-separated list of fields. Writes WORKDIR/ablation.json. A run that was stopped goes on by the
same command. Expect 1 to 5 minutes a row on 2 cores.
"""

import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from seqhash import controls, corpus, evaluate, export

from . import script

_CORPUS = flags.DEFINE_multi_string("corpus", [], "manifest of originals and covers; repeatable")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of hashers and results", required=True)
_CHANGE = flags.DEFINE_multi_string(
    "change", [], "comma-separated changes of one row, as encoder.kind=lstm; repeatable"
)
_SET = flags.DEFINE_multi_string("set", [], "change of the base, for all rows; repeatable")
_WORKS = flags.DEFINE_integer("works", 120, "random works to train on", lower_bound=2)
_MATERIAL = flags.DEFINE_string("material", None, "as train_covers has it; default: in --workdir")
_LENGTHS = flags.DEFINE_list("lengths", ["1", "9", "37"], "codes a window")
_MIDDLE = flags.DEFINE_float("middle", 25.0, "s of each cover that are asked", 1.0)

UNLEARNED = "unlearned kernel"


def main() -> int:
    """Trains what is missing, measures, prints the table; returns the exit status."""
    workdir = Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    lengths = script.whole_numbers("lengths", _LENGTHS.value)
    corpora = {Path(path).parent.name: corpus.recordings(path) for path in _CORPUS.value}
    if len(corpora) != len(_CORPUS.value) or not corpora:
        raise ValueError(
            "--corpus must name manifests of originals and covers, in folders of different names, "
            f"got {', '.join(_CORPUS.value) or 'none'}."
        )
    for recordings in corpora.values():
        corpus.require_covers(recordings)
    rows = dict[str, Any]()
    for change in ("", *_CHANGE.value):
        hasher = export.load_hasher(_trained(workdir, change))
        measured = {change or "base": hasher}
        if not change:
            measured[UNLEARNED] = controls.random_harmony(jax.random.key(0), hasher.config)
        for name, one in measured.items():
            rows[name] = {"numbers": sum(np.size(leaf) for leaf in jax.tree.leaves(one.params))}
            rows[name] |= {of: _measured(one, kept, lengths) for of, kept in corpora.items()}
    result = {
        "command": script.command("ablate_covers"),
        "lengths": list(lengths),
        "trained": rows,
    }
    script.write_json(workdir / "ablation.json", result)
    print(evaluate.table_of_hashers(rows))
    return 0


def _trained(workdir: Path, change: str) -> Path:
    """The hasher of a change, which is trained where it is not there."""
    name = change or "base"
    directory = workdir / "hashers" / re.sub(r"[^\w.=+-]+", "_", name)
    material = _MATERIAL.value or workdir / "versions.npz"
    fields = [*_SET.value, *filter(None, change.split(","))]
    arguments = [f"--name={name}", f"--works={_WORKS.value}", f"--material={material}"]
    arguments += [f"--set={field}" for field in fields]
    return script.trained("train_covers", arguments, directory)


def _measured(
    hasher: Any, recordings: tuple[corpus.Recording, ...], lengths: tuple[int, ...]
) -> dict[str, list[float]]:
    """Shares of windows that are right, in the order of the lengths, by rule."""
    kept, samples, failed = script.read_samples(recordings, hasher)
    script.report_failures(failed)
    states = []
    for recording, one in zip(kept, samples, strict=True):
        spare = max(0, len(one) - round(_MIDDLE.value * hasher.sample_rate))
        cut = slice(spare // 2, len(one) - (spare + 1) // 2)
        asked = one[cut] if recording.role == "cover" else one
        states.append(hasher.states_of(hasher.frames_of([asked])))
    found = dict[str, list[float]]()
    for rule in ("plain", "weighted"):
        system = evaluate.measure_keys([states], kept, lengths=lengths, rule=rule)
        tallies = (system.tallies[n] for n in lengths)
        counts = ((one.strict.sum(), one.windows.sum()) for one in tallies)
        found[rule] = [round(float(r / w), 4) if w else math.nan for r, w in counts]
    return found


if __name__ == "__main__":
    script.run(main, more_of="set", resumes=True)
