"""The file of a collection: ids, keys and judgements, and a digest of all of it (docs/format.md).

In: a ``TextCollection``, or a file that anyone may have made. Out: the file, or a ``Collection``
that was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import row_keys
from era_cache.collection.packed import PackedStrings, RowIndex
from era_cache.collection.records import Collection, TextCollection
from era_cache.disk.digests import content_digest, now
from era_cache.disk.files import safe_name, staged
from era_cache.disk.hdf5 import PlainFile, open_plain, write_plain
from era_cache.disk.json_files import canonical_json, loads_json
from era_cache.disk.shown import is_name
from era_cache.errors import FormatError, InputError
from era_cache.types import Array, IntArray, Qrels, Role

__all__ = [
    "LAST_GENERATION",
    "Stated",
    "collection_digest",
    "is_judged",
    "read_collection",
    "read_stated",
    "write_collection",
    "write_renamed",
]

LAST_GENERATION = (1 << 31) - 1
"""More versions of a name than anyone embeds; a stranger's file may claim any number."""
FORMAT, VERSION = "era-collection", 1
_ARRAYS = (
    ("doc_keys", np.uint8),
    ("doc_ids", np.uint8),
    ("doc_id_ends", np.int64),
    ("query_keys", np.uint8),
    ("query_text_keys", np.uint8),
    ("query_ids", np.uint8),
    ("query_id_ends", np.int64),
    ("qrels_query", np.int64),
    ("qrels_doc", np.int64),
    ("qrels_relevance", np.int64),
    ("qrels_split", np.uint8),
)


class Stated(NamedTuple):
    """What says which of several versions of a name is the newest: the largest of these."""

    generation: int
    created: str
    digest: str


def _pack_strings(strings: Sequence[str]) -> tuple[Array, IntArray]:
    packed = PackedStrings.of(strings)
    return packed.packed(), packed.ends


def _unpack_strings(path: Path, data: Array, ends: IntArray) -> PackedStrings:
    bounds = np.concatenate([[0], ends])
    if np.any(np.diff(bounds) < 1) or bounds[-1] != len(data):
        raise FormatError(f"{path}: the table of ids is damaged.")
    ids = PackedStrings(data.tobytes(), ends)
    try:
        twice = len(RowIndex(ids).repeated())
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: an id is not UTF-8.") from error
    if twice:
        raise FormatError(f"{path}: an id occurs twice.")
    return ids


def collection_digest(meta: bytes, arrays: Mapping[str, Array]) -> str:
    """SHA-256 over the canonical metadata and every array (docs/format.md), in hex."""
    return content_digest(meta, {name: arrays[name] for name, _ in _ARRAYS})


def write_collection(
    folder: Path, texts: TextCollection, generation: Callable[[str], int] = lambda _: 1
) -> Collection:
    """Store a collection's ids, keys and judgements, and return it as a reader will see it.

    Args:
        folder: where.
        texts: the collection.
        generation: gives the generation of a digest.

    Raises:
        InputError: its domain or a split has no printable name.
        StoreError: the folder cannot be written.
    """
    splits = list(texts.splits)
    _check_names(texts.domain, splits)
    parts = list(texts.splits.values())
    none = np.zeros(0, dtype=np.int64)
    columns = zip(Qrels(none, none, none), *parts, strict=True)
    qrels = Qrels(*(np.concatenate(column) for column in columns))
    split_of = np.repeat(np.arange(len(parts), dtype=np.uint8), [len(p.doc_rows) for p in parts])
    doc_ids, doc_ends = _pack_strings(texts.doc_ids)
    query_ids, query_ends = _pack_strings(texts.query_ids)
    arrays = {
        "doc_keys": row_keys(Role.DOCUMENT, texts.doc_texts),
        "doc_ids": doc_ids,
        "doc_id_ends": doc_ends,
        "query_keys": row_keys(Role.QUERY, texts.query_texts, texts.instructions),
        "query_text_keys": row_keys(Role.QUERY, texts.query_texts),
        "query_ids": query_ids,
        "query_id_ends": query_ends,
        "qrels_query": qrels.query_rows,
        "qrels_doc": qrels.doc_rows,
        "qrels_relevance": qrels.relevance,
        "qrels_split": split_of,
    }
    meta = canonical_json(
        {
            "name": texts.name,
            "domain": texts.domain,
            "ignore_identical_ids": texts.ignore_identical_ids,
            "splits": splits,
            "counts": texts.dropped.counts(),
        }
    )
    digest = collection_digest(meta, arrays)
    created = now()
    number = min(generation(digest), LAST_GENERATION)
    more: dict[str, int | str] = {"created": created, "generation": number}
    known = folder / f"{texts.name}-{digest[:12]}.h5"
    if known.is_file():  # under another name before: what was fitted on that needs to know
        more |= {"was": was} if (was := _was(open_plain(known, FORMAT, VERSION).attributes)) else {}
    return _written(folder, arrays, meta, more)


def _written(
    folder: Path, arrays: dict[str, Array], meta: bytes, more: Mapping[str, int | str]
) -> Collection:
    """Write the file, and read it again before it gets its name; ``arrays`` are let go."""
    digest = collection_digest(meta, arrays)
    attributes = {"format": FORMAT, "version": VERSION, "digest": digest, **more}
    with staged(folder, ".h5") as (temporary, commit):
        write_plain(temporary, arrays, {**attributes, "meta": meta.decode("utf-8")})
        arrays.clear()  # what is read again may be as large
        stored = read_collection(temporary)
        commit(f"{stored.name}-{digest[:12]}.h5")
    return stored


