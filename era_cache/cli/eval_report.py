"""``era-eval report``: results that were measured before, as a page and as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    PathArgument,
    echo_json,
    json_option,
    say,
)
from era_cache.cli.eval_options import (
    check_report_options,
    labels_shown_option,
    report_options,
    statistics_seed,
    write_report_files,
)
from era_cache.errors import InputError

__all__ = ["report"]


@click.command(cls=EraCommand)
@click.argument("folders", metavar="RESULTS…", nargs=-1, required=True, type=PathArgument)
@click.option(
    "--out", type=OutFolder(), help="Folder for the report.  [default: the first of RESULTS]"
)
@labels_shown_option
@statistics_seed("--seed")
@report_options
@json_option
def report(folders: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Write the report of RESULTS: a folder that era-eval wrote, or an adapter's.

    Writes report.html (one page that needs no other file and no network), table.md, table.tex (one
    table; details.tex has all), table.csv and evaluation.json. Further folders of RESULTS, other
    protocols on the same collections, are compared with the first by domain.

    \b
    Example:
      era-eval report results/each results/general results/lodo \\
          --texts data/toy --out reports/toy
    """
    from era_cache.evaluate.read_results import read_results
    from era_cache.report import render_text

    check_report_options(options)
    places = [_place(folder) for folder in folders]
    first, *others = [read_results(place) for place in places]
    out: Path = options["out"] or places[0]
    if out.absolute() not in [place.absolute() for place in places]:
        _check_free(out)
    found = write_report_files(out, first, options, options["tables_at"], others)
    if as_json:
        echo_json(found.plain())
        return
    say(render_text(found, brief=True))
    say(f"Report: {out / 'report.html'}")


def _check_free(out: Path) -> None:
    """Refuse to put a report among the results of something else."""
    if (out / "results.json").exists():
        raise InputError(
            f"{out}: holds results of its own, whose report would be lost. Give another folder."
        )


def _place(folder: Path) -> Path:
    """The results themselves, where an adapter's folder is named."""
    inside = folder / "evaluation"
    return inside if (inside / "results.json").is_file() else folder
