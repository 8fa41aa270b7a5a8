"""A work and an arrangement -> what every player plays and when.

The tune gets ornaments and loses notes; below it go a pattern of accompaniment, a bass and drums,
over harmony that is changed in places; rubato, swing and human timing turn beats into seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqhash.songbook.notation import Chord, Note, Part, Work
from seqhash.songbook.synth import INSTRUMENTS, Event, Room

Clock = Callable[[np.ndarray], np.ndarray]  # quarter notes -> seconds

_LIMIT = 40.0  # seconds; a part that would end later is cut at a phrase of four bars
_BREATH = 0.25  # seconds before the first note

# What the accompaniment does in a unit of time. B, F: the chord's root and fifth, low. C: the
# chord. D, U: the chord, strummed down and up. 0-3: one tone of the chord, from below. T: the tonic
# and its fifth. "-": go on. The steps are eighth notes (sixteenths for "roll").
_PATTERNS: dict[str, dict[str, str]] = {
    "boom-chick": {"duple": "BCFC", "triple": "B-C-C-", "compound": "B-CF-C", "single": "BCC"},
    "arpeggio": {"duple": "0123", "triple": "012321", "compound": "012321", "single": "012"},
    "alberti": {"duple": "0212", "triple": "021212", "compound": "021021", "single": "021"},
    "block": {"duple": "C---", "triple": "C-----", "compound": "C--C--", "single": "C--"},
    "pulse": {"duple": "C-C-", "triple": "C-C-C-", "compound": "C-CC-C", "single": "C-C"},
    "strum": {"duple": "B-DU", "triple": "B-DUDU", "compound": "D-UD-U", "single": "D-U"},
    "roll": {
        "duple": "02130213",
        "triple": "021302130213",
        "compound": "021321021321",
        "single": "021321",
    },
    "drone": {"duple": "T---", "triple": "T-----", "compound": "T--T--", "single": "T--"},
}
PATTERNS = tuple(_PATTERNS)
_DRUMS: dict[
    str, dict[str, str]
] = {  # k kick, s snare, b brush, h hat, a shaker; one step is a quarter of a unit
    "kit": {"duple": "khsh", "triple": "khshsh", "compound": "khhshh", "single": "khh"},
    "brushes": {"duple": "kbbb", "triple": "k-b-b-", "compound": "k-bb-b", "single": "kbb"},
    "shaker": {"duple": "aaaa", "triple": "aaaaaa", "compound": "a-aa-a", "single": "a-a"},
}
DRUMS = tuple(_DRUMS)
_HITS = {"k": "kick", "s": "snare", "b": "brush", "h": "hat", "a": "shaker"}


@dataclass(frozen=True)
class Arrangement:
    """How one recording plays a work."""

    key_shift: int  # semitones above the notation
    tempo_factor: float  # speed relative to the notation
    order: str  # names of parts, gone through again and again until ``seconds`` are reached
    seconds: float
    intro_bars: int  # of accompaniment alone
    lead: str  # instruments are names of ``synth.INSTRUMENTS``
    second: str  # leads when a part comes again; "" is the lead again
    harmony: str  # what the other lead adds: "", "octave", "third"
    chords: str
    pattern: str
    bass: str  # "", "two-beat", "walking"
    drums: str  # "" or a name of ``DRUMS``
    ornaments: float  # 0 to 1
    thinning: float  # share of short weak notes left out
    substitution: float  # share of chords changed
    swing: float  # beats by which the off-beat eighths come late
    rubato: float  # relative depth
    timing: float  # seconds, standard deviation of each onset
    room: Room


class Performance(NamedTuple):
    players: tuple[tuple[str, float, tuple[Event, ...]], ...]  # instrument, level, notes
    hits: tuple[tuple[float, str, float], ...]  # seconds, drum, loudness
    seconds: float


class _Sung(NamedTuple):
    """A note of the tune in the whole performance."""

    start: float  # quarter notes from the beginning
    duration: float
    pitch: int
    lap: int  # how often its part was heard before


def perform(rng: np.random.Generator, work: Work, arrangement: Arrangement) -> Performance:
    """Every player's notes in seconds; ``tempo_factor`` holds exactly from the first to the last
    bar.
    """
    beat = 60 / (work.tempo * arrangement.tempo_factor)
    pickup = -min(0.0, min(part.notes[0].start for part in work.parts))
    origin = max(arrangement.intro_bars * work.bar, pickup)
    sections = _sections(work, arrangement, beat * work.bar)
    tune, chords = _lay_out(work, sections, origin, arrangement.key_shift)
    end = origin + sum(bars for _, bars in sections) * work.bar
    if arrangement.intro_bars:
        chords.insert(0, chords[0]._replace(start=0.0, duration=chords[0].start))
    tonic = Chord(end, work.bar, (work.tonic + arrangement.key_shift) % 12, (0, work.scale[2], 7))
    chords = _reharmonise(rng, chords, arrangement.substitution)
    chords.append(tonic)
    tune = _vary(rng, tune, work, arrangement)
    clock = _clock(rng, arrangement, beat, end, work.bar)
    back = _accompany(rng, work, arrangement, chords, end)
    players = [
        *_leads(rng, tune, chords, arrangement, clock),
        (arrangement.chords, 0.5, _timed(rng, back, arrangement, clock)),
    ]
    if arrangement.bass:
        line = _bass(rng, chords, end, work, arrangement)
        players.append(("bass", 0.45, _timed(rng, line, arrangement, clock)))
    hits = tuple(_hits(rng, work, arrangement, end, clock)) if arrangement.drums else ()
    seconds = float(clock(np.array([end]))[0]) + 1.5 * work.bar * beat
    return Performance(tuple(players), hits, min(max(seconds, 30.0), 45.0))


def _sections(work: Work, arrangement: Arrangement, bar_seconds: float) -> list[tuple[Part, int]]:
    """Parts in the order they are played, each with how many of its bars."""
    parts = {part.name: part for part in work.parts}
    sections: list[tuple[Part, int]] = []
    now = arrangement.intro_bars * bar_seconds
    while now < arrangement.seconds:
        part = parts[arrangement.order[len(sections) % len(arrangement.order)]]
        bars = part.bars
        if now + bars * bar_seconds > _LIMIT:
            bars = min(bars, max(4, 4 * round((arrangement.seconds - now) / bar_seconds / 4)))
        sections.append((part, bars))
        now += bars * bar_seconds
    return sections


def _lay_out(
    work: Work, sections: Sequence[tuple[Part, int]], origin: float, key_shift: int
) -> tuple[list[_Sung], list[Chord]]:
    """The sections one after another, in the arrangement's key."""
    tune, chords = [], []
    heard: dict[str, int] = {}
    now = origin
    for part, bars in sections:
        length = bars * work.bar
        reach = length + min(0.0, part.notes[0].start)  # what follows is the next part's pickup
        for note in part.notes:
            if note.start < reach - 1e-9:
                duration = min(note.duration, reach - note.start)
                tune.append(
                    _Sung(
                        now + note.start, duration, note.pitch + key_shift, heard.get(part.name, 0)
                    )
                )
        for chord in part.chords:
            if chord.start < length:
                duration = min(chord.duration, length - chord.start)
                chords.append(
                    Chord(now + chord.start, duration, (chord.root + key_shift) % 12, chord.tones)
                )
        heard[part.name] = heard.get(part.name, 0) + 1
        now += length
    return tune, chords


