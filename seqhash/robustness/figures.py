"""The pictures of the robustness report, from the dict of ``robustness.json``, and how to read that
dict.

Rates are [0, 1] in the dict and per cent in whatever is shown. A system has the same colour and
marker in all pictures.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from seqhash import style
from seqhash.robustness.degrade import SNR_FAMILIES

Result = Mapping[str, Any]
Cells = Mapping[tuple[str, str, float], Mapping[str, Any]]

PARTS = (
    "command versions machine seconds settings systems degradations rows half_found_snr histograms "
    "differences examples skipped"
)
NONE = "-"  # what is shown for null


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number: neither null nor NaN, the mean of nothing."""
    return value is not None and not math.isnan(value)


def percent(value: float | None, *, digits: int = 1) -> str:
    """A share in per cent."""
    return f"{100 * value:.{digits}f}" if known(value) else NONE


def cells_of(result: Result) -> Cells:
    """Rows by (system, degradation, length); checks the result on the way."""
    missing = [part for part in PARTS.split() if part not in result]
    if missing or not result["rows"]:
        what = f"no {', '.join(missing)}" if missing else "no rows"
        raise ValueError(
            f"the result has {what}; write robustness.json anew with experiments.robustness."
        )
    for row in result["rows"]:
        if (
            row["system"] not in result["systems"]
            or row["degradation"] not in result["degradations"]
        ):
            raise ValueError(
                f"a row is of {row['system']} and {row['degradation']}, which the result does not "
                "list."
            )
    return {(row["system"], row["degradation"], row["length"]): row for row in result["rows"]}


def lengths_of(result: Result) -> list[float]:
    return sorted({row["length"] for row in result["rows"]})


def chosen_length(result: Result, length: float | None) -> float:
    lengths = lengths_of(result)
    if length is None:
        return lengths[len(lengths) // 2]
    if length not in lengths:
        raise ValueError(f"length must be one of {lengths}, got {length}.")
    return length


def hit_of(cells: Cells, system: str, degradation: str, length: float) -> float | None:
    row = cells.get((system, degradation, length))
    return None if row is None else row["hit"]


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if known(value)]
    return math.fsum(numbers) / len(numbers) if numbers else None


def mean_of(result: Result, system: str, length: float, column: str = "hit") -> float | None:
    return _mean(
        row[column] for row in result["rows"] if (row["system"], row["length"]) == (system, length)
    )


class Picture(NamedTuple):
    section: str
    name: str
    alt: str
    figure: Figure


def pictures(result: Result, folder: str | Path) -> list[Path]:
    """Writes the pictures as PNG and returns their paths; what the result has no numbers for is not
    drawn.

    heat_map_<length>s.png for each length, hit_bytes.png if systems differ in bytes,
    hit_snr_<noise>.png for each kind of noise with two SNRs or more, hit_length.png if there are
    two lengths or more, bit_errors.png if there are histograms. ValueError as ``table``.
    """
    return [style.save(picture.figure, Path(folder) / picture.name) for picture in drawn(result)]


def drawn(result: Result) -> Iterator[Picture]:
    cells_of(result)
    systems = ", ".join(result["systems"])
    for length in lengths_of(result):
        means = "; ".join(f"{s} {percent(mean_of(result, s, length))} %" for s in result["systems"])
        yield Picture(
            "hits",
            f"heat_map_{length:g}s.png",
            f"Heat map of hit rates of {length:g} s queries, degradations by systems. "
            f"Means: {means}.",
            draw_heat_map(result, length),
        )
    sizes = {one["bytes_per_second"] for one in result["systems"].values()} - {None}
    if len(sizes) > 1:
        yield Picture(
            "bytes",
            "hit_bytes.png",
            "Hit rate at 1 % false answers, the mean of all degradations, against bytes of a "
            f"fingerprint a second, a panel for each query length: {systems}.",
            draw_bytes(result),
        )
    for family in _snr_families(result):
        yield Picture(
            "snr",
            f"hit_snr_{family.replace(' ', '_')}.png",
            f"Hit rate against the SNR of {family}, a panel for each query length, with 95 % "
            f"intervals: {systems}.",
            draw_snr(result, family),
        )
    if len(lengths_of(result)) > 1:
        yield Picture(
            "lengths",
            "hit_length.png",
            "Hit rate against query length, a panel for each kind of degradation, with 95 % "
            f"intervals: {systems}.",
            draw_lengths(result),
        )
    if result["histograms"]:
        yield Picture(
            "bits",
            "bit_errors.png",
            "Histograms of bit error rates, true places against random ones, a panel for each "
            f"system: {', '.join(result['histograms'])}.",
            draw_bit_errors(result),
        )


