"""Files of every format version that was ever written are still read, value for value."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from era_cache.collection.keys import row_keys
from era_cache.store.encoder_record import EncoderSpec, write_encoder_record
from era_cache.store.store import Store
from era_cache.types import Role

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if (path / "store.json").is_file())
SPACE = "e8ad20dd13c5b8bf0eafabfad6499313df75e0adea4205c00b50db9a50d95e61"
QUERY = "ae6ea02a8110cbbfd096f82dfbb1241d66fe36101debd7c0da9ebef8cc2c2a38"
DOCUMENT = "5bd75e671b5cbc418e13c463df1c0a9824d7cd7172dbb9b0cd17829a92b5d222"


@pytest.fixture(params=VERSIONS)
def store(request, tmp_path) -> Store:
    return Store.open(shutil.copytree(GOLDEN / request.param, tmp_path / "store"))


def test_the_first_version_is_there():
    assert "v1" in VERSIONS


def test_the_collection_reads_as_it_was_written(store):
    c = store.collection("golden")
    assert c.digest == "3dfe0e1874a46817fd55173f011728fc95902a55670d762e87fc22fb2fa13a67"
    assert (c.name, c.domain, c.ignore_identical_ids) == ("golden", "tests", True)
    assert (c.doc_ids, c.query_ids, c.splits) == (
        ["d1", "dü2", "d3"],
        ["q1", "q2"],
        ["dev", "test"],
    )
    assert [column.tolist() for column in (*c.qrels, c.qrels_split)] == [
        [1, 0, 0],
        [2, 0, 1],
        [1, 2, -1],
        [0, 1, 1],
    ]
    assert [key.tobytes().hex() for key in c.doc_keys] == [
        "f5d7aac8a78569de093b240d93b62033",
        "104b974b2b176a4d08e8dda4e60a892c",
        "2018f528a258721ac8fa18c8a13bbff1",
    ]
    assert [key.tobytes().hex() for key in c.query_keys] == [
        "0e9c2e5c593e7b5a3bc74337e3acec8e",
        "ebfd7c95bdba26f9987bb41aa4c32376",
    ]


def test_keys_made_today_are_the_keys_that_were_stored(store):
    c = store.collection("golden")
    np.testing.assert_array_equal(c.doc_keys, row_keys(Role.DOCUMENT, ["one", "zwei ü", "three"]))
    queries = row_keys(Role.QUERY, ["first?", "second?"], ["", "Find it"])
    np.testing.assert_array_equal(c.query_keys, queries)


def test_the_encoders_read_as_they_were_written(store):
    document, query = sorted(store.encoders(), key=lambda e: e.spec.role.value)
    assert (document.spec.fingerprint, query.spec.fingerprint) == (DOCUMENT, QUERY)
    assert document.spec.space == query.spec.space == SPACE
    assert query.spec.template == "Task: {instruction}\nQuery: {text}"
    assert document.spec.template == "{text}"
    assert (query.spec.name, query.spec.dim) == ("golden-model", 3)
    assert query.spec.identity["truncate_dim"] == 3


def test_fingerprints_and_descriptions_made_today_are_those_that_were_stored(store, tmp_path):
    for encoder in store.encoders():
        stored = encoder.spec
        templates = dict.fromkeys(Role, stored.template)
        spec = EncoderSpec(stored.name, stored.identity, templates, stored.source)
        assert spec.fingerprint(stored.role) in (QUERY, DOCUMENT)
        write_encoder_record(tmp_path, spec, stored.role, stored.dim)
        written = (tmp_path / "encoder.json").read_bytes()
        assert written == (encoder.folder / "encoder.json").read_bytes()


def test_the_vectors_read_as_they_were_written(store):
    c = store.collection("golden")
    found = store.encoder(DOCUMENT).vectors(c.doc_keys, check=True)
    assert found.tolist() == [[1, 2, 3], [-0.5, 0.25, 1024], [0, 0, -2]]
    found = store.encoder(QUERY).vectors(c.query_keys[::-1], check=True)
    expected = np.array([[3e38, 0, -1], [0.5, 1, 1e-10]], dtype=np.float32)
    np.testing.assert_array_equal(found, expected)


def test_the_pair_reads_as_it_was_written(store):
    (pair,) = store.pairs(store.collection("golden"))
    assert pair == {"query": QUERY, "small_query": QUERY, "document": DOCUMENT, "align": DOCUMENT}
