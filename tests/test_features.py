"""features.py: the feature store against plain numpy, and runs that are stopped half way."""

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqhash import audio, corpus, digests, features
from tests.test_decode import workers_that

RATE = 8_000
SETTINGS = {"mfcc.coeffs": 2, "mfcc.preemphasis": 0.97}


def _audio(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path


def _features(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Two "coefficients" of every 100 samples: easy to do again by hand."""
    samples = np.concatenate(list(blocks))
    rows = samples[: len(samples) // 100 * 100].reshape(-1, 100)
    return np.stack([rows.mean(axis=1), rows.max(axis=1)], axis=1).astype(np.float32)


class _Counting:
    """``_features`` that counts its calls, and can raise at one of them."""

    def __init__(self, stop_at: int = 0, error: BaseException | None = None):
        self.calls, self.stop_at, self.error = 0, stop_at, error

    def __call__(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        self.calls += 1
        if self.calls == self.stop_at and self.error:
            raise self.error
        return _features(blocks)


def _prepare(
    recordings,
    directory,
    function=_features,
    settings=SETTINGS,
    minimum_seconds=0.5,
    workers=2,
    **options,
):
    return features.prepare(
        recordings,
        directory,
        features=function,
        settings=settings,
        sample_rate=RATE,
        minimum_seconds=minimum_seconds,
        workers=workers,
        progress=False,
        **options,
    )


@pytest.fixture
def five(tmp_path) -> tuple[corpus.Recording, ...]:
    for i in range(5):
        _audio(tmp_path / "audio" / f"r{i}.wav", seconds=1 + 0.25 * i, seed=i)
    return corpus.read_folder(tmp_path / "audio")


def _recording(name: str, work: str = "", role: str = "") -> corpus.Recording:
    return corpus.Recording(name, Path("/", name), work, role, "", "", {})


def test_store_holds_what_features_gave(five, tmp_path):
    report = _prepare(five, tmp_path / "store")
    assert report == (("r0", "r1", "r2", "r3", "r4"), (), ())
    store = features.open_store(tmp_path / "store")
    assert store.recordings == five
    assert (store.settings, store.failed) == (SETTINGS, ())
    for recording, cepstra in zip(five, store.cepstra, strict=True):
        expected = _features([soundfile.read(recording.path, dtype="float32")[0]])
        assert isinstance(cepstra, np.memmap)
        np.testing.assert_array_equal(cepstra, expected)


def test_rerun_makes_only_what_is_new_or_changed(five, tmp_path):
    directory = tmp_path / "store"
    _prepare(five, directory)
    again = _Counting()
    assert _prepare(five, directory, again) == ((), ("r0", "r1", "r2", "r3", "r4"), ())
    assert again.calls == 0
    touched = five[0].path.stat()
    _audio(five[1].path, seconds=1.25, seed=99)  # same size, same time: only the content tells
    os.utime(five[1].path, ns=(touched.st_atime_ns, touched.st_mtime_ns))
    os.utime(five[0].path)  # another time, same content
    assert _prepare(five, directory).prepared == ("r1",)
    expected = _features([soundfile.read(five[1].path, dtype="float32")[0]])
    np.testing.assert_array_equal(features.open_store(directory).cepstra[1], expected)
    assert len(list((directory / "cepstra").iterdir())) == 5  # nothing stale is left
    other = {**SETTINGS, "mfcc.preemphasis": 0.5}
    assert len(_prepare(five, directory, settings=other).prepared) == 5
    assert features.open_store(directory).settings == other


def test_contents_are_the_files_whatever_their_names(five, tmp_path):
    _prepare(five, tmp_path / "store")
    contents = features.open_store(tmp_path / "store").contents
    assert contents == tuple(hashlib.sha256(r.path.read_bytes()).hexdigest() for r in five)
    for number, recording in enumerate(five):
        (tmp_path / "copy").mkdir(exist_ok=True)
        shutil.copy(recording.path, tmp_path / "copy" / f"other{number}.wav")
    _prepare(corpus.read_folder(tmp_path / "copy"), tmp_path / "copied")
    copied = features.open_store(tmp_path / "copied")
    assert copied.contents == contents
    assert digests.of_store(copied) == list(contents)
    _audio(five[1].path, seconds=1.25, seed=99)
    _prepare(five, tmp_path / "store")
    differ = np.not_equal(features.open_store(tmp_path / "store").contents, contents)
    assert differ.tolist() == [False, True, False, False, False]


def test_a_store_that_does_not_say_what_it_holds_is_prepared_again_without_loss(five, tmp_path):
    _prepare(five, tmp_path)
    stored = json.loads((tmp_path / "store.json").read_text())
    for row in stored["recordings"]:
        del row["content"]  # as version 0.1 wrote it
    (tmp_path / "store.json").write_text(json.dumps(stored))
    with pytest.raises(features.StoreError, match="does not say what its recordings hold"):
        features.open_store(tmp_path)
    assert _prepare(five, tmp_path).reused == ("r0", "r1", "r2", "r3", "r4")
    assert len(features.open_store(tmp_path).contents) == 5


def test_recordings_that_left_are_dropped(five, tmp_path):
    directory = tmp_path / "store"
    _prepare(five, directory)
    (directory / "cepstra" / "notes.txt").write_text("mine")
    assert _prepare(five[3:], directory) == ((), ("r3", "r4"), ())
    assert features.open_store(directory).recordings == five[3:]
    names = sorted(file.name for file in (directory / "cepstra").iterdir())
    assert [name[:2] for name in names] == ["no", "r3", "r4"]  # someone else's file stays


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug")])
def test_an_interrupted_run_is_continued(five, tmp_path, error):
    threads = threading.active_count()
    with pytest.raises(type(error)):
        _prepare(five, tmp_path / "store", _Counting(3, error))
    assert threading.active_count() == threads
    with pytest.raises(features.StoreError, match="no feature store"):
        features.open_store(tmp_path / "store")
    again = _Counting()
    assert _prepare(five, tmp_path / "store", again) == (("r2", "r3", "r4"), ("r0", "r1"), ())
    assert again.calls == 3


@pytest.mark.slow
def test_a_killed_run_is_continued_and_ends_equal(five, tmp_path):
    program = (
        "import os, signal, sys; from seqhash import corpus\n"
        "from tests.test_features import _features, _prepare\n"
        "calls = []\n"
        "def features(blocks):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return _features(blocks)\n"
        "_prepare(corpus.read_folder(sys.argv[1]), sys.argv[2], features)\n"
    )
    root = Path(__file__).parents[1]
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(tmp_path / "audio"), str(killed)]
    assert subprocess.run(command, cwd=root, capture_output=True).returncode == -signal.SIGKILL
    assert _prepare(five, killed).reused == ("r0", "r1", "r2")
    _prepare(five, tmp_path / "whole")
    files = [
        sorted(p for p in folder.rglob("*") if p.is_file())
        for folder in (killed, tmp_path / "whole")
    ]
    assert [p.name for p in files[0]] == [p.name for p in files[1]]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_an_old_store_outlives_an_interrupted_run_with_other_settings(five, tmp_path):
    _prepare(five, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _prepare(five, tmp_path, _Counting(3, KeyboardInterrupt()), settings={"mfcc.coeffs": 3})
    store = features.open_store(tmp_path)
    assert (store.settings, len(store.cepstra)) == (SETTINGS, 5)


def test_bad_files_are_left_out_and_listed(five, tmp_path):
    folder = tmp_path / "audio"
    (folder / "r0.wav").write_bytes(b"not audio at all")
    data = (folder / "r2.wav").read_bytes()
    (folder / "r2.wav").write_bytes(data[:5_000])
    (folder / "r4.wav").unlink()
    _audio(folder / "r1.wav", seconds=0.4)
    report = _prepare(five, tmp_path / "store")
    assert report.prepared == ("r3",)
    paths, reasons = zip(*report.failed, strict=True)
    assert paths == tuple(str(folder / f"r{i}.wav") for i in (0, 1, 2, 4))
    for reason, word in zip(
        reasons, ["not audio", "too short", "needed; cut: ", "no such file"], strict=True
    ):
        assert word in reason
    store = features.open_store(tmp_path / "store")
    assert store.failed == report.failed
    assert [r.id for r in store.recordings] == ["r3"]
    _audio(folder / "r0.wav", seed=0)  # mended
    assert _prepare(five, tmp_path / "store").prepared == ("r0",)


def test_a_damaged_file_is_used_or_strictly_refused(five, tmp_path):
    path = five[1].path
    path.write_bytes(path.read_bytes()[:20_000])
    flaws = list[audio.Flaw]()
    assert len(_prepare(five, tmp_path / "store", report=flaws.append).prepared) == 5
    assert [flaw.path for flaw in flaws] == [path]
    again = _prepare(five, tmp_path / "store", strict=True)
    assert [file for file, _ in again.failed] == [str(path)]
    assert "cut" in again.failed[0][1]


def test_what_features_leave_unread_is_still_checked(five, tmp_path):
    samples = np.zeros(130 * RATE)
    samples[: 60 * RATE] = 0.1
    path = five[0].path.with_suffix(".flac")
    soundfile.write(path, samples, RATE)
    path.write_bytes(path.read_bytes()[:-40])  # cut in the third block of a minute
    first_block = lambda blocks: _features([next(iter(blocks))])  # noqa: E731
    recordings = [dataclasses.replace(five[0], path=path)]
    report = _prepare(recordings, tmp_path / "store", first_block, strict=True)
    assert "cut" in report.failed[0][1]


def test_cepstra_that_are_no_good(five, tmp_path):
    nan = lambda blocks: _features(blocks) + np.float32(np.nan)  # noqa: E731
    assert "not finite" in _prepare(five[:1], tmp_path, nan).failed[0][1]
    assert (
        "not one frame"
        in _prepare(five[:1], tmp_path, lambda blocks: _features(blocks)[:0]).failed[0][1]
    )
    with pytest.raises(
        features.StoreError, match=r"holds no recording; 1 failed\n.*r0\.wav: too short"
    ):
        features.open_store(tmp_path)
    with pytest.raises(ValueError, match=r"must return float32 \(frames, coeffs\), got float64"):
        _prepare(five[:1], tmp_path, lambda blocks: _features(blocks).astype(np.float64))


@pytest.mark.parametrize("workers", [1, 3])
def test_decoding_runs_ahead_but_not_far(tmp_path, monkeypatch, workers):
    """However many recordings there are, only a few are decoded before the caller has dealt with
    the first.
    """
    for i in range(12):
        _audio(tmp_path / "audio" / f"r{i:02}.wav", seconds=0.6)
    recordings = corpus.read_folder(tmp_path / "audio")
    opened = tmp_path / "opened"
    opened.mkdir()
    workers_that(
        monkeypatch,
        f"open({str(opened)!r} + '/' + path.stem, 'x')\nyield from real(path, **options)",
    )
    ahead = []

    def features(blocks):
        cepstra = _features(blocks)
        time.sleep(0.05)  # the decoders may go as far as they like meanwhile
        ahead.append(len(os.listdir(opened)) - len(ahead))
        return cepstra

    assert len(_prepare(recordings, tmp_path / "store", features, workers=workers).prepared) == 12
    assert 1 < max(ahead) <= workers + 1
    assert sorted(os.listdir(opened)) == [r.path.stem for r in recordings]


def test_a_file_that_crashes_the_decoder_is_listed(five, tmp_path, monkeypatch):
    workers_that(
        monkeypatch,
        "if path.stem == 'r2': ctypes.string_at(0)\nyield from real(path, **options)",
    )
    report = _prepare(five, tmp_path / "store")
    assert report.prepared == ("r0", "r1", "r3", "r4")
    assert report.failed == ((str(five[2].path), "the process that decoded it ended (SIGSEGV)"),)


def test_decoders_that_nobody_takes_from_are_not_waited_for(five, tmp_path, monkeypatch):
    workers_that(monkeypatch, "while True: yield np.zeros(300_000, np.float32)")

    def features(blocks):
        next(iter(blocks))
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        _prepare(five, tmp_path / "store", features)


def test_hostile_ids_stay_in_the_folder(five, tmp_path):
    ids = ["../../x", "a/b", "a_b", "é" * 300, "con*?:"]
    shutil.copy(five[1].path, five[2].path)  # a/b and a_b: one name once made safe, and one content
    recordings = [dataclasses.replace(r, id=i) for r, i in zip(five, ids, strict=True)]
    _prepare(recordings, tmp_path / "store")
    assert [r.id for r in features.open_store(tmp_path / "store").recordings] == ids
    assert len(list((tmp_path / "store" / "cepstra").iterdir())) == 5
    assert not list(tmp_path.glob("x*"))
    with pytest.raises(ValueError, match="unique ids, got several of a/b"):
        _prepare([recordings[1], recordings[1]], tmp_path / "store")


def test_a_directory_that_cannot_be_written(five, tmp_path):
    (tmp_path / "file").write_text("x")
    features = _Counting()
    with pytest.raises(
        OSError, match=r"The feature store .*file/store cannot be written: Not a directory"
    ):
        _prepare(five, tmp_path / "file" / "store", features)
    assert features.calls == 0


def test_a_disk_that_is_full(five, tmp_path):
    """As far as a process can have it: no file may grow beyond 200 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: File too large"):
            _prepare(five, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "store" / "cepstra").iterdir()) == []
    assert len(_prepare(five, tmp_path / "store").prepared) == 5


def _damage(directory: Path, how: str) -> None:
    victim = sorted((directory / "cepstra").iterdir())[1]
    data = victim.read_bytes()
    if how == "truncated":
        victim.write_bytes(data[:-8])
    elif how == "longer":
        victim.write_bytes(data + bytes(8))
    elif how == "empty":
        victim.write_bytes(b"")
    elif how == "garbage":
        victim.write_bytes(b"\x93NUMPY\x01\x00" + bytes(range(200)))
    elif how == "missing":
        victim.unlink()
    elif how == "another dtype":
        np.save(victim, np.load(victim).astype(np.float64))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["truncated", "longer", "empty", "garbage", "missing", "another dtype"]
)
def test_damaged_cepstra(five, tmp_path, how):
    directory = tmp_path / "store"
    _prepare(five, directory)
    good = [np.array(c) for c in features.open_store(directory).cepstra]
    _damage(directory, how)
    with pytest.raises(
        features.StoreError, match=r"store: the store is damaged \(r1-.*\.npy.*; prepare again"
    ):
        features.open_store(directory)
    assert _prepare(five, directory).prepared == ("r1",)  # mends it
    for cepstra, expected in zip(features.open_store(directory).cepstra, good, strict=True):
        np.testing.assert_array_equal(cepstra, expected)


