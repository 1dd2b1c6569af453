"""``era-store merge``, ``pull``, ``push``, ``pack``, ``unpack``: stores that move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    echo_json,
    echo_table,
    json_option,
    say,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.store_options import plain, store_argument
from era_cache.disk.shown import printable

if TYPE_CHECKING:
    from era_cache.store.sync.transfer import TransferReport

__all__ = ["merge", "pack", "pull", "push", "unpack"]

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Only list what would be copied; write nothing."
)


@click.command("merge", cls=EraCommand)
@click.argument("into", metavar="INTO", type=PathArgument)
@click.argument("sources", metavar="FROM...", nargs=-1, required=True, type=PathArgument)
@dry_run_option
@json_option
def merge(into: Path, sources: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:
    """Copy into INTO all that it lacks from other stores.

    Each file is checked before it counts. A damaged one is refused and named; the others arrive.

    \b
    Example:
      era-store merge stores/mine stores/from-ann stores/from-ben
    """
    _carry_out("merge", into, sources, dry_run=dry_run, as_json=as_json)


@click.command("pull", cls=EraCommand)
@click.argument("url", metavar="URL")
@store_argument
@dry_run_option
@json_option
def pull(url: str, store_path: Path, dry_run: bool, as_json: bool) -> None:
    """Copy into STORE all that it lacks from the store at URL.

    URL is a folder, or anything that fsspec opens: s3://bucket/store, gs://…, ssh://host/path.
    Only missing files move; after an interruption, the same command goes on.

    \b
    Example:
      era-store pull s3://team/stores/bench stores/mine
    """
    _carry_out("pull", url, store_path, dry_run=dry_run, as_json=as_json)


@click.command("push", cls=EraCommand)
@store_argument
@click.argument("url", metavar="URL")
@dry_run_option
@json_option
def push(store_path: Path, url: str, dry_run: bool, as_json: bool) -> None:
    """Copy from STORE all that the store at URL lacks.

    URL is as for 'pull'. Each file is checked before it leaves; a damaged one is not sent.

    \b
    Example:
      era-store push stores/mine s3://team/stores/bench
    """
    _carry_out("push", store_path, url, dry_run=dry_run, as_json=as_json)


@click.command("pack", cls=EraCommand)
@store_argument
@click.argument("file", metavar="FILE.tar", type=PathArgument)
@json_option
def pack(store_path: Path, file: Path, as_json: bool) -> None:
    """Write STORE into one tar file, to hand to someone.

    Equal stores give equal files. Vectors do not compress, so the file is not compressed.

    \b
    Example:
      era-store pack stores/mine mine.tar
    """
    _carry_out("pack", store_path, file, as_json=as_json)


@click.command("unpack", cls=EraCommand)
@click.argument("file", metavar="FILE.tar", type=PathArgument)
@store_argument
@dry_run_option
@quiet_option
@json_option
def unpack(file: Path, store_path: Path, dry_run: bool, as_json: bool) -> None:
    """Copy into STORE all that it lacks from a tar file made by 'pack'.

    \b
    Example:
      era-store unpack mine.tar stores/yours
    """
    _carry_out("unpack", file, store_path, dry_run=dry_run, as_json=as_json)


def _carry_out(name: str, *places: Any, as_json: bool, **options: bool) -> None:
    """Carry out a transfer and print its report, also where some files were refused."""
    from era_cache.store import sync
    from era_cache.store.sync.transfer import RefusedError

    refused = None
    with progress() as bars:
        try:
            report = getattr(sync, name)(*places, **options, progress=bars)
        except RefusedError as error:
            report, refused = error.report, error
    dry_run = options.get("dry_run", False)
    if as_json:
        echo_json({**plain(report), "dry_run": dry_run})
    else:
        _echo_report(report, dry_run)
    if refused is not None:
        raise refused


def _echo_report(report: TransferReport, dry_run: bool) -> None:
    if dry_run:
        for name in report.files:
            say(printable(name))
    header = ["kind", "to copy" if dry_run else "copied", "there", "replaced", "refused"]
    echo_table(header, [[kind, *map(str, counts)] for kind, counts in report.kinds.items()])
    what = "would be copied" if dry_run else f"copied in {report.seconds:.1f} s"
    say(f"{len(report.files):,} files, {report.bytes / 1e6:,.1f} MB {what}")
