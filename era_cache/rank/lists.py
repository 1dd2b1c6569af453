"""What a first stage (BM25, say) found for each query: lists of documents with their scores.

In: rows of documents and scores, as tables. Out: the lists as a ranking, the scores of any
documents, how far scores spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.rank.largest import falling
from era_cache.rank.measures import Ranking
from era_cache.rank.search import best_packed_of
from era_cache.rank.ties import Ties, tie_tables, unpacked
from era_cache.types import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["FirstStage", "ranking_of_keys", "spreads", "stacked"]


class FirstStage(NamedTuple):
    """What another system found for each of q queries.

    ``docs`` (q, m) int64 rows of the corpus, each at most once in a row of the table, -1 where a
    list is shorter; ``scores`` (q, m) float32, larger is better, 0 where there is no document;
    ``floor`` (q,) float32, the score of every document that the list does not hold; ``name`` of
    the system.
    """

    name: str
    docs: torch.Tensor
    scores: torch.Tensor
    floor: torch.Tensor

    def select(self, rows: IntArray | slice) -> FirstStage:
        """The lists of some queries, in the order of ``rows``."""
        import torch

        chosen: slice | torch.Tensor
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.docs.device)
        return FirstStage(self.name, self.docs[chosen], self.scores[chosen], self.floor[chosen])

    def of(self, docs: torch.Tensor) -> torch.Tensor:
        """Scores of some documents, (q, p) float32; ``docs`` (q, p) are rows of the corpus."""
        import torch

        if not self.docs.shape[1]:
            return self.floor[:, None].expand(docs.shape)
        m = self.docs.shape[1]
        # Row and column in one number are sorted in a third of the time of an argsort.
        keys = (self.docs << 32) + torch.arange(m, device=self.docs.device)
        keys = falling(keys, m).flip(1)
        known, order = keys >> 32, keys & 0xFFFF_FFFF
        place = torch.searchsorted(known, docs.contiguous()).clamp_(max=m - 1)
        found = self.scores.gather(1, order.gather(1, place))
        return found.where(known.gather(1, place) == docs, self.floor[:, None])

    def everywhere(self, n_docs: int) -> torch.Tensor:
        """What the lists say of each document, (q, n) float32."""
        # Where a list is shorter, it speaks of a document behind the last one.
        said = self.floor[:, None].repeat(1, n_docs + 1)
        places = self.docs.where(self.docs >= 0, n_docs)
        return said.scatter_(1, places, self.scores)[:, :n_docs]

    def allowed(self, exclude: torch.Tensor | None) -> torch.Tensor:
        """Which entries are documents that the query may find, (q, m) bool."""
        there = self.docs >= 0
        return there if exclude is None else there & (self.docs != exclude[:, None])

    def ranking(self, k: int, tie_ranks: torch.Tensor, exclude: torch.Tensor | None) -> Ranking:
        """The lists as a ranking of k documents, ties as everywhere; padded where a list ends."""
        ties = tie_tables(tie_ranks, len(tie_ranks), self.docs.device)
        allowed = self.allowed(exclude)
        scores = self.scores.masked_fill(~allowed, float("-inf"))
        keys = best_packed_of(scores, ties.ranks[self.docs.clamp(min=0)], k)
        return ranking_of_keys(keys, k, ties)


def stacked(parts: Sequence[FirstStage | None]) -> FirstStage | None:
    """Lists of several sets of queries as one; None where one set has none."""
    import torch

    given = [part for part in parts if part is not None]
    if not given or len(given) < len(parts):
        return None
    width = max(part.docs.shape[1] for part in given)

    def wide(table: torch.Tensor, value: float) -> torch.Tensor:
        return torch.nn.functional.pad(table, (0, width - table.shape[1]), value=value)

    return FirstStage(
        given[0].name,
        torch.cat([wide(part.docs, -1) for part in given]),
        torch.cat([wide(part.scores, 0.0) for part in given]),
        torch.cat([part.floor for part in given]),
    )


def ranking_of_keys(keys: torch.Tensor, k: int, ties: Ties) -> Ranking:
    """Keys that fall as a ranking of k places; what scores minus infinity takes none."""
    n_best = min(k, keys.shape[1])
    values, rows = unpacked(keys[:, :n_best], ties)
    rows = rows.where(values > float("-inf"), -1)
    doc_rows = np.full((len(keys), k), -1, dtype=np.int64)
    scores = np.full((len(keys), k), -np.inf, dtype=np.float32)
    doc_rows[:, :n_best], scores[:, :n_best] = rows.cpu().numpy(), values.cpu().numpy()
    return Ranking(doc_rows, scores)


def spreads(scores: torch.Tensor, there: torch.Tensor) -> FloatArray:
    """Standard deviation of each list's scores, of those that are there.

    Args:
        scores: (q, m) float32.
        there: (q, m) bool.

    Returns:
        (q,) float64; 0 for a list of fewer than two.
    """
    values, counted = scores.double().where(there, 0.0), there.double()
    n = counted.sum(dim=1).clamp(min=1)
    mean = values.sum(dim=1) / n
    away = ((values - mean[:, None]) * counted).square().sum(dim=1)
    return (away / n).sqrt().cpu().numpy()
