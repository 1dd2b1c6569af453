"""Alignment without labels: a map from the large space into the small one.

In: (n, d_large) and (n, d_small) unit vectors of the same n texts, or their ``Moments``. Out: a
weight (d_small, d_large), or an ``Adapter`` that reads the large view.

The closed forms have no bias. A mapped vector is scaled to unit length before it is searched, so
only directions count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from era_cache.config import PaperConfig
from era_cache.errors import FitError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.moments import Moments, check_rows

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALIGNMENTS",
    "align_paper",
    "align_procrustes",
    "default_linear",
    "low_rank",
    "mixture",
    "procrustes",
    "ridge",
    "whitened",
]

# The best of those tried by nDCG@10 of the untrained maps, for the half of the judged queries that
# is no test, on eight development collections; the rank is lower for what that saves.
_RIDGE_STRENGTH = 0.1
_WHITENING_SHRINK = 0.9
_MIXTURE_SHARE, _MIXTURE_SHRINK = 0.5, 0.5
_LOW_RANK_SHARE = 0.75


def align_procrustes(large: torch.Tensor, small: torch.Tensor) -> Adapter:
    """Rectangular orthogonal Procrustes from rows; ``procrustes`` is the same from moments.

    It keeps the geometry of the larger model, so that it carries over from documents to queries.

    Args:
        large: (n, d_large) float32.
        small: (n, d_small) float32, the same texts in the same order.

    Returns:
        An adapter with weight (d_small, d_large).

    Raises:
        FitError: there is no text, the numbers of rows differ, or a value is NaN or infinite.
    """
    check_rows(large, small, at_least=1)
    # In float64: singular values of near-degenerate products decide directions of W.
    return _adapter(_orthogonal(small.double().T @ large.double()))


def align_paper(large: torch.Tensor, small: torch.Tensor, config: PaperConfig) -> Adapter:
    """The paper's stage 1 (arXiv 2604.03403): AdamW on 1 - cosine, a linear layer with bias.

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
    weight, bias = default_linear(large.shape[1], small.shape[1], generator)
    weight, bias = (t.to(large.device).requires_grad_() for t in (weight, bias))
    optimizer = torch.optim.AdamW(
        [weight, bias], lr=config.align_learning_rate, weight_decay=config.align_weight_decay
    )
    for _ in range(config.align_epochs):
        for rows in torch.randperm(len(x), generator=generator).to(x.device).split(config.batch):
            mapped = unit(x[rows] @ weight.T + bias)
            loss = 1 - torch.cosine_similarity(mapped, y[rows], dim=1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return Adapter(("large",), weight.detach(), bias.detach())


def default_linear(
    d_in: int, d_out: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias as ``torch.nn.Linear`` initialises them, but from a given generator."""
    import torch

    bound = d_in**-0.5
    weight = torch.empty(d_out, d_in).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(d_out).uniform_(-bound, bound, generator=generator)


def procrustes(moments: Moments, centred: bool = False, rank: int | None = None) -> torch.Tensor:
    """Rectangular orthogonal Procrustes: the W of orthonormal rows or columns nearest to the map.

    W = U V^T for the singular value decomposition U S V^T of Y^T X (Schönemann 1966).

    Args:
        moments: of the texts.
        centred: rotate the spaces about their means. The map is meant for vectors as they are: with
            the bias that would move mean to mean, retrieval was worse.
        rank: how many of the directions that the spaces share most strongly are kept (those of
            partial least squares; Tucker 1958); None is all.

    Returns:
        (d_small, d_large) float64.

    Raises:
        FitError: there is no text, or the rank is out of range; for ``centred`` also if all vectors
            of a side are equal.
    """
    moments.require_texts()
    return _orthogonal((moments.centred() if centred else moments).small_large, rank)


def ridge(moments: Moments, strength: float, towards: torch.Tensor | None = None) -> torch.Tensor:
    """Least squares that is drawn to a given map: min |Y - X W^T|^2 + c |W - towards|^2.

    W = (Y^T X + c towards) (X^T X + c I)^-1 with c = strength trace(X^T X) / d_large, the mean
    eigenvalue (Hoerl and Kennard 1970).

    Args:
        moments: of the texts.
        strength: above 0.
        towards: (d_small, d_large); None is 0.

    Returns:
        (d_small, d_large) float64.

    Raises:
        FitError: there is no text, or the strength is too small for so few texts.
        ValueError: the strength is not above 0.
    """
    import torch

    moments.require_texts()
    if not 0.0 < strength < float("inf"):
        raise ValueError(f"strength must be a number above 0, not {strength}.")
    gram, wanted = moments.large_large.clone(), moments.small_large
    pull = strength * gram.diagonal().mean()
    gram.diagonal().add_(pull)
    if towards is not None:
        wanted = wanted + pull * towards.to(wanted)
    root, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        raise FitError(f"Ridge of strength {strength} is lost in rounding; use 1e-6 or more.")
    return torch.cholesky_solve(wanted.T, root).T


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
        ValueError: ``shrink`` is out of range.
    """
    if not 0.0 < shrink <= 1.0:
        raise ValueError(f"shrink must lie above 0 and at most at 1, not {shrink}.")
    centred = moments.centred()
    # In the eigenvectors' own coordinates: the same W with fewer products.
    large_roots, large_axes = _shrunk_roots(centred.large_large, shrink)
    small_roots, small_axes = _shrunk_roots(centred.small_small, shrink)
    cross = small_axes.T @ centred.small_large @ large_axes
    rotation = _orthogonal(cross / small_roots[:, None] / large_roots)
    return (small_axes * small_roots) @ rotation @ (large_axes / large_roots).T


def mixture(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """``share`` of one weight and the rest of another, both (d_small, d_large).

    ``b`` is brought to the Frobenius norm of ``a`` first: lengths mean nothing to a map whose
    output is scaled to unit length, but would shift the shares.

    Returns:
        (d_small, d_large), as ``a``.

    Raises:
        ValueError: the shapes differ, a weight is zero, or ``share`` is not between 0 and 1.
    """
    if a.shape != b.shape:
        raise ValueError(f"Weights of {tuple(a.shape)} and {tuple(b.shape)} cannot be mixed.")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie between 0 and 1, not {share}.")
    lengths = float(a.norm()), float(b.norm())
    if not all(lengths):
        raise ValueError("A weight is zero and has no direction to mix.")
    return share * a + (1.0 - share) * lengths[0] / lengths[1] * b.to(a)


def low_rank(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest matrix of lower rank: the largest singular values (Eckart and Young 1936).

    Args:
        weight: (d_small, d_large).
        rank: 1 to the smaller dimension.

    Returns:
        (d_small, d_large), as ``weight``.

    Raises:
        FitError: the rank is out of range.
    """
    u, s, vt = _svd(weight, rank)
    return (u * s) @ vt


def _adapter(weight: torch.Tensor) -> Adapter:
    return Adapter(("large",), weight.float())


def _orthogonal(product: torch.Tensor, rank: int | None = None) -> torch.Tensor:
    u, _, vt = _svd(product, rank)
    return u @ vt


def _svd(matrix: torch.Tensor, rank: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest ``rank`` singular values with their vectors; all for None."""
    import torch

    most = min(matrix.shape)
    rank = most if rank is None else rank
    if not 1 <= rank <= most:
        raise FitError(
            f"A map of shape {tuple(matrix.shape)} cannot have rank {rank}; 1 to {most} are "
            "possible."
        )
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank], vt[:rank]


def _shrunk_roots(product: torch.Tensor, shrink: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Roots of the eigenvalues of a shrunk covariance, up to a number, and its eigenvectors."""
    import torch

    values, vectors = torch.linalg.eigh(product)
    values = (1.0 - shrink) * values.clamp(min=0.0) + shrink * values.mean()
    return values.sqrt(), vectors


def _mixed(moments: Moments) -> torch.Tensor:
    return mixture(procrustes(moments), whitened(moments, _MIXTURE_SHRINK), _MIXTURE_SHARE)


def _low_rank(moments: Moments) -> torch.Tensor:
    most = min(moments.small_large.shape)
    return procrustes(moments, centred=True, rank=max(1, round(_LOW_RANK_SHARE * most)))


ALIGNMENTS: Mapping[str, Callable[[Moments], Adapter]] = MappingProxyType(
    {
        "procrustes": lambda moments: _adapter(procrustes(moments)),
        "procrustes-centred": lambda moments: _adapter(procrustes(moments, centred=True)),
        "ridge": lambda moments: _adapter(ridge(moments, _RIDGE_STRENGTH)),
        "mixture": lambda moments: _adapter(_mixed(moments)),
        "whitened": lambda moments: _adapter(whitened(moments, _WHITENING_SHRINK)),
        "low-rank": lambda moments: _adapter(_low_rank(moments)),
    }
)
"""Alignments by name; each raises ``FitError`` where there is nothing to fit. The mixture is of the
orthogonal map and a whitened one that is shrunk less than that under its own name. Given rows,
``align_quality.align_rows`` chooses the strength of ``ridge`` instead of taking a fixed one."""
