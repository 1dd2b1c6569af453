"""Moving stores: copy what one place has and another lacks.

In: two places, of which at least one is a folder here. Out: a report. The name of a segment is the
digest of its content, so that names alone say what is missing; a file from elsewhere is staged,
checked completely and only then given its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from era_cache.store.names import ENCODER_NAME, list_names, refuse_strangers
from era_cache.store.retired import is_replaced
from era_cache.store.store import Store
from era_cache.store.sync.packs import PackPlace, pack_writer
from era_cache.store.sync.places import LocalPlace, Place
from era_cache.store.sync.plan import list_source
from era_cache.store.sync.remote import place_at
from era_cache.store.sync.transfer import (
    RefusedError,
    Transfer,
    TransferReport,
    bring,
    send,
    summed,
)
from era_cache.types import Progress, silent

__all__ = ["merge", "pack", "pull", "push", "unpack"]


def _finished(report: TransferReport) -> TransferReport:
    if report.refused:
        raise RefusedError(report)
    return report


def _copy_in(
    source: Place, into: LocalPlace, *, dry_run: bool, progress: Progress
) -> TransferReport:
    def replaced(folder: str, digest: str) -> bool:
        own = into.path(f"encoders/{folder}")
        # The same fingerprint may lie there under several names.
        ending = "-".join(folder.rsplit("-", 2)[1:])
        names = list_names(own.parent, ENCODER_NAME, folders=True)
        return is_replaced([own.parent / n for n in names if n.endswith(f"-{ending}")], digest)

    listing = list_source(source)
    if not dry_run:
        Store.create(into.root)
    transfer = Transfer(source, listing, into, into.label, replaced)
    if dry_run:
        transfer.dry_run()
    else:
        into.clean({step.target.rpartition("/")[0] for step in transfer.plan.steps})
        transfer.run(lambda step: bring(source, into, step), progress)
        for encoder in Store.open(into.root).encoders():
            encoder.keep_index()
    return transfer.report()


def merge(
    into: Path,
    sources: Iterable[Path],
    *,
    dry_run: bool = False,
    progress: Progress = silent,
) -> TransferReport:
    """Copy everything that a store lacks from other stores on this machine.

    Args:
        into: the store; made where there is nothing yet.
        sources: the other stores.
        dry_run: only say what would be copied.
        progress: told how many files are done.

    Returns:
        The sum over all sources.

    Raises:
        RefusedError: some files are damaged; the others of all sources were copied.
        FormatError: a store is of a newer version, or ``into`` is damaged.
        StoreError: a store cannot be read or written; what was copied is kept.
    """
    target = LocalPlace(into)
    reports = [
        _copy_in(LocalPlace(source), target, dry_run=dry_run, progress=progress)
        for source in sources
    ]
    return _finished(summed(reports))


def pull(
    url: str, store: Path, *, dry_run: bool = False, progress: Progress = silent
) -> TransferReport:
    """Copy everything that a store lacks from a store at a URL.

    Args:
        url: of any protocol that fsspec speaks, or the path of a folder.
        store: made where there is nothing yet.
        dry_run: only say what would be copied.
        progress: told how many files are done.

    Raises:
        InputError: the URL is of no known kind.
        RefusedError: some files are damaged; the others were copied.
        FormatError: a store is of a newer version, or this one is damaged.
        StoreError: there is no store, or the connection failed; what was copied is kept.
    """
    into = LocalPlace(store)
    return _finished(_copy_in(place_at(url), into, dry_run=dry_run, progress=progress))


def push(
    store: Path, url: str, *, dry_run: bool = False, progress: Progress = silent
) -> TransferReport:
    """Copy everything that a store at a URL lacks from a store on this machine.

    Arguments and errors are those of ``pull``.
    """
    source, target = LocalPlace(store), place_at(url)
    if isinstance(target, LocalPlace):
        return _finished(_copy_in(source, target, dry_run=dry_run, progress=progress))
    transfer = Transfer(source, list_source(source), target, target.label)
    if any(step.kind == "store" for step in transfer.plan.steps):
        refuse_strangers(target.label, [entry.name for entry in target.entries("")])
    if dry_run:
        transfer.dry_run()
    else:
        transfer.run(lambda step: send(source, target, step), progress)
    return _finished(transfer.report())


def pack(store: Path, path: Path, *, progress: Progress = silent) -> TransferReport:
    """Write a store into one uncompressed tar file.

    Equal stores give equal packs.

    Args:
        store: the store.
        path: the tar file to make.
        progress: told how many files are done.

    Raises:
        InputError: the tar file exists.
        RefusedError: some files are damaged; the pack holds the others.
        FormatError: the store is of a newer version.
        StoreError: there is no store, or the pack cannot be written.
    """
    source = LocalPlace(store)
    with pack_writer(path) as writer:
        transfer = Transfer(source, list_source(source), None, str(path))
        transfer.run(lambda step: send(source, writer, step), progress)
    return _finished(transfer.report())


def unpack(
    path: Path, store: Path, *, dry_run: bool = False, progress: Progress = silent
) -> TransferReport:
    """Copy everything that a store lacks from a pack.

    Args:
        path: the tar file.
        store: made where there is nothing yet.
        dry_run: only say what would be copied.
        progress: told how many files are done.

    Raises:
        RefusedError: some files are damaged; the others were copied.
        FormatError: not a tar file, cut off, or of a newer version.
        StoreError: it holds no store, or the store cannot be written.
    """
    into = LocalPlace(store)
    with PackPlace(path) as source:
        return _finished(_copy_in(source, into, dry_run=dry_run, progress=progress))
