"""Losses of query vectors against documents.

In: unit query vectors, unit document vectors, positives as flat lists. Out: a scalar to minimise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.types import Qrels

if TYPE_CHECKING:
    import torch

__all__ = ["Positives", "corpus_softmax", "positives_of", "teacher_softmax", "teacher_targets"]


class Positives(NamedTuple):
    """Positive judgements of n queries, ordered by query.

    ``starts`` (n + 1,) int64: query i owns entries ``starts[i]`` to ``starts[i + 1]`` of ``docs``
    (m,) int64 and ``weights`` (m,) float32, which sum to 1 for each query.
    """

    starts: torch.Tensor
    docs: torch.Tensor
    weights: torch.Tensor


def positives_of(qrels: Qrels, n_queries: int, device: str) -> Positives:
    """Collect all positives with weights proportional to their grades."""
    import torch

    keep = np.flatnonzero(qrels.relevance >= 1)
    keep = keep[np.argsort(qrels.query_rows[keep], kind="stable")]
    rows, grades = qrels.query_rows[keep], qrels.relevance[keep].astype(np.float64)
    totals = np.bincount(rows, weights=grades, minlength=n_queries)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_queries))])
    return Positives(
        torch.from_numpy(starts.astype(np.int64)).to(device),
        torch.from_numpy(qrels.doc_rows[keep]).to(device),
        torch.from_numpy((grades / totals[rows]).astype(np.float32)).to(device),
    )


def corpus_softmax(
    mapped: torch.Tensor,
    corpus: torch.Tensor,
    rows: torch.Tensor,
    positives: Positives,
    temperature: float,
    exclude: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE over every document, with all positives (cross-entropy with soft targets).

    loss_i = logsumexp_d(s_id) - sum_p w_ip s_ip, with s = cosine / temperature.

    Args:
        mapped: (b, d) unit query vectors.
        corpus: (n, d) unit document vectors.
        rows: (b,) int64, which query each row of ``mapped`` is.
        positives: of all queries.
        temperature: of the softmax.
        exclude: (b,) document that is no candidate for the query, -1 for none; None for no rule.

    Returns:
        The mean over the batch.
    """
    import torch

    scores = mapped @ corpus.T / temperature
    if exclude is not None:
        hit = torch.nonzero(exclude >= 0).squeeze(1)
        # index_put keeps the graph; a document that is excluded must not attract or repel.
        scores = scores.index_put((hit, exclude[hit]), scores.new_tensor(float("-inf")))
    starts = positives.starts[rows]
    counts = positives.starts[rows + 1] - starts
    local = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    within = torch.arange(len(local), device=rows.device) - (counts.cumsum(0) - counts)[local]
    entries = starts[local] + within
    wanted = scores[local, positives.docs[entries]] * positives.weights[entries]
    return (torch.logsumexp(scores, dim=1).sum() - wanted.sum()) / len(rows)


def teacher_targets(
    queries: torch.Tensor, documents: torch.Tensor, temperature: float
) -> torch.Tensor:
    """What the large model, on both sides, thinks of some documents for some queries.

    Args:
        queries: (b, d_large) unit vectors.
        documents: (n, d_large) unit vectors.
        temperature: of the softmax.

    Returns:
        (b, n) float32, rows that sum to 1.
    """
    import torch

    return torch.softmax(queries @ documents.T / temperature, dim=1)


def teacher_softmax(
    mapped: torch.Tensor, wanted: torch.Tensor, small_documents: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of the mapped ranking of some documents against the large model's own.

    The large model says without any label which documents are near; mapped vectors should say the
    same in the small space (distillation; Hinton, Vinyals and Dean 2015).

    Args:
        mapped: (b, d_small) unit vectors, the adapter's output.
        wanted: (b, n) from ``teacher_targets``.
        small_documents: (n, d_small) unit vectors of the same documents.
        temperature: of the softmax.

    Returns:
        The mean over the batch.
    """
    import torch

    found = torch.log_softmax(mapped @ small_documents.T / temperature, dim=1)
    return -(wanted * found).sum(dim=1).mean()
