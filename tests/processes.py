"""Functions and modules in processes of their own, without the second or two that their imports
take.

The processes are forked from one that has imported the packages and has done nothing else with
them.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from absl import flags

from tests import compiling

ROOT = Path(__file__).parents[1]
# One device; threads of OpenBLAS that wait for each other on a busy machine take seconds.
ENVIRONMENT = {"XLA_FLAGS": "", "OPENBLAS_NUM_THREADS": "1"}
QUICKLY = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"
}  # with Running, all that the fixture compiled_quickly does

_context = multiprocessing.get_context("forkserver")
OTHERS = ["matplotlib.pyplot", "pytest", "sklearn.decomposition", "tests.compiling"]
OURS = [
    f"seqhash.{name}"
    for name in (
        "evaluate",
        "export",
        "figures",
        "robustness.report",
        "robustness.cells",
        "robustness.systems",
        "train",
    )
]
_context.set_forkserver_preload([*OTHERS, *OURS, __name__])


class Ended(NamedTuple):
    status: int  # -N: by signal N
    out: str
    err: str


class Running:
    """A call of a function of a module in a new process, at the project's root; what it prints is
    caught.

    environment: of the process, beside ENVIRONMENT. What JAX reads of it on import is not heeded,
      but for QUICKLY.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [os.path.join(self._folder.name, name) for name in ("out", "err")]
        self._name = " ".join(map(str, (function.__name__, *arguments)))
        with mock.patch.dict(os.environ, ENVIRONMENT | environment):
            call = (self._streams, dict(os.environ), function, arguments)
            self.process = _context.Process(target=_call, args=call)
            self.process.start()

    def ended(self, timeout: float = 300) -> Ended:
        """Waits for the end; kills it and raises TimeoutError after so many seconds."""
        self.process.join(timeout)
        late = self.process.exitcode is None
        self.process.kill()
        self.process.join()
        out, err = (Path(stream).read_text() for stream in self._streams)
        self._folder.cleanup()
        if late:
            raise TimeoutError(f"{self._name} ran for more than {timeout:g} s:\n{err[-2000:]}")
        return Ended(self.process.exitcode, out, err)


def run_module(module: str, *arguments: str, **environment: str) -> Ended:
    """What ``python -m module arguments`` ends with."""
    return Running(run_here, module, *arguments, **environment).ended()


def run_with_forks(module: str, *arguments: str, **environment: str) -> Ended:
    """``run_module`` of a script that runs others in turn, which are forks of it, not commands of
    their own.
    """
    return Running(_module_with_forks, module, *arguments, **environment).ended()


def _call(
    streams: list[str], environment: dict[str, str], function: Callable[..., Any], arguments: tuple
) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    gc.freeze()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    with compiling.quickly() if environment.keys() >= QUICKLY.keys() else contextlib.nullcontext():
        _to_its_end(function, *arguments)


def _to_its_end(function: Callable[..., Any], *arguments: Any) -> None:
    try:
        function(*arguments)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def run_here(module: str, *arguments: str) -> None:
    """``python -m module arguments``, in this process."""
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _module_with_forks(module: str, *arguments: str) -> None:
    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        assert (command[:2], check) == ([sys.executable, "-m"], False)
        process = multiprocessing.get_context("fork").Process(
            target=_to_its_end, args=(script, *command[2:])
        )
        process.start()
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode or 0)

    def script(module: str, *arguments: str) -> None:
        for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):  # it has its own
            delattr(flags.FLAGS, flag.name)
        run_here(module, *arguments)

    with mock.patch.object(subprocess, "run", run):
        run_here(module, *arguments)
