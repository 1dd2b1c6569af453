"""Parquet tables of plain values; pyarrow is optional and loaded when it is needed.

In: columns. Out: a file, or a message that says how to get the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from era_cache.errors import InputError
from era_cache.types import Array

__all__ = ["import_pyarrow", "write_parquet_columns"]


def import_pyarrow(path: Path, instead: str = ".npy") -> Any:
    """The module ``pyarrow.parquet``.

    Args:
        path: the file that needs it.
        instead: what else the file could be.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{path}: Parquet needs the package pyarrow: pip install pyarrow. Without it, "
            f"use {instead}."
        ) from error
    return pyarrow.parquet


def write_parquet_columns(path: Path, columns: Mapping[str, Array]) -> None:
    """Write a table of numbers and texts.

    Args:
        path: the file to create.
        columns: (n,) arrays of one length by name: numbers, or texts (of kind O or U).

    Raises:
        InputError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    parquet = import_pyarrow(path, ".csv")
    import pyarrow as arrow

    kinds = {name: arrow.string() if c.dtype.kind in "OU" else None for name, c in columns.items()}
    table = {name: arrow.array(column, kinds[name]) for name, column in columns.items()}
    parquet.write_table(arrow.table(table), path)
