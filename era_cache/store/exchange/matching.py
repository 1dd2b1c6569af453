"""Matching: which text each row of somebody's vector file is.

In: the ids or keys of a file's rows, and a collection. Out: a key for each row, or an error:
nothing is ever guessed, because no later step could see a vector under another text's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import row_keys
from era_cache.collection.records import TextCollection
from era_cache.errors import InputError
from era_cache.types import Array, Keys, Role

__all__ = ["FileRows", "collection_keys", "rows_by_id", "rows_by_key", "rows_in_order"]


class FileRows(NamedTuple):
    """What each of the n rows of a vector file is.

    ``keys`` (n, 16) uint8 is the key of each row; rows that are not ``known`` (n,) bool are passed
    over, and their key means nothing. ``ids`` names the rows in messages; None where only keys are
    known.
    """

    keys: Keys
    known: Array
    ids: Sequence[str] | None

    def label(self, path: Path, row: int) -> str:
        """Name a row in a message."""
        name = self.ids[row] if self.ids is not None else f"key {self.keys[row].tobytes().hex()}"
        return f"'{name}' (row {row} of {path.name}, from 0)"


def collection_keys(texts: TextCollection, role: Role) -> tuple[Sequence[str], Keys]:
    """The ids and keys of a collection's texts of one role, in its order."""
    asked = texts.of(role)
    return asked.ids, row_keys(role, asked.texts, asked.instructions)


def rows_by_id(
    path: Path,
    count: int,
    file_ids: Sequence[str],
    texts: TextCollection,
    role: Role,
    *,
    skip_unknown: bool = False,
) -> FileRows:
    """Match the rows of a file to a collection's texts by their ids.

    Args:
        path: the vector file, for messages.
        count: its rows.
        file_ids: one id for each of them.
        texts: the collection.
        role: which of its texts they are.
        skip_unknown: pass over ids that the collection has not.

    Raises:
        InputError: there are not as many ids as rows; an id occurs twice, or is not in the
            collection, or none of them is.
    """
    if len(file_ids) != count:
        raise InputError(f"{path}: {count} rows, but {len(file_ids)} ids; each row needs its own.")
    first: dict[str, int] = {}
    for row, name in enumerate(file_ids):
        before = first.setdefault(name, row)
        if before != row:
            raise InputError(
                f"{path}: id '{name}' is that of row {before} and of row {row} (from 0). Each id "
                "must occur once: remove one of them."
            )
    ids, keys = collection_keys(texts, role)
    row_of = {name: row for row, name in enumerate(ids)}
    rows = np.array([row_of.get(name, -1) for name in file_ids], dtype=np.int64)
    known = rows >= 0
    unknown = np.flatnonzero(~known)
    if len(unknown) and (not skip_unknown or not known.any()):
        row = int(unknown[0])
        advice = "--skip-unknown passes over them." if known.any() else "Are these the right files?"
        raise InputError(
            f"{path}: {len(unknown)} of its {len(rows)} ids are no {role.value} of {texts.name}, "
            f"the first '{file_ids[row]}' (row {row}, from 0). {advice}"
        )
    return FileRows(keys[rows], known, file_ids)


def rows_in_order(path: Path, count: int, texts: TextCollection, role: Role) -> FileRows:
    """Take it that row i of a file is text i of a collection, because the user says so.

    Args:
        path: the vector file, for messages.
        count: its rows.
        texts: the collection.
        role: which of its texts they are.

    Raises:
        InputError: the counts differ, or rows of the collection's files were left out.
    """
    ids, keys = collection_keys(texts, role)
    dropped = texts.dropped
    left_out = dropped.empty_documents if role is Role.DOCUMENT else dropped.unjudged_queries
    if left_out or dropped.bad_rows:
        more = " (--all-queries keeps queries without a judgement)" if role is Role.QUERY else ""
        raise InputError(
            f"{path}: {left_out + dropped.bad_rows} rows of {texts.name} were left out{more}, so "
            "that the order of the others proves nothing. Give the ids of the vectors."
        )
    if count != len(ids):
        raise InputError(
            f"{path}: {count} rows, but {texts.name} has {len(ids)} of role {role.value}. Rows can "
            "be taken in the collection's order only where there are as many; give the ids."
        )
    return FileRows(keys, np.ones(count, dtype=bool), ids)


def rows_by_key(path: Path, count: int, keys: Keys) -> FileRows:
    """Take the rows' keys as given.

    Args:
        path: the vector file, for messages.
        count: its rows.
        keys: (n, 16) uint8.

    Raises:
        InputError: there are not as many keys as rows.
    """
    if len(keys) != count:
        raise InputError(f"{path}: {count} rows, but {len(keys)} keys; there must be one for each.")
    return FileRows(keys, np.ones(count, dtype=bool), None)
