"""era-eval and its forms on the command line."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from several import DOMAINS, RECIPE, SIZES, several, texts_of

from era_cache.cli import evaluate
from era_cache.cli.common import INTERRUPTED
from era_cache.collection.config import SplitConfig
from era_cache.collection.records import TextCollection
from era_cache.evaluate import outputs, protocols
from era_cache.evaluate.read_results import read_results
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.sources import Reading
from era_cache.report import render_markdown
from era_cache.store.store import Store

QUICK = [
    *("--set", "iterations=2", "--set", "strengths=8", "--set", "folds=2", "--set", "scales=1"),
    *("--set", "reference-documents=40", "--set", "reference-steps=0/0.25"),
    *("--set", "memory_steps=0.2", "--set", "align_documents=40", "--device", "cpu"),
]
FORMS = ["each", "general", "leave-one-domain-out", "domain-specific"]
REPORTS = {"report.html", "table.md", "table.tex", "details.tex", "table.csv", "evaluation.json"}
KEPT = {"results.json", "queries.json", "fits"}


@pytest.fixture
def pages() -> None:
    """Asked for by tests that look at the page."""


@pytest.fixture(autouse=True)
def quick_pages(request, monkeypatch) -> None:
    """Drawing the page takes nine tenths of a command's time here; most tests do not look at it."""
    if "pages" not in request.fixturenames:
        monkeypatch.setitem(outputs._FORMS, "report.html", render_markdown)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return several(tmp_path_factory.mktemp("cli_eval") / "store").path


def _adapter(store: Path, folder: Path, names: list[str], **options: Any) -> Path:
    fit_to_folder(
        Store.open(store),
        names,
        folder,
        FitPlan(options.pop("split", SplitConfig(labels=0.4)), RECIPE, **options),
        Reading(device="cpu"),
    )
    return folder


@pytest.fixture(scope="module")
def fitted(store, tmp_path_factory) -> Path:
    """An adapter of alpha and beta, with a curve; encoders of hashes agree too little for auto."""
    folder, names = tmp_path_factory.mktemp("fitted") / "adapter", ["alpha", "beta"]
    _adapter(store, folder, names, candidate="small+")
    split = SplitConfig(labels=0.2)
    _adapter(store, folder / "curve" / "20", names, split=split, candidate="small+")
    return folder


@pytest.fixture
def adapter(fitted, tmp_path) -> Path:
    return shutil.copytree(fitted, tmp_path / "adapter")


@pytest.fixture(scope="module")
def results(store, tmp_path_factory) -> Path:
    """Results of all protocols, a folder each."""
    path = tmp_path_factory.mktemp("results")
    for form in FORMS:
        labels = "20,40" if form == "each" else "40"
        _done(_eval(form, store, "--out", path / form, "--labels", labels, *QUICK))
    return path


def _eval(*arguments: object) -> Result:
    """As in a shell, where the command line is kept for the report."""
    words = [str(argument) for argument in arguments]
    before, sys.argv = sys.argv, ["era-eval", *words]
    try:
        return CliRunner().invoke(evaluate.main, words)
    finally:
        sys.argv = before


