"""One table as HTML, with what stands below it.

In: a ``Table``. Out: a string in which every text is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

from era_cache.report.tables import Cell, Table, sentences_below, word_columns

__all__ = ["table_html"]

_SHORT_WORDS, _LONG_WORDS = 18, 28
_MANY_COLUMNS = 9
_MANY_ROWS = 10
"""Tables with more rows than these can be filtered."""


class _Column(NamedTuple):
    """What all cells of a column share: classes, and the room of their stars."""

    classes: str
    stars: int


def table_html(table: Table, chosen: str = "") -> str:
    """Render a table in a region that scrolls, the row of ``chosen`` highlighted."""
    columns = _columns(table)
    head = "".join(map(_head_cell, table.head, columns, [table.sortable] * len(columns)))
    rows = [_row(row, columns, table.sortable and row[0].text == chosen) for row in table.rows]
    foot = f"\n<tfoot>{_row(table.total, columns, False)}</tfoot>" if table.total else ""
    kinds = ["numeric" if table.sortable else "plain"]
    kinds += ["heat"] * bool(table.heat) + ["tight"] * (len(columns) > _MANY_COLUMNS)
    label = html.escape(table.title)
    caption = f"<caption><span>{html.escape(table.caption)}</span></caption>\n"
    filtered = table.rows_are and len(table.rows) > _MANY_ROWS
    parts = [
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"'
        + (f' data-filter="{html.escape(table.rows_are)}">' if filtered else ">"),
        f'<table class="{" ".join(kinds)}">',
        f"{caption if table.caption else ''}<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        f"</tbody>{foot}",
        "</table>\n</div>",
    ]
    return "\n".join([*parts, *_below(table)])


def _columns(table: Table) -> list[_Column]:
    columns = []
    for i, words in enumerate(word_columns(table)):
        cells = [row[i] for row in table.all_rows]
        longest = max((len(cell.text) for cell in cells), default=0)
        classes = ["w"] * (words or i == 0)
        if classes and longest > _SHORT_WORDS:
            classes.append("l" if longest > _LONG_WORDS else "m")
        columns.append(_Column(" ".join(classes), max((len(c.stars) for c in cells), default=0)))
    return columns


def _head_cell(cell: Cell, column: _Column, sortable: bool) -> str:
    text = html.escape(cell.text)
    detail = f' <span class="detail">{html.escape(cell.detail)}</span>' if cell.detail else ""
    if not sortable:
        return f'<th scope="col">{text}{detail}</th>'
    wide = " h" if len(cell.text) > _SHORT_WORDS else ""
    named = f"{column.classes}{wide}".strip()
    classes = f' class="{named}"' if named else ""
    # Names and p values start with the smallest, other numbers with the largest.
    up = "w" in column.classes or cell.text in ("p", "p (Holm)")
    first = ' data-first="up"' if up else ""
    stars = f'<span class="stars k{column.stars}"></span>' if column.stars else ""
    button = f'<button type="button"><span>{text}</span></button>'
    return f'<th scope="col"{classes}{first}>{button}{stars}{detail}</th>'


def _row(row: Sequence[Cell], columns: Sequence[_Column], is_chosen: bool) -> str:
    first, *others = row
    badge = ' <span class="badge">chosen</span>' if is_chosen else ""
    cells = [_cell(first, columns[0], "th", ' scope="row"', badge)]
    cells += [_cell(cell, column, "td") for cell, column in zip(others, columns[1:], strict=True)]
    opening = '<tr class="chosen">' if is_chosen else "<tr>"
    return f"{opening}{''.join(cells)}</tr>"


def _cell(cell: Cell, column: _Column, tag: str, attributes: str = "", badge: str = "") -> str:
    text = html.escape(_minus(cell.text) if cell.key is not None else cell.text)
    if tag == "th":  # ids and names break where their parts meet
        text = _SEPARATOR.sub(r"\1<wbr>", text)
    if cell.best:
        text = f'<span class="best">{text}</span>'
    if column.stars and cell.key is not None:
        # The room of the stars is kept in each row, so that the digits stay aligned.
        text += f'<span class="stars k{column.stars}">{cell.stars}</span>'
    detail = (
        f' <span class="detail">{html.escape(_minus(cell.detail))}</span>' if cell.detail else ""
    )
    key = "" if cell.key is None else f' data-key="{cell.key!r}"'
    heat = f"{'up' if cell.heat > 0 else 'down'}{abs(cell.heat)}" if cell.heat else ""
    classes = f"{column.classes} {heat}".strip()
    named = f' class="{classes}"' if classes else ""
    return f"<{tag}{attributes}{named}{key}>{text}{badge}{detail}</{tag}>"


_SEPARATOR = re.compile(r"(?<=\w)([_/.:+-])(?=\w)")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _below(table: Table) -> list[str]:
    parts = []
    if table.heat:
        levels = [*(f"down{i}" for i in (4, 3, 2, 1)), "", *(f"up{i}" for i in (1, 2, 3, 4))]
        swatches = "".join(f'<span class="{level}"></span>' for level in levels)
        points = f"{100 * table.heat:.1f}"
        low, high = f"\N{MINUS SIGN}{points}", f"+{points} points"
        parts.append(f'<div class="scale soft">{low} <span>{swatches}</span> {high}</div>')
    below = sentences_below(table, "Underlined")
    return [*parts, *(f'<p class="soft">{html.escape(text)}</p>' for text in below)]
