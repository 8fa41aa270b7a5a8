"""corpus.py: manifests by hand, folders, the split."""

import csv
import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqhash import corpus
from seqhash.index import ingest

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
        corpus.Recording(
            "first",
            tmp_path / "audio/a.wav",
            "w1",
            "original",
            "Air, in D",
            "folk",
            {"key_shift": "0"},
        ),
        corpus.Recording("b", tmp_path / "b.ogg", "w1", "cover", "Größe", "", {"key_shift": "-3"}),
    )


def test_manifest_with_a_path_alone(tmp_path, monkeypatch):
    _manifest(tmp_path, "path\na/x.wav\nb/x.wav\nb/y.wav\n", files="a/x.wav b/x.wav b/y.wav")
    monkeypatch.chdir(tmp_path)
    found = corpus.read_manifest("manifest.csv")
    assert [r.id for r in found] == ["a/x.wav", "b/x.wav", "y"]
    assert all(
        r.path.is_absolute() and r.path.is_file() and (r.work, r.role) == ("", "") for r in found
    )


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
        (
            "path,work_id\n",
            ["1: column 'role' is missing, which 'work_id' needs", "1: no recordings"],
        ),
        ("", ["1: an empty file, a header line expected."]),
        ('path\n"a.wav\n', ["2: not CSV (unexpected end of data)."]),
        (
            "path\n" + "a" * 5000 + "\n",
            ["2: path '" + "a" * 5000 + "' is not a file that is there"],
        ),
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
    for name in (
        "b/x.WAV",
        "a/x.flac",
        "z.AIFF",
        "w64.w64",
        "caf.caf",
        "aac.M4A",
        "y.opus",
        ".hidden.wav",
        ".git/z.wav",
        "notes.txt",
        "a/._x.flac",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = corpus.recordings(tmp_path)
    names = ["a/x.flac", "aac.M4A", "b/x.WAV", "caf.caf", "w64.w64", "y.opus", "z.AIFF"]
    assert [r.path for r in found] == [tmp_path / name for name in names]
    assert [r.id for r in found] == ["a/x.flac", "aac", "b/x.WAV", "caf", "w64", "y", "z"]


def test_links_are_followed_once_and_every_file_is_accounted_for(tmp_path):
    root, other = tmp_path / "music", tmp_path / "other"
    for name in ("music/b/x.wav", "music/notes.TXT", "music/.hidden.wav", "other/deep/y.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (root / "a").symlink_to("b")  # before it by name: b is there as itself
    (root / "round").symlink_to(".")
    (other / "deep" / "back").symlink_to(root)
    (root / "c").symlink_to(other)
    (root / "d").symlink_to(other / "deep")
    (root / "file.wav").symlink_to(root / "b" / "x.wav")
    (root / "dangling.wav").symlink_to("nothing")
    (root / "dangling").symlink_to("nothing")
    audio, skipped = corpus.walk(root)
    names = [path.relative_to(root).as_posix() for path in audio]
    assert names == ["b/x.wav", "c/deep/y.wav", "dangling.wav", "file.wav"]
    assert skipped == {".txt": 1, "hidden": 1, "no suffix": 1}


def test_a_folder_that_cannot_be_read_is_not_skipped(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "x.wav").write_bytes(b"x")
    closed = {tmp_path / "closed"}
    scandir = os.scandir

    def refusing(path):
        if Path(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(
        os, "scandir", refusing
    )  # a test may be run by root, whom nothing is denied
    monkeypatch.setattr(os.path, "isdir", lambda path: Path(path) in {tmp_path, *closed})
    assert [r.path for r in corpus.recordings(tmp_path)] == [
        tmp_path / "closed",
        tmp_path / "x.wav",
    ]
    assert ingest._digest(tmp_path / "closed") == "cannot be read (Permission denied)"
    closed.add(tmp_path)
    with pytest.raises(corpus.ManifestError, match=r"cannot be read \(Permission denied\)"):
        corpus.recordings(tmp_path)


def test_neither_manifest_nor_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        corpus.ManifestError, match=r"notes\.txt: a folder or a manifest \(\.csv\) expected"
    ):
        corpus.recordings(tmp_path / "notes.txt")
    with pytest.raises(corpus.ManifestError, match="gone: no such file or folder"):
        corpus.recordings(tmp_path / "gone")
    with pytest.raises(
        corpus.ManifestError, match=r"gone\.csv: cannot be read \(No such file or directory\)"
    ):
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
        corpus.ManifestError,
        match="no recording has the role original\nno recording has the role cover",
    ):
        corpus.require_covers([_recording("c")])
    with pytest.raises(corpus.ManifestError, match="work 'w' has 2 originals, one expected"):
        corpus.require_covers([*good, _recording("d", "w", "original")])
    with pytest.raises(
        corpus.ManifestError, match="cover 'd': there is no original of its work 'v'"
    ):
        corpus.require_covers([*good, _recording("d", "v", "cover")])


def test_a_recording_can_be_hashed_and_pickled():
    recording = dataclasses.replace(_recording("a"), extra={"key_shift": "2"})
    assert recording in {recording}
    assert pickle.loads(pickle.dumps(recording)) == recording


@pytest.mark.parametrize(
    ("name", "count", "works"), [("covers", 80, 20), ("covers-real", 40, 10), ("music", 60, 1)]
)
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


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(5, 0.0, 0), (0, 0.0, 0), (2, 0.01, 1), (3, 0.99, 2)]
)
def test_split_sizes(count, fraction, held):
    recordings = [_recording(f"r{i}") for i in range(count)]
    training, validation = corpus.split(recordings, fraction=fraction, seed=0)
    assert (len(training), len(validation)) == (count - held, held)


def test_split_takes_ids_that_are_not_utf8():
    recordings = [_recording(os.fsdecode(b"bad\xff")), _recording("b")]
    assert sorted(map(len, corpus.split(recordings, fraction=0.5, seed=0))) == [1, 1]


def test_split_options():
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\), got 1"):
        corpus.split([_recording("a")], fraction=1, seed=0)
    with pytest.raises(
        ValueError, match=r"At least 2 recordings are needed to hold out 0\.1 of them, got 1"
    ):
        corpus.split([_recording("a")], fraction=0.1, seed=0)
