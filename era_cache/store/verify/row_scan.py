"""What may be wrong with the rows of a segment, seen block by block.

In: the bytes of its datasets as they are read. Out: what makes rows unusable, what is odd about
them, and their norms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from era_cache.disk.hdf5 import PlainReader
from era_cache.store.precision import LARGEST_SCALE, StoredRows
from era_cache.store.segment import Segment
from era_cache.types import Array, FloatArray, IntArray

__all__ = ["LARGE_NORM", "Norms", "RowScan"]

LARGE_NORM = 1e4
"""A larger norm of a row is unlike any encoder's; such rows are counted, not refused."""
# Values converted to float32 at a time: few enough to stay in the processor's cache.
_BLOCK_VALUES = 1 << 18


class Norms(NamedTuple):
    """Euclidean norms of some rows."""

    rows: int = 0
    smallest: float = math.inf
    total: float = 0.0
    largest: float = 0.0
    suspicious: int = 0
    """Rows whose norm is 0 in float32, or above ``LARGE_NORM``."""

    def joined(self, other: Norms) -> Norms:
        """The norms of these rows and others."""
        return Norms(
            self.rows + other.rows,
            min(self.smallest, other.smallest),
            self.total + other.total,
            max(self.largest, other.largest),
            self.suspicious + other.suspicious,
        )


class RowScan:
    """Looks at the rows of a segment as they pass by, in any pieces.

    Args:
        segment: whose rows they are.
        reader: of that segment's file.
    """

    def __init__(self, segment: Segment, reader: PlainReader) -> None:
        self._segment, self._reader = segment, reader
        rows = min(segment.rows, max(1, _BLOCK_VALUES // segment.dim))
        self._scratch = np.empty((rows, segment.dim), np.float32)
        self._bad: dict[str, tuple[int, int]] = {}
        """What is wrong with rows, to how many and the first."""
        self.norms = Norms()

    def at(self, name: str, start: int, data: Array) -> None:
        """Look at the bytes ``data`` of the rows of a dataset from ``start`` on."""
        if name == "scales":
            scales = data.view(np.float32)
            bad = np.flatnonzero(~((scales > 0) & (scales <= LARGEST_SCALE)))
            self._note("a scale that is not a positive number", start + bad)
        elif name == "vectors":
            dtype = self._segment.plain.slots["vectors"].dtype
            rows = data.view(dtype).reshape(-1, self._segment.dim)
            for begin in range(0, len(rows), len(self._scratch)):
                self._vectors(start + begin, rows[begin : begin + len(self._scratch)])

    def _vectors(self, start: int, stored: Array) -> None:
        scales = None
        if stored.dtype == np.int8:
            scales = np.empty(len(stored), np.float32)
            self._reader.read("scales", start, scales)
        with np.errstate(all="ignore"):  # what is not finite is what is looked for
            rows = StoredRows(stored, scales).to_float32(self._scratch[: len(stored)])
            squares = np.einsum("ij,ij->i", rows, rows)
            # One comparison finds what is all zero, too small to square, infinite or NaN.
            odd = np.flatnonzero(~((squares > 0) & (squares < np.inf)))
            norms = np.sqrt(squares, dtype=np.float64)
            norms[odd] = np.sqrt(np.square(rows[odd], dtype=np.float64).sum(axis=1))
        if len(odd):
            finite = np.isfinite(rows[odd]).all(axis=1)
            self._note("NaN or infinite values", start + odd[~finite])
            self._note("zeros only", start + odd[~stored[odd].any(axis=1)])
            norms = norms[np.isfinite(norms)]
        self._measure(norms, int(np.count_nonzero(squares == 0)))

    def _measure(self, norms: FloatArray, vanishing: int) -> None:
        if len(norms):
            suspicious = vanishing + int(np.count_nonzero(norms > LARGE_NORM))
            low, total, high = float(norms.min()), float(norms.sum()), float(norms.max())
            self.norms = self.norms.joined(Norms(len(norms), low, total, high, suspicious))

    def _note(self, what: str, rows: IntArray) -> None:
        if len(rows):
            count, first = self._bad.get(what, (0, int(rows[0])))
            self._bad[what] = (count + len(rows), first)

    def problem(self) -> str | None:
        """What makes the segment unusable."""
        found = (
            f"{count} rows with {what} (the first: row {first})"
            for what, (count, first) in self._bad.items()
        )
        return "; ".join(found) or None

    def doubts(self) -> list[str]:
        """What is odd about it."""
        found = []
        if self.norms.suspicious:
            found.append(
                f"{self.norms.suspicious} rows have a norm that float32 takes for 0, or one above "
                f"{LARGE_NORM:,.0f}"
            )
        if self._segment.about() is None:
            found.append("'created_by', which says what made it, is not a JSON object")
        return found
