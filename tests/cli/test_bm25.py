"""BM25 beside the candidates, from era-embed to era-eval, and any other run in its place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_case import MODELS, done, embedded_in, evaluated, fitted, run
from planted import QUICK, planted_texts

from era_cache.cli import embed, evaluate, fit
from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import make_split
from era_cache.evaluate.runs import lists_of_run, load_run
from era_cache.fitting.adapter_folder import load_config
from era_cache.fitting.first_stage import FirstStages
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.sources import Reading
from era_cache.store.lists import find_lists, lists_of
from era_cache.store.store import Store


def _values(case: Path, *options: object) -> dict[str, float]:
    return {
        one["name"]: one["measures"]["nDCG@10"]["mean"]
        for one in evaluated(case, *options)["candidates"]
    }


def test_bm25_stands_in_every_table_alone_and_joined(case) -> None:
    (part,) = [p for p in embedded_in(case, "--bm25")["parts"] if p["what"] == "bm25 lists"]
    assert part["encoded"] == 60
    found = fitted(case)
    # Words of a query's document are in the query: BM25 finds what hashed vectors do not.
    assert found["chosen"].startswith("bm25+")
    config = json.loads((case / "a" / "config.json").read_text())
    assert config["version"] == 4
    assert config["first_stage"]["bm25"]["k1"] == 1.5
    assert not list((case / "a" / "candidates").glob("bm25*"))  # the map has a file already
    values = _values(case)
    assert {"bm25", "bm25+small", "bm25+era-zero", "bm25+era", "bm25+era-dual"} <= set(values)
    assert values["bm25+small"] > values["small"]
    # The same again from the file, as a row of the table.
    report = (case / "a" / "evaluation" / "report.html").read_text()
    assert "bm25+era-dual" in report
    shown = done(run(evaluate.main, case / "store", case / "a")).stdout
    assert f"{found['chosen']} against what may be run instead, nDCG@10: bm25 +0." in shown
    card = (case / "a" / "README.md").read_text()
    assert "bm25" in card


def test_without_bm25_nothing_speaks_of_it(case) -> None:
    embedded_in(case)
    found = fitted(case)
    assert not [name for name in found["validation"] if "bm25" in name]
    assert not [name for name in _values(case) if "bm25" in name]


def test_what_needs_lists_that_are_gone_is_refused_and_the_rest_measured(case) -> None:
    embedded_in(case, "--bm25")
    fitted(case)
    shutil.rmtree(case / "store" / "runs")
    result = run(evaluate.main, case / "store", case / "a")
    assert result.exit_code == 1
    assert "needs lists of bm25" in result.output
    fitted(case, "--candidate", "era-dual", out="b")
    embedded_in(case, "--bm25")
    found = fitted(case, "--candidate", "bm25+small")
    assert found["chosen"] == "bm25+small"


def test_lists_of_a_smaller_corpus_are_told_and_not_used(case) -> None:
    embedded_in(case, "--bm25")
    corpus = case / "beir" / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + '{"_id": "new", "text": "w1 w2 w3"}\n')
    embedded_in(case)
    result = done(
        run(fit.main, case / "store", "beir", "--out", case / "a", "--set", "iterations=2")
    )
    assert "the bm25 lists of the store are of other documents" in result.stderr
    assert "bm25+" not in result.stdout
    assert sum(part["encoded"] for part in embedded_in(case, "--bm25")["parts"]) == 60
    assert [name for name in fitted(case, "--overwrite")["validation"] if name.startswith("bm25+")]


def test_another_system_s_run_takes_its_place(case) -> None:
    embedded_in(case, "--bm25")
    fitted(case)
    by_bm25 = _values(case)
    # The same lists for all queries, as a TREC run under another name.
    store = Store.open(case / "store")
    collection = store.collection("beir")
    found = find_lists(store, "bm25", collection.doc_keys)
    table, _ = lists_of(found, collection, np.arange(len(collection.query_ids)))
    lines = []
    for row, query in enumerate(collection.query_ids):
        kept = table.docs[row] >= 0
        for rank, (doc, score) in enumerate(
            zip(table.docs[row][kept], table.scores[row][kept], strict=True), 1
        ):
            lines.append(f"{query} Q0 {collection.doc_ids[doc]} {rank} {float(score)!r} x\n")
    path = case / "splade.trec"
    path.write_text("".join(lines))
    shutil.rmtree(case / "store" / "runs")
    found = fitted(case, "--run", f"splade={path}", "--overwrite")
    assert found["chosen"].startswith("splade+")
    assert load_config(case / "a").first_stage["splade"]["run"] == "splade.trec"
    values = _values(case, "--run", f"splade={path}")
    for name, value in by_bm25.items():
        assert values[name.replace("bm25", "splade")] == pytest.approx(value, abs=1e-6)
    result = run(evaluate.main, case / "store", case / "a")
    assert result.exit_code == 1
    assert "--run splade=FILE" in result.output


def test_documents_or_queries_alone_have_no_lists(case) -> None:
    (case / "words.txt").write_text("w1 w2\nw3\n")
    for role in ("document", "query"):
        words = ["--role", role, *MODELS, "--store", case / role, "--bm25", "--json"]
        found = json.loads(done(run(embed.main, case / "words.txt", *words)).stdout)
        (part,) = [one for one in found["parts"] if one["what"] == "bm25 lists"]
        assert part["encoded"] == 0


def test_a_wrong_language_is_told_before_anything_is_encoded(case) -> None:
    words = [case / "beir", *MODELS, "--store", case / "store"]
    result = run(embed.main, *words, "--bm25", "--bm25-language", "klingon")
    assert result.exit_code == 1
    assert "klingon" in result.output
    assert not (case / "store").exists()
    assert run(embed.main, *words, "--bm25-language", "german").exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run", "x"], "expected NAME=FILE"),
        (["--run", "era=x.trec"], "no candidate's"),
        (["--run", "a b=x.trec"], "letters, digits"),
        (["--run", "x=none.trec"], "none.trec"),
        (["--candidate", "bm25+aligned"], "is none of auto"),
        (["--candidate", "paper"], "is none of auto"),
        (["--candidate", "bm25+small"], "No candidate 'bm25+small'"),
    ],
)
def test_what_makes_no_sense_is_refused(case, options, message) -> None:
    embedded_in(case)
    result = run(fit.main, case / "store", "beir", "--out", case / "a", *options)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_a_run_of_test_queries_alone_cannot_be_fitted_with(case) -> None:
    embedded_in(case)
    path = case / "x.trec"
    path.write_text("q0 Q0 d0 1 1.5 x\n")
    result = run(fit.main, case / "store", "beir", "--out", case / "a", "--run", f"x={path}")
    assert result.exit_code == 1
    assert "no result for" in result.output or "none of its" in result.output


def test_lists_of_test_queries_take_no_part_in_fitting(case) -> None:
    """Scores of test queries that are turned upside down change neither a map nor a weight."""
    embedded_in(case, "--bm25")
    store = Store.open(case / "store")
    collection = store.collection("beir")
    (stored,) = find_lists(store, "bm25", collection.doc_keys)
    split = make_split(collection, SplitConfig(labels=0.4))
    tested = {bytes(key) for key in collection.query_text_keys[split.test]}
    lists = stored.lists
    docs, begin = lists.list_docs.copy(), 0
    for key, end in zip(lists.query_keys, lists.list_ends.tolist(), strict=True):
        if bytes(key) in tested:
            docs[begin:end] = docs[begin:end][::-1]
        begin = end
    assert (docs != lists.list_docs).any()
    other = stored._replace(lists=lists._replace(list_docs=docs))
    plan = FitPlan(split.config, QUICK)
    fits = []
    for number, one in enumerate((stored, other)):
        stages = FirstStages("bm25", {collection.name: one})
        reading = Reading(device="cpu", first_stages=stages)
        fits.append(fit_to_folder(store, "beir", case / f"fit{number}", plan, reading).result)
    assert fits[0].choice == fits[1].choice
    for name, one in fits[0].candidates.items():
        again = fits[1].candidates[name]
        assert one.adapter.fusion == again.adapter.fusion
        assert (one.adapter.weight == again.adapter.weight).all()
        np.testing.assert_array_equal(one.values[0], again.values[0])


def test_a_run_may_tell_queries_apart_that_differ_in_their_instruction_only(tmp_path) -> None:
    texts = planted_texts(n_docs=10, n_queries=2)
    text = texts.query_texts[0]
    texts = texts._replace(query_texts=[text, text], instructions=["long ones", "short ones"])
    collection = Store.create(tmp_path / "store").add_collection(texts)
    path = tmp_path / "run.json"
    first, second = texts.query_ids
    path.write_text(json.dumps({first: {texts.doc_ids[3]: 2.0}, second: {texts.doc_ids[5]: 1.0}}))
    lists = lists_of_run(path, load_run(path), collection, "x")
    stages = FirstStages("x", {collection.name: lists})
    found = stages.of(Store.open(tmp_path / "store"), collection).select(np.arange(2), "cpu")
    assert found is not None
    assert found.docs.tolist() == [[3], [5]]


def test_a_run_through_a_pipe_is_refused(case) -> None:
    embedded_in(case)
    os.mkfifo(case / "pipe")
    result = run(
        fit.main, case / "store", "beir", "--out", case / "a", "--run", f"x={case / 'pipe'}"
    )
    assert result.exit_code == 1
    assert "no regular file" in result.output
