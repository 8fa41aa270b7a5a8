"""Versions of works: of which recording a clip is another version, in which key, at which tempo.

A cover differs from its original in 25 to 40 % of its bits, and no window of it tells. What tells
is that windows all along the clip lie in one order in the recording: in one key, on one line.

1. Each window w of a query (``WINDOW_SECONDS``, one every ``STEP_SECONDS``) is laid at each place
   j of a stretch of a recording, in each of twelve rotations r. ``z[r, w, j]`` is how much more of
   the weight of its bits agrees there than with windows drawn from the collection, in deviations,
   both in that rotation: where all music is in a few keys, a query in another one is like all of
   it once it is turned there.
2. A line j = a + tempo w gains ``sum (z - DUE)`` over that run of windows where the sum is largest;
   h is the gain of the best line in any rotation and tempo.
3. The same query **backwards** has the chords, the key and the timbre of the forward one, and
   nothing of its order. Its gain h' says how much is won by accident, of just this query in just
   this recording: v = h - h' is what counts.
4. v has mean and deviation over the recordings of the collection, without those that stand out;
   where these are few, they lean on what is usual (``MEAN``, ``SPREAD``).

**Scores.** Of absent clips, (v - mean) / deviation is nearly normal, its right tail ``WIDER``. The
probability that the best of N stretches is so far out is N times that of one.

All stretches of a small collection are weighed. Of a large one those are that hold neighbours of
the query's windows by exact search in all keys (``search.rotations``), and some at random, which
say what is usual.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqhash.index import calibration, windows
from seqhash.search import hamming, planar, rotations

WINDOW_SECONDS = 2.25  # from the first code of a window to its last and one more
STEP_SECONDS = 1.0  # between two windows, ...
LONG_STEP_SECONDS = 2.0  # ... of a query of more than ...
LONG_SECONDS = 40.0
PIECE_SECONDS = 120.0  # of a longer query, half overlapping
STRETCH_SECONDS = 300.0  # of a recording; longer ones are half overlapping stretches
TEMPI = np.exp(np.linspace(-0.25, 0.25, 7))  # times as fast as the recording
FINER = np.exp(np.linspace(-0.05, 0.05, 21))  # of the best of them, for the answer
DUE = 0.7  # deviations that a window has to agree more than windows do, to count for a line
TURNS = 4  # rotations whose lines are looked for: those whose windows agree most anywhere
TYPICAL = 512  # windows drawn from the collection
EVERY = 128  # stretches of a collection all of which are weighed; of a larger one ...
DRAWN = 64  # ... so many at random, and so many that hold neighbours
NEIGHBOURS = 16  # of each window in each rotation
SEARCHED_SECONDS = 5.0  # windows by which those are searched
# mean and deviation of v as shares of the mean of h', and as how many recordings that counts
MEAN, SPREAD, KNOWN = 0.13, 0.135, 8
OUTSIDE = 4.0  # deviations above the mean from which on a stretch is left out of both
WIDER = 1.5  # than normal the right tail
ROWS = 2**12  # codes of stretches that are weighed together


class Stretches(NamedTuple):
    """Parts of recordings, (stretches,) each."""

    recording: np.ndarray  # place in the collection
    begin: np.ndarray  # row of the collection
    end: np.ndarray


class Weighed(NamedTuple):
    """A query in stretches, (stretches,) each: its best line forwards, and what backwards wins."""

    gain: np.ndarray  # h
    backwards: np.ndarray  # h'
    rotation: np.ndarray
    tempo: np.ndarray
    place: np.ndarray  # code of the stretch beside the query's first; may lie before it


class Line(NamedTuple):
    """A query along a recording, as an answer has it; codes may lie between two."""

    first: int  # codes of the query that are on it
    last: int
    place: float  # code of the stretch beside ``first``
    tempo: float  # codes of the recording in one of the query


def stretches(starts: np.ndarray, code_rate: float) -> Stretches:
    """Recordings, the long ones in half overlapping stretches; none of those without a code.

    Args:
      starts: int64 (recordings + 1,), rows of a collection.
      code_rate: codes a second.
    """
    length, parts = windows.codes_in(STRETCH_SECONDS, code_rate), list[tuple[int, int, int]]()
    for recording, (low, high) in enumerate(itertools.pairwise(starts.tolist())):
        if high - low <= length:
            begins = [0][: high - low]
        else:
            begins = windows.begins_of(high - low, length).tolist()
        parts += [(recording, low + b, min(low + b + length, high)) for b in begins]
    return Stretches(*np.array(parts, np.int64).reshape(-1, 3).T)


def pieces(count: int, code_rate: float) -> list[tuple[int, int]]:
    """Codes that a query of so many is asked as: all at once, or half overlapping pieces."""
    length = windows.codes_in(PIECE_SECONDS, code_rate)
    if count <= length:
        return [(0, count)]
    return [(begin, begin + length) for begin in windows.begins_of(count, length).tolist()]


def signs(words: np.ndarray) -> np.ndarray:
    """-1 and 1 of bits: uint32 (codes, words) -> float32 (codes, 32 words)."""
    little = np.ascontiguousarray(words, "<u4").view(np.uint8).reshape(len(words), -1)
    return np.unpackbits(little, axis=1, bitorder="little").astype(np.float32) * 2 - 1


def shape(count: int, code_rate: float) -> tuple[int, int]:
    """(codes of a window, codes from one to the next) of a query of so many codes."""
    step = LONG_STEP_SECONDS if count > LONG_SECONDS * code_rate else STEP_SECONDS
    length = min(count, windows.codes_in(WINDOW_SECONDS, code_rate))
    return length, windows.codes_in(step, code_rate)


def weigh(
    query: np.ndarray, parts: Sequence[np.ndarray], sample: np.ndarray, *, step: int
) -> Weighed:
    """A query in stretches of recordings, forwards and backwards.

    Args:
      query: float32 (rotations, codes, bits), signs times weights.
      parts: float32 (rows, bits), the signs of each stretch.
      sample: float32 (sample, n, bits), signs of windows of the collection: n codes are a window.
      step: codes from one window to the next.
    """
    n, bits = sample.shape[1], query.shape[2]
    usual = [typical(way, sample, step) for way in (query, query[:, ::-1])]
    order, found = np.argsort([len(part) for part in parts], kind="stable"), [np.zeros((5, 0))]
    for some in _batches(order, [len(part) for part in parts]):
        lengths = np.array([len(parts[i]) for i in some])
        block = np.zeros((len(some), max(n, int(lengths.max())), bits), np.float32)
        for row, i in zip(block, some, strict=True):
            row[: len(parts[i])] = parts[i]
        table = query.reshape(-1, bits) @ block.reshape(-1, bits).T
        table = table.reshape(*query.shape[:2], *block.shape[:2])
        forwards = _best_lines(table, lengths, usual[0], n=n, step=step)
        backwards = _best_lines(table[:, ::-1], lengths, usual[1], n=n, step=step)
        found.append(np.stack([forwards[0], backwards[0], *forwards[1:]]))
    values = np.concatenate(found, axis=1)[:, np.argsort(order, kind="stable")]
    rotation, place = values[2].astype(np.int64), values[4].astype(np.int64)
    return Weighed(values[0], values[1], rotation, values[3], place)


def typical(query: np.ndarray, sample: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the weight by which a query's windows agree with any, (..., windows)
    each.

    Args:
      query: float32 (..., codes, bits), signs times weights.
      sample: float32 (sample, n, bits), signs of windows of the collection.
      step: codes from one window to the next.
    """
    n = sample.shape[1]
    cut = np.lib.stride_tricks.sliding_window_view(query, n, axis=-2)[..., ::step, :, :]
    flat = cut.swapaxes(-2, -1).reshape(*cut.shape[:-2], -1)
    agrees = flat @ sample.reshape(len(sample), -1).T
    return agrees.mean(axis=-1), np.maximum(agrees.std(axis=-1), 1.0)


