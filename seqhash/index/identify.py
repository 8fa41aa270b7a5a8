"""A query against an index: opens one, and answers. How, is in ``searcher`` (recordings) and
``works`` (versions of works).
"""

import contextlib
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seqhash.codes import Hasher
from seqhash.cover_codes import CoverHasher
from seqhash.export import load_hasher
from seqhash.index.catalogue import Collection, Identity, Index, Row, open_index
from seqhash.index.searcher import FALSE_POSITIVE_RATE as FALSE_POSITIVE_RATE
from seqhash.index.searcher import Along as Along
from seqhash.index.searcher import Match as Match
from seqhash.index.searcher import Searcher as Searcher
from seqhash.index.searcher import Survey as Survey
from seqhash.index.works import WorkSearcher
from seqhash.search import planar


def identify(
    index: str | os.PathLike[str],
    clip: str | os.PathLike[str] | np.ndarray,
    *,
    hasher: Hasher | None = None,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
) -> list[Match]:
    """What a clip is, asked once. For many clips keep a ``Searcher`` (``open_searcher``).

    Args:
      index: what ``seqhash add`` or ``add_files`` made.
      clip: an audio file, or float32 (samples,) in [-1, 1] at the hasher's rate.
      hasher: the one that the index was made by; None, the package's hasher of that name.
      false_positive_rate: of absent clips, the share that may be answered all the same.

    Returns:
      Matches, best first; none where the clip is not there.

    Raises:
      IndexFileError: the index cannot be read, or is another hasher's.
      HasherError: the package has no hasher of the index's name.
      AudioError: the file cannot be read as audio, or is shorter than a segment.
      ValueError: the samples are not finite mono floats, or are shorter than a segment.
    """
    if hasher is None:
        with open_index(index, readonly=True) as opened:
            name = opened.identity.name
        hasher = load_hasher(name)
    searcher = open_searcher(index, hasher, false_positive_rate=false_positive_rate)
    return searcher.identify(clip) if isinstance(clip, np.ndarray) else searcher.identify_file(clip)


def open_searcher(
    index: str | os.PathLike[str] | Index,
    hasher: Hasher,
    *,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
    shifts: int | None = None,
    mesh: Mesh | None = None,
    everywhere: bool = False,
) -> Searcher:
    """Loads an index, by its path or open, for answers by this hasher.

    Args:
      index: what ``seqhash add`` made.
      hasher: the one that the index was made by.
      false_positive_rate: of absent queries, the share that may be answered all the same.
      shifts: of a query inside one hop, which they must divide; the hasher's own where None.
      mesh: devices to spread the codes over, along its axis ``data``; all accelerators where None,
        if there are several.
      everywhere: every place of a clip, also where it repeats itself.

    Raises:
      IndexFileError: the index cannot be read, or is another hasher's.
      ValueError: a false-positive rate that is none.
    """
    if not 0 < false_positive_rate <= 1:
        raise ValueError(f"A false-positive rate is above 0, 1 at most, got {false_positive_rate}.")
    with contextlib.ExitStack() as stack:
        if not isinstance(index, Index):
            identity = Identity.of(hasher)
            index = stack.enter_context(open_index(index, identity=identity, readonly=True))
        with index.snapshot():  # the catalogue and the codes of one moment
            rows, collection = index.rows(), index.load()
        channel = index.channel
    return make_searcher(
        hasher,
        rows,
        collection,
        false_positive_rate=false_positive_rate,
        shifts=shifts,
        mesh=mesh or _accelerators(),
        channel=channel,
        everywhere=everywhere,
    )


def make_searcher(
    hasher: Hasher, rows: list[Row], collection: Collection, **options: Any
) -> Searcher:
    """A searcher of a collection in memory: of recordings, or of works where its hasher is one of
    works. ``options`` are further fields of ``Searcher``.
    """
    if isinstance(hasher, CoverHasher):
        return WorkSearcher(hasher, rows, collection, **options)
    return Searcher(hasher, rows, collection, **options)


def _accelerators() -> Mesh | None:
    """All devices of this process that are no CPU; None unless there are several."""
    devices = [device for device in jax.local_devices() if device.platform != "cpu"]
    return Mesh(np.array(devices), (planar.AXIS,)) if len(devices) > 1 else None
