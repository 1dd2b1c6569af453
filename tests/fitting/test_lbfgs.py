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
    slopes, seen = torch.tensor([-2.0, 1.0, 5.0]), []

    def objective(x, members):
        seen.append(x[0].clone())
        return (slopes * x.square()).sum(dim=1) / 2, slopes * x

    minimise(objective, torch.tensor([[-4.0, 1.0, -1.0]]), 2)
    torch.testing.assert_close(seen[2], seen[1] - slopes * seen[1])


def _logistic(count: int, seed: int):
    """Ridge-penalised logistic regressions; ``exact`` finds their minimum by Newton's method."""
    points, size = 30, 4
    x = normal(count, points, size, seed=seed)
    labels = (normal(count, points, seed=seed + 1) + x[:, :, 0] > 0).float()

    def losses(weights, members):
        logits = torch.einsum("kni,ki->kn", x[members].to(weights), weights)
        right = labels[members].to(weights)
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, right, reduction="none")
        return each.sum(dim=1) + 0.1 * weights.square().sum(dim=1)

    def objective(weights, members):
        leaf = weights.clone().requires_grad_()
        loss = losses(leaf, members)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    def exact(member):
        weights = torch.zeros(size, dtype=torch.float64)
        for _ in range(20):
            p = torch.sigmoid(x[member].double() @ weights)
            slope = x[member].double().T @ (p - labels[member].double()) + 0.2 * weights
            curved = x[member].double().T * (p * (1 - p)) @ x[member].double()
            weights = weights - torch.linalg.solve(curved + 0.2 * torch.eye(size), slope)
        return weights.float()

    return objective, exact


@pytest.mark.parametrize("seed", range(4))
def test_logistic_regressions_reach_newtons_solution(seed) -> None:
    objective, exact = _logistic(3, seed)
    found = minimise(objective, torch.zeros(3, 4), 60, tolerance=1e-8)
    torch.testing.assert_close(found, torch.stack([exact(i) for i in range(3)]), atol=5e-3, rtol=0)


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

    def undefined_at_first(x, members):
        loss, gradient = objective(x, members)
        far = (members == 1) & ((x - start[members]).norm(dim=1) > 0.01)
        return torch.where(far, torch.nan, loss), gradient

    usual, other = (minimise(o, start, 5) for o in (objective, undefined_at_first))
    torch.testing.assert_close(usual[0], other[0], atol=1e-4, rtol=0)
    assert not torch.equal(usual[1], other[1])


def _waves(x, members):
    """Many local minima, no bound on the slope, and nothing defined far out."""
    inside = x.abs().amax(dim=1) < 4
    loss = (x.square().square() / 8 + torch.sin(5 * x) * (1 + members[:, None])).sum(dim=1)
    gradient = x.pow(3) / 2 + 5 * torch.cos(5 * x) * (1 + members[:, None])
    return torch.where(inside, loss, torch.nan), gradient


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), first_step=st.sampled_from([0.01, 0.5, 100.0]))
def test_no_member_ends_above_its_start(seed, first_step) -> None:
    start = normal(3, 4, seed=seed).clamp(-3.9, 3.9)
    members = torch.arange(3)
    found = minimise(_waves, start, 6, first_step=first_step)
    before, after = (_waves(x, members)[0] for x in (start, found))
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

    def broken(x, members):
        loss, gradient = objective(x, members)
        moved = (x != 0).any(dim=1) & (members == 0)
        return torch.where(moved, torch.nan, loss), gradient

    found = minimise(broken, torch.zeros(2, 3), 60)
    assert found[0].tolist() == [0.0] * 3
    torch.testing.assert_close(found[1], centres[1], atol=2e-3, rtol=0)


def test_solved_members_are_not_asked_again_while_others_go_on() -> None:
    objective, centres = _quadratics(3, 5, 1)
    asked: list[list[int]] = []

    def spy(x, members):
        asked.append(members.tolist())
        return objective(x, members)

    start = torch.zeros(3, 5)
    start[1] = centres[1]
    found = minimise(spy, start, 40)
    assert asked[0] == [0, 1, 2]
    assert sum(1 in members for members in asked) <= 2
    assert sum(0 in members for members in asked) > 4
    torch.testing.assert_close(found, centres, atol=2e-3, rtol=0)


def test_all_stop_when_all_are_solved() -> None:
    objective, centres = _quadratics(2, 3, 1)
    calls = []

    def spy(x, members):
        calls.append(len(members))
        return objective(x, members)

    minimise(spy, centres, 1000)
    assert len(calls) == 2


def test_the_first_trial_step_has_the_length_asked_for() -> None:
    seen = []

    def objective(x, members):
        seen.append(x.clone())
        return (x - 100).square().sum(dim=1), 2 * (x - 100)

    minimise(objective, torch.zeros(2, 4), 1, first_step=0.25)
    np.testing.assert_allclose(seen[1].norm(dim=1), [0.25, 0.25], rtol=1e-5)


def test_no_iteration_gives_the_start_and_never_changes_it_in_place() -> None:
    objective, _ = _quadratics(2, 3, 0)
    start = normal(2, 3, seed=9)
    copy = start.clone()
    assert torch.equal(minimise(objective, start, 0), copy)
    assert not torch.equal(minimise(objective, start, 5), copy)
    assert torch.equal(start, copy)
