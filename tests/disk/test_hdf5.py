"""HDF5 files: plain ones come back, and everything else that HDF5 can do is refused.

What only crafted bytes can do is in ``test_hdf5_parse``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_cache.disk.hdf5 import inspect, open_plain, plain_writer, write_plain
from era_cache.errors import FormatError, StoreError

ATTRIBUTES = {"format": "test", "version": 1}


def plain(folder: Path, **arrays) -> Path:
    path = folder / "plain.h5"
    write_plain(path, arrays or {"a": np.arange(6, dtype="f4").reshape(2, 3)}, ATTRIBUTES)
    return path


def hostile(folder: Path, fill) -> Path:
    path = folder / "hostile.h5"
    with h5py.File(path, "w", libver="v110") as file:
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


def test_an_array_of_one_byte_comes_back(tmp_path):
    assert inspect(plain(tmp_path, x=np.array([7], "u1"))).array("x").tolist() == [7]


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
    with pytest.raises(StoreError, match="opening failed"):
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


def small_attribute(file):
    file.attrs["x"] = np.int32(1)


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


def many_empty_members(file):
    for number in range(33):
        file.create_dataset(f"{number}", (0,), "f4")


def nine_attributes(file):
    for number in range(7):
        file.attrs[f"a{number}"] = np.int64(1)


def dataset_attribute(file):
    file.create_dataset("a", data=np.zeros(1)).attrs["x"] = np.int64(1)


def old_fill_value(file):
    file.create_dataset("a", data=np.zeros(1), fillvalue=1.5)


def same_data_twice(file):
    file.create_dataset("a", data=np.zeros(1))
    file["b"] = file["a"]


def odd_name(file):
    file.create_dataset("\x1b[31m", data=np.zeros(1))


def growing(file):
    file.create_dataset("a", (2,), "f4", maxshape=(9,), chunks=(2,))


def tracked(file):
    file.create_dataset("a", data=np.zeros(1), track_times=True, track_order=True)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external_link, "links are refused"),
        (soft_link, "links are refused"),
        (virtual, r"not stored in one piece inside the file \(virtual"),
        (external_storage, "'a' has data in other files"),
        (lambda f: f.create_dataset("a", data=np.zeros(99), compression="gzip"), "has filters"),
        (lambda f: f.create_dataset("a", data=np.zeros(99), chunks=(9,)), r"one piece .*chunked"),
        (lambda f: f.create_dataset("a", data=np.zeros(9), shuffle=True), "has filters"),
        (lambda f: f.create_dataset("a", (2,), h5py.string_dtype()), "'a' has a type"),
        (lambda f: f.create_dataset("a", (2,), h5py.ref_dtype), "'a' has a type"),
        (lambda f: f.create_dataset("a", (2,), h5py.vlen_dtype("f4")), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, [("x", "f4")])), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, "c8")), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, "S3")), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, "V8")), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, bool)), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, ">f4")), "'a' has a type"),
        (lambda f: f.create_dataset("a", data=np.zeros(2, ">i2")), "'a' has a type"),
        (lambda f: f.create_dataset("a", (10**9, 10**9), "f4"), "claims 4000000000000000000 bytes"),
        (lambda f: f.create_dataset("a", (2**33, 2**33), "f4"), "claims|but .* bytes"),
        (lambda f: f.create_dataset("a", (0, 2**41), "f4"), "claims the shape"),
        (lambda f: f.create_dataset("a", data=h5py.Empty("f4")), "0 dimensions"),
        (lambda f: f.create_dataset("a", data=np.float32(1)), "0 dimensions"),
        (lambda f: f.create_group("a"), "not a dataset"),
        (lambda f: f.create_group("a").create_group("b"), "not a dataset"),
        (lambda f: f.__setitem__("a", np.dtype("f4")), "not a dataset"),
        (lambda f: f.__setitem__("a", f["/"]), "several links to one object"),
        (same_data_twice, "several links to one object"),
        (odd_name, "has the name b'.x1b"),
        (growing, "one piece|could grow"),
        (tracked, "no object header of a known form|message of type"),
        (dataset_attribute, "'a' has a message of type"),
        (deep, "3 dimensions"),
        (big_attribute, "attribute 'big' has 60001 bytes"),
        (vlen_attribute, "attribute 'note' is neither"),
        (array_attribute, "attribute 'list' is not a scalar"),
        (empty_attribute, "attribute 'none' is not a scalar"),
        (float_attribute, "attribute 'x' is neither"),
        (small_attribute, "attribute 'x' is neither"),
        (bad_utf8_attribute, "attribute 'x' is not UTF-8"),
        (many_attributes, "attributes are stored outside"),
        (nine_attributes, "attributes are stored outside"),
        (many_members, "heap of links has an unknown form"),
        (many_empty_members, "33 members; at most 32"),
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
    with pytest.raises(FormatError, match="has filters"):
        inspect(path)


@pytest.mark.parametrize("libver", ["earliest", "v108", ("earliest", "v108")])
def test_an_older_form_of_hdf5_is_refused(tmp_path, libver):
    path = tmp_path / "old.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["format"] = np.bytes_(b"test")
        file.create_dataset("a", data=np.zeros(3))
    with pytest.raises(FormatError, match=r"superblock version 0[02]"):
        inspect(path)


def test_a_fill_value_does_no_harm(tmp_path):
    path = hostile(tmp_path, old_fill_value)
    np.testing.assert_array_equal(inspect(path).array("a"), [0])


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


def test_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "link.h5").symlink_to(plain(tmp_path))
    with pytest.raises(FormatError, match=r"link\.h5: a symbolic link; links are refused"):
        inspect(tmp_path / "link.h5")
    checked = inspect(tmp_path / "plain.h5")
    (tmp_path / "plain.h5").rename(tmp_path / "moved.h5")
    (tmp_path / "plain.h5").symlink_to(tmp_path / "moved.h5")
    with pytest.raises(FormatError, match="a symbolic link"):
        checked.array("a")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.h5")
    for path in (tmp_path / "x.h5", Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(FormatError, match="not a regular file"):
            inspect(path)


def test_an_absent_file_says_so_by_its_cause(tmp_path):
    # The store looks again where another process has merged a segment away.
    with pytest.raises(StoreError, match=r"absent\.h5: opening failed") as caught:
        inspect(tmp_path / "absent.h5")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_reading_needs_no_hdf5_library(tmp_path):
    code = (
        "import sys; from pathlib import Path; from era_cache.disk.hdf5 import inspect; "
        "assert inspect(Path(sys.argv[1])).array('a').sum() == 15; assert 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, plain(tmp_path)], check=True)


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


# Reading rows


def rows_file(folder: Path, count: int = 100, dim: int = 3) -> tuple[Path, np.ndarray]:
    rows = np.arange(count * dim, dtype="f4").reshape(count, dim)
    return plain(folder, rows=rows, numbers=np.arange(count)), rows


@pytest.mark.parametrize(
    ("start", "count"), [(0, 100), (0, 1), (99, 1), (17, 30), (50, 0), (100, 0)]
)
def test_rows_are_read_into_an_array(tmp_path, start, count):
    path, rows = rows_file(tmp_path)
    out = np.full((count, 3), -1, "f4")
    inspect(path).read_rows("rows", start, out)
    np.testing.assert_array_equal(out, rows[start : start + count])
    with inspect(path).opened() as reader:
        reader.read("rows", start, out[::1])
        numbers = np.zeros(count, np.int64)
        reader.read("numbers", start, numbers)
    assert numbers.tolist() == list(range(start, start + count))


@pytest.mark.parametrize(
    ("start", "out", "message"),
    [
        (0, np.zeros((1, 3), "f8"), "'rows' has dtype float32"),
        (0, np.zeros((1, 2), "f4"), r"given are float32 and \(1, 2\)"),
        (0, np.zeros(3, "f4"), "given are"),
        (0, np.zeros((), "f4"), "given are"),
        (0, np.zeros((1, 3), ">f4"), "given are"),
        (-1, np.zeros((1, 3), "f4"), "'rows' has 100 rows, not -1 to 0"),
        (99, np.zeros((2, 3), "f4"), "has 100 rows, not 99 to 101"),
        (101, np.zeros((0, 3), "f4"), "has 100 rows"),
        (0, np.zeros((4, 3), "f4")[::2], "not contiguous"),
        (0, np.zeros((3, 2), "f4").T, r"given are|not contiguous"),
        (0, np.zeros((3, 3), "f4").T, "not contiguous"),
        (0, np.broadcast_to(np.zeros((1, 3), "f4"), (1, 3)), "read-only"),
    ],
)
def test_an_array_that_does_not_fit_is_a_programming_mistake(tmp_path, start, out, message):
    path, _ = rows_file(tmp_path)
    with pytest.raises(ValueError, match=message):
        inspect(path).read_rows("rows", start, out)


def test_threads_read_through_one_descriptor(tmp_path):
    path, rows = rows_file(tmp_path, count=20_000)
    out = np.zeros_like(rows)
    with inspect(path).opened() as reader:

        def read(part: int) -> None:
            for start in range(part * 100, len(rows), 400):
                reader.read("rows", start, out[start : start + 100])

        threads = [threading.Thread(target=read, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(out, rows)


def test_short_reads_and_writes_are_continued(tmp_path, monkeypatch):
    read, write = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: read(fd, [parts[0][:7]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:5], at))
    path, rows = rows_file(tmp_path)
    out = np.zeros_like(rows)
    inspect(path).read_rows("rows", 0, out)
    np.testing.assert_array_equal(out, rows)


def test_an_open_file_outlives_its_name_but_not_a_cut(tmp_path):
    path, rows = rows_file(tmp_path)
    out = np.zeros_like(rows)
    with inspect(path).opened() as reader:
        moved = path.rename(tmp_path / "moved.h5")
        reader.read("rows", 0, out)
        np.testing.assert_array_equal(out, rows)
        os.truncate(moved, 3000)
        with pytest.raises(
            StoreError, match=r"plain\.h5: reading failed: it was cut off meanwhile"
        ):
            reader.read("numbers", 0, np.zeros(100, np.int64))
        with pytest.raises(
            StoreError, match=r"plain\.h5: mapping failed: it was cut off meanwhile"
        ):
            reader.array("numbers")


def test_a_file_that_changed_after_the_check_is_a_store_error(tmp_path):
    path, rows = rows_file(tmp_path)
    checked = inspect(path)
    os.truncate(path, 3000)
    for use in (lambda: checked.array("rows"), lambda: checked.read_rows("rows", 0, rows.copy())):
        with pytest.raises(StoreError, match="has 3000 bytes, but had"):
            use()
    path.unlink()
    with pytest.raises(StoreError, match="opening failed") as caught:
        checked.read_rows("rows", 0, rows.copy())
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_reader_whose_block_has_ended_reads_nothing(tmp_path):
    path, rows = rows_file(tmp_path)
    with inspect(path).opened() as reader:
        pass
    with path.open("rb"):
        with pytest.raises(StoreError, match=r"plain\.h5: reading failed: Bad file descriptor"):
            reader.read("rows", 0, rows.copy())
        with pytest.raises(StoreError, match=r"plain\.h5: mapping failed: Bad file descriptor"):
            reader.array("rows")


def test_an_error_of_the_readers_block_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="elsewhere"), inspect(plain(tmp_path)).opened():
        raise OSError(errno.EIO, "elsewhere")


def test_private_pages_can_be_written_and_leave_the_file(tmp_path):
    path, rows = rows_file(tmp_path)
    before = path.read_bytes()
    with inspect(path).opened() as reader:
        mapped = reader.array("rows", mode="c")
    mapped *= 2
    np.testing.assert_array_equal(mapped, rows * 2)
    assert path.read_bytes() == before


# Files whose bytes come from elsewhere


class Elsewhere:
    """An origin: a file of zeros, into which ranges of the true content come when asked for."""

    def __init__(self, path: Path, here: Path) -> None:
        self._content, self._here = path.read_bytes(), here
        here.write_bytes(bytes(len(self._content)))
        self.asked: list[list[tuple[int, int]]] = []

    @contextlib.contextmanager
    def opened(self):
        with self._here.open("r+b") as file:
            yield file.fileno(), len(self._content)

    def bring(self, descriptor, starts, ends):
        ranges = list(zip(starts.tolist(), ends.tolist(), strict=True))
        assert all(0 <= start < end <= len(self._content) for start, end in ranges)
        self.asked.append(ranges)
        for start, end in ranges:
            os.pwrite(descriptor, self._content[start:end], start)


@pytest.fixture
def elsewhere(tmp_path):
    """A checked file that is elsewhere, its origin, and its rows."""
    path, rows = rows_file(tmp_path)
    origin = Elsewhere(path, tmp_path / "here")
    checked = open_plain(path, "test", 1, origin)
    path.unlink()
    origin.asked.clear()
    return checked, origin, rows + 0


@pytest.mark.parametrize(("start", "count"), [(0, 100), (17, 5), (99, 1), (40, 0)])
def test_rows_that_are_read_are_brought_and_no_others(elsewhere, start, count):
    checked, origin, rows = elsewhere
    out = np.full((count, 3), -1, "f4")
    checked.read_rows("rows", start, out)
    np.testing.assert_array_equal(out, rows[start : start + count])
    begin = checked.slots["rows"].offset + start * 12
    assert origin.asked == ([[(begin, begin + count * 12)]] if count else [])


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        ([3], [(3, 4)]),
        ([0, 1, 2, 5, 6, 99], [(0, 3), (5, 7), (99, 100)]),
        ([4, 4, 5, 7, 7, 9], [(4, 6), (7, 8), (9, 10)]),
        (range(100), [(0, 100)]),
    ],
)
def test_a_map_has_the_rows_that_were_asked_for_in_one_request(elsewhere, wanted, runs):
    checked, origin, rows = elsewhere
    wanted = np.array(wanted)
    with checked.opened() as reader:
        mapped = reader.array("rows", rows=wanted)
        np.testing.assert_array_equal(mapped[wanted], rows[wanted])
    begin = checked.slots["rows"].offset
    assert origin.asked == [[(begin + 12 * first, begin + 12 * last) for first, last in runs]]
    others = np.setdiff1d(np.arange(100), wanted)
    assert not mapped[others].any()


def test_without_rows_a_map_is_whole_and_nothing_is_brought_for_no_rows(elsewhere):
    checked, origin, rows = elsewhere
    with checked.opened() as reader:
        reader.bring("rows", np.zeros(0, np.int64))
        assert origin.asked == []
        np.testing.assert_array_equal(reader.array("rows"), rows)
        np.testing.assert_array_equal(checked.array("numbers"), np.arange(100))
    slots = checked.slots.values()
    expected = sorted((slot.offset, slot.offset + slot.nbytes) for slot in slots)
    assert sorted(one for ranges in origin.asked for one in ranges) == expected


def test_a_whole_file_is_brought_at_once(elsewhere):
    checked, origin, rows = elsewhere
    with checked.opened() as reader:
        reader.bring_all()
        assert origin.asked == [[(0, checked.size)]]
        reader.bring("rows")
        np.testing.assert_array_equal(reader.array("rows"), rows)


def test_a_file_that_is_here_is_asked_of_nobody(tmp_path):
    path, rows = rows_file(tmp_path)
    with inspect(path).opened() as reader:
        reader.bring_all()
        reader.bring("rows")
        np.testing.assert_array_equal(reader.array("rows", rows=np.array([2])), rows)


# Writing rows


def test_rows_are_written_in_any_order_and_grouping(tmp_path):
    path, rows = tmp_path / "rows.h5", np.arange(30, dtype="f2").reshape(10, 3)
    layout = {"rows": (np.dtype("f2"), (10, 3)), "none": (np.dtype("u1"), (0, 16))}
    with plain_writer(path, layout, ATTRIBUTES) as writer:
        for start, stop in ((4, 7), (7, 9), (0, 4), (4, 4), (9, 10)):
            writer.write("rows", start, rows[start:stop])
    back = open_plain(path, "test", 1)
    np.testing.assert_array_equal(back.array("rows"), rows)
    assert back.array("none").shape == (0, 16)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["rows"][...], rows)
        assert file["none"].shape == (0, 16)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "row 0 of 10 was not written"),
        ([(0, 9)], "row 9 of 10 was not written"),
        ([(1, 10)], "row 0 of 10 was not written"),
        ([(0, 4), (5, 10)], "row 4 of 10 was not written"),
        ([(0, 10), (3, 4)], "row 3 of 10 was written twice"),
        ([(0, 10), (0, 10)], "row 0 of 10 was written twice"),
        # As many rows as there are, all the same.
        ([(0, 5), (4, 9)], "row 4 of 10 was written twice"),
        ([(2, 10), (2, 4)], "row 0 of 10 was not written"),
    ],
)
def test_each_row_is_written_exactly_once(tmp_path, parts, message):
    def write():
        with plain_writer(tmp_path / "x.h5", {"a": (np.dtype("f4"), (10,))}, {}) as writer:
            for start, stop in parts:
                writer.write("a", start, np.zeros(stop - start, "f4"))

    with pytest.raises(ValueError, match=message):
        write()


def test_an_error_of_the_writers_block_is_not_covered_by_missing_rows(tmp_path):
    with (
        pytest.raises(KeyError, match="mine"),
        plain_writer(tmp_path / "x.h5", {"a": (np.dtype("f4"), (10,))}, {}) as writer,
    ):
        raise KeyError("mine")
    # The next file opened takes the descriptor's number.
    with (
        (tmp_path / "other").open("wb"),
        pytest.raises(OSError, match="Bad file descriptor"),
    ):
        writer.write("a", 0, np.zeros(1, "f4"))


@pytest.mark.parametrize(
    ("start", "block"),
    [
        (0, np.zeros((1, 3), "f8")),
        (0, np.zeros((1, 2), "f4")),
        (0, np.zeros(3, "f4")),
        (-1, np.zeros((1, 3), "f4")),
        (10, np.zeros((1, 3), "f4")),
        (0, np.zeros((11, 3), "f4")),
    ],
)
def test_a_block_that_does_not_fit_writes_nothing(tmp_path, start, block):
    path = tmp_path / "x.h5"
    with plain_writer(path, {"a": (np.dtype("f4"), (10, 3))}, {}) as writer:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"'a' has"):
            writer.write("a", start, block)
        assert path.read_bytes() == before
        writer.write("a", 0, np.ones((10, 3), "f4"))


@pytest.mark.parametrize(
    ("arrays", "attributes"),
    [
        ({"a": np.zeros(1)}, {f"a{n}": n for n in range(9)}),
        ({"a": np.zeros(1)}, {"long": "x" * 60_001}),
        ({"a": np.zeros(1)}, {"long": "\u4e2d" * 20_001}),
        ({"a": np.zeros(1)}, {"end": "x\0"}),
        ({"a": np.zeros(1)}, {"big": 2**63}),
        ({"a": np.zeros(1)}, {"": 1}),
        ({"a": np.zeros(1)}, {"gr\u00f6\u00dfe": 1}),
        ({"a/b": np.zeros(1)}, {}),
        ({".": np.zeros(1)}, {}),
        ({"x" * 65: np.zeros(1)}, {}),
        ({"a": np.zeros(())}, {}),
        ({"a": np.zeros((1, 1, 1))}, {}),
        ({"a": np.zeros(1, ">f4")}, {}),
        ({"a": np.zeros(1, bool)}, {}),
        ({"a": np.zeros(1, complex)}, {}),
        ({"a": np.zeros(1, object)}, {}),
        ({"a": np.zeros(1, "S3")}, {}),
        ({f"{n}": np.zeros(1) for n in range(33)}, {}),
        ({f"{n:050}": np.zeros(1) for n in range(9)}, {}),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, arrays, attributes):
    path = tmp_path / "x.h5"
    with pytest.raises(ValueError, match=r"cannot be|at most|too many|attribute"):
        write_plain(path, arrays, attributes)
    assert not path.exists()


@pytest.mark.parametrize("count", [0, 1, 8, 9, 11, 32])
def test_any_number_of_arrays_up_to_32_comes_back(tmp_path, count):
    arrays = {f"n{n}": np.arange(n, dtype="i4") for n in range(count)}
    path = tmp_path / "x.h5"
    write_plain(path, arrays, ATTRIBUTES)
    back = inspect(path)
    assert list(back.slots) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back.array(name), array)


def test_the_users_settings_of_h5py_change_nothing(tmp_path):
    expected = plain(tmp_path).read_bytes()
    settings = h5py.get_config()
    settings.track_order = True
    try:
        assert plain(tmp_path).read_bytes() == expected
    finally:
        settings.track_order = False


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


FULL = """
import errno, os, resource, sys
from pathlib import Path
import numpy as np
from era_cache.disk.hdf5 import plain_writer

path, when, rows = Path(sys.argv[1]), sys.argv[2], 1 << 18
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    if when == "laying out":
        limit()
    with plain_writer(path, {"a": (np.dtype("f4"), (rows, 4))}, {"format": "test"}) as writer:
        limit()
        writer.write("a", 0, np.ones((rows, 4), "f4"))
except OSError as error:
    assert error.errno == errno.EFBIG, error
    print("refused")
"""


@pytest.mark.parametrize("when", ["laying out", "writing rows"])
def test_a_disk_that_takes_no_more_is_an_os_error_not_a_signal(tmp_path, when):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "x.h5", when], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
