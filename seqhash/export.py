"""A trained hasher as a directory of plain files: ``hasher.json``, ``weights.npz``, ``README.md``
(its model card).

It loads without orbax, and ``reference`` reads it with numpy alone. The package carries
three: ``paper-128``, ``semitone-32`` and, for covers, ``harmony-120``.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqhash import files, mfcc
from seqhash.band_codes import make_band_hasher
from seqhash.codes import Hasher, make_hasher
from seqhash.config import Config, from_flat_dict, to_flat_dict
from seqhash.cover_codes import make_cover_hasher
from seqhash.exported import DEFAULT as DEFAULT
from seqhash.exported import HasherError as HasherError
from seqhash.exported import find_hasher as find_hasher
from seqhash.exported import packaged as packaged

FORMAT = 1


def export_hasher(hasher: Hasher, directory: str | Path, *, card: str) -> Path:
    """Writes a hasher, whole or not at all; replaces the one that is there, and keeps what else is
    in its folder.

    Args:
      hasher: of the paper's model or of bands; other controls are made anew from a seed instead.
      directory: made where it is missing.
      card: the model card, Markdown: what it was trained on, its numbers, what it is not good for.
    """
    if hasher.encode.__module__ not in ("seqhash.autoencoder", "seqhash.equivariant"):
        raise ValueError(
            "Only hashers of the autoencoder, of bands and of harmony are exported, "
            f"got {hasher.name!r}."
        )
    directory = check_directory(directory)
    leaves = jax.tree_util.tree_leaves_with_path(hasher.params)
    weights = {
        "/".join(key.key for key in path): np.asarray(leaf, np.float32) for path, leaf in leaves
    }
    with files.replacing_folder(directory) as fresh:
        np.savez(fresh / "weights.npz", **weights)  # type: ignore[arg-type]
        description = {
            "format": FORMAT,
            "name": hasher.name,
            "digest": hasher.digest,
            "config": to_flat_dict(hasher.config),
            "mean": np.asarray(hasher.statistics.mean).tolist(),
            "std": np.asarray(hasher.statistics.std).tolist(),
            "thresholds": hasher.thresholds.tolist(),
        }
        (fresh / "hasher.json").write_text(json.dumps(description, indent=1) + "\n")
        (fresh / "README.md").write_text(card)
    return directory


def check_directory(directory: str | Path) -> Path:
    """The directory, if a hasher may be written there; ValueError if it holds something else."""
    directory = Path(directory)
    there = files.present(directory)
    if there.is_dir() and any(there.iterdir()) and not (there / "hasher.json").is_file():
        raise ValueError(
            f"{directory}: holds something else than a hasher; name another directory."
        )
    return directory


def load_hasher(name: str | Path) -> Hasher:
    """A hasher of the package by its name (``paper-128``), or one from a directory that
    ``export_hasher`` wrote.

    Raises:
      HasherError: neither a packaged name nor such a directory, another format, or weights that are
        not those that were exported.
    """
    directory = find_hasher(name)
    try:
        description = json.loads((directory / "hasher.json").read_text())
        if description["format"] != FORMAT:
            raise HasherError(
                f"{directory}: format {description['format']}, this version reads {FORMAT}."
            )
        with open(directory / "weights.npz", "rb") as file:
            weights = files.read_arrays(file)
        params = _nested(weights)
        config = from_flat_dict(description["config"])
        hasher = _made(config, params, description)
        if hasher.digest != description["digest"]:
            raise HasherError(
                f"{directory}: the weights are not those that were exported "
                f"(digest {hasher.digest[:12]})."
            )
    except HasherError:
        raise
    except Exception as error:  # flax, too, says what it likes of weights that are not there
        raise HasherError(f"{directory}: damaged: {error}") from error
    return hasher


def _made(config: Config, params: Any, description: dict[str, Any]) -> Hasher:
    if config.encoder.front_end == "bands":
        return make_band_hasher(config, params, name=description["name"])
    if config.encoder.front_end == "harmony":
        return make_cover_hasher(config, params, name=description["name"])
    mean, std = (np.asarray(description[name], np.float32) for name in ("mean", "std"))
    medians = np.asarray(description["thresholds"], np.float32)
    statistics = mfcc.Statistics(mean, std)
    return make_hasher(config, params, statistics, name=description["name"], medians=medians)


def _nested(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters by module, of their paths. flax does it too, and takes a tenth of a first answer
    to load.
    """
    params: dict[str, Any] = {}
    for path, value in weights.items():
        *modules, name = path.split("/")
        module = functools.reduce(lambda inner, key: inner.setdefault(key, {}), modules, params)
        module[name] = value
    return params
