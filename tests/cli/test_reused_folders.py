"""A folder that is given again: what somebody fitted or measured is not lost by accident."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_case import done, embedded_in, evaluated, fitted, run
from hash_encoder import HashEncoder

from era_cache.api import RetrievalAdapter
from era_cache.cli import embed, evaluate, fit
from era_cache.errors import InputError
from era_cache.fitting.adapter_folder import load_config


def _fit(case: Path, *options: object, out: str = "a", collection: str = "beir"):
    words = ["--out", case / out, "--labels", 40, "--set", "iterations=2"]
    return run(fit.main, case / "store", collection, *words, *options)


def _other(case: Path) -> None:
    """A second collection in the store, of the first half of the queries."""
    shutil.copytree(case / "beir", case / "other")
    queries = (case / "other" / "queries.jsonl").read_text().splitlines(keepends=True)
    (case / "other" / "queries.jsonl").write_text("".join(queries[:40]))
    (qrels,) = (case / "other" / "qrels").iterdir()
    kept = [line for line in qrels.read_text().splitlines(keepends=True) if line[:4] < "q040"]
    qrels.write_text("".join(kept))
    embedded_in(case, collection="other")


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_fit_again_replaces_the_adapter_and_nothing_else_goes(case) -> None:
    embedded_in(case)
    done(_fit(case))
    (case / "a" / "notes.txt").write_text("mine")
    result = done(_fit(case, "--seed", 5))
    assert f"{case / 'a'}: replaced the adapter " in result.stderr
    assert "fitted on beir." in result.stderr
    assert load_config(case / "a").recipe["seed"] == 5
    assert (case / "a" / "notes.txt").read_text() == "mine"


def test_results_are_not_lost_but_where_asked(case) -> None:
    embedded_in(case)
    done(_fit(case, "--curve", "20"))
    evaluated(case, "--runs")
    before = _tree(case / "a")
    result = _fit(case, "--seed", 5)
    assert result.exit_code == 1
    assert "its label curve and evaluation would be lost" in result.stderr
    assert "--overwrite" in result.stderr
    assert _tree(case / "a") == before
    # To go on where all is there is no new fit.
    done(_fit(case, "--resume"))
    assert _tree(case / "a") == before
    result = done(_fit(case, "--seed", 5, "--overwrite"))
    assert "and its label curve and evaluation." in result.stderr
    assert not (case / "a" / "evaluation").exists()
    assert not (case / "a" / "curve").exists()


@pytest.mark.parametrize(
    ("options", "collection", "told"),
    [
        ((), "other", "another collection, version of the collection, split"),
        (("--split-seed", 3), "beir", "another split"),
    ],
)
def test_an_adapter_of_other_data_is_not_replaced_but_where_asked(
    case, options, collection, told
) -> None:
    embedded_in(case)
    _other(case)
    done(_fit(case))
    before = _tree(case / "a")
    result = _fit(case, *options, collection=collection)
    assert result.exit_code == 1
    assert told in result.stderr
    assert _tree(case / "a") == before
    done(_fit(case, *options, "--overwrite", collection=collection))
    assert _tree(case / "a") != before


def test_another_pair_of_encoders_is_another_adapter(case, monkeypatch) -> None:
    embedded_in(case)
    done(_fit(case))
    pair = HashEncoder(24, seed="larger"), HashEncoder(16, seed="small")
    monkeypatch.setattr(embed, "_encoders", lambda *_: pair)
    embedded_in(case)
    result = _fit(case)
    assert result.exit_code == 1
    assert "another pair of encoders" in result.stderr


def test_a_grown_collection_is_another_version(case) -> None:
    embedded_in(case)
    done(_fit(case))
    corpus = case / "beir" / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + '{"_id": "new", "text": "w1 w2 w3"}\n')
    embedded_in(case)
    result = _fit(case)
    assert result.exit_code == 1
    assert "another version of the collection. Give" in result.stderr


def test_a_damaged_adapter_is_replaced_only_where_asked(case) -> None:
    embedded_in(case)
    done(_fit(case))
    config = case / "a" / "config.json"
    config.write_text(config.read_text().replace('"chosen"', '"chosem"'))
    result = _fit(case)
    assert result.exit_code == 1
    assert "a damaged adapter" in result.stderr
    done(_fit(case, "--overwrite"))


def test_what_was_measured_of_another_adapter_stays(case) -> None:
    embedded_in(case)
    fitted(case)
    fitted(case, "--split-seed", 3, out="b")
    evaluated(case, "--out", case / "results")
    evaluated(case, "--out", case / "results", "--int8")  # the same adapter: measured again
    before = _tree(case / "results")
    words = [case / "store", case / "b", "--out", case / "results"]
    result = run(evaluate.main, *words)
    assert result.exit_code == 1
    assert "results of another adapter, which would be lost" in result.stderr
    assert _tree(case / "results") == before
    done(run(evaluate.main, *words, "--overwrite"))


def test_a_report_does_not_take_the_place_of_another_s(case) -> None:
    embedded_in(case)
    fitted(case)
    fitted(case, "--split-seed", 3, out="b")
    evaluated(case)
    evaluated(case, adapter="b")
    result = run(evaluate.main, "report", case / "a", "--out", case / "b" / "evaluation")
    assert result.exit_code == 1
    assert "holds results of its own" in result.stderr
    done(run(evaluate.main, "report", case / "a", "--out", case / "report"))
    done(run(evaluate.main, "report", case / "b", "--out", case / "report"))


def test_tables_of_alignment_do_not_replace_another_collection_s(case) -> None:
    embedded_in(case)
    _other(case)
    words = ["align", case / "store"]
    done(run(fit.main, *words, "beir", "--out", case / "tables"))
    done(run(fit.main, *words, "beir", "--out", case / "tables"))
    result = run(fit.main, *words, "other", "--out", case / "tables")
    assert result.exit_code == 1
    assert "made of another collections" in result.stderr


def test_python_keeps_what_era_fit_fitted(case) -> None:
    embedded_in(case)
    fitted(case)
    adapter = RetrievalAdapter.load(case / "a")
    adapter.save(case / "b")
    other = RetrievalAdapter.load(case / "b")
    evaluated(case)
    with pytest.raises(InputError, match=r"overwrite=True"):
        adapter.save(case / "a")
    adapter.save(case / "a", overwrite=True)
    assert other.chosen == adapter.chosen
