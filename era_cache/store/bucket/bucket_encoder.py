"""One encoder of a store in a bucket.

In: what the bucket lists. Out: the same as of an encoder in a folder. A segment that another
program has merged away meanwhile is looked for under the name of the one that replaced it, also
where listings lag behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from era_cache.errors import StoreError
from era_cache.store.bucket.blocks import KeptSegment
from era_cache.store.bucket.cache import Cache
from era_cache.store.bucket.connection import Bucket
from era_cache.store.key_index import KeyIndex
from era_cache.store.names import FILE, SEGMENT_NAME
from era_cache.store.retired import replacement, write_retired
from era_cache.store.segment import Segment, has_vanished, open_segment
from era_cache.store.sorted_keys import is_worth_a_file, persist_index
from era_cache.store.stored_encoder import StoredEncoder

__all__ = ["BucketEncoder"]

_THREADS = 16


class BucketEncoder(StoredEncoder):
    """One role of an encoder, whose segments lie in a bucket.

    Args:
        folder: in the view; it holds ``encoder.json``.
        bucket: the store.
        cache: keeps what is read.
    """

    def __init__(self, folder: Path, bucket: Bucket, cache: Cache) -> None:
        super().__init__(folder)
        self._bucket, self._cache = bucket, cache
        self._there: dict[str, tuple[str, int]] = {}
        """Segments by file name: the encoder folder they lie in, and their bytes."""
        self._known: dict[str, tuple[str, int]] = {}
        """Those that listings may not show yet."""
        self._gone: set[str] = set()
        """Those that listings may still show."""

    @property
    def place(self) -> str:
        """How messages name the store."""
        return self._bucket.label

    @property
    def indexed_in(self) -> Path:
        """The folder whose ``index`` holds files of sorted keys."""
        return self._cache.indexes(self.spec.fingerprint)

    def _listed(self) -> dict[str, Path]:
        there: dict[str, tuple[str, int]] = {}
        for folder in (*self.others, self.folder):
            for name, entry in self._bucket.entries(f"encoders/{folder.name}/segments").items():
                if SEGMENT_NAME.fullmatch(name) and entry.form == FILE:
                    there[name] = folder.name, entry.size
        there |= self._known
        self._there = {name: place for name, place in there.items() if name not in self._gone}
        return {name: self._path(name) for name in self._there}

    def _path(self, name: str) -> Path:
        own = self.folder / "segments" / name
        return own if own.is_file() else self._cache.segment(name)

    def segment_sizes(self) -> list[tuple[Path, int]]:
        """The committed segments with their sizes in bytes. Raises as ``segment_paths``."""
        return [(path, self._there[path.name][1]) for path in self.segment_paths()]

    def _opened(self, paths: Sequence[Path]) -> list[Segment]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self.open_segment, paths))

    def open_segment(self, path: Path, *, check: bool = False) -> Segment:
        """Open one segment; see ``segment.open_segment``."""
        if path.parent == self.folder / "segments":
            return super().open_segment(path, check=check)
        folder, size = self._there[path.name]
        name = f"encoders/{folder}/segments/{path.name}"
        fetch, shown = partial(self._fetch, name), f"{self._bucket.label}/{name}"
        origin = KeptSegment(path, size, fetch, shown, self._bucket.progress)
        spec = self.spec
        return open_segment(path, spec.fingerprint, spec.dim, check=check, origin=origin)

    def _fetch(self, name: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        try:
            return self._bucket.ranges(name, starts, ends)
        except StoreError as error:
            if has_vanished(error):
                self._follow(name.rpartition("/")[2])
            raise

    def _follow(self, name: str) -> bool:
        """Note that a segment is gone, and what replaced it, as its record says.

        Returns whether something did.
        """
        folder, _ = self._there.get(name, (self.folder.name, 0))
        self._gone.add(name)
        digest = name.removesuffix(".h5")
        seen = {digest}
        while True:
            with contextlib.suppress(StoreError):
                self._bucket.fetch(
                    f"encoders/{folder}/retired/{digest}.json",
                    self.folder,
                    f"retired/{digest}.json",
                )
            record = self.folder / "retired" / f"{digest}.json"
            by = replacement(record) if record.is_file() else None
            if by is None or by in seen:
                return False
            seen.add(by)
            size = self._bucket.size(f"encoders/{folder}/segments/{by}.h5")
            if size is not None:
                self._known[f"{by}.h5"] = folder, size
                return True
            digest = by

    def index(self, *, check: bool = False) -> KeyIndex:
        """Index all rows: see ``StoredEncoder.index``. Sorted keys are kept on this machine."""
        found = super().index(check=check)
        if is_worth_a_file(found.sorted_anew):
            with contextlib.suppress(StoreError):
                persist_index(self.indexed_in, found.segments)
        return found

    def publish(self, path: Path) -> None:
        """Put a segment that was sealed in the view into the bucket. Raises ``StoreError``."""
        try:
            self._bucket.send(path, f"encoders/{self.folder.name}/segments/{path.name}")
        except StoreError as error:
            # Another program may have merged it away in the moment after it arrived.
            if not has_vanished(error) or not self._follow(path.name):
                raise
            return
        self._known[path.name] = self.folder.name, path.stat().st_size
        self._cache.adopt(path)

    def retire(self, paths: Iterable[Path], by: str | None, *, dropped: bool = False) -> None:
        """Delete segments that another one has replaced, once a record says which one.

        A program that reads them at this moment finds the record and goes on with the other one.
        """
        for path in paths:
            folder, _ = self._there.get(path.name, (self.folder.name, 0))
            record = write_retired(self.folder / "retired", path.stem, by, dropped=dropped)
            self._bucket.send(record, f"encoders/{folder}/retired/{record.name}")
            self._bucket.remove(f"encoders/{folder}/segments/{path.name}")
            self._known.pop(path.name, None)
            self._gone.add(path.name)
            (self.folder / "segments" / path.name).unlink(missing_ok=True)
