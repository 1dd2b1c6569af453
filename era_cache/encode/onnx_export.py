"""Writing torch modules as ONNX graphs, by torch's own exporter.

In: a module and examples of its inputs. Out: a file, with facts of ours in its metadata.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.disk.files import os_errors
from era_cache.errors import EncoderError, InputError
from era_cache.types import Array

if TYPE_CHECKING:
    import torch

__all__ = ["export_graph", "require_onnx"]

_EXTERNAL = 1 << 30
"""Bytes of tensors from which on they lie beside the graph; one file holds 2 GiB at most."""


def require_onnx(what: str) -> Any:
    """The module ``onnxruntime``, where everything that exporting needs is there.

    Raises:
        InputError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{what} needs the package {error.name}: pip install 'era-cache[onnx]'."
        ) from error
    return onnxruntime


def export_graph(
    path: Path,
    module: torch.nn.Module,
    forward: Callable[..., torch.Tensor],
    given: Mapping[str, Array],
    names: Mapping[str, Mapping[int, str]],
    facts: Mapping[str, str],
) -> None:
    """Write a graph with one output, ``vectors``.

    Args:
        path: to write; large tensors lie beside it.
        module: whose parameters they are.
        forward: called with the inputs in a row.
        given: examples of the inputs, by name.
        names: of each input the sides that may have another length, and what they are called.
        facts: kept in the graph's metadata.

    Raises:
        EncoderError: torch cannot export it.
        StoreError: the file cannot be written.
    """
    import torch
    from torch.export import Dim

    class Graph(torch.nn.Module):
        """The module with its inputs in a row, as a graph has them."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *rows: torch.Tensor) -> torch.Tensor:
            return forward(*rows)

    sides = tuple({at: Dim(side, min=1) for at, side in names[one].items()} for one in given)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(rows)) for rows in given.values())
    with _silent():
        try:
            program = torch.onnx.export(
                Graph().eval(),
                tensors,
                dynamo=True,
                input_names=list(given),
                output_names=["vectors"],
                dynamic_shapes=(sides,),
                verbose=False,
            )
        # The exporter follows another library's code: it can fail in any way.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EncoderError(f"torch cannot export {path.name}: {reason[:300]}") from error
    assert program is not None
    program.model.metadata_props.update(facts)
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    with os_errors("writing", path):
        program.save(path, external_data=size > _EXTERNAL)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's notes on other packages off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
