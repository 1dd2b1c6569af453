"""Reports as CSV, as text for the terminal, and as Markdown.

In: the evaluation dict. Out: a string.
"""

from __future__ import annotations

import csv
import html
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from era_cache.report.records import Estimate, read_report
from era_cache.report.tables import MARKS_LEGEND, Cell, Table, blocks_of, summary_of

__all__ = ["render_csv", "render_markdown", "render_text"]

TEXT_WIDTH = 100


def render_csv(result: Mapping[str, Any]) -> str:
    """Render the candidates as CSV, one line for each candidate and measure.

    Numbers have full precision; an empty field is a missing value. The curve is left to the JSON.

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        CSV with a head line, and lines that end in a line feed.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = read_report(result)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("candidate", "kind", "chosen", "validation", "measure", *Estimate._fields))
    for candidate in report.candidates:
        chosen = "yes" if candidate.name == report.chosen else "no"
        start = (_csv_text(candidate.name), _csv_text(candidate.kind), chosen, candidate.validation)
        for measure, estimate in candidate.estimates.items():
            writer.writerow((*start, _csv_text(measure), *estimate))
    return stream.getvalue()


def _csv_text(text: str) -> str:
    # A spreadsheet takes such a text for a formula; the apostrophe makes it a text again.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def render_text(result: Mapping[str, Any], *, brief: bool = False) -> str:
    """Render a result for the terminal: aligned tables, 100 columns where the names allow it.

    Args:
        result: An evaluation result, format "era-evaluation", version 1.
        brief: Only the summary, the candidates and the label curve.

    Returns:
        Plain text that ends in a line feed. Tables that are too wide continue below themselves.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = read_report(result)
    parts = [textwrap.fill(f"{summary_of(report)} {report.choice_reason}", TEXT_WIDTH)]
    blocks = blocks_of(report)
    if brief:
        # The candidates last: that is where a terminal's reader looks.
        tables = [block for block in blocks if isinstance(block, Table)]
        blocks = [*(t for t in tables if t.chart == "curve"), *(t for t in tables if t.marked)]
    for block in blocks:
        if isinstance(block, Table):
            lines = [block.caption, "", *_text_table(block, report.chosen)]
            if block.marked:
                legend = f"> chosen. ^ best of its column. {MARKS_LEGEND}"
                lines += ["", textwrap.fill(legend, TEXT_WIDTH)]
        elif block.code:
            lines = [f"  {line}" for item in block.items for line in item.splitlines()]
        else:
            hang = textwrap.TextWrapper(TEXT_WIDTH, subsequent_indent="  ")
            lines = [hang.fill(f"- {item}") for item in block.items]
        parts.append("\n".join([block.title.upper(), *lines]))
    return "\n\n".join(parts) + "\n"


def _text_table(table: Table, chosen: str) -> list[str]:
    def lines_of(row: Sequence[Cell], *, body: bool) -> list[list[str]]:
        marker = "> " if body and table.numeric and row[0].text == chosen else "  "
        first = [f"{marker}{row[0].text}"]
        # Where there is an interval below, there is room to keep the digits aligned.
        others = (
            [("^" * c.best) + c.text + c.stars.ljust(3 if body and c.detail else 0), c.detail]
            for c in row[1:]
        )
        return [first, *([line for line in lines if line] for lines in others)]

    rows = [lines_of(table.head, body=False)] + [lines_of(row, body=True) for row in table.rows]
    if not table.numeric:
        room = max(30, TEXT_WIDTH - 2 - max(len(row[0][0]) for row in rows))
        rows = [[row[0], textwrap.wrap(row[1][0], room) or [""]] for row in rows]
    widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(table.head))]
    out: list[str] = []
    for columns in _fitting_columns(widths):
        out += [""] * bool(out)
        for row in rows:
            for i in range(max(len(row[column]) for column in columns)):
                texts = [row[column][i] if i < len(row[column]) else "" for column in columns]
                padded = [
                    text.rjust(widths[column])
                    if table.numeric and column
                    else text.ljust(widths[column])
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


def render_markdown(result: Mapping[str, Any]) -> str:
    """Render a result as Markdown with pipe tables (GitHub, CommonMark with tables).

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        Markdown that ends in a line feed.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = read_report(result)
    parts = [
        f"# Evaluation on {_markdown(report.collection)}",
        f"**{_markdown(summary_of(report))}** {_markdown(report.choice_reason)}",
    ]
    for block in blocks_of(report):
        parts.append(f"## {_markdown(block.title)}")
        if isinstance(block, Table):
            parts += [f"{_markdown(block.caption)}.", _markdown_table(block, report.chosen)]
            if block.marked:
                parts.append(f"Bold: best of its column. {_markdown(MARKS_LEGEND)}")
        elif block.code:
            text = "\n".join(block.items)
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            parts.append(f"{fence}sh\n{text}\n{fence}")
        else:
            parts.append("\n".join(f"- {_markdown(item)}" for item in block.items))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))


def _markdown_table(table: Table, chosen: str) -> str:
    def line(row: Sequence[Cell], *, body: bool) -> str:
        texts = []
        for cell in row:
            text = f"**{_markdown(cell.text)}**" if cell.best else _markdown(cell.text)
            texts.append(f"{text}{_markdown(cell.stars)} {_markdown(cell.detail)}".rstrip())
        if body and table.numeric and row[0].text == chosen:
            texts[0] += " (chosen)"
        return f"| {' | '.join(texts)} |"

    rule = "|".join(["---", *(["---:" if table.numeric else "---"] * (len(table.head) - 1))])
    body = [line(row, body=True) for row in table.rows]
    return "\n".join([line(table.head, body=False), f"|{rule}|", *body])
