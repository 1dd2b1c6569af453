"""``era-fit``: fit adapters on stored vectors and choose one."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    EraForms,
    PathArgument,
    echo_json,
    echo_table,
    json_option,
    note,
    overwrite_option,
    percent,
    say,
    version_option,
)
from era_cache.cli.fit_align import align
from era_cache.cli.fit_import import import_weights
from era_cache.cli.fit_options import (
    LABELS_HELP,
    SPLIT,
    any_recipe,
    data_options,
    named_collections,
    named_runs,
    reading_of,
    recipe_option,
    shares,
    split_of,
    without_labels,
)
from era_cache.cli.fit_sweep import sweep
from era_cache.cli.progress import tell
from era_cache.cli.stores import opened_store
from era_cache.disk.files import check_writable
from era_cache.errors import InputError
from era_cache.fitting.candidates import DEFAULT, described
from era_cache.fitting.config import FitConfig, PaperConfig

if TYPE_CHECKING:
    from era_cache.fitting.first_stage import FirstStages
    from era_cache.fitting.fit_from_store import FitReport
    from era_cache.store.store import Store
    from era_cache.types import Where

__all__ = ["main"]


def _known_candidate(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    """Refuse what can be no candidate."""
    if name != "auto" and (not described(name) or name == "paper"):
        raise click.BadParameter(f"{name!r} is none of auto, {', '.join(DEFAULT)}.")
    return name


class FitForms(EraForms):
    """``era-fit STORE …``, and beside it its other forms."""

    forms: ClassVar[dict[str, click.Command]] = {
        "sweep": sweep,
        "align": align,
        "import-weights": import_weights,
    }


@click.command(
    cls=FitForms,
    epilog="`era-fit sweep` fits a grid of settings together, `era-fit align` compares alignments, "
    "`era-fit import-weights` takes over published weights; each has its own --help. A store that "
    "is named like them is given as ./sweep.",
)
@data_options
@click.option("--out", type=PathArgument, required=True, help="Folder to write the adapter to.")
@click.option(
    "--labels",
    type=percent,
    metavar="PERCENT",
    default=f"{SPLIT.labels:.0%}",
    help=LABELS_HELP,
)
@click.option(
    "--split-seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    default=SPLIT.seed,
    help="Seed that shuffles queries before the split.",
)
@click.option(
    "--curve",
    "curve_shares",
    callback=shares,
    metavar="PERCENT,…",
    help="Also fit at these shares of the labels, such as 5,10,40, for the report's curve. With "
    "several shuffles: era-eval each --split-seeds.",
)
@click.option(
    "--candidate",
    shell_complete=completion.candidates,
    metavar="NAME",
    callback=_known_candidate,
    default="auto",
    help=f"Which candidate ships: {', '.join(DEFAULT)}, or one joined with a first stage, such as "
    "bm25+era-dual; auto lets held-out labels choose.",
)
@click.option(
    "--run",
    "first_stage",
    metavar="NAME=FILE",
    multiple=True,
    help="A run of another system (as era-eval reads it) that candidates are joined with, instead "
    "of the store's bm25. Training queries must have results.",
)
@recipe_option
@click.option(
    "--align-documents",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest number of documents that the alignment uses, of each collection.  "
    f"[default: {FitConfig.align_documents}]",
)
@click.option(
    "--align-with",
    multiple=True,
    metavar="COLLECTION",
    help="A collection without labels that the adapter is for: its documents align and become "
    "references. Labels of the others count if they help collections that they are not of. May be "
    "repeated.",
)
@click.option(
    "--resume", is_flag=True, help="Take over what an interrupted run of this command finished."
)
@overwrite_option
@json_option
@version_option
def main(store_path: Where, collections: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Fit an adapter for one COLLECTION, or one for several, from the vectors in STORE.

    Aligns the two spaces without labels, trains the candidates with the labels of the training
    queries, and chooses one by held-out labels; if none beats today's small encoder, that is what
    ships. Without any label era-zero ships, unless the vectors show that something is wrong.
    Test queries are not read. Ctrl-C keeps the best so far.

    \b
    Example:
      era-fit stores/mine toy --labels 20 --out adapters/toy
    """
    recipe = _recipe(options)
    split = replace(split_of(options), seed=options["split_seed"], labels=options["labels"])
    # Where the new adapter is written before it moves.
    check_writable(Path(os.path.realpath(options["out"])).parent)
    from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder

    store = opened_store(store_path)
    names = named_collections(store, collections, options["only_domain"], options["holdout_domain"])
    source = click.get_current_context().get_parameter_source("labels")
    if source is click.core.ParameterSource.DEFAULT:
        split = without_labels(store, names, split)
    plan = FitPlan(split, recipe, options["candidate"], options["align_with"])
    out: Path = options["out"]
    reading = reading_of(options)._replace(
        first_stages=_first_stages(store, names, options["first_stage"])
    )

    def fitted(folder: Path, plan: FitPlan) -> FitReport:
        return fit_to_folder(
            store,
            names,
            folder,
            plan,
            reading,
            resume=options["resume"],
            overwrite=options["overwrite"],
            progress=lambda text: tell(f"fitting {text} …"),
        )

    report = fitted(out, plan)
    missing = report.result.missing
    for share in options["curve_shares"]:
        if share == split.labels or missing:
            continue
        tell(f"all candidates at {share:.0%} of the labels …")
        point = fitted(
            out / "curve" / f"{share * 100:g}", plan._replace(split=replace(split, labels=share))
        )
        missing = point.result.missing
    used, encoded = report.alignment_documents, report.encoded_documents
    if encoded > used >= recipe.align_documents:
        note(
            f"The large model encoded {encoded:,} documents, of which {used:,} are used; "
            "--align-documents N --set reference_documents=N takes more."
        )
    for text in report.notes:
        note(text)
    if missing:
        note(
            f"Interrupted: {', '.join(missing)} not fitted. The same command with --resume goes on."
        )
    if as_json:
        echo_json(_summary(report))
    else:
        _render(store_path, out, report)
    if missing:
        click.get_current_context().exit(1)  # for scripts: what was asked for is not all there


