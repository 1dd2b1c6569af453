"""Opening the store that a command was given.

In: a path or a URL. Out: a store; what is read of a bucket is told like any other long step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_cache.cli.progress import shown

if TYPE_CHECKING:
    from era_cache.store.store import Store
    from era_cache.types import Where

__all__ = ["found_store", "made_store", "opened_store"]


def opened_store(where: Where) -> Store:
    """Open an existing store."""
    from era_cache.store.open_store import open_store

    return open_store(where, progress=shown("B"))


def made_store(where: Where) -> Store:
    """Open a store, made where there is nothing yet."""
    from era_cache.store.open_store import create_store

    return create_store(where, progress=shown("B"))


def found_store(where: Where) -> Store | None:
    """Open a store; None where there is none."""
    from era_cache.store.open_store import find_store

    return find_store(where, progress=shown("B"))
