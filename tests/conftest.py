"""Shared by all tests: four virtual CPU devices, strict jax, and where the real corpora are (if they are)."""

import os
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of evaluation corpora; a user has none, so tests that want it skip."""
    default = Path(__file__).parents[1] / ".." / "shared" / "corpora"
    path = Path(os.environ.get("SEQHASH_CORPORA", default))
    if not path.is_dir():
        pytest.skip(f"no corpora at {path}; set SEQHASH_CORPORA to their folder")
    return path.resolve()
