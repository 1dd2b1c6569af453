"""Means of held-out values: over queries, over collections, and what choosing by them adds.

In: values of judging queries, by collection. Out: means, their errors, what is owed to luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from era_cache.types import FloatArray

__all__ = [
    "BETTER",
    "Settings",
    "errors_behind",
    "highest",
    "luck",
    "macro",
    "macros",
    "standard_error",
    "weights_of",
]

_FULL_WEIGHT = 30
BETTER = 1e-9
"""A mean counts as better only beyond rounding; of equals the simpler comes first."""


def weights_of(values: Sequence[FloatArray]) -> list[float]:
    """Weight of each collection in a mean over collections; they sum to 1.

    All count alike from 30 judging queries on; fewer count in proportion, so that a handful of
    queries does not outvote hundreds.
    """
    counts = [min(len(v), _FULL_WEIGHT) for v in values]
    return [count / max(1, sum(counts)) for count in counts]


def macro(values: Sequence[FloatArray]) -> float:
    """Mean over collections, by ``weights_of``, of the mean over queries; NaN without queries."""
    weights = weights_of(values)
    if not any(weights):
        return math.nan
    return sum(w * float(v.mean()) for w, v in zip(weights, values, strict=True) if w)


Settings = Sequence[tuple[FloatArray, ...]]


def macros(settings: Settings) -> FloatArray:
    """``macro`` of each setting."""
    means = [w * values.mean(axis=1) for w, values in _weighed(settings)]
    return sum(means, np.zeros(len(settings)))


def errors_behind(settings: Settings, best: int) -> FloatArray:
    """``standard_error`` of how far each setting is behind one of them."""
    judged = _weighed(settings)
    if not judged or any(values.shape[1] < 2 for _, values in judged):
        return np.full(len(settings), math.inf)
    behind = [(w, values[best] - values) for w, values in judged]
    terms = [w * w * d.var(axis=1, ddof=1) / d.shape[1] for w, d in behind]
    return np.sqrt(sum(terms, np.zeros(len(settings))))


def _weighed(settings: Settings) -> list[tuple[float, FloatArray]]:
    """Weight and (settings, n) values of each collection that counts."""
    weights = weights_of(settings[0])
    columns = zip(*settings, strict=True)
    return [(w, np.stack(values)) for w, values in zip(weights, columns, strict=True) if w]


def highest(settings: Settings) -> int:
    """The setting with the best mean; of equals the first, which is the simpler."""
    return int(np.argmax(macros(settings)))


def luck(
    settings: Settings,
    chosen: int,
    folds: int = 5,
    choose: Callable[[Settings], int] = highest,
) -> tuple[FloatArray, ...]:
    """What choosing one of several settings adds to the values of those that chose.

    Queries that choose a setting flatter it. Here each query is judged under the setting that the
    other folds' queries choose; the difference is what the choice owes to these very queries.

    Args:
        settings: for each setting and collection, (n,) values of the same judging queries.
        chosen: the setting that all of them together choose.
        folds: parts of the judging queries, at most one query each.
        choose: how some of them choose.

    Returns:
        For each collection (n,) float64 to take off the values under the chosen setting.
    """
    counts = [len(values) for values in settings[0]]
    folds = max(1, min(folds, sum(counts)))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    places = [(start + np.arange(n)) % folds for start, n in zip(first, counts, strict=True)]
    lucky = [np.zeros(count) for count in counts]
    tables = [np.stack(values) for values in zip(*settings, strict=True)]  # (settings, n) each
    for fold in range(folds if folds > 1 else 0):
        kept = [table[:, place != fold] for table, place in zip(tables, places, strict=True)]
        theirs = choose(list(zip(*kept, strict=True)))
        for mine, table, place in zip(lucky, tables, places, strict=True):
            mine[place == fold] = (table[chosen] - table[theirs])[place == fold]
    return tuple(lucky)


def standard_error(differences: Sequence[FloatArray]) -> float:
    """Of ``macro`` of paired differences, collections being fixed; infinite where one has one."""
    weights = weights_of(differences)
    judged = [(w, d) for w, d in zip(weights, differences, strict=True) if w]
    if not judged or any(len(d) < 2 for _, d in judged):
        return math.inf
    return math.sqrt(sum(w * w * float(d.var(ddof=1)) / len(d) for w, d in judged))
