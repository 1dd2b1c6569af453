"""What the messages of an HDF5 object header say, in the few forms that files of ours have.

In: the body of one message. Out: plain values. HDF5 can say far more; whatever
``hdf5.plain_writer`` does not make h5py write is a ``NotOursError``. The layouts are those of the
"HDF5 File Format Specification, Version 3.0", section IV.A.2.
"""

from __future__ import annotations

import re

import numpy as np

__all__ = [
    "ATTRIBUTE_LIMIT",
    "DTYPES",
    "NAME",
    "UNDEFINED",
    "Fields",
    "NotOursError",
    "attribute",
    "check_fill_value",
    "dataspace",
    "datatype",
    "layout",
    "link",
    "link_info",
]

UNDEFINED = (1 << 64) - 1
"""The address that means "nowhere"."""
ATTRIBUTE_LIMIT = 60_000
"""Largest attribute in bytes; HDF5 itself ends at 64 KiB."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Names of datasets and attributes: such as can be printed, and need no encoding."""
# No array can have more elements in one direction, even where another has none.
_MAX_DIMENSION = 1 << 40
_LAYOUTS = {0: "compact", 2: "chunked", 3: "virtual"}


class NotOursError(Exception):
    """The bytes are not such as a file of ours has; the text says which and why."""


class Fields:
    """Little-endian fields of bytes from a stranger, one after the other.

    Args:
        data: the bytes.
        what: how to name them in a message.
    """

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what, self._at = data, what, 0

    def take(self, size: int) -> bytes:
        """Give the next ``size`` bytes. Raises ``NotOursError`` where fewer are left."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise NotOursError(f"{self._what} is cut off")
        return self._data[start : self._at]

    def uint(self, size: int) -> int:
        """Give the next ``size`` bytes as an unsigned number."""
        return int.from_bytes(self.take(size), "little")

    def expect(self, *expected: bytes) -> None:
        """Pass over bytes that must be one of ``expected`` (all of one length)."""
        found = self.take(len(expected[0]))
        if found not in expected:
            raise NotOursError(f"{self._what} has an unknown form ({found[:16].hex()})")

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._data):
            raise NotOursError(f"{self._what} has {len(self._data) - self._at} bytes too many")


def _integer(size: int, signed: bool) -> bytes:
    head = bytes([0x10, 8 if signed else 0, 0, 0])
    return head + size.to_bytes(4, "little") + (8 * size << 16).to_bytes(4, "little")


def _real(size: int, mantissa: int, exponent: int) -> bytes:
    # Leading bit of the mantissa implied; sign on top; then exponent, then mantissa.
    head = bytes([0x11, 0x20, 8 * size - 1, 0]) + size.to_bytes(4, "little")
    parts = bytes([0, 0, 8 * size, 0, mantissa, exponent, 0, mantissa])
    return head + parts + ((1 << (exponent - 1)) - 1).to_bytes(4, "little")


# One type has one form, so the bytes are compared, not interpreted.
_TYPES = {
    **{_integer(n, signed=False): np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    **{_integer(n, signed=True): np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    _real(2, 10, 5): np.dtype("<f2"),
    _real(4, 23, 8): np.dtype("<f4"),
    _real(8, 52, 11): np.dtype("<f8"),
}
DTYPES = frozenset(_TYPES.values())
"""Types that an array can have: integers of 1 to 8 bytes and IEEE floats of 2 to 8."""


def datatype(body: bytes, what: str) -> np.dtype[np.generic]:
    """Type of a dataset's elements.

    Args:
        body: of a datatype message.
        what: the dataset, for a message.
    """
    found = _TYPES.get(body)
    if found is None:
        raise NotOursError(f"{what} has a type ({body[:24].hex()}) that no format here uses")
    return found


def dataspace(body: bytes, what: str) -> tuple[int, ...]:
    """Shape of a dataset: one or two dimensions, none of which can grow."""
    fields = Fields(body, f"the shape of {what}")
    fields.expect(b"\x02")
    rank, limited, kind = fields.uint(1), fields.uint(1), fields.uint(1)
    if rank not in (1, 2) or kind != 1:
        raise NotOursError(f"{what} has {rank} dimensions, not 1 or 2")
    shape = tuple(fields.uint(8) for _ in range(rank))
    if limited not in (0, 1) or (limited and tuple(fields.uint(8) for _ in range(rank)) != shape):
        raise NotOursError(f"{what} could grow")
    fields.end()
    if max(shape) > _MAX_DIMENSION:
        raise NotOursError(f"{what} claims the shape {shape}")
    return shape


def layout(body: bytes, what: str) -> tuple[int, int]:
    """Address and size in bytes of a dataset's data."""
    fields = Fields(body, f"the layout of {what}")
    fields.expect(b"\x03", b"\x04")
    kind = fields.uint(1)
    if kind != 1:
        found = _LAYOUTS.get(kind, "unknown")
        raise NotOursError(f"{what} is not stored in one piece inside the file ({found} layout)")
    place = fields.uint(8), fields.uint(8)
    fields.end()
    return place


