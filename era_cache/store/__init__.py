"""Vectors by key, in a folder that any number of processes and people write to.

In: vectors with their keys and encoder records. Out: the same rows, verified, or an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from era_cache.store.store import Store

__all__ = ["Store"]


def __getattr__(name: str) -> Any:
    if name != "Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from era_cache.store.store import Store

    return Store
