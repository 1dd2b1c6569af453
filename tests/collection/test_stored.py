"""The file of a collection: it comes back, and no changed one is believed."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from beir_folder import QRELS, QUERIES, beir

from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.beir import read_beir
from era_cache.collection.keys import row_keys
from era_cache.collection.records import Dropped
from era_cache.collection.stored import collection_digest, read_collection, write_collection
from era_cache.errors import FormatError, InputError, StoreError
from era_cache.types import Role


def test_a_stored_collection_comes_back(tmp_path):
    queries = [*QUERIES, {"_id": "größe\u4e2d", "text": "third"}]
    texts = read_beir(
        beir(tmp_path, queries=queries, qrels=QRELS + "größe\u4e2d d3 1\n", train="q1 d2 -1\n"),
        ReaderSettings(name="x"),
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


def test_the_digest_of_a_collection_stays_what_it_is(tmp_path, toy_texts):
    """A reader of another version must not take what is stored for something new."""
    digest = "fbc88906103e36698e26fc311d5428eec4953c1b1f2d44f03f45369dcfe99723"
    assert write_collection(tmp_path, toy_texts).digest == digest
    told = toy_texts._replace(dropped=Dropped(kinds=(("a.tsv: 1 columns", 3),)))
    assert write_collection(tmp_path, told).digest == digest


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
        lambda m: {**m, "domain": "law\x1b]0;owned\x07"},
        lambda m: {**m, "domain": "x" * 201},
        lambda m: {**m, "splits": ["te\nst"]},
        lambda m: {**m, "splits": ["\u202etest"]},
    ],
)
def test_metadata_that_are_wrong_are_refused(tmp_path, change):
    with pytest.raises(FormatError, match="metadata is incomplete"):
        read_collection(forge(stored(tmp_path), change_meta=change))


@pytest.mark.parametrize("change", [{"domain": "law\ud800"}, {"splits": {"a\tb": None}}])
def test_names_that_a_terminal_would_obey_are_not_stored(tmp_path, toy_texts, change):
    if "splits" in change:
        change = {"splits": dict.fromkeys(change["splits"], toy_texts.splits["test"])}
    with pytest.raises(InputError, match="is no name of 1 to 200 printable characters"):
        write_collection(tmp_path, toy_texts._replace(**change))
    assert list(tmp_path.iterdir()) == []


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
