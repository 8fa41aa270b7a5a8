"""Hashers of works: samples to words by a function that all pitch classes share (``equivariant``).

A code is a ring of twelve places, one a pitch class, of several bits each; bits past it are 0.
Music that is r semitones higher has the ring turned by r places (but for notes that leave their
octave), so an index holds one code for all keys and a query is asked as twelve rotations of its
own. The tuning of a recording or clip is estimated from all of it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqhash import equivariant, harmony
from seqhash.band_codes import BandHasher, weight_planes
from seqhash.codes import Variant, pack
from seqhash.config import Config, HarmonyConfig, encoding_part
from seqhash.mfcc import Statistics
from seqhash.sizes import power_of_two

KEYS = 12
SAME_KEY_PRIOR = 0.4  # of a query to be in the key of its recording: nearly half of all covers are
# of the bit of a query that is surest; two planes (``weight_planes``) are coarse at 1 s
WEIGHT = 31
OTHER_KEY = 2.5  # bits
PIECE = 2_048  # frames hashed at a time: 100 s
LEAST = 64  # frames of the smallest program


@dataclass(frozen=True, eq=False, repr=False)
class CoverHasher(BandHasher):
    """A hasher whose codes turn where the music is transposed. Made by ``make_cover_hasher``; what
    is said of ``Hasher`` holds.
    """

    @property
    def front_end(self) -> HarmonyConfig:
        """What makes frames of samples."""
        return self.config.harmony

    @property
    def hop(self) -> int:
        """Samples between the beginnings of two codes."""
        return self.config.harmony.hop * self.config.harmony.frame_step

    @property
    def span(self) -> int:
        """Samples that a code is computed from."""
        seen = self.config.harmony
        return (seen.steps * seen.step_frames - 1) * seen.frame_step + seen.frame_length

    @property
    def segment_seconds(self) -> float:
        """Seconds that a code stands for."""
        return self.span / self.sample_rate

    @property
    def shortest_seconds(self) -> float:
        """Seconds of the shortest recording that has a code."""
        return self.segment_seconds

    @property
    def shifts(self) -> int:
        """Beginnings inside one hop at which a query is hashed: a code smears over longer times."""
        return 1

    @property
    def ring(self) -> int:
        """Bits of the ring: a code's first ones."""
        return KEYS * self.config.harmony.bits

    def frames_of(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Powers (frames, thirds) of samples that come in blocks."""
        return harmony.stream(blocks, config=self.config.harmony)

    def hash_blocks(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """``hash_samples`` of a recording of any length that comes in blocks; its powers are held,
        63 MB an hour, since the tuning is that of all of it.
        """
        return self.hash_frames(self.frames_of(blocks))

    def _variants(self, frames: int) -> list[Variant]:
        """As it is and in the eleven other keys."""
        del frames
        return keys()

    def _asked(
        self, frames: np.ndarray, variant: Variant
    ) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
        """A query's powers, and what makes words of them in its recording's key and tuning.

        Raises:
          ValueError: the variant is of another tempo or between two semitones.
        """
        if variant.tempo != 1 or variant.pitch != round(variant.pitch):
            raise ValueError(f"A query is asked in whole semitones, got {variant}.")
        tuned = harmony.tuning(frames, config=self.config.harmony)
        return frames, functools.partial(self._hash_frames, tuning=tuned, pitch=variant.pitch)

    def states_of(self, frames: np.ndarray) -> np.ndarray:
        """States before the threshold, float32 (codes, ring), of a whole recording's powers."""
        config = encoding_part(self.config)
        shift = np.int32(harmony.tuning(frames, config=config.harmony))
        parts = [np.zeros((0, self.ring), np.float32)]
        for piece, codes in _pieces(frames, config):
            parts.append(np.asarray(_states(self._weights[0], piece, shift, config=config))[:codes])
        return np.concatenate(parts)

    def _hash_frames(
        self,
        arrays: Iterable[np.ndarray],
        *,
        weighted: bool = False,
        tuning: int | None = None,
        pitch: float = 0.0,
    ) -> np.ndarray:
        """Words of a recording's powers that come in arrays (any, thirds)."""
        config = encoding_part(self.config)
        nothing = np.zeros((0, bands_of(config)), np.float32)
        frames = np.concatenate([nothing, *arrays])
        tuned = harmony.tuning(frames, config=config.harmony) if tuning is None else tuning
        shift, turn = np.int32(tuned), np.int32(pitch)
        parts = [np.zeros((0, self.words * (3 if weighted else 1)), np.uint32)]
        for piece, codes in _pieces(frames, config):
            made = _words(
                self._weights[0], piece, shift, turn, codes, config=config, weighted=weighted
            )
            parts.append(np.asarray(made)[:codes])
        return np.concatenate(parts)


def make_cover_hasher(config: Config, params: Any, *, name: str) -> CoverHasher:
    """A hasher from the function that all pitch classes share.

    Args:
      config: of front end and encoder; ``encoder.front_end`` is harmony.
      params: of ``versions.train_versions``.
      name: shown beside results and stored in an index.
    """
    if config.encoder.front_end != "harmony":
        raise ValueError(
            f"A cover hasher needs encoder.front_end=harmony, got {config.encoder.front_end}."
        )
    nothing = np.zeros(0, np.float32)  # neither statistics nor thresholds but 0
    thresholds = np.zeros(32 * config.words, np.float32)
    return CoverHasher(
        name, config, params, Statistics(nothing, nothing), thresholds, equivariant.encode_harmony
    )


def keys() -> list[Variant]:
    """As what a query is asked: as it is, and up to half an octave higher or lower."""
    share = (1 - SAME_KEY_PRIOR) / (KEYS - 1)
    others = [Variant(float(pitch), 1.0, share) for pitch in range(-5, 7) if pitch]
    return [Variant(prior=SAME_KEY_PRIOR), *others]


def turned(states: np.ndarray, semitones: int) -> np.ndarray:
    """States or bits (..., ring) of a query as its recording would have them, the query being so
    many semitones above it: (..., ring).
    """
    places = states.shape[-1] // KEYS
    return np.roll(states, -semitones * places, axis=-1)


def asked(states: np.ndarray, *, weighted: bool) -> np.ndarray:
    """A query in twelve keys as ``metrics.tally_versions`` takes it: variant r is its bits, -1 and
    1, as its recording would have them if the query were r semitones above it.

    Args:
      states: float32 (codes, ring).
      weighted: bits times WEIGHT tanh(|h| / mean |h|), rounded, the mean over the query.

    Returns:
      int8 (12, codes, bits of a code), 0 past the ring.
    """
    signs = np.where(states > 0, 1.0, -1.0)
    if weighted and len(states):
        size = np.abs(states)
        signs *= np.rint(WEIGHT * np.tanh(size / (size.mean() + 1e-9)))
    rows = np.stack([turned(signs, semitones) for semitones in range(KEYS)])
    rest = -states.shape[-1] % 32
    return np.pad(rows, ((0, 0), (0, 0), (0, rest))).astype(np.int8)


def words_of(states: np.ndarray) -> np.ndarray:
    """Words of states: (codes, ring) -> uint32 (codes, words)."""
    bits = np.pad(states > 0, ((0, 0), (0, -states.shape[1] % 32)))
    return np.packbits(bits, axis=1, bitorder="little").view("<u4").astype(np.uint32)


def same_key(lengths: Sequence[int]) -> dict[int, np.ndarray]:
    """What is added to the distances of weighted windows of n codes in another key than their own,
    for ``metrics.tally_versions``: OTHER_KEY sqrt(n) bits of usual weight, as deviations grow.
    """
    other = np.arange(KEYS) > 0
    return {n: np.rint(other * OTHER_KEY * WEIGHT * np.sqrt(n)).astype(np.int64) for n in lengths}


def bands_of(config: Config) -> int:
    """Thirds of a semitone of a frame."""
    return harmony.fine(config.harmony).bands


def _pieces(frames: np.ndarray, config: Config) -> Iterator[tuple[np.ndarray, np.int32]]:
    """Padded frames of whole codes, and how many codes they have; each piece begins with the first
    frame of a code.
    """
    seen = config.harmony
    span = seen.steps * seen.step_frames
    advance = ((PIECE - span) // seen.hop + 1) * seen.hop
    for begin in range(0, max(0, len(frames) - span + 1), advance):
        piece = frames[begin : begin + PIECE]
        codes = (len(piece) - span) // seen.hop + 1
        size = max(LEAST, power_of_two(len(piece)))
        yield np.pad(piece, ((0, size - len(piece)), (0, 0))), np.int32(codes)


@functools.partial(jax.jit, static_argnames=("config",))
def _states(params: Any, powers: jax.Array, shift: jax.Array, *, config: Config) -> jax.Array:
    semitones = harmony.semitones(powers, shift, config=config.harmony)
    states = equivariant.encode_harmony(params, semitones, config=config)
    return states.reshape(len(states), -1)


@functools.partial(jax.jit, static_argnames=("config", "weighted"))
def _words(
    params: Any,
    powers: jax.Array,
    shift: jax.Array,
    turn: jax.Array,
    codes: jax.Array,
    *,
    config: Config,
    weighted: bool,
) -> jax.Array:
    """Words of powers (frames, thirds) of which the first ``codes`` count, turned back by ``turn``
    semitones, and their weights.
    """
    states = _states(params, powers, shift, config=config)
    states = jnp.roll(states, -turn * (states.shape[1] // KEYS), axis=1)
    rest = ((0, 0), (0, 32 * config.words - states.shape[1]))
    words = pack(jnp.pad(states > 0, rest))
    if not weighted:
        return words
    planes = (pack(jnp.pad(plane, rest)) for plane in weight_planes(states, codes))
    return jnp.concatenate([words, *planes], axis=1)
