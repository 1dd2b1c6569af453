"""One answer as text for a terminal: a column for each candidate, side by side.

In: an ``Answer``; its ids and texts are untrusted. Out: lines of at most the terminal's width, of
printable characters only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import NamedTuple

from era_cache.disk.shown import clean
from era_cache.report.terminal import cut, display_width
from era_cache.serve.answer import Answer, Column, Hit

__all__ = ["fit", "render"]

_LEAST_COLUMN = 28
_ROOM_BESIDE = 60
"""Width at which a text stands beside its id; below, it gets a line of its own."""
_LONG_START = 12
"""Characters that texts may all begin with before they are left out."""
_MOST_ELSEWHERE = 10
_TEXT_SHOWN = 400
"""Characters of a text that are looked at; no line is longer."""


class Signs(NamedTuple):
    """The signs that stand for things."""

    relevant: str
    bar: str
    rule: str
    cut: str


_UNICODE = Signs("★", "│", "─", "…")
_ASCII = Signs("*", "|", "-", "~")


def fit(text: str, width: int, sign: str = "…") -> str:
    """A printable text on one line, cut or filled to exactly ``width`` columns."""
    return cut(clean(text[:_TEXT_SHOWN]), width, sign)


def render(
    answer: Answer,
    *,
    width: int,
    ascii_only: bool = False,
    emphasise: Callable[[str], str] = str,
) -> str:
    """Show an answer.

    Args:
        answer: what was found.
        width: of the terminal, in columns.
        ascii_only: use no sign beyond ASCII; ids and texts stay as they are.
        emphasise: marks the line of a relevant document, such as by bold type.

    Returns:
        Text without a final line feed.
    """
    signs = _ASCII if ascii_only else _UNICODE
    width = max(width, 20)
    blocks = [_query_lines(answer, width, signs)]
    side_by_side = max(1, min(len(answer.columns), (width + 3) // (_LEAST_COLUMN + 3)))
    grade_width = _grade_width(answer)
    for start in range(0, len(answer.columns), side_by_side):
        group = answer.columns[start : start + side_by_side]
        room = (width - 3 * (len(group) - 1)) // len(group)
        cells = [_column(answer, c, room, grade_width, signs, emphasise) for c in group]
        bar = f" {signs.bar} "
        # Every cell has its full width: filled up where a ranking is shorter.
        longest = max(map(len, cells))
        filled = [[*lines, *[" " * room] * (longest - len(lines))] for lines in cells]
        blocks.append([bar.join(line).rstrip() for line in zip(*filled, strict=True)])
    if answer.elsewhere:
        blocks.append(_elsewhere_lines(answer, width, signs))
    blocks.append(_foot_lines(answer, width, signs))
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _query_lines(answer: Answer, width: int, signs: Signs) -> list[str]:
    asked = answer.asked
    what = "Query"
    if asked.id is not None:
        relevant = f"{asked.relevant:,} relevant" if asked.relevant else "nothing relevant known"
        part = "in no part of the split, " if asked.part == "unused" else f"{asked.part} query, "
        what = f"Query {asked.id} ({part if asked.part else ''}{relevant})"
    line = what if asked.text is None else f"{what}: {asked.text}"
    lines = [fit(line, width, signs.cut).rstrip()]
    if asked.instruction:
        lines.append(fit(f"Instruction: {asked.instruction}", width, signs.cut).rstrip())
    if asked.part in ("training", "validation"):
        seen = "The adapter was fitted on its labels: this ranking flatters what was trained."
        lines += textwrap.wrap(seen, width)
    return lines


def _grade_width(answer: Answer) -> int:
    grades = [hit.grade for c in answer.columns for hit in c.hits if hit.grade is not None]
    return max((len(_grade(grade, _UNICODE)) for grade in grades), default=0)


def _grade(grade: int | None, signs: Signs) -> str:
    """The mark of a judged document: a star before the grade of a relevant one."""
    if grade is None:
        return ""
    return f"{signs.relevant}{grade}" if grade >= 1 else str(grade)


def _moved(hit: Hit, answer: Answer) -> str:
    if hit.baseline_rank is None or hit.baseline_rank > answer.depth:
        return "new"
    change = hit.baseline_rank - hit.rank
    return f"{change:+d}" if change else ""


def _column(
    answer: Answer,
    column: Column,
    room: int,
    grade_width: int,
    signs: Signs,
    emphasise: Callable[[str], str],
) -> list[str]:
    value = "" if column.value is None else f"  {answer.measure} {column.value:.3f}"
    chosen = " (chosen)" if column.chosen else ""
    lines = [fit(f"{column.name}{chosen}{value}", room, signs.cut), signs.rule * room]
    heads = _heads(answer, column, grade_width, signs)
    rest = max(4, room - len(heads[0]) - 1) if heads else 0
    with_text = any(hit.text for hit in column.hits)
    beside = with_text and room >= _ROOM_BESIDE
    longest = max((display_width(clean(hit.document)) for hit in column.hits), default=0)
    id_width = min(longest, rest * 9 // 20 if beside else rest)
    shared = _shared_start(answer)
    for hit, head in zip(column.hits, heads, strict=True):
        own = [f"{head} {fit(hit.document, id_width, signs.cut)}"]
        text = hit.text or ""
        if shared and text:
            text = signs.cut + text[shared:]
        if text and beside:
            own[0] += f" {fit(text, rest - id_width - 1, signs.cut)}"
        elif with_text:
            own.append(f"    {fit(text, room - 4, signs.cut)}")
        own = [cut(line, room, signs.cut) for line in own]
        relevant = hit.grade is not None and hit.grade >= 1
        lines += [emphasise(line) for line in own] if relevant else own
    return lines


def _shared_start(answer: Answer) -> int:
    """Characters that all texts begin with, up to a blank: what differs is what helps."""
    texts = {hit.text for column in answer.columns for hit in column.hits if hit.text}
    if len(texts) < 2:
        return 0
    first, last = min(texts), max(texts)  # all others lie between them
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    shared = first[:same].rfind(" ") + 1
    return shared if shared > _LONG_START else 0


def _heads(answer: Answer, column: Column, grade_width: int, signs: Signs) -> list[str]:
    """Rank, grade, score and movement of each hit, aligned; what all of them lack takes no room."""
    moving = answer.baseline is not None and column.name != answer.baseline
    cells = [
        [
            str(hit.rank),
            _grade(hit.grade, signs).rjust(grade_width),
            f"{hit.score:.3f}",
            _moved(hit, answer) if moving else "",
        ]
        for hit in column.hits
    ]
    columns = [texts for texts in zip(*cells, strict=True) if any(texts)]
    widths = [max(map(len, texts)) for texts in columns]
    return [
        " ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    ]


def _elsewhere_lines(answer: Answer, width: int, signs: Signs) -> list[str]:
    lines = textwrap.wrap("Relevant, but not in every list above:", width)
    unseen = f"beyond {answer.reach:,}" if answer.collection.index is None else "not found"
    for entry in answer.elsewhere[:_MOST_ELSEWHERE]:
        places = ", ".join(
            f"{name} {unseen if rank is None else f'{rank:,}'}"
            for name, rank in entry.ranks.items()
        )
        mark = _grade(entry.grade, signs)
        # The ranks are the news; the id gives way.
        room = max(8, width - len(mark) - len(places) - 6)
        document = fit(entry.document, min(room, display_width(clean(entry.document))), signs.cut)
        lines.append(f"  {fit(f'{mark} {document}: {places}', width - 2, signs.cut)}".rstrip())
    more = len(answer.elsewhere) - _MOST_ELSEWHERE
    return [*lines, *([f"  and {more:,} more"] if more > 0 else [])]


def _foot_lines(answer: Answer, width: int, signs: Signs) -> list[str]:
    spent = answer.milliseconds
    encoded = "stored vectors" if spent.encode is None else f"encoded in {spent.encode:.1f} ms"
    documents = f"{answer.collection.documents:,} documents"
    if answer.collection.index is not None:
        documents += f" through an index ({answer.collection.index}), which may miss some,"
    timing = f"{encoded}, searched {documents} in {spent.search:.1f} ms"
    keys = []
    if answer.asked.id is not None:
        keys.append(f"{signs.relevant} relevant, with its grade.")
    if answer.baseline is not None and len(answer.columns) > 1:
        keys.append(f"+2, -2: places up or down from {answer.baseline}; new: not in its list.")
    lines = [timing, " ".join(keys)]
    return [part for line in lines for part in textwrap.wrap(line, width)]
