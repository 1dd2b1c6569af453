"""What a file of arrays says of itself: the digest of its content, and when it was made.

In: metadata and arrays. Out: SHA-256 in hex, the same wherever and by whatever they were written.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping

import numpy as np

from era_cache.disk.json_files import canonical_json
from era_cache.types import Array

__all__ = ["content_digest", "described", "now"]


def content_digest(meta: bytes, arrays: Mapping[str, Array]) -> str:
    """SHA-256 over the canonical metadata and every array, in hex (docs/format.md).

    Args:
        meta: canonical JSON.
        arrays: by name, in the order in which they count.
    """
    digest = hashlib.sha256(meta)
    for name, given in arrays.items():
        array = np.ascontiguousarray(given)
        digest.update(canonical_json([name, array.dtype.name, list(array.shape)]) + b"\n")
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def described(kind: str, version: int, meta: bytes, digest: str) -> dict[str, int | str]:
    """The attributes of a file of arrays that is written now: what it is, and of which content."""
    return {
        "format": kind,
        "version": version,
        "digest": digest,
        "created": now(),
        "meta": meta.decode("utf-8"),
    }


def now() -> str:
    """The time as files state it: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
