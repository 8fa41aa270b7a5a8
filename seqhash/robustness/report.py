"""The robustness report: from the dict of ``robustness.json`` to a text table, pictures, and one
HTML page.

``experiments.robustness`` measures, this shows; nothing is computed here but plain means over
degradations. The page
is a single file: pictures and sounds are inside it as data URIs, there is no script, and it needs
no network. Rates are [0, 1] in the dict and per cent in whatever is shown; what is null there is
"-" here.
"""

import base64
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from seqhash import figures
from seqhash.robustness.figures import (
    NONE,
    Result,
    cells_of,
    chosen_length,
    drawn,
    hit_of,
    known,
    lengths_of,
    mean_of,
    percent,
)
from seqhash.robustness.figures import pictures as pictures

EXAMPLE_SECONDS = 10.0  # longer examples are cut
LONG = 24  # letters, of a cell that may be broken into lines


class Column(NamedTuple):
    """A column of the rows: what it is called, how it is written, what it means."""

    title: str
    text: Callable[[Mapping[str, Any]], str]
    meaning: str


def _number(value: float | None) -> str:
    return f"{value:.{1 if value < 1000 else 0}f}" if known(value) else NONE


def _bytes(value: float | None) -> str:
    return f"{value:.4g}" if known(value) else NONE


def _interval(row: Mapping[str, Any]) -> str:
    return (
        f"{percent(row['hit_low'])} to {percent(row['hit_high'])}"
        if known(row["hit_low"])
        else NONE
    )


COLUMNS = (
    Column("system", lambda row: row["system"], "The fingerprint and its search."),
    Column(
        "degradation",
        lambda row: row["degradation"],
        "What was done to the queries; the index is always clean.",
    ),
    Column("length, s", lambda row: f"{row['length']:g}", "Length of a query in seconds."),
    Column(
        "queries",
        lambda row: str(row["queries"]),
        "Excerpts asked; every system gets the same ones.",
    ),
    Column(
        "hit, %",
        lambda row: percent(row["hit"]),
        "Queries whose best answer is the right recording (top-1).",
    ),
    Column("95 % of hit", _interval, "95 % interval of the hit rate, by resampling recordings."),
    Column(
        "near, %",
        lambda row: percent(row["near"]),
        "Queries whose best answer is right to within 0.5 s of the place.",
    ),
    Column(
        "hit at 1 %",
        lambda row: percent(row["hit_at_1_percent_false"]),
        "Hit rate in % if each system only answers above a score that 1 % of foreign queries reach. The score is set "
        "for each length on recordings, noises and rooms that these cells do not use, so this compares systems fairly.",
    ),
    Column(
        "false, %",
        lambda row: percent(row["false_positive"]),
        "False positives: queries from recordings that are left out of the index and get an answer all the same, at "
        "the system's own default threshold.",
    ),
    Column(
        "bits true, %",
        lambda row: percent(row["bit_error_true"]),
        "Bit error rate between a query and its true place in its recording; - for systems without bits.",
    ),
    Column(
        "bits random, %",
        lambda row: percent(row["bit_error_random"]),
        "The same against places of other recordings: 50 would be coin flips. The further apart the two, the easier "
        "the decision.",
    ),
    Column(
        "bytes/s",
        lambda row: _bytes(row["bytes_per_second"]),
        "Bytes of fingerprint for each second of audio indexed; - where an outside program does not say.",
    ),
    Column(
        "ms/query",
        lambda row: _number(row["ms_per_query"]),
        "Processor time for one query, fingerprint and search, on the machine named below.",
    ),
)


