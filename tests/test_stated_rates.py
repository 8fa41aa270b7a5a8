"""A score is a probability: how many strangers are answered, at three stated rates.

A few of each kind; ``SEQHASH_STRANGERS=100 pytest -s tests/test_stated_rates.py`` asks so many, of
each kind and length, of each collection.
"""

import os
from dataclasses import replace

import numpy as np
import pytest

import seqhash
from tests.test_identify_bands import searcher_of, sparse

STRANGERS = int(os.environ.get("SEQHASH_STRANGERS", "4"))
RATE = 8_000
RATES = (0.1, 0.01, 0.001)
LENGTHS = (1.0, 3.0)  # s


def drums(seed, seconds):
    """A kick on the beat and a hat off it."""
    rng, out = np.random.default_rng(seed), np.zeros(round(seconds * RATE))
    time, beat = np.arange(2_000) / RATE, round(60 / rng.uniform(90, 150) * RATE)
    kick = np.exp(-20 * time) * np.sin(2 * np.pi * rng.uniform(45, 80) * time)
    fall = np.exp(-time * rng.uniform(40, 200))
    for begin in range(0, len(out) - 5_000, beat):
        out[begin : begin + 2_000] += 0.7 * kick
        out[begin + beat // 2 :][:2_000] += 0.1 * rng.standard_normal(2_000) * fall
    return out


def drone(seed, seconds):
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    pitch, phases = rng.uniform(50, 200), rng.uniform(0, 6, 8)
    return sum(np.sin(2 * np.pi * k * pitch * time + p) / k for k, p in enumerate(phases, 1))


def noise(seed, seconds):
    """Between white and brown."""
    rng, count = np.random.default_rng(seed), round(seconds * RATE)
    bins = np.fft.rfft(rng.standard_normal(count))
    return np.fft.irfft(bins / (1 + np.arange(len(bins))) ** rng.uniform(0, 1), count)


def syllables(seed, seconds):
    """Voiced, of three formants that jump."""
    rng, parts, left = np.random.default_rng(seed), [], round(seconds * RATE)
    while left > 0:
        time, pitch = np.arange(rng.integers(600, 2_400)) / RATE, rng.uniform(90, 220)
        formants = rng.uniform((300, 900, 2_300), (800, 2_300, 3_200))
        levels = [np.exp(-(((k * pitch - formants) / 120) ** 2)).sum() for k in range(1, 18)]
        voice = sum(a * np.sin(2 * np.pi * k * pitch * time) for k, a in enumerate(levels, 1))
        parts += [voice * np.hanning(len(time)), np.zeros(rng.integers(0, 1_000))]
        left -= len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts)[: round(seconds * RATE)]


KINDS = {"tunes": sparse, "drums": drums, "drones": drone, "noises": noise, "speech": syllables}


@pytest.mark.slow
@pytest.mark.parametrize("there", ["tunes", "drums", "speech"])
def test_strangers_are_answered_no_more_often_than_is_stated(there):
    hasher = seqhash.load_hasher("semitone-32")
    sounds = {f"{i}": KINDS[there](i, 30.0).astype("f") for i in range(20)}
    index, asked, answered = searcher_of(hasher, sounds), 0, dict.fromkeys(RATES, 0)
    searchers = {rate: replace(index, false_positive_rate=rate) for rate in RATES}
    for kind, make in KINDS.items():
        before = dict(answered)
        for seconds in LENGTHS:
            for seed in range(STRANGERS):
                clip = make(1_000 + seed, seconds + 2)[RATE:][: round(seconds * RATE)]
                clip, asked = (0.3 * clip / np.abs(clip).max()).astype("f"), asked + 1
                for rate, searcher in searchers.items():
                    answered[rate] += bool(searcher.identify(clip))
        print(there, kind, {rate: answered[rate] - before[rate] for rate in RATES})
    print(f"{there}: of {asked} strangers {answered}")
    for rate, count in answered.items():
        assert count <= rate * asked + 3 * np.sqrt(rate * asked) + 1
