"""Our own JSON files: canonical bytes, digests, and typed records that are checked when read.

In: a record, or a file that anyone may have made. Out: a file that is whole, or a record of which
every field has the type and the bounds that its class declares.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from era_cache.disk.files import os_errors, regular_file, write_bytes
from era_cache.errors import FormatError, NewerError

__all__ = [
    "Record",
    "canonical_json",
    "from_plain",
    "json_digest",
    "loads_json",
    "read_json",
    "read_record",
    "write_json",
    "write_record",
]

R = TypeVar("R", bound="Record")
T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON file of ours; the fields of a subclass are those of the file after these two."""

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int]


def canonical_json(value: Any) -> bytes:
    """Give the one byte form of a JSON value that digests are taken of (docs/format.md)."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def json_digest(value: Any) -> str:
    """SHA-256, in hex, of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def loads_json(data: bytes | str, what: str) -> Any:
    """Parse JSON from a stranger.

    Args:
        data: the text.
        what: how to name it in an error.

    Raises:
        FormatError: not JSON, not Unicode, a number that is not finite, or nested deeper than the
            parser goes.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FormatError(f"{what}: not valid JSON: {error}") from error


def read_json(path: Path, expected_format: str, version: int, limit: int = 1 << 22) -> Any:
    """Read one of our own JSON files and check ``format`` and ``version``.

    Args:
        path: the file.
        expected_format: value that its ``format`` field must have.
        version: the newest version this code understands.
        limit: largest size in bytes that is read at all.

    Returns:
        The parsed object (a dict).

    Raises:
        FormatError: too large, not JSON, another format, or a newer version.
        StoreError: it cannot be read.
    """
    with os_errors("reading", path):
        with (
            regular_file(path) as (descriptor, size),
            os.fdopen(descriptor, "rb", closefd=False) as file,
        ):
            if size > limit:
                raise FormatError(f"{path}: {size} bytes, but at most {limit} are expected.")
            data = file.read(limit + 1)
        if len(data) > limit:
            raise FormatError(f"{path}: more than {limit} bytes, the most that are expected.")
    value = loads_json(data, str(path))
    if not isinstance(value, dict) or value.get("format") != expected_format:
        raise FormatError(f"{path}: not an {expected_format} file.")
    found = value.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FormatError(f"{path}: no valid format version.")
    if found > version:
        raise NewerError(
            f"{path}: format version {found}, but this ERA Cache reads up to {version}. "
            "Install a newer ERA Cache."
        )
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented for people, through a temporary name. Raises ``StoreError``."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def from_plain(value: Any, kind: type[T], where: str) -> T:
    """Check a parsed JSON value against a type, strictly.

    Args:
        value: dicts, lists, texts, numbers.
        kind: a ``msgspec.Struct``, or anything else that ``msgspec.convert`` knows.
        where: the file, for the message.

    Raises:
        FormatError: a field is missing, unknown, of another type or out of bounds; it is named.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{where}: damaged: {error}.") from error


def read_record(path: Path, kind: type[R], limit: int = 1 << 22, advice: str = "") -> R:
    """Read one of our own JSON files as a record.

    Args:
        path: the file.
        kind: the record's class.
        limit: largest size in bytes that is read at all.
        advice: what to do where it is damaged; follows the message.

    Raises:
        FormatError: as ``read_json`` and ``from_plain`` say.
        StoreError: it cannot be read.
    """
    try:
        value = read_json(path, kind.FORMAT, kind.VERSION, limit)
        rest = {name: field for name, field in value.items() if name not in ("format", "version")}
        return from_plain(rest, kind, str(path))
    except NewerError:
        raise
    except FormatError as error:
        raise FormatError(f"{error} {advice}".rstrip()) from error


def write_record(path: Path, record: Record) -> None:
    """Write a record as one of our own JSON files. Raises ``StoreError``."""
    fields = msgspec.to_builtins(record)
    write_json(path, {"format": record.FORMAT, "version": record.VERSION, **fields})
