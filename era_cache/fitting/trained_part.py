"""Shapes of an adapter's trained part: linear, low-rank, residual MLP.

In: k parameter vectors (k, p) and the k maps they start from. Out: the k maps' outputs, adapters.
Parameters are departures from the start: at zero output weights every shape is the start itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter, Hidden

if TYPE_CHECKING:
    import torch

__all__ = ["SHAPES", "Linear", "Shape", "shape_of"]

SHAPES = ("linear", "low-rank", "mlp")


class Shape(Protocol):
    """What training needs to know of a shape; ``base`` is (k, d_out, d_in), the starting maps."""

    def initial(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Parameters (count, p) at which every map is its start."""

    def outputs(
        self, parameters: torch.Tensor, base: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        """Map inputs (k, m, d_in) to (k, m, d_out), not yet of unit length."""

    def adapter(
        self, views: tuple[str, ...], parameters: torch.Tensor, base: torch.Tensor
    ) -> Adapter:
        """The map of one parameter vector (p,) and its start (d_out, d_in)."""


def shape_of(name: str, d_out: int, d_in: int, *, rank: int, hidden: int) -> Shape:
    """Look a shape up by name.

    Raises:
        InputError: there is none of that name.
    """
    if name == "linear":
        return Linear(d_out, d_in)
    if name == "low-rank":
        return _LowRank(d_out, d_in, min(rank, d_out, d_in))
    if name == "mlp":
        return _Mlp(d_out, d_in, hidden)
    raise InputError(f"No adapter shape '{name}'; there are: {', '.join(SHAPES)}.")


class Linear(NamedTuple):
    """A matrix added to the start."""

    d_out: int
    d_in: int

    def initial(self, count: int, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002
        """See ``Shape``."""
        import torch

        return torch.zeros(count, self.d_out * self.d_in)

    def outputs(
        self, parameters: torch.Tensor, base: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        """See ``Shape``."""
        return inputs @ (base + parameters.view(-1, self.d_out, self.d_in)).transpose(1, 2)

    def adapter(
        self, views: tuple[str, ...], parameters: torch.Tensor, base: torch.Tensor
    ) -> Adapter:
        """See ``Shape``."""
        return Adapter(views, base + parameters.view(self.d_out, self.d_in))


class _LowRank(NamedTuple):
    """The start plus a product of (d_out, r) and (r, d_in); saved as the matrix that they make."""

    d_out: int
    d_in: int
    rank: int

    def initial(self, count: int, generator: torch.Generator) -> torch.Tensor:
        import torch

        left = torch.zeros(count, self.d_out * self.rank)
        right = torch.randn(1, self.rank * self.d_in, generator=generator) * self.d_in**-0.5
        return torch.cat([left, right.expand(count, -1)], dim=1)

    def _factors(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cut = self.d_out * self.rank
        left, right = parameters[..., :cut], parameters[..., cut:]
        shape = parameters.shape[:-1]
        return left.reshape(*shape, self.d_out, self.rank), right.reshape(
            *shape, self.rank, self.d_in
        )

    def outputs(
        self, parameters: torch.Tensor, base: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        left, right = self._factors(parameters)
        return inputs @ base.transpose(1, 2) + inputs @ right.transpose(1, 2) @ left.transpose(1, 2)

    def adapter(
        self, views: tuple[str, ...], parameters: torch.Tensor, base: torch.Tensor
    ) -> Adapter:
        left, right = self._factors(parameters)
        return Adapter(views, base + left @ right)


class _Mlp(NamedTuple):
    """The start plus one hidden layer of gelu units, whose output weights begin at zero."""

    d_out: int
    d_in: int
    hidden: int

    def initial(self, count: int, generator: torch.Generator) -> torch.Tensor:
        import torch

        weight = torch.randn(1, self.hidden * self.d_in, generator=generator) * 2
        weight = weight * self.d_in**-0.5
        rest = torch.zeros(count, self.hidden + self.d_out * self.hidden)
        return torch.cat([weight.expand(count, -1), rest], dim=1)

    def _layer(self, parameters: torch.Tensor) -> Hidden:
        h = self.hidden
        shape = parameters.shape[:-1]
        weight, bias, output = parameters.split([h * self.d_in, h, self.d_out * h], dim=-1)
        return Hidden(
            weight.reshape(*shape, h, self.d_in), bias, output.reshape(*shape, self.d_out, h)
        )

    def outputs(
        self, parameters: torch.Tensor, base: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        import torch

        layer = self._layer(parameters)
        inner = torch.nn.functional.gelu(
            inputs @ layer.weight.transpose(1, 2) + layer.bias[:, None, :]
        )
        return inputs @ base.transpose(1, 2) + inner @ layer.output.transpose(1, 2)

    def adapter(
        self, views: tuple[str, ...], parameters: torch.Tensor, base: torch.Tensor
    ) -> Adapter:
        layer = self._layer(parameters)
        return Adapter(views, base, hidden=Hidden(*(t.clone() for t in layer)))
