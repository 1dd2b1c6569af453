"""L-BFGS on problems whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import normal

from era_cache.fitting.lbfgs import _times_inverse_hessian, minimise


def _quadratics(count: int, size: int, seed: int):
    """Bowls 1/2 (x - c)^T A (x - c) with eigenvalues from 1 to 20, and their centres."""
    axes = torch.linalg.qr(normal(count, size, size, seed=seed))[0]
    bowls = axes * torch.linspace(1, 20, size) @ axes.transpose(1, 2)
    centres = normal(count, size, seed=seed + 1)

    def objective(x, members):
        away = x - centres[members]
        gradient = torch.einsum("kij,kj->ki", bowls[members], away)
        return 0.5 * (away * gradient).sum(dim=1), gradient

    return objective, centres


class _Spy:
    """An objective that remembers where, and for which members, it was asked."""

    def __init__(self, objective) -> None:
        self.points: list[torch.Tensor] = []
        self.members: list[list[int]] = []
        self._objective = objective

    def __call__(self, x, members):
        self.points.append(x.clone())
        self.members.append(members.tolist())
        return self._objective(x, members)


def _undefined_where(objective, where):
    """The objective, but NaN where ``where`` holds of points and members."""

    def broken(x, members):
        loss, gradient = objective(x, members)
        return torch.where(where(x, members), torch.nan, loss), gradient

    return broken


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), size=st.integers(1, 7))
def test_quadratics_are_solved(seed, count, size) -> None:
    objective, centres = _quadratics(count, size, seed)
    found = minimise(objective, torch.zeros(count, size), 60)
    torch.testing.assert_close(found, centres, atol=2e-3, rtol=0)


@pytest.mark.parametrize("left_out", [(), (0,), (1, 3), (3,)])
def test_the_direction_is_that_of_the_dense_update(left_out) -> None:
    # H <- (I - r s y^T) H (I - r y s^T) + r s s^T from H = (s.y / y.y) I, of the newest pair that
    # counts (Nocedal and Wright, equations 6.17 and 7.20).
    axes = torch.linalg.qr(normal(2, 5, 5))[0]
    bowls = axes * torch.linspace(1, 9, 5) @ axes.transpose(1, 2)
    gradient, history, kept = normal(2, 5, seed=1), [], []
    for number in range(4):
        s = normal(2, 5, seed=2 + number)
        y = torch.einsum("kij,kj->ki", bowls, s)
        rho = 1 / (s * y).sum(dim=1)
        history.append((s, y, torch.zeros(2) if number in left_out else rho))
        if number not in left_out:
            kept.append((s.double(), y.double(), rho.double()))
    found = _times_inverse_hessian(gradient, history)
    eye = torch.eye(5, dtype=torch.float64)
    for member in range(2):
        s, y, _ = (column[member] for column in kept[-1])
        inverse = (s @ y) / (y @ y) * eye
        for pair in kept:
            s, y, rho = (column[member] for column in pair)
            turn = eye - rho * torch.outer(s, y)
            inverse = turn @ inverse @ turn.T + rho * torch.outer(s, s)
        expected = (inverse @ gradient[member].double()).float()
        torch.testing.assert_close(found[member], expected, atol=1e-4, rtol=1e-4)


def test_a_step_along_negative_curvature_teaches_nothing() -> None:
    # A saddle: after such a step the next trial goes straight down the gradient again.
    slopes = torch.tensor([-2.0, 1.0, 5.0])
    spy = _Spy(lambda x, _members: ((slopes * x.square()).sum(dim=1) / 2, slopes * x))
    minimise(spy, torch.tensor([[-4.0, 1.0, -1.0]]), 2)
    torch.testing.assert_close(spy.points[2], spy.points[1] - slopes * spy.points[1])


def _logistic(count: int, seed: int):
    """Ridge-penalised logistic regressions."""
    x = normal(count, 30, 4, seed=seed).double()  # in float32 rounding ends it earlier
    labels = (normal(count, 30, seed=seed + 1) + x[:, :, 0] > 0).double()

    def objective(weights, members):
        leaf = weights.clone().requires_grad_()
        logits = torch.einsum("kni,ki->kn", x[members], leaf)
        losses = torch.nn.functional.softplus((1 - 2 * labels[members]) * logits).sum(dim=1)
        losses = losses + 0.1 * leaf.square().sum(dim=1)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient

    return objective


@pytest.mark.parametrize("seed", range(4))
def test_logistic_regressions_are_solved(seed) -> None:
    objective = _logistic(3, seed)
    found = minimise(objective, torch.zeros(3, 4).double(), 60, tolerance=1e-12)
    # They are convex, and curved by 0.2 at least: no minimum is farther off than five gradients.
    assert float(objective(found, torch.arange(3))[1].norm(dim=1).max()) < 1e-4


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), iterations=st.integers(1, 6))
def test_members_solved_together_equal_members_solved_alone(seed, iterations) -> None:
    objective, _ = _quadratics(3, 5, seed)
    start = normal(3, 5, seed=seed + 2)
    together = minimise(objective, start, iterations)
    for member in range(3):
        alone = minimise(
            lambda x, members, m=member: objective(x, members + m),
            start[member : member + 1],
            iterations,
        )
        torch.testing.assert_close(together[member], alone[0], atol=1e-3, rtol=1e-3)


def test_a_member_does_not_notice_what_happens_to_another() -> None:
    objective, _ = _quadratics(2, 5, 3)
    start = normal(2, 5, seed=9)
    undefined_at_first = _undefined_where(
        objective, lambda x, members: (members == 1) & ((x - start[members]).norm(dim=1) > 0.01)
    )
    usual, other = (minimise(o, start, 5) for o in (objective, undefined_at_first))
    torch.testing.assert_close(usual[0], other[0], atol=1e-4, rtol=0)
    assert not torch.equal(usual[1], other[1])


def _waves(x, members):
    """Many local minima, no bound on the slope."""
    loss = (x.square().square() / 8 + torch.sin(5 * x) * (1 + members[:, None])).sum(dim=1)
    return loss, x.pow(3) / 2 + 5 * torch.cos(5 * x) * (1 + members[:, None])


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), first_step=st.sampled_from([0.01, 0.5, 100.0]))
def test_no_member_ends_above_its_start(seed, first_step) -> None:
    start, members = normal(3, 4, seed=seed).clamp(-3.9, 3.9), torch.arange(3)
    bounded = _undefined_where(_waves, lambda x, _members: x.abs().amax(dim=1) >= 4)
    found = minimise(bounded, start, 6, first_step=first_step)
    before, after = (bounded(x, members)[0] for x in (start, found))
    assert bool((after <= before).all())  # False for NaN
    assert bool((after < before).any())


@pytest.mark.parametrize("outside", [float("nan"), float("inf")])
def test_steps_into_the_undefined_are_shortened(outside) -> None:
    # The logarithmic barrier: minimum of x - ln x is at 1, nothing is defined at or below 0.
    def objective(x, members):
        value = (x - x.clamp(min=1e-30).log()).sum(dim=1)
        return torch.where((x > 0).all(dim=1), value, outside), 1 - 1 / x

    found = minimise(objective, torch.tensor([[3.0], [0.5]]), 30, first_step=50.0)
    torch.testing.assert_close(found, torch.ones(2, 1), atol=1e-2, rtol=0)


def test_a_member_whose_steps_all_fail_stays_put_and_the_others_go_on() -> None:
    objective, centres = _quadratics(2, 3, 0)
    broken = _undefined_where(objective, lambda x, members: (x != 0).any(dim=1) & (members == 0))
    found = minimise(broken, torch.zeros(2, 3), 60)
    assert found[0].tolist() == [0.0] * 3
    torch.testing.assert_close(found[1], centres[1], atol=2e-3, rtol=0)


def test_solved_members_are_not_asked_again_while_others_go_on() -> None:
    objective, centres = _quadratics(3, 5, 1)
    spy, start = _Spy(objective), torch.zeros(3, 5)
    start[1] = centres[1]
    found = minimise(spy, start, 40)
    assert spy.members[0] == [0, 1, 2]
    assert sum(1 in members for members in spy.members) <= 2
    assert sum(0 in members for members in spy.members) > 4
    torch.testing.assert_close(found, centres, atol=2e-3, rtol=0)


def test_all_stop_when_all_are_solved() -> None:
    objective, centres = _quadratics(2, 3, 1)
    spy = _Spy(objective)
    minimise(spy, centres, 1000)
    assert len(spy.points) == 2


def test_the_first_trial_step_has_the_length_asked_for() -> None:
    spy = _Spy(lambda x, _members: ((x - 100).square().sum(dim=1), 2 * (x - 100)))
    minimise(spy, torch.zeros(2, 4), 1, first_step=0.25)
    np.testing.assert_allclose(spy.points[1].norm(dim=1), [0.25, 0.25], rtol=1e-5)


def test_no_iteration_gives_the_start_and_never_changes_it_in_place() -> None:
    objective, _ = _quadratics(2, 3, 0)
    start = normal(2, 3, seed=9)
    copy = start.clone()
    assert torch.equal(minimise(objective, start, 0), copy)
    assert not torch.equal(minimise(objective, start, 5), copy)
    assert torch.equal(start, copy)
