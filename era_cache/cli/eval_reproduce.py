"""``era-eval reproduce``: run again what results say was run, and compare."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    StorePlace,
    echo_json,
    echo_table,
    finite,
    json_option,
    say,
)
from era_cache.cli.progress import quiet_option, tell

__all__ = ["reproduce"]


@click.command(cls=EraCommand)
@click.argument("file", type=PathArgument)
@click.option("--store", type=StorePlace(), help="Where the store is now, if it was moved.")
@click.option("--adapter", type=PathArgument, help="Where the adapter is now, if it was moved.")
@click.option(
    "--tolerance",
    type=float,
    callback=finite,
    default=1e-5,
    help="Largest difference of a mean that counts as the same.",
)
@quiet_option
@json_option
def reproduce(file: Path, as_json: bool, **options: Any) -> None:
    """Run again what FILE says was run, and compare: results.json, or an adapter's config.json.

    Exit code 0 where every mean is the same within --tolerance, else 1. Another version of a
    library, another processor or number of threads can move the last digits.

    \b
    Example:
      era-eval reproduce results/each/results.json
    """
    from era_cache.evaluate.reproduce import reproduce as run_again

    found = run_again(
        file,
        store=options["store"],
        adapter=options["adapter"],
        tell=lambda text: tell(f"{text} …"),
    )
    same = not found.choices and all(
        abs(one.then - one.now) <= options["tolerance"] for one in found.differences
    )
    if as_json:
        rows = [
            {**one._asdict(), "largest": one.largest if isfinite(one.largest) else None}
            for one in found.differences
        ]
        record = {"same": same, "changed": found.changed, "choices": found.choices}
        echo_json({**record, "differences": rows})
    else:
        rows_shown = [
            [one.what, one.candidate, f"{one.then:.6f}", f"{one.now:.6f}", f"{one.largest:.1e}"]
            for one in found.differences
        ]
        echo_table(["what", "candidate", "then", "now", "largest difference"], rows_shown)
        if found.changed:
            say(f"Changed since: {', '.join(found.changed)}.")
        for choice in found.choices:
            say(f"Another candidate ships: {choice}.")
        worst = max((abs(one.then - one.now) for one in found.differences), default=0.0)
        verdict = "Reproduced" if same else "NOT reproduced"
        say(f"{verdict}: means differ by {worst:.1e} at most.")
    if not same:
        click.get_current_context().exit(1)
