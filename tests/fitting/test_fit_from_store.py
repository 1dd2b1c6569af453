"""Fitting to a folder: several collections, interruptions, and few labels."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hash_encoder import HashEncoder
from planted import (
    CPU,
    QUICK,
    SPLIT,
    config_of,
    embed,
    embedded,
    fit_folder,
    planted_texts,
    read_json,
    tensors_of,
    texts_elsewhere,
)
from report_pages import record_of

from era_cache.api import RetrievalAdapter
from era_cache.collection.records import Collection
from era_cache.collection.splits import make_split
from era_cache.errors import FingerprintError, FitError, FormatError, InputError
from era_cache.evaluate.evaluate_adapter import Evaluation, Measuring, evaluate_folder
from era_cache.fitting import recipes
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.candidates import DEFAULT
from era_cache.fitting.crossfit import crossfit
from era_cache.fitting.fit_from_store import FitReport
from era_cache.fitting.sources import load_sources
from era_cache.store.store import Store

NAMES = ["planted", "again"]

NO_DOCUMENTS = dataclasses.replace(QUICK, align_texts="queries", reference_documents=0)


def _evaluated(store: Store, folder: Path, *names: str, others: Sequence[Path] = ()) -> Evaluation:
    return evaluate_folder(store, folder, Measuring(collections=names, others=others, device="cpu"))


def _record(store: Store, folder: Path, *names: str, **options: Any) -> dict[str, Any]:
    return record_of(_evaluated(store, folder, *names, **options).results)


def _test_ids(collection: Collection) -> list[str]:
    return [collection.query_ids[row] for row in make_split(collection, SPLIT).test]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """``planted`` and ``again``, which one adapter serves, and ``unseen``."""
    store, _ = embedded(tmp_path_factory.mktemp("fitting") / "store", planted_texts())
    embed(store, texts_elsewhere("again", n_queries=40))
    embed(store, texts_elsewhere("unseen", "anew"))
    return store


@pytest.fixture
def own_store(tmp_path) -> Store:
    """Only ``planted``, and for one test."""
    return embedded(tmp_path / "store", planted_texts())[0]


@pytest.fixture(scope="module")
def both(store, tmp_path_factory) -> FitReport:
    folder = tmp_path_factory.mktemp("both") / "adapter"
    return fit_folder(store, folder, NAMES, candidate="era-dual")


@pytest.fixture(scope="module")
def one(store, tmp_path_factory) -> FitReport:
    return fit_folder(store, tmp_path_factory.mktemp("one") / "adapter")


# Several collections


def test_the_folder_names_every_collection_it_was_fitted_on(store, both) -> None:
    config = config_of(both.folder)
    for entry, name, queries in zip(config["collections"], NAMES, (60, 40), strict=True):
        collection = store.collection(name)
        assert entry["collection"] == {"name": name, "digest": collection.digest}
        test_digest = make_split(collection, SPLIT).test_digest(collection)
        assert entry["split"]["test_digest"] == test_digest
        sizes = {"train": queries * 3 // 10, "validation": queries // 10, "test": queries // 2}
        assert entry["split"]["queries"] == sizes
    # For a reader that knows of one, it is the first.
    assert config["collection"] == config["collections"][0]["collection"]
    assert config["split"] == config["collections"][0]["split"]
    assert config["alignment_documents"] == both.alignment_documents == 120
    assert both.queries() == {"train": 30, "validation": 10, "test": 50}
    card = (both.folder / "README.md").read_text("utf-8")
    assert "# Retrieval adapter for planted, again" in card
    assert "30 training and 10 validation queries" in card


def test_one_collection_is_named_as_ever(store, one, tmp_path) -> None:
    for folder in (one.folder, fit_folder(store, tmp_path / "a", ["planted"]).folder):
        config = config_of(folder)
        assert "collections" not in config
        assert config["collection"]["name"] == "planted"


def test_a_folder_that_is_loaded_and_saved_says_the_same(both, tmp_path) -> None:
    RetrievalAdapter.load(both.folder).save(tmp_path / "again")
    for name in ("config.json", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (both.folder / name).read_bytes()


def test_the_order_of_collections_is_kept(store, tmp_path) -> None:
    report = fit_folder(store, tmp_path / "a", NAMES[::-1])
    entries = config_of(report.folder)["collections"]
    assert [entry["collection"]["name"] for entry in entries] == NAMES[::-1]
    assert list(report.splits) == NAMES[::-1]


@pytest.mark.parametrize("fitted", ["one", "both"])
@pytest.mark.parametrize(("name", "queries"), [("planted", 30), ("again", 20), ("unseen", 30)])
@pytest.mark.parametrize("by_version", [False, True])
def test_an_adapter_is_measured_on_any_collection_fitted_on_or_not(
    store, request, fitted, name, queries, by_version
) -> None:
    folder, collection = request.getfixturevalue(fitted).folder, store.collection(name)
    asked = f"{name}-{collection.version}" if by_version else name
    evaluation = _evaluated(store, folder, asked)
    record = record_of(evaluation.results)
    (measured,) = record["collections"]
    assert (measured["name"], measured["version"]) == (name, collection.version)
    assert record["split"]["train"] == (18 if fitted == "one" else 18 + 12)
    assert record["split"]["test"] == queries
    assert evaluation.ranked[name].queries.ids == _test_ids(collection)


def test_without_a_name_it_is_measured_on_all_and_each_counts_the_same(store, both) -> None:
    record = _record(store, both.folder)
    assert [one["name"] for one in record["collections"]] == NAMES
    single = {name: _record(store, both.folder, name) for name in NAMES}
    for number, row in enumerate(record["candidates"]):
        for measure, entry in row["measures"].items():
            alone = [one["candidates"][number]["measures"][measure] for one in single.values()]
            mean = sum(one["mean"] for one in alone) / 2
            assert entry["mean"] == pytest.approx(mean, abs=1e-7)
    rows = {row["collection"]: row for row in record["gains"]["rows"]}
    for name, one in single.items():
        assert rows[name]["mean"] == pytest.approx(one["gains"]["rows"][0]["mean"], abs=1e-7)


def test_a_collection_named_twice_is_refused(store, both) -> None:
    version = store.collection("again").version
    with pytest.raises(InputError, match="again: named twice"):
        _evaluated(store, both.folder, "again", f"again-{version}")


def test_another_version_is_measured_on_what_was_not_seen(own_store, tmp_path) -> None:
    first = own_store.collection("planted")
    split = make_split(first, SPLIT)
    folder = fit_folder(own_store, tmp_path / "one").folder
    # Ten queries go, seven come; the ids of all are given anew.
    texts = planted_texts(n_queries=50)
    more = planted_texts(n_queries=67)
    second = embed(
        own_store,
        more._replace(
            query_ids=[f"new{row}" for row in range(57)],
            query_texts=[*texts.query_texts, *more.query_texts[60:]],
            instructions=[""] * 57,
            splits={"test": more.splits["test"].select_queries(np.r_[:50, 60:67])},
        ),
    )
    kept = split.test[split.test < 50]
    for names in ([], ["planted"], [f"planted-{second.version}"]):
        record = _record(own_store, folder, *names)
        assert record["collections"][0]["version"] == second.version
        assert record["split"]["test"] == len(kept) + 7
        (note,) = [line for line in record["notes"] if "fitted on" in line]
        assert "120 documents, fitted on 120 (7 queries newer, " in note
        assert "labels newer" in note
        assert "labels withdrawn" in note
    # The version that it was fitted on is there by its name.
    record = _record(own_store, folder, f"planted-{first.version}")
    assert record["collections"][0]["version"] == first.version
    assert record["split"]["train"] == 18
    assert record["split"]["test"] == len(split.test)


def test_a_query_that_was_trained_on_and_mended_since_measures_nothing(own_store, tmp_path) -> None:
    """Its words are new, its id and its relevant documents are what the adapter learned from."""
    split = make_split(own_store.collection("planted"), SPLIT)
    folder = fit_folder(own_store, tmp_path / "one").folder
    texts = planted_texts()
    mended, tested = int(split.train[0]), int(split.test[0])
    words = list(texts.query_texts)
    words[mended] += " mended"
    words[tested] += " mended"  # one that was a test query measures on
    embed(own_store, texts._replace(query_texts=words))
    assert _record(own_store, folder)["split"]["test"] == len(split.test)


def test_queries_that_fitting_saw_measure_nothing(own_store, tmp_path) -> None:
    """Not those that trained or chose, nor the others that were there without being a test's."""
    first = own_store.collection("planted")
    split = make_split(first, SPLIT)
    folder = fit_folder(own_store, tmp_path / "one").folder
    texts = planted_texts()
    seen = np.setdiff1d(np.arange(60), split.test)
    only = texts._replace(
        query_ids=[texts.query_ids[row] for row in seen],
        query_texts=[texts.query_texts[row] for row in seen],
        instructions=[""] * len(seen),
        splits={"test": texts.splits["test"].select_queries(seen)},
    )
    embed(own_store, only)
    with pytest.raises(FitError, match="every judged query took part in fitting"):
        _evaluated(own_store, folder)


