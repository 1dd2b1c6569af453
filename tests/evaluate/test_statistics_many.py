"""Many systems over several collections: oracles with the same draws, and long-run promises."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_cache.evaluate import sign_flips
from era_cache.evaluate.statistics import (
    bootstrap_interval,
    detectable_difference,
    effect_size,
    macro_intervals,
    macro_randomisation_tests,
    paired_randomisation_test,
    seed_spread,
)


def random_groups(seed: int, sizes: list[int], m: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.1 * i, 0.2, size=(n, m)) for i, n in enumerate(sizes)]


def looped_interval(groups: list[np.ndarray], j: int, seed: int, resamples: int, level: float):
    """One column's interval, a query at a time."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(g), size=(resamples, len(g))) for g in groups]
    macro = [
        math.fsum(
            math.fsum(g[row, j] for row in d[r]) / len(g)
            for g, d in zip(groups, drawn, strict=True)
        )
        / len(groups)
        for r in range(resamples)
    ]
    low, high = np.quantile(macro, [(1 - level) / 2, (1 + level) / 2])
    return np.mean([g[:, j].mean() for g in groups]), low, high


@pytest.mark.parametrize("sizes", [[7], [1], [3, 20, 11], [5, 5, 1]])
@pytest.mark.parametrize("block", [1, 64, 1 << 21])
def test_intervals_are_those_of_a_loop_over_queries(
    sizes: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_flips, "_BLOCK_ELEMENTS", block)
    groups = random_groups(0, sizes, 3)
    table = macro_intervals(groups, seed=4, resamples=60, level=0.8)
    assert table.shape == (3, 3)
    assert table.dtype == np.float64
    for j in range(3):
        expected = looped_interval(groups, j, seed=4, resamples=60, level=0.8)
        assert table[j] == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_one_group_of_one_column_is_the_bootstrap_interval() -> None:
    values = np.random.default_rng(0).random(50)
    rows = macro_intervals([values[:, None]], seed=1, resamples=300, level=0.9)
    assert tuple(rows[0]) == bootstrap_interval(values, seed=1, resamples=300, level=0.9)
    assert rows[0] == pytest.approx(looped_interval([values[:, None]], 0, 1, 300, 0.9), rel=1e-12)


def test_collections_count_the_same_however_many_queries_they_have() -> None:
    # One query at 1, nine at 0: the mean over collections is 1/2, over queries 1/10.
    groups = [np.ones((1, 1)), np.zeros((9, 1))]
    assert macro_intervals(groups, seed=0).tolist() == [[0.5, 0.5, 0.5]]
    # The interval is a point, for no draw within a collection can change its mean. Were all ten
    # queries drawn together, it would not be:
    pooled = macro_intervals([np.concatenate(groups)], seed=0)
    assert pooled[0, 0] == pytest.approx(0.1)
    assert pooled[0, 1] < pooled[0, 2]


def test_spread_between_collections_is_no_spread_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    near = [rng.normal(0.5, 0.1, size=(200, 1)) for _ in range(4)]
    far = [group + shift for group, shift in zip(near, (-0.4, -0.2, 0.2, 0.4), strict=True)]
    a, b = macro_intervals(near, seed=1), macro_intervals(far, seed=1)
    assert b == pytest.approx(a, abs=1e-12)
    # Standard error of the mean of 4 means of 200 queries, each of deviation 0.1.
    assert a[0, 2] - a[0, 1] == pytest.approx(2 * 1.96 * 0.1 / 800**0.5, rel=0.1)


def test_collections_of_equal_size_are_drawn_apart() -> None:
    # Mirror images: drawn alike, the two would cancel, and the interval would be a point.
    values = np.random.default_rng(0).normal(size=(50, 1))
    low, high = macro_intervals([values, -values], seed=0)[0, 1:]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 100**0.5, rel=0.15)


