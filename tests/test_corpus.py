"""corpus.py: manifests by hand, the feature store against plain numpy, and runs that are stopped half way."""

import csv
import dataclasses
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqhash import audio, corpus

RATE = 8_000
SETTINGS = {"mfcc.coeffs": 2, "mfcc.preemphasis": 0.97}


def _audio(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path


def _manifest(folder: Path, text: str, *, files: str = "") -> Path:
    for name in files.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
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


def _prepare(recordings, directory, features=_features, settings=SETTINGS, minimum_seconds=0.5, workers=2):
    return corpus.prepare(
        recordings,
        directory,
        features=features,
        settings=settings,
        sample_rate=RATE,
        minimum_seconds=minimum_seconds,
        workers=workers,
        progress=False,
    )


@pytest.fixture
def five(tmp_path) -> tuple[corpus.Recording, ...]:
    for i in range(5):
        _audio(tmp_path / "audio" / f"r{i}.wav", seconds=1 + 0.25 * i, seed=i)
    return corpus.read_folder(tmp_path / "audio")


# Manifests.


def test_manifest(tmp_path):
    path = _manifest(
        tmp_path,
        "\ufeffpath,work_id,role,title,genre,key_shift,recording_id\r\n"
        'audio/a.wav,w1,original,"Air, in D",folk,0,first\r\n'
        "\r\n"
        f"{tmp_path}/b.ogg,w1,cover,Größe,,-3,\r\n",
        files="audio/a.wav b.ogg",
    )
    assert corpus.recordings(path) == (
        corpus.Recording("first", tmp_path / "audio/a.wav", "w1", "original", "Air, in D", "folk", {"key_shift": "0"}),
        corpus.Recording("b", tmp_path / "b.ogg", "w1", "cover", "Größe", "", {"key_shift": "-3"}),
    )


def test_manifest_with_a_path_alone(tmp_path, monkeypatch):
    _manifest(tmp_path, "path\na/x.wav\nb/x.wav\nb/y.wav\n", files="a/x.wav b/x.wav b/y.wav")
    monkeypatch.chdir(tmp_path)
    found = corpus.read_manifest("manifest.csv")
    assert [r.id for r in found] == ["a/x.wav", "b/x.wav", "y"]
    assert all(r.path.is_absolute() and r.path.is_file() and (r.work, r.role) == ("", "") for r in found)


def test_an_id_given_wins_over_an_equal_stem(tmp_path):
    path = _manifest(tmp_path, "path,recording_id\na.wav,\nb.wav,a\n", files="a.wav b.wav")
    assert [r.id for r in corpus.read_manifest(path)] == ["a.wav", "a"]


def test_all_problems_of_a_manifest_at_once(tmp_path):
    path = _manifest(
        tmp_path,
        "path,work_id,role,recording_id,title\n"
        "a.wav,w1,original,a,A\n"
        "a.wav,w1,cover,b,B\n"  # 3: the path again
        "c.wav,w1,original,c,C\n"  # 4: a second original
        "d.wav,w2,cover,d,D\n"  # 5: no original
        "e.wav,w3,live,e,E\n"  # 6: unknown role
        'gone.wav,,,g,"two\nlines"\n'  # 7 and 8: not there
        "h.wav,w1,cover,c,H\n"  # 9: the id again
        "i.wav,w1,cover\n"  # 10: too few
        "j.wav,,cover,j,J\n"  # 11: no work
        "k.wav,w4,,k,K\n"  # 12: no role
        ",,,l,L\n"  # 13: no path
        "m.wav,w2,cover,m,M\n",  # 14: good; its work was reported on line 5
        files="a.wav c.wav d.wav e.wav h.wav i.wav j.wav k.wav m.wav",
    )
    with pytest.raises(corpus.ManifestError) as caught:
        corpus.read_manifest(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3: path 'a.wav' is already on line 2",
        f"{path}:4: a second original of work 'w1', the first is on line 2",
        f"{path}:5: work 'w2' has no original",
        f"{path}:6: role must be original or cover, got 'live'",
        f"{path}:7: path 'gone.wav' is not a file that is there",
        f"{path}:9: recording_id 'c' is already on line 4",
        f"{path}:10: 3 fields, 5 expected as in the header",
        f"{path}:11: role is 'cover' but work_id is empty",
        f"{path}:12: work_id is 'w4' but role is empty",
        f"{path}:13: path is empty",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("file,title\nx,y\n", ["1: column 'path' is missing; the columns are 'file', 'title'"]),
        (
            "title,role,title\nx,original\n",
            [
                "1: column 'path' is missing; the columns are 'title', 'role', 'title'",
                "1: column 'title' occurs 2 times",
                "1: column 'work_id' is missing, which 'role' needs",
                "2: 2 fields, 3 expected as in the header",
            ],
        ),
        ("path,work_id\n", ["1: column 'role' is missing, which 'work_id' needs", "1: no recordings"]),
        ("", ["1: an empty file, a header line expected."]),
        ('path\n"a.wav\n', ["2: not CSV (unexpected end of data)."]),
        ("path\n" + "a" * 5000 + "\n", ["2: path '" + "a" * 5000 + "' is not a file that is there"]),
        ("path\n.\n", ["2: path '.' is not a file that is there"]),
    ],
)
def test_header_problems(tmp_path, text, lines):
    path = _manifest(tmp_path, text)
    with pytest.raises(corpus.ManifestError) as caught:
        corpus.read_manifest(path)
    assert str(caught.value).splitlines() == [f"{path}:{line}" for line in lines]


