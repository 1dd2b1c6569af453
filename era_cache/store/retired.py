"""Retired files: superseded segments that step aside before they go.

In: segments that another segment has replaced. Out: they lie in ``retired/``, where readers that
hold them open keep them, and are deleted after a grace period. A small record of each one stays,
so that another store's copy is not brought back.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from era_cache.disk.files import make_folder, os_errors
from era_cache.disk.json_files import Record, read_record, write_record
from era_cache.store.names import SEGMENT_NAME, list_names

__all__ = [
    "GRACE_SECONDS",
    "is_replaced",
    "purge",
    "replacement",
    "restore",
    "retire",
    "retired_files",
    "retired_path",
    "write_retired",
]

GRACE_SECONDS = 24 * 3600.0
"""How long a retired file is kept: longer than any reader that opened it before should take."""


def retire(paths: Iterable[Path], by: str | None, *, dropped: bool = False) -> None:
    """Move segments aside that ``by`` has replaced.

    The caller has committed ``by`` and knows that it holds every row of each path. Names of new
    segments never repeat (their ``writer`` token is random), so a chain of replacements cannot
    close to a ring, however many processes compact at once: some live segment always has the row.

    Args:
        paths: ``<encoder>/segments/<digest>.h5``; one that is gone already is passed over.
        by: digest (the name without ``.h5``) of the replacement; None where there is none.
        dropped: the replacement lacks some of the rows, on purpose.

    Raises:
        StoreError: the folder cannot be written.
    """
    for path in paths:
        kept = retired_path(path)
        write_retired(kept.parent, path.stem, by, dropped=dropped)
        with os_errors("retiring", path), contextlib.suppress(FileNotFoundError):
            path.rename(kept)


def write_retired(folder: Path, digest: str, by: str | None, *, dropped: bool) -> Path:
    """Write the record of a segment that ``by`` has replaced: see ``retire``.

    Raises ``StoreError``.
    """
    make_folder(folder)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = folder / f"{digest}.json"
    write_record(path, _RetiredRecord(by=by, created=created, dropped=dropped))
    return path


def retired_path(path: Path) -> Path:
    """Where a segment goes when it is retired."""
    return path.parent.parent / "retired" / path.name


def is_replaced(folders: Sequence[Path], digest: str) -> bool:
    """Whether a segment was retired here and all its rows live on in another one.

    Args:
        folders: all folders of the encoder's fingerprint; usually one.
        digest: of the segment.

    Raises:
        FormatError: a record on the way is damaged.
    """
    return _lives_on(folders, digest, with_drops=False)


def _lives_on(folders: Sequence[Path], digest: str, *, with_drops: bool) -> bool:
    seen = set()
    while digest not in seen:
        seen.add(digest)
        records = [folder / "retired" / f"{digest}.json" for folder in folders]
        record = next((_read_record(path) for path in records if path.is_file()), None)
        if record is None or (record.dropped and not with_drops):
            return False
        if record.by is None:
            return record.dropped
        if any((folder / "segments" / f"{record.by}.h5").is_file() for folder in folders):
            return True
        digest = record.by
    return False


class _RetiredRecord(Record, frozen=True, omit_defaults=True):
    """Beside a retired segment; ``by`` is the digest of the one that replaced it, if any."""

    FORMAT = "era-retired"
    VERSION = 1

    by: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None
    created: str = ""
    dropped: bool = False


def _read_record(path: Path) -> _RetiredRecord:
    return read_record(path, _RetiredRecord, advice="Remove it.")


def replacement(record_path: Path) -> str | None:
    """Digest of the segment that replaced another one; None where rows were dropped.

    Args:
        record_path: ``<encoder>/retired/<digest>.json``.

    Raises:
        FormatError: it is damaged.
        StoreError: it cannot be read.
    """
    return _read_record(record_path).by


def retired_files(encoder_folder: Path) -> list[Path]:
    """Retired segments that still take space."""
    folder = encoder_folder / "retired"
    return [folder / name for name in list_names(folder, SEGMENT_NAME)]


def purge(
    folders: Sequence[Path], grace_seconds: float = GRACE_SECONDS, *, dry_run: bool = False
) -> dict[Path, int]:
    """Delete retired segments whose grace is over and whose rows live on.

    One whose replacement is not there, or was found damaged, may be the last copy: it stays. So
    does one without a record, as a copy of the store made meanwhile may have it.

    Args:
        folders: all folders of the encoder's fingerprint; usually one.
        grace_seconds: since it was retired.
        dry_run: change nothing, only tell.

    Returns:
        What went (or would go), with its size in bytes.

    Raises:
        FormatError: a record is damaged.
        StoreError: one cannot be deleted.
    """
    gone = {}
    latest = time.time() - grace_seconds
    for path in (path for folder in folders for path in retired_files(folder)):
        with os_errors("deleting", path), contextlib.suppress(FileNotFoundError):
            # Renaming keeps the time of a segment's last write; the record's is of retirement.
            if path.with_suffix(".json").stat().st_mtime > latest:
                continue
            if _lives_on(folders, path.stem, with_drops=True):
                size = path.stat().st_size
                if not dry_run:
                    path.unlink()
                gone[path] = size
    return gone


def restore(folders: Sequence[Path]) -> list[Path]:
    """Bring back retired segments whose replacement is not there any more.

    Args:
        folders: all folders of the encoder's fingerprint.

    Returns:
        Where they are again.

    Raises:
        FormatError: a record is damaged.
        StoreError: one cannot be moved.
    """
    back = []
    for path in (path for folder in folders for path in retired_files(folder)):
        if path.with_suffix(".json").is_file() and not _lives_on(
            folders, path.stem, with_drops=True
        ):
            again = path.parent.parent / "segments" / path.name
            with os_errors("bringing back", path), contextlib.suppress(FileNotFoundError):
                path.rename(again)
                back.append(again)
    return back
