"""``era-fit``: fit adapters on stored vectors and keep the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    check_option,
    count,
    device_option,
    echo_json,
    echo_table,
    json_option,
    note,
    percent,
    seed_number,
    version_option,
)
from era_cache.config import FitConfig, PaperConfig, SplitConfig

__all__ = ["main"]

DEFAULTS, SPLIT = FitConfig(), SplitConfig()
NAMES = ["auto", "small", "aligned", "era", "era-dual", "small+"]


def _shares(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[float]:
    if not value:
        return []
    return [percent(part.strip()) for part in value.split(",")]


@click.command(cls=EraCommand)
@click.argument("store_path", metavar="STORE", type=PathArgument)
@click.argument("collection")
@click.option("--out", type=PathArgument, required=True, help="Folder to write the adapter to.")
@click.option(
    "--labels",
    type=percent,
    metavar="PERCENT",
    default=f"{SPLIT.labels:.0%}",
    show_default=True,
    help="Share of the judged queries used for training.",
)
@click.option(
    "--curve",
    callback=_shares,
    metavar="PERCENT,…",
    help="Also fit at these shares of the labels, such as 5,10,40, for the report's curve.",
)
@click.option(
    "--candidate",
    type=click.Choice(NAMES),
    default="auto",
    show_default=True,
    help="Which candidate ships; auto lets validation choose.",
)
@click.option(
    "--recipe",
    type=click.Choice(["era", "paper"]),
    default="era",
    show_default=True,
    help="How candidates are fitted; paper is the published recipe, for comparison.",
)
@click.option(
    "--split",
    "split_rule",
    type=click.Choice(["paper", "source"]),
    default=SPLIT.rule,
    show_default=True,
    help="The paper's split of all judged queries, or the collection's own train, dev and test.",
)
@click.option(
    "--split-seed",
    type=seed_number,
    metavar="N",
    default=SPLIT.seed,
    show_default=True,
    help="Seed that shuffles queries before the split.",
)
@click.option(
    "--seed", type=seed_number, metavar="N", help="Seed of training.  [default: the recipe's]"
)
@click.option(
    "--align-documents",
    type=count,
    metavar="N",
    default=DEFAULTS.align_documents,
    show_default=True,
    help="Largest number of documents that the alignment uses.",
)
@click.option(
    "--query-encoder",
    help="Large side, where the store leaves a choice: name or start of a fingerprint.",
)
@click.option(
    "--doc-encoder",
    help="Small side, where the store leaves a choice: name or start of a fingerprint.",
)
@check_option
@device_option
@json_option
@version_option
def main(store_path: Path, collection: str, as_json: bool, **options: Any) -> None:
    """Fit an adapter for COLLECTION from the vectors in STORE.

    Aligns the two spaces without labels, trains the candidates with the labels of the training
    queries, and keeps the best on validation; if none beats today's small encoder, that is what
    ships. Test queries are not read.

    \b
    Example:
      era-fit stores/mine toy --labels 20 --out adapters/toy
    """
    from era_cache.splits import make_split
    from era_cache.store import Store
    from era_cache.workflow import fit_to_folder

    recipe: FitConfig | PaperConfig = PaperConfig() if options["recipe"] == "paper" else DEFAULTS
    recipe = replace(recipe, align_documents=options["align_documents"])
    if options["seed"] is not None:
        recipe = replace(recipe, seed=options["seed"])
    store = Store.open(store_path)
    split = SplitConfig(options["split_rule"], options["split_seed"], options["labels"])
    common = {
        "recipe": recipe,
        "candidate": options["candidate"],
        "query_encoder": options["query_encoder"],
        "doc_encoder": options["doc_encoder"],
        "device": options["device"],
        "check": options["check"],
    }
    out: Path = options["out"]
    versions = store.versions(collection)
    if len(versions) > 1:
        newest = store.collection(collection).version
        note(f"{len(versions)} versions of {collection} are stored; using the newest, {newest}.")
    for share in options["curve"]:  # an impossible share must not surface after the main fit
        make_split(store.collection(collection), replace(split, labels=share))
    report = fit_to_folder(
        store,
        collection,
        out,
        split_config=split,
        progress=lambda name: note(f"fitting {name} …"),
        **common,
    )
    for share in options["curve"]:
        if share == options["labels"]:
            continue
        note(f"fitting all candidates at {share:.0%} of the labels …")
        fit_to_folder(
            store,
            collection,
            out / "curve" / f"{share * 100:g}",
            split_config=replace(split, labels=share),
            **common,
        )
    if as_json:
        echo_json(_summary(report))
    else:
        _render(store_path, out, report)


def _summary(report: Any) -> dict[str, Any]:
    result = report.result
    return {
        "adapter": str(report.folder),
        "chosen": result.choice.name,
        "reason": result.choice.reason,
        "validation": {name: fit.mean for name, fit in result.candidates.items()},
        "options": {name: fit.options for name, fit in result.candidates.items()},
        "queries": {
            "train": len(report.split.train),
            "validation": len(report.split.validation),
            "test": len(report.split.test),
        },
        "alignment_documents": report.alignment_documents,
        "seconds": {**result.seconds, "total": report.seconds},
    }


def _render(store_path: Path, out: Path, report: Any) -> None:
    result, split = report.result, report.split
    click.echo(
        f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} "
        f"test queries; queries by {report.encoders.query.spec.name}, documents by "
        f"{report.encoders.document.spec.name}; aligned on {report.alignment_documents:,} "
        "documents."
    )
    for encoder in dict.fromkeys(report.encoders):
        if encoder.spec.template != "{text}":
            click.echo(f"Prompt of {encoder.spec.label()}: {encoder.spec.template!r}")
    rows = [
        [
            name,
            f"{fit.mean:.4f}",
            "chosen" if name == result.choice.name else "",
            ", ".join(f"{key} {value}" for key, value in fit.options.items()),
        ]
        for name, fit in result.candidates.items()
    ]
    echo_table(["candidate", "validation nDCG@10", "", "options"], rows)
    click.echo(f"Chosen: {result.choice.name} ({result.choice.reason}).")
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items())
    click.echo(f"Adapter written to {out} ({spent}, in all {report.seconds:.1f} s).")
    click.echo(f"Next: era-eval {quote(str(store_path))} {quote(str(out))}")
