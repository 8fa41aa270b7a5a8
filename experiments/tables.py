r"""Fills the tables of README.md and docs/ from result files and draws their pictures, so that none
is typed by hand.

    python -m experiments.tables                      # fill and draw them
    python -m experiments.tables --check              # name those that are stale; exit status 1
    python -m experiments.tables --keep=runs/robustness/robustness.json --name=robustness-1s
    python -m experiments.tables --keep=runs/demo/show/show.json --name=show \
        --picture=runs/demo/show/found.png
    python -m experiments.tables --keep=runs/demo/results.json --name=paper-songbook \
        --picture=runs/demo/figures/mfcc.png --picture=runs/demo/figures/pca.png

A table stands between ``<!-- table KIND NAME [OPTION=VALUE ...] -->`` and ``<!-- end -->``, a
picture's link between ``<!-- picture KIND NAME [OPTION=VALUE ...] -->`` and the same.
docs/data/NAME.json is a result that ``--keep`` has taken over: the command, with its files by their
last two names, and the numbers that are shown. What says ``recorded`` is of a run whose result file
was not kept.

| kind | of | options |
|---|---|---|
| hits | experiments.robustness | length, systems, rows (degradations, or old: the mean of 18) |
| lengths | the same, several NAMEs with commas: means by length | systems |
| distractors | the same, with --distractor_codes: in noise of 0 dB, by codes | |
| identification | experiments.identification | |
| versions | experiments.identify_covers | |
| covers | experiments.evaluate | |
| parts | the same: by genre and key | |
| heard | the same, several NAMEs with commas: what has happened to the covers | codes |
| paper, splits | experiments.evaluate of a trained run: its two tables | |
| beside | the same, several NAMEs with commas, beside the paper | heads |
| ablation | experiments.ablate_pairs | |
| trained | experiments.ablate_covers | |
| show | experiments.show | |
| speed | experiments.benchmark search, several NAMEs: times as fast as FAISS | heads |
| search | experiments.benchmark search: milliseconds | cores (one or all) |
| turned | the same: queries in twelve rotations against one | |
| sublinear | the same: look-ups in tables against the scan | |
| rates | experiments.benchmark mfcc or bands, several NAMEs: seconds of audio a second | heads |
| train | experiments.benchmark train: segments a second | |
| clips | experiments.benchmark identify: milliseconds of an answer | |
| command | any of them: the command that made it | |

| kind of a picture | of | options |
|---|---|---|
| heat_map | experiments.robustness | length, systems |
| bytes | the same | systems |
| snr | the same: by the loudness of noise | family, systems |
| training, accuracy | experiments.evaluate of a trained run | |
| kept | any run whose picture ``--picture`` has taken over | |

A picture that is drawn says in its PNG what it was drawn from, and is stale where that is another
result or drawing. One that is kept is known by its digest.
"""

import hashlib
import inspect
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from seqhash import tables

from . import script

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
PICTURE = re.compile(r"<!-- picture (\w+) (\S+)([^>]*?) -->\n!\[[^\]]*\]\((\S+)\)\n<!-- end -->")
SPEED = {  # what the front page says of search, and the cases of the benchmark
    "one code among a million, k = 10": ["n=1, Q=1, N=1e6, k=10"],
    "1,024 codes at once, k = 1 / 10 / 100": [f"n=1, Q=1024, N=1e6, k={k}" for k in (1, 10, 100)],
    "one window of nine codes": ["n=9, Q=1, N=1e6, k=10"],
    "64 windows of nine codes, among ten millions": ["n=9, Q=64, N=1e7, k=10"],
}
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
_PICTURE = flags.DEFINE_multi_string(
    "picture", [], "a picture of that run, taken over as NAME.png; several keep their own names"
)


def main() -> int:
    """Fills, checks or takes over; returns the exit status."""
    if not (ROOT / "README.md").is_file():
        raise ValueError("The pages to fill are those of a clone; run this script in one.")
    if _KEEP.value:
        if not _NAME.value:
            raise ValueError("--keep needs --name, as robustness-1s.")
        kept = keep(json.loads(Path(_KEEP.value).read_text()), _NAME.value)
        for picture in map(Path, _PICTURE.value):
            name = picture.name if len(_PICTURE.value) > 1 else f"{_NAME.value}.png"
            there = Path(shutil.copyfile(picture, DATA.parent / name))
            kept.setdefault("pictures", {})[name] = _digest(there.read_bytes())
        DATA.mkdir(exist_ok=True)
        path = DATA / f"{_NAME.value}.json"
        path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
        print(f"{path}: {path.stat().st_size:,} bytes")
        return 0
    stale = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        made = filled(text, DATA)
        if made != text:
            stale += 1
            print(f"{page.relative_to(ROOT)} {'is stale' if _CHECK.value else 'filled'}")
            if not _CHECK.value:
                page.write_text(made, encoding="utf-8")
    for path, why in stale_pictures(pages(), DATA, draw=not _CHECK.value):
        stale += 1
        print(f"{path.relative_to(ROOT)} {why}")
    return int(_CHECK.value and stale > 0)


