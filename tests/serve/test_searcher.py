"""Texts in, documents out, with real encoders: what era-search answers, three lines answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
from command_case import done, run

import era_cache
from era_cache.cli import embed, fit, search
from era_cache.collection.keys import row_keys
from era_cache.errors import EraError, FingerprintError, FormatError, InputError
from era_cache.fitting.candidates import DEFAULT
from era_cache.serve.searcher import Found
from era_cache.store.store import Store
from era_cache.types import Role

ADAPTER, STORE = "adapters/toy", "stores/toy"
NEW = ["which fruit is sweet and yellow?", "how do bees make honey", "fast trains"]


@pytest.fixture
def case(built_real, tmp_path) -> Path:
    return Path(shutil.copytree(built_real, tmp_path / "case"))


def _era_search(case: Path, candidate: str, *asked: object) -> list[tuple[str, float]]:
    words = [
        case / STORE,
        case / ADAPTER,
        "--candidates",
        candidate,
        "--json",
        "-k",
        30,
    ]
    (column,) = json.loads(done(run(search.main, *words, *asked)).stdout)["candidates"]
    return [(hit["document"], hit["score"]) for hit in column["hits"]]


@pytest.mark.parametrize("candidate", [*DEFAULT, "bm25+era-dual", "bm25+small"])
def test_it_answers_what_era_search_answers(case, toy, toy_texts, candidate) -> None:
    texts = {"texts": toy} if candidate.startswith("bm25") else {}
    searcher = era_cache.Searcher(
        case / ADAPTER,
        case / STORE,
        candidate=candidate,
        device="cpu",
        **texts,
    )
    stored = toy_texts.query_texts[:3]
    said = ["", "", "", *toy_texts.instructions[:3]]
    answers = searcher.search([*NEW, *stored], k=30, instructions=said)
    read = ["--texts", toy] if texts else []
    expected = [_era_search(case, candidate, text, *read) for text in NEW]
    expected += [_era_search(case, candidate, "--id", one) for one in toy_texts.query_ids[:3]]
    for found, wanted in zip(answers, expected, strict=True):
        assert [one.id for one in found] == [document for document, _ in wanted]
        assert [one.score for one in found] == pytest.approx([s for _, s in wanted], abs=1e-6)


def test_the_three_lines_of_the_readme(case, toy) -> None:
    s = era_cache.Searcher(str(case / ADAPTER), str(case / STORE))
    ((first, second),) = s.search("how do bees make honey", k=2)
    assert isinstance(first, Found)
    assert first.score >= second.score
    assert first.text is None
    assert len(s) == 30
    assert s.search([], k=2) == []
    with_texts = era_cache.Searcher(case / ADAPTER, case / STORE, texts=toy)
    (found,) = with_texts.search(["how do bees make honey"], k=2)
    assert [one.id for one in found] == [first.id, second.id]
    assert found[0].text
    vectors = era_cache.QueryEncoder(case / ADAPTER).encode(["how do bees make honey"])
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_an_index_elsewhere_is_asked_with_the_same_vectors(case) -> None:
    store = Store.open(case / STORE)
    collection = store.collection("toy")
    document = next(
        e for e in store.encoders() if e.spec.role is Role.DOCUMENT and e.spec.dim == 256
    )
    vectors = document.vectors(collection.doc_keys)
    inside = era_cache.Searcher(case / ADAPTER, store).search(NEW, k=5)
    ids = collection.doc_ids
    given = era_cache.Searcher(case / ADAPTER, vectors, ids).search(NEW, k=5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(256)
    index.add(unit)
    by_faiss = era_cache.Searcher(case / ADAPTER, index, ids).search(NEW, k=5)
    numbered = era_cache.Searcher(case / ADAPTER, vectors).search(NEW, k=5)
    for expected, *others in zip(inside, given, by_faiss, strict=True):
        for found in others:
            assert [one.id for one in found] == [one.id for one in expected]
            scores = [one.score for one in expected]
            assert [one.score for one in found] == pytest.approx(scores, abs=1e-5)
    assert [[ids[int(one.id)] for one in found] for found in numbered] == [
        [one.id for one in found] for found in given
    ]


def test_prompts_are_applied_once_and_equal_queries_encoded_once(case, monkeypatch) -> None:
    encoder = era_cache.QueryEncoder(case / ADAPTER, device="cpu")
    seen: list[tuple[str, list[str]]] = []
    for view, model in encoder._opened().items():
        original = model.encode

        def noted(texts, role, view=view, original=original):
            seen.append((view, list(texts)))
            return original(texts, role)

        monkeypatch.setattr(model, "encode", noted)
    found = encoder.encode([NEW[0], NEW[1], NEW[0]])
    assert np.array_equal(found[0], found[2])
    assert {view: sorted(texts) for view, texts in seen} == {
        "large": sorted(f"Answer: {text}" for text in NEW[:2]),
        "small": sorted(NEW[:2]),
    }
    assert len(seen) == 2


def test_new_queries_are_kept_where_asked_and_not_encoded_again(case) -> None:
    encoder = era_cache.QueryEncoder(
        case / ADAPTER, store=case / STORE, remember=True, device="cpu"
    )
    vectors = encoder.encode(NEW)
    store = Store.open(case / STORE)
    keys = row_keys(Role.QUERY, NEW, [""] * 3)
    for side in store.encoders():
        if side.spec.role is Role.QUERY:
            assert (side.index().positions(keys) >= 0).all()
    # Both models may be gone: everything is there.
    again = era_cache.QueryEncoder(case / ADAPTER, store=store, device="cpu")
    again._opened = lambda: pytest.fail("a model was opened")
    assert again.encode(NEW) == pytest.approx(vectors, abs=1e-6)
    with pytest.raises(InputError, match="remember=True needs a store"):
        era_cache.QueryEncoder(case / ADAPTER, remember=True)


def test_a_model_that_moved_is_named_and_another_refused(case, models, tmp_path) -> None:
    path = case / ADAPTER / "config.json"
    config = json.loads(path.read_text())
    moved = tmp_path / "moved"
    shutil.copytree(models["large"], moved)
    config["models"]["large"]["source"]["folder"] = str(tmp_path / "gone")
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"give --query-model .*in Python query_model"):
        era_cache.QueryEncoder(case / ADAPTER)
    expected = era_cache.QueryEncoder(case / ADAPTER, query_model=models["large"]).encode(NEW)
    found = era_cache.QueryEncoder(case / ADAPTER, query_model=moved).encode(NEW)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(FingerprintError, match="exchange the two"):
        era_cache.QueryEncoder(case / ADAPTER, query_model=models["small"])
    # Nor is one that a folder names, if it is not the one that was fitted with.
    config["models"]["large"]["source"]["folder"] = str(models["small"])
    path.write_text(json.dumps(config))
    with pytest.raises(FingerprintError, match="is not what the adapter was fitted on"):
        era_cache.QueryEncoder(case / ADAPTER)
    # A folder that holds no model is not even looked through.
    config["models"]["large"]["source"]["folder"] = "/"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="give --query-model"):
        era_cache.QueryEncoder(case / ADAPTER)
    # Only what the candidate reads is needed.
    assert era_cache.QueryEncoder(case / ADAPTER, candidate="small").encode(NEW).shape == (3, 256)


def test_a_joined_candidate_needs_what_it_is_joined_with(case) -> None:
    searcher = era_cache.Searcher(case / ADAPTER, case / STORE, candidate="bm25+era-dual")
    assert searcher.encoder.fusion is not None
    with pytest.raises(InputError, match="no bm25 scores yet"):
        searcher.search(NEW)
    with pytest.raises(InputError, match="joined with bm25, which is not here"):
        era_cache.Searcher(case / ADAPTER, np.eye(256), candidate="bm25+era-dual")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": ["fine", " "]}, "Query 1 is empty"),
        ({"queries": ["fine", None]}, "Query 1 is of type NoneType"),
        ({"queries": ["\ud800"]}, "Unicode"),
        ({"queries": NEW, "k": 0}, "k=0"),
        ({"queries": NEW, "instructions": ["one"]}, "1 instructions for 3 queries"),
    ],
)
def test_what_cannot_be_asked_is_said(case, arguments, message) -> None:
    searcher = era_cache.Searcher(case / ADAPTER, case / STORE)
    with pytest.raises(InputError, match=message):
        searcher.search(**arguments)


@pytest.mark.parametrize(
    ("index", "extra", "message"),
    [
        (np.eye(8), {}, "8 dimensions"),
        (np.eye(256), {"ids": ["a"]}, "1 ids for 256 documents"),
        (np.eye(256), {"collection": "toy"}, "belong to a store"),
        (faiss.IndexFlatIP(8), {}, "8 dimensions"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(case, index, extra, message) -> None:
    with pytest.raises(EraError, match=message):
        era_cache.Searcher(case / ADAPTER, index, **extra)


def test_a_query_encoder_takes_the_place_of_the_folder(case, models, tmp_path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(models["large"], moved)
    encoder = era_cache.QueryEncoder(
        case / ADAPTER, query_model=moved, candidate="era-zero", device="cpu"
    )
    expected = era_cache.Searcher(case / ADAPTER, case / STORE, candidate="era-zero", device="cpu")
    searcher = era_cache.Searcher(encoder, case / STORE)
    assert searcher.encoder is encoder
    assert searcher.search(NEW, k=5) == expected.search(NEW, k=5)
    for extra in ({"candidate": "small"}, {"device": "cpu"}):
        with pytest.raises(InputError, match="candidate and device are the QueryEncoder's"):
            era_cache.Searcher(encoder, case / STORE, **extra)


def test_an_encoder_of_a_folder_that_was_exchanged_for_other_models_is_refused(
    case, toy, models, tmp_path
) -> None:
    encoder = era_cache.QueryEncoder(case / ADAPTER, device="cpu")
    other, pair = tmp_path / "other", ("--query-model", models["large"], "--doc-model")
    words = [*pair, models["small"], "--large-query-template", "find: {text}", "--device", "cpu"]
    done(run(embed.main, toy, "--store", other, *words))
    quick = ["--set", "iterations=2", "--device", "cpu", "--overwrite"]
    done(run(fit.main, other, "toy", "--labels", "40", "--out", case / ADAPTER, *quick))
    with pytest.raises(FingerprintError, match="fitted on other models than those that were open"):
        era_cache.Searcher(encoder, other)


def test_an_adapter_without_a_record_of_its_models_says_so(case) -> None:
    path = case / ADAPTER / "config.json"
    config = json.loads(path.read_text())
    del config["models"]
    path.write_text(json.dumps(config))
    with pytest.raises(FormatError, match="does not say which model encodes its large queries"):
        era_cache.QueryEncoder(case / ADAPTER)
    # The store that it was fitted on knows.
    vectors = era_cache.QueryEncoder(case / ADAPTER, store=case / STORE).encode(NEW)
    (found,) = era_cache.Searcher(case / ADAPTER, case / STORE).search(NEW[:1], k=1)
    assert vectors.shape == (3, 256)
    assert found[0].id
