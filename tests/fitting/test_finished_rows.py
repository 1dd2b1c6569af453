"""What a sweep has finished: nothing finished is lost, nothing half is believed."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from era_cache.disk.json_files import json_digest
from era_cache.errors import FormatError, InputError, StoreError
from era_cache.fitting.finished_rows import FinishedRows

INPUTS = {"collections": ["ab"], "rule": "paper"}


def _job(number: int) -> dict[str, object]:
    return {"candidate": "era", "number": number, "steps": ((0.5, 2),)}


def _row(number: int) -> dict[str, object]:
    return {"job": json_digest(_job(number)), "held_out": number / 10, "name": "Zürich"}


def _filled(folder: Path, count: int = 3) -> Path:
    rows = FinishedRows(folder, INPUTS)
    for number in range(count):
        rows.add(_job(number), {"held_out": number / 10, "name": "Zürich"})
        # Each is on the disk when it is added.
        assert len((folder / "rows.jsonl").read_bytes().splitlines()) == number + 2
    return folder / "rows.jsonl"


def test_the_file_is_as_specified(tmp_path) -> None:
    path = _filled(tmp_path / "new" / "folder", 1)
    head, row = path.read_text("utf-8").splitlines()
    assert json.loads(head) == {"format": "era-rows", "version": 1, "inputs": json_digest(INPUTS)}
    assert json.loads(row) == _row(0)
    assert path.read_bytes().endswith(b"\n")


def test_rows_are_found_by_their_job_now_and_later(tmp_path) -> None:
    _filled(tmp_path)
    (tmp_path / "sweep.csv").write_text("a\n")  # tables may have grown beside them
    rows = FinishedRows(tmp_path, INPUTS)
    assert [rows.get(_job(number)) for number in range(4)] == [*map(_row, range(3)), None]
    added = rows.add(_job(3), {"held_out": 0.5})
    assert rows.get(_job(3)) == added == {"job": json_digest(_job(3)), "held_out": 0.5}
    assert FinishedRows(tmp_path, INPUTS).get(_job(3)) == added


def test_of_two_rows_of_a_job_the_later_counts(tmp_path) -> None:
    rows = FinishedRows(tmp_path, INPUTS)
    rows.add(_job(0), {"round": "short"})
    last = rows.add(_job(0), {"round": "full"})
    assert last["round"] == "full"
    assert rows.get(_job(0)) == FinishedRows(tmp_path, INPUTS).get(_job(0)) == last


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path) -> None:
    whole = _filled(tmp_path / "whole").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted({0, 1, *ends, *(end - 1 for end in ends), *(end - 40 for end in ends)}):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / "rows.jsonl").write_bytes(whole[:cut])
        rows = FinishedRows(folder, INPUTS)
        kept = sum(end <= cut for end in ends[1:])
        assert [rows.get(_job(i)) is not None for i in range(3)] == [i < kept for i in range(3)]
        mended = (folder / "rows.jsonl").read_bytes()
        assert mended == whole[: ends[kept]]
    rows.add(_job(9), {"held_out": 1.0})
    assert FinishedRows(folder, INPUTS).get(_job(9)) is not None


def test_rows_of_other_inputs_are_refused_and_left_as_they_are(tmp_path) -> None:
    path = _filled(tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="rows of another store, collection, split or encoder"):
        FinishedRows(tmp_path, {**INPUTS, "rule": "source"})
    path.write_bytes(before[:-4])  # nor is the torn line of someone else mended
    with pytest.raises(InputError, match="rows of another store"):
        FinishedRows(tmp_path, {})
    assert path.read_bytes() == before[:-4]


def test_a_folder_of_other_files_is_refused(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files\. Give a new folder"):
        FinishedRows(tmp_path, INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path) -> None:
    (tmp_path / "rows").write_text("mine")
    with pytest.raises(StoreError, match="A file is in the way"):
        FinishedRows(tmp_path / "rows", INPUTS)


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": "other", "version": 1}\n',
        b'{"format": "era-rows", "version": 2, "inputs": "0"}\n',
        b'["era-rows"]\n',
        b"someone's only line",
        b'{"format": "era-rows", "version": 1, "inputs": "0"}',
    ],
)
def test_another_file_of_that_name_is_refused_and_left_as_it_is(tmp_path, content) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.jsonl: no rows of this version"):
        FinishedRows(tmp_path, INPUTS)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *((line, "not valid JSON") for line in (b"garbage", b"\xff\xfe", b"", b"[" * 100_000)),
        *((line, "not a row") for line in (b"[1, 2]", b'{"held_out": 1}', b'{"job": 7}')),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, words) -> None:
    path = _filled(tmp_path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[2:], b""]))
    with pytest.raises(FormatError, match=rf"rows\.jsonl line 3: {words}"):
        FinishedRows(tmp_path, INPUTS)
    path.write_bytes(b"garbage\n")
    with pytest.raises(FormatError, match=r"rows\.jsonl line 1: not valid JSON"):
        FinishedRows(tmp_path, INPUTS)


def test_two_runs_that_append_at_once_lose_nothing(tmp_path) -> None:
    runs = [FinishedRows(tmp_path, INPUTS) for _ in range(2)]
    begin = threading.Barrier(2)
    wide = "x" * 5000  # more than a page, so that a torn write would show

    def append(number: int) -> None:
        begin.wait()
        for i in range(number, 40, 2):
            runs[number].add(_job(i), {"value": i, "wide": wide})

    with ThreadPoolExecutor() as pool:
        list(pool.map(append, range(2)))
    rows = FinishedRows(tmp_path, INPUTS)
    found = [rows.get(_job(i)) for i in range(40)]
    assert [row and (row["value"], row["wide"]) for row in found] == [(i, wide) for i in range(40)]


def test_a_first_line_written_twice_is_no_damage(tmp_path) -> None:
    path = _filled(tmp_path)
    head, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([head, head, *rest]))
    assert FinishedRows(tmp_path, INPUTS).get(_job(2)) is not None
