"""8-bit weights: near the model's vectors, an encoder of its own, refused where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import open_model

from era_cache.cli import embed, export, fit
from era_cache.encode import load_model
from era_cache.encode.encoder import Encoder, in_order
from era_cache.errors import EncoderError
from era_cache.types import FloatArray, Role

TEXTS = ["what is dense retrieval", "a note on cats and dogs", "the court held that it may not"]


def vectors(encoder: Encoder) -> FloatArray:
    found = np.asarray(in_order(encoder, TEXTS, Role.QUERY), dtype=np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_vectors_are_near_those_of_the_model_and_of_an_encoder_of_their_own(models) -> None:
    pytest.importorskip("bitsandbytes")
    exact = open_model(models["large"], device="cpu")
    eight = open_model(models["large"], device="cpu", precision="8bit")
    assert exact.spec.fingerprint(Role.QUERY) != eight.spec.fingerprint(Role.QUERY)
    kinds = {type(module).__name__ for module in eight._load().modules()}
    assert "Linear8bitLt" in kinds
    assert "Linear" not in kinds
    cosines = (vectors(exact) * vectors(eight)).sum(axis=1)
    assert 0.99 < cosines.min() < 0.999999
    assert eight.provenance()["precision"] == "8bit"


def test_a_missing_library_is_named_with_the_way_to_get_it(models, monkeypatch) -> None:
    monkeypatch.setattr(load_model, "find_spec", lambda _: None)
    with pytest.raises(EncoderError, match=r"bitsandbytes and accelerate: pip install .*\[8bit\]"):
        vectors(open_model(models["large"], device="cpu", precision="8bit"))


def test_an_export_of_the_whole_model_is_refused(models, toy, tmp_path) -> None:
    pytest.importorskip("bitsandbytes")
    store, adapter = tmp_path / "store", tmp_path / "adapter"

    def run(command, *words):
        return CliRunner().invoke(command, [str(word) for word in words])

    pair = ["--query-model", models["large"], "--doc-model", models["small"]]
    done = run(embed.main, toy, "--store", store, *pair, "--precision", "8bit", "--device", "cpu")
    assert done.exit_code == 0, done.output
    done = run(fit.main, store, "toy", "--out", adapter, "--set", "iterations=1")
    assert done.exit_code == 0, done.output
    words = ["--to", "sentence-transformers", "--out", tmp_path / "out", "--store", store]
    refused = run(export.main, adapter, *words)
    assert refused.exit_code == 1
    assert "8-bit weights" in refused.output
    assert run(export.main, adapter, "--to", "npz", "--out", tmp_path / "npz").exit_code == 0
