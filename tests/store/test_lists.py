"""Lists of a first stage in a store: valid for exactly their documents, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import planted_texts
from small_stores import files_of

from era_cache.collection.keys import row_keys
from era_cache.collection.records import Collection
from era_cache.errors import FormatError, NewerError
from era_cache.store import lists as lists_module
from era_cache.store.clean import clean
from era_cache.store.contents import diff
from era_cache.store.lists import (
    Lists,
    find_lists,
    has_other_lists,
    lists_of,
    read_lists,
    write_lists,
)
from era_cache.store.store import Store
from era_cache.store.sync import merge
from era_cache.store.verify import verify
from era_cache.types import Array, IntArray, Keys, Role


def rising(keys: Keys) -> Keys:
    values = np.unique(np.ascontiguousarray(keys).view("V16").reshape(-1))
    return values.view(np.uint8).reshape(-1, 16)


def number_of(keys: Keys, wanted: Keys) -> int:
    return int(np.flatnonzero((keys == wanted).all(axis=1))[0])


def lists_for(
    collection: Collection, found: dict[int, list[tuple[int, float]]], floor: float = 0.0
) -> Lists:
    """Lists of queries by row: (document row, score) each."""
    docs = rising(collection.doc_keys)
    queries = rising(collection.query_text_keys[list(found)])
    by_key = {number_of(queries, collection.query_text_keys[row]): row for row in found}
    lengths, entries, scores = [], [], []
    for number in range(len(queries)):
        mine = found[by_key[number]]
        lengths.append(len(mine))
        entries += [number_of(docs, collection.doc_keys[doc]) for doc, _ in mine]
        scores += [score for _, score in mine]
    return Lists(
        docs,
        queries,
        np.cumsum(lengths, dtype=np.int64),
        np.array(entries, dtype=np.int64),
        np.array(scores, dtype=np.float32),
        np.full(len(queries), floor, dtype=np.float32),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "store")
    made.add_collection(planted_texts())
    return made


def test_lists_come_back_by_rows_and_equal_documents_share_a_score(store) -> None:
    collection = store.collection("planted")
    last = len(collection.doc_ids) - 1  # the same text as the one before
    lists = lists_for(collection, {3: [(7, 2.5), (last, 1.5)], 0: [], 5: [(1, 0.5)]}, floor=0.25)
    write_lists(store, "bm25", {"k1": 1.5}, lists)
    found = find_lists(store, "bm25", collection.doc_keys)
    rows = np.array([5, 3, 9, 0])
    table, missing = lists_of(found, collection, rows)
    assert missing.tolist() == [2]  # query 9 has none
    assert table.docs.tolist()[0] == [1, -1, -1]
    assert table.docs.tolist()[1] == [7, last - 1, last]
    assert table.scores.tolist()[1] == [2.5, 1.5, 1.5]
    assert (table.docs[2:] == -1).all()
    assert table.floor.tolist() == [0.25, 0.25, 0.0, 0.25]


def test_lists_that_come_later_join_those_of_the_same_settings(store) -> None:
    collection = store.collection("planted")
    for query, settings in ((0, {"k1": 9}), (1, {"k1": 1}), (2, {"k1": 1})):
        write_lists(store, "bm25", settings, lists_for(collection, {query: [(query, 1.0)]}))
    found = find_lists(store, "bm25", collection.doc_keys)
    _, missing = lists_of(found, collection, np.arange(3))
    assert missing.tolist() == [0]  # what was made last counts, and never two settings at once


def test_another_document_has_no_lists(store, tmp_path) -> None:
    collection = store.collection("planted")
    write_lists(store, "bm25", {}, lists_for(collection, {0: [(0, 1.0)]}))
    grown = store.add_collection(planted_texts(121)._replace(name="planted"))
    assert find_lists(store, "bm25", collection.doc_keys)
    assert not find_lists(store, "bm25", grown.doc_keys)
    assert has_other_lists(store, "bm25")
    assert not has_other_lists(store, "splade")


def test_lists_travel_with_the_store_and_are_verified(store, tmp_path) -> None:
    write_lists(store, "bm25", {}, lists_for(store.collection("planted"), {0: [(0, 1.0)]}))
    other = Store.create(tmp_path / "other")
    assert diff(store, other).runs.only_a
    merge(other.path, [store.path])
    assert diff(store, other).same
    name = next(name for name in files_of(other.path) if name.startswith("runs/"))
    assert verify(other).ok
    path = other.path / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [finding.path for finding in verify(other).of_level("damage")] == [name]
    with pytest.raises(FormatError, match="damaged"):
        find_lists(other, "bm25", store.collection("planted").doc_keys)
    path.unlink()
    renamed = path.with_name(f"bm25-{'0' * 12}-{'0' * 12}.h5")
    renamed.write_bytes((store.path / name).read_bytes())
    assert "not that of its content" in verify(other).of_level("damage")[0].message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("list_docs", [0, 10_000]),  # beyond the documents
        ("list_docs", [-1, 0]),
        ("list_docs", [4, 4]),  # one document twice
        ("list_ends", [3]),
        ("list_ends", [1]),  # scores without a list
        ("list_scores", [np.nan, 1.0]),
        ("list_scores", [1.0]),
        ("floor", [np.inf]),
        ("floor", []),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(store, column, value) -> None:
    lists = lists_for(store.collection("planted"), {0: [(0, 2.0), (1, 1.0)]})
    wrong: IntArray | Array = np.array(value, dtype=getattr(lists, column).dtype)
    with pytest.raises(FormatError, match="do not fit together"):
        write_lists(store, "bm25", {}, lists._replace(**{column: wrong}))
    assert not list((store.path / "runs").iterdir())


def test_documents_named_twice_are_found_in_any_way(monkeypatch) -> None:
    rng = np.random.default_rng(3)
    for n_docs in (1, 7, 400):
        for _ in range(20):
            lengths = rng.integers(0, 6, 9)
            docs = rng.integers(0, n_docs, lengths.sum())
            once = all(len(set(part)) == len(part) for part in np.split(docs, lengths.cumsum()))
            for most in (0, 1 << 20):
                monkeypatch.setattr(lists_module, "_MARKED", most)
                assert lists_module._each_once(docs, lengths, n_docs) == once


def test_lists_of_many_queries_are_those_of_each(store) -> None:
    collection = store.collection("planted")
    _, known = np.unique(collection.doc_keys, axis=0, return_index=True)  # each text once
    rng = np.random.default_rng(5)
    given = {}
    for query, size in enumerate([3, 0, 7, 1]):
        docs = rng.permutation(known)[:size].tolist()
        given[query] = [(doc, 9.0 - place) for place, doc in enumerate(docs)]
    write_lists(store, "bm25", {}, lists_for(collection, given))
    found = find_lists(store, "bm25", collection.doc_keys)
    every, left = lists_of(found, collection, np.array([2, 0, 3, 1]))
    assert left.tolist() == []
    for place, row in enumerate([2, 0, 3, 1]):
        one, _ = lists_of(found, collection, np.array([row]))
        width = one.docs.shape[1]
        assert one.docs[0].tolist() == every.docs[place, :width].tolist()
        assert one.scores[0].tolist() == every.scores[place, :width].tolist()
        assert (every.docs[place, width:] == -1).all()
        wanted = dict(given[row])
        mine = every.docs[place] >= 0
        told = dict(zip(*(table[place][mine].tolist() for table in every[:2]), strict=True))
        assert {doc: told[doc] for doc in wanted} == wanted


def test_keys_out_of_order_are_refused(store) -> None:
    lists = lists_for(store.collection("planted"), {0: [(0, 2.0)]})
    for keys in (lists.doc_keys[::-1], np.repeat(lists.doc_keys[:1], 2, axis=0)):
        with pytest.raises(FormatError, match="do not fit together"):
            write_lists(store, "bm25", {}, lists._replace(doc_keys=np.ascontiguousarray(keys)))


def test_a_newer_file_is_told(store, monkeypatch) -> None:
    path = write_lists(store, "bm25", {}, lists_for(store.collection("planted"), {0: [(0, 1.0)]}))
    monkeypatch.setattr("era_cache.store.lists.VERSION", 0)
    with pytest.raises(NewerError):
        read_lists(path)


def test_queries_are_known_by_their_text_alone(store) -> None:
    collection = store.collection("planted")
    text = planted_texts().query_texts[4]
    assert (collection.query_text_keys[4] == row_keys(Role.QUERY, [text])[0]).all()


def test_the_golden_file_of_version_1_is_read() -> None:
    (path,) = (Path(__file__).parents[1] / "golden" / "lists-v1").glob("*.h5")
    stored = read_lists(path)
    assert (stored.name, stored.settings) == ("bm25", {"k1": 1.5, "language": "english"})
    lists = stored.lists
    documents = row_keys(Role.DOCUMENT, ["one", "zwei ü", "three"])
    assert (lists.doc_keys == rising(documents)).all()
    assert (lists.query_keys == rising(row_keys(Role.QUERY, ["first?", "second?"]))).all()
    assert lists.list_ends.tolist() == [2, 3]
    assert lists.list_docs.tolist() == [2, 0, 1]
    assert lists.list_scores.tolist() == [2.5, 0.5, 1.25]
    assert lists.floor.tolist() == [0.0, 1.25]


def test_lists_of_documents_that_no_collection_has_are_cleaned_away(store) -> None:
    collection = store.collection("planted")
    write_lists(store, "bm25", {}, lists_for(collection, {0: [(0, 1.0)]}))
    grown = store.add_collection(planted_texts(121)._replace(name="planted"))
    write_lists(store, "bm25", {}, lists_for(grown, {0: [(0, 1.0)]}))
    asked = {"old_versions": True, "unreferenced": True, "grace_seconds": 0.0}
    assert clean(store, unreferenced=True, grace_seconds=0).unreferenced_lists == 0  # both stay
    assert clean(store, **asked, dry_run=True).unreferenced_lists == 1
    assert find_lists(store, "bm25", collection.doc_keys)
    assert clean(store, **asked).unreferenced_lists == 1
    assert not find_lists(store, "bm25", collection.doc_keys)
    assert find_lists(store, "bm25", grown.doc_keys)
