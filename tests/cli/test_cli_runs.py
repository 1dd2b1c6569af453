"""``era-eval runs``: the table, its options, and one line for each thing that is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import pytrec_eval
from click.testing import CliRunner, Result

from era_cache import __version__
from era_cache.cli.eval_runs import runs

N = 12


def grades() -> dict[str, dict[str, int]]:
    rng = np.random.default_rng(0)
    return {f"q{q}": {f"d{d}": int(rng.integers(0, 3)) for d in range(9)} for q in range(N)}


def scores(seed: int, lift: float) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    return {
        q: {f"d{d}": round(float(rng.random() + lift * docs.get(f"d{d}", 0)), 1) for d in range(20)}
        for q, docs in grades().items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Judgements in BEIR form, a TREC run, a packed JSON run, and one more."""
    judged = [f"{q}\t{d}\t{g}\n" for q, docs in grades().items() for d, g in docs.items()]
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    lines = [
        f"{q} Q0 {d} 0 {s} tag\n" for q, docs in scores(1, 0.0).items() for d, s in docs.items()
    ]
    (tmp_path / "bm25.trec").write_text("".join(lines))
    (tmp_path / "dense.json.gz").write_bytes(gzip.compress(json.dumps(scores(2, 0.4)).encode()))
    (tmp_path / "other.json").write_text(json.dumps(scores(3, 0.0)))
    return tmp_path


def run(folder: Path, *args: str) -> Result:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(runs, list(args))
    finally:
        os.chdir(before)


