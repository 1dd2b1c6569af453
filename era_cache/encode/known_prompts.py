"""Prompts that well-known models were trained with, for models whose files do not name them.

In: a model's name. Out: templates to propose; nothing is applied unasked, as a prompt is part of an
encoder's fingerprint.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["KNOWN", "KnownPrompts", "known_prompts"]

_SEARCHING = "Represent this sentence for searching relevant passages: {text}"
_INSTRUCT = "Instruct: {instruction}\nQuery: {text}"


class KnownPrompts(NamedTuple):
    """Templates of a family of models, and who says so."""

    pattern: str
    """Of names, whatever their case."""
    query: str
    document: str
    source: str


KNOWN = (
    KnownPrompts(
        r"qwen3-embedding",
        "Instruct: {instruction}\nQuery:{text}",
        "{text}",
        "model card of Qwen/Qwen3-Embedding-0.6B",
    ),
    KnownPrompts(
        r"e5-.*instruct|gte-qwen.*instruct|sfr-embedding|linq-embed|nv-embed|stella_en",
        _INSTRUCT,
        "{text}",
        "model cards of intfloat/e5-mistral-7b-instruct and its relatives",
    ),
    KnownPrompts(r"bge-en-icl", "<instruct>{instruction}\n<query>{text}", "{text}", "model card"),
    KnownPrompts(
        r"(^|-)e5-(small|base|large)", "query: {text}", "passage: {text}", "model card of E5"
    ),
    KnownPrompts(
        r"bge-(small|base|large)-en|mxbai-embed-(large|xsmall)|arctic-embed-(xs|s|m|l)(-v1|$)",
        _SEARCHING,
        "{text}",
        "model cards of BAAI/bge-large-en-v1.5, mixedbread-ai, Snowflake",
    ),
    KnownPrompts(
        r"arctic-embed-.*v2", "query: {text}", "{text}", "model card of snowflake-arctic-embed-v2"
    ),
    KnownPrompts(
        r"nomic-embed-text",
        "search_query: {text}",
        "search_document: {text}",
        "model card of nomic-ai/nomic-embed-text-v1.5",
    ),
    KnownPrompts(
        r"embeddinggemma",
        "task: search result | query: {text}",
        "title: none | text: {text}",
        "model card of google/embeddinggemma-300m",
    ),
    KnownPrompts(r"text-embedding-(3|ada)", "{instruction}\n{text}", "{text}", "arXiv 2604.03403"),
)
"""The first that fits is meant."""


def known_prompts(name: str) -> KnownPrompts | None:
    """Prompts of a model by its name; None where none are known."""
    return next((one for one in KNOWN if re.search(one.pattern, name.lower())), None)
