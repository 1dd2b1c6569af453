"""What the commands of ``era-store`` share: arguments, options, and how results are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from era_cache.cli.common import (
    PathArgument,
    StorePlace,
    echo_table,
    say,
)

__all__ = ["ROLES", "echo_rows", "place_argument", "plain", "role_choice", "store_argument"]

ROLES = click.Choice(["document", "query"])
role_choice = click.option(
    "--role", type=ROLES, help="Role of ENCODER, where its name fits encoders of both roles."
)
store_argument = click.argument("store_path", metavar="STORE", type=PathArgument)
place_argument = click.argument("store_path", metavar="STORE", type=StorePlace())


def plain(value: Any) -> Any:
    """A result as JSON: named tuples become objects, however deep they lie."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: plain(field) for name, field in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def echo_rows(rows: Sequence[Any], empty: str) -> None:
    """Print named tuples as a table, a column for each field that says something.

    Whole numbers have commas.
    """
    if not rows:
        say(empty)
        return
    used = [name for name in rows[0]._fields if any(getattr(row, name) != "" for row in rows)]
    values = [[getattr(row, name) for name in used] for row in rows]
    shown = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in values]
    echo_table(used, shown)
