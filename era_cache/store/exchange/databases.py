"""Vectors that lie in a vector database: read once by its own client into files, then imported.

In: an address such as ``qdrant://localhost:6333/articles``. Out: an ``.npy`` of float32 rows and a
JSON list of their ids. A database is only read; its vectors are taken as it gives them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

import numpy as np

from era_cache.disk.files import os_errors, write_bytes
from era_cache.disk.shown import clean
from era_cache.errors import InputError
from era_cache.types import FloatArray, Progress, silent

__all__ = ["DATABASES", "Fetched", "fetch_vectors", "is_address"]

_BLOCK = 1000
_MOST_ID = 4096
Blocks = Iterator[tuple[list[Any], Any]]
"""(ids, rows of numbers), of one width all along."""


class Fetched(NamedTuple):
    """What was read."""

    vectors: Path
    ids: Path
    source: str
    """The address without what could be secret."""


class _Address(NamedTuple):
    """An address taken apart; options that nobody asked for are refused."""

    parts: SplitResult
    options: dict[str, str]

    @property
    def place(self) -> tuple[str, str]:
        """(folder of an embedded database, or empty; name of the collection or table)."""
        path = self.parts.path.rstrip("/")
        before, _, name = path.rpartition("/")
        if not name:
            raise InputError(f"{self.shown}: names no collection or table at its end.")
        return (before, name) if not self.parts.netloc else ("", name)

    @property
    def shown(self) -> str:
        """It, without user, password and options."""
        host = self.parts.netloc.rpartition("@")[2]
        return clean(f"{self.parts.scheme}://{host}{self.parts.path}")


def is_address(text: str) -> bool:
    """Whether a text is the address of a database that is known here."""
    return text.partition("://")[0] in DATABASES and "://" in text


def fetch_vectors(address: str, folder: Path, progress: Progress = silent) -> Fetched:
    """Read all vectors of a collection or table.

    Args:
        address: ``qdrant://HOST:PORT/COLLECTION`` or ``qdrant:///FOLDER/COLLECTION`` (local mode;
            options ``id``, a field of the payload, and ``vector``, a name; key in
            ``QDRANT_API_KEY``), ``lancedb:///FOLDER/TABLE`` or ``postgresql://…/DATABASE`` (options
            ``table``, ``id``, ``vector``), as the database's client takes it.
        folder: where the files go.
        progress: told how far it is.

    Raises:
        InputError: the client is not installed, the database cannot be read, or a row has no
            vector of the same width or no id.
    """
    parts = urlsplit(address)
    known, read = DATABASES[parts.scheme]
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    mine = {name: options.pop(name) for name in known if name in options}
    if options and parts.scheme != "postgresql":
        raise InputError(
            f"{clean(address.partition('?')[0])}: no option {clean(next(iter(options)))!r}; there "
            f"are {', '.join(known)}."
        )
    at = _Address(parts, mine)
    try:
        total, blocks = read(at)
        return _written(at, total, blocks, folder, progress)
    except ImportError as error:
        raise InputError(
            f"{at.shown}: needs the package {error.name}: pip install {_PACKAGES[parts.scheme]}."
        ) from error
    except InputError:
        raise
    # A client raises its own errors, of any kind, and each means the same to the user.
    except Exception as error:
        reason = " ".join(clean(error).split())[:300]
        raise InputError(f"{at.shown}: cannot be read: {reason}") from error


def _written(at: _Address, total: int, blocks: Blocks, folder: Path, progress: Progress) -> Fetched:
    vectors, ids_path = folder / "vectors.npy", folder / "ids.json"
    ids: list[str] = []
    dim = 0
    with os_errors("writing", vectors), vectors.open("wb") as file:
        for named, rows in blocks:
            block = _floats(at, rows, dim)
            if not dim:
                dim = block.shape[1]
                _write_head(file, 0, dim)
            file.write(block.tobytes())
            ids += _texts(at, named, len(ids))
            progress("reading", len(ids), max(total, len(ids)))
        if not ids:
            raise InputError(f"{at.shown}: holds no vectors.")
        file.seek(0)
        _write_head(file, len(ids), dim)
    write_bytes(ids_path, json.dumps(ids, ensure_ascii=False).encode())
    return Fetched(vectors, ids_path, at.shown)


def _write_head(file: Any, rows: int, dim: int) -> None:
    """NumPy pads its head so that it can grow: it has one length for any number of rows."""
    head = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, head)


def _floats(at: _Address, rows: Any, dim: int) -> FloatArray:
    try:
        block = np.ascontiguousarray(rows, dtype="<f4")
    except (ValueError, TypeError) as error:
        raise InputError(f"{at.shown}: a row has no vector, or one of another width.") from error
    if block.ndim != 2 or not block.shape[1] or (dim and block.shape[1] != dim):
        raise InputError(f"{at.shown}: a row has no vector, or one of another width.")
    return block


def _texts(at: _Address, ids: list[Any], start: int) -> list[str]:
    found = [str(one) if isinstance(one, str | int) else "" for one in ids]
    for row, text in enumerate(found):
        if not text or len(text) > _MOST_ID:
            raise InputError(f"{at.shown}: row {start + row} has no id that is text or a number.")
    return found


def _qdrant(at: _Address) -> tuple[int, Blocks]:
    from qdrant_client import QdrantClient

    folder, name = at.place
    if folder:
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder.")
        client = QdrantClient(path=folder)
    else:
        secure = "s" if at.parts.port in (443, None) else ""
        url = f"http{secure}://{at.parts.netloc.rpartition('@')[2]}"
        client = QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"), timeout=60)
    field, vector = at.options.get("id"), at.options.get("vector")

    def blocks() -> Blocks:
        offset: Any = None
        try:
            while True:
                points, offset = client.scroll(
                    name,
                    limit=_BLOCK,
                    offset=offset,
                    with_payload=[field] if field else False,
                    with_vectors=[vector] if vector else True,
                )
                if points:
                    ids = [(p.payload or {}).get(field) if field else p.id for p in points]
                    held: list[Any] = [point.vector for point in points]
                    yield ids, [one[vector] for one in held] if vector else held
                if offset is None:
                    return
        finally:
            client.close()

    try:
        return int(client.count(name).count), blocks()
    except Exception:
        client.close()
        raise


def _lancedb(at: _Address) -> tuple[int, Blocks]:
    import lancedb

    folder, name = at.place
    if not folder:
        raise InputError(f"{at.shown}: give the folder, as lancedb:///FOLDER/TABLE.")
    table = lancedb.connect(folder).open_table(name)
    columns = [at.options.get("id", "id"), at.options.get("vector", "vector")]

    def blocks() -> Blocks:
        for batch in table.search().select(columns).to_batches(batch_size=_BLOCK):
            vectors = batch.column(columns[1])
            if batch.num_rows:
                rows = vectors.flatten().to_numpy(zero_copy_only=False)
                yield batch.column(columns[0]).to_pylist(), rows.reshape(batch.num_rows, -1)

    return int(table.count_rows()), blocks()


def _pgvector(at: _Address) -> tuple[int, Blocks]:
    import psycopg
    from psycopg import sql

    table = at.options.get("table")
    if not table:
        raise InputError(f"{at.shown}: say which table: ?table=NAME&id=id&vector=embedding.")
    names = [at.options.get("id", "id"), at.options.get("vector", "embedding")]
    source = sql.SQL(".").join(sql.Identifier(part) for part in table.split("."))
    columns = sql.SQL("{}, {}::real[]").format(*map(sql.Identifier, names))
    rest = [
        one
        for one in at.parts.query.split("&")
        if one and one.partition("=")[0] not in DATABASES["postgresql"][0]
    ]
    connection = psycopg.connect(at.parts._replace(query="&".join(rest)).geturl())

    def blocks() -> Blocks:
        with connection, connection.cursor("era_cache") as cursor:  # one snapshot, in parts
            cursor.itersize = _BLOCK
            cursor.execute(sql.SQL("SELECT {} FROM {}").format(columns, source))
            while rows := cursor.fetchmany(_BLOCK):
                yield [row[0] for row in rows], [row[1] for row in rows]

    try:
        count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(source)).fetchone()
    except Exception:
        connection.close()
        raise
    return int(count[0]) if count else 0, blocks()


DATABASES: dict[str, tuple[tuple[str, ...], Callable[[_Address], tuple[int, Blocks]]]] = {
    "qdrant": (("id", "vector"), _qdrant),
    "lancedb": (("id", "vector"), _lancedb),
    "postgresql": (("table", "id", "vector"), _pgvector),
}
"""Scheme of an address to its options and what reads it."""
_PACKAGES = {
    "qdrant": "qdrant-client",
    "lancedb": "lancedb",
    "postgresql": "'psycopg[binary]'",
}
