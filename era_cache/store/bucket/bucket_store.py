"""A store in a bucket, seen through a folder of this machine.

In: a URL. Out: a ``Store`` whose folder, the view, holds what this program has read or written of
the small files. Names always come from the bucket, and segments from ``bucket_encoder``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import weakref
from pathlib import Path

from era_cache.disk.files import make_folder, os_errors
from era_cache.disk.json_files import read_record, write_record
from era_cache.errors import StoreError
from era_cache.store.bucket.bucket_encoder import BucketEncoder
from era_cache.store.bucket.cache import Cache
from era_cache.store.bucket.connection import Bucket
from era_cache.store.names import FILE, FOLDER, STORE_FOLDERS, Entry, refuse_strangers
from era_cache.store.records import StoreRecord
from era_cache.store.segment import has_vanished
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.store.sync.places import list_store
from era_cache.types import Progress, silent

__all__ = ["BucketStore"]

_LISTED_SECONDS = 5.0
"""How long the list of encoders counts: it is asked for several times in a row."""


class BucketStore(Store):
    """A store at a URL. Open one with ``open_store`` or ``create_store``."""

    def __init__(self, url: str, progress: Progress = silent) -> None:
        bucket = Bucket(url, progress)
        cache = Cache.of_user(bucket.label)
        super().__init__(cache.new_view())
        self.bucket, self._cache = bucket, cache
        self.where, self.label = url, bucket.label
        self._entries: dict[str, dict[str, Entry]] = {}
        self._own: set[str] = set()
        """Files that this program has put there, which listings may not show yet."""
        self._encoders: tuple[float, list[StoredEncoder]] = (0.0, [])
        self._made: dict[str, BucketEncoder] = {}
        """By the names of their folders: each knows what this program has written of it."""
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        cache.evict()

    @classmethod
    def at(cls, url: str, progress: Progress = silent) -> BucketStore | None:
        """Open the store at a URL; None where there is none.

        Raises:
            FormatError: it is of a newer version or damaged.
            InputError: the URL is of no known kind.
            StoreError: it cannot be reached, or something else lies there.
        """
        store = cls(url, progress)
        names = store.bucket.entries("")
        if "store.json" not in names:
            refuse_strangers(store.label, names)
            return None
        read_record(store.file("store.json"), StoreRecord)
        return store

    @classmethod
    def made_at(cls, url: str, progress: Progress = silent) -> BucketStore:
        """Open the store at a URL, making it first where there is nothing yet. Raises as ``at``."""
        found = cls.at(url, progress)
        if found is not None:
            return found
        store = cls(url, progress)
        write_record(store.path / "store.json", StoreRecord())
        store.publish(store.path / "store.json")
        return store

    def names(self, folder: str, pattern: re.Pattern[str], *, folders: bool = False) -> list[str]:
        """Names in a folder of the store that match a pattern, sorted. Raises ``StoreError``."""
        self._entries[folder] = entries = self.bucket.entries(folder)
        form = FOLDER if folders else FILE
        found = {entry.name for entry in entries.values() if entry.form == form}
        prefix = f"{folder}/"
        own = (
            name.removeprefix(prefix).split("/") for name in self._own if name.startswith(prefix)
        )
        found |= {parts[0] for parts in own if (len(parts) > 1) == folders}
        return sorted(name for name in found if pattern.fullmatch(name))

    def file(self, name: str) -> Path:
        """Where a file of the store lies on this machine, brought there if it must be.

        Raises ``StoreError``; caused by ``FileNotFoundError`` where it is gone.
        """
        path = self.path / name
        if name in self._own:
            return path
        folder, _, last = name.rpartition("/")
        make_folder(path.parent)
        entry = self._entries.get(folder, {}).get(last)
        if entry is None or not entry.stamp:
            self.bucket.fetch(name, self.path, name)
            return path
        told = f"{name}\n{entry.size}\n{entry.stamp}"
        kept = f"{hashlib.sha256(told.encode()).hexdigest()}{path.suffix}"
        files = self._cache.files
        if not (files / kept).is_file():
            self.bucket.fetch(name, files, kept, entry.size)
        with os_errors("reading", path):
            os.utime(files / kept)
            path.unlink(missing_ok=True)
            os.link(files / kept, path)
        return path

    def publish(self, path: Path) -> None:
        """Put a file that was written into the view into the bucket. Raises ``StoreError``."""
        name = path.relative_to(self.path).as_posix()
        self.bucket.send(path, name)
        self._own.add(name)
        self._encoders = 0.0, self._encoders[1]

    def encoders(self) -> list[StoredEncoder]:
        """All encoders in the store, by name. Raises ``FormatError`` where one is damaged."""
        when, found = self._encoders
        if time.monotonic() - when > _LISTED_SECONDS or not found:
            for encoder in self._made.values():
                encoder.others.clear()
            self._encoders = time.monotonic(), super().encoders()
        return self._encoders[1]

    def _stored_encoder(self, name: str) -> StoredEncoder | None:
        try:
            self.file(f"encoders/{name}/encoder.json")
        except StoreError as error:
            if has_vanished(error):
                return None
            raise
        return self._made_encoder(name)

    def _made_encoder(self, name: str) -> StoredEncoder:
        if name not in self._made:
            folder = self.path / "encoders" / name
            self._made[name] = BucketEncoder(folder, self.bucket, self._cache)
        return self._made[name]

    def whole(self, *, progress: Progress = silent) -> Store:
        """The store with all its files in the view, just as they came, damaged ones, too.

        Raises ``StoreError``.
        """
        listing = list_store(self.label, lambda folder: self.bucket.entries(folder).values())
        for folder in STORE_FOLDERS:
            make_folder(self.path / folder)
        total, done = sum(max(0, size) for size in listing.files.values()), 0
        for name, size in listing.files.items():
            self.bucket.fetch(name, self.path, name)
            done += max(0, size)
            progress("bringing", done, total)
        return _Whole(self)


class _Whole(Store):
    """The view as a store of its own; it keeps the view from going."""

    def __init__(self, of: BucketStore) -> None:
        super().__init__(of.path)
        self.label, self._of = of.label, of
