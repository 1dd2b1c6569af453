"""The step behind ``era-fit align``: how well two spaces align, by method and number of documents.

In: an open store, collections. Out: a row for each method, and for each number of documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from era_cache.config import FitConfig, SplitConfig
from era_cache.fitting.alignment.methods import ALIGNMENTS
from era_cache.fitting.alignment.quality import alignment_curve, compare_alignments
from era_cache.fitting.sources import Reading, load_sources
from era_cache.store.store import Store

__all__ = ["alignment_rows"]


def alignment_rows(
    store: Store,
    names: Sequence[str],
    counts: Sequence[int],
    split: SplitConfig,
    recipe: FitConfig,
    reading: Reading,
) -> list[dict[str, Any]]:
    """Alignment quality of every method on all documents at hand, then of one by their number.

    Args:
        store: where the vectors are.
        names: of the collections, aligned together.
        counts: numbers of documents.
        split: keeps documents that are test queries out.
        recipe: its ``align`` is the method of the second part, its seed of what is held out.
        reading: which vectors, and how.

    Returns:
        Rows of ``method``, ``documents`` and the measures of ``SelfRetrieval``.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    import torch

    most = max(counts) * 2
    sources, _ = load_sources(store, names, split, reading, align_documents=most)
    order = torch.from_numpy(
        np.random.default_rng(recipe.seed).permutation(
            sum(len(s.data.align_large) for s in sources)
        )
    )
    large = torch.cat([s.data.align_large for s in sources]).cpu()[order]
    small = torch.cat([s.data.align_small for s in sources]).cpu()[order]
    found = compare_alignments(large, small, tuple(ALIGNMENTS), recipe.seed)
    rows = [
        {"method": method, "documents": len(large) - quality.texts, **quality._asdict()}
        for method, quality in found.items()
    ]
    method = "procrustes" if recipe.align == "auto" else recipe.align
    for count, quality in alignment_curve(large, small, counts, method, recipe.seed):
        rows.append({"method": method, "documents": count, **quality._asdict()})
    return rows
