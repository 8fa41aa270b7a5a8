"""Samples to semitone bands: the second front end, as pure functions beside ``mfcc``.

A frame is ``frame_length`` samples, ``frame_step`` apart, all inside the recording: n samples have
1 + floor((n - frame_length) / frame_step) of them. For each frame

    y = w (x - <w, x> / <w, 1>)          Hann window w, without what a constant in x would leak
    P[k] = |rfft(y)[k]|^2
    B[b] = sum_k F[k, b] P[k]            triangles of equal width in log frequency, one a semitone
    bands[b] = B[b]^exponent

Codes are to depend on neither level nor polarity nor a constant offset of the samples. Polarity
leaves with the square and the offset with the weighted mean; level is a factor of all bands, which
the patch divides out (``patches``).

A band is at least as wide as a bin of the FFT: below that the lowest bands overlap more.
"""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from seqhash.config import BandsConfig
from seqhash.mfcc import frame, power_spectrum
from seqhash.sizes import round_up

CHUNK = (
    128  # frames walked at a time: 4 s, 0.4 MB of samples and spectra, in the second-level cache
)
STREAM_CHUNKS = 16  # chunks of a block of ``stream``: 64 s
FEW_CHUNKS = 4  # of one that holds no more, such as a query: less is copied and cleared


