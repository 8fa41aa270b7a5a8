"""The paper's measures: cover accuracy with its rules for ties, unique and collision rates, and the
health of the bits.

Conventions
-----------
* The codes of a corpus are a list with one array per recording, ``uint32 (codes, words)``; bit j of
  word i is bit 32 i + j. Every array of a call has the same number of words. Order within an array
  is time.
* A *window* is n consecutive codes of one recording; it never crosses into the next one. A
  recording of m codes has max(m - n + 1, 0) windows of n: 1, 9, 17 and 37 codes are 1, 3, 5 and 10
  s at the paper's four codes a second.
* The *distance* of two windows of n is the number of bits that differ, code by code in order:
  int32, 0 to n * bits.
* Rates and accuracies are shares in [0, 1], float; an interval is the 2.5th to 97.5th percentile of
  a bootstrap that draws whole recordings (or works), since the windows of one recording overlap by
  75 % and are not independent.
* Ties. *strict* is the paper's rule: a query is correct if exactly one window of the whole database
  has the smallest distance and it belongs to the right recording. *lenient* forgives a tie within
  the right recording; a tie between recordings is wrong under both.
* Nothing to measure: an accuracy over no windows is nan, as are its intervals; a corpus without
  codes has unique rate 1, collision rate 0, no dead bits and 0 effective bits.

* The search is a matrix product of its own, not ``search``, and a test holds the two against each
  other. It needs of each reference the smallest distance and how often it occurs, which the k
  nearest windows do not say; and all lengths share its pairs of codes: the paper's four take 0.55
  of the time of ``search`` (1 code alone 4.7 times its time), 60 queries against 20 references of
  80 s on two cores.

numpy only: this module never imports jax, so that worker processes can use it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqhash import parallel

PAPER_LENGTHS = (1, 9, 17, 37)  # codes a window: 1, 3, 5 and 10 s; the paper reports the first two
NO_WINDOW = np.iinfo(np.int32).max  # distance to a reference that is too short to have a window
DEAD_SHARE = 0.02  # a bit set in a smaller share of the codes, or unset in one, is dead
Penalties = Mapping[int, np.ndarray]  # of the variants of a query, by number of codes
# code pairs of one reference worked on at a time: their int16 sums stay in a core's cache
_BLOCK = 2**17
_ASKED = 2**17  # codes of the database, times variants of a query, looked at together
_TABLE = 2**22  # code pairs of the whole database multiplied at a time (16 MB)
_PART = 512  # windows of a recording summed at a time


class Nearest(NamedTuple):
    """The best match of every window of one query in every reference.

    distance: int32 (windows, references), the smallest; NO_WINDOW where the reference has no window
      of this length.
    positions: int32 (windows, references), how many windows of the reference have it; 0 where it
      has no window.
    """

    distance: np.ndarray
    positions: np.ndarray


class Tally(NamedTuple):
    """Windows of each query recording, and how many of them were answered correctly: int64
    (queries,) each.

    All that accuracies and intervals need, so that a subset (a genre, a key) costs no search:
    ``subset(tally, mask)``.
    """

    strict: np.ndarray
    lenient: np.ndarray
    windows: np.ndarray


class Interval(NamedTuple):
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Accuracy(NamedTuple):
    """Cover accuracy at one number of hashes; shares in [0, 1], nan if there are no windows.

    value, low, high: strict rule, averaged over windows as in the paper; interval over query
      recordings.
    lenient, lenient_low, lenient_high: the same under the lenient rule.
    work_low, work_high: interval of ``value`` over works, wider where the covers of a work succeed
      or fail together.
    by_recording: strict rule, mean over query recordings of their own accuracy, so that a long
      cover weighs no more.
    windows, recordings, works: how many windows were asked, of how many recordings and works.
    """

    value: float
    low: float
    high: float
    lenient: float
    lenient_low: float
    lenient_high: float
    work_low: float
    work_high: float
    by_recording: float
    windows: int
    recordings: int
    works: int


class Ranking(NamedTuple):
    """Of each recording that is asked for its other versions, (asked,) each.

    query: its place among the recordings.
    average_precision: mean over its versions of the share of versions up to their rank; its mean is
      the field's MAP.
    first: rank of its first version; its mean is MR1.
    in_ten: share of its versions among the first ten.
    """

    query: np.ndarray
    average_precision: np.ndarray
    first: np.ndarray
    in_ten: np.ndarray


class Collisions(NamedTuple):
    """Repeated codes; N codes, U distinct ones, n_r and u_r those of recording r. All rates are
    shares of N.

    unique_rate: U / N.
    collision_rate: 1 - unique_rate = within_rate + between_rate.
    within_rate: sum_r (n_r - u_r) / N, repeats inside a recording.
    between_rate: (sum_r u_r - U) / N, codes that another recording has too.
    codes: N.
    silent: codes of segments marked as digital silence, which repeat under any hash; 0 if none were
      marked.
    silence_rate: the part of collision_rate that is gone when the silent codes are left out (N
      stays the divisor).
    """

    unique_rate: float
    collision_rate: float
    within_rate: float
    between_rate: float
    codes: int
    silent: int
    silence_rate: float


def nearest(
    query: np.ndarray, references: Sequence[np.ndarray], *, lengths: Sequence[int]
) -> dict[int, Nearest]:
    """The smallest distance of each window of a query to each reference, and how often it occurs
    there.

    Exact. With bits as +-1, two codes differ in (bits - a . b) / 2 places, so one matrix product
    gives every pair of codes; windows of n are sums of n along its diagonals, doubled up from 1, 2,
    4, ... which all lengths share.

    Args:
      query: uint32 (codes, words).
      references: uint32 (codes, words), one per recording.
      lengths: numbers of codes a window, each at least 1.

    Returns:
      {n: Nearest}, with max(codes - n + 1, 0) rows.

    Raises:
      ValueError: codes of another dtype or shape, unequal words, no length or one below 1.
    """
    words = _check_codes([query], "query")
    _check_codes(references, "references", words=words)
    signs = [_signs(reference) for reference in references]
    return _nearest(_signs(query)[None], signs, _check_lengths(lengths))


def judge(found: Nearest, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Which windows of a query name the right reference.

    Args:
      found: of one query, from ``nearest``.
      right: index of the right reference.

    Returns:
      strict, lenient: bool (windows,). Strict: one window of one reference is nearest, and it is
        the right reference.
      Lenient: one reference is nearest, by one or several of its windows, and it is the right one.

    Raises:
      ValueError: ``right`` is not the index of a reference.
    """
    references = found.distance.shape[1]
    if not 0 <= right < references:
        raise ValueError(
            f"right must be the index of a reference, 0 to {references - 1}, got {right}."
        )
    own = found.distance[:, right]
    others = np.delete(found.distance, right, axis=1).min(axis=1, initial=NO_WINDOW)
    lenient = own < others
    return lenient & (found.positions[:, right] == 1), lenient


