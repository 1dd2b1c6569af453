"""Rows whose values follow from their keys, so that a checker needs no copy of them."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.collection.keys import row_keys
from era_cache.collection.records import Dropped, TextCollection
from era_cache.errors import EraError
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, Keys, Qrels, Role
from tests.hash_encoder import HashEncoder

__all__ = [
    "DIM",
    "PatternEncoder",
    "RowLog",
    "expected_rows",
    "numbered_texts",
    "read_log",
    "try_open",
    "wrong_rows",
]

DIM = 16
"""Values of a row, as many as a key has bytes."""
_WORK = bytes(1 << 20)


def expected_rows(keys: Keys, seed: int) -> FloatArray:
    """The row of each key: exact in float16, different for each key and seed, never zero."""
    return ((keys ^ np.uint8(seed)).astype(np.float32) + 1) / 32


class PatternEncoder:
    """An encoder whose vectors are ``expected_rows``.

    Args:
        seed: tells encoders apart.
        work: MiB that are hashed for each 256 texts, about a millisecond each.
    """

    def __init__(self, seed: int, work: int = 0) -> None:
        self.spec = HashEncoder(DIM, f"pattern {seed}").spec
        self._seed, self._work = seed, work

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """Encode texts in batches of 256."""
        for start in range(0, len(texts), 256):
            rows = list(range(start, min(start + 256, len(texts))))
            keys = row_keys(role, [texts[row] for row in rows])
            digest = hashlib.sha256()
            for _ in range(self._work):
                digest.update(_WORK)
            yield rows, expected_rows(keys, self._seed)

    def provenance(self) -> dict[str, Any]:
        """Nothing that matters."""
        return {"device": "cpu"}


def numbered_texts(first: int, count: int, name: str = "numbers") -> TextCollection:
    """A collection whose documents are numbers from ``first`` on; a tenth as many queries."""
    queries = range(first, first + max(1, count // 10))
    zero = np.zeros(1, dtype=np.int64)
    return TextCollection(
        name=name,
        domain="",
        ignore_identical_ids=False,
        doc_ids=[f"d{number}" for number in range(first, first + count)],
        doc_texts=[f"document {number}" for number in range(first, first + count)],
        query_ids=[f"q{number}" for number in queries],
        query_texts=[f"query {number}" for number in queries],
        instructions=[""] * len(queries),
        splits={"test": Qrels(zero, zero, zero + 1)},
        dropped=Dropped(),
    )


class RowLog:
    """Tells a checker which rows are committed, though this process may be killed right after.

    What is written to a file outlives the process without being synced.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, fingerprint: str, keys: Keys) -> None:
        """Write down that the rows of some keys are committed."""
        head = bytes.fromhex(fingerprint) + struct.pack("<Q", len(keys))
        os.write(self._descriptor, head + keys.tobytes())


def read_log(path: Path) -> dict[str, list[Keys]]:
    """Committed keys by fingerprint; an entry that was cut off by a kill is left out."""
    data = path.read_bytes() if path.exists() else b""
    found: dict[str, list[Keys]] = {}
    at = 0
    while at + 40 <= len(data):
        (count,) = struct.unpack_from("<Q", data, at + 32)
        end = at + 40 + 16 * count
        if end > len(data):
            break
        keys = np.frombuffer(data[at + 40 : end], np.uint8).reshape(-1, 16)
        found.setdefault(data[at : at + 32].hex(), []).append(keys)
        at = end
    return found


def wrong_rows(store: Store, seeds: dict[str, int], required: dict[str, Keys]) -> dict[str, int]:
    """Compare a store with what must be in it.

    Args:
        store: the store.
        seeds: of the encoders, by fingerprint.
        required: keys that must be there, by fingerprint.

    Returns:
        ``rows`` read, ``missing`` of the required, ``wrong`` values of any row, required or not.
    """
    encoders = {encoder.spec.fingerprint: encoder for encoder in store.encoders()}
    counts = {"rows": 0, "missing": 0, "wrong": 0}
    for fingerprint, keys in required.items():
        if fingerprint not in encoders:
            counts["missing"] += len(keys)
    for fingerprint, encoder in encoders.items():
        keys, missing = _present(encoder, required.get(fingerprint))
        counts["missing"] += missing
        if len(keys):
            rows = encoder.vectors(keys)
            different = (rows != expected_rows(keys, seeds[fingerprint])).any(axis=1)
            counts["wrong"] += int(different.sum())
            counts["rows"] += len(keys)
    return counts


def _present(encoder: StoredEncoder, required: Keys | None) -> tuple[Keys, int]:
    """All keys of an encoder, and how many of the required are not among them."""
    index = encoder.index()
    keys = np.concatenate(
        [np.asarray(index.keys_of(number)) for number in range(len(index.segments))]
        or [np.empty((0, 16), np.uint8)]
    )
    if required is None:
        return keys, 0
    return keys, int(np.count_nonzero(index.positions(required) < 0))


def try_open(path: Path) -> Store | EraError:
    """Open a store and all its encoders, or give the error."""
    try:
        store = Store.open(path)
        for encoder in store.encoders():
            encoder.segments()
    except EraError as error:
        return error
    return store
