"""A table of fits as files: CSV, JSON and an HTML page.

In: rows as dicts of plain values, whose columns the settings of the fits are. Out: three files that
show the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from era_cache.disk.files import write_bytes
from era_cache.disk.json_files import canonical_json, read_json, write_json
from era_cache.disk.shown import csv_text
from era_cache.errors import FormatError, InputError
from era_cache.report.page import render_rows_html
from era_cache.report.tables import Cell, Table

__all__ = ["write_tables"]

_LARGEST = 1 << 28
"""Bytes of a table of many fits."""


def write_tables(
    folder: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    title: str,
    lead: Sequence[str],
    about: Mapping[str, Any] | None = None,
    picture: str = "",
) -> None:
    """Write ``<name>.csv``, ``<name>.json`` and ``<name>.html``.

    Args:
        folder: must exist.
        name: of the files, without ending.
        rows: plain values, the same keys in each.
        title: of the page.
        lead: sentences above its table.
        about: how the rows came about (JSON), kept in the JSON file.
        picture: an ``svg`` element above the table.

    Raises:
        InputError: there are tables of other data, which would be lost.
        StoreError: a file cannot be written.
    """
    _check_same(folder / f"{name}.json", f"era-{name}", about or {})
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "job"))
    shown = [{column: row.get(column, "") for column in columns} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in shown)
    write_bytes(folder / f"{name}.csv", text.getvalue().encode("utf-8"))
    record = {"format": f"era-{name}", "version": 1, **(about or {}), "rows": shown}
    write_json(folder / f"{name}.json", record)
    table = Table(
        title,
        f"{len(shown):,} rows; a click on a column's name sorts",
        tuple(Cell(column) for column in columns),
        tuple(tuple(_cell(row[column]) for column in columns) for row in shown),
    )
    page = render_rows_html(title, lead, table, picture)
    write_bytes(folder / f"{name}.html", page.encode("utf-8"))


def _check_same(path: Path, form: str, about: Mapping[str, Any]) -> None:
    """Refuse to replace rows of other collections, encoders or splits, or what is not ours."""
    if not path.exists():
        return
    try:
        old = read_json(path, form, 1, limit=_LARGEST)
    except FormatError as error:
        raise InputError(f"{path}: holds something else. Give another folder.") from error
    differing = [
        part
        for part in ("collections", "encoders", "split")
        if part in about and canonical_json(old.get(part)) != canonical_json(about[part])
    ]
    if differing:
        raise InputError(
            f"{path}: made of another {', '.join(differing)}; it would be lost. Give another "
            "folder, or remove it."
        )


def _plain(value: Any) -> Any:
    """A value as CSV shows it; what a spreadsheet would take for a formula is quoted."""
    return csv_text(value) if isinstance(value, str) else value


def _cell(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value))
    return Cell(f"{value:.4g}" if isinstance(value, float) else f"{value:,}", key=float(value))
