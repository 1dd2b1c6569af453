"""Searching single queries: rankings, marks, refusals."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hash_encoder import HashEncoder
from lookup_cases import SPLIT, Case, build, unit_rows
from planted import planted_texts
from tiny_model import build_tiny, open_model

from era_cache.collection.splits import make_split
from era_cache.errors import EraError, FingerprintError, FormatError, InputError, StoreError
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.encoder_pair import Encoders
from era_cache.serve.answer import Asked, to_json
from era_cache.serve.engine import Lookup
from era_cache.serve.models import load_models
from era_cache.serve.source import default_candidates, open_source
from era_cache.serve.texts import matching_texts
from era_cache.store.store import Store
from era_cache.types import Role


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return build(tmp_path_factory.mktemp("lookup"))


@pytest.fixture(scope="module")
def lookup(case) -> Lookup:
    return case.lookup(typed=True, texts=True)


def _brute(case: Case, name: str, views: dict[str, np.ndarray]) -> np.ndarray:
    """Score of every document under a candidate, in float64."""
    collection = case.store.collection("planted")
    document = open_source(case.store, case.folder).encoders.document
    corpus = unit_rows(document.vectors(collection.doc_keys).astype(np.float64))
    tensors = {view: torch.from_numpy(rows) for view, rows in views.items()}
    mapped = load_adapter(case.folder, name).apply(tensors).double().numpy()
    return (mapped @ corpus.T)[0]


def _check_against(answer, name: str, scores: np.ndarray) -> None:
    column = next(column for column in answer.columns if column.name == name)
    by_id = {f"d{row:03d}": score for row, score in enumerate(scores)}
    assert [hit.rank for hit in column.hits] == list(range(1, answer.depth + 1))
    best = np.sort(scores)[::-1][: answer.depth]
    assert [hit.score for hit in column.hits] == pytest.approx(best.tolist(), abs=1e-5)
    assert [by_id[hit.document] for hit in column.hits] == pytest.approx(best.tolist(), abs=1e-5)
    assert len({hit.document for hit in column.hits}) == answer.depth


@pytest.mark.parametrize("query_id", ["q000", "q017", "q059"])
def test_a_stored_query_is_ranked_as_brute_force_ranks_it(case, lookup, query_id) -> None:
    answer = lookup.find_id(query_id, depth=12)
    collection, encoders = case.store.collection("planted"), lookup.source.encoders
    key = collection.query_keys[collection.query_ids.index(query_id)][None]
    views = {"large": encoders.query.vectors(key), "small": encoders.small_query.vectors(key)}
    assert [column.name for column in answer.columns] == ["small", "aligned", "era-dual"]
    for column in answer.columns:
        _check_against(answer, column.name, _brute(case, column.name, views))


def test_a_typed_query_is_encoded_by_both_models_and_ranked_likewise(case) -> None:
    lookup = case.lookup(typed=True)
    answer = lookup.find("w1 w2 something new", depth=7)
    views = {
        view: next(encoder.encode(["w1 w2 something new"], Role.QUERY))[1]
        for view, encoder in case.encoders().items()
    }
    for column in answer.columns:
        _check_against(answer, column.name, _brute(case, column.name, views))
    # One text each when the models were loaded, one for the query.
    assert [model.encoded for model in lookup.models.values()] == [2, 2]
    assert answer.asked == Asked(None, "w1 w2 something new", "", None, None)
    assert answer.elsewhere == []
    assert answer.milliseconds.encode is not None
    assert all(hit.grade is None for column in answer.columns for hit in column.hits)


def test_the_text_of_a_stored_query_takes_its_vectors_and_judgements(case) -> None:
    lookup = case.lookup(typed=True)
    typed, stored = lookup.find(case.texts.query_texts[3]), lookup.find_id("q003")
    assert typed.asked.id == "q003"
    assert typed.columns == stored.columns
    assert typed.milliseconds.encode is None
    assert [model.encoded for model in lookup.models.values()] == [0, 0]


def test_one_more_space_makes_it_another_query(case) -> None:
    lookup = case.lookup(typed=True)
    lookup.warm_up()
    lookup.warm_up()
    assert [model.encoded for model in lookup.models.values()] == [1, 1]
    assert lookup.find(case.texts.query_texts[3] + " ").asked.id is None
    assert [model.encoded for model in lookup.models.values()] == [2, 2]


def test_grades_movements_and_far_ranks_are_what_the_rankings_say(lookup) -> None:
    shallow, deep = lookup.find_id("q004", depth=2), lookup.find_id("q004", depth=120)
    ranks = {
        column.name: {hit.document: hit.rank for hit in column.hits} for column in deep.columns
    }
    judged = {"d004": 2, "d009": 1, "d013": 0}  # planted.default_qrels
    for column in deep.columns:
        assert {h.document: h.grade for h in column.hits if h.grade is not None} == judged
        assert all(hit.baseline_rank == ranks["small"][hit.document] for hit in column.hits)
    assert deep.elsewhere == []
    shown = [{hit.document for hit in column.hits} for column in shallow.columns]
    missing = {doc for doc in ("d004", "d009") if any(doc not in hits for hits in shown)}
    assert missing
    assert {entry.document for entry in shallow.elsewhere} == missing
    for entry in shallow.elsewhere:
        assert entry.ranks == {name: places[entry.document] for name, places in ranks.items()}
        assert entry.grade == judged[entry.document]


def test_the_measure_is_that_of_the_query_by_hand(lookup) -> None:
    answer = lookup.find_id("q004", depth=10)
    gains = {"d004": 2, "d009": 1}
    ideal = 2 + 1 / np.log2(3)
    for column in answer.columns:
        found = sum(gains.get(h.document, 0) / np.log2(h.rank + 1) for h in column.hits)
        assert column.value == pytest.approx(found / ideal)


def test_equal_documents_are_in_the_order_of_trec_eval(lookup) -> None:
    # Documents 118 and 119 have one text: of equal scores the larger id comes first.
    for column in lookup.find_id("q000", depth=120).columns:
        places = {hit.document: hit.rank for hit in column.hits}
        assert places["d119"] == places["d118"] - 1


def test_a_document_is_not_found_by_itself_where_queries_are_documents(tmp_path) -> None:
    case = build(tmp_path, planted_texts(60, 60, queries_are_documents=True))
    answer = case.lookup().find_id("d007", depth=60)
    for column in answer.columns:
        assert "d007" not in {hit.document for hit in column.hits}
        assert len(column.hits) == 59
    assert "d008" in {hit.document for hit in case.lookup().find_id("d007").columns[0].hits} | {
        entry.document for entry in case.lookup().find_id("d007").elsewhere
    }


def test_the_part_of_the_split_is_told(case, lookup) -> None:
    split = make_split(case.store.collection("planted"), SPLIT)
    for part, rows in (
        ("test", split.test),
        ("training", split.train),
        ("validation", split.validation),
    ):
        for row in rows:
            assert lookup.find_id(f"q{row:03d}").asked.part == part
    seen = {*split.test, *split.train, *split.validation}
    unused = next(row for row in range(60) if row not in seen)
    assert lookup.find_id(f"q{unused:03d}").asked.part == "unused"


def test_random_queries_are_test_queries_and_follow_the_seed(case, lookup) -> None:
    split = make_split(case.store.collection("planted"), SPLIT)
    test = {f"q{row:03d}" for row in split.test}
    generators = [np.random.default_rng(seed) for seed in (1, 1, 2)]
    drawn = [[lookup.random_id(g) for _ in range(40)] for g in generators]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) <= test
    assert len(set(drawn[0])) > 5


def test_candidates_can_be_chosen_and_without_small_nothing_has_moved(case) -> None:
    lookup = case.lookup(names=["small", "era", "era-dual"])
    answer = lookup.find_id("q001", names=["era-dual", "era", "era-dual"])
    assert [column.name for column in answer.columns] == ["era-dual", "era"]
    assert [column.chosen for column in answer.columns] == [True, False]
    assert answer.baseline is None
    assert all(hit.baseline_rank is None for column in answer.columns for hit in column.hits)


def test_only_the_models_that_the_candidates_read_are_needed(case) -> None:
    source = open_source(case.store, case.folder)
    small = {"small": case.encoders()["small"]}
    lookup = Lookup(source, ["small", "small+", "era"], models=small, device="cpu")
    assert lookup.find("w1 w2", names=["small", "small+"]).columns[0].hits
    with pytest.raises(InputError, match=r"--query-model \(hash-24\) \(in Python"):
        lookup.find("w1 w2")


def test_an_answer_becomes_json(lookup) -> None:
    answer = lookup.find_id("q004", depth=2)
    record = json.loads(json.dumps(to_json(answer, most_text=5)))
    assert (record["format"], record["version"]) == ("era-search", 1)
    assert record["query"]["relevant"] == 2
    assert record["query"]["text"].startswith("w")
    hit = record["candidates"][2]["hits"][0]
    assert set(hit) == {"rank", "document", "score", "grade", "baseline_rank", "text"}
    assert len(hit["text"]) == 5


# Refusals


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda lookup: lookup.find_id("q9999"), "no query 'q9999' among its 60"),
        (lambda lookup: lookup.find_id("\x1b[31m"), "no query '\ufffd\\[31m'"),
        (lambda lookup: lookup.find("  \n "), "query is empty"),
        (lambda lookup: lookup.find("a\ud800b"), "not valid Unicode"),
        (lambda lookup: lookup.find("w1", "in other words"), r"\{instruction\}"),
        (
            lambda lookup: lookup.find("w1", names=["nope"]),
            "'nope' was asked for; there are small, aligned",
        ),
        (lambda lookup: lookup.find_id("q001", depth=0), "expected 1 to 1000"),
        (lambda lookup: lookup.find_id("q001", depth=1001), "expected 1 to 1000"),
    ],
)
def test_what_cannot_be_searched_is_said(lookup, ask, words) -> None:
    with pytest.raises(InputError, match=words):
        ask(lookup)


def test_without_models_a_new_text_says_which_to_give(case) -> None:
    with pytest.raises(
        InputError, match=r"by its id.*--query-model \(hash-24\) and --doc-model \(hash-16\)"
    ):
        case.lookup().find("w1 w2")


def test_another_encoder_is_refused(case) -> None:
    source = open_source(case.store, case.folder)
    for models, words in (
        ({"large": HashEncoder(24, "other")}, "--query-model: hash-24 .* is not what the adapter"),
        ({"small": HashEncoder(16, "small", "q: {text}")}, "--doc-model: hash-16"),
        ({"large": HashEncoder(16, "small")}, "It is the model of --doc-model; exchange the two"),
    ):
        with pytest.raises(FingerprintError, match=words):
            Lookup(source, ["small"], models=models, device="cpu")


def test_an_adapter_fitted_on_arrays_is_refused(case, tmp_path) -> None:
    folder = shutil.copytree(case.folder, tmp_path / "adapter")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "encoders": {}}))
    with pytest.raises(FingerprintError, match="fitted on arrays"):
        open_source(case.store, folder)


def test_a_store_without_the_vectors_is_refused(case, tmp_path) -> None:
    path = shutil.copytree(case.store.path, tmp_path / "store")
    source = open_source(Store.open(path), case.folder)
    for segment in source.encoders.document.segment_paths():
        segment.unlink()
    with pytest.raises(StoreError, match="120 of 120 rows are not encoded"):
        Lookup(source, ["small"], device="cpu")
    shutil.rmtree(source.encoders.document.folder)
    with pytest.raises(FingerprintError, match="no vectors of"):
        open_source(Store.open(path), case.folder)


def test_a_damaged_segment_is_refused(case, tmp_path) -> None:
    path = shutil.copytree(case.store.path, tmp_path / "store")
    source = open_source(Store.open(path), case.folder)
    segment = source.encoders.query.segment_paths()[0]
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        Lookup(source, ["small"], device="cpu")


# Instructions


def test_an_instruction_is_part_of_a_query_where_the_prompt_has_a_place(tmp_path) -> None:
    texts = planted_texts()
    texts = texts._replace(instructions=["find it"] * len(texts.query_ids))
    template = "{instruction} : {text}"
    models = {"large": HashEncoder(24, "large", template), "small": HashEncoder(16, "small")}
    case = build(tmp_path, texts, "era", **models)
    source = open_source(case.store, case.folder)
    assert source.takes_instruction
    lookup = Lookup(source, default_candidates(source), models=models, device="cpu")
    text = texts.query_texts[2]
    assert lookup.find(text, "find it").asked.id == "q002"
    other = lookup.find(text, "another")
    assert other.asked.id is None
    assert other.asked.instruction == "another"
    plain = lookup.find(text)
    assert plain.asked.id is None
    # The small prompt has no place for it, the large one has.
    columns = [{c.name: [h.score for h in c.hits] for c in a.columns} for a in (other, plain)]
    assert columns[0]["small"] == columns[1]["small"]
    assert columns[0]["era"] != columns[1]["era"]


# Texts


def test_texts_are_shown_only_where_they_are_the_embedded_ones(case) -> None:
    collection = case.store.collection("planted")
    changed = list(case.texts.doc_texts)
    changed[5] += " changed"
    changed[6], changed[7] = changed[7], changed[6]
    keep = [row for row in range(120) if row not in (8, 9)]
    queries = ["other", *case.texts.query_texts[1:]]
    read = case.texts._replace(
        doc_ids=[case.texts.doc_ids[row] for row in keep][::-1],
        doc_texts=[changed[row] for row in keep][::-1],
        query_texts=queries,
    )
    texts = matching_texts(collection, read)
    assert (texts.different, texts.absent) == (3, 2)
    lacking = {5, 6, 7, 8, 9}
    assert texts.documents == [
        None if row in lacking else text for row, text in enumerate(case.texts.doc_texts)
    ]
    assert texts.queries == [None, *case.texts.query_texts[1:]]
    assert [message.split(" ")[0] for message in texts.messages()] == ["3", "2"]


def test_query_texts_count_only_with_their_instruction(case) -> None:
    collection = case.store.collection("planted")
    read = case.texts._replace(instructions=["do", *case.texts.instructions[1:]])
    texts = matching_texts(collection, read)
    assert texts.queries[:2] == [None, case.texts.query_texts[1]]
    assert texts.messages() == []


# Models


def _stored(store: Store, **given) -> Encoders:
    """An adapter's encoders that two tiny models made, without any vector."""
    sides = {}
    for side, key, role in (
        ("query", "large", Role.QUERY),
        ("small_query", "small", Role.QUERY),
        ("document", "small", Role.DOCUMENT),
        ("align", "large", Role.DOCUMENT),
    ):
        sides[side] = store.add_encoder(given[key].spec, role, 4)
    return Encoders(**sides)


