"""Verification: each kind of damage is found and named, and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hash_encoder import HashEncoder
from small_stores import DIM, numbered, rows, write
from small_stores import damage as flip

from era_cache.cli import store_trust
from era_cache.disk.files import sha256_file
from era_cache.disk.hdf5 import write_plain
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.store import read_rows as reading
from era_cache.store import sorted_keys
from era_cache.store.compact import compact
from era_cache.store.names import SEGMENT_NAME
from era_cache.store.precision import StoredRows
from era_cache.store.retired import retire
from era_cache.store.segment import segment_attributes
from era_cache.store.sorted_keys import persist_index
from era_cache.store.verify import encoders as verify_encoders
from era_cache.store.verify import segment_scan, verify
from era_cache.types import Role


def missing(pair):
    return {side: state.missing for side, state in pair.sides.items() if state.missing}


def forge(encoder, keys, values, scales=None, **attributes):
    """Write a segment that its own writer would refuse, under its right name."""
    stored = StoredRows(values, scales)
    about = segment_attributes(
        encoder.spec.fingerprint, len(keys), values.shape[1], values.dtype.name, "{}"
    )
    temporary = encoder.folder / "segments" / "forged"
    temporary.parent.mkdir(exist_ok=True)
    write_plain(temporary, {"keys": keys, **stored.arrays()}, {**about, **attributes})
    return temporary.rename(temporary.with_name(f"{sha256_file(temporary)}.h5"))


def found(store, level="damage", **options):
    """Path to message of the findings of one level."""
    report = verify(store, **options)
    return {finding.path: finding.message for finding in report.of_level(level)}


def name_in(store, path):
    return path.relative_to(store.path).as_posix()


# A sound store


def test_a_sound_store_has_no_findings(hash_store):
    report = verify(hash_store)
    assert (report.findings, report.orphans, report.temporaries) == ([], [], 0)
    assert report.ok
    assert report.collections == 1
    assert [missing(pair) for pair in report.pairs] == [{}]
    assert sum(e.segments for e in report.encoders) == 4


def test_an_empty_store_is_sound(store):
    report = verify(store)
    assert (report.ok, report.encoders, report.bytes) == (True, [], 0)


def test_a_store_without_folders_is_sound(store):
    for name in ("encoders", "collections", "pairs"):
        (store.path / name).rmdir()
    assert verify(store).findings == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("block_values", [1, 9, 1 << 18])
def test_norms_are_those_of_the_rows_as_they_are_read(
    encoder, store, dtype, block_values, monkeypatch
):
    monkeypatch.setattr(segment_scan, "_BLOCK_VALUES", block_values)
    monkeypatch.setattr(segment_scan, "_CHUNK_BYTES", 64)
    write(encoder, *range(5), dtype=dtype)
    write(encoder, *range(5, 12), dtype=dtype)
    norms = np.linalg.norm(encoder.vectors(numbered(*range(12))).astype(np.float64), axis=1)
    (state,) = verify(store).encoders
    assert (state.rows, state.norms.suspicious_rows) == (12, 0)
    expected = [norms.min(), norms.mean(), norms.max()]
    np.testing.assert_allclose(state.norms[:3], expected, rtol=1e-6)


def test_progress_counts_every_byte_of_every_segment(encoder, store):
    paths = [write(encoder, n) for n in range(3)]
    told = []
    verify(store, progress=lambda *step: told.append(step))
    total = sum(path.stat().st_size for path in paths)
    assert told[-1] == ("segments", total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


# Damaged segments


def test_every_flipped_byte_of_every_form_is_found(encoder, store):
    for dtype in ("float32", "float16", "int8"):
        path = write(encoder, 1, 2, dtype=dtype)
        content = path.read_bytes()
        for position in range(0, len(content), 97):
            flip(path, position)
            assert list(found(store)) == [name_in(store, path)]
            path.write_bytes(content)
        path.unlink()


@pytest.mark.parametrize("chunk_bytes", [48, 100, 1 << 12, 2 << 20])
@pytest.mark.parametrize("inline_bytes", [0, 1 << 18])
def test_the_digest_is_that_of_the_whole_file_in_any_pieces(
    encoder, chunk_bytes, inline_bytes, monkeypatch
):
    monkeypatch.setattr(segment_scan, "_CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(segment_scan, "_INLINE_BYTES", inline_bytes)
    path = write(encoder, *range(40), dtype="int8")
    told = []
    with ThreadPoolExecutor(2) as pool:
        for position in (0, 1000, path.stat().st_size - 1):
            seen = segment_scan.scan_segment(path, encoder.spec, pool, told.append)
            assert seen.problem is None
            assert sum(told) == path.stat().st_size
            told.clear()
            flip(path, position)
            assert (
                segment_scan.scan_segment(path, encoder.spec, pool, lambda _: None).problem
                is not None
            )
            flip(path, position)


def test_a_segment_under_a_wrong_name_is_found(encoder, store):
    path = write(encoder, 1)
    wrong = path.rename(path.with_name("a" * 64 + ".h5"))
    assert list(found(store)) == [name_in(store, wrong)]


@pytest.mark.parametrize("kept", [0, 8, None])
def test_a_huge_sparse_segment_is_damage_that_nobody_waits_for(encoder, store, kept):
    path = write(encoder, 1)
    path.write_bytes(path.read_bytes()[:kept])
    os.truncate(path, 300 << 30)
    start = time.monotonic()
    assert list(found(store)) == [name_in(store, path)]
    assert time.monotonic() - start < 10


BAD_VALUES = [
    ("nan", [[1, 2, 3], [np.nan, 1, 1]], "1 rows with NaN or infinite values (the first: row 1)"),
    ("inf", [[1, -np.inf, 3], [1, 1, 1]], "NaN or infinite values (the first: row 0)"),
    ("zero", [[1, 2, 3], [0, -0.0, 0]], "1 rows with zeros only (the first: row 1)"),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("values", "message"), [case[1:] for case in BAD_VALUES])
def test_values_that_must_not_be_stored_are_found_though_the_digest_agrees(
    encoder, store, dtype, values, message
):
    path = forge(encoder, numbered(1, 2), np.array(values, dtype=dtype))
    damage = found(store)
    assert list(damage) == [name_in(store, path)]
    assert message in damage[name_in(store, path)]


def test_the_first_bad_row_is_named_in_any_pieces(encoder, store, monkeypatch):
    monkeypatch.setattr(segment_scan, "_CHUNK_BYTES", 5 * 12)
    monkeypatch.setattr(segment_scan, "_BLOCK_VALUES", 2 * DIM)
    values = rows(*range(20))
    values[[13, 18], 1] = np.nan
    forge(encoder, numbered(*range(20)), values)
    (message,) = found(store).values()
    assert message.startswith("2 rows with NaN or infinite values (the first: row 13).")


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_a_bad_scale_is_found(encoder, store, scale):
    values = np.array([[1, 2, 127], [127, 1, 1]], dtype=np.int8)
    scales = np.array([1, scale], dtype=np.float32)
    forge(encoder, numbered(1, 2), values, scales)
    (message,) = found(store).values()
    assert "1 rows with a scale that is not a positive number (the first: row 1)" in message


def test_a_row_of_int8_zeros_is_found(encoder, store):
    forge(encoder, numbered(1), np.zeros((1, 3), np.int8), np.ones(1, np.float32))
    assert "zeros only" in next(iter(found(store).values()))


@pytest.mark.parametrize("sorted_rows", [1 << 20, 2])
def test_a_repeated_key_is_found(encoder, store, sorted_rows, monkeypatch):
    monkeypatch.setattr(reading, "_SORTED_ROWS", sorted_rows)
    monkeypatch.setattr(reading, "_KEY_BLOCK_ROWS", 3)
    write(encoder, *range(20))
    assert found(store) == {}
    for repeated in range(20, 30):
        numbers = [*range(20, 40), repeated]
        path = forge(encoder, numbered(*numbers), rows(*numbers))
        (message,) = found(store).values()
        assert message.startswith("a key occurs twice.")
        path.unlink()


def test_keys_that_share_a_half_are_no_repeats(encoder, store):
    keys = np.zeros((4, 16), np.uint8)
    keys[1, 15], keys[2, 8], keys[3, 0] = 1, 1, 1
    forge(encoder, keys, rows(1, 2, 3, 4))
    assert found(store) == {}


def test_odd_norms_are_warnings(encoder, store):
    path = forge(encoder, numbered(1, 2, 3), np.float32([[1, 0, 0], [1e-30, 0, 0], [2e4, 0, 0]]))
    report = verify(store)
    assert report.ok
    (warning,) = report.of_level("warning")
    assert warning.path == name_in(store, path)
    assert warning.message.startswith("2 rows have a norm that float32 takes for 0, or one above")
    (state,) = report.encoders
    assert state.norms.suspicious_rows == 2
    np.testing.assert_allclose(state.norms.smallest, 1e-30, rtol=1e-6)


def test_provenance_that_is_no_json_object_is_a_warning(encoder, store):
    forge(encoder, numbered(1), rows(1), created_by="[1]")
    forge(encoder, numbered(2), rows(2), created_by="x")
    report = verify(store)
    assert report.ok
    assert ["'created_by'" in warning.message for warning in report.of_level("warning")] == [
        True
    ] * 2


def test_segments_of_another_encoder_or_dimension_are_found(encoder, store):
    forge(encoder, numbered(1), rows(1), fingerprint="f" * 64)
    forge(encoder, numbered(1), np.ones((1, 4), np.float32))
    assert len(found(store)) == 2


def test_a_foreign_hdf5_file_that_agrees_with_its_name_says_so(encoder, store):
    path = encoder.folder / "segments" / "x"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["keys"] = numbered(1)
    path.rename(path.with_name(f"{sha256_file(path)}.h5"))
    (message,) = found(store).values()
    assert "Its content agrees with its name" in message


def test_an_empty_or_cut_file_is_found(encoder, store):
    path = write(encoder, 1)
    content = path.read_bytes()
    for size in (0, 10, 100, len(content) - 1):
        path.write_bytes(content[:size])
        assert list(found(store)) == [name_in(store, path)]


def test_a_link_is_found_and_not_followed(encoder, store, tmp_path):
    path = write(encoder, 1)
    outside = path.rename(tmp_path / path.name)
    path.symlink_to(outside)
    assert "a link" in found(store, quarantine=True)[name_in(store, path)]
    assert path.is_symlink()
    os.mkfifo(encoder.folder / "segments" / ("b" * 64 + ".h5"))
    assert len(found(store)) == 2


def test_a_folder_that_is_a_link_is_found_and_not_followed(store, tmp_path):
    (store.path / "encoders").rename(tmp_path / "elsewhere")
    (store.path / "encoders").symlink_to(tmp_path / "elsewhere")
    assert "a link" in found(store)["encoders"]


# Quarantine


def test_nothing_is_moved_unless_asked_for(encoder, store):
    path = write(encoder, 1)
    flip(path)
    assert "--quarantine" in found(store)[name_in(store, path)]
    assert path.exists()


def test_only_rows_of_the_damaged_segment_are_encoded_again(hash_store, toy_texts):
    large, small = HashEncoder(32), HashEncoder(16, seed="small")
    documents = hash_store.encoder(small.spec.fingerprint(Role.DOCUMENT))
    sound = {p for e in hash_store.encoders() for p in e.segment_paths()}
    (path,) = documents.segment_paths()
    count = documents.segments()[0].rows
    before = documents.vectors(hash_store.collection("toy").doc_keys)
    flip(path)
    report = verify(hash_store, quarantine=True)
    (damage,) = report.of_level("damage")
    assert (damage.done, damage.missing_rows, report.missing_rows) == ("quarantined", count, count)
    aside = documents.folder / "quarantine" / path.name
    assert aside.exists()
    assert not path.exists()
    record = json.loads(aside.with_suffix(".json").read_text())
    assert (record["format"], record["version"], record["rows"]) == ("era-quarantine", 1, count)
    assert record["reason"] in damage.message
    assert {p for e in hash_store.encoders() for p in e.segment_paths()} == sound - {path}
    embed_collection(hash_store, toy_texts, large=large, small=small, config=EmbedConfig())
    assert (large.encoded, small.encoded) == (0, count)
    after = verify(hash_store)
    assert after.ok
    assert sum(state.quarantined for state in after.encoders) == 1
    np.testing.assert_array_equal(
        documents.vectors(hash_store.collection("toy").doc_keys, check=True), before
    )


def test_rows_that_another_segment_has_are_not_missing(encoder, store):
    damaged = write(encoder, 1, 2, 3)
    write(encoder, 2, 3, 4)
    other = write(encoder, 1, 5, dtype="float16")
    flip(damaged)
    flip(other)
    report = verify(store)
    rows_of = {Path(f.path).name: f.missing_rows for f in report.of_level("damage")}
    assert rows_of == {damaged.name: 1, other.name: 2}
    # Text 1 is in both damaged segments.
    assert report.missing_rows == 2


def test_a_segment_whose_structure_is_gone_is_set_aside_without_a_count(encoder, store):
    path = write(encoder, 1)
    path.write_bytes(b"nothing")
    (damage,) = verify(store, quarantine=True).of_level("damage")
    assert (damage.done, damage.missing_rows) == ("quarantined", None)
    record = json.loads((encoder.folder / "quarantine" / f"{path.stem}.json").read_text())
    assert record["rows"] is None
    assert verify(store).ok


def test_a_newer_segment_is_reported_and_never_set_aside(encoder, store):
    path = forge(encoder, numbered(1), rows(1), version=3)
    report = verify(store, quarantine=True)
    assert report.ok
    (newer,) = report.of_level("newer")
    assert newer.path == name_in(store, path)
    assert "Install a newer" in newer.message
    assert path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_segment_that_may_not_be_read_is_no_damage_to_set_aside(encoder, store):
    path = write(encoder, 1)
    path.chmod(0)
    assert "Permission denied" in found(store, quarantine=True)[name_in(store, path)]
    assert path.exists()


def test_a_segment_that_the_disk_refuses_is_reported_and_left(encoder, store, monkeypatch):
    path = write(encoder, 1)

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(segment_scan.os, "preadv", refuse)
    (message,) = found(store, quarantine=True).values()
    assert "Input/output error" in message
    assert path.exists()


# Encoder folders


def test_damaged_records_of_encoders_are_found_and_their_segments_left(encoder, store):
    path = write(encoder, 1)
    record = encoder.folder / "encoder.json"
    text = record.read_text()
    record.write_text(text.replace('"dim": 3', '"dim": 3, "identity": {}'))
    flip(path)
    damage = found(store, quarantine=True)
    assert set(damage) == {name_in(store, record), name_in(store, path)}
    assert "Mend encoder.json first" in damage[name_in(store, path)]
    assert path.exists()
    flip(path)
    assert set(found(store)) == {name_in(store, record)}


def test_a_folder_that_contradicts_its_record_is_found(encoder, store):
    write(encoder, 1)
    encoder.folder.rename(encoder.folder.with_name("x-query-" + "0" * 12))
    assert "contradicts" in next(iter(found(store).values()))


def test_segments_without_a_record_are_found_and_a_beginning_folder_is_not_damage(encoder, store):
    write(encoder, 1)
    (encoder.folder / "encoder.json").unlink()
    assert "missing" in found(store)[f"{name_in(store, encoder.folder)}/encoder.json"]
    shutil.rmtree(encoder.folder / "segments")
    assert found(store) == {}
    assert len(found(store, "warning")) == 1


def test_a_newer_record_is_not_damage(encoder, store):
    record = encoder.folder / "encoder.json"
    record.write_text(record.read_text().replace('"version": 1', '"version": 9'))
    assert found(store) == {}
    assert list(found(store, "newer")) == [name_in(store, record)]


def test_one_encoder_under_two_names_is_one(encoder, store):
    write(encoder, 1, 2)
    other = encoder.folder.with_name(encoder.folder.name.replace("hash-3", "renamed"))
    shutil.copytree(encoder.folder, other)
    (path,) = (other / "segments").iterdir()
    flip(path)
    (damage,) = verify(store).of_level("damage")
    assert damage.missing_rows == 0


# Index files


def indexed(encoder, *groups):
    for group in groups:
        write(encoder, *group)
    return persist_index(encoder.folder, encoder.segments(), least_rows=1)


GROUPS = ((1, 2, 3, 4), (5, 6, 2), (7,))


@pytest.mark.parametrize("block_rows", [1, 3, 1 << 18])
def test_a_right_index_is_not_reported(encoder, store, block_rows, monkeypatch):
    monkeypatch.setattr(sorted_keys, "_CHECKED_ROWS", block_rows)
    indexed(encoder, *GROUPS)
    assert found(store) == {}


def put(array, at, values):
    """A copy with other values at some places."""
    changed = array.copy()
    changed[at] = values
    return changed


def repeated(high):
    """Where the key that two segments have is first."""
    return int(np.flatnonzero(high[1:] == high[:-1])[0])


WRONG_ENTRIES = {
    "swapped": lambda high, rows: (high, put(rows, [2, 5], rows[[5, 2]])),
    "repeated": lambda high, rows: (put(high, 3, high[2]), put(rows, 3, rows[2])),
    "reversed": lambda high, rows: (high[::-1].copy(), rows[::-1].copy()),
    "of a repeated key swapped": lambda high, rows: (
        high,
        put(rows, [repeated(high), repeated(high) + 1], rows[[repeated(high) + 1, repeated(high)]]),
    ),
    "outside": lambda high, rows: (high, put(rows, 0, 8)),
    "below": lambda high, rows: (high, put(rows, 0, -1)),
    "of a lower half": lambda high, rows: (put(high, 0, high[0] - np.uint64(1)), rows),
    "left out": lambda high, rows: (high[1:], rows[1:]),
}


@pytest.mark.parametrize("block_rows", [1, 3, 1 << 18])
@pytest.mark.parametrize("change", WRONG_ENTRIES.values(), ids=WRONG_ENTRIES)
def test_a_wrong_index_is_found_and_only_deleted_when_asked_for(
    encoder, store, change, block_rows, monkeypatch
):
    monkeypatch.setattr(sorted_keys, "_CHECKED_ROWS", block_rows)
    path = indexed(encoder, *GROUPS)
    with h5py.File(path) as file:
        arrays = {name: file[name][...] for name in file}
    arrays["high"], arrays["rows"] = change(arrays["high"], arrays["rows"])
    write_plain(path, arrays, {"format": "era-index", "version": 1})
    damage = found(store)
    assert list(damage) == [name_in(store, path)]
    assert path.exists()
    report = verify(store, quarantine=True)
    assert [finding.done for finding in report.findings] == ["deleted"]
    assert not path.exists()
    assert verify(store).findings == []


def test_an_index_of_damaged_form_or_wrong_name_is_found(encoder, store):
    path = indexed(encoder, *GROUPS)
    content = path.read_bytes()
    path.write_bytes(content[:500])
    assert list(found(store)) == [name_in(store, path)]
    path.unlink()
    path.with_name("c" * 64 + ".h5").write_bytes(content)
    assert "its name" in next(iter(found(store).values()))


def test_an_index_in_another_order_than_that_of_preference_is_found(encoder, store):
    write(encoder, 1, 2)
    write(encoder, 2, 3)
    first = persist_index(encoder.folder, encoder.segments(), least_rows=1)
    second = persist_index(encoder.folder, encoder.segments()[::-1], least_rows=1)
    assert list(found(store)) == [name_in(store, second)]
    assert first != second


def test_an_index_of_segments_that_are_gone_or_newer_is_no_finding(encoder, store):
    path = indexed(encoder, *GROUPS)
    (encoder.folder / "segments" / encoder.segments()[0].path.name).unlink()
    assert verify(store).findings == []
    with h5py.File(path, "r+") as file:
        file.attrs.modify("version", np.int64(9))
    assert verify(store).findings == []


def test_a_wrong_index_does_not_hide_rows_from_the_count_of_pairs(hash_store):
    encoder = hash_store.encoders()[0]
    path = persist_index(encoder.folder, encoder.segments(), least_rows=1)
    with h5py.File(path) as file:
        arrays = {name: file[name][...] for name in file}
    arrays["rows"] = arrays["rows"][::-1].copy()
    write_plain(path, arrays, {"format": "era-index", "version": 1})
    report = verify(hash_store)
    assert not report.ok
    assert missing(report.pairs[0]) == {}


# Retired segments, strangers, temporaries


def test_retired_segments_are_counted_and_their_records_read(encoder, store):
    write(encoder, 1)
    write(encoder, 2)
    compact(store)
    (state,) = verify(store).encoders
    assert (state.segments, state.retired) == (1, 2)
    records = sorted((encoder.folder / "retired").glob("*.json"))
    records[0].write_text("{}")
    assert list(found(store)) == [name_in(store, records[0])]


def test_a_retired_segment_without_a_record_is_found(encoder, store):
    path = write(encoder, 1)
    write(encoder, 2)
    retire([path], by=None)
    assert found(store) == {}
    (encoder.folder / "retired" / f"{path.stem}.json").unlink()
    assert "without a record" in next(iter(found(store).values()))


def test_strangers_are_listed_and_temporaries_counted_and_none_is_touched(encoder, store):
    write(encoder, 1)
    strangers = ["notes.txt", "encoders/mine", "pairs/x.json", "collections/a.h5"]
    base = name_in(store, encoder.folder)
    strangers += [f"{base}/extra", f"{base}/segments/{'A' * 64}.h5", f"{base}/index"]
    for name in strangers[:-1]:
        (store.path / name).write_bytes(b"x")
    temporaries = [f"{base}/segments/.tmp-a-1-b.h5", ".tmp-x-2-c"]
    (store.path / base / "index").mkdir()
    for name in (*temporaries, f"{base}/index/what"):
        (store.path / name).write_bytes(b"x")
    report = verify(store, quarantine=True)
    assert report.findings == []
    assert report.orphans == sorted([*strangers[:-1], f"{base}/index/what"])
    assert report.temporaries == 2
    assert all((store.path / name).exists() for name in (*strangers, *temporaries))


def test_a_file_where_a_folder_belongs_is_found(store):
    (store.path / "pairs").rmdir()
    (store.path / "pairs").write_bytes(b"")
    assert found(store) == {"pairs": "is a file, where a folder belongs. Move it away."}


# Collections and pairs


def test_a_damaged_or_renamed_collection_is_found(hash_store):
    (path,) = (hash_store.path / "collections").iterdir()
    content = path.read_bytes()
    flip(path, len(content) // 2)
    report = verify(hash_store)
    assert [f.path for f in report.of_level("damage")] == [name_in(hash_store, path)]
    # Its pair cannot be counted then.
    assert [f.path.split("/")[0] for f in report.of_level("warning")] == ["pairs"]
    path.unlink()
    path.with_name("other-0123456789ab.h5").write_bytes(content)
    assert "holds toy-" in next(iter(found(hash_store).values()))


def test_a_damaged_pair_is_found(hash_store):
    (path,) = (hash_store.path / "pairs").iterdir()
    record = json.loads(path.read_text())
    record["sides"]["query"] = "0" * 64
    path.write_text(json.dumps(record))
    assert list(found(hash_store)) == [name_in(hash_store, path)]


def test_a_pair_that_mixes_up_roles_or_models_is_found(hash_store):
    collection = hash_store.collection("toy")
    (sides,) = hash_store.pairs(collection)
    for one, other in (("query", "document"), ("query", "small_query")):
        mixed = {**sides, one: sides[other], other: sides[one]}
        hash_store.add_pair(collection, mixed)
    damage = found(hash_store)
    assert len(damage) == 2
    assert all("mixes up" in m or "mix up" in m for m in damage.values())


def test_rows_that_a_pair_lacks_are_a_warning_that_counts_them(hash_store):
    small = hash_store.encoder(HashEncoder(16, seed="small").spec.fingerprint(Role.QUERY))
    collection = hash_store.collection("toy")
    shutil.rmtree(small.folder / "segments")
    align = hash_store.encoder(HashEncoder(32).spec.fingerprint(Role.DOCUMENT))
    shutil.rmtree(align.folder)
    report = verify(hash_store)
    assert report.ok
    queries = len(collection.query_keys)
    (pair,) = report.pairs
    assert missing(pair) == {"small_query": queries, "align": 1}
    assert pair.sides["query"] == (queries, queries, 0)
    (warning,) = report.of_level("warning")
    assert f"{queries} rows of 'small_query'" in warning.message


def test_a_few_alignment_documents_are_enough(store, toy_texts):
    config = EmbedConfig(align_documents=2)
    embed_collection(
        store, toy_texts, large=HashEncoder(8), small=HashEncoder(4, "s"), config=config
    )
    (pair,) = verify(store).pairs
    assert pair.sides["align"][0] == 2
    assert missing(pair) == {}


# Others at work


@pytest.fixture
def during_the_scan(monkeypatch):
    """Takes what shall happen once, when the first segment is about to be scanned."""
    original, actions = verify_encoders.scan_segment, []

    def scan_later(path, spec, pool, told):
        if actions:
            actions.pop()()
        return original(path, spec, pool, told)

    monkeypatch.setattr(verify_encoders, "_THREADS", 1)
    monkeypatch.setattr(verify_encoders, "scan_segment", scan_later)
    return actions.append


def test_a_segment_merged_meanwhile_is_looked_for_again(encoder, store, during_the_scan):
    for n in range(4):
        write(encoder, n)
    during_the_scan(lambda: compact(store))
    report = verify(store)
    assert report.findings == []
    (state,) = report.encoders
    assert (state.segments, state.rows) == (1, 4)


def test_a_segment_merged_meanwhile_into_a_damaged_one_is_damage(encoder, store, during_the_scan):
    paths = [write(encoder, n) for n in range(2)]

    def merge_and_damage():
        compact(store)
        flip(*encoder.segment_paths())

    during_the_scan(merge_and_damage)
    (damage,) = verify(store).of_level("damage")
    assert damage.path not in {name_in(store, path) for path in paths}
    assert damage.missing_rows == 2


def test_segments_that_are_taken_away_are_not_waited_for_without_end(encoder, store, monkeypatch):
    path = write(encoder, 1)
    content = path.read_bytes()
    original = verify_encoders.scan_segment
    calls = []

    def vanish(path, spec, pool, told):
        calls.append(path)
        path.unlink()
        try:
            return original(path, spec, pool, told)
        finally:
            path.write_bytes(content)

    monkeypatch.setattr(verify_encoders, "scan_segment", vanish)
    assert verify(store).findings == []
    assert len(calls) == 10


# The command


def run(command, *args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def test_the_command_says_what_is_damaged_and_exits_1(encoder, store):
    path, other = write(encoder, 1), write(encoder, 2)
    assert run(store_trust.verify, store.path).exit_code == 0
    flip(path)
    done = run(store_trust.verify, store.path)
    assert done.exit_code == 1
    assert "1 damaged, of which 0 were dealt with" in done.stderr
    assert str(path) in done.stderr
    assert other.name not in done.output
    assert "--quarantine" in done.stdout
    done = run(store_trust.verify, store.path, "--quarantine")
    assert done.exit_code == 1
    assert "damage (quarantined)" in done.stdout
    assert "Now run era-embed again" in done.stderr
    done = run(store_trust.verify, store.path)
    assert done.exit_code == 0
    assert "1 damaged segments lie in quarantine" in done.stdout


def test_the_command_prints_the_whole_record_as_json(hash_store):
    (path,) = hash_store.encoders()[0].segment_paths()
    flip(path)
    done = run(store_trust.verify, hash_store.path, "--json")
    assert done.exit_code == 1
    record = json.loads(done.stdout)
    assert record["ok"] is False
    assert record["findings"][0]["path"] == name_in(hash_store, path)
    assert {f["level"] for f in record["findings"]} == {"damage", "warning"}
    assert len(record["encoders"]) == 4
    assert set(record["pairs"][0]["sides"]) == {"query", "small_query", "document", "align"}
    sound = [e for e in record["encoders"] if e["rows"]]
    assert all(e["norms"]["smallest"] <= e["norms"]["mean"] for e in sound)


def test_a_folder_that_is_no_store_is_one_message(tmp_path):
    done = run(store_trust.verify, tmp_path)
    assert done.exit_code == 1
    assert "not a store" in done.stderr


def test_an_index_is_named_as_its_specification_says(encoder):
    path = indexed(encoder, *GROUPS)
    digests = b"".join(bytes.fromhex(s.path.stem) for s in encoder.segments())
    assert path.name == f"{hashlib.sha256(digests).hexdigest()}.h5"
    assert SEGMENT_NAME.fullmatch(path.name)