def tally_covers(
    queries: Sequence[np.ndarray],
    query_works: Sequence[str],
    references: Sequence[np.ndarray],
    reference_works: Sequence[str],
    *,
    lengths: Sequence[int] = PAPER_LENGTHS,
    distractors: Sequence[np.ndarray] = (),
) -> dict[int, Tally]:
    """Asks for every window of every query which reference is nearest; counts the correct answers
    per query.

    Args:
      queries: uint32 (codes, words) per cover.
      query_works: the work of each query, in the same order.
      references: uint32 (codes, words) per original.
      reference_works: the work of each reference; one reference a work.
      lengths: numbers of codes a window.
      distractors: uint32 (codes, words) per recording of a work that nobody asks for, thousands of
        them if need be: of all together only the nearest window is looked at.

    Returns:
      {n: Tally} in the order of ``queries``; a query shorter than n codes has 0 windows.

    Raises:
      ValueError: as ``nearest``; works that do not match the recordings in number; two references
        of one work; a query whose work has no reference.
    """
    words = _check_codes(references, "references")
    _check_codes(queries, "queries", words=words)
    right = _right_references(queries, query_works, references, reference_works)
    signs = [_signs(query)[None] for query in queries]
    _check_codes(distractors, "distractors", words=words)
    return _tally(signs, right, references, _check_lengths(lengths), distractors)


