"""Texts that an encoder has no usable vector for: all of them named, and their equals found.

In: what embedding found. Out: an error, or rows of a collection.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import key_halves
from era_cache.encode.encoder import Encoder
from era_cache.errors import EncoderError
from era_cache.types import IntArray, Keys, Role

__all__ = ["BadRow", "rows_of_equals", "unusable"]

_SHOWN = 20


class BadRow(NamedTuple):
    """A text that an encoder has no usable vector for; ``row`` counts in the collection."""

    encoder: Encoder
    role: Role
    row: int
    name: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.role.value} '{self.name}': {self.what}"


def rows_of_equals(bad: list[BadRow], role: Role, keys: Keys) -> IntArray:
    """Rows of the collection with the text of a bad one; only the first of equals was encoded."""
    rows = [one.row for one in bad if one.role is role]
    halves = key_halves(keys)
    return np.flatnonzero(np.logical_and(*(np.isin(half, half[rows]) for half in halves)))


def unusable(bad: list[BadRow]) -> EncoderError:
    """The error that names all of them, as far as people read."""
    first = bad[0]
    more = f"\n  and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    return EncoderError(
        f"{first.encoder.spec.name} returned {first.what} for {first.role.value} '{first.name}'"
        + (f" ({len(bad):,} such texts):\n" if len(bad) > 1 else ". ")
        + ("\n".join(f"  {one}" for one in bad[:_SHOWN]) + more + "\n" if len(bad) > 1 else "")
        + f"{first.mend} --skip-bad-rows leaves such texts out."
    )
