"""The texts that belong to a stored collection, for showing.

In: a collection's ids and keys, and texts read from a folder. Out: those texts whose key is the
stored one. A store keeps no texts, and a folder may have changed since it was embedded: a text is
shown beside a vector only if it is the text that the vector was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from era_cache.collection.records import Collection, TextCollection
from era_cache.store.exchange.matching import collection_keys
from era_cache.types import Array, Keys, Role

__all__ = ["Texts", "matching_texts"]


class Texts(NamedTuple):
    """Texts in the order of the stored collection, None where there is none that fits.

    ``different`` documents of the collection have another text in the folder, ``absent`` ones are
    not in it.
    """

    documents: list[str | None]
    queries: list[str | None]
    instructions: list[str]
    different: int
    absent: int

    def messages(self) -> list[str]:
        """What must be told of the documents, one sentence each."""
        total = len(self.documents)
        lines = []
        if self.different:
            lines.append(
                f"{self.different:,} of {total:,} documents have another text there than was "
                "embedded; they are shown without. Give --document-text as for era-embed, or the "
                "folder that was embedded."
            )
        if self.absent:
            lines.append(f"{self.absent:,} of {total:,} documents are not there.")
        return lines


def matching_texts(collection: Collection, read: TextCollection) -> Texts:
    """Find the text of every document and query of a stored collection.

    Args:
        collection: as the store has it.
        read: as read from a folder.

    Raises:
        InputError: a text is not valid Unicode.
    """
    documents, at = _matching(collection.doc_ids, collection.doc_keys, read, Role.DOCUMENT)
    queries, _ = _matching(collection.query_ids, collection.query_keys, read, Role.QUERY)
    absent = int(np.count_nonzero(at < 0))
    known = int(np.count_nonzero(documents >= 0))
    return Texts(
        documents=[read.doc_texts[row] if row >= 0 else None for row in documents.tolist()],
        queries=[read.query_texts[row] if row >= 0 else None for row in queries.tolist()],
        instructions=[read.instructions[row] if row >= 0 else "" for row in queries.tolist()],
        different=len(documents) - absent - known,
        absent=absent,
    )


def _matching(
    ids: Sequence[str], keys: Keys, read: TextCollection, role: Role
) -> tuple[Array, Array]:
    """Rows in what was read: where id and key are the same, and where the id is; else -1."""
    read_ids, read_keys = collection_keys(read, role)
    row_of = {text_id: row for row, text_id in enumerate(read_ids)}
    at = np.array([row_of.get(text_id, -1) for text_id in ids], dtype=np.int64)
    found = np.flatnonzero(at >= 0)
    same = (read_keys[at[found]] == keys[found]).all(axis=1)
    rows = np.full(len(at), -1, dtype=np.int64)
    rows[found[same]] = at[found[same]]
    return rows, at
