"""No test query's vector, text or label reaches what is fitted."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from planted import (
    QUICK,
    QUICK_PAPER,
    SPLIT,
    embed,
    embedded,
    fit_folder,
    planted_texts,
    poisoned_store,
    read_fit_data,
    read_json,
    tensors_of,
    texts_elsewhere,
)

from era_cache.collection.records import Collection, TextCollection
from era_cache.collection.splits import Split, make_split
from era_cache.store import stored_encoder
from era_cache.store.key_index import KeyIndex
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import Keys, Role


def _validation(folder: Path) -> dict[str, object]:
    candidates = read_json(folder / "metrics.json")["candidates"]
    return {name: entry["validation"] for name, entry in candidates.items()}


def _as_set(keys: Keys) -> set[bytes]:
    return {row.tobytes() for row in keys}


class _Reads:
    """Every key whose vector was read, and how often vectors were taken from a file at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: set[bytes] = set()
        self.asked: set[bytes] = set()
        vectors, positions = StoredEncoder.vectors, KeyIndex.positions
        self.copies = Mock(side_effect=stored_encoder.read_rows)
        self.calls = 0

        def spy_vectors(encoder, keys, **options):
            self.calls += 1
            self.keys |= _as_set(keys)
            return vectors(encoder, keys, **options)

        def spy_positions(index, keys):
            self.asked |= _as_set(keys)
            return positions(index, keys)

        monkeypatch.setattr(StoredEncoder, "vectors", spy_vectors)
        monkeypatch.setattr(stored_encoder, "read_rows", self.copies)
        monkeypatch.setattr(KeyIndex, "positions", spy_positions)


@pytest.fixture
def toy_store(tmp_path, toy_texts) -> tuple[Store, Collection]:
    return embedded(tmp_path / "store", toy_texts, align_documents=20)


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["era", "paper"])
def test_fitting_asks_the_store_for_no_test_query(toy_store, tmp_path, monkeypatch, recipe) -> None:
    store, collection = toy_store
    reads = _Reads(monkeypatch)
    split = fit_folder(store, tmp_path / "adapter", "toy", recipe=recipe).splits["toy"]
    test = _as_set(collection.query_keys[split.test])
    assert len(test) == 10
    assert not reads.keys & test
    assert not reads.asked & test
    # The spies see what they should: training queries and documents, and no read goes past them.
    assert _as_set(collection.query_keys[split.train]) <= reads.keys
    assert _as_set(collection.query_keys[split.validation]) <= reads.keys
    assert _as_set(collection.doc_keys) <= reads.keys
    assert reads.copies.call_count == reads.calls > 0


def test_no_test_vector_is_read_where_the_pair_must_be_found(
    toy_store, tmp_path, monkeypatch
) -> None:
    store, collection = toy_store
    shutil.rmtree(store.path / "pairs")
    reads = _Reads(monkeypatch)
    split = fit_folder(store, tmp_path / "adapter", "toy").splits["toy"]
    test = _as_set(collection.query_keys[split.test])
    # Whether rows are there is asked for all queries; vectors are read of none of test.
    assert test <= reads.asked
    assert not reads.keys & test
    assert reads.copies.call_count == reads.calls > 0


def test_queries_with_the_text_of_a_test_query_are_never_read(tmp_path, monkeypatch) -> None:
    store, collection = embedded(tmp_path / "store", planted_texts(repeats=20))
    reads = _Reads(monkeypatch)
    split = fit_folder(store, tmp_path / "adapter").splits["planted"]
    test = _as_set(collection.query_keys[split.test])
    assert len(test) < len(split.test)  # test holds repeated texts
    assert not reads.keys & test