def test_manifest_that_is_not_utf8(tmp_path):
    (tmp_path / "m.csv").write_bytes("path,title\na.wav,Größe\n".encode("latin-1"))
    with pytest.raises(corpus.ManifestError, match=r"m\.csv:2: not UTF-8 text \(byte 0xf6\)"):
        corpus.read_manifest(tmp_path / "m.csv")


def test_folder(tmp_path):
    for name in ("b/x.WAV", "a/x.flac", "y.opus", ".hidden.wav", ".git/z.wav", "notes.txt", "a/._x.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = corpus.recordings(tmp_path)
    assert [r.id for r in found] == ["a/x.flac", "b/x.WAV", "y"]
    assert [r.path for r in found] == [tmp_path / name for name in ("a/x.flac", "b/x.WAV", "y.opus")]


def test_neither_manifest_nor_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(corpus.ManifestError, match=r"notes\.txt: a folder or a manifest \(\.csv\) expected"):
        corpus.recordings(tmp_path / "notes.txt")
    with pytest.raises(corpus.ManifestError, match="gone: no such file or folder"):
        corpus.recordings(tmp_path / "gone")
    with pytest.raises(corpus.ManifestError, match=r"gone\.csv: cannot be read \(No such file or directory\)"):
        corpus.recordings(tmp_path / "gone.csv")
    with pytest.raises(corpus.ManifestError, match="no audio files below it"):
        corpus.recordings(tmp_path)
    with pytest.raises(corpus.ManifestError, match="no such folder"):
        corpus.read_folder(tmp_path / "gone")


def _recording(name: str, work: str = "", role: str = "") -> corpus.Recording:
    return corpus.Recording(name, Path("/", name), work, role, "", "", {})


def test_require_covers():
    good = [_recording("a", "w", "original"), _recording("b", "w", "cover"), _recording("c")]
    corpus.require_covers(good)
    with pytest.raises(
        corpus.ManifestError, match="no recording has the role original\nno recording has the role cover"
    ):
        corpus.require_covers([_recording("c")])
    with pytest.raises(corpus.ManifestError, match="work 'w' has 2 originals, one expected"):
        corpus.require_covers([*good, _recording("d", "w", "original")])
    with pytest.raises(corpus.ManifestError, match="cover 'd': there is no original of its work 'v'"):
        corpus.require_covers([*good, _recording("d", "v", "cover")])


def test_a_recording_can_be_hashed_and_pickled():
    recording = dataclasses.replace(_recording("a"), extra={"key_shift": "2"})
    assert recording in {recording}
    assert pickle.loads(pickle.dumps(recording)) == recording


@pytest.mark.parametrize(("name", "count", "works"), [("covers", 80, 20), ("covers-real", 40, 10), ("music", 60, 1)])
def test_real_manifests(corpora, name, count, works):
    path = corpora / name / "manifest.csv"
    found = corpus.recordings(path)
    assert (len(found), len({r.work for r in found})) == (count, works)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r.id for r in found] == [row["recording_id"] for row in rows]
    assert [r.extra["licence"] for r in found] == [row["licence"] for row in rows]
    if works > 1:
        corpus.require_covers(found)


# The feature store.


