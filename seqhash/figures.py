"""The paper's pictures: MFCC (Fig. 3.3), PCA of H (Fig. 4.1), training curves, accuracy by number
of hashes, bits.

Each picture has two functions: ``draw_*`` takes plain arrays or dicts and returns a
``matplotlib.figure.Figure``; ``*_figure`` writes it as a PNG and returns the path. Shares and rates
go in as [0, 1] and are drawn in per cent. Colours and habits: ``style``.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from seqhash import style
from seqhash.metrics import DEAD_SHARE
from seqhash.paper import ACCURACY

MAX_POINTS = 20_000  # of a scatter plot: more is ink, not information

_FLOOR_STYLES = (
    ("#4d4d4d", "--", "s"),
    ("#808080", "-.", "^"),
    ("#a0a0a0", "--", "D"),
    ("#666666", ":", "v"),
    ("#8c8c8c", "-", "x"),
)


def draw_mfcc(cepstra: np.ndarray, *, title: str, frame_seconds: float = 0.01) -> Figure:
    """Cepstra over time, as the paper's Fig. 3.3: blue is low, red is high, white is 0.

    Args:
      cepstra: (frames, coeffs), standardised per coefficient (else c0 outshines the rest).
      title: above the picture.
      frame_seconds: from one frame to the next; paper: 10 ms.

    Raises:
      ValueError: another shape, no frames, values that are not finite.
    """
    values = _finite(cepstra, "cepstra", "(frames, coeffs)")
    frames, coeffs = values.shape
    limit = max(float(np.percentile(np.abs(values), 99)), 1e-6)
    figure = Figure(figsize=(7.5, 3.0), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        values.T,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="bwr",
        vmin=-limit,
        vmax=limit,
        extent=(0, frames * frame_seconds, -0.5, coeffs - 0.5),
    )
    axes.set(title=style.plain(title), xlabel="time (s)", ylabel="cepstral coefficient")
    axes.yaxis.set_major_locator(MaxNLocator(7, integer=True))
    figure.colorbar(
        image, ax=axes, label="standard deviations\nfrom the mean", pad=0.015, extend="both"
    )
    return figure


def mfcc_figure(
    cepstra: np.ndarray, path: str | Path, *, title: str, frame_seconds: float = 0.01
) -> Path:
    """Writes ``draw_mfcc`` as a PNG; returns its path."""
    return style.save(draw_mfcc(cepstra, title=title, frame_seconds=frame_seconds), path)


def draw_pca(
    states: np.ndarray,
    works: Sequence[str] | np.ndarray,
    *,
    titles: Mapping[str, str] | None = None,
    genres: Sequence[str] | np.ndarray | None = None,
) -> Figure:
    """States on their first two principal components, coloured by work, as the paper's Fig. 4.1.

    All states go into the PCA; of more than MAX_POINTS, a fixed random sample is drawn as points. A
    large mark shows the mean of each group.

    Args:
      states: (segments, hidden), the states H.
      works: (segments,), the work of each segment.
      titles: what the legend calls a work; a work that is not there is called by its name.
      genres: (segments,), the genre of each segment: adds a second panel coloured by it.

    Raises:
      ValueError: another shape, fewer than 2 segments or hidden units, values that are not finite,
        labels that do not match the segments in number.
    """
    values = _finite(states, "states", "(segments, hidden)")
    if min(values.shape) < 2:
        raise ValueError(
            f"states must have at least 2 segments and 2 hidden units, got {values.shape}."
        )
    panels = {"works": works} if genres is None else {"works": works, "genres": genres}
    labels = {name: np.asarray(list(group)) for name, group in panels.items()}
    for name, group in labels.items():
        if group.shape != (len(values),):
            raise ValueError(
                f"{name} must hold one label per segment, expected ({len(values)},), "
                f"got {group.shape}."
            )
    from sklearn.decomposition import PCA  # slow to import, and wanted here only

    pca = PCA(2, random_state=0)
    points = pca.fit_transform(values)
    figure = Figure(figsize=(8.5 if genres is None else 12.5, 5.6), layout="constrained")
    for axes, (name, group) in zip(
        figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True
    ):
        _scatter_groups(axes, points, group, titles=titles if name == "works" and titles else {})
        axes.set(
            title=f"PCA of H, coloured by {name[:-1]}",
            xlabel=f"component 1 ({pca.explained_variance_ratio_[0]:.1%} of the variance)",
            ylabel=f"component 2 ({pca.explained_variance_ratio_[1]:.1%})",
        )
    return figure


def pca_figure(
    states: np.ndarray,
    works: Sequence[str] | np.ndarray,
    path: str | Path,
    *,
    titles: Mapping[str, str] | None = None,
    genres: Sequence[str] | np.ndarray | None = None,
) -> Path:
    """Writes ``draw_pca`` as a PNG; returns its path."""
    return style.save(draw_pca(states, works, titles=titles, genres=genres), path)


def draw_training(rows: Sequence[Mapping[str, Any]], *, chance: float | None = None) -> Figure:
    """Loss, collision rate and cover accuracy by epoch.

    Args:
      rows: one per epoch: ``epoch``; ``train_loss``, ``validation_loss``, ``collision_rate``;
        ``accuracy``, {number of hashes: share}, whose keys may be text as they are after JSON. What
        no row has, or has as None, is not drawn, and there is no accuracy panel if no row has one.
      chance: accuracy of a guess, drawn as a line.

    Raises:
      ValueError: no rows, or a row without an epoch.
    """
    if not rows or any("epoch" not in row for row in rows):
        raise ValueError(f"rows must be at least one, each with an epoch, got {len(rows)} rows.")
    epochs = [row["epoch"] for row in rows]
    accuracies = [
        {int(n): value for n, value in (row.get("accuracy") or {}).items()} for row in rows
    ]
    lengths = sorted(set().union(*accuracies))
    panels = 3 if lengths else 2
    figure = Figure(figsize=(3.5 * panels, 3.2), layout="constrained")
    loss, repeats, *rest = figure.subplots(1, panels)
    _curve(
        loss, epochs, [row.get("train_loss") for row in rows], label="training", color=style.BLUE
    )
    _curve(
        loss,
        epochs,
        [row.get("validation_loss") for row in rows],
        label="validation",
        color=style.ORANGE,
        line="--",
    )
    loss.set(title="Reconstruction error", ylabel="squared error of a frame")
    _curve(repeats, epochs, [row.get("collision_rate") for row in rows], label="", color=style.BLUE)
    repeats.set(title="Collision rate", ylabel="1 s hashes that repeat")
    for axes in rest:
        for n, colour, line in zip(
            lengths,
            cycle((style.BLUE, style.ORANGE, *style.COLOURS)),
            cycle(("-", "--")),
            strict=False,
        ):
            values = [one.get(n) for one in accuracies]
            _curve(axes, epochs, values, label=_hashes(n), color=colour, line=line)
        if chance is not None:
            axes.axhline(chance, color=style.GREY, linestyle=":", label="chance")
        axes.set(title="Cover accuracy", ylabel="correct queries")
    for axes in (loss, repeats, *rest):
        style.tidy(axes)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        largest = axes.dataLim.y1  # -inf if nothing is drawn
        axes.set_ylim(0, 1.25 * largest if 0 < largest < math.inf else None)  # room for the legend
        if axes is not loss:
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        if axes is not repeats:
            axes.legend(
                frameon=False,
                loc="upper center",
                ncols=3,
                columnspacing=1,
                handlelength=1.5,
                fontsize="small",
            )
    return figure


def training_figure(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, chance: float | None = None
) -> Path:
    """Writes ``draw_training`` as a PNG; returns its path."""
    return style.save(draw_training(rows, chance=chance), path)


def draw_accuracy(
    table: Mapping[str, Mapping[int, tuple[float, float, float]]],
    *,
    chance: float,
    paper: Mapping[int, float] = ACCURACY,
    emphasised: Collection[str] | None = None,
    code_rate: float = 4.0,
    segment_seconds: float = 1.0,
) -> Figure:
    """Cover accuracy of several systems against the number of hashes, with 95 % intervals.

    Args:
      table: {system: {number of hashes: (value, low, high)}}, shares.
      chance: accuracy of a guess, dotted.
      paper: {number of hashes: share}, the stars; {} draws none.
      emphasised: the systems in colour, the others being grey and dashed; None is the first of the
        table.
      code_rate, segment_seconds: say how many seconds n hashes are: segment_seconds + (n - 1) /
        code_rate.

    Raises:
      ValueError: no system, a system without numbers, an emphasised one that is not in the table.
    """
    if not table or not all(table.values()):
        empty = [name for name, numbers in table.items() if not numbers]
        raise ValueError(
            "table must have at least one system and numbers for each, "
            f"got none for {empty or 'any'}."
        )
    strong = set([next(iter(table))] if emphasised is None else emphasised)
    if strong - set(table):
        raise ValueError(
            f"emphasised must be among {sorted(table)}, got {sorted(strong - set(table))}."
        )

    def seconds(n: int) -> float:
        return segment_seconds + (n - 1) / code_rate

    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.subplots()
    colours, greys = cycle((style.BLUE, style.ORANGE, *style.COLOURS)), cycle(_FLOOR_STYLES)
    for i, (name, numbers) in enumerate(table.items()):
        colour, line, marker = (next(colours), "-", "o") if name in strong else next(greys)
        lengths = sorted(numbers)
        value, low, high = np.array([numbers[n] for n in lengths], np.float64).T
        dodge = 1.025 ** (
            i - (len(table) - 1) / 2
        )  # on a log axis: the same step aside at each number of hashes
        axes.errorbar(
            [seconds(n) * dodge for n in lengths],
            value,
            yerr=np.maximum(
                [value - low, high - value], 0
            ),  # a percentile interval may miss its value
            label=name,
            color=colour,
            linestyle=line,
            marker=marker,
            linewidth=2.4 if name in strong else 1.2,
            markersize=7 if name in strong else 5,
            elinewidth=1.4 if name in strong else 0.9,
            capsize=3,
            zorder=4 if name in strong else 3,
        )
    if paper:
        axes.plot(
            [seconds(n) for n in paper],
            list(paper.values()),
            linestyle="none",
            marker="*",
            markersize=15,
            markerfacecolor="#f0e442",
            markeredgecolor="black",
            label="paper (its own corpus)",
            zorder=5,
        )
    axes.axhline(
        chance, color="black", linestyle=":", linewidth=1.2, label=f"chance ({chance:.1%})"
    )
    lengths = sorted({n for numbers in table.values() for n in numbers} | set(paper))
    axes.set_xscale("log")
    axes.set_xticks(
        [seconds(n) for n in lengths], [f"{_hashes(n)}\n{seconds(n):g} s" for n in lengths]
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(
        title="Cover accuracy: queries whose original is nearest",
        xlabel="length of the query",
        ylabel="correct queries",
    )
    style.tidy(axes)
    handles, names = (
        axes.get_legend_handles_labels()
    )  # lines before bars; the systems are bars and come first here
    order = sorted(range(len(names)), key=lambda i: names[i] not in table)
    figure.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        loc="outside right center",
        frameon=False,
    )
    return figure


def accuracy_figure(
    table: Mapping[str, Mapping[int, tuple[float, float, float]]],
    path: str | Path,
    *,
    chance: float,
    paper: Mapping[int, float] = ACCURACY,
    emphasised: Collection[str] | None = None,
    code_rate: float = 4.0,
    segment_seconds: float = 1.0,
) -> Path:
    """Writes ``draw_accuracy`` as a PNG; returns its path."""
    figure = draw_accuracy(
        table,
        chance=chance,
        paper=paper,
        emphasised=emphasised,
        code_rate=code_rate,
        segment_seconds=segment_seconds,
    )
    return style.save(figure, path)


def draw_bits(means: np.ndarray) -> Figure:
    """Share of codes that set each bit, sorted; what lies in the shaded bands is dead.

    ``means``: (bits,), from ``metrics.bit_means``. ValueError for another shape, no bits, or a
    share outside [0, 1].
    """
    shares = np.sort(np.asarray(means, np.float64))
    if shares.ndim != 1 or not shares.size or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(
            "means must be (bits,) of shares in [0, 1], "
            f"got shape {shares.shape}, {shares[:1]} and up."
        )
    dead = (shares < DEAD_SHARE) | (shares > 1 - DEAD_SHARE)
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for low, high in ((0, DEAD_SHARE), (1 - DEAD_SHARE, 1)):
        axes.axhspan(low, high, color=style.ORANGE, alpha=0.25, linewidth=0)
    axes.axhline(0.5, color=style.GREY, linestyle=":", linewidth=1)
    order = np.arange(shares.size)
    axes.plot(order[~dead], shares[~dead], "o", color=style.BLUE, markersize=4)
    axes.plot(order[dead], shares[dead], "x", color=style.ORANGE, markersize=5)
    axes.set(
        title=f"How often each bit is set: {int(dead.sum())} of {shares.size} bits are dead",
        xlabel="bits, sorted",
        ylabel="codes with the bit set",
        ylim=(-0.02, 1.02),
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.tidy(axes)
    return figure


def bits_figure(means: np.ndarray, path: str | Path) -> Path:
    """Writes ``draw_bits`` as a PNG; returns its path."""
    return style.save(draw_bits(means), path)


def _scatter_groups(
    axes: Axes, points: np.ndarray, groups: np.ndarray, *, titles: Mapping[str, str]
) -> None:
    """A cloud of points and a mark at its mean for each group, and the legend beside them."""
    names = sorted(set(groups.tolist()))
    styles = {
        name: (style.COLOURS[i % 10], style.MARKERS[i // 10 % len(style.MARKERS)])
        for i, name in enumerate(names)
    }
    shown = np.arange(len(points))
    if len(points) > MAX_POINTS:
        shown = np.random.default_rng(0).choice(shown, MAX_POINTS, replace=False)
    size = float(np.clip(6_000 / len(shown), 3, 20))
    # One shuffled scatter a marker, not one a group: else the last group would hide the others.
    order = np.random.default_rng(1).permutation(shown)
    for marker in dict.fromkeys(marker for _, marker in styles.values()):
        here = [i for i in order if styles[groups[i]][1] == marker]
        colours = [styles[groups[i]][0] for i in here]
        axes.scatter(
            points[here, 0],
            points[here, 1],
            s=size,
            c=colours,
            marker=marker,
            alpha=0.35,
            linewidths=0,
            rasterized=True,
        )
    for name in names:
        colour, marker = styles[name]
        axes.plot(
            *points[groups == name].mean(axis=0),
            marker,
            color=colour,
            markersize=9,
            markeredgecolor="white",
        )
    labels = {name: style.plain(titles.get(name, name)) for name in names}
    handles = [
        Line2D(
            [],
            [],
            color=styles[name][0],
            marker=styles[name][1],
            linestyle="none",
            label=labels[name],
        )
        for name in names
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize="small",
    )
    style.tidy(axes)


def _curve(
    axes: Axes,
    epochs: Sequence[int],
    values: Sequence[Any],
    *,
    label: str,
    color: str,
    line: str = "-",
) -> None:
    """One line of a training figure; epochs whose value is None are left out, and a curve without
    values is too.
    """
    known = [
        (epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None
    ]
    if known:
        marker = (
            "o" if len(known) <= 2 else None
        )  # a line needs two points and is hardly seen with two
        axes.plot(
            *zip(*known, strict=True),
            label=label,
            color=color,
            linestyle=line,
            linewidth=1.8,
            marker=marker,
        )


def _hashes(n: int) -> str:
    return "1 hash" if n == 1 else f"{n} hashes"


def _finite(values: np.ndarray, name: str, shape: str) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be {shape} and not empty, got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite, got {int((~np.isfinite(array)).sum())} values that are not."
        )
    return array
