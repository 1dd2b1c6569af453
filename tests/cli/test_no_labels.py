"""A collection without judgements, from era-embed to era-eval: judgements come when they come."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_case import MODELS, done, embedded_in, run
from planted import embedded, planted_texts, read_fit_data

from era_cache.cli import embed, evaluate, fit
from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import make_split
from era_cache.fitting.encoder_pair import resolve_encoders


@pytest.fixture
def case(case) -> Path:
    """A collection without judgements, which lie beside it."""
    shutil.move(case / "beir" / "qrels", case / "qrels")
    return case


def _encoded(found: dict[str, object]) -> int:
    parts = found["parts"]
    assert isinstance(parts, list)
    return sum(part["encoded"] for part in parts)


def test_judgements_come_later_and_cost_no_encoding(case) -> None:
    assert _encoded(embedded_in(case)) > 0
    result = run(fit.main, case / "store", "beir", "--out", case / "a", "--candidate", "era-zero")
    assert "fitting without labels" in done(result).stderr
    assert "No labels, 60 queries looked at, 0 test queries" in result.stdout
    assert "documents, of which" not in result.stderr  # all that are encoded are used
    assert "not measured" in (case / "a" / "README.md").read_text()
    unmeasured = run(evaluate.main, case / "store", case / "a")
    assert unmeasured.exit_code == 1
    assert "no query has a positive judgement" in unmeasured.stderr
    shutil.move(case / "qrels", case / "beir" / "qrels")
    assert _encoded(embedded_in(case)) == 0
    result = run(evaluate.main, case / "store", case / "a", "--json", "--device", "cpu")
    record = json.loads(done(result).stdout)
    assert record["split"]["test"] == 30
    assert record["chosen"] == "era-zero"
    labelled = run(fit.main, case / "store", "beir", "--out", case / "b", "--json")
    assert json.loads(done(labelled).stdout)["queries"] == {
        "train": 12,
        "validation": 6,
        "test": 30,
    }


def test_without_labels_json_says_what_the_signs_were(case) -> None:
    embedded_in(case)
    result = run(fit.main, case / "store", "beir", "--out", case / "a", "--json")
    found = json.loads(done(result).stdout)
    # Encoders of hashes know nothing of each other, and are not trusted.
    assert found["chosen"] == "small"
    assert "no adapter can be trusted" in found["reason"]
    assert found["validation"] == {"small": None, "aligned": None, "era-zero": None}
    (signs,) = found["signs"]
    assert signs["queries"] == 60
    assert json.loads((case / "a" / "metrics.json").read_text())["signs"] == found["signs"]


def test_documents_that_are_encoded_and_not_used_are_told(case) -> None:
    embedded_in(case)
    words = [case / "store", "beir", "--out", case / "a", "--align-documents", "50"]
    result = done(run(fit.main, *words))
    assert "encoded 120 documents, of which 50 are used" in result.stderr


def test_labels_that_were_asked_for_must_be_there(case) -> None:
    embedded_in(case)
    result = run(fit.main, case / "store", "beir", "--out", case / "a", "--labels", "20")
    assert result.exit_code == 1
    assert "--labels 0 fits without any" in result.stderr


def test_documents_alone_and_a_log_of_queries_alone(case) -> None:
    (case / "beir" / "queries.jsonl").rename(case / "log.jsonl")
    assert _encoded(embedded_in(case)) > 0
    result = run(fit.main, case / "store", "beir", "--out", case / "a", "--candidate", "era-zero")
    assert "No labels, 0 queries looked at" in done(result).stdout
    words = ["--role", "query", *MODELS, "--store", case / "store", "--json"]
    log = json.loads(done(run(embed.main, case / "log.jsonl", *words)).stdout)
    assert log["collection"] == "log"
    assert {part["what"] for part in log["parts"]} == {"queries"}
    assert _encoded(log) == 120  # by both encoders
    nothing = run(fit.main, case / "store", "log", "--out", case / "b")
    assert nothing.exit_code == 1
    assert "a collection of queries alone" in nothing.stderr
    # Together again they are what is stored already.
    (case / "log.jsonl").rename(case / "beir" / "queries.jsonl")
    assert _encoded(embedded_in(case)) == 0


def test_a_curve_begins_at_no_labels(case) -> None:
    shutil.move(case / "qrels", case / "beir" / "qrels")
    embedded_in(case)
    words = [case / "store", "beir", "--out", case / "a", "--labels", "40", "--curve", "0,20"]
    done(run(fit.main, *words, "--set", "iterations=2"))
    record = json.loads(
        done(run(evaluate.main, case / "store", case / "a", "--json", "--device", "cpu")).stdout
    )
    assert "era-zero" in [row["name"] for row in record["candidates"]]
    assert [point["labels"] for point in record["curve"]] == [0.0, 0.2, 0.4]


def test_protocols_over_a_whole_store_leave_out_what_nobody_judged(case) -> None:
    shutil.move(case / "qrels", case / "beir" / "qrels")
    embedded_in(case)
    (case / "log.txt").write_text("what is asked\nand what else\n")
    words = [*MODELS, "--store", case / "store", "--role", "query"]
    done(run(embed.main, case / "log.txt", *words))
    words = [case / "store", "--labels", "0,40", "--set", "iterations=2", "--device", "cpu"]
    result = done(run(evaluate.main, "each", *words, "--out", case / "each", "--json"))
    assert "log: no query has a positive judgement; left out" in result.stderr
    record = json.loads(result.stdout)
    assert [point["labels"] for point in record["curve"]] == [0.0, 0.4]
    # What was written is read back: a report of it, at no labels too.
    report = ["report", case / "each", "--out", case / "again", "--tables-at", "0", "--json"]
    again = json.loads(done(run(evaluate.main, *report)).stdout)
    assert [row["name"] for row in again["candidates"]][:3] == ["small", "aligned", "era-zero"]


def test_where_queries_are_documents_no_query_aligns_before_anyone_is_judged(tmp_path) -> None:
    # Any of them may be a test query later: with every document a query, nothing is left to align.
    texts = planted_texts(n_docs=120, n_queries=110, queries_are_documents=True)
    store, collection = embedded(tmp_path / "s", texts._replace(splits={}), align_documents=120)
    split = make_split(collection, SplitConfig(labels=0.0))
    data = read_fit_data(store, collection, split)
    keys = collection.doc_keys[110:]
    encoder = resolve_encoders(store, collection).document
    expected = torch.nn.functional.normalize(torch.from_numpy(encoder.vectors(keys)), dim=1)
    assert 0 < len(data.align_small) <= 10
    assert bool((data.align_small @ expected.T).max(dim=1).values.min() > 0.999)
