"""Every number of a report as one long CSV table, for notebooks and spreadsheets.

In: a ``Report``. Out: a string.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from msgspec import UNSET
from msgspec.structs import asdict

from era_cache.disk.shown import as_percent, csv_text
from era_cache.report.query_tables import SCORE_PARTS, mass
from era_cache.report.records import CEILING, Estimate, Report, cleaned

__all__ = ["CSV_COLUMNS", "render_csv"]

CSV_COLUMNS = (
    *(
        "section",
        "collection",
        "domain",
        "trained_on",
        "labels_percent",
        "train",
        "candidate",
        "chosen",
    ),
    *("measure", "item", "count", "mean", "low", "high", "sd", "baseline", "difference"),
    *("difference_low", "difference_high", "p", "p_holm", "effect", "detectable", "value"),
)

_Row = dict[str, Any]


def render_csv(report: Report) -> str:
    """Render every number as CSV: one long table, one line for each value.

    ``section`` says what a line is about: candidates, held-out, curve, gains, collections, domains,
    matrix, queries, query-values, wins, losses, scores, int8, or a pair of words (costs, inputs,
    configuration, environment; ``item`` and ``value``). ``count`` is the number of queries (of
    documents in scores, whose ``low`` and ``high`` bound the bin). Numbers have full precision; an
    empty field is a missing value.

    Args:
        report: what an analysis found.

    Returns:
        CSV with a head line, and lines that end in a line feed.

    Raises:
        FormatError: its texts or numbers are damaged.
    """
    report = cleaned(report)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in _rows(report):
        if row.get("candidate") == report.chosen:
            row["chosen"] = "yes"
        writer.writerow({key: csv_text(v) if isinstance(v, str) else v for key, v in row.items()})
    return stream.getvalue()


def _rows(report: Report) -> Iterator[_Row]:
    yield from _candidate_rows(report)
    yield from _collection_rows(report)
    yield from _matrix_rows(report)
    yield from _query_rows(report)
    yield from _score_rows(report)
    for name, measures in (report.int8 or {}).items():
        for measure, stored in measures.items():
            yield {"section": "int8", "candidate": name, "measure": measure, **asdict(stored)}
    for section in ("costs", "inputs", "configuration", "environment"):
        for item, value in report.facts[section]:
            yield {"section": section, "item": item, "value": value}


def _numbers(estimate: Estimate) -> _Row:
    return {key: None if value is UNSET else value for key, value in asdict(estimate).items()}


def _candidate_rows(report: Report) -> Iterator[_Row]:
    labels = as_percent(report.split.labels)
    for candidate in report.candidates:
        start = {"candidate": candidate.name, "labels_percent": labels, "value": candidate.kind}
        for measure, estimate in candidate.measures.items():
            yield {"section": "candidates", "measure": measure, **start, **_numbers(estimate)}
        if candidate.validation is not None:
            yield {
                "section": "held-out",
                "measure": report.primary,
                "candidate": candidate.name,
                "labels_percent": labels,
                "mean": candidate.validation,
            }
    for point in report.curve:
        for name, estimate in point.candidates.items():
            yield {
                "section": "curve",
                "labels_percent": as_percent(point.labels),
                "train": point.train,
                "candidate": name,
                "measure": report.primary,
                **_numbers(estimate),
            }


def _collection_rows(report: Report) -> Iterator[_Row]:
    for gain in report.gains.rows:
        row = asdict(gain)
        large = row.pop("large")
        row["count"] = row.pop("queries")
        row |= {"difference_low": row.pop("low"), "difference_high": row.pop("high")}
        start = {"section": "gains", "measure": report.primary}
        yield {**start, "candidate": report.gains.candidate, **row}
        if large is not None:
            place = {key: row[key] for key in ("collection", "domain", "count")}
            yield {**start, "candidate": CEILING, **place, "mean": large}
    for section, groups in (("collections", report.by_collection), ("domains", report.by_domain)):
        for group in groups:
            for name, mean in group.candidates.items():
                yield {
                    "section": section,
                    "collection": getattr(group, "collection", ""),
                    "domain": group.domain,
                    "candidate": name,
                    "measure": report.primary,
                    "count": group.queries,
                    "mean": mean,
                }


def _matrix_rows(report: Report) -> Iterator[_Row]:
    matrix = report.matrix
    if matrix is None:
        return
    for trained, values in zip(matrix.rows, matrix.values, strict=True):
        for domain, mean, base in zip(matrix.columns, values, matrix.baseline, strict=True):
            yield {
                "section": "matrix",
                "trained_on": trained,
                "domain": domain,
                "candidate": matrix.candidate,
                "measure": report.primary,
                "mean": mean,
                "baseline": base,
                "difference": None if mean is None or base is None else mean - base,
            }


def _query_rows(report: Report) -> Iterator[_Row]:
    queries = report.queries
    start = {"candidate": queries.candidate, "measure": report.primary}
    for item in ("better", "equal", "worse"):
        yield {"section": "queries", **start, "item": item, "count": getattr(queries, item)}
    for before, after, number in queries.points:
        change = {"baseline": before, "mean": after, "difference": after - before}
        yield {"section": "query-values", **start, "count": number, **change}
    for section, chosen in (("wins", queries.wins), ("losses", queries.losses)):
        for one in chosen:
            yield {
                "section": section,
                **start,
                "collection": one.collection,
                "item": one.query,
                "value": one.text,
                "baseline": one.baseline,
                "mean": one.value,
                "difference": one.difference,
            }


def _score_rows(report: Report) -> Iterator[_Row]:
    for scores in report.scores:
        for part in SCORE_PARTS:
            for (low, high), number in zip(pairwise(scores.edges), mass(scores, part), strict=True):
                yield {
                    "section": "scores",
                    "candidate": scores.candidate,
                    "item": part,
                    "low": low,
                    "high": high,
                    "count": number,
                }
