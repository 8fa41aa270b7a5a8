import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from seqhash import autoencoder, losses
from seqhash.config import Config, override

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# Compiled once for a config and shape; unjitted scans would be compiled anew at every call.
encode = jax.jit(autoencoder.encode, static_argnames="config")
reconstruct = jax.jit(autoencoder.reconstruct, static_argnames="config")
SMALL = override(Config(), {"model.hidden_size": 32, "segment.frames": 12})


def segments_of(config: Config, batch: int = 3, seed: int = 0) -> jax.Array:
    shape = (batch, config.segment.frames, config.mfcc.coeffs)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def lstm_loop(params, inputs, carry):
    """The same cell by hand (Hochreiter & Schmidhuber with a forget gate), one time step after the
    other.
    """
    c, h = carry
    states = []
    for x in inputs:
        gate = {
            g: x @ params[f"i{g}"]["kernel"]
            + h @ params[f"h{g}"]["kernel"]
            + params[f"h{g}"]["bias"]
            for g in "ifgo"
        }
        c = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
        h = sigmoid(gate["o"]) * np.tanh(c)
        states.append(h)
    return (c, h), np.stack(states)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_parameter_count_of_the_paper():
    params = jax.eval_shape(lambda key: autoencoder.init_params(key, Config()), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 4 * (13 * 128 + 128 * 128 + 128) + 128 * 13 + 13 == 74_381
    assert sorted(params) == ["cells_0", "readout"]  # one cell for encoder and decoder


@pytest.mark.slow
def test_initial_weights_depend_on_shapes_and_seed_alone():
    params, programs = (
        autoencoder.init_params(jax.random.key(0), SMALL),
        autoencoder._init._cache_size(),
    )
    changes = {
        "handover": "hidden_and_cell",
        "decoder_order": "forward",
        "decoder_input": "own",
        "truncation": 5,
    }
    other = override(
        SMALL,
        {f"model.{name}": value for name, value in changes.items()} | {"model.dtype": "bfloat16"},
    )
    jax.tree.map(
        np.testing.assert_array_equal, params, autoencoder.init_params(jax.random.key(0), other)
    )
    fresh = autoencoder.make_model(other).init(jax.random.key(0), segments_of(other))[
        "params"
    ]  # as linen makes them
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, fresh)
    assert autoencoder._init._cache_size() == programs


@pytest.mark.parametrize(
    ("handover", "order", "fed"),
    [  # every value of each option with every value of each other one
        ("hidden", "reversed", "nothing"),
        ("hidden", "forward", "truth"),
        ("hidden", "reversed", "own"),
        ("hidden_and_cell", "forward", "nothing"),
        ("hidden_and_cell", "reversed", "truth"),
        ("hidden_and_cell", "forward", "own"),
    ],
)
def test_against_a_loop_in_numpy(handover, order, fed):
    config = override(
        SMALL,
        {"model.handover": handover, "model.decoder_order": order, "model.decoder_input": fed},
    )
    segments = segments_of(config)
    params = jax.tree.map(np.asarray, autoencoder.init_params(jax.random.key(1), config))
    states, reconstruction = reconstruct(params, segments, config=config)
    cell, read = params["cells_0"], params["readout"]
    for segment, state, output in zip(
        np.asarray(segments), np.asarray(states), np.asarray(reconstruction), strict=True
    ):
        zeros = np.zeros(32)
        (c, h), _ = lstm_loop(cell, segment, (zeros, zeros))
        np.testing.assert_allclose(state, h, atol=1e-6)
        carry = (c, h) if handover == "hidden_and_cell" else (zeros, h)
        target = segment[::-1] if order == "reversed" else segment
        outputs, previous = [], np.zeros(13)
        for t in range(len(target)):
            carry, hidden = lstm_loop(cell, [previous if fed != "nothing" else np.zeros(13)], carry)
            outputs.append(hidden[0] @ read["kernel"] + read["bias"])
            previous = outputs[-1] if fed == "own" else target[t]
        expected = np.stack(outputs)
        np.testing.assert_allclose(
            output, expected[::-1] if order == "reversed" else expected, atol=1e-5
        )


@pytest.mark.slow
def test_two_layers_hash_the_top_state():
    config = override(SMALL, {"model.layers": 2})
    segments = segments_of(config)
    params = jax.tree.map(np.asarray, autoencoder.init_params(jax.random.key(2), config))
    zeros = np.zeros(32)
    (_, _), first = lstm_loop(params["cells_0"], np.asarray(segments)[0], (zeros, zeros))
    (_, top), _ = lstm_loop(params["cells_1"], first, (zeros, zeros))
    np.testing.assert_allclose(encode(params, segments, config=config)[0], top, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["mlp", "slice"])
