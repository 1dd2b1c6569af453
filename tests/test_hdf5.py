"""HDF5 files: plain ones come back, and everything else that HDF5 can do is refused."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_cache.errors import FormatError, StoreError
from era_cache.hdf5 import inspect, open_plain, write_plain

ATTRIBUTES = {"format": "test", "version": 1}


def plain(folder: Path, **arrays) -> Path:
    path = folder / "plain.h5"
    write_plain(path, arrays or {"a": np.arange(6, dtype="f4").reshape(2, 3)}, ATTRIBUTES)
    return path


def hostile(folder: Path, fill) -> Path:
    path = folder / "hostile.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = np.bytes_(b"test")
        file.attrs["version"] = np.int64(1)
        fill(file)
    return path


# What is written comes back


@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4"])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (0,), (0, 16)])
def test_arrays_come_back_with_dtype_and_shape(tmp_path, dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    back = open_plain(plain(tmp_path, x=array, y=array[::-1]), "test", 1)
    assert set(back.slots) == {"x", "y"}
    for name, expected in (("x", array), ("y", array[::-1])):
        found = back.array(name)
        assert (found.dtype, found.shape) == (array.dtype, shape)
        np.testing.assert_array_equal(found, expected)


def test_a_transposed_array_comes_back_as_it_looked(tmp_path):
    array = np.arange(6, dtype="f4").reshape(2, 3).T
    np.testing.assert_array_equal(inspect(plain(tmp_path, x=array)).array("x"), array)


def test_attributes_come_back(tmp_path):
    path = tmp_path / "a.h5"
    attributes = {"text": "größer \u4e2d", "long": "x" * 59_000, "number": -(2**63), "one": 1}
    write_plain(path, {"a": np.zeros(1)}, attributes)
    assert inspect(path).attributes == attributes


def test_a_mapped_array_is_read_only(tmp_path):
    array = inspect(plain(tmp_path)).array("a")
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_file_that_goes_after_the_check_is_a_store_error(tmp_path):
    path = plain(tmp_path)
    checked = inspect(path)
    path.unlink()
    with pytest.raises(StoreError, match="mapping failed"):
        checked.array("a")
    with pytest.raises(StoreError, match="opening failed"):
        inspect(path)


# Versions and formats


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"format": "test", "version": 2}, "format version 2, but this ERA Cache reads up to 1"),
        ({"format": "test", "version": 0}, "no valid format version"),
        ({"format": "test", "version": "1"}, "no valid format version"),
        ({"format": "test"}, "no valid format version"),
        ({"format": "other", "version": 1}, "not an test file"),
        ({"version": 1}, "not an test file"),
    ],
)
def test_another_format_or_version_is_refused(tmp_path, attributes, message):
    path = tmp_path / "a.h5"
    write_plain(path, {"a": np.zeros(1)}, attributes)
    with pytest.raises(FormatError, match=message):
        open_plain(path, "test", 1)


# Hostile files


def external_link(file):
    file["a"] = h5py.ExternalLink("other.h5", "/a")


def soft_link(file):
    file.create_dataset("b", data=np.zeros(1))
    file["a"] = h5py.SoftLink("/b")


def virtual(file):
    layout = h5py.VirtualLayout(shape=(2,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", shape=(2,))
    file.create_virtual_dataset("a", layout)


def external_storage(file):
    file.create_dataset("a", (16,), "u1", external=[("secret.bin", 0, 16)])


def deep(file):
    file.create_dataset("a", data=np.zeros((1, 1, 1)))


def big_attribute(file):
    file.create_dataset("a", data=np.zeros(1))
    file.attrs["big"] = np.bytes_(b"x" * 60_001)


def vlen_attribute(file):
    file.attrs["note"] = "a string of variable length"


def array_attribute(file):
    file.attrs["list"] = np.zeros(3, np.int64)


def empty_attribute(file):
    file.attrs["none"] = h5py.Empty("f4")


def float_attribute(file):
    file.attrs["x"] = 1.5


def bad_utf8_attribute(file):
    file.attrs["x"] = np.bytes_(b"\xff\xfe")


def many_attributes(file):
    for number in range(40):
        file.attrs[f"a{number}"] = np.int64(1)


def many_members(file):
    for number in range(40):
        file.create_dataset(f"d{number}", data=np.zeros(1))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external_link, "links are refused"),
        (soft_link, "links are refused"),
        (virtual, "not stored in one piece"),
        (external_storage, "not stored in one piece"),
        (lambda f: f.create_dataset("a", data=np.zeros(99), compression="gzip"), "one piece"),
        (lambda f: f.create_dataset("a", data=np.zeros(99), chunks=(9,)), "one piece"),
        (lambda f: f.create_dataset("a", data=np.zeros(9), shuffle=True), "one piece"),
        (lambda f: f.create_dataset("a", (2,), h5py.string_dtype()), "dtype object"),
        (lambda f: f.create_dataset("a", (2,), h5py.ref_dtype), "dtype object"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, [("x", "f4")])), "dtype"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, "c8")), "dtype"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, "S3")), "dtype"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, ">f4")), "dtype >f4"),
        (lambda f: f.create_dataset("a", (10**9, 10**9), "f4"), "claims 4000000000000000000 bytes"),
        (lambda f: f.create_dataset("a", (2**33, 2**33), "f4"), "claims|damaged"),
        (lambda f: f.create_dataset("a", data=h5py.Empty("f4")), "shape None"),
        (lambda f: f.create_group("a"), "not a dataset"),
        (lambda f: f.__setitem__("a", np.dtype("f4")), "not a dataset"),
        (lambda f: f.__setitem__("a", f["/"]), "not a dataset"),
        (deep, r"shape \(1, 1, 1\)"),
        (big_attribute, "attribute 'big' is not a small scalar"),
        (vlen_attribute, "attribute 'note' has dtype object"),
        (array_attribute, "attribute 'list' is not a small scalar"),
        (empty_attribute, "attribute 'none' is not a small scalar"),
        (float_attribute, "attribute 'x' has dtype float64"),
        (bad_utf8_attribute, "damaged"),
        (many_attributes, "attributes, more than"),
        (many_members, "40 members, more than"),
    ],
)
def test_what_no_format_here_uses_is_refused(tmp_path, fill, message):
    (tmp_path / "secret.bin").write_bytes(b"0123456789abcdef")
    (tmp_path / "other.h5").write_bytes(plain(tmp_path).read_bytes())
    with pytest.raises(FormatError, match=message):
        open_plain(hostile(tmp_path, fill), "test", 1)


def test_a_compressed_bomb_is_refused_without_being_read(tmp_path):
    def bomb(file):
        file.create_dataset("a", (1 << 40,), "u1", chunks=(1 << 20,), compression="gzip")

    path = hostile(tmp_path, bomb)
    assert path.stat().st_size < 100_000
    with pytest.raises(FormatError, match="one piece"):
        inspect(path)


def test_data_that_was_never_written_is_refused(tmp_path):
    path = hostile(tmp_path, lambda file: file.create_dataset("a", (4,), "f4"))
    with pytest.raises(FormatError, match="claims 16 bytes at 0"):
        inspect(path)


def test_every_truncation_is_refused_or_reads_what_was_written(tmp_path):
    path = plain(tmp_path)
    content, expected = path.read_bytes(), np.arange(6, dtype="f4").reshape(2, 3)
    refused = 0
    for size in range(0, len(content), 17):
        path.write_bytes(content[:size])
        try:
            np.testing.assert_array_equal(inspect(path).array("a"), expected)
        except FormatError:
            refused += 1
    assert refused == len(range(0, len(content), 17))


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF", b"PK\x03\x04 a zip file", b"\x89HDF\r\n\x1a\n", b"\0" * 4096]
)
def test_a_file_that_is_not_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.h5: (not an HDF5 file|damaged)"):
        inspect(path)


def test_a_user_block_before_the_data_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("a", data=np.zeros(1))
    with pytest.raises(FormatError, match="not an HDF5 file"):
        inspect(path)


def test_a_folder_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="It is a folder, but a file is needed"):
        inspect(tmp_path)


BASE: dict[str, bytes] = {}


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_random_damage_gives_an_answer_within_the_file_or_a_format_error(position, garbage):
    path = Path(os.environ["PYTEST_DAMAGE_FOLDER"]) / "x.h5"
    if not BASE:
        write_plain(path, {"a": np.arange(6, dtype="f4")}, ATTRIBUTES)
        BASE["content"] = path.read_bytes()
    content = bytearray(BASE["content"])
    position %= len(content)
    content[position : position + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        checked = open_plain(path, "test", 1)
    except FormatError:
        return
    for name, slot in checked.slots.items():
        assert slot.offset + slot.nbytes <= len(content)
        assert checked.array(name).nbytes == slot.nbytes


@pytest.fixture(autouse=True, scope="module")
def _damage_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DAMAGE_FOLDER", str(tmp_path_factory.mktemp("damage")))
        yield


@pytest.mark.parametrize("path", ["/dev/full", "missing/folder.h5"])
def test_a_write_that_fails_is_an_os_error_with_the_systems_number(tmp_path, path):
    if path == "missing/folder.h5":
        with pytest.raises(OSError, match="No such file") as caught:
            write_plain(tmp_path / path, {"a": np.zeros(1)}, ATTRIBUTES)
        assert caught.value.errno == 2
        return
    if not Path(path).exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match=r"No space left|Input/output"):
        write_plain(Path(path), {"a": np.zeros(1)}, ATTRIBUTES)
