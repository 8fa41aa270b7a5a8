"""Training by versions: one moment of a work in two recordings whose alignment is known.

A step draws works and moments, cuts the window around each moment from two versions, turns one of
them by the difference of their keys, and moves the kernels so that a moment finds itself among
those of other works (``losses``). Frames of all versions stay on the device; no audio does.

``train_versions`` runs from nothing in a minute on two cores and keeps no checkpoints: the same
call gives the same parameters, bit by bit on one machine.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqhash import equivariant, harmony, pairs
from seqhash.config import Config, PairsConfig

JITTER = 1.0  # frames by which a window may lie off its moment
MARGIN_SECONDS = 1.0  # at either end of what two versions share, in which no moment is drawn

State = tuple[Any, optax.OptState]  # parameters, and what the optimizer keeps of them


class Aligned(NamedTuple):
    """A recording of a work and where its score lies in it."""

    samples: np.ndarray  # float32 (samples,) at the front end's rate
    key_shift: int  # semitones above the work
    first: float  # seconds at which the score begins ...
    beat: float  # ... and seconds of each of its beats
    beats: float  # that are played
    own_chords: bool  # and not others under the tune, or none


class Material(NamedTuple):
    """What is trained on: all versions, one after another, and the pairs that are drawn."""

    heard: dict[str, jax.Array]  # float32 (frames, pitches), of "chords" and "tune"
    place: jax.Array  # int32 (versions, 2): first frame, frames
    score: jax.Array  # float32 (versions, 3): ``first``, ``beat``, ``beats``
    key: jax.Array  # int32 (versions,)
    pairs: dict[str, jax.Array]  # int32 (pairs, 2), versions of one work: for "chords" those with
    # its own chords, for "tune" all


def make_material(works: Sequence[Sequence[Aligned]], *, config: Config) -> Material:
    """Versions as a step wants them.

    Args:
      works: of each its versions.
      config: of the front end.

    Raises:
      ValueError: fewer than two works, or one without two versions that share moments.
    """
    rows, frames, twos, total = list[Aligned](), list[np.ndarray](), list[tuple[int, int]](), 0
    places = list[tuple[int, int]]()
    for versions in works:
        low = len(rows)
        for version in versions:
            powers = harmony.stream([version.samples], config=config.harmony)
            made = harmony.of_recording(powers, config=config.harmony)
            frames.append(made)
            places.append((total, len(made)))
            total += len(made)
        rows += versions
        twos += [(i, j) for i in range(low, len(rows)) for j in range(low, len(rows)) if i != j]
    same = [pair for pair in twos if all(rows[i].own_chords for i in pair)]
    if len(works) < 2 or not same:
        raise ValueError(
            "Training needs several works of several versions with their own chords, "
            f"got {len(works)} works of {len(rows)} versions, {len(same)} pairs."
        )
    score = np.array([(row.first, row.beat, row.beats) for row in rows], np.float32)
    semitones = jnp.asarray(np.concatenate(frames))
    return Material(
        {"chords": _partials(semitones), "tune": _salient(semitones, config=config.harmony)},
        jnp.asarray(places, jnp.int32),
        jnp.asarray(score),
        jnp.asarray([row.key_shift for row in rows], jnp.int32),
        {"chords": jnp.asarray(same, jnp.int32), "tune": jnp.asarray(twos, jnp.int32)},
    )


def draw_pairs(
    key: jax.Array, material: Material, part: str, *, config: Config
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Windows of a batch of moments in two versions each, float32 (batch, steps, octaves, 12), and
    by how many semitones the second lies above the first, int32 (batch,).
    """
    pair_key, moment_key, move_key = jax.random.split(key, 3)
    batch = config.pairs.batch_size
    pairs_of = material.pairs[part]
    chosen = pairs_of[jax.random.randint(pair_key, (batch,), 0, len(pairs_of))]
    score = material.score[chosen]  # (batch, 2, 3)
    edge = jnp.max(MARGIN_SECONDS / score[..., 1], axis=1)  # beats
    room = jnp.maximum(jnp.min(score[..., 2], axis=1) - 2 * edge, 0)
    moment = edge + room * jax.random.uniform(moment_key, (batch,))
    seconds = score[..., 0] + moment[:, None] * score[..., 1]
    seen = config.harmony
    length = seen.steps * seen.step_frames
    middle = (seconds * seen.sample_rate - seen.frame_length / 2) / seen.frame_step
    middle += jax.random.uniform(move_key, (batch, 2), minval=-JITTER, maxval=JITTER)
    begin = jnp.round(middle - (length - 1) / 2).astype(jnp.int32)
    place = material.place[chosen]
    begin = place[..., 0] + jnp.clip(begin, 0, place[..., 1] - length)
    cut = material.heard[part][begin[..., None] + jnp.arange(length)[None, None]]
    shape = (batch, 2, seen.steps, seen.step_frames, seen.octaves, 12)
    windows = harmony.normalise(jnp.mean(cut.reshape(shape), axis=3))
    apart = material.key[chosen[:, 1]] - material.key[chosen[:, 0]]
    return windows[:, 0], windows[:, 1], apart


