"""``era-fit align``: how well the two spaces align, by method and by number of documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    echo_json,
    echo_table,
    json_option,
    version_option,
)
from era_cache.cli.fit_options import (
    data_options,
    named_collections,
    reading_of,
    recipe_of,
    split_of,
)

__all__ = ["align"]


def _counts(_ctx: click.Context, _param: click.Parameter, value: str) -> list[int]:
    parts = value.split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r}: expected whole numbers with commas between them.")
    return [int(part) for part in parts]


@click.command(cls=EraCommand)
@data_options
@click.option(
    "--counts",
    callback=_counts,
    metavar="N,…",
    default="100,300,1000,3000",
    help="Numbers of documents to align on; each sample contains the smaller ones.",
)
@click.option("--out", type=OutFolder(), help="Folder for align.csv, align.json and align.html.")
@json_option
@version_option
def align(store_path: Path, collections: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare alignment methods, and numbers of documents, without labels.

    A fifth of the documents that both encoders have is held out; shown is how many of these find
    themselves when the mapped large vector searches the small vectors. `era-embed
    --align-documents N` encodes more of them.

    \b
    Example:
      era-fit align stores/mine toy
    """
    from era_cache.disk.files import make_folder
    from era_cache.fitting.align_from_store import alignment_rows
    from era_cache.fitting.sources import provenance
    from era_cache.report.row_tables import write_tables
    from era_cache.store.store import Store

    store = Store.open(store_path)
    names = named_collections(store, collections, options["only_domain"], options["holdout_domain"])
    split, recipe = split_of(options), recipe_of(options["settings"], options["seed"])
    reading = reading_of(options)
    rows = alignment_rows(store, names, options["counts"], split, recipe, reading)
    if options["out"] is not None:
        make_folder(options["out"], may_be_link=True)
        lead = ["Do held-out documents find themselves through the map?"]
        made_of = provenance(store, names, split, recipe, reading)
        write_tables(options["out"], "align", rows, "Alignment", lead, made_of)
    if as_json:
        echo_json({"rows": rows})
        return
    columns = list(rows[0])
    shown = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    echo_table(columns, shown)
