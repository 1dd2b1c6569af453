"""Running again what a file of results says was run, and comparing the two.

In: a folder of results or an adapter folder, and the store. Out: the largest difference of each
candidate's values, and which versions and inputs differ.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.errors import FormatError, InputError, StoreError
from era_cache.evaluate.evaluate_adapter import Measuring, evaluate_folder
from era_cache.evaluate.protocols import Plan, run_protocol
from era_cache.evaluate.read_results import read_results
from era_cache.evaluate.recorded_options import (
    recorded_options,
)
from era_cache.evaluate.results import Fit, Results
from era_cache.fitting.adapter_config import AdapterConfig, Metrics
from era_cache.fitting.adapter_folder import load_adapter, load_config, load_metrics
from era_cache.fitting.check_against_store import fitted_names, searched_in
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.first_stage import FirstStages
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.settings import recorded_recipe
from era_cache.fitting.since_fit import recorded_split
from era_cache.fitting.sources import Reading, fit_environment
from era_cache.store.open_store import open_store
from era_cache.types import Where

__all__ = ["Again", "Difference", "reproduce"]


class Difference(NamedTuple):
    """One candidate of one fit, then and now: means of the primary measure, largest difference.

    ``largest`` is over queries and measures; over the adapter's output where an adapter was fitted
    again.
    """

    what: str
    candidate: str
    then: float
    now: float
    largest: float


class Again(NamedTuple):
    """What ``reproduce`` found.

    ``changed`` names versions and inputs that differ, ``choices`` fits that now ship another
    candidate.
    """

    differences: list[Difference]
    changed: list[str]
    choices: list[str]

    @property
    def largest(self) -> float:
        """Largest difference of all."""
        return max((one.largest for one in self.differences), default=0.0)


def reproduce(
    path: Path,
    *,
    store: Where | None = None,
    adapter: Path | None = None,
    tell: Callable[[str], None] = lambda _text: None,
) -> Again:
    """Run again what a folder, or a file in it, says was run.

    Args:
        path: a results folder, an adapter folder, or one of their JSON files.
        store: where it is now, if not where the results say.
        adapter: likewise, where an adapter was measured.
        tell: told in words how it goes.

    Raises:
        FormatError: not such a folder, or damaged.
        EraError: it cannot be run again; the message says why.
    """
    if not path.exists():
        raise StoreError(f"{path}: does not exist. Check the path.")
    folder = path if path.is_dir() else path.parent
    if (folder / "results.json").is_file():
        then = read_results(folder)
        if not then.fits:
            raise FormatError(f"{folder}: holds no fit yet, so that there is nothing to compare.")
        now = _measured_again(folder / "results.json", then, store, adapter, tell)
        return Again(list(_compared(then, now)), _changed(then, now), _choices(then, now))
    if (folder / "config.json").is_file():
        return _fitted_again(folder, store, tell)
    raise FormatError(
        f"{path}: neither results nor an adapter. Name a folder that era-eval or era-fit wrote, or "
        "the results.json or config.json in it."
    )


def _measured_again(
    file: Path,
    then: Results,
    store: Where | None,
    adapter: Path | None,
    tell: Callable[[str], None],
) -> Results:
    options = recorded_options(file, then, store, adapter)
    opened = open_store(options.store)
    if then.head.protocol == "adapter":
        return evaluate_folder(
            opened,
            options.adapter or Path(),
            Measuring(
                collections=[_version(n, one.digest) for n, one in then.head.collections.items()],
                others=options.others,
                runs=options.runs,
                measures=options.measures,
                device=options.device,
                index=options.index_kind,
            ),
        ).results
    fits = {_identity(fit) for fit in then.fits}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in sorted({fit.split_seed for fit in then.fits}):
            # A shuffle at a time: others may have been measured at other shares of the labels.
            plan = Plan(
                protocol=then.head.protocol,
                collections=options.collections,
                split=dataclasses.replace(options.split, seed=seed),
                labels=[fit.labels for fit in then.fits if fit.split_seed == seed],
                split_seeds=1,
                recipe=options.recipe,
                measures=options.measures,
                documents=options.documents,
            )
            again = run_protocol(
                opened,
                plan,
                Path(temporary) / "results",
                Reading(options.encoders["query"], options.encoders["document"], options.device),
                tell=tell,
                wanted=lambda *made: made in fits,
            )
        return again


def _version(name: str, digest: str) -> str:
    """A collection as the store finds it: in the version that it was."""
    return f"{name}-{digest[:12]}"


def _compared(then: Results, now: Results) -> Iterator[Difference]:
    if then.head.measures != now.head.measures:
        raise InputError(f"Measured {then.head.measures} then, and {now.head.measures} now.")
    primary = then.head.measures.index(then.head.primary)
    again = {_identity(fit): fit for fit in now.fits}
    for fit in then.fits:
        other = again.get(_identity(fit))
        what = f"{fit.trained_on}, {100 * fit.labels:g} %, split seed {fit.split_seed}"
        if other is None:
            raise InputError(f"{what}: not made again. Are these the same inputs?")
        theirs = {one.collection: one for one in other.measured}
        for one in fit.measured:
            new = theirs.get(one.collection)
            if new is None or set(new.candidates) != set(one.candidates):
                raise InputError(f"{what}: other candidates on {one.collection} than before.")
            if not np.array_equal(new.query_rows, one.query_rows):
                raise InputError(f"{what}: other test queries of {one.collection} than before.")
            for i, name in enumerate(one.candidates):
                old_values = one.values[i]
                new_values = new.values[new.candidates.index(name)].astype(np.float32)
                yield Difference(
                    what if len(fit.measured) == 1 else f"{what}, on {one.collection}",
                    name,
                    float(old_values[primary].mean()),
                    float(new_values[primary].mean()),
                    float(np.abs(old_values - new_values).max()),
                )


def _identity(fit: Fit) -> tuple[str, float, int]:
    """What tells fits of the same folder apart."""
    return fit.trained_on, fit.labels, fit.split_seed


def _choices(then: Results, now: Results) -> list[str]:
    again = {_identity(fit): fit for fit in now.fits}
    return [
        f"{fit.trained_on}, {100 * fit.labels:g} %, split seed {fit.split_seed}: {fit.chosen} "
        f"then, {again[_identity(fit)].chosen} now"
        for fit in then.fits
        if fit.chosen != again[_identity(fit)].chosen
    ]


def _changed(then: Results, now: Results) -> list[str]:
    found = _versions(then.head.environment, now.head.environment)
    old, new = then.head, now.head
    for name, entry in old.collections.items():
        if name not in new.collections or new.collections[name].digest != entry.digest:
            found.append(f"collection {name}")
    for side, encoder in old.encoders.items():
        if side not in new.encoders or new.encoders[side].fingerprint != encoder.fingerprint:
            found.append(f"{side.replace('_', ' ')} encoder")
    aligned = [head.configuration.get("aligned_on") for head in (old, new)]
    if aligned[0] != aligned[1]:
        found.append("number of alignment documents")
    if sorted(old.adapters.values()) != sorted(new.adapters.values()):
        found.append("adapter")
    return found


def _versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {then.get(name)} -> {now.get(name)}"
        for name in sorted(set(then) | set(now))
        if then.get(name) != now.get(name)
    ]


def _fitted_again(folder: Path, store: Where | None, tell: Callable[[str], None]) -> Again:
    """Fit an adapter folder again and compare what its candidates make of the same vectors."""
    if store is None:
        raise InputError(f"{folder}: an adapter does not say where its store is; give --store.")
    config, metrics = load_config(folder), load_metrics(folder)
    opened = open_store(store)
    fitted = config.fitted_on()
    names = [_version(one.collection.name, one.collection.digest) for one in fitted]
    fitted_names(folder, config)  # refuses what names none
    splits = [
        recorded_split(opened.collection(name), one)
        for name, one in zip(names, fitted, strict=True)
    ]
    _, encoders = searched_in(opened, folder, config, names[0])
    made, held_out = _made_with(folder, config, metrics)
    joined = next(iter(config.first_stage), "")
    if "run" in config.first_stage.get(joined, {}):
        raise InputError(
            f"{folder}: fitted with a run file of {joined}, which no record holds. Run that "
            "era-fit command again and compare."
        )
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary) / "adapter"
        report = fit_to_folder(
            opened,
            names,
            again,
            FitPlan(
                splits[0].config,
                made,
                align_with=[f"{one.name}-{one.digest[:12]}" for one in config.aligned_with],
            ),
            Reading(
                encoders.query.spec.fingerprint,
                encoders.document.spec.fingerprint,
                first_stages=FirstStages(joined),
            ),
            progress=lambda text: tell(f"fitting {text}"),
        )
        if report.result.missing:
            raise KeyboardInterrupt
        now = {name: fit.mean for name, fit in report.result.candidates.items()}
        if set(now) != set(held_out):
            raise InputError(
                f"{folder}: has the candidates {', '.join(held_out)}, but fitted again there are "
                f"{', '.join(now)}."
            )
        differences = [
            Difference("held-out labels", name, mean, now[name], _apart(folder, again, name))
            for name, mean in held_out.items()
        ]
        ships = report.result.choice.name
        choices = []
        asked = config.choice_reason.startswith("asked for")
        if not asked and ships != config.chosen:
            choices.append(f"{config.chosen} then, {ships} now")
    return Again(differences, _versions(config.environment, fit_environment()), choices)


def _made_with(
    folder: Path, config: AdapterConfig, metrics: Metrics
) -> tuple[FitConfig | PaperConfig, dict[str, float]]:
    """The recipe of an adapter, and the held-out mean of each candidate."""
    try:
        if config.recipe["name"] not in ("era", "paper"):
            raise ValueError(f"no recipe is called {config.recipe['name']!r}")
        made = recorded_recipe(config.recipe)
        held_out = {
            name: one.validation
            for name, one in metrics.candidates.items()
            if one.validation is not None
        }
        if not held_out or len(held_out) < len(metrics.candidates):
            raise ValueError("metrics.json has no held-out means")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{folder}: does not say how it was made: {error!r}.") from error
    return made, held_out


def _apart(one: Path, other: Path, name: str) -> float:
    """Largest difference of two adapters' outputs, on seeded random queries."""
    import torch

    first, second = load_adapter(one, name), load_adapter(other, name)
    if first.views != second.views or first.weight.shape != second.weight.shape:
        return float("inf")
    d_out, d_in = first.weight.shape
    widths = {"small": d_out, "large": d_in - d_out * ("small" in first.views)}
    generator = torch.Generator().manual_seed(0)
    queries = {view: torch.randn(64, widths[view], generator=generator) for view in first.views}
    return float((first.apply(queries) - second.apply(queries)).abs().max())
