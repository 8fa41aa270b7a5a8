"""Degradations, objectives and training by pairs: the numbers they promise, against numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqhash import augment, controls, equivariant, losses, pairs
from seqhash.config import AugmentConfig, Config, override

RATE = 8_000
KEY = jax.random.key(0)
ALWAYS = AugmentConfig(room=0, telephone=0, codec=0, holes=0, saturation=0, equaliser_db=0)
CLIP = {"pairs.seconds": 0.6, "pairs.batch_size": 8, "pairs.steps": 6, "pairs.warmup_steps": 2}
SMALL = {"encoder.front_end": "bands", "encoder.hidden": 4, **CLIP}

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def tune(seconds: float, seed: int) -> np.ndarray:
    """Tones of a quarter of a second, with a little noise."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    hz = 200 * 2 ** rng.uniform(0, 3, 4 * len(time))[(4 * time).astype(int)]
    return (0.2 * np.sin(2 * np.pi * hz * time) + 0.01 * rng.standard_normal(len(time))).astype("f")


@pytest.fixture(scope="module")
def config():
    return override(Config(), {"encoder.kind": "kernel", **SMALL})


@pytest.fixture(scope="module")
def material(config):
    rng = np.random.default_rng(9)
    rooms = [rng.standard_normal(900) * np.exp(-np.arange(900) / 200) for _ in range(2)]
    noises = [rng.standard_normal(n).astype("f") for n in (3_000, 90_000)]
    return pairs.make_material([tune(4, i) for i in range(3)], noises, rooms, config=config)


# ------------------------------------------------------------------------------------- degradations


@pytest.mark.parametrize("decibels", [-6.0, 0.0, 20.0])
def test_noise_is_added_at_the_ratio_that_is_said(decibels):
    samples, noise = np.random.default_rng(0).standard_normal((2, RATE)) * [[0.1], [3.0]]
    added = np.asarray(augment.add_noise(samples, noise, decibels)) - samples
    ratio = 10 * np.log10(np.mean(samples**2) / np.mean(added**2))
    assert ratio == pytest.approx(decibels, abs=1e-2)


def test_coloured_noise_has_the_slope_that_was_drawn(monkeypatch):
    monkeypatch.setattr(augment, "_bumps", lambda key, hz, decibels: jnp.ones_like(hz))
    length, slopes = 4 * RATE, []
    for key in jax.random.split(KEY, 6):
        noise = np.asarray(augment.coloured_noise(key, length=length, sample_rate=RATE))
        assert np.isfinite(noise).all()
        power = np.abs(np.fft.rfft(noise)) ** 2
        edges = np.geomspace(80, 3_800, 12) * length / RATE
        levels = [power[int(a) : int(b)].mean() for a, b in itertools.pairwise(edges)]
        middle = np.sqrt(edges[:-1] * edges[1:])
        slopes.append(-np.polyfit(np.log(middle), np.log(levels), 1)[0])
        drawn = jax.random.uniform(jax.random.split(key, 6)[1], maxval=2.0)
        assert slopes[-1] == pytest.approx(float(drawn), abs=0.15)
    assert np.ptp(slopes) > 0.5


@pytest.mark.slow
def test_coloured_noise_is_finite_with_all_that_it_has():
    noise = jax.vmap(lambda key: augment.coloured_noise(key, length=999, sample_rate=RATE))(
        jax.random.split(KEY, 20)
    )
    assert noise.dtype == jnp.float32
    assert np.isfinite(noise).all()
    assert np.std(noise, axis=1).min() > 0


