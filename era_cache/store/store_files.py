"""The files of a store: what lies in its folder, and which of it changed.

In: paths in a store. Out: paths on this machine. A store that lies elsewhere (``store.bucket``)
brings a file before it gives its path, and takes away what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from era_cache.collection.records import Collection
from era_cache.collection.stored import is_judged, read_stated
from era_cache.errors import StoreError
from era_cache.store.names import COLLECTION_NAME, list_names
from era_cache.store.records import read_stored_collection

__all__ = ["StoreFiles", "looks_like_url"]


def looks_like_url(place: str) -> bool:
    """Whether a place is a URL, also one that was taken for a path (``s3:/bucket``)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", place) is not None and not Path(place).exists()


class StoreFiles:
    """The files of a store in a folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        """What opens it again (``open_store``)."""
        self.label = str(path)
        """How messages name it."""

    def names(self, folder: str, pattern: re.Pattern[str], *, folders: bool = False) -> list[str]:
        """Names in a folder of the store that match a pattern, sorted: see ``names.list_names``."""
        return list_names(self.path / folder, pattern, folders=folders)

    def file(self, name: str) -> Path:
        """Where a file of the store lies on this machine, by its path in the store.

        Raises ``StoreError`` where it cannot be brought here.
        """
        return self.path / name

    def publish(self, path: Path) -> None:
        """Tell that a file was written into the store's folder. Raises ``StoreError``."""

    def collection_paths(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (name, 12-digit version, path) of every stored collection; ``file`` brings it."""
        folder = self.path / "collections"
        for name in self.names("collections", COLLECTION_NAME):
            match = COLLECTION_NAME.fullmatch(name)
            if match:
                yield match[1], match[2], folder / name

    def collection_names(self) -> list[str]:
        """Names of the stored collections, each once, in order."""
        return sorted({name for name, _, _ in self.collection_paths()})

    def versions(self, name: str) -> list[str]:
        """The stored versions of a collection's name."""
        return [version for n, version, _ in self.collection_paths() if n == name]

    def newest(self, name: str) -> Path:
        """The path of a collection by name, or by name and version (``toy-0123456789ab``).

        Of several versions of a name, the one embedded last here: see ``Store.conflict``.

        Raises ``StoreError`` where there is none of that name, ``FormatError``.
        """
        known = list(self.collection_paths())
        paths = [path for n, version, path in known if name in (n, f"{n}-{version}")]
        if not paths:
            have = ", ".join(sorted({n for n, _, _ in known})) or "none"
            raise StoreError(f"{self.label}: no collection '{name}'; it holds: {have}.")
        if len(paths) == 1:
            return paths[0]
        return max(paths, key=lambda path: read_stated(self._brought(path)))

    def read_collection(self, path: Path) -> Collection:
        """Read what ``collection_paths`` named. Raises as ``records.read_stored_collection``."""
        return read_stored_collection(self._brought(path))

    def is_judged(self, path: Path) -> bool:
        """Whether what ``collection_paths`` named has a positive judgement; see ``stored``."""
        return is_judged(self._brought(path))

    def _brought(self, path: Path) -> Path:
        return self.file(f"collections/{path.name}")
