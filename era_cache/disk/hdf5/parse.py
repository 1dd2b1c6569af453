"""Where the arrays and attributes of an HDF5 file of ours lie, read without the HDF5 library.

In: an open file from anyone. Out: its attributes and the places of its datasets, or a
``FormatError``. libhdf5 accepts far more than was ever written here, and crashes, hangs or
allocates without bound on crafted files; this reader knows only what ``hdf5.plain_writer`` writes
(superblock version 3, object headers version 2), reads at most 1 MiB, and follows nothing twice.
The layouts are those of the "HDF5 File Format Specification, Version 3.0".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.disk.hdf5.lookup3 import lookup3
from era_cache.disk.hdf5.messages import (
    UNDEFINED,
    Fields,
    NotOursError,
    attribute,
    check_fill_value,
    dataspace,
    datatype,
    layout,
    link,
    link_info,
)
from era_cache.errors import FormatError
from era_cache.types import Array

__all__ = ["MAX_MEMBERS", "ArraySlot", "Attributes", "parse_plain"]

Attributes = dict[str, int | str]
_Read = Callable[[int, int], bytes]
"""Gives (count, address) as ``os.pread`` does for one file."""
MAX_MEMBERS = 32
"""Datasets in a file, and also attributes, at most."""
_MAX_BYTES = 1 << 20
_MAX_BLOCKS = 16
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK_SIZE = 48
_CHECKSUM_SIZE = 4
# Message types, section IV.A.2.
_NIL, _SPACE, _LINK_INFO, _TYPE, _FILL, _LINK, _LAYOUT = 0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x08
_GROUP_INFO, _ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO = 0x0A, 0x0C, 0x10, 0x15
_REFUSED = {
    0x07: "data in other files",
    0x0B: "filters (compression)",
    0x11: "a symbol table",
    0x16: "several links to one object",
}
_SHARED = 0x02
# "Constant" and "do not share".
_KNOWN_FLAGS = 0x05
# The heap of a group with more than 8 links (section III.G): one block of 512 bytes holds all.
_HEAP_SIZE, _HEAP_BLOCK_SIZE, _TREE_SIZE, _RECORD_SIZE = 146, 512, 38, 11


class ArraySlot(NamedTuple):
    """Where one dataset lies in the file: enough to memory-map it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def position(self, name: str, start: int, block: Array) -> int:
        """Check rows of the dataset ``name`` and give the place of the first in the file.

        Raises ``ValueError`` where ``block`` has another form, or ends behind the last row.
        """
        if block.dtype != self.dtype or block.shape[1:] != self.shape[1:] or not block.ndim:
            raise ValueError(
                f"'{name}' has dtype {self.dtype} and shape {self.shape}; "
                f"given are {block.dtype} and {block.shape}"
            )
        if start < 0 or start + len(block) > self.shape[0]:
            rows = f"{start} to {start + len(block)}"
            raise ValueError(f"'{name}' has {self.shape[0]} rows, not {rows}")
        return self.offset + start * (self.nbytes // max(1, self.shape[0]))


class _Source:
    """Reads parts of one file, each once, and not more than a bound in all."""

    def __init__(self, read: _Read, end: int) -> None:
        self.end = end
        self.spans: list[tuple[int, int]] = []
        self._read, self._left = read, _MAX_BYTES

    def read(self, address: int, size: int) -> bytes:
        """Give ``size`` bytes. Raises ``NotOursError`` where the file has not got them."""
        if address + size > self.end:
            raise NotOursError(f"it points to {size} bytes at {address}, beyond its end")
        self._left -= size
        if self._left < 0:
            raise NotOursError(f"its structure is larger than {_MAX_BYTES} bytes")
        data = self._read(size, address)
        if len(data) != size:
            raise NotOursError(f"it ends before byte {address + size}")
        return data

    def block(self, address: int, size: int, signature: bytes) -> bytes:
        """Give the content of a block between its signature and its checksum."""
        if size < len(signature) + _CHECKSUM_SIZE:
            raise NotOursError(f"a block of {size} bytes cannot be")
        data = self.read(address, size)
        self.spans.append((address, address + size))
        _check_block(data, signature, address)
        return data[len(signature) : -_CHECKSUM_SIZE]


def _check_block(data: bytes, signature: bytes, address: int) -> None:
    if not data.startswith(signature):
        raise NotOursError(f"there is no {signature.decode('latin-1')} block at {address}")
    if lookup3(data[:-_CHECKSUM_SIZE]) != int.from_bytes(data[-_CHECKSUM_SIZE:], "little"):
        raise NotOursError(f"the checksum of the block at {address} does not match")


def parse_plain(path: Path, read: _Read, size: int) -> tuple[Attributes, dict[str, ArraySlot]]:
    """Read the structure of a file and check all of it.

    Args:
        path: how to name the file in a message.
        read: gives so many bytes from a place in the file, or fewer at its end.
        size: its size in bytes.

    Returns:
        Its attributes, and its datasets by name. They overlap neither each other nor the
        structure, and lie inside the file.

    Raises:
        FormatError: damaged, cut off, or anything else than a file of ours.
        OSError: it cannot be read.
    """
    try:
        start = read(_SUPERBLOCK_SIZE, 0)
        if not start.startswith(_SIGNATURE):
            raise FormatError(f"{path}: not an HDF5 file.")
        source, root = _superblock(read, start, size)
        attributes, links = _root_group(source, root)
        slots = {name: _dataset(source, name, links[name]) for name in sorted(links)}
        _check_overlaps(source, slots)
    except NotOursError as error:
        raise FormatError(
            f"{path}: damaged, or not a file of ERA Cache: {error}. Run era-store verify, or get a "
            "whole copy."
        ) from error
    return attributes, slots


def _superblock(read: _Read, data: bytes, size: int) -> tuple[_Source, int]:
    """Check the first block; give a source that ends where the file should, and the root."""
    version = data[len(_SIGNATURE) : len(_SIGNATURE) + 1]
    if version != b"\x03":
        raise NotOursError(f"superblock version {version.hex()}, not 03")
    if len(data) < _SUPERBLOCK_SIZE:
        raise NotOursError("it is cut off")
    _check_block(data, _SIGNATURE, 0)
    fields = Fields(data[len(_SIGNATURE) + 1 : -_CHECKSUM_SIZE], "the superblock")
    fields.expect(b"\x08\x08")
    if fields.uint(1):
        raise NotOursError("whoever wrote it did not close it")
    fields.expect((0).to_bytes(8, "little"))
    fields.expect(UNDEFINED.to_bytes(8, "little"))
    end, root = fields.uint(8), fields.uint(8)
    if end > size:
        raise NotOursError(f"it is cut off: {size} of {end} bytes")
    if end < size:
        raise NotOursError(f"{size - end} bytes follow after its end")
    source = _Source(read, end)
    source.spans.append((0, _SUPERBLOCK_SIZE))
    return source, root


def _messages(source: _Source, address: int) -> Iterator[tuple[int, bytes]]:
    """Give type and body of each message of an object header."""
    head = source.read(address, min(30, max(0, source.end - address)))
    if head[:5] != b"OHDR\x02" or len(head) < 30 or head[5] & ~0x23:
        raise NotOursError(f"there is no object header of a known form at {address}")
    # Flags: the low bits tell the width of the size, 0x20 that four times are stored.
    start, width = (22 if head[5] & 0x20 else 6), 1 << (head[5] & 3)
    length = int.from_bytes(head[start : start + width], "little")
    start += width
    first = source.block(address, start + length + _CHECKSUM_SIZE, b"OHDR")
    chunks = [first[start - 4 :]]
    for number in itertools.count():
        if number == len(chunks):
            return
        if number == _MAX_BLOCKS:
            raise NotOursError(f"an object header has more than {_MAX_BLOCKS} blocks")
        for kind, body in _split(chunks[number]):
            if kind == _CONTINUATION:
                fields = Fields(body, "a continuation")
                chunks.append(source.block(fields.uint(8), fields.uint(8), b"OCHK"))
                fields.end()
            elif kind != _NIL:
                yield kind, body


def _split(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    fields, left = Fields(chunk, "a message"), len(chunk)
    while left >= 4:
        kind, size, flags = fields.uint(1), fields.uint(2), fields.uint(1)
        if flags & ~_KNOWN_FLAGS:
            what = "is shared with elsewhere" if flags & _SHARED else f"has flags {flags:#x}"
            raise NotOursError(f"a message of type {kind:#x} {what}")
        yield kind, fields.take(size)
        left -= 4 + size
    # What is too short for a message is a gap of zeros.
    fields.expect(bytes(left))


def _root_group(source: _Source, address: int) -> tuple[Attributes, dict[str, int]]:
    """Give the attributes, and the object header address of each member."""
    attributes: list[tuple[str, int | str]] = []
    links: list[tuple[str, int]] = []
    once: set[int] = set()
    for kind, body in _messages(source, address):
        if kind == _ATTRIBUTE:
            attributes.append(attribute(body))
        elif kind == _LINK:
            links.append(link(body))
        elif kind in once:
            raise NotOursError(f"the root group has two messages of type {kind:#x}")
        elif kind == _LINK_INFO:
            dense = link_info(body)
            links += _dense_links(source, *dense) if dense else []
        elif kind == _ATTRIBUTE_INFO:
            if link_info(body) is not None:
                raise NotOursError("its attributes are stored outside the root group's header")
        elif kind != _GROUP_INFO or body != b"\0\0":
            raise NotOursError(f"the root group has {_named(kind)}")
        if kind not in (_ATTRIBUTE, _LINK):
            once.add(kind)
        if max(len(attributes), len(links)) > MAX_MEMBERS:
            raise NotOursError(f"it has more than {MAX_MEMBERS} members or attributes")
    if _LINK_INFO not in once:
        raise NotOursError("the root is not a group")
    by_name, members = dict(attributes), dict(links)
    if len(by_name) != len(attributes) or len(members) != len(links):
        raise NotOursError("two members or attributes have the same name")
    return by_name, members


def _named(kind: int) -> str:
    return _REFUSED.get(kind, f"a message of type {kind:#x}, which no format here uses")


def _dense_links(source: _Source, heap: int, tree: int) -> Iterator[tuple[str, int]]:
    """Give the links of a group with more than 8, by a B-tree of one node over a heap block."""
    block = _heap_block(source, heap)
    fields = Fields(source.block(tree, _TREE_SIZE, b"BTHD"), "the B-tree of links")
    # Version, type 5 (link names), node size 512, record size 11, depth 0; the next two bytes
    # say when nodes split and merge.
    fields.expect(b"\0\x05\0\x02\0\0\x0b\0\0\0")
    fields.take(2)
    node, count, total = fields.uint(8), fields.uint(2), fields.uint(8)
    fields.end()
    if count > MAX_MEMBERS or total != count:
        raise NotOursError(f"it has {total} members; at most {MAX_MEMBERS} are expected")
    size = 4 + 2 + count * _RECORD_SIZE + _CHECKSUM_SIZE
    records = Fields(source.block(node, size, b"BTLF"), "a node of links")
    records.expect(b"\0\x05")
    for _ in range(count):
        # A record: hash of the name; then 0 (a managed object), offset and length in the heap.
        stored = records.uint(4)
        records.expect(b"\0")
        offset, length = records.uint(4), records.uint(2)
        if not offset or offset + length > len(block):
            raise NotOursError("a link lies outside its heap")
        name, address = link(block[offset : offset + length])
        if lookup3(name.encode("ascii")) != stored:
            raise NotOursError(f"the member '{name}' is filed under another name's hash")
        yield name, address


def _heap_block(source: _Source, address: int) -> bytes:
    """Give the one direct block of the heap whose header is at ``address``."""
    fields = Fields(source.block(address, _HEAP_SIZE, b"FRHP"), "the heap of links")
    # Version, ID length 7, no filters, checksums on.
    fields.expect(b"\0\x07\0\0\0\x02")
    # Statistics, and the manager of free space, which a reader needs not.
    fields.take(4 + 12 * 8)
    # Table width 4, first block 512 bytes, largest 64 KiB, 32-bit offsets, 1 row at first.
    fields.expect(b"\x04\0" + b"\0\x02" + bytes(6) + b"\0\0\x01" + bytes(5) + b"\x20\0\x01\0")
    place = fields.uint(8)
    fields.expect(b"\0\0")
    fields.end()
    data = source.read(place, _HEAP_BLOCK_SIZE)
    source.spans.append((place, place + _HEAP_BLOCK_SIZE))
    head = b"FHDB\0" + address.to_bytes(8, "little") + bytes(4)
    blanked = head + bytes(_CHECKSUM_SIZE) + data[len(head) + _CHECKSUM_SIZE :]
    checksum = data[len(head) : len(head) + _CHECKSUM_SIZE]
    if not data.startswith(head) or lookup3(blanked) != int.from_bytes(checksum, "little"):
        raise NotOursError(f"the heap block at {place} is damaged")
    return data


def _dataset(source: _Source, name: str, address: int) -> ArraySlot:
    what, found = f"'{name}'", {}
    for kind, body in _messages(source, address):
        if kind in (_LINK_INFO, _LINK, _GROUP_INFO):
            raise NotOursError(f"{what} is not a dataset")
        if kind in found or kind not in (_SPACE, _TYPE, _FILL, _LAYOUT):
            raise NotOursError(f"{what} has {_named(kind) if kind not in found else 'two forms'}")
        found[kind] = body
    if not {_SPACE, _TYPE, _LAYOUT} <= found.keys():
        raise NotOursError(f"{what} is not a dataset")
    dtype, shape = datatype(found[_TYPE], what), dataspace(found[_SPACE], what)
    check_fill_value(found.get(_FILL, b"\x03\0"), what)
    offset, size = layout(found[_LAYOUT], what)
    slot = ArraySlot(dtype, shape, 0 if offset == UNDEFINED else offset)
    if size != slot.nbytes:
        raise NotOursError(f"{what} has the shape {shape}, but {size} bytes")
    if size and not 0 < slot.offset <= source.end - size:
        raise NotOursError(f"{what} claims {size} bytes at {slot.offset} of {source.end}")
    return slot


def _check_overlaps(source: _Source, slots: dict[str, ArraySlot]) -> None:
    data = [(slot.offset, slot.offset + slot.nbytes) for slot in slots.values() if slot.nbytes]
    for (_, end), (start, _) in itertools.pairwise(sorted(source.spans + data)):
        if start < end:
            raise NotOursError(f"two parts of it overlap at {start}")
