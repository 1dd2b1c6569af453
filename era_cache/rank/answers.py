"""Rankings with the ids of their documents, for whoever asked by vectors.

In: a ranking, ids of the corpus. Out: rows, scores and ids.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from era_cache.rank.measures import Ranking
from era_cache.types import FloatArray, IntArray

__all__ = ["Answers"]


class Answers(NamedTuple):
    """The best documents of n queries, best first.

    ``doc_rows`` (n, k) int64, -1 where there are fewer documents than k, and ``scores`` (n, k)
    float32; ``ids`` of the same documents, for each query as many as there are, None where no ids
    are known.
    """

    doc_rows: IntArray
    scores: FloatArray
    ids: list[list[Hashable]] | None = None

    @classmethod
    def of(cls, ranking: Ranking, doc_ids: Sequence[Hashable] | None) -> Answers:
        """A ranking with the ids of its documents."""
        if doc_ids is None:
            return cls(*ranking)
        ids = [[doc_ids[row] for row in rows if row >= 0] for rows in ranking.doc_rows.tolist()]
        return cls(*ranking, ids)
