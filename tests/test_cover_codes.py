"""Hashers of works: a transposition turns the code; pieces, queries, weights, plain files."""

import jax
import librosa
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqhash import controls, cover_codes, equivariant, export, networks, reference, songbook
from seqhash.band_codes import Variant
from seqhash.codes import unpack
from seqhash.config import Config, override, to_flat_dict
from seqhash.index import compare

CONFIG = override(Config(), {"encoder.front_end": "harmony", "encoder.kind": "kernel"})
RATE = CONFIG.harmony.sample_rate


@pytest.fixture(scope="module")
def hasher():
    return export.load_hasher("harmony-120")


@pytest.fixture(scope="module")
def music():
    samples = songbook.render("greensleeves", "orig", seed=0)[: 12 * songbook.SAMPLE_RATE]
    return librosa.resample(samples, orig_sr=songbook.SAMPLE_RATE, target_sr=RATE)


def tones(pitches: np.ndarray, seconds: float = 0.3) -> np.ndarray:
    """Chords (notes, 3) of five decaying partials, MIDI numbers."""
    time = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((pitches[..., None] - 69) / 12) * np.arange(1, 6)
    parts = np.sin(2 * np.pi * hz[..., None] * time) * np.exp(-3 * time) / np.arange(1, 6)[:, None]
    return (0.05 * parts.sum(axis=(1, 2)).reshape(-1)).astype(np.float32)


def ring(words: np.ndarray) -> np.ndarray:
    """Bits (codes, 120) of words."""
    return np.asarray(unpack(words))[:, :120]


