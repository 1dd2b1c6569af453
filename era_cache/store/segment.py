"""Segments: immutable files of keys and vectors, and what may be in them.

In: a path, or vectors to store. Out: a checked ``Segment`` whose rows can be read, or rows in their
stored form. docs/format.md is the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from era_cache.disk.files import os_errors, sha256_file
from era_cache.disk.hdf5 import Origin, PlainFile, open_plain
from era_cache.disk.json_files import loads_json
from era_cache.errors import FormatError, StoreError
from era_cache.store.names import SEGMENT_NAME
from era_cache.store.precision import DTYPES
from era_cache.store.retired import retired_path
from era_cache.types import IntArray, Keys

__all__ = [
    "Segment",
    "has_vanished",
    "look_again",
    "open_segment",
    "segment_attributes",
    "verify_digest",
]

_SEGMENT_FORMAT, _SEGMENT_VERSION = "era-segment", 2
_QUANTISED_VERSION = 2
_ATTEMPTS = 10
T = TypeVar("T")


class Segment(NamedTuple):
    """A checked segment; its rows are read when asked for."""

    path: Path
    plain: PlainFile
    provenance: str

    @property
    def keys(self) -> Keys:
        """Memory map of the keys, (n, 16) uint8, also where the file was retired meanwhile."""
        try:
            return self.plain.array("keys")
        except StoreError as error:
            if not has_vanished(error):
                raise
            return self.plain._replace(path=retired_path(self.path)).array("keys")

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

    def bring(self, rows: IntArray | None = None) -> None:
        """Make sure that rows' values are on this machine, where the file is elsewhere.

        Args:
            rows: (n,) int64, ascending; None is the whole file.

        Raises:
            FormatError: what came is not the file's content.
            StoreError: they cannot be had; caused by ``FileNotFoundError`` where it is gone.
        """
        if self.plain.origin is None:
            return
        with self.plain.opened() as reader:
            if rows is None:
                reader.bring_all()
                return
            for name in self.plain.slots.keys() - {"keys"}:
                reader.bring(name, rows)

    def about(self) -> dict[str, Any] | None:
        """What made it: its provenance, which is JSON; None where that cannot be read."""
        try:
            value = loads_json(self.provenance, str(self.path))
        except FormatError:  # says nothing of the vectors, so it is no reason to stop
            return None
        return value if isinstance(value, dict) else None

    @property
    def preference(self) -> tuple[int, str]:
        """Sorts segments such that of a repeated key the first segment's row counts."""
        return DTYPES.index(self.dtype), self.path.name


def has_vanished(error: BaseException) -> bool:
    """Whether an error means that another process has removed or renamed the file."""
    return isinstance(error.__cause__, FileNotFoundError)


def look_again(folder: Path, attempt: Callable[[], T]) -> T:
    """Repeat what failed because a segment is gone: it has just been merged into another.

    Raises:
        StoreError: segments of the encoder in ``folder`` keep vanishing, or another failure.
    """
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except StoreError as error:
            if not has_vanished(error):
                raise
    raise StoreError(f"{folder}: segments keep vanishing; is another program deleting them?")


def segment_attributes(
    fingerprint: str, count: int, dim: int, dtype: str, created_by: str
) -> dict[str, int | str]:
    """Root attributes of a segment (docs/format.md).

    The version is the lowest that can express it, so that older readers read what they can.
    """
    return {
        "format": _SEGMENT_FORMAT,
        "version": _QUANTISED_VERSION if dtype == "int8" else 1,
        "fingerprint": fingerprint,
        "count": count,
        "dim": dim,
        "dtype": dtype,
        "created_by": created_by,
    }


def open_segment(
    path: Path, fingerprint: str, dim: int, *, check: bool = False, origin: Origin | None = None
) -> Segment:
    """Check one segment's structure completely, its content's digest too where ``check``.

    Args:
        path: the file.
        fingerprint: of the encoder whose folder it lies in.
        dim: values of a row.
        check: read all of it and compare its SHA-256 with its name.
        origin: where its bytes come from; None where the file is whole, at its path.

    Raises:
        FormatError: damaged, hostile, newer, or another encoder's.
        StoreError: it cannot be opened; caused by ``FileNotFoundError`` where it is gone.
    """
    plain = open_plain(path, _SEGMENT_FORMAT, _SEGMENT_VERSION, origin)
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
        segment.bring()
        _verify_once(path)
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


_verified: set[tuple[str | int, ...]] = set()


def _verify_once(path: Path) -> None:
    """Compare a file's content with its name, unless this process did and the file is the same.

    Who changes a file changes its time of status, which no one can set back.
    """
    with os_errors("reading", path):
        status = path.stat()
    when = (status.st_mtime_ns, status.st_ctime_ns)
    same = (path.name, status.st_dev, status.st_ino, status.st_size, *when)
    if same not in _verified:
        verify_digest(path)
        _verified.add(same)


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
