"""Alignment without labels: a map from the large space into the small one.

In: (n, d_large) and (n, d_small) unit vectors of the same n texts. Out: an ``Adapter`` that reads
the large view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_cache.adapters import Adapter, unit
from era_cache.config import PaperConfig

if TYPE_CHECKING:
    import torch

__all__ = ["align_paper", "align_procrustes"]


def align_procrustes(large: torch.Tensor, small: torch.Tensor) -> Adapter:
    """Rectangular orthogonal Procrustes: the W of orthonormal rows or columns nearest to the map.

    W = U V^T for the singular value decomposition U S V^T of small^T large (Schönemann 1966). It
    keeps the geometry of the larger model, so that it carries over from documents to queries.

    Args:
        large: (n, d_large) float32.
        small: (n, d_small) float32, the same texts in the same order.

    Returns:
        An adapter with weight (d_small, d_large).
    """
    import torch

    # In float64: singular values of near-degenerate products decide directions of W.
    product = small.double().T @ large.double()
    u, _, vt = torch.linalg.svd(product, full_matrices=False)
    return Adapter(("large",), (u @ vt).float())


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
