"""The comparison of runs: means with intervals, and tests of each run against one of them.

In: runs over shared rows (``runs``). Out: per-query values, and a table of plain JSON
values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.evaluate.runs import AlignedRuns
from era_cache.evaluate.statistics import (
    detectable_difference,
    effect_size,
    holm,
    macro_intervals,
    macro_randomisation_tests,
)
from era_cache.rank.measures import Measure, evaluate
from era_cache.report.cells import clean
from era_cache.types import FloatArray

__all__ = ["RunComparison", "compare_runs", "run_names"]

_FEW = 50


class RunComparison(NamedTuple):
    """What runs reach, and how they differ from the baseline.

    ``values`` holds (q,) float64 by run and measure. ``table`` holds, by run and measure, ``mean``,
    ``low``, ``high`` and for all but the baseline ``difference``, ``difference_low``,
    ``difference_high``, ``p``, ``p_holm``, ``effect``, ``detectable`` (None where infinite),
    ``better``, ``equal``, ``worse`` (numbers of queries). ``notes`` are sentences.
    """

    baseline: str
    values: dict[str, dict[str, FloatArray]]
    table: dict[str, dict[str, dict[str, Any]]]
    notes: list[str]


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name runs by their files, without endings; by folder and file where that tells more."""
    stems = [_stem(path) for path in paths]
    folders = [clean(path.absolute().parent.name) for path in paths]
    places = Counter(stem for _, stem in set(zip(folders, stems, strict=True)))
    names = [
        f"{folder}/{stem}" if places[stem] > 1 else stem
        for folder, stem in zip(folders, stems, strict=True)
    ]
    taken = set(names)
    seen: set[str] = set()
    unique = []
    for name in names:
        one, number = name, 2
        while one in seen or (one != name and one in taken):
            one, number = f"{name}-{number}", number + 1
        seen.add(one)
        unique.append(one)
    return unique


def _stem(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return clean(plain.stem) or "run"


def compare_runs(
    aligned: AlignedRuns,
    names: Sequence[str],
    measures: Sequence[Measure],
    *,
    baseline: str,
    seed: int,
) -> RunComparison:
    """Measure runs and compare them with one of them.

    Intervals are 95 % bootstrap intervals; p values those of the paired randomisation test, and
    ``p_holm`` corrects them over the runs compared, for each measure by itself (Holm 1979).

    Args:
        aligned: the runs.
        names: theirs, all different.
        measures: what to compute, without repeats.
        baseline: name of the run that the others are compared with.
        seed: of bootstrap and tests.

    Raises:
        ValueError: names do not fit the runs, or the baseline is none of them.
    """
    if len(set(names)) != len(aligned.runs) or len(names) != len(aligned.runs):
        raise ValueError(f"{len(aligned.runs)} runs need as many different names.")
    values: dict[str, dict[str, FloatArray]] = {
        name: {
            str(measure): column
            for measure, column in evaluate(
                run.ranking.doc_rows, aligned.qrels, measures, len(aligned.doc_ids)
            ).items()
        }
        for name, run in zip(names, aligned.runs, strict=True)
    }
    base = list(names).index(baseline)
    others = [row for row in range(len(names)) if row != base]
    cube = np.stack([np.stack(list(columns.values()), axis=1) for columns in values.values()])
    table = _means(names, [str(m) for m in measures], cube, seed)
    if others:
        differences = cube[others] - cube[[base]]
        for row, entries in zip(others, _comparisons(differences, seed), strict=True):
            for entry, more in zip(table[names[row]].values(), entries, strict=True):
                entry |= more
    return RunComparison(baseline, values, table, _notes(aligned, names, table, str(measures[0])))


def _flat(cube: FloatArray) -> FloatArray:
    """(runs, q, measures) as (q, runs * measures): a column for each run and measure."""
    return cube.transpose(1, 0, 2).reshape(cube.shape[1], -1)


def _means(
    names: Sequence[str], measures: Sequence[str], cube: FloatArray, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    rows = macro_intervals([_flat(cube)], seed=seed).reshape(len(names), len(measures), 3)
    return {
        name: {
            measure: dict(zip(("mean", "low", "high"), cell.tolist(), strict=True))
            for measure, cell in zip(measures, row, strict=True)
        }
        for name, row in zip(names, rows, strict=True)
    }


def _comparisons(differences: FloatArray, seed: int) -> list[list[dict[str, Any]]]:
    """What is known of each run's difference from the baseline, by measure."""
    n_runs, _, n_measures = differences.shape
    flat = _flat(differences)
    intervals = macro_intervals([flat], seed=seed).reshape(n_runs, n_measures, 3)
    p_values = macro_randomisation_tests([flat], seed=seed).reshape(n_runs, n_measures)
    corrected = np.array([holm(column.tolist()) for column in p_values.T]).T
    found = []
    for row in range(n_runs):
        entries = []
        for column in range(n_measures):
            here = differences[row, :, column]
            mean, low, high = intervals[row, column].tolist()
            entries.append(
                {
                    "difference": mean,
                    "difference_low": low,
                    "difference_high": high,
                    "p": float(p_values[row, column]),
                    "p_holm": float(corrected[row, column]),
                    "effect": _finite(effect_size(here)),
                    "detectable": _finite(detectable_difference(here)),
                    "better": int(np.count_nonzero(here > 0)),
                    "equal": int(np.count_nonzero(here == 0)),
                    "worse": int(np.count_nonzero(here < 0)),
                }
            )
        found.append(entries)
    return found


def _finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None


def _notes(
    aligned: AlignedRuns,
    names: Sequence[str],
    table: dict[str, dict[str, dict[str, Any]]],
    primary: str,
) -> list[str]:
    notes = []
    if aligned.without_positive:
        notes.append(
            f"{aligned.without_positive:,} judged queries without a positive judgement are left "
            "out."
        )
    for name, run in zip(names, aligned.runs, strict=True):
        if run.missing_queries:
            notes.append(
                f"{name} has no results for {run.missing_queries:,} of "
                f"{len(aligned.query_ids):,} queries; they score 0."
            )
        if run.unjudged_queries:
            notes.append(
                f"{name}: {run.unjudged_queries:,} queries that are not judged are left out."
            )
        if not run.judged_results:
            notes.append(
                f"{name}: none of its documents is judged; its document ids may be of another kind."
            )
    if len(aligned.query_ids) >= _FEW:
        return notes
    few = f"Only {len(aligned.query_ids)} queries"
    for name, entries in table.items():
        if "p" not in entries[primary]:
            continue
        detectable = entries[primary]["detectable"]
        if detectable is None:
            notes.append(f"{few}: no difference between {name} and the baseline can be shown.")
        elif detectable > 0:
            notes.append(
                f"{few}: a difference in {primary} between {name} and the baseline of less than "
                f"{detectable:.3f} would often go unnoticed (80 % power at p < 0.05)."
            )
    return notes
