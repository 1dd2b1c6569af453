"""The step behind ``era-fit align``: how well two spaces align, by method and number of documents.

In: an open store, collections. Out: a row for each method, and for each number of documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.config import SplitConfig
from era_cache.errors import FitError
from era_cache.fitting.alignment.methods import ALIGNMENTS
from era_cache.fitting.alignment.quality import alignment_curve, compare_alignments
from era_cache.fitting.config import FitConfig
from era_cache.fitting.sources import Reading, load_sources
from era_cache.fitting.tensors import FitData
from era_cache.fitting.worth import worth_of
from era_cache.store.store import Store

__all__ = ["AlignmentRows", "alignment_rows"]


class AlignmentRows(NamedTuple):
    """Rows of both tables: methods and numbers of documents; what documents are worth."""

    quality: list[dict[str, Any]]
    worth: list[dict[str, Any]]


def alignment_rows(
    store: Store,
    names: Sequence[str],
    counts: Sequence[int],
    split: SplitConfig,
    recipe: FitConfig,
    reading: Reading,
    seconds: float | None = None,
) -> AlignmentRows:
    """Alignment quality of every method on all documents at hand, then of one by their number.

    And what so many documents are worth to ``era-zero`` (``worth``), with their cost.

    Args:
        store: where the vectors are.
        names: of the collections, aligned together.
        counts: numbers of documents; 0 counts for the second table only.
        split: keeps documents that are test queries out.
        recipe: its ``align`` is the method of the second part, its seed of what is held out.
        reading: which vectors, and how.
        seconds: or money, that the large model takes for a document; None shows no cost.

    Returns:
        Rows of ``method``, ``documents`` and the measures of ``SelfRetrieval``; and rows of
        ``documents`` (of each collection), the judge's value, its gain over 0, and the cost.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    import torch

    most = max(1, *counts) * 2
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
    some = [count for count in counts if count]
    for count, quality in alignment_curve(large, small, some, method, recipe.seed):
        rows.append({"method": method, "documents": count, **quality._asdict()})
    return AlignmentRows(rows, _worth([s.data for s in sources], counts, recipe, seconds))


def _worth(
    data: Sequence[FitData], counts: Sequence[int], recipe: FitConfig, seconds: float | None
) -> list[dict[str, Any]]:
    try:
        found = worth_of(data, sorted({0, *counts}), recipe)
    except FitError:
        return []  # nothing judges; the first table needs no query
    cost = {} if seconds is None else {"cost": seconds}
    return [
        {
            "documents": one.documents,
            one.judge: one.value,
            "gain": one.value - found[0].value,
            **{name: each * one.documents * len(data) for name, each in cost.items()},
        }
        for one in found
    ]
