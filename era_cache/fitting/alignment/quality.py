"""Which alignment is good, and how many texts it needs: measured on texts that it has not seen.

In: (n, d_large) and (n, d_small) unit vectors of the same n texts. Out: ``SelfRetrieval`` by method
or by number of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from era_cache.fitting.alignment.methods import align_rows
from era_cache.fitting.alignment.self_retrieval import (
    SelfRetrieval,
    check_varied,
    held_count,
    hold_out,
    self_retrieval,
)

if TYPE_CHECKING:
    import torch

__all__ = ["alignment_curve", "compare_alignments"]


def compare_alignments(
    large: torch.Tensor, small: torch.Tensor, methods: Sequence[str], seed: int
) -> dict[str, SelfRetrieval]:
    """Fit each method on four fifths of the texts and see whether the others find themselves.

    Args:
        large: (n, d_large) float32, unit rows.
        small: (n, d_small) float32, the same texts in the same order; all of them are searched.
        methods: names from ``ALIGNMENTS``.
        seed: of what is held out.

    Returns:
        For each method the measures on the texts held out, in the order given.

    Raises:
        FitError: a method is unknown, there are fewer than two texts, all vectors of a side are
            equal, the numbers of rows differ, or a value is NaN or infinite.
    """
    fitted, held = hold_out(large, small, seed)
    x, y = large[fitted], small[fitted]
    return {
        method: self_retrieval(align_rows(x, y, method, seed), large[held], small[held], small)
        for method in methods
    }


def alignment_curve(
    large: torch.Tensor,
    small: torch.Tensor,
    counts: Sequence[int],
    method: str = "procrustes",
    seed: int = 0,
) -> list[tuple[int, SelfRetrieval]]:
    """How an alignment gains from more texts: nested samples, measured on the same held-out texts.

    Args:
        large: (n, d_large) float32, unit rows in random order: a sample is a prefix.
        small: (n, d_small) float32, the same texts in the same order; all of them are searched.
        counts: sizes of the samples, at least 1. The last fifth of the texts, at least one, is in
            none; larger counts are cut to what is left.
        method: a name from ``ALIGNMENTS``.
        seed: of what ``ridge`` holds out.

    Returns:
        (count, measures) for each distinct count, rising.

    Raises:
        FitError: the method is unknown, there are fewer than two texts, all vectors of a side are
            equal, or a sample is too small for the method.
    """
    check_varied(large, small)
    available = len(large) - held_count(len(large))
    x, y = large[available:], small[available:]
    curve = []
    for count in sorted({min(count, available) for count in counts}):
        adapter = align_rows(large[:count], small[:count], method, seed)
        curve.append((count, self_retrieval(adapter, x, y, small)))
    return curve
