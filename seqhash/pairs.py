"""Training by pairs: a clip and its degraded self, drawn, degraded and compared on the device.

A step is a function of (seed, step) and of the material: it draws places, degrades what is there
(``augment``), makes bands of both, encodes both, and moves the parameters so that a clip finds
itself among the other clips of the batch (``losses``). No degraded audio is ever kept.

``train_pairs`` runs from nothing in minutes on two cores and keeps no checkpoints: the same call
gives the same parameters, bit by bit on one machine.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from seqhash import augment, bands, equivariant, losses, networks, patches
from seqhash.config import Config, PairsConfig

PLACE_SECONDS = 0.1  # between places that clips are drawn from; each draw moves up to that on
QUIET = 3e-3  # RMS of a clip that is not drawn: there is nothing in it
NOISE_SECONDS = 10.0  # of a noise; shorter ones are repeated, longer ones cut into several
ROOM_SECONDS = 0.75  # of an impulse response that is kept
PITCHES = 17  # filter banks between the largest changes of pitch
STRETCH = 10  # steps of one program

State = tuple[Any, optax.OptState]  # parameters, and what the optimizer keeps of them


class Material(NamedTuple):
    """What is trained on, at the sample rate of the front end."""

    samples: jax.Array  # float32 (samples,): all recordings, one after another
    places: jax.Array  # int32 (places,): where clips may begin
    sources: augment.Sources


def make_material(
    recordings: Sequence[np.ndarray],
    noises: Sequence[np.ndarray],
    rooms: Sequence[np.ndarray],
    *,
    config: Config,
) -> Material:
    """Recordings, noises and rooms as a step wants them.

    Args:
      recordings: float32 (samples,) each, at the front end's rate.
      noises: float32 (samples,) each.
      rooms: impulse responses, float32 (taps,) each, direct sound first.
      config: of the clips.

    Raises:
      ValueError: no recording has room for a clip and what sounds before it, or there is no noise
        or no room.
    """
    rate, (past, length, spare) = config.bands.sample_rate, _lengths(config)
    step = round(PLACE_SECONDS * rate)
    ends = np.cumsum([len(one) for one in recordings])
    places = [np.zeros(0, np.int64)]
    for samples, end in zip(recordings, ends, strict=True):
        begins = np.arange(past + spare, len(samples) - length - spare - step, step)
        energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
        loud = (energy[begins + length] - energy[begins]) / length > QUIET**2
        places.append(end - len(samples) + begins[loud])
    chosen = np.concatenate(places)
    if not len(chosen):
        seconds = (past + length + 2 * spare + step) / rate
        raise ValueError(f"Training needs recordings of {seconds:.1f} s that sound, got none.")
    circles = [
        circle for noise in noises for circle in _circles(noise, round(NOISE_SECONDS * rate))
    ]
    if not circles or not rooms:  # silence is no noise
        raise ValueError(f"Training needs noises and rooms, got {len(circles)} and {len(rooms)}.")
    taps = round(ROOM_SECONDS * rate)
    responses = [np.pad(room[:taps], (0, max(0, taps - len(room)))) for room in rooms]
    return Material(
        jnp.asarray(np.concatenate(recordings), jnp.float32),
        jnp.asarray(chosen, jnp.int32),
        augment.Sources(
            jnp.asarray(np.stack(circles), jnp.float32),
            jnp.asarray(np.stack(responses), jnp.float32),
        ),
    )


def draw_pairs(
    key: jax.Array, material: Material, *, config: Config
) -> tuple[jax.Array, jax.Array]:
    """Bands of a batch of clips and of what became of them, float32 (batch, frames, bands) each."""
    place_key, move_key, other_key, clip_key = jax.random.split(key, 4)
    batch, places = config.pairs.batch_size, material.places
    step = round(PLACE_SECONDS * config.bands.sample_rate)
    chosen = places[jax.random.randint(place_key, (batch,), 0, len(places))]
    chosen = chosen + jax.random.randint(move_key, (batch,), 0, step)
    others = places[jax.random.randint(other_key, (batch,), 0, len(places))]
    one = functools.partial(_pair, config=config)
    return jax.vmap(one, in_axes=(0, 0, 0, None))(
        jax.random.split(clip_key, batch), chosen, others, material
    )


def pair_loss(params: Any, clean: jax.Array, degraded: jax.Array, *, config: Config) -> jax.Array:
    """The objective of a batch: the weighted sum of ``PairsConfig``'s terms.

    Args:
      params: of the encoder.
      clean, degraded: float32 (batch, frames, bands).
      config: of patches, encoder and objective.
    """
    encode = functools.partial(equivariant.encode, params, config=config)
    edge = ((0, 0), (config.patch.edge, config.patch.edge), (0, 0))
    references, queries = (
        jax.vmap(encode)(jnp.pad(x, edge, mode="edge")) for x in (clean, degraded)
    )
    loss, weight = objective(references, queries, config=config.pairs), config.pairs.reconstruction
    return loss + weight * _reconstruction(params, clean, config) if weight > 0 else loss


def objective(references: jax.Array, queries: jax.Array, *, config: PairsConfig) -> jax.Array:
    """The weighted sum of the terms of both sides' states, (batch, any, bits) each; all but
    ``reconstruction``, which needs the bands. References past the batch are strangers to all.
    """
    weights_of_bits = _weights(queries)
    bits = references.shape[-1]
    references, queries = (
        losses.straight_through(h).reshape(len(h), -1) for h in (references, queries)
    )
    weighted = queries * weights_of_bits.reshape(queries.shape)
    weighted = weighted * jnp.sqrt(weighted.shape[1] / jnp.sum(weighted**2, axis=1, keepdims=True))

    def both(term: Any) -> jax.Array:
        """Of the query's signs and of its weighted signs, in their shares."""
        plain, soft = term(queries, references), term(weighted, references)
        return (1 - config.soft) * plain + config.soft * soft

    codes = references.reshape(-1, bits)
    terms = {
        "separation": lambda: both(functools.partial(losses.separation, margin=config.margin)),
        "nt_xent": lambda: both(functools.partial(losses.nt_xent, temperature=config.temperature)),
        "hash_distance": lambda: losses.hash_distance(queries, references[: len(queries)]),
        "entropy": lambda: losses.bitwise_entropy(codes),
        "decorrelation": lambda: losses.decorrelation(codes),
    }
    weights = {name: getattr(config, name) for name in terms}
    weighed = [w * terms[name]() for name, w in weights.items() if w > 0]
    return jnp.sum(jnp.stack(weighed)) if weighed else jnp.float32(0)


