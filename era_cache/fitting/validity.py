"""Whether an adapter still fits what a store holds, and whether a new fit is due.

In: an open store, an adapter folder. Out: a sentence for each collection that it was fitted on.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from era_cache.collection.records import Collection
from era_cache.errors import FingerprintError, StoreError
from era_cache.fitting.adapter_config import AdapterConfig, FittedOn
from era_cache.fitting.adapter_folder import load_config
from era_cache.fitting.check_against_store import fitted_names, searched_in
from era_cache.fitting.encoder_pair import Encoders, told_pair
from era_cache.fitting.since_fit import Since, fitted_version, since
from era_cache.store.store import Store

__all__ = ["AdapterState", "states_of"]


class AdapterState(NamedTuple):
    """One adapter and collection: whether it can be used, and what to do, in words."""

    adapter: str
    chosen: str
    collection: str
    valid: bool
    told: str


def states_of(store: Store, folder: Path) -> list[AdapterState]:
    """Compare an adapter with the newest versions of its collections.

    Raises:
        FingerprintError: it was fitted on arrays.
        FormatError: not an adapter folder, damaged or newer.
    """
    config = load_config(folder)
    fitted_names(folder, config)
    return [_state(store, folder, config, one) for one in config.fitted_on()]


def _state(store: Store, folder: Path, config: AdapterConfig, one: FittedOn) -> AdapterState:
    name = one.collection.name
    try:
        collection, encoders = searched_in(store, folder, config, name)
    except (FingerprintError, StoreError) as error:
        return AdapterState(str(folder), config.chosen, name, False, f"not usable here: {error}")
    told = _changes(store, collection, one) + _other_pair(store, collection, encoders)
    return AdapterState(str(folder), config.chosen, collection.name, True, told)


def _changes(store: Store, collection: Collection, one: FittedOn) -> str:
    if one.collection.digest == collection.digest:
        return "valid: nothing changed since it was fitted"
    old = fitted_version(store, one)
    if old is None:
        return (
            "valid; the version that it was fitted on is not in this store, so that neither what "
            "is newer nor what it was trained on can be told"
        )
    found = since(old, collection)
    told = found.sentence(collection.name)
    if not told:
        return "valid: nothing that it was fitted on changed"
    return f"{told}: still valid{_due(found)}"


def _due(found: Since) -> str:
    """When a new fit is due."""
    if found.labels_gone:
        return "; fit again: it learned from labels that were withdrawn"
    if found.labels_added:
        return "; era-eval measures it on the newer labels, a new fit learns from them"
    if found.documents_added + found.documents_gone > found.fitted_documents // 2:
        return "; fit again: most documents are others than those that it was aligned on"
    return ", new documents need no new fit"


def _other_pair(store: Store, collection: Collection, encoders: Encoders) -> str:
    """Another model or prompt that the collection was embedded with since."""
    pairs = store.pairs(collection)
    mine = {side: one.spec.fingerprint for side, one in encoders._asdict().items()}
    if not pairs or pairs[0] == mine:
        return ""
    return (
        ". The collection was embedded for another pair since, which this adapter does not serve: "
        + told_pair(store, collection, encoders).partition("also embedded for: ")[2]
    )
