"""Samples to cepstra to segments (paper, II, III and Table 3.1), as pure functions.

As python_speech_features 0.6 has them by default, whose parameter names are those of Table 3.1.
Pre-emphasis over the whole recording; frames of 400 samples every 160, the last one filled up with
zeros, so a recording of n samples has 1 + ceil((n - 400) / 160) frames and **exactly 1 s has 99**:
a first segment of 100 frames needs 16,081 samples. (Of no samples python_speech_features makes a
frame of silence; here there is none.) Rectangular window; P[k] = |rfft_512(frame)[k]|^2 / 512;
triangular mel filters between whole FFT bins; natural log, with exact zeros replaced by 2.22e-16;
orthonormal DCT-II; liftering; coefficient 0 is the log of the frame's energy.

Samples are float32 in [-1, 1]. (int16 samples would add 2 ln 32768 = 20.794 to coefficient 0, and
nothing else.)

Layout: a recording is walked in chunks of ``CHUNK`` frames that stay in the processor's cache, each
framed from three contiguous slices rather than by a gather. The number of frames is a run-time
value, so that a program is compiled once for each bucket of lengths and costs what the recording is
long, not what the bucket is.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqhash.config import MfccConfig, SegmentConfig
from seqhash.sizes import round_up

Array = jax.Array | np.ndarray

CHUNK = 128  # frames walked at a time: 1.3 s, 0.2 MB, in the first-level caches
STREAM_CHUNKS = 32  # chunks of a block of ``stream``: 41 s
TINY = float(np.finfo(np.float64).eps)  # python_speech_features' stand-in for an exact zero
VARIANCE_FLOOR = 1e-6  # a constant coefficient is left at zero instead of divided by zero


def frame_count(samples: int, config: MfccConfig) -> int:
    """Frames of a recording of that many samples: all that hold one of them."""
    return 1 + max(0, -(-(samples - config.frame_length) // config.frame_step)) if samples else 0


def shortest_seconds(frames: int, *, config: MfccConfig) -> float:
    """Seconds of the shortest recording of so many frames: up to the first sample that is new in
    the last of them.
    """
    whole = (frames - 2) * config.frame_step + config.frame_length if frames > 1 else 0
    return (whole + 1) / config.sample_rate


def preemphasize(samples: jax.Array, *, coefficient: float) -> jax.Array:
    """y[t] = x[t + 1] - coefficient x[t] for (samples + 1,) -> (samples,): the first value is the
    one before.
    """
    return samples[1:] - jnp.float32(coefficient) * samples[:-1]


def frame(samples: jax.Array, *, frames: int, length: int, step: int) -> jax.Array:
    """Overlapping frames (frames, length), frame i = samples[step i : step i + length], from
    contiguous slices.

    samples must hold at least (frames + ceil(length / step) - 1) step values.
    """
    pieces = -(-length // step)
    rows = samples[: (frames + pieces - 1) * step].reshape(-1, step)
    return jnp.concatenate([rows[i : i + frames] for i in range(pieces)], axis=1)[:, :length]


def power_spectrum(frames: jax.Array, *, fft_length: int) -> jax.Array:
    """|rfft|^2 of each frame, zero-padded to fft_length: (..., length) -> (..., fft_length / 2 +
    1).
    """
    spectrum = jnp.fft.rfft(frames, n=fft_length)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def mel_filters(config: MfccConfig) -> np.ndarray:
    """The mel filter bank, float64 (fft_length / 2 + 1, filters).

    Triangles between whole bins b = floor((fft_length + 1) f / sample_rate) of frequencies f that
    are equally spaced in 2595 log10(1 + f / 700).
    """
    mel = np.linspace(_hz_to_mel(config.low_hz), _hz_to_mel(config.high_hz), config.filters + 2)
    hz = 700 * (10 ** (mel / 2595) - 1)
    edges = np.floor((config.fft_length + 1) * hz / config.sample_rate)
    bins = np.arange(config.fft_length // 2 + 1)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # an empty flank divides by zero and is not selected
        rising = (bins >= low) & (bins < centre)
        falling = (bins >= centre) & (bins < high)
        return np.where(
            rising,
            (bins - low) / (centre - low),
            np.where(falling, (high - bins) / (high - centre), 0.0),
        )


def dct_matrix(config: MfccConfig) -> np.ndarray:
    """Orthonormal DCT-II, float64 (filters, coeffs): s_q cos(pi q (j + 1/2) / filters)."""
    band, q = np.arange(config.filters)[:, None] + 0.5, np.arange(config.coeffs)
    scale = np.sqrt(np.where(q == 0, 1, 2) / config.filters)
    return scale * np.cos(np.pi * q * band / config.filters)


def lifter_weights(config: MfccConfig) -> np.ndarray:
    """1 + lifter/2 sin(pi q / lifter) for each coefficient q, float64 (coeffs,); ones where lifter
    is 0.
    """
    if config.lifter <= 0:
        return np.ones(config.coeffs)
    return 1 + config.lifter / 2 * np.sin(np.pi * np.arange(config.coeffs) / config.lifter)


def mel_energies(power: jax.Array, *, config: MfccConfig) -> jax.Array:
    """Energy of each mel band, and last of the whole frame: (..., bins) -> (..., filters + 1)."""
    return jnp.matmul(power, jnp.asarray(_mel_and_energy(config), jnp.float32), precision="highest")


def log_levels(energies: jax.Array) -> jax.Array:
    """Natural logs, an exact zero's being that of TINY; same shape."""
    return jnp.log(jnp.where(energies == 0, TINY, energies))


