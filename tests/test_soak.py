"""Long runs of the commands as a user has them: a stream that goes on, and a great many files.
Memory, open files and answers are watched.

Short ones; ``SEQHASH_SOAK=24 SEQHASH_SOAK_FILES=10000 pytest -s tests/test_soak.py`` listens to a
day of audio, at the machine's speed, and adds ten thousand files. ``SEQHASH_SOAK_MUSIC`` names a
folder of music that is heard instead of the songbook: every second file is in the index.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqhash import audio, songbook
from seqhash.index.catalogue import open_index

ROOT = Path(__file__).parents[1]
HOURS = float(os.environ.get("SEQHASH_SOAK", "0.03"))  # of audio
MUSIC = os.environ.get("SEQHASH_SOAK_MUSIC")
FILES = int(os.environ.get("SEQHASH_SOAK_FILES", "60"))
RATE = songbook.SAMPLE_RATE
IN, OUT = ("greensleeves", "oh_susanna", "fur_elise"), ("ode_to_joy", "blue_danube")
WATCHED = 5.0  # s between two looks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory and files are read from /proc"),
]


def command(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "seqhash.cli", *map(str, arguments)]
    return subprocess.Popen(program, env=environment, **options)


class Watch(threading.Thread):
    """Looks at a process, and those it started, every few seconds until it ends."""

    def __init__(self, process):
        super().__init__()
        self.process, self.memory, self.files = process, [], []
        self.start()

    def run(self):
        while self.process.poll() is None:
            pids = [self.process.pid, *children(self.process.pid)]
            self.memory.append(sum(map(resident, pids)))
            self.files.append(max(map(opened, pids)))
            time.sleep(WATCHED if len(self.memory) > 3 else 0.5)

    def halves(self, what):
        """The largest of the first half, and of the second; the first tenth is for loading."""
        values = what[len(what) // 10 :]
        return tuple(float(max(half)) for half in np.array_split(values, 2))

    def is_flat(self):
        """Whether the second half has no more, where there is enough to say so."""
        pairs = [(self.halves(self.memory), 30.0), (self.halves(self.files), 2)]
        return len(self.memory) < 20 or all(two <= one + most for (one, two), most in pairs)


def children(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def resident(pid):
    """MB, 0 where the process has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def opened(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def music():
    """(samples of each recording, those that are in the index)."""
    if not MUSIC:
        return {work: songbook.render(work, "orig", seed=0) for work in (*IN, *OUT)}, set(IN)
    paths = sorted(path for path in Path(MUSIC).iterdir() if path.is_file())
    songs = {p.stem: np.concatenate([*audio.blocks(p, sample_rate=RATE)]) for p in paths}
    return songs, {path.stem for path in paths[::2]}


def drawn(rng, songs):
    """What is heard next: the work, "" where it is none, and its samples."""
    seconds, kind = rng.uniform(10, 20), rng.random()
    if kind < 0.15:  # silence, or noise
        level = 0.1 if kind < 0.1 else 0.0
        return "", level * rng.standard_normal(round(seconds * RATE))
    work = str(rng.choice(sorted(songs)))
    count = round(min(seconds, len(songs[work]) / RATE) * RATE)
    at = rng.integers(0, len(songs[work]) - count + 1)
    return work, songs[work][at : at + count]


def test_a_stream_that_goes_on(tmp_path):
    songs, known = music()
    for work in known:
        soundfile.write(tmp_path / f"{work}.flac", songs[work], RATE)
    index, rng = tmp_path / "i", np.random.default_rng(0)
    assert command("add", f"--index={index}", tmp_path).wait() == 0
    parts, heard, events = [], 0.0, []
    flags = ["--json", "--false_positive_rate=0.001", f"--rate={RATE}"]
    process = command(
        "identify", f"--index={index}", *flags, "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    reading = threading.Thread(
        target=lambda: events.extend(map(json.loads, process.stdout)), daemon=True
    )
    reading.start()
    watch, begin = Watch(process), time.monotonic()
    while heard < 3600 * HOURS:
        work, part = drawn(rng, songs)
        parts.append((work, heard, heard + len(part) / RATE))
        heard = parts[-1][2]
        process.stdin.write((np.clip(part, -1, 1) * 32767).astype("<i2").tobytes())
        if len(parts) % 200 == 0:
            print(f"{heard / 3600:.2f} h after {time.monotonic() - begin:.0f} s", flush=True)
    process.stdin.close()
    assert process.wait(600) == 0
    reading.join()
    print(f"all of it after {time.monotonic() - begin:.0f} s")
    process.stdout.close()
    watch.join()
    begins = [
        (e["time"], Path(e["matches"][0]["path"]).stem, e["matches"][0])
        for e in events
        if e["event"] != "ends"
    ]
    # Of the same song right after itself there may be no event: one that overlaps goes on.
    before = [("",), *parts]
    present = [part for i, part in enumerate(parts) if part[0] in known and before[i][0] != part[0]]
    told = sum(
        any(work == name and start < at <= end + 3 for at, name, _ in begins)
        for work, start, end in present
    )
    false = [
        (*event, [part for part in parts if part[1] - 13 < event[0] < part[2] + 13])
        for event in begins
        if not any(event[1] == work and start < event[0] <= end + 3 for work, start, end in parts)
    ]
    memory, files = watch.halves(watch.memory), watch.halves(watch.files)
    print(
        f"{heard / 3600:.2f} h of audio, {told} of {len(present)} recordings told, that did not "
        f"play: {len(false)} {false}; MB in the first and the second half: {memory}, files: {files}"
    )
    assert told >= 0.9 * len(present)
    assert len(false) <= 0.01 * heard / 10
    assert watch.is_flat()
    assert max(watch.memory) < 1_000


def test_a_great_many_files(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(FILES):
        time_ = np.arange(round(8_000 * rng.uniform(1.1, 2.0))) / 8_000
        tones = np.sin(2 * np.pi * rng.uniform(200, 3_000, (4, 1)) * time_).sum(axis=0) / 8
        folder = tmp_path / "music" / f"{i // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{i}.wav", tones + 0.01 * rng.standard_normal(len(time_)), 8_000)
    arguments, begin = ("add", f"--index={tmp_path / 'i'}", tmp_path / "music"), time.monotonic()
    process = command(*arguments, stdout=subprocess.PIPE, text=True)
    watch = Watch(process)
    assert process.communicate()[0] == f"added {FILES}, already there 0, failed 0\n"
    watch.join()
    memory, files = watch.halves(watch.memory), watch.halves(watch.files)
    with open_index(tmp_path / "i", readonly=True) as index:
        assert (len(index.rows()), index.verify()) == (FILES, [])
    print(
        f"{FILES} files in {time.monotonic() - begin:.0f} s; MB in the first and the second half: "
        f"{memory}, files: {files}"
    )
    assert watch.is_flat()
    assert max(watch.memory) < 1_500
    again = command(*arguments, stdout=subprocess.PIPE, text=True)
    assert again.communicate()[0] == f"added 0, already there {FILES}, failed 0\n"
