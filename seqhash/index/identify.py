"""A query against an index: which recording, where in it, how sure; or that it is not there (paper,
III, metrics).

A query is hashed at several **shifts** inside one hop of the index's codes, since its segments do
not lie on the reference's grid; that costs the index nothing. Each shift is searched as windows of
consecutive codes: the whole query where it is short, overlapping **windows** of 5 s where it is
long. Windows that are near enough (``calibration``) and agree on one recording and one alignment
are one match; its codes are then compared all along that alignment, which gives its ends, its
distance and its bit error rate. A query that is no good match as a whole is searched again
in **pieces**: it may hold more than one recording, or begin before one, or be longer than all.
Windows of a long query
may miss a recording of a few seconds, a jingle: those are searched by windows of their own.

A hit where the recording is as near a few seconds earlier and later is none: silence is near to all
silence.

**Offsets.** ``offset`` is the time in the reference that sounds at ``start`` of the query, in
seconds. Shifts lie a fifth of 0.25 s apart, so it is within 25 ms of the truth where the nearest
shift is the best one.

**Scores.** ``score`` is -log10 of the probability that a clip that is not in the index matches as
well: 2 is one clip in a hundred. A match is reported where that probability, times the windows that
the query has, is at most the searcher's false-positive rate.
"""

import contextlib
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from seqhash import audio, mfcc
from seqhash.codes import Hasher, check_samples
from seqhash.config import override
from seqhash.index import calibration, ingest
from seqhash.index.catalogue import Collection, Identity, Index, Row, open_index
from seqhash.search import hamming, multi_index, planar

FALSE_POSITIVE_RATE = 0.01
SHIFTS = 5  # of a query inside one hop
WINDOW_SECONDS = 5.0  # windows of a long query
SHORT_SECONDS = 10.5  # a query up to this long is one window
PIECE_SECONDS = 2.5  # windows of one at least twice as long that is no match as a whole, ...
UNSURE = 0.2  # ... or one with more bit errors than this, ...
PIECES_RATE = 0.1  # ... which may bring so much of the false-positive rate more
JINGLE_SECONDS = (
    2.0  # windows of a long query, for recordings of less than one and a half of its windows
)
NEIGHBOURS = 16  # of each window
CANDIDATE_RATE = 0.1  # windows no more unlikely than this take part in a match of several
GAP_SECONDS = 15.0  # between two windows of one match
AGREE_SECONDS = 0.26  # between alignments of two windows of one match: a hop
ELSEWHERE = (
    -3.25,
    -2.75,
    -2.25,
    -1.75,
    -1.25,
    1.25,
    1.75,
    2.25,
    2.75,
    3.25,
)  # s from a hit, between beats
# where a recording is nearer there than this share of the typical distance, it does not change ...
STEADY = 0.15
PLAIN = 0.3  # ... and a hit has to be nearer than this share of that
MULTI_INDEX_ROWS = 4_000_000  # fewer codes are scanned in less time than the tables cost to look up
MULTI_INDEX_QUERIES = 512  # windows scanned before tables are made: about what making them costs


class Match(NamedTuple):
    """Part of a query that is part of a recording."""

    recording: int  # id in the index
    path: str
    title: str
    start: float  # s of the query
    end: float  # s of the query
    offset: float  # s of the reference at ``start``
    distance: int  # bits that differ
    bit_error_rate: float  # share of the compared bits that differ
    score: float  # -log10 of the probability that what is not there matches as well


class _Hits(NamedTuple):
    """Windows that are near enough, (hits,) each."""

    window: np.ndarray  # of the query
    shift: np.ndarray
    recording: np.ndarray
    row: np.ndarray  # position of the reference's window in its recording
    distance: np.ndarray
    typical: np.ndarray  # distance of the query's window to any window
    chance: np.ndarray  # probability of so near a window, log10


