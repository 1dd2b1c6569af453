"""What the rows of a vector file are: their ids, or their keys, from a file beside it.

In: a path. Out: one id or key for each row, in the file's order; nothing is skipped, because one
line too few would give every later row the vector of another text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from era_cache.collection.text_files import read_blocks
from era_cache.disk.files import os_errors, write_bytes
from era_cache.disk.json_files import loads_json
from era_cache.errors import FormatError, InputError
from era_cache.store.exchange.blocks import map_npy, plain_ids, reading_errors, require_file
from era_cache.store.exchange.parquet import parquet_texts
from era_cache.types import Keys

__all__ = ["KEY_COLUMN", "fit_lines", "read_ids", "read_keys", "write_ids"]

KEY_COLUMN = "key"
_HEX_KEY = re.compile(r"[0-9a-fA-F]{32}")


def read_ids(path: Path) -> list[str]:
    """Read one id for each row: an ``.npy`` of strings, a ``.json`` list, or a line of text each.

    Raises:
        InputError: damaged, or an id is empty or no text; the message names it.
        StoreError: the file cannot be read.
    """
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = map_npy(path)
        if array.ndim != 1 or array.dtype.kind not in "USiu":
            raise InputError(
                f"{path}: holds {array.dtype} of shape {array.shape}; expected one string for each "
                "row. Save it again with numpy.save(path, numpy.array(ids, dtype=str))."
            )
        with reading_errors(path):
            decoded = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
            return plain_ids(path, decoded.tolist())
    if suffix == ".json":
        with os_errors("reading", path):
            data = path.read_bytes()
        try:
            values = loads_json(data, str(path))
        except FormatError as error:
            raise InputError(str(error)) from error
        if not isinstance(values, list):
            raise InputError(f"{path}: expected a JSON list of ids.")
        return plain_ids(path, values)
    return _lines(path)


def _lines(path: Path) -> list[str]:
    data = b"".join(read_blocks(path))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Ids are a text file "
            "with one id in each line, an .npy of strings or a .json list."
        ) from error
    # Not splitlines: an id may hold one of the characters that it takes for an end of line.
    lines = [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]
    empty = next((n for n, line in enumerate(lines, start=1) if not line), None)
    if empty is not None:
        raise InputError(f"{path} line {empty}: empty; each line must hold the id of one row.")
    return lines


def write_ids(path: Path, ids: list[str]) -> None:
    """Write ids such that ``read_ids`` gives them back.

    Args:
        path: ``.json`` for a JSON list, else a line of text each.
        ids: one for each row.

    Raises:
        InputError: an id cannot be a line of text.
        StoreError: the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        text = json.dumps(ids, ensure_ascii=False)
    elif fit_lines(ids):
        text = "\n".join(ids)
    else:
        raise InputError(f"{path}: an id holds a line break; name a .json file instead.")
    write_bytes(path, (text + "\n").encode("utf-8"))


def fit_lines(ids: list[str]) -> bool:
    """Whether each id can be a line of a text file, to be read back as it was."""
    return not any("\n" in i or i.endswith("\r") for i in ids) and not ids[0].startswith("\ufeff")


def read_keys(path: Path) -> Keys:
    """Read one key for each row (docs/format.md).

    Args:
        path: ``.npy`` (n, 16) uint8; ``.parquet`` with a column ``key`` of 32 hex digits, as
            ``era-store export`` writes; else text with 32 hex digits in each line.

    Returns:
        (n, 16) uint8.

    Raises:
        InputError: it holds something else; the message names the row.
        StoreError: the file cannot be read.
    """
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = map_npy(path)
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != 16:
            raise InputError(
                f"{path}: holds {array.dtype} of shape {array.shape}; keys are uint8 (rows, 16)."
            )
        return np.array(array, order="C")
    lines = parquet_texts(path, KEY_COLUMN) if suffix == ".parquet" else _lines(path)
    wrong = next((row for row, line in enumerate(lines) if not _HEX_KEY.fullmatch(line)), None)
    if wrong is not None:
        raise InputError(
            f"{path}: row {wrong} (from 0) is {lines[wrong][:40]!r}; a key is 32 hex digits."
        )
    return np.frombuffer(bytes.fromhex("".join(lines)), dtype=np.uint8).reshape(-1, 16)
