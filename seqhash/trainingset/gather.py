"""Packages to recordings: fetched, unpacked, decoded, rendered, spoken and mixed; and their
manifest.

What a folder holds is kept: each package, each unpacked package and each recording appears under
its name only when it is complete, and says (name or comment) what it was made of, so a run that was
killed goes on, and what changed is made anew. Recordings are 16 kHz, mono, 16-bit FLAC.
"""

import csv
import functools
import hashlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from seqhash import audio, digests
from seqhash.files import replacing, replacing_folder
from seqhash.robustness import degrade
from seqhash.trainingset import archives
from seqhash.trainingset.sources import Source, source_of

SAMPLE_RATE = 16_000  # Hz
MEMBERS = "members.csv"  # of an unpacked package: file, SHA-256, path in the package
RENDER_RATE = 44_100  # Hz; at a lower one the instruments' overtones would fold
SHORTEST = {"music": 10.0, "noise": 1.4, "speech": 1.0}  # s; shorter files are left out
COLUMNS = (
    *("path", "recording_id", "work_id", "role", "title", "genre", "artist", "licence"),
    *("source", "duration_s"),
)
OWN = "Apache-2.0"  # the licence of what this package makes by itself
VOICES = tuple(  # of espeak-ng: language, speaker
    f"{language}+{speaker}"
    for language, speaker in zip(
        ("en-us", "de", "fr-fr", "es", "en-gb", "pt-br", "pl", "sv", "tr", "cs", "hi", "cmn"),
        ("f2", "m3", "f3", "m1", "m7", "f1", "f4", "m2", "m4", "f5", "m5", "m6"),
        strict=True,
    )
)
VOICE_SECONDS = 20.0  # of an excerpt of one speaker
BABBLE_SECONDS = 25.0
BABBLES = 16
SYNTHETIC = 4  # draws of the synthetic noises


class GatherError(ValueError):
    """A package that cannot be had, or a program that does not do its part."""


class File(NamedTuple):
    """An unpacked file that may be used."""

    id: str  # unique: package and name
    path: Path
    digest: str  # SHA-256 of its content
    member: str  # path in the package
    package: str  # name of the .deb
    package_digest: str
    source: Source

    @property
    def origin(self) -> str:
        """Package, version and path, as text."""
        return " ".join((*self.package.split("_")[:2], self.member))


@dataclass(frozen=True)
class Recording:
    """A recording to be made, and its row of the manifest."""

    id: str
    folder: str
    work: str  # "" in noises
    role: str
    title: str
    genre: str
    artist: str
    licence: str
    source: str
    made_of: str  # all that the samples depend on, as text
    make: Callable[[], np.ndarray]  # float32 (samples,) at SAMPLE_RATE

    @property
    def path(self) -> str:
        """From the folder of the manifest."""
        return f"{self.folder}/{self.id}.flac"


