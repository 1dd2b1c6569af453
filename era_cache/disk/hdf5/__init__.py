"""HDF5 files that hold a few plain arrays and scalar attributes, and nothing else.

In: arrays and attributes. Out: contiguous, unfiltered datasets that can be memory-mapped, or read
and written row by row. The library h5py lays a new file out; rows are then written, and files read,
past it: opening a file from a stranger runs none of libhdf5's code (see ``hdf5.parse``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from era_cache.disk.files import os_errors, regular_file
from era_cache.disk.hdf5.messages import ATTRIBUTE_LIMIT, DTYPES, NAME
from era_cache.disk.hdf5.parse import MAX_MEMBERS, ArraySlot, Attributes, parse_plain
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.types import Array

__all__ = [
    "ArraySlot",
    "Attributes",
    "Layout",
    "PlainFile",
    "PlainReader",
    "PlainWriter",
    "inspect",
    "open_plain",
    "plain_writer",
    "write_plain",
]

Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Dtype and shape of each dataset of a file to be written."""
# HDF5 keeps up to 8 members or attributes in an object header. Attributes beyond go where
# ``hdf5.parse`` does not look; links into a heap, of which it reads the first block only.
_COMPACT = 8
_MAX_LINK_BYTES = 480


class PlainFile(NamedTuple):
    """A checked file: its attributes, the places of its datasets, and its size in bytes."""

    path: Path
    attributes: Attributes
    slots: Mapping[str, ArraySlot]
    size: int

    def array(self, name: str) -> Array:
        """Memory-map a dataset read-only: ``PlainReader.array``, the file opened for it."""
        with self.opened() as reader:
            return reader.array(name)

    def read_rows(self, name: str, start: int, out: Array) -> None:
        """Read rows without mapping them: ``PlainReader.read``, the file opened for it."""
        with self.opened() as reader:
            reader.read(name, start, out)

    @contextlib.contextmanager
    def opened(self) -> Iterator[PlainReader]:
        """Hold the file open for many reads; several threads may share the reader.

        Raises:
            StoreError: the file is gone, changed, or cannot be opened.
        """
        with contextlib.ExitStack() as stack:
            # Only around the opening: errors of the caller's block are not this file's.
            with os_errors("opening", self.path):
                descriptor, size = stack.enter_context(regular_file(self.path))
            if size != self.size:
                raise StoreError(
                    f"{self.path}: has {size} bytes, but had {self.size} when it was checked. "
                    "Another program changes it; stop that and run the command again."
                )
            reader = PlainReader(self, descriptor)
            try:
                yield reader
            finally:
                reader.close()


class PlainReader:
    """Reads rows of an open file by position; made by ``PlainFile.opened``."""

    def __init__(self, plain: PlainFile, descriptor: int) -> None:
        self._plain, self._descriptor = plain, descriptor

    def close(self) -> None:
        """Forget the descriptor: its number may soon mean another file."""
        self._descriptor = -1

    def array(self, name: str, mode: Literal["r", "c"] = "r") -> Array:
        """Memory-map a dataset; one of no elements gives an empty array. The map may stay longer.

        Args:
            name: the dataset.
            mode: "r" read-only; "c" on private pages, so that a write stays in this process.

        Raises:
            StoreError: it cannot be mapped.
        """
        slot = self._plain.slots[name]
        if slot.nbytes == 0:
            return np.empty(slot.shape, slot.dtype)
        with (
            os_errors("mapping", self._plain.path),
            os.fdopen(self._descriptor, "rb", closefd=False) as file,
        ):
            return np.memmap(file, slot.dtype, mode, slot.offset, slot.shape)

    def read(self, name: str, start: int, out: Array) -> None:
        """Fill ``out`` with rows of a dataset; other threads run meanwhile.

        Args:
            name: the dataset.
            start: number of the first row.
            out: (k,) or (k, d) of the dataset's dtype and row length, contiguous, writable.

        Raises:
            ValueError: ``out`` does not fit, or there are fewer rows.
            StoreError: the file cannot be read, or has become shorter.
        """
        slot = self._plain.slots[name]
        offset = _position(name, slot, start, out)
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(f"'{name}': out is not contiguous, or read-only")
        path, left = self._plain.path, out.reshape(-1).view(np.uint8).data
        with os_errors("reading", path):
            while len(left):
                count = os.preadv(self._descriptor, [left], offset)
                if not count:
                    raise StoreError(f"{path}: reading failed: it was cut off meanwhile.")
                left, offset = left[count:], offset + count


