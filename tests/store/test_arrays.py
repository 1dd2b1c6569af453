"""Users' vector files: every kind gives the same rows, and what is not plain rows is refused."""

from __future__ import annotations

import gzip
import subprocess
import sys

import h5py
import numpy as np
import pytest

from era_cache.errors import InputError, StoreError
from era_cache.store.exchange import blocks as array_blocks
from era_cache.store.exchange.arrays import open_vectors
from era_cache.store.exchange.row_ids import read_ids, read_keys, write_ids

IDS = ["d0", "d1", "d2", "ü 3", "4", "d5", "d6"]
VECTORS = np.random.default_rng(0).standard_normal((7, 3)).astype("f4")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Two rows a block, so that every file has several."""
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 24)


def parquet(path, columns, **options):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table(columns), path, **options)
    return path


def fixed(vectors, kind="float32"):
    arrow = pytest.importorskip("pyarrow")
    flat = arrow.array(vectors.reshape(-1)).cast(getattr(arrow, kind)())
    return arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


def read(path, **options):
    """All rows, and the sizes of the blocks."""
    file = open_vectors(path, **options)
    blocks = list(file.blocks())
    assert [start for start, _ in blocks] == list(range(0, file.rows, 2))
    assert all(b.dtype == np.float32 and b.flags.c_contiguous for _, b in blocks)
    rows = np.concatenate([block for _, block in blocks])
    assert rows.shape == (file.rows, file.dim)
    return rows


# NumPy


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_rows_are_the_array_whatever_its_order(tmp_path, dtype, order):
    stored = np.array(VECTORS, dtype=dtype, order=order)
    np.save(tmp_path / "v.npy", stored)
    np.testing.assert_array_equal(read(tmp_path / "v.npy"), stored.astype("f4"))
    assert open_vectors(tmp_path / "v.npy").ids() is None


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[{}]], dtype=object), "objects"),
        (np.zeros(3, dtype=[("a", "f4")]), "[('a', '<f4')]"),
        (np.zeros((2, 3), dtype="i1"), "int8"),
        (np.zeros((2, 3), dtype="c8"), "complex64"),
        (np.zeros((2, 3), dtype=np.longdouble), "longdouble"),
        (np.zeros(3, dtype="f4"), "(3,)"),
        (np.zeros((2, 3, 1), dtype="f4"), "(2, 3, 1)"),
        (np.zeros((0, 3), dtype="f4"), "(0, 3)"),
        (np.zeros((3, 0), dtype="f4"), "(3, 0)"),
    ],
)
def test_arrays_that_are_not_rows_of_floats_are_refused(tmp_path, array, words):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(InputError) as caught:
        open_vectors(tmp_path / "v.npy")
    assert str(tmp_path / "v.npy") in str(caught.value)
    assert words.replace("longdouble", np.dtype(np.longdouble).name) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04zip", b"\x80\x04pickle", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_npy_are_refused(tmp_path, data):
    (tmp_path / "v.npy").write_bytes(data)
    with pytest.raises(InputError, match=r"v\.npy"):
        open_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("shape", ["(9999999999, 3)", "(-7, 3)", "(7, -3)", "(" * 500, "(7, x)"])
def test_a_header_that_lies_is_refused(tmp_path, shape):
    np.save(tmp_path / "v.npy", VECTORS)
    data = (tmp_path / "v.npy").read_bytes()
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    size = len(header) + 1
    (tmp_path / "v.npy").write_bytes(
        data[:8] + size.to_bytes(2, "little") + header.encode() + b"\n" + VECTORS.tobytes()
    )
    with pytest.raises(InputError, match=r"v\.npy"):
        open_vectors(tmp_path / "v.npy")


def test_a_truncated_npy_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    data = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"v\.npy: cannot be read"):
        open_vectors(tmp_path / "v.npy")


def test_a_missing_file_and_an_unknown_ending_are_told(tmp_path):
    with pytest.raises(StoreError, match=r"no\.npy.*does not exist"):
        open_vectors(tmp_path / "no.npy")
    (tmp_path / "v.bin").touch()
    with pytest.raises(InputError, match=r"v\.bin.*expected \.npy"):
        open_vectors(tmp_path / "v.bin")


# Parquet


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_parquet_of_fixed_lists_gives_its_rows_and_ids(tmp_path, kind):
    stored = VECTORS.astype(kind)
    columns = {"id": IDS, "other": list(range(7)), "vector": fixed(stored, kind)}
    path = parquet(tmp_path / "v.parquet", columns, row_group_size=3)
    np.testing.assert_array_equal(_rows(path), stored.astype("f4"))
    assert open_vectors(path).ids() == IDS


def _rows(path, **options):
    """Rows of a Parquet file, whose blocks end with its row groups, too."""
    file = open_vectors(path, **options)
    blocks = list(file.blocks())
    sizes = [len(block) for _, block in blocks]
    assert [start for start, _ in blocks] == np.cumsum([0, *sizes[:-1]]).tolist()
    return np.concatenate([block for _, block in blocks])


def test_parquet_of_lists_and_other_column_names(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    columns = {
        "pk": arrow.array(IDS).dictionary_encode(),
        "emb": arrow.array(VECTORS.tolist(), arrow.large_list(arrow.float32())),
    }
    path = parquet(tmp_path / "v.parquet", columns)
    np.testing.assert_array_equal(_rows(path, vector_column="emb"), VECTORS)
    assert open_vectors(path, vector_column="emb").ids() is None
    assert open_vectors(path, id_column="pk", vector_column="emb").ids() == IDS
    with pytest.raises(InputError, match=r"column 'id' \(it has: pk, emb\)"):
        open_vectors(path, id_column="id", vector_column="emb").ids()
    with pytest.raises(InputError, match="--vector-column"):
        open_vectors(path)


@pytest.mark.parametrize(
    ("sized", "change", "words"),
    [
        (False, {4: [1.0, 2.0]}, r"row 4 \(from 0\) has not 3 values"),
        # As many values as two good rows: only the lengths tell.
        (False, {4: [1.0, 2.0], 5: [1.0, 2.0, 3.0, 4.0]}, r"row 4 \(from 0\) has not 3 values"),
        (False, {4: None}, r"row 4 \(from 0\) has not 3 values"),
        (True, {4: None}, r"row 4 \(from 0\) has not 3 values"),
        (False, {4: [1.0, None, 2.0]}, r"row 4 \(from 0\) has a value that is missing"),
        (True, {4: [1.0, None, 2.0]}, r"row 4 \(from 0\) has a value that is missing"),
    ],
)
def test_parquet_rows_of_other_lengths_are_refused(tmp_path, sized, change, words):
    arrow = pytest.importorskip("pyarrow")
    rows = VECTORS.tolist()
    for at, value in change.items():
        rows[at] = value
    kind = arrow.list_(arrow.float32(), 3) if sized else arrow.list_(arrow.float32())
    path = parquet(tmp_path / "v.parquet", {"id": IDS, "vector": arrow.array(rows, kind)})
    with pytest.raises(InputError, match=words):
        _rows(path)


@pytest.mark.parametrize(
    "values", [[1.0] * 7, [[1]] * 7, ["text"] * 7, [[[1.0]]] * 7, [[]] * 7, [None] * 7]
)
def test_parquet_columns_of_other_types_are_refused(tmp_path, values):
    path = parquet(tmp_path / "v.parquet", {"vector": values})
    with pytest.raises(InputError, match=r"v\.parquet"):
        open_vectors(path)


@pytest.mark.parametrize("ids", [[None, "a"], ["a", ""], [b"a", b"b"], [1.5, 2.5], [True, False]])
def test_ids_that_are_no_text_are_refused(tmp_path, ids):
    path = parquet(tmp_path / "v.parquet", {"id": ids, "vector": fixed(VECTORS[:2])})
    with pytest.raises(InputError, match="the id of row"):
        open_vectors(path).ids()


def test_whole_numbers_are_ids(tmp_path):
    path = parquet(tmp_path / "v.parquet", {"id": [7, -8], "vector": fixed(VECTORS[:2])})
    assert open_vectors(path).ids() == ["7", "-8"]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_files_that_are_no_parquet_are_refused(tmp_path, data):
    pytest.importorskip("pyarrow")
    (tmp_path / "v.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"v\.parquet: cannot be read"):
        open_vectors(tmp_path / "v.parquet")


def test_damage_inside_a_parquet_is_told(tmp_path):
    path = parquet(tmp_path / "v.parquet", {"id": IDS, "vector": fixed(VECTORS)})
    data = bytearray(path.read_bytes())
    data[4:300] = bytes(296)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"v\.parquet: cannot be read"):
        _rows(path)


def test_without_pyarrow_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "v.parquet").touch()
    with pytest.raises(InputError, match="pip install pyarrow"):
        open_vectors(tmp_path / "v.parquet")


# HDF5


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_hdf5_gives_its_rows_and_ids(tmp_path, dtype):
    stored = VECTORS.astype(dtype)
    path = hdf5(tmp_path / "v.h5", ids=IDS, vectors=stored)
    np.testing.assert_array_equal(read(path), stored.astype("f4"))
    assert open_vectors(path).ids() == IDS


def test_hdf5_chunked_compressed_and_nested_under_other_names(tmp_path):
    path = tmp_path / "v.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/emb", data=VECTORS, chunks=(3, 2), compression="gzip")
        file["a/pk"] = np.arange(7)
        file["a/fixed"] = np.array([name.encode() for name in IDS])
    named = {"vector_column": "a/emb"}
    np.testing.assert_array_equal(read(path, **named), VECTORS)
    assert open_vectors(path, **named).ids() is None
    assert open_vectors(path, id_column="a/pk", **named).ids() == list("0123456")
    assert open_vectors(path, id_column="a/fixed", **named).ids() == IDS
    with pytest.raises(InputError, match="--id-column"):
        open_vectors(path, id_column="a/none", **named).ids()
    with pytest.raises(InputError, match="'a' is not a dataset"):
        open_vectors(path, vector_column="a")
    with pytest.raises(InputError, match=r"no dataset 'vectors' \(it has: a\)"):
        open_vectors(path)


@pytest.mark.parametrize("kind", ["soft", "external", "external group", "virtual", "stored"])
def test_hdf5_that_leads_elsewhere_is_refused(tmp_path, kind):
    secret = hdf5(tmp_path / "secret.h5", vectors=VECTORS)
    (tmp_path / "raw").write_bytes(VECTORS.tobytes())
    name = "vectors"
    with h5py.File(tmp_path / "v.h5", "w") as file:
        if kind == "soft":
            file["here"], file["vectors"] = VECTORS, h5py.SoftLink("/here")
        elif kind == "external":
            file["vectors"] = h5py.ExternalLink(str(secret), "/vectors")
        elif kind == "external group":
            file["g"], name = h5py.ExternalLink(str(secret), "/"), "g/vectors"
        elif kind == "virtual":
            layout = h5py.VirtualLayout(VECTORS.shape, "f4")
            layout[:] = h5py.VirtualSource(str(secret), "vectors", VECTORS.shape)
            file.create_virtual_dataset("vectors", layout)
        else:
            raw = [(str(tmp_path / "raw"), 0, VECTORS.nbytes)]
            file.create_dataset("vectors", VECTORS.shape, "f4", external=raw)
    with pytest.raises(InputError, match=r"link|not a dataset inside"):
        open_vectors(tmp_path / "v.h5", vector_column=name)


def test_hdf5_of_other_shapes_types_and_damage_is_refused(tmp_path):
    for number, value in enumerate((1.0, VECTORS[0], VECTORS.astype("i4"), "text")):
        with pytest.raises(InputError, match=r"\.h5"):
            open_vectors(hdf5(tmp_path / f"{number}.h5", vectors=value))
    path = hdf5(tmp_path / "v.h5", vectors=VECTORS, ids=VECTORS)
    with pytest.raises(InputError, match="'ids' has shape"):
        open_vectors(path).ids()
    path = hdf5(tmp_path / "w.h5", vectors=VECTORS, ids=VECTORS[:, 0])
    with pytest.raises(InputError, match="'ids' is float32"):
        open_vectors(path).ids()
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(path)


def test_hdf5_ids_that_are_not_utf8_are_refused(tmp_path):
    path = hdf5(tmp_path / "v.h5", vectors=VECTORS, ids=np.array([b"\xff"] * 7))
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(path).ids()


# Ids


@pytest.mark.parametrize("name", ["ids.txt", "ids.json", "ids.tsv"])
def test_written_ids_are_read_back(tmp_path, name):
    ids = [*IDS, "a b", "a\x0bb", "a\u2028b", "a\rb", " ", "\ufeff"]
    write_ids(tmp_path / name, ids)
    assert read_ids(tmp_path / name) == ids


@pytest.mark.parametrize("ids", [["a\nb"], ["a\r"], ["\ufeffa", "b"]])
def test_ids_that_no_line_can_hold_need_json(tmp_path, ids):
    with pytest.raises(InputError, match=r"\.json"):
        write_ids(tmp_path / "ids.txt", ids)
    write_ids(tmp_path / "ids.json", ids)
    assert read_ids(tmp_path / "ids.json") == ids


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_ids_of_an_npy(tmp_path, dtype):
    ids = IDS if dtype == "U" else [name.encode() for name in IDS]
    np.save(tmp_path / "ids.npy", np.array(ids))
    assert read_ids(tmp_path / "ids.npy") == IDS
    np.save(tmp_path / "ids.npy", np.arange(3))
    assert read_ids(tmp_path / "ids.npy") == ["0", "1", "2"]


def test_text_ids_may_come_from_windows(tmp_path):
    (tmp_path / "ids.txt").write_bytes("\ufeffd0\r\nd1\r\n".encode())
    assert read_ids(tmp_path / "ids.txt") == ["d0", "d1"]
    (tmp_path / "ids.gz").write_bytes(gzip.compress(b"d0\nd 1\n\n\r\n"))
    assert read_ids(tmp_path / "ids.gz") == ["d0", "d 1"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("ids.txt", b"a\n\nb\n", "line 2: empty"),
        ("ids.txt", b"", "line 1: empty"),
        ("ids.txt", b"a\xff\n", "not UTF-8"),
        ("ids.json", b'{"a": 1}', "JSON list"),
        ("ids.json", b'["a", null]', "row 1 .from 0. is None"),
        ("ids.json", b'["a"', "ids.json"),
        ("ids.json", b'["a", true]', "row 1"),
        ("ids.npy", b"junk", "cannot be read"),
    ],
)
def test_ids_that_would_shift_the_rows_are_refused(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_ids(tmp_path / name)


def test_ids_as_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "ids.npy", np.array(["a", "b"], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="objects"):
        read_ids(tmp_path / "ids.npy")
    np.save(tmp_path / "ids.npy", np.array([["a", "b"]]))
    with pytest.raises(InputError, match=r"\(1, 2\)"):
        read_ids(tmp_path / "ids.npy")


def test_keys_from_npy_text_and_parquet(tmp_path):
    keys = np.random.default_rng(1).integers(0, 256, (5, 16), dtype=np.uint8)
    lines = [key.tobytes().hex() for key in keys]
    np.save(tmp_path / "k.npy", keys)
    (tmp_path / "k.txt").write_text("\n".join(lines).upper() + "\n")
    np.testing.assert_array_equal(read_keys(tmp_path / "k.npy"), keys)
    np.testing.assert_array_equal(read_keys(tmp_path / "k.txt"), keys)
    path = parquet(tmp_path / "k.parquet", {"key": lines})
    np.testing.assert_array_equal(read_keys(path), keys)


@pytest.mark.parametrize("line", ["ab", "g" * 32, "0" * 31 + " ", "0" * 33, "0 " * 16])
def test_a_line_that_is_no_key_is_named(tmp_path, line):
    (tmp_path / "k.txt").write_text("0" * 32 + "\n" + line + "\n")
    with pytest.raises(InputError, match="row 1"):
        read_keys(tmp_path / "k.txt")


@pytest.mark.parametrize("array", [np.zeros((2, 16), "i1"), np.zeros((2, 8), "u1"), np.zeros(16)])
def test_arrays_that_are_no_keys_are_refused(tmp_path, array):
    np.save(tmp_path / "k.npy", array)
    with pytest.raises(InputError, match="uint8"):
        read_keys(tmp_path / "k.npy")


def test_json_ids_nested_too_deep_are_refused(tmp_path):
    (tmp_path / "ids.json").write_text("[" * 200_000)
    with pytest.raises(InputError):
        read_ids(tmp_path / "ids.json")


# Memory

READ = """
import sys
from pathlib import Path
from era_cache.store.exchange.arrays import open_vectors
for _ in open_vectors(Path(sys.argv[1])).blocks():
    pass  # what the libraries need once is not counted
def peak():  # of this program alone, unlike getrusage, which starts at its parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
file = open_vectors(Path(sys.argv[2]))
before = peak()
assert sum(len(block) for _, block in file.blocks()) == file.rows
print((peak() - before) >> 10)
"""


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".parquet"])
def test_reading_a_file_takes_the_memory_of_a_few_blocks(tmp_path, suffix):
    many = np.random.default_rng(0).standard_normal((100_000, 384), dtype="f4")
    paths = []
    for vectors in (many[:10], many):
        paths.append(tmp_path / f"{len(vectors)}{suffix}")
        if suffix == ".npy":
            np.save(paths[-1], vectors)
        elif suffix == ".h5":
            hdf5(paths[-1], vectors=vectors)
        else:
            parquet(paths[-1], {"vector": fixed(vectors)}, row_group_size=len(vectors))
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], check=True, capture_output=True, text=True
    )
    assert 10 < int(done.stdout) < 100  # MiB, of a file of 146