def fetch(package: str, folder: Path, *, download: bool) -> Path:
    """A package's .deb: the one in the folder, else what ``apt-get download`` puts there, which
    any user may call.

    Raises:
      GatherError: it is not there; there is no apt-get, it does not know the package, or there is
        no network.
    """
    there = sorted(folder.glob(f"{package}_*.deb"))
    if there:
        return there[-1]
    if not download:
        raise GatherError(f"{package}: {folder} has no {package}_*.deb.")
    if shutil.which("apt-get") is None:
        raise GatherError(
            f"{package}: apt-get is needed to fetch it; elsewhere give a folder of .deb files."
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as partial:
        done = subprocess.run(
            ["apt-get", "download", "-qq", package], cwd=partial, capture_output=True, text=True
        )
        found = list(Path(partial).glob("*.deb"))
        if done.returncode or len(found) != 1:
            reason = done.stderr.strip().splitlines() or ["no package came"]
            raise GatherError(f"{package}: apt-get download failed ({reason[-1]}).")
        return found[0].replace(folder / found[0].name)


def unpack(package: Path, sources: Sequence[Source], folder: Path) -> list[File]:
    """The files of a package that are in a table, in the package's order, each under its id.

    Of files with the same content the first is kept.

    Raises:
      ArchiveError: the package cannot be read, or its files are not there any more.
    """
    content = digests.of_file(package)
    key = digests.of([content, sources])[:16]
    unpacked = folder / f"{sources[0].package}-{key}"
    if not unpacked.is_dir():
        with replacing_folder(unpacked) as fresh:
            _unpack(package, sources, fresh)
    with (unpacked / MEMBERS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    files = [
        File(Path(name).stem, unpacked / name, digest, member, package.name, content, source)
        for name, digest, member in rows
        if (source := source_of(member, sources))
    ]
    for source in sources:
        if not any(file.source == source for file in files):
            raise archives.ArchiveError(
                f"{package}: has no {source.folder}/{{{','.join(source.names)}}} any more."
            )
    return files


def _unpack(package: Path, sources: Sequence[Source], folder: Path) -> None:
    rows: dict[str, tuple[str, str, str]] = {}
    folders = {source.folder for source in sources}
    for member, content in archives.package_members(package, folders=folders):
        source = source_of(member, sources)
        digest = hashlib.sha256(content).hexdigest()
        if source is None or digest in rows:
            continue
        name = _file_name(source, member)
        (folder / name).write_bytes(content)
        rows[digest] = name, digest, member
    with (folder / MEMBERS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows.values())


def _file_name(source: Source, member: str) -> str:
    """Package, archive where it is a WAD, and path in the source's folder, of plain letters."""
    archive = Path(source.folder).stem if source.folder.endswith(".wad") else ""
    inside = member.removeprefix(f"{source.folder}/").replace(".ocg/", "/").replace("@", "")
    stem, suffix = os.path.splitext(inside)
    name = "_".join(filter(None, (source.package, archive, *stem.split("/"))))
    suffix = suffix or (".mid" if source.use == "midi" else "")
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name) + suffix


def decoded(file: File) -> Recording:
    """A file of music or noise."""
    use, inside = file.source.use, Path(file.member).stem.lstrip("@")
    music = use == "music"
    return Recording(
        file.id,
        use,
        file.id if music else "",
        "original" if music else "",
        inside,
        "" if music else "noise",
        file.source.author,
        file.source.licence,
        file.origin,
        file.digest,
        functools.partial(
            audio.read, file.path, sample_rate=SAMPLE_RATE, minimum_seconds=SHORTEST[use]
        ),
    )


def rendered(midi: File, fonts: Sequence[File], *, seconds: float) -> list[Recording]:
    """The begin of a MIDI piece by each sound font: one work, its original by the first font."""
    return [
        Recording(
            f"{midi.id}_{font.source.package.split('-')[0]}",
            "music",
            midi.id,
            "cover" if i else "original",
            midi.id,
            "",
            midi.source.author,
            f"{midi.source.licence} (sound font: {font.source.licence})",
            f"{midi.origin}, rendered with {font.origin}",
            f"{midi.digest} {font.digest} {seconds}",
            functools.partial(render, midi.path, font.path, seconds=seconds),
        )
        for i, font in enumerate(fonts)
    ]


def render(midi: Path, font: Path, *, seconds: float) -> np.ndarray:
    """The begin of a MIDI file, as fluidsynth plays it: float32 (samples,), peak 0.9.

    Raises:
      GatherError: fluidsynth fails, or plays silence.
    """
    sparing = ["-o", "synth.dynamic-sample-loading=1"]  # the instruments of the piece alone
    command = [
        "fluidsynth",
        "-ni",
        "-q",
        *sparing,
        "-r",
        str(RENDER_RATE),
        "-T",
        "raw",
        "-O",
        "s16",
    ]
    wanted = 4 * round(seconds * RENDER_RATE)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [*command, "-F", "/dev/stdout", font, midi],
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl-C would cut the piece, which would pass for a short one
        ) as process,
    ):
        assert process.stdout is not None
        content = process.stdout.read(wanted)
        if len(content) == wanted:
            process.kill()  # the rest of the piece is not wanted
        status = process.wait()
        said.seek(0)
        reason = said.read().decode(errors="replace").strip()
    if len(content) < wanted and status:
        raise GatherError(f"{midi}: fluidsynth ended with {status} ({reason}).")
    played = np.frombuffer(content[: len(content) // 4 * 4], "<i2").reshape(-1, 2).mean(axis=1)
    if not played.any():
        raise GatherError(f"{midi}: fluidsynth plays nothing ({reason}).")
    samples = soxr.resample(played.astype(np.float32), RENDER_RATE, SAMPLE_RATE)
    return samples * np.float32(0.9 / np.abs(samples).max())


def spoken(voice: str, *, seed: int, seconds: float) -> np.ndarray:
    """Random numbers as espeak-ng reads them, float32 (samples,).

    Raises:
      GatherError: espeak-ng fails.
    """
    rng = np.random.default_rng([seed, *voice.encode()])
    text = " ".join(str(n) for n in rng.integers(0, 1_000_000, round(seconds)))
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "spoken.wav"
        options = ["-s", str(rng.integers(130, 190)), "-p", str(rng.integers(30, 70))]
        done = subprocess.run(
            ["espeak-ng", "-v", voice, *options, "-w", wav, text], capture_output=True, text=True
        )
        if done.returncode or not wav.is_file():
            raise GatherError(f"espeak-ng cannot speak {voice} ({done.stderr.strip()}).")
        return audio.read(wav, sample_rate=SAMPLE_RATE)[: round(seconds * SAMPLE_RATE)]


def joined(files: Iterable[File]) -> np.ndarray:
    """What one speaker says in several files, one after the other: float32 (samples,)."""
    parts = []
    for file in sorted(files, key=lambda file: file.id):
        if soundfile.info(file.path).duration >= SHORTEST["speech"]:
            try:
                parts.append(audio.read(file.path, sample_rate=SAMPLE_RATE))
            except audio.AudioError:  # prompts of silence
                continue
    if not parts:
        raise GatherError("Files of speech of at least a second expected, got none.")
    return np.concatenate(parts)


def babble(
    rng: np.random.Generator, voices: Sequence[np.ndarray], *, speakers: int, seconds: float
) -> np.ndarray:
    """Several speakers at once, float32 (samples,), RMS 0.1.

    Each is a voice drawn at random, from a random place on, up to a fifth faster or slower (and
    so higher or lower), up to 6 dB louder or softer.
    """
    mix = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for _ in range(speakers):
        factor = rng.uniform(0.83, 1.2)
        voice = voices[int(rng.integers(len(voices)))]
        needed = round(len(mix) * factor) + 1
        stretch = np.resize(np.roll(voice, -rng.integers(len(voice))), needed)
        other = soxr.resample(stretch, SAMPLE_RATE * factor, SAMPLE_RATE)
        level = 10 ** (rng.uniform(-6, 6) / 20) / np.sqrt(np.mean(other**2))
        mix += np.resize(other, len(mix)) * np.float32(level)
    return np.float32(0.1 / np.sqrt(np.mean(mix**2))) * mix


def speech(speakers: dict[str, list[File]], espeak: bool, *, seed: int) -> list[Recording]:
    """Excerpts of one speaker each, and babble of three to eight.

    Args:
      speakers: files of each real speaker, by name.
      espeak: also the voices of espeak-ng.
      seed: of the texts and mixtures.
    """
    real = {name: joined(files) for name, files in sorted(speakers.items())}
    made = {voice: spoken(voice, seed=seed, seconds=30.0) for voice in (VOICES if espeak else ())}
    found = []
    for name, samples in real.items():
        file = speakers[name][0]
        count = min(6, int(len(samples) / SAMPLE_RATE // VOICE_SECONDS))
        for i, part in enumerate(samples[: count * _excerpt()].reshape(count, -1)):
            found.append(
                _noise(f"{name}_{i}", "speech", file.source.author, file.source.licence,
                       file.package, part)
            )  # fmt: skip
    for voice, samples in made.items():
        name = f"espeak-ng_{voice.replace('+', '_')}"
        found.append(_noise(name, "speech", "", OWN, "espeak-ng", samples[: _excerpt()]))
    voices = [*real.values(), *made.values()]
    authors = ", ".join(files[0].source.author for _, files in sorted(speakers.items()))
    licences = {files[0].source.licence for files in speakers.values()} or {OWN}
    for i in range(BABBLES if voices else 0):
        rng = np.random.default_rng([seed, i])
        mix = babble(rng, voices, speakers=3 + i % 6, seconds=BABBLE_SECONDS)
        origin = " ".join([*sorted(speakers), *(["espeak-ng"] if espeak else [])])
        found.append(
            _noise(f"babble_{i:02}", "babble", authors, " and ".join(sorted(licences)), origin, mix)
        )
    return found


def _excerpt() -> int:
    return round(VOICE_SECONDS * SAMPLE_RATE)


def synthetic(*, seed: int) -> list[Recording]:
    """Noises that this package makes: pink and brown noise, wind, a crowd, an engine."""
    kinds = ("pink", "brown", "wind", "crowd", "engine")
    return [
        _noise(f"synthetic_{kind}_{draw}", kind, "", OWN, "seqhash", samples)
        for draw in range(SYNTHETIC)
        for kind, samples in zip(
            kinds, degrade.synthetic_noises(seed * SYNTHETIC + draw), strict=True
        )
    ]


def _noise(
    name: str, genre: str, artist: str, licence: str, source: str, samples: np.ndarray
) -> Recording:
    """A noise whose samples are at hand."""
    return Recording(
        name, "noise", "", "", name, genre, artist, licence, source,
        hashlib.sha256(samples.tobytes()).hexdigest(), lambda: samples,
    )  # fmt: skip


def record(recording: Recording, folder: Path) -> float:
    """Makes a recording's file where it is not there as it should be; returns its seconds.

    Raises:
      AudioError, GatherError: it cannot be made.
    """
    path = folder / recording.path
    tag = f"seqhash {hashlib.sha256(recording.made_of.encode()).hexdigest()[:32]}"
    try:
        with soundfile.SoundFile(path) as file:
            if file.comment == tag:
                return file.frames / file.samplerate
    except soundfile.LibsndfileError:
        pass
    samples = np.clip(recording.make(), -1, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as whole,
        soundfile.SoundFile(whole, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file,
    ):
        file.comment = tag
        file.write(samples)
    return len(samples) / SAMPLE_RATE


def row(recording: Recording, seconds: float) -> dict[str, str]:
    """A recording's row of the manifest."""
    values = (
        *(recording.path, recording.id, recording.work, recording.role, recording.title),
        *(recording.genre, recording.artist, recording.licence, recording.source, f"{seconds:.3f}"),
    )
    return dict(zip(COLUMNS, values, strict=True))


def write_manifest(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """A manifest, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
