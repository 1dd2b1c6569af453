"""Open an exported sentence-transformers folder without running code that lies in it.

In: a folder that era-export wrote, perhaps from a stranger. Out: a model; every file is compared
with the folder's record first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from era_cache.disk.files import os_errors
from era_cache.encode.load_model import quiet_libraries
from era_cache.errors import EncoderError, FormatError
from era_cache.serve.export.options import MODEL_KINDS
from era_cache.serve.export.record import ExportRecord, check_files, read_export

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["load_sentence_transformer", "open_model"]

_PRECISIONS = ("float32", "float16", "bfloat16")


def load_sentence_transformer(
    folder: str | Path, *, device: str | None = None
) -> SentenceTransformer:
    """Open an export as a sentence-transformers model; no code of the folder runs.

    Args:
        folder: that ``era-export --to sentence-transformers`` (or ``query-encoder``, ``folded``)
            wrote.
        device: torch device name; None chooses.

    Raises:
        FormatError: not such a folder, damaged, or a file is another than was exported.
        EncoderError: the models in it cannot be loaded.
    """
    path = Path(folder)
    record = read_export(path)
    if record.kind not in MODEL_KINDS:
        raise FormatError(f"{path}: an export to {record.kind} is no model to load.")
    check_files(path, record)
    return open_model(path, device)


def open_model(folder: Path, device: str | None = None) -> SentenceTransformer:
    """The same without comparing files, for a folder that was just written."""
    record = read_export(folder)
    _check_module(folder, record)
    try:
        with quiet_libraries():
            return _opened(folder, record, device)
    # Loading runs other libraries' code over arbitrary files: it can fail in any way.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EncoderError(f"{folder}: the exported model cannot be loaded: {reason}") from error


def _opened(folder: Path, record: ExportRecord, device: str | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    if not record.module:
        return SentenceTransformer(
            str(folder), device=device, local_files_only=True, trust_remote_code=False
        )
    from era_cache.serve.export.modeling_era import EraPair

    with os_errors("reading", folder):
        config = json.loads((folder / "config_sentence_transformers.json").read_bytes())
    return SentenceTransformer(
        modules=[EraPair.load(str(folder))],
        device=device,
        prompts=config["prompts"],
        similarity_fn_name="cosine",
    )


def _check_module(folder: Path, record: ExportRecord) -> None:
    """Refuse settings that would lead the module outside of the folder."""
    stacks = record.module.get("stacks", {})
    for stack in stacks.values() if isinstance(stacks, dict) else [stacks]:
        place = stack.get("folder") if isinstance(stack, dict) else None
        inside = any(name.startswith(f"{place}/") for name in record.files)
        if not isinstance(place, str) or "/" in place or not inside:
            raise FormatError(f"{folder}: damaged: an encoder lies outside the folder.")
        if stack.get("precision") not in _PRECISIONS:
            raise FormatError(f"{folder}: damaged: unknown precision.")