def draw_heat_map(result: Result, length: float) -> Figure:
    """Hit rates in per cent of one length: a line for each system, a column for each
    degradation.
    """
    cells, systems, names = cells_of(result), list(result["systems"]), list(result["degradations"])
    hits = [[hit_of(cells, s, d, length) for d in names] for s in systems]
    shares = np.array(hits, np.float64)  # None becomes NaN
    figure = Figure(
        figsize=(max(4.5, 2.0 + 0.3 * len(names)), 1.3 + 0.26 * len(systems)), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(shares), vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.set_facecolor("#dddddd")  # of what was not measured
    for (i, j), share in np.ndenumerate(shares):
        axes.text(
            j,
            i,
            percent(share, digits=0),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share < 0.5 else "black",
        )
    axes.set_xticks(
        range(len(names)),
        map(style.plain, names),
        fontsize=8,
        rotation=60,
        ha="left",
        rotation_mode="anchor",
    )
    labels = [style.plain(_with_bytes(name, result["systems"][name])) for name in systems]
    axes.set_yticks(range(len(systems)), labels, fontsize=8)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    families = [result["degradations"][name]["family"] for name in names]
    for i in range(1, len(names)):
        if families[i] != families[i - 1]:
            axes.axvline(i - 0.5, color="white", linewidth=2)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"Hit rate (%) of {length:g} s queries", fontsize=8)
    return figure


def _with_bytes(name: str, system: dict[str, Any]) -> str:
    """A system's name and, where it is known, what a second of its fingerprint takes."""
    size = system["bytes_per_second"]
    return name if size is None else f"{name}, {size:,.0f} B/s"


def _snr_families(result: Result) -> list[str]:
    strengths: dict[str, set[float]] = {}
    for entry in result["degradations"].values():
        if entry["strength"] is not None:
            strengths.setdefault(entry["family"], set()).add(entry["strength"])
    known = {*SNR_FAMILIES, *(one["noise"] for one in result["half_found_snr"])}
    return [family for family, values in strengths.items() if family in known and len(values) > 1]


