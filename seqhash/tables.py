"""Tables of words and numbers, as text for a screen and as Markdown.

Rows are lists of cells, all alike long; the first is the head. A column is as wide as its widest
cell; the first ``left`` columns (by default all) are flush left, the others flush right.
"""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def text(rows: Rows, *, left: int | None = None, rule: bool = False) -> str:
    """Columns two spaces apart; ``rule`` draws dashes below the head."""
    lines = _padded(rows, left)
    lines[1:1] = [["-" * len(cell) for cell in lines[0]]] if rule else []
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(rows: Rows, *, left: int | None = None) -> str:
    """A Markdown table that is aligned in its source too; bars inside cells are escaped."""
    lines = _padded([[cell.replace("|", r"\|") for cell in row] for row in rows], left)
    right = len(lines[0]) if left is None else left  # the first column that is flush right
    rules = ["-" * (len(cell) + 1) + "-:"[i >= right] for i, cell in enumerate(lines[0])]
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "|".join(rules) + "|", *body])


def _padded(rows: Rows, left: int | None) -> list[list[str]]:
    columns = [
        [cell.ljust(width) if left is None or i < left else cell.rjust(width) for cell in column]
        for i, column in enumerate(zip(*rows, strict=True))
        for width in [max(map(len, column))]
    ]
    return [list(row) for row in zip(*columns, strict=True)]