def pages() -> list[Path]:
    """All that have tables and pictures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def keep(result: Result, name: str) -> dict[str, Any]:
    """Of a result what tables show, its command without the folders of this machine."""
    words = [_short(word, name) for word in shlex.split(result["command"])]
    parts = ("machine", "systems", "base", "lengths", "recordings")
    kept = {"command": " ".join(words)} | {one: result[one] for one in parts if one in result}
    if "cover_accuracy" in result:
        own = {name: result.get(f"cover_accuracy{end}") for name, end in COVERS.items()}
        controls = {name: one["cover_accuracy"] for name, one in result["floors"].items()}
        kept["covers"] = {
            name: {n: [_rounded(one.get(f)) for f in INTERVAL] for n, one in accuracy.items()}
            for name, accuracy in (own | controls).items()
            if accuracy
        }
        kept["parts"] = {
            name: {
                split: {n: _rounded(one["splits"][split]["value"]) for n, one in accuracy.items()}
                for split in next(iter(accuracy.values()))["splits"]
            }
            for name, accuracy in (own | controls).items()
            if accuracy and all("splits" in one for one in accuracy.values())
        }
        ranks = ("map", "mr1", "top10", "heard", "hasher")
        kept |= {one: result[one] for one in ranks if one in result}
        for rank in set(ranks[:3]) & kept.keys():
            kept[rank] = {field: _rounded(value) for field, value in kept[rank].items()}
        if "training" in result:
            from seqhash import evaluate  # late, for jax

            name = f"trained, threshold {result['config']['code.threshold']}"
            kept |= {"paper": evaluate.table(result, name=name)}
            kept |= {"splits": evaluate.split_table(result)}
            drawn = ("epoch", "train_loss", "validation_loss", "collision_rate", "accuracy")
            epochs = result["training"]["epochs"]
            kept["epochs"] = [
                {name: _rounded_all(row[name]) for name in drawn if name in row} for row in epochs
            ]
            kept["loss"] = [kept["epochs"][i]["train_loss"] for i in (1, -1)]
    if "versions" in result:
        kept["versions"] = _rounded_all(result["versions"])
    if "settings" in result:
        kept["recordings"] = result["settings"]["recordings"]
        kept["distractor_codes"] = result["settings"].get("distractor_codes", 0)
    if "answers" in result:
        from . import show  # late, for jax

        kept["shown"] = show.table(result["answers"])
    measured = ("one core", "all cores", "rates", "flop", "peak", "clips", "trained")
    kept |= {name: result[name] for name in measured if name in result}
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
    if flag == "--output":
        return f"{flag}=runs/{name}.json"
    return f"{flag}={'/'.join(parts[-2:])}"


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _rounded_all(value: Any) -> Any:
    """Of dicts of numbers, however deep."""
    if isinstance(value, Mapping):
        return {name: _rounded_all(one) for name, one in value.items()}
    return [_rounded_all(one) for one in value] if isinstance(value, list) else _rounded(value)


def filled(text: str, data: Path) -> str:
    """A page with its tables as the results say."""

    def fill(match: re.Match[str]) -> str:
        begin, kind, names, words, _, end = match.groups()
        return f"{begin}{KINDS[kind](_results(names, data), _options(words))}\n{end}"

    return BLOCK.sub(fill, text)


def _options(words: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words.split())


def _results(names: str, data: Path) -> list[Result]:
    return [json.loads((data / f"{name}.json").read_text()) for name in names.split(",")]


def stale_pictures(pages: Sequence[Path], data: Path, *, draw: bool) -> Iterator[tuple[Path, str]]:
    """Pictures that are not of the results that their pages name, and what became of them.

    Args:
      draw: those that can be drawn anew.
    """
    seen = set()
    for page in pages:
        for kind, names, words, link in PICTURE.findall(page.read_text(encoding="utf-8")):
            path, results = (page.parent / link).resolve(), _results(names, data)
            if path in seen:
                continue
            seen.add(path)
            if kind == "kept":
                known = results[0]["pictures"].get(path.name)
                if not path.exists() or _digest(path.read_bytes()) != known:
                    yield path, f"is not the picture that {names}.json names; --keep its run anew"
                continue
            function = PICTURES[kind]
            source = _digest(json.dumps([results, words, inspect.getsource(function)]).encode())
            if _source_of(path) == source:
                continue
            if draw:
                from seqhash import style  # late, for matplotlib

                style.save(function(results, _options(words)), path, source=source)
            yield path, "drawn" if draw else "is stale"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _source_of(path: Path) -> str | None:
    """What a picture says that it was drawn from."""
    from PIL import Image  # late: matplotlib brings it

    if not path.exists():
        return None
    with Image.open(path) as picture:
        return picture.info.get("Source")


def _heat_map(results: Sequence[Result], options: Options) -> "Figure":
    """Hit rates of a robustness run, degradations by their families."""
    from seqhash.robustness import figures  # late, for matplotlib

    length = float(options.get("length", results[0]["rows"][0]["length"]))
    return figures.draw_heat_map(_shown(results[0], options), length)


def _snr(results: Sequence[Result], options: Options) -> "Figure":
    """Hit rates of a robustness run against the signal-to-noise ratio."""
    from seqhash.robustness import figures  # late, for matplotlib

    shown = _shown(results[0], options) | {"half_found_snr": []}
    return figures.draw_snr(shown, options["family"].replace("_", " "))


def _shown(result: Result, options: Options) -> dict[str, Any]:
    """Of a robustness run what is drawn: the systems that are asked for, by their headings."""
    from seqhash.robustness import degrade, figures  # late, for matplotlib

    names = dict(_systems(result, options))
    asked = {row["degradation"] for row in result["rows"]}
    entries = [entry for name, entry in degrade.registry().items() if name in asked]
    shown: dict[str, Any] = dict.fromkeys(figures.PARTS.split())
    shown["systems"] = {heading: result["systems"][name] for name, heading in names.items()}
    shown["degradations"] = {
        entry.name: {"family": entry.family, "strength": entry.strength} for entry in entries
    }
    shown["rows"] = [
        row | {"system": names[row["system"]]} for row in result["rows"] if row["system"] in names
    ]
    return shown


def _training(results: Sequence[Result], options: Options) -> "Figure":
    """Losses, collisions and accuracy by epoch."""
    del options
    from seqhash import figures  # late, for matplotlib

    (result,) = results
    return figures.draw_training(result["epochs"], chance=_chance(result))


def _accuracy(results: Sequence[Result], options: Options) -> "Figure":
    """Cover accuracy by number of hashes, beside the controls."""
    del options
    from seqhash import figures  # late, for matplotlib

    (result,) = results
    table = {
        "trained" if name == "plain" else name: {int(n): tuple(one) for n, one in accuracy.items()}
        for name, accuracy in result["covers"].items()
        if name != "chance"
    }
    return figures.draw_accuracy(table, chance=_chance(result))


def _chance(result: Result) -> float:
    return result["covers"]["chance"]["1"][0]


def _bytes(results: Sequence[Result], options: Options) -> "Figure":
    """Hit rates at 1 % false answers of a robustness run against bytes a second."""
    from seqhash.robustness import figures  # late, for matplotlib

    (result,) = results
    names = dict(_systems(result, options))
    shown = {"systems": {heading: result["systems"][name] for name, heading in names.items()}}
    rows = [row | {"system": names[row["system"]]} for row in result["rows"]]
    return figures.draw_bytes(dict.fromkeys(figures.PARTS.split()) | shown | {"rows": rows})


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
        math.fsum(own[name][field] for name in names) / len(names)  # sum differs between Pythons
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


def _distractors(results: Sequence[Result], options: Options) -> str:
    """The first system's hits as its index grows; names with commas, a row each count of codes."""
    del options
    rows: dict[int, dict[float, str]] = {}
    for result in results:
        system = next(iter(result["systems"]))
        for length in dict.fromkeys(row["length"] for row in result["rows"]):
            cells = rows.setdefault(result.get("distractor_codes", 0), {})
            cells[length] = _means(result, length, system, ["noise_0db"])
    lengths = sorted(set().union(*rows.values()))
    lines = [["codes of other music", *(f"{length:g} s" for length in lengths)]]
    for codes, cells in sorted(rows.items()):
        lines.append([f"{codes:,}", *(cells.get(length, "") for length in lengths)])
    return tables.markdown(lines, left=1)


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


