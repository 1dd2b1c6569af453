"""Reading folders in BEIR layout: every wrong row is named or counted."""

from __future__ import annotations

import gzip
import json
import math
import shutil

import pytest
from beir_folder import CORPUS, QRELS, QUERIES, beir

from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.beir import read_beir
from era_cache.collection.records import Dropped
from era_cache.errors import InputError


def triples(texts, split="test"):
    part = texts.splits[split]
    return [(texts.query_ids[q], texts.doc_ids[d], int(r)) for q, d, r in zip(*part, strict=True)]


def test_a_folder_is_read_as_it_stands(tmp_path):
    texts = read_beir(beir(tmp_path))
    assert texts.name == "beir"
    assert (texts.domain, texts.ignore_identical_ids) == ("", False)
    assert texts.doc_ids == ["d1", "d2", "d3"]
    assert texts.doc_texts == ["One first text", "second text", "third text"]
    assert texts.query_ids == ["q1", "q2"]
    assert texts.query_texts == ["find first", "find second"]
    assert texts.instructions == ["", "Look"]
    assert triples(texts) == [("q1", "d1", 1), ("q2", "d2", 2), ("q2", "d3", 0)]
    assert texts.dropped == Dropped()
    assert texts.dropped.messages() == []


def test_the_toy_collection_is_whole(toy_texts):
    assert (len(toy_texts.doc_ids), len(toy_texts.query_ids)) == (30, 20)
    assert (toy_texts.name, toy_texts.domain) == ("toy", "household")
    assert triples(toy_texts)[0] == ("q01", "d01", 2)
    assert len(triples(toy_texts)) == 27
    assert toy_texts.dropped == Dropped()


def test_meta_gives_name_and_domain_and_the_argument_wins(tmp_path):
    folder = beir(tmp_path)
    meta = {"name": "nice", "domain": "law", "ignore_identical_ids": True}
    (folder / "meta.json").write_text(json.dumps(meta))
    texts = read_beir(folder)
    assert (texts.name, texts.domain, texts.ignore_identical_ids) == ("nice", "law", True)
    assert read_beir(folder, ReaderSettings(name="other")).name == "other"
    with pytest.raises(InputError, match="'a/b' cannot be used as a name"):
        read_beir(folder, ReaderSettings(name="a/b"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"domain": ["law"]}', "'domain' must be text"),
        ('{"name": 5}', "'name' must be text"),
        ('{"ignore_identical_ids": "yes"}', "must be true or false"),
    ],
)
def test_a_broken_meta_file_is_named(tmp_path, content, message):
    folder = beir(tmp_path)
    (folder / "meta.json").write_text(content)
    with pytest.raises(InputError, match=rf"meta\.json: .*{message}"):
        read_beir(folder)


def test_several_splits_are_kept_apart(tmp_path):
    texts = read_beir(beir(tmp_path, qrels="q1 d1 1\n", train="q2 d2 1\n"))
    assert list(texts.splits) == ["test", "train"]
    assert triples(texts, "train") == [("q2", "d2", 1)]


@pytest.mark.parametrize(
    "qrels",
    [
        "q1\td1\t1\nq2\td2\t2\n",
        "q1 d1 1\n\n  \nq2 d2 2",
        "query-id corpus-id score\nq1 d1 1\nq2 d2 2\n",
        "QID DID Relevance\nq1 d1 1\nq2 d2 2\n",
        "q1 0 d1 1\nq2 Q0 d2 2\n",
        "q1\td1\t1\r\nq2\td2\t2\r\n",
        b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\n",
        b"\xef\xbb\xbfq1\td1\t1\nq2\td2\t2\n",
    ],
)
def test_every_usual_form_of_qrels_reads_the_same(tmp_path, qrels):
    assert triples(read_beir(beir(tmp_path, qrels=qrels))) == [("q1", "d1", 1), ("q2", "d2", 2)]


