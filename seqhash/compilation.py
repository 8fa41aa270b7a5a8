"""Programs that XLA compiled, kept from one command to the next."""

import contextlib
import os
import tempfile
from pathlib import Path

import jax


def keep_programs() -> None:
    """Has JAX keep programs in the user's cache folder, so that the next command starts sooner.

    What is set in the environment for JAX stays as it is. Where there is no home, or one that
    cannot be written to, nothing is kept.
    """
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqhash"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        settings = {
            "jax_compilation_cache_dir": str(folder),
            "jax_persistent_cache_min_compile_time_secs": 0.1,
        }
        for name, value in settings.items():
            if name.upper() not in os.environ:
                jax.config.update(name, value)
