"""Collections and encoders that go from a store, or get another name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import HashEncoder
from planted import embed, embedded, fit_folder, planted_texts

from era_cache.errors import FingerprintError, InputError, StoreError
from era_cache.evaluate.evaluate_adapter import Measuring, evaluate_folder
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.store.clean import clean
from era_cache.store.remove import remove, rename
from era_cache.store.store import Store
from era_cache.types import Role

TEXTS = planted_texts()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A store with ``planted`` in two versions, and ``other``, of the first half of its queries."""
    store, _ = embedded(tmp_path_factory.mktemp("remove") / "store", planted_texts(n_docs=110))
    embed(store, TEXTS)
    half = planted_texts(n_queries=30)._replace(name="other")
    embed(store, half)
    return store.path


@pytest.fixture
def store(built, tmp_path) -> Store:
    return Store.open(shutil.copytree(built, tmp_path / "store"))


def _rows(store: Store) -> dict[str, int]:
    return {one.folder.name: sum(s.rows for s in one.segments()) for one in store.encoders()}


def test_a_collection_goes_with_its_versions_and_its_rows_with_gc(store) -> None:
    before = _rows(store)
    told = remove(store, "planted", dry_run=True)
    assert (len(told.collections), told.encoders, told.pairs) == (2, [], 2)
    assert sorted(store.collection_names()) == ["other", "planted"]
    assert remove(store, "planted") == told
    assert store.collection_names() == ["other"]
    assert _rows(store) == before
    with pytest.raises(StoreError, match="no collection and no encoder 'planted'"):
        remove(store, "planted")
    other = store.collection("other")
    clean(store, grace_seconds=0, unreferenced=True)
    query, small_query, document, _ = resolve_encoders(store, other)
    for encoder in (query, small_query, document):
        keys = other.keys_of(encoder.spec.role)
        assert encoder.vectors(keys).any(axis=1).all()
    assert sum(_rows(store).values()) < sum(before.values())


def test_one_version_goes_and_the_other_stays(store) -> None:
    newest = store.collection("planted").version
    (old,) = (version for version in store.versions("planted") if version != newest)
    assert remove(store, f"planted-{old}").collections == [f"planted-{old}"]
    assert store.versions("planted") == [newest]
    resolve_encoders(store, store.collection("planted"))


def test_what_was_removed_is_found_again_where_it_is_embedded_again(store) -> None:
    remove(store, "planted")
    large = next(one for one in store.encoders() if one.spec.dim == 24)
    told = remove(store, large.spec.name)
    assert len(told.encoders) == 2
    assert {one.spec.dim for one in store.encoders()} == {16}
    with pytest.raises(FingerprintError):
        store.encoder(large.spec.fingerprint)
    again = HashEncoder(24, "large")
    embed(store, TEXTS, large=again)
    assert again.encoded == 0
    assert resolve_encoders(store, store.collection("planted")).query.vectors(
        store.collection("planted").query_keys
    ).shape == (60, 24)
    # The marks of the removal go, the encoder stays.
    assert clean(store, grace_seconds=0).removed_encoders == 0
    assert {one.spec.dim for one in store.encoders()} == {16, 24}
    assert not list(store.path.rglob("removed.json"))


def test_the_rows_of_a_removed_encoder_go_after_a_while(store) -> None:
    large = next(
        one for one in store.encoders() if (one.spec.dim, one.spec.role) == (24, Role.QUERY)
    )
    reader = large.index()  # a reader that had it open
    remove(store, large.spec.fingerprint[:12])
    assert clean(store).removed_encoders == 0  # just now
    assert large.folder.is_dir()
    assert clean(store, grace_seconds=0, dry_run=True).removed_encoders == 1
    assert large.folder.is_dir()
    keys = store.collection("planted").keys_of(large.spec.role)[:3]
    before = large.vectors(keys, index=reader)
    assert clean(store, grace_seconds=0).removed_encoders == 1
    assert not large.folder.exists()
    assert before.any()


def test_an_adapter_finds_a_collection_under_its_new_name(store, tmp_path) -> None:
    folder = fit_folder(store, tmp_path / "a").folder
    measuring = Measuring(device="cpu")
    before = evaluate_folder(store, folder, measuring).results
    renamed = rename(store, "planted", "tools")
    assert sorted(renamed) == sorted(f"tools-{version}" for version in store.versions("tools"))
    assert sorted(store.collection_names()) == ["other", "tools"]
    resolve_encoders(store, store.collection("tools"))
    now = evaluate_folder(store, folder, measuring).results
    assert list(now.head.collections) == ["tools"]
    (was,), (found,) = before.fits[0].measured, now.fits[0].measured
    assert np.array_equal(was.query_rows, found.query_rows)
    assert np.array_equal(was.values, found.values)
    # It stays what it is where the same is embedded again under that name, and where it grows.
    embed(store, TEXTS._replace(name="tools"))
    again = evaluate_folder(store, folder, measuring).results
    assert np.array_equal(again.fits[0].measured[0].values, found.values)
    more = TEXTS._replace(
        name="tools", doc_ids=[*TEXTS.doc_ids, "new"], doc_texts=[*TEXTS.doc_texts, "more words"]
    )
    embed(store, more)
    grown = evaluate_folder(store, folder, measuring).results
    assert np.array_equal(grown.fits[0].measured[0].query_rows, found.query_rows)
    (note,) = grown.head.notes
    assert "tools: 121 documents, fitted on 120 (1 document newer)" in note


def test_an_encoder_gets_another_name_and_no_other_fingerprint(store) -> None:
    large = next(one for one in store.encoders() if one.spec.dim == 24)
    before = _rows(store)
    rename(store, large.spec.name, "our-large")
    assert _rows(store) == before
    found = store.encoder("our-large", Role.QUERY)
    assert found.spec.fingerprint in {one.spec.fingerprint for one in store.encoders()}
    assert found.vectors(store.collection("planted").query_keys).any()
    resolve_encoders(store, store.collection("planted"), query="our-large")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("planted", "other", "holds a 'other' already"),
        ("planted", "a/b", "name"),
        ("hash-24", "\x1b[2J", "name"),
        ("nobody", "somebody", "no collection and no encoder 'nobody'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(store, old, new, message) -> None:
    before = sorted(path.name for path in store.path.rglob("*"))
    with pytest.raises((InputError, StoreError), match=message):
        rename(store, old, new)
    assert sorted(path.name for path in store.path.rglob("*")) == before
