"""Sorted keys of segments: made by sorting, kept in a file of the encoder folder, and read back.

In: the checked segments of an encoder, or an index file that anyone may have made. Out: ascending
first halves of keys with row numbers. The file is a cache: what a damaged or hostile one says is
never more than a guess at where a key is.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import key_halves, key_order, key_words
from era_cache.disk.files import make_folder, os_errors, staged
from era_cache.disk.hdf5 import Layout, PlainFile, open_plain, plain_writer
from era_cache.errors import FormatError, StoreError
from era_cache.store.names import INDEX_NAME, list_names
from era_cache.store.segment import Segment
from era_cache.types import Array, IntArray, Keys

__all__ = [
    "SortedKeys",
    "by_segment",
    "index_problem",
    "is_worth_a_file",
    "persist_index",
    "remove_stale_indexes",
    "row_starts",
    "sorted_ranges",
    "stored_keys",
    "unindexed_rows",
]

FORMAT, VERSION = "era-index", 1
# Fewer rows are sorted in less time than a file takes to write.
_PERSIST_ROWS = 50_000
# Rows sorted at a time, an eighth of all within these bounds: each takes about 50 bytes of memory,
# and for each part all keys are gone through.
_PARTITION_ROWS = 1 << 20, 1 << 23
_BLOCK_ROWS = 1 << 20
_CHECKED_ROWS = 1 << 18


class SortedKeys(NamedTuple):
    """A sorted list of the keys of some of the segments.

    ``high`` (m,) uint64 are first halves of keys, ascending; ``rows`` (m,) int64 number the rows of
    the part's own segments, whose numbers among all segments are ``segments``.
    """

    high: Array
    rows: IntArray
    segments: IntArray


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


def row_starts(segments: Sequence[Segment]) -> IntArray:
    """Position of the first row of each of s segments, and the number of rows, (s + 1,) int64."""
    return np.concatenate([[0], np.cumsum([s.rows for s in segments], dtype=np.int64)])


def sorted_ranges(
    lengths: Sequence[int], keys_of: Callable[[int], Keys]
) -> Iterator[tuple[Array, IntArray]]:
    """Yield ascending ranges of keys, each sorted; keys are digests, so ranges are even.

    Args:
        lengths: keys of each segment.
        keys_of: gives the keys of a segment by number, (n, 16) uint8; they are let go again.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(starts[-1])
    fewest, most = _PARTITION_ROWS
    bits = (max(total - 1, 0) // min(max(total >> 3, fewest), most)).bit_length()
    for partition in range(1 << bits):
        if bits:
            parts = [
                _in_partition(block, at, bits, partition)
                for at, block in _key_blocks(starts, keys_of)
            ]
            high, low, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
        else:
            high, low = np.empty(total, np.uint64), np.empty(total, np.uint64)
            for at, block in _key_blocks(starts, keys_of):
                high[at : at + len(block)], low[at : at + len(block)] = key_halves(block)
            rows = np.arange(total, dtype=np.int64)
        order = key_order(high, low, rows)
        yield high[order], rows[order]


def _key_blocks(starts: IntArray, keys_of: Callable[[int], Keys]) -> Iterator[tuple[int, Keys]]:
    for number, start in enumerate(starts[:-1].tolist()):
        keys = keys_of(number)
        for offset in range(0, len(keys), _BLOCK_ROWS):
            yield start + offset, keys[offset : offset + _BLOCK_ROWS]


def _in_partition(
    block: Keys, start: int, bits: int, partition: int
) -> tuple[Array, Array, IntArray]:
    high, low = key_halves(block)
    inside = np.flatnonzero(high >> np.uint64(64 - bits) == partition)
    return high[inside], low[inside], start + inside


def _index_name(segments: Sequence[Segment]) -> str:
    names = "".join(segment.path.stem for segment in segments)
    return f"{hashlib.sha256(bytes.fromhex(names)).hexdigest()}.h5"


def is_worth_a_file(rows: int) -> bool:
    """Whether so many keys take longer to sort than a file of them takes to write."""
    return rows >= _PERSIST_ROWS


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
    total = int(row_starts(segments)[-1])
    if not (is_worth_a_file(total) if least_rows is None else total >= least_rows):
        return None
    name = _index_name(segments)
    if (folder / "index" / name).is_file():
        return folder / "index" / name
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
            lengths = [segment.rows for segment in segments]
            for high, rows in sorted_ranges(lengths, lambda number: segments[number].keys):
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
    used = stored_keys(folder, segments)
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
    part = stored_keys(folder, segments)
    return int(row_starts(segments)[-1]) - (len(part.rows) if part is not None else 0)


def stored_keys(folder: Path, segments: Sequence[Segment]) -> SortedKeys | None:
    """The index file that covers the most rows and no segment that is gone."""
    number_of = {bytes.fromhex(s.path.stem): n for n, s in enumerate(segments)}
    best: SortedKeys | None = None
    for name in list_names(folder / "index", INDEX_NAME):
        try:
            plain, digests = _open_index(folder / "index" / name)
            total = plain.slots["high"].shape[0]
            if best is not None and total <= len(best.high):
                continue
            numbers = [number_of.get(digest, -1) for digest in digests]
            if not numbers or min(numbers) < 0 or sorted(set(numbers)) != numbers:
                continue
            if sum(segments[n].rows for n in numbers) == total:
                best = SortedKeys(plain.array("high"), plain.array("rows"), np.array(numbers))
        except (FormatError, StoreError):
            # A cache: damaged, newer or just deleted, it is as if it were not there.
            continue
    return best


def _open_index(path: Path) -> tuple[PlainFile, list[bytes]]:
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
    plain, digests = _open_index(path)
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
        for start in range(0, total, _CHECKED_ROWS):
            first = max(0, start - 1)
            size = min(_CHECKED_ROWS, total - start) + start - first
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
