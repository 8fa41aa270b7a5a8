"""What the robustness report compares, behind one door: hashers of this package, both classical
fingerprints, programs.

A system is anything with the fields and functions of ``System``, and ``named`` makes those of the
package. Scores of different systems need not mean the same, only rank: the report sets their
thresholds itself. All audio comes at the 16 kHz of ``degrade``; a system that wants another rate
resamples it.
"""

import csv
import itertools
import math
import re
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import soundfile
import soxr

from seqhash import audio, controls
from seqhash.band_codes import make_band_hasher
from seqhash.codes import Hasher, hash_streams
from seqhash.config import override
from seqhash.export import load_hasher, packaged
from seqhash.index.catalogue import Collection, Row
from seqhash.index.identify import Match, Searcher, make_searcher
from seqhash.robustness.baselines import haitsma, wang
from seqhash.robustness.degrade import SAMPLE_RATE

FLIPPED = 0.05  # share of a made-up distractor's bits
LISTED = "listed.txt"  # the paths in a folder of clips
Position = tuple[int, float]  # a recording's number, as it was added, and seconds


class System(Protocol):
    """A way to identify clips."""

    @property
    def name(self) -> str:
        """In tables."""

    @property
    def description(self) -> str:
        """One sentence."""

    @property
    def bytes_per_second(self) -> float:
        """Of fingerprint; NaN where that is not known."""

    @property
    def default_score(self) -> float:
        """An answer counts by the system's own rule where its score is at least this."""

    def add(self, recordings: Sequence[np.ndarray]) -> Any:
        """An index of recordings, float32 (samples,) at 16 kHz each."""

    def candidates(self, index: Any, clips: Sequence[np.ndarray]) -> list[list[Match]]:
        """For every clip what may be in it, best first, the system's threshold aside."""

    def bit_errors(
        self, index: Any, clip: np.ndarray, positions: Sequence[Position]
    ) -> list[float]:
        """Bit error rate of a clip against each of some positions in the index; nothing where there
        are no codes.
        """


@dataclass(frozen=True)
class Learned:
    """A hasher of this package, trained or not, searched as ``seqhash identify`` does."""

    name: str
    description: str
    hasher: Hasher
    weighted: bool = True  # the query's bits, where its hasher can
    variants: bool = True  # of the query are asked, where its hasher has some

    @property
    def bytes_per_second(self) -> float:
        """Of fingerprint."""
        return self.hasher.code_rate * self.hasher.bits / 8

    @property
    def default_score(self) -> float:
        """One false answer in a hundred."""
        return 2.0

    def add(self, recordings: Sequence[np.ndarray]) -> Searcher:
        """An index in memory."""
        streams = [map(self._heard, [samples]) for samples in recordings]  # one copy at a time
        return self.add_codes(hash_streams(self.hasher, streams))

    def hash_files(self, paths: Iterable[Path]) -> list[np.ndarray]:
        """Codes of recordings that can be read, uint32 (codes, words) of each."""
        rate = self.hasher.sample_rate
        return hash_streams(self.hasher, [audio.blocks(path, sample_rate=rate) for path in paths])

    def add_codes(self, words: Sequence[np.ndarray], works: Sequence[str] = ()) -> Searcher:
        """An index in memory from codes, uint32 (codes, words) of each recording; works: which of
        them are versions of one, if any.
        """
        rows = [
            Row(i, str(i), "", "", "", work, len(one) / self.hasher.code_rate, len(one), {})
            for i, (one, work) in enumerate(itertools.zip_longest(words, works, fillvalue=""))
        ]
        return make_searcher(
            self.hasher,
            rows,
            Collection.of(words),
            variants=self.variants,
            weighted=self.weighted,
        )

    def candidates(self, index: Searcher, clips: Sequence[np.ndarray]) -> list[list[Match]]:
        """All that is near; nothing for a clip that is shorter than a segment."""
        heard = map(self._heard, clips)
        return [index.candidates(clip) if self._has_codes(clip) else [] for clip in heard]

    def bit_errors(
        self, index: Searcher, clip: np.ndarray, positions: Sequence[Position]
    ) -> list[float]:
        """At the best of the searcher's shifts."""
        heard = self._heard(clip)
        if not self._has_codes(heard):
            return []
        words, starts = index.collection.words, index.collection.starts
        codes = self.hasher.hash_shifts([heard])
        return _bit_errors(words, starts, self.hasher.code_rate, codes, positions)

    def _heard(self, samples: np.ndarray) -> np.ndarray:
        """At the hasher's rate, as ``audio.read`` would give it."""
        if self.hasher.sample_rate == SAMPLE_RATE:
            return samples
        return soxr.resample(samples, SAMPLE_RATE, self.hasher.sample_rate, quality="HQ")

    def _has_codes(self, heard: np.ndarray) -> bool:
        return len(heard) >= self.hasher.shortest_seconds * self.hasher.sample_rate


