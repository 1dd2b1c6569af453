"""Training with few labels: linear adapters by softmax over the corpus, held near their start.

In: ``FitData`` and a starting adapter. Out: the adapter of the best validation epoch, where epoch
0 is the start itself, so that training never ends below where it began (on validation).

Where the corpus is larger than ``FitConfig.pool_documents``, the softmax runs over a pool: all
positives, the best-scoring documents of each training query under the start, and a random rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.adapters import Adapter, unit
from era_cache.config import FitConfig
from era_cache.errors import FitError
from era_cache.losses import Positives, corpus_softmax, positives_of
from era_cache.measures import Measure, evaluate, parse_measure
from era_cache.pairs import FitData, QuerySet
from era_cache.search import search
from era_cache.types import FloatArray, IntArray, Qrels

if TYPE_CHECKING:
    import torch

__all__ = [
    "PRIMARY",
    "Fitted",
    "Pool",
    "identity",
    "joined_start",
    "make_pool",
    "train_adapter",
    "validation_values",
]

PRIMARY: Measure = parse_measure("nDCG@10")


class Fitted(NamedTuple):
    """A trained adapter and how it did on validation.

    ``values`` (n_validation,) float64 are the per-query values of the primary measure; ``options``
    (JSON) what produced it.
    """

    adapter: Adapter
    values: FloatArray
    options: dict[str, float | int | str]

    @property
    def mean(self) -> float:
        """Mean validation value."""
        return float(self.values.mean())


class Pool(NamedTuple):
    """The documents of the softmax: their vectors and positives renumbered to match."""

    documents: torch.Tensor
    positives: Positives
    exclude: torch.Tensor | None
    rows: int


def identity(data: FitData) -> Adapter:
    """The adapter that changes nothing: today's queries in today's index."""
    import torch

    return Adapter(("small",), torch.eye(data.corpus.shape[1], device=data.corpus.device))


def joined_start(aligned: Adapter, scale: float) -> Adapter:
    """Both views: the small one as it is, plus ``scale`` times the aligned large one."""
    import torch

    d_out = aligned.weight.shape[0]
    eye = torch.eye(d_out, device=aligned.weight.device)
    return Adapter(("small", "large"), torch.cat([eye, scale * aligned.weight], dim=1))


def validation_values(adapter: Adapter, data: FitData) -> FloatArray:
    """Primary measure of each validation query over the whole corpus, (n,) float64."""
    return _values(adapter.apply(data.validation.views), data.validation, data)


def _values(mapped: torch.Tensor, queries: QuerySet, data: FitData) -> FloatArray:
    ranking = search(
        mapped,
        data.corpus,
        min(PRIMARY.cutoff or 10, len(data.corpus)),
        exclude=queries.exclude,
        tie_ranks=data.tie_ranks,
    )
    return evaluate(ranking.doc_rows, queries.qrels, [PRIMARY], len(data.corpus))[PRIMARY]


def make_pool(data: FitData, start: Adapter, config: FitConfig) -> Pool:
    """Choose the documents of the softmax (see the module's head).

    Raises:
        FitError: no training query has a positive document.
    """
    qrels, n_queries = data.train.qrels, len(data.train.ids)
    if not np.any(qrels.relevance >= 1):
        raise FitError("No training query has a positive judgement; there is nothing to learn.")
    device = str(data.corpus.device)
    if len(data.corpus) <= config.pool_documents:
        everything = positives_of(qrels, n_queries, device)
        return Pool(data.corpus, everything, data.train.exclude, len(data.corpus))
    rows = _mined_rows(data, start, config)
    place = np.full(len(data.corpus), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    inside = place[qrels.doc_rows] >= 0
    local = Qrels(qrels.query_rows[inside], place[qrels.doc_rows[inside]], qrels.relevance[inside])
    exclude = data.train.exclude
    if exclude is not None:
        import torch

        table = torch.from_numpy(place).to(exclude.device)
        exclude = torch.where(exclude >= 0, table[exclude.clamp(min=0)], exclude)
    return Pool(data.corpus[rows], positives_of(local, n_queries, device), exclude, len(rows))


def _mined_rows(data: FitData, start: Adapter, config: FitConfig) -> IntArray:
    positives = np.unique(data.train.qrels.doc_rows[data.train.qrels.relevance >= 1])
    found = search(
        start.apply(data.train.views), data.corpus, min(config.mined_per_query, len(data.corpus))
    ).doc_rows
    # By rank, so that where the pool is too small every query keeps its hardest documents.
    mined = found.T.reshape(-1)
    spare = np.random.default_rng(config.seed).permutation(len(data.corpus))
    joined = np.concatenate([positives, mined, spare[: config.pool_documents]])
    _, first = np.unique(joined, return_index=True)
    kept = joined[np.sort(first)]
    return np.sort(kept[: max(config.pool_documents, len(positives))])


def train_adapter(
    data: FitData, start: Adapter, pool: Pool, config: FitConfig, anchor: float, **options: float
) -> Fitted:
    """Train a linear adapter from ``start`` with Adam, keeping the best validation epoch.

    Loss: ``corpus_softmax`` + anchor * ||W - W_start||^2 (Frobenius).

    Args:
        data: training and validation queries, corpus.
        start: where W begins and what it is held to.
        pool: from ``make_pool``.
        config: rates, batch size, patience, seed.
        anchor: strength of the pull towards the start.
        options: recorded with the result.

    Returns:
        The best adapter on validation and its values; the start itself if nothing beat it.
    """
    import torch

    inputs = torch.cat([data.train.views[view] for view in start.views], dim=1)
    held_out = torch.cat([data.validation.views[view] for view in start.views], dim=1)
    origin = start.weight
    weight = origin.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    best, best_epoch = _values(unit(held_out @ origin.T), data.validation, data), 0
    best_weight = origin
    for epoch in range(1, config.max_epochs + 1):
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for rows in order.split(config.batch_queries):
            excluded = None if pool.exclude is None else pool.exclude[rows]
            loss = corpus_softmax(
                unit(inputs[rows] @ weight.T),
                pool.documents,
                rows,
                pool.positives,
                config.temperature,
                excluded,
            )
            loss = loss + anchor * (weight - origin).square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            values = _values(unit(held_out @ weight.T), data.validation, data)
        if values.mean() > best.mean() + 1e-9:
            best, best_weight, best_epoch = values, weight.detach().clone(), epoch
        elif epoch - best_epoch >= config.patience:
            break
    recorded = {**options, "anchor": anchor, "epochs": best_epoch, "pool": pool.rows}
    return Fitted(Adapter(start.views, best_weight), best, dict(recorded))
