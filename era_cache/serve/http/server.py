"""The server that runs the application: its socket, its limits, and how it ends.

In: an application, where it listens. Out: answers, until it is told to stop; then the requests that
are under way are finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from era_cache.errors import InputError
from era_cache.serve.gate import Gate, bind_address
from era_cache.serve.http.app import App

__all__ = ["DEFAULT_PORT", "Server"]

DEFAULT_PORT = 8750
HEAD_SECONDS = 10.0
"""In which a request's head must have come."""
MOST_HEAD = 1 << 20
"""Bytes of a head; what comes with it is counted, too."""
KEEP_SECONDS = 75
"""How long a connection may stay open without a request; load balancers keep theirs for 60."""
STOP_SECONDS = 30
_CONNECTIONS = 8192
_FILES_LEFT = 128
"""Descriptors for everything but connections."""


class _Impatient(HttpToolsProtocol):
    """Closes connections whose request does not come: each costs one that could be served."""

    _patience: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._patience is not None:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._give_up()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._head = 0
        self._patience = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class Server:
    """Serves one application.

    Args:
        app: what is served.
        host: to listen on.
        port: 0 takes any free one.
        token: that every request must show; needed unless the host is loopback.
        names: other names than the host's by which the server is reached, as a proxy passes them.

    Raises:
        InputError: the host is unknown or not loopback, or the port cannot be had.
    """

    def __init__(
        self,
        app: App,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        names: Sequence[str] = (),
    ) -> None:
        family, address = bind_address(host, has_token=token is not None)
        self._socket = _bound(family, host, address, port)
        self.port = int(self._socket.getsockname()[1])
        try:
            app.gate = Gate(host, address, self.port, token, names)
        except InputError:
            self._socket.close()
            raise
        name = f"[{host}]" if ":" in host else host
        self.base = f"http://{name}:{self.port}/"
        self.url = self.base + (f"?token={token}" if token else "")
        config = uvicorn.Config(
            app.asgi,
            http=_Impatient,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,  # addresses hold what people search for, and perhaps the token
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            limit_concurrency=_most_connections(),
            backlog=2048,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until a signal, or ``stop`` from another thread."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _end)
        try:
            # Both are raised again once what was under way is finished.
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Tell a server that runs in another thread to end."""
        self._server.should_exit = True

    @property
    def started(self) -> bool:
        """Whether it answers."""
        return bool(self._server.started)

    def close(self) -> None:
        """Give up the port of a server that does not run, or no longer."""
        self._socket.close()


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def _bound(family: socket.AddressFamily, host: str, address: str, port: int) -> socket.socket:
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else answers that are
    # written in two parts wait 40 ms for the client's acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host} is no address of this machine.") from error
        why = {errno.EADDRINUSE: "is taken", errno.EACCES: "needs more rights"}
        raise InputError(
            f"Port {port} on {host} {why.get(error.errno or 0, f'fails: {error.strerror}')}. "
            "Choose another with --port; 0 takes any free one."
        ) from error
    return listening


def _most_connections() -> int:
    """As many as there may be descriptors for, up to a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _FILES_LEFT
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(16, min(_CONNECTIONS, soft - _FILES_LEFT))
