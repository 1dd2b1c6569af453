"""A store in a bucket: the same rows as in a folder, whatever the way there does."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_stores import add_collection, add_rows, spec_of

from era_cache.collection.keys import row_keys
from era_cache.errors import EraError, FormatError, StoreError
from era_cache.store.bucket import blocks
from era_cache.store.bucket.blocks import KeptSegment
from era_cache.store.bucket.bucket_store import BucketStore
from era_cache.store.bucket.cache import Cache
from era_cache.store.compact import compact
from era_cache.store.open_store import create_store, find_store, open_store
from era_cache.store.segment import open_segment
from era_cache.store.store import Store
from era_cache.store.sync import pull, push
from era_cache.store.verify import verify
from era_cache.types import Role

DIM = 64
SPEC = spec_of()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / "cache"))
    # Real waits between attempts would make the tests slow, not better.
    monkeypatch.setattr("era_cache.store.bucket.connection._FIRST_WAIT", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    return tmp_path / "cache"


def kept_in(cache: Path) -> Path:
    """Where segments of the only store are kept."""
    (folder,) = (cache / "stores").iterdir()
    return folder / "segments"


def part_of(kept: Path) -> Path:
    """Where a segment lies of which some blocks are missing."""
    return kept.parent.parent / "partial" / kept.name


def partly_read(files, url: str, cache: Path) -> tuple[Path, int]:
    """Put many rows and read one: the file of the blocks that came, and the segment's size."""
    put(create_store(url), *range(30_000))
    (name,) = segments(files, url)
    kept = kept_in(cache) / Path(name).name
    kept.unlink()
    rows_of(url, 5)
    return part_of(kept), files.info(name)["size"]


def texts(*numbers: int) -> list[str]:
    return [f"text {number}" for number in numbers]


def vectors(*numbers: int) -> np.ndarray:
    """A recognisable row for each number, exact in half precision, and none all zero."""
    made = np.array(numbers, np.float32)[:, None] % 1000 + np.arange(DIM, dtype=np.float32) + 1
    return np.asarray(made, np.float32)


def put(store: Store, *numbers: int) -> int:
    return store.put(SPEC, Role.DOCUMENT, texts(*numbers), vectors(*numbers))


def rows_of(where: str | Store, *numbers: int) -> np.ndarray:
    store = open_store(where) if isinstance(where, str) else where
    keys = row_keys(Role.DOCUMENT, texts(*numbers))
    return np.asarray(store.vectors(SPEC.fingerprint(Role.DOCUMENT), keys))


def segments(files, url: str) -> list[str]:
    return sorted(name for name in files.find(url[5:]) if "/segments/" in name)


def test_rows_come_back_as_they_were_put_and_names_are_contents(s3, tmp_path) -> None:
    files, url = s3
    store = create_store(url)
    assert put(store, *range(50)) == 50
    assert put(store, *range(60)) == 10
    assert put(create_store(url), *range(60)) == 0
    np.testing.assert_array_equal(rows_of(url, 59, 3, 3, 0), vectors(59, 3, 3, 0))
    pull(url, tmp_path / "here")
    np.testing.assert_array_equal(rows_of(str(tmp_path / "here"), 7, 58), vectors(7, 58))
    kinds = {re.sub(r"[0-9a-f]{12,}", "#", name[len(url) - 5 :]) for name in files.find(url[5:])}
    assert kinds == {
        "/store.json",
        "/encoders/model-document-#/encoder.json",
        "/encoders/model-document-#/segments/#.h5",
    }


def test_what_is_asked_for_is_a_part_of_what_lies_there(way, cache) -> None:
    files, url, road = way
    many = range(30_000)
    put(create_store(url), *many)
    (name,) = segments(files, url)
    size = files.info(name)["size"]
    (kept_in(cache) / Path(name).name).unlink()
    road.bytes = 0
    np.testing.assert_array_equal(rows_of(url, 29_000, 5), vectors(29_000, 5))
    assert road.bytes < size / 2
    kept = kept_in(cache) / Path(name).name
    assert not kept.exists()
    assert part_of(kept).stat().st_size > size  # so that nobody takes it for the segment
    with pytest.raises(FormatError):
        open_segment(part_of(kept), SPEC.fingerprint(Role.DOCUMENT), DIM)
    np.testing.assert_array_equal(rows_of(url, *many), vectors(*many))
    assert kept.stat().st_size == size
    road.asked.clear()
    np.testing.assert_array_equal(rows_of(url, *many), vectors(*many))
    assert not [path for _, path in road.asked if "/segments/" in path and ".h5" in path]


