"""Judging queries of a large corpus: each by documents of its own, instead of all of them.

In: a corpus, labelled queries, an approximate index. Out: documents that a query may have to rank,
and values of the primary measure among these. A search of all documents for every setting that is
tried would take most of the time of a fit.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.approximate import ApproximateIndex, scores_of
from era_cache.rank.measures import Measure, Ranking, evaluate
from era_cache.rank.search import best_packed_of
from era_cache.rank.ties import Ties, tie_tables, unpacked
from era_cache.types import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["JudgingPool", "best_of_own"]

_KEPT = 100
"""Documents that a look adds to a query's own."""
_NEAR, _REMEMBERED = 0.98, 8
"""A query this near to where one of so many last looks found it (cosine) is not looked at anew."""


class JudgingPool:
    """For each of n labelled queries the documents that it is judged by.

    These are its judged ones, and what was found for it wherever it was looked at: the best by a
    codes' index, which misses less than one in a hundred of the first ten.

    Args:
        data: the collection.
        queries: its labelled queries.
        seed: of the index.
    """

    def __init__(self, data: FitData, queries: QuerySet, seed: int) -> None:
        import torch

        self._data, self._queries = data, queries
        self._index = ApproximateIndex(data.corpus, "pq", seed=seed)
        counts = np.bincount(queries.qrels.query_rows, minlength=len(queries.ids))
        width = int(counts.max(initial=1))
        table = np.full((len(queries.ids), width), -1, dtype=np.int64)
        order = np.argsort(queries.qrels.query_rows, kind="stable")
        first = np.cumsum(counts) - counts
        rows = queries.qrels.query_rows[order]
        table[rows, np.arange(len(rows)) - first[rows]] = queries.qrels.doc_rows[order]
        # Each row rises, filled up by -1 in front.
        self._docs = torch.from_numpy(np.sort(table, axis=1)).to(data.corpus.device)
        self._ties = tie_tables(data.tie_ranks, len(data.corpus), data.corpus.device)
        self._looked: deque[torch.Tensor] = deque(maxlen=_REMEMBERED)

    def look(self, mapped: torch.Tensor, rows: IntArray) -> None:
        """Add what some queries find where they are.

        Args:
            mapped: (m, d) unit rows.
            rows: (m,) int64, which of the queries they are.
        """
        import torch

        at = torch.from_numpy(rows).to(self._docs.device)
        mapped, at = self._moved(mapped, at)
        if not len(at):
            return
        depth = min(_KEPT, len(self._data.corpus))
        found = torch.from_numpy(self._index.search(mapped, depth).doc_rows).to(self._docs.device)
        theirs = self._docs[at]  # rising
        place = torch.searchsorted(theirs, found).clamp_(max=theirs.shape[1] - 1)
        wide = torch.full((len(self._docs), depth), -1, device=self._docs.device)
        wide[at] = found.masked_fill_(theirs.gather(1, place) == found, -1)
        joined = torch.cat([self._docs, wide], dim=1).sort(dim=1).values
        most = int((joined >= 0).sum(dim=1).max())
        self._docs = joined[:, joined.shape[1] - most :].contiguous()

    def _moved(self, mapped: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of some queries that no recent look found near where they are; it is noted."""
        import torch

        apart = mapped.new_ones(len(at), dtype=torch.bool)
        for there in self._looked:
            apart &= (there[at] * mapped).sum(dim=1) < _NEAR
        mapped, at = mapped[apart], at[apart]
        if len(at):
            here = mapped.new_zeros(len(self._docs), mapped.shape[1])
            here[at] = mapped
            self._looked.append(here)
        return mapped, at

    def best(self, mapped: torch.Tensor, rows: IntArray, depth: int) -> Ranking:
        """The best of each query's own documents, as ``search.search`` gives them."""
        import torch

        at = torch.from_numpy(rows).to(mapped.device)
        docs = self._docs[at]
        scores = scores_of(mapped, self._data.corpus, docs)
        exclude = self._queries.exclude
        return best_of_own(
            scores, docs, depth, self._ties, None if exclude is None else exclude[at]
        )

    def values(self, mapped: torch.Tensor, rows: IntArray, measure: Measure) -> FloatArray:
        """The measure of some queries among their own documents, (m,) float64."""
        depth = min(measure.cutoff or 10, len(self._data.corpus))
        ranking = self.best(mapped, rows, depth)
        qrels = self._queries.qrels.select_queries(rows)
        return evaluate(ranking.doc_rows, qrels, [measure], len(self._data.corpus))[measure]


def best_of_own(
    scores: torch.Tensor,
    docs: torch.Tensor,
    depth: int,
    ties: Ties,
    exclude: torch.Tensor | None = None,
) -> Ranking:
    """The best where each query has documents of its own, as ``search.search`` gives them.

    Args:
        scores: (q, m) float32, minus infinity where there is no document; may be overwritten.
        docs: (q, m) int64 rows of the corpus, each once in a row; -1 for none.
        depth: of the ranking.
        ties: of the corpus.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
    """
    if exclude is not None:
        scores.masked_fill_(docs == exclude[:, None], float("-inf"))
    k = min(depth, docs.shape[1])
    keys = best_packed_of(scores, ties.ranks[docs.clamp(min=0)], k)
    values, found = unpacked(keys, ties)
    found = found.where(values > float("-inf"), -1)
    doc_rows = np.full((len(docs), depth), -1, dtype=np.int64)
    doc_rows[:, : found.shape[1]] = found.cpu().numpy()
    best = np.full(doc_rows.shape, -np.inf, dtype=np.float32)
    best[:, : values.shape[1]] = values.cpu().numpy()
    return Ranking(doc_rows, best)
