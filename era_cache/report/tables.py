"""The words and numbers that every format of a report shows, as tables and lists.

In: a ``Report``. Out: blocks in the order in which text, Markdown and HTML walk them, so that the
formats cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from era_cache.report.records import BASELINE, Estimate, Pairs, Report, percent_text

__all__ = [
    "MARKS_LEGEND",
    "Cell",
    "Listing",
    "Table",
    "blocks_of",
    "curve_names",
    "stars_of",
    "summary_of",
]

MISSING = "-"
MARKS_LEGEND = (
    f"Brackets: 95 % interval. Against {BASELINE}: * p < 0.05, ** p < 0.01, *** p < 0.001, "
    "after Holm's correction where it was made. 1 point = 0.01."
)


class Cell(NamedTuple):
    """A shown value, what stands smaller beside it, the number it sorts by, and its marks."""

    text: str
    detail: str = ""
    key: float | None = None
    stars: str = ""
    best: bool = False


class Table(NamedTuple):
    """Rows under one head; the first column names the row.

    ``numeric`` tables can be sorted, ``marked`` ones carry marks to explain, and ``chart`` names
    the drawing of the same values in HTML.
    """

    title: str
    caption: str
    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: bool = True
    marked: bool = False
    chart: str = ""


class Listing(NamedTuple):
    """Sentences, or commands to type."""

    title: str
    items: tuple[str, ...]
    code: bool = False


def interval_text(low: float | None, high: float | None, form: str = ".3f") -> str:
    return MISSING if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _p(value: float | None) -> str:
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def stars_of(p: float | None) -> str:
    """Give the marks of a corrected p value, explained in ``MARKS_LEGEND``."""
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def _mark_best(column: Sequence[Cell]) -> list[Cell]:
    # Compared as shown: two values that print alike are both the best.
    keys = [None if cell.key is None else round(cell.key, 3) for cell in column]
    best = max((key for key in keys if key is not None), default=None)
    return [
        cell._replace(best=key is not None and key == best)
        for cell, key in zip(column, keys, strict=True)
    ]


def _estimate_cell(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(MISSING)
    interval = interval_text(estimate.low, estimate.high)
    return Cell(f"{estimate.mean:.3f}", interval, estimate.mean, stars_of(estimate.p_shown))


def _candidate_table(report: Report) -> Table:
    validation = [
        Cell(MISSING) if c.validation is None else Cell(f"{c.validation:.3f}", key=c.validation)
        for c in report.candidates
    ]
    columns = [[Cell(candidate.name) for candidate in report.candidates], _mark_best(validation)]
    for measure in report.measures:
        cells = [_estimate_cell(candidate.estimates[measure]) for candidate in report.candidates]
        columns.append(_mark_best(cells))
    return Table(
        "Candidates",
        f"Means over {report.test_queries:,} test queries; held-out is {report.primary} on labels "
        "not trained on",
        (Cell("candidate"), Cell("held-out"), *(Cell(measure) for measure in report.measures)),
        tuple(zip(*columns, strict=True)),
        marked=True,
    )


def _difference_table(report: Report) -> Table:
    rows = []
    for candidate in report.candidates:
        estimate = candidate.estimates[report.primary]
        if candidate.name == BASELINE or estimate.difference is None:
            continue
        interval = interval_text(estimate.difference_low, estimate.difference_high, "+.3f")
        difference, stars = f"{estimate.difference:+.3f}", stars_of(estimate.p_shown)
        rows.append(
            (
                Cell(candidate.name),
                Cell(difference, interval, estimate.difference, stars),
                Cell(_p(estimate.p), key=estimate.p),
                Cell(_p(estimate.p_holm), key=estimate.p_holm),
            )
        )
    head = (Cell("candidate"), Cell("difference"), Cell("p"), Cell("p (Holm)"))
    caption = f"{report.primary} of each candidate minus that of {BASELINE}, on the test queries"
    return Table(f"Differences from {BASELINE}", caption, head, tuple(rows), chart="differences")


def curve_names(report: Report) -> list[str]:
    """Names of the candidates on the label curve, in order of appearance."""
    return list(dict.fromkeys(name for point in report.curve for name in point.estimates))


def _curve_table(report: Report) -> Table:
    head = [Cell(percent_text(p.labels), f"{p.train:,} queries", p.labels) for p in report.curve]
    rows = (
        (Cell(name), *(_estimate_cell(point.estimates.get(name)) for point in report.curve))
        for name in curve_names(report)
    )
    caption = f"{report.primary} on the test queries, by share of the labels used for training"
    head = [Cell("candidate"), *head]
    return Table("Label efficiency", caption, tuple(head), tuple(rows), chart="curve")


def _pair_table(title: str, caption: str, head: tuple[str, str], pairs: Pairs) -> Table:
    rows = tuple((Cell(name), Cell(value)) for name, value in pairs)
    return Table(title, caption, (Cell(head[0]), Cell(head[1])), rows, numeric=False)


def blocks_of(report: Report) -> list[Table | Listing]:
    """List what every format shows, in order, without the blocks that have nothing to show."""
    kinds = tuple((candidate.name, candidate.kind) for candidate in report.candidates)
    tables = [
        _candidate_table(report),
        _pair_table("What they are", "The candidates in words", ("candidate", "meaning"), kinds),
        _curve_table(report),
        _difference_table(report),
        _pair_table("Costs", "Time and space", ("what", "value"), report.costs),
        _pair_table("Set-up", "Data, split and encoders", ("what", "value"), report.setup),
    ]
    environment = _pair_table(
        "Environment", "Versions used", ("software", "version"), report.environment
    )
    return [
        *(table for table in tables if table.rows),
        *([Listing("Commands", report.commands, code=True)] if report.commands else []),
        *([Listing("Notes", report.notes)] if report.notes else []),
        *([environment] if environment.rows else []),
    ]


def summary_of(report: Report) -> str:
    """Say in a sentence what the chosen candidate reaches."""
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    estimate = chosen.estimates[report.primary]
    sentence = (
        f"{chosen.name} reaches {report.primary} {estimate.mean:.3f} "
        f"{interval_text(estimate.low, estimate.high)} on {report.test_queries:,} test queries"
    )
    if chosen.name == BASELINE or estimate.difference is None:
        return f"{sentence}."
    points, p = 100 * estimate.difference, estimate.p_shown
    side = "over" if points >= 0 else "against"
    certainty = "" if p is None else f" (p {_p(p)})" if p < 0.001 else f" (p = {_p(p)})"
    doubt = "" if p is None or p < 0.05 else ", not a significant difference"
    return f"{sentence}: {points:+.1f} points {side} {BASELINE}{certainty}{doubt}."
