"""Audio files into an index: digest, decode, hash, write, each where it is cheapest.

==========  ===========================  ========================================================================
stage       where                        what
==========  ===========================  ========================================================================
digest      threads                      SHA-256 of the file's content; what the index has is not decoded
decode      worker processes             ``audio.blocks``, blocks of a minute; these processes never import jax
hash        the device                   short recordings together, long ones by the minute; on a CPU in threads
write       the calling thread           one transaction for each recording, or for those of half a second
==========  ===========================  ========================================================================

A recording is hashed when it is decoded, together with the others that are, or when ``BLOCKS``
minutes of it are, and
from then on while it is decoded: in memory are at most that many minutes of 2 workers + 1
recordings, however long the files are. The index holds whole recordings at every moment: a run that
was killed is continued by the same call, which passes over what is there.
"""

import collections
import contextlib
import hashlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from seqhash import audio, corpus, parallel
from seqhash.index.catalogue import Entry, Identity, Index

if (
    TYPE_CHECKING
):  # not at run time: the worker processes import this module, and a hasher brings jax
    from seqhash.codes import Hasher

BLOCKS = 10  # blocks of a minute that are held of one recording
# files digested at a time, so that their content is still in the page cache when it is decoded
_DIGESTED = 16
_GROUP_SECONDS = 0.5  # between two transactions, each of which waits for the disk a few times
_POLL = 0.1  # s between two looks at whether to stop

Item = str | os.PathLike[str] | corpus.Recording
identity_of = Identity.of


class Counts(NamedTuple):
    """What ``add_files`` did. All that was added is on disk."""

    added: int
    present: int  # their content was there already, by its digest
    failed: list[tuple[str, str]]  # (path, reason)


def add_files(
    index: Index, hasher: "Hasher", items: Sequence[Item], *, workers: int, progress: bool
) -> Counts:
    """Adds audio files to an index; those whose content is there are passed over, bad ones are
    listed.

    Title, artist and album of a file's own tags fill what a manifest does not say; the manifest's
    other columns become the entry's metadata.

    Args:
      index: open for writing, of this hasher's identity.
      hasher: samples -> words.
      items: files, folders, manifests (.csv), or recordings of ``corpus``; ids are given as they
        become ready.
      workers: processes that decode, started when there is something to decode. A script that calls
        this needs ``if __name__ == "__main__":`` around it, as with all processes that are spawned.
      progress: shows a bar on stderr, in recordings.

    Raises:
      ManifestError: a manifest or a folder that cannot be used; nothing was added.
      ChildProcessError: worker processes end as they start.
      IndexFileError, OSError: the index cannot be written to; what was added before is kept.
    """
    if workers < 1:
        raise ValueError(f"workers must be positive, got {workers}.")
    recordings = gather(items)
    from seqhash.codes import hash_streams

    settings = _Settings(hasher.sample_rate, hasher.shortest_seconds)
    with tqdm(total=len(recordings), unit="recording", disable=not progress) as bar:
        tally = _Tally(index, bar)
        with (
            tally.writing(),
            _decoding(_jobs(index, recordings, tally, workers), settings, workers) as decoded,
        ):
            for group in decoded:
                received = [_Received(job) for job in group]
                hashed = hash_streams(hasher, [one.blocks() for one in received])
                for one, words in zip(received, hashed, strict=True):
                    try:
                        tally.take(_entry(one, words, hasher.sample_rate))
                    except audio.AudioError as error:
                        tally.fail(one.job.recording, error.reason)
    return Counts(tally.added, tally.present, tally.failed)


def gather(items: Iterable[Item]) -> list[corpus.Recording]:
    """The recordings of files, folders and manifests, each path once: the first time it is named.

    Raises:
      ManifestError: a manifest or a folder that cannot be used.
    """
    found = dict[Path, corpus.Recording]()
    for item in items:
        for recording in _recordings(item):
            found.setdefault(recording.path, recording)
    return list(found.values())


def _recordings(item: Item) -> Sequence[corpus.Recording]:
    if isinstance(item, corpus.Recording):
        return [item]
    path = Path(os.path.abspath(item))
    if os.path.isdir(path) or path.suffix.lower() == ".csv":
        return corpus.recordings(path)
    return [corpus.Recording(path.stem, path, "", "", "", "", {})]


