"""Tables for a terminal, the same wherever the output goes: no colour unless it is asked for.

In: texts, which may be of others and have several lines. Out: lines without trailing spaces, of
printable characters, aligned also where characters are two columns wide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from era_cache.disk.shown import printable

if TYPE_CHECKING:
    from rich.style import Style
    from rich.text import Text

__all__ = ["cut", "display_width", "table_lines"]

_WIDEST = 100_000
"""Wider than any table: rich shortens what its console has no room for."""


def display_width(text: str) -> int:
    """Columns that a terminal gives a text: two to wide characters, none to combining ones."""
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int, sign: str = "…") -> str:
    """Cut or fill a text of one line to exactly ``width`` columns; ``sign`` ends what was cut."""
    from rich.cells import set_cell_size

    if display_width(text) > width:
        text = set_cell_size(text, max(0, width - len(sign))) + sign[:width]
    return set_cell_size(text, width)


def table_lines(
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    gap: int = 2,
    bold: Collection[tuple[int, int]] = (),
) -> list[str]:
    """Align rows of cells, the head among them.

    Args:
        rows: at least one, all of one length; a cell may have several lines.
        right: the columns whose cells stand at the right, as numbers do.
        gap: spaces between columns.
        bold: cells (row, column) that are marked for a terminal; without any, no escape is written.

    Returns:
        The lines, as wide as their cells need.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, gap, 0, 0))
    for column in range(len(rows[0])):
        table.add_column(justify="right" if column in right else "left", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(*(_text(cell, (number, i) in bold) for i, cell in enumerate(row)))
    console = Console(width=_WIDEST, _environ={})
    lines = console.render_lines(table, pad=False)
    return ["".join(_shown(part.text, part.style) for part in line).rstrip() for line in lines]


def _shown(text: str, style: Style | None) -> str:
    return f"\x1b[1m{text}\x1b[0m" if style is not None and style.bold else text


def _text(cell: str, bold: bool) -> Text:
    from rich.text import Text

    return Text("\n".join(map(printable, cell.split("\n"))), style="bold" if bold else "")
