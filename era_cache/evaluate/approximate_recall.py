"""What an approximate index misses, stated beside every figure that it gave.

In: an index over the corpus, and queries. Out: the share of the exact best that it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from era_cache.evaluate.statistics import Interval, bootstrap_interval
from era_cache.rank.search import search

if TYPE_CHECKING:
    import torch

    from era_cache.rank.approximate import ApproximateIndex
    from era_cache.rank.corpus import Corpus

__all__ = ["recall_against_exact"]


def recall_against_exact(
    index: ApproximateIndex,
    queries: torch.Tensor,
    corpus: Corpus,
    *,
    depths: Sequence[int] = (10, 100),
    asked: int = 0,
    sample: int = 200,
    seed: int = 0,
) -> dict[int, Interval]:
    """Say which share of the exact top k an index finds.

    Args:
        index: over ``corpus``.
        queries: (q, d) unit float32.
        corpus: (n, d) unit float32.
        depths: values of k; at most n documents exist.
        asked: documents that the index is asked for, where these are more: a graph then looks
            further.
        sample: queries that are looked at; drawn by ``seed`` where there are more.
        seed: also of the bootstrap.

    Returns:
        For each k the mean over queries and its 95 % interval.

    Raises:
        ValueError: there is no query.
    """
    import torch

    if len(queries) > sample:
        drawn = np.random.default_rng(seed).choice(len(queries), sample, replace=False)
        queries = queries[torch.from_numpy(np.sort(drawn)).to(queries.device)]
    deepest = min(max(depths), len(corpus))
    exact = search(queries, corpus, deepest).doc_rows
    found = index.search(queries, min(max(deepest, asked), len(corpus))).doc_rows
    shares = {}
    for depth in depths:
        k = min(depth, deepest)
        hits = [
            len(np.intersect1d(mine[:k], theirs[:k], assume_unique=False))
            for mine, theirs in zip(exact, found, strict=True)
        ]
        shares[depth] = bootstrap_interval(np.array(hits) / k, seed=seed)
    return shares
