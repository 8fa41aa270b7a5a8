"""The null distribution: how near absent queries come, estimated on the index's own codes.

A query whose recording is not in a collection still has a nearest window. How near depends on the
collection (its size, how alike its music is) and on the query's length, so the distribution is
taken from the collection itself: its works are dealt into two halves, windows of one half are
searched in the other, where they are not, and the smallest distances are kept. No theory of
independent bits enters: neighbouring codes and bits of real audio are far from independent.

Some audio is near to everything (a plain, steady timbre), some to nothing, and weights of its bits
make a query's distances smaller and wider. So distances are taken relative to the query's own to
windows drawn from the collection. **Nearness** is d as a share of a low quantile of these, where
codes have few effective bits and are far from normal (the paper's); and (d - mean) / deviation
where they have many (bands'), which there halves what is missed at the same rate of false answers
(``Hasher.many_bits``).

The left tail, which no affordable sample reaches, is continued as a normal distribution's through
two quantiles that a few unlabelled copies of one recording in both halves, which are there after
all, hardly move. Where nearness is counted in deviations it is heavier, since strangers may share a
rhythm: it falls exponentially there, by the mean excess of the nearest tenth.

Deviations are wide where music is sparse: there even a copy is few of them away. But it is so
small a share of the low quantile as no stranger is. So a distance that is nearly none of it is at
least as near as its share is unlikely, by the tail of the shares, which has a tenth of the rate.
"""

import math
import statistics
from typing import Any, NamedTuple

import numpy as np

from seqhash.search import hamming, planar

DEALS = 4  # of the works into halves
TRIALS = 64  # windows drawn from each half
WIDER = 1.35  # than the trials say: they come from few recordings, and whoever asks is a new one
# a smaller share of the low quantile is a copy that nobody labelled, not a stranger ...
COPY = 0.3
COPY_CODES = 2  # ... where a window has so many codes: a single one is often as near by accident
# Of many bits one that is smaller than COPY_MOST may be a copy: so many seconds on both sides are
# nearer than COPY, or on one than this where the recording is no nearer to itself elsewhere
COPY_MOST, BESIDE, COPY_BESIDE = 0.8, 3.0, 0.65
IS_COPY, IS_STEADY, IS_STRANGER = range(3)  # what the nearest of a trial is to it
STRANGERS = 64  # trials of them, at least: of fewer, what is known beforehand counts alone
SAMPLE = 512  # windows that say what is typical, ...
FEW_WINDOWS = 64  # ... and, where there are fewer, as many with their codes in reverse order
LOW_SHARE = 0.1  # a low quantile of the distances to them
ROWS = 2**17  # codes of each half at most: what is left out enters as ``copies``
KNEE, LOW = 0.3, 0.1  # quantiles through which the tail goes; it begins at KNEE
LEAST = 1e-30  # probabilities stop here: nothing is that sure
NORMAL = statistics.NormalDist()
FARTHEST = 37.0  # deviations, past which the normal distribution is 0 in float64
ASSUMED = 1.3  # deviations of nearness to absent queries, where nothing is known of them
# s from a hit, between beats; as much more as a segment is longer than a second
ELSEWHERE = (-3.25, -2.75, -2.25, -1.75, -1.25, 1.25, 1.75, 2.25, 2.75, 3.25)
# where a recording is nearer there than this share of the typical distance, it does not change ...
STEADY = 0.15
PLAIN = 0.3  # ... and a hit has to be nearer than this share of that, ...
BITS = 10  # ... which is no less than this: of fewer bits none may differ by accident
PIECE_SECONDS = 10.0  # of a collection of few works, pieces this long stand for works, ...
FEW_WORKS = 8  # ... unless nearness is counted in deviations, which are known beforehand, ...
SOME_WORKS = 32  # ... and believed, too, where fewer works say that strangers are farther away, ...
MOST = 0.9  # ... or fewer of their windows say anything
NEARLY_SAME = 0.15  # of the low quantile: a share so small is judged as a share, too, ...
SHARES_RATE = 0.1  # ... which may answer falsely so much more than deviations may
# the tail of shares, where a collection's own do not come nearer, of half a second of codes or more
ASSUMED_SHARES, ASSUMED_CODES = (0.45, 0.07), 8

