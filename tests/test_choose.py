"""Which candidate ships."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from planted import QUICK, QUICK_PAPER, fit_data

from era_cache.adapters import Adapter
from era_cache.choose import CANDIDATES, choose, fit_candidates, fit_paper
from era_cache.errors import InputError
from era_cache.train import Fitted


def _fitted(*values: float) -> Fitted:
    return Fitted(Adapter(("small",), torch.eye(2)), np.array(values), {})


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


def test_all_candidates_are_fitted_and_named_to_the_user() -> None:
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "era", "era-dual", "small+"]
    assert set(result.candidates) <= set(CANDIDATES)
    assert told == ["aligned", "era", "era-dual", "small+"]
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


def test_the_published_recipe_ships_its_own_adapter() -> None:
    told: list[str] = []
    result = fit_paper(fit_data(), QUICK_PAPER, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "paper"]
    assert result.choice.name == "paper"
    assert told == ["aligned", "paper"]
    assert result.candidates["paper"].adapter.bias is not None