def train_pairs(
    config: Config, material: Material, *, progress: bool = True
) -> tuple[Any, list[dict[str, float]]]:
    """Trains an encoder that all bands share.

    Args:
      config: of front end, patches, encoder, degradations and objective.
      material: of ``make_material``.
      progress: a bar on the screen.

    Returns:
      The parameters, numpy leaves, and a row {"step", "loss"} for every STRETCH steps: the mean of
      the losses before them.

    Raises:
      ValueError: the loss is not finite; the message names the step.
    """
    key = jax.random.key(config.pairs.seed)
    params = equivariant.init_params(jax.random.fold_in(key, 0), config)
    stretch = functools.partial(_stretch, key=jax.random.fold_in(key, 1), config=config)
    params, rows = fit(params, material, stretch, config.pairs, progress=progress)
    return jax.tree.map(np.asarray, params), rows


def fit(
    params: Any,
    material: Any,
    stretch: Callable[..., tuple[State, jax.Array]],
    wanted: PairsConfig,
    *,
    progress: bool,
) -> tuple[Any, list[dict[str, float]]]:
    """The steps of a training, ``STRETCH`` in a program.

    Args:
      params: to begin with.
      material: what is trained on.
      stretch: (state, material, step, count) -> state and the mean of the losses, of so many steps
        from one on; by ``steps``.
      wanted: of the optimizer.
      progress: a bar on the screen.

    Returns:
      The parameters and a row {"step", "loss"} for every stretch.

    Raises:
      ValueError: the loss is not finite; the message names the step.
    """
    state = (params, make_optimizer(wanted).init(params))
    rows = []
    with tqdm(total=wanted.steps, unit="step", disable=None if progress else True) as bar:
        for step in range(0, wanted.steps, STRETCH):
            count = min(STRETCH, wanted.steps - step)
            state, loss = stretch(state, material, step=step, count=count)
            rows.append({"step": step + count, "loss": float(loss)})
            if not np.isfinite(rows[-1]["loss"]):
                raise ValueError(f"The loss is {loss} in the steps up to {step + count}.")
            bar.update(count)
            bar.set_postfix(loss=f"{rows[-1]['loss']:.3f}")
    return state[0], rows


