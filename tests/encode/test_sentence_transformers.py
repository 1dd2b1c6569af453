"""Encoders: the fingerprint changes exactly when a vector could, and real models are not bent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import build_tiny, open_model

from era_cache.encode import sentence_transformers, token_budget
from era_cache.errors import EncoderError, InputError
from era_cache.store.encoder_record import render
from era_cache.types import Role


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A sentence-transformers model of five words and four dimensions."""
    return build_tiny(tmp_path / "tiny")


def fingerprints(folder, **options):
    spec = open_model(folder, **options).spec
    return spec.fingerprint(Role.QUERY), spec.fingerprint(Role.DOCUMENT)


# Fingerprints


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "float16"},
        {"precision": "bfloat16"},
        {"max_seq_length": 7},
        {"truncate_dim": 2},
    ],
)
def test_each_setting_changes_both_fingerprints(tiny, options):
    before, after = fingerprints(tiny), fingerprints(tiny, **options)
    assert len({*before, *after}) == 4


@pytest.mark.parametrize("role", [0, 1])
def test_a_template_changes_the_fingerprint_of_its_own_role_only(tiny, role):
    before = fingerprints(tiny)
    option = ("query_template", "document_template")[role]
    after = fingerprints(tiny, **{option: "x {text}"})
    assert before[role] != after[role]
    assert before[1 - role] == after[1 - role]


@pytest.mark.parametrize("name", ["modules.json", "tokenizer.json", "model.safetensors"])
def test_one_changed_byte_of_a_file_changes_both_fingerprints(tiny, name):
    before = fingerprints(tiny)
    content = bytearray((tiny / name).read_bytes())
    content[-1] ^= 1
    (tiny / name).write_bytes(content)
    assert not set(before) & set(fingerprints(tiny))


@pytest.mark.parametrize(
    "name",
    [
        "config_extra.json",
        "1_Pooling/config.json",
        "vocab.txt",
        "model-2.safetensors",
        "modeling_custom.py",
        "sub/pytorch_model.bin",
        "sentencepiece.model",
        "licences.json",
    ],
)
def test_a_new_file_that_loading_could_read_changes_both_fingerprints(tiny, name):
    before = fingerprints(tiny)
    (tiny / name).parent.mkdir(exist_ok=True)
    (tiny / name).write_text("{}")
    assert not set(before) & set(fingerprints(tiny))


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        "LICENCE",
        "NOTICE",
        "onnx/model.onnx",
        "openvino/openvino_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        ".gitattributes",
        "model.gguf",
        "images/plot.png",
        "pytorch_model.bin",
        ".cache/huggingface/x.lock",
        ".cache/huggingface/download/a.metadata",
        ".git/index",
        "eval/scores.csv",
        "Thumbs.db",
        "@eaDir/model.safetensors",
        "1_Pooling/._config.json",
    ],
)
def test_a_file_that_no_vector_depends_on_changes_nothing(tiny, name):
    before = fingerprints(tiny)
    (tiny / name).parent.mkdir(exist_ok=True, parents=True)
    (tiny / name).write_text("anything")
    assert fingerprints(tiny) == before


def test_path_name_device_and_batch_size_change_nothing(tiny, tmp_path):
    elsewhere = shutil.copytree(tiny, tmp_path / "else where" / "other name")
    assert fingerprints(elsewhere, device="cpu", batch_tokens=17) == fingerprints(tiny)
    assert open_model(elsewhere).spec.name == "other-name"


def test_the_models_own_prompts_become_templates_and_an_argument_wins(tiny):
    config = {"prompts": {"query": "Q: ", "passage": "P: ", "other": "O: "}}
    (tiny / "config_sentence_transformers.json").write_text(json.dumps(config))
    templates = open_model(tiny).spec.templates
    assert templates == {Role.QUERY: "Q: {text}", Role.DOCUMENT: "{text}"}
    given_one = open_model(tiny, query_template="{text}").spec.templates
    assert given_one == {Role.QUERY: "{text}", Role.DOCUMENT: "{text}"}