def dct(bands: jax.Array, *, config: MfccConfig) -> jax.Array:
    """Orthonormal DCT-II of log mel levels: (..., filters) -> (..., coeffs)."""
    return jnp.matmul(bands, jnp.asarray(dct_matrix(config), jnp.float32), precision="highest")


def lifter(cepstra: jax.Array, *, config: MfccConfig) -> jax.Array:
    """Every coefficient scaled by its weight, so that high ones are as large as low ones; same
    shape.
    """
    weights = jnp.asarray(lifter_weights(config), jnp.float32)
    return cepstra * weights.reshape((1,) * (cepstra.ndim - 1) + (-1,))


def cepstra_from_levels(logs: jax.Array, *, config: MfccConfig) -> jax.Array:
    """DCT, lifter and log energy: (frames, filters + 1) -> (frames, coeffs)."""
    bands, log_energy = logs[:, :-1], logs[:, -1:]
    cepstra = lifter(dct(bands, config=config), config=config)
    return jnp.concatenate([log_energy, cepstra[:, 1:]], axis=1)


def padded_length(frames: int, config: MfccConfig) -> int:
    """Length of the padded samples that ``chunked`` reads for that many frames (a multiple of
    CHUNK).
    """
    return 1 + frames * config.frame_step + _halo(config)


def chunked(
    padded: jax.Array, valid: jax.Array, count: jax.Array, *, frames: int, config: MfccConfig
) -> jax.Array:
    """Cepstra of a padded recording: the one place where samples become cepstra.

    Args:
      padded: (padded_length(frames),) the sample before the first (0 at a recording's start), the
        samples, zeros.
      valid: number of values of padded[1:] that are samples; what follows is silence after
        pre-emphasis too.
      count: frames to compute; the rest of the rows stay zero.
      frames: rows of the result, a multiple of CHUNK (static).

    Returns:
      float32 (frames, coeffs).
    """
    logs = _chunked_levels(padded, valid, count, frames=frames, config=config)
    within = jnp.arange(frames)[:, None] < count
    return jnp.where(within, cepstra_from_levels(logs, config=config), 0.0)


def mfcc(samples: jax.Array, *, config: MfccConfig) -> jax.Array:
    """Cepstra of a whole recording: float32 (samples,) -> (frames, coeffs). Pure; jit and vmap it
    as you like.

    For recordings of many lengths use ``stream``, which compiles once.
    """
    count = frame_count(samples.shape[0], config)
    if count == 0:
        return jnp.zeros((0, config.coeffs), jnp.float32)
    frames = round_up(count, CHUNK)
    size = padded_length(frames, config)
    padded = jnp.pad(samples.astype(jnp.float32), (1, max(0, size - 1 - samples.shape[0])))[:size]
    cepstra = chunked(
        padded, jnp.int32(samples.shape[0]), jnp.int32(count), frames=frames, config=config
    )
    return cepstra[:count]


def stream(blocks: Iterable[np.ndarray], *, config: MfccConfig) -> np.ndarray:
    """Cepstra of a recording of any length that comes in blocks of samples, in bounded memory.

    One compiled program for all recordings. Equal to ``mfcc`` of the concatenated blocks to float32
    rounding.

    Args:
      blocks: float32 (any,) arrays in order.

    Returns:
      float32 (frames, coeffs).
    """
    frames = CHUNK * STREAM_CHUNKS
    parts = []
    for padded, valid, last in _windows(blocks, frames, config):
        count = min(frames, frame_count(valid, config)) if last else frames
        part = _stream_part(padded, np.int32(valid), np.int32(count), frames=frames, config=config)
        parts.append(np.asarray(part)[:count])
    return np.concatenate(parts)


