"""HDF5 files that hold a few plain arrays and scalar attributes, and nothing else.

In: arrays and attributes. Out: contiguous, unfiltered datasets that can be memory-mapped, or read
and written row by row. The library h5py lays a new file out; rows are then written, and files read,
past it: opening a file from a stranger runs none of libhdf5's code (see ``hdf5.parse``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from era_cache.disk.files import os_errors, regular_file
from era_cache.disk.hdf5.parse import ArraySlot, Attributes, parse_plain
from era_cache.disk.hdf5.write import Layout, PlainWriter, plain_writer, write_plain
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.types import Array, IntArray

__all__ = [
    "ArraySlot",
    "Attributes",
    "Layout",
    "Origin",
    "PlainFile",
    "PlainReader",
    "PlainWriter",
    "inspect",
    "open_plain",
    "plain_writer",
    "write_plain",
]


class Origin(Protocol):
    """Where a file's bytes come from that may not be on this machine yet."""

    def opened(self) -> AbstractContextManager[tuple[int, int]]:
        """Open what is here of it: a descriptor, and the whole file's size in bytes."""

    def bring(self, descriptor: int, starts: IntArray, ends: IntArray) -> None:
        """Make sure that ranges of bytes are here; before that they must not be read.

        Args:
            descriptor: as ``opened`` gave it.
            starts: (n,) int64, ascending.
            ends: (n,) int64, one past the last byte of each range.

        Raises:
            FormatError: what came is not the file's content.
            StoreError: they cannot be had.
        """


class PlainFile(NamedTuple):
    """A checked file: its attributes, the places of its datasets, and its size in bytes."""

    path: Path
    attributes: Attributes
    slots: Mapping[str, ArraySlot]
    size: int
    origin: Origin | None = None
    """None where the file is whole, at its path."""

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
                descriptor, size = stack.enter_context(_opened(self.path, self.origin))
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

    def bring(self, name: str, rows: IntArray | None = None) -> None:
        """Make sure that rows are on this machine, with few requests where they are elsewhere.

        Args:
            name: the dataset.
            rows: (n,) int64, ascending; None is all.

        Raises:
            FormatError, StoreError: as ``Origin.bring``.
        """
        origin, slot = self._plain.origin, self._plain.slots[name]
        if origin is None or not slot.nbytes or (rows is not None and not len(rows)):
            return
        width = slot.nbytes // slot.shape[0]
        if rows is None:
            first, last = np.zeros(1, np.int64), np.array([slot.shape[0]])
        else:
            gaps = np.flatnonzero(np.diff(rows) > 1)
            first, last = rows[np.r_[0, gaps + 1]], rows[np.r_[gaps, len(rows) - 1]] + 1
        origin.bring(self._descriptor, slot.offset + first * width, slot.offset + last * width)

    def bring_all(self) -> None:
        """Make sure that the whole file is on this machine. Raises as ``bring``."""
        if self._plain.origin is not None:
            whole = np.array([0, self._plain.size])
            self._plain.origin.bring(self._descriptor, whole[:1], whole[1:])

    def array(
        self, name: str, mode: Literal["r", "c"] = "r", *, rows: IntArray | None = None
    ) -> Array:
        """Memory-map a dataset; one of no elements gives an empty array. The map may stay longer.

        Args:
            name: the dataset.
            mode: "r" read-only; "c" on private pages, so that a write stays in this process.
            rows: (n,) int64, ascending: those that will be looked at, which are brought; None is
                all. They are asked for here, of the file that is mapped: what was brought through
                another descriptor may be another file's by now.

        Raises:
            StoreError: it cannot be mapped, or the file has become shorter.
        """
        slot = self._plain.slots[name]
        if slot.nbytes == 0:
            return np.empty(slot.shape, slot.dtype)
        self.bring(name, rows)
        path = self._plain.path
        with os_errors("mapping", path):
            if os.fstat(self._descriptor).st_size < slot.offset + slot.nbytes:
                raise StoreError(f"{path}: mapping failed: it was cut off meanwhile.")
            with os.fdopen(self._descriptor, "rb", closefd=False) as file:
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
        offset = slot.position(name, start, out)
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(f"'{name}': out is not contiguous, or read-only")
        path, left = self._plain.path, out.reshape(-1).view(np.uint8).data
        if self._plain.origin is not None and len(left):
            span = np.array([offset, offset + len(left)])
            self._plain.origin.bring(self._descriptor, span[:1], span[1:])
        with os_errors("reading", path):
            while len(left):
                count = os.preadv(self._descriptor, [left], offset)
                if not count:
                    raise StoreError(f"{path}: reading failed: it was cut off meanwhile.")
                left, offset = left[count:], offset + count


def open_plain(
    path: Path, expected_format: str, version: int, origin: Origin | None = None
) -> PlainFile:
    """Check a file of ours and return the places of its arrays, without reading them.

    Args:
        path: the file.
        expected_format: value that the attribute ``format`` must have.
        version: the newest version this code understands.
        origin: where its bytes come from; None where the file is whole, at its path.

    Raises:
        FormatError: not such a file, damaged, hostile, or newer.
        StoreError: it cannot be opened (for instance, it was removed).
    """
    plain = inspect(path, origin)
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


def inspect(path: Path, origin: Origin | None = None) -> PlainFile:
    """Check the structure of an HDF5 file and list its attributes and datasets.

    Args:
        path: the file.
        origin: where its bytes come from; None where the file is whole, at its path.

    Raises:
        FormatError: anything but plain contiguous datasets that lie inside the file.
        StoreError: the file cannot be opened.
    """
    with os_errors("opening", path), _opened(path, origin) as (descriptor, size):

        def read(count: int, address: int) -> bytes:
            if origin is not None and address < size:
                end = min(address + count, size)
                origin.bring(descriptor, np.array([address]), np.array([end]))
            return os.pread(descriptor, count, address)

        attributes, slots = parse_plain(path, read, size)
    return PlainFile(path, attributes, slots, size, origin)


def _opened(path: Path, origin: Origin | None) -> AbstractContextManager[tuple[int, int]]:
    return regular_file(path) if origin is None else origin.opened()
