"""A retrieval collection as a record: with its texts for the encoders, without them for the rest.

In: what a reader such as ``beir`` found. Out: a ``TextCollection``, or the ``Collection`` that the
store holds of it (no text, only keys).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from era_cache.collection.packed import taken
from era_cache.types import Array, IntArray, Keys, Qrels, Role

__all__ = ["Collection", "Dropped", "RoleTexts", "TextCollection"]


class Dropped(NamedTuple):
    """What a reader left out, by reason."""

    empty_documents: int = 0
    unjudged_queries: int = 0
    repeated_judgements: int = 0
    bad_rows: int = 0
    kinds: tuple[tuple[str, int], ...] = ()
    """What was wrong with the bad rows, and with how many."""

    def counts(self) -> dict[str, int]:
        """Numbers by reason, as a stored collection keeps them."""
        return {name: value for name, value in self._asdict().items() if name != "kinds"}

    def messages(self) -> list[str]:
        """One line for each reason that occurred."""
        lines = (
            (self.empty_documents, "documents without any text left out, with their judgements"),
            (self.unjudged_queries, "queries without a judgement left out (--all-queries keeps)"),
            (self.repeated_judgements, "repeated judgements counted once"),
            (self.bad_rows, f"bad rows skipped{self._listed()}"),
        )
        return [f"{count:,} {text}" for count, text in lines if count]

    def _listed(self) -> str:
        shown = [f"{kind} ({count:,})" for kind, count in self.kinds]
        return f": {'; '.join(shown)}" if shown else ""


class RoleTexts(NamedTuple):
    """Texts of one role with their ids; ``instructions`` is None where the role has none."""

    ids: Sequence[str]
    texts: Sequence[str]
    instructions: Sequence[str] | None

    def take(self, rows: IntArray) -> RoleTexts:
        """Some of them, in the order of ``rows``."""
        ids, texts = taken(self.ids, rows), taken(self.texts, rows)
        said = self.instructions
        return RoleTexts(ids, texts, None if said is None else taken(said, rows))


class TextCollection(NamedTuple):
    """A collection with its texts, as the encoders need it.

    ``splits`` maps a split's name to its judgements; row numbers count in ``doc_ids`` and
    ``query_ids``. ``instructions`` has one string per query, empty where there is none.
    """

    name: str
    domain: str
    ignore_identical_ids: bool
    doc_ids: Sequence[str]
    doc_texts: Sequence[str]
    query_ids: Sequence[str]
    query_texts: Sequence[str]
    instructions: Sequence[str]
    splits: dict[str, Qrels]
    dropped: Dropped

    def without(self, documents: IntArray, queries: IntArray) -> TextCollection:
        """Leave out some texts, with their judgements; they are counted as bad rows.

        Args:
            documents: row numbers of documents.
            queries: row numbers of queries.
        """
        kept_docs = np.delete(np.arange(len(self.doc_ids)), documents)
        kept_queries = np.delete(np.arange(len(self.query_ids)), queries)
        new_rows = np.full(len(self.doc_ids), -1, dtype=np.int64)
        new_rows[kept_docs] = np.arange(len(kept_docs))

        def left(part: Qrels) -> Qrels:
            part = part.select_queries(kept_queries)
            rows = new_rows[part.doc_rows]
            return Qrels(part.query_rows, rows, part.relevance).take(rows >= 0)

        docs, asked = self.of(Role.DOCUMENT).take(kept_docs), self.of(Role.QUERY).take(kept_queries)
        lost = len(documents) + len(queries)
        return self._replace(
            doc_ids=docs.ids,
            doc_texts=docs.texts,
            query_ids=asked.ids,
            query_texts=asked.texts,
            instructions=asked.instructions or (),
            splits={name: left(part) for name, part in self.splits.items()},
            dropped=self.dropped._replace(bad_rows=self.dropped.bad_rows + lost),
        )

    def of(self, role: Role) -> RoleTexts:
        """The queries with their instructions, or the documents."""
        if role is Role.QUERY:
            return RoleTexts(self.query_ids, self.query_texts, self.instructions)
        return RoleTexts(self.doc_ids, self.doc_texts, None)


class Collection(NamedTuple):
    """A stored collection: ids, keys and judgements, no text and no vector.

    ``doc_keys`` (n, 16) and ``query_keys`` (q, 16) are uint8; ``query_text_keys`` (q, 16) leave
    the instruction out, so that equal texts can be told; ``qrels`` holds the judgements of all
    splits, ``qrels_split`` (m,) uint8 says which of ``splits`` each one came from.
    """

    name: str
    domain: str
    ignore_identical_ids: bool
    doc_ids: Sequence[str]
    doc_keys: Keys
    query_ids: Sequence[str]
    query_keys: Keys
    query_text_keys: Keys
    qrels: Qrels
    qrels_split: Array
    splits: list[str]
    digest: str
    created: str
    generation: int = 0
    """Versions of a name count up: above those that its writer saw; clocks only break ties."""
    was: str = ""
    """Name and version under which it was embedded, where it was renamed since."""

    @property
    def version(self) -> str:
        """The first 12 digits of the digest, as in the file name."""
        return self.digest[:12]

    def keys_of(self, role: Role) -> Keys:
        """Keys of the queries, or of the documents."""
        return self.query_keys if role is Role.QUERY else self.doc_keys
