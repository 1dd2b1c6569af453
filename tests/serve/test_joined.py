"""Candidates that BM25 joins, one query at a time: the ranking that era-eval measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lookup_cases import Case, fitted
from planted import embedded, planted_texts

from era_cache.encode.bm25 import embed_bm25
from era_cache.errors import InputError
from era_cache.evaluate.score import score_adapters
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.first_stage import FirstStages
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.tensors import load_held_out
from era_cache.serve.engine import Lookup
from era_cache.serve.first_stage import QueryScores
from era_cache.serve.source import open_source
from era_cache.serve.texts import matching_texts
from era_cache.store.store import Store

NAME = "bm25+era-dual"


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    path: Path = tmp_path_factory.mktemp("joined")
    texts = planted_texts()
    store, collection = embedded(path / "store", texts)
    embed_bm25(store, texts, collection)
    return fitted(Case(store, path / "adapter", texts), texts.name, NAME)


def test_a_stored_query_is_ranked_as_it_is_measured(case) -> None:
    source = open_source(case.store, case.folder)
    lists = FirstStages().of(case.store, source.collection)
    data = load_held_out(source.collection, source.split, source.encoders, lists=lists)
    scored = score_adapters(data, {NAME: load_adapter(case.folder)}, [PRIMARY])[NAME]
    lookup = case.lookup(names=["small", NAME])
    for number, query in enumerate(data.queries.ids[:5]):
        answer = lookup.find_id(query, depth=10)
        column = next(one for one in answer.columns if one.name == NAME)
        ids = [source.collection.doc_ids[row] for row in scored.ranking.doc_rows[number, :10]]
        assert [hit.document for hit in column.hits] == ids
        assert [hit.score for hit in column.hits] == pytest.approx(
            scored.ranking.scores[number, :10].tolist(), abs=1e-6
        )


def test_a_typed_text_has_the_scores_that_were_stored_for_it(case) -> None:
    source = open_source(case.store, case.folder)
    scores = QueryScores(source, matching_texts(source.collection, case.texts), "cpu")
    n_docs = len(source.collection.doc_ids)
    for row in (0, 7, 59):
        dense = []
        for first in (scores.stored(np.array([row])), scores.typed(case.texts.query_texts[row])):
            whole = np.full(n_docs, float(first.floor[0]))
            kept = first.docs[0] >= 0
            whole[first.docs[0][kept].numpy()] = first.scores[0][kept].numpy()
            dense.append(whole)
        np.testing.assert_allclose(dense[0], dense[1], atol=1e-6)


def test_a_typed_text_needs_the_documents_texts(case) -> None:
    with pytest.raises(InputError, match=r"no bm25 scores yet: give .*--texts"):
        case.lookup(typed=True, names=["small", NAME]).find("w1 w2 w3")
    found = case.lookup(typed=True, texts=True, names=["small", NAME]).find("w1 w2 w3")
    assert [column.name for column in found.columns] == ["small", NAME]
    assert case.lookup(typed=True, names=["small", "era-dual"]).find("w1 w2 w3").columns


def test_texts_of_some_documents_are_not_enough(case) -> None:
    less = case.texts.without(np.array([3]), np.zeros(0, dtype=np.int64))
    source = open_source(case.store, case.folder)
    scores = QueryScores(source, matching_texts(source.collection, less), "cpu")
    with pytest.raises(InputError, match="no bm25 scores yet"):
        scores.typed("w1")


def test_a_query_without_a_list_is_told(case, tmp_path) -> None:
    texts = planted_texts()
    store, _ = embedded(tmp_path / "store", texts)
    lookup = Lookup(open_source(Store.open(store.path), case.folder), ["small", NAME], device="cpu")
    with pytest.raises(InputError, match="joined with bm25 need its lists"):
        lookup.find_id(texts.query_ids[0])
