"""Approximate indexes: what they find, in which order, and what they say of themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import normal

from era_cache.errors import InputError
from era_cache.evaluate.approximate_recall import recall_against_exact
from era_cache.fitting.adapter import unit
from era_cache.rank.approximate import KINDS, ApproximateIndex
from era_cache.rank.search import search


def clustered(n: int, dim: int = 24, seed: int = 0) -> torch.Tensor:
    centres = normal(40, dim, seed=seed)
    return unit(centres[torch.arange(n) % 40] + 0.6 * normal(n, dim, seed=seed + 1))


@pytest.fixture(scope="module")
def corpus() -> torch.Tensor:
    return clustered(4000)


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_exact_top_ten_is_found_and_that_is_what_is_stated(kind, corpus) -> None:
    queries = clustered(150, seed=7)
    index = ApproximateIndex(corpus, kind)
    found, exact = index.search(queries, 10), search(queries, corpus, 10)
    shares = [
        len(set(mine) & set(theirs)) / 10
        for mine, theirs in zip(found.doc_rows.tolist(), exact.doc_rows.tolist(), strict=True)
    ]
    assert np.mean(shares) > 0.7
    stated = recall_against_exact(index, queries, corpus, depths=(10,))
    assert stated[10].mean == pytest.approx(np.mean(shares))
    deeper = recall_against_exact(index, queries, corpus, asked=1000)
    assert stated[10].mean <= deeper[10].mean
    assert 0 <= deeper[100].low <= deeper[100].mean <= deeper[100].high <= 1
    # What is found has the scores that it has.
    for row, docs, scores in zip(queries, found.doc_rows, found.scores, strict=True):
        np.testing.assert_allclose(scores, (corpus[docs] @ row).numpy(), atol=1e-5)
        assert (np.diff(scores) <= 0).all()


def test_all_lists_read_is_an_exact_search(corpus) -> None:
    queries = clustered(20, seed=9)
    index = ApproximateIndex(corpus, "ivf")
    index._index.nprobe = index._index.nlist
    assert recall_against_exact(index, queries, corpus, depths=(10,))[10].mean == 1.0


def test_the_seed_decides_the_centres(corpus) -> None:
    queries = clustered(50, seed=5)
    one, same, other = (ApproximateIndex(corpus, "ivf", seed=s) for s in (1, 1, 2))
    first = one.search(queries, 50).doc_rows
    np.testing.assert_array_equal(first, same.search(queries, 50).doc_rows)
    assert (first != other.search(queries, 50).doc_rows).any()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_documents_stand_by_tie_rank_and_the_one_left_out_is_missing(kind) -> None:
    corpus = clustered(300)
    corpus[100:104] = corpus[7]
    ties = torch.from_numpy(np.random.default_rng(0).permutation(300))
    index = ApproximateIndex(corpus, kind)
    query = corpus[7:8]
    ranking = index.search(query, 5, exclude=torch.tensor([101]), tie_ranks=ties)
    expected = sorted([7, 100, 102, 103], key=lambda row: int(ties[row]))
    assert ranking.doc_rows[0, :4].tolist() == expected
    assert 101 not in ranking.doc_rows[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_ranking_is_padded(kind) -> None:
    corpus = clustered(3)
    ranking = ApproximateIndex(corpus, kind).search(corpus[:2], 5, exclude=torch.tensor([0, -1]))
    assert ranking.doc_rows.shape == ranking.scores.shape == (2, 5)
    assert set(ranking.doc_rows[0].tolist()) <= {1, 2, -1}
    padding = ranking.doc_rows < 0
    assert padding[:, 3:].all()
    assert np.isneginf(ranking.scores[padding]).all()


def test_a_sample_of_the_queries_is_looked_at(corpus) -> None:
    queries = clustered(60, seed=3)
    index = ApproximateIndex(corpus, "ivf")
    one, same, other = (
        recall_against_exact(index, queries, corpus, depths=(100,), sample=10, seed=seed)
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


def test_an_unknown_kind_or_an_empty_corpus_is_refused(corpus) -> None:
    with pytest.raises(InputError, match="'tree' is unknown; known are exact, ivf, hnsw"):
        ApproximateIndex(corpus, "tree")
    with pytest.raises(InputError, match="at least one document"):
        ApproximateIndex(corpus[:0], "ivf")


@pytest.mark.parametrize("kind", KINDS)
def test_what_exact_search_refuses_is_refused_here_too(kind) -> None:
    corpus = clustered(50)
    index = ApproximateIndex(corpus, kind)
    wrong = corpus[:2].clone()
    wrong[1, 3] = float("nan")
    for arguments, options, message in [
        ((wrong, 3), {}, "queries must hold finite"),
        ((corpus[:2, :5], 3), {}, "5 dimensions, but the corpus has 24"),
        ((corpus[:2].double(), 3), {}, "float64"),
        ((corpus[:2], 0), {}, "k must be at least 1"),
        ((corpus[:2], 3), {"exclude": torch.tensor([0])}, "exclude must be int64"),
        ((corpus[:2], 3), {"exclude": torch.tensor([0, 50])}, "rows from 0 to 49"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.search(*arguments, **options)
    corpus[7, 0] = float("inf")
    with pytest.raises(ValueError, match="corpus must hold finite"):
        ApproximateIndex(corpus, kind)
    assert index.search(corpus[:0], 3).doc_rows.shape == (0, 3)
