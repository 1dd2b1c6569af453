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

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.disk.files import (
    TEMPORARY_PREFIX,
    make_folder,
    os_errors,
    regular_file,
    remove_stale_temporaries,
    sha256_file,
    write_bytes,
)
from era_cache.disk.json_files import canonical_json, json_digest, read_json, write_json
from era_cache.disk.tensors import read_tensors
from era_cache.errors import FormatError, InputError, NewerError
from era_cache.types import FloatArray, IntArray, Keys

__all__ = [
    "EDGES",
    "SHIPPED",
    "Fit",
    "Head",
    "Histogram",
    "MadeBy",
    "Measured",
    "Results",
    "ResultsFolder",
    "job_name",
    "read_results",
    "texts_digest",
]

FORMAT, VERSION = "era-results", 1
_FIT_FORMAT = "era-fit-results"
_IDENTITY = ("protocol", "measures", "collections", "encoders", "adapters")
_FIXED = ("recipe", "split", "test", "validation", "label_count", "documents", "aligned_on")
"""Options that all fits of a folder share; shares of the labels and shuffles may be added."""
_IDS_LIMIT = 1 << 28
_FIT_LIMIT = 1 << 26
_DEPTH = 20
_MOST = 2**53
_FIT_NAME = re.compile(r"[0-9a-f]{24}\.json")

SHIPPED = "shipped"
"""What reports call the candidate that held-out labels chose in each fit; no candidate's name."""
EDGES = np.linspace(-1.0, 1.0, 81)
"""Bounds of the bins that scores (cosines) are counted in."""


class Histogram(NamedTuple):
    """Scores of a candidate by bin of ``EDGES``, (80,) int64 each.

    ``positives`` are relevant documents, ``hardest`` the best document of each query that is not,
    ``others`` all that are not relevant.
    """

    positives: IntArray
    hardest: IntArray
    others: IntArray


class Measured(NamedTuple):
    """Candidates of one fit on test queries of one collection.

    ``query_rows`` (q,) int64 counts in the collection; ``values`` is (candidates, measures, q)
    float32; ``scores`` has histograms of some candidates.
    """

    collection: str
    candidates: tuple[str, ...]
    query_rows: IntArray
    values: FloatArray
    scores: Mapping[str, Histogram]


class Fit(NamedTuple):
    """One fit and what it reached.

    ``job`` (JSON) is what makes the fit what it is; ``trained_on`` a collection, a domain, or words
    such as ``all but web``. ``labels`` is the share used for training, ``queries`` counts those of
    training and validation. ``held_out`` has means over labels not trained on, by candidate.
    """

    job: Mapping[str, Any]
    trained_on: str
    labels: float
    split_seed: int
    queries: Mapping[str, int]
    held_out: Mapping[str, float]
    chosen: str
    reason: str
    seconds: Mapping[str, float]
    measured: tuple[Measured, ...]


class Head(NamedTuple):
    """What all fits of a folder share (all JSON).

    ``collections`` maps a name to ``digest``, ``domain``, ``documents`` and ``queries``;
    ``adapters`` maps what was measured, where adapter folders were, to digests. ``configuration``
    holds every option; ``costs`` and ``notes`` are shown as they are. ``extra`` may have ``int8``,
    as ``evaluate.int8_loss`` gives it, and ``planned``, the names of the jobs that shall be there.
    """

    protocol: str
    title: str
    measures: tuple[str, ...]
    primary: str
    collections: Mapping[str, Mapping[str, Any]]
    encoders: Mapping[str, Any]
    configuration: Mapping[str, Any]
    adapters: Mapping[str, str] = {}
    costs: Sequence[Mapping[str, str]] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    environment: Mapping[str, str] = {}
    extra: Mapping[str, Any] = {}


class MadeBy(NamedTuple):
    """The command that makes results: every option of it (JSON), and how it was written."""

    configuration: Mapping[str, Any] = {}
    commands: Sequence[str] = ()


class Results(NamedTuple):
    """A head, the query ids of each collection by row, and all fits."""

    head: Head
    query_ids: Mapping[str, Sequence[str]]
    fits: Sequence[Fit]


def texts_digest(query_text_keys: Keys) -> str:
    """What tells the query texts of a collection, all of them in the order of rows."""
    return hashlib.sha256(np.ascontiguousarray(query_text_keys).tobytes()).hexdigest()


def job_name(job: Mapping[str, Any]) -> str:
    """Name a job by what makes it what it is."""
    return json_digest(dict(job))[:24]


