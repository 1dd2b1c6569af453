"""Alignment without labels: a map from the large space into the small one.

In: (n, d_large) and (n, d_small) unit vectors of the same n texts, or their ``Moments``. Out: an
``Adapter`` that reads the large view, or its weight (d_small, d_large).

The closed forms have no bias. A mapped vector is scaled to unit length before it is searched, so
only directions count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.moments import Moments, moments_of
from era_cache.fitting.alignment.self_retrieval import hold_out, self_retrieval
from era_cache.fitting.config import PaperConfig

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALIGNMENTS",
    "align_paper",
    "align_rows",
    "procrustes",
    "random_start",
    "ridge",
    "whitened",
]

# The best of those tried by nDCG@10 of the untrained maps, for the half of the judged queries that
# is no test, on eight development collections; the rank is lower for what that saves.
_WHITENING_SHRINK = 0.9
_MIXTURE_SHARE, _MIXTURE_SHRINK = 0.5, 0.5
_LOW_RANK_SHARE = 0.75
_RIDGE_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def align_rows(large: torch.Tensor, small: torch.Tensor, method: str, seed: int) -> Adapter:
    """Fit by the name of a method.

    Args:
        large: (n, d_large) float32, unit rows.
        small: (n, d_small) float32, the same texts in the same order.
        method: a name from ``ALIGNMENTS``.
        seed: of what ``ridge`` holds out to choose its strength.

    Raises:
        FitError: the method is unknown, there is nothing to fit (see the method), the numbers of
            rows differ, or a value is NaN or infinite.
    """
    if method not in ALIGNMENTS:
        raise FitError(f"Alignment '{method}' is unknown. Known are {', '.join(ALIGNMENTS)}.")
    return Adapter(("large",), ALIGNMENTS[method](large, small, seed).float())


def align_paper(large: torch.Tensor, small: torch.Tensor, config: PaperConfig) -> Adapter:
    """The paper's stage 1 (arXiv 2604.03403): AdamW, by default on 1 - cosine, linear with bias.

    A tenth of the texts is held out as published (for its loss curve only, so it is not computed);
    torch's default initialisation; the last epoch is kept.

    Args:
        large: (n, d_large) float32.
        small: (n, d_small) float32.
        config: epochs, batch size, rates, seed.

    Returns:
        An adapter with bias.
    """
    import torch

    generator = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(large), generator=generator).to(large.device)
    held_out = max(1, int(len(large) * config.align_holdout)) if len(large) > 1 else 0
    x, y = large[order[held_out:]], small[order[held_out:]]
    measured = _LOSSES.get(config.align_loss)
    if measured is None:
        raise InputError(f"align_loss {config.align_loss!r}: expected {', '.join(_LOSSES)}.")
    start = random_start(small.shape[1], large.shape[1], generator)
    weight, bias = (t.to(large.device).requires_grad_() for t in start)
    optimizer = torch.optim.AdamW(
        [weight, bias], lr=config.align_learning_rate, weight_decay=config.align_weight_decay
    )
    for _ in range(config.align_epochs):
        for rows in torch.randperm(len(x), generator=generator).to(x.device).split(config.batch):
            mapped = unit(x[rows] @ weight.T + bias)
            loss = measured(mapped, y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return Adapter(("large",), weight.detach(), bias.detach())


def random_start(
    d_out: int, d_in: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias as ``torch.nn.Linear`` begins, but from a generator of its own."""
    import torch

    bound = d_in**-0.5
    weight, bias = torch.empty(d_out, d_in), torch.empty(d_out)
    for tensor in (weight, bias):
        tensor.uniform_(-bound, bound, generator=generator)
    return weight, bias