def _versions(results: Sequence[Result], options: Options) -> str:
    del options
    rates = list(next(iter(results[0]["versions"].values()))["stated"])
    stated = [f"{100 * float(rate):g} %" for rate in rates]
    found = [f"found, % at {stated[0]}", *stated[1:]]
    absent = [f"absent and answered, % at {stated[0]}", *stated[1:]]
    lines = [["query", *found, f"wrong at {stated[0]}", *absent, "right key", "tempo off by"]]
    for length, row in results[0]["versions"].items():
        cells = list(row["stated"].values())
        numbers = [_rate(one["hit"]) for one in cells] + [_rate(cells[0]["wrong"])]
        numbers += [_rate(one["false_positive"]) for one in cells]
        told = (row["key"], row["tempo_error_median"])
        more = ["" if one is None else f"{100 * one:.1f} %" for one in told]
        name = length if length == "whole" else f"{length} s"
        lines.append([name, *numbers, *more])
    return tables.markdown(lines, left=1)


def _covers(results: Sequence[Result], options: Options) -> str:
    del options
    (result,) = results
    lengths = list(result["covers"]["plain"])
    lines = [["", *(f"{n} {'code' if n == '1' else 'codes'}" for n in lengths)]]
    for name, accuracy in result["covers"].items():
        cells = (dict(zip(("value", "low", "high"), accuracy[n], strict=True)) for n in lengths)
        lines.append([name, *map(_rate, cells)])
    return tables.markdown(lines, left=1)


