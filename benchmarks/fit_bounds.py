"""What any adapter could reach: bounds beside the tables of fitting.

Two for each collection, both with the test queries' own judgements: the best vector of the small
space for each test query, and the best linear map of the queries, fitted without any pull on all
labels, test included. The first bounds every adapter whatever its form, the second every linear
one. Both are found by optimising the loss of training, so they are bounds from below of the true
optimum: what they reach can be reached.

    python -m benchmarks.fit --part bounds
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.common import Bar
from benchmarks.fit_data import PAIRS, available, problem
from benchmarks.fit_quality import SEEDS, Kept
from era_cache.fitting.alignment.methods import align_rows
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.losses import corpus_softmax, pull_of
from era_cache.fitting.tensors import FitData, HeldOut, QuerySet
from era_cache.rank.corpus import whole
from era_cache.rank.measures import evaluate
from era_cache.rank.search import search

__all__ = ["bounds"]

_ALL = 0.4
"""Share for training that, with validation and test, leaves no query out."""
_TEMPERATURES = (0.05, 0.02)
_ROUNDS, _STEPS = 4, 25
"""The best is looked for after each round of so many steps of L-BFGS, at each temperature."""


class _Queries(NamedTuple):
    """Queries that are optimised for, and those (by row) that are measured."""

    views: dict[str, torch.Tensor]
    pull: torch.Tensor
    measured: slice


def bounds(pair: str) -> tuple[str, list[Bar]]:
    """A table of all collections of a pair, means last, and whether the bounds hold together.

    Kept results are taken as they are.
    """
    kept = Kept("bounds", "1")
    known = kept.read()
    rows = []
    for name in available(PAIRS[pair]):
        key = (pair, name, SEEDS[0])
        if key not in known:
            data, held_out, _ = problem(name, PAIRS[pair], _ALL, SEEDS[0])
            known[key] = _bounds(data, held_out)
            kept.keep(key, known[key])
        rows.append((name, known[key]))
    columns = list(rows[0][1])
    means = {column: float(np.mean([found[column] for _, found in rows])) for column in columns}
    lines = [f"| {pair}, test nDCG@10 | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, found in [*rows, ("mean", means)]:
        cells = (str(round(found[c])) if c == "queries" else f"{found[c]:.1f}" for c in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    _, today, linear, both, best = columns
    holds = all(min(f[linear], f[both]) >= f[today] and f[best] >= f[today] for _, f in rows)
    bar = Bar(f"{pair}: bounds not below small", "yes", "yes" if holds else "no", holds)
    return "\n".join(lines), [bar]


def _bounds(data: FitData, held_out: HeldOut) -> dict[str, float]:
    """Test nDCG@10 in percent of today's index and of both bounds; how many queries were fitted."""
    corpus = whole(data.corpus)
    parts = (data.train, data.validation, held_out.queries)
    pulls = [pull_of(part.qrels, len(part.ids), corpus) for part in parts]
    views = {v: torch.cat([part.views[v] for part in parts]) for v in ("large", "small")}
    known = torch.cat(pulls).any(dim=1)
    test = int(known[-len(held_out.queries.ids) :].sum())
    queries = _Queries({v: x[known] for v, x in views.items()}, torch.cat(pulls)[known], slice(0))
    queries = queries._replace(measured=slice(len(queries.pull) - test, None))

    def value(mapped: torch.Tensor) -> float:
        """Of the test queries, those without a positive judgement among them as zero."""
        whole_test = held_out.queries.views["small"].clone()
        whole_test[known[-len(whole_test) :]] = mapped
        return _ndcg(whole_test, held_out.queries, held_out)

    start = align_rows(data.align_large, data.align_small, "procrustes", 0).weight
    joined = torch.cat([queries.views["small"], 0.5 * queries.views["large"]], dim=1)
    both = torch.cat([torch.eye(corpus.shape[1]), start], dim=1)
    own = normalize(queries.pull[queries.measured], dim=1)
    asked = queries.pull[queries.measured]
    return {
        "queries": float(len(queries.pull)),
        "small": value(queries.views["small"][queries.measured]),
        "best linear map of large": _best(
            start, lambda w: queries.views["large"] @ w.T, queries, corpus, value
        ),
        "of large and small": _best(both, lambda w: joined @ w.T, queries, corpus, value),
        "best vector": _best(
            own, lambda v: v, queries._replace(pull=asked, measured=slice(None)), corpus, value
        ),
    }


def _best(
    start: torch.Tensor,
    apply: Callable[[torch.Tensor], torch.Tensor],
    queries: _Queries,
    corpus: torch.Tensor,
    value: Callable[[torch.Tensor], float],
) -> float:
    """The largest value on the way of optimising the mean loss of all queries from ``start``."""
    weight = start.clone().requires_grad_()
    found = [value(normalize(apply(start), dim=1)[queries.measured])]
    for temperature in _TEMPERATURES:
        at = torch.full((len(queries.pull),), temperature)
        optimiser = torch.optim.LBFGS(
            [weight], max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            optimiser.zero_grad()  # noqa: B023
            mapped = normalize(apply(weight), dim=1)
            with torch.no_grad():
                one = corpus_softmax(mapped, corpus, queries.pull, at)  # noqa: B023
            mapped.backward(one.gradient / len(mapped))
            return one.loss.mean()

        for _ in range(_ROUNDS):
            if max(found) > 99.99:
                return max(found)
            optimiser.step(loss)
            with torch.no_grad():
                found.append(value(normalize(apply(weight), dim=1)[queries.measured]))
    return max(found)


def _ndcg(mapped: torch.Tensor, queries: QuerySet, held_out: HeldOut) -> float:
    corpus = whole(held_out.corpus)
    ranking = search(
        mapped, corpus, min(10, len(corpus)), exclude=queries.exclude, tie_ranks=held_out.tie_ranks
    )
    values = evaluate(ranking.doc_rows, queries.qrels, [PRIMARY], len(corpus))[PRIMARY]
    return 100 * float(np.mean(values))
