"""An adapter as an ONNX graph, alone or behind its encoders; checked by onnxruntime.

In: an adapter, and for the whole query encoder its models. Out: a file. The graph is torch's own
export of the module that also travels with sentence-transformers folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.disk.files import os_errors
from era_cache.encode.load_model import quiet_libraries
from era_cache.encode.onnx_export import export_graph, require_onnx
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
    runtime = require_onnx("--to onnx")
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

    runtime = require_onnx("--to onnx")
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

    names = list(given)
    whole = any("." in name for name in names)

    def forward(*rows: torch.Tensor) -> torch.Tensor:
        if not whole:
            mapped: torch.Tensor = module(dict(zip(names, rows, strict=True)))
            return mapped
        tokens = {n.replace(".", ":", 1): r for n, r in zip(names, rows, strict=True)}
        found: torch.Tensor = module({"task": "query"} | tokens)["sentence_embedding"]
        return found

    facts = {
        "era_cache.encoders": msgspec.json.encode(record.encoders).decode(),
        "era_cache.candidate": record.candidate,
    }
    if record.fusion is not None:
        facts["era_cache.fusion"] = json.dumps(record.fusion)
    sides = {name: _sides(name, rows) for name, rows in given.items()}
    try:
        export_graph(path, module, forward, given, sides, facts)
    except EncoderError as error:
        raise EncoderError(
            f"{error} --to onnx without --whole exports the adapter alone."
        ) from error


def _sides(name: str, rows: Array) -> dict[int, str]:
    """Which sides of an input may have another length: texts, and tokens where there are some."""
    kind = name.rpartition(".")[2]
    if rows.ndim == 2 and kind != name:
        return {0: "queries", 1: f"{name.partition('.')[0]}_length"}
    if kind == "input_ids":
        return {0: f"{name.partition('.')[0]}_tokens"}
    return {0: "queries"}


def _compare(path: Path, found: FloatArray, expected: FloatArray) -> None:
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= CLOSE:
        raise InputError(
            f"{path.name}: onnxruntime gives other vectors than the adapter (largest difference "
            f"{difference:.1e}, {CLOSE:g} allowed). Nothing was exported."
        )
