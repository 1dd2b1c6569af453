"""Where maps are trained: linear ones in the span of the queries that they are trained on.

In: k maps, the inputs of their queries. Out: coordinates for training, fewer than parameters where
queries are fewer than dimensions.

A departure D (d_out, d_in) from the start has its gradient, and its share of a squared norm, in the
span of the inputs: whatever it has beside them changes no output and is pulled to zero. With
orthonormal rows Q of that span, D = C Q, |D| = |C| and D x = C (Q x), so that L-BFGS goes through
the same points with C (d_out, r) as with D, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from era_cache.fitting.trained_part import Linear, Shape

if TYPE_CHECKING:
    import torch

    Back = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["Space", "space_of"]


class Space(Protocol):
    """Coordinates (k, q) in place of parameters (k, p) of k maps while they are trained."""

    def inward(self, parameters: torch.Tensor) -> torch.Tensor:
        """Coordinates of parameters."""

    def outward(self, within: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        """Parameters of coordinates; ``begin`` are those that training began with."""

    def outputs(
        self, within: torch.Tensor, number: int, members: torch.Tensor | None
    ) -> tuple[torch.Tensor, Back]:
        """What maps make of their own queries of collection ``number``, and the way back.

        Args:
            within: (j, q) coordinates.
            number: of the collection.
            members: (j,) which maps they are of, None for all.

        Returns:
            (j, m, d_out), not of unit length; and a function from the gradient with respect to it
            to that with respect to the coordinates.
        """


def space_of(shape: Shape, base: torch.Tensor, inputs: Sequence[torch.Tensor]) -> Space:
    """The space in which maps are trained.

    Args:
        shape: of the maps.
        base: (k, d_out, d_in) their starts.
        inputs: for each collection (k, m, d_in), the queries of each map.
    """
    return _Span(base, inputs) if isinstance(shape, Linear) else _Whole(shape, base, inputs)


class _Whole:
    """Parameters as they are."""

    def __init__(self, shape: Shape, base: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
        self._shape, self._base, self._inputs = shape, base, inputs

    def inward(self, parameters: torch.Tensor) -> torch.Tensor:
        return parameters

    def outward(self, within: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return within

    def outputs(
        self, within: torch.Tensor, number: int, members: torch.Tensor | None
    ) -> tuple[torch.Tensor, Back]:
        import torch

        base, inputs = self._base, self._inputs[number]
        if members is not None:
            base, inputs = base[members], inputs[members]
        leaf = within.detach().requires_grad_()
        found = self._shape.outputs(leaf, base, inputs)
        return found.detach(), lambda gradient: torch.autograd.grad(found, leaf, gradient)[0]


class _Span:
    """Departures of linear maps in the span of their inputs; see the module."""

    def __init__(self, base: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
        self._d_out = base.shape[1]
        self._basis = _basis(inputs)
        self._inputs = [self._coordinates(mine) for mine in inputs]
        self._placed = [mine @ base.transpose(1, 2) for mine in inputs]

    def _coordinates(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self._basis is None else rows @ self._basis.transpose(1, 2)

    def _as_maps(self, parameters: torch.Tensor) -> torch.Tensor:
        return parameters.view(len(parameters), self._d_out, -1)

    def inward(self, parameters: torch.Tensor) -> torch.Tensor:
        return self._coordinates(self._as_maps(parameters)).reshape(len(parameters), -1)

    def outward(self, within: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        if self._basis is None:
            return within
        # What the beginning has beside the span stays.
        changed = self._as_maps(within - self.inward(begin)) @ self._basis
        return begin + changed.reshape(len(begin), -1)

    def outputs(
        self, within: torch.Tensor, number: int, members: torch.Tensor | None
    ) -> tuple[torch.Tensor, Back]:
        inputs, placed = self._inputs[number], self._placed[number]
        if members is not None:
            inputs, placed = inputs[members], placed[members]
        found = placed.baddbmm(inputs, self._as_maps(within).transpose(1, 2))
        return found, lambda gradient: (gradient.transpose(1, 2) @ inputs).flatten(1)


def _basis(inputs: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Orthonormal rows (k, r, d_in) whose span holds the inputs; None where it is everything."""
    import torch

    rows = torch.cat(list(inputs), dim=1)
    if rows.shape[1] >= rows.shape[2]:
        return None
    columns = rows.transpose(1, 2)
    home = columns.device
    if home.type == "mps":  # has no QR decomposition
        columns = columns.cpu()
    orthonormal: torch.Tensor = torch.linalg.qr(columns).Q
    return orthonormal.transpose(1, 2).contiguous().to(home)
