"""Protocols: what is trained on what, what fitting may see, and going on where a run stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from report_pages import record_of
from several import DOMAINS, RECIPE, SIZES, several, texts_of

from era_cache.collection.config import SplitConfig
from era_cache.collection.keys import text_keys
from era_cache.collection.splits import make_split
from era_cache.encode.bm25 import embed_bm25
from era_cache.errors import FitError, InputError, StoreError
from era_cache.evaluate import protocols
from era_cache.evaluate.evaluate_adapter import Measuring, evaluate_folder
from era_cache.evaluate.protocols import PROTOCOLS, Plan, run_protocol, tasks_of
from era_cache.evaluate.read_results import read_results
from era_cache.evaluate.results import Fit, MadeBy, Results, job_name
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.candidates import DEFAULT
from era_cache.fitting.config import FitConfig
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.recipes import FitResult, fit_candidates
from era_cache.fitting.sources import Reading
from era_cache.fitting.tensors import Documents, FitData
from era_cache.rank.measures import parse_measure
from era_cache.store.store import Store

MEASURES = [parse_measure(name) for name in ("nDCG@10", "AP")]
SPLIT = SplitConfig()
PLAN = Plan("each", list(DOMAINS), SPLIT, [0.4], 1, RECIPE, MEASURES)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return several(tmp_path_factory.mktemp("protocols") / "store")


def _run(store: Store, folder: Path, protocol: str = "each", **changes: Any) -> Results:
    fields = {
        field.name: changes.pop(field.name)
        for field in dataclasses.fields(Plan)
        if field.name in changes
    }
    plan = dataclasses.replace(PLAN, protocol=protocol, **fields)
    return run_protocol(store, plan, folder, Reading(device="cpu"), **changes)


class Seen:
    """What each fit was given, and what came of it."""

    def __init__(self) -> None:
        self.data: list[list[FitData]] = []
        self.elsewhere: list[list[Documents] | None] = []
        self.results: list[FitResult] = []
        self.fail_at = -1

    def fit(
        self, data: list[FitData], recipe: FitConfig, *, elsewhere: list[Documents] | None
    ) -> FitResult:
        if len(self.data) == self.fail_at:
            self.fail_at = -1
            raise KeyboardInterrupt
        self.data.append(data)
        self.elsewhere.append(elsewhere)
        self.results.append(fit_candidates(data, recipe, elsewhere=elsewhere))
        return self.results[-1]


@pytest.fixture
def seen(monkeypatch) -> Seen:
    watched = Seen()
    monkeypatch.setattr(protocols, "fit_candidates", watched.fit)
    return watched


def _bits(adapter: Adapter) -> list[bytes]:
    tensors = [adapter.weight, adapter.bias]
    tensors += [tensor for table in adapter.references for tensor in (table.keys, table.values)]
    steps = [(t.view, t.temperature, t.step, t.steps, t.contrast) for t in adapter.references]
    found = [t.numpy().tobytes() for t in tensors if t is not None]
    return [*found, repr((adapter.views, steps)).encode()]


def _shipped(result: FitResult) -> Any:
    """All that fitting made, to the last bit."""
    made = {name: _bits(fit.adapter) for name, fit in result.candidates.items()}
    judged = {name: [v.tolist() for v in fit.values] for name, fit in result.candidates.items()}
    return made, judged, result.choice


def _values(results: Results) -> Any:
    return [
        (
            *(job_name(fit.job), fit.chosen, fit.held_out, one.collection, one.candidates),
            *(one.query_rows.tolist(), one.values.tobytes()),
        )
        for fit in results.fits
        for one in fit.measured
    ]


def _timeless(record: dict[str, Any]) -> str:
    """A record without what a clock says."""
    return json.dumps({**record, "costs": [c for c in record["costs"] if " s" not in c["value"]]})


# Which adapters


def test_the_adapters_of_each_protocol_by_hand() -> None:
    assert tasks_of("each", DOMAINS) == [(n, (n,), (n,)) for n in ("alpha", "beta", "gamma")]
    everything = ("alpha", "beta", "gamma")
    assert tasks_of("general", DOMAINS) == [("all collections", everything, everything)]
    assert tasks_of("leave-one-domain-out", DOMAINS) == [
        ("all but web", ("beta",), ("alpha", "gamma")),
        ("all but law", ("alpha", "gamma"), ("beta",)),
    ]
    assert tasks_of("domain-specific", DOMAINS) == [
        ("web", ("alpha", "gamma"), everything),
        ("law", ("beta",), everything),
    ]


@pytest.mark.parametrize("protocol", ["leave-one-domain-out", "domain-specific"])
def test_one_domain_is_not_enough_for_protocols_of_domains(store, tmp_path, protocol) -> None:
    with pytest.raises(InputError, match=r"two domains, but alpha, gamma are of 'web' only"):
        _run(store, tmp_path / "a", protocol, collections=["alpha", "gamma"])
    assert not (tmp_path / "a").exists()


def test_what_cannot_be_is_said_before_anything_is_written(store, tmp_path) -> None:
    for protocol, changes, error, words in (
        ("best", {}, InputError, "'best' is unknown; known are each, general"),
        ("each", {"collections": ["other"]}, StoreError, "no collection 'other'"),
        ("each", {"collections": []}, InputError, "name at least one"),
        ("each", {"collections": ["alpha", "alpha"]}, InputError, "each once"),
        ("each", {"labels": [0.9]}, InputError, "at most 40%"),
        ("each", {"labels": [0.01]}, FitError, "no training query"),
        ("each", {"labels": []}, InputError, "nothing to fit"),
        ("each", {"split_seeds": 0}, InputError, "nothing to fit"),
    ):
        with pytest.raises(error, match=words):
            _run(store, tmp_path / "a", protocol, **changes)
    assert not (tmp_path / "a").exists()


# What is measured


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_say_what_was_fitted_and_measured(store, tmp_path, seen, protocol) -> None:
    results = _run(store, tmp_path / "a", protocol, made_by=MadeBy(commands=["era-eval x"]))
    tasks = sorted(tasks_of(protocol, DOMAINS))
    assert [fit.trained_on for fit in results.fits] == [task.trained_on for task in tasks]
    for fit, task in zip(results.fits, tasks, strict=True):
        assert (fit.labels, fit.split_seed) == (0.4, 42)
        assert [one.collection for one in fit.measured] == list(task.measure)
        assert fit.job["split"] == dataclasses.asdict(dataclasses.replace(SPLIT, labels=0.4))
        # 40 % train, 10 % validate, half of the queries test.
        assert fit.queries["train"] == sum(int(0.4 * SIZES[name]) for name in task.train)
        assert fit.queries["validation"] == sum(SIZES[name] // 10 for name in task.train)
        assert fit.queries["judging"] == fit.queries["train"] + fit.queries["validation"]
        assert set(fit.held_out) == set(DEFAULT)
        assert {"align", "era", "evaluate"} <= set(fit.seconds)
        for one in fit.measured:
            collection = store.collection(one.collection)
            split = make_split(collection, dataclasses.replace(SPLIT, labels=0.4))
            np.testing.assert_array_equal(one.query_rows, split.test)
            assert one.values.shape == (6, 2, SIZES[one.collection] // 2)
            assert set(one.scores) == {"small", fit.chosen}
            positives = int((collection.qrels.select_queries(split.test).relevance >= 1).sum())
            assert one.scores["small"].positives.sum() == positives
    assert len(seen.results) == len(tasks)
    _compare_heads(results, read_results(tmp_path / "a"))
    assert results.head.commands == ("era-eval x",)
    record = record_of(results)
    json.dumps(record, allow_nan=False)
    assert not any("Unfinished" in note for note in record["notes"])


def _compare_heads(one: Results, two: Results) -> None:
    assert msgspec.json.encode(one.head) == msgspec.json.encode(two.head)
    assert _values(one) == _values(two)


def test_general_measures_what_fitting_and_evaluating_measure(store, tmp_path) -> None:
    (fit,) = _run(store, tmp_path / "a", "general").fits
    _agrees_with_a_folder(store, tmp_path, fit, list(DOMAINS), list(DOMAINS))


def test_a_domain_left_out_is_measured_as_a_collection_that_was_not_fitted_on(
    store, tmp_path
) -> None:
    results = _run(store, tmp_path / "a", "leave-one-domain-out")
    (fit,) = (fit for fit in results.fits if fit.trained_on == "all but law")
    _agrees_with_a_folder(store, tmp_path, fit, ["alpha", "gamma"], ["beta"], align_with=["beta"])
    (fit,) = (fit for fit in results.fits if fit.trained_on == "all but web")
    assert fit.job["align"] == ["alpha", "gamma"]


def _agrees_with_a_folder(
    store: Store, tmp_path: Path, fit: Fit, train: list[str], measured: list[str], **options: Any
) -> None:
    folder = tmp_path / "adapter"
    report = fit_to_folder(
        store,
        train,
        folder,
        FitPlan(dataclasses.replace(SPLIT, labels=0.4), RECIPE, **options),
        Reading(device="cpu"),
    )
    assert report.result.choice.name == fit.chosen
    (other,) = evaluate_folder(
        store, folder, Measuring(collections=measured, measures=MEASURES, device="cpu")
    ).results.fits
    for one, theirs in zip(fit.measured, other.measured, strict=True):
        assert (one.collection, one.candidates) == (theirs.collection, theirs.candidates)
        np.testing.assert_array_equal(one.query_rows, theirs.query_rows)
        np.testing.assert_allclose(one.values, theirs.values, atol=1e-6)
        for name, histogram in one.scores.items():
            np.testing.assert_array_equal(histogram.others, theirs.scores[name].others)


def test_large_is_measured_where_all_its_documents_are_stored(tmp_path) -> None:
    store = several(tmp_path / "store", large_corpus=["beta"])
    (fit,) = _run(store, tmp_path / "a", "general").fits
    assert [one.candidates[-1] for one in fit.measured] == ["small+", "large", "small+"]
    record = record_of(read_results(tmp_path / "a"))
    assert "large" not in [row["name"] for row in record["candidates"]]
    assert any("a collection lacks it: large" in note for note in record["notes"])
    assert [row["large"] is None for row in record["gains"]["rows"]] == [True, False, True]


def test_the_primary_measure_is_always_there(store, tmp_path) -> None:
    results = _run(store, tmp_path / "a", collections=["alpha"], measures=[parse_measure("P@5")])
    assert results.head.measures == ("nDCG@10", "P@5")
    assert results.fits[0].measured[0].values.shape[1] == 2


# What fitting may see


def _test_rows(store: Store) -> dict[str, list[int]]:
    return {name: make_split(store.collection(name), SPLIT).test.tolist() for name in DOMAINS}


def _poisoned(path: Path, rows: dict[str, list[int]], texts: set[str] = frozenset()) -> Store:
    """The store with other labels and vectors for some queries, and other vectors for texts."""
    collections = [texts_of(name, labels=rows.get(name, ())) for name in DOMAINS]
    changed = {c.query_texts[row] for c in collections for row in rows.get(c.name, ())}
    return several(path, collections, vectors=changed | texts)


@pytest.fixture(scope="module")
def poisoned_tests(store, tmp_path_factory) -> Store:
    """The store with other vectors and labels for all test queries."""
    other = _poisoned(tmp_path_factory.mktemp("poisoned") / "store", _test_rows(store))
    assert _test_rows(other) == _test_rows(store)
    return other


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_test_queries_of_any_collection_have_no_say_in_a_fit(
    store, poisoned_tests, tmp_path, seen, protocol
) -> None:
    _run(store, tmp_path / "a", protocol)
    count = len(seen.results)
    poisoned = _run(poisoned_tests, tmp_path / "b", protocol)
    assert len(seen.results) == 2 * count
    for one, two in zip(seen.results[:count], seen.results[count:], strict=True):
        assert _shipped(one) == _shipped(two)
    # The poison is there: it shows where the test queries are measured.
    clean = read_results(tmp_path / "a")
    assert [v[-1] for v in _values(clean)] != [v[-1] for v in _values(poisoned)]


def test_poison_in_queries_that_may_be_seen_does_show(store, tmp_path, seen) -> None:
    """Else the tests beside this one could not fail."""
    rows = {name: make_split(store.collection(name), SPLIT).validation.tolist() for name in DOMAINS}
    _run(store, tmp_path / "a", "general")
    _run(_poisoned(tmp_path / "store", rows), tmp_path / "b", "general")
    one, two = seen.results
    assert _shipped(one) != _shipped(two)


@pytest.mark.parametrize(
    ("documents", "poisoned", "matters"),
    [
        (False, ("queries", "documents"), False),
        (True, ("queries",), False),
        (True, ("documents",), True),  # else the test could not fail
    ],
)
def test_of_the_domain_left_out_documents_alone_have_a_say_if_anything(
    store, tmp_path, seen, documents, poisoned, matters
) -> None:
    """Neither its training queries nor its labels; without documents nothing at all."""
    _run(store, tmp_path / "a", "leave-one-domain-out", documents=documents)
    given = [found for found in seen.elsewhere if found is not None]
    assert [len(found) for found in given] == ([2, 1] if documents else [0, 0])
    for number, domain in enumerate(("web", "law")):
        mine = [name for name, of in DOMAINS.items() if of == domain]
        rows = {name: list(range(SIZES[name])) for name in mine} if "queries" in poisoned else {}
        texts = {text for name in mine for text in texts_of(name).doc_texts}
        other = _poisoned(tmp_path / domain, rows, texts if "documents" in poisoned else set())
        before = len(seen.results)
        _run(other, tmp_path / f"{domain}-results", "leave-one-domain-out", documents=documents)
        same = [
            _shipped(one) == _shipped(two)
            for one, two in zip(seen.results[:2], seen.results[before:], strict=True)
        ]
        # The adapter for this domain is the same; the other one is trained on it.
        assert same[number] != matters
        assert not same[1 - number]
        for one, two in zip(seen.data[number], seen.data[before + number], strict=True):
            for a, b in zip(_tensors(one), _tensors(two), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def _tensors(data: FitData) -> list[torch.Tensor]:
    views = [view for part in (data.train, data.validation) for view in part.views.values()]
    return [*views, data.corpus, data.tie_ranks, data.align_large, data.align_small]


@pytest.fixture(scope="module")
def sharing(tmp_path_factory) -> Store:
    """Collections share query texts, as real ones do; each text has its own judgements."""

    def shared(texts: list[str]) -> list[str]:
        return [f"shared {row}" if row % 2 else text for row, text in enumerate(texts)]

    collections = [texts_of(name, queries=shared) for name in DOMAINS]
    return several(tmp_path_factory.mktemp("sharing") / "store", collections)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_training_queries_that_another_collection_tests_are_left_out(
    sharing, tmp_path, seen, protocol
) -> None:
    stored = {name: sharing.collection(name) for name in DOMAINS}
    tested = np.concatenate([text_keys(c)[make_split(c, SPLIT).test] for c in stored.values()])
    results = _run(sharing, tmp_path / "a", protocol)
    tasks = tasks_of(protocol, DOMAINS)
    left_out = 0
    for several_data, task in zip(seen.data, tasks, strict=True):
        for name, data in zip(task.train, several_data, strict=True):
            for part in (data.train, data.validation):
                assert not np.isin(part.texts, tested).any()
            split = make_split(stored[name], dataclasses.replace(SPLIT, labels=0.4))
            left_out += len(split.train) - len(data.train.ids)
    assert left_out > 0
    by_task = {fit.trained_on: fit for fit in results.fits}
    for several_data, task in zip(seen.data, tasks, strict=True):
        counted = by_task[task.trained_on].queries["train"]
        assert counted == sum(len(data.train.ids) for data in several_data)


# Going on


@pytest.mark.parametrize("protocol", ["each", "domain-specific"])
def test_an_interrupted_run_goes_on_where_it_stopped(store, tmp_path, seen, protocol) -> None:
    options = {"split_seeds": 2, "labels": [0.4]}
    seen.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        _run(store, tmp_path / "a", protocol, **options)
    assert len(seen.results) == 2
    kept = {path: path.read_bytes() for path in (tmp_path / "a" / "fits").iterdir()}
    part = record_of(read_results(tmp_path / "a"))
    assert any(
        f"Unfinished: 2 of {2 * len(tasks_of(protocol, DOMAINS))}" in n for n in part["notes"]
    )
    results = _run(store, tmp_path / "a", protocol, **options)
    total = 2 * len(tasks_of(protocol, DOMAINS))
    assert len(seen.results) == total
    assert {path: path.read_bytes() for path in kept} == kept
    whole = _run(store, tmp_path / "b", protocol, **options)
    assert _values(results) == _values(whole)
    assert _timeless(record_of(results)) == _timeless(record_of(whole))
    for folder in ("a", "b"):
        again = record_of(read_results(tmp_path / folder))
        assert _timeless(again) == _timeless(record_of(whole))
    for path in (tmp_path / "b").rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "a" / "fits" / path.name).read_bytes()


def test_a_fit_that_was_left_incomplete_is_not_kept(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        protocols,
        "fit_candidates",
        lambda *data, **options: fit_candidates(*data, **options)._replace(missing=("small+",)),
    )
    with pytest.raises(KeyboardInterrupt):
        _run(store, tmp_path / "a")
    assert list((tmp_path / "a" / "fits").iterdir()) == []


def test_what_is_there_is_not_fitted_again_whatever_the_order_of_names(
    store, tmp_path, seen
) -> None:
    first = _run(store, tmp_path / "a", "domain-specific")
    count, told = len(seen.results), []
    again = _run(store, tmp_path / "a", "domain-specific", tell=told.append)
    assert (len(seen.results), told) == (count, [])
    assert _values(again) == _values(first)
    _run(store, tmp_path / "a", "domain-specific", collections=["gamma", "beta", "alpha"])
    assert len(seen.results) == count


def test_other_shares_and_shuffles_join(store, tmp_path, seen) -> None:
    _run(store, tmp_path / "a", collections=["alpha", "beta"])
    assert len(seen.results) == 2
    told: list[str] = []
    results = _run(
        store,
        tmp_path / "a",
        collections=["alpha", "beta"],
        labels=[0.2, 0.4],
        split_seeds=2,
        tell=told.append,
    )
    assert len(seen.results) == len(results.fits) == 8
    assert told[0] == "1 of 8: alpha, 20 % of the labels, split seed 42"
    whole = _run(
        store, tmp_path / "b", collections=["alpha", "beta"], labels=[0.4, 0.2], split_seeds=2
    )
    assert _values(results) == _values(whole)
    # A smaller command leaves the others, and its report is still that of the folder.
    fewer = _run(store, tmp_path / "a", collections=["alpha", "beta"], labels=[0.2])
    assert _values(fewer) == _values(whole)
    assert _timeless(record_of(fewer)) == _timeless(record_of(read_results(tmp_path / "a")))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"protocol": "general"}, "protocol"),
        ({"measures": [parse_measure("RR")]}, "measures"),
        ({"collections": ["alpha", "gamma"]}, "collections, aligned on"),
        ({"recipe": dataclasses.replace(RECIPE, temperature=0.5)}, "recipe"),
        ({"split": dataclasses.replace(SPLIT, test=0.4)}, "test"),
        ({"split": dataclasses.replace(SPLIT, count=5)}, "label count"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_command_is_not_mixed_in(store, tmp_path, changes, what) -> None:
    _run(store, tmp_path / "a", collections=["alpha", "beta"])
    changes = {"protocol": "each", "collections": ["alpha", "beta"], **changes}
    with pytest.raises(InputError, match=f"results of another {what}. Give a new folder"):
        _run(store, tmp_path / "a", **changes)
    assert len(read_results(tmp_path / "a").fits) == 2


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "leave-one-domain-out"])
def test_adapters_are_for_the_collections_that_they_are_trained_on(
    store, tmp_path, seen, protocol
) -> None:
    _run(store, tmp_path / "a", protocol)
    assert set(seen.elsewhere) == {None}


def test_fits_with_and_without_documents_are_not_mixed(store, tmp_path) -> None:
    _run(store, tmp_path / "a", "leave-one-domain-out", documents=False)
    with pytest.raises(InputError, match="results of another documents"):
        _run(store, tmp_path / "a", "leave-one-domain-out")


def test_another_store_is_not_mixed_in(store, tmp_path) -> None:
    _run(store, tmp_path / "a", collections=["alpha"])
    rows = {"alpha": [0]}
    other = _poisoned(tmp_path / "store", rows)
    with pytest.raises(InputError, match="results of another collections"):
        _run(other, tmp_path / "a", collections=["alpha"])


def test_a_folder_with_other_files_is_not_written_to(store, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        _run(store, tmp_path, collections=["alpha"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Processes


def _process(store: Store, folder: Path, *names: str) -> subprocess.Popen[bytes]:
    """Run ``each`` with two shuffles in a process of its own."""
    places = [str(Path(__file__).parent), *sys.path]
    script = (
        f"import sys; from pathlib import Path; sys.path[:0] = {places};"
        "import test_protocols as t; from era_cache.store.store import Store;"
        "t._run(Store.open(sys.argv[1]), Path(sys.argv[2]), "
        "collections=sys.argv[3:], split_seeds=2)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, store.path, folder, *names],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(store, tmp_path, seen) -> None:
    folder = tmp_path / "a"
    process = _process(store, folder, "alpha", "beta")
    deadline = time.monotonic() + 60
    while not list((folder / "fits").glob("[0-9a-f]*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(read_results(folder).fits)
    assert 1 <= done < 4
    options = {"collections": ["alpha", "beta"], "split_seeds": 2}
    results = _run(store, folder, **options)
    assert len(seen.results) == 4 - done
    whole = _run(store, tmp_path / "b", **options)
    assert _values(results) == _values(whole)
    assert _timeless(record_of(results)) == _timeless(record_of(whole))


def test_two_runs_may_share_a_folder(store, tmp_path) -> None:
    processes = [_process(store, tmp_path / "a", "alpha") for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    results = read_results(tmp_path / "a")
    whole = _run(store, tmp_path / "b", collections=["alpha"], split_seeds=2)
    assert _values(results) == _values(whole)
    assert _timeless(record_of(results)) == _timeless(record_of(whole))
    assert not list((tmp_path / "a").rglob(".tmp-*"))


# Beside a first stage


def test_bm25_is_in_a_protocol_where_every_collection_has_it(tmp_path) -> None:
    store = several(tmp_path / "store")
    plan = dataclasses.replace(PLAN, protocol="general")

    def candidates() -> list[set[str]]:
        found = run_protocol(store, plan, tmp_path / f"r{len(list(tmp_path.iterdir()))}", Reading())
        return [set(one.candidates) for fit in found.fits for one in fit.measured]

    for name in DOMAINS:
        texts = texts_of(name)
        assert not any("bm25" in "".join(one) for one in candidates())  # not all have it yet
        embed_bm25(store, texts, store.collection(name))
    for one in candidates():
        assert {"bm25", "bm25+small", "bm25+era-zero", "bm25+era", "bm25+era-dual"} <= one
