"""Verification: every file of a store read, and everything in it checked.

In: a store that others may read and write at the same time. Out: a report of what is damaged, what
is odd, and what is missing. Only where it is asked to, it sets damaged segments aside and deletes
wrong index files; it repairs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from era_cache.collection.records import Collection
from era_cache.errors import FormatError
from era_cache.store.lists import read_lists
from era_cache.store.names import (
    COLLECTION_NAME,
    FILE,
    FOLDER,
    LISTS_NAME,
    PAIR_NAME,
    SEARCH_INDEX_NAME,
    STORE_FOLDERS,
)
from era_cache.store.records import ROLES, Side, mixed_up, read_pair, read_stored_collection
from era_cache.store.search_indexes import read_search_index
from era_cache.store.store import Store
from era_cache.store.verify.encoders import CheckedEncoder, CheckedEncoders, check_encoders
from era_cache.store.verify.report import Finding, PairState, Report, SideState, Walk, exactly
from era_cache.types import Progress, silent

__all__ = ["verify"]


def verify(store: Store, *, quarantine: bool = False, progress: Progress = silent) -> Report:
    """Check every file of a store.

    Args:
        store: the store; others may use it meanwhile.
        quarantine: set damaged segments aside, so that the next era-embed encodes their rows
            again, and delete wrong index files.
        progress: told how many bytes of segments were read.

    Returns:
        What was found; damage is in it, not raised.

    Raises:
        StoreError: a folder cannot be listed, or, with ``quarantine``, not written.
    """
    begun = time.monotonic()
    walk = Walk(store.path)
    folders = walk.names("", (exactly("store.json"), FILE), (exactly(*STORE_FOLDERS), FOLDER))
    encoders = CheckedEncoders([], {}, 0)
    if "encoders" in folders:
        encoders = check_encoders(walk, quarantine=quarantine, progress=progress)
    pairs = _read_pairs(walk) if "pairs" in folders else {}
    collections = 0
    states: list[PairState] = []
    if "collections" in folders:
        for collection in _collections(walk):
            collections += 1
            states += _pair_states(walk, pairs.pop(collection.digest, {}), collection, encoders)
    if "runs" in folders:
        for name in walk.names("runs", (LISTS_NAME, FILE)):
            walk.checked(f"runs/{name}", partial(read_lists, walk.path(f"runs/{name}")))
    if "indexes" in folders:
        for name in walk.names("indexes", (SEARCH_INDEX_NAME, FILE)):
            walk.checked(
                f"indexes/{name}", partial(read_search_index, walk.path(f"indexes/{name}"))
            )
    for digest, records in pairs.items():
        for record in records:
            message = f"its collection {digest[:12]} is not stored here, or damaged"
            walk.add(Finding("warning", record, message))
    return Report(
        store=store.label,
        findings=walk.findings,
        encoders=encoders.states,
        collections=collections,
        pairs=states,
        missing_rows=encoders.missing_rows,
        temporaries=len(walk.temporaries),
        orphans=sorted(walk.orphans),
        bytes=sum(state.bytes for state in encoders.states),
        seconds=time.monotonic() - begun,
    )


def _collections(walk: Walk) -> Iterator[Collection]:
    """The sound collections, one at a time."""
    for name in walk.names("collections", (COLLECTION_NAME, FILE)):
        path = f"collections/{name}"
        collection = walk.checked(path, partial(read_stored_collection, walk.path(path)))
        if collection is not None:
            yield collection


def _read_pairs(walk: Walk) -> dict[str, dict[str, dict[Side, str]]]:
    """The sound records: digest of the collection to path to side to fingerprint."""
    found: dict[str, dict[str, dict[Side, str]]] = {}
    for name in walk.names("pairs", (PAIR_NAME, FILE)):
        path = f"pairs/{name}"
        pair = walk.checked(path, partial(read_pair, walk.path(path)))
        if pair is not None:
            found.setdefault(pair.collection, {})[path] = pair.sides
    return found


def _pair_states(
    walk: Walk,
    records: dict[str, dict[Side, str]],
    collection: Collection,
    encoders: CheckedEncoders,
) -> Iterator[PairState]:
    """What each pair of a collection has; a warning where that is not all."""
    for path, sides in records.items():
        counted = partial(_pair_state, path, sides, collection, encoders.by_fingerprint)
        pair = walk.checked(path, counted)
        if pair is None:
            continue
        missing = {side: state.missing for side, state in pair.sides.items() if state.missing}
        if missing:
            lacking = ", ".join(f"{rows} rows of '{side}'" for side, rows in missing.items())
            message = f"{pair.collection} lacks {lacking}. Run era-embed again to complete it."
            walk.add(Finding("warning", path, message))
        yield pair


def _pair_state(
    path: str, sides: dict[Side, str], collection: Collection, encoders: dict[str, CheckedEncoder]
) -> PairState:
    """Count the rows of each side. Raises ``FormatError`` where sides mix up roles or models."""
    known = {side: encoders.get(fingerprint) for side, fingerprint in sides.items()}
    specs = {side: encoder.spec for side, encoder in known.items() if encoder is not None}
    if mixed_up(specs):
        raise FormatError("its sides mix up roles or models. Remove it and run era-embed again.")
    states: dict[Side, SideState] = {}
    for side, role in ROLES.items():
        keys = collection.keys_of(role)
        encoder = known[side]
        stored, of = encoder.count(keys) if encoder else 0, len(keys)
        # Of the alignment documents, some are enough.
        missing = int(of > 0 and stored == 0) if side == "align" else of - stored
        states[side] = SideState(stored, of, missing)
    return PairState(path, f"{collection.name}-{collection.version}", states)
