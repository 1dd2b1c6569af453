"""Tables query by query, and of scores: counts, wins, losses, distributions.

In: a ``Report``. Out: tables.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from era_cache.report.records import BASELINE, QueryDifference, QueryValues, Report, Scores
from era_cache.report.tables import MISSING, Cell, Table, count_cell, mean_cell

__all__ = ["SCORE_PARTS", "mass", "quantile", "query_tables", "score_table"]

SCORE_PARTS = ("others", "hardest", "positives")
_WORDS = {
    "positives": "relevant documents",
    "hardest": "hardest negatives",
    "others": "other documents",
}
# Bins of a measure: exactly none, quarters, exactly all.
_BOUNDS = (0.25, 0.5, 0.75)
_BINS = ("0", "to 0.25", "to 0.5", "to 0.75", "below 1", "1")


def query_tables(report: Report) -> list[Table]:
    """How many queries get better, where they stood before, and the extremes."""
    queries = report.queries
    total = queries.better + queries.equal + queries.worse
    drawn = sum(number for _, _, number in queries.points)
    rows = tuple(
        (Cell(word), count_cell(number), mean_cell(100 * number / max(total, 1), ".1f"))
        for word, number in (
            ("better", queries.better),
            ("equal", queries.equal),
            ("worse", queries.worse),
        )
    )
    counts = Table(
        "Query by query",
        f"Test queries on which {queries.candidate} has a higher, the same or a lower "
        f"{report.primary} than {BASELINE}",
        (Cell("candidate is"), Cell("queries"), Cell("share in %")),
        rows,
        name="queries",
        legend=f"The chart shows {drawn:,} of {total:,} queries." if drawn != total else "",
    )
    found = [counts]
    if queries.points:
        found.append(_cross_table(report, queries))
    several = len(report.collections) > 1
    for title, name, does, chosen in (
        ("Largest wins", "wins", "gains", queries.wins),
        ("Largest losses", "losses", "loses", queries.losses),
    ):
        if chosen:
            caption = f"Test queries on which {queries.candidate} {does} most in {report.primary}"
            found.append(_extremes(title, name, caption, chosen, queries.candidate, several))
    return found


def _bin_of(value: float) -> int:
    if value <= 0 or value >= 1:
        return 0 if value <= 0 else len(_BINS) - 1
    return 1 + bisect_left(_BOUNDS, value)


def _cross_table(report: Report, queries: QueryValues) -> Table:
    """Count the queries by what the baseline and what the candidate reaches on them."""
    counts = [[0] * len(_BINS) for _ in _BINS]
    for before, after, number in queries.points:
        counts[_bin_of(before)][_bin_of(after)] += number
    rows = tuple(
        (Cell(name, key=float(i)), *(count_cell(number) for number in row))
        for i, (name, row) in enumerate(zip(_BINS, counts, strict=True))
    )
    return Table(
        "Queries by what they had before",
        f"Number of queries by {report.primary} of {BASELINE} (rows) and of {queries.candidate} "
        "(columns)",
        (Cell(BASELINE), *(Cell(name) for name in _BINS)),
        rows,
        name="queries-before",
        folded=True,
    )


def _extremes(
    title: str,
    name: str,
    caption: str,
    chosen: Sequence[QueryDifference],
    candidate: str,
    several: bool,
) -> Table:
    texts = any(one.text for one in chosen)
    head = [
        "query",
        *(["collection"] if several else []),
        *(["text"] if texts else []),
        *(BASELINE, candidate, "difference"),
    ]
    rows = tuple(
        (
            Cell(one.query),
            *([Cell(one.collection)] if several else []),
            *([Cell(one.text or MISSING)] if texts else []),
            mean_cell(one.baseline),
            mean_cell(one.value),
            mean_cell(one.difference, "+.3f"),
        )
        for one in chosen
    )
    return Table(
        title,
        caption,
        tuple(Cell(text) for text in head),
        rows,
        name=name,
    )


def mass(scores: Scores, part: str) -> tuple[int, ...]:
    """The counts of one kind of documents, by bin."""
    return {"positives": scores.positives, "hardest": scores.hardest, "others": scores.others}[part]


def quantile(edges: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which a share of the counts lies, linear inside a bin; None without any."""
    wanted, below = share * sum(counts), 0
    for (low, high), number in zip(pairwise(edges), counts, strict=True):
        if number and below + number >= wanted:
            return low + (high - low) * max(0.0, wanted - below) / number
        below += number
    return None


def score_table(report: Report) -> Table | None:
    """Where the scores of relevant and other documents lie, before and after."""
    rows = []
    for part in reversed(SCORE_PARTS):
        for scores in report.scores:
            counts = mass(scores, part)
            values = (
                quantile(scores.edges, counts, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)
            )
            rows.append(
                (
                    Cell(_WORDS[part]),
                    Cell(scores.candidate),
                    count_cell(sum(counts)),
                    *(mean_cell(value) for value in values),
                )
            )
    if not rows:
        return None
    head = ("documents", "candidate", "number", "5 %", "25 %", "median", "75 %", "95 %")
    return Table(
        "Scores before and after",
        "Cosines of test queries and documents: the values below which a share of them lies. "
        "Hardest negative: the best-scored document of a query that is not relevant",
        tuple(Cell(text) for text in head),
        tuple(rows),
        name="scores",
        folded=True,
    )
