"""``era-export``: an adapter as a model, a graph, arrays or vectors for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    PathArgument,
    StorePlace,
    device_option,
    echo_json,
    json_option,
    note,
    say,
    version_option,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.serve.export.options import KINDS, VECTOR_KINDS, ExportOptions

__all__ = ["main"]


@click.command(cls=EraCommand)
@click.argument("adapter", type=PathArgument)
@click.option(
    "--to", "kind", type=click.Choice(list(KINDS)), required=True, help="What to make of it."
)
@click.option("--out", type=OutFolder(), required=True, metavar="FOLDER", help="Folder to write.")
@click.option(
    "--candidate",
    shell_complete=completion.candidates,
    help="Another candidate than the chosen one.",
)
@click.option("--query-model", help="Large model, where it was moved: a folder or hub name.")
@click.option("--doc-model", help="Small model, likewise.")
@click.option(
    "--instruction", default="", show_default=False, help="For prompts that have a place for it."
)
@click.option("--whole", is_flag=True, help="Of onnx: export the query encoders, too.")
@click.option("--store", type=StorePlace(), help="Whose vectors are exported.")
@click.option(
    "--collection",
    shell_complete=completion.collections,
    help="Of the store, where the adapter was fitted on several.",
)
@click.option(
    "--role",
    type=click.Choice(["document", "query"]),
    default="document",
    help="Vectors of documents, or of queries behind the adapter.",
)
@click.option(
    "--check/--no-check", default=True, help="Load a model again and compare vectors of some texts."
)
@device_option
@quiet_option
@json_option
@version_option
def main(adapter: Path, as_json: bool, **given: Any) -> None:
    """Write ADAPTER into a folder that other software loads.

    \b
    sentence-transformers  a model for queries and documents
    query-encoder, folded  its query side alone, for other servers (linear candidates)
    onnx, npz, safetensors the adapter alone, for vectors that you have
    faiss, flexindex       an index of a store's documents
    npy, parquet           a store's documents, or its queries behind the adapter

    \b
    Examples:
      era-export adapters/toy --to sentence-transformers --out toy-model
      era-export adapters/toy --to faiss --store stores/mine --out toy-index
    """
    from era_cache.serve.export.export import export_adapter

    _check_usage(given)
    out = given.pop("out")
    options = ExportOptions(**given)
    with progress() as told:
        report = export_adapter(adapter, out, options, told)
    for text in report.notes:
        note(text)
    if as_json:
        echo_json({**report._asdict(), "out": str(report.out)})
        return
    form = f" ({report.form})" if report.form else ""
    rows = f", {report.rows:,} vectors" if report.rows else ""
    say(f"{report.out}: {report.candidate} as {report.kind}{form}{rows}.")
    if report.fusion and not (report.rows and given["role"] == "document"):
        note(
            f"{report.candidate} adds {report.fusion['weight']:g} * {report.fusion['run']}_score "
            "to the cosine; the exported vectors are those without it."
        )


def _check_usage(given: dict[str, Any]) -> None:
    vectors = given["kind"] in VECTOR_KINDS
    if vectors and given["store"] is None:
        raise click.UsageError(f"--to {given['kind']} exports a store's vectors: give --store.")
    if given["whole"] and given["kind"] != "onnx":
        raise click.UsageError("--whole is of --to onnx.")
    if given["role"] == "query" and not vectors:
        raise click.UsageError("--role is of vectors: --to faiss, flexindex, npy or parquet.")
