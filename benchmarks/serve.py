"""The endpoint beside the bare encoder, and under what clients and deployments do to it.

    python -m benchmarks.serve [--quick] [--only exchange]

Parts: ``speed`` (8 clients, one text each, against ``SentenceTransformer.encode`` of 8 texts, in
turns), ``exchange`` (every answer compared, while adapter folders are exchanged) and
``connections`` (1,000 of them, most of them silent or slow). About 6 minutes on two cores.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from click.testing import CliRunner
from demo_models import LARGE_NAME, SMALL_NAME, demo_models_dir

from benchmarks.common import NO_MODELS, Bar, demo_models, finish, skipped
from era_cache import QueryEncoder
from era_cache.cli import embed, fit
from era_cache.types import FloatArray

CLIENTS = 8
CLOSE = 1e-5
_PATIENCE = 60.0
"""Seconds in which each of the exchanged adapters must have answered."""
ROOT = Path(__file__).parent.parent


def _run(command: click.Command, *words: object) -> None:
    done = CliRunner().invoke(command, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def _fitted(folder: Path, large: Path, small: Path, candidates: dict[str, str], *more: str) -> None:
    """Adapters of the toy collection by name, in a folder."""
    toy = ROOT / "data" / "toy"
    pair = ["--query-model", large, "--doc-model", small, *more]
    _run(embed.main, toy, "--store", folder / "store", *pair)
    for name, candidate in candidates.items():
        words = ["--out", folder / name, "--set", "iterations=2", "--candidate", candidate]
        _run(fit.main, folder / "store", "toy", *words)


@contextlib.contextmanager
def _served(adapter: Path) -> Iterator[int]:
    """The port of a server in a process of its own, once its models are loaded."""
    command = [sys.executable, str(ROOT / "bin" / "era-serve"), f"toy={adapter}", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        port = int(running.stdout.readline().split(":")[2].split("/")[0])
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if asyncio.run(_asked(port, "GET", "/readyz"))[0] == 200:
                break
            time.sleep(0.2)
        try:
            yield port
        finally:
            running.terminate()


async def _asked(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    client = _Client(port)
    try:
        return await client.ask(method, path, body)
    finally:
        client.close()


class _Client:
    """One connection that stays open; a client as small as can be, as it shares the cores."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-len"))
        return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))

    async def vectors(self, texts: list[str]) -> FloatArray:
        request = {"model": "toy", "input": texts, "encoding_format": "base64"}
        status, answer = await self.ask("POST", "/v1/embeddings", json.dumps(request).encode())
        assert status == 200, answer
        rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
        return np.stack(rows)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


def _texts(count: int) -> list[str]:
    """Queries of about 40 tokens, each another: plain words, so that batches are alike."""
    words = re.findall("[a-z]{3,8}", (ROOT / "README.md").read_text("utf-8"))
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(words, 30)) for _ in range(count)]


