"""``era-store compact`` and ``era-store gc``: fewer segments, and nothing that no one needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from era_cache.cli.common import (
    EraCommand,
    echo_json,
    echo_table,
    finite,
    json_option,
    say,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.store_options import place_argument, plain, store_argument
from era_cache.cli.stores import opened_store

if TYPE_CHECKING:
    from era_cache.types import Where

__all__ = ["compact_command", "gc_command"]

DRY_RUN = click.option("--dry-run", is_flag=True, help="Change nothing, only tell.")


@click.command("compact", cls=EraCommand)
@place_argument
@click.option("--encoder", help="Name or start of a fingerprint.  [default: all]")
@click.option(
    "--max-gib",
    type=click.FloatRange(min=0, min_open=True, max=1e6),
    callback=finite,
    default=2.0,
    help="Vectors in one new segment, at most.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "int8"]),
    help="Store rows that are kept more exactly in this form. Digits are lost for good.",
)
@DRY_RUN
@quiet_option
@json_option
def compact_command(
    store_path: Where,
    encoder: str | None,
    max_gib: float,
    dtype: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Merge the segments of STORE into fewer, larger ones.

    Others may read and write the store meanwhile. What was replaced takes space until era-store gc
    deletes it, by default a day later at the earliest.

    \b
    Example:
      era-store compact stores/mine
    """
    from era_cache.store.compact import compact

    with progress("B") as bars:
        reports = compact(
            opened_store(store_path),
            encoder=encoder,
            max_bytes=int(max_gib * (1 << 30)),
            dtype=dtype,
            dry_run=dry_run,
            progress=bars,
        )
    if as_json:
        echo_json(plain(reports))
        return
    rows = [
        [one.encoder, one.fingerprint[:12], *(f"{number:,}" for number in one[2:])]
        for one in reports
    ]
    after = "would be" if dry_run else "after"
    echo_table(["encoder", "fingerprint", "segments", after, "rows", "bytes written"], rows)


@click.command("gc", cls=EraCommand)
@store_argument
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    callback=finite,
    metavar="HOURS",
    default=24.0,
    help="Leave alone what was replaced or written in these last hours.",
)
@click.option("--old-versions", is_flag=True, help="Delete older versions of collections, too.")
@click.option(
    "--unreferenced",
    is_flag=True,
    help="Drop rows that no collection of STORE names, too, for good. Not while others write.",
)
@DRY_RUN
@json_option
def gc_command(
    store_path: Where,
    grace: float,
    old_versions: bool,
    unreferenced: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete what STORE does not need any more.

    That is: segments that compaction has replaced, index files that a newer one covers or whose
    documents are gone, and what killed writers left behind. Nothing that a running writer has just
    written, and nothing whose replacement is damaged or gone.

    \b
    Example:
      era-store gc stores/mine --dry-run
    """
    from era_cache.store.clean import clean

    found = clean(
        opened_store(store_path),
        grace_seconds=grace * 3600,
        old_versions=old_versions,
        unreferenced=unreferenced,
        dry_run=dry_run,
    )
    if as_json:
        echo_json(found._asdict())
        return
    for name, value in found._asdict().items():
        say(f"{name.replace('_', ' ')}: {value:,}")
