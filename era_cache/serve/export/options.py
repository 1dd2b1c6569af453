"""What an adapter can be exported to, and how; nothing heavy is imported here.

In: nothing. Out: names and settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from era_cache.types import Where

__all__ = ["KINDS", "MODEL_KINDS", "VECTOR_KINDS", "ExportOptions"]

KINDS = {
    "sentence-transformers": "a model: encode_query is ours, encode_document the small model's",
    "query-encoder": "its query side alone, of modules that other servers read, too",
    "folded": "the same, with the map inside of the model's last Dense layer",
    "onnx": "a graph of the adapter; --whole: from tokens to vectors",
    "npz": "NumPy arrays",
    "safetensors": "tensors and JSON for other languages, with a test vector",
    "faiss": "an index of the documents (--store)",
    "flexindex": "PyTerrier's (--store)",
    "npy": "documents, or with --role query adapted queries (--store)",
    "parquet": "the same with ids in one file (--store)",
}
"""What an adapter can be exported to, and in words what that is."""
MODEL_KINDS = ("sentence-transformers", "query-encoder", "folded")
VECTOR_KINDS = ("faiss", "flexindex", "npy", "parquet")


@dataclass(frozen=True)
class ExportOptions:
    """How an adapter is exported."""

    kind: str
    candidate: str | None = None
    """Name of a candidate; None is the chosen one."""
    query_model: str | None = None
    """The large model, a folder or hub name; None is where it was."""
    doc_model: str | None = None
    """The small model, likewise."""
    instruction: str = ""
    """Written into prompts that have a place for one."""
    whole: bool = False
    """Of ``onnx``: the encoders, too."""
    store: Where | None = None
    """Of vectors."""
    collection: str | None = None
    """Of vectors: where the adapter was fitted on several."""
    role: str = "document"
    """Of vectors: whose."""
    device: str | None = None
    check: bool = True
    """Try the result: load it, and compare vectors of some texts."""