def test_store_holds_what_features_gave(five, tmp_path):
    report = _prepare(five, tmp_path / "store")
    assert report == (("r0", "r1", "r2", "r3", "r4"), (), ())
    store = corpus.open_store(tmp_path / "store")
    assert store.recordings == five
    assert (store.settings, store.failed) == (SETTINGS, ())
    for recording, cepstra in zip(five, store.cepstra, strict=True):
        expected = _features([soundfile.read(recording.path, dtype="float32")[0]])
        assert isinstance(cepstra, np.memmap)
        np.testing.assert_array_equal(cepstra, expected)
    np.testing.assert_array_equal(corpus.concatenated(store), np.concatenate([np.array(c) for c in store.cepstra]))


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
    np.testing.assert_array_equal(corpus.open_store(directory).cepstra[1], expected)
    assert len(list((directory / "cepstra").iterdir())) == 5  # nothing stale is left
    other = {**SETTINGS, "mfcc.preemphasis": 0.5}
    assert len(_prepare(five, directory, settings=other).prepared) == 5
    assert corpus.open_store(directory).settings == other


def test_recordings_that_left_are_dropped(five, tmp_path):
    directory = tmp_path / "store"
    _prepare(five, directory)
    (directory / "cepstra" / "notes.txt").write_text("mine")
    assert _prepare(five[3:], directory) == ((), ("r3", "r4"), ())
    assert corpus.open_store(directory).recordings == five[3:]
    names = sorted(file.name for file in (directory / "cepstra").iterdir())
    assert [name[:2] for name in names] == ["no", "r3", "r4"]  # someone else's file stays


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug")])
def test_an_interrupted_run_is_continued(five, tmp_path, error):
    threads = threading.active_count()
    with pytest.raises(type(error)):
        _prepare(five, tmp_path / "store", _Counting(3, error))
    assert threading.active_count() == threads
    with pytest.raises(corpus.StoreError, match="no feature store"):
        corpus.open_store(tmp_path / "store")
    again = _Counting()
    assert _prepare(five, tmp_path / "store", again) == (("r2", "r3", "r4"), ("r0", "r1"), ())
    assert again.calls == 3


