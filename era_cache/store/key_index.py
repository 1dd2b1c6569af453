"""The key index: where each key's row lies, looked up in bulk.

In: the checked segments of an encoder. Out: positions, which number all rows of all segments in
order of preference. A lookup ends at the keys of the segments themselves, so that a wrong index
file can hide rows, but never give a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from era_cache.collection.keys import key_halves, key_words
from era_cache.store.precision import DTYPES
from era_cache.store.segment import Segment
from era_cache.store.sorted_keys import (
    SortedKeys,
    by_segment,
    row_starts,
    sorted_ranges,
    stored_keys,
)
from era_cache.types import Array, IntArray, Keys

__all__ = ["KeyIndex"]

_BLOCK_ROWS = 1 << 18
_HELD = 64
"""Segments whose keys stay mapped: few enough for a process that may open 256 files."""


class KeyIndex:
    """Finds rows by key over some segments.

    Args:
        segments: in order of preference; of a repeated key the first segment's row counts.
        folder: an encoder's folder whose index files may be used; None sorts everything anew.
    """

    def __init__(self, segments: Sequence[Segment], folder: Path | None = None) -> None:
        self.segments = list(segments)
        # A map holds a file open; the smaller ones of many are mapped when they are needed.
        largest = sorted(range(len(self.segments)), key=lambda n: -self.segments[n].rows)[:_HELD]
        self._held = {number: self.segments[number].keys for number in largest}
        self.starts = row_starts(self.segments)
        """(s + 1,) int64: position of the first row of each segment, and the number of rows."""
        self._parts: list[SortedKeys] = []
        self.sorted_anew = 0
        """Rows that no index file covers."""
        indexed = stored_keys(folder, self.segments) if folder is not None else None
        covered: set[int] = set()
        if indexed is not None:
            self._parts.append(indexed)
            covered = set(indexed.segments.tolist())
        rest = [number for number in range(len(self.segments)) if number not in covered]
        if rest:
            lengths = [self.segments[n].rows for n in rest]
            ranges = sorted_ranges(lengths, lambda number: self.keys_of(rest[number]))
            high, rows = (np.concatenate(column) for column in zip(*ranges, strict=True))
            self._parts.append(SortedKeys(high, rows, np.array(rest, dtype=np.int64)))
            self.sorted_anew = len(rows)

    def keys_of(self, number: int) -> Keys:
        """Keys of a segment by its number, (n, 16) uint8, mapped from its file.

        Raises:
            StoreError: it is gone by now.
        """
        held = self._held.get(number)
        return self.segments[number].keys if held is None else held

    def positions(self, keys: Keys) -> IntArray:
        """Where each key's row is; -1 for a key that is in no segment.

        Args:
            keys: (n, 16) uint8.

        Returns:
            (n,) int64.
        """
        high, low = key_halves(keys)
        # Ascending needles walk through the index once instead of jumping about in it.
        order = np.argsort(high)
        high, low = high[order], low[order]
        best = np.full(len(keys), -1, dtype=np.int64)
        for part in self._parts:
            found = self._find(part, high, low)
            better = (found >= 0) & ((best < 0) | (found < best))
            best[better] = found[better]
        positions = np.empty_like(best)
        positions[order] = best
        return positions

    def missing(self, keys: Keys, dtype: str) -> IntArray:
        """Which keys have no row, or only one stored less exactly than as ``dtype``.

        Args:
            keys: (n, 16) uint8.
            dtype: one of ``precision.DTYPES``.

        Returns:
            Their places in ``keys``, ascending, int64.
        """
        positions = self.positions(keys)
        exact = sum(DTYPES.index(s.dtype) <= DTYPES.index(dtype) for s in self.segments)
        return np.flatnonzero((positions < 0) | (positions >= self.starts[exact]))

    def has_repeats(self) -> bool:
        """Whether a key may be in more than one row (an index of several parts cannot tell)."""
        if len(self._parts) != 1:
            return bool(self._parts)
        high = self._parts[0].high
        return bool((high[1:] == high[:-1]).any())

    def distinct_rows(self) -> Iterator[tuple[IntArray, Keys]]:
        """Yield positions and keys of all rows by block; of a repeated key, the row that counts."""
        repeats = self.has_repeats()
        for number, start in enumerate(self.starts[:-1].tolist()):
            keys = self.keys_of(number)
            for at in range(0, len(keys), _BLOCK_ROWS):
                block = keys[at : at + _BLOCK_ROWS]
                own = np.arange(start + at, start + at + len(block), dtype=np.int64)
                if repeats:
                    kept = self.positions(block) == own
                    own, block = own[kept], block[kept]
                yield own, block

    def _find(self, part: SortedKeys, high: Array, low: Array) -> IntArray:
        """Positions of keys, whose first halves are ascending, by one part."""
        at = np.searchsorted(part.high, high, side="left").astype(np.int64)
        found = np.full(len(high), -1, dtype=np.int64)
        open_rows = np.flatnonzero(at < len(part.high))
        open_rows = open_rows[part.high[at[open_rows]] == high[open_rows]]
        position, compared = self._compare(part, at[open_rows], high[open_rows], low[open_rows])
        found[open_rows[compared == 0]] = position[compared == 0]
        # Different keys with equal first halves: rare, unless someone made them so. Bisect.
        rest = open_rows[compared != 0]
        if len(rest):
            found[rest] = self._bisect(part, at[rest], high[rest], low[rest])
        return found

    def _bisect(self, part: SortedKeys, first: IntArray, high: Array, low: Array) -> IntArray:
        last = np.searchsorted(part.high, high, side="right").astype(np.int64)
        end = last.copy()
        while (first < last).any():
            middle = (first + last) // 2
            probe = np.minimum(middle, len(part.high) - 1)
            _, compared = self._compare(part, probe, high, low)
            below = (first < last) & (compared < 0)
            above = (first < last) & ~below
            first = np.where(below, middle + 1, first)
            last = np.where(above, middle, last)
        inside = first < end
        position, compared = self._compare(part, np.where(inside, first, 0), high, low)
        return np.where(inside & (compared == 0), position, -1)

    def _compare(
        self, part: SortedKeys, at: IntArray, high: Array, low: Array
    ) -> tuple[IntArray, IntArray]:
        """Position of entry ``at``, and how its key compares: 0 equal, -1 below, 1 above or other.

        The key is read from its segment, whatever the index claims.
        """
        position = self._position(part, part.rows[at])
        found_high, found_low = self._halves_at(position)
        compared = np.where(found_low < low, -1, np.where(found_low > low, 1, 0))
        return position, np.where((position >= 0) & (found_high == high), compared, 1)

    def _position(self, part: SortedKeys, rows: IntArray) -> IntArray:
        """Positions of row numbers among the part's own; -1 for an impossible one."""
        if len(part.segments) == len(self.segments):
            position = rows.astype(np.int64)
        else:
            counts = np.diff(self.starts)[part.segments]
            own_starts = np.concatenate([[0], np.cumsum(counts)])
            number = np.searchsorted(own_starts, rows, side="right") - 1
            number = np.clip(number, 0, len(part.segments) - 1)
            position = rows + (self.starts[part.segments] - own_starts[:-1])[number]
            position = np.where((rows >= 0) & (rows < own_starts[-1]), position, -1)
        return np.where((position >= 0) & (position < self.starts[-1]), position, -1)

    def _halves_at(self, positions: IntArray) -> tuple[Array, Array]:
        if len(self.segments) == 1:
            words = key_words(self.keys_of(0))[np.maximum(positions, 0)]
        else:
            words = np.zeros((len(positions), 2), dtype=np.uint64)
            for number, where, rows in by_segment(self.starts, positions):
                words[where] = key_words(self.keys_of(number))[rows]
        return words[:, 0], words[:, 1]
