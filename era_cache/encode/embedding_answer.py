"""Answers of servers that speak OpenAI's embeddings protocol, taken apart and checked.

In: the body of an answer, as bytes from a stranger. Out: vectors in the order of the texts, or why
they cannot be believed.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
import numpy as np

from era_cache.types import FloatArray

__all__ = ["Answer", "AnswerError", "read_answer"]


class AnswerError(Exception):
    """An answer that is not what was asked for; the text says in what."""


class _One(msgspec.Struct):
    index: int
    embedding: list[float] | str


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Body(msgspec.Struct):
    data: list[_One]
    model: str = ""
    usage: _Usage | None = None


class Answer(msgspec.Struct):
    """Vectors (n, d) float32, the model that says it made them, and the tokens it counted."""

    vectors: FloatArray
    model: str
    tokens: int | None


def read_answer(body: bytes, count: int, width: int | None) -> Answer:
    """Take an answer apart.

    Args:
        body: JSON, as sent.
        count: texts that were asked for.
        width: dimensions that are expected; None takes any, equal for all.

    Raises:
        AnswerError: no such JSON, another number of vectors, numbers that are missing or twice,
            another width, values that are not finite, a vector of zeros.
    """
    try:
        answer = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AnswerError(f"no answer of the embeddings protocol ({error})") from error
    places = [one.index for one in answer.data]
    if len(places) != count:
        raise AnswerError(f"{len(places)} vectors for {count} texts")
    if sorted(places) != list(range(count)):
        raise AnswerError("numbers of texts that are missing or there twice")
    ordered = sorted(answer.data, key=lambda one: one.index)
    rows = [_values(one.embedding) for one in ordered]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not widths <= {width or next(iter(widths))}:
        found = ", ".join(map(str, sorted(widths)[:4]))
        raise AnswerError(f"vectors of {found} dimensions" + (f", not {width}" if width else ""))
    with np.errstate(over="ignore"):
        vectors = np.array(rows, dtype=np.float32).reshape(count, -1)
    if not np.isfinite(vectors).all():
        raise AnswerError("values that are not finite")
    if not vectors.any(axis=1).all():
        raise AnswerError("a vector of zeros")
    usage = answer.usage
    tokens = (usage.total_tokens or usage.prompt_tokens) if usage else 0
    return Answer(vectors, answer.model, tokens if tokens > 0 else None)


def _values(sent: list[float] | str) -> FloatArray | list[float]:
    """The values; a server may send base64 of little-endian float32 though floats were wanted."""
    if isinstance(sent, list):
        return sent
    try:
        data = base64.b64decode(sent, validate=True)
        return np.frombuffer(data, dtype="<f4")
    except (binascii.Error, ValueError) as error:
        raise AnswerError(f"a vector that is no base64 of float32 ({error})") from error
