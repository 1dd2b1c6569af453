"""The description of the HTTP interface, as OpenAPI 3.1.

In: what is served. Out: a JSON document.
"""

from __future__ import annotations

from typing import Any

from era_cache import __version__
from era_cache.serve.http.openai import MOST_CHARACTERS, MOST_INPUTS
from era_cache.serve.http.searches import MOST_QUERY, MOST_SHOWN

__all__ = ["schema"]

_OBJECT = {"type": "object"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def schema(names: list[str], *, searches: bool) -> dict[str, Any]:
    """The document of a server.

    Args:
        names: of its adapters.
        searches: whether a collection is searched.
    """
    paths: dict[str, Any] = {
        "/v1/embeddings": {"post": _embeddings(names)},
        "/v1/models": {"get": _get("The models that there are.")},
        "/healthz": {"get": _get("Whether the server runs.")},
        "/readyz": {"get": _get("Whether its models are loaded.", 503)},
        "/metrics": {"get": _get("Counters, for Prometheus.", kind="text/plain")},
    }
    if searches:
        paths |= {
            "/v1/search": {"get": {**_get("Rankings of a query.", 400, 429), **_SEARCHED}},
            "/v1/about": {"get": _get("What is searched.")},
            "/v1/random": {"get": _get("A judged query of the collection.", 400)},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "ERA Cache", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _embeddings(names: list[str]) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": MOST_CHARACTERS, "pattern": r"\S"}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": MOST_INPUTS}
    models = [name for one in names for name in (one, f"{one}/document")]
    body = {
        "type": "object",
        "required": ["input", "model"],
        "additionalProperties": False,
        "properties": {
            "input": {"anyOf": [text, texts]},
            "model": {"enum": models} if models else {"type": "string"},
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": ["integer", "null"]},
            "user": {"type": ["string", "null"]},
            "instruction": {"type": "string"},
        },
    }
    return {
        **_get("Vectors of texts.", 400, 404, 408, 413, 429, 503),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
    }


_SEARCHED = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": kind}
        for name, kind in (
            ("query", {"type": "string", "maxLength": MOST_QUERY}),
            ("id", {"type": "string"}),
            ("instruction", {"type": "string", "maxLength": MOST_QUERY}),
            ("candidates", {"type": "string"}),
            ("k", {"type": "integer", "minimum": 1, "maximum": MOST_SHOWN}),
        )
    ]
}


def _get(says: str, *errors: int, kind: str = "application/json") -> dict[str, Any]:
    answer = {"schema": _OBJECT if kind == "application/json" else {"type": "string"}}
    answers: dict[str, Any] = {"200": {"description": says, "content": {kind: answer}}}
    error = {"application/json": {"schema": _ERROR}}
    for status in (401, 403, *errors):
        answers[str(status)] = {"description": "Why not.", "content": error}
    if 503 in errors and errors[0] != 400:
        answers["503"]["content"] = {"application/json": {"schema": _OBJECT}}
    return {"summary": says, "responses": answers}
