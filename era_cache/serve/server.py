"""The search page's server: one page and three JSON answers, on loopback unless a token is set.

In: a ``Lookup``. Out: HTTP. Only GET; no file is served; nothing is written; searches take turns,
as models are not made for several threads.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import socketserver
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from era_cache import __version__
from era_cache.errors import EraError, InputError
from era_cache.fitting.candidates import described
from era_cache.serve.answer import to_json
from era_cache.serve.engine import Lookup
from era_cache.serve.gate import Gate, bind_address
from era_cache.serve.page import search_page

__all__ = ["DEFAULT_PORT", "SearchServer"]

DEFAULT_PORT = 8750
MOST_QUERY = 4000
"""Characters of a query or an instruction."""
MOST_SHOWN = 100
"""Documents of a ranking that a request may ask for."""
_TEXT_SENT = 1000
_CONNECTIONS = 64
_logger = logging.getLogger(__name__)


class SearchServer(ThreadingHTTPServer):
    """Serves one lookup.

    Args:
        lookup: what is searched.
        shown: candidates that the page compares at first.
        host: to listen on.
        port: 0 takes any free one.
        token: that every request must show; needed unless the host is loopback.
        seed: of the random queries; None is another each time.

    Raises:
        InputError: the host is unknown or not loopback, or the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = _CONNECTIONS

    def __init__(
        self,
        lookup: Lookup,
        shown: list[str],
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.address_family, address = bind_address(host, has_token=token is not None)
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InputError(f"--host {host} is no address of this machine.") from error
            why = {errno.EADDRINUSE: "is taken", errno.EACCES: "needs more rights"}
            raise InputError(
                f"Port {port} on {host} {why.get(error.errno or 0, f'fails: {error.strerror}')}. "
                "Choose another with --port; 0 takes any free one."
            ) from error
        self.lookup, self.shown = lookup, shown
        self.gate = Gate(host, address, self.server_port, token)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.server_port}/" + (f"?token={token}" if token else "")
        self.turn = threading.Lock()
        self.generator = np.random.default_rng(seed)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's full name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a request, unless there are too many already."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what is ours to mend; a client that went away is not."""
        del request, client_address
        _logger.exception("a request failed")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, then closes: HTTP/1.0, so that no request can hide behind another."""

    server: SearchServer
    server_version, sys_version = "era-search", ""
    timeout = 10  # seconds that a client may stay silent

    def do_GET(self) -> None:
        """Let in whom the gate lets in, and answer."""
        try:
            parts = urlsplit(self.path)
            given = parse_qs(
                parts.query, keep_blank_values=True, max_num_fields=20, errors="strict"
            )
        except ValueError:  # also: not UTF-8
            self._tell(HTTPStatus.BAD_REQUEST, "The address cannot be read.")
            return
        values = {name: found[0] for name, found in given.items()}
        gate = self.server.gate
        if not gate.knows_host(self.headers.get_all("Host", [])):
            self._tell(
                HTTPStatus.FORBIDDEN,
                "This server goes by another name. Open the address that era-search printed.",
            )
            return
        if not gate.admits(values.get("token"), self.headers.get_all("Cookie", [])):
            self._tell(
                HTTPStatus.FORBIDDEN,
                "Not without the token. Open the whole address that era-search printed.",
            )
            return
        cookie = gate.cookie() if "token" in values else {}
        if parts.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", search_page().content, cookie)
        elif parts.path in _ANSWERS:
            self._api(parts.path, values, cookie)
        else:
            self._tell(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _refuse(self) -> None:
        self._tell(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET.", {"Allow": "GET"})

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = _refuse  # noqa: N815

    def _api(self, path: str, values: Mapping[str, str], headers: Mapping[str, str]) -> None:
        # Browsers say where a request comes from: another site's pages have no business here.
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._tell(HTTPStatus.FORBIDDEN, "Not from another site.")
            return
        try:
            with self.server.turn:
                answer = _ANSWERS[path](self.server, values)
        except EraError as error:
            wrong = isinstance(error, InputError)
            status = HTTPStatus.BAD_REQUEST if wrong else HTTPStatus.INTERNAL_SERVER_ERROR
            self._tell(status, str(error))
            return
        except Exception:
            self._tell(HTTPStatus.INTERNAL_SERVER_ERROR, "The search failed; era-search says why.")
            raise
        self._send(HTTPStatus.OK, "application/json", json.dumps(answer).encode(), headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses, such as a request line that is too long."""
        del explain
        self._tell(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def _tell(
        self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, "application/json", body, headers or {})

    def _send(
        self, status: HTTPStatus, content_type: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        self.close_connection = True
        self.request_version = "HTTP/1.0"  # an older one would get no headers, so no policy
        try:
            self.send_response(status)
            for name, value in {
                "Content-Type": content_type,
                "Content-Length": str(len(body)),
                "Content-Security-Policy": search_page().policy,
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cache-Control": "no-store",
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (ConnectionError, TimeoutError):
            pass  # the client went away

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: addresses hold what people search for, and perhaps the token."""


def _about(server: SearchServer, values: Mapping[str, str]) -> dict[str, Any]:
    """What the page must know before the first search."""
    del values
    source = server.lookup.source
    return {
        "version": __version__,
        "collection": source.collection.name,
        "documents": len(source.collection.doc_ids),
        "queries": len(source.collection.query_ids),
        "candidates": [
            {
                "name": name,
                "kind": described(name),
                "chosen": name == source.chosen,
                "shown": name in server.shown,
            }
            for name in server.lookup.adapters
        ],
        "instruction": source.takes_instruction,
        "models": sorted(server.lookup.models),
        "texts": server.lookup.texts is not None,
        "most": {"query": MOST_QUERY, "documents": MOST_SHOWN},
    }


def _random(server: SearchServer, values: Mapping[str, str]) -> dict[str, Any]:
    del values
    return {"id": server.lookup.random_id(server.generator)}


def _search(server: SearchServer, values: Mapping[str, str]) -> dict[str, Any]:
    text, instruction = values.get("query", ""), values.get("instruction", "")
    if max(len(text), len(instruction)) > MOST_QUERY:
        raise InputError(f"A query may have {MOST_QUERY:,} characters at most.")
    shown = values.get("k", "10")
    if not re.fullmatch("[0-9]{1,3}", shown) or not 1 <= int(shown) <= MOST_SHOWN:
        raise InputError(f"k: expected a whole number from 1 to {MOST_SHOWN}.")
    names = values["candidates"].split(",") if values.get("candidates") else server.shown
    depth = int(shown)
    if values.get("id"):
        answer = server.lookup.find_id(values["id"], names=names, depth=depth)
    else:
        answer = server.lookup.find(text, instruction, names=names, depth=depth)
    return to_json(answer, most_text=_TEXT_SENT)


_ANSWERS = {"/api/about": _about, "/api/search": _search, "/api/random": _random}
