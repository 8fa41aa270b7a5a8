"""Windows of a query: how it is cut, what their hits say together, where a match begins and ends,
and what is no copy. Functions of numbers alone; ``identify`` asks them.
"""

import math

import numpy as np

from seqhash.search import hamming

WINDOW_SECONDS = 5.0  # windows of a long query
SHORT_SECONDS = 10.5  # a query up to this long is one window
# of what a copy stands out from the places of its recording that are most alike, at least so much,
OWN = 0.42
OWN_SECONDS = 2.0  # ... where a match is so long, ...
OWN_CODES = 160  # ... its middle, ...
OWN_ERRORS = 0.4  # ... has no more bit errors, which would leave nothing to tell, ...
AROUND_CODES = 2**12  # ... and what is so near in the recording, ...
APART_SECONDS = 1.25  # ... but not nearer, ...
ALIKE = 0.25  # ... has so many other bits at least: repeats of a loop are all the same;
ALIKE_PLACES = 8  # so many of them, since one alone is as near by accident
COMPARED = 2**20  # words that are compared at a time


def cut(count: int, code_rate: float) -> tuple[int, np.ndarray]:
    """Codes of a window and where the windows begin: one where the query is short, else half
    overlapping.
    """
    if count <= SHORT_SECONDS * code_rate:
        return count, np.zeros(1, np.int64)
    length = codes_in(WINDOW_SECONDS, code_rate)
    return length, begins_of(count, length)


def codes_in(seconds: float, code_rate: float) -> int:
    """Codes in so many seconds, at least one."""
    return max(1, round(seconds * code_rate))


def begins_of(count: int, length: int) -> np.ndarray:
    """Where half overlapping windows begin that cover so many codes."""
    return np.unique(
        np.append(np.arange(0, count - length + 1, max(1, length // 2)), count - length)
    )


def split(
    order: np.ndarray, recording: np.ndarray, value: np.ndarray, gap: float
) -> list[np.ndarray]:
    """Cuts an order where the recording changes or the value jumps by more than the gap."""
    jumps = (np.diff(recording[order]) != 0) | (np.abs(np.diff(value[order])) > gap)
    return np.split(order, np.flatnonzero(jumps) + 1)


def evidence(chances: np.ndarray, begins: np.ndarray, length: int) -> float:
    """log10 of the probability of windows by accident: the best choice of those that share no code,
    multiplied.

    Args:
      chances: (windows,) log10 of the probability of each.
      begins: (windows,) where they begin, ascending.
      length: codes of a window.
    """
    least = np.zeros(len(begins) + 1)  # over the first windows
    before = np.searchsorted(begins, begins - length, side="right")
    for place, chance in enumerate(chances):
        least[place + 1] = min(least[place], least[before[place]] + chance)
    return float(least[-1])


def extent(gains: np.ndarray, first: int, last: int) -> np.ndarray:
    """The range that gains most among those that hold the middles of [first, last)'s ends."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    quarter = (last - first + 3) // 4
    return np.array(
        [
            np.argmin(total[: first + quarter + 1]),
            last - quarter + np.argmax(total[last - quarter :]),
        ]
    )


def most(gains: np.ndarray) -> tuple[int, int]:
    """The range of the largest sum."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    rise = total - np.minimum.accumulate(total)
    last = int(rise.argmax())
    return int(total[: last + 1].argmin()), last


def is_copy(
    query: np.ndarray, reference: np.ndarray, place: int, *, code_rate: float, bits: int
) -> bool:
    """Whether a match is more than the style of its recording: whether its middle stands out from
    other places. True where it is too short to tell. Arguments as of ``stands_out``.
    """
    if len(query) < OWN_SECONDS * code_rate:
        return True
    skipped = max(0, len(query) - OWN_CODES) // 2
    middle, apart = query[skipped:][:OWN_CODES], codes_in(APART_SECONDS, code_rate)
    return stands_out(middle, reference, place + skipped, apart, bits) >= OWN


def stands_out(
    query: np.ndarray, reference: np.ndarray, place: int, apart: int, bits: int
) -> float:
    """How much nearer a query is to its place in a recording than to others, as a share of what a
    copy would be.

    Let e be the share of bits in which query and place differ, and s that in which the place and
    another one do. If the query is a copy whose errors know nothing of the other place, it differs
    there in e + s - 2 e s. So (d - e) / (s (1 - 2 e)) is about 1 for a copy, and 0 for what is as
    near there. The mean of the ``ALIKE_PLACES`` places that are most alike, of those that differ by
    ``ALIKE``; inf where there are fewer, or errors leave nothing to tell.

    Args:
      query: uint32 (n, words).
      reference: uint32 (codes, words), the recording.
      place: of the query's first code in it.
      apart: codes by which another place lies off, at least.
      bits: of a code.
    """
    n, low = len(query), max(0, place - AROUND_CODES)
    here = reference[place : place + n]
    e = float(hamming.code_distances(query, here).sum() / (n * bits))
    if e > OWN_ERRORS:
        return math.inf
    around = reference[low : place + AROUND_CODES + n]
    windows = np.lib.stride_tricks.sliding_window_view(around, n, axis=0)
    windows = windows[np.abs(np.arange(low, low + len(windows)) - place) >= apart]
    both, step = np.stack([query, here])[:, None].mT, max(1, COMPARED // query.size)
    differ = [
        np.bitwise_count(both ^ windows[first : first + step]).sum(axis=(2, 3))
        for first in range(0, len(windows), step)
    ]
    d, s = np.concatenate([np.zeros((2, 0)), *differ], axis=1) / (n * bits)
    d, s = d[s >= ALIKE], s[s >= ALIKE]
    alike = np.argsort(s, kind="stable")[:ALIKE_PLACES]
    if len(alike) < ALIKE_PLACES:
        return math.inf
    return float(((d[alike] - e) / (s[alike] * (1 - 2 * e))).mean())
