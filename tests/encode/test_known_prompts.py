"""Prompts of well-known models: proposed by name, never applied."""

from __future__ import annotations

import re
import shlex

import pytest
from beir_folder import beir_of
from command_case import done, run
from planted import planted_texts
from tiny_model import build_tiny

from era_cache.cli import embed
from era_cache.encode.known_prompts import KNOWN, known_prompts
from era_cache.store.encoder_record import check_template


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("Qwen3-Embedding-8B", "Instruct: {instruction}\nQuery:{text}"),
        ("e5-mistral-7b-instruct", "Instruct: {instruction}\nQuery: {text}"),
        ("multilingual-e5-large-instruct", "Instruct: {instruction}\nQuery: {text}"),
        ("gte-Qwen2-7B-instruct", "Instruct: {instruction}\nQuery: {text}"),
        ("e5-small-v2", "query: {text}"),
        ("multilingual-e5-base", "query: {text}"),
        ("bge-small-en-v1.5", "Represent this sentence for searching relevant passages: {text}"),
        ("snowflake-arctic-embed-l-v2.0", "query: {text}"),
        (
            "snowflake-arctic-embed-m",
            "Represent this sentence for searching relevant passages: {text}",
        ),
        ("text-embedding-3-large", "{instruction}\n{text}"),
    ],
)
def test_the_first_family_that_fits_is_meant(name, query) -> None:
    found = known_prompts(name)
    assert found is not None
    assert found.query == query


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "bge-m3", "my-model", "wordllama-256"])
def test_models_without_prompts_get_none(name) -> None:
    assert known_prompts(name) is None


def test_every_entry_is_sound() -> None:
    for one in KNOWN:
        re.compile(one.pattern)
        assert check_template(one.query) == one.query
        assert check_template(one.document) == one.document
        assert one.source


def test_prompts_are_proposed_once_and_as_the_shell_takes_them(tmp_path) -> None:
    beir_of(tmp_path, planted_texts(n_queries=10))
    model = build_tiny(tmp_path / "e5-small-v2")
    words = [
        tmp_path / "beir",
        "--store",
        tmp_path / "s",
        "--query-model",
        model,
        "--doc-model",
        model,
    ]
    said = done(run(embed.main, *words, "--device", "cpu")).output
    (line,) = [
        one for one in said.splitlines() if "small" in one and "--small-query-template" in one
    ]
    options = shlex.split(line.partition("add: ")[2])
    assert options == [
        "--small-query-template",
        "query: {text}",
        "--small-doc-template",
        "passage: {text}",
    ]
    large = [line.replace("--small", "--large") for line in said.splitlines() if "--large" in line]
    assert len(large) == 1
    given = shlex.split(large[0].partition("add: ")[2])
    again = done(run(embed.main, *words, "--device", "cpu", *options, *given))
    assert "was trained with prompts" not in again.output
