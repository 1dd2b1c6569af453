"""Labels in the forms that people have them in, as judgements by row number.

In: dicts, lists or arrays of labels, with or without ids. Out: ``Qrels``; errors name the entry.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from era_cache.errors import FitError, InputError
from era_cache.types import IntArray, Qrels

__all__ = ["LabelsById", "judgements", "usable_queries"]

_MOST_GRADE = 1 << 31


class LabelsById(NamedTuple):
    """Labels of any form that name queries or documents by ids.

    ``query_ids`` are those of the query vectors' rows, ``doc_ids`` of the corpus vectors'; None
    where the labels have row numbers. In a dict, whatever names a query or document is then an id;
    elsewhere integers are row numbers.
    """

    labels: Any
    query_ids: Sequence[Hashable] | None = None
    doc_ids: Sequence[Hashable] | None = None


class _Side(NamedTuple):
    """What queries or documents are called: ids by row, or nothing but row numbers."""

    what: str
    argument: str
    size: int
    rows: Mapping[Hashable, int] | None

    @classmethod
    def of(cls, what: str, argument: str, size: int, ids: Iterable[Hashable] | None) -> _Side:
        if ids is None:
            return cls(what, argument, size, None)
        names = list(ids)
        rows = {name: row for row, name in enumerate(names)}
        if len(names) != size or len(rows) != size:
            raise InputError(
                f"{argument} has {len(names)} ids, {len(rows)} of them distinct, for {size} rows "
                "of vectors; each row needs an id of its own."
            )
        return cls(what, argument, size, rows)

    def row(self, value: Any, *, named: bool) -> int:
        """Row number of a query or document in the labels; -1 for an unknown id."""
        if self.rows is not None and (named or isinstance(value, str)):
            return self.rows.get(value, -1) if isinstance(value, Hashable) else -1
        if isinstance(value, str):
            raise InputError(
                f"qrels: {self.what} {value!r} is an id; pass LabelsById with {self.argument}."
            )
        row = _whole(value)
        if row is None:
            raise InputError(f"qrels: {self.what} {value!r} is no row number.")
        if not 0 <= row < self.size:
            raise InputError(
                f"qrels: {self.what} row {row} is out of range; rows are 0 to {self.size - 1}."
            )
        return row


def judgements(labels: Any, n_queries: int, n_docs: int) -> Qrels:
    """Labels of any form as columns, in order of query and document.

    Args:
        labels: in one of the forms that ``era_cache.api`` lists.
        n_queries: rows of query vectors.
        n_docs: rows of document vectors.

    Raises:
        InputError: they name what is not there, contradict each other, or have no positive.
    """
    given = labels if isinstance(labels, LabelsById) else LabelsById(labels)
    labels = given.labels
    sides = (
        _Side.of("query", "query_ids", n_queries, given.query_ids),
        _Side.of("document", "doc_ids", n_docs, given.doc_ids),
    )
    named = isinstance(labels, Mapping)
    grades: dict[tuple[int, int], int] = {}
    unknown: tuple[list[Any], list[Any]] = [], []
    entries = list(_judgements(labels, n_queries))
    for *pair, value in entries:
        query, doc = (side.row(v, named=named) for side, v in zip(sides, pair, strict=True))
        for row, name, missing in zip((query, doc), pair, unknown, strict=True):
            missing.extend([name] if row < 0 else [])
        grade = _whole(value)
        if grade is None or abs(grade) >= _MOST_GRADE:
            raise InputError(
                f"qrels: grade {value!r} of query {pair[0]!r} and document {pair[1]!r} is no whole "
                "number."
            )
        if grades.setdefault((query, doc), grade) != grade and min(query, doc) >= 0:
            raise InputError(
                f"qrels: query {pair[0]!r} and document {pair[1]!r} are judged twice, as "
                f"{grades[query, doc]} and {grade}."
            )
    for side, missing in zip(sides, unknown, strict=True):
        if missing:
            others = f"{len(missing)} of {len(entries)} judgements name such ones"
            if len(missing) == len(entries):
                others = "nor is any other in the labels: they are of another collection"
            raise InputError(
                f"qrels: {side.what} {missing[0]!r} is not among {side.argument}; {others}."
            )
    if not any(grade >= 1 for grade in grades.values()):
        raise InputError("qrels: no judgement is positive (grade 1 or above).")
    rows = [(*pair, grade) for pair, grade in sorted(grades.items())]
    return Qrels(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


def _judgements(labels: Any, n_queries: int) -> Iterator[tuple[Any, Any, Any]]:
    """Query, document and grade of each label, as they were given."""
    if isinstance(labels, Mapping):
        for query, documents in labels.items():
            graded = isinstance(documents, Mapping)
            pairs = documents.items() if graded else ((doc, 1) for doc in _several(documents))
            yield from ((query, doc, grade) for doc, grade in pairs)
        return
    if isinstance(labels, Qrels):
        labels = list(zip(*(column.tolist() for column in labels), strict=True))
    elif hasattr(labels, "tolist"):  # numpy or torch
        matrix = labels.ndim == 2
        if matrix and len(labels) == n_queries and labels.shape[1] in (2, 3):
            _refuse_ambiguous(labels.shape)
        labels = [tuple(row) if matrix else row for row in labels.tolist()]
    if not isinstance(labels, list | tuple):
        raise InputError(
            f"qrels: {type(labels).__name__} is no form of labels; a dict, a list or an array is "
            "expected."
        )
    tuples = sum(isinstance(entry, tuple) for entry in labels)
    if tuples == len(labels):
        for entry in labels:
            if len(entry) not in (2, 3):
                raise InputError(
                    f"qrels: {entry!r} is no judgement; (query, document) or (query, document, "
                    "grade) is expected. Several documents of a query go in a list."
                )
            yield (*entry, 1) if len(entry) == 2 else entry
        return
    if tuples or len(labels) != n_queries:
        raise InputError(
            f"qrels: a list of {len(labels)} entries, {tuples} of them tuples, for {n_queries} "
            "queries. Judgements go in tuples; a list without tuples has an entry for each query."
        )
    for query, documents in enumerate(labels):
        yield from ((query, doc, 1) for doc in _several(documents))


def _refuse_ambiguous(shape: Sequence[int]) -> NoReturn:
    """An array with a row for each query could be judgements, or each query's documents."""
    one = "(query, document)" if shape[1] == 2 else "(query, document, grade)"
    raise InputError(
        f"qrels: an array of shape ({shape[0]}, {shape[1]}) for {shape[0]} queries could hold a "
        f"judgement {one} in each row, or each query's {shape[1]} relevant documents. Pass "
        "[tuple(row) for row in labels.tolist()] for judgements, labels.tolist() for documents."
    )


def _several(documents: Any) -> list[Any]:
    """The relevant documents of a query, given as one or as several."""
    if hasattr(documents, "tolist"):
        documents = documents.tolist()
    if isinstance(documents, list | tuple | set | frozenset | range):
        return list(documents)
    return [documents]


def _whole(value: Any) -> int | None:
    """A number without a fraction as an integer; None for anything else."""
    if isinstance(value, int | np.integer | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return None


def usable_queries(judged: Qrels, n_docs: int) -> IntArray:
    """Rows of the queries with a positive.

    Raises:
        FitError: for each of them every document is relevant.
    """
    rows, counts = np.unique(judged.query_rows[judged.relevance >= 1], return_counts=True)
    if bool((counts == n_docs).all()):
        raise FitError(
            f"Every document is relevant to each labelled query ({n_docs} documents); no ranking "
            "is better than another, so there is nothing to learn."
        )
    return rows
