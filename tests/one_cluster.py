"""A real Ray on this machine, one at a time: a second one would be taken for the first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from era_cache.encode.ray_workers import RayEncoder

ray = pytest.importorskip("ray")


@contextlib.contextmanager
def one_cluster() -> Iterator[None]:
    """Ray with two processors, whatever there are; other test processes wait for their own."""
    lock = Path(tempfile.gettempdir(), f"era-cache-tests-ray-{os.getuid()}")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        try:
            yield
        finally:
            ray.shutdown()
            RayEncoder._running = None
