"""What became of a transfer: counts by kind of file, and what was refused.

In: nothing but numbers and paths. Out: records for a table or JSON, and the one error that lists
what was refused.
"""

from __future__ import annotations

from typing import NamedTuple

from era_cache.errors import FormatError

__all__ = ["KindCounts", "RefusedError", "TransferReport", "summed"]

# Reasons that an error lists; a store that is damaged throughout must not fill the screen.
_SHOWN = 20


class KindCounts(NamedTuple):
    """What became of the files of one kind."""

    copied: int
    present: int
    """Were there already."""
    replaced: int
    """Segments that the destination has merged into others."""
    refused: int


class TransferReport(NamedTuple):
    """What a transfer did, or would do."""

    source: str
    destination: str
    kinds: dict[str, KindCounts]
    files: list[str]
    """Paths in the destination of what was (or would be) copied."""
    bytes: int
    seconds: float
    refused: dict[str, str]
    """Path in the source, and why it was not copied."""


class RefusedError(FormatError):
    """Some files were refused; all the others were copied, as ``report`` tells."""

    def __init__(self, report: TransferReport) -> None:
        self.report = report
        reasons = list(report.refused.values())
        shown = "\n".join(f"  {reason}" for reason in reasons[:_SHOWN])
        rest = f"\n  and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        files = "file" if len(reasons) == 1 else "files"
        super().__init__(
            f"{report.source}: {len(reasons)} {files} refused, all others are in "
            f"{report.destination}. Mend or remove them at the source, and run the same command "
            "again.\n"
            f"{shown}{rest}"
        )


def summed(reports: list[TransferReport]) -> TransferReport:
    """One report of several transfers into one place."""
    kinds: dict[str, KindCounts] = {}
    for report in reports:
        for kind, counts in report.kinds.items():
            before = kinds.get(kind, KindCounts(0, 0, 0, 0))
            kinds[kind] = KindCounts(*map(sum, zip(before, counts, strict=True)))
    return TransferReport(
        source=", ".join(report.source for report in reports),
        destination=reports[0].destination,
        kinds=kinds,
        files=sorted({name for report in reports for name in report.files}),
        bytes=sum(report.bytes for report in reports),
        seconds=sum(report.seconds for report in reports),
        refused={f"{r.source}/{name}": why for r in reports for name, why in r.refused.items()},
    )
