"""Batches for training: segments of recordings, in an order that is a function of (seed, epoch).

Frames stay on the device and segments are gathered there; frames that do not fit are read from the
memory-mapped store, a stretch of batches at a time. Both ways give the same batches. With several
processes each reads and places its own devices' part of a batch only.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqhash import corpus, digests, features, mfcc
from seqhash.config import Config

# batches of a stretch: on a CPU, one step a program spends half its time in page faults
STRETCH = 16


class Frames(NamedTuple):
    """Cepstra of the recordings and how each is normalised."""

    cepstra: Sequence[np.ndarray]  # float32 (frames, coeffs) of each recording
    # (recordings, coeffs): what each recording's frames are standardised by
    statistics: mfcc.Statistics


class Batch(NamedTuple):
    """Raw segments and the statistics of their recordings."""

    segments: jax.Array  # float32 (batch, segment frames, coeffs)
    mean: jax.Array  # float32 (batch, 1, coeffs)
    std: jax.Array


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a model is trained on: recordings' frames, which of them train, and the training frames'
    statistics.
    """

    frames: Frames
    statistics: mfcc.Statistics  # (coeffs,) of the training frames
    training: np.ndarray  # (segments, 2) int64: recording, first frame
    validation: np.ndarray
    digests: tuple[str, str]  # ``digests_of`` its store


def make_dataset(store: features.Store, *, config: Config) -> Dataset:
    """Splits recordings into training and validation (whole recordings, by config.train.seed).

    Raises:
      ValueError: no training segments, or fewer than a batch.
    """
    cepstra = store.cepstra
    train_index, validation_index = _split(store, config)
    statistics = _statistics([cepstra[i] for i in train_index])
    if config.segment.normalisation == "recording":
        each = [_statistics([one]) for one in cepstra]
    else:
        each = [statistics] * len(cepstra)
    table = mfcc.Statistics(*(np.stack(values) for values in zip(*each, strict=True)))
    dataset = Dataset(
        Frames(cepstra, table),
        statistics,
        _segments_of(cepstra, train_index, config),
        _segments_of(cepstra, validation_index, config),
        digests_of(store, config=config),
    )
    if not len(dataset.training):
        raise ValueError(
            "No training recording is as long as a segment of "
            f"segment.frames = {config.segment.frames} frames: "
            f"the longest has {max((len(cepstra[i]) for i in train_index), default=0)}."
        )
    if len(dataset.training) < config.train.batch_size:
        raise ValueError(
            f"train.batch_size = {config.train.batch_size} needs at least as many training "
            "segments, "
            f"got {len(dataset.training)}; make it smaller or add recordings."
        )
    return dataset


def digests_of(store: features.Store, *, config: Config) -> tuple[str, str]:
    """Tell whether a run was trained on a store: of the contents that train and of those held out,
    in order; and of ids and lengths in frames, which is what checkpoints of version 0.1 noted.
    """
    contents = digests.of_store(store)
    parts = [[contents[i] for i in index] for index in _split(store, config)]
    rows = [(r.id, len(c)) for r, c in zip(store.recordings, store.cepstra, strict=True)]
    return digests.of(parts), hashlib.sha256(repr(rows).encode()).hexdigest()


def _split(store: features.Store, config: Config) -> tuple[np.ndarray, np.ndarray]:
    return corpus.split(
        store.recordings, fraction=config.train.validation_fraction, seed=config.train.seed
    )


def steps_per_epoch(dataset: Dataset, config: Config) -> int:
    """Whole batches in the training segments; the rest of an epoch's random order is left out."""
    return len(dataset.training) // config.train.batch_size


def epoch_order(dataset: Dataset, epoch: int, config: Config) -> np.ndarray:
    """int32 (segments,): the random order of an epoch's segments, a function of (seed, epoch)."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.train.seed), 1), epoch)
    return np.asarray(jax.random.permutation(key, len(dataset.training)), np.int32)


def gather(frames: Frames, segments: np.ndarray, *, segment_frames: int) -> Batch:
    """A batch on the host, from memory or from the memory-mapped store."""
    cut = [
        frames.cepstra[recording][first : first + segment_frames] for recording, first in segments
    ]
    owners = segments[:, 0]
    mean, std = (np.asarray(values)[owners][:, None] for values in frames.statistics)
    return Batch(np.stack(cut), mean, std)  # type: ignore[arg-type]


class Resident(NamedTuple):
    """A source whose frames are all on every device; the places to cut them are laid out over the
    mesh.
    """

    cepstra: jax.Array  # float32 (all frames, coeffs)
    statistics: mfcc.Statistics  # (recordings, coeffs)
    rows: jax.Array  # int32 (STRETCH, batch): first frame of each segment
    owners: jax.Array  # int32 (STRETCH, batch): its recording


def resident_batch(source: Resident, i: jax.Array, *, config: Config) -> Batch:
    """Gathers this device's part of batch i."""
    cut = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=config.segment.frames)
    segments = jax.vmap(cut, in_axes=(None, 0))(source.cepstra, source.rows[i])
    owners = source.owners[i]
    return Batch(
        segments, source.statistics.mean[owners][:, None], source.statistics.std[owners][:, None]
    )


