"""Exports: what comes out goes in again bit for bit, each row beside its own id."""

from __future__ import annotations

import json

import numpy as np
import pytest
from imported_vectors import SPEC, bring, import_file, numbered, texts_of

from era_cache.collection.keys import row_keys
from era_cache.disk.files import sha256_file
from era_cache.errors import InputError, StoreError
from era_cache.store.exchange import blocks as array_blocks
from era_cache.store.exchange.arrays import open_vectors
from era_cache.store.exchange.exporting import export_vectors
from era_cache.store.exchange.matching import rows_by_id, rows_by_key
from era_cache.store.exchange.row_ids import read_ids, read_keys
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

SUFFIXES = [".npy", ".parquet"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 36)


def random_vectors(count, dtype="f4"):
    return np.random.default_rng(0).standard_normal((count, 3)).astype(dtype)


def filled(path, folder, dtype, count=10):
    """A store of a collection in no particular order, with the vectors as stored."""
    texts, _ = numbered(count)
    vectors = random_vectors(count)
    store = Store.create(path)
    order = np.random.default_rng(1).permutation(count)
    ids = [texts.doc_ids[row] for row in order]
    bring(store, folder, vectors[order], ids, texts, dtype=dtype)
    return store, texts, vectors.astype(dtype if dtype != "int8" else "f4")


def only(store):
    [encoder] = store.encoders()
    return encoder


def ids_beside(path):
    vectors = open_vectors(path)
    return vectors.ids() or read_ids(path.with_name(f"{path.name}.ids.txt"))


def rows_of(path):
    return np.concatenate([block for _, block in open_vectors(path).blocks()])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("out_dtype", ["float16", "float32"])
def test_what_is_exported_goes_in_again_bit_for_bit(tmp_path, suffix, dtype, out_dtype):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    store, texts, vectors = filled(tmp_path / "a", tmp_path, dtype)
    out = tmp_path / f"out{suffix}"
    report = export_vectors(store, only(store), store.collection("c"), out, dtype=out_dtype)
    assert (report.rows, report.skipped, report.dim) == (10, 0, 3)
    assert ids_beside(out) == texts.doc_ids
    np.testing.assert_array_equal(rows_of(out), vectors.astype(out_dtype).astype("f4"))
    file = open_vectors(out)
    rows = rows_by_id(out, file.rows, ids_beside(out), texts, Role.DOCUMENT)
    again = Store.create(tmp_path / "b")
    import_file(again, file, rows, dtype=dtype)
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    if out_dtype == "float32" or dtype == "float16":
        np.testing.assert_array_equal(only(again).vectors(keys), only(store).vectors(keys))
        np.testing.assert_array_equal(only(again).vectors(keys), vectors)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_row_comes_out_once_under_its_key(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    store, texts, vectors = filled(tmp_path / "a", tmp_path, "float16")
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    exact = random_vectors(10)
    # Two more segments: better rows of some keys, and the same rows once more.
    SegmentWriter(only(store), {}).commit(keys[3:6], exact[3:6])
    SegmentWriter(only(store), {}).commit(keys[2:5], vectors[2:5].astype("f2"))
    out = tmp_path / f"all{suffix}"
    assert export_vectors(store, only(store), None, out).rows == 10
    beside = out if suffix == ".parquet" else tmp_path / "all.npy.ids.txt"
    found = read_keys(beside)
    assert len(found) == 10
    expected = only(store).vectors(found)
    np.testing.assert_array_equal(rows_of(out), expected)
    assert {key.tobytes() for key in found} == {key.tobytes() for key in keys}
    again = Store.create(tmp_path / "b")
    file = open_vectors(out)
    rows = rows_by_key(out, file.rows, found)
    import_file(again, file, rows, dtype="float32")
    np.testing.assert_array_equal(only(again).vectors(keys), only(store).vectors(keys))


def test_parquet_holds_ids_keys_and_lists_of_fixed_size(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    store, texts, vectors = filled(tmp_path / "a", tmp_path, "float16")
    out = tmp_path / "out.parquet"
    export_vectors(store, only(store), store.collection("c"), out, dtype="float16")
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == ["id", "key", "vector"]
    assert table.schema.field("vector").type == arrow.list_(arrow.float16(), 3)
    assert table["id"].to_pylist() == texts.doc_ids
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    assert table["key"].to_pylist() == [key.tobytes().hex() for key in keys]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), "f2"), vectors)


def test_equal_texts_and_queries_keep_the_collections_order(tmp_path):
    texts = texts_of(["x", "y", "x"], ("one", "two"), ("i", "j"))
    store = Store.create(tmp_path / "a")
    vectors = np.array([[1, 2, 3], [4, 5, 6], [1, 2, 3]], "f4")
    bring(store, tmp_path, vectors, texts.doc_ids, texts)
    bring(store, tmp_path, vectors[:2], texts.query_ids, texts, Role.QUERY)
    for role, expected in ((Role.DOCUMENT, vectors), (Role.QUERY, vectors[:2])):
        out = tmp_path / f"{role.value}.npy"
        export_vectors(store, store.encoder(SPEC.name, role), store.collection("c"), out)
        np.testing.assert_array_equal(np.load(out), expected)


