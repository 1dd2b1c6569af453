"""How sure a mean over queries is, whether systems differ, and by how much.

In: per-query values of a measure, as ``era_cache.rank.measures.evaluate`` gives them, or per-query
differences of two systems. Several systems are columns of a matrix, several collections are
several such matrices, and their mean is the macro mean: each collection counts the same, however
many queries it has. Out: confidence intervals, p-values and sizes of effects. Every random step
takes a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.evaluate.sign_flips import ROUNDING, blocks, sign_flip_p
from era_cache.types import FloatArray

__all__ = [
    "Interval",
    "bootstrap_interval",
    "detectable_difference",
    "effect_size",
    "holm",
    "macro_intervals",
    "macro_randomisation_tests",
    "paired_randomisation_test",
    "seed_spread",
]


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
    row = macro_intervals([values[:, None]], seed=seed, resamples=resamples, level=level)[0]
    return Interval(*row.tolist())


def macro_intervals(
    groups: Sequence[FloatArray], *, seed: int, resamples: int = 2000, level: float = 0.95
) -> FloatArray:
    """Estimate how far macro means would move with other queries of the same collections.

    The stratified percentile bootstrap: each collection's queries are drawn with replacement,
    the collections stay (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.2). All columns see the same draws, so a column of differences is a paired
    comparison. A column's interval does not depend on its neighbours beyond rounding. A group of
    one query adds nothing to the width. One group of one column is ``bootstrap_interval``.

    Args:
        groups: One (q_g, m) float array for each collection: a row per query, a column per
            system, or per difference of two systems.
        seed: Seed of the draws, which follow the order of the groups.
        resamples: How many sets of queries to draw.
        level: Share of the resampled means inside the interval, between 0 and 1.

    Returns:
        (m, 3) float64: the mean over groups of their means over queries, and the low and the
        high end of its interval.

    Raises:
        ValueError: There is no group, a group has no query, groups differ in their columns, a
            value is not finite, or an option is out of range.
    """
    columns = _check_groups(groups)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}.")
    rng = np.random.default_rng(seed)
    resampled = np.zeros((resamples, len(columns[0])), dtype=np.float64)
    for values in columns:
        n = values.shape[1]
        for begin, end in blocks(resamples, n):
            # How often each query was drawn: one matrix product then sums up every column.
            drawn = rng.integers(0, n, size=(end - begin, n))
            drawn += n * np.arange(end - begin)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
            resampled[begin:end] += counts.astype(np.float64) @ values.T / n
    resampled /= len(columns)
    # Differences that cancel leave crumbs; an end of the interval at 0 must not miss it by one.
    largest = np.mean([np.abs(values).mean(axis=1) for values in columns], axis=0)
    resampled[np.abs(resampled) <= ROUNDING * largest] = 0.0
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    mean = np.mean([values.mean(axis=1) for values in columns], axis=0)
    return np.stack([mean, low, high], axis=1)


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
    differences = a.astype(np.float64) - b.astype(np.float64)
    tests = macro_randomisation_tests([differences[:, None]], seed=seed, permutations=permutations)
    return float(tests[0])


def macro_randomisation_tests(
    groups: Sequence[FloatArray], *, seed: int, permutations: int = 10_000
) -> FloatArray:
    """Test columns of per-query differences for a macro mean other than 0.

    The paired randomisation test with the macro mean for its statistic: the sign of each query's
    difference is flipped at random, and a query of a collection of q weighs 1 / q. One group of
    one column is ``paired_randomisation_test``, where the counting is described. Differences of
    0 are left out, column by column. Each column is tested as if it were alone, with the same
    result to the last bit; columns with equally many differences share the drawn signs.

    Args:
        groups: One (q_g, m) float array of differences for each collection: a row per query, a
            column per pair of systems.
        seed: Seed of the draws.
        permutations: How many choices of signs to draw, or to try at most.

    Returns:
        (m,) float64: two-sided p-values, above 0 and at most 1; 1.0 where all differences are 0.

    Raises:
        ValueError: There is no group, a group has no query, groups differ in their columns, a
            difference is not finite, or ``permutations`` is below 1.
    """
    columns = _check_groups(groups)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, not {permutations}.")
    # Only the proportions of the weights matter. These are 1 where groups are equally large,
    # so that differences stay as they are.
    smallest = min(values.shape[1] for values in columns)
    weighted = np.concatenate([d * (smallest / d.shape[1]) for d in columns], axis=1)
    tests = [sign_flip_p(column[column != 0.0], seed, permutations) for column in weighted]
    return np.array(tests, dtype=np.float64)


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


def effect_size(differences: FloatArray) -> float:
    """Say how large a mean difference is beside its spread over queries.

    Cohen's d of paired values: the mean of the differences / their standard deviation with n - 1
    in the denominator (d_z in Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd
    edition, 1988, page 48).

    Args:
        differences: (q,) float, one difference per query of one collection.

    Returns:
        0.0 where all differences are 0; infinite, with the sign of the mean, where all are the
        same otherwise, as a single one is.

    Raises:
        ValueError: There is no difference, or one is not finite.
    """
    _check_values("differences", differences)
    mean, deviation = float(differences.mean(dtype=np.float64)), _deviation(differences)
    if deviation > 0.0:
        return mean / deviation
    return math.copysign(math.inf, mean) if mean else 0.0


def detectable_difference(
    differences: FloatArray, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Say how large a true mean difference must be for a test on these queries to find it.

    With s the standard deviation of n differences, (z(1 - level / 2) + z(power)) * s / sqrt(n),
    z being quantiles of the normal distribution (Cohen 1988, chapter 2; for numbers of queries
    in retrieval, Sakai, Topic set size design, Information Retrieval Journal 19, 2016). The
    normal distribution stands in for Student's t, which asks for 5 % more at 20 queries and 2 %
    more at 50.

    Args:
        differences: (q,) float, one difference per query of one collection.
        power: Probability of finding it, above ``level`` and below 1.
        level: Level of the two-sided paired test, between 0 and 1.

    Returns:
        The smallest such difference, in the unit of the measure; infinite for a single query,
        which tells nothing of the spread, and 0.0 where all differences are the same.

    Raises:
        ValueError: There is no difference, one is not finite, or an option is out of range.
    """
    _check_values("differences", differences)
    if not 0.0 < level < power < 1.0:
        raise ValueError(f"0 < level < power < 1 is needed, not level {level}, power {power}.")
    n = len(differences)
    if n == 1:
        return math.inf
    z = NormalDist().inv_cdf
    return (z(1.0 - level / 2.0) + z(power)) * _deviation(differences) / math.sqrt(n)


