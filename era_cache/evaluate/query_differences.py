"""Query by query: who gains, who loses, and where scores lie before and after.

In: ``Results`` and their ``Panel``. Out: the parts of a report about single queries and documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from era_cache.evaluate.lined_up import BASELINE, SHIPPED, Panel
from era_cache.evaluate.results import EDGES, Histogram, Results
from era_cache.report.records import QueryDifference, QueryValues, Scores
from era_cache.types import FloatArray

__all__ = ["queries", "scores"]

_LISTED = 20
_POINTS = 2000


def queries(
    results: Results,
    panel: Panel,
    chosen: str,
    primary: int,
    texts: Mapping[str, Mapping[str, str]],
) -> QueryValues:
    """Every query under the baseline and the chosen candidate, and the largest differences."""
    mine, base = panel.column(chosen), panel.column(BASELINE)
    before = np.concatenate([v[:, base, primary] for v in panel.values.values()])
    after = np.concatenate([v[:, mine, primary] for v in panel.values.values()])
    names = list(panel.values)
    owner = np.repeat(np.arange(len(names)), [len(v) for v in panel.values.values()])
    rows = np.concatenate(list(panel.rows.values()))
    difference = after - before

    def listed(order: Any) -> Iterator[QueryDifference]:
        for i in order[:_LISTED].tolist():
            name = names[owner[i]]
            query = results.query_ids[name][int(rows[i])]
            text = texts.get(name, {}).get(query)
            values = before[i], after[i], difference[i]
            yield QueryDifference(name, query, text, *map(float, values))

    falling = np.argsort(-difference, kind="stable")
    rising = np.argsort(difference, kind="stable")
    return QueryValues(
        candidate=chosen,
        better=int((difference > 0).sum()),
        equal=int((difference == 0).sum()),
        worse=int((difference < 0).sum()),
        points=_points(before, after),
        wins=tuple(listed(falling[difference[falling] > 0])),
        losses=tuple(listed(rising[difference[rising] < 0])),
    )


def _points(before: FloatArray, after: FloatArray) -> tuple[tuple[float, float, int], ...]:
    """Pairs of values with how often they occur, on a grid coarse enough for a drawing."""
    for steps in (1000, 200, 100, 50, 40):
        pairs = np.rint(np.stack([before, after], axis=1) * steps)
        distinct, counts = np.unique(pairs, axis=0, return_counts=True)
        if len(distinct) <= _POINTS:
            break
    return tuple(
        (x / steps, y / steps, n)
        for (x, y), n in zip(distinct.tolist(), counts.tolist(), strict=True)
    )


def scores(panel: Panel, chosen: str) -> tuple[Scores, ...]:
    """Histograms of scores, before and after, over all fits."""
    found = []
    for name in dict.fromkeys((BASELINE, chosen)):
        total = [np.zeros(len(EDGES) - 1, dtype=np.int64) for _ in Histogram._fields]
        some = False
        for fit, one in panel.units:
            histogram = one.scores.get(fit.chosen if name == SHIPPED else name)
            if histogram is not None:
                some = True
                total = [a + b for a, b in zip(total, histogram, strict=True)]
        if some:
            counts = (tuple(one.tolist()) for one in total)
            found.append(Scores(name, tuple(EDGES.tolist()), *counts))
    return tuple(found)
