"""Fitting to a folder: several collections, interruptions, and few labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hash_encoder import HashEncoder
from planted import QUICK, QUICK_PAPER, config_of, embedded, planted_texts
from report_pages import record_of

from era_cache.api import RetrievalAdapter
from era_cache.collection.records import TextCollection
from era_cache.collection.splits import make_split
from era_cache.config import EmbedConfig, FitConfig, PaperConfig, SplitConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import FingerprintError, FitError, FormatError, InputError
from era_cache.evaluate.evaluate_adapter import Evaluation, Measuring, evaluate_folder
from era_cache.fitting import recipes
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.crossfit import crossfit
from era_cache.fitting.fit_from_store import FitPlan, FitReport, fit_to_folder
from era_cache.fitting.sources import Reading, load_sources
from era_cache.store.store import Store

SPLIT = SplitConfig(labels=0.3)
NAMES = ["planted", "again"]


def _record(evaluation: Evaluation) -> dict[str, Any]:
    return record_of(evaluation.results)


def _add(store: Store, texts: TextCollection, seed: str = "") -> None:
    embed_collection(
        store,
        texts,
        large=HashEncoder(24, f"large{seed}"),
        small=HashEncoder(16, f"small{seed}"),
        config=EmbedConfig(align_documents=60),
    )


def _texts(name: str, ending: str, n_queries: int = 60) -> TextCollection:
    texts = planted_texts(n_queries=n_queries)
    return texts._replace(name=name, query_texts=[f"{q} {ending}" for q in texts.query_texts])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """``planted`` and ``again``, which one adapter serves, and ``unseen``."""
    store, _ = embedded(tmp_path_factory.mktemp("fitting") / "store", planted_texts())
    _add(store, _texts("again", "elsewhere", 40))
    _add(store, _texts("unseen", "anew"))
    return store


def _fit(
    store: Store,
    folder: Path,
    names: str | list[str] = NAMES,
    *,
    recipe: FitConfig | PaperConfig = QUICK,
    split: SplitConfig = SPLIT,
    resume: bool = False,
    **options: object,
) -> FitReport:
    plan = FitPlan(split, recipe, **options)
    return fit_to_folder(store, names, folder, plan, Reading(device="cpu"), resume=resume)


@pytest.fixture(scope="module")
def both(store, tmp_path_factory) -> FitReport:
    return _fit(store, tmp_path_factory.mktemp("both") / "adapter", candidate="era-dual")


def _tensors(folder: Path) -> dict[str, bytes]:
    paths = [*folder.glob("*.safetensors"), *(folder / "candidates").iterdir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# Several collections


def test_the_folder_names_every_collection_it_was_fitted_on(store, both) -> None:
    config = config_of(both.folder)
    assert [entry["collection"] for entry in config["collections"]] == [
        {"name": name, "digest": store.collection(name).digest} for name in NAMES
    ]
    for entry, queries in zip(config["collections"], (60, 40), strict=True):
        collection = store.collection(entry["collection"]["name"])
        assert entry["split"]["test_digest"] == make_split(collection, SPLIT).test_digest(
            collection
        )
        assert entry["split"]["queries"] == {
            "train": queries * 3 // 10,
            "validation": queries // 10,
            "test": queries // 2,
        }
    # For a reader that knows of one, it is the first.
    assert config["collection"] == config["collections"][0]["collection"]
    assert config["split"] == config["collections"][0]["split"]
    assert config["alignment_documents"] == both.alignment_documents == 120
    assert both.queries() == {"train": 30, "validation": 10, "test": 50}
    card = (both.folder / "README.md").read_text("utf-8")
    assert "# Retrieval adapter for planted, again" in card
    assert "30 training and 10 validation queries" in card


def test_one_collection_is_named_as_ever(store, tmp_path) -> None:
    for names in ("planted", ["planted"]):
        config = config_of(_fit(store, tmp_path / "a", names).folder)
        assert "collections" not in config
        assert config["collection"]["name"] == "planted"


def test_a_folder_that_is_loaded_and_saved_says_the_same(both, tmp_path) -> None:
    RetrievalAdapter.load(both.folder).save(tmp_path / "again")
    for name in ("config.json", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (both.folder / name).read_bytes()


def test_the_order_of_collections_is_kept(store, tmp_path) -> None:
    report = _fit(store, tmp_path / "a", NAMES[::-1])
    config = config_of(report.folder)
    assert [entry["collection"]["name"] for entry in config["collections"]] == ["again", "planted"]
    assert list(report.splits) == ["again", "planted"]


def test_the_adapter_is_measured_on_each_collection_by_its_name(store, both) -> None:
    for name, queries in (("planted", 30), ("again", 20)):
        evaluation = evaluate_folder(
            store, both.folder, Measuring(collections=[name], device="cpu")
        )
        record, collection = _record(evaluation), store.collection(name)
        assert [one["name"] for one in record["collections"]] == [name]
        assert record["split"]["train"] == 18 + 12
        test = make_split(collection, SPLIT).test
        assert evaluation.ranked[name].queries.ids == [collection.query_ids[row] for row in test]
        assert len(test) == queries


def test_without_a_name_it_is_measured_on_all_and_each_counts_the_same(store, both) -> None:
    record = _record(evaluate_folder(store, both.folder, Measuring(device="cpu")))
    assert [one["name"] for one in record["collections"]] == NAMES
    single = {
        name: _record(
            evaluate_folder(store, both.folder, Measuring(collections=[name], device="cpu"))
        )
        for name in NAMES
    }
    for number, row in enumerate(record["candidates"]):
        for measure, entry in row["measures"].items():
            alone = [
                one["candidates"][number]["measures"][measure]["mean"] for one in single.values()
            ]
            assert entry["mean"] == pytest.approx(sum(alone) / 2, abs=1e-7)
    rows = {row["collection"]: row for row in record["gains"]["rows"]}
    for name, one in single.items():
        assert rows[name]["mean"] == pytest.approx(one["gains"]["rows"][0]["mean"], abs=1e-7)


def test_a_collection_named_twice_is_refused(store, both) -> None:
    version = store.collection("again").version
    names = ["again", f"again-{version}"]
    with pytest.raises(InputError, match="again: named twice"):
        evaluate_folder(store, both.folder, Measuring(collections=names, device="cpu"))


def test_a_version_may_be_named_too(store, both) -> None:
    version = store.collection("again").version
    evaluation = evaluate_folder(
        store, both.folder, Measuring(collections=[f"again-{version}"], device="cpu")
    )
    assert _record(evaluation)["collections"][0]["version"] == version


def test_it_is_measured_on_a_collection_that_it_was_not_fitted_on(store, both, tmp_path) -> None:
    one = _fit(store, tmp_path / "one", "planted").folder
    for folder in (one, both.folder):
        evaluation = evaluate_folder(store, folder, Measuring(collections=["unseen"], device="cpu"))
        record = _record(evaluation)
        assert [one["name"] for one in record["collections"]] == ["unseen"]
        split, trained = record["split"], config_of(folder)
        entries = trained.get("collections", [trained])
        assert split["train"] == sum(one["split"]["queries"]["train"] for one in entries) > 0
        assert split["test"] == 30
        collection = store.collection("unseen")
        test = make_split(collection, SPLIT).test
        ids = evaluation.ranked["unseen"].queries.ids
        assert ids == [collection.query_ids[row] for row in test]


def test_another_version_of_a_fitted_collection_is_refused(tmp_path) -> None:
    store, first = embedded(tmp_path / "store", planted_texts())
    _fit(store, tmp_path / "one", "planted")
    _add(store, planted_texts(n_queries=50))
    second = store.collection("planted")
    assert second.version != first.version
    with pytest.raises(FingerprintError, match=f"fitted on version {first.version} of planted"):
        evaluate_folder(
            store,
            tmp_path / "one",
            Measuring(collections=[f"planted-{second.version}"], device="cpu"),
        )
    # The bare name means the version that it was fitted on.
    for names in ([], ["planted"], [f"planted-{first.version}"]):
        record = _record(
            evaluate_folder(store, tmp_path / "one", Measuring(collections=names, device="cpu"))
        )
        assert record["collections"][0]["version"] == first.version
        assert record["split"]["train"] == 18


def test_the_curve_of_several_collections_is_shown_for_each(store, tmp_path) -> None:
    _fit(store, tmp_path / "a")
    _fit(store, tmp_path / "a" / "curve" / "10", split=dataclasses.replace(SPLIT, labels=0.1))
    for names in (["planted"], ["again"], ["unseen"], ["planted", "again"], []):
        record = _record(
            evaluate_folder(store, tmp_path / "a", Measuring(collections=names, device="cpu"))
        )
        assert [point["labels"] for point in record["curve"]] == [0.1, 0.3]
        assert [point["train"] for point in record["curve"]] == [6 + 4, 18 + 12]
        smalls = {point["candidates"]["small"]["mean"] for point in record["curve"]}
        assert len(smalls) == 1


def test_another_folder_of_several_collections_joins_as_a_row(store, both, tmp_path) -> None:
    other = _fit(store, tmp_path / "other", candidate="era").folder
    record = _record(
        evaluate_folder(
            store, both.folder, Measuring(collections=["again"], others=[other], device="cpu")
        )
    )
    assert "era (other)" in [row["name"] for row in record["candidates"]]


@pytest.mark.parametrize("names", [[], ["planted", "planted"]])
def test_collections_are_named_once(store, tmp_path, names) -> None:
    with pytest.raises(InputError, match="name at least one, each once"):
        _fit(store, tmp_path / "a", names)


def test_a_collection_under_two_of_its_names_is_refused(store, tmp_path) -> None:
    version = store.collection("planted").version
    with pytest.raises(InputError, match="the same one twice"):
        _fit(store, tmp_path / "a", ["planted", f"planted-{version}"])
    assert not (tmp_path / "a").exists()


def test_collections_of_other_encoders_are_refused(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    _add(store, _texts("again", "elsewhere"), seed=" other")
    with pytest.raises(FingerprintError, match=r"again was embedded by other encoders .* planted"):
        _fit(store, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_published_recipe_fits_one_collection(store, tmp_path) -> None:
    with pytest.raises(InputError, match="one collection at a time"):
        _fit(store, tmp_path / "a", recipe=QUICK_PAPER)


# Texts that several collections share


def _sharing(path: Path, part: str) -> tuple[Store, str, str]:
    """Two collections; a query of the first in ``part`` has the text of a test query of the second.

    Gives the ids of both.
    """
    store, first = embedded(path, planted_texts())
    texts = _texts("again", "elsewhere")
    _add(store, texts)
    own = int(getattr(make_split(first, SPLIT), part)[3])
    # Where a query is in the split does not depend on its text.
    shared = int(make_split(store.collection("again"), SPLIT).test[5])
    queries = list(texts.query_texts)
    queries[shared] = planted_texts().query_texts[own]
    _add(store, texts._replace(query_texts=queries))
    second = store.collection("again")
    assert shared in make_split(second, SPLIT).test
    return store, first.query_ids[own], second.query_ids[shared]


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_a_query_with_the_text_of_a_test_query_elsewhere_is_left_out(tmp_path, part, order) -> None:
    store, own, shared = _sharing(tmp_path / "store", part)
    assert own != shared
    sources, _ = load_sources(store, order, SPLIT, Reading(device="cpu"), align_documents=60)
    found = {source.collection.name: source for source in sources}
    alone, _ = load_sources(store, ["planted"], SPLIT, Reading(device="cpu"), align_documents=60)
    usual = getattr(alone[0].data, part).ids
    assert own in usual
    assert getattr(found["planted"].data, part).ids == [i for i in usual if i != own]
    # All else stays: the other parts, the test queries, the other collection.
    for name in ("train", "validation", "test"):
        usual_rows = getattr(make_split(store.collection("again"), SPLIT), name)
        np.testing.assert_array_equal(getattr(found["again"].split, name), usual_rows)
        if name != part:
            before, after = (getattr(s.split, name) for s in (alone[0], found["planted"]))
            np.testing.assert_array_equal(before, after)


def test_a_test_query_with_the_text_of_a_test_query_elsewhere_stays(tmp_path) -> None:
    store, own, _ = _sharing(tmp_path / "store", "test")
    sources, _ = load_sources(store, NAMES, SPLIT, Reading(device="cpu"), align_documents=60)
    assert [len(source.split.train) for source in sources] == [18, 18]
    first = sources[0]
    assert own in [first.collection.query_ids[row] for row in first.split.test]


def test_an_adapter_of_sharing_collections_can_be_measured_on_both(tmp_path) -> None:
    store, *_ = _sharing(tmp_path / "store", "train")
    report = _fit(store, tmp_path / "a")
    assert report.queries()["train"] == 35
    for name in NAMES:
        evaluate_folder(store, tmp_path / "a", Measuring(collections=[name], device="cpu"))


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


@pytest.mark.parametrize("names", ["planted", NAMES], ids=["one", "several"])
def test_an_interrupted_fit_is_resumed_to_what_it_would_have_been(
    store, tmp_path, monkeypatch, names
) -> None:
    whole = _fit(store, tmp_path / "whole", names)
    fitted = _interrupt(monkeypatch, "era-dual")
    part = _fit(store, tmp_path / "part", names)
    assert fitted == [("large",)]
    assert part.result.missing == ("era-dual", "small+")
    metrics = json.loads((tmp_path / "part" / "metrics.json").read_text())
    assert metrics["missing"] == ["era-dual", "small+"]
    assert set(metrics["candidates"]) == {"small", "aligned", "era"}
    assert load_adapter(tmp_path / "part").views in (("small",), ("large",))
    fitted = _interrupt(monkeypatch, "nothing")
    resumed = _fit(store, tmp_path / "part", names, resume=True)
    assert fitted == [("small", "large"), ("small",)]
    assert resumed.resumed == ("era",)
    assert resumed.result.missing == ()
    assert _tensors(tmp_path / "part") == _tensors(tmp_path / "whole")
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("part", "whole")
    )
    assert one["missing"] == []
    for name, entry in two["candidates"].items():
        assert one["candidates"][name]["options"] == entry["options"]
        assert one["candidates"][name]["validation"] == pytest.approx(entry["validation"], abs=1e-6)
    assert config_of(tmp_path / "part")["chosen"] == config_of(tmp_path / "whole")["chosen"]
    assert whole.resumed == ()


def test_what_is_ready_of_an_interrupted_fit_can_be_evaluated(store, tmp_path, monkeypatch) -> None:
    _interrupt(monkeypatch, "small+")
    _fit(store, tmp_path / "a", "planted")
    record = _record(evaluate_folder(store, tmp_path / "a", Measuring(device="cpu")))
    names = [row["name"] for row in record["candidates"]]
    assert names == ["small", "aligned", "era", "era-dual"]


def test_resuming_a_complete_fit_fits_nothing(store, tmp_path, monkeypatch) -> None:
    _fit(store, tmp_path / "a", "planted")
    before = _tensors(tmp_path / "a")
    fitted = _interrupt(monkeypatch, "nothing")
    report = _fit(store, tmp_path / "a", "planted", resume=True, candidate="era")
    assert fitted == []
    assert report.resumed == ("era", "era-dual", "small+")
    assert config_of(tmp_path / "a")["chosen"] == "era"
    after = _tensors(tmp_path / "a")
    del before["adapter.safetensors"], after["adapter.safetensors"]
    assert after == before


def test_resuming_where_nothing_is_begins(store, tmp_path) -> None:
    report = _fit(store, tmp_path / "a", "planted", resume=True)
    assert report.resumed == ()
    assert set(report.result.candidates) == {"small", "aligned", "era", "era-dual", "small+"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"recipe": dataclasses.replace(QUICK, temperature=0.5)}, "recipe"),
        ({"split": dataclasses.replace(SPLIT, labels=0.2)}, "split"),
        ({"split": dataclasses.replace(SPLIT, count=5)}, "split"),
        ({"names": "unseen"}, "collection"),
        ({"names": ["planted", "again"]}, "collections"),
        ({"recipe": dataclasses.replace(QUICK, align_documents=9)}, "recipe, alignment_documents"),
    ],
    ids=["recipe", "share", "count", "collection", "collections", "alignment"],
)
def test_resuming_another_command_is_refused(store, tmp_path, monkeypatch, changes, what) -> None:
    _interrupt(monkeypatch, "era-dual")
    _fit(store, tmp_path / "a", "planted")
    before = _tensors(tmp_path / "a")
    options = {"names": "planted", **changes}
    with pytest.raises(InputError, match=f"fitted with another {what}.*--resume goes on with"):
        _fit(store, tmp_path / "a", resume=True, **options)
    assert _tensors(tmp_path / "a") == before
    # Without --resume it is fitted again.
    monkeypatch.setattr(recipes, "crossfit", crossfit)
    assert _fit(store, tmp_path / "a", **options).resumed == ()


def test_a_damaged_folder_is_not_resumed_from(store, tmp_path, monkeypatch) -> None:
    _interrupt(monkeypatch, "era-dual")
    _fit(store, tmp_path / "a", "planted")
    path = tmp_path / "a" / "candidates" / "era.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        _fit(store, tmp_path / "a", "planted", resume=True)


def test_values_of_other_queries_are_not_resumed_from(store, tmp_path) -> None:
    _fit(store, tmp_path / "a", "planted")
    _fit(store, tmp_path / "b", "planted", split=dataclasses.replace(SPLIT, labels=0.2))
    (tmp_path / "a" / "held-out.safetensors").write_bytes(
        (tmp_path / "b" / "held-out.safetensors").read_bytes()
    )
    with pytest.raises(FormatError, match="cannot be resumed from"):
        _fit(store, tmp_path / "a", "planted", resume=True)


def test_an_interrupted_candidate_that_was_asked_for_leaves_no_folder(
    store, tmp_path, monkeypatch
) -> None:
    _interrupt(monkeypatch, "era-dual")
    with pytest.raises(FitError, match="Interrupted before small\\+"):
        _fit(store, tmp_path / "a", "planted", candidate="small+")
    assert not (tmp_path / "a").exists()


# Few labels


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_a_count_limits_the_training_queries(store, tmp_path, count) -> None:
    split = dataclasses.replace(SPLIT, count=count)
    report = _fit(store, tmp_path / "a", "planted", split=split)
    expected = min(count, 18)
    assert report.queries() == {"train": expected, "validation": 6, "test": 30}
    config = config_of(tmp_path / "a")
    assert config["split"]["count"] == count
    assert config["split"]["queries"]["train"] == expected
    record = _record(evaluate_folder(store, tmp_path / "a", Measuring(device="cpu")))
    assert record["split"]["train"] == expected
    # The limited queries are the first of the others, and nothing else moved.
    limited, usual = (make_split(store.collection("planted"), one) for one in (split, SPLIT))
    assert set(limited.train) <= set(usual.train)
    np.testing.assert_array_equal(limited.test, usual.test)
    np.testing.assert_array_equal(limited.validation, usual.validation)


def test_a_count_holds_for_each_of_several_collections(store, tmp_path) -> None:
    report = _fit(store, tmp_path / "a", split=dataclasses.replace(SPLIT, count=14))
    assert {name: len(split.train) for name, split in report.splits.items()} == {
        "planted": 14,
        "again": 12,
    }


def test_resuming_what_is_complete_writes_nothing(store, tmp_path) -> None:
    folder = tmp_path / "adapter"
    _fit(store, folder, "planted")
    (folder / "curve").mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report = _fit(store, folder, "planted", resume=True)
    assert set(report.resumed) == {"era", "era-dual", "small+"}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_test_queries_that_another_collection_trained_on_do_not_count(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    fitted = store.collection("planted")
    trained = make_split(fitted, SPLIT).train
    # The same texts under another name: whatever was trained on must not be measured.
    plain = planted_texts()
    _add(
        store,
        plain._replace(
            name="twin",
            query_ids=plain.query_ids[::-1],  # so that the shuffle parts them in another way
            query_texts=plain.query_texts[::-1],
        ),
    )
    twin = store.collection("twin")
    other = {fitted.query_ids[row] for row in trained}
    assert other & {twin.query_ids[row] for row in make_split(twin, SPLIT).test}
    _fit(store, tmp_path / "adapter", "planted")
    evaluation = evaluate_folder(
        store, tmp_path / "adapter", Measuring(collections=["twin"], device="cpu")
    )
    measured = set(evaluation.ranked["twin"].queries.ids)
    assert measured
    assert not other & measured
    (fit,) = evaluation.results.fits
    rows = fit.measured[0].query_rows.tolist()
    assert {twin.query_ids[row] for row in rows} == measured


def test_no_point_of_a_curve_is_measured_on_what_any_of_them_trained_on(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    fitted, plain = store.collection("planted"), planted_texts()
    _add(
        store,
        plain._replace(
            name="twin", query_ids=plain.query_ids[::-1], query_texts=plain.query_texts[::-1]
        ),
    )
    few, most = (dataclasses.replace(SPLIT, labels=share) for share in (0.1, 0.4))
    _fit(store, tmp_path / "a", "planted", split=few)
    _fit(store, tmp_path / "a" / "curve" / "40", "planted", split=most)
    _fit(store, tmp_path / "with", "planted", split=most, candidate="era")
    _fit(store, tmp_path / "alone", "planted", split=few)
    trained = {fitted.query_ids[row] for row in make_split(fitted, most).train}
    twin = store.collection("twin")
    for folder, others in (("a", []), ("alone", [tmp_path / "with"])):
        results = evaluate_folder(
            store, tmp_path / folder, Measuring(collections=["twin"], others=others, device="cpu")
        ).results
        assert len(results.fits) == (2 if folder == "a" else 1)
        for fit in results.fits:
            rows = fit.measured[0].query_rows.tolist()
            assert rows
            assert not trained & {twin.query_ids[row] for row in rows}


def test_without_what_was_fitted_on_nothing_unseen_is_measured(tmp_path) -> None:
    store, collection = embedded(tmp_path / "store", planted_texts())
    _add(store, _texts("unseen", "in other words"))
    _fit(store, tmp_path / "a", "planted")
    (store.path / "collections" / f"planted-{collection.version}.h5").unlink()
    with pytest.raises(FingerprintError, match=f"The store lacks planted-{collection.version}"):
        evaluate_folder(store, tmp_path / "a", Measuring(collections=["unseen"], device="cpu"))


# Collections without labels


def test_documents_without_labels_align_and_become_references(store, tmp_path) -> None:
    alone = _fit(store, tmp_path / "alone", "planted")
    with_more = _fit(store, tmp_path / "more", "planted", align_with=["unseen"])
    assert alone.alignment_documents == 60
    assert with_more.alignment_documents == 120
    config = config_of(with_more.folder)
    unseen = store.collection("unseen")
    assert config["aligned_with"] == [{"name": "unseen", "digest": unseen.digest}]
    assert "aligned_with" not in config_of(alone.folder)
    for name, report in (("alone", alone), ("more", with_more)):
        adapter = load_adapter(tmp_path / name, "aligned")
        limit = QUICK.reference_documents
        expected = limit * (1 if report is alone else 2)
        assert [len(table.keys) for table in adapter.references] == [expected]


def test_documents_alone_are_read_of_what_only_aligns(store, tmp_path, monkeypatch) -> None:
    """Whatever the queries and judgements of the other collection are, the adapter is the same."""
    first = _fit(store, tmp_path / "a", "planted", align_with=["unseen"])
    _add(store, _texts("unlabelled", "in words of their own", n_queries=7))
    second = _fit(store, tmp_path / "b", "planted", align_with=["unlabelled"])
    for name in config_of(first.folder)["candidates"]:
        one, two = (load_adapter(report.folder, name) for report in (first, second))
        assert torch.equal(one.weight, two.weight)
        for mine, theirs in zip(one.references, two.references, strict=True):
            assert torch.equal(mine.keys, theirs.keys)


@pytest.mark.parametrize("names", [["planted"], ["unseen", "unseen"]])
def test_what_takes_part_already_is_not_aligned_with(store, tmp_path, names) -> None:
    with pytest.raises(InputError, match=r"--align-with .*take part already"):
        _fit(store, tmp_path / "a", "planted", align_with=names)
    assert not (tmp_path / "a").exists()


def test_an_interrupted_fit_goes_on_with_the_same_documents_only(store, tmp_path) -> None:
    _fit(store, tmp_path / "a", "planted", align_with=["unseen"])
    with pytest.raises(InputError, match="another aligned_with"):
        _fit(store, tmp_path / "a", "planted", resume=True)
