"""A home with a folder of mixed formats, and the commands of docs/guide/own-music.md in it.

python -m tests.own_music        # writes what they print anew
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from seqhash import songbook
from tests import damage

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guide" / "own-music.md"
SHOWN = "/home/annette"  # for the home, and as long as the name of a temporary one
SECONDS = 30  # of every piece


def tune(work: str, *, rate: int = songbook.SAMPLE_RATE) -> np.ndarray:
    """The beginning of a work: float32 (samples,)."""
    samples = songbook.render(work, "orig", seed=0)[: SECONDS * songbook.SAMPLE_RATE]
    return soxr.resample(samples, songbook.SAMPLE_RATE, rate)


def make(home: Path) -> None:
    """Writes the folders and the clips that the page names."""
    folk, piano, radio, downloads, vinyl = (
        home / name
        for name in ("Music/Folk", "Music/Piano", "Music/Radio", "Music/Downloads", "Vinyl")
    )
    for folder in (folk, piano, radio, downloads, vinyl):
        folder.mkdir(parents=True)
    song = tune("greensleeves", rate=44_100)
    with soundfile.SoundFile(folk / "greensleeves.flac", "w", 44_100, 2, "PCM_24") as file:
        file.title, file.artist = "Greensleeves", "Anonymous"
        file.write(np.stack([song, 0.7 * song], 1))
    soundfile.write(folk / "Oh Susanna.MP3", tune("oh_susanna", rate=44_100), 44_100, format="MP3")
    soundfile.write(folk / "auld_lang_syne.ogg", tune("auld_lang_syne", rate=48_000), 48_000)
    elise = {"title": "Für Elise", "artist": "Beethoven"}
    for name, codec, work, tags in (
        ("fur_elise.m4a", ("ipod", "aac", 44_100), "fur_elise", elise),
        ("turkish_march.wma", ("asf", "wmav2", 44_100), "turkish_march", {}),
    ):
        data = damage.coded(*codec, samples=tune(work, rate=codec[2]), **tags)
        (piano / name).write_bytes(data)
    radio_tune = tune("yankee_doodle", rate=11_025)
    soundfile.write(radio / "yankee_doodle.wav", radio_tune, 11_025, subtype="PCM_U8")
    soundfile.write(downloads / "races.mp3", tune("camptown_races", rate=44_100), 44_100)
    whole = (downloads / "races.mp3").read_bytes()
    (downloads / "races.mp3").write_bytes(whole[: len(whole) // 2])
    (downloads / "interrupted.flac").touch()
    (downloads / "page.mp3").write_text("<html>404 Not Found</html>" * 100)
    (home / "Music" / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (home / "Music" / "Favourites").symlink_to("Folk")
    soundfile.write(vinyl / "blue_danube.aiff", tune("blue_danube"), songbook.SAMPLE_RATE)
    _clips(home)


def _clips(home: Path) -> None:
    rate = songbook.SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(40 * rate)
    clip = tune("greensleeves")[10 * rate : 15 * rate]
    soundfile.write(home / "heard.wav", 0.3 * (clip + noise[: len(clip)] * clip.std()), rate)
    soundfile.write(home / "danube.ogg", tune("blue_danube")[5 * rate : 11 * rate], rate)
    soundfile.write(home / "stranger.wav", tune("ode_to_joy")[: 5 * rate], rate)
    parts = [tune("fur_elise")[: 12 * rate], tune("yankee_doodle")[5 * rate : 15 * rate]]
    quiet = 1e-3 * noise[: 4 * rate]
    soundfile.write(home / "evening.wav", np.concatenate([parts[0], quiet, parts[1], quiet]), rate)


def commands(page: str) -> list[tuple[str, str]]:
    """The commands of a page, each with what it says that they print."""
    found = list[tuple[str, str]]()
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = text.partition("\n")
            found.append((command, printed))
    return found


def printed(home: Path, asked: Sequence[str]) -> Iterator[str]:
    """What commands print, one after the other, in a shell whose home that is."""
    program = home / "bin" / "seqhash"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m seqhash.cli "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}
    for command in asked:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        yield done.stdout.replace(str(home), SHOWN)


def main() -> None:
    home, page = Path(tempfile.mkdtemp(prefix="", dir="/tmp")), PAGE.read_text()
    make(home)
    asked, at = commands(page), 0
    for (command, old), new in zip(asked, printed(home, [one for one, _ in asked]), strict=True):
        at = page.index(f"$ {command}\n{old}", at) + len(f"$ {command}\n")
        page = page[:at] + new + page[at + len(old) :]
        at += len(new)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
