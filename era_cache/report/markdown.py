"""Reports as Markdown.

In: a ``Report``. Out: a string.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from era_cache.report.blocks import lead_of, sections_of
from era_cache.report.records import Report, cleaned
from era_cache.report.tables import Cell, Listing, Table, sentences_below, word_columns

__all__ = ["render_markdown"]


def render_markdown(report: Report) -> str:
    """Render a record as Markdown with pipe tables (GitHub, CommonMark with tables).

    Args:
        report: what an analysis found.

    Returns:
        Markdown that ends in a line feed.

    Raises:
        FormatError: its texts or numbers are damaged.
    """
    report = cleaned(report)
    first, *others = lead_of(report)
    parts = [f"# {_escaped(report.title)}", f"**{_escaped(first)}**", *map(_escaped, others)]
    for section in sections_of(report):
        parts.append(f"## {_escaped(section.title)}")
        for block in section.blocks:
            if block.title != section.title:
                parts.append(f"### {_escaped(block.title)}")
            if isinstance(block, Listing):
                parts.append(_listing(block))
                continue
            caption = [f"{_escaped(block.caption)}."] if block.caption else []
            parts += [*caption, _table(block, report.chosen)]
            parts += map(_escaped, sentences_below(block, "Bold"))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(text, quote=False))


def _listing(block: Listing) -> str:
    if not block.code:
        return "\n".join(f"- {_escaped(item)}" for item in block.items)
    text = "\n".join(block.items)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def _table(table: Table, chosen: str) -> str:
    def line(row: Sequence[Cell], *, body: bool) -> str:
        texts = []
        for cell in row:
            text = f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)
            texts.append(f"{text}{_escaped(cell.stars)} {_escaped(cell.detail)}".rstrip())
        if body and table.sortable and row[0].text == chosen:
            texts[0] += " (chosen)"
        return f"| {' | '.join(texts)} |"

    others = word_columns(table)[1:]
    rule = "|".join(["---", *("---" if words else "---:" for words in others)])
    body = [line(row, body=True) for row in table.all_rows]
    return "\n".join([line(table.head, body=False), f"|{rule}|", *body])