def test_all_columns_see_the_same_draws() -> None:
    # A constant advantage is a point, though both systems vary; the difference of two columns'
    # resampled means is the resampled mean of their difference.
    rng = np.random.default_rng(0)
    small = rng.random((40, 1))
    table = macro_intervals([np.hstack([small, small + 0.25, -small])], seed=0)
    assert table[1] == pytest.approx(table[0] + 0.25, abs=1e-12)
    assert table[2] == pytest.approx(-table[0, [0, 2, 1]], abs=1e-12)


def test_an_interval_that_ends_at_zero_ends_at_zero() -> None:
    # Queries that cancel in pairs, in tenths that are no binary fractions: the middle of the
    # resampled means is no difference, not 1e-18 on one side of it.
    pairs = np.random.default_rng(0).integers(1, 3, size=(5, 40)) / 10
    table = macro_intervals([np.concatenate([pairs, -pairs])] * 2, seed=0, level=0.001)
    assert table[:, 1:].tolist() == [[0.0, 0.0]] * 40
    assert macro_intervals([np.zeros((9, 2))], seed=0).tolist() == [[0.0] * 3] * 2


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_column_is_the_same_among_others(sizes: list[int], seed: int) -> None:
    groups = random_groups(seed, sizes, 5)
    for group in groups:
        group[::2, 3] = 0.0
    intervals = macro_intervals(groups, seed=seed, resamples=40)
    tests = macro_randomisation_tests(groups, seed=seed, permutations=300)
    order = [4, 0, 3, 1, 2]
    moved = [g[:, order] for g in groups]
    assert macro_intervals(moved, seed=seed, resamples=40) == pytest.approx(
        intervals[order], rel=1e-12, abs=1e-14
    )
    assert macro_randomisation_tests(moved, seed=seed, permutations=300).tolist() == (
        tests[order].tolist()
    )
    for j in range(5):
        alone = [g[:, [j]] for g in groups]
        assert macro_intervals(alone, seed=seed, resamples=40)[0] == pytest.approx(
            intervals[j], rel=1e-12, abs=1e-14
        )
        assert macro_randomisation_tests(alone, seed=seed, permutations=300)[0] == tests[j]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # 1,500 experiments side by side: two collections of unequal size, mean and spread, with
    # skewed values. The true macro mean is (1 + 3) / 2.
    rng = np.random.default_rng(7)
    groups = [
        rng.exponential(1.0, size=(60, 1500)),
        3.0 + 2.0 * (rng.exponential(1.0, size=(150, 1500)) - 1.0),
    ]
    for level in (0.8, 0.95):
        _, low, high = macro_intervals(groups, seed=1, resamples=1000, level=level).T
        covered = np.mean((low <= 2.0) & (high >= 2.0))
        # Three standard errors of the count, and what the percentile bootstrap falls short by.
        assert covered == pytest.approx(level, abs=0.03)
        missed = np.mean(low > 2.0), np.mean(high < 2.0)
        assert sum(missed) == pytest.approx(1 - covered)
        assert min(missed) > (1 - level) / 8


def exact_p(groups: list[list[int]]) -> float:
    """Try all signs of one column in exact arithmetic; the values are multiples of a unit."""
    terms = [Fraction(d, len(group)) for group in groups for d in group if d]
    observed = abs(sum(terms))
    swaps = list(itertools.product([1, -1], repeat=len(terms)))
    reach = [
        abs(sum(s * t for s, t in zip(swap, terms, strict=True))) >= observed for swap in swaps
    ]
    return sum(reach) / len(swaps)