def tally_versions(
    queries: Sequence[np.ndarray],
    query_works: Sequence[str],
    references: Sequence[np.ndarray],
    reference_works: Sequence[str],
    *,
    lengths: Sequence[int] = PAPER_LENGTHS,
    distractors: Sequence[np.ndarray] = (),
    penalties: Penalties | None = None,
) -> dict[int, Tally]:
    """``tally_covers`` of queries that are asked as several variants, as in every key: a window is
    as near as the nearest of its variants, and counts once however many of them are as near.

    Args:
      queries: int8 (variants, codes, bits) per cover: the sign of a bit, -1 or 1, times its weight,
        which is that of all variants; 0 for a bit that does not count.
      query_works: the work of each query, in the same order.
      references: uint32 (codes, words) per original.
      reference_works: the work of each reference; one reference a work.
      lengths: numbers of codes a window.
      distractors: uint32 (codes, words) per recording of a work that nobody asks for.
      penalties: for each length int (variants,), at least 0: by how much the distance of a variant
        is increased, being less likely than others; none where None.

    Returns:
      {n: Tally} in the order of ``queries``.

    Raises:
      ValueError: as ``tally_covers``; queries of another type or shape.
    """
    words = _check_codes(references, "references")
    for i, query in enumerate(queries):
        if query.dtype != np.int8 or query.ndim != 3 or query.shape[2] != 32 * words:
            raise ValueError(
                f"queries[{i}] must be int8 (variants, codes, {32 * words}), "
                f"got {query.dtype} of shape {query.shape}."
            )
    right = _right_references(queries, query_works, references, reference_works)
    _check_codes(distractors, "distractors", words=words)
    return _tally(queries, right, references, _check_lengths(lengths), distractors, penalties)


def _tally(
    queries: Sequence[np.ndarray],
    right: Sequence[int],
    references: Sequence[np.ndarray],
    lengths: Sequence[int],
    distractors: Sequence[np.ndarray],
    penalties: Penalties | None = None,
) -> dict[int, Tally]:
    """Counts the correct answers of each query, float32 (variants, codes, bits)."""
    signs = [_signs(reference) for reference in references]

    def count(asked: tuple[np.ndarray, int]) -> list[list[int]]:
        found = _nearest(asked[0], signs, lengths, penalties)
        if distractors:  # one reference more, which is never right
            beside = _nearest_of_all(asked[0], distractors, lengths, penalties)
            found = {
                n: Nearest(*(np.column_stack(both) for both in zip(each, beside[n], strict=True)))
                for n, each in found.items()
            }
        judged = [judge(found[n], asked[1]) for n in lengths]
        return [[strict.sum(), lenient.sum(), strict.size] for strict, lenient in judged]

    counted = parallel.map_all(count, list(zip(queries, right, strict=True)))
    counts = np.array(counted, np.int64).reshape(-1, len(lengths), 3)
    return {n: Tally(*counts[:, k].T) for k, n in enumerate(lengths)}


def subset(tally: Tally, keep: Sequence[bool] | np.ndarray) -> Tally:
    """The tally of some of the queries. ``keep``: bool (queries,)."""
    mask = np.asarray(keep)
    if mask.dtype != bool or mask.shape != tally.windows.shape:
        raise ValueError(
            f"keep must be bool of shape {tally.windows.shape}, "
            f"got {mask.dtype} of shape {mask.shape}."
        )
    return Tally(*(counts[mask] for counts in tally))