def _loaded(encoders: Encoders, *, query_model, doc_model, look="nowhere"):
    given = {"large": query_model, "small": doc_model}
    return load_models(encoders.models(), given, device=None, look=look)


@pytest.fixture
def tiny(tmp_path):
    other = np.arange(20, dtype="f4")[::-1].reshape(5, 4).copy()
    return build_tiny(tmp_path / "large"), build_tiny(tmp_path / "small", other)


def test_prompt_precision_and_lengths_need_not_be_said_again(tiny, tmp_path) -> None:
    large, small = map(str, tiny)
    encoders = _stored(
        Store.create(tmp_path / "store"),
        large=open_model(large, query_template="Find {text} {instruction}", precision="float16"),
        small=open_model(small, max_seq_length=7, truncate_dim=3),
    )
    models = _loaded(encoders, query_model=large, doc_model=small)
    assert models["large"].spec.fingerprint(Role.QUERY) == encoders.query.spec.fingerprint
    assert models["small"].spec.fingerprint(Role.QUERY) == encoders.small_query.spec.fingerprint
    assert _loaded(encoders, query_model=None, doc_model=None) == {}
    # Another truncation, yet the same model: what is wrong is the side.
    with pytest.raises(FingerprintError, match="It is the model of --doc-model; exchange"):
        _loaded(encoders, query_model=small, doc_model=None)


