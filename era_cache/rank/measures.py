"""Retrieval measures with the numbers of trec_eval, for all queries at once.

In: a ranking as a (queries, depth) matrix of document rows, and judgements (``Qrels``).
Out: per measure one float64 value per query. Nothing here sorts by score: the order of the
ranking, ties included, is settled by who made it (``rank.search``, ``evaluate.trec``).

What each measure is stands in ``definitions``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.errors import InputError
from era_cache.rank.definitions import MEASURES, Gains, Judged
from era_cache.types import FloatArray, IntArray, Qrels

__all__ = [
    "Measure",
    "Ranking",
    "evaluate",
    "evaluate_each",
    "mean",
    "parse_measure",
    "relevance_of",
]


class Measure(NamedTuple):
    """A measure and how deep it looks; None is the whole ranking. Prints as ``nDCG@10``."""

    name: str
    cutoff: int | None = None

    def __str__(self) -> str:
        """Return the text that ``parse_measure`` reads back."""
        return self.name if self.cutoff is None else f"{self.name}@{self.cutoff}"


class Ranking(NamedTuple):
    """The best documents of each query, best first.

    ``doc_rows`` (q, k) int64 holds row numbers of documents, ``scores`` (q, k) float32 their
    scores. A query with fewer than k results ends in padding: row -1, score minus infinity.
    """

    doc_rows: IntArray
    scores: NDArray[np.float32]


def parse_measure(text: str) -> Measure:
    """Read a measure such as ``nDCG@10``, ``Recall@100`` or ``mrr``.

    Args:
        text: A name in any case, with ``@`` and a cutoff where the measure needs one. Recall,
            MRR and MAP are other names for R, RR and AP.

    Returns:
        The measure under its usual name.

    Raises:
        InputError: The name is unknown, or the cutoff is missing or not a whole number >= 1.
    """
    name, at, cutoff = text.strip().partition("@")
    spelled = {alias: n for n, d in MEASURES.items() for alias in (n.lower(), *d.aliases)}
    known = spelled.get(name.lower())
    if known is None:
        names = ", ".join(n + "@k" if d.needs_cutoff else n for n, d in MEASURES.items())
        raise InputError(
            f"Measure {text!r} is unknown. Known are {names} (also Recall, MRR, MAP); "
            "@k may follow each of them."
        )
    if not at:
        if MEASURES[known].needs_cutoff:
            raise InputError(f"Measure {text!r} needs a cutoff; write for example {known}@10.")
        return Measure(known, None)
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", cutoff):
        raise InputError(
            f"Measure {text!r} has the cutoff {cutoff!r}; a whole number of at least 1 and at "
            f"most 9 digits is expected, as in {known}@10."
        )
    return Measure(known, int(cutoff))


_TABLE = 1 << 26
"""Pairs of query and document whose grades are laid out as a table, at most."""


class _Grades:
    """Looks grades of ranked documents up; what depends on the judgements alone is made once.

    Args:
        qrels: the judgements.
        n_docs: size of the collection.
        n_queries: of a ranking.
        n_looked: documents of all rankings.
    """

    def __init__(self, qrels: Qrels, n_docs: int, n_queries: int, n_looked: int) -> None:
        self._qrels, self._n_docs = qrels, n_docs
        self._table = None
        if 0 < n_queries * n_docs <= min(n_looked, _TABLE):
            # The last column answers for padding, row -1.
            self._table = np.zeros((n_queries, n_docs + 1), dtype=np.int32)
            self._table[qrels.query_rows, qrels.doc_rows] = np.arange(1, len(qrels.doc_rows) + 1)
            return
        # Most ranked documents are judged for no query at all, or for few: a look into a small
        # table spares them the binary search, which is what takes the time.
        self._judged = np.zeros(n_docs + 1, dtype=np.bool_)  # the last answers for padding, row -1
        self._judged[qrels.doc_rows] = True
        keys = qrels.query_rows * n_docs + qrels.doc_rows
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def of(self, doc_rows: IntArray) -> IntArray:
        """Grades (q, k) of a ranking, 0 where a document is unjudged or padding."""
        grades: IntArray = np.zeros(doc_rows.shape, dtype=np.int64)
        if self._table is not None:
            places = np.take_along_axis(self._table, doc_rows, axis=1)
            cells = np.flatnonzero(places)
            grades.ravel()[cells] = self._qrels.relevance[places.ravel()[cells] - 1]
            return grades
        if not len(self._keys) or not grades.size:
            return grades
        cells = np.flatnonzero(self._judged[doc_rows])
        wanted = cells // grades.shape[1] * self._n_docs + doc_rows.ravel()[cells]
        found = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        hit = self._keys[found] == wanted
        grades.ravel()[cells[hit]] = self._qrels.relevance[self._order[found[hit]]]
        return grades


def relevance_of(ranking_doc_rows: IntArray, qrels: Qrels, n_docs: int) -> IntArray:
    """Look up the grade of every ranked document.

    Args:
        ranking_doc_rows: (q, k) int64 document rows, -1 for padding.
        qrels: Judgements of queries 0..q-1 on documents 0..n_docs-1, each pair at most once
            (the caller's promise: of two judgements of a pair, any one is taken).
        n_docs: Size of the collection.

    Returns:
        (q, k) int64 grades; 0 where a document is unjudged or padding.

    Raises:
        ValueError: The ranking is not a matrix, or a row number is out of range.
    """
    _check_rows(ranking_doc_rows, qrels, n_docs)
    return _Grades(qrels, n_docs, *_sizes([ranking_doc_rows])).of(ranking_doc_rows)


def evaluate(
    doc_rows: IntArray, qrels: Qrels, measures: Sequence[Measure], n_docs: int
) -> dict[Measure, NDArray[np.float64]]:
    """Compute measures for each query, as ``definitions`` says.

    A document is relevant from grade 1 on. The ideal ranks all positive judgements of the query.

    A query without a positive judgement gets 0.0 from every measure: whether it takes part in
    a mean is for the caller to decide.

    Args:
        doc_rows: (q, k) int64 document rows, best first, -1 for padding; no document twice for
            the same query (the caller's promise).
        qrels: Judgements of queries 0..q-1 on documents 0..n_docs-1, each pair at most once
            (the caller's promise).
        measures: What to compute.
        n_docs: Size of the collection.

    Returns:
        For each measure (q,) float64 values between 0 and 1.

    Raises:
        ValueError: The ranking is not a matrix, a row number is out of range, or a measure was
            not made as ``parse_measure`` makes it.
    """
    (found,) = evaluate_each([doc_rows], qrels, measures, n_docs)
    return found


def evaluate_each(
    rankings: Sequence[IntArray], qrels: Qrels, measures: Sequence[Measure], n_docs: int
) -> list[dict[Measure, NDArray[np.float64]]]:
    """Compute measures of several rankings of the same queries, each as ``evaluate`` does."""
    for measure in measures:
        _check_measure(measure)
    for doc_rows in rankings:
        _check_rows(doc_rows, qrels, n_docs)
    looked_up, ideal = _Grades(qrels, n_docs, *_sizes(rankings)), _ideal(qrels)
    found = []
    for doc_rows in rankings:
        grades = looked_up.of(doc_rows)
        cells = np.flatnonzero(grades > 0)
        query_rows, ranks = np.divmod(cells, max(1, grades.shape[1]))
        gains = Gains(
            query_rows, ranks, _positions(query_rows), grades.ravel()[cells].astype(np.float64)
        )
        judged = Judged(gains, ideal, len(doc_rows))
        found.append({one: MEASURES[one.name].compute(judged, one.cutoff) for one in measures})
    return found


def _sizes(rankings: Sequence[IntArray]) -> tuple[int, int]:
    """Queries of the longest ranking, and documents of all."""
    return max((len(one) for one in rankings), default=0), sum(one.size for one in rankings)


def mean(values: FloatArray) -> float:
    """Average per-query values.

    Args:
        values: (q,) float.

    Raises:
        ValueError: There is no value.
    """
    if not len(values):
        raise ValueError("The mean of no values is undefined; at least one query is needed.")
    return float(np.mean(values, dtype=np.float64))


def _check_rows(doc_rows: IntArray, qrels: Qrels, n_docs: int) -> None:
    """Refuse row numbers that would silently mean another query's document."""
    if doc_rows.ndim != 2:
        raise ValueError(f"The ranking must have the shape (q, k), not {doc_rows.shape}.")
    for what, rows, low, end in (
        ("document row of the ranking", doc_rows.ravel(), -1, n_docs),
        ("document row of the qrels", qrels.doc_rows, 0, n_docs),
        ("query row of the qrels", qrels.query_rows, 0, len(doc_rows)),
    ):
        if rows.size and (rows.min() < low or rows.max() >= end):
            raise ValueError(
                f"A {what} is out of range: {rows.min()}..{rows.max()} were found, "
                f"{low}..{end - 1} are allowed."
            )


def _check_measure(measure: Measure) -> None:
    if measure.name not in MEASURES:
        raise ValueError(f"Measure {measure} is unknown; use parse_measure.")
    if measure.cutoff is None and MEASURES[measure.name].needs_cutoff:
        raise ValueError(f"Measure {measure} needs a cutoff.")
    if measure.cutoff is not None and measure.cutoff < 1:
        raise ValueError(f"Measure {measure} needs a cutoff of at least 1.")


def _positions(groups: IntArray) -> IntArray:
    """Number the members of each run of equal values: [4, 4, 7] gives [0, 1, 0]."""
    starts = np.searchsorted(groups, groups, side="left")
    return np.arange(len(groups), dtype=np.int64) - starts


def _ideal(qrels: Qrels) -> Gains:
    """Rank all positive judgements of each query by falling grade."""
    positive = np.flatnonzero(qrels.relevance > 0)
    order = positive[np.lexsort((-qrels.relevance[positive], qrels.query_rows[positive]))]
    query_rows = qrels.query_rows[order]
    ranks = _positions(query_rows)
    return Gains(query_rows, ranks, ranks, qrels.relevance[order].astype(np.float64))
