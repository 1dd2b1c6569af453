"""Whose processor this is, which says what multiplies matrices fastest on it.

In: what the system says. Out: whether torch's own library, MKL, is slow here. That is decided by
what the processor is, not by a clock: two runs on one machine make the same bits.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

__all__ = ["mkl_is_slow"]


@functools.cache
def mkl_is_slow() -> bool:
    """Whether this is an x86 processor of another maker than MKL's.

    MKL leaves half of what those can do unused. On its maker's, and where nobody knows, it is as
    fast as any other or faster (``python -m benchmarks.evaluate --only products``).
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and _maker() not in ("", "GenuineIntel")


def _maker() -> str:
    """The maker of the processor, as it says itself; empty where that is not known."""
    listed = Path("/proc/cpuinfo")
    if not listed.is_file():
        return "AuthenticAMD" if "AuthenticAMD" in platform.processor() else ""
    with listed.open(encoding="utf-8", errors="replace") as lines:
        found = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
        return next(found, "")