def steps(
    state: State,
    key: jax.Array,
    step: jax.Array,
    count: jax.Array,
    *,
    draw: Callable[[jax.Array], Any],
    loss: Callable[[Any, Any], jax.Array],
    config: PairsConfig,
) -> tuple[State, jax.Array]:
    """Some steps, and the mean of their losses: ``loss(params, draw(key of the step))``."""
    optimizer = make_optimizer(config)

    def one_step(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        (params, opt_state), total = carry
        drawn = draw(jax.random.fold_in(key, step + i))
        value, grads = jax.value_and_grad(loss)(params, drawn)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), total + value

    state, total = jax.lax.fori_loop(0, count, one_step, (state, jnp.float32(0)))
    return state, total / count


def make_optimizer(config: PairsConfig) -> optax.GradientTransformation:
    """Adam on a cosine with a warm-up, gradients clipped by their norm."""
    warmup = min(config.warmup_steps, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))


# ------------------------------------------------------------------------------------------- inside


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
    return steps(
        state,
        key,
        step,
        count,
        draw=lambda key: draw_pairs(key, material, config=config),
        loss=lambda params, pair: pair_loss(params, *pair, config=config),
        config=config.pairs,
    )


def _pair(
    key: jax.Array, place: jax.Array, other: jax.Array, material: Material, *, config: Config
) -> tuple[jax.Array, jax.Array]:
    """Bands of one clip and of its degraded self, (frames, bands) each."""
    degrade_key, stretch_key, holes_key = jax.random.split(key, 3)
    past, length, spare = _lengths(config)
    wide = length + 2 * spare  # what a stretched clip may look at
    samples = jax.lax.dynamic_slice(material.samples, (place - past - spare,), (past + wide,))
    music = jax.lax.dynamic_slice(material.samples, (other - spare,), (wide,))
    clean = samples[past + spare : past + spare + length]
    heard = augment.degrade(
        degrade_key,
        samples,
        music,
        material.sources,
        length=wide,
        sample_rate=config.bands.sample_rate,
        config=config.augment,
    )
    frames = bands.frame_count(length, config.bands)
    begin, pitch = augment.positions(
        stretch_key, frames=frames, frame_step=config.bands.frame_step, config=config.augment
    )
    first = jnp.clip(
        jnp.round(begin).astype(jnp.int32) + spare, 0, wide - config.bands.frame_length
    )
    cut = heard[first[:, None] + jnp.arange(config.bands.frame_length)[None]]
    shifts = np.linspace(-config.augment.pitch, config.augment.pitch, PITCHES)
    tables = np.stack([bands.filters(config.bands, shift=shift) for shift in shifts])
    nearest = jnp.argmin(jnp.abs(jnp.asarray(shifts, jnp.float32) - pitch))
    degraded = bands.of_frames(cut, jnp.asarray(tables, jnp.float32)[nearest], config=config.bands)
    degraded = augment.holes(holes_key, degraded, config=config.augment)
    return bands.bands(clean, config=config.bands), degraded


def _lengths(config: Config) -> tuple[int, int, int]:
    """Samples before a clip that rooms carry on, of a clip, and spare on either side of it."""
    rate, frames = config.bands.sample_rate, config.pairs.seconds * config.bands.sample_rate
    length = round(frames)
    stretch = length * config.augment.tempo / 2 + config.augment.jitter * config.bands.frame_step
    return round(0.5 * rate), length, int(np.ceil(stretch)) + 1


def _reconstruction(params: Any, clean: jax.Array, config: Config) -> jax.Array:
    """The paper's objective, on what the codes of the clean clips see."""
    edge = ((config.patch.edge, config.patch.edge), (0, 0))
    seen = [patches.around(jnp.pad(one, edge, mode="edge"), config.patch) for one in clean]
    windows = jnp.concatenate([equivariant.whole(one, config.patch) for one in seen])
    model = networks.make_autoencoder(config)
    reconstruction: Any = model.apply({"params": params}, windows)[1]
    return losses.reconstruction_error(windows, reconstruction)


def _weights(states: jax.Array) -> jax.Array:
    """tanh(|h| / mean |h| of the clip): how much a query's bit counts, (batch, codes, bits)."""
    size = jnp.abs(states)
    return jnp.tanh(size / (jnp.mean(size, axis=(1, 2), keepdims=True) + 1e-9))


def _circles(noise: np.ndarray, length: int) -> list[np.ndarray]:
    """A noise as pieces of one length, each without a constant; a short one is repeated."""
    noise = noise - np.mean(noise)
    if len(noise) < length:
        noise = np.tile(noise, -(-length // max(1, len(noise))))
    pieces = [noise[i : i + length] for i in range(0, len(noise) - length + 1, length)]
    return [piece / level for piece in pieces if (level := np.sqrt(np.mean(piece**2))) > 1e-4]
