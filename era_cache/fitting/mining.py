"""Hard negatives for queries: which documents stand in for the corpus.

In: queries, the corpus, a teacher's vectors of the queries. Out: row numbers. The strategies are
those of arXiv 2604.03403 and its code, mended where a negative score turned a rule round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.errors import FitError, InputError
from era_cache.rank.search import search
from era_cache.types import IntArray, Qrels

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["NEGATIVES", "STRATEGIES", "Mining", "Triples", "mine_triples", "pool_rows"]

STRATEGIES = ("random", "naive_topk", "topk_percpos")
NEGATIVES = ("corpus", "in-batch", *STRATEGIES)
"""What the softmax may run over: all documents, positives of any query, or what is mined."""


class Mining(NamedTuple):
    """How negatives are chosen: a strategy, how many, how deep, and the share of percpos."""

    strategy: str = "topk_percpos"
    negatives: int = 5
    top: int = 2000
    positive_share: float = 0.95


class Triples(NamedTuple):
    """One positive and some negatives for each usable query: row numbers, int64."""

    query_rows: IntArray
    positive_rows: IntArray
    negative_rows: IntArray
    """(m, negatives)."""


def mine_triples(
    teacher: torch.Tensor,
    qrels: Qrels,
    corpus: Corpus,
    mining: Mining,
    *,
    exclude: torch.Tensor | None,
    seed: int,
) -> Triples:
    """Draw one positive and choose negatives for each query.

    ``random`` draws from all documents without a judgement for the query. ``naive_topk`` takes the
    teacher's best of them. ``topk_percpos`` takes of the teacher's best ``top`` those that score
    below ``positive_share`` times the positive's score; the first 2 x ``negatives`` of them are the
    pool; the hardest is always taken, the others at random from the pool, and any that are missing
    at random from all. A negative positive score would turn the rule round; then every document
    below the positive qualifies.

    Args:
        teacher: (n, d) the queries as the teacher sees them, unit rows.
        qrels: judgements of the n queries; those that are judged at all are no negatives.
        corpus: (N, d) unit rows.
        mining: the strategy.
        exclude: (n,) document that a query must not find, -1 for none; None for no rule.
        seed: of the draws.

    Raises:
        InputError: there is no such strategy.
        FitError: no query has both a positive and enough negatives.
    """
    if mining.strategy not in STRATEGIES:
        raise InputError(
            f"Negative strategy '{mining.strategy}'; expected one of {', '.join(STRATEGIES)}."
        )
    rng = np.random.default_rng(seed)
    n_docs = len(corpus)
    ranking = None
    if mining.strategy != "random":
        ranking = search(teacher, corpus, min(mining.top, n_docs), exclude=exclude)
    own = None if exclude is None else exclude.cpu().numpy()
    judged: list[set[int]] = [set() for _ in range(len(teacher))]
    relevant: list[set[int]] = [set() for _ in range(len(teacher))]
    for query, doc, grade in zip(*(column.tolist() for column in qrels), strict=True):
        judged[query].add(doc)
        if grade >= 1:
            relevant[query].add(doc)
    rows: list[tuple[int, int, list[int]]] = []
    for query, docs in enumerate(relevant):
        if not docs:
            continue
        chosen = int(rng.choice(sorted(docs)))
        barred = judged[query] | (
            {int(own[query])} if own is not None and own[query] >= 0 else set()
        )
        hard: list[int] = []
        if ranking is not None:
            found, scores = ranking.doc_rows[query], ranking.scores[query]
            if mining.strategy == "topk_percpos":
                score = float(teacher[query] @ corpus[chosen])
                limit = score * mining.positive_share if score > 0 else score
                found = found[scores < limit]
            most = 2 * mining.negatives if mining.strategy == "topk_percpos" else mining.negatives
            hard = [d for d in found.tolist() if d >= 0 and d not in barred][:most]
        negatives = _draw(hard, barred, n_docs, mining, rng)
        if negatives:
            rows.append((query, chosen, negatives))
    if not rows:
        raise FitError("No negatives can be mined: the corpus is too small.")
    return Triples(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


def _draw(
    hard: list[int], barred: set[int], n_docs: int, mining: Mining, rng: np.random.Generator
) -> list[int]:
    count = mining.negatives
    taken, others = hard[:1], hard[1:]
    if mining.strategy == "naive_topk":
        taken, others = hard[:count], []
    if others:
        take = min(count - 1, len(others))
        taken += [others[i] for i in rng.choice(len(others), take, replace=False)]
    if len(taken) < count:
        rest = np.setdiff1d(np.arange(n_docs), np.array(taken + sorted(barred), dtype=np.int64))
        if len(rest) < count - len(taken):
            return []
        taken += rng.choice(rest, count - len(taken), replace=False).tolist()
    return taken


def pool_rows(
    mined: IntArray,
    qrels: Qrels,
    n_docs: int,
    *,
    most: int,
    seed: int,
) -> IntArray:
    """Choose documents that stand in for a corpus too large for the softmax.

    All judged documents, and beside them the best-scoring of each query by rank, so that where the
    pool is small every query keeps its hardest, then others at random.

    Args:
        mined: (n, m) documents of each query, the hardest first, -1 for none.
        qrels: their judgements.
        n_docs: documents of the corpus.
        most: documents beside the judged ones.
        seed: of the random rest.

    Returns:
        Row numbers, rising, int64.
    """
    judged = np.unique(qrels.doc_rows)
    by_rank = mined.T.reshape(-1)
    spare = np.random.default_rng(seed).permutation(n_docs)[: most + len(judged)]
    joined = np.concatenate([judged, by_rank[by_rank >= 0], spare])
    _, first = np.unique(joined, return_index=True)
    return np.sort(joined[np.sort(first)][: most + len(judged)])
