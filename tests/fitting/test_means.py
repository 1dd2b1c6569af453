"""Means of many settings at once: those of each alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from era_cache.fitting.means import errors_behind, highest, macro, macros, standard_error


@pytest.mark.parametrize("counts", [(40,), (3, 50), (0, 12), (5, 0, 31)])
def test_settings_are_averaged_as_each_is_alone(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(counts))
    settings = [tuple(rng.random(count) for count in counts) for _ in range(6)]
    means = [macro(values) for values in settings]
    np.testing.assert_allclose(macros(settings), means, rtol=1e-12)
    assert highest(settings) == int(np.argmax(means))
    errors = [
        standard_error([top - mine for top, mine in zip(settings[2], values, strict=True)])
        for values in settings
    ]
    np.testing.assert_allclose(errors_behind(settings, 2), errors, rtol=1e-12)


def test_a_single_query_says_nothing_of_errors() -> None:
    settings = [(np.array([0.5]), np.ones(9)), (np.array([0.7]), np.zeros(9))]
    assert errors_behind(settings, 0).tolist() == [math.inf, math.inf]
