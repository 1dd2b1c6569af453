"""Row keys: 128-bit digests of role, instruction and text; made, sorted and told apart in bulk.

In: texts, or keys, (n, 16) uint8. Out: keys, their halves, their order, their distinct rows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from era_cache.collection.records import Collection
from era_cache.errors import InputError
from era_cache.types import Array, IntArray, Keys, Role

__all__ = [
    "alignment_order",
    "distinct_rows",
    "key_halves",
    "key_order",
    "key_values",
    "key_words",
    "row_keys",
    "text_keys",
]


def row_keys(role: Role, texts: Sequence[str], instructions: Sequence[str] | None = None) -> Keys:
    """Make the key of each row (docs/format.md).

    Args:
        role: what the texts are for.
        texts: n texts, hashed exactly as given.
        instructions: n strings, or None where there are none.

    Returns:
        (n, 16) uint8.

    Raises:
        InputError: a text cannot be written as UTF-8 (a lone surrogate).
    """
    head = role.value.encode()
    head = struct.pack("<Q", len(head)) + head
    no_instruction = head + struct.pack("<Q", 0)
    pack, blake2b = struct.pack, hashlib.blake2b
    digests = bytearray(16 * len(texts))
    try:
        for row, text in enumerate(texts):
            start = no_instruction
            if instructions is not None and instructions[row]:
                framed = instructions[row].encode("utf-8")
                start = head + pack("<Q", len(framed)) + framed
            data = text.encode("utf-8")
            frames = start + pack("<Q", len(data)) + data
            digests[16 * row : 16 * row + 16] = blake2b(
                frames, digest_size=16, person=b"era-key-1"
            ).digest()
    except UnicodeEncodeError as error:
        raise InputError(
            f"Text number {row + 1} is not valid Unicode ({error.reason}). Mend the input: a lone "
            "surrogate such as \\ud800 cannot be encoded."
        ) from error
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


def text_keys(collection: Collection) -> Array:
    """What tells equal query texts, (q,) of 16 bytes each, whatever their instructions."""
    return key_values(collection.query_text_keys)


def key_words(keys: Keys) -> Array:
    """Both halves of each key, (n, 2) uint64. Raises ``ValueError`` for what are no keys."""
    if keys.dtype != np.uint8 or keys.shape[1:] != (16,):
        raise ValueError(f"keys of dtype {keys.dtype} and shape {keys.shape}, not uint8 (n, 16)")
    return np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)


def key_halves(keys: Keys) -> tuple[Array, Array]:
    """First and second half of each key, each (n,) uint64."""
    words = key_words(keys)
    return words[:, 0], words[:, 1]


def key_order(high: Array, low: Array, rows: IntArray | None = None) -> IntArray:
    """Order keys by both halves, and equal ones by row.

    Keys are digests: few share their first half, so sorting that and then mending the ties is
    several times faster than sorting both.

    Args:
        high: (n,) uint64, first halves.
        low: (n,) uint64, second halves.
        rows: (n,) int64, which of equal keys comes first; None is the order given.

    Returns:
        (n,) int64.
    """
    order = np.argsort(high)
    ordered = high[order]
    equal = np.zeros(len(order), dtype=bool)
    equal[1:] = ordered[1:] == ordered[:-1]
    equal[:-1] |= equal[1:]
    places = np.flatnonzero(equal)
    tied = order[places]
    last = tied if rows is None else rows[tied]
    order[places] = tied[np.lexsort((last, low[tied], high[tied]))]
    return order


def key_values(keys: Keys) -> Array:
    """Keys (n, 16) as one value each, (n,), which sort and compare byte by byte."""
    return np.ascontiguousarray(keys).view("V16").reshape(-1)


def distinct_rows(keys: Keys) -> IntArray:
    """Row of the first occurrence of each distinct key, ascending, (m,) int64."""
    high, low = key_halves(keys)
    order = key_order(high, low)
    first = np.ones(len(order), dtype=bool)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    return np.sort(order[first]).astype(np.int64)


def alignment_order(doc_keys: Keys, seed: int) -> IntArray:
    """Order documents at random such that any prefix is a uniform sample.

    The order depends on the texts and the seed only: a larger sample contains the smaller, and
    documents that join the corpus later do not disturb the order of the others.

    Args:
        doc_keys: (n, 16) uint8; a key is as good as random already.
        seed: chooses the order.

    Returns:
        Row numbers of the distinct documents (first occurrence of each key), (m,) int64.
    """
    rows = distinct_rows(doc_keys)
    mask = np.random.default_rng(seed).integers(0, 256, 16, dtype=np.uint8)
    return rows[key_order(*key_halves(doc_keys[rows] ^ mask))]
