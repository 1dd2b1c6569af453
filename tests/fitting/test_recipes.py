"""From data to all candidates, by the default recipe and by the published one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from planted import QUICK, QUICK_PAPER, fit_data, normal

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.candidates import DEFAULT, TRAINED, VIEWS_READ
from era_cache.fitting.choice import choose
from era_cache.fitting.recipes import fit_candidates, fit_paper, parts_of
from era_cache.fitting.tensors import FitData


def test_all_candidates_are_fitted_and_named_to_the_user() -> None:
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append)
    assert tuple(result.candidates) == DEFAULT == ("small", "aligned", "era", "era-dual", "small+")
    assert [text for text in told if "," not in text] == ["aligned", *TRAINED]
    assert result.missing == ()
    assert "align" in result.seconds
    assert all(seconds >= 0 for seconds in result.seconds.values())
    for name, fit in result.candidates.items():
        assert fit.adapter.views == VIEWS_READ[name]
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
    assert tuple(result.candidates) == DEFAULT


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


def test_a_large_model_of_noise_knows_no_documents() -> None:
    data = fit_data(n_train=6, n_validation=6)
    noise = unit(normal(len(data.align_large), 16, seed=9))
    found = {
        known: fit_candidates(data._replace(align_large=large), QUICK).candidates["era-dual"]
        for known, large in ((1, data.align_large), (0, noise))
    }
    assert {known: fit.options["knows_documents"] for known, fit in found.items()} == {1: 1, 0: 0}


# The published recipe


def test_the_published_recipe_ships_its_own_adapter() -> None:
    told: list[str] = []
    result = fit_paper(fit_data(), QUICK_PAPER, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "paper"]
    assert result.choice.name == "paper"
    assert told == ["aligned", "paper"]
    assert result.candidates["paper"].adapter.bias is not None