def _split(path: Path, **options: object) -> tuple[TextCollection, Store, Collection, Split]:
    texts = planted_texts(**options)
    store, collection = embedded(path, texts)
    return texts, store, collection, make_split(collection, SPLIT)


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["era", "paper"])
def test_other_vectors_and_labels_of_test_queries_change_no_byte(tmp_path, recipe) -> None:
    texts, store, collection, split = _split(tmp_path / "a")
    # Also the queries whose labels the share leaves unspent: they must not count either.
    outside = set(range(60)) - {*split.train.tolist(), *split.validation.tolist()}
    assert set(split.test.tolist()) < outside
    poisoned = poisoned_store(tmp_path / "b", texts, outside)
    assert poisoned.collection("planted").digest != collection.digest
    folders = tmp_path / "one", tmp_path / "two"
    one, two = (
        fit_folder(store, folder, recipe=recipe)
        for store, folder in zip((store, poisoned), folders, strict=True)
    )
    tests = [report.splits["planted"].test.tolist() for report in (one, two)]
    assert tests[0] == tests[1]
    assert one.result.choice == two.result.choice
    for shown in (tensors_of, _validation):
        assert shown(folders[0]) == shown(folders[1])
    # With the default recipe training queries judge too, each under a model that never saw it.
    judging = len(split.validation) + (len(split.train) if recipe is QUICK else 0)
    assert read_json(folders[0] / "metrics.json")["judging_queries"] == judging


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_same_poison_in_a_query_that_may_be_seen_does_show(tmp_path, part) -> None:
    texts, store, _, split = _split(tmp_path / "a")
    fit_folder(store, tmp_path / "one")
    rows = set(getattr(split, part).tolist())
    fit_folder(poisoned_store(tmp_path / "b", texts, rows), tmp_path / "two")
    for shown in (tensors_of, _validation):
        assert shown(tmp_path / "one") != shown(tmp_path / "two")


def test_where_queries_are_documents_no_test_query_helps_to_align(tmp_path) -> None:
    texts, store, collection, split = _split(tmp_path / "a", n_docs=60, queries_are_documents=True)
    data = read_fit_data(store, collection, split)
    # All documents but the test queries' own, of which two have one text (the last two).
    test = {collection.query_ids[row] for row in split.test}
    left = {i: k.tobytes() for i, k in zip(collection.doc_ids, collection.doc_keys, strict=True)}
    assert len(data.align_large) == len(set(left.values()) - {left[i] for i in test})
    # What the large model says of those documents changes nothing.
    poisoned = poisoned_store(tmp_path / "b", texts, set(split.test.tolist()), Role.DOCUMENT)
    fit_folder(store, tmp_path / "one")
    fit_folder(poisoned, tmp_path / "two")
    assert tensors_of(tmp_path / "one") == tensors_of(tmp_path / "two")


@pytest.mark.parametrize("in_test", [118, 119])
def test_a_document_with_the_text_of_a_test_query_does_not_align_under_another_id(
    tmp_path, in_test
) -> None:
    # Documents 118 and 119 have one text; whichever is the test query, neither may align.
    texts = planted_texts(120, 120, queries_are_documents=True)
    store, collection = embedded(tmp_path / "store", texts, large_corpus=True)
    split = Split(np.arange(10), np.arange(10, 20), np.array([in_test]), SPLIT)
    assert len(read_fit_data(store, collection, split).align_large) == 118


def test_alignment_uses_every_document_where_queries_are_none(tmp_path) -> None:
    _, *stored = _split(tmp_path / "a", n_docs=40, n_queries=40)
    assert len(read_fit_data(*stored).align_large) == 39  # distinct texts


@pytest.mark.parametrize("apart", [True, False])
def test_no_test_query_of_any_of_several_collections_is_read(tmp_path, monkeypatch, apart) -> None:
    texts, store, first, _ = _split(tmp_path / "store")
    # Unless they are apart, each query of one collection is also one of the other.
    reverse = texts._replace(name="again", query_texts=texts.query_texts[::-1])
    collections = [first, embed(store, texts_elsewhere("again") if apart else reverse)]
    usual = [make_split(collection, SPLIT) for collection in collections]
    reads = _Reads(monkeypatch)
    splits = fit_folder(store, tmp_path / "adapter", ["planted", "again"]).splits
    for collection in collections:
        split = splits[collection.name]
        assert not reads.keys & _as_set(collection.query_keys[split.test])
        assert _as_set(collection.query_keys[split.train]) <= reads.keys
    lost = sum(len(s.train) for s in usual) - sum(len(s.train) for s in splits.values())
    assert lost == 0 if apart else lost > 0
