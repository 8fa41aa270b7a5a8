r"""Trains a hasher whose bits all come from one small function of semitone bands, and exports it.

    python -m experiments.collect --workdir=runs/material
    python -m experiments.train_pairs --corpus=runs/material/manifest.csv \
        --noise=runs/material/noise.csv --directory=my-hasher --name=my-hasher

The first command makes a training set of music and noises that may be passed on; any other manifest
or folder does as well. Clips are degraded on the device, at every step anew; rooms are synthesised
where --rooms names none. Writes the hasher (hasher.json, weights.npz, a model card) and losses.json
into --directory. The same command gives the same bits on one machine.

Expect 5 minutes for the 63 numbers of the kernel on 2 cores. --set changes fields of the config, as
pairs.steps=600, encoder.kind=lstm, patch.bits=64.
"""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from . import script

_CORPUS = flags.DEFINE_string("corpus", None, "manifest or folder of recordings", required=True)
_NOISE = flags.DEFINE_string("noise", None, "manifest or folder of noises", required=True)
_ROOMS = flags.DEFINE_string("rooms", None, "manifest or folder of impulse responses")
_DIRECTORY = flags.DEFINE_string(
    "directory", None, "where to write; a hasher that is there is replaced", required=True
)
_NAME = flags.DEFINE_string(
    "name", None, "name of the hasher, shown beside its results", required=True
)
_LEAVE_OUT = flags.DEFINE_string(
    "leave_out", "", "recordings whose source column has this word are not trained on"
)
_CLOSED_FORM = flags.DEFINE_boolean(
    "closed_form", False, "no training: the kernel that correlates most, as a control"
)
_SET = flags.DEFINE_multi_string("set", [], "change of the config, as pairs.steps=600; any number")
_PROGRESS = flags.DEFINE_boolean("progress", True, "progress bars")

BASE = {"encoder.front_end": "bands", "encoder.kind": "kernel"}
ROOM_SEEDS = range(1, 5)  # of the synthesised rooms; robustness reports with those of seed 0


def main() -> int:
    """Reads, trains, exports; returns the exit status."""
    from seqhash import controls, export, pairs  # late, for jax
    from seqhash.band_codes import make_band_hasher
    from seqhash.config import Config, override

    begun = time.perf_counter()
    config = override(override(Config(), BASE), _SET.value)
    directory = export.check_directory(_DIRECTORY.value)  # before minutes of training
    rate = config.bands.sample_rate
    listed, music, skipped = _read(_CORPUS.value, rate, leave_out=_LEAVE_OUT.value)
    _, noises, bad_noises = _read(_NOISE.value, rate)
    _, rooms, bad_rooms = _read(_ROOMS.value, rate) if _ROOMS.value else _synthetic_rooms(rate)
    script.report_failures([*skipped, *bad_noises, *bad_rooms])
    material = pairs.make_material(music, noises, rooms, config=config)
    if _CLOSED_FORM.value:
        params, rows = controls.correlated(material, config).params, list[dict[str, float]]()
    else:
        params, rows = pairs.train_pairs(config, material, progress=_PROGRESS.value)
    hasher = make_band_hasher(config, params, name=_NAME.value)
    card = _card(hasher, listed, music, len(noises), rows, time.perf_counter() - begun)
    export.export_hasher(hasher, directory, card=card)
    script.write_json(directory / "losses.json", rows)
    print(f"{directory}: {_progress_of(rows)}, {hasher.digest[:12]}")
    return 0


Files = tuple[list, list[np.ndarray], list[tuple[Path, str]]]


def _read(listed: str, sample_rate: int, *, leave_out: str = "") -> Files:
    """(recordings, their samples, files that cannot be used) of a manifest or folder."""
    from seqhash import audio, corpus

    kept, samples, skipped = [], [], []
    chosen = [
        recording
        for recording in corpus.recordings(listed)
        if not leave_out or leave_out not in recording.extra.get("source", "")
    ]
    for recording in tqdm(
        chosen, desc=Path(listed).name, disable=None if _PROGRESS.value else True
    ):
        try:
            samples.append(audio.read(recording.path, sample_rate=sample_rate))
            kept.append(recording)
        except audio.AudioError as error:
            skipped.append((recording.path, error.reason))
    return kept, samples, skipped


def _synthetic_rooms(sample_rate: int) -> Files:
    import soxr

    from seqhash.robustness import degrade

    rooms = [room for seed in ROOM_SEEDS for room in degrade.synthetic_rooms(seed)]
    return [], [soxr.resample(room, degrade.SAMPLE_RATE, sample_rate) for room in rooms], []


def _card(
    hasher, listed: Sequence, music: Sequence[np.ndarray], noises: int, rows: list, seconds: float
) -> str:
    """The model card: what it is, how it was made, what it was trained on."""
    from seqhash.config import Config, override, to_flat_dict

    config, base = hasher.config, to_flat_dict(override(Config(), BASE))
    numbers = sum(np.size(leaf) for leaf in _leaves(hasher.params))
    hours = sum(map(len, music)) / hasher.sample_rate / 3600
    licences = sorted({recording.extra.get("licence", "") for recording in listed} - {""})
    changed = {n: v for n, v in to_flat_dict(config).items() if v != base[n]}
    return "\n".join(
        [
            f"# {hasher.name}",
            "",
            f"{hasher.bits}-bit audio hasher, {hasher.code_rate:g} codes a second "
            f"({hasher.bits * hasher.code_rate / 8:g} bytes), {hasher.sample_rate} Hz. Each bit is "
            f"the sign of one function ({config.encoder.kind}, {numbers} numbers) of "
            f"{config.patch.frames} frames x {config.patch.width} semitone bands around its own.",
            "",
            f"Identity (SHA-256 of config and weights): `{hasher.digest}`.",
            f"Trained in {seconds / 60:.0f} minutes by",
            "",
            f"    python -m experiments.train_pairs {shlex.join(sys.argv[1:])}",
            "",
            f"on {len(listed)} recordings ({hours:.1f} h) and {noises} noises, degraded anew at "
            f"every step; {_progress_of(rows)}.",
            f"Licences of the recordings: {', '.join(licences) or 'not stated'}.",
            "",
            f"Config, where it is not the default: {json.dumps(changed)}.",
            "",
        ]
    )


def _progress_of(rows: list) -> str:
    return f"loss {rows[0]['loss']:.3f} to {rows[-1]['loss']:.3f}" if rows else "in closed form"


def _leaves(tree) -> list:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    return [tree]


if __name__ == "__main__":
    script.run(main, more_of="set")
