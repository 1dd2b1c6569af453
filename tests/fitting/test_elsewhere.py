"""An adapter for collections without labels: who judges it, what it is made of, what ships."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import QUICK, fit_data, normal, silenced

from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.candidates import TRAINED
from era_cache.fitting.choice import choose
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.elsewhere import choose_elsewhere
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.tensors import FitData
from era_cache.fitting.who_judges import Labelled, labels_together, merged
from era_cache.types import Qrels


def _several(count: int) -> list[FitData]:
    return [fit_data(seed=seed, n_train=20, n_validation=10) for seed in range(count)]


def _labelled(data: FitData) -> Labelled:
    return Labelled(merged(data.train, data.validation), len(data.train.ids))


# Who judges


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_collection_is_judged_by_models_that_saw_none_of_its_labels(count, refit) -> None:
    config = FitConfig(refit=refit, many_labels=10_000)
    found = labels_together(list(map(_labelled, _several(count))), config, elsewhere=True)
    judging = []
    for labels in found:
        assert len(labels.folds) == min(5, count)
        (judge,) = (i for i, fold in enumerate(labels.folds) if len(fold.judge))
        assert len(labels.folds[judge].train) == 0
        judging.append(judge)
        expected = np.arange(20, 30) if not refit else np.arange(30)
        np.testing.assert_array_equal(labels.folds[judge].judge, expected)
        np.testing.assert_array_equal(labels.judges, expected)
        trained = np.arange(30) if refit else np.arange(20)
        np.testing.assert_array_equal(labels.train_rows, trained)
        for other in set(range(len(labels.folds))) - {judge}:
            np.testing.assert_array_equal(labels.folds[other].train, trained)
    assert set(judging) == set(range(min(5, count)))  # every fold has somebody to judge


def test_a_query_of_two_collections_does_not_train_who_is_judged_by_it() -> None:
    texts = np.array([f"t{row}".encode() for row in range(30)])
    one, two = map(_labelled, _several(2))
    one = one._replace(queries=one.queries._replace(texts=texts))
    shared = np.concatenate([texts[:3], [f"u{row}".encode() for row in range(27)]])
    two = two._replace(queries=two.queries._replace(texts=shared))
    first, second = labels_together([one, two], FitConfig(), elsewhere=True)
    for labels in (first, second):
        (train,) = (fold.train for fold in labels.folds if len(fold.train))
        np.testing.assert_array_equal(train, np.arange(3, 30))
        np.testing.assert_array_equal(labels.train_rows, np.arange(30))


def test_a_single_collection_judges_as_always() -> None:
    (data,) = _several(1)
    silent = data._replace(train=silenced(data.train), validation=silenced(data.validation))
    sets = [_labelled(data), _labelled(silent)]
    ours, usual = (labels_together(sets, FitConfig(), elsewhere=e) for e in (True, False))
    for one, other in zip(ours, usual, strict=True):
        for a, b in zip(one.folds, other.folds, strict=True):
            np.testing.assert_array_equal(a.judge, b.judge)
            np.testing.assert_array_equal(a.train, b.train)


# What it is made of


def _commute(one: torch.Tensor, two: torch.Tensor) -> float:
    """How far two symmetric maps are from having the same directions; 0 where they have."""
    return float((one @ two - two @ one).norm() / (one.norm() * two.norm()))


def test_candidates_without_labels_are_those_of_the_documents_alone() -> None:
    seen, theirs = _several(2), fit_data(seed=9)
    result = fit_candidates(seen, QUICK, elsewhere=[theirs.documents])
    for name in ("aligned", "era-zero"):
        (table,) = result.candidates[name].adapter.references
        torch.testing.assert_close(table.values, theirs.align_small[:40], rtol=0, atol=0)
        torch.testing.assert_close(table.keys, theirs.align_large[:40], rtol=0, atol=0)
    moment = theirs.corpus.T @ theirs.corpus
    others = torch.cat([data.corpus for data in seen])
    weight = result.candidates["era-zero"].adapter.weight[:, : len(moment)]
    # Spread over the directions of these documents, not those of the labelled collections.
    assert _commute(weight, moment) < 1e-4 < _commute(weight, others.T @ others)


def test_they_are_judged_by_what_each_collection_would_have_got() -> None:
    seen = _several(3)
    result = fit_candidates(seen, QUICK, elsewhere=[fit_data(seed=9).documents])
    for number, data in enumerate(seen):
        own = fit_candidates(data, QUICK).candidates
        for name in ("small", "aligned", "era-zero"):
            values = result.candidates[name].values[number]
            np.testing.assert_array_equal(np.sort(values), np.sort(own[name].values[0]))


def test_without_their_documents_each_collection_judges_what_the_others_make() -> None:
    seen = _several(3)
    result = fit_candidates(seen, QUICK, elsewhere=[])
    others = [data.documents for data in seen[1:]]
    expected = fit_candidates(seen[:1], QUICK, elsewhere=others)
    adapter = expected.candidates["era-zero"].adapter
    data = seen[0]
    views = merged(data.train, data.validation).views
    mapped = result.candidates["era-zero"].mapped[0]
    torch.testing.assert_close(mapped, adapter.mapped(views), rtol=0, atol=1e-6)


# What ships


def _contradicting(count: int) -> list[FitData]:
    """Collections whose labels each teach another turn of the query."""
    found = []
    for seed, data in enumerate(_several(count)):
        turn = torch.linalg.qr(normal(data.corpus.shape[1], data.corpus.shape[1], seed=seed))[0]

        # Relevant is what lies near the turned query, which nothing but labels tells.
        def turned(queries, turn=turn, data=data):
            best = (unit(queries.views["small"] @ turn) @ data.corpus.T).argmax(dim=1)
            rows = np.arange(len(queries.ids))
            return queries._replace(qrels=Qrels(rows, best.numpy(), np.ones_like(rows)))

        found.append(data._replace(train=turned(data.train), validation=turned(data.validation)))
    return found


def test_labels_that_teach_nothing_to_others_do_not_ship() -> None:
    seen = _contradicting(4)
    config = dataclasses.replace(QUICK, iterations=8, strengths=(8.0, 0.1))
    documents = [fit_data(seed=9).documents]
    result = fit_candidates(seen, config, elsewhere=documents)
    fits = result.candidates
    # By values alone, without the signs, which see that a turned query is no query of a model.
    assert choose_elsewhere(fits, "auto", (), documents=True).name not in TRAINED
    assert result.choice.name not in TRAINED
    # Where labels of the same collections judge, they are worth having.
    usual = fit_candidates(seen, config).candidates
    assert usual["era-dual"].mean > fits["era-dual"].mean + 0.05


def _fits(**means: list[float]) -> dict[str, Fitted]:
    adapter = Adapter(("small",), torch.eye(2))
    return {
        name.replace("_", "-"): Fitted(
            adapter, tuple(np.full(40, one) + np.linspace(-0.2, 0.2, 40) for one in values), {}
        )
        for name, values in means.items()
    }


def test_collections_are_what_is_counted() -> None:
    zero = [0.45, 0.5, 0.55]
    fits = _fits(small=[0.3, 0.4, 0.5], era_zero=zero, era_dual=[0.45, 0.5, 0.56])
    # Ahead by two errors of many queries alike, but in one of three collections only.
    assert choose(fits).name == "era-dual"
    choice = choose_elsewhere(fits, "auto", (), documents=True)
    assert choice.name == "era-zero"
    assert "3 unseen collections" in choice.reason
    better = _fits(small=[0.3, 0.4, 0.5], era_zero=zero, era_dual=[0.65, 0.7, 0.76])
    assert choose_elsewhere(better, "auto", (), documents=True).name == "era-dual"
    assert choose_elsewhere(better, "small", (), documents=True).name == "small"
    with pytest.raises(InputError, match="No candidate 'best'"):
        choose_elsewhere(better, "best", (), documents=True)


def test_many_collections_do_not_make_a_tie_a_gain() -> None:
    rng = np.random.default_rng(0)
    zero = list(0.5 + 0.05 * rng.normal(size=60))
    dual = [one + d for one, d in zip(zero, 0.02 * rng.normal(size=60), strict=True)]
    fits = _fits(small=[0.3] * 60, era_zero=zero, era_dual=dual)
    assert choose_elsewhere(fits, "auto", (), documents=True).name == "era-zero"


def test_of_unknown_documents_nothing_trained_ships() -> None:
    fits = _fits(small=[0.3, 0.4], era_zero=[0.45, 0.5], era_dual=[0.75, 0.8])
    assert choose_elsewhere(fits, "auto", (), documents=False).name == "era-zero"
    worse = _fits(small=[0.5, 0.6, 0.7], era_zero=[0.3, 0.4, 0.5], era_dual=[0.75, 0.8, 0.9])
    assert choose_elsewhere(worse, "auto", (), documents=False).name == "small"
    (data,) = _several(1)
    result = fit_candidates(data, QUICK, elsewhere=[])
    assert result.choice.name == "small"
    assert "not even documents" in result.choice.reason


def test_one_collection_is_no_measure_of_others() -> None:
    (data,) = _several(1)
    result = fit_candidates(data, QUICK, elsewhere=[fit_data(seed=9).documents])
    assert result.choice.name not in TRAINED
    choice = choose_elsewhere(result.candidates, "auto", (), documents=True)
    assert choice.name == "era-zero"
    assert "without any label or measurement" in choice.reason


@pytest.mark.parametrize("texts", ["documents", "queries", "both"])
@pytest.mark.parametrize("known", [True, False])
def test_whatever_aligns_there_is_an_adapter(texts, known) -> None:
    config = dataclasses.replace(QUICK, align_texts=texts)
    elsewhere = [fit_data(seed=9).documents] if known else []
    result = fit_candidates(_several(3), config, elsewhere=elsewhere)
    assert result.choice.name in result.candidates
    assert not any(np.isnan(fit.mean) for fit in result.candidates.values())
