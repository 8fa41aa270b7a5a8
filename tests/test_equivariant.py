"""Patches and the encoders that all bands share."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from seqhash import bands, equivariant, patches
from seqhash.config import BandsConfig, Config, EncoderConfig, PatchConfig, override

PATCH = PatchConfig()
KINDS = ("kernel", "mlp", "lstm")


def config_of(kind: str) -> Config:
    return override(Config(), {"encoder.front_end": "bands", "encoder.kind": kind})


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(1)
    return rng.gamma(1.0, size=(50, BandsConfig().bands)).astype(np.float32)


def test_patches_by_hand(frames):
    """Loops over codes, bits, frames and bands."""
    padded = patches.repeat_edges(frames, PATCH)
    cut = np.asarray(patches.cut(patches.around(padded, PATCH), PATCH))
    assert cut.shape == (patches.code_count(len(frames), PATCH), 32, 9, 7)
    for code, bit, i, j in [(0, 0, 0, 0), (0, 31, 8, 6), (5, 7, 3, 2), (len(cut) - 1, 30, 8, 0)]:
        time = min(max(2 * code - 3 + i, 0), len(frames) - 1)
        assert cut[code, bit, i, j] == frames[time, 6 + bit - 3 + j]
    normalised = np.asarray(patches.normalise(cut))
    np.testing.assert_allclose(normalised.mean(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(patches.normalise(16 * cut), normalised, atol=1e-6)


@pytest.mark.parametrize(("count", "codes"), [(0, 0), (1, 0), (3, 1), (13, 6), (28, 13), (29, 14)])
def test_codes_of_short_clips(count, codes):
    """Half a second is 13 frames, exactly one second 29."""
    assert patches.code_count(count, PATCH) == codes


def test_the_kernel_is_a_sum_over_patches(frames):
    config, key = config_of("kernel"), jax.random.key(0)
    params = {"kernel": jax.random.normal(key, (PATCH.frames, PATCH.width))}
    padded = patches.repeat_edges(frames, PATCH)
    cut = patches.normalise(patches.cut(patches.around(padded, PATCH), PATCH))
    made = equivariant.encode(params, padded, config=config)
    np.testing.assert_allclose(
        made, equivariant.of_patches(params, cut, config=config), rtol=1e-4, atol=1e-4
    )
    wanted = np.einsum("cbij,ij->cb", np.asarray(cut, np.float64), params["kernel"])
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_semitone_moves_the_bits(frames, kind):
    config = config_of(kind)
    params = equivariant.init_params(jax.random.key(3), config)
    padded = patches.repeat_edges(frames, PATCH)
    states = np.asarray(equivariant.encode(params, padded, config=config))
    higher = np.roll(padded, 1, axis=1)  # the same music, a semitone up
    moved = np.asarray(equivariant.encode(params, higher, config=config))
    np.testing.assert_allclose(moved[:, 1:], states[:, :-1], atol=1e-5)
    back = np.asarray(equivariant.encode(params, higher, config=config, rotation=1))
    np.testing.assert_allclose(back, states, atol=1e-5)


def test_a_transposed_chord_is_a_rotation():
    """Synthetic audio: tones a semitone higher, asked with the bits one place on."""
    config, rate = config_of("kernel"), 8_000
    params = {"kernel": equivariant.difference(PATCH)}
    rng = np.random.default_rng(0)
    notes = [(0.25 * i, 220 * 2 ** (rng.integers(0, 24) / 12)) for i in range(20)]
    time = np.arange(6 * rate) / rate

    def played(semitones: int) -> np.ndarray:
        parts = [
            np.exp(-4 * (time - at))
            * (time >= at)
            * np.sin(2 * np.pi * hz * 2 ** (semitones / 12) * time)
            for at, hz in notes
        ]
        return np.sum(parts, axis=0).astype(np.float32)

    def bits(samples: np.ndarray, rotation: int) -> np.ndarray:
        made = patches.repeat_edges(bands.stream([samples], config=config.bands), PATCH)
        return np.asarray(equivariant.encode(params, made, config=config, rotation=rotation)) > 0

    reference, query = bits(played(0), 0), played(2)
    assert np.mean(bits(query, 2) != reference) < 0.2 < 0.35 < np.mean(bits(query, 0) != reference)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_level_and_polarity_change_no_bit(kind):
    config = config_of(kind)
    params = equivariant.init_params(jax.random.key(3), config)
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)

    def states(samples: np.ndarray) -> np.ndarray:
        made = patches.repeat_edges(bands.stream([samples], config=config.bands), PATCH)
        return np.asarray(equivariant.encode(params, made, config=config))

    wanted = states(samples) > 0
    for gain in (-1.0, 2.0**-10, 8.0):  # -60 to +18 dB
        np.testing.assert_array_equal(states(samples * np.float32(gain)) > 0, wanted)
    moved = states(samples + np.float32(0.5))
    np.testing.assert_allclose(moved, states(samples), atol=1e-3)


def test_silence_is_finite():
    config = config_of("kernel")
    params = equivariant.init_params(jax.random.key(0), config)
    nothing = np.zeros((20, config.bands.bands), np.float32)
    assert np.isfinite(equivariant.encode(params, nothing, config=config)).all()


def test_a_patch_must_have_its_bands():
    with pytest.raises(ValueError, match=r"patch.first must be 3 to .*got 2"):
        override(Config(), {"patch.first": 2})
    with pytest.raises(
        ValueError, match=r"encoder.kind=lstm needs encoder.front_end=bands or harmony, got mfcc"
    ):
        override(Config(), {"encoder.kind": "lstm"})
    assert EncoderConfig().front_end == "mfcc"


@pytest.mark.parametrize(("frames", "width"), [(2, 1), (3, 3), (5, 1), (17, 7)])
def test_a_patch_of_any_size_has_a_difference(frames, width):
    kernel = equivariant.difference(replace(PATCH, frames=frames, width=width))
    assert kernel.shape == (frames, width)
    assert np.abs(kernel).max() > 0
    np.testing.assert_allclose(np.asarray(kernel).sum(), 0, atol=1e-7)