def write_renamed(path: Path, name: str) -> Collection:
    """Write a stored collection once more beside its file, under another name.

    It says what it was (``Collection.was``), so that what was fitted on it finds it.

    Raises:
        InputError: that is no name.
        FormatError: the file is damaged.
        StoreError: it cannot be read or written.
    """
    old = read_collection(path)
    plain = open_plain(path, FORMAT, VERSION)
    meta = loads_json(str(plain.attributes["meta"]), str(path)) | {"name": safe_name(name)}
    was = old.was or f"{old.name}-{old.version}"
    more: dict[str, int | str] = {"created": old.created, "generation": old.generation, "was": was}
    return _written(path.parent, _checked_arrays(path, plain), canonical_json(meta), more)


def _number(value: object) -> int:
    """A generation; files of the first writers have none, and an absurd one counts as none."""
    return value if isinstance(value, int) and 0 <= value <= LAST_GENERATION else 0


def _was(attributes: Mapping[str, object]) -> str:
    value = attributes.get("was")
    return value if isinstance(value, str) and is_name(value) else ""


def _check_names(domain: str, splits: Sequence[str]) -> None:
    """Refuse names that a terminal would obey, or that nobody could type. Raises ``InputError``."""
    for what, name in (("domain", domain or "none"), *(("split", split) for split in splits)):
        if not is_name(name):
            raise InputError(f"the {what} {name!r} is no name of 1 to 200 printable characters.")


def read_stated(path: Path) -> Stated:
    """What a stored collection's file states of its version; its content is not read.

    Raises:
        FormatError: damaged, hostile or newer.
        StoreError: it cannot be opened.
    """
    stated = open_plain(path, FORMAT, VERSION).attributes
    return Stated(
        _number(stated.get("generation")),
        str(stated.get("created", "")),
        str(stated.get("digest")),
    )


def is_judged(path: Path) -> bool:
    """Whether a stored collection has a positive judgement; no more of it is read.

    Raises:
        FormatError: damaged, hostile or newer.
        StoreError: it cannot be opened.
    """
    plain = open_plain(path, FORMAT, VERSION)
    slot = plain.slots.get("qrels_relevance")
    if slot is None or slot.dtype != np.int64 or len(slot.shape) != 1:
        raise FormatError(f"{path}: no judgements as a collection has them.")
    return bool((np.asarray(plain.array("qrels_relevance")) >= 1).any())


def read_collection(path: Path) -> Collection:
    """Read a stored collection and check all of it.

    Raises:
        FormatError: damaged, hostile or newer.
        StoreError: it cannot be opened.
    """
    plain = open_plain(path, FORMAT, VERSION)
    arrays = _checked_arrays(path, plain)
    meta_text = plain.attributes.get("meta")
    if not isinstance(meta_text, str):
        raise FormatError(f"{path}: no metadata.")
    digest = collection_digest(meta_text.encode("utf-8"), arrays)
    if digest != plain.attributes.get("digest"):
        raise FormatError(
            f"{path}: content and digest differ; the file is damaged. Remove it and run era-embed "
            "again (its vectors are kept)."
        )
    meta = loads_json(meta_text, str(path))
    try:
        name, splits = safe_name(meta["name"]), [str(split) for split in meta["splits"]]
        domain, ignore = str(meta["domain"]), bool(meta["ignore_identical_ids"])
        _check_names(domain, splits)
    except (KeyError, TypeError, InputError) as error:
        raise FormatError(f"{path}: metadata is incomplete: {error}") from error
    collection = Collection(
        name=name,
        domain=domain,
        ignore_identical_ids=ignore,
        doc_ids=_unpack_strings(path, arrays["doc_ids"], arrays["doc_id_ends"]),
        doc_keys=arrays["doc_keys"],
        query_ids=_unpack_strings(path, arrays["query_ids"], arrays["query_id_ends"]),
        query_keys=arrays["query_keys"],
        query_text_keys=arrays["query_text_keys"],
        qrels=Qrels(arrays["qrels_query"], arrays["qrels_doc"], arrays["qrels_relevance"]),
        qrels_split=arrays["qrels_split"],
        splits=splits,
        digest=digest,
        created=str(plain.attributes.get("created", "")),
        generation=_number(plain.attributes.get("generation")),
        was=_was(plain.attributes),
    )
    _check_rows(path, collection)
    return collection


def _checked_arrays(path: Path, plain: PlainFile) -> dict[str, Array]:
    if set(plain.slots) != {name for name, _ in _ARRAYS}:
        raise FormatError(f"{path}: members {sorted(plain.slots)} are not those of a collection.")
    for name, dtype in _ARRAYS:
        slot = plain.slots[name]
        columns = (16,) if name.endswith("_keys") else ()
        if slot.dtype != np.dtype(dtype) or slot.shape[1:] != columns or not slot.shape:
            raise FormatError(f"{path}: '{name}' has dtype {slot.dtype} and shape {slot.shape}.")
    return {name: np.array(plain.array(name)) for name, _ in _ARRAYS}


def _check_rows(path: Path, c: Collection) -> None:
    lengths = {len(c.qrels.query_rows), len(c.qrels.doc_rows), len(c.qrels.relevance)}
    if len(lengths | {len(c.qrels_split)}) != 1:
        raise FormatError(f"{path}: columns of judgements have different lengths.")
    queries = {len(c.query_ids), len(c.query_keys), len(c.query_text_keys)}
    if len(c.doc_ids) != len(c.doc_keys) or len(queries) != 1:
        raise FormatError(f"{path}: numbers of ids and keys differ.")
    bounds = (
        (c.qrels.query_rows, len(c.query_ids)),
        (c.qrels.doc_rows, len(c.doc_ids)),
        (c.qrels_split, len(c.splits)),
    )
    for rows, limit in bounds:
        if len(rows) and (rows.min() < 0 or rows.max() >= limit):
            raise FormatError(f"{path}: a judgement points outside the collection.")
