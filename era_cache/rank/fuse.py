"""Fusion with a first stage: cosine plus a weight times another system's score, ranked exactly.

In: unit queries and documents, and for each query the documents that another system (BM25, say)
found, with its scores. Out: a ``Ranking`` for each weight.

The sum is of plain scores: score(q, d) = cosine(q, d) + weight * first_stage(q, d). Standardising
both sides for each query (z-scores) gave the same quality within 0.1 points of nDCG@10, reciprocal
ranks and min-max less (docs/fitting.md), and a plain sum needs one number in any engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.rank.corpus import enough_rows, whole
from era_cache.rank.dots import dots
from era_cache.rank.largest import falling
from era_cache.rank.measures import Ranking
from era_cache.rank.request import check_inputs
from era_cache.rank.search import best_packed_of
from era_cache.rank.ties import Ties, tie_tables, unpacked
from era_cache.types import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["FirstStage", "fused_rankings", "spreads", "stacked"]

_BLOCK_BYTES = 1 << 26
_FIRST_PIECE = 32
"""Documents at the head of a list that are always compared, or twice those of a ranking."""
_ROUNDING = 2.0**-21
"""Of the largest sum: how far behind in cosine a document may end up level by rounding."""


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

    def select(self, rows: IntArray) -> FirstStage:
        """The lists of some queries, in the order of ``rows``."""
        import torch

        chosen = torch.from_numpy(rows).to(self.docs.device)
        return FirstStage(self.name, self.docs[chosen], self.scores[chosen], self.floor[chosen])

    def of(self, docs: torch.Tensor) -> torch.Tensor:
        """Scores of some documents, (q, p) float32; ``docs`` (q, p) are rows of the corpus."""
        import torch

        if not self.docs.shape[1]:
            return self.floor[:, None].expand(docs.shape)
        known, order = self.docs.sort(dim=1)
        place = torch.searchsorted(known, docs.contiguous()).clamp_(max=known.shape[1] - 1)
        found = self.scores.gather(1, order.gather(1, place))
        return found.where(known.gather(1, place) == docs, self.floor[:, None])

    def ranking(self, k: int, tie_ranks: torch.Tensor, exclude: torch.Tensor | None) -> Ranking:
        """The lists as a ranking of k documents, ties as everywhere; padded where a list ends."""
        ties = tie_tables(tie_ranks, len(tie_ranks), self.docs.device)
        allowed = _allowed(self.docs, exclude)
        scores = self.scores.masked_fill(~allowed, float("-inf"))
        keys = best_packed_of(scores, ties.ranks[self.docs.clamp(min=0)], k)
        return _ranking(keys, k, ties)


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


def fused_rankings(
    queries: torch.Tensor,
    corpus: Corpus,
    first: FirstStage,
    weights: Sequence[float],
    k: int,
    *,
    exclude: torch.Tensor | None = None,
    tie_ranks: torch.Tensor | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> list[Ranking]:
    """Find the k best documents of each query by cosine plus weighted first-stage score.

    The corpus is gone through once for all weights: outside its list a query's documents differ by
    their cosine only, so that the k best of those and the list itself hold every result. For a
    single weight the sums are ranked directly, which is faster where k is large.

    Args:
        queries: (q, d) float32 unit rows.
        corpus: (n, d) float32 unit rows on the same device.
        first: lists of the same queries.
        weights: of the first stage's scores, at least 0.
        k: documents of each ranking.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
        tie_ranks: (n,) int64 permutation, as in ``search``.
        block_bytes: scores held at a time.

    Returns:
        For each weight a ranking (q, k).

    Raises:
        ValueError: shapes, types or numbers do not fit.
    """
    check_inputs(queries, corpus, k, exclude)
    documents = whole(corpus)
    if len(first.docs) != len(queries):
        raise ValueError(f"{len(first.docs)} lists for {len(queries)} queries")
    if first.docs.numel() and int(first.docs.max()) >= len(corpus):
        raise ValueError("a list names a document beyond the corpus")
    ties = tie_tables(tie_ranks, len(corpus), corpus.device)
    found: list[list[Ranking]] = [[] for _ in weights]
    step = max(1, block_bytes // 4 // max(1, len(corpus)))
    for begin in range(0, len(queries), step):
        rows = slice(begin, min(len(queries), begin + step))
        own = None if exclude is None else exclude[rows]
        lists = FirstStage(first.name, *(column[rows] for column in first[1:]))
        scores = _cosines(queries[rows], documents, own)
        each = _each if len(weights) > 1 else _one
        for number, keys in enumerate(each(scores, lists, weights, k, own, ties)):
            found[number].append(_ranking(keys, k, ties))
    return [_joined(parts, k) for parts in found]


def _joined(parts: Sequence[Ranking], k: int) -> Ranking:
    """Rankings of blocks of queries as one."""
    if not parts:
        return Ranking(np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32))
    return Ranking(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _one(
    scores: torch.Tensor,
    lists: FirstStage,
    weights: Sequence[float],
    k: int,
    exclude: torch.Tensor | None,
    ties: Ties,
) -> Iterator[torch.Tensor]:
    """Keys of the best documents at the only weight; ``scores`` are overwritten."""
    for weight in weights:
        _add(scores, lists, weight)
        if exclude is not None:
            _leave_out(scores, exclude)
        yield best_packed_of(scores, ties.ranks, min(k, scores.shape[1]))


def _each(
    scores: torch.Tensor,
    lists: FirstStage,
    weights: Sequence[float],
    k: int,
    exclude: torch.Tensor | None,
    ties: Ties,
) -> Iterator[torch.Tensor]:
    """Keys of the best documents at each weight; ``scores`` are overwritten."""
    import torch

    n_best = min(k, scores.shape[1])
    outside, inside, allowed = _apart(scores, lists.docs, exclude, n_best, ties)
    others, rows = unpacked(outside, ties)
    inside.masked_fill_(~allowed, float("-inf"))
    inside, listed, docs = _leading(inside, lists, k, max(weights))
    # Minus infinity stays what it is: a document that was left out.
    cosines = torch.cat([others, inside], dim=1)
    firsts = torch.cat([lists.floor[:, None].expand_as(others), listed], dim=1)
    ranks = torch.cat([ties.ranks[rows], ties.ranks[docs.clamp(min=0)]], dim=1)
    for weight in weights:
        yield best_packed_of(torch.add(cosines, firsts, alpha=weight), ranks, k)


def _leading(
    inside: torch.Tensor, lists: FirstStage, k: int, most: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of documents in lists, those that may be among the k best at some weight up to ``most``.

    Whoever has k documents before it in its list, all of higher cosine, never is. That is asked of
    pieces of the lists, each as long as those before it together.

    Args:
        inside: (q, m) cosines of the lists' documents, minus infinity where there is none.
        lists: the lists.
        k: documents of a ranking.
        most: the largest weight.

    Returns:
        Cosines, scores and rows of those documents, (q, at most m) each.
    """
    import torch

    m, scores = inside.shape[1], lists.scores
    falling = bool((scores[:, 1:] <= scores[:, :-1]).all())  # else no order is known
    end = max(_FIRST_PIECE, 2 * k)
    if m <= end or not falling:
        return inside, scores, lists.docs
    kept = torch.ones_like(inside, dtype=torch.bool)
    level = _ROUNDING * (1 + most * float(scores.abs().max()))
    before = inside[:, :end]
    while end < m:
        before = before.topk(k, dim=1).values
        piece = inside[:, end : 2 * end]
        kept[:, end : 2 * end] = piece > before[:, -1:] - level
        before, end = torch.cat([before, piece], dim=1), 2 * end
    counts = kept.sum(dim=1)
    width = int(counts.max())
    rows, columns = kept.nonzero(as_tuple=True)
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    chosen = columns.new_zeros(len(inside), width)
    chosen[rows, places] = columns
    there = torch.arange(width, device=rows.device) < counts[:, None]
    cosines = inside.gather(1, chosen).masked_fill_(~there, float("-inf"))
    return cosines, scores.gather(1, chosen), lists.docs.gather(1, chosen)


