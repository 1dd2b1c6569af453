"""``era-fit curve``: what more labels buy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    count,
    echo_json,
    echo_table,
    json_option,
    note,
    version_option,
)
from era_cache.cli.fit_options import (
    SPLIT,
    data_options,
    named_collections,
    reading_of,
    recipe_of,
    shares,
    split_of,
)

__all__ = ["curve", "seeds_option"]

seeds_option = click.option(
    "--split-seeds",
    type=count,
    metavar="N",
    default=1,
    show_default=True,
    help=f"Shuffles of the split, from seed {SPLIT.seed} upwards.",
)


@click.command(cls=EraCommand)
@data_options
@click.option(
    "--out", type=PathArgument, required=True, help="Folder for the tables; goes on where it is."
)
@click.option(
    "--labels",
    callback=shares,
    metavar="PERCENT,…",
    default="5,10,20,40",
    show_default=True,
    help="Shares of the judged queries used for training.",
)
@seeds_option
@json_option
@version_option
def curve(store_path: Path, collections: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Fit all candidates at several shares of the labels and measure them on the test queries.

    Several collections are fitted one by one; the table shows the mean over them. Writes curve.csv,
    curve.json and curve.html. Interrupted, the same command goes on.

    \b
    Example:
      era-fit curve stores/mine toy --labels 5,10,20,40 \\
          --split-seeds 5 --out curves/toy
    """
    from era_cache.experiments import curve_rows, curve_summary
    from era_cache.store import Store
    from era_cache.tables import write_tables

    store = Store.open(store_path)
    names = named_collections(store, collections, options["only_domain"], options["holdout_domain"])
    rows = curve_rows(
        store,
        names,
        options["out"],
        split=split_of(options),
        labels=options["labels"],
        split_seeds=options["split_seeds"],
        recipe=recipe_of(options["settings"], options["seed"]),
        tell=lambda text: note(f"fitting {text} …"),
        **reading_of(options),
    )
    summary = curve_summary(rows)
    lead = [
        f"Test nDCG@10 of {len(names)} collection(s) by share of the labels.",
        "shipped is what held-out labels chose at each share.",
    ]
    write_tables(options["out"], "curve", rows, "Label efficiency", lead)
    if as_json:
        echo_json({"rows": rows, "summary": summary})
        return
    candidates = list(dict.fromkeys(row["candidate"] for row in summary))
    cells = {(row["candidate"], row["labels"]): row for row in summary}
    table = [
        [
            name,
            *(
                f"{cells[name, share]['test']:.4f}"
                + (f" ± {cells[name, share]['sd']:.4f}" if options["split_seeds"] > 1 else "")
                for share in options["labels"]
            ),
        ]
        for name in candidates
    ]
    echo_table(["test nDCG@10", *(f"{share:.0%}" for share in options["labels"])], table)
    click.echo(f"Tables: {options['out'] / 'curve.html'}")
