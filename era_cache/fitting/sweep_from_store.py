"""The step behind ``era-fit sweep``: many fits of one split, in one table.

In: an open store, collections, settings. Out: rows that say what each fit reached, kept as they are
finished, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import make_split
from era_cache.errors import InputError
from era_cache.fitting.config import FitConfig
from era_cache.fitting.encoder_pair import Encoders
from era_cache.fitting.finished_rows import FinishedRows
from era_cache.fitting.settings import checked, shown
from era_cache.fitting.sources import Reading, Source, load_sources
from era_cache.fitting.sweep import FEWEST, Job, Outcome, sweep
from era_cache.store.store import Store

__all__ = ["SweepPlan", "sweep_rows"]


def _inputs(sources: Sequence[Source], encoders: Encoders, split: SplitConfig) -> dict[str, Any]:
    """What every row of a table depends on, but its own settings, seed and share of labels."""
    fixed = {"rule": split.rule, "test": split.test, "validation": split.validation}
    return {
        "collections": [source.collection.digest for source in sources],
        "encoders": [encoder.spec.fingerprint for encoder in encoders],
        **fixed,
    }


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep fits: every combination of candidate, settings, share of labels and seed."""

    split: SplitConfig
    """Rule and first seed."""
    labels: Sequence[float]
    """Shares of the judged queries to train with."""
    split_seeds: int
    """How many shuffles of the split, counted up from ``split.seed``."""
    candidates: Sequence[str]
    """Of ``candidates.TRAINED``."""
    base: FitConfig
    """The recipe that settings change."""
    settings: Sequence[Mapping[str, Any]]
    """Changes of ``base``, from ``settings.grid``."""
    halving: bool = True
    """See ``sweep.sweep``."""


def sweep_rows(
    store: Store,
    names: Sequence[str],
    folder: Path,
    plan: SweepPlan,
    reading: Reading,
    tell: Callable[[str], None] = lambda _text: None,
) -> list[dict[str, Any]]:
    """Fit all that a plan combines.

    Args:
        store: where the vectors are.
        names: of the collections.
        folder: keeps the rows.
        plan: what to fit.
        reading: which vectors, and how.
        tell: told in words how it goes.

    Returns:
        Rows, those of the largest share of the labels first, each share's best first; fits that the
        short round dropped come last.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    changes = {checked(replace(plan.base, **dict(change))): change for change in plan.settings}
    most = max(recipe.align_documents for recipe in changes)
    rows: list[dict[str, Any]] = []
    kept: FinishedRows | None = None
    for seed in range(plan.split.seed, plan.split.seed + plan.split_seeds):
        largest = replace(plan.split, seed=seed, labels=max(plan.labels))
        sources, encoders = load_sources(store, names, largest, reading, align_documents=most)
        kept = kept or FinishedRows(folder, _inputs(sources, encoders, plan.split))
        jobs = _jobs(sources, plan, seed, list(changes))
        halves = plan.halving and len(jobs) > FEWEST
        done = [kept.get(described) for described, _ in jobs]
        found = [row for row in done if row is not None and (halves or row["round"] == "full")]
        if len(found) == len(jobs):
            tell(f"split seed {seed}: all {len(jobs)} fits are there")
        else:
            tell(f"split seed {seed}: {len(jobs)} fits")
            data = [one.data for one in sources]
            outcomes = sweep(data, [job for _, job in jobs], halving=plan.halving, tell=tell)
            found = [
                kept.add(described, _outcome(outcome))
                for (described, _), outcome in zip(jobs, outcomes, strict=True)
            ]
        for (described, job), row in zip(jobs, found, strict=True):
            rows.append(_row(described, changes[job.config], row))
    # Shares have other judges, and more labels never hurt: each is ranked for itself.
    return sorted(rows, key=lambda r: (r["round"] != "full", -r["labels"], -r["held_out"]))


def _jobs(
    sources: Sequence[Source], plan: SweepPlan, seed: int, recipes: Sequence[FitConfig]
) -> list[tuple[dict[str, Any], Job]]:
    """All jobs of one shuffle, each after what makes it what it is."""
    jobs = []
    for share in plan.labels:
        use = None
        if share != max(plan.labels):
            if len(sources) > 1:
                raise InputError("Several shares of labels can be swept on one collection only.")
            wanted = replace(plan.split, seed=seed, labels=share)
            mine = make_split(sources[0].collection, wanted).train
            use = np.flatnonzero(np.isin(sources[0].split.train, mine))
        for candidate in plan.candidates:
            for recipe in recipes:
                described = {
                    "candidate": candidate,
                    "recipe": asdict(recipe),
                    "labels": share,
                    "count": plan.split.count,
                    "split_seed": seed,
                }
                jobs.append((described, Job(candidate, recipe, use)))
    return jobs


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