def test_a_changed_file_of_the_model_is_named(tiny, tmp_path) -> None:
    large, small = map(str, tiny)
    encoders = _stored(
        Store.create(tmp_path / "store"),
        large=open_model(large),
        small=open_model(small),
    )
    with pytest.raises(FingerprintError, match="It is the model of --query-model; exchange"):
        _loaded(encoders, query_model=None, doc_model=large)
    (tiny[0] / "tokenizer.json").write_text((tiny[0] / "tokenizer.json").read_text() + "\n")
    with pytest.raises(
        FingerprintError, match=r"tokenizer.json has other content.*given as --query-model"
    ):
        _loaded(encoders, query_model=large, doc_model=small)
    with pytest.raises(EraError, match="no such folder"):
        _loaded(encoders, query_model="./nowhere", doc_model=None)


def test_models_are_found_where_they_were(tiny, tmp_path) -> None:
    large, small = map(str, tiny)
    encoders = _stored(
        Store.create(tmp_path / "store"),
        large=open_model(large, query_template="Find {text}", precision="float16"),
        small=open_model(small, max_seq_length=7),
    )
    for look in ("folders", "anywhere"):
        models = _loaded(encoders, query_model=None, doc_model=None, look=look)
        for view, spec in encoders.models().items():
            assert models[view].spec.fingerprint(Role.QUERY) == spec.fingerprint
    # What is another model now is not taken: in silence where nobody asked for one.
    (tiny[1] / "tokenizer.json").write_text((tiny[1] / "tokenizer.json").read_text() + "\n")
    assert list(_loaded(encoders, query_model=None, doc_model=None, look="folders")) == ["large"]
    with pytest.raises(FingerprintError, match=r"tokenizer.json has other content"):
        _loaded(encoders, query_model=None, doc_model=None, look="anywhere")
    tiny[0].rename(tmp_path / "moved")
    assert _loaded(encoders, query_model=None, doc_model=None, look="folders") == {}
    moved = str(tmp_path / "moved")
    assert list(_loaded(encoders, query_model=moved, doc_model=None, look="folders")) == ["large"]


def test_one_model_for_both_sides_is_given_once(tiny, tmp_path) -> None:
    model = str(tiny[0])
    encoder = open_model(model)
    encoders = _stored(Store.create(tmp_path / "store"), large=encoder, small=encoder)
    for given in (
        {"query_model": model, "doc_model": None},
        {"query_model": None, "doc_model": model},
    ):
        models = _loaded(encoders, **given)
        assert models["large"] is models["small"]


def test_one_model_with_two_prompts_is_given_once_too(tiny, tmp_path) -> None:
    model = str(tiny[0])
    encoders = _stored(
        Store.create(tmp_path / "store"),
        large=open_model(model, query_template="Q: {text}"),
        small=open_model(model),
    )
    models = _loaded(encoders, query_model=model, doc_model=None)
    templates = [models[view].spec.templates[Role.QUERY] for view in ("large", "small")]
    assert templates == ["Q: {text}", "{text}"]


def test_vectors_that_no_model_here_made_cannot_be_typed_for(case, tiny) -> None:
    encoders = open_source(case.store, case.folder).encoders
    with pytest.raises(FingerprintError, match=r"hash-24 .* is of kind 'hash'"):
        _loaded(encoders, query_model=str(tiny[0]), doc_model=None)
