"""Embedding: encode what the store lacks, once, and commit it in groups.

In: a text collection and two encoders. Out: segments in the store, the stored collection, and a
report of what was encoded and what was already there. The only step that loads a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from era_cache import __version__
from era_cache.collection.keys import alignment_order, distinct_rows
from era_cache.collection.records import Collection, TextCollection
from era_cache.config import EmbedConfig
from era_cache.encode.encoders import Encoder
from era_cache.errors import EncoderError
from era_cache.store.encoder_record import render
from era_cache.store.precision import StoredRows, check_vectors
from era_cache.store.store import SIDES, Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import FloatArray, IntArray, Keys, Progress, Role

__all__ = ["EncodedRows", "embed_collection", "encode_missing"]


class EncodedRows(NamedTuple):
    """What became of one set of texts."""

    what: str
    encoder: str
    rows: int
    """Distinct texts asked for."""
    encoded: int
    cached: int
    truncated: int
    seconds: float


def embed_collection(
    store: Store,
    texts: TextCollection,
    *,
    large: Encoder,
    small: Encoder,
    config: EmbedConfig,
    large_corpus: bool = False,
    progress: Progress | None = None,
) -> tuple[Collection, list[EncodedRows]]:
    """Encode a collection with both encoders as far as the store lacks it.

    The small encoder gets all documents and queries; the large one all queries and a sample of
    the documents for alignment, or all of them.

    Args:
        store: where the vectors go.
        texts: the collection.
        large: the strong encoder of queries.
        small: the encoder of the index; may be the same model.
        config: sample size, precision, group sizes.
        large_corpus: encode every document with the large encoder, too.
        progress: told how far each part is.

    Returns:
        The stored collection, and one report for each part.

    Raises:
        EncoderError: a model fails or gives unusable vectors; finished rows are kept.
        StoreError: the store cannot be written; what was committed is kept.
    """
    # First, so that an interrupted run shows in `era-store info` as incomplete, not as nothing.
    collection = store.add_collection(texts)
    sides = (
        large.spec.fingerprint(Role.QUERY),
        small.spec.fingerprint(Role.QUERY),
        small.spec.fingerprint(Role.DOCUMENT),
        large.spec.fingerprint(Role.DOCUMENT),
    )
    store.add_pair(collection, dict(zip(SIDES, sides, strict=True)))
    sample = alignment_order(collection.doc_keys, config.align_seed)
    if not large_corpus:
        sample = sample[: config.align_documents]
    everything = np.arange(len(texts.doc_ids))
    queries = np.arange(len(texts.query_ids))
    plan = (
        ("documents", small, Role.DOCUMENT, everything),
        ("queries", small, Role.QUERY, queries),
        ("queries", large, Role.QUERY, queries),
        ("alignment documents", large, Role.DOCUMENT, np.sort(sample)),
    )
    reports = []
    seen = set()
    for what, encoder, role, rows in plan:
        fingerprint = encoder.spec.fingerprint(role)
        if fingerprint in seen:  # same model on both sides: already encoded in full
            continue
        seen.add(fingerprint)
        what = "documents" if large_corpus and role is Role.DOCUMENT else what
        reports.append(
            _encode_part(store, collection, texts, what, encoder, role, rows, config, progress)
        )
    return collection, reports


def _encode_part(
    store: Store,
    collection: Collection,
    texts: TextCollection,
    what: str,
    encoder: Encoder,
    role: Role,
    rows: IntArray,
    config: EmbedConfig,
    progress: Progress | None,
) -> EncodedRows:
    is_query = role is Role.QUERY
    keys = (collection.query_keys if is_query else collection.doc_keys)[rows]
    bodies = texts.query_texts if is_query else texts.doc_texts
    ids = texts.query_ids if is_query else texts.doc_ids
    return encode_missing(
        store,
        encoder,
        role,
        keys,
        [bodies[row] for row in rows],
        [texts.instructions[row] for row in rows] if is_query else None,
        what=what,
        name_of=lambda row: f"{role.value} '{ids[rows[row]]}'",
        config=config,
        progress=progress,
    )


def encode_missing(
    store: Store,
    encoder: Encoder,
    role: Role,
    keys: Keys,
    texts: Sequence[str],
    instructions: Sequence[str] | None,
    *,
    what: str,
    name_of: Callable[[int], str],
    config: EmbedConfig,
    progress: Progress | None = None,
) -> EncodedRows:
    """Encode those of ``texts`` that the store has not, in groups that are committed one by one.

    A killed process loses at most the group in flight; an error or Ctrl-C loses nothing that the
    encoder had finished.

    Args:
        store: where the vectors go.
        encoder: makes them.
        role: of all the texts.
        keys: (n, 16) uint8, of (role, instruction, text).
        texts: n texts, not yet put into the template.
        instructions: n instructions, or None.
        what: names the rows for progress and report.
        name_of: names one row in an error.
        config: precision and group sizes.
        progress: told how far it is.

    Raises:
        EncoderError: the encoder fails or gives unusable vectors.
        StoreError: the store cannot be written.
    """
    start = time.monotonic()
    distinct = distinct_rows(keys)
    missing = _missing_rows(store, encoder, role, keys, distinct, config.dtype)
    truncated = getattr(encoder, "truncated", 0)
    if len(missing):
        job = _Job(store, encoder, role, keys, name_of, config)
        tell = progress or (lambda _what, _done, _total: None)
        tell(what, 0, len(missing))
        done = 0
        for group in job.groups(missing):
            rendered = render(
                encoder.spec.templates[role],
                [texts[row] for row in group],
                [instructions[row] for row in group] if instructions is not None else None,
            )
            job.encode_group(group, rendered, _shifted(tell, what, done, len(missing)))
            done += len(group)
        job.finish()
    return EncodedRows(
        what=what,
        encoder=encoder.spec.name,
        rows=len(distinct),
        encoded=len(missing),
        cached=len(distinct) - len(missing),
        truncated=getattr(encoder, "truncated", 0) - truncated,
        seconds=time.monotonic() - start,
    )


def _shifted(tell: Progress, what: str, before: int, total: int) -> Callable[[int], None]:
    """Progress of one group as progress of the whole."""
    return lambda done: tell(what, before + done, total)


def _missing_rows(
    store: Store, encoder: Encoder, role: Role, keys: Keys, distinct: IntArray, dtype: str
) -> IntArray:
    known = store.find_encoder(encoder.spec.fingerprint(role))
    if known is None:
        return distinct
    # float16 rows do not satisfy a run that asks for float32; the other way round they do.
    return distinct[known.index().missing(keys[distinct], dtype)]


class _Job:
    """Encodes groups of rows with one encoder and commits them."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        role: Role,
        keys: Keys,
        name_of: Callable[[int], str],
        config: EmbedConfig,
    ) -> None:
        self._store, self._encoder, self._role = store, encoder, role
        self._keys, self._name_of, self._config = keys, name_of, config
        self._dtype = config.dtype
        self._writer: SegmentWriter | None = None
        self._target: StoredEncoder | None = None
        self._group_rows = 1024

    def groups(self, rows: IntArray) -> Iterator[IntArray]:
        """Cut rows into groups that take about ``seal_seconds`` each, learning the speed."""
        start = 0
        while start < len(rows):
            begun, size = time.monotonic(), self._group_rows
            yield rows[start : start + size]
            start += size
            seconds = max(time.monotonic() - begun, 1e-6)
            dim = self._target.spec.dim if self._target else 1
            most = max(1024, self._config.seal_bytes // (dim * np.dtype(self._dtype).itemsize))
            wanted = int(size * self._config.seal_seconds / seconds)
            # At most four times as many: a first group of short texts must not mislead.
            self._group_rows = max(256, min(most, wanted, 4 * size))

    def encode_group(
        self, group: IntArray, rendered: Sequence[str], tell: Callable[[int], None]
    ) -> None:
        """Encode one group and commit it."""
        stored: StoredRows | None = None
        done = np.zeros(len(group), dtype=bool)
        try:
            for rows, batch in self._encoder.encode(rendered, self._role):
                checked = self._checked(group, rows, batch)
                if stored is None:
                    stored = StoredRows.empty(len(group), batch.shape[1], self._dtype)
                stored.put(rows, checked)
                done[rows] = True
                tell(int(done.sum()))
        finally:
            # Also on the way out of an error or Ctrl-C: finished rows are worth keeping.
            if stored is not None and done.any():
                self._commit(group[done], stored.take(done))
        if not done.all():
            raise EncoderError(
                f"{self._encoder.spec.name} returned {int(done.sum())} vectors for "
                f"{len(group)} texts."
            )

    def _checked(self, group: IntArray, rows: list[int], batch: FloatArray) -> StoredRows:
        name = self._encoder.spec.name
        if batch.ndim != 2 or len(batch) != len(rows):
            raise EncoderError(f"{name} returned shape {batch.shape} for {len(rows)} texts.")
        return check_vectors(
            batch, self._dtype, lambda row: self._name_of(int(group[rows[row]])), name
        )

    def _commit(self, rows: IntArray, stored: StoredRows) -> None:
        if self._writer is None:
            spec, dim = self._encoder.spec, stored.values.shape[1]
            self._target = self._store.add_encoder(spec, self._role, dim)
            about = {**self._encoder.provenance(), "era-cache": __version__}
            if self._config.note:
                about["note"] = self._config.note
            self._writer = SegmentWriter(self._target, about, dtype=self._dtype)
        self._writer.commit(self._keys[rows], stored)

    def finish(self) -> None:
        """Merge what this job wrote."""
        if self._writer is not None:
            with self._writer:
                pass
