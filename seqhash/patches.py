"""Bands to patches: what one bit of a code sees, frames x bands around its own, as pure functions.

With x the bands of a recording, its first and last frame repeated ``edge`` times, code c and bit b
see

    P[c, b, i, j] = x[hop c + i, first + b - width // 2 + j]        i < frames, j < width
    p = P / mean(P) - 1

Level and slow equalisation are factors of the whole patch and leave in the second line. As bit b is
computed from bands around ``first + b`` by the same function for all b, music that is a semitone
higher has its bits one place further on.

Repeating the frames at the edges lets a short clip have codes of its beginning and its end: their
patches lie partly outside of it. A recording is treated alike, so code c begins at frame hop c.
"""

import jax
import jax.numpy as jnp
import numpy as np

from seqhash.config import PatchConfig

TINY = 1e-12  # beside a magnitude: patches of digital silence are divided by something


def code_count(frames: int, config: PatchConfig) -> int:
    """Codes of a recording of so many frames; none where there is no frame."""
    padded = frames + 2 * config.edge - config.frames
    return 0 if frames < 1 else max(0, padded // config.hop + 1)


def repeat_edges(bands: np.ndarray, config: PatchConfig) -> np.ndarray:
    """The bands of a whole recording (frames, bands) with the first and the last frame repeated."""
    return np.pad(bands, ((config.edge, config.edge), (0, 0)), mode="edge")


def around(bands: jax.Array, config: PatchConfig, *, rotation: int = 0) -> jax.Array:
    """The bands that the bits of a code look at: (..., bands) -> (..., bits + width - 1).

    Args:
      bands: of frames.
      config: of the patches.
      rotation: semitones by which a query lies above what it is compared with.
    """
    low = config.first - config.width // 2 + rotation
    return bands[..., low : low + config.bits + config.width - 1]


def frames_of_codes(seen: jax.Array, config: PatchConfig) -> jax.Array:
    """The frames that each code sees: (frames, seen bands) -> (codes, patch frames, seen bands)."""
    codes = (seen.shape[0] - config.frames) // config.hop + 1
    return seen[jnp.arange(codes)[:, None] * config.hop + jnp.arange(config.frames)[None]]


def cut(seen: jax.Array, config: PatchConfig) -> jax.Array:
    """Patches of frames as ``around`` gives them, with their edges.

    (frames, bits + width - 1) -> (codes, bits, patch frames, width).
    """
    codes = (seen.shape[0] - config.frames) // config.hop + 1
    rows = jnp.arange(codes)[:, None] * config.hop + jnp.arange(config.frames)[None]
    columns = jnp.arange(config.bits)[:, None] + jnp.arange(config.width)[None]
    return seen[rows[:, None, :, None], columns[None, :, None, :]]


def normalise(patches: jax.Array) -> jax.Array:
    """p = P / mean(P) - 1 of each patch: (..., patch frames, width), same shape."""
    mean = jnp.mean(patches, axis=(-2, -1), keepdims=True)
    return patches / (mean + TINY) - 1
