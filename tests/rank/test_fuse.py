"""Fusion against a comparison of every document, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from era_cache.rank import fuse
from era_cache.rank.fuse import fused_rankings
from era_cache.rank.lists import FirstStage, spreads, stacked
from era_cache.rank.search import search


def unit(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()


def lists(
    rng: np.random.Generator, n_queries: int, n_docs: int, depth: int, floors: int = 0
) -> FirstStage:
    """Lists of different lengths, some empty, with equal scores among them.

    Documents that no list holds score ``floors`` or one more: above those of lists from 1 on.
    """
    docs = np.full((n_queries, depth), -1, dtype=np.int64)
    scores = np.zeros((n_queries, depth), dtype=np.float32)
    for row in range(n_queries):
        length = rng.integers(0, depth + 1) if row else 0
        docs[row, :length] = rng.permutation(n_docs)[:length]
        scores[row, :length] = -np.sort(-rng.integers(1, 6, length))
    floor = rng.integers(floors, floors + 2, n_queries).astype(np.float32)
    return FirstStage("bm25", *map(torch.from_numpy, (docs, scores, floor)))


def compared(
    cosines: np.ndarray,
    first: FirstStage,
    weight: float,
    ties: np.ndarray,
    exclude: np.ndarray | None,
) -> list[list[int]]:
    """Every document of every query, in order."""
    found = []
    for row, cosine in enumerate(cosines):
        other = np.full(len(cosine), float(first.floor[row]), dtype=np.float32)
        there = first.docs[row] >= 0
        other[first.docs[row][there].numpy()] = first.scores[row][there].numpy()
        total = cosine + np.float32(weight) * other
        order = np.lexsort((ties, -total)).tolist()
        found.append([d for d in order if exclude is None or d != exclude[row]])
    return found


@pytest.mark.parametrize("floors", [0, 2])
@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 7, 40])
@pytest.mark.parametrize("piece", [1, 3, 10, 64])
def test_fusion_equals_comparing_every_document(
    monkeypatch, piece: int, depth: int, excluding: bool, floors: int
) -> None:
    monkeypatch.setattr(fuse, "_FIRST_PIECE", piece)
    monkeypatch.setattr(fuse, "_BLOCK_BYTES", 4 * 40 * 5)
    rng = np.random.default_rng(depth)
    # Cosines of few values: ties inside the list, outside, and between the two.
    corpus = unit(np.eye(4)[rng.integers(0, 4, 40)])
    queries = unit(rng.integers(1, 3, (23, 4)).astype(float))
    first = lists(rng, 23, 40, depth, floors)
    ties = rng.permutation(40)
    own = rng.integers(-1, 40, 23) if excluding else None
    weights = [0.0, 0.5, 0.0, 0.03, 1e6]
    for k in (1, 10, 45):
        found = fused_rankings(
            queries,
            corpus,
            first,
            weights,
            k,
            exclude=None if own is None else torch.from_numpy(own),
            tie_ranks=torch.from_numpy(ties),
        )
        alone = [
            fused_rankings(
                queries,
                corpus,
                first,
                [weight],
                k,
                exclude=None if own is None else torch.from_numpy(own),
                tie_ranks=torch.from_numpy(ties),
            )[0]
            for weight in weights
        ]
        cosines = (queries @ corpus.T).numpy()
        for weight, ranking in zip(weights * 2, [*found, *alone], strict=True):
            expected = compared(cosines, first, weight, ties, own)
            for row, wanted in enumerate(expected):
                got = ranking.doc_rows[row]
                assert got[got >= 0].tolist() == wanted[:k]
                assert (ranking.scores[row][got < 0] == -np.inf).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("falling", [True, False])
def test_long_lists_are_compared_as_a_whole(seed: int, falling: bool) -> None:
    """Of a thousand documents a few may lead at some weight; which they are must not be missed."""
    rng = np.random.default_rng(seed)
    n, q = 1200, 40
    corpus, queries = unit(rng.normal(size=(n, 16))), unit(rng.normal(size=(q, 16)))
    docs = np.stack([rng.permutation(n)[:1000] for _ in range(q)])
    scores = rng.gamma(2, 3, (q, 1000)).astype(np.float32)
    scores = -np.sort(-scores, axis=1) if falling else scores
    first = FirstStage("bm25", torch.from_numpy(docs), torch.from_numpy(scores), torch.zeros(q))
    cosines = (queries @ corpus.T).numpy()
    ties = np.arange(n)
    weights = [0.0, 0.01, 0.05, 0.3]
    for k in (1, 10, 64, 65):
        found = fused_rankings(queries, corpus, first, weights, k)
        for weight, ranking in zip(weights, found, strict=True):
            wanted = [row[:k] for row in compared(cosines, first, weight, ties, None)]
            assert ranking.doc_rows.tolist() == wanted
    kept = fuse._leading(torch.from_numpy(np.take_along_axis(cosines, docs, 1)), first, 10, 0.3)
    assert kept[0].shape[1] < 300 if falling else kept[0].shape[1] == 1000


def test_by_hand() -> None:
    corpus = torch.eye(3)
    queries = torch.tensor([[0.8, 0.6, 0.0]])
    first = FirstStage("bm25", torch.tensor([[2, 1]]), torch.tensor([[9.0, 3.0]]), torch.zeros(1))
    (ranking,) = fused_rankings(queries, corpus, first, [0.1], 3)
    # 0.8 + 0, 0.6 + 0.3, 0 + 0.9: of the two equal ones the first row comes first.
    assert ranking.doc_rows.tolist() == [[1, 2, 0]]
    assert ranking.scores[0] == pytest.approx([0.9, 0.9, 0.8])


def test_weight_zero_is_the_dense_ranking() -> None:
    rng = np.random.default_rng(3)
    corpus, queries = unit(rng.normal(size=(200, 16))), unit(rng.normal(size=(30, 16)))
    (fused,) = fused_rankings(queries, corpus, lists(rng, 30, 200, 50), [0.0], 20)
    assert (fused.doc_rows == search(queries, corpus, 20).doc_rows).all()


def test_lists_as_a_ranking_break_ties_as_everywhere() -> None:
    first = FirstStage(
        "bm25",
        torch.tensor([[0, 2, 1], [3, -1, -1]]),
        torch.tensor([[2.0, 2.0, 1.0], [1.0, 0.0, 0.0]]),
        torch.zeros(2),
    )
    ranking = first.ranking(3, torch.tensor([3, 2, 1, 0]), torch.tensor([1, -1]))
    assert ranking.doc_rows.tolist() == [[2, 0, -1], [3, -1, -1]]


def test_lists_that_do_not_fit_are_refused() -> None:
    corpus = torch.eye(3)
    first = FirstStage("bm25", torch.tensor([[3]]), torch.ones(1, 1), torch.zeros(1))
    with pytest.raises(ValueError, match="beyond the corpus"):
        fused_rankings(corpus[:1], corpus, first, [1.0], 1)
    with pytest.raises(ValueError, match="1 lists for 2 queries"):
        fused_rankings(corpus[:2], corpus, first, [1.0], 1)


def test_lists_of_several_sets_are_one() -> None:
    rng = np.random.default_rng(0)
    one, other = lists(rng, 3, 9, 2), lists(rng, 2, 9, 5)
    both = stacked([one, other])
    assert both is not None
    assert both.docs.shape == (5, 5)
    assert (both.docs[:3, 2:] == -1).all()
    again = both.select(np.array([3, 4]))
    assert torch.equal(again.docs, other.docs)
    assert torch.equal(again.scores, other.scores)
    assert stacked([one, None]) is None


def test_spread_counts_what_is_there() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [5.0, 0.0, 0.0]])
    there = torch.tensor([[True, True, False], [True, False, False]])
    assert spreads(scores, there).tolist() == [1.0, 0.0]
