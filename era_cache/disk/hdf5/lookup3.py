"""The checksum of HDF5's metadata: Bob Jenkins's lookup3 (public domain, 2006), "hashlittle".

In: bytes. Out: 32 bits. It finds damage, not forgery.
"""

from __future__ import annotations

import struct

__all__ = ["lookup3"]

_M = 0xFFFFFFFF


def lookup3(data: bytes, initial: int = 0) -> int:
    """Hash bytes as ``hashlittle`` does.

    Args:
        data: any number of bytes; about 1.5 microseconds for every 12 of them.
        initial: value of an earlier hash to go on from.

    Returns:
        An unsigned 32-bit number.
    """
    size = len(data)
    a = b = c = (0xDEADBEEF + size + initial) & _M
    if not size:
        return c
    # The last 1 to 12 bytes, filled up with zeros, are mixed in another way than all before.
    full = (size - 1) // 12
    words: tuple[int, ...] = struct.unpack(f"<{3 * full + 3}I", data + bytes(12 * full + 12 - size))
    for at in range(0, 3 * full, 3):
        a = (a + words[at]) & _M
        b = (b + words[at + 1]) & _M
        c = (c + words[at + 2]) & _M
        a = (a - c ^ (c << 4 | c >> 28)) & _M
        c = (c + b) & _M
        b = (b - a ^ (a << 6 | a >> 26)) & _M
        a = (a + c) & _M
        c = (c - b ^ (b << 8 | b >> 24)) & _M
        b = (b + a) & _M
        a = (a - c ^ (c << 16 | c >> 16)) & _M
        c = (c + b) & _M
        b = (b - a ^ (a << 19 | a >> 13)) & _M
        a = (a + c) & _M
        c = (c - b ^ (b << 4 | b >> 28)) & _M
        b = (b + a) & _M
    a, b, c = (a + words[-3]) & _M, (b + words[-2]) & _M, (c + words[-1]) & _M
    c = ((c ^ b) - (b << 14 & _M | b >> 18)) & _M
    a = ((a ^ c) - (c << 11 & _M | c >> 21)) & _M
    b = ((b ^ a) - (a << 25 & _M | a >> 7)) & _M
    c = ((c ^ b) - (b << 16 & _M | b >> 16)) & _M
    a = ((a ^ c) - (c << 4 & _M | c >> 28)) & _M
    b = ((b ^ a) - (a << 14 & _M | a >> 18)) & _M
    return ((c ^ b) - (b << 24 & _M | b >> 8)) & _M
