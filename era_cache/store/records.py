"""Small records of a store: that it is one, and which encoders a collection was embedded for.

In: files of a store that anyone may have made, and descriptions of encoders by side. Out: checked
records, collections under the name that is theirs, and whether encoders make a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from era_cache.collection.records import Collection
from era_cache.collection.stored import LAST_GENERATION, read_collection
from era_cache.disk.json_files import Record, json_digest, read_record
from era_cache.errors import FormatError
from era_cache.store.encoder_record import StoredSpec
from era_cache.types import Role

__all__ = [
    "ROLES",
    "Side",
    "StoreRecord",
    "StoredPair",
    "mixed_up",
    "read_pair",
    "read_stored_collection",
]

Side = Literal["query", "small_query", "document", "align"]


ROLES: dict[Side, Role] = {
    "query": Role.QUERY,
    "small_query": Role.QUERY,
    "document": Role.DOCUMENT,
    "align": Role.DOCUMENT,
}
"""Role of each side; ``align`` is the large model on documents."""


_LIMIT = 64 << 10


class StoredPair(Record, frozen=True):
    """Which encoders a collection (by its digest) was embedded for: side to fingerprint."""

    FORMAT = "era-pair"
    VERSION = 1

    collection: str
    sides: Annotated[dict[Side, str], Meta(min_length=len(ROLES))]
    created: str = ""
    generation: Annotated[int, Meta(ge=0, le=LAST_GENERATION)] = 0

    def file_name(self) -> str:
        """Its name in the folder ``pairs``, which follows from its content."""
        return f"{self.collection[:12]}-{json_digest(self.sides)[:12]}.json"


def read_pair(path: Path, name: str = "") -> StoredPair:
    """Read the record of a pair.

    Args:
        path: the file.
        name: that it must have; empty is its own.

    Raises:
        FormatError: it is damaged, or its name is not that of its content.
        StoreError: it cannot be read.
    """
    advice = "Remove it and run era-embed again."
    pair = read_record(path, StoredPair, _LIMIT, advice)
    if pair.file_name() != (name or path.name):
        raise FormatError(f"{path}: its name is not that of its content. {advice}")
    return pair


def mixed_up(specs: Mapping[Any, StoredSpec]) -> bool:
    """Whether the sides at hand mix up roles or models; a side that is not stored is left out."""
    spaces = {side: spec.space for side, spec in specs.items()}
    wrong = any(specs[side].role is not role for side, role in ROLES.items() if side in specs)
    for one, other in (("query", "align"), ("small_query", "document")):
        wrong |= one in spaces and other in spaces and spaces[one] != spaces[other]
    return wrong


class StoreRecord(Record, frozen=True, forbid_unknown_fields=False):
    """The ``store.json`` that makes a folder a store."""

    FORMAT = "era-store"
    VERSION = 1


def read_stored_collection(path: Path, name: str = "") -> Collection:
    """Read a collection's file, whose name must be that of its content.

    Args:
        path: the file.
        name: that it must have; empty is its own.

    Raises:
        FormatError: damaged, hostile, newer, or another's name.
        StoreError: it cannot be opened.
    """
    collection = read_collection(path)
    if (name or path.name) != f"{collection.name}-{collection.version}.h5":
        raise FormatError(
            f"{path}: holds {collection.name}-{collection.version}. Rename it back or remove it."
        )
    return collection
