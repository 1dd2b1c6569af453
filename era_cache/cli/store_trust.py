"""``era-store verify`` and ``diff``: whether a store is whole, and what two stores have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from era_cache.cli.common import (
    EraCommand,
    StorePlace,
    echo_json,
    echo_table,
    json_option,
    say,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.store_options import place_argument, plain
from era_cache.cli.stores import opened_store
from era_cache.disk.shown import printable

if TYPE_CHECKING:
    from era_cache.store.contents import Difference, Sides
    from era_cache.store.verify.report import EncoderState, Report
    from era_cache.types import Where

__all__ = ["diff", "verify"]

# Names of one kind that are listed before the rest is only counted.
_SHOWN = 20


@click.command("verify", cls=EraCommand)
@place_argument
@click.option(
    "--quarantine",
    is_flag=True,
    help="Set damaged segments aside, and delete wrong index files. The next era-embed encodes "
    "the rows of these segments again, and no others.",
)
@quiet_option
@json_option
def verify(store_path: Where, quarantine: bool, as_json: bool) -> None:
    """Read all of STORE and check everything in it.

    Checked are the SHA-256 of each segment, its structure and every value; keys, indexes and
    records; and whether what was embedded is complete. Others may use STORE meanwhile. The exit
    code is 1 where something is damaged.

    \b
    Example:
      era-store verify stores/mine
    """
    from era_cache.store.bucket.bucket_store import BucketStore
    from era_cache.store.verify import verify as verify_store

    store = opened_store(store_path)
    if isinstance(store, BucketStore) and quarantine:
        raise click.UsageError(
            "--quarantine is for folders. Delete a damaged segment from the bucket: the next "
            "era-embed encodes only its rows again."
        )
    with progress("B") as bars:
        # Of a bucket, everything is brought to this machine first.
        here = store.whole(progress=bars) if isinstance(store, BucketStore) else store
        report = verify_store(here, quarantine=quarantine, progress=bars)
    if as_json:
        echo_json({**plain(report), "ok": report.ok})
    else:
        _echo_report(report)
    damage = report.of_level("damage")
    if damage:
        listed = "\n".join(f"  {store_path}/{finding.path}" for finding in damage[:_SHOWN])
        rest = f"\n  and {len(damage) - _SHOWN} more" if len(damage) > _SHOWN else ""
        left = sum(not finding.done for finding in damage)
        advice = "See above for what to do with each" if left else "Now run era-embed again"
        if as_json and left:
            advice = "'findings' says what to do with each"
        raise click.ClickException(
            f"{len(damage)} damaged, of which {len(damage) - left} were dealt with. {advice}."
            f"\n{listed}{rest}"
        )


def _echo_report(report: Report) -> None:
    for finding in report.findings:
        done = f" ({finding.done})" if finding.done else ""
        say(f"{finding.level}{done}: {printable(finding.path)}: {finding.message}")
    if report.findings:
        say()
    if report.encoders:
        echo_table(
            ["encoder", "role", "fingerprint", "segments", "rows", "MB", "norms", "retired"],
            [_row(state) for state in report.encoders],
        )
    say(
        f"{report.collections} collections, {len(report.pairs)} pairs; "
        f"{report.bytes / 1e6:,.1f} MB of segments read in {report.seconds:.1f} s."
    )
    if report.missing_rows:
        say(f"{report.missing_rows:,} rows were in damaged segments only.")
    if aside := sum(state.quarantined for state in report.encoders):
        say(f"{aside} damaged segments lie in quarantine; delete them when you like.")
    if report.temporaries:
        say(f"{report.temporaries} temporary files, of running or killed writers.")
    _echo_names("not ours, ignored", report.orphans)
    if report.ok:
        say("Nothing is damaged.")


def _row(state: EncoderState) -> list[str]:
    norms, shown = state.norms, "-"
    if norms is not None:
        shown = f"{norms.smallest:.4g} .. {norms.mean:.4g} .. {norms.largest:.4g}"
    return [
        state.encoder,
        state.role,
        state.fingerprint[:12],
        f"{state.segments:,}",
        f"{state.rows:,}",
        f"{state.bytes / 1e6:,.1f}",
        shown,
        f"{state.retired:,}",
    ]


@click.command("diff", cls=EraCommand)
@click.argument("path_a", metavar="A", type=StorePlace())
@click.argument("path_b", metavar="B", type=StorePlace())
@click.option("--exit-code", is_flag=True, help="Exit with 1 where one has what the other lacks.")
@json_option
def diff(path_a: Where, path_b: Where, exit_code: bool, as_json: bool) -> None:
    """Compare the rows, collections and pairs of the stores A and B.

    Rows are compared by key: the same rows in other segments are the same.

    \b
    Example:
      era-store diff stores/mine stores/yours
    """
    from era_cache.store.contents import diff as diff_stores

    found = diff_stores(opened_store(path_a), opened_store(path_b))
    if as_json:
        echo_json({**plain(found), "same": found.same})
    else:
        _echo_difference(found)
    if exit_code and not found.same:
        click.get_current_context().exit(1)


def _echo_difference(found: Difference) -> None:
    if found.encoders:
        columns = ["rows only A", "only B", "both", "segments only A", "only B", "both"]
        counts = [
            (*one[3:6], len(one.segments.only_a), len(one.segments.only_b), one.segments.both)
            for one in found.encoders
        ]
        rows = [
            [one.encoder, one.role, one.fingerprint[:12], *(f"{number:,}" for number in row)]
            for one, row in zip(found.encoders, counts, strict=True)
        ]
        echo_table(["encoder", "role", "fingerprint", *columns], rows)
    _echo_sides("collections", found.collections)
    _echo_sides("pairs", found.pairs)
    _echo_sides("runs", found.runs)
    say("Both hold the same." if found.same else "They differ.")


def _echo_sides(what: str, sides: Sides) -> None:
    say(f"{what}: {sides.both} in both")
    _echo_names(f"{what} only in A", sides.only_a)
    _echo_names(f"{what} only in B", sides.only_b)


def _echo_names(what: str, names: Sequence[str]) -> None:
    if not names:
        return
    say(f"{what} ({len(names)}):")
    for name in names[:_SHOWN]:
        say(f"  {printable(name)}")
    if len(names) > _SHOWN:
        say(f"  and {len(names) - _SHOWN} more")
