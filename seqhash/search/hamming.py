"""Exact nearest windows of codes (paper, III, metrics; its semantic-hashing reference [4]).

A query q is n consecutive codes, uint32 (n, words), and c a collection's codes, one recording after
another. Their distance at row r of the collection is

    d(q, r) = sum_{0 <= i < n} popcount(q_i xor c_{r+i}),

where c_r to c_{r+n-1} are of one recording; elsewhere no window begins. ``search`` gives the k rows
that are first in the order of (d(q, r), r). No window is materialised.

A query may know which of its bits to trust. Where each bit has a weight of 0 to 3, in two planes
m and m' of bits that weigh 1 and 2, the distance is

    d(q, r) = sum_i popcount(x_i and m_i) + 2 popcount(x_i and m'_i),    x_i = q_i xor c_{r+i},

at twice the cost, over the same database. Such a query is uint32 (n, 3 words): q, m and m' of each
code side by side.

Why its answer is exact:

1. *Scan.* The rows are dealt to blocks, and each block B gets a number m(B) <= d(q, r) for all its
   windows r: the minimum of d over its rows. It is still a bound where it is taken over all rows,
   whether a window begins there or not (so the scan needs no mask), and over a part of the codes
   or words alone (the *progressive* scan).
2. *Select* the blocks of smallest m, and *verify*: d of all their rows, and of these the k first.
3. *Certify.* Of a block that was not selected no window is before (m(B), first row of B). Where the
   k-th neighbour found is before all of these, nothing that was left out belongs to the answer.
   Where it is not, the query is asked again with more blocks; at last with all of them, when
   nothing is left out.

Each shard of the collection (``planar``) answers alone, on its device, and the host merges.
``kernels`` has what a device computes, ``plans`` how that is cut to a processor.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt32

from seqhash import parallel
from seqhash.search import kernels, planar, plans
from seqhash.search.kernels import NOWHERE

Array = jax.Array | np.ndarray


class Neighbours(NamedTuple):
    """Nearest windows of each query, ordered by (distance, row); NOWHERE and -1 past the last
    window.
    """

    distance: Int32[np.ndarray, "queries k"]
    row: Int64[np.ndarray, "queries k"]  # where the window begins in the collection
    exact: Bool[np.ndarray, " queries"]  # proven to be the k nearest


def search(
    database: planar.Database, queries: np.ndarray, k: int = 1, *, progressive: bool | None = None
) -> Neighbours:
    """The k nearest windows of each query, exactly.

    Args:
      database: of ``planar.build``.
      queries: uint32 (queries, n, words), or (n, words) for one; three times as many words where
        the bits are weighted.
      k: neighbours asked for.
      progressive: scan a part of the n codes first. It pays where all k neighbours have less than
        about 10 % of their bits flipped, so the default is to do so for k = 1 (of windows of few
        codes, where there are many queries); on queries where it does not pay it stops by itself,
        after the first batch.
    """
    queries = _checked_queries(database, queries)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    count, n, columns = queries.shape
    weighted = columns > database.words
    database = planar.with_spare(database, n)
    distance, row = np.full((count, k), NOWHERE, np.int32), np.full((count, k), -1, np.int64)
    size = plans.batch_size(database, n, queries=count)
    choose = functools.partial(plans.choose, database, n, k, queries=size, weighted=weighted)
    scans = [choose(partial=False)]
    if progressive is None:
        progressive = plans.part_pays(n, k, queries=count)
    if progressive and plans.has_part(database, n):
        scans.insert(0, choose(partial=True))

    def answer(low: int) -> None:
        nonlocal scans
        batch = pending = np.arange(low, min(low + size, count))
        for attempt in ladder(scans, k):
            nearest = _merged(attempted(database, queries[pending], k, attempt), database.first, k)
            done = pending[nearest.exact]
            distance[done], row[done] = nearest.distance[nearest.exact], nearest.row[nearest.exact]
            pending = pending[~nearest.exact]
            if not len(pending):
                break
            if attempt.plan is not scans[-1] and 2 * len(pending) > len(batch):
                scans = scans[-1:]  # for batches to come: the ladder of this one is made

    parallel.map_all(answer, range(0, count, size))
    return Neighbours(distance, row, np.ones(count, bool))


def likely(database: planar.Database, queries: np.ndarray, k: int = 1) -> Neighbours:
    """Windows that are likely the k nearest, by one rough scan: those that are near in some of
    their codes, whatever these bits weigh, and of them the nearest by all codes and weights.

    It costs two fifths of ``search`` where windows are of 46 weighted codes, and proves nothing.

    Args:
      database, queries, k: as ``search`` takes them.
    """
    queries = _checked_queries(database, queries)
    count, n, columns = queries.shape
    database = planar.with_spare(database, n)
    size = plans.batch_size(database, n, queries=count)
    weighted = columns > database.words
    plan = plans.choose(database, n, k, queries=size, rough=True, weighted=weighted)
    attempt = next(ladder([plan], k))
    parts = parallel.map_all(
        lambda low: attempted(database, queries[low : low + size], k, attempt),
        range(0, count, size),
    )
    return _merged(joined(parts), database.first, k)._replace(exact=np.zeros(count, bool))


def code_distances(queries: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Of each code of a query and the one beside it, in numpy: int64 (...); their sum over a window
    is d(q, r).

    Args:
      queries: uint32 (..., words), or (..., 3 words) where the bits are weighted.
      codes: uint32 (..., words), of a collection.
    """
    words = codes.shape[-1]
    different = queries[..., :words] ^ codes
    if queries.shape[-1] == words:
        return np.bitwise_count(different).sum(axis=-1, dtype=np.int64)
    ones, twos = queries[..., words : 2 * words], queries[..., 2 * words :]
    weights = np.bitwise_count(different & ones) + 2 * np.bitwise_count(different & twos)
    return weights.sum(axis=-1, dtype=np.int64)


