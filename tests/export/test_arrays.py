"""Graphs, arrays and vectors: what runs them gives the adapter's vectors, for any adapter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_case import done, run

from era_cache.cli import export
from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter, Hidden, References
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.candidates import DEFAULT
from era_cache.serve.export.arrays import sample_views, table_settings, write_npz, write_safetensors
from era_cache.serve.export.onnx_graph import era_map, write_graph
from era_cache.serve.export.record import Expected, ExportRecord
from era_cache.store.store import Store
from era_cache.types import Role

CLOSE = 1e-5
ROWS = 1000
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def _random(parts: str) -> Adapter:
    """An adapter with everything that one can have."""
    import torch

    made = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, generator=made), dim=-1)

    tables = tuple(
        References(view, rows(30, width), rows(30, 16), 0.05, 0.3, steps, contrast, pull)
        for view, width, steps, contrast, pull in (
            ("large", 24, 1, True, 0.0),
            ("small", 16, 3, False, 0.1),
        )
    )
    return Adapter(
        ("small", "large"),
        rows(16, 40),
        bias=rows(16) if "bias" in parts else None,
        hidden=Hidden(rows(8, 40), rows(8), rows(16, 8)) if "hidden" in parts else None,
        references=tables if "references" in parts else (),
    )


RANDOM = ("bias", "bias hidden", "references", "bias hidden references")


@pytest.fixture(params=[*DEFAULT, *RANDOM])
def adapter(request, built_adapter) -> Adapter:
    name = request.param
    return load_adapter(built_adapter, name) if name in DEFAULT else _random(name)


def test_the_module_is_the_adapter(adapter) -> None:
    import torch

    views = sample_views(adapter, ROWS)
    with torch.no_grad():
        found = era_map(adapter)({view: torch.from_numpy(rows) for view, rows in views.items()})
    assert np.abs(found.numpy() - adapter.apply(views)).max() < CLOSE


def test_a_graph_is_the_adapter(adapter, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    expected = Expected(name="L", fingerprint="f" * 64, template="{text}", dim=24)
    record = ExportRecord(kind="onnx", candidate="x", encoders={"large": expected})
    write_graph(tmp_path, adapter, record)
    session = runtime.InferenceSession(tmp_path / "adapter.onnx")
    views = sample_views(adapter, ROWS, seed=1)
    for rows in (ROWS, 1, 7):
        given = {view: 3 * vectors[:rows] for view, vectors in views.items()}
        (found,) = session.run(None, given)
        assert np.abs(found - adapter.apply(given)).max() < CLOSE
    said = {one.key: one.value for one in onnx.load(tmp_path / "adapter.onnx").metadata_props}
    assert json.loads(said["era_cache.encoders"])["large"]["template"] == "{text}"


@pytest.mark.parametrize("name", [*DEFAULT, "references"])
def test_the_documented_function_applies_an_npz(name, built_adapter, tmp_path) -> None:
    adapter = load_adapter(built_adapter, name) if name in DEFAULT else _random(name)
    write_npz(tmp_path, adapter)
    code = PAGE.read_text("utf-8").partition("```python\nimport json")[2].partition("\nwith np.")[0]
    page: dict = {}
    exec(compile("import json" + code, "page.md", "exec"), page)
    with np.load(tmp_path / "adapter.npz", allow_pickle=False) as arrays:
        views = sample_views(adapter, ROWS)
        found = page["apply"](arrays, views)
        assert np.abs(found - adapter.apply(views)).max() < CLOSE
        test = {view: arrays[f"test.{view}"] for view in adapter.views}
        assert np.abs(adapter.apply(test) - arrays["test.out"]).max() < CLOSE


def test_tensors_and_json_say_all(adapter, tmp_path) -> None:
    from safetensors.numpy import load_file

    write_safetensors(tmp_path, adapter)
    settings = json.loads((tmp_path / "adapter.json").read_bytes())
    assert (settings["format"], settings["version"]) == ("era-map", 1)
    assert settings["references"] == table_settings(adapter)
    assert tuple(settings["views"]) == adapter.views
    tensors = load_file(tmp_path / "adapter.safetensors")
    assert ("bias" in tensors) == (adapter.bias is not None)
    np.testing.assert_array_equal(tensors["weight"], adapter.weight.numpy())
    vectors = json.loads((tmp_path / "test-vector.json").read_bytes())
    given = {view: np.asarray(vectors[view], dtype=np.float32) for view in adapter.views}
    assert np.abs(adapter.apply(given) - np.asarray(vectors["out"])).max() < CLOSE


def test_a_graph_with_other_vectors_is_not_kept(built_adapter, tmp_path, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    adapter = load_adapter(built_adapter, "era")
    other = adapter._replace(weight=adapter.weight + 0.01)
    monkeypatch.setattr(
        "era_cache.serve.export.onnx_graph.era_map", lambda _adapter: era_map(other)
    )
    record = ExportRecord(kind="onnx", candidate="era", encoders={})
    with pytest.raises(InputError, match="other vectors than the adapter"):
        write_graph(tmp_path, adapter, record)


def test_whole_query_encoders_are_graphs(built_real, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    tokenizers = pytest.importorskip("tokenizers")
    import era_cache

    adapter, out = built_real / "adapters" / "toy", tmp_path / "out"
    done(run(export.main, adapter, "--to", "onnx", "--whole", "--out", out))
    session = runtime.InferenceSession(out / "query-encoder.onnx")
    texts = ["how do bees make honey?", "x", "fast trains " * 30]
    read = tokenizers.Tokenizer.from_file(str(out / "tokenizer-large.json"))
    read.enable_padding()
    read.enable_truncation(256)
    large = read.encode_batch([f"Answer: {text}" for text in texts])
    given = {
        "large.input_ids": np.array([one.ids for one in large]),
        "large.attention_mask": np.array([one.attention_mask for one in large]),
        "large.token_type_ids": np.array([one.type_ids for one in large]),
    }
    read = tokenizers.Tokenizer.from_file(str(out / "tokenizer-small.json"))
    small = [read.encode(text, add_special_tokens=False).ids for text in texts]
    given["small.input_ids"] = np.concatenate(small).astype(np.int64)
    given["small.offsets"] = np.cumsum([0, *map(len, small[:-1])])
    (found,) = session.run(None, given)
    expected = era_cache.QueryEncoder(adapter, device="cpu").encode(texts)
    assert np.abs(found - expected).max() < CLOSE


@pytest.mark.parametrize("kind", ["faiss", "flexindex", "npy", "parquet"])
def test_documents_of_a_store_in_its_order(kind, built_hash_store, built_adapter, tmp_path) -> None:
    out = tmp_path / "out"
    done(run(export.main, built_adapter, "--to", kind, "--store", built_hash_store, "--out", out))
    ids, rows = _read(kind, out)
    store = Store.open(built_hash_store)
    collection = store.collection("toy")
    (side,) = [e for e in store.encoders() if e.spec.role is Role.DOCUMENT and e.spec.dim == 16]
    stored = side.vectors(collection.doc_keys)
    assert ids == list(collection.doc_ids)
    np.testing.assert_allclose(rows, stored / np.linalg.norm(stored, axis=1)[:, None], atol=1e-6)


def test_queries_behind_an_adapter(built_hash_store, built_adapter, tmp_path) -> None:
    out = tmp_path / "out"
    words = ["--to", "npy", "--role", "query", "--candidate", "era-dual", "--out", out]
    done(run(export.main, built_adapter, *words, "--store", built_hash_store))
    ids, rows = _read("npy", out)
    store = Store.open(built_hash_store)
    collection = store.collection("toy")
    views = {
        view: next(
            e for e in store.encoders() if e.spec.role is Role.QUERY and e.spec.dim == dim
        ).vectors(collection.query_keys)
        for view, dim in (("large", 32), ("small", 16))
    }
    expected = load_adapter(built_adapter, "era-dual").apply(views)
    assert ids == list(collection.query_ids)
    assert np.abs(rows - expected).max() < CLOSE


def _read(kind: str, out: Path) -> tuple[list[str], np.ndarray]:
    """Ids and rows, read as their users read them."""
    if kind == "faiss":
        import faiss

        index = faiss.read_index(str(out / "vectors.faiss"))
        return (out / "ids.txt").read_text().splitlines(), index.reconstruct_n(0, index.ntotal)
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(out / "vectors.parquet")
        return table["id"].to_pylist(), np.array(table["vector"].to_pylist(), dtype=np.float32)
    if kind == "npy":
        return (out / "ids.txt").read_text().splitlines(), np.load(out / "vectors.npy")
    npids = pytest.importorskip("npids")
    meta = json.loads((out / "pt_meta.json").read_bytes())
    assert (meta["type"], meta["format"]) == ("dense_index", "flex")
    shape = (meta["doc_count"], meta["vec_size"])
    rows = np.memmap(out / "vecs.f4", dtype=np.float32, mode="r", shape=shape)
    with npids.Lookup(str(out / "docnos.npids")) as lookup:
        return [lookup.fwd[i] for i in range(len(lookup))], np.array(rows)
