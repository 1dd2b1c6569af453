"""The step behind ``era-fit``: from a store to an adapter folder.

In: an open store, names of collections, what to fit. Out: the folder, and what was found.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from era_cache.collection.config import SplitConfig
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split
from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter_config import (
    AdapterConfig,
    FittedOn,
    ModelRecord,
    NamedCollection,
    NamedEncoder,
    Parts,
    SplitRecord,
)
from era_cache.fitting.adapter_folder import (
    load_config,
    save_adapters,
)
from era_cache.fitting.alignment.quality import compare_alignments
from era_cache.fitting.alignment.self_retrieval import SelfRetrieval
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.encoder_pair import Encoders, told_pair
from era_cache.fitting.model_card import model_card
from era_cache.fitting.recipes import FitResult, fit_candidates, fit_paper
from era_cache.fitting.replaced import check_target
from era_cache.fitting.resume import left_by
from era_cache.fitting.sources import Reading, Source, fit_environment, load_sources
from era_cache.fitting.tensors import Documents, FitData, load_documents
from era_cache.store.store import Store

__all__ = ["FitPlan", "FitReport", "fit_to_folder", "fitted_on_record"]


class FitPlan(NamedTuple):
    """What is fitted: on which queries, by which recipe, and which candidate ships.

    ``candidate`` is ``auto`` or a candidate's name. ``align_with`` names collections without
    labels; if there are any, the adapter is for them (``fitting.elsewhere``).
    """

    split: SplitConfig
    recipe: FitConfig | PaperConfig
    candidate: str = "auto"
    align_with: Sequence[str] = ()


class FitReport(NamedTuple):
    """What ``fit_to_folder`` did.

    ``alignment`` is how well held-out alignment texts find themselves, None where there are too
    few; fewer alignment documents than asked for are left by an interrupted embed. The large model
    may have encoded more (``encoded_documents``) than were used. ``notes`` say what was left out;
    ``elsewhere`` names the collections that the adapter is for where it was not fitted on them.
    """

    folder: Path
    result: FitResult
    splits: dict[str, Split]
    encoders: Encoders
    alignment_documents: int
    alignment: SelfRetrieval | None
    resumed: tuple[str, ...]
    seconds: float
    encoded_documents: int = 0
    notes: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    def queries(self) -> dict[str, int]:
        """Queries of each part, over all collections."""
        return {
            part: sum(len(getattr(split, part)) for split in self.splits.values())
            for part in ("train", "validation", "test")
        }


class _Inputs(NamedTuple):
    """What was read for a plan; ``further`` are documents of collections without labels."""

    sources: list[Source]
    encoders: Encoders
    further: list[tuple[Collection, Documents]]

    @property
    def data(self) -> list[FitData]:
        return [source.data for source in self.sources]


def fit_to_folder(
    store: Store,
    collections: str | Sequence[str],
    folder: Path,
    plan: FitPlan,
    reading: Reading,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> FitReport:
    """Fit all candidates and write the adapter folder.

    Args:
        store: where the vectors are.
        collections: name of one collection (or name and version), or of several that one adapter
            is to serve.
        folder: the adapter folder to write.
        plan: what to fit.
        reading: which vectors, and how.
        resume: take over the candidates that an interrupted run of the same command left.
        overwrite: an adapter of other data in the folder, and results of one, may be replaced.
        progress: told in words what is being fitted and how it goes.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    start = time.monotonic()
    check_target(folder, None)
    inputs = _read(
        store, [collections] if isinstance(collections, str) else collections, plan, reading
    )
    if progress is not None:
        progress(told_pair(store, inputs.sources[0].collection, inputs.encoders))
    config = _config(inputs, plan.recipe)
    ready: dict[str, Fitted] = {}
    finished = False
    if resume:
        ready, finished = left_by(folder, inputs.data, config, plan.recipe, plan.candidate)
    if not finished:
        check_target(folder, config, overwrite=overwrite)
    if isinstance(plan.recipe, PaperConfig):
        if inputs.further:
            raise InputError("--recipe paper knows no --align-with.")
        result = fit_paper(inputs.data, plan.recipe, progress=progress)
    else:
        result = fit_candidates(
            inputs.data,
            plan.recipe,
            candidate=plan.candidate,
            elsewhere=[documents for _, documents in inputs.further] if inputs.further else None,
            progress=progress,
            ready=ready,
        )
    alignment = _alignment_quality(inputs.data, plan.recipe)
    notes = [problem for source in inputs.sources for problem in source.problems]
    # Else all of it is there, perhaps with a curve and an evaluation.
    if not (finished and load_config(folder).chosen == result.choice.name):
        replaced = _save(folder, result, config, alignment, overwrite=overwrite)
        notes += [f"{folder}: replaced {replaced}."] if replaced and not ready else []
    return FitReport(
        folder,
        result,
        {source.collection.name: source.split for source in inputs.sources},
        inputs.encoders,
        config.alignment_documents or 0,
        alignment,
        tuple(ready),
        time.monotonic() - start,
        _encoded(inputs),
        tuple(notes),
        tuple(collection.name for collection, _ in inputs.further),
    )


