r"""Fills the tables of README.md and docs/ from result files, so that none is typed by hand.

    python -m experiments.tables                      # fill them
    python -m experiments.tables --check              # name those that are stale; exit status 1
    python -m experiments.tables --keep=runs/robustness/robustness.json --name=robustness-1s

A table stands between ``<!-- table KIND NAME [OPTION=VALUE ...] -->`` and ``<!-- end -->``, where
docs/data/NAME.json is a result that ``--keep`` has taken over: the command, with its files by their
last two names, and the numbers that tables show.

| kind | of | options |
|---|---|---|
| hits | experiments.robustness | length, systems, rows (degradations, or old: the mean of 18) |
| lengths | the same, several NAMEs with commas: means by length | systems |
| identification | experiments.identification | |
| covers | experiments.evaluate | |
| ablation | experiments.ablate_pairs | |
| command | any of them: the command that made it | |
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from seqhash import tables

from . import script

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"
# degradations, before gain, large changes of pitch and tempo, and low rates were added
FIRST = [
    "clean",
    "white_noise_10db",
    "white_noise_5db",
    "white_noise_0db",
    "noise_10db",
    "noise_5db",
    "noise_0db",
    "noise_-5db",
    "mix_0db",
    "room",
    "mp3_16k",
    "opus_8k",
    "gsm",
    "telephone",
    "speed_+2%",
    "tempo_+5%",
    "pitch_+1",
    "bar",
]
LATER = [
    "gain_-20db",
    "pitch_-1",
    "pitch_+2",
    "speed_-10%",
    "speed_+10%",
    "tempo_-10%",
    "tempo_+10%",
    "via_11k",
]
COVERS = {"plain": "", "weights and same-key prior": "_weighted", "the true key": "_oracle"}
INTERVAL = ("value", "work_low", "work_high")
BLOCK = re.compile(r"(<!-- table (\w+) (\S+)([^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
KEPT = [
    "system",
    "degradation",
    "length",
    "queries",
    "hit",
    "hit_low",
    "hit_high",
    "hit_at_1_percent_false",
]
Result = Mapping[str, Any]
Options = Mapping[str, str]

_CHECK = flags.DEFINE_boolean("check", False, "write nothing; name what is stale")
_KEEP = flags.DEFINE_string("keep", None, "result file to take over into docs/data")
_NAME = flags.DEFINE_string("name", None, "as what --keep takes it over")


def main() -> int:
    """Fills, checks or takes over; returns the exit status."""
    if not (ROOT / "README.md").is_file():
        raise ValueError("The pages to fill are those of a clone; run this script in one.")
    if _KEEP.value:
        if not _NAME.value:
            raise ValueError("--keep needs --name, as robustness-1s.")
        kept = keep(json.loads(Path(_KEEP.value).read_text()), _NAME.value)
        DATA.mkdir(exist_ok=True)
        path = DATA / f"{_NAME.value}.json"
        path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
        print(f"{path}: {path.stat().st_size:,} bytes")
        return 0
    stale = 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        made = filled(text, DATA)
        if made != text:
            stale += 1
            print(f"{page.relative_to(ROOT)} {'is stale' if _CHECK.value else 'filled'}")
            if not _CHECK.value:
                page.write_text(made, encoding="utf-8")
    return int(_CHECK.value and stale > 0)


def keep(result: Result, name: str) -> dict[str, Any]:
    """Of a result what tables show, its command without the folders of this machine."""
    words = [_short(word, name) for word in shlex.split(result["command"])]
    parts = ("systems", "base", "lengths", "recordings")
    kept = {"command": " ".join(words)} | {one: result[one] for one in parts if one in result}
    if "cover_accuracy" in result:
        own = {name: result.get(f"cover_accuracy{end}") for name, end in COVERS.items()}
        controls = {name: one["cover_accuracy"] for name, one in result["floors"].items()}
        kept["covers"] = {
            name: {n: [_rounded(one.get(f)) for f in INTERVAL] for n, one in accuracy.items()}
            for name, accuracy in (own | controls).items()
            if accuracy
        }
        kept["hasher"] = result["hasher"]
    if "settings" in result:
        kept["recordings"] = result["settings"]["recordings"]
    if "rows" in result:
        kept["rows"] = [{field: _rounded(row[field]) for field in KEPT} for row in result["rows"]]
    return kept


def _short(word: str, name: str) -> str:
    """--flag=/any/folder/music/manifest.csv -> --flag=music/manifest.csv."""
    flag, is_flag, value = word.partition("=")
    if not is_flag or "/" not in value:
        return word
    parts = Path(value).parts
    if flag.removeprefix("--") in ("workdir", "directory"):
        return f"{flag}=runs/{name}"
    return f"{flag}={'/'.join(parts[-2:])}"


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def filled(text: str, data: Path) -> str:
    """A page with its tables as the results say."""

    def fill(match: re.Match[str]) -> str:
        begin, kind, names, words, _, end = match.groups()
        options = dict(word.split("=", 1) for word in words.split())
        results = [json.loads((data / f"{name}.json").read_text()) for name in names.split(",")]
        return f"{begin}{KINDS[kind](results, options)}\n{end}"

    return BLOCK.sub(fill, text)


def _systems(result: Result, options: Options) -> list[tuple[str, str]]:
    """(name in the result, heading) of the systems that a table shows: NAME or NAME~HEADING."""
    chosen = options.get("systems", ",".join(result["systems"])).split(",")
    return [(one.split("~")[0], one.split("~")[-1].replace("_", " ")) for one in chosen]


def _means(result: Result, length: float, system: str, names: Sequence[str]) -> str:
    own = {
        row["degradation"]: row
        for row in result["rows"]
        if (row["system"], row["length"]) == (system, length)
    }
    if not set(names) <= own.keys():
        return ""
    hit, sure = (
        sum(own[name][field] for name in names) / len(names)
        for field in ("hit", "hit_at_1_percent_false")
    )
    digits = 0 if len(names) == 1 else 1
    return f"{100 * hit:.{digits}f} / {100 * sure:.{digits}f}"


def _hits(results: Sequence[Result], options: Options) -> str:
    (result,) = results
    length = float(options.get("length", result["rows"][0]["length"]))
    systems = _systems(result, options)
    known = list(dict.fromkeys(row["degradation"] for row in result["rows"]))
    shown = options["rows"].split(",") if "rows" in options else known
    means = {"mean of the first 18": FIRST, "mean of the last 8": LATER}
    if not set(FIRST + LATER) <= set(known):
        means = {f"mean of {len(known)}": known}
    lines = [["", *(heading for _, heading in systems)]]
    for name, names in [*((name, [name]) for name in shown), *means.items()]:
        lines.append([name, *(_means(result, length, one, names) for one, _ in systems)])
    sizes = (result["systems"][one]["bytes_per_second"] for one, _ in systems)
    lines.append(["bytes a second", *(f"{size:,.0f}" if size else "" for size in sizes)])
    return tables.markdown(lines, left=1)


def _lengths(results: Sequence[Result], options: Options) -> str:
    rows: dict[str, list[str]] = {}
    lengths = []
    for result in sorted(results, key=lambda one: one["rows"][0]["length"]):
        length = result["rows"][0]["length"]
        lengths.append(f"{length:g} s")
        for one, heading in _systems(result, options):
            rows.setdefault(heading, []).append(_means(result, length, one, FIRST))
    return tables.markdown([["", *lengths], *([name, *row] for name, row in rows.items())], left=1)


def _identification(results: Sequence[Result], options: Options) -> str:
    del options
    head = ["excerpt", "found, %", "wrong, %", "absent and answered, %", "median offset error"]
    return tables.markdown([head, *_excerpts(results[0])], left=1)


def _excerpts(result: Result) -> Iterator[list[str]]:
    for length, row in result["lengths"].items():
        rates = (_rate(row[name]) for name in ("hit", "wrong", "false_positive"))
        yield [f"{length} s", *rates, f"{1000 * row['offset_error_median']:.0f} ms"]


def _rate(rate: Mapping[str, Any]) -> str:
    low, high = rate["low"], rate["high"]
    interval = low is not None and low != high
    return f"{100 * rate['value']:.1f}" + (
        f" [{100 * low:.1f}, {100 * high:.1f}]" if interval else ""
    )


def _covers(results: Sequence[Result], options: Options) -> str:
    del options
    (result,) = results
    lengths = list(result["covers"]["plain"])
    lines = [["", *(f"{n} {'code' if n == '1' else 'codes'}" for n in lengths)]]
    for name, accuracy in result["covers"].items():
        cells = (dict(zip(("value", "low", "high"), accuracy[n], strict=True)) for n in lengths)
        lines.append([name, *map(_rate, cells)])
    return tables.markdown(lines, left=1)


def _ablation(results: Sequence[Result], options: Options) -> str:
    del options
    from seqhash.robustness import report  # late, for matplotlib

    return report.ablation(results[0])


def _command(results: Sequence[Result], options: Options) -> str:
    del options
    words, lines = results[0]["command"].split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 88 and lines[-1].strip():
            lines[-1] += " \\"
            lines.append("       ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else f"    {word}"
    return "\n" + "\n".join(lines) + "\n"


KINDS: dict[str, Callable[[Sequence[Result], Options], str]] = {
    "hits": _hits,
    "lengths": _lengths,
    "identification": _identification,
    "covers": _covers,
    "ablation": _ablation,
    "command": _command,
}


if __name__ == "__main__":
    script.run(main)
