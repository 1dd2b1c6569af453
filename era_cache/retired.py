"""Retired files: superseded segments that step aside before they go.

In: segments that another segment has replaced. Out: they lie in ``retired/``, where readers that
hold them open keep them, and are deleted after a grace period. A small record of each one stays,
so that another store's copy is not brought back.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterable
from pathlib import Path

from era_cache.errors import FormatError
from era_cache.files import make_folder, os_errors, read_json, write_json
from era_cache.layout import SEGMENT_NAME, list_names

__all__ = [
    "GRACE_SECONDS",
    "is_replaced",
    "purge",
    "replacement",
    "retire",
    "retired_files",
    "retired_path",
]

FORMAT, VERSION = "era-retired", 1
GRACE_SECONDS = 24 * 3600.0
"""How long a retired file is kept: longer than any reader that opened it before should take."""
_RECORD_NAME = re.compile(r"([0-9a-f]{64})\.json")


def retire(paths: Iterable[Path], by: str | None) -> None:
    """Move segments aside that ``by`` has replaced.

    The caller has committed ``by`` and knows that it holds every row of each path. Names of new
    segments never repeat (their ``writer`` token is random), so a chain of replacements cannot
    close to a ring, however many processes compact at once: some live segment always has the row.

    Args:
        paths: ``<encoder>/segments/<digest>.h5``; one that is gone already is passed over.
        by: digest (the name without ``.h5``) of the replacement; None where rows are dropped.

    Raises:
        StoreError: the folder cannot be written.
    """
    for path in paths:
        kept = retired_path(path)
        folder = kept.parent
        make_folder(folder)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = {"format": FORMAT, "version": VERSION, "by": by, "created": created}
        write_json(folder / f"{path.stem}.json", record)
        with os_errors("retiring", path), contextlib.suppress(FileNotFoundError):
            path.rename(kept)


def retired_path(path: Path) -> Path:
    """Where a segment goes when it is retired."""
    return path.parent.parent / "retired" / path.name


def is_replaced(encoder_folder: Path, digest: str) -> bool:
    """Whether a segment was retired here and its rows live on in another one.

    Raises:
        FormatError: a record on the way is damaged.
    """
    seen = set()
    while digest not in seen:
        seen.add(digest)
        record_path = encoder_folder / "retired" / f"{digest}.json"
        if not record_path.is_file():
            return False
        by = replacement(record_path)
        if by is None:
            return False
        if (encoder_folder / "segments" / f"{by}.h5").is_file():
            return True
        digest = by
    return False


def replacement(record_path: Path) -> str | None:
    """Digest of the segment that replaced another one; None where rows were dropped.

    Args:
        record_path: ``<encoder>/retired/<digest>.json``.

    Raises:
        FormatError: it is damaged.
        StoreError: it cannot be read.
    """
    by = read_json(record_path, FORMAT, VERSION).get("by")
    if by is not None and not (isinstance(by, str) and SEGMENT_NAME.fullmatch(f"{by}.h5")):
        raise FormatError(f"{record_path}: damaged. Remove it.")
    return by


def retired_files(encoder_folder: Path) -> list[Path]:
    """Retired segments that still take space."""
    folder = encoder_folder / "retired"
    return [folder / name for name in list_names(folder, SEGMENT_NAME)]


def purge(
    encoder_folder: Path, grace_seconds: float = GRACE_SECONDS, *, dry_run: bool = False
) -> dict[Path, int]:
    """Delete retired segments whose grace is over; one without a record stays.

    Returns:
        What went (or would go), with its size in bytes.

    Raises:
        StoreError: one cannot be deleted.
    """
    gone = {}
    for path in retired_files(encoder_folder):
        # Renaming keeps the time of a segment's last write; the record's is that of retirement.
        with os_errors("deleting", path), contextlib.suppress(FileNotFoundError):
            # Without a record, as a copy made meanwhile may lack it, no one knows what replaced it.
            since = path.with_suffix(".json").stat().st_mtime
            if time.time() - since >= grace_seconds:
                size = path.stat().st_size
                if not dry_run:
                    path.unlink()
                gone[path] = size
    return gone
