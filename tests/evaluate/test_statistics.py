"""Intervals and tests: hand-worked values, brute force, and what seeds promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_cache.evaluate import sign_flips
from era_cache.evaluate.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    paired_randomisation_test,
)


def test_interval_agrees_with_the_normal_theory_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.2, size=400)
    interval = bootstrap_interval(values, seed=1, resamples=20_000)
    half = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_follows_its_level_by_hand() -> None:
    # Two queries, 0 and 1: resampled means are 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    values = np.array([0.0, 1.0])
    assert bootstrap_interval(values, seed=0) == Interval(0.5, 0.0, 1.0)
    assert bootstrap_interval(values, seed=0, level=0.4) == Interval(0.5, 0.5, 0.5)


def test_interval_of_equal_values_is_a_point() -> None:
    assert bootstrap_interval(np.full(7, 0.25), seed=0) == Interval(0.25, 0.25, 0.25)
    assert bootstrap_interval(np.array([0.5]), seed=0) == Interval(0.5, 0.5, 0.5)


def test_interval_depends_on_the_seed_alone() -> None:
    values = np.random.default_rng(0).random(50)
    first = bootstrap_interval(values, seed=1)
    np.random.default_rng(9).random(3)
    assert bootstrap_interval(values, seed=1) == first
    assert bootstrap_interval(values, seed=2) != first


def test_interval_of_more_values_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_flips, "_BLOCK_ELEMENTS", 64)
    values = np.random.default_rng(0).random(100)  # one resample per block
    interval = bootstrap_interval(values, seed=0, resamples=2001)
    half = 1.96 * values.std() / 10
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.array([]), {}),
        (np.array([0.5, np.nan]), {}),
        (np.array([[0.5]]), {}),
        (np.array([0.5]), {"level": 1.0}),
        (np.array([0.5]), {"level": 0.0}),
        (np.array([0.5]), {"resamples": 0}),
    ],
)
def test_interval_refuses_what_has_none(values: np.ndarray, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"number|finite|level|resamples"):
        bootstrap_interval(values, seed=0, **options)


def exact_p(differences: list[int]) -> float:
    """Try all swaps in exact arithmetic: the values are whole multiples of a unit."""
    observed = abs(sum(differences))
    swaps = itertools.product([1, -1], repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(swap, differences, strict=True))) for swap in swaps]
    return sum(total >= observed for total in sums) / len(sums)


@given(
    tenths=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=9),
    seed=st.integers(0, 3),
)
def test_p_value_of_few_queries_is_the_exact_one(tenths: list[tuple[int, int]], seed: int) -> None:
    # Tenths are no binary fractions: equal sums come out unequal in the last bits.
    a, b = (np.array(side) for side in zip(*tenths, strict=True))
    expected = exact_p((a - b).tolist())
    assert paired_randomisation_test(a / 10, b / 10, seed=seed, permutations=512) == expected


def test_p_value_by_hand() -> None:
    # Four queries, all better by the same: only the two uniform swaps of 16 reach the mean.
    a = np.array([0.5, 0.6, 0.7, 0.8])
    assert paired_randomisation_test(a, a - 0.25, seed=0) == 2 / 16
    # 96 queries without a difference change nothing, and leave few enough swaps to try them all.
    a = np.concatenate([a, np.full(96, 0.3)])
    b = np.concatenate([a[:4] - 0.25, np.full(96, 0.3)])
    assert paired_randomisation_test(a, b, seed=0) == 2 / 16


def test_drawn_p_value_is_near_the_exact_one() -> None:
    rng = np.random.default_rng(5)
    a = rng.integers(0, 9, size=12)
    b = rng.integers(0, 8, size=12)
    a[a == b] += 1
    exact = exact_p((a - b).tolist())
    drawn = paired_randomisation_test(a / 8, b / 8, seed=0, permutations=4000)
    assert 0.1 < exact < 0.9
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * (0.25 / 4000) ** 0.5)


def test_drawn_p_value_is_never_zero_and_counts_the_observed() -> None:
    a = np.full(64, 0.5)
    assert paired_randomisation_test(a, np.zeros(64), seed=0, permutations=999) == 1 / 1000


@pytest.mark.parametrize("n", [1, 5, 3000])
def test_identical_systems_have_p_one(n: int) -> None:
    a = np.random.default_rng(0).random(n)
    assert paired_randomisation_test(a, a.copy(), seed=0) == 1.0


def test_p_value_is_two_sided_and_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(40), rng.random(40)
    p = paired_randomisation_test(a, b, seed=3)
    assert paired_randomisation_test(b, a, seed=3) == p
    assert paired_randomisation_test(a, b, seed=3) == p
    assert paired_randomisation_test(a, b, seed=4) != p


def test_p_values_of_no_difference_are_uniform() -> None:
    rng = np.random.default_rng(2)
    p_values = [
        paired_randomisation_test(rng.random(30), rng.random(30), seed=i, permutations=400)
        for i in range(400)
    ]
    for level in (0.1, 0.5, 0.9):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize(
    ("a", "b", "permutations"),
    [
        (np.array([]), np.array([]), 10),
        (np.array([0.1]), np.array([0.1, 0.2]), 10),
        (np.array([np.inf]), np.array([0.1]), 10),
        (np.array([0.1]), np.array([0.2]), 0),
    ],
)
def test_p_value_refuses_what_has_none(a: np.ndarray, b: np.ndarray, permutations: int) -> None:
    with pytest.raises(ValueError, match=r"number|finite|one value per query|permutations"):
        paired_randomisation_test(a, b, seed=0, permutations=permutations)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 by 4 3 2 1 is .02 .03 .06 .04; the last is raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


@given(p=st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(0 <= before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    in_order = [adjusted[i] for i in sorted(range(len(p)), key=p.__getitem__)]
    assert in_order == sorted(in_order)
    level = 0.05
    rejected = 0
    for i, value in enumerate(sorted(p)):
        if value * (len(p) - i) > level:
            break
        rejected += 1
    assert sum(value <= level for value in adjusted) == rejected


@pytest.mark.parametrize("p", [[0.1, -0.1], [1.1], [float("nan")]])
def test_holm_refuses_what_is_no_p_value(p: list[float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm(p)