def test_the_curve_of_several_collections_is_shown_for_each(store, tmp_path) -> None:
    fit_folder(store, tmp_path / "a", NAMES)
    few = dataclasses.replace(SPLIT, labels=0.1)
    fit_folder(store, tmp_path / "a" / "curve" / "10", NAMES, split=few)
    for names in (["planted"], ["unseen"], NAMES, []):
        curve = _record(store, tmp_path / "a", *names)["curve"]
        found = [(point["labels"], point["train"]) for point in curve]
        assert found == [(0.1, 6 + 4), (0.3, 18 + 12)]
        assert len({point["candidates"]["small"]["mean"] for point in curve}) == 1


def test_another_folder_of_several_collections_joins_as_a_row(store, both, tmp_path) -> None:
    other = fit_folder(store, tmp_path / "other", NAMES, candidate="era").folder
    record = _record(store, both.folder, "again", others=[other])
    assert "era (other)" in [row["name"] for row in record["candidates"]]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "name at least one, each once"),
        (["planted", "planted"], {}, "name at least one, each once"),
        (["planted", "planted-{version}"], {}, "the same one twice"),
        (["planted"], {"align_with": ["planted"]}, r"--align-with .*take part already"),
        (["planted"], {"align_with": ["unseen", "unseen"]}, r"--align-with .*take part already"),
        (["planted"], {"align_with": ["unseen"], "recipe": NO_DOCUMENTS}, "would take no part"),
    ],
)
def test_collections_that_cannot_be_fitted_on_leave_no_folder(
    store, tmp_path, names, options, message
) -> None:
    named = [name.format(version=store.collection("planted").version) for name in names]
    with pytest.raises(InputError, match=message):
        fit_folder(store, tmp_path / "a", named, **options)
    assert not (tmp_path / "a").exists()


