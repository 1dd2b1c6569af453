"""Sweeps from a store: rows that last, in order, and of labels that may be seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from planted import QUICK, Meddled, default_qrels, embedded, planted_texts

from era_cache.collection.splits import make_split
from era_cache.config import EmbedConfig, SplitConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import InputError
from era_cache.fitting import sweep_from_store
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.settings import grid
from era_cache.fitting.sources import Reading, load_sources
from era_cache.fitting.sweep_from_store import SweepPlan, sweep_rows
from era_cache.store.store import Store
from era_cache.types import Role

SPLIT = SplitConfig()
PLAN = SweepPlan(
    split=SPLIT,
    labels=[0.3],
    split_seeds=1,
    candidates=["era"],
    base=QUICK,
    settings=grid(["temperature=0.05,0.5"]),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return embedded(tmp_path_factory.mktemp("experiments") / "store", planted_texts())[0]


def _sweep(store: Store, folder: Path, **changes: object) -> list[dict[str, object]]:
    names, tell = changes.pop("names", ["planted"]), changes.pop("tell", lambda _text: None)
    return sweep_rows(
        store, names, folder, dataclasses.replace(PLAN, **changes), Reading(device="cpu"), tell
    )


def _forbidden(*_args: object, **_options: object) -> None:
    raise AssertionError("nothing was to be fitted")


def _second(store: Store, name: str = "again", queries: int = 60, seed: str = "") -> None:
    """Another collection in the store, perhaps by other encoders."""
    texts = planted_texts(n_queries=queries)
    others = [f"{text} elsewhere" for text in texts.query_texts]
    embed_collection(
        store,
        texts._replace(name=name, query_texts=others),
        large=HashEncoder(24, f"large{seed}"),
        small=HashEncoder(16, f"small{seed}"),
        config=EmbedConfig(align_documents=60),
    )


# Sweeps


def test_rows_say_what_was_fitted_and_what_came_of_it(store, tmp_path) -> None:
    rows = _sweep(
        store, tmp_path, settings=grid(["temperature=0.05,0.5", "reference-steps=0/0.5x2"])
    )
    for row in rows:
        assert list(row) == [
            "job",
            "candidate",
            "temperature",
            "reference_steps",
            "labels",
            "split_seed",
            "held_out",
            "round",
            "chosen",
        ]
        assert (row["candidate"], row["labels"], row["split_seed"]) == ("era", 0.3, 42)
        assert row["reference_steps"] == "0x1/0.5x2"
        assert row["round"] == "full"
        assert row["chosen"].startswith("strength ")
    assert {row["temperature"] for row in rows} == {0.05, 0.5}


def test_a_row_has_the_held_out_mean_of_the_fit_itself(store, tmp_path) -> None:
    rows = _sweep(store, tmp_path / "rows", candidates=["era", "era-dual", "small+"])
    assert len(rows) == 6
    split = dataclasses.replace(SPLIT, labels=0.3)
    for temperature in (0.05, 0.5):
        recipe = dataclasses.replace(QUICK, temperature=temperature)
        (source,), _ = load_sources(
            store, ["planted"], split, Reading(device="cpu"), align_documents=60
        )
        fits = fit_candidates(source.data, recipe).candidates
        for row in (row for row in rows if row["temperature"] == temperature):
            assert row["held_out"] == pytest.approx(fits[row["candidate"]].mean, abs=1e-4)


def test_the_best_comes_first_and_what_was_dropped_last(store, tmp_path) -> None:
    values = ",".join(str(value) for value in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20))
    rows = _sweep(store, tmp_path, settings=grid([f"temperature={values}"]))
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
    together = _sweep(store, tmp_path / "a", labels=[0.1, 0.3], candidates=["era", "era-dual"])
    apart = [
        row
        for share in (0.1, 0.3)
        for row in _sweep(
            store, tmp_path / f"{share}", labels=[share], candidates=["era", "era-dual"]
        )
    ]

    def means(rows: list[dict[str, object]]) -> dict[tuple[object, ...], object]:
        return {
            (row["candidate"], row["temperature"], row["labels"]): row["held_out"] for row in rows
        }

    assert means(together) == pytest.approx(means(apart), abs=1e-4)
    assert len(means(together)) == 8


def test_rows_that_are_there_are_not_fitted_again(store, tmp_path, monkeypatch) -> None:
    first = _sweep(store, tmp_path, split_seeds=2, labels=[0.2, 0.3])
    monkeypatch.setattr(sweep_from_store, "sweep", _forbidden)
    told: list[str] = []
    assert _sweep(store, tmp_path, split_seeds=2, labels=[0.2, 0.3], tell=told.append) == first
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
    settings = grid(["temperature=0.02,0.05,0.1,0.2,0.5,1,2,5,20"])
    halved = _sweep(store, tmp_path, settings=settings)
    assert {row["round"] for row in halved} == {"full", "short"}
    whole = _sweep(store, tmp_path, settings=settings, halving=False)
    assert {row["round"] for row in whole} == {"full"}
    few = _sweep(store, tmp_path / "few", settings=settings)
    few = _sweep(store, tmp_path / "few", settings=settings[-3:])
    assert [row["round"] for row in few] == ["full"] * 3
    # Once they are there they stand for both.
    assert _sweep(store, tmp_path, settings=settings) == whole


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
        folder = tmp_path / str(row["align_documents"])
        recipe = dataclasses.replace(QUICK, align_documents=row["align_documents"])
        split = dataclasses.replace(SPLIT, labels=0.3)
        report = fit_to_folder(
            store, "planted", folder, FitPlan(split, recipe), Reading(device="cpu")
        )
        assert row["held_out"] == pytest.approx(report.result.candidates["era"].mean, abs=1e-4)
    assert rows[0]["held_out"] != rows[1]["held_out"]


def test_several_collections_are_swept_at_one_share_only(tmp_path) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    _second(store, queries=30)
    names = ["again", "planted"]
    for split in (SPLIT, dataclasses.replace(SPLIT, count=9)):
        folder = tmp_path / f"rows{split.count}"
        rows = _sweep(store, folder, names=names, split=split)
        wanted = dataclasses.replace(split, labels=0.3)
        sources, _ = load_sources(store, names, wanted, Reading(device="cpu"), align_documents=60)
        # The two differ in how many queries train; each has all of its own.
        assert len({len(source.split.train) for source in sources}) == (2 if not split.count else 1)
        for row in rows:
            recipe = dataclasses.replace(QUICK, temperature=row["temperature"])
            fits = fit_candidates([source.data for source in sources], recipe).candidates
            assert row["held_out"] == pytest.approx(fits["era"].mean, abs=1e-4)
    with pytest.raises(InputError, match="on one collection only"):
        _sweep(store, tmp_path / "rows", names=names, labels=[0.1, 0.3])


def test_a_count_that_one_of_several_collections_does_not_reach_limits_the_others_alone(
    tmp_path,
) -> None:
    store, _ = embedded(tmp_path / "store", planted_texts())
    _second(store, queries=20)
    names, split = ["again", "planted"], dataclasses.replace(SPLIT, count=12, labels=0.3)
    (row, _) = _sweep(store, tmp_path / "rows", names=names, split=split)
    sources, _ = load_sources(store, names, split, Reading(device="cpu"), align_documents=60)
    assert [len(source.split.train) for source in sources] == [6, 12]
    recipe = dataclasses.replace(QUICK, temperature=row["temperature"])
    fits = fit_candidates([source.data for source in sources], recipe).candidates
    assert row["held_out"] == pytest.approx(fits["era"].mean, abs=1e-4)


# What may be seen


def _meddled(path: Path, rows: set[int]) -> Store:
    """The store with other vectors and labels for the queries ``rows``."""
    texts = planted_texts()
    usual = default_qrels(120, itself=True)

    def qrels(query: int) -> list[tuple[int, int]]:
        return [((query + 40 + i) % 120, 3) for i in range(3)] if query in rows else usual(query)

    poisoned = {texts.query_texts[row] for row in rows}
    return embedded(
        path,
        planted_texts(qrels=qrels),
        large=Meddled(24, "large", Role.QUERY, poisoned),
        small=Meddled(16, "small", Role.QUERY, poisoned),
    )[0]


def _seen(store: Store) -> tuple[set[int], set[int]]:
    """Rows of test queries, and of those that may be seen at 30 % of the labels."""
    split = make_split(store.collection("planted"), dataclasses.replace(SPLIT, labels=0.3))
    return set(split.test.tolist()), {*split.train.tolist(), *split.validation.tolist()}


def test_test_queries_have_no_say_in_a_sweep(store, tmp_path) -> None:
    options = {"labels": [0.1, 0.3], "candidates": ["era", "era-dual", "small+"]}
    test, seen = _seen(store)
    usual = _sweep(store, tmp_path / "a", **options)
    assert _sweep(_meddled(tmp_path / "b", test), tmp_path / "c", **options) == usual
    # The same poison in queries that may be seen does show.
    assert _sweep(_meddled(tmp_path / "d", seen), tmp_path / "e", **options) != usual


def test_a_smaller_share_knows_nothing_of_the_labels_of_a_larger(store, tmp_path) -> None:
    collection = store.collection("planted")
    ten, thirty = (
        set(make_split(collection, dataclasses.replace(SPLIT, labels=share)).train.tolist())
        for share in (0.1, 0.3)
    )
    assert len(ten) == 6
    other = _meddled(tmp_path / "b", thirty - ten)
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
