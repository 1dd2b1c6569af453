"""The key index: what it finds is what a dictionary finds, whatever its files say."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.disk.hdf5 import inspect, write_plain
from era_cache.store import sorted_keys
from era_cache.store.key_index import KeyIndex
from era_cache.store.read_rows import read_rows
from era_cache.store.sorted_keys import by_segment, persist_index, remove_stale_indexes
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

SPEC = HashEncoder(1).spec
halves = st.sampled_from([0, 1, 2, 255, 256, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
keys_of = st.lists(st.tuples(halves, halves), min_size=1, max_size=12, unique=True)


def as_keys(pairs):
    return np.array(pairs, dtype="<u8").reshape(-1, 2).view(np.uint8).reshape(-1, 16)


@pytest.fixture
def encoder(tmp_path: Path):
    return Store.create(tmp_path / "store").add_encoder(SPEC, Role.DOCUMENT, 1)


def write(encoder, pairs, values, dtype="float32"):
    vectors = np.array(values, dtype)[:, None]
    return SegmentWriter(encoder, {}).commit(as_keys(pairs), vectors)


def values_of(index, positions):
    out = np.empty((len(positions), 1), np.float32)
    read_rows(index, positions, out)
    return out[:, 0].tolist()


def random_keys(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(keys_of, st.booleans()), max_size=4),
    st.lists(st.tuples(halves, halves), max_size=20),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_the_index_finds_what_a_dictionary_finds(parts, asked, covered):
    with tempfile.TemporaryDirectory() as folder:
        encoder = Store.create(Path(folder) / "s").add_encoder(SPEC, Role.DOCUMENT, 1)
        for number, (pairs, exact) in enumerate(parts):
            values = np.arange(len(pairs)) + 100 * number + 1
            write(encoder, pairs, values, "float32" if exact else "float16")
        segments = encoder.segments()
        oracle = {}
        for segment in segments:  # in order of preference
            stored = np.array(segment.plain.array("vectors"), np.float32)[:, 0]
            for key, value in zip(segment.keys, stored, strict=True):
                oracle.setdefault(bytes(key), float(value))
        # Some of the segments are found through a file, the others are sorted anew.
        known = [s for s, use in zip(segments, covered, strict=False) if use]
        if known:
            persist_index(encoder.folder, known, least_rows=0)
        index = encoder.index()
        assert index.sorted_anew == sum(s.rows for s in segments) - sum(s.rows for s in known)
        everything = as_keys([*asked, *[tuple(np.frombuffer(k, "<u8")) for k in oracle]])
        positions = index.positions(everything)
        stored = [bytes(key) in oracle for key in everything]
        assert [position >= 0 for position in positions] == stored
        found = [oracle[bytes(key)] for key in everything if bytes(key) in oracle]
        assert values_of(index, positions[positions >= 0]) == found


def test_keys_that_share_their_first_eight_bytes_are_told_apart(encoder):
    pairs = [(7, 5), (7, 0), (7, 2**64 - 1), (7, 3), (8, 0)]
    write(encoder, pairs[:2], [5, 0.5])
    write(encoder, pairs[2:], [9, 3, 8])
    index = encoder.index()
    asked = as_keys([(7, 3), (7, 4), (7, 2**64 - 1), (8, 0), (8, 1), (6, 5), (7, 0)])
    positions = index.positions(asked)
    assert (positions >= 0).tolist() == [True, False, True, True, False, False, True]
    assert values_of(index, positions[positions >= 0]) == [3, 9, 8, 0.5]


def test_a_hundred_thousand_keys_with_one_first_half_are_found_in_time(encoder):
    lows = np.random.default_rng(0).permutation(100_000).astype("<u8")
    keys = np.stack([np.full_like(lows, 7), lows], axis=1).view(np.uint8)
    vectors = lows[:, None].astype(np.float32) + 1
    SegmentWriter(encoder, {}).commit(keys, vectors)
    start = time.monotonic()
    positions = encoder.index().positions(keys[::-1])
    np.testing.assert_array_equal(positions, np.arange(100_000)[::-1])
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("partition_rows", [1, 7, 64, 1000])
def test_partitions_give_one_ascending_order_of_all_keys(monkeypatch, partition_rows):
    monkeypatch.setattr(sorted_keys, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(sorted_keys, "_PARTITION_ROWS", (partition_rows, partition_rows))
    keys = random_keys(500)
    keys[250:] = keys[:250]  # every key twice
    parts = list(sorted_keys.sorted_ranges([120, 380], [keys[:120], keys[120:]].__getitem__))
    assert len(parts) >= 500 // partition_rows
    high, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    words = keys.view("<u8").reshape(-1, 2)
    expected = np.lexsort((np.arange(500), words[:, 1], words[:, 0]))
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(high, words[expected, 0])


def test_the_writer_keeps_an_index_once_many_rows_have_come(encoder, monkeypatch):
    monkeypatch.setattr(sorted_keys, "_PERSIST_ROWS", 100)
    keys = random_keys(300)
    with SegmentWriter(encoder, {}, dtype="float32") as writer:
        writer.write(keys[:50], np.ones((50, 1)))
    assert not (encoder.folder / "index").exists()
    with SegmentWriter(encoder, {}, dtype="float32") as writer:
        writer.write(keys[50:], np.ones((250, 1)))
    assert len(list((encoder.folder / "index").iterdir())) == 1
    assert encoder.index().sorted_anew == 0
    with SegmentWriter(encoder, {}, dtype="float32") as writer:
        writer.write(random_keys(10, seed=1), np.ones((10, 1)))
    index = encoder.index()
    assert index.sorted_anew == 10
    assert (index.positions(keys) >= 0).all()


def wrong_files(path):
    """Contents of an index file that lie."""
    plain = inspect(path)
    arrays = {name: np.array(plain.array(name)) for name in plain.slots}
    shuffled = np.random.default_rng(1).permutation(arrays["rows"])
    yield "rows of other keys", {**arrays, "rows": shuffled}, plain.attributes
    yield "rows out of range", {**arrays, "rows": arrays["rows"] + 10**12}, plain.attributes
    yield "negative rows", {**arrays, "rows": -arrays["rows"] - 5}, plain.attributes
    yield "keys descending", {**arrays, "high": arrays["high"][::-1].copy()}, plain.attributes
    yield "too short", {k: v[:-1] for k, v in arrays.items()}, plain.attributes
    yield "another format", arrays, {**plain.attributes, "format": "era-segment"}
    yield "newer", arrays, {**plain.attributes, "version": 99}
    yield "float rows", {**arrays, "rows": arrays["rows"].astype("f8")}, plain.attributes
    unknown = arrays["segments"] ^ 1
    yield "of segments that are gone", {**arrays, "segments": unknown}, plain.attributes
    twice = np.repeat(arrays["segments"], 2, axis=0)
    yield "a segment twice", {**arrays, "segments": twice}, plain.attributes


def test_an_index_file_that_lies_may_hide_rows_but_never_gives_a_wrong_one(encoder):
    keys = random_keys(200)
    for part in (keys[:120], keys[120:]):
        SegmentWriter(encoder, {}).commit(part, part[:, :1].astype(np.float32) + 1)
    path = persist_index(encoder.folder, encoder.segments(), least_rows=0)
    for name, arrays, attributes in list(wrong_files(path)):
        path.unlink()
        write_plain(path, arrays, attributes)
        index = encoder.index()
        positions = index.positions(keys)
        found = np.flatnonzero(positions >= 0)
        expected = (keys[found, 0] + 1.0).tolist()
        assert values_of(index, positions[found]) == expected, name
    path.write_bytes(b"nothing of ours")
    assert (encoder.index().positions(keys) >= 0).all()


def test_index_files_go_when_a_newer_one_covers_more_and_their_grace_is_over(encoder):
    keys = random_keys(20)
    SegmentWriter(encoder, {}).commit(keys[:10], np.ones((10, 1), np.float32))
    old = persist_index(encoder.folder, encoder.segments(), least_rows=0)
    SegmentWriter(encoder, {}).commit(keys[10:], np.ones((10, 1), np.float32))
    new = persist_index(encoder.folder, encoder.segments(), least_rows=0)
    assert remove_stale_indexes(encoder.folder, encoder.segments(), grace_seconds=60) == {}
    size = old.stat().st_size
    os.utime(old, (0, 0))
    os.utime(new, (0, 0))
    would = remove_stale_indexes(encoder.folder, encoder.segments(), grace_seconds=60, dry_run=True)
    assert would == {old: size}
    assert old.exists()
    assert would == remove_stale_indexes(encoder.folder, encoder.segments(), grace_seconds=60)
    assert not old.exists()
    assert new.exists()


def test_an_index_file_copied_from_another_store_is_used_only_for_its_segments(encoder, tmp_path):
    other = Store.create(tmp_path / "other").add_encoder(SPEC, Role.DOCUMENT, 1)
    keys = random_keys(20)
    for one in (encoder, other):
        SegmentWriter(one, {}).commit(keys, keys[:, :1].astype(np.float32) + 1)
    path = persist_index(other.folder, other.segments(), least_rows=0)
    (encoder.folder / "index").mkdir()
    shutil.copy(path, encoder.folder / "index" / path.name)
    assert encoder.index().sorted_anew == 20


def test_positions_are_grouped_by_segment_in_ascending_order():
    starts = np.array([0, 3, 3, 10])
    positions = np.array([9, 0, -1, 2, 3, 0])
    groups = {
        n: (positions[where] - starts[n], rows) for n, where, rows in by_segment(starts, positions)
    }
    assert sorted(groups) == [0, 2]
    for picked, rows in groups.values():
        np.testing.assert_array_equal(picked, rows)
    assert groups[0][1].tolist() == [0, 0, 2]
    assert groups[2][1].tolist() == [0, 6]
    assert list(by_segment(starts, np.empty(0, np.int64))) == []


def test_an_index_of_nothing_finds_nothing():
    assert KeyIndex([]).positions(random_keys(3)).tolist() == [-1, -1, -1]


def test_no_more_than_an_eighth_of_the_keys_is_sorted_at_a_time(monkeypatch):
    """Within the bounds; the memory that a sort takes must not grow with a store of usual size."""
    monkeypatch.setattr(sorted_keys, "_PARTITION_ROWS", (20, 60))
    keys = random_keys(1000)

    def most(total: int) -> int:
        ranges = sorted_keys.sorted_ranges([total], [keys[:total]].__getitem__)
        return max(len(rows) for _, rows in ranges)

    assert most(20) == 20
    assert most(160) <= 2 * 20
    assert most(320) <= 2 * 40
    assert most(1000) <= 2 * 60
