"""BM25 lists of a collection, made once like vectors, by the library bm25s (extra ``bm25``).

In: a text collection. Out: for each distinct query its best documents with scores, in the store.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from era_cache.collection.keys import key_values, row_keys
from era_cache.collection.records import Collection, TextCollection
from era_cache.encode.embed import EncodedRows
from era_cache.errors import InputError
from era_cache.store.lists import Lists, find_lists, write_lists
from era_cache.store.store import Store
from era_cache.types import Array, IntArray, Keys, Progress, Role, silent

__all__ = ["BM25", "DEPTH", "Bm25Index", "check_bm25", "embed_bm25"]

BM25 = "bm25"
"""Name of the lists."""
DEPTH = 1000
"""Documents of a list, at most, as is usual for TREC runs."""
_K1, _B, _METHOD = 1.5, 0.75, "lucene"
_AT_A_TIME = 512


def embed_bm25(
    store: Store,
    texts: TextCollection,
    collection: Collection,
    *,
    language: str = "english",
    progress: Progress = silent,
) -> EncodedRows:
    """Rank the documents for every query by BM25, as far as the store has no such list.

    Texts are read without instructions; documents of equal text count once. What decides the
    scores (library, its version, language, k1, b) is recorded; lists of other settings, or of
    another set of documents, are not used.

    Args:
        store: where the lists go.
        texts: the collection.
        collection: the same, as stored.
        language: of a Snowball stemmer, and of its stop words where bm25s has some; ``none`` for
            neither.
        progress: told how many queries are done.

    Returns:
        The report of this part.

    Raises:
        InputError: bm25s is not installed, or there is no such language.
        StoreError: the store cannot be written.
    """
    start = time.monotonic()
    queries = _sorted(collection.query_text_keys)
    settings = _settings(language)
    found = [
        one for one in find_lists(store, BM25, collection.doc_keys) if one.settings == settings
    ]
    known = [key_values(one.lists.query_keys) for one in found]
    missing = queries[~np.isin(key_values(queries), np.concatenate(known))] if known else queries
    if not len(collection.doc_ids):
        missing = missing[:0]  # queries alone: there is nothing to rank
    if len(missing):
        lists = _lists(texts, _sorted(collection.doc_keys), missing, language, progress)
        write_lists(store, BM25, settings, lists)
    return EncodedRows(
        what="bm25 lists",
        encoder=BM25,
        rows=len(queries),
        encoded=len(missing),
        cached=len(queries) - len(missing),
        truncated=0,
        seconds=time.monotonic() - start,
    )


def check_bm25(language: str = "english") -> None:
    """Refuse what ``embed_bm25`` would refuse, before hours of encoding.

    Raises:
        InputError: bm25s is not installed, or there is no such language.
    """
    _language(language)


def _settings(language: str) -> dict[str, Any]:
    """What decides the scores, besides the texts."""
    stemmer, stopwords = _language(language)
    packages = ("bm25s", *(() if stemmer is None else ("PyStemmer",)))
    return {
        "library": {package: version(package) for package in packages},
        "language": language,
        "stopwords": bool(stopwords),
        "method": _METHOD,
        "k1": _K1,
        "b": _B,
        "depth": DEPTH,
    }


def _language(name: str) -> tuple[Any, list[str]]:
    """The stemmer and the stop words of a language."""
    try:
        import bm25s.stopwords
        import Stemmer
    except ImportError as error:
        raise InputError(
            f"--bm25 needs the packages bm25s and PyStemmer ({error.name} is missing): "
            "pip install 'era-cache[bm25]'"
        ) from error
    if name == "none":
        return None, []
    if name not in Stemmer.algorithms():
        known = ", ".join(sorted(Stemmer.algorithms()))
        raise InputError(f"--bm25-language {name}: there are {known}, and none.")
    words = getattr(
        bm25s.stopwords, "STOPWORDS_" + ("EN" if name == "english" else name.upper()), ()
    )
    return Stemmer.Stemmer(name), list(words)


class Bm25Index:
    """An index of some texts in memory.

    Args:
        texts: of the documents.
        language: as for ``embed_bm25``.

    Raises:
        InputError: the library is not installed, or there is no such language.
    """

    def __init__(self, texts: Sequence[str], language: str) -> None:
        self._stemmer, self._stopwords = _language(language)
        import bm25s

        self._index = bm25s.BM25(method=_METHOD, k1=_K1, b=_B)
        self._depth = min(DEPTH, len(texts))
        words = self._tokens(texts, ids=True)
        self._any = bool(words.vocab)  # else no document has a word: every list is empty
        if self._any:
            self._index.index(words, show_progress=False)

    def _tokens(self, texts: Sequence[str], *, ids: bool) -> Any:
        import bm25s

        return bm25s.tokenize(
            list(texts),
            stopwords=self._stopwords,
            stemmer=self._stemmer,
            return_ids=ids,
            show_progress=False,
        )

    def ask(self, queries: Sequence[str]) -> list[tuple[IntArray, Array, float]]:
        """For each query the documents that share a word with it, at most ``DEPTH``.

        Returns:
            Numbers of documents (int64), their scores (float32, falling), and the score of all
            others: 0, or the last one's where the list is full.
        """
        if not self._any:
            return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), 0.0)] * len(
                queries
            )
        found = []
        asked = self._tokens(queries, ids=False)
        # Not "auto": with another library at hand, ties at the cut would fall elsewhere.
        docs, scores = self._index.retrieve(
            asked, k=self._depth, show_progress=False, backend_selection="numpy"
        )
        for row, value in zip(docs, scores, strict=True):
            mine = value[value > 0].astype(np.float32)
            lowest = float(mine[-1]) if len(mine) == DEPTH else 0.0
            found.append((row[value > 0].astype(np.int64), mine, lowest))
        return found


def _lists(
    texts: TextCollection,
    doc_keys: Keys,
    query_keys: Keys,
    language: str,
    progress: Progress,
) -> Lists:
    """Index the documents of some distinct keys, in their order, and ask the queries of others.

    Texts are found by their keys: a collection may leave out some that could not be encoded.
    """
    doc_rows = _found(doc_keys, row_keys(Role.DOCUMENT, texts.doc_texts))
    query_rows = _found(query_keys, row_keys(Role.QUERY, texts.query_texts))
    progress("bm25 lists", 0, len(query_rows))
    index = Bm25Index([texts.doc_texts[row] for row in doc_rows], language)
    found: list[tuple[IntArray, Array, float]] = []
    for begin in range(0, len(query_rows), _AT_A_TIME):
        block = query_rows[begin : begin + _AT_A_TIME]
        found += index.ask([texts.query_texts[row] for row in block])
        progress("bm25 lists", begin + len(block), len(query_rows))
    docs, scores, lowest = zip(*found, strict=True)
    return Lists(
        doc_keys,
        query_keys,
        np.cumsum([len(one) for one in docs], dtype=np.int64),
        np.concatenate(docs),
        np.concatenate(scores),
        np.array(lowest, dtype=np.float32),
    )


def _sorted(keys: Keys) -> Keys:
    """The distinct keys, rising, (m, 16) uint8."""
    return np.unique(key_values(keys)).view(np.uint8).reshape(-1, 16)


def _found(wanted: Keys, among: Keys) -> IntArray:
    """Rows of ``among`` that hold the keys ``wanted``, all of which it has."""
    values = key_values(among)
    order = np.argsort(values, kind="stable").astype(np.int64)
    rows = order[np.searchsorted(values[order], key_values(wanted))]
    if not np.array_equal(among[rows], wanted):
        raise ValueError("a text of the collection is missing")
    return rows
