"""Reports as text for the terminal.

In: a ``Report``. Out: a string.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from era_cache.report.blocks import brief_tables, lead_of, sections_of
from era_cache.report.records import Report, cleaned
from era_cache.report.tables import Cell, Listing, Table, sentences_below, word_columns

__all__ = ["render_text"]

TEXT_WIDTH = 100
_WORDS_WIDTH = 32
"""Words of a sortable table wrap at this width."""


def render_text(report: Report, *, brief: bool = False) -> str:
    """Render a record for the terminal: aligned tables, 100 columns where the names allow it.

    Args:
        report: what an analysis found.
        brief: Only the summary, the label curve, the domains and the candidates.

    Returns:
        Plain text that ends in a line feed. Tables that are too wide continue below themselves.

    Raises:
        FormatError: its texts or numbers are damaged.
    """
    report = cleaned(report)
    parts = [textwrap.fill(" ".join(lead_of(report)), TEXT_WIDTH)]
    if brief:
        parts += [_block(table, report.chosen) for table in brief_tables(report)]
    else:
        parts.insert(0, textwrap.fill(report.title, TEXT_WIDTH))
        parts += [
            _block(block, report.chosen)
            for section in sections_of(report)
            for block in section.blocks
        ]
    return "\n\n".join(parts) + "\n"


def _block(block: Table | Listing, chosen: str) -> str:
    if isinstance(block, Table):
        caption = [textwrap.fill(block.caption, TEXT_WIDTH)] if block.caption else []
        lines = [*caption, "", *_table(block, chosen)]
        best = "> chosen. ^" if block.name == "candidates" else "^"
        for sentence in sentences_below(block, best):
            lines += ["", textwrap.fill(sentence, TEXT_WIDTH)]
    elif block.code:
        lines = [f"  {line}" for item in block.items for line in item.splitlines()]
    else:
        hang = textwrap.TextWrapper(TEXT_WIDTH, subsequent_indent="  ")
        lines = [hang.fill(f"- {item}") for item in block.items]
    return "\n".join([block.title.upper(), *lines])


def _table(table: Table, chosen: str) -> list[str]:
    words = word_columns(table)
    starred = [max(len(row[i].stars) for row in table.all_rows) for i in range(len(words))]

    def lines_of(row: Sequence[Cell], *, body: bool) -> list[list[str]]:
        marker = "> " if body and table.sortable and row[0].text == chosen else "  "
        found = [[f"{marker}{row[0].text}"]]
        for i, cell in enumerate(row[1:], 1):
            if words[i]:
                found.append(textwrap.wrap(cell.text, _WORDS_WIDTH) or [""])
                continue
            # The room of the stars is kept in each row, so that the digits stay aligned.
            stars = cell.stars.ljust(starred[i]) if body else ""
            lines = [("^" * cell.best) + cell.text + stars, cell.detail]
            found.append([line for line in lines if line])
        return found

    rows = [lines_of(table.head, body=False)]
    rows += [lines_of(row, body=True) for row in table.all_rows]
    if not table.sortable:
        room = max(30, TEXT_WIDTH - 2 - max(len(row[0][0]) for row in rows))
        cells = (table.head, *table.rows)
        rows = [
            [row[0], textwrap.wrap(cell[1].text, room) or [""]]
            for row, cell in zip(rows, cells, strict=True)
        ]
    widths = [
        max((len(line) for row in rows for line in row[i]), default=0)
        for i in range(len(table.head))
    ]
    out: list[str] = []
    for columns in _fitting_columns(widths):
        out += [""] * bool(out)
        for row in rows:
            for i in range(max(len(row[column]) for column in columns)):
                texts = [row[column][i] if i < len(row[column]) else "" for column in columns]
                padded = [
                    text.ljust(widths[column])
                    if words[column] or not table.sortable or not column
                    else text.rjust(widths[column])
                    for column, text in zip(columns, texts, strict=True)
                ]
                out.append("  ".join(padded).rstrip())
    return out


def _fitting_columns(widths: Sequence[int]) -> list[list[int]]:
    """Split columns into groups that fit the terminal, each with the first column in front."""
    groups = [[0]]
    for column in range(1, len(widths)):
        used = sum(widths[i] + 2 for i in groups[-1])
        if len(groups[-1]) > 1 and used + widths[column] > TEXT_WIDTH:
            groups.append([0])
        groups[-1].append(column)
    return groups
