"""Readers of collections, one for each form that collections come in.

In: a reader's name. Out: the function that reads. Another form is one function in a file of its
own and one line in ``READERS``; or, from another package, an entry point of ``era_cache.readers``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from era_cache.collection.records import TextCollection
from era_cache.disk.registry import Registry

__all__ = ["READERS", "Reader"]

READERS = Registry("era_cache.readers", "reader", {"beir": "era_cache.collection.beir:read_beir"})


class Reader(Protocol):
    """Reads a collection of one form.

    Rows of judgements count in the lists of ids; ids are unique, without white space; texts are
    valid Unicode, and none is empty. What is left out is counted in ``dropped``.
    """

    def __call__(
        self,
        path: Path,
        /,
        *,
        name: str | None,
        document_template: str,
        all_queries: bool,
        skip_bad_rows: bool,
        skip_lost_judgements: bool,
    ) -> TextCollection:
        """Read it.

        Args:
            path: file or folder, as the user gave it.
            name: of the collection; None lets the reader find one.
            document_template: how ``{title}`` and ``{text}`` become a document.
            all_queries: keep queries that no judgement names.
            skip_bad_rows: leave out and count rows that would otherwise be errors.
            skip_lost_judgements: of these only judgements of what is not there.

        Raises:
            InputError: something is wrong with it; the message names file and line.
        """
