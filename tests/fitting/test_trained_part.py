"""Shapes: each starts as the base map, and its adapter does what training saw."""

from __future__ import annotations

import pytest
import torch
from planted import normal

from era_cache.errors import InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.trained_part import SHAPES, Shape, shape_of

D_OUT, D_IN, K = 4, 6, 3


def _shape(name: str, rank: int = 2) -> Shape:
    return shape_of(name, D_OUT, D_IN, rank=rank, hidden=5)


def _initial(shape: Shape, count: int = K, seed: int = 3) -> torch.Tensor:
    return shape.initial(count, torch.Generator().manual_seed(seed))


def _somewhere(shape: Shape) -> torch.Tensor:
    start = _initial(shape)
    return start + 0.5 * normal(*start.shape, seed=8)


BASE, INPUTS = normal(K, D_OUT, D_IN, seed=1), unit(normal(K, 7, D_IN, seed=2))


@pytest.mark.parametrize("name", SHAPES)
def test_the_start_is_exactly_the_base_map(name) -> None:
    shape = _shape(name)
    parameters = _initial(shape)
    expected = INPUTS @ BASE.transpose(1, 2)
    assert torch.equal(shape.outputs(parameters, BASE, INPUTS), expected)
    adapter = shape.adapter(("large",), parameters[1], BASE[1])
    assert torch.equal(adapter.weight, BASE[1])
    torch.testing.assert_close(adapter.apply({"large": INPUTS[1]}), unit(expected[1]))


@pytest.mark.parametrize("name", SHAPES)
def test_the_adapter_does_what_training_saw(name) -> None:
    shape = _shape(name)
    parameters = _somewhere(shape)
    outputs = unit(shape.outputs(parameters, BASE, INPUTS))
    for member in range(K):
        adapter = shape.adapter(("large",), parameters[member], BASE[member])
        mapped = adapter.apply({"large": INPUTS[member]})
        torch.testing.assert_close(mapped, outputs[member])
        assert not torch.allclose(mapped, unit(INPUTS[member] @ BASE[member].T), atol=1e-2)


@pytest.mark.parametrize("name", SHAPES)
def test_outputs_of_a_member_are_its_own(name) -> None:
    shape = _shape(name)
    parameters = _somewhere(shape)
    whole = shape.outputs(parameters, BASE, INPUTS)
    alone = shape.outputs(parameters[1:2], BASE[1:2], INPUTS[1:2])
    torch.testing.assert_close(whole[1:2], alone)


@pytest.mark.parametrize("name", SHAPES)
def test_a_gradient_reaches_the_parameters_from_the_start(name) -> None:
    shape = _shape(name)
    for place, reached in (
        (_initial(shape), lambda gradient: gradient.abs().amax(dim=1) > 1e-3),
        (_somewhere(shape), lambda gradient: gradient != 0),  # here none of them is idle
    ):
        leaf = place.requires_grad_()
        (shape.outputs(leaf, BASE, INPUTS) * normal(K, 7, D_OUT, seed=4)).sum().backward()
        assert bool(reached(leaf.grad).all())


@pytest.mark.parametrize(("asked", "rank"), [(1, 1), (2, 2), (99, D_OUT)])
def test_a_low_rank_departure_has_the_rank_asked_for(asked, rank) -> None:
    shape = _shape("low-rank", asked)
    adapter = shape.adapter(("large",), _somewhere(shape)[0], BASE[0])
    departure = (adapter.weight - BASE[0]).double()
    assert int(torch.linalg.matrix_rank(departure, rtol=1e-4)) == rank


def test_a_linear_shape_adds_its_parameters_to_the_base() -> None:
    shape = shape_of("linear", 2, 2, rank=1, hidden=1)
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    adapter = shape.adapter(("small",), torch.tensor([10.0, 20.0, 30.0, 40.0]), base)
    assert adapter.weight.tolist() == [[11.0, 22.0], [33.0, 44.0]]
    assert adapter.views == ("small",)


@pytest.mark.parametrize("name", SHAPES)
def test_starts_depend_on_the_generator_and_are_the_same_for_all_members(name) -> None:
    shape = _shape(name)
    one = _initial(shape)
    for same in (*one, *_initial(shape, count=1)):
        assert torch.equal(one[0], same)
    assert torch.equal(one, _initial(shape, seed=4)) == (name == "linear")


def test_an_unknown_shape_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="No adapter shape 'cube'; there are: linear, low-rank"):
        _shape("cube")
