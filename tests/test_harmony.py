"""The front end of versions: librosa's constant Q, tuning, and what a code must not depend on."""

import functools

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from seqhash import harmony, songbook
from seqhash.config import HarmonyConfig

CONFIG = HarmonyConfig()
RATE = CONFIG.sample_rate


def tones(*hz: float, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.05 * sum(np.sin(2 * np.pi * f * time) for f in hz)).astype(np.float32)


def middle(pitch: int) -> float:
    return CONFIG.low_hz * 2 ** (pitch / 12)


def magnitudes(samples: np.ndarray) -> np.ndarray:
    """Magnitudes of semitones, (frames, pitches)."""
    powers = harmony.stream([samples], config=CONFIG)
    return harmony.of_recording(powers, config=CONFIG) ** 2


@pytest.fixture(scope="module")
def music():
    samples = songbook.render("greensleeves", "orig", seed=0)[: 12 * songbook.SAMPLE_RATE]
    return librosa.resample(samples, orig_sr=songbook.SAMPLE_RATE, target_sr=RATE)


def test_a_sinusoid_has_its_amplitude_in_its_semitone():
    for pitch in (3, 24, 40, 70):
        powers = harmony.stream([tones(middle(pitch))], config=CONFIG)
        made = np.asarray(harmony.semitones(jnp.asarray(powers), 0, config=CONFIG)) ** 2
        np.testing.assert_allclose(made[:, pitch], 0.05, rtol=0.02)
        assert (np.argmax(made, axis=1) == pitch).all()


@pytest.mark.parametrize(("scale", "median", "nearly_all"), [(1.0, 0.93, 0.89), (1.5, 0.97, 0.93)])
def test_magnitudes_are_librosas(music, scale, median, nearly_all):
    """Of music, from 220 Hz on where windows of a quarter of a second resolve semitones: cosine of
    ours with the root mean square of librosa's over our window, which is longer than its. Its own
    bands overlap more; at filters 1.5 times as long they are as narrow as ours.
    """
    transform = functools.partial(
        librosa.cqt, sr=RATE, hop_length=64, fmin=middle(24), n_bins=48, tuning=0.0,
        filter_scale=scale,
    )  # fmt: skip
    made = magnitudes(music)[:, 24:]
    unit = np.abs(transform(tones(middle(48)) / 0.05))[24].max()  # a sinusoid of amplitude 1
    wanted = (np.abs(transform(music)) / unit) ** 2
    weight = np.hanning(CONFIG.frame_length) ** 2
    begins = np.arange(len(made))[:, None] * CONFIG.frame_step
    share = np.interp(
        64 * np.arange(wanted.shape[1]) - begins, np.arange(len(weight)), weight, left=0, right=0
    )
    smeared = np.sqrt(share @ wanted.T / share.sum(axis=1, keepdims=True))
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(smeared, axis=1)
    alike = (made * smeared).sum(axis=1) / lengths
    assert np.median(alike) > median
    assert np.quantile(alike, 0.05) > nearly_all


@pytest.mark.parametrize("thirds", [-1, 0, 1])
def test_tuning_is_found_and_taken_out(thirds):
    hz = [middle(pitch) * 2 ** (thirds / 36) for pitch in (27, 39, 43, 46, 55)]
    powers = harmony.stream([tones(*hz)], config=CONFIG)
    assert harmony.tuning(powers, config=CONFIG) == thirds
    made = harmony.of_recording(powers, config=CONFIG)
    assert set(np.argsort(made.mean(axis=0))[-5:]) == {27, 39, 43, 46, 55}
    assert harmony.tuning(powers[:0], config=CONFIG) == 0
    assert harmony.tuning(np.zeros_like(powers), config=CONFIG) == 0  # of silence none


def test_partials_and_what_stands_out(music):
    semitones = harmony.of_recording(harmony.stream([music], config=CONFIG), config=CONFIG)[:40]
    partials = np.asarray(harmony.partials(jnp.asarray(semitones)))
    salient = np.asarray(harmony.salient(jnp.asarray(semitones), config=CONFIG))
    for t, b in np.ndindex(10, semitones.shape[1]):  # by hand
        beside = semitones[t, max(0, b - 1) : b + 2]
        kept = semitones[t, b] if semitones[t, b] == beside.max() else 0.0
        around = semitones[t, max(0, b - CONFIG.around) : b + CONFIG.around + 1]
        assert partials[t, b] == np.float32(kept)
        assert salient[t, b] == pytest.approx(max(0.0, kept - around.mean()), abs=1e-5)


def test_windows_are_means_divided_by_their_own(music):
    semitones = harmony.of_recording(harmony.stream([music], config=CONFIG), config=CONFIG)
    heard = harmony.hearings(jnp.asarray(semitones), config=CONFIG)
    np.testing.assert_array_equal(heard[:, 0], harmony.partials(jnp.asarray(semitones)))
    made = np.asarray(harmony.windows(heard, config=CONFIG))
    assert made.shape[1:] == (5, 2, 72)
    cut = np.asarray(heard[2 * CONFIG.hop :][:15]).reshape(5, 3, 2, 72).mean(axis=1)
    for i in range(2):
        np.testing.assert_allclose(made[2, :, i], cut[:, i] / cut[:, i].mean() - 1, atol=1e-4)
    louder = np.asarray(harmony.windows(7 * heard, config=CONFIG))
    np.testing.assert_allclose(louder, made, atol=1e-4)


def test_a_semitone_higher_is_a_place_further(music):
    """The same tones, transposed as a synthesiser would: the next semitones have them."""
    pitches = (20, 27, 32, 41, 50)
    low, high = (
        harmony.of_recording(
            harmony.stream([tones(*(middle(p + by) for p in pitches))], config=CONFIG),
            config=CONFIG,
        )
        for by in (0, 5)
    )
    np.testing.assert_allclose(high[5:-5, 15:60], low[5:-5, 10:55], atol=0.02)
