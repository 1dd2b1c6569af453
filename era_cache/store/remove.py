"""Collections and encoders that go from a store, or get another name, beside running readers.

In: a store, a name. Out: the store without it, or with it under the new name. Rows are not touched:
they are found again where the same is embedded again, until ``clean`` drops what nobody names.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from era_cache.collection.records import Collection
from era_cache.collection.stored import write_renamed
from era_cache.disk.files import fsync_folder, os_errors
from era_cache.disk.json_files import write_record
from era_cache.disk.shown import is_name
from era_cache.errors import FingerprintError, InputError, StoreError
from era_cache.store.encoder_record import read_encoder_record
from era_cache.store.names import ENCODER_NAME, PAIR_NAME, list_names
from era_cache.store.records import StoredPair, read_pair, read_stored_collection
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder

__all__ = ["REMOVED", "Removed", "bring_back", "remove", "rename"]

REMOVED = "removed.json"
"""What ``encoder.json`` is called in the folder of an encoder that was removed."""


class Removed(NamedTuple):
    """What went, or would: names of collections with versions, labels of encoders, pairs."""

    collections: list[str]
    encoders: list[str]
    pairs: int


def remove(store: Store, name: str, *, dry_run: bool = False) -> Removed:
    """Take a collection or an encoder out of a store.

    Args:
        store: the store.
        name: of a collection, with all its versions; or name and version of one; or name or start
            of a fingerprint of an encoder, with both its roles where a name is given.
        dry_run: change nothing, only tell.

    Raises:
        StoreError: there is none, a name means both, or it cannot be removed.
    """
    paths = _collections(store, name)
    encoders = [] if paths else _encoders(store, name)
    if not paths and not encoders:
        raise StoreError(
            f"{store.path}: no collection and no encoder '{name}'. era-store ls lists both."
        )
    gone = {read_stored_collection(path).digest for path in paths}
    fingerprints = {encoder.spec.fingerprint for encoder in encoders}
    pairs = [
        path
        for path, pair in _pairs(store)
        if pair.collection in gone or fingerprints & set(pair.sides.values())
    ]
    if not dry_run:
        for path in (*pairs, *paths):
            with os_errors("removing", path):
                path.unlink(missing_ok=True)
        for encoder in encoders:
            for folder in (encoder.folder, *encoder.others):
                with os_errors("removing", folder), contextlib.suppress(FileNotFoundError):
                    (folder / "encoder.json").replace(folder / REMOVED)
                    fsync_folder(folder)
    names = [path.name.removesuffix(".h5") for path in paths]
    return Removed(names, [encoder.spec.label() for encoder in encoders], len(pairs))


def bring_back(store: Store, fingerprint: str) -> StoredEncoder | None:
    """Undo the removal of an encoder whose rows are wanted again; None where there was none."""
    folder = store.path / "encoders"
    for name in list_names(folder, ENCODER_NAME, folders=True):
        mark = folder / name / REMOVED
        if not name.endswith(fingerprint[:12]) or not mark.is_file():
            continue
        if read_encoder_record(mark, name).fingerprint == fingerprint:
            with os_errors("bringing back", mark), contextlib.suppress(FileNotFoundError):
                mark.replace(folder / name / "encoder.json")
    return store.find_encoder(fingerprint)


def rename(store: Store, old: str, new: str) -> list[str]:
    """Give a collection, with all its versions, or an encoder another name.

    An adapter that was fitted on a collection finds it under its new name. The name of an encoder
    changes no fingerprint.

    Returns:
        What has the new name now.

    Raises:
        InputError: that is no name, or it is taken.
        StoreError: there is none, or it cannot be written.
    """
    if _collections(store, new) or _named(store, new):
        raise InputError(f"{store.path}: holds a '{new}' already. Choose another name.")
    paths = [path for name, _, path in store.collection_paths() if name == old]
    if paths:
        return [_renamed(store, path, new) for path in paths]
    encoders = _named(store, old)
    if not encoders:
        raise StoreError(
            f"{store.path}: no collection and no encoder '{old}'. era-store ls lists both."
        )
    if not is_name(new):
        raise InputError(f"{new!r} is no name of 1 to 200 printable characters.")
    for encoder in encoders:
        for folder in (encoder.folder, *encoder.others):
            write_record(folder / "encoder.json", replace(encoder.spec, name=new))
    return [encoder.spec.label() for encoder in _named(store, new)]


def _renamed(store: Store, path: Path, new: str) -> str:
    """The new file and its pairs first: whoever looks meanwhile finds one name or both."""
    old = read_stored_collection(path)
    written: Collection = write_renamed(path, new)
    for pair_path, pair in _pairs(store):
        if pair.collection == old.digest:
            moved = replace(pair, collection=written.digest)
            write_record(pair_path.parent / moved.file_name(), moved)
            with os_errors("removing", pair_path):
                pair_path.unlink(missing_ok=True)
    with os_errors("removing", path):
        path.unlink(missing_ok=True)
    return f"{written.name}-{written.version}"


def _collections(store: Store, name: str) -> list[Path]:
    return [path for n, version, path in store.collection_paths() if name in (n, f"{n}-{version}")]


def _named(store: Store, name: str) -> list[StoredEncoder]:
    return [encoder for encoder in store.encoders() if encoder.spec.name == name]


def _encoders(store: Store, name: str) -> list[StoredEncoder]:
    if found := _named(store, name):
        return found
    with contextlib.suppress(FingerprintError):
        return [store.encoder(name)]
    return []


def _pairs(store: Store) -> list[tuple[Path, StoredPair]]:
    folder = store.path / "pairs"
    return [(folder / name, read_pair(folder / name)) for name in list_names(folder, PAIR_NAME)]
