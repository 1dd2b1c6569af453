"""Negatives and pools against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from planted import normal, qrels_of

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.mining import STRATEGIES, Mining, mine_triples, pool_rows
from era_cache.rank.search import search
from era_cache.types import Qrels


def _mined(
    cosines: list[float],
    positive: int,
    strategy: str = "topk_percpos",
    negatives: int = 1,
    top: int = 2000,
    exclude: int = -1,
) -> set[tuple[int, ...]]:
    """What is mined under many seeds for a query to which document i has cosine ``cosines[i]``."""
    across = [(1 - c * c) ** 0.5 for c in cosines]
    query, corpus = (
        torch.tensor([[1.0, 0.0]]),
        torch.tensor(list(zip(cosines, across, strict=True))),
    )
    qrels, mining = qrels_of((0, positive, 1)), Mining(strategy, negatives, top)
    drawn = [
        mine_triples(query, qrels, corpus, mining, exclude=torch.tensor([exclude]), seed=seed)
        for seed in range(60)
    ]
    return {tuple(triples.negative_rows[0].tolist()) for triples in drawn}


# The published strategy by hand


def test_the_hardest_negative_is_always_taken_and_the_others_from_twice_as_many() -> None:
    # The pool is the best 2 x 2 documents below the positive: 1, 2, 3, 4.
    cosines = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert _mined(cosines, 0, negatives=2) == {(1, 2), (1, 3), (1, 4)}


def test_any_positive_may_be_drawn() -> None:
    corpus, qrels = unit(normal(8, 3)), qrels_of((0, 2, 1), (0, 5, 2))
    drawn = [
        mine_triples(corpus[:1], qrels, corpus, Mining(), exclude=None, seed=seed)
        for seed in range(40)
    ]
    assert {int(triples.positive_rows[0]) for triples in drawn} == {2, 5}


def test_only_the_teachers_best_are_mined() -> None:
    cosines = [0.9, 0.85, 0.84, 0.83, 0.2, 0.1]
    # Of the best two, 0 is the positive and 1 qualifies (limit 0.855).
    assert _mined(cosines, 0, top=2) == {(1,)}
    # Of the best one, none is left: at random from the rest.
    assert _mined(cosines, 0, top=1) == {(doc,) for doc in range(1, 6)}


# All strategies


def _case(seed: int) -> tuple[torch.Tensor, Qrels, torch.Tensor, torch.Tensor]:
    """Four queries, twenty documents, random judgements of all grades, excluded documents."""
    rng = np.random.default_rng(seed)
    rows = [
        (query, doc, rng.integers(-1, 3))
        for query in range(4)
        for doc in rng.choice(20, rng.integers(1, 5), replace=False)
    ]
    exclude = torch.from_numpy(rng.integers(-1, 20, 4))
    teacher, corpus = unit(normal(4, 5, seed=seed)), unit(normal(20, 5, seed=seed + 1))
    return teacher, qrels_of(*rows), corpus, exclude


@given(
    seed=st.integers(0, 5000),
    strategy=st.sampled_from(STRATEGIES),
    negatives=st.integers(1, 6),
    top=st.integers(1, 25),
)
def test_negatives_are_those_of_a_plain_loop(seed, strategy, negatives, top) -> None:
    teacher, qrels, corpus, exclude = _case(seed)
    relevant = {int(q) for q, _, g in zip(*qrels, strict=True) if g >= 1}
    assume(relevant)
    mining = Mining(strategy, negatives, top)
    triples = mine_triples(teacher, qrels, corpus, mining, exclude=exclude, seed=seed)
    assert triples.query_rows.tolist() == sorted(relevant)
    for query, positive, mined in zip(*(column.tolist() for column in triples), strict=True):
        grades = {d: g for q, d, g in zip(*(c.tolist() for c in qrels), strict=True) if q == query}
        assert grades[positive] >= 1
        assert len(set(mined)) == negatives
        # No judged document, whatever its grade, and not the one that the query must not find.
        assert not set(mined) & {*grades, int(exclude[query])}
        if strategy == "random":
            continue
        scores = (corpus @ teacher[query]).tolist()
        ranked = sorted(set(range(20)) - {int(exclude[query])}, key=lambda d: -scores[d])[:top]
        limit = scores[positive] * (0.95 if scores[positive] > 0 else 1)
        if strategy == "naive_topk":
            hard = [d for d in ranked if d not in grades][:negatives]
            assert mined[: len(hard)] == hard
        else:
            hard = [d for d in ranked if d not in grades and scores[d] < limit][: 2 * negatives]
            assert mined[:1] == hard[:1] or not hard
            assert len(set(mined) & set(hard)) >= min(negatives, len(hard))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_mining_depends_on_its_seed_only(strategy) -> None:
    teacher, qrels, corpus, exclude = _case(0)

    def mined(seed: int) -> list[list[int]]:
        mining = Mining(strategy, 3)
        triples = mine_triples(teacher, qrels, corpus, mining, exclude=exclude, seed=seed)
        return triples.negative_rows.tolist()

    assert mined(1) == mined(1)
    different = len({str(mined(seed)) for seed in range(5)})
    assert different > 1 or strategy == "naive_topk"


def test_random_negatives_are_drawn_from_all_the_others() -> None:
    found = _mined([0.9, 0.8, 0.7, 0.6, 0.5], 1, "random", exclude=3)
    assert found == {(0,), (2,), (4,)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_corpus_without_enough_negatives_is_refused(strategy) -> None:
    with pytest.raises(FitError, match="corpus is too small"):
        _mined([0.9, 0.8], 0, strategy, negatives=2)


def test_a_query_without_enough_negatives_is_left_out_and_the_others_stay() -> None:
    corpus = unit(normal(4, 3))
    qrels = qrels_of((0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 3, 1))
    triples = mine_triples(corpus[:2], qrels, corpus, Mining("random", 2), exclude=None, seed=0)
    assert triples.query_rows.tolist() == [1]


def test_an_unknown_strategy_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="'best'; expected one of random, naive_topk"):
        _mined([0.9, 0.8, 0.7], 0, "best")


# Pools


def _pool(most: int, per_query: int, seed: int = 0) -> tuple[list[int], list[list[int]]]:
    """A pool for four queries on documents 0 to 59, and each query's ranking."""
    mapped, corpus = unit(normal(4, 6, seed=3)), unit(normal(60, 6, seed=4))
    qrels = qrels_of((0, 50, 1), (1, 51, 0), (2, 52, -1), (0, 53, 2))
    mined = search(mapped, corpus, per_query).doc_rows
    rows = pool_rows(mined, qrels, len(corpus), most=most, seed=seed)
    ranking = (mapped @ corpus.T).argsort(dim=1, descending=True).tolist()
    assert rows.dtype == np.int64
    return rows.tolist(), ranking


JUDGED = {50, 51, 52, 53}


def test_a_pool_holds_all_judged_documents_and_the_best_of_each_query() -> None:
    rows, ranking = _pool(36, 5)
    assert len(rows) == 36 + len(JUDGED)
    assert rows == sorted(set(rows))
    assert JUDGED | {doc for best in ranking for doc in best[:5]} <= set(rows)


def test_the_rest_of_a_pool_is_random() -> None:
    one, two, again = _pool(36, 5)[0], _pool(36, 5, seed=1)[0], _pool(36, 5)[0]
    assert one == again
    assert one != two


def test_a_pool_of_nothing_else_holds_the_judged_documents() -> None:
    assert set(_pool(0, 5)[0]) == JUDGED


@pytest.mark.parametrize("most", [4, 8])
def test_where_mined_documents_do_not_all_fit_each_query_keeps_its_hardest(most) -> None:
    rows, ranking = _pool(most, 30)
    assert len(rows) == most + len(JUDGED)
    assert {best[0] for best in ranking} <= set(rows)


def test_a_pool_larger_than_the_corpus_is_the_corpus() -> None:
    assert _pool(100, 200)[0] == list(range(60))