def _cosines(
    queries: torch.Tensor, corpus: torch.Tensor, exclude: torch.Tensor | None
) -> torch.Tensor:
    """Scores of all documents, (q, n), minus infinity where one is left out."""
    factors = enough_rows(queries)
    scores = dots(factors, corpus)[: len(queries)]
    if exclude is not None:
        _leave_out(scores, exclude)
    return scores


def _leave_out(scores: torch.Tensor, exclude: torch.Tensor) -> None:
    mine = (exclude >= 0).nonzero().squeeze(1)
    scores[mine, exclude[mine]] = float("-inf")


def _add(scores: torch.Tensor, lists: FirstStage, weight: float) -> None:
    """Add the weighted scores of the lists, and of what they do not hold, in place."""
    import torch

    docs, lifted = lists.docs, weight * lists.floor[:, None]
    if not docs.shape[1]:
        scores += lifted
        return
    there = docs >= 0
    # Where a list is shorter, its first document is named again, with the value that it has.
    filler = docs[:, :1].clamp(min=0)
    places = docs.where(there, filler)
    inside = torch.add(scores.gather(1, places), lists.scores, alpha=weight)
    scores += lifted
    nothing = scores.gather(1, filler)
    inside = inside.where(there, inside[:, :1].where(there[:, :1], nothing))
    scores.scatter_(1, places, inside)


def _apart(
    scores: torch.Tensor,
    docs: torch.Tensor,
    exclude: torch.Tensor | None,
    k: int,
    ties: Ties,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys of the k best outside the lists, cosines of the lists' documents, which of them count.

    Scores of the lists' documents are overwritten.

    A query whose list is the whole corpus has nothing outside; its keys are of minus infinity.
    """
    import torch

    allowed = _allowed(docs, exclude)
    if not docs.shape[1]:
        return best_packed_of(scores, ties.ranks, k), scores[:, :0], allowed
    # Where a list is shorter, its first document is named again; with none, nothing is masked.
    filler = docs[:, :1].clamp(min=0)
    places = docs.where(docs >= 0, filler)
    inside = scores.gather(1, places)
    empty = docs[:, 0] < 0
    kept = scores[empty]
    scores.scatter_(1, places, -torch.inf)
    scores[empty] = kept
    return best_packed_of(scores, ties.ranks, k), inside, allowed


def _allowed(docs: torch.Tensor, exclude: torch.Tensor | None) -> torch.Tensor:
    """Which entries of the lists are documents that the query may find, (q, m) bool."""
    there = docs >= 0
    return there if exclude is None else there & (docs != exclude[:, None])


def _ranking(keys: torch.Tensor, k: int, ties: Ties) -> Ranking:
    """The best of some keys as a ranking of k places; what scores minus infinity takes none."""
    n_best = min(k, keys.shape[1])
    best = falling(keys, n_best)
    values, rows = unpacked(best, ties)
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
