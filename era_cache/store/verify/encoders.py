"""Verification of encoders: their segments, and what lies beside them.

In: a walk through a store. Out: findings, the state of each encoder, and a key index of what is
sound. Segments that others merge or add meanwhile are looked for again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from era_cache.collection.keys import distinct_rows
from era_cache.disk.files import os_errors
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.store.encoder_record import StoredSpec
from era_cache.store.key_index import KeyIndex
from era_cache.store.names import ENCODER_NAME, FOLDER, INDEX_NAME, SEGMENT_NAME, list_steadily
from era_cache.store.retired import restore
from era_cache.store.segment import Segment, has_vanished, look_again, open_segment
from era_cache.store.sorted_keys import index_problem
from era_cache.store.verify.folder import CheckedFolder
from era_cache.store.verify.report import EncoderState, Finding, Walk
from era_cache.store.verify.segment_scan import Norms, Scan, scan_segment
from era_cache.types import Keys, Progress

__all__ = ["CheckedEncoder", "CheckedEncoders", "check_encoders"]

_ROUNDS = 10
_THREADS = min(4, cpu_count() or 1)
_KEY_BLOCK_ROWS = 1 << 18
T = TypeVar("T")


class CheckedEncoder:
    """All folders of one encoder: what is sound in them, and what is not."""

    def __init__(self, walk: Walk, folders: Sequence[CheckedFolder], spec: StoredSpec) -> None:
        self.spec = spec
        self._walk, self._folders = walk, folders
        self._trusted_index = True
        self._index: KeyIndex | None = None

    def count(self, keys: Keys) -> int:
        """How many of some keys have a sound row. Raises as ``StoredEncoder.index`` does."""
        self._index = self._index or self._sound(self._indexed)
        blocks = (keys[at : at + _KEY_BLOCK_ROWS] for at in range(0, len(keys), _KEY_BLOCK_ROWS))
        index = self._index
        return sum(int(np.count_nonzero(index.positions(block) >= 0)) for block in blocks)

    def _sound(self, attempt: Callable[[list[Segment]], T]) -> T:
        """Call with the sound segments, preferred first; again where one has just been merged."""
        return look_again(
            self._folders[0].path,
            lambda: attempt(sorted(self._open(), key=lambda segment: segment.preference)),
        )

    def _open(self) -> Iterator[Segment]:
        found = {}
        for folder in self._folders:
            listed = list_steadily(partial(folder.files, "segments", SEGMENT_NAME))
            names = listed.keys() - folder.unusable()
            found.update({name: folder.path / "segments" / name for name in names})
        for path in found.values():
            yield open_segment(path, self.spec.fingerprint, self.spec.dim)

    def _indexed(self, segments: list[Segment]) -> KeyIndex:
        return KeyIndex(segments, self._folders[0].path if self._trusted_index else None)

    def check_indexes(self, *, delete: bool) -> None:
        """Compare each index file with the segments it covers."""
        for folder in self._folders:
            for name in folder.files("index", INDEX_NAME):
                path = folder.path / "index" / name
                problem = self._index_problem(path)
                if problem is None:
                    continue
                message = f"{problem}. It is a cache, but hides rows. Delete it."
                if delete:
                    message = f"{problem}. It was a cache; nothing is lost."
                    with os_errors("deleting", path):
                        path.unlink(missing_ok=True)
                self._trusted_index &= delete
                done = "deleted" if delete else ""
                self._walk.add(Finding("damage", f"{folder.name}/index/{name}", message, done))

    def _index_problem(self, path: Path) -> str | None:
        try:
            return self._sound(lambda segments: index_problem(path, segments))
        except NewerError:
            return None
        except (FormatError, StoreError) as error:
            # Others may delete index files at any time.
            return str(error).removeprefix(f"{path}: ").rstrip(".") if path.exists() else None

    def tell_damage(self, *, quarantine: bool) -> int:
        """Add a finding for each damaged segment; give how many distinct rows they held alone."""
        lost = []
        for folder in self._folders:
            for name, scan in folder.damaged().items():
                keys = self._held_alone(scan)
                lost += [keys] if keys is not None else []
                rows = None if keys is None else len(keys)
                folder.tell_damage(name, rows, quarantine=quarantine)
        if quarantine and any(folder.damaged() for folder in self._folders):
            self._folders[0].tell_restored(restore([one.path for one in self._folders]))
        return len(distinct_rows(np.concatenate(lost))) if lost else 0

    def _held_alone(self, scan: Scan) -> Keys | None:
        """Keys of a damaged segment that no sound one has; None where they cannot be read."""
        if scan.segment is None:
            return None
        index = self._index = self._index or self._sound(self._indexed)
        try:
            keys = scan.segment.keys
        except StoreError as error:
            if has_vanished(error):
                return None
            raise
        blocks = [keys[at : at + _KEY_BLOCK_ROWS] for at in range(0, len(keys), _KEY_BLOCK_ROWS)]
        alone = np.concatenate([block[index.positions(block) < 0] for block in blocks])
        return alone[distinct_rows(alone)]


class _Scanner:
    """Reads all segments of all encoders, several at a time."""

    def __init__(self, folders: Sequence[CheckedFolder], progress: Progress) -> None:
        self._folders, self._progress = folders, progress
        self._lock = threading.Lock()
        self._done = self._total = 0

    def run(self) -> None:
        """Scan what is there, then what has come meanwhile because segments were merged."""
        with ThreadPoolExecutor(_THREADS) as hashers, ThreadPoolExecutor(_THREADS) as pool:
            for _ in range(_ROUNDS):
                todo = [
                    (folder, name, size)
                    for folder in self._folders
                    for name, size in folder.files("segments", SEGMENT_NAME).items()
                    if name not in folder.scans
                ]
                if not todo:
                    return
                self._total += sum(size for _, _, size in todo)
                # The largest first, so that no thread is left alone with one at the end.
                todo.sort(key=lambda one: -one[2])
                scans = pool.map(lambda one: self._scan(one[0], one[1], hashers), todo)
                if all(list(scans)):
                    return

    def _scan(self, folder: CheckedFolder, name: str, hashers: ThreadPoolExecutor) -> bool:
        """Scan one segment; gives whether it was still there."""
        path = folder.path / "segments" / name
        try:
            scan = scan_segment(path, folder.spec, hashers, self._told)
        except StoreError as error:
            if has_vanished(error):
                return False
            reason = str(error).removeprefix(f"{path}: ")
            scan = Scan(path, None, reason, "unreadable", [], Norms())
        with self._lock:
            folder.take(name, scan)
        return True

    def _told(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress("segments", min(self._done, self._total), self._total)


class CheckedEncoders(NamedTuple):
    """All encoders of a store: the numbers of each folder, and what is sound by fingerprint."""

    states: list[EncoderState]
    by_fingerprint: dict[str, CheckedEncoder]
    missing_rows: int
    """Distinct rows that only damaged segments held."""


def check_encoders(walk: Walk, *, quarantine: bool, progress: Progress) -> CheckedEncoders:
    """Check all encoders of a store.

    Args:
        walk: keeps the findings.
        quarantine: set damaged segments aside and delete wrong index files.
        progress: told how many bytes were read.

    Raises:
        StoreError: a folder cannot be listed or written.
    """
    names = walk.names("encoders", (ENCODER_NAME, FOLDER))
    folders = [CheckedFolder(walk, name) for name in names]
    _Scanner(folders, progress).run()
    groups: dict[tuple[str, int], list[CheckedFolder]] = {}
    lost = 0
    for folder in folders:
        if folder.spec is not None:
            groups.setdefault((folder.spec.fingerprint, folder.spec.dim), []).append(folder)
            continue
        for name in folder.damaged():
            folder.tell_damage(name, None, quarantine=False)
    encoders: dict[str, CheckedEncoder] = {}
    for (fingerprint, _), group in groups.items():
        if (spec := group[0].spec) is not None:
            one = CheckedEncoder(walk, group, spec)
            encoders.setdefault(fingerprint, one)
            one.check_indexes(delete=quarantine)
            lost += one.tell_damage(quarantine=quarantine)
    states = [state for folder in folders if (state := folder.state()) is not None]
    return CheckedEncoders(states, encoders, lost)
