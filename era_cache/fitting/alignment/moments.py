"""Sums and products of paired vectors: all that a closed-form alignment needs to know of the texts.

In: (n, d_large) and (n, d_small) vectors of the same n texts. Out: ``Moments``, whose memory is
O(d^2) for any number of texts.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from era_cache.errors import FitError

if TYPE_CHECKING:
    import torch

__all__ = ["Moments", "check_finite", "check_rows", "moments_of"]

_CONSTANT = 1e-12
"""Vectors whose variance is a smaller share of their squared length than this are equal but for
rounding, of float32 vectors and of float64 sums."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Count, sums and products of the large (X) and the small (Y) vectors of the same texts.

    All tensors are float64 on one device: ``large_sum`` (d_large,), ``small_sum`` (d_small,),
    ``large_large`` = X^T X (d_large, d_large), ``small_large`` = Y^T X (d_small, d_large) and
    ``small_small`` = Y^T Y (d_small, d_small). ``count`` is the number of texts.
    """

    count: int
    large_sum: torch.Tensor
    small_sum: torch.Tensor
    large_large: torch.Tensor
    small_large: torch.Tensor
    small_small: torch.Tensor

    def __add__(self, other: Moments) -> Moments:
        """The moments of the texts of both, in the same two spaces."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Moments(*(mine + theirs for mine, theirs in pairs))

    def centred(self) -> Moments:
        """The moments of the same texts after both means are subtracted; the sums become zero.

        Raises:
            FitError: there is no text, or all vectors of a side are equal.
        """
        self.require_texts()
        x, y = self.large_sum, self.small_sum
        result = Moments(
            self.count,
            x - x,
            y - y,
            self.large_large - x.outer(x) / self.count,
            self.small_large - y.outer(x) / self.count,
            self.small_small - y.outer(y) / self.count,
        )
        for side, rest, whole in (
            ("large", result.large_large, self.large_large),
            ("small", result.small_small, self.small_small),
        ):
            if float(rest.trace()) <= _CONSTANT * float(whole.trace()):
                raise FitError(
                    f"All {self.count} {side} vectors are equal, so they have no directions to "
                    "align. Give different texts, or more of them."
                )
        return result

    def require_texts(self) -> None:
        """Refuse to fit from nothing.

        Raises:
            FitError: there is no text, or all vectors of a side are zero.
        """
        if not self.count:
            raise FitError("There is no text to align with. Encode some by both models.")
        for side, product in (("large", self.large_large), ("small", self.small_small)):
            if not float(product.trace()):
                raise FitError(
                    f"All {side} vectors of {self.count} texts are zero; unit vectors are expected."
                )


def moments_of(large: torch.Tensor, small: torch.Tensor, block: int = 4096) -> Moments:
    """Sum up vectors that are in memory.

    Args:
        large: (n, d_large), any float type; rows count by their squared length, so they should be
            unit vectors.
        small: (n, d_small), the same texts in the same order.
        block: rows that are held as float64 at a time.

    Returns:
        The moments, on the device of ``large``, which must know float64.

    Raises:
        FitError: the numbers of rows differ, or a value is NaN or infinite.
    """
    import torch

    check_rows(large, small)
    d_large, d_small = large.shape[1], small.shape[1]
    shapes = ((d_large,), (d_small,), (d_large, d_large), (d_small, d_large), (d_small, d_small))
    sums = [torch.zeros(shape, dtype=torch.float64, device=large.device) for shape in shapes]
    for rows in zip(large.split(block), small.split(block), strict=True):
        x, y = (vectors.to(sums[0]) for vectors in rows)
        sums[0] += x.sum(dim=0)
        sums[1] += y.sum(dim=0)
        sums[2].addmm_(x.T, x)
        sums[3].addmm_(y.T, x)
        sums[4].addmm_(y.T, y)
    return Moments(len(large), *sums)


def check_rows(large: torch.Tensor, small: torch.Tensor, at_least: int = 0) -> None:
    """Refuse vectors that would give a wrong map without a word.

    Args:
        large: (n, d_large).
        small: (n, d_small).
        at_least: smallest n.

    Raises:
        FitError: the numbers of rows differ, there are too few, or a value is NaN or infinite.
        ValueError: an input is no matrix.
    """
    for side, vectors in (("large", large), ("small", small)):
        if vectors.ndim != 2:
            raise ValueError(f"{side} must be a matrix, not of shape {tuple(vectors.shape)}.")
    if len(large) != len(small):
        raise FitError(
            f"There are {len(large)} large vectors but {len(small)} small ones; both models must "
            "encode the same texts."
        )
    if len(large) < at_least:
        raise FitError(
            f"There are {len(large)} texts to align with; at least {at_least} must be encoded by "
            "both models."
        )
    check_finite("large", large)
    check_finite("small", small)


def check_finite(name: str, vectors: torch.Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        FitError: there is one; ``name`` says where.
    """
    # A sum needs no memory and is finite only if all is; the slow look is for large numbers.
    if not bool(vectors.sum().isfinite()) and not bool(vectors.isfinite().all()):
        raise FitError(
            f"The {name} vectors hold NaN or infinity; unit vectors are expected. `era-store "
            "verify` finds such rows in a store."
        )
