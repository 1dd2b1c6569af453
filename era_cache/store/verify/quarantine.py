"""Quarantine: damaged segments are set aside, never deleted.

In: a segment that ``verify`` found damaged. Out: it lies in ``quarantine/`` beside a record of the
reason, where nothing reads it, and the next era-embed encodes its rows again.
"""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

from era_cache.disk.files import make_folder, os_errors
from era_cache.disk.json_files import write_json

__all__ = ["set_aside"]

FORMAT, VERSION = "era-quarantine", 1


def set_aside(path: Path, reason: str, rows: int | None) -> Path:
    """Move a damaged segment into quarantine.

    Args:
        path: ``<encoder>/segments/<digest>.h5``; one that is gone already is passed over.
        reason: what is wrong with it.
        rows: how many it has; None where that cannot be told any more.

    Returns:
        Where it is now.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = path.parent.parent / "quarantine"
    make_folder(folder)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"format": FORMAT, "version": VERSION, "reason": reason, "rows": rows}
    write_json(folder / f"{path.stem}.json", {**record, "created": created})
    with os_errors("setting aside", path), contextlib.suppress(FileNotFoundError):
        path.rename(folder / path.name)
    return folder / path.name
