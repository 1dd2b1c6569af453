"""Taking vectors out of a store, as NumPy or Parquet files with their ids.

In: an encoder of a store, and a collection or nothing for all its rows. Out: vectors in the
collection's order, the ids beside them, and a record of where they came from. Values are as stored.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache import __version__
from era_cache.collection.packed import taken
from era_cache.collection.records import Collection
from era_cache.disk.files import make_folder, os_errors, sha256_file, staged
from era_cache.disk.json_files import read_json, write_json
from era_cache.disk.parquet import import_pyarrow
from era_cache.errors import InputError, StoreError
from era_cache.store.exchange.blocks import block_rows
from era_cache.store.exchange.parquet import parquet_writer
from era_cache.store.exchange.row_ids import KEY_COLUMN, fit_lines, write_ids
from era_cache.store.key_index import KeyIndex
from era_cache.store.read_rows import read_rows
from era_cache.store.sorted_keys import by_segment
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, IntArray, Keys, Progress, Role, silent

__all__ = ["ExportReport", "export_vectors"]

FORMAT, VERSION = "era-export", 1


class ExportReport(NamedTuple):
    """What was written."""

    encoder: str
    fingerprint: str
    role: str
    dim: int
    dtype: str
    rows: int
    skipped: int
    """Texts of the collection that have no vector."""
    vectors: str
    ids: str | None
    """File of the ids; None where the vectors' file holds them."""
    record: str
    seconds: float


class _Selection(NamedTuple):
    """Rows to write: their places in the index, and their names; all of one length."""

    key_index: KeyIndex
    positions: IntArray
    ids: list[str] | None
    skipped: int

    def blocks(self, dim: int) -> Iterator[tuple[slice, FloatArray]]:
        """Yield (which rows, their vectors (b, d) float32)."""
        size = block_rows(dim)
        for start in range(0, len(self.positions), size):
            part = slice(start, min(start + size, len(self.positions)))
            out = np.empty((part.stop - part.start, dim), dtype=np.float32)
            read_rows(self.key_index, self.positions[part], out)
            yield part, out

    def keys(self, part: slice) -> list[str]:
        """Keys of some rows, in hex."""
        return [key.tobytes().hex() for key in _keys_at(self.key_index, self.positions[part])]