Distances = np.ndarray | float


class Typical(NamedTuple):
    """Distances of queries to windows drawn from a collection, float64 (queries,) each."""

    low: np.ndarray  # the quantile LOW_SHARE
    median: np.ndarray
    centre: np.ndarray  # nearness is (d - centre) / scale
    scale: np.ndarray


class NullDistribution(NamedTuple):
    """Nearness of the nearest window to an absent query."""

    minima: np.ndarray  # float64 (trials,), sorted
    mean: float  # of the normal distribution whose tail is taken
    deviation: float
    copies: float  # collections of the size that was searched in the whole
    sample: np.ndarray  # uint32 (windows, n, words), of the collection
    exponential: bool = False  # tail: log p = (nearness - mean) / deviation
    # of shares of the low quantile below NEARLY_SAME: nearness is at most offset + slope * share
    offset: float = math.inf
    slope: float = 0.0


def typical(sample: np.ndarray, queries: np.ndarray, *, many_bits: bool) -> Typical:
    """What distances queries have to anything.

    Args:
      sample: uint32 (windows, n, words), of the collection.
      queries: uint32 (queries, n, words), or (queries, n, 3 words) where bits are weighted.
      many_bits: nearness is counted in deviations.
    """
    distances = np.stack(
        [hamming.code_distances(query[None], sample).sum(axis=1) for query in queries]
    )
    low, median = np.maximum(np.quantile(distances, (LOW_SHARE, 0.5), axis=1), 1.0)
    if not many_bits:
        return Typical(low, median, np.zeros(len(low)), low)
    centre = np.maximum(distances.mean(axis=1), 1.0)
    # No less than of independent bits: codes of silence all have one distance.
    return Typical(low, median, centre, np.maximum(distances.std(axis=1), np.sqrt(centre / 2)))


def nearness(
    distance: np.ndarray, typical: Typical, null: NullDistribution | None = None
) -> np.ndarray:
    """(d - centre) / scale of distances (queries, ...), or what their shares of the low quantile
    are worth by a distribution, where they are small and that is less: the smaller, the nearer.
    """
    shape = (-1,) + (1,) * (distance.ndim - 1)
    low, centre, scale = (x.reshape(shape) for x in (typical.low, typical.centre, typical.scale))
    near, share = (distance - centre) / scale, distance / low
    if null is None:
        return near
    same = np.where(share < NEARLY_SAME, null.offset + null.slope * share, math.inf)
    return np.minimum(near, same)


def log_probability(null: NullDistribution, nearness: np.ndarray) -> np.ndarray:
    """log10 of the probability that an absent query has a window at least this near: float64, of
    the shape of ``nearness``; at most 0, and not below log10 LEAST.
    """
    share = np.searchsorted(null.minima, nearness, side="right") / len(null.minima)
    tail = (nearness - null.mean) / null.deviation
    tail = np.minimum(tail, 0.0) if null.exponential else log_normal(tail)
    beyond = np.log(np.maximum(share, KNEE))
    log = np.log(null.copies) + np.where(tail < math.log(KNEE), tail, beyond)
    return np.clip(log / math.log(10), math.log10(LEAST), 0.0)


def is_steady(beside: Distances, distance: Distances, low: Distances) -> Any:
    """Whether hits are of a sound that does not change: what lies a few seconds away is as near."""
    return (beside < STEADY * low) & ((distance >= PLAIN * beside) | (beside < BITS))


def largest(null: NullDistribution, rate: float) -> float:
    """The largest nearness whose probability is at most ``rate``, or KNEE where that is less."""
    share = max(LEAST, min(KNEE, rate / null.copies))
    return null.mean + null.deviation * float(
        math.log(share) if null.exponential else NORMAL.inv_cdf(share)
    )


