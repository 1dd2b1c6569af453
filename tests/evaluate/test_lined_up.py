"""Results lined up: the same queries under every candidate, whatever was fitted and when."""

from __future__ import annotations

import numpy as np
import pytest
from made_results import DOMAINS, MEASURES, NAMES, made_results

from era_cache.errors import FormatError
from era_cache.evaluate.lined_up import SHIPPED, at_home, matrix_of, panel_of, shares_of
from era_cache.evaluate.results import Fit, Results


def _value(fit: Fit, collection: str, candidate: str, measure: int, row: int) -> float | None:
    """One number, straight from a fit; None where it was not measured."""
    for one in fit.measured:
        wanted = fit.chosen if candidate == SHIPPED else candidate
        if one.collection == collection and wanted in one.candidates:
            rows = one.query_rows.tolist()
            if row in rows:
                return float(one.values[one.candidates.index(wanted)][measure][rows.index(row)])
    return None


def _serves(results: Results, fit: Fit, collection: str) -> bool:
    if results.head.protocol == "domain-specific":
        return fit.trained_on == results.head.collections[collection].domain
    return True


@pytest.mark.parametrize(
    "protocol", ["adapter", "each", "general", "leave-one-domain-out", "domain-specific"]
)
@pytest.mark.parametrize("seeds", [(42,), (42, 43, 44)])
def test_a_query_has_the_mean_of_the_shuffles_that_tested_it(protocol, seeds) -> None:
    results = made_results(
        protocol, queries={"alpha": 9, "beta": 30, "gamma": 4}, seeds=seeds, labels=(0.1, 0.2)
    )
    panel = panel_of(results, 0.2)
    assert list(panel.values) == list(DOMAINS)
    for name, values in panel.values.items():
        rows = panel.rows[name].tolist()
        assert rows == sorted(set(rows))
        tested = {
            row
            for fit in results.fits
            for one in fit.measured
            if fit.labels == 0.2 and one.collection == name
            for row in one.query_rows.tolist()
        }
        assert set(rows) == tested
        for i, row in enumerate(rows):
            for c, candidate in enumerate(panel.candidates):
                for m in range(len(MEASURES)):
                    found = [
                        _value(fit, name, candidate, m, row)
                        for fit in results.fits
                        if fit.labels == 0.2 and _serves(results, fit, name)
                    ]
                    found = [value for value in found if value is not None]
                    assert values[i, c, m] == pytest.approx(sum(found) / len(found), abs=1e-12)


def test_means_by_seed_are_means_over_collections_of_means_over_queries() -> None:
    results = made_results("each", queries={"alpha": 9, "beta": 30, "gamma": 4}, seeds=(7, 3))
    panel = panel_of(results, 0.2)
    assert panel.seeds == (3, 7)
    for s, seed in enumerate(panel.seeds):
        for c, candidate in enumerate(panel.candidates):
            for m in range(len(MEASURES)):
                means = []
                for fit in (fit for fit in results.fits if fit.split_seed == seed):
                    (one,) = fit.measured
                    wanted = fit.chosen if candidate == SHIPPED else candidate
                    values = one.values[one.candidates.index(wanted)][m].tolist()
                    means.append(sum(values) / len(values))
                assert panel.by_seed[s, c, m] == pytest.approx(sum(means) / 3, abs=1e-7)


def test_a_seed_that_lacks_a_collection_has_no_mean() -> None:
    results = made_results("each", seeds=(42, 43))
    results = results._replace(fits=results.fits[:-1])
    panel = panel_of(results, 0.2)
    assert np.isfinite(panel.by_seed[0]).all()
    assert np.isnan(panel.by_seed[1]).all()


def test_what_a_collection_lacks_is_in_no_common_comparison() -> None:
    names = (*NAMES, "large")
    results = made_results("general", candidates=names, lacking={"beta": {"large", "aligned"}})
    panel = panel_of(results, 0.2)
    assert panel.candidates == names
    assert panel.common == ("small", "era", "era-dual")
    assert np.isnan(panel.values["beta"][:, [1, 4]]).all()
    assert np.isfinite(panel.values["alpha"]).all()


@pytest.mark.parametrize(
    ("protocol", "seeds", "shipped"),
    [
        ("general", (42,), False),
        ("general", (42, 43), True),
        ("each", (42,), True),
        ("leave-one-domain-out", (42,), True),
        ("domain-specific", (42,), True),
        ("adapter", (42,), False),
    ],
)
def test_shipped_is_a_row_where_there_are_several_fits(protocol, seeds, shipped) -> None:
    panel = panel_of(made_results(protocol, seeds=seeds), 0.2)
    assert (SHIPPED in panel.candidates) == shipped
    assert (panel.candidates[-1] == SHIPPED) == shipped


