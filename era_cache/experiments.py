"""The steps behind ``era-fit sweep`` and ``era-fit curve``: many fits of one split, in one table.

In: an open store, collections, settings. Out: rows that say what each fit reached, kept as they are
finished, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.align import ALIGNMENTS
from era_cache.align_quality import alignment_curve, compare_alignments
from era_cache.choose import fit_candidates
from era_cache.config import FitConfig, SplitConfig
from era_cache.errors import InputError
from era_cache.evaluate import score_adapters
from era_cache.fitting import Source, load_sources
from era_cache.judging import PRIMARY
from era_cache.measures import mean
from era_cache.pairs import Encoders, load_held_out, resolve_encoders
from era_cache.settings import checked, shown
from era_cache.store import Store
from era_cache.sweep import FEWEST, Job, Outcome, sweep
from era_cache.tables import Rows

__all__ = ["alignment_rows", "curve_rows", "curve_summary", "sweep_rows"]

Told = Callable[[str], None]


def _inputs(sources: Sequence[Source], encoders: Encoders, split: SplitConfig) -> dict[str, Any]:
    """What every row of a table depends on, but its own settings, seed and share of labels."""
    fixed = {"rule": split.rule, "test": split.test, "validation": split.validation}
    return {
        "collections": [source.collection.digest for source in sources],
        "encoders": [encoder.spec.fingerprint for encoder in encoders],
        **fixed,
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
        candidates: of ``sweep.SWEPT``.
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
    from era_cache.splits import make_split

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
        Rows of ``method``, ``documents`` and the measures of ``align_quality.SelfRetrieval``.

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


def curve_rows(
    store: Store,
    names: Sequence[str],
    folder: Path,
    *,
    split: SplitConfig,
    labels: Sequence[float],
    split_seeds: int,
    recipe: FitConfig,
    tell: Told = lambda _text: None,
    **reading: Any,
) -> list[dict[str, Any]]:
    """Fit all candidates at each share of labels and split seed, and measure them on test queries.

    Args:
        store: where the vectors are.
        names: of the collections; each is fitted for itself.
        folder: keeps the rows.
        split: rule and first seed.
        labels: shares of the judged queries to train with.
        split_seeds: how many shuffles of the split, counted up from ``split.seed``.
        recipe: the default recipe.
        tell: told in words how it goes.
        reading: further arguments of ``load_sources``.

    Returns:
        A row for each collection, share, seed and candidate; ``shipped`` is what ``choose`` chose.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    rows: list[dict[str, Any]] = []
    sides = {"query": reading.get("query_encoder"), "document": reading.get("doc_encoder")}
    pairs = {name: resolve_encoders(store, store.collection(name), **sides) for name in names}
    kept = Rows(folder, {"encoders": pairs[names[0]].record()})
    for seed in range(split.seed, split.seed + split_seeds):
        for name in names:
            for share in labels:
                wanted = dataclasses.replace(split, seed=seed, labels=share)
                job = {
                    "collection": store.collection(name).digest,
                    "encoders": [encoder.spec.fingerprint for encoder in pairs[name]],
                    "recipe": dataclasses.asdict(recipe),
                    "split": dataclasses.asdict(wanted),
                }
                found = kept.get(job)
                if found is None:
                    tell(f"{name}, split seed {seed}, {share:.0%} of the labels")
                    (source,), encoders = load_sources(
                        store, [name], wanted, align_documents=recipe.align_documents, **reading
                    )
                    found = kept.add(job, _measured(source, encoders, recipe, name))
                rows += [
                    {"collection": name, "labels": share, "split_seed": seed, **entry}
                    for entry in found["candidates"]
                ]
    return rows


def _measured(source: Source, encoders: Encoders, recipe: FitConfig, name: str) -> dict[str, Any]:
    """Held-out and test means of every candidate of one fit."""
    result = fit_candidates(source.data, recipe)
    if result.missing:
        raise KeyboardInterrupt
    held_out = load_held_out(
        source.collection,
        source.split,
        encoders,
        device=str(source.data.corpus.device),
        check=False,
    )
    adapters = {candidate: fit.adapter for candidate, fit in result.candidates.items()}
    scored = score_adapters(held_out, adapters, [PRIMARY])
    means = {candidate: mean(one.values[PRIMARY]) for candidate, one in scored.items()}
    entries = [
        {
            "candidate": name_shown,
            "train": len(source.split.train),
            "held_out": result.candidates[candidate].mean,
            "test": means[candidate],
        }
        for name_shown, candidate in [
            *zip(means, means, strict=True),
            ("shipped", result.choice.name),
        ]
    ]
    return {"collection": name, "candidates": entries}


def curve_summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over split seeds of the mean over collections.

    Returns:
        A row for each share and candidate: ``labels``, ``candidate``, ``test``, ``sd``, ``seeds``.
    """
    by_seed: dict[tuple[float, str], dict[int, list[float]]] = {}
    for row in rows:
        seeds = by_seed.setdefault((row["labels"], row["candidate"]), {})
        seeds.setdefault(row["split_seed"], []).append(row["test"])
    summary = []
    for (labels, candidate), seeds in by_seed.items():
        means = [float(np.mean(values)) for values in seeds.values()]
        spread = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
        summary.append(
            {
                "labels": labels,
                "candidate": candidate,
                "test": float(np.mean(means)),
                "sd": spread,
                "seeds": len(means),
            }
        )
    return summary
