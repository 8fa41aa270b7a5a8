"""Hashers of bands: pieces, shifts, variants, weights."""

import jax
import numpy as np
import pytest

from seqhash import band_codes, codes, equivariant, export, reference
from seqhash.band_codes import Variant
from seqhash.config import Config, override

RATE = 8_000


@pytest.fixture(scope="module")
def hasher():
    config = override(Config(), {"encoder.kind": "kernel", "encoder.front_end": "bands"})
    params = equivariant.init_params(jax.random.key(0), config)
    return band_codes.make_band_hasher(config, params, name="difference")


def tune(seconds: float, *, seed: int = 0, speed: float = 1.0) -> np.ndarray:
    """Decaying tones at random times, played at another speed."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE / speed)) / RATE * speed
    samples = np.zeros(len(time))
    for _ in range(round(8 * seconds)):
        at, hz = rng.uniform(0, seconds), 150 * 2 ** rng.uniform(0, 3)
        there = slice(*np.searchsorted(time, [at, at + 0.6]))
        local = time[there] - at
        samples[there] += np.exp(-6 * local) * np.sin(2 * np.pi * hz * local)
    return (0.1 * samples).astype(np.float32)


def test_what_a_hasher_tells(hasher):
    assert (hasher.bits, hasher.words, hasher.sample_rate, hasher.shifts) == (32, 1, RATE, 2)
    assert (hasher.code_rate, hasher.hop) == (16.0, 500)
    shortest = round(hasher.shortest_seconds * RATE)
    assert len(hasher.hash_samples(tune(1)[:shortest])) == 1
    assert len(hasher.hash_samples(tune(1)[: shortest - 1])) == 0
    assert len(hasher.hash_samples(tune(1)[: RATE // 2])) == 6
    assert len(hasher.hash_samples(tune(1))) == 14


def test_pieces_are_the_whole(hasher, monkeypatch):
    samples = tune(40)
    states = hasher.states_of(hasher.frames_of([samples]))
    wanted = np.asarray(codes.pack(states > 0))
    np.testing.assert_array_equal(hasher.hash_samples(samples), wanted)
    monkeypatch.setattr(band_codes, "PIECE", 128)
    cut = [samples[:7], samples[7:100_001], samples[100_001:]]
    np.testing.assert_array_equal(hasher.hash_blocks(cut), wanted)
    (streamed,) = codes.hash_streams(hasher, [cut])
    np.testing.assert_array_equal(streamed, wanted)


def test_shifts_interleave(hasher):
    """Both shifts of a query are codes of the recording from one frame later on."""
    samples = tune(6)
    first, second = hasher.hash_shifts([samples])
    np.testing.assert_array_equal(first, hasher.hash_samples(samples))
    later = hasher.hash_samples(samples[hasher.config.bands.frame_step :])
    np.testing.assert_array_equal(second, later)
    with pytest.raises(ValueError, match=r"shifts must divide the hop of 2 frames, got 3"):
        hasher.hash_shifts([samples], shifts=3)
    with pytest.raises(ValueError, match=r"at least 0.159 s long, got 0 s"):
        hasher.hash_shifts([samples[:100]])


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_variant_brings_a_query_back(hasher, factor):
    """A tune played faster is a tune played faster and higher, and the variant says so."""
    reference = hasher.hash_samples(tune(8))
    frames = hasher.frames_of([tune(8, speed=factor)])
    variant = Variant(pitch=12 * np.log2(factor), tempo=factor)

    def errors(variant: Variant) -> float:
        (query, _) = hasher.hash_query(frames, variant=variant)
        count = min(len(query), len(reference)) - 2
        return float(np.bitwise_count(query[1:count] ^ reference[1:count]).mean() / 32)

    assert errors(variant) < 0.2 < 0.35 < errors(band_codes.AS_IS)


def test_weights_are_the_states(hasher):
    samples = tune(5)
    frames = hasher.frames_of([samples])
    states = np.abs(hasher.states_of(frames))
    made = hasher.hash_query(frames, weighted=True)[0]
    words, one, two = np.split(made, 3, axis=1)
    np.testing.assert_array_equal(words, hasher.hash_samples(samples))
    weight = np.asarray(codes.unpack(one)).astype(int) + 2 * np.asarray(codes.unpack(two))
    wanted = np.round(3 * np.tanh(states / states.mean()))
    assert np.mean(weight == wanted) > 0.999  # rounding of the mean
    assert set(np.unique(weight)) == {0, 1, 2, 3}


def test_only_bands_have_band_hashers():
    with pytest.raises(ValueError, match=r"needs encoder\.front_end=bands, got mfcc"):
        band_codes.make_band_hasher(Config(), {}, name="x")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kernel", "mlp", "lstm", "autoencoder"])
def test_exported_loaded_and_read_by_numpy_alone(kind, tmp_path):
    changes = {"encoder.kind": kind, "encoder.front_end": "bands", "encoder.hidden": 6}
    config = override(Config(), changes | {"model.hidden_size": 32})
    params = equivariant.init_params(jax.random.key(1), config)
    hasher = band_codes.make_band_hasher(config, params, name=kind)
    folder = export.export_hasher(hasher, tmp_path / kind, card="A card.")
    loaded = export.load_hasher(folder)
    assert (loaded.name, loaded.digest) == (kind, hasher.digest)
    for seconds in (0.1, 0.4, 3):
        samples = tune(3)[: round(seconds * RATE)]
        words = loaded.hash_samples(samples)
        np.testing.assert_array_equal(words, hasher.hash_samples(samples))
        in_numpy = reference.hash_samples(folder, samples)
        assert in_numpy.shape == words.shape
        assert np.bitwise_count(in_numpy ^ words).sum() <= 0.002 * 32 * len(words)  # of rounding


def test_what_it_was_trained_with_is_no_part_of_its_identity(hasher):
    other = override(hasher.config, {"pairs.steps": 7, "augment.room": 0.9})
    again = band_codes.make_band_hasher(other, hasher.params, name="again")
    assert again.digest == hasher.digest
    wider = override(hasher.config, {"bands.exponent": 0.4})
    assert band_codes.make_band_hasher(wider, hasher.params, name="x").digest != hasher.digest