def table(result: Result, *, length: float | None = None) -> str:
    """For the screen: the columns of every row of one length, then hit rates in per cent,
    degradations by systems.

    ``length``, seconds, is the middle one by default. ValueError if the result lacks a part or has
    no such length.
    """
    cells, length = cells_of(result), chosen_length(result, length)
    rows = [
        cells[s, d, length]
        for s in result["systems"]
        for d in result["degradations"]
        if (s, d, length) in cells
    ]
    full = _aligned(
        [c.title for c in COLUMNS], [[c.text(row) for c in COLUMNS] for row in rows], left=2
    )
    names = list(result["systems"])
    lines = [
        [d, *(percent(hit_of(cells, s, d, length)) for s in names)] for d in result["degradations"]
    ]
    lines.append(["mean", *(percent(mean_of(result, s, length)) for s in names)])
    hits = _aligned(["degradation", *names], lines, left=1)
    return f"{full}\n\nHit rates in %, queries of {length:g} s\n\n{hits}"


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Columns as wide as their widest entry; the first ``left`` flush left, the others flush
    right.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html(result: Result, workdir: str | Path) -> Path:
    """Writes ``workdir``/report.html and beside it the ``pictures`` that are inside it; returns the
    page's path.

    Examples are read from ``workdir`` and put in as MP3; one that cannot be read is named on the
    page, with the reason. ValueError as ``table``.
    """
    workdir = Path(workdir)
    paths: dict[str, list[tuple[str, Path]]] = {}
    for picture in drawn(result):
        path = figures._save(picture.figure, workdir / picture.name)
        paths.setdefault(picture.section, []).append((picture.alt, path))
    sections, links = "", ""
    for name, part in _parts(result, workdir, paths).items():
        title, text = _SECTIONS[name]
        sections += f'<section id="{name}"><h2>{title}</h2><p>{text}</p>{part}</section>\n'
        links += f'<a href="#{name}">{title}</a> '
    page = _PAGE.format(style=_STYLE, lead=_lead(result), navigation=links, main=sections)
    path = workdir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _parts(
    result: Result, workdir: Path, paths: Mapping[str, Sequence[tuple[str, Path]]]
) -> dict[str, str]:
    """The sections that have something to show, by their names in ``_SECTIONS``."""
    sounds = "".join(_sounds(result, workdir))
    parts = {
        "summary": _table(*_summary(result)),
        "hits": "".join(_folded_images(result, paths["hits"])),
        "snr": _images(paths.get("snr", ()))
        + (_table(*_half_found(result)) if result["half_found_snr"] else ""),
        "lengths": _images(paths.get("lengths", ())),
        "bits": _images(paths.get("bits", ())),
        "differences": "".join(_differences(result)),
        "numbers": _meanings() + "".join(_numbers(result)),
        "examples": f'<div class="sounds">{sounds}</div>' if sounds else "",
        "made": _made(result),
    }
    return {name: part for name, part in parts.items() if part}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, bar: int | None = None) -> str:
    """Rows that begin with the same cell stand together; the numbers of column ``bar`` have a bar
    behind them.
    """
    body, titles = "", ""
    for first, group in groupby(rows, key=lambda row: row[0]):
        lines = list(group)
        cells = ["".join(_cell(text, i == bar) for i, text in enumerate(row) if i) for row in lines]
        scope = "rowgroup" if len(lines) > 1 else "row"
        name = f'<th scope="{scope}" rowspan="{len(lines)}">{escape(first)}</th>'
        body += f"<tbody><tr>{name}{'</tr><tr>'.join(cells)}</tr></tbody>"
        titles = titles or "".join(map(_heading, head, lines[0]))
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{titles}</tr></thead>{body}</table></div>'


def _cell(text: str, bar: bool) -> str:
    """Words stand to the left, numbers to the right."""
    if text[:1].isalpha():
        return f'<td class="words{" long" * (len(text) > LONG)}">{escape(text)}</td>'
    style = f' class="bar" style="--share:{text}%"' if bar and text != NONE else ""
    return f"<td{style}>{escape(text)}</td>"


def _heading(title: str, below: str) -> str:
    return f'<th scope="col"{" class=words" * below[:1].isalpha()}>{escape(title)}</th>'


def _images(pairs: Iterable[tuple[str, Path]]) -> str:
    images = "".join(
        f'<img src="{_data_uri("image/png", path.read_bytes())}" alt="{escape(alt)}">'
        for alt, path in pairs
    )
    return f'<div class="pictures" tabindex="0">{images}</div>' if images else ""


