"""A server of OpenAI's embeddings protocol whose vectors are known, and which fails as servers do.

    python -m benchmarks.embedding_server --faults 0.2 --seconds 0.05

prints its address. Vectors are digests of the texts, so that whoever asks can tell a wrong one. In:
requests. Out: answers, of which some share is wrong in one of ``FAULTS``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from era_cache.types import FloatArray

__all__ = ["FAULTS", "EmbeddingServer", "vector_of"]

FAULTS = (
    "429",
    "500",
    "slow",
    "cut",
    "wrong dimension",
    "NaN",
    "reordered",
    "quarter width",
    "duplicate",
    "no JSON",
    "zeros",
    "other model",
)
_SLOW_SECONDS = 0.5


def vector_of(text: str, dim: int, seed: str = "") -> FloatArray:
    """What the server answers for a text, (dim,) float32."""
    digest = hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    random_of = np.random.default_rng(int.from_bytes(digest, "little"))
    return random_of.standard_normal(dim).astype(np.float32)


class EmbeddingServer(ThreadingHTTPServer):
    """Serves on a port of its own until the ``with`` block ends.

    Args:
        dim: width of the vectors.
        seconds: that every answer takes.
        faults: share of requests that fail.
        kinds: in what way, one of them at random.
        most_texts: of a request; more are refused with 413.
        most_bytes: of a text; longer ones are refused with 400.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        *,
        dim: int = 32,
        seconds: float = 0.0,
        faults: float = 0.0,
        kinds: tuple[str, ...] = FAULTS,
        most_texts: int = 10_000,
        most_bytes: int = 1 << 20,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dim, self.seconds, self.faults, self.kinds = dim, seconds, faults, kinds
        self.most_texts, self.most_bytes = most_texts, most_bytes
        self.seed = ""
        self.asked: Counter[str] = Counter()
        """Texts of requests that were answered in full, with how often."""
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.failed: Counter[str] = Counter()
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.random = random.Random(7)

    @property
    def address(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> EmbeddingServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: EmbeddingServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        texts = body["input"]
        with server.lock:
            server.bodies.append(body)
            server.keys.add(self.headers.get("authorization", ""))
            server.open += 1
            server.most_open = max(server.most_open, server.open)
            fault = ""
            if server.random.random() < server.faults:
                fault = server.random.choice(server.kinds)
                server.failed[fault] += 1
        try:
            time.sleep(server.seconds)
            if len(texts) > server.most_texts:
                self._refuse(413, f"batch size {len(texts)} > {server.most_texts}")
            elif any(len(text.encode()) > server.most_bytes for text in texts):
                self._refuse(400, "maximum context length exceeded")
            elif fault in ("429", "500"):
                self._refuse(int(fault), "try again")
            else:
                self._answer(texts, body, fault)
        finally:
            with server.lock:
                server.open -= 1

    def _answer(self, texts: list[str], body: dict[str, Any], fault: str) -> None:
        server = self.server
        dim = int(body.get("dimensions") or server.dim)
        rows = [vector_of(text, server.dim, server.seed)[:dim].tolist() for text in texts]
        numbers = list(range(len(texts)))
        if fault == "slow":
            time.sleep(_SLOW_SECONDS)
        elif fault == "wrong dimension":
            rows[-1] = rows[-1][:-1]
        elif fault == "quarter width":
            rows = [row[: dim // 4] for row in rows]
        elif fault == "NaN":
            rows[-1][0] = float("nan")
        elif fault == "zeros":
            rows[-1] = [0.0] * dim
        elif fault == "duplicate":
            numbers[-1], rows[-1] = numbers[0], rows[0]
            numbers[0] = numbers[-1] if len(numbers) > 1 else 1
        data = [
            {"object": "embedding", "index": number, "embedding": row}
            for number, row in zip(numbers, rows, strict=True)
        ]
        if fault == "reordered":
            server.random.shuffle(data)
        used = sum(len(text.split()) for text in texts)
        said = "another" if fault == "other model" else body["model"]
        answer = {
            "object": "list",
            "data": data,
            "model": said,
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }
        sent = json.dumps(answer).encode()
        if fault == "no JSON":
            sent = b"<html>502</html>" + sent[16:]
        if fault in ("", "slow", "reordered"):
            with server.lock:
                server.asked.update(texts)
        self._send(200, sent, cut=fault == "cut")

    def _refuse(self, status: int, message: str) -> None:
        said = {"error": {"message": f"{message} {self.headers.get('authorization')}"}}
        self._send(status, json.dumps(said).encode())

    def _send(self, status: int, body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if status == 429:
            self.send_header("retry-after", "0.05")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def main() -> None:
    """Serve until the input ends; then print what was asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    with EmbeddingServer(**vars(given)) as server:
        print(server.address, flush=True)
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            input()
        twice = [text for text, count in server.asked.items() if count > 1]
        said = {"texts": len(server.asked), "twice": twice, "failed": server.failed}
        print(json.dumps({**said, "open": server.most_open}))


if __name__ == "__main__":
    main()
