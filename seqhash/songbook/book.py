"""The built-in corpus: 20 public-domain works, an original and three covers of each, synthesised by
the package.

Ten country and folk tunes and ten classical themes stand in ``data/songbook.txt``. Every recording
has its own band, accompaniment, key, tempo, order of parts, ornaments, harmony, room and
microphone, drawn from (seed, work, version) alone, so neither the number of workers nor the order
in which recordings are made changes a sample. Bit-equality holds on one machine; another numpy or
processor may differ in the last bit of a sample. Samples are 16 kHz, mono, 30 to 45 s.
"""

import csv
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from seqhash import parallel
from seqhash.files import replacing
from seqhash.songbook import notation, synth
from seqhash.songbook.arrangement import DRUMS, Arrangement, Performance, perform
from seqhash.songbook.notation import Work
from seqhash.songbook.synth import INSTRUMENTS, SAMPLE_RATE, Room

VERSIONS = ("orig", "cov1", "cov2", "cov3")
COLUMNS = (
    *(
        "path",
        "recording_id",
        "work_id",
        "role",
        "genre",
        "title",
        "composer",
        "key_shift",
        "tempo_factor",
    ),
    *("instrument", "order", "fx", "duration_s", "sample_rate", "channels", "seed"),
)
_FX = ("wet", "rt60", "low_db", "high_db", "squeeze", "rms_db", "noise_db", "band")
_SOURCES = ("data/songbook.txt", "notation.py", "arrangement.py", "synth.py", "book.py")

_LEADS = {
    "country": {
        "bowed": ("fiddle", "fiddle", "violin"),
        "plucked": ("banjo", "mandolin", "steel guitar", "dulcimer"),
        "reed": ("accordion", "harmonica"),
        "wind": ("whistle", "flute", "clarinet", "saxophone"),
        "keys": ("honky-tonk piano", "piano", "bright piano", "electric piano"),
        "brass": ("trumpet",),
        "mallet": ("marimba", "vibraphone"),
    },
    "classical": {
        "keys": ("piano", "bright piano", "harpsichord", "electric piano"),
        "bowed": ("violin", "cello", "strings"),
        "wind": ("flute", "oboe", "clarinet", "choir"),
        "reed": ("organ", "accordion"),
        "plucked": ("harp", "nylon guitar", "mandolin"),
        "brass": ("trumpet", "horn"),
        "mallet": ("vibraphone", "marimba"),
    },
}
_ODDS = {"bowed": 3, "plucked": 3, "reed": 2, "wind": 3, "keys": 3, "brass": 1, "mallet": 1}
_CHORDS = {  # instrument: patterns that suit it
    "steel guitar": ("boom-chick", "strum", "strum", "arpeggio"),
    "nylon guitar": ("boom-chick", "arpeggio", "strum", "alberti"),
    "banjo": ("roll", "boom-chick", "arpeggio"),
    "piano": ("boom-chick", "alberti", "arpeggio", "block", "pulse"),
    "honky-tonk piano": ("boom-chick", "pulse"),
    "accordion": ("boom-chick", "block", "pulse", "drone"),
    "organ": ("block", "drone", "arpeggio"),
    "strings": ("block", "pulse", "boom-chick"),
    "harp": ("arpeggio", "alberti"),
    "harpsichord": ("alberti", "arpeggio", "pulse"),
    "electric piano": ("block", "arpeggio", "pulse"),
    "choir": ("block", "drone"),
}
_BACKING = {
    "country": (
        "steel guitar",
        "steel guitar",
        "nylon guitar",
        "banjo",
        "piano",
        "honky-tonk piano",
        "accordion",
        "organ",
    ),
    "classical": (
        "piano",
        "piano",
        "strings",
        "harp",
        "nylon guitar",
        "organ",
        "harpsichord",
        "electric piano",
        "choir",
    ),
}


@cache
def works() -> tuple[Work, ...]:
    """The 20 works, as ``data/songbook.txt`` has them.

    Raises:
      ValueError: an error in the notation, with its line.
    """
    text = (resources.files("seqhash.songbook") / "data" / "songbook.txt").read_text(
        encoding="utf-8"
    )
    return notation.parse(text, name="songbook.txt")


def arrangements(work: Work, *, seed: int) -> tuple[Arrangement, ...]:
    """How the original and the three covers play a work.

    cov1 is a close cover: another player in the same key with a band like the original's (lead of
    the same family, same accompaniment), near its tempo, in another room. cov2 and cov3 have leads
    of two other families, and mostly other keys.
    """
    rng = _generator(seed, work.work_id, "plan")
    families = list(_LEADS[work.genre])
    odds = np.array([_ODDS[family] for family in families], float)
    chosen = rng.choice(len(families), size=len(VERSIONS) - 1, replace=False, p=odds / odds.sum())
    original, *covers = (
        arrange(rng, work, families[family], cover=version != "orig")
        for family, version in zip([chosen[0], *chosen], VERSIONS, strict=True)
    )
    close = replace(
        covers[0],
        key_shift=0,
        tempo_factor=round(float(rng.uniform(0.9, 1.1)), 3),
        chords=original.chords,
        pattern=original.pattern,
        bass=original.bass,
    )
    return original, close, *covers[1:]


