"""Which candidate ships."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from planted import QUICK, QUICK_PAPER, aligned, fit_data, normal

from era_cache.config import FitConfig
from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.methods import ALIGNMENTS
from era_cache.fitting.candidates import CANDIDATES
from era_cache.fitting.choice import choose
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import Part, document_references, values_of
from era_cache.fitting.recipes import fit_candidates, fit_paper, parts_of
from era_cache.fitting.starts import align, joined_start
from era_cache.fitting.tensors import FitData


def _fitted(*values: float, also: Sequence[float] | None = None) -> Fitted:
    """A candidate with these values, and those of a second collection."""
    collections = [values] if also is None else [values, also]
    adapter = Adapter(("small",), torch.eye(2))
    return Fitted(adapter, tuple(np.array(v, dtype=np.float64) for v in collections), {})


def _held_out(adapter: Adapter, part: Part) -> float:
    """Mean value of an adapter for a collection's judging queries."""
    queries, rows = part.labels.queries, part.labels.judges
    mapped = adapter.apply({name: v[rows] for name, v in queries.views.items()})
    return float(values_of(mapped, queries, rows, part.data).mean())


# The rule


def test_a_candidate_that_gains_more_than_one_standard_error_ships() -> None:
    # Gains 0, 0, 0.4, 0.4: mean 0.2, deviation 0.231, standard error 0.1155.
    fits = {"small": _fitted(0.5, 0.5, 0.5, 0.5), "era": _fitted(0.5, 0.5, 0.9, 0.9)}
    choice = choose(fits)
    assert choice.name == "era"
    assert "0.700 against 0.500" in choice.reason
    assert "+0.200, standard error 0.115, 4 queries" in choice.reason


def test_a_gain_within_one_standard_error_ships_nothing() -> None:
    # Gains -0.3, 0, 0, 0.4: mean 0.025, standard error 0.143.
    choice = choose({"small": _fitted(0.5, 0.5, 0.5, 0.5), "era": _fitted(0.2, 0.5, 0.5, 0.9)})
    assert choice.name == "small"
    assert "era is not better than small by one standard error" in choice.reason


def test_the_rule_looks_at_paired_differences_not_at_the_spread_of_values() -> None:
    # Values spread widely, but every query gains 0.1: the standard error is 0.
    small = np.array([0.0, 0.3, 0.6, 0.9])
    assert choose({"small": _fitted(*small), "era": _fitted(*(small + 0.1))}).name == "era"


def test_a_gain_of_exactly_one_standard_error_is_not_enough() -> None:
    # Gains 0 and 1 (halves are exact): mean 0.5, deviation sqrt(0.5), standard error 0.5.
    assert math.isclose(np.std([0, 1], ddof=1) / math.sqrt(2), 0.5)
    choice = choose({"small": _fitted(0.0, 0.0), "era": _fitted(0.0, 1.0)})
    assert choice.name == "small"


def test_the_best_of_several_is_compared() -> None:
    fits = {
        "small": _fitted(0.1, 0.1, 0.1),
        "aligned": _fitted(0.5, 0.5, 0.5),
        "era": _fitted(0.6, 0.7, 0.8),
        "small+": _fitted(0.4, 0.4, 0.4),
    }
    assert choose(fits).name == "era"


def test_small_ships_where_it_is_best() -> None:
    choice = choose({"small": _fitted(0.6, 0.6), "era": _fitted(0.5, 0.5)})
    assert choice.name == "small"
    assert "no adapter beat" in choice.reason


def test_small_ships_where_one_does_as_well() -> None:
    assert choose({"era": _fitted(0.5, 0.5), "small": _fitted(0.5, 0.5)}).name == "small"


def test_one_validation_query_is_never_enough() -> None:
    assert choose({"small": _fitted(0.0), "era": _fitted(1.0)}).name == "small"


def test_a_candidate_that_is_asked_for_ships_whatever_validation_says() -> None:
    choice = choose({"small": _fitted(0.9, 0.9), "era": _fitted(0.1, 0.1)}, "era")
    assert choice.name == "era"
    assert "--candidate" in choice.reason


def test_an_unknown_candidate_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="No candidate 'best'; there are: small, era"):
        choose({"small": _fitted(0.9), "era": _fitted(0.1)}, "best")


