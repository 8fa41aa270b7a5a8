"""Encoders that all bands share: one small function of a patch gives the bit of each band.

So what is learned from one band serves all of them, and a transposition moves the bits. Three
functions, by ``EncoderConfig.kind``, of normalised patches (..., frames, width) to states (...):

``kernel``: h = sum_ij K_ij p_ij, a linear map of frames x width numbers.
``mlp``:    the same, and beside it one hidden layer.
``lstm``:   the paper's cell (``nn.scan``) over the frames of the patch; the read-out of its last
            state is the bit before the threshold.

Beside them, for what sharing is worth: ``autoencoder``, the paper's LSTM over the frames of all
bands at once, each unit of its final state a bit. A transposition means nothing to it.

A fourth, of windows of harmony (codes, steps, octaves, 12) to states (codes, 12, bits), is shared
by the twelve pitch classes, which are a circle:

``circulant``: h[p, k] = sum_toj K[t, o, j, k] x[t, o, (p + j) mod 12].

``difference`` is the control that learned nothing: the kernel of two differences, in time and
between neighbouring bands (Haitsma and Kalker, 2002, on wider frames and semitones).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from seqhash import harmony, patches
from seqhash.autoencoder import Autoencoder
from seqhash.config import Config, PatchConfig

CODES = 64  # whose patches are cut at a time, where they are cut: 2 MB


class SharedMlp(nn.Module):
    """A linear kernel and a hidden layer beside it: (..., frames width) -> (...)."""

    hidden: int

    @nn.compact
    def __call__(self, flat: jax.Array) -> jax.Array:
        """States of flattened patches."""
        linear = nn.Dense(1, use_bias=False, name="kernel")(flat)
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(flat))
        return (linear + nn.Dense(1, name="readout")(hidden))[..., 0]


class SharedLstm(nn.Module):
    """One cell over the frames of a patch: (rows, frames, width) -> (rows,)."""

    hidden: int

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
        return nn.Dense(1, name="readout")(state)[..., 0]


def init_params(key: jax.Array, config: Config) -> Any:
    """Parameters before training. A kernel starts from ``difference``, the others at random."""
    patch, kind = config.patch, config.encoder.kind
    start = difference(patch)
    if kind == "kernel":
        return {"kernel": start}
    if kind == "autoencoder":
        frames = jnp.zeros((1, patch.frames, patch.bits + patch.width - 1), jnp.float32)
        return make_autoencoder(config).init(key, frames)["params"]
    one = jnp.zeros((1, patch.frames, patch.width), jnp.float32)
    if kind == "lstm":
        return SharedLstm(config.encoder.hidden).init(key, one)["params"]
    params = SharedMlp(config.encoder.hidden).init(key, one.reshape(1, -1))["params"]
    return params | {"kernel": {"kernel": start.reshape(-1, 1)}}


def difference(config: PatchConfig) -> jax.Array:
    """The unlearned kernel, float32 (frames, width): two frames minus the two that come four
    frames before (or as many as there are), of the own band minus the next, if there is one.
    """
    kernel = np.zeros((config.frames, config.width), np.float32)
    late, own = (config.frames + 1) // 2, config.width // 2
    early = max(0, late - 4)
    span = min(2, config.frames - late, late - early)
    for band, sign in ((own, 0.25), (own + 1, -0.25)):
        if band < config.width:
            kernel[late : late + span, band] = sign
            kernel[early : early + span, band] = -sign
    return jnp.asarray(kernel)


def encode(params: Any, bands: jax.Array, *, config: Config, rotation: int = 0) -> jax.Array:
    """States of the codes of a recording, before the threshold.

    Args:
      params: of ``init_params``.
      bands: float32 (frames, bands) with the edges repeated (``patches.repeat_edges``).
      config: of patches and encoder.
      rotation: bands by which all patches lie higher: the codes of what sounds so much lower.

    Returns:
      float32 (codes, bits).
    """
    seen = patches.around(bands, config.patch, rotation=rotation)
    if config.encoder.kind == "kernel":
        return _convolved(params["kernel"], seen, config.patch)
    if config.encoder.kind == "autoencoder":
        model, windows = make_autoencoder(config), whole(seen, config.patch)
        return model.apply({"params": params}, windows, method=Autoencoder.encode)  # type: ignore[return-value]
    cut = patches.normalise(patches.cut(seen, config.patch))
    return of_patches(params, cut, config=config)


def make_autoencoder(config: Config) -> Autoencoder:
    """The paper's model of frames of bands: all that the bits of a code see."""
    return Autoencoder(config.model, coeffs=config.patch.bits + config.patch.width - 1)


def whole(seen: jax.Array, config: PatchConfig) -> jax.Array:
    """All that a code sees as one patch, normalised: (frames, seen bands) -> (codes, patch frames,
    seen bands).
    """
    codes = (seen.shape[0] - config.frames) // config.hop + 1
    rows = jnp.arange(codes)[:, None] * config.hop + jnp.arange(config.frames)[None]
    return patches.normalise(seen[rows])


def of_patches(params: Any, cut: jax.Array, *, config: Config) -> jax.Array:
    """States of normalised patches: (codes, bits, frames, width) -> (codes, bits)."""
    shape, hidden = cut.shape[:2], config.encoder.hidden
    if config.encoder.kind == "kernel":
        return jnp.einsum("cbij,ij->cb", cut, params["kernel"], precision="highest")
    rows = cut.reshape(-1, *cut.shape[2:])
    if config.encoder.kind == "lstm":
        states: Any = SharedLstm(hidden).apply({"params": params}, rows)
    else:
        states = SharedMlp(hidden).apply({"params": params}, rows.reshape(len(rows), -1))
    return states.reshape(shape)


def encode_harmony(params: Any, semitones: jax.Array, *, config: Config) -> jax.Array:
    """States of the codes of a recording: semitones (frames, pitches) -> (codes, 12, bits), of each
    pitch class the bits of chords and then those of the tune.
    """
    seen = config.harmony
    heard = {"chords": harmony.partials(semitones), "tune": harmony.salient(semitones, config=seen)}
    parts = [
        circulant(kernel, harmony.windows(heard[name], config=seen))
        for name, kernel in sorted(params.items())
    ]
    return jnp.concatenate(parts, axis=2)


def circulant(kernel: jax.Array, windows: jax.Array) -> jax.Array:
    """States of the twelve pitch classes, each by the same linear map of the classes around it.

    Rolling the windows by r classes rolls the states by r: a transposition moves bits.

    Args:
      kernel: (steps, octaves, 12, bits), from the class itself upwards.
      windows: (codes, steps, octaves, 12).

    Returns:
      float32 (codes, 12, bits).
    """
    place = (np.arange(12)[:, None] - np.arange(12)) % 12  # of class q as class p sees it
    matrix = kernel[:, :, place].reshape(-1, 12 * kernel.shape[-1])
    states = jnp.matmul(windows.reshape(len(windows), -1), matrix, precision="highest")
    return states.reshape(len(windows), 12, -1)


def _convolved(kernel: jax.Array, seen: jax.Array, config: PatchConfig) -> jax.Array:
    """``of_patches`` of a linear kernel without cutting them: (K * x) / (mean over patches of x)
    - sum K, both as one convolution.
    """
    both = jnp.stack([kernel, jnp.full_like(kernel, 1 / kernel.size)])[:, None]
    made = jax.lax.conv_general_dilated(
        seen[None, None], both, (config.hop, 1), "VALID", precision="highest"
    )[0]
    mean = made[1] + patches.TINY
    return (made[0] - jnp.sum(kernel) * made[1]) / mean
