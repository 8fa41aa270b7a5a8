"""Semitone bands: scipy's and librosa's numbers, and what they must not depend on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from scipy import signal

from seqhash import bands
from seqhash.config import BandsConfig

CONFIG = BandsConfig()


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal(5 * CONFIG.sample_rate)).astype(np.float32)


def _oracle(samples: np.ndarray, config: BandsConfig) -> np.ndarray:
    """Frame by frame in float64, with scipy's window and its own triangles."""
    window = signal.get_window("hann", config.frame_length, fftbins=True)
    hz = np.fft.rfftfreq(config.fft_length, 1 / config.sample_rate)
    rows = []
    for begin in range(0, len(samples) - config.frame_length + 1, config.frame_step):
        frame = samples[begin : begin + config.frame_length].astype(np.float64)
        frame = window * (frame - np.average(frame, weights=window))
        power = np.abs(np.fft.rfft(frame, config.fft_length)) ** 2
        row = []
        for band in range(config.bands):
            middle = config.low_hz * 2 ** (band / config.bands_per_octave)
            down = max(middle * (1 - 2 ** (-1 / config.bands_per_octave)), hz[1])
            up = max(middle * (2 ** (1 / config.bands_per_octave) - 1), hz[1])
            weights = np.interp(hz, [middle - down, middle, middle + up], [0, 1, 0])
            row.append((weights @ power / weights.sum()) ** config.exponent)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("exponent", [0.5, 0.3])
def test_frame_by_frame_in_float64(samples, exponent):
    config = replace(CONFIG, exponent=exponent)
    made = np.asarray(bands.bands(samples[:16_000], config=config))
    wanted = _oracle(samples[:16_000], config)
    assert made.shape == wanted.shape
    np.testing.assert_allclose(made, wanted, rtol=2e-4)


def test_power_is_librosas(samples):
    """Without a constant to take out, the powers are those of librosa's spectrogram."""
    tone = np.sin(2 * np.pi * 440 * np.arange(8_000) / CONFIG.sample_rate).astype(np.float32)
    wanted = librosa.stft(
        tone,
        n_fft=CONFIG.fft_length,
        win_length=CONFIG.frame_length,
        hop_length=CONFIG.frame_step,
        center=False,
    )
    # librosa centres a window in its FFT's span, and begins no frame whose span does not fit.
    left = (CONFIG.fft_length - CONFIG.frame_length) // 2
    made = np.asarray(bands.bands(tone[left:], config=CONFIG))[: wanted.shape[1]]
    power = (np.abs(wanted) ** 2).T @ bands.filters(CONFIG)
    np.testing.assert_allclose(made**2, power, rtol=1e-3, atol=1e-3 * power.max())


def test_a_semitone_is_a_band():
    """A tone at the middle of a band is loudest there, one semitone up in the next band."""
    time = np.arange(8_000) / CONFIG.sample_rate
    for band in (6, 20, 40, 58):
        hz = bands.centres(CONFIG)[[band, band + 1]]
        made = [np.asarray(bands.bands(jnp.sin(2 * jnp.pi * f * time), config=CONFIG)) for f in hz]
        assert [int(np.argmax(one.mean(axis=0))) for one in made] == [band, band + 1]


def test_a_shifted_filter_bank_is_the_next_band():
    np.testing.assert_allclose(
        bands.filters(CONFIG, shift=1.0)[:, 20:-1], bands.filters(CONFIG)[:, 21:], atol=1e-12
    )


@pytest.mark.parametrize("gain", [2.0**-10, 2.0**-3, 8.0])
def test_level_is_a_factor(samples, gain):
    """Powers of two change no mantissa, so the factor is exact."""
    made = np.asarray(bands.bands(samples, config=CONFIG))
    np.testing.assert_array_equal(
        bands.bands(samples * np.float32(gain), config=CONFIG), made * gain
    )


def test_polarity_and_offset_leave_no_trace(samples):
    made = np.asarray(bands.bands(samples, config=CONFIG))
    np.testing.assert_array_equal(bands.bands(-samples, config=CONFIG), made)
    moved = np.asarray(bands.bands(samples + np.float32(0.25), config=CONFIG))
    np.testing.assert_allclose(moved, made, atol=2e-5 * made.max())


@pytest.mark.parametrize("length", [0, 767, 768, 1_017, 1_018, 40_000])
def test_a_stream_is_the_whole(samples, length):
    whole = np.asarray(bands.bands(samples[:length], config=CONFIG))
    cut = np.array_split(samples[:length], 7)
    np.testing.assert_allclose(bands.stream(cut, config=CONFIG), whole, rtol=1e-5)
    assert len(whole) == bands.frame_count(length, CONFIG) == max(0, (length - 768) // 250 + 1)


def test_a_long_stream_is_the_whole(samples):
    config, long = CONFIG, np.tile(samples, 30)  # several windows of the stream
    whole = np.asarray(bands.bands(long, config=config))
    made = bands.stream([long[:99_999], long[99_999:]], config=config)
    np.testing.assert_allclose(made, whole, rtol=1e-5)


def test_vmap(samples):
    both = np.stack([samples[:9_000], samples[9_000:18_000]])
    made = jax.vmap(lambda one: bands.bands(one, config=CONFIG))(both)
    np.testing.assert_allclose(made[1], bands.bands(both[1], config=CONFIG), rtol=1e-5)