def test_several_collections_count_by_their_judges_up_to_thirty() -> None:
    # Gains of the first: 0, 0.2, 0.4, 0.6, mean 0.3, variance 0.2 / 3, of the mean 0.05 / 3.
    # Of the second: 0.1 and 0.3, mean 0.2, variance 0.02, of the mean 0.01.
    # Weights 4/6 and 2/6: gain 0.267, standard error sqrt(16 * 0.05 / 3 + 4 * 0.01) / 6 = 0.092.
    small = _fitted(0.1, 0.1, 0.1, 0.1, also=[0.4, 0.2])
    era = _fitted(0.1, 0.3, 0.5, 0.7, also=[0.5, 0.5])
    choice = choose({"small": small, "era": era})
    assert choice.name == "era"
    assert "0.433 against 0.167" in choice.reason
    assert "+0.267, standard error 0.092, 6 queries" in choice.reason


def test_what_harms_a_collection_does_not_ship() -> None:
    small = _fitted(*[0.4] * 40, also=[0.4] * 40)
    era = _fitted(*[0.9] * 40, also=[0.3] * 40)  # the best mean, but the second collection loses
    dual = _fitted(*[0.6] * 40, also=[0.5] * 40)
    choice = choose({"small": small, "era": era, "era-dual": dual})
    assert choice.name == "era-dual"
    assert "harmful to a collection: era" in choice.reason


def test_a_large_collection_does_not_outvote_a_small_one() -> None:
    # Over queries the mean rises by 0.05; over collections it falls.
    small = _fitted(*[0.5] * 30, also=[0.9, 0.9])
    era = _fitted(*[0.6] * 30, also=[0.2, 0.2])
    assert np.concatenate(era.values).mean() > np.concatenate(small.values).mean()
    assert choose({"small": small, "era": era}).name == "small"


def test_a_collection_with_one_judging_query_is_never_enough() -> None:
    small = _fitted(*[0.1] * 30, also=[0.1])
    assert choose({"small": small, "era": _fitted(*[0.9] * 30, also=[0.9])}).name == "small"


# Alignment and starts


def test_joined_start_adds_the_scaled_aligned_view() -> None:
    data = fit_data()
    weight = aligned(data.align_large, data.align_small).weight
    views = data.validation.views
    expected = views["small"] + 0.5 * (views["large"] @ weight.T)
    mapped = Adapter(("small", "large"), joined_start(weight, 0.5)).apply(views)
    torch.testing.assert_close(mapped, torch.nn.functional.normalize(expected, dim=1))


def test_spaces_are_aligned_on_the_texts_asked_for() -> None:
    data = fit_data()
    documents = data.align_large, data.align_small
    queries = data.train.views["large"], data.train.views["small"]
    both = [torch.cat(pair) for pair in zip(documents, queries, strict=True)]
    for texts, pair in (("documents", documents), ("queries", queries), ("both", both)):
        config = FitConfig(align_texts=texts)
        found, method = align(parts_of(data, config), config)
        assert method == "procrustes"
        torch.testing.assert_close(found.weight, aligned(*pair).weight)


def test_unknown_alignment_texts_are_refused() -> None:
    config = FitConfig(align_texts="titles")
    with pytest.raises(InputError, match="'titles'; expected one of documents, queries, both"):
        align(parts_of(fit_data(), config), config)


def test_the_alignment_of_several_collections_takes_the_texts_of_all() -> None:
    one, two = fit_data(), fit_data(seed=5)
    found, _ = align(parts_of([one, two], FitConfig()), FitConfig())
    expected = aligned(
        torch.cat([one.align_large, two.align_large]), torch.cat([one.align_small, two.align_small])
    )
    torch.testing.assert_close(found.weight, expected.weight)


def test_auto_takes_the_alignment_that_ranks_best_for_labelled_queries() -> None:
    data = fit_data()
    config = FitConfig(align="auto")
    (part,) = parts_of(data, config)
    tables = (document_references([part], config),)
    means = {}
    for name in ALIGNMENTS:
        found, method = align([part], dataclasses.replace(config, align=name))
        assert method == name
        means[name] = _held_out(found._replace(references=tables), part)
    best, method = align([part], config)
    assert len(set(means.values())) > 1
    assert means[method] == max(means.values())
    assert _held_out(best._replace(references=tables), part) == means[method]


def test_the_scale_of_the_dual_view_is_the_one_whose_start_ranks_best() -> None:
    data = fit_data()
    config = dataclasses.replace(QUICK, scales=(0.0, 0.5, 3.0), strengths=(1e6,))
    (part,) = parts_of(data, config)
    weight = aligned(data.align_large, data.align_small).weight
    tables = (document_references([part], config),)
    means = {}
    for scale in config.scales:
        start = Adapter(("small", "large"), joined_start(weight, scale), references=tables)
        means[scale] = _held_out(start, part)
    found = fit_candidates(data, config).candidates["era-dual"].options["scale"]
    assert means[found] == max(means.values()) > min(means.values())


