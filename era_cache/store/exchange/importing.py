"""Bringing in vectors that somebody has already, each under the key of its own text.

In: a vector file, what each of its rows is, and a statement of who made them. Out: segments like
those that era-embed writes, marked as stated. The whole file is checked before a row is stored: a
vector under another text's key is the one mistake that nothing downstream could see.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache import __version__
from era_cache.collection.keys import distinct_rows
from era_cache.collection.records import TextCollection
from era_cache.disk.files import os_errors, sha256_file
from era_cache.disk.shown import require_unicode
from era_cache.errors import EncoderError, InputError
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.exchange.blocks import VectorFile
from era_cache.store.exchange.matching import FileRows
from era_cache.store.exchange.row_checks import check_rows, selected_blocks
from era_cache.store.store import Store
from era_cache.types import Progress, Role, silent

__all__ = ["Claim", "ImportReport", "import_vectors"]


class ImportReport(NamedTuple):
    """What became of the rows of a file."""

    encoder: str
    fingerprint: str
    role: str
    dim: int
    dtype: str
    rows: int
    """Rows in the file."""
    imported: int
    stored_before: int
    """Texts whose vector the store had already, as exactly or more so; it stays."""
    repeated: int
    """Rows of a text that an earlier row of the file has, too, with the same vector."""
    unknown: int
    """Rows passed over because their ids are not in the collection."""
    still_missing: int | None
    """Texts of the collection that have no vector yet; None without a collection."""
    file_sha256: str
    seconds: float


class Claim(NamedTuple):
    """Who made vectors, as the user states it; ``note`` is kept with the segments."""

    spec: EncoderSpec
    role: Role
    note: str = ""
    """The user's own words."""


def import_vectors(
    store: Store,
    vectors: VectorFile,
    rows: FileRows,
    claim: Claim,
    *,
    dtype: str = "float16",
    texts: TextCollection | None = None,
    progress: Progress = silent,
) -> ImportReport:
    """Store the vectors of a file, as far as the store lacks them.

    Args:
        store: where they go.
        vectors: the file.
        rows: what its rows are.
        claim: who made the vectors.
        dtype: stored form: ``float32``, ``float16`` or ``int8``.
        texts: the collection that the rows are of; it is added to the store.
        progress: told how far it is.

    Raises:
        InputError: a row is not finite or all zero, or equal texts have different vectors; nothing
            is stored.
        EncoderError: the store has this encoder with another dimension.
        StoreError: the store cannot be written; what was committed is kept.
    """
    spec, role, note = claim
    require_unicode(note, "The note")
    begun, before = time.monotonic(), _state(vectors.path)
    known = store.find_encoder(spec.fingerprint(role))
    if known is not None and known.spec.dim != vectors.dim:
        raise EncoderError(
            f"{vectors.path}: vectors of {vectors.dim} dimensions, but {known.spec.label()} has "
            f"{known.spec.dim} in this store. They are not of the same encoder or settings."
        )
    with os_errors("reading", vectors.path):
        digest = sha256_file(vectors.path)
    check_rows(vectors, rows, dtype, spec.name, progress)
    places = np.flatnonzero(rows.known)
    distinct = places[distinct_rows(rows.keys[places])]
    new = distinct
    if known is not None:
        new = distinct[known.index().missing(rows.keys[distinct], dtype)]
    collection = store.add_collection(texts) if texts is not None else None
    provenance = {
        "stated": True,
        "imported_from": vectors.path.name,
        "file_sha256": digest,
        "era-cache": __version__,
        **({"note": note} if note else {}),
    }
    with store.writer(spec, role, vectors.dim, dtype=dtype, provenance=provenance) as writer:
        for keys, block, _ in selected_blocks(vectors, rows, new, "importing", progress):
            writer.write(keys, block)
    if _state(vectors.path) != before:
        raise InputError(
            f"{vectors.path}: changed while it was read; rows of it were stored. Remove the "
            f"segments that name {digest[:12]} and import it again."
        )
    still_missing = None
    if collection is not None:
        every = collection.keys_of(role)
        index = store.encoder(spec.fingerprint(role)).index()
        still_missing = int((index.positions(every[distinct_rows(every)]) < 0).sum())
    return ImportReport(
        encoder=spec.name,
        fingerprint=spec.fingerprint(role),
        role=role.value,
        dim=vectors.dim,
        dtype=dtype,
        rows=vectors.rows,
        imported=len(new),
        stored_before=len(distinct) - len(new),
        repeated=len(places) - len(distinct),
        unknown=vectors.rows - len(places),
        still_missing=still_missing,
        file_sha256=digest,
        seconds=time.monotonic() - begun,
    )


def _state(path: Path) -> tuple[int, int, int]:
    with os_errors("reading", path):
        status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