@dataclass
class _Tally:
    """Counts on the way; the bar moves with them, so that what it counts as done is on the disk."""

    index: Index
    bar: Any
    added: int = 0
    present: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    pending: list[Entry] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def take(self, entry: Entry) -> None:
        self.pending.append(entry)
        if time.monotonic() - self.since > _GROUP_SECONDS:
            self.write()

    def write(self) -> None:
        group, self.pending = self.pending, []
        new = self.index.add(group) if group else []
        self.added, self.present = self.added + sum(new), self.present + new.count(False)
        self.bar.update(len(group))
        self.since = time.monotonic()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Writes what is pending at the end, be it Ctrl-C."""
        try:
            yield
        finally:
            self.write()

    def skip(self) -> None:
        self.present += 1
        self.bar.update()

    def fail(self, recording: corpus.Recording, reason: str) -> None:
        self.failed.append((str(recording.path), reason))
        self.bar.update()


@dataclass(eq=False)
class _Job:
    """A recording that is to be decoded, and where its blocks come in: then the file's tags, or an
    AudioError.
    """

    recording: corpus.Recording
    digest: str
    stamp: tuple[int, int]
    box: "queue.Queue[Any]" = field(default_factory=lambda: queue.Queue(BLOCKS + 1))


# Digest.


def _jobs(
    index: Index, recordings: Sequence[corpus.Recording], tally: _Tally, workers: int
) -> Iterator[_Job]:
    """What the index does not have yet; the others are counted. Digests are made as jobs are
    taken.
    """
    left = iter(recordings)
    with ThreadPoolExecutor(workers) as pool:
        while group := list(islice(left, _DIGESTED)):
            digested = list(pool.map(_digest, [recording.path for recording in group]))
            known = index.known([found[0] for found in digested if not isinstance(found, str)])
            for recording, found in zip(group, digested, strict=True):
                if isinstance(found, str):
                    tally.fail(recording, found)
                elif found[0] in known:
                    tally.skip()
                else:
                    yield _Job(recording, *found)


def _digest(path: Path) -> tuple[str, tuple[int, int]] | str:
    """(SHA-256 of the content, stamp), or the reason why there is none."""
    try:
        if not path.is_file():  # a pipe would block for ever
            if path.is_dir():
                os.scandir(path).close()  # one that cannot be read says why
            return "not a regular file" if path.exists() else "no such file"
        stamp = _stamp(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), stamp
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


# Hash.


@dataclass
class _Received:
    """What has come of a job, and how it ended: with the file's tags, or an AudioError."""

    job: _Job
    samples: int = 0
    end: Any = None

    def blocks(self) -> Iterator[np.ndarray]:
        while isinstance(item := self.job.box.get(), np.ndarray):
            self.samples += len(item)
            yield item
        self.end = item


def _entry(received: _Received, words: np.ndarray, sample_rate: int) -> Entry:
    """The entry of what was decoded and hashed. AudioError where the file turned out to be bad."""
    job, path = received.job, received.job.recording.path
    if isinstance(received.end, BaseException):
        raise received.end
    if not len(words):
        raise audio.AudioError(path, "too short: not one code")
    with contextlib.suppress(OSError):
        if _stamp(path) != job.stamp:
            raise audio.AudioError(path, "it changed while it was read; add it again")
    return _described(job, words, received.samples / sample_rate, received.end)


def _described(job: _Job, words: np.ndarray, duration: float, tags: dict[str, str]) -> Entry:
    recording = job.recording
    known = {"genre": recording.genre, "role": recording.role, **recording.extra}
    if recording.id != recording.path.stem:
        known["recording_id"] = recording.id
    merged = tags | {name: value for name, value in known.items() if value}
    return Entry(
        path=str(recording.path),
        digest=job.digest,
        words=words,
        duration=duration,
        title=recording.title or merged.pop("title", ""),
        artist=merged.pop("artist", ""),
        work=recording.work,
        metadata={name: value for name, value in merged.items() if name != "title"},
    )


# Decode: a thread for each worker process takes jobs and passes on what the process sends.


class _Settings(NamedTuple):
    """What a worker process is started with."""

    sample_rate: int
    minimum_seconds: float


class _Worker(NamedTuple):
    process: Any
    connection: Connection


@contextlib.contextmanager
def _decoding(
    jobs: Iterator[_Job], settings: _Settings, workers: int
) -> Iterator[Iterator[list[_Job]]]:
    """Jobs as they become ready: several with all of their blocks, or one with as many as are held
    of a recording.
    """
    waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop = threading.Event()
    serving: list[threading.Thread] = []

    def decoded() -> Iterator[list[_Job]]:
        running, group = 0, list[_Job]()
        arrived = collections.deque[_Job]()
        while True:
            for job in islice(
                jobs, 2 * workers - running
            ):  # one being decoded and one to go on with, for each
                waiting.put(job)
                running += 1
                if len(serving) < min(workers, running):
                    arguments = (_start(settings), settings, waiting, ready, stop)
                    serving.append(threading.Thread(target=_serve, args=arguments, daemon=True))
                    serving[-1].start()
            if group:
                yield group
            if not running:
                return
            with contextlib.suppress(queue.Empty):
                while True:
                    arrived.append(_raised(ready.get(block=not arrived)))
            group = _together(arrived)
            running -= len(group)

    try:
        yield decoded()
    finally:
        stop.set()
        for _ in serving:
            waiting.put(None)
        for thread in serving:
            thread.join()