def _encoded(inputs: _Inputs) -> int:
    """Documents of all collections that the large model encoded."""
    index = inputs.encoders.align.index(check=False)
    collections = [s.collection for s in inputs.sources] + [one for one, _ in inputs.further]
    return sum(int((index.positions(one.doc_keys) >= 0).sum()) for one in collections)


def _read(store: Store, names: Sequence[str], plan: FitPlan, reading: Reading) -> _Inputs:
    """What fitting may see.

    Raises:
        InputError: a collection that only aligns is named twice, is fitted on as well, or would
            take no part.
    """
    most = plan.recipe.align_documents
    sources, encoders = load_sources(store, names, plan.split, reading, align_documents=most)
    further: list[tuple[Collection, Documents]] = []
    if plan.align_with and not _reads_documents(plan.recipe):
        raise InputError(
            f"--align-with {plan.align_with[0]}: with align_texts=queries and "
            "reference_documents=0 its documents would take no part. Leave it out."
        )
    for name in plan.align_with:
        collection = store.collection(name)
        known = [source.collection for source in sources] + [other for other, _ in further]
        if collection.name in (one.name for one in known):
            raise InputError(
                f"--align-with {name}: its documents take part already. Name other collections."
            )
        documents = load_documents(
            collection,
            encoders,
            align_documents=most,
            device=str(sources[0].data.corpus.device),
            check=reading.check,
        )
        further.append((collection, documents))
    return _Inputs(sources, encoders, further)


def _config(inputs: _Inputs, recipe: FitConfig | PaperConfig) -> AdapterConfig:
    """What ``config.json`` says of the inputs; a single collection is named as it always was."""
    fitted_on = tuple(fitted_on_record(s.collection, s.split) for s in inputs.sources)
    large = [data.align_large for data in inputs.data]
    large += [documents.large for _, documents in inputs.further]
    name = "paper" if isinstance(recipe, PaperConfig) else "era"
    return AdapterConfig(
        chosen="",  # nothing is, yet
        collection=fitted_on[0].collection,
        split=fitted_on[0].split,
        collections=fitted_on if len(fitted_on) > 1 else (),
        aligned_with=tuple(_named(collection) for collection, _ in inputs.further),
        encoders=msgspec.convert(inputs.encoders.record(), dict[str, NamedEncoder]),
        models={
            view: ModelRecord(identity=spec.identity, source=spec.source)
            for view, spec in inputs.encoders.models().items()
        },
        alignment_documents=sum(map(len, large)) if _reads_documents(recipe) else 0,
        first_stage={k: v for one in inputs.sources for k, v in one.first_stage.items()},
        recipe={"name": name, **dataclasses.asdict(recipe)},
        environment=fit_environment(),
    )


def _reads_documents(recipe: FitConfig | PaperConfig) -> bool:
    """Whether alignment documents align or become references."""
    if isinstance(recipe, PaperConfig):
        return True
    return recipe.align_texts != "queries" or recipe.reference_documents > 0


def _named(collection: Collection) -> NamedCollection:
    return NamedCollection(name=collection.name, digest=collection.digest)


def fitted_on_record(collection: Collection, split: Split) -> FittedOn:
    """A collection and its split, as ``config.json`` names them."""
    return FittedOn(collection=_named(collection), split=_split_record(split, collection))


def _split_record(split: Split, collection: Collection) -> SplitRecord:
    return SplitRecord(
        **dataclasses.asdict(split.config),
        queries=Parts(
            train=len(split.train), validation=len(split.validation), test=len(split.test)
        ),
        test_digest=split.test_digest(collection),
    )


def _alignment_quality(
    data: Sequence[FitData], recipe: FitConfig | PaperConfig
) -> SelfRetrieval | None:
    """Whether held-out alignment documents find themselves through the map of the others."""
    import torch

    large = torch.cat([one.align_large for one in data]).cpu()
    small = torch.cat([one.align_small for one in data]).cpu()
    named = getattr(recipe, "align", "procrustes")
    method = "procrustes" if named == "auto" else named
    try:
        return compare_alignments(large, small, [method], recipe.seed)[method]
    except FitError:
        return None  # too few documents, or all alike: nothing to hold out


def _save(
    folder: Path,
    result: FitResult,
    config: AdapterConfig,
    alignment: SelfRetrieval | None,
    *,
    overwrite: bool,
) -> str:
    fits, choice = result.candidates, result.choice
    quality = None if alignment is None else alignment._asdict()
    config = msgspec.structs.replace(config, chosen=choice.name, choice_reason=choice.reason)
    return save_adapters(
        folder,
        {name: fit.adapter for name, fit in fits.items()},
        config,
        msgspec.structs.replace(result.metrics(), alignment=quality),
        model_card(
            config,
            {name: fit.mean for name, fit in fits.items()},
            fits[choice.name].adapter.fusion,
        ),
        {
            f"{name}.{number}": values
            for name, fit in fits.items()
            for number, values in enumerate(fit.values)
        },
        overwrite=overwrite,
    )
