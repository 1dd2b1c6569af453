"""One thread that runs models, and the requests that wait for it.

In: texts of many requests at a time. Out: each request's vectors. What waits is encoded together;
how much may wait is bounded, so that a busy server says so instead of growing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from era_cache.errors import EraError
from era_cache.types import FloatArray

__all__ = ["BUSY", "Batches", "BusyError", "Target"]

BATCH_TEXTS = 64
MOST_WAITING = 4096
"""Texts that may wait, and ten times the calls."""
LINGER_SECONDS, LINGER_SHARE = 0.002, 0.15
"""How long a batch that is not full waits for requests that are on their way: this long, or this
share of the time that the last one took. It goes as soon as whoever was answered last is back."""
BUSY = "Too much is waiting already. Ask again later."
_T = TypeVar("_T")


class BusyError(EraError):
    """The server has as much to do as it takes on; ``seconds`` until it may have less."""

    def __init__(self, seconds: float) -> None:
        super().__init__(BUSY)
        self.seconds = seconds


class Target(Protocol):
    """What encodes texts of one name."""

    def encode(self, texts: Sequence[str], instructions: Sequence[str]) -> FloatArray:
        """Vectors (n, d) float32."""


class _Piece(NamedTuple):
    target: Target
    texts: Sequence[str]
    instructions: Sequence[str]
    answer: asyncio.Future[FloatArray]


class Batches:
    """The thread, and what waits for it.

    Args:
        watch: told the number of texts of each batch and how long it took.
        thread: an executor of one thread, if models ran there before. In a second thread they get
            a second pool of workers, and with more workers than cores GNU OpenMP hardly waits for
            them actively: small models took a fifth longer.
    """

    def __init__(
        self,
        watch: Callable[[int, float], None] = lambda _texts, _seconds: None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="models")
        self._pieces: deque[_Piece] = deque()
        self._arrived = asyncio.Event()
        self._watch = watch
        self._calls = 0
        self._rate = 100.0
        self._last = (0, 0.0)
        """Requests that were there when the last batch ended, those that it answered among them;
        and the seconds that it took."""
        self.waiting = 0

    async def encode(
        self, target: Target, texts: Sequence[str], instructions: Sequence[str]
    ) -> FloatArray:
        """Encode texts, together with what else waits.

        A long list goes in parts, so that others come in between.

        Raises:
            BusyError: too much is waiting.
            EraError: the model fails on one of these texts.
        """
        if self.waiting + len(texts) > MOST_WAITING:
            raise BusyError(min(60.0, max(1.0, self.waiting / self._rate)))
        self.waiting += len(texts)
        done: list[FloatArray] = []
        try:
            for start in range(0, len(texts), BATCH_TEXTS):
                part = slice(start, start + BATCH_TEXTS)
                answer: asyncio.Future[FloatArray] = asyncio.get_running_loop().create_future()
                self._pieces.append(_Piece(target, texts[part], instructions[part], answer))
                self._arrived.set()
                done.append(await answer)
        finally:
            self.waiting -= len(texts)
        return np.concatenate(done)

    async def call(self, function: Callable[[], _T], *, always: bool = False) -> _T:
        """Run a function in the thread of the models.

        Args:
            function: to run.
            always: it is not a client's, and may wait however much is waiting.

        Raises:
            BusyError: too much is waiting.
        """
        if not always and self._calls >= MOST_WAITING // 10:
            raise BusyError(1.0)
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._calls -= 1

    async def run(self) -> None:
        """Encode what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pieces:
                await self._linger()
                batch = self._taken()
                if batch:
                    await self._encode(batch)

    async def _linger(self) -> None:
        """Wait a little for those that were answered last: apart they would stay apart."""
        expected, seconds = self._last
        end = time.perf_counter() + max(LINGER_SECONDS, LINGER_SHARE * seconds)
        while self._size() < BATCH_TEXTS and len(self._pieces) < expected:
            left = end - time.perf_counter()
            if left <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def close(self) -> None:
        """Let the thread end with what it is doing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _size(self) -> int:
        return sum(len(piece.texts) for piece in self._pieces)

    def _taken(self) -> list[_Piece]:
        """The pieces of one batch; one whose client is gone is dropped."""
        batch: list[_Piece] = []
        texts = 0
        while self._pieces and (not batch or texts + len(self._pieces[0].texts) <= BATCH_TEXTS):
            piece = self._pieces.popleft()
            if not piece.answer.done():
                batch.append(piece)
                texts += len(piece.texts)
        return batch

    async def _encode(self, batch: list[_Piece]) -> None:
        begun = time.perf_counter()
        results = await self.call(
            lambda: [_tried(group) for group in _by_target(batch)], always=True
        )
        seconds = time.perf_counter() - begun
        texts = sum(len(piece.texts) for piece in batch)
        self._rate = 0.9 * self._rate + 0.1 * texts / max(seconds, 1e-6)
        self._last = len(self._pieces) + len(batch), seconds
        self._watch(texts, seconds)
        for answers in results:
            for piece, answer in answers:
                if piece.answer.done():
                    continue
                if isinstance(answer, BaseException):
                    piece.answer.set_exception(answer)
                else:
                    piece.answer.set_result(answer)


def _by_target(batch: Sequence[_Piece]) -> list[list[_Piece]]:
    groups: dict[int, list[_Piece]] = {}
    for piece in batch:
        groups.setdefault(id(piece.target), []).append(piece)
    return list(groups.values())


def _tried(pieces: list[_Piece]) -> list[tuple[_Piece, Any]]:
    """Encode the texts of one target together; where that fails, each request alone."""
    try:
        return list(zip(pieces, _encoded(pieces), strict=True))
    except Exception as error:  # noqa: BLE001 - each request is told its own
        if len(pieces) == 1:
            return [(pieces[0], error)]
        return [one for piece in pieces for one in _tried([piece])]


def _encoded(pieces: list[_Piece]) -> list[FloatArray]:
    texts = [text for piece in pieces for text in piece.texts]
    instructions = [said for piece in pieces for said in piece.instructions]
    vectors = pieces[0].target.encode(texts, instructions)
    ends = np.cumsum([len(piece.texts) for piece in pieces])
    return np.split(vectors, ends[:-1])
