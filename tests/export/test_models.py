"""Exported models, loaded as users load them: the vectors are ours, for every candidate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_case import done, run

import era_cache
from era_cache.cli import embed, export, fit
from era_cache.errors import EraError, FormatError
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.serve.export.modeling_era import EraPair
from era_cache.store.store import Store
from era_cache.types import Role

CANDIDATES = ("small", "aligned", "era-zero", "era", "era-dual", "small+", "bm25+era-dual")
TEXTS = ["how do bees make honey?", "Züge, die schnell sind", "x", "long words " * 40]
CLOSE = 1e-5
HALF = 5e-4
"""Stored vectors are float16."""


def exported(folder: Path, adapter: Path, kind: str, *options: object) -> Path:
    """A folder that era-export wrote."""
    out = folder / f"export-{len(list(folder.glob('export-*')))}"
    done(run(export.main, adapter, "--to", kind, "--out", out, "--device", "cpu", *options))
    return out


def _expected(adapter: Path, candidate: str | None = None) -> np.ndarray:
    encoder = era_cache.QueryEncoder(adapter, candidate=candidate, device="cpu")
    return encoder.encode(TEXTS)


@pytest.fixture(scope="session")
def reverse(toy, models, tmp_path_factory) -> Path:
    """The other pair: the small model's queries for an index of the large one; awkward settings."""
    folder: Path = tmp_path_factory.mktemp("reverse")
    pair = ["--query-model", models["small"], "--doc-model", models["large"]]
    prompts = ["--large-query-template", "Find {instruction}: {text}!"]
    cut = ["--small-max-seq-length", 24, "--small-truncate-dim", 128]
    done(run(embed.main, toy, "--store", folder / "store", *pair, *prompts, *cut))
    words = ["--out", folder / "a", "--labels", 40, "--set", "iterations=2"]
    done(run(fit.main, folder / "store", "toy", *words))
    return folder / "a"


@pytest.fixture(scope="session")
def linear(built_real) -> Path:
    """A fit by the published recipe: one linear map of the large model's queries."""
    out = built_real / "adapters" / "linear"
    words = ["--out", out, "--labels", 40, "--recipe", "paper"]
    done(run(fit.main, built_real / "stores" / "toy", "toy", *words))
    return out


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_every_candidate_gives_our_vectors(built_real, tmp_path, candidate) -> None:
    adapter = built_real / "adapters" / "toy"
    out = exported(tmp_path, adapter, "sentence-transformers", "--candidate", candidate)
    model = era_cache.load_sentence_transformer(out, device="cpu")
    assert np.abs(model.encode_query(TEXTS) - _expected(adapter, candidate)).max() < CLOSE
    store = Store.open(built_real / "stores" / "toy")
    (side,) = [e for e in store.encoders() if e.spec.role is Role.DOCUMENT and e.spec.dim == 256]
    collection = store.collection("toy")
    stored = side.vectors(collection.doc_keys)
    texts = _document_texts(collection)
    assert np.abs(model.encode_document(texts) - stored).max() < HALF


def _document_texts(collection) -> list[str]:
    toy = Path(__file__).parents[2] / "data" / "toy" / "corpus.jsonl"
    read = {one["_id"]: one for one in map(json.loads, toy.read_text("utf-8").splitlines())}
    return [f"{read[i].get('title', '')} {read[i]['text']}".strip() for i in collection.doc_ids]


@pytest.mark.parametrize("candidate", ["era-dual", "aligned", "small", "small+"])
def test_lengths_widths_and_instructions_of_the_other_pair(reverse, tmp_path, candidate) -> None:
    out = exported(tmp_path, reverse, "sentence-transformers", "--candidate", candidate)
    model = era_cache.load_sentence_transformer(out, device="cpu")
    assert np.abs(model.encode_query(TEXTS) - _expected(reverse, candidate)).max() < CLOSE
    assert model.encode_document(TEXTS).shape == (len(TEXTS), 128)
    if candidate in ("era-dual", "aligned"):
        encoder = era_cache.QueryEncoder(reverse, candidate=candidate, device="cpu")
        wanted = encoder.encode(TEXTS, "animals")
        assert np.abs(model.encode_query(TEXTS, prompt="animals") - wanted).max() < CLOSE
        assert np.abs(model.encode_query(TEXTS) - wanted).max() > 1e-3
        told = "--instruction", "animals", "--candidate", candidate
        out = exported(tmp_path, reverse, "sentence-transformers", *told)
        model = era_cache.load_sentence_transformer(out, device="cpu")
        assert np.abs(model.encode_query(TEXTS) - wanted).max() < CLOSE
    else:
        with pytest.raises(ValueError, match="have no place for another"):
            model.encode_query(TEXTS, prompt="animals")


