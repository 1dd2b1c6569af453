"""Results from a folder that anyone may have made: everything is checked.

In: a folder as ``results_folder`` writes it. Out: ``Results``, or an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.disk.files import (
    os_errors,
    regular_file,
    sha256_file,
)
from era_cache.disk.json_files import read_json
from era_cache.disk.tensors import read_tensors
from era_cache.errors import FormatError
from era_cache.evaluate.results import (
    EDGES,
    FIT_FORMAT,
    FORMAT,
    SHIPPED,
    VERSION,
    Fit,
    Head,
    Histogram,
    Measured,
    Results,
    in_order,
    job_name,
)
from era_cache.types import FloatArray, IntArray

__all__ = ["read_fit", "read_head", "read_results"]

_IDS_LIMIT = 1 << 28


_FIT_LIMIT = 1 << 26


_DEPTH = 20


_MOST = 2**53


_FIT_NAME = re.compile(r"[0-9a-f]{24}\.json")


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
    head = read_head(path)
    ids = _read_ids(folder, head)
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


def read_head(path: Path) -> Head:
    """Read ``results.json``. Raises ``FormatError``."""
    record = read_json(path, FORMAT, VERSION)
    try:
        _check_plain(record)
        head = Head(**{name: record[name] for name in Head._fields})
        _check_head(head)
        costs = [{part: cost[part] for part in ("what", "value")} for cost in head.costs]
        _texts(*(text for cost in costs for text in cost.values()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: damaged: {error!r}.") from error
    return head._replace(measures=tuple(head.measures), costs=costs)


def _check_head(head: Head) -> None:
    _texts(head.protocol, head.title, head.primary)
    for listed in (head.measures, head.commands, head.notes, head.costs):
        _check_type(listed, list)
    _texts(*head.measures, *head.commands, *head.notes)
    if head.primary not in head.measures or len(set(head.measures)) != len(head.measures):
        raise ValueError("no primary measure, or the same measure twice")
    if not head.collections:
        raise ValueError("no collections")
    for entry in head.collections.values():
        _texts(entry["digest"], entry["domain"])
        _counts_of([entry["documents"], entry["queries"]])
    for entry in head.encoders.values():
        _texts(entry["name"], entry["fingerprint"])
    for named in (head.adapters, head.environment):
        _texts(*named.values())
    for options in (head.configuration, head.extra):
        _check_type(options, dict)
    _check_type(head.extra.get("planned", []), list)
    _texts(*head.extra.get("planned", []))
    for found in head.extra.get("int8", {}).values():
        for row in (found[head.primary], *found.values()):
            _shares(row["mean"], abs(row["difference"]))
            _shares(abs(row["difference_low"]), abs(row["difference_high"]), row["p"])


def _check_plain(value: Any, depth: int = 0) -> None:
    """Refuse JSON that cannot be written again: not finite, too deep, or no Unicode."""
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, int | float) and not abs(value) < 2**63:  # NaN is not, either
        raise ValueError("a number that is not finite, or too large")
    elif isinstance(value, dict):
        for name, one in value.items():
            name.encode("utf-8")
            _check_plain(one, depth + 1)
    elif isinstance(value, list):
        for one in value:
            _check_plain(one, depth + 1)


def _check_type(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} is expected")


def _texts(*values: Any) -> None:
    for value in values:
        _check_type(value, str)


def _shares(*values: Any) -> None:
    """Values of measures: numbers from 0 to 1, give or take rounding."""
    for value in values:
        if isinstance(value, bool) or not -1e-6 <= value <= 1 + 1e-6:
            raise ValueError(f"{value!r} is no share")


def _counts_of(values: Any) -> IntArray:
    """Whole numbers that are not negative, (n,) int64; nothing else is taken for one."""
    if not isinstance(values, list) or set(map(type, values)) - {int}:
        raise TypeError("whole numbers are expected")
    counts = np.array(values, dtype=np.int64)
    if len(counts) and not 0 <= counts.min() <= counts.max() <= _MOST:
        raise ValueError("a number out of range")
    return counts


def _read_ids(folder: Path, head: Head) -> dict[str, list[str]]:
    path = folder / "queries.json"
    ids = read_json(path, "era-queries", 1, limit=_IDS_LIMIT).get("ids")
    if not isinstance(ids, dict) or set(ids) != set(head.collections):
        raise FormatError(f"{path}: not the collections of results.json.")
    for name, rows in ids.items():
        try:
            _check_type(rows, list)
            "".join(rows).encode("utf-8")
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}: the query ids of {name!r} are no texts.") from error
    return ids


def read_fit(path: Path, head: Head, ids: Mapping[str, Sequence[str]]) -> Fit:
    """Read one fit and its values. Raises ``FormatError`` and ``StoreError``."""
    record = read_json(path, FIT_FORMAT, 1, limit=_FIT_LIMIT)
    values = path.with_suffix(".safetensors")
    with os_errors("reading", values):
        with regular_file(values):  # neither a link nor a pipe
            digest = sha256_file(values)
        if digest != record.get("sha256"):
            raise FormatError(f"{values}: not what {path.name} names; damaged. Remove both.")
    try:
        _check_type(record["measured"], list)
        tensors = read_tensors(values, {str(i) for i in range(len(record["measured"]))})
        measured = tuple(
            _read_measured(one, tensors[str(i)], record["chosen"], head, ids)
            for i, one in enumerate(record["measured"])
        )
        _check_plain({**record, "measured": None})
        fit = Fit(**{name: record[name] for name in Fit._fields})._replace(measured=measured)
        _check_fit(fit)
        name = job_name(fit.job)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{path}: damaged: {error!r}.") from error
    if name != path.stem:
        raise FormatError(f"{path}: its name is not that of its job.")
    return fit


def _check_fit(fit: Fit) -> None:
    _texts(fit.trained_on, fit.reason)
    for part in (fit.job, fit.queries, fit.held_out, fit.seconds):
        _check_type(part, dict)
    if not fit.measured or len({one.collection for one in fit.measured}) < len(fit.measured):
        raise ValueError("nothing was measured, or the same collection twice")
    _shares(fit.labels, *fit.held_out.values())
    if fit.labels <= 0:
        raise ValueError("no share of the labels")
    _counts_of([*fit.queries.values()])
    if isinstance(fit.split_seed, bool) or not isinstance(fit.split_seed, int):
        raise TypeError("a seed that is no whole number")
    if fit.split_seed < 0 or not all(0 <= spent < _MOST for spent in fit.seconds.values()):
        raise ValueError("a negative seed, or an impossible time")


def _read_measured(
    record: Mapping[str, Any],
    values: FloatArray,
    chosen: str,
    head: Head,
    ids: Mapping[str, Sequence[str]],
) -> Measured:
    name, candidates = record["collection"], tuple(record["candidates"])
    _texts(*candidates)
    "".join(candidates).encode("utf-8")
    if len({*candidates, SHIPPED}) != len(candidates) + 1 or chosen not in candidates:
        raise ValueError("no chosen candidate, one named 'shipped', or the same one twice")
    if name not in head.collections:
        raise ValueError(f"an unknown collection {name!r}")
    rows = _counts_of(record["query_rows"])
    if values.shape != (len(candidates), len(head.measures), len(rows)) or not len(rows):
        raise ValueError(f"values of shape {values.shape}")
    if rows.max() >= len(ids[name]) or len(np.unique(rows)) != len(rows):
        raise ValueError("query rows out of range, or the same one twice")
    _shares(float(values.min()), float(values.max()))
    scores = {
        candidate: Histogram(*(_counted(found[part]) for part in Histogram._fields))
        for candidate, found in record["scores"].items()
    }
    if not set(scores) <= set(candidates):
        raise ValueError("scores of an unknown candidate")
    return Measured(name, candidates, rows, values, scores)


def _counted(values: Any) -> IntArray:
    counts = _counts_of(values)
    if counts.shape != (len(EDGES) - 1,):
        raise ValueError("damaged counts of scores")
    return counts
