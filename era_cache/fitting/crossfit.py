"""One candidate from start to finish: train on folds, let held-out labels choose, train again.

In: the data of one or several collections, the candidate's query views and starting map. Out: an
adapter with its references, and the value of each judging query under a model that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.fitting.adapter import Adapter, References, unit
from era_cache.fitting.choose_tables import choose_tables
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import PRIMARY, Corrections, Judge, Part, Trained
from era_cache.fitting.losses import pull_of
from era_cache.fitting.means import BETTER, luck, macro
from era_cache.fitting.mining import STRATEGIES
from era_cache.fitting.softmax_documents import task_of
from era_cache.fitting.stack import Member, Stack, Task, bytes_per_member
from era_cache.fitting.trained_part import shape_of
from era_cache.types import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

    Told = Callable[[str], None]

__all__ = ["Fitted", "Request", "crossfit", "crossfit_all"]


class Fitted(NamedTuple):
    """An adapter and how it did on the queries that judge.

    ``values`` has, for each collection, (n,) float64 values of the primary measure, less what
    choosing settings on these very queries added (``luck``); ``options`` (JSON) say what produced
    it. ``mapped`` has, for each collection, (n, d) unit float32 rows: these queries as a model that
    never saw them maps them; empty where that is not known.
    """

    adapter: Adapter
    values: tuple[FloatArray, ...]
    options: dict[str, float | int | str]
    mapped: tuple[torch.Tensor, ...] = ()
    measured: tuple[FloatArray, ...] = ()
    """What ``mapped`` was measured at, luck included; empty where that is not known."""
    corrections: Corrections | None = None
    """What else the adapter's tables could be; None where nothing was to choose."""

    @property
    def mean(self) -> float:
        """Mean over collections of the mean over queries."""
        return macro(self.values)


class _Point(NamedTuple):
    """The fold models after one strength: parameters, and what they make of the judging queries."""

    strength: float | str
    parameters: torch.Tensor
    mapped: list[torch.Tensor]
    values: tuple[FloatArray, ...]

    @property
    def mean(self) -> float:
        return macro(self.values)


class Request(NamedTuple):
    """One candidate to fit: its data, the views that its map reads, its start and its recipe.

    ``start`` (d_out, d_in) float32 is where training begins and what it is held to; ``references``
    are from ``document_references``, None where the candidate may not use them.
    """

    parts: Sequence[Part]
    views: tuple[str, ...]
    start: torch.Tensor
    config: FitConfig
    references: References | None = None
    keep_path: bool = False
    """Whether the fit's corrections have the other points of the training path, too."""


def crossfit(request: Request, *, tell: Told = lambda _text: None) -> Fitted:
    """Fit one candidate; see ``crossfit_all``."""
    (fitted,) = crossfit_all([request], tell=tell)
    return fitted


