"""Tables of words and numbers, as text for a screen and as Markdown.

Rows are lists of cells, all alike long; the first is the head. A column is as wide as its widest
cell; the first ``left`` columns (by default all) are flush left, the others flush right.
"""

import unicodedata
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def text(rows: Rows, *, left: int | None = None, rule: bool = False) -> str:
    """Columns two spaces apart; ``rule`` draws dashes below the head."""
    lines = _padded(rows, left)
    lines[1:1] = [["-" * width(cell) for cell in lines[0]]] if rule else []
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(rows: Rows, *, left: int | None = None) -> str:
    """A Markdown table that is aligned in its source too; bars inside cells are escaped."""
    lines = _padded([[cell.replace("|", r"\|") for cell in row] for row in rows], left)
    right = len(lines[0]) if left is None else left  # the first column that is flush right
    rules = ["-" * (width(cell) + 1) + "-:"[i >= right] for i, cell in enumerate(lines[0])]
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "|".join(rules) + "|", *body])


def width(text: str) -> int:
    """Columns of a terminal that a text takes: two for a wide character, none for an accent."""
    wide = sum(unicodedata.east_asian_width(character) in "FW" for character in text)
    none = sum(unicodedata.category(character) in ("Mn", "Me", "Cf") for character in text)
    return len(text) + wide - none


def _padded(rows: Rows, left: int | None) -> list[list[str]]:
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        widest = max(map(width, column))
        spaces = [" " * (widest - width(cell)) for cell in column]
        flush_left = left is None or i < left
        columns.append(
            [c + s if flush_left else s + c for c, s in zip(column, spaces, strict=True)]
        )
    return [list(row) for row in zip(*columns, strict=True)]
