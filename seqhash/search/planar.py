"""A collection's codes, laid out for search: planar, in shards on recording borders, with room to
grow.

Codes lie as uint32 (shards, words, rows), so that the rows of one word are neighbours in memory.
The leading axis may be spread over the devices of a mesh. Rows inside a shard are int32, rows of
the collection int64.
"""

import functools
import itertools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Array = jax.Array | np.ndarray

SHARD_ROWS = 2**30  # rows of a shard at most: they are int32 inside
SPARE = 2**12  # rows after the last that a window may look into, at first
GROUP = (
    2**12
    # capacities are multiples of it: the rows that the largest group of the smallest blocks of a scan
    # spans
)
PIECE = 2**15  # rows appended at a time
AXIS = "data"  # of the mesh


@dataclass(frozen=True, eq=False)
class Database:
    """A collection's codes, laid out for search. Made by ``build``."""

    planes: jax.Array  # uint32 (shards, words, capacity + SPARE)
    left: (
        jax.Array
    )  # uint16 (shards, capacity): codes from this row to the end of its recording, at most 65,535
    used: np.ndarray  # int32 (shards,): rows in use
    first: np.ndarray  # int64 (shards,): the shard's first row in the collection
    mesh: Mesh | None
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
        return all(device.platform == "cpu" for device in self.planes.devices())

    @property
    def full(self) -> bool:
        """Whether each device has one shard, most of whose capacity is in use."""
        devices = 1 if self.mesh is None else self.mesh.shape[AXIS]
        return len(self.used) == devices and 4 * int(self.used.min()) >= 3 * self.capacity

    @property
    def rows(self) -> int:
        """Codes in the collection."""
        return int(self.first[-1] + self.used[-1])


