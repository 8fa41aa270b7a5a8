"""seqhash: short binary audio codes that keep distance, learned by a sequence-to-sequence
autoencoder, in JAX.

The names below are the short way in (docs/reference.md). They are loaded when they are first used:
worker processes, and commands that hash nothing, never import jax.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqhash import evaluate as evaluate
    from seqhash import songbook as songbook
    from seqhash import train as train
    from seqhash.codes import Hasher as Hasher
    from seqhash.codes import make_hasher as make_hasher
    from seqhash.config import Config as Config
    from seqhash.config import override as override
    from seqhash.export import export_hasher as export_hasher
    from seqhash.export import load_hasher as load_hasher
    from seqhash.index.catalogue import Identity as Identity
    from seqhash.index.catalogue import open_index as open_index
    from seqhash.index.identify import Match as Match
    from seqhash.index.identify import identify as identify
    from seqhash.index.identify import open_searcher as open_searcher
    from seqhash.index.ingest import add_files as add_files

__version__ = "0.2.0"

_HOMES = {
    "codes": ("Hasher", "make_hasher"),
    "config": ("Config", "override"),
    "export": ("export_hasher", "load_hasher"),
    "index.catalogue": ("Identity", "open_index"),
    "index.identify": ("Match", "identify", "open_searcher"),
    "index.ingest": ("add_files",),
}
_SHORTCUTS = {name: f"seqhash.{home}" for home, names in _HOMES.items() for name in names}
_MODULES = ("evaluate", "songbook", "train")


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
    # Also a function of the package's face, which a program that imports the module does not see.
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
    if name in _SHORTCUTS:
        return getattr(importlib.import_module(_SHORTCUTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"seqhash.{name}")
    raise AttributeError(f"module 'seqhash' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SHORTCUTS, *_MODULES])
