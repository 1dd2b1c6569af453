"""Tables of a candidate: those that searches of all documents would choose, and their values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import QUICK, fit_data

from era_cache.fitting import choose_tables as module
from era_cache.fitting.choose_tables import choose_tables
from era_cache.fitting.crossfit import Fitted, Request, crossfit
from era_cache.fitting.held_out import PRIMARY, Tables, values_of
from era_cache.fitting.means import BETTER, luck, macro
from era_cache.fitting.own_documents import own_documents
from era_cache.fitting.recipes import parts_of
from era_cache.fitting.starts import align, document_references
from era_cache.rank.measures import Ranking, evaluate
from era_cache.rank.search import search

CONFIG = dataclasses.replace(QUICK, reference_steps=((0.0, 1), (0.25, 1), (0.5, 2)))


def _fitted(config=CONFIG) -> Fitted:
    data = [fit_data(seed=seed, noise=2.0, n_train=20, n_validation=20) for seed in (0, 1)]
    parts = parts_of(data, config)
    start = align(parts, config)[0].weight
    return crossfit(Request(parts, ("large",), start, config, document_references(parts, config)))


def _by_search(fit: Fitted, tables: Tables) -> tuple[np.ndarray, ...]:
    assert fit.corrections is not None
    return tuple(
        values_of(moved, part.labels.queries, part.labels.judges, part.data)
        for moved, part in zip(fit.corrections.at(tables), fit.corrections.judge.parts, strict=True)
    )


def test_tables_are_those_that_searches_of_all_documents_choose(monkeypatch) -> None:
    monkeypatch.setattr(module, "LEADING", 1000)
    fit = _fitted()
    assert fit.corrections is not None
    judge, mapped = fit.corrections.judge, fit.corrections.mapped
    now = begin = Tables(CONFIG.default_reference_step, None)
    owed = []
    for ways in (
        [begin._replace(references=step) for step in CONFIG.reference_steps],
        [(step, c) for c in (True, False) for step in CONFIG.memory_steps],
    ):
        if not isinstance(ways[0], Tables):
            ways = [now, *(now._replace(memory=one) for one in ways)]
        tried = [_by_search(fit, one) for one in ways]
        best = 0
        for number, values in enumerate(tried):
            if macro(values) > macro(tried[best]) + BETTER:
                best = number
        owed.append(luck(tried, best))
        now = ways[best]
    assert now not in (begin, Tables((0.0, 1), None))  # else nothing would be seen here
    judge.set(begin)
    values, measured = choose_tables(judge, mapped, judge.values(mapped))
    assert judge.setting == now == fit.corrections.setting
    for mine, theirs in zip(measured, _by_search(fit, now), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, whole, *less in zip(values, measured, *owed, strict=True):
        np.testing.assert_allclose(mine, whole - sum(less), atol=1e-12)


def test_what_is_chosen_is_judged_among_all_documents(monkeypatch) -> None:
    monkeypatch.setattr(module, "LEADING", 1)  # compared by next to nothing
    fit = _fitted()
    assert fit.corrections is not None
    for mine, theirs in zip(fit.measured, _by_search(fit, fit.corrections.setting), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_settings_that_are_held_one_at_a_time_give_the_same(monkeypatch) -> None:
    together = _fitted()
    monkeypatch.setattr(module, "_HELD", 1)
    apart = _fitted()
    assert apart.options == together.options
    for mine, theirs in zip(apart.values, together.values, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_where_there_is_one_setting_nothing_is_searched_for(monkeypatch) -> None:
    def nothing(*_: object) -> Ranking:
        raise AssertionError("searched")

    one = dataclasses.replace(CONFIG, reference_steps=((0.5, 2),), memory_steps=())
    fit = _fitted(one)
    assert fit.corrections is not None
    judge, mapped = fit.corrections.judge, fit.corrections.mapped
    known = judge.values(mapped)
    monkeypatch.setattr(module, "ranking_of", nothing)
    values, measured = choose_tables(judge, mapped, known)
    assert values is known
    assert measured is known
    # Another one than the default is measured, too.
    judge.set(Tables((0.25, 1), None))
    values, _ = choose_tables(judge, mapped, known)
    assert judge.setting == Tables((0.5, 2), None)
    np.testing.assert_array_equal(values[0], known[0])


@pytest.mark.parametrize("excluding", [False, True])
def test_own_documents_give_the_values_of_the_rankings_they_are_of(excluding) -> None:
    data = fit_data(noise=2.0)
    queries, rows = data.train, np.arange(len(data.train.ids))[::2]
    if excluding:
        positives = torch.from_numpy(queries.qrels.doc_rows)[: len(queries.ids)]
        queries = queries._replace(exclude=positives.where(positives % 3 == 0, -1))
    exclude = None if queries.exclude is None else queries.exclude[rows]
    ways = [
        torch.nn.functional.normalize(queries.views["small"][rows] + step, dim=1)
        for step in (0.0, 0.05, -0.2)
    ]
    rankings = [search(way, data.corpus, 10, exclude=exclude) for way in ways]
    own = own_documents(rankings, queries, rows, data)
    by_way = [ranking.doc_rows.tolist() for ranking in rankings]
    for held, *found in zip(own.docs.tolist(), *by_way, strict=True):
        assert sorted(d for d in held if d >= 0) == sorted(set().union(*found))
    qrels = queries.qrels.select_queries(rows)
    for values, ranking in zip(own.values(ways, PRIMARY), rankings, strict=True):
        expected = evaluate(ranking.doc_rows, qrels, [PRIMARY], len(data.corpus))[PRIMARY]
        np.testing.assert_allclose(values, expected, atol=1e-12)
