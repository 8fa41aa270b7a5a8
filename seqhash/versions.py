"""Training by versions: one moment of a work in two recordings whose alignment is known.

A step draws works and moments, cuts the window around each moment from two versions, turns one of
them by the difference of their keys, and moves the parameters so that a moment finds itself among
those of other works (``losses``). Frames of all versions stay on the device; no audio does.

``train_versions`` runs from nothing in a minute on two cores and keeps no checkpoints: the same
call gives the same parameters, bit by bit on one machine.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqhash import equivariant, harmony, pairs
from seqhash.config import Config

JITTER = 1.0  # frames by which a window may lie off its moment
MARGIN_SECONDS = 1.0  # at either end of what two versions share, in which no moment is drawn

State = tuple[Any, optax.OptState]  # parameters, and what the optimizer keeps of them


class Aligned(NamedTuple):
    """A recording of a work and where its score lies in it."""

    samples: np.ndarray  # float32 or int16 (samples,) at the front end's rate
    key_shift: int  # semitones above the work
    first: float  # seconds at which the score begins ...
    beat: float  # ... and seconds of each of its beats
    beats: float  # that are played
    own_chords: bool  # and not others under the tune, or none


class Material(NamedTuple):
    """What is trained on: all versions, one after another, and the pairs that are drawn."""

    heard: jax.Array  # float32 (frames, 2, pitches), of ``harmony.hearings``
    place: jax.Array  # int32 (versions, 2): first frame, frames
    score: jax.Array  # float32 (versions, 3): ``first``, ``beat``, ``beats``
    key: jax.Array  # int32 (versions,)
    pairs: dict[str, jax.Array]  # int32 (pairs, 2), versions of one work: "own" those with its own
    # chords, "all" all


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
            samples = version.samples
            if samples.dtype == np.int16:
                samples = samples.astype(np.float32) / 32_767
            powers = harmony.stream([samples], config=config.harmony)
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
    return Material(
        _hearings(np.concatenate(frames), config=config.harmony),
        jnp.asarray(places, jnp.int32),
        jnp.asarray(score),
        jnp.asarray([row.key_shift for row in rows], jnp.int32),
        {"own": jnp.asarray(same, jnp.int32), "all": jnp.asarray(twos, jnp.int32)},
    )


def draw_pairs(
    key: jax.Array, material: Material, chords: str, *, config: Config
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Windows of a batch of moments in two versions each, float32 (batch, steps, 2, pitches), and
    by how many semitones the second lies above the first, int32 (batch,).
    """
    pair_key, moment_key, move_key = jax.random.split(key, 3)
    batch = config.pairs.batch_size
    pairs_of = material.pairs[chords]
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
    cut = material.heard[begin[..., None] + jnp.arange(length)[None, None]]
    windows = harmony.normalise(cut, config=seen)
    apart = material.key[chosen[:, 1]] - material.key[chosen[:, 0]]
    return windows[:, 0], windows[:, 1], apart


def version_loss(
    params: Any, one: jax.Array, other: jax.Array, apart: jax.Array, *, config: Config
) -> jax.Array:
    """The objective of a batch: ``pairs.objective`` of the states, the first's turned into the key
    of the second. Strangers are there in all twelve keys, as where a query is asked in all.
    """
    queries = equivariant.of_windows(params, one, config=config)
    queries = jax.vmap(lambda states, by: jnp.roll(states, by, axis=0))(queries, apart)
    references = equivariant.of_windows(params, other, config=config)
    turned = [jnp.roll(references, by, axis=1) for by in range(equivariant.CLASSES)]
    return pairs.objective(jnp.concatenate(turned), queries, config=config.pairs)


def train_versions(
    config: Config, material: Material, *, progress: bool = True
) -> tuple[Any, list[dict[str, float]]]:
    """Trains the function that all pitch classes share.

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
    params = equivariant.init_harmony(jax.random.fold_in(key, 0), config)
    stretch = functools.partial(_stretch, key=jax.random.fold_in(key, 1), config=config)
    params, rows = pairs.fit(params, material, stretch, config.pairs, progress=progress)
    return jax.tree.map(np.asarray, params), rows


_hearings = jax.jit(harmony.hearings, static_argnames=("config",))


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

    def draw(key: jax.Array) -> list[Any]:
        return [
            draw_pairs(jax.random.fold_in(key, i), material, chords, config=config)
            for i, chords in enumerate(("own", "all"))
        ]

    def loss(params: Any, drawn: list[Any]) -> jax.Array:
        return jnp.sum(jnp.stack([version_loss(params, *one, config=config) for one in drawn]))

    return pairs.steps(state, key, step, count, draw=draw, loss=loss, config=config.pairs)
