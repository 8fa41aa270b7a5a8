"""decode.py: what comes is what ``audio`` reads, whatever files do to the workers."""

import contextlib
import os
import threading
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqhash import audio, decode

RATE = 8_000


def workers_that(monkeypatch, body: str) -> None:
    """Has workers read audio by ``blocks(path, **options)`` of this body; ``real`` is audio's."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    program = f"""
import ctypes, os, signal, sys, time
import numpy as np
from seqhash import audio, decode
real = audio.blocks
def blocks(path, **options):
{lines}
audio.blocks = blocks
decode.serve(int(sys.argv[1]))
"""
    monkeypatch.setattr(decode, "_PROGRAM", program)


def write(path: Path, seconds: float = 1.0, *, seed: int = 0, **tags: str) -> Path:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(samples)
    return path


@contextlib.contextmanager
def streams(paths, *, workers=2):
    decoding = decode.decoding(paths, sample_rate=RATE, minimum_seconds=0.5, workers=workers)
    with decoding as groups:
        yield chain.from_iterable(groups)


def test_a_reader_goes_on_after_a_crash_and_after_a_file_that_was_left(tmp_path, monkeypatch):
    workers_that(
        monkeypatch,
        """
if path.stem == "bad":
    ctypes.string_at(0)
yield from real(path, **options)
""",
    )
    good = [write(tmp_path / f"{i}.wav", 3.0, seed=i) for i in range(2)]
    options = {"sample_rate": RATE, "minimum_seconds": 0.5}
    with decode.Reader() as reader:
        for path in (*good, Path("bad"), *good):
            if path in good:
                samples = np.concatenate(list(reader.blocks(path, **options)))
                np.testing.assert_array_equal(samples, audio.read(path, **options))
                blocks = reader.blocks(path, **options)
                next(blocks)
                blocks.close()
            else:
                with pytest.raises(decode.DecoderEnded, match=r"bad: .* ended .SIGSEGV"):
                    list(reader.blocks(path, **options))


def outcomes(paths, *, workers=2) -> list[tuple[str, int | str]]:
    """(name, blocks or the reason why it cannot be used) of each file, as they come."""
    found = list[tuple[str, int | str]]()
    with streams(paths, workers=workers) as files:
        for file in files:
            try:
                found.append((file.path.stem, len(list(file))))
            except audio.AudioError as error:
                found.append((error.path.stem, error.reason))
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_files_come_in_order_with_their_samples_and_tags(tmp_path, workers):
    paths = [
        write(tmp_path / f"{i}.flac", seconds, seed=i, title=f"T{i}")
        for i, seconds in enumerate([150.0, 1.0, 0.4, 2.0, 61.0])
    ]
    paths.insert(1, tmp_path / "gone.wav")
    with streams(paths, workers=workers) as files:
        for path, file in zip(paths, files, strict=True):
            assert file.path == path
            if path.stem in ("gone", "2"):
                with pytest.raises(audio.AudioError, match=r"no such file|too short: 0\.400 s"):
                    list(file)
                continue
            blocks = list(file)
            np.testing.assert_array_equal(
                np.concatenate(blocks), audio.read(path, sample_rate=RATE)
            )
            assert {len(block) for block in blocks[:-1]} <= {60 * RATE}
            assert file.end == {"title": f"T{path.stem}"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crash", "reason"),
    [
        ("ctypes.string_at(0)", "ended (SIGSEGV)"),
        ("os.abort()", "ended (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended (SIGKILL; out of memory?)"),
        ("os._exit(7)", "ended (exit status 7)"),
        ("raise MemoryError('a block too large')", "MemoryError: a block too large"),
    ],
)
@pytest.mark.parametrize(("before", "workers"), [(0, 1), (1, 2), (4, 2)])
def test_a_file_that_ends_its_decoder_costs_itself_alone(
    monkeypatch, crash, reason, before, workers
):
    monkeypatch.setattr(decode, "HELD", 2)
    body = f"""
for i in range(5):
    if i == {before} and path.stem in ("bad", "worse"):
        {crash}
    yield np.zeros(300_000, np.float32)
"""
    workers_that(monkeypatch, body)
    names = ["a", "bad", "worse", "b", "c", "d", "bad"]
    found = outcomes([Path(name) for name in names], workers=workers)
    assert [name for name, _ in found] == names
    for name, outcome in found:
        assert outcome == 5 if name in "abcd" else reason in str(outcome)


def test_a_worker_is_as_far_ahead_as_it_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "HELD", 3)
    body = f"""
