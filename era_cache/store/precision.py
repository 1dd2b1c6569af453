"""Stored forms of rows: float32, float16, or int8 with a scale for each row.

In: vectors to store, or rows as they are stored. Out: rows that can be stored and read back, or an
error that says what is wrong with one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.errors import EncoderError
from era_cache.types import Array, FloatArray, IntArray

__all__ = [
    "DTYPES",
    "LARGEST_SCALE",
    "StoredRows",
    "all_finite",
    "check_vectors",
    "sort_out",
    "why_bad",
]

DTYPES = ("float32", "float16", "int8")
"""Stored forms, the most exact first: of a repeated key, that row counts."""


LARGEST_SCALE = np.float32(np.finfo(np.float32).max / 127.5)
"""Of an int8 row: 127 steps of it are finite."""


_STORE_EXACTLY = {
    "int8": "Store with --dtype float32.",
    "float16": "Store with --dtype float32.",
    "float32": "No stored form holds it; look at that text.",
}
_LEAST_COSINE = 0.999


class StoredRows(NamedTuple):
    """Rows in their stored form.

    ``values`` (n, d) is float32, float16 or int8; ``scales`` (n,) float32 belongs to int8 only,
    where a row is ``values * scale``.
    """

    values: Array
    scales: FloatArray | None

    @classmethod
    def empty(cls, rows: int, dim: int, dtype: str) -> StoredRows:
        """Room for ``rows`` rows of ``dim`` values."""
        scales = np.empty(rows, np.float32) if dtype == "int8" else None
        return cls(np.empty((rows, dim), dtype), scales)

    def put(self, at: IntArray | slice | list[int], rows: StoredRows) -> None:
        """Copy ``rows`` into the places ``at``."""
        self.values[at] = rows.values
        if self.scales is not None and rows.scales is not None:
            self.scales[at] = rows.scales

    def take(self, at: Array | slice) -> StoredRows:
        """The rows at some places."""
        return StoredRows(self.values[at], None if self.scales is None else self.scales[at])

    def to_float32(self, out: FloatArray | None = None) -> FloatArray:
        """The vectors, (n, d) float32, in ``out`` where it is given."""
        if out is None:
            out = np.empty(self.values.shape, np.float32)
        if self.scales is None:
            out[...] = self.values
        else:
            np.multiply(self.values, self.scales[:, None], out=out, dtype=np.float32)
        return out

    def arrays(self) -> dict[str, Array]:
        """The datasets of a segment that hold these rows."""
        if self.scales is None:
            return {"vectors": self.values}
        return {"vectors": self.values, "scales": self.scales}


def all_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite; integers always are."""
    if values.dtype == np.float16:  # six times faster than isfinite: all ones in the exponent
        return not len(values) or int((values.view(np.uint16) & 0x7C00).max()) != 0x7C00
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def check_vectors(
    vectors: FloatArray, dtype: str, name_of: Callable[[int], str], encoder: str
) -> StoredRows:
    """Convert vectors for storage, refusing what must never be stored.

    Args:
        vectors: (n, d) float32.
        dtype: one of ``DTYPES``.
        name_of: names row i for a message.
        encoder: the encoder's name, for a message.

    Returns:
        n rows in their stored form.

    Raises:
        EncoderError: a row is not finite, all zero, or too large or too small for float16.
    """
    stored, bad = sort_out(vectors, dtype)
    if not len(bad):
        return stored
    row = int(bad[0])
    others = f" ({len(bad)} such rows in this batch)" if len(bad) > 1 else ""
    what, mend = why_bad(vectors[row], dtype)
    raise EncoderError(f"{encoder} returned {what} for {name_of(row)}{others}. {mend}")


def sort_out(vectors: FloatArray, dtype: str) -> tuple[StoredRows, IntArray]:
    """Convert vectors for storage, and find those that must never be stored.

    Args:
        vectors: (n, d) float32.
        dtype: one of ``DTYPES``.

    Returns:
        n rows in their stored form, and (b,) int64 numbers of rows that are not finite, all zero,
        or too large or too small for that form.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = _quantised(vectors) if dtype == "int8" else _converted(vectors, dtype)
        if stored.scales is None:
            finite = np.atleast_1d(np.isfinite(stored.values).all(axis=1))
        else:
            finite = np.isfinite(vectors).all(axis=1) & (stored.scales <= LARGEST_SCALE)
        bad = np.flatnonzero(~finite | ~stored.values.any(axis=1) | _bent(vectors, stored.values))
    return stored, bad


def why_bad(vector: FloatArray, dtype: str) -> tuple[str, str]:
    """What is wrong with a vector (d,) that ``sort_out`` found, and what to do about it."""
    if not np.isfinite(vector).all():
        return "NaN or infinite values", "Nothing of it is stored. Look at that text."
    if not vector.any():
        return "a vector of zeros", "No direction can be compared; remove or mend that text."
    size = "large" if np.abs(vector).max() > 1 else "small"
    return f"values too {size} for {dtype}", _STORE_EXACTLY[dtype]


def _bent(vectors: FloatArray, values: Array) -> NDArray[np.bool_]:
    """Which rows float16 has too few digits for: their cosine to the original is below 0.999.

    Below 2**-14 float16 has steps of 2**-24. Rows of which a value is 2**-10 lose less than that
    at any width in use, so that only the others, which hardly ever are there, are compared.
    """
    bent = np.zeros(len(vectors), dtype=bool)
    if values.dtype == np.float16 and vectors.shape[1]:
        largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))  # without a copy of all
        small = np.flatnonzero(largest < 2.0**-10)
        one, other = vectors[small].astype(np.float64), values[small].astype(np.float64)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        bent[small] = (one * other).sum(axis=1) < _LEAST_COSINE * lengths
    return bent


def _converted(vectors: FloatArray, dtype: str) -> StoredRows:
    # A copy always: the caller may fill its array anew before the rows are written.
    return StoredRows(np.array(vectors, dtype=dtype, order="C"), None)


def _quantised(vectors: FloatArray) -> StoredRows:
    """Symmetric int8: a row's largest value becomes 127, and what is left over is rounded."""
    scales = (np.abs(vectors).max(axis=1, initial=0) / np.float32(127)).astype(np.float32)
    # Too small for a float32 with all its digits: such a row counts as zeros, and is refused.
    scales[scales < np.finfo(np.float32).tiny] = 0
    safe = np.where(scales > 0, scales, np.float32(1))[:, None]
    values = np.nan_to_num(np.rint(vectors / safe), nan=0, posinf=0, neginf=0)
    values[scales == 0] = 0
    return StoredRows(np.clip(values, -127, 127).astype(np.int8), scales)
