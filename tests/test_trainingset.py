"""The training set: its table, archives made by hand, packages made by dpkg-deb, programs that are
faked where they are slow, and nothing of the network.
"""

import csv
import io
import os
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqhash import audio, digests
from seqhash.robustness import degrade
from seqhash.trainingset import archives, gather, overlap, sources
from seqhash.trainingset.sources import SOURCES, Source
from tests.processes import run_module

RATE = gather.SAMPLE_RATE
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb makes packages")


def tone(seconds: float, *, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def ogg(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="OGG")
    return file.getvalue()


def wad(lumps: dict[str, bytes]) -> bytes:
    """Header, lumps, directory, as the Unofficial Doom Specs have them."""
    content, entries = b"", b""
    for name, lump in lumps.items():
        entries += struct.pack("<ii8s", 12 + len(content), len(lump), name.encode())
        content += lump
    return struct.pack("<4sii", b"IWAD", len(lumps), 12 + len(content)) + content + entries


def group(files: dict[str, bytes | dict]) -> bytes:
    """An OpenClonk group, not compressed."""
    entries, contents = b"", b""
    for name, file in files.items():
        content = group(file) if isinstance(file, dict) else file
        numbers = struct.pack("<5i", 0, isinstance(file, dict), len(content), 0, len(contents))
        entries += name.encode().ljust(260, b"\0") + numbers.ljust(56, b"\0")
        contents += content
    header = bytearray(b"RedWolf Design GrpFolder".ljust(36, b"\0") + struct.pack("<i", len(files)))
    header = header.ljust(204, b"\0")
    for i in range(0, 202, 3):
        header[i], header[i + 2] = header[i + 2], header[i]
    return bytes(byte ^ 237 for byte in header) + entries + contents


def packed(plain: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=31)
    return b"\x1e\x8c" + (compressor.compress(plain) + compressor.flush())[2:]


def package(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A .deb of some files."""
    root = folder / f"{name}-root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 9\nArchitecture: all\nMaintainer: A <a@b.c>\n"
    (root / "DEBIAN" / "control").write_text(f"{control}Description: of a test\n")
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    made = folder / f"{name}_9_all.deb"
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", root, made]
    subprocess.run(command, check=True, capture_output=True)
    return made


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of a name that comes before those that are installed."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written(path: Path) -> tuple[int, int]:
    """Another where a file was written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def source(use: str = "music", *, folder: str = "usr/share/tunes", name: str = "*.ogg") -> Source:
    return Source("tunes", folder, (name,), use, "CC0 1.0", "Nobody")


def file_of(path: Path, use: str = "music") -> gather.File:
    return gather.File(
        path.stem, path, digests.of_file(path), path.name, "tunes_9_all.deb", "", source(use)
    )


# --- the table ---


def test_every_licence_of_the_table_is_permissive_and_every_package_was_read() -> None:
    assert {s.licence for s in SOURCES} <= set(sources.PERMISSIVE)
    assert {s.use for s in SOURCES} <= set(sources.USES)
    assert sources.packages(SOURCES) == tuple(sorted(sources.READ))
    assert all(len(digest) == 64 for digest in sources.READ.values())
    assert not any(
        word in licence for licence in sources.PERMISSIVE for word in ("SA", "GPL", "NC")
    )


def test_a_source_holds_its_files_and_no_others() -> None:
    van = next(s for s in SOURCES if s.author.startswith("Manuel Marino"))
    assert van.holds(f"{van.folder}/van_theme.ogg")
    assert not van.holds(f"{van.folder}/PsymongN1.ogg")  # GPL
    assert not van.holds("van_theme.ogg")
    naev = "usr/share/naev/dat/snd/music"
    assert sources.source_of(f"{naev}/ambient4.ogg", SOURCES) is None  # CC BY-SA
    assert sources.source_of(f"{naev}/ambient3.ogg", SOURCES).author == "Nikola Whallon"


# --- archives ---


def test_a_zip_gives_its_files() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("music")
        archive.writestr("music/a.ogg", b"one")
    assert list(archives.zip_members(file.getvalue())) == [("music/a.ogg", b"one")]


def test_a_wad_gives_its_lumps() -> None:
    lumps = {"D_E1M1": b"MThd one", "DEMO1": b"", "D_LONGEST": b"MThd"}
    cut = {"D_E1M1": b"MThd one", "DEMO1": b"", "D_LONGES": b"MThd"}  # names have 8 characters
    assert dict(archives.wad_members(wad(lumps))) == cut


def test_a_group_gives_its_files_and_those_of_the_groups_in_it() -> None:
    files = {"authors.txt": b"me", "Fire.ocg": {"Fire.ogg": b"crackle", "In.ocg": {"a.wav": b"x"}}}
    assert list(archives.group_members(packed(group(files)))) == [
        ("authors.txt", b"me"),
        ("Fire.ocg/Fire.ogg", b"crackle"),
        ("Fire.ocg/In.ocg/a.wav", b"x"),
    ]


@pytest.mark.parametrize("content", [b"", b"not an archive, but long enough to be read as one" * 9])
@pytest.mark.parametrize("suffix", archives.OPENERS)
def test_what_is_no_archive_is_said(suffix: str, content: bytes) -> None:
    with pytest.raises(archives.ArchiveError):
        list(archives.OPENERS[suffix](content))


@needs_dpkg
def test_a_package_gives_the_files_of_the_folders_asked_for(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        "tunes",
        {
            "usr/share/tunes/a.ogg": b"a",
            "usr/share/other/b.ogg": b"b",
            "usr/share/doom.wad": wad({"D_E1M1": b"MThd", "DEMO1": b"x"}),
        },
    )
    found = archives.package_members(made, folders=["usr/share/tunes", "usr/share/doom.wad"])
    assert sorted(found) == [
        ("usr/share/doom.wad/DEMO1", b"x"),
        ("usr/share/doom.wad/D_E1M1", b"MThd"),
        ("usr/share/tunes/a.ogg", b"a"),
    ]


@needs_dpkg
def test_what_is_no_package_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad_9_all.deb").write_bytes(b"no package")
    with pytest.raises(archives.ArchiveError, match=r"bad_9_all\.deb: not a Debian package"):
        list(archives.package_members(tmp_path / "bad_9_all.deb", folders=["usr"]))


def test_without_dpkg_the_error_says_what_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(archives.ArchiveError, match="dpkg-deb is needed"):
        list(archives.package_members(tmp_path / "a.deb", folders=["usr"]))


# --- fetching and unpacking ---


def test_a_package_is_fetched_whole_and_once(tmp_path, monkeypatch) -> None:
    program(
        tmp_path / "bin", "apt-get", 'echo "$*" >> "$LOG"; echo x > "$3_1_all.deb"', monkeypatch
    )
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "packages").mkdir()
    for _ in range(2):
        found = gather.fetch("tunes", tmp_path / "packages", download=True)
        assert found == tmp_path / "packages" / "tunes_1_all.deb"
    assert (tmp_path / "log").read_text() == "download -qq tunes\n"
    assert os.listdir(tmp_path / "packages") == ["tunes_1_all.deb"]


def test_a_package_that_cannot_be_fetched_is_said(tmp_path, monkeypatch) -> None:
    program(tmp_path / "bin", "apt-get", "echo E: Unable to locate >&2; exit 100", monkeypatch)
    with pytest.raises(gather.GatherError, match=r"tunes: apt-get download failed \(E: Unable"):
        gather.fetch("tunes", tmp_path, download=True)
    with pytest.raises(gather.GatherError, match=r"has no tunes_\*\.deb"):
        gather.fetch("tunes", tmp_path, download=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gather.GatherError, match="apt-get is needed"):
        gather.fetch("tunes", tmp_path, download=True)
    assert os.listdir(tmp_path) == ["bin"]


@needs_dpkg
def test_files_are_unpacked_once_under_plain_names_and_equal_ones_are_one(tmp_path) -> None:
    content = {f"usr/share/tunes/{name}.ogg": name.encode() for name in ("@a b", "in/c")}
    content["usr/share/tunes/d.ogg"] = b"@a b"
    made = package(tmp_path, "tunes", content)
    files = gather.unpack(made, [source()], tmp_path / "unpacked")
    assert [f.path.read_bytes() for f in files] == [b"@a b", b"in/c"]
    assert [f.id for f in files] == ["tunes_a-b", "tunes_in_c"]
    assert files[0].origin == "tunes 9 usr/share/tunes/@a b.ogg"
    begun = written(files[0].path)
    assert gather.unpack(made, [source()], tmp_path / "unpacked") == files
    assert written(files[0].path) == begun
    assert len(os.listdir(tmp_path / "unpacked")) == 1  # nothing partial is left


@needs_dpkg
def test_a_package_without_the_files_of_the_table_is_said(tmp_path) -> None:
    made = package(tmp_path, "tunes", {"usr/share/tunes/a.flac": b"a"})
    with pytest.raises(archives.ArchiveError, match=r"has no usr/share/tunes/\{\*\.ogg\} any more"):
        gather.unpack(made, [source()], tmp_path / "unpacked")


def test_a_name_in_an_archive_leads_nowhere_else() -> None:
    assert gather._file_name(source(), "usr/share/tunes/../../x.ogg") == "tunes_--_--_x.ogg"


# --- recordings ---


def test_a_recording_is_made_once_and_again_when_it_is_made_of_something_else(tmp_path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(12, rate=22_050), 22_050)
    wanted = gather.decoded(file_of(path))
    assert gather.record(wanted, tmp_path) == 12.0
    samples = audio.read(tmp_path / wanted.path, sample_rate=RATE)
    np.testing.assert_allclose(samples, audio.read(path, sample_rate=RATE), atol=2**-15)
    before = written(tmp_path / wanted.path)
    assert gather.record(wanted, tmp_path) == 12.0
    assert written(tmp_path / wanted.path) == before
    soundfile.write(path, tone(11, rate=22_050), 22_050)
    assert gather.record(gather.decoded(file_of(path)), tmp_path) == 11.0


def test_music_that_is_too_short_is_no_recording(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(3), RATE)
    with pytest.raises(audio.AudioError, match=r"too short: 3\.0"):
        gather.record(gather.decoded(file_of(tmp_path / "a.wav")), tmp_path)
    assert gather.record(gather.decoded(file_of(tmp_path / "a.wav", "noise")), tmp_path) == 3.0


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fluidsynth that plays a tone for 60 s, whatever the piece, and fails at a missing one."""
    played = (20_000 * tone(60, rate=gather.RENDER_RATE) / 0.3).astype("<i2")
    np.stack([played, played], axis=1).tofile(tmp_path / "played")
    script = 'for last; do :; done; test -e "$last" || { echo no piece >&2; exit 1; }\n'
    program(tmp_path / "bin", "fluidsynth", f"{script}cat {tmp_path}/played", monkeypatch)


@pytest.mark.usefixtures("player")
def test_the_begin_of_a_piece_is_rendered_by_each_font(tmp_path) -> None:
    for name in ("piece.mid", "one-font.sf3", "two-font.sf3"):
        (tmp_path / name).write_bytes(name.encode())
    fonts = [
        font._replace(source=font.source._replace(package=font.id))
        for font in (file_of(tmp_path / f"{n}-font.sf3", "soundfont") for n in ("one", "two"))
    ]
    made = gather.rendered(file_of(tmp_path / "piece.mid", "midi"), fonts, seconds=4.0)
    assert [(r.id, r.work, r.role) for r in made] == [
        ("piece_one", "piece", "original"),
        ("piece_two", "piece", "cover"),
    ]
    samples = made[0].make()
    assert len(samples) == 4 * RATE
    np.testing.assert_allclose(samples[400:-400], 3 * tone(4)[400:-400], atol=0.01)


@pytest.mark.usefixtures("player")
def test_a_piece_that_cannot_be_played_is_said(tmp_path) -> None:
    with pytest.raises(gather.GatherError, match=r"ended with 1 \(no piece\)"):
        gather.render(tmp_path / "missing.mid", tmp_path / "font.sf3", seconds=1.0)


def test_a_rendering_that_was_cut_is_no_short_piece(tmp_path, monkeypatch) -> None:
    script = f"head -c 400000 {tmp_path}/played; kill -9 $$"
    program(tmp_path / "bin", "fluidsynth", script, monkeypatch)
    (tmp_path / "played").write_bytes(b"ab" * 400_000)
    with pytest.raises(gather.GatherError, match="ended with -9"):
        gather.render(tmp_path / "a.mid", tmp_path / "b.sf3", seconds=3.0)


def test_a_short_piece_is_rendered_whole_and_silence_is_said(tmp_path, monkeypatch) -> None:
    program(tmp_path / "bin", "fluidsynth", f"cat {tmp_path}/played", monkeypatch)
    (tmp_path / "played").write_bytes(b"ab" * 2 * gather.RENDER_RATE)
    assert len(gather.render(tmp_path / "a.mid", tmp_path / "b.sf3", seconds=3.0)) == RATE
    (tmp_path / "played").write_bytes(bytes(4000))
    with pytest.raises(gather.GatherError, match="plays nothing"):
        gather.render(tmp_path / "a.mid", tmp_path / "b.sf3", seconds=3.0)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_voice_speaks_the_same_numbers_again(tmp_path) -> None:
    once, again, other = (gather.spoken("en-us+f2", seed=s, seconds=3.0) for s in (0, 0, 1))
    assert len(once) == 3 * RATE
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_voice_that_cannot_speak_is_said(tmp_path, monkeypatch) -> None:
    program(tmp_path, "espeak-ng", "echo no such voice >&2; exit 1", monkeypatch)
    with pytest.raises(gather.GatherError, match=r"cannot speak en \(no such voice\)"):
        gather.spoken("en", seed=0, seconds=3.0)


def test_babble_is_so_many_voices_at_one_level() -> None:
    voices = [tone(1, hertz=500), tone(7, hertz=2000)]
    mixes = [
        gather.babble(np.random.default_rng(0), voices, speakers=6, seconds=4.0) for _ in range(2)
    ]
    np.testing.assert_array_equal(*mixes)
    assert mixes[0].shape == (4 * RATE,)
    assert np.sqrt(np.mean(mixes[0] ** 2)) == pytest.approx(0.1, rel=1e-4)
    power = np.abs(np.fft.rfft(mixes[0])) ** 2
    hertz = np.arange(len(power)) / 4
    heard = [power[(hertz > f * 0.8) & (hertz < f * 1.25)].sum() for f in (500, 2000)]
    assert sum(heard) > 0.98 * power.sum()  # speed by a fifth at most, nothing but the voices
    assert min(heard) > 0.01 * power.sum()


def test_speech_is_excerpts_of_each_speaker_and_babble_of_all(tmp_path) -> None:
    files = {}
    for name, hertz in (("tom", 300), ("ann", 600)):
        for i in range(3):
            path = tmp_path / f"{name}{i}.wav"
            soundfile.write(path, tone(15, hertz=hertz), RATE)
            files.setdefault(name, []).append(file_of(path, "speech"))
        soundfile.write(tmp_path / f"{name}9.wav", np.zeros(3 * RATE), RATE)  # a prompt of silence
        files[name].append(file_of(tmp_path / f"{name}9.wav", "speech"))
    made = gather.speech(files, espeak=False, seed=0)
    assert [r.id for r in made if r.genre == "speech"] == ["ann_0", "ann_1", "tom_0", "tom_1"]
    assert sum(r.genre == "babble" for r in made) == gather.BABBLES
    assert len({r.made_of for r in made}) >= gather.BABBLES
    np.testing.assert_allclose(made[0].make(), tone(20, hertz=600), atol=1e-4)
    assert gather.speech({}, espeak=False, seed=0) == []


# --- what is shared with a test set ---


@pytest.mark.parametrize(
    ("title", "other", "same"),
    [
        ("Soldiers' Joy", "Soldier's Joy", True),
        ("Old Joe Clark 1", "Old Joe Clark", True),
        ("Old Zip Coon", "Turkey in the Straw", True),
        ("Lullaby, Op. 49 No. 4", "Brahms: Lullaby op. 49", True),
        ("The Girl I Left behind Me", "Brighton Camp", True),
        ("theme", "Theme of the boss", False),
        ("empire1", "empire2", False),
        ("On the run", "Run, run away", False),
        ("Minuet in G, BWV Anh. 114", "Bach BWV1006 mov4: Menuet I and II", False),
    ],
)
def test_titles_of_one_work_are_known(title: str, other: str, same: bool) -> None:
    found = list(overlap.by_title([("mine", title)], [("theirs", other)]))
    assert [(one.id, one.other) for one in found] == ([("mine", "theirs")] if same else [])


@pytest.mark.slow
def test_a_part_of_a_test_recording_is_found_at_any_level_and_other_music_is_not() -> None:
    tunes = degrade.synthetic_music(1, count=5, seconds=25.0)
    index, names = overlap.index(iter(tunes[:4])), ["a", "b", "c", "d"]
    for i, level in enumerate((0.01, 0.1, 0.3, 1.0)):
        part = np.float32(level) * tunes[i][7 * RATE : 19 * RATE]
        (found,) = overlap.by_search(index, names, "part", part)
        assert (found.id, found.other) == ("part", names[i])
    assert overlap.by_search(index, names, "other", tunes[4]) == []


def test_steady_noise_is_found_where_it_is_the_same_and_only_there() -> None:
    noises = [n for seed in range(3) for n in degrade.synthetic_noises(seed)[:4]]
    index, names = overlap.index(noises[:8]), [str(i) for i in range(8)]
    for i, noise in enumerate(noises):
        found = overlap.by_search(index, names, "noise", noise[2 * RATE : 8 * RATE])
        assert [one.other for one in found] == ([str(i)] if i < 8 else [])


def test_two_parts_of_two_test_recordings_are_found_where_they_are() -> None:
    tunes = degrade.synthetic_music(1, count=3, seconds=30.0)
    both = np.concatenate([tunes[2], tunes[0][3 * RATE :], tunes[1]])
    first, second = overlap.by_search(overlap.index(tunes[:2]), ["a", "b"], "both", both)
    assert (first.other, second.other) == ("a", "b")
    start, there = (float(number) for number in re.findall(r"[\d.]+(?= s)", first.why))
    assert start - there == pytest.approx(27, abs=0.15)


# --- the script ---


@pytest.mark.slow
@needs_dpkg
def test_the_script_collects_what_is_there_and_leaves_out_what_a_test_set_has(tmp_path) -> None:
    tunes = [ogg(t) for t in degrade.synthetic_music(1, count=2, seconds=25.0)]
    clonk = "usr/share/games/openclonk"
    sounds = {  # every row of the table has a file
        s.names[0].replace("?", "1") for s in SOURCES if s.folder.endswith("Sound.ocg")
    }
    nested: dict = {}
    for i, name in enumerate(sorted(sounds)):
        *folders, last = name.split("/")
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = ogg(tone(2, hertz=300 + 100 * i))
    debs = tmp_path / "debs"
    debs.mkdir()
    package(debs, "pax-britannica-data", {"usr/share/pax-britannica/audio/music.ogg": tunes[0]})
    package(
        debs,
        "openclonk-data",
        {f"{clonk}/Music.ocg/@Two.ogg": tunes[1], f"{clonk}/Sound.ocg": packed(group(nested))},
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "held.ogg").write_bytes(tunes[0])
    arguments = [
        f"--workdir={tmp_path / 'set'}",
        f"--packages={debs}",
        f"--against={tmp_path / 'test'}",
        "--nosongbook",
    ]
    ended = run_module("experiments.collect", *arguments)
    assert ended.status == 0, ended.err
    assert "1 recordings of 1 works" in ended.out
    assert "left out pax-britannica-data_music: " in ended.out
    assert "skipped freedoom: " in ended.err
    rows, noises = (table(tmp_path / "set" / name) for name in ("manifest.csv", "noise.csv"))
    assert [(r["path"], r["licence"]) for r in rows] == [
        ("music/openclonk-data_Two.flac", "CC BY 3.0")
    ]
    assert {n["genre"] for n in noises} >= {"noise", "pink", "crowd"}
    assert all((tmp_path / "set" / r["path"]).is_file() for r in [*rows, *noises])
    told = (tmp_path / "set" / "SOURCES.md").read_text()
    assert "openclonk-data_9_all.deb" in told
    assert "in another version" in told
    assert "held" in told
    before = {p: written(p) for p in (tmp_path / "set").glob("*/*.flac")}
    assert run_module("experiments.collect", *arguments, "--strict").status == 3
    assert {p: written(p) for p in (tmp_path / "set").glob("*/*.flac")} == before


@pytest.mark.slow
def test_the_script_ends_with_2_where_there_is_nothing(tmp_path) -> None:
    bad = run_module("experiments.collect", f"--workdir={tmp_path}", "--packages=/nowhere")
    assert bad.status == 2
    assert "--packages=/nowhere: no such folder" in bad.err
    assert "Traceback" not in bad.err
