"""What a report shows, read once from the evaluation dict and cleaned.

In: the dict that an evaluation stores as JSON (format "era-evaluation", version 1); its names are
untrusted. Out: records of plain numbers and printable text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from era_cache.errors import FormatError

__all__ = ["BASELINE", "Estimate", "Pairs", "Report", "percent_text", "read_report"]

FORMAT, VERSION = "era-evaluation", 1
BASELINE = "small"


class Estimate(NamedTuple):
    """A mean with its 95 % interval and, where compared, its difference from the baseline."""

    mean: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None

    @property
    def p_shown(self) -> float | None:
        """The p value that marks and sentences go by: the corrected one where there is one."""
        return self.p if self.p_holm is None else self.p_holm


class Candidate(NamedTuple):
    """A way to serve the queries and, for each measure, its estimate on the test queries."""

    name: str
    kind: str
    validation: float | None
    estimates: dict[str, Estimate]


class CurvePoint(NamedTuple):
    """The primary measure of the candidates, by name, fitted on a share of the labels."""

    labels: float
    train: int
    estimates: dict[str, Estimate]


Pairs = tuple[tuple[str, str], ...]


class Report(NamedTuple):
    """The whole result, checked, with clean texts."""

    collection: str
    test_queries: int
    primary: str
    measures: tuple[str, ...]
    chosen: str
    choice_reason: str
    candidates: tuple[Candidate, ...]
    curve: tuple[CurvePoint, ...]
    costs: Pairs
    setup: Pairs
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    environment: Pairs


def _printable(value: object) -> str:
    # Terminal escapes, bidirectional controls and lone surrogates must not reach any output.
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value))


def _clean(value: object) -> str:
    return _printable(" ".join(str(value).split()))


def _number(value: object) -> float:
    # The bound also refuses NaN, infinities and whole numbers too large for a float.
    if not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ValueError(f"{_clean(value)[:40]!r} is not a finite number")
    return float(value)


def _optional(record: Mapping[str, Any], key: str) -> float | None:
    return None if record.get(key) is None else _number(record[key])


def _read_estimate(record: Mapping[str, Any]) -> Estimate:
    mean, low, high = (_number(record[key]) for key in ("mean", "low", "high"))
    return Estimate(mean, low, high, *(_optional(record, key) for key in Estimate._fields[3:]))


def _read_estimates(records: Mapping[str, Any]) -> dict[str, Estimate]:
    return {_clean(name): _read_estimate(record) for name, record in records.items()}


def _read_setup(result: Mapping[str, Any]) -> Pairs:
    collection, split, encoders = (result[key] for key in ("collection", "split", "encoders"))
    counts = {
        "documents": collection["documents"],
        "queries": collection["queries"],
        "training queries": split["train"],
        "validation queries": split["validation"],
        "test queries": split["test"],
    }
    return (
        ("collection", _clean(collection["name"])),
        ("collection version", _clean(collection["version"])),
        ("domain", _clean(collection["domain"])),
        *((name, f"{int(_number(count)):,}") for name, count in counts.items()),
        ("labels used for training", percent_text(_number(split["labels"]))),
        ("seed of the split", _clean(split["seed"])),
        ("query encoder", _clean(encoders["query"])),
        ("document encoder", _clean(encoders["document"])),
    )


def _read_fields(result: Mapping[str, Any]) -> Report:
    measures = tuple(_clean(measure) for measure in result["measures"])
    candidates = []
    for record in result["candidates"]:
        estimates = _read_estimates(record["measures"])
        by_measure = {measure: estimates[measure] for measure in measures}
        name, kind = _clean(record["name"]), _clean(record["kind"])
        candidates.append(Candidate(name, kind, _optional(record, "validation"), by_measure))
    primary, chosen = _clean(result["primary"]), _clean(result["chosen"])
    if primary not in measures:
        raise ValueError(f"the primary measure {primary!r} is not among the measures")
    if [candidate.name for candidate in candidates].count(chosen) != 1:
        raise ValueError(f"the chosen {chosen!r} is not exactly one of the candidates")
    curve = (
        CurvePoint(
            _number(point["labels"]),
            int(_number(point["train"])),
            _read_estimates(point["candidates"]),
        )
        for point in result.get("curve") or ()
    )
    return Report(
        collection=_clean(result["collection"]["name"]),
        test_queries=int(_number(result["split"]["test"])),
        primary=primary,
        measures=measures,
        chosen=chosen,
        choice_reason=_clean(result["choice_reason"]),
        candidates=tuple(candidates),
        curve=tuple(sorted(curve, key=lambda point: point.labels)),
        costs=tuple((_clean(c["what"]), _clean(c["value"])) for c in result.get("costs") or ()),
        setup=_read_setup(result),
        # Line breaks and runs of spaces mean something in a command, so they stay.
        commands=tuple(
            "\n".join(_printable(line) for line in str(command).splitlines())
            for command in result.get("commands") or ()
        ),
        notes=tuple(_clean(note) for note in result.get("notes") or ()),
        environment=tuple(
            (_clean(k), _clean(v)) for k, v in (result.get("environment") or {}).items()
        ),
    )


def percent_text(share: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:g} %"


def read_report(result: Mapping[str, Any]) -> Report:
    """Read and clean an evaluation dict.

    Raises:
        FormatError: it is not one, or is damaged.
    """
    found = (result.get("format"), result.get("version")) if isinstance(result, Mapping) else None
    if found != (FORMAT, VERSION):
        raise FormatError(
            f"Evaluation result: expected format {FORMAT!r}, version {VERSION}, but found "
            f"{_clean(found)[:80]}. Give a JSON file written by era-eval, or update era-cache if "
            "the file is newer."
        )
    try:
        return _read_fields(result)
    except KeyError as error:
        problem = f"the field {_clean(error)} is missing"
    except (AttributeError, TypeError, ValueError) as error:
        problem = _clean(error)
    raise FormatError(f"Evaluation result is damaged: {problem}. Write it again with era-eval.")
