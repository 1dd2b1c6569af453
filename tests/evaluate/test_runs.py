"""Runs of other tools: every form, trec_eval's numbers, and what is wrong with a file."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.errors import InputError, StoreError
from era_cache.evaluate.run_comparison import compare_runs, run_names
from era_cache.evaluate.run_json import write_run_json
from era_cache.evaluate.runs import (
    AlignedRuns,
    QrelsFile,
    align_runs,
    load_qrels,
    load_run,
    write_qrels_tsv,
)
from era_cache.evaluate.statistics import (
    bootstrap_interval,
    effect_size,
    holm,
    paired_randomisation_test,
)
from era_cache.rank.measures import Ranking, evaluate, parse_measure
from era_cache.types import Qrels

Scores = dict[str, dict[str, float]]
Grades = dict[str, dict[str, int]]


def trec_run(run: Scores) -> str:
    return "".join(f"{q} Q0 {d} 0 {s!r} t\n" for q, docs in run.items() for d, s in docs.items())


def trec_qrels(grades: Grades) -> str:
    return "".join(f"{q} 0 {d} {g}\n" for q, docs in grades.items() for d, g in docs.items())


def beir_qrels(grades: Grades) -> str:
    lines = [f"{q}\t{d}\t{g}\n" for q, docs in grades.items() for d, g in docs.items()]
    return "".join(["query-id\tcorpus-id\tscore\n", *lines])


RUN_FORMS: list[Callable[[Scores], str]] = [trec_run, json.dumps]
QRELS_FORMS: list[Callable[[Grades], str]] = [trec_qrels, beir_qrels, json.dumps]


def put(path: Path, text: str | bytes, *, packed: bool = False) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


QUERY_IDS = st.sampled_from(["q1", "q2", "10", "é", "{q"])
DOC_IDS = st.sampled_from([f"d{n}" for n in range(12)] + ["D", "z", "文"])
NUMBERS = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.floats(-1e6, 1e6, allow_nan=False, width=32)
)
RUNS = st.dictionaries(
    QUERY_IDS, st.dictionaries(DOC_IDS, NUMBERS, min_size=1, max_size=12), min_size=1
)
JUDGED = st.dictionaries(
    QUERY_IDS, st.dictionaries(DOC_IDS, st.integers(-1, 3), min_size=1, max_size=8), min_size=1
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


def trec_eval(grades: Grades, run: Scores, query: str) -> dict[str, float]:
    """What trec_eval gives a query; 0 where the run lacks it."""
    if query not in run:
        return dict.fromkeys(THEIRS, 0.0)
    found = pytrec_eval.RelevanceEvaluator({query: grades[query]}, ASKED).evaluate(
        {query: run[query]}
    )
    return {ours: found[query][theirs] for ours, theirs in THEIRS.items()}


@settings(max_examples=120)
@given(
    runs=st.lists(RUNS, min_size=1, max_size=3),
    grades=JUDGED,
    run_form=st.sampled_from(RUN_FORMS),
    qrels_form=st.sampled_from(QRELS_FORMS),
    packed=st.booleans(),
)
def test_runs_in_every_form_measure_as_trec_eval_does(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[Scores],
    grades: Grades,
    run_form: Callable[[Scores], str],
    qrels_form: Callable[[Grades], str],
    packed: bool,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    counted = [q for q, docs in grades.items() if any(grade > 0 for grade in docs.values())]
    usable = [run for run in runs if set(run) & set(counted)]
    if not usable:
        return
    qrels = load_qrels(put(folder / "judged", qrels_form(grades), packed=packed))
    paths = [
        put(folder / f"run{number}", run_form(run), packed=packed)
        for number, run in enumerate(usable)
    ]
    aligned = align_runs(qrels, map(load_run, paths), judged_only=True)
    assert aligned.query_ids == counted
    assert aligned.without_positive == len(grades) - len(counted)
    assert set(aligned.doc_ids) == {doc for run in [*usable, *grades.items()] for doc in _docs(run)}
    measures = [parse_measure(name) for name in THEIRS]
    for run, found in zip(usable, aligned.runs, strict=True):
        assert found.missing_queries == len(set(counted) - set(run))
        assert found.unjudged_queries == len(set(run) - set(grades))
        values = evaluate(found.ranking.doc_rows, aligned.qrels, measures, len(aligned.doc_ids))
        for row, query in enumerate(aligned.query_ids):
            theirs = trec_eval(grades, run, query)
            ours = [values[measure][row] for measure in measures]
            np.testing.assert_allclose(ours, list(theirs.values()), rtol=0, atol=1e-6)


def _docs(part: object) -> set[str]:
    if isinstance(part, dict):
        return {doc for docs in part.values() for doc in docs}
    assert isinstance(part, tuple)
    return set(part[1])


GRADES: Grades = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}, "q3": {"d1": 0}}
RUN: Scores = {"q1": {"d2": 3.5, "d1": 1.25}, "q2": {"d9": -0.5}}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", QRELS_FORMS)
def test_judgements_of_each_form_are_the_same(
    tmp_path: Path, form: Callable[[Grades], str], packed: bool
) -> None:
    found = load_qrels(put(tmp_path / "any.name", form(GRADES), packed=packed))
    assert found.query_ids == ["q1", "q2", "q3"]
    assert found.doc_ids == ["d1", "d2", "d3"]
    assert [column.tolist() for column in found.qrels] == [
        [0, 0, 1, 2],
        [0, 1, 2, 0],
        [1, 0, 2, 0],
    ]
    assert {column.dtype for column in found.qrels} == {np.dtype(np.int64)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", RUN_FORMS)
def test_runs_of_each_form_are_the_same(
    tmp_path: Path, form: Callable[[Scores], str], packed: bool
) -> None:
    found = load_run(put(tmp_path / "any.name", form(RUN), packed=packed))
    assert (found.query_ids, found.doc_ids) == (["q1", "q2"], ["d2", "d1", "d9"])
    assert (found.query_rows.tolist(), found.doc_rows.tolist()) == ([0, 0, 1], [0, 1, 2])
    assert found.scores.tolist() == [3.5, 1.25, -0.5]
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n",
        "q1 d1 1\n",  # without a head
        "query_id\titeration\tdoc\trelevance\nq1\t0\td1\t1",
        ' {"q1" : {"d1": 1}}',
    ],
)
def test_variants_of_judgements_are_recognised(tmp_path: Path, text: str) -> None:
    found = load_qrels(put(tmp_path / "qrels", text))
    assert (found.query_ids, found.doc_ids) == (["q1"], ["d1"])
    assert found.qrels.relevance.tolist() == [1]


def test_a_head_does_not_shift_the_numbers_of_lines(tmp_path: Path) -> None:
    text = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\tx\n"
    with pytest.raises(InputError, match="line 3: the relevance 'x'"):
        load_qrels(put(tmp_path / "qrels", text))
    with pytest.raises(InputError, match="line 4: the same query and document as on line 2"):
        load_qrels(put(tmp_path / "qrels", text.replace("x", "1") + "q1\td1\t1\n"))


def test_rankings_over_shared_rows(tmp_path: Path) -> None:
    qrels = load_qrels(put(tmp_path / "qrels", trec_qrels(GRADES)))
    other = {"q2": {"d3": 1.0, "d4": 1.0}, "q3": {"d1": 1.0}}
    runs = [load_run(put(tmp_path / "run", trec_run(run))) for run in (RUN, other)]
    aligned = align_runs(qrels, runs)
    assert aligned.query_ids == ["q1", "q2"]  # q3 has no positive judgement
    assert aligned.without_positive == 1
    assert aligned.doc_ids == ["d1", "d2", "d3", "d9", "d4"]
    assert aligned.runs[0].ranking.doc_rows.tolist() == [[1, 0], [3, -1]]
    assert aligned.runs[1].ranking.doc_rows.tolist() == [[-1, -1], [4, 2]]  # d4 before d3
    assert [run.missing_queries for run in aligned.runs] == [0, 1]
    assert [run.unjudged_queries for run in aligned.runs] == [0, 0]
    assert [run.judged_results for run in aligned.runs] == [2, 1]
    assert [column.tolist() for column in aligned.qrels] == [[0, 0, 1], [0, 1, 2], [1, 0, 2]]


def test_written_forms_come_back(tmp_path: Path) -> None:
    scores = np.array([[2.5, 0.1], [-np.inf, -np.inf]], dtype=np.float32)
    ranking = Ranking(np.array([[1, 0], [-1, -1]]), scores)
    write_run_json(tmp_path / "run", ["q 1", "é"], ['d"1', "d2"], ranking)
    found = load_run(tmp_path / "run")
    assert (found.query_ids, found.doc_ids) == (["q 1", "é"], ["d2", 'd"1'])
    assert found.scores.tobytes() == scores[0].tobytes()
    written = json.loads((tmp_path / "run").read_text())
    assert written == {"q 1": {"d2": 2.5, 'd"1': pytest.approx(0.1)}, "é": {}}
    qrels = Qrels(np.array([1, 0]), np.array([0, 1]), np.array([-1, 3]))
    write_qrels_tsv(tmp_path / "qrels", ["q1", "q2"], ["d1", "d2"], qrels)
    assert (tmp_path / "qrels").read_text() == (
        "query-id\tcorpus-id\tscore\nq2\td1\t-1\nq1\td2\t3\n"
    )
    again = load_qrels(tmp_path / "qrels")
    assert (again.query_ids, again.doc_ids) == (["q2", "q1"], ["d1", "d2"])
    assert again.qrels.relevance.tolist() == [-1, 3]


def test_an_empty_ranking_is_an_empty_object(tmp_path: Path) -> None:
    nothing = Ranking(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    write_run_json(tmp_path / "run", [], [], nothing)
    assert json.loads((tmp_path / "run").read_text()) == {}


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    one = Ranking(np.array([[1]]), np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match="document row"):
        write_run_json(tmp_path / "run", ["q"], ["d"], one)
    judged = Qrels(np.array([0]), np.array([0]), np.array([1]))
    with pytest.raises(InputError, match="white space"):
        write_qrels_tsv(tmp_path / "qrels", ["q 1"], ["d"], judged)
    with pytest.raises(StoreError, match="No such file"):
        write_qrels_tsv(tmp_path / "absent" / "qrels", ["q1"], ["d"], judged)
    assert not list(tmp_path.iterdir())


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
    ("text", "message"),
    [
        ('{"q1": {"d1": 1.5}}', "1.5 is not a whole number. If this is a run, give the judgements"),
        ('{"q1": {"d1": 2147483648}}', "2147483648 is not a whole number"),
        ('{"q1": {"d1": 1' + "0" * 40 + "}}", "is not a whole number"),
        ('{"q1": {"d1": null}}', "null is not a whole number"),
        ('{"q1": {"d1": 0}}', "no judgement is positive"),
        ("{}", "no judgement is positive"),
    ],
)
def test_wrong_json_judgements_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_qrels(put(tmp_path / "qrels.json", text))


def test_whole_scores_beyond_grades_are_a_run(tmp_path: Path) -> None:
    for text in ('{"q": {"d": 11, "e": 2}}', '{"q": {"d": -1, "e": -2}}', '{"q": {"d": 1.0}}'):
        assert load_run(put(tmp_path / "run", text)).query_ids == ["q"]


def test_gzip_that_unpacks_to_an_absurd_size_is_refused(tmp_path: Path) -> None:
    lines = b"q1 0 d1 1\n" * 10_000
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(1000):
            file.write(lines)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        load_qrels(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(trec_run(RUN).encode())
    for data in (packed[:-9], packed[:20] + b"\xff" * 9 + packed[29:], packed[:5]):
        with pytest.raises(InputError, match="damaged gzip"):
            load_run(put(tmp_path / "run.gz", data))


def test_a_run_is_left_with_no_query_that_counts(tmp_path: Path) -> None:
    qrels = load_qrels(put(tmp_path / "qrels", trec_qrels(GRADES)))
    for only in ({"x": {"d1": 1.0}}, {"q3": {"d1": 1.0}}):
        run = load_run(put(tmp_path / "run", trec_run(only)))
        with pytest.raises(InputError, match="no result is of a query with a positive"):
            align_runs(qrels, [run], judged_only=True)


def test_qrels_made_without_positives_are_refused() -> None:
    qrels = Qrels(np.array([0]), np.array([0]), np.array([0]))
    with pytest.raises(InputError, match="no judgement is positive"):
        align_runs(QrelsFile(Path("made"), ["q"], ["d"], qrels), [])


def four_runs(tmp_path: Path, n: int = 40) -> tuple[AlignedRuns, list[str]]:
    rng = np.random.default_rng(5)
    grades = {f"q{q}": {f"d{d}": int(rng.integers(1, 3)) for d in range(3)} for q in range(n)}
    qrels = load_qrels(put(tmp_path / "qrels", trec_qrels(grades)))
    runs = []
    for lift in (0.0, 0.2, 0.4):
        run = {
            q: {f"d{d}": float(rng.random() + lift * (d < 3)) for d in range(30)} for q in grades
        }
        runs.append(load_run(put(tmp_path / "run", trec_run(run))))
    return align_runs(qrels, [*runs, runs[0]]), ["a", "b", "c", "again"]


def test_a_comparison_is_made_of_the_tests_of_statistics(tmp_path: Path) -> None:
    aligned, names = four_runs(tmp_path)
    measures = [parse_measure("nDCG@10"), parse_measure("RR")]
    found = compare_runs(aligned, names, measures, baseline="b", seed=3)
    assert list(found.table) == names
    assert found.baseline == "b"
    for measure in ("nDCG@10", "RR"):
        base = found.values["b"][measure]
        others = ["a", "c", "again"]
        p_values = [
            paired_randomisation_test(found.values[name][measure], base, seed=3) for name in others
        ]
        for name, p, p_holm in zip(others, p_values, holm(p_values), strict=True):
            entry = found.table[name][measure]
            gain = found.values[name][measure] - base
            mean, low, high = bootstrap_interval(found.values[name][measure], seed=3)
            assert [entry[k] for k in ("mean", "low", "high")] == pytest.approx([mean, low, high])
            mean, low, high = bootstrap_interval(gain, seed=3)
            keys = ("difference", "difference_low", "difference_high")
            assert [entry[k] for k in keys] == pytest.approx([mean, low, high])
            assert entry["p"] == pytest.approx(p)
            assert entry["p_holm"] == pytest.approx(p_holm)
            assert entry["effect"] == pytest.approx(effect_size(gain))
            assert entry["better"] == sum(gain > 0)
            assert entry["worse"] == sum(gain < 0)
            assert entry["better"] + entry["equal"] + entry["worse"] == 40
        assert set(found.table["b"][measure]) == {"mean", "low", "high"}
    assert found.table["again"] == found.table["a"]


def test_notes_say_what_few_queries_could_show(tmp_path: Path) -> None:
    aligned, names = four_runs(tmp_path)
    found = compare_runs(aligned, names, [parse_measure("RR")], baseline="a", seed=0)
    detectable = found.table["b"]["RR"]["detectable"]
    assert [note for note in found.notes if f"less than {detectable:.3f}" in note]
    assert not [note for note in found.notes if "again" in note]  # the same run: nothing to find
    (tmp_path / "more").mkdir()
    aligned, names = four_runs(tmp_path / "more", n=50)
    found = compare_runs(aligned, names, [parse_measure("RR")], baseline="a", seed=0)
    assert found.notes == []


def test_names_of_runs_are_file_names_made_unique() -> None:
    def names(*paths: str) -> list[str]:
        return run_names([Path(path) for path in paths])

    assert names("x/bm25.trec.gz", "y/dense.json") == ["bm25", "dense"]
    assert names("x/run.trec", "y/run.json", "b.trec") == ["x/run", "y/run", "b"]
    assert names("x/run.trec", "x/run.json", "x/run") == ["run", "run-2", "run-3"]
    assert names("a/x", "a/x", "b/a/x-2", "b/a/x-2") == ["x", "x-3", "x-2", "x-2-2"]
    assert names("\x1b[1mbold.run") == ["\ufffd[1mbold"]


def test_a_packed_file_may_come_through_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(gzip.compress(trec_run(RUN).encode()))
    try:
        assert load_run(f"/dev/fd/{reading}").query_ids == ["q1", "q2"]
    finally:
        os.close(reading)
