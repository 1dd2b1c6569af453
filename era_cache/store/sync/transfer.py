"""Carrying out a transfer: files are copied one by one, each checked before it counts.

In: a plan and two places. Out: a report. A file that is refused does not stop the others; a place
that cannot be reached any more stops everything, and what was copied stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

from era_cache.disk.files import os_errors, sha256_file
from era_cache.errors import FormatError, StoreError
from era_cache.store.names import FOLDER
from era_cache.store.segment import has_vanished
from era_cache.store.sync.places import LIMITS, Listing, LocalPlace, Place, limited
from era_cache.store.sync.plan import Plan, Step, plan_transfer, shown_as
from era_cache.types import Progress

__all__ = ["KindCounts", "RefusedError", "Transfer", "TransferReport", "bring", "send", "summed"]


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


class _Sink(Protocol):
    """Somewhere outside that takes checked files from here."""

    def send(self, local: Path, name: str) -> int:
        """Take a file; gives its size."""


class Transfer:
    """One transfer: from a plan to a report.

    Args:
        source: where files come from.
        listing: what lies there.
        target: where they go; None where nothing can be there yet.
        destination: names the target.
        replaced: whether a segment (folder of its encoder, digest) lives on in another one there.
    """

    def __init__(
        self,
        source: Place,
        listing: Listing,
        target: Place | None,
        destination: str,
        replaced: Callable[[str, str], bool] = lambda _folder, _digest: False,
    ) -> None:
        self._source, self._destination = source.label, destination
        self._threads = max(source.threads, target.threads if target else 1)
        self._begun = time.monotonic()
        self.plan: Plan = plan_transfer(source, listing, target, replaced)
        self._copied: list[str] = []
        self._bytes = 0

    def run(self, copy: Callable[[Step], int], progress: Progress) -> None:
        """Carry out the plan.

        Args:
            copy: copies one file and gives its size; -1 where it was there by now.
            progress: told how many files are done.

        Raises:
            StoreError: a place cannot be read or written any more.
        """
        done = 0
        for _, group in groupby(self.plan.steps, key=lambda step: step.kind):
            for step, result in _each(self._threads, copy, list(group)):
                done += 1
                progress("files", done, len(self.plan.steps))
                if isinstance(result, FormatError):
                    self.plan.refuse(step.name, str(result))
                elif result < 0:
                    self.plan.counts[step.kind, "present"] += 1
                else:
                    self._count(step, result)

    def dry_run(self) -> None:
        """Count the plan as if it were carried out."""
        for step in self.plan.steps:
            self._count(step, max(0, step.size))

    def _count(self, step: Step, size: int) -> None:
        self._copied.append(step.target)
        self.plan.counts[step.kind, "copied"] += 1
        self._bytes += size

    def report(self) -> TransferReport:
        """What was done."""
        counts = {
            kind: KindCounts(*(self.plan.counts[kind, what] for what in KindCounts._fields))
            for kind in (*LIMITS, FOLDER)
        }
        return TransferReport(
            self._source,
            self._destination,
            {kind: count for kind, count in counts.items() if any(count)},
            sorted(self._copied),
            self._bytes,
            time.monotonic() - self._begun,
            self.plan.refused,
        )


def _each(
    threads: int, copy: Callable[[Step], int], steps: list[Step]
) -> Iterator[tuple[Step, int | FormatError]]:
    """Copy files, several at a time where a place allows it; a refusal is a result."""

    def attempt(step: Step) -> int | FormatError:
        try:
            return copy(step)
        except FormatError as error:
            return error

    if threads == 1 or len(steps) == 1:
        yield from ((step, attempt(step)) for step in steps)
        return
    with ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(attempt, step): step for step in steps}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _retired(step: Step) -> str:
    """Where a segment lies once another has replaced it: whole, for a day at least."""
    return step.name.replace("/segments/", "/retired/")


def bring(source: Place, store: LocalPlace, step: Step) -> int:
    """Copy a file into a store here.

    Returns:
        Its size in bytes; -1 where it was there by now.

    Raises:
        FormatError: it is not what its name says, or gone.
        StoreError: a place cannot be read or written.
    """
    there = store.size(step.target)
    if there is not None and (step.kind != "segment" or there == step.size):
        return -1  # another transfer was faster
    shown, limit = f"{source.label}/{step.name}", LIMITS[step.kind]

    def check(path: Path, digest: str) -> None:
        with shown_as(path, shown):
            step.check(path, digest)

    names = [step.name, _retired(step)] if step.kind == "segment" else [step.name]
    for name in names:
        try:
            if isinstance(source, LocalPlace) and step.look is not None:
                with shown_as(source.path(name), shown):
                    step.look(source.path(name))
            return store.receive(step.target, limited(source.chunks(name), limit, shown), check)
        except StoreError as error:
            if not has_vanished(error):
                raise
    raise _gone(shown)


def send(store: LocalPlace, sink: _Sink, step: Step) -> int:
    """Check a file here, and copy it to somewhere outside.

    Returns, and raises, as ``bring`` does.
    """
    path = store.path(step.name)
    if not path.is_file() and step.kind == "segment":
        path = store.path(_retired(step))
    if not path.is_file():
        raise _gone(str(path))
    if step.look is not None:
        step.look(path)
    with os_errors("reading", path):
        digest = sha256_file(path) if step.kind == "segment" else ""
    step.check(path, digest)
    return sink.send(path, step.target)


def _gone(shown: str) -> FormatError:
    return FormatError(f"{shown}: was removed while its store was copied.")
