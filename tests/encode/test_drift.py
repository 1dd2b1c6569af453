"""Probing: vectors of another runtime or an untrue import are noticed, honest ones are not."""

from __future__ import annotations

import json
from importlib.metadata import version

import msgspec
import numpy as np
import pytest
from hash_encoder import HashEncoder
from imported_vectors import bring, nothing_stored, texts_of, write_spec
from tiny_model import build_tiny, open_model

from era_cache.disk.files import sha256_file
from era_cache.disk.hdf5 import write_plain
from era_cache.encode.config import EmbedConfig
from era_cache.encode.drift import probe_rows
from era_cache.encode.embed import embed_collection
from era_cache.encode.encoder import encoder_as_recorded
from era_cache.errors import EncoderError, FingerprintError, FormatError, StoreError
from era_cache.store.encoder_record import read_stated_spec
from era_cache.store.exchange.matching import collection_keys
from era_cache.store.precision import check_vectors
from era_cache.store.segment import segment_attributes
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

TEXTS = texts_of(
    ["a b", "b c d", "d", "c c a", "a d d d", "b"], ("a", "b c"), ("find", ""), dropped=None
)
WEIGHTS = np.random.default_rng(0).standard_normal((5, 24)).astype("f4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny(tmp_path_factory.mktemp("model") / "tiny", WEIGHTS)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def model_of(folder, **options):
    return open_model(folder, device="cpu", **options)


def fresh(encoder, role=Role.DOCUMENT):
    texts = TEXTS.doc_texts if role is Role.DOCUMENT else TEXTS.query_texts
    out = np.empty((len(texts), 24), "f4")
    for rows, batch in encoder.encode(texts, role):
        out[rows] = batch
    return out


def write(store, spec, vectors, dtype="float16", role=Role.DOCUMENT, rows=None, **provenance):
    """Store vectors as a runtime of its own would have written them."""
    rows = np.arange(len(vectors)) if rows is None else np.array(rows)
    encoder = store.add_encoder(spec, role, vectors.shape[1])
    stored = check_vectors(vectors[rows], dtype, str, "m")
    keys = collection_keys(TEXTS, role)[1]
    SegmentWriter(encoder, provenance).commit(keys[rows], stored)
    return store.encoder(spec.fingerprint(role))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_honest_rows_differ_by_storage_rounding_and_nothing_else(store, tiny, dtype):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model), dtype)
    report = probe_rows(stored, TEXTS, encoder_as_recorded(stored.spec, str(tiny), device="cpu"))
    assert report.verdict == "ok"
    assert (report.rows, report.stored, report.equal_after_rounding) == (6, 6, 6)
    assert report.cosine_min > 0.9999
    assert report.largest_difference_rounded == 0
    assert (report.largest_difference == 0) == (dtype == "float32")
    assert [(origin.rows, origin.dtype) for origin in report.segments] == [(6, dtype)]


def test_vectors_of_a_slightly_different_model_under_the_same_fingerprint_are_drift(
    store, tiny, tmp_path
):
    model = model_of(tiny)
    noise = np.random.default_rng(1).standard_normal(WEIGHTS.shape).astype("f4")
    other = model_of(build_tiny(tmp_path / "other", WEIGHTS + 0.1 * noise))
    stored = write(store, model.spec, fresh(other), **{"torch": "0.1", "device": "cuda:7"})
    report = probe_rows(stored, TEXTS, encoder_as_recorded(stored.spec, str(tiny), device="cpu"))
    assert report.verdict == "drift"
    assert 0.9 < report.cosine_min < report.cosine_mean < 0.999
    assert report.equal_after_rounding == 0
    one, two = fresh(other).astype("f2").astype("f8"), fresh(model).astype("f8")
    cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    lengths = np.linalg.norm(two, axis=1)
    assert report.cosine_min == pytest.approx(cosines.min())
    assert report.cosine_mean == pytest.approx(cosines.mean())
    assert report.worst == TEXTS.doc_ids[int(cosines.argmin())]
    assert report.largest_difference == pytest.approx(np.abs(one - two).max())
    assert report.largest_norm_difference == pytest.approx(
        (np.abs(np.linalg.norm(one, axis=1) - lengths) / lengths).max()
    )
    [origin] = report.segments
    assert origin.differs == {"torch": ("0.1", version("torch")), "device": ("cuda:7", "cpu")}
    assert probe_rows(stored, TEXTS, model, tolerance=0.9).verdict == "ok"


