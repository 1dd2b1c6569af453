"""The published recipe: how it mines, and how it trains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import QUICK_PAPER, fit_data

from era_cache.adapters import Adapter, unit
from era_cache.align import align_paper
from era_cache.config import PaperConfig
from era_cache.errors import FitError
from era_cache.pairs import FitData, QuerySet
from era_cache.paper import mine_triples, train_paper, train_paper_at
from era_cache.train import validation_values
from era_cache.types import Qrels

CONFIG = dataclasses.replace(QUICK_PAPER, epochs=12, patience=12)


def _plane(cosines: list[float], positives: list[int]) -> tuple[QuerySet, FitData, Adapter]:
    """One query along the first axis; document i has cosine ``cosines[i]`` to it."""
    across = [(1 - c * c) ** 0.5 for c in cosines]
    corpus = torch.tensor(list(zip(cosines, across, strict=True)))
    count = len(positives)
    qrels = Qrels(
        np.zeros(count, np.int64), np.array(positives, np.int64), np.ones(count, np.int64)
    )
    queries = QuerySet(["q"], {"large": torch.tensor([[1.0, 0.0]])}, qrels, None)
    data = fit_data()._replace(train=queries, corpus=corpus)
    return queries, data, Adapter(("large",), torch.eye(2), torch.zeros(2))


def _mine(cosines, positives, *, negatives=2, top=2000, seed=0, exclude=None):
    queries, data, teacher = _plane(cosines, positives)
    if exclude is not None:
        queries = queries._replace(exclude=torch.tensor([exclude]))
    config = PaperConfig(negatives=negatives, mine_top=top)
    return mine_triples(queries, data, teacher, config, seed)


def test_the_hardest_negative_is_always_taken_and_the_others_from_twice_as_many() -> None:
    cosines = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    drawn = [_mine(cosines, [0], negatives=2, seed=seed).negative_rows[0] for seed in range(60)]
    assert {int(rows[0]) for rows in drawn} == {1}
    # The pool is the best 2 x 2 documents below the positive: 1, 2, 3, 4.
    assert {int(rows[1]) for rows in drawn} == {2, 3, 4}


def test_documents_too_close_to_the_positive_are_passed_over() -> None:
    # The limit is 0.95 x 0.8 = 0.76: of 0.9, 0.77 and 0.75 only the last is a negative.
    cosines = [0.8, 0.9, 0.77, 0.75, 0.1, 0.0]
    drawn = [_mine(cosines, [0], negatives=1, seed=seed).negative_rows for seed in range(20)]
    assert {int(rows[0, 0]) for rows in drawn} == {3}


def test_with_a_negative_score_every_document_below_the_positive_counts() -> None:
    # 0.95 x -0.5 = -0.475 lies above the positive; the limit is -0.5 itself.
    cosines = [-0.5, -0.48, -0.6, 0.9, 0.8]
    drawn = [_mine(cosines, [0], negatives=1, seed=seed).negative_rows for seed in range(20)]
    assert {int(rows[0, 0]) for rows in drawn} == {2}


def test_no_positive_is_a_negative() -> None:
    cosines = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    for seed in range(40):
        triples = _mine(cosines, [0, 2, 4], negatives=2, seed=seed)
        assert int(triples.positive_rows[0]) in (0, 2, 4)
        assert not {0, 2, 4} & set(triples.negative_rows[0].tolist())


def test_any_positive_may_be_drawn() -> None:
    cosines = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    drawn = {int(_mine(cosines, [0, 2], seed=seed).positive_rows[0]) for seed in range(40)}
    assert drawn == {0, 2}


def test_missing_negatives_are_drawn_from_all_other_documents() -> None:
    # Only document 3 lies below 0.95 of the positive; 1 and 2 fill up, never the positive.
    cosines = [0.5, 0.9, 0.8, 0.1]
    for seed in range(20):
        rows = _mine(cosines, [0], negatives=3, seed=seed).negative_rows[0].tolist()
        assert rows[0] == 3
        assert sorted(rows) == [1, 2, 3]


def test_only_the_teachers_best_are_mined() -> None:
    cosines = [0.9, 0.85, 0.84, 0.83, 0.2, 0.1]
    # Of the best two, 0 is the positive and 1 qualifies (limit 0.855).
    drawn = [_mine(cosines, [0], negatives=1, top=2, seed=seed) for seed in range(10)]
    assert {int(t.negative_rows[0, 0]) for t in drawn} == {1}
    # Of the best one, none is left: at random from the rest.
    drawn = [_mine(cosines, [0], negatives=1, top=1, seed=seed) for seed in range(40)]
    assert len({int(t.negative_rows[0, 0]) for t in drawn}) > 2


def test_the_querys_own_document_is_not_mined() -> None:
    cosines = [0.9, 0.8, 0.7, 0.6]
    drawn = [_mine(cosines, [0], negatives=1, exclude=1, seed=seed) for seed in range(10)]
    assert {int(t.negative_rows[0, 0]) for t in drawn} == {2}


def test_a_corpus_without_enough_negatives_is_refused() -> None:
    with pytest.raises(FitError, match="corpus is too small"):
        _mine([0.9, 0.8], [0], negatives=2)


def test_triples_have_one_row_for_each_judged_query() -> None:
    data = fit_data()
    qrels = data.train.qrels
    grades = qrels.relevance.copy()
    grades[[3, 7]] = 0  # two queries without a positive
    queries = data.train._replace(qrels=qrels._replace(relevance=grades))
    triples = mine_triples(queries, data, Adapter(("small",), torch.eye(12)), PaperConfig(), 0)
    assert triples.query_rows.tolist() == [r for r in range(40) if r not in (3, 7)]
    assert triples.positive_rows.tolist() == triples.query_rows.tolist()
    assert triples.negative_rows.shape == (38, 5)
    for query, negatives in zip(triples.query_rows, triples.negative_rows, strict=True):
        assert len({int(query), *negatives.tolist()}) == 6


def _aligned(data: FitData) -> Adapter:
    return align_paper(data.align_large, data.align_small, CONFIG)


def test_training_learns_the_planted_map() -> None:
    data = fit_data()
    start = _aligned(data)
    fitted = train_paper_at(data, start, CONFIG, 1e-2, 1e-2)
    assert fitted.mean > validation_values(start, data).mean() + 0.1
    np.testing.assert_array_equal(fitted.values, validation_values(fitted.adapter, data))
    assert fitted.adapter.bias is not None


def test_the_rate_rises_from_nothing_and_falls_to_nothing(monkeypatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def spy(optimizer, *args, **kwargs):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **kwargs)

    data = fit_data()
    start = _aligned(data)
    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    config = dataclasses.replace(CONFIG, batch=16, epochs=10, warmup=0.2, patience=100)
    train_paper_at(data, start, config, 1e-3, 0.0)
    # 40 queries in batches of 16 are 3 steps an epoch, 30 in all, of which 6 warm up.
    assert len(rates) == 30
    np.testing.assert_allclose(rates[:7], 1e-3 * np.arange(7) / 6, atol=1e-12)
    np.testing.assert_allclose(rates[6:], 1e-3 * np.arange(24, 0, -1) / 24, atol=1e-12)


def test_training_stops_when_the_validation_loss_has_not_fallen_for_long() -> None:
    data = fit_data(noise=3.0)
    config = dataclasses.replace(CONFIG, epochs=200, patience=3, warmup=0.0)
    fitted = train_paper_at(data, _aligned(data), config, 3e-2, 0.0)
    assert fitted.options["epochs_run"] == fitted.options["epochs"] + 3 < 200


def test_the_better_of_the_two_rates_is_kept() -> None:
    data = fit_data()
    start = _aligned(data)
    config = dataclasses.replace(CONFIG, learning_rates=(1e-7, 1e-2), weight_decays=(0.0, 0.01))
    slow = train_paper_at(data, start, config, 1e-7, 0.0)
    fast = train_paper_at(data, start, config, 1e-2, 0.01)
    assert fast.mean > slow.mean
    kept = train_paper(data, start, config)
    assert kept.options["learning_rate"] == 1e-2
    assert kept.options["weight_decay"] == 0.01
    assert torch.equal(kept.adapter.weight, fast.adapter.weight)
    turned = dataclasses.replace(config, learning_rates=(1e-2, 1e-7), weight_decays=(0.01, 0.0))
    assert train_paper(data, start, turned).options["learning_rate"] == 1e-2


def test_training_is_deterministic() -> None:
    data = fit_data()
    start = _aligned(data)
    one, two = (train_paper(data, start, CONFIG) for _ in range(2))
    assert torch.equal(one.adapter.weight, two.adapter.weight)
    assert torch.equal(one.adapter.bias, two.adapter.bias)


def test_the_aligned_adapter_is_not_changed_in_place() -> None:
    data = fit_data()
    start = _aligned(data)
    copy = start.weight.clone(), start.bias.clone()
    train_paper_at(data, start, CONFIG, 1e-2, 0.0)
    assert torch.equal(start.weight, copy[0])
    assert torch.equal(start.bias, copy[1])


def test_an_adapter_without_bias_is_a_programming_mistake() -> None:
    data = fit_data()
    with pytest.raises(ValueError, match="bias"):
        train_paper_at(data, Adapter(("large",), unit(torch.ones(12, 16))), CONFIG, 1e-3, 0.0)
