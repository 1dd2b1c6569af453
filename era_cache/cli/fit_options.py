"""Options that all forms of era-fit share: what is fitted on, with which split, by which recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    StorePlace,
    all_of,
    check_option,
    count,
    device_option,
    note,
    percent,
    seed_number,
)
from era_cache.cli.progress import quiet_option
from era_cache.collection.config import SplitConfig
from era_cache.errors import InputError
from era_cache.fitting.config import FitConfig, PaperConfig

if TYPE_CHECKING:
    from era_cache.fitting.sources import Reading
    from era_cache.store.store import Store

__all__ = [
    "LABELS_HELP",
    "SPLIT",
    "any_recipe",
    "data_options",
    "named_collections",
    "named_runs",
    "reading_of",
    "recipe_of",
    "recipe_option",
    "seeds_option",
    "shares",
    "split_of",
    "without_labels",
]

SPLIT = SplitConfig()
LABELS_HELP = "Share of the judged queries used for training, in percent; 0 for no labels at all."

seeds_option = click.option(
    "--split-seeds",
    type=count,
    metavar="N",
    default=1,
    help=f"Shuffles of the split, from seed {SPLIT.seed} upwards.",
)


def shares(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[float]:
    """Read percentages with commas between them."""
    return [] if value is None else [percent(part.strip()) for part in value.split(",")]


data_options = all_of(
    click.argument("store_path", metavar="STORE", type=StorePlace()),
    click.argument(
        "collections",
        metavar="COLLECTION…",
        nargs=-1,
        shell_complete=completion.collections,
    ),
    click.option(
        "--only-domain",
        metavar="DOMAIN",
        help="Fit on the collections of this domain: of those named, or of the whole store.",
    ),
    click.option(
        "--holdout-domain",
        metavar="DOMAIN",
        help="Fit on all collections but those of this domain, likewise.",
    ),
    click.option(
        "--split",
        "split_rule",
        type=click.Choice(["paper", "paper-exact", "source"]),
        default=SPLIT.rule,
        help="The paper's split of all judged queries (paper-exact: as its code draws it, equal "
        "texts parted), or the collection's own train, dev and test.",
    ),
    click.option(
        "--label-count",
        type=count,
        metavar="N",
        help="Training queries at most, whatever the share allows.",
    ),
    click.option(
        "--set",
        "settings",
        shell_complete=completion.settings,
        metavar="NAME=VALUE",
        multiple=True,
        help="A setting of the recipe (docs/fitting.md lists them); may be repeated.",
    ),
    click.option(
        "--seed",
        type=seed_number,
        metavar="N",
        help="Seed of the fit.  [default: the recipe's]",
    ),
    click.option(
        "--query-encoder",
        shell_complete=completion.encoders,
        help="Large side, where the store leaves a choice: name or start of a fingerprint.",
    ),
    click.option(
        "--doc-encoder",
        shell_complete=completion.encoders,
        help="Small side, where the store leaves a choice: name or start of a fingerprint.",
    ),
    check_option,
    device_option,
    quiet_option,
)
"""The store, its collections and encoders, the split, and settings of the recipe."""


recipe_option = click.option(
    "--recipe",
    type=click.Choice(["era", "paper"]),
    default="era",
    help="How candidates are fitted; paper is the published recipe, for comparison (--set "
    "mode=both, alignment_only or label_only).",
)


def any_recipe(options: Mapping[str, Any]) -> FitConfig | PaperConfig:
    """The recipe that ``recipe_option`` names, with the user's settings.

    Raises:
        InputError: a setting is unknown or impossible.
    """
    if options["recipe"] != "paper":
        return recipe_of(options["settings"], options["seed"])
    from dataclasses import replace

    from era_cache.fitting.settings import with_settings

    seed = options["seed"]
    published = PaperConfig() if seed is None else replace(PaperConfig(), seed=seed)
    return with_settings(published, options["settings"])


def recipe_of(settings: Sequence[str], seed: int | None) -> FitConfig:
    """The default recipe with the user's settings.

    Raises:
        InputError: a setting is unknown or impossible.
    """
    from dataclasses import replace

    from era_cache.fitting.settings import with_settings

    recipe = FitConfig() if seed is None else replace(FitConfig(), seed=seed)
    return with_settings(recipe, settings)


def split_of(options: Mapping[str, Any]) -> SplitConfig:
    """The split that the options ask for, with the default seed and share of labels.

    Raises:
        InputError: one of the shares that they name is impossible, which must not surface after
            hours of fitting with the others.
    """
    split = SplitConfig(rule=options["split_rule"], count=options["label_count"] or 0)
    labels = options.get("labels", [])
    given = labels if isinstance(labels, list | tuple) else [labels]
    for share in [*given, *options.get("curve_shares", [])]:
        replace(split, labels=share).checked()
    return split


def without_labels(store: Store, names: Sequence[str], split: SplitConfig) -> SplitConfig:
    """The split at no labels, if none of the collections has any; else as it is."""
    if any(store.is_judged(store.newest(name)) for name in names):
        return split
    which = names[0] if len(names) == 1 else "these collections"
    note(f"No query of {which} has a positive judgement: fitting without labels.")
    return replace(split, labels=0.0)


def reading_of(options: Mapping[str, Any]) -> Reading:
    """The options that say which vectors are read, and how."""
    from era_cache.fitting.sources import Reading
    from era_cache.fitting.threads import use_free_threads

    use_free_threads()
    given = {name: options[name] for name in Reading._fields if name in options}
    return Reading(**given)


def named_runs(texts: tuple[str, ...]) -> dict[str, Path]:
    """Read ``NAME=FILE``, each name once."""
    from era_cache.disk.files import safe_name

    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise click.UsageError(f"--run {text}: expected NAME=FILE, as in bm25=bm25.trec.")
        if safe_name(name) in found:
            raise click.UsageError(f"--run {name}: given twice.")
        found[name] = Path(path)
    return found


def named_collections(
    store: Store,
    named: Sequence[str],
    only: str | None,
    holdout: str | None,
    *,
    everything: bool = False,
) -> list[str]:
    """The collections to fit on: those named, or all, less those that the domains leave out.

    Of all, those without judgements are left out, and told.

    Args:
        store: where they are.
        named: by the user.
        only: the domain that they are to have.
        holdout: the domain that they are not to have.
        everything: whether all are meant where neither a name nor a domain is given.

    Raises:
        InputError: nothing is named, or nothing is left.
    """
    if not named and only is None and holdout is None and not everything:
        raise InputError("Name a collection of the store, or a domain with --only-domain.")
    names = list(named) or store.collection_names()
    found = []
    for name in names:
        newest = store.newest(name)
        if not named and not store.is_judged(newest):
            note(f"{name}: no query has a positive judgement; left out. Name it to fit on it.")
            continue
        versions = store.versions(name)
        if len(versions) > 1:
            doubt = store.conflict(name)
            note(
                f"{len(versions)} versions of {name} are stored; using the newest, "
                f"{newest.stem.rpartition('-')[2]}{f': {doubt}' if doubt else ''}."
            )
        domain = None if only is None and not holdout else store.collection(name).domain
        if domain is None or (only in (None, domain) and (holdout or None) != domain):
            found.append(name)
    if not found:
        raise InputError(
            f"No collection is left of {', '.join(names) or 'an empty store'}: --only-domain and "
            "--holdout-domain compare with the domain in each collection's meta.json."
        )
    return found