def _done(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def _fails(result: Result, *words: object) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    for word in words:
        assert str(word) in result.stderr


def _json(result: Result) -> dict[str, Any]:
    return json.loads(_done(result).stdout, parse_constant=_no_word_of_json)


def _no_word_of_json(word: str) -> None:
    raise AssertionError(word)


def _stored(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _beir(folder: Path, texts: TextCollection) -> Path:
    """A collection as its owner has it."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"name": texts.name, "domain": texts.domain}))
    for name, ids, rows in (
        ("corpus", texts.doc_ids, texts.doc_texts),
        ("queries", texts.query_ids, texts.query_texts),
    ):
        lines = [json.dumps({"_id": i, "text": t}) for i, t in zip(ids, rows, strict=True)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    judged = texts.splits["test"]
    rows = zip(*(column.tolist() for column in judged), strict=True)
    lines = [f"{texts.query_ids[q]}\t{texts.doc_ids[d]}\t{grade}" for q, d, grade in rows]
    text = "query-id\tcorpus-id\tscore\n" + "\n".join(lines)
    (folder / "qrels" / "test.tsv").write_text(text)
    return folder


# One adapter


def test_an_adapter_is_measured_on_all_that_it_was_fitted_on(store, adapter) -> None:
    record = _json(_eval(store, adapter, "--json", "--device", "cpu"))
    assert [entry["name"] for entry in record["collections"]] == ["alpha", "beta"]
    out = adapter / "evaluation"
    assert _stored(out) == record
    assert _names(out) == REPORTS | KEPT
    assert record["protocol"] == "adapter"
    assert [point["labels"] for point in record["curve"]] == [0.2, 0.4]
    assert record["split"]["labels"] == 0.4
    # Both collections count alike, though one has more queries.
    (main,) = (fit for fit in read_results(out).fits if fit.labels == 0.4)
    for row in record["candidates"]:
        means = [
            statistics.fmean(one.values[one.candidates.index(row["name"]), 0].tolist())
            for one in main.measured
        ]
        assert row["measures"]["nDCG@10"]["mean"] == pytest.approx(statistics.fmean(means))
    assert len(record["by_collection"]) == 2
    assert record["commands"] == [
        shlex.join(["era-eval", str(store), str(adapter), "--json"]) + " --device cpu"
    ]


def test_the_report_of_the_folder_is_the_same_again(store, adapter, tmp_path, pages) -> None:
    _done(_eval(store, adapter, "--device", "cpu"))
    out = adapter / "evaluation"
    first = {name: (out / name).read_bytes() for name in REPORTS}
    for name in REPORTS:
        (out / name).unlink()
    shown = _done(_eval("report", adapter)).stdout
    assert shown.splitlines()[-1] == f"Report: {out / 'report.html'}"
    assert {name: (out / name).read_bytes() for name in REPORTS} == first
    _done(_eval("report", out, "--out", tmp_path / "elsewhere"))
    assert _names(tmp_path / "elsewhere") == REPORTS
    assert {name: (tmp_path / "elsewhere" / name).read_bytes() for name in REPORTS} == first


@pytest.mark.parametrize("names", [["beta"], ["gamma"], ["beta", "alpha"], ["alpha", "gamma"]])
def test_collections_are_chosen_by_name(store, adapter, names) -> None:
    options = [word for name in names for word in ("--collection", name)]
    record = _json(_eval(store, adapter, *options, "--json", "--device", "cpu"))
    assert [entry["name"] for entry in record["collections"]] == names
    out = adapter / "evaluation" / "+".join(names)
    assert _stored(out) == record
    assert record["split"]["test"] == sum(SIZES[name] // 2 for name in names)
    _done(_eval("report", out))


def test_a_collection_is_not_measured_twice(store, adapter) -> None:
    _fails(_eval(store, adapter, "--collection", "beta", "--collection", "beta"), "named twice")
    _fails(_eval(store, adapter, "--collection", "other"), "no collection 'other'")
    _fails(_eval(store, adapter, "--collection", "../../x"), "no collection '../../x'")
    assert not (adapter / "evaluation").exists()


def test_other_adapters_join_as_rows(store, adapter, tmp_path) -> None:
    other = _adapter(store, tmp_path / "other", ["alpha", "beta"], candidate="era")
    record = _json(_eval(store, adapter, "--with", other, "--with", other, "--json"))
    names = [row["name"] for row in record["candidates"]]
    assert set(names) == {
        *("small", "aligned", "era-zero", "era", "era-dual", "small+"),
        *("era (other)", "era (other) #2"),
    }
    kinds = {row["name"]: row["kind"] for row in record["candidates"]}
    assert kinds["era (other)"] == "another adapter folder"
    estimates = {row["name"]: row["measures"] for row in record["candidates"]}
    assert estimates["era (other)"]["AP"]["mean"] == estimates["era"]["AP"]["mean"]
    alone = _adapter(store, tmp_path / "alone", ["alpha"])
    _fails(_eval(store, adapter, "--with", alone), "differ; the two cannot be compared")


def test_runs_of_several_collections_have_a_folder_each(store, adapter) -> None:
    _done(_eval(store, adapter, "--runs", "--device", "cpu"))
    runs = adapter / "evaluation" / "runs"
    expected = {
        f"{name}.trec"
        for name in ("small", "aligned", "era-zero", "era", "era-dual", "small+", "qrels")
    }
    assert _names(runs) == {"alpha", "beta"}
    for name in ("alpha", "beta"):
        assert _names(runs / name) == expected
        lines = (runs / name / "small.trec").read_text().splitlines()
        assert len({line.split()[0] for line in lines}) == SIZES[name] // 2
    # What another tool makes of them is what the report says.
    record = _stored(adapter / "evaluation")
    alpha = next(row for row in record["by_collection"] if row["collection"] == "alpha")
    files = [f"their-{name}={runs / 'alpha' / name}.trec" for name in ("small", "era")]
    given = [part for file in files for part in ("--run", file)]
    again = _json(_eval(store, adapter, "--collection", "alpha", *given, "--json"))
    for name in ("small", "era"):
        row = next(row for row in again["candidates"] if row["name"] == f"their-{name}")
        mean = row["measures"]["nDCG@10"]["mean"]
        assert mean == pytest.approx(alpha["candidates"][name], abs=1e-6)
    _done(_eval(store, adapter, "--runs", "--collection", "alpha"))
    assert _names(adapter / "evaluation" / "alpha" / "runs") == expected


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_value_of_every_query_is_written_where_asked(store, adapter, tmp_path, ending) -> None:
    path = tmp_path / f"values.{ending}"
    _done(_eval(store, adapter, "--per-query", path, "--measures", "AP", "--device", "cpu"))
    if ending == "csv":
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    found = {
        (
            r["collection"],
            r["query_id"],
            float(r["labels_percent"]) / 100,
            r["candidate"],
            r["measure"],
        ): float(r["value"])
        for r in rows
    }
    assert len(found) == len(rows) == (10 + 15) * 2 * 6 * 2
    kept = read_results(adapter / "evaluation")
    for fit in kept.fits:
        for one in fit.measured:
            for c, name in enumerate(one.candidates):
                for m, measure in enumerate(kept.head.measures):
                    for row, value in zip(one.query_rows, one.values[c, m], strict=True):
                        query = kept.query_ids[one.collection][row]
                        key = (one.collection, query, fit.labels, name, measure)
                        assert found[key] == pytest.approx(value, abs=1e-7)
    _done(_eval("report", adapter, "--per-query", tmp_path / f"again.{ending}"))
    assert (tmp_path / f"again.{ending}").read_bytes() == path.read_bytes()


def test_a_file_of_another_kind_is_refused_before_anything_is_done(
    store, adapter, tmp_path
) -> None:
    out = ["--out", tmp_path / "a"]
    for words in (
        [store, adapter, *out],
        ["each", store, *out, *QUICK],
        ["report", tmp_path, *out],
    ):
        for path in (tmp_path / "values.txt", tmp_path / "missing" / "values.csv"):
            _fails(_eval(*words, "--per-query", path), path)
    assert not (tmp_path / "a").exists()


def test_int8_is_of_one_collection(store, adapter) -> None:
    _fails(_eval(store, adapter, "--int8"), "--int8 measures one collection")
    result = _done(_eval(store, adapter, "--int8", "--collection", "beta", "--device", "cpu"))
    record = _stored(adapter / "evaluation" / "beta")
    assert set(record["int8"]) == {row["name"] for row in record["candidates"]}
    chosen = record["int8"][record["chosen"]]["nDCG@10"]
    assert f"Stored as int8, {record['chosen']} would measure {chosen['mean']:.4f}" in result.stdout
    # The report of the folder still has it.
    _done(_eval("report", adapter / "evaluation" / "beta"))
    assert _stored(adapter / "evaluation" / "beta") == record


def test_other_files_in_the_folder_stay(store, adapter, tmp_path) -> None:
    (tmp_path / "out" / "fits").mkdir(parents=True)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "out" / "fits" / "mine.txt").write_text("mine")
    for _ in range(2):
        _done(_eval(store, adapter, "--out", tmp_path / "out", "--device", "cpu"))
        assert _names(tmp_path / "out") == REPORTS | KEPT | {"mine.txt"}
        assert (tmp_path / "out" / "fits" / "mine.txt").read_text() == "mine"


def test_results_of_a_protocol_are_not_cleared_away(store, adapter, results, tmp_path) -> None:
    out = shutil.copytree(results / "general", tmp_path / "out")
    _fails(_eval(store, adapter, "--out", out), out, "would be lost")
    assert len(read_results(out).fits) == 1


def test_an_adapter_that_was_measured_anew_has_the_new_results_only(store, adapter) -> None:
    _done(_eval(store, adapter, "--device", "cpu"))
    shutil.rmtree(adapter / "curve")
    _done(_eval(store, adapter, "--measures", "P@5", "--device", "cpu"))
    kept = read_results(adapter / "evaluation")
    assert kept.head.measures == ("nDCG@10", "P@5")
    assert [fit.labels for fit in kept.fits] == [0.4]


# Query texts


def test_texts_stand_beside_the_queries(store, adapter, tmp_path) -> None:
    texts = texts_of("alpha")
    folders = [_beir(tmp_path / name, texts_of(name)) for name in ("alpha", "beta", "gamma")]
    options = [word for folder in folders for word in ("--texts", folder)]
    result = _done(_eval(store, adapter, *options, "--device", "cpu"))
    assert "gamma not measured here; the texts are not used." in result.stderr
    queries = _stored(adapter / "evaluation")["queries"]
    known = dict(zip(texts.query_ids, texts.query_texts, strict=True))
    mine = [q for q in queries["wins"] + queries["losses"] if q["collection"] == "alpha"]
    assert mine
    assert [q["text"] for q in mine] == [known[q["query"]] for q in mine]
    assert all(q["text"].endswith("beta") for q in queries["wins"] if q["collection"] == "beta")
    _done(_eval("report", adapter))
    assert not any(q["text"] for q in _stored(adapter / "evaluation")["queries"]["wins"])


def test_texts_of_other_queries_under_the_same_ids_are_not_shown(store, adapter, tmp_path) -> None:
    texts = texts_of("alpha")
    turned = texts._replace(query_texts=[*texts.query_texts[1:], texts.query_texts[0]])
    folder = _beir(tmp_path / "alpha", turned)
    result = _done(_eval(store, adapter, "--texts", folder, "--device", "cpu"))
    assert "not the queries that were measured; its texts are not shown" in result.stderr
    queries = _stored(adapter / "evaluation")["queries"]
    assert not any(q["text"] for q in queries["wins"] + queries["losses"])


def test_texts_that_are_no_collection_are_said(store, adapter, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    _done(_eval(store, adapter, "--device", "cpu"))
    _fails(_eval("report", adapter, "--texts", tmp_path / "empty"), tmp_path / "empty")
    folder = _beir(tmp_path / "alpha", texts_of("alpha"))
    _fails(_eval("report", adapter, "--texts", folder, "--texts", folder), "a second collection")
    result = _eval("report", adapter, "--texts", tmp_path / "missing")
    assert result.exit_code == 2


# Protocols


@pytest.mark.parametrize("form", FORMS)
def test_a_protocol_writes_its_report(results, form) -> None:
    folder = results / form
    assert _names(folder) == REPORTS | KEPT
    record = _stored(folder)
    assert record["protocol"] == form
    assert [entry["name"] for entry in record["collections"]] == sorted(DOMAINS)
    assert ("curve" in record) == (form == "each")
    assert ("matrix" in record) == (form == "domain-specific")
    assert record["commands"][0].startswith(f"era-eval {form} ")
    assert record["configuration"]["recipe"]["iterations"] == 2
    assert not any("Unfinished" in note for note in record["notes"])
    assert form in (folder / "report.html").read_text("utf-8")


def test_a_protocol_that_is_done_is_not_run_again(store, results, tmp_path, monkeypatch) -> None:
    out = shutil.copytree(results / "each", tmp_path / "each")
    monkeypatch.setattr(protocols, "fit_candidates", lambda *_, **__: pytest.fail("fitted"))
    options = ["--labels", "20,40", *QUICK]
    result = _done(_eval("each", store, "--out", out, *options))
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1] == f"Report: {out / 'report.html'}"
    before, after = _stored(results / "each"), _stored(out)
    assert before.pop("commands")[0] in after.pop("commands")
    assert before == after
    _fails(_eval("general", store, "--out", out, *QUICK), out, "another protocol")
    _fails(_eval("each", store, "--out", out, *options, "--set", "folds=3"), "another recipe")
    _fails(_eval("each", store, "alpha", "--out", out, *options), "another collections")


def test_ctrl_c_keeps_what_is_there_and_says_so(store, tmp_path, monkeypatch) -> None:
    fit, calls = protocols.fit_candidates, []

    def interrupted(*data, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*data, **options)

    monkeypatch.setattr(protocols, "fit_candidates", interrupted)
    words = ["each", store, "--out", tmp_path / "a", "--labels", "40", *QUICK]
    result = _eval(*words)
    assert result.exit_code == 1
    assert INTERRUPTED in result.stderr
    shown = _done(_eval("report", tmp_path / "a")).stdout
    assert _stored(tmp_path / "a")["notes"]
    assert any("Unfinished: 1 of 3" in note for note in _stored(tmp_path / "a")["notes"])
    assert "alpha" in shown
    _done(_eval(*words))
    assert len(calls) == 4
    assert not any("Unfinished" in note for note in _stored(tmp_path / "a")["notes"])


def test_domains_and_shuffles_are_options(store, tmp_path) -> None:
    words = ["each", store, "--only-domain", "web", "--split-seeds", "2", "--labels", "40"]
    record = _json(_eval(*words, "--out", tmp_path / "a", "--json", "--measures", "AP", *QUICK))
    assert [entry["name"] for entry in record["collections"]] == ["alpha", "gamma"]
    assert record["split"]["seeds"] == [42, 43]
    assert record["measures"] == ["nDCG@10", "AP"]
    assert record == _stored(tmp_path / "a")
    assert all(row["measures"]["AP"]["sd"] is not None for row in record["candidates"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["each", "missing"], ["missing: not a store"]),
        (["each", "STORE", "other"], ["no collection 'other'"]),
        (["each", "STORE", "--labels", "90"], ["at most 40%"]),
        (["each", "STORE", "--measures", "beauty"], ["'beauty' is unknown"]),
        (["each", "STORE", "--set", "warmth=1"], ["'warmth=1'"]),
        (["each", "STORE", "--device", "abacus"], ["Device 'abacus'"]),
        (["domain-specific", "STORE", "beta"], ["at least two domains"]),
        (["leave-one-domain-out", "STORE", "--only-domain", "web"], ["at least two domains"]),
        (
            ["general", "STORE", "--only-domain", "law", "--holdout-domain", "law"],
            ["No collection"],
        ),
    ],
    ids=lambda words: " ".join(words),
)
def test_what_a_protocol_cannot_do_is_said(store, tmp_path, words, expected) -> None:
    words = [str(store) if word == "STORE" else word for word in words]
    _fails(_eval(*words, "--out", tmp_path / "a"), *expected)
    assert not (tmp_path / "a").exists()


# Reports


def test_tables_are_about_a_share_that_was_measured(results, tmp_path) -> None:
    words = ["report", results / "each", "--out", tmp_path / "a"]
    assert _json(_eval(*words, "--json"))["split"]["labels"] == 0.2
    assert _json(_eval(*words, "--tables-at", "40%", "--json"))["split"]["labels"] == 0.4
    _fails(_eval(*words, "--tables-at", "30"), "at 30 % of the labels, only at 20 %, 40 %")
    assert _eval(*words, "--tables-at", "-1").exit_code == 2


def test_protocols_are_compared_by_domain(results, tmp_path) -> None:
    folders = [results / form for form in FORMS]
    words = ["report", *folders, "--out", tmp_path / "a"]
    _fails(_eval(*words), "nothing was measured at 20 %")  # of the second
    record = _json(_eval(*words, "--tables-at", "40", "--json"))
    assert record["matrix"]["columns"] == ["web", "law", "all domains"]
    assert len(record["matrix"]["rows"]) == 4
    for values, form in zip(record["matrix"]["values"], FORMS, strict=True):
        shown = _json(
            _eval("report", results / form, "--tables-at", "40", "--json", "--out", tmp_path / "b")
        )
        expected = [row["candidates"][shown["chosen"]] for row in shown["by_domain"]]
        assert values == pytest.approx(expected)
    # The folders themselves are left alone.
    assert _stored(results / "general")["protocol"] == "general"


def test_results_of_other_collections_are_not_compared(store, results, tmp_path) -> None:
    words = ["alpha", "beta", "--labels", "40", *QUICK]
    _done(_eval("general", store, *words, "--out", tmp_path / "two"))
    words = ["report", results / "general", tmp_path / "two", "--out", tmp_path / "a"]
    _fails(_eval(*words), "measured on other collections")
    assert not (tmp_path / "a").exists()


def test_what_holds_no_results_is_said(tmp_path, adapter) -> None:
    for path in (tmp_path / "missing", adapter):
        _fails(_eval("report", path), path, "no results here")
    (tmp_path / "results.json").write_text('{"format": "era-results", "version": 2}')
    _fails(_eval("report", tmp_path), "results.json: format version 2", "newer ERA Cache")


# Wrong use, help, speed


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["store"],
        ["store", "adapter", "more"],
        ["store", "adapter", "--seed", "-1"],
        ["report"],
        ["report", "a", "--tables-at", "many"],
        ["report", "a", "--seed", "x"],
        ["reproduce"],
        ["reproduce", "a", "b"],
        ["each"],
        ["each", "store"],
        ["each", "store", "--out", "o", "--labels", ""],
        ["each", "store", "--out", "o", "--labels", "5,x"],
        ["each", "store", "--out", "o", "--split-seeds", "0"],
        ["general", "store", "--out", "o", "--test-seed", "-1"],
        ["general", "store", "--out", "o", "--no-documents"],
        ["domain-specific", "store", "--out", "o", "--split", "other"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = _eval(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["", "report", "reproduce", *FORMS])
def test_each_form_has_help_with_an_example_that_parses(form) -> None:
    words = [form] if form else []
    result = _done(CliRunner().invoke(evaluate.main, [*words, "--help"], terminal_width=80))
    assert max(map(len, result.stdout.splitlines())) <= 80
    lines = result.stdout.partition("Example:\n")[2].partition("Options:")[0]
    example = shlex.split(lines.replace("\\\n", " "))
    assert example[: 1 + len(words)] == ["era-eval", *words]
    command = evaluate.main.forms[form] if form else evaluate.main
    # Folders of an example need not be here.
    parameters = [p for p in command.params if p.name != "text_folders"]
    command = type(command)(command.name, params=parameters, callback=command.callback)
    rest = example[1 + len(words) :]
    if "--texts" in rest:
        at = rest.index("--texts")
        rest = rest[:at] + rest[at + 2 :]
    command.parse_args(click.Context(command), rest)
    assert [p.name for p in parameters if isinstance(p, click.Option) and not p.help] == []


def test_era_eval_tells_of_its_other_forms() -> None:
    shown = " ".join(_done(_eval("--help")).stdout.split())
    for form in evaluate.main.forms:
        assert form in shown


HEAVY = [
    *("torch", "numpy", "h5py", "safetensors", "matplotlib", "pyarrow"),
    *("faiss", "sentence_transformers", "scipy"),
]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """One process for all forms: its start is half of the time.

    Processor time is looked at: what else the machine is doing does not count.
    """
    script = (
        "import sys, time, click.testing; from era_cache.cli import evaluate\n"
        "for form in [[], *([name] for name in evaluate.main.forms)]:\n"
        "    start = time.process_time()\n"
        "    found = click.testing.CliRunner().invoke(evaluate.main, [*form, '--help'])\n"
        "    assert found.exit_code == 0 and 'Options:' in found.stdout, found.output\n"
        "    assert time.process_time() - start < 0.3, form\n"
        f"print(time.process_time(), *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    times = []
    for _ in range(3):  # the first may compile the modules
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        seconds, *heavy = done.stdout.split()
        assert not heavy
        times.append(float(seconds))
        if times[-1] < 0.5:
            break
    assert min(times) < 0.5, times


@pytest.mark.parametrize("form", ["report", "each"])
def test_a_store_named_like_a_form_is_given_with_its_folder(
    store, adapter, tmp_path, monkeypatch, form
) -> None:
    shutil.copytree(store, tmp_path / form)
    monkeypatch.chdir(tmp_path)
    _done(_eval(f"./{form}", "adapter", "--out", "out", "--device", "cpu"))
    assert (tmp_path / "out" / "report.html").is_file()


# Runs of other systems


def _run_file(store: Path, path: Path, *, leave_out: int = 0) -> dict[str, dict[str, float]]:
    """A run on the first collection that finds each query's first relevant document at rank 2."""
    collection = Store.open(store).collection(next(iter(SIZES)))
    qrels, run = collection.qrels, {}
    for query, name in list(enumerate(collection.query_ids))[leave_out:]:
        relevant = qrels.doc_rows[(qrels.query_rows == query) & (qrels.relevance > 0)]
        if len(relevant):
            mine = collection.doc_ids[int(relevant[0])]
            run[name] = {"unheard-of": 2.0, mine: 1.0}
    path.write_text(json.dumps(run))
    return run


def test_a_run_of_another_system_is_a_row_like_any_other(store, tmp_path) -> None:
    name = next(iter(SIZES))
    adapter = _adapter(store, tmp_path / "adapter", [name])
    _run_file(store, tmp_path / "bm25.json")
    result = _done(
        _eval(store, adapter, "--run", f"bm25={tmp_path / 'bm25.json'}", "--measures", "RR")
    )
    assert "bm25" in result.stdout
    record = _stored(adapter / "evaluation")
    row = next(row for row in record["candidates"] if row["name"] == "bm25")
    assert row["kind"] == "a run of another system"
    assert row["measures"]["RR"]["mean"] == 0.5
    assert {"difference_low", "p_holm", "effect"} <= set(row["measures"]["nDCG@10"])
    assert any("bm25 ranks 1 documents" in note for note in record["notes"])
    assert any(part["what"] == "adapter run bm25" for part in record["inputs"])
    again = _done(_eval("reproduce", adapter / "evaluation"))
    assert "bm25" not in again.stderr
    (tmp_path / "bm25.json").write_text(json.dumps({"nobody": {"d": 1.0}}))
    _fails(_eval("reproduce", adapter / "evaluation"), "none of its test queries")


def test_queries_that_a_run_lacks_count_as_nothing_found(store, tmp_path) -> None:
    name = next(iter(SIZES))
    adapter = _adapter(store, tmp_path / "adapter", [name])
    ids = read_results_ids(store, adapter)
    run = _run_file(store, tmp_path / "run.json")
    kept = {query: docs for query, docs in run.items() if query in ids[: len(ids) // 2]}
    (tmp_path / "run.json").write_text(json.dumps(kept))
    options = ("--run", f"half={tmp_path / 'run.json'}", "--measures", "RR")
    record = _json(_done(_eval(store, adapter, *options, "--json")))
    row = next(row for row in record["candidates"] if row["name"] == "half")
    assert row["measures"]["RR"]["mean"] == pytest.approx(0.5 * len(kept) / len(ids))
    assert any(f"half lacks {len(ids) - len(kept)} of the test" in n for n in record["notes"])


def read_results_ids(store: Path, adapter: Path) -> list[str]:
    """Ids of the test queries, as an evaluation measures them."""
    _done(_eval(store, adapter))
    results = read_results(adapter / "evaluation")
    measured = results.fits[0].measured[0]
    return [results.query_ids[measured.collection][row] for row in measured.query_rows]


@pytest.mark.parametrize(
    ("texts", "code", "message"),
    [
        (["bm25"], 2, "expected NAME=FILE"),
        (["=x.trec"], 1, "cannot be used as a name"),
        (["a=x.trec", "a=y.trec"], 2, "given twice"),
        (["small=x.trec"], 1, "a row of that name is there"),
        (["shipped=x.trec"], 1, "a row of that name is there"),
        (["bm25=absent.trec"], 1, "absent.trec"),
        (["bm25=/dev/null"], 1, "no regular file"),
        (["bm25=."], 1, "no regular file"),
    ],
)
def test_runs_that_cannot_be_rows_are_refused(store, tmp_path, texts, code, message) -> None:
    adapter = _adapter(store, tmp_path / "adapter", [next(iter(SIZES))])
    result = _eval(store, adapter, *(part for text in texts for part in ("--run", text)))
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_needs_one_collection(store, tmp_path) -> None:
    adapter = _adapter(store, tmp_path / "adapter", list(SIZES)[:2])
    _fails(_eval(store, adapter, "--run", "bm25=x.trec"), "--run measures one collection")
