"""``era-embed onnx``: make a graph of a model, for machines where onnxruntime runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    count,
    echo_json,
    json_option,
    note,
    say,
    version_option,
)

__all__ = ["onnx"]


@click.command(cls=EraCommand)
@click.argument("model")
@click.option("--out", type=PathArgument, required=True, help="Folder to write.")
@click.option(
    "--max-seq-length",
    type=count,
    metavar="N",
    help="Tokens of a text that are read.  [default: the model's own]",
)
@click.option("--query-template", metavar="TEMPLATE", help="Prompt of queries.")
@click.option("--doc-template", metavar="TEMPLATE", help="Prompt of documents.")
@json_option
@version_option
def onnx(model: str, out: Path, as_json: bool, **options: Any) -> None:
    """Export MODEL, a folder or hub name, as a graph that onnx:FOLDER encodes with.

    It needs no torch where it runs, and is an encoder of its own: its vectors are near the
    model's, which is printed, not equal to them. Needs the extra [onnx].

    \b
    Example:
      era-embed onnx intfloat/e5-small-v2 --out models/e5-onnx
    """
    from era_cache.encode.encoder import EncoderSettings
    from era_cache.encode.export_encoder import export_encoder

    note("exporting, which takes a while …")
    settings = EncoderSettings(
        query_template=options["query_template"],
        document_template=options["doc_template"],
        max_seq_length=options["max_seq_length"],
        device="cpu",
    )
    worst = export_encoder(model, out, settings)
    if as_json:
        echo_json({"folder": str(out), "model": f"onnx:{out}", "smallest_cosine": worst})
        return
    say(f"Smallest cosine to the model's vectors: {worst:.7f}.")
    say(f"Use it as onnx:{out}, as --query-model or --doc-model.")