def record(folder: Path, *args: str) -> Any:
    done = run(folder, *args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


ALL = ("qrels.tsv", "bm25.trec", "dense.json.gz", "other.json")


def test_the_record_holds_trec_evals_means_and_the_comparison(folder: Path) -> None:
    found = record(folder, *ALL, "--measures", "nDCG@5,map")
    assert found["queries"] == N
    assert found["measures"] == ["nDCG@5", "AP"]
    assert found["baseline"] == "bm25"
    assert [one["name"] for one in found["runs"]] == ["bm25", "dense", "other"]
    theirs = pytrec_eval.RelevanceEvaluator(grades(), {"ndcg_cut.5", "map"})
    for one, (seed, lift) in zip(found["runs"], [(1, 0.0), (2, 0.4), (3, 0.0)], strict=True):
        values = theirs.evaluate(scores(seed, lift)).values()
        means = [np.mean([v[name] for v in values]) for name in ("ndcg_cut_5", "map")]
        assert [e["mean"] for e in one["measures"].values()] == pytest.approx(means, abs=1e-6)
    first, dense, other = (one["measures"]["nDCG@5"] for one in found["runs"])
    assert "difference" not in first
    assert dense["difference"] == pytest.approx(dense["mean"] - first["mean"])
    assert dense["p"] < 0.05 < other["p"]
    assert dense["p_holm"] == pytest.approx(2 * dense["p"])
    assert dense["effect"] > 1
    assert dense["better"] + dense["equal"] + dense["worse"] == N


def test_the_table_shows_each_run_and_difference(folder: Path) -> None:
    done = run(folder, *ALL, "--measures", "nDCG@5")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    entry = record(folder, *ALL, "--measures", "nDCG@5")["runs"][1]["measures"]["nDCG@5"]
    assert lines[0] == f"Means over {N} queries, with 95 % intervals"
    (means,) = [line.split() for line in lines if line.startswith("dense  0")]
    assert means == [
        "dense",
        f"{entry['mean']:.4f}",
        f"[{entry['low']:.4f},",
        f"{entry['high']:.4f}]",
    ]
    (difference,) = [line.split() for line in lines if line.startswith("dense  nDCG@5")]
    assert difference[2] == f"{entry['difference']:+.4f}"
    assert difference[5:7] == [f"{entry['p']:.4f}", f"{entry['p_holm']:.4f}"]
    assert difference[8] == f"{entry['better']}/{entry['equal']}/{entry['worse']}"
    assert f"Only {N} queries: a difference in nDCG@5 between dense" in done.stdout


def test_one_run_alone_is_measured_without_comparison(folder: Path) -> None:
    done = run(folder, "qrels.tsv", "bm25.trec")
    assert done.exit_code == 0
    assert "Differences" not in done.stdout


@pytest.mark.parametrize("given", ["other", "3"])
def test_the_baseline_is_a_name_or_a_place(folder: Path, given: str) -> None:
    found = record(folder, *ALL, "--baseline", given)
    assert found["baseline"] == "other"
    assert ["difference" in one["measures"]["AP"] for one in found["runs"]] == [True, True, False]


@pytest.mark.parametrize("given", ["0", "4", "absent", "9" * 5000, "²"])
def test_an_unknown_baseline_is_a_usage_error_that_lists_the_runs(folder: Path, given: str) -> None:
    done = run(folder, *ALL, "--baseline", given)
    assert done.exit_code == 2
    assert "1 bm25, 2 dense, 3 other" in " ".join(done.stderr.split())


def test_the_seed_decides_the_intervals(folder: Path) -> None:
    first, again, other = (record(folder, *ALL, "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again
    assert first["runs"][0]["measures"]["AP"]["low"] != other["runs"][0]["measures"]["AP"]["low"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_per_query_values_are_written(folder: Path, ending: str) -> None:
    path = folder / f"values.{ending}"
    found = record(folder, *ALL, "--measures", "AP,RR", "--per-query", str(path))
    if ending == "csv":
        with path.open() as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    assert list(rows[0]) == ["query_id", "run", "measure", "value"]
    assert len(rows) == N * 3 * 2
    mine = [float(row["value"]) for row in rows if (row["run"], row["measure"]) == ("dense", "AP")]
    assert np.mean(mine) == pytest.approx(found["runs"][1]["measures"]["AP"]["mean"], abs=1e-15)


def test_missing_and_unjudged_queries_are_counted(folder: Path) -> None:
    some = {q: docs for q, docs in scores(4, 0.0).items() if q not in ("q1", "q2")}
    some |= {"x1": {"d1": 1.0}, "x2": {"d1": 1.0}}
    (folder / "some.json").write_text(json.dumps(some))
    found = record(folder, "qrels.tsv", "some.json", "--judged-only")
    (one,) = found["runs"]
    assert (one["missing_queries"], one["unjudged_queries"]) == (2, 2)
    assert found["notes"] == [
        f"some has no results for 2 of {N} queries; they score 0.",
        "some: 2 queries that are not judged are left out.",
    ]


def test_documents_of_another_kind_are_noticed(folder: Path) -> None:
    renamed = {q: {f"doc-{d}": s for d, s in docs.items()} for q, docs in scores(4, 0.0).items()}
    (folder / "ids.json").write_text(json.dumps(renamed))
    (note,) = record(folder, "qrels.tsv", "ids.json")["notes"]
    assert note.startswith("ids: none of its documents is judged")


GOOD = "q0 Q0 d1 1 0.5 t\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "x1 Q0 d 1 1 t\nx2 Q0 d 1 1 t\n", "2 of its 3 queries are not judged in qrels.tsv"),
        (GOOD + "x1 Q0 d 1 1 t\n", "('x1'). Give the judgements that belong to the run, or leave "),
        ("", "bad: the file is empty. Expected: 6 columns (query_id Q0 document_id rank score"),
        ("\n \n", "the file is empty"),
        ("{}", "a run without any result"),
        ("q0 Q0 d1 1 nan t\n", "bad line 1: the score 'nan' is not a finite"),
        (GOOD + "q0 Q0 d2 1 inf t\n", "bad line 2: the score 'inf' is not a finite"),
        ('{"q0": {"d1": NaN}}', "query 'q0', document 'd1': NaN is not a finite"),
        (GOOD + GOOD, "bad line 2: the same query and document as on line 1. Remove one"),
        ("q0 0 d1 1\n", "TREC judgements (4 columns), where a run must be. Give the judgements"),
        ("query-id\tcorpus-id\tscore\nq0\td1\t1\n", "BEIR judgements (3 columns), where a run"),
        ('{"q0": {"d1": 1, "d2": 0}}', "looks like judgements"),
        (bytes(range(20, 250)) + b"\0" * 9, "no known form; it is binary"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no known form; it is binary"),
        (bytes(range(128, 256)), "no known form; its first line has"),
        ("just some words of text here today\n", "no known form; its first line has 7 columns"),
        (None, "bad cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_with_a_run_is_one_line(
    folder: Path, content: str | bytes | None, message: str
) -> None:
    path = folder / "bad"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    check_one_line(run(folder, "qrels.tsv", "bm25.trec", "bad"), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "q0 0 d1 0\nq1 0 d2 -1\n",
            "no judgement is positive (1 or more); nothing can be measured",
        ),
        ("", "the file is empty. Expected: 4 columns (query_id 0 document_id relevance), or 3"),
        ("q0 0 d1 1.5\n", "bad line 1: the relevance '1.5' is not a whole number"),
        ("q0 0 d1 1\nq0 0 d1 1\n", "bad line 2: the same query and document"),
        (GOOD, "a TREC run (6 columns), where judgements must be. Give the judgements first"),
        ('{"q0": {"d1": 1.5}}', "If this is a run, give the judgements first, then the runs."),
        ("query-id\tcorpus-id\tscore\n", "no judgement is positive"),
        (b"\0\1\2\3", "no known form; it is binary"),
        (None, "bad cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_with_judgements_is_one_line(
    folder: Path, content: str | bytes | None, message: str
) -> None:
    path = folder / "bad"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    check_one_line(run(folder, "bad", "bm25.trec"), message)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("absent", "bm25.trec"), "absent cannot be read: No such file or directory. Check the"),
        (("qrels.tsv", "absent"), "absent cannot be read: No such file"),
        (("qrels.tsv", "bm25.trec", "--measures", "nDGC@10"), "'nDGC@10' is unknown"),
        (("qrels.tsv", "bm25.trec", "--measures", ""), "'' is unknown"),
        (("qrels.tsv", "bm25.trec", "--per-query", "v.xlsx"), ".csv or .parquet"),
        (("qrels.tsv", "bm25.trec", "--per-query", "no/v.csv"), "the folder no does not exist"),
    ],
)
def test_wrong_paths_and_options_are_one_line(
    folder: Path, args: tuple[str, ...], message: str
) -> None:
    check_one_line(run(folder, *args), message)


def check_one_line(done: Result, message: str) -> None:
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_run_is_needed(folder: Path) -> None:
    assert run(folder, "qrels.tsv").exit_code == 2


def test_version_and_help() -> None:
    assert __version__ in CliRunner().invoke(runs, ["--version"]).stdout
    assert "era-eval runs qrels.trec" in CliRunner().invoke(runs, ["--help"]).stdout


def test_the_command_loads_nothing_heavy_before_it_runs() -> None:
    code = "import sys, era_cache.cli.eval_runs; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "pyarrow", "h5py", "matplotlib"} & set(done.stdout.split())
