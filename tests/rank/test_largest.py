"""The largest of each row, by whatever way they are found: compared with sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from era_cache.rank import largest
from era_cache.rank.largest import falling, highest


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(0, 4),
    n=st.integers(1, 3000),
    k=st.integers(1, 3000),
    kinds=st.sampled_from([2, 50, 10**6]),
    left_out=st.booleans(),
)
def test_the_highest_are_those_of_a_sort(seed, rows, n, k, kinds, left_out) -> None:
    k = min(k, n)
    rng = np.random.default_rng(seed)
    scores = rng.integers(-kinds, kinds, size=(rows, n)).astype(np.float32)
    if left_out:
        scores[:, rng.integers(n)] = -np.inf
    values, columns = highest(torch.from_numpy(scores), k)
    assert columns.dtype == torch.int64
    assert values.shape == columns.shape == (rows, k)
    np.testing.assert_array_equal(np.take_along_axis(scores, columns.numpy(), 1), values)
    assert all(len(set(row)) == k for row in columns.tolist())
    ordered = np.sort(scores, axis=1)[:, n - k :]
    np.testing.assert_array_equal(np.sort(values.numpy(), axis=1), ordered)
    np.testing.assert_array_equal(values[:, -1], ordered[:, 0])  # the lowest is the last


@pytest.mark.parametrize("n", [64, 65, 95, 1000, 1023, 1024])
def test_a_high_score_is_found_wherever_it_stands(n: int) -> None:
    for place in range(n):
        scores = torch.zeros(1, n)
        scores[0, place] = 1.0
        values, columns = highest(scores, 1)
        assert (values.item(), columns.item()) == (1.0, place)


@pytest.mark.parametrize(("n", "k"), [(10, 3), (100, 1), (3000, 11), (3000, 40), (50, 50)])
def test_nan_is_among_the_highest(n: int, k: int) -> None:
    for place in (0, n // 2, n - 1):
        scores = torch.arange(float(n))[None].clone()
        scores[0, place] = torch.nan
        assert highest(scores, k)[0].isnan().any()


@given(
    seed=st.integers(0, 2**31), rows=st.integers(0, 4), n=st.integers(1, 200), k=st.integers(1, 200)
)
def test_keys_fall(seed, rows, n, k) -> None:
    k = min(k, n)
    rng = np.random.default_rng(seed)
    keys = rng.integers(-(2**63), 2**63, size=(rows, n), endpoint=False)
    keys[:, 0] = -(2**63)
    expected = np.sort(keys, axis=1)[:, ::-1][:, :k]
    found = falling(torch.from_numpy(keys), k)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found, expected)
    transposed = torch.from_numpy(np.ascontiguousarray(keys.T)).T  # other layouts
    np.testing.assert_array_equal(falling(transposed, k), expected)


def test_several_threads_find_the_same(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(rng.normal(size=(7, 300)).astype(np.float32))
    keys = torch.from_numpy(rng.integers(-(1 << 62), 1 << 62, size=(7, 300)))
    alone = [*highest(scores, 40), falling(keys, 300)]
    monkeypatch.setattr(largest, "_WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, other in zip(alone, [*highest(scores, 40), falling(keys, 300)], strict=True):
        assert torch.equal(one, other)
