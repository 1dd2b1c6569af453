"""What an exported folder says of itself: ``era-export.json`` (docs/format.md).

In: what an adapter expects of its encoders, or a folder that may come from anyone. Out: a record
with the SHA-256 of every file; a folder that is written whole or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from era_cache import __version__
from era_cache.disk.files import os_errors, sha256_file
from era_cache.disk.folders import exchanged
from era_cache.disk.json_files import from_plain, read_json, write_json
from era_cache.errors import FormatError, InputError

__all__ = ["RECORD", "Expected", "ExportRecord", "check_files", "exported_folder", "read_export"]

RECORD = "era-export.json"
FORMAT, VERSION = "era-adapter-export", 1


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder whose vectors, of texts in this prompt, the adapter was fitted on."""

    name: str
    fingerprint: str
    template: str
    dim: Annotated[int, Meta(ge=1)]


class ExportRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``era-export.json``.

    ``encoders`` are those of the views that are read and of the documents; empty for an adapter
    that was fitted on arrays. ``fusion`` is the first stage whose scores whoever ranks has to add.
    ``settings`` is what the kind needs beside tensors.
    """

    kind: str
    candidate: str
    encoders: dict[str, Expected]
    fusion: dict[str, Any] | None = None
    files: dict[str, str] = {}
    module: dict[str, Any] = {}
    era_cache: str = __version__

    def __post_init__(self) -> None:
        for name in self.files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not name:
                raise ValueError(f"file {name!r} leads outside the folder")


@contextlib.contextmanager
def exported_folder(out: Path) -> Iterator[tuple[Path, Callable[[ExportRecord], None]]]:
    """Give an empty folder to write into; it takes the place of ``out`` when the block ends.

    An older export is replaced; anything else in ``out`` is refused.

    Yields:
        (the folder, a function that writes its record with the digests of all files).

    Raises:
        InputError: ``out`` holds something else.
        StoreError: it cannot be written.
    """
    with exchanged(out, _replaceable(out)) as staging:

        def settle(record: ExportRecord) -> None:
            with os_errors("reading", staging):
                names = sorted(p.relative_to(staging) for p in staging.rglob("*") if p.is_file())
                files = {name.as_posix(): sha256_file(staging / name) for name in names}
            record = msgspec.structs.replace(record, files=files)
            plain = {"format": FORMAT, "version": VERSION, **msgspec.to_builtins(record)}
            write_json(staging / RECORD, plain)

        yield staging, settle


def _replaceable(out: Path) -> set[str]:
    """Names in a folder that an earlier export wrote."""
    with os_errors("reading", out):
        if not out.exists():
            return set()
        if not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file()):
            raise InputError(f"{out}: is in the way and no earlier export. Choose a new folder.")
        if not (out / RECORD).is_file():
            return set()
    return {RECORD, *(name.split("/")[0] for name in read_export(out).files)}


def read_export(folder: Path) -> ExportRecord:
    """Read what an exported folder says of itself.

    Raises:
        FormatError: not an export, damaged or newer.
        StoreError: it cannot be read.
    """
    path = folder / RECORD
    with os_errors("reading", path):
        if not path.is_file():
            raise FormatError(f"{folder}: no export (no {RECORD}). era-export makes one.")
    return from_plain(read_json(path, FORMAT, VERSION), ExportRecord, str(path))


def check_files(folder: Path, record: ExportRecord) -> None:
    """Compare the files that matter with what was exported.

    Raises:
        FormatError: one is another now.
        StoreError: one cannot be read.
    """
    for name, digest in record.files.items():
        if name.endswith(".md"):  # people complete model cards
            continue
        with os_errors("reading", folder / name):
            if sha256_file(folder / name) != digest:
                raise FormatError(f"{folder / name}: not the file that was exported. Export again.")