def test_blank_lines_crlf_a_byte_order_mark_and_numbers_as_ids_are_read(tmp_path):
    corpus = b'\xef\xbb\xbf{"_id": 7, "text": "a"}\r\n\r\n{"_id": "d2", "title": null, "text": "b"}'
    texts = read_beir(beir(tmp_path, corpus=corpus, qrels="q1 7 1\nq2 d2 1\n"))
    assert texts.doc_ids == ["7", "d2"]
    assert texts.doc_texts == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": [*CORPUS[:1], "{oops\n"]}, r"corpus\.jsonl line 2: not valid JSON"),
        ({"corpus": [*CORPUS, "\n", "[" * 99_999 + "\n"]}, r"corpus\.jsonl line 5: not valid JSON"),
        ({"corpus": [*CORPUS, "1\n"]}, r"corpus\.jsonl line 4: expected a JSON object"),
        ({"corpus": ["[\n", *CORPUS]}, r"corpus\.jsonl line 1: not valid JSON"),
        ({"corpus": ["[{}]\n"]}, r"line 1: a JSON list, .* Convert it: jq -c '\.\[\]' corpus"),
        (
            {"corpus": ['{"_id": "a", "title": NaN}\n']},
            "'title' must be text, found NaN, which pandas",
        ),
        ({"corpus": [*CORPUS, CORPUS[0]]}, r"corpus\.jsonl line 4: id 'd1' occurs a second time"),
        (
            {"corpus": [{"text": "x", "doc": "y"}]},
            r"line 1: field '_id' .* found nothing; the fields here are 'text', 'doc'\.",
        ),
        (
            {"corpus": [{"_id": True}]},
            r"corpus\.jsonl line 1: field '_id' must be text, found bool",
        ),
        (
            {"corpus": [{"_id": ""}]},
            r"corpus\.jsonl line 1: id '' is empty, or begins or ends with",
        ),
        ({"corpus": [{"_id": "a "}]}, r"corpus\.jsonl line 1: id 'a ' is empty, or begins or ends"),
        ({"corpus": [{"_id": "\u00a0a"}]}, r"line 1: id .* begins or ends with white space"),
        *(
            ({"corpus": [{"_id": f"a{sign}b"}]}, "line 1: id .* has a tab, a line end or a NUL")
            for sign in "\t\n\r\v\f\0"
        ),
        ({"corpus": [{"_id": "a", "text": 5}]}, r"line 1: field 'text' must be text, found int"),
        ({"corpus": [{"_id": "a", "title": ["x"]}]}, "line 1: field 'title' must be text, found l"),
        ({"corpus": ['{"_id": "a", "text": "\\ud800"}\n']}, "line 1: .*'text' .*lone surrogate"),
        ({"corpus": b'{"_id": "a", "text": "\xff"}\n'}, r"corpus\.jsonl line 1: not valid JSON"),
        ({"corpus": []}, r"corpus\.jsonl: no document in it"),
        ({"corpus": [{"_id": "a", "text": " "}]}, r"corpus\.jsonl: no document in it"),
        ({"queries": []}, r"queries\.jsonl: no query in it"),
        ({"queries": [*QUERIES, QUERIES[0]]}, r"queries\.jsonl line 3: id 'q1' occurs a second"),
        ({"queries": [{"_id": "q1", "text": " "}]}, r"queries\.jsonl line 1: query 'q1' has no"),
        ({"queries": [{"_id": "q1"}]}, r"queries\.jsonl line 1: query 'q1' has no text"),
        ({"queries": [{"_id": "q", "text": "x", "instruction": 1}]}, "field 'instruction' must be"),
        ({"queries": ["nope\n"]}, r"queries\.jsonl line 1: not valid JSON"),
        ({"qrels": QRELS + "q9 d1 1\n"}, r"test\.tsv line 5: query 'q9' is not in .*\(2 queries\)"),
        ({"qrels": QRELS + "q1 d9 1\n"}, r"test\.tsv line 5: document 'd9' .*\(3 documents\)"),
        ({"qrels": QRELS + "q1 d1\n"}, r"test\.tsv line 5: 2 columns, expected query-id"),
        ({"qrels": QRELS + "q1 0 d1 1 x\n"}, r"test\.tsv line 5: 5 columns"),
        ({"qrels": QRELS + "q1 d2 0.5\n"}, r"test\.tsv line 5: score '0\.5' is not a whole number"),
        ({"qrels": QRELS + "q1 d2 9999999\n"}, r"test\.tsv line 5: score '9999999' is not"),
        ({"qrels": QRELS + "q1 d1 2\n"}, r"line 5: 'q1' and 'd1' were judged 1 before and 2 here"),
        ({"train": "q1 d1 3\n"}, r"train\.tsv line 1: 'q1' and 'd1' were judged 1 before and 3"),
        ({"qrels": b"q1 d1 1\nq1 \xff 1\n"}, r"test\.tsv line 2: not UTF-8"),
        ({"qrels": "q1 d1 0\nq2 d2 -1\n"}, "no judgement is positive"),
        ({"qrels": "query-id corpus-id score\n"}, "no judgement is positive"),
        ({"qrels": "q1 d1 1\nquery-id corpus-id score\n"}, r"test\.tsv line 2: score 'score'"),
    ],
)
def test_every_wrong_row_is_an_error_that_names_it(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_beir(beir(tmp_path, **change))


NAMES = {
    "corpus": [{"id": "Ada Lovelace", "text": "a"}, {"_id": "d\u00a02", "id": "x", "text": "b"}],
    "queries": [{"id": 1, "text": "who"}, {"id": "q 2", "text": "what"}],
}
NAMED = [("1", "Ada Lovelace", 1), ("q 2", "d\u00a02", 2)]
HEAD = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    "qrels",
    [
        "1\tAda Lovelace\t1\nq 2\td\u00a02\t2\n",
        HEAD + "1\tAda Lovelace\t1.0\nq 2\td\u00a02\t+2.\n\n \n",
        "1\t0\tAda Lovelace\t1\nq 2 \t Q0\td\u00a02 \t2 \r\n",
        '"query-id"\t"corpus-id"\t"score"\n"1"\t"Ada Lovelace"\t"1"\nq 2\t"d\u00a02"\t2\n',
        "corpus-id\tscore\tquery-id\nAda Lovelace\t1\t1\nd\u00a02\t2\tq 2\n",
        "score\tnotes\tDocID\tother\tQID\n1\tx\tAda Lovelace\t\t1\n2\ty z\td\u00a02\t\tq 2\n",
    ],
)
def test_ids_with_blanks_and_columns_that_a_head_names_are_read(tmp_path, qrels):
    assert triples(read_beir(beir(tmp_path, **NAMES, qrels=qrels))) == NAMED


