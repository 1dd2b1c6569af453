"""The files of a report, and per-query values for other tools.

In: a ``Report``, results. Out: files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from era_cache.disk.files import make_folder, write_bytes
from era_cache.disk.json_files import write_record
from era_cache.disk.shown import as_percent
from era_cache.errors import FormatError, InputError
from era_cache.evaluate.per_query import joined, per_query_columns, write_per_query
from era_cache.evaluate.results import Results
from era_cache.report import (
    render_csv,
    render_html,
    render_latex,
    render_latex_table,
    render_markdown,
)
from era_cache.report.records import Report

__all__ = ["write_reports", "write_values"]

_FORMS = {
    "report.html": render_html,
    "table.md": render_markdown,
    "table.tex": render_latex_table,
    "details.tex": render_latex,
    "table.csv": render_csv,
}


def write_reports(folder: Path, report: Report) -> None:
    """Write the report as ``evaluation.json``, and every form of the report beside it.

    Raises:
        FormatError: the report is damaged; nothing is written.
        InputError: files of such names are there that no report wrote.
        StoreError: a file cannot be written.
    """
    texts = {name: render(report) for name, render in _FORMS.items()}
    foreign = [name for name in _FORMS if (folder / name).exists()]
    if foreign and not (folder / "evaluation.json").is_file():
        raise InputError(
            f"{folder}: holds a {foreign[0]} that is none of ours. Give another folder with --out."
        )
    make_folder(folder, may_be_link=True)
    write_record(folder / "evaluation.json", report)
    for name, text in texts.items():
        write_bytes(folder / name, text.encode("utf-8"))


def write_values(path: Path, results: Results) -> None:
    """Write the value of every query under every candidate of every fit, as CSV or Parquet.

    Columns: query_id, collection, trained_on, labels_percent, split_seed, candidate, measure and
    value.

    Raises:
        FormatError: there is no fit.
        InputError: the ending is neither .csv nor .parquet.
        StoreError: it cannot be written.
    """
    parts = []
    for fit in results.fits:
        for one in fit.measured:
            ids = np.array(results.query_ids[one.collection], dtype=object)
            values = {
                name: dict(zip(results.head.measures, one.values[row], strict=True))
                for row, name in enumerate(one.candidates)
            }
            keys: dict[str, str | int | float] = {
                "collection": one.collection,
                "trained_on": fit.trained_on,
                "labels_percent": as_percent(fit.labels),
                "split_seed": fit.split_seed,
            }
            parts.append(
                per_query_columns(
                    ids[one.query_rows].tolist(), values, keys=keys, system="candidate"
                )
            )
    if not parts:
        raise FormatError("These results hold no fit yet; there are no values to write.")
    write_per_query(path, joined(parts))