# Fitting


def test_all_candidates_are_fitted_and_named_to_the_user() -> None:
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "era", "era-dual", "small+"]
    assert set(result.candidates) <= set(CANDIDATES)
    assert [text for text in told if "," not in text] == ["aligned", "era", "era-dual", "small+"]
    assert result.missing == ()
    assert "align" in result.seconds
    assert all(seconds >= 0 for seconds in result.seconds.values())
    views = {name: fit.adapter.views for name, fit in result.candidates.items()}
    assert views == {
        "small": ("small",),
        "aligned": ("large",),
        "era": ("large",),
        "era-dual": ("small", "large"),
        "small+": ("small",),
    }
    json.dumps([fit.options for fit in result.candidates.values()], allow_nan=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.2, 3.0])
def test_what_ships_is_never_below_small_on_validation(seed, noise) -> None:
    result = fit_candidates(fit_data(seed=seed, noise=noise, n_train=10), QUICK)
    fits = result.candidates
    assert fits[result.choice.name].mean >= fits["small"].mean
    # Training starts from the aligned map or from nothing, and never ends below its start.
    assert fits["era"].mean >= fits["aligned"].mean
    assert fits["small+"].mean >= fits["small"].mean


def test_useless_large_vectors_leave_small_or_its_own_training() -> None:
    data = fit_data(noise=50.0)
    result = fit_candidates(data, QUICK)
    assert result.choice.name in ("small", "small+", "era-dual")
    assert result.candidates["aligned"].mean < 0.3 * result.candidates["small"].mean


def test_fitting_depends_on_data_and_configuration_only() -> None:
    one, two = fit_candidates(fit_data(), QUICK), fit_candidates(fit_data(), QUICK)
    assert one.choice == two.choice
    for name, fit in one.candidates.items():
        assert torch.equal(fit.adapter.weight, two.candidates[name].adapter.weight)
        np.testing.assert_array_equal(fit.values, two.candidates[name].values)


def test_all_candidates_are_judged_by_the_same_queries() -> None:
    result = fit_candidates([fit_data(n_train=10), fit_data(seed=1, n_validation=15)], QUICK)
    for fit in result.candidates.values():
        assert [len(values) for values in fit.values] == [50, 55]
    assert result.choice.name in result.candidates


def test_candidates_without_references_can_remember_labelled_queries() -> None:
    config = dataclasses.replace(QUICK, reference_documents=0)
    result = fit_candidates(fit_data(), config)
    assert result.candidates["aligned"].adapter.references == ()
    for fit in result.candidates.values():
        assert {table.view for table in fit.adapter.references} <= set(fit.adapter.views)


def test_a_collection_without_labels_is_left_to_the_others() -> None:
    silent = fit_data(seed=1)
    none = [
        queries._replace(qrels=queries.qrels._replace(relevance=np.zeros(40, dtype=np.int64)))
        for queries in (silent.train, silent.validation)
    ]
    silent = silent._replace(train=none[0], validation=none[1])
    assert len(parts_of([fit_data(), silent], QUICK)) == 1
    with pytest.raises(FitError, match="nothing to learn"):
        parts_of(silent, QUICK)


def _few(n_train: int, n_validation: int) -> FitData:
    return fit_data(n_train=n_train, n_validation=n_validation)


def test_a_single_labelled_query_is_refused() -> None:
    with pytest.raises(FitError, match="cannot both train and judge"):
        fit_candidates(_few(1, 0), QUICK)


def test_without_refit_an_empty_side_is_refused() -> None:
    config = dataclasses.replace(QUICK, refit=False)
    with pytest.raises(FitError, match="cannot both train and judge"):
        parts_of(_few(5, 0), config)
    with pytest.raises(FitError, match="nothing to learn"):
        parts_of(_few(0, 5), config)


def test_two_labelled_queries_are_enough() -> None:
    result = fit_candidates(_few(2, 0), QUICK)
    assert all(len(fit.values[0]) == 2 for fit in result.candidates.values())


@pytest.mark.parametrize("candidate", ["best", "paper"])
def test_fitting_refuses_a_candidate_that_it_does_not_make(candidate) -> None:
    with pytest.raises(InputError, match=f"No candidate '{candidate}'; there are: small, aligned"):
        fit_candidates(fit_data(), QUICK, candidate=candidate)


def test_the_candidate_asked_for_ships() -> None:
    result = fit_candidates(fit_data(), QUICK, candidate="aligned")
    assert result.choice.name == "aligned"
    assert list(result.candidates) == ["small", "aligned", "era", "era-dual", "small+"]


