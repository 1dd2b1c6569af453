"""Vector files that users already have: NumPy, Parquet and HDF5, read block by block.

In: a path. Out: the number of rows and dimensions, the ids that the file holds itself, and blocks
of float32 rows. Nothing is unpickled, no link is followed, and no file is ever loaded whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from era_cache.errors import InputError
from era_cache.store.exchange.blocks import (
    VectorFile,
    block_rows,
    check_shape,
    map_npy,
    plain_ids,
    reading_errors,
    require_file,
    to_float32,
)
from era_cache.store.exchange.parquet import ParquetVectors
from era_cache.types import FloatArray

__all__ = ["Hdf5Vectors", "NpyVectors", "open_vectors"]


def open_vectors(
    path: Path, *, id_column: str | None = None, vector_column: str | None = None
) -> VectorFile:
    """Open a vector file by its ending: ``.npy``, ``.parquet``, ``.h5`` or ``.hdf5``.

    Args:
        path: the file.
        id_column: name of the column or dataset of ids; None is ``id`` (Parquet), ``ids`` (HDF5).
        vector_column: the same of the vectors; None is ``vector`` or ``vectors``.

    Raises:
        InputError: another ending, damaged, or not rows of floating-point numbers.
        StoreError: it cannot be read.
    """
    suffix = path.suffix.lower()
    require_file(path)
    if suffix == ".npy":
        if id_column or vector_column:
            raise InputError(f"{path}: an .npy file has no columns; give the ids with --ids.")
        return NpyVectors(path)
    if suffix == ".parquet":
        return ParquetVectors(path, id_column, vector_column or "vector")
    if suffix in (".h5", ".hdf5"):
        return Hdf5Vectors(path, id_column, vector_column or "vectors")
    raise InputError(f"{path}: unknown kind of vector file; expected .npy, .parquet, .h5 or .hdf5.")


class NpyVectors:
    """An ``.npy`` array (n, d) of float16, float32 or float64, in any byte or memory order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        array = map_npy(path)
        self.rows, self.dim = check_shape(path, array.shape, array.dtype)

    def ids(self) -> None:
        """See ``VectorFile.ids``: an array holds none."""

    def blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """See ``VectorFile.blocks``."""
        size = block_rows(self.dim)
        for start in range(0, self.rows, size):
            # Mapped anew each time: the pages that were read do not stay in this process.
            yield start, to_float32(map_npy(self.path)[start : start + size])


class Hdf5Vectors:
    """An HDF5 file with a dataset (n, d) of floats, and maybe one of n ids.

    Args:
        path: the file.
        id_name: dataset of ids; None is ``ids``, where there is one.
        vector_name: dataset of vectors.
    """

    def __init__(self, path: Path, id_name: str | None, vector_name: str) -> None:
        self.path, self._vectors = path, vector_name
        with self._opened() as file:
            vectors = self._dataset(file, vector_name, "--vector-column")
            self.rows, self.dim = check_shape(path, vectors.shape or (), vectors.dtype)
            self._ids = id_name or ("ids" if file.get("ids", getlink=True) else None)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py

        with reading_errors(self.path), h5py.File(self.path, "r", locking=False) as file:
            yield file

    def _dataset(self, file: Any, name: str, option: str) -> Any:
        """A dataset whose bytes all lie in this file: HDF5 can point to any other file."""
        import h5py

        found = file
        for part in name.strip("/").split("/"):
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                have = ", ".join(file)
                raise InputError(
                    f"{self.path}: no dataset '{name}' (it has: {have}). Name it with {option}."
                )
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"{self.path}: '{name}' is a link; links are not followed.")
            found = found[part]
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise InputError(f"{self.path}: '{name}' is not a dataset inside this file.")
        return found

    def ids(self) -> list[str] | None:
        """See ``VectorFile.ids``."""
        import h5py

        if self._ids is None:
            return None
        with self._opened() as file:
            dataset = self._dataset(file, self._ids, "--id-column")
            if len(dataset.shape or ()) != 1:
                raise InputError(f"{self.path}: '{self._ids}' has shape {dataset.shape}.")
            if h5py.check_string_dtype(dataset.dtype) is not None:
                dataset = dataset.asstr("utf-8")
            elif dataset.dtype.kind not in "iu":
                raise InputError(f"{self.path}: '{self._ids}' is {dataset.dtype}, not text.")
            return plain_ids(self.path, dataset[:].tolist())

    def blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """See ``VectorFile.blocks``."""
        size = block_rows(self.dim)
        with self._opened() as file:
            dataset = self._dataset(file, self._vectors, "--vector-column")
            for start in range(0, self.rows, size):
                yield start, to_float32(dataset[start : start + size])