def test_it_needs_nothing_of_ours_and_survives_saving(built_real, tmp_path) -> None:
    adapter = built_real / "adapters" / "toy"
    out = exported(tmp_path, adapter, "sentence-transformers")
    code = """
import sys
sys.modules["era_cache"] = None  # an import of it fails
import numpy
from sentence_transformers import SentenceTransformer
texts = sys.argv[3:]
model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")
model.save(sys.argv[2])
again = SentenceTransformer(sys.argv[2], trust_remote_code=True, device="cpu")
numpy.save(sys.argv[2] + ".npy", [model.encode_query(texts), again.encode_query(texts)])
"""
    words = [sys.executable, "-c", code, out, tmp_path / "saved", *TEXTS]
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PATH": ""}
    subprocess.run(list(map(str, words)), check=True, env=modules, capture_output=True)
    for found in np.load(tmp_path / "saved.npy"):
        assert np.abs(found - _expected(adapter)).max() < CLOSE
    assert len((out / "modeling_era.py").read_text().splitlines()) <= 200


def test_a_linear_map_needs_no_code(linear, tmp_path) -> None:
    from sentence_transformers import SentenceTransformer

    for kind in ("sentence-transformers", "query-encoder"):
        out = exported(tmp_path, linear, kind)
        assert not list(out.rglob("*.py"))
        model = SentenceTransformer(str(out), device="cpu")
        assert np.abs(model.encode_query(TEXTS) - _expected(linear)).max() < CLOSE
    # The query side alone has one prompt, whichever way it is asked.
    assert np.abs(model.encode(TEXTS) - _expected(linear)).max() < CLOSE
    kinds = [one["type"] for one in json.loads((out / "modules.json").read_bytes())]
    names = ["Transformer", "Pooling", "Normalize", "Normalize", "Dense", "Normalize"]
    assert kinds == [f"sentence_transformers.models.{name}" for name in names]
    dense = json.loads((out / "4_Dense" / "config.json").read_bytes())
    assert dense["activation_function"] == "torch.nn.modules.linear.Identity"
    assert dense["bias"] is True  # the published recipe has one
    prompts = json.loads((out / "config_sentence_transformers.json").read_bytes())["prompts"]
    assert prompts == {"query": "Answer: "}


def test_encode_alone_is_refused(linear, built_real, tmp_path) -> None:
    for adapter in (linear, built_real / "adapters" / "toy"):
        out = exported(tmp_path, adapter, "sentence-transformers")
        model = era_cache.load_sentence_transformer(out, device="cpu")
        with pytest.raises(ValueError, match=r"task|encode_query"):
            model.encode(TEXTS)


