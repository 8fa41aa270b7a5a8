"""Programs that are made in a third of the time, and are slow, for tests of what they compute."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """What is compiled inside has most of the compiler's optimizations left out; it is forgotten at
    the end.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    with _older_emitters() if jax.__version_info__ < (0, 11) else contextlib.nullcontext():
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


def _older_emitters() -> contextlib.AbstractContextManager[Any]:
    """With these no fusion sets up a compiler of its own. A later XLA may not know the option, and
    would stop.
    """
    from jax._src import compiler  # an option for all programs can be given nowhere else

    make_options = compiler.get_compile_options

    def older(*arguments: Any, **keywords: Any) -> Any:
        options = make_options(*arguments, **keywords)
        options.env_option_overrides = [
            *options.env_option_overrides,
            ("xla_cpu_use_fusion_emitters", False),
        ]
        return options

    return mock.patch.object(compiler, "get_compile_options", older)
