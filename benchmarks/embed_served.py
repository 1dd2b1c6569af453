"""Models behind an address, part of ``python -m benchmarks.embed``.

A server of its own process answers with vectors that are known, fails in a fifth of its answers in
all the ways that servers do, and says at the end what it was asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Bar
from benchmarks.embedding_server import vector_of
from era_cache.collection.records import Dropped, TextCollection
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.encode.encoder import EncoderSettings, open_encoder
from era_cache.encode.service import Budget, ServiceSettings
from era_cache.errors import EncoderError
from era_cache.store.store import Store
from era_cache.types import Role

__all__ = ["documents_alone", "faulty_server", "many_at_once"]

_DIM = 256


class _Server:
    """The server as a process; ``said`` is what it was asked, once it has ended."""

    def __init__(self, *options: object) -> None:
        words = [sys.executable, "-m", "benchmarks.embedding_server", "--dim", _DIM, *options]
        self._process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.said: dict[str, Any] = {}

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        told, _err = self._process.communicate("\n", timeout=60)
        self.said = json.loads(told)

    def encoder(self, *, batch_tokens: int = 8192, **limits: Any) -> Any:
        settings = EncoderSettings(batch_tokens=batch_tokens, service=ServiceSettings(**limits))
        return open_encoder(f"openai:made@{self.address}", settings)


def documents_alone(texts: list[str]) -> TextCollection:
    """A collection without queries."""
    return TextCollection(
        name="bench",
        domain="",
        ignore_identical_ids=False,
        doc_ids=[f"d{n}" for n in range(len(texts))],
        doc_texts=texts,
        query_ids=[],
        query_texts=[],
        instructions=[],
        splits={},
        dropped=Dropped(),
    )


def faulty_server(count: int) -> list[Bar]:
    """Encode through faults, stopped once by its budget; every vector is compared."""
    texts = documents_alone(
        [f"text number {n} of a corpus, which says {n * n % 977}" for n in range(count)]
    )
    config = EmbedConfig(dtype="float32", align_documents=1)
    words = sum(len(text.split()) for text in texts.doc_texts)
    with tempfile.TemporaryDirectory() as folder, _Server("--faults", 0.2) as server:
        store = Store.create(Path(folder) / "store")
        start = time.perf_counter()
        for most in (0.5 * words * 1e-6, None):
            encoder = server.encoder(price=1.0, budget=Budget(most))
            try:
                embed_collection(store, texts, large=encoder, small=encoder, config=config)
            except EncoderError as error:
                if most is None or "--max-cost" not in str(error):
                    raise
        seconds = time.perf_counter() - start
        (stored,) = [one for one in store.encoders() if one.spec.role is Role.DOCUMENT]
        keys = store.collection("bench").doc_keys
        missing = int((stored.index().positions(keys) < 0).sum())
        right = np.stack([vector_of(text, _DIM) for text in texts.doc_texts])
        wrong = int((stored.vectors(keys) != right).any(axis=1).sum()) if not missing else count
    failed = sum(server.said["failed"].values())
    twice = [text for text in server.said["twice"] if text.startswith("text number")]
    through = f"{wrong} of {count:,} ({failed:,} faulty answers, {seconds:.0f} s)"
    return [
        Bar("wrong vectors through a server with 20 % faults", "0", through, wrong == 0),
        Bar("missing vectors", "0", str(missing), missing == 0),
        Bar("texts asked for again after they were stored", "0", str(len(twice)), not twice),
    ]


def many_at_once(count: int) -> Bar:
    """The same requests one after another and sixteen at once, 50 ms each."""
    texts = [f"text number {n:06d}" for n in range(count)]
    with _Server("--seconds", 0.05) as server:
        seconds = {}
        for in_flight in (1, 16):
            encoder = server.encoder(in_flight=in_flight, batch_tokens=8 * 5)
            list(encoder.encode(texts[:8], Role.QUERY))
            start = time.perf_counter()
            list(encoder.encode(texts, Role.QUERY))
            seconds[in_flight] = time.perf_counter() - start
    ratio = seconds[1] / seconds[16]
    shown = f"{ratio:.1f} ({seconds[1]:.1f} s, {seconds[16]:.2f} s)"
    return Bar("16 requests in flight against one", ">= 10", shown, ratio >= 10)
