"""What a training set and a test set share, by search (the same audio) and by title (the same
work)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from seqhash.codes import Hasher
from seqhash.index.identify import Searcher
from seqhash.robustness.systems import Learned

# so often a recording that shares nothing is found all the same, as the search reckons
FALSE_POSITIVE_RATE = 1e-3
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


def searcher(hasher: Hasher, references: Iterable[np.ndarray]) -> Searcher:
    """An index of a test set, float32 (samples,) of each recording at the hasher's rate."""
    words = [hasher.hash_samples(_levelled(samples)) for samples in references]
    made = Learned("overlap", "", hasher).add_codes(words)
    return replace(made, false_positive_rate=FALSE_POSITIVE_RATE)


def by_search(index: Searcher, names: Sequence[str], id: str, samples: np.ndarray) -> list[Overlap]:
    """The recordings of a test set of which a recording holds a part.

    Args:
      index: of ``searcher``.
      names: ids of the recordings in it, in order.
      id, samples: of the recording, float32 (samples,).
    """
    return [
        Overlap(
            id,
            names[match.recording],
            f"{match.start:.0f} to {match.end:.0f} s sound there from {match.offset:.0f} s on "
            f"({match.bit_error_rate:.0%} of bits differ, score {match.score:.1f})",
        )
        for match in index.identify(_levelled(samples))
    ]


def _levelled(samples: np.ndarray) -> np.ndarray:
    """At an RMS of 0.1: cepstra, and so the bits of a hash of them, change with the level."""
    return samples * np.float32(0.1 / np.sqrt(np.mean(samples**2)))


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
