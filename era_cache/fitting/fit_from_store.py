"""The step behind ``era-fit``: from a store to an adapter folder.

In: an open store, names of collections, configurations. Out: the folder, and what was found.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import era_cache
from era_cache.collection.keys import text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.config import FitConfig, PaperConfig, SplitConfig
from era_cache.disk.json_files import read_json
from era_cache.errors import FingerprintError, FitError, FormatError, InputError
from era_cache.fitting.adapter_folder import (
    check_target,
    load_adapter,
    load_config,
    load_held_out,
    save_adapters,
)
from era_cache.fitting.alignment.quality import compare_alignments
from era_cache.fitting.alignment.self_retrieval import SelfRetrieval
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.encoder_pair import Encoders, resolve_encoders
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import FitResult, fit_candidates, fit_paper, parts_of
from era_cache.fitting.tensors import (
    Documents,
    FitData,
    load_documents,
    load_fit_data,
    resolve_device,
)
from era_cache.store.store import Store

__all__ = ["FitReport", "Source", "environment", "fit_to_folder", "load_sources"]


def environment() -> dict[str, str]:
    """Versions that can change a number."""
    found = {"era_cache": era_cache.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "h5py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


class Source(NamedTuple):
    """One collection that an adapter is fitted on."""

    collection: Collection
    split: Split
    data: FitData


class FitReport(NamedTuple):
    """What ``fit_to_folder`` did.

    ``alignment`` is how well held-out alignment texts find themselves, None where there are too
    few; fewer alignment documents than asked for are left by an interrupted embed.
    """

    folder: Path
    result: FitResult
    splits: dict[str, Split]
    encoders: Encoders
    alignment_documents: int
    alignment: SelfRetrieval | None
    resumed: tuple[str, ...]
    seconds: float

    def queries(self) -> dict[str, int]:
        """Queries of each part, over all collections."""
        return {
            part: sum(len(getattr(split, part)) for split in self.splits.values())
            for part in ("train", "validation", "test")
        }


def load_sources(
    store: Store,
    names: Sequence[str],
    split_config: SplitConfig,
    *,
    align_documents: int,
    query_encoder: str | None = None,
    doc_encoder: str | None = None,
    device: str | None = None,
    check: bool = True,
) -> tuple[list[Source], Encoders]:
    """Read what fitting may see of some collections of one pair of encoders.

    Args:
        store: where the vectors are.
        names: of collections, or names and versions; each once.
        split_config: which queries may be used.
        align_documents: of each collection, at most.
        query_encoder: the large side, where the store leaves a choice.
        doc_encoder: the small side, likewise.
        device: torch device name; None chooses.
        check: compare the digests of all segments first.

    Raises:
        FingerprintError: the collections were embedded by different encoders.
        EraError: whatever else is wrong, with what to do.
    """
    if len(set(names)) != len(names) or not names:
        raise InputError(
            f"Collections {', '.join(names) or '(none)'}: name at least one, each once."
        )
    where = resolve_device(device)
    collections = [store.collection(name) for name in names]
    if len({collection.name for collection in collections}) != len(names):
        raise InputError(
            f"Collections {', '.join(names)}: the same one twice. Name one version of each."
        )
    splits = _apart(collections, [make_split(one, split_config) for one in collections])
    sources: list[Source] = []
    first: Encoders | None = None
    for collection, split in zip(collections, splits, strict=True):
        encoders = resolve_encoders(store, collection, query=query_encoder, document=doc_encoder)
        first = first or encoders
        if [e.spec.fingerprint for e in encoders] != [e.spec.fingerprint for e in first]:
            raise FingerprintError(
                f"{collection.name} was embedded by other encoders or prompts than "
                f"{sources[0].collection.name}; one adapter serves one pair. Name the pair with "
                "--query-encoder and --doc-encoder, or embed all collections alike."
            )
        data = load_fit_data(
            collection,
            split,
            encoders,
            align_documents=align_documents,
            device=where,
            check=check,
        )
        sources.append(Source(collection, split, data))
    if first is None:
        raise InputError("No collection named.")
    return sources, first


def _apart(collections: Sequence[Collection], splits: Sequence[Split]) -> list[Split]:
    """Leave out training and validation queries whose text is a test query of any collection."""
    tested = np.concatenate(
        [text_keys(c)[split.test] for c, split in zip(collections, splits, strict=True)]
    )
    apart = []
    for collection, split in zip(collections, splits, strict=True):
        keys = text_keys(collection)
        train = split.train[~np.isin(keys[split.train], tested)]
        validation = split.validation[~np.isin(keys[split.validation], tested)]
        apart.append(split._replace(train=train, validation=validation))
    return apart


def fit_to_folder(
    store: Store,
    collections: str | Sequence[str],
    folder: Path,
    *,
    split_config: SplitConfig,
    recipe: FitConfig | PaperConfig,
    candidate: str = "auto",
    align_with: Sequence[str] = (),
    query_encoder: str | None = None,
    doc_encoder: str | None = None,
    device: str | None = None,
    check: bool = True,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> FitReport:
    """Fit all candidates and write the adapter folder.

    Args:
        store: where the vectors are.
        collections: name of one collection (or name and version), or of several that one adapter
            is to serve.
        folder: the adapter folder to write.
        split_config: which queries may be used.
        recipe: the default recipe or the paper's.
        candidate: ``auto`` or a candidate's name.
        align_with: collections without labels that the adapter is to serve, too: their documents
            align and become references.
        query_encoder: the large side, where the store leaves a choice.
        doc_encoder: the small side, likewise.
        device: torch device name; None chooses.
        check: compare the digests of all segments first.
        resume: take over the candidates that an interrupted run of the same command left.
        progress: told in words what is being fitted and how it goes.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    start = time.monotonic()
    check_target(folder)
    sources, encoders = load_sources(
        store,
        [collections] if isinstance(collections, str) else collections,
        split_config,
        align_documents=recipe.align_documents,
        query_encoder=query_encoder,
        doc_encoder=doc_encoder,
        device=device,
        check=check,
    )
    data = [source.data for source in sources]
    further = _further(
        store, align_with, sources, encoders, most=recipe.align_documents, check=check
    )
    config = _fit_record(sources, encoders, recipe, further)
    if isinstance(recipe, PaperConfig):
        if len(data) > 1 or further:
            raise InputError("--recipe paper fits one collection at a time.")
        ready: dict[str, Fitted] = {}
        result = fit_paper(data[0], recipe, progress=progress)
    else:
        counts = [len(part.labels.judges) for part in parts_of(data, recipe)]
        ready = _interrupted(folder, config, counts) if resume else {}
        result = fit_candidates(
            data,
            recipe,
            candidate=candidate,
            documents=[documents for _, documents in further],
            progress=progress,
            ready=ready,
        )
    config["choice_reason"] = result.choice.reason
    alignment = _alignment_quality(data, recipe)
    quality = None if alignment is None else alignment._asdict()
    metrics = result.metrics(alignment=quality)
    trained = set(result.candidates) - {"small", "aligned"}
    if not (ready and trained == set(ready) and _chosen(folder) == result.choice.name):
        # Else all of it is there, perhaps with a curve and an evaluation.
        save_adapters(
            folder,
            {name: fit.adapter for name, fit in result.candidates.items()},
            result.choice.name,
            config,
            metrics,
            _model_card(result, config),
            {
                f"{name}.{number}": values
                for name, fit in result.candidates.items()
                for number, values in enumerate(fit.values)
            },
        )
    return FitReport(
        folder,
        result,
        {source.collection.name: source.split for source in sources},
        encoders,
        int(config["alignment_documents"]),
        alignment,
        tuple(ready),
        time.monotonic() - start,
    )


