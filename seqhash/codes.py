"""States to bits to words, and the hasher: samples to words as one jitted program (paper, III,
hashing).

A code is ``uint32 (words,)``: bit j of word i is bit 32 i + j of the state's signs, which is
``np.packbits(bits, bitorder="little").view("<u4")``.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqhash import audio, autoencoder, mfcc, parallel
from seqhash.config import Config, encoding_part, identity

_PLACES = np.arange(32, dtype=np.uint32)  # of the bits in a word

Encode = Callable[
    ..., jax.Array
]  # encode(params, segments (batch, frames, coeffs), config=...) -> (batch, bits)


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


@dataclass(frozen=True, eq=False)
class Hasher:
    """A function from samples to words, with a name, a code rate and an identity. Made by
    ``make_hasher``.

    ``hash_samples``, ``hash_many`` and ``hash_cepstra`` give uint32 (codes, words); code i stands
    for the segment that begins i / code_rate seconds into the recording. The programs behind them
    are compiled once for each power of two of recording length, whatever the length inside it.
    """

    name: str
    config: Config
    params: Any
    statistics: mfcc.Statistics
    thresholds: np.ndarray  # (hidden,)
    encode: Encode = field(repr=False)

    @property
    def code_rate(self) -> float:
        """Codes a second."""
        return self.config.code_rate

    @property
    def sample_rate(self) -> int:
        """Hz of the samples it takes."""
        return self.config.mfcc.sample_rate

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides a bit: config, weights, statistics, thresholds."""
        flat = {k: v for k, v in identity(self.config).items() if not k.startswith("train.")}
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
        if jax.default_backend() == "cpu":
            return parallel.map_all(self.hash_samples, recordings)
        return self._hash_stacked(recordings)

    def _hash_stacked(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One program for all; compiled for powers of two of their number and of the longest's
        length.
        """
        lengths = [len(samples) for samples in recordings]
        counts = [mfcc.frame_count(length, self.config.mfcc) for length in lengths]
        frames = _bucket(max(counts, default=0))
        height = 1 << (len(recordings) - 1).bit_length()
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
        return self._from_cepstra(_words_of_cepstra, cepstra)

    def states_of(self, cepstra: np.ndarray) -> np.ndarray:
        """States before the threshold, float32 (codes, hidden), of a whole recording's cepstra
        (frames, coeffs).
        """
        return self._from_cepstra(_states_of_cepstra, cepstra)

    def _from_samples(
        self, program: Callable[..., jax.Array], padded, valid, count, frames: int
    ) -> np.ndarray:
        arguments = (self.params, self.statistics, self.thresholds, padded, valid, count)
        return np.asarray(
            program(
                *arguments, frames=frames, encode=self.encode, config=encoding_part(self.config)
            )
        )

    def _from_cepstra(self, program: Callable[..., jax.Array], cepstra: np.ndarray) -> np.ndarray:
        count = len(cepstra)
        padded = np.zeros((_bucket(count), cepstra.shape[1]), np.float32)
        padded[:count] = cepstra
        arguments = (self.params, self.statistics, self.thresholds, padded, np.int32(count))
        values = program(*arguments, encode=self.encode, config=encoding_part(self.config))
        return np.asarray(values)[: mfcc.segment_count(count, config=self.config.segment)]


def make_hasher(
    config: Config,
    params: Any,
    statistics: mfcc.Statistics,
    *,
    name: str,
    medians: np.ndarray | None = None,
    encode: Encode = autoencoder.encode,
) -> Hasher:
    """A hasher from parameters.

    Args:
      config: of the features, segments, model and threshold.
      params: the encoder's parameters.
      statistics: of the training frames, (coeffs,) each.
      name: shown beside results and stored in an index.
      medians: (hidden,) of the training states; needed where config.code.threshold is ``median``.
      encode: ``encode(params, segments, config=encoding_part(config)) -> (batch, bits)``; the
        paper's model or a floor.
    """
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


def check_samples(samples: np.ndarray) -> np.ndarray:
    """The samples as float32, or a ValueError that says what they should be."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"Samples must be mono floats (samples,) in [-1, 1], got {samples.dtype} {samples.shape}."
        )
    if wrong := audio.unusable(samples):
        raise ValueError(f"Samples must be finite and in [-1, 1], got {wrong}.")
    return samples.astype(np.float32)


