"""Row keys as numbers: 128-bit digests, sorted and told apart in bulk.

In: keys, (n, 16) uint8. Out: their halves, their order, their distinct rows.
"""

from __future__ import annotations

import numpy as np

from era_cache.types import Array, IntArray, Keys

__all__ = ["distinct_rows", "key_halves", "key_order", "key_words"]


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


def distinct_rows(keys: Keys) -> IntArray:
    """Row of the first occurrence of each distinct key, ascending, (m,) int64."""
    high, low = key_halves(keys)
    order = key_order(high, low)
    first = np.ones(len(order), dtype=bool)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    return np.sort(order[first]).astype(np.int64)
