"""What an adapter folder was fitted on, checked against a store.

In: a folder that ``fitting`` wrote, or that came from anyone; an open store. Out: the collection,
split and encoders that it names, or a refusal: vectors of another encoder or another split would
give numbers or rankings that look right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from era_cache.collection.keys import text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.errors import FingerprintError, FormatError, InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import (
    AdapterConfig,
    FittedOn,
    NamedCollection,
)
from era_cache.fitting.adapter_folder import check_fingerprints, load_adapter, load_config
from era_cache.fitting.encoder_pair import Encoders
from era_cache.fitting.since_fit import (
    fitted_version,
    known_as,
    named_now,
    newer_split,
    recorded_split,
    seen_elsewhere,
    since,
)
from era_cache.store.store import Store

__all__ = [
    "curve_points",
    "fitted_names",
    "other_adapter",
    "searched_in",
    "split_since",
    "told_since",
]


def fitted_names(folder: Path, config: AdapterConfig) -> list[str]:
    """Names of the collections that an adapter was fitted on.

    Raises:
        FingerprintError: it was fitted on arrays.
        FormatError: ``config.json`` is incomplete.
    """
    return list(_known(folder, config))


def searched_in(
    store: Store, folder: Path, config: AdapterConfig, wanted: str | None = None
) -> tuple[Collection, Encoders]:
    """The collection that an adapter is used on, and the encoders that it was fitted on.

    Args:
        store: where they are.
        folder: the adapter, for messages.
        config: from ``load_config``.
        wanted: name (or name and version) of a collection; None where there is only one. A name
            is that of its newest version. One that was not fitted on will do.

    Raises:
        FingerprintError: it was fitted on arrays, or the store lacks its encoders.
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
    collection = store.collection(named_now(store, name) if name in known else name)
    named = config.encoders or {}
    missing = [side for side in Encoders._fields if side not in named]
    if missing:
        raise FormatError(
            f"{folder / 'config.json'}: incomplete: no encoder of {', '.join(missing)}."
        )
    sides = [store.encoder(named[side].fingerprint) for side in Encoders._fields]
    return collection, Encoders(*sides)


def split_since(store: Store, folder: Path, config: AdapterConfig, collection: Collection) -> Split:
    """Which queries of a collection may measure an adapter.

    Of another version than was fitted on those that fitting did not see (``newer_split``); of a
    collection that the adapter does not name the test queries by the adapter's rule.

    Raises:
        FingerprintError: another split of the collection, or the store cannot tell.
        FormatError: ``config.json`` is incomplete.
    """
    known = _known(folder, config)
    one = known_as(store, collection, known)
    if one is None:
        return _unseen(store, collection, known)
    if one.split.queries is not None and not one.split.queries.test:
        # Nothing was judged: whatever is judged now may measure.
        return make_split(collection, one.split.config())
    if one.collection.digest == collection.digest:
        return recorded_split(collection, one)
    return newer_split(store, collection, known)


def told_since(store: Store, collection: Collection, config: AdapterConfig) -> str:
    """What changed since an adapter was fitted, in words; empty where nothing did.

    Args:
        store: where the version that was fitted on may be.
        collection: as it is now.
        config: of the adapter.
    """
    one = known_as(store, collection, {one.collection.name: one for one in config.fitted_on()})
    if one is None or one.collection.digest == collection.digest:
        return ""
    old = fitted_version(store, one)
    if old is None:
        return f"{collection.name}: fitted on another version, which this store does not hold"
    return since(old, collection).sentence(collection.name)


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
    folder: Path,
    config: AdapterConfig,
    *,
    taken: Mapping[str, Adapter],
) -> tuple[str, Adapter]:
    """The chosen candidate of another folder, which must share collections and encoders.

    On one version of a collection it must share the split, too.

    Args:
        folder: the other adapter.
        config: of the adapter that it is to be compared with.
        taken: candidates by name; the new one gets a name of its own.

    Raises:
        FingerprintError: the two cannot be compared.
    """
    other = load_config(folder)
    mine, theirs = (
        {one.name: (one.digest, test) for one, test in _tested(c)} for c in (config, other)
    )
    if set(mine) != set(theirs):
        raise FingerprintError(f"{folder}: its collections differ; the two cannot be compared.")
    for name, (digest, test) in mine.items():
        # Of two versions keys tell which queries neither has seen.
        if theirs[name][0] == digest and theirs[name][1] != test:
            raise FingerprintError(f"{folder}: its test queries differ; they cannot be compared.")
    sides = {side: one for side, one in _fingerprints(config).items() if side != "align"}
    check_fingerprints(folder, other, sides)
    name = other.chosen
    if name in taken:
        name = f"{name} ({folder.name})"
    # Folders of one name in different places: neither may replace the other's row.
    same = sum(known == name or known.startswith(f"{name} #") for known in taken)
    return f"{name} #{same + 1}" if same else name, load_adapter(folder)


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
    if not known and config.recipe.get("name") == "imported":
        raise FingerprintError(
            f"{folder}: imported weights, of no collection. Import them again with --store and "
            "--collection to measure them there."
        )
    if not known:
        raise FormatError(
            f"{folder / 'config.json'}: incomplete: it names no collection with its split."
        )
    return known


def _unseen(store: Store, collection: Collection, known: Mapping[str, FittedOn]) -> Split:
    """Test queries of a collection that was not fitted on, less those whose text was trained on."""
    split = make_split(collection, next(iter(known.values())).split.config())
    texts = text_keys(collection)[split.test]
    test = split.test[~np.isin(texts, seen_elsewhere(store, collection, known))]
    return split._replace(train=split.train[:0], validation=split.validation[:0], test=test)
