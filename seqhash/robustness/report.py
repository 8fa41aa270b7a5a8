"""The robustness report: from the dict of ``robustness.json`` to a text table, pictures, and one
HTML page.

``experiments.robustness`` measures, this shows; nothing is computed here but plain means over
degradations. What the page says and how it looks is in ``templates/``. It is a single file:
pictures and sounds are inside it as data URIs, there is no script, and it needs no network. Rates
are [0, 1] in the dict and per cent in whatever is shown; what is null there is "-" here.
"""

import base64
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from seqhash import style, tables
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

EXAMPLE_SECONDS = 10.0  # longer examples are cut


class Column(NamedTuple):
    """A column of the rows: what it is called, and how it is written."""

    title: str
    text: Callable[[Mapping[str, Any]], str]


class Table(NamedTuple):
    """A table of the page: rows that begin with the same cell are one group."""

    head: Sequence[str]
    groups: list[list[Sequence[str]]]


def _number(value: float | None) -> str:
    return f"{value:.{1 if value < 1000 else 0}f}" if known(value) else NONE


def _bytes(value: float | None) -> str:
    return f"{value:.4g}" if known(value) else NONE


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["hit_low"], row["hit_high"]
    return f"{percent(low)} to {percent(high)}" if known(low) else NONE


COLUMNS = (  # what they mean is in the template
    Column("system", lambda row: row["system"]),
    Column("degradation", lambda row: row["degradation"]),
    Column("length, s", lambda row: f"{row['length']:g}"),
    Column("queries", lambda row: str(row["queries"])),
    Column("hit, %", lambda row: percent(row["hit"])),
    Column("95 % of hit", _interval),
    Column("near, %", lambda row: percent(row["near"])),
    Column("hit at 1 %", lambda row: percent(row["hit_at_1_percent_false"])),
    Column("false, %", lambda row: percent(row["false_positive"])),
    Column("bits true, %", lambda row: percent(row["bit_error_true"])),
    Column("bits random, %", lambda row: percent(row["bit_error_random"])),
    Column("bytes/s", lambda row: _bytes(row["bytes_per_second"])),
    Column("ms/query", lambda row: _number(row["ms_per_query"])),
)


def table(result: Result, *, length: float | None = None) -> str:
    """For the screen: the columns of every row of one length, then hit rates in per cent,
    degradations by systems.

    ``length``, seconds, is the middle one by default. ValueError if the result lacks a part or has
    no such length.
    """
    cells, length = cells_of(result), chosen_length(result, length)
    names, degradations = list(result["systems"]), list(result["degradations"])
    rows = [cells[s, d, length] for s in names for d in degradations if (s, d, length) in cells]
    full = [[column.title for column in COLUMNS]]
    full += [[column.text(row) for column in COLUMNS] for row in rows]
    hits = [["degradation", *names]]
    hits += [[d, *(percent(hit_of(cells, s, d, length)) for s in names)] for d in degradations]
    hits += [["mean", *(percent(mean_of(result, s, length)) for s in names)]]
    return "\n\n".join(
        [
            tables.text(full, left=2, rule=True),
            f"Hit rates in %, queries of {length:g} s",
            tables.text(hits, left=1, rule=True),
        ]
    )


