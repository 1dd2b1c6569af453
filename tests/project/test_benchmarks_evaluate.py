"""The benchmark of evaluation on tiny inputs: that it runs, and that it notices what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from report_pages import record_of

from benchmarks import evaluate_trec
from benchmarks.evaluate import FULL, QUICK, main
from benchmarks.evaluate_data import CANDIDATES, make_results
from benchmarks.evaluate_errors import refused
from benchmarks.evaluate_report import Page, browser_program, look_at
from benchmarks.evaluate_trec import Judged, compared, measure_bars
from era_cache.evaluate.read_results import read_results
from era_cache.rank.measures import Ranking
from era_cache.types import Qrels


def test_help_names_every_part() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert set(FULL) == set(QUICK)
    assert all(name in result.output for name in FULL)


def few_queries() -> tuple[Judged, Ranking]:
    """Two queries with graded judgements and ties, and one that the run misses."""
    qrels = Qrels(np.array([0, 0, 0, 1, 2]), np.array([0, 3, 1, 2, 4]), np.array([1, 3, -1, 2, 1]))
    rows = np.array([[0, 1, 3, 2], [4, 2, -1, -1], [-1] * 4])
    scores = np.array([[1, 1, 0.5, 2], [0.25, 0.5, 0, 0], [0] * 4], dtype=np.float32)
    return Judged(["a", "b", "c"], ["d1", "d10", "d2", "c", "é"], qrels), Ranking(rows, scores)


def test_values_equal_those_of_trec_eval() -> None:
    found = compared(*few_queries())
    assert found.pairs == 3 * (len(evaluate_trec.MEASURES) + 1)
    assert found.largest <= 1e-12


def test_ties_in_another_order_are_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    judged, ranking = few_queries()
    assert compared(judged, ranking).largest <= 1e-12
    # As read: d2, then d10 before d1 by falling id. Here the tie stands the other way round.
    wrong = np.array([[2, 0, 1, 3], [2, 4, -1, -1], [-1] * 4])
    monkeypatch.setattr(evaluate_trec, "read_run", lambda *_: ranking._replace(doc_rows=wrong))
    found = compared(judged, ranking)
    assert found.largest > 0.01
    assert found.where.startswith("query a, ")


def test_a_random_run_has_ties_and_misses_queries() -> None:
    judged = Judged([f"q{i}" for i in range(60)], [f"d{i}" for i in range(30)], few_queries()[0][2])
    ranking = evaluate_trec._random_run(judged, 1)
    lengths = (ranking.doc_rows >= 0).sum(axis=1)
    assert lengths.min() == 0
    assert lengths.max() > 20
    for rows, scores, length in zip(*ranking, lengths, strict=True):
        assert len(set(rows[:length].tolist())) == length
        assert np.isfinite(scores[:length]).all()
    assert any(len(np.unique(s[:n])) < n for s, n in zip(ranking.scores, lengths, strict=True))


def test_measures_are_timed_over_distinct_judgements_and_results() -> None:
    qrels, ranked = evaluate_trec._synthetic(40, 50, 1000)
    assert len({*zip(qrels.query_rows.tolist(), qrels.doc_rows.tolist(), strict=True)}) == 40 * 20
    assert all(len(set(row)) == 50 for row in ranked.tolist())
    (bar,) = measure_bars(20, 100, rounds=1)
    assert bar.name == "8 measures of 20 queries x 100 results"


def test_made_results_are_read_and_analysed(tmp_path: Path) -> None:
    make_results(tmp_path, collections=2, shares=(0.1, 0.2), seeds=2)
    results = read_results(tmp_path)
    assert len(results.fits) == 8
    for fit in results.fits:
        (one,) = fit.measured
        assert one.candidates == CANDIDATES
        assert 400 <= one.values.shape[2] <= 600
        assert one.values.min() >= 0
        assert one.values.max() <= 1
        ndcg = dict(zip(CANDIDATES, one.values[:, 0].mean(axis=1).tolist(), strict=True))
        assert ndcg["small"] < ndcg["large"]
        assert {"small", fit.chosen} == set(one.scores)
    by_seed = {(f.trained_on, f.split_seed): f.measured[0].query_rows for f in results.fits}
    for fit in results.fits:  # test queries are those of the shuffle, whatever the share
        rows = by_seed[fit.trained_on, fit.split_seed]
        np.testing.assert_array_equal(fit.measured[0].query_rows, rows)
    record = record_of(results)
    assert record["chosen"] == "shipped"


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([[1]], [1, 1, 1, 1]),
        ([[3]], [0.5, 1, 1 / 3, 1 / 3]),
        ([[150]], [0, 0, 1 / 150, 1 / 150]),
        ([[1, 1]], [1, 1, 1, 1]),
    ],
)
def test_made_up_measures_follow_from_ranks(ranks, expected) -> None:
    from benchmarks.evaluate_data import _measures_of

    ease = (2.0 - np.log(np.array(ranks) - 0.5)) / 1.5
    np.testing.assert_allclose(_measures_of(ease)[:, 0], expected)


def test_a_column_must_sort_both_ways() -> None:
    def page(orders):
        return Page([], [], [], orders)

    assert page([[2, 1, 3], [3, 2, 1], [1, 2, 3]]).sorts
    assert not page([[2, 1, 3], [3, 2, 1], [3, 2, 1]]).sorts
    assert not page([[2, 1, 3], [2, 1, 3], [2, 1, 3]]).sorts
    assert not page(None).sorts


def test_a_page_is_looked_at_in_a_browser(tmp_path: Path) -> None:
    program = browser_program()
    if program is None:
        pytest.skip("no chromium on the PATH")
    path = tmp_path / "page.html"
    path.write_text(
        "<!DOCTYPE html><title>t</title><details>"
        "<svg width=9 height=9><rect width=5 height=5></rect></svg></details>"
        "<svg width=9 height=9></svg><img src=missing.png>"
        "<script>console.error('complaint')</script>"
    )
    found = look_at(program, path)
    assert found.drawn == [True, False]
    assert any("complaint" in error for error in found.errors)
    assert len(found.requests) == 2
    assert found.orders is None


def ended(code: int, out: str, err: str) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, out, err)


def test_only_one_message_and_exit_code_1_count_as_refused() -> None:
    assert refused(ended(1, "", "Error: run.trec line 3: a score.\n"))
    assert not refused(ended(0, "", "Error: run.trec line 3: a score.\n"))
    assert not refused(ended(1, "table\n", "Error: run.trec line 3: a score.\n"))
    assert not refused(ended(1, "", "Traceback (most recent call last):\nError: x\n"))
    assert not refused(ended(1, "", ""))


@pytest.mark.parametrize(
    ("module", "options"),
    [("evaluate", ["--only", "agreement", "--only", "protocol"]), ("fit", ["--part", "quality"])],
)
def test_benchmarks_without_any_collection_say_so(tmp_path, module, options) -> None:
    nowhere = {"ERA_COLLECTIONS": str(tmp_path / "none"), "ERA_DEMO": str(tmp_path / "no-demo")}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--quick", "--json", *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Nothing could be measured. Run `make demo`" in done.stderr
    assert {bar["ok"] for bar in json.loads(done.stdout)} == {None}
