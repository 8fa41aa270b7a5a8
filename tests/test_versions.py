"""Random works, their versions, and training on moments that are the same."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest
import scipy.special
import soxr

from seqhash import controls, equivariant, harmony, songbook, versions
from seqhash.config import Config, override
from seqhash.songbook import composer

CONFIG = override(
    Config(),
    {
        "encoder.front_end": "harmony",
        "encoder.kind": "mlp",
        "pairs.batch_size": 16,
        "pairs.steps": 40,
        "pairs.separation": 0.0,
        "pairs.nt_xent": 1.0,
    },
)
RATE = CONFIG.harmony.sample_rate


class Made(NamedTuple):
    work: songbook.book.Work
    versions: list[composer.Version]


@pytest.fixture(scope="module")
def made():
    works = []
    for number in range(2):
        rng = np.random.default_rng([0, number])
        work = composer.compose(rng, f"w{number}")
        works.append(Made(work, composer.versions(rng, work, ("orig", "cover", "anew", "lead"))))
    return works


@pytest.fixture(scope="module")
def material(made):
    return versions.make_material([aligned(one.versions) for one in made], config=CONFIG)


def test_a_work_is_a_function_of_number_and_seed_and_fewer_versions_are_the_first(made):
    work, (first,) = composer.play(1, 0, 1)
    assert work == made[1].work
    np.testing.assert_array_equal(first.samples, made[1].versions[0].samples)


def aligned(made: list[composer.Version]) -> list[versions.Aligned]:
    return [
        versions.Aligned(
            soxr.resample(one.samples, songbook.SAMPLE_RATE, RATE),
            *one[1:5],
            one.kind in ("orig", "cover"),
        )
        for one in made
    ]


def test_a_composed_work_is_as_the_notation_has_works(made):
    for work, _ in made:
        for part in work.parts:
            ends = [note.start + note.duration for note in part.notes]
            starts = [note.start for note in part.notes]
            np.testing.assert_allclose(starts[1:], ends[:-1])
            assert ends[-1] == pytest.approx(part.bars * work.bar)
            scale = {(work.tonic + step) % 12 for step in work.scale}
            assert {note.pitch % 12 for note in part.notes} <= scale
            assert sum(chord.duration for chord in part.chords) == pytest.approx(ends[-1])
            assert part.chords[-1].root == work.tonic  # ends at home
    again = composer.compose(np.random.default_rng([0, 0]), "w0")
    assert again == made[0].work


def test_chords_made_anew_are_others_that_hold_the_tune(made):
    work = made[0].work
    anew = composer._anew(np.random.default_rng(5), work)
    assert [part.notes for part in anew.parts] == [part.notes for part in work.parts]
    changed = [
        one.root != other.root
        for part, new in zip(work.parts, anew.parts, strict=True)
        for one, other in zip(part.chords, new.chords, strict=False)
    ]
    assert 0.2 < np.mean(changed) < 1
    rng, tune, fits = np.random.default_rng(0), work.parts[0].notes, []
    for _ in range(20):
        for chord in composer.harmonise(rng, work, tune):
            tones = {(chord.root + tone) % 12 for tone in chord.tones}
            end = chord.start + chord.duration
            fits += [n.pitch % 12 in tones for n in tune if chord.start <= n.start < end]
    assert np.mean(fits) > 0.48  # of tones at random 3 of 7


def test_a_moment_is_the_same_in_all_versions(made):
    """Chroma of one beat, turned into one key: alike at the right moment, less a bar later."""
    for work, played in made:
        profiles, beats = [], np.arange(8, 24)
        for one in aligned(played[:2]):
            powers = harmony.stream([one.samples], config=CONFIG.harmony)
            frames = harmony.of_recording(powers, config=CONFIG.harmony)
            seconds = one.first + beats * one.beat
            at = np.rint((seconds * RATE - 1024) / CONFIG.harmony.frame_step).astype(int)
            chroma = np.stack([frames[i : i + 5].mean(axis=0).reshape(6, 12).sum(0) for i in at])
            chroma -= chroma.mean(axis=1, keepdims=True)
            profiles.append(np.roll(chroma, -one.key_shift, axis=1))

        def alike(lag: int, profiles: list = profiles) -> float:
            one, other = profiles[0][lag:], profiles[1][: len(profiles[1]) - lag]
            return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])

        assert alike(0) > max(alike(round(work.bar)), alike(1))


def test_pairs_are_two_versions_of_one_moment_in_their_keys(material):
    assert len(material.pairs["own"]) == 2 * 2
    assert len(material.pairs["all"]) == 2 * 12
    draw = jax.jit(versions.draw_pairs, static_argnames=("chords", "config"))
    one, other, apart = draw(jax.random.key(0), material, "own", config=CONFIG)
    assert one.shape == other.shape == (16, 5, 2, 72)
    profile = [np.asarray(x).reshape(16, -1, 12).sum(axis=1) for x in (one, other)]
    profile[0] = np.stack([np.roll(p, by) for p, by in zip(profile[0], apart, strict=True)])
    alike = np.corrcoef(*profile)[:16, 16:]
    assert np.mean(np.diag(alike)) > np.mean(alike) + 0.2


@pytest.mark.slow
def test_training_lowers_the_loss_and_repeats(material):
    params, rows = versions.train_versions(CONFIG, material, progress=False)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    again, _ = versions.train_versions(CONFIG, material, progress=False)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, again))
    assert params["kernel"]["kernel"].shape == (5 * 2 * 83, 10)


@pytest.mark.slow
def test_strangers_are_in_all_keys():
    """By hand, of a pair that is the same window, and where it is turned."""
    config = override(CONFIG, {"encoder.kind": "kernel", "pairs.soft": 0.0})
    params = equivariant.init_harmony(jax.random.key(0), config)
    windows = np.random.default_rng(0).standard_normal((2, 5, 2, 72)).astype(np.float32)
    loss = functools.partial(versions.version_loss, params, config=config)
    one = equivariant.of_windows(params, windows, config=config)
    signs = np.where(np.asarray(one) > 0, 1.0, -1.0).reshape(2, 12, 10)
    for by in (0, 5):  # the first of a pair is turned by ``apart``
        keys = np.stack([np.roll(signs, r, axis=1) for r in range(12)]).reshape(24, -1)
        alike = np.roll(signs, by, axis=1).reshape(2, -1) @ keys.T / 120 / 0.1
        wanted = np.mean([scipy.special.logsumexp(alike[i]) - alike[i, i] for i in range(2)])
        made = loss(windows, windows, jax.numpy.full(2, by))
        assert float(made) == pytest.approx(wanted, rel=1e-4)


def test_the_control_is_where_training_begins():
    key, config = jax.random.key(3), override(CONFIG, {"encoder.kind": "kernel"})
    made = controls.random_harmony(key, CONFIG)
    start = equivariant.init_harmony(key, config)
    assert jax.tree.all(jax.tree.map(np.array_equal, made.params, start))


def test_material_needs_versions(made):
    one = aligned(made[0].versions)
    with pytest.raises(ValueError, match="got 1 works of 4 versions"):
        versions.make_material([one], config=CONFIG)
    strange = [v._replace(own_chords=False) for v in one]
    with pytest.raises(ValueError, match="0 pairs"):
        versions.make_material([strange, strange], config=CONFIG)