def speed_bars(rounds: int, seconds: float) -> list[Bar]:
    """Throughput and tail against the bare encoder, in turns."""
    from sentence_transformers import SentenceTransformer

    models, texts = demo_models_dir(), _texts(256)
    bare_rate, served_rate, batch, tail, worst = [], [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = models / LARGE_NAME
        _fitted(folder, large, models / SMALL_NAME, {"a": "era-dual"})
        bare = SentenceTransformer(str(large), device="cpu")
        with _served(folder / "a") as port:
            for number in range(rounds + 1):
                times = _bare(bare.encode, texts, seconds)
                waits, rate = asyncio.run(_clients(port, texts, seconds))
                if number:  # the first warms both
                    bare_rate.append(CLIENTS / statistics.mean(times))
                    served_rate.append(rate)
                    batch.append(statistics.median(times))
                    worst.append(float(np.quantile(times, 0.99)) / batch[-1])
                    tail.append(float(np.quantile(waits, 0.99)))
    own = statistics.median(worst)
    ratio = statistics.median(s / b for s, b in zip(served_rate, bare_rate, strict=True))
    slow = statistics.median(t / b for t, b in zip(tail, batch, strict=True))
    rate = statistics.median(served_rate)
    return [
        Bar(
            "throughput, 8 clients, of the bare encoder's",
            "at least 0.9",
            f"{ratio:.2f} ({rate:.0f} texts/s)",
            ratio >= 0.9,
        ),
        Bar(
            "p99 of an answer, in the bare encoder's batches of 8",
            "under 2",
            f"{slow:.2f} ({1000 * statistics.median(tail):.0f} ms; its own p99 {own:.2f})",
            slow < 2,
        ),
    ]


def _bare(encode: Callable[..., Any], texts: list[str], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        start = len(times) * CLIENTS % len(texts)
        encode(texts[start : start + CLIENTS], batch_size=CLIENTS, show_progress_bar=False)
        times.append(time.perf_counter() - begun)
    return times


async def _clients(port: int, texts: list[str], seconds: float) -> tuple[list[float], float]:
    """Waits of each answer, and answers per second, of clients that ask one text at a time."""
    waits: list[float] = []
    begun = time.perf_counter()

    async def client(number: int) -> None:
        own, row = _Client(port), number
        while time.perf_counter() < begun + seconds:
            asked = time.perf_counter()
            await own.vectors([texts[row % len(texts)]])
            waits.append(time.perf_counter() - asked)
            row += CLIENTS
        own.close()

    await asyncio.gather(*map(client, range(CLIENTS)))
    return waits, len(waits) / (time.perf_counter() - begun)


class Small(NamedTuple):
    """A server of small models: its port, texts, and their vectors by each of some adapters.

    ``sources`` are the folders of the adapters, ``live`` is what is served: a copy of one of them.
    """

    port: int
    texts: list[str]
    known: FloatArray
    sources: list[Path]
    live: Path


@contextlib.contextmanager
def _small() -> Iterator[Small]:
    model = demo_models_dir() / SMALL_NAME
    texts = _texts(64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidates = {"a": "small", "b": "era-dual", "c": "era"}
        _fitted(folder, model, model, candidates, "--large-query-template", "Q: {text}")
        sources = [folder / one for one in candidates]
        known = np.stack([QueryEncoder(one).encode(texts) for one in sources])
        live = Path(shutil.copytree(sources[0], folder / "live"))
        with _served(live) as port:
            yield Small(port, texts, known, sources, live)


def exchange_bars(small: Small, answers: int) -> list[Bar]:
    """Compare every answer with those of the adapters that are exchanged meanwhile."""
    wrong, failed, exchanged, seen = asyncio.run(_compared(small, answers))
    return [
        Bar(
            f"wrong vectors in {answers:,} answers, adapters exchanged {exchanged:,} times",
            "0",
            f"{wrong} ({seen} adapters seen)",
            wrong == 0 and seen == len(small.sources),
        ),
        Bar("failed requests meanwhile", "0", str(failed), failed == 0),
    ]


async def _compared(small: Small, answers: int) -> tuple[int, int, int, int]:
    port, texts, known, sources, live = small
    wrong = failed = done = exchanged = 0
    seen: set[int] = set()
    generator = np.random.default_rng(1)
    begun = time.perf_counter()

    def going() -> bool:
        """A fast server has given all answers before it was to exchange every adapter."""
        waiting = len(seen) < len(known) and time.perf_counter() < begun + _PATIENCE
        return done < answers or waiting

    async def client() -> None:
        nonlocal wrong, failed, done
        own = _Client(port)
        while going():
            rows = generator.integers(len(texts), size=generator.integers(1, 9))
            done += len(rows)
            try:
                found = await own.vectors([texts[row] for row in rows])
            except (OSError, AssertionError, asyncio.IncompleteReadError):
                failed += 1
                own.close()
                own = _Client(port)
                continue
            near = np.abs(known[:, rows] - found).max(axis=(1, 2)) < CLOSE
            wrong += 0 if near.any() else len(rows)
            seen.update(np.flatnonzero(near).tolist())
        own.close()

    async def exchange() -> None:
        nonlocal exchanged
        while going():
            # Not in step with the server, which looks for another folder at fixed times.
            await asyncio.sleep(generator.uniform(0.1, 0.7))
            await asyncio.to_thread(_exchange, sources[(exchanged + 1) % len(sources)], live)
            exchanged += 1

    await asyncio.gather(exchange(), *(client() for _ in range(2 * CLIENTS)))
    return wrong, failed, exchanged, len(seen)


def _exchange(source: Path, target: Path) -> None:
    new, old = target.with_name("new"), target.with_name("old")
    shutil.copytree(source, new)
    target.rename(old)
    new.rename(target)
    shutil.rmtree(old)


def connection_bars(small: Small, connections: int, answers: int) -> list[Bar]:
    """Ask while most connections are silent, slow, or cut in the middle of a request."""
    right, seconds = asyncio.run(_held(small, connections, answers))
    return [
        Bar(
            f"right answers to {answers} requests beside {connections:,} bad connections",
            str(answers),
            f"{right} in {seconds:.1f} s",
            right == answers,
        )
    ]


async def _held(small: Small, connections: int, answers: int) -> tuple[int, float]:
    port, texts = small.port, small.texts
    _exchange(small.sources[0], small.live)  # whatever was served before
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        first = _Client(port)
        found = await first.vectors(texts[:1])
        first.close()
        if np.abs(found[0] - small.known[0, 0]).max() < CLOSE:
            break
        await asyncio.sleep(0.5)
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n\r\n"
    held = []
    stop = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter, number: int) -> None:
        data = (b"", head[:20].encode(), head.encode(), head.encode() + b'{"input"')[number % 4]
        writer.write(data)
        with contextlib.suppress(OSError):
            while not stop.is_set():
                if number % 8 == 7:
                    writer.close()
                    return
                writer.write(b" " if data else b"")
                await writer.drain()
                await asyncio.sleep(2)

    for number in range(connections):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        held.append(asyncio.create_task(slow(writer, number)))
    begun = time.perf_counter()
    right = 0
    for number in range(answers):
        client, row = _Client(port), number % len(texts)
        found = await client.vectors([texts[row]])
        right += int(np.abs(found[0] - small.known[0, row]).max() < CLOSE)
        client.close()
    seconds = time.perf_counter() - begun
    stop.set()
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    return right, seconds


FULL: dict[str, Callable[[Callable[[], Small]], list[Bar]]] = {
    "speed": lambda _: speed_bars(5, 15),
    "exchange": lambda small: exchange_bars(small(), 100_000),
    "connections": lambda small: connection_bars(small(), 1000, 500),
}
QUICK: dict[str, Callable[[Callable[[], Small]], list[Bar]]] = {
    "speed": lambda _: speed_bars(2, 3),
    "exchange": lambda small: exchange_bars(small(), 20_000),
    "connections": lambda small: connection_bars(small(), 300, 50),
}


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print the bars as JSON.")
@click.option("--only", multiple=True, type=click.Choice(list(FULL)), help="Run this part only.")
def main(quick: bool, as_json: bool, only: tuple[str, ...]) -> None:
    """Measure the endpoint."""
    parts = QUICK if quick else FULL
    if demo_models() is None:
        finish([skipped("the endpoint", NO_MODELS)], as_json=as_json)
    with contextlib.ExitStack() as stack:
        small = functools.cache(lambda: stack.enter_context(_small()))
        bars = [bar for name in only or parts for bar in parts[name](small)]
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
