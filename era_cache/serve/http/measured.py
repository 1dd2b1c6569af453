"""What a server counts, as Prometheus reads it.

In: events. Out: the text of ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

__all__ = ["Measured"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TEXTS = (1, 2, 4, 8, 16, 32, 64)


class Measured:
    """Counters of one server.

    Args:
        waiting: gives the number of texts that wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answers, by path and status.", "path", "status")
        self.texts = self._counter("texts", "Texts that were asked for, by model.", "model")
        self.reloads = self._counter("reloads", "Replaced adapter folders.", "name", "result")
        self.seconds = Histogram(
            "era_request_seconds",
            "From request to answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "era_batch_texts", "Texts per batch.", buckets=_TEXTS, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "era_batch_seconds",
            "Time in the models per batch.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        gauge = Gauge("era_waiting_texts", "Texts that wait.", registry=self._registry)
        gauge.set_function(waiting)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"era_{name}_total", says, labels, registry=self._registry)

    def batch(self, texts: int, seconds: float) -> None:
        """Count a batch."""
        self._batch.observe(texts)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
