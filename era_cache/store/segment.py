"""Segments: immutable files of keys and vectors, and what may be in them.

In: a path, or vectors to store. Out: a checked ``Segment`` whose rows can be read, or rows in their
stored form. docs/format.md is the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.disk.files import os_errors, sha256_file
from era_cache.disk.hdf5 import PlainFile, open_plain
from era_cache.errors import EncoderError, FormatError
from era_cache.store.names import SEGMENT_NAME
from era_cache.types import Array, FloatArray, IntArray, Keys

__all__ = [
    "DTYPES",
    "LARGEST_SCALE",
    "SEGMENT_FORMAT",
    "SEGMENT_VERSION",
    "Segment",
    "StoredRows",
    "all_finite",
    "check_vectors",
    "open_segment",
    "segment_attributes",
    "verify_digest",
]

SEGMENT_FORMAT, SEGMENT_VERSION = "era-segment", 2
DTYPES = ("float32", "float16", "int8")
"""Stored forms, the most exact first: of a repeated key, that row counts."""
_QUANTISED_VERSION = 2
LARGEST_SCALE = np.float32(np.finfo(np.float32).max / 127.5)
"""Of an int8 row: 127 steps of it are finite."""
_STORE_EXACTLY = {
    "int8": "Store with --dtype float32.",
    "float16": "Store with --dtype float32.",
    "float32": "No stored form holds it; look at that text.",
}


class StoredRows(NamedTuple):
    """Rows in their stored form.

    ``values`` (n, d) is float32, float16 or int8; ``scales`` (n,) float32 belongs to int8 only,
    where a row is ``values * scale``.
    """

    values: Array
    scales: FloatArray | None

    @classmethod
    def empty(cls, rows: int, dim: int, dtype: str) -> StoredRows:
        """Room for ``rows`` rows of ``dim`` values."""
        scales = np.empty(rows, np.float32) if dtype == "int8" else None
        return cls(np.empty((rows, dim), dtype), scales)

    def put(self, at: IntArray | slice | list[int], rows: StoredRows) -> None:
        """Copy ``rows`` into the places ``at``."""
        self.values[at] = rows.values
        if self.scales is not None and rows.scales is not None:
            self.scales[at] = rows.scales

    def take(self, at: Array | slice) -> StoredRows:
        """The rows at some places."""
        return StoredRows(self.values[at], None if self.scales is None else self.scales[at])

    def to_float32(self, out: FloatArray | None = None) -> FloatArray:
        """The vectors, (n, d) float32, in ``out`` where it is given."""
        if out is None:
            out = np.empty(self.values.shape, np.float32)
        if self.scales is None:
            out[...] = self.values
        else:
            np.multiply(self.values, self.scales[:, None], out=out, dtype=np.float32)
        return out

    def arrays(self) -> dict[str, Array]:
        """The datasets of a segment that hold these rows."""
        if self.scales is None:
            return {"vectors": self.values}
        return {"vectors": self.values, "scales": self.scales}


class Segment(NamedTuple):
    """A checked segment; its rows are read when asked for."""

    path: Path
    plain: PlainFile
    provenance: str

    @property
    def keys(self) -> Keys:
        """Memory map of the keys, (n, 16) uint8."""
        return self.plain.array("keys")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.plain.slots["keys"].shape[0]

    @property
    def dim(self) -> int:
        """Number of values of a row."""
        return self.plain.slots["vectors"].shape[1]

    @property
    def dtype(self) -> str:
        """Stored form: one of ``DTYPES``."""
        return self.plain.slots["vectors"].dtype.name

    @property
    def preference(self) -> tuple[int, str]:
        """Sorts segments such that of a repeated key the first segment's row counts."""
        return DTYPES.index(self.dtype), self.path.name


def segment_attributes(
    fingerprint: str, count: int, dim: int, dtype: str, created_by: str
) -> dict[str, int | str]:
    """Root attributes of a segment (docs/format.md).

    The version is the lowest that can express it, so that older readers read what they can.
    """
    return {
        "format": SEGMENT_FORMAT,
        "version": _QUANTISED_VERSION if dtype == "int8" else 1,
        "fingerprint": fingerprint,
        "count": count,
        "dim": dim,
        "dtype": dtype,
        "created_by": created_by,
    }


def open_segment(path: Path, fingerprint: str, dim: int, *, check: bool = False) -> Segment:
    """Check one segment's structure completely, its content's digest too where ``check``.

    Args:
        path: the file.
        fingerprint: of the encoder whose folder it lies in.
        dim: values of a row.
        check: read all of it and compare its SHA-256 with its name.

    Raises:
        FormatError: damaged, hostile, newer, or another encoder's.
        StoreError: it cannot be opened; caused by ``FileNotFoundError`` where it is gone.
    """
    plain = open_plain(path, SEGMENT_FORMAT, SEGMENT_VERSION)
    attributes = plain.attributes
    _check_slots(path, plain)
    segment = Segment(path, plain, str(attributes.get("created_by", "")))
    if attributes.get("fingerprint") != fingerprint:
        raise FormatError(
            f"{path}: holds vectors of fingerprint {str(attributes.get('fingerprint'))[:12]}, but "
            f"lies in the folder of {fingerprint[:12]}. Move it back or remove it."
        )
    declared = (attributes.get("count"), attributes.get("dim"), attributes.get("dtype"))
    if declared != (segment.rows, segment.dim, segment.dtype) or segment.dim != dim:
        raise FormatError(f"{path}: attributes {declared} do not match the arrays.")
    if check:
        verify_digest(path)
    return segment


