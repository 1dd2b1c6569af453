"""Training with few labels: many adapters at once, each held near its own start.

In: a ``Task`` for each collection, and a ``Member`` for each adapter. Out: for each strength
of the pull to the start, from strong to weak, the trained parameters of all members; a weaker pull
goes on from where the stronger one ended.

The softmax runs over the whole corpus, or over a pool of it: see ``mining.pool_rows``. Linear maps
are trained in the span of their queries: see ``span``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.errors import FitError
from era_cache.fitting.adapter import unit
from era_cache.fitting.lbfgs import MEMORY, minimise
from era_cache.fitting.losses import corpus_softmax
from era_cache.fitting.span import space_of
from era_cache.fitting.trained_part import Shape
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["Member", "Stack", "Task", "bytes_per_member"]


class Task(NamedTuple):
    """One collection as training sees it; all tensors on one device, all rows of unit length.

    ``inputs`` (n, d_in) are the joined query views, ``corpus`` (N, d_out) the candidates of the
    softmax, ``pull`` (n, d_out) from ``losses.pull_of``; ``barred`` (n, N) bool marks documents
    that are no candidates for a query, None for none.
    """

    inputs: torch.Tensor
    corpus: torch.Tensor
    pull: torch.Tensor
    barred: torch.Tensor | None


class Member(NamedTuple):
    """One adapter of a stack: where it starts, and which query rows of each task it may see."""

    start: torch.Tensor
    rows: Sequence[IntArray]
    temperature: float


def bytes_per_member(rows: int, d_out: int, d_in: int) -> int:
    """Memory that one linear member of a stack needs while it trains on so many rows, roughly."""
    return 4 * (rows * (d_in + 6 * d_out) + d_out * d_in * (2 * MEMORY + 8))


class Stack:
    """Members of one shape that are trained together.

    Args:
        tasks: the collections.
        members: at least one; each sees at least one query.
        shape: of all of them.
        learn_temperature: whether each member also moves its own temperature.
        generator: for shapes that start at random.
        block_bytes: scores held at a time.

    Raises:
        FitError: a member has no query to learn from.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        members: Sequence[Member],
        shape: Shape,
        *,
        generator: torch.Generator,
        learn_temperature: bool = False,
        block_bytes: int = 1 << 26,
    ) -> None:
        import torch

        device = tasks[0].corpus.device
        self.tasks, self.shape = tasks, shape
        self.base = torch.stack([member.start for member in members])
        self._rows = [
            _padded([member.rows[i] for member in members], device) for i in range(len(tasks))
        ]
        self.counts = torch.stack([weight.sum(dim=1) for _, weight in self._rows]).sum(dim=0)
        if not bool((self.counts > 0).all()):
            raise FitError("No training query has a positive judgement; there is nothing to learn.")
        inputs = [task.inputs[rows] for task, (rows, _) in zip(tasks, self._rows, strict=True)]
        self._space = space_of(shape, self.base, inputs)
        self._temperatures = torch.tensor([m.temperature for m in members], device=device)
        self._learn_temperature = learn_temperature
        self._block_bytes = block_bytes
        origin = shape.initial(len(members), generator).to(device)
        if learn_temperature:
            origin = torch.cat([origin, torch.zeros(len(members), 1, device=device)], dim=1)
        self.origin = origin
        self._origin_within = self._inward(origin)

    def path(
        self,
        strengths: Sequence[float],
        iterations: int,
        *,
        begin: torch.Tensor | None = None,
        refresh: Callable[[torch.Tensor], Sequence[Task]] | None = None,
    ) -> Iterator[torch.Tensor]:
        """Train at each strength in turn.

        Args:
            strengths: of ``strength / queries * |parameters - origin|^2``, falling.
            iterations: L-BFGS steps at each strength.
            begin: parameters (k, p) to start from; None is the origin.
            refresh: given the parameters after a strength, the tasks with new pools.

        Yields:
            Parameters (k, p) after each strength.
        """
        parameters = self.origin if begin is None else begin
        within = self._inward(parameters)
        trained = parameters
        for number, strength in enumerate(strengths):
            if number and refresh is not None:
                self.tasks = refresh(trained)
            within = minimise(partial(self._objective, strength), within, iterations)
            trained = self._outward(within, parameters)
            yield trained

    def _inward(self, parameters: torch.Tensor) -> torch.Tensor:
        """Coordinates of the maps in the space that they are trained in, and temperatures."""
        import torch

        maps = self.maps(parameters)
        return torch.cat([self._space.inward(maps), parameters[:, maps.shape[1] :]], dim=1)

    def _outward(self, within: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        import torch

        maps = self._space.outward(self.maps(within), self.maps(begin))
        return torch.cat([maps, within[:, self.maps(within).shape[1] :]], dim=1)

    def outputs(self, parameters: torch.Tensor, member: int, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs (n, d_in) by one member's parameters (p,); unit rows."""
        mapped = self.shape.outputs(
            self.maps(parameters[None]), self.base[member : member + 1], inputs[None]
        )
        return unit(mapped[0])

    def temperature(self, parameters: torch.Tensor, member: int) -> float:
        """The temperature of one member at parameters (p,), learned or given."""
        given = float(self._temperatures[member])
        return given * float(parameters[-1].exp()) if self._learn_temperature else given

    def maps(self, parameters: torch.Tensor) -> torch.Tensor:
        """The part of parameters (k, p) that belongs to the maps."""
        return parameters[:, :-1] if self._learn_temperature else parameters

    def _objective(
        self, strength: float, parameters: torch.Tensor, members: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (k,) and gradients (k, p): mean over a member's queries plus the pull."""
        counts = self.counts[members]
        temperatures = self._temperatures[members]
        if self._learn_temperature:
            temperatures = temperatures * parameters[:, -1].exp()
        held = strength / counts
        away = parameters - self._origin_within[members]
        loss = held * away.square().sum(dim=1)
        gradient = 2 * held[:, None] * away
        everyone = len(members) == len(self.base)
        maps = self.maps(parameters)
        for number, (task, (rows, weight)) in enumerate(zip(self.tasks, self._rows, strict=True)):
            if not rows.shape[1]:
                continue
            if not everyone:
                rows, weight = rows[members], weight[members]
            found, back = self._space.outputs(maps, number, None if everyone else members)
            lengths = found.norm(dim=2, keepdim=True).clamp(min=1e-12)
            mapped = found / lengths
            ranked = corpus_softmax(
                mapped.view(-1, mapped.shape[2]),
                task.corpus,
                task.pull[rows.reshape(-1)],
                temperatures.repeat_interleave(rows.shape[1]),
                barred=task.barred,
                rows=rows.reshape(-1),
                block_bytes=self._block_bytes,
            )
            share = weight / counts[:, None]
            loss = loss + (ranked.loss.view_as(share) * share).sum(dim=1)
            slope = ranked.gradient.view_as(mapped) * share[:, :, None]
            # Of a unit vector only what is across it changes.
            along = (slope * mapped).sum(dim=2, keepdim=True)
            gradient[:, : maps.shape[1]] += back(slope.sub_(along * mapped).div_(lengths))
            if self._learn_temperature:
                by_temperature = (ranked.by_log_temperature.view_as(share) * share).sum(dim=1)
                gradient[:, -1] += by_temperature
        return loss, gradient


def _padded(rows: Sequence[IntArray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers (k, m) of several members, the shorter ones filled up, and weights 1 or 0.

    What fills up is a row that some member trains on: of another, every document may be barred, and
    its loss be NaN whatever its weight.
    """
    import torch

    longest = max(len(r) for r in rows)
    filler = next((r[0] for r in rows if len(r)), 0)
    table = np.full((len(rows), longest), filler, dtype=np.int64)
    weight = np.zeros((len(rows), longest), dtype=np.float32)
    for i, r in enumerate(rows):
        table[i, : len(r)], weight[i, : len(r)] = r, 1.0
    return torch.from_numpy(table).to(device), torch.from_numpy(weight).to(device)
