"""Clean-up: nothing is kept that no one needs.

In: a store that others may read and write at the same time. Out: the same rows in fewer files: what
was retired long ago is deleted, and nothing that a running writer has just sealed.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache import __version__
from era_cache.collection.keys import key_values
from era_cache.disk.files import os_errors, remove_stale_temporaries
from era_cache.errors import FormatError
from era_cache.store.lists import corpus_digest
from era_cache.store.names import (
    ENCODER_NAME,
    LISTS_NAME,
    SEARCH_INDEX_NAME,
    STORE_FOLDERS,
    list_names,
    list_sizes,
)
from era_cache.store.provenance import merged_provenance
from era_cache.store.remove import REMOVED
from era_cache.store.retired import GRACE_SECONDS, purge
from era_cache.store.search_indexes import rows_digest, source_of
from era_cache.store.sorted_keys import remove_stale_indexes
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.store.write_segments import keep_rows
from era_cache.types import Keys

__all__ = ["Cleaned", "clean"]


class Cleaned(NamedTuple):
    """What was deleted, or would be: counts, and the bytes that it frees."""

    retired_segments: int = 0
    temporaries: int = 0
    indexes: int = 0
    old_collections: int = 0
    unreferenced_rows: int = 0
    unreferenced_lists: int = 0
    removed_encoders: int = 0
    bytes: int = 0


def clean(
    store: Store,
    *,
    grace_seconds: float = GRACE_SECONDS,
    old_versions: bool = False,
    unreferenced: bool = False,
    dry_run: bool = False,
) -> Cleaned:
    """Delete what no one needs.

    Always: retired segments, superseded index files, search indexes of documents or encoders that
    are gone, the temporaries of killed writers and what is left of encoders that were removed.

    Args:
        store: the store.
        grace_seconds: what was retired or written since is left alone.
        old_versions: delete all versions of a collection but the newest, too.
        unreferenced: drop rows that no stored collection names, too: their segments are written
            again without them, and retired; and lists over documents that no collection has.
        dry_run: change nothing, only tell.

    Raises:
        FormatError: a segment or collection is damaged.
        StoreError: something cannot be deleted.
    """
    found: Counter[str] = Counter()
    old: set[Path] = set()
    _drop_removed(store, grace_seconds, dry_run, found)
    if old_versions:
        old = _drop_old_versions(store, grace_seconds, dry_run, found)
    if unreferenced:
        corpora = {corpus_digest(keys)[:12] for keys in _documents(store, old)}
        _drop_lists(store, grace_seconds, dry_run, corpora, found)
    _drop_search_indexes(store, grace_seconds, dry_run, old, found)
    for one in store.encoders():
        replaced: set[Path] = set()
        if unreferenced:
            replaced = _drop_unreferenced(store, one, grace_seconds, dry_run, old, found)
        if dry_run and grace_seconds <= 0:  # what is retired in a run then goes in the same run
            found["retired_segments"] += len(replaced)
            found["bytes"] += sum(path.stat().st_size for path in replaced)
        gone = purge([one.folder, *one.others], grace_seconds, dry_run=dry_run)
        left = [segment for segment in one.segments() if segment.path not in replaced]
        stale = remove_stale_indexes(one.folder, left, grace_seconds=grace_seconds, dry_run=dry_run)
        freed = sum([*gone.values(), *stale.values()])
        found += Counter(retired_segments=len(gone), indexes=len(stale), bytes=freed)
    if not dry_run:
        folders = [store.path, *(store.path / name for name in STORE_FOLDERS)]
        for one in store.encoders():
            inside = ("segments", "index", "retired", "quarantine")
            folders += [one.folder, *(one.folder / name for name in inside)]
        found["temporaries"] = sum(map(remove_stale_temporaries, folders))
    return Cleaned(**found)


def _old_enough(path: Path, grace_seconds: float) -> bool:
    with os_errors("reading", path):
        return time.time() - path.stat().st_mtime >= grace_seconds


def _drop_removed(store: Store, grace_seconds: float, dry_run: bool, found: Counter[str]) -> None:
    """Delete the folders of encoders that were removed, and not embedded with again since."""
    folder = store.path / "encoders"
    for name in list_names(folder, ENCODER_NAME, folders=True):
        place = folder / name
        mark = place / REMOVED
        if not mark.is_file() or not _old_enough(mark, grace_seconds):
            continue
        if (place / "encoder.json").is_file():  # it has come back
            if not dry_run:
                with os_errors("deleting", mark):
                    mark.unlink(missing_ok=True)
            continue
        with os_errors("deleting", place):
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            found += Counter(removed_encoders=1, bytes=size)
            if not dry_run:
                shutil.rmtree(place)


def _drop_old_versions(
    store: Store, grace_seconds: float, dry_run: bool, found: Counter[str]
) -> set[Path]:
    """Delete old versions and count them. Returns their files, which a dry run leaves there."""
    newest = {name: store.collection(name).version for name, _, _ in store.collection_paths()}
    gone = set()
    for name, version, path in list(store.collection_paths()):
        if version == newest[name] or not _old_enough(path, grace_seconds):
            continue
        gone.add(path)
        with os_errors("deleting", path):
            found += Counter(old_collections=1, bytes=path.stat().st_size)
            if not dry_run:
                path.unlink(missing_ok=True)
    return gone


def _staying(store: Store, old: set[Path]) -> list[tuple[str, str]]:
    """Names and versions of the collections that are not ``old``."""
    return [(name, version) for name, version, path in store.collection_paths() if path not in old]


def _documents(store: Store, old: set[Path]) -> Iterator[Keys]:
    """Keys of the documents of the collections that are not ``old``, one collection at a time."""
    for name, version in _staying(store, old):
        yield store.collection(f"{name}-{version}").doc_keys


def _drop_lists(
    store: Store, grace_seconds: float, dry_run: bool, wanted: set[str], found: Counter[str]
) -> None:
    """Delete files of lists whose documents are those of no collection that stays."""
    for path, size in list_sizes(store.path / "runs", LISTS_NAME):
        match = LISTS_NAME.fullmatch(path.name)
        if match is None or match[2] in wanted or not _old_enough(path, grace_seconds):
            continue
        found += Counter(unreferenced_lists=1, bytes=size)
        _delete(path, dry_run)


def _drop_search_indexes(
    store: Store, grace_seconds: float, dry_run: bool, old: set[Path], found: Counter[str]
) -> None:
    """Delete search indexes over documents or of encoders that are gone, and damaged ones."""
    files = list_sizes(store.path / "indexes", SEARCH_INDEX_NAME)
    if not files:
        return
    documents = set(map(rows_digest, _documents(store, old)))
    encoders = {encoder.spec.fingerprint for encoder in store.encoders()}
    for path, size in files:
        with contextlib.suppress(FormatError):
            source = source_of(path)
            if source.documents in documents and source.encoder in encoders:
                continue
        if _old_enough(path, grace_seconds):
            found += Counter(indexes=1, bytes=size)
            _delete(path, dry_run)


def _delete(path: Path, dry_run: bool) -> None:
    if not dry_run:
        with os_errors("deleting", path):
            path.unlink(missing_ok=True)


def _drop_unreferenced(
    store: Store,
    encoder: StoredEncoder,
    grace_seconds: float,
    dry_run: bool,
    old: set[Path],
    found: Counter[str],
) -> set[Path]:
    """Replace segments by ones without the rows that no collection names, but for those in ``old``.

    Returns the segments that are replaced, which a dry run leaves there.
    """
    collections = (store.collection(f"{name}-{version}") for name, version in _staying(store, old))
    named = [key_values(collection.keys_of(encoder.spec.role)) for collection in collections]
    wanted = np.unique(np.concatenate(named)) if named else None
    replaced = set()
    for segment in encoder.segments():
        if not _old_enough(segment.path, grace_seconds):
            continue
        keys = key_values(segment.keys)
        kept = np.isin(keys, wanted) if wanted is not None else np.zeros(len(keys), dtype=bool)
        dropped = len(kept) - int(kept.sum())
        if not dropped:
            continue
        found["unreferenced_rows"] += dropped
        replaced.add(segment.path)
        if not dry_run:
            provenance = {**merged_provenance([segment]), "era-cache": __version__}
            keep_rows(encoder, segment, kept, provenance)
    return replaced
