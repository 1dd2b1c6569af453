"""What segments say of who made them: in which order they were written, and what a merged one says.

In: segments. Out: a sort key, or JSON.
"""

from __future__ import annotations

from typing import Any

from era_cache.disk.json_files import canonical_json
from era_cache.store.segment import Segment

__all__ = ["merged_provenance", "provenance_text", "written_order"]

_MOST_SOURCES = 24
_LIMIT = 16_000
_KEPT = ("created", "writer", "sequence", "merged", "stated", "era-cache")
"""What stays of a provenance that is too long: docs/format.md builds on the writer's token."""


def provenance_text(provenance: dict[str, Any]) -> str:
    """The canonical JSON of a provenance, of at most 16,000 bytes."""
    note = canonical_json(provenance)
    if len(note) > _LIMIT:
        kept = {name: provenance[name] for name in _KEPT if name in provenance}
        note = canonical_json({**kept, "note": "provenance too long"})
    if len(note) > _LIMIT:  # of a caller that puts more into these than anyone here does
        kept = {name: provenance[name] for name in _KEPT[:2] if name in provenance}
        note = canonical_json({**kept, "note": "provenance too long"})
    return note.decode("utf-8")


def written_order(segment: Segment) -> tuple[str, str, int, str]:
    """Sorts segments in the order in which they were written."""
    about = segment.about() or {}
    sequence = about.get("sequence")
    number = sequence if isinstance(sequence, int) else 0
    return str(about.get("created")), str(about.get("writer")), number, segment.path.name


def merged_provenance(batch: list[Segment]) -> dict[str, Any]:
    """What the merged segments say of themselves, each statement once."""
    said: list[dict[str, Any]] = []
    for segment in batch:
        about = segment.about() or {}
        about.pop("sequence", None)
        about.pop("writer", None)
        # A time for each of a thousand segments says nothing; the day does.
        about["created"] = str(about.get("created"))[:10]
        for one in about.pop("sources", None) or [about]:
            if one not in said:
                said.append(one)
    left_out = len(said) - _MOST_SOURCES
    more = {"sources_left_out": left_out} if left_out > 0 else {}
    return {"sources": said[:_MOST_SOURCES], "merged": len(batch), **more}
