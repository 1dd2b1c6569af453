"""Products of two matrices by the fastest library that is there.

In: two float32 matrices. Out: the dot products of all rows of one with all rows of the other.

On processors torch multiplies by MKL, which leaves AVX-512 unused on those of other makers, and
convolves by oneDNN, which does not: a convolution of 1 x 1 is a product of matrices, and takes
half the time there, but up to twice as long on those of MKL's maker (``python -m
benchmarks.evaluate --only products``). Values differ in their last bits, as between any two
libraries.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from era_cache.rank.processor import mkl_is_slow

if TYPE_CHECKING:
    import torch

__all__ = ["BLOCK_BYTES", "dots"]

BLOCK_BYTES = 8 << 20
"""Products held at a time on a processor: what its cache holds, and small enough for the C library
to give out the same pages again (those of larger blocks went back to the system every time)."""
_FEW = 128
"""Rows below which it is faster to lay the others out as they are."""
_MOST = 1 << 31


def dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right.T``.

    Args:
        left: (m, d) float32.
        right: (n, d) float32, on the same device; may be the transpose of a matrix.

    Returns:
        (m, n) float32, contiguous.
    """
    import torch

    (m, d), n = left.shape, len(right)
    fits = m * n * d > 0 and max(m * n, m * d, n * d) < _MOST
    if not fits or left.device.type != "cpu" or not _convolves():
        return torch.mm(left, right.T)
    found = _convolved(right, left).T if m < _FEW <= n else _convolved(left, right)
    return found.contiguous()


def _convolved(pixels: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Rows as pixels of d channels, and as filters of one pixel: (pixels, filters)."""
    import torch

    (m, d), n = pixels.shape, len(filters)
    picture = pixels.reshape(1, m, 1, d).permute(0, 3, 1, 2)
    found = torch.nn.functional.conv2d(picture, filters.reshape(n, 1, 1, d).permute(0, 3, 1, 2))
    return found.permute(0, 2, 3, 1).reshape(m, n)


@functools.cache
def _convolves() -> bool:
    """Whether MKL is slow on this processor, and convolutions are oneDNN's and in float32."""
    import torch

    if not mkl_is_slow() or not torch.backends.mkldnn.is_available():
        return False
    # A setting of torch or of oneDNN may let convolutions round to bfloat16, which has no 2**-12.
    row = torch.full((64, 64), 1 + 2**-12)
    with torch.no_grad():
        return abs(float(_convolved(row, row)[0, 0]) - 64 * (1 + 2**-12) ** 2) < 1e-3