def test_a_flipped_bit_in_the_bucket_is_damage_once_all_of_a_segment_came(s3, cache) -> None:
    files, url = s3
    put(create_store(url), *range(3000))
    (name,) = segments(files, url)
    (kept_in(cache) / Path(name).name).unlink()
    content = bytearray(files.cat_file(name))
    content[-5] ^= 1
    files.pipe_file(name, bytes(content))
    for _ in range(2):
        with pytest.raises(FormatError, match="SHA-256"):
            rows_of(url, *range(3000))
    assert not list(kept_in(cache).glob("*.h5"))
    files.rm_file(name)
    assert put(create_store(url), *range(3000)) == 3000
    np.testing.assert_array_equal(rows_of(url, *range(3000)), vectors(*range(3000)))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-700],
        lambda data: data + b"x",
        lambda data: bytes(len(data)),
        lambda _: b"?",
    ],
)
def test_an_object_that_is_no_segment_gives_an_error_and_no_row(s3, cache, change) -> None:
    files, url = s3
    put(create_store(url), *range(3000))
    (name,) = segments(files, url)
    (kept_in(cache) / Path(name).name).unlink()
    files.pipe_file(name, change(files.cat_file(name)))
    with pytest.raises(FormatError):
        rows_of(url, 1)


def test_blocks_of_another_run_of_the_system_do_not_count(s3, cache, monkeypatch) -> None:
    """After a crash of the machine a mark may be there whose block is not."""
    files, url = s3
    kept, size = partly_read(files, url, cache)
    # What a crash can leave: all marks, none of the blocks.
    tail = kept.read_bytes()[size:]
    marks = len(tail) - len(blocks._boot())
    kept.write_bytes(bytes(size) + b"\1" * marks + tail[marks:])
    monkeypatch.setattr(blocks, "_boot", lambda: b"another boot")
    np.testing.assert_array_equal(rows_of(url, 5, 29_999), vectors(5, 29_999))


def test_a_kept_file_of_the_right_size_proves_nothing(s3, cache) -> None:
    """A crash can cut a file off just where its segment ends."""
    files, url = s3
    kept, size = partly_read(files, url, cache)
    os.truncate(kept, size)
    np.testing.assert_array_equal(rows_of(url, 5, 29_999), vectors(5, 29_999))


@pytest.mark.parametrize("left", [0, 1, 1000, -1, -3])
def test_a_kept_file_that_was_cut_off_is_fetched_again(s3, cache, left) -> None:
    files, url = s3
    kept, _ = partly_read(files, url, cache)
    content = kept.read_bytes()
    kept.write_bytes(content[:left])
    np.testing.assert_array_equal(rows_of(url, 5, 29_999), vectors(5, 29_999))


