"""Samples to harmony: the third front end, for codes of works rather than of recordings.

Frames of a quarter of a second, power in thirds of a semitone (``bands`` with other settings), from
which a recording's tuning is estimated and semitones are put together:

    P[t, i]   power in triangles a third of a semitone apart
    tuning    the phase of three at which the upper octaves are loudest, -1, 0, 1 thirds
    S[t, b] = sum_i w_i P[t, 3 b + tuning + i] / g_b      w = (1, 2, 3, 2, 1) / 3: a semitone wide
    x[t, b] = S^exponent                                  0.25: the root of the magnitude

with g_b the power that a sinusoid of amplitude 1 in the middle of the band would have, so that
S^0.5 is the magnitude of a constant-Q transform, smeared over the window where that is longer
(``librosa.vqt`` is the oracle). Of these a code sees ``partials``, and how much they stand out
(``salient``): ``steps`` means of ``step_frames`` frames, divided by their own mean (``windows``).
Neither level nor polarity moves a bit, and a transposition moves pitch classes around.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from seqhash import bands
from seqhash.config import BandsConfig, HarmonyConfig
from seqhash.sizes import power_of_two

THIRDS = 3  # bands a semitone before the tuning is known
_SMEAR = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3  # thirds of a semitone to a triangle of one
_BESIDE = 3  # thirds on either side of the outermost middles: two of the triangle, one of tuning
_TUNED_OCTAVES = 3  # of the upper ones, where a third of a semitone is wider than a window resolves
TINY = 1e-9  # beside a mean of magnitudes: windows of digital silence are divided by something


def pitches(config: HarmonyConfig) -> int:
    """Semitones of a frame."""
    return 12 * config.octaves


def fine(config: HarmonyConfig) -> BandsConfig:
    """The settings of ``bands`` that give powers in thirds of a semitone."""
    octave = 12 * THIRDS
    return BandsConfig(
        sample_rate=config.sample_rate,
        frame_length=config.frame_length,
        frame_step=config.frame_step,
        fft_length=config.fft_length,
        bands_per_octave=octave,
        bands=octave * config.octaves + 2 * _BESIDE - (THIRDS - 1),
        low_hz=config.low_hz * 2 ** (-_BESIDE / octave),
        exponent=1.0,
    )


def stream(blocks: Iterable[np.ndarray], *, config: HarmonyConfig) -> np.ndarray:
    """Powers of a recording that comes in blocks of samples: float32 (frames, thirds)."""
    return bands.stream(blocks, config=fine(config))


def tuning(powers: np.ndarray, *, config: HarmonyConfig) -> int:
    """Thirds of a semitone by which a recording is tuned higher: -1, 0 or 1.

    Args:
      powers: (frames, thirds) of the recording; of none it is 0.
      config: of the front end.
    """
    first = _BESIDE + 12 * THIRDS * max(0, config.octaves - _TUNED_OCTAVES)
    level = np.power(powers, config.exponent).sum(axis=0, dtype=np.float64)
    width = pitches(config) * THIRDS + _BESIDE - first
    phases = [level[first + phase :][:width:THIRDS].sum() for phase in (-1, 0, 1)]
    return int(np.argmax(phases)) - 1 if max(phases) > phases[1] else 0


def semitones(powers: jax.Array, shift: jax.Array | int, *, config: HarmonyConfig) -> jax.Array:
    """Compressed magnitudes of semitones: (frames, thirds) -> float32 (frames, pitches).

    Args:
      powers: of ``stream``.
      shift: the recording's tuning.
      config: of the front end.
    """
    width = THIRDS * pitches(config)
    first = _BESIDE - len(_SMEAR) // 2
    cut = jax.lax.dynamic_slice_in_dim(powers, first + shift, width + len(_SMEAR) - THIRDS, axis=1)
    smeared = sum(
        weight * cut[:, i : i + width - THIRDS + 1 : THIRDS] for i, weight in enumerate(_SMEAR)
    )
    scale = jnp.asarray(1 / gains(config), jnp.float32)
    return bands.compress(smeared * scale[None], exponent=config.exponent)


def of_recording(powers: np.ndarray, *, config: HarmonyConfig) -> np.ndarray:
    """Semitones (frames, pitches) of a whole recording's powers, at its own tuning."""
    size = power_of_two(max(1, len(powers)))
    padded = np.pad(powers, ((0, size - len(powers)), (0, 0)))
    shift = np.int32(tuning(powers, config=config))
    return np.asarray(_semitones(padded, shift, config=config))[: len(powers)]