def _chosen(folder: Path) -> str:
    return str(load_config(folder)["chosen"])


def _further(
    store: Store,
    names: Sequence[str],
    sources: Sequence[Source],
    encoders: Encoders,
    *,
    most: int,
    check: bool,
) -> list[tuple[Collection, Documents]]:
    """Documents of collections that only align.

    Raises:
        InputError: one is named twice, or is fitted on as well.
    """
    found: list[tuple[Collection, Documents]] = []
    for name in names:
        collection = store.collection(name)
        known = [source.collection for source in sources] + [other for other, _ in found]
        if collection.name in (one.name for one in known):
            raise InputError(
                f"--align-with {name}: its documents take part already. Name other collections."
            )
        device = str(sources[0].data.corpus.device)
        documents = load_documents(
            collection, encoders, align_documents=most, device=device, check=check
        )
        found.append((collection, documents))
    return found


def _fit_record(
    sources: Sequence[Source],
    encoders: Encoders,
    recipe: FitConfig | PaperConfig,
    further: Sequence[tuple[Collection, Documents]],
) -> dict[str, Any]:
    """What ``config.json`` says of the inputs; a single collection is named as it always was."""
    entries = [
        {
            "collection": {"name": s.collection.name, "digest": s.collection.digest},
            "split": _split_record(s.split, s.collection),
        }
        for s in sources
    ]
    several: dict[str, Any] = {"collections": entries} if len(entries) > 1 else {}
    if further:
        several["aligned_with"] = [{"name": c.name, "digest": c.digest} for c, _ in further]
    large = [s.data.align_large for s in sources] + [documents[0] for _, documents in further]
    return {
        **entries[0],
        **several,
        "encoders": encoders.record(),
        "alignment_documents": sum(len(vectors) for vectors in large),
        "recipe": {
            "name": "paper" if isinstance(recipe, PaperConfig) else "era",
            **dataclasses.asdict(recipe),
        },
        "environment": environment(),
    }


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


