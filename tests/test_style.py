"""Names of every kind in pictures: shown where a font has them, else as an escape, never an error
(a warning is one here).
"""

import pytest
from matplotlib.figure import Figure

from seqhash import style

NAMES = {
    "pay $x_{ and $.wav": "pay $x_{ and $.wav",
    r"\frac{a}{b} ^_%#&~": r"\frac{a}{b} ^_%#&~",
    "é ü ж ω": "é ü ж ω",
    "new\nline\t\x07\x00.wav": r"new\nline\t\x07\x00.wav",
    "not utf-8 \udcff": r"not utf-8 \udcff",
    "\ufffe\U0010ffff": r"\ufffe\U0010ffff",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind_are_in_pictures(tmp_path, name):
    assert style.shown(name) == NAMES[name]
    assert style.plain(name) == NAMES[name].replace("$", r"\$")
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.set_title(style.shown(name), parse_math=False, fontfamily=style.fonts())
    axes.set_xlabel(style.plain(name))
    style.save(figure, tmp_path / "names.png")


def test_what_no_font_has_is_an_escape(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "fonts", lambda: ("DejaVu Sans",))
    style._has_glyph.cache_clear()
    try:
        assert style.shown("日本 🎵.wav") == r"\u65e5\u672c \U0001f3b5.wav"
    finally:
        style._has_glyph.cache_clear()