def segment_count(frames: int, *, config: SegmentConfig) -> int:
    """Segments of a recording of that many frames: those that fit whole."""
    return max(0, (frames - config.frames) // config.hop + 1)


class Statistics(NamedTuple):
    """Mean and standard deviation of each coefficient, float32 (..., coeffs), over training
    frames.
    """

    mean: Array
    std: Array


def frame_statistics(cepstra: Array, count: jax.Array | int) -> Statistics:
    """Statistics of the first ``count`` rows of (frames, coeffs)."""
    real = (jnp.arange(cepstra.shape[0]) < count)[:, None]
    mean = jnp.sum(jnp.where(real, cepstra, 0), axis=0) / count
    variance = jnp.sum(jnp.where(real, jnp.square(cepstra - mean[None]), 0), axis=0) / count
    return Statistics(mean, jnp.sqrt(variance + VARIANCE_FLOOR))


def normalise(segments: Array, statistics: Statistics, *, config: SegmentConfig) -> jax.Array:
    """The paper's "normalized": standardised per coefficient, then clipped at +-config.clip
    deviations.

    The clip keeps digital silence, 8 to 13 deviations below the mean of music, from ruling the
    loss.

    Args:
      segments: (..., segment frames, coeffs).
      statistics: of the training set (normalisation = corpus) or of the segment's recording
        (recording), with as many leading axes as it needs. Normalisation ``segment`` (every segment
        by itself) and ``none`` leave them unused.
    """
    segments = jnp.asarray(segments)
    if config.normalisation == "none":
        return segments
    mean, std = (
        jnp.reshape(value, (1,) * (segments.ndim - np.ndim(value)) + np.shape(value))
        for value in statistics
    )
    if config.normalisation == "segment":
        mean = jnp.mean(segments, axis=-2, keepdims=True)
        std = jnp.sqrt(
            jnp.mean(jnp.square(segments - mean), axis=-2, keepdims=True) + VARIANCE_FLOOR
        )
    scaled = (segments - mean) / std
    return jnp.clip(scaled, -config.clip, config.clip) if config.clip > 0 else scaled


def cut_segments(cepstra: jax.Array, *, config: SegmentConfig) -> jax.Array:
    """Segments of the frames of a whole recording: (frames, coeffs) -> (segments, segment frames,
    coeffs).
    """
    starts = jnp.arange(segment_count(cepstra.shape[0], config=config)) * config.hop
    return jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(cepstra, start, config.frames))(
        starts
    )


# ------------------------------------------------------------------------------------------- inside


def _hz_to_mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))


@functools.lru_cache(maxsize=16)
def _mel_and_energy(config: MfccConfig) -> np.ndarray:
    """Filter bank and total energy as one table (bins, filters + 1), so that one product gives
    both.

    The spectrum's 1 / fft_length is folded in. Float64 until it is used.
    """
    filters = mel_filters(config)
    table = np.concatenate([filters, np.ones((len(filters), 1))], axis=1)
    return table / config.fft_length


def _halo(config: MfccConfig) -> int:
    """Samples after the last frame's step that its window still needs, in whole steps."""
    return round_up(config.frame_length, config.frame_step) - config.frame_step


def _chunked_levels(
    padded: jax.Array, valid: jax.Array, count: jax.Array, *, frames: int, config: MfccConfig
) -> jax.Array:
    """Log levels (frames, filters + 1), CHUNK frames at a time; only chunks that hold one of
    ``count`` are visited.
    """
    length, step = config.frame_length, config.frame_step
    size = CHUNK * step + _halo(config)

    def one_chunk(index: jax.Array, logs: jax.Array) -> jax.Array:
        start = index * (CHUNK * step)
        piece = jax.lax.dynamic_slice_in_dim(padded, start, size + 1)
        piece = preemphasize(piece, coefficient=config.preemphasis)
        # Only the value after the last sample is not yet silence. A write, not a mask: the chunk
        # is then made once instead of inside each of the three slices that frame it.
        piece = piece.at[jnp.where(valid >= start, valid - start, size)].set(0.0, mode="drop")
        pieces = frame(piece, frames=CHUNK, length=length, step=step)
        power = power_spectrum(pieces, fft_length=config.fft_length)
        levels = log_levels(mel_energies(power, config=config))
        return jax.lax.dynamic_update_slice_in_dim(logs, levels, index * CHUNK, 0)

    chunks = (count + CHUNK - 1) // CHUNK
    return jax.lax.fori_loop(
        0, chunks, one_chunk, jnp.zeros((frames, config.filters + 1), jnp.float32)
    )


_stream_part = jax.jit(chunked, static_argnames=("frames", "config"))


def _windows(
    blocks: Iterable[np.ndarray], frames: int, config: MfccConfig
) -> Iterator[tuple[np.ndarray, int, bool]]:
    """Re-cuts blocks into the padded windows of ``chunked``: (padded, valid, last)."""
    size, advance = padded_length(frames, config), frames * config.frame_step
    pending = np.zeros(1, np.float32)  # starts with the sample before
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > size:  # more than a window: this one is not the last
            yield pending[:size], size - 1, False
            pending = pending[advance:]
    yield np.pad(pending, (0, size - len(pending))), len(pending) - 1, True
