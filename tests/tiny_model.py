"""A real sentence-transformers model that is small enough to build in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.sentence_transformers import SentenceTransformerEncoder

WORDS = ["[UNK]", "a", "b", "c", "d"]


def open_model(folder: Path | str, **settings: Any) -> SentenceTransformerEncoder:
    """A sentence-transformers model, with the settings of ``EncoderSettings``."""
    return SentenceTransformerEncoder(str(folder), EncoderSettings(**settings))


def build_tiny(folder: Path, weights: np.ndarray | None = None) -> Path:
    """A model of the five WORDS: a text's vector is the mean of its words' rows.

    Args:
        folder: to make.
        weights: (5, d) float32; None is the numbers from 0 in 4 columns.
    """
    from safetensors.numpy import save_file

    if weights is None:
        weights = np.arange(20, dtype="f4").reshape(5, 4)
    folder.mkdir(parents=True)
    module = {
        "idx": 0,
        "name": "0",
        "path": "",
        "type": "sentence_transformers.models.StaticEmbedding",
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {w: n for n, w in enumerate(WORDS)},
            "unk_token": "[UNK]",
        },
    }
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    save_file({"embedding.weight": weights}, folder / "model.safetensors")
    return folder
