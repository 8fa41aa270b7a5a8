"""A stream whose samples say themselves what they are: a recording's number and its own time."""

import numpy as np
import pytest

from seqhash.index import listen
from seqhash.index.identify import Along, Match
from seqhash.index.together import Found

RATE = 100


def part(recording, offset, seconds):
    """Some seconds of a recording: 1,000 times its number, and its time; 0 is nothing."""
    times = offset + np.arange(round(seconds * RATE)) / RATE
    return np.where(recording, 1000 * recording + times, 0).astype(np.float32)


class Ear:
    """Finds what plays for more than a second, as the searcher does: all through what was asked."""

    def __init__(self, period=None):
        self.period, self.longest = period, 0.0

    def hear(self, samples, *, variants):
        self.longest = max(self.longest, len(samples) / RATE)
        found = []
        for recording in np.unique(samples // 1000).astype(int):
            at = np.flatnonzero(samples // 1000 == recording)
            if recording and len(at) > RATE:
                offset = float(samples[at[-1]] - 1000 * recording - at[-1] / RATE)
                if self.period:  # the first of places that sound alike
                    offset = round(offset, 3) % self.period
                found.append(self._found(int(recording), offset, len(samples)))
        return found

    def _found(self, recording, offset, count):
        match = Match(recording, "p", "t", 0.0, count / RATE, offset, 1, 0.1, 5.0)
        return Found(match, "i", False)

    def along(self, samples, found, offset):
        places = samples - 1000 * found.match.recording - offset - np.arange(len(samples)) / RATE
        if self.period:
            places = (places + self.period / 2) % self.period - self.period / 2
        at = np.flatnonzero(np.abs(places) < 0.1)
        at = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)[-1]
        if len(at) < RATE // 2:
            return Along(0.0, 0.0, 0.5, 0.5)
        return Along(at[0] / RATE, (at[-1] + 1) / RATE, 0.1, 0.5)


def events(parts, ear=None, block=0.25):
    samples = np.concatenate(parts)
    blocks = np.split(samples, range(round(block * RATE), len(samples), round(block * RATE)))
    heard = listen.listen(blocks, ear or Ear(), sample_rate=RATE, least=0.5)
    return [(e.kind, e.found.match.recording, e.time, e.found.match) for e in heard]


def test_what_begins_changes_and_ends_is_told_within_three_seconds():
    parts = [part(1, 10, 12), part(0, 0, 15), part(2, 30, 15), part(2, 5, 15), part(3, 0, 8)]
    told = events(parts)
    assert [(kind, recording) for kind, recording, *_ in told] == [
        ("begins", 1),
        ("ends", 1),
        ("begins", 2),
        ("changes", 2),
        ("begins", 3),
        ("ends", 2),
        ("ends", 3),
    ]
    happened = [0, 12, 27, 42, 57, 57, 65]
    assert all(0 <= t - e <= 3.0 for (*_, t, _), e in zip(told, happened, strict=True))
    first, last = told[1][3], told[5][3]
    assert (first.start, first.end, first.offset) == pytest.approx((0, 12, 10), abs=0.02)
    assert (last.start, last.end, last.offset) == pytest.approx((42, 57, 5), abs=0.02)


@pytest.mark.parametrize("block", [0.01, 0.3, 60.0])
def test_events_do_not_depend_on_how_the_stream_comes(block):
    parts = [part(1, 0, 7.3), part(2, 0, 4.1)]
    assert events(parts, block=block) == events(parts)


def test_what_repeats_itself_plays_on_although_another_place_is_as_near():
    told = events([part(1, 0, 60)], Ear(period=4.0))
    assert [(kind, match.offset) for kind, *_, match in told] == [
        ("begins", pytest.approx(0, abs=0.02)),
        ("ends", pytest.approx(0, abs=0.02)),
    ]
    assert told[1][3].end == pytest.approx(60)


def test_a_stream_shorter_than_a_question_is_answered_at_its_end():
    assert [(kind, time) for kind, _, time, _ in events([part(1, 0, 1.2)])] == [
        ("begins", 1.2),
        ("ends", 1.2),
    ]
    assert events([part(1, 0, 0.3)]) == events([part(0, 0, 30)]) == []


def test_what_plays_goes_on_although_it_is_not_found_each_time():
    class Once(Ear):
        """Finds a recording once."""

        answered = False

        def hear(self, samples, *, variants):
            found = [] if self.answered else super().hear(samples, variants=variants)
            self.answered = self.answered or bool(found)
            return found

    told = events([part(1, 0, 30), part(0, 0, 10)], Once())
    assert [(kind, time) for kind, _, time, _ in told] == [("begins", 2.5), ("ends", 31.5)]
    assert told[1][3].end == pytest.approx(30, abs=0.02)


def test_a_recording_that_pauses_begins_again():
    told = events([part(1, 0, 8), part(0, 0, 5), part(1, 13, 8)])
    assert [kind for kind, *_ in told] == ["begins", "ends", "begins", "ends"]
    assert told[2][3].start == pytest.approx(13, abs=0.02)


def test_a_long_stream_is_held_by_its_last_seconds_alone():
    ear = Ear()
    told = events([part(1 + i % 5, 0, 30) for i in range(40)], ear)
    assert len(told) == 80
    assert ear.longest == listen.LONG


def test_what_has_ended_does_not_begin_again_where_it_is_left_behind():
    class Late(Ear):
        """Takes the sound after a recording for more of it, once it lies seconds back."""

        def along(self, samples, found, offset):
            along = super().along(samples, found, offset)
            left = along.end and len(samples) / RATE - along.end > 4
            return along._replace(end=along.end + 0.7) if left else along

    told = events([part(1, 0, 12), part(0, 0, 15)], Late())
    assert [kind for kind, *_ in told] == ["begins", "ends"]


def test_what_has_ended_does_not_begin_again_at_another_place():
    class Elsewhere(Ear):
        """Takes what lies seconds back for its repetition, 23 s later in the recording."""

        def hear(self, samples, *, variants):
            found = super().hear(samples, variants=variants)
            heard = np.flatnonzero(samples)
            if not len(heard) or len(samples) - heard[-1] < 3 * RATE:
                return found
            return [
                one._replace(match=one.match._replace(offset=one.match.offset + 23))
                for one in found
            ]

    told = events([part(2, 0, 12), part(0, 0, 15)], Elsewhere(period=23))
    assert [kind for kind, *_ in told] == ["begins", "ends"]