def _folded_images(result: Result, pairs: Sequence[tuple[str, Path]]) -> Iterator[str]:
    """One for each length; the middle one is open."""
    for length, pair in zip(lengths_of(result), pairs, strict=True):
        yield _folded(
            f"Queries of {length:g} s",
            _images([pair]),
            opened=length == chosen_length(result, None),
        )


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _lead(result: Result) -> str:
    """The numbers of all, and which system finds most; there may be several."""
    length, cells = chosen_length(result, None), cells_of(result)
    means = {system: percent(mean_of(result, system, length)) for system in result["systems"]}
    most = max(means.values(), key=lambda text: -1.0 if text == NONE else float(text))
    best = [system for system, mean in means.items() if mean == most]
    first = next(iter(result["degradations"]))
    hits = ", ".join(percent(hit_of(cells, system, first, length)) for system in best)
    count, lengths = len(result["degradations"]), ", ".join(f"{n:g}" for n in lengths_of(result))
    return escape(
        f"{len(means)} system{'s' * (len(means) != 1)} and the same excerpts of {lengths} s for each, under {count} "
        f"degradation{'s' * (count != 1)}. Most is found by {', '.join(best)}: at {length:g} s, {most} % in the mean "
        f"of all degradations, {hits} % of {first}."
    )


def _summary(result: Result) -> tuple[list[str], list[list[str]]]:
    lengths, middle = lengths_of(result), chosen_length(result, None)
    head = [
        "system",
        *(f"{n:g} s, %" for n in lengths),
        f"{middle:g} s at 1 %",
        f"false, {middle:g} s",
    ]
    rows = []
    for system, entry in result["systems"].items():
        means = [mean_of(result, system, n) for n in lengths]
        others = [
            mean_of(result, system, middle, name)
            for name in ("hit_at_1_percent_false", "false_positive")
        ]
        time = _number(mean_of(result, system, middle, "ms_per_query"))
        about = [_bytes(entry["bytes_per_second"]), time, entry["description"]]
        rows.append([system, *map(percent, [*means, *others]), *about])
    return [*head, "bytes/s", f"ms, {middle:g} s", "what it is"], rows


def _half_found(result: Result) -> tuple[list[str], list[list[str]]]:
    found = {(one["noise"], one["length"], one["system"]): one for one in result["half_found_snr"]}
    rows = []
    for noise, length in dict.fromkeys((noise, length) for noise, length, _ in found):
        cells = (found.get((noise, length, system)) for system in result["systems"])
        rows.append([noise, f"{length:g}", *(NONE if one is None else _snr(one) for one in cells)])
    return ["noise", "length, s", *result["systems"]], rows


def _snr(one: Mapping[str, Any]) -> str:
    return _signed(one["snr_db"]) if known(one["snr_db"]) else one["note"] or NONE


def _signed(value: float | None) -> str:
    return f"{value:+.1f}".replace("-", "\u2212") if known(value) else NONE


def _points(value: float | None) -> str:
    return _signed(100 * value) if known(value) else NONE


def _differences(result: Result) -> Iterator[str]:
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in result["differences"]:
        pairs.setdefault((one["a"], one["b"]), []).append(one)
    for (a, b), ones in pairs.items():
        # Null and NaN are neither.
        better, worse = (
            sum(known(one[end]) and sign * one[end] > 0 for one in ones)
            for end, sign in (("low", 1), ("high", -1))
        )
        title = f"{a} against {b}: better in {better}, worse in {worse} of {len(ones)} cells"
        lengths = sorted({one["length"] for one in ones})
        cells = {(one["degradation"], one["length"]): one for one in ones}
        rows = [
            [name, *(_difference(cells.get((name, length))) for length in lengths)]
            for name in dict.fromkeys(one["degradation"] for one in ones)
        ]
        yield _folded(
            title, _table(["points (95 %)", *(f"{length:g} s" for length in lengths)], rows)
        )