def arrange(rng: np.random.Generator, work: Work, family: str, *, cover: bool) -> Arrangement:
    """Draws an arrangement; an original keeps to the notation, a cover need not.

    ``family``: of the lead, one of the families of the work's genre.
    """
    country = work.genre == "country"
    lead = str(rng.choice(_LEADS[work.genre][family]))
    chords = str(rng.choice(_BACKING[work.genre]))
    if INSTRUMENTS[lead].family == "keys" and lead in _CHORDS and rng.random() < 0.5:
        chords = lead
    pool = [name for names in _LEADS[work.genre].values() for name in names if name != lead]
    names = "".join(part.name for part in work.parts)
    orders = (
        work.order,
        names,
        names + names[::-1],
        "".join(2 * name for name in names),
        names[::-1] + names,
    )
    tempo = float(np.exp(rng.uniform(np.log(0.78), np.log(1.28)))) if cover else 1.0
    shifted = cover and rng.random() < 0.8
    amount = float(cover)
    return Arrangement(
        key_shift=int(rng.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6])) if shifted else 0,
        tempo_factor=round(tempo, 3),
        order=str(rng.choice(orders)) if cover else work.order,
        seconds=float(rng.uniform(30.5, 36)),
        intro_bars=int(rng.choice([0, 0, 2, 4 if work.bar <= 2 else 2])) if cover else 0,
        lead=lead,
        second=str(rng.choice(pool)) if rng.random() < 0.5 else "",
        harmony=str(rng.choice(["", "", "", "octave", "third"])),
        chords=chords,
        pattern=str(rng.choice(_CHORDS[chords])),
        bass=str(
            rng.choice(
                ["", "two-beat", "two-beat", "walking"] if country else ["", "", "", "two-beat"]
            )
        ),
        drums=str(rng.choice(["", *DRUMS] if country else ["", "", "", "", "", "shaker", "kit"]))
        if cover
        else "",
        ornaments=float(rng.uniform(0.0, 0.3 if cover else 0.04)),
        thinning=amount * float(rng.choice([0.0, 0.0, 0.15, 0.35])),
        substitution=amount * float(rng.uniform(0.0, 0.35)),
        swing=float(rng.choice([0.0, 0.0, rng.uniform(0.04, 0.14)]))
        if country and work.metre[1] == 4
        else 0.0,
        rubato=float(rng.uniform(0.0, 0.02 if country else 0.06)),
        timing=float(rng.uniform(0.004, 0.016)),
        room=_room(rng, cover),
    )


def render(work_id: str, version: str, *, seed: int) -> np.ndarray:
    """One recording, float32 (samples,) at ``SAMPLE_RATE``, 30 to 45 s, within (-1, 1).

    Args:
      work_id: ``Work.work_id`` of one of ``works()``.
      version: one of ``VERSIONS``.
      seed: root of everything random.

    Raises:
      ValueError: an unknown work or version.
    """
    work = _work(work_id)
    arrangement = arrangements(work, seed=seed)[_index(version)]
    rng = _generator(seed, work_id, version)
    return sound(rng, perform(rng, work, arrangement), arrangement.room)


