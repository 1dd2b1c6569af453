"""The store: rows come back by key whatever wrote them, and nothing damaged is believed."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from hash_encoder import HashEncoder
from small_stores import DIM, SPEC, numbered, rows

from era_cache.collection import stored
from era_cache.collection.records import TextCollection
from era_cache.disk.files import TEMPORARY_PREFIX, sha256_file
from era_cache.disk.hdf5 import PlainWriter, write_plain
from era_cache.errors import EncoderError, EraError, FingerprintError, FormatError, StoreError
from era_cache.store import read_rows as reading
from era_cache.store import segment, stored_encoder
from era_cache.store import store as store_module
from era_cache.store.records import ROLES
from era_cache.store.store import Store
from era_cache.store.sync import merge
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role


def write(encoder, keys, vectors):
    return SegmentWriter(encoder, {}).commit(keys, vectors)


# Reading back


def test_rows_come_back_in_the_order_asked_for_with_repeats(encoder):
    write(encoder, numbered(1, 2, 3), rows(1, 2, 3))
    write(encoder, numbered(4, 5), rows(4, 5))
    order = (5, 1, 1, 4, 3, 2, 5)
    found = encoder.vectors(numbered(*order))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows(*order))
    np.testing.assert_array_equal(encoder.vectors(numbered(2, 3)), rows(2, 3))


def test_rows_are_written_into_an_array_that_is_given(encoder):
    write(encoder, numbered(1, 2), rows(1, 2))
    out = np.full((2, DIM), np.nan, dtype=np.float32)
    assert encoder.vectors(numbered(2, 1), out=out) is out
    np.testing.assert_array_equal(out, rows(2, 1))


def test_blocks_do_not_change_what_is_read(encoder, monkeypatch):
    monkeypatch.setattr(reading, "_TASK_ROWS", 3)
    monkeypatch.setattr(reading, "_BUFFER_BYTES", 2 * 4 * DIM)
    numbers = list(range(20))
    write(encoder, numbered(*numbers), rows(*numbers))
    order = [0, 1, 2, 3, 4, 5, 9, 8, 7, 11, 13, 12, 12, 12, 19]
    np.testing.assert_array_equal(encoder.vectors(numbered(*order)), rows(*order))


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (0, 1, 1, 3), (0, 0, 3, 3), (0, 3, 0, 3)])
def test_rows_whose_ends_look_contiguous_are_not_read_as_a_slice(encoder, order):
    write(encoder, numbered(0, 1, 2, 3), rows(0, 1, 2, 3))
    np.testing.assert_array_equal(encoder.vectors(numbered(*order)), rows(*order))


def test_asking_for_no_row_gives_no_row(encoder):
    write(encoder, numbered(1), rows(1))
    assert encoder.vectors(numbered()[:0]).shape == (0, DIM)


def test_float16_rows_come_back_as_float32(encoder):
    write(encoder, numbered(1), np.array([[0.1, 1e-7, 60000]], dtype="float16"))
    found = encoder.vectors(numbered(1))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32(np.float16([[0.1, 1e-7, 60000]])))


def test_missing_rows_are_counted_and_the_encoder_named(encoder):
    write(encoder, numbered(1, 2), rows(1, 2))
    with pytest.raises(StoreError, match=r"2 of 3 rows are not encoded by hash-3 \(document"):
        encoder.vectors(numbered(1, 7, 8))


@pytest.mark.parametrize("float32_first", [True, False])
def test_float32_rows_win_over_float16_whatever_the_order_of_writing(encoder, float32_first):
    parts = [(numbered(1, 2), rows(1, 2, add=10)), (numbered(2, 3), rows(2, 3, dtype="float16"))]
    for keys, vectors in parts if float32_first else reversed(parts):
        write(encoder, keys, vectors)
    expected = np.concatenate([rows(1, 2, add=10), rows(3)])
    np.testing.assert_array_equal(encoder.vectors(numbered(1, 2, 3)), expected)
    assert encoder.index().missing(numbered(1, 2, 3, 4), "float32").tolist() == [2, 3]
    assert encoder.index().missing(numbered(1, 2, 3, 4), "float16").tolist() == [3]


def test_of_equal_precision_the_segment_whose_name_sorts_first_wins(encoder):
    names = {write(encoder, numbered(1), rows(1, add=n)).name: n for n in range(6)}
    expected = rows(1, add=names[min(names)])
    np.testing.assert_array_equal(encoder.vectors(numbered(1)), expected)


def test_names_that_are_not_segments_are_ignored(encoder):
    path = write(encoder, numbered(1), rows(1))
    for name in (f"{TEMPORARY_PREFIX}x-1-2.h5", "notes.txt", "a" * 63 + ".h5", "A" * 64 + ".h5"):
        (path.parent / name).write_bytes(b"not a segment")
    np.testing.assert_array_equal(encoder.vectors(numbered(1), check=True), rows(1))


# Segments: their names, their damage


def test_a_segment_is_named_by_the_digest_of_its_file(encoder):
    path = write(encoder, numbered(1), rows(1))
    assert path.name == f"{sha256_file(path)}.h5"
    assert path.parent == encoder.folder / "segments"


def test_every_flipped_byte_is_found_by_check(encoder):
    path = write(encoder, numbered(1, 2), rows(1, 2))
    content = path.read_bytes()
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=path.name[:12]):
            encoder.vectors(numbered(1, 2), check=True)


def test_a_segment_under_another_name_is_found_by_check(encoder):
    path = write(encoder, numbered(1), rows(1))
    path.rename(path.with_name("0" * 64 + ".h5"))
    with pytest.raises(FormatError, match="the segment is damaged"):
        encoder.vectors(numbered(1), check=True)


def test_a_segment_is_hashed_once_in_a_process_and_again_when_it_changes(encoder, monkeypatch):
    path = write(encoder, numbered(1, 2), rows(1, 2))
    hashed = []

    def digest(one):
        hashed.append(one)
        return sha256_file(one)

    monkeypatch.setattr(segment, "sha256_file", digest)
    for _ in range(3):
        encoder.index(check=True)
    assert hashed == [path]
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = (
        rf"content's SHA-256 is [0-9a-f]{{12}}…, the name says {path.name[:12]}…; the segment is "
    )
    mend = "damaged. Set it aside with 'era-store verify --quarantine STORE': the next era-embed "
    with pytest.raises(FormatError, match=said + mend + "encodes only its rows again"):
        encoder.index(check=True)


@pytest.mark.parametrize("said", ["[]", "3", '"a"', "null", "{", "\ud800"])
def test_provenance_that_is_no_object_says_nothing(encoder, said):
    write(encoder, numbered(1), rows(1))
    (segment,) = encoder.segments()
    assert segment._replace(provenance='{"device":"cpu"}').about() == {"device": "cpu"}
    assert segment._replace(provenance=said).about() is None


def test_a_segment_in_the_folder_of_another_encoder_is_refused(store, encoder):
    path = write(encoder, numbered(1), rows(1))
    other = store.add_encoder(HashEncoder(DIM, seed="other").spec, Role.DOCUMENT, DIM)
    (other.folder / "segments").mkdir()
    path.rename(other.folder / "segments" / path.name)
    found, there = encoder.spec.fingerprint[:12], other.spec.fingerprint[:12]
    message = rf"holds vectors of fingerprint {found}, but lies in the folder of {there}\. Move"
    with pytest.raises(FormatError, match=message):
        other.vectors(numbered(1))


def rewrite(path, change):
    """Apply a change to a segment and give it the name that its digest asks for."""
    with h5py.File(path, "r+", libver="v110") as file:
        change(file)
    path.rename(path.with_name(f"{sha256_file(path)}.h5"))


def replace(name, data):
    def change(file):
        del file[name]
        file.create_dataset(name, data=data)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.attrs.modify("count", np.int64(3)),
        lambda file: file.attrs.modify("dim", np.int64(4)),
        lambda file: file.attrs.modify("dtype", np.bytes_(b"float16")),
        lambda file: file.attrs.modify("format", np.bytes_(b"era-collection")),
        lambda file: file.attrs.modify("version", np.int64(2)),
        lambda file: file.attrs.modify("version", np.int64(0)),
        lambda file: file.attrs.__delitem__("version"),
        lambda file: file.attrs.__delitem__("fingerprint"),
        lambda file: file.create_dataset("extra", data=np.zeros(1)),
        lambda file: file.__delitem__("keys"),
        replace("keys", np.zeros((2, 16), np.int8)),
        replace("keys", np.zeros((2, 15), np.uint8)),
        replace("keys", np.zeros(32, np.uint8)),
        replace("keys", np.zeros((1, 16), np.uint8)),
        replace("keys", np.zeros((0, 16), np.uint8)),
        replace("vectors", np.zeros((2, DIM), np.float64)),
        replace("vectors", np.zeros((2, DIM), np.int32)),
        replace("vectors", np.zeros((2, DIM), ">f4")),
        replace("vectors", np.zeros((2, 4), np.float32)),
        replace("vectors", np.zeros((3, DIM), np.float32)),
        replace("vectors", np.zeros((2, 0), np.float32)),
    ],
)
def test_a_segment_that_contradicts_itself_is_refused_without_check(encoder, change):
    rewrite(write(encoder, numbered(1, 2), rows(1, 2)), change)
    with pytest.raises(FormatError, match=r"[0-9a-f]{64}\.h5: "):
        encoder.segments()


def test_a_stored_value_that_is_not_finite_is_refused_when_read(encoder):
    vectors = rows(1, 2)
    path = write(encoder, numbered(1, 2), vectors)

    def change(file):
        file["vectors"][1, 0] = np.nan

    rewrite(path, change)
    np.testing.assert_array_equal(encoder.vectors(numbered(1)), rows(1))
    with pytest.raises(FormatError, match="not finite"):
        encoder.vectors(numbered(2))


def test_what_is_read_back_wrong_is_not_committed(encoder, monkeypatch):
    original = PlainWriter.write

    def rot(self, name, start, block):
        original(self, name, start, block + (name == "vectors"))

    monkeypatch.setattr(PlainWriter, "write", rot)
    with pytest.raises(FormatError, match="read back other bytes"):
        write(encoder, numbered(1), rows(1))
    assert list((encoder.folder / "segments").iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "vectors"),
    [
        (numbered(1), rows(1, 2)),
        (numbered(1), np.zeros((1, DIM + 1), "f4")),
        (numbered(1)[:, :8], rows(1)),
        (numbered(1)[:0], rows()[:0].reshape(0, DIM)),
    ],
)
def test_a_wrong_shape_is_a_programming_mistake(encoder, keys, vectors):
    with pytest.raises(ValueError, match=r"keys|dim 3"):
        write(encoder, keys, vectors)


def test_a_provenance_that_is_too_long_is_left_out(encoder):
    SegmentWriter(encoder, {"note": "x" * 20_000}).commit(numbered(1), rows(1))
    (segment,) = encoder.segments()
    about = json.loads(segment.provenance)
    assert about["note"] == "provenance too long"
    # What tells it from the same rows of another writer stays.
    assert len(about["writer"]) == 12
    assert about["sequence"] == 0
    assert len(segment.provenance) <= 16_000


# Merging


def test_leaving_the_writer_merges_its_segments_and_keeps_all_rows(encoder):
    other = write(encoder, numbered(9), rows(9))
    with SegmentWriter(encoder, {"device": "x"}) as writer:
        for number in range(4):
            writer.commit(numbered(number), rows(number))
    paths = encoder.segment_paths()
    assert len(paths) == 2
    assert other in paths
    order = (3, 9, 0, 2, 1)
    np.testing.assert_array_equal(encoder.vectors(numbered(*order), check=True), rows(*order))
    merged = next(s for s in encoder.segments() if s.path != other)
    assert json.loads(merged.provenance)["merged"] == 4
    assert json.loads(merged.provenance)["device"] == "x"


def test_leaving_the_writer_by_an_error_keeps_the_segments_as_they_are(encoder):
    writer = SegmentWriter(encoder, {})
    writer.commit(numbered(1), rows(1))
    writer.commit(numbered(2), rows(2))
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert len(encoder.segment_paths()) == 2
    np.testing.assert_array_equal(encoder.vectors(numbered(2, 1)), rows(2, 1))


def test_large_segments_are_not_merged(encoder, monkeypatch):
    monkeypatch.setattr(SegmentWriter, "merge_bytes", 2 * DIM * 4 - 1)
    with SegmentWriter(encoder, {}) as writer:
        writer.commit(numbered(1), rows(1))
        writer.commit(numbered(2), rows(2))
    assert len(encoder.segment_paths()) == 2


def test_two_writers_of_the_same_rows_do_not_take_each_others_segments(encoder):
    with SegmentWriter(encoder, {}) as first, SegmentWriter(encoder, {}) as second:
        for writer in (first, second):
            writer.commit(numbered(1), rows(1))
            writer.commit(numbered(2), rows(2))
    np.testing.assert_array_equal(encoder.vectors(numbered(2, 1), check=True), rows(2, 1))


def test_a_merge_does_not_remove_what_it_could_not_replace(encoder, monkeypatch):
    original = PlainWriter.write

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = SegmentWriter(encoder, {})
    writer.commit(numbered(1), rows(1))
    writer.commit(numbered(2), rows(2))
    monkeypatch.setattr(PlainWriter, "write", full)
    with pytest.raises(StoreError, match="disk is full"):
        writer.__exit__(None, None, None)
    monkeypatch.setattr(PlainWriter, "write", original)
    np.testing.assert_array_equal(encoder.vectors(numbered(2, 1), check=True), rows(2, 1))


@pytest.mark.parametrize("late", [False, True])
def test_a_reader_that_listed_segments_before_a_merge_looks_again(encoder, monkeypatch, late):
    writer = SegmentWriter(encoder, {})
    first = writer.commit(numbered(1), rows(1))
    writer.commit(numbered(2), rows(2))
    if late:
        # Gone between the look at its structure and the reading of its rows.
        original, merged = reading.read_rows, []

        def read(*args):
            if not merged:
                merged.append(True)
                writer.__exit__(None, None, None)
                assert not first.exists()
            return original(*args)

        monkeypatch.setattr(stored_encoder, "read_rows", read)
    else:
        stale = encoder.segment_paths()
        writer.__exit__(None, None, None)
        answers = [stale]
        listing = encoder.segment_paths
        monkeypatch.setattr(
            encoder, "segment_paths", lambda: answers.pop() if answers else listing()
        )
    np.testing.assert_array_equal(encoder.vectors(numbered(2, 1)), rows(2, 1))


def test_segments_that_keep_vanishing_are_an_error_not_a_loop(encoder, monkeypatch):
    ghost = encoder.folder / "segments" / ("0" * 64 + ".h5")
    monkeypatch.setattr(encoder, "segment_paths", lambda: [ghost])
    with pytest.raises(StoreError, match="keep vanishing"):
        encoder.segments()


def test_rows_that_are_open_stay_readable_after_a_merge(encoder):
    writer = SegmentWriter(encoder, {})
    writer.commit(numbered(1), rows(1))
    writer.commit(numbered(2), rows(2))
    index = encoder.index()
    writer.__exit__(None, None, None)
    np.testing.assert_array_equal(encoder.vectors(numbered(2, 1), index=index), rows(2, 1))


# The store itself


def test_creating_twice_opens_the_same_store(store):
    store.add_encoder(SPEC, Role.QUERY, DIM)
    assert [e.spec.role for e in Store.create(store.path).encoders()] == [Role.QUERY]


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"not a store \(no store.json\)"):
        Store.open(tmp_path)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"thesis\.tex.*not a store"):
        Store.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file: creating failed: File exists"):
        Store.create(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "era-store", "version": 2}', "version 2, but this ERA Cache reads up to 1"),
        ('{"format": "other", "version": 1}', "not an era-store file"),
        ('{"format": "era-store", "version": true}', "no valid format version"),
        ('{"format": "era-store"}', "no valid format version"),
        ("[]", "not an era-store file"),
        ("{", "not valid JSON"),
    ],
)
def test_a_store_file_that_cannot_be_trusted_is_refused(store, content, message):
    (store.path / "store.json").write_text(content)
    for opening in (Store.open, Store.create):
        with pytest.raises(FormatError, match=message):
            opening(store.path)


def test_an_unwritable_place_is_a_store_error(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Permission denied\. Check the owner"):
        Store.create(tmp_path / "new")


def test_an_unknown_fingerprint_lists_what_the_store_holds(store, encoder):
    with pytest.raises(
        FingerprintError, match=r"no vectors of '0{24}'; it holds hash-3 \(document"
    ):
        store.encoder("0" * 64)
    assert store.encoder(SPEC.fingerprint(Role.DOCUMENT)).folder == encoder.folder


def test_an_encoder_folder_whose_name_lies_is_refused(store, encoder):
    encoder.folder.rename(encoder.folder.with_name("hash-3-query-" + "0" * 12))
    with pytest.raises(FormatError, match="its folder's name contradicts"):
        store.encoders()


def test_an_encoder_folder_without_its_file_is_passed_over(store):
    (store.path / "encoders" / ("x-query-" + "0" * 12)).mkdir()
    assert store.encoders() == []


def test_another_dimension_for_the_same_fingerprint_is_refused(store, encoder):
    with pytest.raises(EncoderError, match="4 dimensions, but the store has 3"):
        store.add_encoder(SPEC, Role.DOCUMENT, 4)


def test_a_bare_name_means_the_version_embedded_last(store, toy_texts: TextCollection):
    first = store.add_collection(toy_texts)
    changed = toy_texts._replace(doc_texts=["other", *toy_texts.doc_texts[1:]])
    second = store.add_collection(changed)
    assert store.collection("toy").digest == second.digest
    assert store.collection(f"toy-{first.version}").digest == first.digest
    assert set(store.versions("toy")) == {first.version, second.version}
    store.add_collection(toy_texts)
    assert store.collection("toy").digest == first.digest
    assert len(store.versions("toy")) == 2


def test_an_unknown_collection_lists_the_known(hash_store):
    with pytest.raises(StoreError, match="no collection 'tot'; it holds: toy"):
        hash_store.collection("tot")


def test_a_collection_under_a_wrong_name_is_refused(hash_store):
    ((_, _, path),) = hash_store.collection_paths()
    path.rename(path.with_name("toy-" + "0" * 12 + ".h5"))
    with pytest.raises(FormatError, match="holds toy-"):
        hash_store.collection("toy")


def test_pairs_of_another_collection_are_not_given(hash_store, toy_texts):
    stored = hash_store.collection("toy")
    (pair,) = hash_store.pairs(stored)
    assert {e.spec.fingerprint for e in hash_store.encoders()} == set(pair.values())
    other = hash_store.add_collection(toy_texts._replace(domain="other"))
    assert hash_store.pairs(other) == []


@pytest.mark.parametrize("sides", ['{"query": "a"}', "[]", "null"])
def test_a_damaged_pair_is_refused(hash_store, sides):
    stored = hash_store.collection("toy")
    (path,) = (hash_store.path / "pairs").iterdir()
    path.write_text(f'{{"format": "era-pair", "version": 1, "sides": {sides}}}')
    with pytest.raises(FormatError, match=r"damaged: .*Remove it"):
        hash_store.pairs(stored)


def test_an_edited_pair_is_refused(hash_store):
    stored = hash_store.collection("toy")
    (path,) = (hash_store.path / "pairs").iterdir()
    record = json.loads(path.read_text())
    sides = record["sides"]
    sides["query"], sides["small_query"] = sides["small_query"], sides["query"]
    path.write_text(json.dumps(record))
    with pytest.raises(FormatError, match="its name is not that of its content"):
        hash_store.pairs(stored)


def test_stores_that_name_one_encoder_differently_merge_by_copying(tmp_path, store, encoder):
    other = Store.create(tmp_path / "other")
    alias = other.add_encoder(SPEC._replace(name="alias"), Role.DOCUMENT, DIM)
    write(encoder, numbered(1, 2), rows(1, 2))
    write(alias, numbered(2, 3), rows(2, 3))
    shutil.copytree(other.path, store.path, dirs_exist_ok=True)
    (merged,) = store.encoders()
    np.testing.assert_array_equal(merged.vectors(numbered(3, 2, 1), check=True), rows(3, 2, 1))


def test_two_stores_merge_by_copying_files(tmp_path, store, encoder):
    other = Store.create(tmp_path / "other")
    elsewhere = other.add_encoder(SPEC, Role.DOCUMENT, DIM)
    write(encoder, numbered(1, 2), rows(1, 2))
    path = write(elsewhere, numbered(2, 3), rows(2, 3))
    path.rename(encoder.folder / "segments" / path.name)
    np.testing.assert_array_equal(encoder.vectors(numbered(3, 2, 1), check=True), rows(3, 2, 1))


def test_threads_that_create_one_store_at_once_all_succeed(tmp_path):
    errors = []

    def create():
        try:
            Store.create(tmp_path / "new").add_encoder(SPEC, Role.QUERY, DIM)
        except (EraError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(Store.open(tmp_path / "new").encoders()) == 1


# Versions of a collection


@pytest.fixture
def clock(monkeypatch):
    """Days that the clock of this machine is ahead."""
    days = [0]

    def now() -> str:
        there = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days[0])
        return there.isoformat(timespec="microseconds")

    for module in (stored, store_module):
        monkeypatch.setattr(module, "now", now)
    return days


def version(texts, number):
    """Another version of a collection: with another text."""
    return texts._replace(doc_texts=[f"version {number}", *texts.doc_texts[1:]])


def test_what_was_embedded_last_here_is_the_newest_whatever_clocks_say(tmp_path, toy_texts, clock):
    store = Store.create(tmp_path / "a")
    for number, ahead in enumerate([9, 5, 0]):
        clock[0] = ahead
        added = store.add_collection(version(toy_texts, number))
        assert store.collection("toy").digest == added.digest
    assert store.conflict("toy") == ""
    clock[0] = -9
    again = store.add_collection(version(toy_texts, 0))  # an older one, embedded again
    assert store.collection("toy").digest == again.digest
    # What is the newest already does not count up.
    assert store.add_collection(version(toy_texts, 0)).generation == again.generation


def test_a_copy_with_a_clock_ahead_is_a_conflict_until_something_is_embedded(
    tmp_path, toy_texts, clock
):
    here, there = Store.create(tmp_path / "a"), Store.create(tmp_path / "b")
    mine = here.add_collection(version(toy_texts, 1))
    clock[0] = 1
    theirs = there.add_collection(version(toy_texts, 2))
    merge(here.path, [there.path])
    assert here.collection("toy").digest == theirs.digest
    assert f"{mine.version} of another store may be as new; by the clock" in here.conflict("toy")
    clock[0] = 0
    mine = here.add_collection(version(toy_texts, 1))
    assert here.collection("toy").digest == mine.digest
    assert here.conflict("toy") == ""


def test_another_domain_of_the_same_name_is_told(tmp_path, toy_texts):
    store = Store.create(tmp_path / "a")
    store.add_collection(toy_texts)
    store.add_collection(toy_texts._replace(domain="law"))
    assert "versions of other domains (household) may be another coll" in store.conflict("toy")
    assert store.collection("toy").domain == "law"


@pytest.mark.parametrize("order", [[1, 2], [1, 2, 1]])
def test_the_pair_that_was_recorded_last_is_the_newest_whatever_clocks_say(
    tmp_path, toy_texts, clock, order
):
    store = Store.create(tmp_path / "a")
    collection = store.add_collection(toy_texts)
    for ahead, number in zip([9, 5, 0], order, strict=False):
        clock[0] = ahead
        sides = dict.fromkeys(ROLES, f"{number}" * 64)
        store.add_pair(collection, sides)
        assert store.pairs(collection)[0] == sides
    assert len(store.pairs(collection)) == 2


def test_a_store_that_another_process_just_begins_is_none_yet(tmp_path):
    assert Store.if_there(tmp_path / "s") is None
    (tmp_path / "s").mkdir()
    assert Store.if_there(tmp_path / "s") is None
    (tmp_path / "s" / ".tmp-store.json").touch()
    (tmp_path / "s" / "encoders").mkdir()
    assert Store.if_there(tmp_path / "s") is None
    Store.create(tmp_path / "s")
    assert Store.if_there(tmp_path / "s") is not None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="holds other files"):
        Store.if_there(tmp_path / "other")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keys": (np.uint8, (0, 16)), "vectors": (np.float16, (0, 3))}, "keys"),
        ({"keys": (np.int8, (2, 16))}, "keys"),
        ({"keys": (np.uint8, (2, 15))}, "keys"),
        ({"vectors": (np.float16, (2,))}, "vectors"),
        ({"vectors": (np.int32, (2, 3))}, "vectors"),
        ({"vectors": (np.float16, (3, 3))}, "2 keys, but vectors"),
        ({"vectors": (np.int8, (2, 3)), "scales": (np.float64, (2,))}, "scales"),
        ({"vectors": (np.int8, (2, 3)), "scales": (np.float32, (3,))}, "scales"),
        ({"scales": (np.float32, (2,))}, "members"),
    ],
)
def test_arrays_of_another_form_are_no_segment(tmp_path, changed, message):
    forms = {"keys": (np.uint8, (2, 16)), "vectors": (np.float16, (2, 3)), **changed}
    arrays = {name: np.ones(shape, dtype) for name, (dtype, shape) in forms.items()}
    fingerprint, dtype = SPEC.fingerprint(Role.DOCUMENT), arrays["vectors"].dtype.name
    count = len(arrays["keys"])
    attributes = segment.segment_attributes(fingerprint, count, 3, dtype, "{}")
    path = tmp_path / f"{'0' * 64}.h5"
    write_plain(path, arrays, attributes)
    with pytest.raises(FormatError, match=message):
        segment.open_segment(path, fingerprint, 3)
