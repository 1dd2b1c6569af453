"""Held-out queries as judges: what fold models make of them, and what that chooses.

In: collections with their folds, fold models. Out: values of the primary measure for each judging
query, and the reference tables that help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.fitting.adapter import Adapter, References, unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.judging_pool import JudgingPool
from era_cache.fitting.own_documents import excluded
from era_cache.fitting.stack import Stack
from era_cache.fitting.table_moves import TableMoves
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.fitting.who_judges import Labels
from era_cache.rank.measures import Measure, Ranking, evaluate, parse_measure
from era_cache.rank.search import search
from era_cache.types import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "PRIMARY",
    "Corrections",
    "Judge",
    "Part",
    "Tables",
    "Trained",
    "ranking_of",
    "values_of",
]

PRIMARY: Measure = parse_measure("nDCG@10")


class Part(NamedTuple):
    """One collection: its data, and who trains and who judges."""

    data: FitData
    labels: Labels
    pool: JudgingPool | None = None
    """By which its queries are judged, where the corpus is too large for every setting."""

    def judged(self, mapped: torch.Tensor, *, look: bool = True) -> FloatArray:
        """Primary measure of the judging queries, (m,) float64.

        Args:
            mapped: (m, d) unit rows, in the order of ``labels.judges``.
            look: whether a pool takes up what they find here.
        """
        rows = self.labels.judges
        if self.pool is None or not len(rows):
            return values_of(mapped, self.labels.queries, rows, self.data)
        if look:
            self.pool.look(mapped, rows)
        return self.pool.values(mapped, rows, PRIMARY)


def ranking_of(
    mapped: torch.Tensor, queries: QuerySet, rows: IntArray, data: FitData, depth: int
) -> Ranking:
    """The best documents of some queries in the whole corpus, ``depth`` at most.

    Args:
        mapped: (m, d) unit rows, in the order of ``rows``.
        queries: the set that ``rows`` numbers.
        rows: (m,) int64.
        data: the corpus.
        depth: how many.
    """
    own, depth = excluded(queries, rows), min(depth, len(data.corpus))
    return search(mapped, data.corpus, depth, exclude=own, tie_ranks=data.tie_ranks)


def values_of(mapped: torch.Tensor, queries: QuerySet, rows: IntArray, data: FitData) -> FloatArray:
    """Primary measure of some queries over the whole corpus, (m,) float64; see ``ranking_of``."""
    if not len(rows):
        return np.zeros(0)
    ranking = ranking_of(mapped, queries, rows, data, PRIMARY.cutoff or 10)
    qrels = queries.qrels.select_queries(rows)
    return evaluate(ranking.doc_rows, qrels, [PRIMARY], len(data.corpus))[PRIMARY]


class Tables(NamedTuple):
    """How tables are set: (step, steps) of the references, (step, contrast) of the memory."""

    references: tuple[float, int] | None
    memory: tuple[float, bool] | None


class Judge:
    """Held-out queries: what fold models make of them, and which reference tables help.

    Where the references near a query lie does not depend on steps, so it is computed once.

    Args:
        parts: the collections.
        references: alignment documents, None where the candidate may not use them.
        memory_view: the view by which labelled queries are told apart.
        pulls: for each collection the mean positive of each query, from ``losses.pull_of``.
        config: steps and temperatures to choose from.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        references: References | None,
        memory_view: str,
        pulls: Sequence[torch.Tensor],
        config: FitConfig,
    ) -> None:
        self.parts, self._config = parts, config
        self._documents, self._pulls = references, pulls
        self._memory_view = memory_view
        self._memory_step: tuple[float, bool] | None = None
        self._wanted = [
            None if self._documents is None else self._documents.wanted(_view(part, "large"))
            for part in self.parts
        ]
        self._moves = TableMoves()
        self._memories: dict[int, tuple[References, list[torch.Tensor]]] = {}

    def held_out(
        self, stack: Stack, parameters: torch.Tensor, first: int, inputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Map each collection's judging queries, each by a model that never saw it.

        ``parameters`` are those of the fold models, whose first is member ``first`` of the stack.
        """
        import torch

        mapped = []
        for part, joined in zip(self.parts, inputs, strict=True):
            vectors = torch.zeros(len(joined), stack.base.shape[1], device=joined.device)
            for number, fold in enumerate(part.labels.folds):
                rows = torch.from_numpy(fold.judge).to(joined.device)
                vectors[rows] = stack.outputs(parameters[number], first + number, joined[rows])
            mapped.append(vectors)
        return mapped

    @property
    def setting(self) -> Tables:
        """How the tables are set."""
        table = self._documents
        return Tables(None if table is None else (table.step, table.steps), self._memory_step)

    def set(self, tables: Tables) -> None:
        """Set the tables otherwise; references that a candidate has not stay out."""
        if self._documents is not None and tables.references is not None:
            step, steps = tables.references
            self._documents = self._documents._replace(step=step, steps=steps)
        self._memory_step = tables.memory

    def memories(self) -> list[tuple[float, bool] | None]:
        """Settings of the memory to choose from, the simplest first."""
        steps = self._config.memory_steps
        return [None, *((step, contrast) for contrast in (True, False) for step in steps)]

    def tables(self) -> tuple[References, ...]:
        """The tables of the final adapter: as chosen, the memory with all labelled queries."""
        tables = [] if self._documents is None else [self._documents]
        if self._memory_step is not None:
            step, contrast = self._memory_step
            rows = [part.labels.train_rows for part in self.parts]
            tables.append(self._memory(rows)._replace(step=step, contrast=contrast))
        return tuple(table for table in tables if table.step)

    def _memory(self, rows: Sequence[IntArray]) -> References:
        """Labelled queries and the mean of their positives, as references."""
        import torch

        view = self._memory_view
        kept = [torch.from_numpy(r).to(self._pulls[0].device) for r in rows]
        keys = [_view(part, view)[r] for part, r in zip(self.parts, kept, strict=True)]
        values = [unit(pull[r]) for pull, r in zip(self._pulls, kept, strict=True)]
        temperature = self._config.memory_temperature
        return References(view, torch.cat(keys), torch.cat(values), temperature, 0.0)

    def _fold_memory(self, fold: int) -> tuple[References, list[torch.Tensor]]:
        """The memory of what a fold trained on, and where it would have its judges move."""
        import torch

        if fold not in self._memories:
            mine = [part.labels.folds[fold % len(part.labels.folds)] for part in self.parts]
            table = self._memory([one.train for one in mine])
            judges = [torch.from_numpy(one.judge).to(table.keys.device) for one in mine]
            views = [_view(part, table.view) for part in self.parts]
            wanted = [table.wanted(v[r]) for v, r in zip(views, judges, strict=True)]
            self._memories[fold] = table, wanted
        return self._memories[fold]

    def corrected(
        self, mapped: Sequence[torch.Tensor], *, again: bool = True
    ) -> list[torch.Tensor]:
        """What ``held_out`` mapped, corrected by the tables as they are set.

        Args:
            mapped: of each collection.
            again: whether the same list comes again with other settings: what they share is kept,
                in place of what was kept for another list.

        Returns:
            For each collection (n, d) unit rows, in the order of its judging queries.
        """
        import torch

        found = []
        moves = self._moves if again else TableMoves()
        table = self._documents
        steps = None if table is None or not table.step else (table.step, table.steps)
        for number, (part, vectors) in enumerate(zip(self.parts, mapped, strict=True)):
            judges = torch.from_numpy(part.labels.judges).to(vectors.device)
            moved, wanted = vectors.clone(), self._wanted[number]
            if table is not None and wanted is not None and steps is not None:
                moved[judges] = moves.move(
                    table, moved[judges], wanted[judges], of=mapped, name=number
                )
            if self._memory_step is not None:
                step, contrast = self._memory_step
                for i, fold in enumerate(part.labels.folds):
                    memory, near = self._fold_memory(i)
                    rows = torch.from_numpy(fold.judge).to(vectors.device)
                    memory = memory._replace(step=step, contrast=contrast)
                    name = (number, i, steps)  # after these references
                    moved[rows] = moves.move(
                        memory, moved[rows], near[number], of=mapped, name=name
                    )
            found.append(moved[judges])
        return found

    def values(
        self, mapped: Sequence[torch.Tensor], *, look: bool = True
    ) -> tuple[FloatArray, ...]:
        """Values of all judging queries, corrected by the tables as they are set."""
        return tuple(
            part.judged(vectors, look=look)
            for part, vectors in zip(self.parts, self.corrected(mapped), strict=True)
        )

    def reference_steps(self) -> Sequence[tuple[float, int] | None]:
        """Settings of the references to choose from; theirs alone where there are no others."""
        now = self.setting.references
        return (now,) if now is None else self._config.reference_steps or (now,)

    def options(self) -> dict[str, float | int | str]:
        """What was chosen, for the record."""
        options: dict[str, float | int | str] = {}
        if self._documents is not None:
            options["references"] = f"{self._documents.step:g} x {self._documents.steps}"
        if self._memory_step is not None:
            step, contrast = self._memory_step
            options["memory"] = f"{step:g}{'' if contrast else ' plain'}"
        return options


class Trained(NamedTuple):
    """A point of the training path, of which an adapter can be made.

    ``strength`` is a number, or ``start``; ``mapped`` are the judging queries before any
    correction, as ``Judge.held_out`` gives them; ``adapter`` trains with all labels and gives the
    adapter, without tables.
    """

    strength: float | str
    mapped: Sequence[torch.Tensor]
    adapter: Callable[[], Adapter]


class Corrections(NamedTuple):
    """What the tables of a fitted candidate could be, and what its judging queries would become.

    ``mapped`` are these queries before any correction, as ``Judge.held_out`` gives them;
    ``setting`` is how the candidate has its tables; ``others`` are the points of its training path
    that were not the best, where they were asked for.
    """

    judge: Judge
    mapped: Sequence[torch.Tensor]
    setting: Tables
    others: Sequence[Trained] = ()

    def at(self, tables: Tables, *, again: bool = True) -> list[torch.Tensor]:
        """The judging queries with the tables set otherwise; as ``Judge.corrected``."""
        self.judge.set(tables)
        return self.judge.corrected(self.mapped, again=again)


def _view(part: Part, name: str) -> torch.Tensor:
    return part.labels.queries.views[name]
