"""Tunes written in a subset of ABC 2.1 (https://abcnotation.com/wiki/abc:standard:v2.1) ->
``Work``.

Header of a tune, in any order, K last: ``X`` number (begins a tune), ``F`` id of the work, ``T``
title, ``C`` composer, ``G`` genre, ``M`` metre, ``L`` unit length, ``Q`` tempo (``1/4=104``), ``P``
usual order of the parts, ``K`` key (``G``, ``Bb``, ``F#m``, ``Ddor``). The tune: ``P:A`` begins
part A; notes ``C D, c'`` with ``^ = _``, which hold to the end of the bar; lengths ``c2 c/ c3/2``;
broken rhythm ``c>d c<d``; rests ``z``; ties ``c-``; chords ``"Am"`` before a note, in force until
the next (``"NC"``: none); bar lines ``|``; ``%`` begins a comment. Repeats, slurs and tuplets are
not read.

A part is a whole number of bars: it may begin with a pickup, which its last bar is then short of,
and all parts of a work have the same pickup, so that they follow one another in any order. Times
are quarter notes from the first full bar's start; a pickup has negative times.
"""

import re
from fractions import Fraction
from typing import NamedTuple

_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHARPS = {
    "C": 0,
    "D": 2,
    "E": 4,
    "F": -1,
    "G": 1,
    "A": 3,
    "B": 5,
}  # of the major key on that letter
_MODES = {"": 0, "m": -3, "dor": -2}  # sharps more than the major key on the same note
_SCALES = {"": (0, 2, 4, 5, 7, 9, 11), "m": (0, 2, 3, 5, 7, 8, 10), "dor": (0, 2, 3, 5, 7, 9, 10)}
_KINDS = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "dim": (0, 3, 6),
    "6": (0, 4, 7, 9),
}
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<bar>\|)|"(?P<chord>[^"]*)"|(?P<broken>[<>])|(?P<tie>-)"""
    r"""|(?P<accidental>[\^_=]?)(?P<letter>[A-Ga-gz])(?P<octave>[,']*)(?P<length>\d*(?:/\d*)?)"""
)


class Note(NamedTuple):
    start: float  # quarter notes
    duration: float  # quarter notes
    pitch: int  # MIDI number, middle C = 60


class Chord(NamedTuple):
    start: float  # quarter notes
    duration: float  # quarter notes
    root: int  # pitch class
    tones: tuple[int, ...]  # semitones above the root; () is no chord


class Part(NamedTuple):
    name: str
    bars: int
    notes: tuple[Note, ...]
    chords: tuple[Chord, ...]  # from bar 1 to the end, without gaps


class Work(NamedTuple):
    work_id: str
    title: str
    composer: str
    genre: str
    metre: tuple[int, int]
    tempo: float  # quarter notes a minute
    tonic: int  # pitch class
    scale: tuple[int, ...]  # semitones above the tonic
    order: str  # names of the parts as they are usually played
    parts: tuple[Part, ...]

    @property
    def bar(self) -> float:
        """Quarter notes of a bar."""
        return 4 * self.metre[0] / self.metre[1]


class _Line(NamedTuple):
    number: int
    field: str  # "" for music
    text: str


def parse(text: str, *, name: str) -> tuple[Work, ...]:
    """All tunes of a text.

    Raises:
      ValueError: what is wrong, with ``name`` and the number of the line.
    """
    tunes: list[list[_Line]] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        content = raw.split("%")[0].strip()
        match = re.fullmatch(r"([A-Z]):\s*(.*)", content)
        line = _Line(number, *match.groups()) if match else _Line(number, "", content)
        if line.field == "X":
            tunes.append([])
        if content and not tunes:
            raise ValueError(f"{name}, line {number}: a tune begins with X:, got {content!r}.")
        if content:
            tunes[-1].append(line)
    works = tuple(_tune(lines, name) for lines in tunes)
    ids = [work.work_id for work in works]
    for index, (lines, work) in enumerate(zip(tunes, works, strict=True)):
        if work.work_id in ids[:index]:
            raise ValueError(
                f"{name}, line {lines[0].number}: a second tune with F:{work.work_id}."
            )
    return works


