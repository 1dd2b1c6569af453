"""Tables by collection and by domain: gains, means, what was trained where.

In: a ``Report``. Out: tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from era_cache.report.records import (
    BASELINE,
    CollectionMeans,
    DomainMeans,
    Gain,
    Matrix,
    Report,
)
from era_cache.report.tables import (
    Cell,
    Table,
    count_cell,
    difference_cell,
    effect_cell,
    interval_text,
    mark_best,
    mean_cell,
    p_cell,
)

__all__ = [
    "collection_means_table",
    "domain_means_table",
    "gain_order",
    "gains_table",
    "matrix_table",
]

_NAMED = 12


def gain_order(rows: Sequence[Gain]) -> list[Gain]:
    """Sort gains from the largest to the smallest."""
    return sorted(rows, key=lambda row: -row.difference)


def _too_few(rows: Sequence[Gain]) -> list[Gain]:
    """Collections on which the test would most likely miss a difference such as the one found."""
    return [
        row
        for row in rows
        if row.detectable is not None
        and abs(row.difference) < row.detectable
        and row.p_holm >= 0.05
    ]


def _few_note(rows: Sequence[Gain]) -> str:
    few = sorted(_too_few(rows), key=lambda row: row.queries)
    if not few:
        return ""
    named = [
        f"{row.collection} ({row.queries:,}: {row.detectable:.3f})"
        for row in few[:_NAMED]
        if row.detectable is not None
    ]
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return (
        "Too few queries to see a difference as small as the one found, so that none here does not "
        "mean that there is none. In brackets the test queries, and the smallest true difference "
        f"that would be found in 80 % of cases: {', '.join(named)}{more}."
    )


def gains_table(report: Report) -> Table | None:
    """What the chosen candidate gains on each collection, the largest first."""
    gains = report.gains
    if not gains.rows:
        return None
    rows = gain_order(gains.rows)
    has_large = any(row.large is not None for row in rows)
    body = []
    for row in rows:
        cells = [
            Cell(row.collection),
            Cell(row.domain),
            count_cell(row.queries),
            mean_cell(row.baseline),
            mean_cell(row.mean),
            *([mean_cell(row.large)] if has_large else []),
            difference_cell(row.difference, None, None, row.p_holm),
            Cell(interval_text(row.low, row.high, "+.3f"), key=row.low),
            p_cell(row.p),
            p_cell(row.p_holm),
            effect_cell(row.effect),
            mean_cell(row.detectable),
        ]
        body.append(tuple(cells))
    head = [
        *("collection", "domain", "queries", BASELINE, gains.candidate),
        *(["large"] if has_large else []),
        *("difference", "95 % interval", "p", "p (Holm)", "effect d", "detectable"),
    ]
    note = _few_note(rows)
    return Table(
        "Gains by collection",
        f"{report.primary} of {gains.candidate} against {BASELINE} on the test queries of each "
        "collection",
        tuple(Cell(text) for text in head),
        tuple(body),
        name="gains",
        legend=(
            "Holm's correction is over the collections: * p < 0.05, ** p "
            "< 0.01, *** p < 0.001. Detectable: smallest true difference that the test finds in "
            "80 % of cases."
        ),
        notes=(note,) if note else (),
        rows_are="collections",
    )


def _shown_names(report: Report, groups: Sequence[CollectionMeans | DomainMeans]) -> list[str]:
    found = {name for group in groups for name in group.candidates}
    known = [name for name in report.names if name in found]
    return [*known, *sorted(found - set(known))]


def _mean_cells(group: CollectionMeans | DomainMeans, names: Sequence[str]) -> list[Cell]:
    return mark_best([mean_cell(group.candidates.get(name)) for name in names], names)


def collection_means_table(report: Report) -> Table:
    """The primary measure of every candidate on every collection."""
    names = _shown_names(report, report.by_collection)
    head = ("collection", "domain", "queries", *names)
    rows = tuple(
        (
            Cell(group.collection),
            Cell(group.domain),
            count_cell(group.queries),
            *_mean_cells(group, names),
        )
        for group in report.by_collection
    )
    return Table(
        "Means by collection",
        f"{report.primary} of every candidate on the test queries of each collection",
        tuple(Cell(text) for text in head),
        rows,
        name="by-collection",
        best_of="row",
        rows_are="collections",
    )


def domain_means_table(report: Report) -> Table:
    """The primary measure of every candidate on every domain, and their mean."""
    names = _shown_names(report, report.by_domain)
    rows = [
        (
            Cell(group.domain),
            count_cell(group.collections),
            count_cell(group.queries),
            *_mean_cells(group, names),
        )
        for group in report.by_domain
    ]
    last = rows.pop() if len(rows) > 1 and report.by_domain[-1].domain == "all domains" else ()
    return Table(
        "Means by domain",
        f"{report.primary} of every candidate, mean over the collections of each domain",
        tuple(Cell(text) for text in ("domain", "collections", "queries", *names)),
        tuple(rows),
        name="by-domain",
        best_of="row",
        total=last,
    )


def matrix_table(report: Report) -> Table | None:
    """What a candidate reaches on each domain by what it was trained on, as a heat map."""
    matrix = report.matrix
    if matrix is None or not matrix.rows:
        return None
    most = max((abs(d) for row in _differences(matrix) for d in row if d is not None), default=0.0)
    scale = max(most, 0.01)
    rows = []
    for name, values, changes in zip(matrix.rows, matrix.values, _differences(matrix), strict=True):
        cells = []
        for column, value, change in zip(matrix.columns, values, changes, strict=True):
            own = "°" if name in (column, f"all but {column}") else ""
            cell = mean_cell(value)._replace(stars=own)
            if change is not None:
                heat = round(4 * change / scale)
                cell = cell._replace(detail=f"{100 * change:+.1f}", heat=heat)
            cells.append(cell)
        rows.append((Cell(name), *cells))
    return Table(
        "Trained here, measured there",
        f"{report.primary} of {matrix.candidate} by what it was trained on (rows) and where it was "
        f"measured (columns), with the difference from {BASELINE} there in points (1 point = 0.01)",
        (Cell("trained on"), *(Cell(name) for name in matrix.columns)),
        tuple(rows),
        name="matrix",
        legend="° where the row names the column: its own domain, or the one left out.",
        total=(Cell(BASELINE), *(mean_cell(value) for value in matrix.baseline)),
        heat=scale,
    )


def _differences(matrix: Matrix) -> list[list[float | None]]:
    return [
        [
            None if value is None or base is None else value - base
            for value, base in zip(row, matrix.baseline, strict=True)
        ]
        for row in matrix.values
    ]
