"""``era-embed inspect`` and ``era-embed onnx``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_case import done, run

from benchmarks.mair_snapshot import write_mair
from era_cache.cli import embed
from era_cache.encode.encoder import EncoderSettings, open_encoder
from era_cache.errors import EncoderError, InputError
from era_cache.store.exchange.blocks import cosines
from era_cache.types import Role


def test_a_collection_is_looked_at_in_the_terminal_and_on_a_page(toy, tmp_path) -> None:
    shown = done(run(embed.main, "inspect", toy, "--out", tmp_path / "look")).stdout
    assert "20 queries, 27 judgements" in shown
    assert "█" in shown
    page = (tmp_path / "look" / "toy.html").read_text("utf-8")
    assert "<svg" in page
    assert "27 judgements" in page
    plain = json.loads(done(run(embed.main, "inspect", toy, "--json")).stdout)
    assert plain["documents"] == 30
    assert plain["splits"][0]["grades"] == {"0": 2, "1": 6, "2": 19}
    assert not list(tmp_path.glob("**/store.json"))


def test_many_collections_are_looked_at_one_after_another(tmp_path) -> None:
    write_mair(tmp_path / "mair", ["SciFact", "SciDocs"])
    words = ["inspect", "mair:academic", "--read", f"folder={tmp_path / 'mair'}"]
    found = json.loads(done(run(embed.main, *words, "--json")).stdout)
    assert [one["name"] for one in found["collections"]] == ["SciDocs", "SciFact"]


def test_a_misspelt_form_is_named() -> None:
    result = run(embed.main, "inspct", "x", "--store", "s")
    assert result.exit_code == 2
    assert "No collection 'inspct' here" in result.output
    assert "Did you mean 'inspect'" in result.output


@pytest.mark.encoders
def test_what_a_model_would_cut_off_is_said(toy, models) -> None:
    words = ["inspect", toy, "--doc-model", models["large"], "--query-model", models["small"]]
    found = json.loads(done(run(embed.main, *words, "--json")).stdout)["truncated"]
    assert [(one["role"], one["limit"]) for one in found] == [("query", None), ("document", 256)]
    assert found[1]["cut_percent"] == 0
    assert found[1]["longest"] < 256


# A graph for onnxruntime


@pytest.fixture(scope="module")
def graph(models, tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime", reason="pip install 'era-cache[onnx]'")
    out = tmp_path_factory.mktemp("onnx") / "minilm"
    words = ["onnx", models["large"], "--out", out, "--max-seq-length", 64, "--json"]
    found = json.loads(done(run(embed.main, *words)).stdout)
    assert found["smallest_cosine"] > 0.999999
    return out


@pytest.mark.encoders
def test_a_graph_encodes_as_the_model_does(graph, models) -> None:
    texts = [
        "tap drips",
        "a b c " * 300,
        "Bücher",
        *(f"number {n} " * (n % 9 + 1) for n in range(60)),
    ]
    one = open_encoder(f"onnx:{graph}", EncoderSettings())
    other = open_encoder(str(models["large"]), EncoderSettings(max_seq_length=64, device="cpu"))
    vectors = []
    for encoder in (one, other):
        found = np.zeros((len(texts), 384), np.float32)
        for rows, batch in encoder.encode(texts, Role.QUERY):
            found[rows] = batch
        vectors.append(found)
    assert cosines(*vectors).min() > 0.999999
    assert one.truncated == other.truncated == 1
    assert one.width == 384
    assert one.spec.fingerprint(Role.QUERY) != other.spec.fingerprint(Role.QUERY)
    assert one.count_tokens(texts, Role.QUERY) == other.count_tokens(texts, Role.QUERY)
    short = open_encoder(f"onnx:{graph}", EncoderSettings(truncate_dim=7, max_seq_length=9))
    (_, batch), *_ = short.encode(texts, Role.QUERY)
    assert batch.shape[1] == 7


@pytest.mark.encoders
def test_a_store_is_filled_and_searched_without_the_model_itself(
    graph, models, toy, tmp_path
) -> None:
    pair = ["--query-model", f"onnx:{graph}", "--doc-model", models["small"]]
    found = json.loads(
        done(run(embed.main, toy, "--store", tmp_path / "s", *pair, "--json")).stdout
    )
    assert sum(part["encoded"] for part in found["parts"]) == 100
    again = json.loads(
        done(run(embed.main, toy, "--store", tmp_path / "s", *pair, "--json")).stdout
    )
    assert not any(part["encoded"] for part in again["parts"])


@pytest.mark.encoders
def test_folders_that_are_no_graphs(graph, models, tmp_path) -> None:
    def copied(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in graph.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    with pytest.raises(EncoderError, match=r"no era-onnx\.json"):
        open_encoder(f"onnx:{tmp_path}", EncoderSettings())
    with pytest.raises(InputError, match="reads 64 tokens at most"):
        open_encoder(f"onnx:{graph}", EncoderSettings(max_seq_length=100))
    lacking = copied("lacking")
    (lacking / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"incomplete: no tokenizer\.json"):
        open_encoder(f"onnx:{lacking}", EncoderSettings())
    for name, content, message in (
        ("model.onnx", b"no graph", "cannot be loaded"),
        ("tokenizer.json", b"{", "cannot be loaded"),
    ):
        damaged = copied(f"damaged-{name}")
        (damaged / name).write_bytes(content)
        encoder = open_encoder(f"onnx:{damaged}", EncoderSettings())
        with pytest.raises(EncoderError, match=message):
            list(encoder.encode(["a"], Role.QUERY))
    changed = copied("changed")
    encoder = open_encoder(f"onnx:{changed}", EncoderSettings())
    (changed / "era-onnx.json").write_text((changed / "era-onnx.json").read_text() + "\n")
    with pytest.raises(EncoderError, match="changed after this run began"):
        list(encoder.encode(["a"], Role.QUERY))
    record = copied("record")
    (record / "era-onnx.json").write_text('{"format": "era-onnx-encoder", "version": 9}')
    with pytest.raises(EncoderError, match="newer"):
        open_encoder(f"onnx:{record}", EncoderSettings())
    result = run(embed.main, "onnx", models["small"], "--out", tmp_path / "static")
    assert result.exit_code == 1
    assert "static models are as fast without" in result.output
    result = run(embed.main, "onnx", models["large"], "--out", graph)
    assert "is there already" in result.output
    assert list(graph.parent.iterdir()) == [graph]