def estimate(
    words: np.ndarray,
    starts: np.ndarray,
    works: np.ndarray,
    *,
    n: int,
    tries: int,
    code_rate: float,
    many_bits: bool,
    seed: int = 0,
) -> NullDistribution | None:
    """The distribution for queries of n codes; None where the collection has no room for such
    windows.

    Args:
      words, starts: the collection, as ``planar.build`` takes it.
      works: (recordings,) recordings of one value are versions of one work and stay in one half.
        The result depends on these values, and among equal ones on the recordings' lengths, and not
        on the order of the recordings.
      n: codes of a query.
      tries: windows that a query is searched as (its shifts): each trial takes so many consecutive
        ones.
      code_rate: codes a second.
      many_bits: nearness is counted in deviations.
    """
    rng = np.random.default_rng(seed)
    order = np.lexsort((np.diff(starts), works))
    low, high, works = (
        starts[:-1][order],
        starts[1:][order],
        np.unique(works[order], return_inverse=True)[1],
    )
    if len(np.unique(works)) < FEW_WORKS and many_bits:
        return assumed(words, starts, n=n, tries=tries)
    if len(np.unique(works)) < FEW_WORKS:
        low, high = _pieces(low, high, max(round(PIECE_SECONDS * code_rate), 2 * (n + tries)))
        works = np.arange(len(low))
    tried = _trials(words, low, high, works, n, tries, code_rate, many_bits, rng)
    if tried is None:
        return assumed(words, starts, n=n, tries=tries) if many_bits else None
    trials, shares, copies, left = tried
    sample = _sample(words, low, high, n, rng, both=many_bits and _are_few(low, high, n))
    if many_bits:
        edge, excess = _lowest(trials)
        mean = edge - excess * math.log(LOW)
        null = NullDistribution(trials, mean, excess, copies, sample, exponential=True)
        tail = (*_lowest(shares), copies)
        if len(np.unique(works)) < SOME_WORKS or left < MOST:
            other = assumed(words, starts, n=n, tries=tries)
            null = min((null, other or null), key=lambda each: largest(each, 0.01))
            if n >= ASSUMED_CODES and tail[0] > ASSUMED_SHARES[0] - ASSUMED_SHARES[1]:
                tail = (*ASSUMED_SHARES, copies / 2)
        return _with_shares(null, *tail)
    knee, edge = np.quantile(trials, [KNEE, LOW])
    z_knee, z_low = map(NORMAL.inv_cdf, (KNEE, LOW))
    deviation = max(WIDER * float(knee - edge) / (z_knee - z_low), 1e-3)
    return NullDistribution(trials, float(knee) - deviation * z_knee, deviation, copies, sample)


def assumed(
    words: np.ndarray, starts: np.ndarray, *, n: int, tries: int
) -> NullDistribution | None:
    """The distribution for a collection of few works, where nearness is counted in deviations: each
    window is a normal variable, a little wider than that, and none knows of the others.

    In collections of 1, 20 and 40 recordings 1 % of absent queries came nearer than 1.1 to 1.5
    times what a normal variable does. None where the collection has no room for n codes.
    """
    low, high = starts[:-1], starts[1:]
    windows = int(np.maximum(high - low - n + 1, 0).sum())
    if not windows:
        return None
    rng = np.random.default_rng(n)
    sample = _sample(words, low, high, n, rng, both=windows < FEW_WINDOWS)
    null = NullDistribution(np.array([-np.inf]), 0.0, ASSUMED, float(windows * tries), sample)
    return null if n < ASSUMED_CODES else _with_shares(null, *ASSUMED_SHARES, 1.0)


def of_length(
    null: NullDistribution, words: np.ndarray, starts: np.ndarray, n: int
) -> NullDistribution | None:
    """The distribution for windows of nearly as many codes: its sample is of n; None where the
    collection has no room for them.
    """
    low, high = starts[:-1], starts[1:]
    if (high - low < n).all():
        return None
    both, rng = _are_few(low, high, n), np.random.default_rng(n)
    return null._replace(sample=_sample(words, low, high, n, rng, both=both))