def test_collections_of_other_encoders_are_refused(own_store, tmp_path) -> None:
    embed(own_store, texts_elsewhere("again"), large=HashEncoder(24, "large other"))
    with pytest.raises(FingerprintError, match=r"again was embedded by other encoders .* planted"):
        fit_folder(own_store, tmp_path / "a", NAMES)
    assert not (tmp_path / "a").exists()


# Texts that several collections share


def _sharing(path: Path, part: str) -> tuple[Store, str]:
    """Two collections; a query of the first in ``part`` has the text of a test query of the second.

    Gives its id in the first.
    """
    store, first = embedded(path, planted_texts())
    texts = texts_elsewhere("again")
    own = int(getattr(make_split(first, SPLIT), part)[3])
    # Where a query is in the split does not depend on its text.
    shared = int(make_split(embed(store, texts), SPLIT).test[5])
    queries = list(texts.query_texts)
    queries[shared] = planted_texts().query_texts[own]
    second = embed(store, texts._replace(query_texts=queries))
    assert shared in make_split(second, SPLIT).test
    assert first.query_ids[own] != second.query_ids[shared]
    return store, first.query_ids[own]


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_a_query_with_the_text_of_a_test_query_elsewhere_is_left_out(tmp_path, part, order) -> None:
    store, own = _sharing(tmp_path / "store", part)
    sources, _ = load_sources(store, order, SPLIT, CPU, align_documents=60)
    found = {source.collection.name: source for source in sources}
    (alone,), _ = load_sources(store, ["planted"], SPLIT, CPU, align_documents=60)
    usual = getattr(alone.data, part).ids
    assert own in usual
    assert getattr(found["planted"].data, part).ids == [i for i in usual if i != own]
    # All else stays: the other parts, the test queries, the other collection.
    again = make_split(store.collection("again"), SPLIT)
    for name in ("train", "validation", "test"):
        pairs = [(again, found["again"].split), (alone.split, found["planted"].split)]
        for before, after in pairs if name != part else pairs[:1]:
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_a_test_query_with_the_text_of_a_test_query_elsewhere_stays(tmp_path) -> None:
    store, own = _sharing(tmp_path / "store", "test")
    sources, _ = load_sources(store, NAMES, SPLIT, CPU, align_documents=60)
    assert [len(source.split.train) for source in sources] == [18, 18]
    first = sources[0]
    assert own in [first.collection.query_ids[row] for row in first.split.test]