def _difference(one: Mapping[str, Any] | None) -> str:
    if one is None or not known(one["value"]):
        return NONE
    return f"{_points(one['value'])} ({_points(one['low'])} to {_points(one['high'])})"


def _folded(title: str, content: str, *, opened: bool = False) -> str:
    return (
        f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{content}</details>"
    )


def _meanings() -> str:
    return _folded(
        "What the columns mean", _facts({c.title: c.meaning for c in COLUMNS}), opened=True
    )


def _numbers(result: Result) -> Iterator[str]:
    cells = cells_of(result)
    columns = (
        COLUMNS[1],
        COLUMNS[0],
        *COLUMNS[3:],
    )  # by degradation, so that systems stand side by side
    for length in lengths_of(result):
        keys = (
            (system, name, length)
            for name in result["degradations"]
            for system in result["systems"]
        )
        rows = ([column.text(cells[key]) for column in columns] for key in keys if key in cells)
        content = _table([column.title for column in columns], rows, bar=3)
        yield _folded(
            f"Queries of {length:g} s", content, opened=length == chosen_length(result, None)
        )


def _sounds(result: Result, workdir: Path) -> Iterator[str]:
    for one in result["examples"]:
        name, entry = one["degradation"], result["degradations"].get(one["degradation"], {})
        about = f"<figcaption><b>{escape(name)}</b> {escape(entry.get('description') or '')}</figcaption>"
        try:
            source = _data_uri("audio/mpeg", _mp3(workdir / one["path"]))
            sound = f'<audio controls preload="metadata" src="{source}" aria-label="{escape(name)}"></audio>'
        except (OSError, soundfile.SoundFileError, ValueError) as error:
            sound = f"<p>{escape(one['path'])} cannot be played: {escape(str(error))}</p>"
        yield f"<figure>{about}{sound}</figure>"


def _mp3(path: Path) -> bytes:
    """The start of a sound as MP3, about 64 kbit/s at 16 kHz: every browser plays it, and it is
    small.
    """
    with path.open(
        "rb"
    ) as file:  # OSError names what is wrong with the file; libsndfile says "System error."
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = samples[: round(EXAMPLE_SECONDS * rate)].mean(axis=1)
    if not len(mono):
        raise ValueError("it is empty.")
    out = io.BytesIO()
    options = {"compression_level": 0.6, "bitrate_mode": "CONSTANT"}
    soundfile.write(out, mono, rate, "MPEG_LAYER_III", format="MP3", **options)
    return out.getvalue()


def _made(result: Result) -> str:
    facts = {
        "machine": result["machine"],
        "time": f"{result['seconds']:.0f} s",
        **result["settings"],
    }
    entries = [
        [name, one["family"], _say(one["strength"]), one["description"]]
        for name, one in result["degradations"].items()
    ]
    parts = [
        f'<pre tabindex="0">{escape(result["command"])}</pre>',
        "<h3>Settings</h3>" + _facts(facts),
        "<h3>Versions</h3>" + _facts(result["versions"]),
        "<h3>Degradations</h3>" + _table(["name", "family", "strength", "what it does"], entries),
    ]
    if result["skipped"]:
        parts.append("<h3>Skipped files</h3>" + _table(["file", "reason"], result["skipped"]))
    return "".join(parts)


def _facts(facts: Mapping[str, Any]) -> str:
    entries = (
        f"<dt>{escape(name)}</dt><dd>{escape(_say(value))}</dd>" for name, value in facts.items()
    )
    return f"<dl>{''.join(entries)}</dl>"


def _say(value: Any) -> str:
    """A JSON value in words: {"indexed": 54, "left out": 6} is "indexed 54, left out 6"."""
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_say(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_say, value)) or NONE
    return value if isinstance(value, str) else json.dumps(value)


