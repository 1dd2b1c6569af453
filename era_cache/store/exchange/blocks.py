"""Blocks of users' vectors: what every kind of vector file gives, and what is refused in all.

In: arrays and values from a file that somebody else wrote. Out: (b, d) float32 blocks and ids that
are text, or an ``InputError`` that names the file and the row.
"""

from __future__ import annotations

import contextlib
import stat
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from era_cache.disk.files import POINTER, is_pointer, os_errors
from era_cache.errors import InputError
from era_cache.types import Array, FloatArray

__all__ = [
    "BLOCK_BYTES",
    "VectorFile",
    "block_rows",
    "check_shape",
    "cosines",
    "map_npy",
    "plain_ids",
    "reading_errors",
    "require_file",
    "to_float32",
]

BLOCK_BYTES = 16 << 20
"""float32 values that are held at a time."""
# What NumPy's header parser, HDF5 and Arrow (whose errors are ValueError or RuntimeError) raise.
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    TypeError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
)
_MOST_DIMENSIONS = 1 << 20


class VectorFile(Protocol):
    """A file of vectors, one for each row."""

    path: Path
    rows: int
    dim: int

    def ids(self) -> list[str] | None:
        """The ids that the file holds itself, one for each row, or None.

        Raises:
            InputError: they are damaged, missing in some row, or of another type.
        """

    def blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield (number of the first row, (b, d) float32) from the first row to the last.

        Raises:
            InputError: the file is damaged, or a row has another length.
        """


def block_rows(dim: int) -> int:
    """Rows of a block."""
    return max(1, BLOCK_BYTES // (4 * dim))


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn what NumPy, HDF5 and Arrow say of a damaged file into an ``InputError``."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(
            f"{path}: cannot be read: {reason}. Check that it is whole and of the kind that its "
            "ending says."
        ) from error


def require_file(path: Path) -> None:
    """Refuse what is no ordinary file: a pipe or a device may never come to an end.

    Raises:
        InputError: it is of another kind, or a pointer of Git LFS.
        StoreError: it is missing or may not be read.
    """
    with os_errors("reading", path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not an ordinary file. Save it as one first.")
        with path.open("rb") as file:
            if is_pointer(file.read(64)):
                raise InputError(f"{path}: {POINTER}")


def check_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Give (rows, dimensions) of an array of vectors. Raises ``InputError`` where it is none."""
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise InputError(
            f"{path}: holds {dtype}; expected float16, float32 or float64, one row for each text. "
            "Save it again with numpy.save(path, vectors.astype('float32'))."
        )
    if len(shape) != 2 or not 1 <= shape[1] <= _MOST_DIMENSIONS or shape[0] < 1:
        raise InputError(f"{path}: has shape {shape}; expected (rows, dimensions), neither 0.")
    return int(shape[0]), int(shape[1])


def to_float32(block: Array) -> FloatArray:
    """A contiguous copy; a value too large for float32 becomes infinite, which is refused later."""
    with np.errstate(over="ignore"):
        return np.array(block, dtype=np.float32, order="C")


def plain_ids(path: Path, values: list[Any], start: int = 0) -> list[str]:
    """Check ids that a file holds: text, or whole numbers, which become text.

    Raises:
        InputError: one is something else; the message names the row.
    """
    for row, value in enumerate(values):
        if isinstance(value, str) and value:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            found = repr(value)[:40]
            raise InputError(f"{path}: the id of row {start + row} (from 0) is {found}, not text.")
        values[row] = str(value)
    return values


def map_npy(path: Path) -> Array:
    """Memory-map an ``.npy`` file, read-only; pickled objects cannot be mapped.

    Raises:
        InputError: it is damaged, or holds objects.
        StoreError: it cannot be opened.
    """
    with os_errors("reading", path), path.open("rb"):
        pass
    with reading_errors(path):
        return np.lib.format.open_memmap(path, mode="r")


def cosines(one: FloatArray, other: FloatArray) -> FloatArray:
    """Cosine of each row of (n, d) with the same row of another (n, d); (n,) float64."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products: FloatArray = np.einsum("ij,ij->i", a, b) / norms
    return products
