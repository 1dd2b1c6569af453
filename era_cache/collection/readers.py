"""Readers of collections, one for each form that collections come in.

In: what a user names: a path, or ``READER:WHAT``. Out: collections. Another form is one function in
a file of its own and one line in ``READERS``; or, from another package, an entry point of
``era_cache.readers``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.records import TextCollection
from era_cache.collection.tables import suffix_of
from era_cache.disk.registry import Registry
from era_cache.errors import InputError

__all__ = ["READERS", "Given", "Reader", "Several", "find_reader"]

_HERE = "era_cache.collection"
READERS = Registry(
    "era_cache.readers",
    "reader",
    {
        "beir": f"{_HERE}.beir:read_beir",
        "hub": f"{_HERE}.hub_layout:read_hub",
        "irds": f"{_HERE}.irds:read_irds",
        "mair": f"{_HERE}.mair:read_mair",
        "mteb": f"{_HERE}.mteb_tasks:read_mteb",
        "pairs": f"{_HERE}.pairs:read_pairs",
        "qa": f"{_HERE}.qa_sets:read_qa",
        "zip": f"{_HERE}.zipped:read_zip",
    },
)


class Reader(Protocol):
    """Reads a collection of one form.

    Rows of judgements count in the lists of ids; ids are unique, without white space; texts are
    valid Unicode, and none is empty. What is left out is counted in ``dropped``. Further keyword
    arguments, all text, are options of its own (``--read NAME=VALUE``).
    """

    def __call__(self, path: Path, settings: ReaderSettings, /) -> TextCollection:
        """Read it.

        Args:
            path: file or folder, as the user gave it, or what stands behind ``READER:``.
            settings: name, template of documents, and what is left out.

        Raises:
            InputError: something is wrong with it; the message names file and line.
        """


@runtime_checkable
class Several(Protocol):
    """A reader of which one name may stand for several collections."""

    def expand(self, given: str, /) -> list[str]:
        """Names of the collections, each of which it reads; with the options of the reader."""


class Given(NamedTuple):
    """A collection as the user named it: which reader, what it is told, and its options."""

    reader: str
    what: str
    options: Mapping[str, str]

    def each(self) -> list[Given]:
        """Every collection that the name stands for.

        Raises:
            InputError: there is none, or an option that the reader does not know.
        """
        read = READERS.load(self.reader)
        self._check_options(read)
        if not isinstance(read, Several):
            return [self]
        return [self._replace(what=one) for one in read.expand(self.what, **self.options)]

    def read(self, settings: ReaderSettings) -> TextCollection:
        """Read it.

        Raises:
            InputError: something is wrong with it, or the reader does not know an option.
        """
        read: Any = READERS.load(self.reader)
        self._check_options(read)
        texts: TextCollection = read(Path(self.what), settings, **self.options)
        return texts

    def _check_options(self, read: Reader) -> None:
        own = inspect.Parameter.KEYWORD_ONLY
        known = {n for n, one in inspect.signature(read).parameters.items() if one.kind is own}
        for name in self.options:
            if name not in known:
                raise InputError(
                    f"--read {name}=…: the reader '{self.reader}' has no such option; it has "
                    f"{', '.join(sorted(known)) or 'none'}."
                )


def find_reader(given: str, reader: str | None, options: Sequence[str] = ()) -> Given:
    """Say which reader reads what the user named.

    Args:
        given: ``READER:WHAT``, where a reader of that name is registered and no such file is there;
            else a path, whose form is found by looking.
        reader: that the user asked for; None looks.
        options: each ``NAME=VALUE``.

    Raises:
        InputError: an option of another form.
    """
    chosen: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--read {option}: expected NAME=VALUE.")
        chosen[name] = value
    if reader is not None:
        return Given(reader, given.removeprefix(f"{reader}:"), chosen)
    head, colon, rest = given.partition(":")
    if colon and rest and not Path(given).exists() and READERS.knows(head):
        return Given(head, rest, chosen)
    return Given(_by_look(Path(given)), given, chosen)


def _by_look(path: Path) -> str:
    """The reader of a file or folder; what nobody knows is left to that of BEIR folders."""
    if path.is_file():
        return {".zip": "zip", ".json": "qa"}.get(suffix_of(path), "beir")
    if any(next(path.glob(f"{name}.jsonl*"), None) for name in ("corpus", "queries")):
        return "beir"
    tables = (next(path.glob(f"*/*{suffix}"), None) for suffix in (".parquet", ".jsonl", ".csv"))
    return "hub" if next(path.glob("*.parquet"), None) or any(tables) else "beir"
