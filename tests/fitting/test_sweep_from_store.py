"""Sweeps from a store: rows that last, in order, and of labels that may be seen."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from planted import (
    CPU,
    QUICK,
    embed,
    embedded,
    fit_folder,
    planted_texts,
    poisoned_store,
    texts_elsewhere,
)

from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import Split, make_split
from era_cache.errors import InputError
from era_cache.fitting import sweep_from_store
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.settings import grid
from era_cache.fitting.sources import load_sources
from era_cache.fitting.sweep_from_store import SweepPlan, sweep_rows
from era_cache.store.store import Store

SPLIT = SplitConfig()
THIRTY = dataclasses.replace(SPLIT, labels=0.3)
PLAN = SweepPlan(
    split=SPLIT,
    labels=[0.3],
    split_seeds=1,
    candidates=["era"],
    base=QUICK,
    settings=grid(["temperature=0.05,0.5"]),
)


LADDER = grid(["temperature=0.02,0.05,0.1,0.2,0.5,1,2,5,20"])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return embedded(tmp_path_factory.mktemp("experiments") / "store", planted_texts())[0]


def _sweep(store: Store, folder: Path, **changes: object) -> list[dict[str, object]]:
    names, tell = changes.pop("names", ["planted"]), changes.pop("tell", lambda _text: None)
    return sweep_rows(store, names, folder, dataclasses.replace(PLAN, **changes), CPU, tell)


def _assert_fits_say_the_same(
    store: Store,
    rows: list[dict[str, object]],
    names: Sequence[str] = ("planted",),
    split: SplitConfig = THIRTY,
) -> list[int]:
    """Each row has the mean of its own fit; gives how many queries of each collection train."""
    sources, _ = load_sources(store, names, split, CPU, align_documents=60)
    for temperature in (0.05, 0.5):
        recipe = dataclasses.replace(QUICK, temperature=temperature)
        fits = fit_candidates([source.data for source in sources], recipe).candidates
        own = [row for row in rows if row["temperature"] == temperature]
        assert own
        for row in own:
            assert row["held_out"] == pytest.approx(fits[row["candidate"]].mean, abs=1e-4)
    return [len(source.split.train) for source in sources]


def _forbidden(*_args: object, **_options: object) -> None:
    raise AssertionError("nothing was to be fitted")


# Sweeps


def test_rows_say_what_was_fitted_and_what_came_of_it(store, tmp_path) -> None:
    settings = grid(["temperature=0.05,0.5", "reference-steps=0/0.5x2"])
    rows = _sweep(store, tmp_path, settings=settings)
    columns = "job candidate temperature reference_steps labels split_seed held_out round chosen"
    for row in rows:
        assert list(row) == columns.split()
        assert (row["candidate"], row["labels"], row["split_seed"]) == ("era", 0.3, 42)
        assert row["reference_steps"] == "0x1/0.5x2"
        assert row["round"] == "full"
        assert row["chosen"].startswith("strength ")
    assert {row["temperature"] for row in rows} == {0.05, 0.5}


def test_a_row_has_the_held_out_mean_of_the_fit_itself(store, tmp_path) -> None:
    rows = _sweep(store, tmp_path, candidates=["era", "era-dual", "small+"])
    assert len(rows) == 6
    _assert_fits_say_the_same(store, rows)


def test_the_best_comes_first_and_what_was_dropped_last(store, tmp_path) -> None:
    rows = _sweep(store, tmp_path, settings=LADDER)
    assert [row["round"] for row in rows] == ["full"] * 4 + ["short"] * 5
    for part in (rows[:4], rows[4:]):
        means = [row["held_out"] for row in part]
        assert means == sorted(means, reverse=True)
    assert all(row["chosen"] == "" for row in rows[4:])


def test_every_share_and_every_shuffle_has_its_rows(store, tmp_path) -> None:
    rows = _sweep(store, tmp_path, labels=[0.1, 0.3, 0.2], split_seeds=2)
    found = {(row["labels"], row["split_seed"], row["temperature"]) for row in rows}
    assert len(rows) == 12
    assert found == {
        (share, seed, t) for share in (0.1, 0.2, 0.3) for seed in (42, 43) for t in (0.05, 0.5)
    }


def test_a_smaller_share_gives_what_it_would_give_alone(store, tmp_path) -> None:
    def means(*shares: float) -> dict[tuple[object, ...], object]:
        folder, candidates = tmp_path / str(shares), ["era", "era-dual"]
        rows = _sweep(store, folder, labels=list(shares), candidates=candidates)
        keys = "candidate", "temperature", "labels"
        return {tuple(row[key] for key in keys): row["held_out"] for row in rows}

    together = means(0.1, 0.3)
    assert len(together) == 8
    assert together == pytest.approx(means(0.1) | means(0.3), abs=1e-4)


def test_rows_that_are_there_are_not_fitted_again(store, tmp_path, monkeypatch) -> None:
    told: list[str] = []
    options = {"split_seeds": 2, "labels": [0.2, 0.3], "tell": told.append}
    first = _sweep(store, tmp_path, **options)
    monkeypatch.setattr(sweep_from_store, "sweep", _forbidden)
    told.clear()
    assert _sweep(store, tmp_path, **options) == first
    assert told == [f"split seed {seed}: all 4 fits are there" for seed in (42, 43)]


def test_an_interrupted_sweep_goes_on_with_the_next_shuffle(store, tmp_path, monkeypatch) -> None:
    fitted: list[int] = []
    sweep = sweep_from_store.sweep

    def interrupted(data, jobs, **options):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(len(jobs))
        return sweep(data, jobs, **options)

    monkeypatch.setattr(sweep_from_store, "sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _sweep(store, tmp_path / "a", split_seeds=3)
    fitted[:] = [0]
    rows = _sweep(store, tmp_path / "a", split_seeds=3)
    assert fitted == [0, 2]
    monkeypatch.setattr(sweep_from_store, "sweep", sweep)
    assert rows == _sweep(store, tmp_path / "b", split_seeds=3)


def test_a_row_that_another_grid_made_is_shown_with_the_settings_asked_for(
    store, tmp_path, monkeypatch
) -> None:
    (first,) = _sweep(store, tmp_path, settings=grid(["temperature=0.5"]))
    monkeypatch.setattr(sweep_from_store, "sweep", _forbidden)
    base = dataclasses.replace(QUICK, temperature=0.5)
    (again,) = _sweep(store, tmp_path, base=base, settings=grid(["folds=2"]))
    assert again["folds"] == 2
    assert "temperature" not in again
    assert again["held_out"] == first["held_out"]


def test_a_row_of_a_short_round_does_not_stand_for_a_fit_in_full(store, tmp_path) -> None:
    halved = _sweep(store, tmp_path, settings=LADDER)
    assert {row["round"] for row in halved} == {"full", "short"}
    few = _sweep(store, shutil.copytree(tmp_path, tmp_path / "few"), settings=LADDER[-3:])
    assert [row["round"] for row in few] == ["full"] * 3
    whole = _sweep(store, tmp_path, settings=LADDER, halving=False)
    assert {row["round"] for row in whole} == {"full"}
    # Once they are there they stand for both.
    assert _sweep(store, tmp_path, settings=LADDER) == whole


def test_rows_of_another_split_or_store_are_refused(store, tmp_path) -> None:
    _sweep(store, tmp_path / "rows")
    with pytest.raises(InputError, match="rows of another store, collection, split or encoder"):
        _sweep(store, tmp_path / "rows", split=dataclasses.replace(SPLIT, test=0.4))
    other, _ = embedded(tmp_path / "store", planted_texts(), large=HashEncoder(24, "another"))
    with pytest.raises(InputError, match="rows of another store"):
        _sweep(other, tmp_path / "rows")


def test_an_impossible_setting_is_said_before_anything_is_read(store, tmp_path) -> None:
    with pytest.raises(InputError, match="temperature -1"):
        _sweep(store, tmp_path / "rows", settings=grid(["temperature=0.5,-1"]))
    assert not (tmp_path / "rows").exists()


def test_the_number_of_alignment_documents_can_be_swept(store, tmp_path) -> None:
    rows = _sweep(store, tmp_path / "rows", settings=grid(["align_documents=60,10"]))
    for row in rows:
        recipe = dataclasses.replace(QUICK, align_documents=row["align_documents"])
        report = fit_folder(store, tmp_path / str(row["align_documents"]), recipe=recipe)
        assert row["held_out"] == pytest.approx(report.result.candidates["era"].mean, abs=1e-4)
    assert rows[0]["held_out"] != rows[1]["held_out"]


@pytest.mark.parametrize(
    ("count", "train"),
    [(0, [9, 18]), (6, [6, 6]), (12, [9, 12])],
    ids=["no limit", "both reach the count", "the limit is the other's alone"],
)
def test_several_collections_are_swept_at_one_share_each_with_its_queries(
    tmp_path, count, train
) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    embed(store, texts_elsewhere("again", n_queries=30))
    names, split = ["again", "planted"], dataclasses.replace(SPLIT, count=count)
    rows = _sweep(store, tmp_path / "rows", names=names, split=split)
    wanted = dataclasses.replace(split, labels=0.3)
    assert _assert_fits_say_the_same(store, rows, names, wanted) == train
    with pytest.raises(InputError, match="on one collection only"):
        _sweep(store, tmp_path / "more", names=names, labels=[0.1, 0.3])


# What may be seen


def _split_at(store: Store, share: float) -> Split:
    return make_split(store.collection("planted"), dataclasses.replace(SPLIT, labels=share))


def test_test_queries_have_no_say_in_a_sweep(store, tmp_path) -> None:
    options = {"labels": [0.1, 0.3], "candidates": ["era", "era-dual", "small+"]}
    split = _split_at(store, 0.3)
    usual = _sweep(store, tmp_path / "a", **options)
    poisoned = poisoned_store(tmp_path / "b", planted_texts(), split.test.tolist())
    assert _sweep(poisoned, tmp_path / "c", **options) == usual
    # The same poison in queries that may be seen does show.
    seen = [*split.train.tolist(), *split.validation.tolist()]
    poisoned = poisoned_store(tmp_path / "d", planted_texts(), seen)
    assert _sweep(poisoned, tmp_path / "e", **options) != usual


def test_a_smaller_share_knows_nothing_of_the_labels_of_a_larger(store, tmp_path) -> None:
    ten, thirty = (set(_split_at(store, share).train.tolist()) for share in (0.1, 0.3))
    assert len(ten) == 6
    other = poisoned_store(tmp_path / "b", planted_texts(), thirty - ten)
    options = {"labels": [0.1, 0.3], "settings": grid(["align=auto", "align_texts=documents,both"])}
    one, two = (
        {(row["labels"], row["align_texts"]): row["held_out"] for row in rows}
        for rows in (
            _sweep(store, tmp_path / "x", **options),
            _sweep(other, tmp_path / "y", **options),
        )
    )
    for texts in ("documents", "both"):
        assert one[0.1, texts] == pytest.approx(two[0.1, texts], abs=1e-6)
        assert one[0.3, texts] != two[0.3, texts]
