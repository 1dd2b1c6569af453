"""Options that the forms of era-eval share, and the files that they all write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    PathArgument,
    all_of,
    note,
    percent,
    seed_number,
)
from era_cache.errors import InputError

if TYPE_CHECKING:
    from era_cache.evaluate.results import Results
    from era_cache.rank.measures import Measure
    from era_cache.report.records import Report

__all__ = [
    "MEASURES",
    "check_report_options",
    "labels_shown_option",
    "measures_of",
    "measures_option",
    "report_options",
    "statistics_seed",
    "texts_of",
    "write_report_files",
]

MEASURES = "nDCG@10,R@100,RR,AP"
measures_option = click.option(
    "--measures",
    default=MEASURES,
    help="Comma-separated, named as in ir_measures.",
)


def statistics_seed(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The seed of statistics; ``--seed`` where nothing is fitted, else ``--test-seed``."""
    return click.option(
        name,
        "test_seed",
        type=seed_number,
        metavar="N",
        default=0,
        help="Seed of the bootstrap and the significance tests.",
    )


labels_shown_option = click.option(
    "--tables-at",
    type=percent,
    metavar="PERCENT",
    help="Share of the labels that tables are about, of those measured.  [default: 20, else the "
    "largest]",
)


report_options = all_of(
    click.option(
        "--texts",
        "text_folders",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        multiple=True,
        metavar="FOLDER",
        help="Collection in BEIR layout, whose query texts are shown beside their ids; may be "
        "repeated.",
    ),
    click.option(
        "--per-query",
        type=PathArgument,
        metavar="FILE",
        help="Also write the value of every query, to a .csv or .parquet file.",
    ),
)
"""What a report may be told: query texts, and where per-query values go."""


def check_report_options(options: Mapping[str, Any]) -> None:
    """Refuse at once, not after hours of fitting, what could not be written.

    Raises:
        InputError: ``--per-query`` names no table, or drawings cannot be made.
    """
    from era_cache.evaluate.per_query import check_per_query_path
    from era_cache.report.svg import load_matplotlib

    load_matplotlib()
    if options["per_query"]:
        check_per_query_path(options["per_query"])


def measures_of(text: str) -> list[Measure]:
    """Read the measures of ``--measures``."""
    from era_cache.rank.measures import parse_measure

    return [parse_measure(name.strip()) for name in text.split(",")]


def texts_of(folders: tuple[Path, ...], results: Results) -> dict[str, dict[str, str]]:
    """Query texts by collection and id, as far as they are those that were measured.

    Ids alone would let another version of a collection put its texts beside these values.

    Raises:
        InputError: a folder is no collection.
    """
    from era_cache.collection.beir import read_beir
    from era_cache.collection.keys import row_keys
    from era_cache.evaluate.results import texts_digest
    from era_cache.types import Role

    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        texts = read_beir(folder)
        if texts.name in found:
            raise InputError(f"{folder}: a second collection of the name {texts.name}.")
        by_id = dict(zip(texts.query_ids, texts.query_texts, strict=True))
        ids = results.query_ids.get(texts.name)
        if ids is None:
            note(f"{folder}: {texts.name} not measured here; the texts are not used.")
            continue
        here = [by_id[one] for one in ids if one in by_id]
        wanted = results.head.collections[texts.name].query_texts
        if len(here) != len(ids) or texts_digest(row_keys(Role.QUERY, here)) != wanted:
            note(f"{folder}: not the queries that were measured; its texts are not shown.")
            continue
        found[texts.name] = by_id
    return found


def write_report_files(
    out: Path,
    results: Results,
    options: Mapping[str, Any],
    tables_at: float | None = None,
    others: Sequence[Results] = (),
) -> Report:
    """Analyse results and write every form of the report, which is returned.

    Args:
        out: folder of the report.
        results: what it is about.
        options: of ``report_options`` and ``statistics_seed``.
        tables_at: share of the labels that tables are about; None for the default.
        others: results of other protocols, compared by domain.
    """
    from era_cache.evaluate.analysis import report_of
    from era_cache.evaluate.outputs import write_reports, write_values

    texts = texts_of(options["text_folders"], results)
    report = report_of(
        results, labels=tables_at, seed=options["test_seed"], texts=texts, others=others
    )
    write_reports(out, report)
    if options["per_query"]:
        write_values(options["per_query"], results)
    return report