def test_recorded_noise_is_a_piece_of_one_circle():
    noises = np.arange(30, dtype=np.float32).reshape(3, 10)
    for key in jax.random.split(KEY, 10):
        piece = np.asarray(augment.recorded_noise(key, noises, length=25)).astype(int)
        assert len(set(piece // 10)) == 1
        assert (np.diff(piece % 10) % 10 == 1).all()


def response_of(**changed) -> np.ndarray:
    """Gains at 0, 1, ... Hz."""
    rooms = np.zeros((1, 10), np.float32)
    rooms[0, [0, 7]] = 1.0, -0.5
    settings = {**ALWAYS.__dict__, **changed}
    made = augment.response(
        KEY, rooms, length=RATE, sample_rate=RATE, config=AugmentConfig(**settings)
    )
    return np.asarray(made)


def test_a_response_to_an_impulse_is_the_room():
    impulse = np.zeros(RATE)
    impulse[3] = 1.0
    heard = np.fft.irfft(np.fft.rfft(impulse) * response_of(room=1), RATE)
    wanted = np.zeros(RATE)
    wanted[[3, 10]] = 1.0, -0.5
    np.testing.assert_allclose(heard, wanted, atol=1e-5)
    np.testing.assert_array_equal(response_of(), 1)


def test_a_telephone_has_no_bass_and_speech():
    gains = np.abs(response_of(telephone=1))
    assert gains[100] < 0.06
    assert gains[1_000] > 0.85
    assert gains[3_999] < 0.6 < gains[3_000]


def test_a_coder_has_no_treble_and_an_equaliser_stays_within_its_gain():
    gains = np.abs(response_of(codec=1))
    assert gains[500] > 0.98
    assert (np.diff(gains) <= 0).all()
    decibels = 20 * np.log10(np.abs(response_of(equaliser_db=6.0)))
    assert 1 < np.abs(decibels).max() <= 6.001


def degraded(key, samples, material, **changed):
    settings = AugmentConfig(**{"room": 0.5, "saturation": 0.5, **changed})
    return jax.jit(
        functools.partial(augment.degrade, length=4_000, sample_rate=RATE, config=settings)
    )(key, samples, jnp.zeros(4_000), material.sources)


@pytest.mark.slow
def test_what_is_done_to_a_clip_follows_from_its_key(material):
    samples = tune(1, 5)
    one, again, other = (
        degraded(key, samples, material) for key in (KEY, KEY, jax.random.fold_in(KEY, 1))
    )
    np.testing.assert_array_equal(one, again)
    assert one.shape == (4_000,)
    assert np.abs(np.asarray(one - other)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("samples", [np.zeros(RATE, "f"), np.ones(RATE, "f")])
def test_silence_is_degraded_to_finite_samples(material, samples):
    for key in jax.random.split(KEY, 5):
        assert np.isfinite(degraded(key, samples, material, music=1.0)).all()


def test_holes_are_cells_with_nearly_nothing():
    bands, always = np.ones((40, 60), np.float32), AugmentConfig(holes=1.0)
    made = np.asarray(augment.holes(KEY, bands, config=always))
    assert set(np.unique(made)) == {np.float32(0.05), np.float32(1)}
    assert 0 < np.mean(made < 1) < 0.42
    np.testing.assert_array_equal(augment.holes(KEY, bands, config=ALWAYS), bands)


def test_positions():
    still = AugmentConfig(tempo=0, jitter=0, pitch=0)
    begin, pitch = augment.positions(KEY, frames=9, frame_step=250, config=still)
    np.testing.assert_array_equal(begin, np.arange(9) * 250)
    assert pitch == 0
    moved = AugmentConfig(tempo=0.1, jitter=0.5, pitch=2)
    for key in jax.random.split(KEY, 10):
        begin, pitch = augment.positions(key, frames=9, frame_step=250, config=moved)
        np.testing.assert_allclose(np.diff(begin, n=2), 0, atol=1e-2)
        assert 225 <= begin[1] - begin[0] <= 275
        assert abs(begin[4] - 1_000) <= 125
        assert abs(pitch) <= 2


# --------------------------------------------------------------------------------------- objectives


def signs(seed: int, rows: int = 6, columns: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], (rows, columns))


def test_separation_against_a_loop():
    queries, references = 0.7 * signs(0), signs(1)
    strangers, true = [], []
    for i, query in enumerate(queries):
        for j, reference in enumerate(references):
            similarity = sum(query * reference) / len(reference)
            (true if i == j else strangers).append(similarity)
    spread = np.sqrt(np.mean(np.square(strangers)))
    wanted = np.mean([np.log1p(np.exp(2.0 - one / spread)) for one in true])
    assert losses.separation(queries, references, margin=2.0) == pytest.approx(wanted, rel=1e-5)


def test_separation_falls_where_pairs_stand_out_and_nothing_is_gained_by_scale():
    references = signs(1)
    half = np.concatenate([references[:, :32], signs(2)[:, 32:]], axis=1)
    far, near, same = (
        float(losses.separation(queries, references, margin=6.0))
        for queries in (signs(2), half, references)
    )
    assert same < near < far
    assert losses.separation(0.01 * half, references, margin=6.0) == pytest.approx(near, rel=1e-3)


def test_nt_xent_against_a_loop():
    queries, references = np.random.default_rng(3).standard_normal((2, 5, 8))
    wanted = 0.0
    for i, query in enumerate(queries):
        cosines = [query @ one / np.linalg.norm(query) / np.linalg.norm(one) for one in references]
        odds = np.exp(np.array(cosines) / 0.3)
        wanted -= np.log(odds[i] / sum(odds)) / len(queries)
    assert losses.nt_xent(queries, references, temperature=0.3) == pytest.approx(wanted, rel=1e-5)


def test_hash_distance_by_hand():
    one, other = np.array([[1.0, -1.0, 1.0, 1.0]]), np.array([[1.0, 1.0, 1.0, 1.0]])
    assert losses.hash_distance(one, other) == 1.0


def test_entropy_is_of_each_bit():
    even = np.repeat([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]], 50, axis=0)
    assert losses.bitwise_entropy(even) == pytest.approx(-1)
    assert losses.bitwise_entropy(np.ones((9, 3))) == pytest.approx(0, abs=1e-4)


def test_decorrelation_of_equal_and_of_independent_bits():
    bit = np.repeat([1.0, -1.0], 1_000)[:, None]
    assert losses.decorrelation(np.tile(bit, (1, 4))) == pytest.approx(1)
    assert losses.decorrelation(signs(4, 2_000, 4)) < 0.01


def test_straight_through_has_signs_and_the_slope_of_tanh():
    states = np.array([-2.0, -0.1, 0.0, 0.3, 1.0], np.float32)
    np.testing.assert_allclose(losses.straight_through(states), [-1, -1, -1, 1, 1])
    made = jax.grad(lambda h: jnp.sum(losses.straight_through(h)))(states)
    scale = 1.5 / np.sqrt(np.mean(states**2))
    np.testing.assert_allclose(made, scale * (1 - np.tanh(scale * states) ** 2), rtol=1e-4)


# ----------------------------------------------------------------------------------------- material


def test_material_is_where_it_sounds(config):
    quiet = np.concatenate([tune(3, 0), np.zeros(3 * RATE, "f"), tune(3, 1)])
    noise = np.full(100, 0.5, "f") + np.tile([1, -1], 50)
    made = pairs.make_material([tune(2, 2), quiet], [noise], [np.ones(3)], config=config)
    assert len(made.samples) == 11 * RATE
    _, length, _ = pairs._lengths(config)
    levels = [np.std(made.samples[place : place + length]) for place in made.places]
    assert min(levels) > pairs.QUIET / 2
    assert np.min(made.places) >= 0.5 * RATE  # a room has what sounded before
    noises, rooms = made.sources
    assert noises.shape == (1, 10 * RATE)
    np.testing.assert_allclose(np.abs(noises), 1)  # without its constant, at one level
    assert rooms.shape == (1, 0.75 * RATE)


@pytest.mark.parametrize(
    ("recordings", "noises", "rooms", "says"),
    [
        ([tune(1, 0)], [tune(1, 0)], [np.ones(3)], r"recordings of 1\.3 s that sound, got none"),
        ([np.zeros(4 * RATE)], [tune(1, 0)], [np.ones(3)], "that sound, got none"),
        ([], [tune(1, 0)], [np.ones(3)], "that sound, got none"),
        ([tune(4, 0)], [], [np.ones(3)], "noises and rooms, got 0 and 1"),
        ([tune(4, 0)], [np.zeros(RATE)], [np.ones(3)], "noises and rooms, got 0 and 1"),
        ([tune(4, 0)], [tune(1, 0)], [], "noises and rooms, got 1 and 0"),
    ],
    ids=["short", "silent", "none", "no noise", "silent noise", "no room"],
)
def test_material_that_cannot_be_trained_on_is_refused(config, recordings, noises, rooms, says):
    with pytest.raises(ValueError, match=says):
        pairs.make_material(recordings, noises, rooms, config=config)


# ----------------------------------------------------------------------------------------- training


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "kernel",
        pytest.param("mlp", marks=pytest.mark.slow),
        pytest.param("lstm", marks=pytest.mark.slow),
        pytest.param("autoencoder", marks=pytest.mark.slow),
    ],
)
def test_training_moves_the_parameters_and_is_the_same_again(config, material, kind):
    config = override(config, {"encoder.kind": kind, "model.hidden_size": 32})
    if kind == "autoencoder":
        config = override(config, {"pairs.separation": 0.5, "pairs.reconstruction": 0.5})
    params, rows = pairs.train_pairs(config, material, progress=False)
    assert [row["step"] for row in rows] == [6]
    assert np.isfinite(rows[0]["loss"])
    again, rows_again = pairs.train_pairs(config, material, progress=False)
    assert rows_again == rows
    jax.tree.map(np.testing.assert_array_equal, again, params)
    start = pairs.equivariant.init_params(
        jax.random.fold_in(jax.random.key(config.pairs.seed), 0), config
    )
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(params), strict=True):
        assert np.isfinite(after).all()
        assert np.abs(after - before).max() > 0


