"""The step behind ``era-eval``: from a store and an adapter folder to results.

In: an open store, a folder that ``fitting`` wrote. Out: values of every candidate on the test
queries of each collection, which ``analysis`` turns into a report.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.records import Collection
from era_cache.collection.splits import Split
from era_cache.disk.files import sha256_file
from era_cache.errors import InputError
from era_cache.evaluate.approximate_recall import recall_against_exact
from era_cache.evaluate.kept_index import kept_index
from era_cache.evaluate.recorded import (
    adapter_size,
    collection_entry,
    fit_of,
    rows_read,
    split_options,
)
from era_cache.evaluate.results import SHIPPED, Extra, Fit, Head, Measured, Results
from era_cache.evaluate.runs import lists_of_run, load_run, place_run
from era_cache.evaluate.score import (
    DEFAULT_MEASURES,
    DEPTH,
    Scored,
    int8_loss,
    score_adapters,
    score_first_stage,
    score_histogram,
    score_large,
)
from era_cache.evaluate.unseen_queries import unseen_queries
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.adapter_folder import load_adapter, load_config
from era_cache.fitting.candidates import described
from era_cache.fitting.check_against_store import (
    curve_points,
    fitted_names,
    other_adapter,
    searched_in,
)
from era_cache.fitting.first_stage import FirstStages, QueryLists
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.sources import environment
from era_cache.fitting.tensors import HeldOut, QuerySet, load_held_out, resolve_device
from era_cache.rank.approximate import ApproximateIndex
from era_cache.rank.measures import Measure, evaluate
from era_cache.report.records import Fact
from era_cache.store.store import Store

__all__ = ["Evaluation", "Measuring", "Ranked", "evaluate_folder", "measured_of", "measured_values"]


class Ranked(NamedTuple):
    """The rankings of one collection, for TREC files."""

    scored: dict[str, Scored]
    queries: QuerySet
    doc_ids: Sequence[str]


class Evaluation(NamedTuple):
    """What ``evaluate_folder`` found: results, and the rankings behind them by collection."""

    results: Results
    ranked: dict[str, Ranked]


@dataclass(frozen=True)
class Measuring:
    """What ``evaluate_folder`` measures, and how.

    ``collections`` none named are all that the adapter was fitted on. ``others`` are further
    adapter folders of the same collections and split; each adds its chosen candidate as a row.
    ``runs`` are files of other systems by the name of their row; one collection only. The primary
    measure is always among ``measures``. ``seed`` is of bootstrap and randomisation where int8 is
    measured, ``device`` a torch device name or None, ``check`` whether the digests of all segments
    are compared first. ``int8`` also measures what storing the vectors as int8 would cost; one
    collection only. ``index`` is ``exact``, or a kind of approximate index that searches instead.
    """

    collections: Sequence[str] = ()
    others: Sequence[Path] = ()
    runs: Mapping[str, Path] = field(default_factory=dict)
    measures: Sequence[Measure] = DEFAULT_MEASURES
    seed: int = 0
    device: str | None = None
    check: bool = True
    int8: bool = False
    index: str = "exact"


def evaluate_folder(
    store: Store,
    folder: Path,
    measuring: Measuring | None = None,
    *,
    configuration: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> Evaluation:
    """Measure every candidate of an adapter folder on the test queries of its split.

    Args:
        store: holds the collections and the vectors it was fitted on.
        folder: the adapter, perhaps with others of the label curve under it.
        measuring: what to measure; None is everything by default.
        configuration: every option of the command, kept with the results.
        commands: shown in the report.

    Raises:
        FingerprintError: the store's vectors or collections are not the adapter's.
        EraError: whatever else is wrong.
    """
    asked = measuring or Measuring()
    config = load_config(folder)
    names = list(asked.collections) or fitted_names(folder, config)
    for option, given in (("--int8", asked.int8), ("--run", asked.runs)):
        if given and len(names) != 1:
            raise InputError(f"{option} measures one collection; name it with --collection.")
    measures = list(dict.fromkeys([PRIMARY, *asked.measures]))
    found = _Found(store, folder, config, dataclasses.replace(asked, measures=measures))
    for name in names:
        found.measure(name)
    loaded = found.loaded
    only = next(iter(loaded)) if len(loaded) == 1 else f"{len(loaded)} collections"
    head = Head(
        protocol="adapter",
        title=f"Evaluation on {only}",
        measures=tuple(map(str, measures)),
        primary=str(PRIMARY),
        collections={name: collection_entry(one) for name, one in loaded.items()},
        encoders=config.encoders or {},
        configuration={**split_options(config), **dict(configuration or {})},
        adapters={
            **{str(p): sha256_file(p / "config.json") for p in (*found.members, *asked.others)},
            **found.digests,
        },
        costs=(adapter_size(config), *found.costs()),
        commands=tuple(commands),
        notes=tuple(found.notes),
        environment=environment(),
        extra=found.extra,
    )
    ids = {name: collection.query_ids for name, collection in loaded.items()}
    return Evaluation(Results(head, ids, found.fits()), found.ranked)


class _Found:
    """What is measured of an adapter folder, one collection after another."""

    def __init__(self, store: Store, folder: Path, config: AdapterConfig, asked: Measuring) -> None:
        self.store, self.folder, self.config, self.asked = store, folder, config, asked
        self.adapters = {name: load_adapter(folder, name) for name in config.candidates}
        for other in asked.others:
            name, adapter = other_adapter(other, config, taken=self.adapters)
            self.adapters[name] = adapter
        for name in asked.runs:
            if name in self.adapters or described(name) or name in ("large", SHIPPED):
                raise InputError(f"--run {name}=…: a row of that name is there. Choose another.")
        # A pipe can be read once only: the digest would be that of nothing, or never come.
        for name, path in asked.runs.items():
            if path.exists() and not path.is_file():
                raise InputError(f"--run {name}: {path} is no regular file. Save the run first.")
        self.digests = {
            f"run {name}": sha256_file(path) for name, path in asked.runs.items() if path.exists()
        }
        self.runs = {name: load_run(path) for name, path in asked.runs.items()}
        self.joined = [one.fusion.run for one in self.adapters.values() if one.fusion is not None]
        self.first_stage = self.joined[0] if self.joined else FirstStages().name
        self.members = {folder: config, **curve_points(folder, config)}
        self.further = [(path, load_config(path)) for path in asked.others]
        self.measured: dict[Path, list[Measured]] = {path: [] for path in self.members}
        self.loaded: dict[str, Collection] = {}
        self.ranked: dict[str, Ranked] = {}
        self.notes: list[str] = []
        self.extra = Extra()
        self.seconds = 0.0

    def measure(self, name: str) -> None:
        """Measure every candidate on a collection."""
        collection, self.encoders = searched_in(self.store, self.folder, self.config, name)
        fits = [*self.members.items(), *self.further]
        split, told = unseen_queries(self.store, fits, collection)
        self.notes += told
        if collection.name in self.loaded:
            raise InputError(f"--collection {collection.name}: named twice.")
        self.loaded[collection.name] = collection
        asked, config = self.asked, self.config
        where = resolve_device(asked.device)
        lists = self._lists(collection)
        data = load_held_out(
            collection, split, self.encoders, device=where, check=asked.check, lists=lists
        )
        near = None
        if asked.index != "exact":
            made_by = self.encoders.document.spec.fingerprint
            near, told = kept_index(self.store, collection, made_by, data.corpus, asked.index)
            self.notes += told
            self.notes.append(_recall(near, data, self.adapters[config.chosen], collection.name))
        for path, point in self.members.items():
            rows = self.adapters
            if path != self.folder:
                rows = {c: load_adapter(path, c) for c in point.candidates}
            rows = self._with_lists(rows, data, lists.problems)
            start = time.monotonic()
            one, scored = measured_of(collection, split, data, rows, asked.measures, index=near)
            if path == self.folder:
                if self.runs:
                    with_runs = {**scored, **self._foreign(collection, data)}
                    one = measured_values(collection, split, with_runs, asked.measures)
                shown = dict.fromkeys(("small", config.chosen))
                histograms = {c: score_histogram(data, rows[c]) for c in shown if c in rows}
                one = one._replace(scores=histograms)
                self.seconds += time.monotonic() - start
                self.ranked[collection.name] = Ranked(scored, data.queries, collection.doc_ids)
            self.measured[path].append(one)
        if asked.int8:
            own = self.ranked[collection.name].scored
            losses = int8_loss(data, self.adapters, own, asked.measures, seed=asked.seed)
            self.extra = Extra(int8=losses)

    def _lists(self, collection: Collection) -> QueryLists:
        """Lists of the first stage: from a run of its name where one is given, else the store's."""
        name = self.first_stage
        given = {}
        if name in self.joined and name in self.runs:
            stored = lists_of_run(self.asked.runs[name], self.runs[name], collection, name)
            given[collection.name] = stored
        return FirstStages(name, given).of(self.store, collection)

    def _with_lists(
        self, adapters: dict[str, Adapter], data: HeldOut, problems: Sequence[str]
    ) -> dict[str, Adapter]:
        """The candidates that can be measured with the lists that there are.

        Raises:
            InputError: the chosen one cannot.
        """
        if data.queries.first is not None:
            return adapters
        left = {name: one for name, one in adapters.items() if one.fusion is None}
        self.notes += [one for one in problems if one not in self.notes]
        if self.config.chosen not in left and self.config.chosen in adapters:
            why = problems[0] if problems else f"There are none of {self.first_stage}."
            raise InputError(
                f"{self.folder}: the chosen candidate {self.config.chosen} needs lists of "
                f"{self.first_stage}. {why} Make them with era-embed, or give --run "
                f"{self.first_stage}=FILE."
            )
        return left

    def _foreign(self, collection: Collection, data: HeldOut) -> dict[str, Scored]:
        """Runs of other systems as rows."""
        rows = {}
        exclude = None if data.queries.exclude is None else data.queries.exclude.cpu().numpy()
        for name, run in self.runs.items():
            placed = place_run(
                self.asked.runs[name],
                run,
                data.queries.ids,
                collection.doc_ids,
                exclude,
                depth=DEPTH,
            )
            values = evaluate(
                placed.ranking.doc_rows, data.queries.qrels, self.asked.measures, placed.n_docs
            )
            rows[name] = Scored(placed.ranking, dict(values))
            self.notes += placed.notes(name)
        return rows

    def fits(self) -> list[Fit]:
        """The adapter and the points of its curve as fits."""
        fits = [fit_of(path, self.members[path], found) for path, found in self.measured.items()]
        fits[0] = fits[0]._replace(seconds={**fits[0].seconds, "evaluate": self.seconds})
        return fits

    def costs(self) -> tuple[Fact, ...]:
        """Rows that were read instead of encoded."""
        aligned = self.config.alignment_documents or 0
        return rows_read(list(self.loaded.values()), self.encoders, aligned)


