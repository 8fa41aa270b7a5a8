"""Shared by all tests: four virtual CPU devices, strict jax, one compilation cache, and where the
real corpora are.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
if (
    "JAX_COMPILATION_CACHE_DIR" not in os.environ
):  # tests, workers and the scripts they call compile a program once
    cache = tempfile.mkdtemp(prefix="seqhash-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax

from seqhash import config
from tests import compiling
from tests.later import LaterConfig

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # it is ignored where the tests run in the background
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: no worker begins one of them when all else is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.freeze()  # what the packages have made is not looked at again in every collection


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """A third of the time to compile.

    For programs that others run as users do: identify, robustness, the command line, the
      benchmark's checks.
    """
    with compiling.quickly():
        yield


@pytest.fixture
def later(monkeypatch) -> None:
    """The package has the config of a later version: more fields, and a group more."""
    monkeypatch.setattr(config, "Config", LaterConfig)
    config.encoding_part.cache_clear()


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of evaluation corpora; a user has none, so tests that want it skip."""
    default = Path(__file__).parents[1] / ".." / "shared" / "corpora"
    path = Path(os.environ.get("SEQHASH_CORPORA", default))
    if not path.is_dir():
        pytest.skip(f"no corpora at {path}; set SEQHASH_CORPORA to their folder")
    return path.resolve()
