"""Programs that are made in a third of the time, and are slow, for tests of what they compute."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
from jax._src import compiler  # options for all programs are nowhere else

# Without them no fusion sets up a compiler of its own. XLA stops at an option it does not know, hence JAX's version.
OPTIONS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """What is compiled inside has most of the compiler's optimizations left out; it is forgotten at the end."""
    make_options = compiler.get_compile_options

    def quick_options(*arguments: Any, **keywords: Any) -> Any:
        made = make_options(*arguments, **keywords)
        made.env_option_overrides = [*made.env_option_overrides, *OPTIONS.items()]
        return made

    jax.config.update("jax_disable_most_optimizations", True)
    with mock.patch.object(compiler, "get_compile_options", quick_options):
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
