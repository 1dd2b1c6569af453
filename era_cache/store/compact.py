"""Compaction and clean-up: fewer, larger segments, and nothing kept that no one needs.

In: a store that others may read and write at the same time. Out: the same rows. Compaction writes
a segment that holds every row of those it replaces, then retires them; clean-up deletes what was
retired long ago, and nothing that a running writer has just sealed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache import __version__
from era_cache.disk.files import os_errors, remove_stale_temporaries
from era_cache.store.key_index import remove_stale_indexes
from era_cache.store.names import STORE_FOLDERS
from era_cache.store.retired import GRACE_SECONDS, purge
from era_cache.store.segment import DTYPES, Segment
from era_cache.store.store import Store, StoredEncoder
from era_cache.store.write_segments import keep_rows, merge_segments
from era_cache.types import Array, Keys, Progress, Role

__all__ = ["Cleaned", "Compacted", "clean", "compact"]

_MOST_ROWS = 1 << 24
_MOST_SOURCES = 24


class Compacted(NamedTuple):
    """What became of one encoder."""

    encoder: str
    fingerprint: str
    segments_before: int
    segments_after: int
    rows: int
    bytes_written: int


def compact(
    store: Store,
    *,
    encoder: str | None = None,
    max_bytes: int = 2 << 30,
    dtype: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Compacted]:
    """Merge segments into fewer, larger ones; rows keep the order in which they were written.

    Safe beside readers and writers: it retires only segments whose rows it has itself written
    again. What was retired is deleted by ``clean`` once its grace is over.

    Args:
        store: the store.
        encoder: name or fingerprint; None is all.
        max_bytes: of vectors in one new segment.
        dtype: convert rows that are stored more exactly than this; that loses digits for good.
        dry_run: change nothing, only tell.
        progress: told how far it is.

    Raises:
        FormatError: a segment is damaged; what was compacted before it stays compacted.
        StoreError: the store cannot be written.
    """
    chosen = [store.encoder(encoder)] if encoder is not None else store.encoders()
    planned = []
    for one in chosen:
        before = one.segments()
        planned.append((one, before, list(_batches(before, max_bytes, dtype))))
    total = sum(_size(batch) for _, _, batches in planned for batch in batches)
    tell = progress or (lambda _what, _done, _total: None)
    done, reports = 0, []
    for one, before, batches in planned:
        written = 0
        for batch in batches:
            if not dry_run:
                provenance = {**_merged_provenance(batch), "era-cache": __version__}
                path = merge_segments(
                    one.folder / "segments", one.spec, batch, provenance, _form(batch, dtype)
                )
                if path is not None:
                    with os_errors("reading", path), contextlib.suppress(FileNotFoundError):
                        written += path.stat().st_size
            done += _size(batch)
            tell(one.spec.name, done, total)
        if batches and not dry_run:
            one.keep_index()
        after = len(before) - sum(len(batch) - 1 for batch in batches)
        if not dry_run:
            after = len(one.segment_paths())
        rows = sum(segment.rows for segment in before)
        reports.append(
            Compacted(one.spec.name, one.spec.fingerprint, len(before), after, rows, written)
        )
    return reports


def _size(batch: list[Segment]) -> int:
    return sum(segment.plain.slots["vectors"].nbytes for segment in batch)


def _form(batch: list[Segment], dtype: str | None) -> str:
    exact = min(batch, key=lambda segment: segment.preference).dtype
    return max(exact, dtype or exact, key=DTYPES.index)


def _batches(segments: list[Segment], most: int, dtype: str | None) -> Iterator[list[Segment]]:
    """Segments to merge, in the order they were written, each batch of one stored form."""
    groups: dict[str, list[Segment]] = {}
    for segment in sorted(segments, key=_written_order):
        groups.setdefault(_form([segment], dtype), []).append(segment)
    for form, group in groups.items():
        batch: list[Segment] = []
        for segment in group:
            # One that is large already would be written again each time something small joins.
            large = _size([segment]) > most // 2 and segment.dtype == form
            rows = sum(s.rows for s in batch) + segment.rows
            if batch and (large or _size([*batch, segment]) > most or rows > _MOST_ROWS):
                yield from _worth_it(batch, form)
                batch = []
            if not large:
                batch.append(segment)
        yield from _worth_it(batch, form)


def _worth_it(batch: list[Segment], form: str) -> Iterator[list[Segment]]:
    if len(batch) > 1 or any(segment.dtype != form for segment in batch):
        yield batch


def _provenance(segment: Segment) -> dict[str, Any]:
    try:
        value = json.loads(segment.provenance)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _written_order(segment: Segment) -> tuple[str, str, int, str]:
    about = _provenance(segment)
    sequence = about.get("sequence")
    number = sequence if isinstance(sequence, int) else 0
    return str(about.get("created")), str(about.get("writer")), number, segment.path.name


def _merged_provenance(batch: list[Segment]) -> dict[str, Any]:
    """What the merged segments say of themselves, each statement once."""
    said: list[dict[str, Any]] = []
    for segment in batch:
        about = _provenance(segment)
        about.pop("sequence", None)
        about.pop("writer", None)
        # A time for each of a thousand segments says nothing; the day does.
        about["created"] = str(about.get("created"))[:10]
        for one in about.pop("sources", None) or [about]:
            if one not in said:
                said.append(one)
    left_out = len(said) - _MOST_SOURCES
    more = {"sources_left_out": left_out} if left_out > 0 else {}
    return {"sources": said[:_MOST_SOURCES], "merged": len(batch), **more}


class Cleaned(NamedTuple):
    """What was deleted, or would be: counts, and the bytes that it frees."""

    retired_segments: int = 0
    temporaries: int = 0
    indexes: int = 0
    old_collections: int = 0
    unreferenced_rows: int = 0
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

    Always: retired segments, superseded index files and the temporaries of killed writers.

    Args:
        store: the store.
        grace_seconds: what was retired or written since is left alone.
        old_versions: delete all versions of a collection but the newest, too.
        unreferenced: drop rows that no stored collection names, too: their segments are written
            again without them, and retired.
        dry_run: change nothing, only tell.

    Raises:
        FormatError: a segment or collection is damaged.
        StoreError: something cannot be deleted.
    """
    found = Cleaned()
    if old_versions:
        found = _drop_old_versions(store, found, grace_seconds, dry_run)
    for one in store.encoders():
        if unreferenced:
            found = _drop_unreferenced(store, one, found, grace_seconds, dry_run)
        gone = purge([one.folder, *one.others], grace_seconds, dry_run=dry_run)
        stale = remove_stale_indexes(
            one.folder, one.segments(), grace_seconds=grace_seconds, dry_run=dry_run
        )
        found = found._replace(
            retired_segments=found.retired_segments + len(gone),
            indexes=found.indexes + len(stale),
            bytes=found.bytes + sum([*gone.values(), *stale.values()]),
        )
    if not dry_run:
        folders = [store.path, *(store.path / name for name in STORE_FOLDERS)]
        for one in store.encoders():
            inside = ("segments", "index", "retired", "quarantine")
            folders += [one.folder, *(one.folder / name for name in inside)]
        removed = sum(remove_stale_temporaries(folder) for folder in folders)
        found = found._replace(temporaries=removed)
    return found


