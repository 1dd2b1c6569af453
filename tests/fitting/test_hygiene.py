"""No test query's vector, text or label reaches what is fitted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import HashEncoder
from planted import QUICK, QUICK_PAPER, Meddled, default_qrels, embedded, planted_texts

from era_cache.collection.beir import read_beir
from era_cache.collection.records import Collection, TextCollection
from era_cache.collection.splits import Split, make_split
from era_cache.config import EmbedConfig, FitConfig, PaperConfig, SplitConfig
from era_cache.encode.embed import embed_collection
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.fit_from_store import FitPlan, FitReport, fit_to_folder
from era_cache.fitting.sources import Reading
from era_cache.fitting.tensors import load_fit_data
from era_cache.store import stored_encoder
from era_cache.store.key_index import KeyIndex
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import Keys, Role

TOY = Path(__file__).resolve().parents[2] / "data" / "toy"
SPLIT = SplitConfig(labels=0.3)


def _fit(
    store: Store,
    folder: Path,
    names: str | list[str],
    recipe: FitConfig | PaperConfig = QUICK,
) -> FitReport:
    return fit_to_folder(
        store, names, folder, FitPlan(SPLIT, recipe, candidate="auto"), Reading(device="cpu")
    )


def _tensors(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*.safetensors"))
    assert paths
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _validation(folder: Path) -> dict[str, object]:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: entry["validation"] for name, entry in metrics["candidates"].items()}


def _as_set(keys: Keys) -> set[bytes]:
    return {row.tobytes() for row in keys}


class _Reads:
    """Every key whose vector was read, and how often vectors were taken from a file at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: set[bytes] = set()
        self.asked: set[bytes] = set()
        self.calls = self.copies = 0
        vectors, positions = StoredEncoder.vectors, KeyIndex.positions
        read = stored_encoder.read_rows

        def spy_vectors(encoder, keys, **options):
            self.calls += 1
            self.keys |= _as_set(keys)
            return vectors(encoder, keys, **options)

        def spy_read(index, places, out):
            self.copies += 1
            return read(index, places, out)

        def spy_positions(index, keys):
            self.asked |= _as_set(keys)
            return positions(index, keys)

        monkeypatch.setattr(StoredEncoder, "vectors", spy_vectors)
        monkeypatch.setattr(stored_encoder, "read_rows", spy_read)
        monkeypatch.setattr(KeyIndex, "positions", spy_positions)


def _toy(path: Path) -> tuple[Store, Collection]:
    store = Store.create(path)
    collection, _ = embed_collection(
        store,
        read_beir(TOY),
        large=HashEncoder(24, "large"),
        small=HashEncoder(16, "small"),
        config=EmbedConfig(align_documents=20),
    )
    return store, collection


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["era", "paper"])
def test_fitting_asks_the_store_for_no_test_query(tmp_path, monkeypatch, recipe) -> None:
    store, collection = _toy(tmp_path / "store")
    reads = _Reads(monkeypatch)
    split = _fit(store, tmp_path / "adapter", "toy", recipe).splits["toy"]
    test = _as_set(collection.query_keys[split.test])
    assert len(test) == 10
    assert not reads.keys & test
    assert not reads.asked & test
    # The spies see what they should: training queries and documents, and no read goes past them.
    assert _as_set(collection.query_keys[split.train]) <= reads.keys
    assert _as_set(collection.query_keys[split.validation]) <= reads.keys
    assert _as_set(collection.doc_keys) <= reads.keys
    assert reads.copies == reads.calls > 0


def test_no_test_vector_is_read_where_the_pair_must_be_found(tmp_path, monkeypatch) -> None:
    store, collection = _toy(tmp_path / "store")
    shutil.rmtree(store.path / "pairs")
    reads = _Reads(monkeypatch)
    split = _fit(store, tmp_path / "adapter", "toy").splits["toy"]
    test = _as_set(collection.query_keys[split.test])
    # Whether rows are there is asked for all queries; vectors are read of none of test.
    assert test <= reads.asked
    assert not reads.keys & test
    assert reads.copies == reads.calls > 0


def test_queries_with_the_text_of_a_test_query_are_never_read(tmp_path, monkeypatch) -> None:
    store, collection = embedded(tmp_path / "store", planted_texts(repeats=20))
    reads = _Reads(monkeypatch)
    split = _fit(store, tmp_path / "adapter", "planted").splits["planted"]
    test = _as_set(collection.query_keys[split.test])
    assert len(test) < len(split.test)  # test holds repeated texts
    assert not reads.keys & test


def _poisoned(texts: TextCollection, rows: set[int], large_docs: bool, path: Path) -> Store:
    """The same store with other vectors and labels for the queries ``rows``."""
    others = {texts.query_texts[row] for row in rows}
    usual = default_qrels(len(texts.doc_ids), itself=not texts.ignore_identical_ids)

    def qrels(query: int) -> list[tuple[int, int]]:
        if query not in rows:
            return usual(query)
        return [((query + 40 + i) % len(texts.doc_ids), 3 - i) for i in range(5)]

    changed = planted_texts(
        len(texts.doc_ids),
        len(texts.query_ids),
        queries_are_documents=texts.ignore_identical_ids,
        qrels=qrels,
    )
    role = Role.DOCUMENT if large_docs else Role.QUERY
    large = Meddled(24, "large", role, others)
    small = Meddled(16, "small", Role.QUERY, others)
    return embedded(path, changed, large=large, small=small)[0]