def _interrupted(
    folder: Path, config: Mapping[str, Any], judges: Sequence[int]
) -> dict[str, Fitted]:
    """The trained candidates of an interrupted run on the same data with the same recipe.

    ``judges`` counts the judging queries of each collection.
    """
    if not (folder / "config.json").is_file():
        return {}
    old, metrics = load_config(folder), read_json(folder / "metrics.json", "era-metrics", 1)
    plain = json.loads(json.dumps(dict(config)))
    parts = ["collection", "collections", "aligned_with", "split", "encoders", "recipe"]
    parts.append("alignment_documents")
    differing = [part for part in parts if old.get(part) != plain.get(part)]
    if differing:
        raise InputError(
            f"{folder}: fitted with another {', '.join(differing)}; --resume goes on with the same "
            "command only. Leave it out to fit again."
        )
    done = [name for name in old["candidates"] if name not in ("small", "aligned", "paper")]
    fields = [f"{name}.{i}" for name in old["candidates"] for i in range(len(judges))]
    values = load_held_out(folder, fields) or {}
    entries = metrics.get("candidates")
    whole = values and all(
        values[f"{name}.{i}"].shape == (count,) for name in done for i, count in enumerate(judges)
    )
    if not isinstance(entries, dict) or not set(done) <= set(entries) or not whole:
        raise FormatError(f"{folder}: cannot be resumed from; leave --resume out to fit again.")
    return {
        name: Fitted(
            load_adapter(folder, name),
            tuple(values[f"{name}.{i}"].astype(np.float64) for i in range(len(judges))),
            dict(entries[name].get("options", {})),
        )
        for name in done
    }


def _split_record(split: Split, collection: Collection) -> dict[str, Any]:
    return {
        **dataclasses.asdict(split.config),
        "queries": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        "test_digest": split.test_digest(collection),
    }


def _model_card(result: FitResult, config: Mapping[str, Any]) -> str:
    query, document = config["encoders"]["query"], config["encoders"]["document"]
    entries = config.get("collections", [config])
    names = ", ".join(entry["collection"]["name"] for entry in entries)
    train, validation = (
        sum(entry["split"]["queries"][part] for entry in entries)
        for part in ("train", "validation")
    )
    rows = "\n".join(
        f"| {name}{' **(chosen)**' if name == result.choice.name else ''} | {fit.mean:.4f} |"
        for name, fit in result.candidates.items()
    )
    return f"""# Retrieval adapter for {names}

Maps queries of **{query["name"]}** (fingerprint `{query["fingerprint"][:12]}`) into the document
space of **{document["name"]}** (fingerprint `{document["fingerprint"][:12]}`). Documents and index
stay as they are. Chosen candidate: **{result.choice.name}** — {result.choice.reason}.

| candidate | held-out {PRIMARY} |
|---|---|
{rows}

Fitted on {train} training and {validation} validation queries
({config["split"]["labels"]:.0%} of the labels, split seed {config["split"]["seed"]}), aligned on
{config["alignment_documents"]} documents, with ERA Cache {config["environment"]["era_cache"]}. Test
queries took no part. Held-out values are a little optimistic, since they made choices; measure with
`era-eval`.

The files hold vectors of alignment documents and of labelled queries (its references): share them
as you would share those texts' vectors.

Use it:

    from pathlib import Path
    from era_cache.fitting.adapter_folder import load_adapter
    adapter = load_adapter(Path("this folder"))
    vectors = adapter.apply({{"large": large_queries, "small": small_queries}})

Inputs are float32 tensors (n, d) of the encoders and prompts named in `config.json`. Vectors of
other encoders give wrong results; compare fingerprints with `check_fingerprints`.
"""