def test_a_map_folds_into_the_last_dense_layer(toy, models, tmp_path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    whole = SentenceTransformer(str(models["large"]), device="cpu")
    dense = Dense(384, 100, activation_function=torch.nn.Identity())
    SentenceTransformer(modules=[*list(whole)[:2], dense]).save(str(tmp_path / "dense"))
    pair = ["--query-model", models["small"], "--doc-model", tmp_path / "dense"]
    done(run(embed.main, toy, "--store", tmp_path / "store", *pair))
    words = ["--out", tmp_path / "a", "--candidate", "small+", "--set", "iterations=2"]
    words += ["--set", "reference_steps=0", "--set", "memory_steps=0"]
    done(run(fit.main, tmp_path / "store", "toy", *words))
    out = exported(tmp_path, tmp_path / "a", "folded")
    model = SentenceTransformer(str(out), device="cpu")
    assert np.abs(model.encode_query(TEXTS) - _expected(tmp_path / "a")).max() < CLOSE
    assert [type(one).__name__ for one in model][2:] == ["Dense", "Normalize"]
    again = exported(tmp_path, tmp_path / "a", "query-encoder")
    assert [type(one).__name__ for one in SentenceTransformer(str(again))][3:] == [
        "Dense",
        "Normalize",
    ]


def test_what_a_kind_cannot_express_is_said(built_real, linear, tmp_path) -> None:
    adapter, out = built_real / "adapters" / "toy", tmp_path / "out"
    for kind, one, said in (
        ("query-encoder", adapter, "joins two encoders"),
        ("folded", linear, "does not end with a linear Dense"),
    ):
        result = run(export.main, one, "--to", kind, "--out", out)
        assert (result.exit_code, said in result.output) == (1, True), result.output
        assert not out.exists()
    words = ["--to", "sentence-transformers", "--out", out, "--instruction", "x"]
    assert "no prompt has a place" in run(export.main, adapter, *words).output
    for wrong in (["--to", "npy"], ["--to", "npz", "--whole"], ["--to", "npz", "--role", "query"]):
        assert run(export.main, adapter, "--out", out, *wrong).exit_code == 2


def test_a_file_that_is_not_the_exported_one_is_refused(built_real, tmp_path) -> None:
    out = exported(tmp_path, built_real / "adapters" / "toy", "sentence-transformers")
    for name in ("adapter.safetensors", "encoder_0/model.safetensors", "modeling_era.py"):
        path = out / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(FormatError, match="not the file that was exported"):
            era_cache.load_sentence_transformer(out)
        if name != "modeling_era.py":
            with pytest.raises(ValueError, match="not the file that was exported"):
                EraPair.load(str(out))
        path.write_bytes(before)
    (out / "README.md").write_text("a model card that somebody completed")
    era_cache.load_sentence_transformer(out, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "era-adapter"},
        {"files": {"../elsewhere": "0"}},
        {"module": {"stacks": {"s0": {"folder": "../encoder_0", "precision": "float32"}}}},
        {"module": {"stacks": {"s0": {"folder": "encoder_0", "precision": "load"}}}},
        {"kind": "npz"},
        {"encoders": 3},
    ],
)
def test_a_hostile_record_is_refused(built_real, tmp_path, change) -> None:
    out = exported(tmp_path, built_real / "adapters" / "toy", "sentence-transformers")
    record = json.loads((out / "era-export.json").read_bytes())
    (out / "era-export.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(EraError):
        era_cache.load_sentence_transformer(out)


def test_only_an_earlier_export_is_replaced(built_real, tmp_path) -> None:
    adapter, mine = built_real / "adapters" / "toy", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    result = run(export.main, adapter, "--to", "npz", "--out", mine)
    assert result.exit_code == 1
    assert "no earlier export" in result.output
    out = exported(tmp_path, adapter, "npz")
    expected = json.loads((out / "era-export.json").read_bytes())["encoders"]
    assert {name: one["dim"] for name, one in expected.items()} == {
        "large": 384,
        "small": 256,
        "document": 256,
    }
    (out / "notes.txt").write_text("mine")
    done(run(export.main, adapter, "--to", "safetensors", "--out", out))
    names = {path.name for path in out.iterdir()}
    assert "adapter.npz" not in names
    assert {"adapter.safetensors", "notes.txt"} <= names


def test_another_model_than_the_fitted_one_is_refused(built_real, models, tmp_path) -> None:
    adapter, out = built_real / "adapters" / "toy", tmp_path / "out"
    words = ["--to", "sentence-transformers", "--out", out, "--query-model", models["small"]]
    result = run(export.main, adapter, *words)
    assert result.exit_code == 1
    assert "not what the adapter was fitted on" in result.output
    assert not out.exists()


def test_adapters_behind_links_are_read(built_real, tmp_path) -> None:
    link = tmp_path / "current"
    link.symlink_to(built_real / "adapters" / "toy")
    assert load_adapter(link).views == ("small", "large")
    out = exported(tmp_path, link, "npz")
    shutil.rmtree(out)