@pytest.mark.encoders
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "config",
    [
        {"prompts": {"query": "ask: ", "document": "read: "}},
        {"prompts": {"query": "ask: ", "passage": "read: "}},
        {"prompts": {"query": "ask: ", "corpus": "read: "}},
        {"prompts": {"other": "other: "}, "default_prompt_name": "other"},
        {},
    ],
)
def test_prompts_are_those_of_encode_query_and_encode_document(models, tmp_path, config):
    from sentence_transformers import SentenceTransformer

    folder = shutil.copytree(models["small"], tmp_path / "model")
    path = folder / "config_sentence_transformers.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **config}))
    model = SentenceTransformer(str(folder), device="cpu")
    encoder = open_model(folder)
    for role, encode in ((Role.QUERY, model.encode_query), (Role.DOCUMENT, model.encode_document)):
        rendered = render(encoder.spec.templates[role], ["a leaking tap"], None)
        ((_, vectors),) = encoder.encode(rendered, role)
        np.testing.assert_allclose(vectors, encode(["a leaking tap"]), atol=1e-6)


@pytest.mark.encoders
@pytest.mark.usefixtures("offline")
def test_a_model_that_changes_after_it_was_hashed_is_refused(models, tmp_path):
    folder = shutil.copytree(models["small"], tmp_path / "model")
    encoder = open_model(folder)
    (folder / "extra.json").write_text("{}")
    with pytest.raises(EncoderError, match="changed after this run began"):
        list(encoder.encode(["text"], Role.DOCUMENT))


def vectors_of(encoder, texts, role=Role.QUERY):
    found = {}
    for rows, vectors in encoder.encode(texts, role):
        assert vectors.dtype == np.float32
        assert len(rows) == len(vectors)
        for row, vector in zip(rows, vectors, strict=True):
            assert row not in found
            found[row] = vector
    return np.array([found[row] for row in range(len(texts))])


# Batches


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 120), st.integers(1, 9))
def test_batches_hold_each_row_once_within_the_budget(lengths, budget, most):
    batches = list(token_budget.batches(lengths, len(lengths), budget, most))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[row] for row in batch) * len(batch)
        assert len(batch) == 1 or padded <= budget
        assert len(batch) <= most


@given(st.integers(0, 50), st.integers(1, 9))
def test_batches_without_lengths_hold_each_row_once_in_order(count, most):
    batches = list(token_budget.batches(None, count, 1, most))
    assert [row for batch in batches for row in batch] == list(range(count))
    assert all(1 <= len(batch) <= most for batch in batches)


def test_the_longest_texts_come_first():
    assert list(token_budget.batches([1, 9, 5, 9], 4, 18, 1024)) == [[1, 3], [2, 0]]


# Models that cannot be used


@pytest.mark.parametrize(
    ("model", "message"),
    [("/absent/model", "no such folder"), ("./absent", "no such folder"), ("a/b/c", "no such fol")],
)
def test_a_missing_model_folder_is_an_encoder_error(model, message):
    with pytest.raises(EncoderError, match=message):
        open_model(model)


def test_a_file_an_empty_folder_and_a_folder_of_other_things_are_encoder_errors(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EncoderError, match="this is a file"):
        open_model(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="no model in this folder"):
        open_model(tmp_path / "empty")
    (tmp_path / "empty" / "weights.safetensors").write_text("x")
    with pytest.raises(EncoderError, match=r"neither modules\.json nor config\.json"):
        open_model(tmp_path / "empty")


def test_an_unknown_precision_is_an_input_error(tiny):
    with pytest.raises(InputError, match="Precision 'int8': expected one of float32"):
        open_model(tiny, precision="int8")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"prompts": []}', '{"prompts": {"query": "{text}"}}', "[" * 99_999]
)
def test_a_broken_prompt_file_is_an_encoder_error(tiny, content):
    (tiny / "config_sentence_transformers.json").write_text(content)
    if content == '{"prompts": []}':  # nothing in it, and nothing wrong
        assert open_model(tiny).spec.templates[Role.QUERY] == "{text}"
        return
    with pytest.raises(EncoderError, match=r"cannot be read|holds a placeholder|not a sentence"):
        open_model(tiny)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", "{"),
        ("modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "no.such.Module"}]'),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", None),
        ("model.safetensors", "not tensors"),
        ("model.safetensors", None),
    ],
)
def test_a_model_that_does_not_load_is_an_encoder_error(tiny, name, content):
    (tiny / name).unlink() if content is None else (tiny / name).write_text(content)
    encoder = open_model(tiny, device="cpu")
    with pytest.raises(EncoderError, match=r"tiny.*(cannot be loaded|no tokenizer)"):
        list(encoder.encode(["a"], Role.QUERY))


