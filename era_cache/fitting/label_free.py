"""``era-zero``: a better query for today's index that no label had a part in.

In: the label-free map, vectors of the index, texts that both encoders know. Out: an adapter.

The small query, plus the aligned large one at a fraction of its length, is spread over the
directions that the index uses little, and then moves until its ranking of the alignment documents
resembles the large model's (``References``). docs/fitting.md gives the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from era_cache.fitting.adapter import Adapter, References
from era_cache.fitting.candidates import VIEWS_READ
from era_cache.fitting.config import FitConfig

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["joined_start", "label_free", "spread"]

_ROWS = 20_000
"""Rows of an index that say how its vectors are spread; more change nothing."""


def spread(indexes: Sequence[Corpus], config: FitConfig) -> torch.Tensor:
    """A map of queries that lengthens the directions which documents use little.

    With C the mean of x x^T over documents x, and C' that matrix with the share
    ``config.spread_shrink`` of its trace given to all directions alike, the map is C' to the power
    ``-config.spread``, scaled to a mean diagonal of 1. A power of -1 on the query side would be
    that of whitening both sides.

    Args:
        indexes: (n, d) unit rows each, all collections counting alike.
        config: power and share.

    Returns:
        (d, d) float32, symmetric.
    """
    import torch

    d = indexes[0].shape[1]
    moment = torch.zeros(d, d, dtype=torch.float64)
    for index in indexes:
        rows = index[:: max(1, len(index) // _ROWS)]
        moment += (rows.T @ rows).double().cpu() / (len(rows) * len(indexes))
    values, vectors = torch.linalg.eigh(moment)
    values = (1 - config.spread_shrink) * values + config.spread_shrink * values.mean()
    found = (vectors * values.clamp(min=1e-12) ** -config.spread) @ vectors.T
    scaled: torch.Tensor = found / found.diagonal().mean()
    return scaled.float().to(indexes[0].device)


def joined_start(aligned: torch.Tensor, scale: float, spread: torch.Tensor) -> torch.Tensor:
    """Both views: the small one, plus ``scale`` times the aligned large one, spread.

    Args:
        aligned: (d_out, d_large) weight.
        scale: of the large view.
        spread: (d_out, d_out), from ``spread``.

    Returns:
        (d_out, d_out + d_large) weight of the views small and large.
    """
    import torch

    return torch.cat([spread, scale * (spread @ aligned)], dim=1)


def label_free(
    aligned: torch.Tensor,
    spread: torch.Tensor,
    references: References | None,
    config: FitConfig,
) -> Adapter:
    """The candidate ``era-zero``.

    Args:
        aligned: (d_out, d_large) weight of the label-free map.
        spread: (d_out, d_out), from ``spread``.
        references: the alignment documents, None where there are none.
        config: scale of the large view, temperature and steps of the references.
    """
    weight = joined_start(aligned, config.zero_scale, spread)
    adapter = Adapter(VIEWS_READ["era-zero"], weight)
    step, steps = config.zero_step
    if references is None or not step:
        return adapter
    table = references._replace(
        temperature=config.zero_temperature, step=step, steps=steps, pull=config.zero_pull
    )
    return adapter._replace(references=(table,))
