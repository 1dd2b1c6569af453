"""Imports: each vector comes under the key of its own text, or nothing is stored at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from imported_vectors import (
    SPEC,
    bring,
    import_file,
    nothing_stored,
    numbered,
    stored,
    texts_of,
    write_spec,
)

from era_cache.collection.beir import read_beir
from era_cache.collection.keys import row_keys
from era_cache.collection.records import Dropped
from era_cache.errors import EncoderError, InputError
from era_cache.store.encoder_record import read_stated_spec
from era_cache.store.exchange import blocks as array_blocks
from era_cache.store.exchange import row_checks
from era_cache.store.exchange.arrays import open_vectors
from era_cache.store.exchange.matching import (
    collection_keys,
    rows_by_id,
    rows_by_key,
    rows_in_order,
)
from era_cache.store.store import Store
from era_cache.types import Role

TOY = Path(__file__).parents[2] / "data" / "toy"


# Alignment


@settings(max_examples=60)
@given(data=st.data())
def test_ids_in_any_order_bring_each_vector_to_its_own_text(tmp_path_factory, data):
    count = data.draw(st.integers(1, 40))
    texts, vectors = numbered(count)
    order = np.array(data.draw(st.permutations(range(count))))
    kept = order[: data.draw(st.integers(1, count))]
    block = data.draw(st.sampled_from([12, 60, 1 << 20]))
    folder = tmp_path_factory.mktemp("any")
    store = Store.create(folder / "s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_blocks, "BLOCK_BYTES", block)
        ids = [texts.doc_ids[row] for row in kept]
        report = bring(store, folder, vectors[kept], ids, texts, dtype="float32")
    assert report[5:10] == (len(kept), len(kept), 0, 0, 0)
    assert report.still_missing == count - len(kept)
    keys = row_keys(Role.DOCUMENT, [texts.doc_texts[row] for row in kept])
    found = store.encoder(SPEC.fingerprint(Role.DOCUMENT)).vectors(keys)
    np.testing.assert_array_equal(found, vectors[kept])


def test_queries_get_the_keys_of_text_and_instruction(store, tmp_path):
    texts = texts_of(["x"], ("same", "same"), ("find a", "find b"))
    vectors = np.array([[1, 2, 3], [-3, 2, 1]], "f4")
    bring(store, tmp_path, vectors[::-1], ["q1", "q0"], texts, Role.QUERY, dtype="float32")
    np.testing.assert_array_equal(stored(store, texts, Role.QUERY), vectors)


def test_rows_in_corpus_order_and_by_key(store, tmp_path):
    texts, vectors = numbered(6)
    np.save(tmp_path / "v.npy", vectors)
    file = open_vectors(tmp_path / "v.npy")
    rows = rows_in_order(file.path, file.rows, texts, Role.DOCUMENT)
    import_file(store, file, rows, texts=texts, dtype="float32")
    np.testing.assert_array_equal(stored(store, texts), vectors)
    other = Store.create(tmp_path / "other")
    keys = collection_keys(texts, Role.DOCUMENT)[1]
    rows = rows_by_key(file.path, file.rows, keys[::-1])
    report = import_file(other, file, rows, dtype="float32")
    assert report.still_missing is None
    np.testing.assert_array_equal(stored(other, texts), vectors[::-1])
    assert not list(other.collection_paths())


@pytest.mark.parametrize("count", [5, 7])
def test_other_counts_than_the_collections_are_refused(count):
    texts, _ = numbered(6)
    path = Path("v.npy")
    with pytest.raises(InputError, match=rf"{count} rows, but c has 6"):
        rows_in_order(path, count, texts, Role.DOCUMENT)
    with pytest.raises(InputError, match=rf"{count} rows, but 6 keys"):
        rows_by_key(path, count, collection_keys(texts, Role.DOCUMENT)[1])
    with pytest.raises(InputError, match=rf"{count} rows, but 6 ids"):
        rows_by_id(path, count, texts.doc_ids, texts, Role.DOCUMENT)


@pytest.mark.parametrize(
    ("dropped", "role"),
    [
        (Dropped(empty_documents=1), Role.DOCUMENT),
        (Dropped(bad_rows=1), Role.DOCUMENT),
        (Dropped(unjudged_queries=1), Role.QUERY),
        (Dropped(bad_rows=1), Role.QUERY),
    ],
)
def test_where_rows_were_left_out_the_order_proves_nothing(dropped, role):
    texts = texts_of(["x", "y"], dropped=dropped)
    with pytest.raises(InputError, match="1 rows of c were left out"):
        rows_in_order(Path("v.npy"), 2, texts, role)
    harmless = {Role.QUERY: Dropped(empty_documents=1), Role.DOCUMENT: Dropped(unjudged_queries=1)}
    rows_in_order(Path("v.npy"), 2, texts._replace(dropped=harmless[role]), role)


def test_a_repeated_id_is_named_with_both_rows():
    texts, _ = numbered(4)
    with pytest.raises(InputError, match=r"id 'd1' is that of row 1 and of row 3 \(from 0\)"):
        rows_by_id(Path("v.npy"), 4, ["d0", "d1", "d2", "d1"], texts, Role.DOCUMENT)
    with pytest.raises(InputError, match="'zzz' is that of row 0 and of row 1"):
        rows_by_id(Path("v.npy"), 2, ["zzz", "zzz"], texts, Role.DOCUMENT, skip_unknown=True)


def test_unknown_ids_are_an_error_unless_passed_over(store, tmp_path):
    texts, vectors = numbered(3)
    extra = np.concatenate([[[np.nan] * 3], vectors])  # not even looked at
    ids = ["zzz", *texts.doc_ids]
    with pytest.raises(InputError, match=r"1 of its 4 ids are no document of c, the first 'zzz'"):
        bring(store, tmp_path, extra, ids, texts)
    assert nothing_stored(store)
    report = bring(store, tmp_path, extra, ids, texts, skip_unknown=True, dtype="float32")
    assert (report.imported, report.unknown) == (3, 1)
    np.testing.assert_array_equal(stored(store, texts), vectors)


def test_ids_that_are_all_unknown_are_never_passed_over(store, tmp_path):
    texts, vectors = numbered(2)
    with pytest.raises(InputError, match="right files"):
        bring(store, tmp_path, vectors, ["q0", "q1"], texts, skip_unknown=True)


# Rows that must not be stored


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (-np.inf, "NaN or infinite"),
        (1e300, "NaN or infinite"),
        (0, "a vector of zeros"),
    ],
)
def test_a_bad_row_at_the_end_stores_nothing(store, tmp_path, monkeypatch, value, words):
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 24)
    texts, vectors = numbered(9)
    vectors = vectors.astype("f8")
    vectors[8] = value
    order = [4, 5, 6, 7, 0, 1, 2, 8, 3]
    ids = [texts.doc_ids[row] for row in order]
    with pytest.raises(InputError, match=rf"v\.npy: {words}.* for 'd8' \(row 7 of v\.npy"):
        bring(store, tmp_path, vectors[order], ids, texts)
    assert nothing_stored(store)


@pytest.mark.parametrize(("value", "words"), [(1e6, "too large"), (1e-9, "too small")])
def test_what_float16_cannot_hold_is_found_before_anything_is_stored(
    store, tmp_path, monkeypatch, value, words
):
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 24)
    texts, vectors = numbered(9)
    vectors[8] = value
    with pytest.raises(EncoderError, match=rf"{words} for float16 for 'd8' \(row 8 of v\.npy"):
        bring(store, tmp_path, vectors, texts.doc_ids, texts)
    assert nothing_stored(store)
    bring(store, tmp_path, vectors, texts.doc_ids, texts, dtype="float32")
    np.testing.assert_array_equal(stored(store, texts), vectors)


@pytest.mark.parametrize("block", [12, 24, 1 << 20])
def test_equal_texts_with_other_vectors_show_that_rows_are_mixed_up(
    store, tmp_path, monkeypatch, block
):
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", block)
    texts = texts_of(["same", "x", "y", "same", "x", "same"])
    vectors = np.random.default_rng(0).standard_normal((6, 3)).astype("f4")
    vectors[3], vectors[4], vectors[5] = 2 * vectors[0], vectors[1], vectors[0]
    report = bring(store, tmp_path, vectors, texts.doc_ids, texts, dtype="float32")
    assert (report.imported, report.repeated) == (3, 3)
    np.testing.assert_array_equal(stored(store, texts), vectors[[0, 1, 2, 0, 1, 0]])
    other = Store.create(tmp_path / "other")
    wrong = vectors[[0, 1, 2, 3, 2, 5]]
    with pytest.raises(InputError, match=r"'d1' \(row 1 .* and 'd4' \(row 4 .* the same text"):
        bring(other, tmp_path, wrong, texts.doc_ids, texts)
    assert nothing_stored(other)


def test_very_many_equal_texts_are_compared_in_part(store, tmp_path, monkeypatch):
    monkeypatch.setattr(row_checks, "_SAME_TEXT_BYTES", 24)  # two texts
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 36)
    texts = texts_of([f"text {n % 5}" for n in range(10)])
    vectors = np.array([[n % 5 + 1, 1, -n % 5] for n in range(10)], "f4")
    vectors[9] = -vectors[4]  # the fifth text: not looked at
    assert bring(store, tmp_path, vectors, texts.doc_ids, texts).repeated == 5
    vectors[6] = -vectors[1]
    with pytest.raises(InputError, match=r"'d1'.*'d6'"):
        bring(store, tmp_path, vectors, texts.doc_ids, texts)


def test_another_dimension_than_the_stored_one_is_refused(store, tmp_path):
    texts, vectors = numbered(3)
    bring(store, tmp_path, vectors[:2], texts.doc_ids[:2], texts)
    with pytest.raises(EncoderError, match=r"4 dimensions, but hash-3 .* has 3"):
        bring(store, tmp_path, np.ones((3, 4), "f4"), texts.doc_ids, texts)


def test_a_file_that_changes_meanwhile_is_told(store, tmp_path):
    texts, vectors = numbered(3)

    def meddle(what, done, total):
        np.save(tmp_path / "v.npy", np.concatenate([vectors, vectors]))

    with pytest.raises(InputError, match="changed while it was read"):
        bring(store, tmp_path, vectors, texts.doc_ids, texts, progress=meddle)


# What is stored


@pytest.mark.parametrize("first", ["float32", "float16", "int8"])
@pytest.mark.parametrize("second", ["float32", "float16", "int8"])
def test_rows_stored_as_exactly_stay_and_are_counted(store, tmp_path, first, second):
    texts, vectors = numbered(5)
    bring(store, tmp_path, vectors[:3], texts.doc_ids[:3], texts, dtype=first)
    report = bring(store, tmp_path, -vectors, texts.doc_ids, texts, dtype=second)
    exact = ["float32", "float16", "int8"]
    stays = exact.index(first) <= exact.index(second)
    assert (report.imported, report.stored_before) == ((2, 3) if stays else (5, 0))
    found = stored(store, texts)
    assert np.all(np.sign(found[:3, 0]) == (1 if stays else -1))
    assert np.all(found[3:, 0] < 0)
    again = bring(store, tmp_path, -vectors, texts.doc_ids, texts, dtype=second)
    assert (again.imported, again.stored_before) == (0, 5)


def test_segments_say_that_they_were_stated_and_from_where(store, tmp_path):
    texts, vectors = numbered(3)
    report = bring(store, tmp_path, vectors, texts.doc_ids, texts, note="from the old index")
    [segment] = store.encoder(SPEC.name).segments()
    provenance = json.loads(segment.provenance)
    assert provenance["stated"] is True
    assert provenance["imported_from"] == "v.npy"
    assert provenance["file_sha256"] == report.file_sha256
    assert provenance["note"] == "from the old index"
    assert str(tmp_path) not in segment.provenance
    assert [name for name, _, _ in store.collection_paths()] == ["c"]
    assert not list((store.path / "pairs").iterdir())


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".h5"])
def test_every_kind_of_file_gives_the_same_rows(store, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 24)
    texts, vectors = numbered(7)
    path, ids = tmp_path / f"v{suffix}", texts.doc_ids[::-1]
    if suffix == ".npy":
        np.save(path, vectors[::-1])
    elif suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["ids"], file["vectors"] = ids, vectors[::-1]
    else:
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        table = arrow.table({"id": ids, "vector": vectors[::-1].tolist()})
        pyarrow.parquet.write_table(table, path, row_group_size=3)
    file = open_vectors(path)
    rows = rows_by_id(path, file.rows, file.ids() or ids, texts, Role.DOCUMENT)
    import_file(store, file, rows, dtype="float32")
    np.testing.assert_array_equal(stored(store, texts), vectors)


def test_a_killed_import_keeps_what_was_committed_and_goes_on(store, tmp_path):
    texts, vectors = numbered(30)
    np.save(tmp_path / "v.npy", vectors)
    code = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from imported_vectors import *
from era_cache.store.exchange import blocks as array_blocks
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
array_blocks.BLOCK_BYTES = 60
write, calls = SegmentWriter.write, []
def slow(self, keys, block, name_of=None):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, keys, block, name_of)
    self.flush()
SegmentWriter.write = slow
from pathlib import Path
folder = Path({str(tmp_path)!r})
texts, vectors = numbered(30)
bring(Store.create(folder / "store"), folder, vectors, texts.doc_ids, texts, dtype="float32")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    index = store.encoder(SPEC.name).index()
    keys = collection_keys(texts, Role.DOCUMENT)[1]
    assert int((index.positions(keys) >= 0).sum()) == 15
    report = bring(store, tmp_path, vectors, texts.doc_ids, texts, dtype="float32")
    assert (report.imported, report.stored_before, report.still_missing) == (15, 15, 0)
    np.testing.assert_array_equal(stored(store, texts), vectors)


# Who made them


def test_a_stated_encoder_reads_back_from_the_store(store, tmp_path):
    texts, vectors = numbered(3)
    spec = read_stated_spec(write_spec(tmp_path / "e.json", {"name": "acme", "model": "m"}))
    bring(store, tmp_path, vectors, texts.doc_ids, texts, spec=spec, dtype="float32")
    np.testing.assert_array_equal(stored(store, texts, spec=spec), vectors)
    assert Store.open(store.path).encoder("acme").spec.identity == spec.identity


def test_toy_can_be_imported_in_its_own_order(store, tmp_path):
    texts = read_beir(TOY)
    vectors = np.random.default_rng(0).standard_normal((len(texts.doc_ids), 5))
    np.save(tmp_path / "v.npy", vectors)
    file = open_vectors(tmp_path / "v.npy")
    rows = rows_in_order(file.path, file.rows, texts, Role.DOCUMENT)
    report = import_file(store, file, rows, spec=HashEncoder(5).spec, texts=texts)
    assert report.still_missing == 0
