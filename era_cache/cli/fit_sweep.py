"""``era-fit sweep``: many settings in one go."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    count,
    echo_json,
    echo_table,
    json_option,
    percent_text,
    say,
    version_option,
)
from era_cache.cli.fit_options import (
    SPLIT,
    data_options,
    named_collections,
    reading_of,
    recipe_of,
    seeds_option,
    shares,
    split_of,
)
from era_cache.cli.progress import tell
from era_cache.cli.stores import opened_store
from era_cache.disk.shown import as_percent
from era_cache.fitting.candidates import TRAINED

if TYPE_CHECKING:
    from era_cache.types import Where

__all__ = ["sweep"]

_SHOWN = 12
_FIXED = ("job", "candidate", "labels", "split_seed", "held_out", "round", "chosen")


@click.command(cls=EraCommand)
@data_options
@click.option(
    "--out", type=OutFolder(), required=True, help="Folder for the tables; goes on where it is."
)
@click.option(
    "--grid",
    metavar="NAME=VALUE,…",
    multiple=True,
    required=True,
    help="A setting and its values; repeated, all combinations are fitted.",
)
@click.option(
    "--random", "most", type=count, metavar="N", help="Fit only so many combinations, drawn."
)
@click.option(
    "--candidate",
    "candidates",
    type=click.Choice(TRAINED),
    multiple=True,
    default=("era-dual",),
    help="What is fitted; may be repeated.",
)
@click.option(
    "--labels",
    callback=shares,
    metavar="PERCENT,…",
    default=f"{SPLIT.labels:.0%}",
    help="Shares of the judged queries used for training.",
)
@seeds_option
@click.option(
    "--halving/--no-halving",
    default=True,
    help="Fit only the best fifth in full, after a short round of all.",
)
@json_option
@version_option
def sweep(store_path: Where, collections: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Fit many settings of the recipe together and rank them by held-out nDCG@10.

    Test queries are not read. Writes sweep.csv, sweep.json and sweep.html, and prints the command
    that fits the best row of the largest share of the labels in full. Interrupted, the same command
    goes on with the next split.

    \b
    Example:
      era-fit sweep stores/mine toy --grid temperature=0.03,0.05,0.1 \\
          --grid align=procrustes,mixture --labels 10,20 --out sweeps/toy
    """
    from era_cache.fitting.settings import grid

    split = split_of(options)
    from era_cache.fitting.sources import provenance
    from era_cache.fitting.sweep_from_store import SweepPlan, sweep_rows
    from era_cache.report.row_tables import write_tables

    settings = _drawn(grid(options["grid"]), options["most"], options["seed"] or 0)
    store = opened_store(store_path)
    names = named_collections(store, collections, options["only_domain"], options["holdout_domain"])
    recipe = recipe_of(options["settings"], options["seed"])
    plan = SweepPlan(
        split=split,
        labels=options["labels"],
        split_seeds=options["split_seeds"],
        candidates=options["candidates"],
        base=recipe,
        settings=settings,
        halving=options["halving"],
    )
    reading = reading_of(options)
    rows = sweep_rows(store, names, options["out"], plan, reading, lambda text: tell(f"{text} …"))
    command = _command(store_path, names, rows[0], options)
    lead = [
        f"{len(rows):,} fits; the best reaches {rows[0]['held_out']:.4f} held-out nDCG@10.",
        f"To fit it in full: {command}",
    ]
    made_of = provenance(store, names, split, recipe, reading)
    rows = [_for_people(row) for row in rows]
    write_tables(options["out"], "sweep", rows, "Sweep", lead, made_of)
    if as_json:
        echo_json({"rows": rows, "command": command})
        return
    columns = [key for key in rows[0] if key != "job"]
    shown = [[_text(column, row[column]) for column in columns] for row in rows[:_SHOWN]]
    echo_table(columns, shown)
    if len(rows) > _SHOWN:
        say(f"… and {len(rows) - _SHOWN:,} more in {options['out'] / 'sweep.html'}")
    say(f"To fit the best in full: {command}")


def _drawn(settings: list[dict[str, Any]], most: int | None, seed: int) -> list[dict[str, Any]]:
    """So many combinations, drawn without replacement, in the order of the grid."""
    import random

    if most is None or most >= len(settings):
        return settings
    chosen = sorted(random.Random(seed).sample(range(len(settings)), most))  # noqa: S311
    return [settings[number] for number in chosen]


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    """The same row with shares in percent."""
    return {
        ("labels_percent" if key == "labels" else key): as_percent(value)
        if key == "labels"
        else value
        for key, value in row.items()
    }


def _text(column: str, value: Any) -> str:
    if column == "held_out":
        return f"{value:.4f}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _command(store: Where, names: list[str], row: dict[str, Any], options: dict[str, Any]) -> str:
    """The command that fits a row in full."""
    given = str(store)
    if given in ("sweep", "align") or given.startswith("-"):
        given = f"./{given}"  # or it would be read as another form of the command, or an option
    words = ["era-fit", quote(given), *map(quote, names)]
    words += ["--candidate", row["candidate"], "--labels", percent_text(row["labels"])]
    words += ["--split-seed", str(row["split_seed"]), "--split", options["split_rule"]]
    changes = [f"{name}={value}" for name, value in row.items() if name not in _FIXED]
    for setting in [*options["settings"], *changes]:
        words += ["--set", quote(setting)]
    for name in ("seed", "label_count", "query_encoder", "doc_encoder", "device"):
        if options[name] is not None:
            words += [f"--{name.replace('_', '-')}", quote(str(options[name]))]
    return " ".join([*words, "--out", "adapters/best"])
