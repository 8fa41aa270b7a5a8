"""seqhash: short binary audio codes that keep distance, learned by a sequence-to-sequence autoencoder, in JAX.

The names below are the short way in; each module is a section of the paper (README.md has the tour).
"""

import importlib

_SHORTCUTS = {
    "Config": "seqhash.config",
    "override": "seqhash.config",
    "load_hasher": "seqhash.export",
    "export_hasher": "seqhash.export",
    "make_hasher": "seqhash.codes",
}


def __getattr__(name: str) -> object:
    """Loads a shortcut when it is first used, so that worker processes and ``reference`` never import jax."""
    if name in _SHORTCUTS:
        return getattr(importlib.import_module(_SHORTCUTS[name]), name)
    raise AttributeError(f"module 'seqhash' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SHORTCUTS])
