"""Products of matrices: against float64, whatever the shapes; copies of a row tie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.rank import dots as module
from era_cache.rank import processor
from era_cache.rank.dots import dots


@pytest.fixture(params=["convolved", "multiplied"])
def way(request, monkeypatch) -> str:
    """Both libraries, on every machine that has them."""
    if request.param == "convolved" and not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(module, "_convolves", lambda: request.param == "convolved")
    return request.param


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@settings(deadline=None, max_examples=60)
@given(
    m=st.sampled_from([1, 2, 15, 16, 17, 127, 128, 129, 300]),
    n=st.sampled_from([1, 3, 64, 100, 128, 1000]),
    d=st.sampled_from([1, 2, 7, 16, 250, 256]),
    across=st.booleans(),
)
def test_products_are_those_of_float64(m, n, d, across) -> None:
    left, right = normal(m, d), normal(d, n).T if across else normal(n, d)
    found = dots(left, right)
    assert found.shape == (m, n)
    assert found.is_contiguous()
    assert found.dtype == torch.float32
    expected = left.double() @ right.double().T
    np.testing.assert_allclose(found.double(), expected, atol=1e-6 * d + 1e-6)


@pytest.mark.parametrize(("m", "n", "d"), [(0, 5, 3), (5, 0, 3), (0, 0, 3)])
def test_nothing_gives_nothing(way, m, n, d) -> None:
    assert dots(normal(m, d), normal(n, d)).shape == (m, n)


@pytest.mark.parametrize("m", [16, 40, 128, 700])
@pytest.mark.parametrize("d", [60, 256, 385])
def test_copies_of_a_row_tie_wherever_they_are(way, m, d) -> None:
    rows = normal(4, d)
    documents = rows[torch.arange(2111) % 4]
    found = dots(normal(m, d), documents)
    assert (found == found[:, torch.arange(2111) % 4]).all(), way


def test_slices_of_larger_matrices_give_what_copies_give(way) -> None:
    many = normal(900, 96)
    some = many[100:500, 32:]
    assert torch.equal(dots(some, many[5:300, 32:]), dots(some.clone(), many[5:300, 32:].clone()))


def test_what_is_no_number_stays_none(way) -> None:
    left, right = normal(200, 8), normal(300, 8)
    left[3, 2], right[5, 1] = float("nan"), float("inf")
    found = dots(left, right)
    assert found[3].isnan().all()
    assert not found[4, 5].isfinite()
    assert found[4, 6].isfinite()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_convolutions_that_round_are_not_used(monkeypatch) -> None:
    exactly = module._convolved

    def rounded(pixels, filters):
        return exactly(pixels.bfloat16().float(), filters.bfloat16().float())

    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    module._convolves.cache_clear()
    assert module._convolves()
    module._convolves.cache_clear()
    monkeypatch.setattr(module, "_convolved", rounded)
    assert not module._convolves()
    left, right = normal(200, 64), normal(300, 64)
    assert torch.equal(dots(left, right), left @ right.T)
    module._convolves.cache_clear()


def test_a_processor_of_the_library_s_maker_multiplies_by_it(monkeypatch) -> None:
    def none(_pixels, _filters):
        raise AssertionError("convolved")

    monkeypatch.setattr(module, "mkl_is_slow", lambda: False)
    monkeypatch.setattr(module, "_convolved", none)
    module._convolves.cache_clear()
    left, right = normal(200, 64), normal(300, 64)
    assert torch.equal(dots(left, right), left @ right.T)
    module._convolves.cache_clear()


@pytest.mark.parametrize(
    ("machine", "maker", "slow"),
    [
        ("x86_64", "AuthenticAMD", True),
        ("AMD64", "HygonGenuine", True),
        ("x86_64", "GenuineIntel", False),
        ("x86_64", "", False),
        ("aarch64", "AuthenticAMD", False),
    ],
)
def test_mkl_is_slow_on_processors_of_other_makers(monkeypatch, machine, maker, slow) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "_maker", lambda: maker)
    assert processor.mkl_is_slow.__wrapped__() == slow