def test_an_adapter_of_sharing_collections_can_be_measured_on_both(tmp_path) -> None:
    store, _ = _sharing(tmp_path / "store", "train")
    report = fit_folder(store, tmp_path / "a", NAMES)
    assert report.queries()["train"] == 35
    for name in NAMES:
        _evaluated(store, tmp_path / "a", name)


# Interruptions


def _interrupt(monkeypatch: pytest.MonkeyPatch, candidate: str) -> list[tuple[str, ...]]:
    """Ctrl-C while ``candidate`` is trained; gives the views of what is fitted, growing."""
    views = {"era": ("large",), "era-dual": ("small", "large"), "small+": ("small",)}
    fitted: list[tuple[str, ...]] = []

    def interrupted(request, **options):
        if request.views == views.get(candidate):
            raise KeyboardInterrupt
        fitted.append(request.views)
        return crossfit(request, **options)

    monkeypatch.setattr(recipes, "crossfit", interrupted)
    return fitted


@pytest.fixture
def interrupted(store, tmp_path, monkeypatch) -> Path:
    """A fit on ``planted`` that was interrupted after ``era``."""
    _interrupt(monkeypatch, "era-dual")
    return fit_folder(store, tmp_path / "a").folder


@pytest.mark.parametrize("names", ["planted", NAMES], ids=["one", "several"])
def test_an_interrupted_fit_is_resumed_to_what_it_would_have_been(
    store, tmp_path, monkeypatch, names
) -> None:
    folders = whole, part = tmp_path / "whole", tmp_path / "part"
    assert fit_folder(store, whole, names).resumed == ()
    fitted = _interrupt(monkeypatch, "era-dual")
    report = fit_folder(store, part, names)
    assert fitted == [("large",)]
    metrics = read_json(part / "metrics.json")
    assert list(report.result.missing) == metrics["missing"] == ["era-dual", "small+"]
    assert set(metrics["candidates"]) == {"small", "aligned", "era-zero", "era"}
    assert load_adapter(part).views in (("small",), ("large",), ("small", "large"))
    fitted = _interrupt(monkeypatch, "nothing")
    resumed = fit_folder(store, part, names, resume=True)
    assert fitted == [("small", "large"), ("small",)]
    assert resumed.resumed == ("era",)
    assert resumed.result.missing == ()
    assert tensors_of(part) == tensors_of(whole)
    one, two = (read_json(folder / "metrics.json") for folder in folders)
    assert one["missing"] == []
    for name, entry in two["candidates"].items():
        assert one["candidates"][name]["options"] == entry["options"]
        assert one["candidates"][name]["validation"] == pytest.approx(entry["validation"], abs=1e-6)
    assert config_of(part)["chosen"] == config_of(whole)["chosen"]


def test_what_is_ready_of_an_interrupted_fit_can_be_evaluated(store, interrupted) -> None:
    names = [row["name"] for row in _record(store, interrupted)["candidates"]]
    assert names == ["small", "aligned", "era-zero", "era"]


