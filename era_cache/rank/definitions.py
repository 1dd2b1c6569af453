"""What each measure is: a function of where the relevant documents stand.

In: the positive results of all queries, and their positive judgements. Out: one value per query.
The definitions are those of trec_eval 9, the names those of ir_measures.

A new measure is a function here, or in a file of its own, and a line in ``MEASURES``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.types import FloatArray, IntArray

__all__ = ["MEASURES", "Definition", "Gains", "Judged", "Values"]

Values = NDArray[np.float64]


class Gains(NamedTuple):
    """Positive results as a list: whose they are, at which rank (from 0), worth what.

    ``ordinals`` counts the positive results of the same query at better ranks. The list is in
    order of query, then rank. A ranking has few of them, so that each measure costs little.
    """

    query_rows: IntArray
    ranks: IntArray
    ordinals: IntArray
    gains: NDArray[np.float64]

    def cut(self, cutoff: int | None) -> Gains:
        """Keep what stands at the first ``cutoff`` ranks; None keeps all."""
        if cutoff is None:
            return self
        keep = self.ranks < cutoff
        query_rows, ranks, ordinals, gains = self
        return Gains(query_rows[keep], ranks[keep], ordinals[keep], gains[keep])


class Judged(NamedTuple):
    """What was found for ``n_queries`` queries, and what the best ranking would hold."""

    found: Gains
    ideal: Gains
    n_queries: int

    def total(self, gains: Gains, weights: FloatArray | None = None) -> Values:
        """Add up weights (ones by default) by query, (n_queries,)."""
        sums = np.bincount(gains.query_rows, weights=weights, minlength=self.n_queries)
        return sums.astype(np.float64)


class Definition(NamedTuple):
    """How a measure is computed from ``Judged`` and a cutoff, and how people may write it.

    ``compute`` gives (n_queries,) float64 between 0 and 1, and 0 where a query has no positive
    judgement. ``aliases`` are other names, in lower case.
    """

    compute: Callable[[Judged, int | None], Values]
    needs_cutoff: bool = False
    aliases: tuple[str, ...] = ()


def _ndcg(judged: Judged, cutoff: int | None) -> Values:
    """The grade is the gain (not 2**grade - 1), log2(rank + 1) the discount."""
    found, best = judged.found.cut(cutoff), judged.ideal.cut(cutoff)
    return _ratio(
        judged.total(found, found.gains / np.log2(found.ranks + 2.0)),
        judged.total(best, best.gains / np.log2(best.ranks + 2.0)),
    )


def _recall(judged: Judged, cutoff: int | None) -> Values:
    return _ratio(judged.total(judged.found.cut(cutoff)), judged.total(judged.ideal))


def _reciprocal_rank(judged: Judged, cutoff: int | None) -> Values:
    found = judged.found.cut(cutoff)
    return judged.total(found, (found.ordinals == 0) / (found.ranks + 1.0))


def _average_precision(judged: Judged, cutoff: int | None) -> Values:
    """Divided by the number of all relevant documents, whatever the cutoff."""
    found = judged.found.cut(cutoff)
    precisions = (found.ordinals + 1.0) / (found.ranks + 1.0)
    return _ratio(judged.total(found, precisions), judged.total(judged.ideal))


def _precision(judged: Judged, cutoff: int | None) -> Values:
    """Divided by the cutoff, also where fewer results exist."""
    return judged.total(judged.found.cut(cutoff)) / float(cutoff or 1)


def _success(judged: Judged, cutoff: int | None) -> Values:
    return np.minimum(judged.total(judged.found.cut(cutoff)), 1.0)


def _ratio(part: Values, whole: Values) -> Values:
    """Divide, with 0 / 0 = 0: a query without positive judgements."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


MEASURES: dict[str, Definition] = {
    "nDCG": Definition(_ndcg),
    "R": Definition(_recall, needs_cutoff=True, aliases=("recall",)),
    "RR": Definition(_reciprocal_rank, aliases=("mrr",)),
    "AP": Definition(_average_precision, aliases=("map",)),
    "P": Definition(_precision, needs_cutoff=True),
    "Success": Definition(_success, needs_cutoff=True),
}
"""All measures by name; ``parse_measure`` and ``evaluate`` look here at each call."""
