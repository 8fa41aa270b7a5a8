"""Audio files into an index: digest, decode, hash, write, each where it is cheapest.

======  ====================  ======================================================================
stage   where                 what
======  ====================  ======================================================================
digest  threads               SHA-256 of the file's content; what the index has is not decoded
decode  worker processes      ``decode.decoding``, blocks of a minute
hash    the device            short recordings together, long ones by the minute; a CPU: in threads
write   the calling thread    one transaction for each recording, or for those of half a second
======  ====================  ======================================================================

Recordings are hashed in their order while the next ones are decoded, a long one while it is
decoded itself: memory is that of ``decode.HELD`` minutes for each worker and as much to be hashed.
The index holds whole recordings at every moment: a run that was killed is continued by the same
call, which passes over what is there.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from seqhash import audio, corpus, decode, digests, parallel
from seqhash.index.catalogue import Entry, Identity, Index

if TYPE_CHECKING:  # not at run time: a hasher brings jax, and not every command hashes
    from seqhash.codes import Hasher

BLOCKS = 10  # blocks of a minute that are held of one recording
# files digested at a time, so that their content is still in the page cache when it is decoded
_DIGESTED = 16
_GROUP_SECONDS = 0.5  # between two transactions, each of which waits for the disk a few times

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
      items: files, folders, manifests (.csv), or recordings of ``corpus``; ids are given in their
        order.
      workers: processes that decode, started when there is something to decode.
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

    with tqdm(total=len(recordings), unit="recording", disable=not progress) as bar:
        tally = _Tally(index, bar)
        jobs, asked = tee(_jobs(index, recordings, tally))
        streams = decode.decoding(
            (job.recording.path for job in asked),
            sample_rate=hasher.sample_rate,
            minimum_seconds=hasher.shortest_seconds,
            workers=workers,
        )
        with tally.writing(), streams as groups:
            for group in groups:
                decoded = [_Decoded(job, stream) for stream, job in zip(group, jobs, strict=False)]
                hashed = hash_streams(hasher, [one.blocks() for one in decoded])
                for one, words in zip(decoded, hashed, strict=True):
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


class _Job(NamedTuple):
    """A recording that is to be decoded."""

    recording: corpus.Recording
    digest: str
    stamp: tuple[int, int]


# Digest.


def _jobs(index: Index, recordings: Sequence[corpus.Recording], tally: _Tally) -> Iterator[_Job]:
    """What the index does not have yet; the others are counted. Digests are made as jobs are
    taken.
    """
    left = iter(recordings)
    while group := list(islice(left, _DIGESTED)):
        digested = parallel.map_all(_digest, [recording.path for recording in group])
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
        return digests.of_file(path), stamp
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


# Hash.


@dataclass
class _Decoded:
    """What comes of a job's file, and what is wrong with it."""

    job: _Job
    stream: decode.Stream
    samples: int = 0
    error: audio.AudioError | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """They end where the file turns out to be bad: those hashed with it are not."""
        try:
            for block in self.stream:
                self.samples += len(block)
                yield block
        except audio.AudioError as error:
            self.error = error


def _entry(decoded: _Decoded, words: np.ndarray, sample_rate: int) -> Entry:
    """The entry of what was decoded and hashed. AudioError where the file turned out to be bad."""
    job, path = decoded.job, decoded.job.recording.path
    if decoded.error:
        raise decoded.error
    if not len(words):
        raise audio.AudioError(path, "too short: not one code")
    with contextlib.suppress(OSError):
        if _stamp(path) != job.stamp:
            raise audio.AudioError(path, "it changed while it was read; add it again")
    return _described(job, words, decoded.samples / sample_rate, decoded.stream.end)


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