def sound(rng: np.random.Generator, performance: Performance, room: Room) -> np.ndarray:
    """All players together in a room, float32 (samples,) at ``SAMPLE_RATE``, within (-1, 1)."""
    samples = round(performance.seconds * SAMPLE_RATE)
    mix = np.zeros(samples, np.float32)
    for instrument, level, events in performance.players:
        mix += _levelled(
            synth.play(rng, instrument, events, samples=samples), level * _decibels(rng, 2.5)
        )
    if performance.hits:
        mix += _levelled(
            synth.drums(rng, performance.hits, samples=samples), 0.3 * _decibels(rng, 3.0)
        )
    mix[-SAMPLE_RATE // 4 :] *= np.linspace(1, 0, SAMPLE_RATE // 4, dtype=np.float32)
    return synth.record(rng, mix, room)


def write(
    directory: str | os.PathLike[str], *, seed: int = 0, workers: int = 2, progress: bool = True
) -> Path:
    """All 80 recordings as 16-bit FLAC and a ``manifest.csv``, whose path is returned.

    A file appears under its name only when it is complete, and says in its comment what it was made
    from; those that are there for this seed and this version of the package are kept, so a run that
    was killed goes on, and the manifest is written last. With more than one worker a script needs
    the usual ``if __name__ == "__main__":``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tag = _tag(seed)
    jobs = [(work.work_id, version) for work in works() for version in VERSIONS]
    missing = [
        (*job, seed, tag, folder) for job in jobs if not _is_there(folder / _file(*job), tag)
    ]
    done = _record_all(missing, min(workers, len(missing)))
    for _ in tqdm(
        done,
        total=len(missing),
        desc="songbook",
        unit="recording",
        disable=None if progress and missing else True,
    ):
        pass
    rows = [row for work in works() for row in _rows(work, folder, seed)]
    manifest = folder / "manifest.csv"
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    with replacing(manifest) as file:
        file.write(text.getvalue().encode())
    return manifest


def _room(rng: np.random.Generator, cover: bool) -> Room:
    colour = tuple(
        (float(np.exp(rng.uniform(np.log(150), np.log(6_000)))), float(rng.normal(0, 3)))
        for _ in range(4)
    )
    return Room(
        wet=float(rng.uniform(0.1, 0.6)),
        rt60=float(rng.uniform(0.25, 1.6)),
        low_db=float(rng.uniform(-5, 5)) if cover else 0.0,
        high_db=float(rng.uniform(-6, 4)) if cover else 0.0,
        colour=colour,
        band=float(rng.choice([7_900, 7_900, 7_900, 5_500, 3_800])) if cover else 7_900.0,
        squeeze=float(rng.uniform(0, 0.4)),
        rms_db=float(rng.uniform(-24, -16)),
        noise_db=float(rng.uniform(-85, -55)) if cover else float(rng.uniform(-88, -72)),
    )


def _generator(seed: int, work_id: str, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{work_id} {purpose}".encode())])


def _decibels(rng: np.random.Generator, spread: float) -> float:
    """A random gain."""
    return float(10 ** (rng.normal(0, spread) / 20))


def _levelled(part: np.ndarray, level: float) -> np.ndarray:
    """A player's part at an RMS of ``level`` where it plays at all."""
    loud = np.abs(part) > 1e-4
    rms = float(np.sqrt(np.mean(part[loud] ** 2))) if loud.any() else 1.0
    return part * np.float32(0.1 * level / rms)


def _work(work_id: str) -> Work:
    found = [work for work in works() if work.work_id == work_id]
    if not found:
        raise ValueError(
            f"work_id must be one of {', '.join(work.work_id for work in works())}, "
            f"got {work_id!r}."
        )
    return found[0]


def _index(version: str) -> int:
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}, got {version!r}.")
    return VERSIONS.index(version)


def _file(work_id: str, version: str) -> str:
    return f"{work_id}_{version}.flac"


def _tag(seed: int) -> str:
    """What a recording depends on: the seed, the notation and the code that plays it."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        digest.update(resources.files("seqhash.songbook").joinpath(source).read_bytes())
    return f"seqhash songbook seed={seed} source={digest.hexdigest()[:16]}"


def _is_there(path: Path, tag: str) -> bool:
    try:
        with soundfile.SoundFile(path) as file:
            return file.comment == tag
    except (OSError, soundfile.LibsndfileError):
        return False


def _record_all(jobs: list[tuple[str, str, int, str, Path]], workers: int) -> Iterable[None]:
    if workers <= 1:
        for job in jobs:
            _record(*job)
            yield
        return
    yield from (result for _, result in parallel.in_processes(_record, jobs, workers=workers))


def _record(work_id: str, version: str, seed: int, tag: str, folder: Path) -> None:
    """One file, complete or not at all."""
    samples = render(work_id, version, seed=seed)
    with (
        replacing(folder / _file(work_id, version)) as whole,
        soundfile.SoundFile(whole, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file,
    ):
        file.comment = tag
        file.write(samples)


def _rows(work: Work, folder: Path, seed: int) -> Iterable[dict[str, object]]:
    for version, arrangement in zip(VERSIONS, arrangements(work, seed=seed), strict=True):
        path, room = folder / _file(work.work_id, version), arrangement.room
        leads = " / ".join(filter(None, (arrangement.lead, arrangement.second)))
        rhythm = " + ".join(
            filter(None, (arrangement.bass and f"{arrangement.bass} bass", arrangement.drums))
        )
        yield {
            "path": path.name,
            "recording_id": path.stem,
            "work_id": work.work_id,
            "role": "original" if version == "orig" else "cover",
            "genre": work.genre,
            "title": work.title,
            "composer": work.composer,
            "key_shift": arrangement.key_shift,
            "tempo_factor": arrangement.tempo_factor,
            "instrument": " + ".join(
                filter(None, (leads, f"{arrangement.chords} {arrangement.pattern}", rhythm))
            ),
            "order": arrangement.order,
            "fx": json.dumps(
                {
                    name: round(getattr(room, name), 3)
                    for name in ("wet", "rt60", "rms_db", "noise_db", "band")
                }
            ),
            "duration_s": round(soundfile.info(path).duration, 3),
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "seed": seed,
        }
