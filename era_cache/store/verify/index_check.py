"""Whether index files tell the truth about the segments that they cover.

In: an index file and the segments of its encoder. Out: what is wrong with it. An index may be
wrong in ways that a lookup cannot see: it then hides rows, which would be encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from era_cache.collection.keys import key_words
from era_cache.disk.hdf5 import PlainFile
from era_cache.store.key_index import by_segment, open_index
from era_cache.store.segment import Segment
from era_cache.types import Array, IntArray

__all__ = ["index_problem"]

_BLOCK_ROWS = 1 << 18


def index_problem(path: Path, segments: Sequence[Segment]) -> str | None:
    """Compare an index file with the keys of its segments, entry by entry.

    Args:
        path: the index file.
        segments: all that are live and sound, in order of preference.

    Returns:
        What is wrong with it; None also where it covers a segment that is not there, so that no
        reader takes it.

    Raises:
        FormatError: its form is damaged, or it is newer.
        StoreError: it cannot be read.
    """
    plain, digests = open_index(path)
    name = hashlib.sha256(b"".join(digests)).hexdigest()
    if path.name != f"{name}.h5":
        return "its name is not that of the segments it lists"
    number_of = {bytes.fromhex(s.path.stem): number for number, s in enumerate(segments)}
    numbers = [number_of[digest] for digest in digests if digest in number_of]
    if len(numbers) < len(digests) or not digests:
        return None
    if sorted(set(numbers)) != numbers:
        return "it lists segments in another order than that of preference"
    covered = [segments[number] for number in numbers]
    total = sum(segment.rows for segment in covered)
    if plain.slots["high"].shape[0] != total:
        return f"it has {plain.slots['high'].shape[0]} entries, but its segments {total} rows"
    return _entries_problem(plain, covered)


def _entries_problem(plain: PlainFile, segments: Sequence[Segment]) -> str | None:
    """Check each entry, and that they ascend by key, then row: so each row has its own."""
    counts = [segment.rows for segment in segments]
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    total = int(starts[-1])
    with plain.opened() as reader:
        # Each block begins with the last entry of the one before, to compare across the seam.
        for start in range(0, total, _BLOCK_ROWS):
            first = max(0, start - 1)
            size = min(_BLOCK_ROWS, total - start) + start - first
            high, rows = np.empty(size, np.uint64), np.empty(size, np.int64)
            reader.read("high", first, high)
            reader.read("rows", first, rows)
            if rows.min() < 0 or rows.max() >= total:
                return "an entry names a row that does not exist"
            words = _words_of(segments, starts, rows)
            if not np.array_equal(words[:, 0], high):
                return "an entry names a row of another key"
            if not _ascends(words, rows):
                return "its entries are not in order"
    return None


def _words_of(segments: Sequence[Segment], starts: IntArray, rows: IntArray) -> Array:
    """Both halves of the key of each row, (n, 2) uint64; maps are let go again at once."""
    words = np.empty((len(rows), 2), np.uint64)
    for number, where, own in by_segment(starts, rows):
        words[where] = key_words(segments[number].keys[own])
    return words


def _ascends(words: Array, rows: IntArray) -> bool:
    (high, low), (next_high, next_low) = words[:-1].T, words[1:].T
    by_row = (low < next_low) | ((low == next_low) & (rows[:-1] < rows[1:]))
    return bool(((high < next_high) | ((high == next_high) & by_row)).all())