def _parts(results: Sequence[Result], options: Options) -> str:
    del options
    (result,) = results
    lengths = list(result["covers"]["plain"])
    lines = [["", *(f"{n} {'code' if n == '1' else 'codes'}" for n in lengths)]]
    for split in result["parts"]["plain"]:
        for name, accuracy in result["parts"].items():
            if split in accuracy:
                cells = (f"{100 * accuracy[split][n]:.1f}" for n in lengths)
                lines.append([f"{split.removeprefix('genre ')}, {name}", *cells])
    return tables.markdown(lines, left=1)


def _heard(results: Sequence[Result], options: Options) -> str:
    lengths = options["codes"].split(",")
    lines = [["", *(f"{rule}, {n} codes" for rule in list(COVERS)[:2] for n in lengths)]]
    for result in results:
        heard = result.get("heard", {"degradation": "clean", "distractors": 0})
        beside = f", {heard['distractors']:,} distractors" if heard["distractors"] else ""
        rules = (result["covers"][rule] for rule in list(COVERS)[:2])
        cells = (f"{100 * accuracy[n][0]:.1f}" for accuracy in rules for n in lengths)
        lines.append([f"{heard['degradation']}{beside}", *cells])
    return tables.markdown(lines, left=1)


def _ablation(results: Sequence[Result], options: Options) -> str:
    del options
    from seqhash.robustness import report  # late, for matplotlib

    return report.ablation(results[0])


def _as_printed(part: str) -> Callable[[Sequence[Result], Options], str]:
    """A table that was kept as the script printed it."""
    return lambda results, options: str(results[0][part])


def _beside(results: Sequence[Result], options: Options) -> str:
    """The paper's numbers beside those of trained runs, out of their printed tables."""
    from seqhash import paper

    def numbers(row: str, column: str) -> list[str]:
        return [_cell(result["paper"], row, column).split()[0] for result in results]

    trained, reported, collisions = "trained, threshold zero", "paper, its own corpus", "collisions"
    lines = [["", "paper", *options["heads"].replace("_", " ").split(",")]]
    for column in ("1 hash", "9 hashes"):
        told = _cell(results[0]["paper"], reported, column)
        lines.append([f"accuracy, {column}", told, *numbers(trained, column)])
    for column in ("1 hash", "9 hashes"):
        name = f"untrained LSTM, {column}"
        lines.append([name, "not reported", *numbers("untrained LSTM", column)])
    told = _cell(results[0]["paper"], reported, collisions)
    lines.append(["collision rate", told, *numbers(trained, collisions)])
    losses = [(paper.FIRST_LOSS, paper.LAST_LOSS), *(result["loss"] for result in results)]
    lines.append(["loss, first and last epoch", *(f"{a:.2f}; {b:.2f}" for a, b in losses)])
    return tables.markdown(lines, left=1)


