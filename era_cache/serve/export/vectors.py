"""Vectors of a collection for other engines: its documents, or its queries behind an adapter.

In: a store and an adapter. Out: unit float32 rows in the collection's order, with their ids: a
faiss index, a FlexIndex of PyTerrier, ``.npy`` or Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.disk.files import os_errors, write_bytes
from era_cache.errors import FormatError, InputError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.serve.source import Source
from era_cache.store.exchange.blocks import block_rows
from era_cache.store.exchange.parquet import parquet_writer
from era_cache.store.exchange.row_ids import fit_lines, write_ids
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, Keys, Progress

__all__ = ["adapted_queries", "document_rows", "write_vectors"]


def document_rows(source: Source, progress: Progress) -> Iterator[FloatArray]:
    """Yield blocks of the documents' vectors, unit rows, in the collection's order.

    Raises:
        StoreError: one is missing.
        FormatError: one is damaged.
    """
    keys = source.collection.doc_keys
    index = source.encoders.document.index()
    size = block_rows(source.encoders.document.spec.dim)
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        yield _unit_rows(source.encoders.document, part, index)
        progress("exporting", start + len(part), len(keys))


def adapted_queries(source: Source, adapter: Adapter) -> FloatArray:
    """The collection's queries behind an adapter, (n, d) unit rows.

    Raises:
        StoreError: one is missing.
        FormatError: one is damaged.
    """
    keys = source.collection.query_keys
    sides = {"large": source.encoders.query, "small": source.encoders.small_query}
    return adapter.apply(
        {view: _unit_rows(sides[view], keys, sides[view].index()) for view in adapter.views}
    )


def _unit_rows(side: StoredEncoder, keys: Keys, index: Any) -> FloatArray:
    import torch

    vectors = side.vectors(keys, index=index)
    if not vectors.any(axis=1).all():
        raise FormatError(f"{side.folder}: a stored vector is all zero; damaged.")
    rows: FloatArray = unit(torch.from_numpy(vectors)).numpy()
    return rows


def write_vectors(
    out: Path, kind: str, blocks: Iterator[FloatArray], ids: list[str], dim: int
) -> None:
    """Write vectors into an empty folder.

    Args:
        out: the folder.
        kind: of ``options.VECTOR_KINDS``.
        blocks: unit rows, in the order of ``ids``.
        ids: of all rows.
        dim: values of a vector.

    Raises:
        InputError: a package is missing.
    """
    if kind == "flexindex":
        _write_flexindex(out, blocks, ids, dim)
        return
    if kind == "parquet":
        with parquet_writer(out / "vectors.parquet", ["id"], dim, "float32") as append:
            done = 0
            for block in blocks:
                append([ids[done : done + len(block)]], block)
                done += len(block)
        return
    if kind == "faiss":
        import faiss

        index = faiss.IndexFlatIP(dim)
        for block in blocks:
            index.add(np.ascontiguousarray(block))
        with os_errors("writing", out / "vectors.faiss"):
            faiss.write_index(index, str(out / "vectors.faiss"))
    else:
        path = out / "vectors.npy"
        with os_errors("writing", path):
            rows = np.lib.format.open_memmap(path, "w+", np.dtype("<f4"), (len(ids), dim))
            done = 0
            for block in blocks:
                rows[done : done + len(block)] = block
                done += len(block)
            rows.flush()
    write_ids(out / ("ids.txt" if fit_lines(ids) else "ids.json"), ids)


def _write_flexindex(out: Path, blocks: Iterator[FloatArray], ids: list[str], dim: int) -> None:
    """The files of pyterrier_dr's FlexIndex: ``pt_meta.json``, ``vecs.f4``, ``docnos.npids``."""
    try:
        from npids import Lookup
    except ImportError as error:
        raise InputError("--to flexindex needs the package npids: pip install npids.") from error
    path = out / "vecs.f4"
    with os_errors("writing", path), path.open("wb") as file:
        for block in blocks:
            file.write(block.astype("<f4").tobytes())
    with os_errors("writing", out / "docnos.npids"):
        Lookup.build(ids, str(out / "docnos.npids"), return_self=False)
    meta = {"type": "dense_index", "format": "flex", "vec_size": dim, "doc_count": len(ids)}
    write_bytes(out / "pt_meta.json", json.dumps(meta).encode())