def segment_chunk(config: Config) -> int:
    """Segments encoded at a time, the LSTM's batch: what is computed for nothing is less than one
    chunk.

    A dozen are as quick each as 64 on a CPU whose cache holds the weights, which ends between 128
    and 256 units.
    """
    return 12 if jax.default_backend() == "cpu" and config.model.hidden_size <= 128 else 64


def _bucket(frames: int) -> int:
    """The power of two of CHUNKs that holds that many frames."""
    return mfcc.CHUNK * (1 << max(0, -(-frames // mfcc.CHUNK) - 1).bit_length())


def _encode_recording(
    params, statistics, cepstra, count, *, encode: Encode, config: Config
) -> jax.Array:
    """States (rows, hidden) of padded cepstra (frames, coeffs); rows past the recording's segments
    are zero.
    """
    segment = config.segment
    if segment.normalisation == "recording":
        statistics = mfcc.frame_statistics(cepstra, count)
    chunk = segment_chunk(config)
    rows = -(-max(1, mfcc.segment_count(cepstra.shape[0], config=segment)) // chunk) * chunk
    span = (chunk - 1) * segment.hop + segment.frames
    cepstra = jnp.pad(cepstra, ((0, span), (0, 0)))

    def one_chunk(index, states):
        piece = jax.lax.dynamic_slice_in_dim(cepstra, index * (chunk * segment.hop), span)
        segments = mfcc.normalise(
            mfcc.cut_segments(piece, config=segment), statistics, config=segment
        )
        state = encode(params, segments, config=config)
        return jax.lax.dynamic_update_slice_in_dim(states, state, index * chunk, 0)

    shape = (chunk, segment.frames, config.mfcc.coeffs)
    bits = jax.eval_shape(functools.partial(encode, config=config), params, jnp.zeros(shape)).shape[
        -1
    ]
    segments = jnp.maximum(0, (count - segment.frames) // segment.hop + 1)
    chunks = (segments + chunk - 1) // chunk
    return jax.lax.fori_loop(0, chunks, one_chunk, jnp.zeros((rows, bits), jnp.float32))


@functools.partial(jax.jit, static_argnames=("encode", "config"))
def _states_of_cepstra(params, statistics, thresholds, cepstra, count, *, encode, config):
    del thresholds
    return _encode_recording(params, statistics, cepstra, count, encode=encode, config=config)


@functools.partial(jax.jit, static_argnames=("encode", "config"))
def _words_of_cepstra(params, statistics, thresholds, cepstra, count, *, encode, config):
    states = _encode_recording(params, statistics, cepstra, count, encode=encode, config=config)
    return pack(threshold(states, thresholds))


@functools.partial(jax.jit, static_argnames=("frames", "encode", "config"))
def _words_of_samples(
    params, statistics, thresholds, padded, valid, count, *, frames, encode, config
):
    cepstra = mfcc.chunked(padded, valid, count, frames=frames, config=config.mfcc)
    states = _encode_recording(params, statistics, cepstra, count, encode=encode, config=config)
    return pack(threshold(states, thresholds))


@functools.partial(jax.jit, static_argnames=("frames", "encode", "config"))
def _words_of_stacked(
    params, statistics, thresholds, padded, valid, count, *, frames, encode, config
):
    one = functools.partial(_words_of_samples, frames=frames, encode=encode, config=config)
    return jax.vmap(one, in_axes=(None, None, None, 0, 0, 0))(
        params, statistics, thresholds, padded, valid, count
    )