def _reharmonise(rng: np.random.Generator, chords: list[Chord], share: float) -> list[Chord]:
    """Some chords replaced by a near relative, coloured, or reduced to a fifth."""
    changed = []
    for chord in chords:
        if chord.tones and rng.random() < share:
            if chord.tones[1] == 3:  # minor: its relative major, or with a seventh
                options = [((chord.root + 3) % 12, (0, 4, 7)), (chord.root, (0, 3, 7, 10))]
            elif len(chord.tones) == 4:  # a seventh: the plain triad, or suspended
                options = [(chord.root, (0, 4, 7)), (chord.root, (0, 5, 7))]
            else:
                options = [
                    ((chord.root + 9) % 12, (0, 3, 7)),
                    (chord.root, (0, 4, 7, 9)),
                    (chord.root, (0, 7)),
                ]
            root, tones = options[rng.integers(len(options))]
            chord = chord._replace(root=root, tones=tones)
        changed.append(chord)
    return changed


def _vary(
    rng: np.random.Generator, tune: Sequence[_Sung], work: Work, arrangement: Arrangement
) -> list[_Sung]:
    """The tune as this player plays it: short weak notes left out, then passing notes and ornaments
    put in.
    """
    kept: list[_Sung] = []
    for note in tune:
        weak = note.start % 1.0 > 0.2 and note.duration <= 0.5
        if weak and kept and rng.random() < arrangement.thinning:
            kept[-1] = kept[-1]._replace(duration=note.start + note.duration - kept[-1].start)
        else:
            kept.append(note)
    scale = [(work.tonic + arrangement.key_shift + tone) % 12 for tone in work.scale]
    varied: list[_Sung] = []
    for note, following in zip(kept, [*kept[1:], kept[-1]], strict=True):
        varied += _ornament(rng, note, following.pitch - note.pitch, scale, arrangement.ornaments)
    return varied


