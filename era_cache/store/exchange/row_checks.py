"""Checks of a whole vector file, before a row of it is stored.

In: the file and what its rows are. Out: nothing, or an error that names the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from era_cache.errors import InputError
from era_cache.store.exchange.blocks import VectorFile, cosines
from era_cache.store.exchange.matching import FileRows
from era_cache.store.precision import check_vectors
from era_cache.types import Array, FloatArray, IntArray, Keys, Progress

__all__ = ["check_rows", "selected_blocks"]

# Vectors of equal texts differ by the rounding of another batch, no more.
_SAME_TEXT_COSINE = 0.99
_SAME_TEXT_BYTES = 64 << 20


def selected_blocks(
    vectors: VectorFile, rows: FileRows, selected: IntArray, what: str, tell: Progress
) -> Iterator[tuple[Keys, FloatArray, IntArray]]:
    """Yield keys, vectors and row numbers of the rows ``selected`` (ascending), block by block."""
    for start, block in vectors.blocks():
        first, last = np.searchsorted(selected, [start, start + len(block)])
        if first < last:
            numbers = selected[first:last]
            whole = len(numbers) == len(block)
            yield rows.keys[numbers], block if whole else block[numbers - start], numbers
        tell(what, start + len(block), vectors.rows)


def check_rows(
    vectors: VectorFile, rows: FileRows, dtype: str, encoder: str, tell: Progress
) -> None:
    """Read every row that could be stored, and refuse the file where one must not be."""
    places = np.flatnonzero(rows.known)
    same = _EqualTexts(vectors, rows, places)
    for _, block, numbers in selected_blocks(vectors, rows, places, "checking", tell):
        finite: Array = np.logical_and.reduce(np.isfinite(block), axis=1)
        bad = np.flatnonzero(~finite | ~block.any(axis=1))
        if len(bad):
            what = "a vector of zeros" if finite[bad[0]] else "NaN or infinite values"
            raise InputError(
                f"{vectors.path}: {what} for {rows.label(vectors.path, int(numbers[bad[0]]))}. "
                "Nothing was stored. Mend or remove that row."
            )
        # What would not survive the stored form is found now, before anything is stored.
        check_vectors(block, dtype, _names(vectors, rows, numbers), encoder)
        same.check(block, numbers)


def _names(vectors: VectorFile, rows: FileRows, numbers: IntArray) -> Callable[[int], str]:
    return lambda row: rows.label(vectors.path, int(numbers[row]))


class _EqualTexts:
    """Rows of one text must have one vector; where they have not, ids or texts are not the file's.

    Args:
        vectors: the file.
        rows: what its rows are.
        places: the rows looked at, ascending.
    """

    def __init__(self, vectors: VectorFile, rows: FileRows, places: IntArray) -> None:
        self._path, self._rows = vectors.path, rows
        keys = np.ascontiguousarray(rows.keys[places]).view("V16").reshape(-1)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        original = places[first][inverse]
        again = original != places
        # Of very many repeated texts, the first ones: enough to notice that rows are mixed up.
        most = max(1, _SAME_TEXT_BYTES // (4 * vectors.dim))
        self._originals = np.unique(original[again])[:most]
        again &= np.isin(original, self._originals)
        self._repeats, self._original_of = places[again], original[again]
        self._kept = np.empty((len(self._originals), vectors.dim), dtype=np.float32)

    def check(self, block: FloatArray, numbers: IntArray) -> None:
        """Look at rows ``numbers`` (ascending; blocks in the file's order). Raises InputError."""
        first, last = np.searchsorted(self._originals, [numbers[0], numbers[-1] + 1])
        self._kept[first:last] = block[np.searchsorted(numbers, self._originals[first:last])]
        first, last = np.searchsorted(self._repeats, [numbers[0], numbers[-1] + 1])
        at = np.searchsorted(numbers, self._repeats[first:last])
        originals = self._original_of[first:last]
        one = self._kept[np.searchsorted(self._originals, originals)]
        similar = cosines(one, block[at])
        wrong = np.flatnonzero(similar < _SAME_TEXT_COSINE)
        if len(wrong):
            label = self._rows.label
            pair = int(originals[wrong[0]]), int(numbers[at[wrong[0]]])
            raise InputError(
                f"{self._path}: {label(self._path, pair[0])} and {label(self._path, pair[1])} have "
                f"the same text, but other vectors (cosine {similar[wrong[0]]:.3f}). Either the "
                "ids do not belong to these vectors, or they were made from other texts (see "
                "--document-text). Nothing was stored."
            )