@dataclass(frozen=True)
class Philips:
    """Haitsma & Kalker 2002."""

    name: str = "philips"
    description: str = (
        "Haitsma-Kalker sub-fingerprints, exhaustive search, threshold by the query's length"
    )
    config: haitsma.HaitsmaConfig = haitsma.DEFAULT

    @property
    def bytes_per_second(self) -> float:
        """Of fingerprint."""
        return haitsma.BITS / 8 * self.config.code_rate

    @property
    def default_score(self) -> float:
        """By the threshold of the config."""
        if self.config.threshold == "paper":
            return -self.config.bit_error_rate
        return -math.log10(self.config.false_positive_rate)

    def add(self, recordings: Sequence[np.ndarray]) -> haitsma.Fingerprints:
        """An index in memory."""
        return haitsma.add(recordings, config=self.config)

    def candidates(
        self, index: haitsma.Fingerprints, clips: Sequence[np.ndarray]
    ) -> list[list[Match]]:
        """All that is near; ranked by its bit error rate where the threshold is the paper's, which
        is one.
        """
        found = haitsma.identify(index, clips, config=self.config, all_candidates=True)
        if self.config.threshold == "length":
            return found
        ranked = [sorted(matches, key=lambda match: match.bit_error_rate) for matches in found]
        return [[m._replace(score=-m.bit_error_rate) for m in matches] for matches in ranked]

    def bit_errors(
        self, index: haitsma.Fingerprints, clip: np.ndarray, positions: Sequence[Position]
    ) -> list[float]:
        """Of all bits of the clip."""
        codes = haitsma.fingerprint(clip, config=self.config)
        return _bit_errors(index.words, index.starts, self.config.code_rate, [codes], positions)


@dataclass(frozen=True)
class Shazam:
    """Wang 2003."""

    name: str = "shazam"
    description: str = "Wang's landmarks, the significance of the best bin of time offsets"
    config: wang.WangConfig = wang.DEFAULT

    @property
    def default_score(self) -> float:
        """By the config's false-positive rate."""
        return -math.log10(self.config.false_positive_rate)

    @property
    def bytes_per_second(self) -> float:
        """Of fingerprint, at most: what a collection really has is
        ``Landmarks.bytes_per_second``.
        """
        return wang.BYTES * self.config.density * self.config.fan_out

    def add(self, recordings: Sequence[np.ndarray]) -> wang.Landmarks:
        """An index in memory."""
        return wang.add(recordings, config=self.config)

    def candidates(self, index: wang.Landmarks, clips: Sequence[np.ndarray]) -> list[list[Match]]:
        """All that shares a landmark."""
        return wang.identify(index, clips, all_candidates=True)

    def bit_errors(
        self, index: wang.Landmarks, clip: np.ndarray, positions: Sequence[Position]
    ) -> list[float]:
        """Landmarks are not codes of one rate."""
        return []