def draw_snr(result: Result, family: str) -> Figure:
    """Hit rate against SNR with 95 % intervals, a panel for each length; crosses mark where half is
    found.
    """
    cells = cells_of(result)
    entries = {name: one for name, one in result["degradations"].items() if one["family"] == family}
    order = sorted(entries, key=lambda name: entries[name]["strength"])
    span = entries[order[-1]]["strength"] - entries[order[0]]["strength"]
    figure, panels = _panels(len(lengths_of(result)))
    for axes, length in zip(panels, lengths_of(result), strict=True):
        axes.axhline(0.5, color=style.GREY, linestyle=":", linewidth=1)
        for i, system in enumerate(result["systems"]):
            aside = 0.008 * span * (i - (len(result["systems"]) - 1) / 2)
            points = [
                (entries[name]["strength"] + aside, cells.get((system, name, length)))
                for name in order
            ]
            _intervals(axes, points, result, system)
            for half in result["half_found_snr"]:
                same = (half["system"], half["noise"], half["length"]) == (system, family, length)
                if same and known(half["snr_db"]):
                    axes.plot(
                        half["snr_db"],
                        0.5,
                        "x",
                        color=_style(result, system)[0],
                        markersize=9,
                        zorder=5,
                    )
        axes.set(title=f"{length:g} s", xlabel=f"SNR of {style.plain(family)} (dB)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure, panels)
    return figure


def draw_lengths(result: Result) -> Figure:
    """Hit rate against query length with 95 % intervals, for the middle strength of each family of
    degradations.
    """
    cells, lengths = cells_of(result), lengths_of(result)
    families: dict[str, list[str]] = {}
    for name, entry in result["degradations"].items():
        families.setdefault(entry["family"], []).append(name)
    names = [members[len(members) // 2] for members in families.values()]
    figure, panels = _panels(len(names))
    for axes, name in zip(panels, names, strict=True):
        for i, system in enumerate(result["systems"]):
            aside = 1.015 ** (i - (len(result["systems"]) - 1) / 2)  # the axis is logarithmic
            _intervals(
                axes, [(n * aside, cells.get((system, name, n))) for n in lengths], result, system
            )
        axes.set_xscale("log")
        axes.set_xticks(lengths, [f"{n:g}" for n in lengths])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set(title=style.plain(name), xlabel="length of the query (s)")
    _legend(figure, panels)
    return figure


def draw_bit_errors(result: Result) -> Figure:
    """Shares of bit error rates of true places and of random ones, a panel for each system that has
    bits.
    """
    figure, panels = _panels(len(result["histograms"]), share_y=False)
    for axes, (system, histogram) in zip(panels, result["histograms"].items(), strict=True):
        for kind, colour in (("true", style.BLUE), ("random", style.ORANGE)):
            counts = np.asarray(histogram[kind], np.float64)
            shares = counts / max(counts.sum(), 1)
            axes.stairs(shares, histogram["edges"], fill=True, color=colour, alpha=0.35)
            axes.stairs(shares, histogram["edges"], color=colour, label=f"{kind} places")
        axes.set(title=style.plain(system), xlabel="bit error rate", ylabel="share")
        axes.set_xlim(0, max(0.6, *_filled(histogram)))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        style.tidy(axes)
    _legend(figure, panels)
    return figure


def _filled(histogram: Mapping[str, Any]) -> Iterator[float]:
    """The upper edges of the bins that hold something."""
    for kind in ("true", "random"):
        yield from (
            high for high, n in zip(histogram["edges"][1:], histogram[kind], strict=True) if n
        )


def draw_bytes(result: Result) -> Figure:
    """Hit rate at 1 % false answers in the mean of the degradations, against bytes a second; a line
    joins what is one hasher with other settings.
    """
    lengths = lengths_of(result)
    figure, panels = _panels(len(lengths))
    for axes, length in zip(panels, lengths, strict=True):
        curves = dict[str, list[tuple[float, float]]]()
        for system, one in result["systems"].items():
            hit = mean_of(result, system, length, "hit_at_1_percent_false")
            if one["bytes_per_second"] is None or not known(hit):
                continue
            colour, marker = _style(result, system)
            axes.plot(
                one["bytes_per_second"],
                hit,
                label=style.plain(system),
                color=colour,
                marker=marker,
                linestyle="none",
            )
            curves.setdefault(system.split()[0], []).append((one["bytes_per_second"], hit))
        for points in curves.values():  # zorder: behind the marks
            axes.plot(*zip(*sorted(points), strict=True), color="0.7", linewidth=1, zorder=0)
        axes.set(title=f"{length:g} s", xlabel="bytes a second")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[0].set_ylabel("hits at 1 % false")
    _legend(figure, panels)
    return figure


def _panels(count: int, *, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    across = 2 if count == 4 else min(3, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(4.5, 3.1 * across), 0.5 + 2.5 * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count] if share_y else []:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        style.tidy(axes)
    for axes in panels[:count:across] if share_y else []:
        axes.set_ylabel("hit rate")
    return figure, panels[:count]


def _intervals(
    axes: Axes,
    points: Sequence[tuple[float, Mapping[str, Any] | None]],
    result: Result,
    system: str,
) -> None:
    there = [(x, row) for x, row in points if row is not None and known(row["hit"])]
    hit, low, high = (
        np.array([row[name] if known(row[name]) else row["hit"] for _, row in there], np.float64)
        for name in ("hit", "hit_low", "hit_high")
    )
    colour, marker = _style(result, system)
    axes.errorbar(
        [x for x, _ in there],
        hit,
        yerr=np.maximum([hit - low, high - hit], 0),  # a percentile interval may miss its value
        label=style.plain(system),
        color=colour,
        marker=marker,
        markersize=4.5,
        linewidth=1.6,
        elinewidth=0.9,
        capsize=2,
    )


def _style(result: Result, system: str) -> tuple[str, str]:
    """The colour and the marker of a system, the same in every picture."""
    i = list(result["systems"]).index(system)
    return style.COLOURS[i % len(style.COLOURS)], style.MARKERS[i % len(style.MARKERS)]


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    handles, names = panels[0].get_legend_handles_labels()
    fit = int(
        figure.get_figwidth() / (0.7 + 0.085 * max(map(len, names), default=0))
    )  # inches; a letter has 0.085
    columns = min(max(fit, 1), len(names))
    figure.set_figheight(figure.get_figheight() + 0.22 * (math.ceil(len(names) / columns) - 1))
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
