"""Encoders that all bands share: one small function of a patch gives the bit of each band.

So what is learned from one band serves all of them, and a transposition moves the bits. Three
functions, by ``EncoderConfig.kind``, of normalised patches (..., frames, width) to states (...):

``kernel``: h = sum_ij K_ij p_ij, a linear map of frames x width numbers.
``mlp``:    the same, and beside it one hidden layer.
``lstm``:   the paper's cell (``nn.scan``) over the frames of the patch; the read-out of its last
            state is the bit before the threshold.

Beside them, for what sharing is worth: ``autoencoder``, the paper's LSTM over the frames of all
bands at once, each unit of its final state a bit. A transposition means nothing to it.

Of windows of harmony (codes, steps, 2, pitches) the same three are shared by the twelve pitch
classes, several bits each: class p hears all pitches m by how far they lie above it, m - p, and
nothing (the mean) beyond the lowest and the highest (``views``):

``kernel``: h[p, k] = sum_tim K[t, i, m - p, k] x[t, i, m].

``difference`` is the control that learned nothing: the kernel of two differences, in time and
between neighbouring bands (Haitsma and Kalker, 2002, on wider frames and semitones).
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqhash import harmony, patches
from seqhash.config import Config, PatchConfig

CLASSES = 12  # of pitch
CODES = 64  # whose patches are cut at a time, where they are cut: 2 MB


def init_params(key: jax.Array, config: Config) -> Any:
    """Parameters before training. A kernel starts from ``difference``, the others at random."""
    patch, kind = config.patch, config.encoder.kind
    start = difference(patch)
    if kind == "kernel":
        return {"kernel": start}
    if kind == "autoencoder":
        frames = jnp.zeros((1, patch.frames, patch.bits + patch.width - 1), jnp.float32)
        return _networks().make_autoencoder(config).init(key, frames)["params"]
    one = jnp.zeros((1, patch.frames, patch.width), jnp.float32)
    if kind == "lstm":
        return _networks().SharedLstm(config.encoder.hidden).init(key, one)["params"]
    params = _networks().SharedMlp(config.encoder.hidden).init(key, one.reshape(1, -1))["params"]
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
        model, windows = _networks().make_autoencoder(config), whole(seen, config.patch)
        return model.apply({"params": params}, windows, method="encode")
    cut = patches.normalise(patches.cut(seen, config.patch))
    return of_patches(params, cut, config=config)


def whole(seen: jax.Array, config: PatchConfig) -> jax.Array:
    """All that a code sees as one patch, normalised: (frames, seen bands) -> (codes, patch frames,
    seen bands).
    """
    return patches.normalise(patches.frames_of_codes(seen, config))


def of_patches(params: Any, cut: jax.Array, *, config: Config) -> jax.Array:
    """States of normalised patches: (codes, bits, frames, width) -> (codes, bits)."""
    shape, hidden = cut.shape[:2], config.encoder.hidden
    if config.encoder.kind == "kernel":
        return jnp.einsum("cbij,ij->cb", cut, params["kernel"], precision="highest")
    rows = cut.reshape(-1, *cut.shape[2:])
    if config.encoder.kind == "lstm":
        states: Any = _networks().SharedLstm(hidden).apply({"params": params}, rows)
    else:
        rows = rows.reshape(len(rows), -1)
        states = _networks().SharedMlp(hidden).apply({"params": params}, rows)
    return states.reshape(shape)


def init_harmony(key: jax.Array, config: Config) -> Any:
    """Parameters of what the pitch classes share, at random: where training begins, and of the
    kernel the random projection of harmony.
    """
    seen, encoder = config.harmony, config.encoder
    width = CLASSES * (seen.octaves + 1) - 1
    if encoder.kind == "lstm":
        rows = jnp.zeros((1, seen.steps, 2 * width), jnp.float32)
        return _networks().SharedLstm(encoder.hidden, seen.bits).init(key, rows)["params"]
    size = 2 * seen.steps * width
    kernel = jax.random.normal(key, (size, seen.bits)) / np.sqrt(size)
    if encoder.kind == "kernel":
        return {"kernel": kernel}
    model = _networks().SharedMlp(encoder.hidden, seen.bits)
    made = model.init(key, jnp.zeros((1, size), jnp.float32))
    return made["params"] | {"kernel": {"kernel": kernel}}


def encode_harmony(params: Any, semitones: jax.Array, *, config: Config) -> jax.Array:
    """States of the codes of a recording: semitones (frames, pitches) -> (codes, 12, bits)."""
    heard = harmony.hearings(semitones, config=config.harmony)
    return of_windows(params, harmony.windows(heard, config=config.harmony), config=config)


def of_windows(params: Any, windows: jax.Array, *, config: Config) -> jax.Array:
    """States of the twelve pitch classes, each by the same function of what lies around it.

    Windows that lie r semitones higher have states that lie r classes higher, but for the r classes
    that leave the ring at its end: an octave lower is not quite the same.

    Args:
      params: of ``init_harmony``.
      windows: (codes, steps, 2, pitches).
      config: of the encoder.

    Returns:
      float32 (codes, 12, bits).
    """
    if config.encoder.kind == "kernel":
        return _heard(params["kernel"], windows)
    if config.encoder.kind == "mlp":
        kernels = params["kernel"]["kernel"], params["hidden"]["kernel"]
        made = _heard(jnp.concatenate(kernels, axis=1), windows)
        linear, beside = made[..., : kernels[0].shape[1]], made[..., kernels[0].shape[1] :]
        readout = params["readout"]
        hidden = jax.nn.relu(beside + params["hidden"]["bias"][None, None])
        return linear + hidden @ readout["kernel"] + readout["bias"][None, None]
    seen = views(windows).reshape(len(windows) * CLASSES, windows.shape[1], -1)
    model = _networks().SharedLstm(config.encoder.hidden, config.harmony.bits)
    states: Any = model.apply({"params": params}, seen)
    return states.reshape(len(windows), CLASSES, -1)


def _heard(kernel: jax.Array, windows: jax.Array) -> jax.Array:
    """``views`` times a kernel (steps x 2 x (pitches + 11), units), as one matrix without the
    views: (codes, 12, units).
    """
    codes, *shape, pitches = windows.shape
    place = np.arange(pitches)[:, None] - np.arange(CLASSES) + CLASSES - 1  # in the view of a class
    matrix = kernel.reshape(*shape, -1, kernel.shape[1])[:, :, place]
    flat = windows.reshape(codes, -1)
    made = jnp.matmul(flat, matrix.reshape(flat.shape[1], -1), precision="highest")
    return made.reshape(codes, CLASSES, -1)


def views(windows: jax.Array) -> jax.Array:
    """Windows as each pitch class hears them, from eleven semitones below it to the highest that
    any hears: (codes, steps, 2, pitches) -> (codes, 12, steps, 2, pitches + 11).
    """
    beside = CLASSES - 1
    padded = jnp.pad(windows, ((0, 0), (0, 0), (0, 0), (beside, beside)))
    width = windows.shape[3] + beside
    return jnp.stack([padded[..., p : p + width] for p in range(CLASSES)], axis=1)


def _convolved(kernel: jax.Array, seen: jax.Array, config: PatchConfig) -> jax.Array:
    """``of_patches`` of a linear kernel without cutting them: (K * x) / (mean over patches of x)
    - sum K, both as one matrix, which for so small a kernel is eight times as fast as XLA's
    convolution.
    """
    both = jnp.stack([kernel, jnp.full_like(kernel, 1 / kernel.size)])
    place = np.arange(seen.shape[1])[:, None] - np.arange(config.bits)  # in the kernel of a bit
    inside = (place >= 0) & (place < config.width)
    matrix = jnp.where(inside, both[:, :, np.clip(place, 0, config.width - 1)], 0)
    windows = patches.frames_of_codes(seen, config)
    flat = windows.reshape(len(windows), -1)
    matrix = jnp.moveaxis(matrix, 0, 2).reshape(flat.shape[1], -1)
    made, mean = jnp.split(jnp.matmul(flat, matrix, precision="highest"), 2, axis=1)
    return (made - jnp.sum(kernel) * mean) / (mean + patches.TINY)


def _networks() -> ModuleType:
    """What is of flax, loaded where it is wanted: it takes a tenth of the time to a first answer,
    and the packaged hashers do without it.
    """
    from seqhash import networks

    return networks
