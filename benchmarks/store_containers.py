"""Containers that share a folder: each process has number 1, as in every container's first one.

The names of temporary files say who writes them, and what is left behind is removed: by a process
that must not take a living writer of another container for a dead one of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.common import Bar, skipped
from benchmarks.store_race import READERS, WRITERS, race_bar, run_race

__all__ = ["INSIDE", "container_bars", "namespaces_work"]

INSIDE = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")


def namespaces_work() -> bool:
    """Whether this system lets a process have a process space of its own, where it is number 1."""
    command = [*INSIDE, sys.executable, "-c", "import os; print(os.getpid())"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout == "1\n"


def container_bars(folder: Path, seconds: float) -> list[Bar]:
    """A race in which each process lives in a process space of its own."""
    name = f"{len(WRITERS)} writers, {READERS} readers, each process 1 of a container"
    if not namespaces_work():
        return [skipped(name, "this system gives no process spaces (unshare)")]
    return [race_bar(f"{name}, {seconds:.0f} s", run_race(folder, seconds, inside=INSIDE))]
