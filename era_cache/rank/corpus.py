"""Documents of a large corpus, kept as they are stored and unpacked when they are used.

In: vectors in half precision, or what reads them. Out: what stands where a (n, d) float32 tensor of
unit rows stands: its length, its shape, slices and rows, each as a tensor of unit rows. The numbers
are those that unpacking all of it would give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

__all__ = [
    "Corpus",
    "HalfRows",
    "ReadRows",
    "UnitRows",
    "enough_rows",
    "gathered",
    "products",
    "whole",
]

Corpus: TypeAlias = "torch.Tensor | UnitRows"
_BLOCK_ROWS = 1 << 16
_EPS = 1e-12
_FEWEST_ROWS = 16


class UnitRows:
    """n documents that are given out as unit rows in float32, some at a time.

    Args:
        shape: rows and dimensions.
        device: where they are given out.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.shape, self.device = shape, device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class ReadRows(UnitRows):
    """Documents that are read whenever some are used, one stretch after the other.

    Args:
        read: gives the rows from a first to a last one, (m, d) float32 of any length.
        shape: rows and dimensions.
    """

    def __init__(self, read: Callable[[int, int], torch.Tensor], shape: tuple[int, int]) -> None:
        import torch

        super().__init__(shape, torch.device("cpu"))
        self._read = read

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:
        import torch

        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError("only stretches of rows are read")
        start, end, _ = rows.indices(len(self))
        return torch.nn.functional.normalize(self._read(start, end), dim=1, eps=_EPS)


class HalfRows(UnitRows):
    """n rows in half precision that are given out as unit rows in float32.

    Args:
        values: (n, d) float16, on any device, of any length.
    """

    def __init__(self, values: torch.Tensor) -> None:
        import torch

        super().__init__((values.shape[0], values.shape[1]), values.device)
        self.values = values
        norms = [
            torch.linalg.vector_norm(part.float(), dim=1) for part in values.split(_BLOCK_ROWS)
        ]
        self.norms = torch.cat(norms) if norms else values.new_zeros(0, dtype=torch.float32)
        """(n,) float32, lengths of the rows as they are kept."""

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:
        if isinstance(rows, int | slice):
            found: torch.Tensor = self.values[rows].float()
        else:
            found = selected(self.values, rows).float()
        return found.div_(self.norms[rows].clamp(min=_EPS)[..., None])


def selected(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a matrix by number, (*, d) for rows (*): four times as fast as indexing is."""
    found = values.index_select(0, rows.reshape(-1))
    return found.view(*rows.shape, values.shape[1])


def products(queries: torch.Tensor, corpus: Corpus, rows: torch.Tensor) -> torch.Tensor:
    """Cosines of unit queries (q, d) with documents of their own, rows (q, m) int64; (q, m)."""
    # A sum of products takes a third of the time of torch.bmm, which meets them one at a time.
    if isinstance(corpus, HalfRows):
        found = selected(corpus.values, rows).float().mul_(queries[:, None]).sum(dim=2)
        return found.div_(corpus.norms[rows].clamp(min=_EPS))
    return gathered(corpus, rows).mul_(queries[:, None]).sum(dim=2)


def gathered(corpus: Corpus, rows: torch.Tensor) -> torch.Tensor:
    """Documents by number as float32 unit rows of their own memory, (*, d) for rows (*)."""
    return corpus[rows] if isinstance(corpus, UnitRows) else selected(corpus, rows)


def enough_rows(queries: torch.Tensor) -> torch.Tensor:
    """Queries, with rows of zeros behind where they are few: products with them are as fast.

    A matrix of few rows goes through another product, in which the last rows of the other matrix
    are added up in another order: copies of a document would not tie. On some processors that is
    so up to eleven rows.
    """
    import torch

    missing = _FEWEST_ROWS - len(queries)
    return torch.nn.functional.pad(queries, (0, 0, 0, missing)) if missing > 0 else queries


def whole(corpus: Corpus) -> torch.Tensor:
    """All of a corpus as one float32 tensor, for products with few of its queries at a time."""
    return corpus[:]
