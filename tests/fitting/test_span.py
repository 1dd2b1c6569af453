"""Training in the span of the queries: the same maps as training all parameters."""

from __future__ import annotations

import pytest
import torch
from planted import normal

from era_cache.fitting.lbfgs import minimise
from era_cache.fitting.span import space_of
from era_cache.fitting.trained_part import shape_of

K, D_OUT, D_IN = 3, 4, 11


def _shape(name: str = "linear"):
    return shape_of(name, D_OUT, D_IN, rank=2, hidden=3)


def _inputs(*counts: int) -> list[torch.Tensor]:
    return [normal(K, count, D_IN, seed=count) for count in counts]


def _parameters(shape, seed: int = 5) -> torch.Tensor:
    made = shape.initial(K, torch.Generator().manual_seed(0))
    return made + normal(*made.shape, seed=seed)


BASE = normal(K, D_OUT, D_IN, seed=1)
FEW, MANY, TWO, NONE = (4,), (30,), (2, 5), (0, 6)


@pytest.mark.parametrize("counts", [FEW, MANY, TWO, NONE])
@pytest.mark.parametrize("name", ["linear", "low-rank", "mlp"])
def test_outputs_are_those_of_the_parameters(name, counts) -> None:
    shape, inputs = _shape(name), _inputs(*counts)
    space, parameters = space_of(shape, BASE, inputs), _parameters(_shape(name))
    within = space.inward(parameters)
    some = torch.tensor([2, 0])
    for number, rows in enumerate(inputs):
        expected = shape.outputs(parameters, BASE, rows)
        torch.testing.assert_close(space.outputs(within, number, None)[0], expected)
        torch.testing.assert_close(space.outputs(within[some], number, some)[0], expected[some])


@pytest.mark.parametrize("counts", [FEW, MANY, TWO])
@pytest.mark.parametrize("name", ["linear", "low-rank", "mlp"])
def test_the_way_back_is_the_gradient(name, counts) -> None:
    shape, inputs = _shape(name), _inputs(*counts)
    space = space_of(shape, BASE, inputs)
    within = space.inward(_parameters(shape))
    step = 1e-3 * normal(*within.shape, seed=9)
    for members in (None, torch.tensor([2, 0])):
        here, there = (within, step) if members is None else (within[members], step[members])
        for number in range(len(inputs)):
            _, back = space.outputs(here, number, members)
            ahead, behind = (space.outputs(here + s, number, members)[0] for s in (there, -there))
            upstream = normal(*ahead.shape, seed=11)
            expected = (upstream * (ahead - behind)).sum(dim=(1, 2)) / 2
            found = (back(upstream) * there).sum(dim=1)
            torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize(("counts", "width"), [(FEW, 4), (TWO, 7), (NONE, 6), (MANY, D_IN)])
def test_there_are_no_more_coordinates_than_queries_or_dimensions(counts, width) -> None:
    space = space_of(_shape(), BASE, _inputs(*counts))
    assert space.inward(_parameters(_shape())).shape == (K, D_OUT * width)


@pytest.mark.parametrize("counts", [FEW, MANY, TWO])
def test_what_training_began_with_beside_the_span_stays(counts) -> None:
    space, begin = space_of(_shape(), BASE, _inputs(*counts)), _parameters(_shape())
    within = space.inward(begin)
    torch.testing.assert_close(space.outward(within, begin), begin)
    step = normal(*within.shape, seed=7)
    moved = space.outward(within + step, begin) - begin
    torch.testing.assert_close(space.inward(moved), step)
    torch.testing.assert_close(moved.norm(dim=1), step.norm(dim=1))


@pytest.mark.parametrize("counts", [FEW, TWO, MANY])
def test_a_minimum_in_the_span_is_that_of_all_parameters(counts) -> None:
    # Ridge regression of several outputs: its closed form knows nothing of spans.
    shape, inputs = _shape(), _inputs(*counts)
    rows = torch.cat(inputs, dim=1)
    wanted = normal(K, rows.shape[1], D_OUT, seed=8)
    space = space_of(shape, BASE, inputs)
    begin = torch.zeros(K, D_OUT * D_IN)

    def objective(within, members):
        losses, gradient = within.square().sum(dim=1), 2 * within
        for number, one in enumerate(wanted.split(list(counts), dim=1)):
            found, back = space.outputs(within, number, members)
            away = found - one[members]
            losses = losses + away.square().sum(dim=(1, 2))
            gradient = gradient + back(2 * away)
        return losses, gradient

    found = space.outward(minimise(objective, space.inward(begin), 200, tolerance=1e-9), begin)
    left = wanted - rows @ BASE.transpose(1, 2)
    normal_matrix = rows.transpose(1, 2) @ rows + torch.eye(D_IN)
    exact = torch.linalg.solve(normal_matrix, rows.transpose(1, 2) @ left).transpose(1, 2)
    torch.testing.assert_close(found.view(K, D_OUT, D_IN), exact, atol=2e-3, rtol=0)


def test_queries_that_are_equal_or_zero_are_no_trouble() -> None:
    rows = normal(K, 2, D_IN, seed=3)
    inputs = [torch.cat([rows, rows, torch.zeros(K, 1, D_IN)], dim=1)]
    space, parameters = space_of(_shape(), BASE, inputs), _parameters(_shape())
    expected = _shape().outputs(parameters, BASE, inputs[0])
    torch.testing.assert_close(space.outputs(space.inward(parameters), 0, None)[0], expected)