def _check_slots(path: Path, plain: PlainFile) -> None:
    quantised = plain.attributes.get("version") == _QUANTISED_VERSION
    expected = {"keys", "vectors", "scales"} if quantised else {"keys", "vectors"}
    if set(plain.slots) != expected:
        raise FormatError(f"{path}: members {sorted(plain.slots)} are not those of a segment.")
    keys, vectors = plain.slots["keys"], plain.slots["vectors"]
    if keys.dtype != np.uint8 or keys.shape[1:] != (16,) or not keys.shape[0]:
        raise FormatError(f"{path}: 'keys' has dtype {keys.dtype} and shape {keys.shape}.")
    dtypes = [np.dtype("int8")] if quantised else [np.dtype("float16"), np.dtype("float32")]
    if vectors.dtype not in dtypes or len(vectors.shape) != 2:
        raise FormatError(f"{path}: 'vectors' has dtype {vectors.dtype}, shape {vectors.shape}.")
    if vectors.shape[0] != keys.shape[0] or not vectors.shape[1]:
        raise FormatError(f"{path}: {keys.shape[0]} keys, but vectors of shape {vectors.shape}.")
    if quantised:
        scales = plain.slots["scales"]
        if scales.dtype != np.float32 or scales.shape != (keys.shape[0],):
            raise FormatError(f"{path}: 'scales' has dtype {scales.dtype}, shape {scales.shape}.")


def verify_digest(path: Path) -> None:
    """Compare a segment's content with its name.

    Raises:
        FormatError: they differ.
        StoreError: it cannot be read.
    """
    with os_errors("reading", path):
        digest = sha256_file(path)
    if not SEGMENT_NAME.fullmatch(path.name) or digest != path.stem:
        raise FormatError(
            f"{path}: the content's SHA-256 is {digest[:12]}…, the name says {path.name[:12]}…; "
            "the segment is damaged. Set it aside with 'era-store verify --quarantine STORE': the "
            "next era-embed encodes only its rows again."
        )


def all_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite; integers always are."""
    if values.dtype == np.float16:  # six times faster than isfinite: all ones in the exponent
        return not len(values) or int((values.view(np.uint16) & 0x7C00).max()) != 0x7C00
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def check_vectors(
    vectors: FloatArray, dtype: str, name_of: Callable[[int], str], encoder: str
) -> StoredRows:
    """Convert vectors for storage, refusing what must never be stored.

    Args:
        vectors: (n, d) float32.
        dtype: one of ``DTYPES``.
        name_of: names row i for a message.
        encoder: the encoder's name, for a message.

    Returns:
        n rows in their stored form.

    Raises:
        EncoderError: a row is not finite (also: too large for float16), or all zero.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = _quantised(vectors) if dtype == "int8" else _converted(vectors, dtype)
        if stored.scales is None:
            finite = np.atleast_1d(np.isfinite(stored.values).all(axis=1))
        else:
            finite = np.isfinite(vectors).all(axis=1) & (stored.scales <= LARGEST_SCALE)
        bad = np.flatnonzero(~finite | ~stored.values.any(axis=1))
    if not len(bad):
        return stored
    row = int(bad[0])
    others = f" ({len(bad)} such rows in this batch)" if len(bad) > 1 else ""
    if np.isfinite(vectors[row]).all() and not finite[row]:
        what, mend = f"values too large for {dtype}", _STORE_EXACTLY[dtype]
    elif not finite[row]:
        what, mend = "NaN or infinite values", "Nothing of it is stored. Look at that text."
    elif vectors[row].any():
        what, mend = f"values too small for {dtype}", _STORE_EXACTLY[dtype]
    else:
        what, mend = "a vector of zeros", "No direction can be compared; remove or mend that text."
    raise EncoderError(f"{encoder} returned {what} for {name_of(row)}{others}. {mend}")


def _converted(vectors: FloatArray, dtype: str) -> StoredRows:
    # A copy always: the caller may fill its array anew before the rows are written.
    return StoredRows(np.array(vectors, dtype=dtype, order="C"), None)


def _quantised(vectors: FloatArray) -> StoredRows:
    """Symmetric int8: a row's largest value becomes 127, and what is left over is rounded."""
    scales = (np.abs(vectors).max(axis=1, initial=0) / np.float32(127)).astype(np.float32)
    # Too small for a float32 with all its digits: such a row counts as zeros, and is refused.
    scales[scales < np.finfo(np.float32).tiny] = 0
    safe = np.where(scales > 0, scales, np.float32(1))[:, None]
    values = np.nan_to_num(np.rint(vectors / safe), nan=0, posinf=0, neginf=0)
    values[scales == 0] = 0
    return StoredRows(np.clip(values, -127, 127).astype(np.int8), scales)
