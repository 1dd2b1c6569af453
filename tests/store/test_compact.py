"""Compaction and clean-up: the same rows afterwards, whoever reads, writes or compacts beside."""

from __future__ import annotations

import json
import os
import shutil
import threading

import numpy as np
import pytest
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import DIM, SPEC, numbered, rows, write

from era_cache.errors import EraError, FormatError
from era_cache.store import provenance, sorted_keys, write_segments
from era_cache.store.clean import clean
from era_cache.store.compact import compact
from era_cache.store.retired import is_replaced, purge, restore, retire, retired_files
from era_cache.store.store import Store
from era_cache.store.sync import merge
from era_cache.store.verify import verify
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role


def assert_rows(encoder, *numbers):
    found = encoder.vectors(numbered(*numbers), check=True)
    np.testing.assert_array_equal(found, rows(*numbers))


def age(path, hours):
    """Make a retired file, or any file, look so many hours old."""
    then = path.stat().st_mtime - hours * 3600
    for one in (path, path.with_suffix(".json")):
        if one.exists():
            os.utime(one, (then, then))


def test_segments_become_one_in_the_order_in_which_they_were_written(store, encoder):
    for numbers in ((5, 3), (9,), (1, 7, 2)):
        write(encoder, *numbers)
    (report,) = compact(store)
    assert (report.segments_before, report.segments_after, report.rows) == (3, 1, 6)
    (segment,) = encoder.segments(check=True)
    np.testing.assert_array_equal(segment.keys, numbered(5, 3, 9, 1, 7, 2))
    assert_rows(encoder, 2, 7, 1, 9, 3, 5)
    about = json.loads(segment.provenance)
    assert about["merged"] == 3
    assert [source["device"] for source in about["sources"]] == ["x"]


def test_a_key_that_several_segments_hold_is_kept_once(store, encoder):
    write(encoder, 1, 2, 3)
    write(encoder, 2, 3, 4)
    compact(store)
    (segment,) = encoder.segments()
    assert segment.rows == 4
    assert_rows(encoder, 1, 2, 3, 4)


def test_forms_are_not_mixed_unless_one_is_asked_for(store, encoder):
    write(encoder, 1, 2)
    write(encoder, 3)
    write(encoder, 3, 4, dtype="float16")
    write(encoder, 5, dtype="float16")
    compact(store)
    assert [(s.dtype, s.rows) for s in encoder.segments()] == [("float32", 3), ("float16", 3)]
    compact(store, dtype="int8")
    (segment,) = encoder.segments(check=True)
    assert (segment.dtype, segment.rows) == ("int8", 5)
    found = encoder.vectors(numbered(1, 2, 3, 4, 5))
    np.testing.assert_allclose(found, rows(1, 2, 3, 4, 5), atol=5.5 / 254)


def test_a_form_is_never_raised(store, encoder):
    write(encoder, 1, dtype="float16")
    with_int8 = SegmentWriter(encoder, {}, dtype="int8")
    with with_int8:
        with_int8.write(numbered(2), rows(2))
    compact(store, dtype="float16")
    assert [s.dtype for s in encoder.segments()] == ["float16", "int8"]


def test_what_is_large_already_is_left_alone(store, encoder):
    large = write(encoder, *range(10))
    for number in range(10, 15):
        write(encoder, number)
    compact(store, max_bytes=12 * DIM * 4)
    assert sorted(s.rows for s in encoder.segments()) == [5, 10]
    assert large in encoder.segment_paths()
    before = encoder.segment_paths()
    compact(store, max_bytes=12 * DIM * 4)
    assert encoder.segment_paths() == before
    assert_rows(encoder, *range(15))


def test_a_dry_run_changes_nothing_and_tells_the_same(store, encoder):
    write(encoder, 1)
    write(encoder, 2)
    before = sorted(path for path in store.path.rglob("*"))
    (would,) = compact(store, dry_run=True)
    assert sorted(path for path in store.path.rglob("*")) == before
    (did,) = compact(store)
    assert did._replace(bytes_written=0) == would
    assert did.bytes_written > 0


def test_a_damaged_segment_is_not_given_a_new_name(store, encoder):
    path = write(encoder, 1)
    write(encoder, 2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=path.name[:12]):
        compact(store)
    assert len(encoder.segment_paths()) == 2


def test_only_the_encoder_asked_for_is_compacted(store, encoder):
    other = store.add_encoder(HashEncoder(DIM, seed="o").spec, Role.DOCUMENT, DIM)
    for one in (encoder, other):
        write(one, 1)
        write(one, 2)
    compact(store, encoder=other.spec.fingerprint[:8])
    assert len(encoder.segment_paths()) == 2
    assert len(other.segment_paths()) == 1


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 20), min_size=1, max_size=8, unique=True),
            st.sampled_from(["float32", "float16"]),
        ),
        max_size=6,
    ),
    st.integers(1, 30),
)
def test_compacting_changes_no_row(tmp_path_factory, parts, most):
    store = Store.create(tmp_path_factory.mktemp("p") / "s")
    encoder = store.add_encoder(SPEC, Role.DOCUMENT, DIM)
    for numbers, dtype in parts:
        write(encoder, *numbers, dtype=dtype)
    stored = sorted({number for numbers, _ in parts for number in numbers})
    for _ in range(2):
        compact(store, max_bytes=most * DIM * 2)
        if stored:
            assert_rows(encoder, *stored)


