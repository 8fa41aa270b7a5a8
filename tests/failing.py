"""Commands that write, while the disk is full or breaks: one system call in turn fails.

``python -m tests.failing FOLDER MOST`` in a process with the library of ``failing.c`` preloaded;
``broken_off`` starts it. A disk that is full refuses a call that needs space and all such calls
after it (ENOSPC); one that breaks refuses a single call of any kind (EIO).
"""

import contextlib
import ctypes
import errno
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import soundfile

from seqhash import audio, cli, decode, files
from seqhash.index import exchange, ingest
from seqhash.index.catalogue import open_index

ROOT = Path(__file__).parents[1]
RATE, NEVER = 16_000, 2**29
EXPORTS = ["npz", "faiss"] + ["parquet"] * (importlib.util.find_spec("pyarrow") is not None)
DISKS = {"full": (errno.ENOSPC, True, NEVER), "broken": (errno.EIO, False, 0)}


class Case(NamedTuple):
    """A command with one of its system calls refused."""

    command: str
    disk: str
    call: int  # which one, of those that count
    name: str  # of the call; "", it did not come to it
    status: int
    out: str
    err: str
    before: list[str]  # recordings, each as its path and title
    state: list[str]  # as the next process reads it; of what is exported, its files
    problems: list[str]  # of ``verify``
    again: list[str]  # after the same command on a disk that is in order
    left: list[str]  # files then


