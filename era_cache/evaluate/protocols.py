"""Protocols: which collections train an adapter, and which it is measured on.

In: an open store, collections with domains. Out: a results folder, which goes on where it stopped.

    each                  one adapter for each collection
    general               one adapter for all collections
    leave-one-domain-out  for each domain, an adapter of all other domains, measured on it
    domain-specific       for each domain, an adapter of its collections, measured on all

The last three are those of the paper (arXiv 2604.03403). Leaving a domain out leaves out its
queries and labels; its documents need no label and still align the spaces, as for a team that has
an index and no judgements (not with ``documents=False``). What ships there is chosen by collections
that the model never saw (``fitting.elsewhere``). Whatever the protocol, training queries that are
test queries of any collection are left out.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from era_cache.collection.config import SplitConfig
from era_cache.errors import InputError
from era_cache.evaluate.evaluate_adapter import measured_values
from era_cache.evaluate.recorded import collection_entry, rows_read
from era_cache.evaluate.results import Extra, Fit, Head, MadeBy, Results, job_name
from era_cache.evaluate.results_folder import ResultsFolder
from era_cache.evaluate.score import (
    Scored,
    depth_of,
    score_adapters,
    score_first_stage,
    score_histogram,
    score_large,
)
from era_cache.fitting.adapter_config import NamedEncoder
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.encoder_pair import Encoders
from era_cache.fitting.first_stage import FirstStages
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import fit_candidates, fit_paper
from era_cache.fitting.settings import recipe_record
from era_cache.fitting.sources import Reading, Source, environment, load_sources
from era_cache.fitting.tensors import HeldOut, load_held_out
from era_cache.rank.measures import Measure
from era_cache.store.store import Store

__all__ = ["PROTOCOLS", "Plan", "run_protocol"]

PROTOCOLS = {
    "each": "one adapter for each collection",
    "general": "one adapter for all collections",
    "leave-one-domain-out": "for each domain, an adapter of all other domains",
    "domain-specific": "for each domain, an adapter of its collections, measured on all",
}

Told = Callable[[str], None]
Wanted = Callable[[str, float, int], bool]


@dataclass(frozen=True)
class Plan:
    """What a protocol fits and measures."""

    protocol: str
    """Of ``PROTOCOLS``."""
    collections: Sequence[str]
    split: SplitConfig
    """Rule and first seed."""
    labels: Sequence[float]
    """Shares of the judged queries to train with."""
    split_seeds: int
    """How many shuffles of the split, counted up from ``split.seed``."""
    recipe: FitConfig | PaperConfig
    measures: Sequence[Measure]
    """The primary measure is always among them."""
    documents: bool = True
    """Whether documents of the domain that is left out take part in the alignment and as
    references; none of its queries or labels does."""

    def parts(self) -> list[SplitConfig]:
        """Every split that is fitted on: each shuffle at each share of the labels.

        Raises:
            InputError: there is none.
        """
        parts = [
            dataclasses.replace(self.split, seed=seed, labels=share)
            for seed in range(self.split.seed, self.split.seed + self.split_seeds)
            for share in sorted(set(self.labels))
        ]
        if not parts:
            raise InputError("No share of the labels, or no shuffle: there is nothing to fit.")
        return parts


class Task(NamedTuple):
    """One adapter of a protocol: what it is called, and collections by name."""

    trained_on: str
    train: tuple[str, ...]
    measure: tuple[str, ...]


def tasks_of(protocol: str, domains: Mapping[str, str]) -> list[Task]:
    """The adapters of a protocol.

    Args:
        protocol: of ``PROTOCOLS``.
        domains: domain of each collection.

    Raises:
        InputError: there is no such protocol, or it needs several domains.
    """
    names = tuple(domains)
    by_domain: dict[str, tuple[str, ...]] = {}
    for name, domain in domains.items():
        by_domain[domain] = (*by_domain.get(domain, ()), name)
    if protocol == "each":
        return [Task(name, (name,), (name,)) for name in names]
    if protocol == "general":
        return [Task("all collections", names, names)]
    if protocol not in PROTOCOLS:
        raise InputError(f"Protocol {protocol!r} is unknown; known are {', '.join(PROTOCOLS)}.")
    if len(by_domain) < 2:
        raise InputError(
            f"{protocol} needs collections of at least two domains, but {', '.join(names)} are of "
            f"{next(iter(by_domain), '')!r} only. A collection's meta.json says its domain when it "
            "is embedded."
        )
    if protocol == "domain-specific":
        return [Task(domain, mine, names) for domain, mine in by_domain.items()]
    return [
        Task(f"all but {domain}", tuple(n for n in names if n not in mine), mine)
        for domain, mine in by_domain.items()
    ]


def run_protocol(
    store: Store,
    plan: Plan,
    folder: Path,
    reading: Reading,
    *,
    made_by: MadeBy | None = None,
    tell: Told = lambda _text: None,
    wanted: Wanted = lambda _trained_on, _labels, _split_seed: True,
) -> Results:
    """Fit and measure every adapter of a protocol, at each share of the labels and each shuffle.

    Shares and shuffles that the folder has beside those asked for stay, and are returned, too.

    Args:
        store: where the vectors are.
        plan: what to fit and to measure.
        folder: keeps the results; fits that it has already are not made again.
        reading: which vectors, and how.
        made_by: the command, kept with the results.
        tell: told in words how it goes.
        wanted: whether to make a fit, by what it is trained on, share of the labels and split seed.

    Raises:
        EraError: whatever is wrong, with what to do.
        KeyboardInterrupt: what was finished is kept.
    """
    parts = plan.parts()
    run = _Run(store, plan, reading)
    tasks = tasks_of(plan.protocol, {c.name: c.domain for c in run.collections})
    jobs = [
        (part, task)
        for part in parts
        for task in tasks
        if wanted(task.trained_on, part.labels, part.seed)
    ]
    planned = [job_name(run.describe(part, task)) for part, task in jobs]
    head = run.head(made_by or MadeBy(), planned)
    kept = ResultsFolder(folder, head, {c.name: c.query_ids for c in run.collections})
    for number, (part, task) in enumerate(jobs, 1):
        job = run.describe(part, task)
        if kept.get(job) is None:
            tell(
                f"{number} of {len(jobs)}: {task.trained_on}, {100 * part.labels:g} % of the "
                f"labels, split seed {part.seed}"
            )
            kept.add(run.fit(job, part, task))
    return kept.results()


class _Run:
    """What the fits of a protocol share; vectors of one split at a time."""

    def __init__(self, store: Store, plan: Plan, reading: Reading) -> None:
        # Of candidates that are compared over collections, each must be there on all of them.
        made = reading.first_stages.complete(store, [store.collection(n) for n in plan.collections])
        if not made:
            reading = reading._replace(first_stages=FirstStages(name=""))
        self._store, self._plan, self._reading, self._first_stage = store, plan, reading, made
        self._elsewhere = plan.protocol == "leave-one-domain-out"
        self._documents = plan.documents and self._elsewhere
        self._measures = list(dict.fromkeys([PRIMARY, *plan.measures]))
        self._split = split = plan.parts()[0]
        self._sources: dict[str, Source] = {}
        self._held_out: dict[str, tuple[HeldOut, Scored | None]] = {}
        self._encoders = self._load(split)
        self._reading = reading._replace(check=False)  # every segment was looked at just now
        self.collections = [source.collection for source in self._sources.values()]

    def _load(self, split: SplitConfig) -> Encoders:
        sources, encoders = load_sources(
            self._store,
            self._plan.collections,
            split,
            self._reading,
            align_documents=self._plan.recipe.align_documents,
        )
        if split.seed != self._split.seed:
            self._held_out = {}  # test queries are those of the shuffle, whatever the labels
        self._split = split
        self._sources = {source.collection.name: source for source in sources}
        return encoders

    def head(self, made_by: MadeBy, planned: Sequence[str]) -> Head:
        """What all fits share."""
        protocol, names = self._plan.protocol, list(self._sources)
        what = names[0] if len(names) == 1 else f"{len(names)} collections"
        aligned = sum(len(s.data.align_large) for s in self._sources.values())
        return Head(
            protocol=protocol,
            title=f"{protocol.replace('-', ' ').capitalize()}: {what}",
            measures=tuple(str(measure) for measure in self._measures),
            primary=str(PRIMARY),
            collections={c.name: collection_entry(c) for c in self.collections},
            encoders=msgspec.convert(self._encoders.record(), dict[str, NamedEncoder]),
            configuration={**self._options(), **made_by.configuration},
            costs=rows_read(self.collections, self._encoders, aligned),
            commands=tuple(made_by.commands),
            notes=(f"Protocol {protocol}: {PROTOCOLS[protocol]}.",),
            environment=environment(),
            extra=Extra(planned=tuple(planned)),
        )

    def _options(self) -> dict[str, Any]:
        """The options that all fits share."""
        return {
            "split": self._split.rule,
            "test": self._split.test,
            "validation": self._split.validation,
            "label_count": self._split.count,
            "documents": self._documents,
            "aligned_on": {n: len(s.data.align_large) for n, s in sorted(self._sources.items())},
            "recipe": recipe_record(self._plan.recipe),
        }

    def describe(self, split: SplitConfig, task: Task) -> dict[str, Any]:
        """What makes a fit what it is; collections and encoders are the folder's.

        The order in which collections were named is no part of it.
        """
        apart = self._elsewhere and not isinstance(self._plan.recipe, PaperConfig)
        return {
            "train": sorted(task.train),
            "align": sorted(self._aligning(task)),
            "measure": sorted(task.measure),
            "split": dataclasses.asdict(split),
            "recipe": recipe_record(self._plan.recipe),
            **({"judged_by": "collections"} if apart else {}),
            **({"first_stage": self._first_stage} if self._first_stage else {}),
        }

    def _aligning(self, task: Task) -> list[str]:
        """Collections that take part with their documents only."""
        if not self._documents or isinstance(self._plan.recipe, PaperConfig):
            return []
        return [n for n in task.measure if n not in task.train]

    def fit(self, job: Mapping[str, Any], split: SplitConfig, task: Task) -> Fit:
        """Fit the candidates of one task and measure them."""
        if split != self._split:
            self._load(split)
        sources = [self._sources[name] for name in task.train]
        unseen = [self._sources[name].data for name in self._aligning(task)]
        seen, recipe = [source.data for source in sources], self._plan.recipe
        if isinstance(recipe, PaperConfig):
            result = fit_paper(seen, recipe)
        else:
            elsewhere = [one.documents for one in unseen] if self._elsewhere else None
            result = fit_candidates(seen, recipe, elsewhere=elsewhere)
        if result.missing:
            raise KeyboardInterrupt
        start = time.monotonic()
        adapters = {name: fit.adapter for name, fit in result.candidates.items()}
        measured = []
        for name in task.measure:
            source = self._sources[name]
            data, large = self._test_data(source)
            scored = score_adapters(data, adapters, self._measures, depth_of(self._measures))
            if data.queries.first is not None:
                scored[data.queries.first.name] = score_first_stage(
                    data, self._measures, depth_of(self._measures)
                )
            if large is not None:
                scored["large"] = large
            one = measured_values(source.collection, source.split, scored, self._measures)
            shown = dict.fromkeys(("small", result.choice.name))
            scores = {c: score_histogram(data, adapters[c]) for c in shown if c in adapters}
            measured.append(one._replace(scores=scores))
        return Fit(
            job=job,
            trained_on=task.trained_on,
            labels=split.labels,
            split_seed=split.seed,
            queries={
                "train": sum(len(source.split.train) for source in sources),
                "validation": sum(len(source.split.validation) for source in sources),
                "judging": sum(len(v) for v in result.candidates["small"].values),
            },
            held_out={
                name: fit.mean
                for name, fit in result.candidates.items()
                if not math.isnan(fit.mean)  # without labels nothing judges
            },
            chosen=result.choice.name,
            reason=result.choice.reason,
            seconds={**result.seconds, "evaluate": time.monotonic() - start},
            measured=tuple(measured),
        )

    def _test_data(self, source: Source) -> tuple[HeldOut, Scored | None]:
        """Vectors of a collection's test queries, and the large encoder's values on them."""
        name = source.collection.name
        if name not in self._held_out:
            data = load_held_out(
                source.collection,
                source.split,
                self._encoders,
                device=str(source.data.corpus.device),
                check=False,
                lists=self._reading.first_stages.of(self._store, source.collection),
            )
            large = score_large(data, self._measures, depth_of(self._measures))
            data = data._replace(corpus=source.data.corpus, large_corpus=None)
            self._held_out[name] = data, large
        return self._held_out[name]