def accuracy(
    tally: Tally, works: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Accuracy:
    """Cover accuracy of a tally, or of a subset of one, with intervals.

    Args:
      tally: from ``tally_covers``.
      works: the work of each query of the tally, in the same order.
      resamples: bootstrap draws of each interval.
      seed: of the draws.

    Raises:
      ValueError: works that do not match the tally in number, resamples below 1.
    """
    asked = tally.windows > 0
    strict = share(tally.strict, tally.windows, resamples=resamples, seed=seed)
    lenient = share(tally.lenient, tally.windows, resamples=resamples, seed=seed)
    over_works = share(tally.strict, tally.windows, groups=works, resamples=resamples, seed=seed)
    own = tally.strict[asked] / tally.windows[asked]
    return Accuracy(
        *strict,
        *lenient,
        work_low=over_works.low,
        work_high=over_works.high,
        by_recording=float(own.mean()) if own.size else math.nan,
        windows=int(tally.windows.sum()),
        recordings=int(asked.sum()),
        works=len({work for work, has_windows in zip(works, asked, strict=True) if has_windows}),
    )


def cover_accuracy(
    queries: Sequence[np.ndarray],
    query_works: Sequence[str],
    references: Sequence[np.ndarray],
    reference_works: Sequence[str],
    *,
    lengths: Sequence[int] = PAPER_LENGTHS,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[int, Accuracy]:
    """The paper's accuracy (III, Performance Metrics): ``accuracy`` of ``tally_covers``, by number
    of hashes.

    Args and errors are those of the two.
    """
    _check_resamples(resamples)
    tallies = tally_covers(queries, query_works, references, reference_works, lengths=lengths)
    return {
        n: accuracy(tally, query_works, resamples=resamples, seed=seed)
        for n, tally in tallies.items()
    }


def alikeness(
    queries: Sequence[np.ndarray], references: Sequence[np.ndarray], *, length: int
) -> np.ndarray:
    """How much each query as a whole is like each reference: float64 (queries, references).

    Of the variant that is most alike, one for the whole recording, the mean over the query's
    windows of the share of weight that agrees at its nearest place, agreeing minus differing, -1 to
    1; -1 where either has no window.

    Args:
      queries: int8 (variants, codes, bits), as ``tally_versions`` takes them.
      references: uint32 (codes, words).
      length: codes of a window.
    """
    signs = [_signs(reference) for reference in references]
    database, cuts = np.concatenate(signs), np.cumsum([len(one) for one in signs])[:-1]

    def of_query(query: np.ndarray) -> np.ndarray:
        alike = np.full((len(query), len(references)), -1.0)
        most = int(np.abs(query).sum(axis=2, dtype=np.int64).max(initial=1))
        if query.shape[1] < length:
            return alike.max(axis=0)
        weight = np.convolve(np.abs(query[0]).sum(axis=1, dtype=float), np.ones(length), "valid")
        product = database @ query.reshape(-1, query.shape[2]).astype(np.float32).T
        for variant, one in enumerate(product.reshape(len(product), len(query), -1).swapaxes(0, 1)):
            for r, table in enumerate(np.split(one, cuts)):
                for _, sums in _diagonal_sums(table, [length], bits=most):
                    alike[variant, r] = np.mean(sums.max(axis=0) / weight)
        return alike.max(axis=0)

    return np.stack(parallel.map_all(of_query, queries))


def rank_versions(alike: np.ndarray, works: Sequence[str]) -> Ranking:
    """What the field reports of whole recordings: each is asked, all others are ranked.

    Args:
      alike: float (recordings, recordings), of row i to column j; the diagonal is not looked at.
      works: of each recording; those without another version are among the others, but not asked.

    Returns:
      Of the recordings that are asked, in order.

    Raises:
      ValueError: works that do not match the recordings in number.
    """
    _check_count(works, len(alike), "works", "one work per recording")
    labels, rows = np.asarray(works), list[tuple[int, float, int, float]]()
    for i, scores in enumerate(alike):
        others = np.delete(np.arange(len(alike)), i)
        order = others[np.argsort(-scores[others], kind="stable")]
        found = np.flatnonzero(labels[order] == labels[i]) + 1  # ranks of the other versions
        if len(found):
            precision = float(np.mean(np.arange(1, len(found) + 1) / found))
            rows.append((i, precision, int(found[0]), float(np.mean(found <= 10))))
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Ranking(*(np.array(column) for column in columns))


def share(
    part: Sequence[float] | np.ndarray,
    whole: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """sum(part) / sum(whole) with a percentile bootstrap that draws whole groups with replacement.

    Args:
      part, whole: (recordings,), whole >= 0; groups whose whole is 0 take no part.
      groups: what is drawn, as one label per recording (its work); None draws recordings.
      resamples: number of draws.
      seed: of the draws; equal seeds and groups draw alike, so two systems are compared on the same
        draws.

    Returns:
      Interval; nan if sum(whole) is 0.

    Raises:
      ValueError: lengths that differ, a negative whole, resamples below 1.
    """
    _check_resamples(resamples)
    parts, wholes = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    if parts.ndim != 1 or parts.shape != wholes.shape:
        raise ValueError(
            f"part and whole must be (recordings,) alike, got {parts.shape} and {wholes.shape}."
        )
    if (wholes < 0).any():
        raise ValueError(f"whole must be at least 0, got {wholes.min()}.")
    if groups is not None:
        _check_count(groups, parts.size, "groups", "one label per recording")
        _, index = np.unique(list(groups), return_inverse=True)
        parts, wholes = (
            np.bincount(index, values).astype(np.float64) for values in (parts, wholes)
        )
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    if not wholes.size:
        return Interval(math.nan, math.nan, math.nan)
    generator, rates = np.random.default_rng(seed), list[float]()
    rows = max(1, 2**15 // wholes.size)  # draws at a time: what a cache holds
    for done in range(0, resamples, rows):
        draws = generator.integers(wholes.size, size=(min(rows, resamples - done), wholes.size))
        rates.extend(parts[draws].sum(axis=1) / wholes[draws].sum(axis=1))
    low, high = np.percentile(rates, [2.5, 97.5])
    return Interval(float(parts.sum() / wholes.sum()), float(low), float(high))


def paired_difference(
    correct_a: Sequence[int] | np.ndarray,
    correct_b: Sequence[int] | np.ndarray,
    windows: Sequence[int] | np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Accuracy of system a minus that of system b on the same queries.

    The difference is taken within each recording before recordings are drawn, so what is hard for
    both cancels. An interval that holds 0 says that the queries do not tell the two apart. Args and
    errors are those of ``share``.
    """
    a, b = np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"correct_a and correct_b must have one shape, got {a.shape} and {b.shape}."
        )
    return share(a - b, windows, groups=groups, resamples=resamples, seed=seed)


def collisions(
    codes: Sequence[np.ndarray], *, silence: Sequence[np.ndarray] | None = None
) -> Collisions:
    """Unique and collision rate of a corpus's codes, split into repeats within and between
    recordings.

    Args:
      codes: uint32 (codes, words) per recording.
      silence: bool (codes,) per recording, True where the segment is digital silence; None marks
        nothing.

    Raises:
      ValueError: codes of another dtype or shape, unequal words, masks that do not fit the codes.
    """
    _check_codes(codes, "codes")
    total, distinct, distinct_within = _count_distinct(codes)
    silent, silent_excess = 0, 0
    if silence is not None:
        _check_count(silence, len(codes), "silence", "one mask per recording")
        for i, (mask, recording) in enumerate(zip(silence, codes, strict=True)):
            if mask.dtype != bool or mask.shape != (len(recording),):
                raise ValueError(
                    f"silence[{i}] must be bool ({len(recording)},), got {mask.dtype} {mask.shape}."
                )
        sounding = [recording[~mask] for recording, mask in zip(codes, silence, strict=True)]
        kept, kept_distinct, _ = _count_distinct(sounding)
        silent, silent_excess = total - kept, (total - distinct) - (kept - kept_distinct)
    whole = max(total, 1)
    return Collisions(
        unique_rate=distinct / whole if total else 1.0,
        collision_rate=(total - distinct) / whole,
        within_rate=(total - distinct_within) / whole,
        between_rate=(distinct_within - distinct) / whole,
        codes=total,
        silent=silent,
        silence_rate=silent_excess / whole,
    )


def bit_means(codes: Sequence[np.ndarray]) -> np.ndarray:
    """Share of codes in which each bit is set: float64 (bits,), bit j of word i at 32 i + j; nan if
    there are no codes.

    ``codes``: uint32 (codes, words) per recording; without a recording there are no bits, (0,).
    """
    words = _check_codes(codes, "codes")
    total = sum(map(len, codes))
    ones = sum(
        (_bits(recording).sum(axis=0, dtype=np.int64) for recording in codes), np.zeros(32 * words)
    )
    return ones / total if total else np.full(32 * words, np.nan)


def dead_bits(codes: Sequence[np.ndarray]) -> int:
    """How many bits are set in under 2 % or over 98 % of the codes, and so tell hardly anything
    apart.
    """
    means = bit_means(codes)
    return int(((means < DEAD_SHARE) | (means > 1 - DEAD_SHARE)).sum())


def effective_bits(codes: Sequence[np.ndarray]) -> float:
    """Participation ratio of the +-1 bits: (sum of eigenvalues)^2 / sum of their squares, of the
    covariance C.

    It is the number of bits when they are independent and equally spread, and 1 when all are copies
    of one. A constant bit has no variance and counts nothing; if every bit is constant, or there
    are no codes, the result is 0. As sum(eig) = trace(C) and sum(eig^2) = sum_ij C_ij^2, no
    eigenvalue is computed.
    """
    total = sum(map(len, codes))
    if not total:
        return 0.0
    mean = 2 * bit_means(codes) - 1
    second = np.zeros((mean.size, mean.size))
    for signs in map(_signs, codes):
        second += signs.T @ signs  # exact in float32 below 2^24 codes a recording
    varying = np.flatnonzero(abs(mean) < 1)
    covariance = (second / total - np.outer(mean, mean))[np.ix_(varying, varying)]
    return float(np.trace(covariance) ** 2 / (covariance**2).sum()) if varying.size else 0.0


def _nearest(
    variants: np.ndarray,
    references: Sequence[np.ndarray],
    lengths: Sequence[int],
    penalties: Penalties | None = None,
) -> dict[int, Nearest]:
    """``nearest`` of a query as several variants: (variants, codes, bits), whole numbers, -1 and 1
    or as large as the bit's weight; references +-1, float32 (codes, bits).
    """
    variants = variants.astype(np.float32, copy=False)
    codes = variants.shape[1]
    shapes = {n: (max(codes - n + 1, 0), len(references)) for n in lengths}
    found = {
        n: Nearest(np.full(s, NO_WINDOW, np.int32), np.zeros(s, np.int32))
        for n, s in shapes.items()
    }
    sizes = [len(reference) for reference in references]
    if not sum(sizes) or not codes:
        return found
    if len(sizes) > 1 and sum(sizes) * len(variants) > _ASKED:
        half = len(sizes) // 2
        parts = [
            _nearest(variants, some, lengths, penalties)
            for some in (references[:half], references[half:])
        ]
        return {
            n: Nearest(*map(np.hstack, zip(*(p[n] for p in parts), strict=True))) for n in lengths
        }
    each = np.abs(variants).sum(axis=2)  # the largest sum of a code
    whole = np.cumsum(np.pad(each[0], (1, 0)), dtype=np.int64)
    penalties = penalties or {n: np.zeros(len(variants), np.int64) for n in lengths}
    most = int(each.max()) + max(-(-2 * int(penalties[n].max()) // n) for n in lengths)
    step = max(64, min(_BLOCK // max(sizes), _TABLE // sum(sizes)))
    database = np.concatenate(references)
    for start in range(0, codes, step):
        # One product with the whole database: threads of BLAS that must meet for each small one
        # wait on a busy machine.
        block = variants[:, start : start + step + max(lengths) - 1]
        product = database @ block.reshape(-1, block.shape[2]).T
        each_variant = product.reshape(len(product), len(block), -1).swapaxes(0, 1)
        tables = [np.split(one, np.cumsum(sizes)[:-1]) for one in each_variant]
        for r in range(len(references)):
            for n, sums in _best_sums([table[r] for table in tables], lengths, most, penalties):
                sums = sums[:, :step]  # a later block starts with the windows beyond
                largest = sums.max(axis=0)
                stop = start + len(largest)
                # Agreeing minus differing bits is their number - 2 * distance: the largest sum is
                # the smallest distance.
                total = whole[start + n : stop + n] - whole[start:stop]
                found[n].distance[start:stop, r] = (total - largest) // 2
                found[n].positions[start:stop, r] = (sums == largest).sum(axis=0, dtype=np.int32)
    return found


def _nearest_of_all(
    variants: np.ndarray,
    references: Sequence[np.ndarray],
    lengths: Sequence[int],
    penalties: Penalties | None = None,
) -> dict[int, Nearest]:
    """``_nearest`` of all references, uint32 (codes, words), as if they were one: (windows,) each,
    positions 1.

    Half of its time, as nothing is counted and nothing kept of each. A window's sum is the
    difference of two running sums, for every length; what runs over from one variant to the next is
    in both and cancels, and so does what an integer cannot hold.
    """
    count, codes, _ = variants.shape
    each = np.abs(variants.astype(np.float32, copy=False)).sum(axis=2)  # a code's largest sum
    small = max(lengths) * each.max(initial=0) <= np.iinfo(np.int16).max
    dtype = np.int16 if small else np.int32
    none = np.iinfo(dtype).min
    best = {n: np.full((count, max(codes - n + 1, 0)), none, dtype) for n in lengths}
    beyond = max(lengths) - 1
    parts = [
        one[low : low + _PART + beyond]
        for one in references
        for low in range(0, max(len(one) - beyond, min(len(one), 1)), _PART)
    ]
    for sums in _running_sums(variants, parts, dtype) if codes else ():
        for n in lengths:
            if n < len(sums) and n <= codes:
                largest = (sums[n:, n:] - sums[:-n, :-n]).max(axis=0)
                whole = np.pad(largest, (0, n - 1)).reshape(count, codes)
                np.maximum(best[n], whole[:, : codes - n + 1], out=best[n])
    found = {}
    for n, largest in best.items():
        total = np.convolve(each[0], np.ones(n), "valid") if n <= codes else each[0, :0]
        distance = (total.astype(np.int64) - largest) // 2
        distance += 0 if penalties is None else penalties[n][:, None]
        distance[largest == none] = NO_WINDOW
        nearest = distance.min(axis=0).astype(np.int32)
        found[n] = Nearest(nearest, np.ones_like(nearest))
    return found


def _running_sums(
    variants: np.ndarray, references: Sequence[np.ndarray], dtype: type[np.signedinteger]
) -> Iterator[np.ndarray]:
    """Of each reference, uint32 (codes, words), integers (its codes + 1, variants * codes + 1): at
    i, j the sum of the table of code pairs along its diagonal up to i - 1, j - 1.
    """
    flat = variants.reshape(-1, variants.shape[2]).astype(np.float32)
    asked = np.pad(flat, ((1, 0), (0, 0))).T  # sums run from 0
    together = max(1, _TABLE // (asked.shape[1] * max(map(len, references), default=1)))
    for first in range(0, len(references), together):
        some = references[first : first + together]
        rows = np.concatenate([np.pad(_signs(one), ((1, 0), (0, 0))) for one in some])
        ends = np.cumsum([len(one) + 1 for one in some])[:-1]
        for sums in np.split((rows @ asked).astype(dtype), ends):
            for above, row in itertools.pairwise(sums):
                row[1:] += above[:-1]
            yield sums


def _best_sums(
    tables: Sequence[np.ndarray], lengths: Sequence[int], most: int, penalties: Penalties
) -> Iterator[tuple[int, np.ndarray]]:
    """``_diagonal_sums`` of the variants of a query, at each place the largest of them all."""
    each = [_diagonal_sums(table, lengths, bits=most) for table in tables]
    for together in zip(*each, strict=True):
        n, best = together[0]
        for variant, (_, sums) in enumerate(together):
            if penalties[n][variant]:
                sums -= sums.dtype.type(2 * penalties[n][variant])
            if variant:
                np.maximum(best, sums, out=best)
        yield n, best


def _diagonal_sums(
    table: np.ndarray, lengths: Sequence[int], *, bits: int
) -> Iterator[tuple[int, np.ndarray]]:
    """For each n, sum_{k<n} table[i + k, j + k] at every i, j where the n entries are there.

    ``table``: whole numbers (rows, columns), -bits to bits. Yields n and integers (rows - n + 1,
    columns - n + 1).

    The table is kept flat: one step down a diagonal is columns + 1 entries on, so a sum of two
    shifted tables is one pass over contiguous memory. Entries of rows that wrapped around are never
    read out.
    """
    rows, columns = table.shape
    lengths = [n for n in lengths if n <= min(rows, columns)]
    dtype = np.int16 if max(lengths, default=0) * bits <= np.iinfo(np.int16).max else np.int32
    down = columns + 1
    powers: dict[int, np.ndarray] = {1: table.astype(dtype).ravel()}
    size = 1
    while 2 * size <= max(lengths, default=0):
        half = powers[size]
        powers[2 * size] = half[: -size * down] + half[size * down :]
        size *= 2
    for n in lengths:
        sums = np.empty(rows * columns, dtype)
        front = sums[: rows * columns - (n - 1) * down]
        done = 0
        for size in (2**k for k in reversed(range(n.bit_length())) if n & 2**k):
            piece = powers[size][done * down :][: len(front)]
            np.add(front, piece, out=front) if done else np.copyto(front, piece)
            done += size
        yield n, sums.reshape(rows, columns)[: rows - n + 1, : columns - n + 1]


def _bits(codes: np.ndarray) -> np.ndarray:
    """uint8 (codes, bits) of 0 and 1; bit 32 i + j is bit j of word i on any machine."""
    return np.unpackbits(
        np.ascontiguousarray(codes, "<u4").view(np.uint8), axis=1, bitorder="little"
    )


def _signs(codes: np.ndarray) -> np.ndarray:
    """float32 (codes, bits) of -1 and 1."""
    return _bits(codes).astype(np.float32) * 2 - 1


def _count_distinct(codes: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Codes, distinct codes, and the sum over recordings of their distinct codes."""
    distinct = [_distinct(recording) for recording in codes]
    union = len(_distinct(np.concatenate(distinct))) if distinct else 0
    return sum(map(len, codes)), union, sum(map(len, distinct))


def _distinct(codes: np.ndarray) -> np.ndarray:
    """The distinct rows of (codes, words), compared as byte strings (10 times faster than
    ``np.unique(axis=0)``).
    """
    rows = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.itemsize * codes.shape[1])))
    return np.unique(rows.ravel()).view(codes.dtype).reshape(-1, codes.shape[1])


def _right_references(
    queries: Sequence[np.ndarray],
    query_works: Sequence[str],
    references: Sequence[np.ndarray],
    reference_works: Sequence[str],
) -> list[int]:
    """Index of the reference of each query's work."""
    _check_count(query_works, len(queries), "query_works", "one work per query")
    _check_count(reference_works, len(references), "reference_works", "one work per reference")
    index = {work: i for i, work in enumerate(reference_works)}
    if len(index) != len(reference_works):
        repeated = sorted(
            {work for work in reference_works if list(reference_works).count(work) > 1}
        )
        raise ValueError(
            f"reference_works must name each work once, got several references of {repeated}."
        )
    missing = sorted(set(query_works) - set(index))
    if missing:
        raise ValueError(
            f"query_works must be among reference_works, got works without a reference: {missing}."
        )
    return [index[work] for work in query_works]


def _check_codes(codes: Sequence[np.ndarray], name: str, *, words: int | None = None) -> int:
    """Number of words of all recordings (0 if there are none); ValueError if one is not uint32
    (codes, words).
    """
    for i, recording in enumerate(codes):
        if (
            not isinstance(recording, np.ndarray)
            or recording.dtype != np.uint32
            or recording.ndim != 2
        ):
            kind = getattr(recording, "dtype", type(recording).__name__)
            raise ValueError(
                f"{name}[{i}] must be a numpy array, uint32 (codes, words), "
                f"got {kind} of shape {np.shape(recording)}."
            )
        words = recording.shape[1] if words is None else words
        if recording.shape[1] != words or words == 0:
            expected = f"{words} words" if words else "at least 1 word"
            raise ValueError(f"{name}[{i}] must have {expected} a code, got {recording.shape[1]}.")
    return words or 0


def _check_lengths(lengths: Sequence[int]) -> list[int]:
    """The distinct lengths as ints, in order."""
    checked = list(dict.fromkeys(int(n) for n in lengths))
    if not checked or min(checked) < 1 or any(n != int(n) for n in lengths):
        raise ValueError(
            "lengths must be whole numbers of codes, at least one and each at least 1, "
            f"got {lengths}."
        )
    return checked


def _check_count(items: Sequence, expected: int, name: str, what: str) -> None:
    if len(items) != expected:
        raise ValueError(f"{name} must hold {what}, expected {expected}, got {len(items)}.")


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")
