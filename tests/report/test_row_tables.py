"""Tables of fits as files: what a spreadsheet, a program and a reader see."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from era_cache.report.row_tables import write_tables


def _written(folder: Path, rows: list[dict[str, object]]) -> tuple[str, dict, str]:
    write_tables(folder, "sweep", rows, "A <title>", ["First & last.", "Run: a < b"])
    ends = ("csv", "json", "html")
    texts = [(folder / f"sweep.{end}").read_bytes().decode("utf-8") for end in ends]
    return texts[0], json.loads(texts[1]), texts[2]


def test_csv_holds_the_rows_without_their_digests(tmp_path) -> None:
    text, _, _ = _written(
        tmp_path,
        [
            {"job": "00", "align": "ridge", "held_out": 0.123456789, "full": True},
            {"job": "01", "align": "mixture", "held_out": -0.5, "full": False, "more": "a,b"},
        ],
    )
    assert text == ('align,held_out,full,more\nridge,0.123456789,True,\nmixture,-0.5,False,"a,b"\n')


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_what_a_spreadsheet_would_run_is_quoted(tmp_path, start) -> None:
    text, record, _ = _written(tmp_path, [{"name": f"{start}1+1", "plain": "1=1"}])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row == {"name": f"'{start}1+1", "plain": "1=1"}
    assert record["rows"][0]["name"] == f"{start}1+1"


def test_numbers_below_zero_stay_numbers(tmp_path) -> None:
    text, record, _ = _written(tmp_path, [{"a": -1, "b": -0.25, "c": -1e-9}])
    assert text == "a,b,c\n-1,-0.25,-1e-09\n"
    assert record["rows"] == [{"a": -1, "b": -0.25, "c": -1e-9}]


def test_json_says_what_it_is(tmp_path) -> None:
    _, record, _ = _written(tmp_path, [{"job": "0", "a": 1}, {"job": "1", "b": "x"}])
    assert record == {
        "format": "era-sweep",
        "version": 1,
        "rows": [{"a": 1, "b": ""}, {"a": "", "b": "x"}],
    }


def test_html_escapes_whatever_it_shows(tmp_path) -> None:
    hostile = "<script>alert('x')</script>\"&"
    _, _, page = _written(tmp_path, [{hostile: hostile, "n": 0.123456, "many": 12345}])
    assert hostile not in page
    assert page.count("<script>") == 1  # its own
    assert page.count("&lt;script&gt;alert(") == 2  # column and cell
    assert "<title>A &lt;title&gt;</title>" in page
    assert "First &amp; last." in page
    assert "Run: a &lt; b" in page
    assert ">0.1235<" in page
    assert 'data-key="0.123456"' in page
    assert "12,345" in page
