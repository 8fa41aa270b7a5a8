"""compilation.py: what one process compiled, another one finds."""

import os

import jax
import pytest

from seqhash import compilation
from tests.processes import Running


def compiled(own: str = "") -> None:
    """Prints how many programs were compiled, in a process where JAX has no cache but ``own``."""
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    jax.config.update("jax_compilation_cache_dir", own or None)
    if own:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = own
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation.keep_programs()
    misses = []
    jax.monitoring.register_event_listener(
        lambda event, **_: misses.append(event) if event.endswith("cache_misses") else None
    )
    jax.jit(lambda x: x * 3.25 + 1)(2.0)
    print(len(misses), jax.config.jax_compilation_cache_dir)


@pytest.mark.slow
def test_programs_are_kept_in_the_users_cache(tmp_path):
    folder = tmp_path / "cache" / "seqhash"
    outs = [Running(compiled, XDG_CACHE_HOME=str(tmp_path / "cache")).ended().out for _ in "12"]
    assert outs == [f"1 {folder}\n", f"0 {folder}\n"]


def test_a_cache_of_the_users_own_and_one_that_cannot_be_made(tmp_path):
    own = str(tmp_path / "own")
    done = Running(compiled, own, XDG_CACHE_HOME=str(tmp_path / "cache")).ended()
    assert (done.status, done.out) == (0, f"1 {own}\n")
    (tmp_path / "file").touch()
    done = Running(compiled, XDG_CACHE_HOME=str(tmp_path / "file")).ended()
    assert (done.status, done.out, done.err) == (0, "0 None\n", "")