def _ornament(
    rng: np.random.Generator, note: _Sung, leap: int, scale: list[int], share: float
) -> list[_Sung]:
    above = next(note.pitch + i for i in (1, 2, 3) if (note.pitch + i) % 12 in scale)
    below = next(note.pitch - i for i in (1, 2, 3) if (note.pitch - i) % 12 in scale)
    start, length, pitch, lap = note
    if length < 0.5 or rng.random() > share:
        return [note]
    if 3 <= abs(leap) <= 4 and length >= 0.9:  # pass through the third
        middle = above if leap > 0 else below
        return [
            _Sung(start, length * 0.5, pitch, lap),
            _Sung(start + length * 0.5, length * 0.5, middle, lap),
        ]
    figures: dict[str, list[tuple[float, int]]] = {
        "grace": [(0.0, above if rng.random() < 0.4 else below), (0.1, pitch)],
        "mordent": [(0.0, pitch), (0.1, above), (0.2, pitch)],
        "turn": [
            (0.0, pitch),
            (length - 0.45, above),
            (length - 0.3, pitch),
            (length - 0.15, below),
        ],
        "repeat": [(0.0, pitch), (0.5 * length, pitch)],
        "neighbour": [(0.0, pitch), (0.5 * length, below), (0.75 * length, pitch)],
    }
    names = (
        ["grace", "mordent", "repeat"]
        if length < 1.0
        else ["grace", "mordent", "turn", "repeat", "neighbour"]
    )
    figure = figures[names[rng.integers(len(names))]]
    ends = [at for at, _ in figure[1:]] + [length]
    return [
        _Sung(start + at, stop - at, p, lap) for (at, p), stop in zip(figure, ends, strict=True)
    ]


def _leads(
    rng: np.random.Generator,
    tune: Sequence[_Sung],
    chords: Sequence[Chord],
    arrangement: Arrangement,
    clock: Clock,
) -> Iterator[tuple[str, float, tuple[Event, ...]]]:
    """The lead, and the second lead in the repeats or as a second voice."""
    parts: dict[str, list[Note]] = {}
    other = arrangement.second or arrangement.lead
    for note in tune:
        who, partner = (other, arrangement.lead) if note.lap % 2 else (arrangement.lead, other)
        parts.setdefault(who, []).append(Note(*note[:3]))
        if arrangement.harmony and note.duration >= 0.25:
            lower = _second_voice(note, chords, arrangement.harmony)
            parts.setdefault(partner, []).append(Note(note.start, note.duration, lower))
    for instrument, notes in parts.items():
        fitted = _fit(notes, instrument)
        spread = [(note.start, note.duration, note.pitch, _emphasis(note.start)) for note in fitted]
        yield instrument, 1.0, _timed(rng, spread, arrangement, clock)


def _second_voice(note: _Sung, chords: Sequence[Chord], harmony: str) -> int:
    chord = _at(chords, note.start)
    if harmony == "octave" or not chord.tones:
        return note.pitch - 12
    tones = {(chord.root + tone) % 12 for tone in chord.tones}
    return next(note.pitch - i for i in range(3, 15) if (note.pitch - i) % 12 in tones)


