"""Safetensors files from strangers: names, types and sizes are checked before data is read.

In: a file. Out: exactly the arrays that were expected.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np

from era_cache.disk.files import os_errors, regular_file
from era_cache.errors import FormatError
from era_cache.types import FloatArray

__all__ = ["read_tensors"]

_TENSOR_LIMIT = 1 << 32
_HEADER_LIMIT = 1 << 16


def read_tensors(path: Path, names: set[str], sha256: str = "") -> dict[str, FloatArray]:
    """Read a safetensors file that must hold exactly ``names``, all float32 and finite.

    Args:
        path: the file.
        names: of its tensors.
        sha256: of its content, in hex, where another file says so.

    Raises:
        FormatError: anything else; sizes are checked before a byte of data is read.
        StoreError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with (
        os_errors("reading", path),
        regular_file(path) as (descriptor, size),
        os.fdopen(descriptor, "rb", closefd=False) as file,
    ):
        if not 8 < size <= _TENSOR_LIMIT:
            raise FormatError(f"{path}: {size} bytes is no adapter.")
        data = file.read(size)
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise FormatError(f"{path}: content and config.json differ; damaged. Fit it again.")
    if len(data) < 8:
        raise FormatError(f"{path}: not a valid safetensors file: cut off while it was read.")
    (header_size,) = struct.unpack("<Q", data[:8])
    if header_size > min(_HEADER_LIMIT, size - 8):
        raise FormatError(f"{path}: header of {header_size} bytes.")
    try:
        header = json.loads(data[8 : 8 + header_size])
        if not isinstance(header, dict):
            raise FormatError(f"{path}: its header is no JSON object.")
        dtypes = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        if set(dtypes) != names or set(dtypes.values()) != {"F32"}:
            raise FormatError(f"{path}: tensors {dtypes}, expected float32 {sorted(names)}.")
        tensors: dict[str, FloatArray] = load(data)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise FormatError(f"{path}: not a valid safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise FormatError(f"{path}: tensor '{name}' is not finite.")
    return tensors
