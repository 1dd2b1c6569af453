"""Kills, races, flipped bytes, full disks: short forms of ``python -m benchmarks.store``."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.store_child import LARGE, SMALL, seeds
from benchmarks.store_containers import INSIDE, namespaces_work
from benchmarks.store_flips import run_flips
from benchmarks.store_full import run_full
from benchmarks.store_kills import begin, run_kills, start_child, stop_all
from benchmarks.store_race import run_race
from benchmarks.store_rows import (
    PatternEncoder,
    RowLog,
    expected_rows,
    numbered_texts,
    read_log,
    wrong_rows,
)
from era_cache.collection.keys import row_keys
from era_cache.disk.files import TEMPORARY_PREFIX
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import StoreError
from era_cache.store.compact import compact
from era_cache.store.names import list_steadily
from era_cache.store.store import Store
from era_cache.store.verify import verify
from era_cache.types import Role


def embed(store, texts):
    large, small = PatternEncoder(LARGE), PatternEncoder(SMALL)
    embed_collection(store, texts, large=large, small=small, config=EmbedConfig())


def all_keys(texts):
    """What must be in a store in which ``texts`` were embedded, by fingerprint."""
    keys = row_keys(Role.DOCUMENT, texts.doc_texts), row_keys(Role.QUERY, texts.query_texts)
    large, small = PatternEncoder(LARGE).spec, PatternEncoder(SMALL).spec
    return {
        small.fingerprint(Role.DOCUMENT): keys[0],
        small.fingerprint(Role.QUERY): keys[1],
        large.fingerprint(Role.QUERY): keys[1],
    }


# The checker itself


def test_rows_differ_by_key_and_seed_and_are_exact_in_float16():
    keys = row_keys(Role.DOCUMENT, [str(number) for number in range(1000)])
    one, other = expected_rows(keys, 1), expected_rows(keys, 2)
    assert len(np.unique(one, axis=0)) == 1000
    assert (one != other).any(axis=1).all()
    np.testing.assert_array_equal(one.astype(np.float16).astype(np.float32), one)


def test_the_checker_notices_rows_that_are_missing_or_wrong(tmp_path):
    store, texts = Store.create(tmp_path / "store"), numbered_texts(0, 50)
    embed(store, texts)
    required = all_keys(texts)
    assert wrong_rows(store, seeds(), required) == {"rows": 110, "missing": 0, "wrong": 0}
    swapped = {fingerprint: LARGE + SMALL - seed for fingerprint, seed in seeds().items()}
    assert wrong_rows(store, swapped, required)["wrong"] == 110
    fingerprint = PatternEncoder(SMALL).spec.fingerprint(Role.DOCUMENT)
    (path,) = store.encoder(fingerprint).segment_paths()
    path.unlink()
    assert wrong_rows(store, seeds(), required)["missing"] == 50


def test_a_log_that_was_cut_off_gives_its_whole_entries(tmp_path):
    path = tmp_path / "log"
    log = RowLog(path)
    keys = row_keys(Role.QUERY, ["a", "b", "c"])
    log.add("ab" * 32, keys[:2])
    log.add("cd" * 32, keys[2:])
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        found = {name: np.concatenate(groups) for name, groups in read_log(path).items()}
        assert list(found) == (["ab" * 32] if size >= 72 else [])
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_log(path)["cd" * 32][0], keys[2:])


# Kills, races, flips


def test_no_committed_row_is_lost_by_a_kill_at_any_moment(tmp_path):
    tally = run_kills(tmp_path, 12, seed=5)
    assert tally["kills"] == 12
    assert tally["required"] > 1000
    bad = ("missing", "wrong", "not open", "damage", "left over")
    assert {what: tally[what] for what in bad} == dict.fromkeys(bad, 0)


def test_readers_keep_every_row_while_others_write_and_compact(tmp_path):
    found = run_race(tmp_path, 3, writers=("embed", "embed", "only_compact"), readers=1)
    assert found["errors"] == []
    assert (found["missing"], found["wrong"]) == (0, 0)
    assert found["committed"] > 1000
    assert found["rounds"] > 3


@pytest.mark.skipif(not namespaces_work(), reason="no process spaces")
def test_containers_whose_processes_have_equal_numbers_lose_nothing(tmp_path):
    writers = ("embed", "put", "only_compact", "only_clean")
    found = run_race(tmp_path, 3, writers=writers, readers=1, inside=INSIDE)
    assert found["errors"] == []
    assert (found["missing"], found["wrong"]) == (0, 0)
    assert found["committed"] > 500


def test_a_disk_that_is_full_somewhere_costs_what_was_being_written(tmp_path):
    found = run_full(tmp_path, 12)
    if found is None:
        pytest.skip("nothing can be mounted")
    assert found.pop("full") >= 3
    assert found.pop("went through") >= 3
    assert set(found.values()) == {0}


def test_two_runs_of_the_same_embedding_give_one_whole_store(tmp_path):
    options = {"store": str(tmp_path / "store"), "scratch": str(tmp_path), "first": 0, "steps": 2}
    children = [
        start_child("embed", {**options, "log": str(tmp_path / f"{n}.log"), "seed": 1})
        for n in range(2)
    ]
    for child in children:
        begin(child)
    results = stop_all(children)
    assert [result["steps"] for result in results] == [2, 2]
    store = Store.open(tmp_path / "store")
    required = all_keys(numbered_texts(0, 1300))
    queries = row_keys(Role.QUERY, [f"query {n}" for n in [*range(70), *range(600, 670)]])
    required = {f: queries if len(keys) == 130 else keys for f, keys in required.items()}
    found = wrong_rows(store, seeds(), required)
    assert (found["missing"], found["wrong"]) == (0, 0)
    assert verify(store).findings == []
    compact(store)
    assert verify(store).findings == []
    assert wrong_rows(store, seeds(), required)["missing"] == 0


def test_every_flipped_byte_is_found_and_none_is_served(tmp_path):
    assert run_flips(tmp_path, 60, seed=3) == (0, 0)


# Disks


FULL_DISK = """
import resource, sys
from benchmarks.store_rows import PatternEncoder, numbered_texts
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import StoreError
from era_cache.store.store import Store
path, limit, large, small = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
encoders = {"large": PatternEncoder(large), "small": PatternEncoder(small)}
config = EmbedConfig(dtype="float32")
try:
    embed_collection(Store.open(path), numbered_texts(0, 9000), **encoders, config=config)
