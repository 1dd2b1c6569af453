"""``era-fit align``: how well the two spaces align, by method and by number of documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    echo_json,
    echo_table,
    finite,
    json_option,
    say,
    version_option,
)
from era_cache.cli.fit_options import (
    data_options,
    named_collections,
    reading_of,
    recipe_of,
    split_of,
)
from era_cache.cli.stores import opened_store

if TYPE_CHECKING:
    from era_cache.store.store import Store
    from era_cache.types import Where

__all__ = ["align"]


def _counts(_ctx: click.Context, _param: click.Parameter, value: str) -> list[int]:
    parts = value.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise click.BadParameter(f"{value!r}: expected whole numbers with commas between them.")
    return [int(part) for part in parts]


@click.command(cls=EraCommand)
@data_options
@click.option(
    "--counts",
    callback=_counts,
    metavar="N,…",
    default="0,100,300,1000,3000",
    help="Numbers of documents to align on; each sample contains the smaller ones.",
)
@click.option(
    "--document-cost",
    type=click.FloatRange(min=0, max=1e9),
    callback=finite,
    metavar="X",
    help="Seconds, or money, that the large model takes for one document; shown beside the gain.",
)
@click.option("--out", type=OutFolder(), help="Folder for align.csv, align.json and align.html.")
@json_option
@version_option
def align(store_path: Where, collections: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare alignment methods, and numbers of documents, without labels.

    A fifth of the documents that both encoders have is held out; shown is how many of these find
    themselves when the mapped large vector searches the small vectors. A second table shows what
    so many documents are worth to era-zero: by the labels of training and validation queries where
    there are some, else by how far its ranking agrees with the large model's. `era-embed
    --align-documents N` encodes more of them.

    \b
    Example:
      era-fit align stores/mine toy
    """
    from era_cache.disk.files import make_folder
    from era_cache.fitting.align_from_store import alignment_rows
    from era_cache.fitting.sources import provenance
    from era_cache.report.row_tables import write_tables
    from era_cache.report.worth_chart import draw_worth

    store = opened_store(store_path)
    names = named_collections(store, collections, options["only_domain"], options["holdout_domain"])
    split, recipe = split_of(options), recipe_of(options["settings"], options["seed"])
    reading = reading_of(options)
    if not _judged(store, names):
        split = replace(split, labels=0.0)
    cost = options["document_cost"]
    rows, worth = alignment_rows(store, names, options["counts"], split, recipe, reading, cost)
    if options["out"] is not None:
        make_folder(options["out"], may_be_link=True)
        lead = ["Do held-out documents find themselves through the map?"]
        made_of = provenance(store, names, split, recipe, reading)
        write_tables(options["out"], "align", rows, "Alignment", lead, made_of)
        if worth:
            lead = ["What are more alignment documents worth, without labels in the adapter?"]
            picture = draw_worth(worth)
            title = "Worth of documents"
            write_tables(options["out"], "worth", worth, title, lead, made_of, picture)
    if as_json:
        echo_json({"rows": rows, "worth": worth})
        return
    for table in (rows, worth):
        if table:
            shown = [[_shown(value) for value in row.values()] for row in table]
            echo_table(list(table[0]), shown)
            say()


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _judged(store: Store, names: Sequence[str]) -> bool:
    return any((store.collection(name).qrels.relevance >= 1).any() for name in names)
