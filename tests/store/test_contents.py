"""What a store says it holds."""

from __future__ import annotations

import pytest
from hash_encoder import HashEncoder
from planted import embedded, planted_texts

from era_cache.errors import StoreError
from era_cache.store.contents import coverage, list_collections, list_encoders
from era_cache.store.store import Store
from era_cache.types import Role


def test_an_empty_store_lists_nothing(tmp_path) -> None:
    store = Store.create(tmp_path / "store")
    assert list_encoders(store) == list_collections(store) == coverage(store) == []


def test_encoders_are_listed_with_rows_and_size(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    rows = {(row["encoder"], row["role"]): row for row in list_encoders(store)}
    # 119 of 120 documents are distinct; the large model has a sample of 60.
    assert {key: row["rows"] for key, row in rows.items()} == {
        ("hash-16", "document"): 119,
        ("hash-16", "query"): 60,
        ("hash-24", "document"): 60,
        ("hash-24", "query"): 60,
    }
    small = rows["hash-16", "document"]
    assert small["fingerprint"] == HashEncoder(16, "small").spec.fingerprint(Role.DOCUMENT)[:12]
    assert (small["dim"], small["segments"]) == (16, 1)
    (path,) = store.path.glob("encoders/hash-16-document-*/segments/*.h5")
    assert small["bytes"] == path.stat().st_size > 119 * (16 + 2 * 16)


def test_each_version_of_a_collection_is_listed(tmp_path) -> None:
    store, first = embedded(tmp_path / "store", planted_texts())
    second = store.add_collection(planted_texts(n_queries=50))
    rows = {row["version"]: row for row in list_collections(store)}
    assert set(rows) == {first.version, second.version}
    row = rows[first.version]
    assert (row["collection"], row["documents"], row["queries"]) == ("planted", 120, 60)
    assert (row["judgements"], row["splits"]) == (180, "test")
    assert row["embedded"] == first.created[:19]
    assert rows[second.version]["queries"] == 50


def test_coverage_counts_the_rows_of_each_encoder(tmp_path) -> None:
    store, collection = embedded(tmp_path / "store", planted_texts())
    rows = {(row["encoder"], row["role"]): row for row in coverage(store, "planted")}
    assert {key: (row["stored"], row["of"]) for key, row in rows.items()} == {
        ("hash-16", "document"): (120, 120),
        ("hash-16", "query"): (60, 60),
        ("hash-24", "document"): (rows["hash-24", "document"]["stored"], 120),
        ("hash-24", "query"): (60, 60),
    }
    # 60 distinct documents, of which one may stand for two rows.
    assert rows["hash-24", "document"]["stored"] in (60, 61)
    assert {row["collection"] for row in rows.values()} == {f"planted-{collection.version}"}
    assert coverage(store) == coverage(store, "planted")


def test_coverage_of_an_unknown_collection_is_refused(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    with pytest.raises(StoreError, match="no collection 'other'; it holds: planted"):
        coverage(store, "other")
