"""The steps behind ``era-fit sweep`` and ``era-fit align``: many fits of one split, in one table.

In: an open store, collections, settings. Out: rows that say what each fit reached, kept as they are
finished, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.config import FitConfig, SplitConfig
from era_cache.errors import InputError
from era_cache.fitting.alignment.methods import ALIGNMENTS
from era_cache.fitting.alignment.quality import alignment_curve, compare_alignments
from era_cache.fitting.encoder_pair import Encoders, resolve_encoders
from era_cache.fitting.fit_from_store import Source, environment, load_sources
from era_cache.fitting.settings import checked, shown
from era_cache.fitting.sweep import FEWEST, Job, Outcome, sweep
from era_cache.report.row_log import Rows
from era_cache.store.store import Store

__all__ = ["about", "alignment_rows", "sweep_rows"]

Told = Callable[[str], None]


def _inputs(sources: Sequence[Source], encoders: Encoders, split: SplitConfig) -> dict[str, Any]:
    """What every row of a table depends on, but its own settings, seed and share of labels."""
    fixed = {"rule": split.rule, "test": split.test, "validation": split.validation}
    return {
        "collections": [source.collection.digest for source in sources],
        "encoders": [encoder.spec.fingerprint for encoder in encoders],
        **fixed,
    }


def about(
    store: Store, names: Sequence[str], split: SplitConfig, recipe: FitConfig, **reading: Any
) -> dict[str, Any]:
    """What a table of fits must say of itself to be made again (JSON).

    Args:
        store: where the vectors are.
        names: of the collections.
        split: rule and first seed.
        recipe: what its settings change.
        reading: ``query_encoder`` and ``doc_encoder``; the rest is not looked at.
    """
    collections = [store.collection(name) for name in names]
    sides = {"query": reading.get("query_encoder"), "document": reading.get("doc_encoder")}
    return {
        "collections": {one.name: one.digest for one in collections},
        "encoders": resolve_encoders(store, collections[0], **sides).record(),
        "split": dataclasses.asdict(split),
        "recipe": dataclasses.asdict(recipe),
        "environment": environment(),
    }


def sweep_rows(
    store: Store,
    names: Sequence[str],
    folder: Path,
    *,
    split: SplitConfig,
    labels: Sequence[float],
    split_seeds: int,
    candidates: Sequence[str],
    base: FitConfig,
    settings: Sequence[Mapping[str, Any]],
    halving: bool = True,
    tell: Told = lambda _text: None,
    **reading: Any,
) -> list[dict[str, Any]]:
    """Fit every combination of candidate, settings, share of labels and split seed.

    Args:
        store: where the vectors are.
        names: of the collections.
        folder: keeps the rows.
        split: rule and first seed.
        labels: shares of the judged queries to train with.
        split_seeds: how many shuffles of the split, counted up from ``split.seed``.
        candidates: of ``candidates.TRAINED``.
        base: the recipe that settings change.
        settings: changes of ``base``, from ``settings.grid``.
        halving: see ``sweep.sweep``.
        tell: told in words how it goes.
        reading: further arguments of ``load_sources``.

    Returns:
        Rows, those of the largest share of the labels first, each share's best first; fits that the
        short round dropped come last.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    recipes = [checked(dataclasses.replace(base, **dict(change))) for change in settings]
    most = max(recipe.align_documents for recipe in recipes)
    rows: list[dict[str, Any]] = []
    kept: Rows | None = None
    for seed in range(split.seed, split.seed + split_seeds):
        largest = dataclasses.replace(split, seed=seed, labels=max(labels))
        sources, encoders = load_sources(store, names, largest, align_documents=most, **reading)
        kept = kept or Rows(folder, _inputs(sources, encoders, split))
        jobs, descriptions = _jobs(sources, split, seed, labels, candidates, recipes)
        halves = halving and len(jobs) > FEWEST
        done = [kept.get(description) for description in descriptions]
        found = [row for row in done if row is not None and (halves or row["round"] == "full")]
        if len(found) == len(jobs):
            tell(f"split seed {seed}: all {len(jobs)} fits are there")
        else:
            tell(f"split seed {seed}: {len(jobs)} fits")
            outcomes = sweep([one.data for one in sources], jobs, halving=halving, tell=tell)
            found = [
                kept.add(description, _outcome(outcome))
                for description, outcome in zip(descriptions, outcomes, strict=True)
            ]
        changes = _changes(jobs, settings, recipes)
        rows += [_row(*row) for row in zip(descriptions, changes, found, strict=True)]
    # Shares have other judges, and more labels never hurt: each is ranked for itself.
    return sorted(rows, key=lambda r: (r["round"] != "full", -r["labels"], -r["held_out"]))