def test_readouts_have_the_shape_of_the_input_and_carry_gradient(readout):
    config = override(SMALL, {"model.readout": readout})
    segments = segments_of(config)
    params = autoencoder.init_params(jax.random.key(3), config)

    def loss(params):
        state, reconstruction = reconstruct(params, segments, config=config)
        assert reconstruction.shape == segments.shape
        assert state.shape == (3, 32)
        return losses.reconstruction_error(segments, reconstruction)

    grads = jax.grad(loss)(params)
    assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in jax.tree.leaves(grads))


def test_hidden_handover_lets_nothing_pass_around_the_hash():
    """With H alone handed over, the reconstruction is a function of H: change the segment, keep H,
    nothing moves.
    """
    config = SMALL
    params = autoencoder.init_params(jax.random.key(4), config)
    segments = segments_of(config)
    module = autoencoder.make_model(config)

    def decode(state, target):
        return module.apply(
            {"params": params},
            autoencoder._from_hidden(state, 1),
            target,
            method=autoencoder.Autoencoder._decode,
        )

    state = encode(params, segments, config=config)
    np.testing.assert_array_equal(decode(state, segments), decode(state, -segments))


@pytest.mark.slow
def test_truncation_keeps_values_and_cuts_gradients():
    free, cut = SMALL, override(SMALL, {"model.truncation": 5})
    params = autoencoder.init_params(jax.random.key(5), free)
    segments = segments_of(free)
    for a, b in zip(
        reconstruct(params, segments, config=free),
        reconstruct(params, segments, config=cut),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)

    def gradient_of_input(config):
        def state_sum(segments):
            return jnp.sum(encode(params, segments, config=config))

        return np.abs(np.asarray(jax.grad(state_sum)(segments))).max(axis=(0, 2))

    # 12 frames cut every 5: the state sees the gradient of frames 10 and 11 alone.
    assert (gradient_of_input(free) > 0).all()
    assert (gradient_of_input(cut)[:10] == 0).all()
    assert (gradient_of_input(cut)[10:] > 0).all()

    def reconstruction_gradient(config):
        def loss(segments):
            return jnp.sum(
                reconstruct(params, segments, config=config)[1][:, -1]
            )  # decoded first (reversed)

        return np.abs(np.asarray(jax.grad(loss)(segments))).max()

    assert reconstruction_gradient(cut) > 0  # the handover itself is never cut


def test_gradients_are_those_of_finite_differences():
    config = override(SMALL, {"segment.frames": 4})
    segments = segments_of(config, batch=2)
    params = autoencoder.init_params(jax.random.key(6), config)

    @jax.jit
    def loss(params):
        return losses.reconstruction_error(
            segments, reconstruct(params, segments, config=config)[1]
        )

    check_grads(
        loss, (params,), order=1, modes=["rev"], rtol=2e-2, atol=2e-2, eps=1e-2
    )  # float32 differences


@pytest.mark.slow
def test_stored_gates_give_the_gradients_of_plain_differentiation(monkeypatch):
    segments = segments_of(SMALL)
    params = autoencoder.init_params(jax.random.key(3), SMALL)

    def loss(params):
        return losses.reconstruction_error(
            segments, autoencoder.reconstruct(params, segments, config=SMALL)[1]
        )

    stored = jax.jit(jax.value_and_grad(loss))(params)
    monkeypatch.setattr(autoencoder, "_sigmoid", jax.nn.sigmoid)
    monkeypatch.setattr(autoencoder, "_tanh", jnp.tanh)
    plain = jax.jit(jax.value_and_grad(lambda params: loss(params)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), stored, plain)


def test_states_are_in_the_open_interval():
    config = SMALL
    states = encode(
        autoencoder.init_params(jax.random.key(7), config),
        100 * segments_of(config, batch=64),
        config=config,
    )
    assert states.dtype == jnp.float32
    assert (np.abs(np.asarray(states)) < 1).all()


def test_bfloat16_is_near_float32():
    config = override(SMALL, {"model.dtype": "bfloat16"})
    params = autoencoder.init_params(jax.random.key(8), config)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    segments = segments_of(config)
    low = encode(params, segments, config=config)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, encode(params, segments, config=SMALL), atol=0.05)


def test_reconstruction_error_by_hand():
    segments = jnp.zeros((2, 3, 4))
    # Every coefficient off by one: 4 per frame. Only one of six frames off by two in one
    # coefficient: 4 / 6.
    assert losses.reconstruction_error(segments, segments + 1) == 4.0
    assert np.isclose(losses.reconstruction_error(segments, segments.at[0, 0, 0].set(2)), 4 / 6)
    assert losses.reconstruction_error(segments, segments) == 0.0
