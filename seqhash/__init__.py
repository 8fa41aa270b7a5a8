"""seqhash: short binary audio codes that keep distance, learned by a sequence-to-sequence
autoencoder, in JAX.

The names below are the short way in; each module is a section of the paper (README.md has the
tour).
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_SHORTCUTS = {
    "Config": "seqhash.config",
    "override": "seqhash.config",
    "load_hasher": "seqhash.export",
    "export_hasher": "seqhash.export",
    "make_hasher": "seqhash.codes",
}


# Where version 0.1 had the modules that have other names now; to be dropped with version 0.3.
_MOVED = {
    "model": "autoencoder",
    "floors": "controls",
    "planar": "search.planar",
    "hamming": "search.hamming",
    "multi_index": "search.multi_index",
    "exchange": "index.exchange",
    "ingest": "index.ingest",
    "calibration": "index.calibration",
    "identify": "index.identify",
    "compare": "index.compare",
    "degrade": "robustness.degrade",
    "systems": "robustness.systems",
    "baselines": "robustness.baselines",
}


class _Moved(MetaPathFinder, Loader):
    """Imports ``seqhash.NAME`` from where it is now."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, self) if package == "seqhash" and name in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(
            f"seqhash.{_MOVED[module.__name__.rpartition('.')[2]]}"
        )


sys.meta_path.append(_Moved())


def __getattr__(name: str) -> object:
    """Loads a shortcut when it is first used, so that worker processes and ``reference`` never
    import jax.
    """
    if name in _SHORTCUTS:
        return getattr(importlib.import_module(_SHORTCUTS[name]), name)
    raise AttributeError(f"module 'seqhash' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SHORTCUTS])
