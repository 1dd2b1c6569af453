"""How good a first stage is beside the small encoder, without any label.

In: collections with lists. Out: one number, by which the default weight goes.

The large model judges: of the alignment documents, which it has encoded, the one that it ranks
first for a query counts as relevant. Where the first stage finds that document as well as the small
encoder does, it is worth as much; where it is much worse, or its lists are of other queries, it is
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.fitting.held_out import Part
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.corpus import UnitRows
from era_cache.rank.lists import FirstStage
from era_cache.rank.search import search
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["LOOKED_AT", "looked_at", "worth_beside_small"]

LOOKED_AT = 256
"""Queries of a collection that are looked at, at most."""
_FEWEST = 30
"""Alignment documents below which nothing can be said."""
_SAME = 0.9999
"""Cosine from which on an alignment document is the same as one of the corpus."""


class _Looked(NamedTuple):
    """Some queries of a collection: which rows of a set, and what the first stage found."""

    queries: QuerySet
    rows: IntArray
    first: FirstStage


def looked_at(part: Part, most: int = LOOKED_AT) -> _Looked | None:
    """The queries that judge, else those that nobody judged; None where these have no lists."""
    queries, rows = part.labels.queries, part.labels.judges
    if not len(rows):
        if part.data.unlabelled is None:
            return None
        queries = part.data.unlabelled
        rows = np.arange(len(queries.ids), dtype=np.int64)
    rows = rows[:most]
    if queries.first is None or not len(rows):
        return None
    return _Looked(queries, rows, queries.first.select(rows))


def worth_beside_small(parts: Sequence[Part]) -> float | None:
    """Mean reciprocal rank of what the large model ranks first, by the first stage over by small.

    Ranks are among the alignment documents; of equal scores the mean rank counts.

    Returns:
        The ratio over all collections' queries; None where it cannot be known: no small queries, or
        fewer than 30 alignment documents that are in the corpus.
    """
    import torch

    ours: list[torch.Tensor] = []
    theirs: list[torch.Tensor] = []
    for part in parts:
        found = looked_at(part)
        if found is None or not {"large", "small"} <= set(found.queries.views):
            continue
        kept, rows = _places(part.data)
        if len(kept) < _FEWEST:
            continue
        some = torch.from_numpy(found.rows).to(kept.device)
        large, small = (found.queries.views[view][some] for view in ("large", "small"))
        best = (large @ part.data.align_large[kept].T).argmax(dim=1, keepdim=True)
        ours.append(_reciprocal(_scores(found.first, rows, len(part.data.corpus)), best))
        theirs.append(_reciprocal(small @ part.data.align_small[kept].T, best))
    if not ours:
        return None
    return float(torch.cat(ours).mean() / torch.cat(theirs).mean())


def _places(data: FitData) -> tuple[torch.Tensor, torch.Tensor]:
    """Which alignment documents are in the corpus, and where."""
    import torch

    device = data.corpus.device
    copied = _copies(data.align_small, data.corpus)
    if copied is not None:
        return torch.arange(len(copied), device=device), copied
    best = search(data.align_small, data.corpus, 1)
    cosine, rows = (torch.from_numpy(one[:, 0]).to(device) for one in (best.scores, best.doc_rows))
    kept = (cosine >= _SAME).nonzero().squeeze(1)
    return kept, rows[kept]


def _copies(documents: torch.Tensor, corpus: Corpus) -> torch.Tensor | None:
    """Rows of the corpus that the documents are bit for bit; None where that is not so for all.

    They are found by their first two numbers: a search would go through the whole corpus.
    """
    import torch

    if isinstance(corpus, UnitRows) or not len(corpus) or corpus.shape[1] < 2:
        return None
    heads, wanted = (
        rows[:, :2].contiguous().view(torch.int64).squeeze(1) for rows in (corpus, documents)
    )
    known, order = heads.sort(stable=True)
    rows = order[torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)]
    return rows if torch.equal(corpus[rows], documents) else None


def _scores(first: FirstStage, rows: torch.Tensor, n_docs: int) -> torch.Tensor:
    """What each list says of some documents, (q, m)."""
    import torch

    place = torch.full((n_docs,), -1, dtype=torch.int64, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    # A document that was drawn twice has one place; the other takes its score from there.
    scores = first.floor[:, None].repeat(1, len(rows))
    at = place[first.docs.clamp(min=0)].where(first.docs >= 0, -1)
    query, entry = (at >= 0).nonzero(as_tuple=True)
    scores[query, at[query, entry]] = first.scores[query, entry]
    return scores[:, place[rows]]


def _reciprocal(scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Reciprocal rank of one column of each row, ties at their mean rank."""
    own = scores.gather(1, best)
    above, level = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
    return 1 / (above + (level + 1) / 2)