@pytest.mark.usefixtures("offline")
def test_a_tiny_model_gives_the_means_of_its_rows(tiny):
    encoder = open_model(tiny, device="cpu")
    found = vectors_of(encoder, ["a b", "d", "a"])
    np.testing.assert_array_equal(found, [[6, 7, 8, 9], [16, 17, 18, 19], [4, 5, 6, 7]])
    truncated = open_model(tiny, device="cpu", truncate_dim=2)
    np.testing.assert_array_equal(vectors_of(truncated, ["d"]), [[16, 17]])
    assert encoder.provenance()["device"] == "cpu"


def test_a_width_that_would_cut_nothing_off_is_refused_before_the_model_is_loaded(tiny):
    assert open_model(tiny, truncate_dim=4).width == 4
    with pytest.raises(InputError, match=r"of 4 dimensions.* truncate-dim of 5 would cut nothing"):
        open_model(tiny, truncate_dim=5)


@pytest.mark.usefixtures("offline")
def test_a_width_that_no_file_tells_is_refused_with_the_first_vectors(tiny, monkeypatch):
    monkeypatch.setattr(sentence_transformers, "model_width", lambda *_: None)
    with pytest.raises(InputError, match="of 4 dimensions"):
        list(open_model(tiny, truncate_dim=5, device="cpu").encode(["a"], Role.QUERY))


@pytest.mark.usefixtures("offline")
def test_a_length_that_the_model_has_no_use_for_is_refused(tiny):
    with pytest.raises(InputError, match=r"no maximum length to set.*max-seq-length says \(7\)"):
        list(open_model(tiny, max_seq_length=7, device="cpu").encode(["a"], Role.QUERY))


@pytest.mark.usefixtures("offline")
def test_out_of_memory_halves_the_batch_and_loses_no_row(tiny, monkeypatch):
    encoder = open_model(tiny, device="cpu")
    table = encoder._load()[0].embedding
    sizes, original = [], table.forward

    def small_device(tokens, starts):
        sizes.append(len(starts))
        if len(starts) > 2:
            raise RuntimeError("CUDA out of memory")
        return original(tokens, starts)

    monkeypatch.setattr(table, "forward", small_device)
    texts = ["a", "b", "c", "d", "a b"]
    expected = [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19], [6, 7, 8, 9]]
    np.testing.assert_array_equal(vectors_of(encoder, texts), expected)
    assert sizes == [5, 2, 3, 1, 2]


@pytest.mark.usefixtures("offline")
def test_another_failure_of_the_model_is_an_encoder_error(tiny, monkeypatch):
    encoder = open_model(tiny, device="cpu")

    def fail(*args, **options):
        raise RuntimeError("bad kernel")

    monkeypatch.setattr(encoder._load()[0].embedding, "forward", fail)
    with pytest.raises(EncoderError, match="tiny failed on a batch of 2 texts: bad kernel"):
        list(encoder.encode(["a", "b"], Role.DOCUMENT))


# Real encoders

TEXTS = [
    "short",
    "a text of middling length about taps",
    "x",
    "word " * 400,
    "größer: 中文",
    "short",
]


@pytest.mark.encoders
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("which", ["small", "large"])
def test_vectors_are_those_of_sentence_transformers_whatever_the_batches(models, which):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models[which]), device="cpu", local_files_only=True)
    template = "query: {text}"
    rendered = render(template, TEXTS, None)
    expected = np.array([model.encode(text, show_progress_bar=False) for text in rendered])
    for budget in (1, 8192):
        encoder = open_model(
            str(models[which]), device="cpu", batch_tokens=budget, query_template=template
        )
        found = vectors_of(encoder, render(encoder.spec.templates[Role.QUERY], TEXTS, None))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert encoder.truncated == (1 if which == "large" else 0)


