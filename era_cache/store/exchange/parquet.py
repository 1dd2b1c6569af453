"""Parquet tables of vectors: a column of lists of floats, and columns of text.

In: a user's table. Out: blocks of float32 rows and its ids; and the same way back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.disk.parquet import import_pyarrow
from era_cache.errors import InputError
from era_cache.store.exchange.blocks import (
    block_rows,
    check_shape,
    plain_ids,
    reading_errors,
    to_float32,
)
from era_cache.types import FloatArray

__all__ = [
    "ParquetVectors",
    "parquet_texts",
    "parquet_writer",
]

_TEXT_ROWS = 1 << 16


@contextlib.contextmanager
def _opened_parquet(path: Path) -> Iterator[Any]:
    parquet = import_pyarrow(path)
    # Without these, a row group is held whole, and one can be the whole file.
    streamed = {"buffer_size": 1 << 20, "pre_buffer": False}
    with reading_errors(path), parquet.ParquetFile(path, **streamed) as file:
        yield file


def _batches(file: Any, rows: int, column: str) -> Iterator[Any]:
    """Parts of one column; more threads than one would only take more memory."""
    for batch in file.iter_batches(batch_size=rows, columns=[column], use_threads=False):
        yield batch.column(0)


def parquet_texts(path: Path, column: str) -> list[str]:
    """Read a column of text or whole numbers, as text.

    Raises:
        InputError: there is no such column, or a row of it holds something else.
    """
    values: list[str] = []
    with _opened_parquet(path) as file:
        names = file.schema_arrow.names
        if names.count(column) != 1:
            raise InputError(f"{path}: no one column '{column}' (it has: {', '.join(names)}).")
        for part in _batches(file, _TEXT_ROWS, column):
            values += plain_ids(path, part.to_pylist(), len(values))
    return values


class ParquetVectors:
    """A Parquet table with a column of lists of floats, all of one length, and maybe of ids.

    Args:
        path: the file.
        id_column: column of ids; None is ``id``, where there is one.
        vector_column: column of vectors.
    """

    def __init__(self, path: Path, id_column: str | None, vector_column: str) -> None:
        self.path, self._vectors = path, vector_column
        with _opened_parquet(path) as file:
            names = file.schema_arrow.names
            if names.count(vector_column) != 1:
                raise InputError(
                    f"{path}: no one column '{vector_column}' (it has: {', '.join(names)}). Name "
                    "the vectors' with --vector-column."
                )
            self._ids = id_column or ("id" if "id" in names else None)
            self.rows = int(file.metadata.num_rows)
            self.dim = self._length(file)
        check_shape(path, (self.rows, self.dim), np.dtype("float32"))

    def _length(self, file: Any) -> int:
        """Values of a vector: as the column's type says, else as many as the first row has."""
        from pyarrow import types

        kind = file.schema_arrow.field(self._vectors).type
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if not lists or not types.is_floating(kind.value_type):
            raise InputError(
                f"{self.path}: column '{self._vectors}' is {kind}; expected lists of half, float "
                "or double."
            )
        if types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for part in _batches(file, 1, self._vectors):
            return len(part[0]) if part.null_count == 0 else 0
        return 0

    def ids(self) -> list[str] | None:
        """See ``VectorFile.ids``."""
        return parquet_texts(self.path, self._ids) if self._ids else None

    def blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """See ``VectorFile.blocks``."""
        start = 0
        with _opened_parquet(self.path) as file:
            # Arrow holds a part several times over while it decodes it.
            rows = max(1, block_rows(self.dim) // 4)
            for part in _batches(file, rows, self._vectors):
                yield start, self._block(part, start)
                start += len(part)
        if start != self.rows:
            raise InputError(f"{self.path}: {start} rows, but the file says {self.rows}.")

    def _block(self, column: Any, start: int) -> FloatArray:
        import pyarrow.compute as compute

        lengths = compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.dim)
        if len(wrong):
            raise InputError(
                f"{self.path}: row {start + int(wrong[0])} (from 0) has not {self.dim} values."
            )
        values = column.flatten()
        if values.null_count:
            row = start + int(np.flatnonzero(np.asarray(values.is_null()))[0]) // self.dim
            raise InputError(f"{self.path}: row {row} (from 0) has a value that is missing.")
        return to_float32(values.to_numpy(zero_copy_only=False).reshape(-1, self.dim))


@contextlib.contextmanager
def parquet_writer(
    path: Path, names: Sequence[str], dim: int, dtype: str
) -> Iterator[Callable[[Sequence[list[str]], FloatArray], None]]:
    """Write a table of text columns and a column ``vector``, one row group for each block.

    Args:
        path: the file to create.
        names: of the text columns.
        dim: values of a vector.
        dtype: ``float32`` or ``float16``.

    Yields:
        A function that appends (a list for each text column, (b, d) vectors of ``dtype``).

    Raises:
        InputError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    parquet = import_pyarrow(path)
    import pyarrow as arrow

    kind = arrow.list_(arrow.float32() if dtype == "float32" else arrow.float16(), dim)
    schema = arrow.schema([*((name, arrow.string()) for name in names), ("vector", kind)])
    # Neither a dictionary nor compression makes vectors smaller.
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:

        def append(texts: Sequence[list[str]], block: FloatArray) -> None:
            columns = [arrow.array(column, arrow.string()) for column in texts]
            columns.append(arrow.FixedSizeListArray.from_arrays(block.reshape(-1), dim))
            writer.write_batch(arrow.record_batch(columns, schema=schema))

        yield append
