"""What a store says of an encoder: fingerprints, templates, encoder.json."""

from __future__ import annotations

import json

import pytest
from hash_encoder import HashEncoder
from imported_vectors import write_spec

from era_cache.disk.json_files import json_digest, write_json
from era_cache.errors import FormatError, InputError
from era_cache.store.encoder_record import (
    EncoderSpec,
    check_template,
    read_encoder_record,
    read_stated_spec,
    render,
    write_encoder_record,
)
from era_cache.types import Role


def test_the_fingerprint_is_the_digest_that_the_format_says():
    templates = {Role.QUERY: "q: {text}", Role.DOCUMENT: "{text}"}
    spec = EncoderSpec("m", {"kind": "x"}, templates, {"model": "somewhere"})
    assert spec.space == json_digest({"kind": "x"})
    for role, template in templates.items():
        expected = json_digest({"role": role.value, "space": spec.space, "template": template})
        assert spec.fingerprint(role) == expected


# Templates


@pytest.mark.parametrize("template", ["{text}", "a {text} b", "{instruction}: {text}"])
def test_templates_with_one_text_are_accepted(template):
    assert check_template(template) == template


@pytest.mark.parametrize("template", ["", "x", "{text}{text}", "{instruction}{instruction}{text}"])
def test_other_templates_are_refused(template):
    with pytest.raises(InputError, match="exactly once"):
        check_template(template)


def test_rendering_fills_placeholders_once_and_leaves_other_braces():
    texts, instructions = ["{instruction}", "x {0}"], ["{text}", "do"]
    assert render("{instruction}: {text} {z}", texts, instructions) == [
        "{text}: {instruction} {z}",
        "do: x {0} {z}",
    ]
    assert render("[{instruction}] {text}", ["a"], None) == ["[] a"]
    assert render("{text}", texts, instructions) == texts


# encoder.json


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "encoder.json"
    write_encoder_record(tmp_path, HashEncoder(4, template="q {text}").spec, Role.QUERY, 4)
    return path, json.loads(path.read_text())


def test_an_encoder_file_comes_back(record):
    path, value = record
    stored = read_encoder_record(path)
    assert (stored.name, stored.role, stored.dim, stored.template) == (
        "hash-4",
        Role.QUERY,
        4,
        "q {text}",
    )
    assert stored.fingerprint == HashEncoder(4, template="q {text}").spec.fingerprint(Role.QUERY)
    assert stored.identity == value["identity"]
    about = f"query, fingerprint {stored.fingerprint[:12]}"
    assert stored.label() == f"hash-4 ({about}, prompt 'q {{text}}')"


@pytest.mark.parametrize(
    "change",
    [
        {"template": "other {text}"},
        {"role": "document"},
        {"space": "0" * 64},
        {"fingerprint": "0" * 64},
        {"identity": {"kind": "hash", "dim": 5, "seed": ""}},
    ],
)
def test_a_tampered_encoder_file_is_refused(record, change):
    path, value = record
    write_json(path, {**value, **change})
    with pytest.raises(FormatError, match="does not match the description"):
        read_encoder_record(path)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "both"},
        {"dim": 0},
        {"dim": -4},
        {"dim": 1 << 30},
        {"dim": "x"},
        {"dim": None},
        {"identity": 5},
        {"version": 2},
        {"format": "x"},
        {"source": "x"},
        {"template": "\ud800"},
    ],
)
def test_an_encoder_file_with_a_wrong_field_is_refused(record, change):
    path, value = record
    path.write_text(json.dumps({**value, **change}))
    with pytest.raises(FormatError, match=r"encoder\.json: "):
        read_encoder_record(path)


def test_an_infinite_dimension_and_a_missing_field_are_refused(record):
    path, value = record
    path.write_text(json.dumps(value).replace('"dim": 4, "fing', '"dim": Infinity, "fing'))
    with pytest.raises(FormatError, match="not valid JSON"):
        read_encoder_record(path)
    for field in ("name", "role", "dim", "fingerprint", "space", "identity", "template"):
        path.write_text(json.dumps({k: v for k, v in value.items() if k != field}))
        with pytest.raises(FormatError, match=r"damaged: .*missing required field"):
            read_encoder_record(path)


def test_an_encoder_file_of_more_than_four_mebibytes_is_refused(record):
    path, value = record
    path.write_text(json.dumps({**value, "source": {"x": "y" * (1 << 22)}}))
    with pytest.raises(FormatError, match="at most 4194304"):
        read_encoder_record(path)


# Encoders as users state them


def test_a_stated_encoder_is_its_facts_and_nothing_else(tmp_path):
    facts = {"model": "acme/embed-3", "version": "2025-01", "dimensions": 512}
    plain = read_stated_spec(write_spec(tmp_path / "a.json", {"name": "acme", **facts}))
    assert plain.identity == {"kind": "stated", "facts": facts}
    assert plain.templates == {Role.QUERY: "{text}", Role.DOCUMENT: "{text}"}
    other = {"templates": {"query": "q: {text}"}, "name": "other", **facts}
    named = read_stated_spec(write_spec(tmp_path / "b.json", other))
    assert named.space == plain.space
    assert named.fingerprint(Role.DOCUMENT) == plain.fingerprint(Role.DOCUMENT)
    assert named.fingerprint(Role.QUERY) != plain.fingerprint(Role.QUERY)
    newer = read_stated_spec(write_spec(tmp_path / "c.json", {**other, "version": "2025-02"}))
    assert newer.space != plain.space


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"name": "a"}',
        '{"model": "a"}',
        '{"name": 1, "model": "a"}',
        '{"name": "a", "model": ["a"]}',
        '{"name": "../a", "model": "a"}',
        '{"name": "a", "model": "a", "x": NaN}',
        '{"name": "a", "model": "a", "x": "\\ud800"}',
        '{"name": "a", "model": "a", "templates": "{text}"}',
        '{"name": "a", "model": "a", "templates": {"doc": "{text}"}}',
        '{"name": "a", "model": "a", "templates": {"query": "no place"}}',
        '{"name": "a", "model": "a", "templates": {"query": "\\ud800{text}"}}',
        '{"name": "a", "model": "a", "x": ' + "[" * 9000 + "}",
        '{"name": "a", "model": "' + "a" * 70_000 + '"}',
    ],
)
def test_specs_that_state_nothing_usable_are_refused(tmp_path, text):
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(InputError):
        read_stated_spec(tmp_path / "e.json")
