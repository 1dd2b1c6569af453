"""Runs of other systems: read in every form, laid over a collection, measured as trec_eval does."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.errors import InputError
from era_cache.evaluate.runs import load_run, place_run
from era_cache.rank.measures import evaluate, parse_measure
from era_cache.types import Qrels

Scores = dict[str, dict[str, float]]
Grades = dict[str, dict[str, int]]


def trec_run(run: Scores) -> str:
    return "".join(f"{q} Q0 {d} 0 {s!r} t\n" for q, docs in run.items() for d, s in docs.items())


FORMS: list[Callable[[Scores], str]] = [trec_run, json.dumps]


def put(path: Path, text: str | bytes, *, packed: bool = False) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


QUERIES = ["q1", "q2", "10", "é"]
DOCS = [f"d{n}" for n in range(12)] + ["D", "z"]
NUMBERS = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.floats(-1e6, 1e6, allow_nan=False, width=32)
)
RUNS = st.dictionaries(
    st.sampled_from([*QUERIES, "{q"]),
    st.dictionaries(st.sampled_from([*DOCS, "文", "elsewhere"]), NUMBERS, min_size=1, max_size=12),
    min_size=1,
)
JUDGED = st.fixed_dictionaries(
    {
        query: st.dictionaries(st.sampled_from(DOCS), st.integers(-1, 3), min_size=1, max_size=8)
        for query in QUERIES
    }
)
THEIRS = {
    "nDCG": "ndcg",
    "nDCG@5": "ndcg_cut_5",
    "AP": "map",
    "RR": "recip_rank",
    "R@5": "recall_5",
    "P@5": "P_5",
    "Success@5": "success_5",
}
ASKED = {"ndcg", "ndcg_cut.5", "map", "recip_rank", "recall.5", "P.5", "success.5"}


def trec_eval(grades: Grades, run: Scores, query: str) -> list[float]:
    """What trec_eval gives a query; 0 where the run lacks it."""
    if query not in run:
        return [0.0] * len(THEIRS)
    found = pytrec_eval.RelevanceEvaluator({query: grades[query]}, ASKED).evaluate(
        {query: run[query]}
    )
    return [found[query][theirs] for theirs in THEIRS.values()]


@settings(max_examples=150)
@given(run=RUNS, grades=JUDGED, form=st.sampled_from(FORMS), packed=st.booleans())
def test_a_run_in_any_form_measures_as_trec_eval_says(
    tmp_path_factory: pytest.TempPathFactory,
    run: Scores,
    grades: Grades,
    form: Callable[[Scores], str],
    packed: bool,
) -> None:
    documents = {doc for docs in run.values() for doc in docs}
    if not set(run) & set(QUERIES) or not documents & set(DOCS):
        return
    path = put(tmp_path_factory.getbasetemp() / "run", form(run), packed=packed)
    placed = place_run(path, load_run(path), QUERIES, DOCS, depth=1000)
    assert placed.missing_queries == len(set(QUERIES) - set(run))
    assert set(placed.unknown_documents) == documents - set(DOCS)
    pairs = [(q, d, g) for q, docs in grades.items() for d, g in docs.items()]
    columns = [
        np.array([QUERIES.index(q) for q, _, _ in pairs]),
        np.array([DOCS.index(d) for _, d, _ in pairs]),
        np.array([g for *_, g in pairs]),
    ]
    measures = [parse_measure(name) for name in THEIRS]
    values = evaluate(placed.ranking.doc_rows, Qrels(*columns), measures, placed.n_docs)
    judged = [q for q, docs in grades.items() if max(docs.values()) > 0]  # trec_eval needs one
    for row, query in ((QUERIES.index(query), query) for query in judged):
        ours = [values[measure][row] for measure in measures]
        np.testing.assert_allclose(ours, trec_eval(grades, run, query), rtol=0, atol=1e-6)


RUN: Scores = {"q1": {"d2": 3.5, "d1": 1.25, "x": 2.0}, "q2": {"d9": -0.5}}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_ranking_by_hand(
    tmp_path: Path, form: Callable[[Scores], str], packed: bool
) -> None:
    path = put(tmp_path / "any.name", form(RUN), packed=packed)
    placed = place_run(path, load_run(path), ["q2", "q1", "q3"], ["d1", "d2", "d9"], depth=9)
    # "x" keeps the second rank of q1 as a row behind the documents.
    assert placed.ranking.doc_rows.tolist() == [[2, -1, -1], [1, 3, 0], [-1, -1, -1]]
    assert placed.n_docs == 4
    notes = placed.notes("bm25")
    assert notes[0] == "bm25 lacks 1 of the test queries: 0 each."
    assert "1 documents that the collection does not have (x)" in notes[1]


def test_a_document_that_its_query_must_not_find_is_left_out(tmp_path: Path) -> None:
    path = put(tmp_path / "run", trec_run({"q1": {"q1": 9.0, "d1": 1.0}, "q2": {"q1": 2.0}}))
    exclude = np.array([1, -1])
    placed = place_run(path, load_run(path), ["q1", "q2"], ["d1", "q1"], exclude, depth=9)
    assert placed.ranking.doc_rows[:, 0].tolist() == [0, 1]
    assert placed.missing_queries == 0


def test_a_run_looks_no_deeper_than_other_rows(tmp_path: Path) -> None:
    docs = [f"d{n}" for n in range(30)]
    scores = {"q1": {doc: 30.0 - n for n, doc in enumerate(docs)}, "q2": {"d3": 1.0}}
    path = put(tmp_path / "run", trec_run(scores))
    # What must not be found is left out before the cut, as search does.
    exclude = np.array([0, -1])
    placed = place_run(path, load_run(path), ["q1", "q2"], docs, exclude, depth=3)
    assert placed.ranking.doc_rows.tolist() == [[1, 2, 3], [3, -1, -1]]
    assert placed.ranking.scores.shape == (2, 3)
    last = Qrels(np.array([0, 1]), np.array([29, 3]), np.array([1, 1]))
    measure = parse_measure("RR")
    found = evaluate(placed.ranking.doc_rows, last, [measure], placed.n_docs)[measure]
    assert found.tolist() == [0.0, 1.0]


def test_a_query_that_is_there_without_results_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path / "run", '{"q1": {}, "q2": {"d1": 1.5}}')
    placed = place_run(path, load_run(path), ["q1", "q2", "q3"], ["d1"], depth=9)
    assert placed.missing_queries == 2
    assert placed.notes("x") == ["x lacks 2 of the test queries: 0 each."]


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        (["other"], ["d1"], "none of its test queries is one of the collection .*'q1', 'q2'"),
        (["q1"], ["other"], "none of its documents is one of the collection .*'other'"),
    ],
)
def test_a_run_on_something_else_is_refused(
    tmp_path: Path, queries: list[str], documents: list[str], message: str
) -> None:
    path = put(tmp_path / "run", trec_run(RUN))
    with pytest.raises(InputError, match=message):
        place_run(path, load_run(path), queries, documents, depth=9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty. Expected: 6 columns"),
        (" \n", "the file is empty"),
        ("q1 0 d1 1\n", "no run; its first line has 4 columns. Expected: 6 columns"),
        ("q1\td1\t1\n", "no run; its first line has 3 columns"),
        ("query-id\tcorpus-id\tscore\n", "a run without any result"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n", "looks like judgements"),
        ("qid\tpid\trank\nq1\td1\t1\n", "first line .qid, pid, rank. has no scores: ranks alone"),
        ("qid\tscore\nq1\t1\n", "does not name one query, document and score each"),
        ("qid\tdocid\tpid\tscore\n", "does not name one query, document and score each"),
        ("qid\tdocid\tscore\nq1\td1\n", "line 2: 2 columns where 3 are expected .qid docid score"),
        ("qid\tdocid\tscore\nq\td\t1.5\nq\td\t2\n", "line 3: the same .* as on line 2"),
        ("q1\0", "it is binary"),
        (b"PAR1", "a Parquet file"),
        ("q1 Q0 d1 1 2 t".encode("utf-16"), "UTF-16 text"),
        (b"\0\1\2", "it is binary"),
        ("q1 Q0 d1 1 x t\n", "line 1: the score 'x' is not a finite"),
        ("q1 Q0 d1 1 2 t\nq1 Q0 d1 2 1 t\n", "line 2: the same query and document as on line 1"),
    ],
)
def test_what_is_no_run_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_run(put(tmp_path / "run", content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"q1": {"d1": 1.5, "d1": 2.5}}', "document 'd1' of query 'q1' is there twice"),
        ('{"q1": {"d1": 1.5}, "q1": {}}', "query 'q1' of the file is there twice"),
        ('{"q1": {"d1": NaN}}', "query 'q1', document 'd1': NaN is not a finite float32"),
        ('{"q1": {"d0": 1.0, "d1": -Infinity}}', "document 'd1': -Infinity is not a finite"),
        ('{"q1": {"d1": 1e39}}', "1e[+]39 is not a finite float32"),
        ('{"q1": {"d1": 1' + "0" * 400 + "}}", "is not a finite float32"),
        ('{"q1": {"d1": true}}', "true is not a finite"),
        ('{"q1": {"d1": "1.5"}}', '"1.5" is not a finite'),
        ('{"q1": {"d1": {"x": 1.5}}}', "an object is not a finite"),
        ('{"q1": [1.5]}', r"query 'q1' has \[1.5\], where an object"),
        ('{"q1": {"d1": 1.5}', "not valid JSON"),
        ('{"q1": {"d1": 1.5}}\n{"q2": {"d1": 1.5}}', "not valid JSON: Extra data"),
        ('{"q1": ' + "[" * 100_000, "not valid JSON"),
        ('{"q1": {"\\ud800": 1.5}}', "not valid Unicode"),
        ('{"q1": {"d1": 1, "d2": 0}}', "looks like judgements"),
        ("{}", "a run without any result"),
        ('{"q1": {}}', "a run without any result"),
    ],
)
def test_wrong_json_runs_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = put(tmp_path / "run.json", text)
    with pytest.raises(InputError, match=message) as caught:
        load_run(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "query_id\tdoc_id\tscore\nq 1\td 1\t2.5\nq 1\td2\t1\n",
        '"score"\t"DocNo"\trank\tQID\n2.5\td 1\t7\tq 1\n1\td2\t8\tq 1\n\n',
    ],
)
def test_columns_that_the_first_line_names_are_read_as_named(tmp_path: Path, text: str) -> None:
    found = load_run(put(tmp_path / "run", text))
    assert (found.query_ids, found.doc_ids) == (["q 1"], ["d 1", "d2"])
    assert found.values.tolist() == [2.5, 1.0]


def test_ids_that_are_called_like_columns_are_no_head(tmp_path: Path) -> None:
    found = load_run(
        put(tmp_path / "run", "query Q0 docid 1 2.5 score\nquery Q0 did 2 1.5 score\n")
    )
    assert (found.query_ids, found.doc_ids) == (["query"], ["docid", "did"])


def test_whole_scores_beyond_grades_are_a_run(tmp_path: Path) -> None:
    for text in ('{"q": {"d": 11, "e": 2}}', '{"q": {"d": -1, "e": -2}}', '{"q": {"d": 1.0}}'):
        assert load_run(put(tmp_path / "run", text)).query_ids == ["q"]


def test_gzip_that_unpacks_to_an_absurd_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(1000):
            file.write(b"q1 0 d1 1 1 t\n" * 10_000)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        load_run(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(trec_run(RUN).encode())
    for data in (packed[:-9], packed[:20] + b"\xff" * 9 + packed[29:], packed[:5]):
        with pytest.raises(InputError, match="damaged gzip"):
            load_run(put(tmp_path / "run.gz", data))


def test_a_run_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    feed = threading.Thread(
        target=lambda: (os.write(writing, trec_run(RUN).encode()), os.close(writing))
    )
    feed.start()
    try:
        assert load_run(Path(f"/dev/fd/{reading}")).query_ids == ["q1", "q2"]
    finally:
        feed.join()
        os.close(reading)