def _cosine_loss(mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    import torch

    return 1 - torch.cosine_similarity(mapped, wanted, dim=1).mean()


def _mse(mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.mse_loss(mapped, wanted)


def _smooth_l1(mapped: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.smooth_l1_loss(mapped, wanted)


_LOSSES = {"cosine": _cosine_loss, "mse": _mse, "smooth_l1": _smooth_l1}


def procrustes(moments: Moments, centred: bool = False, rank: int | None = None) -> torch.Tensor:
    """Rectangular orthogonal Procrustes: the W of orthonormal rows or columns nearest to the map.

    W = U V^T for the singular value decomposition U S V^T of Y^T X (Schönemann 1966). It keeps the
    geometry of the larger model, so that it carries over from documents to queries.

    Args:
        moments: of the texts. In float64: singular values of near-degenerate products decide
            directions of W.
        centred: rotate the spaces about their means. The map is meant for vectors as they are: with
            the bias that would move mean to mean, retrieval was worse.
        rank: how many of the directions that the spaces share most strongly are kept (those of
            partial least squares; Tucker 1958); None is all.

    Returns:
        (d_small, d_large) float64.

    Raises:
        FitError: there is no text; for ``centred`` also if all vectors of a side are equal.
    """
    moments.require_texts()
    return _orthogonal((moments.centred() if centred else moments).small_large, rank)


def ridge(moments: Moments, strength: float) -> torch.Tensor:
    """Least squares that is drawn to zero: min |Y - X W^T|^2 + c |W|^2.

    W = Y^T X (X^T X + c I)^-1 with c = strength trace(X^T X) / d_large, the mean eigenvalue (Hoerl
    and Kennard 1970).

    Args:
        moments: of the texts.
        strength: far enough above 0 for float64.

    Returns:
        (d_small, d_large) float64.

    Raises:
        FitError: there is no text.
    """
    import torch

    moments.require_texts()
    gram = moments.large_large.clone()
    gram.diagonal().add_(strength * gram.diagonal().mean())
    solved: torch.Tensor = torch.cholesky_solve(moments.small_large.T, torch.linalg.cholesky(gram))
    return solved.T


def _ridge_by_retrieval(large: torch.Tensor, small: torch.Tensor, seed: int) -> torch.Tensor:
    """Ridge of the strength by which held-out texts find themselves best.

    A fifth of the texts is held out; the stronger one of two equally good strengths is taken, and
    the map is fitted on all texts.
    """
    fitted, held = hold_out(large, small, seed)
    moments = moments_of(large[fitted], small[fitted])

    def found(strength: float) -> float:
        adapter = Adapter(("large",), ridge(moments, strength).float())
        return self_retrieval(adapter, large[held], small[held], small).mrr

    best = max(reversed(_RIDGE_STRENGTHS), key=found)
    return ridge(moments + moments_of(large[held], small[held]), best)


def whitened(moments: Moments, shrink: float) -> torch.Tensor:
    """Rotate the whitened spaces onto each other, then give the small one its shape back.

    W = C_y^1/2 U V^T C_x^-1/2 for the singular value decomposition U S V^T of
    C_y^-1/2 C_yx C_x^-1/2: the directions of canonical correlation analysis (Hotelling 1936), all
    of them kept at full length. C_x and C_y are covariances, shrunk to
    (1 - shrink) C + shrink trace(C) / d I (Ledoit and Wolf 2004).

    Args:
        moments: of the texts.
        shrink: above 0 (fewer texts than dimensions have a singular covariance), at most 1, which
            is ``procrustes`` on centred products, times a number.

    Returns:
        (d_small, d_large) float64.

    Raises:
        FitError: there is no text, or all vectors of a side are equal.
    """
    centred = moments.centred()
    # In the eigenvectors' own coordinates: the same W with fewer products.
    large_roots, large_axes = _shrunk_roots(centred.large_large, shrink)
    small_roots, small_axes = _shrunk_roots(centred.small_small, shrink)
    cross = small_axes.T @ centred.small_large @ large_axes
    rotation = _orthogonal(cross / small_roots[:, None] / large_roots)
    return (small_axes * small_roots) @ rotation @ (large_axes / large_roots).T


def _orthogonal(product: torch.Tensor, rank: int | None = None) -> torch.Tensor:
    """U V^T of the largest ``rank`` singular values; of all for None."""
    import torch

    u, _, vt = torch.linalg.svd(product, full_matrices=False)
    rotation: torch.Tensor = u[:, :rank] @ vt[:rank]
    return rotation


def _shrunk_roots(product: torch.Tensor, shrink: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Roots of the eigenvalues of a shrunk covariance, up to a number, and its eigenvectors."""
    import torch

    values, vectors = torch.linalg.eigh(product)
    values = (1.0 - shrink) * values.clamp(min=0.0) + shrink * values.mean()
    return values.sqrt(), vectors


def _mixture(moments: Moments) -> torch.Tensor:
    """Of the orthogonal map and a whitened one that is shrunk less than that under its own name."""
    a, b = procrustes(moments), whitened(moments, _MIXTURE_SHRINK)
    # To one Frobenius norm first: lengths mean nothing to a map whose output is scaled to unit
    # length, but would shift the shares.
    return _MIXTURE_SHARE * a + (1.0 - _MIXTURE_SHARE) * float(a.norm()) / float(b.norm()) * b


def _low_rank(moments: Moments) -> torch.Tensor:
    most = min(moments.small_large.shape)
    return procrustes(moments, centred=True, rank=max(1, round(_LOW_RANK_SHARE * most)))


_Rows = Callable[["torch.Tensor", "torch.Tensor", int], "torch.Tensor"]


def _closed_form(weight: Callable[[Moments], torch.Tensor]) -> _Rows:
    return lambda large, small, _seed: weight(moments_of(large, small))


ALIGNMENTS: Mapping[str, _Rows] = MappingProxyType(
    {
        "procrustes": _closed_form(procrustes),
        "procrustes-centred": _closed_form(lambda moments: procrustes(moments, centred=True)),
        "ridge": _ridge_by_retrieval,
        "mixture": _closed_form(_mixture),
        "whitened": _closed_form(lambda moments: whitened(moments, _WHITENING_SHRINK)),
        "low-rank": _closed_form(_low_rank),
    }
)
"""Alignments by name, each from rows of both spaces and a seed to a weight (d_small, d_large)
float64; each raises ``FitError`` where there is nothing to fit."""
