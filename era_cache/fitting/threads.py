"""How many threads tensors may use: what the process may have and the machine has free.

In: the machine. Out: torch's number of threads, set once in a process. Threads that wait for a core
make every step wait: two of them on a busy pair of cores took 1.7 times as long as one.
"""

from __future__ import annotations

import functools
import math
import os
import statistics
import time
from pathlib import Path

__all__ = ["free_threads", "use_free_threads"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_RUNNING = Path("/proc/stat")
_LOOKS, _BETWEEN = 5, 0.01
"""How often, and seconds apart, running processes are counted: one look may meet a pause."""


@functools.cache
def use_free_threads() -> int:
    """Set torch's threads, unless OMP_NUM_THREADS does; once, so that one process rounds one way.

    Returns:
        The number.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), free_threads()))
    return torch.get_num_threads()


def free_threads(quota: Path = _QUOTA, running: Path = _RUNNING) -> int:
    """Cores that this process may use and that no other process is using, at least one.

    Args:
        quota: what a container may use, as control groups (version 2) say it.
        running: statistics of the kernel.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    allowed = allowed or 1
    try:
        most, period = quota.read_text("ascii").split()
        if most != "max":
            allowed = min(allowed, math.ceil(int(most) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no control group, or of the first version
    busy = [_running(running)]
    for _ in range(_LOOKS - 1):
        time.sleep(_BETWEEN)
        busy.append(_running(running))
    others = int(statistics.median(busy)) - 1
    return max(1, min(allowed, (os.cpu_count() or 1) - max(0, others)))


def _running(path: Path) -> int:
    """Processes that run or could run now, this one among them; 1 where nobody knows."""
    try:
        for line in path.read_text("ascii").splitlines():
            if line.startswith("procs_running "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 1
