"""The protocols as commands: ``era-eval each`` and the others."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    all_of,
    echo_json,
    json_option,
    say,
)
from era_cache.cli.eval_options import (
    check_report_options,
    measures_of,
    measures_option,
    report_options,
    statistics_seed,
    write_report_files,
)
from era_cache.cli.fit_options import (
    LABELS_HELP,
    any_recipe,
    data_options,
    named_collections,
    reading_of,
    recipe_option,
    seeds_option,
    shares,
    split_of,
)
from era_cache.cli.progress import tell
from era_cache.cli.stores import opened_store

if TYPE_CHECKING:
    from era_cache.types import Where

__all__ = ["PROTOCOL_COMMANDS"]

_WHAT = {
    "each": (
        "Fit an adapter for each collection and measure it on that collection.",
        "With several shares of the labels the report has the label-efficiency curve.",
        "era-eval each stores/mine --labels 5,20 --split-seeds 5 --out results",
    ),
    "general": (
        "Fit one adapter for all collections and measure it on each of them.",
        "Every collection counts the same, whatever its size.",
        "era-eval general stores/mine toy bfcl --out results/general",
    ),
    "leave-one-domain-out": (
        "For each domain, fit an adapter on all other domains and measure it on that one.",
        "What an adapter is worth on collections that it has never seen.",
        "era-eval leave-one-domain-out stores/mine --out results/lodo",
    ),
    "domain-specific": (
        "For each domain, fit an adapter on its collections and measure it on all.",
        "The report has the matrix of training domains against measured domains.",
        "era-eval domain-specific stores/mine --out results/domains",
    ),
}


documents_option = click.option(
    "--documents/--no-documents",
    default=True,
    help="Whether documents of the domain that is left out take part in the alignment; none of its "
    "queries and labels does.",
)


def _command(protocol: str) -> click.Command:
    """Make the command of a protocol."""
    first, second, example = _WHAT[protocol]

    def body(
        store_path: Where, collections: tuple[str, ...], as_json: bool, **options: Any
    ) -> None:
        _run(protocol, store_path, collections, as_json, options)

    body.__doc__ = f"""{first}

    {second} Without COLLECTION, all of STORE take part. Writes results (values of each query) and
    the report to --out; interrupted, the same command goes on.

    \b
    Example:
      {example}
    """
    options: list[Any] = [
        data_options,
        click.option(
            "--out",
            type=OutFolder(),
            required=True,
            help="Folder for results and report; goes on where it is.",
        ),
        click.option(
            "--labels",
            callback=shares,
            metavar="PERCENT,…",
            default="20",
            help=LABELS_HELP,
        ),
        seeds_option,
        recipe_option,
        *([documents_option] if protocol == "leave-one-domain-out" else []),
        measures_option,
        statistics_seed("--test-seed"),
        report_options,
        json_option,
    ]
    made: click.Command = click.command(protocol, cls=EraCommand)(all_of(*options)(body))
    return made


def _run(
    protocol: str,
    store_path: Where,
    collections: tuple[str, ...],
    as_json: bool,
    options: dict[str, Any],
) -> None:
    split = split_of(options)
    check_report_options(options)
    from era_cache.evaluate.protocols import Plan, run_protocol
    from era_cache.evaluate.results import MadeBy
    from era_cache.fitting.settings import recipe_record
    from era_cache.report import render_text

    store = opened_store(store_path)
    only, holdout = options["only_domain"], options["holdout_domain"]
    names = named_collections(store, collections, only, holdout, everything=True)
    plan = Plan(
        protocol=protocol,
        collections=names,
        split=split,
        labels=options["labels"],
        split_seeds=options["split_seeds"],
        recipe=any_recipe(options),
        measures=measures_of(options["measures"]),
        documents=options.get("documents", True),
    )
    configuration = {
        "command": f"era-eval {protocol}",
        "store": str(store_path),
        "collections": names,
        "labels": plan.labels,
        "split_seeds": plan.split_seeds,
        "split": plan.split.rule,
        "label_count": plan.split.count,
        **{key: options[key] for key in ("query_encoder", "doc_encoder", "device")},
        "recipe": recipe_record(plan.recipe),
        "test_seed": options["test_seed"],
    }
    command = "era-eval " + shlex.join(sys.argv[1:])
    results = run_protocol(
        store,
        plan,
        options["out"],
        reading_of(options),
        made_by=MadeBy(configuration, [command]),
        tell=lambda text: tell(f"fit {text} …"),
    )
    found = write_report_files(options["out"], results, options)
    if as_json:
        echo_json(found.plain())
        return
    say(render_text(found, brief=True))
    say(f"Report: {options['out'] / 'report.html'}")


PROTOCOL_COMMANDS = {name: _command(name) for name in _WHAT}