def streamed_batch(source: Batch, i: jax.Array, *, config: Config) -> Batch:
    """Batch i of a stretch that the host has gathered: fields with a leading axis of STRETCH."""
    del config
    return Batch(*(field[i] for field in source))


def sources(
    dataset: Dataset, config: Config, mesh: Mesh, resident_bytes: int
) -> tuple[Callable, Callable, Any]:
    """(next_source(order, start), batch_at, spec) for frames that stay on the device, or are
    streamed to it.
    """
    cepstra, batch_size = dataset.frames.cepstra, config.train.batch_size
    first_rows = np.concatenate([[0], np.cumsum([len(one) for one in cepstra])])
    everywhere, by_batch = PartitionSpec(), PartitionSpec(None, "data")
    # Not device_put: with several processes it would send the whole array around to compare it.
    on_all = functools.partial(
        jax.make_array_from_process_local_data, NamedSharding(mesh, everywhere)
    )
    by_column = functools.partial(
        jax.make_array_from_process_local_data, NamedSharding(mesh, by_batch)
    )
    columns = _columns_here(mesh, batch_size)

    def stretch_segments(order: np.ndarray, start: int) -> np.ndarray:
        """(STRETCH, this process's columns, 2), the last rows of an epoch repeated where there are
        no more.
        """
        chosen = order[start * batch_size : (start + STRETCH) * batch_size]
        return dataset.training[np.resize(chosen, STRETCH * batch_size)].reshape(
            STRETCH, batch_size, 2
        )[:, columns]

    if first_rows[-1] * cepstra[0].shape[1] * 4 <= resident_bytes and first_rows[-1] < 2**31:
        resident = on_all(np.concatenate(cepstra))
        statistics = on_all(dataset.frames.statistics)

        def next_resident(order: np.ndarray, start: int) -> Resident:
            recording, first = np.moveaxis(stretch_segments(order, start), -1, 0)
            rows = (first_rows[recording] + first).astype(np.int32)
            return Resident(resident, statistics, *by_column((rows, recording.astype(np.int32))))

        spec = Resident(everywhere, everywhere, by_batch, by_batch)  # type: ignore[arg-type]
        return next_resident, resident_batch, spec

    def next_streamed(order: np.ndarray, start: int) -> Batch:
        segments = stretch_segments(order, start)
        flat = gather(dataset.frames, segments.reshape(-1, 2), segment_frames=config.segment.frames)
        fields = (field.reshape(STRETCH, len(columns), *field.shape[1:]) for field in flat)
        return by_column(Batch(*fields))

    return next_streamed, streamed_batch, by_batch


def _columns_here(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which segments of a batch lie on this process's devices, ascending."""
    here = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    return np.arange(batch_size).reshape(mesh.devices.size, -1)[here].ravel()


def _statistics(cepstra: Sequence[np.ndarray]) -> mfcc.Statistics:
    """As ``mfcc.frame_statistics`` has them: a constant coefficient does not divide by zero."""
    mean, std = features.statistics(cepstra)
    return mfcc.Statistics(
        mean.astype(np.float32), np.sqrt(std**2 + mfcc.VARIANCE_FLOOR).astype(np.float32)
    )


def _segments_of(cepstra: Sequence[np.ndarray], index: np.ndarray, config: Config) -> np.ndarray:
    rows = []
    for recording in index:
        count = mfcc.segment_count(len(cepstra[recording]), config=config.segment)
        first = np.arange(count, dtype=np.int64) * config.segment.hop
        rows.append(np.stack([np.full(count, recording, np.int64), first], axis=1))
    return np.concatenate(rows) if rows else np.zeros((0, 2), np.int64)
