"""The published recipe: what it mines with, and how it trains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import QUICK_PAPER, fit_data, measured, silenced

from era_cache.errors import FitError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.alignment.methods import align_paper, random_start
from era_cache.fitting.config import PaperConfig
from era_cache.fitting.mining import Mining, mine_triples
from era_cache.fitting.paper import paper_triples, train_paper, train_paper_at
from era_cache.fitting.recipes import fit_paper
from era_cache.fitting.tensors import FitData

CONFIG = dataclasses.replace(QUICK_PAPER, epochs=12, patience=12)


@pytest.fixture(scope="module")
def data() -> FitData:
    return fit_data()


@pytest.fixture(scope="module")
def start(data) -> Adapter:
    return align_paper(data.align_large, data.align_small, CONFIG)


def test_triples_have_one_row_for_each_judged_query(data) -> None:
    queries = silenced(data.train, [3, 7])
    triples = paper_triples(queries, data, Adapter(("small",), torch.eye(12)), PaperConfig(), 0)
    assert triples.query_rows.tolist() == [r for r in range(40) if r not in (3, 7)]
    assert triples.positive_rows.tolist() == triples.query_rows.tolist()
    assert triples.negative_rows.shape == (38, 5)
    for query, negatives in zip(triples.query_rows, triples.negative_rows, strict=True):
        assert len({int(query), *negatives.tolist()}) == 6


@pytest.mark.parametrize("strategy", ["random", "naive_topk", "topk_percpos"])
def test_the_aligned_adapter_is_the_teacher_and_the_configuration_is_heard(start, strategy) -> None:
    data = fit_data(exclude=True)
    config = PaperConfig(strategy=strategy, negatives=3, mine_top=30, positive_share=0.8)
    found = paper_triples(data.train, data, start, config, 5)
    expected = mine_triples(
        start.apply(data.train.views),
        data.train.qrels,
        data.corpus,
        Mining(strategy, 3, 30, 0.8),
        exclude=data.train.exclude,
        seed=5,
    )
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_training_learns_the_planted_map(data, start) -> None:
    fitted = train_paper_at([data], start, CONFIG, 1e-2, 1e-2)
    assert fitted.mean > measured(start, data.validation, data).mean() + 0.1
    (values,) = fitted.values
    np.testing.assert_array_equal(values, measured(fitted.adapter, data.validation, data))
    assert fitted.adapter.bias is not None


def test_the_rate_rises_from_nothing_and_falls_to_nothing(data, start, monkeypatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def spy(optimizer, *args, **kwargs):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    config = dataclasses.replace(CONFIG, batch=16, epochs=10, warmup=0.2, patience=100)
    train_paper_at([data], start, config, 1e-3, 0.0)
    # 40 queries in batches of 16 are 3 steps an epoch, 30 in all, of which 6 warm up.
    assert len(rates) == 30
    np.testing.assert_allclose(rates[:7], 1e-3 * np.arange(7) / 6, atol=1e-12)
    np.testing.assert_allclose(rates[6:], 1e-3 * np.arange(24, 0, -1) / 24, atol=1e-12)


def test_training_stops_when_the_validation_loss_has_not_fallen_for_long(start) -> None:
    data = fit_data(noise=3.0)
    config = dataclasses.replace(CONFIG, epochs=200, patience=3, warmup=0.0)
    fitted = train_paper_at([data], start, config, 3e-2, 0.0)
    assert fitted.options["epochs_run"] == fitted.options["epochs"] + 3 < 200


def test_the_better_of_the_two_rates_is_kept(data, start) -> None:
    config = dataclasses.replace(CONFIG, learning_rates=(1e-7, 1e-2), weight_decays=(0.0, 0.01))
    slow = train_paper_at([data], start, config, 1e-7, 0.0)
    fast = train_paper_at([data], start, config, 1e-2, 0.01)
    assert fast.mean > slow.mean
    kept = train_paper(data, start, config)
    assert kept.options["learning_rate"] == 1e-2
    assert kept.options["weight_decay"] == 0.01
    assert kept.options["epochs_all"] == sum(one.options["epochs_run"] for one in (slow, fast))
    assert torch.equal(kept.adapter.weight, fast.adapter.weight)
    turned = dataclasses.replace(config, learning_rates=(1e-2, 1e-7), weight_decays=(0.01, 0.0))
    assert train_paper(data, start, turned).options["learning_rate"] == 1e-2


def test_training_is_deterministic_and_leaves_its_start_as_it_is(data, start) -> None:
    before = start.weight.clone(), start.bias.clone()
    one, two = (train_paper(data, start, CONFIG).adapter for _ in range(2))
    for mine, again, given, old in zip(one[1:3], two[1:3], start[1:3], before, strict=True):
        assert torch.equal(mine, again)
        assert torch.equal(given, old)


def test_an_adapter_without_bias_is_a_programming_mistake(data, start) -> None:
    with pytest.raises(ValueError, match="bias"):
        train_paper_at([data], start._replace(bias=None), CONFIG, 1e-3, 0.0)


def test_without_alignment_the_small_queries_teach_and_the_start_is_random(data) -> None:
    alone = train_paper(data, None, dataclasses.replace(CONFIG, mode="label_only"))
    again = train_paper(data, None, CONFIG)
    assert torch.equal(alone.adapter.weight, again.adapter.weight)
    other = train_paper(data, None, dataclasses.replace(CONFIG, seed=1))
    assert not torch.equal(alone.adapter.weight, other.adapter.weight)
    silent = data._replace(train=data.train._replace(views={"large": data.train.views["large"]}))
    with pytest.raises(FitError, match="mines negatives by the small model's queries"):
        train_paper(silent, None, CONFIG)


def test_several_collections_train_as_one_of_all_their_pairs(data, start) -> None:
    """Twice the same collection is the same loss over the same pairs, taken twice."""
    config = dataclasses.replace(CONFIG, batch=10_000, strategy="naive_topk", epochs=5)
    one = train_paper_at([data], start, config, 1e-2, 0.0)
    two = train_paper_at([data, data], start, config, 1e-2, 0.0)
    torch.testing.assert_close(one.adapter.weight, two.adapter.weight, atol=1e-5, rtol=1e-4)
    assert len(two.values) == 2
    other = fit_data(seed=5)
    both = train_paper_at([data, other], start, config, 1e-2, 0.0)
    assert not torch.allclose(one.adapter.weight, both.adapter.weight, atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "candidates"),
    [
        ("both", ["small", "aligned", "paper"]),
        ("alignment_only", ["small", "aligned"]),
        ("label_only", ["small", "paper"]),
    ],
)
def test_the_three_modes_and_what_each_ships(data, mode, candidates) -> None:
    config = dataclasses.replace(CONFIG, mode=mode, epochs=2)
    for given in (data, [data, fit_data(seed=5)]):
        result = fit_paper(given, config)
        assert list(result.candidates) == candidates
        assert result.choice.name == candidates[-1]


@pytest.mark.parametrize("loss", ["cosine", "mse", "smooth_l1"])
def test_alignment_losses_are_those_of_torch(data, loss) -> None:
    large, small = data.align_large[:20], data.align_small[:20]
    config = PaperConfig(align_loss=loss, align_epochs=1, batch=100, align_holdout=0.0)
    got = align_paper(large, small, config)
    generator = torch.Generator().manual_seed(config.seed)
    used = torch.randperm(20, generator=generator)[1:]  # one is held out at least
    large, small = large[used], small[used]
    layer = torch.nn.Linear(large.shape[1], small.shape[1])
    with torch.no_grad():
        for mine, begun in zip(
            layer.parameters(), random_start(*layer.weight.shape, generator), strict=True
        ):
            mine.copy_(begun)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
    mapped = torch.nn.functional.normalize(layer(large), dim=1)
    targets = {
        "cosine": lambda: 1 - (mapped * small).sum(1).mean(),
        "mse": lambda: torch.nn.MSELoss()(mapped, small),
        "smooth_l1": lambda: torch.nn.SmoothL1Loss()(mapped, small),
    }
    targets[loss]().backward()
    optimizer.step()
    torch.testing.assert_close(got.weight, layer.weight.detach(), atol=1e-6, rtol=1e-5)