def test_many_readers_share_one_incomplete_file(s3, cache) -> None:
    files, url = s3
    put(create_store(url), *range(60_000))
    (name,) = segments(files, url)
    for _ in range(3):
        (kept_in(cache) / Path(name).name).unlink()

        def read(seed: int) -> None:
            chosen = np.random.default_rng(seed).integers(0, 60_000, 200).tolist()
            np.testing.assert_array_equal(rows_of(url, *chosen), vectors(*chosen))
            if seed % 3 == 0:
                rows_of(url, *range(60_000))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(8)))
        assert (kept_in(cache) / Path(name).name).stat().st_size == files.info(name)["size"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("numbers", [range(0, 30_000, 7), range(200, 24_000)])
def test_a_file_replaced_between_asking_and_mapping_gives_no_wrong_rows(
    s3, cache, monkeypatch, numbers, dtype
) -> None:
    files, url = s3
    everyone = range(30_000)
    store = create_store(url)
    store.put(SPEC, Role.DOCUMENT, texts(*everyone), vectors(*everyone), dtype=dtype)
    (name,) = segments(files, url)
    kept = kept_in(cache) / Path(name).name
    kept.unlink()
    store, bring = open_store(url), KeptSegment.bring
    rows_of(store, 5)

    def brought_and_evicted(self, *about) -> None:
        bring(self, *about)
        for path in (kept, part_of(kept)):
            path.unlink(missing_ok=True)

    monkeypatch.setattr(KeptSegment, "bring", brought_and_evicted)
    np.testing.assert_array_equal(rows_of(store, *numbers), vectors(*numbers))


def test_a_mark_that_comes_late_does_not_undo_a_whole_file(s3, cache, monkeypatch) -> None:
    files, url = s3
    put(create_store(url), *range(30_000))
    (name,) = segments(files, url)
    kept, size = kept_in(cache) / Path(name).name, files.info(name)["size"]
    kept.unlink()
    write, others = blocks._write, []

    def late(descriptor, data, offset) -> None:
        if offset >= size and not others:
            others.append(threading.Thread(target=rows_of, args=(url, *range(30_000))))
            others[0].start()
            others[0].join(1.0)  # meanwhile it brings everything, and would cut the file down
        write(descriptor, data, offset)

    monkeypatch.setattr(blocks, "_write", late)
    store = open_store(url)
    rows_of(store, 5)
    others[0].join()
    assert kept.stat().st_size == size


def test_the_cache_is_bounded_and_what_was_used_last_stays(s3, cache, monkeypatch) -> None:
    _, url = s3
    store = create_store(url)
    put(store, *range(3000))
    put(store, *range(3000, 6000))
    kept = sorted(kept_in(cache).iterdir())
    assert len(kept) == 2
    for path in cache.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    os.utime(kept[0], (time.time() - 3600,) * 2)
    monkeypatch.setenv("ERA_CACHE_GB", str(kept[0].stat().st_size * 1.1e-9))
    open_store(url)
    assert list(kept_in(cache).iterdir()) == kept[:1]
    monkeypatch.setenv("ERA_CACHE_GB", "0")
    open_store(url)
    assert not list(kept_in(cache).iterdir())
    np.testing.assert_array_equal(rows_of(url, 1, 5999), vectors(1, 5999))
    # What was opened a moment ago is not taken away from its reader.
    open_store(url)
    assert [*kept_in(cache).iterdir(), *(kept_in(cache).parent / "partial").iterdir()]
    monkeypatch.setenv("ERA_CACHE_GB", "much")
    with pytest.raises(EraError, match="ERA_CACHE_GB"):
        open_store(url)


def test_views_go_with_their_programs_and_those_of_killed_ones_later(s3, cache) -> None:
    _, url = s3
    store = create_store(url)
    assert store.path.is_dir()
    put(store, 1)
    path = store.path
    del store
    assert not path.exists()
    left = cache / "views" / path.name.replace(f"-{os.getpid()}-", "-99999999-")
    left.mkdir()
    Cache.of_user("x").new_view()
    assert not left.exists()


def test_a_full_disk_serves_nothing_that_did_not_come(s3, cache, monkeypatch) -> None:
    files, url = s3
    put(create_store(url), *range(30_000))
    (name,) = segments(files, url)
    (kept_in(cache) / Path(name).name).unlink()
    real, left = os.pwrite, [2]

    def full(descriptor, data, offset):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match="No space left"):
        rows_of(url, *range(30_000))
    monkeypatch.setattr(os, "pwrite", real)
    np.testing.assert_array_equal(rows_of(url, *range(30_000)), vectors(*range(30_000)))


# Ways that fail


def test_a_way_that_fails_now_and_then_changes_nothing(way, cache, monkeypatch) -> None:
    _, url, road = way
    chance = random.Random(4)
    left = {"busy": 60, "cut": 40, "slow": 10}

    def fault(method: str, path: str) -> str | None:
        del method, path
        kind = chance.choice(["busy", "cut", "slow"])
        if chance.random() < 0.2 and left[kind]:
            left[kind] -= 1
            return kind
        return None

    road.fault = fault
    for number in range(6):
        put(create_store(url), *range(400 * number, 400 * (number + 1)))
        for path in kept_in(cache).iterdir():
            path.unlink()
        np.testing.assert_array_equal(
            rows_of(url, *range(0, 400 * (number + 1), 7)),
            vectors(*range(0, 400 * (number + 1), 7)),
        )
    assert min(left.values()) < 10


