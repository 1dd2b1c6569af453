"""Which labelled queries train and which judge: k folds, or one fixed validation part.

In: training and validation queries. Out: both together, and for each fold the rows that train and
the rows that judge. Equal queries are never parted, so that none judges what it has trained. Where
an adapter is to serve collections without labels, whole collections judge or train.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.fitting.config import FitConfig
from era_cache.fitting.tensors import QuerySet
from era_cache.rank.lists import stacked
from era_cache.types import IntArray, Qrels

if TYPE_CHECKING:
    import torch

__all__ = [
    "Fold",
    "Labelled",
    "Labels",
    "labels_together",
    "merged",
    "same_vectors",
]

_SAME_COSINE = 1 - 1e-5
_BLOCK_ELEMENTS = 1 << 24


class Fold(NamedTuple):
    """Row numbers of ``Labels.queries``, rising."""

    train: IntArray
    judge: IntArray


class Labelled(NamedTuple):
    """A collection's training queries, which are the first ``n_train``, and its validation queries.

    ``use`` are the training rows that may be used; None for all.
    """

    queries: QuerySet
    n_train: int
    use: IntArray | None = None


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
    texts = None
    if first.texts is not None and second.texts is not None:
        texts = np.concatenate([first.texts, second.texts])
    shifted = second.qrels._replace(query_rows=second.qrels.query_rows + len(first.ids))
    columns = zip(first.qrels, shifted, strict=True)
    return QuerySet(
        ids=[*first.ids, *second.ids],
        views={name: torch.cat([first.views[name], second.views[name]]) for name in first.views},
        qrels=Qrels(*(np.concatenate(pair) for pair in columns)),
        exclude=exclude,
        texts=texts,
        first=stacked([first.first, second.first]),
    )


def same_vectors(vectors: torch.Tensor) -> IntArray:
    """Number unit rows such that rows of (nearly) one direction have one number.

    The same text encoded in another batch differs in the last digits, so that rows count as equal
    from a cosine of 0.99999 on.

    Args:
        vectors: (n, d) unit rows.

    Returns:
        (n,) int64, numbers by first occurrence.
    """
    import torch

    first = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    step = max(1, _BLOCK_ELEMENTS // max(1, len(vectors)))
    for begin in range(0, len(vectors), step):
        like = vectors[begin : begin + step] @ vectors.T > _SAME_COSINE
        rows = torch.arange(begin, begin + len(like), device=vectors.device)
        like[rows - begin, rows] = True
        first[rows] = like.byte().argmax(dim=1)
    found: list[int] = first.tolist()
    for row, earlier in enumerate(found):  # a chain of likenesses is one group
        found[row] = found[earlier]
    return np.unique(np.array(found, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def labels_together(
    sets: Sequence[Labelled], config: FitConfig, *, elsewhere: bool = False
) -> list[Labels]:
    """Decide who judges whom, over all collections at once.

    With ``config.refit`` training and validation queries go into k folds together, and all of them
    train the final adapter; equal queries are in the same fold whatever their collections. Without
    it, and where queries align the spaces, the training queries train and the validation queries
    judge. Only queries with a positive document take part.

    Args:
        sets: the queries of each collection.
        config: folds, seed, and whether validation queries train in the end.
        elsewhere: whether the adapter is for other collections than these. Then all queries of a
            collection are in the same fold, so that it is judged by models that saw none of its
            labels; of one collection alone nothing can be told of others.
    """
    usable = []
    for queries, n_train, use in sets:
        rows = np.unique(queries.qrels.query_rows[queries.qrels.relevance >= 1])
        if use is not None:
            rows = rows[(rows >= n_train) | np.isin(rows, use)]
        usable.append(rows)
    # Queries that align the spaces cannot judge: their place in the small space is known already.
    parted = not config.refit or config.align_texts != "documents"
    if elsewhere and sum(len(rows) > 0 for rows in usable) > 1:
        return _by_collection(sets, usable, config, parted=parted)
    if parted:
        fixed = []
        for (queries, n_train, _), rows in zip(sets, usable, strict=True):
            fold = Fold(rows[rows < n_train], rows[rows >= n_train])
            fixed.append(Labels(queries, (fold,), fold.train, fold.judge))
        return fixed
    groups = _groups([queries for queries, _, _ in sets], usable)
    joined = np.concatenate(groups)
    distinct, joined = np.unique(joined, return_inverse=True)
    k = max(2, min(_folds(len(joined), config), len(distinct)))
    place = (np.random.default_rng(config.seed).permutation(len(distinct)) % k)[joined]
    found = []
    for (queries, _, _), rows, mine in zip(
        sets, usable, np.split(place, np.cumsum([len(g) for g in groups])[:-1]), strict=True
    ):
        folds = [Fold(rows[mine != number], rows[mine == number]) for number in range(k)]
        found.append(Labels(queries, tuple(folds), rows, rows))
    if len(distinct) < 2:  # one query cannot both train and judge
        return [labels._replace(folds=()) for labels in found]
    return found


def _folds(labels: int, config: FitConfig) -> int:
    return config.few_folds if labels >= config.many_labels else config.folds


def _by_collection(
    sets: Sequence[Labelled],
    usable: Sequence[IntArray],
    config: FitConfig,
    *,
    parted: bool,
) -> list[Labels]:
    """Folds of whole collections; ``parted`` where training queries never judge."""
    groups = _groups([queries for queries, _, _ in sets], usable)
    labelled = [number for number, rows in enumerate(usable) if len(rows)]
    k = min(max(2, _folds(sum(map(len, usable)), config)), len(labelled))
    drawn = np.random.default_rng(config.seed).permutation(len(labelled)) % k
    place = dict(zip(labelled, drawn.tolist(), strict=True))
    nobody = np.zeros(0, dtype=np.int64)
    found = []
    for number, ((queries, n_train, _), rows) in enumerate(zip(sets, usable, strict=True)):
        train = rows[rows < n_train] if parted else rows
        judges = rows[rows >= n_train] if parted else rows
        folds = []
        for fold in range(k if len(rows) else 0):
            if place[number] == fold:
                folds.append(Fold(nobody, judges))
                continue
            # Their own queries, asked of another collection, would know the judges.
            theirs = [groups[other] for other in labelled if place[other] == fold]
            seen = np.isin(groups[number], np.concatenate(theirs))
            folds.append(Fold(np.setdiff1d(train, rows[seen]), nobody))
        found.append(Labels(queries, tuple(folds), train, judges))
    return found


def _groups(sets: Sequence[QuerySet], usable: Sequence[IntArray]) -> list[IntArray]:
    """Numbers that tell equal queries, over all collections: by text, else by vector."""
    import torch

    if all(queries.texts is not None for queries in sets):
        texts = [queries.texts for queries in sets if queries.texts is not None]
        everything = np.concatenate([t[rows] for t, rows in zip(texts, usable, strict=True)])
        _, first, group = np.unique(everything, return_index=True, return_inverse=True)
        numbers = np.argsort(np.argsort(first))[group.reshape(-1)].astype(np.int64)
    else:
        view = next(iter(sets[0].views))
        vectors = [queries.views[view][rows] for queries, rows in zip(sets, usable, strict=True)]
        numbers = same_vectors(torch.cat(vectors))
    return np.split(numbers, np.cumsum([len(rows) for rows in usable])[:-1])
