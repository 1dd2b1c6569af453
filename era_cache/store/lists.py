"""Lists: what another system (BM25, say) found for each query, with scores (docs/format.md).

In: keys of documents and queries, lists. Out: a file of the store that is valid for exactly these
documents, or the lists of some queries of a collection, by its rows. Documents and queries are
known by their keys, so that a collection with another document has no lists, rather than old ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.keys import key_values
from era_cache.collection.records import Collection
from era_cache.disk.digests import content_digest, described
from era_cache.disk.files import make_folder, remove_stale_temporaries, staged
from era_cache.disk.hdf5 import PlainFile, open_plain, write_plain
from era_cache.disk.json_files import canonical_json, loads_json
from era_cache.errors import FormatError
from era_cache.store.names import LISTS_NAME
from era_cache.store.store_files import StoreFiles
from era_cache.types import Array, IntArray, Keys

__all__ = [
    "ListTable",
    "Lists",
    "StoredLists",
    "corpus_digest",
    "find_lists",
    "has_other_lists",
    "lists_of",
    "read_lists",
    "write_lists",
]

FORMAT, VERSION = "era-lists", 1
_MARKED = 1 << 26
"""Pairs of query and document that all have a mark; of more, those that are named are sorted."""
_ARRAYS = (
    ("doc_keys", np.uint8),
    ("query_keys", np.uint8),
    ("list_ends", np.int64),
    ("list_docs", np.int64),
    ("list_scores", np.float32),
    ("floor", np.float32),
)


class ListTable(NamedTuple):
    """Lists of q queries as a table.

    ``docs`` (q, m) int64 rows of the collection, -1 where a list is shorter; ``scores`` (q, m)
    float32, falling, 0 where there is no document; ``floor`` (q,) float32, the score of documents
    that a list does not hold.
    """

    docs: IntArray
    scores: Array
    floor: Array


class Lists(NamedTuple):
    """Lists of distinct queries over distinct documents.

    ``doc_keys`` (n, 16) and ``query_keys`` (q, 16) uint8 rise; list i ends before ``list_ends[i]``;
    ``list_docs`` number ``doc_keys``; ``list_scores`` fall within a list; ``floor`` (q,).
    """

    doc_keys: Keys
    query_keys: Keys
    list_ends: IntArray
    list_docs: IntArray
    list_scores: Array
    floor: Array


class StoredLists(NamedTuple):
    """A file of lists: whose they are, and what made them (JSON)."""

    name: str
    settings: dict[str, Any]
    created: str
    lists: Lists


def corpus_digest(doc_keys: Keys) -> str:
    """SHA-256 in hex of the distinct keys in rising order: which texts there are."""
    return hashlib.sha256(np.unique(key_values(doc_keys)).tobytes()).hexdigest()


def write_lists(store: StoreFiles, name: str, settings: Mapping[str, Any], lists: Lists) -> Path:
    """Add a file of lists to a store.

    Args:
        store: the store.
        name: of the system.
        settings: what decides the scores, besides the texts (JSON).
        lists: of all queries that are new.

    Raises:
        StoreError: the store cannot be written.
    """
    folder = store.path / "runs"
    make_folder(folder)
    remove_stale_temporaries(folder)
    corpus = corpus_digest(lists.doc_keys)
    meta = canonical_json({"name": name, "corpus": corpus, "settings": dict(settings)})
    digest = content_digest(meta, lists._asdict())
    attributes = described(FORMAT, VERSION, meta, digest)
    with staged(folder, ".h5") as (temporary, commit):
        write_plain(temporary, lists._asdict(), attributes)
        read_lists(temporary)
        committed: Path = commit(f"{name}-{corpus[:12]}-{digest[:12]}.h5")
    store.publish(committed)
    return committed


def read_lists(path: Path, name: str = "") -> StoredLists:
    """Read a file of lists and check all of it.

    Args:
        path: the file.
        name: that it must have; empty is its own, where that is one of lists.

    Raises:
        FormatError: damaged, hostile, newer, or another's name.
        StoreError: it cannot be opened.
    """
    plain = open_plain(path, FORMAT, VERSION)
    lists = _arrays(path, plain)
    text = plain.attributes.get("meta")
    if not isinstance(text, str) or content_digest(
        text.encode("utf-8"), lists._asdict()
    ) != plain.attributes.get("digest"):
        raise FormatError(
            f"{path}: content and digest differ; the file is damaged. Remove it and run era-embed "
            "--bm25 again."
        )
    meta = loads_json(text, str(path))
    try:
        system, corpus, settings = str(meta["name"]), str(meta["corpus"]), dict(meta["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: metadata is incomplete: {error}") from error
    if corpus != corpus_digest(lists.doc_keys):
        raise FormatError(f"{path}: it names other documents than it holds.")
    own = f"{system}-{corpus[:12]}-{str(plain.attributes['digest'])[:12]}.h5"
    named = name or (path.name if LISTS_NAME.fullmatch(path.name) else own)
    if named != own or not LISTS_NAME.fullmatch(own):
        raise FormatError(f"{path}: its name is not that of its content. Remove it.")
    return StoredLists(system, settings, str(plain.attributes.get("created", "")), lists)


def _arrays(path: Path, plain: PlainFile) -> Lists:
    """The checked arrays: whoever indexes with them cannot leave them."""
    if set(plain.slots) != {name for name, _ in _ARRAYS}:
        raise FormatError(f"{path}: members {sorted(plain.slots)} are not those of lists.")
    for name, dtype in _ARRAYS:
        slot = plain.slots[name]
        columns = (16,) if name.endswith("_keys") else ()
        if slot.dtype != np.dtype(dtype) or slot.shape[1:] != columns or not slot.shape:
            raise FormatError(f"{path}: '{name}' has dtype {slot.dtype} and shape {slot.shape}.")
    lists = Lists(**{name: np.array(plain.array(name)) for name, _ in _ARRAYS})
    starts = np.concatenate([[0], lists.list_ends])
    lengths = np.diff(starts)
    counts = len(lists.query_keys), len(lists.list_docs), len(lists.doc_keys)
    docs = lists.list_docs
    sound = (
        len(lists.list_ends) == len(lists.floor) == counts[0]
        and starts[-1] == counts[1] == len(lists.list_scores)
        and not np.any(lengths < 0)
        and not np.any((docs < 0) | (docs >= counts[2]))
        and np.isfinite(lists.list_scores).all()
        and np.isfinite(lists.floor).all()
        and all(_rises(keys) for keys in (lists.doc_keys, lists.query_keys))
    )
    if not sound or not _each_once(docs, lengths, counts[2]):
        raise FormatError(f"{path}: lists do not fit together.")
    return lists


def _rises(keys: Keys) -> bool:
    values = key_values(keys)
    return len(np.unique(values)) == len(values) and bool((np.sort(values) == values).all())


def _each_once(docs: IntArray, lengths: IntArray, n_docs: int) -> bool:
    """Whether no list names a document twice."""
    pairs = np.repeat(np.arange(len(lengths)) * n_docs, lengths) + docs
    if len(lengths) * n_docs <= _MARKED:
        marks = np.zeros(len(lengths) * n_docs, dtype=np.bool_)
        marks[pairs] = True
        return bool(np.count_nonzero(marks) == len(pairs))
    pairs.sort()
    return not np.any(pairs[1:] == pairs[:-1])


def find_lists(store: StoreFiles, name: str, doc_keys: Keys) -> list[StoredLists]:
    """The files of a system's lists over some documents, the newest first, of one setting.

    Raises:
        FormatError: one is damaged.
        StoreError: one cannot be read.
    """
    wanted = corpus_digest(doc_keys)[:12]
    found = []
    for file in store.names("runs", LISTS_NAME):
        match = LISTS_NAME.fullmatch(file)
        if match and (match[1], match[2]) == (name, wanted):
            found.append(read_lists(store.file(f"runs/{file}")))
    found.sort(key=lambda one: one.created, reverse=True)
    return [one for one in found if one.settings == found[0].settings]


def has_other_lists(store: StoreFiles, name: str) -> bool:
    """Whether a system's lists are there, of whatever documents."""
    matches = map(LISTS_NAME.fullmatch, store.names("runs", LISTS_NAME))
    return any(match is not None and match[1] == name for match in matches)


