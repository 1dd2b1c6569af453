"""Vectors as people have them, checked: the one door for arrays and tensors from outside.

In: an argument of any float dtype, numpy or torch, on any device. Out: float32 rows on one device;
errors name the argument and its first bad row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.errors import InputError
from era_cache.types import Array

if TYPE_CHECKING:
    import torch

    Vectors = Array | torch.Tensor

__all__ = ["has_width", "rows_of", "same_count"]

_SHORTEST = 1e-12
"""Rows below this length have no direction in float32."""


def rows_of(vectors: Vectors, name: str, device: torch.device | str) -> torch.Tensor:
    """Rows of an argument as float32, finite and not zero, as long as they were given.

    Raises:
        InputError: it is no matrix of floating-point numbers, or a row cannot be used.
    """
    import torch

    tensor = vectors if isinstance(vectors, torch.Tensor) else _tensor(vectors, name)
    if not tensor.is_floating_point():
        raise InputError(f"{name} holds {tensor.dtype}; floating-point vectors are expected.")
    if tensor.ndim != 2 or not tensor.shape[1]:
        raise InputError(
            f"{name} has the shape {tuple(tensor.shape)}; (rows, dimensions) is expected."
        )
    tensor = tensor.detach().to(device=device, dtype=torch.float32)
    lengths = tensor.norm(dim=1)
    for wrong, what in (
        (~lengths.isfinite(), "holds NaN, infinity or numbers too large for float32"),
        (lengths < _SHORTEST, "is zero, which has no direction"),
    ):
        bad = wrong.nonzero()
        if len(bad):
            raise InputError(f"{name}: row {int(bad[0])} {what} ({len(bad)} such rows).")
    return tensor


def _tensor(vectors: Any, name: str) -> torch.Tensor:
    import torch

    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"{name} is no matrix: {error}.") from error
    if array.dtype.kind != "f":
        raise InputError(f"{name} holds {array.dtype}; floating-point vectors are expected.")
    with np.errstate(over="ignore"):  # infinity is reported with its row
        return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def same_count(one: torch.Tensor, name: str, other: torch.Tensor, other_name: str) -> None:
    """Refuse two arguments that cannot be of the same texts.

    Raises:
        InputError: they differ in their number of rows.
    """
    if len(one) != len(other):
        raise InputError(
            f"{name} has {len(one)} rows, but {other_name} has {len(other)}; they must be the same "
            "texts in the same order."
        )


def has_width(rows: torch.Tensor, name: str, width: int, whose: str) -> None:
    """Refuse vectors of another space.

    Raises:
        InputError: they have another number of dimensions.
    """
    if rows.shape[1] != width:
        raise InputError(
            f"{name} has {rows.shape[1]} dimensions; {width} are expected, as of {whose}."
        )
