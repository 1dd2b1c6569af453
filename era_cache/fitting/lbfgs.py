"""Limited-memory BFGS on many small problems at once.

In: k parameter vectors and a function that gives the k losses and gradients together. Out: k better
vectors. The problems share products and nothing else: each has its own curvature and step length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Objective = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

__all__ = ["MEMORY", "minimise"]

MEMORY = 8
"""Pairs of differences that are remembered."""
_SUFFICIENT = 1e-4
"""Share of the promised decrease that a step must deliver (Armijo's rule)."""
_SHRINKS = 8
"""Shorter steps tried before a problem counts as solved."""


def minimise(
    objective: Objective,
    start: torch.Tensor,
    iterations: int,
    *,
    first_step: float = 0.5,
    tolerance: float = 1e-5,
) -> torch.Tensor:
    """Lower each of k losses by at most so many L-BFGS steps.

    Two-loop recursion with step lengths found by backtracking (Nocedal and Wright, Numerical
    Optimization, 2006, algorithms 7.4 and 3.1). A pair without positive curvature is left out.

    Args:
        objective: from (j, p) parameters and the (j,) numbers of the problems they belong to, the
            losses (j,) and gradients (j, p).
        start: (k, p) float32.
        iterations: steps of each problem at most.
        first_step: length of the very first trial step, in the norm of the parameters.
        tolerance: a problem whose loss falls by a smaller share in a step is solved.

    Returns:
        (k, p) parameters, each at least as good as its start.
    """
    import torch

    x = start.detach()
    members = torch.arange(len(x), device=x.device)
    loss, gradient = objective(x, members)
    best = x.clone()
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for number in range(iterations):
        direction = _times_inverse_hessian(gradient, history).neg_()
        slope = _products(direction, gradient)
        uphill = slope >= 0
        if bool(uphill.any()):
            direction = torch.where(uphill[:, None], -gradient, direction)
            slope = _products(direction, gradient)
        length = torch.ones_like(loss)
        if number == 0:
            length = first_step / direction.norm(dim=1).clamp(min=1e-12)
        moved, new_loss, new_gradient, taken = _search(
            objective, x, loss, gradient, direction, slope, length, members
        )
        differences, changes = moved - x, new_gradient - gradient
        curvature = _products(differences, changes)
        usable = curvature > 1e-10 * _products(changes, changes).clamp(min=1e-30)
        rho = torch.where(usable, 1 / curvature.where(usable, torch.ones_like(curvature)), 0.0)
        history = [*history, (differences, changes, rho)][-MEMORY:]
        going = taken & (loss - new_loss > tolerance * loss.abs().clamp(min=1e-12))
        x, loss, gradient = moved, new_loss, new_gradient
        if not bool(going.any()):
            break
        if not bool(going.all()):
            best[members] = x
            members, x, loss, gradient = members[going], x[going], loss[going], gradient[going]
            history = [(s[going], y[going], r[going]) for s, y, r in history]
    best[members] = x
    return best


def _products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Scalar products of rows, (k,)."""
    import torch

    found: torch.Tensor = torch.linalg.vecdot(left, right)
    return found


def _times_inverse_hessian(
    gradient: torch.Tensor, history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """The two-loop recursion; rho = 0 makes a pair count for nothing."""
    import torch

    direction = gradient.clone()
    weights = []
    for s, y, rho in reversed(history):
        alpha = rho * _products(s, direction)
        direction.addcmul_(alpha[:, None], y, value=-1)
        weights.append(alpha)
    if history:
        scale = torch.ones_like(history[-1][2])
        for _, y, rho in history:  # the newest usable pair of each problem sets its scale
            scale = torch.where(rho > 0, 1 / (rho * _products(y, y)).clamp(min=1e-30), scale)
        direction *= scale[:, None]
    for (s, y, rho), alpha in zip(history, reversed(weights), strict=True):
        beta = rho * _products(y, direction)
        direction.addcmul_((alpha - beta)[:, None], s)
    return direction


def _search(
    objective: Objective,
    x: torch.Tensor,
    loss: torch.Tensor,
    gradient: torch.Tensor,
    direction: torch.Tensor,
    slope: torch.Tensor,
    length: torch.Tensor,
    members: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shorten each problem's step until its loss falls enough; those that never do stay put."""
    import torch

    moved = torch.addcmul(x, length[:, None], direction)
    new_loss, new_gradient = objective(moved, members)
    open_ = torch.arange(len(x), device=x.device)
    for number in range(_SHRINKS):
        cost = new_loss[open_]
        fallen = cost <= loss[open_] + _SUFFICIENT * length[open_] * slope[open_]  # False for NaN
        if bool(fallen.all()):
            open_ = open_[:0]
            break
        open_, cost = open_[~fallen], cost[~fallen]
        if number == _SHRINKS - 1:
            break
        # Minimum of the parabola through both losses and the slope, within sensible bounds.
        bend = cost - loss[open_] - length[open_] * slope[open_]
        shorter = -0.5 * slope[open_] * length[open_].square() / bend.clamp(min=1e-30)
        shorter = torch.nan_to_num(shorter, nan=0.0)
        length[open_] = torch.clamp(shorter, length[open_] * 0.1, length[open_] * 0.5)
        trial = torch.addcmul(x[open_], length[open_, None], direction[open_])
        moved[open_] = trial
        new_loss[open_], new_gradient[open_] = objective(trial, members[open_])
    taken = torch.ones(len(x), dtype=torch.bool, device=x.device)
    taken[open_] = False
    moved[open_], new_loss[open_], new_gradient[open_] = x[open_], loss[open_], gradient[open_]
    return moved, new_loss, new_gradient, taken