def test_resuming_a_complete_fit_fits_nothing_and_writes_only_another_choice(
    store, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "a"
    fit_folder(store, folder)
    (folder / "curve").mkdir()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fitted = _interrupt(monkeypatch, "nothing")
    report = fit_folder(store, folder, resume=True)
    assert report.resumed == ("era", "era-dual", "small+")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    before = tensors_of(folder)
    with pytest.raises(InputError, match="its label curve would be lost"):
        fit_folder(store, folder, resume=True, candidate="era")
    fit_folder(store, folder, resume=True, candidate="era", overwrite=True)
    assert fitted == []
    assert config_of(folder)["chosen"] == "era"
    chosen = {"adapter.safetensors": before["candidates/era.safetensors"]}
    assert tensors_of(folder) == before | chosen


def test_resuming_where_nothing_is_begins(store, tmp_path) -> None:
    report = fit_folder(store, tmp_path / "a", resume=True)
    assert report.resumed == ()
    assert set(report.result.candidates) == set(DEFAULT)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"recipe": dataclasses.replace(QUICK, temperature=0.5)}, "recipe"),
        ({"split": dataclasses.replace(SPLIT, labels=0.2)}, "split"),
        ({"split": dataclasses.replace(SPLIT, count=5)}, "split"),
        ({"names": "unseen"}, "collection"),
        ({"names": ["planted", "again"]}, "collections"),
        ({"recipe": dataclasses.replace(QUICK, align_documents=9)}, "recipe, alignment_documents"),
        ({"align_with": ["unseen"]}, "aligned_with"),
    ],
    ids=["recipe", "share", "count", "collection", "collections", "alignment", "aligned with"],
)
def test_resuming_another_command_is_refused(
    store, interrupted, monkeypatch, changes, what
) -> None:
    before = tensors_of(interrupted)
    with pytest.raises(InputError, match=f"fitted with another {what}.*--resume goes on with"):
        fit_folder(store, interrupted, resume=True, **changes)
    assert tensors_of(interrupted) == before
    # Without --resume it is fitted again, where what was there may go.
    monkeypatch.setattr(recipes, "crossfit", crossfit)
    assert fit_folder(store, interrupted, overwrite=True, **changes).resumed == ()


def test_a_damaged_folder_is_not_resumed_from(store, interrupted) -> None:
    path = interrupted / "candidates" / "era.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        fit_folder(store, interrupted, resume=True)


def test_values_of_other_queries_are_not_resumed_from(store, one, interrupted, tmp_path) -> None:
    fit_folder(store, tmp_path / "b", split=dataclasses.replace(SPLIT, labels=0.2))
    shutil.copy(tmp_path / "b" / "held-out.safetensors", interrupted)
    with pytest.raises(FormatError, match="cannot be resumed from"):
        fit_folder(store, interrupted, resume=True)


def test_an_interrupted_candidate_that_was_asked_for_leaves_no_folder(
    store, tmp_path, monkeypatch
) -> None:
    _interrupt(monkeypatch, "era-dual")
    with pytest.raises(FitError, match=r"Interrupted before small\+"):
        fit_folder(store, tmp_path / "a", candidate="small+")
    assert not (tmp_path / "a").exists()


# Few labels


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_a_count_limits_the_training_queries(store, tmp_path, count) -> None:
    split, expected = dataclasses.replace(SPLIT, count=count), min(count, 18)
    report = fit_folder(store, tmp_path / "a", split=split)
    assert report.queries() == {"train": expected, "validation": 6, "test": 30}
    recorded = config_of(tmp_path / "a")["split"]
    assert (recorded["count"], recorded["queries"]["train"]) == (count, expected)
    assert _record(store, tmp_path / "a")["split"]["train"] == expected
    # The limited queries are the first of the others, and nothing else moved.
    limited, usual = (make_split(store.collection("planted"), one) for one in (split, SPLIT))
    assert set(limited.train) <= set(usual.train)
    np.testing.assert_array_equal(limited.test, usual.test)
    np.testing.assert_array_equal(limited.validation, usual.validation)


def test_a_count_holds_for_each_of_several_collections(store, tmp_path) -> None:
    split = dataclasses.replace(SPLIT, count=14)
    splits = fit_folder(store, tmp_path / "a", NAMES, split=split).splits
    assert [len(splits[name].train) for name in NAMES] == [14, 12]