def standing_out(weighed: Weighed, usual: np.ndarray) -> np.ndarray:
    """By how many deviations stretches stand out from others, float64 (stretches,).

    Args:
      weighed: of one query.
      usual: bool (stretches,), those that were not chosen because they are near.
    """
    won = weighed.gain - weighed.backwards
    scale = float(weighed.backwards[usual].mean()) if usual.any() else 0.0
    mean, least = MEAN * scale, max(SPREAD * scale, 1e-6)
    deviation = least
    # At first without the largest: in a small collection a cover is a good part of it.
    kept = usual & (won <= np.quantile(won[usual], 0.9)) if usual.sum() >= KNOWN else usual & False
    for _ in range(4):
        known = KNOWN + kept.sum()
        mean = float(KNOWN * MEAN * scale + won[kept].sum()) / known
        variance = KNOWN * least**2 + float(((won[kept] - mean) ** 2).sum())
        deviation = math.sqrt(variance / known)
        kept = usual & (won < mean + OUTSIDE * deviation)
    return (won - mean) / deviation


def log_probability(deviations: np.ndarray, count: int) -> np.ndarray:
    """log10 of the probability that an absent query stands out so far in the best of so many
    stretches: at most 0.
    """
    log = calibration.log_normal(-np.asarray(deviations) / WIDER) / math.log(10)
    log = log + math.log10(max(1, count))
    return np.minimum(log, 0.0)


