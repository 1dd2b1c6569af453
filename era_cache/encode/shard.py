"""Shares of a collection that several machines encode, and whether all of them are done.

In: keys of texts, ``I/N``. Out: which of them are in a share. A share is chosen by key: shares are
balanced, need no list, and what is in which does not change when documents join the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import distinct_rows, key_halves
from era_cache.encode.parts import Part
from era_cache.errors import InputError, StoreError
from era_cache.store.store import Store
from era_cache.types import Array, Keys

__all__ = ["Lack", "check_complete", "lacking", "parse_shard", "share_of"]

_MOST_SHARES = 1_000_000
_MOST_BAD = 1000
"""So many texts without a vector may be texts that no vector can be made of."""


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``I/N``: share I, from 1, of N. Raises ``InputError``."""
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    number, count = (int(one) for one in match.groups()) if match else (0, 0)
    if not 1 <= number <= count <= _MOST_SHARES:
        raise InputError(f"--shard {text}: expected I/N with I from 1 to N, such as 3/8.")
    return number, count


def share_of(keys: Keys, shard: tuple[int, int]) -> Array:
    """Which of some keys are in a share, (n,) bool.

    By the second half of the key: the first one orders the sample of documents.
    """
    number, count = shard
    _, low = key_halves(keys)
    return np.asarray(low % np.uint64(count) == np.uint64(number - 1))


class Lack(NamedTuple):
    """How many distinct texts of a part the store has no vector of."""

    what: str
    encoder: str
    missing: int
    of: int

    def __str__(self) -> str:
        return f"{self.missing:,} of {self.of:,} {self.what} by {self.encoder}"


def lacking(store: Store, parts: Iterable[Part], dtype: str) -> list[Lack]:
    """The parts that are not complete, whatever share they are of."""
    found: dict[tuple[str, str], Lack] = {}
    for part in parts:
        distinct = distinct_rows(part.keys)
        fingerprint = part.encoder.spec.fingerprint(part.role)
        known = store.find_encoder(fingerprint)
        missing = len(distinct)
        if known is not None:
            missing = len(known.index().missing(part.keys[distinct], dtype))
        if missing:
            found[fingerprint, part.what] = Lack(
                part.what, part.encoder.spec.name, missing, len(distinct)
            )
    return list(found.values())


def check_complete(name: str, lacks: list[Lack], *, skip_bad_rows: bool) -> None:
    """Refuse to finish a collection of which shares are missing.

    Args:
        name: of the collection.
        lacks: from ``lacking``.
        skip_bad_rows: whether a few may be texts that no vector can be made of.

    Raises:
        StoreError: some shares were not encoded, or not to their end.
    """
    if sum(one.missing for one in lacks) <= (_MOST_BAD if skip_bad_rows else 0):
        return
    raise StoreError(
        f"{name} is not complete: {'; '.join(map(str, lacks))} are missing. Run the shares that "
        "did not end once more (--shard I/N; what is stored is not encoded again), then --finish."
    )