class ResultsFolder:
    """A folder of results that fits are added to.

    Args:
        folder: made where it is missing.
        head: what all fits share; a folder of another protocol, other measures, collections,
            encoders, adapters, recipe or split is refused.
        query_ids: of each collection.
        anew: what the folder has of the same protocol is replaced, not added to.

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
    ) -> None:
        self.folder, self.head = folder, head
        self._ids = {name: list(query_ids[name]) for name in sorted(query_ids)}
        self._fits: dict[str, Fit] = {}
        if anew:
            _check_replaceable(folder, head)
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
        ids = {"format": "era-queries", "version": 1, "ids": self._ids}
        write_json(folder / "queries.json", ids)
        self.write_head(self.head)

    def write_head(self, head: Head) -> None:
        """Replace the head: its costs and notes may grow with the fits."""
        self.head = head
        # The order of collections is kept: bootstrap draws follow it.
        record = {"format": FORMAT, "version": VERSION, **head._asdict()}
        write_json(self.folder / "results.json", record)

    def get(self, job: Mapping[str, Any]) -> Fit | None:
        """The fit of a job, None where nobody has added it.

        Raises:
            FormatError: another run has just added it, and it is damaged.
            StoreError: it cannot be read.
        """
        name = job_name(job)
        path = self.folder / "fits" / f"{name}.json"
        if name not in self._fits and path.is_file():
            self._fits[name] = _read_fit(path, self.head, self._ids)
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
        record = fit._asdict()
        record["measured"] = [
            {
                "collection": one.collection,
                "candidates": list(one.candidates),
                "query_rows": one.query_rows.tolist(),
                "scores": {
                    candidate: {part: counts.tolist() for part, counts in found._asdict().items()}
                    for candidate, found in one.scores.items()
                },
            }
            for one in fit.measured
        ]
        write_json(
            self.folder / "fits" / f"{name}.json",
            {"format": _FIT_FORMAT, "version": 1, "sha256": sha256_file(values), **record},
        )
        self._fits[name] = fit

    def results(self) -> Results:
        """All that is there."""
        return Results(self.head, self._ids, _in_order(self._fits.values()))


def _in_order(fits: Iterable[Fit]) -> list[Fit]:
    """The same order whoever fitted what first."""

    def key(fit: Fit) -> Any:
        return fit.labels, fit.split_seed, fit.trained_on, job_name(fit.job)

    return sorted(fits, key=key)


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
        if path.name not in ("fits", "queries.json") and not path.name.startswith(TEMPORARY_PREFIX)
    ]
    if others:
        raise InputError(f"{folder}: holds other files ({min(others)}). Give a new folder.")


def _check_replaceable(folder: Path, head: Head) -> None:
    """Refuse to clear away fits of another protocol, which may have taken days."""
    if not (folder / "results.json").is_file():
        return
    try:
        old = _read_head(folder / "results.json")
    except NewerError:
        raise
    except FormatError:
        return
    if old.protocol != head.protocol:
        raise InputError(
            f"{folder}: holds results of the protocol {old.protocol!r}, which would be lost. Give "
            "another folder."
        )


def _grown(old: Head, new: Head) -> Head:
    """The new head, with what the old one says was run and is to be there."""
    commands = list(dict.fromkeys([*old.commands, *new.commands]))
    environment = {
        # Fits of other versions stay: both are named.
        name: value
        if old.environment.get(name, value) == value
        else f"{old.environment[name]}, {value}"
        for name, value in new.environment.items()
    }
    planned = dict.fromkeys([*old.extra.get("planned", ()), *new.extra.get("planned", ())])
    extra = {**new.extra, "planned": list(planned)}
    return new._replace(commands=commands, environment=environment, extra=extra)


def _check_same(folder: Path, old: Head, new: Head) -> None:
    parts = [(part, getattr(old, part), getattr(new, part)) for part in _IDENTITY]
    parts += [
        (part.replace("_", " "), old.configuration.get(part), new.configuration.get(part))
        for part in _FIXED
    ]
    differing = [part for part, a, b in parts if canonical_json(a) != canonical_json(b)]
    if differing:
        raise InputError(
            f"{folder}: holds results of another {', '.join(differing)}. Give a new folder, or the "
            "inputs that it was made with."
        )


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
    head = _read_head(path)
    ids = _read_ids(folder, head)
    with os_errors("reading", folder / "fits"):
        paths = [p for p in (folder / "fits").iterdir() if _FIT_NAME.fullmatch(p.name)]
    fits = _in_order(_read_fit(path, head, ids) for path in sorted(paths))
    known = set(head.adapters.values())
    for fit in fits:
        if head.protocol == "adapter" and known and fit.job.get("adapter") not in known:
            raise FormatError(
                f"{folder}: holds the fit of an adapter that results.json does not name. Measure "
                "the adapter again."
            )
    return Results(head, ids, fits)


def _read_head(path: Path) -> Head:
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


def _read_fit(path: Path, head: Head, ids: Mapping[str, Sequence[str]]) -> Fit:
    record = read_json(path, _FIT_FORMAT, 1, limit=_FIT_LIMIT)
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
