"""Stored rows as unit tensors on a device.

In: an encoder of a store, keys. Out: float32 tensors; many documents in half precision stay in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from era_cache.errors import FormatError
from era_cache.fitting.adapter import unit
from era_cache.rank.corpus import HalfRows
from era_cache.store.key_index import KeyIndex
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import Keys

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["read_corpus", "read_unit"]

_LARGE_BYTES = 128 << 20
"""Documents that would take more than this in float32 stay in half precision."""


def read_unit(
    encoder: StoredEncoder, keys: Keys, device: str, *, check: bool, index: KeyIndex | None = None
) -> torch.Tensor:
    """Rows of an encoder by key, (n, d) unit float32. Raises as ``read_corpus``."""
    import torch

    vectors = encoder.vectors(keys, check=check, index=index)
    zero = int(np.count_nonzero(~vectors.any(axis=1)))
    if zero:
        raise FormatError(f"{encoder.folder}: {zero} stored vectors are all zero; damaged.")
    return unit(torch.from_numpy(vectors).to(device))


def read_corpus(
    encoder: StoredEncoder,
    keys: Keys,
    device: str,
    *,
    check: bool,
    index: KeyIndex | None = None,
    large_bytes: int | None = None,
) -> Corpus:
    """The documents of a collection as unit rows; many in half precision stay in it until used.

    Args:
        encoder: whose rows they are.
        keys: (n, 16) uint8.
        device: torch device name.
        check: compare the digests of all segments first, where no index is given.
        index: of the encoder.
        large_bytes: what they may take in float32, None for 128 MiB; unpacking them takes longer
            for single queries.

    Raises:
        StoreError: rows are missing.
        FormatError: a segment is damaged.
    """
    import torch

    most = _LARGE_BYTES if large_bytes is None else large_bytes
    if 4 * len(keys) * encoder.spec.dim < most:
        return read_unit(encoder, keys, device, check=check, index=index)
    index = index or encoder.index(check=check)
    half = encoder.half_vectors(keys, index)
    if half is None:
        return read_unit(encoder, keys, device, check=False, index=index)
    rows = HalfRows(torch.from_numpy(half).to(device))
    if bool((rows.norms == 0).any()):
        raise FormatError(f"{encoder.folder}: a stored vector is all zero; damaged.")
    return rows