def _jobs(
    sources: Sequence[Source],
    split: SplitConfig,
    seed: int,
    labels: Sequence[float],
    candidates: Sequence[str],
    recipes: Sequence[FitConfig],
) -> tuple[list[Job], list[dict[str, Any]]]:
    """All jobs of one shuffle, and what makes each of them what it is."""
    from era_cache.collection.splits import make_split

    jobs, descriptions = [], []
    for share in labels:
        use = None
        if share != max(labels):
            if len(sources) > 1:
                raise InputError("Several shares of labels can be swept on one collection only.")
            wanted = dataclasses.replace(split, seed=seed, labels=share)
            mine = make_split(sources[0].collection, wanted).train
            use = np.flatnonzero(np.isin(sources[0].split.train, mine))
        for candidate in candidates:
            for recipe in recipes:
                jobs.append(Job(candidate, recipe, use))
                descriptions.append(
                    {
                        "candidate": candidate,
                        "recipe": dataclasses.asdict(recipe),
                        "labels": share,
                        "count": split.count,
                        "split_seed": seed,
                    }
                )
    return jobs, descriptions


def _changes(
    jobs: Sequence[Job], settings: Sequence[Mapping[str, Any]], recipes: Sequence[FitConfig]
) -> list[Mapping[str, Any]]:
    """The settings of each job, as they were asked for."""
    by_recipe = dict(zip(recipes, settings, strict=True))
    return [by_recipe[job.config] for job in jobs]


def _outcome(outcome: Outcome) -> dict[str, Any]:
    """What is kept of a fit; how its settings are shown is up to whoever asks."""
    chosen = ", ".join(f"{key} {value}" for key, value in outcome.fitted.options.items())
    return {
        "held_out": outcome.fitted.mean,
        "round": "full" if outcome.full else "short",
        "chosen": chosen if outcome.full else "",
    }


def _row(
    description: Mapping[str, Any], change: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "job": found["job"],
        "candidate": description["candidate"],
        **{name: shown(name, value) for name, value in change.items()},
        "labels": description["labels"],
        "split_seed": description["split_seed"],
        **{key: found[key] for key in ("held_out", "round", "chosen")},
    }


def alignment_rows(
    store: Store,
    names: Sequence[str],
    counts: Sequence[int],
    *,
    split: SplitConfig,
    recipe: FitConfig,
    **reading: Any,
) -> list[dict[str, Any]]:
    """Alignment quality of every method on all documents at hand, then of one by their number.

    Args:
        store: where the vectors are.
        names: of the collections, aligned together.
        counts: numbers of documents.
        split: keeps documents that are test queries out.
        recipe: its ``align`` is the method of the second part, its seed of what is held out.
        reading: further arguments of ``load_sources``.

    Returns:
        Rows of ``method``, ``documents`` and the measures of ``SelfRetrieval``.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    import torch

    sources, _ = load_sources(store, names, split, align_documents=max(counts) * 2, **reading)
    order = torch.from_numpy(
        np.random.default_rng(recipe.seed).permutation(
            sum(len(s.data.align_large) for s in sources)
        )
    )
    large = torch.cat([s.data.align_large for s in sources]).cpu()[order]
    small = torch.cat([s.data.align_small for s in sources]).cpu()[order]
    found = compare_alignments(large, small, tuple(ALIGNMENTS), recipe.seed)
    rows = [
        {"method": method, "documents": len(large) - quality.texts, **quality._asdict()}
        for method, quality in found.items()
    ]
    method = "procrustes" if recipe.align == "auto" else recipe.align
    for count, quality in alignment_curve(large, small, counts, method, recipe.seed):
        rows.append({"method": method, "documents": count, **quality._asdict()})
    return rows