@dataclass(eq=False)
class Searcher:
    """An index in memory, ready to answer. Made by ``open_searcher``."""

    hasher: Hasher
    rows: list[Row]
    collection: Collection
    false_positive_rate: float = FALSE_POSITIVE_RATE
    shifts: int = SHIFTS
    _scanned: int = field(default=0, repr=False)
    _nulls: dict[tuple[int, int], calibration.Null | None] = field(default_factory=dict, repr=False)

    def identify_file(self, path: str | os.PathLike[str]) -> list[Match]:
        """Matches of an audio file, best first; none where it is not there.

        Raises:
          AudioError: the file cannot be read as audio, or is shorter than a segment.
        """
        minimum = ingest.shortest_seconds(self.hasher.config)
        return self._identify(
            audio.blocks(path, sample_rate=self.hasher.sample_rate, minimum_seconds=minimum)
        )

    def identify_blocks(self, blocks: Iterable[np.ndarray]) -> list[Match]:
        """As ``identify``, of samples that come in blocks (any,): what is held of them is their
        cepstra.
        """
        return self._identify(map(check_samples, blocks))

    def identify(self, samples: np.ndarray) -> list[Match]:
        """Matches of samples, float32 (samples,) in [-1, 1] at the hasher's rate, best first.

        Raises:
          ValueError: the samples are not finite mono floats, or are shorter than a segment.
        """
        return self._identify([check_samples(samples)])

    def candidates(self, samples: np.ndarray) -> list[Match]:
        """As ``identify``, but with all that is near, however likely it is by accident: for curves
        over thresholds.
        """
        return self._identify([check_samples(samples)], everything=True)

    def _identify(self, blocks: Iterable[np.ndarray], *, everything: bool = False) -> list[Match]:
        codes = shifted_codes(self.hasher, blocks, shifts=self.shifts)
        if not len(self.collection.words):
            return []
        count, code_rate = min(len(shift) for shift in codes), self.hasher.code_rate
        rate = 1.0 if everything else self.false_positive_rate
        length, begins = _cut(count, code_rate)
        matches = self._matches(codes, length, begins, rate)
        piece = min(
            round(PIECE_SECONDS * code_rate),
            int(np.median(np.diff(self.collection.starts))) - len(codes) + 1,
        )
        again = (
            2 * piece <= count <= SHORT_SECONDS * code_rate
            or self._null(length, len(codes)) is None
        )
        unsure = all(match.bit_error_rate > UNSURE for match in matches)
        if unsure and again and 0 < piece < count and not everything:
            matches += self._matches(codes, piece, _begins(count, piece), rate * PIECES_RATE)
        elif len(begins) > 1 and not everything:
            matches += self._jingles(codes, count, rate * PIECES_RATE)
        return without_repeats(
            sorted(matches, key=lambda match: (-match.score, match.bit_error_rate))
        )

    def _jingles(self, codes: list[np.ndarray], count: int, rate: float) -> list[Match]:
        """Matches of a long query with what is so short that a window may not lie in it; judged as
        all are.
        """
        length, short = round(JINGLE_SECONDS * self.hasher.code_rate), self._short
        null = self._null(length, len(codes)) if short else None
        if not short or not null:
            return []
        share = len(short.collection.words) / len(self.collection.words)
        short._nulls[length, len(codes)] = null._replace(copies=null.copies * share)
        return short._matches(codes, length, _begins(count, length), rate)

    def _matches(
        self, codes: list[np.ndarray], length: int, begins: np.ndarray, rate: float
    ) -> list[Match]:
        """Matches of windows that begin at some codes; what is not there has one at a rate."""
        null = self._null(length, len(codes))
        if null is None:
            return []  # no recording is as long as a window
        rate = rate if rate >= 1 else rate / len(begins)
        hits = self._hits(codes, begins, length, null, rate)
        return [
            self._match(codes, begins, length, hits, group, evidence)
            for group in _groups(hits, begins, self.shifts, self.hasher.code_rate)
            if (evidence := _evidence(hits, group, begins, length)) <= np.log10(rate)
        ]

    @property
    def _step(self) -> float:
        """Seconds between two shifts."""
        return 1 / (self.hasher.code_rate * self.shifts)

    @functools.cached_property
    def _database(self) -> planar.Database:
        return planar.build(self.collection.words, self.collection.starts)

    @functools.cached_property
    def _short(self) -> "Searcher | None":
        """The recordings that are so short that a window of a long query may not lie in them; None
        where none is.
        """
        starts, window = self.collection.starts, round(WINDOW_SECONDS * self.hasher.code_rate)
        chosen = np.flatnonzero(np.diff(starts) < window + window // 2 - 1)
        if not len(chosen):
            return None
        if len(chosen) == len(self.rows):
            return self
        words = np.concatenate([self.collection.words[starts[i] : starts[i + 1]] for i in chosen])
        collection = Collection(
            words, np.append(0, np.cumsum(np.diff(starts)[chosen])), self.collection.ids[chosen]
        )
        return replace(self, rows=[self.rows[i] for i in chosen], collection=collection, _nulls={})

    @functools.cached_property
    def _tables(self) -> multi_index.Tables:
        return multi_index.build(self.collection.words, self.collection.starts)

    def _null(self, length: int, shifts: int) -> calibration.Null | None:
        """What is near by accident, for windows of so many codes at so many shifts."""
        if (length, shifts) not in self._nulls:
            works = np.array([row.work or row.digest or str(row.id) for row in self.rows])
            words, starts, rate = (
                self.collection.words,
                self.collection.starts,
                self.hasher.code_rate,
            )
            null = calibration.estimate(
                words, starts, works, n=length, tries=shifts, code_rate=rate
            )
            self._nulls[length, shifts] = null
        return self._nulls[length, shifts]

    def _nearest(self, queries: np.ndarray, enough: np.ndarray) -> hamming.Neighbours:
        """Nearest windows: scanned, or, in a large collection that is asked often, looked up where
        one is near enough.

        Args:
          queries: uint32 (queries, n, words).
          enough: (queries,) a window at this distance is no accident: nothing nearer need be proven
            absent.
        """
        if len(self.collection.words) < MULTI_INDEX_ROWS or self._scanned < MULTI_INDEX_QUERIES:
            self._scanned += len(queries)
            return hamming.search(self._database, queries, NEIGHBOURS)
        found = multi_index.search(self._tables, queries, NEIGHBOURS, radius=1)
        missing = found.distance[:, 0] > enough
        if missing.any():
            scanned = hamming.search(self._database, queries[missing], NEIGHBOURS)
            found.distance[missing], found.row[missing] = scanned.distance, scanned.row
        return found

    def _hits(
        self,
        codes: list[np.ndarray],
        begins: np.ndarray,
        length: int,
        null: calibration.Null,
        rate: float,
    ) -> _Hits:
        """The windows of all shifts with their neighbours that are near enough."""
        limit = calibration.largest(null, rate if len(begins) == 1 else max(rate, CANDIDATE_RATE))
        limit = np.inf if rate >= 1 else limit
        enough = calibration.largest(null, rate / 100)
        parts = []
        for piece in range(0, len(begins), 64):
            begin = begins[piece : piece + 64]
            inside = begin[:, None] + np.arange(length)[None]
            queries = np.stack([shift[inside] for shift in codes], axis=1).reshape(
                -1, length, codes[0].shape[1]
            )
            typical = calibration.typical(null.sample, queries)
            found = self._nearest(queries, enough * typical)
            nearness = found.distance / typical[:, None]
            query, rank = np.nonzero((nearness <= limit) & (found.row >= 0))
            plain = self._plain(
                queries[query], found.row[query, rank], found.distance[query, rank], typical[query]
            )
            query, rank = query[plain], rank[plain]
            recording, row = planar.locate(self.collection.starts, found.row[query, rank])
            chance = np.log10(calibration.probability(null, nearness[query, rank]))
            window, shift, distance = (
                piece + query // len(codes),
                query % len(codes),
                found.distance[query, rank],
            )
            parts.append(_Hits(window, shift, recording, row, distance, typical[query], chance))
        return _Hits(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _plain(
        self, queries: np.ndarray, row: np.ndarray, distance: np.ndarray, typical: np.ndarray
    ) -> np.ndarray:
        """Which hits tell one place of their recording from the seconds around it, bool (hits,).

        Args:
          queries: uint32 (hits, n, words).
          row, distance, typical: of each hit.
        """
        starts, n = self.collection.starts, queries.shape[1]
        recording = np.searchsorted(starts, row, side="right") - 1
        distances = np.full((len(ELSEWHERE), len(row)), np.nan)
        for place, seconds in enumerate(ELSEWHERE):
            other = row + round(seconds * self.hasher.code_rate)
            inside = np.flatnonzero(
                (other >= starts[recording]) & (other + n <= starts[recording + 1])
            )
            there = self.collection.words[other[inside, None] + np.arange(n)]
            distances[place, inside] = np.bitwise_count(there ^ queries[inside]).sum(
                axis=(1, 2), dtype=np.int64
            )
        distances[0] = np.where(
            np.isnan(distances).all(axis=0), typical, distances[0]
        )  # too short a recording to say
        elsewhere = np.nanquantile(
            distances, 0.4, axis=0, method="lower"
        )  # less than half: one side may be silent
        return (elsewhere >= STEADY * typical) | (distance < PLAIN * elsewhere)

    def _match(
        self, codes, begins, length: int, hits: _Hits, group: np.ndarray, evidence: float
    ) -> Match:
        """The match of some hits, which agree: compared all along the alignment of the best of
        them.
        """
        best = group[np.argmin(hits.chance[group])]
        recording, shift = int(hits.recording[best]), int(hits.shift[best])
        starts = self.collection.starts
        reference = self.collection.words[starts[recording] : starts[recording + 1]]
        lag = int(hits.row[best] - begins[hits.window[best]])  # reference position - query position
        first, last = begins[hits.window[group]].min(), begins[hits.window[group]].max() + length
        query = codes[shift]
        low, high = max(0, -lag), min(len(query), len(reference) - lag)
        first, last = max(first, low), min(last, high)
        different = np.bitwise_count(query[low:high] ^ reference[low + lag : high + lag]).sum(
            axis=1, dtype=np.int64
        )
        bits = 32 * query.shape[1]
        if len(begins) > 1:
            between = (hits.distance[best] + hits.typical[best]) / (
                2 * length
            )  # bits of a code, found or not
            first, last = _extent(between - different, first - low, last - low) + low
        distance = int(different[first - low : last - low].sum())
        row, code_rate = self.rows[recording], self.hasher.code_rate
        segment = self.hasher.config.segment_seconds
        return Match(
            recording=row.id,
            path=row.path,
            title=row.title,
            start=float(first / code_rate + shift * self._step),
            end=float((last - 1) / code_rate + shift * self._step + segment),
            offset=float((first + lag) / code_rate),
            distance=distance,
            bit_error_rate=float(distance / (bits * (last - first))),
            score=-evidence,
        )


def open_searcher(
    index: str | os.PathLike[str] | Index,
    hasher: Hasher,
    *,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
) -> Searcher:
    """Loads an index, by its path or open, for answers by this hasher.

    Args:
      index: what ``seqhash add`` made.
      hasher: the one that the index was made by.
      false_positive_rate: of queries that are not in the index, the share that may be answered all
        the same.

    Raises:
      IndexFileError: the index cannot be read, or is another hasher's.
    """
    identity = Identity(
        hasher.name,
        hasher.digest,
        hasher.code_rate,
        len(hasher.thresholds) // 32,
        hasher.sample_rate,
    )
    with contextlib.ExitStack() as stack:
        if not isinstance(index, Index):
            index = stack.enter_context(open_index(index, identity=identity, readonly=True))
        with index.snapshot():  # the catalogue and the codes of one moment
            return Searcher(hasher, index.rows(), index.load(), false_positive_rate)


def shifted_codes(
    hasher: Hasher, blocks: Iterable[np.ndarray], *, shifts: int = SHIFTS
) -> list[np.ndarray]:
    """Codes of a query, uint32 (codes, words), at each shift: shift i begins i / (code_rate *
    shifts) s later.

    Args:
      hasher: of the index.
      blocks: the samples, float32 (any,) in order.
      shifts: of the query inside one hop of the codes, which they must divide.

    Raises:
      ValueError: the query is shorter than a segment.
    """
    cepstra = mfcc.stream(blocks, config=hasher.config.mfcc)
    codes = _finer(hasher, shifts).hash_cepstra(cepstra)
    if not len(codes):
        seconds = hasher.config.segment_seconds
        raise ValueError(
            f"A query must be longer than {seconds:g} s, got {len(cepstra)} frames of 10 ms."
        )
    return [codes[shift::shifts] for shift in range(min(shifts, len(codes)))]


@functools.lru_cache(maxsize=16)
def _finer(hasher: Hasher, shifts: int) -> Hasher:
    """The hasher with so many codes where it has one."""
    hop = hasher.config.segment.hop
    if hop % shifts:
        raise ValueError(f"The shifts must divide the hop, {hop} frames, got {shifts}.")
    return replace(hasher, config=override(hasher.config, {"segment.hop": hop // shifts}))


# ------------------------------------------------------------------------------- windows to matches


def _cut(count: int, code_rate: float) -> tuple[int, np.ndarray]:
    """Codes of a window and where the windows begin: one where the query is short, else half
    overlapping.
    """
    if count <= SHORT_SECONDS * code_rate:
        return count, np.zeros(1, np.int64)
    length = round(WINDOW_SECONDS * code_rate)
    return length, _begins(count, length)


def _begins(count: int, length: int) -> np.ndarray:
    """Where half overlapping windows begin that cover so many codes."""
    return np.unique(
        np.append(np.arange(0, count - length + 1, max(1, length // 2)), count - length)
    )


def _groups(hits: _Hits, begins: np.ndarray, shifts: int, code_rate: float) -> list[np.ndarray]:
    """Hits that agree: one recording, one alignment to about a hop, no long gap in the query;
    indices of each group.
    """
    if not len(hits.window):
        return []
    begin = begins[hits.window]
    lag = hits.row - begin - hits.shift / shifts  # codes from the query to the reference
    parts = []
    for group in _split(
        np.lexsort((lag, hits.recording)), hits.recording, lag, AGREE_SECONDS * code_rate
    ):
        in_time = group[np.argsort(begin[group], kind="stable")]
        parts += _split(in_time, hits.recording, begin, GAP_SECONDS * code_rate)
    return parts


def _split(
    order: np.ndarray, recording: np.ndarray, value: np.ndarray, gap: float
) -> list[np.ndarray]:
    """Cuts an order where the recording changes or the value jumps by more than the gap."""
    jumps = (np.diff(recording[order]) != 0) | (np.abs(np.diff(value[order])) > gap)
    return np.split(order, np.flatnonzero(jumps) + 1)


def _evidence(hits: _Hits, group: np.ndarray, begins: np.ndarray, length: int) -> float:
    """log10 of the probability of a group by accident: the best choice of windows that share no
    code, multiplied.
    """
    chance = np.zeros(len(begins))
    np.minimum.at(chance, hits.window[group], hits.chance[group])
    windows = np.unique(hits.window[group])
    least = np.zeros(len(windows) + 1)  # over the first windows
    for place, window in enumerate(windows):
        before = np.searchsorted(begins[windows], begins[window] - length, side="right")
        least[place + 1] = min(least[place], least[before] + chance[window])
    return float(least[-1])


def _extent(gains: np.ndarray, first: int, last: int) -> np.ndarray:
    """The range that gains most among those that hold the middles of [first, last)'s ends."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    quarter = (last - first + 3) // 4
    return np.array(
        [
            np.argmin(total[: first + quarter + 1]),
            last - quarter + np.argmax(total[last - quarter :]),
        ]
    )


def without_repeats(matches: list[Match]) -> list[Match]:
    """Leaves out what is half an earlier (better) match of the same recording: a chorus is found at
    each place.

    Less than half is the end of one match and the beginning of the next, which are known to about a
    second.
    """
    kept: list[Match] = []
    for match in matches:
        same = [other for other in kept if other.recording == match.recording]
        if not any(
            2 * _overlap(match, m) > min(match.end - match.start, m.end - m.start) for m in same
        ):
            kept.append(match)
    return kept


def _overlap(one: Match, other: Match) -> float:
    """Seconds of the query that two matches share; negative where they are apart."""
    return min(one.end, other.end) - max(one.start, other.start)
