"""Any valid config works from the files to the answers: added, asked, measured; none is trained."""

import jax
import numpy as np
import pytest
import soundfile

from seqhash import controls, evaluate, mfcc
from seqhash.config import Config, override
from seqhash.corpus import Recording
from seqhash.index import compare, identify, ingest
from seqhash.index.catalogue import Identity, open_index

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SECONDS, RATE = 24, 22_050  # of the files, whatever the hasher's rate


def tune(seed: int) -> np.ndarray:
    """Notes of half a second with five partials, and a little noise."""
    rng, t = np.random.default_rng(seed), np.arange(RATE // 2) / RATE
    notes = [
        sum(rng.uniform(0.2, 1) * np.sin(2 * np.pi * k * f * t) for k in range(1, 6))
        * np.exp(-rng.uniform(1, 8) * t)
        for f in rng.choice(110 * 2 ** (np.arange(36) / 12), 2 * SECONDS)
    ]
    samples = np.concatenate(notes) + 0.01 * rng.standard_normal(SECONDS * RATE)
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tunes")
    for seed in range(10):
        soundfile.write(folder / f"{seed}.flac", tune(seed), RATE)
    soundfile.write(folder / "clip.wav", tune(3)[round(7.3 * RATE) : round(14.3 * RATE)], RATE)
    return folder


def config(rate: int, hop: int, bits: int, seconds: float) -> Config:
    """Frames of 25 ms every 10 ms at any rate."""
    fft = 256 if rate < 10_240 else 512 if rate < 20_480 else 1024
    changes = {
        "mfcc.sample_rate": rate,
        "mfcc.frame_length": rate // 40,
        "mfcc.frame_step": rate // 100,
        "mfcc.fft_length": fft,
        "mfcc.high_hz": min(8_000.0, rate / 2),
        "segment.frames": round(100 * seconds),
        "segment.hop": hop,
        "model.hidden_size": bits,
    }
    return override(Config(), changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "hop", "bits", "seconds"),
    [
        (16_000, 50, 64, 2.0),
        pytest.param(8_000, 10, 32, 2.0, marks=pytest.mark.slow),
        pytest.param(8_000, 32, 128, 0.5, marks=pytest.mark.slow),
        pytest.param(16_000, 32, 512, 1.0, marks=pytest.mark.slow),
        pytest.param(22_050, 10, 128, 1.0, marks=pytest.mark.slow),
        pytest.param(22_050, 50, 256, 0.5, marks=pytest.mark.slow),
    ],
)
def test_any_hasher_finds_and_is_measured(files, tmp_path, rate, hop, bits, seconds):
    settings = config(rate, hop, bits, seconds)
    read = [soundfile.read(files / f"{seed}.flac", dtype="float32")[0] for seed in range(2)]
    frames = np.concatenate([mfcc.stream([one], config=settings.mfcc) for one in read])
    statistics = mfcc.Statistics(frames.mean(axis=0), frames.std(axis=0))
    hasher = controls.untrained(jax.random.key(0), settings, statistics)
    assert (hasher.bits, hasher.words, hasher.sample_rate) == (bits, bits // 32, rate)
    sounds = sorted(files.glob("*.flac"))
    with open_index(tmp_path / "index", identity=Identity.of(hasher), create=True) as index:
        counts = ingest.add_files(index, hasher, sounds, workers=1, progress=False)
        assert (counts.added, counts.failed) == (10, [])
        words = index.words_of(row.id for row in index.rows())
        searcher = identify.open_searcher(index, hasher)
    best = searcher.identify_file(files / "clip.wav")[0]
    assert best.path.endswith("3.flac")
    assert best.offset - best.start == pytest.approx(7.3, abs=1 / hasher.code_rate)
    assert 0 <= best.start < best.end <= 7.0 + 0.5 * seconds
    assert best.bit_error_rate < 0.25
    recordings = [
        Recording(f"{path.stem}{role}", path, path.stem, role, "", "", {})
        for role in ("original", "cover")
        for path in sounds
    ]
    system = evaluate.measure([words + words], recordings, lengths=(1, 5))
    assert system.tallies[5].strict.sum() / system.tallies[5].windows.sum() > 0.99
    assert system.tallies[5].windows.sum() == sum(len(one) - 4 for one in words)
    clip = soundfile.read(files / "clip.wav", dtype="float32")[0]
    with pytest.raises(ValueError, match="longer than"):
        searcher.identify(clip[: round(0.4 * rate * seconds)])


def test_a_band_above_half_the_rate_is_refused_when_the_config_is_made():
    with pytest.raises(ValueError, match="high_hz <= 4000"):
        override(Config(), {"mfcc.sample_rate": 8_000})


def test_recordings_of_one_code_are_compared_whatever_the_hop():
    hasher = controls.untrained(
        jax.random.key(0),
        config(8_000, 32, 32, 0.5),
        mfcc.Statistics(np.zeros(13, np.float32), np.ones(13, np.float32)),
    )
    count = round(hasher.shortest_seconds * 8_000)
    samples = tune(0)[:count]
    found = compare.compare_samples(samples, samples, hasher=hasher, shifts=hasher.shifts)
    assert (found.codes, found.distance) == (1, 0)
