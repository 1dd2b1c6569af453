"""TREC files: what is written comes back, order is trec_eval's, and wrong lines are named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.errors import InputError
from era_cache.measures import Ranking, evaluate, parse_measure
from era_cache.trec import read_qrels, read_run, write_qrels, write_run
from era_cache.types import Qrels

QUERIES = {"q1": 0, "q2": 1, "q3": 2}
DOCS = {"d1": 0, "d10": 1, "d2": 2, "c": 3}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "input.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_run_is_sorted_by_score_then_by_falling_id_and_ranks_are_ignored(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "q3 Q0 d1 1 0.5 x\n"
        "q1 Q0 d1 1 2 x\n"
        "q1\tQ0\td10  7 2.0 y\r\n"
        "q3 Q0 c 2 1e1 x\n"
        "q1 Q0 d2 9 2.00 x\n"
        "q1 Q0 c 1 -3 x",
    )
    ranking = read_run(path, QUERIES, DOCS)
    assert ranking.doc_rows.tolist() == [[2, 1, 0, 3], [-1] * 4, [3, 0, -1, -1]]
    inf = np.inf
    expected = [[2, 2, 2, -3], [-inf] * 4, [10, 0.5, -inf, -inf]]
    assert ranking.scores.tolist() == expected
    assert ranking.scores.dtype == np.float32


def test_scores_that_are_equal_as_float32_are_ties(tmp_path: Path) -> None:
    path = write(tmp_path, "q1 Q0 d1 1 1.00000000001 x\nq1 Q0 d2 2 1.0 x\n")
    assert read_run(path, QUERIES, DOCS).doc_rows[0].tolist() == [2, 0]


def test_an_empty_run_is_a_ranking_without_depth(tmp_path: Path) -> None:
    ranking = read_run(write(tmp_path, ""), QUERIES, DOCS)
    assert ranking.doc_rows.shape == ranking.scores.shape == (3, 0)


def test_a_run_read_and_evaluated_equals_trec_eval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    doc_ids = [f"doc{row}" for row in range(50)]
    queries = {f"t{row}": row for row in range(8)}
    run = {
        q: {doc_ids[d]: float(rng.integers(0, 6)) for d in rng.permutation(50)[:30]}
        for q in queries
    }
    judged = {
        q: {doc_ids[d]: int(rng.integers(-1, 3)) for d in rng.permutation(50)[:12]} for q in queries
    }
    text = "".join(f"{q} Q0 {d} 0 {s} t\n" for q, docs in run.items() for d, s in docs.items())
    grades = "".join(f"{q} 0 {d} {g}\n" for q, docs in judged.items() for d, g in docs.items())
    docs = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    ranking = read_run(write(tmp_path, text), queries, docs)
    qrels = read_qrels(write(tmp_path, grades), queries, docs)
    measure = parse_measure("nDCG@10")
    ours = evaluate(ranking.doc_rows, qrels, [measure], 50)[measure]
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10"}).evaluate(run)
    np.testing.assert_allclose(ours, [theirs[q]["ndcg_cut_10"] for q in queries], atol=1e-6)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(scores=st.lists(FLOATS, min_size=1, max_size=8, unique=True))
def test_any_float32_score_comes_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float]
) -> None:
    path = tmp_path_factory.getbasetemp() / "scores.run"
    values = np.sort(np.array([scores], dtype=np.float32))[:, ::-1]
    rows = np.arange(len(scores), dtype=np.int64)[None, :]
    doc_ids = [f"d{row}" for row in range(len(scores))]
    write_run(path, ["q"], doc_ids, Ranking(rows, values), "tag")
    again = read_run(path, {"q": 0}, {doc_id: row for row, doc_id in enumerate(doc_ids)})
    assert again.scores.tobytes() == values.tobytes()
    assert again.doc_rows.tolist() == rows.tolist()


def test_run_is_written_in_six_columns_without_padding(tmp_path: Path) -> None:
    path = tmp_path / "out.run"
    path.write_text("an older file\n")
    ranking = Ranking(
        np.array([[2, 0], [-1, -1], [3, -1]]),
        np.array([[0.1, -2], [-np.inf, -np.inf], [1e-20, -np.inf]], dtype=np.float32),
    )
    write_run(path, list(QUERIES), list(DOCS), ranking, "era")
    assert path.read_bytes() == (
        b"q1 Q0 d2 1 0.100000001 era\nq1 Q0 d1 2 -2 era\nq3 Q0 c 1 9.99999968e-21 era\n"
    )
    assert os.listdir(tmp_path) == ["out.run"]  # noqa: PTH208


def test_ids_with_other_than_ascii_characters_come_back(tmp_path: Path) -> None:
    path = tmp_path / "out.run"
    doc_ids = ["Köln", "a\u00a0b", "文"]  # a no-break space is no separator in TREC files
    index = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    ranking = Ranking(np.array([[2, 0, 1]]), np.array([[3, 2, 1]], dtype=np.float32))
    write_run(path, ["é"], doc_ids, ranking, "tag")
    assert read_run(path, {"é": 0}, index).doc_rows.tolist() == [[2, 0, 1]]


def test_qrels_come_back_in_the_same_order(tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    qrels = Qrels(np.array([2, 0, 0]), np.array([3, 1, 0]), np.array([-1, 0, 3]))
    write_qrels(path, list(QUERIES), list(DOCS), qrels)
    assert path.read_bytes() == b"q3 0 c -1\nq1 0 d10 0\nq1 0 d1 3\n"
    again = read_qrels(path, QUERIES, DOCS)
    for column, expected in zip(again, qrels, strict=True):
        assert column.dtype == np.int64
        np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d2 2 0.5", "5 columns where 6 are expected"),
        ("q1 Q0 d2 2 0.5 x y", "7 columns"),
        ("", "0 columns"),
        ("q9 Q0 d2 2 0.5 x", "query 'q9' is not in the collection, which has 3"),
        ("q1 Q0 d99 2 0.5 x", "document 'd99' is not in the collection, which has 4"),
        ("q1 Q0 d2 2 abc x", "score 'abc'"),
        ("q1 Q0 d2 2 nan x", "score 'nan'"),
        ("q1 Q0 d2 2 -inf x", "score '-inf'"),
        ("q1 Q0 d2 2 1e39 x", "score '1e39'"),
        ("q1 Q0 d2 2 1_0 x", "score '1_0'"),
        ("q1 Q0 d1 2 0.5 x", "same query and document as on line 1"),
        (b"q1 Q0 \xff 2 0.5 x", "not UTF-8"),
    ],
)
def test_wrong_run_lines_are_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, b"q1 Q0 d1 1 0.5 x\n" + line + b"\nq1 Q0 c 3 0.1 x\n")
    with pytest.raises(InputError) as caught:
        read_run(path, QUERIES, DOCS)
    assert f"{path} line 2: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 d2 1", "3 columns where 4 are expected"),
        ("q9 0 d2 1", "query 'q9'"),
        ("q1 0 d99 1", "document 'd99'"),
        ("q1 0 d2 1.0", "relevance '1.0'"),
        ("q1 0 d2 1_0", "relevance '1_0'"),
        ("q1 0 d2 -", "relevance '-'"),
        ("q1 0 d2 99999999999999999999", "relevance '9999"),
        ("q1 0 d1 0", "same query and document as on line 1"),
    ],
)
def test_wrong_qrels_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, f"q1 0 d1 1\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_qrels(path, QUERIES, DOCS)
    assert f"{path} line 2: " in str(caught.value)
    assert message in str(caught.value)


def test_of_several_repeated_lines_the_first_in_the_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "q2 0 c 1\nq1 0 d1 1\nq2 0 c 1\nq1 0 d1 1\nq2 0 c 2\n")
    with pytest.raises(InputError, match=r"line 3: .* on line 1"):
        read_qrels(path, QUERIES, DOCS)


@pytest.mark.parametrize("read", [read_run, read_qrels])
def test_a_missing_file_is_named(tmp_path: Path, read: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"absent cannot be read: No such file"):
        read(tmp_path / "absent", QUERIES, DOCS)


@pytest.mark.parametrize("word", ["", "two words", "new\nline", " d", "\ud800"])
def test_ids_and_tags_that_would_break_the_columns_are_not_written(
    tmp_path: Path, word: str
) -> None:
    path = tmp_path / "out"
    ranking = Ranking(np.array([[0]]), np.ones((1, 1), dtype=np.float32))
    qrels = Qrels(np.array([0]), np.array([0]), np.array([1]))
    for call in (
        lambda: write_run(path, [word], ["d"], ranking, "tag"),
        lambda: write_run(path, ["q"], [word], ranking, "tag"),
        lambda: write_run(path, ["q"], ["d"], ranking, word),
        lambda: write_qrels(path, [word], ["d"], qrels),
        lambda: write_qrels(path, ["q"], [word], qrels),
    ):
        with pytest.raises(InputError, match="cannot be written"):
            call()
    assert not list(tmp_path.iterdir())


def test_rankings_that_do_not_fit_the_ids_are_refused(tmp_path: Path) -> None:
    ones = np.ones((1, 1), dtype=np.float32)
    for ranking in (
        Ranking(np.array([[0], [0]]), np.ones((2, 1), dtype=np.float32)),
        Ranking(np.array([[0, 1]]), ones),
        Ranking(np.array([[1]]), ones),
        Ranking(np.array([[0]]), ones * np.nan),
    ):
        with pytest.raises(ValueError, match=r"ranking|rows"):
            write_run(tmp_path / "out", ["q"], ["d"], ranking, "tag")
    with pytest.raises(ValueError, match="query row"):
        write_qrels(
            tmp_path / "out", ["q"], ["d"], Qrels(np.array([1]), np.array([0]), np.array([1]))
        )
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    ranking = Ranking(np.array([[0]]), np.ones((1, 1), dtype=np.float32))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_run(path, ["q"], ["d"], ranking, "tag")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    ranking = Ranking(np.array([[0]]), np.ones((1, 1), dtype=np.float32))
    with pytest.raises(InputError, match="cannot be written"):
        write_run(tmp_path / "absent" / "out", ["q"], ["d"], ranking, "tag")
