"""Read the dict of an evaluation, once: checked, and its texts cleaned.

In: the dict that an evaluation stores as JSON (format "era-evaluation", version 2); everything in
it is untrusted. Out: a ``Report``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeVar

from era_cache.errors import FormatError
from era_cache.report.cells import clean, printable
from era_cache.report.records import (
    Candidate,
    CollectionFacts,
    CurvePoint,
    Estimate,
    Gain,
    Gains,
    GroupMeans,
    Matrix,
    Pairs,
    QueryDifference,
    QueryValues,
    Report,
    Scores,
    SplitFacts,
    Stored,
)

__all__ = ["percent_text", "read_report"]

FORMAT, VERSION = "era-evaluation", 2
_MOST_POINTS = 2000
_DEEPEST = 4

T = TypeVar("T")


def percent_text(share: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:g} %"


def read_report(record: Mapping[str, Any]) -> Report:
    """Read and clean the dict of an evaluation.

    Raises:
        FormatError: it is not one, or is damaged.
    """
    found = (record.get("format"), record.get("version")) if isinstance(record, Mapping) else None
    if found != (FORMAT, VERSION):
        raise FormatError(
            f"Evaluation record: expected format {FORMAT!r}, version {VERSION}, but found "
            f"{clean(found)[:80]}. Give a JSON file written by era-eval, or update era-cache if "
            "the file is newer."
        )
    try:
        report = _read_fields(record)
        _check(report)
    except KeyError as error:
        problem = f"the field {clean(error)[:80]} is missing"
    except RecursionError:
        problem = "values are nested too deep"
    except (AttributeError, TypeError, ValueError) as error:
        problem = clean(error)[:300]
    else:
        return report
    raise FormatError(f"Evaluation record is damaged: {problem}. Write it again with era-eval.")


def _read_fields(record: Mapping[str, Any]) -> Report:
    measures = tuple(clean(measure) for measure in record["measures"])
    candidates = tuple(_read_candidate(entry, measures) for entry in record["candidates"])
    curve = (
        CurvePoint(_number(p["labels"]), _count(p["train"]), _read_estimates(p["candidates"]))
        for p in _list(record, "curve")
    )
    return Report(
        title=clean(record["title"]),
        protocol=clean(record["protocol"]),
        primary=clean(record["primary"]),
        measures=measures,
        chosen=clean(record["chosen"]),
        choice_reason=clean(record.get("choice_reason") or ""),
        collections=tuple(_read_collection(entry) for entry in record["collections"]),
        split=_read_split(record["split"]),
        encoders=_pairs(record["encoders"].items()),
        candidates=candidates,
        curve=tuple(sorted(curve, key=lambda point: point.labels)),
        gains=_optional(record, "gains", _read_gains),
        by_collection=tuple(_read_means(e, "collection") for e in _list(record, "by_collection")),
        by_domain=tuple(_read_means(e, "domain") for e in _list(record, "by_domain")),
        matrix=_optional(record, "matrix", _read_matrix),
        queries=_optional(record, "queries", _read_queries),
        scores=tuple(_read_scores(entry) for entry in _list(record, "scores")),
        int8={
            clean(name): {clean(measure): _read_stored(e) for measure, e in entries.items()}
            for name, entries in (record.get("int8") or {}).items()
        },
        costs=_pairs((e["what"], e["value"]) for e in _list(record, "costs")),
        inputs=_pairs((e["what"], e["value"]) for e in _list(record, "inputs")),
        configuration=_pairs(_flat("", record.get("configuration") or {})),
        # Line breaks and runs of spaces mean something in a command, so they stay.
        commands=tuple(
            "\n".join(printable(line) for line in str(command).splitlines())
            for command in _list(record, "commands")
        ),
        notes=tuple(clean(note) for note in _list(record, "notes")),
        environment=_pairs((record.get("environment") or {}).items()),
    )


def _check(report: Report) -> None:
    names = report.names
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"two candidates are called {repeated[0]!r}")
    if report.chosen not in names:
        raise ValueError(f"the chosen {report.chosen!r} is not one of the candidates")
    if report.primary not in report.measures:
        raise ValueError(f"the primary measure {report.primary!r} is not among the measures")
    if not report.collections:
        raise ValueError("no collection was measured")


def _number(value: object) -> float:
    # The bound also refuses NaN, infinities and whole numbers too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ValueError(f"{clean(value)[:40]!r} is not a finite number")
    return float(value)


def _count(value: object) -> int:
    number = _number(value)
    if number < 0 or number != int(number):
        raise ValueError(f"{clean(value)[:40]!r} is not a count")
    return int(number)


def _maybe(value: object) -> float | None:
    return None if value is None else _number(value)


def _optional(record: Mapping[str, Any], key: str, read: Callable[[Any], T]) -> T | None:
    return None if record.get(key) is None else read(record[key])


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if value is not None and not isinstance(value, list | tuple):
        raise TypeError(f"the field {key!r} is not a list")
    return list(value or ())


def _pairs(items: Iterable[tuple[object, object]]) -> Pairs:
    return tuple((clean(name), clean(value)) for name, value in items)


def _flat(start: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Options with dotted names; what is nested deeper than makes sense stays JSON."""
    if isinstance(value, dict) and (value or not depth) and depth < _DEEPEST:
        for name, inner in value.items():
            yield from _flat(f"{start}.{name}" if start else str(name), inner, depth + 1)
    else:
        yield start, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_estimate(entry: Mapping[str, Any]) -> Estimate:
    mean, low, high = (_number(entry[key]) for key in ("mean", "low", "high"))
    return Estimate(mean, low, high, *(_maybe(entry.get(key)) for key in Estimate._fields[3:]))


