"""The key index: where each key's row lies, looked up in bulk.

In: the checked segments of an encoder. Out: positions, which number all rows of all segments in
order of preference. An index is built by sorting and kept in a file of the encoder's folder; it is
a cache: a lookup ends at the keys of the segments themselves, so that a wrong index file can hide
rows, but never give a wrong one.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import key_halves, key_order, key_words
from era_cache.disk.files import make_folder, os_errors, staged
from era_cache.disk.hdf5 import Layout, PlainFile, open_plain, plain_writer
from era_cache.errors import FormatError, StoreError
from era_cache.store.names import INDEX_NAME, list_names
from era_cache.store.precision import DTYPES
from era_cache.store.segment import Segment
from era_cache.types import Array, IntArray, Keys

__all__ = [
    "KeyIndex",
    "by_segment",
    "open_index",
    "persist_index",
    "remove_stale_indexes",
    "unindexed_rows",
]

FORMAT, VERSION = "era-index", 1
# Fewer rows are sorted in less time than a file takes to write.
_PERSIST_ROWS = 50_000
# Rows sorted at a time; bounds the memory of building an index, about 50 bytes for each.
_PARTITION_ROWS = 1 << 23
_BLOCK_ROWS = 1 << 20


class _Part(NamedTuple):
    """A sorted list of the keys of some of the segments.

    ``high`` (m,) uint64 are first halves of keys, ascending; ``rows`` (m,) int64 number the rows of
    the part's own segments, whose numbers among all segments are ``segments``.
    """

    high: Array
    rows: IntArray
    segments: IntArray


class KeyIndex:
    """Finds rows by key over some segments.

    Args:
        segments: in order of preference; of a repeated key the first segment's row counts.
        folder: an encoder's folder whose index files may be used; None sorts everything anew.
    """

    def __init__(self, segments: Sequence[Segment], folder: Path | None = None) -> None:
        self.segments = list(segments)
        self.keys = [segment.keys for segment in self.segments]
        self.starts = _starts(self.segments)
        """(s + 1,) int64: position of the first row of each segment, and the number of rows."""
        self._parts: list[_Part] = []
        self.sorted_anew = 0
        """Rows that no index file covers."""
        indexed = _stored_part(folder, self.segments) if folder is not None else None
        covered: set[int] = set()
        if indexed is not None:
            self._parts.append(indexed)
            covered = set(indexed.segments.tolist())
        rest = [number for number in range(len(self.segments)) if number not in covered]
        if rest:
            ranges = _partitions([self.keys[n] for n in rest], _PARTITION_ROWS)
            high, rows = (np.concatenate(column) for column in zip(*ranges, strict=True))
            self._parts.append(_Part(high, rows, np.array(rest, dtype=np.int64)))
            self.sorted_anew = len(rows)

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
            dtype: one of ``segments.DTYPES``.

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

    def _find(self, part: _Part, high: Array, low: Array) -> IntArray:
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

    def _bisect(self, part: _Part, first: IntArray, high: Array, low: Array) -> IntArray:
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
        self, part: _Part, at: IntArray, high: Array, low: Array
    ) -> tuple[IntArray, IntArray]:
        """Position of entry ``at``, and how its key compares: 0 equal, -1 below, 1 above or other.

        The key is read from its segment, whatever the index claims.
        """
        position = self._position(part, part.rows[at])
        found_high, found_low = self._halves_at(position)
        compared = np.where(found_low < low, -1, np.where(found_low > low, 1, 0))
        return position, np.where((position >= 0) & (found_high == high), compared, 1)

    def _position(self, part: _Part, rows: IntArray) -> IntArray:
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
            words = key_words(self.keys[0])[np.maximum(positions, 0)]
        else:
            words = np.zeros((len(positions), 2), dtype=np.uint64)
            for number, where, rows in by_segment(self.starts, positions):
                words[where] = key_words(self.keys[number])[rows]
        return words[:, 0], words[:, 1]


def by_segment(
    starts: IntArray, positions: IntArray
) -> Iterator[tuple[int, IntArray | slice, IntArray]]:
    """Group positions by segment, ascending; those below 0 are left out.

    Yields:
        (segment number, where in ``positions``, row numbers in the segment, ascending).
    """
    if len(positions) < 2 or bool((positions[1:] >= positions[:-1]).all()):
        order, ordered = None, positions
    else:
        order = np.argsort(positions)
        ordered = positions[order]
    cuts = np.searchsorted(ordered, starts)
    for number in np.flatnonzero(np.diff(cuts)).tolist():
        part = slice(int(cuts[number]), int(cuts[number + 1]))
        yield number, part if order is None else order[part], ordered[part] - starts[number]


def _starts(segments: Sequence[Segment]) -> IntArray:
    return np.concatenate([[0], np.cumsum([s.rows for s in segments], dtype=np.int64)])


# Building


def _partitions(keys: Sequence[Keys], partition_rows: int) -> Iterator[tuple[Array, IntArray]]:
    """Yield ascending ranges of keys, each sorted; keys are digests, so ranges are even."""
    total = sum(len(k) for k in keys)
    bits = max(0, (max(total, 1) - 1) // partition_rows).bit_length()
    starts = np.concatenate([[0], np.cumsum([len(k) for k in keys])]).astype(np.int64)
    for partition in range(1 << bits):
        parts = [
            _in_partition(block, int(start) + offset, bits, partition)
            for start, one in zip(starts, keys, strict=False)
            for offset in range(0, len(one), _BLOCK_ROWS)
            for block in [one[offset : offset + _BLOCK_ROWS]]
        ]
        high, low, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = key_order(high, low, rows)
        yield high[order], rows[order]


def _in_partition(
    block: Keys, start: int, bits: int, partition: int
) -> tuple[Array, Array, IntArray]:
    high, low = key_halves(block)
    rows = np.arange(start, start + len(block), dtype=np.int64)
    if not bits:
        return high, low, rows
    inside = np.flatnonzero(high >> np.uint64(64 - bits) == partition)
    return high[inside], low[inside], rows[inside]


# The file


def _index_name(segments: Sequence[Segment]) -> str:
    names = "".join(segment.path.stem for segment in segments)
    return f"{hashlib.sha256(bytes.fromhex(names)).hexdigest()}.h5"


def persist_index(
    folder: Path,
    segments: Sequence[Segment],
    *,
    least_rows: int | None = None,
) -> Path | None:
    """Keep the sorted keys of these segments in a file of the encoder's folder.

    Args:
        folder: the encoder's.
        segments: in order of preference.
        least_rows: no file is written for fewer rows; None is what takes longer to sort.

    Returns:
        The file, or None where there are too few rows.

    Raises:
        StoreError: it cannot be written.
    """
    total = int(_starts(segments)[-1])
    if total < (_PERSIST_ROWS if least_rows is None else least_rows):
        return None
    name = _index_name(segments)
    if (folder / "index" / name).is_file():
        return folder / "index" / name
    keys = [segment.keys for segment in segments]
    make_folder(folder / "index")
    digests = np.frombuffer(bytes.fromhex("".join(s.path.stem for s in segments)), np.uint8)
    layout: Layout = {
        "segments": (np.dtype("uint8"), (len(segments), 32)),
        "high": (np.dtype("uint64"), (total,)),
        "rows": (np.dtype("int64"), (total,)),
    }
    attributes: dict[str, int | str] = {"format": FORMAT, "version": VERSION}
    with staged(folder / "index", ".h5") as (temporary, commit):
        with plain_writer(temporary, layout, attributes) as writer:
            writer.write("segments", 0, digests.reshape(-1, 32))
            done = 0
            for high, rows in _partitions(keys, _PARTITION_ROWS):
                writer.write("high", done, high)
                writer.write("rows", done, rows)
                done += len(rows)
        path: Path = commit(name)
        return path


def remove_stale_indexes(
    folder: Path, segments: Sequence[Segment], *, grace_seconds: float, dry_run: bool = False
) -> dict[Path, int]:
    """Delete index files that a newer one has made useless.

    Args:
        folder: the encoder's.
        segments: the live ones, in order of preference.
        grace_seconds: younger files stay, as some process may just have mapped them.
        dry_run: change nothing, only tell.

    Returns:
        What went (or would go), with its size in bytes.

    Raises:
        StoreError: one cannot be deleted.
    """
    used = _stored_part(folder, segments)
    current = _index_name([segments[n] for n in used.segments]) if used is not None else None
    gone = {}
    for path in (folder / "index" / name for name in list_names(folder / "index", INDEX_NAME)):
        with os_errors("deleting", path), contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.name == current or time.time() - status.st_mtime < grace_seconds:
                continue
            if not dry_run:
                path.unlink()
            gone[path] = status.st_size
    return gone


def unindexed_rows(folder: Path, segments: Sequence[Segment]) -> int:
    """Rows of these segments that no index file of the encoder's folder covers."""
    part = _stored_part(folder, segments)
    return int(_starts(segments)[-1]) - (len(part.rows) if part is not None else 0)