def drawn_p(groups: list[list[int]], seed: int, permutations: int) -> float:
    """Draw the signs of one column's differences, and sum in exact arithmetic."""
    terms = [Fraction(d, len(group)) for group in groups for d in group if d]
    drawn = np.random.default_rng(seed).integers(
        0, 256, size=(permutations, -(-len(terms) // 8)), dtype=np.uint8
    )
    observed = abs(sum(terms))
    count = 1
    for row in np.unpackbits(drawn, axis=1).tolist():
        total = sum(term if bit else -term for bit, term in zip(row, terms, strict=False))
        count += abs(total) >= observed
    return count / (permutations + 1)


@given(
    groups=st.lists(
        st.lists(st.integers(-9, 9), min_size=1, max_size=5), min_size=1, max_size=3
    ).filter(lambda groups: sum(d != 0 for g in groups for d in g) <= 9),
    seed=st.integers(0, 3),
)
def test_p_values_of_few_differences_are_exact(groups: list[list[int]], seed: int) -> None:
    # The second column is of thirds of tenths: equal sums come out unequal in the last bits.
    columns = [np.array([[d, d / 30] for d in group], dtype=np.float64) for group in groups]
    expected = exact_p(groups)
    assert macro_randomisation_tests(columns, seed=seed, permutations=512).tolist() == (
        [expected] * 2
    )


@pytest.mark.parametrize("sizes", [[8], [15], [40], [3, 30, 9], [10, 10]])
def test_drawn_p_values_are_those_of_a_loop_over_signs(sizes: list[int]) -> None:
    rng = np.random.default_rng(len(sizes))
    groups = [rng.integers(-6, 8, size=(n, 4)) for n in sizes]
    for group in groups:
        group[rng.random(group.shape) < 0.1] = 0
    assert any((g == 0).any() for g in groups)
    tests = macro_randomisation_tests([g / 10 for g in groups], seed=3, permutations=40)
    for j in range(4):
        column = [g[:, j].tolist() for g in groups]
        assert sum(d != 0 for c in column for d in c) > 5, "few enough to try them all"
        assert tests[j] == drawn_p(column, seed=3, permutations=40)


def test_one_group_of_one_column_is_the_paired_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, size=(2, 60)) / 4
    differences = (a - b)[:, None]
    assert 0 < np.count_nonzero(differences) < 60
    for seed in range(3):
        together = macro_randomisation_tests([differences], seed=seed, permutations=999)
        assert together.tolist() == [paired_randomisation_test(a, b, seed=seed, permutations=999)]


def test_signs_drawn_in_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = random_groups(2, [20, 41], 2)
    whole = macro_randomisation_tests(groups, seed=0, permutations=4000)
    monkeypatch.setattr(sign_flips, "_BLOCK_ELEMENTS", 640)
    pieces = macro_randomisation_tests(groups, seed=0, permutations=4000)
    # Not the same draws, so the constant is part of what a seed means.
    assert pieces == pytest.approx(whole, abs=0.04)
    few = [group[:6] for group in groups]
    exact = macro_randomisation_tests(few, seed=0, permutations=4096)
    assert exact.tolist() == [round(p * 4096) / 4096 for p in exact.tolist()]
    monkeypatch.setattr(sign_flips, "_BLOCK_ELEMENTS", 12)
    assert macro_randomisation_tests(few, seed=0, permutations=4096).tolist() == exact.tolist()


def test_p_values_weigh_collections_the_same_by_hand() -> None:
    # One query of weight 1 against two of weight 1/2. As sums of 2 d / q: +2, +1, +1 reach
    # the observed 4 only together (2 of 8); +2, -1, -1 sum to 0, which every choice reaches.
    groups = [np.array([[1.0, 1.0]]), np.array([[1.0, -1.0], [1.0, -1.0]])]
    assert macro_randomisation_tests(groups, seed=0).tolist() == [2 / 8, 1.0]
    # In one group the second column sums to -1, as 6 of 8 choices do, or to 3 as the others.
    pooled = macro_randomisation_tests([np.concatenate(groups)], seed=0)
    assert pooled.tolist() == [2 / 8, 1.0]
    # One query at 3 against four whose mean x runs from -1 to 1. Observed 3 - 1 = 2, which
    # every |3 + x| reaches.
    groups = [np.array([[3.0]]), -np.ones((4, 1))]
    assert macro_randomisation_tests(groups, seed=0).tolist() == [1.0]
    groups = [np.array([[3.0]]), np.array([[-1.0], [-1.0], [-1.0], [1.0]])]
    # Observed 3 - 1/2: of 16 choices of signs only the one with x = -1 stays below.
    assert macro_randomisation_tests(groups, seed=0).tolist() == [15 / 16]


def test_p_values_are_two_sided_and_blind_to_the_unit() -> None:
    groups = random_groups(3, [30, 12], 3)
    tests = macro_randomisation_tests(groups, seed=5, permutations=500)
    for factor in (-1.0, 100.0, 2.0**-40):
        scaled = [factor * group for group in groups]
        assert macro_randomisation_tests(scaled, seed=5, permutations=500).tolist() == (
            tests.tolist()
        )
    assert (macro_randomisation_tests(groups, seed=6, permutations=500) != tests).any()


def test_exact_p_values_do_not_depend_on_the_order_of_queries_or_collections() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.integers(-3, 5, size=(n, 4)) / 10 for n in (4, 5, 3)]
    expected = macro_randomisation_tests(groups, seed=0, permutations=4096)
    shuffled = [rng.permutation(group) for group in groups[::-1]]
    found = macro_randomisation_tests(shuffled, seed=1, permutations=4096)
    assert found.tolist() == expected.tolist()


