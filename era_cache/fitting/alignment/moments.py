"""Sums and products of paired vectors: all that a closed-form alignment needs to know of the texts.

In: (n, d_large) and (n, d_small) vectors of the same n texts, in blocks of any size. Out:
``Moments``, whose memory is O(d^2) for any number of texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_cache.errors import FitError

if TYPE_CHECKING:
    import torch

__all__ = ["Moments", "check_finite", "check_rows", "moments_of"]

_CONSTANT = 1e-12
"""Vectors whose variance is a smaller share of their squared length than this are equal but for
rounding, of float32 vectors and of float64 sums."""


class Moments:
    """Count, sums and products of the large (X) and the small (Y) vectors of the same texts.

    All tensors are float64 on one device: ``large_sum`` (d_large,), ``small_sum`` (d_small,),
    ``large_large`` = X^T X (d_large, d_large), ``small_large`` = Y^T X (d_small, d_large) and
    ``small_small`` = Y^T Y (d_small, d_small). ``count`` is the number of texts.
    """

    def __init__(self, d_large: int, d_small: int, device: torch.device | str = "cpu") -> None:
        """Begin with no text.

        Args:
            d_large: dimensions of the large space.
            d_small: dimensions of the small space.
            device: where the products are kept; it must know float64.
        """
        import torch

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.count = 0
        self.large_sum, self.small_sum = zeros(d_large), zeros(d_small)
        self.large_large = zeros(d_large, d_large)
        self.small_large = zeros(d_small, d_large)
        self.small_small = zeros(d_small, d_small)

    def add(self, large: torch.Tensor, small: torch.Tensor) -> None:
        """Take in a block of texts; a block that is refused changes nothing.

        Args:
            large: (n, d_large), any float type and device; rows count by their squared length, so
                they should be unit vectors.
            small: (n, d_small), the same texts in the same order.

        Raises:
            FitError: the numbers of rows differ, the dimensions are others than those of the texts
                before, or a value is NaN or infinite.
        """
        check_rows(large, small)
        if (large.shape[1], small.shape[1]) != self._dimensions():
            raise FitError(
                f"Vectors of {large.shape[1]} (large) and {small.shape[1]} (small) dimensions "
                f"cannot join those of {self._dimensions()}. They are of other encoders."
            )
        x, y = large.to(self.large_sum), small.to(self.small_sum)
        self.count += len(x)
        self.large_sum += x.sum(dim=0)
        self.small_sum += y.sum(dim=0)
        self.large_large.addmm_(x.T, x)
        self.small_large.addmm_(y.T, x)
        self.small_small.addmm_(y.T, y)

    def __add__(self, other: Moments) -> Moments:
        """The moments of the texts of both, say of two collections, on the device of the first.

        Raises:
            FitError: the dimensions differ.
        """
        if self._dimensions() != other._dimensions():
            raise FitError(
                f"Moments of {self._dimensions()} and {other._dimensions()} dimensions (large, "
                "small) cannot be added. They are of other encoders."
            )
        total = Moments(*self._dimensions(), self.large_sum.device)
        for part in (self, other):
            total.count += part.count
            total.large_sum += part.large_sum.to(total.large_sum)
            total.small_sum += part.small_sum.to(total.small_sum)
            total.large_large += part.large_large.to(total.large_large)
            total.small_large += part.small_large.to(total.small_large)
            total.small_small += part.small_small.to(total.small_small)
        return total

    def centred(self) -> Moments:
        """The moments of the same texts after both means are subtracted; the sums become zero.

        Raises:
            FitError: there is no text, or all vectors of a side are equal.
        """
        self.require_texts()
        result = Moments(*self._dimensions(), self.large_sum.device)
        result.count = self.count
        x, y = self.large_sum, self.small_sum
        result.large_large = self.large_large - x.outer(x) / self.count
        result.small_large = self.small_large - y.outer(x) / self.count
        result.small_small = self.small_small - y.outer(y) / self.count
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

    def _dimensions(self) -> tuple[int, int]:
        return len(self.large_sum), len(self.small_sum)


def moments_of(large: torch.Tensor, small: torch.Tensor, block: int = 4096) -> Moments:
    """Moments of vectors that are in memory.

    Args:
        large: (n, d_large) float32, unit rows.
        small: (n, d_small) float32, the same texts in the same order.
        block: rows that are held as float64 at a time.

    Returns:
        The moments, on the device of ``large``.

    Raises:
        FitError: the numbers of rows differ, or a value is NaN or infinite.
    """
    check_rows(large, small)
    moments = Moments(large.shape[1], small.shape[1], large.device)
    for x, y in zip(large.split(block), small.split(block), strict=True):
        moments.add(x, y)
    return moments


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