def _together(arrived: "collections.deque[_Job]") -> list[_Job]:
    """Takes the first, and more as long as they are no more than is held of one recording: then all
    are whole.
    """
    group = [arrived.popleft()]
    while arrived and sum(job.box.qsize() for job in (*group, arrived[0])) <= BLOCKS:
        group.append(arrived.popleft())
    return group


def _raised(item: Any) -> _Job:
    if isinstance(item, BaseException):
        raise item
    return item


def _serve(
    worker: _Worker,
    settings: _Settings,
    waiting: "queue.SimpleQueue[_Job | None]",
    ready: "queue.SimpleQueue[Any]",
    stop: threading.Event,
) -> None:
    """A thread: one worker process after another, until there are no more jobs. Errors go to
    ``ready``.
    """
    try:
        _await_start(worker, stop)
        while (job := waiting.get()) is not None and not stop.is_set():
            if not _relay(worker, job, ready, stop) and not stop.is_set():
                _end(worker)
                worker = _start(settings)
                _await_start(worker, stop)
    except BaseException as error:  # the caller must hear of it, or it waits for ever
        ready.put(error)
    finally:
        _end(worker)


def _relay(
    worker: _Worker, job: _Job, ready: "queue.SimpleQueue[Any]", stop: threading.Event
) -> bool:
    """Passes on the answers to one job; whether the process is still there."""
    announced, item = False, None
    try:
        for item in _answers(worker, job.recording.path, stop):
            if job.box.full() and not announced:
                ready.put(job)
                announced = True
            _put(job, item, stop)
    except BaseException as error:
        _put(job, error, stop)  # the caller may be waiting for this job's next block
        raise
    if not announced:
        ready.put(job)
    return not isinstance(item, _Died)


def _put(job: _Job, item: Any, stop: threading.Event) -> None:
    """Waits for room in the job's box, unless nobody will make any."""
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            return job.box.put(item, timeout=_POLL)


class _Died(audio.AudioError):
    pass


def _answers(worker: _Worker, path: Path, stop: threading.Event) -> Iterator[Any]:
    """Blocks, then the file's tags or an AudioError; nothing more once ``stop`` is set."""
    try:
        worker.connection.send(path)
        while not stop.is_set():
            if worker.connection.poll(_POLL):
                yield (item := worker.connection.recv())
                if not isinstance(item, np.ndarray):
                    return
    except (EOFError, OSError):
        yield _Died(path, f"the process that decoded it ended ({_ending(worker)})")


def _await_start(worker: _Worker, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            if worker.connection.poll(_POLL):
                worker.connection.recv()
                return
    except (EOFError, OSError):
        reason = f"Processes that decode files end as they start ({_ending(worker)})."
        hint = 'A script that adds files needs `if __name__ == "__main__":` around what it does.'
        raise ChildProcessError(f"{reason} {hint}") from None


def _ending(worker: _Worker) -> str:
    worker.process.join(5)
    code = worker.process.exitcode
    if code is None or code >= 0:
        return f"exit status {code}"
    hint = "; out of memory?" if -code == signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{hint}"


def _start(settings: _Settings) -> _Worker:
    """Starts a process that ignores Ctrl-C from its first moment: it ends when its connection is
    closed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_decode_files, args=(there, settings), daemon=True)
    with parallel.ignoring_interrupts():
        process.start()
    there.close()  # else nobody would see the end of the process
    return _Worker(process, here)


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.kill()
    worker.process.join()


def _decode_files(connection: Connection, settings: _Settings) -> None:
    """A worker process: receives paths, sends the blocks of each, then its tags or an
    AudioError.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # the one that asks has ended, or was killed
        connection.send(True)
        while True:
            for item in _contents(connection.recv(), settings):
                connection.send(item)


def _contents(path: Path, settings: _Settings) -> Iterator[Any]:
    try:
        yield from audio.blocks(
            path, sample_rate=settings.sample_rate, minimum_seconds=settings.minimum_seconds
        )
        yield _tags(path)
    except audio.AudioError as error:
        yield error
    except Exception as error:  # whatever one file does to the decoder, the others are decoded
        yield audio.AudioError(path, f"cannot be decoded ({type(error).__name__}: {error})")


def _tags(path: Path) -> dict[str, str]:
    """Title, artist and album, where the file says them."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as handle:
            said = handle.copy_metadata()
    except (soundfile.SoundFileError, OSError):
        return {}
    return {
        name: said[name].strip()
        for name in ("title", "artist", "album")
        if said.get(name, "").strip()
    }
