"""How sure a mean over queries is, and whether two systems differ.

In: per-query values of a measure, as ``era_cache.measures.evaluate`` gives them.
Out: confidence intervals and p-values. Every random step takes a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.types import FloatArray

__all__ = ["Interval", "bootstrap_interval", "holm", "paired_randomisation_test"]

_BLOCK_ELEMENTS = 1 << 21
"""Random draws held at a time: 16 MiB of them. Part of what a seed means, so a constant."""

_ROUNDING = 1e-12
"""Sums that agree to this share of the largest possible sum are the same sum, added up in
another order; without it, ties with the observed difference would be counted by chance."""


class Interval(NamedTuple):
    """A mean and the two ends of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: FloatArray, *, seed: int, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Estimate how far the mean would move with other queries of the same kind.

    The percentile bootstrap: queries are drawn with replacement, the interval runs between the
    quantiles of the resampled means (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13).

    Args:
        values: (q,) float, one value per query.
        seed: Seed of the draws.
        resamples: How many sets of queries to draw.
        level: Share of the resampled means inside the interval, between 0 and 1.

    Raises:
        ValueError: There is no value, a value is not finite, or an option is out of range.
    """
    _check_values("values", values)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}.")
    rng = np.random.default_rng(seed)
    n = len(values)
    means = np.empty(resamples, dtype=np.float64)
    for begin, end in _blocks(resamples, n):
        drawn = rng.integers(0, n, size=(end - begin, n))
        means[begin:end] = values[drawn].mean(axis=1, dtype=np.float64)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(values.mean(dtype=np.float64)), float(low), float(high))


def paired_randomisation_test(
    a: FloatArray, b: FloatArray, *, seed: int, permutations: int = 10_000
) -> float:
    """Test whether two systems differ in their mean over the same queries.

    If they do not, each query's two values might as well be swapped. The two-sided p-value is
    the share of swaps whose mean difference is at least as large as the observed one (Smucker,
    Allan and Carterette, A comparison of statistical significance tests for information
    retrieval evaluation, CIKM 2007). Drawn swaps are counted as (count + 1) / (permutations + 1),
    which never gives an impossible 0. Where all swaps are no more than ``permutations``, each is
    tried once and the p-value is exact. Queries with equal values change nothing when swapped,
    and are left out first.

    Args:
        a: (q,) float, the values of one system.
        b: (q,) float, the values of the other on the same queries in the same order.
        seed: Seed of the draws.
        permutations: How many swaps to draw, or to try at most.

    Returns:
        The p-value, above 0 and at most 1; 1.0 for identical systems.

    Raises:
        ValueError: There is no value, the lengths differ, a value is not finite, or
            ``permutations`` is below 1.
    """
    _check_values("a", a)
    _check_values("b", b)
    if len(a) != len(b):
        raise ValueError(f"a and b must have one value per query, not {len(a)} and {len(b)}.")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, not {permutations}.")
    differences = a.astype(np.float64) - b.astype(np.float64)
    differences = differences[differences != 0.0]
    n = len(differences)
    if 2**n <= permutations:
        return _count_extreme(differences, _all_signs(n)) / float(2**n)
    drawn = _drawn_signs(n, permutations, np.random.default_rng(seed))
    return (_count_extreme(differences, drawn) + 1) / (permutations + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests so that together they err as seldom as one.

    The step-down method of Holm (A simple sequentially rejective multiple test procedure,
    Scandinavian Journal of Statistics, 1979): the i-th smallest of m is multiplied by
    m - i + 1, and is at least as large as those before it.

    Args:
        p_values: One per test, in any order.

    Returns:
        The adjusted p-values in the order given, at most 1 each.

    Raises:
        ValueError: A value is not between 0 and 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0.0) & (p <= 1.0)):
        raise ValueError(f"p-values must be a list of numbers from 0 to 1, not {p_values}.")
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(value) for value in adjusted]


def _check_values(name: str, values: FloatArray) -> None:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} must be one number per query, not of shape {values.shape}.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite numbers.")


def _blocks(n_rows: int, row_length: int) -> Iterator[tuple[int, int]]:
    """Split rows into pieces of a bounded number of elements."""
    step = max(1, _BLOCK_ELEMENTS // max(1, row_length))
    for begin in range(0, n_rows, step):
        yield begin, min(n_rows, begin + step)


def _all_signs(n: int) -> Iterator[NDArray[np.uint8]]:
    """Yield each of the 2**n choices of n signs once, as rows of bits."""
    for begin, end in _blocks(2**n, n):
        yield ((np.arange(begin, end)[:, None] >> np.arange(n)) & 1).astype(np.uint8)


def _drawn_signs(n: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Yield ``count`` random choices of n signs, as rows of bits."""
    for begin, end in _blocks(count, n):
        packed = rng.integers(0, 256, size=(end - begin, -(-n // 8)), dtype=np.uint8)
        yield np.unpackbits(packed, axis=1, count=n)


def _count_extreme(differences: NDArray[np.float64], signs: Iterator[NDArray[np.uint8]]) -> int:
    """Count the choices of signs whose sum is at least as far from 0 as the observed one."""
    observed = abs(differences.sum()) - _ROUNDING * np.abs(differences).sum()
    count = 0
    for bits in signs:
        # With bits for signs, sum(sign * d) is 2 * sum(bit * d) - sum(d): one matrix product.
        sums = 2.0 * (bits.astype(np.float64) @ differences) - differences.sum()
        count += int(np.count_nonzero(np.abs(sums) >= observed))
    return count