def _split(texts: TextCollection, path: Path) -> tuple[Store, Collection, Split]:
    store, collection = embedded(path, texts)
    return store, collection, make_split(collection, SPLIT)


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["era", "paper"])
def test_other_vectors_and_labels_of_test_queries_change_no_byte(tmp_path, recipe) -> None:
    texts = planted_texts()
    store, collection, split = _split(texts, tmp_path / "a")
    seen = {*split.train.tolist(), *split.validation.tolist()}
    # Also the queries whose labels the share leaves unspent: they must not count either.
    outside = set(range(len(texts.query_ids))) - seen
    assert set(split.test.tolist()) < outside
    poisoned = _poisoned(texts, outside, False, tmp_path / "b")
    assert poisoned.collection("planted").digest != collection.digest
    one = _fit(store, tmp_path / "one", "planted", recipe)
    two = _fit(poisoned, tmp_path / "two", "planted", recipe)
    tests = [report.splits["planted"].test.tolist() for report in (one, two)]
    assert tests[0] == tests[1]
    assert _tensors(tmp_path / "one") == _tensors(tmp_path / "two")
    assert _validation(tmp_path / "one") == _validation(tmp_path / "two")
    assert one.result.choice == two.result.choice
    # With the default recipe training queries judge too, each under a model that never saw it.
    judging = len(split.validation) + (len(split.train) if recipe is QUICK else 0)
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["judging_queries"] == judging


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_same_poison_in_a_query_that_may_be_seen_does_show(tmp_path, part) -> None:
    texts = planted_texts()
    store, _, split = _split(texts, tmp_path / "a")
    rows = set(getattr(split, part).tolist())
    _fit(store, tmp_path / "one", "planted")
    _fit(_poisoned(texts, rows, False, tmp_path / "b"), tmp_path / "two", "planted")
    for shown in (_tensors, _validation):
        assert shown(tmp_path / "one") != shown(tmp_path / "two")


def test_where_queries_are_documents_no_test_query_helps_to_align(tmp_path) -> None:
    texts = planted_texts(60, 60, queries_are_documents=True)
    store, collection, split = _split(texts, tmp_path / "a")
    data = load_fit_data(
        collection, split, resolve_encoders(store, collection), align_documents=1000
    )
    # All documents but the test queries' own, of which two have one text (the last two).
    test = {collection.query_ids[row] for row in split.test}
    left = {i: k.tobytes() for i, k in zip(collection.doc_ids, collection.doc_keys, strict=True)}
    test_keys = {left[i] for i in test}
    assert len(data.align_large) == len(set(left.values()) - test_keys)
    # What the large model says of those documents changes nothing.
    poisoned = _poisoned(texts, set(split.test.tolist()), True, tmp_path / "b")
    _fit(store, tmp_path / "one", "planted")
    _fit(poisoned, tmp_path / "two", "planted")
    assert _tensors(tmp_path / "one") == _tensors(tmp_path / "two")


@pytest.mark.parametrize("in_test", [118, 119])
def test_a_document_with_the_text_of_a_test_query_does_not_align_under_another_id(
    tmp_path, in_test
) -> None:
    # Documents 118 and 119 have one text; whichever is the test query, neither may align.
    texts = planted_texts(120, 120, queries_are_documents=True)
    store, collection = embedded(tmp_path / "store", texts, large_corpus=True)
    split = Split(np.arange(10), np.arange(10, 20), np.array([in_test]), SPLIT)
    data = load_fit_data(
        collection, split, resolve_encoders(store, collection), align_documents=1000
    )
    assert len(data.align_large) == 118


def test_alignment_uses_every_document_where_queries_are_none(tmp_path) -> None:
    store, collection, split = _split(planted_texts(40, 40), tmp_path / "a")
    data = load_fit_data(
        collection, split, resolve_encoders(store, collection), align_documents=1000
    )
    assert len(data.align_large) == 39  # distinct texts


def _two_collections(path: Path, *, apart: bool) -> tuple[Store, Collection, Collection]:
    """A store of two collections; unless ``apart``, each query of one is also one of the other."""
    texts = planted_texts()
    others = texts.query_texts[::-1]
    if apart:
        others = [f"{text} elsewhere" for text in others]
    store, first = embedded(path, texts)
    second, _ = embed_collection(
        store,
        texts._replace(name="again", query_texts=others),
        large=HashEncoder(24, "large"),
        small=HashEncoder(16, "small"),
        config=EmbedConfig(align_documents=60),
    )
    return store, first, second


@pytest.mark.parametrize("apart", [True, False])
def test_no_test_query_of_any_of_several_collections_is_read(tmp_path, monkeypatch, apart) -> None:
    store, *collections = _two_collections(tmp_path / "store", apart=apart)
    usual = [make_split(collection, SPLIT) for collection in collections]
    reads = _Reads(monkeypatch)
    splits = _fit(store, tmp_path / "adapter", ["planted", "again"]).splits
    for collection in collections:
        split = splits[collection.name]
        assert not reads.keys & _as_set(collection.query_keys[split.test])
        assert _as_set(collection.query_keys[split.train]) <= reads.keys
    lost = sum(len(s.train) for s in usual) - sum(len(s.train) for s in splits.values())
    assert lost == 0 if apart else lost > 0
