"""Retrieval collections: with their texts for the encoders, stored as ids, keys and judgements.

In: a ``TextCollection``, as a reader such as ``beir`` gives it. Out: a ``Collection`` (no text,
only keys) for everything after the encoders, and the file that holds it (docs/format.md).
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import distinct_rows, key_halves, key_order
from era_cache.disk.files import safe_name, staged
from era_cache.disk.hdf5 import PlainFile, open_plain, write_plain
from era_cache.disk.json_files import canonical_json, loads_json
from era_cache.errors import FormatError, InputError
from era_cache.types import Array, IntArray, Keys, Qrels, Role

__all__ = [
    "Collection",
    "Dropped",
    "TextCollection",
    "alignment_order",
    "collection_digest",
    "read_collection",
    "row_keys",
    "text_keys",
    "write_collection",
]

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


class Dropped(NamedTuple):
    """What a reader left out, by reason."""

    empty_documents: int = 0
    unjudged_queries: int = 0
    repeated_judgements: int = 0
    bad_rows: int = 0

    def messages(self) -> list[str]:
        """One line for each reason that occurred."""
        lines = (
            (self.empty_documents, "documents without any text left out, with their judgements"),
            (self.unjudged_queries, "queries without a judgement left out (--all-queries keeps)"),
            (self.repeated_judgements, "repeated judgements counted once"),
            (self.bad_rows, "bad rows skipped (--skip-bad-rows)"),
        )
        return [f"{count} {text}" for count, text in lines if count]


class TextCollection(NamedTuple):
    """A collection with its texts, as the encoders need it.

    ``splits`` maps a split's name to its judgements; row numbers count in ``doc_ids`` and
    ``query_ids``. ``instructions`` has one string per query, empty where there is none.
    """

    name: str
    domain: str
    ignore_identical_ids: bool
    doc_ids: list[str]
    doc_texts: list[str]
    query_ids: list[str]
    query_texts: list[str]
    instructions: list[str]
    splits: dict[str, Qrels]
    dropped: Dropped


class Collection(NamedTuple):
    """A stored collection: ids, keys and judgements, no text and no vector.

    ``doc_keys`` (n, 16) and ``query_keys`` (q, 16) are uint8; ``query_text_keys`` (q, 16) leave
    the instruction out, so that equal texts can be told; ``qrels`` holds the judgements of all
    splits, ``qrels_split`` (m,) uint8 says which of ``splits`` each one came from.
    """

    name: str
    domain: str
    ignore_identical_ids: bool
    doc_ids: list[str]
    doc_keys: Keys
    query_ids: list[str]
    query_keys: Keys
    query_text_keys: Keys
    qrels: Qrels
    qrels_split: Array
    splits: list[str]
    digest: str
    created: str

    @property
    def version(self) -> str:
        """The first 12 digits of the digest, as in the file name."""
        return self.digest[:12]


def row_keys(role: Role, texts: Sequence[str], instructions: Sequence[str] | None = None) -> Keys:
    """Make the key of each row (docs/format.md).

    Args:
        role: what the texts are for.
        texts: n texts, hashed exactly as given.
        instructions: n strings, or None where there are none.

    Returns:
        (n, 16) uint8.

    Raises:
        InputError: a text cannot be written as UTF-8 (a lone surrogate).
    """
    head = role.value.encode()
    head = struct.pack("<Q", len(head)) + head
    no_instruction = head + struct.pack("<Q", 0)
    pack, blake2b = struct.pack, hashlib.blake2b
    digests = bytearray(16 * len(texts))
    try:
        for row, text in enumerate(texts):
            start = no_instruction
            if instructions is not None and instructions[row]:
                framed = instructions[row].encode("utf-8")
                start = head + pack("<Q", len(framed)) + framed
            data = text.encode("utf-8")
            frames = start + pack("<Q", len(data)) + data
            digests[16 * row : 16 * row + 16] = blake2b(
                frames, digest_size=16, person=b"era-key-1"
            ).digest()
    except UnicodeEncodeError as error:
        raise InputError(
            f"Text number {row + 1} is not valid Unicode ({error.reason}). Mend the input: a lone "
            "surrogate such as \\ud800 cannot be encoded."
        ) from error
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


def text_keys(collection: Collection) -> Array:
    """What tells equal query texts, (q,) of 16 bytes each, whatever their instructions."""
    return np.ascontiguousarray(collection.query_text_keys).view("V16").reshape(-1)


def alignment_order(doc_keys: Keys, seed: int) -> IntArray:
    """Order documents at random such that any prefix is a uniform sample.

    The order depends on the texts and the seed only: a larger sample contains the smaller, and
    documents that join the corpus later do not disturb the order of the others.

    Args:
        doc_keys: (n, 16) uint8; a key is as good as random already.
        seed: chooses the order.

    Returns:
        Row numbers of the distinct documents (first occurrence of each key), (m,) int64.
    """
    rows = distinct_rows(doc_keys)
    mask = np.random.default_rng(seed).integers(0, 256, 16, dtype=np.uint8)
    return rows[key_order(*key_halves(doc_keys[rows] ^ mask))]


def _pack_strings(strings: Sequence[str]) -> tuple[Array, IntArray]:
    encoded = [text.encode("utf-8") for text in strings]
    ends = np.cumsum([len(data) for data in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def _unpack_strings(path: Path, data: Array, ends: Array) -> list[str]:
    bounds = np.concatenate([[0], ends])
    if np.any(np.diff(bounds) < 1) or bounds[-1] != len(data):
        raise FormatError(f"{path}: the table of ids is damaged.")
    blob, cuts = data.tobytes(), bounds.tolist()
    try:
        ids = [blob[a:b].decode("utf-8") for a, b in itertools.pairwise(cuts)]
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: an id is not UTF-8.") from error
    if len(set(ids)) != len(ids):
        raise FormatError(f"{path}: an id occurs twice.")
    return ids


def collection_digest(meta: bytes, arrays: Mapping[str, Array]) -> str:
    """SHA-256 over the canonical metadata and every array (docs/format.md), in hex."""
    digest = hashlib.sha256(meta)
    for name, _ in _ARRAYS:
        array = np.ascontiguousarray(arrays[name])
        digest.update(canonical_json([name, array.dtype.name, list(array.shape)]) + b"\n")
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_collection(folder: Path, texts: TextCollection) -> Collection:
    """Store a collection's ids, keys and judgements, and return it as a reader will see it.

    Raises:
        StoreError: the folder cannot be written.
    """
    splits = list(texts.splits)
    parts = list(texts.splits.values())
    qrels = Qrels(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    split_of = np.repeat(np.arange(len(parts), dtype=np.uint8), [len(p.doc_rows) for p in parts])
    doc_ids, doc_ends = _pack_strings(texts.doc_ids)
    query_ids, query_ends = _pack_strings(texts.query_ids)
    arrays: dict[str, Array] = {
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
            "counts": dict(texts.dropped._asdict()),
        }
    )
    digest = collection_digest(meta, arrays)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    attributes: dict[str, int | str] = {
        "format": FORMAT,
        "version": VERSION,
        "digest": digest,
        "created": created,
        "meta": meta.decode("utf-8"),
    }
    with staged(folder, ".h5") as (temporary, commit):
        write_plain(temporary, arrays, attributes)
        stored = read_collection(temporary)
        commit(f"{texts.name}-{digest[:12]}.h5")
    return stored


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
