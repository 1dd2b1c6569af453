"""Evaluation on test queries: rankings, measures, scores.

In: ``HeldOut`` and adapters. Out: per-query values. Protocols and reports build on it; this is the
only place that ranks for a test query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.errors import InputError
from era_cache.evaluate.results import EDGES, Histogram
from era_cache.evaluate.statistics import bootstrap_interval, paired_randomisation_test
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.tensors import HeldOut, selected_queries
from era_cache.rank.approximate import ApproximateIndex
from era_cache.rank.corpus import whole
from era_cache.rank.dots import dots
from era_cache.rank.fuse import joined_rankings
from era_cache.rank.measures import Measure, Ranking, evaluate_each, mean, parse_measure
from era_cache.rank.search import search
from era_cache.report.records import Stored
from era_cache.store.precision import check_vectors
from era_cache.types import FloatArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = [
    "DEFAULT_MEASURES",
    "DEPTH",
    "Scored",
    "as_int8",
    "depth_of",
    "int8_loss",
    "score_adapters",
    "score_first_stage",
    "score_histogram",
    "score_large",
]

DEFAULT_MEASURES: tuple[Measure, ...] = tuple(
    parse_measure(name) for name in ("nDCG@10", "R@100", "RR", "AP")
)
DEPTH = 1000
"""Documents kept of each ranking, as is usual for TREC runs."""
_QUERIES, _COUNTED, _SHOWN = 1024, 1 << 24, 1 << 28
"""Queries and scores of a block that is counted, and about how many scores a picture needs."""
_TOGETHER = 1 << 24
"""Cosines up to which those of a candidate are ranked alone and joined from one product."""
_NOWHERE = -9.0
"""A score out of range, so that histc passes over it."""


class Scored(NamedTuple):
    """One candidate on the test queries.

    ``values`` maps each measure to (q,) float64, in the order of the queries.
    """

    ranking: Ranking
    values: dict[Measure, FloatArray]


def depth_of(measures: Sequence[Measure]) -> int:
    """How many documents of each ranking some measures look at, ``DEPTH`` at most."""
    return min(DEPTH, max((measure.cutoff or DEPTH for measure in measures), default=DEPTH))


def _ranked(
    mapped: torch.Tensor,
    corpus: Corpus,
    data: HeldOut,
    depth: int,
    index: ApproximateIndex | None = None,
) -> Ranking:
    k, exclude = min(depth, len(corpus)), data.queries.exclude
    if index is None:
        return search(mapped, corpus, k, exclude=exclude, tie_ranks=data.tie_ranks)
    return index.search(mapped, k, exclude=exclude, tie_ranks=data.tie_ranks)


def score_adapters(
    data: HeldOut,
    adapters: Mapping[str, Adapter],
    measures: Sequence[Measure],
    depth: int = DEPTH,
    index: ApproximateIndex | None = None,
) -> dict[str, Scored]:
    """Rank the whole corpus for every test query by each adapter, and measure it.

    Args:
        data: the collection.
        adapters: candidates by name.
        measures: what to measure.
        depth: documents kept of each ranking.
        index: over the corpus, to search instead of all of it; what a first stage joins is searched
            exactly.

    Raises:
        FingerprintError: an adapter expects other dimensions.
        InputError: one needs a first stage whose lists are not there.
    """
    device, views = data.corpus.device, data.queries.views
    ways: list[_Way] = []
    for name, adapter in adapters.items():
        # What a first stage joins is mapped as it is without one.
        known = (way for way in ways if adapter.fusion and adapter.maps_as(way.adapter))
        if (way := next(known, None)) is None:
            way = _Way(adapter, adapter.to(device).apply(views), {})
            ways.append(way)
        first, weight = data.queries.first, 0.0
        if adapter.fusion is not None:
            if first is None or first.name != adapter.fusion.run:
                have = "none" if first is None else first.name
                raise InputError(
                    f"{name} needs the lists of its first stage; there are those of {have}."
                )
            weight = adapter.fusion.weight
        way.weights[name] = weight
    rankings: dict[str, Ranking] = {}
    together = index is None and len(data.queries.ids) * len(data.corpus) <= _TOGETHER
    for way in ways:
        alone = [name for name in way.weights if adapters[name].fusion is None]
        # They are ranked with those that are joined where that is no more than a sum of cosines.
        if not together or len(alone) == len(way.weights):
            for name in alone:
                del way.weights[name]
                rankings[name] = _ranked(way.mapped, data.corpus, data, depth, index)
    rankings.update(_joined([way for way in ways if way.weights], data, depth))
    return _measured({name: rankings[name] for name in adapters}, data, measures)


class _Way(NamedTuple):
    """Queries as one adapter maps them, and the weights of a first stage by candidate."""

    adapter: Adapter
    mapped: torch.Tensor
    weights: dict[str, float]


def _joined(ways: Sequence[_Way], data: HeldOut, depth: int) -> dict[str, Ranking]:
    """Rankings of candidates that a first stage may join."""
    if not ways or data.queries.first is None:
        return {}
    found = joined_rankings(
        [(way.mapped, list(way.weights.values())) for way in ways],
        data.corpus,
        data.queries.first,
        min(depth, len(data.corpus)),
        exclude=data.queries.exclude,
        tie_ranks=data.tie_ranks,
    )
    return {
        name: ranking
        for way, rankings in zip(ways, found, strict=True)
        for name, ranking in zip(way.weights, rankings, strict=True)
    }


def score_first_stage(data: HeldOut, measures: Sequence[Measure], depth: int = DEPTH) -> Scored:
    """The lists of the first stage alone. Raises ``InputError`` where there are none."""
    first, queries = data.queries.first, data.queries
    if first is None:
        raise InputError("The queries have no lists of a first stage.")
    ranking = first.ranking(depth, data.tie_ranks, queries.exclude)
    return _measured({first.name: ranking}, data, measures)[first.name]


def _measured(
    rankings: Mapping[str, Ranking], data: HeldOut, measures: Sequence[Measure]
) -> dict[str, Scored]:
    rows = [ranking.doc_rows for ranking in rankings.values()]
    values = evaluate_each(rows, data.queries.qrels, measures, len(data.corpus))
    return {
        name: Scored(ranking, dict(found))
        for (name, ranking), found in zip(rankings.items(), values, strict=True)
    }


def score_large(data: HeldOut, measures: Sequence[Measure], depth: int = DEPTH) -> Scored | None:
    """The large encoder on both sides: the ceiling of a full re-encode, where it is stored."""
    if data.large_corpus is None:
        return None
    ranking = _ranked(data.queries.views["large"], data.large_corpus, data, depth)
    return _measured({"large": ranking}, data, measures)["large"]


def score_histogram(data: HeldOut, adapter: Adapter) -> Histogram:
    """Count the scores that an adapter gives to relevant documents and to others.

    A document that a query must not find is left out. Scores are cosines; rounding beyond -1 and 1
    counts in the outermost bins. Of a large corpus some of the queries are looked at, evenly.
    """
    import torch

    corpus, queries = data.corpus, data.queries
    some = np.arange(0, len(queries.ids), max(1, len(queries.ids) * len(corpus) // _SHOWN))
    queries = selected_queries(queries, some)
    mapped = adapter.to(corpus.device).apply(queries.views)
    positive = queries.qrels.relevance >= 1
    rows, docs = (
        torch.from_numpy(column[positive]).to(corpus.device) for column in queries.qrels[:2]
    )
    bins = len(EDGES) - 1
    counts = torch.zeros(3, bins, dtype=torch.float64)  # float32 counts stop at 2**24

    def count(part: int, values: torch.Tensor) -> None:
        counts[part] += torch.histc(values.cpu(), bins, float(EDGES[0]), float(EDGES[-1]))

    columns = max(1, _COUNTED // _QUERIES)
    for begin in range(0, len(mapped), _QUERIES):
        asked = mapped[begin : begin + _QUERIES]
        best = torch.full((len(asked),), _NOWHERE, device=corpus.device)
        for start in range(0, len(corpus), columns):
            scores = dots(asked, corpus[start : start + columns]).clamp_(EDGES[0], EDGES[-1])
            end = start + scores.shape[1]
            here = (rows >= begin) & (rows < begin + len(asked)) & (docs >= start) & (docs < end)
            mine, theirs = rows[here] - begin, docs[here] - start
            if queries.exclude is not None:
                own = queries.exclude[begin : begin + len(asked)] - start
                found = ((own >= 0) & (own < scores.shape[1])).nonzero().squeeze(1)
                scores[found, own[found]] = _NOWHERE
            count(0, scores[mine, theirs])
            scores[mine, theirs] = _NOWHERE
            best = torch.maximum(best, scores.amax(dim=1))
            count(2, scores)
        count(1, best)
    return Histogram(*counts.numpy().astype(np.int64))


def as_int8(data: HeldOut) -> HeldOut:
    """The same vectors as a store that keeps int8 rows would give them back.

    Rounding is by row and relative to its largest value, so that rows scaled to unit length lose
    what the stored rows would.
    """
    import torch

    def rounded(rows: torch.Tensor) -> torch.Tensor:
        stored = check_vectors(rows.cpu().numpy(), "int8", lambda row: f"row {row}", "the store")
        return unit(torch.from_numpy(stored.to_float32()).to(rows.device))

    views = {name: rounded(rows) for name, rows in data.queries.views.items()}
    return data._replace(
        queries=data.queries._replace(views=views), corpus=rounded(whole(data.corpus))
    )


def int8_loss(
    data: HeldOut,
    adapters: Mapping[str, Adapter],
    scored: Mapping[str, Scored],
    measures: Sequence[Measure],
    *,
    seed: int,
) -> dict[str, dict[str, Stored]]:
    """What each adapter would measure on int8 rows, and the difference to the rows as stored.

    Returns:
        candidate -> measure -> mean, difference with its 95 % bootstrap interval, and p of the
        paired randomisation test.
    """
    lossy = score_adapters(as_int8(data), adapters, measures)
    table: dict[str, dict[str, Stored]] = {name: {} for name in lossy}
    for name, one in lossy.items():
        for measure in measures:
            values, before = one.values[measure], scored[name].values[measure]
            lost = bootstrap_interval(values - before, seed=seed)
            p = paired_randomisation_test(values, before, seed=seed)
            table[name][str(measure)] = Stored(
                mean(values), mean(values - before), lost.low, lost.high, p
            )
    return table
