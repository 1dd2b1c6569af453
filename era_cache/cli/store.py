"""``era-store``: look into a store, move it, and keep it sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    EraGroup,
    PathArgument,
    echo_json,
    json_option,
    say,
    version_option,
)
from era_cache.cli.store_import import import_command
from era_cache.cli.store_names import rename_command, rm_command
from era_cache.cli.store_options import echo_rows, place_argument, plain
from era_cache.cli.store_share import merge, pack, pull, push, unpack
from era_cache.cli.store_trust import diff, verify
from era_cache.cli.store_upkeep import compact_command, gc_command
from era_cache.cli.store_vectors import export_command, probe_command
from era_cache.cli.stores import opened_store

if TYPE_CHECKING:
    from era_cache.types import Where

__all__ = ["main"]


@click.group(cls=EraGroup)
@version_option
def main() -> None:
    """Look into a store of vectors, move it, and keep it sound.

    \b
    Example:
      era-store ls stores/mine
    """


@main.command("ls")
@place_argument
@json_option
def ls(store_path: Where, as_json: bool) -> None:
    """List the encoders and collections of STORE.

    \b
    Example:
      era-store ls stores/mine
    """
    from era_cache.store.contents import list_collections, list_encoders

    store = opened_store(store_path)
    encoders, collections = list_encoders(store), list_collections(store)
    if as_json:
        echo_json(plain({"encoders": encoders, "collections": collections}))
        return
    echo_rows(encoders, "no encoders yet")
    say()
    echo_rows(collections, "no collections yet")


@main.command("info")
@place_argument
@click.argument("collection", required=False, shell_complete=completion.collections)
@click.option(
    "--adapter",
    "adapters",
    type=PathArgument,
    multiple=True,
    metavar="FOLDER",
    help="Also say whether this adapter still fits, and whether a new fit is due; may be repeated.",
)
@json_option
def info(
    store_path: Where, collection: str | None, adapters: tuple[Path, ...], as_json: bool
) -> None:
    """Show what is encoded of each collection, and what an adapter is still good for.

    One row for each encoder, of all collections in STORE or of COLLECTION only.

    \b
    Example:
      era-store info stores/mine toy --adapter adapters/toy
    """
    from era_cache.store.contents import coverage

    store = opened_store(store_path)
    rows = coverage(store, collection)
    states = []
    if adapters:
        from era_cache.fitting.validity import states_of

        states = [state for folder in adapters for state in states_of(store, folder)]
    if as_json:
        echo_json(plain({"coverage": rows, "adapters": states} if adapters else rows))
        return
    echo_rows(rows, "nothing stored yet")
    for one in states:
        say(f"{one.adapter} ({one.chosen}): {one.told.rstrip('.')}.")


for _command in (
    verify,
    diff,
    merge,
    pull,
    push,
    pack,
    unpack,
    import_command,
    export_command,
    probe_command,
    compact_command,
    gc_command,
    rm_command,
    rename_command,
):
    main.add_command(_command)
