"""The evaluation record against plain Python over the same values."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_results import DOMAINS, MEASURES, NAMES, made_results
from msgspec import structs, to_builtins
from report_pages import record_of, render_html, render_text

from era_cache.errors import EraError, FormatError, InputError
from era_cache.evaluate.analysis import default_share
from era_cache.evaluate.results import EDGES, Extra, Results
from era_cache.evaluate.statistics import (
    bootstrap_interval,
    macro_intervals,
    macro_randomisation_tests,
)
from era_cache.report.records import Stored

PROTOCOLS = ["adapter", "each", "general", "leave-one-domain-out", "domain-specific"]
UNEVEN = {"alpha": 9, "beta": 60, "gamma": 2}


def _by_query(
    results: Results, labels: float = 0.2
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """candidate -> measure -> collection -> the mean of each tested query, in order of rows."""
    found: dict[str, dict[str, dict[str, dict[int, list[float]]]]] = {}
    fits = [fit for fit in results.fits if fit.labels == labels]
    for fit in fits:
        for one in fit.measured:
            domain = results.head.collections[one.collection].domain
            if results.head.protocol == "domain-specific" and fit.trained_on != domain:
                continue
            for candidate in [*one.candidates, *(["shipped"] if len(fits) > 1 else [])]:
                number = one.candidates.index(fit.chosen if candidate == "shipped" else candidate)
                for m, measure in enumerate(results.head.measures):
                    cells = found.setdefault(candidate, {}).setdefault(measure, {})
                    cells = cells.setdefault(one.collection, {})
                    for row, value in zip(
                        one.query_rows.tolist(), one.values[number][m].tolist(), strict=True
                    ):
                        cells.setdefault(row, []).append(value)
    return {
        candidate: {
            measure: {
                name: [statistics.fmean(cells[name][row]) for row in sorted(cells[name])]
                for name in results.head.collections
                if name in cells
            }
            for measure, cells in measures.items()
        }
        for candidate, measures in found.items()
    }


def _macro(groups: dict[str, list[float]]) -> float:
    return statistics.fmean(statistics.fmean(values) for values in groups.values())


def _differences(a: dict[str, list[float]], b: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [x - y for x, y in zip(a[name], b[name], strict=True)] for name in a}


def _holm(p_values: Sequence[float]) -> list[float]:
    """Each p times the number of tests not yet rejected, never below those before it."""
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        most = max(most, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = most
    return adjusted


def _effect(groups: dict[str, list[float]]) -> float | None:
    """Mean over collections of the mean difference over its standard deviation."""
    effects = []
    for values in groups.values():
        mean = statistics.fmean(values)
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        if deviation < 1e-12:
            if abs(mean) > 1e-12:
                return None
            effects.append(0.0)
        else:
            effects.append(mean / deviation)
    return statistics.fmean(effects)


def _columns(groups: dict[str, list[float]]) -> list[np.ndarray]:
    return [np.array(values)[:, None] for values in groups.values()]


def _estimates(record: dict) -> dict[str, dict[str, dict]]:
    return {row["name"]: row["measures"] for row in record["candidates"]}


# Candidates


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("seeds", "queries"), [((42,), 12), ((42, 43, 44), UNEVEN)])
def test_every_number_of_the_table_is_what_the_values_say(protocol, seeds, queries) -> None:
    results = made_results(protocol, seeds=seeds, queries=queries, labels=(0.1, 0.2))
    record = record_of(results, seed=3)
    json.dumps(record, allow_nan=False)
    values, found = _by_query(results), _estimates(record)
    assert list(found) == [name for name in (*NAMES, "shipped") if name in values]
    others = [name for name in found if name != "small"]
    for measure in MEASURES:
        p_values = {}
        for name in found:
            groups, entry = values[name][measure], found[name][measure]
            low, high = macro_intervals(_columns(groups), seed=3)[0, 1:]
            assert entry["mean"] == pytest.approx(_macro(groups), abs=1e-12)
            assert (entry["low"], entry["high"]) == pytest.approx((low, high), abs=1e-12)
            if name == "small":
                assert set(entry) == {"mean", "low", "high", "sd"}
                continue
            differences = _differences(groups, values["small"][measure])
            low, high = macro_intervals(_columns(differences), seed=3)[0, 1:]
            (p,) = macro_randomisation_tests(_columns(differences), seed=3)
            assert entry["difference"] == pytest.approx(_macro(differences), abs=1e-12)
            assert entry["difference_low"] == pytest.approx(low, abs=1e-12)
            assert entry["difference_high"] == pytest.approx(high, abs=1e-12)
            assert entry["p"] == pytest.approx(p, abs=1e-12)
            effect = _effect(differences)
            assert entry["effect"] == (effect if effect is None else pytest.approx(effect))
            p_values[name] = entry["p"]
        adjusted = _holm([p_values[name] for name in others])
        assert [found[name][measure]["p_holm"] for name in others] == pytest.approx(adjusted)


def test_p_is_the_share_of_all_choices_of_signs_that_reach_the_macro_mean() -> None:
    results = made_results("general", queries={"alpha": 6, "beta": 14, "gamma": 2}, seed=5)
    values, found = _by_query(results), _estimates(record_of(results))
    for name in ("aligned", "era", "era-dual"):
        groups = _differences(values[name]["AP"], values["small"]["AP"])
        weighted = [d / len(group) for group in groups.values() for d in group]
        observed = abs(sum(weighted))
        reached = [
            abs(sum(s * d for s, d in zip(signs, weighted, strict=True))) >= observed - 1e-12
            for signs in itertools.product((1, -1), repeat=len(weighted))
        ]
        assert found[name]["AP"]["p"] == pytest.approx(sum(reached) / len(reached))


def test_one_collection_and_one_fit_need_no_macro_statistics() -> None:
    results = made_results("adapter", {"alpha": "web"}, queries=40)
    record = record_of(results, seed=7)
    (fit,), found = results.fits, _estimates(record)
    (one,) = fit.measured
    for c, name in enumerate(NAMES):
        values = one.values[c, 1].astype(np.float64)
        interval = bootstrap_interval(values, seed=7)
        entry = found[name]["nDCG@10"]
        assert (entry["mean"], entry["low"], entry["high"]) == pytest.approx(interval)
        assert entry["sd"] is None
    assert record["chosen"] == fit.chosen
    assert record["choice_reason"] == f"{fit.reason.capitalize()}."
    assert {"by_collection", "by_domain", "matrix", "curve"} & set(record) == set()
    assert [row["validation"] for row in record["candidates"]] == list(fit.held_out.values())


def test_sd_is_over_the_macro_means_of_the_seeds() -> None:
    results = made_results("leave-one-domain-out", seeds=(1, 2, 3, 4), queries=UNEVEN)
    found = _estimates(record_of(results))
    for m, measure in enumerate(MEASURES):
        for name in (*NAMES, "shipped"):
            means = []
            for seed in (1, 2, 3, 4):
                of_collections = []
                for fit in (fit for fit in results.fits if fit.split_seed == seed):
                    for one in fit.measured:
                        wanted = fit.chosen if name == "shipped" else name
                        row = one.values[one.candidates.index(wanted)][m].tolist()
                        of_collections.append(statistics.fmean(row))
                assert len(of_collections) == 3
                means.append(statistics.fmean(of_collections))
            assert found[name][measure]["sd"] == pytest.approx(statistics.stdev(means), abs=1e-7)


def test_shipped_is_what_was_chosen_in_each_fit() -> None:
    results = made_results("each", seeds=(42, 43))
    record = record_of(results)
    assert record["chosen"] == "shipped"
    counts: dict[str, int] = {}
    for fit in results.fits:
        counts[fit.chosen] = counts.get(fit.chosen, 0) + 1
    assert "each of 6 fits" in record["choice_reason"]
    for name, count in counts.items():
        assert f"{name} {count}" in record["choice_reason"]
    shipped = record["candidates"][-1]
    assert shipped["name"] == "shipped"
    expected = statistics.fmean(fit.held_out[fit.chosen] for fit in results.fits)
    assert shipped["validation"] == pytest.approx(expected)


def test_differences_that_are_all_zero_are_no_error() -> None:
    results = made_results("each", queries=UNEVEN)
    same = [
        fit._replace(
            measured=tuple(
                one._replace(values=np.repeat(one.values[:1], 4, axis=0)) for one in fit.measured
            )
        )
        for fit in results.fits
    ]
    record = record_of(results._replace(fits=same))
    json.dumps(record, allow_nan=False)
    for name, entries in _estimates(record).items():
        for entry in entries.values():
            if name != "small":
                assert (entry["difference"], entry["p"], entry["p_holm"]) == (0.0, 1.0, 1.0)
                assert (entry["difference_low"], entry["difference_high"]) == (0.0, 0.0)
                assert entry["effect"] == 0.0
    queries = record["queries"]
    assert (queries["better"], queries["worse"]) == (0, 0)
    assert queries["wins"] == queries["losses"] == []
    assert queries["equal"] == sum(max(1, n // 2) for n in UNEVEN.values())


def test_a_single_query_has_no_spread_and_breaks_nothing() -> None:
    results = made_results("adapter", {"alpha": "web"}, queries=1, steps=4, seed=2)
    record = record_of(results)
    json.dumps(record, allow_nan=False)
    (row,) = record["gains"]["rows"]
    assert row["detectable"] is None
    (one,) = results.fits[0].measured
    for c, name in enumerate(NAMES):
        entry = _estimates(record)[name]["AP"]
        assert entry["mean"] == entry["low"] == entry["high"] == one.values[c, 0, 0]
        if name != "small":
            equal = one.values[c, 0, 0] == one.values[0, 0, 0]
            assert entry["effect"] == (0.0 if equal else None)
            assert entry["p"] == 1.0


# Candidates that are not everywhere


def test_a_candidate_that_a_collection_lacks_leaves_the_tables_and_is_named() -> None:
    results = made_results(
        "general", candidates=(*NAMES, "large"), lacking={"beta": {"large", "aligned"}}
    )
    record = record_of(results)
    assert [row["name"] for row in record["candidates"]] == ["small", "era", "era-dual"]
    (note,) = [note for note in record["notes"] if note.startswith("Not in the tables")]
    assert "aligned, large" in note
    by_collection = {row["collection"]: row["candidates"] for row in record["by_collection"]}
    assert by_collection["beta"]["large"] is None
    assert by_collection["beta"]["aligned"] is None
    assert by_collection["alpha"]["large"] is not None
    by_domain = {row["domain"]: row["candidates"] for row in record["by_domain"]}
    assert by_domain["law"]["large"] is None
    assert by_domain["web"]["large"] is not None
    assert by_domain["all domains"]["large"] is None
    assert [row["large"] is None for row in record["gains"]["rows"]] == [False, True, False]


def test_a_fit_that_lacks_a_candidate_takes_it_out_of_the_tables() -> None:
    """Else some queries would count under some candidates only."""
    results = made_results("each", seeds=(42, 43))
    first = results.fits[0]
    (one,) = first.measured
    kept = [c for c in NAMES if c in ("small", first.chosen)]
    thinner = one._replace(
        candidates=tuple(kept), values=one.values[[NAMES.index(c) for c in kept]]
    )
    results = results._replace(fits=[first._replace(measured=(thinner,)), *results.fits[1:]])
    names = [row["name"] for row in record_of(results)["candidates"]]
    assert names == [*kept, "shipped"]


def test_without_the_baseline_there_is_nothing_to_compare_with() -> None:
    results = made_results("general", candidates=("aligned", "era"))
    with pytest.raises(FormatError, match="general over 3: these results lack 'small'"):
        record_of(results)


# Collections and domains


def test_gains_are_those_of_the_chosen_candidate_on_each_collection() -> None:
    results = made_results("domain-specific", queries={"alpha": 50, "beta": 9, "gamma": 2})
    record = record_of(results, seed=4)
    values = _by_query(results)
    rows = record["gains"]["rows"]
    assert record["gains"]["candidate"] == "shipped"
    assert [row["collection"] for row in rows] == list(DOMAINS)
    for row in rows:
        name = row["collection"]
        before, after = (values[c]["nDCG@10"][name] for c in ("small", "shipped"))
        differences = [y - x for x, y in zip(before, after, strict=True)]
        assert row["queries"] == len(before)
        assert row["domain"] == DOMAINS[name]
        assert row["baseline"] == pytest.approx(statistics.fmean(before))
        assert row["mean"] == pytest.approx(statistics.fmean(after))
        interval = bootstrap_interval(np.array(differences), seed=4)
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(interval)
        (p,) = macro_randomisation_tests([np.array(differences)[:, None]], seed=4)
        assert row["p"] == pytest.approx(p)
        if len(differences) > 1:
            deviation = statistics.stdev(differences)
            assert row["effect"] == pytest.approx(statistics.fmean(differences) / deviation)
            z = statistics.NormalDist().inv_cdf
            expected = (z(0.975) + z(0.8)) * deviation / math.sqrt(len(differences))
            assert row["detectable"] == pytest.approx(expected)
    assert [row["p_holm"] for row in rows] == pytest.approx(_holm([row["p"] for row in rows]))


def test_domains_count_their_collections_alike_and_the_last_row_domains_alike() -> None:
    results = made_results("each", queries=UNEVEN)
    record = record_of(results)
    values = _by_query(results)
    rows = {row["domain"]: row for row in record["by_domain"]}
    assert list(rows) == ["web", "law", "all domains"]
    for name in (*NAMES, "shipped"):
        means = {c: statistics.fmean(v) for c, v in values[name]["nDCG@10"].items()}
        web, law = (means["alpha"] + means["gamma"]) / 2, means["beta"]
        assert rows["web"]["candidates"][name] == pytest.approx(web)
        assert rows["law"]["candidates"][name] == pytest.approx(law)
        assert rows["all domains"]["candidates"][name] == pytest.approx((web + law) / 2)
    assert [row["collections"] for row in rows.values()] == [2, 1, 3]
    assert [row["queries"] for row in rows.values()] == [5, 30, 35]
    for row in record["by_collection"]:
        for name, mean in row["candidates"].items():
            expected = statistics.fmean(values[name]["nDCG@10"][row["collection"]])
            assert mean == pytest.approx(expected)


def test_counts_of_the_split_are_over_all_collections_of_one_seed() -> None:
    for protocol in PROTOCOLS:
        for seeds in ((42,), (42, 43)):
            split = record_of(made_results(protocol, queries=20, seeds=seeds))["split"]
            assert split["seeds"] == list(seeds)
            assert (split["labels"], split["rule"]) == (0.2, "paper")
            # 20 % of 20 queries train, 1 is for validation, half of them test. An adapter that
            # leaves one of two domains out trains on one or two of the three collections.
            share = 2 if protocol == "leave-one-domain-out" else 1
            assert (protocol, split["train"]) == (protocol, 12 // share)
            assert (protocol, split["validation"]) == (protocol, round(3 / share))
            assert (protocol, split["test"]) == (protocol, 30)


def test_training_queries_of_leave_one_domain_out_are_those_of_a_fit_on_average() -> None:
    """Of four domains, each takes part in three of the fits: no adapter had all 20 queries."""
    domains = {"alpha": "web", "beta": "law", "gamma": "news", "delta": "code", "epsilon": "code"}
    results = made_results("leave-one-domain-out", domains, queries=20, labels=(0.1, 0.2))
    record = record_of(results)
    assert [record["split"][part] for part in ("train", "validation", "test")] == [15, 4, 50]
    assert [point["train"] for point in record["curve"]] == [8, 15]


def test_collections_count_each_test_query_once() -> None:
    results = made_results("each", queries=20, seeds=(42, 43, 44))
    for entry in record_of(results)["collections"]:
        tested = {
            row
            for fit in results.fits
            if fit.trained_on == entry["name"]
            for row in fit.measured[0].query_rows.tolist()
        }
        assert entry["test"] == len(tested) > 10
        assert (entry["queries"], entry["documents"]) == (20, 100)


# Queries, scores, curve


def test_wins_losses_and_points_are_counted_over_all_queries() -> None:
    results = made_results("each", queries={"alpha": 190, "beta": 9, "gamma": 2}, steps=4, seed=1)
    texts = {"alpha": {"alpha-q3": "three"}, "elsewhere": {}}
    found = record_of(results, texts=texts)["queries"]
    values = _by_query(results)
    rows = {
        name: sorted(
            {
                r
                for f in results.fits
                for o in f.measured
                if o.collection == name
                for r in o.query_rows.tolist()
            }
        )
        for name in DOMAINS
    }
    pairs = [
        (name, f"{name}-q{row}", x, y)
        for name in DOMAINS
        for row, x, y in zip(
            rows[name],
            values["small"]["nDCG@10"][name],
            values["shipped"]["nDCG@10"][name],
            strict=True,
        )
    ]
    assert found["better"] == sum(y > x for *_, x, y in pairs)
    assert found["worse"] == sum(y < x for *_, x, y in pairs)
    assert found["equal"] == sum(y == x for *_, x, y in pairs)
    counts: dict[tuple[float, float], int] = {}
    for *_, x, y in pairs:
        counts[x, y] = counts.get((x, y), 0) + 1
    assert {(x, y): n for x, y, n in found["points"]} == counts
    better = sorted((p for p in pairs if p[3] > p[2]), key=lambda p: p[2] - p[3])[:20]
    worse = sorted((p for p in pairs if p[3] < p[2]), key=lambda p: p[3] - p[2])[:20]
    for listed, expected in ((found["wins"], better), (found["losses"], worse)):
        assert [
            (q["collection"], q["query"], q["baseline"], q["value"]) for q in listed
        ] == expected
        for query in listed:
            assert query["difference"] == query["value"] - query["baseline"]
            assert query["text"] == ("three" if query["query"] == "alpha-q3" else None)
    assert len(found["wins"]) == len(found["losses"]) == 20


def test_there_are_at_most_two_thousand_points_however_many_queries() -> None:
    results = made_results("adapter", {"alpha": "web"}, queries=12_000, steps=997)
    record = record_of(results)
    points = record["queries"]["points"]
    assert 500 < len(points) <= 2000
    assert sum(n for *_, n in points) == 6000
    mean = sum(y * n for _, y, n in points) / 6000
    assert mean == pytest.approx(record["gains"]["rows"][0]["mean"], abs=0.01)


def test_scores_are_added_up_over_the_fits_that_serve_a_collection() -> None:
    for protocol in ("each", "domain-specific"):
        results = made_results(protocol, seeds=(42, 43))
        before, after = record_of(results)["scores"]
        assert (before["candidate"], after["candidate"]) == ("small", "shipped")
        assert before["edges"] == EDGES.tolist()
        for entry in (before, after):
            for part in ("positives", "hardest", "others"):
                total = [0] * 80
                for fit in results.fits:
                    for one in fit.measured:
                        if protocol == "each" or fit.trained_on == DOMAINS[one.collection]:
                            name = "small" if entry is before else fit.chosen
                            counts = getattr(one.scores[name], part).tolist()
                            total = [a + b for a, b in zip(total, counts, strict=True)]
                assert entry[part] == total


def test_the_curve_has_every_share_and_every_candidate() -> None:
    results = made_results("each", labels=(0.4, 0.05, 0.2), seeds=(42, 43), queries=20)
    curve = record_of(results, seed=9)["curve"]
    assert [point["labels"] for point in curve] == [0.05, 0.2, 0.4]
    assert [point["train"] for point in curve] == [3, 12, 24]
    for point in curve:
        values = _by_query(results, point["labels"])
        assert list(point["candidates"]) == [*NAMES, "shipped"]
        for name, found in point["candidates"].items():
            groups = values[name]["nDCG@10"]
            expected = macro_intervals(_columns(groups), seed=9)[0]
            assert (found["mean"], found["low"], found["high"]) == pytest.approx(tuple(expected))
            assert found["sd"] > 0


def test_a_share_that_lacks_a_collection_is_no_point_of_the_curve_and_is_named() -> None:
    results = made_results("each", labels=(0.05, 0.2))
    missing = [f for f in results.fits if (f.labels, f.trained_on) != (0.05, "beta")]
    record = record_of(results._replace(fits=missing))
    assert [point["labels"] for point in record["curve"]] == [0.2]
    assert any(note.startswith("Not in the curve") and "5 %" in note for note in record["notes"])


def test_tables_are_about_the_share_asked_for() -> None:
    results = made_results("each", labels=(0.05, 0.2, 0.4))
    assert record_of(results)["split"]["labels"] == 0.2
    record = record_of(results, labels=0.4)
    assert record["split"]["labels"] == 0.4
    assert _estimates(record)["era"]["AP"]["mean"] == pytest.approx(
        _macro(_by_query(results, 0.4)["era"]["AP"])
    )
    with pytest.raises(FormatError, match="at 30 % of the labels, only at 5 %, 20 %, 40 %"):
        record_of(results, labels=0.3)


@pytest.mark.parametrize(
    ("protocol", "labels", "own", "expected"),
    [
        ("each", (0.05, 0.2, 0.4), None, 0.2),
        ("each", (0.05, 0.4), None, 0.4),
        ("each", (0.05, 0.2), 0.05, 0.2),
        ("adapter", (0.05, 0.2), 0.05, 0.05),
        ("adapter", (0.05, 0.4), 0.3, 0.4),
    ],
)
def test_the_default_share(protocol, labels, own, expected) -> None:
    results = made_results(protocol, labels=labels)
    head = structs.replace(
        results.head, configuration={**results.head.configuration, "labels": own}
    )
    assert default_share(results._replace(head=head)) == expected


def test_no_fit_is_no_record() -> None:
    with pytest.raises(FormatError, match="each over 3: these results hold no fit"):
        record_of(made_results("each")._replace(fits=[]))


# What is unfinished


@pytest.mark.parametrize("protocol", ["each", "leave-one-domain-out", "domain-specific"])
def test_an_unfinished_protocol_says_so(protocol) -> None:
    results = made_results(protocol, seeds=(42, 43))
    assert not any("Unfinished" in note for note in record_of(results)["notes"])
    for count in range(1, len(results.fits)):
        part = results._replace(fits=results.fits[:count])
        record = record_of(part)
        json.dumps(record, allow_nan=False)
        render_text(record)
        (note,) = [note for note in record["notes"] if note.startswith("Unfinished")]
        assert f"{count} of {len(results.fits)} fits" in note


def test_fits_of_another_share_do_not_hide_that_some_are_missing() -> None:
    results = made_results("each", labels=(0.1, 0.2))
    planned = results.head.extra.planned
    head = structs.replace(results.head, extra=Extra(planned=planned[3:]))
    part = Results(head, results.query_ids, results.fits[:4])
    assert any("Unfinished: 1 of 3 fits" in note for note in record_of(part)["notes"])


def test_a_collection_that_is_in_no_mean_is_named() -> None:
    results = made_results("each", seeds=(42, 43))
    part = results._replace(fits=[f for f in results.fits if f.trained_on != "beta"])
    record = record_of(part)
    assert [entry["name"] for entry in record["collections"]] == ["alpha", "gamma"]
    assert any("in no mean: beta" in note for note in record["notes"])


# The matrix, and several folders


def test_the_matrix_of_domain_specific_adapters() -> None:
    record = record_of(made_results("domain-specific"))
    matrix = record["matrix"]
    assert matrix["candidate"] == "shipped"
    assert matrix["rows"] == matrix["columns"] == ["web", "law"]
    by_domain = {row["domain"]: row["candidates"] for row in record["by_domain"]}
    for i, domain in enumerate(matrix["rows"]):
        assert matrix["values"][i][i] == pytest.approx(by_domain[domain]["shipped"])


def test_folders_are_compared_by_domain() -> None:
    several = [
        made_results(protocol, queries=UNEVEN, seed=i)
        for i, protocol in enumerate(("each", "general", "leave-one-domain-out"))
    ]
    record = record_of(several[0], others=several[1:])
    matrix = record["matrix"]
    assert matrix["rows"] == [results.head.title for results in several]
    assert matrix["columns"] == ["web", "law", "all domains"]
    for results, row in zip(several, matrix["values"], strict=True):
        alone = record_of(results)
        expected = [entry["candidates"][alone["chosen"]] for entry in alone["by_domain"]]
        assert row == pytest.approx(expected)
    first = [entry["candidates"]["small"] for entry in record["by_domain"]]
    assert matrix["baseline"] == pytest.approx(first)
    assert not any("other test queries" in note for note in record_of(several[0])["notes"])
    render_text(record)


def test_an_unfinished_folder_has_no_mean_of_a_domain_that_it_lacks_a_collection_of() -> None:
    first, second = made_results("each"), made_results("each", seed=1)
    part = second._replace(fits=[fit for fit in second.fits if fit.trained_on != "gamma"])
    values = record_of(first, others=[part])["matrix"]["values"]
    assert values[1][0] is None  # alpha alone is not web
    assert values[1][1] is not None
    assert values[1][2] is None


def test_folders_with_other_test_queries_are_compared_with_a_warning() -> None:
    first, second = made_results("each"), made_results("general", seeds=(42, 43))
    notes = record_of(first, others=[second])["notes"]
    (note,) = [note for note in notes if "other test queries" in note]
    assert "general over 3 has other test queries than each over 3" in note


def test_folders_that_cannot_be_compared_are_refused() -> None:
    first = made_results("each")
    other = made_results("general", {**DOMAINS, "delta": "law"})
    with pytest.raises(InputError, match="general over 4: measured on other collections"):
        record_of(first, others=[other])
    changed = dict(
        first.head.collections, alpha=structs.replace(first.head.collections["alpha"], digest="f")
    )
    other = first._replace(head=structs.replace(first.head, collections=changed))
    with pytest.raises(InputError, match="other versions of them"):
        record_of(first, others=[other])
    with pytest.raises(FormatError, match=r"nothing was measured at 20 %.*only at 40 %"):
        record_of(first, others=[made_results("general", labels=(0.4,))])
    other = first._replace(head=structs.replace(first.head, measures=("AP", "RR"), primary="RR"))
    with pytest.raises(InputError, match="nDCG@10 was not measured"):
        record_of(first, others=[other])


# All of it


def test_what_was_stored_as_int8_is_shown_and_said() -> None:
    results = made_results("adapter", {"alpha": "web"})
    row = Stored(0.5, -0.1, -0.2, 0.1, 0.5)
    int8 = {name: dict.fromkeys(MEASURES, row) for name in NAMES}
    head = structs.replace(results.head, extra=Extra(int8=int8))
    record = record_of(results._replace(head=head))
    assert record["int8"] == to_builtins(int8)
    notes = [note for note in record["notes"] if note.startswith("Stored as int8")]
    assert len(notes) == len({"small", results.fits[0].chosen})
    assert "0.5000 nDCG@10: -0.1000 [-0.2000, +0.1000]" in notes[0]


def test_the_order_of_fits_and_their_storage_change_nothing() -> None:
    for protocol in PROTOCOLS:
        results = made_results(protocol, seeds=(42, 43), labels=(0.1, 0.2), queries=UNEVEN)
        other = results._replace(fits=results.fits[::-1])
        assert json.dumps(record_of(other)) == json.dumps(record_of(results))


@given(
    protocol=st.sampled_from(PROTOCOLS),
    domains=st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["x", "y"]), min_size=2
    ),
    queries=st.integers(1, 9),
    seeds=st.sets(st.integers(0, 5), min_size=1, max_size=3),
    labels=st.sets(st.sampled_from([0.05, 0.2, 1.0]), min_size=1),
    drop=st.integers(0, 3),
    lacking=st.sets(st.sampled_from(["aligned", "large"])),
    steps=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
@hypothesis_settings(max_examples=40)
def test_whatever_was_measured_is_a_record_of_plain_json(
    protocol, domains, queries, seeds, labels, drop, lacking, steps, seed
) -> None:
    if len(set(domains.values())) < 2:
        domains = {**domains, "e": "z"}
    results = made_results(
        protocol,
        domains,
        queries=queries,
        seeds=sorted(seeds),
        labels=sorted(labels),
        candidates=(*NAMES, "large"),
        lacking={next(iter(domains)): lacking},
        steps=steps,
        seed=seed,
    )
    fits = list(results.fits)
    np.random.default_rng(seed).shuffle(fits)
    results = results._replace(fits=fits[drop:] or fits)
    record = record_of(results)
    json.dumps(record, allow_nan=False)
    values = _by_query(results, record["split"]["labels"])
    for name, entries in _estimates(record).items():
        for measure in MEASURES:
            assert entries[measure]["mean"] == pytest.approx(_macro(values[name][measure]))
            assert 0 <= entries[measure]["low"] <= entries[measure]["high"] <= 1 + 1e-9
    assert render_text(record)


def test_a_page_is_made_of_any_of_them() -> None:
    for protocol in ("each", "domain-specific"):
        results = made_results(protocol, labels=(0.1, 0.2), seeds=(42, 43))
        page = render_html(record_of(results, others=[results] if protocol == "each" else []))
        assert protocol in page


def test_every_refusal_is_one_of_ours() -> None:
    results = made_results("domain-specific")
    lost = [fit._replace(trained_on="nowhere") for fit in results.fits]
    with pytest.raises(EraError):
        record_of(results._replace(fits=lost))
    with pytest.raises(EraError):
        record_of(results._replace(fits=lost), labels=0.2)
