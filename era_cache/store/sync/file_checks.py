"""What each file of a store must be before it may be copied.

In: a file on this machine under any name, and the path it shall have in a store. Out: nothing, or a
``FormatError`` that says what is wrong. Everything is checked: files come from strangers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from era_cache.disk.json_files import read_record
from era_cache.errors import FormatError
from era_cache.store.encoder_record import read_encoder_record
from era_cache.store.pair import read_pair
from era_cache.store.read_rows import read_blocks, repeats_a_key
from era_cache.store.segment import open_segment
from era_cache.store.store import StoreRecord, read_stored_collection
from era_cache.store.sync.places import Check

__all__ = ["check_of", "check_segment", "shown_as"]


def check_of(kind: str, name: str) -> Check:
    """The check of a file that is no segment.

    Args:
        kind: as ``places.kind_of`` gives it.
        name: path in its store.
    """
    base = name.rpartition("/")[2]
    match kind:
        case "collection":
            return lambda path, _digest: read_stored_collection(path, base)
        case "pair":
            return lambda path, _digest: read_pair(path, base)
        case "encoder":
            folder = name.split("/")[1]
            return lambda path, _digest: read_encoder_record(path, folder)
        case _:
            return lambda path, _digest: read_record(path, StoreRecord)


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


@contextlib.contextmanager
def shown_as(path: Path, shown: str) -> Iterator[None]:
    """Name a file in errors by where it came from, not by where it is looked at."""
    try:
        yield
    except FormatError as error:
        raise type(error)(str(error).replace(str(path), shown)) from error
