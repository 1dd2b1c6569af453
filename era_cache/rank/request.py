"""What may be asked of a search: whatever would give a wrong ranking without a word is refused.

In: embeddings, row numbers and k. Out: nothing, or ``ValueError``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from era_cache.rank.corpus import UnitRows

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["check_embeddings", "check_inputs", "check_request"]


def check_embeddings(name: str, embeddings: torch.Tensor) -> None:
    """Refuse what is no float32 matrix of finite numbers.

    Raises:
        ValueError: It is not; the message begins with ``name``.
    """
    import torch

    if embeddings.ndim != 2 or embeddings.dtype != torch.float32:
        raise ValueError(
            f"{name} must be a float32 matrix, not {embeddings.dtype} of shape "
            f"{tuple(embeddings.shape)}."
        )
    if not embeddings.numel():
        return
    low, high = (float(end) for end in embeddings.detach().aminmax())  # NaN, if there is one
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"{name} must hold finite numbers; NaN or infinity was found.")


def check_request(
    queries: torch.Tensor, k: int, exclude: torch.Tensor | None, corpus_shape: tuple[int, int]
) -> None:
    """Refuse what cannot be asked of a corpus of n documents and d dimensions.

    Raises:
        ValueError: k, shapes, types or row numbers do not fit, or a query is not finite.
    """
    import torch

    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    check_embeddings("queries", queries)
    n_docs, dimensions = corpus_shape
    if queries.shape[1] != dimensions:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions, but the corpus has {dimensions}."
        )
    if exclude is None:
        return
    if exclude.shape != (len(queries),) or exclude.dtype != torch.int64:
        raise ValueError(
            f"exclude must be int64 of shape ({len(queries)},), not {exclude.dtype} of "
            f"{tuple(exclude.shape)}."
        )
    if len(exclude) and not -1 <= int(exclude.min()) <= int(exclude.max()) < n_docs:
        raise ValueError(f"exclude must hold rows from 0 to {n_docs - 1}, or -1 for none.")


def check_inputs(
    queries: torch.Tensor, corpus: Corpus, k: int, exclude: torch.Tensor | None
) -> None:
    """Refuse what would give a wrong ranking without a word. Raises ``ValueError``."""
    if not isinstance(corpus, UnitRows):  # which was checked when it was read
        check_embeddings("corpus", corpus)
    n_docs, dimensions = corpus.shape
    check_request(queries, k, exclude, (n_docs, dimensions))
