"""Audio files into an index: digest, decode, hash, write, each where it is cheapest.

======  ====================  ======================================================================
stage   where                 what
======  ====================  ======================================================================
look    the calling thread    files whose stamp (size, times) is known are what they were
digest  threads               SHA-256 of the file's content; what the index has is not decoded
decode  worker processes      ``decode.decoding``, blocks of a minute
hash    the device            short recordings together, long ones by the minute; a CPU: in threads
write   the calling thread    one transaction for each recording, or for those of half a second
======  ====================  ======================================================================

Recordings are hashed in their order while the next ones are decoded, a long one while it is
decoded itself: memory is that of ``decode.HELD`` minutes for each worker and as much to be hashed.
The index holds whole recordings at every moment: a run that was killed is continued by the same
call, which passes over what is there. Where nothing is new, nothing is decoded and no hasher
loaded. What could not be used is not tried again until it, or what reads it, is another.
"""

import contextlib
import importlib.metadata
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from seqhash import audio, corpus, decode, digests, parallel
from seqhash.index import follow
from seqhash.index.catalogue import Entry, File, Index

if TYPE_CHECKING:  # not at run time: a hasher brings jax, and not every command hashes
    from seqhash.codes import Hasher

# files digested at a time, so that their content is still in the page cache when it is decoded
_DIGESTED = 16
_GROUP_SECONDS = 0.5  # between two transactions, each of which waits for the disk a few times
_SETTLED_SECONDS = 2.0  # a file that changed later than that may change again under one stamp

Item = str | os.PathLike[str] | corpus.Recording


class Gathered(NamedTuple):
    """What files, folders and manifests name."""

    recordings: list[corpus.Recording]  # each path once: the first time it is named
    skipped: Counter[str]  # other files in the folders, by what they are
    roots: list[Path]  # the files and folders that were named, absolute


class Counts(NamedTuple):
    """What ``add_files`` did. All that was added is on disk."""

    added: int
    present: int  # their content was there already, by its digest
    failed: list[tuple[str, str]]  # (path, reason)
    followed: follow.Followed = follow.Followed([], [], [], [])


def add_files(
    index: Index,
    hasher: "Hasher | Callable[[], Hasher]",
    items: Gathered | Sequence[Item],
    *,
    workers: int,
    progress: bool,
    prune: bool = False,
    strict: bool = False,
    report: Callable[[audio.Flaw], None] = audio.warn,
) -> Counts:
    """Adds audio files to an index; those whose content is there are passed over, bad ones are
    listed. Of each the index's channel is taken. Recordings whose files were moved, retagged or
    replaced follow them (``follow``).

    Title, artist and album of a file's own tags fill what a manifest does not say; the manifest's
    other columns become the entry's metadata.

    Args:
      index: open for writing, of this hasher's identity.
      hasher: samples -> words; or what loads it, which is called when there is something to hash.
      items: files, folders, manifests (.csv), or recordings of ``corpus``; ids are given in their
        order.
      workers: processes that decode, started when there is something to decode.
      progress: shows a bar on stderr, in recordings.
      prune: remove recordings whose files are gone from the folders that were named.
      strict: damaged files are listed as bad, and not used as far as they go.
      report: is told what is wrong with a file that is used, in this thread.

    Raises:
      ManifestError: a manifest or a folder that cannot be used; nothing was added.
      ChildProcessError: worker processes end as they start.
      IndexFileError, OSError: the index cannot be written to; what was added before is kept.
    """
    if workers < 1:
        raise ValueError(f"workers must be positive, got {workers}.")
    gathered = items if isinstance(items, Gathered) else gather(items)
    recordings = gathered.recordings
    with tqdm(total=len(recordings), unit="recording", disable=None if progress else True) as bar:
        tally = _Tally(index, bar, reader=reader(strict=strict))
        jobs = _jobs(index, recordings, tally)
        with tally.writing():
            for first in jobs:
                loaded = hasher() if callable(hasher) else hasher
                options = {"channel": index.channel, "strict": strict, "report": report}
                _hash(loaded, chain([first], jobs), tally, workers, options)
    followed, not_new = follow.follow(
        index,
        fresh=tally.fresh,
        roots=gathered.roots,
        seen={str(recording.path) for recording in recordings} - tally.missing,
        prune=prune,
    )
    return Counts(tally.added - not_new, tally.present, tally.failed, followed)


def _hash(
    hasher: "Hasher",
    jobs: Iterator["_Job"],
    tally: "_Tally",
    workers: int,
    options: Mapping[str, Any],
) -> None:
    """Decodes, hashes and writes what is to be added; ``options`` of ``decode.decoding``."""
    from seqhash.codes import hash_streams

    jobs, asked = tee(jobs)
    streams = decode.decoding(
        (job.recording.path for job in asked),
        sample_rate=hasher.sample_rate,
        minimum_seconds=hasher.shortest_seconds,
        workers=workers,
        **options,
    )
    with streams as groups:
        for group in groups:
            decoded = [_Decoded(job, stream) for stream, job in zip(group, jobs, strict=False)]
            hashed = hash_streams(hasher, [one.blocks() for one in decoded])
            for one, words in zip(decoded, hashed, strict=True):
                try:
                    tally.take(_entry(one, words, hasher.sample_rate), one.job)
                except audio.AudioError as error:
                    lasting = error is one.error and not isinstance(error, audio.PassingError)
                    tally.fail(one.job, error.reason, lasting=lasting)