def _cell(table: str, row: str, column: str) -> str:
    """Of a table as Markdown, by the beginnings of its row's and its column's names."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    index = next(i for i, name in enumerate(lines[0]) if i and name.startswith(column))
    return next(cells[index] for cells in lines if cells[0].startswith(row))


def _trained(results: Sequence[Result], options: Options) -> str:
    del options
    from seqhash import evaluate  # late, for jax

    return evaluate.table_of_hashers(results[0]["trained"])


def _show(results: Sequence[Result], options: Options) -> str:
    del options
    return tables.markdown(results[0]["shown"], left=2)


def _clips(results: Sequence[Result], options: Options) -> str:
    del options
    from . import benchmark_identify  # late, for jax

    return benchmark_identify.table(results[0]["clips"])


def _speed(results: Sequence[Result], options: Options) -> str:
    heads = options["heads"].replace("_", " ").split(",")
    lines = [["", *heads]]
    for what, cases in SPEED.items():
        cells = []
        for result in results:
            times = {row["case"]: row["faiss"] / row["ours"] for row in result["one core"]["exact"]}
            cells.append(" / ".join(f"{times[case]:.1f}" for case in cases))
        lines.append([what, *cells])
    return tables.markdown(lines, left=1)


def _rates(results: Sequence[Result], options: Options) -> str:
    lines = [["", *options["heads"].replace("_", " ").split(","), "ours is faster by"]]
    first = next(iter(results[0]["rates"]))
    for name in results[0]["rates"]:
        rates = [result["rates"][name] for result in results]
        faster = (one["rates"][first] / r for one, r in zip(results, rates, strict=True) if r)
        ratios = "" if name == first else " / ".join(f"{ratio:.2f}" for ratio in faster)
        lines.append([name, *(f"{rate:,.0f}" if rate else "" for rate in rates), ratios])
    return tables.markdown(lines, left=1)


def _train(results: Sequence[Result], options: Options) -> str:
    del options
    (result,) = results
    lines = [["", "ours", "PyTorch, tied `nn.LSTM`", "ratio", "ours, share of the peak"]]
    for name, ours in result["rates"].items():
        if not name.startswith("ours, "):
            continue
        setting = name.removeprefix("ours, ")
        torch = result["rates"][f"torch, {setting}"]
        cores = 1 if setting.startswith("one core") else result["machine"]["cores"]
        share = ours * result["flop"] / (result["peak"] * 1e9 * cores)
        numbers = [f"{ours:,.0f}", f"{torch:,.0f}", f"{ours / torch:.2f}", f"{100 * share:.0f} %"]
        lines.append([setting, *numbers])
    return tables.markdown(lines, left=1)


def _search(results: Sequence[Result], options: Options) -> str:
    rows = results[0][f"{options['cores']} cores".replace("one cores", "one core")]["exact"]
    floor = any(row["floor"] for row in rows)
    lines = [["case", "ours", "FAISS", *["floor"] * floor, "ratio"]]
    lines[0] += ["floor's ratio", "distances equal"] * floor
    for row in rows:
        times = [row["ours"], row["faiss"], *[row["floor"]] * floor, row["faiss"] / row["ours"]]
        cells = [row["case"], *map(_three, times)]
        lines.append(cells + ([_three(row["faiss"] / row["floor"]), row["equal"]] if floor else []))
    return tables.markdown(lines, left=1)


def _turned(results: Sequence[Result], options: Options) -> str:
    del options
    lines = [["case", "plain, ms", "twelve rotations, ms", "times as long"]]
    for row in results[0]["one core"]["turned"]:
        times = (row["plain"], row["turned"], row["turned"] / row["plain"])
        lines.append([row["case"], *map(_three, times)])
    return tables.markdown(lines, left=1)


def _sublinear(results: Sequence[Result], options: Options) -> str:
    del options
    lines = [["mode", "recall@1", "proven by the tables", "ms", "full scan's ms", "ratio"]]
    for row in results[0]["one core"]["sublinear"]["modes"]:
        shares = [f"{row['recall']:.4f}", f"{row['proven']:.4f}"]
        times = [row["ours"], row["flat"], row["flat"] / row["ours"]]
        lines.append([row["mode"], *shares, *map(_three, times)])
    return tables.markdown(lines, left=1)


def _three(value: float) -> str:
    """Three digits."""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


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
    "distractors": _distractors,
    "identification": _identification,
    "versions": _versions,
    "covers": _covers,
    "parts": _parts,
    "heard": _heard,
    "ablation": _ablation,
    "trained": _trained,
    "paper": _as_printed("paper"),
    "splits": _as_printed("splits"),
    "beside": _beside,
    "show": _show,
    "speed": _speed,
    "rates": _rates,
    "train": _train,
    "clips": _clips,
    "search": _search,
    "turned": _turned,
    "sublinear": _sublinear,
    "command": _command,
}
PICTURES: dict[str, Callable[[Sequence[Result], Options], "Figure"]] = {
    "heat_map": _heat_map,
    "bytes": _bytes,
    "snr": _snr,
    "training": _training,
    "accuracy": _accuracy,
}


if __name__ == "__main__":
    script.run(main)