def test_p_values_of_no_difference_err_as_often_as_they_say() -> None:
    # 1,500 experiments side by side, with unequal sizes, unequal spreads, and ties at 0.
    rng = np.random.default_rng(8)
    groups = [rng.normal(0.0, 0.3, size=(25, 1500)), rng.laplace(0.0, 0.1, size=(60, 1500))]
    groups[1][rng.random(groups[1].shape) < 0.3] = 0.0
    tests = macro_randomisation_tests(groups, seed=2, permutations=400)
    for level in (0.01, 0.05, 0.2, 0.5):
        share = np.mean(tests <= level)
        assert share == pytest.approx(level, abs=3.5 * (level * (1 - level) / 1500) ** 0.5)


def test_detectable_difference_is_found_as_often_as_it_says() -> None:
    # 1,000 experiments of 80 queries, each with the true difference that it can just detect.
    noise = np.random.default_rng(9).normal(0.0, 0.2, size=(80, 1000))
    true = np.array([detectable_difference(column) for column in noise.T])
    found = macro_randomisation_tests([noise + true], seed=1, permutations=400) <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.04)


def test_detectable_difference_by_hand() -> None:
    # Differences 1 and -1, eight times each: s * s = 16 / 15, n = 16. z(0.975) = 1.959964,
    # z(0.8) = 0.841621, z(0.9) = 1.281552, z(0.995) = 2.575829.
    differences = np.tile([1.0, -1.0], 8)
    root = (16 / 15) ** 0.5 / 4
    assert detectable_difference(differences) == pytest.approx(2.801585 * root, rel=1e-6)
    assert detectable_difference(differences, power=0.9) == pytest.approx(3.241516 * root, rel=1e-6)
    assert detectable_difference(differences, level=0.01) == pytest.approx(
        3.417450 * root, rel=1e-6
    )
    # Where the difference is does not matter, only how it spreads.
    assert detectable_difference(differences + 5) == pytest.approx(
        detectable_difference(differences)
    )


def test_detectable_difference_without_a_spread() -> None:
    assert detectable_difference(np.array([0.3])) == math.inf
    assert detectable_difference(np.array([0.0])) == math.inf
    # 0.1 has no binary fraction; its mean over seven is not always itself.
    assert detectable_difference(np.full(7, 0.1)) == 0.0
    assert detectable_difference(np.zeros(7)) == 0.0


def test_effect_size_by_hand() -> None:
    # Mean 2, squares of deviations 1 + 0 + 1 over n - 1 = 2: d = 2 / 1.
    assert effect_size(np.array([1.0, 2.0, 3.0])) == 2.0
    assert effect_size(np.array([-1.0, -2.0, -3.0])) == -2.0
    assert effect_size(np.array([1.0, -1.0])) == 0.0
    assert effect_size(np.array([0.0, 0.0, 0.0, 2.0])) == 0.5
    assert effect_size(np.float32([1, 2, 3])) == 2.0