def test_cepstra_of_another_shape(five, tmp_path):
    _prepare(five, tmp_path)
    victim = sorted((tmp_path / "cepstra").iterdir())[0]
    np.save(victim, np.zeros((3, 2), np.float32))
    with pytest.raises(features.StoreError, match="other shapes than listed"):
        features.open_store(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no feature store"),
        ("", "store.json is damaged"),
        ("[]", "store.json is damaged"),
        ('{"version": 1}', "the store is damaged"),
        ('{"version": 99}', "a store of version 1 expected, got 99"),
        (
            '{"version": 1, "settings": {}, "failed": [], "recordings": [{}]}',
            "the store is damaged",
        ),
    ],
)
def test_store_json_that_is_no_good(tmp_path, text, message):
    if text is not None:
        (tmp_path / "store.json").write_text(text)
    with pytest.raises(features.StoreError, match=message):
        features.open_store(tmp_path)


def test_a_store_can_be_moved(five, tmp_path):
    _prepare(five, tmp_path / "store")
    shutil.move(tmp_path / "store", tmp_path / "elsewhere")
    assert len(features.open_store(tmp_path / "elsewhere").cepstra) == 5
    listed = json.loads((tmp_path / "elsewhere" / "store.json").read_text())
    assert [row["frames"] for row in listed["recordings"]] == [
        80,
        100,
        120,
        140,
        160,
    ]  # of 100 samples at 8 kHz


def test_settings_must_be_json(five, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        _prepare(five, tmp_path, settings={"x": float("nan")})
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        _prepare(five, tmp_path, workers=0)


def test_statistics(monkeypatch):
    monkeypatch.setattr(features, "_PIECE", 7)
    rng = np.random.default_rng(0)
    cepstra = [(1e4 + rng.standard_normal((n, 3))).astype(np.float32) for n in (30, 1, 0, 50)]
    mean, std = features.statistics(cepstra)
    whole = np.concatenate(cepstra).astype(np.float64)
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        std, whole.std(axis=0), rtol=1e-9
    )  # float32 sums would be wrong in the first digit
    assert mean.dtype == std.dtype == np.float64
    with pytest.raises(ValueError, match="at least one frame"):
        features.statistics([np.zeros((0, 3), np.float32)])