class PlainWriter:
    """Writes the rows of a new file in any order; made by ``plain_writer``."""

    def __init__(self, slots: Mapping[str, ArraySlot], descriptor: int) -> None:
        self._slots, self._descriptor = slots, descriptor
        # Ranges of rows written, a range that goes on where the last one ended joined with it.
        self._written: dict[str, list[tuple[int, int]]] = {name: [] for name in slots}

    def write(self, name: str, start: int, block: Array) -> None:
        """Write ``block`` to the rows from ``start`` on.

        Args:
            name: the dataset.
            start: number of the first row.
            block: (k,) or (k, d) of the dataset's dtype and row length.

        Raises:
            ValueError: the block does not fit.
            OSError: the disk is full or fails.
        """
        offset, stop = _position(name, self._slots[name], start, block), start + len(block)
        left = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        while len(left):
            count = os.pwrite(self._descriptor, left, offset)
            left, offset = left[count:], offset + count
        ranges = self._written[name]
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        if start < stop:
            ranges.append((start, stop))

    def close(self) -> None:
        """Forget the descriptor: its number may soon mean another file."""
        self._descriptor = -1

    def check_complete(self) -> None:
        """Raise ``ValueError`` unless each row of each dataset was written exactly once."""
        for name, ranges in self._written.items():
            rows = self._slots[name].shape[0]
            end = 0
            for start, stop in [*sorted(ranges), (rows, rows)]:
                if start != end:
                    what = "not written" if start > end else "written twice"
                    raise ValueError(f"'{name}': row {min(start, end)} of {rows} was {what}")
                end = stop


