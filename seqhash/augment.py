"""What happens to a clip on its way to a query, as pure keyed functions of samples, on the device.

Every function is ``f(key, samples, ...)`` for one clip, float32 (samples,); ``jax.vmap`` makes a
batch of it. All of it runs inside the jitted training step: no degraded audio is kept anywhere.

Linear effects meet in one response in the frequency domain, at the cost of one FFT there and back:
room, equaliser and band limits. Then noises are added at a signal-to-noise ratio, the sum is
saturated, and the bands of some examples get holes, as coders of few bits make them. What is
stretched keeps its time map: tempo and pitch move the frames and the filters of the front end
instead of the samples (``positions``), so that a pair stays aligned.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqhash.config import AugmentConfig

Array = jax.Array | np.ndarray


class Sources(NamedTuple):
    """What clips are degraded with; sample rate of the front end."""

    noises: jax.Array  # float32 (noises, samples): each looped or cut to one length
    rooms: jax.Array  # float32 (rooms, taps): impulse responses, direct sound first


def level(samples: jax.Array) -> jax.Array:
    """Root mean square, and a little, so that silence can be divided by."""
    return jnp.sqrt(jnp.mean(jnp.square(samples)) + 1e-12)


def add_noise(samples: jax.Array, noise: jax.Array, decibels: jax.Array) -> jax.Array:
    """samples + noise at a signal-to-noise ratio in dB, over the whole clip."""
    return samples + noise * (level(samples) / level(noise) * 10 ** (-decibels / 20))


def coloured_noise(key: jax.Array, *, length: int, sample_rate: int) -> jax.Array:
    """Stationary noise with a random slope, bumps and beat, float32 (length,).

    The slope is that of f^-a in power, a in [0, 2]; bumps are those of ``equaliser``; the beat is a
    slow modulation of up to 12 Hz, deep in every second example.
    """
    noise_key, slope_key, bump_key, rate_key, depth_key, phase_key = jax.random.split(key, 6)
    hz = jnp.fft.rfftfreq(length, 1 / sample_rate)
    slope = jax.random.uniform(slope_key, maxval=2.0)
    gain = jnp.maximum(hz, 50.0) ** (-slope / 2) * _bumps(bump_key, hz, decibels=12.0)
    noise = jnp.fft.irfft(jnp.fft.rfft(jax.random.normal(noise_key, (length,))) * gain, length)
    rate = 2 * jnp.pi * jax.random.uniform(rate_key, minval=0.5, maxval=12.0) / sample_rate
    depth = jnp.maximum(0.0, jax.random.uniform(depth_key, minval=-1.0))
    phase = jax.random.uniform(phase_key, maxval=2 * jnp.pi)
    beat = 1 + depth * jnp.sin(rate * jnp.arange(length) + phase)
    return (noise * beat).astype(jnp.float32)


def recorded_noise(key: jax.Array, noises: jax.Array, *, length: int) -> jax.Array:
    """A piece of one of the noises (noises, samples), float32 (length,); they are circles."""
    row_key, begin_key = jax.random.split(key)
    row = jax.random.randint(row_key, (), 0, noises.shape[0])
    begin = jax.random.randint(begin_key, (), 0, noises.shape[1])
    return noises[row, (begin + jnp.arange(length)) % noises.shape[1]]


def response(
    key: jax.Array, rooms: jax.Array, *, length: int, sample_rate: int, config: AugmentConfig
) -> jax.Array:
    """Room, equaliser and band limits as one response, complex64 (length / 2 + 1,).

    Args:
      key: of one clip.
      rooms: (rooms, taps) impulse responses.
      length: of the FFT: clip, what sounded before it, and the taps.
      sample_rate: Hz.
      config: how often and how much.
    """
    room_key, which_key, bump_key, phone_key, low_key, codec_key, top_key = jax.random.split(key, 7)
    hz = jnp.fft.rfftfreq(length, 1 / sample_rate)
    chosen = rooms[jax.random.randint(which_key, (), 0, rooms.shape[0])]
    room = jnp.fft.rfft(chosen, length)
    result = jnp.where(_chance(room_key, config.room), room, 1.0)
    result = result * _bumps(bump_key, hz, decibels=config.equaliser_db)
    phone = _slope(hz, 300.0, 2.0) * _slope(3_400.0, hz, 2.0)
    narrow = _slope(hz, jax.random.uniform(low_key, minval=200.0, maxval=500.0), 1.0)
    result = result * jnp.where(_chance(phone_key, config.telephone), phone * narrow, 1.0)
    top = jax.random.uniform(top_key, minval=1_500.0, maxval=0.5 * sample_rate)
    return result * jnp.where(_chance(codec_key, config.codec), _slope(top, hz, 4.0), 1.0)


def degrade(
    key: jax.Array,
    samples: jax.Array,
    others: jax.Array,
    sources: Sources,
    *,
    length: int,
    sample_rate: int,
    config: AugmentConfig,
) -> jax.Array:
    """A clip as a microphone might have heard it, float32 (length,).

    Args:
      key: of this clip.
      samples: float32 (past + length,): the clip and what sounded before, which rooms carry on.
      others: float32 (length,): a clip of other music, which may be the noise.
      sources: noises and rooms.
      length: of the clip.
      sample_rate: Hz.
      config: how often and how much.
    """
    kind_key, shape_key, level_key, noise_key, more_key, drive_key = jax.random.split(key, 6)
    size = _fft_length(samples.shape[0] + sources.rooms.shape[1])
    linear = response(shape_key, sources.rooms, length=size, sample_rate=sample_rate, config=config)
    heard = jnp.fft.irfft(jnp.fft.rfft(samples, size) * linear, size)
    heard = heard[samples.shape[0] - length : samples.shape[0]]
    kinds = jnp.stack(
        [
            recorded_noise(noise_key, sources.noises, length=length),
            coloured_noise(noise_key, length=length, sample_rate=sample_rate),
            others,
        ]
    )
    # Up to three noises at a time: each of the further ones is there in a third of the clips.
    shares = jnp.asarray([config.recorded, config.coloured, config.music], jnp.float32)
    first = jax.random.choice(kind_key, 3, p=shares / jnp.sum(shares))
    also = jax.random.uniform(more_key, (3,)) < config.further
    weights = jnp.where(jnp.arange(3) == first, 1.0, jnp.where(also & (shares > 0), 0.5, 0.0))
    levels = jax.vmap(level)(kinds)
    noise = jnp.sum(kinds * (weights / levels)[:, None], axis=0)
    low, high = config.low_db, config.high_db
    heard = add_noise(heard, noise, jax.random.uniform(level_key, minval=low, maxval=high))
    drive = jax.random.uniform(drive_key, minval=0.5, maxval=3.0) / level(heard)
    saturated = jnp.tanh(drive * heard)
    return jnp.where(_chance(more_key, config.saturation), saturated, heard)


def holes(key: jax.Array, bands: jax.Array, *, config: AugmentConfig) -> jax.Array:
    """Bands (frames, bands) with cells set to nearly nothing, as coders of few bits leave them."""
    there_key, share_key, cell_key = jax.random.split(key, 3)
    share = jax.random.uniform(share_key, maxval=0.4)
    empty = jax.random.uniform(cell_key, bands.shape) < share
    damaged = jnp.where(empty, 0.05 * bands, bands)
    return jnp.where(_chance(there_key, config.holes), damaged, bands)


def positions(
    key: jax.Array, *, frames: int, frame_step: int, config: AugmentConfig
) -> tuple[jax.Array, jax.Array]:
    """Where the frames of a stretched clip begin, relative to those of the clip itself.

    Tempo scales the time between frames about the middle one, and a jitter moves all of them.

    Returns:
      float32 (frames,): first sample of each frame; float32 (): semitones of pitch.
    """
    tempo_key, jitter_key, pitch_key = jax.random.split(key, 3)
    tempo = 1 + jax.random.uniform(tempo_key, minval=-config.tempo, maxval=config.tempo)
    jitter = jax.random.uniform(jitter_key, minval=-config.jitter, maxval=config.jitter)
    middle = (frames - 1) / 2
    begin = ((jnp.arange(frames) - middle) * tempo + middle + jitter) * frame_step
    return begin, jax.random.uniform(pitch_key, minval=-config.pitch, maxval=config.pitch)


# ------------------------------------------------------------------------------------------- inside


def _chance(key: jax.Array, probability: float) -> jax.Array:
    return jax.random.uniform(key) < probability


def _bumps(key: jax.Array, hz: jax.Array, *, decibels: float) -> jax.Array:
    """A smooth gain over frequency: random at seven points of a log axis, linear between."""
    points = jnp.linspace(jnp.log(60.0), jnp.log(4_000.0), 7)
    gains = jax.random.uniform(key, (7,), minval=-decibels, maxval=decibels)
    return 10 ** (jnp.interp(jnp.log(jnp.maximum(hz, 1.0)), points, gains) / 20)


def _slope(above: Array | float, below: Array | float, order: float) -> jax.Array:
    """Near 1 where the first frequency is above the second, falling off as (f / edge)^order."""
    ratio = (jnp.maximum(below, 1e-3) / jnp.maximum(above, 1e-3)) ** (2 * order)
    return 1 / jnp.sqrt(1 + ratio)


@functools.cache
def _fft_length(samples: int) -> int:
    """The smallest 2^a 3^b that holds so many samples."""
    powers = [2**a * 3**b for a in range(24) for b in range(3)]
    return min(size for size in powers if size >= samples)
