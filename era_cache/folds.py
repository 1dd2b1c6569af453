"""Which labelled queries train and which judge: k folds, or one fixed validation part.

In: training and validation queries. Out: both together, and for each fold the rows that train and
the rows that judge. Equal queries are never parted, so that none judges what it has trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.config import FitConfig
from era_cache.pairs import QuerySet
from era_cache.types import IntArray, Qrels

if TYPE_CHECKING:
    import torch

__all__ = ["Fold", "Labels", "labels_of", "labels_within", "merged", "same_vectors"]


class Fold(NamedTuple):
    """Row numbers of ``Labels.queries``, rising."""

    train: IntArray
    judge: IntArray


class Labels(NamedTuple):
    """The labelled queries of one collection.

    ``train_rows`` are those that may train the final adapter; each row of ``judges`` is judged by
    exactly one fold.
    """

    queries: QuerySet
    folds: tuple[Fold, ...]
    train_rows: IntArray
    judges: IntArray


def merged(first: QuerySet, second: QuerySet) -> QuerySet:
    """Two query sets as one, the second one's rows after the first one's."""
    import torch

    exclude = None
    if first.exclude is not None and second.exclude is not None:
        exclude = torch.cat([first.exclude, second.exclude])
    shifted = second.qrels._replace(query_rows=second.qrels.query_rows + len(first.ids))
    columns = zip(first.qrels, shifted, strict=True)
    return QuerySet(
        ids=[*first.ids, *second.ids],
        views={name: torch.cat([first.views[name], second.views[name]]) for name in first.views},
        qrels=Qrels(*(np.concatenate(pair) for pair in columns)),
        exclude=exclude,
    )


def same_vectors(vectors: torch.Tensor) -> IntArray:
    """Number rows such that equal rows, and only they, have one number; by first occurrence."""
    rows = np.ascontiguousarray(vectors.cpu().numpy())
    packed = rows.view(f"V{rows.shape[1] * rows.itemsize}").reshape(-1)
    _, first, group = np.unique(packed, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[group.reshape(-1)].astype(np.int64)


def labels_of(train: QuerySet, validation: QuerySet, config: FitConfig) -> Labels:
    """Decide who judges whom.

    With ``config.refit`` training and validation queries go into k folds together, and all of them
    train the final adapter. Without it, and where queries align the spaces, the training queries
    train and the validation queries judge.

    Only queries with a positive document take part.
    """
    return labels_within(merged(train, validation), len(train.ids), config)


def labels_within(
    queries: QuerySet, n_train: int, config: FitConfig, use: IntArray | None = None
) -> Labels:
    """The same for queries that are merged already; fits at several label ratios share them.

    Args:
        queries: training queries, then validation queries.
        n_train: how many of them are for training.
        config: folds, seed, and whether validation queries train in the end.
        use: training rows that may be used; None for all.
    """
    usable = np.unique(queries.qrels.query_rows[queries.qrels.relevance >= 1])
    if use is not None:
        usable = usable[(usable >= n_train) | np.isin(usable, use)]
    # Queries that align the spaces cannot judge: their place in the small space is known already.
    if not config.refit or config.align_texts != "documents":
        fold = Fold(usable[usable < n_train], usable[usable >= n_train])
        return Labels(queries, (fold,), fold.train, fold.judge)
    groups = same_vectors(next(iter(queries.views.values())))[usable]
    distinct, groups = np.unique(groups, return_inverse=True)
    k = config.few_folds if len(usable) >= config.many_labels else config.folds
    k = max(2, min(k, len(distinct)))
    place = np.random.default_rng(config.seed).permutation(len(distinct)) % k
    folds = tuple(
        Fold(usable[place[groups] != number], usable[place[groups] == number])
        for number in range(k)
    )
    return Labels(queries, tuple(f for f in folds if len(f.train) and len(f.judge)), usable, usable)
