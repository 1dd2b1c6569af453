"""Which encoders make a pair."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from planted import embed, embedded, planted_texts

from era_cache.collection.records import Collection, TextCollection
from era_cache.errors import FormatError, StoreError
from era_cache.fitting.encoder_pair import resolve_encoders, told_pair
from era_cache.store.store import Store
from era_cache.types import Role

LARGE, SMALL = HashEncoder(24, "large"), HashEncoder(16, "small")
THIRD = HashEncoder(20, "third")


@pytest.fixture(scope="module")
def texts() -> TextCollection:
    return planted_texts()


@pytest.fixture(scope="module")
def built(texts, tmp_path_factory) -> Path:
    return embedded(tmp_path_factory.mktemp("pairs") / "store", texts)[0].path


@pytest.fixture
def store(built, tmp_path) -> Store:
    return Store.open(shutil.copytree(built, tmp_path / "store"))


@pytest.fixture
def collection(store) -> Collection:
    return store.collection("planted")


def _forget(store: Store) -> None:
    shutil.rmtree(store.path / "pairs")


def _sides(encoders) -> list[str]:
    return [encoder.spec.fingerprint for encoder in encoders]


EXPECTED = [
    encoder.spec.fingerprint(role)
    for role, encoders in ((Role.QUERY, (LARGE, SMALL)), (Role.DOCUMENT, (SMALL, LARGE)))
    for encoder in encoders
]


@pytest.mark.parametrize("recorded", [True, False])
def test_the_pair_of_a_store_is_found_with_and_without_its_record(
    store, collection, recorded
) -> None:
    if not recorded:
        _forget(store)
    encoders = resolve_encoders(store, collection)
    assert _sides(encoders) == EXPECTED
    record = encoders.record()
    assert list(record) == ["query", "small_query", "document", "align"]
    assert record["query"]["name"] == "hash-24"
    assert record["document"]["dim"] == 16
    assert record["query"]["space"] == record["align"]["space"] != record["document"]["space"]


def test_of_several_pairs_the_last_one_embedded_counts(store, collection, texts) -> None:
    for large in (THIRD, LARGE, THIRD):
        embed(store, texts, large=large)
        assert resolve_encoders(store, collection).query.spec.name == large.spec.name
    # So does a new template of the small queries.
    prompted = HashEncoder(16, "small", template="query: {text}")
    prompted.spec = SMALL.spec._replace(templates=prompted.spec.templates)
    embed(store, texts, small=prompted)
    found = resolve_encoders(store, collection)
    assert found.small_query.spec.template == "query: {text}"


def test_what_is_used_and_what_else_there_is_can_be_told(store, collection, texts) -> None:
    first = told_pair(store, collection, resolve_encoders(store, collection))
    assert "also embedded" not in first
    prompted = HashEncoder(24, "large", template="Find: {text}")
    embed(store, texts, large=prompted)
    told = told_pair(store, collection, resolve_encoders(store, collection))
    used, others = told.split("; planted was also embedded for: ")
    assert "prompt 'Find: {text}'" in used
    assert first in others
    # One model, two prompts: a name does not choose between them, and is not taken to.
    with pytest.raises(StoreError, match=r"several pairs that match.*prompt 'Find: \{text\}'"):
        resolve_encoders(store, collection, query="hash-24")
    fingerprint = prompted.spec.fingerprint(Role.QUERY)
    found = resolve_encoders(store, collection, query=fingerprint[:12])
    assert found.query.spec.template == "Find: {text}"


def test_of_several_pairs_that_nobody_recorded_none_is_guessed(store, collection, texts) -> None:
    embed(store, texts, large=THIRD)
    _forget(store)
    with pytest.raises(StoreError, match=r"several encoder pairs.*--query-encoder") as caught:
        resolve_encoders(store, collection)
    for name in ("hash-24", "hash-20"):
        assert name in str(caught.value)


@pytest.mark.parametrize("recorded", [True, False])
def test_of_several_pairs_one_is_chosen_by_name_fingerprint_or_space(
    store, collection, texts, recorded
) -> None:
    embed(store, texts, large=THIRD)
    if not recorded:
        _forget(store)
    for query in ("hash-24", EXPECTED[0][:8], LARGE.spec.space[:8]):
        found = resolve_encoders(store, collection, query=query, document="hash-16")
        assert _sides(found) == EXPECTED


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"document": "other"}, r"no document encoder matches 'other'.*hash-16"),
        ({"query": "other"}, r"no encoder pair is complete.*hash-24"),
        ({"query": EXPECTED[0][:3]}, "no encoder pair is complete"),  # too few digits
    ],
)
def test_an_encoder_that_the_store_lacks_is_reported_with_those_it_has(
    store, collection, asked, message
) -> None:
    with pytest.raises(StoreError, match=message):
        resolve_encoders(store, collection, **asked)


def test_a_recorded_pair_whose_vectors_are_gone_is_an_error_not_a_guess(store, collection) -> None:
    (folder,) = (store.path / "encoders").glob(f"hash-16-document-{EXPECTED[2][:12]}")
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match=r"nothing is stored for: document\. Run era-embed again"):
        resolve_encoders(store, collection)


def test_a_record_that_mixes_up_roles_is_refused(store, collection) -> None:
    (pair,) = store.pairs(collection)
    _forget(store)
    store.add_pair(collection, {**pair, "query": pair["small_query"], "small_query": pair["query"]})
    with pytest.raises(FormatError, match="mixes up roles or models"):
        resolve_encoders(store, collection)


def test_a_store_without_vectors_says_so(tmp_path, texts) -> None:
    store = Store.create(tmp_path / "empty")
    collection = store.add_collection(texts)
    with pytest.raises(StoreError, match=r"no vectors yet\. Run era-embed"):
        resolve_encoders(store, collection)


@pytest.mark.parametrize("recorded", [True, False])
def test_one_model_may_be_both_sides(tmp_path, texts, recorded) -> None:
    store, collection = embedded(tmp_path / "store", texts, large=SMALL, small=SMALL)
    if not recorded:
        _forget(store)
    encoders = resolve_encoders(store, collection)
    assert encoders.query.spec == encoders.small_query.spec
    assert encoders.document.spec == encoders.align.spec