def _first_stages(store: Store, names: Sequence[str], given: tuple[str, ...]) -> FirstStages:
    """The lists of another system: a run of the user's, else what the store has.

    Raises:
        UsageError: several runs, or a run for several collections.
        InputError: it cannot be read, or belongs to something else.
    """
    from era_cache.fitting.first_stage import FirstStages

    if not given:
        return FirstStages()
    if len(given) > 1 or len(names) > 1:
        raise click.UsageError("--run: one run, of one collection.")
    from era_cache.evaluate.runs import lists_of_run, load_run
    from era_cache.fitting.arrays import LISTS_OF

    collection = store.collection(names[0])
    ((name, path),) = named_runs(given).items()
    if described(name) or not LISTS_OF.fullmatch(name):
        raise click.UsageError(
            f"--run {name}=…: expected a name of letters, digits, - and _ that is no candidate's."
        )
    if path.exists() and not path.is_file():
        raise InputError(f"--run {name}: {path} is no regular file. Save the run first.")
    return FirstStages(
        name, {collection.name: lists_of_run(path, load_run(path), collection, name)}
    )


def _recipe(options: dict[str, Any]) -> FitConfig | PaperConfig:
    recipe = any_recipe(options)
    if options["align_documents"] is not None:
        recipe = replace(recipe, align_documents=options["align_documents"])
    return recipe


def _summary(report: FitReport) -> dict[str, Any]:
    result = report.result
    return {
        "adapter": str(report.folder),
        "chosen": result.choice.name,
        "reason": result.choice.reason,
        "validation": {
            name: None if math.isnan(fit.mean) else fit.mean
            for name, fit in result.candidates.items()
        },
        "signs": [sign._asdict() for sign in result.signs],
        "options": {name: fit.options for name, fit in result.candidates.items()},
        "missing": list(result.missing),
        "queries": report.queries(),
        "collections": list(report.splits),
        "alignment_documents": report.alignment_documents,
        "alignment": None if report.alignment is None else report.alignment._asdict(),
        "seconds": {**result.seconds, "total": report.seconds},
    }


def _render(store_path: Where, out: Path, report: FitReport) -> None:
    result, queries = report.result, report.queries()
    labels = (
        f"{queries['train']} training, {queries['validation']} validation and {queries['test']} "
        "test queries"
    )
    if not queries["train"]:
        looked_at = sum(sign.queries for sign in result.signs)
        labels = f"No labels, {looked_at:,} queries looked at, {queries['test']} test queries"
    say(
        f"{labels}; queries by {report.encoders.query.spec.name}, documents by "
        f"{report.encoders.document.spec.name}; aligned on {report.alignment_documents:,} "
        "documents."
    )
    if report.alignment is not None:
        quality = report.alignment
        say(
            f"Alignment: of {quality.texts:,} documents held out, {quality.recall_at_1:.0%} find "
            f"themselves first and {quality.recall_at_10:.0%} among ten (mean cosine "
            f"{quality.mean_cosine:.2f})."
        )
    for encoder in dict.fromkeys(report.encoders):
        if encoder.spec.template != "{text}":
            about = f"{encoder.spec.name} ({encoder.spec.role.value})"
            say(f"Prompt of {about}: {encoder.spec.template!r}")
    rows = [
        [
            name,
            "-" if math.isnan(fit.mean) else f"{fit.mean:.4f}",
            "chosen" if name == result.choice.name else "",
            ", ".join(f"{key} {value}" for key, value in fit.options.items()),
        ]
        for name, fit in result.candidates.items()
    ]
    echo_table(["candidate", "held-out nDCG@10", "", "options"], rows)
    say(f"Chosen: {result.choice.name} ({result.choice.reason}).")
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items())
    say(f"Adapter written to {out} ({spent}, in all {report.seconds:.1f} s).")
    asked = report.elsewhere or (tuple(report.splits) if len(report.splits) > 1 else ())
    which = f" --collection {quote(asked[0])}" if asked else ""
    if queries["test"] and not report.elsewhere:
        say(f"Next: era-eval {quote(str(store_path))} {quote(str(out))}{which}")
    else:
        say(
            f"Next: era-search {quote(str(store_path))} {quote(str(out))}{which} shows what it "
            "changes; era-eval measures it once there are judgements."
        )
