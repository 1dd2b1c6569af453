"""Collections of a store, as far as fitting may see them.

In: an open store, names of collections, a split. Out: for each collection its split and tensors,
all of one pair of encoders; and what must be said of them to read the same again.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

import era_cache
from era_cache.collection.config import SplitConfig
from era_cache.collection.keys import text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.errors import FingerprintError, InputError
from era_cache.fitting.config import FitConfig
from era_cache.fitting.encoder_pair import Encoders, resolve_encoders
from era_cache.fitting.first_stage import FirstStages
from era_cache.fitting.tensors import FitData, load_fit_data, resolve_device
from era_cache.store.store import Store

__all__ = ["Reading", "Source", "environment", "fit_environment", "load_sources", "provenance"]


class Reading(NamedTuple):
    """Which vectors are read, and how.

    ``query_encoder`` and ``doc_encoder`` name the large and the small side where the store leaves a
    choice; ``device`` is a torch device name, None chooses; ``check`` compares the digests of all
    segments first; ``first_stages`` says which lists of another system join in.
    """

    query_encoder: str | None = None
    doc_encoder: str | None = None
    device: str | None = None
    check: bool = True
    first_stages: FirstStages = FirstStages()

    def encoders(self, store: Store, collection: Collection) -> Encoders:
        """The pair that is meant. Raises ``StoreError`` where that is unclear."""
        return resolve_encoders(
            store, collection, query=self.query_encoder, document=self.doc_encoder
        )


def environment() -> dict[str, str]:
    """Versions that can change a number."""
    found = {"era_cache": era_cache.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "h5py", "faiss-cpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def fit_environment() -> dict[str, str]:
    """The same, and the number of threads, which rounds the products of a fit."""
    import torch

    return {**environment(), "threads": str(torch.get_num_threads())}


class Source(NamedTuple):
    """One collection that an adapter is fitted on.

    ``first_stage`` is the name of the system whose lists were read, and what made them;
    ``problems`` say why there are none.
    """

    collection: Collection
    split: Split
    data: FitData
    first_stage: Mapping[str, Any] = {}
    problems: tuple[str, ...] = ()


def load_sources(
    store: Store,
    names: Sequence[str],
    split_config: SplitConfig,
    reading: Reading,
    *,
    align_documents: int,
) -> tuple[list[Source], Encoders]:
    """Read what fitting may see of some collections of one pair of encoders.

    Args:
        store: where the vectors are.
        names: of collections, or names and versions; each once.
        split_config: which queries may be used.
        reading: which vectors, and how.
        align_documents: of each collection, at most.

    Raises:
        FingerprintError: the collections were embedded by different encoders.
        EraError: whatever else is wrong, with what to do.
    """
    if len(set(names)) != len(names) or not names:
        raise InputError(
            f"Collections {', '.join(names) or '(none)'}: name at least one, each once."
        )
    where = resolve_device(reading.device)
    collections = [store.collection(name) for name in names]
    if len({collection.name for collection in collections}) != len(names):
        raise InputError(
            f"Collections {', '.join(names)}: the same one twice. Name one version of each."
        )
    splits = _apart(collections, [make_split(one, split_config) for one in collections])
    sources: list[Source] = []
    first: Encoders | None = None
    for collection, split in zip(collections, splits, strict=True):
        encoders = reading.encoders(store, collection)
        first = first or encoders
        if [e.spec.fingerprint for e in encoders] != [e.spec.fingerprint for e in first]:
            raise FingerprintError(
                f"{collection.name} was embedded by other encoders or prompts than "
                f"{sources[0].collection.name}; one adapter serves one pair. Name the pair with "
                "--query-encoder and --doc-encoder, or embed all collections alike."
            )
        lists = reading.first_stages.of(store, collection)
        data = load_fit_data(
            collection,
            split,
            encoders,
            align_documents=align_documents,
            device=where,
            check=reading.check,
            lists=lists,
        )
        made = lists.settings() if _has_lists(data) else {}
        sources.append(Source(collection, split, data, made, tuple(lists.problems)))
    if first is None:
        raise InputError("No collection named.")
    return sources, first


def _has_lists(data: FitData) -> bool:
    sets = (data.train, data.validation, data.unlabelled)
    return any(queries is not None and queries.first is not None for queries in sets)


def _apart(collections: Sequence[Collection], splits: Sequence[Split]) -> list[Split]:
    """Leave out all but test queries whose text is a test query of any collection."""
    tested = np.concatenate(
        [text_keys(c)[split.test] for c, split in zip(collections, splits, strict=True)]
    )
    apart = []
    for collection, split in zip(collections, splits, strict=True):
        keys = text_keys(collection)
        train = split.train[~np.isin(keys[split.train], tested)]
        validation = split.validation[~np.isin(keys[split.validation], tested)]
        unlabelled = split.unlabelled[~np.isin(keys[split.unlabelled], tested)]
        apart.append(split._replace(train=train, validation=validation, unlabelled=unlabelled))
    return apart


def provenance(
    store: Store, names: Sequence[str], split: SplitConfig, recipe: FitConfig, reading: Reading
) -> dict[str, Any]:
    """What a table of fits must say of itself to be made again (JSON).

    Args:
        store: where the vectors are.
        names: of the collections.
        split: rule and first seed.
        recipe: what the settings of the rows change.
        reading: which vectors, and how.
    """
    collections = [store.collection(name) for name in names]
    return {
        "collections": {one.name: one.digest for one in collections},
        "encoders": reading.encoders(store, collections[0]).record(),
        "split": dataclasses.asdict(split),
        "recipe": dataclasses.asdict(recipe),
        "environment": environment(),
    }
