"""Exact Hamming search for windows of consecutive codes (paper, III, metrics; its semantic-hashing
reference [4]).

A query is n consecutive codes, uint32 (n, words). Its distance at a row of a collection is the sum
of n popcounts against the n codes that begin there; a window never crosses from one recording into
the next, and is never materialised. Everything here is exact; what makes it fast:

1. *Scan.* Codes lie planar, uint32 (words, rows). The minimum distance of each **block** of rows is
   an unrolled elementwise minimum of popcounts, tile after tile, so that a tile stays in the
   first-level cache while all queries of a batch meet it. XLA turns that into the loop one would
   write by hand (xor, vpopcnt, add, min over 16 lanes); a CPU that cannot count the bits of a
   vector at once adds them first, and counts less. A ``reduce`` over the database instead would
   materialise the distances, and cost up to 100 times as much. A few queries go over all rows one
   by one, without tiles, whose copies would cost as much as the scan; windows of 16 codes and more
   share a loop over their codes.
2. *Select.* The blocks of smallest minima, by ``top_k`` in float32 (integers would be sorted whole;
   distances are exact in float32 below 2^24).
3. *Verify.* Full distances of all rows of those blocks; invalid windows leave here, so that the
   scan needs no mask.
4. *Certify*, on the host. A block that was not selected has a minimum that is a lower bound of all
   its windows. Where the k-th answer is not better than the best of those bounds, the query is
   searched again with more blocks: at the latest when all blocks are selected the answer is exact.

The **progressive scan** is the same with the scan over a few of the n codes, or over some of the
words of each where
n is small: still a lower bound, still certified.

Each shard of the collection (``planar``) answers alone, on its device, and the host merges. On a
CPU a program runs on one core, and batches of queries are answered by threads.
"""

import functools
import operator
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from seqhash import parallel
from seqhash.search import planar

Array = jax.Array | np.ndarray

NOWHERE = np.int32(2**31 - 1)  # distance of a window that is not there
# popcounts in one elementwise program; past about 200 LLVM gives up on vectors, and it is 10x
# slower
TERMS = 144
ADDED = 36  # the same where bits are added before they are counted
UNROLLED = 15  # codes of a window at most that has a program of its own; ...
LOOPED = 16  # ... longer ones share a loop over so many popcounts, whatever their length, ...
LENGTH = 64  # ... up to so many codes, then up to twice as many
FEW = 8  # queries that are scanned one by one at most
LITTLE = (
    2**22
)  # popcounts of a query for which a program of its own length is not worth seconds of compiling
QUERIES = 128  # queries of a batch at most
THREAD_POPCOUNTS = 2**24  # half a millisecond, which a thread's start does not spoil
FEW_CODES = 6  # from so many on the progressive scan leaves out whole codes
SLACK = 6  # blocks selected beyond k, so that the certificate rarely fails
RUN = 8  # blocks whose minima are compared as one, at first
CANDIDATES = 2**23  # rows verified at a time
# Of the programs that scan, on a CPU. XLA prefers vectors of 256 bits: a tenth slower. And it would
# share each tile among all cores, which is slower than one core alone: here a core has batches of
# its own.
CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
}


class Neighbours(NamedTuple):
    """Nearest windows of each query, ordered by (distance, row); NOWHERE and -1 past the last
    window.
    """

    distance: np.ndarray  # int32 (queries, k)
    row: np.ndarray  # int64 (queries, k): where the window begins in the collection
    exact: np.ndarray  # bool (queries,): proven to be the k nearest


class Hits(NamedTuple):
    """Windows within a radius, ordered by (query, distance, row)."""

    query: np.ndarray  # int64 (hits,)
    distance: np.ndarray  # int32 (hits,)
    row: np.ndarray  # int64 (hits,)


