"""New HDF5 files: laid out by h5py, their rows then written past it.

In: a layout, attributes, and rows in any order. Out: a file that ``hdf5.parse`` reads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.disk.files import regular_file
from era_cache.disk.hdf5.messages import ATTRIBUTE_LIMIT, DTYPES, NAME
from era_cache.disk.hdf5.parse import MAX_MEMBERS, ArraySlot, Attributes, parse_plain
from era_cache.errors import FormatError
from era_cache.types import Array

__all__ = ["Layout", "PlainWriter", "plain_writer", "write_plain"]

Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Dtype and shape of each dataset of a file to be written."""
# HDF5 keeps up to 8 members or attributes in an object header. Attributes beyond go where
# ``hdf5.parse`` does not look; links into a heap, of which it reads the first block only.
_COMPACT = 8
_MAX_LINK_BYTES = 480


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
        offset, stop = self._slots[name].position(name, start, block), start + len(block)
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
        _, slots = parse_plain(path, partial(os.pread, descriptor), size)
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
