"""What verifying a store found: records for a table or JSON.

In: nothing but numbers, paths and texts. Out: findings by their weight, and what each encoder and
each recorded pair has.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from era_cache.store.pair import Side
from era_cache.store.verify.row_scan import Norms

__all__ = ["EncoderState", "Finding", "PairState", "Report"]


class Finding(NamedTuple):
    """Something that is not as it should be."""

    level: str
    """``damage``; ``newer``: of a version that only a newer ERA Cache reads; ``warning``."""
    path: str
    """Within the store."""
    message: str
    """What is wrong, and what to do unless it was ``done``."""
    done: str = ""
    """``quarantined`` or ``deleted`` where that was asked for and done."""
    missing_rows: int | None = None
    """Distinct rows that only this segment had, as far as its keys can be read."""


class EncoderState(NamedTuple):
    """One encoder's folder; numbers are those of its sound segments."""

    folder: str
    encoder: str
    role: str
    fingerprint: str
    segments: int
    rows: int
    bytes: int
    norms: Norms
    index_files: int
    retired: int
    quarantined: int

    def record(self) -> dict[str, Any]:
        """As JSON."""
        norms = self.norms
        measured = None
        if norms.rows:
            measured = {
                "smallest": norms.smallest,
                "mean": norms.total / norms.rows,
                "largest": norms.largest,
                "suspicious_rows": norms.suspicious,
            }
        return {**self._asdict(), "norms": measured}


class PairState(NamedTuple):
    """A pair of encoders that a collection was embedded for."""

    path: str
    collection: str
    sides: dict[Side, tuple[int, int]]
    """Rows stored, and rows of the collection; of ``align``, some are enough."""

    @property
    def missing(self) -> dict[str, int]:
        """How many rows each side lacks that needs them."""
        lacking = {side: of - stored for side, (stored, of) in self.sides.items()}
        stored, of = self.sides["align"]
        lacking["align"] = int(of > 0 and stored == 0)
        return {side: rows for side, rows in lacking.items() if rows}

    def record(self) -> dict[str, Any]:
        """As JSON."""
        sides = {
            side: {"stored": stored, "of": of, "missing": self.missing.get(side, 0)}
            for side, (stored, of) in self.sides.items()
        }
        return {"path": self.path, "collection": self.collection, "sides": sides}


class Report(NamedTuple):
    """A whole store."""

    store: str
    findings: list[Finding]
    encoders: list[EncoderState]
    collections: int
    pairs: list[PairState]
    missing_rows: int
    """Distinct rows that only damaged segments had, over all encoders."""
    temporaries: int
    orphans: list[str]
    """Names that are not ours; nothing reads them."""
    bytes: int
    seconds: float

    def of_level(self, level: str) -> list[Finding]:
        """The findings of one weight."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def ok(self) -> bool:
        """Whether there is no damage."""
        return not self.of_level("damage")

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self._asdict(),
            "ok": self.ok,
            "findings": [finding._asdict() for finding in self.findings],
            "encoders": [encoder.record() for encoder in self.encoders],
            "pairs": [pair.record() for pair in self.pairs],
        }