# Interruption


class _Interrupt:
    """Ctrl-C during a candidate; keeps what was told."""

    def __init__(self, during: str) -> None:
        self.told: list[str] = []
        self._during = during

    def __call__(self, text: str) -> None:
        self.told.append(text)
        if text.startswith(f"{self._during}, "):
            raise KeyboardInterrupt


def test_an_interruption_leaves_what_is_ready_to_choose_from() -> None:
    whole = fit_candidates(fit_data(), QUICK)
    result = fit_candidates(fit_data(), QUICK, progress=_Interrupt("era-dual"))
    assert list(result.candidates) == ["small", "aligned", "era"]
    assert result.missing == ("era-dual", "small+")
    assert result.choice == choose(result.candidates)
    assert torch.equal(
        result.candidates["era"].adapter.weight, whole.candidates["era"].adapter.weight
    )


def test_what_an_interruption_left_is_not_fitted_again() -> None:
    whole = fit_candidates(fit_data(), QUICK)
    partial = fit_candidates(fit_data(), QUICK, progress=_Interrupt("era-dual"))
    ready = {"era": partial.candidates["era"]}
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append, ready=ready)
    assert result.candidates["era"] is ready["era"]
    assert not any(text == "era" or text.startswith("era, ") for text in told)
    assert result.missing == ()
    assert list(result.candidates) == list(whole.candidates)
    assert result.choice == whole.choice


def test_a_ready_candidate_joins_although_one_before_it_is_interrupted() -> None:
    whole = fit_candidates(fit_data(), QUICK)
    ready = {"small+": whole.candidates["small+"]}
    result = fit_candidates(fit_data(), QUICK, progress=_Interrupt("era"), ready=ready)
    assert list(result.candidates) == ["small", "aligned", "small+"]
    assert result.missing == ("era", "era-dual")


def test_the_candidate_asked_for_must_have_been_fitted() -> None:
    with pytest.raises(FitError, match=r"Interrupted before small\+ was fitted"):
        fit_candidates(fit_data(), QUICK, candidate="small+", progress=_Interrupt("era"))
    result = fit_candidates(fit_data(), QUICK, candidate="era", progress=_Interrupt("small+"))
    assert result.choice.name == "era"


# The published recipe


def test_the_published_recipe_ships_its_own_adapter() -> None:
    told: list[str] = []
    result = fit_paper(fit_data(), QUICK_PAPER, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "paper"]
    assert result.choice.name == "paper"
    assert told == ["aligned", "paper"]
    assert result.candidates["paper"].adapter.bias is not None


def test_few_judges_try_only_the_dual_view() -> None:
    # era has the best mean, but of 4 judging queries that says little; era-dual gains 0.05, less
    # than its standard error, and ships only where the large model knows the documents.
    fits = {
        "small": _fitted(0.5, 0.5, 0.5, 0.5),
        "era": _fitted(0.9, 0.9, 0.9, 0.9),
        "era-dual": _fitted(0.3, 0.5, 0.7, 0.7),
    }
    assert choose(fits).name == "small"
    fits["era-dual"] = fits["era-dual"]._replace(options={"knows_documents": 1})
    choice = choose(fits)
    assert choice.name == "era-dual"
    assert "few held-out labels" in choice.reason
    worse = {**fits, "era-dual": _fitted(0.3, 0.5, 0.5, 0.5)}
    assert choose(worse).name == "small"
    many = {name: _fitted(*np.tile(fit.values[0], 10)) for name, fit in fits.items()}
    assert choose(many).name == "era"


def test_a_large_model_of_noise_knows_no_documents() -> None:
    data = fit_data(n_train=6, n_validation=6)
    noise = unit(normal(len(data.align_large), 16, seed=9))
    found = {
        known: fit_candidates(data._replace(align_large=large), QUICK).candidates["era-dual"]
        for known, large in ((1, data.align_large), (0, noise))
    }
    assert {known: fit.options["knows_documents"] for known, fit in found.items()} == {1: 1, 0: 0}


def test_the_dual_view_ships_unless_another_is_better_by_a_standard_error() -> None:
    small = _fitted(*[0.2] * 40)
    # Ahead by 0.01 on average; differences of 0.3 either way: a standard error of about 0.05.
    lucky = _fitted(*[0.9, 0.32] * 20)
    dual = _fitted(*[0.6] * 40)
    assert choose({"small": small, "small+": lucky, "era-dual": dual}).name == "era-dual"
    better = _fitted(*[0.65] * 40)
    assert choose({"small": small, "small+": better, "era-dual": dual}).name == "small+"