def _tune(lines: list[_Line], name: str) -> Work:
    end = next((i + 1 for i, line in enumerate(lines) if line.field == "K"), None)
    if end is None:
        raise ValueError(f"{name}, line {lines[0].number}: this tune has no K: line.")
    header = {line.field: line for line in lines[:end]}
    missing = [field for field in "FTCGMLQP" if field not in header]
    if missing:
        raise ValueError(
            f"{name}, line {lines[0].number}: this tune has no "
            f"{', '.join(f + ':' for f in missing)} line."
        )

    def read(field: str, pattern: str, meaning: str) -> tuple[str, ...]:
        match = re.fullmatch(pattern, header[field].text)
        if not match:
            raise ValueError(
                f"{name}, line {header[field].number}: {meaning} expected, "
                f"got {header[field].text!r}."
            )
        return match.groups()

    (work_id,) = read("F", r"([a-z0-9_]+)", "an id of a-z, 0-9 and _")
    beats, unit = map(int, read("M", r"([1-9]\d*)/([1-9]\d*)", "a metre such as 3/4"))
    length = Fraction(*map(int, read("L", r"([1-9]\d*)/([1-9]\d*)", "a length such as 1/8")))
    beat, per_minute = read("Q", r"([1-9]\d*/[1-9]\d*)=([1-9]\d*)", "a tempo such as 1/4=104")
    letter, sign, mode = read("K", r"([A-G])([#b]?)(m|dor|)", "a key such as F#m")
    accident = {"#": 1, "b": -1, "": 0}[sign]
    sharps = _SHARPS[letter] + 7 * accident + _MODES[mode]
    signature = {s: (i < sharps) - (i >= 7 + sharps) for i, s in enumerate("FCGDAEB")}
    bar = Fraction(beats, unit)
    parts = _parts(lines[end:], name, lines[end - 1].number, 4 * bar, 4 * length, signature)
    unknown = sorted(set(header["P"].text) - {part.name for part in parts})
    if unknown:
        raise ValueError(
            f"{name}, line {header['P'].number}: no part {', '.join(unknown)} in this tune."
        )
    return Work(
        work_id,
        header["T"].text,
        header["C"].text,
        header["G"].text,
        (beats, unit),
        float(4 * Fraction(beat) * int(per_minute)),
        (_STEPS[letter] + accident) % 12,
        _SCALES[mode],
        header["P"].text,
        parts,
    )


def _parts(
    lines: list[_Line],
    name: str,
    last: int,
    bar: Fraction,
    length: Fraction,
    signature: dict[str, int],
) -> tuple[Part, ...]:
    blocks: list[tuple[_Line, list[_Line]]] = []
    for line in lines:
        last = line.number
        if line.field == "P":
            blocks.append((line, []))
        elif line.field or not blocks:
            raise ValueError(
                f"{name}, line {line.number}: P:A or music of a part expected, got {line.text!r}."
            )
        else:
            blocks[-1][1].append(line)
    if not blocks:
        raise ValueError(f"{name}, line {last}: this tune has no part (P:A).")
    parts, pickups = [], []
    for head, music in blocks:
        part, pickup = _part(head, music, name, bar, length, signature)
        parts.append(part)
        pickups.append(pickup)
        if pickup != pickups[0]:
            raise ValueError(
                f"{name}, line {head.number}: the pickup of part {part.name} is {pickup} quarter "
                f"notes, that of part {parts[0].name} is {pickups[0]}."
            )
    return tuple(parts)


