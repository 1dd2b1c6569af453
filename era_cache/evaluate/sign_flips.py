"""The paired randomisation test: how often flipping signs gives a mean as far from zero.

In: differences. Out: a p value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROUNDING", "blocks", "sign_flip_p"]

_BLOCK_ELEMENTS = 1 << 21
"""Random draws held at a time: 16 MiB of them. Part of what a seed means, so a constant."""


ROUNDING = 1e-12
"""Sums that agree to this share of the largest possible sum are the same sum, added up in
another order; without it, ties with the observed difference would be counted by chance."""


def blocks(n_rows: int, row_length: int) -> Iterator[tuple[int, int]]:
    """Split rows into pieces of a bounded number of elements."""
    step = max(1, _BLOCK_ELEMENTS // max(1, row_length))
    for begin in range(0, n_rows, step):
        yield begin, min(n_rows, begin + step)


def sign_flip_p(differences: NDArray[np.float64], seed: int, permutations: int) -> float:
    """Test differences other than 0, by all choices of their signs or by drawn ones."""
    n = len(differences)
    if 2**n <= permutations:
        return _count_extreme(differences, _all_signs(n)) / float(2**n)
    drawn = _drawn_signs(n, permutations, np.random.default_rng(seed))
    return (_count_extreme(differences, drawn) + 1) / (permutations + 1)


def _all_signs(n: int) -> Iterator[NDArray[np.uint8]]:
    """Yield each of the 2**n choices of n signs once, as rows of bits in bytes."""
    for begin, end in blocks(2**n, n):
        bits = (np.arange(begin, end)[:, None] >> np.arange(n)) & 1
        yield np.packbits(bits.astype(np.uint8), axis=1)


def _drawn_signs(n: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Yield ``count`` random choices of n signs, as rows of bits in bytes."""
    for begin, end in blocks(count, n):
        yield rng.integers(0, 256, size=(end - begin, -(-n // 8)), dtype=np.uint8)


def _count_extreme(differences: NDArray[np.float64], signs: Iterator[NDArray[np.uint8]]) -> int:
    """Count the choices of signs whose sum is at least as far from 0 as the observed one."""
    table = _sums_of_bytes(differences)
    observed = abs(differences.sum()) - ROUNDING * np.abs(differences).sum()
    count = 0
    for block in signs:
        places = block + 256 * np.arange(block.shape[1])
        sums = table.take(places).sum(axis=1)
        count += int(np.count_nonzero(np.abs(sums) >= observed))
    return count


def _sums_of_bytes(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum eight differences under each of the 256 choices of their signs, for every eight.

    A sum over n differences is then n / 8 looked-up numbers: several times faster than to
    unpack the bits and multiply, where columns differ in length and cannot share a product.

    Returns:
        (n / 8 rounded up, times 256) float64.
    """
    padded = np.zeros(-(-len(differences) // 8) * 8, dtype=np.float64)
    padded[: len(differences)] = differences
    signs = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1.0
    return (padded.reshape(-1, 8) @ signs.T).ravel()