def check_fill_value(body: bytes, what: str) -> None:
    """Check the form of a fill value message; nothing here uses the value."""
    fields = Fields(body, f"the fill value of {what}")
    version = fields.uint(1)
    if version == 2:
        defined = fields.take(3)[2] == 1
    elif version == 3:
        defined = bool(fields.uint(1) & 0x20)
    else:
        raise NotOursError(f"the fill value of {what} has an unknown form (version {version})")
    if defined:
        fields.take(fields.uint(4))
    fields.end()


def link(body: bytes) -> tuple[str, int]:
    """Name and object header address of a hard link."""
    fields = Fields(body, "a link")
    fields.expect(b"\x01")
    flags = fields.uint(1)
    if flags & 0x08:
        raise NotOursError("a member is a link to elsewhere; links are refused")
    if flags:
        raise NotOursError(f"a link has an unknown form (flags {flags:#x})")
    name = _name(fields.take(fields.uint(1)))
    address = fields.uint(8)
    fields.end()
    return name, address


def _name(data: bytes) -> str:
    name = data.decode("latin-1")
    if not NAME.fullmatch(name):
        raise NotOursError(f"a member or attribute has the name {data[:64]!r}")
    return name


def link_info(body: bytes) -> tuple[int, int] | None:
    """Addresses of the heap and the B-tree that hold a group's links; None: links are messages."""
    fields = Fields(body, "the table of links")
    fields.expect(b"\0\0")
    heap, tree = fields.uint(8), fields.uint(8)
    fields.end()
    return None if heap == tree == UNDEFINED else (heap, tree)


def attribute(body: bytes) -> tuple[str, int | str]:
    """Name and value of an attribute: one text of fixed length, or one 64-bit integer."""
    fields = Fields(body, "an attribute")
    fields.expect(b"\x03\0")
    name_size, type_size, space_size = fields.uint(2), fields.uint(2), fields.uint(2)
    fields.expect(b"\0")
    terminated = fields.take(name_size)
    name = _name(terminated[:-1])
    what = f"attribute '{name}'"
    kind, space = fields.take(type_size), fields.take(space_size)
    if terminated[-1:] != b"\0" or space != b"\x02\0\0\0":
        raise NotOursError(f"{what} is not a scalar")
    size = int.from_bytes(kind[4:8], "little")
    if not 0 < size <= ATTRIBUTE_LIMIT:
        raise NotOursError(f"{what} has {size} bytes, not 1 to {ATTRIBUTE_LIMIT}")
    data = fields.take(size)
    fields.end()
    # Fixed length, filled up with zeros, ASCII as far as HDF5 knows.
    if len(kind) == 8 and kind[:4] == b"\x13\x01\0\0":
        try:
            return name, data.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError as error:
            raise NotOursError(f"{what} is not UTF-8") from error
    dtype = _TYPES.get(kind)
    if dtype is None or dtype.kind not in "iu" or dtype.itemsize != 8:
        raise NotOursError(f"{what} is neither a text of fixed length nor a 64-bit integer")
    return name, int.from_bytes(data, "little", signed=dtype.kind == "i")
