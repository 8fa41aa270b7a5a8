r"""Trains a hasher of works, whose codes turn where the music is transposed, and exports it.

    python -m experiments.train_covers --directory=my-hasher --name=my-hasher

Composes random works, has the songbook's players and instruments play each in several versions, in
other keys, tempi and bands, some over chords made anew and some by the lead alone, and trains on
moments that are known to be the same. No recording and no work of anyone is used, so nothing has to
be kept apart from a test set. Writes the hasher (hasher.json, weights.npz, a model card) and
losses.json into --directory. The same command gives the same bits on one machine.

Expect 3 to 10 minutes for 120 works on 2 cores; --material keeps what the instruments played, for
further trainings. --set changes fields of the config: encoder.kind=kernel or lstm
instead of mlp, pairs.steps=300.
"""

import shlex
import sys
import time
from pathlib import Path

import numpy as np
import soxr
from absl import flags
from tqdm import tqdm

from seqhash import files, parallel
from seqhash.songbook import book, composer

from . import script

_DIRECTORY = flags.DEFINE_string(
    "directory", None, "where to write; a hasher that is there is replaced", required=True
)
_NAME = flags.DEFINE_string(
    "name", None, "name of the hasher, shown beside its results", required=True
)
_WORKS = flags.DEFINE_integer("works", 120, "random works", lower_bound=2)
_MATERIAL = flags.DEFINE_string(
    "material",
    None,
    "npz file of the works as they were played: written, or read where it is there",
)
_SEED = flags.DEFINE_integer("seed", 1, "of the works")
_SET = flags.DEFINE_multi_string("set", [], "change of the config, as pairs.steps=600; any number")
_PROGRESS = flags.DEFINE_boolean("progress", True, "progress bars")

BASE = {
    "encoder.front_end": "harmony",
    "encoder.kind": "mlp",
    "encoder.hidden": 32,
    "pairs.batch_size": 256,
    "pairs.steps": 300,
    "pairs.learning_rate": 5e-3,
    "pairs.separation": 0.0,
    "pairs.nt_xent": 1.0,
    "pairs.temperature": 0.06,
}
OWN = ("orig", "cover")  # kinds of versions that have the work's own chords


def main() -> int:
    """Composes, trains, exports; returns the exit status."""
    from seqhash import export, versions  # late, for jax: workers do without
    from seqhash.config import Config, override
    from seqhash.cover_codes import make_cover_hasher

    begun = time.perf_counter()
    config = override(override(Config(), BASE), _SET.value)
    directory = export.check_directory(_DIRECTORY.value)  # before minutes of work
    rate = config.harmony.sample_rate
    works = [[versions.Aligned(*version) for version in one] for one in _played(rate)]
    material = versions.make_material(works, config=config)
    params, rows = versions.train_versions(config, material, progress=_PROGRESS.value)
    hasher = make_cover_hasher(config, params, name=_NAME.value)
    hours = sum(len(one.samples) for work in works for one in work) / rate / 3600
    card = _card(hasher, hours, rows, time.perf_counter() - begun)
    export.export_hasher(hasher, directory, card=card)
    script.write_json(directory / "losses.json", rows)
    print(
        f"{directory}: loss {rows[0]['loss']:.3f} to {rows[-1]['loss']:.3f}, {hasher.digest[:12]}"
    )
    return 0


def _played(rate: int) -> list[list[tuple]]:
    """All works in their versions, from the file of --material where it has them."""
    kept = Path(_MATERIAL.value) if _MATERIAL.value else None
    asked = [_SEED.value, _WORKS.value, rate]
    if kept and kept.is_file():
        with np.load(kept) as file:
            if file["asked"].tolist() != asked:
                held = file["asked"].tolist()
                raise ValueError(f"{kept}: must hold seed, works, rate {asked}, holds {held}.")
            pieces = np.split(file["samples"], np.cumsum(file["lengths"])[:-1])
            rows = [(s, *f[:4], bool(f[4])) for s, f in zip(pieces, file["fields"], strict=True)]
        each = len(composer.KINDS[0])
        return [rows[i : i + each] for i in range(0, len(rows), each)]
    jobs = [(number, _SEED.value, rate) for number in range(_WORKS.value)]
    played = parallel.in_processes(play, jobs, workers=parallel.cores())
    bar = tqdm(played, total=len(jobs), unit="work", disable=None if _PROGRESS.value else True)
    works = [made for _, made in sorted(bar, key=lambda result: result[0])]
    rows = [version for made in works for version in made]
    if kept:
        with files.replacing(kept) as file:
            np.savez(
                file,
                asked=asked,
                samples=np.concatenate([row[0] for row in rows]),
                lengths=[len(row[0]) for row in rows],
                fields=np.array([row[1:] for row in rows], np.float64),
            )
    return works


def play(number: int, seed: int, rate: int) -> list[tuple]:
    """A random work in its versions, the fields of ``versions.Aligned``, samples of 16 bits: a
    function of number and seed.
    """
    return [
        (_of_16_bits(soxr.resample(one[0], book.SAMPLE_RATE, rate)), *one[1:5], one.kind in OWN)
        for one in composer.play(number, seed)[1]
    ]


def _of_16_bits(samples: np.ndarray) -> np.ndarray:
    return (np.clip(samples, -1, 1) * 32_767).astype(np.int16)


def _card(hasher, hours: float, rows: list, seconds: float) -> str:
    """The model card: what it is, how it was made, what it was trained on."""
    import jax

    from seqhash.config import Config, override, to_flat_dict

    config, base = hasher.config, to_flat_dict(override(Config(), BASE))
    numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(hasher.params))
    seen = config.harmony
    changed = {n: v for n, v in to_flat_dict(config).items() if v != base[n]}
    return "\n".join(
        [
            f"# {hasher.name}",
            "",
            f"Audio hasher for works: {hasher.ring} of {hasher.bits} bits, {hasher.code_rate:g} "
            f"codes a second ({hasher.bits * hasher.code_rate / 8:g} bytes), {hasher.sample_rate} "
            f"Hz. Each of 12 pitch classes has {seen.bits} bits, the signs of one function for all "
            f"(`{config.encoder.kind}`, {numbers:,} numbers) of {seen.steps} steps x "
            f"{12 * seen.octaves} semitones around it, all partials and those that stand out: in "
            "another key music has the same code, turned.",
            "",
            f"Identity (SHA-256 of config and weights): `{hasher.digest}`.",
            f"Trained in {seconds / 60:.0f} minutes by",
            "",
            f"    python -m experiments.train_covers {shlex.join(sys.argv[1:])}",
            "",
            f"on {_WORKS.value} random works in four synthesised versions each ({hours:.1f} h), "
            "composed, arranged and played by this package alone: no recording and no work of "
            f"anyone is in it. Loss {rows[0]['loss']:.3f} to {rows[-1]['loss']:.3f}.",
            "",
            "It is for versions of a work. Recordings are found better by `semitone-32`.",
            "",
            f"Config, where it is not the default of this script: {changed or 'nothing'}.",
            "",
        ]
    )


if __name__ == "__main__":
    script.run(main, more_of="set")
