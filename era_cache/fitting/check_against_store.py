"""What an adapter folder was fitted on, checked against a store.

In: a folder that ``fitting`` wrote, or that came from anyone; an open store. Out: the collection,
split and encoders that it names, or a refusal: vectors of another encoder, another version of a
collection or another split would give numbers or rankings that look right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from era_cache.collection.keys import text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.errors import FingerprintError, FitError, FormatError, InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import (
    AdapterConfig,
    FittedOn,
    NamedCollection,
    SplitRecord,
)
from era_cache.fitting.adapter_folder import check_fingerprints, load_adapter, load_config
from era_cache.fitting.encoder_pair import Encoders
from era_cache.store.store import Store

__all__ = ["curve_points", "fitted_names", "fitted_on", "other_adapter"]


def fitted_names(folder: Path, config: AdapterConfig) -> list[str]:
    """Names of the collections that an adapter was fitted on.

    Raises:
        FingerprintError: it was fitted on arrays.
        FormatError: ``config.json`` is incomplete.
    """
    return list(_known(folder, config))


def fitted_on(
    store: Store, folder: Path, config: AdapterConfig, wanted: str | None = None
) -> tuple[Collection, Split, Encoders]:
    """The collection, split and encoders that an adapter names.

    Args:
        store: where they are.
        folder: the adapter, for messages.
        config: from ``load_config``.
        wanted: name (or name and version) of a collection; None where there is only one. One that
            the adapter does not name is split by the adapter's rule; nothing of it was fitted on.

    Raises:
        FingerprintError: another version or split of the collection.
        FitError: it was fitted without judgements, and there are none yet.
        FormatError: ``config.json`` is incomplete.
        InputError: ``wanted`` is None and there are several.
        StoreError: the store lacks it.
    """
    known = _known(folder, config)
    if wanted is None and len(known) != 1:
        raise InputError(
            f"{folder} was fitted on several collections ({', '.join(known)}); name one with "
            "--collection."
        )
    name = next(iter(known)) if wanted is None else wanted
    if name not in known:  # perhaps by its version
        name = next((n for n, one in known.items() if name == _versioned(one.collection)), name)
    if name in known:
        wanted_one, recorded = known[name].collection, known[name].split
        if recorded.queries is not None and not recorded.queries.test:
            return (
                *_judged_later(store, wanted_one.name, recorded),
                _encoders(store, folder, config),
            )
        collection = store.collection(_versioned(wanted_one))
        split = make_split(collection, recorded.config())
        tested = split.test_digest(collection)
        if (collection.digest, tested) != (wanted_one.digest, recorded.test_digest):
            raise FingerprintError(
                f"{folder}: fitted on another version or split of {collection.name}; its test "
                "queries may be among this one's training queries. Fit again."
            )
    else:
        collection = store.collection(name)
        if collection.name in known:
            raise FingerprintError(
                f"{folder}: fitted on version {known[collection.name].collection.digest[:12]} of "
                f"{collection.name}; queries of {name} may be among its training queries."
            )
        split = _unseen(store, collection, known)
    return collection, split, _encoders(store, folder, config)


def _judged_later(store: Store, name: str, recorded: SplitRecord) -> tuple[Collection, Split]:
    """The newest version of a collection whose queries had no judgement when it was fitted on."""
    collection = store.collection(name)
    split = make_split(collection, recorded.config())
    if not len(split.test):
        raise FitError(
            f"{collection.name}: no query has a positive judgement, so that nothing can be "
            "measured. Add judgements (qrels) to the collection's folder and run the same "
            "era-embed again; vectors that are there are not encoded anew."
        )
    return collection, split


def _encoders(store: Store, folder: Path, config: AdapterConfig) -> Encoders:
    named = config.encoders or {}
    missing = [side for side in Encoders._fields if side not in named]
    if missing:
        raise FormatError(
            f"{folder / 'config.json'}: incomplete: no encoder of {', '.join(missing)}."
        )
    return Encoders(*(store.encoder(named[side].fingerprint) for side in Encoders._fields))


def curve_points(folder: Path, config: AdapterConfig) -> dict[Path, AdapterConfig]:
    """The adapters under ``curve/``: fitted like ``folder`` at other shares of the labels.

    Returns:
        Their configurations by folder.

    Raises:
        FingerprintError: one was fitted on another collection, split or encoder, or with another
            recipe.
    """
    points = {}
    for path in sorted((folder / "curve").glob("*/config.json")):
        other = load_config(path.parent)
        if _share(other) == _share(config):
            continue
        if other.recipe != config.recipe or _tested(other) != _tested(config):
            raise FingerprintError(
                f"{path.parent}: fitted on another collection, with another recipe or other test "
                f"queries than {folder}. Remove it, or fit again with --curve."
            )
        check_fingerprints(path.parent, other, _fingerprints(config))
        points[path.parent] = other
    return points


def other_adapter(
    store: Store,
    folder: Path,
    config: AdapterConfig,
    names: Sequence[str],
    *,
    taken: Mapping[str, Adapter],
) -> tuple[str, Adapter]:
    """The chosen candidate of another folder, which must share collections, split and encoders.

    Args:
        store: where the collections are.
        folder: the other adapter.
        config: of the adapter that it is to be compared with.
        names: collections to measure on.
        taken: candidates by name; the new one gets a name of its own.

    Raises:
        FingerprintError: the two cannot be compared.
    """
    other = load_config(folder)
    for part, column in (("collection", 0), ("test queries", 1)):
        mine, theirs = ([one[column] for one in _tested(c)] for c in (config, other))
        if mine != theirs:
            raise FingerprintError(f"{folder}: its {part} differ; the two cannot be compared.")
    for name in names:
        fitted_on(store, folder, other, name)
    sides = {side: one for side, one in _fingerprints(config).items() if side != "align"}
    check_fingerprints(folder, other, sides)
    name = other.chosen
    if name in taken:
        name = f"{name} ({folder.name})"
    # Folders of one name in different places: neither may replace the other's row.
    same = sum(known == name or known.startswith(f"{name} #") for known in taken)
    return f"{name} #{same + 1}" if same else name, load_adapter(folder)


def _versioned(collection: NamedCollection) -> str:
    return f"{collection.name}-{collection.digest[:12]}"


def _fingerprints(config: AdapterConfig) -> dict[str, str]:
    return {side: one.fingerprint for side, one in (config.encoders or {}).items()}


def _share(config: AdapterConfig) -> float | None:
    return None if config.split is None else config.split.labels


def _tested(config: AdapterConfig) -> list[tuple[NamedCollection, str]]:
    """Collections, and digests of their test queries."""
    return [(one.collection, one.split.test_digest) for one in config.fitted_on()]


def _known(folder: Path, config: AdapterConfig) -> dict[str, FittedOn]:
    """The collections that an adapter was fitted on, by name."""
    if config.encoders == {}:
        raise FingerprintError(
            f"{folder}: fitted on arrays, so that no encoder or split is recorded and no store can "
            "be compared with it. Measure it in Python: era_cache.api.RetrievalAdapter.load, then "
            ".evaluate."
        )
    known = {one.collection.name: one for one in config.fitted_on()}
    if not known:
        raise FormatError(
            f"{folder / 'config.json'}: incomplete: it names no collection with its split."
        )
    return known


def _unseen(store: Store, collection: Collection, known: Mapping[str, FittedOn]) -> Split:
    """Test queries of a collection that was not fitted on, less those whose text was trained on."""
    split = make_split(collection, next(iter(known.values())).split.config())
    test = split.test
    for name, one in known.items():
        if one.collection.digest[:12] not in store.versions(name):
            raise FingerprintError(
                f"The store lacks {_versioned(one.collection)}, which the adapter was fitted on, "
                f"so that its training queries cannot be told among those of {collection.name}. "
                "Measure in a store that has both."
            )
        fitted = store.collection(_versioned(one.collection))
        seen = make_split(fitted, one.split.config())
        rows = np.concatenate([seen.train, seen.validation])
        test = test[~np.isin(text_keys(collection)[test], text_keys(fitted)[rows])]
    return split._replace(train=split.train[:0], validation=split.validation[:0], test=test)
