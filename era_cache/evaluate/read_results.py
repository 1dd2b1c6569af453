"""Results from a folder that anyone may have made: everything is checked.

In: a folder as ``results_folder`` writes it. Out: ``Results``, or an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from era_cache.disk.files import os_errors, regular_file, sha256_file
from era_cache.disk.json_files import Record, read_record
from era_cache.disk.tensors import read_tensors
from era_cache.errors import FormatError
from era_cache.evaluate.results import (
    EDGES,
    SHIPPED,
    Count,
    Fit,
    Head,
    Histogram,
    Measured,
    Results,
    check_plain,
    in_order,
    job_name,
)
from era_cache.types import FloatArray

__all__ = ["FitRecord", "MeasuredRecord", "QueryIds", "read_fit", "read_results"]

_IDS_LIMIT = 1 << 28
_FIT_LIMIT = 1 << 26
_FIT_NAME = re.compile(r"[0-9a-f]{24}\.json")
_ROUNDING = 1e-6
Share = Annotated[float, Meta(ge=-_ROUNDING, le=1 + _ROUNDING)]
Bins = Annotated[tuple[Count, ...], Meta(min_length=len(EDGES) - 1, max_length=len(EDGES) - 1)]


class QueryIds(Record, frozen=True):
    """``queries.json``: the query ids of each collection by row."""

    FORMAT: ClassVar[str] = "era-queries"
    VERSION: ClassVar[int] = 1

    ids: dict[str, list[str]]


class MeasuredRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``Measured`` holds beside its values; rows are different ones, at least one."""

    collection: str
    candidates: tuple[str, ...]
    query_rows: Annotated[tuple[Count, ...], Meta(min_length=1)]
    scores: dict[str, dict[str, Bins]]

    def __post_init__(self) -> None:
        """Refuse what stands twice, or belongs to no candidate."""
        if len({*self.candidates, SHIPPED}) != len(self.candidates) + 1:
            raise ValueError("one candidate twice, or one named 'shipped'")
        if len(set(self.query_rows)) != len(self.query_rows):
            raise ValueError("the same query row twice")
        if not set(self.scores) <= set(self.candidates):
            raise ValueError("scores of an unknown candidate")
        if any(set(found) != set(Histogram._fields) for found in self.scores.values()):
            raise ValueError(f"scores are counts of {', '.join(Histogram._fields)}")


class FitRecord(Record, frozen=True):
    """``fits/<job>.json``: a ``Fit``, and the SHA-256 of the file of its values."""

    FORMAT: ClassVar[str] = "era-fit-results"
    VERSION: ClassVar[int] = 1

    sha256: str
    job: dict[str, Any]
    trained_on: str
    labels: Annotated[float, Meta(ge=0, le=1)]
    split_seed: Annotated[int, Meta(ge=0, lt=2**62)]
    queries: dict[str, Count]
    held_out: dict[str, Share]
    chosen: str
    reason: str
    seconds: dict[str, Annotated[float, Meta(ge=0, lt=2**53)]]
    measured: Annotated[tuple[MeasuredRecord, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Refuse a collection measured twice, or without the chosen candidate."""
        check_plain(self.job)
        if len({one.collection for one in self.measured}) < len(self.measured):
            raise ValueError("the same collection was measured twice")
        if any(self.chosen not in one.candidates for one in self.measured):
            raise ValueError(f"the chosen {self.chosen!r} was not measured")


def read_results(folder: Path) -> Results:
    """Read a folder of results, which anyone may have made.

    Raises:
        FormatError: not such a folder, damaged or newer.
        StoreError: it cannot be read.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise FormatError(
            f"{folder}: no results here (no results.json). era-eval writes them to its --out."
        )
    head = read_record(path, Head)
    ids = read_record(folder / "queries.json", QueryIds, _IDS_LIMIT).ids
    if set(ids) != set(head.collections):
        raise FormatError(f"{folder / 'queries.json'}: not the collections of results.json.")
    with os_errors("reading", folder / "fits"):
        paths = [p for p in (folder / "fits").iterdir() if _FIT_NAME.fullmatch(p.name)]
    fits = in_order(read_fit(path, head, ids) for path in sorted(paths))
    known = set(head.adapters.values())
    for fit in fits:
        if head.protocol == "adapter" and known and fit.job.get("adapter") not in known:
            raise FormatError(
                f"{folder}: holds the fit of an adapter that results.json does not name. Measure "
                "the adapter again."
            )
    return Results(head, ids, fits)


def read_fit(path: Path, head: Head, ids: Mapping[str, Sequence[str]]) -> Fit:
    """Read one fit and its values. Raises ``FormatError`` and ``StoreError``."""
    record = read_record(path, FitRecord, _FIT_LIMIT)
    values = path.with_suffix(".safetensors")
    with os_errors("reading", values):
        with regular_file(values):  # neither a link nor a pipe
            digest = sha256_file(values)
        if digest != record.sha256:
            raise FormatError(f"{values}: not what {path.name} names; damaged. Remove both.")
    if job_name(record.job) != path.stem:
        raise FormatError(f"{path}: its name is not that of its job.")
    try:
        tensors = read_tensors(values, {str(i) for i in range(len(record.measured))})
        measured = tuple(
            _measured(one, tensors[str(i)], head, ids) for i, one in enumerate(record.measured)
        )
    except ValueError as error:
        raise FormatError(f"{path}: damaged: {error}.") from error
    fields = {name: getattr(record, name) for name in Fit._fields}
    return Fit(**{**fields, "measured": measured})


def _measured(
    record: MeasuredRecord, values: FloatArray, head: Head, ids: Mapping[str, Sequence[str]]
) -> Measured:
    rows = np.array(record.query_rows, dtype=np.int64)
    if rows.max() >= len(ids.get(record.collection, ())):
        raise ValueError(f"query rows out of range, or an unknown {record.collection!r}")
    if values.shape != (len(record.candidates), len(head.measures), len(rows)):
        raise ValueError(f"values of shape {values.shape}")
    if not (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        raise ValueError("values that are no shares")
    scores = {
        candidate: Histogram(*(np.array(found[part]) for part in Histogram._fields))
        for candidate, found in record.scores.items()
    }
    return Measured(record.collection, record.candidates, rows, values, scores)
