"""``era-fit import-weights``: take over an adapter that the paper's repository publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    StorePlace,
    all_of,
    echo_json,
    json_option,
    overwrite_option,
    say,
    version_option,
)
from era_cache.cli.stores import opened_store

__all__ = ["import_weights"]

_prompts = all_of(
    *(
        click.option(
            f"--{side}-{role}-template",
            metavar="TEMPLATE",
            help=f"Prompt of the {side} model for {what}.  [default: the model's own]",
        )
        for side in ("large", "small")
        for role, what in (("query", "queries"), ("doc", "documents"))
    )
)


@click.command(cls=EraCommand)
@click.argument("file", type=PathArgument)
@click.option("--query-model", required=True, help="Large model: a folder, hub name, or KIND:NAME.")
@click.option("--doc-model", required=True, help="Small model, likewise.")
@_prompts
@click.option("--out", type=PathArgument, required=True, help="Folder to write the adapter to.")
@click.option(
    "--store",
    "store_path",
    type=StorePlace(),
    help="Store with collections that it is to be measured on (--collection).",
)
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="NAME",
    help="A collection that it was trained on, by the published split at 40 % of the labels; "
    "era-eval then measures its test queries. May be repeated.",
)
@overwrite_option
@json_option
@version_option
def import_weights(file: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Read FILE, a torch file of one weight and one bias, and write an adapter folder.

    The shapes are checked against the models; that the weights are of these models, and with which
    prompts, is for you to know. The models are not loaded.

    \b
    Example:
      era-fit import-weights adapter.pt --query-model Qwen/Qwen3-Embedding-8B \\
          --doc-model BAAI/bge-m3 --out adapters/published
    """
    from era_cache.collection.config import SplitConfig
    from era_cache.collection.splits import make_split
    from era_cache.encode.encoder import EncoderSettings, open_encoder
    from era_cache.fitting.fit_from_store import fitted_on_record
    from era_cache.fitting.published_weights import import_weights as write

    if bool(options["collections"]) != (options["store_path"] is not None):
        raise click.UsageError("--store and --collection go together.")
    models = {}
    for side, model in (("large", options["query_model"]), ("small", options["doc_model"])):
        settings = EncoderSettings(
            query_template=options[f"{side}_query_template"],
            document_template=options[f"{side}_doc_template"],
        )
        models[side] = open_encoder(model, settings)
    split, fitted = SplitConfig("paper-exact", labels=0.4), []
    for name in options["collections"]:
        collection = opened_store(options["store_path"]).collection(name)
        fitted.append(fitted_on_record(collection, make_split(collection, split)))
    adapter = write(
        file,
        out,
        large=models["large"].spec,
        small=models["small"].spec,
        fitted_on=tuple(fitted),
        widths=(getattr(models["large"], "width", None), getattr(models["small"], "width", None)),
        overwrite=options["overwrite"],
    )
    d_out, d_in = adapter.weight.shape
    if as_json:
        echo_json({"adapter": str(out), "dimensions": {"large": d_in, "small": d_out}})
        return
    say(f"{d_in} -> {d_out} dimensions. Adapter written to {out}.")
