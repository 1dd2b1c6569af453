"""A pool judges as a search of all documents would, and what ships is judged by that search."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import fit_data, normal

from era_cache.fitting.adapter import unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import PRIMARY, values_of
from era_cache.fitting.judging_pool import JudgingPool
from era_cache.fitting.recipes import fit_candidates, parts_of
from era_cache.fitting.tensors import FitData
from era_cache.rank.corpus import HalfRows
from era_cache.rank.search import search

N_DOCS = 3000
CONFIG = FitConfig(strengths=(2.0, 0.5), iterations=3, pool_documents=400, judge_exactly=N_DOCS)
POOLED = dataclasses.replace(CONFIG, judge_exactly=100)


@pytest.fixture(scope="module")
def data() -> FitData:
    return fit_data(n_docs=N_DOCS)


@pytest.fixture
def pool(data) -> JudgingPool:
    return JudgingPool(data, parts_of(data, CONFIG)[0].labels.queries, seed=0)


def test_where_a_query_was_looked_at_its_pool_has_what_a_search_finds(data, pool) -> None:
    queries = parts_of(data, CONFIG)[0].labels.queries
    rows = np.arange(3, len(queries.ids))
    mapped = queries.views["small"][rows]
    pool.look(mapped, rows)
    exact = search(mapped, data.corpus, 10, exclude=None, tie_ranks=data.tie_ranks)
    found = pool.best(mapped, rows, 10)
    same = (found.doc_rows == exact.doc_rows).mean()
    assert same > 0.97
    exactly = values_of(mapped, queries, rows, data)
    np.testing.assert_allclose(pool.values(mapped, rows, PRIMARY).mean(), exactly.mean(), atol=0.01)


def test_every_judged_document_is_in_the_pool_from_the_beginning(data, pool) -> None:
    queries = parts_of(data, CONFIG)[0].labels.queries
    rows = np.arange(len(queries.ids))
    found = pool.best(queries.views["small"], rows, 50).doc_rows
    for row in rows:
        judged = queries.qrels.doc_rows[queries.qrels.query_rows == row]
        assert set(found[row][found[row] >= 0]) == set(judged)


def test_looks_add_up_and_no_document_is_in_a_pool_twice(data, pool) -> None:
    rows = np.arange(4)
    dim = data.corpus.shape[1]
    for seed in range(3):
        pool.look(unit(normal(4, dim, seed=seed)), rows)
    found = pool.best(unit(normal(4, dim, seed=9)), rows, 1000).doc_rows
    for docs in found:
        there = docs[docs >= 0]
        assert len(there) == len(set(there)) > 150


def test_a_query_that_hardly_moved_is_not_looked_at_anew(data, pool, monkeypatch) -> None:
    rows, dim = np.arange(5), data.corpus.shape[1]
    searched = []
    search_index = pool._index.search
    monkeypatch.setattr(
        pool._index, "search", lambda q, k: searched.append(q) or search_index(q, k)
    )
    here, there = unit(normal(5, dim, seed=1)), unit(normal(5, dim, seed=2))
    pool.look(here, rows)
    pool.look(there, rows)
    pool.look(unit(here + 0.01 * there), rows)  # near the look before the last
    assert [len(some) for some in searched] == [5, 5]
    moved = here.clone()
    moved[[1, 4]] = unit(normal(2, dim, seed=3))
    pool.look(moved, rows)
    assert torch.equal(searched[-1], moved[[1, 4]])
    exact = search(moved[[1, 4]], data.corpus, 10).doc_rows
    assert (pool.best(moved[[1, 4]], rows[[1, 4]], 10).doc_rows == exact).mean() > 0.9


def test_a_document_that_a_query_must_not_find_is_left_out(data) -> None:
    queries = parts_of(data, CONFIG)[0].labels.queries
    nearest = search(queries.views["small"], data.corpus, 1).doc_rows[:, 0]
    queries = queries._replace(exclude=torch.from_numpy(nearest))
    pool = JudgingPool(data, queries, seed=0)
    rows = np.arange(len(queries.ids))
    pool.look(queries.views["small"], rows)
    assert not (pool.best(queries.views["small"], rows, 20).doc_rows == nearest[:, None]).any()


@pytest.mark.parametrize("half", [False, True])
def test_a_fit_by_pools_chooses_as_one_by_searches_and_its_figure_is_exact(data, half) -> None:
    if half:
        values = data.corpus.half()
        data = data._replace(corpus=HalfRows(values))
    pooled, exact = fit_candidates(data, POOLED), fit_candidates(data, CONFIG)
    assert pooled.choice.name == exact.choice.name
    for name, fit in exact.candidates.items():
        assert pooled.candidates[name].mean == pytest.approx(fit.mean, abs=0.03), name
    shipped = pooled.candidates[pooled.choice.name]
    labels = parts_of(data, CONFIG)[0].labels
    searched = values_of(shipped.mapped[0], labels.queries, labels.judges, data)
    owed = shipped.measured[0] - pooled.candidates[pooled.choice.name].values[0]
    assert np.isfinite(owed).all()
    untrained = pooled.candidates["small"]
    if pooled.choice.name == "small":
        np.testing.assert_allclose(untrained.values[0], searched)
