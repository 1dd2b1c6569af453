"""The same queries moved by tables at many settings: what settings share is computed once.

In: mapped queries, tables that differ in step, number of steps and contrast. Out: the queries as
``References.move`` corrects them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from era_cache.fitting.adapter import References, unit

if TYPE_CHECKING:
    import torch

__all__ = ["TableMoves"]


class TableMoves:
    """Moves of queries that stay the same while steps are tried.

    Where the first step of a table leads does not depend on how long it is. What was computed last
    is known by names that the caller gives; it holds for one list of mapped queries, and is
    forgotten with it.
    """

    def __init__(self) -> None:
        self._of: Sequence[torch.Tensor] | None = None
        self._changes: dict[Hashable, torch.Tensor] = {}

    def move(
        self,
        table: References,
        rows: torch.Tensor,
        wanted: torch.Tensor,
        *,
        of: Sequence[torch.Tensor],
        name: Hashable,
    ) -> torch.Tensor:
        """Correct queries as ``table.move`` does.

        Args:
            table: without a pull.
            rows: (n, d) unit rows.
            wanted: (n, d) from ``table.wanted``.
            of: the list that the queries are from; another one is another object.
            name: of the queries and the table, whatever its step, steps and contrast are.
        """
        if self._of is not of:
            self._of, self._changes = of, {}
        key = (name, table.contrast)
        if key not in self._changes:
            self._changes[key] = table.change(rows, wanted)
        moved = unit(rows + table.step * self._changes[key])
        if table.steps < 2:
            return moved
        # Further steps begin elsewhere with every step: what they end at is kept, not a change.
        ended = (*key, table.step, table.steps)
        if ended not in self._changes:
            self._changes[ended] = table._replace(steps=table.steps - 1).move(moved, wanted)
        return self._changes[ended]
