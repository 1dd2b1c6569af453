"""Linear layers by oneDNN give what torch's own give, and leave alone what they are not for."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import linear

from era_cache.encode import fast_linear
from era_cache.encode.fast_linear import hasten

works = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture
def _another_maker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fast_linear, "mkl_is_slow", lambda: True)
    fast_linear._gains.cache_clear()
    yield
    fast_linear._gains.cache_clear()


@works
@pytest.mark.usefixtures("_another_maker")
class TestWhereItGains:
    @pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 5, 24), (3, 300, 24), (0, 24), (24,)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_a_layer_gives_what_torch_gives(self, shape: tuple[int, ...], bias: bool) -> None:
        layer = torch.nn.Linear(24, 17, bias=bias)
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        wanted = linear(rows.double(), layer.weight.double(), layer.bias.double() if bias else None)
        assert hasten(layer) == 1
        with torch.inference_mode():
            found = layer(rows)
        assert found.shape == wanted.shape
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("stride", [2, 3])
    def test_rows_need_not_lie_side_by_side(self, stride: int) -> None:
        layer = torch.nn.Linear(16, 8)
        wide = torch.randn(9, 16 * stride)
        rows, turned = wide[:, ::stride], torch.randn(16, 9).T
        hasten(layer)
        with torch.inference_mode():
            for given in (rows, turned, torch.randn(1, 16).expand(5, 16)):
                torch.testing.assert_close(
                    layer(given), linear(given, layer.weight, layer.bias), atol=1e-5, rtol=0
                )

    def test_gradients_still_flow(self) -> None:
        layer = torch.nn.Linear(6, 4)
        hasten(layer)
        layer(torch.ones(3, 6)).sum().backward()
        assert layer.weight.grad is not None
        torch.testing.assert_close(layer.weight.grad, torch.full((4, 6), 3.0))

    def test_parameters_and_copies_are_those_of_the_model(self) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        assert hasten(model) == 2
        assert hasten(model) == 0, "a second time there is nothing to do"
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        rows = torch.randn(5, 6)
        with torch.inference_mode():
            assert torch.equal(copy.deepcopy(model)(rows), model(rows))

    def test_other_precisions_and_other_layers_stay(self) -> None:
        class Own(torch.nn.Linear):
            pass

        model = torch.nn.Sequential(torch.nn.Linear(6, 4).bfloat16(), Own(4, 4))
        assert hasten(model) == 0

    def test_a_layer_that_changes_its_precision_later_is_left_to_torch(self) -> None:
        layer = torch.nn.Linear(6, 4)
        hasten(layer)
        with torch.inference_mode():
            assert layer.bfloat16()(torch.ones(2, 6).bfloat16()).dtype is torch.bfloat16

    @pytest.mark.parametrize("wrong", ["missing", "rounded"])
    def test_a_library_that_does_something_else_is_not_used(
        self, monkeypatch: pytest.MonkeyPatch, wrong: str
    ) -> None:
        def replaced(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            if wrong == "missing":
                raise AttributeError
            return linear(rows.bfloat16().float(), weight.bfloat16().float(), bias)

        monkeypatch.setattr(fast_linear, "_by_onednn", replaced)
        assert hasten(torch.nn.Linear(6, 4)) == 0


def test_a_processor_of_the_library_s_maker_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_linear, "mkl_is_slow", lambda: False)
    fast_linear._gains.cache_clear()
    try:
        assert hasten(torch.nn.Linear(6, 4)) == 0
    finally:
        fast_linear._gains.cache_clear()