def broken_off(folder: Path, most: int) -> Iterator[Case]:
    """Every command on both disks, at ``most`` calls spread over all of them; call 0 is none.

    Raises:
      FileNotFoundError: there is no C compiler.
    """
    library = folder / "failing.so"
    source = Path(__file__).with_suffix(".c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    environment = os.environ | {"LD_PRELOAD": str(library)}
    command = [sys.executable, "-m", "tests.failing", str(folder), str(most)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield Case(**json.loads(line))
    assert process.returncode == 0


# In the process with the library.


def words(samples: np.ndarray) -> np.ndarray:
    """Codes that tell one sound from another."""
    blocks = samples[: len(samples) // 4000 * 4000].reshape(-1, 4000)
    return np.tile((1e6 * np.abs(blocks).sum(axis=1)).astype(np.uint32)[:, None], (1, 4))


HASHER = SimpleNamespace(
    name="telling",
    digest="0" * 64,
    code_rate=4.0,
    sample_rate=RATE,
    words=4,
    shortest_seconds=0.5,
)


def export_hasher(arguments: Sequence[str]) -> int:
    """As ``experiments.export``, of next to no weights; the exit status."""
    from seqhash import autoencoder, export, mfcc
    from seqhash.config import Config

    statistics = mfcc.Statistics(np.zeros(13, np.float32), np.ones(13, np.float32))
    params = {"kernel": np.arange(int(arguments[2]), dtype=np.float32)}
    facts = {"name": "mine", "digest": "0" * 64, "thresholds": np.zeros(32, np.float32)}
    facts |= {"config": Config(), "statistics": statistics, "encode": autoencoder.encode}
    hasher: Any = SimpleNamespace(params=params, **facts)
    try:
        export.export_hasher(hasher, target_of(arguments), card=f"# {arguments[2]}\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.EXIT_BAD_INPUT
    return 0


def hash_streams(_: Any, streams: Sequence[Any]) -> list[np.ndarray]:
    return [words(np.concatenate([np.zeros(0, np.float32), *stream])) for stream in streams]


class Stream(NamedTuple):
    """As ``decode.Stream``, read here: the refusal of a call is this process's."""

    path: Path
    end: dict[str, str]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from audio.blocks(self.path, sample_rate=RATE, minimum_seconds=0.5)
        self.end.update(audio.tags(self.path))


@contextlib.contextmanager
def decoding(paths: Any, **_: Any) -> Iterator[Iterator[list[Stream]]]:
    yield ([Stream(path, {})] for path in paths)


def write(path: Path, seed: int, title: str = "") -> None:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        file.title = title or f"Song {seed}"
        file.write(samples)


def prepare(before: Path, now: Path) -> dict[str, list[str]]:
    """Makes what the commands work on, at ``now``, and moves it to ``before``; the commands."""
    music, index = now / "music", f"--index={now / 'i'}"
    for seed in range(5):
        write(music / f"{seed}.flac", seed)
        write(now / "more" / f"{seed}.flac", 10 + seed)
    run(["add", index, str(music)])
    run(["add", f"--index={now / 'other'}", str(now / "more")])
    run(["add", f"--index={now / 'holes'}", str(music)])
    run(["remove", f"--index={now / 'holes'}", str(music / "1.flac"), str(music / "2.flac")])
    (music / "0.flac").rename(music / "moved.flac")
    write(music / "1.flac", 1, "Retagged")
    write(music / "2.flac", 20, "Replaced")
    (music / "3.flac").unlink()
    write(music / "new.flac", 21)
    exports = {}
    for kind in EXPORTS:
        to = f"--to={now / 'out'}.{kind}"
        run(["export", f"--index={now / 'other'}", to])
        exports[f"export {kind}"] = ["export", index, to]
    run(["export", f"--index={now / 'other'}", f"--to={now / 'other.npz'}"])
    importlib.import_module("seqhash.export")  # once, not in each process
    run(["hasher", f"--to={now / 'mine'}", "100"])
    now.rename(before)
    return {
        "add": ["add", f"--index={now / 'new'}", str(now / "more")],
        "add more": ["add", index, str(now / "more")],
        "update": ["add", "--prune", index, str(music)],
        "remove": ["remove", index, str(music)],
        "merge": ["merge", index, str(now / "other")],
        "compact": ["compact", f"--index={now / 'holes'}"],
        "import": ["import", f"--index={now / 'new'}", str(now / "other.npz")],
        "import more": ["import", index, str(now / "other.npz")],
        **exports,
        "export hasher": ["hasher", f"--to={now / 'mine'}", "200"],
    }


def target_of(arguments: Sequence[str]) -> Path:
    """What a command writes: the index, or what is exported."""
    named = [one for one in arguments if one.startswith(("--index=", "--to="))]
    return Path(named[-1].partition("=")[2])


def run(arguments: list[str]) -> tuple[int, str, str]:
    """The exit status of a command, and what it printed; a traceback where it ended with one."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(cli, "_load_hasher", return_value=HASHER),
        mock.patch.object(decode, "decoding", decoding),
        mock.patch.object(ingest, "_GROUP_SECONDS", 0.0),
        mock.patch.object(exchange, "GROUP", 2),
        # No jax: forks are quick.
        mock.patch.dict(sys.modules, {"seqhash.codes": SimpleNamespace(hash_streams=hash_streams)}),
    ):
        try:
            status = (export_hasher if arguments[0] == "hasher" else cli.main)(arguments)
        except BaseException:
            status = -1
            traceback.print_exc(file=err)
    return status, out.getvalue(), err.getvalue()


def attempt(now: Path, arguments: list[str], disk: str, call: int) -> tuple[Any, ...]:
    """What a command comes to in a process of its own, whose ``call``-th call is refused; 0, none:
    (calls that count, the one that was refused, status, what it printed).
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        library.broken.restype = ctypes.c_char_p
        number, space, more = DISKS[disk]
        below = os.fsencode(now)
        library.arm(below, call or NEVER, (call or NEVER) + more, number, space)
        done = run(arguments)
        facts = [library.counted(), library.broken().decode(), *done]
        os.write(writing, json.dumps(facts).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as report:
        text = report.read()
    os.waitpid(child, 0)
    return tuple(json.loads(text))


def look(path: Path) -> tuple[list[str], list[str]]:
    """Recordings and problems of an index, nothing of one that is not made; else files as they
    are, and none.
    """
    if path.suffix in cli.EXPORTS:
        beside = sorted(path.parent.glob(f"{path.name}*"))
        return [f"{one.name} {digest(one)}" for one in beside], []
    if (folder := files.present(path)).is_dir():
        return [" ".join(digest(one) for one in sorted(folder.iterdir()))], []
    if cli._is_new(str(path)):
        return [], []
    with open_index(path, readonly=True) as index:
        state = sorted(f"{row.path}: {row.title}" for row in index.rows())
        return state, index.verify()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(folder: Path, most: int) -> None:
    before, now = folder / "before", folder / "now"
    for name, arguments in prepare(before, now).items():
        target = target_of(arguments)
        for disk in DISKS:
            calls = [0]
            while calls:
                shutil.rmtree(now, ignore_errors=True)
                shutil.copytree(before, now)
                call, first = calls.pop(0), look(target)[0]
                counted, broken, *done = attempt(now, arguments, disk, call)
                if not call:
                    spread = np.linspace(1, counted, min(counted, most))
                    calls = np.unique(spread.astype(int)).tolist()
                state, problems = look(target)
                attempt(now, arguments, disk, 0)
                left = sorted(one.name for one in now.iterdir())
                facts = (first, state, problems, look(target)[0], left)
                case = Case(name, disk, call, broken, *done, *facts)
                print(json.dumps(case._asdict()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
