"""Random works in several versions whose moments are known to be the same: what codes of versions
are trained on.

A work is composed as ``songbook.txt`` writes its tunes: parts of eight bars, a tune that repeats
its motifs, chords that fit it. Its versions are played by ``arrangement`` in other keys, tempi and
bands, some over chords made anew, some by the lead alone; all play the parts in one order, so that
a beat of the score is a second of each. Nothing here knows the works of ``songbook.txt``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from seqhash.songbook import book
from seqhash.songbook.arrangement import Arrangement, perform
from seqhash.songbook.notation import Chord, Note, Part, Work

BREATH = 0.25  # seconds before the first beat of a performance
KINDS = (("orig", "cover", "anew", "anew"), ("orig", "cover", "anew", "lead"))  # of even, odd works
_BARS = 8  # of a part
_MODES = {  # semitones above the tonic, and how often it is drawn
    "major": ((0, 2, 4, 5, 7, 9, 11), 0.5),
    "minor": ((0, 2, 3, 5, 7, 8, 10), 0.25),
    "dorian": ((0, 2, 3, 5, 7, 9, 10), 0.15),
    "mixolydian": ((0, 2, 4, 5, 7, 9, 10), 0.1),
}
_METRES = {"country": ((2, 4), (4, 4), (6, 8)), "classical": ((3, 4), (4, 4), (2, 4), (6, 8))}
_TEMPI = {"country": (84.0, 190.0), "classical": (60.0, 150.0)}  # quarter notes a minute
_USUAL = (0, 3, 4, 5)  # degrees of the chords that are drawn three times as often
_LONGEST = 40.0  # seconds at which ``arrangement`` cuts a performance


class Version(NamedTuple):
    """One recording of a random work."""

    samples: np.ndarray  # float32 (samples,) at ``book.SAMPLE_RATE``
    key_shift: int  # semitones above the work
    first: float  # seconds at which the score begins ...
    beat: float  # ... and seconds of each of its quarter notes
    beats: float  # quarter notes that are played
    kind: str  # "orig", "cover", "anew" (other chords) or "lead" (the tune alone)


def play(number: int, seed: int, count: int = len(KINDS[0])) -> tuple[Work, list[Version]]:
    """A random work and so many of its versions (``KINDS``): a function of number and seed; fewer
    versions are the first of more.
    """
    rng = np.random.default_rng([seed, number])
    work = compose(rng, f"w{number}")
    return work, versions(rng, work, KINDS[number % len(KINDS)][:count])


def compose(rng: np.random.Generator, name: str) -> Work:
    """A work of two parts: tune, then chords that fit it."""
    genre = ("country", "classical")[int(rng.integers(2))]
    odds = np.array([share for _, share in _MODES.values()])
    scale = list(_MODES.values())[int(rng.choice(len(odds), p=odds))][0]
    metre = _METRES[genre][int(rng.integers(len(_METRES[genre])))]
    low, high = np.log(_TEMPI[genre])
    bare = Work(
        name, name, "", genre, metre, float(np.exp(rng.uniform(low, high))),
        int(rng.integers(12)), scale, "AABB" if rng.random() < 0.5 else "AB", (),
    )  # fmt: skip
    tunes = [_tune(rng, bare, higher=part) for part in range(2)]
    parts = [
        Part(part, _BARS, tune, harmonise(rng, bare, tune))
        for part, tune in zip("AB", tunes, strict=True)
    ]
    return bare._replace(parts=tuple(parts))


def harmonise(rng: np.random.Generator, work: Work, tune: Sequence[Note]) -> tuple[Chord, ...]:
    """Chords under a tune: triads of the scale, drawn by how much of the tune they hold."""
    pace = work.bar / (2 if work.bar >= 3 and rng.random() < 0.4 else 1)
    triads = [
        tuple((work.scale[(d + i) % 7] + work.tonic) % 12 for i in (0, 2, 4)) for d in range(7)
    ]
    prior = np.array([1.0 if degree in _USUAL else 0.0 for degree in range(7)])
    chords: list[Chord] = []
    for start in np.arange(0, _BARS * work.bar - 1e-6, pace):
        under = [note for note in tune if start - 1e-6 <= note.start < start + pace - 1e-6]
        held = [
            sum(note.duration for note in under if note.pitch % 12 in triad) for triad in triads
        ]
        score = 3.0 * np.array(held) / pace + prior + rng.gumbel(size=7)
        last = start + pace > _BARS * work.bar - 1e-6
        degree = 0 if last else int(np.argmax(score))
        root, third, fifth = triads[degree]
        seventh = (10,) if degree == 4 and rng.random() < 0.3 else ()
        tones = (0, (third - root) % 12, (fifth - root) % 12, *seventh)
        chords.append(Chord(float(start), pace, root, tones))
    return tuple(chords)


def versions(rng: np.random.Generator, work: Work, kinds: Sequence[str]) -> list[Version]:
    """A work in several versions, one of each of the kinds (``Version.kind``)."""
    families = list(book._LEADS[work.genre])
    seconds = float(rng.uniform(30.5, 36))
    made = []
    for kind in kinds:
        family = families[int(rng.integers(len(families)))]
        arrangement = book.arrange(rng, work, family, cover=kind != "orig")
        arrangement = replace(arrangement, order=work.order, rubato=0.0, seconds=seconds)
        played = _anew(rng, work) if kind == "anew" else work
        if kind == "anew":
            arrangement = replace(arrangement, thinning=float(rng.uniform(0.1, 0.5)))
        made.append(_version(rng, played, arrangement, kind))
    return made


def _version(rng: np.random.Generator, work: Work, arrangement: Arrangement, kind: str) -> Version:
    performance = perform(rng, work, arrangement)
    if kind == "lead":  # the accompaniment is the last player but for the bass
        leads = len(performance.players) - 1 - bool(arrangement.bass)
        performance = performance._replace(players=performance.players[:leads], hits=())
    beat = 60 / (work.tempo * arrangement.tempo_factor)
    first = BREATH + arrangement.intro_bars * work.bar * beat
    beats = (min(_LONGEST, performance.seconds - 1.5 * work.bar * beat) - first) / beat
    samples = book.sound(rng, performance, arrangement.room)
    return Version(samples, arrangement.key_shift, first, beat, beats, kind)


def _anew(rng: np.random.Generator, work: Work) -> Work:
    """The same tune over other chords."""
    parts = [part._replace(chords=harmonise(rng, work, part.notes)) for part in work.parts]
    return work._replace(parts=tuple(parts))


def _tune(rng: np.random.Generator, work: Work, *, higher: int) -> tuple[Note, ...]:
    """Eight bars: two or three motifs of a bar, repeated, moved along the scale and varied."""
    steps = _BARS * [0]
    motifs = [_motif(rng, work) for _ in range(int(rng.integers(2, 5)))]
    middle = 66 + 5 * higher + int(rng.integers(0, 5))
    notes: list[Note] = []
    place = 0.0  # degrees above the tonic near ``middle``
    for bar in range(_BARS):
        steps[bar] = (
            steps[bar % 4] if bar >= 4 and rng.random() < 0.7 else int(rng.integers(len(motifs)))
        )
        lengths, moves = motifs[steps[bar]]
        place = 0.6 * place + float(rng.choice([-2, -1, 0, 1, 2, 4]))
        start, degree = bar * work.bar, round(place)
        for length, move in zip(lengths, moves, strict=True):
            degree += move + int(rng.choice([-1, 0, 0, 0, 0, 0, 0, 1]))
            degree = int(np.clip(degree, -6, 8))
            if bar == _BARS - 1 and start + length > _BARS * work.bar - 1e-6:
                degree = 0
            octave, step = divmod(degree, 7)
            base = (
                middle + (work.tonic - middle) % 12 - (12 if (work.tonic - middle) % 12 > 6 else 0)
            )
            notes.append(Note(start, length, base + 12 * octave + work.scale[step]))
            start += length
    return tuple(notes)


def _motif(rng: np.random.Generator, work: Work) -> tuple[list[float], list[int]]:
    """Lengths of the notes of a bar in quarter notes, and degrees from one to the next."""
    unit = 1.5 if work.metre[1] == 8 else 1.0
    figures = (
        [(1.5,), (1.0, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0.5, 1.0)]
        if unit == 1.5
        else [(1.0,), (0.5, 0.5), (0.5, 0.5), (0.75, 0.25), (0.25,) * 4, (0.5, 0.25, 0.25)]
    )
    if unit == 1.0 and work.tempo > 140:
        figures = figures[:3]
    lengths: list[float] = []
    while sum(lengths) < work.bar - 1e-6:
        if unit == 1.0 and work.bar - sum(lengths) >= 2 and rng.random() < 0.15:
            lengths.append(2.0)
        else:
            lengths += figures[int(rng.integers(len(figures)))]
    moves = rng.choice([-3, -2, -1, -1, 0, 1, 1, 2, 3], size=len(lengths))
    return lengths, [int(move) for move in moves]