def _read_estimates(entries: Mapping[str, Any]) -> dict[str, Estimate]:
    return {clean(name): _read_estimate(entry) for name, entry in entries.items()}


def _read_candidate(entry: Mapping[str, Any], measures: Iterable[str]) -> Candidate:
    estimates = _read_estimates(entry["measures"])
    return Candidate(
        clean(entry["name"]),
        clean(entry["kind"]),
        _maybe(entry.get("validation")),
        {measure: estimates[measure] for measure in measures},
    )


def _read_collection(entry: Mapping[str, Any]) -> CollectionFacts:
    name, version, domain = (clean(entry[key] or "") for key in ("name", "version", "domain"))
    documents, queries, test = (_count(entry[key]) for key in ("documents", "queries", "test"))
    return CollectionFacts(name, version, domain, documents, queries, test)


def _read_split(entry: Mapping[str, Any]) -> SplitFacts:
    return SplitFacts(
        clean(entry["rule"]),
        tuple(_count(seed) for seed in entry["seeds"]),
        _number(entry["labels"]),
        *(_count(entry[key]) for key in ("train", "validation", "test")),
    )


def _read_gains(entry: Mapping[str, Any]) -> Gains:
    def read(row: Mapping[str, Any]) -> Gain:
        numbers = (_number(row[key]) for key in ("baseline", "mean", "difference"))
        others = (_maybe(row.get(key)) for key in Gain._fields[6:])
        texts = clean(row["collection"]), clean(row["domain"] or "")
        return Gain(*texts, _count(row["queries"]), *numbers, *others)

    return Gains(clean(entry["candidate"]), tuple(read(row) for row in _list(entry, "rows")))


def _read_means(entry: Mapping[str, Any], key: str) -> GroupMeans:
    return GroupMeans(
        clean(entry[key]),
        clean(entry.get("domain") or ""),
        None if entry.get("collections") is None else _count(entry["collections"]),
        _count(entry["queries"]),
        {clean(name): _maybe(value) for name, value in entry["candidates"].items()},
    )


def _read_matrix(entry: Mapping[str, Any]) -> Matrix:
    rows, columns = (tuple(clean(name) for name in entry[key]) for key in ("rows", "columns"))
    values = tuple(tuple(_maybe(value) for value in row) for row in entry["values"])
    baseline = tuple(_maybe(value) for value in entry["baseline"])
    if len(values) != len(rows) or {len(row) for row in (*values, baseline)} != {len(columns)}:
        raise ValueError("the matrix has other rows or columns than it names")
    return Matrix(clean(entry["candidate"]), rows, columns, values, baseline)


def _read_queries(entry: Mapping[str, Any]) -> QueryValues:
    def read(query: Mapping[str, Any]) -> QueryDifference:
        before, after, change = (_number(query[k]) for k in ("baseline", "value", "difference"))
        collection, name = clean(query["collection"]), clean(query["query"])
        text = clean(query.get("text") or "")
        return QueryDifference(collection, name, text, before, after, change)

    points = _list(entry, "points")
    if len(points) > _MOST_POINTS:
        raise ValueError(f"{len(points)} points of queries; at most {_MOST_POINTS} can be drawn")
    better, equal, worse = (_count(entry[key]) for key in ("better", "equal", "worse"))
    return QueryValues(
        clean(entry["candidate"]),
        better,
        equal,
        worse,
        tuple((_number(x), _number(y), _count(number)) for x, y, number in points),
        wins=tuple(read(query) for query in _list(entry, "wins")),
        losses=tuple(read(query) for query in _list(entry, "losses")),
    )


def _read_scores(entry: Mapping[str, Any]) -> Scores:
    edges = tuple(_number(edge) for edge in entry["edges"])
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError("the edges of the scores do not increase")
    counts = [tuple(_count(n) for n in entry[k]) for k in ("positives", "hardest", "others")]
    if any(len(part) != len(edges) - 1 for part in counts):
        raise ValueError("the counts of the scores do not fit their edges")
    return Scores(clean(entry["candidate"]), edges, *counts)


def _read_stored(entry: Mapping[str, Any]) -> Stored:
    return Stored(_number(entry["mean"]), *(_maybe(entry.get(k)) for k in Stored._fields[1:]))
