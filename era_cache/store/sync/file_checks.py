"""What each file of a store must be before it may be copied.

In: a file on this machine under any name, and the path it shall have in a store. Out: nothing, or a
``FormatError`` that says what is wrong. Everything is checked: files come from strangers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from era_cache.collection.stored import read_collection
from era_cache.disk.json_files import read_json
from era_cache.errors import FormatError
from era_cache.store.encoder_record import StoredSpec, read_encoder_record
from era_cache.store.names import encoder_folder_name
from era_cache.store.read_rows import read_blocks, repeats_a_key
from era_cache.store.segment import open_segment
from era_cache.store.store import FORMAT, VERSION, read_pair
from era_cache.store.sync.places import LIMITS, Check

__all__ = ["check_of", "check_segment", "check_store", "named_encoder", "shown_as"]


def check_of(kind: str, name: str) -> Check:
    """The check of a file that is no segment.

    Args:
        kind: as ``places.kind_of`` gives it.
        name: path in its store.
    """
    match kind:
        case "collection":
            return lambda path, _digest: _check_collection(path, name)
        case "pair":
            return lambda path, _digest: read_pair(path, name.rpartition("/")[2])
        case "encoder":
            folder = name.split("/")[1]
            return lambda path, _digest: named_encoder(path, folder)
        case _:
            return lambda path, _digest: check_store(path)


def check_segment(base: str, fingerprint: str, dim: int) -> Check:
    """The check of a segment.

    Args:
        base: its file name.
        fingerprint: of its encoder.
        dim: values of a row.
    """

    def check(path: Path, digest: str) -> None:
        if f"{digest}.h5" != base:
            raise FormatError(
                f"{path}: the content's SHA-256 is {digest[:12]}…, the name says {base[:12]}…; "
                "damaged, or cut off."
            )
        segment = open_segment(path, fingerprint, dim)
        for _, rows in read_blocks(segment):
            if not rows.values.any(axis=1).all():
                raise FormatError(f"{path}: holds a row of zeros, which no encoder here stores.")
        with segment.plain.opened() as reader:
            if repeats_a_key(segment, reader):
                raise FormatError(f"{path}: holds a key twice.")

    return check


def check_store(path: Path) -> None:
    """Check a ``store.json``. Raises ``FormatError``."""
    read_json(path, FORMAT, VERSION, LIMITS["store"])


def named_encoder(path: Path, folder: str) -> StoredSpec:
    """Read an ``encoder.json`` that shall lie in ``folder``. Raises ``FormatError``."""
    spec = read_encoder_record(path)
    if not folder.endswith(encoder_folder_name("", spec.role.value, spec.fingerprint)):
        raise FormatError(f"{path}: holds {spec.label()}, which its folder's name contradicts.")
    return spec


def _check_collection(path: Path, name: str) -> None:
    collection = read_collection(path)
    if f"collections/{collection.name}-{collection.version}.h5" != name:
        raise FormatError(f"{path}: holds {collection.name}-{collection.version}.")


@contextlib.contextmanager
def shown_as(path: Path, shown: str) -> Iterator[None]:
    """Name a file in errors by where it came from, not by where it is looked at."""
    try:
        yield
    except FormatError as error:
        raise type(error)(str(error).replace(str(path), shown)) from error
