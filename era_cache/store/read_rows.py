"""Reading rows in bulk: from segments straight into the array that is wanted.

In: an index's positions. Out: float32 rows in the order asked for, read in ascending order of the
file by several threads, through small buffers, so that memory stays that of the result.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.keys import distinct_rows, key_halves
from era_cache.disk.hdf5 import PlainReader
from era_cache.errors import FormatError, StoreError
from era_cache.store.key_index import KeyIndex
from era_cache.store.precision import LARGEST_SCALE, StoredRows, all_finite
from era_cache.store.retired import retired_path
from era_cache.store.segment import Segment, has_vanished
from era_cache.store.sorted_keys import by_segment
from era_cache.types import Array, FloatArray, IntArray, Keys

__all__ = ["mapped_rows", "read_blocks", "read_rows", "repeats_a_key"]

_BUFFER_BYTES = 1 << 20
# Rows of a task: enough to keep a thread busy, few enough to share the work evenly.
_TASK_ROWS = 1 << 14
# Reading a whole stretch costs less than picking rows while at least this share is wanted.
_DENSE = 0.25
_KEY_BLOCK_ROWS = 1 << 16
# First halves of keys sorted at a time.
_SORTED_ROWS = 1 << 20
_THREADS = min(8, os.cpu_count() or 1)


class _Task(NamedTuple):
    segment: Segment
    rows: IntArray
    targets: IntArray | slice


def read_rows(index: KeyIndex, positions: IntArray, out: Array) -> None:
    """Copy the rows at ``positions`` into ``out``, in that order.

    Args:
        index: that gave the positions.
        positions: (n,) int64, each at least 0; repeats are fine.
        out: (n, d) float32; or float16 where all rows are stored so.

    Raises:
        FormatError: a stored value is not finite: the segment, which is named, is damaged.
        StoreError: a segment cannot be read any more.
    """
    tasks = list(_tasks(index, positions))
    if len(tasks) == 1:
        _read_task(tasks[0], out)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(lambda task: _read_task(task, out), tasks):
            pass


def _tasks(index: KeyIndex, positions: IntArray) -> Iterator[_Task]:
    for number, where, rows in by_segment(index.starts, positions):
        index.segments[number].bring(rows)
        for start in range(0, len(rows), _TASK_ROWS):
            end = min(start + _TASK_ROWS, len(rows))
            if isinstance(where, slice):
                targets: IntArray | slice = slice(where.start + start, where.start + end)
            else:
                targets = where[start:end]
            yield _Task(index.segments[number], rows[start:end], targets)


def _read_task(task: _Task, out: FloatArray) -> None:
    """Read ascending rows of one segment into their places."""
    rows, segment = task.rows, task.segment
    row_bytes = segment.dim * segment.plain.slots["vectors"].dtype.itemsize
    size = max(1, _BUFFER_BYTES // row_bytes)
    if len(rows) < _DENSE * (rows[-1] - rows[0] + 1):
        _pick_rows(task, size, out)
        return
    buffer = StoredRows.empty(min(size, int(rows[-1] - rows[0]) + 1), segment.dim, segment.dtype)
    with _opened(segment) as reader:
        begin = 0
        while begin < len(rows):
            first = int(rows[begin])
            end = int(np.searchsorted(rows, first + size, side="left"))
            wanted = rows[begin:end] - first
            block = buffer.take(slice(0, int(wanted[-1]) + 1))
            _fill(reader, segment, first, block)
            if not np.all(np.diff(wanted) == 1):
                block = block.take(wanted)
            _place(block, task.targets, begin, end, out)
            begin = end


def _pick_rows(task: _Task, size: int, out: FloatArray) -> None:
    """Read rows that lie far apart through a memory map, whose pages are given back."""
    plain = task.segment.plain
    with _opened(task.segment) as reader:
        names = plain.slots.keys() - {"keys"}
        arrays = {name: reader.array(name, rows=task.rows) for name in names}
    for begin in range(0, len(task.rows), size):
        rows = task.rows[begin : begin + size]
        scales = arrays["scales"][rows] if "scales" in arrays else None
        block = StoredRows(arrays["vectors"][rows], scales)
        _check(task.segment, block)
        _place(block, task.targets, begin, begin + len(rows), out)
        _give_back(arrays["vectors"])


def _place(
    block: StoredRows, targets: IntArray | slice, begin: int, end: int, out: FloatArray
) -> None:
    if isinstance(targets, slice):
        block.to_float32(out[targets.start + begin : targets.start + end])
    elif block.scales is None:
        out[targets[begin:end]] = block.values
    else:
        out[targets[begin:end]] = block.to_float32()


def _fill(reader: Any, segment: Segment, start: int, block: StoredRows) -> None:
    for name, array in block.arrays().items():
        reader.read(name, start, array)
    _check(segment, block)


def _check(segment: Segment, block: StoredRows) -> None:
    sound = all_finite(block.values)
    if block.scales is not None:
        sound = bool(((block.scales > 0) & (block.scales <= LARGEST_SCALE)).all())
    if not sound:
        raise FormatError(
            f"{segment.path}: a stored vector is not finite; the segment is damaged. Set it aside "
            "with 'era-store verify --quarantine STORE' and run era-embed again."
        )


def _give_back(array: Array) -> None:
    """Drop a map's pages from this process's memory; they stay in the system's cache."""
    pages = getattr(array, "_mmap", None)
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


