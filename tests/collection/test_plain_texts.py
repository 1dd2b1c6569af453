"""Plain files of texts: each form, its ids, and what is wrong with a row."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from era_cache.collection.plain_texts import read_plain_texts
from era_cache.collection.records import Dropped
from era_cache.errors import InputError
from era_cache.types import Role

TEXTS = ["first, with a comma", 'second "quoted"', "dritte Zeile: äöü"]


def _log(path: Path, content: str, **options: object) -> list[tuple[str, str]]:
    """Ids and texts of a file of queries."""
    path.write_text(content, encoding="utf-8")
    texts = read_plain_texts(path, Role.QUERY, **options)
    assert (texts.doc_ids, texts.splits) == ([], {})
    assert len(texts.instructions) == len(texts.query_ids)
    return list(zip(texts.query_ids, texts.query_texts, strict=True))


def test_every_form_gives_the_same_texts(tmp_path) -> None:
    import json

    import pyarrow
    import pyarrow.parquet

    numbered = list(zip(["1", "2", "3"], TEXTS, strict=True))
    assert _log(tmp_path / "log.txt", "\n".join(TEXTS)) == numbered
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    assert _log(tmp_path / "log.jsonl", lines) == numbered
    cells = 'text\n"first, with a comma"\n"second ""quoted"""\ndritte Zeile: äöü\n'
    # A head is line 1 of a table.
    expected = list(zip(["2", "3", "4"], TEXTS, strict=True))
    assert _log(tmp_path / "log.csv", cells) == expected
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "log.parquet")
    texts = read_plain_texts(tmp_path / "log.parquet", Role.QUERY)
    assert list(zip(texts.query_ids, texts.query_texts, strict=True)) == numbered
    packed = tmp_path / "log.txt.gz"
    packed.write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    assert read_plain_texts(packed, Role.QUERY).query_texts == TEXTS
    assert read_plain_texts(packed, Role.QUERY).name == "log"


def test_ids_titles_and_instructions_are_read_where_they_are(tmp_path) -> None:
    path = tmp_path / "docs.tsv"
    path.write_text("id\ttitle\tbody\na1\tHead\tone\na2\t\ttwo\n")
    texts = read_plain_texts(path, Role.DOCUMENT, column="body")
    assert texts.doc_ids == ["a1", "a2"]
    assert texts.doc_texts == ["Head one", "two"]
    assert (texts.query_ids, texts.name) == ([], "docs")
    row = '{"_id": 7, "instruction": "Find it", "text": "x"}\n'
    (tmp_path / "q.jsonl").write_text(row)
    queries = read_plain_texts(tmp_path / "q.jsonl", Role.QUERY, name="mine")
    assert (queries.query_ids, queries.instructions, queries.name) == (["7"], ["Find it"], "mine")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_a_quoted_cell_holds_is_kept_as_it_is(tmp_path, end) -> None:
    path = tmp_path / "docs.csv"
    rows = ["text,id", f'"one{end}{end}  {end}two",a', "", '"three",b', f'"four{end}",c', "", ""]
    path.write_bytes(end.join(rows).encode())
    texts = read_plain_texts(path, Role.QUERY)
    assert texts.query_ids == ["a", "b", "c"]
    assert texts.query_texts == [f"one{end}{end}  {end}two", "three", f"four{end}"]
    path.write_text("text,text\nx,y\n")
    with pytest.raises(InputError, match="line 1: two columns have one name"):
        read_plain_texts(path, Role.QUERY)


def test_blank_lines_are_passed_over_and_keep_their_number(tmp_path) -> None:
    assert _log(tmp_path / "log.txt", "a\n\n  \nb\n") == [("1", "a"), ("4", "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"query": "x"}\n', r"a\.jsonl line 1: no field 'text'.*'query'.*--column"),
        ("a.jsonl", "not json\n", r"a\.jsonl line 1: not valid JSON"),
        ("a.csv", "query,n\nx,1\n", r"a\.csv line 2: no field 'text'.*'query', 'n'"),
        ("a.csv", "text,n\nx,1\ny\n", r"a\.csv line 3: 1 cells.*2 columns"),
        ("a.csv", 'text\n"x\n', r"a\.csv line 2: no row of a table"),
        ("a.csv", "text,id\nx,1\ny,1\n", r"a\.csv line 3: id '1' occurs a second time"),
        ("a.csv", 'text\n"  "\n', r"query '2' has no text"),
        ("a.txt", "", r"a\.txt: no query in it"),
        ("a.parquet", "PAR1 and no more", r"a\.parquet.*Parquet"),
        ("a.txt", "x\ud800", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, message) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=message):
        read_plain_texts(path, Role.QUERY)


def test_bad_rows_are_counted_where_they_are_skipped(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,id\nx,1\ny,1\n,2\n")
    texts = read_plain_texts(path, Role.QUERY, skip_bad_rows=True)
    assert (texts.query_texts, texts.dropped.bad_rows) == (["x"], 2)
    assert [count for _, count in texts.dropped.kinds] == [1, 1]
    documents = read_plain_texts(path, Role.DOCUMENT, skip_bad_rows=True)
    assert documents.dropped._replace(kinds=()) == Dropped(empty_documents=1, bad_rows=1)


def test_a_folder_or_nothing_is_no_file_of_texts(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "absent.txt"):
        with pytest.raises(InputError, match="no such file"):
            read_plain_texts(path, Role.QUERY)