def lists_of(
    found: list[StoredLists], collection: Collection, rows: IntArray, *, instructed: bool = False
) -> tuple[ListTable, IntArray]:
    """The lists of some queries.

    Args:
        found: from ``find_lists`` for the collection's documents.
        collection: whose rows they are to be in.
        rows: of its queries.
        instructed: whether the lists' queries are known by text and instruction, not text alone.

    Returns:
        The table, and which of ``rows`` (positions) have no list: theirs are empty.
    """
    known_by = collection.query_keys if instructed else collection.query_text_keys
    keys = key_values(known_by[rows])
    values = key_values(collection.doc_keys)
    order = np.argsort(values, kind="stable")
    _, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
    floor = np.zeros(len(rows), dtype=np.float32)
    left = np.ones(len(rows), dtype=bool)
    docs = np.full((len(rows), 0), -1, dtype=np.int64)
    scores = np.zeros((len(rows), 0), dtype=np.float32)
    for stored in found:
        lists = stored.lists
        known = key_values(lists.query_keys)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        at = np.flatnonzero(left & (known[place] == keys)) if len(known) else rows[:0]
        lengths = np.diff(lists.list_ends, prepend=0)[place[at]]
        entries = _spans(lists.list_ends[place[at]] - lengths, lengths)
        # Documents of equal text have one key, and one score.
        times = counts[lists.list_docs[entries]]
        before = np.cumsum(np.append(0, times))
        ends = np.cumsum(lengths)
        sizes = before[ends] - before[ends - lengths]
        if (more := sizes.max(initial=0) - docs.shape[1]) > 0:
            docs = np.pad(docs, ((0, 0), (0, more)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, more)))
        cells = np.repeat(at, sizes), _spans(np.zeros_like(sizes), sizes)
        docs[cells] = order[_spans(starts[lists.list_docs[entries]], times)]
        scores[cells] = np.repeat(lists.list_scores[entries], times)
        floor[at], left[at] = lists.floor[place[at]], False
    return ListTable(docs, scores, floor), np.flatnonzero(left)


def _spans(first: IntArray, lengths: IntArray) -> IntArray:
    """Rising numbers, ``lengths`` of them from each of ``first`` on."""
    steps = np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    spans: IntArray = steps + np.arange(len(steps))
    return spans
