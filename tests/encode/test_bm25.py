"""BM25 lists: the formula by hand, and what makes them valid."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from era_cache.collection.records import Dropped, TextCollection
from era_cache.encode import bm25
from era_cache.encode.bm25 import embed_bm25
from era_cache.errors import InputError
from era_cache.store.lists import find_lists, lists_of
from era_cache.store.store import Store
from era_cache.types import Qrels

DOCS = {
    "a": "cats chase mice",
    "b": "the cat sleeps, the cat eats, the cat sleeps",
    "c": "dogs bark at cats and at dogs",
    "d": "nothing of the kind",
    "e": "cats chase mice",
}
QUERIES = {"1": "cat chasing", "2": "sleeping dog", "3": "zebra", "4": "of the"}


def texts(docs: dict[str, str] = DOCS, queries: dict[str, str] = QUERIES) -> TextCollection:
    none = np.zeros(0, dtype=np.int64)
    return TextCollection(
        name="animals",
        domain="",
        ignore_identical_ids=False,
        doc_ids=list(docs),
        doc_texts=list(docs.values()),
        query_ids=list(queries),
        query_texts=list(queries.values()),
        instructions=[""] * len(queries),
        splits={"test": Qrels(none, none, none)},
        dropped=Dropped(),
    )


def expected(docs: list[list[str]], query: list[str]) -> list[float]:
    """BM25 as Lucene computes it, k1 1.5, b 0.75 (Robertson and Zaragoza 2009; no k1 + 1)."""
    mean = sum(map(len, docs)) / len(docs)
    scores = []
    for words in docs:
        counts, total = Counter(words), 0.0
        for term in query:
            holding = sum(term in other for other in docs)
            if holding and counts[term]:
                idf = math.log(1 + (len(docs) - holding + 0.5) / (holding + 0.5))
                length = 1.5 * (1 - 0.75 + 0.75 * len(words) / mean)
                total += idf * counts[term] / (counts[term] + length)
        scores.append(total)
    return scores


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def table_of(store: Store, collection, rows):
    found = find_lists(store, "bm25", collection.doc_keys)
    return lists_of(found, collection, np.array(rows))


def test_scores_are_the_formula_s_and_equal_documents_count_once(store) -> None:
    collection = store.add_collection(texts())
    report = embed_bm25(store, texts(), collection)
    assert (report.encoded, report.cached) == (4, 0)
    table, missing = table_of(store, collection, [0, 1, 2, 3])
    assert not len(missing)
    stems = [
        ["cat", "chase", "mice"],
        ["cat", "sleep", "cat", "eat", "cat", "sleep"],
        ["dog", "bark", "cat", "dog"],
        ["noth", "kind"],
    ]
    for row, query in ((0, ["cat", "chase"]), (1, ["sleep", "dog"])):
        scores = [*expected(stems, query)]
        scores.append(scores[0])  # document e is document a
        got = dict(zip(table.docs[row].tolist(), table.scores[row].tolist(), strict=True))
        for doc, score in enumerate(scores):
            assert got.get(doc, 0.0) == pytest.approx(score, abs=1e-6)
        assert (np.diff(table.scores[row]) <= 0).all()
    assert (table.docs[2] == -1).all()  # no document has the word
    assert (table.docs[3] == -1).all()  # stop words alone
    assert (table.floor == 0).all()


def test_only_what_is_missing_is_ranked(store, monkeypatch) -> None:
    collection = store.add_collection(texts())
    embed_bm25(store, texts(), collection)
    more = texts(queries={**QUERIES, "5": "mice"})
    grown = store.add_collection(more)
    assert (embed_bm25(store, more, grown).encoded, embed_bm25(store, more, grown).encoded) == (
        1,
        0,
    )
    table, missing = table_of(store, grown, [0, 4])
    assert not len(missing)
    assert set(table.docs[1].tolist()) == {0, 4, -1}
    # Another document changes what every word is worth: all queries are ranked anew.
    other = texts({**DOCS, "f": "mice"})
    assert embed_bm25(store, other, store.add_collection(other)).encoded == 4
    # So does another setting, which then is the one that counts.
    report = embed_bm25(store, texts(), collection, language="none")
    assert report.encoded == 4
    table, _ = table_of(store, collection, [0])
    assert table.docs[0].tolist() == [1]  # 'cat' is no 'cats'


def test_long_lists_are_cut_and_their_floor_is_the_last_score(store, monkeypatch) -> None:
    monkeypatch.setattr(bm25, "DEPTH", 2)
    docs = {f"d{i}": " ".join(["cat"] * (i + 1) + ["dog"] * (9 - i)) for i in range(9)}
    collection = store.add_collection(texts(docs, {"1": "cat", "2": "cat dog"}))
    embed_bm25(store, texts(docs, {"1": "cat", "2": "cat dog"}), collection)
    table, _ = table_of(store, collection, [0])
    assert table.docs.shape == (1, 2)
    assert table.floor[0] == table.scores[0, 1]


def test_a_collection_that_left_out_texts_is_ranked_by_its_own(store) -> None:
    left = texts().without(np.array([1]), np.array([0]))
    collection = store.add_collection(left)
    embed_bm25(store, texts(), collection)  # the reader's texts, one document and query more
    table, missing = table_of(store, collection, [0])
    assert not len(missing)
    # 'sleeping dog': of the documents that are left only c, 'dogs bark', row 1.
    assert table.docs[0].tolist() == [1]


@pytest.mark.parametrize("docs", [{}, {"a": "?!", "b": "..."}])
def test_documents_without_words_give_empty_lists(store, docs) -> None:
    collection = store.add_collection(texts(docs))
    embed_bm25(store, texts(docs), collection)
    found = find_lists(store, "bm25", collection.doc_keys)
    assert bool(found) == bool(docs)
    assert not len(docs) or not len(found[0].lists.list_docs)


def test_unknown_languages_and_a_missing_library_are_told(store, monkeypatch) -> None:
    collection = store.add_collection(texts())
    with pytest.raises(InputError, match=r"--bm25-language klingon: there are .*german.* none"):
        embed_bm25(store, texts(), collection, language="klingon")
    monkeypatch.setitem(__import__("sys").modules, "Stemmer", None)
    with pytest.raises(InputError, match=r"pip install 'era-cache\[bm25\]'"):
        embed_bm25(store, texts(), collection)
