"""The directive ``commands``: a section for each command and form, made of its ``--help``."""

from __future__ import annotations

from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from era_cache.__main__ import COMMANDS, command

__all__ = ["FORMS", "setup"]


def _forms_of(name: str) -> dict[str, click.Command]:
    main = command(name)
    inner = main.commands if isinstance(main, click.Group) else getattr(main, "forms", {})
    return {f"era-{name}": main} | {f"era-{name} {form}": inner[form] for form in inner}


FORMS = {typed: one for name in COMMANDS for typed, one in _forms_of(name).items()}
"""What one types, and the command."""
# sphinx-click finds a command as an attribute of a module.
_ATTRIBUTES = {typed: typed.replace(" ", "_").replace("-", "_") for typed in FORMS}
globals().update({_ATTRIBUTES[typed]: one for typed, one in FORMS.items()})


class Commands(Directive):
    """Put ``.. commands::`` where the sections shall be."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        lines = []
        for typed in FORMS:
            lines += [f".. click:: commands:{_ATTRIBUTES[typed]}", f"   :prog: {typed}"]
            lines += ["   :nested: none", ""]
        sections = nodes.Element()
        self.state.nested_parse(StringList(lines, "commands"), 0, sections, match_titles=True)
        return list(sections.children)


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True}