def build(words: np.ndarray, starts: np.ndarray, *, mesh: Mesh | None = None) -> Database:
    """Lays a collection out for search.

    Args:
      words: uint32 (rows, words), the codes of all recordings one after another.
      starts: (recordings + 1,): recording r has the rows starts[r] to starts[r + 1].
      mesh: devices to spread the codes over, along its axis ``data``; the default device where
        None.
    """
    words, starts = _checked(words, starts)
    devices = 1 if mesh is None else mesh.shape[AXIS]
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    cuts = _cuts(starts, devices * max(1, -(-len(words) // (SHARD_ROWS * devices))))
    longest = int(np.diff(cuts).max())
    scale = 1 if platform == "cpu" else max(1, min(2**10, power_of_two(longest) // 2**16))
    capacity = _capacity(longest, scale)
    planes = np.empty((len(cuts) - 1, words.shape[1], capacity + SPARE), np.uint32)
    left = np.zeros((len(cuts) - 1, capacity), np.uint16)
    remaining = _codes_left(starts)
    for shard, (low, high) in enumerate(itertools.pairwise(cuts)):
        planes[shard, :, : high - low] = words[low:high].T
        planes[shard, :, high - low :] = _noise(words.shape[1], capacity + SPARE - (high - low))
        left[shard, : high - low] = remaining[low:high]
    used = np.diff(cuts).astype(np.int32)
    return Database(
        placed(planes, mesh), placed(left, mesh), used, cuts[:-1].astype(np.int64), mesh, scale
    )


def extend(database: Database, words: np.ndarray, starts: np.ndarray) -> Database:
    """Appends recordings in place: the arguments of ``build``, of the new recordings alone.

    The database given is used up (its buffers are donated): nothing is copied while there is room,
    and room doubles.
    """
    words, starts = _checked(words, starts)
    if words.shape[1] != database.words:
        raise ValueError(
            f"The codes of this database have {database.words} words, the new ones {words.shape[1]}."
        )
    shard, at = len(database.used) - 1, int(database.used[-1])
    end = at + -(-len(words) // PIECE) * PIECE
    if end > SHARD_ROWS:
        raise ValueError(
            f"A shard holds at most {SHARD_ROWS} codes: build the collection anew over more shards."
        )
    planes, left = database.planes, database.left
    if end > database.capacity:
        more = _capacity(max(2 * database.capacity, end), database.scale) - database.capacity
        planes, left = _grown(planes, left, jnp.asarray(_noise(database.words, more)), more=more)
    remaining = _codes_left(starts)
    for low in range(0, len(words), PIECE):  # pieces of one size: one program for all of them
        piece = words[low : low + PIECE].T
        spare = PIECE - piece.shape[1]
        piece = np.concatenate([piece, _noise(database.words, spare)], axis=1)
        ends = np.pad(remaining[low : low + PIECE], (0, spare))
        planes, left = _append(planes, left, piece, ends, np.int32(shard), np.int32(at + low))
    used = database.used.copy()
    used[-1] += len(words)
    return replace(database, planes=planes, left=left, used=used)


def remove(database: Database, start: int, stop: int) -> Database:
    """Hides the recordings that fill the rows start to stop, whose windows are not found any more.

    The database given is used up. The rows keep their numbers; ``build`` the collection anew to
    have their room back.
    """
    left = database.left
    for shard, (first, used) in enumerate(zip(database.first, database.used, strict=True)):
        low, high = max(start - int(first), 0), min(stop - int(first), int(used))
        if low < high:
            left = _hide(left, np.int32(shard), np.int32(low), np.int32(high))
    return replace(database, left=left)


def locate(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a collection -> (recording, position in it); -1 stays -1."""
    recording = np.searchsorted(starts, rows, side="right") - 1
    return np.where(rows < 0, -1, recording), np.where(
        rows < 0, -1, rows - starts[np.maximum(recording, 0)]
    )


# ------------------------------------------------------------------------------------------- inside


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _append(planes, left, piece, ends, shard, at):
    planes = jax.lax.dynamic_update_slice(planes, piece[None], (shard, 0, at))
    return planes, jax.lax.dynamic_update_slice(left, ends[None], (shard, at))


@functools.partial(jax.jit, donate_argnums=(0,))
def _hide(left, shard, low, high):
    rows = jnp.arange(left.shape[1])
    hidden = (jnp.arange(left.shape[0]) == shard)[:, None] & ((rows >= low) & (rows < high))[None]
    return jnp.where(hidden, jnp.uint16(0), left)


@functools.partial(jax.jit, static_argnames=("more",))
def _grown(planes, left, noise, *, more: int):
    wide = jnp.broadcast_to(noise[None], (planes.shape[0], *noise.shape))
    return jnp.concatenate([planes, wide], axis=2), jnp.pad(left, ((0, 0), (0, more)))


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


def _cuts(starts: np.ndarray, shards: int) -> np.ndarray:
    """Rows where the shards begin and end: recording borders nearest to equal parts, int64 (shards
    + 1,).
    """
    wanted = starts[-1] * np.arange(1, shards) // shards
    return np.concatenate([[0], starts[np.searchsorted(starts, wanted)], starts[-1:]]).astype(
        np.int64
    )


def _codes_left(starts: np.ndarray) -> np.ndarray:
    """Codes from each row to the end of its recording, uint16."""
    ends = np.repeat(starts[1:], np.diff(starts))
    return np.minimum(ends - np.arange(starts[-1]), 2**16 - 1).astype(np.uint16)


def _noise(words: int, rows: int) -> np.ndarray:
    """Padding, uint32 (words, rows): random, so that no query finds all of it near."""
    return np.random.default_rng(rows).integers(0, 2**32, (words, rows), np.uint32)


def placed(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    if mesh is None:
        return jax.device_put(array)
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(AXIS)))


def with_spare(database: Database, n: int) -> Database:
    """The database with room for windows of n codes to look past the end."""
    spare = database.planes.shape[2] - database.capacity
    if n <= spare // 2:
        return database
    more = power_of_two(2 * n) - spare
    return replace(database, planes=jnp.pad(database.planes, ((0, 0), (0, 0), (0, more))))


def _capacity(rows: int, scale: int) -> int:
    """Rows of a shard for so many: rounded up by at most an eighth, and to whole groups of
    blocks.
    """
    unit = max(GROUP * scale, power_of_two(rows) // 16)
    return round_up(max(rows, 1), unit)


def power_of_two(value: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << (value - 1).bit_length()


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
