"""Retrieval measures with the numbers of trec_eval, for all queries at once.

In: a ranking as a (queries, depth) matrix of document rows, and judgements (``Qrels``).
Out: per measure one float64 value per query. Nothing here sorts by score: the order of the
ranking, ties included, is settled by who made it (``rank.search``, ``evaluate.trec``).

The names are those of ir_measures: nDCG, R, RR, AP, P, Success, as in ``nDCG@10``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.errors import InputError
from era_cache.types import FloatArray, IntArray, Qrels

__all__ = ["Measure", "Ranking", "evaluate", "mean", "parse_measure", "relevance_of"]

_NAMES = ("nDCG", "R", "RR", "AP", "P", "Success")
_NEED_CUTOFF = frozenset({"R", "P", "Success"})
_ALIASES = {name.lower(): name for name in _NAMES} | {"recall": "R", "mrr": "RR", "map": "AP"}


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


class _Gains(NamedTuple):
    """Positive results as a list: whose they are, at which rank (from 0), worth what.

    ``ordinals`` counts the positive results of the same query at better ranks. The list is in
    order of query, then rank. A ranking has few of them, so that each measure costs little.
    """

    query_rows: IntArray
    ranks: IntArray
    ordinals: IntArray
    gains: NDArray[np.float64]


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
    known = _ALIASES.get(name.lower())
    if known is None:
        names = ", ".join(n + "@k" if n in _NEED_CUTOFF else n for n in _NAMES)
        raise InputError(
            f"Measure {text!r} is unknown. Known are {names} (also Recall, MRR, MAP); "
            "@k may follow each of them."
        )
    if not at:
        if known in _NEED_CUTOFF:
            raise InputError(f"Measure {text!r} needs a cutoff; write for example {known}@10.")
        return Measure(known, None)
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", cutoff):
        raise InputError(
            f"Measure {text!r} has the cutoff {cutoff!r}; a whole number of at least 1 and at "
            f"most 9 digits is expected, as in {known}@10."
        )
    return Measure(known, int(cutoff))


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
    grades: IntArray = np.zeros(ranking_doc_rows.shape, dtype=np.int64)
    if not len(qrels.query_rows) or not grades.size:
        return grades
    # Most ranked documents are judged for no query at all, or for few: a look into a small
    # table spares them the binary search, which is what takes the time.
    judged = np.zeros(n_docs + 1, dtype=np.bool_)  # the last entry answers for padding, row -1
    judged[qrels.doc_rows] = True
    cells = np.flatnonzero(judged[ranking_doc_rows])
    wanted = cells // grades.shape[1] * n_docs + ranking_doc_rows.ravel()[cells]
    keys = qrels.query_rows * n_docs + qrels.doc_rows
    order = np.argsort(keys)
    keys = keys[order]
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hit = keys[found] == wanted
    grades.ravel()[cells[hit]] = qrels.relevance[order[found[hit]]]
    return grades


def evaluate(
    doc_rows: IntArray, qrels: Qrels, measures: Sequence[Measure], n_docs: int
) -> dict[Measure, NDArray[np.float64]]:
    """Compute measures for each query, with the definitions of trec_eval 9.

    A document is relevant from grade 1 on. nDCG takes the grade itself as gain (not
    2**grade - 1) and log2(rank + 1) as discount; its ideal ranks all positive judgements of the
    query, up to the cutoff. AP divides by the number of all relevant documents, P by the cutoff,
    also where fewer results exist. RR looks at the first relevant document, Success is 1.0 if
    there is any up to the cutoff.

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
    for measure in measures:
        _check_measure(measure)
    grades = relevance_of(doc_rows, qrels, n_docs)
    cells = np.flatnonzero(grades > 0)
    query_rows, ranks = np.divmod(cells, max(1, grades.shape[1]))
    gains = grades.ravel()[cells].astype(np.float64)
    found = _Gains(query_rows, ranks, _positions(query_rows), gains)
    ideal = _ideal(qrels)
    return {measure: _values(measure, found, ideal, len(doc_rows)) for measure in measures}


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
    if measure.name not in _NAMES:
        raise ValueError(f"Measure {measure} is unknown; use parse_measure.")
    if measure.cutoff is None and measure.name in _NEED_CUTOFF:
        raise ValueError(f"Measure {measure} needs a cutoff.")
    if measure.cutoff is not None and measure.cutoff < 1:
        raise ValueError(f"Measure {measure} needs a cutoff of at least 1.")


def _positions(groups: IntArray) -> IntArray:
    """Number the members of each run of equal values: [4, 4, 7] gives [0, 1, 0]."""
    starts = np.searchsorted(groups, groups, side="left")
    return np.arange(len(groups), dtype=np.int64) - starts


def _ideal(qrels: Qrels) -> _Gains:
    """Rank all positive judgements of each query by falling grade."""
    positive = np.flatnonzero(qrels.relevance > 0)
    order = positive[np.lexsort((-qrels.relevance[positive], qrels.query_rows[positive]))]
    query_rows = qrels.query_rows[order]
    ranks = _positions(query_rows)
    return _Gains(query_rows, ranks, ranks, qrels.relevance[order].astype(np.float64))


def _values(measure: Measure, found: _Gains, ideal: _Gains, n_queries: int) -> NDArray[np.float64]:
    """Compute one measure for all queries, (q,) float64."""
    found_here = _cut(found, measure.cutoff)
    n_relevant = np.bincount(ideal.query_rows, minlength=n_queries)

    def total(list_of: _Gains, weights: FloatArray | None = None) -> NDArray[np.float64]:
        sums = np.bincount(list_of.query_rows, weights=weights, minlength=n_queries)
        return sums.astype(np.float64)

    match measure.name:
        case "nDCG":
            best = _cut(ideal, measure.cutoff)
            return _ratio(
                total(found_here, found_here.gains / np.log2(found_here.ranks + 2.0)),
                total(best, best.gains / np.log2(best.ranks + 2.0)),
            )
        case "AP":
            precisions = (found_here.ordinals + 1.0) / (found_here.ranks + 1.0)
            return _ratio(total(found_here, precisions), n_relevant)
        case "RR":
            is_first = found_here.ordinals == 0
            return total(found_here, is_first / (found_here.ranks + 1.0))
        case "R":
            return _ratio(total(found_here), n_relevant)
        case "P":
            return total(found_here) / float(measure.cutoff or 1)
        case _:
            return np.minimum(total(found_here), 1.0)


def _cut(gains: _Gains, cutoff: int | None) -> _Gains:
    """Keep what stands at the first ``cutoff`` ranks."""
    if cutoff is None:
        return gains
    keep = gains.ranks < cutoff
    query_rows, ranks, ordinals, values = gains
    return _Gains(query_rows[keep], ranks[keep], ordinals[keep], values[keep])


def _ratio(part: FloatArray, whole: FloatArray | IntArray) -> NDArray[np.float64]:
    """Divide, with 0 / 0 = 0: a query without positive judgements."""
    result = np.zeros(len(part), dtype=np.float64)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
