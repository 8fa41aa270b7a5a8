"""A score is a probability: how many strangers are answered, at three stated rates.

A few of each kind; ``SEQHASH_STRANGERS=100 pytest -s tests/test_stated_rates.py`` asks so many, of
each kind and length, of each collection. Those of its own kind are asked of several collections,
since how near they come differs between them.
"""

import itertools
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
INDEXES = min(4, max(1, STRANGERS // 4))


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
@pytest.mark.parametrize(
    ("there", "count"),
    [("tunes", 20), ("drums", 20), ("speech", 20), ("drums", 40), ("drones", 40)],
)
def test_strangers_are_answered_no_more_often_than_is_stated(there, count):
    hasher = seqhash.load_hasher("semitone-32")
    indexes = []
    for first in range(0, 10_000 * INDEXES, 10_000):
        sounds = {f"{i}": KINDS[there](first + i, 30.0).astype("f") for i in range(count)}
        indexes.append(replace(searcher_of(hasher, sounds), false_positive_rate=max(RATES)))
    asked, answered = 0, dict.fromkeys(RATES, 0)
    for kind, make in KINDS.items():
        of_kind, false = 0, dict.fromkeys(RATES, 0)
        for searcher in indexes if kind == there else indexes[:1]:
            for seconds, seed in itertools.product(LENGTHS, range(STRANGERS)):
                clip = make(1_000 + seed, seconds + 2)[RATE:][: round(seconds * RATE)]
                clip, of_kind = (0.3 * clip / np.abs(clip).max()).astype("f"), of_kind + 1
                score = max((match.score for match in searcher.identify(clip)), default=0.0)
                for rate in RATES:
                    false[rate] += bool(score >= -np.log10(rate))
        print(f"{count} {there}: of {of_kind} {kind} {false}")
        assert all(false[rate] <= most(rate, of_kind) for rate in RATES), kind
        answered = {rate: answered[rate] + false[rate] for rate in RATES}
        asked += of_kind
    print(f"{count} {there}: of {asked} strangers {answered}")
    assert all(answered[rate] <= most(rate, asked) for rate in RATES)


def most(rate, asked):
    """Of so many, by chance: three standard deviations, and one."""
    return rate * asked + 3 * np.sqrt(rate * asked) + 1
