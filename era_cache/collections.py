"""Retrieval collections: read from a BEIR folder, stored as ids, keys and judgements.

In: ``corpus.jsonl {_id,title,text}``, ``queries.jsonl {_id,text,instruction?}``,
``qrels/<split>.tsv``, optional ``meta.json``. Out: a ``TextCollection`` for the encoders, and a
``Collection`` (no text, only keys) for everything after them.

Whatever is not taken over is counted in ``Dropped`` and reported, never dropped silently.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.errors import FormatError, InputError
from era_cache.files import canonical_json, loads_json, os_errors, safe_name, staged
from era_cache.hdf5 import PlainFile, open_plain, write_plain
from era_cache.types import Array, IntArray, Keys, Qrels, Role

__all__ = [
    "Collection",
    "Dropped",
    "TextCollection",
    "alignment_order",
    "collection_digest",
    "distinct_rows",
    "read_beir",
    "read_collection",
    "row_keys",
    "write_collection",
]

FORMAT, VERSION = "era-collection", 1
_PLACEHOLDER = re.compile(r"\{(title|text)\}")
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


def distinct_rows(keys: Keys) -> IntArray:
    """Row of the first occurrence of each distinct key, ascending, (m,) int64."""
    words = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
    _, first = np.unique(words, axis=0, return_index=True)
    return np.sort(first).astype(np.int64)


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
    words = np.ascontiguousarray(doc_keys[rows] ^ mask).view("<u8").reshape(-1, 2)
    return rows[np.lexsort((words[:, 1], words[:, 0]))]


# Reading a BEIR folder


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line) of a file; blank lines are passed over."""
    with os_errors("reading", path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} line {number}: not valid JSON: {error}. Each line must hold one JSON object."
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path} line {number}: expected a JSON object, found {line[:40]!r}.")
    return value


def _field(path: Path, number: int, row: Mapping[str, Any], name: str, default: str | None) -> str:
    value = row.get(name, default)
    if value is None and default is not None:
        return default
    if name == "_id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise InputError(f"{path} line {number}: field '{name}' must be text, found {found}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path} line {number}: field '{name}' is not valid Unicode (a lone surrogate)."
        ) from error
    return value


def _record_id(path: Path, number: int, row: Mapping[str, Any], seen: Mapping[str, int]) -> str:
    record_id = _field(path, number, row, "_id", None)
    if not record_id or record_id.split() != [record_id]:
        # TREC files are separated by white space: such an id could not be written there.
        raise InputError(f"{path} line {number}: id {record_id!r} is empty or has white space.")
    if record_id in seen:
        raise InputError(
            f"{path} line {number}: id '{record_id}' occurs a second time. Ids must be unique; "
            "--skip-bad-rows keeps the first."
        )
    return record_id


class _Problems:
    """Raises the first bad row, or counts it where the user asked to skip them."""

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.count = 0

    def __enter__(self) -> _Problems:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        if self.skip and isinstance(error, InputError):
            self.count += 1
            return True
        return False