class Attempt(NamedTuple):
    """One way to search."""

    plan: plans.Plan
    selected: int  # blocks
    ordered: bool  # candidates are sorted by row, which settles ties among them


def ladder(scans: Sequence[plans.Plan], k: int) -> Iterator[Attempt]:
    """Attempts to make in turn; the last selects all blocks, and proves every query."""
    selected = plans.selected_blocks(k)
    for plan in scans:
        yield Attempt(plan, min(selected, plan.blocks), ordered=False)
    for factor in (8, 64, 512):
        if selected * factor < plan.blocks:
            yield Attempt(plan, selected * factor, ordered=True)
    yield Attempt(plan, plan.blocks, ordered=True)


_nearest = plans.Program(kernels.nearest, static_argnames=kernels.STATIC)


def attempted(
    database: planar.Database,
    queries: UInt32[np.ndarray, "queries n columns"],
    k: int,
    attempt: Attempt,
) -> kernels.Found:
    """What each shard answers to one attempt, in numpy."""
    plan, selected, ordered = attempt
    count, n, _ = queries.shape
    candidates = selected * plan.block
    batch = max(1, plans.CANDIDATES // candidates)
    if count > batch:
        parts = [
            attempted(database, queries[i : i + batch], k, attempt) for i in range(0, count, batch)
        ]
        return joined(parts)
    least = min(plans.retried(count), batch) if ordered else 1
    found = _nearest(
        database.platform,
        database.planes,
        database.left,
        _groups(database, plan),
        *plans.padded(queries, plan, least=least),
        np.int32(n),
        plan=plan,
        selected=selected,
        ordered=ordered,
        keep=min(plans.kept(k), candidates),
        mesh=database.mesh,
    )
    return jax.tree.map(lambda value: np.asarray(value)[:, :count], found)


def joined(parts: Sequence[kernels.Found]) -> kernels.Found:
    """What was found of several batches of queries, in their order."""
    return jax.tree.map(lambda *some: np.concatenate(some, axis=1), *parts)


def _groups(database: planar.Database, plan: plans.Plan) -> Int32[Array, " shards"]:
    """Groups of blocks in use."""
    groups = -(-database.used // plan.group).astype(np.int32)
    return groups if database.mesh is None else planar.placed(groups, database.mesh)


def _merged(found: kernels.Found, first: Int64[np.ndarray, " shards"], k: int) -> Neighbours:
    """One answer from all shards, proven where all that was not looked at is later than the k-th
    neighbour.
    """
    row = np.where(found.distance < NOWHERE, found.row + first.reshape(-1, 1, 1), -1)
    distances, rows = np.concatenate(found.distance, axis=1), np.concatenate(row, axis=1)
    if distances.shape[1] < k:
        short = ((0, 0), (0, k - distances.shape[1]))
        distances = np.pad(distances, short, constant_values=NOWHERE)
        rows = np.pad(rows, short, constant_values=-1)
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    distances, rows = np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)
    kth = distances[:, -1], rows[:, -1]
    proven = is_later(found.bound, found.begin + first[:, None], kth)
    proven &= is_later(found.after, found.edge + first[:, None], kth)
    return Neighbours(distances, rows, np.all(proven, axis=0))


def is_later(
    bound: Int[Array, "*shards queries"],
    begin: Int64[Array, "*shards queries"],
    kth: tuple[Int32[np.ndarray, " queries"], Int64[np.ndarray, " queries"]],
) -> Bool[Array, "*shards queries"]:
    """Whether all windows that are not before (bound, begin) are behind the k-th neighbour."""
    distance, row = kth
    return (bound >= NOWHERE) | (bound > distance) | ((bound == distance) & (begin > row))


def _checked_queries(
    database: planar.Database, queries: np.ndarray
) -> UInt32[np.ndarray, "queries n columns"]:
    queries = np.asarray(queries)
    queries = queries[None] if queries.ndim == 2 else queries
    if queries.ndim != 3 or queries.dtype != np.uint32 or not queries.shape[1]:
        raise ValueError(
            f"Queries must be uint32 (queries, n, words), got {queries.dtype} {queries.shape}."
        )
    if queries.shape[2] not in (database.words, 3 * database.words):
        raise ValueError(
            f"The codes of this database have {database.words} words "
            f"({3 * database.words} where bits are weighted), the query's {queries.shape[2]}."
        )
    if queries.shape[1] * queries.shape[2] * 32 > 2**24 or queries.shape[1] > 2**16 - 1:
        raise ValueError(
            f"A window may have 65,535 codes and 2^24 bits at most, got {queries.shape[1]} codes."
        )
    return queries
