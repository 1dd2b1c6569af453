"""Measures: hand-worked values, and agreement with trec_eval (through pytrec_eval)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import qrels_of

from era_cache.errors import InputError
from era_cache.rank import measures
from era_cache.rank.definitions import MEASURES, Definition, Judged, Values
from era_cache.rank.measures import (
    Measure,
    evaluate,
    evaluate_each,
    mean,
    parse_measure,
    relevance_of,
)
from era_cache.rank.ties import tie_order
from era_cache.types import Qrels

UNJUDGED = -9
TREC_NAMES = {"nDCG": "ndcg", "AP": "map", "RR": "recip_rank"}
"""Measures by the names that trec_eval is asked for; it answers with ``_`` for the dot."""
TREC_NAMES |= {
    f"{ours}@{depth}": f"{theirs}.{depth}"
    for ours, theirs, depths in (
        ("nDCG", "ndcg_cut", (3, 10)),
        ("AP", "map_cut", (2, 100)),
        ("R", "recall", (3, 100)),
        ("P", "P", (8, 10)),
        ("Success", "success", (2, 10)),
    )
    for depth in depths
}


def assert_equals_trec_eval(scores: np.ndarray, present: np.ndarray, grades: np.ndarray) -> None:
    """Compare all measures per query; a query that trec_eval leaves out counts 0."""
    n_queries, n_docs = scores.shape
    doc_ids = [f"d{row}" for row in range(n_docs)]  # d10 < d9: order by id is not order by row
    doc_rows = np.full((n_queries, n_docs), -1, dtype=np.int64)
    for query in range(n_queries):
        rows = np.flatnonzero(present[query])
        ranked = sorted(rows, key=lambda row: (scores[query, row], doc_ids[row]), reverse=True)
        doc_rows[query, : len(ranked)] = ranked
    judged = np.argwhere(grades != UNJUDGED)
    qrels = qrels_of(*[(q, d, grades[q, d]) for q, d in judged])
    measures = [parse_measure(name) for name in TREC_NAMES]
    ours = evaluate(doc_rows, qrels, measures, n_docs)

    trec_qrels: dict[str, dict[str, int]] = {}
    for query, doc in judged:
        if grades[query].max() < 0:
            continue  # pytrec_eval writes outside its memory if all grades are negative
        trec_qrels.setdefault(f"q{query}", {})[doc_ids[doc]] = int(grades[query, doc])
    run = {
        f"q{query}": {doc_ids[d]: float(scores[query, d]) for d in np.flatnonzero(present[query])}
        for query in range(n_queries)
    }
    # One at a time: of several cutoffs of a measure it would keep one.
    for measure, asked in zip(measures, TREC_NAMES.values(), strict=True):
        theirs = pytrec_eval.RelevanceEvaluator(trec_qrels, {asked}).evaluate(run)
        answer = asked.replace(".", "_")
        expected = [theirs.get(f"q{query}", {}).get(answer, 0.0) for query in range(n_queries)]
        np.testing.assert_allclose(ours[measure], expected, rtol=0, atol=1e-6, err_msg=str(measure))


@pytest.mark.parametrize("seed", range(4))
def test_equals_trec_eval_on_random_runs_deeper_than_every_cutoff(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (25, 260)
    scores = rng.integers(0, 40, size=shape).astype(np.float32) / 8  # many ties
    present = rng.random(shape) < rng.random((shape[0], 1))  # some queries miss most documents
    grades = rng.choice(
        [UNJUDGED, -1, 0, 1, 2, 3], p=[0.7, 0.05, 0.1, 0.05, 0.05, 0.05], size=shape
    )
    assert_equals_trec_eval(scores, present, grades)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n_queries=st.integers(0, 3), n_docs=st.integers(1, 14))
def test_equals_trec_eval_on_small_runs_of_any_kind(data, n_queries, n_docs) -> None:
    def table(elements: st.SearchStrategy[int]) -> np.ndarray:
        size = n_queries * n_docs
        cells = data.draw(st.lists(elements, min_size=size, max_size=size))
        return np.array(cells, dtype=np.int64).reshape(n_queries, n_docs)

    scores = table(st.integers(-2, 2)).astype(np.float32)
    present = table(st.integers(0, 1)).astype(bool)
    grades = table(st.sampled_from([UNJUDGED, UNJUDGED, -2, -1, 0, 1, 2, 5]))
    assert_equals_trec_eval(scores, present, grades)


def test_tie_order_is_the_order_in_which_trec_eval_reads_equal_scores() -> None:
    doc_ids = ["a", "b", "B", "10", "9", "é", "z", "aa", "\U0001f600", "\uffee"]
    ranks = tie_order(doc_ids)
    for row, doc_id in enumerate(doc_ids):
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {doc_id: 1}}, {"recip_rank"})
        value = evaluator.evaluate({"q": dict.fromkeys(doc_ids, 1.0)})["q"]["recip_rank"]
        assert ranks[row] == round(1 / value) - 1


def test_ndcg_and_rr_with_a_cutoff_by_hand() -> None:
    # The grade is the gain, and the ideal is made of all judgements; the rest is trec_eval's word.
    qrels = qrels_of((0, 5, 3), (0, 6, 1), (0, 7, 2), (0, 8, -4))
    dcg, ideal = 1 + 3 / 2, 3 + 2 / math.log2(3) + 1 / 2
    expected = {"nDCG@3": dcg / ideal, "nDCG": dcg / ideal, "nDCG@1": 1 / 3, "RR@1": 1.0}
    for text, value in expected.items():
        found = evaluate(np.array([[6, 8, 5]]), qrels, [parse_measure(text)], 20)
        assert found[parse_measure(text)].tolist() == [pytest.approx(value, abs=1e-12)]
    late = evaluate(np.array([[8, 9, 6]]), qrels, [Measure("RR", 2), Measure("RR", 3)], 20)
    assert [values.tolist() for values in late.values()] == [[0.0], [pytest.approx(1 / 3)]]


def test_grades_equal_a_dictionary_lookup_and_are_zero_for_padding() -> None:
    rng = np.random.default_rng(3)
    pairs = rng.permutation(40 * 30)[:300]
    qrels = Qrels(pairs // 30, pairs % 30, rng.integers(-2, 4, size=300))
    ranking = np.argsort(rng.random((40, 30)), axis=1)[:, :17]
    # The key of row -1 would be that of the last document of the query before.
    ranking[::2, 9:] = -1
    judged = {(q, d): g for q, d, g in zip(*(c.tolist() for c in qrels), strict=True)}
    expected = [[judged.get((q, d), 0) for d in row] for q, row in enumerate(ranking.tolist())]
    assert relevance_of(ranking, qrels, 30).tolist() == expected


def test_several_rankings_are_evaluated_as_each_alone() -> None:
    rng = np.random.default_rng(4)
    pairs = rng.permutation(20 * 30)[:90]
    qrels = Qrels(pairs // 30, pairs % 30, rng.integers(-1, 4, size=90))
    measures = [parse_measure(name) for name in ("nDCG@10", "RR", "R@5", "AP")]
    rankings = [np.argsort(rng.random((20, 30)), axis=1)[:, :k] for k in (12, 3, 30)]
    for ranking, found in zip(rankings, evaluate_each(rankings, qrels, measures, 30), strict=True):
        for measure, values in evaluate(ranking, qrels, measures, 30).items():
            assert found[measure].tolist() == values.tolist()
    assert evaluate_each([], qrels, measures, 30) == []


@pytest.mark.parametrize("most", [0, 1 << 26])
def test_grades_are_found_in_a_table_and_without_one(monkeypatch, most: int) -> None:
    monkeypatch.setattr(measures, "_TABLE", most)
    judged = {(0, 0): 3, (1, 4): 1, (3, 5): 2, (3, 0): -1}  # the first pair and the last
    rows, docs = (np.array(column) for column in zip(*judged, strict=True))
    qrels = Qrels(rows, docs, np.array(list(judged.values())))
    ranking = np.array(
        [[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, -1], [0] + 5 * [-1], [0, 1, 2, 3, 4, 5]]
    )
    wanted = [[judged.get((q, d), 0) for d in row] for q, row in enumerate(ranking.tolist())]
    assert relevance_of(ranking, qrels, 6).tolist() == wanted


@pytest.mark.parametrize(
    ("ranking", "judged"),
    [
        ([0, 1], (0, 0, 1)),
        *(([[0, row]], (0, 0, 1)) for row in (3, -2)),
        *(([[0, 1]], (query, 0, 1)) for query in (1, -1)),
        *(([[0, 1]], (0, doc, 1)) for doc in (3, -1)),
    ],
)
def test_rows_out_of_range_are_refused(ranking, judged) -> None:
    with pytest.raises(ValueError, match=r"out of range|shape"):
        evaluate(np.array(ranking), qrels_of(judged), [Measure("RR")], 3)


@pytest.mark.parametrize(
    "measure", [Measure("P"), Measure("nDCG", 0), Measure("ndcg", 10), Measure("Recall", 10)]
)
def test_measures_made_by_hand_are_checked(measure: Measure) -> None:
    with pytest.raises(ValueError, match="Measure"):
        evaluate(np.array([[0]]), qrels_of((0, 0, 1)), [measure], 1)


@pytest.mark.parametrize(
    ("text", "measure", "printed"),
    [
        ("nDCG@10", Measure("nDCG", 10), "nDCG@10"),
        ("NDCG", Measure("nDCG"), "nDCG"),
        ("recall@100", Measure("R", 100), "R@100"),
        ("r@5", Measure("R", 5), "R@5"),
        ("MRR", Measure("RR"), "RR"),
        ("mrr@10", Measure("RR", 10), "RR@10"),
        ("MAP@100", Measure("AP", 100), "AP@100"),
        (" p@010 ", Measure("P", 10), "P@10"),
        ("success@1", Measure("Success", 1), "Success@1"),
    ],
)
def test_measures_are_read_in_any_case_and_printed_in_one(
    text: str, measure: Measure, printed: str
) -> None:
    assert parse_measure(text) == measure
    assert str(measure) == printed
    assert parse_measure(printed) == measure


@pytest.mark.parametrize(
    ("hint", "texts"),
    [
        ("nDCG, R@k, RR, AP, P@k, Success@k", ["bpref", "", "@10", "precision"]),
        ("R@10", ["R"]),
        ("Success@10", ["success"]),
        ("at least 1", [f"nDCG@{depth}" for depth in ("", 0, -1, 1.5, "1_0", "\u0661")]),
        ("at most 9 digits", ["nDCG@" + "9" * 5000]),
    ],
)
def test_wrong_measures_are_refused_with_a_hint(hint, texts) -> None:
    for text in texts:
        with pytest.raises(InputError) as caught:
            parse_measure(text)
        assert hint in str(caught.value)


def test_mean_of_values_and_of_none() -> None:
    assert mean(np.array([0.0, 0.25, 0.5])) == 0.25
    with pytest.raises(ValueError, match="at least one query"):
        mean(np.array([]))


def test_a_measure_from_outside_is_one_line_of_registration(monkeypatch) -> None:
    def bpref_like(judged: Judged, cutoff: int | None) -> Values:
        return judged.total(judged.found.cut(cutoff)) / 100

    monkeypatch.setitem(MEASURES, "Hits", Definition(bpref_like, aliases=("found",)))
    ranking = np.array([[2, 0, 1], [1, 2, 0]])
    qrels = qrels_of((0, 2, 1), (0, 1, 1), (1, 0, 1))
    measures = [parse_measure(text) for text in ("found@2", "Hits")]
    values = evaluate(ranking, qrels, measures, 3)
    assert [str(measure) for measure in values] == ["Hits@2", "Hits"]
    assert [found.tolist() for found in values.values()] == [[0.01, 0.0], [0.02, 0.01]]


@pytest.mark.parametrize(
    ("ranking", "judged", "message"),
    [
        (
            [[0, 3]],
            (0, 0, 1),
            r"A document row of the ranking .*: 0\.\.3 .*, -1\.\.2 are allowed\.",
        ),
        ([[0, 1]], (0, 4, 1), r"A document row of the qrels .*: 4\.\.4 .*, 0\.\.2 are allowed\."),
        ([[0, 1]], (1, 0, 1), r"A query row of the qrels .*: 1\.\.1 .*, 0\.\.0 are allowed\."),
    ],
)
def test_rows_out_of_range_are_told_with_what_is_allowed(ranking, judged, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(np.array(ranking), qrels_of(judged), [parse_measure("RR")], 3)
