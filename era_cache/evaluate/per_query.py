"""Values of every query as a long table for other tools, in CSV or Parquet.

In: per-query values of some systems. Out: a file with the columns query_id, those that the caller
adds, the system's name, measure and value; one row for each query, system and measure.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.disk.files import staged
from era_cache.disk.parquet import import_pyarrow, write_parquet_columns
from era_cache.disk.shown import csv_text
from era_cache.errors import InputError
from era_cache.types import Array, FloatArray

if TYPE_CHECKING:
    from era_cache.rank.measures import Measure

__all__ = ["check_per_query_path", "joined", "per_query_columns", "write_per_query"]

_ROWS = 1 << 14


def per_query_columns(
    query_ids: Sequence[str],
    values: Mapping[str, Mapping[Measure, FloatArray] | Mapping[str, FloatArray]],
    *,
    keys: Mapping[str, str | int | float] | None = None,
    system: str = "run",
) -> dict[str, Array]:
    """Lay out per-query values as columns.

    Args:
        query_ids: q ids.
        values: (q,) numbers by system and measure.
        keys: further columns that say what all of this is about, such as collection or seed; they
            stand behind query_id.
        system: name of the column of systems.

    Returns:
        Columns of one length by name: query_id, the keys, ``system``, measure, value.

    Raises:
        ValueError: there is nothing to lay out, or an array has not q values.
    """
    parts = [
        (name, str(measure), column)
        for name, measures in values.items()
        for measure, column in measures.items()
    ]
    n = len(query_ids)
    if not parts or any(column.shape != (n,) for _, _, column in parts):
        raise ValueError(f"Each system and measure must have {n} values, and one must be there.")
    ids = np.empty(n, dtype=object)
    ids[:] = query_ids
    names, measured, columns = zip(*parts, strict=True)
    return {
        "query_id": np.tile(ids, len(parts)),
        **{key: np.full(n * len(parts), value) for key, value in (keys or {}).items()},
        system: np.repeat(np.array(names, dtype=object), n),
        "measure": np.repeat(np.array(measured, dtype=object), n),
        "value": np.concatenate(columns),
    }


def joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Put tables with the same columns below each other.

    Raises:
        ValueError: there is none, or their columns differ.
    """
    if not parts or any(list(part) != list(parts[0]) for part in parts):
        raise ValueError("Tables to join must be there, and have the same columns.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_per_query_path(path: Path) -> None:
    """Refuse a path that could not be written, before anything long is begun.

    Raises:
        InputError: it ends in neither .csv nor .parquet, its folder is missing, or Parquet is
            asked for without pyarrow.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        import_pyarrow(path, ".csv")
    elif ending != ".csv":
        raise InputError(f"{path}: per-query values are written as .csv or .parquet. Rename it.")
    if path.is_dir():
        raise InputError(f"{path}: a folder is in the way. Choose another path.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist. Create it first.")


def write_per_query(path: Path, columns: Mapping[str, Array]) -> None:
    """Write a table by the ending of its name, numbers in full precision.

    In CSV, a text that a spreadsheet would take for a formula has an apostrophe in front; Parquet
    holds all texts as they are.

    Args:
        path: file to write or replace, .csv or .parquet.
        columns: (n,) arrays of numbers or texts by name, as ``per_query_columns`` makes them.

    Raises:
        InputError: the ending is another, pyarrow is missing, or a text is not valid Unicode.
        StoreError: it cannot be written.
        ValueError: columns differ in length.
    """
    check_per_query_path(path)
    if len({column.shape for column in columns.values()}) != 1:
        raise ValueError("A table needs columns, all of one length.")
    for name, column in columns.items():
        _check_unicode(path, name, column)
    with staged(path.parent, path.suffix) as (temporary, commit):
        if path.suffix.lower() == ".parquet":
            write_parquet_columns(temporary, columns)
        else:
            _write_csv(temporary, columns)
        commit(path.name)


def _is_text(column: Array) -> bool:
    return column.dtype.kind in "OU"


def _check_unicode(path: Path, name: str, column: Array) -> None:
    try:
        if _is_text(column):
            "".join(column.tolist()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path} cannot be written: a {name} is not valid Unicode ({error.reason})."
        ) from error


def _write_csv(path: Path, columns: Mapping[str, Array]) -> None:
    length = len(next(iter(columns.values())))
    quoted = {n: _Quoted() for n, column in columns.items() if _is_text(column)}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for start in range(0, length, _ROWS):
            part: list[Any] = []
            for name, column in columns.items():
                cells = column[start : start + _ROWS].tolist()
                quote = quoted.get(name)
                part.append(cells if quote is None else map(quote.__getitem__, cells))
            writer.writerows(zip(*part, strict=True))


class _Quoted(dict[str, str]):
    """Texts as CSV holds them, each worked out once."""

    def __missing__(self, text: str) -> str:
        self[text] = csv_text(text)
        return self[text]
