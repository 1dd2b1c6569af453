"""The ranking loss of mapped queries against documents, and its gradient in closed form.

In: unit query vectors, unit document vectors, what each query is pulled to. Out: losses, and their
gradients with respect to the query vectors; no score is kept for a backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.rank.dots import BLOCK_BYTES, dots
from era_cache.types import Qrels

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["RankingLoss", "corpus_softmax", "pull_of"]

_ROWS = 2048
"""Queries whose scores are computed together."""


class RankingLoss(NamedTuple):
    """Per query: the loss (n,), its gradient (n, d), and its derivative by log temperature (n,)."""

    loss: torch.Tensor
    gradient: torch.Tensor
    by_log_temperature: torch.Tensor


def pull_of(qrels: Qrels, n_queries: int, corpus: Corpus) -> torch.Tensor:
    """Mean of each query's positive documents, weighted by grade; zero where there is none.

    Args:
        qrels: judgements; ``doc_rows`` are rows of ``corpus``.
        n_queries: how many queries there are.
        corpus: (N, d) float32.

    Returns:
        (n_queries, d) float32; not of unit length.
    """
    import torch

    keep = np.flatnonzero(qrels.relevance >= 1)
    rows, grades = qrels.query_rows[keep], qrels.relevance[keep].astype(np.float64)
    weights = grades / np.bincount(rows, weights=grades, minlength=n_queries)[rows]
    pull = torch.zeros(n_queries, corpus.shape[1], device=corpus.device)
    shares = torch.from_numpy(weights.astype(np.float32)).to(corpus.device)
    docs = torch.from_numpy(qrels.doc_rows[keep]).to(corpus.device)
    return pull.index_add_(
        0, torch.from_numpy(rows).to(corpus.device), corpus[docs] * shares[:, None]
    )


def corpus_softmax(
    mapped: torch.Tensor,
    corpus: torch.Tensor,
    pull: torch.Tensor,
    temperature: torch.Tensor,
    *,
    barred: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
    block_bytes: int = 1 << 26,
) -> RankingLoss:
    """InfoNCE over every document with all positives (cross-entropy with soft targets).

    loss_i = logsumexp_d(s_id) - sum_p w_ip s_ip with s = cosine / temperature. Its gradient is
    (expected document under the softmax - weighted mean of the positives) / temperature, so that
    two products with the corpus give both.

    Args:
        mapped: (n, d) unit query vectors.
        corpus: (N, d) unit document vectors.
        pull: (n, d) from ``pull_of``, a row for each row of ``mapped``.
        temperature: (n,) of the softmax.
        barred: (q, N) bool, documents that are no candidates for a query.
        rows: (n,) int64, the row of ``barred`` for each row of ``mapped``.
        block_bytes: scores held at a time, at most 8 MiB of them on a processor.

    Returns:
        Losses and gradients, not averaged.
    """
    import torch

    scaled = mapped / temperature[:, None]
    expected = torch.zeros_like(mapped)
    normaliser = torch.empty_like(temperature)
    if corpus.device.type == "cpu":
        block_bytes = min(block_bytes, BLOCK_BYTES)
    for begin in range(0, len(mapped), _ROWS):
        part = scaled[begin : begin + _ROWS]
        at = None if barred is None or rows is None else rows[begin : begin + _ROWS]
        # Of the documents so far: the largest score, and the sums of exp(score - largest). The
        # lowest number, not minus infinity: all documents of a block may be barred.
        top = part.new_full((len(part), 1), torch.finfo(part.dtype).min)
        total = torch.zeros_like(top)
        sums = expected[begin : begin + _ROWS]
        step = max(1, block_bytes // 4 // len(part))
        for start in range(0, len(corpus), step):
            documents = corpus[start : start + step]
            scores = dots(part, documents)
            if barred is not None and at is not None:
                scores.masked_fill_(barred[at, start : start + step], float("-inf"))
            before, top = top, torch.maximum(top, scores.amax(dim=1, keepdim=True))
            scores.sub_(top).exp_()
            shrunk = (before - top).exp_()
            total = total.mul_(shrunk).add_(scores.sum(dim=1, keepdim=True))
            sums.mul_(shrunk).add_(dots(scores, documents.T))
        sums.div_(total)
        normaliser[begin : begin + _ROWS] = (total.log() + top).squeeze(1)
    wanted = (scaled * pull).sum(dim=1)
    found = (scaled * expected).sum(dim=1)
    return RankingLoss(
        normaliser - wanted, (expected - pull) / temperature[:, None], wanted - found
    )
