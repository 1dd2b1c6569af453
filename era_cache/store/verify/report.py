"""What verifying a store finds: a walk through its folders, and records for a table or JSON.

In: a store's folder, perhaps damaged or hostile. Out: the names that are ours, folder by folder,
and findings by their weight; links, strangers and temporaries are noted and never followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from era_cache.disk.files import TEMPORARY_PREFIX
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.store.names import scan_folder
from era_cache.store.records import Side
from era_cache.store.segment import has_vanished
from era_cache.store.verify.segment_scan import NormSummary

__all__ = ["EncoderState", "Finding", "PairState", "Report", "SideState", "Walk", "exactly"]


class Finding(NamedTuple):
    """Something that is not as it should be."""

    level: str
    """``damage``; ``newer``: of a version that only a newer ERA Cache reads; ``warning``."""
    path: str
    """Within the store."""
    message: str
    """What is wrong, and what to do unless it was ``done``."""
    done: str = ""
    """``quarantined`` or ``deleted`` where that was asked for and done."""
    missing_rows: int | None = None
    """Distinct rows that only this segment had, as far as its keys can be read."""


class EncoderState(NamedTuple):
    """One encoder's folder; numbers are those of its sound segments."""

    folder: str
    encoder: str
    role: str
    fingerprint: str
    segments: int
    rows: int
    bytes: int
    norms: NormSummary | None
    index_files: int
    retired: int
    quarantined: int


class SideState(NamedTuple):
    """Rows of one side of a pair: stored, of the collection, and missing of those it needs."""

    stored: int
    of: int
    missing: int


class PairState(NamedTuple):
    """A pair of encoders that a collection was embedded for."""

    path: str
    collection: str
    sides: dict[Side, SideState]


class Report(NamedTuple):
    """A whole store."""

    store: str
    findings: list[Finding]
    encoders: list[EncoderState]
    collections: int
    pairs: list[PairState]
    missing_rows: int
    """Distinct rows that only damaged segments had, over all encoders."""
    temporaries: int
    orphans: list[str]
    """Names that are not ours; nothing reads them."""
    bytes: int
    seconds: float

    def of_level(self, level: str) -> list[Finding]:
        """The findings of one weight."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def ok(self) -> bool:
        """Whether there is no damage."""
        return not self.of_level("damage")


T = TypeVar("T")


def exactly(*names: str) -> re.Pattern[str]:
    """A pattern of fixed names."""
    return re.compile("|".join(re.escape(name) for name in names))


class Walk:
    """One look at a store.

    Args:
        root: the store's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self.orphans: set[str] = set()
        self.temporaries: set[str] = set()

    @property
    def findings(self) -> list[Finding]:
        """What was found, each once, damage first."""
        order = ["damage", "newer", "warning"]
        found = self._findings.values()
        return sorted(found, key=lambda finding: (order.index(finding.level), finding.path))

    def path(self, name: str) -> Path:
        """Where a path of the store lies."""
        return self._root.joinpath(*name.split("/"))

    def add(self, finding: Finding) -> None:
        """Keep a finding."""
        self._findings[finding.level, finding.path, finding.message] = finding

    def names(self, folder: str, *known: tuple[re.Pattern[str], str]) -> dict[str, int]:
        """List one folder.

        Args:
            folder: its path in the store; empty is the store itself.
            known: patterns of the names that belong there, and whether each is a ``FILE`` or a
                ``FOLDER``.

        Returns:
            Names of that pattern and form, sorted, with their sizes in bytes.

        Raises:
            StoreError: it cannot be listed.
        """
        ours = {}
        for entry in scan_folder(self.path(folder) if folder else self._root):
            path = f"{folder}/{entry.name}" if folder else entry.name
            form = next((form for pattern, form in known if pattern.fullmatch(entry.name)), None)
            if entry.name.startswith(TEMPORARY_PREFIX):
                self.temporaries.add(path)
            elif form is None:
                self.orphans.add(path)
            elif entry.form == form:
                ours[entry.name] = entry.size
            else:
                self.add(Finding("damage", path, _wrong_form(entry.form, form)))
        return dict(sorted(ours.items()))

    def checked(self, name: str, check: Callable[[], T]) -> T | None:
        """Give what ``check`` of a file gives; None, and a finding, where it is refused.

        Args:
            name: the file's path in the store.
            check: reads it; one that another process removed meanwhile is no finding.
        """
        try:
            return check()
        except NewerError as error:
            self.add(Finding("newer", name, self.without_path(name, error)))
        except FormatError as error:
            self.add(Finding("damage", name, self.without_path(name, error)))
        except StoreError as error:
            if not has_vanished(error):
                self.add(Finding("damage", name, self.without_path(name, error)))
        return None

    def without_path(self, name: str, error: Exception) -> str:
        """An error's message without the path that it begins with."""
        return str(error).removeprefix(f"{self.path(name)}: ")


def _wrong_form(form: str, wanted: str) -> str:
    if form == "link":
        return "a link; nothing in a store may lead outside it. Replace it by what it points to."
    return f"is a {form}, where a {wanted} belongs. Move it away."
