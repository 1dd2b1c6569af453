"""Stores that move: what is missing arrives, and nothing damaged or hostile does."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import add_collection, add_rows, damage, files_of, rows_of, spec_of

from era_cache.cli import store_share
from era_cache.collection.keys import row_keys
from era_cache.disk.files import sha256_file
from era_cache.errors import FormatError, InputError, StoreError
from era_cache.store import sync as transfer
from era_cache.store.encoder_record import write_encoder_record
from era_cache.store.store import Store
from era_cache.store.sync import merge, pack, places, pull, push
from era_cache.store.sync import plan as transfer_plan
from era_cache.store.sync.places import Entry, LocalPlace, kind_of, list_store
from era_cache.store.sync.remote import RemotePlace
from era_cache.store.sync.transfer import KindCounts, RefusedError
from era_cache.store.write_segments import SegmentWriter, merge_segments
from era_cache.types import Role


@pytest.fixture
def source(tmp_path, toy):
    """A store of two encoders, five segments, a collection and a pair."""
    path = tmp_path / "source"
    add_collection(path, toy)
    add_rows(path, [(1, 2), (3,), (4, 5)])
    add_rows(path, [(1,), (2,)], name="other", role=Role.QUERY)
    return path


def segments_of(path):
    return sorted(path.glob("encoders/*/segments/[0-9a-f]*.h5"))


# Between folders


def test_everything_arrives_as_it_was(source, into):
    report = merge(into, [source])
    assert files_of(into).keys() == files_of(source).keys()
    assert {n: d for n, d in files_of(into).items() if n != "store.json"} == {
        n: d for n, d in files_of(source).items() if n != "store.json"
    }
    assert rows_of(into) == rows_of(source)
    assert report.kinds == {
        "store": KindCounts(0, 1, 0, 0),
        "collection": KindCounts(1, 0, 0, 0),
        "encoder": KindCounts(2, 0, 0, 0),
        "segment": KindCounts(5, 0, 0, 0),
        "pair": KindCounts(1, 0, 0, 0),
    }
    sizes = [len(data) for name, data in files_of(source).items() if name != "store.json"]
    assert report.bytes == sum(sizes)


def test_only_what_is_missing_moves(source, into):
    merge(into, [source])
    before = {path: path.stat().st_ino for path in into.rglob("*") if path.is_file()}
    (new,) = add_rows(source, [(9,)])
    report = merge(into, [source])
    assert report.files == [new.relative_to(source).as_posix()]
    assert report.kinds["segment"] == KindCounts(1, 5, 0, 0)
    after = {path: path.stat().st_ino for path in before}
    assert after == before


def test_several_sources_come_together(source, into, tmp_path):
    add_rows(tmp_path / "third", [(7, 8)], name="third")
    report = merge(into, [source, tmp_path / "third"])
    assert rows_of(into) == rows_of(source) | rows_of(tmp_path / "third")
    assert report.kinds["segment"].copied == 6
    assert report.kinds["encoder"].copied == 3


groups = st.lists(st.sets(st.integers(0, 6), min_size=1).map(sorted), max_size=3)
stores = st.dictionaries(st.sampled_from(["a", "b"]), groups, max_size=2)


@settings(max_examples=8)
@given(first=stores, second=stores)
def test_order_does_not_matter_and_merging_again_changes_nothing(first, second):
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for number, content in enumerate((first, second)):
            Store.create(root / str(number))
            for model, some in content.items():
                add_rows(root / str(number), some, name=f"{model}{number}", model=model, add=number)
        one, two = root / "one", root / "two"
        merge(one, [root / "0", root / "1"])
        merge(two, [root / "1"])
        merge(two, [root / "0"])
        have = {p.name for p in root.glob("[01]/encoders/*/segments/*.h5")}
        assert {p.name for p in segments_of(one)} == {p.name for p in segments_of(two)} == have
        if have:
            assert rows_of(one) == rows_of(two)
            assert rows_of(one).keys() == rows_of(root / "0").keys() | rows_of(root / "1").keys()
        before = files_of(one)
        assert merge(one, [root / "0", two]).files == []
        assert files_of(one) == before


def test_an_encoder_of_another_name_keeps_its_folder_and_record(into, tmp_path):
    add_rows(into, [(1,)], name="mine", model="same")
    add_rows(tmp_path / "from", [(2,)], name="theirs", model="same")
    record = next(into.glob("encoders/*/encoder.json")).read_bytes()
    report = merge(into, [tmp_path / "from"])
    (folder,) = (into / "encoders").iterdir()
    assert (folder / "encoder.json").read_bytes() == record
    assert len(segments_of(into)) == 2
    assert report.kinds["encoder"] == KindCounts(0, 1, 0, 0)
    assert merge(into, [tmp_path / "from"]).files == []


def test_two_folders_of_one_encoder_become_one(into, tmp_path):
    add_rows(tmp_path / "a", [(1,), (2,)], name="a", model="same")
    add_rows(tmp_path / "b", [(3,)], name="b", model="same")
    shutil.copytree(tmp_path / "a", tmp_path / "both")
    shutil.copytree(tmp_path / "b/encoders", tmp_path / "both/encoders", dirs_exist_ok=True)
    shared = segments_of(tmp_path / "a")[0]
    shutil.copy(shared, next((tmp_path / "both/encoders").glob("b-*/segments")))
    report = merge(into, [tmp_path / "both"])
    assert len(list((into / "encoders").iterdir())) == 1
    assert report.kinds["segment"] == KindCounts(3, 1, 0, 0)
    assert len(rows_of(into)) == 3


def test_another_dimension_of_the_same_encoder_is_refused(into, tmp_path):
    add_rows(into, [(1,)], model="same")
    add_rows(tmp_path / "from", [(2,)], model="same", dim=5)
    with pytest.raises(RefusedError, match=r"vectors of 5 dimensions, but .* has 3") as caught:
        merge(into, [tmp_path / "from"])
    assert caught.value.report.kinds["segment"].refused == 1
    assert len(segments_of(into)) == 1


def test_the_collection_that_is_there_stays(source, into, toy):
    add_collection(into, toy)  # the same content, embedded at another time
    before = files_of(into)
    merge(into, [source])
    assert {name: files_of(into)[name] for name in before} == before


def test_what_is_no_part_of_a_store_stays_behind(source, into):
    (one, *_) = segments_of(source)
    for name in ("retired", "quarantine", "index", "notes"):
        (one.parents[1] / name).mkdir(exist_ok=True)
        shutil.copy(one, one.parents[1] / name / f"{'0' * 64}.h5")
    shutil.copy(one, one.parent / ".tmp-1-2-3.h5")
    shutil.copy(one, one.parent / "copy.h5")
    (source / "notes.txt").write_text("mine")
    (source / "encoders" / "..-query-000000000000").mkdir()
    merge(into, [source])
    ours = {"store.json", "encoders", "collections", "pairs", "runs"}
    assert {p.name for p in into.iterdir()} == ours
    assert len(list(into.rglob("*.h5"))) == 6
    assert {p.name for p in one.parents[1].iterdir()} - {
        p.name for p in (into / one.parents[1].relative_to(source)).iterdir()
    } == {"retired", "quarantine", "index", "notes"}


def test_a_segment_that_was_merged_away_is_not_brought_back(source, into):
    merge(into, [source])
    encoder = Store.open(into).encoders()[0]
    merge_segments(encoder, encoder.segments(), {})
    report = merge(into, [source])
    assert report.files == []
    assert report.kinds["segment"] == KindCounts(0, 2, 3, 0)
    # Its replacement is lost: the rows are needed again.
    next((encoder.folder / "segments").glob("*.h5")).unlink()
    assert merge(into, [source]).kinds["segment"] == KindCounts(3, 2, 0, 0)


@pytest.fixture
def after_listing(monkeypatch):
    """Takes what shall happen when the source has been listed, before anything is copied."""

    def then(action):
        def list_and_act(place):
            listing = transfer_plan.list_source(place)
            action()
            return listing

        monkeypatch.setattr(transfer, "list_source", list_and_act)

    return then


def test_a_source_that_is_compacted_meanwhile_loses_nothing(source, into, after_listing):
    rows = rows_of(source)
    encoder = Store.open(source).encoders()[0]
    after_listing(lambda: merge_segments(encoder, encoder.segments(), {}))
    assert merge(into, [source]).kinds["segment"].copied == 5
    assert rows_of(into) == rows


def test_a_segment_that_is_deleted_meanwhile_is_named(source, into, after_listing):
    (gone, *_) = segments_of(source)
    after_listing(gone.unlink)
    with pytest.raises(RefusedError, match=f"{gone}: was removed while"):
        merge(into, [source])
    assert len(segments_of(into)) == 4


def test_a_dry_run_writes_nothing(source, into):
    report = merge(into, [source], dry_run=True)
    assert not into.exists()
    assert set(report.files) == set(files_of(source))
    assert report.bytes == sum(map(len, files_of(source).values()))
    merge(into, [source])
    assert merge(into, [source], dry_run=True).files == []


def test_temporary_files_of_dead_writers_are_removed(source, into):
    merge(into, [source])
    segment = segments_of(into)[0]
    segment.unlink()
    stale = segment.parent / ".tmp-x-y-z.h5"
    stale.touch()
    os.utime(stale, (0, 0))
    merge(into, [source])
    assert not stale.exists()


def test_two_at_once_both_succeed(source, into):
    add_rows(source, [(number,) for number in range(20, 50)])
    errors = []

    def copy():
        try:
            merge(into, [source])
        except Exception as error:  # noqa: BLE001 - a thread has nobody to tell
            errors.append(error)

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows_of(into) == rows_of(source)


def test_a_killed_merge_goes_on(source, into):
    add_rows(source, [(number,) for number in range(20, 140)])
    code = "import sys, pathlib; from era_cache.store.sync import merge\n"
    code += "print('go', flush=True)\n"
    code += "merge(pathlib.Path(sys.argv[1]), [pathlib.Path(sys.argv[2])])"
    chance, moved = random.Random(5), []
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", code, into, source], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "go\n"
        time.sleep(chance.uniform(0.02, 0.12))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        names = {p.name for p in segments_of(into)}
        assert all(sha256_file(p) == p.stem for p in segments_of(into))
        moved.append(len(names))
    assert moved == sorted(moved)
    assert moved[-1] > 0
    report = merge(into, [source])
    assert report.kinds["segment"] == KindCounts(125 - moved[-1], moved[-1], 0, 0)
    assert rows_of(into) == rows_of(source)
    assert list(into.rglob(".tmp-*")) == []


# Damaged and hostile sources


def test_a_damaged_segment_is_named_and_the_others_arrive(source, into):
    bad = segments_of(source)[1]
    good = bad.read_bytes()
    damage(bad)
    with pytest.raises(RefusedError, match=rf"1 file refused.*\n  {bad}: the content") as caught:
        merge(into, [source])
    report = caught.value.report
    assert report.kinds["segment"] == KindCounts(4, 0, 0, 1)
    assert report.kinds["pair"].copied == 1
    assert list(into.rglob(".tmp-*")) == []
    bad.write_bytes(good)
    assert merge(into, [source]).files == [bad.relative_to(source).as_posix()]
    assert rows_of(into) == rows_of(source)


def test_a_damaged_segment_in_the_destination_is_mended_where_its_size_tells(source, into):
    merge(into, [source])
    cut = segments_of(into)[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    assert merge(into, [source]).files == [cut.relative_to(into).as_posix()]
    assert rows_of(into) == rows_of(source)


def test_a_segment_of_another_encoder_is_refused_although_its_digest_is_right(source, into):
    first, *_, last = segments_of(source)
    moved = last.parent / first.name
    first.rename(moved)
    with pytest.raises(RefusedError, match=f"{moved}: holds vectors of fingerprint"):
        merge(into, [source])
    assert len(segments_of(into)) == 4


def test_a_file_that_is_no_segment_is_refused_although_its_digest_is_right(source, into):
    folder = segments_of(source)[0].parent
    (folder / "x").write_bytes(b"#!/bin/sh\n")
    (folder / "x").rename(folder / f"{sha256_file(folder / 'x')}.h5")
    with pytest.raises(RefusedError, match="not an HDF5 file"):
        merge(into, [source])
    assert len(segments_of(into)) == 5


@pytest.mark.parametrize("name", ["", "a\x1b[2Jb", "\u202eb", "a\nb", "x" * 201, "\x9bm"])
def test_an_encoder_whose_name_a_terminal_would_obey_is_refused(source, into, name):
    record = next(source.glob("encoders/model-*/encoder.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"name": name}))
    with pytest.raises(RefusedError, match="is no name of 1 to 200 printable") as caught:
        merge(into, [source])
    assert not name or name not in str(caught.value)


@pytest.mark.parametrize("gigabytes", [50, 300])
@pytest.mark.parametrize("kept", [0, 8, None])
def test_a_huge_sparse_segment_is_refused_before_it_is_copied(source, into, gigabytes, kept):
    path = segments_of(source)[0]
    path.write_bytes(path.read_bytes()[:kept])
    os.truncate(path, gigabytes << 30)
    start = time.monotonic()
    with pytest.raises(RefusedError, match=f"{path}: "):
        merge(into, [source])
    assert len(segments_of(into)) == 4
    with pytest.raises(RefusedError, match=f"{path}: "):
        pack(source, into.parent / "sparse.erapack")
    assert time.monotonic() - start < 10


def test_a_damaged_or_renamed_collection_is_refused(source, into):
    (collection,) = (source / "collections").iterdir()
    renamed = collection.rename(collection.with_name(f"toys{collection.name[3:]}"))
    with pytest.raises(RefusedError, match=f"{renamed}: holds toy-"):
        merge(into, [source])
    damage(renamed, at=len(renamed.read_bytes()) // 2)
    with pytest.raises(RefusedError, match=f"{renamed}: "):
        merge(into, [source])
    assert list((into / "collections").iterdir()) == []
    assert len(segments_of(into)) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"sides": {"query": "1"}},
        {"sides": None},
        {"sides": [1]},
        {"sides": {"query": "\ud800"}},
        {"collection": "1" * 64},
        {"collection": 1},
        {"format": "other"},
        {"version": 2},
    ],
)
def test_a_pair_that_was_edited_is_refused(source, into, change):
    (pair,) = (source / "pairs").iterdir()
    pair.write_text(json.dumps({**json.loads(pair.read_text()), **change}))
    with pytest.raises(RefusedError, match=str(pair)):
        merge(into, [source])
    assert list((into / "pairs").iterdir()) == []


@pytest.mark.parametrize("content", ["{}", "[" * 100_000, "\xff", '{"format": "era-encoder"}'])
def test_without_its_record_no_segment_of_an_encoder_arrives(source, into, content):
    record = next(source.glob("encoders/model-*/encoder.json"))
    record.write_text(content, encoding="latin-1")
    with pytest.raises(RefusedError, match=str(record)) as caught:
        merge(into, [source])
    assert caught.value.report.kinds["segment"] == KindCounts(2, 0, 0, 3)
    assert not (into / record.relative_to(source)).exists()


def test_a_record_of_another_encoder_is_refused(source, into):
    record = next(source.glob("encoders/model-*/encoder.json"))
    write_encoder_record(record.parent, spec_of("x", "another"), Role.DOCUMENT, 3)
    with pytest.raises(RefusedError, match="which its folder's name contradicts"):
        merge(into, [source])


@pytest.mark.parametrize("kind", ["segment", "collection", "encoder", "segments", "folder"])
def test_links_of_a_source_are_refused_and_not_followed(source, into, tmp_path, kind):
    victim = {
        "segment": segments_of(source)[0],
        "collection": next((source / "collections").iterdir()),
        "encoder": next(source.glob("encoders/model-*/encoder.json")),
        "segments": segments_of(source)[0].parent,
        "folder": source / "collections",
    }[kind]
    victim.rename(tmp_path / "elsewhere")
    victim.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match=rf"{victim}: is a link, not a (file|folder)"):
        merge(into, [source])
    name = victim.relative_to(source)
    assert not (into / name).exists() or list((into / name).iterdir()) == []
    assert list(into.rglob("*")) == [p for p in into.rglob("*") if not p.is_symlink()]


def test_pipes_and_folders_in_the_place_of_files_are_refused(source, into):
    first, second, *_ = segments_of(source)
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.mkdir()
    with pytest.raises(RefusedError, match="is a device or pipe, not a file") as caught:
        merge(into, [source])
    assert caught.value.report.kinds["segment"] == KindCounts(3, 0, 0, 2)


def test_a_link_put_in_the_place_of_a_listed_file_is_not_followed(source, tmp_path):
    place = LocalPlace(source)
    (tmp_path / "secret").write_text("secret")
    (source / "store.json").unlink()
    (source / "store.json").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match=r"store\.json: a symbolic link; links are refused"):
        list(place.chunks("store.json"))


def test_a_destination_that_leads_elsewhere_is_not_written_to(source, into, tmp_path):
    merge(into, [source])
    segments = segments_of(into)[0].parent
    shutil.rmtree(segments)
    (tmp_path / "outside").mkdir()
    segments.symlink_to(tmp_path / "outside")
    with pytest.raises(FormatError, match=f"{segments}: is a link"):
        merge(into, [source])
    assert list((tmp_path / "outside").iterdir()) == []


def test_files_larger_than_any_of_their_kind_are_refused_unread(source, into, monkeypatch):
    for kind in ("segment", "pair", "collection"):
        monkeypatch.setitem(places.LIMITS, kind, 100)
    with pytest.raises(RefusedError, match="at most 100 are accepted") as caught:
        merge(into, [source])
    assert caught.value.report.kinds["segment"] == KindCounts(0, 0, 0, 5)
    assert caught.value.report.kinds["collection"].refused == 1


def test_a_file_that_grows_while_it_is_read_is_cut_short():
    stream = iter([b"1234", b"5678", b"9"])
    shown = places.limited(stream, 6, "shown")
    assert next(shown) == b"1234"
    with pytest.raises(FormatError, match="shown: more than 6 bytes"):
        next(shown)
    assert next(stream) == b"9"


def test_too_many_names_are_an_error(source, into, monkeypatch):
    monkeypatch.setattr(places, "MAX_NAMES", 10)
    with pytest.raises(StoreError, match="more than 10 names"):
        merge(into, [source])
    assert not into.exists()


def test_a_newer_store_is_refused_on_either_side(source, into):
    newer = '{"format": "era-store", "version": 2}'
    Store.create(into)
    (into / "store.json").write_text(newer)
    with pytest.raises(FormatError, match=r"into/store.json: format version 2"):
        merge(into, [source])
    with pytest.raises(FormatError, match=r"into/store.json: format version 2"):
        merge(source, [into])


def test_what_is_no_store_is_neither_source_nor_destination(source, into, tmp_path):
    with pytest.raises(StoreError, match="nothing: not a store"):
        merge(into, [tmp_path / "nothing"])
    assert not into.exists()
    into.mkdir()
    (into / "thesis.txt").touch()
    with pytest.raises(StoreError, match="holds other files"):
        merge(into, [source])
    assert [p.name for p in into.iterdir()] == ["thesis.txt"]


@given(st.text(alphabet="abc./\\-0\n") | st.text())
def test_no_path_that_could_leave_a_store_has_a_kind(text):
    for path in (text, f"encoders/{text}", f"encoders/{text}/segments", f"collections/{text}"):
        if kind_of(path) is not None:
            assert ".." not in path.split("/")
            assert not path.startswith("/")
            assert "\\" not in path
            assert "\n" not in path


def test_a_hostile_listing_gives_only_names_of_a_store():
    good = f"{'a' * 64}.h5"
    tree = {
        "": ["..", "/etc", "encoders", "store.json/../x", "collections"],
        "encoders": ["..", ".", "m-query-000000000000", "m-query-000000000000/../../x"],
        "encoders/m-query-000000000000": ["..", "segments", "retired"],
        "encoders/m-query-000000000000/segments": [good, f"../{good}", f"{good}\n", f"/{good}"],
        "collections": ["../../x-000000000000.h5"],
    }

    def entries(folder):
        for name in tree[folder]:
            yield Entry(name, "file" if name.endswith(".h5") else "folder", 1)

    listing = list_store("there", entries)
    assert listing.files == {f"encoders/m-query-000000000000/segments/{good}": 1}
    assert listing.refused == {}


# URLs


@pytest.fixture
def bucket():
    """A URL of nothing yet, in memory."""
    yield "memory://bucket/store"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


class OtherDisk(LocalFileSystem):
    """A remote place without whole puts, as over SSH; it is a folder."""

    protocol = "otherdisk"
    local_file = False


@pytest.fixture
def disk(tmp_path):
    fsspec.register_implementation("otherdisk", OtherDisk, clobber=True)
    return f"otherdisk://{tmp_path}/remote/store"


@pytest.mark.parametrize("where", ["bucket", "disk", "folder", "file"])
def test_a_store_goes_to_a_url_and_comes_back(source, into, tmp_path, where, request):
    folders = {"folder": str(tmp_path / "f"), "file": f"file://{tmp_path}/f"}
    url = folders[where] if where in folders else request.getfixturevalue(where)
    report = push(source, url)
    assert report.kinds["segment"] == KindCounts(5, 0, 0, 0)
    assert push(source, url).files == []
    assert pull(url, into).kinds["segment"] == KindCounts(5, 0, 0, 0)
    assert rows_of(into) == rows_of(source)
    assert files_of(into).keys() == files_of(source).keys()
    assert pull(url, into).files == []
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_a_push_adds_to_the_folder_of_the_same_encoder(into, tmp_path, bucket):
    add_rows(tmp_path / "a", [(1,)], name="a", model="same")
    add_rows(tmp_path / "b", [(2,)], name="b", model="same")
    push(tmp_path / "a", bucket)
    assert push(tmp_path / "b", bucket).kinds["encoder"] == KindCounts(0, 1, 0, 0)
    pull(bucket, into)
    assert len(list((into / "encoders").iterdir())) == 1
    assert len(rows_of(into)) == 2


def test_a_damaged_segment_never_leaves(source, bucket):
    bad = segments_of(source)[0]
    damage(bad)
    with pytest.raises(RefusedError, match=str(bad)):
        push(source, bucket)
    names = [name for name in MemoryFileSystem.store if name.endswith(".h5")]
    assert not any(bad.name in name for name in names)
    assert len(names) == 5


@pytest.mark.parametrize("where", ["bucket", "disk"])
def test_a_push_that_lost_its_connection_goes_on(source, into, where, request, monkeypatch):
    url = request.getfixturevalue(where)
    file_system = MemoryFileSystem if where == "bucket" else OtherDisk
    real, left = file_system.put_file, [4]

    def put_file(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("connection reset by peer")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(file_system, "put_file", put_file)
    with pytest.raises(StoreError, match=r"store: writing .* failed: connection reset .* goes on"):
        push(source, url)
    with pytest.raises(StoreError, match="not a store"):
        pull(url, into)
    left[0] = 100
    report = push(source, url)
    assert report.kinds["segment"].copied + report.kinds["segment"].present == 5
    assert 0 < len(report.files) < 10
    pull(url, into)
    assert rows_of(into) == rows_of(source)


def test_a_put_that_arrives_cut_off_gets_no_name(source, disk, tmp_path, monkeypatch):
    def put_file(self, local, there, **_):
        Path(there).write_bytes(Path(local).read_bytes()[:-1])

    monkeypatch.setattr(OtherDisk, "put_file", put_file)
    with pytest.raises(StoreError, match="bytes there, but"):
        push(source, disk)
    assert [p for p in (tmp_path / "remote").rglob("*") if p.is_file()] == []


def test_a_truncated_segment_at_a_url_is_pushed_again(source, bucket):
    push(source, bucket)
    name = next(n for n in MemoryFileSystem.store if "/segments/" in n)
    fsspec.filesystem("memory").pipe_file(name, b"cut")
    assert len(push(source, bucket).files) == 1


def test_a_lost_connection_while_pulling_names_the_url(source, into, bucket, monkeypatch):
    push(source, bucket)

    def broken(self, path, *args, **kwargs):
        if "/segments/" in path:
            raise TimeoutError
        return real(self, path, *args, **kwargs)

    real = MemoryFileSystem._open
    monkeypatch.setattr(MemoryFileSystem, "_open", broken)
    with pytest.raises(StoreError, match=f"{bucket}: opening .* failed: TimeoutError"):
        pull(bucket, into)
    assert len(list((into / "collections").iterdir())) == 1
    monkeypatch.undo()
    assert pull(bucket, into).kinds["segment"] == KindCounts(5, 0, 0, 0)


def test_a_url_where_something_else_lies_is_left_alone(source, bucket):
    fsspec.filesystem("memory").pipe_file("/bucket/store/thesis.txt", b"mine")
    with pytest.raises(StoreError, match=r"holds other files \(thesis.txt"):
        push(source, bucket)
    assert list(MemoryFileSystem.store) == ["/bucket/store/thesis.txt"]


def test_a_url_that_holds_a_newer_store_is_left_alone(source, bucket):
    record = b'{"format": "era-store", "version": 2}'
    fsspec.filesystem("memory").pipe_file("/bucket/store/store.json", record)
    with pytest.raises(FormatError, match=f"{bucket}/store.json: format version 2"):
        push(source, bucket)
    assert list(MemoryFileSystem.store) == ["/bucket/store/store.json"]


def test_a_link_behind_a_url_is_refused(source, disk, into, tmp_path):
    push(source, disk)
    there = segments_of(tmp_path / "remote/store")[0]
    there.rename(tmp_path / "elsewhere")
    there.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="is a link, not a file"):
        pull(disk, into)
    assert len(segments_of(into)) == 4


def test_sizes_that_a_place_does_not_tell_cost_nothing(source, bucket, into, monkeypatch):
    push(source, bucket)
    real = RemotePlace.entries

    def entries(self, folder):
        yield from (entry._replace(size=-1) for entry in real(self, folder))

    monkeypatch.setattr(RemotePlace, "entries", entries)
    assert push(source, bucket).files == []
    assert pull(bucket, into).kinds["segment"].copied == 5
    assert pull(bucket, into).files == []


def test_several_threads_copy_as_one_does(source, bucket, into, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "async_impl", True)
    add_rows(source, [(number,) for number in range(20, 40)])
    damage(segments_of(source)[3])
    with pytest.raises(RefusedError, match="1 file refused"):
        push(source, bucket)
    assert pull(bucket, into).kinds["segment"] == KindCounts(24, 0, 0, 0)
    assert len(segments_of(into)) == 24


def test_several_threads_give_up_as_one_does(source, bucket, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "async_impl", True)
    add_rows(source, [(number,) for number in range(20, 60)])
    real, tried = MemoryFileSystem.put_file, []

    def put_file(self, local, there, **options):
        if "/segments/" not in there:
            return real(self, local, there, **options)
        tried.append(there)
        time.sleep(0.01)
        raise ConnectionError("reset")

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    with pytest.raises(StoreError, match="reset"):
        push(source, bucket)
    assert len(tried) < 20


def test_an_unknown_protocol_is_the_users_mistake(source):
    with pytest.raises(InputError, match="no-such://x: Protocol not known"):
        push(source, "no-such://x")


def test_a_missing_package_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match="pip install gcsfs"):
        push(source, "gs://bucket/x")


def test_a_url_in_the_place_of_a_folder_is_the_users_mistake(into):
    with pytest.raises(InputError, match="looks like a URL"):
        pull(str(into), Path("s3://bucket/store"))


def test_passwords_are_not_shown(tmp_path):
    fsspec.register_implementation("otherdisk", OtherDisk, clobber=True)
    assert "secret" not in RemotePlace("otherdisk://ann:secret@host/x").label


# S3


def test_a_store_on_s3_is_checked_when_it_comes_back(source, into, s3):
    files, url = s3
    assert push(source, url).kinds["segment"] == KindCounts(5, 0, 0, 0)
    assert push(source, url).files == []
    first, second, third, *_ = (f"{url[5:]}/{p.relative_to(source)}" for p in segments_of(source))
    files.rm_file(first)
    files.pipe_file(second, b"other bytes")
    files.pipe_file(third, bytes(files.info(third)["size"]))
    with pytest.raises(RefusedError, match="2 files refused") as caught:
        pull(url, into)
    assert {name.rpartition("/")[2] for name in caught.value.report.refused} == {
        Path(second).name,
        Path(third).name,
    }
    assert caught.value.report.kinds["segment"] == KindCounts(2, 0, 0, 2)
    with pytest.raises(RefusedError) as caught:
        pull(url, into)
    assert caught.value.report.files == []
    # Sizes tell what is missing or cut off; the owner removes what is damaged otherwise.
    files.rm_file(third)
    assert len(push(source, url).files) == 3
    assert pull(url, into).kinds["segment"] == KindCounts(3, 2, 0, 0)
    assert rows_of(into) == rows_of(source)


def test_a_push_to_s3_that_was_interrupted_goes_on(source, into, s3, monkeypatch):
    files, url = s3
    real, left = type(files)._put_file, [5]

    async def put_file(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError("reset")
        return await real(self, *args, **kwargs)

    monkeypatch.setattr(type(files), "_put_file", put_file)
    files.clear_instance_cache()  # an instance binds its methods when it is made
    with pytest.raises(StoreError, match=f"{url}: writing"):
        push(source, url)
    left[0] = 100
    report = push(source, url)
    assert sum(kind.present for kind in report.kinds.values()) == 5
    pull(url, into)
    assert rows_of(into) == rows_of(source)


def test_a_bucket_that_is_not_there_is_an_error_of_the_url(source, s3):
    with pytest.raises(StoreError, match="s3://nowhere/x: writing"):
        push(source, "s3://nowhere/x")


# Commands


def run(command, *args):
    return CliRunner().invoke(getattr(store_share, command), [str(arg) for arg in args])


def test_commands_print_counts_or_json(source, into):
    done = run("merge", into, source)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split() == ["kind", "copied", "there", "replaced", "refused"]
    assert "9 files" in done.stdout
    done = run("pull", source, into, "--json")
    value = json.loads(done.stdout)
    assert value["files"] == []
    assert value["kinds"]["segment"] == {"copied": 0, "present": 5, "replaced": 0, "refused": 0}


def test_a_dry_run_of_a_command_lists_files(source, into):
    done = run("push", source, into, "--dry-run")
    assert set(done.stdout.splitlines()) >= set(files_of(source))
    assert "would be copied" in done.stdout
    assert not into.exists()


def test_a_refused_file_gives_the_report_and_exit_code_1(source, into):
    damage(segments_of(source)[0])
    done = run("merge", into, source, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["kinds"]["segment"]["refused"] == 1
    assert str(segments_of(source)[0]) in done.stderr
    assert "Traceback" not in done.output


def test_a_known_error_has_no_traceback(into, tmp_path):
    done = run("pull", tmp_path / "nothing", into)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "not a store" in done.stderr
    assert run("merge", into).exit_code == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _keys, rows: rows.__setitem__((1, 0), np.inf), "not finite"),
        (lambda _keys, rows: rows.__setitem__(1, 0), "row of zeros"),
        (lambda keys, _rows: keys.__setitem__(1, keys[0]), "a key twice"),
    ],
)
def test_a_segment_whose_rows_are_wrong_is_refused_though_its_digest_is_right(
    tmp_path, change, reason
):
    spec = HashEncoder(3).spec
    theirs = Store.create(tmp_path / "theirs")
    encoder = theirs.add_encoder(spec, Role.DOCUMENT, 3)
    keys = row_keys(Role.DOCUMENT, ["a", "b"]).copy()
    rows = np.ones((2, 3), np.float32)
    change(keys, rows)
    path = SegmentWriter(encoder, {}).commit(keys, rows)
    with pytest.raises(RefusedError, match=reason) as caught:
        merge(tmp_path / "mine", [theirs.path])
    assert path.name in str(caught.value)
    assert Store.open(tmp_path / "mine").encoders()[0].segment_paths() == []
