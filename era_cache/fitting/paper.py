"""The published recipe: stage 2 of arXiv 2604.03403, as its code runs it.

In: ``FitData`` and the adapter of ``alignment.methods.align_paper``. Out: the adapter of the epoch
with the lowest validation loss. Kept for comparison; docs/fitting.md says how the default differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from era_cache.config import PaperConfig
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import values_of
from era_cache.fitting.mining import Mining, Triples, mine_triples
from era_cache.fitting.tensors import FitData, QuerySet

if TYPE_CHECKING:
    import torch

__all__ = ["paper_triples", "train_paper", "train_paper_at"]


def paper_triples(
    queries: QuerySet, data: FitData, teacher: Adapter, config: PaperConfig, seed: int
) -> Triples:
    """Mine negatives with the aligned adapter as the teacher, as the configuration says.

    Raises:
        FitError: no negatives can be mined.
    """
    return mine_triples(
        teacher.mapped(queries.views),
        queries.qrels,
        data.corpus,
        Mining(config.strategy, config.negatives, config.mine_top, config.positive_share),
        exclude=queries.exclude,
        seed=seed,
    )


def _loss(
    mapped: torch.Tensor, corpus: torch.Tensor, candidates: torch.Tensor, temperature: float
) -> torch.Tensor:
    """InfoNCE of a positive (first candidate) against its own negatives."""
    import torch

    scores = torch.einsum("bd,bcd->bc", mapped, corpus[candidates]) / temperature
    return (torch.logsumexp(scores, dim=1) - scores[:, 0]).mean()


def train_paper(data: FitData, aligned: Adapter, config: PaperConfig) -> Fitted:
    """Run stage 2 at each published learning rate; keep the better on validation nDCG@10.

    Raises:
        FitError: no negatives can be mined.
    """
    rates = zip(config.learning_rates, config.weight_decays, strict=True)
    fits = [train_paper_at(data, aligned, config, rate, decay) for rate, decay in rates]
    best = max(fits, key=lambda fit: fit.mean)
    run = sum(int(fit.options["epochs_run"]) for fit in fits)
    return best._replace(options={**best.options, "epochs_all": run})


def train_paper_at(
    data: FitData, aligned: Adapter, config: PaperConfig, rate: float, decay: float
) -> Fitted:
    """Stage 2 at one learning rate and weight decay: stopped and chosen on validation loss."""
    import torch

    device = data.corpus.device
    train = _tensors(paper_triples(data.train, data, aligned, config, config.seed), device)
    held_out = _tensors(
        paper_triples(data.validation, data, aligned, config, config.seed + 1), device
    )
    inputs, validation = data.train.views["large"], data.validation.views["large"]
    if aligned.bias is None:
        raise ValueError("the paper's adapter has a bias")
    weight, bias = (t.to(device).clone().requires_grad_() for t in (aligned.weight, aligned.bias))
    optimizer = torch.optim.AdamW([weight, bias], lr=rate, weight_decay=decay)
    steps = -(-len(train[0]) // config.batch) * config.epochs
    warmup = int(steps * config.warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        return max(0.0, (steps - step) / max(1, steps - warmup))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    generator = torch.Generator().manual_seed(config.seed)
    best, best_epoch, kept = float("inf"), 0, (weight.detach(), bias.detach())
    epoch = 0
    for epoch in range(1, config.epochs + 1):
        for rows in (
            torch.randperm(len(train[0]), generator=generator).to(device).split(config.batch)
        ):
            mapped = unit(inputs[train[0][rows]] @ weight.T + bias)
            loss = _loss(mapped, data.corpus, train[1][rows], config.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            mapped = unit(validation[held_out[0]] @ weight.T + bias)
            current = float(_loss(mapped, data.corpus, held_out[1], config.temperature))
        if current < best:
            best, best_epoch = current, epoch
            kept = weight.detach().clone(), bias.detach().clone()
        elif epoch - best_epoch >= config.patience:
            break
    adapter = Adapter(("large",), *kept)
    options: dict[str, float | int | str] = {
        "learning_rate": rate,
        "weight_decay": decay,
        "epochs": best_epoch,
        "epochs_run": epoch,
    }
    rows = np.arange(len(data.validation.ids))
    values = values_of(adapter.mapped(data.validation.views), data.validation, rows, data)
    return Fitted(adapter, (values,), options)


def _tensors(triples: Triples, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Query rows (m,), and candidates (m, 1 + negatives) whose first is the positive."""
    import torch

    candidates = np.concatenate([triples.positive_rows[:, None], triples.negative_rows], axis=1)
    return torch.from_numpy(triples.query_rows).to(device), torch.from_numpy(candidates).to(device)