while True:
    with open({str(tmp_path / "made")!r}, "ab") as made:
        made.write(b".")
    yield np.zeros(300_000, np.float32)
"""
    workers_that(monkeypatch, body)
    begun = time.monotonic()
    with streams([Path("endless")], workers=1) as files:
        next(iter(next(files)))
        time.sleep(0.5)  # as far as it likes
        made = (tmp_path / "made").stat().st_size
    assert 3 + 1 <= made <= 3 + 1 + 1  # what it holds, and the one taken
    assert time.monotonic() - begun < 10  # and it is not waited for


@pytest.mark.slow
def test_short_files_come_together_and_a_long_one_alone(monkeypatch):
    monkeypatch.setattr(decode, "HELD", 4)  # items: a block and the tags of two short ones
    workers_that(
        monkeypatch,
        'yield from [np.zeros(10, np.float32)] * (9 if "long" in path.stem else 1)',
    )
    names, found = ["a", "b", "c", "long", "d", "long2", "long3", "e"], []
    decoding = decode.decoding(
        map(Path, names), sample_rate=RATE, minimum_seconds=0.5, workers=len(names)
    )
    with decoding as groups:
        time.sleep(1.0)  # all are there
        for group in groups:
            found.append([file.path.stem for file in group])
            assert [len(list(file)) for file in group] == [
                9 if "long" in file.path.stem else 1 for file in group
            ]
    assert found == [["a", "b"], ["c"], ["long"], ["d"], ["long2"], ["long3"], ["e"]]


def test_nothing_is_left_behind_when_the_caller_fails(tmp_path, monkeypatch):
    body = f"""
open({str(tmp_path)!r} + f"/{{os.getpid()}}.{{os.getpgrp()}}", "w").close()
yield np.zeros(10, np.float32)
time.sleep(600)
"""
    workers_that(monkeypatch, body)
    threads = threading.active_count()

    def interrupted() -> None:
        with streams(map(Path, "abcd"), workers=3):
            while len(list(tmp_path.iterdir())) < 3:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == threads
    for name in os.listdir(tmp_path):
        process, group = map(int, name.split("."))
        assert group == process  # where a terminal's Ctrl-C does not come
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_workers_that_end_as_they_start_are_no_files_fault(monkeypatch):
    monkeypatch.setattr(decode, "_PROGRAM", "import nothing_of_that_name")
    with (
        pytest.raises(ChildProcessError, match=r"(?s)exit status 1.*nothing_of_that_name"),
        streams([Path("a")]),
    ):
        pass


def test_what_a_library_says_of_a_file_names_it(tmp_path, monkeypatch, capfd):
    workers_that(
        monkeypatch,
        "if path.stem == 'odd': os.write(2, b'Note: odd\\n' * 9 + b'fuzzy seeking\\n')\n"
        "yield from real(path, **options)",
    )
    odd, good = write(tmp_path / "odd.wav"), write(tmp_path / "good.wav")
    with streams([odd, odd, good], workers=1) as files:
        for _ in range(2):
            list(next(files))
            said = capfd.readouterr().err.splitlines()
            assert said == 3 * [f"{odd}: Note: odd"] + [f"{odd}: 6 more such lines"]
        list(next(files))
    assert capfd.readouterr().err == ""


def test_flaws_come_with_the_blocks_and_strictly_are_errors(tmp_path):
    path = write(tmp_path / "cut.wav", 150.0)
    path.write_bytes(path.read_bytes()[:-RATE])
    for strict in (False, True):
        flaws = list[audio.Flaw]()
        options = {"sample_rate": RATE, "minimum_seconds": 0.5, "workers": 1}
        decoding = decode.decoding([path], **options, strict=strict, report=flaws.append)
        with decoding as groups:
            (stream,) = next(groups)
            if strict:
                with pytest.raises(audio.AudioError, match=r"cut.*0\.50 s lost at 149\.50 s"):
                    list(stream)
            else:
                assert sum(map(len, stream)) == 149.5 * RATE
        told = [(flaw.path, round(flaw.seconds, 6)) for flaw in flaws]
        assert told == ([] if strict else [(path, 0.5)])
