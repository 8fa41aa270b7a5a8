"""The sequence-to-sequence autoencoder (paper, Fig. 3.1). Only this file and ``networks`` know
flax.linen.

One stack of LSTM cells (paper: a single cell of 128 units) walks the segment; its final hidden
state H, in (-1, 1), is the code before the threshold. The same cells, with the same parameters,
start from H and reconstruct the segment. Where the paper is silent, ``ModelConfig`` has named
options.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from seqhash.config import Config, ModelConfig

Carry = tuple[tuple[jax.Array, jax.Array], ...]  # (c, h) of each layer


def _kept(
    function: Callable[[jax.Array], jax.Array], slope: Callable[[jax.Array], jax.Array]
) -> Any:
    """An activation whose result is stored for the backward pass; ``slope`` is its derivative as a
    function of it.

    So a step's gates need no product again, and of some twenty arrays five are stored: all of them
    would cost more in memory traffic than the products.
    """

    def forward(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        result = checkpoint_name(function(values), "gate")
        return result, result

    kept = jax.custom_vjp(function)
    kept.defvjp(forward, lambda result, gradient: (gradient * slope(result),))
    return kept


_sigmoid = _kept(nn.sigmoid, lambda result: result * (1 - result))
_tanh = _kept(nn.tanh, lambda result: 1 - result * result)


class Autoencoder(nn.Module):
    """Encoder and decoder around one set of cells. Every hidden state is (batch, hidden_size)."""

    config: ModelConfig
    coeffs: int

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        gates = {"gate_fn": _sigmoid, "activation_fn": _tanh, "dtype": dtype}
        self.cells = [
            nn.OptimizedLSTMCell(config.hidden_size, **gates) for _ in range(config.layers)
        ]
        if config.readout == "slice":
            self.scale = self.param("scale", nn.initializers.ones, (self.coeffs,))
            self.offset = self.param("offset", nn.initializers.zeros, (self.coeffs,))
        else:
            self.readout = nn.Dense(self.coeffs, dtype=dtype)
        if config.readout == "mlp":
            self.readout_hidden = nn.Dense(config.hidden_size, dtype=dtype)

    def encode(self, segments: jax.Array) -> jax.Array:
        """H, the final hidden state of the top cell: (batch, frames, coeffs) -> float32 (batch,
        hidden_size).
        """
        return _top(self._final_carry(segments)).astype(jnp.float32)

    def __call__(self, segments: jax.Array) -> tuple[jax.Array, jax.Array]:
        """H and the reconstruction X' (batch, frames, coeffs), in the order of the input."""
        carry = self._final_carry(segments)
        state = _top(carry)
        target = segments[:, ::-1] if self.config.decoder_order == "reversed" else segments
        first = (
            carry
            if self.config.handover == "hidden_and_cell"
            else _from_hidden(state, self.config.layers)
        )
        reconstruction = self._decode(first, target)
        if self.config.decoder_order == "reversed":
            reconstruction = reconstruction[:, ::-1]
        return state.astype(jnp.float32), reconstruction.astype(jnp.float32)

    def _final_carry(self, segments: jax.Array) -> Carry:
        zeros = jnp.zeros((segments.shape[0], self.config.hidden_size), self.config.dtype)
        first = tuple((zeros, zeros) for _ in range(self.config.layers))
        carry, _ = _scan(Autoencoder._encode_step)(self, first, (segments, _times(segments)))
        return carry

    def _decode(self, first: Carry, target: jax.Array) -> jax.Array:
        """Outputs in the decoder's own order. target is looked at by ``decoder_input = truth``
        alone.
        """
        nothing = jnp.zeros_like(target[:, :1])
        if self.config.decoder_input == "truth":  # teacher forcing: the true frame before
            inputs = jnp.concatenate([nothing, target[:, :-1]], axis=1)
        else:  # one row of zeros serves the whole batch: no product to speak of
            inputs = jnp.zeros_like(target[:1])
        _, outputs = _scan(Autoencoder._decode_step)(
            self, (first, nothing[:, 0]), (inputs, _times(target))
        )
        return outputs

    def _encode_step(self, carry: Carry, frame: tuple[jax.Array, jax.Array]) -> tuple[Carry, None]:
        values, time = frame
        return self._cells(self._truncate(carry, time), values), None

    def _decode_step(
        self, carry: tuple[Carry, jax.Array], frame: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Carry, jax.Array], jax.Array]:
        (cells, previous), (values, time) = carry, frame
        cells = self._cells(
            self._truncate(cells, time), previous if self.config.decoder_input == "own" else values
        )
        output = self._read(_top(cells)).astype(values.dtype)
        return (cells, output), output

    def _cells(self, carry: Carry, values: jax.Array) -> Carry:
        after = []
        for cell, state in zip(self.cells, carry, strict=True):
            state, values = cell(state, values)
            after.append(state)
        return tuple(after)

    def _read(self, hidden: jax.Array) -> jax.Array:
        """hidden_size -> coeffs."""
        if self.config.readout == "slice":  # the LSTM's own first outputs, scaled
            return hidden[:, : self.coeffs] * self.scale[None] + self.offset[None]
        return self.readout(
            nn.tanh(self.readout_hidden(hidden)) if self.config.readout == "mlp" else hidden
        )

    def _truncate(self, carry: Carry, time: jax.Array) -> Carry:
        """Cuts the gradient every ``truncation`` steps (paper, II), never where the encoder hands
        over to the decoder.

        A cut there would leave the encoder without any gradient, so each of the two counts its own
        steps.
        """
        every = self.config.truncation
        if every == 0:
            return carry
        cut = (time > 0) & (time % every == 0)
        return jax.tree.map(
            lambda value: jnp.where(cut[0], jax.lax.stop_gradient(value), value), carry
        )


