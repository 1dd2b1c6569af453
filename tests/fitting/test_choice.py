"""Which candidate ships."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.choice import choose
from era_cache.fitting.crossfit import Fitted


def _fitted(*values: float, also: Sequence[float] | None = None) -> Fitted:
    """A candidate with these values, and those of a second collection."""
    collections = [values] if also is None else [values, also]
    adapter = Adapter(("small",), torch.eye(2))
    return Fitted(adapter, tuple(np.array(v, dtype=np.float64) for v in collections), {})


SMALL = {"small": _fitted(0.5, 0.5, 0.5, 0.5)}


@pytest.mark.parametrize(
    ("values", "chosen", "reason"),
    [
        # Gains 0, 0, 0.4, 0.4: mean 0.2, deviation 0.231, standard error 0.1155.
        (
            {"era": (0.5, 0.5, 0.9, 0.9)},
            "era",
            "0.700 against 0.500 of small (+0.200, standard error 0.115, 4 queries",
        ),
        # Gains -0.3, 0, 0, 0.4: mean 0.025, standard error 0.143.
        (
            {"era": (0.2, 0.5, 0.5, 0.9)},
            "small",
            "era is not better than small by one standard error",
        ),
        ({"era": (0.4, 0.4, 0.4, 0.4)}, "small", "no adapter beat"),
        ({"era": (0.5, 0.5, 0.5, 0.5)}, "small", "no adapter beat"),  # as good
        ({"aligned": (0.6,) * 4, "era": (0.6, 0.7, 0.8, 0.9)}, "era", "0.750 against 0.500"),
        # Values spread widely, but every query gains 0.1: differences are paired.
        (
            {"small": (0.0, 0.3, 0.6, 0.9), "era": (0.1, 0.4, 0.7, 1.0)},
            "era",
            "standard error 0.000",
        ),
        # Gains 0 and 1 (halves are exact): mean 0.5, deviation sqrt(0.5), standard error 0.5.
        ({"small": (0.0, 0.0), "era": (0.0, 1.0)}, "small", "not better"),
        ({"small": (0.0,), "era": (1.0,)}, "small", "not better"),  # one query
    ],
)
def test_what_gains_more_than_one_standard_error_of_the_paired_difference_ships(
    values, chosen, reason
) -> None:
    choice = choose(SMALL | {name: _fitted(*own) for name, own in values.items()})
    assert choice.name == chosen
    assert reason in choice.reason


def test_a_candidate_that_is_asked_for_ships_whatever_validation_says() -> None:
    fits = SMALL | {"era": _fitted(0.1, 0.1, 0.1, 0.1)}
    assert choose(fits, "era") == ("era", "asked for with --candidate")
    with pytest.raises(InputError, match="No candidate 'best'; there are: small, era"):
        choose(fits, "best")


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
    fits = {"small": _fitted(*[0.1] * 30, also=[0.1]), "era": _fitted(*[0.9] * 30, also=[0.9])}
    assert choose(fits).name == "small"


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


def test_the_dual_view_ships_unless_another_is_better_by_a_standard_error() -> None:
    fits = {"small": _fitted(*[0.2] * 40), "era-dual": _fitted(*[0.6] * 40)}
    # Ahead by 0.01 on average; differences of 0.3 either way: a standard error of about 0.05.
    lucky, better = _fitted(*[0.9, 0.32] * 20), _fitted(*[0.65] * 40)
    for other, chosen in ((lucky, "era-dual"), (better, "small+")):
        assert choose({**fits, "small+": other}).name == chosen
