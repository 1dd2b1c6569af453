"""The application: its paths, and what runs beside them.

In: adapters that are served, what is searched. Out: a Starlette application.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from era_cache import __version__
from era_cache.disk.shown import escaped
from era_cache.encode.encoder import Encoder
from era_cache.errors import EraError, InputError
from era_cache.serve.engine import Lookup
from era_cache.serve.gate import Gate
from era_cache.serve.http.batches import Batches, BusyError
from era_cache.serve.http.guard import Guard, read_body
from era_cache.serve.http.measured import Measured
from era_cache.serve.http.openai import ApiError, embedding_answer, read_request, refuse
from era_cache.serve.http.schema import schema
from era_cache.serve.http.searches import about, asked_for, random_query
from era_cache.serve.http.served import Served
from era_cache.serve.page import search_page

__all__ = ["App"]

ANSWER_SECONDS = 120.0
WATCH_SECONDS = 1.0
_JSON = "application/json"
_logger = logging.getLogger(__name__)
_SOON = 0.003
"""Seconds after which a batch has begun, so that tokens are counted beside it."""
_FEW = 64
"""Texts whose tokens are counted, and whose answer is written down, at once."""


class App:
    """What one server serves.

    Args:
        served: adapters by name; none where stored queries are searched only.
        lookup: what is searched, where no adapter of ``served`` brings its own; None for none.
        shown: candidates that the page compares at first.
        pool: encoders of ``served``, by fingerprint.
        seed: of the random queries; None is another each time.
        thread: of the models, as ``Batches`` takes it.
    """

    def __init__(
        self,
        served: dict[str, Served],
        lookup: Lookup | None,
        shown: list[str],
        *,
        pool: dict[str, Encoder] | None = None,
        seed: int | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._served, self._lookup, self.shown = served, lookup, shown
        self._pool = {} if pool is None else pool
        self._generator = np.random.default_rng(seed)
        self._batches: Batches | None = None
        self._thread = thread
        self._ready = False
        self.gate: Gate | None = None
        self._measured = Measured(lambda: self._batches.waiting if self._batches else 0)
        routes = [
            Route("/", self._page),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/search", self._search),
            Route("/v1/about", self._about),
            Route("/v1/random", self._random),
            Route("/openapi.json", self._schema),
            Route("/healthz", self._health),
            Route("/readyz", self._readiness),
            Route("/metrics", self._metrics),
        ]
        guard = Middleware(
            Guard,
            gate=self._own_gate,
            measured=self._measured,
            paths=[route.path for route in routes],
        )
        self.asgi = Starlette(
            routes=routes,
            middleware=[guard],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error},
        )

    def lookup(self) -> Lookup | None:
        """What is searched now."""
        for one in self._served.values():
            if one.current.lookup is not None:
                return one.current.lookup
        return self._lookup

    def _own_gate(self) -> Gate:
        if self.gate is None:
            raise ApiError(503, "The server is starting.")
        return self.gate

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._batches = Batches(self._measured.batch, self._thread)
        works = (self._batches.run(), self._warm(), self._watch())
        tasks = [asyncio.create_task(one) for one in works]
        for task in tasks:
            task.add_done_callback(_told)
        try:
            yield
        finally:
            self._ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._batches.close()

    async def _warm(self) -> None:
        """Load models, so that no client waits for it."""
        for one in self._served.values():
            await self._run(partial(one.current.queries.encode, ["warm"], [""]))
            await self._run(partial(one.current.documents.encode, ["warm"], [""]))
        lookup = self.lookup()
        if lookup is not None and lookup.models:
            await self._run(lookup.warm_up)
        self._ready = True

    async def _watch(self) -> None:
        """Take replaced adapter folders."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for name, one in self._served.items():
                if not await asyncio.to_thread(one.changed):
                    continue
                with ThreadPoolExecutor(1) as own:  # its workers go with it
                    loaded = await asyncio.get_running_loop().run_in_executor(own, one.reload)
                if loaded is not None:
                    await self._run(partial(loaded.queries.encode, ["warm"], [""]))
                result = "refused" if loaded is None else "taken"
                self._measured.reloads.labels(name, result).inc()
                if loaded is not None:
                    one.current = loaded
                    self._drop_unused()

    def _drop_unused(self) -> None:
        """Let go of models that no adapter reads any more."""
        used = set().union(*(one.current.models for one in self._served.values()))
        for fingerprint in set(self._pool) - used:
            del self._pool[fingerprint]

    async def _run(self, function: Callable[[], Any], *, client: bool = False) -> Any:
        assert self._batches is not None
        return await self._batches.call(function, always=not client)

    async def _embeddings(self, request: Request) -> Response:
        asked = read_request(await read_body(request))
        found = [one.model(asked.model) for one in self._served.values()]
        target = next((one for one in found if one is not None), None)
        if target is None:
            names = ", ".join(f"{name}, {name}/document" for name in self._served) or "none"
            message = f"No model {asked.model[:80]!r}; there are {names}."
            raise ApiError(404, message, param="model", code="model_not_found")
        texts = asked.texts()
        if asked.dimensions not in (None, target.dim):
            refuse(f"{asked.model} has {target.dim} dimensions.", "dimensions")
        if asked.instruction and not target.takes_instruction:
            refuse(f"No prompt of {asked.model} has a place for an instruction.", "instruction")
        assert self._batches is not None
        said = [asked.instruction] * len(texts)
        work = asyncio.create_task(self._batches.encode(target, texts, said))
        await asyncio.wait({work}, timeout=_SOON)  # what is encoded already is not held up
        tokens = await _apart(partial(target.tokens, texts, said), len(texts) > _FEW)
        vectors = await _answered(work)
        self._measured.texts.labels(asked.model).inc(len(texts))
        body = await _apart(partial(embedding_answer, asked, vectors, tokens), len(texts) > _FEW)
        return Response(body, media_type=_JSON)

    async def _models(self, _request: Request) -> Response:
        names = [name for one in self._served for name in (one, f"{one}/document")]
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "era-cache"} for name in names
        ]
        return _json({"object": "list", "data": data})

    async def _search(self, request: Request) -> Response:
        ask = asked_for(dict(request.query_params), self._searched(), self.shown)
        return _json(await _answered(self._run(ask, client=True)))

    async def _about(self, _request: Request) -> Response:
        return _json(about(self._searched(), self.shown))

    async def _random(self, _request: Request) -> Response:
        ask = partial(random_query, self._searched(), self._generator)
        return _json(await _answered(self._run(ask, client=True)))

    def _searched(self) -> Lookup:
        lookup = self.lookup()
        if lookup is None:
            raise ApiError(404, "Nothing is searched here: the server was started without a store.")
        return lookup

    async def _page(self, request: Request) -> Response:
        self._searched()
        headers = self._own_gate().cookie() if "token" in request.query_params else {}
        return Response(search_page().content, 200, headers, "text/html; charset=utf-8")

    async def _schema(self, _request: Request) -> Response:
        return _json(schema(list(self._served), searches=self.lookup() is not None))

    async def _health(self, _request: Request) -> Response:
        return _json({"status": "ok", "version": __version__})

    async def _readiness(self, _request: Request) -> Response:
        return _json({"ready": self._ready}, 200 if self._ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(self._measured.text(), media_type="text/plain; version=0.0.4")


def _told(task: asyncio.Task[None]) -> None:
    """Log what ended a task that nobody waits for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        known = isinstance(error, EraError)
        _logger.error("%s", escaped(str(error)), exc_info=None if known else error)


async def _apart(function: Callable[[], Any], long: bool) -> Any:
    """Call a function, in another thread where it takes long: others are served meanwhile."""
    return await asyncio.to_thread(function) if long else function()


async def _answered(work: Any) -> Any:
    """Wait for what was asked for; errors of ours become answers.

    Raises:
        ApiError: it fails, or takes too long.
    """
    try:
        return await asyncio.wait_for(work, ANSWER_SECONDS)
    except BusyError as error:
        seconds = {"Retry-After": str(round(error.seconds))}
        raise ApiError(429, str(error), code="busy", headers=seconds) from error
    except TimeoutError as error:
        raise ApiError(503, "It took too long.", headers={"Retry-After": "10"}) from error
    except InputError as error:
        raise ApiError(400, str(error)) from error
    except EraError as error:
        raise ApiError(500, str(error)) from error


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=_JSON)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    says = {404: "There is nothing here.", 405: "Not by this method."}
    message = says.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=dict(error.headers or {})).response()