def html(result: Result, workdir: str | Path) -> Path:
    """Writes ``workdir``/report.html and beside it the ``pictures`` that are inside it; returns the
    page's path.

    Examples are read from ``workdir`` and put in as MP3; one that cannot be read is named on the
    page, with the reason. ValueError as ``table``.
    """
    import jinja2  # late: a page alone needs it

    workdir = Path(workdir)
    pictures: dict[str, list[dict[str, str]]] = {
        section: [] for section in ("hits", "bytes", "snr", "lengths", "bits")
    }
    for picture in drawn(result):
        path = style.save(picture.figure, workdir / picture.name)
        source = _data_uri("image/png", path.read_bytes())
        pictures[picture.section].append({"alt": picture.alt, "source": source})
    half_found, differences = _half_found(result), list(_differences(result))
    examples = list(_examples(result, workdir))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("seqhash.robustness"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html").render(
        lead=_lead(result),
        lengths=[f"{length:g}" for length in lengths_of(result)],
        middle=f"{chosen_length(result, None):g}",
        none_shown=NONE,
        pictures=pictures,
        summary=_summary(result),
        half_found=half_found,
        differences=differences,
        columns=[column.title for column in COLUMNS],
        numbers=list(_numbers(result)),
        examples=examples,
        shown={
            **dict.fromkeys(("summary", "hits", "numbers", "made"), True),
            "bytes": pictures["bytes"],
            "snr": pictures["snr"] or half_found.groups,
            "lengths": pictures["lengths"],
            "bits": pictures["bits"],
            "differences": differences,
            "examples": examples,
        },
        **_made(result),
    )
    path = workdir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    return Table(head, [list(group) for _, group in groupby(rows, key=lambda row: row[0])])


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _lead(result: Result) -> dict[str, Any]:
    """The numbers of all, and which system finds most; there may be several."""
    length, cells = chosen_length(result, None), cells_of(result)
    means = {system: percent(mean_of(result, system, length)) for system in result["systems"]}
    most = max(means.values(), key=lambda text: -1.0 if text == NONE else float(text))
    best = [system for system, mean in means.items() if mean == most]
    first = next(iter(result["degradations"]))
    return {
        "systems": len(means),
        "degradations": len(result["degradations"]),
        "lengths": ", ".join(f"{n:g}" for n in lengths_of(result)),
        "best": ", ".join(best),
        "length": f"{length:g}",
        "mean": most,
        "first": first,
        "hits": ", ".join(percent(hit_of(cells, system, first, length)) for system in best),
    }


def _summary(result: Result) -> Table:
    lengths, middle = lengths_of(result), chosen_length(result, None)
    head = ["system", *(f"{n:g} s, %" for n in lengths), f"{middle:g} s at 1 %"]
    head += [f"false, {middle:g} s", "bytes/s", f"ms, {middle:g} s", "what it is"]
    rows = []
    for system, entry in result["systems"].items():
        rates = [mean_of(result, system, n) for n in lengths]
        rates += [
            mean_of(result, system, middle, name)
            for name in ("hit_at_1_percent_false", "false_positive")
        ]
        time = _number(mean_of(result, system, middle, "ms_per_query"))
        about = [_bytes(entry["bytes_per_second"]), time, entry["description"]]
        rows.append([system, *map(percent, rates), *about])
    return _table(head, rows)


def _half_found(result: Result) -> Table:
    found = {(one["noise"], one["length"], one["system"]): one for one in result["half_found_snr"]}
    rows = []
    for noise, length in dict.fromkeys((noise, length) for noise, length, _ in found):
        row = [noise, f"{length:g}"]
        for system in result["systems"]:
            one = found.get((noise, length, system), {"snr_db": None, "note": NONE})
            row.append(_signed(one["snr_db"]) if known(one["snr_db"]) else one["note"] or NONE)
        rows.append(row)
    return _table(["noise", "length, s", *result["systems"]], rows)


def _signed(value: float | None) -> str:
    return f"{value:+.1f}".replace("-", "\u2212") if known(value) else NONE


def _points(value: float | None) -> str:
    return _signed(100 * value) if known(value) else NONE


def _differences(result: Result) -> Iterator[dict[str, Any]]:
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in result["differences"]:
        pairs.setdefault((one["a"], one["b"]), []).append(one)
    for (a, b), ones in pairs.items():
        lengths = sorted({one["length"] for one in ones})
        cells = {(one["degradation"], one["length"]): one for one in ones}
        rows = [
            [name, *(_difference(cells.get((name, length))) for length in lengths)]
            for name in dict.fromkeys(one["degradation"] for one in ones)
        ]
        yield {
            "a": a,
            "b": b,
            "cells": len(ones),  # null and NaN are neither better nor worse
            "better": sum(known(one["low"]) and one["low"] > 0 for one in ones),
            "worse": sum(known(one["high"]) and one["high"] < 0 for one in ones),
            "table": _table(["points (95 %)", *(f"{length:g} s" for length in lengths)], rows),
        }


