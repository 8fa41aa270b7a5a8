"""Where exported hashers lie, and what they say of themselves; without jax."""

import importlib.resources
import json
from pathlib import Path

from seqhash import files

DEFAULT = "semitone-32"  # of the package's hashers, for a new index
_PACKAGED = Path(str(importlib.resources.files("seqhash"))) / "hashers"


class HasherError(ValueError):
    """No hasher there, or a damaged one, or one of another format."""


def find_hasher(name: str | Path) -> Path:
    """The directory of a packaged hasher or of a path."""
    for directory in (_PACKAGED / str(name), files.present(name)):
        if (directory / "hasher.json").is_file():
            return directory
    raise HasherError(
        f"{name}: no such hasher; the package has {', '.join(packaged()) or 'none'}, "
        "a directory needs hasher.json."
    )


def packaged() -> list[str]:
    """Names of the hashers that the package carries."""
    return sorted(path.parent.name for path in _PACKAGED.glob("*/hasher.json"))


def stated_digest(name: str | Path) -> str:
    """The digest that a hasher states; whether its weights are of it is known when it is loaded.
    "" where it cannot be read.
    """
    try:
        return str(json.loads((find_hasher(name) / "hasher.json").read_text())["digest"])
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
        return ""
