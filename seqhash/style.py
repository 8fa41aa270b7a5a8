"""How the pictures look: colours, markers, lines; and how they are written.

Figures are made by matplotlib's objects, never by pyplot, so nothing is global: no window, no
backend to choose, safe in threads. Colours stay apart for colour-blind readers, and where there are
more things than colours, markers tell them apart too.
"""

import functools
from pathlib import Path

from matplotlib import font_manager
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


# Fonts that have what DejaVu Sans lacks, where one is installed.
_OTHER_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR"),
    *("Source Han Sans", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "Noto Sans"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "Arial Unicode MS", "Noto Emoji", "Symbola"),
)


@functools.cache
def fonts() -> tuple[str, ...]:
    """Families for texts of any script, the first first."""
    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed))


def shown(text: str) -> str:
    """Text as ``fonts`` can show it in a line: characters that none of them has, line breaks and
    the like as escapes.
    """
    return "".join(c if _has_glyph(c) else c.encode("unicode_escape").decode() for c in text)


@functools.cache
def _has_glyph(character: str) -> bool:
    found = (font_manager.get_font(font_manager.findfont(name)) for name in fonts())
    return character.isprintable() and any(font.get_char_index(ord(character)) for font in found)


def plain(text: str) -> str:
    """``shown``, and no mathematics where there are dollars."""
    return shown(text).replace("$", r"\$")


def tidy(axes: Axes) -> None:
    """Two spines and a faint grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: str | Path, *, source: str = "") -> Path:
    """Writes a PNG, making folders that are missing; returns its path. ``source``, what it was
    drawn from, is kept among its texts.

    Raises:
      ValueError: the path has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Source": source} if source else None)
    return path
