"""Search indexes in a store: found by what they were built from, refused where that is not so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from planted import planted_texts

from era_cache.disk.hdf5 import write_plain
from era_cache.errors import FormatError
from era_cache.store.clean import clean
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.search_indexes import (
    IndexSource,
    find_search_index,
    read_search_index,
    rows_digest,
    source_of,
    write_search_index,
)
from era_cache.store.store import Store
from era_cache.store.sync import merge
from era_cache.store.verify import verify
from era_cache.types import Role

ARRAYS = {
    "centres": np.arange(6, dtype=np.float32).reshape(2, 3),
    "lists": np.array([0, 1, 1], dtype=np.int32),
}
SPEC = EncoderSpec("small", {"kind": "test"}, dict.fromkeys(Role, "{text}"), {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "store")
    made.add_collection(planted_texts())
    made.add_encoder(SPEC, Role.DOCUMENT, 3)
    return made


def source(store: Store, name: str = "planted", **other: object) -> IndexSource:
    documents = rows_digest(store.collection(name).doc_keys)
    fields = {"kind": "ivf", "documents": documents, "dim": 3, "seed": 0, "recipe": 1}
    encoder = SPEC.fingerprint(Role.DOCUMENT)
    return IndexSource(**{**fields, "encoder": encoder, **other})  # type: ignore[arg-type]


def test_an_index_comes_back_by_what_it_was_built_from(store) -> None:
    path = write_search_index(store, source(store), ARRAYS, "library 1")
    assert find_search_index(store, source(store)) == [f"indexes/{path.name}"]
    found = read_search_index(path)
    assert (found.source, found.made_by) == (source(store), "library 1")
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    assert source_of(path) == source(store)
    assert verify(store).findings == []


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "pq"},
        {"documents": "0" * 64},
        {"encoder": "0" * 64},
        {"dim": 4},
        {"seed": 1},
        {"recipe": 2},
    ],
)
def test_with_anything_else_it_is_another_index(store, other) -> None:
    write_search_index(store, source(store), ARRAYS, "library 1")
    assert find_search_index(store, source(store, **other)) == []


def test_rows_in_another_order_are_other_documents(store) -> None:
    keys = store.collection("planted").doc_keys
    assert rows_digest(keys) != rows_digest(keys[::-1])


@pytest.mark.parametrize("at", [0, 40, 900, -3])
def test_a_flipped_byte_is_found(store, at) -> None:
    path = write_search_index(store, source(store), ARRAYS, "library 1")
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read_search_index(path)
    (finding,) = verify(store).findings
    assert finding.path == f"indexes/{path.name}"


def test_under_another_name_it_is_refused(store) -> None:
    path = write_search_index(store, source(store), ARRAYS, "library 1")
    other = write_search_index(store, source(store, seed=1), ARRAYS, "library 1")
    shutil.copy(path, other)
    with pytest.raises(FormatError, match="name"):
        read_search_index(other)


@pytest.mark.parametrize(
    "meta",
    [
        "",
        "[]",
        "{}",
        '{"kind":"ivf","documents":"a","encoder":"b","dim":"3","seed":0,"recipe":1,"made_by":"x"}',
        '{"kind":"ivf","documents":"a","encoder":"b","dim":true,"seed":0,"recipe":1,"made_by":"x"}',
        '{"kind":"ivf","documents":"a","encoder":"b","dim":3,"seed":0,"recipe":1,"made_by":"x","more":1}',
    ],
)
def test_what_it_was_built_from_must_be_said_whole(tmp_path, meta) -> None:
    path = tmp_path / "ivf-0123456789ab-0123456789ab.h5"
    attributes: dict[str, int | str] = {
        "format": "era-search-index",
        "version": 1,
        "digest": "0" * 64,
        "meta": meta,
    }
    write_plain(path, ARRAYS, attributes)
    for read in (source_of, read_search_index):
        with pytest.raises(FormatError):
            read(path)


def test_it_is_not_copied_and_goes_with_its_documents(store, tmp_path) -> None:
    path = write_search_index(store, source(store), ARRAYS, "library 1")
    merge(tmp_path / "target", [store.path])
    assert verify(Store.open(tmp_path / "target")).findings == []
    assert not (tmp_path / "target" / "indexes").exists()
    store.add_collection(planted_texts(121)._replace(name="planted"))
    assert clean(store, unreferenced=True, grace_seconds=0).indexes == 0  # both versions stay
    assert clean(store, old_versions=True, grace_seconds=0, dry_run=True).indexes == 1
    assert path.exists()
    assert clean(store, old_versions=True, grace_seconds=0).indexes == 1
    assert not path.exists()


def test_indexes_of_no_encoder_and_damaged_ones_are_cleaned_away(store) -> None:
    of_none = write_search_index(store, source(store, encoder="0" * 64), ARRAYS, "library 1")
    damaged = write_search_index(store, source(store, seed=1), ARRAYS, "library 1")
    sound = write_search_index(store, source(store), ARRAYS, "library 1")
    damaged.write_bytes(b"nothing")
    assert clean(store, grace_seconds=3600).indexes == 0
    assert clean(store, grace_seconds=0).indexes == 2
    assert (of_none.exists(), damaged.exists(), sound.exists()) == (False, False, True)