def test_effect_size_without_a_spread() -> None:
    assert effect_size(np.zeros(5)) == 0.0
    assert effect_size(np.zeros(1)) == 0.0
    assert effect_size(np.full(7, 0.1)) == math.inf
    assert effect_size(np.full(7, -0.1)) == -math.inf
    assert effect_size(np.array([-0.2])) == -math.inf
    # The same advantage over values that vary is the same up to rounding.
    values = np.random.default_rng(0).random(100)
    assert len(np.unique((values + 0.1) - values)) > 1
    assert effect_size((values + 0.1) - values) == math.inf


@given(
    differences=st.lists(st.floats(-1, 1).map(lambda d: round(d, 3)), min_size=2, max_size=20),
    factor=st.sampled_from([-3.0, 0.01, 100.0]),
)
def test_effect_size_has_no_unit(differences: list[float], factor: float) -> None:
    d = np.array(differences)
    expected = effect_size(d) * math.copysign(1.0, factor)
    assert effect_size(factor * d) == pytest.approx(expected, rel=1e-9)
    assert detectable_difference(factor * d) == pytest.approx(
        abs(factor) * detectable_difference(d), rel=1e-9
    )


def test_seed_spread_by_hand() -> None:
    # Mean 0.4, squares of deviations 0.01 + 0 + 0.01, over n - 1 = 2.
    assert seed_spread([0.3, 0.4, 0.5]) == pytest.approx(0.1)
    assert seed_spread((1, 3)) == pytest.approx(2**0.5)
    assert seed_spread(np.array([1.0, 3.0])) == pytest.approx(2**0.5)
    assert seed_spread([0.1] * 7) == 0.0
    assert seed_spread([0.3]) is None
    assert seed_spread([]) is None


def test_no_system_has_no_interval_and_no_test() -> None:
    assert macro_intervals([np.empty((4, 0))], seed=0).shape == (0, 3)
    assert macro_randomisation_tests([np.empty((4, 0))], seed=0).shape == (0,)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "at least one group"),
        ([np.ones(3)], "group 0 must have a row for each query"),
        ([np.ones((3, 2)), np.ones((0, 2))], r"group 1 must have a row .* \(0, 2\)"),
        ([np.ones((3, 2)), np.ones((3, 1))], "group 1 has 1, group 0 has 2"),
        ([np.ones((3, 2)), np.array([[0.0, np.nan]])], "group 1 must hold finite numbers"),
        ([np.array([[np.inf]])], "group 0 must hold finite numbers"),
    ],
)
def test_groups_that_are_none_are_refused(groups: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        macro_intervals(groups, seed=0)
    with pytest.raises(ValueError, match=message):
        macro_randomisation_tests(groups, seed=0)


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 1.0}, {"resamples": 0}])
def test_intervals_refuse_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        macro_intervals([np.ones((3, 2))], seed=0, **options)


def test_tests_refuse_no_permutations() -> None:
    with pytest.raises(ValueError, match="permutations must be at least 1, not 0"):
        macro_randomisation_tests([np.ones((3, 2))], seed=0, permutations=0)


@pytest.mark.parametrize("values", [[], [np.nan], [0.1, np.inf], [[0.1, 0.2]]])
def test_sizes_refuse_what_has_none(values: list[float]) -> None:
    for function in (effect_size, detectable_difference):
        with pytest.raises(ValueError, match=r"differences must be (one number|finite)"):
            function(np.array(values, dtype=np.float64))


@pytest.mark.parametrize("values", [[np.nan], [0.1, np.inf], [[0.1, 0.2]]])
def test_seed_spread_refuses_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must be (one number|finite)"):
        seed_spread(values)


@pytest.mark.parametrize(
    ("power", "level"), [(1.0, 0.05), (0.0, 0.05), (0.8, 0.0), (0.8, 1.0), (0.04, 0.05)]
)
def test_detectable_difference_refuses_options_out_of_range(power: float, level: float) -> None:
    with pytest.raises(ValueError, match="0 < level < power < 1"):
        detectable_difference(np.array([0.1, 0.2]), power=power, level=level)