def test_a_way_that_is_down_is_an_error_that_says_so(way) -> None:
    _, url, road = way
    put(create_store(url), 1)
    road.fault = lambda _method, _path: "busy"
    with pytest.raises(StoreError, match=re.escape(url)):
        open_store(url)


def test_listings_that_lag_hide_nothing_from_who_wrote_it(way) -> None:
    _, url, road = way
    road.lag = 60.0
    assert find_store(url) is None
    store = BucketStore.made_at(url)
    put(store, *range(100))
    assert put(store, *range(120)) == 20
    np.testing.assert_array_equal(rows_of(store, 119, 4), vectors(119, 4))


def test_a_reader_finds_what_was_merged_though_listings_lag(way, cache) -> None:
    """It lists segments that are gone, and not the one that they became."""
    files, url, road = way
    store = create_store(url)
    for start in range(0, 300, 100):
        put(store, *range(start, start + 100))
    for path in kept_in(cache).iterdir():
        path.unlink()
    road.lag = 60.0
    rows_of(url, 1)  # these are the listings that stay
    compact(create_store(url))
    assert len(segments(files, url)) == 1
    road.asked.clear()
    for path in kept_in(cache).iterdir():
        path.unlink()
    np.testing.assert_array_equal(rows_of(url, 250, 1), vectors(250, 1))


def test_an_index_from_before_a_merge_goes_on_after_it(s3, cache) -> None:
    _, url = s3
    store = create_store(url)
    for start in range(0, 300, 100):
        put(store, *range(start, start + 100))
    reader = open_store(url)
    (encoder,) = reader.encoders()
    index = encoder.index()
    for path in kept_in(cache).iterdir():
        path.unlink()
    compact(create_store(url))
    for path in kept_in(cache).iterdir():
        path.unlink()
    keys = row_keys(Role.DOCUMENT, texts(250, 1))
    np.testing.assert_array_equal(encoder.half_vectors(keys, index), vectors(250, 1))
    np.testing.assert_array_equal(encoder.vectors(keys, index=index), vectors(250, 1))


# Writers


def test_small_additions_are_merged_and_nothing_is_lost(s3) -> None:
    files, url = s3
    for number in range(20):
        put(create_store(url), number)
    assert len(segments(files, url)) < 8
    np.testing.assert_array_equal(rows_of(url, *range(20)), vectors(*range(20)))


