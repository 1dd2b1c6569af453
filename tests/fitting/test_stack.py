"""Stacks of adapters on problems whose answer is planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from planted import normal

from era_cache.errors import FitError
from era_cache.fitting.adapter import unit
from era_cache.fitting.losses import corpus_softmax
from era_cache.fitting.stack import Member, Stack, Task
from era_cache.fitting.trained_part import SHAPES, shape_of
from era_cache.types import IntArray

D_OUT, D_IN, N_DOCS, N_QUERIES = 5, 7, 40, 30
FIRST, SECOND = np.arange(12), np.arange(10, 30)


def _rows(*numbers: int) -> IntArray:
    return np.array(numbers, dtype=np.int64)


def _task(seed: int = 0, barred: torch.Tensor | None = None, noise: float = 0.2) -> Task:
    """Query i knows document i through a map, so that a linear adapter can find it."""
    corpus = unit(normal(N_DOCS, D_OUT, seed=seed))
    seen = corpus[:N_QUERIES] @ normal(D_OUT, D_IN, seed=50)
    inputs = unit(seen + noise * normal(N_QUERIES, D_IN, seed=seed + 1))
    return Task(inputs, corpus, corpus[:N_QUERIES].clone(), barred)


def _start(seed: int = 9) -> torch.Tensor:
    return normal(D_OUT, D_IN, seed=seed)


def _stack(tasks, members, *, shape: str = "linear", **options) -> Stack:
    made = shape_of(shape, D_OUT, D_IN, rank=2, hidden=4)
    return Stack(tasks, members, made, generator=torch.Generator().manual_seed(0), **options)


ONE = [Member(_start(), [FIRST], 0.1)]


def _trained(
    tasks, members=ONE, strength: float = 1.0, iterations: int = 4, **options
) -> torch.Tensor:
    (parameters,) = _stack(tasks, members, **options).path([strength], iterations)
    return parameters


def _mean_loss(task: Task, mapped: torch.Tensor, rows: IntArray, temperature: float) -> float:
    here = torch.from_numpy(rows)
    temperatures = torch.full((len(rows),), temperature)
    options = {"barred": task.barred, "rows": here}
    found = corpus_softmax(mapped, task.corpus, task.pull[here], temperatures, **options)
    return float(found.loss.mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_training_lowers_the_loss_of_its_own_queries(shape) -> None:
    task = _task()
    stack = _stack([task], ONE, shape=shape)
    before, after = (
        _mean_loss(task, stack.outputs(p[0], 0, task.inputs[FIRST]), FIRST, 0.1)
        for p in (stack.origin, *stack.path([0.1], 15))
    )
    assert after < before - 0.5


def test_the_objective_and_its_gradient_are_what_is_written_down() -> None:
    # The sum over queries of the loss, and strength times the squared way from the start, divided
    # by the number of queries; autograd in float64 is the oracle.
    barred = torch.zeros(N_QUERIES, N_DOCS, dtype=torch.bool)
    barred[:, 35] = barred[3, 7] = True
    tasks = [_task(0, barred), _task(4)]
    rows = [_rows(1, 3, 8), _rows(0, 2)]
    stack = _stack(tasks, [Member(_start(), rows, 0.3)], learn_temperature=True)
    within = stack._inward(stack.origin)
    within = within + 0.3 * normal(*within.shape, seed=6)
    loss, gradient = stack._objective(2.0, within, torch.tensor([0]))

    point = stack._outward(within, stack.origin)
    leaf = point[0].double().requires_grad_()
    weight = _start().double() + leaf[:-1].view(D_OUT, D_IN)
    total = 2.0 * leaf.square().sum()
    for task, mine in zip(tasks, rows, strict=True):
        for row in mine.tolist():
            mapped = unit(task.inputs[row].double() @ weight.T)
            scores = task.corpus.double() @ mapped / (0.3 * leaf[-1].exp())
            left = scores if task.barred is None else scores[~task.barred[row]]
            total = total + torch.logsumexp(left, dim=0) - scores[row]
    (total / 5).backward()
    assert float(loss[0]) == pytest.approx(float(total.detach()) / 5, rel=1e-5)
    assert gradient.shape[1] == 5 * D_OUT + 1 < len(leaf)  # as many coordinates as queries
    full = leaf.grad.float()[None]
    torch.testing.assert_close(gradient, stack._inward(full), atol=1e-5, rtol=1e-4)
    # And there is nothing to be won outside of them.
    rebuilt = stack._outward(gradient, torch.zeros_like(full))
    torch.testing.assert_close(rebuilt, full, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_members_trained_together_equal_members_trained_alone(shape) -> None:
    task = _task()
    members = [
        Member(_start(), [FIRST], 0.1),
        Member(_start(8), [SECOND], 0.1),
        Member(_start(), [_rows(5)], 0.2),
    ]
    together = _trained([task], members, shape=shape)
    for number, member in enumerate(members):
        alone = _trained([task], [member], shape=shape)
        torch.testing.assert_close(together[number], alone[0], atol=1e-3, rtol=0)


def test_a_member_depends_on_its_own_rows_only() -> None:
    task = _task()
    members = [Member(_start(), [FIRST], 0.1), Member(_start(), [SECOND], 0.1)]
    foreign = torch.arange(N_QUERIES) >= len(FIRST)
    poisoned = task._replace(
        inputs=torch.where(foreign[:, None], -task.inputs, task.inputs),
        pull=torch.where(foreign[:, None], unit(normal(N_QUERIES, D_OUT, seed=77)), task.pull),
        barred=foreign[:, None] & (torch.arange(N_DOCS) % 3 > 0),
    )
    one = _trained([task], members)
    two = _trained([poisoned], members)
    torch.testing.assert_close(one[0], two[0], atol=1e-5, rtol=0)
    assert not torch.allclose(one[1], two[1], atol=1e-2)


def test_a_shorter_member_does_not_depend_on_the_rows_that_it_lacks() -> None:
    # Row 0 is nobody's: not even as a filler may it spoil a member of fewer rows.
    task = _task()
    barred = torch.zeros(N_QUERIES, N_DOCS, dtype=torch.bool)
    barred[0] = True
    members = [Member(_start(), [_rows(3, 4)], 0.1), Member(_start(), [SECOND], 0.1)]
    one = _trained([task], members)
    two = _trained([task._replace(barred=barred)], members)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert bool((two[0] != 0).any())


def test_two_tasks_of_one_corpus_equal_one_task_with_the_queries_of_both() -> None:
    # Queries count alike, whatever task they come from.
    task, few, many = _task(), np.arange(4), np.arange(12, 30)
    whole = _trained([task], [Member(_start(), [np.concatenate([few, many])], 0.1)])
    split = _trained([task, task], [Member(_start(), [few, many], 0.1)])
    torch.testing.assert_close(split, whole, atol=1e-4, rtol=0)


def test_a_task_without_rows_for_any_member_changes_nothing() -> None:
    beside = _trained([_task(), _task(4)], [Member(_start(), [FIRST, _rows()], 0.1)])
    torch.testing.assert_close(beside, _trained([_task()]))


def test_a_member_may_lack_rows_in_a_task_that_another_has() -> None:
    tasks = [_task(), _task(4)]
    members = [Member(_start(), rows, 0.1) for rows in ([FIRST, _rows()], [_rows(), FIRST])]
    for found, task in zip(_trained(tasks, members), tasks, strict=True):
        torch.testing.assert_close(found, _trained([task])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [[], [0]])
def test_a_member_without_a_query_is_refused(rows) -> None:
    members = [Member(_start(), [_rows(*rows)], 0.1), Member(_start(), [_rows()], 0.1)]
    with pytest.raises(FitError, match="nothing to learn"):
        _stack([_task()], members)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stronger_pull_stays_nearer_to_the_start(shape) -> None:
    stack = _stack([_task()], ONE, shape=shape)
    ways = [float((p - stack.origin).norm()) for p in stack.path([1000.0, 30.0, 1.0, 0.03], 20)]
    assert all(near < 0.8 * far for near, far in itertools.pairwise(ways))
    assert ways[0] < 0.01


def test_a_path_goes_on_from_where_the_stronger_pull_ended() -> None:
    stack = _stack([_task()], ONE)
    strong, weak = stack.path([10.0, 1.0], 2)
    (onwards,) = stack.path([1.0], 2, begin=strong)
    assert torch.equal(weak, onwards)
    (afresh,) = stack.path([1.0], 2)
    assert not torch.equal(weak, afresh)


@pytest.mark.parametrize(("given", "colder"), [(2.0, True), (0.002, False)])
def test_a_learned_temperature_moves_to_where_the_loss_is_lower(given, colder) -> None:
    task = _task(noise=0.6)
    stack = _stack([task], [Member(_start(), [FIRST], given)], learn_temperature=True)
    (parameters,) = stack.path([0.01], 8)
    learned = stack.temperature(parameters[0], 0)
    assert (learned < 0.9 * given) if colder else (learned > 1.1 * given)
    mapped = stack.outputs(parameters[0], 0, task.inputs[FIRST])
    assert _mean_loss(task, mapped, FIRST, learned) < _mean_loss(task, mapped, FIRST, given)


def test_a_temperature_that_is_not_learned_stays() -> None:
    stack = _stack([_task()], [Member(_start(), [FIRST], t) for t in (0.1, 0.3)])
    (parameters,) = stack.path([1.0], 3)
    found = [stack.temperature(own, number) for number, own in enumerate(parameters)]
    assert found == pytest.approx([0.1, 0.3])
    assert not torch.allclose(parameters[0], parameters[1], atol=1e-2)


def test_outputs_are_those_of_the_members_own_map() -> None:
    task = _task()
    stack = _stack([task], [Member(_start(s), [FIRST], 0.1) for s in (8, 9)])
    (parameters,) = stack.path([1.0], 3)
    weight = _start(9) + parameters[1].view(D_OUT, D_IN)
    torch.testing.assert_close(
        stack.outputs(parameters[1], 1, task.inputs), unit(task.inputs @ weight.T)
    )


def test_blocks_of_scores_do_not_matter() -> None:
    parts = _trained([_task()], block_bytes=1)
    torch.testing.assert_close(_trained([_task()]), parts, atol=1e-4, rtol=0)


def test_nothing_given_is_changed_in_place() -> None:
    task, start = _task(), _start()
    given = (task.inputs, task.corpus, task.pull, start)
    copies = [t.clone() for t in given]
    _trained([task], [Member(start, [FIRST], 0.1)])
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_training_is_deterministic_and_the_global_generator_takes_no_part() -> None:
    one = _trained([_task()], shape="mlp")
    torch.manual_seed(5)
    assert torch.equal(one, _trained([_task()], shape="mlp"))
