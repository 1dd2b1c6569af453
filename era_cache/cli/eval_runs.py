"""``era-eval runs``: compare runs of any system on judgements, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    echo_json,
    echo_table,
    json_option,
    version_option,
)
from era_cache.cli.eval_options import measures_of, measures_option, statistics_seed

if TYPE_CHECKING:
    from era_cache.evaluate.run_comparison import RunComparison
    from era_cache.evaluate.runs import AlignedRuns
    from era_cache.rank.measures import Measure

__all__ = ["runs"]


@click.command(cls=EraCommand)
@click.argument("qrels", metavar="QRELS", type=PathArgument)
@click.argument("run_paths", metavar="RUN...", nargs=-1, required=True, type=PathArgument)
@measures_option
@click.option(
    "--baseline",
    metavar="RUN",
    help="Run that the others are compared with: its name or, counted from 1, its place.  "
    "[default: the first]",
)
@click.option(
    "--judged-only", is_flag=True, help="Leave out queries of a run that QRELS does not name."
)
@statistics_seed("--seed")
@click.option(
    "--per-query",
    type=PathArgument,
    metavar="FILE",
    help="Also write the value of every query, to a .csv or .parquet file.",
)
@json_option
@version_option
def runs(qrels: Path, run_paths: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Measure each RUN on the judgements QRELS, and compare it with the first.

    Runs are TREC files or JSON {query: {document: score}}; judgements are TREC or BEIR files or
    JSON. Each may be packed with gzip. The content tells the form. Queries with a positive
    judgement count; one that a run lacks scores 0.

    Prints means with 95 % bootstrap intervals and, for each difference, its interval, p of the
    paired randomisation test, the same after Holm's correction over the runs of one measure, the
    effect size (mean / standard deviation of the differences), and how many queries are better,
    equal and worse.

    \b
    Example:
      era-eval runs qrels.trec bm25.trec dense.trec.gz --measures nDCG@10,R@100
    """
    from era_cache.evaluate.per_query import (
        check_per_query_path,
        per_query_columns,
        write_per_query,
    )
    from era_cache.evaluate.run_comparison import compare_runs, run_names
    from era_cache.evaluate.runs import align_runs, load_qrels, load_run

    measures = list(dict.fromkeys(measures_of(options["measures"])))
    names = run_names(run_paths)
    baseline = _baseline(options["baseline"], names)
    if options["per_query"]:
        check_per_query_path(options["per_query"])
    aligned = align_runs(
        load_qrels(qrels), map(load_run, run_paths), judged_only=options["judged_only"]
    )
    found = compare_runs(aligned, names, measures, baseline=baseline, seed=options["test_seed"])
    if options["per_query"]:
        columns = per_query_columns(aligned.query_ids, found.values)
        write_per_query(options["per_query"], columns)
    if as_json:
        echo_json(_record(qrels, aligned, found, measures, options["test_seed"]))
    else:
        _show(aligned, found, measures)


def _baseline(given: str | None, names: Sequence[str]) -> str:
    """The name that is meant; names go before places."""
    if given is None:
        return names[0]
    if given in names:
        return given
    if given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= len(names):
        return names[int(given) - 1]
    listed = ", ".join(f"{place} {name}" for place, name in enumerate(names, start=1))
    raise click.BadParameter(f"{given!r} is no run. The runs: {listed}.", param_hint="--baseline")


def _record(
    qrels: Path,
    aligned: AlignedRuns,
    found: RunComparison,
    measures: Sequence[Measure],
    seed: int,
) -> dict[str, Any]:
    return {
        "qrels": str(qrels),
        "queries": len(aligned.query_ids),
        "queries_without_positive": aligned.without_positive,
        "measures": [str(measure) for measure in measures],
        "baseline": found.baseline,
        "seed": seed,
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                "missing_queries": run.missing_queries,
                "unjudged_queries": run.unjudged_queries,
                "measures": entries,
            }
            for (name, entries), run in zip(found.table.items(), aligned.runs, strict=True)
        ],
        "notes": found.notes,
    }


def _show(aligned: AlignedRuns, found: RunComparison, measures: Sequence[Measure]) -> None:
    # Padded here: a table sets what begins with a digit to the right.
    width = max(len("run"), *map(len, found.table))
    found = found._replace(table={name.ljust(width): e for name, e in found.table.items()})
    click.echo(f"Means over {len(aligned.query_ids):,} queries, with 95 % intervals\n")
    rows = [
        [
            name,
            *(f"{e['mean']:.4f} [{e['low']:.4f}, {e['high']:.4f}]" for e in entries.values()),
        ]
        for name, entries in found.table.items()
    ]
    echo_table(["run", *(str(measure).ljust(23) for measure in measures)], rows)
    if len(rows) > 1:
        click.echo(f"\nDifferences from {found.baseline}\n")
        head = ["run", "measure", "difference", "p", "p (Holm)", "effect size"]
        echo_table([*head, "better/equal/worse"], list(_difference_rows(found)))
    for text in found.notes:
        click.echo(f"\n{text}")


def _difference_rows(found: RunComparison) -> Any:
    for name, entries in found.table.items():
        for measure, entry in entries.items():
            if name.rstrip() != found.baseline:
                interval = f"[{entry['difference_low']:+.4f}, {entry['difference_high']:+.4f}]"
                yield [
                    name,
                    measure,
                    f"{entry['difference']:+.4f} {interval}",
                    f"{entry['p']:.4f}",
                    f"{entry['p_holm']:.4f}",
                    "-" if entry["effect"] is None else f"{entry['effect']:+.2f}",
                    f"{entry['better']}/{entry['equal']}/{entry['worse']}",
                ]