def test_int8_rows_come_out_as_they_are_read(tmp_path):
    store, texts, _ = filled(tmp_path / "a", tmp_path, "int8")
    export_vectors(store, only(store), store.collection("c"), tmp_path / "o.npy")
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), only(store).vectors(keys))


def test_texts_without_a_vector_are_an_error_or_left_out(tmp_path):
    store, texts, vectors = filled(tmp_path / "a", tmp_path, "float32")
    more = texts_of([*texts.doc_texts, "new", "newer"])
    collection = store.add_collection(more)
    out = tmp_path / "out.npy"
    with pytest.raises(StoreError, match=r"2 of the 12 texts of c .*--skip-missing"):
        export_vectors(store, only(store), collection, out)
    assert not out.exists()
    report = export_vectors(store, only(store), collection, out, skip_missing=True)
    assert (report.rows, report.skipped) == (10, 2)
    np.testing.assert_array_equal(np.load(out), vectors)
    assert read_ids(tmp_path / "out.npy.ids.txt") == texts.doc_ids
    strange = store.add_collection(texts_of(["quite", "other"])._replace(name="other"))
    with pytest.raises(StoreError, match="2 of the 2 texts"):
        export_vectors(store, only(store), strange, tmp_path / "o.npy", skip_missing=True)


def test_the_record_says_where_the_rows_came_from(tmp_path):
    store, _, _ = filled(tmp_path / "a", tmp_path, "float32")
    collection = store.collection("c")
    export_vectors(store, only(store), collection, tmp_path / "out.npy")
    text = (tmp_path / "out.npy.json").read_text()
    record = json.loads(text)
    assert (record["format"], record["version"]) == ("era-export", 1)
    assert record["store"] == "a"
    assert str(tmp_path) not in text
    assert record["encoder"]["fingerprint"] == SPEC.fingerprint(Role.DOCUMENT)
    assert record["collection"] == {"name": "c", "digest": collection.digest}
    assert (record["rows"], record["skipped"], record["dim"]) == (10, 0, 3)
    assert record["files"] == {
        "vectors": "out.npy",
        "ids": "out.npy.ids.txt",
        "vectors_sha256": sha256_file(tmp_path / "out.npy"),
    }
    export_vectors(store, only(store), None, tmp_path / "all.npy")
    assert json.loads((tmp_path / "all.npy.json").read_text())["collection"] is None


@pytest.mark.parametrize("there", ["out.npy", "out.npy.ids.txt", "out.npy.json"])
def test_no_file_of_an_older_export_is_replaced(tmp_path, there):
    store, _, _ = filled(tmp_path / "a", tmp_path, "float32")
    (tmp_path / there).write_text("mine")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(InputError, match=rf"{there}: is there already"):
        export_vectors(store, only(store), None, tmp_path / "out.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / there).read_text() == "mine"


def test_ids_of_several_lines_become_a_json_list(tmp_path):
    store, texts, _ = filled(tmp_path / "a", tmp_path, "float32")
    ids = [f"{name}\nx" for name in texts.doc_ids]
    collection = store.collection("c")._replace(doc_ids=ids)
    report = export_vectors(store, only(store), collection, tmp_path / "out.npy")
    assert report.ids == "out.npy.ids.json"
    assert read_ids(tmp_path / "out.npy.ids.json") == ids
    with pytest.raises(InputError, match=r"\.json"):
        export_vectors(
            store, only(store), collection, tmp_path / "b.npy", ids_out=tmp_path / "b.txt"
        )
    assert not (tmp_path / "b.npy").exists()


def test_outputs_that_cannot_be_are_refused(tmp_path):
    store, _, _ = filled(tmp_path / "a", tmp_path, "float32")
    encoder = only(store)
    with pytest.raises(InputError, match=r"\.npy or \.parquet"):
        export_vectors(store, encoder, None, tmp_path / "out.h5")
    with pytest.raises(InputError, match="holds the ids itself"):
        export_vectors(store, encoder, None, tmp_path / "o.parquet", ids_out=tmp_path / "i")
    with pytest.raises(InputError, match="different files"):
        export_vectors(store, encoder, None, tmp_path / "o.npy", ids_out=tmp_path / "o.npy")
    empty = store.add_encoder(SPEC, Role.QUERY, 3)
    with pytest.raises(StoreError, match="has no rows"):
        export_vectors(store, empty, None, tmp_path / "out.npy")


@pytest.mark.parametrize("value", [1e6, 1e-9])
def test_values_that_float16_cannot_hold_leave_no_file(tmp_path, value):
    texts, vectors = numbered(9)
    vectors[8] = value
    store = Store.create(tmp_path / "a")
    bring(store, tmp_path, vectors, texts.doc_ids, texts, dtype="float32")
    out = tmp_path / "new" / "out.npy"
    with pytest.raises(InputError, match="float16; use float32"):
        export_vectors(store, only(store), store.collection("c"), out, dtype="float16")
    assert list(out.parent.iterdir()) == []


def test_the_npy_is_what_numpy_itself_writes(tmp_path):
    store, _, vectors = filled(tmp_path / "a", tmp_path, "float32")
    export_vectors(store, only(store), store.collection("c"), tmp_path / "out.npy")
    np.save(tmp_path / "own.npy", vectors)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "own.npy").read_bytes()
