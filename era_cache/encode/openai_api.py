"""Encoders behind an address: OpenAI, Azure, and every server that speaks the same protocol.

In: ``openai:MODEL`` or ``openai:MODEL@ADDRESS``. Out: an ``EncoderSpec`` of what is stated (no file
can be hashed), and vectors, by many requests at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from era_cache.encode.embedding_answer import Answer
from era_cache.encode.embedding_client import EmbeddingClient, NoMoneyError, RefusedError
from era_cache.encode.embedding_flight import MOST_TEXTS, Flight
from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.model_files import model_name
from era_cache.encode.noted_interrupt import NotedInterrupt
from era_cache.errors import EncoderError, InputError
from era_cache.store.encoder_record import EncoderSpec, check_template
from era_cache.types import FloatArray, Role

__all__ = ["OpenAIEncoder"]

_PUBLIC = "https://api.openai.com/v1"
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_LEAST_TEXTS = 8
_GREETING = "The quick brown fox jumps over the lazy dog."


class OpenAIEncoder:
    """A model that a server runs, asked by OpenAI's embeddings protocol.

    What it is cannot be seen, so it is what is stated: the kind of endpoint, the model's name, the
    dimensions and a revision of the user's own. Whether it still gives the same vectors is asked
    (``served_probe``).

    Args:
        model: ``MODEL`` or ``MODEL@http(s)://…``; without it OPENAI_BASE_URL, else OpenAI's.
        settings: ``truncate_dim`` is the dimensions asked for, ``service`` how it is asked; a
            template that is None is the bare text.

    Raises:
        EncoderError: no key, or an address that cannot be used.
        InputError: a length in tokens, which only the server could cut to.
    """

    served = True
    """Nothing here tells one model from another but its vectors."""

    def __init__(self, model: str, settings: EncoderSettings) -> None:
        name, given, address = model.rpartition("@http")
        name, address = (name, "http" + address) if given else (model, "")
        self._address = address or os.environ.get("OPENAI_BASE_URL") or _PUBLIC
        host = _checked_host(self._address)
        if not name or not name.isprintable():
            raise EncoderError(f"openai:{model!r}: expected openai:MODEL or openai:MODEL@ADDRESS.")
        if settings.max_seq_length is not None:
            raise InputError(
                f"openai:{name}: a server reads as many tokens as it is set to; leave "
                "--large-max-seq-length and --small-max-seq-length out."
            )
        endpoint = "compatible"
        if host == urlsplit(_PUBLIC).hostname:
            endpoint = "openai"
        elif host.endswith(_AZURE):
            endpoint = "azure"
        templates = {
            Role.QUERY: check_template(settings.query_template or "{text}"),
            Role.DOCUMENT: check_template(settings.document_template or "{text}"),
        }
        identity = {
            "kind": "openai",
            "endpoint": endpoint,
            "model": name,
            "revision": settings.revision,
            "truncate_dim": settings.truncate_dim,
        }
        self.spec = EncoderSpec(model_name(name), identity, templates, {"model": name})
        self.reasons: dict[int, str] = {}
        """Why rows of the texts that were encoded last have no vector."""
        self._host, self._endpoint, self._settings = host, endpoint, settings
        self._most_texts = MOST_TEXTS
        self._connected: EmbeddingClient | None = None

    @property
    def width(self) -> int | None:
        """See ``Encoder``."""
        return self._settings.truncate_dim

    @property
    def price(self) -> float:
        """Of a million tokens."""
        return self._settings.service.price

    def count_tokens(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of rendered texts, guessed by their bytes: no tokenizer is at hand."""
        del role
        return [len(text.encode()) // 4 + 1 for text in texts]

    def bill(self) -> dict[str, Any]:
        """What was asked for so far: requests, tokens as the server counts them, their price."""
        client, price = self._connected, self._settings.service.price
        requests, tokens = (client.requests, client.tokens) if client else (0, 0)
        return {"requests": requests, "tokens": tokens, "cost": tokens * price / 1e6}

    def provenance(self) -> dict[str, Any]:
        """See ``Encoder.provenance``."""
        client = self._client()
        return {
            "openai": version("openai"),
            "host": self._host,
            "model": self.spec.identity["model"],
            "answered_as": client.answered_as,
        }

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """See ``Encoder.encode``. A text that the server has no vector for gets NaN and a reason.

        What is on its way when something fails, or at Ctrl-C, is waited for and given out before
        the error is raised: it is paid for.

        Raises:
            EncoderError: the server is of no use, or what may be spent is spent.
        """
        self.reasons = {}
        batches = self.requests(self.count_tokens(texts, role))
        flight = Flight(self._client(), texts, batches, self._settings.service.in_flight)
        with NotedInterrupt() as ctrl_c:
            try:
                yield from self._landed(flight, ctrl_c)
            finally:
                flight.cancel()
        if ctrl_c.came:
            raise KeyboardInterrupt
        if flight.failure is not None:
            raise flight.failure

    def _landed(
        self, flight: Flight, ctrl_c: NotedInterrupt
    ) -> Iterator[tuple[list[int], FloatArray]]:
        while flight.goes_on(ctrl_c.came):
            for batch, future in flight.next():
                try:
                    answer: Answer = future.result()
                except RefusedError as error:
                    if len(batch.rows) > 1:
                        flight.again(batch.halves())
                        continue
                    self.reasons[batch.rows[0]] = str(error)
                    yield batch.rows, np.full((1, self._client().width or 1), np.nan, np.float32)
                except NoMoneyError:
                    flight.refused_money(batch, self._settings.service.budget.spent)
                except EncoderError as error:
                    flight.fail(error)
                else:
                    if (limit := batch.answered()) is not None:
                        flight.most = self._most_texts = min(self._most_texts, limit)
                    yield batch.rows, answer.vectors

    def requests(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows of each request: within the budget of tokens, enough for all that may be open.

        Args:
            lengths: tokens of each text, as ``count_tokens`` guesses.
        """
        open_at_once = 2 * self._settings.service.in_flight
        most = min(self._most_texts, max(_LEAST_TEXTS, -(-len(lengths) // open_at_once)))
        found: list[list[int]] = []
        tokens = 0
        for row, count in enumerate(lengths):
            full = tokens + count > self._settings.batch_tokens
            if not found or full or len(found[-1]) >= most:
                found.append([])
                tokens = 0
            found[-1].append(row)
            tokens += count
        return found

    def _client(self) -> EmbeddingClient:
        if self._connected is None:
            client = EmbeddingClient(
                self._opened(),
                self._key() or "",
                self.spec.identity["model"],
                self._settings.truncate_dim,
                self._settings.service,
            )
            _learn_width(client, self.spec.name)
            self._connected = client
        return self._connected

    def _key(self) -> str | None:
        key = os.environ.get(self._settings.service.key_variable, "").strip()
        if not key and self._endpoint != "compatible":
            raise EncoderError(
                f"{self.spec.name}: no key. Set the environment variable "
                f"{self._settings.service.key_variable}; it is written nowhere."
            )
        return key or None

    def _opened(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise EncoderError(
                f"openai:{self.spec.identity['model']}: the package openai is missing. Install the "
                "extra: pip install 'era-cache[api]'."
            ) from error
        key, service = self._key() or "none", self._settings.service
        common: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": service.seconds}
        api_version = os.environ.get("OPENAI_API_VERSION")
        if self._endpoint == "azure" and "/v1" not in self._address and api_version:
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self._address, api_version=api_version, **common
            )
        return openai.AsyncOpenAI(base_url=self._address, **common)


def _learn_width(client: EmbeddingClient, name: str) -> None:
    """Ask for one vector until two answers agree: then width and model are known.

    Raises:
        EncoderError: the server gives another vector every time, or is of no use.
    """
    seen: list[Answer] = []
    for _ in range(6):
        try:
            answer = client.send([_GREETING]).result()
        except RefusedError as error:
            client.close()
            raise EncoderError(f"{name}: the server refuses a plain text: {error}.") from None
        except NoMoneyError:
            client.close()
            raise EncoderError(f"{name}: --max-cost is less than a single request.") from None
        except BaseException:
            client.close()
            raise
        for other in seen:
            if answer.model == other.model and _agree(answer.vectors[0], other.vectors[0]):
                client.width, client.answered_as = answer.vectors.shape[1], answer.model
                return
        seen.append(answer)
    client.close()
    raise EncoderError(
        f"{name}: the server gave {len(seen)} different vectors for one and the same text; none of "
        "them can be stored. Check what runs there."
    )


def _agree(one: FloatArray, other: FloatArray) -> bool:
    if len(one) != len(other):
        return False
    a, b = one.astype(np.float64), other.astype(np.float64)
    return bool(a @ b >= 0.999 * np.linalg.norm(a) * np.linalg.norm(b))


def _checked_host(address: str) -> str:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise EncoderError(f"{address}: no address of a server. Expected http(s)://HOST[:PORT]/v1.")
    if parts.username or parts.password or parts.query:
        raise EncoderError(
            "An address of a server with a name, a password or a query in it would be shown to "
            "others. Give the key in an environment variable."
        )
    return host
