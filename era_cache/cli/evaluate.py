"""``era-eval``: measure an adapter's candidates on the test queries and write the report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    EraForms,
    PathArgument,
    StorePlace,
    check_option,
    device_option,
    echo_json,
    index_option,
    json_option,
    overwrite_option,
    say,
    version_option,
)
from era_cache.cli.eval_options import (
    check_report_options,
    measures_of,
    measures_option,
    report_options,
    statistics_seed,
    write_report_files,
)
from era_cache.cli.eval_protocols import PROTOCOL_COMMANDS
from era_cache.cli.eval_report import report
from era_cache.cli.eval_reproduce import reproduce
from era_cache.cli.fit_options import named_runs
from era_cache.cli.progress import quiet_option, tell
from era_cache.cli.stores import opened_store
from era_cache.disk.files import check_writable

if TYPE_CHECKING:
    from era_cache.evaluate.results import Head
    from era_cache.report.records import Report
    from era_cache.types import Where

__all__ = ["main"]


class EvalForms(EraForms):
    """``era-eval STORE ADAPTER``, and beside it its other forms."""

    forms: ClassVar[dict[str, click.Command]] = {
        "report": report,
        "reproduce": reproduce,
        **PROTOCOL_COMMANDS,
    }


@click.command(
    cls=EvalForms,
    epilog="Other forms, each with its own --help: `era-eval report` writes the report of results "
    "again, `era-eval reproduce` runs results again; `era-eval each`, `general`, "
    "`domain-specific` and `leave-one-domain-out` fit and measure many adapters. A store that is "
    "named like them is given as ./report.",
)
@click.argument("store_path", metavar="STORE", type=StorePlace())
@click.argument("adapter", type=PathArgument)
@click.option(
    "--collection",
    "collections",
    shell_complete=completion.collections,
    multiple=True,
    help="Measure on this one; may be repeated, and may name one that the adapter was not fitted "
    "on.  [default: all that it was fitted on]",
)
@click.option(
    "--with",
    "others",
    type=PathArgument,
    multiple=True,
    help="Another adapter folder of the same split, shown as a row; may be repeated.",
)
@click.option(
    "--run",
    "foreign",
    metavar="NAME=FILE",
    multiple=True,
    help="A run of another system on the same collection, shown as a row: a TREC file or JSON "
    "{query: {document: score}}, plain or gzip; may be repeated.",
)
@measures_option
@click.option(
    "--out",
    type=PathArgument,
    help="Folder for results and report.  [default: ADAPTER/evaluation, and in it one for each "
    "version that was not fitted on]",
)
@statistics_seed("--seed")
@click.option(
    "--runs", is_flag=True, help="Also write TREC files: a run for each candidate, and the qrels."
)
@click.option(
    "--int8", is_flag=True, help="Also measure what storing the vectors as int8 would cost."
)
@index_option("its recall is stated")
@report_options
@overwrite_option
@check_option
@device_option
@quiet_option
@json_option
@version_option
def main(store_path: Where, adapter: Path, as_json: bool, **options: Any) -> None:
    """Measure every candidate of ADAPTER on its test queries, from the vectors in STORE.

    Prints a table and writes report.html, table.md, table.tex (one table; details.tex has all),
    table.csv and evaluation.json, and beside them the value of every query, from which `era-eval
    report` writes them again.

    \b
    Example:
      era-eval stores/mine adapters/toy
    """
    check_report_options(options)
    foreign = named_runs(options["foreign"])
    check_writable(options["out"] or adapter)
    from era_cache.evaluate.evaluate_adapter import Measuring, evaluate_folder
    from era_cache.evaluate.results_folder import ResultsFolder
    from era_cache.fitting.threads import use_free_threads

    use_free_threads()

    tell("measuring on the test queries …")
    evaluation = evaluate_folder(
        opened_store(store_path),
        adapter,
        Measuring(
            collections=options["collections"],
            others=options["others"],
            runs=foreign,
            measures=measures_of(options["measures"]),
            seed=options["test_seed"],
            device=options["device"],
            check=options["check"],
            int8=options["int8"],
            index=options["index"],
        ),
        configuration={
            "command": "era-eval",
            "store": str(store_path),
            "adapter": str(adapter),
            "collections": list(options["collections"]),
            "with": [str(other) for other in options["others"]],
            "run": {name: str(path) for name, path in foreign.items()},
            **{key: options[key] for key in ("test_seed", "device", "int8", "index")},
        },
        commands=["era-eval " + shlex.join(sys.argv[1:])],
    )
    measured = evaluation.results
    out = options["out"] or _default_out(adapter, options["collections"], measured.head)
    kept = ResultsFolder(
        out, measured.head, measured.query_ids, anew=True, overwrite=options["overwrite"]
    )
    for fit in measured.fits:
        kept.add(fit)
    found = write_report_files(out, kept.results(), options)
    if as_json:
        echo_json(found.plain())
    else:
        _show(found, foreign, out)
    if options["runs"]:  # last: what ids with blanks forbid must not hide the rest
        _write_runs(out / "runs", evaluation.ranked)


def _show(found: Report, foreign: Mapping[str, Path], out: Path) -> None:
    """Print the table, and the notes that a reader of it must know."""
    from era_cache.report import render_text

    say(render_text(found, brief=True))
    told = (
        "Stored as int8",
        f"{found.chosen} against what may be run instead",
        *(f"{one.name}: " for one in found.collections),
        *(f"{measure} looks at " for measure in found.candidates[0].measures),
        *(f"{name} {what} " for name in foreign for what in ("lacks", "ranks")),
    )
    for line in found.notes:
        if line.startswith(told):
            say(line)
    say(f"Report: {out / 'report.html'}")


def _default_out(adapter: Path, named: tuple[str, ...], head: Head) -> Path:
    """``evaluation``, with a folder for each collection where some are named.

    Likewise for another version than was fitted on, so that neither takes the other's place.
    """
    from era_cache.disk.files import safe_name
    from era_cache.fitting.adapter_folder import load_config

    fitted = {one.collection.digest for one in load_config(adapter).fitted_on()}
    if not named and any(one.digest not in fitted for one in head.collections.values()):
        named = tuple(f"{name}-{one.digest[:12]}" for name, one in head.collections.items())
    return adapter / "evaluation" / "+".join(safe_name(name) for name in named)


def _write_runs(out: Path, ranked: Any) -> None:
    """Write TREC files in the place of those of an earlier call."""
    from era_cache.disk.files import make_folder, os_errors
    from era_cache.evaluate.trec import write_qrels, write_run

    with os_errors("clearing", out):
        for old in out.rglob("*.trec"):
            old.unlink()
    for name, one in ranked.items():
        folder = out / name if len(ranked) > 1 else out
        make_folder(folder)
        write_qrels(folder / "qrels.trec", one.queries.ids, one.doc_ids, one.queries.qrels)
        taken = {"qrels"}
        for candidate, scored in one.scored.items():
            tag = "".join(c if c.isalnum() or c in "+-_" else "-" for c in candidate)
            while tag in taken:  # two names may differ in other signs only
                tag += "_"
            taken.add(tag)
            path = folder / f"{tag}.trec"
            write_run(path, one.queries.ids, one.doc_ids, scored.ranking, tag)
