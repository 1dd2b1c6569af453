"""Sums and products of paired vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import normal

from era_cache.errors import FitError
from era_cache.fitting.alignment.moments import Moments, check_rows, moments_of

PRODUCTS = ("large_sum", "small_sum", "large_large", "small_large", "small_small")


def _same(moments: Moments, large: torch.Tensor, small: torch.Tensor) -> None:
    assert moments.count == len(large)
    x, y = large.double().numpy(), small.double().numpy()
    expected = (x.sum(0), y.sum(0), x.T @ x, y.T @ x, y.T @ y)
    for name, product in zip(PRODUCTS, expected, strict=True):
        value = getattr(moments, name)
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value.numpy(), product, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 30), st.integers(1, 40))
def test_rows_in_memory_are_taken_in_blocks(n, block) -> None:
    large, small = normal(n, 4), normal(n, 3, seed=1)
    _same(moments_of(large, small, block), large, small)


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_sum_is_that_of_all_texts_and_changes_neither_part(n, m) -> None:
    large, small = normal(n + m, 4), normal(n + m, 3, seed=1)
    a, b = moments_of(large[:n], small[:n]), moments_of(large[n:], small[n:])
    _same(a + b, large, small)
    _same(a, large[:n], small[:n])
    _same(b, large[n:], small[n:])


def test_centred_moments_are_those_of_centred_rows() -> None:
    large, small = normal(40, 5).double() + 3.0, normal(40, 3, seed=1).double() - 2.0
    moments = moments_of(large, small)
    _same(moments.centred(), large - large.mean(0), small - small.mean(0))
    _same(moments, large, small)


def test_float16_rows_are_multiplied_in_float64() -> None:
    large, small = normal(20, 4).half(), normal(20, 3, seed=1).half()
    _same(moments_of(large, small), large, small)


def test_moments_of_no_text_are_allowed_but_have_no_centre() -> None:
    moments = moments_of(torch.empty(0, 4), torch.empty(0, 3))
    assert moments.count == 0
    with pytest.raises(FitError, match="no text"):
        moments.centred()
    with pytest.raises(FitError, match="no text"):
        moments.require_texts()


def test_equal_vectors_have_no_covariance_although_sums_are_rounded() -> None:
    row = torch.nn.functional.normalize(normal(1, 6), dim=1)
    varied = normal(1000, 6)
    with pytest.raises(FitError, match="All 1000 large vectors are equal"):
        moments_of(row.expand(1000, 6), varied).centred()
    with pytest.raises(FitError, match="All 1 large vectors are equal"):
        moments_of(row, row).centred()
    rounded = torch.cat([row, row * (1 + 2.0**-23)]).repeat(500, 1)  # the last bits differ
    with pytest.raises(FitError, match="All 1000 small vectors are equal"):
        moments_of(varied, rounded).centred()
    # A little variance is enough.
    moments_of(row + 1e-4 * varied, varied).centred()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["large", "small"])
def test_rows_that_are_not_finite_are_refused(side, value) -> None:
    rows = {"large": normal(5, 4), "small": normal(5, 3)}
    rows[side][2, 1] = value
    with pytest.raises(FitError, match=f"The {side} vectors hold NaN or infinity"):
        moments_of(rows["large"], rows["small"])


def test_large_numbers_are_finite() -> None:
    check_rows(torch.full((4, 2), 3e38), torch.ones(4, 2))  # their float32 sum is infinite


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FitError, match="5 large vectors but 6 small"):
        moments_of(normal(5, 4), normal(6, 3))
    with pytest.raises(ValueError, match="matrix"):
        moments_of(normal(5), normal(5))


def test_too_few_rows_are_refused() -> None:
    check_rows(normal(2, 4), normal(2, 3), at_least=2)
    with pytest.raises(FitError, match="There are 1 texts to align with; at least 2"):
        check_rows(normal(1, 4), normal(1, 3), at_least=2)
