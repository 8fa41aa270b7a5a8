"""Controls: hashers that have learned nothing, or next to nothing, about music.

An untrained LSTM reaches what the paper reports for its trained one, so no accuracy is shown
without these beside it. Each is a ``Hasher``: same segments, same normalisation, same number of
bits, same rules.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from seqhash import autoencoder, equivariant, mfcc, pairs, patches
from seqhash.band_codes import make_band_hasher
from seqhash.codes import Hasher, make_hasher
from seqhash.config import Config, override
from seqhash.cover_codes import CoverHasher, make_cover_hasher

PCA_SEGMENTS = 8_192  # segments the components are fitted on
CCA_BATCHES = 20  # of pairs, from which the closed form is made


def project(params: dict, segments: jax.Array, *, config: Config) -> jax.Array:
    """Linear states: (batch, frames, coeffs) -> (segment - offset) @ matrix, (batch, bits)."""
    del config
    flat = segments.reshape(segments.shape[0], -1) - params["offset"][None]
    return jnp.matmul(flat, params["matrix"], precision="highest")


def untrained(key: jax.Array, config: Config, statistics: mfcc.Statistics) -> Hasher:
    """The same LSTM with its initial weights."""
    return make_hasher(
        _at_zero(config), autoencoder.init_params(key, config), statistics, name="untrained LSTM"
    )


def random_projection(key: jax.Array, config: Config, statistics: mfcc.Statistics) -> Hasher:
    """Signs of Gaussian projections of the segment: locality-sensitive hashing for angles (Charikar
    2002).
    """
    size = config.segment.frames * config.mfcc.coeffs
    matrix = jax.random.normal(key, (size, config.model.hidden_size)) / np.sqrt(size)
    params = {"offset": np.zeros(size, np.float32), "matrix": np.asarray(matrix)}
    return make_hasher(
        _at_zero(config), params, statistics, name="random projection", encode=project
    )


def difference(config: Config) -> Hasher:
    """The unlearned kernel of a hasher of bands, on the same front end at the same bytes."""
    kernel = {"encoder.front_end": "bands", "encoder.kind": "kernel"}
    params = {"kernel": np.asarray(equivariant.difference(config.patch))}
    return make_band_hasher(override(config, kernel), params, name="difference")


def random_kernel(key: jax.Array, config: Config) -> Hasher:
    """Signs of a Gaussian kernel that all bands share: the random projection of bands."""
    kernel = {"encoder.front_end": "bands", "encoder.kind": "kernel"}
    shape = (config.patch.frames, config.patch.width)
    params = {"kernel": np.asarray(jax.random.normal(key, shape))}
    return make_band_hasher(override(config, kernel), params, name="random kernel")


def correlated(material: pairs.Material, config: Config) -> Hasher:
    """The kernel in closed form: the linear function of a patch that correlates most between a clip
    and its degraded self (canonical correlation with one function for both, Hotelling 1936):

        maximise  w' (C_xy + C_yx) w / w' (C_xx + C_yy) w

    Args:
      material: of ``pairs.make_material``; what is trained on.
      config: of front end, patches and degradations.
    """
    config = override(config, {"encoder.front_end": "bands", "encoder.kind": "kernel"})
    size = config.patch.frames * config.patch.width
    within, between = np.zeros((2, size, size))
    for key in jax.random.split(jax.random.key(config.pairs.seed), CCA_BATCHES):
        x, y = (np.asarray(one, np.float64) for one in _patches_of_pairs(key, material, config))
        within += x.T @ x + y.T @ y
        between += x.T @ y + y.T @ x
    # A patch is divided by its mean, so its values sum to nothing: one direction has no variance.
    ridge = 1e-3 * np.trace(within) / size * np.eye(size)
    kernel = scipy.linalg.eigh(between, within + ridge)[1][:, -1]
    params = {"kernel": kernel.reshape(config.patch.frames, -1).astype(np.float32)}
    return make_band_hasher(config, params, name="closed form")


@functools.partial(jax.jit, static_argnames="config")
def _patches_of_pairs(
    key: jax.Array, material: pairs.Material, config: Config
) -> tuple[jax.Array, jax.Array]:
    """Patches of clips and of what became of them, (patches, frames x width) each."""
    patch = config.patch

    def flat(bands: jax.Array) -> jax.Array:
        cut = jax.vmap(lambda one: patches.cut(patches.around(one, patch), patch))(bands)
        return patches.normalise(cut).reshape(-1, patch.frames * patch.width)

    clean, degraded = pairs.draw_pairs(key, material, config=config)
    return flat(clean), flat(degraded)


def random_harmony(key: jax.Array, config: Config) -> CoverHasher:
    """Signs of a Gaussian kernel that all pitch classes share: the random projection of harmony."""
    config = override(config, {"encoder.front_end": "harmony", "encoder.kind": "kernel"})
    params = {"kernel": np.asarray(equivariant.init_harmony(key, config)["kernel"])}
    return make_cover_hasher(config, params, name="random kernel")


def pca_sign(cepstra: Sequence[np.ndarray], config: Config, statistics: mfcc.Statistics) -> Hasher:
    """Signs of the first principal components of the training segments, whose frames are
    ``cepstra``.

    Where there are fewer components than bits, the bits that remain are constant (and reported as
    dead).
    """
    segments = _some_segments(cepstra, config, statistics)
    flat = segments.reshape(len(segments), -1)
    bits = config.model.hidden_size
    from sklearn.decomposition import (
        PCA,  # with scipy 1.4 s, which nobody should wait for who asks for --help
    )

    pca = PCA(n_components=min(bits, *flat.shape), svd_solver="covariance_eigh").fit(flat)
    matrix = np.zeros((flat.shape[1], bits), np.float32)
    matrix[:, : len(pca.components_)] = pca.components_.T
    params = {"offset": pca.mean_.astype(np.float32), "matrix": matrix}
    return make_hasher(_at_zero(config), params, statistics, name="PCA-sign", encode=project)


def random_codes(seed: int, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Uniform codes in the shape of the given ones: what a hash that hears nothing scores, ties
    included.
    """
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2**32, size=one.shape, dtype=np.uint32) for one in codes]


def _at_zero(config: Config) -> Config:
    return override(config, {"code.threshold": "zero"})


def _some_segments(
    cepstra: Sequence[np.ndarray], config: Config, statistics: mfcc.Statistics
) -> np.ndarray:
    """Up to PCA_SEGMENTS normalised segments, evenly spaced: float32 (segments, frames, coeffs)."""
    seen = config.segment
    counts = [mfcc.segment_count(len(one), config=seen) for one in cepstra]
    stride = max(1, -(-sum(counts) // PCA_SEGMENTS))
    chosen, own = [], []
    for one, count in zip(cepstra, counts, strict=True):
        starts = np.arange(0, count, stride) * seen.hop
        chosen.append(np.asarray(one)[starts[:, None] + np.arange(seen.frames)])
        if seen.normalisation == "recording":
            statistics = mfcc.frame_statistics(one, len(one))
        own += [statistics] * len(starts)
    # All at once: recordings differ in length, and each length would be programs of its own.
    each = mfcc.Statistics(*(np.stack(values)[:, None] for values in zip(*own, strict=True)))
    return np.asarray(mfcc.normalise(np.concatenate(chosen), each, config=seen))
