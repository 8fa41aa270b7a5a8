"""Exact nearest windows of a query that may be in another key.

Where a transposition turns a code, a query is asked as each of its rotations v, uint32 (rotations,
n, words), and what is near is a rotation and a row together:

    d(v, r) = hamming.d(q_v, r) + p(v, recording of r).

The penalty p >= 0 says how unlikely it is beforehand that the recording was transposed so. All
rotations are one batch of the scan of ``hamming``: each tile of the database meets all of them
while it is in the first-level cache.

The certificate is that of ``hamming``, with rotations as further shards: of each rotation the scan
says what it did not look at, as a bound in the order of (distance, row); where the k-th neighbour
of all rotations together is before all bounds, raised by the least penalty of their rotations,
nothing that was left out belongs to the answer. So a rotation in which nothing is near needs no
neighbours of its own: with the progressive scan its part of the codes is all that is compared.

Penalties turn the order: what was not kept of a rotation, being farther than what was, may cost
less. It is another bound, and where that is in the way more is kept, at last all.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt32

from seqhash import parallel
from seqhash.search import hamming, kernels, planar, plans
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
    progressive: bool = False,
) -> Turned:
    """The k nearest windows of each query in any of its rotations, exactly.

    Args:
      database: of ``planar.build``.
      queries: each in all its rotations; three times as many words where bits are weighted.
      k: neighbours asked for.
      starts: rows at which the recordings begin, and the end, as ``planar.build`` took them.
      penalties: at least 0, of each rotation and recording; none where None.
      progressive: scan a part of the n codes first, which pays where the neighbours have less than
        about 10 % of their bits flipped: one recording in another key.

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
    database = planar.with_spare(database, n)
    nothing = np.full((count, k), -1, np.int64)
    answer = Turned(np.full((count, k), NOWHERE, np.int32), nothing, nothing.copy())
    pending, most = np.arange(count), k
    while len(pending):
        size = plans.batch_size(database, n, queries=len(pending) * rotations)
        weighted = columns > database.words
        choose = functools.partial(plans.choose, database, n, most, queries=size, weighted=weighted)
        scans = [choose(partial=False)]
        if progressive and plans.has_part(database, n):
            scans.insert(0, choose(partial=True))
        for attempt in hamming.ladder(scans, most):
            asked = queries[pending].reshape(-1, n, columns)
            found = _attempted(database, asked, most, attempt, size)
            given = None if penalties is None else penalties[pending].astype(np.int64)
            best, proven = _merged(found, database, k, len(pending), starts, given)
            for kept, values in zip(answer, best, strict=True):
                kept[pending[proven]] = values[proven]
            pending = pending[~proven]
            if not len(pending):
                break
        most *= 4
    return answer


def _attempted(
    database: planar.Database,
    queries: UInt32[np.ndarray, "queries n columns"],
    k: int,
    attempt: hamming.Attempt,
    size: int,
) -> kernels.Found:
    """``hamming.attempted``, by threads of so many queries."""
    parts = parallel.map_all(
        lambda low: hamming.attempted(database, queries[low : low + size], k, attempt),
        range(0, len(queries), size),
    )
    return hamming.joined(parts)


def _merged(
    found: kernels.Found,
    database: planar.Database,
    k: int,
    count: int,
    starts: Int64[np.ndarray, " borders"] | None,
    penalties: Int64[np.ndarray, "queries rotations recordings"] | None,
) -> tuple[Turned, Bool[np.ndarray, " queries"]]:
    """One answer from all shards and rotations, and whether it is proven.

    Args:
      found: of ``count`` queries, each in all its rotations.
    """
    shards, _, kept = np.shape(found.distance)
    first, capacity = database.first, database.capacity
    shape = (shards, count, -1)
    distance = np.asarray(found.distance, np.int64).reshape(*shape, kept)
    there = distance < NOWHERE
    row = np.where(there, found.row.reshape(*shape, kept) + first.reshape(-1, 1, 1, 1), -1)
    least = np.zeros((count, 1), np.int64)
    cost = distance
    if penalties is not None and starts is not None:
        recording = np.maximum(planar.locate(starts, row)[0], 0)
        queries, rotations = np.ogrid[:count, : distance.shape[2]]
        cost = distance + penalties[queries[..., None], rotations[..., None], recording]
        least = penalties.min(axis=2, initial=NOWHERE)
    rotation = np.where(there, np.arange(distance.shape[2])[:, None], -1)
    best = _first(np.where(there, cost, NOWHERE), row, rotation, k)
    kth, begin = (best.distance[:, -1], best.row[:, -1]), first.reshape(-1, 1, 1)
    bounds = [(found.bound, found.begin), (found.after, found.edge)]
    if penalties is not None and kept < capacity:  # what was not kept is behind the last that was
        bounds.append((found.distance[..., -1], found.row[..., -1]))
    proven = np.ones(count, bool)
    for bound, edge in bounds:
        raised = np.asarray(bound, np.int64).reshape(shape) + least
        later = hamming.is_later(
            raised.swapaxes(1, 2), (edge.reshape(shape) + begin).swapaxes(1, 2), kth
        )
        proven &= later.all(axis=(0, 1))
    return best, proven


def _first(
    cost: Int64[np.ndarray, "shards queries rotations kept"],
    row: Int64[np.ndarray, "shards queries rotations kept"],
    rotation: Int64[np.ndarray, "shards queries rotations kept"],
    k: int,
) -> Turned:
    """The k first of all shards and rotations, in the order of (cost, row, rotation)."""
    flat = [one.swapaxes(0, 1).reshape(cost.shape[1], -1) for one in (cost, row, rotation)]
    short = ((0, 0), (0, max(0, k - flat[0].shape[1])))
    cost = np.pad(flat[0], short, constant_values=int(NOWHERE))
    row, rotation = (np.pad(one, short, constant_values=-1) for one in flat[1:])
    order = np.lexsort((rotation, row, cost), axis=1)[:, :k]
    cost, row, rotation = (np.take_along_axis(one, order, 1) for one in (cost, row, rotation))
    return Turned(cost.astype(np.int32), row, rotation)
