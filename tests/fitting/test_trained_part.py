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


def _initial(shape: Shape) -> torch.Tensor:
    return shape.initial(K, torch.Generator().manual_seed(3))


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
    leaf = _initial(shape).requires_grad_()
    (shape.outputs(leaf, BASE, INPUTS) * normal(K, 7, D_OUT, seed=4)).sum().backward()
    assert bool((leaf.grad.abs().amax(dim=1) > 1e-3).all())
    # Away from the start, none of the parameters is idle.
    leaf = _somewhere(shape).requires_grad_()
    (shape.outputs(leaf, BASE, INPUTS) * normal(K, 7, D_OUT, seed=4)).sum().backward()
    assert bool((leaf.grad != 0).all())


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


@pytest.mark.parametrize("name", ["low-rank", "mlp"])
def test_random_starts_depend_on_the_generator_and_are_the_same_for_all_members(name) -> None:
    shape = _shape(name)
    one, again = _initial(shape), _initial(shape)
    assert torch.equal(one, again)
    assert torch.equal(one[0], one[2])
    assert not torch.equal(one, shape.initial(K, torch.Generator().manual_seed(4)))


def test_the_number_of_members_does_not_change_where_they_start() -> None:
    for name in SHAPES:
        shape = _shape(name)
        alone = shape.initial(1, torch.Generator().manual_seed(3))
        assert torch.equal(alone[0], _initial(shape)[2])


def test_an_unknown_shape_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="No adapter shape 'cube'; there are: linear, low-rank"):
        _shape("cube")