@dataclass(frozen=True)
class Outside:
    """Any program: it is given clips as files, and answers in a CSV.

    ``command`` is run by the shell once for each batch of clips, with these names put in, and no
    other braces changed: ``{references}`` and ``{clips}``, text files of paths of WAV files (16
    kHz, mono, 16 bit), one a line; ``{folder}``, where it may keep an index of the references
    between runs; ``{answers}``, the CSV to write: ``clip,track,offset,score`` with a header, paths
    as given, seconds of the track at the clip's start, a higher score being surer. A clip without a
    row is not found. Rows of one clip may be many.
    """

    name: str
    command: str
    folder: str
    description: str = "an outside program"
    bytes_per_second: float = float("nan")
    default_score: float = float("-inf")

    def add(self, recordings: Sequence[np.ndarray]) -> "References":
        """Writes the references, into a folder of their own."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="references-"))
        references = References(folder, _write_clips(folder, "reference", recordings))
        weakref.finalize(references, shutil.rmtree, folder, ignore_errors=True)
        return references

    def candidates(self, index: "References", clips: Sequence[np.ndarray]) -> list[list[Match]]:
        """What the program answers.

        Raises:
          ValueError: it fails (with the end of what it said), or its answers are not as they should
            be.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            paths, answers = _write_clips(Path(folder), "clip", clips), Path(folder) / "answers.csv"
            names = {
                "references": index.folder / LISTED,
                "clips": Path(folder) / LISTED,
                "folder": index.folder,
                "answers": answers,
            }
            command = re.sub(
                rf"\{{({'|'.join(names)})\}}",
                lambda found: shlex.quote(str(names[found[1]])),
                self.command,
            )
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            if done.returncode or not answers.is_file():
                raise ValueError(
                    f"{self.name}: {command} ended with {done.returncode}: {done.stderr[-500:]}"
                )
            with answers.open(newline="") as file:
                rows = list(csv.DictReader(file))
        matches: list[list[Match]] = [[] for _ in clips]
        for line, row in enumerate(rows, 2):
            try:
                clip, recording = paths.index(row["clip"]), index.paths.index(row["track"])
                seconds, score = float(row["offset"]), float(row["score"])
                if not math.isfinite(seconds + score):
                    raise ValueError("offset and score must be finite")
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.name}: line {line} of its answers, {row}: {error}"
                ) from None
            end = len(clips[clip]) / SAMPLE_RATE
            matches[clip].append(
                Match(recording, row["track"], "", 0.0, end, seconds, 0, float("nan"), score)
            )
        return [sorted(found, key=lambda match: -match.score) for found in matches]

    def bit_errors(
        self, index: "References", clip: np.ndarray, positions: Sequence[Position]
    ) -> list[float]:
        """An outside program keeps its codes to itself."""
        return []


@dataclass(frozen=True, eq=False)
class References:
    """An outside program's recordings. Their folder goes when this goes."""

    folder: Path
    paths: list[str]


def _write_clips(folder: Path, name: str, clips: Sequence[np.ndarray]) -> list[str]:
    """Writes WAV files and the list of them; returns their paths."""
    paths = [str(folder / f"{name}{i:06d}.wav") for i in range(len(clips))]
    for path, samples in zip(paths, clips, strict=True):
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    (folder / LISTED).write_text("".join(f"{path}\n" for path in paths))
    return paths


def _bit_errors(
    words: np.ndarray,
    starts: np.ndarray,
    rate: float,
    phases: Sequence[np.ndarray],
    positions: Sequence[Position],
) -> list[float]:
    """Bit error rates of a clip against positions in a collection, the least over the phases of the
    grid.

    Args:
      words, starts: the collection, as ``planar.build`` takes it.
      rate: codes a second.
      phases: codes of the clip, uint32 (codes, words) each, begun at several times inside one step
        of the grid.
      positions: to compare with; the code before and the one after count, since a clip need not
        begin on the grid.
    """
    rates = []
    for recording, seconds in positions:
        first, end, best = starts[recording] + int(seconds * rate), starts[recording + 1], 1.0
        for codes, lag in itertools.product(phases, (0, 1)):
            reference = words[first + lag : min(end, first + lag + len(codes))]
            if len(reference):
                different = int(np.bitwise_count(codes[: len(reference)] ^ reference).sum())
                best = min(best, different / (32 * reference.size))
        rates.append(best)
    return rates


def with_distractors(
    system: Learned,
    index: Searcher,
    others: Sequence[np.ndarray] = (),
    *,
    codes: int,
    seed: int,
) -> Searcher:
    """The index with other music in it, and with made-up music until it has so many codes more.

    What is made up is all of that played backwards, begun elsewhere, transposed where bits stand
    for bands (those at the edge come in at the other), and with a few bits flipped: codes hang
    together as those of music do, and no query is in them. Of one piece many are made; they are
    one work, so that they are not each other's strangers.

    Args:
      system, index: whose.
      others: uint32 (codes, words) of each recording of other music.
      codes: more than the index has; the others are in it, however many.
      seed: of what is made up.
    """
    rng = np.random.default_rng(seed)
    own = [index.collection.words[a:b] for a, b in itertools.pairwise(index.collection.starts)]
    pieces = {str(i): words for i, words in enumerate([*own, *others]) if len(words)}
    works, words = [str(i) for i in range(len(own) + len(others))], [*own, *others]
    count, sources = sum(map(len, others)), itertools.cycle(pieces)
    banded = system.hasher.config.encoder.front_end == "bands"
    while pieces and count < codes:
        works.append(next(sources))
        bits = np.unpackbits(pieces[works[-1]].view(np.uint8), axis=1, bitorder="little")
        places, bands = rng.integers(bits.shape)
        made = np.roll(bits[::-1], (places, bands if banded else 0), axis=(0, 1))
        made ^= rng.random(made.shape) < FLIPPED
        words.append(np.packbits(made, axis=1, bitorder="little").view("<u4"))
        count += len(made)
    return system.add_codes(words, works)


