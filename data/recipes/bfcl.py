"""Build the tool-retrieval collection "bfcl" from the Python package bfcl-eval.

pip install --no-deps bfcl-eval
python data/recipes/bfcl.py collections/bfcl
"""

from __future__ import annotations

from pathlib import Path

import click
from bfcl_collection import build_bfcl

from era_cache.errors import EraError


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep about N functions, for quick runs; all by default.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=42,
    show_default=True,
    help="Seed of the draw that --limit makes.",
)
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder bfcl_eval/data of an unpacked package, instead of the installed one.",
)
def main(out: Path, limit: int | None, seed: int, source: Path | None) -> None:
    """Build the collection "bfcl" in the folder OUT and print its path.

    Documents are function cards of the Berkeley Function Calling Leaderboard, queries are users'
    requests, in BEIR layout. Needs: pip install --no-deps bfcl-eval
    """
    try:
        counts = build_bfcl(out, source=source, limit_functions=limit, seed=seed)
    except EraError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{counts.documents} documents, {counts.queries} queries, {counts.judgements} judgements",
        err=True,
    )
    click.echo(out)


if __name__ == "__main__":
    main()
