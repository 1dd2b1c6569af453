"""The dimension of a model, found without loading it."""

from __future__ import annotations

import json

import pytest
from tiny_model import build_tiny, open_model

from era_cache.encode.model_files import model_width
from era_cache.types import Role


def module(folder, number, kind, **config):
    (folder / f"{number}").mkdir(parents=True)
    (folder / f"{number}" / "config.json").write_text(json.dumps(config))
    return {"idx": number, "name": "x", "path": f"{number}", "type": f"st.models.{kind}"}


def model_of(folder, *modules):
    parts = [module(folder, n, kind, **config) for n, (kind, config) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(parts))
    return folder


POOLED = {
    "word_embedding_dimension": 6,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
}


@pytest.mark.parametrize(
    ("modules", "width"),
    [
        ([("Transformer", {}), ("Pooling", POOLED), ("Normalize", {})], 6),
        ([("Pooling", POOLED | {"pooling_mode_max_tokens": True})], 12),
        ([("Pooling", {"embedding_dimension": 6, "pooling_mode": "mean"})], 6),
        ([("Pooling", {"embedding_dimension": 6, "pooling_mode": ["mean", "max"]})], 12),
        ([("Pooling", POOLED), ("Dense", {"in_features": 6, "out_features": 4})], 4),
        ([("Pooling", POOLED), ("Unheard", {})], None),
        ([("Transformer", {})], None),
        ([("Pooling", {})], None),
    ],
)
def test_the_width_is_that_of_the_last_module_that_changes_it(tmp_path, modules, width):
    folder = model_of(tmp_path / "m", *modules)
    assert model_width(folder) == width
    assert model_width(folder, 5) == (None if width is None else min(width, 5))


def test_the_width_agrees_with_what_a_model_gives(tmp_path):
    folder = build_tiny(tmp_path / "tiny")
    [(_, vectors)] = open_model(folder).encode(["a b"], Role.DOCUMENT)
    assert model_width(folder) == vectors.shape[1] == 4
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    assert model_width(folder) is None
    assert model_width(tmp_path / "none") is None
