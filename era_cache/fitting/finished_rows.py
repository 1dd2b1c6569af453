"""What a sweep has finished, one JSON line for each fit (docs/format.md).

In: rows as dicts of plain values. Out: ``rows.jsonl``, which a later run goes on from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from era_cache.disk.files import is_companion, os_errors, write_bytes
from era_cache.disk.json_files import json_digest, loads_json
from era_cache.errors import FormatError, InputError

__all__ = ["FinishedRows"]

_ROWS = "rows.jsonl"
_FORMAT = "era-rows"


class FinishedRows:
    """Finished rows in a folder, appended one by one; a line cut short by a kill is dropped.

    Args:
        folder: made where it is missing.
        inputs: what all rows depend on (JSON); rows of other inputs are not taken over.

    Raises:
        InputError: the folder holds rows of other inputs, or other files.
        FormatError: a line is no row.
        StoreError: it cannot be read or written.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        self.folder = folder
        self._path = folder / _ROWS
        self._digest = json_digest(dict(inputs))
        self._found: dict[str, dict[str, Any]] = {}
        with os_errors("creating", folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not self._path.exists() and not all(
                is_companion(path.name) for path in folder.iterdir()
            ):
                raise InputError(f"{folder}: holds other files. Give a new folder.")
            data = self._path.read_bytes() if self._path.exists() else b""
        *lines, torn = data.split(b"\n")  # what follows the last newline was cut short
        head = {"format": _FORMAT, "version": 1, "inputs": self._digest}
        if lines:
            self._check(lines[0])
        elif not _line(head).startswith(torn):
            raise InputError(f"{self._path}: no rows of this version. Give a new folder.")
        for number, line in enumerate(lines[1:], 2):
            where = f"{self._path} line {number}"
            row = loads_json(line, where)
            if isinstance(row, dict) and isinstance(row.get("job"), str):
                self._found[row["job"]] = row
            elif row != head:  # which two runs that began at once may both have written
                raise FormatError(f"{where}: not a row. Remove the line, or give a new folder.")
        if torn:
            write_bytes(self._path, b"".join(line + b"\n" for line in lines))
        if not lines:
            self._append(head)

    def _check(self, line: bytes) -> None:
        head = loads_json(line, f"{self._path} line 1")
        if not isinstance(head, dict) or head.get("format") != _FORMAT or head.get("version") != 1:
            raise InputError(f"{self._path}: no rows of this version. Give a new folder.")
        if head.get("inputs") != self._digest:
            raise InputError(
                f"{self.folder}: holds rows of another store, collection, split or encoder. Give a "
                "new folder, or the inputs that it was made with."
            )

    def get(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """The finished row of a job, None where there is none."""
        return self._found.get(json_digest(dict(job)))

    def add(self, job: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a finished row."""
        kept = {"job": json_digest(dict(job)), **row}
        self._append(kept)
        self._found[kept["job"]] = kept
        return kept

    def _append(self, line: Mapping[str, Any]) -> None:
        with os_errors("writing", self._path), self._path.open("ab") as file:
            file.write(_line(line))
            file.flush()
            os.fsync(file.fileno())


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(value), ensure_ascii=False).encode("utf-8") + b"\n"