class _Plan(NamedTuple):
    """Shape of a scan: static, so that one program serves all queries that share it."""

    offsets: tuple[
        int, ...
    ]  # codes of the window that are compared; past its end, where the plan is looped
    words: int  # of each of them, the first
    at_once: int  # codes in one elementwise program
    one_by_one: bool  # each query meets all rows, instead of each tile all queries
    strands: int  # rows of a block in one tile
    lanes: int  # blocks side by side; strands * lanes rows are a tile
    tiles: int  # tiles that a group of blocks spans
    blocks: int  # of a shard
    adders: bool  # few words are counted, after most were added bit by bit

    @property
    def looped(self) -> bool:
        """Whether a loop of run-time length goes over the codes of the window."""
        return self.at_once < len(self.offsets)

    @property
    def group(self) -> int:
        """Rows of a group of blocks."""
        return self.strands * self.lanes * self.tiles

    @property
    def block(self) -> int:
        """Rows of a block."""
        return self.strands * self.tiles

    def begin(self, block):
        """First row of blocks, which are numbered in the order of it. Its rows are ``lanes``
        apart.
        """
        return block // self.lanes * self.group + block % self.lanes


# ------------------------------------------------------------------------------------------- search


def search(
    database: planar.Database, queries: np.ndarray, k: int = 1, *, progressive: bool | None = None
) -> Neighbours:
    """The k nearest windows of each query, exactly.

    Args:
      database: of ``planar.build``.
      queries: uint32 (queries, n, words), or (n, words) for one.
      k: neighbours asked for.
      progressive: scan a part of the n codes first. It pays where all k neighbours have less than
        about 10 % of their bits flipped, so the default is to do so for k = 1 (of windows of few
        codes, where there are many queries); on queries where it does not pay it stops by itself,
        after the first batch.
    """
    queries = _checked_queries(database, queries)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    count, n, _ = queries.shape
    database = planar.with_spare(database, n)
    distance, row = np.full((count, k), NOWHERE, np.int32), np.full((count, k), -1, np.int64)
    size = _batch_size(database, count, n)
    plans = [_plan(n, database, queries=size, selected=_selected(k))]
    if progressive is None:
        progressive = k == 1 and (n >= FEW_CODES or count > 4 * QUERIES)
    if progressive and _partial(n, database.words):
        plans.insert(0, _plan(n, database, queries=size, selected=_selected(k), progressive=True))

    def answer(low: int) -> None:
        nonlocal plans
        batch = pending = np.arange(low, min(low + size, count))
        for attempt in _ladder(plans, k):
            nearest = _answer(database, queries[pending], k, attempt)
            done = pending[nearest.exact]
            distance[done], row[done] = nearest.distance[nearest.exact], nearest.row[nearest.exact]
            pending = pending[~nearest.exact]
            if not len(pending):
                break
            if attempt.plan is not plans[-1] and 2 * len(pending) > len(batch):
                plans = plans[-1:]  # for batches to come: the ladder of this one is made

    parallel.map_all(answer, range(0, count, size))
    return Neighbours(distance, row, np.ones(count, bool))


def within(database: planar.Database, queries: np.ndarray, radius: int) -> Hits:
    """Every window at most ``radius`` bits from each query: uint32 (queries, n, words), or (n,
    words) for one.
    """
    queries = _checked_queries(database, queries)
    count, n, words = queries.shape
    database = planar.with_spare(database, n)
    # Random codes are seldom so near in a part of them alone.
    few = n >= FEW_CODES and _partial(n, words) and radius < len(_probes(n)) * words * 32 // 3
    size = _batch_size(database, count, n)
    plan = _plan(n, database, queries=size, selected=16, progressive=few)

    def answer(low: int) -> np.ndarray:
        """(query, distance, row) of each hit of a batch, int64 (3, hits)."""
        batch = queries[low : low + size]
        scanned, whole = _padded(batch, plan)
        arrays = (database.planes, _groups(database, plan), scanned, np.int32(n))
        minima = np.asarray(_minima(*arrays, plan=plan, mesh=database.mesh))[:, : len(batch)]
        near = np.stack(np.nonzero(minima <= radius)).astype(
            np.int32
        )  # (shard, query, block) of each
        parts = [np.zeros((3, 0), np.int64)]
        for piece in range(0, near.shape[1], 1024):
            chosen = near[:, piece : piece + 1024]
            shard, query = chosen[:2]
            chosen = np.pad(chosen, ((0, 0), (0, 1024 - chosen.shape[1])))
            blocks = _distances_of_blocks(
                database.planes, database.left, whole, chosen, np.int32(n), plan=plan
            )
            distance, rows = (np.asarray(value)[: len(query)] for value in blocks)
            which, column = np.nonzero(distance <= radius)
            place = database.first[shard[which]] + rows[which, column]
            parts.append(
                np.stack([low + query[which].astype(np.int64), distance[which, column], place])
            )
        return np.concatenate(parts, axis=1)

    parts = parallel.map_all(answer, range(0, count, size))
    query, distance, row = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
    order = np.lexsort((row, distance, query))
    return Hits(query[order], distance[order].astype(np.int32), row[order])