@pytest.mark.parametrize("packed", [False, True])
def test_judgements_as_json_lines_are_read_and_joined_with_those_in_columns(tmp_path, packed):
    folder = beir(tmp_path, **NAMES, qrels="1\tAda Lovelace\t1\n", train=None)
    rows = [
        {"query-id": 1, "corpus-id": "Ada Lovelace", "score": 1.0},
        {"score": "2", "query-id": "q 2", "corpus-id": "d\u00a02"},
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / "qrels" / ("test.jsonl.gz" if packed else "test.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    texts = read_beir(folder)
    assert triples(texts) == NAMED
    assert texts.dropped == Dropped(repeated_judgements=1)
    # Alone, at the top, as some exports have it.
    path.rename(folder / path.name.replace("test", "qrels"))
    shutil.rmtree(folder / "qrels")
    assert triples(read_beir(folder), "qrels") == NAMED


def _compared(texts):
    return texts._replace(splits=triples(texts))


def test_files_packed_with_gzip_are_read_by_their_content(tmp_path):
    folder = beir(tmp_path, qrels=gzip.compress(QRELS.encode()))
    plain = _compared(read_beir(beir(tmp_path / "plain")))
    for name in ("corpus.jsonl", "queries.jsonl"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(gzip.compress(b"\xef\xbb\xbf" + data))
    assert _compared(read_beir(folder)) == plain
    (folder / "corpus.jsonl").rename(folder / "corpus.jsonl.gz")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "test.tsv.gz")
    assert _compared(read_beir(folder)) == plain
    (folder / "corpus.jsonl").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"has corpus\.jsonl and corpus\.jsonl\.gz, which may diff"
    ):
        read_beir(folder)


@pytest.mark.parametrize("qrels", ["score\tdocid\t1\n", "score 0 docid 1\n"])
def test_ids_that_are_called_like_columns_are_no_head(tmp_path, qrels):
    named = {"corpus": [{"_id": "docid", "text": "a"}], "queries": [{"_id": "score", "text": "b"}]}
    assert triples(read_beir(beir(tmp_path, **named, qrels=qrels))) == [("score", "docid", 1)]


TWO = [{"_id": i, "text": "x"} for i in ("d1", "0 d1", '"d1"')]


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        # Three columns between tabs, or four between blanks; both documents exist.
        ("q1\t0 d1\t1\n", r"line 1: could mean \('q1', '0 d1'\) or \('q1', 'd1'\)\. Put tabs"),
        ('q1\t"d1"\t1\n', r"""line 1: could mean \('q1', '"d1"'\) or \('q1', 'd1'\)"""),
        ("corpus\tquery-id\tscore\nd1\tq1\t1\n", r"line 1: the head .* Name them query-id"),
        ("query-id\tnotes\tcorpus-id\tx\tscore2\n", r"line 1: 5 columns"),
        ("query-id\tdocid\tpid\tscore\n", r"line 1: the head .* does not say which"),
        (HEAD + "q1\tx\td1\t1\n", "line 2: 4 columns, expected query-id, corpus-id and score"),
        ("q1\td1\ttrue\n", "line 1: score 'true' is not a whole number"),
        ("q1\td1\t1e3\n", "line 1: score '1e3' is not a whole number"),
        ("q1\td1\tnan\n", "line 1: score 'nan' is not a whole number"),
        ("q1\td1\t1_0\n", "line 1: score '1_0' is not a whole number"),
        ("q1,d1,1\n", "line 1: 1 columns, expected query-id"),
        ("q1\t\t1\n", r"line 1: 2 columns|document '' is not"),
    ],
)
def test_lines_that_could_mean_two_things_or_nothing_are_refused(tmp_path, qrels, message):
    with pytest.raises(InputError, match=rf"test\.tsv {message}"):
        read_beir(beir(tmp_path, corpus=TWO, queries=QUERIES, qrels=qrels))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query-id": "q1", "score": 1}, "no fields say which document it is"),
        (
            {"query-id": "q1", "qid": "q2", "corpus-id": "d1", "score": 1},
            "2 fields say which query",
        ),
        ({"query-id": "q1", "corpus-id": "d1", "score": True}, "score 'True' is not a whole"),
        ({"query-id": "q1", "corpus-id": "d1", "score": 0.5}, "score '0.5' is not a whole"),
        ({"query-id": "q1", "corpus-id": "d1", "score": math.nan}, "score 'nan' is not a whole"),
        ({"query-id": "q1", "corpus-id": "d1", "score": None}, "score 'None' is not a whole"),
        (
            {"query-id": 1.5, "corpus-id": "d1", "score": 1},
            "field 'query-id' must be text, found fl",
        ),
        ({"query-id": "q1", "corpus-id": "d9", "score": 1}, "document 'd9' is not in corpus"),
    ],
)
def test_a_wrong_object_of_judgements_is_named(tmp_path, row, message):
    folder = beir(tmp_path, train=None)
    (folder / "qrels" / "more.jsonl").write_text("\n" + json.dumps(row))
    with pytest.raises(InputError, match=rf"more\.jsonl line 2: {message}"):
        read_beir(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("\ufeff{}".encode("utf-16-le"), "UTF-16 text. Convert it: iconv -f UTF-16 -t UTF-8"),
        (json.dumps(CORPUS[0]).encode("utf-16-le"), "UTF-16 text"),
        (json.dumps(CORPUS[0]).encode("utf-16-be"), "UTF-16 text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a pointer of Git LFS.* git lfs",
        ),
        (b"PAR1\x15\x04", "a Parquet file. Convert it: pandas.read_parquet"),
        (b"PK\x03\x04", "a zip archive. Unpack it"),
        (b"\x28\xb5\x2f\xfd\0", "packed with zstd. Unpack it"),
        (b"BZh91AY", "packed with bzip2"),
        (b"\xfd7zXZ\0\0", "packed with xz"),
        (gzip.compress(b"PAR1", mtime=0), "a Parquet file"),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], "damaged gzip"),
    ],
)
@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_file_of_another_kind_is_named_with_the_remedy(tmp_path, name, data, message):
    folder = beir(tmp_path)
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: {message}"):
        read_beir(folder)