def test_what_a_hasher_tells(hasher):
    assert (hasher.bits, hasher.words, hasher.ring, hasher.code_rate) == (128, 4, 120, 4.0)
    assert hasher.segment_seconds == pytest.approx(0.956)
    shortest = round(hasher.shortest_seconds * RATE)
    noise = np.random.default_rng(0).standard_normal(shortest).astype(np.float32) / 10
    assert len(hasher.hash_samples(noise)) == 1
    assert len(hasher.hash_samples(noise[:-1])) == 0
    assert len(hasher.hash_samples(noise[:0])) == 0
    assert not ring(hasher.hash_samples(noise))[:, 120:].any()
    with pytest.raises(ValueError, match=r"at least 0\.956 s long, got 0\.906"):
        hasher.hash_shifts([noise[:-1]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kernel", "mlp", "lstm"])
def test_windows_that_rise_have_states_that_turn(kind):
    """Exactly, but for the classes that begin anew an octave lower, and as loops say."""
    config = override(CONFIG, {"encoder.kind": kind, "encoder.hidden": 4})
    params = jax.tree.map(np.asarray, equivariant.init_harmony(jax.random.key(0), config))
    windows = np.random.default_rng(0).standard_normal((3, 5, 2, 72)).astype(np.float32)
    windows[..., -7:] = 0  # beyond either end there is nothing
    states = np.asarray(equivariant.of_windows(params, windows, config=config))
    assert states.shape == (3, 12, 10)
    higher = np.roll(windows, 7, axis=3)
    made = np.asarray(equivariant.of_windows(params, higher, config=config))
    np.testing.assert_allclose(made[:, 7:], states[:, :5], atol=1e-5)
    assert np.abs(made[:, :5] - states[:, 7:]).max() > 0.1
    if kind == "kernel":
        shared = params["kernel"].reshape(5, 2, 83, 10)
        by_hand = sum(
            shared[t, i, m - 3 + 11, 2] * windows[1, t, i, m] for t, i, m in np.ndindex(5, 2, 72)
        )
        assert states[1, 3, 2] == pytest.approx(by_hand, abs=1e-4)
        views = np.asarray(equivariant.views(windows)).reshape(3, 12, -1)
        np.testing.assert_allclose(views @ params["kernel"], states, atol=1e-4)
    if kind == "mlp":
        seen = equivariant.views(windows).reshape(36, -1)
        wanted = networks.SharedMlp(4, 10).apply({"params": params}, seen)
        np.testing.assert_allclose(states.reshape(36, 10), wanted, atol=1e-4)


@pytest.mark.parametrize("by", [-4, 1, 6])
def test_synthesised_in_another_key_the_code_is_turned(hasher, by):
    pitches = np.random.default_rng(1).integers(55, 72, (40, 3))
    low, high = (hasher.hash_samples(tones(pitches + shift)) for shift in (0, by))
    turned = cover_codes.turned(ring(high), by)
    assert np.mean(turned != ring(low)) < 0.12
    others = [cover_codes.turned(ring(high), r) for r in range(12) if r != by % 12]
    assert min(np.mean(other != ring(low)) for other in others) > 0.3


@pytest.mark.slow
def test_real_audio_played_faster_is_turned(hasher, music):
    """Resampled by three semitones: the codes of the same moments, a query in that key."""
    faster = librosa.resample(music, orig_sr=RATE * 2 ** (3 / 12), target_sr=RATE)
    low, high = hasher.hash_samples(music), hasher.hash_samples(faster)
    at = np.rint((np.arange(len(high)) + 1.9) * 2 ** (3 / 12) - 1.9).astype(int)
    there = at < len(low)
    beside = ring(low)[at[there]]
    errors = [np.mean(cover_codes.turned(ring(high)[there], by) != beside) for by in range(12)]
    assert int(np.argmin(errors)) == 3
    assert errors[3] < 0.3 < sorted(errors)[1]


def test_level_and_polarity_move_no_bit(hasher, music):
    wanted = hasher.hash_samples(music)
    np.testing.assert_array_equal(hasher.hash_samples(-music), wanted)
    assert np.mean(ring(hasher.hash_samples(music / 8)) != ring(wanted)) < 1e-3


def test_pieces_are_the_whole(hasher, music, monkeypatch):
    wanted = hasher.hash_samples(music)
    monkeypatch.setattr(cover_codes, "PIECE", 64)
    cut = [music[:7], music[7:100_001], music[100_001:]]
    np.testing.assert_array_equal(hasher.hash_blocks(cut), wanted)
    states = hasher.states_of(hasher.frames_of(cut))
    np.testing.assert_array_equal(cover_codes.words_of(states), wanted)


def test_a_query_knows_keys_and_weights(hasher, music):
    frames = hasher.frames_of([music[: 6 * RATE]])
    (plain,) = hasher.hash_query(frames)
    views = list(hasher.views([music[: 6 * RATE]]))
    assert [variant.pitch for variant, _ in views] == [0, *range(-5, 0), *range(1, 7)]
    assert sum(variant.prior for variant, _ in views) == pytest.approx(1)
    for variant, (codes,) in views:
        turned = cover_codes.turned(ring(plain), int(variant.pitch))
        np.testing.assert_array_equal(ring(codes[:, :4]), turned)
    states = hasher.states_of(frames)
    asked = cover_codes.asked(states, weighted=True)
    assert asked.shape == (12, len(states), 128)
    heard = asked[0, :, :120] != 0  # the smallest states weigh nothing
    assert np.mean(heard) > 0.98
    np.testing.assert_array_equal(asked[0, :, :120][heard] > 0, states[heard] > 0)
    np.testing.assert_array_equal(
        asked[5], np.pad(np.roll(asked[0, :, :120], -50, 1), ((0, 0), (0, 8)))
    )
    with pytest.raises(ValueError, match="whole semitones"):
        hasher.hash_query(frames, variant=Variant(0.5))
    with pytest.raises(ValueError, match="divide the hop of 5"):
        hasher.hash_query(frames, shifts=2)


def test_the_reference_has_the_same_bits(hasher, music):
    samples = music[: 5 * RATE]
    wanted = reference.hash_samples(export.find_hasher("harmony-120"), samples)
    assert np.mean(np.asarray(unpack(hasher.hash_samples(samples) ^ wanted))) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kernel", "lstm"])
def test_the_reference_has_the_other_kinds(kind, music):
    config = override(CONFIG, {"encoder.kind": kind, "encoder.hidden": 4})
    params = equivariant.init_harmony(jax.random.key(0), config)
    made = cover_codes.make_cover_hasher(config, params, name=kind)
    states = made.states_of(made.frames_of([music[: 2 * RATE]]))
    flat = {"/".join(key): np.asarray(value) for key, value in flatten_dict(params).items()}
    wanted = reference.states_of({"config": to_flat_dict(config)}, flat, music[: 2 * RATE])
    np.testing.assert_allclose(states, wanted, atol=1e-3)


def test_plain_files(tmp_path, music):
    made = controls.random_harmony(jax.random.key(0), CONFIG)
    export.export_hasher(made, tmp_path / "h", card="# none")
    again = export.load_hasher(tmp_path / "h")
    assert again.digest == made.digest
    np.testing.assert_array_equal(again.hash_samples(music), made.hash_samples(music))
    fewer = override(CONFIG, {"harmony.bits": 2})
    assert controls.random_harmony(jax.random.key(0), fewer).words == 1


def test_a_match_in_another_key_is_drawn_in_its_key(hasher):
    pitches = np.random.default_rng(2).integers(55, 72, (30, 3))
    words, query = hasher.hash_samples(tones(pitches)), tones(pitches + 3)
    where = {"start": 0.0, "end": len(query) / RATE, "offset": 0.0, "hasher": hasher}
    found = compare.compare_match(query, words, pitch=3.0, **where)
    assert found.bit_error_rate < 0.12
    assert compare.compare_match(query, words, **where).bit_error_rate > 0.3
    faster = tones(pitches + 3, 0.26)
    where["end"] = len(faster) / RATE
    found = compare.compare_match(faster, words, pitch=3.0, tempo=0.3 / 0.26, **where)
    assert found.bit_error_rate < 0.25
    assert compare.compare_match(faster, words, pitch=3.0, **where).bit_error_rate > 0.3


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match=r"needs encoder\.kind=kernel, mlp or lstm"):
        override(CONFIG, {"encoder.kind": "autoencoder"})
    with pytest.raises(ValueError, match=r"harmony\.bits must be positive"):
        override(CONFIG, {"harmony.bits": 0})
    with pytest.raises(ValueError, match=r"harmony\.octaves"):
        override(CONFIG, {"harmony.octaves": 7})
    with pytest.raises(ValueError, match=r"harmony\.fft_length"):
        override(CONFIG, {"harmony.fft_length": 1_024})
    with pytest.raises(ValueError, match=r"harmony\.hop must be positive"):
        override(CONFIG, {"harmony.hop": 0})
    with pytest.raises(ValueError, match=r"needs encoder\.front_end=harmony"):
        cover_codes.make_cover_hasher(Config(), {}, name="x")
