"""TREC files: what is written comes back, order is trec_eval's, and wrong lines are named."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.errors import InputError, StoreError
from era_cache.evaluate.text_columns import read_columns
from era_cache.evaluate.trec import QRELS_FORM, read_qrels, read_run, write_qrels, write_run
from era_cache.rank.measures import Ranking, evaluate, parse_measure
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
        (b"\xff Q0 d2 2 0.5 x", "query id b'\\xff' is not UTF-8"),
        (b"q1 Q0 d2 2 \xff x", "score '\ufffd'"),
        (b"q1 Q0 d2 2 0.5 x\0", "a NUL byte"),
        (b"q1 Q0 d2 2 0.5 x\rq1 Q0 c 2 0.5 x", "12 columns"),
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
        ("q1 0 d2 1.5", "relevance '1.5'"),
        ("q1 0 d2 nan", "relevance 'nan'"),
        ("q1 0 d2 inf", "relevance 'inf'"),
        ("q1 0 d2 1e99", "relevance '1e99'"),
        ("q1\td2 x\t1", "3 columns where 4 are expected"),
        ("q1\t0\t \t1", "the document id is empty"),
        ("q1 0 d2 1_0", "relevance '1_0'"),
        ("q1 0 d2 -", "relevance '-'"),
        ("q1 0 d2 99999999999999999999", "relevance '9999"),
        ("q1 0 d2 2147483648", "relevance '2147483648'"),
        ("q1 0 d2 -9223372036854775808", "relevance '-9223372036854775808'"),
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
    with pytest.raises(StoreError, match="No space left"):
        write_run(path, ["q"], ["d"], ranking, "tag")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    ranking = Ranking(np.array([[0]]), np.ones((1, 1), dtype=np.float32))
    with pytest.raises(StoreError, match=r"absent: writing failed: No such file"):
        write_run(tmp_path / "absent" / "out", ["q"], ["d"], ranking, "tag")


SPACES = st.sampled_from([" ", "\t", "  ", " \t", "\v", "\f"])
LINE = st.tuples(
    st.integers(0, 5), st.integers(0, 99), st.integers(-9, 9), SPACES, st.sampled_from(["", "\r"])
)


@settings(max_examples=150)
@given(
    lines=st.lists(LINE, max_size=12, unique_by=lambda line: line[:2]),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    last=st.booleans(),
)
def test_columns_do_not_depend_on_where_the_blocks_of_a_file_end(
    lines: list[tuple[int, int, int, str, str]], cuts: list[int], last: bool
) -> None:
    texts = [
        f"{space}q\u00e9{q}{space}0{space}d{d}{space}{grade}{end}"
        for q, d, grade, space, end in lines
    ]
    content = ("\n".join(texts) + "\n" * (last and bool(texts))).encode()
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    blocks = [content[a:b] for a, b in itertools.pairwise(places)]
    found = read_columns(Path("any"), blocks, QRELS_FORM)
    queries = list(dict.fromkeys(f"q\u00e9{line[0]}" for line in lines))
    docs = list(dict.fromkeys(f"d{line[1]}" for line in lines))
    assert (found.query_ids, found.doc_ids) == (queries, docs)
    assert [found.query_ids[row] for row in found.query_rows] == [f"q\u00e9{x[0]}" for x in lines]
    assert [found.doc_ids[row] for row in found.doc_rows] == [f"d{line[1]}" for line in lines]
    assert found.values.tolist() == [line[2] for line in lines]


@pytest.mark.parametrize("number", [1, 2, 29_999, 30_000])
def test_a_wrong_line_anywhere_in_a_long_file_is_named(tmp_path: Path, number: int) -> None:
    lines = [f"q1 Q0 doc{row} 1 {row}.5 tag" for row in range(30_000)]
    docs = {f"doc{row}": row for row in range(30_000)}
    path = write(tmp_path, "\n".join(lines))
    assert path.stat().st_size > 2 << 18  # several blocks
    assert read_run(path, QUERIES, docs).doc_rows[0, 0] == 29_999
    for wrong, message in (("", "0 columns"), ("q1 Q0 doc9 1 inf tag", "score 'inf'")):
        write(tmp_path, "\n".join([*lines[: number - 1], wrong, *lines[number:], "q1 Q0 x 1 1 t"]))
        with pytest.raises(InputError, match=f"line {number}: .*{message}"):
            read_run(path, QUERIES, docs)
    write(tmp_path, "\n".join([*lines, lines[number - 1]]))
    with pytest.raises(InputError, match=f"line 30001: the same .* on line {number}\\."):
        read_run(path, QUERIES, docs)


def test_of_several_unknown_ids_the_first_in_the_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "q1 0 d1 1\nq1 0 x 1\ny 0 d1 1\nq1 0 d2 1\n")
    with pytest.raises(InputError, match="line 2: document 'x'"):
        read_qrels(path, QUERIES, DOCS)
    path = write(tmp_path, "q1 0 d1 1\ny 0 x 1\ny 0 d1 1\n")
    with pytest.raises(InputError, match="line 2: query 'y'"):
        read_qrels(path, QUERIES, DOCS)


def test_lines_of_the_right_number_of_fields_together_but_not_each_are_refused(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "q1 0 d1 1 q2\n0 d2 1\n")
    with pytest.raises(InputError, match="line 1: 5 columns"):
        read_qrels(path, QUERIES, DOCS)


def test_a_line_without_end_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.write(b"q1 0 d1 1\n")
        file.truncate(1 << 33)
    with pytest.raises(InputError, match="line 2: more than 65536 bytes"):
        read_qrels(path, QUERIES, DOCS)


def test_ids_with_blanks_whole_floats_and_blank_last_lines_are_read(tmp_path: Path) -> None:
    docs = {"Ada Lovelace": 0, "d 2": 1, "d3": 2}
    path = write(tmp_path, "q 1\t0\tAda Lovelace\t1.0\r\nq 1\t0\t d 2\t-2\nq3 0\td3 1\n\n \n\t\n")
    found = read_qrels(path, {"q 1": 0, "q3": 1}, docs)
    assert [column.tolist() for column in found] == [[0, 0, 1], [0, 1, 2], [1, -2, 1]]
    path = write(tmp_path, "q1\tQ0\tAda Lovelace\t1\t2.5\ttag\nq1 Q0 d3 2 1.5 tag\n\n\n")
    assert read_run(path, QUERIES, docs).doc_rows[0].tolist() == [0, 2]
    # Without a tag, blanks inside an id must not make up for it.
    path = write(tmp_path, "q1\tQ0\tAda 7\t1\t2.5\n")
    with pytest.raises(InputError, match="line 1: 5 columns where 6 are expected"):
        read_run(path, QUERIES, docs)


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfq1 0 d1 1\n")
    assert read_qrels(path, QUERIES, DOCS).query_rows.tolist() == [0]


def test_one_query_with_very_many_results_among_many_queries_is_refused(tmp_path: Path) -> None:
    queries = {f"q{row}": row for row in range(1 << 20)}
    docs = {f"d{row}": row for row in range(200)}
    path = write(tmp_path, "".join(f"q7 Q0 d{row} 1 1 t\n" for row in range(200)))
    with pytest.raises(InputError, match="200 results of one query"):
        read_run(path, queries, docs)


def test_percent_signs_in_ids_and_tags_come_back(tmp_path: Path) -> None:
    path = tmp_path / "out"
    ranking = Ranking(np.array([[0, 1]]), np.array([[2, 1]], dtype=np.float32))
    write_run(path, ["%s"], ["%d", "100%"], ranking, "50%%")
    assert path.read_text() == "%s Q0 %d 1 2 50%%\n%s Q0 100% 2 1 50%%\n"
    assert read_run(path, {"%s": 0}, {"%d": 0, "100%": 1}).doc_rows.tolist() == [[0, 1]]
    write_qrels(path, ["%s"], ["%d"], Qrels(np.array([0]), np.array([0]), np.array([1])))
    assert path.read_text() == "%s 0 %d 1\n"


RESULTS = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 30)), st.integers(-3, 3), max_size=60
)


@given(results=RESULTS, order=st.randoms(use_true_random=False))
def test_any_order_of_lines_is_ranked_by_score_then_falling_id(
    tmp_path_factory: pytest.TempPathFactory, results: dict[tuple[int, int], int], order: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "shuffled.run"
    lines = [f"q{q} Q0 {d} 0 {score / 2} t" for (q, d), score in results.items()]
    order.shuffle(lines)  # type: ignore[attr-defined]
    path.write_text("\n".join(lines))
    found = read_run(
        path, {f"q{row}": row for row in range(4)}, {str(row): row for row in range(31)}
    )
    for query in range(4):
        mine = [(score, str(d)) for (q, d), score in results.items() if q == query]
        expected = [int(doc) for _, doc in sorted(mine, reverse=True)]
        assert [row for row in found.doc_rows[query].tolist() if row >= 0] == expected
