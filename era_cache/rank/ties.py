"""Where ties break: equal scores in the order of trec_eval, as numbers that sort in one step.

In: scores and the tie rank of each document. Out: one int64 for both, larger for the better
document, and the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["Ties", "packed", "score_of", "tie_order", "tie_tables", "unpacked"]

_LOW_BITS = 0xFFFF_FFFF
_ALL_BUT_SIGN = 0x7FFF_FFFF


class Ties(NamedTuple):
    """The tie rank of each row and the row of each tie rank, (n,) int64 both."""

    ranks: torch.Tensor
    rows: torch.Tensor


def tie_order(doc_ids: Sequence[str]) -> IntArray:
    """Rank documents as trec_eval orders those of equal score.

    trec_eval sorts ties by falling document id, compared byte by byte (strcmp on UTF-8, which
    is the order of code points and so of Python strings).

    Args:
        doc_ids: n distinct document ids.

    Returns:
        (n,) int64, a permutation of 0..n-1: the document with the largest id has rank 0.
    """
    ids = list(doc_ids)
    order = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order), dtype=np.int64)
    return ranks


def packed(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Pack score and tie rank into an int64 that is larger for the better document.

    The bits of a float32 read as int32 are in the order of the numbers if it is positive and in
    the opposite order if it is negative; flipping all but the sign mends the latter.
    """
    import torch

    bits = (scores + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
    return (_ordered(bits).to(torch.int64) << 32).add_(_LOW_BITS).sub_(ranks)


def unpacked(keys: torch.Tensor, ties: Ties) -> tuple[torch.Tensor, torch.Tensor]:
    """Unpack scores and rows from what ``packed`` packed."""
    ranks = _LOW_BITS - (keys & _LOW_BITS)
    # A third of the time of ties.rows[ranks].
    return score_of(keys), ties.rows.index_select(0, ranks.flatten()).view_as(ranks)


def score_of(keys: torch.Tensor) -> torch.Tensor:
    """The scores in what ``packed`` packed, float32."""
    import torch

    return _ordered((keys >> 32).to(torch.int32)).view(torch.float32)


def _ordered(bits: torch.Tensor) -> torch.Tensor:
    """Flip all bits but the sign of negative int32; done twice, they are as before."""
    return (bits >> 31).bitwise_and_(_ALL_BUT_SIGN).bitwise_xor_(bits)


def tie_tables(tie_ranks: torch.Tensor | None, n_docs: int, device: torch.device) -> Ties:
    """Both directions of an order of ties; None is by row.

    Raises:
        ValueError: it is no (n_docs,) int64 permutation of 0..n_docs-1.
    """
    import torch

    by_row = torch.arange(n_docs, device=device)
    if tie_ranks is None:
        return Ties(by_row, by_row)
    if tie_ranks.shape != (n_docs,) or tie_ranks.dtype != torch.int64:
        raise ValueError(
            f"tie_ranks must be int64 of shape ({n_docs},), not {tie_ranks.dtype} of "
            f"{tuple(tie_ranks.shape)}."
        )
    ranks = tie_ranks.to(device)
    rows = torch.full_like(by_row, -1)
    if bool(((ranks >= 0) & (ranks < n_docs)).all()):
        rows[ranks] = by_row
    if bool((rows < 0).any()):
        raise ValueError(f"tie_ranks must hold each of 0..{n_docs - 1} once.")
    return Ties(ranks, rows)