def test_one_collection_by_itself_has_no_shipped_row() -> None:
    assert SHIPPED not in panel_of(made_results("each", {"alpha": "web"}), 0.2).candidates


def test_a_fit_serves_the_collections_that_its_protocol_means_it_to() -> None:
    results = made_results("domain-specific")
    served = [
        (fit.trained_on, one.collection)
        for fit in results.fits
        for one in fit.measured
        if at_home(results.head, fit, one)
    ]
    assert served == [("web", "alpha"), ("web", "gamma"), ("law", "beta")]
    assert [one.collection for _, one in panel_of(results, 0.2).units] == ["beta", "alpha", "gamma"]
    for protocol, count in (("each", 3), ("general", 3), ("leave-one-domain-out", 3)):
        results = made_results(protocol)
        home = [at_home(results.head, fit, one) for fit in results.fits for one in fit.measured]
        assert home == [True] * count


def test_an_adapter_of_one_collection_says_nothing_of_another() -> None:
    results = made_results("each")
    first, second, third = results.fits
    strayed = second._replace(measured=(*first.measured, *second.measured))
    mixed = panel_of(results._replace(fits=[first, strayed, third]), 0.2)
    panel = panel_of(results, 0.2)
    for name in DOMAINS:
        np.testing.assert_array_equal(mixed.values[name], panel.values[name])


def test_shares_come_smallest_first_and_one_that_was_not_measured_is_said() -> None:
    results = made_results("each", labels=(0.4, 0.05, 0.2))
    assert shares_of(results) == [0.05, 0.2, 0.4]
    with pytest.raises(FormatError, match=r"each over 3: nothing .* at 12.5 %.* only at 5 %, 20 %"):
        panel_of(results, 0.125)
    with pytest.raises(FormatError, match="nothing was measured"):
        panel_of(results._replace(fits=[]), 0.2)


def test_fits_that_serve_no_collection_of_theirs_are_no_measurement() -> None:
    results = made_results("domain-specific")
    results = results._replace(fits=[fit._replace(trained_on="nothing") for fit in results.fits])
    assert shares_of(results) == []
    with pytest.raises(FormatError, match="nothing was measured"):
        panel_of(results, 0.2)


def test_the_order_of_fits_changes_nothing() -> None:
    results = made_results("leave-one-domain-out", seeds=(42, 43), labels=(0.1, 0.2))
    panel, other = (
        panel_of(results._replace(fits=fits), 0.2) for fits in (results.fits, results.fits[::-1])
    )
    assert panel.candidates == other.candidates
    for name in panel.values:
        np.testing.assert_array_equal(panel.values[name], other.values[name])
    one, two = (
        matrix_of(results._replace(fits=fits), 0.2, 1)[:2]
        for fits in (results.fits, results.fits[::-1])
    )
    assert one[1] == two[1]


def test_the_matrix_has_what_each_fit_shipped_on_each_domain() -> None:
    results = made_results(
        "domain-specific", queries={"alpha": 9, "beta": 30, "gamma": 4}, seeds=(42, 43)
    )
    rows, columns, values, baseline = matrix_of(results, 0.2, 1)
    assert rows == columns == ["web", "law"]

    def mean(trained_on: str, domain: str, candidate: str) -> float:
        """Over the collections of a domain, of the mean over shuffles of the mean over queries."""
        of_collections = []
        for name in (n for n, d in DOMAINS.items() if d == domain):
            means = []
            for fit in (fit for fit in results.fits if fit.trained_on == trained_on):
                (one,) = (one for one in fit.measured if one.collection == name)
                wanted = fit.chosen if candidate == SHIPPED else candidate
                numbers = one.values[one.candidates.index(wanted)][1].tolist()
                means.append(sum(numbers) / len(numbers))
            of_collections.append(sum(means) / len(means))
        return sum(of_collections) / len(of_collections)

    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            assert values[i, j] == pytest.approx(mean(row, column, SHIPPED), abs=1e-7)
    # Values were drawn anew for each fit, so that here the baseline depends on the fit.
    for j, column in enumerate(columns):
        expected = sum(mean(row, column, "small") for row in rows) / len(rows)
        assert baseline[j] == pytest.approx(expected, abs=1e-7)


def test_a_cell_of_the_matrix_that_was_not_measured_is_empty() -> None:
    results = made_results("domain-specific")
    first = results.fits[0]._replace(measured=results.fits[0].measured[:1])
    _, columns, values, baseline = matrix_of(results._replace(fits=[first]), 0.2, 1)
    assert columns == ["web", "law"]
    assert np.isfinite(values[0, 0])
    assert np.isnan(values[0, 1])
    assert np.isfinite(baseline[0])
    assert np.isnan(baseline[1])
