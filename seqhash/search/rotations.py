"""Exact nearest windows of a query that may be in another key.

Where a transposition turns a code, a query is asked as each of its rotations v, uint32 (rotations,
n, words), and what is near is a rotation and a row together:

    d(v, r) = hamming.d(q_v, r) + p(v, recording of r).

The penalty p >= 0 says how unlikely it is beforehand that the recording was transposed so. All
rotations are one batch of ``hamming.search``: each tile of the database meets all of them while it
is in the first-level cache, so that they cost a few times what one query does, not twelve times.

Why the answer is exact. Of each rotation the m nearest windows are known without penalties, in the
order of (distance, row). What was left out of them is later than the m-th, (d_m, r_m), and costs at
least d_m and the rotation's least penalty; where it costs just that, its row is behind r_m. Where
the k-th of all that was found is before that for every rotation, nothing that was left out belongs
to the answer. Else twice as many are asked for, at last all rows.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt32

from seqhash.search import hamming, planar
from seqhash.search.kernels import NOWHERE


class Turned(NamedTuple):
    """Nearest (rotation, window) pairs of each query, ordered by (distance, row, rotation); NOWHERE
    and -1 past the last.
    """

    distance: Int32[np.ndarray, "queries k"]  # penalties included
    row: Int64[np.ndarray, "queries k"]  # where the window begins in the collection
    rotation: Int64[np.ndarray, "queries k"]


def search(
    database: planar.Database,
    queries: UInt32[np.ndarray, "queries rotations n columns"],
    k: int,
    *,
    starts: Int64[np.ndarray, " borders"] | None = None,
    penalties: Int[np.ndarray, "queries rotations recordings"] | None = None,
) -> Turned:
    """The k nearest windows of each query in any of its rotations, exactly.

    Args:
      database: of ``planar.build``.
      queries: each in all its rotations; three times as many words where bits are weighted.
      k: neighbours asked for.
      starts: rows at which the recordings begin, and the end, as ``planar.build`` took them.
      penalties: at least 0, of each rotation and recording; none where None.

    Raises:
      ValueError: penalties below 0, or that do not match queries and recordings.
    """
    count, rotations, n, columns = queries.shape
    if penalties is not None:
        wanted = (count, rotations, -1 if starts is None else len(starts) - 1)
        if penalties.shape != wanted or (penalties.size and penalties.min() < 0):
            raise ValueError(
                f"Penalties must be at least 0 and of the shape {wanted}, with starts, "
                f"got {penalties.shape} from {penalties.min(initial=0)} on."
            )
    found = Turned(
        np.full((count, k), NOWHERE, np.int32),
        np.full((count, k), -1, np.int64),
        np.full((count, k), -1, np.int64),
    )
    pending, most = np.arange(count), k
    while len(pending):
        batch = queries[pending].reshape(-1, n, columns)
        near = hamming.search(database, batch, most, progressive=False)
        distance = near.distance.reshape(len(pending), rotations, most).astype(np.int64)
        row = near.row.reshape(distance.shape)
        cost, least = distance, np.zeros(distance.shape[:2], np.int64)
        if penalties is not None and starts is not None:
            recording = planar.locate(starts, row)[0]
            some = penalties[pending].astype(np.int64)
            least = some.min(axis=2, initial=NOWHERE)
            cost = cost + np.take_along_axis(some, np.maximum(recording, 0), axis=2)
        cost = np.where(row < 0, NOWHERE, cost)
        best = _first(cost, row, k)
        proven = _proven(best, distance[..., -1] + least, row[..., -1])
        for kept, values in zip(found, best, strict=True):
            kept[pending[proven]] = values[proven]
        pending, most = pending[~proven], 2 * most
    return found


def _first(
    cost: Int64[np.ndarray, "queries rotations some"],
    row: Int64[np.ndarray, "queries rotations some"],
    k: int,
) -> Turned:
    """The k first of all rotations, in the order of (cost, row, rotation)."""
    count, rotations, _ = cost.shape
    rotation = np.where(row < 0, -1, np.arange(rotations)[None, :, None]).reshape(count, -1)
    cost, row = cost.reshape(count, -1), row.reshape(count, -1)
    order = np.lexsort((rotation, row, cost), axis=1)[:, :k]
    cost, row, rotation = (
        np.take_along_axis(values, order, axis=1) for values in (cost, row, rotation)
    )
    return Turned(cost.astype(np.int32), row, rotation)


def _proven(
    best: Turned,
    bound: Int64[np.ndarray, "queries rotations"],
    edge: Int64[np.ndarray, "queries rotations"],
) -> Bool[np.ndarray, " queries"]:
    """Whether all that was left out, which is behind (bound, edge), is behind the k-th neighbour;
    where an edge is -1 nothing was.
    """
    distance, row = best.distance[:, -1:], best.row[:, -1:]
    later = (edge < 0) | (distance < bound) | ((distance == bound) & (row <= edge))
    return later.all(axis=1)