def test_vectors_of_another_length_have_the_same_cosine_but_show(store, tiny):
    model = model_of(tiny)
    stored = write(store, model.spec, 2 * fresh(model), "float32")
    report = probe_rows(stored, TEXTS, model)
    assert report.verdict == "ok"
    assert report.largest_norm_difference == pytest.approx(1)


def test_one_row_that_differs_is_drift(store, tiny):
    model = model_of(tiny)
    vectors = fresh(model)
    vectors[4] = np.sqrt(0.993) * vectors[4] + 0.1 * np.linalg.norm(vectors[4]) * np.eye(24)[0]
    report = probe_rows(write(store, model.spec, vectors), TEXTS, model)
    assert report.cosine_mean > 0.999 > report.cosine_min
    assert (report.verdict, report.worst, report.equal_after_rounding) == ("drift", "d4", 5)


def test_rows_under_other_texts_keys_are_drift(store, tiny):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model)[::-1])
    assert probe_rows(stored, TEXTS, model).verdict == "drift"


def test_each_row_is_held_against_the_form_of_its_own_segment(store, tiny):
    model = model_of(tiny)
    write(store, model.spec, fresh(model), "int8", rows=[0, 2, 4], torch="0.1")
    stored = write(store, model.spec, fresh(model), "float32", rows=[5, 1], torch="0.2")
    report = probe_rows(stored, TEXTS, model)
    assert (report.rows, report.stored, report.equal_after_rounding) == (5, 5, 5)
    found = {(o.rows, o.dtype, o.differs["torch"][0]) for o in report.segments}
    assert found == {(3, "int8", "0.1"), (2, "float32", "0.2")}


def test_the_sample_is_a_property_of_texts_and_seed(store, tiny):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model))
    seen = []

    class Spy:
        spec = model.spec

        def encode(self, texts, role):
            seen.append(list(texts))
            return model.encode(texts, role)

        def provenance(self):
            return model.provenance()

    for seed in (0, 0, 1, 2):
        assert probe_rows(stored, TEXTS, Spy(), sample=2, seed=seed).rows == 2
    assert seen[0] == seen[1]
    assert len({tuple(texts) for texts in seen}) > 1


def test_the_stored_settings_and_template_are_used(store, tiny):
    options = {
        "query_template": "{instruction} {text} d",
        "precision": "float16",
        "truncate_dim": 5,
    }
    model = model_of(tiny, **options)
    embed_collection(store, TEXTS, large=model, small=model, config=EmbedConfig())
    for role in Role:
        stored = store.encoder(model.spec.fingerprint(role))
        runner = encoder_as_recorded(stored.spec, str(tiny), device="cpu")
        assert runner.spec.identity == model.spec.identity
        report = probe_rows(stored, TEXTS, runner)
        assert (report.verdict, report.rows) == ("ok", len(collection_keys(TEXTS, role)[0]))
        assert report.equal_after_rounding == report.rows
        assert report.segments[0].differs == {}


def test_other_files_are_refused_by_name(store, tiny, tmp_path):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model))
    other = build_tiny(tmp_path / "other", WEIGHTS + 1)
    (other / "new.json").write_text("{}")
    with pytest.raises(FingerprintError) as caught:
        probe_rows(stored, TEXTS, encoder_as_recorded(stored.spec, str(other)))
    assert "file model.safetensors has other content" in str(caught.value)
    assert "file new.json is new" in str(caught.value)
    assert "tokenizer.json" not in str(caught.value)
    (other / "tokenizer.json").unlink()
    with pytest.raises(FingerprintError, match=r"file tokenizer\.json is missing"):
        probe_rows(stored, TEXTS, encoder_as_recorded(stored.spec, str(other)))


