"""Row keys: 128-bit digests of role, instruction and text; made, sorted and told apart in bulk.

In: texts, or keys, (n, 16) uint8. Out: keys, their halves, their order, their distinct rows.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from era_cache.collection.packed import PackedStrings
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
    pack, begun = struct.pack, hashlib.blake2b(digest_size=16, person=b"era-key-1")
    digests = bytearray(16 * len(texts))
    starts: Iterable[bytes] = itertools.repeat(head + pack("<Q", 0), len(texts))
    if instructions is not None:
        said = (one.encode("utf-8") for one in instructions)
        starts = (head + pack("<Q", len(one)) + one for one in said)
    at = 0
    try:
        for start, data in zip(starts, _encoded(texts), strict=True):
            digest = begun.copy()
            digest.update(start + pack("<Q", len(data)) + data)
            digests[at : at + 16] = digest.digest()
            at += 16
    except UnicodeEncodeError as error:
        raise InputError(
            f"Text number {at // 16 + 1} is not valid Unicode ({error.reason}). Mend the input: a "
            "lone surrogate such as \\ud800 cannot be encoded."
        ) from error
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


def _encoded(texts: Sequence[str]) -> Iterator[bytes]:
    if isinstance(texts, PackedStrings):
        return itertools.chain.from_iterable(texts.blocks())
    return (text.encode("utf-8") for text in texts)


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
    ordered = np.sort(high)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(twice):
        return np.arange(len(keys))
    # Only these can be equal, so that millions that differ take little memory.
    place = np.minimum(np.searchsorted(twice, high), len(twice) - 1)
    suspects = np.flatnonzero(twice[place] == high)
    high, low = high[suspects], low[suspects]
    order = key_order(high, low)
    again = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    return np.delete(np.arange(len(keys)), suspects[order[1:][again]])


def alignment_order(doc_keys: Keys, seed: int, most: int | None = None) -> IntArray:
    """Order documents at random such that any prefix is a uniform sample.

    The order depends on the texts and the seed only: a larger sample contains the smaller, and
    documents that join the corpus later do not disturb the order of the others.

    Args:
        doc_keys: (n, 16) uint8; a key is as good as random already.
        seed: chooses the order.
        most: how many are wanted; None is all. Few of many are found without sorting all.

    Returns:
        Row numbers of the distinct documents (first occurrence of each key), (m,) int64.
    """
    mask = np.random.default_rng(seed).integers(0, 256, 16, dtype=np.uint8)
    if most is not None and 8 * most < len(doc_keys):
        high, _ = key_halves(doc_keys)
        drawn = high ^ key_halves(mask.reshape(1, 16))[0]
        # Distinct keys are even: four times as many as wanted, unless most are repeats.
        near = np.flatnonzero(drawn <= np.uint64(4.0 * most / len(doc_keys) * 2.0**64))
        first = near[distinct_rows(doc_keys[near])]
        if len(first) >= most:
            return first[key_order(*key_halves(doc_keys[first] ^ mask))][:most]
    rows = distinct_rows(doc_keys)
    return rows[key_order(*key_halves(doc_keys[rows] ^ mask))][:most]