except StoreError as error:
    sys.exit(f"StoreError: {error}")
"""


@pytest.mark.parametrize(
    ("limit", "part"),
    [(1000, "collections"), (200_000, "collections"), (350_000, "segments")],
)
def test_a_full_disk_is_one_clear_error_and_the_store_stays_whole(tmp_path, limit, part):
    store, texts = Store.create(tmp_path / "store"), numbered_texts(0, 300)
    embed(store, texts)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    arguments = [str(store.path), str(limit), str(LARGE), str(SMALL)]
    command = [sys.executable, "-c", FULL_DISK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("StoreError: ")
    assert part in done.stderr
    assert "File too large" in done.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert list(store.path.rglob(f"{TEMPORARY_PREFIX}*")) == []
    assert verify(store).ok
    assert wrong_rows(store, seeds(), all_keys(texts))["missing"] == 0
    embed(store, numbered_texts(0, 9000))
    found = wrong_rows(store, seeds(), all_keys(numbered_texts(0, 9000)))
    assert (found["missing"], found["wrong"]) == (0, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_can_be_read_and_verified_and_refuses_rows(tmp_path):
    store, texts = Store.create(tmp_path / "store"), numbered_texts(0, 50)
    embed(store, texts)
    folders = [store.path, *(path for path in store.path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert verify(store).ok
        assert wrong_rows(store, seeds(), all_keys(texts))["missing"] == 0
        with pytest.raises(StoreError, match="Permission denied"):
            embed(store, numbered_texts(100, 10))
    finally:
        for folder in folders:
            folder.chmod(0o700)
    embed(store, numbered_texts(100, 10))
    assert verify(store).ok


# Listing while others rename


def test_a_listing_that_changes_meanwhile_is_made_again():
    # "b" replaces "a" while the first listing is made, which sees neither.
    listings = [{"c": 1}, {"b": 2, "c": 1}, {"b": 2, "c": 1}]
    assert list_steadily(lambda: listings.pop(0)) == {"b": 2, "c": 1}
    assert listings == []


def test_under_constant_change_a_listing_has_too_many_names_rather_than_too_few():
    numbers = iter(range(100))

    def changing():
        number = next(numbers)
        return {"steady": 0, f"{number}": number}

    found = list_steadily(changing)
    assert len(found) == 3
    assert "steady" in found
    assert next(numbers) < 50