def crossfit_all(
    requests: Sequence[Request], *, refit: bool = True, tell: Told = lambda _text: None
) -> list[Fitted]:
    """Fit candidates, as many as possible in the same products.

    1. Fold models are trained along ``config.strengths``; each maps the queries that it never saw.
    2. These choose, by mean primary measure: the strength (the untrained start is one of them),
       then the step of the references, then whether a memory of labelled queries joins.
    3. The chosen setting is trained on all labelled queries, from the mean of the fold models.

    Args:
        requests: of any views and recipes; those that only differ in start, temperature, labels or
            what is chosen afterwards are trained together.
        refit: whether step 3 takes place where the recipe asks for it. Without it the adapter is
            the mean of the fold models.
        tell: told in words how it goes.

    Raises:
        FitError: no labelled query has a positive, or no negatives can be mined.
    """
    groups: dict[Any, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(_stackable(request), []).append(number)
    found: dict[int, Fitted] = {}
    for numbers in groups.values():
        together = [requests[number] for number in numbers]
        for begin in range(0, len(together), step := _at_a_time(together)):
            fits = _Group(together[begin : begin + step], tell).fit(refit=refit)
            found.update(zip(numbers[begin : begin + step], fits, strict=True))
    return [found[number] for number in range(len(requests))]


def _stackable(request: Request) -> Any:
    """What requests must share to be trained in one stack."""
    config = request.config
    pooled = _pooled(request.parts, config)
    # What is mined depends on where the start leads.
    mined_for = request.start if pooled or config.negatives in STRATEGIES else None
    # Positives of other queries are in pools and in-batch negatives: whose, must be the same.
    labels = [part.labels.train_rows.tobytes() for part in request.parts]
    return (
        tuple((id(part.data), id(part.labels.queries)) for part in request.parts),
        tuple(labels) if pooled or config.negatives != "corpus" else None,
        request.views,
        tuple(request.start.shape),
        config.strengths,
        config.iterations,
        (config.shape, config.rank, config.hidden, config.learn_temperature, config.seed),
        (config.negatives, config.negatives_per_query, config.duplicates),
        (config.pool_documents, config.mined_per_query, config.block_bytes),
        id(mined_for),
    )


def _pooled(parts: Sequence[Part], config: FitConfig) -> bool:
    """Whether a softmax runs over less than a corpus."""
    return any(len(part.data.corpus) > config.pool_documents for part in parts)


def _at_a_time(requests: Sequence[Request]) -> int:
    """Requests whose stack stays within ``config.stack_bytes``, at least one."""
    request = requests[0]
    rows = sum(len(part.labels.queries.ids) for part in request.parts)
    d_out, d_in = request.start.shape
    folds = max(len(part.labels.folds) for part in request.parts)
    each = folds * bytes_per_member(rows, d_out, d_in)
    return max(1, request.config.stack_bytes // each)


class _Group:
    """Requests of one stack."""

    def __init__(self, requests: Sequence[Request], tell: Told) -> None:
        first = requests[0]
        self._requests, self._config, self._tell = requests, first.config, tell
        self._parts, views = first.parts, first.views
        self._inputs = [_joined(part.labels.queries.views, views) for part in self._parts]
        self._shape = shape_of(
            self._config.shape,
            *first.start.shape,
            rank=self._config.rank,
            hidden=self._config.hidden,
        )
        self._pooled = _pooled(self._parts, self._config)
        mapped = [unit(x @ first.start.T) for x in self._inputs]
        self._tasks = self._make_tasks(mapped)
        pulls = [
            pull_of(part.labels.queries.qrels, len(part.labels.queries.ids), part.data.corpus)
            for part in self._parts
        ]
        self._judges = [
            Judge(
                request.parts,
                request.references,
                "large" if "large" in request.views else "small",
                pulls,
                request.config,
            )
            for request in requests
        ]

    def _make_tasks(
        self, mapped: Sequence[torch.Tensor], before: Sequence[Task] | None = None
    ) -> list[Task]:
        """The tasks with queries where they lie now; a softmax over a corpus stays as it was."""
        tasks = []
        for number, part in enumerate(self._parts):
            if before is not None and len(before[number].corpus) == len(part.data.corpus):
                tasks.append(before[number])
                continue
            # Whose labels make candidates; those of the stack are then all of one kind.
            known = None
            if self._pooled or self._config.negatives != "corpus":
                known = np.union1d(part.labels.train_rows, part.labels.judges)
            inputs, queries = self._inputs[number], part.labels.queries
            tasks.append(
                task_of(part.data, queries, inputs, mapped[number], self._config, known, part.pool)
            )
        return tasks

    def _stack(self, members: Sequence[Member]) -> Stack:
        import torch

        return Stack(
            self._tasks,
            members,
            self._shape,
            generator=torch.Generator().manual_seed(self._config.seed),
            learn_temperature=self._config.learn_temperature,
            block_bytes=self._config.block_bytes,
        )

    def fit(self, *, refit: bool) -> list[Fitted]:
        """Train the folds, choose, train again."""
        members: list[Member] = []
        mine: list[slice] = []  # of the members, those of each request
        for request in self._requests:
            first, trained = len(members), _rows_by_fold(request.parts)
            members += [Member(request.start, r, request.config.temperature) for r in trained]
            mine.append(slice(first, len(members)))
        stack = self._stack(members)

        def refresh(parameters: torch.Tensor) -> list[Task]:
            middle = parameters.mean(dim=0)
            mapped = [stack.outputs(middle, 0, x) for x in self._inputs]
            self._tasks = self._make_tasks(mapped, self._tasks)  # also for the final training
            return self._tasks

        best = self._starts(stack, mine)
        tried = [[self._noted(number, point)] for number, point in enumerate(best)]
        path = stack.path(
            self._config.strengths,
            self._config.iterations,
            refresh=refresh if self._pooled else None,
        )
        for strength, parameters in zip(self._config.strengths, path, strict=False):
            for number, rows in enumerate(mine):
                point = self._point(stack, parameters, rows, number, strength)
                tried[number].append(self._noted(number, point))
                if point.mean > best[number].mean + BETTER:
                    best[number] = point
            values = ", ".join(f"{point.mean:.4f}" for point in best[:4])
            self._tell(f"strength {strength:g}: best held-out {PRIMARY} so far {values}")
        return [
            self._finish(stack, number, mine[number], best[number], tried[number], refit)
            for number in range(len(self._requests))
        ]

    def _noted(self, number: int, point: _Point) -> _Point:
        """What is kept of a point that may not be the best: its values, all where asked for."""
        if self._requests[number].keep_path:
            return point._replace(parameters=point.parameters.mean(dim=0))
        return point._replace(parameters=point.parameters.new_empty(0), mapped=[])

    def _starts(self, stack: Stack, mine: Sequence[slice]) -> list[_Point]:
        """The untrained point of each request; those that differ in training share theirs."""
        known: dict[Any, _Point] = {}
        points = []
        for number, (request, rows) in enumerate(zip(self._requests, mine, strict=True)):
            judges = [(part.labels.judges.tobytes(), id(part.pool)) for part in request.parts]
            key = (id(request.start), id(request.references), *judges)
            if key not in known:
                known[key] = self._point(stack, stack.origin, rows, number)
            points.append(known[key]._replace(parameters=stack.origin[rows]))
        return points

    def _point(
        self,
        stack: Stack,
        parameters: torch.Tensor,
        rows: slice,
        number: int,
        strength: float | str = "start",
    ) -> _Point:
        own = parameters[rows]
        mapped = self._judges[number].held_out(stack, own, rows.start, self._inputs)
        return _Point(strength, own, mapped, self._judges[number].values(mapped))

    def _finish(
        self,
        stack: Stack,
        number: int,
        rows: slice,
        point: _Point,
        tried: Sequence[_Point],
        refit: bool,
    ) -> Fitted:
        request, judge = self._requests[number], self._judges[number]
        values, measured = choose_tables(judge, point.mapped, point.values)
        held_out = tuple(judge.corrected(point.mapped))
        best = [one.strength for one in tried].index(point.strength)
        owed = luck([one.values for one in tried], best)
        values = tuple(v - less for v, less in zip(values, owed, strict=True))
        options = {"strength": point.strength, **judge.options()}
        parameters = point.parameters.mean(dim=0)
        if request.config.learn_temperature:
            options["temperature"] = round(stack.temperature(parameters, rows.start), 5)
        others = [
            Trained(one.strength, one.mapped, partial(self._adapter, stack, number, one, refit))
            for one in tried
            if request.keep_path and one.strength != point.strength
        ]
        made = self._adapter(stack, number, point._replace(parameters=parameters), refit)
        made = made._replace(references=judge.tables())
        if any(table.view not in request.views for table in made.references):
            raise ValueError("references read a view that the adapter does not")
        corrections = Corrections(judge, point.mapped, judge.setting, others)
        return Fitted(made, values, options, held_out, measured, corrections)

    def _adapter(self, stack: Stack, number: int, point: _Point, refit: bool) -> Adapter:
        """The adapter of a point whose parameters (p,) are those of its models' mean; no tables."""
        request, parameters = self._requests[number], point.parameters
        folds = max(len(part.labels.folds) for part in request.parts)
        if refit and folds > 1 and not isinstance(point.strength, str):
            every = [part.labels.train_rows for part in request.parts]
            final = self._stack([Member(request.start, every, request.config.temperature)])
            path = final.path([point.strength], self._config.iterations, begin=parameters[None])
            parameters = next(path)[0]
        trained = stack.maps(parameters[None])[0]
        return self._shape.adapter(request.views, trained, request.start)


def _joined(views: Mapping[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    import torch

    return torch.cat([views[name] for name in names], dim=1)


def _rows_by_fold(parts: Sequence[Part]) -> list[list[IntArray]]:
    """Training rows of each fold model in each collection; those of fewer folds are repeated."""
    count = max(len(part.labels.folds) for part in parts)
    return [
        [part.labels.folds[i % len(part.labels.folds)].train for part in parts]
        for i in range(count)
    ]
