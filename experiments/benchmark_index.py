"""What an index costs: ``python -m experiments.benchmark index [--audio=FOLDER]``.

10,000 recordings of 960 random codes, four minutes each: the time to add them, the file's size, and
the time to load them, the first time with the file out of the page cache. With --audio, a folder or
manifest of recordings also goes from file to index: each stage by itself on one core, then
``ingest.add_files`` on all of them.
"""

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from seqhash import audio, codes, corpus, parallel
from seqhash.export import load_hasher
from seqhash.index import ingest
from seqhash.index.catalogue import Entry, Identity, Index, open_index

RECORDINGS, QUICK = 10_000, 200
CODES = 960  # of a recording: 4 minutes
GROUP = 50  # recordings added at a time
STAGES = ("digest", "decode", "hash", "write")
IDENTITY = Identity("random", "0" * 64, 4.0, 4, 16_000)


def measure(*, rounds: int, quick: bool, recordings: str | None) -> dict[str, Any]:
    """Everything, as JSON takes it."""
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "synthetic": _synthetic(
                Path(folder) / "codes.index", QUICK if quick else RECORDINGS, rounds
            )
        }
        if recordings:
            result["audio"] = _stages(Path(folder) / "audio.index", recordings)
    return result


def _synthetic(path: Path, count: int, rounds: int) -> dict[str, float]:
    rng, adding = np.random.default_rng(0), 0.0
    with open_index(path, identity=IDENTITY, create=True) as index:
        for first in tqdm(range(0, count, GROUP), unit="group", leave=False, disable=None):
            entries = [_entry(i, rng) for i in range(first, min(first + GROUP, count))]
            begun = time.perf_counter()
            index.add(entries)
            adding += time.perf_counter() - begun
    loads = []
    for once in range(rounds + 1):
        if not once:
            _forget(path)
        begun = time.perf_counter()
        with open_index(path, readonly=True) as index:
            words = index.load().words
        loads.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    with open_index(path, readonly=True) as index:
        assert not index.verify()
    return {
        "recordings": count,
        "codes": len(words),
        "add_seconds": adding,
        "verify_seconds": time.perf_counter() - begun,
        "first_load_seconds": loads[0],
        "load_seconds": statistics.median(loads[1:]),
        "bytes_a_code": path.stat().st_size / len(words),
        "memory_a_code": words.nbytes / len(words),
    }


def _entry(i: int, rng: np.random.Generator) -> Entry:
    words = rng.integers(0, 2**32, (CODES, 4), np.uint32)
    digest = hashlib.sha256(str(i).encode()).hexdigest()
    path = f"/music/artist {i % 100}/album {i % 1000}/{i:05d}.flac"
    return Entry(path, digest, words, CODES / 4, title=f"title {i}", artist=f"artist {i % 100}")


def _forget(path: Path) -> None:
    """Asks the system to drop the file from its cache."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _stages(path: Path, listed: str) -> dict[str, float]:
    """Seconds of a core for an hour of audio, by stage; hours of audio a minute, on all cores."""
    hasher = load_hasher("paper-128")
    seconds, spent = 0.0, dict.fromkeys(STAGES, 0.0)
    for length in (30, 300, 900):  # compiles what recordings of such lengths need
        hasher.hash_samples(np.full(length * hasher.sample_rate, 0.1, np.float32))
    with open_index(path, identity=Identity.of(hasher), create=True) as index:
        for recording in tqdm(
            corpus.recordings(listed), unit="recording", leave=False, disable=None
        ):
            try:
                marks = [time.process_time(), *_marks(hasher, recording, index)]
            except audio.AudioError:
                continue
            seconds += float(marks.pop())
            for stage, used in zip(STAGES, np.diff(marks).tolist(), strict=True):
                spent[stage] += used
    path.unlink()
    with open_index(path, identity=Identity.of(hasher), create=True) as index:
        begun = time.perf_counter()
        ingest.add_files(index, hasher, [listed], workers=parallel.cores(), progress=True)
        elapsed = time.perf_counter() - begun
    result = {f"{stage}_seconds_an_hour": value / seconds * 3600 for stage, value in spent.items()}
    return result | {"hours": seconds / 3600, "hours_a_minute": seconds / 60 / elapsed}


def _marks(hasher: codes.Hasher, recording: corpus.Recording, index: Index) -> Iterator[float]:
    """CPU time after each stage of one recording; last, its seconds of audio."""
    with open(recording.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    yield time.process_time()
    blocks = list(audio.blocks(recording.path, sample_rate=hasher.sample_rate))
    yield time.process_time()
    (words,) = codes.hash_streams(hasher, [blocks])
    yield time.process_time()
    duration = sum(map(len, blocks)) / hasher.sample_rate
    index.add([Entry(str(recording.path), digest, words, duration)])
    yield time.process_time()
    yield duration


def show(result: dict[str, Any]) -> None:
    """On screen."""
    made = result["synthetic"]
    print(f"{made['recordings']:,} recordings, {made['codes']:,} codes:")
    print(f"  added in {made['add_seconds']:.1f} s, verified in {made['verify_seconds']:.1f} s")
    print(
        f"  loaded in {made['first_load_seconds']:.2f} s from disk, "
        f"{made['load_seconds']:.2f} s from the page cache"
    )
    print(
        f"  {made['bytes_a_code']:.1f} bytes a code on disk, {made['memory_a_code']:.1f} in memory"
    )
    if "audio" in result:
        stages = result["audio"]
        print(
            f"{stages['hours']:.2f} h of audio: "
            f"{stages['hours_a_minute']:.1f} h a minute on all cores"
        )
        named = ", ".join(f"{stage} {stages[f'{stage}_seconds_an_hour']:.2f}" for stage in STAGES)
        print(f"  seconds of a core for an hour: {named}")