@contextlib.contextmanager
def _opened(segment: Segment) -> Iterator[Any]:
    """Open a segment's file, also where it was retired since it was found."""
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(segment.plain.opened())
        except StoreError as error:
            if not has_vanished(error):
                raise
            kept = segment.plain._replace(path=retired_path(segment.path))
            reader = stack.enter_context(kept.opened())
        yield reader


def mapped_rows(index: KeyIndex, positions: IntArray) -> FloatArray | None:
    """The rows without a copy, where float32 rows are wanted just as they lie in one segment.

    Returns:
        (n, d) float32 on private pages of the file (a write stays in this process), or None.

    Raises:
        FormatError: a stored value is not finite.
        StoreError: the segment cannot be opened any more.
    """
    if not len(positions) or np.any(np.diff(positions) != 1):
        return None
    number = int(np.searchsorted(index.starts, positions[0], side="right")) - 1
    if positions[-1] >= index.starts[number + 1] or index.segments[number].dtype != "float32":
        return None
    segment = index.segments[number]
    with _opened(segment) as reader:
        mapped = reader.array("vectors", mode="c", rows=positions - index.starts[number])
    start = int(positions[0] - index.starts[number])
    rows: FloatArray = np.asarray(mapped)[start : start + len(positions)]
    size = max(1, _BUFFER_BYTES // (4 * segment.dim))
    for begin in range(0, len(rows), size):
        _check(segment, StoredRows(rows[begin : begin + size], None))
    return rows


def read_blocks(segment: Segment, block_bytes: int = 8 << 20) -> Iterator[tuple[Keys, StoredRows]]:
    """Read a segment from its beginning to its end; the blocks' memory is used again.

    Raises:
        FormatError: a stored value is not finite.
        StoreError: the segment cannot be read any more.
    """
    row_bytes = segment.dim * segment.plain.slots["vectors"].dtype.itemsize + 16
    size = min(segment.rows, max(1, block_bytes // row_bytes))
    buffer = StoredRows.empty(size, segment.dim, segment.dtype)
    keys = np.empty((size, 16), dtype=np.uint8)
    segment.bring()
    with _opened(segment) as reader:
        for start in range(0, segment.rows, size):
            rows = slice(0, min(size, segment.rows - start))
            reader.read("keys", start, keys[rows])
            _fill(reader, segment, start, buffer.take(rows))
            yield keys[rows], buffer.take(rows)


def repeats_a_key(segment: Segment, reader: PlainReader) -> bool:
    """Whether some key occurs twice, found by sorting the first halves, a range at a time."""
    bits = max(0, (segment.rows - 1) // _SORTED_ROWS).bit_length()
    for part in range(1 << bits):
        ranges = [_in_range(key_halves(k)[0], bits, part) for k in _key_blocks(segment, reader)]
        high = np.concatenate(ranges)
        high.sort()
        suspects = high[1:][high[1:] == high[:-1]]
        if len(suspects):
            blocks = _key_blocks(segment, reader)
            keys = np.concatenate([k[np.isin(key_halves(k)[0], suspects)] for k in blocks])
            if len(distinct_rows(keys)) < len(keys):
                return True
    return False


def _in_range(high: Array, bits: int, part: int) -> Array:
    """A copy of those that begin with the ``bits`` bits of ``part``."""
    return high[high >> np.uint64(64 - bits) == part] if bits else high.copy()


def _key_blocks(segment: Segment, reader: PlainReader) -> Iterator[Keys]:
    """Read the keys block by block; their memory is used again."""
    size = min(segment.rows, _KEY_BLOCK_ROWS)
    buffer = np.empty((size, 16), np.uint8)
    for start in range(0, segment.rows, size):
        block = buffer[: min(size, segment.rows - start)]
        reader.read("keys", start, block)
        yield block