def line(
    query: np.ndarray, part: np.ndarray, sample: np.ndarray, *, step: int, place: int, tempo: float
) -> Line:
    """The line of a query in a stretch to a fraction of its tempo, and where it begins and ends.

    Args:
      query: float32 (codes, bits), signs times weights, in the rotation that was found.
      part: float32 (rows, bits), signs of the stretch.
      sample, step: of ``weigh``.
      place, tempo: what it found.
    """
    n = sample.shape[1]
    mean, deviation = typical(query, sample, step)
    begins = np.arange(len(mean)) * step
    best, found = -math.inf, Line(0, 0, float(place), tempo)
    for finer, moved in itertools.product(tempo * FINER, (-1.0, 0.0, 1.0)):
        # Turned around its middle, so that tempo and place are told apart.
        middle = begins.mean()
        begin = place + moved + middle * (tempo - finer)
        rows = np.rint(begin + begins * finer).astype(np.int64)
        inside = (rows >= 0) & (rows + n <= len(part))
        agrees = np.array(
            [
                float((query[b : b + n] * part[row : row + n]).sum()) if there else 0.0
                for b, row, there in zip(begins, rows, inside, strict=True)
            ]
        )
        gains = np.where(inside, (agrees - mean) / deviation, 0.0) - DUE
        first, last = windows.most(gains)
        total = float(gains[first:last].sum())
        if total > best:
            ends = int(begins[first]), int(begins[max(first, last - 1)]) + n
            best, found = total, Line(*ends, begin + ends[0] * finer, float(finer))
    return found


def differing(query: np.ndarray, words: np.ndarray, along: Line) -> tuple[int, int]:
    """Bits that differ along a line, and codes that were compared.

    Args:
      query: uint32 (codes, words), in the rotation that was found.
      words: uint32 (rows, words) of the stretch.
    """
    codes = np.arange(along.first, along.last)
    rows = np.rint(along.place + (codes - along.first) * along.tempo).astype(np.int64)
    inside = (rows >= 0) & (rows < len(words))
    distances = hamming.code_distances(query[codes[inside]], words[rows[inside]])
    return int(distances.sum()), int(inside.sum())


