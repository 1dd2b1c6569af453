"""Collections: every wrong row is named or counted, keys mean what they say, files come back."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.collection.beir import read_beir
from era_cache.collection.keys import alignment_order, distinct_rows, row_keys
from era_cache.collection.records import Dropped
from era_cache.collection.stored import collection_digest, read_collection, write_collection
from era_cache.errors import FormatError, InputError, StoreError
from era_cache.types import Role

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first text"},
    {"_id": "d2", "title": "", "text": "second text"},
    {"_id": "d3", "text": "third text"},
]
QUERIES = [
    {"_id": "q1", "text": "find first"},
    {"_id": "q2", "text": "find second", "instruction": "Look"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\nq2\td3\t0\n"


def lines(rows):
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def beir(folder: Path, corpus=CORPUS, queries=QUERIES, qrels=QRELS, **splits) -> Path:
    folder = folder / "beir"
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = rows if isinstance(rows, bytes) else lines(rows).encode()
        (folder / f"{name}.jsonl").write_bytes(text)
    for name, text in {"test": qrels, **splits}.items():
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            (folder / "qrels" / f"{name}.tsv").write_bytes(data)
    return folder


def triples(texts, split="test"):
    part = texts.splits[split]
    return [(texts.query_ids[q], texts.doc_ids[d], int(r)) for q, d, r in zip(*part, strict=True)]


# Reading


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


# Keys


def test_a_key_is_the_digest_of_three_frames():
    frames = b"\x05\0\0\0\0\0\0\0query" + b"\x03\0\0\0\0\0\0\0Do!" + b"\x03\0\0\0\0\0\0\0\xc3\xbcx"
    digest = hashlib.blake2b(frames, digest_size=16, person=b"era-key-1").digest()
    (key,) = row_keys(Role.QUERY, ["üx"], ["Do!"])
    assert key.tobytes() == digest
    frames = b"\x08\0\0\0\0\0\0\0document" + b"\0" * 8 + b"\x01\0\0\0\0\0\0\0a"
    digest = hashlib.blake2b(frames, digest_size=16, person=b"era-key-1").digest()
    assert row_keys(Role.DOCUMENT, ["a"])[0].tobytes() == digest
    assert digest.hex() == "1b710c8f849ccec8ca3dc7f133da0145"


def test_role_instruction_and_text_each_change_the_key():
    keys = [
        row_keys(role, [text], [instruction])[0].tobytes()
        for role in Role
        for instruction in ("", "a", "b")
        for text in ("a", "b", "a ", "A", "")
    ]
    assert len(set(keys)) == len(keys) == 30


def test_no_normalisation_and_no_stripping():
    assert len({k.tobytes() for k in row_keys(Role.QUERY, ["é", "e\u0301", " é", "é\n"])}) == 4


def test_a_missing_instruction_is_the_empty_one():
    assert np.array_equal(
        row_keys(Role.QUERY, ["a", "b"]), row_keys(Role.QUERY, ["a", "b"], ["", ""])
    )


def test_keys_of_no_text_have_their_shape():
    assert row_keys(Role.QUERY, []).shape == (0, 16)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.tuples(text, text), st.tuples(text, text))
def test_framing_is_unambiguous(one, two):
    keys = row_keys(Role.QUERY, [one[1], two[1]], [one[0], two[0]])
    assert np.array_equal(keys[0], keys[1]) == (one == two)


@given(text, st.integers(0, 12), st.integers(0, 12))
def test_moving_the_border_between_instruction_and_text_changes_the_key(whole, a, b):
    a, b = min(a, len(whole)), min(b, len(whole))
    keys = row_keys(Role.QUERY, [whole[a:], whole[b:]], [whole[:a], whole[:b]])
    assert np.array_equal(keys[0], keys[1]) == (a == b)


def test_a_lone_surrogate_has_no_key():
    with pytest.raises(InputError, match="Text number 2 is not valid Unicode"):
        row_keys(Role.DOCUMENT, ["fine", "\ud800"])


# Order


@given(st.lists(st.integers(0, 6), max_size=20))
def test_distinct_rows_are_the_first_occurrences(numbers):
    keys = row_keys(Role.DOCUMENT, [str(n) for n in numbers])
    first = sorted({n: row for row, n in reversed(list(enumerate(numbers)))}.values())
    assert distinct_rows(keys).tolist() == first


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=30), st.integers(0, 3), st.data())
def test_alignment_order_depends_on_the_texts_and_the_seed_only(numbers, seed, data):
    texts = [str(n) for n in numbers]
    order = [texts[row] for row in alignment_order(row_keys(Role.DOCUMENT, texts), seed)]
    assert sorted(order) == sorted(set(texts))
    shuffled = data.draw(st.permutations(texts))
    again = [shuffled[row] for row in alignment_order(row_keys(Role.DOCUMENT, shuffled), seed)]
    assert again == order
    more = [*texts, "new 1", "new 2"]
    longer = [more[row] for row in alignment_order(row_keys(Role.DOCUMENT, more), seed)]
    assert [text for text in longer if text in set(texts)] == order


def test_another_seed_gives_another_sample_and_each_is_spread_evenly():
    keys = row_keys(Role.DOCUMENT, [str(n) for n in range(1000)])
    samples = [set(alignment_order(keys, seed)[:500].tolist()) for seed in range(20)]
    overlaps = [len(a & b) for i, a in enumerate(samples) for b in samples[:i]]
    # Two independent halves of 1000 share 250 +- 8; a mask that only mirrors the order would
    # give 0 or 500.
    assert 200 < np.mean(overlaps) < 300
    assert len({tuple(sorted(sample)) for sample in samples}) == 20


# The stored form


def test_a_stored_collection_comes_back(tmp_path):
    queries = [*QUERIES, {"_id": "größe\u4e2d", "text": "third"}]
    texts = read_beir(
        beir(tmp_path, queries=queries, qrels=QRELS + "größe\u4e2d d3 1\n", train="q1 d2 -1\n"),
        name="x",
    )
    texts = texts._replace(domain="law", ignore_identical_ids=True)
    written = write_collection(tmp_path, texts)
    path = tmp_path / f"x-{written.digest[:12]}.h5"
    back = read_collection(path)
    assert (back.name, back.domain, back.ignore_identical_ids) == ("x", "law", True)
    assert back.doc_ids == texts.doc_ids
    assert back.query_ids == ["q1", "q2", "größe\u4e2d"]
    np.testing.assert_array_equal(back.doc_keys, row_keys(Role.DOCUMENT, texts.doc_texts))
    np.testing.assert_array_equal(
        back.query_keys, row_keys(Role.QUERY, texts.query_texts, texts.instructions)
    )
    assert back.splits == ["test", "train"]
    assert [column.tolist() for column in (*back.qrels, back.qrels_split)] == [
        [0, 1, 1, 2, 0],
        [0, 1, 2, 2, 1],
        [1, 2, 0, 1, -1],
        [0, 0, 0, 0, 1],
    ]
    assert (back.digest, back.version, back.created) == (
        written.digest,
        written.digest[:12],
        written.created,
    )


def test_no_text_is_in_the_file(tmp_path):
    written = write_collection(tmp_path, read_beir(beir(tmp_path)))
    content = (tmp_path / f"beir-{written.version}.h5").read_bytes()
    assert b"first" not in content
    assert b"d1d2d3" in content


def test_the_same_collection_has_the_same_digest_and_any_change_another(tmp_path):
    base = read_beir(beir(tmp_path))
    variants = [
        base,
        base._replace(name="other"),
        base._replace(domain="x"),
        base._replace(ignore_identical_ids=True),
        base._replace(doc_ids=["d1", "d2", "d4"]),
        base._replace(doc_ids=["d", "1d2", "d3"]),
        base._replace(doc_texts=[*base.doc_texts[:2], "x"]),
        base._replace(query_texts=["x", base.query_texts[1]]),
        base._replace(instructions=["x", "Look"]),
        base._replace(splits={"dev": base.splits["test"]}),
        base._replace(dropped=Dropped(bad_rows=1)),
    ]
    digests = [write_collection(tmp_path, texts).digest for texts in variants]
    assert len(set(digests)) == len(variants)
    assert write_collection(tmp_path, base).digest == digests[0]


def stored(tmp_path) -> Path:
    written = write_collection(tmp_path, read_beir(beir(tmp_path)))
    return tmp_path / f"beir-{written.version}.h5"


@pytest.mark.parametrize(
    "name",
    [
        "doc_keys",
        "doc_ids",
        "query_keys",
        "query_ids",
        "qrels_query",
        "qrels_doc",
        "qrels_relevance",
        "qrels_split",
    ],
)
def test_a_changed_value_is_found(tmp_path, name):
    path = stored(tmp_path)
    with h5py.File(path, "r+", libver="v110") as file:
        file[name][0] = file[name][0] ^ 1
    with pytest.raises(FormatError, match="content and digest differ"):
        read_collection(path)


def test_changed_metadata_are_found(tmp_path):
    path = stored(tmp_path)
    with h5py.File(path, "r+", libver="v110") as file:
        meta = file.attrs["meta"].decode().replace('"domain":""', '"domain":"x"')
        file.attrs.modify("meta", np.bytes_(meta.encode()))
    with pytest.raises(FormatError, match="content and digest differ"):
        read_collection(path)


def forge(path, change_arrays=None, change_meta=None):
    """Change a collection file and give it the digest that fits."""
    with h5py.File(path, "r+", libver="v110") as file:
        arrays = {name: file[name][...] for name in file}
        (change_arrays or (lambda _: None))(arrays)
        meta = json.loads(file.attrs["meta"].decode())
        meta = (change_meta or (lambda m: m))(meta)
        meta = json.dumps(meta, sort_keys=True, separators=(",", ":")).encode()
        for name, array in arrays.items():
            del file[name]
            file.create_dataset(name, data=array)
        file.attrs["meta"] = np.bytes_(meta)
        file.attrs["digest"] = np.bytes_(collection_digest(meta, arrays).encode())
    return path


def test_a_forgery_with_the_right_digest_and_right_content_is_read(tmp_path):
    path = forge(stored(tmp_path), lambda a: a["qrels_relevance"].__setitem__(0, 3))
    assert read_collection(path).qrels.relevance.tolist() == [3, 2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["qrels_doc"].__setitem__(0, 3), "points outside"),
        (lambda a: a["qrels_doc"].__setitem__(0, -1), "points outside"),
        (lambda a: a["qrels_query"].__setitem__(0, 2), "points outside"),
        (lambda a: a["qrels_split"].__setitem__(0, 1), "points outside"),
        (lambda a: a.update(qrels_doc=a["qrels_doc"][:2]), "different lengths"),
        (lambda a: a.update(qrels_split=a["qrels_split"][:2]), "different lengths"),
        (lambda a: a.update(doc_keys=a["doc_keys"][:2]), "numbers of ids and keys differ"),
        (lambda a: a["doc_id_ends"].__setitem__(1, 2), "table of ids is damaged"),
        (lambda a: a["doc_id_ends"].__setitem__(2, 7), "table of ids is damaged"),
        (lambda a: a["doc_id_ends"].__setitem__(0, -1), "table of ids is damaged"),
        (lambda a: a["doc_ids"].__setitem__(0, 255), "not UTF-8"),
        (lambda a: a["doc_ids"].__setitem__(1, ord("2")), "occurs twice"),
        (lambda a: a.update(doc_keys=a["doc_keys"][:, :8]), "'doc_keys' has dtype"),
        (lambda a: a.update(qrels_doc=a["qrels_doc"].astype("i4")), "'qrels_doc' has dtype"),
        (lambda a: a.update(qrels_doc=a["qrels_doc"][:, None]), "'qrels_doc' has dtype"),
    ],
)
def test_a_forgery_that_contradicts_itself_is_refused(tmp_path, change, message):
    with pytest.raises(FormatError, match=message):
        read_collection(forge(stored(tmp_path), change))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda m: {**m, "name": "../../x"},
        lambda m: {**m, "name": 5},
        lambda m: {**m, "splits": 5},
        lambda m: {k: v for k, v in m.items() if k != "domain"},
    ],
)
def test_metadata_that_are_wrong_are_refused(tmp_path, change):
    with pytest.raises(FormatError, match="metadata is incomplete"):
        read_collection(forge(stored(tmp_path), change_meta=change))


def test_missing_and_additional_members_are_refused(tmp_path):
    path = stored(tmp_path)
    with h5py.File(path, "r+", libver="v110") as file:
        file.create_dataset("more", data=np.zeros(1))
    with pytest.raises(FormatError, match="not those of a collection"):
        read_collection(path)
    with h5py.File(path, "r+", libver="v110") as file:
        del file["more"]
        del file["qrels_doc"]
    with pytest.raises(FormatError, match="not those of a collection"):
        read_collection(path)


def test_a_newer_version_and_an_absent_file_are_refused(tmp_path):
    path = stored(tmp_path)
    with h5py.File(path, "r+", libver="v110") as file:
        file.attrs.modify("version", np.int64(2))
    with pytest.raises(FormatError, match="Install a newer"):
        read_collection(path)
    with pytest.raises(StoreError, match="opening failed"):
        read_collection(tmp_path / "absent.h5")
