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
silence. Neither is one where the recording is nearly as near all over: a bare rhythm is near to all
like it, at other tempos too. Neither is one that is no nearer than the recording is to the query in
many places, which share with it a timbre: a hum and a tone, clicks and noise. Nor is one whose
query is as near to other places of the recording as its music is alike: two pieces may share a
groove and not a note.

**Offsets.** ``offset`` is the time in the reference that sounds at ``start`` of the query, in
seconds. With the paper's codes shifts lie 50 ms apart, so it is within 25 ms of the truth where the
nearest shift is the best one.

**Scores.** ``score`` is -log10 of the probability that an absent query matches as well: 2 is one
clip in a hundred. A match is reported where that probability, times the windows that the query has,
is at most the searcher's false-positive rate.

**One query, one answer.** The neighbours of a window are found by an exact search, ties by row, so
that an answer depends on the query and the collection alone. Look-ups in tables (``multi_index``)
would prove nearly none of the sixteen neighbours that are asked for. Variants of longer windows are
searched roughly (``_likely``): of those a distant neighbour may depend on the processor, too, by
which rows its scan takes together.
"""

import copy
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from seqhash import audio, parallel
from seqhash.codes import AS_IS, Hasher, Variant, check_samples
from seqhash.index import calibration, compare, windows
from seqhash.index.catalogue import Collection, Row
from seqhash.search import hamming, planar

FALSE_POSITIVE_RATE = 0.01
PIECE_SECONDS = 2.5  # windows of one at least twice as long that is no match as a whole, ...
UNSURE = 0.2  # ... or one with more bit errors than this, ...
PIECES_RATE = 0.1  # ... which may bring so much of the false-positive rate more
# windows of a long query, for recordings of less than one and a half of its windows
JINGLE_SECONDS = 2.0
NEIGHBOURS = 16  # of each window
FEW_CODES = 16  # of a window: as a variant, too, it is searched exactly, since a part says little
MOST_PLACES = 1_024  # of each window, where every place is asked for
ANYWHERE = 61  # codes between those that say what is usual
MANY_CODES = 2**20  # of a collection: less is searched sooner than a thread is begun
BETWEEN = 0.03  # of the low quantile, by which a clip that begins between two codes differs
REACH_SECONDS = 3.0  # of a query that has no match, and may be too short to have one
CERTAIN = 30.0  # score of what has all codes of a recording: probabilities stop there
SURE = 4.0  # score of a match of the query as it is beside which no variant is asked
CANDIDATE_RATE = 0.1  # windows no more unlikely than this take part in a match of several
GAP_SECONDS = 15.0  # between two windows of one match
SAME_SECONDS = 0.3  # between alignments that are one place
AGREE_SECONDS = 0.26  # between alignments of two windows of one match; or a hop, where that is more
ALIGNMENTS = 64  # of a group that are compared all along, at most
PLACES = 64  # of a recording, that a hit is compared with
# where a tenth of them are nearer than this share of the median distance, it repeats itself (music
# does from 0.23 on), and a hit has to be as much nearer
REPEATED = 0.2
# a hit is nearer than the median of them by more than so many times the spread above it, ...
OUT = 3.0
FEW_PLACES = 16  # ... or than its own codes in other orders, where there are fewer


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
    score: float  # -log10 of the probability that an absent query matches as well
    artist: str = ""
    pitch: float = 0.0  # semitones by which the query lies above the recording
    tempo: float = 1.0  # times as fast as the recording
    work: str = ""  # of the recording, where the index knows it

    def __repr__(self) -> str:
        facts = (
            f"{self.recording} {self.title or self.path!r}: {self.start:.2f}-{self.end:.2f} s "
            f"from {self.offset:.2f} s on",
            f"{self.bit_error_rate:.1%} of bits differ",
            f"score {self.score:.1f}",
            compare.played(self.pitch, self.tempo),
        )
        return f"Match({', '.join(filter(None, facts))})"


class Survey(NamedTuple):
    """What was found, and what nearly was."""

    matches: list[Match]
    misses: list[Match]  # the nearest that are no match, best first
    needed: float  # score from which on something is a match
    reach: float | None = None  # of a short query without a match: ``Searcher.reach`` of its length


class Along(NamedTuple):
    """A query beside a recording, at a known place."""

    start: float  # s of the query: where what agrees begins, ...
    end: float  # ... and ends
    bit_error_rate: float  # of it
    usual: float  # of codes of the two anywhere


class _Query(NamedTuple):
    """A query, and the windows that it is searched as."""

    codes: list[np.ndarray]  # uint32 (codes, words) at each shift, or 3 words where weighted
    length: int  # codes of a window
    begins: np.ndarray  # int64 (windows,): the first code of each
    null: calibration.NullDistribution  # of windows of this length
    limit: float  # nearness of what takes part

    variant: Variant  # as which it is asked

    def windows(self, which: np.ndarray, shift: int) -> np.ndarray:
        """Codes of some windows at a shift: uint32 (windows, length, words)."""
        return self.codes[shift][self.begins[which, None] + np.arange(self.length)[None]]


class _Hits(NamedTuple):
    """Windows that are near enough, (hits,) each."""

    window: np.ndarray  # of the query
    shift: np.ndarray
    recording: np.ndarray
    row: np.ndarray  # position of the reference's window in its recording
    distance: np.ndarray
    low: np.ndarray  # a low quantile of the distances of the query's window to any window
    chance: np.ndarray  # log10 of the probability of so near a window


class _Alignment(NamedTuple):
    """A query along a recording: code i at a shift beside code i + lag of the recording."""

    shift: int
    lag: int
    first: int  # codes of the query that match
    last: int
    different: np.ndarray  # int64 (codes,): bits that differ, from code ``low`` on
    low: int  # the first code of the query that has one beside it
    gain: float  # bits that the matching codes are nearer than half-way to what does not match


@dataclass(eq=False)
class Searcher:
    """An index in memory, ready to answer. Made by ``open_searcher``.

    Equal queries have equal answers: what is kept between two of them is what any of them would
    compute.
    """

    hasher: Hasher
    rows: list[Row]
    collection: Collection
    false_positive_rate: float = FALSE_POSITIVE_RATE
    shifts: int | None = None  # of a query inside one hop; the hasher's own where None
    mesh: Mesh | None = None  # devices that the codes are spread over; the default one where None
    variants: bool = True  # ask as transposed and at other tempi what is not found as it is
    weighted: bool = True  # weigh the bits of the query, where its hasher can
    channel: str = "first"  # that the index was made of
    styles: bool = False  # also what has no more than a recording's style
    everywhere: bool = False  # every place of a clip, also where it repeats itself

    def identify_file(self, path: str | os.PathLike[str], **reading: Any) -> list[Match]:
        """Matches of an audio file, best first; none where it is not there.

        Args and errors are those of ``read``.
        """
        return self._identify(self.read(path, **reading))

    def read(
        self,
        path: str | os.PathLike[str],
        *,
        channel: str | None = None,
        strict: bool = False,
        report: Callable[[audio.Flaw], None] = audio.warn,
        read: Callable[..., Iterator[np.ndarray]] = audio.blocks,
    ) -> Iterator[np.ndarray]:
        """Samples of an audio file in blocks, float32 (any,), as its hasher takes them.

        Args:
          path: the file.
          channel: as ``audio.blocks`` takes it; None, the index's.
          strict: a damaged file is an error, and not used as far as it goes.
          report: is told what is wrong with a file that is used.
          read: what reads it; ``decode.Reader.blocks`` survives a file that crashes its decoder.

        Raises:
          AudioError: the file cannot be read as audio, or is shorter than a segment.
        """
        return read(
            path,
            sample_rate=self.hasher.sample_rate,
            minimum_seconds=self.hasher.shortest_seconds,
            channel=channel or self.channel,
            strict=strict,
            report=report,
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
        heard = Heard([check_samples(samples)], self.hasher.sample_rate)
        return self._answer(self._views(heard), heard, everything=True)

    def survey(self, blocks: Iterable[np.ndarray], *, misses: int = 3) -> Survey:
        """``identify_blocks``, what comes nearest to a match without being one, and whether there
        could have been one.

        Args:
          blocks: float32 (any,) samples in order.
          misses: of these, at most.
        """
        heard = Heard(blocks, self.hasher.sample_rate)
        first, again = itertools.tee(self._views(heard))
        matches = self._answer(first, heard)
        short = not matches and heard.seconds < REACH_SECONDS and len(self.collection.words) > 0
        reach = self.reach(heard.seconds) if short else None
        if not misses:
            return Survey(matches, [], 0.0, reach)
        lenient = copy.copy(self)  # with what it holds
        lenient.styles = True
        near = lenient._answer(again, heard, everything=True)
        rate = self.hasher.code_rate
        begins = windows.cut(round(heard.seconds * rate), rate)[1]
        needed = math.log10(max(1, len(begins))) - math.log10(self.false_positive_rate)
        others = [
            miss
            for miss in near
            if miss.score < needed and not any(_same_place(miss, match) for match in matches)
        ]
        return Survey(matches, without_repeats(others)[:misses], needed, reach)

    def reach(self, seconds: float) -> float:
        """Share of clips of so many seconds, out of the index and unchanged but for where they
        begin, that are answered: as far as codes tell, without weights of their bits.
        """
        rate = self.hasher.code_rate
        count = math.floor((seconds - self.hasher.segment_seconds) * rate + 1e-6) + 1
        if count < 1 or seconds < self.hasher.shortest_seconds:
            return 0.0
        if count not in self._reaches:
            self._reaches[count] = self._reach(count)
        return self._reaches[count]

    @functools.cached_property
    def _reaches(self) -> dict[int, float]:
        """Those that were asked for, by their codes."""
        return {}

    def _reach(self, count: int) -> float:
        """``reach`` of clips of so many codes."""
        length, begins = windows.cut(count, self.hasher.code_rate)
        if (null := self._null(length, self._shifts)) is None:
            return 0.0
        clips = null.sample[: 2 * calibration.TRIALS]
        usual = calibration.typical(null.sample, clips, many_bits=self.hasher.many_bits)
        near = calibration.nearness(BETWEEN * usual.low, usual, null)
        chance = calibration.log_probability(null, near)
        return float((chance <= math.log10(self.false_positive_rate / len(begins))).mean())

    def along(self, samples: np.ndarray, recording: int, offset: float) -> Along | None:
        """Samples beside a recording, by its id, of which ``offset`` s sound as they begin: the
        stretch whose codes are nearer than half-way to what codes of the two differ by anyway.
        None where no code lies beside another, or none is as near.
        """
        words = self._words(int(np.searchsorted(self.collection.ids, recording)))
        rate, best = self.hasher.code_rate, None
        for shift, codes in enumerate(self.hasher.hash_shifts([samples], shifts=self.shifts)):
            later = shift / (rate * self._shifts)
            nearest = round((offset + later) * rate)
            for lag in (nearest - 1, nearest, nearest + 1):
                low, high = max(0, -lag), min(len(codes), len(words) - lag)
                if high <= low:
                    continue
                there = words[low + lag : high + lag]
                different = hamming.code_distances(codes[low:high], there)
                if best is None or different.mean() < best[0].mean():
                    anywhere = words[(np.arange(low, high) * ANYWHERE + lag) % len(words)]
                    usual = float(hamming.code_distances(codes[low:high], anywhere).mean())
                    best = different, usual, low, later
        if best is None:
            return None
        different, usual, low, later = best
        between = (np.quantile(different, 0.25) + usual) / 2
        first, last = windows.most(between - different)
        if last == first:
            return None
        errors = float(different[first:last].mean() / self.hasher.bits)
        end = (low + last - 1) / rate + later + self.hasher.segment_seconds
        return Along((low + first) / rate + later, end, errors, usual / self.hasher.bits)

    def _identify(self, blocks: Iterable[np.ndarray]) -> list[Match]:
        heard = Heard(blocks, self.hasher.sample_rate)
        return self._answer(self._views(heard), heard)

    def _views(self, heard: "Heard") -> Iterator[tuple[Variant, list[np.ndarray]]]:
        return self.hasher.views(heard, shifts=self.shifts, weighted=self.weighted)

    def _answer(
        self,
        views: Iterator[tuple[Variant, list[np.ndarray]]],
        heard: "Heard",
        *,
        everything: bool = False,
    ) -> list[Match]:
        """Matches of a query's views, best first."""
        variant, codes = next(views)  # as it is
        if not self.variants:
            variant = AS_IS
        if not len(self.collection.words):
            return []
        as_it_is = min(len(shift) for shift in codes)
        whole = [] if everything else self._wholes(codes[0])
        matches = self._matches_of(codes, variant, as_it_is, everything=everything)
        enough = SURE if everything else -math.inf
        if self.variants and not any(match.score >= enough for match in [*whole, *matches]):
            # All of them: beside the right one, others are near too.
            over = parallel.map_all if len(self.collection.words) >= MANY_CODES else map
            asked = over(
                lambda view: self._matches_of(view[1], view[0], as_it_is, everything=everything),
                list(views),
            )
            matches += itertools.chain.from_iterable(asked)
        scores = [(match.recording, match.score) for match in matches]
        whole = [
            one._replace(score=max([one.score, *(s for r, s in scores if r == one.recording)]))
            for one in whole
        ]
        matches = [*whole, *sorted(matches, key=rank)]
        matches = [match._replace(end=min(match.end, heard.seconds)) for match in matches]
        matches = without_repeats(matches, _same_place if self.everywhere else _half_the_same)
        return sorted(matches, key=rank)

    def _wholes(self, codes: np.ndarray) -> list[Match]:
        """Recordings that have the codes of the query, all of them and no others: it is a copy,
        also where it is so steady that its windows tell nothing.
        """
        starts, words = self.collection.starts, self.collection.words
        same = np.flatnonzero(np.diff(starts) == len(codes))
        codes = codes[:, : words.shape[1]]
        end = (len(codes) - 1) / self.hasher.code_rate + self.hasher.segment_seconds
        found = list[Match]()
        for i in same.tolist():
            row = self.rows[i]
            if np.array_equal(self._words(i), codes):
                whole = (0.0, end, 0.0, 0, 0.0, CERTAIN, row.artist)
                found.append(Match(row.id, row.path, row.title, *whole, work=row.work))
        return found

    def _matches_of(
        self, codes: list[np.ndarray], variant: Variant, as_it_is: int, *, everything: bool
    ) -> list[Match]:
        """Matches of a query as one variant: its codes at each shift.

        Another tempo makes a few codes more or less, and nearness is of the same distribution as
        that of the ``as_it_is`` codes that the query has: it is not estimated anew.
        """
        count, code_rate = min(len(shift) for shift in codes), self.hasher.code_rate
        rate = 1.0 if everything else self.false_positive_rate
        usual = windows.cut(as_it_is, code_rate)[0]
        one = usual == as_it_is
        length = count if one else usual
        begins, null = windows.begins_of(count, length), self._null(usual, len(codes))
        if null is not None and null.sample.shape[1] != length:
            null = calibration.of_length(
                null, self.collection.words, self.collection.starts, length
            )
        matches = self._matches(codes, length, begins, rate, null, variant)
        room = int(np.median(np.diff(self.collection.starts))) - len(codes) + 1
        piece = min(windows.codes_in(PIECE_SECONDS, code_rate), room)
        again = (one and 2 * piece <= count) or null is None
        unsure = all(match.bit_error_rate > UNSURE for match in matches)
        rest = rate * PIECES_RATE
        if unsure and again and 0 < piece < count and not everything:
            begins, null = windows.begins_of(count, piece), self._null(piece, len(codes))
            matches += self._matches(codes, piece, begins, rest, null, variant)
        elif len(begins) > 1 and not everything and (short := self._short):
            # Recordings so short that a window may not lie in them, judged as all are.
            jingle = windows.codes_in(JINGLE_SECONDS, code_rate)
            null, begins = self._null(jingle, len(codes)), windows.begins_of(count, jingle)
            share = len(short.collection.words) / len(self.collection.words)
            null = null and null._replace(copies=null.copies * share)
            matches += short._matches(codes, jingle, begins, rest, null, variant)
        return matches

    def _matches(
        self,
        codes: list[np.ndarray],
        length: int,
        begins: np.ndarray,
        rate: float,
        null: calibration.NullDistribution | None,
        variant: Variant = AS_IS,
    ) -> list[Match]:
        """Matches of windows that begin at some codes; absent queries have one at a rate.

        Args:
          codes: uint32 (codes, words) of the query, at each shift.
          length: codes of a window.
          begins: int64 (windows,).
          rate: of absent queries that have a match; 1, all that is near.
          null: of windows of this length; None where no recording is as long.
          variant: as which it is asked; it has its prior's share of the rate.
        """
        if null is None:
            return []
        rate = rate if rate >= 1 else rate * variant.prior / len(begins)
        largest = calibration.largest(null, rate if len(begins) == 1 else max(rate, CANDIDATE_RATE))
        if rate >= 1:  # all that is near, and of a variant what is nearer than most absent queries
            largest = calibration.largest(null, 1.0) if variant.changed else np.inf
        query = _Query(codes, length, begins, null, largest, variant)
        hits, typical = self._hits(query)
        matches = [
            match
            for group in _groups(hits, begins, self._shifts, self.hasher.code_rate)
            if (match := self._match(query, hits, group, typical))
        ]
        prior = np.log10(variant.prior)
        return [match for match in matches if prior - match.score <= np.log10(rate)]

    @property
    def _shifts(self) -> int:
        return self.shifts or self.hasher.shifts

    @functools.cached_property
    def _database(self) -> planar.Database:
        return planar.build(self.collection.words, self.collection.starts, mesh=self.mesh)

    @functools.cached_property
    def _short(self) -> "Searcher | None":
        """The recordings that are so short that a window of a long query may not lie in them; None
        where none is.
        """
        starts, rate = self.collection.starts, self.hasher.code_rate
        window = windows.codes_in(windows.WINDOW_SECONDS, rate)
        chosen = np.flatnonzero(np.diff(starts) < window + window // 2 - 1)
        if len(chosen) in (0, len(self.rows)):
            return self if len(chosen) else None
        rows, collection = [self.rows[i] for i in chosen], self.collection.subset(chosen)
        return replace(self, rows=rows, collection=collection)

    @functools.cached_property
    def _nulls(self) -> dict[tuple[int, int], calibration.NullDistribution | None]:
        """Those that were asked for."""
        return {}

    def _null(self, length: int, shifts: int) -> calibration.NullDistribution | None:
        """What is near by accident, for windows of so many codes at so many shifts."""
        if (length, shifts) not in self._nulls:
            self._nulls[length, shifts] = calibration.estimate(
                self.collection.words,
                self.collection.starts,
                np.array([row.work or row.digest or str(row.id) for row in self.rows]),
                n=length,
                tries=shifts,
                code_rate=self.hasher.code_rate,
                many_bits=self.hasher.many_bits,
            )
        return self._nulls[length, shifts]

    def _hits(self, query: _Query) -> tuple[_Hits, calibration.Typical]:
        """The windows of all shifts with their neighbours that are near enough; and what their
        distances to anything are, (windows, shifts) each.
        """
        parts, shifts = list[_Hits](), len(query.codes)
        typicals = calibration.Typical(*np.zeros((4, len(query.begins), shifts)))
        for low in range(0, len(query.begins), 64):
            some = np.arange(len(query.begins))[low : low + 64]
            each = np.stack([query.windows(some, shift) for shift in range(shifts)], axis=1)
            asked = each.reshape(-1, *each.shape[2:])
            rough = query.variant.changed and query.length > FEW_CODES
            near_rows = self._likely if rough else self._nearest
            sample, many_bits = query.null.sample, self.hasher.many_bits
            typical = calibration.typical(sample, asked, many_bits=many_bits)
            for field, values in zip(typicals, typical, strict=True):
                field[some] = values.reshape(-1, shifts)
            count = NEIGHBOURS
            found = near_rows(each, count)
            nearness = calibration.nearness(found.distance, typical, query.null)
            while self.everywhere and np.isfinite(query.limit):
                left = (nearness[:, -1] <= query.limit) & (found.row[:, -1] >= 0)
                if count >= MOST_PLACES or not left.any():
                    break
                count *= 8  # all that are near enough
                found = near_rows(each, count)
                nearness = calibration.nearness(found.distance, typical, query.null)
            near, rank = np.nonzero((nearness <= query.limit) & (found.row >= 0))
            window, shift = low + near // shifts, near % shifts
            row, distance = found.row[near, rank], found.distance[near, rank]
            recording, place = planar.locate(self.collection.starts, row)
            chance = calibration.log_probability(query.null, nearness[near, rank])
            hits = _Hits(window, shift, recording, place, distance, typical.low[near], chance)
            kept = self._tell(query, typicals, hits)
            parts.append(_Hits(*(value[kept] for value in hits)))
        return _Hits(*(np.concatenate(part) for part in zip(*parts, strict=True))), typicals

    def _nearest(self, asked: np.ndarray, count: int) -> hamming.Neighbours:
        """The nearest rows of windows at each shift, uint32 (windows, shifts, length, words)."""
        return hamming.search(self._database, asked.reshape(-1, *asked.shape[2:]), count)

    def _likely(self, asked: np.ndarray, count: int) -> hamming.Neighbours:
        """``_nearest`` of a variant, for a fifth of its cost: rows that are likely the nearest at
        the first shift, and at each other shift the nearest of those and the ones after them.

        A query has ten variants, and all of them are asked where it is not in the index.
        """
        first = hamming.likely(self._database, asked[:, 0], count)
        rows = np.sort(np.concatenate([first.row, first.row + (first.row >= 0)], axis=1), axis=1)
        length, starts = asked.shape[2], self.collection.starts
        there = (rows >= 0) & (rows + length <= starts[planar.locate(starts, rows)[0] + 1])
        there[:, 1:] &= rows[:, 1:] > rows[:, :-1]  # each once
        beside = self.collection.words[np.where(there, rows, 0)[..., None] + np.arange(length)]
        found = [first]
        for shift in range(1, asked.shape[1]):
            distance = hamming.code_distances(asked[:, shift, None], beside).sum(axis=2)
            distance = np.where(there, distance, hamming.NOWHERE)
            order = np.argsort(distance, axis=1, kind="stable")[:, :count]
            near, row = (np.take_along_axis(each, order, axis=1) for each in (distance, rows))
            row = np.where(near < hamming.NOWHERE, row, -1)
            found.append(hamming.Neighbours(near, row, first.exact))
        joined = (np.stack(values, axis=1) for values in zip(*found, strict=True))
        return hamming.Neighbours(*(each.reshape(-1, *each.shape[2:]) for each in joined))

    def _tell(self, query: _Query, typicals: calibration.Typical, hits: _Hits) -> np.ndarray:
        """Which hits tell one place of their recording from others, bool (hits,): those that are no
        silence or held tone, nor a timbre, nor a rhythm that repeats itself so nearly that any
        other like it is as near.
        """
        if not len(hits.row):
            return np.zeros(0, bool)
        longer = max(0, math.ceil(self.hasher.segment_seconds) - 1)
        near = np.array(calibration.ELSEWHERE) + np.copysign(longer, calibration.ELSEWHERE)
        near = np.rint(near * self.hasher.code_rate).astype(np.int64)[:, None]
        around = hits.row + near
        # Less than half: one side may be silent.
        beside = _quantile(self._distances(query, *hits[:3], around, around >= 0), 0.4)
        steady = calibration.is_steady(beside, hits.distance, hits.low)
        # A rhythm may be near to itself at another shift than that of the hit.
        medians = typicals.median
        nearness = hits.distance / medians[hits.window, hits.shift]
        pairs = np.stack([hits.window, hits.recording])
        pairs, which = np.unique(pairs, axis=1, return_inverse=True)
        best = np.zeros(len(pairs[0]), np.int64)  # the nearest hit of each
        order = np.argsort(-nearness, kind="stable")
        best[which[order]] = order
        room = np.diff(self.collection.starts)[pairs[1]] - query.length + 1
        # Evenly over the recording, but at no period.
        share = np.arange(1, PLACES + 1)[:, None] * (math.sqrt(5) - 1) / 2 % 1
        places, least = (share * room).astype(np.int64), int(np.abs(near).min())
        apart = np.abs(places - hits.row[best]) >= least
        anywhere, timbre = np.full(len(best), np.inf), np.zeros(len(which), bool)
        for shift in range(len(query.codes)):
            shifts = np.full(len(best), shift)
            distances = self._distances(query, pairs[0], shifts, pairs[1], places, apart)
            anywhere = np.minimum(anywhere, _quantile(distances, 0.1) / medians[pairs[0], shift])
            if not self.hasher.many_bits:
                continue
            for i in np.flatnonzero(np.isfinite(distances).sum(axis=0) < FEW_PLACES):
                place = pairs[1, i], hits.row[best[i]]
                distances[:, i] = self._turned(query, pairs[0, i], shift, *place, least)
            usual, above = _quantile(distances, 0.5)[which], _quantile(distances, 0.84)[which]
            nearer = hits.distance < usual - OUT * np.maximum(above - usual, 1.0)
            same = (hits.shift == shift) & (hits.distance >= calibration.PLAIN * usual)
            timbre |= same & ~nearer
        repeated = (anywhere < REPEATED)[which] & (nearness > calibration.PLAIN * anywhere[which])
        return ~steady & ~repeated & ~timbre

    def _distances(
        self,
        query: _Query,
        window: np.ndarray,
        shift: np.ndarray,
        recording: np.ndarray,
        places: np.ndarray,
        valid: np.ndarray,
    ) -> np.ndarray:
        """Distances of a query's windows to places in recordings: float64 (places, hits).

        Args:
          window, shift, recording: (hits,).
          places: int64 (places, hits), in the recording.
          valid: bool (places, hits): the others are NaN, as is what is past the end.
        """
        starts, codes = self.collection.starts, np.arange(query.length)
        valid = valid & (places + starts[recording] + query.length <= starts[recording + 1])
        asked = np.stack([code[: len(query.codes[-1])] for code in query.codes])
        asked = asked[shift[:, None], query.begins[window, None] + codes]
        distances = np.full(places.shape, np.nan)
        place, hit = np.nonzero(valid)
        step = max(1, windows.COMPARED // (query.length * asked.shape[2]))
        for low in range(0, len(place), step):
            some = place[low : low + step], hit[low : low + step]
            there = starts[recording[some[1]]] + places[some]
            beside = self.collection.words[there[:, None] + codes]
            distances[some] = hamming.code_distances(asked[some[1]], beside).sum(axis=1)
        return distances

    def _turned(
        self, query: _Query, window: int, shift: int, recording: int, row: int, least: int
    ) -> np.ndarray:
        """Distances of a window to the codes of a place in other orders, which begin later (by
        ``least`` or more, where there are so many) and end with the first ones: float64 (PLACES,).
        """
        length, codes = query.length, np.arange(query.length)
        least = min(least, length // 4)
        later = np.linspace(least, length - least, PLACES).astype(np.int64)
        turned = self._words(recording)[row + (codes + later[:, None]) % length]
        asked = query.codes[shift][query.begins[window] + codes]
        return hamming.code_distances(asked[None], turned).sum(axis=1).astype(np.float64)

    def _match(
        self, query: _Query, hits: _Hits, group: np.ndarray, typical: calibration.Typical
    ) -> Match | None:
        """The match of some hits, which agree: at that of their alignments where it is nearest;
        None where the query has no more than the recording's style.
        """
        recording, lag = int(hits.recording[group[0]]), hits.row - query.begins[hits.window]
        pairs = np.stack([hits.shift[group], lag[group]])
        pairs, which = np.unique(pairs, axis=1, return_inverse=True)
        chance, nearest = np.zeros(len(pairs[0])), np.full(len(pairs[0]), np.inf)
        np.add.at(chance, which, hits.chance[group])
        np.minimum.at(nearest, which, hits.distance[group])
        promising = np.lexsort((nearest, chance))[:ALIGNMENTS]
        alignments = [self._align(query, hits, group, *pairs[:, i].tolist()) for i in promising]
        best = max(alignments, key=lambda alignment: alignment.gain)
        chances = np.zeros(len(query.begins))
        if len(chances) > 1:  # an only window is among the hits
            chances = self._chances(query, typical, recording, best)
        np.minimum.at(chances, hits.window[group], hits.chance[group])
        first, last = best.first, best.last
        words = self.collection.words.shape[1]  # bits are counted, whatever they weigh
        bits, there = query.codes[best.shift][first:last, :words], self._words(recording)
        distances = hamming.code_distances(bits, there[first + best.lag : last + best.lag])
        distance = int(distances.sum())
        row, code_rate = self.rows[recording], self.hasher.code_rate
        if self.hasher.many_bits and not self.styles:
            place, count = first + best.lag, self.hasher.bits
            if not windows.is_copy(bits, there, place, code_rate=code_rate, bits=count):
                return None
        tempo = query.variant.tempo  # seconds of the recording in one of the query
        later = best.shift / (code_rate * self._shifts)  # s
        return Match(
            recording=row.id,
            path=row.path,
            title=row.title,
            start=float((first / code_rate + later) / tempo),
            end=float(((last - 1) / code_rate + later + self.hasher.segment_seconds) / tempo),
            offset=float((first + best.lag) / code_rate),
            distance=distance,
            bit_error_rate=float(distance / (self.hasher.bits * (last - first))),
            score=math.log10(query.variant.prior)
            - windows.evidence(chances, query.begins, query.length),
            artist=row.artist,
            pitch=query.variant.pitch,
            tempo=tempo,
            work=row.work,
        )

    def _align(
        self, query: _Query, hits: _Hits, group: np.ndarray, shift: int, lag: int
    ) -> _Alignment:
        """A query all along a recording, near to which some hits place it."""
        best = group[np.lexsort((hits.distance[group], hits.chance[group]))[0]]
        codes, reference = query.codes[shift], self._words(int(hits.recording[best]))
        low, high = max(0, -lag), min(len(codes), len(reference) - lag)
        different = hamming.code_distances(codes[low:high], reference[low + lag : high + lag])
        begins = query.begins[hits.window[group]]
        first, last = max(begins.min(), low), min(begins.max() + query.length, high)
        # Of a code, half-way between what matches and what does not; digital silence has no weight
        # and is as near to anything, so it says nothing, and nothing begins or ends in it.
        between = (hits.distance[best] + hits.low[best]) / (2 * query.length)
        weights = codes[low:high, reference.shape[1] :]
        heard: np.ndarray = weights.any(axis=1) | (weights.shape[1] == 0)
        gains = np.where(heard, between - different, 0.0)
        if len(query.begins) > 1:
            first, last = windows.extent(gains, first - low, last - low) + low
        if len(sounding := np.flatnonzero(heard[first - low : last - low])):
            first, last = first + sounding[0], first + sounding[-1] + 1
        gain = float(gains[first - low : last - low].sum())
        return _Alignment(shift, lag, int(first), int(last), different, low, gain)

    def _chances(
        self, query: _Query, typicals: calibration.Typical, recording: int, along: _Alignment
    ) -> np.ndarray:
        """log10 of the probability of each of the query's windows where an alignment places it,
        (windows,): 0 where it is not near enough. Not all of them need be among the neighbours of
        the query: what repeats has more places than are asked for.
        """
        begin, end = query.begins - along.low, query.begins - along.low + query.length
        inside = np.flatnonzero((begin >= 0) & (end <= len(along.different)))
        before = np.append(0, np.cumsum(along.different))
        distance = before[end[inside]] - before[begin[inside]]
        typical = calibration.Typical(*(values[inside, along.shift] for values in typicals))
        nearness = calibration.nearness(distance, typical, query.null)
        near = nearness <= query.limit
        inside, distance, low = inside[near], distance[near], typical.low[near]
        hits = _Hits(
            inside,
            np.full(len(inside), along.shift),
            np.full(len(inside), recording),
            query.begins[inside] + along.lag,
            distance,
            low,
            calibration.log_probability(query.null, nearness[near]),
        )
        kept = self._tell(query, typicals, hits)
        chances = np.zeros(len(query.begins))
        chances[inside[kept]] = hits.chance[kept]
        return chances

    def _words(self, recording: int) -> np.ndarray:
        """Codes of a recording, by its place in the collection."""
        return self.collection.words[slice(*self.collection.starts[recording : recording + 2])]


# ------------------------------------------------------------------------------- windows to matches


def _quantile(distances: np.ndarray, share: float) -> np.ndarray:
    """A quantile of distances (places, hits), NaN where there is none: float64 (hits,), inf where
    no place has any.
    """
    some = np.where(np.isfinite(distances).any(axis=0), distances, np.inf)
    return np.nanquantile(some, share, axis=0, method="lower")


def _groups(hits: _Hits, begins: np.ndarray, shifts: int, code_rate: float) -> list[np.ndarray]:
    """Hits that agree: one recording, one alignment to about a hop, no long gap in the query;
    indices of each group.
    """
    if not len(hits.window):
        return []
    begin = begins[hits.window]
    lag = hits.row - begin - hits.shift / shifts  # codes from the query to the reference
    parts = []
    agree = max(AGREE_SECONDS * code_rate, 1.04)
    for group in windows.split(np.lexsort((lag, hits.recording)), hits.recording, lag, agree):
        in_time = group[np.argsort(begin[group], kind="stable")]
        parts += windows.split(in_time, hits.recording, begin, GAP_SECONDS * code_rate)
    return parts


def rank(match: Match) -> tuple[float, float, float]:
    """Sorts matches, best first: by score, then errors, then the longer one."""
    return -match.score, match.bit_error_rate, match.start - match.end


def _half_the_same(one: Match, other: Match) -> bool:
    """Whether two matches share more than half of the shorter one: a chorus is found at each place.
    Less than half is the end of one match and the beginning of the next, which are known to about
    a second.
    """
    shorter = min(one.end - one.start, other.end - other.start)
    return one.recording == other.recording and 2 * _overlap(one, other) > shorter


def _same_place(one: Match, other: Match) -> bool:
    """Whether two matches that share a time also lie at one place of the recording."""
    shift = (one.offset - one.start * one.tempo) - (other.offset - other.start * other.tempo)
    return _half_the_same(one, other) and abs(shift) < SAME_SECONDS


def without_repeats(
    matches: list[Match], repeats: Callable[[Match, Match], bool] = _half_the_same
) -> list[Match]:
    """Leaves out what repeats an earlier (better) match of the same recording."""
    kept: list[Match] = []
    for match in matches:
        if not any(repeats(match, other) for other in kept):
            kept.append(match)
    return kept


class Heard:
    """Blocks of samples, and how many seconds of them went by."""

    def __init__(self, blocks: Iterable[np.ndarray], sample_rate: int):
        self._blocks, self._sample_rate = blocks, sample_rate
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.seconds += len(block) / self._sample_rate
            yield block


def _overlap(one: Match, other: Match) -> float:
    """Seconds of the query that two matches share; negative where they are apart."""
    return min(one.end, other.end) - max(one.start, other.start)