@pytest.mark.slow
def test_another_seed_is_another_result_and_all_terms_count(config, material):
    every = override(
        config,
        {f"pairs.{term}": 0.1 for term in ("nt_xent", "hash_distance", "entropy", "decorrelation")},
    )
    results = [
        pairs.train_pairs(one, material, progress=False)
        for one in (config, override(config, {"pairs.seed": 1}), every)
    ]
    kernels = [params["kernel"] for params, _ in results]
    assert all(np.isfinite(rows[0]["loss"]) for _, rows in results)
    assert (kernels[0] != kernels[1]).any()
    assert (kernels[0] != kernels[2]).any()


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_its_step(config, material):
    endless = override(config, {"pairs.learning_rate": 1e38})
    with pytest.raises(ValueError, match=r"The loss is .* in the steps up to 6"):
        pairs.train_pairs(endless, material, progress=False)


@pytest.mark.slow
def test_bands_of_a_pair_without_any_degradation_are_equal(config, material):
    """At 60 dB of noise, all chances being 0: what is degraded is the clip itself, in its place."""
    still = {"low_db": 60.0, "high_db": 60.001, "tempo": 0, "pitch": 0, "jitter": 0}
    still |= {name: 0 for name in ("room", "telephone", "codec", "holes", "saturation")}
    changes = {f"augment.{name}": value for name, value in still.items()}
    clean, heard = pairs.draw_pairs(
        KEY, material, config=override(config, changes | {"augment.equaliser_db": 0})
    )
    assert clean.shape == heard.shape == (8, 17, 60)
    assert np.abs(heard - clean).max() < 0.02 * clean.max()


@pytest.mark.slow
def test_the_closed_form_correlates_more_than_what_it_is_a_control_of(config, material):
    closed = controls.correlated(material, config)
    clean, heard = pairs.draw_pairs(jax.random.key(7), material, config=config)

    def correlation(hasher):
        states = [
            np.asarray(jax.vmap(lambda x: equivariant.encode(hasher.params, x, config=config))(one))
            for one in (clean, heard)
        ]
        return np.corrcoef(*(one.reshape(-1) for one in states))[0, 1]

    others = controls.difference(config), controls.random_kernel(KEY, config)
    assert all(correlation(closed) > correlation(other) + 0.02 for other in others)