def _position(name: str, slot: ArraySlot, start: int, block: Array) -> int:
    """Check rows against a dataset and give the place of the first in the file."""
    if block.dtype != slot.dtype or block.shape[1:] != slot.shape[1:] or not block.ndim:
        raise ValueError(
            f"'{name}' has dtype {slot.dtype} and shape {slot.shape}; "
            f"given are {block.dtype} and {block.shape}"
        )
    if start < 0 or start + len(block) > slot.shape[0]:
        raise ValueError(f"'{name}' has {slot.shape[0]} rows, not {start} to {start + len(block)}")
    return slot.offset + start * (slot.nbytes // max(1, slot.shape[0]))


@contextlib.contextmanager
def plain_writer(path: Path, layout: Layout, attributes: Attributes) -> Iterator[PlainWriter]:
    """Create an HDF5 file whose rows the block writes (not staged: see ``files.staged``).

    Args:
        path: the file to create.
        layout: dtype and shape, of one or two dimensions, of each dataset.
        attributes: text (stored as fixed-length UTF-8) or 64-bit integers, at most 8.

    Yields:
        The writer. Each row of each dataset must be written exactly once; rows may be fewer at a
        time than memory holds. Nothing is fsynced here.

    Raises:
        ValueError: what is asked for cannot be stored, or a row is missing or written twice.
        OSError: the disk is full or the path cannot be written.
    """
    _check_storable(layout, attributes)
    _lay_out(path, layout, attributes)
    with regular_file(path, os.O_RDWR) as (descriptor, size):
        _, slots = parse_plain(path, descriptor, size)
        if {name: (slot.dtype, slot.shape) for name, slot in slots.items()} != dict(layout):
            raise FormatError(f"{path}: HDF5 laid out other datasets than asked for.")
        writer = PlainWriter(slots, descriptor)
        try:
            yield writer
        finally:
            writer.close()
        writer.check_complete()


def _check_storable(layout: Layout, attributes: Attributes) -> None:
    """Refuse what ``inspect`` would refuse to read."""
    names = [*layout, *attributes]
    if wrong := [name for name in names if not NAME.fullmatch(name)]:
        raise ValueError(f"'{wrong[0]}' cannot be the name of a dataset or attribute")
    link_bytes = sum(11 + len(name) for name in layout)
    if len(layout) > MAX_MEMBERS or (len(layout) > _COMPACT and link_bytes > _MAX_LINK_BYTES):
        raise ValueError(f"{len(layout)} datasets are too many, or their names too long together")
    if len(attributes) > _COMPACT:
        raise ValueError(f"{len(attributes)} attributes; at most {_COMPACT} can be stored")
    for name, (dtype, shape) in layout.items():
        if dtype not in DTYPES or len(shape) not in (1, 2):
            raise ValueError(f"'{name}' cannot be stored: dtype {dtype}, shape {shape}")
    for name, value in attributes.items():
        if isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise ValueError(f"attribute '{name}' is not a 64-bit integer")
        elif value.endswith("\0") or len(value.encode("utf-8")) > ATTRIBUTE_LIMIT:
            raise ValueError(f"attribute '{name}' ends with NUL or is too long")


def _lay_out(path: Path, layout: Layout, attributes: Attributes) -> None:
    """Create the file with room for all data, and close it."""
    import h5py

    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # Locking off: locks fail on network file systems (h5py issue 1101), and nobody else can know
    # the temporary name. Orders are not tracked, whatever the user's settings of h5py say.
    with (
        _system_errors(),
        h5py.File(path, "w", libver="v110", locking=False, track_order=False) as file,
    ):
        for key, value in attributes.items():
            data = np.int64(value) if isinstance(value, int) else np.bytes_(value.encode("utf-8"))
            file.attrs.create(key, data)
        for name, (dtype, shape) in layout.items():
            file.create_dataset(
                name, shape, dtype, track_times=False, track_order=False, dcpl=plist.copy()
            )


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Turn what HDF5 makes of a full disk into the system's own error.

    A write that fails raises ``OSError``, but closing the file then fails, too, with
    ``RuntimeError``; both carry the system's number in their text.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        found = re.search(r"errno = (\d+)", f"{error} {error.__context__}")
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def write_plain(path: Path, arrays: Mapping[str, Array], attributes: Attributes) -> None:
    """Write whole arrays to a new HDF5 file: ``plain_writer``, for what memory holds."""
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    with plain_writer(path, layout, attributes) as writer:
        for name, array in arrays.items():
            writer.write(name, 0, array)


def open_plain(path: Path, expected_format: str, version: int) -> PlainFile:
    """Check a file of ours and return the places of its arrays, without reading them.

    Args:
        path: the file.
        expected_format: value that the attribute ``format`` must have.
        version: the newest version this code understands.

    Raises:
        FormatError: not such a file, damaged, hostile, or newer.
        StoreError: it cannot be opened (for instance, it was removed).
    """
    plain = inspect(path)
    if plain.attributes.get("format") != expected_format:
        raise FormatError(f"{path}: not an {expected_format} file.")
    found = plain.attributes.get("version")
    if not isinstance(found, int) or found < 1:
        raise FormatError(f"{path}: no valid format version.")
    if found > version:
        raise NewerError(
            f"{path}: format version {found}, but this ERA Cache reads up to {version}. "
            "Install a newer ERA Cache."
        )
    return plain


def inspect(path: Path) -> PlainFile:
    """Check the structure of an HDF5 file and list its attributes and datasets.

    Raises:
        FormatError: anything but plain contiguous datasets that lie inside the file.
        StoreError: the file cannot be opened.
    """
    with os_errors("opening", path), regular_file(path) as (descriptor, size):
        attributes, slots = parse_plain(path, descriptor, size)
    return PlainFile(path, attributes, slots, size)
