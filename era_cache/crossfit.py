"""One candidate from start to finish: train on folds, let held-out labels choose, train again.

In: the data of one or several collections, the candidate's query views and starting map. Out: an
adapter with its references, and the value of each judging query under a model that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.config import FitConfig
from era_cache.folds import Labels
from era_cache.losses import pull_of
from era_cache.maps import Adapter, References, unit
from era_cache.measures import Measure, evaluate, parse_measure
from era_cache.mining import STRATEGIES, Mining, mine_triples, pool_rows
from era_cache.pairs import FitData, QuerySet
from era_cache.search import search
from era_cache.shapes import shape_of
from era_cache.train import Member, Stack, Task, bytes_per_member
from era_cache.types import FloatArray, IntArray, Qrels

if TYPE_CHECKING:
    import torch

    Told = Callable[[str], None]

__all__ = [
    "PRIMARY",
    "Fitted",
    "Part",
    "Request",
    "crossfit",
    "crossfit_all",
    "document_references",
    "macro",
    "values_of",
]

PRIMARY: Measure = parse_measure("nDCG@10")
_BETTER = 1e-9
"""A mean counts as better only beyond rounding; of equals the simpler comes first."""


class Fitted(NamedTuple):
    """An adapter and how it did on the queries that judge.

    ``values`` has, for each collection, (n,) float64 values of the primary measure; ``options``
    (JSON) say what produced it.
    """

    adapter: Adapter
    values: tuple[FloatArray, ...]
    options: dict[str, float | int | str]

    @property
    def mean(self) -> float:
        """Mean over collections of the mean over queries."""
        return macro(self.values)


class Part(NamedTuple):
    """One collection: its data, and who trains and who judges."""

    data: FitData
    labels: Labels


class _Point(NamedTuple):
    """The fold models after one strength: parameters, and what they make of the judging queries."""

    strength: float | None
    parameters: torch.Tensor
    mapped: list[torch.Tensor]
    mean: float


def macro(values: Sequence[FloatArray]) -> float:
    """Mean over collections of the mean over queries."""
    return float(np.mean([v.mean() for v in values]))


def values_of(mapped: torch.Tensor, queries: QuerySet, rows: IntArray, data: FitData) -> FloatArray:
    """Primary measure of some queries over the whole corpus.

    Args:
        mapped: (m, d) unit rows, in the order of ``rows``.
        queries: the set that ``rows`` numbers.
        rows: (m,) int64.
        data: the corpus.

    Returns:
        (m,) float64.
    """
    import torch

    exclude = None
    if queries.exclude is not None:
        exclude = queries.exclude[torch.from_numpy(rows).to(mapped.device)]
    depth = min(PRIMARY.cutoff or 10, len(data.corpus))
    ranking = search(mapped, data.corpus, depth, exclude=exclude, tie_ranks=data.tie_ranks)
    qrels = queries.qrels.select_queries(rows)
    return evaluate(ranking.doc_rows, qrels, [PRIMARY], len(data.corpus))[PRIMARY]


def document_references(parts: Sequence[Part], config: FitConfig) -> References | None:
    """The alignment documents as references of the large view; None where there are to be none."""
    import torch

    most = config.reference_documents
    if not most:
        return None
    return References(
        "large",
        torch.cat([part.data.align_large[:most] for part in parts]),
        torch.cat([part.data.align_small[:most] for part in parts]),
        config.reference_temperature,
        *config.default_reference_step,
    )


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
    # What is mined depends on where the start leads; a pool that is mined anew, on the training.
    mined_for: object = request.start if config.negatives in STRATEGIES else None
    if any(len(part.data.corpus) > config.pool_documents for part in request.parts):
        mined_for = request
    return (
        tuple((id(part.data), id(part.labels.queries)) for part in request.parts),
        request.views,
        tuple(request.start.shape),
        config.strengths,
        config.iterations,
        (config.shape, config.rank, config.hidden, config.learn_temperature, config.seed),
        (config.negatives, config.negatives_per_query, config.duplicates),
        (config.pool_documents, config.mined_per_query, config.block_bytes),
        id(mined_for),
    )


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
        self._tasks = self._make_tasks([unit(x @ first.start.T) for x in self._inputs])
        self._pooled = any(
            len(part.data.corpus) > self._config.pool_documents for part in self._parts
        )
        pulls = [
            pull_of(part.labels.queries.qrels, len(part.labels.queries.ids), part.data.corpus)
            for part in self._parts
        ]
        self._judges = [_Judge(request, pulls) for request in requests]

    def _make_tasks(self, mapped: Sequence[torch.Tensor]) -> list[Task]:
        return [
            _task(part, joined, vectors, self._config)
            for part, joined, vectors in zip(self._parts, self._inputs, mapped, strict=True)
        ]

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
        members, owners = [], []
        for number, request in enumerate(self._requests):
            for trained in _rows_by_fold(request.parts):
                members.append(Member(request.start, trained, request.config.temperature))
                owners.append(number)
        stack = self._stack(members)
        mine = [
            [i for i, owner in enumerate(owners) if owner == number]
            for number in range(len(self._requests))
        ]

        def refresh(parameters: torch.Tensor) -> list[Task]:
            middle = parameters[mine[0]].mean(dim=0)
            mapped = [stack.outputs(middle, mine[0][0], x) for x in self._inputs]
            self._tasks = self._make_tasks(mapped)  # the final training goes on with these
            return self._tasks

        best = [self._point(stack, stack.origin, rows, i) for i, rows in enumerate(mine)]
        path = stack.path(
            self._config.strengths,
            self._config.iterations,
            refresh=refresh if self._pooled else None,
        )
        for strength, parameters in zip(self._config.strengths, path, strict=False):
            for number, rows in enumerate(mine):
                point = self._point(stack, parameters, rows, number, strength)
                if point.mean > best[number].mean + _BETTER:
                    best[number] = point
            values = ", ".join(f"{point.mean:.4f}" for point in best[:4])
            self._tell(f"strength {strength:g}: best held-out {PRIMARY} so far {values}")
        return [
            self._finish(stack, number, mine[number], best[number], refit)
            for number in range(len(self._requests))
        ]

    def _point(
        self,
        stack: Stack,
        parameters: torch.Tensor,
        rows: Sequence[int],
        number: int,
        strength: float | None = None,
    ) -> _Point:
        own = parameters[rows[0] : rows[-1] + 1]
        mapped = self._judges[number].held_out(stack, own, rows[0], self._inputs)
        return _Point(strength, own, mapped, self._judges[number].mean(mapped))

    def _finish(
        self, stack: Stack, number: int, rows: Sequence[int], point: _Point, refit: bool
    ) -> Fitted:
        request, judge = self._requests[number], self._judges[number]
        judge.choose_tables(point.mapped)
        options: dict[str, float | int | str] = {
            "strength": "start" if point.strength is None else point.strength,
            **judge.options(),
        }
        parameters = point.parameters.mean(dim=0)
        if request.config.learn_temperature:
            options["temperature"] = round(stack.temperature(parameters, rows[0]), 5)
        every = [part.labels.train_rows for part in request.parts]
        folds = max(len(part.labels.folds) for part in request.parts)
        if refit and folds > 1 and point.strength is not None:
            final = self._stack([Member(request.start, every, request.config.temperature)])
            path = final.path([point.strength], self._config.iterations, begin=parameters[None])
            parameters = next(path)[0]
        trained = stack.maps(parameters[None])[0]
        adapter = self._shape.adapter(request.views, trained, request.start)
        adapter = adapter._replace(references=judge.tables())
        if any(table.view not in request.views for table in adapter.references):
            raise ValueError("references read a view that the adapter does not")
        return Fitted(adapter, judge.values(point.mapped), options)


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


def _task(part: Part, inputs: torch.Tensor, mapped: torch.Tensor, config: FitConfig) -> Task:
    """The training side of a collection: the softmax's documents, and which are none for whom."""
    import torch

    data, queries = part.data, part.labels.queries
    qrels, exclude, corpus = queries.qrels, queries.exclude, data.corpus
    if len(corpus) > config.pool_documents:
        rows = pool_rows(
            mapped,
            qrels,
            corpus,
            most=config.pool_documents,
            per_query=config.mined_per_query,
            seed=config.seed,
        )
        place = np.full(len(corpus), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        qrels = Qrels(qrels.query_rows, place[qrels.doc_rows], qrels.relevance)
        if exclude is not None:
            table = torch.from_numpy(place).to(corpus.device)
            exclude = torch.where(exclude >= 0, table[exclude.clamp(min=0)], exclude)
        corpus = corpus[torch.from_numpy(rows).to(corpus.device)]
    pull = pull_of(qrels, len(queries.ids), corpus)
    return Task(inputs, corpus, pull, _barred(mapped, qrels, exclude, corpus, config))


def _barred(
    mapped: torch.Tensor,
    qrels: Qrels,
    exclude: torch.Tensor | None,
    corpus: torch.Tensor,
    config: FitConfig,
) -> torch.Tensor | None:
    """Documents that are no candidates of a query, (n, N) bool, or None where all of them are."""
    import torch

    device = corpus.device
    positive = qrels.relevance >= 1
    query_rows = torch.from_numpy(qrels.query_rows[positive]).to(device)
    doc_rows = torch.from_numpy(qrels.doc_rows[positive]).to(device)
    barred = torch.zeros(len(mapped), len(corpus), dtype=torch.bool, device=device)
    if config.negatives == "in-batch":
        barred[:] = True
        barred[:, doc_rows.unique()] = False
    elif config.negatives != "corpus":
        mining = Mining(config.negatives, min(config.negatives_per_query, len(corpus) // 2))
        if config.negatives in STRATEGIES:
            mining = mining._replace(negatives=max(1, mining.negatives))
        triples = mine_triples(mapped, qrels, corpus, mining, exclude=exclude, seed=config.seed)
        barred[:] = True
        rows = torch.from_numpy(triples.query_rows).to(device)
        barred[rows[:, None], torch.from_numpy(triples.negative_rows).to(device)] = False
    # Who judged a document not relevant has named a negative; no strategy leaves it out.
    named = [torch.from_numpy(column[~positive]).to(device) for column in qrels[:2]]
    barred[named[0], named[1]] = False
    if config.duplicates <= 1:
        _bar_duplicates(barred, query_rows, doc_rows, corpus, config.duplicates)
    if exclude is not None:
        own = (exclude >= 0).nonzero().squeeze(1)
        barred[own, exclude[own]] = True
    barred[query_rows, doc_rows] = False
    return barred if bool(barred.any()) else None


def _bar_duplicates(
    barred: torch.Tensor,
    query_rows: torch.Tensor,
    doc_rows: torch.Tensor,
    corpus: torch.Tensor,
    similarity: float,
) -> None:
    """Bar documents that say the same as a positive: they would be pushed away as negatives."""
    distinct = doc_rows.unique()
    for block in distinct.split(max(1, (1 << 24) // len(corpus))):
        twin, other = (corpus[block] @ corpus.T >= similarity).nonzero(as_tuple=True)
        apart = block[twin] != other
        for doc, like in zip(block[twin[apart]].tolist(), other[apart].tolist(), strict=True):
            barred[query_rows[doc_rows == doc], like] = True


class _Judge:
    """Held-out queries: what fold models make of them, and which reference tables help.

    Where the references near a query lie does not depend on steps, so it is computed once.
    """

    def __init__(self, request: Request, pulls: Sequence[torch.Tensor]) -> None:
        self._parts, self._config = request.parts, request.config
        self._documents, self._pulls = request.references, pulls
        self._memory_view = "large" if "large" in request.views else "small"
        self._memory_step: tuple[float, bool] | None = None
        self._wanted = [
            None if self._documents is None else self._documents.wanted(_view(part, "large"))
            for part in self._parts
        ]
        self._memories: dict[int, tuple[References, list[torch.Tensor]]] = {}

    def held_out(
        self, stack: Stack, parameters: torch.Tensor, first: int, inputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Map each collection's judging queries, each by a model that never saw it.

        ``parameters`` are those of the fold models, whose first is member ``first`` of the stack.
        """
        import torch

        mapped = []
        for part, joined in zip(self._parts, inputs, strict=True):
            vectors = torch.zeros(len(joined), stack.base.shape[1], device=joined.device)
            for number, fold in enumerate(part.labels.folds):
                rows = torch.from_numpy(fold.judge).to(joined.device)
                vectors[rows] = stack.outputs(parameters[number], first + number, joined[rows])
            mapped.append(vectors)
        return mapped

    def tables(self) -> tuple[References, ...]:
        """The tables of the final adapter: as chosen, the memory with all labelled queries."""
        tables = [] if self._documents is None else [self._documents]
        if self._memory_step is not None:
            step, contrast = self._memory_step
            rows = [part.labels.train_rows for part in self._parts]
            tables.append(self._memory(rows)._replace(step=step, contrast=contrast))
        return tuple(table for table in tables if table.step)

    def _memory(self, rows: Sequence[IntArray]) -> References:
        """Labelled queries and the mean of their positives, as references."""
        import torch

        view = self._memory_view
        kept = [torch.from_numpy(r).to(self._pulls[0].device) for r in rows]
        keys = [_view(part, view)[r] for part, r in zip(self._parts, kept, strict=True)]
        values = [unit(pull[r]) for pull, r in zip(self._pulls, kept, strict=True)]
        temperature = self._config.memory_temperature
        return References(view, torch.cat(keys), torch.cat(values), temperature, 0.0)

    def _fold_memory(self, fold: int) -> tuple[References, list[torch.Tensor]]:
        """The memory of what a fold trained on, and where it would have its judges move."""
        import torch

        if fold not in self._memories:
            mine = [part.labels.folds[fold % len(part.labels.folds)] for part in self._parts]
            table = self._memory([one.train for one in mine])
            judges = [torch.from_numpy(one.judge).to(table.keys.device) for one in mine]
            views = [_view(part, table.view) for part in self._parts]
            wanted = [table.wanted(v[r]) for v, r in zip(views, judges, strict=True)]
            self._memories[fold] = table, wanted
        return self._memories[fold]

    def values(self, mapped: Sequence[torch.Tensor]) -> tuple[FloatArray, ...]:
        """Values of all judging queries, corrected by the tables as chosen so far."""
        import torch

        found = []
        for number, (part, vectors) in enumerate(zip(self._parts, mapped, strict=True)):
            judges = torch.from_numpy(part.labels.judges).to(vectors.device)
            moved = vectors.clone()
            wanted = self._wanted[number]
            if self._documents is not None and wanted is not None and self._documents.step:
                moved[judges] = self._documents.move(moved[judges], wanted[judges])
            if self._memory_step is not None:
                step, contrast = self._memory_step
                for i, fold in enumerate(part.labels.folds):
                    table, near = self._fold_memory(i)
                    rows = torch.from_numpy(fold.judge).to(vectors.device)
                    table = table._replace(step=step, contrast=contrast)
                    moved[rows] = table.move(moved[rows], near[number])
            found.append(
                values_of(moved[judges], part.labels.queries, part.labels.judges, part.data)
            )
        return tuple(found)

    def mean(self, mapped: Sequence[torch.Tensor]) -> float:
        """Mean of ``values``."""
        return macro(self.values(mapped))

    def choose_tables(self, mapped: Sequence[torch.Tensor]) -> None:
        """Choose the step of the references, then the memory."""
        best = -1.0
        if self._documents is not None and self._config.reference_steps:
            table = chosen = self._documents
            for step, steps in self._config.reference_steps:
                self._documents = table._replace(step=step, steps=steps)
                value = self.mean(mapped)
                if value > best + _BETTER:
                    best, chosen = value, self._documents
            self._documents = chosen
        else:
            best = self.mean(mapped)
        found = None
        for contrast in (True, False):
            for step in self._config.memory_steps:
                self._memory_step = (step, contrast)
                value = self.mean(mapped)
                if value > best + _BETTER:
                    best, found = value, self._memory_step
        self._memory_step = found

    def options(self) -> dict[str, float | int | str]:
        """What was chosen, for the record."""
        options: dict[str, float | int | str] = {}
        if self._documents is not None:
            options["references"] = f"{self._documents.step:g} x {self._documents.steps}"
        if self._memory_step is not None:
            step, contrast = self._memory_step
            options["memory"] = f"{step:g}{'' if contrast else ' plain'}"
        return options


def _view(part: Part, name: str) -> torch.Tensor:
    return part.labels.queries.views[name]
