"""What OpenAI's clients ask for and are answered: requests for embeddings, and errors.

In: the body of a request. Out: checked records; JSON as their SDK reads it. What a field of a
request would change and is not known here is refused: a client must not get other vectors than it
asked for.
"""

from __future__ import annotations

import base64
from typing import Any, Literal, NoReturn

import msgspec
from starlette.responses import Response

from era_cache.types import FloatArray

__all__ = [
    "MOST_CHARACTERS",
    "MOST_INPUTS",
    "ApiError",
    "EmbeddingRequest",
    "embedding_answer",
    "read_request",
    "refuse",
]

MOST_INPUTS = 2048
MOST_CHARACTERS = 200_000
"""Of one text; far above what any model reads."""


class ApiError(Exception):
    """A request that is answered by an error.

    ``code`` is for machines, ``param`` the field that is wrong.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def response(self) -> Response:
        """As their SDKs read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return Response(
            msgspec.json.encode({"error": error}),
            self.status,
            self.headers,
            media_type="application/json",
        )


def refuse(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    """Answer 400.

    Raises:
        ApiError: always.
    """
    raise ApiError(400, message, param=param, code=code)


class EmbeddingRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``POST /v1/embeddings``; ``instruction`` is ours, for prompts that have a place for one."""

    input: Any
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None
    instruction: str = ""

    def texts(self) -> list[str]:
        """What is to be encoded.

        Raises:
            ApiError: no text, too many or too long, or tokens.
        """
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not isinstance(texts, list) or not texts:
            refuse("input: expected a text, or a list of texts.", "input")
        if len(texts) > MOST_INPUTS:
            refuse(f"input: {len(texts):,} texts; at most {MOST_INPUTS:,} at a time.", "input")
        for row, text in enumerate(texts):
            if isinstance(text, int | list):
                refuse(
                    "input: these are tokens of another model's tokenizer; send texts (LangChain: "
                    "check_embedding_ctx_length=False).",
                    "input",
                    "tokens",
                )
            if not isinstance(text, str) or not text.strip():
                refuse(f"input: text {row} is empty or no text.", "input")
            if len(text) > MOST_CHARACTERS:
                refuse(f"input: text {row} has more than {MOST_CHARACTERS:,} characters.", "input")
        return texts


def read_request(body: bytes) -> EmbeddingRequest:
    """Decode a request.

    Raises:
        ApiError: it is no such request.
    """
    try:
        return msgspec.json.decode(body, type=EmbeddingRequest)
    except msgspec.ValidationError as error:
        refuse(f"{error}.")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse(f"The body is no JSON: {error}.")


def embedding_answer(request: EmbeddingRequest, vectors: FloatArray, tokens: int) -> bytes:
    """The answer to a request, JSON.

    Args:
        request: what was asked for.
        vectors: (n, d) float32, in the order of its texts.
        tokens: that were read.
    """
    rows: list[Any]
    if request.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = vectors.tolist()
    data = [
        {"object": "embedding", "index": row, "embedding": value} for row, value in enumerate(rows)
    ]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": data,
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