def gather(items: Sequence[Item]) -> Gathered:
    """The recordings of files, folders and manifests.

    Raises:
      ManifestError: a manifest or a folder that cannot be used.
    """
    found, skipped, roots = dict[Path, corpus.Recording](), Counter[str](), list[Path]()
    for item in items:
        if isinstance(item, corpus.Recording):
            found.setdefault(item.path, item)
            continue
        path, listed = Path(os.path.abspath(item)), tuple[corpus.Recording, ...]()
        if os.path.isdir(path):
            folder = corpus.walk(path)
            skipped += folder.skipped
            # Not of an empty one: it may be where a disk is missing.
            roots += [path] if folder.audio else []
            listed = corpus.in_folder(path, folder.audio)
        elif path.suffix.lower() == ".csv":
            listed = corpus.read_manifest(path, missing=True)
            roots += [recording.path for recording in listed]
        else:
            listed = (corpus.Recording(path.stem, path, "", "", "", "", {}),)
            roots.append(path)
        for recording in listed:
            found.setdefault(recording.path, recording)
    if items and not found:
        names = ", ".join(str(item) for item in items)
        raise corpus.ManifestError(f"{names}: no audio files below it.")
    return Gathered(list(found.values()), skipped, roots)


def reader(*, strict: bool = False) -> str:
    """What decides how a file is read: where one of these is another, what could not be used is
    tried again.
    """
    versions = [f"libsndfile {soundfile.__libsndfile_version__}"]
    for name in ("seqhash", "av"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join([*versions, "strict"] if strict else versions)


@dataclass
class _Tally:
    """Counts on the way; the bar moves with them, so that what it counts as done is on the disk."""

    index: Index
    bar: Any
    reader: str
    added: int = 0
    present: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)  # paths that are no files
    fresh: set[str] = field(default_factory=set)  # digests of what was added
    pending: list[Entry] = field(default_factory=list)
    files: list[File] = field(default_factory=list)  # what was seen, to be noted
    since: float = field(default_factory=time.monotonic)

    def take(self, entry: Entry, job: "_Job") -> None:
        self.pending.append(entry)
        self.files.append(job.seen())
        if time.monotonic() - self.since > _GROUP_SECONDS:
            self.write()

    def write(self) -> None:
        group, self.pending = self.pending, []
        files, self.files = self.files, []
        new = self.index.add(group, files) if group or files else []
        self.added, self.present = self.added + sum(new), self.present + new.count(False)
        self.fresh |= {entry.digest for entry, is_new in zip(group, new, strict=True) if is_new}
        self.bar.update(len(group))
        self.since = time.monotonic()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Writes what is pending at the end, be it Ctrl-C."""
        try:
            yield
        finally:
            self.write()

    def skip(self, seen: File | None = None) -> None:
        """What is there already; ``seen`` where that is to be noted."""
        self.files += [seen] if seen else []
        self.present += 1
        self.bar.update()

    def fail(self, job: "_Job", reason: str, *, lasting: bool) -> None:
        """A file that cannot be used; ``lasting`` where its content is the reason."""
        if lasting:
            self.files.append(job.seen()._replace(reason=reason, reader=self.reader))
        self.refuse(job.recording, reason)

    def refuse(self, recording: corpus.Recording, reason: str) -> None:
        self.failed.append((str(recording.path), reason))
        self.bar.update()


class _Job(NamedTuple):
    """A recording that is to be decoded."""

    recording: corpus.Recording
    digest: str
    stamp: str
    settled: bool  # the stamp will tell of the next change

    def seen(self) -> File:
        stamp = self.stamp if self.settled else ""
        return File(str(self.recording.path), self.digest, stamp)


# Look, digest.


def _jobs(index: Index, recordings: Sequence[corpus.Recording], tally: _Tally) -> Iterator[_Job]:
    """What the index does not have yet; the others are counted. Digests are made as jobs are
    taken.
    """
    files = index.files()
    known = index.known(file.digest for file in files.values())
    left = list[corpus.Recording]()
    for recording in recordings:
        file = files.get(str(recording.path))
        if file is None or not file.stamp or _stamp(recording.path) != file.stamp:
            left.append(recording)
        elif file.reason and file.reader == tally.reader:
            tally.refuse(recording, file.reason)
        elif file.digest in known:
            tally.skip()
        else:
            left.append(recording)
    rest = iter(left)
    while group := list(islice(rest, _DIGESTED)):
        digested = parallel.map_all(_digest, [recording.path for recording in group])
        known = index.known([found[0] for found in digested if not isinstance(found, str)])
        for recording, found in zip(group, digested, strict=True):
            if isinstance(found, str):
                tally.missing.add(str(recording.path))
                tally.refuse(recording, found)
                continue
            job, before = _Job(recording, *found), files.get(str(recording.path))
            if job.digest in known:
                tally.skip(None if before == job.seen() else job.seen())
            elif before and before.digest == job.digest and before.reader == tally.reader:
                tally.fail(job, before.reason, lasting=True)
            else:
                yield job


def _digest(path: Path) -> tuple[str, str, bool] | str:
    """(SHA-256 of the content, stamp, whether that is settled), or the reason why there is none."""
    try:
        if not path.is_file():  # a pipe would block for ever
            if path.is_dir():
                os.scandir(path).close()  # one that cannot be read says why
            return "not a regular file" if path.exists() else "no such file"
        stamp = _stamp(path)
        settled = _settled(stamp)
        return digests.of_file(path), stamp, settled
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _stamp(path: Path) -> str:
    """What tells that a file is as it was: size, and when its content and its entry changed, ns.
    Retagging may keep the first two, but not the last one. "" where there is no regular file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    regular = stat.S_ISREG(status.st_mode)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}" if regular else ""


def _settled(stamp: str) -> bool:
    """Whether the next change gives a file another stamp, although clocks tick coarsely, and may
    be set back.
    """
    return time.time() - max(map(int, stamp.split()[1:]), default=0) / 1e9 > _SETTLED_SECONDS


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
    if (now := _stamp(path)) and now != job.stamp:
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
