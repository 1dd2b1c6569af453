"""The tensors that are read for a pair of encoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hash_encoder import HashEncoder
from planted import SPLIT, embedded, planted_texts

from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.errors import FitError, FormatError, StoreError
from era_cache.fitting.encoder_pair import Encoders, resolve_encoders
from era_cache.fitting.tensors import load_fit_data, load_held_out, query_set, resolve_device
from era_cache.rank.ties import tie_order
from era_cache.store.store import Store
from era_cache.types import Role

LARGE, SMALL = HashEncoder(24, "large"), HashEncoder(16, "small")
TEXTS = planted_texts()


@pytest.fixture
def store(tmp_path) -> Store:
    return embedded(tmp_path / "store", TEXTS, large=LARGE, small=SMALL)[0]


@pytest.fixture
def collection(store) -> Collection:
    return store.collection("planted")


@pytest.fixture
def split(collection) -> Split:
    return make_split(collection, SPLIT)


@pytest.fixture
def encoders(store, collection) -> Encoders:
    return resolve_encoders(store, collection)


def _vectors(encoder: HashEncoder, texts: list[str]) -> np.ndarray:
    vectors = np.concatenate([v for _, v in encoder.encode(texts, Role.QUERY)])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _close(tensor: torch.Tensor, expected: np.ndarray) -> None:
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(tensor.norm(dim=1).numpy(), 1, atol=1e-6)


def test_fit_data_are_the_unit_vectors_of_the_right_texts_in_order(
    collection, split, encoders
) -> None:
    data = load_fit_data(collection, split, encoders, align_documents=1000)
    held_out = load_held_out(collection, split, encoders)
    assert held_out.large_corpus is None
    for queries, rows in (
        (data.train, split.train),
        (data.validation, split.validation),
        (held_out.queries, split.test),
    ):
        assert queries.ids == [TEXTS.query_ids[row] for row in rows]
        own = [TEXTS.query_texts[row] for row in rows]
        _close(queries.views["large"], _vectors(LARGE, own))
        _close(queries.views["small"], _vectors(SMALL, own))
        assert queries.exclude is None
    for read in (data, held_out):
        _close(read.corpus, _vectors(SMALL, TEXTS.doc_texts))
    assert data.tie_ranks.tolist() == tie_order(TEXTS.doc_ids).tolist()
    # The same documents on both sides of the alignment: find them by their small vectors.
    assert data.align_large.shape == (60, 24)
    rows = (data.align_small @ data.corpus.T).argmax(dim=1).tolist()
    assert len(set(rows)) == 60
    assert rows != sorted(rows)  # in the sample's order: a prefix is a smaller sample
    _close(data.align_large, _vectors(LARGE, [TEXTS.doc_texts[row] for row in rows]))


def test_fewer_alignment_documents_are_part_of_more(collection, split, encoders) -> None:
    some, more = (
        load_fit_data(collection, split, encoders, align_documents=count).align_large.tolist()
        for count in (10, 30)
    )
    assert (len(some), len(more)) == (10, 30)
    assert set(map(tuple, some)) < set(map(tuple, more))


def test_judgements_are_renumbered_by_position(collection) -> None:
    rows = np.array([5, 2], dtype=np.int64)
    queries = query_set(collection, rows, {}, "cpu")
    assert queries.ids == ["q005", "q002"]
    found = sorted(zip(*(column.tolist() for column in queries.qrels), strict=True))
    assert found == [(0, 5, 2), (0, 10, 1), (0, 14, 0), (1, 2, 2), (1, 7, 1), (1, 11, 0)]


def test_a_query_excludes_the_document_of_its_id_where_the_collection_says_so(collection) -> None:
    made = collection._replace(
        ignore_identical_ids=True, query_ids=["d003", "none", *collection.query_ids[2:]]
    )
    queries = query_set(made, np.array([1, 0], dtype=np.int64), {}, "cpu")
    assert queries.exclude.tolist() == [-1, 3]
    assert query_set(collection, np.array([0]), {}, "cpu").exclude is None


@pytest.mark.parametrize(
    ("side", "error", "message"),
    [
        ("align", FitError, r"no document is encoded by hash-24.*--align-documents"),
        ("small_query", StoreError, "24 of 24 rows are not encoded by hash-16"),
    ],
)
def test_what_is_not_encoded_is_reported(collection, split, encoders, side, error, message) -> None:
    for path in getattr(encoders, side).segment_paths():
        path.unlink()
    with pytest.raises(error, match=message):
        load_fit_data(collection, split, encoders, align_documents=10)


@pytest.mark.parametrize("side", ["query", "small_query", "document", "align"])
def test_a_changed_byte_of_any_segment_is_found_before_fitting(
    collection, split, encoders, side
) -> None:
    (path,) = getattr(encoders, side).segment_paths()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="segment is damaged"):
        load_fit_data(collection, split, encoders, align_documents=10)
    with pytest.raises(FormatError, match="segment is damaged"):
        load_held_out(collection, split, encoders)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(None) == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(FitError, match=f"Device '{name}' cannot be used"):
            resolve_device(name)
