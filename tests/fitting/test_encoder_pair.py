"""Which encoders make a pair, and the tensors read for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hash_encoder import HashEncoder
from planted import embedded, planted_texts

from era_cache.collection.records import Collection, TextCollection
from era_cache.collection.splits import make_split
from era_cache.config import SplitConfig
from era_cache.errors import FitError, FormatError, StoreError
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.tensors import load_fit_data, load_held_out, query_set, resolve_device
from era_cache.rank.ties import tie_order
from era_cache.store.store import Store
from era_cache.types import Role

LARGE, SMALL = HashEncoder(24, "large"), HashEncoder(16, "small")
SPLIT = SplitConfig(labels=0.3)


@pytest.fixture(scope="module")
def texts() -> TextCollection:
    return planted_texts()


@pytest.fixture(scope="module")
def built(texts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "store"
    embedded(path, texts, large=LARGE, small=SMALL)
    return path


@pytest.fixture
def store(built, tmp_path) -> Store:
    return Store.open(shutil.copytree(built, tmp_path / "store"))


@pytest.fixture
def collection(store) -> Collection:
    return store.collection("planted")


def _sides(encoders) -> list[str]:
    return [encoder.spec.fingerprint for encoder in encoders]


EXPECTED = [
    LARGE.spec.fingerprint(Role.QUERY),
    SMALL.spec.fingerprint(Role.QUERY),
    SMALL.spec.fingerprint(Role.DOCUMENT),
    LARGE.spec.fingerprint(Role.DOCUMENT),
]


@pytest.mark.parametrize("recorded", [True, False])
def test_the_pair_of_a_store_is_found_with_and_without_its_record(
    store, collection, recorded
) -> None:
    if not recorded:
        shutil.rmtree(store.path / "pairs")
    encoders = resolve_encoders(store, collection)
    assert _sides(encoders) == EXPECTED
    record = encoders.record()
    assert list(record) == ["query", "small_query", "document", "align"]
    assert record["query"]["name"] == "hash-24"
    assert record["document"]["dim"] == 16
    assert record["query"]["space"] == record["align"]["space"] != record["document"]["space"]


def test_of_several_pairs_the_last_one_embedded_counts(store, collection, texts) -> None:
    third = HashEncoder(20, "third")
    for large in (third, LARGE, third):
        embedded(store.path, texts, large=large, small=SMALL)
        assert resolve_encoders(store, collection).query.spec.name == large.spec.name


def test_a_new_template_of_the_small_queries_is_the_pair_that_counts(
    store, collection, texts
) -> None:
    prompted = HashEncoder(16, "small", template="query: {text}")
    prompted.spec = SMALL.spec._replace(templates=prompted.spec.templates)
    embedded(store.path, texts, large=LARGE, small=prompted)
    found = resolve_encoders(store, collection)
    assert found.small_query.spec.template == "query: {text}"


def test_of_several_pairs_that_nobody_recorded_none_is_guessed(store, collection, texts) -> None:
    embedded(store.path, texts, large=HashEncoder(20, "third"), small=SMALL)
    shutil.rmtree(store.path / "pairs")
    with pytest.raises(StoreError, match=r"several encoder pairs.*--query-encoder") as caught:
        resolve_encoders(store, collection)
    assert "hash-24" in str(caught.value)
    assert "hash-20" in str(caught.value)


@pytest.mark.parametrize("recorded", [True, False])
def test_of_several_pairs_one_is_chosen_by_name_fingerprint_or_space(
    store, collection, texts, recorded
) -> None:
    embedded(store.path, texts, large=HashEncoder(20, "third"), small=SMALL)
    if not recorded:
        shutil.rmtree(store.path / "pairs")
    for query in ("hash-24", EXPECTED[0][:8], LARGE.spec.space[:8]):
        found = resolve_encoders(store, collection, query=query, document="hash-16")
        assert _sides(found) == EXPECTED


def test_three_digits_of_a_fingerprint_are_too_few(store, collection) -> None:
    with pytest.raises(StoreError):
        resolve_encoders(store, collection, query=EXPECTED[0][:3])


def test_an_encoder_that_the_store_lacks_is_reported_with_those_it_has(store, collection) -> None:
    with pytest.raises(StoreError, match=r"no document encoder matches 'other'.*hash-16"):
        resolve_encoders(store, collection, document="other")
    with pytest.raises(StoreError, match=r"no encoder pair is complete.*hash-24"):
        resolve_encoders(store, collection, query="other")


def test_a_recorded_pair_whose_vectors_are_gone_is_an_error_not_a_guess(store, collection) -> None:
    (folder,) = (store.path / "encoders").glob(f"hash-16-document-{EXPECTED[2][:12]}")
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match=r"nothing is stored for: document\. Run era-embed again"):
        resolve_encoders(store, collection)


def test_a_record_that_mixes_up_roles_is_refused(store, collection) -> None:
    (pair,) = store.pairs(collection)
    shutil.rmtree(store.path / "pairs")
    store.add_pair(collection, {**pair, "query": pair["small_query"], "small_query": pair["query"]})
    with pytest.raises(FormatError, match="mixes up roles or models"):
        resolve_encoders(store, collection)


def test_a_store_without_vectors_says_so(tmp_path, texts) -> None:
    store = Store.create(tmp_path / "empty")
    collection = store.add_collection(texts)
    with pytest.raises(StoreError, match=r"no vectors yet\. Run era-embed"):
        resolve_encoders(store, collection)


def test_one_model_may_be_both_sides(tmp_path, texts) -> None:
    for recorded in (True, False):
        store, collection = embedded(tmp_path / str(recorded), texts, large=SMALL, small=SMALL)
        if not recorded:
            shutil.rmtree(store.path / "pairs")
        encoders = resolve_encoders(store, collection)
        assert encoders.query.spec == encoders.small_query.spec
        assert encoders.document.spec == encoders.align.spec


def _vectors(encoder: HashEncoder, texts: list[str]) -> np.ndarray:
    vectors = np.concatenate([v for _, v in encoder.encode(texts, Role.QUERY)])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _close(tensor: torch.Tensor, expected: np.ndarray) -> None:
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(tensor.norm(dim=1).numpy(), 1, atol=1e-6)


def test_fit_data_are_the_unit_vectors_of_the_right_texts_in_order(
    store, collection, texts
) -> None:
    split = make_split(collection, SPLIT)
    data = load_fit_data(
        collection, split, resolve_encoders(store, collection), align_documents=1000
    )
    for queries, rows in ((data.train, split.train), (data.validation, split.validation)):
        assert queries.ids == [texts.query_ids[row] for row in rows]
        own = [texts.query_texts[row] for row in rows]
        _close(queries.views["large"], _vectors(LARGE, own))
        _close(queries.views["small"], _vectors(SMALL, own))
        assert queries.exclude is None
    _close(data.corpus, _vectors(SMALL, texts.doc_texts))
    assert data.tie_ranks.tolist() == tie_order(texts.doc_ids).tolist()
    # The same documents on both sides of the alignment: find them by their small vectors.
    assert data.align_large.shape == (60, 24)
    rows = (data.align_small @ data.corpus.T).argmax(dim=1).tolist()
    assert len(set(rows)) == 60
    assert rows != sorted(rows)  # in the sample's order: a prefix is a smaller sample
    _close(data.align_large, _vectors(LARGE, [texts.doc_texts[row] for row in rows]))


def test_fewer_alignment_documents_are_part_of_more(store, collection) -> None:
    split, encoders = make_split(collection, SPLIT), resolve_encoders(store, collection)
    some, more = (
        load_fit_data(collection, split, encoders, align_documents=count) for count in (10, 30)
    )
    assert (len(some.align_large), len(more.align_large)) == (10, 30)
    found = {tuple(row) for row in more.align_large.tolist()}
    assert {tuple(row) for row in some.align_large.tolist()} < found


def test_held_out_data_are_the_test_queries(store, collection, texts) -> None:
    split = make_split(collection, SPLIT)
    data = load_held_out(collection, split, resolve_encoders(store, collection))
    assert data.queries.ids == [texts.query_ids[row] for row in split.test]
    own = [texts.query_texts[row] for row in split.test]
    _close(data.queries.views["large"], _vectors(LARGE, own))
    _close(data.corpus, _vectors(SMALL, texts.doc_texts))
    assert data.large_corpus is None


def test_judgements_are_renumbered_by_position(collection) -> None:
    rows = np.array([5, 2], dtype=np.int64)
    queries = query_set(collection, rows, {}, "cpu")
    assert queries.ids == ["q005", "q002"]
    found = sorted(zip(*(column.tolist() for column in queries.qrels), strict=True))
    assert found == [(0, 5, 2), (0, 10, 1), (0, 14, 0), (1, 2, 2), (1, 7, 1), (1, 11, 0)]


def test_a_query_excludes_the_document_of_its_id_where_the_collection_says_so(collection) -> None:
    made = collection._replace(
        ignore_identical_ids=True, query_ids=["d003", "none", *collection.query_ids[2:]]
    )
    queries = query_set(made, np.array([1, 0], dtype=np.int64), {}, "cpu")
    assert queries.exclude.tolist() == [-1, 3]
    assert query_set(collection, np.array([0]), {}, "cpu").exclude is None


def test_alignment_without_any_document_is_refused(store, collection) -> None:
    encoders = resolve_encoders(store, collection)
    for path in encoders.align.segment_paths():
        path.unlink()
    with pytest.raises(FitError, match=r"no document is encoded by hash-24.*--align-documents"):
        load_fit_data(collection, make_split(collection, SPLIT), encoders, align_documents=10)


def test_a_missing_row_is_reported(store, collection) -> None:
    encoders = resolve_encoders(store, collection)
    for path in encoders.small_query.segment_paths():
        path.unlink()
    with pytest.raises(StoreError, match="24 of 24 rows are not encoded by hash-16"):
        load_fit_data(collection, make_split(collection, SPLIT), encoders, align_documents=10)


@pytest.mark.parametrize("side", ["query", "small_query", "document", "align"])
def test_a_changed_byte_of_any_segment_is_found_before_fitting(store, collection, side) -> None:
    encoders = resolve_encoders(store, collection)
    (path,) = getattr(encoders, side).segment_paths()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    split = make_split(collection, SPLIT)
    for load in (
        lambda: load_fit_data(collection, split, encoders, align_documents=10),
        lambda: load_held_out(collection, split, encoders),
    ):
        with pytest.raises(FormatError, match="segment is damaged"):
            load()


def test_a_device_that_is_not_there_is_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(None) == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(FitError, match=f"Device '{name}' cannot be used"):
            resolve_device(name)
