"""How much a text's vector depends on the texts that are encoded with it.

In: an encoder's function. Out: the largest difference of a value between a text alone and the same
text in a batch with a long one, which it is padded for. Libraries choose other kernels for other
shapes, and padding is not quite nothing in low precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from era_cache.types import FloatArray

__all__ = ["neighbour_difference"]

_TEXTS = 3


def neighbour_difference(
    encode: Callable[..., Any], texts: Sequence[str], lengths: Sequence[int]
) -> float:
    """Encode some short texts alone and beside a long one.

    Args:
        encode: as ``SentenceTransformer.encode_query`` takes it.
        texts: of which the shortest are taken, and one four times as long if there is one.
        lengths: tokens of each.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    short = order[:_TEXTS]
    longer = np.searchsorted(np.asarray(lengths)[order], 4 * lengths[short[-1]])
    beside = order[min(int(longer), len(order) - 1)]

    def vectors(rows: Sequence[int]) -> FloatArray:
        found: FloatArray = np.asarray(
            encode(
                [texts[row] for row in rows],
                prompt="",
                batch_size=len(rows),
                show_progress_bar=False,
                convert_to_numpy=True,
            ),
            dtype=np.float32,
        )
        return found

    together = vectors([*short, beside])[:_TEXTS]
    alone = np.concatenate([vectors([row]) for row in short])
    return float(np.abs(together - alone).max())
