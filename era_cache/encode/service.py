"""How a model behind an address is asked: how fast, how often again, and for how much money.

In: limits that the user states. Out: waiting, and money that is set aside before it is spent.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from era_cache.errors import InputError

__all__ = ["Budget", "Pace", "ServiceSettings", "back_off", "most_tokens", "retry_after"]

_LONGEST_WAIT = 600.0
"""Seconds that a server may ask for before it is asked again."""
_LONGEST_BACK_OFF = 60.0


class Budget:
    """Money that all models of a run may spend together.

    What a request costs is known when it is answered; until then the most that it can cost is set
    aside, so that the limit is not passed.

    Args:
        most: that may be spent; None is any.
    """

    def __init__(self, most: float | None = None) -> None:
        if most is not None and not (math.isfinite(most) and most > 0):
            raise InputError(f"--max-cost {most}: expected a sum above 0.")
        self.most, self.spent, self._reserved = most, 0.0, 0.0

    def reserve(self, cost: float) -> bool:
        """Set money aside; False where there is not enough."""
        if self.most is not None and self.spent + self._reserved + cost > self.most:
            return False
        self._reserved += cost
        return True

    def settle(self, reserved: float, spent: float) -> None:
        """Give back what was set aside, and count what was spent of it."""
        self._reserved -= reserved
        self.spent += spent


@dataclass(frozen=True)
class ServiceSettings:
    """How a model behind an address is asked; none of it changes a vector."""

    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key."""
    in_flight: int = 16
    """Requests that are open at once."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    seconds: float = 60.0
    """After which a request counts as lost."""
    price: float = 0.0
    """Of a million tokens, in any currency."""
    budget: Budget = field(default_factory=Budget)


def most_tokens(texts: list[str]) -> int:
    """More tokens than texts have, whatever the tokenizer: their bytes, and some for each text."""
    return sum(len(text.encode("utf-8", "surrogatepass")) + 8 for text in texts)


class Pace:
    """Spreads requests over time, and waits for everybody when a server asks to.

    Used in one event loop only.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._free = self._resume = 0.0

    async def turn(self, tokens: int) -> None:
        """Return when a request of so many tokens may go out."""
        now = asyncio.get_running_loop().time
        start = max(now(), self._free)
        self._free = start + max(self._request, tokens * self._token)
        while (delay := max(start, self._resume) - now()) > 0:
            await asyncio.sleep(delay)

    def pause(self, seconds: float) -> None:
        """Let nobody go out for a while."""
        self._resume = max(self._resume, asyncio.get_running_loop().time() + seconds)


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row: twice as many each time, with jitter."""
    return float(min(_LONGEST_BACK_OFF, 0.5 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait (RFC 9110, 10.2.3); None where it does not say."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                then = parsedate_to_datetime(value)
            except ValueError:
                continue
            then = then if then.tzinfo else then.replace(tzinfo=UTC)
            seconds = (then - datetime.now(UTC)).total_seconds()
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _LONGEST_WAIT)
    return None
