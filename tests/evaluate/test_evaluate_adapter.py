"""Fitting to a folder and evaluating it, from store to report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hash_encoder import HashEncoder
from planted import QUICK, QUICK_PAPER, config_of, embedded, planted_texts
from report_pages import record_of, render_html, render_markdown, render_text

from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import make_split
from era_cache.errors import EraError, FingerprintError, FormatError, InputError, StoreError
from era_cache.evaluate.evaluate_adapter import Evaluation, Measuring, evaluate_folder
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.candidates import DEFAULT
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.fit_from_store import FitPlan, FitReport, fit_to_folder
from era_cache.fitting.sources import Reading, environment, fit_environment
from era_cache.rank.measures import parse_measure
from era_cache.store.store import Store

SPLIT = SplitConfig(labels=0.3)


def _record(evaluation: Evaluation) -> dict[str, Any]:
    return record_of(evaluation.results)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return embedded(tmp_path_factory.mktemp("workflow") / "store", planted_texts())[0]


def _fit(
    store: Store,
    folder: Path,
    split: SplitConfig = SPLIT,
    recipe: FitConfig | PaperConfig = QUICK,
    candidate: str = "auto",
) -> FitReport:
    return fit_to_folder(
        store, "planted", folder, FitPlan(split, recipe, candidate=candidate), Reading(device="cpu")
    )


@pytest.fixture(scope="module")
def built(store, tmp_path_factory) -> Path:
    """An adapter folder; ``fitted`` is a copy that a test may change."""
    return _fit(store, tmp_path_factory.mktemp("fitted") / "adapter", candidate="era").folder


@pytest.fixture
def fitted(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "adapter")


def _edit(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


# Fitting


def test_the_folder_says_what_it_was_fitted_on(store, built) -> None:
    config, collection = config_of(built), store.collection("planted")
    split = make_split(collection, SPLIT)
    assert config["chosen"] == "era"
    assert set(config["candidates"]) == set(DEFAULT)
    assert config["collection"] == {"name": "planted", "digest": collection.digest}
    assert config["split"] == {
        "rule": "paper",
        "seed": 42,
        "labels": 0.3,
        "test": 0.5,
        "validation": 0.1,
        "count": 0,
        "queries": {"train": 18, "validation": 6, "test": 30},
        "test_digest": split.test_digest(collection),
    }
    assert config["encoders"]["query"]["name"] == "hash-24"
    assert config["encoders"]["document"]["name"] == "hash-16"
    assert config["alignment_documents"] == 60
    assert config["recipe"]["name"] == "era"
    assert config["recipe"]["strengths"] == [8.0]
    assert config["environment"] == fit_environment()
    assert config["environment"]["threads"] == str(torch.get_num_threads())
    assert set(environment()) >= {"era_cache", "python", "torch", "numpy", "h5py", "faiss-cpu"}


def test_metrics_and_card_show_every_candidate(built) -> None:
    metrics = json.loads((built / "metrics.json").read_text())
    assert (metrics["primary"], metrics["judging_queries"]) == ("nDCG@10", 24)
    assert metrics["missing"] == []
    assert metrics["alignment"]["texts"] == 12
    card = (built / "README.md").read_text()
    for name, entry in metrics["candidates"].items():
        chosen = " **(chosen)**" if name == "era" else ""
        assert f"| {name}{chosen} | {entry['validation']:.4f} |" in card
    assert "18 training and 6 validation queries" in card
    assert "{" not in card.replace('{"large": large_queries, "small": small_queries}', "")


def test_the_code_of_the_card_works(store, built) -> None:
    adapter = load_adapter(built)
    vectors = adapter.apply({"large": torch.ones(2, 24), "small": torch.ones(2, 16)})
    assert vectors.shape == (2, 16)


def test_the_published_recipe_makes_a_folder_too(store, tmp_path) -> None:
    report = _fit(store, tmp_path / "paper", recipe=QUICK_PAPER)
    config = config_of(report.folder)
    assert config["chosen"] == "paper"
    assert config["recipe"]["name"] == "paper"
    evaluation = evaluate_folder(store, report.folder, Measuring(device="cpu"))
    names = [row["name"] for row in _record(evaluation)["candidates"]]
    assert names == ["small", "aligned", "paper"]


def test_a_foreign_folder_is_not_written_to(store, tmp_path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(chapter.tex"):
        _fit(store, target)
    assert [path.name for path in target.iterdir()] == ["chapter.tex"]
    with pytest.raises(InputError, match="this is a file"):
        _fit(store, target / "chapter.tex")


def test_an_empty_folder_and_an_older_adapter_are_written_to(store, fitted, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert config_of(_fit(store, tmp_path / "empty").folder)
    _fit(store, fitted, candidate="small")
    assert config_of(fitted)["chosen"] == "small"


def test_an_unknown_collection_is_refused(store, tmp_path) -> None:
    with pytest.raises(StoreError, match="no collection 'other'; it holds: planted"):
        fit_to_folder(store, "other", tmp_path / "a", FitPlan(SPLIT, QUICK), Reading())
    assert not (tmp_path / "a").exists()


def test_an_unknown_candidate_leaves_no_adapter(store, tmp_path) -> None:
    with pytest.raises(InputError, match="No candidate 'best'"):
        _fit(store, tmp_path / "a", candidate="best")
    assert not (tmp_path / "a" / "config.json").exists()


# Evaluating


def test_the_record_holds_what_the_report_shows(store, built) -> None:
    evaluation = evaluate_folder(store, built, Measuring(device="cpu"), commands=["era-eval x"])
    record, ranked = _record(evaluation), evaluation.ranked["planted"]
    json.dumps(record, allow_nan=False)
    assert (record["format"], record["version"]) == ("era-evaluation", 2)
    assert record["collections"][0]["documents"] == 120
    assert record["split"]["test"] == len(ranked.queries.ids) == 30
    assert record["commands"] == ["era-eval x"]
    assert record["measures"] == ["nDCG@10", "R@100", "RR", "AP"]
    assert record["chosen"] == "era"
    names = [row["name"] for row in record["candidates"]]
    assert names == list(DEFAULT)
    assert set(ranked.scored) == set(names)
    assert "curve" not in record
    ndcg = parse_measure("nDCG@10")
    for row in record["candidates"]:
        values = ranked.scored[row["name"]].values[ndcg]
        assert row["measures"]["nDCG@10"]["mean"] == pytest.approx(values.mean())
        assert ("p" in row["measures"]["nDCG@10"]) == (row["name"] != "small")
    metrics = json.loads((built / "metrics.json").read_text())["candidates"]
    for row in record["candidates"]:
        assert row["validation"] == metrics[row["name"]]["validation"]
    assert any("large-corpus" in note for note in record["notes"])
    assert any("Few test queries (planted 30)" in note for note in record["notes"])


def test_the_record_renders(store, built) -> None:
    record = _record(evaluate_folder(store, built, Measuring(device="cpu")))
    for render in (render_text, render_markdown, render_html):
        text = render(record)
        assert "planted" in text
        assert "era-dual" in text


def test_the_primary_measure_is_always_there(store, built) -> None:
    record = _record(
        evaluate_folder(store, built, Measuring(device="cpu", measures=[parse_measure("P@5")]))
    )
    assert record["measures"] == ["nDCG@10", "P@5"]


def test_evaluation_is_deterministic(store, built) -> None:
    one, two = (_record(evaluate_folder(store, built, Measuring(device="cpu"))) for _ in range(2))
    assert one["candidates"] == two["candidates"]


def test_large_is_a_row_where_all_its_documents_are_stored(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts(), large_corpus=True)
    _fit(store, tmp_path / "adapter")
    record = _record(evaluate_folder(store, tmp_path / "adapter", Measuring(device="cpu")))
    assert record["candidates"][-1]["name"] == "large"
    assert record["candidates"][-1]["validation"] is None
    assert "full re-encode" in record["candidates"][-1]["kind"]
    assert not any("large-corpus" in note for note in record["notes"])


def test_the_curve_shows_the_folders_under_it(store, fitted) -> None:
    for labels in (0.1, 0.2, 0.3):
        _fit(store, fitted / "curve" / f"{labels:.0%}", SplitConfig(labels=labels))
    record = _record(evaluate_folder(store, fitted, Measuring(device="cpu")))
    curve = record["curve"]
    assert [(point["labels"], point["train"]) for point in curve] == [
        (0.1, 6),
        (0.2, 12),
        (0.3, 18),
    ]
    for point in curve:
        assert set(point["candidates"]) == set(DEFAULT)
        assert set(point["candidates"]["era"]) == {"mean", "low", "high", "sd"}
    # What needs no label is the same at every share.
    assert len({point["candidates"]["small"]["mean"] for point in curve}) == 1
    assert len({point["candidates"]["aligned"]["mean"] for point in curve}) == 1


def test_a_curve_of_other_test_queries_is_refused(store, fitted) -> None:
    _fit(store, fitted / "curve" / "10", SplitConfig(labels=0.1, seed=7))
    with pytest.raises(FingerprintError, match="other test queries"):
        evaluate_folder(store, fitted, Measuring(device="cpu"))


def test_a_measure_that_looks_at_most_of_a_collection_has_a_remark(store, built) -> None:
    measures = [parse_measure(name) for name in ("nDCG@10", "R@100", "P@20")]
    record = _record(evaluate_folder(store, built, Measuring(measures=measures, device="cpu")))
    (note,) = [line for line in record["notes"] if "looks at" in line]
    assert note.startswith("R@100 looks at 100 documents of few (planted 120): ")


def test_another_folder_joins_as_a_row(store, built, tmp_path) -> None:
    _fit(store, tmp_path / "paper", recipe=QUICK_PAPER)
    _fit(store, tmp_path / "second", candidate="era")
    others = [tmp_path / "paper", tmp_path / "second"]
    evaluation = evaluate_folder(store, built, Measuring(others=others, device="cpu"))
    names = [row["name"] for row in _record(evaluation)["candidates"]]
    assert set(names) == {*DEFAULT, "paper", "era (second)"}
    # Fitted alike, they rank alike.
    scored = evaluation.ranked["planted"].scored
    np.testing.assert_array_equal(
        scored["era"].ranking.doc_rows, scored["era (second)"].ranking.doc_rows
    )


def test_two_other_folders_of_one_name_both_stay(store, built, tmp_path) -> None:
    others = [tmp_path / part / "x" for part in ("a", "b")]
    for other in others:
        _fit(store, other, recipe=QUICK_PAPER)
    evaluation = evaluate_folder(store, built, Measuring(others=[*others, others[0]], device="cpu"))
    names = [row["name"] for row in _record(evaluation)["candidates"]]
    assert names[-3:] == ["paper", "paper (x)", "paper (x) #2"]


def test_another_folder_with_other_test_queries_is_refused(store, built, tmp_path) -> None:
    _fit(store, tmp_path / "other", SplitConfig(labels=0.3, seed=7))
    with pytest.raises(FingerprintError, match="its test queries differ"):
        evaluate_folder(store, built, Measuring(others=[tmp_path / "other"], device="cpu"))


def test_another_folder_of_another_collection_is_refused(store, built, tmp_path) -> None:
    other, _ = embedded(tmp_path / "store", planted_texts()._replace(name="second"))
    fit_to_folder(other, "second", tmp_path / "other", FitPlan(SPLIT, QUICK), Reading(device="cpu"))
    with pytest.raises(FingerprintError, match="its collections differ"):
        evaluate_folder(store, built, Measuring(others=[tmp_path / "other"], device="cpu"))


# What evaluation refuses


def test_a_store_of_other_encoders_is_refused(built, tmp_path) -> None:
    other, _ = embedded(tmp_path / "store", planted_texts(), large=HashEncoder(24, "another"))
    with pytest.raises(FingerprintError, match=r"no vectors of '[0-9a-f]{24}'; .*hash-24"):
        evaluate_folder(other, built, Measuring(device="cpu"))


def test_a_store_without_the_version_that_was_fitted_on_cannot_tell(built, tmp_path) -> None:
    other, _ = embedded(tmp_path / "store", planted_texts(n_queries=59))
    with pytest.raises(
        FingerprintError, match=r"The store lacks planted-.*Measure in a store that"
    ):
        evaluate_folder(other, built, Measuring(device="cpu"))


@pytest.mark.parametrize(("field", "value"), [("seed", 7), ("test", 0.4), ("rule", "source")])
def test_a_changed_split_is_refused(store, fitted, field, value) -> None:
    _edit(fitted, lambda c: c["split"].update({field: value}))
    with pytest.raises(EraError, match="split"):
        evaluate_folder(store, fitted, Measuring(device="cpu"))


def test_a_changed_digest_of_the_test_queries_is_refused(store, fitted) -> None:
    _edit(fitted, lambda c: c["split"].update(test_digest="0" * 64))
    with pytest.raises(FingerprintError, match=r"planted-.*: fitted with another split"):
        evaluate_folder(store, fitted, Measuring(device="cpu"))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("collection"),
        lambda c: c.pop("split"),
        lambda c: c["split"].pop("labels"),
        lambda c: c["split"].update(labels="many"),
        lambda c: c["split"].update(seed=None),
        lambda c: c["split"].update(seed=-1),
        lambda c: c["split"].update(test=float("nan")),
        lambda c: c.update(split=[]),
        lambda c: c["encoders"].pop("align"),
        lambda c: c["encoders"]["query"].pop("fingerprint"),
        lambda c: c.update(encoders=None),
        lambda c: c.update(collection="planted"),
        lambda c: c["collection"].update(digest=None),
    ],
)
def test_an_incomplete_configuration_is_refused(store, fitted, change) -> None:
    _edit(fitted, change)
    with pytest.raises(FormatError, match=r"config\.json: (incomplete|damaged|not valid JSON)"):
        evaluate_folder(store, fitted, Measuring(device="cpu"))


def test_a_folder_without_an_adapter_is_refused(store, tmp_path) -> None:
    with pytest.raises(FormatError, match="not an adapter folder"):
        evaluate_folder(store, tmp_path, Measuring(device="cpu"))


def test_a_changed_tensor_file_is_refused(store, fitted) -> None:
    path = fitted / "candidates" / "aligned.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        evaluate_folder(store, fitted, Measuring(device="cpu"))


# Approximate indexes


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_searches_and_says_what_it_found(store, built, kind) -> None:
    exact = evaluate_folder(store, built, Measuring(device="cpu"))
    near = evaluate_folder(store, built, Measuring(device="cpu", index=kind))
    (note,) = near.results.head.notes
    assert note.startswith(f"planted was searched through an approximate index ({kind}, ")
    assert "of the exact top 10" in note
    assert exact.results.head.notes == ()
    one, two = (e.ranked["planted"].scored["era"].ranking for e in (exact, near))
    # Some of what is found first by searching all is found by the index, too.
    assert np.mean(one.doc_rows[:, 0] == two.doc_rows[:, 0]) > 0.5
    assert note in record_of(near.results)["notes"]


def test_an_unknown_index_is_refused(store, built) -> None:
    with pytest.raises(InputError, match="Index 'tree' is unknown"):
        evaluate_folder(store, built, Measuring(device="cpu", index="tree"))