def _old_enough(path: Path, grace_seconds: float) -> bool:
    with os_errors("reading", path):
        return time.time() - path.stat().st_mtime >= grace_seconds


def _drop_old_versions(
    store: Store, found: Cleaned, grace_seconds: float, dry_run: bool
) -> Cleaned:
    newest = {name: store.collection(name).version for name, _, _ in store.collection_paths()}
    for name, version, path in list(store.collection_paths()):
        if version == newest[name] or not _old_enough(path, grace_seconds):
            continue
        with os_errors("deleting", path):
            size = path.stat().st_size
            if not dry_run:
                path.unlink(missing_ok=True)
        found = found._replace(old_collections=found.old_collections + 1, bytes=found.bytes + size)
    return found


def _drop_unreferenced(
    store: Store, encoder: StoredEncoder, found: Cleaned, grace_seconds: float, dry_run: bool
) -> Cleaned:
    is_query = encoder.spec.role is Role.QUERY
    collections = [
        store.collection(f"{name}-{version}") for name, version, _ in store.collection_paths()
    ]
    named = [(c.query_keys if is_query else c.doc_keys) for c in collections]
    wanted = np.unique(np.concatenate([_whole(k) for k in named])) if named else None
    for segment in encoder.segments():
        if not _old_enough(segment.path, grace_seconds):
            continue
        keys = _whole(segment.keys)
        kept = np.isin(keys, wanted) if wanted is not None else np.zeros(len(keys), dtype=bool)
        dropped = len(kept) - int(kept.sum())
        if not dropped:
            continue
        found = found._replace(unreferenced_rows=found.unreferenced_rows + dropped)
        if not dry_run:
            provenance = {**_merged_provenance([segment]), "era-cache": __version__}
            keep_rows(encoder.folder / "segments", encoder.spec, segment, kept, provenance)
    return found


def _whole(keys: Keys) -> Array:
    return np.ascontiguousarray(keys).view("V16").reshape(-1)
