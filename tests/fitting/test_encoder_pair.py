"""Which encoders make a pair."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from planted import embedded, planted_texts

from era_cache.collection.records import Collection, TextCollection
from era_cache.errors import FormatError, StoreError
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.store.store import Store
from era_cache.types import Role

LARGE, SMALL = HashEncoder(24, "large"), HashEncoder(16, "small")


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
