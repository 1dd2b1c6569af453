"""The how-to for SQLite, run: its own full text search as first stage, and the same ranking."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from planted import QUICK, embedded, planted_texts

from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import make_split
from era_cache.evaluate.runs import lists_of_run, load_run
from era_cache.evaluate.score import score_adapters
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.first_stage import FirstStages
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.sources import Reading
from era_cache.fitting.tensors import load_held_out

DOCS = Path(__file__).parents[2] / "docs" / "fitting.md"
NAME = "fts5+era-dual"


def _cosine(stored: bytes, query: bytes) -> float:
    return float(np.frombuffer(stored, np.float32) @ np.frombuffer(query, np.float32))


def _terms(text: str) -> str:
    return " OR ".join(re.findall(r"\w+", text))


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.create_function("cosine", 2, _cosine, deterministic=True)
    connection.execute("CREATE VIRTUAL TABLE documents USING fts5(text)")
    connection.execute("CREATE TABLE vectors (id INTEGER PRIMARY KEY, embedding BLOB)")
    yield connection
    connection.close()


def test_the_query_of_the_documentation_ranks_as_the_evaluation_does(database, tmp_path) -> None:
    texts = planted_texts()
    store, collection = embedded(tmp_path / "store", texts)
    rows = list(enumerate(texts.doc_texts))
    database.executemany("INSERT INTO documents (rowid, text) VALUES (?, ?)", rows)
    run: dict[str, dict[str, float]] = {}
    for query, text in zip(texts.query_ids, texts.query_texts, strict=True):
        found = database.execute(
            "SELECT rowid, -bm25(documents) FROM documents WHERE documents MATCH ? LIMIT 1000",
            [_terms(text)],
        )
        run[query] = {texts.doc_ids[row]: score for row, score in found}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    lists = lists_of_run(path, load_run(path), collection, "fts5")
    stages = FirstStages("fts5", {collection.name: lists})
    plan = FitPlan(SplitConfig(labels=0.4), QUICK, candidate=NAME)
    fit_to_folder(
        store, collection.name, tmp_path / "a", plan, Reading(device="cpu", first_stages=stages)
    )
    adapter = load_adapter(tmp_path / "a")
    assert adapter.fusion is not None
    assert adapter.fusion.weight > 0

    encoders = resolve_encoders(store, collection)
    split = make_split(collection, plan.split)
    data = load_held_out(collection, split, encoders, lists=stages.of(store, collection))
    scored = score_adapters(data, {NAME: adapter}, [PRIMARY], 10)[NAME]
    embeddings = [(row, vector.numpy().tobytes()) for row, vector in enumerate(data.corpus)]
    database.executemany("INSERT INTO vectors VALUES (?, ?)", embeddings)
    sql = re.findall(r"```sql\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)[0]
    mapped = adapter.apply(data.queries.views)
    text_of = dict(zip(texts.query_ids, texts.query_texts, strict=True))
    for number, query in enumerate(data.queries.ids):
        values = {
            "terms": _terms(text_of[query]),
            "query": mapped[number].numpy().tobytes(),
            "w": adapter.fusion.weight,
        }
        ids = [row for (row,) in database.execute(sql, values)]
        ours = scored.ranking.doc_rows[number].tolist()
        # The last two documents are equal; which comes first is a matter of ties.
        last = len(texts.doc_ids) - 1
        assert [min(i, last - 1) for i in ids] == [min(i, last - 1) for i in ours]
