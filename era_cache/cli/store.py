"""``era-store``: look into a store, move it, and keep it sound."""

from __future__ import annotations

from pathlib import Path

import click

from era_cache.cli.common import (
    EraGroup,
    echo_json,
    json_option,
    say,
    version_option,
)
from era_cache.cli.store_import import import_command
from era_cache.cli.store_options import echo_rows, plain, store_argument
from era_cache.cli.store_share import merge, pack, pull, push, unpack
from era_cache.cli.store_trust import diff, verify
from era_cache.cli.store_upkeep import compact_command, gc_command
from era_cache.cli.store_vectors import export_command, probe_command

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
@store_argument
@json_option
def ls(store_path: Path, as_json: bool) -> None:
    """List the encoders and collections of STORE.

    \b
    Example:
      era-store ls stores/mine
    """
    from era_cache.store.contents import list_collections, list_encoders
    from era_cache.store.store import Store

    store = Store.open(store_path)
    encoders, collections = list_encoders(store), list_collections(store)
    if as_json:
        echo_json(plain({"encoders": encoders, "collections": collections}))
        return
    echo_rows(encoders, "no encoders yet")
    say()
    echo_rows(collections, "no collections yet")


@main.command("info")
@store_argument
@click.argument("collection", required=False)
@json_option
def info(store_path: Path, collection: str | None, as_json: bool) -> None:
    """Show what is encoded of each collection.

    One row for each encoder, of all collections in STORE or of COLLECTION only.

    \b
    Example:
      era-store info stores/mine toy
    """
    from era_cache.store.contents import coverage
    from era_cache.store.store import Store

    rows = coverage(Store.open(store_path), collection)
    if as_json:
        echo_json(plain(rows))
    else:
        echo_rows(rows, "nothing stored yet")


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
):
    main.add_command(_command)
