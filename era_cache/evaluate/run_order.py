"""The order that trec_eval gives the results of a run.

In: results in any order. Out: a ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from era_cache.errors import InputError
from era_cache.rank.measures import Ranking
from era_cache.rank.ties import tie_order
from era_cache.types import IntArray

__all__ = ["rank_results"]

_LARGEST_TABLE = 1 << 27
"""Cells of a ranking: 1.5 GiB."""


def rank_results(
    path: Path,
    query_rows: IntArray,
    doc_rows: IntArray,
    scores: NDArray[np.float32],
    doc_ids: Sequence[str],
    n_queries: int,
) -> Ranking:
    """Order the results of a run as trec_eval does: falling score, then falling document id.

    Args:
        path: What to call the run in an error.
        query_rows: (n,) int64 from 0 to n_queries - 1, in any order.
        doc_rows: (n,) int64 rows of ``doc_ids``, each at most once for a query.
        scores: (n,) finite float32.
        doc_ids: Distinct ids by document row.
        n_queries: Rows of the ranking.

    Raises:
        InputError: One query has so many results that the padded table would not fit into memory.
    """
    counts = np.bincount(query_rows, minlength=n_queries)
    depth = int(counts.max(initial=0))
    if depth * n_queries > _LARGEST_TABLE:
        raise InputError(
            f"{path}: {depth:,} results of one query, which makes a table of "
            f"{depth * n_queries:,} cells for {n_queries:,} queries; at most {_LARGEST_TABLE:,} "
            "are supported. Cut the run, at 1,000 results of each query for example."
        )
    order = _order(query_rows, doc_rows, scores, doc_ids)
    query_rows = query_rows[order]
    ranks = np.arange(len(order), dtype=np.int64) - (np.cumsum(counts) - counts)[query_rows]
    shape = (n_queries, depth)
    ranking = Ranking(np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, np.float32))
    ranking.doc_rows[query_rows, ranks] = doc_rows[order]
    ranking.scores[query_rows, ranks] = scores[order]
    return ranking


def _order(
    query_rows: IntArray, doc_rows: IntArray, scores: NDArray[np.float32], doc_ids: Sequence[str]
) -> IntArray:
    """Places of the results by query, falling score and falling id, (n,) int64."""
    order: IntArray = np.arange(len(scores), dtype=np.int64)
    steps = np.diff(query_rows)
    if not np.all((steps > 0) | ((steps == 0) & (scores[1:] <= scores[:-1]))):
        order = np.lexsort((-scores, query_rows))
    in_order, same_query = scores[order], np.diff(query_rows[order]) == 0
    ties = same_query & (in_order[1:] == in_order[:-1])
    if not ties.any():
        return order
    # Ids are compared where scores tie, which in most runs is seldom.
    tied = np.flatnonzero(np.append(ties, False) | np.append(False, ties))
    group = np.cumsum(np.append(True, ~ties))[tied]
    used, place = np.unique(doc_rows[order[tied]], return_inverse=True)
    by_id = tie_order([doc_ids[row] for row in used.tolist()])[place]
    order[tied] = order[tied][np.lexsort((by_id, group))]
    return order