def seed_spread(values: Sequence[float]) -> float | None:
    """Measure how far a result moves with the seed: its sample standard deviation.

    Args:
        values: The same result under different seeds.

    Returns:
        The standard deviation with n - 1 in the denominator; None for fewer than two values.

    Raises:
        ValueError: A value is not finite.
    """
    if not len(values):
        return None
    results = np.asarray(values, dtype=np.float64)
    _check_values("values", results)
    return _deviation(results) if len(results) > 1 else None


def _check_values(name: str, values: FloatArray) -> None:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} must be one number per query, not of shape {values.shape}.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite numbers.")


def _check_groups(groups: Sequence[FloatArray]) -> list[NDArray[np.float64]]:
    """Return the groups with a row per column, (m, q_g) float64, each row contiguous."""
    if not len(groups):
        raise ValueError("there must be at least one group of queries.")
    for number, group in enumerate(groups):
        if group.ndim != 2 or not len(group):
            raise ValueError(
                f"group {number} must have a row for each query and a column for each system, "
                f"not the shape {group.shape}."
            )
        if group.shape[1] != groups[0].shape[1]:
            raise ValueError(
                f"groups must have the same columns: group {number} has {group.shape[1]}, "
                f"group 0 has {groups[0].shape[1]}."
            )
        if not np.all(np.isfinite(group)):
            raise ValueError(f"group {number} must hold finite numbers.")
    return [np.ascontiguousarray(group.T, dtype=np.float64) for group in groups]


def _deviation(values: FloatArray) -> float:
    """Return the sample standard deviation; 0.0 for values that differ by rounding alone."""
    if len(values) < 2:
        return 0.0
    deviation = float(values.std(ddof=1, dtype=np.float64))
    return deviation if deviation > ROUNDING * float(np.abs(values).max()) else 0.0
