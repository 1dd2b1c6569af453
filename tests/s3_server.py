"""An S3 server on this machine, and a way to it on which anything can go wrong."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

__all__ = ["Way", "s3", "way"]


class Way:
    """A proxy before the server.

    ``fault`` is asked of each request (method, path with query) and gives None, "busy" (503),
    "cut" (the answer breaks off half way) or "slow". ``lag`` seconds long, listings stay as they
    were. ``seen`` counts bytes of answers by path; ``asked`` lists the requests.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self.fault: Callable[[str, str], str | None] = lambda _method, _path: None
        self.lag = 0.0
        self._listings: dict[str, tuple[float, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.bytes = 0
        self._lock = threading.Lock()
        way = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

        for verb in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{verb}", lambda request: way.pass_on(request))
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.proxy.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.proxy.server_address[1]}"
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = self._body(request)
        fault = self.fault(request.command, request.path)
        with self._lock:
            self.asked.append((request.command, request.path))
        if fault == "slow":
            time.sleep(0.3)
        if fault == "busy":
            self._answer(request, 503, {}, b"")
            return
        status, headers, answer = self._forward(request, body)
        with self._lock:
            self.bytes += len(answer)
        if fault == "cut" and request.command == "HEAD":
            request.close_connection = True
        elif fault == "cut":
            request.send_response(status)
            request.send_header("Content-Length", str(len(answer) + 10))
            request.end_headers()
            request.wfile.write(answer[: len(answer) // 2])
            request.wfile.flush()
            request.connection.close()
            request.close_connection = True
        else:
            self._answer(request, status, headers, answer)

    @staticmethod
    def _body(request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(request.rfile.readline().split(b";")[0], 16):
                found += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
            return found
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> Any:
        listing = request.command == "GET" and "list-type=2" in request.path
        if listing and self.lag:
            when, kept = self._listings.get(request.path, (0.0, None))
            if time.monotonic() - when < self.lag:
                return kept
        connection = http.client.HTTPConnection(*self._server, timeout=30)
        drop = {"transfer-encoding", "content-length", "connection"}
        headers = {k: v for k, v in request.headers.items() if k.lower() not in drop}
        connection.request(request.command, request.path, body or None, headers)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        if listing:
            self._listings[request.path] = time.monotonic(), found
        return found

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, headers: Any, body: bytes) -> None:
        request.send_response(status)
        drop = {"content-length", "transfer-encoding", "connection", "date", "server"}
        for name, value in headers.items():
            if name.lower() not in drop:
                request.send_header(name, value)
        length = headers.get("Content-Length") if request.command == "HEAD" else len(body)
        request.send_header("Content-Length", str(length or 0))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextlib.contextmanager
def _serving(monkeypatch: pytest.MonkeyPatch, address: Callable[[str, int], str]) -> Iterator[Any]:
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    values = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address(*running.get_host_and_port()),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    try:
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        bucket = f"bucket-{uuid.uuid4()}"  # the server's memory is that of this process
        files.mkdir(bucket)
        yield files, f"s3://{bucket}/team/store"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        running.stop()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server on this machine: (fsspec's file system, URL of an empty bucket)."""
    with _serving(monkeypatch, lambda host, port: f"http://{host}:{port}") as found:
        yield found


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str, Way]]:
    """The same behind a ``Way``, which comes third."""
    made: list[Way] = []

    def through(host: str, port: int) -> str:
        made.append(Way(host, port))
        return made[0].url

    with _serving(monkeypatch, through) as (files, url):
        yield files, url, made[0]
        made[0].proxy.shutdown()
        made[0].proxy.server_close()
