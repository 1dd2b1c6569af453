"""A server of ours in a thread of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from era_cache.serve.http.app import App
from era_cache.serve.http.server import Server

__all__ = ["serving"]


@contextlib.contextmanager
def serving(app: App, **options: object) -> Iterator[Server]:
    """Serve an application on a free port, until the block ends."""
    running = Server(app, port=0, **options)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 20
        while not running.started and time.monotonic() < end:
            time.sleep(0.01)
        assert running.started
        yield running
    finally:
        running.stop()
        thread.join(30)
        assert not thread.is_alive()