@pytest.mark.encoders
@pytest.mark.usefixtures("offline")
def test_a_shorter_limit_of_tokens_cuts_and_counts(models):
    encoder = open_model(models["large"], device="cpu", max_seq_length=5)
    found = vectors_of(encoder, ["one two three", "one two three four", "one two three five"])
    assert encoder.truncated == 2
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def _folder(path, **files):
    for name, text in {"config.json": "{}", "modules.json": "[]", **files}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_files_behind_links_are_part_of_the_model(tmp_path):
    _folder(tmp_path / "a", **{"1_Pooling/config.json": "mean"})
    _folder(tmp_path / "elsewhere", **{"1_Pooling/config.json": "mean"})
    linked = _folder(tmp_path / "b")
    (linked / "1_Pooling").symlink_to(tmp_path / "elsewhere" / "1_Pooling")
    spaces = [open_model(tmp_path / name).spec.space for name in ("a", "b")]
    assert spaces[0] == spaces[1]
    (tmp_path / "elsewhere" / "1_Pooling" / "config.json").write_text("cls")
    assert open_model(linked).spec.space != spaces[0]


@pytest.mark.parametrize("place", [".pool", "eval", "onnx", "openvino", "@eaDir", "a/.b"])
def test_files_of_a_module_count_whatever_its_folder_is_called(tmp_path, place) -> None:
    modules = json.dumps([{"idx": 0, "path": ""}, {"idx": 1, "path": place}])
    folder = _folder(tmp_path / "m", **{"modules.json": modules, f"{place}/config.json": "mean"})
    before = fingerprints(folder)
    (folder / place / "config.json").write_text("cls")
    assert not set(before) & set(fingerprints(folder))
    counted = fingerprints(folder)
    (folder / place / "README.md").write_text("anything")
    (folder / place / ".DS_Store").write_text("anything")
    assert fingerprints(folder) == counted


@pytest.mark.parametrize("place", ["../other", "/other", "a/../../other"])
def test_a_module_outside_the_folder_is_refused(tmp_path, place) -> None:
    folder = _folder(tmp_path / "m", **{"modules.json": json.dumps([{"path": place}])})
    with pytest.raises(EncoderError, match=r"its modules name .* leads outside"):
        open_model(folder)


@pytest.mark.parametrize(
    "name", ["tokenizer_name_or_path", "processor_name", r"\u0074okenizer_name_or_path"]
)
def test_a_tokenizer_from_elsewhere_is_refused(tmp_path, name) -> None:
    config = f'{{"{name}": "../tokenizer", "deeper": {{"{name}": null}}}}'
    folder = _folder(tmp_path / "m", **{"sentence_bert_config.json": config})
    with pytest.raises(EncoderError, match=r"sentence_bert_config\.json: takes its tokenizer"):
        open_model(folder)


@pytest.mark.parametrize("name", ["subfolder", "gguf_file", "cache_dir"])
def test_an_argument_of_loading_that_leads_to_other_files_is_refused(tmp_path, name) -> None:
    config = f'{{"model_args": {{"{name}": "../other"}}}}'
    folder = _folder(tmp_path / "m", **{"sentence_bert_config.json": config})
    with pytest.raises(EncoderError, match=rf"takes files from elsewhere \({name}: '../other'\)"):
        open_model(folder)


@pytest.mark.parametrize("asked", [r'"\u0075se_safetensors": false', '"variant": "fp16"'])
def test_pickled_weights_count_where_a_configuration_may_ask_for_them(tmp_path, asked) -> None:
    config = f'{{"x": [1], "model_args": {{{asked}}}}}'
    folder = _folder(
        tmp_path / "m",
        **{"sentence_bert_config.json": config, "model.safetensors": "a", "pytorch_model.bin": "b"},
    )
    before = fingerprints(folder)
    (folder / "pytorch_model.bin").write_text("c")
    assert not set(before) & set(fingerprints(folder))


