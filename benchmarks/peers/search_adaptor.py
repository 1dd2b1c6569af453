"""A re-implementation of Search-Adaptor (Yoon et al., ACL 2024), on the query side only.

The published method adapts queries and documents with one residual network; here the index is
frozen and the two spaces differ, so queries alone are adapted: y = Rx + f(x), R from Procrustes on
the alignment texts. Losses as published: pairwise ranking, weighted by the difference of grades,
plus alpha times the L1 norm of what f adds (recovery), plus beta times the L1 distance between the
adapted query and what a second network predicts for it from its positives (prediction). Published
settings: Adam, rate 1e-3, 2,000 steps of 128 queries, ten random negatives for each positive, stop
after 125 steps without a better validation. Not published, chosen here: two layers with ReLU, as
wide as their input, the last one of f starting at zero; the mean over pairs as ranking loss (it did
better than the sum).

Variants: ``grid`` tries the nine published pairs of alpha and beta and keeps the best on the
validation queries, as published; ``fixed`` takes alpha 0.1 and beta 0.01.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.problem import (
    FloatArray,
    Map,
    Problem,
    grade_matrix,
    main,
    procrustes,
    validation,
)

_STEPS, _PATIENCE, _EVERY = 2000, 125, 5
_BATCH, _NEGATIVES, _RATE = 128, 10, 1e-3
_FIXED = [(0.1, 0.01)]
_GRID = list(itertools.product((0.0, 0.1, 1.0), (0.0, 0.01, 0.1)))


def _network(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_in), nn.ReLU(), nn.Linear(width_in, width_out))


class QueryAdaptor(nn.Module):
    """y = Rx + f(x)."""

    def __init__(self, rotation: torch.Tensor) -> None:
        super().__init__()
        self.rotation = nn.Buffer(rotation)
        self.change = _network(rotation.shape[1], rotation.shape[0])
        for parameter in self.change[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return adapted queries and what f added to them."""
        added = self.change(queries)
        return queries @ self.rotation.T + added, added


def _loss(
    model: QueryAdaptor,
    predictor: nn.Module,
    queries: torch.Tensor,
    corpus: torch.Tensor,
    grades: torch.Tensor,
    weights: tuple[float, float],
) -> torch.Tensor:
    """Ranking, recovery and prediction of some queries, all of whose positives take part."""
    adapted, added = model(queries)
    rows, positives = torch.nonzero(grades, as_tuple=True)
    # Drawn from the whole corpus: those that are as relevant as the positive get no weight.
    others = torch.randint(len(corpus), (len(rows), _NEGATIVES))
    directions = functional.normalize(adapted, dim=1)[rows]
    own = (directions * corpus[positives]).sum(1, keepdim=True)
    other = torch.einsum("pd,pnd->pn", directions, corpus[others])
    grade = grades[rows, positives]
    ahead = (grade[:, None] - grades[rows[:, None], others]).clamp_min(0)
    ranking = (ahead * functional.softplus(other - own)).mean()
    recovery = added.abs().sum(1).mean()
    distance = (adapted[rows] - predictor(corpus[positives])).abs().sum(1)
    prediction = (grade * distance).sum() / grade.sum()
    alpha, beta = weights
    total: torch.Tensor = ranking + alpha * recovery + beta * prediction
    return total


def _train(
    problem: Problem, rotation: torch.Tensor, weights: tuple[float, float]
) -> tuple[float, QueryAdaptor]:
    """Train with one alpha and beta; returns the best validation nDCG@10 and that state."""
    torch.manual_seed(0)
    model, predictor = QueryAdaptor(rotation), _network(len(rotation), len(rotation))
    corpus = torch.from_numpy(problem.corpus)
    train, val = torch.from_numpy(problem.train_queries), torch.from_numpy(problem.val_queries)
    grades = torch.from_numpy(grade_matrix(problem.train_qrels, len(train), len(corpus)))
    validate = validation(problem)
    optimizer = torch.optim.Adam([*model.parameters(), *predictor.parameters()], lr=_RATE)
    best, best_step, best_state = -1.0, 0, copy.deepcopy(model.state_dict())
    order = torch.empty(0, dtype=torch.long)
    for step in range(_STEPS + 1):
        if step % _EVERY == 0:
            with torch.no_grad():
                value = validate(model(val)[0].numpy())
            if value > best:
                best, best_step, best_state = value, step, copy.deepcopy(model.state_dict())
            elif step - best_step >= _PATIENCE:
                break
        if len(order) == 0:
            order = torch.randperm(len(train))
        batch, order = order[:_BATCH], order[_BATCH:]
        optimizer.zero_grad()
        _loss(model, predictor, train[batch], corpus, grades[batch], weights).backward()
        optimizer.step()
    model.load_state_dict(best_state)
    return best, model


def fit(problem: Problem, variant: str) -> Map:
    """Fit one of the variants."""
    rotation = torch.from_numpy(procrustes(problem))
    trained = [
        _train(problem, rotation, weights) for weights in (_GRID if variant == "grid" else _FIXED)
    ]
    _, model = max(trained, key=lambda one: one[0])

    def adapt(queries: FloatArray) -> FloatArray:
        with torch.no_grad():
            return model(torch.from_numpy(queries))[0].numpy()  # type: ignore[no-any-return]

    return adapt


if __name__ == "__main__":
    main(fit)
