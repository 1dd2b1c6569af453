"""Every layout of modules: vectors, limits and files are those of sentence-transformers itself."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import (
    BoW,
    Pooling,
    StaticEmbedding,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tiny_model import build_tiny, open_model
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizerFast,
)

from era_cache.encode import sentence_transformers
from era_cache.encode.model_files import hash_model
from era_cache.encode.token_budget import shortened
from era_cache.errors import EncoderError, InputError
from era_cache.types import Role

WIDTH, POSITIONS = 8, 16
LETTERS = "abcdefghij"
TEXTS = ["a b", "b a c", "d", " ".join(LETTERS * 3), "e f g", "j " * 12]


def bert(folder: Path, read: int | None = None) -> Transformer:
    """A transformer of 16 positions; ``read`` is what its tokenizer claims that it reads."""
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(
        vocab=str(folder / "vocab.txt"), model_max_length=read or POSITIONS
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=POSITIONS,
    )
    BertModel(config).save_pretrained(folder)
    return Transformer(str(folder))


def clip(folder: Path) -> Transformer:
    """The text tower of a model of texts and images, of 16 positions."""
    pytest.importorskip("PIL")  # for its processor of images
    folder.mkdir(parents=True)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<start>", "<end>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    marks = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}
    CLIPTokenizerFast(
        **files, **marks, unk_token="<end>", model_max_length=POSITIONS
    ).save_pretrained(folder)
    images = {"image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    size = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 1}
    size["num_attention_heads"] = 2
    text = {"vocab_size": len(words), "max_position_embeddings": POSITIONS, **size}
    text |= {"bos_token_id": words.index("<start>"), "eos_token_id": words.index("<end>")}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text,
        vision_config={"image_size": 8, "patch_size": 4, **size},
        projection_dim=WIDTH,
    )
    CLIPModel(config).save_pretrained(folder)
    return Transformer(str(folder))


def words_of(folder: Path) -> WordEmbeddings:
    """Vectors of words from a list, of which 16 are read."""
    weights = np.random.default_rng(1).standard_normal((len(LETTERS), WIDTH)).astype("f4")
    tokenizer = WhitespaceTokenizer([*LETTERS], stop_words=set())
    return WordEmbeddings(tokenizer, weights, max_seq_length=POSITIONS)


def static(folder: Path) -> StaticEmbedding:
    weights = np.random.default_rng(0).standard_normal((5, WIDTH)).astype("f4")
    return StaticEmbedding.load(str(build_tiny(folder, weights)))


LAYOUTS: dict[str, Callable[[Path], list[torch.nn.Module]]] = {
    "static": lambda raw: [static(raw)],
    "static-normalized": lambda raw: [static(raw), Normalize()],
    "pooled": lambda raw: [bert(raw), Pooling(WIDTH), Normalize()],
    "dense": lambda raw: [bert(raw), Pooling(WIDTH, "cls"), Dense(WIDTH, 4)],
    "words": lambda raw: [words_of(raw), Pooling(WIDTH)],
    "bag": lambda _raw: [BoW([*LETTERS]), Dense(len(LETTERS), WIDTH)],
    "clip": lambda raw: [clip(raw)],
    "router": lambda raw: [
        Router.for_query_document(
            query_modules=[static(raw / "q")], document_modules=[bert(raw / "d"), Pooling(WIDTH)]
        ),
        Normalize(),
    ],
    "router-of-transformers": lambda raw: [
        Router.for_query_document(
            query_modules=[bert(raw / "q"), Pooling(WIDTH)],
            document_modules=[bert(raw / "d", 9), Pooling(WIDTH, "cls")],
        )
    ],
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Callable[[str], Path]:
    @functools.cache
    def built(name: str) -> Path:
        folder = tmp_path_factory.mktemp("layouts") / name
        modules = LAYOUTS[name](folder / "raw")
        SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
        return folder / "model"

    return built


@pytest.fixture(scope="module")
def opened() -> list[str]:
    """Every path that this process opens from now on."""
    paths: list[str] = []

    def see(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            paths.append(str(arguments[0]))

    sys.addaudithook(see)
    return paths


def encoded(encoder, texts: list[str], role: Role) -> np.ndarray:
    out: list[np.ndarray | None] = [None] * len(texts)
    for rows, vectors in encoder.encode(texts, role):
        for row, vector in zip(rows, vectors, strict=True):
            out[row] = vector
    return np.stack(out)


@pytest.mark.parametrize("name", LAYOUTS)
def test_vectors_and_cut_texts_are_those_of_the_library(layout, name):
    folder = layout(name)
    model = SentenceTransformer(str(folder), device="cpu")
    for role, own in (
        (Role.QUERY, model.encode_query),
        (Role.DOCUMENT, model.encode_document),
    ):
        encoder = open_model(folder, batch_tokens=40)
        np.testing.assert_allclose(encoded(encoder, TEXTS, role), own(TEXTS), atol=1e-6)
        reads = {"static": None, "bag": None, "router": None if role is Role.QUERY else 16}
        limit = reads.get(name.removesuffix("-normalized"), 16)
        if (name, role) == ("router-of-transformers", Role.DOCUMENT):
            limit = 9
        counted = [len(text.split()) + 2 * (name != "words") for text in TEXTS]
        assert encoder.truncated == sum(limit is not None and n > limit for n in counted)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_fingerprint_covers_every_file_that_loading_opens(
    layout, name, tmp_path, opened, monkeypatch
):
    folder = shutil.copytree(layout(name), tmp_path / "model")
    encoder = open_model(folder)
    monkeypatch.setattr(
        sentence_transformers, "hash_model", lambda _: encoder.spec.identity["files"]
    )
    opened.clear()
    for role in Role:
        encoded(encoder, ["a b"], role)
    read = {str(path.relative_to(folder)) for path in map(Path, opened) if folder in path.parents}
    # Memory-mapped by the library, which the hook does not see.
    weights = {str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")}
    assert "modules.json" in read
    assert (read | weights) - {"README.md"} <= set(hash_model(folder))


def test_a_length_is_set_for_the_roles_that_have_one_or_refused_by_role(layout):
    encoder = open_model(layout("router-of-transformers"), max_seq_length=5)
    for role in Role:
        encoded(encoder, ["a b c", "a b c d"], role)
    assert encoder.truncated == 2
    encoder = open_model(layout("words"), max_seq_length=3)
    encoded(encoder, ["a b c", "a b c d"], Role.DOCUMENT)
    assert encoder.truncated == 1
    for name in ("router", "bag", "static"):
        with pytest.raises(InputError, match="has no maximum length to set for a query"):
            encoded(open_model(layout(name), max_seq_length=5), ["a"], Role.QUERY)


@pytest.mark.parametrize("name", ["pooled", "clip"])
def test_a_text_beyond_the_table_of_positions_is_named_with_limit_and_option(layout, name):
    encoder = open_model(layout(name), max_seq_length=512)
    assert encoded(encoder, ["a b"], Role.DOCUMENT).shape == (1, WIDTH)
    with pytest.raises(EncoderError) as caught:
        encoded(encoder, ["a", "b c " * 20], Role.DOCUMENT)
    for words in (
        "document 'b c b c",
        "has 42 tokens",
        "16 positions",
        "--small-max-seq-length 14",
    ):
        assert words in str(caught.value)
    cut = open_model(layout(name), max_seq_length=14)
    assert encoded(cut, ["a", "b c " * 20], Role.DOCUMENT).shape == (2, WIDTH)


@pytest.mark.parametrize("place", ["../outside", "/etc", "document_0/../../outside"])
def test_a_route_outside_the_folder_is_refused(layout, tmp_path, place):
    folder = shutil.copytree(layout("router"), tmp_path / "model")
    path = folder / "router_config.json"
    path.write_text(path.read_text().replace("document_0_Transformer", place))
    with pytest.raises(EncoderError, match="leads outside the model's folder"):
        open_model(folder)


# Long texts


def words(text: str) -> int:
    return len(text.split()) + 2


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [
        ("a " * 20_000, True),
        ("a" * 20_000, False),  # no blank where it could be cut
        (" " * 50_000 + "a " * 9, False),  # nothing but blanks in front
        (" " * 5_000 + "a " * 90_000, True),
        ("a b", False),
    ],
)
def test_only_what_lies_far_behind_the_limit_is_cut_off(text, is_cut):
    kept, lengths = shortened([text, "b"], 8, lambda texts: [*map(words, texts)])
    assert kept[1:] == ["b"]
    assert lengths[1:] == [3]
    assert text.startswith(kept[0])
    assert (kept[0] != text) is is_cut
    assert lengths[0] == words(text) or lengths[0] >= 8 + 64
    assert kept[0].split()[:72] == text.split()[:72]


def test_a_very_long_text_gives_the_vector_that_it_gives_whole(layout):
    folder = layout("pooled")
    text = " ".join(LETTERS * 20_000)
    encoder = open_model(folder)
    model = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(
        encoded(encoder, [text, "a"], Role.DOCUMENT), model.encode([text, "a"]), atol=1e-6
    )
    assert encoder.truncated == 1
