"""How good an alignment is, without labels: does a mapped text find itself in the small space?

In: (n, d_large) and (n, d_small) unit vectors of the same n texts. Out: ``SelfRetrieval`` on texts
that took no part in the fit, by method or by number of texts, and what is chosen by it.

Distinct texts are expected: one that is held out and fitted on at once says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import FingerprintError, FitError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.methods import ALIGNMENTS, ridge
from era_cache.fitting.alignment.moments import check_finite, check_rows, moments_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "SelfRetrieval",
    "align_rows",
    "alignment_curve",
    "choose_alignment",
    "compare_alignments",
    "ridge_by_retrieval",
    "self_retrieval",
]

_HELD_OUT = 0.2
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
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
    adapter: Adapter,
    large: torch.Tensor,
    small: torch.Tensor,
    corpus: torch.Tensor | None = None,
) -> SelfRetrieval:
    """Search the small vectors for each mapped text.

    The rank of a text's own vector is one more than the number of documents that are strictly
    better, so that copies of a document do not hide each other. A text that is mapped to zero finds
    nothing.

    Args:
        adapter: reads the large view.
        large: (n, d_large) float32; rows are scaled to unit length, here and below.
        small: (n, d_small) float32, the same texts in the same order.
        corpus: (m, d_small) float32, what is searched; None is ``small``. A text's own vector needs
            no row number in it: it is known by its value.

    Returns:
        Means over the n texts, in float64.

    Raises:
        FitError: there is no text or no document, the numbers of rows differ, or a value, also a
            mapped one, is NaN or infinite.
        FingerprintError: the adapter is for vectors of other dimensions.
    """
    import torch

    check_rows(large, small, at_least=1)
    documents = small if corpus is None else corpus
    _check_documents(adapter, small, documents)
    documents, adapter = unit(documents), adapter.to(large.device)
    ranks, cosines = [], []
    n_rows = max(1, _BLOCK_BYTES // (4 * len(documents)))
    for x, y in zip(large.split(n_rows), small.split(n_rows), strict=True):
        mapped = adapter.apply({"large": x})
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


def align_rows(large: torch.Tensor, small: torch.Tensor, method: str, seed: int) -> Adapter:
    """Fit by the name of a method, its strength chosen where the method has one.

    Args:
        large: (n, d_large) float32, unit rows.
        small: (n, d_small) float32, the same texts in the same order.
        method: a name from ``ALIGNMENTS``; ``ridge`` is ``ridge_by_retrieval``.
        seed: of what ``ridge`` holds out.

    Raises:
        FitError: the method is unknown, or there is nothing to fit (see the method).
    """
    if method not in ALIGNMENTS:
        raise FitError(f"Alignment '{method}' is unknown. Known are {', '.join(ALIGNMENTS)}.")
    if method == "ridge":
        return ridge_by_retrieval(large, small, seed)
    return ALIGNMENTS[method](moments_of(large, small))


def ridge_by_retrieval(large: torch.Tensor, small: torch.Tensor, seed: int) -> Adapter:
    """Ridge of the strength by which held-out texts find themselves best.

    A fifth of the texts is held out; strengths from 0.01 to 10 are tried, the stronger one of two
    equally good ones is taken, and the map is fitted on all texts.

    Args:
        large: (n, d_large) float32, unit rows.
        small: (n, d_small) float32, the same texts in the same order.
        seed: of what is held out.

    Raises:
        FitError: there are fewer than two texts, all vectors of a side are equal, the numbers of
            rows differ, or a value is NaN or infinite.
    """
    fitted, held = _hold_out(large, small, seed, _HELD_OUT)
    moments = moments_of(large[fitted], small[fitted])

    def found(strength: float) -> float:
        adapter = Adapter(("large",), ridge(moments, strength).float())
        return self_retrieval(adapter, large[held], small[held], small).mrr

    best = max(reversed(_STRENGTHS), key=found)
    everything = moments + moments_of(large[held], small[held])
    return Adapter(("large",), ridge(everything, best).float())


def compare_alignments(
    large: torch.Tensor,
    small: torch.Tensor,
    methods: Sequence[str],
    seed: int,
    held_out: float = _HELD_OUT,
) -> dict[str, SelfRetrieval]:
    """Fit each method on a part of the texts and see whether the others find themselves.

    Args:
        large: (n, d_large) float32, unit rows.
        small: (n, d_small) float32, the same texts in the same order; all of them are searched.
        methods: names from ``ALIGNMENTS``.
        seed: of what is held out.
        held_out: share of the texts that is measured on, between 0 and 1; at least one text.

    Returns:
        For each method the measures on the texts held out, in the order given.

    Raises:
        FitError: a method is unknown, there are fewer than two texts, all vectors of a side are
            equal, the numbers of rows differ, or a value is NaN or infinite.
        ValueError: ``held_out`` is out of range.
    """
    fitted, held = _hold_out(large, small, seed, held_out)
    x, y = large[fitted], small[fitted]
    return {
        method: self_retrieval(align_rows(x, y, method, seed), large[held], small[held], small)
        for method in methods
    }


def choose_alignment(
    large: torch.Tensor,
    small: torch.Tensor,
    methods: Sequence[str],
    seed: int,
    held_out: float = _HELD_OUT,
) -> str:
    """The method of the best mrr in ``compare_alignments``; of equal ones the first named.

    Raises:
        FitError: as ``compare_alignments``.
        ValueError: ``held_out`` is out of range, or no method is named.
    """
    found = compare_alignments(large, small, methods, seed, held_out)
    return max(found, key=lambda method: found[method].mrr)


def alignment_curve(
    large: torch.Tensor,
    small: torch.Tensor,
    counts: Sequence[int] = (100, 300, 1000, 3000),
    method: str = "procrustes",
    seed: int = 0,
) -> list[tuple[int, SelfRetrieval]]:
    """How an alignment gains from more texts: nested samples, measured on the same held-out texts.

    Args:
        large: (n, d_large) float32, unit rows in random order: a sample is a prefix.
        small: (n, d_small) float32, the same texts in the same order; all of them are searched.
        counts: sizes of the samples. The last fifth of the texts, at least one, is in none; larger
            counts are cut to what is left.
        method: a name from ``ALIGNMENTS``.
        seed: of what ``ridge`` holds out.

    Returns:
        (count, measures) for each distinct count, rising.

    Raises:
        FitError: the method is unknown, there are fewer than two texts, all vectors of a side are
            equal, or a sample is too small for the method.
        ValueError: a count is below 1.
    """
    _check_varied(large, small)
    if min(counts, default=1) < 1:
        raise ValueError(f"counts must be at least 1, not {min(counts)}.")
    available = len(large) - _held_count(len(large), _HELD_OUT)
    x, y = large[available:], small[available:]
    curve = []
    for count in sorted({min(count, available) for count in counts}):
        adapter = align_rows(large[:count], small[:count], method, seed)
        curve.append((count, self_retrieval(adapter, x, y, small)))
    return curve


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


def _held_count(n: int, share: float) -> int:
    return min(n - 1, max(1, round(share * n)))


def _hold_out(
    large: torch.Tensor, small: torch.Tensor, seed: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers, int64, of the texts to fit on and of those held out; neither is empty."""
    import torch

    _check_varied(large, small)
    if not 0.0 < share < 1.0:
        raise ValueError(f"held_out must lie between 0 and 1, not {share}.")
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(seed))
    n_held = _held_count(len(large), share)
    order = order.to(large.device)
    return order[n_held:], order[:n_held]


def _check_varied(large: torch.Tensor, small: torch.Tensor) -> None:
    """Refuse vectors among which every text would find itself, or none could."""
    check_rows(large, small, at_least=2)
    for side, vectors in (("large", large), ("small", small)):
        if bool((vectors == vectors[:1]).all()):
            raise FitError(
                f"All {len(vectors)} {side} vectors are equal, so no text can be told from "
                "another. Give different texts, or more of them."
            )
