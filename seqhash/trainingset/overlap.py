"""What a training set and a test set share, by search (the same audio) and by title (the same
work).

The search is by landmarks (``baselines.wang``): between copies they agree at any level, in steady
noise too, and their scores leave a wide gap. Of 60 tracks of music against 40 others, six shared
audio; the six had scores of 8 to 940, the rest below 3.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqhash.robustness.baselines import wang

CONFIG = wang.WangConfig(shifts=2)  # copies need no more grids
SAMPLE_RATE = CONFIG.sample_rate  # Hz, of all samples here
CLIP_SECONDS = 10.0
CHANCE = 1e-3  # of a recording that shares nothing to be left out all the same, as the score says
ALIASES = (  # names of one tune
    ("turkey in the straw", "old zip coon"),
    ("brighton camp", "the girl i left behind me"),
    ("miss mcleods reel", "hop high ladies"),
    ("haste to the wedding", "rural felicity"),
    ("devil among the tailors", "devils dream"),
    ("flowers of edinburgh", "old virginia"),
    ("battle hymn of the republic", "john browns body"),
    ("ode to joy", "symphony no 9 choral"),
)
_EMPTY = {"the", "a", "an", "of", "in", "and", "no", "op", "reel", "jig", "theme", "music", "s"}


class Overlap(NamedTuple):
    """A recording that a test set holds as well."""

    id: str
    other: str  # id there
    why: str


def index(references: Iterable[np.ndarray]) -> wang.Landmarks:
    """The landmarks of a test set, float32 (samples,) of each recording, one after the other."""
    prints, frames = list[np.ndarray](), list[int]()
    for samples in references:
        prints.append(wang.fingerprint(samples, config=CONFIG))
        frames.append(len(samples) // CONFIG.frame_step + 1)
    return wang.from_fingerprints(prints, frames, config=CONFIG)


def by_search(
    landmarks: wang.Landmarks, names: Sequence[str], id: str, samples: np.ndarray
) -> list[Overlap]:
    """The recordings of a test set of which a recording holds a part; for each its surest clip.

    Args:
      landmarks: of ``index``.
      names: ids of the recordings in it, in order.
      id, samples: of the recording, float32 (samples,).
    """
    size = round(CLIP_SECONDS * SAMPLE_RATE)
    begins = range(0, max(1, len(samples) - size // 2), size)
    least = math.log10(len(begins) / CHANCE)
    surest: dict[int, tuple[float, str]] = {}
    answers = wang.identify(landmarks, [samples[i : i + size] for i in begins], all_candidates=True)
    for begin, matches in zip(begins, answers, strict=True):
        for match in matches:
            if match.score >= max(least, surest.get(match.recording, (0.0, ""))[0]):
                start = begin / SAMPLE_RATE + match.start
                why = (
                    f"{start:.1f} s sounds there at {match.offset:.1f} s (score {match.score:.0f})"
                )
                surest[match.recording] = match.score, why
    return [Overlap(id, names[recording], why) for recording, (_, why) in sorted(surest.items())]


def by_title(
    titles: Iterable[tuple[str, str]], others: Sequence[tuple[str, str]]
) -> Iterator[Overlap]:
    """Recordings whose title a recording of a test set has too, or has within its own; both are
    (id, title).
    """
    known = [(id, title, _names(title)) for id, title in others]
    for id, title in titles:
        mine = _names(title)
        for other, its, theirs in known:
            if any(_one_in_another(a, b) for a in mine for b in theirs):
                yield Overlap(id, other, f"title {title!r}, there {its!r}")


def _names(title: str) -> list[frozenset[str]]:
    """The words of a title, and of what else the tune is called."""
    plain = _plain(title)
    others = [name for names in ALIASES if any(n in plain for n in names) for name in names]
    return [_words(name) for name in (plain, *others)]


def _plain(title: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"['\u2019]", "", title.lower())))


def _words(title: str) -> frozenset[str]:
    """Words that tell a title from others, without plurals."""
    words = (word.rstrip("s") for word in title.split() if word not in _EMPTY)
    return frozenset(word for word in words if len(word) > 1 and not word.isdigit())


def _one_in_another(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two titles are equal, or one's words, two or a long one, are all in the other."""
    fewer = min(a, b, key=len)
    telling = len(fewer) > 1 or any(len(word) > 5 for word in fewer)
    return bool(fewer) and (a == b or (telling and (a <= b or b <= a)))