def test_a_killed_run_is_continued_and_ends_equal(five, tmp_path):
    program = (
        "import os, signal, sys; from seqhash import corpus; from tests.test_corpus import _features, _prepare\n"
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
    files = [sorted(p for p in folder.rglob("*") if p.is_file()) for folder in (killed, tmp_path / "whole")]
    assert [p.name for p in files[0]] == [p.name for p in files[1]]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_an_old_store_outlives_an_interrupted_run_with_other_settings(five, tmp_path):
    _prepare(five, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _prepare(five, tmp_path, _Counting(3, KeyboardInterrupt()), settings={"mfcc.coeffs": 3})
    store = corpus.open_store(tmp_path)
    assert (store.settings, len(store.cepstra)) == (SETTINGS, 5)


def test_bad_files_are_left_out_and_listed(five, tmp_path):
    folder = tmp_path / "audio"
    (folder / "r0.wav").write_bytes(b"not audio at all")
    data = (folder / "r2.wav").read_bytes()
    (folder / "r2.wav").write_bytes(data[:9_000])
    (folder / "r4.wav").unlink()
    _audio(folder / "r1.wav", seconds=0.4)
    report = _prepare(five, tmp_path / "store")
    assert report.prepared == ("r3",)
    paths, reasons = zip(*report.failed, strict=True)
    assert paths == tuple(str(folder / f"r{i}.wav") for i in (0, 1, 2, 4))
    for reason, word in zip(reasons, ["not audio", "too short", "truncated", "no such file"], strict=True):
        assert word in reason
    store = corpus.open_store(tmp_path / "store")
    assert store.failed == report.failed
    assert [r.id for r in store.recordings] == ["r3"]
    _audio(folder / "r0.wav", seed=0)  # mended
    assert _prepare(five, tmp_path / "store").prepared == ("r0",)


def test_what_features_leave_unread_is_still_checked(five, tmp_path):
    samples = np.zeros(130 * RATE)
    samples[: 60 * RATE] = 0.1
    path = five[0].path.with_suffix(".flac")
    soundfile.write(path, samples, RATE)
    path.write_bytes(path.read_bytes()[:-40])  # cut in the third block of a minute
    first_block = lambda blocks: _features([next(iter(blocks))])  # noqa: E731
    report = _prepare([dataclasses.replace(five[0], path=path)], tmp_path / "store", first_block)
    assert "truncated" in report.failed[0][1]


def test_cepstra_that_are_no_good(five, tmp_path):
    nan = lambda blocks: _features(blocks) + np.float32(np.nan)  # noqa: E731
    assert "not finite" in _prepare(five[:1], tmp_path, nan).failed[0][1]
    assert "not one frame" in _prepare(five[:1], tmp_path, lambda blocks: _features(blocks)[:0]).failed[0][1]
    with pytest.raises(corpus.StoreError, match=r"holds no recording; 1 failed\n.*r0\.wav: too short"):
        corpus.open_store(tmp_path)
    with pytest.raises(ValueError, match=r"must return float32 \(frames, coeffs\), got float64"):
        _prepare(five[:1], tmp_path, lambda blocks: _features(blocks).astype(np.float64))


@pytest.mark.parametrize("workers", [1, 3])
def test_decoding_runs_ahead_but_not_far(tmp_path, monkeypatch, workers):
    """However many recordings there are, only a few are decoded before the caller has dealt with the first."""
    for i in range(12):
        _audio(tmp_path / "audio" / f"r{i:02}.wav", seconds=0.6)
    recordings = corpus.read_folder(tmp_path / "audio")
    opened: list[str] = []
    plain = audio.blocks

    def noting(path, **options):
        def blocks():
            opened.append(path.stem)
            yield from plain(path, **options)

        return blocks()

    monkeypatch.setattr(audio, "blocks", noting)
    ahead, ready = [], threading.Event()

    def features(blocks):
        cepstra = _features(blocks)
        ready.wait(0.05)  # the decoders may go as far as they like meanwhile
        ahead.append(len(opened) - len(ahead))
        return cepstra

    assert len(_prepare(recordings, tmp_path / "store", features, workers=workers).prepared) == 12
    assert 1 < max(ahead) <= workers + 1
    assert sorted(opened) == [r.path.stem for r in recordings]


def test_decoders_wait_and_give_up_when_nobody_takes_their_blocks(five, tmp_path, monkeypatch):
    made = []

    def endless(path, **options):
        while True:
            made.append(path)
            yield np.zeros(10, np.float32)

    monkeypatch.setattr(audio, "blocks", endless)

    def features(blocks):
        next(iter(blocks))
        threading.Event().wait(0.1)
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):  # and not waiting for ever for the decoders to end
        _prepare(five, tmp_path / "store", features)
    assert len(made) <= 7  # two threads: one block in hand and two queued each, and the one that was taken


def test_hostile_ids_stay_in_the_folder(five, tmp_path):
    ids = ["../../x", "a/b", "a_b", "é" * 300, "con*?:"]
    shutil.copy(five[1].path, five[2].path)  # a/b and a_b: one name once made safe, and one content
    recordings = [dataclasses.replace(r, id=i) for r, i in zip(five, ids, strict=True)]
    _prepare(recordings, tmp_path / "store")
    assert [r.id for r in corpus.open_store(tmp_path / "store").recordings] == ids
    assert len(list((tmp_path / "store" / "cepstra").iterdir())) == 5
    assert not list(tmp_path.glob("x*"))
    with pytest.raises(ValueError, match="unique ids, got several of a/b"):
        _prepare([recordings[1], recordings[1]], tmp_path / "store")


def test_a_directory_that_cannot_be_written(five, tmp_path):
    (tmp_path / "file").write_text("x")
    features = _Counting()
    with pytest.raises(OSError, match=r"The feature store .*file/store cannot be written: Not a directory"):
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


@pytest.mark.parametrize("how", ["truncated", "longer", "empty", "garbage", "missing", "another dtype"])
def test_damaged_cepstra(five, tmp_path, how):
    directory = tmp_path / "store"
    _prepare(five, directory)
    good = [np.array(c) for c in corpus.open_store(directory).cepstra]
    _damage(directory, how)
    with pytest.raises(corpus.StoreError, match=r"store: the store is damaged \(r1-.*\.npy.*; prepare again"):
        corpus.open_store(directory)
    assert _prepare(five, directory).prepared == ("r1",)  # mends it
    for cepstra, expected in zip(corpus.open_store(directory).cepstra, good, strict=True):
        np.testing.assert_array_equal(cepstra, expected)


def test_cepstra_of_another_shape(five, tmp_path):
    _prepare(five, tmp_path)
    victim = sorted((tmp_path / "cepstra").iterdir())[0]
    np.save(victim, np.zeros((3, 2), np.float32))
    with pytest.raises(corpus.StoreError, match="other shapes than listed"):
        corpus.open_store(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no feature store"),
        ("", "store.json is damaged"),
        ("[]", "store.json is damaged"),
        ('{"version": 1}', "the store is damaged"),
        ('{"version": 99}', "a store of version 1 expected, got 99"),
        ('{"version": 1, "settings": {}, "failed": [], "recordings": [{}]}', "the store is damaged"),
    ],
)
def test_store_json_that_is_no_good(tmp_path, text, message):
    if text is not None:
        (tmp_path / "store.json").write_text(text)
    with pytest.raises(corpus.StoreError, match=message):
        corpus.open_store(tmp_path)


