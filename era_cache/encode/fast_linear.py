"""Linear layers of a model by oneDNN, where the processor gains by it.

In: a loaded model. Out: the same model, whose linear layers multiply by another library. torch
takes MKL for them, which uses half of what processors of other makers than its own can do, and
three quarters of a transformer's time are such products (``python -m benchmarks.embed``). Vectors
differ in their last bits, as between any two machines.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from era_cache.rank.processor import mkl_is_slow

if TYPE_CHECKING:
    import torch

__all__ = ["hasten"]


def hasten(model: Any) -> int:
    """Let the float32 linear layers of a model on the processor multiply by oneDNN.

    Layers of other classes, on other devices or of other precisions stay as they are, and so does
    every layer that is asked for gradients.

    Args:
        model: a torch module. It is changed; its parameters are not.

    Returns:
        The number of layers that were changed, 0 where the processor would gain nothing.
    """
    if not _gains():
        return 0
    import torch

    changed = _class()
    layers = [
        layer
        for layer in model.modules()
        if type(layer) is torch.nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype is torch.float32
    ]
    for layer in layers:
        layer.__class__ = changed
    return len(layers)


@functools.cache
def _class() -> type[torch.nn.Linear]:
    import torch

    class Linear(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            usable = (
                input.device.type == "cpu" and input.dtype is self.weight.dtype is torch.float32
            )
            if torch.is_grad_enabled() or not usable or not input.numel():
                return super().forward(input)
            return _by_onednn(input, self.weight, self.bias)

    return Linear


def _by_onednn(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What torch's own compiler puts in the place of a linear layer."""
    import torch

    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found


@functools.cache
def _gains() -> bool:
    """Whether MKL is slow on this processor, and oneDNN does what it should."""
    import torch

    if not mkl_is_slow() or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(3, 64, generator=generator) for _ in range(2))
    # A setting of torch or of oneDNN may let products round to bfloat16, which has no 2**-12.
    rows[0] = weight[0] = 1 + 2**-12
    try:
        with torch.inference_mode():
            found = _by_onednn(rows, weight, rows[0, :3])
    except (AttributeError, RuntimeError, TypeError):  # a release without it, or of another shape
        return False
    exact = rows.double() @ weight.double().T + rows[0, :3].double()
    return bool((found.double() - exact).abs().max() < 1e-4)