def make_model(config: Config) -> Autoencoder:
    """The model of a config."""
    return Autoencoder(config=config.model, coeffs=config.mfcc.coeffs)


def init_params(key: jax.Array, config: Config) -> Any:
    """Fresh parameters: 4 (13 x 128 + 128 x 128 + 128) + 128 x 13 + 13 = 74,381 numbers for the
    paper's sizes.
    """
    shaping = ModelConfig(
        config.model.hidden_size, config.model.layers, readout=config.model.readout
    )
    return _init(
        key, model=Autoencoder(config=shaping, coeffs=config.mfcc.coeffs)
    )  # one program for all else


def encode(params: Any, segments: jax.Array, *, config: Config) -> jax.Array:
    """H of normalised segments: (batch, frames, coeffs) -> float32 (batch, hidden_size) in (-1,
    1).
    """
    return make_model(config).apply({"params": params}, segments, method=Autoencoder.encode)  # type: ignore[return-value]


def reconstruct(params: Any, segments: jax.Array, *, config: Config) -> tuple[jax.Array, jax.Array]:
    """(H, X') of normalised segments."""
    return make_model(config).apply({"params": params}, segments)  # type: ignore[return-value]


@functools.partial(jax.jit, static_argnames=("model",))
def _init(key: jax.Array, *, model: Autoencoder) -> Any:
    one_frame = jnp.zeros(
        (1, 1, model.coeffs), jnp.float32
    )  # parameters do not depend on the number of frames
    return model.init(key, one_frame)["params"]


def _scan(step: Any) -> Any:
    """``step(module, carry, x_t)`` over axis 1 with one set of parameters for all times
    (variable_broadcast).

    Without it linen makes a set for each time step (variable_axes) or finds none. Of a step's
    values the gates are stored for the backward pass, which computes the others again (``_kept``).
    """
    step = nn.remat(
        step, prevent_cse=False, policy=jax.checkpoint_policies.save_only_these_names("gate")
    )
    return nn.scan(
        step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
    )


def _times(segments: jax.Array) -> jax.Array:
    """(1, frames): a step counter to scan along."""
    return jnp.arange(segments.shape[1])[None]


def _top(carry: Carry) -> jax.Array:
    return carry[-1][1]


def _from_hidden(state: jax.Array, layers: int) -> Carry:
    """A first carry that knows H and nothing else: whatever the decoder learns passes through what
    is hashed.
    """
    return tuple((jnp.zeros_like(state), state) for _ in range(layers))