def _difference(one: Mapping[str, Any] | None) -> str:
    if one is None or not known(one["value"]):
        return NONE
    return f"{_points(one['value'])} ({_points(one['low'])} to {_points(one['high'])})"


def _numbers(result: Result) -> Iterator[Table]:
    """All rows of each length, by degradation, so that systems stand side by side."""
    cells = cells_of(result)
    columns = (COLUMNS[1], COLUMNS[0], *COLUMNS[3:])
    for length in lengths_of(result):
        keys = ((s, d, length) for d in result["degradations"] for s in result["systems"])
        rows = [[column.text(cells[key]) for column in columns] for key in keys if key in cells]
        yield _table([column.title for column in columns], rows)


def _examples(result: Result, workdir: Path) -> Iterator[dict[str, str]]:
    for one in result["examples"]:
        entry = result["degradations"].get(one["degradation"], {})
        source, wrong = "", ""
        try:
            source = _data_uri("audio/mpeg", _mp3(workdir / one["path"]))
        except (OSError, soundfile.SoundFileError, ValueError) as error:
            wrong = str(error)
        yield {
            "name": one["degradation"],
            "description": one.get("said") or entry.get("description") or "",
            "path": one["path"],
            "source": source,
            "error": wrong,
        }


def _mp3(path: Path) -> bytes:
    """The start of a sound as MP3, about 64 kbit/s at 16 kHz: every browser plays it, and it is
    small.
    """
    # OSError names what is wrong with the file; libsndfile says "System error."
    with path.open("rb") as file:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = samples[: round(EXAMPLE_SECONDS * rate)].mean(axis=1)
    if not len(mono):
        raise ValueError("it is empty.")
    out = io.BytesIO()
    options = {"compression_level": 0.6, "bitrate_mode": "CONSTANT"}
    soundfile.write(out, mono, rate, "MPEG_LAYER_III", format="MP3", **options)
    return out.getvalue()


def _made(result: Result) -> dict[str, Any]:
    """How the result came about, in words."""
    settings = {
        "machine": result["machine"],
        "time": f"{result['seconds']:.0f} s",
        **{name: _say(value) for name, value in result["settings"].items()},
    }
    entries = [
        [name, one["family"], _say(one["strength"]), one["description"]]
        for name, one in result["degradations"].items()
    ]
    return {
        "command": result["command"],
        "settings": settings,
        "versions": result["versions"],
        "degradations": _table(["name", "family", "strength", "what it does"], entries),
        "skipped": _table(["file", "reason"], result["skipped"]),
    }


def _say(value: Any) -> str:
    """A JSON value in words: {"indexed": 54, "left out": 6} is "indexed 54, left out 6"."""
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_say(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_say, value)) or NONE
    return value if isinstance(value, str) else json.dumps(value)


def ablation(result: Mapping[str, Any]) -> str:
    """The table of ``experiments.ablate_pairs``: rates in %, without and with the threshold of 1 %
    false answers, as Markdown.
    """
    names = list(dict.fromkeys(row["degradation"] for row in result["rows"]))
    lines = [["", *names, "mean", "beyond base [95 %]", "B/s"]]
    for system, summary in result["systems"].items():
        by = {row["degradation"]: row for row in result["rows"] if row["system"] == system}
        beyond = summary["beyond_base"]
        lines.append(
            [
                system,
                *(_both(by[name]) for name in names),
                _both(summary),
                "" if system == result["base"] else _beyond(beyond),
                f"{summary['bytes_per_second']:.0f}",
            ]
        )
    return tables.markdown(lines, left=1)


def _both(row: Mapping[str, Any]) -> str:
    return f"{row['hit'] * 100:.0f} / {row['hit_at_1_percent_false'] * 100:.0f}"


def _beyond(beyond: Mapping[str, float]) -> str:
    value, low, high = (100 * beyond[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:.1f}, {high:.1f}]"
