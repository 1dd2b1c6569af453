"""``era-eval``: measure an adapter's candidates on the test queries and write the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    check_option,
    device_option,
    echo_json,
    json_option,
    note,
    seed_number,
    version_option,
)

__all__ = ["main"]


@click.command(cls=EraCommand)
@click.argument("store_path", metavar="STORE", type=PathArgument)
@click.argument("adapter", type=PathArgument)
@click.option(
    "--collection",
    help="Where the adapter was fitted on several, or to measure it on one that it was not fitted "
    "on.",
)
@click.option(
    "--with",
    "others",
    type=PathArgument,
    multiple=True,
    help="Another adapter folder of the same split, shown as a row; may be repeated.",
)
@click.option(
    "--measures",
    default="nDCG@10,R@100,RR,AP",
    show_default=True,
    help="Comma-separated, named as in ir_measures.",
)
@click.option(
    "--out",
    type=PathArgument,
    help="Folder for report, table and runs.  [default: ADAPTER/evaluation]",
)
@click.option(
    "--seed",
    type=seed_number,
    metavar="N",
    default=0,
    show_default=True,
    help="Seed of the bootstrap and the significance tests.",
)
@click.option(
    "--runs", is_flag=True, help="Also write TREC files: a run for each candidate, and the qrels."
)
@click.option(
    "--int8", is_flag=True, help="Also measure what storing the vectors as int8 would cost."
)
@check_option
@device_option
@json_option
@version_option
def main(store_path: Path, adapter: Path, as_json: bool, **options: Any) -> None:
    """Measure every candidate of ADAPTER on its test queries, from the vectors in STORE.

    Prints a table and writes report.html, table.md, table.csv and evaluation.json.

    \b
    Example:
      era-eval stores/mine adapters/toy
    """
    from era_cache.measures import parse_measure
    from era_cache.report import render_text
    from era_cache.store import Store
    from era_cache.workflow import evaluate_folder, int8_notes

    measures = [parse_measure(name.strip()) for name in options["measures"].split(",")]
    note("measuring on the test queries …")
    evaluation = evaluate_folder(
        Store.open(store_path),
        adapter,
        collection_name=options["collection"],
        others=options["others"],
        measures=measures,
        seed=options["seed"],
        device=options["device"],
        check=options["check"],
        int8=options["int8"],
        commands=["era-eval " + shlex.join(sys.argv[1:])],
    )
    out = options["out"] or _default_out(adapter, options["collection"])
    _write(out, evaluation, options["runs"])
    if as_json:
        echo_json(evaluation.record)
        return
    click.echo(render_text(evaluation.record, brief=True))
    if options["int8"]:
        click.echo("\n".join(int8_notes(evaluation.record)))
    click.echo(f"Report: {out / 'report.html'}")


def _default_out(adapter: Path, collection: str | None) -> Path:
    """``evaluation``, with a folder for each collection where one is named."""
    from era_cache.files import safe_name

    return adapter / "evaluation" / (safe_name(collection) if collection else "")


def _write(out: Path, evaluation: Any, runs: bool) -> None:
    from era_cache.files import os_errors, write_bytes, write_json
    from era_cache.report import render_csv, render_html, render_markdown
    from era_cache.trec import write_qrels, write_run

    record = evaluation.record
    with os_errors("creating", out):
        out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", record)
    write_bytes(out / "report.html", render_html(record).encode("utf-8"))
    write_bytes(out / "table.md", render_markdown(record).encode("utf-8"))
    write_bytes(out / "table.csv", render_csv(record).encode("utf-8"))
    if not runs:
        return
    with os_errors("creating", out):
        (out / "runs").mkdir(exist_ok=True)
    ids = evaluation.queries.ids
    write_qrels(out / "runs" / "qrels.trec", ids, evaluation.doc_ids, evaluation.queries.qrels)
    for name, scored in evaluation.scored.items():
        tag = "".join(c if c.isalnum() or c in "+-_" else "-" for c in name)
        write_run(out / "runs" / f"{tag}.trec", ids, evaluation.doc_ids, scored.ranking, tag)