def _fit(notes: Sequence[Note], instrument: str) -> list[Note]:
    """The notes in the octave that suits the instrument best; single notes out of its range move by
    octaves.
    """
    low, high = INSTRUMENTS[instrument].low, INSTRUMENTS[instrument].high
    middle = float(np.median([note.pitch for note in notes]))
    aim = min(max(0.5 * (low + high), 62.0), 79.0) if low < 70 else 0.5 * (low + high)
    shift = 12 * round((min(aim, high - 8.0) - middle) / 12)
    return [note._replace(pitch=_within(note.pitch + shift, low, high)) for note in notes]


def _within(pitch: int, low: int, high: int) -> int:
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


def _at(chords: Sequence[Chord], beat: float) -> Chord:
    """The chord in force; the first one before it begins."""
    return next((chord for chord in reversed(chords) if chord.start <= beat + 1e-6), chords[0])


def _emphasis(beat: float) -> float:
    """Loudness of a note of the tune before chance: strong beats are louder."""
    return 0.75 if beat % 1.0 < 0.01 else 0.62


def _metre(work: Work) -> tuple[str, float]:
    """Class of the metre and the unit of its patterns in quarter notes."""
    if work.metre == (6, 8):
        return "compound", 3.0
    if work.metre[0] == 3:
        return ("triple", 3.0) if work.metre[1] == 4 else ("single", 1.5)
    return "duple", 2.0


def _accompany(
    rng: np.random.Generator,
    work: Work,
    arrangement: Arrangement,
    chords: Sequence[Chord],
    end: float,
) -> list[tuple[float, float, int, float]]:
    """(beat, duration, pitch, loudness) of the accompaniment, and its closing chord."""
    kind, unit = _metre(work)
    steps = _PATTERNS[arrangement.pattern][kind]
    if kind == "duple" and work.tempo * arrangement.tempo_factor > 132:
        unit *= 2  # in fast music the pattern goes half as fast
    step, low = unit / len(steps), INSTRUMENTS[arrangement.chords].low
    floor = int(rng.integers(50, 57))
    root = (work.tonic + arrangement.key_shift) % 12
    notes = []
    for begin in np.arange(
        -unit * np.ceil(chords[0].start / unit) + chords[0].start, end - 1e-6, unit
    ):
        for i, what in enumerate(steps):
            beat = begin + i * step
            chord = _at(chords, beat)
            if (
                what == "-"
                or beat < -1e-6
                or beat >= end - 1e-6
                or beat < chord.start - 1e-6
                or not chord.tones
            ):
                continue
            held = step * (1 + len(steps[i + 1 :]) - len(steps[i + 1 :].lstrip("-")))
            held = min(held, max(chord.start + chord.duration - beat, step))
            strong = 0.62 if i == 0 else 0.5
            for n, pitch in enumerate(_voicing(what, chord, floor, low, root)):
                stagger = {"D": 0.02 * n, "U": 0.02 * (3 - n)}.get(what, 0.0)
                notes.append((beat + stagger, 0.93 * held, pitch, strong))
    notes += [
        (end + 0.03 * n, work.bar, p, 0.6)
        for n, p in enumerate(_voicing("C", chords[-1], floor, low, root))
    ]
    return notes


