"""What every request passes: who may ask, how much and how long, and the headers of answers.

In: an ASGI application. Out: one that lets in whom the gate lets in, counts, and answers errors in
one form.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from era_cache.serve.gate import Gate
from era_cache.serve.http.measured import Measured
from era_cache.serve.http.openai import ApiError
from era_cache.serve.page import search_page

__all__ = ["Guard", "read_body"]

OPEN = ("/healthz", "/readyz")
"""What whoever watches over the server may ask without a token, by any name."""
MOST_BODY = 8 << 20
MOST_DISCARDED = 64 << 20
BODY_SECONDS = 20.0
_logger = logging.getLogger(__name__)


class Guard:
    """The application, guarded.

    Args:
        app: what is guarded.
        gate: who is let in.
        measured: what counts.
        paths: that exist; others are counted together.
    """

    def __init__(
        self, app: ASGIApp, gate: Callable[[], Gate], measured: Measured, paths: Sequence[str]
    ) -> None:
        self._app, self._gate, self._measured = app, gate, measured
        self._paths = frozenset(paths)
        self._headers = [(name.encode(), value.encode()) for name, value in _headers().items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        status, begun = 500, time.perf_counter()

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                have = {name.lower() for name, _ in message["headers"]}
                more = [one for one in self._headers if one[0].lower() not in have]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            _check_address(scope)
            refused = self._refused(Request(scope))
            if refused is not None:
                await refused.response()(scope, receive, answered)
            else:
                await self._app(scope, receive, answered)
        except ApiError as error:
            await error.response()(scope, receive, answered)
        except ClientDisconnect:
            status = 499  # as proxies count those that went away
        except Exception:
            _logger.exception("a request failed")
            failed = ApiError(500, "The server failed on this; its log says why.")
            await failed.response()(scope, receive, answered)
        finally:
            self._measured.requests.labels(path, str(status)).inc()
            self._measured.seconds.labels(path).observe(time.perf_counter() - begun)

    def _refused(self, request: Request) -> ApiError | None:
        if request.url.path in OPEN:
            return None
        gate = self._gate()
        headers = request.headers
        if not gate.knows_host(headers.getlist("host")):
            return ApiError(
                403,
                "This server goes by another name. Use the address that it printed, or name this "
                "one at its start (--name).",
            )
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [bearer.strip()] if scheme.lower() == "bearer" else []
        shown += request.query_params.getlist("token")
        if not gate.admits(shown, headers.getlist("cookie")):
            return ApiError(
                401 if request.url.path.startswith("/v1/") else 403,
                "Not without the token. Open the whole address that was printed at the start, or "
                "send it as the API key.",
                code="invalid_api_key",
            )
        # Browsers say where a request comes from: another site's pages have no business here.
        if request.url.path != "/" and headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            return ApiError(403, "Not from another site.")
        return None


def _check_address(scope: Scope) -> None:
    try:
        query = scope["query_string"].decode("ascii")
        parse_qs(query, keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:  # also: not UTF-8
        raise ApiError(400, "The address cannot be read.") from None


def _headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": search_page().policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


async def read_body(request: Request) -> bytes:
    """The body of a request, if it is not too long and comes soon.

    Raises:
        ApiError: it is too long, or the client is too slow.
    """
    body, length = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length <= MOST_BODY:
                    body += part
                elif length > MOST_DISCARDED:
                    break
    except TimeoutError:
        raise ApiError(408, "The request did not come in time.", headers=_CLOSE) from None
    if length > MOST_BODY:
        # Most of what is too long was read: who hangs up while a client writes is not understood.
        message = f"The body is longer than {MOST_BODY >> 20} MiB."
        raise ApiError(413, message, headers=_CLOSE)
    return bytes(body)


_CLOSE = {"Connection": "close"}
