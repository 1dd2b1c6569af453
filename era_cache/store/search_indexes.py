"""Search indexes: what an approximate index over stored documents is made of (docs/format.md).

In: arrays of an index, and what it was built from. Out: a file of the store, named by what it was
built from and by its content, and its arrays again. It holds no vector: it can always be built
anew, so that it is neither copied nor merged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.disk.digests import content_digest, described
from era_cache.disk.files import make_folder, remove_stale_temporaries, staged
from era_cache.disk.hdf5 import PlainFile, open_plain, write_plain
from era_cache.disk.json_files import canonical_json, loads_json
from era_cache.errors import FormatError
from era_cache.store.names import SEARCH_INDEX_NAME
from era_cache.store.store_files import StoreFiles
from era_cache.types import Array, Keys

__all__ = [
    "IndexSource",
    "StoredIndex",
    "find_search_index",
    "read_search_index",
    "rows_digest",
    "source_of",
    "write_search_index",
]

FORMAT, VERSION = "era-search-index", 1


class IndexSource(NamedTuple):
    """What an index is built from: with another of these it would be another one.

    ``documents`` is ``rows_digest`` of the keys in the order of the rows, ``encoder`` the
    fingerprint of what made their vectors, ``recipe`` the number of the steps that built it.
    """

    kind: str
    documents: str
    encoder: str
    dim: int
    seed: int
    recipe: int

    def digest(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(canonical_json(self._asdict())).hexdigest()


class StoredIndex(NamedTuple):
    """A file of an index: what it was built from, when and by which library, and its arrays."""

    source: IndexSource
    created: str
    made_by: str
    arrays: dict[str, Array]


def rows_digest(keys: Keys) -> str:
    """SHA-256 in hex of (n, 16) uint8 keys in their order: which text is which row."""
    return hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()


def write_search_index(
    store: StoreFiles, source: IndexSource, arrays: Mapping[str, Array], made_by: str
) -> Path:
    """Add the file of an index to a store.

    Args:
        store: the store.
        source: what it was built from.
        arrays: what makes it.
        made_by: the library, with its version.

    Raises:
        StoreError: the store cannot be written.
    """
    folder = store.path / "indexes"
    make_folder(folder)
    remove_stale_temporaries(folder)
    meta = canonical_json({**source._asdict(), "made_by": made_by})
    digest = content_digest(meta, dict(sorted(arrays.items())))
    attributes = described(FORMAT, VERSION, meta, digest)
    with staged(folder, ".h5") as (temporary, commit):
        write_plain(temporary, dict(arrays), attributes)
        committed: Path = commit(f"{source.kind}-{source.digest()[:12]}-{digest[:12]}.h5")
    store.publish(committed)
    return committed


def read_search_index(path: Path) -> StoredIndex:
    """Read the file of an index and check that it is what its name says.

    Whether its arrays fit together is for ``rank.index_arrays.index_of``, which follows them.

    Raises:
        FormatError: damaged, hostile, newer, or another's name.
        StoreError: it cannot be opened.
    """
    plain = open_plain(path, FORMAT, VERSION)
    source, meta = _source(plain)
    arrays = {name: np.array(plain.array(name)) for name in plain.slots}
    digest = str(plain.attributes.get("digest"))
    if content_digest(meta.encode("utf-8"), dict(sorted(arrays.items()))) != digest:
        raise FormatError(
            f"{path}: content and digest differ; the file is damaged. Remove it: it is built anew "
            "when it is wanted."
        )
    if path.name != f"{source.kind}-{source.digest()[:12]}-{digest[:12]}.h5":
        raise FormatError(f"{path}: its name is not that of its content. Remove it.")
    created = str(plain.attributes.get("created", ""))
    return StoredIndex(source, created, str(loads_json(meta, str(path))["made_by"]), arrays)


def source_of(path: Path) -> IndexSource:
    """What the file of an index says that it was built from; nothing else of it is read.

    Raises:
        FormatError: damaged, hostile or newer.
        StoreError: it cannot be opened.
    """
    return _source(open_plain(path, FORMAT, VERSION))[0]


def _source(plain: PlainFile) -> tuple[IndexSource, str]:
    """What an index was built from, and the text that says so."""
    text = plain.attributes.get("meta")
    if not isinstance(text, str):
        raise FormatError(f"{plain.path}: it does not say what it was built from.")
    meta = loads_json(text, str(plain.path))
    texts, numbers = ("kind", "documents", "encoder", "made_by"), ("dim", "seed", "recipe")
    kinds = {**dict.fromkeys(texts, str), **dict.fromkeys(numbers, int)}
    fields = meta if isinstance(meta, dict) else {}
    if {name: type(value) for name, value in fields.items()} != kinds:
        raise FormatError(f"{plain.path}: what it says that it was built from is incomplete.")
    return IndexSource(**{name: fields[name] for name in IndexSource._fields}), text


def find_search_index(store: StoreFiles, source: IndexSource) -> list[str]:
    """Files of indexes that name what they were built from so, by their paths in the store.

    Raises:
        FormatError, StoreError: the folder cannot be listed.
    """
    wanted = source.kind, source.digest()[:12]
    matches = map(SEARCH_INDEX_NAME.fullmatch, store.names("indexes", SEARCH_INDEX_NAME))
    return [f"indexes/{one[0]}" for one in matches if one and (one[1], one[2]) == wanted]
