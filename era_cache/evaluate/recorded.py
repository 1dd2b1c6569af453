"""What results say of an adapter, a collection and the rows that were read.

In: records of the store and of an adapter folder. Out: parts of ``Head`` and a ``Fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from era_cache.collection.records import Collection
from era_cache.disk.files import sha256_file
from era_cache.evaluate.results import CollectionEntry, Fit, Measured, texts_digest
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.adapter_folder import load_metrics
from era_cache.fitting.encoder_pair import Encoders
from era_cache.report.records import Fact

__all__ = ["adapter_size", "collection_entry", "fit_of", "rows_read", "split_options"]


def collection_entry(collection: Collection) -> CollectionEntry:
    """What results say of a collection."""
    return CollectionEntry(
        collection.digest,
        collection.domain,
        len(collection.doc_ids),
        len(collection.query_ids),
        texts_digest(collection.query_text_keys),
    )


def fit_of(path: Path, config: AdapterConfig, measured: Sequence[Measured]) -> Fit:
    """An adapter folder as a fit: what it says of itself, and what was measured."""
    metrics, fitted = load_metrics(path), config.fitted_on()
    parts = [one.split.queries for one in fitted if one.split.queries is not None]
    validation = sum(part.validation for part in parts)
    judging = metrics.judging_queries
    return Fit(
        job={"adapter": sha256_file(path / "config.json")},
        trained_on=", ".join(one.collection.name for one in fitted),
        labels=fitted[0].split.labels,
        split_seed=fitted[0].split.seed,
        queries={
            "train": sum(part.train for part in parts),
            "validation": validation,
            "judging": validation if judging is None else judging,
        },
        held_out={
            name: found.validation
            for name, found in metrics.candidates.items()
            if found.validation is not None
        },
        chosen=config.chosen,
        reason=config.choice_reason,
        seconds=metrics.seconds,
        measured=tuple(measured),
    )


def split_options(config: AdapterConfig) -> dict[str, Any]:
    """The split and the recipe of an adapter, as results keep them."""
    split = config.fitted_on()[0].split
    return {
        "split": split.rule,
        "split_seed": split.seed,
        "labels": split.labels,
        "test": split.test,
        "validation": split.validation,
        "count": split.count,
        "recipe": config.recipe,
    }


def adapter_size(config: AdapterConfig) -> Fact:
    """The size of the chosen candidate, as a cost."""
    chosen = config.candidates[config.chosen]
    kept = sum(table.entries for table in chosen.references)
    references = f", {kept:,} references" if kept else ""
    return Fact("adapter", f"{chosen.shape[0]} x {chosen.shape[1]}{references}")


def rows_read(
    collections: Sequence[Collection], encoders: Encoders, aligned: int
) -> tuple[Fact, ...]:
    """Rows that were taken from the store instead of a model, and their size.

    Args:
        collections: all of whose queries and documents are read.
        encoders: whose rows they are.
        aligned: documents that were read of the large encoder.
    """
    documents = sum(len(collection.doc_ids) for collection in collections)
    queries = sum(len(collection.query_ids) for collection in collections)
    small, large = encoders.document.spec, encoders.query.spec
    size = documents * small.dim + queries * (small.dim + large.dim) + aligned * large.dim
    return (
        Fact(f"cached rows of {small.name}", f"{documents + queries:,}"),
        Fact(f"cached rows of {large.name}", f"{queries + aligned:,}"),
        Fact("size of these rows in memory, float32", f"{4 * size / 1e6:,.1f} MB"),
        Fact("rows encoded again, documents included", "0"),
    )
