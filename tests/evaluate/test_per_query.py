"""Per-query values as a long table: what is written comes back, in CSV and in Parquet."""

from __future__ import annotations

import builtins
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from era_cache.errors import InputError, StoreError
from era_cache.evaluate.per_query import (
    check_per_query_path,
    joined,
    per_query_columns,
    write_per_query,
)
from era_cache.rank.measures import parse_measure

THIRD = 1 / 3
VALUES = {
    "a": {parse_measure("AP"): np.array([THIRD, 0.0]), parse_measure("RR"): np.array([1.0, 0.5])},
    "b": {parse_measure("AP"): np.array([0.25, 1.0]), parse_measure("RR"): np.array([0.1, 0.2])},
}
ROWS = [
    ("q1", "a", "AP", THIRD),
    ("q2", "a", "AP", 0.0),
    ("q1", "a", "RR", 1.0),
    ("q2", "a", "RR", 0.5),
    ("q1", "b", "AP", 0.25),
    ("q2", "b", "AP", 1.0),
    ("q1", "b", "RR", 0.1),
    ("q2", "b", "RR", 0.2),
]


def test_values_become_a_long_table() -> None:
    columns = per_query_columns(["q1", "q2"], VALUES)
    assert list(columns) == ["query_id", "run", "measure", "value"]
    assert list(zip(*(c.tolist() for c in columns.values()), strict=True)) == ROWS


def test_keys_stand_behind_the_query() -> None:
    keys = {"collection": "toy", "labels": 0.2, "split_seed": 7}
    columns = per_query_columns(["q1", "q2"], VALUES, keys=keys, system="candidate")
    assert list(columns) == ["query_id", *keys, "candidate", "measure", "value"]
    assert [columns[key].tolist() for key in keys] == [["toy"] * 8, [0.2] * 8, [7] * 8]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".CSV", ".Parquet"])
def test_a_table_comes_back_in_full_precision(tmp_path: Path, ending: str) -> None:
    parts = [
        per_query_columns(["q1", "文"], VALUES, keys={"collection": name, "split_seed": 3})
        for name in ("toy", "a longer name")
    ]
    columns = joined(parts)
    path = tmp_path / f"values{ending}"
    path.write_text("an older file")
    write_per_query(path, columns)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if ending.lower() == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            names, *rows = list(csv.reader(file))
        found = [[q, c, int(s), r, m, float(v)] for q, c, s, r, m, v in rows]
        assert b"\r" not in path.read_bytes()
    else:
        table = pyarrow.parquet.read_table(path)
        names = table.column_names
        assert [str(t) for t in table.schema.types] == [
            *("string", "string", "int64", "string", "string", "double"),
        ]
        found = [list(row) for row in zip(*table.to_pydict().values(), strict=True)]
    assert names == ["query_id", "collection", "split_seed", "run", "measure", "value"]
    assert found == [list(row) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    assert len(found) == 16


def test_texts_that_a_spreadsheet_takes_for_formulas_are_quoted_in_csv_only(tmp_path: Path) -> None:
    values = {"=1+1": {"AP": np.array([-0.5, 0.5])}}
    columns = per_query_columns(["-q", 'a,"b"\n'], values)
    write_per_query(tmp_path / "v.csv", columns)
    with (tmp_path / "v.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["'-q", "'=1+1", "AP", "-0.5"],
            ['a,"b"\n', "'=1+1", "AP", "0.5"],
        ]
    write_per_query(tmp_path / "v.parquet", columns)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert table["query_id"] == ["-q", 'a,"b"\n']
    assert table["run"] == ["=1+1"] * 2


def test_tables_longer_than_a_chunk_are_whole(tmp_path: Path) -> None:
    n = 40_000
    columns = per_query_columns([f"q{row}" for row in range(n)], {"a": {"AP": np.arange(n) / n}})
    write_per_query(tmp_path / "v.csv", columns)
    lines = (tmp_path / "v.csv").read_text().splitlines()
    assert len(lines) == n + 1
    assert lines[-1] == f"q{n - 1},a,AP,{(n - 1) / n!r}"


@pytest.mark.parametrize("name", ["v.txt", "v", "v.csv.gz", ".csv"])
def test_other_endings_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        write_per_query(tmp_path / name, per_query_columns(["q1", "q2"], VALUES))
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_per_query_path(tmp_path / "absent" / "v.csv")
    (tmp_path / "v.csv").mkdir()
    with pytest.raises(InputError, match="folder is in the way"):
        check_per_query_path(tmp_path / "v.csv")


def test_parquet_without_pyarrow_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return load(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install pyarrow\. Without it, use \.csv\."):
        write_per_query(tmp_path / "v.parquet", per_query_columns(["q1", "q2"], VALUES))
    write_per_query(tmp_path / "v.csv", per_query_columns(["q1", "q2"], VALUES))
    assert [path.name for path in tmp_path.iterdir()] == ["v.csv"]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_lone_surrogate_is_refused_and_the_old_file_stays(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v{ending}"
    path.write_text("old")
    with pytest.raises(InputError, match="a query_id is not valid Unicode"):
        write_per_query(path, per_query_columns(["q1", "\ud800"], VALUES))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for ending in (".csv", ".parquet"):
        with pytest.raises(StoreError, match="No space left"):
            write_per_query(tmp_path / f"v{ending}", per_query_columns(["q1", "q2"], VALUES))
    assert not list(tmp_path.iterdir())


def test_columns_that_do_not_fit_are_programming_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 values"):
        per_query_columns(["q1", "q2", "q3"], VALUES)
    with pytest.raises(ValueError, match="one must be there"):
        per_query_columns(["q1"], {})
    with pytest.raises(ValueError, match="same columns"):
        joined([{"a": np.zeros(1)}, {"b": np.zeros(1)}])
    with pytest.raises(ValueError, match="one length"):
        write_per_query(tmp_path / "v.csv", {"a": np.zeros(1), "b": np.zeros(2)})