def partials(semitones: jax.Array) -> jax.Array:
    """What is at least as loud as the semitones beside it, 0 elsewhere: (frames, pitches), same
    shape. Partials are narrower than windows resolve; noise and what is between is left out.
    """
    beside = jnp.pad(semitones, ((0, 0), (1, 1)))
    louder = (semitones >= beside[:, :-2]) & (semitones >= beside[:, 2:])
    return jnp.where(louder, semitones, 0.0)


def salient(semitones: jax.Array, *, config: HarmonyConfig) -> jax.Array:
    """By how much partials are louder than the mean of ``around`` semitones on either side: same
    shape. What is left are few, mostly of the leading voice.
    """
    width = 2 * config.around + 1
    count = np.convolve(np.ones(semitones.shape[1]), np.ones(width), "same")
    sums = jax.lax.reduce_window(
        semitones, 0.0, jax.lax.add, (1, width), (1, 1), ((0, 0), (config.around, config.around))
    )
    mean = sums / jnp.asarray(count, jnp.float32)[None]
    return jnp.maximum(partials(semitones) - mean, 0.0)


def hearings(semitones: jax.Array, *, config: HarmonyConfig) -> jax.Array:
    """All partials, mostly the chords, and those that stand out, mostly the tune: (frames, pitches)
    -> (frames, 2, pitches).
    """
    return jnp.stack([partials(semitones), salient(semitones, config=config)], axis=1)


def windows(heard: jax.Array, *, config: HarmonyConfig) -> jax.Array:
    """What each code sees: (frames, 2, pitches) -> (codes, steps, 2, pitches).

    Means of ``step_frames`` frames, each hearing divided by its mean of the window, minus 1.
    """
    length = config.steps * config.step_frames
    codes = (heard.shape[0] - length) // config.hop + 1
    rows = np.arange(codes)[:, None] * config.hop + np.arange(length)
    return normalise(heard[rows], config=config)


def normalise(cut: jax.Array, *, config: HarmonyConfig) -> jax.Array:
    """``windows`` of the frames that codes see: (..., steps x step_frames, 2, pitches)."""
    shape = (*cut.shape[:-3], config.steps, config.step_frames, *cut.shape[-2:])
    means = jnp.mean(cut.reshape(shape), axis=-3)
    return means / (jnp.mean(means, axis=(-3, -1), keepdims=True) + TINY) - 1


@functools.lru_cache(maxsize=16)
def gains(config: HarmonyConfig) -> np.ndarray:
    """Power of a sinusoid of amplitude 1 in the middle of each semitone, float64 (pitches,)."""
    settings = fine(config)
    hz = config.low_hz * 2.0 ** (np.arange(pitches(config)) / 12)
    time = np.arange(config.frame_length) / config.sample_rate
    tones = bands.window(settings) * np.exp(2j * np.pi * hz[:, None] * time) / 2
    spectrum = np.fft.fft(tones, config.fft_length)[:, : config.fft_length // 2 + 1]
    powers = np.abs(spectrum) ** 2 @ bands.filters(settings)
    starts = _BESIDE - len(_SMEAR) // 2 + THIRDS * np.arange(pitches(config))
    rows = np.arange(pitches(config))[:, None]
    return np.asarray(powers[rows, starts[:, None] + np.arange(len(_SMEAR))] @ _SMEAR)


_semitones = jax.jit(semitones, static_argnames=("config",))
