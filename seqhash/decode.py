"""Audio files decoded ahead of their use, by processes of their own.

**Why processes.** libsndfile, mpg123 and soxr are C code that reads other people's files. One that
crashes them, or takes all memory, ends the process that it is in: here a worker with this one file
in hand, which becomes an ``AudioError`` while a new worker goes on with the next. Threads are not
faster: on two cores, two threads and two workers decode an hour of music in 2.6 s each. A minute of
it takes a core 45 ms to decode, and 10 to hand over.

**How.** A worker is told one path, decodes up to ``HELD`` blocks, hands them over, goes on block by
block, and is told its next path when the last one was taken. Whoever is ahead waits at the pipe
between them: there are no threads, queues or flags, and however long files are, a worker's memory
is that of ``HELD`` + 1 blocks. Workers are not ``multiprocessing``'s, which would import the
caller's main module, and jax with it, in each. They are process groups of their own, so that Ctrl-C
in a terminal reaches the caller alone, and end with the pipe to it, however it ends.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from seqhash import audio

HELD = 10  # blocks of a minute that a worker decodes of a file before any is taken
NOTES = 3  # lines that a library writes about a file, which are shown ...
IDLE = "fuzzy seeking"  # ... but for mpg123's about a header: damage is told, nothing is sought
_PROGRAM = "import sys; from seqhash import decode; decode.serve(int(sys.argv[1]))"


class DecoderEnded(audio.PassingError):
    """A file that ended the process that decoded it."""


@dataclass(eq=False)
class Stream:
    """A file on its way: an iterator over its float32 (samples,) blocks, to be read to the end.

    AudioError is raised where ``audio.blocks`` raises it, and where the file ended its worker.
    """

    path: Path
    worker: "_Worker"
    go_on: Callable[["_Worker"], None]  # gives a worker that is free its next file
    report: Callable[[audio.Flaw], None]  # is told what is wrong with it, as its blocks are read
    size: float = math.inf  # items that were held of it when they began to come
    end: Any = None  # title, artist and album, or an AudioError

    def __iter__(self) -> Iterator[np.ndarray]:
        while self.end is None:
            if (block := self._receive()) is not None:
                yield block
        if isinstance(self.end, audio.AudioError):
            raise self.end

    def held(self, *, wait: bool) -> float:
        """Items that are held of it: more than HELD if there are more; infinite if not known."""
        if self.size == math.inf and (wait or self.worker.connection.poll()):
            self._receive()
        return self.size

    def _receive(self) -> np.ndarray | None:
        item = self.worker.receive(self.path)
        if isinstance(item, np.ndarray):
            return item
        if isinstance(item, audio.Flaw):
            self.report(item)
        elif isinstance(item, int):
            self.size = item
        else:
            self.size, self.end = min(self.size, HELD + 1), item
            self.go_on(self.worker)  # while what came of this file is used
        return None


@contextlib.contextmanager
def decoding(
    paths: Iterable[Path],
    *,
    sample_rate: int,
    minimum_seconds: float,
    workers: int,
    channel: str = "first",
    strict: bool = False,
    report: Callable[[audio.Flaw], None] = audio.warn,
) -> Iterator[Iterator[list[Stream]]]:
    """Files in their order, in groups that can be used together: one of any length, or some that
    are whole and as little as is held of one. Each is read to its end before the next group.

    Args:
      paths: one is taken when a worker is free for it.
      sample_rate, minimum_seconds, channel, strict, report: of ``audio.blocks``.
      workers: processes; no more are started than there are paths.

    Raises:
      ChildProcessError: workers end as they start.
    """
    running, started = deque[Stream](), list[_Worker]()
    options = {
        "sample_rate": sample_rate,
        "minimum_seconds": minimum_seconds,
        "channel": audio.check_channel(channel),
        "strict": strict,
    }
    left = iter(paths)

    def go_on(worker: _Worker) -> None:
        for path in islice(left, 1):
            worker.ask((path, options, HELD))
            running.append(Stream(path, worker, go_on, report))

    def groups() -> Iterator[list[Stream]]:
        while running:
            running[0].held(wait=True)
            group = [running.popleft()]
            while running and sum(s.held(wait=False) for s in (*group, running[0])) <= HELD:
                group.append(running.popleft())
            yield group

    try:
        first = list(islice(left, workers))
        left = chain(first, left)
        for _ in first:
            started.append(_Worker())
        for worker in started:
            go_on(worker)
        yield groups()
    finally:
        for worker in started:
            worker.end()


class Reader:
    """Reads one file after another in a process of its own, which is started at once.

    A context manager. Whatever a file does to the process, this one goes on.
    """

    def __init__(self) -> None:
        self._worker = _Worker()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.end()

    def blocks(
        self,
        path: str | os.PathLike[str],
        *,
        sample_rate: int,
        minimum_seconds: float = 0.0,
        channel: str = "first",
        strict: bool = False,
        report: Callable[[audio.Flaw], None] = audio.warn,
    ) -> Iterator[np.ndarray]:
        """As ``audio.blocks``; a file that ends the process is an AudioError too."""
        options = {
            "sample_rate": sample_rate,
            "minimum_seconds": minimum_seconds,
            "channel": audio.check_channel(channel),
            "strict": strict,
        }
        stream = Stream(Path(path), self._worker, lambda _: None, report)
        self._worker.ask((stream.path, options, 0))
        try:
            yield from stream
        finally:
            if stream.end is None:  # what is left of it would be taken for the next one
                self._worker.end()


class _Worker:
    """A process that decodes one file after another; another process after one that ended."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.connection, there = multiprocessing.Pipe()
        self.greeted = False
        # What C libraries write to stderr. Closed by end.
        self._notes = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(there.fileno())],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._notes,
                pass_fds=[there.fileno()],
                process_group=0,
            )

    def ask(self, request: tuple[Path, dict[str, Any], int]) -> None:
        """Has it decode a file, in a new process where the last one ended."""
        if self._process.poll() is not None:
            self.end()
            self._start()
        if not self.greeted:
            self._await_start()
        with contextlib.suppress(OSError):  # it has just ended, which is seen when it is heard
            self.connection.send(request)

    def receive(self, path: Path) -> Any:
        """Its next item of a file: how many it holds, blocks and flaws, then tags or an
        AudioError.
        """
        try:
            item = self.connection.recv()
        except (EOFError, OSError):
            item = DecoderEnded(path, f"the process that decoded it ended ({self._ending()})")
        if not isinstance(item, int | np.ndarray | audio.Flaw):
            notes = self._noted()
            for note in notes[:NOTES]:
                print(f"{path}: {note}", file=sys.stderr)
            if len(notes) > NOTES:
                print(f"{path}: {len(notes) - NOTES} more such lines", file=sys.stderr)
        return item

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._notes.close()

    def _await_start(self) -> None:
        try:
            self.greeted = self.connection.recv()
        except (EOFError, OSError):
            reason = f"Processes that decode files end as they start ({self._ending()})"
            raise ChildProcessError("\n".join([reason, *self._noted()])) from None

    def _ending(self) -> str:
        status = self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        hint = "; out of memory?" if -status == signal.SIGKILL else ""
        return f"{signal.Signals(-status).name}{hint}"

    def _noted(self) -> list[str]:
        """Lines that came on stderr since the last call."""
        self._notes.seek(0)
        text = self._notes.read().decode(errors="replace")
        self._notes.seek(0)  # the process writes from here on, too
        self._notes.truncate()
        return [line for line in text.splitlines() if IDLE not in line]


def serve(descriptor: int) -> None:
    """A worker: told a path, it sends how many items it holds of this file, these, and the rest."""
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):  # the one that asks has ended
        connection.send(True)
        while True:
            path, options, most = connection.recv()
            items = _contents(path, options)
            held = deque(islice(items, most + 1))
            connection.send(len(held))
            while held:
                connection.send(held.popleft())
            for item in items:
                connection.send(item)


def _contents(path: Path, options: dict[str, Any]) -> Iterator[Any]:
    flaws = list[audio.Flaw]()
    try:
        for block in audio.blocks(path, **options, report=flaws.append):
            yield block
            while flaws:
                yield flaws.pop(0)
        yield from flaws
        yield audio.tags(path)
    except audio.AudioError as error:
        yield error
    except Exception as error:  # whatever one file does to the decoder, the others are decoded
        passing = isinstance(error, OSError | MemoryError)
        kind = audio.PassingError if passing else audio.AudioError
        yield kind(path, f"cannot be decoded ({type(error).__name__}: {error})")
