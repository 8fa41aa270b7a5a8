"""States to bits to words, and the hasher: samples to words as one jitted program (paper, III,
hashing).

A code is ``uint32 (words,)``: bit j of word i is bit 32 i + j of the state's signs, which is
``np.packbits(bits, bitorder="little").view("<u4")``.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqhash import audio, mfcc, parallel
from seqhash.config import Config, encoding_part, identity
from seqhash.sizes import power_of_two, round_up

SHIFT_SECONDS = 0.05  # between two shifts of a query, about: a fifth of the paper's hop
SHIFTS = 5  # at most
PIECE_SECONDS = 60.0  # of codes: every longer recording uses one compiled program
PIECES = 10  # hashed at a time
_PLACES = np.arange(32, dtype=np.uint32)  # of the bits in a word

# encode(params, segments (batch, frames, coeffs), config=...) -> (batch, bits). A function of a
# module: programs are cached by its identity, so a lambda or a ``partial`` made anew each time is
# compiled anew each time.
Encode = Callable[..., jax.Array]


def threshold(states: jax.Array, thresholds: jax.Array) -> jax.Array:
    """Bits (..., hidden): state > threshold (the paper's is 0: H > 0 -> 1, H <= 0 -> 0)."""
    return states > jnp.reshape(thresholds, (1,) * (states.ndim - 1) + (-1,))


def pack(bits: jax.Array) -> jax.Array:
    """bool (..., bits) -> uint32 (..., bits / 32), bit j of word i being bit 32 i + j."""
    if bits.shape[-1] % 32:
        raise ValueError(f"The number of bits must be a multiple of 32, got {bits.shape[-1]}.")
    grouped = bits.reshape(*bits.shape[:-1], -1, 32).astype(jnp.uint32)
    return jnp.sum(grouped << _PLACES.reshape((1,) * bits.ndim + (32,)), axis=-1, dtype=jnp.uint32)


def unpack(words: jax.Array) -> jax.Array:
    """Inverse of ``pack``: uint32 (..., words) -> bool (..., 32 words)."""
    bits = (words[..., None] >> _PLACES.reshape((1,) * words.ndim + (32,))) & jnp.uint32(1)
    return bits.reshape(*words.shape[:-1], -1).astype(bool)


class Variant(NamedTuple):
    """A query as it would be if it had been played otherwise."""

    pitch: float = 0.0  # semitones by which the query lies above its recording
    tempo: float = 1.0  # times as fast as its recording
    prior: float = 1.0  # how likely that is before anything is heard; those of all sum to 1

    @property
    def changed(self) -> bool:
        """Whether it is not the query as it is."""
        return self.pitch != 0 or self.tempo != 1


AS_IS = Variant()


@dataclass(frozen=True, eq=False, repr=False)
class Hasher:
    """A function from samples to words, with a name, a code rate and an identity. Made by
    ``make_hasher``.

    ``hash_samples``, ``hash_many``, ``hash_shifts`` and ``hash_cepstra`` give uint32 (codes,
    words); code i stands for the ``segment_seconds`` that begin i / code_rate seconds into the
    recording. The programs behind them are compiled once for each power of two of recording
    length, whatever the length inside it; the weights are put on the device once, and the
    programs run there.
    """

    name: str
    config: Config
    params: Any
    statistics: mfcc.Statistics
    thresholds: np.ndarray  # (hidden,)
    encode: Encode

    def __repr__(self) -> str:
        rate = f"{self.code_rate:g} codes a second of {self.sample_rate} Hz"
        return f"{type(self).__name__}({self.name!r}: {self.bits} bits, {rate}, {self.digest[:12]})"

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return len(self.thresholds)

    @property
    def words(self) -> int:
        """uint32 words of a code."""
        return self.bits // 32

    @property
    def sample_rate(self) -> int:
        """Hz of the samples it takes."""
        return self.config.mfcc.sample_rate

    @property
    def code_rate(self) -> float:
        """Codes a second."""
        return self.config.code_rate

    @property
    def hop(self) -> int:
        """Samples between the beginnings of two codes."""
        return self.config.segment.hop * self.config.mfcc.frame_step

    @property
    def span(self) -> int:
        """Samples that a code is computed from, besides the one before them."""
        before = self.config.segment.frames - 1
        return before * self.config.mfcc.frame_step + self.config.mfcc.frame_length

    @property
    def segment_seconds(self) -> float:
        """Seconds that a code stands for."""
        return self.config.segment_seconds

    @property
    def shortest_seconds(self) -> float:
        """Seconds of the shortest recording that has a code."""
        return mfcc.shortest_seconds(self.config.segment.frames, config=self.config.mfcc)

    @property
    def whole(self) -> bool:
        """Whether a code depends on all of its recording, and not only on its span."""
        return self.config.segment.normalisation == "recording"

    @property
    def many_bits(self) -> bool:
        """Whether a window has so many effective bits that its distances to anything are nearly
        normal, and nearness is best counted in their deviations (``index.calibration``).
        """
        return False

    @property
    def shifts(self) -> int:
        """Beginnings inside one hop at which a query is hashed: the divisor of the hop's frames, of
        those up to SHIFTS, that brings two of them nearest to SHIFT_SECONDS apart (1, 2, 4, 5 for
        hops of 7, 10, 32 and 25 or 50 frames of 10 ms).
        """
        divisors = [n for n in range(1, SHIFTS + 1) if self.config.segment.hop % n == 0]
        wanted = np.log(self.hop / self.sample_rate / SHIFT_SECONDS)
        return min(divisors, key=lambda n: abs(np.log(n) - wanted))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides a bit: config, weights, statistics, thresholds."""
        training = ("train.", "pairs.", "augment.")
        flat = {k: v for k, v in identity(self.config).items() if not k.startswith(training)}
        digest = hashlib.sha256(json.dumps([self.encode.__name__, flat], sort_keys=True).encode())
        leaves = jax.tree_util.tree_leaves_with_path(
            (self.params, tuple(self.statistics), self.thresholds)
        )
        for path, leaf in leaves:
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf, "<f4").tobytes())
        return digest.hexdigest()

    def hash_samples(self, samples: np.ndarray) -> np.ndarray:
        """Words of a recording: float32 (samples,) in [-1, 1] at ``sample_rate`` -> uint32 (codes,
        words).

        A recording shorter than a segment has no codes. ValueError where samples are not finite
        floats in one row: a NaN would hash to zeros without a word.
        """
        samples = check_samples(samples)
        count = mfcc.frame_count(len(samples), self.config.mfcc)
        frames = _bucket(count)
        padded = np.zeros(mfcc.padded_length(frames, self.config.mfcc), np.float32)
        padded[1 : len(samples) + 1] = samples
        words = self._from_samples(
            _words_of_samples, padded, np.int32(len(samples)), np.int32(count), frames
        )
        return words[: mfcc.segment_count(count, config=self.config.segment)]

    def hash_many(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """``hash_samples`` of several recordings.

        On a CPU each in a thread. Elsewhere all of them in one batch, padded to the longest, where
        a state within float rounding of its threshold may fall on the other side.
        """
        if self._platform == "cpu":
            return parallel.map_all(self.hash_samples, recordings)
        return self._hash_stacked(recordings)

    def hash_shifts(
        self, blocks: Iterable[np.ndarray], *, shifts: int | None = None
    ) -> list[np.ndarray]:
        """Words of a query at each shift: a query's segments do not lie on the reference's grid.

        Args:
          blocks: the samples, float32 (any,) in order; what is held of them is their cepstra.
          shifts: beginnings inside one hop, which they must divide; ``self.shifts`` where None.

        Returns:
          uint32 (codes, words) of each shift; those of shift i begin i / (code_rate * shifts) s
          later. Fewer shifts where the query has fewer codes at all of them together.

        Raises:
          ValueError: the query has no code, or the shifts do not divide the hop.
        """
        shifts = shifts or self.shifts
        cepstra = mfcc.stream(blocks, config=self.config.mfcc)
        words = self._from_cepstra(_words_of_cepstra, cepstra, _finer(self.config, shifts))
        if not len(words):
            step = 1000 * self.config.mfcc.frame_step / self.sample_rate
            raise ValueError(
                f"A query must be longer than {self.segment_seconds:g} s, "
                f"got {len(cepstra)} frames of {step:g} ms."
            )
        return [words[shift::shifts] for shift in range(min(shifts, len(words)))]

    def views(
        self, blocks: Iterable[np.ndarray], *, shifts: int | None = None, weighted: bool = True
    ) -> Iterator[tuple[Variant, list[np.ndarray]]]:
        """A query's codes at each shift, as it is and then as each variant that is to be asked.

        The paper's codes know neither weights of their bits nor variants.
        """
        del weighted
        yield AS_IS, self.hash_shifts(blocks, shifts=shifts)

    def _hash_stacked(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One program for all; compiled for powers of two of their number and of the longest's
        length.
        """
        lengths = [len(samples) for samples in recordings]
        counts = [mfcc.frame_count(length, self.config.mfcc) for length in lengths]
        frames = _bucket(max(counts, default=0))
        height = power_of_two(len(recordings))
        padded = np.zeros((height, mfcc.padded_length(frames, self.config.mfcc)), np.float32)
        valid, valid_frames = np.zeros((2, height), np.int32)
        valid[: len(lengths)], valid_frames[: len(counts)] = lengths, counts
        for row, samples in enumerate(recordings):
            padded[row, 1 : len(samples) + 1] = check_samples(samples)
        words = self._from_samples(_words_of_stacked, padded, valid, valid_frames, frames)
        segments = [mfcc.segment_count(count, config=self.config.segment) for count in counts]
        return [row[:count] for row, count in zip(words, segments, strict=False)]

    def hash_cepstra(self, cepstra: np.ndarray) -> np.ndarray:
        """Words of the cepstra (frames, coeffs) of a whole recording, as ``mfcc.stream`` gives
        them.
        """
        return self._from_cepstra(_words_of_cepstra, cepstra, self.config)

    def hash_blocks(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """``hash_samples`` of a recording that comes in blocks; its cepstra are held."""
        return self.hash_cepstra(mfcc.stream(blocks, config=self.config.mfcc))

    def states_of(self, cepstra: np.ndarray) -> np.ndarray:
        """States before the threshold, float32 (codes, hidden), of a whole recording's cepstra
        (frames, coeffs).
        """
        return self._from_cepstra(_states_of_cepstra, cepstra, self.config)

    @functools.cached_property
    def _placed(self) -> dict[str, tuple[Any, mfcc.Statistics, jax.Array]]:
        """Weights by the default device that they were put on."""
        return {}

    @property
    def _weights(self) -> tuple[Any, mfcc.Statistics, jax.Array]:
        """Params, statistics and thresholds on the default device, put there once."""
        device = str(jax.config.jax_default_device)  # type: ignore[attr-defined]
        if device not in self._placed:
            self._placed[device] = jax.device_put((self.params, self.statistics, self.thresholds))
        return self._placed[device]

    @property
    def _platform(self) -> str:
        """Of the device that the weights are on."""
        return next(iter(self._weights[2].devices())).platform

    def _static(self, config: Config) -> dict[str, Any]:
        """What a program is compiled for, besides shapes."""
        chunk = segment_chunk(config, platform=self._platform)
        return {"encode": self.encode, "config": encoding_part(config), "chunk": chunk}

    def _from_samples(
        self,
        program: Callable[..., jax.Array],
        padded: np.ndarray,
        valid: np.ndarray | np.integer,
        count: np.ndarray | np.integer,
        frames: int,
    ) -> np.ndarray:
        static = self._static(self.config)
        return np.asarray(program(*self._weights, padded, valid, count, frames=frames, **static))

    def _from_cepstra(
        self, program: Callable[..., jax.Array], cepstra: np.ndarray, config: Config
    ) -> np.ndarray:
        count = len(cepstra)
        padded = np.zeros((_bucket(count), cepstra.shape[1]), np.float32)
        padded[:count] = cepstra
        values = program(*self._weights, padded, np.int32(count), **self._static(config))
        return np.asarray(values)[: mfcc.segment_count(count, config=config.segment)]


def make_hasher(
    config: Config,
    params: Any,
    statistics: mfcc.Statistics,
    *,
    name: str,
    medians: np.ndarray | None = None,
    encode: Encode | None = None,
) -> Hasher:
    """A hasher from parameters.

    Args:
      config: of the features, segments, model and threshold.
      params: the encoder's parameters.
      statistics: of the training frames, (coeffs,) each.
      name: shown beside results and stored in an index.
      medians: (hidden,) of the training states; needed where config.code.threshold is ``median``.
      encode: ``encode(params, segments, config=encoding_part(config)) -> (batch, bits)``, of
        a floor; of the paper's model where None. A function of a module, since programs are cached
        by its identity.
    """
    if encode is None:  # here, since flax takes a tenth of a first answer, and bands do without it
        from seqhash import autoencoder

        encode = autoencoder.encode
    if config.code.threshold == "median" and medians is None:
        raise ValueError(
            "code.threshold=median needs the medians of the training states, got none."
        )
    shape = (1, config.segment.frames, config.mfcc.coeffs)
    bits = jax.eval_shape(functools.partial(encode, config=config), params, jnp.zeros(shape)).shape[
        -1
    ]
    thresholds = medians if config.code.threshold == "median" else np.zeros(bits)
    statistics = mfcc.Statistics(
        np.asarray(statistics.mean, np.float32), np.asarray(statistics.std, np.float32)
    )
    return Hasher(name, config, params, statistics, np.asarray(thresholds, np.float32), encode)


def hash_streams(hasher: Hasher, streams: Sequence[Iterable[np.ndarray]]) -> list[np.ndarray]:
    """``Hasher.hash_many`` of recordings of any length that come in blocks, in the memory of
    ``PIECES`` pieces of them.

    Pieces overlap by what a code spans, so that the codes are those of the whole recording. Where
    these depend on all of it (``Hasher.whole``) its cepstra are held, 19 MB an hour.

    Args:
      hasher: samples -> words.
      streams: of each recording float32 (any,) arrays at the hasher's rate, in order. One is read
        after the other.

    Returns:
      uint32 (codes, words) of each.
    """
    if hasher.whole:
        return [hasher.hash_blocks(blocks) for blocks in streams]
    pieces = ((i, piece) for i, blocks in enumerate(streams) for piece in _pieces(blocks, hasher))
    parts: list[list[np.ndarray]] = [[] for _ in streams]
    while batch := list(islice(pieces, PIECES)):
        hashed = hasher.hash_many([piece for _, piece in batch])
        for (i, _), words in zip(batch, hashed, strict=True):
            # A piece's first code is the last one of the piece before, where its first frame knew
            # the sample before it.
            parts[i].append(words[1:] if parts[i] else words)
    return [np.concatenate(part) for part in parts]


def _pieces(blocks: Iterable[np.ndarray], hasher: Hasher) -> Iterator[np.ndarray]:
    """Samples of PIECE_SECONDS of codes and then of the rest, each piece beginning with the last
    code of the one before.
    """
    advance = max(1, round(PIECE_SECONDS * hasher.code_rate) - 1) * hasher.hop
    pending = np.zeros(0, np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > advance + hasher.span:  # more than a piece: this one is not the last
            yield pending[: advance + hasher.span]
            pending = pending[advance:]
    yield pending


def check_samples(samples: np.ndarray) -> np.ndarray:
    """The samples as float32, or a ValueError that says what they should be."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            "Samples must be mono floats (samples,) in [-1, 1], "
            f"got {samples.dtype} {samples.shape}."
        )
    if wrong := audio.unusable(samples):
        raise ValueError(f"Samples must be finite and in [-1, 1], got {wrong}.")
    return samples.astype(np.float32)


def segment_chunk(config: Config, *, platform: str) -> int:
    """Segments encoded at a time, the LSTM's batch: what is computed for nothing is less than one
    chunk.

    A dozen are as quick each as 64 on a CPU whose cache holds the weights, which ends between 128
    and 256 units.
    """
    return 12 if platform == "cpu" and config.model.hidden_size <= 128 else 64


@functools.lru_cache(maxsize=64)
def _finer(config: Config, shifts: int) -> Config:
    """The config with so many codes where it has one."""
    hop, rest = divmod(config.segment.hop, shifts)
    if rest:
        raise ValueError(
            f"shifts must divide the hop of {config.segment.hop} frames, got {shifts}."
        )
    return replace(config, segment=replace(config.segment, hop=hop))


def _bucket(frames: int) -> int:
    """The power of two, at least a CHUNK, that holds that many frames."""
    return max(mfcc.CHUNK, power_of_two(frames))


def _encode_recording(
    params: Any,
    statistics: mfcc.Statistics,
    cepstra: jax.Array,
    count: jax.Array,
    *,
    encode: Encode,
    config: Config,
    chunk: int,
) -> jax.Array:
    """States (rows, hidden) of padded cepstra (frames, coeffs); rows past the recording's segments
    are zero.
    """
    segment = config.segment
    if segment.normalisation == "recording":
        statistics = mfcc.frame_statistics(cepstra, count)
    rows = round_up(max(1, mfcc.segment_count(cepstra.shape[0], config=segment)), chunk)
    span = (chunk - 1) * segment.hop + segment.frames
    cepstra = jnp.pad(cepstra, ((0, span), (0, 0)))

    def one_chunk(index: jax.Array, states: jax.Array) -> jax.Array:
        piece = jax.lax.dynamic_slice_in_dim(cepstra, index * (chunk * segment.hop), span)
        segments = mfcc.normalise(
            mfcc.cut_segments(piece, config=segment), statistics, config=segment
        )
        state = encode(params, segments, config=config)
        return jax.lax.dynamic_update_slice_in_dim(states, state, index * chunk, 0)

    shape = (chunk, segment.frames, config.mfcc.coeffs)
    states = jax.eval_shape(functools.partial(encode, config=config), params, jnp.zeros(shape))
    segments = jnp.maximum(0, (count - segment.frames) // segment.hop + 1)
    chunks = (segments + chunk - 1) // chunk
    return jax.lax.fori_loop(0, chunks, one_chunk, jnp.zeros((rows, states.shape[-1]), jnp.float32))


@functools.partial(jax.jit, static_argnames=("encode", "config", "chunk"))
def _states_of_cepstra(
    params: Any,
    statistics: mfcc.Statistics,
    thresholds: jax.Array,
    cepstra: jax.Array,
    count: jax.Array,
    *,
    encode: Encode,
    config: Config,
    chunk: int,
) -> jax.Array:
    del thresholds
    return _encode_recording(
        params, statistics, cepstra, count, encode=encode, config=config, chunk=chunk
    )


@functools.partial(jax.jit, static_argnames=("encode", "config", "chunk"))
def _words_of_cepstra(
    params: Any,
    statistics: mfcc.Statistics,
    thresholds: jax.Array,
    cepstra: jax.Array,
    count: jax.Array,
    **static: Any,
) -> jax.Array:
    states = _states_of_cepstra(params, statistics, thresholds, cepstra, count, **static)
    return pack(threshold(states, thresholds))


@functools.partial(jax.jit, static_argnames=("frames", "encode", "config", "chunk"))
def _words_of_samples(
    params: Any,
    statistics: mfcc.Statistics,
    thresholds: jax.Array,
    padded: jax.Array,
    valid: jax.Array,
    count: jax.Array,
    *,
    frames: int,
    encode: Encode,
    config: Config,
    chunk: int,
) -> jax.Array:
    cepstra = mfcc.chunked(padded, valid, count, frames=frames, config=config.mfcc)
    states = _encode_recording(
        params, statistics, cepstra, count, encode=encode, config=config, chunk=chunk
    )
    return pack(threshold(states, thresholds))


@functools.partial(jax.jit, static_argnames=("frames", "encode", "config", "chunk"))
def _words_of_stacked(
    params: Any,
    statistics: mfcc.Statistics,
    thresholds: jax.Array,
    padded: jax.Array,
    valid: jax.Array,
    count: jax.Array,
    **static: Any,
) -> jax.Array:
    one = functools.partial(_words_of_samples, params, statistics, thresholds, **static)
    return jax.vmap(one)(padded, valid, count)
