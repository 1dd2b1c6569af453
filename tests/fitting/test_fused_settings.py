"""Tables of a joined candidate: chosen by joined rankings, compared with searches of everything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from planted import QUICK, fit_data, with_lists

from era_cache.fitting import fused_settings, fusion, own_documents
from era_cache.fitting.adapter import Fusion, unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted, Request, crossfit
from era_cache.fitting.fused_settings import choose_fused
from era_cache.fitting.fusion import _LEADING, _rankings, _settings
from era_cache.fitting.held_out import Part, Tables, Trained
from era_cache.fitting.losses import pull_of
from era_cache.fitting.means import luck, macro, standard_error
from era_cache.fitting.recipes import fit_candidates, parts_of
from era_cache.fitting.starts import align, document_references
from era_cache.rank.corpus import HalfRows, whole
from era_cache.rank.lists import FirstStage

CONFIG = dataclasses.replace(QUICK, reference_steps=((0.0, 1), (0.25, 1), (0.5, 2)))
WEIGHT = 0.05


def _fitted(excluding: bool = False, half: bool = False) -> tuple[Fitted, list[Part], FitConfig]:
    """A candidate whose tables suit its cosine, with values of joined rankings."""
    parts = []
    for seed in (0, 1):
        data = with_lists(fit_data(seed=seed, noise=2.0, n_train=20, n_validation=20), 0.7)
        if half:
            data = data._replace(corpus=HalfRows(whole(data.corpus).half()))
        if excluding:
            rows = [torch.arange(len(q.ids)) % 7 for q in (data.train, data.validation)]
            data = data._replace(
                train=data.train._replace(exclude=rows[0]),
                validation=data.validation._replace(exclude=rows[1]),
            )
        parts.append(data)
    found = parts_of(parts, CONFIG)
    start = align(found, CONFIG)[0].weight
    references = document_references(found, CONFIG)
    fit = crossfit(Request(found, ("large",), start, CONFIG, references))
    return fit._replace(values=_by_search(fit, fit.mapped, found)), found, CONFIG


def _by_search(
    fit: Fitted, mapped: Sequence[torch.Tensor], parts: list[Part]
) -> tuple[np.ndarray, ...]:
    found = _rankings(fit._replace(mapped=mapped), parts, [WEIGHT], 0, {})
    return _settings(found, parts, 1)[0]


def _retabled(
    fit: Fitted, parts: list[Part], config: FitConfig, weight: float = WEIGHT, depth: int = _LEADING
) -> Fitted:
    leading = _rankings(fit, parts, [0.0, weight], depth, {})
    return choose_fused(fit, parts, weight, leading, config)


@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_tables_are_those_that_searches_of_all_documents_choose(
    monkeypatch, excluding, half
) -> None:
    monkeypatch.setattr(fused_settings, "_AHEAD", 0.0)
    fit, parts, config = _fitted(excluding, half)
    assert fit.corrections is not None
    now, values = fit.corrections.setting, fit.values
    before = now
    for field, choices in (
        ("references", config.reference_steps),
        ("memory", [None, *((s, c) for c in (True, False) for s in config.memory_steps)]),
    ):
        ways = [now, *(w for c in choices if (w := now._replace(**{field: c})) != now)]
        tried = [_by_search(fit, list(fit.corrections.at(way)), parts) for way in ways]
        means = [macro(one) for one in tried]
        best = int(np.argmax(means)) if max(means) > means[0] else 0
        owed = luck(tried, best, choose=fused_settings._chosen)
        values = tuple(
            v + new - old - less
            for v, new, old, less in zip(values, tried[best], tried[0], owed, strict=True)
        )
        now = ways[best]
    assert now != before  # else nothing would be seen here
    found = _retabled(fit, parts, config, depth=150)  # all documents
    for mine, theirs in zip(found.values, values, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    for mine, theirs in zip(found.mapped, fit.corrections.at(now), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert now.references is not None
    step, steps = now.references
    expected = [(step, steps)] if step else []
    expected += [] if now.memory is None else [(now.memory[0], 1)]
    assert [(t.step, t.steps) for t in found.adapter.references] == expected
    assert found.options["references"] == f"{step:g} x {steps}"
    assert ("memory" in found.options) == (now.memory is not None)


def test_the_candidate_itself_keeps_its_tables(monkeypatch) -> None:
    monkeypatch.setattr(fused_settings, "_AHEAD", -10.0)  # anything is ahead
    fit, parts, config = _fitted()
    tables = [(t.step, t.steps, len(t.values)) for t in fit.adapter.references]
    _retabled(fit, parts, config)
    assert [(t.step, t.steps, len(t.values)) for t in fit.adapter.references] == tables
    again = _retabled(fit, parts, config)
    twice = _retabled(fit, parts, config)
    assert again.options == twice.options
    np.testing.assert_array_equal(again.values[0], twice.values[0])


@pytest.mark.parametrize("better", [True, False])
def test_another_strength_is_taken_if_joined_rankings_prefer_it(better) -> None:
    fit, parts, config = _fitted()
    assert fit.corrections is not None
    fusion_ = Fusion("bm25", WEIGHT)
    fit = fit._replace(
        adapter=fit.adapter._replace(fusion=fusion_), options={**fit.options, "temperature": 1.0}
    )
    # Queries that lie on one of their documents, and queries that lie anywhere.
    good = [
        unit(pull_of(p.labels.queries.qrels, len(p.labels.queries.ids), p.data.corpus))
        for p in parts
    ]
    bad = [one.roll(1, dims=1) for one in good]
    made = fit.adapter._replace(weight=2 * fit.adapter.weight, references=(), fusion=None)
    trained = Mock(return_value=made)
    mine, other = (bad, good) if better else (good, bad)
    start = Trained("start", bad, Mock(side_effect=AssertionError))
    corrections = fit.corrections._replace(
        mapped=mine, others=[start, Trained(3.0, other, trained)]
    )
    fit = fit._replace(mapped=tuple(corrections.at(corrections.setting)), corrections=corrections)
    found = _retabled(fit, parts, config)
    assert trained.call_count == better
    chosen = made if better else fit.adapter
    torch.testing.assert_close(found.adapter.weight, chosen.weight, rtol=0, atol=0)
    assert found.adapter.fusion == fusion_
    assert found.options["strength"] == (3.0 if better else fit.options["strength"])
    assert ("temperature" in found.options) != better
    assert not better or macro(found.values) > macro(fit.values)


def test_tables_stay_unless_others_are_clearly_ahead() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(100)
    gain = rng.normal(size=100)
    gain -= gain.mean()
    error = standard_error([gain])
    barely, clearly = first + gain + 0.4 * error, first + gain + 0.6 * error
    assert fused_settings._chosen([(first,), (barely,)]) == 0
    assert fused_settings._chosen([(first,), (clearly,)]) == 1
    assert fused_settings._chosen([(first,), (first,)]) == 0


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_where_nothing_is_to_choose_nothing_changes(weight) -> None:
    fit, parts, config = _fitted()
    bare = fit._replace(corrections=None)
    assert _retabled(bare, parts, config, weight) is bare
    if not weight:
        assert _retabled(fit, parts, config, weight) is fit
    silent = [
        part._replace(labels=part.labels._replace(queries=part.labels.queries._replace(first=None)))
        for part in parts
    ]
    assert choose_fused(fit, silent, weight, [[], []], config) is fit


def test_of_a_fit_era_dual_alone_has_other_tables(monkeypatch) -> None:
    seen: list[tuple[str, ...]] = []

    def watched(fit: Fitted, *rest: object) -> Fitted:
        seen.append(fit.adapter.views)
        return fit

    monkeypatch.setattr(fusion, "choose_fused", watched)
    fit_candidates(with_lists(fit_data(noise=1.0), 0.8), QUICK)
    assert seen == [("small", "large")]


def test_scores_of_documents_are_those_of_the_list_or_its_floor() -> None:
    first = FirstStage(
        "bm25",
        torch.tensor([[3, 1, -1], [0, 2, 4]]),
        torch.tensor([[5.0, 4.0, 0.0], [9.0, 8.0, 7.0]]),
        torch.tensor([0.5, 2.0]),
    )
    docs = torch.tensor([[0, 1, 3, 4], [4, 4, 0, 1]])
    expected = torch.tensor([[0.5, 4.0, 5.0, 0.5], [7.0, 7.0, 9.0, 2.0]])
    assert torch.equal(first.of(docs), expected)
    empty = first._replace(docs=first.docs[:, :0], scores=first.scores[:, :0])
    assert torch.equal(empty.of(docs), first.floor[:, None].expand(2, 4))


def test_blocks_of_documents_do_not_change_values(monkeypatch) -> None:
    fit, parts, config = _fitted()
    whole_ = _retabled(fit, parts, config)
    monkeypatch.setattr(own_documents, "_GATHERED", 1)
    one_by_one = _retabled(fit, parts, config)
    for mine, theirs in zip(whole_.values, one_by_one.values, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_settings_name_what_they_set() -> None:
    fit, _, _ = _fitted()
    assert fit.corrections is not None
    judge = fit.corrections.judge
    tables = Tables((0.25, 1), (0.2, False))
    judge.set(tables)
    assert judge.setting == tables
    assert judge.options() == {"references": "0.25 x 1", "memory": "0.2 plain"}
    moved = fit.corrections.at(Tables((0.0, 1), None))
    mapped = fit.corrections.mapped
    rows = judge.parts[0].labels.judges
    torch.testing.assert_close(moved[0], mapped[0][rows])
    assert not torch.equal(moved[0], fit.corrections.at(tables)[0])
