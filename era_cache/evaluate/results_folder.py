"""What was measured on test queries, value by value, in a folder that grows with each fit measured.

In: values of each candidate, measure and query. Out: a folder that a later run goes on from, and
that reports, exports and reproductions read (docs/format.md).

    results.json            what was measured: protocol, configuration, collections, encoders
    queries.json            query ids of each collection
    fits/<job>.json         one fit: what it was trained on, its candidates, the queries measured
    fits/<job>.safetensors  its values

Values stand before the file that names them: a fit whose JSON is there is whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from era_cache.disk.files import (
    TEMPORARY_PREFIX,
    is_companion,
    make_folder,
    os_errors,
    remove_stale_temporaries,
    sha256_file,
    write_bytes,
)
from era_cache.disk.json_files import canonical_json, read_record, write_record
from era_cache.errors import FormatError, InputError, NewerError
from era_cache.evaluate.read_results import (
    FitRecord,
    MeasuredRecord,
    QueryIds,
    read_fit,
    read_results,
)
from era_cache.evaluate.results import (
    Fit,
    Head,
    Results,
    in_order,
    job_name,
)

__all__ = ["ResultsFolder"]

_IDENTITY = ("protocol", "measures", "collections", "encoders", "adapters")
_FIXED = ("recipe", "split", "test", "validation", "label_count", "documents", "aligned_on")
"""Options that all fits of a folder share; shares of the labels and shuffles may be added."""


class ResultsFolder:
    """A folder of results that fits are added to.

    Args:
        folder: made where it is missing.
        head: what all fits share; a folder of another protocol, other measures, collections,
            encoders, adapters, recipe or split is refused.
        query_ids: of each collection.
        anew: what the folder has of the same thing is replaced, not added to.
        overwrite: so is what it has of another thing.

    Raises:
        InputError: the folder holds results of something else, or other files.
        FormatError: damaged.
        StoreError: it cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        head: Head,
        query_ids: Mapping[str, Sequence[str]],
        *,
        anew: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder, self.head = folder, head
        self._ids = {name: list(query_ids[name]) for name in sorted(query_ids)}
        self._fits: dict[str, Fit] = {}
        if anew:
            _check_replaceable(folder, head, overwrite=overwrite)
        elif (folder / "results.json").is_file():
            old = read_results(folder)
            _check_same(folder, old.head, head)
            self.head = _grown(old.head, head)
            self._fits = {job_name(fit.job): fit for fit in old.fits}
        else:
            _check_free(folder)
        make_folder(folder, may_be_link=True)
        make_folder(folder / "fits")
        for part in (folder, folder / "fits"):
            remove_stale_temporaries(part)
        if anew:
            with os_errors("clearing", folder / "fits"):
                for path in (folder / "fits").iterdir():
                    if re.fullmatch(r"[0-9a-f]{24}\.(json|safetensors)", path.name):
                        path.unlink()
        write_record(folder / "queries.json", QueryIds(ids=self._ids))
        self.write_head(self.head)

    def write_head(self, head: Head) -> None:
        """Replace the head: its costs and notes may grow with the fits."""
        self.head = head
        write_record(self.folder / "results.json", head)

    def get(self, job: Mapping[str, Any]) -> Fit | None:
        """The fit of a job, None where nobody has added it.

        Raises:
            FormatError: another run has just added it, and it is damaged.
            StoreError: it cannot be read.
        """
        name = job_name(job)
        path = self.folder / "fits" / f"{name}.json"
        if name not in self._fits and path.is_file():
            self._fits[name] = read_fit(path, self.head, self._ids)
        return self._fits.get(name)

    def add(self, fit: Fit) -> None:
        """Keep a fit: first its values, then the file that names them.

        One that another run has added in the meantime stands.
        """
        from safetensors.numpy import save

        name = job_name(fit.job)
        if self.get(fit.job) is not None:
            return
        values = self.folder / "fits" / f"{name}.safetensors"
        tensors = {
            str(i): np.ascontiguousarray(one.values, dtype=np.float32)
            for i, one in enumerate(fit.measured)
        }
        write_bytes(values, save(tensors))
        measured = tuple(
            MeasuredRecord(
                one.collection,
                tuple(one.candidates),
                tuple(one.query_rows.tolist()),
                {
                    candidate: {part: tuple(counts.tolist()) for part, counts in parts.items()}
                    for candidate, found in one.scores.items()
                    for parts in [found._asdict()]
                },
            )
            for one in fit.measured
        )
        record = FitRecord(**{**fit._asdict(), "sha256": sha256_file(values), "measured": measured})
        write_record(self.folder / "fits" / f"{name}.json", record)
        self._fits[name] = fit

    def results(self) -> Results:
        """All that is there."""
        return Results(self.head, self._ids, in_order(self._fits.values()))


def _check_free(folder: Path) -> None:
    """Refuse a folder with other files; what a run left that died at its start is ours."""
    with os_errors("reading", folder):
        if not folder.exists():
            return
        paths = [*folder.iterdir()]
        if (folder / "fits").is_dir():
            paths += [*(folder / "fits").iterdir()]
    others = [
        path.name
        for path in paths
        if path.name not in ("fits", "queries.json")
        and not path.name.startswith(TEMPORARY_PREFIX)
        and not is_companion(path.name)
    ]
    if others:
        raise InputError(f"{folder}: holds other files ({min(others)}). Give a new folder.")


def _check_replaceable(folder: Path, head: Head, *, overwrite: bool) -> None:
    """Refuse to clear away fits of another thing, which may have taken days."""
    if not (folder / "results.json").is_file():
        return
    try:
        old = read_record(folder / "results.json", Head)
    except NewerError:
        raise
    except FormatError:
        return
    if old.protocol != head.protocol:
        raise InputError(
            f"{folder}: holds results of the protocol {old.protocol!r}, which would be lost. Give "
            "another folder."
        )
    differing = [
        part for part in ("collections", "encoders") if getattr(old, part) != getattr(head, part)
    ]
    # The adapter itself comes first; rows of others may come and go.
    if list(old.adapters.values())[:1] != list(head.adapters.values())[:1]:
        differing.append("adapter")
    if differing and not overwrite:
        raise InputError(
            f"{folder}: holds results of another {', '.join(differing)}, which would be lost. Give "
            "another folder, or replace them with --overwrite."
        )


def _grown(old: Head, new: Head) -> Head:
    """The new head, with what the old one says was run and is to be there."""
    commands = tuple(dict.fromkeys([*old.commands, *new.commands]))
    environment = {
        # Fits of other versions stay: both are named.
        name: value
        if old.environment.get(name, value) == value
        else f"{old.environment[name]}, {value}"
        for name, value in new.environment.items()
    }
    planned = tuple(dict.fromkeys([*old.extra.planned, *new.extra.planned]))
    extra = replace(new.extra, planned=planned)
    return replace(new, commands=commands, environment=environment, extra=extra)


def _check_same(folder: Path, old: Head, new: Head) -> None:
    differing = [part for part in _IDENTITY if getattr(old, part) != getattr(new, part)]
    options = [old.configuration, new.configuration]
    differing += [  # as JSON has them: its lists may be tuples here
        part.replace("_", " ")
        for part in _FIXED
        if len({canonical_json(one.get(part)) for one in options}) > 1
    ]
    if differing:
        raise InputError(
            f"{folder}: holds results of another {', '.join(differing)}. Give a new folder, or the "
            "inputs that it was made with."
        )
