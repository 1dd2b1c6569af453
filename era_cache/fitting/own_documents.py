"""Queries that are judged among documents of their own: many ways of mapping them in one product.

In: rankings of the same queries, found where they may come to lie. Out: values of the primary
measure among what was found, for each way of mapping them. Tables move a query a little, and a
search of all documents for every setting would cost as much as training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.fitting.judging_pool import best_of_own
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.corpus import gathered
from era_cache.rank.measures import Measure, Ranking, evaluate_each
from era_cache.rank.ties import Ties, tie_tables
from era_cache.types import FloatArray, IntArray, Qrels

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["LEADING", "OwnDocuments", "excluded", "own_documents"]

LEADING = 25
"""Documents of each ranking among which a query is judged."""
_GATHERED, _KEPT = 1 << 24, 1 << 22
"""Elements of documents that are gathered at a time, and that are kept for the next time."""


class OwnDocuments(NamedTuple):
    """q queries of a collection with up to m documents each.

    ``docs`` (q, m) int64 are rows of the corpus, each once in a row, -1 for none; ``lifts`` (q, m)
    float32 is added to their cosines; ``vectors`` (q, m, d) are those of the documents, where they
    are few enough to be kept.
    """

    docs: torch.Tensor
    corpus: Corpus
    ties: Ties
    exclude: torch.Tensor | None
    qrels: Qrels
    lifts: torch.Tensor | None = None
    vectors: torch.Tensor | None = None

    def values(self, mapped: Sequence[torch.Tensor], measure: Measure) -> list[FloatArray]:
        """The measure of each query, (q,) float64, for each way (q, d) of mapping them."""
        import torch

        q, m = self.docs.shape
        scores = mapped[0].new_empty(len(mapped), q, m)
        step = max(1, _GATHERED // max(1, m * mapped[0].shape[1]))
        for begin in range(0, q, step):
            rows = slice(begin, begin + step)
            if self.vectors is None:
                documents = gathered(self.corpus, self.docs[rows].clamp(min=0))
            else:
                documents = self.vectors[rows]
            every = torch.stack([one[rows] for one in mapped], dim=2)  # (rows, d, ways)
            scores[:, rows] = torch.bmm(documents, every).permute(2, 0, 1)
        if self.lifts is not None:
            scores += self.lifts
        scores.masked_fill_(self.docs < 0, float("-inf"))
        depth = min(measure.cutoff or 10, len(self.corpus))
        rankings = [
            best_of_own(one, self.docs, depth, self.ties, self.exclude).doc_rows for one in scores
        ]
        each = evaluate_each(rankings, self.qrels, [measure], len(self.corpus))
        return [found[measure] for found in each]


def excluded(queries: QuerySet, rows: IntArray) -> torch.Tensor | None:
    """The document that each of some queries leaves out, (m,) int64 rows, -1 for none."""
    import torch

    if queries.exclude is None:
        return None
    return queries.exclude[torch.from_numpy(rows).to(queries.exclude.device)]


def own_documents(
    rankings: Sequence[Ranking], queries: QuerySet, rows: IntArray, data: FitData
) -> OwnDocuments:
    """What some rankings of the same queries found.

    Args:
        rankings: of (q, k) documents each; none where there is no query.
        queries: the set that ``rows`` numbers.
        rows: (q,) int64.
        data: the collection.
    """
    import torch

    device = data.corpus.device
    none = np.zeros((len(rows), 0), dtype=np.int64)
    docs = torch.from_numpy(np.concatenate([none, *(one.doc_rows for one in rankings)], axis=1))
    docs = docs.to(device).sort(dim=1).values
    docs[:, 1:] = docs[:, 1:].masked_fill(docs[:, 1:] == docs[:, :-1], -1)
    docs = docs.sort(dim=1, descending=True).values
    most = int((docs >= 0).sum(dim=1).max()) if len(docs) else 0
    docs = docs[:, :most].contiguous()
    few = docs.numel() * data.corpus.shape[1] <= _KEPT
    return OwnDocuments(
        docs,
        data.corpus,
        tie_tables(data.tie_ranks, len(data.corpus), device),
        excluded(queries, rows),
        queries.qrels.select_queries(rows),
        vectors=gathered(data.corpus, docs.clamp(min=0)) if few else None,
    )
