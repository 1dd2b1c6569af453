"""Stores by the place where they lie: a folder, or a URL.

In: a path or a URL. Out: a ``Store``.
"""

from __future__ import annotations

from pathlib import Path

from era_cache.errors import StoreError
from era_cache.store.store import Store
from era_cache.types import Progress, Where, silent

__all__ = ["create_store", "find_store", "is_url", "open_store", "place_of"]


def is_url(where: Where) -> bool:
    """Whether a place is a URL."""
    return isinstance(where, str) and "://" in where


def place_of(text: str) -> Where:
    """The place that a text names: a URL stays a text."""
    return text if is_url(text) else Path(text)


def find_store(where: Where, *, progress: Progress = silent) -> Store | None:
    """Open a store; None where there is none, or another process just begins it.

    Raises as ``open_store``.
    """
    if is_url(where):
        from era_cache.store.bucket.bucket_store import BucketStore

        return BucketStore.at(str(where), progress)
    return Store.if_there(Path(where))


def open_store(where: Where, *, progress: Progress = silent) -> Store:
    """Open an existing store.

    Args:
        where: its folder, or a URL of any protocol that fsspec speaks.
        progress: told how many bytes of rows have come from a URL.

    Raises:
        FormatError: it is of a newer version or damaged.
        InputError: the URL is of no known kind.
        StoreError: there is none, or it cannot be reached.
    """
    if not is_url(where):
        return Store.open(where)
    store = find_store(where, progress=progress)
    if store is None:
        raise StoreError(f"{where}: not a store (no store.json). era-embed makes one; check it.")
    return store


def create_store(where: Where, *, progress: Progress = silent) -> Store:
    """Open a store, making it first where there is nothing yet. Raises as ``open_store``."""
    if is_url(where):
        from era_cache.store.bucket.bucket_store import BucketStore

        return BucketStore.made_at(str(where), progress)
    return Store.create(where)
