"""``era-store rm`` and ``rename``: collections and encoders that go, or get another name."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from era_cache.cli.common import EraCommand, echo_json, json_option, say
from era_cache.cli.store_options import store_argument

__all__ = ["rename_command", "rm_command"]


@click.command("rm", cls=EraCommand)
@store_argument
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Change nothing, only tell.")
@json_option
def rm_command(store_path: Path, names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Take collections or encoders out of STORE.

    NAME is a collection with all its versions, NAME-VERSION one of them, or an encoder's name or
    start of a fingerprint. Rows stay until `era-store gc` (`--unreferenced` for those of
    collections); until then embedding the same again finds them. Running readers are not disturbed.

    \b
    Example:
      era-store rm stores/mine toy --dry-run
    """
    from era_cache.store.remove import remove
    from era_cache.store.store import Store

    store = Store.open(store_path)
    found = [remove(store, name, dry_run=True) for name in names]  # all of them, or none
    if not dry_run:
        found = [remove(store, name) for name in names]
    if as_json:
        echo_json([one._asdict() for one in found])
        return
    done = "Would remove" if dry_run else "Removed"
    for one in found:
        for what, given in (("collection", one.collections), ("encoder", one.encoders)):
            for name in given:
                say(f"{done} {what} {name}.")
        if one.pairs:
            say(f"{done} what said that it was embedded for a pair ({one.pairs}).")
    if not dry_run:
        option = " --unreferenced" if any(one.collections for one in found) else ""
        say(f"Rows stay until: era-store gc {quote(str(store_path))}{option}")


@click.command("rename", cls=EraCommand)
@store_argument
@click.argument("old")
@click.argument("new")
def rename_command(store_path: Path, old: str, new: str) -> None:
    """Give the collection or encoder OLD the name NEW.

    An adapter that was fitted on the collection finds it under the new name; embed it with
    `--name NEW` from then on. The name of an encoder changes no fingerprint.

    \b
    Example:
      era-store rename stores/mine toy tools
    """
    from era_cache.store.remove import rename
    from era_cache.store.store import Store

    for name in rename(Store.open(store_path), old, new):
        say(f"Now called {name}.")
