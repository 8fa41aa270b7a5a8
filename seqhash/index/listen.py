"""A stream that goes on: what begins, changes and ends in it, told as it is heard.

Every ``STEP`` seconds the last ``FRESH`` seconds are asked, which tell what has just begun, and
every ``SELDOM`` seconds the last ``LONG`` ones, which tell what is hard to hear. What was found is
followed as a **track**: a recording, and which of its moments sounds at which moment of the stream.

=======  ===========================================================================================
begins   a recording is found that did not play
changes  a recording that plays goes on from another place of it
ends     it was not found for ``PATIENCE`` seconds, or the stream has ended
=======  ===========================================================================================

A recording that is played as it is, and can be told by ``FRESH`` seconds, is told at most ``FRESH``
and ``STEP``, 3 s, after it began, and its end some ``PATIENCE`` and ``STEP``, 2 s, after it ended.
Of a stream nothing but the last ``LONG`` seconds and the tracks in them are held.

The false-positive rate of a stream is that of its stretches of ``LONG`` seconds, as if each were a
clip: each of the ``ASKED`` windows of one that share no sound has its share of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from seqhash.index.searcher import Along, Match
from seqhash.index.together import Found

STEP = 0.5  # s between two questions
FRESH = 2.5  # s of the stream that are asked each time
LONG = 10.0  # s of it that are asked ...
SELDOM = 2.0  # ... so many s apart
PATIENCE = 1.5  # s without a sign of a recording after which it has ended
SAME = 0.5  # s between places of a recording that are the same one
GOES_ON = 0.7  # of the bits that differ anyway, in a second or more where a recording should be
NEARLY = 0.05  # more of the bits that differ at another place, which is as near then
ASKED = LONG / FRESH + 1  # windows of a stretch that share no sound


class Ear(Protocol):
    """Who knows recordings: ``together.Together``."""

    def hear(self, samples: np.ndarray, *, variants: bool) -> list[Found]:
        """What is found in samples, best first; also as transposed and at other tempi."""

    def along(self, samples: np.ndarray, found: Found, offset: float) -> Along | None:
        """Samples beside the recording of something found, from ``offset`` s of it on."""


class Event(NamedTuple):
    """Something that happened in a stream."""

    kind: Literal["begins", "changes", "ends"]
    time: float  # s of the stream that were heard when it was known
    found: Found  # start and end: s of the stream; numbers: of the window that told best


@dataclass
class _Track:
    """A recording that is or was heard a moment ago."""

    found: Found  # start and end: s of the stream
    playing: bool = True


def listen(
    blocks: Iterable[np.ndarray], ear: Ear, *, sample_rate: int, least: float
) -> Iterator[Event]:
    """Events of a stream, each as soon as it is known.

    Args:
      blocks: float32 (any,) samples in order; an event waits for the block that tells it.
      ear: who is asked.
      sample_rate: Hz.
      least: s that can be asked.
    """
    held, heard, asked, tracks = np.zeros(0, np.float32), 0, 0, list[_Track]()

    def question(seconds: float, *, variants: bool) -> Iterator[Event]:
        samples = held[-round(seconds * sample_rate) :]
        begin, now = (heard - len(samples)) / sample_rate, heard / sample_rate
        for found in ear.hear(samples, variants=variants):
            trimmed = _trimmed(found, ear.along(samples, found, _place(found.match, 0.0)))
            yield from _take(tracks, trimmed, samples, begin, now, ear)
        for track in [track for track in tracks if track.playing]:
            # What plays need not be found anew each time, only be where it should be.
            along = ear.along(samples, track.found, _place(track.found.match, begin))
            if (
                along
                and along.end >= along.start + 1
                and along.bit_error_rate < (GOES_ON * along.usual)
            ):
                match = track.found.match
                end = min(max(match.end, along.end + begin), now)
                track.found = track.found._replace(match=match._replace(end=end))

    step = round(STEP * sample_rate)
    seldom = round(SELDOM / STEP)  # steps
    for block in blocks:
        for part in np.split(block, range(step - (heard - asked), len(block), step)):
            held = np.concatenate([held, part])[-round(LONG * sample_rate) :]
            heard += len(part)
            if heard - asked < step:
                continue
            asked += step
            if heard >= round(FRESH * sample_rate):
                yield from question(FRESH, variants=True)
            if heard >= round(LONG * sample_rate) and asked // step % seldom == 0:
                yield from question(LONG, variants=False)
            yield from _ended(tracks, heard / sample_rate, PATIENCE)
    if len(held) >= round(least * sample_rate):
        yield from question(LONG, variants=True)  # as a file of that length is asked
    yield from _ended(tracks, heard / sample_rate, -1.0)


def _place(match: Match, time: float) -> float:
    """The moment of its recording that sounds at a moment of what was asked."""
    return match.offset + (time - match.start) * match.tempo


def _trimmed(found: Found, along: Along | None) -> Found:
    """A match of a window as long as it lasts in it: a window is found as one."""
    match = found.match
    if along is None:
        return found
    offset = max(0.0, _place(match, along.start))
    match = match._replace(start=along.start, end=along.end, offset=offset)
    return found._replace(match=match)


def _take(
    tracks: list[_Track], found: Found, samples: np.ndarray, begin: float, now: float, ear: Ear
) -> Iterator[Event]:
    """Has what was found in samples that begin at a moment go on with its track, or begin one."""
    match = found.match
    start, end = match.start + begin, min(match.end + begin, now)
    where = _place(match, end - begin)
    same = [t for t in tracks if _recording(t.found) == _recording(found)]
    for track in same:
        if abs(_place(track.found.match, end) - where) < SAME:
            yield from _go_on(track, match._replace(start=start, end=end), now)
            return
    playing = [t for t in same if t.playing and t.found.match.end > start - PATIENCE]
    for track in playing:  # it repeats itself: is the place where it was as near to the end?
        there = ear.along(samples, found, _place(track.found.match, begin))
        also = there and there.bit_error_rate <= match.bit_error_rate + NEARLY
        if there and also and there.end > match.end - SAME:
            here = match._replace(start=there.start + begin, end=there.end + begin)
            yield from _go_on(track, here._replace(score=0.0), now)
            return
    if end < now - LONG / 2:
        return  # over long ago, and seen at the edge of what is held
    if any(not t.playing and end < t.found.match.end + SAME for t in same):
        return  # another place of what was heard till then, and has ended
    for track in playing:
        track.playing = False
    fresh = found._replace(match=match._replace(start=start, end=end))
    tracks.append(_Track(fresh))
    yield Event("changes" if playing else "begins", now, fresh)


def _go_on(track: _Track, match: Match, now: float) -> Iterator[Event]:
    """A track is heard once more; ``match`` has the stream's time."""
    before = track.found.match
    # What is seen at the edge of what is held is known to about a second, and no news.
    resumed = not track.playing and match.end > max(before.end + SAME, now - PATIENCE)
    best = match if match.score > before.score else before
    start = max(match.start, before.end) if resumed else min(match.start, before.start)
    kept = best._replace(start=start, offset=_place(best, start), end=max(match.end, before.end))
    track.found = track.found._replace(match=kept)
    if resumed:
        track.playing = True
        yield Event("begins", now, track.found)


def _ended(tracks: list[_Track], now: float, patience: float) -> Iterator[Event]:
    for track in list(tracks):
        since = now - track.found.match.end
        if track.playing and since >= patience:
            track.playing = False
            yield Event("ends", now, track.found)
        if since > LONG + PATIENCE:
            tracks.remove(track)


def _recording(found: Found) -> tuple[str, int]:
    return found.source, found.match.recording