def test_a_missing_file_whose_like_is_there_is_told_how_to_convert(tmp_path):
    folder = beir(tmp_path)
    (folder / "corpus.jsonl").rename(folder / "corpus-00000.parquet")
    with pytest.raises(InputError, match=r"There is corpus-00000\.parquet\. .*to_json\('corpus"):
        read_beir(folder)
    other = beir(tmp_path / "other")
    (other / "qrels" / "test.tsv").rename(other / "qrels" / "test.parquet")
    (other / "qrels" / ".DS_Store").write_bytes(b"")
    with pytest.raises(InputError, match=r"no judgements; .*There is test\.parquet, of another"):
        read_beir(other)


def test_an_id_is_unique_among_empty_documents_too(tmp_path):
    empty = {"_id": "d9", "text": ""}
    for number, corpus in enumerate(
        [[*CORPUS, empty, empty], [*CORPUS, {**CORPUS[0], "text": ""}]]
    ):
        with pytest.raises(InputError, match=rf"line {5 - number}: id 'd[19]' occurs a second"):
            read_beir(beir(tmp_path / str(number), corpus=corpus))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = beir(tmp_path)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"judgements, but no {name} that they are about"):
        read_beir(folder)
    (folder / name.replace(".jsonl", ".csv")).write_text("_id,text\n")
    with pytest.raises(InputError, match=f"{name} is missing.*There is"):
        read_beir(folder)


