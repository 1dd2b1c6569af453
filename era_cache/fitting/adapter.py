"""What an adapter computes: linear maps, residual layers and reference tables. No files here.

In: unit-length query vectors of one or two encoders. Out: unit-length vectors in the document
space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from era_cache.errors import FingerprintError, InputError
from era_cache.fitting.rows import rows_of, same_count
from era_cache.types import Array

if TYPE_CHECKING:
    import torch

__all__ = ["VIEWS", "Adapter", "Fusion", "Hidden", "References", "unit"]

_V = TypeVar("_V", Array, "torch.Tensor")
VIEWS = ("large", "small")
_BLOCK_ELEMENTS = 1 << 22
"""Similarities to references held at a time: 16 MiB."""
_HALF = 0.5
"""Between the lengths of a row that has a direction, 1, and of one that has none, 0 or NaN."""


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale each row of (..., d) to unit length; the one place where vectors are normalised."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-12)


class Hidden(NamedTuple):
    """A residual layer: ``output @ gelu(weight @ x + bias)`` is added to the linear map.

    ``weight`` (h, d_in), ``bias`` (h,), ``output`` (d_out, h), all float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    output: torch.Tensor


class References(NamedTuple):
    """Texts whose place is known in both spaces, and how strongly they correct a mapped query.

    The view ``view`` says which references are near (p = softmax(query . keys / temperature)).
    The mapped query says which ones it would find (q, the same with ``values``). It moves to
    ``unit(mapped + step * sum_j (p_j - q_j) values_j + pull * (start - mapped))``, ``steps`` times:
    a gradient step on the cross-entropy of q against p, and on the distance to ``start``, where the
    query began. Without ``contrast`` q counts as zero.

    ``keys`` (m, d_view) and ``values`` (m, d_out) are unit rows, float32. The tables that fitting
    makes are alignment documents (keys of the large model, values of the small one) and labelled
    queries (their own vectors, and the mean of their positives).
    """

    view: str
    keys: torch.Tensor
    values: torch.Tensor
    temperature: float
    step: float
    steps: int = 1
    contrast: bool = True
    pull: float = 0.0

    def wanted(self, queries: torch.Tensor) -> torch.Tensor:
        """Where the references near each query lie: sum_j p_j values_j.

        Args:
            queries: (n, d_view) unit rows of the view ``self.view``.

        Returns:
            (n, d_out), not of unit length.
        """
        import torch

        blocks = [
            torch.softmax(block @ self.keys.T / self.temperature, dim=1) @ self.values
            for block in queries.split(self._rows())
        ]
        return torch.cat(blocks)

    def change(self, mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Where a step leads from mapped queries, (n, d_out), before it is scaled by ``step``.

        Args:
            mapped: (n, d_out) unit rows.
            wanted: (n, d_out) from ``wanted``, of the same queries.
        """
        import torch

        if not self.contrast:
            return wanted
        blocks = zip(mapped.split(self._rows()), wanted.split(self._rows()), strict=True)
        return torch.cat([self._change(*block) for block in blocks])

    def move(self, mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Correct mapped queries, (n, d_out) unit rows; arguments as for ``change``."""
        import torch

        blocks = zip(mapped.split(self._rows()), wanted.split(self._rows()), strict=True)
        return torch.cat([self._move(*block) for block in blocks])

    def _rows(self) -> int:
        """Queries at a time."""
        return max(1, _BLOCK_ELEMENTS // len(self.keys))

    def _change(self, mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        import torch

        if not self.contrast:
            return wanted
        found = torch.softmax(mapped @ self.values.T / self.temperature, dim=1)
        return wanted - found @ self.values

    def _move(self, mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        start = mapped
        for _ in range(self.steps):
            moved = mapped + self.step * self._change(mapped, wanted)
            if self.pull:
                moved = moved + self.pull * (start - mapped)
            mapped = unit(moved)
        return mapped


class Fusion(NamedTuple):
    """Another system joins in: score = cosine + ``weight`` * the score of ``run``."""

    run: str
    weight: float


class Adapter(NamedTuple):
    """A map of one or more query views into the document space.

    ``views`` are names from ``VIEWS``, concatenated in this order; ``weight`` is (d_out, d_in)
    float32, ``bias`` (d_out,) float32 or None, ``hidden`` a residual layer or None. ``references``
    then correct the mapped vector one after another; their views must be among ``views``.
    ``fusion`` says what whoever ranks with the mapped vectors adds to their cosines
    (``rank.fuse``); the vectors are the same without it.
    """

    views: tuple[str, ...]
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    hidden: Hidden | None = None
    references: tuple[References, ...] = ()
    fusion: Fusion | None = None

    def to(self, device: torch.device | str) -> Adapter:
        """The same adapter with its tensors on a device."""
        hidden = self.hidden
        return self._replace(
            weight=self.weight.to(device),
            bias=None if self.bias is None else self.bias.to(device),
            hidden=None if hidden is None else Hidden(*(t.to(device) for t in hidden)),
            references=tuple(
                r._replace(keys=r.keys.to(device), values=r.values.to(device))
                for r in self.references
            ),
        )

    def maps_as(self, other: Adapter) -> bool:
        """Whether both map any query to the same vector; what joins in may differ."""
        plain, others = (_leaves(one._replace(fusion=None)) for one in (self, other))
        return len(plain) == len(others) and all(map(_same, plain, others))

    def size(self) -> int:
        """Numbers that the adapter holds."""
        tensors = [self.weight, *(self.hidden or ())]
        tensors += [] if self.bias is None else [self.bias]
        tensors += [t for r in self.references for t in (r.keys, r.values)]
        return sum(t.numel() for t in tensors)

    def apply(self, queries: Mapping[str, _V]) -> _V:
        """Map queries.

        Args:
            queries: view name to (n, d_view), arrays or tensors of any float dtype on any device;
                rows are scaled to unit length here.

        Returns:
            (n, d_out) float32, unit rows: a tensor on the adapter's device, or an array where
            arrays were given.

        Raises:
            InputError: rows cannot be used, or the adapter maps one to no direction.
            FingerprintError: a view is missing or has another dimension than the adapter expects.
        """
        rows = {
            view: rows_of(vectors, f"queries['{view}']", self.weight.device)
            for view, vectors in queries.items()
            if view in self.views
        }
        if len(rows) == 2:
            same_count(rows["small"], "queries['small']", rows["large"], "queries['large']")
        mapped = self.mapped(rows)
        lost = (~(mapped.norm(dim=1) > _HALF)).nonzero()  # NaN is not above it either
        if len(lost):
            raise InputError(
                f"The adapter maps {len(lost)} of {len(mapped)} queries to no direction, row "
                f"{int(lost[0])} first; they could find nothing. Fit it again."
            )
        tensors = all(hasattr(vectors, "requires_grad") for vectors in queries.values())
        found: Any = mapped if tensors else mapped.cpu().numpy()
        return cast("_V", found)

    def mapped(self, queries: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Map queries that are known to be sound, as ``apply`` does.

        Args:
            queries: view name to (n, d_view) float32 on the adapter's device.

        Returns:
            (n, d_out) float32, unit rows; one that the adapter maps to no direction is zero or NaN.

        Raises:
            FingerprintError: as ``apply``.
        """
        import torch

        missing = [view for view in self.views if view not in queries]
        if missing:
            raise FingerprintError(
                f"The adapter reads the views {self.views}; {missing} not given."
            )
        views = {view: unit(queries[view]) for view in self.views}
        joined = torch.cat([views[view] for view in self.views], dim=1)
        if "small" in views and views["small"].shape[1] != self.weight.shape[0]:
            raise FingerprintError(
                f"The adapter's documents have {self.weight.shape[0]} dimensions, the small "
                f"view's queries {views['small'].shape[1]}: they are not of one encoder."
            )
        if joined.shape[1] != self.weight.shape[1]:
            raise FingerprintError(
                f"The adapter expects {self.weight.shape[1]} input dimensions for {self.views}; "
                f"the vectors have {joined.shape[1]}. They are of other encoders."
            )
        mapped = joined @ self.weight.T
        if self.bias is not None:
            mapped = mapped + self.bias
        if self.hidden is not None:
            inner = torch.nn.functional.gelu(joined @ self.hidden.weight.T + self.hidden.bias)
            mapped = mapped + inner @ self.hidden.output.T
        mapped = unit(mapped)
        for table in self.references:
            if views[table.view].shape[1] != table.keys.shape[1]:
                raise FingerprintError(
                    f"The adapter's references expect {table.keys.shape[1]} dimensions of the view "
                    f"{table.view}; the vectors have {views[table.view].shape[1]}."
                )
            mapped = table.move(mapped, table.wanted(views[table.view]))
        return mapped


def _leaves(value: object) -> list[object]:
    """What nested tuples hold, in order; each tuple is preceded by its length."""
    if not isinstance(value, tuple):
        return [value]
    return [len(value), *(leaf for one in value for leaf in _leaves(one))]


def _same(one: object, other: object) -> bool:
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one is other or (one.dtype == other.dtype and torch.equal(one, other))
    return type(one) is type(other) and one == other
