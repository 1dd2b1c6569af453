"""Damage files on purpose, so that damage gets past the checksums to the code behind them.

``mutated`` takes any of the project's formats; a fuzz harness calls it with a seeded generator and
gives the result to a reader, which must succeed or raise one of the project's own errors.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from era_cache.disk.hdf5.lookup3 import lookup3

HDF5 = b"\x89HDF\r\n\x1a\n"
NUMBERS = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1e300,
    "",
    "x" * 300,
    "../../x",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Damage a file in one to three places.

    Args:
        data: a file: HDF5 of ours (checksums are repaired), safetensors, JSON, tar (checksums are
            repaired), or anything else.
        rng: decides what is done; the same state gives the same result.

    Returns:
        The damaged file; now and then only cut off or damaged without regard to its format.
    """
    change = _generic if rng.random() < 0.1 else _format_of(data)
    blocks = hdf5_blocks(data) if change is _hdf5 else ()
    for _ in range(rng.choice([1, 1, 2, 3])):
        data = _hdf5(data, rng, blocks) if blocks else change(data, rng)
    return repaired(data, blocks)


def _format_of(data: bytes) -> Callable[[bytes, random.Random], bytes]:
    if data.startswith(HDF5):
        return _hdf5
    if data[257:262] == b"ustar":
        return _tar
    if data[8:9] == b"{":
        return _safetensors
    if data.lstrip()[:1] in (b"{", b"["):
        return _json
    return _generic


