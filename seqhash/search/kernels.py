"""Scan, select, verify: what a device computes of a search. Pure functions of arrays, unjitted.

Shapes: ``planes`` and ``left`` are those of ``planar.Database``; ``scanned`` holds the codes of
each query that a plan compares, ``whole`` all of them, and n <= codes of those count, so that one
program serves several lengths. ``columns`` are the database's words, or three times as many where a
query's bits are weighted: the bits, and two planes of their weights (``hamming``).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int32, Shaped, UInt16, UInt32

from seqhash.search import planar
from seqhash.search.plans import Plan

NOWHERE = np.int32(2**31 - 1)  # distance of a window that is not there
STATIC = ("plan", "selected", "ordered", "keep", "mesh")  # arguments of ``nearest``
RUN = 8  # blocks whose minima are compared as one, at first


class Found(NamedTuple):
    """What each shard answers, and what may be among the rows that it did not look at: those are
    later than (bound, begin) and (after, edge) in the order of (distance, row)."""

    distance: Int32[Array, "*shards queries keep"]
    row: Int32[Array, "*shards queries keep"]  # in the shard
    bound: Int32[Array, "*shards queries"]  # smallest minimum of a block that was not selected
    begin: Int32[Array, "*shards queries"]  # the first row of such blocks
    after: Int32[Array, "*shards queries"]  # smallest distance of a candidate that was not kept
    edge: Int32[Array, "*shards queries"]  # a row before all such candidates


def nearest(
    planes: UInt32[Array, "shards words spare_rows"],
    left: UInt16[Array, "shards rows"],
    groups: Int32[Array, " shards"],
    scanned: UInt32[Array, "queries offsets some_columns"],
    whole: UInt32[Array, "queries codes columns"],
    n: Int32[Array, ""],
    *,
    plan: Plan,
    selected: int,
    ordered: bool,
    keep: int,
    mesh: Mesh | None,
) -> Found:
    """The windows of smallest distance on each shard.

    Args:
      groups: of blocks in use.
      scanned: the codes of the queries at ``plan.offsets``.
      n: codes of a window.
      selected: blocks whose rows are candidates.
      ordered: candidates are sorted by row, which settles ties among them.
      keep: candidates that are given.
    """

    def one(
        planes: UInt32[Array, "local words spare_rows"],
        left: UInt16[Array, "local rows"],
        groups: Int32[Array, " local"],
        scanned: UInt32[Array, "queries offsets some_columns"],
        whole: UInt32[Array, "queries codes columns"],
        n: Int32[Array, ""],
        shard: Int32[Array, ""],
    ) -> Found:
        count = scanned.shape[0]
        nothing = jnp.full(count, NOWHERE)
        minima = scan(planes, groups, scanned, n, shard, plan=plan)
        best, blocks = smallest_blocks(minima, min(selected + 1, plan.blocks))
        bound, begin = nothing, nothing
        if selected < plan.blocks:
            bound, begin = best[:, -1], plan.begin(blocks[:, -1])
        # top_k keeps ties in the order of their blocks
        blocks = jnp.sort(blocks[:, :selected], axis=1)
        rows = _rows_of_blocks(blocks, plan)
        distance = distances(planes, left, whole, shard, rows, n).reshape(count, -1)
        rows = rows.reshape(count, -1)
        if ordered:
            rows, distance = jax.lax.sort((rows, distance), num_keys=1)
        best, index = smallest(distance, keep)
        if ordered:  # top_k keeps ties in the order of their rows: none left out is earlier
            after, edge = nothing, nothing
        else:
            block = jnp.take_along_axis(blocks, index[:, -1:] // plan.block, axis=1)[:, 0]
            after, edge = best[:, -1], plan.begin(block)
        return Found(best, jnp.take_along_axis(rows, index, axis=1), bound, begin, after, edge)

    return _on_shards(one, mesh, (planes, left, groups), (scanned, whole, n))


def _on_shards(
    function: Callable[..., Any],
    mesh: Mesh | None,
    sharded: tuple[Array, ...],
    shared: tuple[Array, ...],
) -> Any:
    """Maps ``function(*sharded, *shared, shard)`` over the shards of each device."""

    def local(*arguments: Array) -> Any:
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


# --------------------------------------------------------------------------------------------- scan


def scan(
    planes: UInt32[Array, "shards words spare_rows"],
    groups: Int32[Array, " shards"],
    scanned: UInt32[Array, "queries offsets some_columns"],
    n: Int32[Array, ""],
    shard: Int32[Array, ""],
    *,
    plan: Plan,
) -> UInt32[Array, "queries {plan.blocks}"]:
    """Minimum of each block of a shard: a lower bound of its windows' distances, as all rows take
    part, and perhaps not all codes and words. Groups past those in use have NOWHERE.
    """
    if plan.one_by_one:
        return jax.lax.map(functools.partial(_scan_one, planes, groups, plan=plan), scanned)
    queries, words, at_once, tile = scanned.shape[0], plan.words, plan.at_once, plan.tile
    width = planes.shape[1]

    def popcounts(
        piece: UInt32[Array, "1 some_words some_rows"],
        codes: UInt32[Array, "queries some columns"],
        first: Int32[Array, ""] | int,
        strand: int,
    ) -> UInt32[Array, "queries lanes"]:
        """Summed over codes of the window, compared from a strand of the piece on."""
        terms, offsets = Terms([], []), jnp.array(plan.offsets[:at_once], jnp.int32)
        inside = -(first + offsets[None] < n).astype(jnp.uint32)  # all bits or none
        for code, offset in enumerate(plan.offsets[:at_once]):
            low = strand * plan.lanes + offset
            for word in range(words):
                # One use of each slice: what has many uses XLA would write to memory first.
                there = jax.lax.slice(piece, (0, word, low), (1, word + 1, low + plan.lanes))
                asked, *weights = _word(codes, code, word, width)
                different = jax.lax.bitwise_xor(asked, jax.lax.squeeze(there, (0,)))
                if plan.looped:
                    counts = jax.lax.slice(inside, (0, code), (1, code + 1))
                    different = jax.lax.bitwise_and(different, counts)
                terms.add(different, weights)
        return terms.sum(adders=plan.adders)

    def minimum_of_tile(index: Int32[Array, ""]) -> UInt32[Array, "queries lanes"]:
        if plan.looped:

            def add(
                step: Int32[Array, ""], total: UInt32[Array, "queries lanes"]
            ) -> UInt32[Array, "queries lanes"]:
                first = step * at_once
                piece = jax.lax.dynamic_slice(
                    planes, (shard, 0, index * tile + first), (1, words, tile + at_once - 1)
                )
                codes = jax.lax.dynamic_slice_in_dim(scanned, first, at_once, 1)
                return total + popcounts(piece, codes, first, 0)

            steps = (n + at_once - 1) // at_once
            return jax.lax.fori_loop(0, steps, add, jnp.zeros((queries, tile), jnp.uint32))
        piece = jax.lax.dynamic_slice(
            planes, (shard, 0, index * tile), (1, words, tile + plan.offsets[-1])
        )
        totals = [popcounts(piece, scanned, 0, strand) for strand in range(plan.strands)]
        return functools.reduce(jnp.minimum, totals)

    def one_group(
        group: Int32[Array, ""], minima: UInt32[Array, "queries blocks"]
    ) -> UInt32[Array, "queries blocks"]:
        def nearer(
            tile: Int32[Array, ""], best: UInt32[Array, "queries lanes"]
        ) -> UInt32[Array, "queries lanes"]:
            return jnp.minimum(best, minimum_of_tile(group * plan.tiles + tile))

        best = jax.lax.fori_loop(1, plan.tiles, nearer, minimum_of_tile(group * plan.tiles))
        return jax.lax.dynamic_update_slice(minima, best, (0, group * plan.lanes))

    nothing = jnp.full((queries, plan.blocks), jnp.uint32(NOWHERE))
    return jax.lax.fori_loop(0, groups[shard], one_group, nothing)


def _scan_one(
    planes: UInt32[Array, "1 words spare_rows"],
    groups: Int32[Array, "1"],
    window: UInt32[Array, "offsets columns"],
    *,
    plan: Plan,
) -> UInt32[Array, " {plan.blocks}"]:
    """``scan`` of a shard that is the only one, for one query, which meets each row once: no tile
    is copied to where it would stay."""
    rows = plan.blocks * plan.block

    def distances_of(strand: int) -> UInt32[Array, "tiles lanes"]:
        """Of a strand of each tile."""
        terms = Terms([], [])
        for code, offset in enumerate(plan.offsets):
            low = strand * plan.lanes + offset
            for word in range(plan.words):
                # Again, one use of each slice.
                there = jax.lax.slice(planes[0], (word, low), (word + 1, low + rows))
                there = jax.lax.reshape(there, (rows // plan.tile, plan.tile))
                there = jax.lax.slice_in_dim(there, 0, plan.lanes, axis=1)
                asked, *weights = _word(window[None], code, word, planes.shape[1])
                terms.add(jax.lax.bitwise_xor(there, asked), weights)
        return terms.sum(adders=plan.adders)

    def minima_of_tiles() -> UInt32[Array, "tiles lanes"]:
        return functools.reduce(jnp.minimum, map(distances_of, range(plan.strands)))

    # A branch keeps this loop apart from what follows: fused with that it is no loop over vectors
    # any more.
    nothing = jnp.full((rows // plan.tile, plan.lanes), jnp.uint32(NOWHERE))
    best = jax.lax.cond(groups[0] > 0, minima_of_tiles, lambda: nothing)
    best = jnp.min(best.reshape(-1, plan.tiles, plan.lanes), axis=1)
    used = jnp.arange(len(best), dtype=jnp.int32)[:, None] < groups[0]
    return jnp.where(used, best, jnp.uint32(NOWHERE)).reshape(-1)


# What is done for every word is by lax: a scan of jnp's operators takes half as long more to trace.


def _word(
    codes: UInt32[Array, "queries codes columns"], code: int, word: int, width: int
) -> list[UInt32[Array, "queries 1"]]:
    """A word of a code and, where it is weighted, its two planes."""
    queries, _, columns = codes.shape
    slices = (
        jax.lax.slice(codes, (0, code, column), (queries, code + 1, column + 1))
        for column in range(word, columns, width)
    )
    return [jax.lax.squeeze(one, (1,)) for one in slices]


class Terms(NamedTuple):
    """Differences that are to be counted: bits that weigh 1, and bits that weigh 2."""

    ones: list[Array]
    twos: list[Array]

    def add(
        self, different: UInt32[Array, "*shape"], weights: Sequence[UInt32[Array, "*ones"]]
    ) -> None:
        """One word more.

        Args:
          different: where it differs from the rows.
          weights: the two planes of the word where it is weighted, else nothing.
        """
        if not weights:
            self.ones.append(different)
            return
        ones, twos = weights
        self.ones.append(jax.lax.bitwise_and(different, ones))
        self.twos.append(jax.lax.bitwise_and(different, twos))

    def sum(self, *, adders: bool) -> UInt32[Array, "*shape"]:
        """The weights of all bits that differ."""
        total = bits_set(self.ones, adders=adders)
        return total + (bits_set(self.twos, adders=adders) << jnp.uint32(1)) if self.twos else total


def bits_set(terms: Sequence[UInt32[Array, "*shape"]], *, adders: bool) -> UInt32[Array, "*shape"]:
    """Bits set in all terms together, lane by lane.

    With adders, bits of equal weight are first summed three at a time into a bit of that weight and
    a carry of twice the weight, so that few words are left to count (Harley's and Seal's carry-save
    adders).
    """
    both, either, differ = jax.lax.bitwise_and, jax.lax.bitwise_or, jax.lax.bitwise_xor
    counts = []  # of bits that weigh 1, 2, 4, ...
    while terms:
        carries: list[Array] = []
        while adders and len(terms) > 1:
            one, two, *terms = terms
            total, carry = differ(one, two), both(one, two)
            if terms:
                three, *terms = terms
                total, carry = differ(total, three), either(carry, both(total, three))
            terms, carries = [total, *terms], [*carries, carry]
        counts.append(functools.reduce(jax.lax.add, map(jax.lax.population_count, terms)))
        terms = carries
    return functools.reduce(lambda total, count: count + (total << jnp.uint32(1)), reversed(counts))


# ------------------------------------------------------------------------------------------- select


def smallest_blocks(
    minima: UInt32[Array, "queries blocks"], k: int
) -> tuple[Int32[Array, "queries {k}"], Int32[Array, "queries {k}"]]:
    """``smallest``, cheaper where the minima are many: first which runs of them, then which of
    those.

    The runs that hold the k smallest minima are among the k runs whose own smallest are least.
    """
    queries, blocks = minima.shape
    if blocks % RUN or blocks < 4 * RUN * k:
        return smallest(minima, k)
    runs = minima.reshape(queries, -1, RUN)
    # In order: ties stay in the order of their places.
    chosen = jnp.sort(smallest(jnp.min(runs, axis=2), k)[1], axis=1)
    some = jnp.take_along_axis(runs, chosen[..., None], axis=1).reshape(queries, -1)
    best, places = smallest(some, k)
    return best, jnp.take_along_axis(chosen, places // RUN, axis=1) * RUN + places % RUN


def smallest(
    values: Shaped[Array, "queries values"], k: int
) -> tuple[Int32[Array, "queries {k}"], Int32[Array, "queries {k}"]]:
    """The k smallest of each row, whole numbers below 2^24 or NOWHERE, and their places; ties in
    the order of these.

    Integers would be sorted whole, hence float32. So would a ``top_k`` of whose results parts are
    used apart, as the simplifier merges the parts into it; barriers keep them apart (two: one
    around both would end in a tuple).
    """
    found = jax.lax.top_k(-values.astype(jnp.float32), k)
    negated, places = map(jax.lax.optimization_barrier, found)
    far = 2.0**30  # NOWHERE has no float32 of its own
    return jnp.where(negated < -far, NOWHERE, -jnp.maximum(negated, -far).astype(jnp.int32)), places


# ------------------------------------------------------------------------------------------- verify


def distances(
    planes: UInt32[Array, "shards words spare_rows"],
    left: UInt16[Array, "shards rows"],
    whole: UInt32[Array, "queries codes columns"],
    shard: Int32[Array, ""],
    rows: Int32[Array, "queries blocks block"],
    n: Int32[Array, ""],
) -> Int32[Array, "queries blocks block"]:
    """d(query, row) at some rows of a shard, windows of n codes; NOWHERE where none begins."""

    def add(
        code: Int32[Array, ""], total: UInt32[Array, "queries blocks block"]
    ) -> UInt32[Array, "queries blocks block"]:
        width = planes.shape[1]
        for word in range(width):
            there = planes.at[shard, word, rows + code].get(mode="clip")
            terms, weights = Terms([], []), range(word + width, whole.shape[2], width)
            different = whole[:, code, word, None, None] ^ there
            terms.add(different, [whole[:, code, plane, None, None] for plane in weights])
            total = total + terms.sum(adders=False)
        return total

    total = jax.lax.fori_loop(0, n, add, jnp.zeros(rows.shape, jnp.uint32)).astype(jnp.int32)
    return jnp.where(left.at[shard, rows].get(mode="clip") >= n, total, NOWHERE)


def _rows_of_blocks(
    blocks: Int32[Array, "queries blocks"], plan: Plan
) -> Int32[Array, "queries blocks {plan.block}"]:
    """Rows in the shard of each block."""
    steps = jnp.arange(plan.block, dtype=jnp.int32) * plan.lanes
    return plan.begin(blocks)[..., None] + steps.reshape(1, 1, -1)
