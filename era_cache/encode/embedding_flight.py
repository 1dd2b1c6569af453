"""Requests that are open and those that wait: how many, how large, and what of a refused one.

In: texts and rows of requests. Out: answers as they come; batches are halved where a server refuses
them, and no larger ones are sent once the halves were answered.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from era_cache.encode.embedding_answer import Answer
from era_cache.encode.embedding_client import EmbeddingClient
from era_cache.encode.service import most_tokens
from era_cache.errors import EncoderError

__all__ = ["MOST_TEXTS", "Batch", "Flight"]

MOST_TEXTS = 128
"""Texts of one request, before a server is known to allow fewer."""
_SECONDS_TO_LAND = 30.0
_LOOK_UP = 0.1
"""Seconds after which an interrupt is noticed while answers are waited for."""


class _Split:
    """A request that was refused as a whole, and how many of its halves were answered."""

    def __init__(self) -> None:
        self.answered = 0


class Batch(NamedTuple):
    """Rows of one request."""

    rows: list[int]
    part_of: _Split | None = None

    def halves(self) -> list[Batch]:
        """Two of them, of a request that was refused as a whole."""
        middle, split = (len(self.rows) + 1) // 2, _Split()
        return [Batch(self.rows[:middle], split), Batch(self.rows[middle:], split)]

    def answered(self) -> int | None:
        """Count an answer; texts of a request that the server allows, where both halves were."""
        if self.part_of is None:
            return None
        self.part_of.answered += 1
        return len(self.rows) if self.part_of.answered == 2 else None


class Flight:
    """Requests that are open, and those that wait for their turn.

    Args:
        client: that sends them.
        texts: all.
        batches: rows of each request.
        width: requests that may be open at once.
    """

    def __init__(
        self, client: EmbeddingClient, texts: Sequence[str], batches: list[list[int]], width: int
    ) -> None:
        self._client, self._texts, self._width = client, texts, width
        self._waiting = deque(Batch(rows) for rows in batches)
        self._open: dict[concurrent.futures.Future[Answer], Batch] = {}
        self.most = MOST_TEXTS
        """Texts of a request that the server is known to allow."""
        self.failure: EncoderError | None = None
        self._ends: float | None = None
        self._alone = False
        """Whether one request was open when answers were waited for last."""

    def goes_on(self, interrupted: bool) -> bool:
        """Send what may be sent; whether there is anything to wait for.

        Args:
            interrupted: send nothing more; what is open has ``_SECONDS_TO_LAND``.
        """
        if interrupted:
            self._waiting.clear()
            self._ends = self._ends or time.monotonic() + _SECONDS_TO_LAND
            if time.monotonic() > self._ends:
                return False
        while self._waiting and len(self._open) < self._width and self.failure is None:
            batch = self._waiting.popleft()
            if len(batch.rows) > self.most:
                rest = batch.rows[self.most :]
                self._waiting.appendleft(Batch(rest))
                batch = Batch(batch.rows[: self.most])
            sent = self._client.send([self._texts[row] for row in batch.rows])
            self._open[sent] = batch
        self._alone = len(self._open) == 1
        return bool(self._open)

    def next(self) -> list[tuple[Batch, concurrent.futures.Future[Answer]]]:
        """Answers that have come, perhaps none."""
        done, _ = concurrent.futures.wait(
            self._open, _LOOK_UP, return_when=concurrent.futures.FIRST_COMPLETED
        )
        return [(self._open.pop(future), future) for future in done]

    def again(self, batches: list[Batch]) -> None:
        """Send these next."""
        self._waiting.extendleft(reversed(batches))

    def fail(self, error: EncoderError) -> None:
        """Send nothing more; what is open still lands."""
        self.failure = self.failure or error

    def refused_money(self, batch: Batch, spent: float) -> None:
        """Wait for what is open, as it may cost less than it could; else it is over."""
        self._waiting.appendleft(batch)
        self._width = 1
        if self._alone:
            most = most_tokens([self._texts[row] for row in batch.rows])
            self.fail(
                EncoderError(
                    f"--max-cost: {spent:.4g} is spent, and the next request, of up to {most:,} "
                    "tokens, could pass the limit. What is finished is stored; run the command "
                    "again with a higher limit to go on."
                )
            )

    def cancel(self) -> None:
        """Forget what is open."""
        for future in self._open:
            future.cancel()
