"""What more alignment documents are worth: the label-free candidate by how many there are.

In: collections as fitting sees them. Out: for each number of documents, how good ``era-zero`` is:
by labels of training and validation queries where there are some, else by how far its ranking of
documents that it has not seen agrees with the large model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.errors import FitError
from era_cache.fitting.adapter import Adapter, References
from era_cache.fitting.alignment.methods import align_rows
from era_cache.fitting.alignment.self_retrieval import held_count
from era_cache.fitting.candidates import VIEWS_READ
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import PRIMARY, values_of
from era_cache.fitting.label_free import label_free, spread
from era_cache.fitting.means import macro
from era_cache.fitting.signs import agreement_of
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.fitting.who_judges import merged

if TYPE_CHECKING:
    import torch

__all__ = ["AGREEMENT", "Worth", "worth_of"]

AGREEMENT = "agreement"


class Worth(NamedTuple):
    """Quality at one number of documents for each collection; 0 is today's index.

    ``judge`` names the measure: that of ``held_out``, or ``agreement``, the mean correlation of
    cosines with held-out documents in the large space and in the small one.
    """

    documents: int
    judge: str
    value: float


def worth_of(several: Sequence[FitData], counts: Sequence[int], config: FitConfig) -> list[Worth]:
    """Build ``era-zero`` from ever more documents.

    Args:
        several: collections that it is to serve.
        counts: documents of each; 0 is the small query as it is. More than there are count as all.
        config: the recipe.

    Returns:
        One for each distinct count, rising.

    Raises:
        FitError: there is neither a label nor a query to judge by, or a count is too small.
    """
    judged = [_judged(one) for one in several]
    by_labels = any(len(rows) for _, rows in judged)
    held = [0 if by_labels else held_count(len(one.align_large)) for one in several]
    if not by_labels and not any(_seen(one) is not None for one in several):
        raise FitError("There is neither a label nor a query to judge by. Embed some queries.")
    wide = spread([one.corpus for one in several], config)
    most = max(len(one.align_large) - n for one, n in zip(several, held, strict=True))
    found = []
    for count in sorted({min(count, most) for count in counts}):
        adapter = _built(several, held, count, wide, config)
        if by_labels:
            values = [
                values_of(_mapped(adapter, queries, rows), queries, rows, one)
                for one, (queries, rows) in zip(several, judged, strict=True)
            ]
            found.append(Worth(count, str(PRIMARY), macro(values)))
            continue
        agreed = [
            _agreed(adapter, one, queries, n)
            for one, n in zip(several, held, strict=True)
            if (queries := _seen(one)) is not None
        ]
        found.append(Worth(count, AGREEMENT, float(np.mean(agreed))))
    return found


def _judged(data: FitData) -> tuple[QuerySet, np.ndarray]:
    """Training and validation queries, and the rows of those with a positive document."""
    queries = merged(data.train, data.validation)
    return queries, np.unique(queries.qrels.query_rows[queries.qrels.relevance >= 1])


def _seen(data: FitData) -> QuerySet | None:
    """Queries that agreement is measured on, if there are any."""
    return next((s for s in (data.unlabelled, data.train) if s is not None and len(s.ids)), None)


def _built(
    several: Sequence[FitData],
    held: Sequence[int],
    count: int,
    wide: torch.Tensor,
    config: FitConfig,
) -> Adapter:
    import torch

    if not count:
        return Adapter(VIEWS_READ["small"], torch.eye(len(wide), device=wide.device))
    used = [
        slice(0, min(count, len(one.align_large) - n)) for one, n in zip(several, held, strict=True)
    ]
    large = torch.cat([one.align_large[rows] for one, rows in zip(several, used, strict=True)])
    small = torch.cat([one.align_small[rows] for one, rows in zip(several, used, strict=True)])
    method = "procrustes" if config.align == "auto" else config.align
    weight = align_rows(large, small, method, config.seed).weight.to(wide.device)
    table = References("large", large, small, config.reference_temperature, 0.0)
    return label_free(weight, wide, table, config)


def _mapped(adapter: Adapter, queries: QuerySet, rows: np.ndarray) -> torch.Tensor:
    return adapter.mapped({name: vectors[rows] for name, vectors in queries.views.items()})


def _agreed(adapter: Adapter, data: FitData, queries: QuerySet, held: int) -> float:
    large, small = data.align_large[-held:], data.align_small[-held:]
    mapped = adapter.mapped(queries.views)
    return agreement_of(queries.views["large"] @ large.T, mapped @ small.T)[0]