def test_writers_readers_and_compactors_at_once_lose_nothing(store, encoder):
    """Each thread sees at any time every row that was committed before it looked."""
    committed, failures, stop = [], [], threading.Event()

    def guarded(step):
        def run():
            try:
                while not stop.is_set():
                    step()
            except (EraError, OSError, AssertionError) as error:
                failures.append(error)
                stop.set()

        return run

    def read():
        numbers = list(committed)
        if numbers:
            assert_rows(encoder, *numbers)

    def write_some():
        with SegmentWriter(encoder, {}, dtype="float32") as writer:
            for _ in range(3):
                number = len(committed)
                writer.write(numbered(number), rows(number))
                writer.flush()
                committed.append(number)
        if len(committed) > 120:
            stop.set()

    work = [
        read,
        read,
        write_some,
        lambda: compact(store),
        lambda: compact(store),
        lambda: clean(store),
    ]
    threads = [threading.Thread(target=guarded(step)) for step in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(committed) > 120
    assert_rows(encoder, *committed)


# What was retired


def test_what_was_replaced_waits_for_its_grace_and_then_goes(store, encoder):
    old = [write(encoder, 1), write(encoder, 2)]
    compact(store)
    aside = retired_files(encoder.folder)
    assert [path.name for path in aside] == sorted(path.name for path in old)
    assert purge([encoder.folder]) == {}
    age(aside[0], hours=25)
    size = aside[0].stat().st_size
    found = clean(store, dry_run=True)
    assert (found.retired_segments, found.bytes) == (1, size)
    assert aside[0].exists()
    assert clean(store).retired_segments == 1
    assert retired_files(encoder.folder) == aside[1:]
    assert clean(store, grace_seconds=0).retired_segments == 1
    assert_rows(encoder, 1, 2)


def test_a_writer_clears_away_what_was_retired_long_ago_once_an_hour(store, encoder, monkeypatch):
    write(encoder, 1)
    write(encoder, 2)
    compact(store)
    for path in retired_files(encoder.folder):
        age(path, hours=25)
    write(encoder, 3)
    assert len(retired_files(encoder.folder)) == 2
    monkeypatch.setattr(write_segments, "_PURGE_SECONDS", 0.0)
    write(encoder, 4)
    assert retired_files(encoder.folder) == []


def test_a_replaced_segment_is_known_through_every_later_replacement(store, encoder):
    first = write(encoder, 1)
    write(encoder, 2)
    assert not is_replaced([encoder.folder], first.stem)
    compact(store)
    (second,) = encoder.segment_paths()
    write(encoder, 3)
    compact(store)
    for digest in (first.stem, second.stem):
        assert is_replaced([encoder.folder], digest)
    (third,) = encoder.segment_paths()
    third.unlink()
    assert not is_replaced([encoder.folder], first.stem)


def test_a_ring_of_records_ends(encoder):
    write(encoder, 1)
    for one, other in (("a", "b"), ("b", "a")):
        retire([encoder.folder / "segments" / f"{one * 64}.h5"], by=other * 64)
    assert not is_replaced([encoder.folder], "a" * 64)


@pytest.mark.parametrize("by", ["../../x", 7, "A" * 64, "0" * 64 + "\n"])
def test_a_record_that_names_nonsense_is_refused(encoder, by):
    path = write(encoder, 1)
    retire([path], by="0" * 64)
    record = encoder.folder / "retired" / f"{path.stem}.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "by": by}))
    with pytest.raises(FormatError, match="damaged"):
        is_replaced([encoder.folder], path.stem)


# What no one names


def test_rows_that_no_collection_names_go_only_when_asked_and_old(hash_store):
    encoder = next(e for e in hash_store.encoders() if e.spec.role is Role.DOCUMENT)
    collection = hash_store.collection("toy")
    dim = encoder.spec.dim
    with SegmentWriter(encoder, {}, dtype="float32") as writer:
        writer.write(numbered(1, 2), np.ones((2, dim)))
        mixed = np.concatenate([numbered(3), collection.doc_keys[:1]])
        writer.write(mixed, np.full((2, dim), 2.0))
    assert clean(hash_store, unreferenced=True).unreferenced_rows == 0  # just written
    for path in encoder.segment_paths():
        age(path, hours=25)
    assert clean(hash_store, unreferenced=True, dry_run=True).unreferenced_rows == 3
    assert (encoder.index().positions(numbered(1, 2, 3)) >= 0).all()
    assert clean(hash_store, unreferenced=True).unreferenced_rows == 3
    assert (encoder.index().positions(numbered(1, 2, 3)) < 0).all()
    np.testing.assert_array_equal(encoder.vectors(collection.doc_keys[:1]), np.full((1, dim), 2))
    assert encoder.vectors(collection.doc_keys, check=True).shape == (30, dim)


@pytest.mark.parametrize("grace", [0, 3600])
def test_a_dry_run_of_all_that_goes_tells_what_the_run_then_drops(
    hash_store, toy_texts, monkeypatch, grace
):
    monkeypatch.setattr(sorted_keys, "_PERSIST_ROWS", 1)
    left_out = np.arange(5, 10)  # rows that only the older version names
    hash_store.add_collection(toy_texts.without(left_out, np.arange(2)))
    for encoder in hash_store.encoders():
        encoder.keep_index()
    for path in hash_store.path.rglob("*.h5"):
        age(path, hours=25)
    asked = {"old_versions": True, "unreferenced": True, "grace_seconds": grace}
    would = clean(hash_store, dry_run=True, **asked)
    done = clean(hash_store, **asked)
    assert would == done
    assert (done.old_collections, done.unreferenced_rows > 5) == (1, True)
    assert (done.retired_segments > 0) is (grace == 0)
    assert done.indexes > 0


def test_older_versions_of_a_collection_go_only_when_asked(hash_store, toy_texts):
    hash_store.add_collection(toy_texts._replace(domain="another"))
    for _, _, path in hash_store.collection_paths():
        age(path, hours=25)
    assert clean(hash_store).old_collections == 0
    assert clean(hash_store, old_versions=True).old_collections == 1
    assert hash_store.collection("toy").domain == "another"
    assert len(hash_store.versions("toy")) == 1


def test_many_sources_are_cut_and_counted(store, encoder, monkeypatch):
    monkeypatch.setattr(provenance, "_MOST_SOURCES", 2)
    for number in range(4):
        SegmentWriter(encoder, {"note": f"run {number}"}).commit(numbered(number), rows(number))
    compact(store)
    (segment,) = encoder.segments()
    about = json.loads(segment.provenance)
    assert len(about["sources"]) == 2
    assert about["sources_left_out"] == 2


def test_a_retired_segment_stays_while_its_replacement_is_damaged_and_comes_back(store, encoder):
    write(encoder, 1)
    write(encoder, 2)
    compact(store)
    (merged,) = encoder.segment_paths()
    data = bytearray(merged.read_bytes())
    data[-1] ^= 1
    merged.write_bytes(data)
    report = verify(store, quarantine=True)
    assert [finding.done for finding in report.of_level("damage")] == ["quarantined"]
    assert sum("brought back" in f.message for f in report.of_level("warning")) == 2
    assert clean(store, grace_seconds=0).retired_segments == 0
    assert_rows(encoder, 1, 2)
    assert verify(store).ok


def test_a_retired_segment_whose_replacement_is_gone_is_not_deleted(store, encoder):
    write(encoder, 1)
    write(encoder, 2)
    compact(store)
    encoder.segment_paths()[0].unlink()
    assert clean(store, grace_seconds=0).retired_segments == 0
    assert len(restore([encoder.folder])) == 2
    assert_rows(encoder, 1, 2)


def test_rows_that_were_dropped_can_be_copied_back(hash_store, tmp_path):
    encoder = next(e for e in hash_store.encoders() if e.spec.role is Role.DOCUMENT)
    keys = np.concatenate([numbered(1), hash_store.collection("toy").doc_keys[:1]])
    with SegmentWriter(encoder, {}, dtype="float32") as writer:
        writer.write(keys, np.ones((2, encoder.spec.dim)))
    merge(tmp_path / "other", [hash_store.path])
    for path in encoder.segment_paths():
        age(path, hours=25)
    clean(hash_store, grace_seconds=0, unreferenced=True)
    assert encoder.index().positions(keys)[0] < 0
    merge(hash_store.path, [tmp_path / "other"])
    assert (encoder.index().positions(keys) >= 0).all()


def test_a_retired_segment_of_a_second_folder_of_an_encoder_goes_too(tmp_path, store, encoder):
    other = Store.create(tmp_path / "other")
    alias = other.add_encoder(SPEC._replace(name="zz"), Role.DOCUMENT, DIM)
    write(encoder, 1)
    path = write(alias, 2)
    shutil.copytree(other.path, store.path, dirs_exist_ok=True)
    compact(store)
    merge(store.path, [other.path])
    (merged,) = Store.open(store.path).encoders()
    assert len(merged.segment_paths()) == 1
    assert path.name not in {p.name for p in merged.segment_paths()}
    assert clean(store, grace_seconds=0).retired_segments == 2
    assert_rows(merged, 1, 2)
