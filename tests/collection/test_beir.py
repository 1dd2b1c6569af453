"""Reading folders in BEIR layout: every wrong row is named or counted."""

from __future__ import annotations

import json
import shutil

import pytest
from beir_folder import CORPUS, QRELS, QUERIES, beir

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
    assert read_beir(folder, name="other").name == "other"
    with pytest.raises(InputError, match="'a/b' cannot be used as a name"):
        read_beir(folder, name="a/b")


@pytest.mark.parametrize(("content", "message"), [("{", "not valid JSON"), ("[]", "JSON object")])
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
        ({"corpus": [*CORPUS, "[1]\n"]}, r"corpus\.jsonl line 4: expected a JSON object"),
        ({"corpus": [*CORPUS, CORPUS[0]]}, r"corpus\.jsonl line 4: id 'd1' occurs a second time"),
        ({"corpus": [{"text": "x"}]}, r"corpus\.jsonl line 1: field '_id' .* found nothing"),
        (
            {"corpus": [{"_id": True}]},
            r"corpus\.jsonl line 1: field '_id' must be text, found bool",
        ),
        ({"corpus": [{"_id": ""}]}, r"corpus\.jsonl line 1: id '' is empty or has white space"),
        ({"corpus": [{"_id": "a b"}]}, r"corpus\.jsonl line 1: id 'a b' is empty or has white"),
        ({"corpus": [{"_id": "a\u00a0b"}]}, r"corpus\.jsonl line 1: id .* white space"),
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
        ({"qrels": None}, r"qrels: no judgements; expected qrels/<split>\.tsv"),
    ],
)
def test_every_wrong_row_is_an_error_that_names_it(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_beir(beir(tmp_path, **change))


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
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_beir(folder)


def test_a_missing_folder_or_folder_of_qrels_is_named(tmp_path):
    folder = beir(tmp_path)
    shutil.rmtree(folder / "qrels")
    with pytest.raises(InputError, match="qrels: no judgements"):
        read_beir(folder)
    with pytest.raises(InputError, match="absent: no such folder"):
        read_beir(tmp_path / "absent")


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
    every = read_beir(folder, all_queries=True)
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
    texts = read_beir(folder, skip_bad_rows=True)
    assert texts.dropped == Dropped(bad_rows=4 + 2 + 5)
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
    assert read_beir(beir(tmp_path), document_template=template).doc_texts == expected


def test_braces_in_a_text_are_text(tmp_path):
    corpus = [{"_id": "d1", "title": "{text}", "text": "{title} {0} {x!r} }{"}, *CORPUS[1:]]
    texts = read_beir(beir(tmp_path, corpus=corpus))
    assert texts.doc_texts[0] == "{text} {title} {0} {x!r} }{"


def test_a_template_without_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"does not contain \{text\}"):
        read_beir(beir(tmp_path), document_template="{title}")
