"""`era-eval --index`: built once, kept in the store, and never the cause of a wrong figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_case import MODELS, case, done, embedded_in, evaluated, fitted, run

from era_cache.cli import embed, evaluate, fit, search
from era_cache.disk.hdf5 import inspect
from era_cache.evaluate import kept_index
from era_cache.rank import approximate
from era_cache.store.search_indexes import write_search_index

__all__ = ["case"]

QUICK = ("--set", "iterations=2", "--device", "cpu")


@pytest.fixture
def measured(case: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A fitted adapter, and a function that measures it through an index."""
    embedded_in(case)
    fitted(case, out="adapter")
    monkeypatch.setattr(kept_index, "KEPT_FROM", 10)
    monkeypatch.setattr(approximate, "_FEWEST_CODED", 10)

    def measure(kind: str, **options: Any) -> dict[str, Any]:
        found = evaluated(case, "--index", kind, "--overwrite", adapter="adapter", **options)
        return json.loads(json.dumps(found))

    return measure


def figures(record: dict[str, Any]) -> Any:
    return [(one["name"], one["measures"]) for one in record["candidates"]]


def files(case: Path) -> list[Path]:
    return sorted((case / "store" / "indexes").glob("*.h5"))


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_the_second_run_reads_what_the_first_one_built(case, measured, kind, monkeypatch) -> None:
    first = measured(kind)
    (path,) = files(case)
    assert path.name.startswith(f"{kind}-")

    def refuse(*_: object) -> None:
        raise AssertionError("built a second time")

    for method in ("_ivf", "_hnsw", "_pq"):
        monkeypatch.setattr(approximate.ApproximateIndex, method, refuse)
    second = measured(kind)
    assert figures(first) == figures(second)
    assert first["notes"] == second["notes"]
    assert files(case) == [path]


def test_a_damaged_one_is_told_and_built_anew(case, measured) -> None:
    first = measured("ivf")
    (path,) = files(case)
    data = bytearray(path.read_bytes())
    data[inspect(path).slots["centres"].offset] ^= 1
    path.write_bytes(data)
    second = measured("ivf")
    assert figures(first) == figures(second)
    assert any("built anew" in note and path.name in note for note in second["notes"])
    assert not any("built anew" in note for note in measured("ivf")["notes"])


def test_one_whose_arrays_do_not_fit_is_told_and_built_anew(case, measured, monkeypatch) -> None:
    whole = approximate.ApproximateIndex.arrays

    def cut(index: approximate.ApproximateIndex) -> dict[str, Any]:
        return {**whole(index), "lists": whole(index)["lists"][:-1]}

    with monkeypatch.context() as patched:
        patched.setattr(approximate.ApproximateIndex, "arrays", cut)
        first = measured("ivf")
    second = measured("ivf")
    assert figures(first) == figures(second)
    assert any("built anew" in note for note in second["notes"])


def test_a_store_that_cannot_be_written_is_measured_all_the_same(
    case, measured, monkeypatch
) -> None:
    def refuse(*_: object) -> None:
        raise kept_index.StoreError("read-only")

    monkeypatch.setattr(kept_index, "write_search_index", refuse)
    first = measured("hnsw")
    assert not files(case)
    monkeypatch.setattr(kept_index, "write_search_index", write_search_index)
    assert figures(first) == figures(measured("hnsw"))


def test_few_documents_leave_no_file(case, measured, monkeypatch) -> None:
    monkeypatch.setattr(kept_index, "KEPT_FROM", 20_000)
    measured("ivf")
    assert not files(case)


def test_in_a_bucket_a_teammate_reads_what_was_built(case, s3, tmp_path, monkeypatch) -> None:
    files, url = s3
    done(run(embed.main, case / "beir", *MODELS, "--store", url))
    done(run(fit.main, url, "beir", "--labels", 40, "--out", case / "adapter", *QUICK))
    monkeypatch.setattr(kept_index, "KEPT_FROM", 10)

    def measure(out: str) -> dict[str, Any]:
        monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / out))  # a machine of its own
        words = [url, case / "adapter", "--index", "hnsw", "--out", case / out, "--json"]
        return json.loads(done(run(evaluate.main, *words, "--device", "cpu")).stdout)

    first = measure("one")
    assert len([name for name in files.find(url[5:]) if "/indexes/" in name]) == 1
    monkeypatch.setattr(approximate.ApproximateIndex, "_hnsw", None)  # it cannot be built
    second = measure("two")
    assert figures(first) == figures(second)
    assert not any("built anew" in note for note in second["notes"])


@pytest.fixture
def searched(measured, case: Path) -> Callable[..., dict[str, Any]]:
    """A function that searches for a stored query."""

    def one(*options: object) -> dict[str, Any]:
        words = [case / "store", case / "adapter", "--id", "q003", "--json", *options]
        found = done(run(search.main, *words, "--device", "cpu"))
        return json.loads(found.stdout)

    return one


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_a_search_reads_the_index_that_an_evaluation_built(
    case, measured, searched, kind, monkeypatch
) -> None:
    measured(kind)
    monkeypatch.setattr(approximate.ApproximateIndex, f"_{kind}", None)  # it cannot be built
    found = searched("--index", kind)
    assert len(files(case)) == 1
    said = found["collection"].pop("index")
    assert said.startswith(kind)
    exact = searched()
    assert exact["collection"].pop("index") is None
    # So few documents: each list is read, the graph is walked whole, all codes are ranked anew.
    for one, other in zip(found["candidates"], exact["candidates"], strict=True):
        for hit, wanted in zip(one["hits"], other["hits"], strict=True):
            assert hit["document"] == wanted["document"]
            assert hit["score"] == pytest.approx(wanted["score"], abs=1e-5)


def test_a_search_builds_what_is_missing_and_tells_of_what_is_damaged(case, searched) -> None:
    first = searched("--index", "ivf")
    (path,) = files(case)
    path.write_bytes(path.read_bytes()[:-8])
    words = [case / "store", case / "adapter", "--id", "q003", "--index", "ivf", "--device", "cpu"]
    shown = done(run(search.main, *words))
    assert "An index was built anew" in shown.output
    assert "through an index (ivf" in " ".join(shown.output.split())
    again = searched("--index", "ivf")
    assert first["candidates"] == again["candidates"]


def test_the_page_searches_the_index_too(case, searched, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(search, "run_server", lambda make, *_: opened.append(make(None)))
    done(run(search.main, case / "store", case / "adapter", "--web", "--index", "hnsw"))
    (app,) = opened
    assert app is not None
    assert [path.name.split("-")[0] for path in files(case)] == ["hnsw"]


def test_a_search_of_a_collection_that_has_grown_follows_no_older_index(case, searched) -> None:
    searched("--index", "ivf")
    (older,) = files(case)
    corpus = case / "beir" / "corpus.jsonl"
    first = json.loads(corpus.read_text().splitlines()[0])
    added = json.dumps({**first, "_id": "a-new-one", "text": f"{first['text']} once more"})
    corpus.write_text(f"{added}\n{corpus.read_text()}")  # so that every row is another's
    embedded_in(case)
    found, exact = searched("--index", "ivf"), searched()
    assert len(files(case)) == 2
    assert older in files(case)
    for one, other in zip(found["candidates"], exact["candidates"], strict=True):
        assert [h["document"] for h in one["hits"]] == [h["document"] for h in other["hits"]]
