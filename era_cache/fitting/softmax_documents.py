"""The training side of a collection: the documents of the softmax, and which are none for whom.

In: a collection with its labels. Out: the ``Task`` that a stack trains on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from era_cache.fitting.config import FitConfig
from era_cache.fitting.judging_pool import JudgingPool
from era_cache.fitting.losses import pull_of
from era_cache.fitting.mining import STRATEGIES, Mining, mine_triples, pool_rows
from era_cache.fitting.stack import Task
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.corpus import whole
from era_cache.rank.search import search
from era_cache.types import IntArray, Qrels

if TYPE_CHECKING:
    import torch

__all__ = ["barred_documents", "task_of"]

_SHARE, _MOST = 0.075, 20_000
"""Of a larger corpus a pool has this share, up to so many documents: more of them are hard."""
_SPARE = 4
"""Documents that each query is asked for, for each that it would have to give."""


def task_of(
    data: FitData,
    queries: QuerySet,
    inputs: torch.Tensor,
    mapped: torch.Tensor,
    config: FitConfig,
    known: IntArray | None = None,
    pool: JudgingPool | None = None,
) -> Task:
    """The training side of a collection: the softmax's documents, and which are none for whom.

    Args:
        data: the collection.
        queries: its labelled queries.
        inputs: (n, d_in) their joined views.
        mapped: (n, d_out) unit rows, where they lie now; negatives are mined there.
        config: pools, negatives, duplicates.
        known: query rows whose labels may be looked at; None for all.
        pool: knows documents of these queries; None searches all.
    """
    import torch

    qrels, exclude, corpus = queries.qrels, queries.exclude, data.corpus
    if known is not None:
        qrels = Qrels(*(column[np.isin(qrels.query_rows, known)] for column in qrels))
    asked = np.arange(len(mapped)) if known is None else known
    judged = len(np.unique(qrels.doc_rows))
    # Strategies choose among documents that are not all to be hard.
    share = _MOST if config.negatives in STRATEGIES else min(_MOST, int(_SHARE * len(corpus)))
    hardest = max(config.pool_documents, len(asked), share)
    if judged + hardest < len(corpus):
        theirs = mapped[torch.from_numpy(asked).to(mapped.device)]
        # Queries find the same documents, so that each is asked for more than its share.
        depth = min(config.mined_per_query, _SPARE * (-(-hardest // max(1, len(asked)))))
        if pool is None:
            found = search(theirs, corpus, min(depth, len(corpus)))
        else:
            pool.look(theirs, asked)
            found = pool.best(theirs, asked, depth)
        rows = pool_rows(found.doc_rows, qrels, len(corpus), most=hardest, seed=config.seed)
        place = np.full(len(corpus), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        qrels = Qrels(qrels.query_rows, place[qrels.doc_rows], qrels.relevance)
        if exclude is not None:
            table = torch.from_numpy(place).to(corpus.device)
            exclude = torch.where(exclude >= 0, table[exclude.clamp(min=0)], exclude)
        corpus = corpus[torch.from_numpy(rows).to(corpus.device)]
    corpus = whole(corpus)
    pull = pull_of(qrels, len(queries.ids), corpus)
    return Task(inputs, corpus, pull, barred_documents(mapped, qrels, exclude, corpus, config))


def barred_documents(
    mapped: torch.Tensor,
    qrels: Qrels,
    exclude: torch.Tensor | None,
    corpus: torch.Tensor,
    config: FitConfig,
) -> torch.Tensor | None:
    """Documents that are no candidates of a query, (n, N) bool, or None where all of them are."""
    import torch

    device = corpus.device
    positive = qrels.relevance >= 1
    query_rows = torch.from_numpy(qrels.query_rows[positive]).to(device)
    doc_rows = torch.from_numpy(qrels.doc_rows[positive]).to(device)
    barred = torch.zeros(len(mapped), len(corpus), dtype=torch.bool, device=device)
    if config.negatives == "in-batch":
        barred[:] = True
        barred[:, doc_rows.unique()] = False
    elif config.negatives != "corpus":
        count = max(1, min(config.negatives_per_query, len(corpus) // 2))
        mining = Mining(config.negatives, count)
        triples = mine_triples(mapped, qrels, corpus, mining, exclude=exclude, seed=config.seed)
        barred[:] = True
        rows = torch.from_numpy(triples.query_rows).to(device)
        barred[rows[:, None], torch.from_numpy(triples.negative_rows).to(device)] = False
    # Who judged a document not relevant has named a negative; no strategy leaves it out.
    named = [torch.from_numpy(column[~positive]).to(device) for column in qrels[:2]]
    barred[named[0], named[1]] = False
    if config.duplicates <= 1:
        _bar_duplicates(barred, query_rows, doc_rows, corpus, config.duplicates)
    if exclude is not None:
        own = (exclude >= 0).nonzero().squeeze(1)
        barred[own, exclude[own]] = True
    barred[query_rows, doc_rows] = False
    return barred if bool(barred.any()) else None


def _bar_duplicates(
    barred: torch.Tensor,
    query_rows: torch.Tensor,
    doc_rows: torch.Tensor,
    corpus: torch.Tensor,
    similarity: float,
) -> None:
    """Bar documents that say the same as a positive: they would be pushed away as negatives."""
    import torch

    order = doc_rows.argsort(stable=True)
    distinct, counts = doc_rows[order].unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    for begin in range(0, len(distinct), step := max(1, (1 << 24) // len(corpus))):
        block = distinct[begin : begin + step]
        twin, other = (corpus[block] @ corpus.T >= similarity).nonzero(as_tuple=True)
        apart = block[twin] != other
        twin, other = twin[apart] + begin, other[apart]
        # Each pair of documents counts for every query that has the first as a positive.
        times = counts[twin]
        pair = torch.repeat_interleave(torch.arange(len(twin), device=twin.device), times)
        within = torch.arange(len(pair), device=twin.device) - (times.cumsum(0) - times)[pair]
        place = (ends[twin] - times)[pair] + within
        barred[query_rows[order[place]], other[pair]] = True