@pytest.fixture
def twin(own_store) -> Collection:
    """``planted`` under another name: the shuffle parts its queries in another way."""
    texts = planted_texts()
    reverse = {name: getattr(texts, name)[::-1] for name in ("query_ids", "query_texts")}
    return embed(own_store, texts._replace(name="twin", **reverse))


def test_test_queries_that_another_collection_trained_on_do_not_count(
    own_store, twin, tmp_path
) -> None:
    fitted = own_store.collection("planted")
    trained = {fitted.query_ids[row] for row in make_split(fitted, SPLIT).train}
    assert trained & set(_test_ids(twin))
    evaluation = _evaluated(own_store, fit_folder(own_store, tmp_path / "a").folder, "twin")
    measured = set(evaluation.ranked["twin"].queries.ids)
    assert measured
    assert not trained & measured
    (fit,) = evaluation.results.fits
    assert {twin.query_ids[row] for row in fit.measured[0].query_rows.tolist()} == measured


def test_no_point_of_a_curve_is_measured_on_what_any_of_them_trained_on(
    own_store, twin, tmp_path
) -> None:
    fitted = own_store.collection("planted")
    few, most = (dataclasses.replace(SPLIT, labels=share) for share in (0.1, 0.4))
    fit_folder(own_store, tmp_path / "a", split=few)
    fit_folder(own_store, tmp_path / "a" / "curve" / "40", split=most)
    fit_folder(own_store, tmp_path / "with", split=most, candidate="era")
    fit_folder(own_store, tmp_path / "alone", split=few)
    trained = {fitted.query_ids[row] for row in make_split(fitted, most).train}
    for folder, others, fits in (("a", [], 2), ("alone", [tmp_path / "with"], 1)):
        results = _evaluated(own_store, tmp_path / folder, "twin", others=others).results
        assert len(results.fits) == fits
        for fit in results.fits:
            rows = fit.measured[0].query_rows.tolist()
            assert rows
            assert not trained & {twin.query_ids[row] for row in rows}


def test_without_what_was_fitted_on_nothing_unseen_is_measured(own_store, twin, tmp_path) -> None:
    version = own_store.collection("planted").version
    fit_folder(own_store, tmp_path / "a")
    (own_store.path / "collections" / f"planted-{version}.h5").unlink()
    with pytest.raises(FingerprintError, match=f"The store lacks planted-{version}"):
        _evaluated(own_store, tmp_path / "a", "twin")


# Collections without labels


@pytest.fixture(scope="module")
def with_more(store, tmp_path_factory) -> FitReport:
    return fit_folder(store, tmp_path_factory.mktemp("more") / "adapter", align_with=["unseen"])


def test_documents_without_labels_align_and_become_references(store, one, with_more) -> None:
    unseen = {"name": "unseen", "digest": store.collection("unseen").digest}
    assert config_of(with_more.folder)["aligned_with"] == [unseen]
    assert with_more.elsewhere == ("unseen",)
    card = (with_more.folder / "README.md").read_text()
    assert card.startswith("# Retrieval adapter for unseen (labels of planted)\n")
    assert "aligned_with" not in config_of(one.folder)
    for report, collections in ((one, 1), (with_more, 2)):
        assert report.alignment_documents == 60 * collections
        (table,) = load_adapter(report.folder, "era").references[:1]
        assert len(table.keys) == QUICK.reference_documents * collections
        # What no label had a part in is made of the documents that it is for.
        (table,) = load_adapter(report.folder, "aligned").references
        assert len(table.keys) == QUICK.reference_documents


def test_documents_that_take_no_part_are_not_counted(store, tmp_path) -> None:
    report = fit_folder(store, tmp_path / "adapter", recipe=NO_DOCUMENTS)
    assert report.alignment_documents == 0


def test_documents_alone_are_read_of_what_only_aligns(store, with_more, tmp_path) -> None:
    """Whatever the queries and judgements of the other collection are, the adapter is the same."""
    embed(store, texts_elsewhere("unlabelled", "in words of their own", n_queries=7))
    fit_folder(store, tmp_path / "b", align_with=["unlabelled"])
    assert tensors_of(tmp_path / "b") == tensors_of(with_more.folder)