def measured_of(
    collection: Collection,
    split: Split,
    data: HeldOut,
    adapters: Mapping[str, Adapter],
    measures: Sequence[Measure],
    depth: int = DEPTH,
    index: ApproximateIndex | None = None,
) -> tuple[Measured, dict[str, Scored]]:
    """Measure candidates, and the large encoder where its documents are stored.

    Args:
        collection: whose test queries they are.
        split: which queries those are.
        data: their vectors.
        adapters: candidates by name.
        measures: what to measure.
        depth: documents kept of each ranking.
        index: over the small encoder's corpus, to search instead of all of it.

    Returns:
        The values without histograms, and the rankings.
    """
    scored = score_adapters(data, adapters, measures, depth, index)
    if data.queries.first is not None:
        scored[data.queries.first.name] = score_first_stage(data, measures, depth)
    large = score_large(data, measures, depth)
    if large is not None:
        scored["large"] = large
    return measured_values(collection, split, scored, measures), scored


def measured_values(
    collection: Collection, split: Split, scored: Mapping[str, Scored], measures: Sequence[Measure]
) -> Measured:
    """Put the values of candidates into one array, in the order of the test queries."""
    values = np.stack([np.stack([one.values[m] for m in measures]) for one in scored.values()])
    return Measured(collection.name, tuple(scored), split.test, values.astype(np.float32), {})


def _recall(index: ApproximateIndex, data: HeldOut, adapter: Adapter, name: str) -> str:
    """Which share of the exact results an approximate index finds for the chosen candidate."""
    mapped = adapter.to(data.corpus.device).apply(data.queries.views)
    found = recall_against_exact(index, mapped, data.corpus, asked=DEPTH)
    shares = ", ".join(
        f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}] of the exact top {depth}"
        for depth, one in found.items()
    )
    return (
        f"{name} was searched through an approximate index ({index.about}): for the chosen "
        f"candidate it finds {shares}. The row large, and rows joined with a first stage, are "
        "searched exactly."
    )
