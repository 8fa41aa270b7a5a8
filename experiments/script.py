"""How a script starts and ends: its flags, what it reports and writes, its exit status."""

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import app, flags, logging

from seqhash import audio, corpus, features, parallel
from seqhash.files import replacing

if TYPE_CHECKING:
    from seqhash.codes import Hasher

EXIT_BAD_INPUT = 2  # a message on stderr says what
EXIT_STRICT = 3  # --strict, and some files could not be used
EXIT_STOPPED = 130  # by Ctrl-C, as shells count


def write_json(path: Path, value: Any) -> None:
    """Written whole or not at all; what is not a number (an accuracy over no windows) becomes
    null.
    """
    with replacing(path) as file:
        file.write((json.dumps(_strict(value), indent=1, allow_nan=False) + "\n").encode())


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command(name: str) -> str:
    """The command line of this run, as a shell takes it."""
    return f"python -m experiments.{name} {shlex.join(sys.argv[1:])}"


def whole_numbers(flag: str, values: Sequence[str]) -> tuple[int, ...]:
    """The numbers of a list flag; ValueError names the flag."""
    if not values or not all(value.strip().isdecimal() for value in values):
        raise ValueError(f"--{flag} must be whole numbers, as 1,9, got {','.join(values)!r}.")
    return tuple(int(value) for value in values)


def read_samples(
    recordings: Sequence[corpus.Recording], hasher: "Hasher"
) -> tuple[list[corpus.Recording], list[np.ndarray], list[tuple[Path, str]]]:
    """Recordings that a hasher can use, their samples at its rate, and the files that it cannot."""

    def read(recording: corpus.Recording) -> np.ndarray | str:
        try:
            samples = audio.read(recording.path, sample_rate=hasher.sample_rate)
        except audio.AudioError as error:
            return error.reason
        short = len(samples) < hasher.shortest_seconds * hasher.sample_rate
        return f"shorter than {hasher.shortest_seconds:.3g} s" if short else samples

    made = list(zip(recordings, parallel.map_all(read, recordings), strict=True))
    good = [(recording, one) for recording, one in made if not isinstance(one, str)]
    failed = [(recording.path, one) for recording, one in made if isinstance(one, str)]
    return [recording for recording, _ in good], [samples for _, samples in good], failed


def report_failures(failed: Sequence[tuple[Any, str]]) -> None:
    """Lists what could not be used, on stderr."""
    for path, reason in failed:
        print(f"skipped {path}: {reason}", file=sys.stderr)


def report_flaw(flaw: audio.Flaw) -> None:
    """Names, on stderr, what is wrong with a file that is used."""
    print(f"warning {flaw}", file=sys.stderr)


def report_lost(recordings: Sequence[corpus.Recording]) -> None:
    """Names, on stderr, the works whose covers are not asked."""
    from seqhash import evaluate  # late, for jax

    for work in evaluate.roles(recordings).lost:
        print(f"work {work} is left out: its original could not be read", file=sys.stderr)


def require_covers(store: features.Store) -> None:
    """Names the works that are left out; raises ManifestError where that leaves no covers."""
    from seqhash import evaluate  # late, for jax

    report_lost(store.recordings)
    known = evaluate.roles(store.recordings)
    corpus.require_covers([store.recordings[i] for i in (*known.originals, *known.covers)])


def trained(name: str, arguments: Sequence[str], directory: Path) -> Path:
    """The folder of a hasher, which a script trains and exports there; not again where it did so by
    the same arguments.

    Args:
      name: of the script.
      arguments: of it, but for the directory.
      directory: of the hasher.

    Raises:
      ValueError: the script refused, and said why on stderr.
    """
    told, asked = directory / "command.json", [name, *arguments]
    if not told.is_file() or json.loads(told.read_text()) != asked:
        print(f"training: {directory.name}", file=sys.stderr)
        command = [sys.executable, "-m", f"{__package__}.{name}", f"--directory={directory}"]
        if subprocess.run([*command, *arguments], stdout=sys.stderr, check=False).returncode:
            raise ValueError(f"{directory.name} must be a hasher that {name} can train.")
        write_json(told, asked)
    return directory


def run(
    main: Callable[..., int | None],
    *,
    more_of: str = "",
    one_of: Sequence[str] = (),
    resumes: bool = False,
) -> None:
    """Runs a script under absl; bad input ends in one line on stderr and EXIT_BAD_INPUT, not in a
    traceback.

    Args:
      main: returns the exit status.
      more_of: a flag that takes any number of name=value: ``--set a=1 b=2`` is ``--set a=1 --set
        b=2``.
      one_of: words of which the command has one, which ``main`` is given.
      resumes: what was done before it is stopped counts when it is run again.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        named = [word for word in argv[1:] if word in one_of]
        changes = [word for word in argv[1:] if more_of and "=" in word]
        if one_of and len(named) != 1:
            print(f"name one of {', '.join(one_of)}; see --help", file=sys.stderr)
            return EXIT_BAD_INPUT
        if stray := [word for word in argv[1:] if word not in [*named, *changes]]:
            print(f"unexpected argument {stray[0]!r}; see --help", file=sys.stderr)
            return EXIT_BAD_INPUT
        if more_of:
            flags.FLAGS[more_of].value += changes  # type: ignore[operator]
        try:
            return main(*named)
        except (ValueError, OSError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_BAD_INPUT
        except KeyboardInterrupt:
            more = "; the same command goes on where it was" if resumes else ""
            print(f"stopped{more}", file=sys.stderr)
            return EXIT_STOPPED

    flags.FLAGS.set_gnu_getopt()  # flags may follow other words
    logging.set_verbosity(logging.WARNING)  # jax, orbax and FAISS tell much that is of no use here
    app.run(guarded)
