"""Several indexes asked as one, and answers that name files that are there.

Each of n indexes is asked at 1 / n of the false-positive rate, and its scores are log10 n less, so
that together they answer as few absent queries as one index does. A recording that several of them
hold is answered once, by the best match.
"""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from seqhash.codes import Hasher
from seqhash.index import follow
from seqhash.index.catalogue import open_index
from seqhash.index.identify import Along, Match, Searcher, Survey, open_searcher


class Found(NamedTuple):
    """A match, and where its recording is."""

    match: Match  # its path is one that is there, where there is one
    source: str  # the index
    gone: bool  # there is no file of the recording any more

    def facts(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**self.match._asdict(), "index": self.source, "gone": self.gone}


class Answer(NamedTuple):
    """``identify.Survey`` of all indexes."""

    matches: list[Found]
    misses: list[Found]
    needed: float
    reach: float | None = None


@dataclass(frozen=True)
class Together:
    """Indexes in memory, by their paths. Made by ``open_together``."""

    searchers: dict[str, Searcher]

    def ask(self, question: Callable[[Searcher], Survey]) -> Answer:
        """What each index says to a question, best first."""
        surveys = {index: question(searcher) for index, searcher in self.searchers.items()}
        matches = self._sorted({index: survey.matches for index, survey in surveys.items()})
        misses = self._sorted({index: survey.misses for index, survey in surveys.items()})
        needed = max(survey.needed for survey in surveys.values())
        reaches = [survey.reach for survey in surveys.values() if survey.reach is not None]
        reach = None if matches else min(reaches, default=None)
        return Answer(matches, misses, needed - math.log10(len(surveys)), reach)

    def hear(self, samples: np.ndarray, *, variants: bool) -> list[Found]:
        """Matches of samples, float32 (samples,); ``variants``: also as transposed and at other
        tempi.
        """
        return self.ask(lambda searcher: _plain(searcher, samples, variants)).matches

    def along(self, samples: np.ndarray, found: Found, offset: float) -> Along | None:
        """Samples beside the recording of something found, from ``offset`` s of it on; None where
        they are no code of each other, or it was played otherwise.
        """
        if found.match.tempo != 1 or found.match.pitch:
            return None
        return self.searchers[found.source].along(samples, found.match.recording, offset)

    def at_rate(self, false_positive_rate: float) -> "Together":
        """The same, at another false-positive rate."""
        copies = {index: copy.copy(searcher) for index, searcher in self.searchers.items()}
        for searcher in copies.values():
            searcher.false_positive_rate = false_positive_rate / len(copies)
        return Together(copies)

    def _sorted(self, found: dict[str, list[Match]]) -> list[Found]:
        lower, held = math.log10(len(found)), dict[str, str]()
        every = [(index, match) for index, matches in found.items() for match in matches]
        kept = list[Found]()
        for index, match in sorted(every, key=lambda one: -one[1].score):
            digest = self._digests[index][match.recording]
            if held.setdefault(digest, index) == index:
                lowered = match._replace(score=max(0.0, match.score - lower))
                kept.append(_placed(index, lowered))
        return kept

    @functools.cached_property
    def _digests(self) -> dict[str, dict[int, str]]:
        return {
            index: {row.id: row.digest for row in searcher.rows}
            for index, searcher in self.searchers.items()
        }


def open_together(
    paths: Sequence[str],
    load: Callable[[str], Hasher],
    *,
    false_positive_rate: float,
    everywhere: bool = False,
) -> Together:
    """Loads indexes, each for answers by its own hasher.

    Args:
      paths: of indexes; one that is named twice counts once.
      load: the hasher of an index, by its path.
      false_positive_rate, everywhere: of ``open_searcher``, for all of them together.

    Raises:
      IndexFileError: an index cannot be read, or is another hasher's.
    """
    paths, hashers = list(dict.fromkeys(paths)), dict[str, Hasher]()
    searchers = dict[str, Searcher]()
    for path in paths:
        loaded = load(path)
        hasher = hashers.setdefault(loaded.digest, loaded)  # programs and weights are shared
        rate = false_positive_rate / len(paths)
        searchers[path] = open_searcher(
            path, hasher, false_positive_rate=rate, everywhere=everywhere
        )
    return Together(searchers)


def _plain(searcher: Searcher, samples: np.ndarray, variants: bool) -> Survey:
    """Matches alone."""
    if not variants and searcher.variants:
        searcher = copy.copy(searcher)  # with what it holds
        searcher.variants = False
    return Survey(searcher.identify(samples), [], 0.0)


def _placed(index: str, match: Match) -> Found:
    """A match with a path that is there, where its recording has one."""
    with open_index(index, readonly=True) as opened:
        try:
            places = opened.places(match.recording)
        except ValueError:  # removed or damaged meanwhile
            places = [match.path]
    there = next((place for place in places if not follow.is_gone(place)), None)
    return Found(match._replace(path=there or match.path), index, there is None)
