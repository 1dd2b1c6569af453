"""The connection to a bucket: whole files and ranges of them, patiently.

In: paths in a store. Out: bytes, or a ``StoreError``. What fails for a moment (a server that is
busy, a cut connection) is tried again; what is not there, or not allowed, is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from era_cache.errors import FormatError, InputError, StoreError
from era_cache.store.names import Entry
from era_cache.store.segment import has_vanished
from era_cache.store.sync.places import LIMITS, LocalPlace, kind_of, limited
from era_cache.store.sync.remote import RemotePlace, place_at
from era_cache.types import Progress, silent

__all__ = ["Bucket"]

_ATTEMPTS = 3
_FIRST_WAIT = 0.25
_RECORD_BYTES = 64 << 10
T = TypeVar("T")


class Bucket:
    """A store's files at a URL.

    Raises:
        InputError: the URL's protocol is not known, or it is a folder's.
        StoreError: the package for it is missing, or it cannot be reached.
    """

    def __init__(self, url: str, progress: Progress = silent) -> None:
        place = place_at(url)
        if isinstance(place, LocalPlace):
            raise InputError(f"{url}: names a folder of this machine. Give its path.")
        self._place: RemotePlace = place
        self.label = place.label
        self.progress = progress
        """Told how many bytes of a segment have come."""

    def entries(self, folder: str) -> dict[str, Entry]:
        """What lies in a folder, by name. Raises ``StoreError``."""
        found = self._patiently(lambda: list(self._place.entries(folder)))
        return {entry.name: entry for entry in found}

    def ranges(self, name: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Read pieces of a file.

        Raises ``StoreError``; caused by ``FileNotFoundError`` where it is gone.
        """
        return self._patiently(lambda: self._place.ranges(name, starts, ends))

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None where it is not there. Raises ``StoreError``."""
        return self._patiently(lambda: self._place.size(name))

    def fetch(self, name: str, into: Path, as_name: str, size: int = -1) -> None:
        """Bring a whole file into a folder, staged.

        Args:
            name: the file.
            into: the folder.
            as_name: its path there.
            size: in bytes, as listed; below 0 where that is not known.

        Raises:
            FormatError: it is larger than any such file of a store.
            StoreError: as ``ranges``.
        """
        limit = LIMITS.get(kind_of(name) or "", _RECORD_BYTES)
        shown = f"{self.label}/{name}"

        def check(path: Path, _digest: str) -> None:
            came = path.stat().st_size
            if size >= 0 and came != size:
                raise StoreError(f"{shown}: has {size} bytes, but {came} came. Try again.")

        def bring() -> None:
            chunks = limited(self._place.chunks(name), limit, shown)
            LocalPlace(into).receive(as_name, chunks, check)

        self._patiently(bring)

    def send(self, local: Path, name: str) -> None:
        """Put a file under its name; it appears whole or not at all. Raises ``StoreError``."""
        self._patiently(lambda: self._place.send(local, name))

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone is fine. Raises ``StoreError``."""
        self._patiently(lambda: self._place.remove(name))

    def _patiently(self, attempt: Callable[[], T]) -> T:
        for number in range(1, _ATTEMPTS):
            try:
                return attempt()
            except FormatError:
                raise
            except StoreError as error:
                if has_vanished(error) or isinstance(error.__cause__, PermissionError):
                    raise
                time.sleep(_FIRST_WAIT * 2 ** (number - 1))
        return attempt()