def test_a_model_folder_that_contains_itself_is_refused(tmp_path):
    folder = _folder(tmp_path / "loop")
    (folder / "again").symlink_to(folder)
    with pytest.raises(EncoderError, match="too many files or folders"):
        open_model(folder)


def test_weights_that_lie_elsewhere_are_refused(tmp_path):
    folder = _folder(tmp_path / "peft", **{"adapter_config.json": "{}"})
    with pytest.raises(EncoderError, match=r"adapter_config\.json"):
        open_model(folder)


def test_pickled_weights_count_unless_safetensors_replace_them(tmp_path):
    spaces = []
    for name, files in {
        "bin": {"pytorch_model.bin": "1"},
        "other bin": {"pytorch_model.bin": "2"},
        "variant": {"pytorch_model.bin": "1", "model.fp16.safetensors": "x"},
        "other variant": {"pytorch_model.bin": "2", "model.fp16.safetensors": "x"},
        "both": {"pytorch_model.bin": "1", "model.safetensors": "x"},
        "other both": {"pytorch_model.bin": "2", "model.safetensors": "x"},
    }.items():
        folder = _folder(tmp_path / name, **files)
        spaces.append(open_model(folder).spec.space)
    assert len(set(spaces[:4])) == 4
    assert spaces[4] == spaces[5]


# What a vector depends on besides its text


@pytest.mark.encoders
def test_how_much_a_vector_depends_on_its_batch_is_measured_and_kept(models) -> None:
    texts = [f"word{n} " * (1 + n % 40) for n in range(300)]
    encoder = open_model(models["large"], device="cpu")
    rows = [row for found, _ in encoder.encode(texts[:20], Role.QUERY) for row in found]
    assert len(rows) == 20
    assert "neighbour_difference" not in encoder.provenance()
    list(encoder.encode(texts, Role.QUERY))
    measured = encoder.provenance()["neighbour_difference"]
    assert 0 <= measured < 1e-5
    half = open_model(models["large"], device="cpu", precision="bfloat16")
    list(half.encode(texts, Role.QUERY))
    assert half.provenance()["neighbour_difference"] > measured


@pytest.mark.encoders
def test_batches_of_one_length_pad_nothing(models, monkeypatch) -> None:
    texts = [" ".join(["word"] * (1 + n % 5)) for n in range(60)]
    encoder = open_model(models["large"], device="cpu", deterministic=True)
    plain = open_model(models["large"], device="cpu")
    assert encoder.spec.fingerprint(Role.QUERY) == plain.spec.fingerprint(Role.QUERY)
    batches = [[texts[row] for row in rows] for rows, _ in encoder.encode(texts, Role.QUERY)]
    assert {len({len(text.split()) for text in batch}) for batch in batches} == {1}
    assert sum(map(len, batches)) == 60
    assert encoder.provenance()["one_length"]


@pytest.mark.encoders
def test_attention_is_another_encoder_with_the_same_vectors(models) -> None:
    found = []
    for attention in ("eager", "sdpa"):
        encoder = open_model(models["large"], device="cpu", attention=attention)
        (_, vectors), *_ = encoder.encode(["tap drips"], Role.QUERY)
        chosen = encoder._load()[0].auto_model.config._attn_implementation
        found.append((encoder.spec.fingerprint(Role.QUERY), chosen, vectors))
    assert [chosen for _, chosen, _ in found] == ["eager", "sdpa"]
    assert found[0][0] != found[1][0] != fingerprints(models["large"])[0]
    assert np.abs(found[0][2] - found[1][2]).max() < 1e-5


@pytest.mark.encoders
@pytest.mark.parametrize(
    ("precision", "width"), [("float32", None), ("bfloat16", None), ("float32", 64)]
)
def test_static_models_give_the_librarys_own_vectors(models, precision, width) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(models["small"]), device="cpu", truncate_dim=width)
    expected = theirs.to(getattr(torch, precision)).encode([*TEXTS, "", " "])
    encoder = open_model(models["small"], device="cpu", precision=precision, truncate_dim=width)
    np.testing.assert_array_equal(vectors_of(encoder, [*TEXTS, "", " "]), expected)
