"""A collection's codes, laid out for search: planar, in shards on recording borders.

Codes lie as uint32 (shards, words, rows), so that the rows of one word are neighbours in memory.
The leading axis may be spread over the devices of a mesh. Rows inside a shard are int32, rows of
the collection int64. Capacities are rounded up, so that few compiled programs serve all sizes.
"""

import itertools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int32, Int64, UInt16, UInt32

from seqhash.sizes import by_eighths, power_of_two

SHARD_ROWS = 2**30  # rows of a shard at most: they are int32 inside
SPARE = 2**12  # rows after the last that a window may look into, at first
# capacities are multiples of it: the rows that the largest group of the smallest blocks of a scan
# spans
GROUP = 2**12
AXIS = "data"  # of the mesh


@dataclass(frozen=True, eq=False)
class Database:
    """A collection's codes, laid out for search. Made by ``build``."""

    planes: UInt32[jax.Array, "shards words spare_rows"]  # capacity + SPARE rows
    # codes from a row to the end of its recording, at most 65,535; 0 where there is no row
    left: UInt16[jax.Array, "shards capacity"]
    used: Int32[np.ndarray, " shards"]  # rows in use
    first: Int64[np.ndarray, " shards"]  # the shard's first row in the collection
    mesh: Mesh | None
    platform: str  # of its devices: cpu, gpu, tpu
    # rows that meet all queries at a time, as a multiple of what a CPU's first-level cache wants
    scale: int

    @property
    def words(self) -> int:
        """uint32 words in a code."""
        return self.planes.shape[1]

    @property
    def capacity(self) -> int:
        """Rows that a shard can hold."""
        return self.left.shape[1]

    @property
    def on_cpu(self) -> bool:
        """Whether its devices are CPUs."""
        return self.platform == "cpu"

    @property
    def full(self) -> bool:
        """Whether each device has one shard, most of whose capacity is in use."""
        devices = 1 if self.mesh is None else self.mesh.shape[AXIS]
        return len(self.used) == devices and 4 * int(self.used.min()) >= 3 * self.capacity

    @property
    def rows(self) -> int:
        """Codes in the collection."""
        return int(self.first[-1] + self.used[-1])


def build(
    words: np.ndarray, starts: np.ndarray, *, mesh: Mesh | None = None, room: int = 0
) -> Database:
    """Lays a collection out for search.

    Args:
      words: uint32 (rows, words), the codes of all recordings one after another.
      starts: (recordings + 1,): recording r has the rows starts[r] to starts[r + 1].
      mesh: devices to spread the codes over, along its axis ``data``; where None, all are on what
        is the default device now, and stay there.
      room: rows that a shard can hold at least, for collections that are to share programs.
    """
    words, starts = _checked(words, starts)
    devices = 1 if mesh is None else mesh.shape[AXIS]
    platform = _default_device().platform if mesh is None else mesh.devices.flat[0].platform
    cuts = _cuts(starts, devices * max(1, -(-len(words) // (SHARD_ROWS * devices))))
    longest = max(room, int(np.diff(cuts).max()))
    scale = 1 if platform == "cpu" else max(1, min(2**10, power_of_two(longest) // 2**16))
    capacity = by_eighths(max(longest, 1), multiple=GROUP * scale)
    planes = np.empty((len(cuts) - 1, words.shape[1], capacity + SPARE), np.uint32)
    left = np.zeros((len(cuts) - 1, capacity), np.uint16)
    remaining = _codes_left(starts)
    for shard, (low, high) in enumerate(itertools.pairwise(cuts.tolist())):
        planes[shard, :, : high - low] = words[low:high].T
        # Padding is random, so that no query finds all of it near.
        padding = words.shape[1], capacity + SPARE - (high - low)
        noise = np.random.default_rng(padding[1]).integers(0, 2**32, padding, np.uint32)
        planes[shard, :, high - low :] = noise
        left[shard, : high - low] = remaining[low:high]
    used = np.diff(cuts).astype(np.int32)
    return Database(
        placed(planes, mesh), placed(left, mesh), used, cuts[:-1], mesh, platform, scale
    )


def locate(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a collection -> (recording, position in it); -1 stays -1."""
    recording = np.searchsorted(starts, rows, side="right") - 1
    position = rows - starts[np.maximum(recording, 0)]
    return np.where(rows < 0, -1, recording), np.where(rows < 0, -1, position)


def placed(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """An array over the shards of a mesh; on the default device, to stay, where that is None."""
    if mesh is None:
        return jax.device_put(array, _default_device())
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(AXIS)))


def with_spare(database: Database, n: int) -> Database:
    """The database with room for windows of n codes to look past the end."""
    spare = database.planes.shape[2] - database.capacity
    if n <= spare // 2:
        return database
    more = power_of_two(2 * n) - spare
    return replace(database, planes=jnp.pad(database.planes, ((0, 0), (0, 0), (0, more))))


def _default_device() -> jax.Device:
    """Where JAX puts what nobody placed: ``jax.default_device`` counts, the default backend may be
    another."""
    (device,) = jax.device_put(np.int32(0)).devices()
    return device


def _checked(words: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    words, starts = np.asarray(words), np.asarray(starts, np.int64)
    if words.ndim != 2 or words.dtype != np.uint32 or not words.shape[1]:
        raise ValueError(f"Codes must be uint32 (rows, words), got {words.dtype} {words.shape}.")
    if (
        starts.ndim != 1
        or not len(starts)
        or starts[0] != 0
        or starts[-1] != len(words)
        or (np.diff(starts) < 0).any()
    ):
        raise ValueError(f"starts must rise from 0 to the number of rows, {len(words)}.")
    return words, starts


def _cuts(starts: Int64[np.ndarray, " borders"], shards: int) -> Int64[np.ndarray, " cuts"]:
    """Rows where the shards begin and end, (shards + 1,): recording borders nearest to equal
    parts.
    """
    wanted = starts[-1] * np.arange(1, shards) // shards
    return np.concatenate([[0], starts[np.searchsorted(starts, wanted)], starts[-1:]])


def _codes_left(starts: Int64[np.ndarray, " borders"]) -> UInt16[np.ndarray, " rows"]:
    """Codes from each row to the end of its recording."""
    ends = np.repeat(starts[1:], np.diff(starts))
    return np.minimum(ends - np.arange(starts[-1]), 2**16 - 1).astype(np.uint16)
