"""How the pictures look: colours, markers, lines; and how they are written.

Figures are made by matplotlib's objects, never by pyplot, so nothing is global: no window, no
backend to choose, safe in threads. Colours stay apart for colour-blind readers, and where there are
more things than colours, markers tell them apart too.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 150
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"
# P. Tol's "bright" and "dark" hues, ordered so that neighbours differ in lightness as well as in
# hue.
COLOURS = (
    "#332288",
    "#ee7733",
    "#33bbee",
    "#cc3311",
    "#009988",
    "#ee3377",
    "#ddaa33",
    "#117733",
    "#aa4499",
    "#777777",
)
MARKERS = ("o", "^", "s", "D", "v", "P", "X")


def plain(text: str) -> str:
    """Text as matplotlib shows it literally, where it would read mathematics between dollars."""
    return text.replace("$", r"\$")


def tidy(axes: Axes) -> None:
    """Two spines and a faint grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG, making folders that are missing; returns its path.

    Raises:
      ValueError: the path has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path
