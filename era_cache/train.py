"""Training with few labels: linear adapters by softmax over the corpus, held near their start.

In: ``FitData`` and a starting adapter. Out: the adapter of the best validation round, where round
0 is the start itself, so that training never ends below where it began (on validation).

Where the corpus is larger than ``FitConfig.pool_documents``, the softmax runs over a pool: all
positives, the best-scoring documents of each training query under the start, and a random rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.adapters import Adapter, unit
from era_cache.config import FitConfig
from era_cache.errors import FitError
from era_cache.losses import (
    Positives,
    corpus_softmax,
    positives_of,
    teacher_softmax,
    teacher_targets,
)
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
    "train_adapters",
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


def train_adapters(
    data: FitData,
    start: Adapter,
    pool: Pool,
    config: FitConfig,
    anchors: Sequence[float],
    **options: float,
) -> list[Fitted]:
    """Train a linear adapter from ``start`` once for each anchor, all of them in the same products.

    Adam on ``corpus_softmax`` + anchor * ||W - W_start||^2 (Frobenius) and, where the adapter reads
    the large view, ``config.teacher`` * ``teacher_softmax`` over the training queries and over as
    many alignment documents. The weights share batches and nothing else.

    Args:
        data: training and validation queries, corpus, alignment documents.
        start: where each W begins and what it is held to.
        pool: from ``make_pool``.
        config: rates, batch size, patience, seed.
        anchors: k strengths of the pull towards the start.
        options: recorded with each result.

    Returns:
        For each anchor the adapter of its best validation round and its values; the start itself
        if nothing beat it.
    """
    held_out = _joined_views(data.validation.views, start)
    origin = start.weight
    steps = _Steps(data, start, pool, config, anchors)
    first = _values(unit(held_out @ origin.T), data.validation, data)
    best = [(first, origin, 0) for _ in anchors]
    running = list(range(len(anchors)))
    for number in range(1, config.max_rounds + 1):
        steps.round()
        going = []
        for place, i in enumerate(running):
            weight = steps.weights.detach()[place]
            values = _values(unit(held_out @ weight.T), data.validation, data)
            if values.mean() > best[i][0].mean() + 1e-9:
                best[i] = (values, weight.clone(), number)
            if number - best[i][2] < config.patience:
                going.append(place)
        if not going:
            break
        if len(going) < len(running):
            steps.keep(going)
            running = [running[place] for place in going]
    return [
        Fitted(
            Adapter(start.views, weight),
            values,
            {**options, "anchor": anchor, "rounds": number, "pool": pool.rows},
        )
        for anchor, (values, weight, number) in zip(anchors, best, strict=True)
    ]


def _joined_views(views: Mapping[str, torch.Tensor], adapter: Adapter) -> torch.Tensor:
    import torch

    return torch.cat([views[view] for view in adapter.views], dim=1)


class _Steps:
    """The optimiser's side of training: k weights (k, d_out, d_in) moved together."""

    def __init__(
        self,
        data: FitData,
        start: Adapter,
        pool: Pool,
        config: FitConfig,
        anchors: Sequence[float],
    ) -> None:
        import torch

        self._inputs = _joined_views(data.train.views, start)
        self._pool, self._config = pool, config
        self._origin = start.weight
        self._anchors = torch.tensor(anchors, device=start.weight.device)[:, None, None]
        self._generator = torch.Generator().manual_seed(config.seed)
        self.weights = start.weight.repeat(len(anchors), 1, 1).requires_grad_()
        self._optimizer = torch.optim.Adam([self.weights], lr=config.learning_rate)
        self._teaches = bool(config.teacher) and "large" in start.views
        if self._teaches:
            large, self._small = (
                view[: config.teacher_documents] for view in (data.align_large, data.align_small)
            )
            self._documents = _joined_views({"large": large, "small": self._small}, start)
            self._wanted = teacher_targets(data.train.views["large"], large, config.temperature)
            self._wanted_of = teacher_targets(large, large, config.temperature)

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some of the weights only, from where they and their momenta are."""
        import torch

        state = self._optimizer.state[self.weights]
        self._anchors = self._anchors[places]
        self.weights = self.weights.detach()[places].clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self.weights], lr=self._config.learning_rate)
        self._optimizer.state[self.weights] = {
            name: value[places].clone() if value.dim() == 3 else value
            for name, value in state.items()
        }

    def round(self) -> None:
        """Pass over the training queries, more than once where that is only a few steps."""
        import torch

        in_a_pass = -(-len(self._inputs) // self._config.batch_queries)
        for _ in range(-(-self._config.round_steps // in_a_pass)):
            order = torch.randperm(len(self._inputs), generator=self._generator)
            for rows in order.to(self._inputs.device).split(self._config.batch_queries):
                loss = self._loss(rows)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self._optimizer.step()

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Sum over the k weights: their gradients, and so their paths, do not touch."""
        import torch

        count = len(self.weights)
        inputs = self._inputs[rows]
        if self._teaches:
            drawn = torch.randint(len(self._documents), (len(rows),), generator=self._generator)
            drawn = drawn.to(rows.device)
            inputs = torch.cat([inputs, self._documents[drawn]])
        d_out = self.weights.shape[1]
        # One product for all weights: (b, d_in) x (d_in, k d_out), then k blocks of rows.
        mapped = (inputs @ self.weights.reshape(count * d_out, -1).T).view(-1, count, d_out)
        mapped = unit(mapped.transpose(0, 1).reshape(-1, d_out)).view(count, -1, d_out)
        repeated = rows.repeat(count)
        loss = count * corpus_softmax(
            mapped[:, : len(rows)].reshape(-1, d_out),
            self._pool.documents,
            repeated,
            self._pool.positives,
            self._config.temperature,
            None if self._pool.exclude is None else self._pool.exclude[repeated],
        )
        loss = loss + (self._anchors * (self.weights - self._origin).square()).sum()
        if self._teaches:
            wanted = torch.cat([self._wanted[rows], self._wanted_of[drawn]]).repeat(count, 1)
            taught = teacher_softmax(
                mapped.reshape(-1, d_out), wanted, self._small, self._config.temperature
            )
            # Twice: the mean is over queries and documents together, the weight is for each.
            loss = loss + 2 * count * self._config.teacher * taught
        return loss
