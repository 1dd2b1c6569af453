"""Whole folders, exchanged: whatever dies at whatever moment, the old one or the new one is there.

In: a folder, and what belongs to it. Out: the folder with new content, or as it was.

    .tmp-<writer>.<target>.new   content being written; nobody needs it
    .tmp-<writer>.<target>.old   what stood in the place; deleted once the new content stands there

No file system that people use everywhere exchanges two folders in one step. Between the two renames
the place is empty, and a writer that is killed there leaves the old content under its second name:
the next reader or writer of the folder puts it back (``restore``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from era_cache.disk.files import (
    TEMPORARY_PREFIX,
    fsync_folder,
    is_left_behind,
    make_folder,
    os_errors,
    temporary_name,
)
from era_cache.errors import StoreError

__all__ = ["exchanged", "restore"]

_PATIENCE = 1.0
"""Seconds that a reader waits for a writer that may be between its renames, which takes none."""
_ATTEMPTS = 5
"""To tidy a folder that other runs exchange meanwhile."""


@contextlib.contextmanager
def exchanged(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``folder`` when the block ends.

    A block that fails leaves ``folder`` as it was. What killed runs left beside it goes.

    Args:
        folder: made where it is missing; behind a link, the folder is exchanged and not the link.
        own: names that belong to the old content; everything else is somebody's own, and stays.

    Raises:
        StoreError: any OS error on the way.
    """
    folder = Path(os.path.realpath(folder))
    restore(folder)
    _clean_up(folder, own)
    new = folder.parent / temporary_name(_ending(folder, "new"))
    try:
        make_folder(new)
        yield new
        with os_errors("replacing", folder):
            _put_in_place(new, folder, own)
    except StoreError as error:
        raise StoreError(str(error).replace(str(new), str(folder))) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def restore(folder: Path) -> None:
    """Put a folder back that a writer took away and then died; else do nothing.

    A live writer that is only slow finds it in its way again, and takes it away again.
    """
    folder = Path(os.path.realpath(folder))
    end = time.monotonic() + _PATIENCE
    while not folder.exists() and (left := _beside(folder, "old")):
        if time.monotonic() < end:
            time.sleep(_PATIENCE / 20)
            continue
        with contextlib.suppress(OSError):
            max(left, key=lambda path: path.lstat().st_ctime).rename(folder)
            fsync_folder(folder.parent)
        return


def _put_in_place(new: Path, folder: Path, own: Collection[str]) -> None:
    """Nothing is deleted, and nobody's files are moved, before the new content stands."""
    olds: list[Path] = []
    try:
        while not _took_place(new, folder):
            old = folder.parent / temporary_name(_ending(folder, "old"))
            with contextlib.suppress(FileNotFoundError):  # another run is between its renames
                folder.rename(old)
                olds.append(old)
    except BaseException:
        if olds:
            with contextlib.suppress(OSError):
                olds[-1].rename(folder)
        raise
    fsync_folder(folder.parent)
    for old in reversed(olds):
        _remove(old, folder, own)


def _took_place(new: Path, folder: Path) -> bool:
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _remove(old: Path, folder: Path, own: Collection[str]) -> None:
    """Delete old content, but for what is not ours, which moves into the folder.

    Other runs may exchange the folder meanwhile, and move files into what they take for it. So
    nothing is deleted but by its name, and what cannot be moved now stays for the next run.
    """
    for _ in range(_ATTEMPTS):
        try:
            for path in old.iterdir():
                if path.name not in own:
                    if not os.path.lexists(folder / path.name):
                        path.rename(folder / path.name)
                elif path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            old.rmdir()
            return
        except OSError as error:
            if not old.exists():  # a reader put it back
                return
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
        time.sleep(_PATIENCE / 20)


def _clean_up(folder: Path, own: Collection[str]) -> None:
    """Delete what killed writers left, of content that stands or was never finished."""
    for path in _beside(folder, "new"):
        if is_left_behind(path):
            shutil.rmtree(path, ignore_errors=True)
    for path in _beside(folder, "old"):
        if is_left_behind(path) and folder.is_dir():
            with contextlib.suppress(OSError):
                _remove(path, folder, own)


def _ending(folder: Path, state: str) -> str:
    """Say of which folder; a digest fits into any file name."""
    return f".{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:12]}.{state}"


def _beside(folder: Path, state: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.parent.glob(f"{TEMPORARY_PREFIX}*{_ending(folder, state)}"))
    return []
