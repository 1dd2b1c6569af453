"""Tables and lists as values, and how their numbers are written.

In: numbers. Out: cells, rows and sections that each format renders in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import UnsetType

from era_cache.report.records import CEILING, Estimate

__all__ = [
    "MISSING",
    "Cell",
    "Listing",
    "Section",
    "Table",
    "count_cell",
    "difference_cell",
    "effect_cell",
    "estimate_cell",
    "interval_text",
    "mark_best",
    "mean_cell",
    "p_cell",
    "p_text",
    "pair_table",
    "percent_text",
    "sentences_below",
    "stars_of",
    "word_columns",
]

MISSING = "-"


class Cell(NamedTuple):
    """A shown value, what stands smaller beside it, the number it sorts by, and its marks.

    ``heat`` is -4 to 4: how far below or above the baseline, for a heat map.
    """

    text: str
    detail: str = ""
    key: float | None = None
    stars: str = ""
    best: bool = False
    heat: int = 0


class Table(NamedTuple):
    """Rows under one head; the first column names the row.

    ``sortable`` tables hold numbers. ``name`` is unique in a report: an anchor, and the key of the
    chart that shows the same values. ``legend`` and ``notes`` are sentences below, ``total`` is a
    row that stays last, ``folded`` tables open when asked for, ``rows_are`` says what can be
    filtered, ``best_of`` what the marked cells are the best of, and ``heat`` is the difference that
    the strongest colour stands for.
    """

    title: str
    caption: str
    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = True
    name: str = ""
    legend: str = ""
    notes: tuple[str, ...] = ()
    total: tuple[Cell, ...] = ()
    folded: bool = False
    rows_are: str = ""
    best_of: str = ""
    heat: float = 0.0

    @property
    def all_rows(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows with the total, where there is one."""
        return (*self.rows, self.total) if self.total else self.rows


class Listing(NamedTuple):
    """Sentences, or commands to type."""

    title: str
    items: tuple[str, ...]
    code: bool = False


class Section(NamedTuple):
    """Tables and lists under one heading; ``name`` is its anchor."""

    title: str
    name: str
    blocks: tuple[Table | Listing, ...]


def word_columns(table: Table) -> list[bool]:
    """Which columns hold words: no cell of a number, and something to read."""
    rows = table.all_rows
    return [
        all(row[i].key is None for row in rows) and any(row[i].text != MISSING for row in rows)
        for i in range(len(table.head))
    ]


def sentences_below(table: Table, best: str) -> list[str]:
    """What stands below a table; ``best`` says how the format marks the best, as in "Bold"."""
    marked = any(cell.best for row in table.all_rows for cell in row)
    first = f"{best}: best of its {table.best_of or 'column'}. " if marked else ""
    return [text for text in (f"{first}{table.legend}".strip(), *table.notes) if text]


def percent_text(share: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:g} %"


def interval_text(low: float | None, high: float | None, form: str = ".3f") -> str:
    """Write an interval in brackets."""
    return MISSING if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def p_text(value: float | None) -> str:
    """Write a p value as tables show it."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def stars_of(p: float | None) -> str:
    """Give the marks of a corrected p value."""
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def mark_best(cells: Sequence[Cell], names: Sequence[str]) -> list[Cell]:
    """Mark the best of the cells that ``names`` name; what a full re-encode reaches is no rival."""
    # Compared as shown: two values that print alike are both the best.
    keys = [
        None if cell.key is None or name == CEILING else round(cell.key, 3)
        for cell, name in zip(cells, names, strict=True)
    ]
    best = max((key for key in keys if key is not None), default=None)
    return [
        cell._replace(best=key is not None and key == best)
        for cell, key in zip(cells, keys, strict=True)
    ]


def mean_cell(value: float | None, form: str = ".3f") -> Cell:
    """A number, or a gap."""
    return Cell(MISSING) if value is None else Cell(f"{value:{form}}", key=value)


def count_cell(value: int | None) -> Cell:
    """A count, or a gap."""
    return Cell(MISSING) if value is None else Cell(f"{value:,}", key=float(value))


def p_cell(value: float | None) -> Cell:
    """A p value, or a gap."""
    return Cell(p_text(value), key=value)


def effect_cell(value: float | UnsetType | None) -> Cell:
    """Cohen's d, or a gap."""
    return mean_cell(value if isinstance(value, float) else None, "+.2f")


def estimate_cell(estimate: Estimate | None) -> Cell:
    """A mean with its interval, its deviation over seeds and its marks."""
    if estimate is None:
        return Cell(MISSING)
    detail = interval_text(estimate.low, estimate.high)
    if estimate.sd is not None:
        detail += f" ± {estimate.sd:.3f}"
    return Cell(f"{estimate.mean:.3f}", detail, estimate.mean, stars_of(estimate.p_shown))


def difference_cell(
    difference: float | None, low: float | None, high: float | None, p: float | None
) -> Cell:
    """A difference with its interval and its marks."""
    if difference is None:
        return Cell(MISSING)
    detail = "" if low is None or high is None else interval_text(low, high, "+.3f")
    return Cell(f"{difference:+.3f}", detail, difference, stars_of(p))


def pair_table(
    title: str, caption: str, head: tuple[str, str], pairs: Iterable[tuple[str, str]], name: str
) -> Table:
    """A table of two columns of words."""
    rows = tuple((Cell(left), Cell(right)) for left, right in pairs)
    return Table(title, caption, (Cell(head[0]), Cell(head[1])), rows, sortable=False, name=name)
