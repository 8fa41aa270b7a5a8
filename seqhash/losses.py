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


def straight_through(states: jax.Array) -> jax.Array:
    """Signs of states, +-1, whose gradient is that of tanh(1.5 h / rms h): same shape.

    The sign is what is stored, so it is what the objectives see (Bengio, Leonard, Courville 2013).
    """
    scale = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(jnp.square(states)) + 1e-9))
    soft = jnp.tanh(1.5 * states / scale)
    return soft + jax.lax.stop_gradient(jnp.where(states > 0, 1.0, -1.0) - soft)


def separation(queries: jax.Array, references: jax.Array, *, margin: float) -> jax.Array:
    """mean_i softplus(margin - s_ii / sd), s = Q R' / K, sd^2 = mean of s_ij^2 over i != j.

    A recording is found where its own similarity stands out from the spread of all strangers, so
    the spread is in the objective: 1 % false answers over N positions need s_ii / sd of about the
    normal quantile of 0.01 / N. What raises all similarities alike gains nothing.

    Args:
      queries, references: (batch, K), the signs of all codes of a clip as one vector; row i of both
        is one clip, and further references are strangers. Queries may be weighted, with the length
        of a row of signs.
      margin: standard deviations that are enough.

    Returns:
      float32 scalar.
    """
    similarity = queries @ references.T / references.shape[1]
    strangers = ~jnp.eye(len(queries), len(references), dtype=bool)
    spread = jnp.mean(jnp.square(similarity), where=strangers)
    return jnp.mean(jax.nn.softplus(margin - jnp.diag(similarity) / jnp.sqrt(spread + 1e-9)))


def nt_xent(queries: jax.Array, references: jax.Array, *, temperature: float) -> jax.Array:
    """The normalised temperature-scaled cross-entropy of SimCLR (Chen et al. 2020), one way round:
    -mean_i log softmax_j (cos(q_i, r_j) / temperature) at j = i. Arguments as in ``separation``.
    """
    unit = [
        rows / (jnp.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
        for rows in (queries, references)
    ]
    logits = unit[0] @ unit[1].T / temperature
    return -jnp.mean(jnp.diag(jax.nn.log_softmax(logits, axis=1)))


def hash_distance(queries: jax.Array, references: jax.Array) -> jax.Array:
    """SAMAF's second term (Baez-Suarez et al. 2020): mean squared distance of the relaxed codes of
    neighbours, here of a clip and its degraded self; (batch, K) each, in [-1, 1].
    """
    return jnp.mean(jnp.square(queries - references))


def bitwise_entropy(states: jax.Array) -> jax.Array:
    """SAMAF's third term: -mean_b H(p_b) in bits, p_b the share of codes whose bit b is set.

    Args:
      states: (codes, bits), relaxed to [-1, 1].
    """
    p = jnp.clip((1 + jnp.mean(states, axis=0)) / 2, 1e-6, 1 - 1e-6)
    return jnp.mean(p * jnp.log2(p) + (1 - p) * jnp.log2(1 - p))


def decorrelation(states: jax.Array) -> jax.Array:
    """Mean squared covariance of two bits (VICReg's covariance term, Bardes et al. 2022).

    Args:
      states: (codes, bits), relaxed to [-1, 1].
    """
    centred = states - jnp.mean(states, axis=0, keepdims=True)
    covariance = centred.T @ centred / len(states)
    pairs = ~jnp.eye(len(covariance), dtype=bool)
    return jnp.mean(jnp.square(covariance), where=pairs)
