"""Walking through a store, whatever lies in it, and keeping what is found.

In: a store's folder, perhaps damaged or hostile. Out: the names that are ours, folder by folder;
links, strangers and temporaries are noted and never followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from era_cache.disk.files import TEMPORARY_PREFIX
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.store.names import scan_folder
from era_cache.store.verify.report import Finding

__all__ = ["Walk", "exactly", "has_vanished"]

T = TypeVar("T")


def exactly(*names: str) -> re.Pattern[str]:
    """A pattern of fixed names."""
    return re.compile("|".join(re.escape(name) for name in names))


def has_vanished(error: BaseException) -> bool:
    """Whether an error means that another process has removed or renamed the file."""
    return isinstance(error.__cause__, FileNotFoundError)


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
