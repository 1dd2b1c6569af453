"""An adapter as an ONNX graph, alone or behind its encoders; checked by onnxruntime.

In: an adapter, and for the whole query encoder its models. Out: a file. The graph is torch's own
export of the module that also travels with sentence-transformers folders.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.disk.files import os_errors
from era_cache.encode.load_model import quiet_libraries
from era_cache.errors import EncoderError, InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_folder import tensors_of
from era_cache.serve.export.arrays import sample_views, table_settings
from era_cache.serve.export.record import ExportRecord
from era_cache.serve.export.sentence_transformer import Source
from era_cache.types import Array, FloatArray

if TYPE_CHECKING:
    import torch

    from era_cache.serve.export.modeling_era import EraMap, EraPair

__all__ = ["CLOSE", "era_map", "write_graph", "write_whole_graph"]

CLOSE = 1e-5
"""Largest difference of a value that counts as the same vector."""
_CHECKED = 1000
_SAMPLE = ("a", "how do I sort a list?", "Bücher über Käfer " * 12)
_EXTERNAL = 1 << 30
"""Bytes of tensors from which on they lie beside the graph; one file holds 2 GiB at most."""


def _require() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--to onnx needs the package {error.name}: pip install 'era-cache[onnx]'."
        ) from error
    return onnxruntime


def era_map(adapter: Adapter) -> EraMap:
    """The adapter as the torch module that exports run."""
    import torch

    from era_cache.serve.export.modeling_era import EraMap

    tensors = {name: torch.from_numpy(t) for name, t in tensors_of(adapter).items()}
    return EraMap(list(adapter.views), table_settings(adapter), tensors).eval()


def write_graph(out: Path, adapter: Adapter, record: ExportRecord) -> None:
    """Write ``adapter.onnx``: one (queries, d) float32 input for each view, one output ``vectors``.

    Raises:
        InputError: a package is missing, or the graph's vectors are not the adapter's.
    """
    runtime = _require()
    views = sample_views(adapter, _CHECKED)
    module = era_map(adapter)
    few = {view: rows[:3] for view, rows in views.items()}
    path = out / "adapter.onnx"
    _write(path, module, few, record)
    session = runtime.InferenceSession(path)
    for rows in (_CHECKED, 1):
        given = {view: vectors[:rows] for view, vectors in views.items()}
        _compare(path, session.run(None, given)[0], adapter.apply(given))


def write_whole_graph(
    out: Path,
    adapter: Adapter,
    views: Mapping[str, Source],
    instruction: str,
    record: ExportRecord,
) -> None:
    """Write ``query-encoder.onnx``: from tokens to vectors; and each view's tokenizer beside it.

    Its inputs are those of the encoders' own tokenizers, named ``VIEW.NAME``.

    Raises:
        InputError: a package is missing, or torch cannot export the models.
    """
    import torch

    from era_cache.serve.export.modeling_era import EraPair

    runtime = _require()
    settings = ("precision", "max_seq_length")
    with quiet_libraries():
        stacks = {
            view: EraPair.stack(one.folder, {key: one.identity[key] for key in settings})
            for view, one in views.items()
        }
    parts = {
        view: {
            "stack": view,
            "template": source.template,
            "instruction": instruction if "{instruction}" in source.template else "",
            "truncate_dim": source.identity["truncate_dim"],
        }
        for view, source in views.items()
    }
    module: EraPair = EraPair({"views": parts, "document": {}}, stacks, era_map(adapter)).eval()
    path = out / "query-encoder.onnx"
    cut = _tokens(module, _SAMPLE)
    _write(path, module, cut, record)
    session = runtime.InferenceSession(path)
    for texts in (_SAMPLE, _SAMPLE[1:2], _SAMPLE[::-1] * 2):
        given = _tokens(module, texts)
        with torch.no_grad():
            expected = module(_restored(given))["sentence_embedding"].numpy()
        _compare(path, session.run(None, given)[0], expected)
    for view, source in views.items():
        tokenizer = source.folder / "tokenizer.json"
        if tokenizer.is_file():
            with os_errors("copying", tokenizer):
                (out / f"tokenizer-{view}.json").write_bytes(tokenizer.read_bytes())


def _tokens(module: EraPair, texts: Sequence[str]) -> dict[str, Array]:
    import torch

    features = module.preprocess(list(texts), task="query")
    return {
        key.replace(":", "."): value.numpy()
        for key, value in features.items()
        if isinstance(value, torch.Tensor)
    }


def _restored(given: Mapping[str, Array]) -> dict[str, Any]:
    import torch

    tokens = {key.replace(".", ":", 1): torch.from_numpy(rows) for key, rows in given.items()}
    return {"task": "query", **tokens}


def _write(
    path: Path, module: EraMap | EraPair, given: Mapping[str, Array], record: ExportRecord
) -> None:
    import msgspec
    import torch
    from torch.export import Dim

    names = list(given)
    whole = any("." in name for name in names)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(rows)) for rows in given.values())
    dimensions = tuple(_dimensions(name, rows, Dim) for name, rows in given.items())

    class Graph(torch.nn.Module):
        """The module with its inputs in a row, as a graph has them."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *rows: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = (
                self.module(
                    {"task": "query"}
                    | {n.replace(".", ":", 1): r for n, r in zip(names, rows, strict=True)}
                )["sentence_embedding"]
                if whole
                else self.module(dict(zip(names, rows, strict=True)))
            )
            return found

    with _silent():
        try:
            program = torch.onnx.export(
                Graph().eval(),
                tensors,
                dynamo=True,
                input_names=names,
                output_names=["vectors"],
                dynamic_shapes=(dimensions,),
                verbose=False,
            )
        # The exporter follows another library's code: it can fail in any way.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EncoderError(
                f"torch cannot export {path.name}: {reason[:300]} --to onnx without --whole "
                "exports the adapter alone."
            ) from error
    assert program is not None
    said = msgspec.json.encode(record.encoders).decode()
    program.model.metadata_props["era_cache.encoders"] = said
    program.model.metadata_props["era_cache.candidate"] = record.candidate
    if record.fusion is not None:
        program.model.metadata_props["era_cache.fusion"] = json.dumps(record.fusion)
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    with os_errors("writing", path):
        program.save(path, external_data=size > _EXTERNAL)


def _dimensions(name: str, rows: Array, dim: Any) -> dict[int, Any]:
    """Which sides of an input may have another length: texts, and tokens where there are some."""
    kind = name.rpartition(".")[2]
    if rows.ndim == 2 and kind != name:
        return {0: dim("queries", min=1), 1: dim(f"{name.partition('.')[0]}_length", min=1)}
    if kind == "input_ids":
        return {0: dim(f"{name.partition('.')[0]}_tokens", min=1)}
    return {0: dim("queries", min=1)}


def _compare(path: Path, found: FloatArray, expected: FloatArray) -> None:
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= CLOSE:
        raise InputError(
            f"{path.name}: onnxruntime gives other vectors than the adapter (largest difference "
            f"{difference:.1e}, {CLOSE:g} allowed). Nothing was exported."
        )


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