_SECTIONS = {
    "summary": (
        "In short",
        "Hit rates by length of the query: best answers with the right recording. All are plain means over all "
        "degradations, so hard and easy ones count alike. <i>At 1&nbsp;%</i> is the hit rate when the threshold of "
        "every system lets 1&nbsp;% false alarms pass; <i>false</i> are the queries in per cent that are not in the "
        "index and get an answer at the system's own threshold; <i>ms</i> is processor time for one query.",
    ),
    "hits": (
        "Hit rates",
        "Queries in per cent whose best answer is the right recording. White lines part the families of degradations. "
        "The intervals are in the tables below.",
    ),
    "snr": (
        "Noise",
        "At 0 dB SNR music and noise are equally strong; to the left the noise is stronger. Bars are 95&nbsp;% "
        "intervals by resampling recordings. Crosses mark where half of the queries are found; the table has that SNR "
        "in dB: the lower, the more noise a system bears.",
    ),
    "lengths": (
        "Query length",
        "How much a longer query helps, at the middle strength of each family of degradations. Bars are 95&nbsp;% "
        "intervals.",
    ),
    "bits": (
        "Bit errors",
        "How many bits differ between queries and their true places (blue), and random places (orange). A threshold "
        "can part what does not overlap. Systems that do not compare bits are not here.",
    ),
    "differences": (
        "Differences between systems",
        "Hit rate of the first system less that of the second, in points of per cent, with 95&nbsp;% intervals of the "
        "paired bootstrap: all systems got the same clips. Better and worse count the cells whose interval does not "
        "include 0; with many cells, one in forty is so in either direction by chance alone.",
    ),
    "numbers": ("All numbers", "Each line is one system under one degradation."),
    "examples": (
        "Listen",
        "What the queries sound like. The sounds are MP3 of 64 kbit/s inside this page.",
    ),
    "made": ("How it was made", "This command makes the report again:"),
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Robustness report of seqhash</title>
<style>{style}</style>
</head>
<body>
<header><h1>Robustness of audio fingerprints</h1><p>{lead}</p><nav aria-label="Sections">{navigation}</nav></header>
<main>{main}</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #5b6570; --back: #fff; --box: #f4f6f8; --line: #d5dbe1;
  --link: #0b5cad; --bar: #cfe3f5; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #9fabb6; --back: #14181c; --box: #1e242a;
  --line: #38424b; --link: #7cbcf5; --bar: #1f4468; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; color: var(--text); background: var(--back);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { line-height: 1.2; margin: 0.5rem 0; } h2 { margin: 2.5rem 0 0.25rem; }
header p, section > p { max-width: 46rem; }
a { color: var(--link); } nav a { display: inline-block; margin: 0 0.75rem 0.25rem 0; }
.scroll, pre { overflow: auto; max-height: 80vh; max-width: 100%; border: 1px solid var(--line); border-radius: 6px;
  background: var(--box); margin: 0.75rem 0; width: fit-content; }
pre { padding: 0.75rem; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; vertical-align: top; }
thead th { position: sticky; top: 0; z-index: 1; background: var(--box); border-bottom: 1px solid var(--line);
  color: var(--soft); }
th:first-child { text-align: left; } tbody th { position: sticky; left: 0; background: var(--box); font-weight: 600; }
thead th:first-child { left: 0; z-index: 2; }
tbody + tbody > tr:first-child > * { border-top: 1px solid var(--line); }
.words { text-align: left; } .long { white-space: normal; min-width: 11rem; }
.bar { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); }
.pictures { display: grid; gap: 1rem; overflow-x: auto; }
img { display: block; max-width: 100%; min-width: 34rem; height: auto; border-radius: 6px;
  border: 1px solid var(--line); background: #fff; }
details { margin: 0.5rem 0; } summary { cursor: pointer; font-weight: 600; padding: 0.25rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; max-width: 60rem; } dd { margin: 0; }
dt { font-weight: 600; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } audio { width: 100%; } figcaption { color: var(--soft); font-size: 0.875rem; }
figcaption b { color: var(--text); }
@media (max-width: 40rem) { dl { display: block; } dd { margin: 0 0 0.5rem; } tbody th, thead th:first-child {
  min-width: 6.5rem; max-width: 10.5rem; white-space: normal; } }
@media print { .scroll, pre { max-height: none; } }
"""
