"""Hashers of bands: samples to words by a function that all bands share (``equivariant``).

A recording is walked in pieces of frames, so memory is bounded and one program serves all lengths;
the codes are those of the whole recording. A query is hashed at both beginnings inside a hop, and
it may know more than its bits: how much each of them counts (``weighted``), and what its bits would
be if it had been transposed or played at another tempo (``Variant``). The index knows of none of
this: it holds bits.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqhash import bands, equivariant, parallel, patches
from seqhash.codes import AS_IS, Hasher, Variant, check_samples, pack
from seqhash.config import BandsConfig, Config, HarmonyConfig, encoding_part
from seqhash.mfcc import Statistics
from seqhash.sizes import power_of_two

PIECE = 2_048  # frames hashed at a time: 64 s
LEAST = 64  # frames of the smallest program
PITCHES = 2  # semitones up and down that a query is asked as
STRETCH = 0.1  # of speed and tempo, up and down
DRIFT_SECONDS = 0.08  # that the ends of a query may lie off
LONGEST_SECONDS = 10.0  # of a query at once; longer ones are asked in windows
AS_IS_PRIOR = 0.8  # of a query to be as its recording is


@dataclass(frozen=True, eq=False, repr=False)
class BandHasher(Hasher):
    """A hasher whose codes are signs of a function that all bands share. Made by
    ``make_band_hasher``; what is said of ``Hasher`` holds.
    """

    @property
    def front_end(self) -> BandsConfig | HarmonyConfig:
        """What makes frames of samples."""
        return self.config.bands

    @property
    def sample_rate(self) -> int:
        """Hz of the samples it takes."""
        return self.front_end.sample_rate

    @property
    def hop(self) -> int:
        """Samples between the beginnings of two codes."""
        return self.config.patch.hop * self.config.bands.frame_step

    @property
    def span(self) -> int:
        """Samples that a code is computed from."""
        step = (self.config.patch.frames - 1) * self.config.bands.frame_step
        return step + self.config.bands.frame_length

    @property
    def segment_seconds(self) -> float:
        """Seconds from where a code begins to the end of what it sees."""
        before = self.config.patch.edge * self.config.bands.frame_step
        return (self.span - before) / self.sample_rate

    @property
    def shortest_seconds(self) -> float:
        """Seconds of the shortest recording that has a code."""
        frames = next(n for n in range(1, 10**6) if patches.code_count(n, self.config.patch))
        step = (frames - 1) * self.config.bands.frame_step
        return (step + self.config.bands.frame_length) / self.sample_rate

    @property
    def whole(self) -> bool:
        """Whether a recording is hashed as one stream."""
        return True

    @property
    def many_bits(self) -> bool:
        """Whether nearness is counted in deviations: these distances are nearly normal."""
        return True

    @property
    def shifts(self) -> int:
        """Beginnings inside one hop at which a query is hashed: one a frame."""
        return self.config.patch.hop

    def frames_of(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Bands (frames, bands) of samples that come in blocks."""
        return bands.stream(blocks, config=self.config.bands)

    def hash_samples(self, samples: np.ndarray) -> np.ndarray:
        """Words of a recording: float32 (samples,) in [-1, 1] at ``sample_rate`` -> uint32 (codes,
        words).

        ValueError where samples are not finite floats in one row.
        """
        return self.hash_blocks([check_samples(samples)])

    def hash_blocks(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """``hash_samples`` of a recording of any length that comes in blocks, in bounded memory."""
        return self._hash_frames(bands.pieces(blocks, config=self.config.bands))

    def hash_frames(self, frames: np.ndarray) -> np.ndarray:
        """Words of the bands (frames, bands) of a whole recording."""
        return self._hash_frames([frames])

    def hash_many(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """``hash_samples`` of several recordings, on a CPU each in a thread."""
        if self._platform == "cpu":
            return parallel.map_all(self.hash_samples, recordings)
        return [self.hash_samples(samples) for samples in recordings]

    def hash_shifts(
        self, blocks: Iterable[np.ndarray], *, shifts: int | None = None
    ) -> list[np.ndarray]:
        """Words of a query at each shift: shift i begins i / (code_rate * shifts) s later.

        Args:
          blocks: the samples, float32 (any,) in order; what is held of them is their bands.
          shifts: beginnings inside one hop, which they must divide; ``self.shifts`` where None.

        Raises:
          ValueError: the query has no code, or the shifts do not divide the hop.
        """
        return self.hash_query(self.frames_of(blocks), shifts=shifts)

    def hash_query(
        self,
        frames: np.ndarray,
        *,
        shifts: int | None = None,
        variant: Variant = AS_IS,
        weighted: bool = False,
    ) -> list[np.ndarray]:
        """Words of a query at each shift.

        Args:
          frames: its bands, (frames, bands), as ``frames_of`` gives them.
          shifts: beginnings inside one hop, which they must divide; ``self.shifts`` where None.
          variant: as which it is asked.
          weighted: with the weights of the bits, two planes beside the words.

        Returns:
          uint32 (codes, words) of each shift, or (codes, 3 words) where it is weighted, which is
          what ``search.hamming`` takes. Fewer shifts where the query has fewer codes.

        Raises:
          ValueError: the query has no code, or the shifts do not divide the hop.
        """
        shifts, hop = shifts or self.shifts, self.hop // self.front_end.frame_step
        if hop % shifts:
            raise ValueError(f"shifts must divide the hop of {hop} frames, got {shifts}.")
        heard, words_of = self._asked(frames, variant)
        starts = range(0, hop, hop // shifts)
        found = [words_of([heard[i:]], weighted=weighted) for i in starts if len(heard) > i]
        found = [codes for codes in found if len(codes)]
        if not found:
            made = self.front_end
            length = max(0, len(frames) - 1) * made.frame_step + made.frame_length
            seconds = length * (len(frames) > 0) / self.sample_rate
            raise ValueError(
                f"A query must be at least {self.shortest_seconds:.3g} s long, got {seconds:.3g} s."
            )
        return found

    def views(
        self, blocks: Iterable[np.ndarray], *, shifts: int | None = None, weighted: bool = True
    ) -> Iterator[tuple[Variant, list[np.ndarray]]]:
        """A query's codes at each shift, as it is and then as each other variant.

        Args:
          blocks: the samples, float32 (any,) in order; what is held of them are their frames.
          shifts: beginnings inside one hop, which they must divide; ``self.shifts`` where None.
          weighted: with the weights of the bits.
        """
        frames = self.frames_of(blocks)
        for variant in self._variants(len(frames)):
            asked = self.hash_query(frames, shifts=shifts, variant=variant, weighted=weighted)
            yield variant, asked

    def _variants(self, frames: int) -> list[Variant]:
        """As what a query of so many frames is asked."""
        return variants(frames, self.config)

    def _asked(
        self, frames: np.ndarray, variant: Variant
    ) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
        """A query's frames as its recording would have them, and what makes words of them."""
        return as_played(frames, variant, self.config), self._hash_frames

    def states_of(self, frames: np.ndarray) -> np.ndarray:
        """States before the threshold, float32 (codes, bits), of a whole recording's bands."""
        padded = patches.repeat_edges(frames, self.config.patch)
        return np.asarray(_states(self._weights[0], padded, config=encoding_part(self.config)))

    def _hash_frames(self, arrays: Iterable[np.ndarray], *, weighted: bool = False) -> np.ndarray:
        """Words of a recording's bands that come in arrays (any, bands)."""
        config = encoding_part(self.config)
        parts = [np.zeros((0, self.words * (3 if weighted else 1)), np.uint32)]
        for piece in _pieces(arrays, config):
            codes = (len(piece) - config.patch.frames) // config.patch.hop + 1
            size = max(LEAST, power_of_two(len(piece)))
            padded = np.pad(piece, ((0, size - len(piece)), (0, 0)))
            made = _words(
                self._weights[0], padded, np.int32(codes), config=config, weighted=weighted
            )
            parts.append(np.asarray(made)[:codes])
        return np.concatenate(parts)


def make_band_hasher(config: Config, params: Any, *, name: str) -> BandHasher:
    """A hasher from the parameters of an encoder that all bands share.

    Args:
      config: of front end, patches and encoder; ``encoder.front_end`` is bands.
      params: of ``equivariant.init_params`` or ``pairs.train_pairs``.
      name: shown beside results and stored in an index.
    """
    if config.encoder.front_end != "bands":
        raise ValueError(
            f"A band hasher needs encoder.front_end=bands, got {config.encoder.front_end}."
        )
    nothing = np.zeros(0, np.float32)  # neither statistics nor thresholds but 0
    thresholds = np.zeros(config.patch.bits, np.float32)
    return BandHasher(
        name, config, params, Statistics(nothing, nothing), thresholds, equivariant.encode
    )


def variants(frames: int, config: Config) -> list[Variant]:
    """As what a query of so many frames is asked: as it is, transposed by up to PITCHES semitones,
    played at other speeds, which moves pitch and tempo, and at other tempi.

    Tempi lie so near to each other that the ends of the query are off by DRIFT_SECONDS at most,
    speeds besides so near that the bands between are off by half a semitone.
    """
    seconds = frames * config.bands.frame_step / config.bands.sample_rate
    seconds, most = min(seconds, LONGEST_SECONDS), math.log(1 + STRETCH)
    drift = seconds / 2 * most  # of the ends, where nothing but the tempo as it is is asked
    steps = 0 if drift <= DRIFT_SECONDS else math.ceil(drift / (2 * DRIFT_SECONDS))
    tempi = [math.exp(most * i / steps) for i in range(-steps, steps + 1) if i]
    steps = max(2, steps)
    speeds = [math.exp(most * i / steps) for i in range(-steps, steps + 1) if i]
    others = [
        *((float(pitch), 1.0) for pitch in range(-PITCHES, PITCHES + 1) if pitch),
        *((12 * math.log2(speed), speed) for speed in speeds),
        *((0.0, tempo) for tempo in tempi),
    ]
    share = (1 - AS_IS_PRIOR) / len(others)
    return [Variant(prior=AS_IS_PRIOR), *(Variant(*other, share) for other in others)]


def as_played(frames: np.ndarray, variant: Variant, config: Config) -> np.ndarray:
    """Bands of a query as its recording would have them: moved back by what the variant says.

    Frames overlap by two thirds and bands are as far apart as they are wide, so both are
    interpolated linearly in between.

    Args:
      frames: float32 (frames, bands) of the query.
      variant: what was done to it.
      config: of the bands.

    Returns:
      float32 (about frames * variant.tempo, bands); bands that would come from outside repeat the
      last one.
    """
    if len(frames) == 0 or (variant.pitch == 0 and variant.tempo == 1):
        return frames
    count = max(1, round((len(frames) - 1) * variant.tempo) + 1)
    time = np.minimum(np.arange(count) / variant.tempo, len(frames) - 1)
    band = np.arange(config.bands.bands) + variant.pitch * config.bands.bands_per_octave / 12
    band = np.clip(band, 0, config.bands.bands - 1)
    return _interpolated(_interpolated(frames, time).T, band).T.astype(np.float32)


def _interpolated(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows at places between them, (places, columns)."""
    below = np.minimum(places.astype(np.int64), len(rows) - 1)
    share = (places - below)[:, None].astype(np.float32)
    return (1 - share) * rows[below] + share * rows[np.minimum(below + 1, len(rows) - 1)]


def _pieces(arrays: Iterable[np.ndarray], config: Config) -> Iterator[np.ndarray]:
    """Frames of whole codes, the recording's edges repeated: PIECE of them, then the rest, each
    piece beginning with the first frame of a code.
    """
    patch = config.patch
    advance = ((PIECE - patch.frames) // patch.hop + 1) * patch.hop
    pending = np.zeros((0, config.bands.bands), np.float32)
    begun = False
    for frames in arrays:
        if len(frames) and not begun:
            begun, pending = True, np.repeat(frames[:1], patch.edge, axis=0)
        pending = np.concatenate([pending, frames])
        while len(pending) > PIECE:  # more than a piece: this one is not the last
            yield pending[:PIECE]
            pending = pending[advance:]
    if begun:
        pending = np.concatenate([pending, np.repeat(pending[-1:], patch.edge, axis=0)])
    while len(pending) >= patch.frames:
        yield pending[:PIECE]
        pending = pending[advance:]


@functools.partial(jax.jit, static_argnames=("config",))
def _states(params: Any, padded: jax.Array, *, config: Config) -> jax.Array:
    return equivariant.encode(params, padded, config=config)


@functools.partial(jax.jit, static_argnames=("config", "weighted"))
def _words(
    params: Any, padded: jax.Array, codes: jax.Array, *, config: Config, weighted: bool
) -> jax.Array:
    """Words of frames (frames, bands) of which the first ``codes`` count, and their weights."""
    states = equivariant.encode(params, padded, config=config)
    words = pack(states > 0)
    if not weighted:
        return words
    return jnp.concatenate([words, *map(pack, weight_planes(states, codes))], axis=1)


def weight_planes(states: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights 0 to 3 of the bits of a query, as two planes of bits that weigh 1 and 2.

    If P(bit is wrong) falls as a logistic function of |state|, the log-likelihood ratio of a bit is
    in proportion to |state|; here round(3 tanh(|h| / mean |h|)), the mean over the query.

    Args:
      states: float32 (rows, bits).
      codes: rows that count.

    Returns:
      bool (rows, bits) twice.
    """
    size = jnp.abs(states)
    there = (jnp.arange(len(states)) < codes)[:, None]
    mean = jnp.sum(jnp.where(there, size, 0)) / jnp.maximum(codes * states.shape[1], 1)
    weight = jnp.round(3 * jnp.tanh(size / (mean + 1e-9))).astype(jnp.int32)
    return weight % 2 == 1, weight >= 2
