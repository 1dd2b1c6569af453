"""Rows of files that hold a table: JSON lines, .csv, .tsv, .parquet; packed with gzip or not.

In: a path. Out: numbered rows, name to value.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from era_cache.collection.lines import Line, lines_of
from era_cache.collection.text_files import read_blocks, whole_lines
from era_cache.disk.parquet import import_pyarrow
from era_cache.errors import InputError

__all__ = ["TABLES", "Row", "columns_of", "rows_of", "suffix_of"]

Row = tuple[int, Mapping[str, Any]]
"""Line or row number, and values by name."""
_JSON = (".jsonl", ".ndjson", ".json")
_SEPARATED = {".csv": ",", ".tsv": "\t"}
TABLES = (*_JSON, *_SEPARATED, ".parquet")
"""Suffixes of files that are tables."""


def suffix_of(path: Path) -> str:
    """The suffix that says what is in a file, in lower case; ``.gz`` says nothing."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def rows_of(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        path: with one of the suffixes ``TABLES``.
        wanted: columns that are of use; None is all. Others may be there too.

    Raises:
        InputError: it cannot be read, or a row is none; the message names the line.
    """
    suffix = suffix_of(path)
    if suffix in _JSON:
        return ((line.number, line.row()) for line in lines_of(path))
    if suffix in _SEPARATED:
        return _separated(path, _SEPARATED[suffix])
    if suffix == ".parquet":
        return _parquet(path, wanted)
    raise InputError(f"{path}: no table; expected one of {', '.join(TABLES)}.")


def columns_of(path: Path) -> list[str]:
    """Names of a table's columns, as far as its first row has them; none of an empty table.

    Raises:
        InputError: as ``rows_of``.
    """
    if suffix_of(path) == ".parquet":
        return list(_opened(path).schema_arrow.names)
    return next((list(row) for _, row in rows_of(path)), [])


def _separated(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(_text_lines(path), delimiter=delimiter, strict=True)
    head: list[str] | None = None
    try:
        for cells in reader:
            if not cells:  # a blank line between rows
                continue
            if head is None:
                head = cells
                if len(set(head)) != len(head):
                    raise Line(path, reader.line_num, b"").wrong("two columns have one name.")
                continue
            if len(cells) != len(head):
                raise Line(path, reader.line_num, b"").wrong(
                    f"{len(cells)} cells, where the head names {len(head)} columns."
                )
            yield reader.line_num, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        raise Line(path, reader.line_num, b"").wrong(f"no row of a table: {error}.") from error


def _text_lines(path: Path) -> Iterator[str]:
    """Every line with its end, blank ones too: a quoted cell may hold them."""
    for first, block in whole_lines(path, read_blocks(path), longest=None):
        for number, data in enumerate(block[:-1].split(b"\n"), start=first):
            try:
                yield data.decode("utf-8") + "\n"
            except UnicodeDecodeError as error:
                raise Line(path, number, data).wrong(f"not UTF-8 text ({error.reason}).") from error


def _opened(path: Path) -> Any:
    parquet = import_pyarrow(path, ".jsonl or .csv")
    try:
        return parquet.ParquetFile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}.") from error
    except ValueError as error:  # what pyarrow raises for a file that is none
        raise InputError(f"{path}: no sound Parquet file: {error}.") from error


def _parquet(path: Path, wanted: Collection[str] | None) -> Iterator[Row]:
    file = _opened(path)
    names = file.schema_arrow.names
    taken = names if wanted is None else [name for name in names if name in wanted]
    number = 0
    try:
        for batch in file.iter_batches(columns=taken):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no sound Parquet file: {error}.") from error
