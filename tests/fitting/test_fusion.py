"""How much a first stage counts beside the cosine, and whether it ships."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from planted import LIST_DEPTH, QUICK, fit_data, silenced, with_lists

from era_cache.errors import InputError
from era_cache.fitting import first_stage_sign
from era_cache.fitting.adapter import Adapter, Fusion, unit
from era_cache.fitting.candidates import FUSED, described, fused_name, unfused_name
from era_cache.fitting.choice import choose
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.first_stage_sign import worth_beside_small
from era_cache.fitting.held_out import Part
from era_cache.fitting.recipes import FitResult, fit_candidates
from era_cache.fitting.tensors import QuerySet
from era_cache.fitting.who_judges import Labels
from era_cache.rank.corpus import HalfRows, whole
from era_cache.rank.lists import FirstStage
from era_cache.rank.search import search
from era_cache.types import Qrels


@pytest.fixture(scope="module")
def fused() -> FitResult:
    return fit_candidates(with_lists(fit_data(noise=1.0), 0.8), QUICK)


def test_every_joined_candidate_is_its_own_map_with_a_weight(fused) -> None:
    names = [fused_name("bm25", name) for name in FUSED]
    assert [name for name in fused.candidates if name.startswith("bm25+")] == names
    for name in names:
        mine, plain = fused.candidates[name].adapter, fused.candidates[unfused_name(name)].adapter
        assert torch.equal(mine.weight, plain.weight)
        assert plain.fusion is None
        assert mine.fusion is not None
        assert mine.fusion.run == "bm25"
        assert mine.fusion.weight == fused.candidates[name].options["weight"]


def test_a_good_first_stage_gains_on_held_out_labels_and_ships(fused) -> None:
    for name in FUSED:
        joined, plain = fused.candidates[fused_name("bm25", name)], fused.candidates[name]
        assert joined.mean > plain.mean
    assert fused.choice.name.startswith("bm25+")
    assert "held-out nDCG@10" in fused.choice.reason


def test_a_useless_first_stage_does_not_ship() -> None:
    result = fit_candidates(with_lists(fit_data(), 0.0), QUICK)
    assert "+" not in result.choice.name
    plain = fit_candidates(fit_data(), QUICK)
    assert result.choice.name == plain.choice.name
    for name in FUSED:  # and what is chosen for it costs next to nothing
        fit = result.candidates[fused_name("bm25", name)]
        assert fit.mean >= plain.candidates[name].mean - 0.05


def test_values_are_those_of_a_search_through_the_lists(fused) -> None:
    """A weight so large that the first stage alone decides, by hand."""
    data = with_lists(fit_data(noise=1.0), 1.0)
    config = FitConfig(fusion_weights=(1e6,), fusion_default=1e6)
    result = fit_candidates(data, config)
    fit = result.candidates["bm25+small"]
    assert fit.adapter.fusion is not None
    assert fit.mean == pytest.approx(1.0)  # every positive is first in its list


def test_without_labels_the_default_weight_is_less_where_lists_are_worth_little() -> None:
    data = fit_data(agreeing=2.0)
    mapped = search(data.train.views["small"], data.corpus, LIST_DEPTH)
    scores = torch.linspace(20, 5, LIST_DEPTH).expand(len(mapped.doc_rows), LIST_DEPTH)
    agreeing = FirstStage(
        "bm25", torch.from_numpy(mapped.doc_rows), scores, torch.zeros(len(scores))
    )
    ratios = {}
    for name, lists in (
        ("agreeing", agreeing),
        ("others'", agreeing.select(np.roll(np.arange(len(scores)), 7))),
    ):
        unlabelled = silenced(data.train)._replace(first=lists)
        none = np.zeros(0, dtype=np.int64)
        empty = QuerySet(
            [],
            {view: rows[:0] for view, rows in data.train.views.items()},
            data.train.qrels.select_queries(none),
            None,
        )
        one = data._replace(train=empty, validation=empty, unlabelled=unlabelled)
        result = fit_candidates(one, QUICK)
        assert set(result.candidates) == {
            *("small", "aligned", "era-zero"),
            *("bm25+small", "bm25+era-zero"),
        }
        ratios[name] = result.candidates["bm25+small"].options["ratio"]
        expected = "bm25+era-zero" if name == "agreeing" else "era-zero"
        assert result.choice.name == expected
    assert ratios["agreeing"] == FitConfig().fusion_default
    assert ratios["others'"] == 0


def test_worth_is_the_reciprocal_rank_of_what_the_large_model_ranks_first() -> None:
    """Three documents, two queries, by hand; with thirty others that nothing finds."""
    n = 33
    corpus = torch.eye(n)
    queries = QuerySet(
        ["a", "b"],
        # The large model ranks documents 0 and 1 first, the small one has them first and second.
        {"large": corpus[[0, 1]], "small": unit(corpus[[0, 2]] + 0.5 * corpus[[0, 1]])},
        Qrels(*(np.array(column) for column in ([0, 1], [0, 1], [1, 1]))),
        None,
        first=FirstStage(
            "bm25",
            torch.tensor([[1, 0, -1], [1, 5, 6]]),
            torch.tensor([[3.0, 2.0, 0.0], [3.0, 3.0, 3.0]]),
            torch.zeros(2),
        ),
    )
    data = fit_data()._replace(corpus=corpus, align_large=corpus, align_small=corpus)
    part = Part(data, Labels(queries, (), np.arange(2), np.arange(2)))
    # First stage: second of two (1/2), and level with two others (mean rank 2: 1/2). Small: 1, 1/2.
    assert worth_beside_small([part]) == pytest.approx((0.5 + 0.5) / (1 + 0.5))
    few = data._replace(align_large=corpus[:5], align_small=corpus[:5])
    assert worth_beside_small([part._replace(data=few)]) is None
    elsewhere = data._replace(align_small=-corpus)
    assert worth_beside_small([part._replace(data=elsewhere)]) is None


@pytest.mark.parametrize("half", [False, True])
def test_where_alignment_documents_lie_is_what_a_search_finds(monkeypatch, half) -> None:
    data = fit_data()
    corpus = data.corpus if not half else HalfRows(whole(data.corpus).half())
    chosen = torch.arange(0, len(corpus), 3).flip(0)
    copies = data._replace(corpus=corpus, align_small=corpus[chosen])
    kept, rows = first_stage_sign._places(copies)
    assert torch.equal(rows, chosen)
    assert torch.equal(kept, torch.arange(len(chosen)))
    searched = Mock(side_effect=search)
    monkeypatch.setattr(first_stage_sign, "search", searched)
    first_stage_sign._places(copies)
    assert searched.call_count == half
    # Some are another document's first numbers, some of no document: then all are searched for.
    mixed = copies.align_small.clone()
    mixed[0, 2:] *= -1
    mixed[1] = -mixed[1]
    kept, rows = first_stage_sign._places(copies._replace(align_small=mixed))
    assert torch.equal(kept, torch.arange(2, len(chosen)))
    assert torch.equal(rows, chosen[2:])


def test_a_collection_without_lists_leaves_candidates_as_they_are() -> None:
    both = [with_lists(fit_data(), 0.8), fit_data(seed=1)]
    assert not [name for name in fit_candidates(both, QUICK).candidates if "bm25" in name]


def test_asking_for_a_joined_candidate_needs_lists() -> None:
    with pytest.raises(InputError, match=r"No candidate 'bm25\+era'; there are: small"):
        fit_candidates(fit_data(), QUICK, candidate="bm25+era")


def test_names() -> None:
    assert unfused_name("bm25+era-dual") == "era-dual"
    assert unfused_name("small+") == "small+"
    assert unfused_name("era (second)") == "era (second)"
    assert described("bm25+small").startswith("bm25 joined with small")
    assert not described("bm25")
    assert not described("bm25+aligned")


# Which one ships


def _fitted(mean: float, spread: float = 0.0, weight: float | None = None, n: int = 60) -> Fitted:
    values = mean + spread * np.where(np.arange(n) % 2, 1.0, -1.0)
    fusion = None if weight is None else Fusion("bm25", weight)
    return Fitted(Adapter(("small",), torch.eye(2), fusion=fusion), (values,), {})


PLAIN = {"small": _fitted(0.5), "era-zero": _fitted(0.55), "era-dual": _fitted(0.7)}


@pytest.mark.parametrize(
    ("joined", "chosen"),
    [
        ({"small": 0.6, "era-dual": 0.72}, "bm25+era-dual"),
        ({"small": 0.6, "era-dual": 0.70}, "era-dual"),  # as good: the simpler ships
        ({"small": 0.75, "era-dual": 0.74}, "bm25+small"),
        ({"small": 0.6, "era-dual": 0.60}, "era-dual"),
    ],
)
def test_joined_candidates_compete_among_themselves_then_with_the_best_other(
    joined, chosen
) -> None:
    fits = PLAIN | {f"bm25+{name}": _fitted(mean, weight=0.1) for name, mean in joined.items()}
    choice = choose(fits)
    assert choice.name == chosen
    assert "0.700" in choice.reason


def test_a_gain_within_one_standard_error_does_not_ship() -> None:
    fits = PLAIN | {"bm25+small": _fitted(0.5, weight=0.1)}
    fits["bm25+era-dual"] = _fitted(0.71, spread=0.3, weight=0.1)  # standard error 0.039
    choice = choose(fits)
    assert choice.name == "era-dual"
    assert "bm25+era-dual is not clearly better" in choice.reason


def test_a_weight_of_nothing_ships_the_candidate_itself() -> None:
    fits = PLAIN | {"bm25+small": _fitted(0.5, weight=0.0)}
    fits["bm25+era-dual"] = _fitted(0.9, weight=0.0)
    choice = choose(fits)
    assert choice.name == "era-dual"
    assert "bm25 adds nothing" in choice.reason
