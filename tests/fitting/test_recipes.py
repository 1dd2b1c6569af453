"""From data to all candidates, by the default recipe and by the published one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from planted import QUICK, QUICK_PAPER, fit_data, normal, silenced

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.candidates import DEFAULT, TRAINED, VIEWS_READ
from era_cache.fitting.choice import choose
from era_cache.fitting.recipes import FitResult, fit_candidates, fit_paper, parts_of


@pytest.fixture(scope="module")
def whole() -> FitResult:
    return fit_candidates(fit_data(), QUICK)


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


def test_fitting_depends_on_data_and_configuration_only(whole) -> None:
    # Which candidate is asked for decides what ships, and nothing else.
    again = fit_candidates(fit_data(), QUICK, candidate="aligned")
    assert again.choice.name == "aligned"
    assert list(again.candidates) == list(whole.candidates)
    for name, fit in whole.candidates.items():
        assert torch.equal(fit.adapter.weight, again.candidates[name].adapter.weight)
        np.testing.assert_array_equal(fit.values, again.candidates[name].values)


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
    data = fit_data(seed=1)
    silent = data._replace(train=silenced(data.train), validation=silenced(data.validation))
    assert len(parts_of([fit_data(), silent], QUICK)) == 1
    with pytest.raises(FitError, match="nothing to learn"):
        parts_of(silent, QUICK)


@pytest.mark.parametrize(
    ("n_train", "n_validation", "refit", "message"),
    [
        (1, 0, True, "cannot both train and judge"),
        (5, 0, False, "cannot both train and judge"),
        (0, 5, False, "nothing to learn"),
    ],
)
def test_too_few_labelled_queries_are_refused(n_train, n_validation, refit, message) -> None:
    data = fit_data(n_train=n_train, n_validation=n_validation)
    with pytest.raises(FitError, match=message):
        fit_candidates(data, dataclasses.replace(QUICK, refit=refit))


def test_two_labelled_queries_are_enough() -> None:
    result = fit_candidates(fit_data(n_train=2, n_validation=0), QUICK)
    assert all(len(fit.values[0]) == 2 for fit in result.candidates.values())


@pytest.mark.parametrize("candidate", ["best", "paper"])
def test_fitting_refuses_a_candidate_that_it_does_not_make(candidate) -> None:
    with pytest.raises(InputError, match=f"No candidate '{candidate}'; there are: small, aligned"):
        fit_candidates(fit_data(), QUICK, candidate=candidate)


# Interruption


def _interrupt(during: str) -> Callable[[str], None]:
    """Ctrl-C during a candidate."""

    def tell(text: str) -> None:
        if text.startswith(f"{during}, "):
            raise KeyboardInterrupt

    return tell


def test_an_interruption_leaves_what_is_ready_and_that_is_not_fitted_again(whole) -> None:
    partial = fit_candidates(fit_data(), QUICK, progress=_interrupt("era-dual"))
    assert list(partial.candidates) == ["small", "aligned", "era"]
    assert partial.missing == ("era-dual", "small+")
    assert partial.choice == choose(partial.candidates)
    era = partial.candidates["era"]
    assert torch.equal(era.adapter.weight, whole.candidates["era"].adapter.weight)
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append, ready={"era": era})
    assert result.candidates["era"] is era
    assert not any(text == "era" or text.startswith("era, ") for text in told)
    assert result.missing == ()
    assert list(result.candidates) == list(whole.candidates)
    assert result.choice == whole.choice


def test_a_ready_candidate_joins_although_one_before_it_is_interrupted(whole) -> None:
    ready = {"small+": whole.candidates["small+"]}
    result = fit_candidates(fit_data(), QUICK, progress=_interrupt("era"), ready=ready)
    assert list(result.candidates) == ["small", "aligned", "small+"]
    assert result.missing == ("era", "era-dual")


def test_the_candidate_asked_for_must_have_been_fitted() -> None:
    with pytest.raises(FitError, match=r"Interrupted before small\+ was fitted"):
        fit_candidates(fit_data(), QUICK, candidate="small+", progress=_interrupt("era"))
    result = fit_candidates(fit_data(), QUICK, candidate="era", progress=_interrupt("small+"))
    assert result.choice.name == "era"


def test_a_large_model_of_noise_knows_no_documents() -> None:
    data = fit_data(n_train=6, n_validation=6)
    noise = unit(normal(len(data.align_large), 16, seed=9))
    for known, large in ((1, data.align_large), (0, noise)):
        fits = fit_candidates(data._replace(align_large=large), QUICK).candidates
        assert fits["era-dual"].options["knows_documents"] == known


# The published recipe


def test_the_published_recipe_ships_its_own_adapter() -> None:
    told: list[str] = []
    result = fit_paper(fit_data(), QUICK_PAPER, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "paper"]
    assert result.choice.name == "paper"
    assert told == ["aligned", "paper"]
    assert result.candidates["paper"].adapter.bias is not None