def untrained(hasher: Hasher) -> Learned:
    """The control of a hasher that has its config and statistics, and no training."""
    if hasher.config.encoder.front_end == "bands":
        described = "unlearned differences of the same bands"
        return Learned("untrained", described, controls.difference(hasher.config))
    control = controls.untrained(jax.random.key(0), hasher.config, hasher.statistics)
    return Learned("untrained", "the same LSTM with its initial weights", control)


def projection(hasher: Hasher) -> Learned:
    """The control of a hasher that has its config and statistics, and random weights."""
    if hasher.config.encoder.front_end == "bands":
        control = controls.random_kernel(jax.random.key(0), hasher.config)
        return Learned("projection", "a random kernel of the same bands", control)
    control = controls.random_projection(jax.random.key(0), hasher.config, hasher.statistics)
    return Learned("projection", "random projection of the MFCC segment", control)


NAMED: dict[str, Callable[[Hasher], System]] = {
    "hasher": lambda hasher: Learned(
        hasher.name, "this package's hasher, as seqhash identify searches it", hasher
    ),
    "bits": lambda hasher: Learned(
        "bits", "the same, by the bits of the query as it is alone", hasher, False, False
    ),
    "unweighted": lambda hasher: Learned(
        "unweighted", "the same, with all bits of the query alike", hasher, weighted=False
    ),
    "as it is": lambda hasher: Learned(
        "as it is", "the same, without variants of the query", hasher, variants=False
    ),
    "untrained": untrained,
    "projection": projection,
    "philips": lambda _: Philips(),
    "philips-paper": lambda _: Philips(
        "philips-paper",
        "Haitsma-Kalker as published: looked up with 10 flipped bits, bit error rate of 0.35",
        haitsma.PAPER,
    ),
    "philips-transposed": lambda _: Philips(
        "philips-transposed",
        "philips, its queries searched shifted by up to two semitones as well",
        haitsma.TRANSPOSED,
    ),
    "shazam": lambda _: Shazam(),
    "shazam-paper": lambda _: Shazam(
        "shazam-paper", "Wang's landmarks, queries analysed as references are", wang.PAPER
    ),
    "shazam-sparse": lambda _: Shazam(
        "shazam-sparse", "Wang's landmarks, as few as audfprint's defaults", wang.SPARSE
    ),
}


def named(name: str, hasher: Hasher) -> System:
    """A system of the package, or one of its hashers; those of ``NAMED`` that learn, or do not, are
    of this hasher. ``hasher:patch.hop=4`` is this hasher of bands with a field changed, its weights
    as they are: half as many codes a second.

    Raises:
      ValueError: there is none of this name.
    """
    if name.startswith("hasher:") and hasher.config.encoder.front_end == "bands":
        change = name.removeprefix("hasher:")
        config = override(hasher.config, [change])
        changed = make_band_hasher(config, hasher.params, name=f"{hasher.name} {change}")
        return Learned(changed.name, f"the same weights with {change}", changed)
    if name in NAMED:
        return NAMED[name](hasher)
    if name in packaged() or (Path(name) / "hasher.json").is_file():
        other = load_hasher(name)
        return Learned(other.name, f"the hasher {other.name}", other)
    known = ", ".join([*NAMED, *packaged()])
    raise ValueError(f"Unknown system {name!r}; there are {known}.")


def outside(text: str, folder: Path) -> Outside:
    """The program of ``NAME=COMMAND``; its files go into a folder of its name.

    Raises:
      ValueError: it is not written so, or the command could not be asked or could not answer.
    """
    name, _, command = text.partition("=")
    if not re.fullmatch(r"[\w.+-]+", name) or not command.strip():
        raise ValueError(
            f"--outside must be NAME=COMMAND, NAME of letters and digits, got {text!r}."
        )
    missing = [f"{{{part}}}" for part in ("clips", "answers") if f"{{{part}}}" not in command]
    if missing:
        raise ValueError(f"--outside={name}: the command must have {' and '.join(missing)} in it.")
    return Outside(name, command, str(folder / name))
