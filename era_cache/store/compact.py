"""Compaction: fewer, larger segments.

In: a store that others may read and write at the same time. Out: the same rows. Compaction writes
a segment that holds every row of those it replaces, then retires them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from era_cache import __version__
from era_cache.disk.files import os_errors
from era_cache.store.precision import DTYPES
from era_cache.store.provenance import merged_provenance, written_order
from era_cache.store.segment import Segment
from era_cache.store.store import Store
from era_cache.store.write_segments import merge_segments
from era_cache.types import Progress, silent

__all__ = ["Compacted", "compact"]

_MOST_ROWS = 1 << 24


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
    progress: Progress = silent,
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
    done, reports = 0, []
    for one, before, batches in planned:
        written = 0
        for batch in batches:
            if not dry_run:
                provenance = {**merged_provenance(batch), "era-cache": __version__}
                path = merge_segments(one, batch, provenance, _form(batch, dtype))
                if path is not None:
                    with os_errors("reading", path), contextlib.suppress(FileNotFoundError):
                        written += path.stat().st_size
            done += _size(batch)
            progress(one.spec.name, done, total)
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
    for segment in sorted(segments, key=written_order):
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
