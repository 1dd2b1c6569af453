"""How good a map is, without labels: does a mapped text find itself in the small space?

In: (n, d_large) and (n, d_small) unit vectors of the same n texts. Out: ``SelfRetrieval`` of a map,
and which texts are held out to be measured on.

Distinct texts are expected: one that is held out and fitted on at once says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import FingerprintError, FitError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.moments import check_finite, check_rows

if TYPE_CHECKING:
    import torch

__all__ = ["SelfRetrieval", "check_varied", "held_count", "hold_out", "self_retrieval"]

_HELD_OUT = 0.2
_EQUAL = 1e-6
"""Cosines closer than this are ties: the last bits of a float32 product depend on the place in the
matrix, so that copies of a document differ in them."""
_BLOCK_BYTES = 64 << 20


class SelfRetrieval(NamedTuple):
    """How well mapped texts find their own small vectors.

    ``recall_at_1``, ``recall_at_10`` and ``mrr`` are means of the ranks, ``mean_cosine`` is that of
    each mapped text with its own small vector, ``texts`` their number.
    """

    recall_at_1: float
    recall_at_10: float
    mrr: float
    mean_cosine: float
    texts: int


def self_retrieval(
    adapter: Adapter, large: torch.Tensor, small: torch.Tensor, corpus: torch.Tensor
) -> SelfRetrieval:
    """Search the small vectors for each mapped text.

    The rank of a text's own vector is one more than the number of documents that are strictly
    better, so that copies of a document do not hide each other. A text that is mapped to zero finds
    nothing.

    Args:
        adapter: reads the large view.
        large: (n, d_large) float32; rows are scaled to unit length, here and below.
        small: (n, d_small) float32, the same texts in the same order.
        corpus: (m, d_small) float32, what is searched. A text's own vector needs no row number in
            it: it is known by its value.

    Returns:
        Means over the n texts, in float64.

    Raises:
        FitError: there is no text or no document, the numbers of rows differ, or a value, also a
            mapped one, is NaN or infinite.
        FingerprintError: the adapter is for vectors of other dimensions.
    """
    import torch

    check_rows(large, small, at_least=1)
    _check_documents(adapter, small, corpus)
    documents, adapter = unit(corpus), adapter.to(large.device)
    ranks, cosines = [], []
    n_rows = max(1, _BLOCK_BYTES // (4 * len(documents)))
    for x, y in zip(large.split(n_rows), small.split(n_rows), strict=True):
        mapped = adapter.mapped({"large": x})
        own = (mapped * unit(y)).sum(dim=1)
        better = mapped @ documents.T > own[:, None] + _EQUAL
        lost = mapped.norm(dim=1) < 0.5  # ties with every document
        ranks.append((1.0 + better.sum(dim=1).double()).masked_fill(lost, float("inf")))
        cosines.append(own.double())
    rank, cosine = torch.cat(ranks), torch.cat(cosines)
    if not bool(cosine.isfinite().all()):
        raise FitError("The map makes NaN or infinity of some texts. Fit it on sound vectors.")
    return SelfRetrieval(
        recall_at_1=float((rank <= 1).double().mean()),
        recall_at_10=float((rank <= 10).double().mean()),
        mrr=float((1.0 / rank).mean()),
        mean_cosine=float(cosine.mean()),
        texts=len(rank),
    )


def _check_documents(adapter: Adapter, small: torch.Tensor, documents: torch.Tensor) -> None:
    check_finite("corpus", documents)
    if not len(documents):
        raise FitError("There is no document to search. Give a corpus of at least one.")
    dimensions = len(adapter.weight), small.shape[1], documents.shape[1]
    if len(set(dimensions)) != 1:
        raise FingerprintError(
            "The adapter's output, the small vectors and the corpus have {}, {} and {} dimensions. "
            "They are of other encoders.".format(*dimensions)
        )


def hold_out(
    large: torch.Tensor, small: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers, int64, of the texts to fit on and of the fifth held out; neither is empty.

    Raises:
        FitError: as ``check_varied``.
    """
    import torch

    check_varied(large, small)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(seed))
    held = held_count(len(large))
    order = order.to(large.device)
    return order[held:], order[:held]


def held_count(texts: int) -> int:
    """How many of the texts are held out: a fifth, at least one, never all."""
    return min(texts - 1, max(1, round(_HELD_OUT * texts)))


def check_varied(large: torch.Tensor, small: torch.Tensor) -> None:
    """Refuse vectors among which every text would find itself, or none could.

    Raises:
        FitError: there are fewer than two texts, all vectors of a side are equal, the numbers of
            rows differ, or a value is NaN or infinite.
    """
    check_rows(large, small, at_least=2)
    for side, vectors in (("large", large), ("small", small)):
        if bool((vectors == vectors[:1]).all()):
            raise FitError(
                f"All {len(vectors)} {side} vectors are equal, so no text can be told from "
                "another. Give different texts, or more of them."
            )
