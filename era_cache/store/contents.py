"""What a store holds, as rows for a table.

In: an open store. Out: lists of plain dicts (JSON).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from era_cache.store.store import Store, StoredEncoder
from era_cache.types import Keys, Role

__all__ = ["coverage", "list_collections", "list_encoders"]


def list_encoders(store: Store) -> list[dict[str, Any]]:
    """One row for each encoder and role: name, role, fingerprint, dimension, rows, size."""
    rows = []
    for encoder in store.encoders():
        segments = encoder.segments()
        rows.append(
            {
                "encoder": encoder.spec.name,
                "role": encoder.spec.role.value,
                "fingerprint": encoder.spec.fingerprint[:12],
                "dim": encoder.spec.dim,
                "rows": sum(len(segment.keys) for segment in segments),
                "segments": len(segments),
                "bytes": sum(segment.path.stat().st_size for segment in segments),
            }
        )
    return rows


def list_collections(store: Store) -> list[dict[str, Any]]:
    """One row for each stored version of each collection."""
    rows = []
    for name, version, _ in store.collection_paths():
        collection = store.collection(f"{name}-{version}")
        rows.append(
            {
                "collection": name,
                "version": version,
                "documents": len(collection.doc_ids),
                "queries": len(collection.query_ids),
                "judgements": len(collection.qrels.doc_rows),
                "splits": ", ".join(collection.splits),
                "embedded": collection.created[:19],
            }
        )
    return rows


def coverage(store: Store, name: str | None = None) -> list[dict[str, Any]]:
    """How many rows of each collection each encoder has.

    Args:
        store: the store.
        name: of one collection; None is all.

    Raises:
        StoreError: there is no such collection.
    """
    if name is not None:
        names = [name]
    else:
        names = [f"{n}-{version}" for n, version, _ in store.collection_paths()]
    indexes = [(encoder, encoder.index()) for encoder in store.encoders()]
    rows = []
    for one in names:
        collection = store.collection(one)
        for encoder, index in indexes:
            keys = _keys_of(encoder, collection.query_keys, collection.doc_keys)
            have = int(np.count_nonzero(index.positions(keys) >= 0))
            rows.append(
                {
                    "collection": f"{collection.name}-{collection.version}",
                    "encoder": encoder.spec.name,
                    "role": encoder.spec.role.value,
                    "fingerprint": encoder.spec.fingerprint[:12],
                    "stored": have,
                    "of": len(keys),
                }
            )
    return rows


def _keys_of(encoder: StoredEncoder, query_keys: Keys, doc_keys: Keys) -> Keys:
    return query_keys if encoder.spec.role is Role.QUERY else doc_keys
