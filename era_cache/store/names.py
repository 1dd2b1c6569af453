"""Where everything lies in a store: folder and file names, and nothing that follows a link.

In: names. Out: what each one is. docs/format.md is the specification; a name that fits no pattern
is not ours and is never read, moved or deleted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from era_cache.disk.files import is_companion, os_errors
from era_cache.errors import FormatError, StoreError
from era_cache.types import Role

__all__ = [
    "COLLECTION_NAME",
    "DATA_FOLDERS",
    "ENCODER_NAME",
    "FILE",
    "FOLDER",
    "INDEX_NAME",
    "LISTS_NAME",
    "MAX_NAMES",
    "PAIR_NAME",
    "SEARCH_INDEX_NAME",
    "SEGMENT_NAME",
    "STORE_FOLDERS",
    "Entry",
    "encoder_folder_name",
    "list_names",
    "list_sizes",
    "list_steadily",
    "refuse_strangers",
    "scan_folder",
]

ENCODER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}-(query|document)-([0-9a-f]{12})")
SEGMENT_NAME = re.compile(r"([0-9a-f]{64})\.h5")
INDEX_NAME = re.compile(r"[0-9a-f]{64}\.h5")
COLLECTION_NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,63})-([0-9a-f]{12})\.h5")
PAIR_NAME = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}\.json")
LISTS_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,31})-([0-9a-f]{12})-([0-9a-f]{12})\.h5")
SEARCH_INDEX_NAME = re.compile(r"(ivf|hnsw|pq)-([0-9a-f]{12})-([0-9a-f]{12})\.h5")
DATA_FOLDERS = ("encoders", "collections", "pairs", "runs")
"""What every store has, and what is copied of it."""
STORE_FOLDERS = (*DATA_FOLDERS, "indexes")
FILE, FOLDER = "file", "folder"
MAX_NAMES = 1_000_000
"""Names that are looked at in one place, at most."""
_LISTINGS = 10
T = TypeVar("T")


def encoder_folder_name(name: str, role: Role, fingerprint: str) -> str:
    """Name of the folder of one role of an encoder."""
    return f"{name}-{role.value}-{fingerprint[:12]}"


def refuse_strangers(where: Path | str, names: Iterable[str]) -> None:
    """Refuse a place where something else than a store lies; hidden names do not count.

    Args:
        where: the place, for the message.
        names: that lie there.

    Raises:
        StoreError: one of them is none that a store has.
    """
    known = {*STORE_FOLDERS, "store.json"}
    strangers = sorted(
        name
        for name in names
        if name not in known and not name.startswith(".") and not is_companion(name)
    )
    if strangers:
        raise StoreError(
            f"{where}: holds other files ({strangers[0]}, …) and is not a store. "
            "Give an empty or new folder."
        )


def list_sizes(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, int]]:
    """Files in ``folder`` that match ``pattern``, by name, with their sizes in bytes.

    Raises:
        FormatError, StoreError: as ``list_names``.
    """
    found = []
    for name in list_names(folder, pattern):
        with os_errors("listing", folder), contextlib.suppress(FileNotFoundError):
            found.append((folder / name, (folder / name).stat().st_size))
    return found


def list_names(folder: Path, pattern: re.Pattern[str], *, folders: bool = False) -> list[str]:
    """Names in ``folder`` that match ``pattern``, sorted; none where the folder is not there.

    Args:
        folder: of the store; its own parents may be links, itself not.
        pattern: matched against the whole name.
        folders: the names must be folders, else files.

    Raises:
        FormatError: the folder, or what a matching name stands for, is a link or of another kind.
        StoreError: the folder cannot be listed.
    """
    with os_errors("listing", folder):
        try:
            if stat.S_ISLNK(os.lstat(folder).st_mode):
                raise FormatError(f"{folder}: a link; nothing in a store may lead outside it.")
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            if not pattern.fullmatch(entry.name):
                continue
            if entry.is_symlink():
                raise FormatError(
                    f"{folder / entry.name}: a link; nothing in a store may lead outside it. "
                    "Replace it by what it points to."
                )
            if folders == entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
        return sorted(found)


class Entry(NamedTuple):
    """One name in a folder; ``form`` is ``FILE``, ``FOLDER``, or what else it is."""

    name: str
    form: str
    size: int
    """In bytes; -1 where the place does not say."""
    stamp: str = ""
    """Changes when the content does; empty where the place does not say."""


def scan_folder(folder: Path) -> Iterable[Entry]:
    """Everything in a folder, whatever it is; nothing where it is not there.

    A folder of segments is listed until no row can have been overlooked, and gives no more than
    ``MAX_NAMES`` names and one.

    Raises:
        StoreError: it cannot be listed.
    """
    if folder.name != "segments":
        return _scan(folder)
    return list_steadily(
        lambda: {entry.name: entry for entry in itertools.islice(_scan(folder), MAX_NAMES + 1)}
    ).values()


def _scan(folder: Path) -> Iterator[Entry]:
    with os_errors("listing", folder):
        try:
            scan = os.scandir(folder)
        except FileNotFoundError:
            return
        with scan:
            for entry in scan:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # renamed since: a temporary name, or retired
                    continue
                yield Entry(entry.name, _form(status.st_mode), status.st_size)


def _form(mode: int) -> str:
    if stat.S_ISREG(mode):
        return FILE
    if stat.S_ISDIR(mode):
        return FOLDER
    return "link" if stat.S_ISLNK(mode) else "device or pipe"


def list_steadily(listing: Callable[[], dict[str, T]]) -> dict[str, T]:
    """List a folder of segments such that no row is overlooked while others merge segments.

    One listing of some hundred files or more is not made at one moment: it can miss a segment that
    is retired meanwhile, and also the one that replaces it. Two listings that agree miss none.

    Args:
        listing: makes a listing, by name.

    Returns:
        The listing; under constant change also names that are gone by now, rather than too few.
    """
    before = listing()
    for _ in range(_LISTINGS):
        now = listing()
        if now.keys() == before.keys():
            return now
        before, last = now, before
    return {**last, **before}