def test_a_store_can_be_moved(five, tmp_path):
    _prepare(five, tmp_path / "store")
    shutil.move(tmp_path / "store", tmp_path / "elsewhere")
    assert len(corpus.open_store(tmp_path / "elsewhere").cepstra) == 5
    listed = json.loads((tmp_path / "elsewhere" / "store.json").read_text())
    assert [row["frames"] for row in listed["recordings"]] == [80, 100, 120, 140, 160]  # of 100 samples at 8 kHz


def test_settings_must_be_json(five, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        _prepare(five, tmp_path, settings={"x": float("nan")})
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        _prepare(five, tmp_path, workers=0)


# Segments, statistics, split.


def test_segments_by_hand():
    frames = [10, 3, 0, 4, 9]
    starts = corpus.segment_starts(frames, segment_frames=4, segment_hop=3)
    owners = corpus.segment_owners(frames, segment_frames=4, segment_hop=3)
    assert starts.tolist() == [0, 3, 6, 13, 17, 20]  # recordings start at rows 0, 10, 13, 13 and 17
    assert owners.tolist() == [0, 0, 0, 3, 4, 4]
    assert starts.dtype == owners.dtype == np.int64


@pytest.mark.parametrize(("segment_frames", "segment_hop"), [(1, 1), (5, 2), (7, 30)])
def test_segments_by_a_loop(segment_frames, segment_hop):
    frames = np.random.default_rng(0).integers(0, 40, 30)
    starts, owners, row = [], [], 0
    for owner, count in enumerate(frames):
        first = 0
        while first + segment_frames <= count:
            starts.append(row + first)
            owners.append(owner)
            first += segment_hop
        row += count
    options = {"segment_frames": segment_frames, "segment_hop": segment_hop}
    assert corpus.segment_starts(frames, **options).tolist() == starts
    assert corpus.segment_owners(frames, **options).tolist() == owners


def test_no_segments():
    assert corpus.segment_starts([], segment_frames=4, segment_hop=3).shape == (0,)
    assert corpus.segment_starts([3, 2], segment_frames=4, segment_hop=3).shape == (0,)
    with pytest.raises(ValueError, match="must be positive, got 4, 0"):
        corpus.segment_starts([3, 2], segment_frames=4, segment_hop=0)


def test_statistics(monkeypatch):
    monkeypatch.setattr(corpus, "_PIECE", 7)
    rng = np.random.default_rng(0)
    cepstra = [(1e4 + rng.standard_normal((n, 3))).astype(np.float32) for n in (30, 1, 0, 50)]
    mean, std = corpus.statistics(cepstra)
    whole = np.concatenate(cepstra).astype(np.float64)
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, whole.std(axis=0), rtol=1e-9)  # float32 sums would be wrong in the first digit
    assert mean.dtype == std.dtype == np.float64
    with pytest.raises(ValueError, match="at least one frame"):
        corpus.statistics([np.zeros((0, 3), np.float32)])


def test_split():
    recordings = [_recording(f"r{i}") for i in range(20)]
    training, validation = corpus.split(recordings, fraction=0.2, seed=0)
    assert sorted([*training, *validation]) == list(range(20))
    assert len(validation) == 4
    np.testing.assert_array_equal(validation, corpus.split(recordings, fraction=0.2, seed=0)[1])
    assert validation.tolist() != corpus.split(recordings, fraction=0.2, seed=1)[1].tolist()
    counts = np.zeros(20)
    for seed in range(400):
        counts[corpus.split(recordings, fraction=0.2, seed=seed)[1]] += 1
    assert counts.min() > 45  # 80 expected of each, deviation 8
    assert counts.max() < 115


@pytest.mark.parametrize(("count", "fraction", "held"), [(5, 0.0, 0), (0, 0.0, 0), (2, 0.01, 1), (3, 0.99, 2)])
def test_split_sizes(count, fraction, held):
    recordings = [_recording(f"r{i}") for i in range(count)]
    training, validation = corpus.split(recordings, fraction=fraction, seed=0)
    assert (len(training), len(validation)) == (count - held, held)


def test_split_options():
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\), got 1"):
        corpus.split([_recording("a")], fraction=1, seed=0)
    with pytest.raises(ValueError, match=r"At least 2 recordings are needed to hold out 0\.1 of them, got 1"):
        corpus.split([_recording("a")], fraction=0.1, seed=0)
