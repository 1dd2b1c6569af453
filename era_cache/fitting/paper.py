"""The published recipe: stage 2 of arXiv 2604.03403, as its code runs it.

In: ``FitData`` of one collection or several, and the adapter of ``alignment.methods.align_paper``.
Out: the adapter of the epoch with the lowest validation loss. Kept for comparison; docs/fitting.md
says how the default differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.errors import FitError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.methods import random_start
from era_cache.fitting.candidates import VIEWS_READ
from era_cache.fitting.config import PaperConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import values_of
from era_cache.fitting.mining import Mining, Triples, mine_triples
from era_cache.fitting.tensors import FitData, QuerySet

if TYPE_CHECKING:
    import torch

__all__ = ["paper_triples", "train_paper", "train_paper_at"]


class _Pairs(NamedTuple):
    """Training pairs of all collections.

    ``queries`` is (q, d_large), ``documents`` (n, d_small); pair i is of the query ``rows[i]`` and
    the documents ``candidates[i]``, (1 + negatives,), of which the first is the positive.
    """

    queries: torch.Tensor
    rows: torch.Tensor
    documents: torch.Tensor
    candidates: torch.Tensor


def paper_triples(
    queries: QuerySet, data: FitData, teacher: Adapter, config: PaperConfig, seed: int
) -> Triples:
    """Mine negatives as the configuration says, as the teacher sees the queries.

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


def teacher_of(data: Sequence[FitData], aligned: Adapter | None) -> Adapter:
    """Who mines: the aligned adapter, else the small model's own queries.

    Raises:
        FitError: there are no small queries.
    """
    import torch

    if aligned is not None:
        return aligned
    if not all("small" in one.train.views for one in data):
        raise FitError("mode=label_only mines negatives by the small model's queries; none given.")
    corpus = data[0].corpus
    return Adapter(VIEWS_READ["small"], torch.eye(corpus.shape[1], device=corpus.device))


def _loss(
    mapped: torch.Tensor, corpus: torch.Tensor, candidates: torch.Tensor, temperature: float
) -> torch.Tensor:
    """InfoNCE of a positive (first candidate) against its own negatives."""
    import torch

    scores = torch.einsum("bd,bcd->bc", mapped, corpus[candidates]) / temperature
    return (torch.logsumexp(scores, dim=1) - scores[:, 0]).mean()


def train_paper(
    data: FitData | Sequence[FitData], aligned: Adapter | None, config: PaperConfig
) -> Fitted:
    """Run stage 2 at each published learning rate; keep the better on validation nDCG@10.

    Args:
        data: of one collection, or of several whose training pairs are taken together.
        aligned: the adapter of stage 1; None begins at random (``label_only``).
        config: the recipe.

    Raises:
        FitError: no negatives can be mined.
    """
    several = [data] if isinstance(data, FitData) else list(data)
    rates = zip(config.learning_rates, config.weight_decays, strict=True)
    fits = [train_paper_at(several, aligned, config, rate, decay) for rate, decay in rates]
    best = max(fits, key=lambda fit: fit.mean)
    run = sum(int(fit.options["epochs_run"]) for fit in fits)
    return best._replace(options={**best.options, "epochs_all": run})


def train_paper_at(
    data: Sequence[FitData], aligned: Adapter | None, config: PaperConfig, rate: float, decay: float
) -> Fitted:
    """Stage 2 at one learning rate and weight decay: stopped and chosen on validation loss."""
    import torch

    device = data[0].corpus.device
    teacher = teacher_of(data, aligned)
    train = _pairs([(one.train, one) for one in data], teacher, config, config.seed)
    held_out = _pairs([(one.validation, one) for one in data], teacher, config, config.seed + 1)
    sizes = data[0].corpus.shape[1], train.queries.shape[1]
    start = _start(aligned, sizes, config.seed)
    weight, bias = (t.to(device).clone().requires_grad_() for t in start)
    optimizer = torch.optim.AdamW([weight, bias], lr=rate, weight_decay=decay)
    steps = -(-len(train.rows) // config.batch) * config.epochs
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
        order = torch.randperm(len(train.rows), generator=generator).to(device)
        for rows in order.split(config.batch):
            mapped = unit(train.queries[train.rows[rows]] @ weight.T + bias)
            loss = _loss(mapped, train.documents, train.candidates[rows], config.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            mapped = unit(held_out.queries[held_out.rows] @ weight.T + bias)
            current = float(
                _loss(mapped, held_out.documents, held_out.candidates, config.temperature)
            )
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
    values = tuple(
        values_of(
            adapter.mapped(one.validation.views),
            one.validation,
            np.arange(len(one.validation.ids)),
            one,
        )
        for one in data
    )
    return Fitted(adapter, values, options)


def _start(
    aligned: Adapter | None, sizes: tuple[int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias that stage 2 begins with: those of stage 1, else random ones."""
    import torch

    if aligned is None:
        return random_start(*sizes, torch.Generator().manual_seed(seed))
    if aligned.bias is None:
        raise ValueError("the paper's adapter has a bias")
    return aligned.weight, aligned.bias


def _pairs(
    sets: Sequence[tuple[QuerySet, FitData]], teacher: Adapter, config: PaperConfig, seed: int
) -> _Pairs:
    """Pairs of all collections; of documents only those that take part.

    Raises:
        FitError: no negatives can be mined in any of them.
    """
    import torch

    queries, rows, documents, candidates = [], [], [], []
    before = kept = 0
    failed: FitError | None = None
    for asked, data in sets:
        try:
            triples = paper_triples(asked, data, teacher, config, seed)
        except FitError as error:  # of a small task among many
            failed = error
            continue
        found = np.concatenate([triples.positive_rows[:, None], triples.negative_rows], axis=1)
        used, places = np.unique(found, return_inverse=True)
        documents.append(data.corpus[torch.from_numpy(used).to(data.corpus.device)])
        candidates.append(places.reshape(found.shape) + kept)
        queries.append(asked.views["large"])
        rows.append(triples.query_rows + before)
        before, kept = before + len(asked.ids), kept + len(used)
    if not queries:
        raise failed or FitError("No training query; there is nothing to learn.")
    device = queries[0].device
    return _Pairs(
        torch.cat(queries),
        torch.from_numpy(np.concatenate(rows)).to(device),
        torch.cat(documents),
        torch.from_numpy(np.concatenate(candidates)).to(device),
    )