def export_vectors(
    store: Store,
    encoder: StoredEncoder,
    collection: Collection | None,
    out: Path,
    *,
    dtype: str = "float32",
    ids_out: Path | None = None,
    skip_missing: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write the vectors that an encoder has in a store.

    Args:
        store: the store.
        encoder: one of its encoders.
        collection: whose texts, in its order; None is every row, named by its key.
        out: ``.npy`` or ``.parquet``; the record goes to the same name with ``.json`` added.
        dtype: ``float32`` or ``float16``.
        ids_out: where the ids of an ``.npy`` go; None adds ``.ids.txt`` to its name, or
            ``.ids.json`` where an id holds a line break.
        skip_missing: leave out texts that have no vector, instead of refusing.
        progress: told how far it is.

    Raises:
        InputError: another ending, a file is in the way, or a value does not fit float16.
        StoreError: texts have no vector, or a file cannot be written.
        FormatError: a segment is damaged.
    """
    begun = time.monotonic()
    try:
        str(out).encode("utf-8")
    except UnicodeEncodeError:
        # The record, which is UTF-8, names the file.
        raise InputError(f"{str(out)!r}: the name is not UTF-8. Name another file.") from None
    suffix = out.suffix.lower()
    if suffix not in (".npy", ".parquet"):
        raise InputError(f"{out}: name a file that ends in .npy or .parquet.")
    if ids_out is not None and suffix == ".parquet":
        raise InputError(f"{ids_out}: not needed; a Parquet file holds the ids itself.")
    if suffix == ".parquet":
        import_pyarrow(out)
    chosen = _select(store, encoder, collection, skip_missing)
    record_path = Path(f"{out}.json")
    ids_path = None if suffix == ".parquet" else ids_out or _ids_path(out, chosen)
    paths = [path for path in (out, ids_path, record_path) if path is not None]
    if len(set(paths)) < len(paths):
        raise InputError(f"{out}: vectors, ids and record need different files.")
    for path in paths:
        if path.exists():
            # Replacing several files is not one step: half of an old export must not stay.
            raise InputError(f"{path}: is there already. Remove the old export, or name another.")
    make_folder(out.parent, may_be_link=True)
    rows = len(chosen.positions)
    with staged(out.parent, suffix) as (temporary, commit):
        with _writer(temporary, suffix, chosen, encoder.spec.dim, dtype) as write:
            for part, block in chosen.blocks(encoder.spec.dim):
                write(part, _in_dtype(block, dtype, out))
                progress("exporting", part.stop, rows)
        digest = sha256_file(temporary)
        if ids_path is not None:
            write_ids(ids_path, chosen.ids or chosen.keys(slice(0, rows)))
        commit(out.name)
    report = ExportReport(
        encoder=encoder.spec.name,
        fingerprint=encoder.spec.fingerprint,
        role=encoder.spec.role.value,
        dim=encoder.spec.dim,
        dtype=dtype,
        rows=rows,
        skipped=chosen.skipped,
        vectors=out.name,
        ids=ids_path.name if ids_path else None,
        record=record_path.name,
        seconds=time.monotonic() - begun,
    )
    write_json(record_path, _record(store, encoder, collection, report, digest))
    return report


def _select(
    store: Store, encoder: StoredEncoder, collection: Collection | None, skip_missing: bool
) -> _Selection:
    index = encoder.index()
    if collection is None:
        found = [positions for positions, _ in index.distinct_rows()]
        if not found:
            raise StoreError(f"{store.label}: {encoder.spec.label()} has no rows.")
        positions = np.concatenate(found)
        return _Selection(index, positions, None, 0)
    role = encoder.spec.role
    keys = collection.keys_of(role)
    ids = collection.query_ids if role is Role.QUERY else collection.doc_ids
    positions = index.positions(keys)
    present = np.flatnonzero(positions >= 0)
    missing = len(keys) - len(present)
    if missing and (not skip_missing or not len(present)):
        raise StoreError(
            f"{store.label}: {missing} of the {len(keys)} texts of {collection.name} have no "
            f"vector of {encoder.spec.label()}. Run era-embed or era-store import for them; "
            "--skip-missing exports the others only."
        )
    return _Selection(index, positions[present], taken(ids, present), missing)


def _keys_at(index: KeyIndex, positions: IntArray) -> Keys:
    """The keys at some positions of an index, (n, 16) uint8."""
    keys = np.empty((len(positions), 16), dtype=np.uint8)
    for number, where, rows in by_segment(index.starts, positions):
        keys[where] = index.keys_of(number)[rows]
    return keys


def _ids_path(out: Path, chosen: _Selection) -> Path:
    lines = chosen.ids is None or fit_lines(chosen.ids)
    return Path(f"{out}.ids.txt" if lines else f"{out}.ids.json")


def _in_dtype(block: FloatArray, dtype: str, out: Path) -> FloatArray:
    with np.errstate(over="ignore"):
        values: FloatArray = block.astype(dtype, copy=False)
    if not (np.isfinite(values).all() and values.any(axis=1).all()):
        raise InputError(f"{out}: a vector is too large or too small for {dtype}; use float32.")
    return values


@contextlib.contextmanager
def _writer(
    path: Path, suffix: str, chosen: _Selection, dim: int, dtype: str
) -> Iterator[Callable[[slice, FloatArray], None]]:
    """Give a function that appends (which rows, their vectors) to a new file."""
    if suffix == ".parquet":
        names = [KEY_COLUMN] if chosen.ids is None else ["id", KEY_COLUMN]
        with parquet_writer(path, names, dim, dtype) as append:
            yield lambda part, block: append(
                ([] if chosen.ids is None else [chosen.ids[part]]) + [chosen.keys(part)], block
            )
        return
    shape = (len(chosen.positions), dim)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<"))
    header: dict[str, Any] = {"descr": descr, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda _part, block: _append(file, block)


def _append(file: Any, block: FloatArray) -> None:
    file.write(block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes())


def _record(
    store: Store,
    encoder: StoredEncoder,
    collection: Collection | None,
    report: ExportReport,
    digest: str,
) -> dict[str, Any]:
    """Where an export came from (JSON)."""
    with os_errors("reading", encoder.folder):
        name = store.path.resolve().name
    of = None
    if collection is not None:
        of = {"name": collection.name, "digest": collection.digest}
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "store": name,
        "encoder": read_json(encoder.folder / "encoder.json", "era-encoder", 1),
        "collection": of,
        "rows": report.rows,
        "skipped": report.skipped,
        "dim": report.dim,
        "dtype": report.dtype,
        "files": {"vectors": report.vectors, "ids": report.ids, "vectors_sha256": digest},
        "versions": {"era-cache": __version__, "numpy": np.__version__},
    }