def _voicing(what: str, chord: Chord, floor: int, low: int, tonic: int) -> list[int]:
    """Pitches of one step of a pattern."""
    base = max(low, floor - 12)
    if what in "BF":
        return [base + (chord.root + (7 if what == "F" else 0) - base) % 12]
    if what == "T":
        return [base + (tonic - base) % 12, base + (tonic - base) % 12 + 7]
    tones = sorted(floor + (chord.root + tone - floor) % 12 for tone in chord.tones)
    if what in "0123":
        return [tones[int(what) % len(tones)] + 12 * (int(what) // len(tones))]
    return tones


def _bass(
    rng: np.random.Generator,
    chords: Sequence[Chord],
    end: float,
    work: Work,
    arrangement: Arrangement,
) -> list[tuple[float, float, int, float]]:
    """Root and fifth, or a line that walks through the chord to the next root."""
    kind, _ = _metre(work)
    pace = {"compound": 1.5, "single": 1.5, "triple": 3.0, "duple": 1.0}[kind]
    if arrangement.bass == "walking" and kind in ("triple", "duple"):
        pace = 1.0
    start = chords[0].start
    notes = []
    for i, beat in enumerate(np.arange(start, end - 1e-6, pace)):
        chord, following = _at(chords, beat), _at(chords, beat + pace)
        if not chord.tones:
            continue
        choices = (
            (0, 7) if arrangement.bass == "two-beat" else (0, chord.tones[1], 7, chord.tones[1])
        )
        pitch = 33 + (chord.root + choices[i % len(choices)] - 33) % 12
        if arrangement.bass == "walking" and following.root != chord.root:
            pitch = 33 + (following.root - 33) % 12 + int(rng.choice([-2, -1, 1]))
        if abs(beat - chord.start) < 1e-6:
            pitch = 33 + (chord.root - 33) % 12
        notes.append((float(beat), 0.85 * pace, pitch, 0.7))
    return [*notes, (end, work.bar, 33 + (chords[-1].root - 33) % 12, 0.7)]


def _hits(
    rng: np.random.Generator, work: Work, arrangement: Arrangement, end: float, clock: Clock
) -> Iterator[tuple[float, str, float]]:
    """(seconds, drum, loudness) of every hit."""
    kind, unit = _metre(work)
    if kind == "duple" and work.tempo * arrangement.tempo_factor > 132:
        unit *= 2
    steps = _DRUMS[arrangement.drums][kind]
    for begin in np.arange(0, end - 1e-6, unit):
        for i, what in enumerate(steps):
            if what != "-":
                second = float(clock(np.array([begin + i * unit / len(steps)]))[0])
                loudness = (0.9 if i == 0 else 0.6) * rng.uniform(0.75, 1.1)
                yield second + rng.normal(0, 0.5 * arrangement.timing), _HITS[what], loudness


def _clock(
    rng: np.random.Generator, arrangement: Arrangement, beat: float, end: float, bar: float
) -> Clock:
    """Quarter notes -> seconds: slow waves of tempo whose mean is 1, a longer last bar, and
    swing.
    """
    grid = np.linspace(0.0, end, max(int(8 * end), 2))
    phase = rng.uniform(0, 2 * np.pi, 3)
    waves = sum(
        np.sin(2 * np.pi * grid / (bar * n) + p)
        for n, p in zip((4.0, 7.3, 1.0), phase, strict=True)
    )
    slowness = 1 + arrangement.rubato * np.asarray(waves) / 1.5
    slowness *= 1 / np.trapezoid(slowness, grid) * end
    seconds = (
        np.concatenate([[0.0], np.cumsum(0.5 * (slowness[1:] + slowness[:-1]) * np.diff(grid))])
        * beat
    )
    slow = 1 + 4 * arrangement.rubato

    def clock(beats: np.ndarray) -> np.ndarray:
        part = beats % 1.0
        late = arrangement.swing * np.interp(part, [0.0, 0.5, 1.0], [0.0, 1.0, 0.0])
        late = np.where(part < 0.02, 0.0, late)
        after = np.maximum(beats - end, 0) * beat * slow
        return _BREATH + np.interp(np.minimum(beats + late, end), grid, seconds) + after

    return clock


def _timed(
    rng: np.random.Generator, notes: Sequence, arrangement: Arrangement, clock: Clock
) -> tuple[Event, ...]:
    """Notes in beats -> events in seconds, with human timing and dynamics."""
    table = np.array(notes, float)
    starts = clock(table[:, 0]) + rng.normal(0, arrangement.timing, len(table))
    ends = clock(table[:, 0] + table[:, 1])
    phrase = 0.07 * np.sin(2 * np.pi * table[:, 0] / 16 + rng.uniform(0, 6))
    loudness = (table[:, 3] + phrase + rng.normal(0, 0.05, len(table))).clip(0.15, 1.0)
    durations = np.maximum(ends - clock(table[:, 0]), 0.04)
    return tuple(
        Event(*map(float, row))
        for row in zip(starts, durations, table[:, 2], loudness, strict=True)
    )