def _generic(data: bytes, rng: random.Random) -> bytes:
    out, at = bytearray(data), rng.randrange(len(data) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        del out[at:]
    elif kind == 1:
        del out[at : at + rng.randrange(1, 64)]
    elif kind == 2:
        out[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif kind == 3:
        out[at:at] = out[at : at + rng.randrange(1, 64)]
    else:
        return _poke(data, 0, len(data), rng)
    return bytes(out)


def _poke(data: bytes, start: int, stop: int, rng: random.Random) -> bytes:
    """Change a bit, a byte or a number between two positions, keeping the size."""
    if start >= stop:
        return data
    out, at = bytearray(data), rng.randrange(start, stop)
    kind = rng.randrange(5)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.randrange(256)
    elif kind == 2:
        out[at] = rng.randrange(32)
    else:
        width = rng.choice([1, 2, 4, 8])
        old = int.from_bytes(out[at : at + width], "little")
        new = rng.choice([*NUMBERS, old + 1, old - 1, 2 * old, len(data), len(data) - old])
        new %= 1 << 8 * width
        out[at : at + width] = new.to_bytes(width, "little")[: max(0, stop - at)]
    return bytes(out)


# HDF5


class Block(NamedTuple):
    """Bytes from ``start`` to ``stop``; their checksum lies at ``checksum``, mostly at the end."""

    start: int
    stop: int
    checksum: int

    def sum(self, data: bytes) -> bytes:
        """The checksum that the block should have."""
        covered = data[self.start : self.stop]
        if self.checksum + 4 < self.stop:
            at = self.checksum - self.start
            covered = covered[:at] + bytes(4) + covered[at + 4 :]
        else:
            covered = covered[:-4]
        return lookup3(covered).to_bytes(4, "little")


@functools.lru_cache(maxsize=16)
def hdf5_blocks(data: bytes) -> tuple[Block, ...]:
    """Find the checksummed blocks of a whole HDF5 file of ours."""
    found = [Block(0, 48, 44)]
    for at in _all(data, b"OHDR"):
        start, width = at + (22 if data[at + 5] & 0x20 else 6), 1 << (data[at + 5] & 3)
        size = int.from_bytes(data[start : start + width], "little")
        found.append(_closed(at, start + width + size + 4))
    for at in _all(data, b"OCHK"):
        # A continuation message elsewhere holds the address, and then the size.
        for pointer in _all(data, at.to_bytes(8, "little")):
            size = int.from_bytes(data[pointer + 8 : pointer + 16], "little")
            found.append(_closed(at, at + size))
    found += [_closed(at, at + 146) for at in _all(data, b"FRHP")]
    found += [_closed(at, at + 38) for at in _all(data, b"BTHD")]
    found += [_closed(at, at + 10 + 11 * n) for at in _all(data, b"BTLF") for n in range(33)]
    found += [Block(at, at + 512, at + 17) for at in _all(data, b"FHDB")]
    # Data may look like a block: only what has the right checksum is one.
    return tuple(
        block
        for block in sorted(set(found))
        if block.start < block.stop <= len(data)
        and block.sum(data) == data[block.checksum : block.checksum + 4]
    )


def _closed(start: int, stop: int) -> Block:
    return Block(start, stop, stop - 4)


def _all(data: bytes, pattern: bytes) -> list[int]:
    found, at = [], data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + 1)
    return found


def repaired(data: bytes, blocks: Sequence[Block]) -> bytes:
    """Give each block the checksum that its content now asks for."""
    out = bytearray(data)
    for block in blocks:
        if block.stop <= len(out):
            out[block.checksum : block.checksum + 4] = block.sum(bytes(out))
    return bytes(out)


def _hdf5(data: bytes, rng: random.Random, blocks: Sequence[Block] = ()) -> bytes:
    if not blocks:
        return _generic(data, rng)
    block, other = rng.choice(blocks), rng.choice(blocks)
    kind = rng.randrange(8)
    at = rng.randrange(block.start, block.stop)
    if kind == 0:
        # Let what points to one block point to another.
        address = other.start.to_bytes(8, "little")
        at = data.find(block.start.to_bytes(8, "little"), 12)
        return data[:at] + address + data[at + 8 :] if at >= 0 else data
    if kind == 1:
        # Copy a piece of one block into another.
        source = rng.randrange(other.start, other.stop)
        piece = data[source : source + rng.randrange(1, 24)][: block.stop - at]
        return data[:at] + piece + data[at + len(piece) :]
    return _poke(data, block.start + 4, block.stop, rng)


# JSON and what holds it


STRINGS = (
    "\x1b]0;owned\x07\x1b[2J",  # retitles a terminal and clears it
    "\x9b31m",
    "\u202egpj.exe\u2066",
    "\ud800",
    "\0",
    "\nError: all is well\r\n",
    "x" * 10_000,
    "../../x",
    "/dev/full",
    "{0}%s{x.__class__}",
)
"""What a stranger may put into a name or a text."""


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _generic(data, rng)
    if rng.random() < 0.02:
        return b"[" * 100_000
    if rng.random() < 0.02:
        return b'{"format": 1, "x": "' + b"x" * 3_000_000 + b'"}'
    return json.dumps(_json_value(value, rng), ensure_ascii=rng.random() < 0.9).encode(
        "utf-8", "surrogatepass"
    )


def _json_value(value: Any, rng: random.Random) -> Any:
    """Change one value somewhere below: replace, remove, rename, repeat."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        if isinstance(value, int | float) and rng.random() < 0.5:
            return rng.choice([value + 1, value - 1, -value, str(value), *NUMBERS])
        if isinstance(value, str) and value and rng.random() < 0.5:
            at = rng.randrange(len(value))
            if rng.random() < 0.5:
                return value[:at] + rng.choice(STRINGS) + value[at:]
            return value[:at] + chr(rng.randrange(1, 0x2FF)) + value[at + 1 :]
        return rng.choice(VALUES)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    changed: Any = value.copy()
    kind = rng.randrange(6)
    if kind == 0:
        del changed[key]
    elif kind == 1 and isinstance(changed, dict):
        changed[rng.choice(["", "x", "format", str(key) + "x"])] = changed.pop(key)
    elif kind == 1:
        changed.insert(key, changed[key])
    else:
        changed[key] = _json_value(value[key], rng)
    return changed


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    head, body = data[8 : 8 + size], data[8 + size :]
    kind = rng.randrange(6)
    if kind == 0:
        return _poke(data, 0, 8, rng)
    if kind == 1:
        return data[:8] + head + _generic(body, rng)
    head = _generic(head, rng) if kind == 2 else _json(head, rng)
    return len(head).to_bytes(8, "little") + head + body


# tar


def _tar(data: bytes, rng: random.Random) -> bytes:
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads or rng.random() < 0.2:
        return _generic(data, rng)
    at, out = rng.choice(heads), bytearray(data)
    start, size = rng.choice(
        [(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
    )
    if size == 1:
        out[at + start] = rng.choice(b"0123456789xgLKSV\0")
    elif size == 12:
        out[at + start : at + start + 12] = rng.choice(
            [
                b"%011o\0" % rng.choice([0, 1, 511, 512, 1 << 32]),
                b"\x80" + b"\xff" * 11,
                b"-1".ljust(12),
            ]
        )
    elif size in (100, 155):
        name = rng.choice(
            [b"../../x", b"/etc/x", b"a/../../x", b"", b".", b"a" * 99, b"\xff\xfe", b"a\nb"]
        )
        out[at + start : at + start + size] = name.ljust(size, b"\0")
    else:
        out = bytearray(_poke(bytes(out), at + start, at + start + size, rng))
    for head in heads:
        field = bytes(out[head : head + 148]) + b" " * 8 + bytes(out[head + 156 : head + 512])
        out[head + 148 : head + 156] = b"%06o\0 " % sum(field)
    return bytes(out)
