"""Places that hold a store: what lies there, and its bytes as streams.

In: a folder (or, through ``remote`` and ``packs``, a URL or a tar file), perhaps from a stranger.
Out: the files whose paths a store can have, with their sizes. A name that fits no pattern of
``names`` is never looked at, so that no listing can lead outside a store.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from era_cache.disk.files import (
    make_folder,
    os_errors,
    regular_file,
    remove_stale_temporaries,
    staged,
)
from era_cache.errors import FormatError, InputError, StoreError
from era_cache.store.names import (
    COLLECTION_NAME,
    DATA_FOLDERS,
    ENCODER_NAME,
    FILE,
    FOLDER,
    LISTS_NAME,
    MAX_NAMES,
    PAIR_NAME,
    SEGMENT_NAME,
    Entry,
    scan_folder,
)

__all__ = [
    "CHUNK_BYTES",
    "LIMITS",
    "Check",
    "Listing",
    "LocalPlace",
    "Place",
    "count_name",
    "kind_of",
    "limited",
    "list_store",
]

CHUNK_BYTES = 1 << 20
LIMITS = {
    "store": 64 << 10,
    "collection": 4 << 30,
    "encoder": 4 << 20,
    "segment": 64 << 30,
    "pair": 64 << 10,
    "lists": 16 << 30,
}
"""The kinds of file in a store, and the largest size in bytes that is accepted of each."""

Check = Callable[[Path, str], object]
"""Called with (path, SHA-256 in hex of its content); raises ``FormatError`` to refuse the file."""


class Listing(NamedTuple):
    """The files of a store in one place: path in the store to size, and to why it is refused."""

    files: dict[str, int]
    refused: dict[str, str]


class Place(Protocol):
    """Somewhere a store lies."""

    label: str
    """How messages name it."""
    threads: int
    """How many files may be copied at the same time."""

    def listing(self) -> Listing:
        """What lies there; nothing where there is no such folder. Raises ``StoreError``."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file, ``CHUNK_BYTES`` at a time.

        Raises:
            StoreError: it cannot be read; caused by ``FileNotFoundError`` where it is gone.
        """


def kind_of(path: str) -> str | None:
    """What a path in a store stands for: a key of ``LIMITS``, ``FOLDER``, or None for others."""
    match path.split("/"):
        case ["store.json"]:
            return "store"
        case [folder] if folder in DATA_FOLDERS:
            return FOLDER
        case ["collections", name] if COLLECTION_NAME.fullmatch(name):
            return "collection"
        case ["pairs", name] if PAIR_NAME.fullmatch(name):
            return "pair"
        case ["runs", name] if LISTS_NAME.fullmatch(name):
            return "lists"
        case ["encoders", name] | ["encoders", name, "segments"] if ENCODER_NAME.fullmatch(name):
            return FOLDER
        case ["encoders", name, "encoder.json"] if ENCODER_NAME.fullmatch(name):
            return "encoder"
        case ["encoders", name, "segments", segment] if SEGMENT_NAME.fullmatch(segment):
            return "segment" if ENCODER_NAME.fullmatch(name) else None
    return None


def count_name(seen: int, label: str) -> int:
    """Count one more name of a place. Raises ``StoreError`` beyond ``MAX_NAMES``."""
    if seen >= MAX_NAMES:
        raise StoreError(
            f"{label}: more than {MAX_NAMES:,} names. No store has as many; check what it is. "
            "A store of very many small segments becomes small by 'era-store compact'."
        )
    return seen + 1


def list_store(label: str, entries: Callable[[str], Iterable[Entry]]) -> Listing:
    """List a store whose folders are listed by ``entries``.

    Args:
        label: of the place.
        entries: what is in a folder, by its path in the store; nothing where it does not exist.

    Raises:
        StoreError: there are too many names.
    """
    found = Listing({}, {})
    seen, pending = 0, [""]
    while pending:
        folder = pending.pop()
        for entry in entries(folder):
            seen = count_name(seen, label)
            path = f"{folder}/{entry.name}" if folder else entry.name
            kind = kind_of(path)
            if kind is None:
                continue
            form = FOLDER if kind == FOLDER else FILE
            if entry.form != form:
                found.refused[path] = f"{label}/{path}: is a {entry.form}, not a {form}."
            elif kind == FOLDER:
                pending.append(path)
            else:
                found.files[path] = entry.size
    return found


def limited(chunks: Iterable[bytes], limit: int, shown: str) -> Iterator[bytes]:
    """Pass a stream on, up to ``limit`` bytes. Raises ``FormatError`` beyond."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise FormatError(f"{shown}: more than {limit} bytes, the most that such a file has.")
        yield chunk


class LocalPlace:
    """A store's folder on this machine, to read from and to write to."""

    threads = 1

    def __init__(self, root: Path) -> None:
        self.root, self.label = root, str(root)
        if re.match(r"[a-z][a-z0-9+.-]+:/", self.label) and not root.exists():
            raise InputError(
                f"{self.label}: looks like a URL, where a folder is needed. The order is "
                "'pull URL STORE' and 'push STORE URL'."
            )

    def path(self, name: str) -> Path:
        """Where a file of the store lies."""
        return self.root.joinpath(*name.split("/"))

    def entries(self, folder: str) -> Iterable[Entry]:
        """Give the names in a folder. Raises ``StoreError`` where it cannot be listed."""
        return scan_folder(self.path(folder) if folder else self.root)

    def listing(self) -> Listing:
        """What lies there."""
        return list_store(self.label, self.entries)

    def size(self, name: str) -> int | None:
        """Size of a file in bytes, None where it is not there. Raises ``StoreError``."""
        with os_errors("reading", self.path(name)):
            try:
                return self.path(name).stat().st_size
            except FileNotFoundError:
                return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file; one that is a link by now is not followed."""
        path = self.path(name)
        with os_errors("reading", path), regular_file(path) as (descriptor, _):
            while chunk := os.read(descriptor, CHUNK_BYTES):
                yield chunk

    def receive(self, name: str, chunks: Iterable[bytes], check: Check) -> int:
        """Write a file under a temporary name, check it, and give it its name.

        Args:
            name: path in the store.
            chunks: its content.
            check: told the temporary path and the content's SHA-256.

        Returns:
            Its size in bytes.

        Raises:
            FormatError: ``check`` refused it; nothing is left of it.
            StoreError: it cannot be written.
        """
        final = self.path(name)
        if not final.parent.is_dir():
            make_folder(final.parent)
        digest, size = hashlib.sha256(), 0
        with staged(final.parent, final.suffix) as (temporary, commit):
            with temporary.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += file.write(chunk)
            check(temporary, digest.hexdigest())
            commit(final.name)
        return size

    def clean(self, folders: Iterable[str]) -> None:
        """Remove what killed writers left in some folders."""
        for folder in folders:
            remove_stale_temporaries(self.path(folder))