def frame_count(samples: int, config: BandsConfig) -> int:
    """Frames of a recording of that many samples: those that fit whole."""
    return max(0, 1 + (samples - config.frame_length) // config.frame_step)


def centres(config: BandsConfig) -> np.ndarray:
    """Hz of the middle of each band, float64 (bands,): low_hz 2^(b / bands_per_octave)."""
    return config.low_hz * 2.0 ** (np.arange(config.bands) / config.bands_per_octave)


def window(config: BandsConfig) -> np.ndarray:
    """The periodic Hann window, float64 (frame_length,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.frame_length) / config.frame_length)


def filters(config: BandsConfig, *, shift: float = 0.0) -> np.ndarray:
    """The filter bank, float64 (fft_length / 2 + 1, bands): each column sums to 1.

    Triangles in log frequency that fall to 0 at the middles of their neighbours, or one bin of the
    FFT away where bins are wider than that.

    Args:
      config: of the bands.
      shift: bands by which all middles lie higher, as for a query that was transposed.
    """
    step, middle = config.sample_rate / config.fft_length, centres(config)
    middle = middle * 2.0 ** (shift / config.bands_per_octave)
    hz = np.arange(config.fft_length // 2 + 1)[:, None] * step
    apart = 2.0 ** (1 / config.bands_per_octave)
    below = np.maximum(middle - middle / apart, step)
    above = np.maximum(middle * apart - middle, step)
    rising, falling = 1 - (middle - hz) / below, 1 - (hz - middle) / above
    table = np.maximum(0.0, np.where(hz < middle, rising, falling))
    return table / table.sum(axis=0, keepdims=True)


def centred(frames: jax.Array, weights: jax.Array) -> jax.Array:
    """w (x - <w, x> / <w, 1>) of frames (..., frame_length): windowed, without any constant."""
    shape = (1,) * (frames.ndim - 1) + (-1,)
    share = (weights / jnp.sum(weights)).reshape(shape)
    mean = jnp.sum(frames * share, axis=-1, keepdims=True)
    return (frames - mean) * weights.reshape(shape)


def band_powers(power: jax.Array, table: jax.Array) -> jax.Array:
    """Mean power in each band: (..., bins) -> (..., bands)."""
    return jnp.matmul(power, table, precision="highest")


def compress(powers: jax.Array, *, exponent: float) -> jax.Array:
    """P^exponent, same shape; 0.5 gives magnitudes."""
    return jnp.sqrt(powers) if exponent == 0.5 else jnp.power(powers, exponent)


def of_frames(frames: jax.Array, table: jax.Array, *, config: BandsConfig) -> jax.Array:
    """Bands of frames: (..., frame_length) -> (..., bands); ``table`` as ``filters`` gives it."""
    weighted = centred(frames, jnp.asarray(window(config), jnp.float32))
    power = power_spectrum(weighted, fft_length=config.fft_length)
    return compress(band_powers(power, table), exponent=config.exponent)


def padded_length(frames: int, config: BandsConfig) -> int:
    """Length of the padded samples that ``chunked`` reads for that many frames."""
    pieces = -(-config.frame_length // config.frame_step)
    return (frames + pieces - 1) * config.frame_step


def chunked(padded: jax.Array, count: jax.Array, *, frames: int, config: BandsConfig) -> jax.Array:
    """Bands of a padded recording, CHUNK frames at a time.

    Args:
      padded: (padded_length(frames),) the samples, then anything finite.
      count: frames to compute; the rest of the rows stay zero.
      frames: rows of the result, a multiple of CHUNK (static).

    Returns:
      float32 (frames, bands).
    """
    step, table = config.frame_step, jnp.asarray(_filters(config), jnp.float32)
    size = padded_length(CHUNK, config)

    def one_chunk(index: jax.Array, bands: jax.Array) -> jax.Array:
        piece = jax.lax.dynamic_slice_in_dim(padded, index * (CHUNK * step), size)
        pieces = frame(piece, frames=CHUNK, length=config.frame_length, step=step)
        made = of_frames(pieces, table, config=config)
        return jax.lax.dynamic_update_slice_in_dim(bands, made, index * CHUNK, 0)

    chunks = (count + CHUNK - 1) // CHUNK
    bands = jax.lax.fori_loop(0, chunks, one_chunk, jnp.zeros((frames, config.bands), jnp.float32))
    return jnp.where(jnp.arange(frames)[:, None] < count, bands, 0.0)


def bands(samples: jax.Array, *, config: BandsConfig) -> jax.Array:
    """Bands of a whole recording: float32 (samples,) -> (frames, bands). Jit and vmap it.

    For recordings of many lengths use ``stream``, which compiles once.
    """
    count = frame_count(samples.shape[0], config)
    if count == 0:
        return jnp.zeros((0, config.bands), jnp.float32)
    frames = round_up(count, CHUNK)
    size = padded_length(frames, config)
    padded = jnp.pad(samples.astype(jnp.float32), (0, max(0, size - samples.shape[0])))[:size]
    return chunked(padded, jnp.int32(count), frames=frames, config=config)[:count]


def stream(blocks: Iterable[np.ndarray], *, config: BandsConfig) -> np.ndarray:
    """Bands of a recording of any length that comes in blocks of samples, in bounded memory.

    Two compiled programs for all recordings; equal to ``bands`` of the concatenated blocks.

    Args:
      blocks: float32 (any,) arrays in order.

    Returns:
      float32 (frames, bands); no frames where the samples are fewer than one frame's.
    """
    nothing = np.zeros((0, config.bands), np.float32)
    return np.concatenate([nothing, *pieces(blocks, config=config)])


def pieces(blocks: Iterable[np.ndarray], *, config: BandsConfig) -> Iterator[np.ndarray]:
    """``stream``, a piece at a time: float32 (frames, bands) arrays in order."""
    for padded, count, frames in _windows(blocks, config):
        made = _chunked(padded, np.int32(count), frames=frames, config=config)
        yield np.asarray(made)[:count]


# ------------------------------------------------------------------------------------------- inside


_filters = functools.lru_cache(maxsize=16)(filters)
_chunked = jax.jit(chunked, static_argnames=("frames", "config"))


def _windows(
    blocks: Iterable[np.ndarray], config: BandsConfig
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Re-cuts blocks into the padded windows of ``chunked``: (padded, frames in it, rows)."""
    frames = CHUNK * STREAM_CHUNKS
    size, advance = padded_length(frames, config), frames * config.frame_step
    pending = np.zeros(0, np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) >= size:
            yield pending[:size], frames, frames
            pending = pending[advance:]
    if count := frame_count(len(pending), config):
        frames = CHUNK * (FEW_CHUNKS if count <= CHUNK * FEW_CHUNKS else STREAM_CHUNKS)
        padded = np.zeros(padded_length(frames, config), np.float32)
        padded[: len(pending)] = pending[: len(padded)]
        yield padded, count, frames
