"""An index of works (``cover_codes``): a query is asked for other versions of it. All that
``searcher`` says of windows is said of lines here (``covers``); the scores mean the same.
"""

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqhash import cover_codes
from seqhash.codes import check_samples
from seqhash.cover_codes import CoverHasher
from seqhash.index import calibration, covers, windows
from seqhash.index.searcher import CERTAIN, Match, Searcher, Survey, rank, without_repeats

REACH_CLIPS = 8  # that say what clips an index answers


class _Scored(NamedTuple):
    """A stretch of a recording that a piece of a query may be a version of."""

    stretch: int  # of ``WorkSearcher._stretches``
    score: float
    rotation: int
    line: covers.Line


@dataclass(eq=False)
class WorkSearcher(Searcher):
    """A ``Searcher`` of versions, for a hasher of works."""

    hasher: CoverHasher

    def candidates(self, samples: np.ndarray) -> list[Match]:
        """As ``identify``, but with all that is near, however likely it is by accident."""
        return self._versions(self.hasher.frames_of([check_samples(samples)]), everything=True)

    def survey(self, blocks: Iterable[np.ndarray], *, misses: int = 3) -> Survey:
        """``identify_blocks``, and what comes nearest to a match without being one."""
        if not misses:
            return Survey(self._identify(blocks), [], 0.0)
        every = self._versions(self.hasher.frames_of(blocks), everything=True)
        needed = -math.log10(self.false_positive_rate)
        found = [match for match in every if match.score >= needed]
        return Survey(found, every[len(found) :][:misses], needed)

    def _identify(self, blocks: Iterable[np.ndarray]) -> list[Match]:
        return self._versions(self.hasher.frames_of(blocks))

    def _versions(self, frames: np.ndarray, *, everything: bool = False) -> list[Match]:
        """Recordings of which a query is another version, best first; with ``everything`` also
        those that are near by accident.

        Args:
          frames: of the query, as its hasher has them.
        """
        states = self.hasher.states_of(frames)
        if not len(states):
            self.hasher.hash_query(frames)  # says how long it must be
        weights, turned = self._asked(states, weighted=self.weighted)
        matches = self._wholes(turned[0])
        pieces = covers.pieces(len(states), self.hasher.code_rate)
        least = 0.0 if everything else -math.log10(self.false_positive_rate)
        for low, high in pieces:
            piece = [one[low:high] for one in turned]
            for scored in self._scored(weights[:, low:high], piece, len(pieces)):
                if scored.score >= max(least, 1e-9):
                    matches.append(self._version(scored, piece, low))
        return without_repeats(sorted(matches, key=rank))

    def _asked(self, states: np.ndarray, *, weighted: bool) -> tuple[np.ndarray, list[np.ndarray]]:
        """A query in twelve keys: its weights, int8 (rotations, codes, bits), and its words, uint32
        (codes, words) of each rotation.
        """
        weights = cover_codes.asked(states, weighted=weighted)[..., : self.hasher.ring]
        turned = (cover_codes.turned(states, rotation) for rotation in range(len(weights)))
        return weights, [cover_codes.words_of(one) for one in turned]

    def _scored(
        self, weights: np.ndarray, turned: list[np.ndarray], pieces: int
    ) -> Iterator[_Scored]:
        """Stretches of the collection with their scores.

        Args:
          weights: int8 (rotations, codes, bits), signs times weights.
          turned: uint32 (codes, words), of each rotation.
          pieces: that the query is asked as.
        """
        parts, starts, rate = self._stretches, self.collection.starts, self.hasher.code_rate
        n, step = covers.shape(weights.shape[1], rate)
        if (np.diff(starts) < n).all():
            return
        count, rng = len(parts.begin), np.random.default_rng(n)
        drawn = np.arange(count)
        chosen = drawn
        if count > covers.EVERY:
            drawn = np.sort(rng.choice(count, covers.DRAWN, replace=False))
            length = windows.codes_in(covers.SEARCHED_SECONDS, rate)
            near = covers.nearest_stretches(
                self._database, parts, np.stack(turned), length=length, most=covers.DRAWN
            )
            chosen = np.union1d(drawn, near)
        drawn_words = calibration.draw_windows(
            self.collection.words, starts[:-1], starts[1:], n, covers.TYPICAL, rng
        )
        bits = weights.shape[2]
        sample = covers.signs(drawn_words.reshape(-1, drawn_words.shape[2]))[:, :bits]
        sample = sample.reshape(len(drawn_words), n, bits)
        signs = [covers.signs(self._stretch(i))[:, :bits] for i in chosen.tolist()]
        query = weights.astype(np.float32)
        weighed = covers.weigh(query, signs, sample, step=step)
        far = covers.standing_out(weighed, np.isin(chosen, drawn))
        scores = -covers.log_probability(far, count * pieces)
        for place in np.flatnonzero(scores > 0).tolist():
            rotation = int(weighed.rotation[place])
            along = covers.line(
                query[rotation],
                signs[place],
                sample,
                step=step,
                place=int(weighed.place[place]),
                tempo=float(weighed.tempo[place]),
            )
            yield _Scored(int(chosen[place]), min(CERTAIN, float(scores[place])), rotation, along)

    def _version(self, scored: _Scored, turned: list[np.ndarray], low: int) -> Match:
        """What is told of a stretch that was found, by a piece that begins at code ``low``."""
        parts, along, rate = self._stretches, scored.line, self.hasher.code_rate
        recording = int(parts.recording[scored.stretch])
        row, words = self.rows[recording], self._stretch(scored.stretch)
        distance, compared = covers.differing(turned[scored.rotation], words, along)
        before = int(parts.begin[scored.stretch] - self.collection.starts[recording])
        return Match(
            recording=row.id,
            path=row.path,
            title=row.title,
            start=(low + along.first) / rate,
            end=(low + along.last - 1) / rate + self.hasher.segment_seconds,
            offset=(before + along.place) / rate,
            distance=distance,
            bit_error_rate=distance / (self.hasher.bits * max(1, compared)),
            score=scored.score,
            artist=row.artist,
            pitch=float((scored.rotation + 5) % cover_codes.KEYS - 5),
            tempo=along.tempo,
            work=row.work,
        )

    def _reach(self, count: int) -> float:
        """By a few clips."""
        starts = self.collection.starts
        if (np.diff(starts) < count).all():
            return 0.0
        rng = np.random.default_rng(count)
        clips = calibration.draw_windows(
            self.collection.words, starts[:-1], starts[1:], count, REACH_CLIPS, rng
        )
        found = 0
        for clip in clips:
            asked = self._asked(covers.signs(clip)[:, : self.hasher.ring], weighted=False)
            best = max((one.score for one in self._scored(*asked, 1)), default=0.0)
            found += best >= -math.log10(self.false_positive_rate)
        return found / len(clips)

    @functools.cached_property
    def _stretches(self) -> covers.Stretches:
        return covers.stretches(self.collection.starts, self.hasher.code_rate)

    def _stretch(self, i: int) -> np.ndarray:
        """Codes of a stretch of a recording."""
        return self.collection.words[self._stretches.begin[i] : self._stretches.end[i]]
