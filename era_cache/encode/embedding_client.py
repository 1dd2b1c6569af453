"""One server that speaks OpenAI's embeddings protocol: requests, repeated until answers are sound.

In: texts. Out: a future of checked vectors. All requests run in one thread of their own, so that
callers need no event loop, and may have one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from era_cache.encode.embedding_answer import Answer, AnswerError, read_answer
from era_cache.encode.service import Pace, ServiceSettings, back_off, most_tokens, retry_after
from era_cache.errors import EncoderError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

__all__ = ["EmbeddingClient", "NoMoneyError", "RefusedError"]

_MOST_TRIES = 8
_PATIENCE = 900.0
"""Seconds of "too many requests" without any answer in between."""
_HOPELESS = (401, 403, 404, 405)
_TOO_MUCH = (400, 413, 422)
_ALIVE = "ready"


class RefusedError(Exception):
    """The server answers others, but not these texts; the text says what it answered."""


class NoMoneyError(Exception):
    """The request could cost more than may still be spent."""


class EmbeddingClient:
    """Asks one model of one server.

    Args:
        client: of the openai package, without repetitions of its own.
        secret: what must not be shown; servers may repeat it.
        model: as the server calls it.
        dimensions: asked for; None is the model's own width.
        limits: how it is asked.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        secret: str,
        model: str,
        dimensions: int | None,
        limits: ServiceSettings,
    ) -> None:
        self._client, self._secret, self._model = client, secret, model
        self._dimensions, self._limits = dimensions, limits
        self._pace = Pace(limits.requests_per_minute, limits.tokens_per_minute)
        self._answered = time.monotonic()
        self.width = dimensions
        """Values of a vector, once they are known: what is not as wide is not believed."""
        self.requests = self.tokens = 0
        self.answered_as = ""
        """The model that the server says it ran."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.close = weakref.finalize(self, _stop, self._loop, self._thread, client)

    def send(self, texts: list[str]) -> concurrent.futures.Future[Answer]:
        """Ask for vectors of texts.

        Returns:
            A future, which raises ``EncoderError`` where the server is of no use at all,
            ``RefusedError`` where it has no answer to these texts, ``NoMoneyError`` where they
            could cost too much.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(texts), self._loop)

    async def _ask(self, texts: list[str]) -> Answer:
        failures, first = 0, time.monotonic()
        while True:
            try:
                answer = await self._once(texts)
            except RefusedError as error:
                if len(texts) > 1 or await self._is_alive():
                    raise
                # Else a server that broke would look like texts without vectors.
                raise EncoderError(
                    f"{self._model}: the server refuses every text now: {error}. What is finished "
                    "is stored; run the command again when the server is well."
                ) from None
            if isinstance(answer, Answer):
                self._answered = time.monotonic()
                return answer
            reason, wait, counts = answer
            failures += counts
            if not counts and time.monotonic() - max(self._answered, first) > _PATIENCE:
                raise EncoderError(
                    f"{self._model}: {reason}, for {_PATIENCE / 60:.0f} minutes. What is finished "
                    "is stored; run the command again later, or with --requests-per-minute."
                )
            if failures >= _MOST_TRIES:
                if self._answered > first or await self._is_alive():
                    raise RefusedError(reason)
                raise EncoderError(
                    f"{self._model}: {failures} requests in a row failed, the last with: {reason}. "
                    "What is finished is stored; run the command again when the server is well."
                )
            if wait is None:
                wait = back_off(failures)
            await asyncio.sleep(wait)

    async def _is_alive(self) -> bool:
        """Whether the server has a vector of a plain text."""
        try:
            return isinstance(await self._once([_ALIVE]), Answer)
        except RefusedError:
            return False

    async def _once(self, texts: list[str]) -> Answer | tuple[str, float | None, bool]:
        """An answer; or what failed, seconds to wait (None chooses), and whether it counts."""
        import openai

        limits, bound = self._limits, most_tokens(texts)
        most = bound * limits.price / 1e6
        await self._pace.turn(bound // 3)
        if not limits.budget.reserve(most):
            raise NoMoneyError
        spent = 0.0
        self.requests += 1
        try:
            raw = await self._client.embeddings.with_raw_response.create(**self._body(texts))
            spent = most  # of an answer that says nothing of tokens
            answer = self._checked(raw.content, texts)
            tokens = bound if answer.tokens is None else answer.tokens
            spent = tokens * limits.price / 1e6
            self.tokens += tokens
        except openai.APIStatusError as error:
            return self._failed(error)
        except openai.APIConnectionError as error:
            spent = most  # it may have been answered, and be paid for
            return f"no answer ({type(error.__cause__ or error).__name__})", None, True
        except AnswerError as error:
            return f"the server sent {error}", back_off(0), True
        except openai.OpenAIError as error:
            raise EncoderError(f"{self._model}: {self._shown(error)}") from None
        finally:
            limits.budget.settle(most, spent)
        return answer

    def _body(self, texts: list[str]) -> dict[str, Any]:
        wanted = {} if self._dimensions is None else {"dimensions": self._dimensions}
        # Left out, the openai package asks for base64, and servers that do not know it send floats
        # which it then takes for base64: a quarter of the width.
        return {"model": self._model, "input": texts, "encoding_format": "float", **wanted}

    def _checked(self, body: bytes, texts: list[str]) -> Answer:
        answer = read_answer(body, len(texts), self.width)
        if self.answered_as and answer.model != self.answered_as:
            raise AnswerError(f"vectors of {answer.model!r} now, after {self.answered_as!r}")
        return answer

    def _failed(self, error: APIStatusError) -> tuple[str, float | None, bool]:
        status, reason = error.status_code, self._shown(error)
        if status in _HOPELESS or getattr(error, "code", None) == "insufficient_quota":
            raise EncoderError(
                f"{self._model}: the server refuses: {reason}. Check the model's name, the address "
                f"(OPENAI_BASE_URL) and the key ({self._limits.key_variable})."
            ) from None
        if status in _TOO_MUCH:
            raise RefusedError(reason) from None
        wait = retry_after(error.response.headers)
        if status == 429:
            seconds = back_off(3) if wait is None else wait
            self._pace.pause(seconds)
            return reason, 0.0, False
        return reason, wait, True

    def _shown(self, error: APIError | Exception) -> str:
        """What a server said, in a line, without the key."""
        status = getattr(error, "status_code", None)
        body = getattr(error, "body", None)
        said = body.get("message", "") if isinstance(body, dict) else ""
        words = " ".join(str(said or getattr(error, "message", "") or error).split())
        if self._secret:
            words = words.replace(self._secret, "…")
        return (f"HTTP {status}: " if status else "") + words[:300].rstrip(".")


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: AsyncOpenAI) -> None:
    async def end() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await client.close()

    if loop.is_running():
        with contextlib.suppress(Exception):  # nothing is lost with a connection
            asyncio.run_coroutine_threadsafe(end(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
    if not loop.is_running():
        loop.close()
