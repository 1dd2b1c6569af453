"""Fusion with a first stage: cosine plus a weight times another system's score, ranked exactly.

In: unit queries and documents, and for each query the documents that another system (BM25, say)
found, with its scores. Out: a ``Ranking`` for each weight.

The sum is of plain scores: score(q, d) = cosine(q, d) + weight * first_stage(q, d). Standardising
both sides for each query (z-scores) gave the same quality within 0.1 points of nDCG@10, reciprocal
ranks and min-max less (docs/fitting.md), and a plain sum needs one number in any engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from era_cache.rank.corpus import enough_rows, whole
from era_cache.rank.dots import dots
from era_cache.rank.lists import FirstStage, ranking_of_keys
from era_cache.rank.measures import Ranking
from era_cache.rank.request import check_inputs
from era_cache.rank.search import best_packed_of
from era_cache.rank.ties import Ties, tie_tables, unpacked

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["cosines_of", "fused_rankings", "joined_rankings"]

_BLOCK_BYTES = 1 << 26
_FIRST_PIECE = 32
"""Documents at the head of a list that are always compared, or twice those of a ranking."""
_SUMS = 1 << 16
"""Sums that are sorted at a time, at all weights together: what a processor's cache holds."""
_ROUNDING = 2.0**-21
"""Of the largest sum: how far behind in cosine a document may end up level by rounding."""


def fused_rankings(
    queries: torch.Tensor,
    corpus: Corpus,
    first: FirstStage,
    weights: Sequence[float],
    k: int,
    *,
    exclude: torch.Tensor | None = None,
    tie_ranks: torch.Tensor | None = None,
    cosines: torch.Tensor | None = None,
) -> list[Ranking]:
    """Find the k best documents of each query by cosine plus weighted first-stage score.

    The corpus is gone through once for all weights: outside its list a query's documents differ by
    their cosine only, so that the k best by cosine and the list itself hold every result. For a
    single weight the sums are ranked directly, which is faster where k is large.

    Args:
        queries: (q, d) float32 unit rows.
        corpus: (n, d) float32 unit rows on the same device.
        first: lists of the same queries.
        weights: of the first stage's scores, at least 0.
        k: documents of each ranking.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
        tie_ranks: (n,) int64 permutation, as in ``search``.
        cosines: (q, n) float32 of all documents, where they are known; overwritten.

    Returns:
        For each weight a ranking (q, k).

    Raises:
        ValueError: shapes, types or numbers do not fit.
    """
    if len(weights) == 1 and cosines is None:
        (found,) = joined_rankings(
            [(queries, weights)], corpus, first, k, exclude=exclude, tie_ranks=tie_ranks
        )
        return found
    check_inputs(queries, corpus, k, exclude)
    _check_lists(first, len(queries), len(corpus))
    if cosines is not None and cosines.shape != (len(queries), len(corpus)):
        raise ValueError(f"cosines {tuple(cosines.shape)}, not {(len(queries), len(corpus))}")
    ties = tie_tables(tie_ranks, len(corpus), corpus.device)
    documents = whole(corpus) if cosines is None else corpus
    parts: list[list[Ranking]] = [[] for _ in weights]
    for rows in _blocks(len(queries), len(corpus)):
        own = None if exclude is None else exclude[rows]
        lists = first.select(rows)
        scores = cosines_of(queries[rows], documents) if cosines is None else cosines[rows]
        if own is not None:
            _leave_out(scores, own)
        keys = _each(scores, lists, weights, k, own, ties)
        every = ranking_of_keys(keys.flatten(0, 1), k, ties)
        for number, mine in enumerate(parts):
            block = slice(number * len(scores), (number + 1) * len(scores))
            mine.append(Ranking(every.doc_rows[block], every.scores[block]))
    return [_joined(mine, k) for mine in parts]


def joined_rankings(
    ways: Sequence[tuple[torch.Tensor, Sequence[float]]],
    corpus: Corpus,
    first: FirstStage,
    k: int,
    *,
    exclude: torch.Tensor | None = None,
    tie_ranks: torch.Tensor | None = None,
) -> list[list[Ranking]]:
    """Rank the same queries mapped in several ways, each with weights of its own.

    What the lists say of every document is laid out once for all of them.

    Args:
        ways: (q, d) float32 unit rows, and weights of the first stage's scores, at least 0. Weight
            0 ranks by the cosine alone.
        corpus: (n, d) float32 unit rows on the same device.
        first: lists of the queries.
        k: documents of each ranking.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
        tie_ranks: (n,) int64 permutation, as in ``search``.

    Returns:
        For each way and weight a ranking (q, k).

    Raises:
        ValueError: shapes, types or numbers do not fit.
    """
    import torch

    for queries, _ in ways:
        check_inputs(queries, corpus, k, exclude)
        _check_lists(first, len(queries), len(corpus))
    ties, documents = tie_tables(tie_ranks, len(corpus), corpus.device), whole(corpus)
    found: list[list[list[Ranking]]] = [[[] for _ in weights] for _, weights in ways]
    for rows in _blocks(len(first.docs), len(corpus)):
        said = first.select(rows).everywhere(len(corpus))
        for (queries, weights), mine in zip(ways, found, strict=True):
            cosines = cosines_of(queries[rows], documents)
            if exclude is not None:
                _leave_out(cosines, exclude[rows])
            for weight, parts in zip(weights, mine, strict=True):
                # The last sums may take the place of the cosines: a server asks for one.
                last = cosines if parts is mine[-1] else None
                scores = torch.add(cosines, said, alpha=weight, out=last) if weight else cosines
                keys = best_packed_of(scores, ties.ranks, min(k, len(corpus)))
                parts.append(ranking_of_keys(keys, k, ties))
    return [[_joined(parts, k) for parts in mine] for mine in found]