def nearest_stretches(
    database: planar.Database,
    parts: Stretches,
    asked: np.ndarray,
    *,
    length: int,
    most: int,
) -> np.ndarray:
    """Stretches that hold most neighbours of a query's windows, in any rotation, nearest first.

    Args:
      database: of the whole collection.
      parts: its stretches.
      asked: uint32 (rotations, codes, words).
      length: codes of a window.
      most: stretches at most.
    """
    length = min(length, asked.shape[1])
    begins = windows.begins_of(asked.shape[1], length)
    cut = asked[:, begins[:, None] + np.arange(length)].swapaxes(0, 1)
    found = rotations.search(database, np.ascontiguousarray(cut), NEIGHBOURS)
    # Of each window, how much nearer than its last neighbour.
    nearer = (found.distance[:, -1:] - found.distance + 1.0) / length
    votes = np.zeros(len(parts.begin))
    for row, vote in zip(found.row.ravel(), nearer.ravel(), strict=True):
        if row >= 0:
            votes[(parts.begin <= row) & (row < parts.end)] += vote
    order = np.argsort(-votes, kind="stable")[:most]
    return order[votes[order] > 0]


def _batches(order: np.ndarray, lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Stretches that are weighed together: about ROWS codes, all as long as their longest."""
    low = 0
    for high in range(1, len(order) + 1):
        full = high < len(order) and (high + 1 - low) * lengths[order[high]] > ROWS
        if full or high == len(order):
            yield order[low:high]
            low = high


def _best_lines(
    table: np.ndarray,
    lengths: np.ndarray,
    usual: tuple[np.ndarray, np.ndarray],
    *,
    n: int,
    step: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(gain, rotation, tempo, place) of the best line in each stretch.

    Args:
      table: float32 (rotations, codes, stretches, rows), by how much codes agree.
      lengths: rows of each stretch; beyond is padding.
      usual: of ``typical``, (rotations, windows) each.
    """
    count, rows = (table.shape[1] - n) // step + 1, table.shape[3] - n + 1
    last = (count - 1) * step + 1
    agrees = sum(table[:, i : i + last : step, :, i : i + rows] for i in range(n))
    agrees = (agrees - usual[0][..., None, None]) / usual[1][..., None, None]
    agrees[:, :, np.arange(rows) > lengths[:, None] - n] = -1e3
    which = np.argsort(-agrees.max(axis=3).mean(axis=1), axis=0, kind="stable")[:TURNS]
    chosen = np.take_along_axis(agrees, which[:, None, :, None], axis=0)
    # Between two codes of the recording both may be as near.
    beside = np.pad(chosen, ((0, 0),) * 3 + ((1, 1),), mode="edge")
    gains = np.maximum(np.maximum(beside[..., :-2], chosen), beside[..., 2:]) - np.float32(DUE)
    best = np.zeros((4, table.shape[2]))
    for tempo in TEMPI:
        ahead = np.rint(np.arange(count) * step * tempo).astype(np.int64)
        # Lines by their place, from the one that has the last window at row 0 on.
        run = np.zeros((*which.shape, rows + ahead[-1]), np.float32)
        top = run.copy()
        for window, lag in enumerate(ahead[-1] - ahead):
            now = run[..., lag : lag + rows]
            np.maximum(now + gains[:, window], 0, out=now)
            np.maximum(top[..., lag : lag + rows], now, out=top[..., lag : lag + rows])
        flat = top.transpose(1, 0, 2).reshape(top.shape[1], -1)
        place = flat.argmax(axis=1)
        turn, begin = np.divmod(place, top.shape[2])
        stretch = np.arange(len(flat))
        values = np.stack(
            [
                flat[stretch, place],
                which[turn, stretch],
                np.full(len(flat), tempo),
                begin - ahead[-1],
            ]
        )
        best = np.where(values[0] > best[0], values, best)
    return best[0], best[1], best[2], best[3]
