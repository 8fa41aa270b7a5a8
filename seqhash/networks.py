"""Encoders of patches that are flax modules (``equivariant``)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqhash.autoencoder import Autoencoder
from seqhash.config import Config


class SharedMlp(nn.Module):
    """A linear kernel and a hidden layer beside it: (..., frames width) -> (..., bits)."""

    hidden: int
    bits: int = 1

    @nn.compact
    def __call__(self, flat: jax.Array) -> jax.Array:
        """States of flattened patches."""
        linear = nn.Dense(self.bits, use_bias=False, name="kernel")(flat)
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(flat))
        return linear + nn.Dense(self.bits, name="readout")(hidden)


class SharedLstm(nn.Module):
    """One cell over the frames of a patch: (rows, frames, width) -> (rows, bits)."""

    hidden: int
    bits: int = 1

    @nn.compact
    def __call__(self, rows: jax.Array) -> jax.Array:
        """Read-out of the final hidden state."""
        cell = nn.scan(
            nn.OptimizedLSTMCell,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )(self.hidden, name="cells_0")
        zeros = jnp.zeros((rows.shape[0], self.hidden), rows.dtype)
        (_, state), _ = cell((zeros, zeros), rows)
        return nn.Dense(self.bits, name="readout")(state)


def make_autoencoder(config: Config) -> Autoencoder:
    """The paper's model of frames of bands: all that the bits of a code see."""
    return Autoencoder(config.model, coeffs=config.patch.bits + config.patch.width - 1)
