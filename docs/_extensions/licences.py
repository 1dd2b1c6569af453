"""The directive ``licences``: what is installed with the project, and under which licences."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

__all__ = ["Row", "rows", "setup"]

Row = tuple[str, str, str, str]
"""Package, release here, licence as it states it, and the extra that wants it."""


def rows() -> list[Row]:
    """Direct dependencies, those of extras after those of the package itself."""
    found: dict[str, Row] = {}
    for wanted in importlib.metadata.requires("era-cache") or []:
        name = re.split(r"[^\w.-]", wanted)[0]
        extra = re.search(r'extra == "(\w+)"', wanted)
        if extra and extra[1] in ("test", "docs", "dev"):
            continue
        try:
            about = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            found.setdefault(name, (name, "not here", "", extra[1] if extra else ""))
            continue
        licence = about.get("License-Expression") or _from_classifiers(about) or _first_line(about)
        found.setdefault(name, (name, about["Version"], licence, extra[1] if extra else ""))
    return sorted(found.values(), key=lambda row: (row[3], row[0]))


def _from_classifiers(about: Any) -> str:
    said = [one for one in about.get_all("Classifier") or [] if one.startswith("License ::")]
    return ", ".join(one.rpartition(" :: ")[2] for one in said)


def _first_line(about: Any) -> str:
    return (about.get("License") or "").strip().partition("\n")[0][:60]


class Licences(Directive):
    """Put ``.. licences::`` where the table shall be."""

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        heads = ("package", "release here", "licence", "extra")
        table, group = nodes.table(), nodes.tgroup(cols=len(heads))
        group += [nodes.colspec(colwidth=1) for _ in heads]
        head, body = nodes.thead(), nodes.tbody()
        head += _row(heads)
        body += [_row(row) for row in rows()]
        group += [head, body]
        table += group
        return [table]


def _row(cells: tuple[str, ...]) -> nodes.row:
    row = nodes.row()
    row += [nodes.entry("", nodes.paragraph(text=cell)) for cell in cells]
    return row


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("licences", Licences)
    return {"version": "1", "parallel_read_safe": True}