def _stored_part(folder: Path, segments: Sequence[Segment]) -> _Part | None:
    """The index file that covers the most rows and no segment that is gone."""
    number_of = {bytes.fromhex(s.path.stem): n for n, s in enumerate(segments)}
    best: _Part | None = None
    for name in list_names(folder / "index", INDEX_NAME):
        try:
            plain, digests = open_index(folder / "index" / name)
            total = plain.slots["high"].shape[0]
            if best is not None and total <= len(best.high):
                continue
            numbers = [number_of.get(digest, -1) for digest in digests]
            if not numbers or min(numbers) < 0 or sorted(set(numbers)) != numbers:
                continue
            if sum(segments[n].rows for n in numbers) == total:
                best = _Part(plain.array("high"), plain.array("rows"), np.array(numbers))
        except (FormatError, StoreError):
            # A cache: damaged, newer or just deleted, it is as if it were not there.
            continue
    return best


def open_index(path: Path) -> tuple[PlainFile, list[bytes]]:
    """Check the form of an index file, not its entries.

    Returns:
        The file, and the SHA-256 of each segment that it covers, in their order there.

    Raises:
        FormatError: damaged, hostile or newer.
        StoreError: it cannot be opened.
    """
    plain = open_plain(path, FORMAT, VERSION)
    slots = {name: (slot.dtype.name, slot.shape) for name, slot in plain.slots.items()}
    covered = slots.get("segments", ("", (0,)))
    total = slots.get("high", ("", (0,)))[1][0]
    expected = {
        "segments": ("uint8", (covered[1][0], 32)),
        "high": ("uint64", (total,)),
        "rows": ("int64", (total,)),
    }
    if slots != expected:
        raise FormatError(f"{path}: members {sorted(slots)} are not those of an index. Delete it.")
    return plain, [bytes(row) for row in plain.array("segments")]