def test_writers_at_the_same_time_need_no_lock(s3) -> None:
    files, url = s3
    create_store(url)

    def write(number: int) -> None:
        for start in range(0, 60, 6):
            put(create_store(url), *(1000 * number + n for n in range(start, start + 6)), start)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    wanted = [1000 * number + n for number in range(4) for n in range(60)]
    np.testing.assert_array_equal(rows_of(url, *wanted), vectors(*wanted))
    compact(open_store(url))
    assert len(segments(files, url)) == 1
    np.testing.assert_array_equal(rows_of(url, *wanted), vectors(*wanted))


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
sys.path.insert(0, {here!r})
from test_bucket import SPEC, texts, vectors
from era_cache.store.open_store import create_store
from era_cache.collection.keys import row_keys
from era_cache.types import Role
store = create_store(sys.argv[1])
with store.writer(SPEC, Role.DOCUMENT, 64, dtype="float16") as writer:
    for start in range(0, 4000, 200):
        numbers = range(start, start + 200)
        writer.write(row_keys(Role.DOCUMENT, texts(*numbers)), vectors(*numbers))
        writer.flush()
        print(start + 200, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_committed(s3) -> None:
    _, url = s3
    here = Path(__file__).parent
    script = textwrap.dedent(_WRITER).format(tests=str(here.parent), here=str(here))
    chance = random.Random(1)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            told = int(running.stdout.readline() or 0)
            time.sleep(chance.random() * 0.4)
            running.send_signal(signal.SIGKILL)
            rest = running.stdout.read().split()
        told = int(rest[-1]) if rest else told
        assert told
        np.testing.assert_array_equal(rows_of(url, *range(told)), vectors(*range(told)))
    store = create_store(url)
    put(store, *range(4000))
    np.testing.assert_array_equal(rows_of(url, *range(4000)), vectors(*range(4000)))
    assert verify(store.whole()).ok


# The rest of a store


def test_collections_and_pairs_are_seen_by_everyone_and_kept_on_this_machine(
    way, tmp_path, toy, cache
) -> None:
    _, url, road = way
    folder = tmp_path / "here"
    add_rows(folder, [range(9)])
    add_collection(folder, toy)
    push(folder, url)
    store, local = open_store(url), Store.open(folder)
    assert store.collection_names() == ["toy"]
    found, known = store.collection("toy"), local.collection("toy")
    assert found.digest == known.digest
    assert list(found.doc_ids) == list(known.doc_ids)
    assert store.pairs(found) == local.pairs(known) != []
    assert store.conflict("toy") == local.conflict("toy")
    assert store.versions("toy") == local.versions("toy")
    road.asked.clear()
    assert open_store(url).collection("toy").digest == known.digest
    assert not [path for _, path in road.asked if "/collections/toy" in path]
    # Another version under the same name is another file.
    add_collection(folder, toy, name="second")
    push(folder, url)
    assert store.collection_names() == ["second", "toy"]


def test_verify_reads_all_of_a_bucket_and_finds_damage(s3) -> None:
    files, url = s3
    store = create_store(url)
    put(store, *range(100))
    assert verify(BucketStore.made_at(url).whole()).ok
    (name,) = segments(files, url)
    content = bytearray(files.cat_file(name))
    content[-1] ^= 1
    files.pipe_file(name, bytes(content))
    report = verify(BucketStore.made_at(url).whole())
    (found,) = report.of_level("damage")
    assert Path(name).name in found.path


def test_what_lies_at_a_url_and_is_no_store(s3, tmp_path) -> None:
    files, url = s3
    with pytest.raises(StoreError, match="not a store"):
        open_store(url)
    with pytest.raises(StoreError, match="not a store"):
        open_store("s3://nowhere-at-all/store")
    files.pipe_file(f"{url[5:]}/thesis.tex", b"x")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        create_store(url)
    with pytest.raises(EraError, match="gopher"):
        open_store("gopher://host/store")
    with pytest.raises(EraError, match="folder"):
        open_store(f"file://{tmp_path}")
    with pytest.raises(StoreError, match="era-store pull"):
        Store.open(url)


def test_a_bucket_cannot_lead_out_of_the_view(s3, cache) -> None:
    files, url = s3
    store = create_store(url)
    put(store, 1)
    root = url[5:]
    for name in (
        "collections/../../x-0123456789ab.h5",
        "pairs/..json",
        "encoders/../y/encoder.json",
    ):
        files.pipe_file(f"{root}/{name}", b"{}")
    files.pipe_file(f"{root}/pairs/{'0' * 12}-{'1' * 12}.json", b" " * (65 << 10))
    again = open_store(url)
    assert again.collection_names() == []
    assert len(again.encoders()) == 1
    with pytest.raises(FormatError, match="more than"):
        again.file(f"pairs/{'0' * 12}-{'1' * 12}.json")
    assert {path.name for path in cache.iterdir()} == {"stores", "views"}


def test_a_stranger_s_store_does_not_change_what_is_read_of_yours(s3, cache) -> None:
    """It has a segment of your segment's name and size, with other vectors."""
    files, url = s3
    put(create_store(url), *range(30_000))
    (name,) = segments(files, url)
    files.copy(url[5:], f"{url[5:]}-2", recursive=True)
    bad = bytearray(files.cat_file(name))
    bad[-3000:] = bytes(3000)
    files.pipe_file(name.replace("/store/", "/store-2/"), bytes(bad))
    shutil.rmtree(cache)
    hostile = rows_of(f"{url}-2", 1, 29_999)
    assert (hostile[1] != vectors(29_999)).any()  # its own affair, until all of it has come
    np.testing.assert_array_equal(rows_of(url, 1, 29_999), vectors(1, 29_999))
