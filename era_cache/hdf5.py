"""HDF5 files that hold a few plain arrays and scalar attributes, and nothing else.

In: arrays and attributes. Out: contiguous, unfiltered datasets that can be memory-mapped. A file
from a stranger is checked completely before anything is allocated for it: HDF5 can link to other
files, decompress without bound and declare any shape, and none of that is accepted here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.errors import FormatError, StoreError
from era_cache.files import os_errors
from era_cache.types import Array

__all__ = ["ArraySlot", "Attributes", "PlainFile", "inspect", "open_plain", "write_plain"]

Attributes = dict[str, int | str]
_MAX_ATTRIBUTE_BYTES = 60_000
_MAX_ATTRIBUTES = 32


class ArraySlot(NamedTuple):
    """Where one dataset lies in the file: enough to memory-map it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


class PlainFile(NamedTuple):
    """A checked file: its attributes and the places of its datasets."""

    path: Path
    attributes: Attributes
    slots: Mapping[str, ArraySlot]

    def array(self, name: str) -> Array:
        """Memory-map a dataset read-only; a dataset of no elements gives an empty array.

        Raises:
            StoreError: the file is gone or cannot be mapped.
        """
        slot = self.slots[name]
        if slot.nbytes == 0:
            return np.empty(slot.shape, slot.dtype)
        with os_errors("mapping", self.path):
            return np.memmap(
                self.path, dtype=slot.dtype, mode="r", offset=slot.offset, shape=slot.shape
            )


def write_plain(path: Path, arrays: Mapping[str, Array], attributes: Attributes) -> None:
    """Write arrays and attributes to a new HDF5 file (not staged: see ``files.staged``).

    Args:
        path: the file to create.
        arrays: name to array; each is written contiguous, in its own dtype.
        attributes: text (stored as fixed-length UTF-8) or 64-bit integers.

    Raises:
        OSError: the disk is full or the path cannot be written.
    """
    import h5py

    # Locking off: locks fail on network file systems (h5py issue 1101), and nobody else can know
    # the temporary name.
    with _system_errors(), h5py.File(path, "w", libver="v110", locking=False) as file:
        for key, value in attributes.items():
            data = np.int64(value) if isinstance(value, int) else np.bytes_(value.encode("utf-8"))
            file.attrs.create(key, data)
        for name, array in arrays.items():
            dataset = file.create_dataset(
                name, shape=array.shape, dtype=array.dtype, track_times=False
            )
            if array.size:
                dataset[...] = array


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


@contextlib.contextmanager
def _hdf5_errors(path: Path) -> Iterator[None]:
    """HDF5 reports damage in many ways; all of them mean the file is not one of ours."""
    try:
        yield
    except FormatError:
        raise
    except FileNotFoundError as error:
        # Not damage: another process merged the file away after the first look at it.
        raise StoreError(f"{path}: opening failed: it was removed meanwhile.") from error
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise FormatError(f"{path}: damaged or not an HDF5 file: {error}") from error


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
        raise FormatError(
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
    import h5py

    with os_errors("opening", path):
        size = path.stat().st_size
        with path.open("rb") as probe:
            if probe.read(8) != b"\x89HDF\r\n\x1a\n":
                raise FormatError(f"{path}: not an HDF5 file.")
    with _hdf5_errors(path), h5py.File(path, "r", locking=False) as file:
        attributes = _read_attributes(path, file)
        slots = {}
        if len(file) > _MAX_ATTRIBUTES:
            raise FormatError(f"{path}: {len(file)} members, more than any format here has.")
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise FormatError(f"{path}: '{name}' is a link to elsewhere; links are refused.")
            slots[str(name)] = _slot(path, size, file[name])
        return PlainFile(path, attributes, slots)


def _slot(path: Path, size: int, dataset: Any) -> ArraySlot:
    import h5py

    name = dataset.name
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: '{name}' is not a dataset.")
    plist = dataset.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count():
        raise FormatError(f"{path}: '{name}' is not stored in one piece inside the file.")
    if plist.get_nfilters():
        raise FormatError(f"{path}: '{name}' is filtered (compressed); filters are refused.")
    dtype = dataset.dtype
    if dtype.hasobject or dtype.kind not in "uif" or dtype.byteorder == ">":
        raise FormatError(f"{path}: '{name}' has dtype {dtype}, which no format here uses.")
    if dataset.shape is None or len(dataset.shape) > 2:
        raise FormatError(f"{path}: '{name}' has shape {dataset.shape}.")
    slot = ArraySlot(dtype, tuple(int(n) for n in dataset.shape), int(dataset.id.get_offset() or 0))
    if slot.nbytes and (slot.offset <= 0 or slot.offset + slot.nbytes > size):
        raise FormatError(
            f"{path}: '{name}' claims {slot.nbytes} bytes at {slot.offset}, "
            f"but the file has {size}."
        )
    return slot


def _read_attributes(path: Path, file: Any) -> Attributes:
    import h5py

    count = h5py.h5a.get_num_attrs(file.id)
    if count > _MAX_ATTRIBUTES:
        raise FormatError(f"{path}: {count} attributes, more than any format here has.")
    attributes: Attributes = {}
    for index in range(count):
        attribute = h5py.h5a.open(file.id, index=index)
        name, dtype = attribute.name.decode("utf-8"), attribute.dtype
        if attribute.shape != () or attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            raise FormatError(f"{path}: attribute '{name}' is not a small scalar.")
        if dtype.kind not in "Si" or dtype.hasobject:
            raise FormatError(f"{path}: attribute '{name}' has dtype {dtype}.")
        buffer = np.empty((), dtype=dtype)
        attribute.read(buffer)
        attributes[name] = int(buffer) if dtype.kind == "i" else bytes(buffer[()]).decode("utf-8")
    return attributes
