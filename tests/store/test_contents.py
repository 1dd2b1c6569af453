"""What a store says it holds, and how two stores differ: rows by key, in whatever segments."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import embedded, planted_texts

from era_cache.cli import store_trust
from era_cache.collection.keys import row_keys
from era_cache.errors import StoreError
from era_cache.store import key_index
from era_cache.store.compact import compact
from era_cache.store.contents import Sides, coverage, diff, list_collections, list_encoders
from era_cache.store.sorted_keys import persist_index
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role


def test_an_empty_store_lists_nothing(tmp_path) -> None:
    store = Store.create(tmp_path / "store")
    assert list_encoders(store) == list_collections(store) == coverage(store) == []


def test_encoders_are_listed_with_rows_and_size(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    rows = {(row.encoder, row.role): row for row in list_encoders(store)}
    # 119 of 120 documents are distinct; the large model has a sample of 60.
    assert {key: row.rows for key, row in rows.items()} == {
        ("hash-16", "document"): 119,
        ("hash-16", "query"): 60,
        ("hash-24", "document"): 60,
        ("hash-24", "query"): 60,
    }
    small = rows["hash-16", "document"]
    assert small.fingerprint == HashEncoder(16, "small").spec.fingerprint(Role.DOCUMENT)[:12]
    assert (small.dim, small.segments) == (16, 1)
    (path,) = store.path.glob("encoders/hash-16-document-*/segments/*.h5")
    assert small.bytes == path.stat().st_size > 119 * (16 + 2 * 16)


def test_each_version_of_a_collection_is_listed(tmp_path) -> None:
    store, first = embedded(tmp_path / "store", planted_texts())
    second = store.add_collection(planted_texts(n_queries=50))
    rows = {row.version: row for row in list_collections(store)}
    assert set(rows) == {first.version, second.version}
    row = rows[first.version]
    assert (row.collection, row.documents, row.queries) == ("planted", 120, 60)
    assert (row.judgements, row.splits) == (180, "test")
    assert row.embedded == first.created[:19]
    assert rows[second.version].queries == 50


def test_coverage_counts_the_rows_of_each_encoder(tmp_path) -> None:
    store, collection = embedded(tmp_path / "store", planted_texts())
    rows = {(row.encoder, row.role): row for row in coverage(store, "planted")}
    assert {key: (row.stored, row.of) for key, row in rows.items()} == {
        ("hash-16", "document"): (120, 120),
        ("hash-16", "query"): (60, 60),
        ("hash-24", "document"): (rows["hash-24", "document"].stored, 120),
        ("hash-24", "query"): (60, 60),
    }
    # 60 distinct documents, of which one may stand for two rows.
    assert rows["hash-24", "document"].stored in (60, 61)
    assert {row.collection for row in rows.values()} == {f"planted-{collection.version}"}
    assert coverage(store) == coverage(store, "planted")


def test_coverage_of_an_unknown_collection_is_refused(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    with pytest.raises(StoreError, match="no collection 'other'; it holds: planted"):
        coverage(store, "other")


DIM = 2
SPEC, OTHER = HashEncoder(DIM).spec, HashEncoder(DIM, "other").spec


def store_of(path, *groups, spec=SPEC):
    """A store with one segment for each group of numbers."""
    store = Store.create(path)
    encoder = store.add_encoder(spec, Role.DOCUMENT, DIM)
    for group in groups:
        keys = row_keys(Role.DOCUMENT, [str(number) for number in group])
        SegmentWriter(encoder, {}).commit(keys, np.ones((len(group), DIM), np.float32))
    return store


def counts(difference):
    return [(e.rows_only_a, e.rows_only_b, e.rows_both) for e in difference.encoders]


def test_rows_are_compared_by_key_whatever_segments_they_are_in(tmp_path):
    a = store_of(tmp_path / "a", (1, 2), (3,), (2, 4))
    b = store_of(tmp_path / "b", (4, 3), (5, 6, 7))
    found = diff(a, b)
    assert counts(found) == [(2, 3, 2)]
    (encoder,) = found.encoders
    assert [len(names) for names in encoder.segments[:2]] == [3, 2]
    assert encoder.segments.both == 0
    assert counts(diff(b, a)) == [(3, 2, 2)]
    assert not found.same


def test_a_compacted_copy_has_the_same_rows(tmp_path):
    a = store_of(tmp_path / "a", (1, 2), (3,), (2, 4))
    b = Store.open(shutil.copytree(a.path, tmp_path / "b"))
    compact(b)
    found = diff(a, b)
    assert counts(found) == [(0, 0, 4)]
    assert [len(names) for names in found.encoders[0].segments[:2]] == [3, 1]
    assert found.same


def test_encoders_are_matched_by_fingerprint(tmp_path):
    a = store_of(tmp_path / "a", (1, 2))
    store_of(tmp_path / "a", (1,), spec=OTHER)
    b = store_of(tmp_path / "b", (1, 2, 3), spec=OTHER)
    found = {e.fingerprint: e for e in diff(a, b).encoders}
    one, two = (found[spec.fingerprint(Role.DOCUMENT)] for spec in (SPEC, OTHER))
    assert (one.rows_only_a, one.rows_only_b, one.rows_both) == (2, 0, 0)
    assert (two.rows_only_a, two.rows_only_b, two.rows_both) == (0, 2, 1)


@pytest.mark.parametrize("persisted", [False, True])
def test_blocks_and_index_files_do_not_change_the_counts(tmp_path, monkeypatch, persisted):
    monkeypatch.setattr(key_index, "_BLOCK_ROWS", 3)
    a = store_of(tmp_path / "a", range(10), range(5, 20))
    b = store_of(tmp_path / "b", range(8, 30), range(8, 10), (2,))
    for store in (a, b) if persisted else ():
        (encoder,) = store.encoders()
        persist_index(encoder.folder, encoder.segments(), least_rows=1)
    assert counts(diff(a, b)) == [(7, 10, 13)]


groups = st.lists(st.sets(st.integers(0, 12), min_size=1), max_size=4)


@settings(max_examples=30)
@given(groups, groups)
def test_counts_are_those_of_sets(tmp_path_factory, in_a, in_b):
    folder = tmp_path_factory.mktemp("stores")
    a, b = store_of(folder / "a", *in_a), store_of(folder / "b", *in_b)
    set_a, set_b = set().union(*in_a), set().union(*in_b)
    expected = (len(set_a - set_b), len(set_b - set_a), len(set_a & set_b))
    found = diff(a, b)
    assert counts(found) == [expected]
    assert found.same == (set_a == set_b)


def test_collections_and_pairs_are_compared_by_name(hash_store, toy_texts, tmp_path):
    copy = Store.open(shutil.copytree(hash_store.path, tmp_path / "copy"))
    assert diff(hash_store, copy).same
    first = hash_store.collection("toy")
    second = copy.add_collection(toy_texts._replace(domain="another"))
    copy.add_pair(second, hash_store.pairs(first)[0])
    found = diff(hash_store, copy)
    assert found.collections == Sides([], [f"toy-{second.version}"], 1)
    assert [name[:12] for name in found.pairs.only_b] == [second.version]
    assert (found.pairs.only_a, found.pairs.both) == ([], 1)
    assert not found.same


def test_the_command_reports_and_fails_only_when_asked_to(tmp_path):
    a, b = store_of(tmp_path / "a", (1, 2)), store_of(tmp_path / "b", (2, 3, 4))
    paths = [str(a.path), str(b.path)]
    done = CliRunner().invoke(store_trust.diff, paths)
    assert done.exit_code == 0
    assert "They differ" in done.stdout
    assert done.stdout.splitlines()[1].split()[3:6] == ["1", "2", "1"]
    assert CliRunner().invoke(store_trust.diff, [*paths, "--exit-code"]).exit_code == 1
    same = [paths[0], paths[0], "--exit-code"]
    assert CliRunner().invoke(store_trust.diff, same).exit_code == 0
    record = json.loads(CliRunner().invoke(store_trust.diff, [*paths, "--json"]).stdout)
    assert record["same"] is False
    assert record["encoders"][0]["rows_only_b"] == 2


def test_the_command_lists_names_and_cuts_long_lists(tmp_path, hash_store, toy_texts):
    empty = Store.create(tmp_path / "empty")
    for number in range(30):
        hash_store.add_collection(toy_texts._replace(domain=str(number)))
    done = CliRunner().invoke(store_trust.diff, [str(hash_store.path), str(empty.path)])
    assert "collections only in A (31):" in done.stdout
    assert "and 11 more" in done.stdout
