"""A collection that lives: recordings follow files that were moved, renamed, retagged, replaced or
deleted.

The catalogue has one path for a recording, and ``files`` what was last seen at every path. Where
they disagree:

=========  =========================================================================================
moved      the recording's path holds nothing, or something else, and its content was seen elsewhere
retagged   its content is nowhere, and a new recording has the same codes: that is what it became
replaced   its path holds something else, and its content is nowhere: it is removed
gone       its path holds nothing, and its content is nowhere: kept, unless it is asked to be pruned
=========  =========================================================================================

A file that cannot be looked at (a folder without permission, a disk that fails) is not gone.
"""

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqhash.index.catalogue import Index, Row


class Followed(NamedTuple):
    """What became of recordings: each list has their paths, as they were before."""

    moved: list[str]
    retagged: list[str]
    replaced: list[str]
    gone: list[str]  # of those below the folders that were named


def is_gone(path: str | os.PathLike[str]) -> bool:
    """Whether nothing is at a path, as far as that can be told."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def follow(
    index: Index, *, fresh: Iterable[str], roots: Sequence[Path], seen: set[str], prune: bool
) -> tuple[Followed, int]:
    """Brings the catalogue up to date with its files, in one transaction; what became of
    recordings, and how many of the fresh ones are old ones that were retagged.

    Args:
      index: open for writing.
      fresh: content digests of recordings that have just been added.
      roots: files and folders, absolute, below which files that are gone are looked for.
      seen: paths that are known to be there.
      prune: remove what is gone.
    """
    # One answer a path: what was not gone at first is not pruned a moment later.
    no_file = functools.cache(is_gone)
    paths, replaced, retagged = dict[int, str](), dict[int, Row](), dict[int, int]()
    for row, places in index.astray():
        there = next((place for place in places if not no_file(place)), None)
        if there is not None:
            if there != row.path:
                paths[row.id] = there
        elif row.path not in places:
            replaced[row.id] = row
    rows = index.rows()
    # A folder that is not there may be on a disk that is not: what lay in it is not known.
    named, known = {str(root) for root in roots}, [root for root in roots if not is_gone(root)]
    below = [
        row
        for row in rows
        if row.path not in seen and (row.path in named or is_below(row.path, known))
    ]
    lost = {row.id: row for row in below if row.id not in paths and no_file(row.path)}
    before = {row.id: row for row in rows}
    digests, old_paths = set(fresh), {row.path for row in replaced.values()}
    for row in rows:
        is_fresh = row.digest in digests
        if row.id in replaced or not (is_fresh or row.path in old_paths):
            continue
        for old in [*replaced.values(), *lost.values()]:
            # One that is not fresh is where an ``add`` that was stopped has put it.
            may_be = (is_fresh or old.path == row.path) and old.id not in (row.id, *retagged)
            may_be = may_be and row.id not in retagged
            alike = (old.codes, old.duration) == (row.codes, row.duration)
            if may_be and alike and _same_codes(index, old.id, row.id):
                retagged[old.id] = row.id
                break
    for i in retagged:
        replaced.pop(i, None)
        lost.pop(i, None)
    between = set[int]()
    for first in [*retagged]:  # what was retagged twice is the first of them
        while (new := retagged.get(first)) in retagged:
            retagged[first] = retagged.pop(new)
            between.add(new)
    gone = [row for i, row in lost.items() if i not in replaced]
    dropped = {*replaced, *between, *(row.id for row in gone if prune)}
    if paths or retagged or dropped:
        forget = [row.path for row in gone] if prune else []
        index.move(paths, retagged, dropped, forget)
    followed = Followed(
        moved=[before[i].path for i in paths],
        retagged=[before[i].path for i in retagged],
        replaced=[row.path for row in replaced.values()],
        gone=[row.path for row in gone],
    )
    return followed, sum(before[i].digest in digests for i in retagged.values())


def is_below(path: str, roots: Iterable[Path]) -> bool:
    """Whether a path is one of some files and folders, or lies in one of them."""
    return any(path == str(root) or path.startswith(f"{str(root).rstrip('/')}/") for root in roots)


def _same_codes(index: Index, one: int, other: int) -> bool:
    first, second = index.words_of([one, other])
    return np.array_equal(first, second)
