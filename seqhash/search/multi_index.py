"""Sub-linear search by multi-index hashing, proven exact where it is (Norouzi, Punjani, Fleet
2014).

Bits of a code are dealt to m substrings of b bits, and each substring has one table that is
addressed by its value: the rows that have it, found without a comparison. A query of n codes is n m
substrings. If a window has a distance below the sum over them of (radius + 1), then by the
pigeonhole principle at least one of its substrings lies within its radius of the query's, so that a
look-up of all values within that radius finds the window. That sum is the query's *bound*: what is
found nearer than it is proven, and what is not found is not nearer.

The radii grow together, a shell at a time, and stop as soon as the answer is proven: the last shell
only for as many substrings as the proof needs, those with the emptiest buckets first. Candidates
are verified by the whole distance, a few codes at a time, and left when they exceed the k-th best
so far. With one table of a 32-bit code this is semantic hashing (Salakhutdinov, Hinton 2009): the
code is the address.

Everything is numpy in host memory. ``hamming`` scans instead: faster below a few hundred thousand
codes, or where the answer is too far for a proof.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt, UInt8, UInt32

from seqhash.search.hamming import NOWHERE, Neighbours

MAX_BITS = 26  # of an address: 2^26 offsets are 268 MB a table
# rows taken from one bucket: real codes repeat (silence, held notes), uniform ones have one row a
# bucket; a fuller one counts as not looked up
CAP = 256
_SAMPLE = 1 << 15  # rows looked at to choose the bits
_LOAD = 2.0  # rows that a row's bucket may hold on average before addresses get more bits
_MORE_BITS = 2  # than log2 rows, at most: four times the offsets
_BLOCK = 1 << 15  # rows or addresses at a time: the temporaries stay in the L2 cache
_CANDIDATES = 1 << 15  # verified at a time, about
# candidates times steps of a distance: fewer cost less than to ask in between who is left
_AT_ONCE = 1 << 11
_QUERIES = 32  # at a time
_ROW_BITS = 32  # of the keys that sort by (value or distance, row)
_ROW_MASK = (1 << _ROW_BITS) - 1
_NONE = np.zeros(0, np.int64)


class Tables(NamedTuple):
    """What ``build`` makes of a collection. Rows, words and starts as everywhere; m substrings of b
    bits.

    ``order[s]`` lists all rows by the value of their substring s (then by row), and those with
    value v are ``order[s, offsets[s, v] : offsets[s, v + 1]]``.
    """

    words: UInt32[np.ndarray, "rows words"]
    starts: Int64[np.ndarray, " borders"]  # (recordings + 1,)
    left: UInt[np.ndarray, " rows"]  # rows to the recording's end, itself included
    # what byte i of a code, being v, adds to each substring's value: (4 words, 256, m)
    spread: Int64[np.ndarray, "octets 256 m"]
    offsets: UInt32[np.ndarray, "m addresses"]  # (m, 2^b + 1)
    order: UInt32[np.ndarray, "m rows"]

    @property
    def substrings(self) -> int:
        """m."""
        return self.spread.shape[2]

    @property
    def bits(self) -> int:
        """b, of an address."""
        return (self.offsets.shape[1] - 1).bit_length() - 1

    @property
    def nbytes(self) -> int:
        """Bytes of memory beyond the words."""
        return sum(array.nbytes for array in self[1:])


class _Found(NamedTuple):
    """The k nearest windows so far of a block of queries, ordered by (query, distance, row)."""

    query: Int64[np.ndarray, " found"]
    key: Int64[np.ndarray, " found"]  # distance << 32 | row


def build(words: np.ndarray, starts: np.ndarray, *, bits: int | None = None) -> Tables:
    """Tables of a collection.

    Args:
      words: uint32 (rows, words), all codes, one recording after another. Not copied where it is
        contiguous.
      starts: int64 (recordings + 1,): recording r is rows starts[r] to starts[r + 1].
      bits: of an address, 1 to 26; by default log2 rows rounded up (8 at least), so that a bucket
        holds one row or less, and up to two more where the codes repeat, if that does not make the
        substrings fewer.

    Takes about a second a table and ten million rows, and 16 bytes a row while it runs.

    Raises:
      ValueError: words or starts are not of that shape, or there are 2^32 rows or more.
    """
    words, starts = _check_collection(words, starts)
    rows, width = words.shape
    if bits is not None and not 1 <= bits <= min(MAX_BITS, 32 * width):
        raise ValueError(f"bits must be 1 to {min(MAX_BITS, 32 * width)}, got {bits}.")
    bits, spread = _substrings(words, bits)
    substrings = spread.shape[2]
    offsets = np.zeros((substrings, (1 << bits) + 1), np.uint32)
    order = np.empty((substrings, rows), np.uint32)
    for substring in range(substrings):
        _sort_rows(words, spread[..., substring], offsets[substring], order[substring])
    lengths = np.diff(starts)
    left = np.repeat(starts[1:], lengths) - np.arange(rows)
    left = left.astype(np.min_scalar_type(int(lengths.max(initial=0))))
    return Tables(words, starts, left, spread, offsets, order)


def search(
    tables: Tables, queries: np.ndarray, k: int = 1, *, radius: int = 1, limit: int | None = None
) -> Neighbours:
    """The nearest windows among those that share a substring with the query, up to ``radius``
    flipped bits in it.

    ``exact`` says of each query whether its answer is proven to be that of the full scan: the k
    nearest windows (within ``limit``), ties by row. It holds where the k-th distance, or the limit,
    is below the query's bound, which is (radius + 1) n m once everything is looked up. Past radius
    1, where look-ups are many, a query that cannot be proven within ``radius`` is left as it is: it
    is cheaper to scan.

    Args:
      tables: of ``build``.
      queries: uint32 (queries, n, words), windows of n >= 1 codes, or (n, words) for one.
      k: how many, at least 1.
      radius: 0 and up; a query stops before it when its answer is proven. 1 finds nearly every
        window of 9 codes with 15 % of its bits flipped; 2 proves it at 10 %. A shell of radius r
        has C(b, r) values.
      limit: windows farther than this are not wanted (and need not be disproven).

    Returns:
      ``Neighbours``: distance int32 and row int64 (queries, k), ordered by (distance, row), padded
      with NOWHERE and -1; exact bool (queries,).
    """
    queries = _check_queries(tables, queries)
    if k < 1 or radius < 0:
        raise ValueError(f"k must be at least 1 and radius at least 0, got k={k}, radius={radius}.")
    n = queries.shape[1]
    distance = np.full((len(queries), k), NOWHERE, np.int32)
    row = np.full((len(queries), k), -1, np.int64)
    exact = np.zeros(len(queries), bool)
    ceiling = int(NOWHERE) if limit is None else min(limit, int(NOWHERE))
    for first in range(0, len(queries), _QUERIES):
        block = slice(first, first + _QUERIES)
        found, exact[block] = _search_block(
            tables, queries[block], k=k, radius=radius, ceiling=ceiling
        )
        rank = _ranks(found.query)
        distance[block][found.query, rank] = found.key >> _ROW_BITS
        row[block][found.query, rank] = found.key & _ROW_MASK
    # Where all windows are found, nothing could have been missed; k is large only then.
    if k >= len(tables.words) - (n - 1) * (len(tables.starts) - 1):
        windows = np.maximum(np.diff(tables.starts) - n + 1, 0).sum()
        exact |= (row >= 0).sum(axis=1) == windows
    return Neighbours(distance, row, exact)


def _search_block(
    tables: Tables,
    queries: UInt32[np.ndarray, "queries n words"],
    *,
    k: int,
    radius: int,
    ceiling: int,
) -> tuple[_Found, Bool[np.ndarray, " queries"]]:
    """(found, exact) of a few queries: look shells up until proven."""
    count, n, _ = queries.shape
    # chunk = code m + substring
    values = _values(tables.spread, queries.reshape(count * n, -1)).reshape(count, -1)
    proven = np.zeros(values.shape, np.int64)  # whole shells looked up: bound = proven.sum(axis=1)
    hits = np.zeros(values.shape, np.int64)  # rows in the last shell
    found = _Found(_NONE, _NONE)
    worst = np.full(count, NOWHERE, np.int64)
    for shell in range(radius + 1):
        need = np.minimum(worst, ceiling) + 1 - proven.sum(axis=1)
        active = need > 0
        if shell > 1:
            active &= need <= ((proven == shell) * (radius + 1 - shell)).sum(axis=1)
        if not active.any():
            break
        query, chunk = np.nonzero(_choose(proven == shell, hits, need) & active[:, None])
        pieces = [found]
        step = max(1, _BLOCK // max(1, math.comb(tables.bits, shell)))
        for begin in range(0, len(query), step):
            piece = slice(begin, begin + step)
            pair = query[piece], chunk[piece]
            first, size, hits[pair], whole = _buckets(
                tables, values[pair], chunk[piece], shell=shell
            )
            proven[pair] += whole & (proven[pair] == shell)
            for part in _parts(size):
                candidates = _windows(
                    tables, first[part], size[part], query[piece][part], chunk[piece][part], n=n
                )
                pieces.append(_verify(tables, queries, *candidates, np.minimum(worst, ceiling)))
        found = _best(pieces, k)
        worst = _kth_distance(found, count, k)
    return found, np.minimum(worst, ceiling) < proven.sum(axis=1)


def _choose(
    whole: Bool[np.ndarray, "queries chunks"],
    hits: Int64[np.ndarray, "queries chunks"],
    need: Int64[np.ndarray, " queries"],
) -> Bool[np.ndarray, "queries chunks"]:
    """All chunks, or as few as the proof needs, those with the fewest hits so far."""
    chosen = np.ones(whole.shape, bool)
    for query in np.flatnonzero(need <= whole.sum(axis=1)):
        cost = np.where(whole[query], hits[query], np.iinfo(np.int64).max)
        chosen[query] = False
        chosen[query, np.argsort(cost, kind="stable")[: max(need[query], 0)]] = True
    return chosen


def _buckets(
    tables: Tables,
    values: Int64[np.ndarray, " pairs"],
    chunk: Int64[np.ndarray, " pairs"],
    *,
    shell: int,
) -> tuple[
    UInt32[np.ndarray, "pairs buckets"],
    UInt32[np.ndarray, "pairs buckets"],
    Int64[np.ndarray, " pairs"],
    Bool[np.ndarray, " pairs"],
]:
    """(first, size: of each bucket, in the table's order; hits; whole: no bucket was capped)."""
    address = values[:, None] ^ _shell(tables.bits, shell)[None, :]
    address += (chunk % tables.substrings * tables.offsets.shape[1])[:, None]
    flat = tables.offsets.reshape(-1)
    first = flat.take(address)
    address += 1
    size = flat.take(address) - first
    hits, whole = size.sum(axis=1, dtype=np.int64), np.ones(len(values), bool)
    if size.max(initial=0) > CAP:
        whole = ~(size > CAP).any(axis=1)
        size = np.minimum(size, np.uint32(CAP))
    return first, size, hits, whole


def _parts(size: UInt32[np.ndarray, "pairs buckets"]) -> Iterator[slice]:
    """Runs of pairs with about _CANDIDATES rows each, so that full buckets do not need memory
    without end.
    """
    rows = size.sum(axis=1, dtype=np.int64).cumsum()
    if rows[-1] <= _CANDIDATES:
        return iter([slice(0, len(rows))])
    edges = np.searchsorted(rows, np.arange(0, rows[-1], _CANDIDATES), side="right")
    return itertools.starmap(slice, itertools.pairwise([*np.unique(edges), len(rows)]))


def _windows(
    tables: Tables,
    first: UInt32[np.ndarray, "pairs buckets"],
    size: UInt32[np.ndarray, "pairs buckets"],
    query: Int64[np.ndarray, " pairs"],
    chunk: Int64[np.ndarray, " pairs"],
    *,
    n: int,
) -> tuple[Int64[np.ndarray, " windows"], Int64[np.ndarray, " windows"]]:
    """(query, row) of the windows in those buckets that lie in one recording, without
    repetition.
    """
    substrings, rows = tables.order.shape
    full = np.flatnonzero(size)
    count = size.reshape(-1)[full].astype(np.int64)
    pair = np.repeat(full // size.shape[1], count)
    code, substring = np.divmod(chunk, substrings)
    behind = first.reshape(-1)[full] + (count - count.cumsum())
    position = np.arange(len(pair)) + np.repeat(behind, count)
    start = tables.order.reshape(-1).take(position + (substring * rows)[pair]) - code[pair]
    inside = (start >= 0) & (tables.left.take(np.maximum(start, 0)) >= n)
    key = (query[pair] << _ROW_BITS | start)[inside]
    key.sort()
    new = np.ones(len(key), bool)
    np.not_equal(key[1:], key[:-1], out=new[1:])
    key = key[new]
    return key >> _ROW_BITS, key & _ROW_MASK


def _verify(
    tables: Tables,
    queries: UInt32[np.ndarray, "queries n words"],
    query: Int64[np.ndarray, " windows"],
    row: Int64[np.ndarray, " windows"],
    worst: Int64[np.ndarray, " queries"],
) -> _Found:
    """The candidates whose whole distance is at most the worst that is still wanted."""
    n, width = queries.shape[1:]
    # of about half a cache line: two codes of 128 bits tell most strangers
    steps = -(-n * width // 8)
    worst = worst[query]
    distance = np.zeros(len(query), np.int64)
    wide = np.uint64 if width % 2 == 0 else np.uint32
    scale = np.dtype(wide).itemsize // 4
    reference = tables.words.view(wide).reshape(-1)
    asked = np.ascontiguousarray(queries).view(wide).reshape(-1)
    step = 0
    while step < steps:
        first, step = step, min(steps, step + max(1, _AT_ONCE // max(1, len(query))))
        low, high = (code * n // steps * width // scale for code in (first, step))
        place = np.arange(low, high)[:, None]
        flips = reference.take((row * (width // scale))[None, :] + place)
        flips ^= asked.take((query * (n * width // scale))[None, :] + place)
        distance += np.bitwise_count(flips).sum(axis=0, dtype=np.uint32)
        keep = distance <= worst
        if not keep.all():
            query, row, distance, worst = query[keep], row[keep], distance[keep], worst[keep]
    return _Found(query, distance << _ROW_BITS | row)


def _best(pieces: list[_Found], k: int) -> _Found:
    """All pieces as one, without repetitions, the k best of each query."""
    query, key = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((key, query))
    query, key = query[order], key[order]
    new = np.ones(len(key), bool)
    new[1:] = (query[1:] != query[:-1]) | (key[1:] != key[:-1])
    query, key = query[new], key[new]
    keep = _ranks(query) < k
    return _Found(query[keep], key[keep])


def _ranks(query: Int64[np.ndarray, " found"]) -> Int64[np.ndarray, " found"]:
    """Position of each element among those of its query; queries ascend."""
    return np.arange(len(query)) - np.searchsorted(query, query)


def _kth_distance(found: _Found, count: int, k: int) -> Int64[np.ndarray, " {count}"]:
    """Of each query; NOWHERE where fewer are found."""
    worst = np.full(count, NOWHERE, np.int64)
    last = _ranks(found.query) == k - 1
    worst[found.query[last]] = found.key[last] >> _ROW_BITS
    return worst


@functools.lru_cache(maxsize=64)
def _shell(bits: int, radius: int) -> Int64[np.ndarray, " masks"]:
    """All C(bits, radius) values with that many bits set."""
    places = itertools.chain.from_iterable(itertools.combinations(range(bits), radius))
    chosen = np.fromiter(places, np.int64).reshape(math.comb(bits, radius), radius)
    return (1 << chosen).sum(axis=1, dtype=np.int64)


def _values(
    spread: Int64[np.ndarray, "octets 256 m"], words: UInt32[np.ndarray, "codes words"]
) -> Int64[np.ndarray, "codes m"]:
    """The substrings' values of codes."""
    octets = np.ascontiguousarray(words, "<u4").view(np.uint8)
    return spread[np.arange(len(spread)), octets].sum(axis=1)


def _substrings(
    words: UInt32[np.ndarray, "rows words"], bits: int | None
) -> tuple[int, Int64[np.ndarray, "octets 256 m"]]:
    """(b, spread): the fewest bits from log2 rows up with which a bucket is not too full, judged by
    a sample.
    """
    rows, width = words.shape
    sample = words[:: max(1, rows // _SAMPLE)]
    octets = np.ascontiguousarray(sample, "<u4").view(np.uint8)
    moments = _moments(np.unpackbits(octets, axis=1, bitorder="little"))
    if bits is not None:
        return bits, _deal(*moments, bits)
    least, most = max(8, (max(rows, 1) - 1).bit_length()), min(MAX_BITS, 32 * width)
    least = min(least, most)
    # with as many substrings: one less costs recall and proofs
    longest = 32 * width // (32 * width // least)
    for enough in range(least, min(least + _MORE_BITS, longest, most) + 1):
        spread = _deal(*moments, enough)
        if rows * _agreement(_values(spread, sample)) <= _LOAD:
            break
    return enough, spread


def _agreement(values: Int64[np.ndarray, "codes m"]) -> float:
    """Share of the pairs of different codes that have one value, averaged over the substrings."""
    codes, substrings = values.shape
    pairs = sum(
        int((np.unique(column, return_counts=True)[1] ** 2).sum()) - codes for column in values.T
    )
    return pairs / (substrings * max(1, codes * (codes - 1)))


def _deal(
    bias: Float[np.ndarray, " width"], correlation: Float[np.ndarray, "width width"], bits: int
) -> Int64[np.ndarray, "octets 256 m"]:
    """The substrings as ``Tables.spread``: bits dealt out in turn, each table taking the one that
    suits it best.

    To second order, the log-probability that two codes agree in a set of bits is -len ln 2, plus 4
    (mean - 1/2)^2 of each bit, plus correlation^2 of each pair: the best bit adds the least. So the
    bits left over (128 - 5 x 24) are nearly constant or follow others. On codes of music this
    halves the candidates.
    """
    width = len(bias)
    substrings = width // bits
    spread = np.zeros((width // 8, 256, substrings), np.int64)
    cost = np.tile(4 * bias**2, (substrings, 1))
    for place, substring in np.ndindex(bits, substrings):
        bit = int(cost[substring].argmin())
        spread[bit // 8, :, substring] += (np.arange(256) >> bit % 8 & 1) << place
        cost[substring] += correlation[bit] ** 2
        cost[:, bit] = np.inf
    return spread


def _moments(
    ones: UInt8[np.ndarray, "rows width"],
) -> tuple[Float[np.ndarray, " width"], Float[np.ndarray, "width width"]]:
    """mean - 1/2 and correlation, 0 where a bit is constant, of bits 0 and 1."""
    rows, width = ones.shape
    if not rows:
        return np.zeros(width), np.zeros((width, width))
    mean = ones.mean(axis=0)
    deviation = np.sqrt(mean * (1 - mean))
    divisor = np.where(deviation > 0, deviation, 1).astype(np.float32)
    scaled = (ones - mean.astype(np.float32)) / divisor
    return mean - 0.5, scaled.T @ scaled / rows


def _sort_rows(
    words: UInt32[np.ndarray, "rows words"],
    spread: Int64[np.ndarray, "octets 256"],
    offsets: UInt32[np.ndarray, " addresses"],
    order: UInt32[np.ndarray, " rows"],
) -> None:
    """Fills one table, in place: a sort of value << 32 | row is a stable sort of the rows by
    value.
    """
    octets = words.astype("<u4", copy=False).view(np.uint8)
    spread = spread.astype(np.uint32)
    key = np.empty(len(words), np.uint64)
    for first in range(0, len(words), _BLOCK):
        block = octets[first : first + _BLOCK]
        value = spread[0][block[:, 0]]
        for octet in range(1, block.shape[1]):
            value |= spread[octet][block[:, octet]]
        row = np.arange(first, first + len(value), dtype=np.uint64)
        key[first : first + _BLOCK] = value.astype(np.uint64) << np.uint64(_ROW_BITS) | row
    key.sort()
    order[:] = key  # keeps the low 32 bits
    key >>= np.uint64(_ROW_BITS)
    sizes = np.bincount(key.view(np.int64), minlength=len(offsets) - 1)
    np.cumsum(sizes, out=offsets[1:], dtype=np.uint32)


def _check_collection(words: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    words, starts = np.asarray(words), np.asarray(starts, np.int64)
    if words.ndim != 2 or words.dtype != np.uint32 or words.shape[1] < 1:
        raise ValueError(f"words must be uint32 (rows, words), got {words.dtype} {words.shape}.")
    if (
        starts.ndim != 1
        or not len(starts)
        or starts[0]
        or starts[-1] != len(words)
        or (np.diff(starts) < 0).any()
    ):
        raise ValueError(
            f"starts must ascend from 0 to the number of rows, {len(words)}, got {starts}."
        )
    if len(words) >= 1 << _ROW_BITS:
        raise ValueError(
            f"One set of tables holds fewer than 2^32 rows, got {len(words)}. Split the collection."
        )
    return np.ascontiguousarray(words), starts


def _check_queries(tables: Tables, queries: np.ndarray) -> UInt32[np.ndarray, "queries n words"]:
    queries, width = np.asarray(queries), tables.words.shape[1]
    queries = queries[None] if queries.ndim == 2 else queries
    if (
        queries.ndim != 3
        or queries.dtype != np.uint32
        or queries.shape[1] < 1
        or queries.shape[2] != width
    ):
        raise ValueError(
            f"queries must be uint32 (queries, n >= 1, {width}), "
            f"got {queries.dtype} {queries.shape}."
        )
    return queries
