"""Versions of a collection's name: which is the newest, and what is doubtful about that.

In: the stored versions of a name. Out: a sort key, the next number, or a sentence. Each version
that is embedded counts one above those that are there; clocks only break ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from era_cache.collection.records import Collection
from era_cache.collection.stored import Stated

__all__ = ["conflict_of", "next_generation", "recency"]


def recency(collection: Collection) -> Stated:
    """Sorts versions such that the newest comes last."""
    return Stated(collection.generation, collection.created, collection.digest)


def next_generation(known: Iterable[Stated], digest: str) -> int:
    """The number of a version that is embedded now: one above those of all others, by digest."""
    return 1 + max((one.generation for one in known if one.digest != digest), default=0)


def conflict_of(versions: Sequence[Collection]) -> str:
    """What is doubtful about the newest of some versions, as a sentence; empty if nothing is.

    Two of the same number come from stores that did not know of each other.
    """
    if len(versions) < 2:
        return ""
    *older, newest = sorted(versions, key=recency)
    equal = [one.version for one in older if one.generation == newest.generation]
    domains = sorted({one.domain or "none" for one in older if one.domain != newest.domain})
    found = []
    if equal and newest.generation:
        found.append(
            f"{', '.join(equal)} of another store may be as new; by the clock {newest.version} "
            f"is taken (name a version, as {newest.name}-{equal[0]}, or embed again)"
        )
    if domains:
        found.append(
            f"versions of other domains ({', '.join(domains)}) may be another collection of "
            "the same name (era-embed --name gives one of them a new one)"
        )
    return "; ".join(found)
