"""Where the lists of a first stage come from: the store, or a run that the user names.

In: an open store, a collection, rows of its queries. Out: a ``FirstStage`` on a device, or why
there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.collection.records import Collection
from era_cache.errors import InputError
from era_cache.rank.lists import FirstStage
from era_cache.store.lists import ListTable, StoredLists, find_lists, has_other_lists, lists_of
from era_cache.store.store import Store
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["FirstStages", "QueryLists"]

STORED = "bm25"
"""Name of the lists that era-embed makes."""
_ENOUGH = 0.5
"""Share of the queries that a named run must have results of; the others found nothing."""


class FirstStages(NamedTuple):
    """Which lists are read.

    ``name`` is that of the system; ``given`` are lists by the name of a collection, from a file of
    the user's, which count instead of the store's.
    """

    name: str = STORED
    given: Mapping[str, StoredLists] = {}

    def of(self, store: Store, collection: Collection) -> QueryLists:
        """The lists of a collection.

        Raises:
            FormatError: a file of the store is damaged.
            StoreError: it cannot be read.
        """
        given = self.given.get(collection.name)
        if given is not None:
            return QueryLists(collection, self.name, [given], from_file=True)
        found = find_lists(store, self.name, collection.doc_keys)
        lists = QueryLists(collection, self.name, found, from_file=False)
        if not found and has_other_lists(store, self.name):
            lists.problems.append(
                f"{collection.name}: the {self.name} lists of the store are of other documents. "
                f"Run era-embed with --{STORED} again to have them."
            )
        return lists

    def complete(self, store: Store, collections: Sequence[Collection]) -> dict[str, Any]:
        """What made the lists, by collection, where every query of each one has some; else empty.

        Raises:
            FormatError: a file of the store is damaged.
            StoreError: it cannot be read.
        """
        made: dict[str, Any] = {}
        for collection in collections:
            lists = self.of(store, collection)
            everyone = np.arange(len(collection.query_ids), dtype=np.int64)
            if not lists.settings() or len(lists.missing(everyone)):
                return {}
            made[collection.name] = lists.settings()
        return made


class QueryLists:
    """The lists of one collection.

    ``problems`` say in sentences why there are none, where one would expect some.
    """

    def __init__(
        self, collection: Collection, name: str, found: list[StoredLists], *, from_file: bool
    ) -> None:
        self._collection, self.name, self._found = collection, name, found
        self._from_file = from_file
        self.problems: list[str] = []

    def settings(self) -> dict[str, Any]:
        """What made the lists, by the name of the system; empty where there are none."""
        return {self.name: self._found[0].settings} if self._found else {}

    def missing(self, rows: IntArray) -> IntArray:
        """Which of some queries (positions in ``rows``) have no list."""
        return self._table(rows)[1]

    def _table(self, rows: IntArray) -> tuple[ListTable, IntArray]:
        # Another system may have read instructions; BM25 here has not.
        return lists_of(self._found, self._collection, rows, instructed=self._from_file)

    def select(self, rows: IntArray, device: torch.device | str) -> FirstStage | None:
        """The lists of some queries, None where they have none.

        Raises:
            InputError: a file of the user's has results of few of these queries.
        """
        import torch

        if not self._found:
            return None
        table, missing = self._table(rows)
        if len(missing) and not self._from_file:
            problem = (
                f"{self._collection.name}: {len(missing)} of {len(rows)} queries have no "
                f"{self.name} list. Run era-embed with --{STORED} again; it encodes nothing anew."
            )
            self.problems += [problem] if problem not in self.problems else []
            return None
        if len(missing) > (1 - _ENOUGH) * len(rows):
            first = self._collection.query_ids[int(rows[missing[0]])]
            raise InputError(
                f"--run {self.name}: no result for {len(missing)} of {len(rows)} queries that are "
                f"needed ('{first}' first). Fitting needs results of training queries, evaluation "
                "of test queries; give a run of all queries."
            )
        docs, scores, floor = (torch.from_numpy(np.ascontiguousarray(one)) for one in table)
        return FirstStage(self.name, docs.to(device), scores.to(device), floor.to(device))