# -------------------------------------------------------------------------------------------- plans


def _plan(
    n: int, database: planar.Database, *, queries: int, selected: int, progressive: bool = False
) -> _Plan:
    """The scan of windows of n codes, or of a part of them, for batches of so many queries, of so
    many blocks.
    """
    words, adders, looped = database.words, not _counts_vectors(), False
    most = _most_terms()
    if progressive and n >= FEW_CODES:
        offsets = _probes(n)
    elif progressive:
        offsets, words = tuple(range(n)), -(-3 * words // 4)
    else:
        little = LOOPED <= n * words <= LITTLE / max(1, database.rows)
        looped = little or n > UNROLLED or n * words > most
        offsets = tuple(range(planar.power_of_two(max(n, LENGTH)) if looped else n))
    terms = len(offsets) * words
    # Selecting among the blocks costs N / block, verifying some of them selected * block * terms:
    # measured, the sum is least near this root.
    block = max(32, planar.power_of_two(round((database.capacity / (5 * selected * terms)) ** 0.5)))
    blocks = database.capacity // block
    if looped:  # one strand, whose lanes take a quarter of the first-level cache
        at_once = planar.power_of_two(max(1, LOOPED // words) + 1) // 2
        lanes = 512 if database.capacity % (512 * block * database.scale) == 0 else 128
        return _Plan(
            offsets, words, at_once, False, 1, lanes * database.scale, block, blocks, adders
        )
    strands = min(16, planar.power_of_two(max(1, most // terms) + 1) // 2)
    one_by_one = (
        database.on_cpu
        and database.full
        and queries <= (1 if adders else min(FEW, 2 * len(offsets)))
    )
    # 16 lanes are one vector: then the queries' words are read where they are used, and leave the
    # registers free. But a tile of few rows is worth its copy only where many queries meet it.
    vector = one_by_one or (database.on_cpu and not adders and queries > FEW)
    lanes = (16 if vector else max(16, 128 // strands)) * database.scale
    return _Plan(
        offsets, words, len(offsets), one_by_one, strands, lanes, block // strands, blocks, adders
    )


def _batch_size(database: planar.Database, count: int, n: int) -> int:
    """Queries of a batch: on a CPU few enough that every core has some, where they are worth a
    thread.
    """
    if database.mesh is not None or not database.on_cpu:
        return max(1, min(count, QUERIES))
    popcounts = n * database.words * max(1, database.rows)  # of a query
    size = min(QUERIES, max(-(-count // parallel.cores()), -(-THREAD_POPCOUNTS // popcounts), 1))
    parts = max(1, -(-count // size))
    even = max(1, -(-count // parts))
    return (
        even if 4 * parts * planar.power_of_two(even) <= 5 * count else size
    )  # one program, where that pads little


@functools.cache
def _counts_vectors() -> bool:
    """Whether the machine counts the bits of a vector in one instruction: a CPU with VPOPCNT, or no
    CPU.
    """
    if jax.default_backend() != "cpu":
        return True
    info = Path("/proc/cpuinfo")
    return info.exists() and "avx512_vpopcntdq" in info.read_text()


def _most_terms() -> int:
    """Popcounts in one elementwise program at most."""
    return TERMS if _counts_vectors() else ADDED


def _bucket(n: int) -> int:
    """n rounded up by at most an eighth, so that few programs serve all lengths."""
    return planar.round_up(n, 1 << max(0, n.bit_length() - 4))


def _probes(n: int) -> tuple[int, ...]:
    """Codes of a window of n for the progressive scan: a quarter of them and one, evenly spread.

    With 10 % of the bits flipped so many still tell the window from all strangers; with 15 % it
    would be a third.
    """
    length = n if n < 16 else n // 8 * 8  # one program for each eight lengths
    return tuple(int(j) for j in np.linspace(0, length - 1, max(3, length // 4 + 1)))


def _partial(n: int, words: int) -> bool:
    """Whether there is a part of a window for the progressive scan."""
    return len(_probes(n)) * words <= _most_terms() if n >= FEW_CODES else words > 2


class _Attempt(NamedTuple):
    """One way to search."""

    plan: _Plan
    selected: int  # blocks
    ordered: bool  # candidates are sorted by row, which settles ties among them


def _selected(k: int) -> int:
    """Blocks that are selected at first, for k neighbours."""
    return planar.round_up(k + SLACK, 8) if k <= 64 else planar.power_of_two(k + SLACK)


def _ladder(plans: list[_Plan], k: int) -> Iterator[_Attempt]:
    """Attempts to make in turn; the last selects all blocks, and proves every query."""
    selected = _selected(k)
    for plan in plans:
        yield _Attempt(plan, min(selected, plan.blocks), ordered=False)
    for factor in (8, 64, 512):
        if selected * factor < plan.blocks:
            yield _Attempt(plan, selected * factor, ordered=True)
    yield _Attempt(plan, plan.blocks, ordered=True)


# -------------------------------------------------------------------------------------- one attempt


def _answer(
    database: planar.Database, queries: np.ndarray, k: int, attempt: _Attempt
) -> Neighbours:
    """One attempt; ``exact`` says which queries are proven."""
    plan, candidates = attempt.plan, attempt.selected * attempt.plan.block
    batch = max(1, CANDIDATES // candidates)
    if len(queries) > batch:
        parts = [
            _answer(database, queries[i : i + batch], k, attempt)
            for i in range(0, len(queries), batch)
        ]
        return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    scanned, whole = _padded(
        queries, plan, min(_retried(len(queries)), batch) if attempt.ordered else 1
    )
    arrays = (
        database.planes,
        database.left,
        _groups(database, plan),
        scanned,
        whole,
        np.int32(queries.shape[1]),
    )
    keep = min(planar.round_up(k + SLACK, 8), candidates)
    found = _nearest(*arrays, attempt=attempt, keep=keep, mesh=database.mesh)
    found = jax.tree.map(lambda value: np.asarray(value)[:, : len(queries)], found)
    return _merged(found, database.first, k)


class _Found(NamedTuple):
    """What each shard answers, and what may be among the rows that it did not look at: those are
    later than (bound, begin) and (after, edge) in the order of (distance, row)."""

    distance: Array  # int32 (shards, queries, keep)
    row: Array  # int32 (shards, queries, keep), in the shard
    bound: Array  # int32 (shards, queries): smallest minimum of a block that was not selected
    begin: Array  # int32 (shards, queries): the first row of such blocks
    after: Array  # int32 (shards, queries): smallest distance of a candidate that was not kept
    edge: Array  # int32 (shards, queries): a row before all such candidates


def _merged(found: _Found, first: np.ndarray, k: int) -> Neighbours:
    """One answer from all shards, proven where all that was not looked at is later than the k-th
    neighbour.
    """
    row = np.where(found.distance < NOWHERE, found.row + first.reshape(-1, 1, 1), -1)
    distances, rows = np.concatenate(found.distance, axis=1), np.concatenate(row, axis=1)
    if distances.shape[1] < k:
        short = ((0, 0), (0, k - distances.shape[1]))
        distances, rows = (
            np.pad(distances, short, constant_values=NOWHERE),
            np.pad(rows, short, constant_values=-1),
        )
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    distances, rows = np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)
    last, place = distances[None, :, -1], rows[None, :, -1]

    def later(bound: Array, begin: Array) -> np.ndarray:
        bound, begin = np.asarray(bound), np.asarray(begin)
        return (
            (bound == NOWHERE)
            | (bound > last)
            | ((bound == last) & (begin + first[:, None] > place))
        )

    return Neighbours(
        distances,
        rows,
        (later(found.bound, found.begin) & later(found.after, found.edge)).all(axis=0),
    )


class _Program:
    """``jax.jit`` with CPU_OPTIONS where that is the platform, which is only asked when the program
    is first used.

    Shapes that are new are compiled by one thread at a time: several would all trace the same
    program, each of them as many times slower.
    """

    def __init__(self, function: Callable[..., Any], *, static_argnames: tuple[str, ...]) -> None:
        self.function, self.static_argnames = function, static_argnames
        self.compiling, self.compiled = threading.Lock(), set[Any]()

    @functools.cached_property
    def jitted(self) -> Any:
        options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
        return jax.jit(
            self.function, static_argnames=self.static_argnames, compiler_options=options
        )

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        key = (*map(np.shape, arguments), *static.values())
        if key not in self.compiled:
            with self.compiling:
                if key not in self.compiled:
                    result = self.jitted(*arguments, **static)
                    self.compiled.add(key)
                    return result
        return self.jitted(*arguments, **static)


@functools.partial(_Program, static_argnames=("attempt", "keep", "mesh"))
def _nearest(
    planes, left, groups, scanned, whole, n, *, attempt: _Attempt, keep: int, mesh: Mesh | None
):
    """Scan, select and verify on each shard -> _Found."""
    plan, selected, ordered = attempt

    def one(planes, left, groups, scanned, whole, n, shard):
        count = scanned.shape[0]
        nothing = jnp.full(count, NOWHERE)
        minima = _scan(planes, groups, scanned, n, shard, plan=plan)
        best, blocks = _smallest_blocks(minima, min(selected + 1, plan.blocks))
        bound, begin = nothing, nothing
        if selected < plan.blocks:
            bound, begin = best[:, -1], plan.begin(blocks[:, -1])
        blocks = jnp.sort(
            blocks[:, :selected], axis=1
        )  # top_k keeps ties in the order of their blocks
        rows = _rows_of_blocks(blocks, plan)
        distance = _distances(planes, left, whole, shard, rows, n).reshape(count, -1)
        rows = rows.reshape(count, -1)
        if ordered:
            rows, distance = jax.lax.sort((rows, distance), num_keys=1)
        best, index = _smallest(distance, keep)
        if (
            ordered
        ):  # top_k keeps ties in the order of their rows: none that was left out is earlier
            after, edge = nothing, nothing
        else:
            block = jnp.take_along_axis(blocks, index[:, -1:] // plan.block, axis=1)[:, 0]
            after, edge = best[:, -1], plan.begin(block)
        return _Found(best, jnp.take_along_axis(rows, index, axis=1), bound, begin, after, edge)

    return _on_shards(one, mesh, (planes, left, groups), (scanned, whole, n))


@functools.partial(_Program, static_argnames=("plan", "mesh"))
def _minima(planes, groups, scanned, n, *, plan: _Plan, mesh: Mesh | None):
    """Minima of the blocks of each shard, uint32 (shards, queries, blocks)."""

    def one(planes, groups, scanned, n, shard):
        return _scan(planes, groups, scanned, n, shard, plan=plan)

    return _on_shards(one, mesh, (planes, groups), (scanned, n))


@functools.partial(jax.jit, static_argnames=("plan",))
def _distances_of_blocks(planes, left, whole, chosen, n, *, plan: _Plan):
    """Distances and rows, int32 (pairs, block rows), of (shard, query, block) pairs, int32 (3,
    pairs).
    """
    rows = _rows_of_blocks(chosen[2][:, None], plan)
    return _distances(planes, left, whole[chosen[1]], chosen[0][:, None, None], rows, n)[
        :, 0
    ], rows[:, 0]


def _on_shards(function, mesh: Mesh | None, sharded: tuple, shared: tuple):
    """Maps ``function(*sharded, *shared, shard)`` over the shards of each device."""

    def local(*arguments):
        shards = arguments[0].shape[0]
        if shards == 1:  # a loop would be compiled apart
            return jax.tree.map(lambda value: value[None], function(*arguments, jnp.int32(0)))
        return jax.lax.map(
            lambda shard: function(*arguments, shard), jnp.arange(shards, dtype=jnp.int32)
        )

    if mesh is None:
        return local(*sharded, *shared)
    specs = (PartitionSpec(planar.AXIS),) * len(sharded) + (PartitionSpec(),) * len(shared)
    return jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(planar.AXIS), check_vma=False
    )(*sharded, *shared)


def _scan(planes, groups, scanned, n, shard, *, plan: _Plan):
    """Minimum of each block of a shard: uint32 (queries, blocks), lower bounds of its valid
    windows' distances.
    """
    if plan.one_by_one:
        return jax.lax.map(functools.partial(_scan_one, planes, groups, plan=plan), scanned)
    queries, words, at_once = scanned.shape[0], plan.words, plan.at_once
    tile = plan.strands * plan.lanes

    def popcounts(piece, codes, first, strand):
        """Summed over codes of the window, compared from a strand of the piece on: uint32 (queries,
        lanes).
        """
        differences = []
        for code, offset in enumerate(plan.offsets[:at_once]):
            low = strand * plan.lanes + offset
            for word in range(words):
                # One use of each slice: what has many uses XLA would write to memory first.
                there = jax.lax.slice(piece, (0, word, low), (1, word + 1, low + plan.lanes))[0]
                different = codes[:, code, word, None] ^ there
                if plan.looped:
                    different = different & jnp.where(
                        first + offset < n, jnp.uint32(2**32 - 1), jnp.uint32(0)
                    )
                differences.append(different)
        return _ones(differences, plan.adders)

    def minimum_of_tile(index):
        if plan.looped:

            def add(step, total):
                first = step * at_once
                piece = jax.lax.dynamic_slice(
                    planes, (shard, 0, index * tile + first), (1, words, tile + at_once - 1)
                )
                return total + popcounts(
                    piece, jax.lax.dynamic_slice_in_dim(scanned, first, at_once, 1), first, 0
                )

            steps = (n + at_once - 1) // at_once
            return jax.lax.fori_loop(0, steps, add, jnp.zeros((queries, tile), jnp.uint32))
        piece = jax.lax.dynamic_slice(
            planes, (shard, 0, index * tile), (1, words, tile + plan.offsets[-1])
        )
        totals = [popcounts(piece, scanned, 0, strand) for strand in range(plan.strands)]
        return functools.reduce(jnp.minimum, totals)

    def one_group(group, minima):
        best = minimum_of_tile(group * plan.tiles)
        best = jax.lax.fori_loop(
            1,
            plan.tiles,
            lambda i, best: jnp.minimum(best, minimum_of_tile(group * plan.tiles + i)),
            best,
        )
        return jax.lax.dynamic_update_slice(minima, best, (0, group * plan.lanes))

    return jax.lax.fori_loop(
        0, groups[shard], one_group, jnp.full((queries, plan.blocks), jnp.uint32(NOWHERE))
    )


def _scan_one(planes, groups, window, *, plan: _Plan):
    """``_scan`` of a shard that is the only one, for one query, uint32 (codes, words), which meets
    each row once: no tile is copied to where it would stay."""
    rows, tile = plan.blocks * plan.block, plan.strands * plan.lanes

    def distances(strand):
        """Of a strand of each tile, uint32 (tiles, lanes)."""
        differences = []
        for code, offset in enumerate(plan.offsets):
            low = strand * plan.lanes + offset
            for word in range(plan.words):
                # Again, one use of each slice.
                there = jax.lax.slice(planes[0], (word, low), (word + 1, low + rows)).reshape(
                    -1, tile
                )
                differences.append(there[:, : plan.lanes] ^ window[code, word])
        return _ones(differences, plan.adders)

    def minima_of_tiles():
        return functools.reduce(jnp.minimum, map(distances, range(plan.strands)))

    # A branch keeps this loop apart from what follows: fused with that it is no loop over vectors
    # any more.
    nothing = jnp.full((rows // tile, plan.lanes), jnp.uint32(NOWHERE))
    best = jax.lax.cond(groups[0] > 0, minima_of_tiles, lambda: nothing)
    best = jnp.min(best.reshape(-1, plan.tiles, plan.lanes), axis=1)
    used = jnp.arange(len(best), dtype=jnp.int32)[:, None] < groups[0]
    return jnp.where(used, best, jnp.uint32(NOWHERE)).reshape(-1)


def _ones(terms: list[Array], adders: bool):
    """Bits set in all terms together, lane by lane: uint32 of the shape of one.

    With adders, bits of equal weight are first summed three at a time into a bit of that weight and
    a carry of twice the weight, so that few words are left to count (Harley's and Seal's carry-save
    adders).
    """
    counts = []  # of bits that weigh 1, 2, 4, ...
    while terms:
        carries: list[Array] = []
        while adders and len(terms) > 1:
            one, two, *terms = terms
            total, carry = one ^ two, one & two
            if terms:
                three, *terms = terms
                total, carry = total ^ three, carry | (total & three)
            terms, carries = [total, *terms], [*carries, carry]
        counts.append(functools.reduce(operator.add, map(jax.lax.population_count, terms)))
        terms = carries
    return functools.reduce(lambda total, count: count + (total << jnp.uint32(1)), reversed(counts))


def _rows_of_blocks(blocks, plan: _Plan):
    """Rows in the shard of each block: int32 (...,) -> (..., block rows)."""
    steps = jnp.arange(plan.block, dtype=jnp.int32) * plan.lanes
    return plan.begin(blocks)[..., None] + steps.reshape((1,) * blocks.ndim + (-1,))


def _distances(planes, left, whole, shard, rows, n):
    """Distances, int32 (queries, blocks, rows), of windows of n codes at rows; NOWHERE where none
    begins.
    """

    def add(code, total):
        for word in range(planes.shape[1]):
            there = planes.at[shard, word, rows + code].get(mode="clip")
            total = total + jax.lax.population_count(whole[:, code, word, None, None] ^ there)
        return total

    total = jax.lax.fori_loop(0, n, add, jnp.zeros(rows.shape, jnp.uint32)).astype(jnp.int32)
    return jnp.where(left.at[shard, rows].get(mode="clip") >= n, total, NOWHERE)


def _smallest(values, k: int):
    """The k smallest of each row and their places, int32 (queries, k); ties in the order of their
    places.

    Integers would be sorted whole, hence float32. So would a ``top_k`` of whose results parts are
    used apart, as the simplifier merges the parts into it; barriers keep them apart (two: one
    around both would end in a tuple).
    """
    negated, places = map(
        jax.lax.optimization_barrier, jax.lax.top_k(-values.astype(jnp.float32), k)
    )
    far = 2.0**30  # NOWHERE has no float32 of its own
    return jnp.where(negated < -far, NOWHERE, -jnp.maximum(negated, -far).astype(jnp.int32)), places


def _smallest_blocks(minima, k: int):
    """``_smallest``, cheaper where the minima are many: first which runs of them, then which of
    those.

    The runs that hold the k smallest minima are among the k runs whose own smallest are least.
    """
    queries, blocks = minima.shape
    if blocks % RUN or blocks < 4 * RUN * k:
        return _smallest(minima, k)
    runs = minima.reshape(queries, -1, RUN)
    chosen = jnp.sort(
        _smallest(jnp.min(runs, axis=2), k)[1], axis=1
    )  # in order: ties stay in the order of their places
    best, places = _smallest(
        jnp.take_along_axis(runs, chosen[..., None], axis=1).reshape(queries, -1), k
    )
    return best, jnp.take_along_axis(chosen, places // RUN, axis=1) * RUN + places % RUN


def _checked_queries(database: planar.Database, queries: np.ndarray) -> np.ndarray:
    queries = np.asarray(queries)
    queries = queries[None] if queries.ndim == 2 else queries
    if queries.ndim != 3 or queries.dtype != np.uint32 or not queries.shape[1]:
        raise ValueError(
            f"Queries must be uint32 (queries, n, words), got {queries.dtype} {queries.shape}."
        )
    if queries.shape[2] != database.words:
        raise ValueError(
            f"The codes of this database have {database.words} words, the query's {queries.shape[2]}."
        )
    if queries.shape[1] * database.words * 32 > 2**24 or queries.shape[1] > 2**16 - 1:
        raise ValueError(
            f"A window may have 65,535 codes and 2^24 bits at most, got {queries.shape[1]} codes."
        )
    return queries


def _retried(count: int) -> int:
    """Queries to pad to where a few of a batch are searched again: in few numbers, so that few
    programs are made.
    """
    return next((size for size in (1, 8, 32) if size >= count), QUERIES)


def _padded(queries: np.ndarray, plan: _Plan, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(codes that are scanned, whole windows), their number a power of two, their length that of a
    program.
    """
    count, n, words = queries.shape
    length = max(_bucket(n), plan.offsets[-1] + 1)
    whole = np.zeros((planar.power_of_two(max(count, least)), length, words), np.uint32)
    whole[:count, :n] = queries
    return whole[:, plan.offsets], whole


def _groups(database: planar.Database, plan: _Plan) -> Array:
    """Groups of blocks in use, int32 (shards,)."""
    groups = -(-database.used // plan.group).astype(np.int32)
    return groups if database.mesh is None else planar.placed(groups, database.mesh)
