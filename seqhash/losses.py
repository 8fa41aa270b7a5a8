"""Objectives, one equation each."""

import jax
import jax.numpy as jnp


def reconstruction_error(segments: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """The paper's loss (III): ||X - X'||^2, summed over coefficients, averaged over frames and
    segments.

    This scale is the one on which the paper's 8.883 and 1.662 are possible: frames standardised per
    coefficient have an error of 13 when nothing is reconstructed.

    Args:
      segments, reconstruction: (batch, frames, coeffs).

    Returns:
      float32 scalar.
    """
    return jnp.mean(jnp.sum(jnp.square(segments - reconstruction), axis=-1))