def _part(
    head: _Line,
    lines: list[_Line],
    name: str,
    bar: Fraction,
    length: Fraction,
    signature: dict[str, int],
) -> tuple[Part, Fraction]:
    """One part and its pickup in quarter notes."""
    notes: list[tuple[Fraction, Fraction, int]] = []  # start from the part's first note
    chords: list[tuple[Fraction, str]] = []
    bars: list[tuple[Fraction, int]] = []  # length, line
    held: dict[tuple[str, str], int] = {}
    now = begin = Fraction(0)
    factor, tied = Fraction(1), False  # left by a broken rhythm; by a tie
    for line in lines:
        for token in _tokens(line, name):
            if token["bar"]:
                bars.append((now - begin, line.number))
                begin, held = now, {}
            elif token["chord"] is not None:
                _chord(token["chord"], f"{name}, line {line.number}")
                chords.append((now, token["chord"]))
            elif token["broken"]:
                change = Fraction(1, 2) if token["broken"] == ">" else Fraction(-1, 2)
                if not notes or notes[-1][0] + notes[-1][1] != now:
                    raise ValueError(
                        f"{name}, line {line.number}: {token['broken']} stands behind a note."
                    )
                start, duration, pitch = notes[-1]
                notes[-1] = (start, duration * (1 + change), pitch)
                now, factor = now + duration * change, 1 - change
            elif token["tie"]:
                if not notes:
                    raise ValueError(f"{name}, line {line.number}: a tie stands behind a note.")
                tied = True
            else:
                duration = _length(token["length"], f"{name}, line {line.number}") * length * factor
                factor = Fraction(1)
                if token["letter"] != "z":
                    pitch = _pitch(token, held, signature)
                    if tied and notes[-1][2] != pitch:
                        raise ValueError(
                            f"{name}, line {line.number}: a tie joins two notes of one pitch."
                        )
                    if tied:
                        notes[-1] = (notes[-1][0], notes[-1][1] + duration, pitch)
                    else:
                        notes.append((now, duration, pitch))
                now, tied = now + duration, False
    if now != begin or not notes:
        number = lines[-1].number if lines else head.number
        raise ValueError(f"{name}, line {number}: a part has notes and ends with a bar line.")
    pickup = _check_bars(bars, name, bar)
    spans = _spans(chords, pickup, now, f"{name}, line {head.number}")
    part = Part(
        head.text,
        int(now / bar),
        tuple(Note(float(s - pickup), float(d), p) for s, d, p in notes),
        spans,
    )
    return part, pickup


def _check_bars(bars: list[tuple[Fraction, int]], name: str, bar: Fraction) -> Fraction:
    """The pickup; every other bar must be full, and the last one short of the pickup."""
    pickup = bars[0][0] if bars[0][0] < bar else Fraction(0)
    expected = [bar] * len(bars)
    if pickup:
        expected[0], expected[-1] = pickup, bar - pickup
    for (got, number), want in zip(bars, expected, strict=True):
        if got != want:
            raise ValueError(
                f"{name}, line {number}: a bar of {want} quarter notes expected, got {got}."
            )
    return pickup


def _spans(
    chords: list[tuple[Fraction, str]], pickup: Fraction, end: Fraction, where: str
) -> tuple[Chord, ...]:
    if not chords or chords[0][0] > pickup:
        raise ValueError(f"{where}: a part begins with a chord.")
    starts = [max(start - pickup, Fraction(0)) for start, _ in chords] + [
        end
    ]  # the last chord also covers a next pickup
    spans = [
        (a, b, symbol)
        for a, b, (_, symbol) in zip(starts[:-1], starts[1:], chords, strict=True)
        if b > a
    ]
    return tuple(Chord(float(a), float(b - a), *_chord(symbol, where)) for a, b, symbol in spans)


def _tokens(line: _Line, name: str) -> list[re.Match[str]]:
    found, position = [], 0
    while position < len(line.text):
        token = _TOKEN.match(line.text, position)
        if not token:
            raise ValueError(f"{name}, line {line.number}: cannot read {line.text[position:]!r}.")
        position = token.end()
        if not token["space"]:
            found.append(token)
    return found


def _length(text: str, where: str) -> Fraction:
    above, slash, below = text.partition("/")
    if above == "0" or below == "0":
        raise ValueError(f"{where}: a length is not 0, got {text!r}.")
    return Fraction(int(above or 1), int(below or 2) if slash else 1)


def _pitch(
    token: re.Match[str], held: dict[tuple[str, str], int], signature: dict[str, int]
) -> int:
    letter = token["letter"]
    place = (letter, token["octave"])
    if token["accidental"]:
        held[place] = {"^": 1, "_": -1, "=": 0}[token["accidental"]]
    octave = 12 * (token["octave"].count("'") - token["octave"].count(",") + letter.islower())
    return 60 + _STEPS[letter.upper()] + octave + held.get(place, signature[letter.upper()])


def _chord(symbol: str, where: str) -> tuple[int, tuple[int, ...]]:
    if symbol == "NC":
        return 0, ()
    match = re.fullmatch(r"([A-G])([#b]?)(.*)", symbol)
    if not match or match[3] not in _KINDS:
        raise ValueError(
            f"{where}: a chord is a root with one of {', '.join(_KINDS)}, or NC; got {symbol!r}."
        )
    return (_STEPS[match[1]] + {"#": 1, "b": -1, "": 0}[match[2]]) % 12, _KINDS[match[3]]