def _blocks(n_queries: int, n_docs: int) -> Iterator[slice]:
    """Queries at a time, so that what is held of all documents stays bounded."""
    step = max(1, _BLOCK_BYTES // 4 // max(1, n_docs))
    for begin in range(0, n_queries, step):
        yield slice(begin, min(n_queries, begin + step))


def _check_lists(first: FirstStage, n_queries: int, n_docs: int) -> None:
    if len(first.docs) != n_queries:
        raise ValueError(f"{len(first.docs)} lists for {n_queries} queries")
    if first.docs.numel() and int(first.docs.max()) >= n_docs:
        raise ValueError("a list names a document beyond the corpus")


def cosines_of(queries: torch.Tensor, corpus: Corpus) -> torch.Tensor:
    """Dot products of queries (q, d) with all documents, (q, n) float32."""
    return dots(enough_rows(queries), whole(corpus))[: len(queries)]


def _joined(parts: Sequence[Ranking], k: int) -> Ranking:
    """Rankings of blocks of queries as one."""
    if not parts:
        return Ranking(np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32))
    return Ranking(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _each(
    scores: torch.Tensor,
    lists: FirstStage,
    weights: Sequence[float],
    k: int,
    exclude: torch.Tensor | None,
    ties: Ties,
) -> torch.Tensor:
    """Keys of the best documents at each of w weights, (w, q, k); ``scores`` are overwritten."""
    import torch

    n_best = min(k, scores.shape[1])
    others, rows, inside = _apart(scores, lists, exclude, n_best, ties)
    inside, listed, docs = _leading(inside, lists, k, max(weights, default=0.0))
    # Minus infinity stays what it is: a document that was left out.
    cosines = torch.cat([others, inside], dim=1)
    firsts = torch.cat([lists.floor[:, None].expand_as(others), listed], dim=1)
    ranks = torch.cat([ties.ranks[rows], ties.ranks[docs.clamp(min=0)]], dim=1)
    found = rows.new_empty(len(weights), len(scores), n_best)
    m = cosines.shape[1]
    step = max(1, _SUMS // max(1, m * len(weights)))
    sums = cosines.new_empty(len(weights), min(step, len(scores)), m)
    for begin in range(0, len(scores), step):
        block = slice(begin, min(len(scores), begin + step))
        here = sums[:, : block.stop - begin]
        for number, weight in enumerate(weights):
            torch.add(cosines[block], firsts[block], alpha=weight, out=here[number])
        theirs = ranks[block].repeat(len(weights), 1)
        found[:, block] = best_packed_of(here.flatten(0, 1), theirs, n_best).view_as(
            found[:, block]
        )
    return found


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


def _leave_out(scores: torch.Tensor, exclude: torch.Tensor) -> None:
    mine = (exclude >= 0).nonzero().squeeze(1)
    scores[mine, exclude[mine]] = float("-inf")


def _apart(
    scores: torch.Tensor,
    lists: FirstStage,
    exclude: torch.Tensor | None,
    k: int,
    ties: Ties,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Documents outside the lists that may be among the k best at some weight, and those in them.

    Args:
        scores: (q, n) cosines, minus infinity where a document is left out; overwritten.
        lists: the lists.
        exclude: the document that each query leaves out.
        k: at most n.
        ties: of the corpus.

    Returns:
        Cosines and rows of k documents outside, (q, k) each; cosines of the lists' documents.
        Minus infinity are documents that are left out, or that the other part has.
    """
    docs, there = lists.docs, lists.docs >= 0
    if not docs.shape[1]:
        return *unpacked(best_packed_of(scores, ties.ranks, k), ties), scores[:, :0]
    inside = scores.gather(1, docs.clamp(min=0))
    inside.masked_fill_(~lists.allowed(exclude), float("-inf"))
    lower = bool(((lists.scores < lists.floor[:, None]) & there).any())
    if lower:
        _leave_out_listed(scores, docs, there)
    values, rows = unpacked(best_packed_of(scores, ties.ranks, k), ties)
    if not lower:
        # What k documents precede by cosine they precede by the sum, too, if no list says less of
        # them than of documents that it does not hold. Of the k, few are in the list.
        _leave_out_listed(scores, docs, there & (inside >= values[:, -1:]))
        values = scores.gather(1, rows)
    return values, rows, inside


def _leave_out_listed(scores: torch.Tensor, docs: torch.Tensor, which: torch.Tensor) -> None:
    queries, places = which.nonzero(as_tuple=True)
    scores[queries, docs[queries, places]] = float("-inf")