def test_other_settings_are_refused_by_name(store, tiny):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model))
    with pytest.raises(FingerprintError, match="truncate_dim was None, is 5"):
        probe_rows(stored, TEXTS, model_of(tiny, truncate_dim=5))
    with pytest.raises(FingerprintError, match=r"template '\{text\}' stored, 'x \{text\}'"):
        probe_rows(stored, TEXTS, model_of(tiny, document_template="x {text}"))


def test_settings_that_no_encoder_has_are_damage(store, tiny):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model))
    identity = {**stored.spec.identity, "truncate_dim": "5"}
    with pytest.raises(FormatError, match="damaged"):
        encoder_as_recorded(msgspec.structs.replace(stored.spec, identity=identity), str(tiny))


def test_encoders_without_a_model_cannot_be_probed(store, tmp_path):
    spec = read_stated_spec(write_spec(tmp_path / "e.json", {"name": "acme", "model": "m"}))
    stored = write(store, spec, np.ones((6, 24), "f4"))
    with pytest.raises(FingerprintError, match="stated by an import: there is no model"):
        encoder_as_recorded(stored.spec, "m")
    stored = write(store, HashEncoder(24).spec, np.ones((6, 24), "f4"))
    with pytest.raises(FingerprintError, match="is of kind 'hash'"):
        encoder_as_recorded(stored.spec, "m")


def test_texts_that_are_not_stored_are_told(store, tiny):
    model = model_of(tiny)
    stored = write(store, model.spec, fresh(model))
    strange = TEXTS._replace(doc_texts=[f"{text} ." for text in TEXTS.doc_texts])
    with pytest.raises(StoreError, match=r"none of the 6 texts of c is stored.*--document-text"):
        probe_rows(stored, strange, model)


def test_a_model_of_another_dimension_than_was_imported_is_told(store, tiny, tmp_path):
    model = model_of(tiny)
    bring(store, tmp_path, np.ones((6, 7), "f4"), TEXTS.doc_ids, TEXTS, spec=model.spec)
    with pytest.raises(EncoderError, match="24 dimensions; the stored ones have 7"):
        probe_rows(store.encoder(model.spec.name), TEXTS, model)


@pytest.mark.parametrize("note", ["[1]", "nonsense", ""])
def test_provenance_that_says_nothing_stops_no_probe(store, tiny, note):
    model = model_of(tiny)
    vectors, keys = fresh(model), collection_keys(TEXTS, Role.DOCUMENT)[1]
    stored = store.add_encoder(model.spec, Role.DOCUMENT, 24)
    path = stored.folder / "segments" / "new.h5"
    path.parent.mkdir()
    fingerprint = model.spec.fingerprint(Role.DOCUMENT)
    attributes = segment_attributes(fingerprint, 6, 24, "float32", note)
    write_plain(path, {"keys": keys, "vectors": vectors}, attributes)
    path.rename(path.with_name(f"{sha256_file(path)}.h5"))
    report = probe_rows(stored, TEXTS, model)
    assert (report.verdict, report.rows) == ("ok", 6)
    assert report.segments[0].provenance == {}


def test_an_import_under_a_models_name_leaves_era_embed_nothing_to_encode(store, tiny, tmp_path):
    model = model_of(tiny)
    vectors = fresh(model)
    report = bring(store, tmp_path, vectors, TEXTS.doc_ids, TEXTS, spec=model_of(tiny).spec)
    assert (report.imported, report.still_missing) == (6, 0)
    assert probe_rows(store.encoder(model.spec.name), TEXTS, model).verdict == "ok"
    _, reports = embed_collection(
        store, TEXTS, large=HashEncoder(8), small=model_of(tiny), config=EmbedConfig()
    )
    assert [(r.what, r.encoded, r.cached) for r in reports[:2]] == [
        ("documents", 0, 6),
        ("queries", 2, 0),
    ]
    assert json.loads(store.encoder(model.spec.fingerprint(Role.DOCUMENT)).segments()[0].provenance)
    assert not nothing_stored(store)
