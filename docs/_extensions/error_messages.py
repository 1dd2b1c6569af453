"""The directive ``error-messages``: every message that is raised on purpose, read from the source.

What a message names (a file, a count) stands as an ellipsis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive

import era_cache
from era_cache import errors

__all__ = ["Message", "messages", "setup"]

PACKAGE = Path(era_cache.__file__).parent
KINDS = {name: getattr(errors, name).__doc__.partition("\n")[0] for name in errors.__all__}


class Message(NamedTuple):
    """A message, the error that carries it, and where it is raised."""

    kind: str
    text: str
    place: str


def messages() -> list[Message]:
    """All messages of the package, by kind and place, each once."""
    found: dict[Message, None] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for kind, text in _raised(ast.parse(path.read_text(encoding="utf-8"))):
            if re.search(r"\w{3}", text):
                found[Message(kind, text, place.removesuffix(".__init__"))] = None
    return sorted(found, key=lambda one: (list(KINDS).index(one.kind), one.place))


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", None)
            if name in KINDS:
                text = re.sub(r"\s+", " ", _text(node.args[0])).strip()
                yield str(name), re.sub(r"(… ?)+…", "…", text).lstrip("…:,; ")


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _text(node.func.value)
    return "…"


class ErrorMessages(Directive):
    """Put ``.. error-messages::`` where the tables shall be."""

    def run(self) -> list[nodes.Node]:
        """Make a section for each kind of error."""
        sections: list[nodes.Node] = []
        every = messages()
        for kind, about in KINDS.items():
            own = [one for one in every if one.kind == kind]
            if not own:
                continue
            section = nodes.section(ids=[kind.lower()], names=[kind.lower()])
            section += [nodes.title(text=kind), nodes.paragraph(text=about)]
            rows = nodes.bullet_list()
            for one in own:
                line = nodes.paragraph("", "", nodes.Text(f"{one.text} "))
                line += nodes.literal(text=one.place)
                rows += nodes.list_item("", line)
            section += rows
            sections.append(section)
        return sections


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("error-messages", ErrorMessages)
    return {"version": "1", "parallel_read_safe": True}