def _trials(
    words: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    works: np.ndarray,
    n: int,
    tries: int,
    code_rate: float,
    many_bits: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """Windows of some works asked of the others: how near the nearest is, sorted; its share of the
    low quantile; how many times what was searched the collection is; and the share of windows that
    say how near strangers come. None where no half has room for a window.
    """
    # One program serves all halves, however uneven they are.
    room = min(len(words), ROWS + int((high - low).max(initial=0)))
    both = many_bits and _are_few(low, high, n)
    asked_all, searched = [], 0
    for _ in range(DEALS):
        halves = [_half(high - low, works, own, rng) for own in _deal(works, rng)]
        if any((high[half] - low[half] < n + tries - 1).all() for half in halves):
            continue
        for asked, there in (halves, halves[::-1]):
            rows, starts = _rows(low[there], high[there])
            database = planar.build(words[rows], starts, room=room)
            begins = draw_rows(low[asked], high[asked], n, tries, TRIALS, rng)
            queries = words[begins[:, None] + np.arange(n)]
            found = hamming.search(database, queries, 1, progressive=False)
            nearest, row = found.distance[:, 0], rows[found.row[:, 0]]
            sample = _sample(words, low[there], high[there], n, rng, both=both)
            usual = typical(sample, queries, many_bits=many_bits)
            shares = nearest / usual.low
            kind = np.where(shares >= (COPY_MOST if many_bits else COPY), IS_STRANGER, IS_COPY)
            for i in np.flatnonzero(kind == IS_COPY) if many_bits else ():
                pair = begins[i], row[i], usual.low[i]
                kind[i] = _kind(words, (low, high), *pair, n, code_rate)
            trial = np.stack([nearness(nearest, usual), shares, kind])
            asked_all.append(trial.reshape(3, TRIALS, tries).min(axis=2))
            searched += database.rows
    if not asked_all:
        return None
    trials, shares, kind = np.concatenate(asked_all, axis=1)
    strange = kind == IS_STRANGER
    others = (kind != IS_COPY).sum() if many_bits else len(kind)
    if n >= COPY_CODES and 2 * strange.sum() >= others:
        if strange.sum() >= STRANGERS:
            trials, shares = trials[strange], shares[strange]
        elif many_bits:
            return None
    copies = max(1.0, len(words) * len(asked_all) / searched)
    return np.sort(trials), shares, copies, float(strange.mean())


def _kind(
    words: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    asked: int,
    found: int,
    low: float,
    n: int,
    code_rate: float,
) -> int:
    """What n codes that are near, at rows of two recordings, are to each other.

    IS_STEADY where they are of silence, or of a sound so steady that nobody is answered with it.
    IS_COPY where they are of one recording that is there twice (another edit or format, or a little
    faster): then what is beside them is near, too, and they are as near as the recording is to
    itself elsewhere, or nearly the same. Else IS_STRANGER: what is beside them is as far as
    anything, and a rhythm is nearer to its own next beat.
    """
    begins, ends = bounds
    i, j = (np.flatnonzero((begins <= row) & (row < ends))[0] for row in (asked, found))
    window, own, other = words[asked : asked + n], *(words[begins[k] : ends[k]] for k in (i, j))
    if (window == window[0]).all():
        return IS_STEADY

    def distances(recording: np.ndarray, places: np.ndarray) -> np.ndarray:
        places = places[(places >= 0) & (places + n <= len(recording))]
        return hamming.code_distances(window, recording[places[:, None] + np.arange(n)]).sum(axis=1)

    at, place, margin = asked - begins[i], found - begins[j], round(BESIDE * code_rate)
    distance = float(distances(other, place[None])[0])
    back, ahead = min(at, place, margin), min(len(own) - at, len(other) - place, n + margin)
    sides = [side for side in (np.arange(-back, 0), np.arange(n, ahead)) if 2 * len(side) >= margin]
    beside = [
        n * float(hamming.code_distances(own[at + side], other[place + side]).mean())
        for side in sides
    ]
    if max(beside, default=distance) < COPY * low:
        return IS_COPY
    if min(beside, default=np.inf) < COPY_BESIDE * low:  # one side may have been cut away
        elsewhere = np.arange(len(own))
        again = distances(own, elsewhere[np.abs(elsewhere - at) > code_rate])
        if distance <= again.min(initial=hamming.NOWHERE):
            return IS_COPY
    around = distances(other, place + np.rint(np.array(ELSEWHERE) * code_rate).astype(np.int64))
    usual = np.quantile(around, 0.4, method="lower") if len(around) else np.inf
    return IS_STEADY if is_steady(float(usual), distance, low) else IS_STRANGER


def _lowest(values: np.ndarray) -> tuple[float, float]:
    """An exponential lower tail: the quantile LOW, and the mean excess of what is below."""
    edge = float(np.quantile(values, LOW))
    return edge, max(WIDER * float((edge - values[values <= edge]).mean()), 1e-3)


def _with_shares(
    null: NullDistribution, edge: float, excess: float, copies: float
) -> NullDistribution:
    """A distribution by which a distance is also near that is a small share of the low quantile:
    the line through two rates, at which shares of an exponential tail are worth the nearness that
    is as unlikely.
    """
    rates = np.array([1e-2, 1e-4])
    shares = edge + excess * np.log(SHARES_RATE * rates / (LOW * copies))
    near = np.array([largest(null, rate) for rate in rates])
    slope = float(np.diff(near)[0] / np.diff(shares)[0])
    return null._replace(offset=float(near[0] - slope * shares[0]), slope=slope)


def log_normal(deviations: np.ndarray) -> np.ndarray:
    """log of the standard normal distribution: float64, of the shape of ``deviations``, and no less
    than at -FARTHEST. ``scipy.special.log_ndtr`` takes a twelfth of a first answer to load.
    """
    tail = np.vectorize(math.erfc, otypes=[np.float64])
    return np.log(tail(-np.maximum(deviations, -FARTHEST) / math.sqrt(2)) / 2)


def _deal(works: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The works of each half, in random order."""
    order = rng.permutation(np.unique(works))
    return order[::2], order[1::2]


def _half(
    lengths: np.ndarray, works: np.ndarray, own: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Recordings of some works, as many as make ROWS codes."""
    recordings = rng.permutation(np.flatnonzero(np.isin(works, own)))
    before = np.cumsum(lengths[recordings]) - lengths[recordings]
    return recordings[before < ROWS]


def _pieces(low: np.ndarray, high: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Recordings cut into pieces: where they begin and end."""
    begins = [np.arange(a, b, length) for a, b in zip(low, high, strict=True)]
    ends = [np.minimum(begin + length, b) for begin, b in zip(begins, high, strict=True)]
    return np.concatenate([*begins, low[:0]]), np.concatenate([*ends, high[:0]])


def _rows(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of recordings one after another, and where each begins among them."""
    rows = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    return np.concatenate(rows), np.concatenate([[0], np.cumsum(high - low)])


def _are_few(low: np.ndarray, high: np.ndarray, n: int) -> bool:
    """Whether recordings hold so few windows of n codes that most of them share codes."""
    return int(np.maximum(high - low - n + 1, 0).sum()) < FEW_WINDOWS


def _sample(
    words: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    both: bool,
) -> np.ndarray:
    """Windows that say what is typical, ``both`` as they are and in reverse order: these hold the
    same sounds, and are no copies of what a clip shares codes with.
    """
    drawn = draw_windows(words, low, high, n, SAMPLE, rng)
    return np.concatenate([drawn, drawn[:, ::-1]]) if both else drawn


def draw_windows(
    words: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    n: int,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Windows (count, n, words) at ``draw_rows``."""
    return words[draw_rows(low, high, n, 1, count, rng)[:, None] + np.arange(n)]


def draw_rows(
    low: np.ndarray, high: np.ndarray, n: int, tries: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Where windows of n codes begin, (count * tries,): so many consecutive ones from each of
    ``count`` random places.
    """
    room = np.maximum(high - low - (n + tries - 1) + 1, 0)
    place = rng.integers(0, room.sum(), count)
    recording = np.searchsorted(np.cumsum(room), place, side="right")
    row = low[recording] + place - (np.cumsum(room) - room)[recording]
    return (row[:, None] + np.arange(tries)).ravel()
