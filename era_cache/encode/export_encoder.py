"""A sentence-transformers model as a graph for onnxruntime, compared before it is kept.

In: a model. Out: a folder that ``onnx:FOLDER`` opens, and how near its vectors are.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cache.disk.files import make_folder, os_errors, write_bytes
from era_cache.disk.json_files import write_record
from era_cache.encode.encoder import EncoderSettings, in_order
from era_cache.encode.load_model import load_model, quiet_libraries
from era_cache.encode.onnx_encoder import GRAPH, RECORD, TOKENIZER, OnnxEncoder, OnnxRecord
from era_cache.encode.onnx_export import export_graph, require_onnx
from era_cache.encode.sentence_transformers import SentenceTransformerEncoder
from era_cache.encode.served_probe import PROBE_TEXTS
from era_cache.errors import EncoderError, InputError
from era_cache.store.exchange.blocks import cosines
from era_cache.types import Role

if TYPE_CHECKING:
    import torch

    from era_cache.encode.encoder import Encoder

__all__ = ["export_encoder"]

_CLOSE = 0.9999
"""Smallest cosine of a graph's vector to the model's that is believed to be the same model."""
_LONGEST = 512
"""Tokens read where a model does not say how many it can."""


def export_encoder(model: str, out: Path, settings: EncoderSettings) -> float:
    """Write the folder.

    Args:
        model: folder or hub name of a sentence-transformers model.
        out: a folder that is not there, or empty.
        settings: templates and lengths; they become the folder's own.

    Returns:
        The smallest cosine of a vector of the graph to the model's, over texts of many kinds.

    Raises:
        InputError: a package is missing, or ``out`` holds something.
        EncoderError: the model cannot be loaded or exported, or the graph gives other vectors.
        StoreError: the folder cannot be written.
    """
    require_onnx("era-embed onnx")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already. Name a folder that is not.")
    encoder = SentenceTransformerEncoder(model, settings)
    loaded = load_model(encoder.folder, settings)
    make_folder(out.parent)
    with os_errors("writing", out):
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        scratch.chmod(0o755)
    try:
        _write(scratch, encoder, loaded, settings)
        worst = _compared(encoder, OnnxEncoder(str(scratch), EncoderSettings()))
        if not worst >= _CLOSE:
            raise EncoderError(
                f"{model}: the graph gives other vectors than the model (smallest cosine "
                f"{worst:.5f}). Nothing was exported."
            )
        with os_errors("writing", out):
            if out.is_dir():
                out.rmdir()
            scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return worst


def _write(
    folder: Path, encoder: SentenceTransformerEncoder, loaded: Any, settings: EncoderSettings
) -> None:
    import torch

    first = loaded[0]
    tokenizer = getattr(getattr(first, "tokenizer", None), "backend_tokenizer", None)
    if tokenizer is None or hasattr(first, "sub_modules"):
        raise EncoderError(
            f"{encoder.spec.name}: only models of one transformer with a fast tokenizer can be "
            "exported; static models are as fast without."
        )
    limit = settings.max_seq_length or getattr(loaded, "max_seq_length", None) or _LONGEST
    with quiet_libraries():
        features = first.preprocess(list(PROBE_TEXTS[:3])) if hasattr(first, "preprocess") else None
        features = features or first.tokenize(list(PROBE_TEXTS[:3]))
    given = {k: v.numpy() for k, v in features.items() if isinstance(v, torch.Tensor)}
    given = {k: v for k, v in given.items() if v.ndim == 2}

    def forward(*rows: torch.Tensor) -> torch.Tensor:
        said = dict(zip(given, rows, strict=True))
        for module in loaded:
            said = module(said)
        vectors: torch.Tensor = said["sentence_embedding"]
        return vectors

    sides = {name: {0: "texts", 1: "tokens"} for name in given}
    export_graph(folder / GRAPH, loaded, forward, given, sides, {"era_cache.kind": "encoder"})
    tokenizer.no_truncation()
    tokenizer.no_padding()
    write_bytes(folder / TOKENIZER, tokenizer.to_str().encode())
    width = forward(*(torch.from_numpy(rows) for rows in given.values())).shape[1]
    record = OnnxRecord(
        max_seq_length=int(limit),
        dim=int(width),
        pad=int(getattr(first.tokenizer, "pad_token_id", 0) or 0),
        query_template=encoder.spec.templates[Role.QUERY],
        document_template=encoder.spec.templates[Role.DOCUMENT],
        made_from=encoder.spec.space,
    )
    write_record(folder / RECORD, record)


def _compared(encoder: Encoder, graph: Encoder) -> float:
    texts = [*PROBE_TEXTS, " ".join(PROBE_TEXTS) * 20]
    both = (in_order(one, texts, Role.DOCUMENT) for one in (encoder, graph))
    return float(cosines(*both).min())
