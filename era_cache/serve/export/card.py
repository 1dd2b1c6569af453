"""The README of an exported folder: a model card.

In: the adapter's own README and evaluation, and what was exported. Out: Markdown.
"""

from __future__ import annotations

import re
from pathlib import Path

from era_cache.disk.files import os_errors
from era_cache.disk.shown import clean
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.candidates import described, unfused_name
from era_cache.serve.export.options import MODEL_KINDS
from era_cache.serve.export.record import ExportRecord

__all__ = ["export_card"]

_FRONT = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [retrieval, query-adapter, era-cache]
---
"""
_USE = {
    "sentence-transformers": """    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer("this folder"{trust})
    queries = model.encode_query(["a query"])         # ask the index with these
    documents = model.encode_document(["a document"])  # the vectors that the index holds

`encode` alone is refused: queries and documents have different encoders here.""",
    "query-encoder": """    from sentence_transformers import SentenceTransformer
    queries = SentenceTransformer("this folder").encode_query(["a query"])

Servers of sentence-transformers models with a Dense layer serve it as it is. It encodes queries
only; the index holds vectors of {document}.""",
    "onnx": """    import onnxruntime
    session = onnxruntime.InferenceSession("adapter.onnx")
    (vectors,) = session.run(None, {{{inputs}}})

Inputs are float32 rows as the encoders give them, outputs unit rows.""",
    "npz": "docs/export.md of ERA Cache has the function that applies it.",
    "safetensors": """`adapter.json` says what is computed from `adapter.safetensors`
(docs/format.md of ERA Cache); `test-vector.json` holds inputs and outputs to check by.""",
}


def export_card(folder: Path, config: AdapterConfig, adapter: Adapter, record: ExportRecord) -> str:
    """Describe an export.

    Args:
        folder: the adapter.
        config: of it.
        adapter: the candidate that is exported.
        record: of the export.
    """
    document = record.encoders.get("document")
    base = sorted({one.name for one in record.encoders.values()})
    collections = ", ".join(one.collection.name for one in config.fitted_on()) or "arrays"
    inputs = ", ".join(f'"{view}": {view}_vectors' for view in adapter.views)
    use = _USE.get("query-encoder" if record.kind == "folded" else record.kind, "")
    use = use.format(
        trust=", trust_remote_code=True" if record.module else "",
        document=document.name if document else "the small encoder",
        inputs=inputs,
    )
    if record.module:
        use += (
            "\n\nThe folder's one module of code is `modeling_era.py`. Without remote code:\n"
            '`era_cache.load_sentence_transformer("this folder")`.'
        )
    made = "Fitted on arrays: which encoders made them is not recorded."
    if base:
        names = " and ".join(map(clean, base))
        made = f"Made of {names}; their licences apply to the files that are theirs."
    parts = [
        _FRONT if record.kind in MODEL_KINDS else "",
        f"# Query adapter for {clean(collections)}: {clean(record.candidate)}\n",
        f"{described(record.candidate)}. {made}\n",
        use and f"{use}\n",
        _encoders(record),
        _fusion(record),
        _measured(folder),
    ]
    return "\n".join(part for part in parts if part)


def _encoders(record: ExportRecord) -> str:
    if not record.encoders:
        return ""
    rows = [
        f"| {name} | {clean(one.name)} | `{clean(one.template)}` | {one.dim} | "
        f"`{one.fingerprint[:12]}` |"
        for name, one in record.encoders.items()
    ]
    head = "| reads | encoder | prompt | dimensions | fingerprint |\n|---|---|---|---|---|\n"
    return (
        head + "\n".join(rows) + "\n\nVectors of other encoders, or of texts in other prompts, "
        "give wrong results.\n"
    )


def _fusion(record: ExportRecord) -> str:
    if record.fusion is None:
        return ""
    run, weight = record.fusion["run"], record.fusion["weight"]
    return (
        f"The chosen candidate is joined with **{run}**: rank by `cosine + {weight:g} * "
        f"{run}_score`. Where {run} is not at hand, export {unfused_name(record.candidate)}.\n"
    )


def _measured(folder: Path) -> str:
    """The adapter's table of test queries where it was evaluated, else its held-out values."""
    path = folder / "evaluation" / "table.md"
    with os_errors("reading", path):
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        _, _, table = text.partition("\n## Candidates\n")
        if table:
            return "## Measured\n" + re.split(r"\n##", table)[0]
        path = folder / "README.md"
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return "## Held-out values\n\n" + "\n".join(lines) + "\n" if lines else ""