def test_a_missing_folder_or_one_with_nothing_in_it_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        read_beir(tmp_path / "absent")
    with pytest.raises(InputError, match=r"neither corpus\.jsonl nor queries\.jsonl"):
        read_beir(tmp_path)
    with pytest.raises(InputError, match="say --role document or --role query"):
        read_beir(beir(tmp_path) / "corpus.jsonl")


def test_without_judgements_every_query_is_there(tmp_path):
    folder = beir(tmp_path)
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q9", "text": "asked, not judged"}\n')
    assert "q9" not in read_beir(folder).query_ids
    shutil.rmtree(folder / "qrels")
    texts = read_beir(folder)
    assert (texts.query_ids[-1], texts.splits, texts.dropped) == ("q9", {}, Dropped())
    (folder / "qrels.csv").write_text("q1,d1,1\n")  # meant as judgements, but in no known form
    with pytest.raises(InputError, match=r"no judgements; expected .* There is qrels\.csv"):
        read_beir(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_documents_or_queries_alone_are_a_collection(tmp_path, name):
    folder = beir(tmp_path)
    shutil.rmtree(folder / "qrels")
    whole = read_beir(folder)
    (folder / name).unlink()
    texts = read_beir(folder)
    if name == "corpus.jsonl":
        assert (texts.doc_ids, texts.query_ids) == ([], whole.query_ids)
    else:
        assert (texts.doc_ids, texts.query_ids, texts.instructions) == (whole.doc_ids, [], [])


# What is left out, and counted


def test_an_empty_document_goes_with_its_judgements_and_is_counted(tmp_path):
    corpus = [*CORPUS, {"_id": "d4", "title": " ", "text": "\n"}]
    texts = read_beir(beir(tmp_path, corpus=corpus, qrels=QRELS + "q1 d4 1\n"))
    assert texts.doc_ids == ["d1", "d2", "d3"]
    assert len(triples(texts)) == 3
    assert texts.dropped == Dropped(empty_documents=1)
    assert texts.dropped.messages() == [
        "1 documents without any text left out, with their judgements"
    ]


def test_a_document_with_only_a_title_stays(tmp_path):
    texts = read_beir(beir(tmp_path, corpus=[*CORPUS, {"_id": "d4", "title": "T", "text": ""}]))
    assert texts.doc_texts[3] == "T"


def test_unjudged_queries_go_and_rows_are_renumbered_unless_all_are_wanted(tmp_path):
    queries = [{"_id": "q0", "text": "unjudged"}, *QUERIES]
    folder = beir(tmp_path, queries=queries)
    texts = read_beir(folder)
    assert texts.query_ids == ["q1", "q2"]
    assert texts.instructions == ["", "Look"]
    assert triples(texts) == [("q1", "d1", 1), ("q2", "d2", 2), ("q2", "d3", 0)]
    assert texts.dropped == Dropped(unjudged_queries=1)
    every = read_beir(folder, ReaderSettings(all_queries=True))
    assert every.query_ids == ["q0", "q1", "q2"]
    assert triples(every) == triples(texts)
    assert every.dropped == Dropped()


def test_judgements_that_repeat_count_once(tmp_path):
    texts = read_beir(beir(tmp_path, qrels=QRELS + "q1 d1 1\n", train="q2 d2 2\n"))
    assert triples(texts) == [("q1", "d1", 1), ("q2", "d2", 2), ("q2", "d3", 0)]
    assert triples(texts, "train") == []
    assert texts.dropped == Dropped(repeated_judgements=2)


def test_skipping_leaves_out_and_counts_every_kind_of_bad_row(tmp_path):
    corpus = [*CORPUS[:1], "{oops\n", "[1]\n", CORPUS[0], {"_id": "x", "text": 1}, *CORPUS[1:]]
    queries = [{"_id": "q0", "text": ""}, *QUERIES, "nope\n"]
    qrels = QRELS + "q9 d1 1\nq1 d9 1\nq1 d1 5\nq1\nq1 d2 many\n"
    folder = beir(tmp_path, corpus=corpus, queries=queries, qrels=qrels)
    texts = read_beir(folder, ReaderSettings(skip_bad_rows=True))
    assert texts.dropped._replace(kinds=()) == Dropped(bad_rows=4 + 2 + 5)
    assert dict(texts.dropped.kinds) == {
        "corpus.jsonl: not valid JSON": 1,
        "corpus.jsonl: a JSON list": 1,
        "corpus.jsonl: id … occurs a second time": 1,
        "corpus.jsonl: field … must be text": 1,
        "queries.jsonl: query … has no text": 1,
        "queries.jsonl: not valid JSON": 1,
        "test.tsv: query … is not in queries.jsonl": 1,
        "test.tsv: document … is not in corpus.jsonl": 1,
        "test.tsv: … and … were judged 1 before and 5 here": 1,
        "test.tsv: 1 columns": 1,
        "test.tsv: score … is not a whole number up to 1,000,000": 1,
    }
    (message,) = texts.dropped.messages()
    assert message.startswith("11 bad rows skipped: corpus.jsonl: not valid JSON (1); ")


def test_judgements_of_what_is_gone_are_left_out_where_asked(tmp_path):
    lost = beir(tmp_path / "a", qrels=QRELS + "q9 d1 1\nq1 gone 1\nq1 gone2 1\n")
    with pytest.raises(InputError, match=r"test.tsv line 5: query 'q9'.*--skip-lost-judgements"):
        read_beir(lost)
    texts = read_beir(lost, ReaderSettings(skip_lost_judgements=True))
    assert triples(texts) == [("q1", "d1", 1), ("q2", "d2", 2), ("q2", "d3", 0)]
    assert dict(texts.dropped.kinds) == {
        "test.tsv: query … is not in queries.jsonl": 1,
        "test.tsv: document … is not in corpus.jsonl": 2,
    }
    # Anything else that is wrong stays an error.
    worse = beir(tmp_path / "b", qrels=QRELS + "q9 d1 1\nq1 d2 many\n")
    with pytest.raises(InputError, match="score 'many'"):
        read_beir(worse, ReaderSettings(skip_lost_judgements=True))
    assert texts.doc_texts == ["One first text", "second text", "third text"]
    assert texts.query_ids == ["q1", "q2"]
    assert triples(texts) == [("q1", "d1", 1), ("q2", "d2", 2), ("q2", "d3", 0)]


# Templates


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title} {text}", ["One first text", "second text", "third text"]),
        ("{text}", ["first text", "second text", "third text"]),
        (
            "Title: {title}. {text}",
            ["Title: One. first text", "Title: second text", "Title: third text"],
        ),
        ("{title}\n{text} end", ["One\nfirst text end", "second text end", "third text end"]),
        ("passage: {text}", ["passage: first text", "passage: second text", "passage: third text"]),
    ],
)
def test_a_template_joins_title_and_text(tmp_path, template, expected):
    assert (
        read_beir(beir(tmp_path), ReaderSettings(document_template=template)).doc_texts == expected
    )


def test_braces_in_a_text_are_text(tmp_path):
    corpus = [{"_id": "d1", "title": "{text}", "text": "{title} {0} {x!r} }{"}, *CORPUS[1:]]
    texts = read_beir(beir(tmp_path, corpus=corpus))
    assert texts.doc_texts[0] == "{text} {title} {0} {x!r} }{"


def test_a_template_without_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"does not contain \{text\}"):
        read_beir(beir(tmp_path), ReaderSettings(document_template="{title}"))
