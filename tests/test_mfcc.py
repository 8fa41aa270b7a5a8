import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import python_speech_features as psf
import scipy.fft
import soundfile
import soxr

from seqhash import mfcc as m
from seqhash import reference
from seqhash.config import Config, MfccConfig, SegmentConfig, override, to_flat_dict

PSF = MfccConfig()


def music_like(samples: int, seed: int = 0) -> np.ndarray:
    """Partials that come and go in coloured noise, with a stretch of digital silence."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    tones = sum(
        np.sin(2 * np.pi * f * t + f) / (i + 1) for i, f in enumerate([220.0, 440.3, 661.0, 1320.7])
    )
    signal = 0.2 * tones * (1 + np.sin(2 * np.pi * 3 * t)) + 0.01 * rng.standard_normal(samples)
    signal[samples // 2 : samples // 2 + 2000] = 0
    return signal.astype(np.float32)


def psf_mfcc(samples: np.ndarray) -> np.ndarray:
    return psf.mfcc(samples.astype(np.float64), 16_000, nfft=512)


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 560, 561, 16_000, 16_080, 16_081, 50_000])
def test_psf_of_any_length(samples):
    signal = music_like(samples)
    expected = psf_mfcc(signal)
    assert m.frame_count(samples, PSF) == len(expected)
    # float32 against float64: 1e-3 of max(|reference|, 1) is what is promised, the liftered DCT of
    # ln reaches 3e-4.
    error = np.abs(m.stream([signal], config=PSF) - expected) / np.maximum(np.abs(expected), 1)
    assert error.max() < 1e-3


def test_one_second_has_99_frames_and_no_segment():
    assert m.frame_count(16_000, PSF) == 99
    assert m.frame_count(16_081, PSF) == 100
    assert m.segment_count(99, config=SegmentConfig()) == 0
    assert m.segment_count(100, config=SegmentConfig()) == 1
    assert m.segment_count(125, config=SegmentConfig()) == 2


def test_stream_does_not_depend_on_the_blocks_and_equals_the_pure_function():
    # Longer than one block of the stream, so that windows are joined.
    signal = music_like(m.CHUNK * m.STREAM_CHUNKS * 160 + 12_345)
    whole = m.stream([signal], config=PSF)
    rng = np.random.default_rng(1)
    cuts = np.sort(rng.integers(0, len(signal), 40))
    np.testing.assert_array_equal(m.stream(np.split(signal, cuts), config=PSF), whole)
    pure = jax.jit(functools.partial(m.mfcc, config=PSF))(signal)
    np.testing.assert_allclose(np.asarray(pure), whole, rtol=1e-4, atol=1e-3)
    assert len(whole) == m.frame_count(len(signal), PSF)


@pytest.mark.parametrize("samples", [0, 1, 2, 399, 400, 401, 560, 561])
def test_every_way_to_cepstra_has_the_same_frames_of_next_to_nothing(samples):
    signal = music_like(samples)
    count = m.frame_count(samples, PSF)
    assert count == (len(psf_mfcc(signal)) if samples else 0)
    pure = np.asarray(m.mfcc(signal, config=PSF))
    assert pure.shape == (count, 13)
    ways = {
        "stream": m.stream([signal], config=PSF),
        "a sample a block": m.stream(list(signal[:, None]), config=PSF),
        "empty blocks": m.stream([signal[:0], signal, signal[:0]], config=PSF),
        "numpy": reference.mfcc(signal.astype(np.float64), to_flat_dict(Config())),
    }
    for name, cepstra in ways.items():
        assert cepstra.shape == pure.shape, name
        np.testing.assert_allclose(cepstra, pure, rtol=1e-3, atol=1e-3, err_msg=name)


def test_vmap_over_recordings():
    signals = np.stack([music_like(20_000, seed) for seed in range(3)])
    batch = jax.vmap(functools.partial(m.mfcc, config=PSF))(signals)
    for signal, cepstra in zip(signals, batch, strict=True):
        np.testing.assert_allclose(cepstra, m.stream([signal], config=PSF), rtol=1e-4, atol=1e-3)


def test_steps_against_their_oracles():
    signal = music_like(4000)
    with_first = jnp.concatenate([jnp.zeros(1), signal])
    emphasised = np.asarray(m.preemphasize(with_first, coefficient=0.97))
    np.testing.assert_allclose(emphasised, psf.sigproc.preemphasis(signal, 0.97), atol=1e-6)
    frames = np.asarray(
        m.frame(jnp.asarray(np.pad(signal, (0, 800))), frames=23, length=400, step=160)
    )
    np.testing.assert_array_equal(frames, psf.sigproc.framesig(signal, 400, 160)[:23])
    power = np.asarray(m.power_spectrum(jnp.asarray(frames), fft_length=512)) / 512
    np.testing.assert_allclose(power, psf.sigproc.powspec(frames, 512), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(
        m.mel_filters(PSF).T, psf.base.get_filterbanks(26, 512, 16_000), atol=1e-12
    )
    identity = scipy.fft.dct(np.eye(26), type=2, norm="ortho")[:, :13]
    np.testing.assert_allclose(m.dct_matrix(PSF), identity, atol=1e-12)
    np.testing.assert_allclose(
        m.lifter_weights(PSF), psf.base.lifter(np.ones((1, 13)), 22)[0], atol=1e-12
    )
    energies = np.asarray(m.mel_energies(jnp.asarray(power * 512), config=PSF))
    np.testing.assert_allclose(
        energies[:, :-1], power @ psf.base.get_filterbanks(26, 512, 16_000).T, rtol=1e-5
    )
    np.testing.assert_allclose(energies[:, -1], power.sum(axis=1), rtol=1e-5)
    logs = np.asarray(m.log_levels(jnp.asarray(energies)))
    np.testing.assert_allclose(
        logs, np.log(np.where(energies == 0, np.finfo(float).eps, energies)), rtol=1e-5
    )
    bands = scipy.fft.dct(logs[:, :-1], type=2, norm="ortho")[:, :13]
    np.testing.assert_allclose(m.dct(logs[:, :-1], config=PSF), bands, atol=1e-4)
    np.testing.assert_allclose(
        m.lifter(jnp.asarray(bands), config=PSF), psf.base.lifter(bands, 22), rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "shape"),
    [
        (functools.partial(m.preemphasize, coefficient=0.97), (2000,)),
        (functools.partial(m.frame, frames=9, length=400, step=160), (2000,)),
        (functools.partial(m.power_spectrum, fft_length=512), (9, 400)),
        (functools.partial(m.mel_energies, config=PSF), (9, 257)),
        (m.log_levels, (9, 27)),
        (functools.partial(m.dct, config=PSF), (9, 26)),
        (functools.partial(m.lifter, config=PSF), (9, 13)),
    ],
)
def test_every_step_is_jittable_and_vmappable(step, shape):
    several = np.random.default_rng(3).random((3, *shape), np.float32)
    together = jax.jit(jax.vmap(step))(several)
    for one, got in zip(several, together, strict=True):
        np.testing.assert_allclose(got, step(jnp.asarray(one)), rtol=1e-4, atol=1e-5)


def test_int16_samples_add_a_constant_to_the_log_energy():
    signal = music_like(8000)[:4000]
    scaled = m.stream([signal * 32768], config=PSF) - m.stream([signal], config=PSF)
    np.testing.assert_allclose(scaled[:, 0], 2 * np.log(32768), atol=1e-4)
    np.testing.assert_allclose(scaled[:, 1:], 0, atol=2e-3)


def test_digital_silence_is_the_tiny_constant_of_the_reference():
    got = m.stream([np.zeros(2000, np.float32)], config=PSF)
    np.testing.assert_allclose(got[:, 0], np.log(np.finfo(np.float64).eps), rtol=1e-6)
    np.testing.assert_allclose(got[:, 1:], 0, atol=1e-4)


def test_segments_are_cut_from_the_frames_of_the_whole_recording():
    cepstra = np.arange(160 * 13, dtype=np.float32).reshape(160, 13)
    segments = np.asarray(m.cut_segments(jnp.asarray(cepstra), config=SegmentConfig()))
    assert segments.shape == (3, 100, 13)
    for i, segment in enumerate(segments):
        np.testing.assert_array_equal(segment, cepstra[25 * i : 25 * i + 100])


@pytest.mark.parametrize("kind", ["corpus", "recording", "segment", "none"])
def test_normalisation(kind):
    rng = np.random.default_rng(2)
    cepstra = rng.normal(5, 3, (200, 13)).astype(np.float32)
    cepstra[:, 4] = 7.0  # a constant coefficient must not divide by zero
    config = SegmentConfig(normalisation=kind, clip=2.0)
    statistics = m.frame_statistics(jnp.asarray(cepstra), 150)
    np.testing.assert_allclose(statistics.mean, cepstra[:150].mean(axis=0), rtol=1e-5)
    segments = jnp.asarray(cepstra[:100])[None]
    got = np.asarray(
        m.normalise(segments, m.Statistics(*(s[None, None] for s in statistics)), config=config)
    )
    chosen = {"corpus": cepstra[:150], "recording": cepstra[:150], "segment": cepstra[:100]}.get(
        kind
    )
    if chosen is None:
        np.testing.assert_array_equal(got[0], cepstra[:100])
        return
    expected = (cepstra[:100] - chosen.mean(axis=0)) / np.maximum(chosen.std(axis=0), 1e-3)
    np.testing.assert_allclose(got[0], np.clip(expected, -2, 2), atol=2e-3)
    assert np.abs(got).max() == 2.0


def test_other_parameters_match_the_reference_too():
    config = override(
        Config(),
        {
            "mfcc.coeffs": 20,
            "mfcc.filters": 40,
            "mfcc.lifter": 0,
            "mfcc.low_hz": 100.0,
            "mfcc.frame_step": 200,
        },
    ).mfcc
    signal = music_like(20_000)
    expected = psf.mfcc(
        signal.astype(np.float64),
        16_000,
        winstep=0.0125,
        numcep=20,
        nfilt=40,
        nfft=512,
        lowfreq=100,
        ceplifter=0,
    )
    np.testing.assert_allclose(m.stream([signal], config=config), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_oracle_on_every_real_recording(corpora):
    """The first 5 s of each; experiments.benchmark mfcc --corpora reads them whole."""
    manifests = sorted(corpora.glob("*/manifest.csv"))
    assert manifests
    for manifest in manifests:
        with manifest.open() as file:
            paths = [manifest.parent / row["path"] for row in csv.DictReader(file)]
        for path in paths:
            with soundfile.SoundFile(path) as audio:
                samples = audio.read(5 * audio.samplerate, dtype="float32", always_2d=True)
                signal = soxr.resample(
                    np.ascontiguousarray(samples[:, 0]), audio.samplerate, 16_000
                )
            expected = psf_mfcc(signal)
            error = np.abs(m.stream([signal], config=PSF) - expected) / np.maximum(
                np.abs(expected), 1
            )
            assert 0 < error.max() <= 1e-3, path
