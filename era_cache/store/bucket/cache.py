"""The cache on this machine: what was read of stores that lie elsewhere.

In: names of contents. Out: paths. Everything in it can be deleted at any time; what was used last
stays longest. Each store has a folder of its own: the name of a segment says what it should hold,
and a store from a stranger may hold something else under the name of yours.

    stores/<digest of the URL>/segments/<digest>.h5   a segment
    stores/<digest of the URL>/partial/<digest>.h5    blocks of a segment (``blocks``)
    stores/<digest of the URL>/files/<digest>.<kind>  a small file, named by path and version
    stores/<digest of the URL>/indexes/<fingerprint>  sorted keys of an encoder's segments
    views/                                            folders that running programs see as stores
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from era_cache.disk.files import (
    TEMPORARY_PREFIX,
    is_left_behind,
    make_folder,
    temporary_name,
)
from era_cache.errors import InputError

__all__ = ["Cache"]

_DEFAULT_GB = 20.0
_IN_USE_SECONDS = 600.0
"""What was opened since then is not evicted: some program may be about to read it."""


class Cache:
    """A folder of what was read elsewhere.

    Args:
        root: the folder; made where it is missing.
        place: names the store; what was read of others is not looked at.
        most_bytes: that stay, of all stores, when one is opened.
    """

    def __init__(self, root: Path, place: str, most_bytes: int) -> None:
        self.root, self.most_bytes = root, most_bytes
        self.own = root / "stores" / hashlib.sha256(place.encode()).hexdigest()[:32]
        self.files = self.own / "files"
        for name in ("segments", "partial", "files", "indexes"):
            make_folder(self.own / name, may_be_link=True)
        make_folder(root / "views", may_be_link=True)

    @classmethod
    def of_user(cls, place: str) -> Cache:
        """The cache that ``ERA_CACHE_DIR`` and ``ERA_CACHE_GB`` name.

        Args:
            place: names the store.

        Raises:
            InputError: ``ERA_CACHE_GB`` is no size.
            StoreError: the folder cannot be made.
        """
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        root = Path(os.environ.get("ERA_CACHE_DIR") or f"{home}/era-cache")
        given = os.environ.get("ERA_CACHE_GB") or _DEFAULT_GB
        try:
            size = float(given)
        except ValueError:
            size = -1.0
        if not 0 <= size < 1e9:
            raise InputError(f"ERA_CACHE_GB is '{given}'; it must be a number of GB, as 20.")
        return cls(root.absolute(), place, int(size * 1e9))

    def segment(self, name: str) -> Path:
        """Where a segment lies or will lie, by its file name."""
        return self.own / "segments" / name

    def indexes(self, fingerprint: str) -> Path:
        """The folder whose ``index`` holds the sorted keys of an encoder."""
        return self.own / "indexes" / fingerprint

    def adopt(self, segment: Path) -> None:
        """Keep a whole segment that was just written. Nothing happens where that fails."""
        with contextlib.suppress(OSError):
            os.link(segment, self.segment(segment.name))

    def new_view(self) -> Path:
        """Make an empty folder for one program; what killed ones left goes."""
        for path in (self.root / "views").glob(f"{TEMPORARY_PREFIX}*"):
            if is_left_behind(path):
                shutil.rmtree(path, ignore_errors=True)
        view = self.root / "views" / temporary_name("")
        make_folder(view)
        return view

    def evict(self) -> None:
        """Delete what was not used for longest, until no more than ``most_bytes`` are left."""
        found = sorted(self._files())
        left = sum(size for _, size, _ in found)
        latest = time.time() - _IN_USE_SECONDS
        for used, size, path in found:
            if left <= self.most_bytes or used > latest:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                left -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each file was used last, its bytes on disk, and its path."""
        for path in (self.root / "stores").rglob("*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if path.is_file():
                    yield status.st_mtime, status.st_blocks * 512, path