def version_loss(
    kernel: jax.Array, one: jax.Array, other: jax.Array, apart: jax.Array, *, config: PairsConfig
) -> jax.Array:
    """The objective of a batch: ``pairs.objective`` of the states, the first's turned into the key
    of the second.
    """
    queries = equivariant.circulant(kernel, one)
    queries = jax.vmap(lambda states, by: jnp.roll(states, by, axis=0))(queries, apart)
    return pairs.objective(equivariant.circulant(kernel, other), queries, config=config)


def objectives(config: PairsConfig) -> dict[str, PairsConfig]:
    """Of the bits of chords and of those of the tune: separation is best for single codes of what
    is nearly the same, NT-Xent for what is less so.
    """
    return {"chords": replace(config, nt_xent=0.0), "tune": replace(config, separation=0.0)}


def train_versions(
    config: Config, material: Material, *, progress: bool = True
) -> tuple[Any, list[dict[str, float]]]:
    """Trains the kernel that all pitch classes share.

    Args:
      config: of front end and objective.
      material: of ``make_material``.
      progress: a bar on the screen.

    Returns:
      The parameters, numpy leaves, and a row {"step", "loss"} for every ``pairs.STRETCH`` steps:
      the mean of the losses before them.

    Raises:
      ValueError: the loss is not finite; the message names the step.
    """
    key = jax.random.key(config.pairs.seed)
    params = init_params(jax.random.fold_in(key, 0), config)
    stretch = functools.partial(_stretch, key=jax.random.fold_in(key, 1), config=config)
    params, rows = pairs.fit(params, material, stretch, config.pairs, progress=progress)
    params = levelled(params, material, jax.random.fold_in(key, 2), config=config)
    return jax.tree.map(np.asarray, params), rows


def init_params(key: jax.Array, config: Config) -> Any:
    """Gaussian kernels: the random projection of harmony, and where training begins."""
    seen = config.harmony
    shape, scale = (seen.steps, seen.octaves, 12), np.sqrt(seen.steps * seen.octaves * 12)
    widths = {"chords": seen.chords, "tune": seen.tune}
    return {
        part: jax.random.normal(jax.random.fold_in(key, i), (*shape, bits)) / scale
        for i, (part, bits) in enumerate(widths.items())
        if bits
    }


def levelled(params: Any, material: Material, key: jax.Array, *, config: Config) -> Any:
    """The kernels scaled so that the mean size of their states is 1: no bit changes, and the sizes
    of all of them weigh alike.
    """
    scaled = {}
    for part, kernel in params.items():
        one, _, _ = draw_pairs(key, material, part, config=config)
        scaled[part] = kernel / jnp.mean(jnp.abs(equivariant.circulant(kernel, one)))
    return scaled


_partials = jax.jit(harmony.partials)
_salient = jax.jit(harmony.salient, static_argnames=("config",))


@functools.partial(jax.jit, static_argnames=("config",))
def _stretch(
    state: State,
    material: Material,
    *,
    key: jax.Array,
    step: jax.Array,
    count: jax.Array,
    config: Config,
) -> tuple[State, jax.Array]:
    """``count`` is a run-time value: one program for all stretches."""

    def draw(key: jax.Array) -> dict[str, Any]:
        return {
            part: draw_pairs(jax.random.fold_in(key, i), material, part, config=config)
            for i, part in enumerate(sorted(state[0]))
        }

    def loss(params: Any, drawn: dict[str, Any]) -> jax.Array:
        wanted, total = objectives(config.pairs), jnp.float32(0)
        for part, kernel in sorted(params.items()):
            total += version_loss(kernel, *drawn[part], config=wanted[part])
        return total

    return pairs.steps(state, key, step, count, draw=draw, loss=loss, config=config.pairs)
