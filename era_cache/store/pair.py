"""What the four sides of a pair of encoders must have in common.

In: descriptions of encoders by side. Out: whether they make a pair.
"""

from __future__ import annotations

from collections.abc import Mapping

from era_cache.store.encoder_record import StoredSpec
from era_cache.types import Role

__all__ = ["ROLES", "mixed_up"]

ROLES = {
    "query": Role.QUERY,
    "small_query": Role.QUERY,
    "document": Role.DOCUMENT,
    "align": Role.DOCUMENT,
}
"""Role of each side; ``align`` is the large model on documents."""


def mixed_up(specs: Mapping[str, StoredSpec]) -> bool:
    """Whether the sides at hand mix up roles or models; a side that is not stored is left out."""
    spaces = {side: spec.space for side, spec in specs.items()}
    wrong = any(spec.role is not ROLES[side] for side, spec in specs.items())
    for one, other in (("query", "align"), ("small_query", "document")):
        wrong |= one in spaces and other in spaces and spaces[one] != spaces[other]
    return wrong
