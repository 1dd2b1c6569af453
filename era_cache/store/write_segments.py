"""Writing segments: groups of rows are sealed one by one, and small segments merged.

In: keys and vectors of one encoder. Out: new segments, each whole under its final name or absent.
A segment is never changed: merging writes a new one and then retires those it replaces.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from era_cache import __version__
from era_cache.collection.keys import distinct_rows
from era_cache.disk.files import make_folder, remove_stale_temporaries
from era_cache.errors import FormatError, StoreError
from era_cache.store.key_index import KeyIndex
from era_cache.store.precision import StoredRows, check_vectors
from era_cache.store.provenance import merged_provenance, written_order
from era_cache.store.read_rows import read_blocks
from era_cache.store.retired import purge
from era_cache.store.seal import Plan, seal
from era_cache.store.segment import (
    Segment,
    has_vanished,
    verify_digest,
)
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import Array, FloatArray, Keys

__all__ = ["SegmentWriter", "keep_rows", "merge_segments"]

_SMALL_BYTES = 32 << 20
"""Segment files below this are merged as they come."""
_MANY = 8
"""So many of about the same size: what comes of them is of the next size, so that after n small
additions there are some times log n segments, and each row was written log n times."""
_PURGE_SECONDS = 3600.0
_purged: dict[Path, float] = {}
"""When this process last looked for retired segments to delete, by encoder: there may be many."""


def merge_segments(
    encoder: StoredEncoder,
    segments: Sequence[Segment],
    provenance: dict[str, Any],
    dtype: str | None = None,
) -> Path | None:
    """Write one segment that holds every row of others, and retire those.

    Args:
        encoder: whose segments they are.
        segments: in the order their rows shall have; a repeated key is kept once.
        provenance: JSON that the new segment carries.
        dtype: stored form of the result; None is that of the most exact of them.

    Returns:
        The new segment's path, or None where another process was faster: one of the segments has
        been retired by then.

    Raises:
        FormatError: one of them is damaged; nothing is changed.
        StoreError: the folder cannot be written; nothing is changed.
    """
    if any(segment.path.parent.name == "retired" for segment in segments):
        return None
    preferred = sorted(segments, key=lambda s: s.preference)
    try:
        for segment in segments:
            segment.bring()
            verify_digest(segment.path)  # damage must not get a new name
        index = KeyIndex(preferred)
    except StoreError as error:
        here = [segment.path for segment in segments if segment.plain.origin is None]
        if has_vanished(error) or not all(path.exists() for path in here):
            return None
        raise
    into = dtype or preferred[0].dtype
    start_of = {s.path: int(index.starts[n]) for n, s in enumerate(preferred)}

    def blocks() -> Iterator[tuple[Keys, StoredRows]]:
        for segment in segments:
            start = start_of[segment.path]
            for keys, rows in read_blocks(segment):
                kept = index.positions(keys) == np.arange(start, start + len(keys))
                start += len(keys)
                if kept.all():
                    yield keys, _in_form(rows, segment, into)
                elif kept.any():
                    yield keys[kept], _in_form(rows.take(kept), segment, into)

    rows = sum(len(keys) for keys, _ in blocks()) if index.has_repeats() else int(index.starts[-1])
    # A name of its own, whoever else merges the same rows: see ``retire``.
    provenance = {**provenance, "writer": uuid.uuid4().hex[:12]}
    path = _sealed(encoder, Plan(rows, into, blocks), provenance)
    encoder.retire([s.path for s in segments if s.path != path], by=path.stem)
    return path


def keep_rows(
    encoder: StoredEncoder, segment: Segment, kept: Array, provenance: dict[str, Any]
) -> Path | None:
    """Write a segment again with some of its rows only, and retire it.

    Args:
        encoder: whose segment it is.
        segment: to be replaced.
        kept: (n,) bool, which rows stay; where none does, nothing is written.
        provenance: JSON that the new segment carries.

    Raises:
        FormatError: the segment is damaged; nothing is changed.
        StoreError: the folder cannot be written.
    """
    verify_digest(segment.path)

    def blocks() -> Iterator[tuple[Keys, StoredRows]]:
        start = 0
        for keys, rows in read_blocks(segment):
            mask = kept[start : start + len(keys)]
            start += len(keys)
            if mask.any():
                yield keys[mask], rows.take(mask)

    path = None
    if kept.any():
        plan = Plan(int(kept.sum()), segment.dtype, blocks)
        path = _sealed(encoder, plan, {**provenance, "writer": uuid.uuid4().hex[:12]})
    encoder.retire([segment.path], by=path.stem if path else None, dropped=True)
    return path


def _sealed(encoder: StoredEncoder, plan: Plan, provenance: dict[str, Any]) -> Path:
    make_folder(encoder.folder / "segments")
    path = seal(encoder.folder / "segments", encoder.spec, plan, provenance)
    encoder.publish(path)
    return path


def _in_form(rows: StoredRows, segment: Segment, dtype: str) -> StoredRows:
    if segment.dtype == dtype:
        return rows
    return check_vectors(
        rows.to_float32(),
        dtype,
        lambda row: f"row {row} of a block of {segment.path.name}",
        "the store",
    )


class SegmentWriter:
    """Commits rows of one encoder as segments, and merges its own when done.

    Use as a context manager: leaving it normally seals what is pending and merges this writer's
    small segments; leaving it by an error seals what is pending, too, and merges nothing.

    Args:
        encoder: whose rows they are.
        provenance: JSON that each segment carries.
        dtype: stored form of what ``write`` is given.
        seal_bytes: vectors held back, at most, before a segment is committed.
    """

    merge_bytes = 512 << 20

    def __init__(
        self,
        encoder: StoredEncoder,
        provenance: dict[str, Any],
        *,
        dtype: str = "float16",
        seal_bytes: int = 64 << 20,
    ) -> None:
        self.folder, self.spec = encoder.folder / "segments", encoder.spec
        self._encoder = encoder
        self.dtype = dtype
        # Two processes that encode the same rows in the same second must not write the same file:
        # the first to merge would take it away from the other.
        self._provenance = {**provenance, "writer": uuid.uuid4().hex[:12]}
        self._written: list[Path] = []
        self._pending: list[tuple[Keys, StoredRows]] = []
        self._pending_bytes = 0
        self._seal_bytes = seal_bytes
        make_folder(self.folder)
        remove_stale_temporaries(self.folder)
        if time.monotonic() - _purged.get(encoder.folder, -math.inf) > _PURGE_SECONDS:
            purge([encoder.folder, *encoder.others])
            _purged[encoder.folder] = time.monotonic()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        """Seal what is pending; merge unless an error is on its way."""
        self.flush()
        if kind is None:
            self._merge()
            self._merge_small()
            self._encoder.keep_index()

    def write(
        self, keys: Keys, vectors: FloatArray, name_of: Callable[[int], str] | None = None
    ) -> None:
        """Take rows; they are committed when enough have come, or when the writer is left.

        Args:
            keys: (n, 16) uint8; a key given twice in one group is stored once, its first row.
            vectors: (n, d) float16, float32 or float64, finite, no row all zero.
            name_of: names row i in an error.

        Raises:
            EncoderError: a row cannot be stored; nothing of this call is.
            StoreError: a segment cannot be written.
        """
        if keys.shape != (len(vectors), 16) or vectors.shape[1:] != (self.spec.dim,):
            raise ValueError(f"keys {keys.shape}, vectors {vectors.shape}, dim {self.spec.dim}")
        if keys.dtype != np.uint8 or vectors.dtype.kind != "f":
            raise ValueError(f"keys are {keys.dtype}, not uint8, or vectors {vectors.dtype}")
        name = name_of or (lambda row: f"row {row} (key {keys[row].tobytes().hex()})")
        rows = check_vectors(vectors, self.dtype, name, self.spec.name)
        self._pending.append((np.array(keys), rows))
        self._pending_bytes += rows.values.nbytes
        if self._pending_bytes >= self._seal_bytes:
            self.flush()

    def flush(self) -> None:
        """Commit what is pending. Raises ``StoreError``."""
        if not self._pending:
            return
        keys = np.concatenate([k for k, _ in self._pending])
        form = StoredRows.empty(len(keys), self.spec.dim, self.dtype)
        done = 0
        for some, rows in self._pending:
            form.put(slice(done, done + len(some)), rows)
            done += len(some)
        first = distinct_rows(keys)
        self.commit(keys[first], form.take(first) if len(first) < len(keys) else form)
        self._pending, self._pending_bytes = [], 0

    def commit(self, keys: Keys, rows: StoredRows | Array) -> Path:
        """Seal one group of rows at once.

        Args:
            keys: (n, 16) uint8, distinct, n >= 1.
            rows: n rows in their stored form, already checked (``check_vectors``).

        Returns:
            The segment's path.

        Raises:
            StoreError: it cannot be written; nothing is left behind.
            FormatError: what was read back differs from what was written.
        """
        stored = rows if isinstance(rows, StoredRows) else StoredRows(rows, None)
        if keys.shape != (len(stored.values), 16) or not len(keys):
            raise ValueError(f"keys {keys.shape} and vectors {stored.values.shape}")
        if stored.values.shape[1] != self.spec.dim:
            raise ValueError(f"vectors {stored.values.shape}, dim {self.spec.dim}")
        plan = Plan(len(keys), stored.values.dtype.name, lambda: iter([(keys, stored)]))
        provenance = {**self._provenance, "sequence": len(self._written)}
        path = seal(self.folder, self.spec, plan, provenance)
        self._encoder.publish(path)
        self._written.append(path)
        return path

    def _merge(self) -> None:
        """Replace this writer's segments by one, where they are several and small enough."""
        paths, self._written = self._written, []
        if len(paths) < 2:
            return
        try:
            opened = [self._encoder.open_segment(path) for path in paths]
        except StoreError:
            if all(path.exists() for path in paths):
                raise
            return  # a compaction beside has merged them already
        small = sum(s.plain.slots["vectors"].nbytes for s in opened) <= self.merge_bytes
        if small and len({s.dtype for s in opened}) == 1:
            provenance = {**self._provenance, "merged": len(paths)}
            merge_segments(self._encoder, opened, provenance)

    def _merge_small(self) -> None:
        """Merge segments of about one size, of whatever writer, once there are many of them."""
        try:
            while (batch := self._many_small()) is not None:
                about = {**merged_provenance(batch), "era-cache": __version__}
                if merge_segments(self._encoder, batch, about) is None:
                    return
        except FormatError:
            return  # damage is for verify and for checking readers to tell: what is new is stored
        except StoreError as error:
            if not has_vanished(error):  # else another process merges them just now
                raise

    def _many_small(self) -> list[Segment] | None:
        """Small segments of one form and about one size, in the order written; None if too few."""
        sizes: dict[int, list[Path]] = {}
        for path, size in self._encoder.segment_sizes():
            if size < _SMALL_BYTES:
                sizes.setdefault(size.bit_length() // 2, []).append(path)
        for _, paths in sorted(sizes.items()):
            if len(paths) < _MANY:
                continue
            forms: dict[str, list[Segment]] = {}
            for path in paths:
                segment = self._encoder.open_segment(path)
                forms.setdefault(segment.dtype, []).append(segment)
            most = max(forms.values(), key=len)
            if len(most) >= _MANY:
                return sorted(most, key=written_order)
        return None
