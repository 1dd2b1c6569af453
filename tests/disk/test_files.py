"""Staged files are whole or absent, errors name the path, and temporaries do not pile up."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_cache.disk import files
from era_cache.disk.files import (
    os_errors,
    remove_stale_temporaries,
    safe_name,
    sha256_file,
    staged,
    write_bytes,
)
from era_cache.disk.hdf5 import open_plain
from era_cache.disk.json_files import canonical_json, json_digest, loads_json, read_json, write_json
from era_cache.disk.tensors import read_tensors
from era_cache.encode.model_files import hash_model
from era_cache.errors import EncoderError, FormatError, InputError, StoreError
from era_cache.store.exchange.blocks import require_file


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# JSON and digests


def test_canonical_json_sorts_keys_and_keeps_unicode_and_no_space():
    value = {"b": [1, 2.5, None, True], "a": {"ü": "\u4e2d", "A": ""}}
    expected = '{"a":{"A":"","ü":"\u4e2d"},"b":[1,2.5,null,true]}'
    assert canonical_json(value) == expected.encode()


def test_json_digest_is_the_sha256_of_the_canonical_form():
    assert json_digest({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()
    assert json_digest({"a": 2, "b": 1}) == json_digest({"b": 1, "a": 2})


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    other = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(other)
    assert json.loads(canonical_json(value)) == value


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "x") == expected


@pytest.mark.parametrize("data", [b"{", b"\xff\xff", "[" * 100_000, b""])
def test_what_is_not_json_is_a_format_error_that_names_it(data):
    with pytest.raises(FormatError, match="thing: not valid JSON"):
        loads_json(data, "thing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "f", "version": 3}, "format version 3, but this ERA Cache reads up to 2"),
        ({"format": "f", "version": 0}, "no valid format version"),
        ({"format": "f", "version": "1"}, "no valid format version"),
        ({"format": "f", "version": True}, "no valid format version"),
        ({"format": "f"}, "no valid format version"),
        ({"format": "g", "version": 1}, "not an f file"),
        ([], "not an f file"),
        ({"format": "f", "version": 1, "x": "y" * 1000}, r"1\d\d\d bytes, but at most 1000"),
    ],
)
def test_reading_our_json_checks_format_version_and_size(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=rf"x\.json: .*{message}"):
        read_json(path, "f", 2, limit=1000)


def test_reading_our_json_gives_older_versions_too(tmp_path):
    write_json(tmp_path / "x.json", {"format": "f", "version": 1, "name": "ü"})
    assert read_json(tmp_path / "x.json", "f", 2)["name"] == "ü"
    assert (tmp_path / "x.json").read_bytes().endswith('"name": "ü"\n}\n'.encode())


def test_reading_an_absent_file_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match=r"x\.json: reading failed: No such file.*Check the path"):
        read_json(tmp_path / "x.json", "f", 1)


# Staging


def test_a_committed_file_is_there_and_nothing_else(tmp_path):
    with staged(tmp_path, ".bin") as (temporary, commit):
        temporary.write_bytes(b"content")
        assert temporary.name.startswith(files.TEMPORARY_PREFIX)
        assert temporary.suffix == ".bin"
        assert commit("final.bin") == tmp_path / "final.bin"
    assert listing(tmp_path) == ["final.bin"]
    assert (tmp_path / "final.bin").read_bytes() == b"content"


def test_without_a_commit_nothing_remains(tmp_path):
    with staged(tmp_path) as (temporary, _):
        temporary.write_bytes(b"half")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_whole(tmp_path, error):
    write_bytes(tmp_path / "x", b"old")

    def interrupted():
        with staged(tmp_path) as (temporary, _):
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert listing(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EACCES, "Permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_a_disk_error_at_any_step_is_a_store_error(tmp_path, monkeypatch, call, number, advice):
    write_bytes(tmp_path / "x", b"old")

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, call) if call == "replace" else (os, call)), refuse)
        with pytest.raises(StoreError, match=advice) as caught:
            write_bytes(tmp_path / "x", b"new")
    assert str(caught.value).startswith(str(tmp_path))
    assert listing(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_data_are_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor):
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"
        steps.append(kind)
        fsync(descriptor)

    def spy_replace(self, target):
        steps.append("rename")
        return replace(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_bytes(tmp_path / "x", b"1")
    assert steps == ["file", "rename", "folder"]


def test_a_folder_that_cannot_be_synced_is_accepted(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def network(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EINVAL, "no fsync here")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", network)
    write_bytes(tmp_path / "x", b"1")
    assert len(calls) == 2
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_missing_folder_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match=r"It does not exist\. Check the path"):
        write_bytes(tmp_path / "no" / "x", b"1")


def test_other_errors_pass_through_unchanged(tmp_path):
    with pytest.raises(KeyError), os_errors("doing", tmp_path):
        raise KeyError("x")


def test_threads_that_write_one_name_leave_one_whole_file(tmp_path):
    contents = [bytes([n]) * 200_000 for n in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(tmp_path / "x", c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents
    assert listing(tmp_path) == ["x"]


def test_a_pointer_of_git_lfs_is_named_whatever_it_stands_for(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    for name, read in {
        "a.json": lambda path: read_json(path, "era-store", 1),
        "a.h5": lambda path: open_plain(path, "era-segment", 1),
        "a.safetensors": lambda path: read_tensors(path, set()),
    }.items():
        (tmp_path / name).write_bytes(pointer)
        with pytest.raises(FormatError, match=f"{name}: a pointer of Git LFS.* git lfs pull"):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.h5: a pointer of Git LFS"):
        require_file(tmp_path / "a.h5")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"a\.\w+: a pointer of Git LFS"):
        hash_model(tmp_path)


# Temporaries of dead writers


def test_only_temporaries_of_dead_or_day_old_writers_go(tmp_path, dead_pid):
    own = files.temporary_name(".h5")
    host = own[len(files.TEMPORARY_PREFIX) :].split("-")[0]
    dead = own.replace(f"-{os.getpid()}-", f"-{dead_pid}-")
    elsewhere = f".tmp-another{host}-{dead_pid}-abc.h5"
    old = ".tmp-another-1-abc.h5"
    strange = [".tmp-", ".tmp-x", f".tmp-{host}-²-abc", f".tmp-{host}-99999999999999999999-abc"]
    for name in (own, dead, elsewhere, old, "kept.h5", *strange):
        (tmp_path / name).write_bytes(b"x")
    day_ago = (tmp_path / old).stat().st_mtime - 25 * 3600
    os.utime(tmp_path / old, (day_ago, day_ago))
    assert remove_stale_temporaries(tmp_path) == 2
    assert listing(tmp_path) == sorted([own, elsewhere, "kept.h5", *strange])


# Names


@pytest.mark.parametrize("name", ["a", "toy-2", "A.b_c-9", "x" * 64, "_x"])
def test_names_that_any_system_can_store_are_accepted(name):
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "a/b", "a\\b", "a b", "ü", "x" * 65, "a\n", "a\0", "CON:"]
)
def test_names_that_are_unsafe_are_refused(name):
    with pytest.raises(InputError, match="cannot be used as a name"):
        safe_name(name)