def read_beir(
    folder: Path,
    *,
    name: str | None = None,
    document_template: str = "{title} {text}",
    all_queries: bool = False,
    skip_bad_rows: bool = False,
) -> TextCollection:
    """Read a collection in BEIR layout.

    Args:
        folder: holds ``corpus.jsonl``, ``queries.jsonl``, ``qrels/*.tsv`` and maybe ``meta.json``.
        name: of the collection; None takes it from ``meta.json``, else from the folder.
        document_template: how title and text become a document; an empty title adds nothing.
        all_queries: keep queries that no judgement names.
        skip_bad_rows: leave out and count rows that would otherwise be errors.

    Raises:
        InputError: a file or row is wrong; the message names file and line.
        StoreError: a file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. A collection is a folder with corpus.jsonl, queries.jsonl "
            "and qrels/*.tsv (BEIR layout)."
        )
    for needed in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / needed).is_file():
            raise InputError(f"{folder}: {needed} is missing (BEIR layout: see README).")
    meta = _read_meta(folder)
    name = safe_name(name or str(meta.get("name") or folder.resolve().name))
    problems = _Problems(skip_bad_rows)
    doc_rows, doc_texts, empty = _read_corpus(folder / "corpus.jsonl", document_template, problems)
    query_rows, query_texts, instructions = _read_queries(folder / "queries.jsonl", problems)
    qrels, repeated = _read_qrels(folder / "qrels", query_rows, doc_rows, empty, problems)
    judged = np.zeros(len(query_rows), dtype=bool)
    for part in qrels.values():
        judged[part.query_rows] = True
    kept = np.arange(len(judged)) if all_queries else np.flatnonzero(judged)
    query_ids = list(query_rows)
    return TextCollection(
        name=name,
        domain=str(meta.get("domain") or ""),
        ignore_identical_ids=bool(meta.get("ignore_identical_ids", False)),
        doc_ids=list(doc_rows),
        doc_texts=doc_texts,
        query_ids=[query_ids[row] for row in kept],
        query_texts=[query_texts[row] for row in kept],
        instructions=[instructions[row] for row in kept],
        splits={split: part.select_queries(kept) for split, part in qrels.items()},
        dropped=Dropped(len(empty), len(judged) - len(kept), repeated, problems.count),
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    with os_errors("reading", path):
        data = path.read_bytes()
    try:
        meta = loads_json(data, str(path))
    except FormatError as error:
        raise InputError(str(error)) from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: expected a JSON object.")
    if not isinstance(meta.get("ignore_identical_ids", False), bool):
        raise InputError(f"{path}: 'ignore_identical_ids' must be true or false.")
    return meta


def _read_corpus(
    path: Path, template: str, problems: _Problems
) -> tuple[dict[str, int], list[str], set[str]]:
    if "{text}" not in template:
        raise InputError(f"The document template {template!r} does not contain {{text}}.")
    # Without a title, what stands between it and the text ("Title: {title}. {text}") goes too.
    untitled = re.sub(r"\{title\}.*?(?=\{text\})", "", template, flags=re.DOTALL)
    rows: dict[str, int] = {}
    texts: list[str] = []
    empty: set[str] = set()
    for number, line in _lines(path):
        with problems:
            row = _json_object(path, number, line)
            doc_id = _record_id(path, number, row, rows)
            title = _field(path, number, row, "title", "").strip()
            text = _field(path, number, row, "text", "")
            if doc_id in empty:
                raise InputError(f"{path} line {number}: id '{doc_id}' occurs a second time.")
            if not title and not text.strip():
                empty.add(doc_id)
                continue
            rows[doc_id] = len(texts)
            texts.append(_fill(template if title else untitled, {"title": title, "text": text}))
    if not texts:
        raise InputError(f"{path}: no document in it.")
    return rows, texts, empty


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders in one pass, so that braces in a text stay what they are."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template).strip()


def _read_queries(path: Path, problems: _Problems) -> tuple[dict[str, int], list[str], list[str]]:
    rows: dict[str, int] = {}
    texts: list[str] = []
    instructions: list[str] = []
    for number, line in _lines(path):
        with problems:
            row = _json_object(path, number, line)
            query_id = _record_id(path, number, row, rows)
            text = _field(path, number, row, "text", "")
            instruction = _field(path, number, row, "instruction", "")
            if not text.strip():
                raise InputError(
                    f"{path} line {number}: query '{query_id}' has no text. Give it one or remove "
                    "it; --skip-bad-rows leaves it out."
                )
            rows[query_id] = len(texts)
            texts.append(text)
            instructions.append(instruction)
    if not texts:
        raise InputError(f"{path}: no query in it.")
    return rows, texts, instructions


def _read_qrels(
    folder: Path,
    queries: Mapping[str, int],
    documents: Mapping[str, int],
    empty: set[str],
    problems: _Problems,
) -> tuple[dict[str, Qrels], int]:
    paths = sorted(folder.glob("*.tsv")) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no judgements; expected qrels/<split>.tsv in it.")
    if len(paths) > 255:
        raise InputError(f"{folder}: {len(paths)} splits; at most 255 are supported.")
    seen: dict[tuple[int, int], int] = {}
    splits: dict[str, Qrels] = {}
    repeated = 0
    for path in paths:
        columns: tuple[list[int], list[int], list[int]] = ([], [], [])
        for number, line in _lines(path):
            with problems:
                judgement = _judgement(path, number, line)
                if judgement is None:
                    continue
                query_id, doc_id, grade = judgement
                pair = _judged_pair(path, number, query_id, doc_id, queries, documents, empty)
                if pair is None:
                    continue
                known = seen.get(pair)
                if known is not None and known != grade:
                    raise InputError(
                        f"{path} line {number}: '{query_id}' and '{doc_id}' were judged {known} "
                        f"before and {grade} here. Keep one of them."
                    )
                if known is not None:
                    repeated += 1
                    continue
                seen[pair] = grade
                for column, value in zip(columns, (*pair, grade), strict=True):
                    column.append(value)
        splits[path.stem] = Qrels(*(np.array(column, dtype=np.int64) for column in columns))
    if not any(np.any(part.relevance >= 1) for part in splits.values()):
        raise InputError(
            f"{folder}: no judgement is positive (1 or more); nothing can be measured."
        )
    return splits, repeated


def _judgement(path: Path, number: int, line: bytes) -> tuple[str, str, int] | None:
    """Parse one line of qrels; None for the header and blank lines."""
    try:
        parts = line.decode("utf-8-sig" if number == 1 else "utf-8").split()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} line {number}: not UTF-8 text ({error.reason}).") from error
    if not parts or (number == 1 and parts[-1].lower() in {"score", "relevance", "rel"}):
        return None
    if len(parts) == 4:  # TREC: query, iteration, document, grade
        parts = [parts[0], parts[2], parts[3]]
    if len(parts) != 3:
        raise InputError(
            f"{path} line {number}: {len(parts)} columns, expected query-id, corpus-id and score."
        )
    try:
        return parts[0], parts[1], _grade(parts[2])
    except ValueError as error:
        raise InputError(
            f"{path} line {number}: score '{parts[2]}' is not a whole number."
        ) from error


def _grade(text: str) -> int:
    grade = int(text)
    if abs(grade) > 1_000_000:
        raise ValueError(text)
    return grade


def _judged_pair(
    path: Path,
    number: int,
    query_id: str,
    doc_id: str,
    queries: Mapping[str, int],
    documents: Mapping[str, int],
    empty: set[str],
) -> tuple[int, int] | None:
    if query_id not in queries:
        raise InputError(
            f"{path} line {number}: query '{query_id}' is not in queries.jsonl ({len(queries)} "
            "queries). --skip-bad-rows leaves such rows out."
        )
    if doc_id in empty:
        return None
    if doc_id not in documents:
        raise InputError(
            f"{path} line {number}: document '{doc_id}' is not in corpus.jsonl ({len(documents)} "
            "documents). --skip-bad-rows leaves such rows out."
        )
    return queries[query_id], documents[doc_id]


# The stored form


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
        read_collection(temporary)
        path = commit(f"{texts.name}-{digest[:12]}.h5")
    return read_collection(path)


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
