"""Running results and adapters again, where they were and where they were moved."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from planted import QUICK_PAPER
from safetensors.numpy import load_file, save
from several import DOMAINS, RECIPE, several, texts_of

from era_cache.cli import evaluate
from era_cache.collection.config import SplitConfig
from era_cache.disk.files import sha256_file
from era_cache.errors import EraError, FingerprintError, FormatError, InputError, StoreError
from era_cache.evaluate import protocols, reproduce
from era_cache.evaluate.evaluate_adapter import Measuring, evaluate_folder
from era_cache.evaluate.protocols import PROTOCOLS, Plan, run_protocol
from era_cache.evaluate.read_results import read_results
from era_cache.evaluate.reproduce import Again
from era_cache.evaluate.results import MadeBy
from era_cache.evaluate.results_folder import ResultsFolder
from era_cache.fitting.candidates import DEFAULT
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.sources import Reading, environment
from era_cache.rank.measures import parse_measure
from era_cache.store.store import Store

MEASURES = [parse_measure(name) for name in ("nDCG@10", "AP")]
SPLIT = SplitConfig(labels=0.4)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A store, results of each protocol, adapters, and what was measured of one of them."""
    path = tmp_path_factory.mktemp("reproduce")
    store = several(path / "store")
    for protocol in PROTOCOLS:
        _protocol(store, path / protocol, protocol)
    for name, collections, options in (
        ("adapter", ["alpha", "beta"], {"align_with": ["gamma"]}),
        ("paper", ["alpha", "beta"], {"recipe": QUICK_PAPER}),
    ):
        fit_to_folder(
            store,
            collections,
            path / name,
            FitPlan(SPLIT, **{"recipe": RECIPE, **options}),
            Reading(device="cpu"),
        )
    fit_to_folder(
        store,
        ["alpha", "beta"],
        path / "adapter" / "curve" / "20",
        FitPlan(SplitConfig(labels=0.2), RECIPE),
        Reading(device="cpu"),
    )
    _measure(store, path / "adapter", path / "measured", collections=["alpha", "beta", "gamma"])
    return path


def _protocol(store: Store, folder: Path, protocol: str, **changes: Any) -> None:
    plan = Plan(protocol, list(DOMAINS), SPLIT, [0.4], 1, RECIPE, MEASURES)
    run_protocol(
        store,
        dataclasses.replace(plan, **changes),
        folder,
        Reading(device="cpu"),
        made_by=MadeBy({"store": str(store.path), "device": "cpu"}),
    )


def _measure(store: Store, adapter: Path, out: Path, **options: Any) -> None:
    configuration = {"store": str(store.path), "adapter": str(adapter), "device": "cpu"}
    results = evaluate_folder(
        store,
        adapter,
        Measuring(device="cpu", measures=MEASURES, **options),
        configuration=configuration,
    ).results
    kept = ResultsFolder(out, results.head, results.query_ids)
    for fit in results.fits:
        kept.add(fit)


@pytest.fixture
def copied(built, tmp_path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(built / name, tmp_path / name)


def _exactly_the_same(again: Again) -> None:
    assert again.differences
    for one in again.differences:
        assert (one.then, one.largest) == (one.now, 0.0)
    assert again.largest == 0.0
    assert again.changed == []


def _edit(path: Path, change: Callable[[dict], object]) -> None:
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def _configuration(folder: Path, **changes: Any) -> None:
    _edit(folder / "results.json", lambda r: r["configuration"].update(changes))


# The same again


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_gives_the_same_values_again(built, protocol) -> None:
    again = reproduce.reproduce(built / protocol)
    _exactly_the_same(again)
    results = read_results(built / protocol)
    assert len(again.differences) == sum(6 * len(fit.measured) for fit in results.fits)
    first, expected = again.differences[0], results.fits[0]
    assert first.candidate == "small"
    assert first.what.startswith(f"{expected.trained_on}, 40 %, split seed 42")
    assert first.then == pytest.approx(expected.measured[0].values[0, 0].mean())
    several_measured = len(expected.measured) > 1
    assert first.what.endswith(expected.measured[0].collection) or not several_measured


def test_what_was_measured_of_an_adapter_gives_the_same_values_again(built) -> None:
    again = reproduce.reproduce(built / "measured" / "results.json")
    _exactly_the_same(again)
    # Two shares of the labels, three collections, five candidates.
    assert len(again.differences) == 36
    assert {one.what.partition(",")[2].split(",")[1].strip() for one in again.differences} == {
        "20 %",
        "40 %",
    }


def test_an_adapter_is_fitted_again(built) -> None:
    for name in ("adapter", "adapter/config.json"):
        again = reproduce.reproduce(built / name, store=built / "store")
        _exactly_the_same(again)
        names = [one.candidate for one in again.differences]
        assert names == list(DEFAULT)


def test_an_adapter_of_the_published_recipe_is_fitted_again(built) -> None:
    again = reproduce.reproduce(built / "paper", store=built / "store")
    _exactly_the_same(again)
    assert [one.candidate for one in again.differences] == ["small", "aligned", "paper"]


def test_the_folder_is_left_as_it_was(built) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in built.rglob("*") if "index" not in str(path)
    }
    reproduce.reproduce(built / "each")
    reproduce.reproduce(built / "paper", store=built / "store")
    after = {path: path.stat().st_mtime_ns for path in built.rglob("*") if "index" not in str(path)}
    assert after == before


def test_only_what_was_measured_is_made_again(built, tmp_path, monkeypatch) -> None:
    """Shares and shuffles that came by different commands, and a run that was interrupted."""
    store, folder = Store.open(built / "store"), tmp_path / "a"
    _protocol(store, folder, "each", collections=["alpha", "beta"], labels=[0.2])
    split = dataclasses.replace(SPLIT, seed=7)
    _protocol(store, folder, "each", collections=["alpha", "beta"], split=split)
    missing = read_results(folder).fits[-1]
    (path,) = (
        p
        for p in (folder / "fits").glob("*.json")
        if json.loads(p.read_text())["job"] == missing.job
    )
    path.unlink()
    fitted = []
    fit = protocols.fit_candidates
    monkeypatch.setattr(
        protocols, "fit_candidates", lambda *a, **b: (fitted.append(1), fit(*a, **b))[1]
    )
    again = reproduce.reproduce(folder)
    _exactly_the_same(again)
    assert len(fitted) == len(read_results(folder).fits) == 3
    assert {one.what for one in again.differences} == {
        "alpha, 20 %, split seed 42",
        "beta, 20 %, split seed 42",
        "alpha, 40 %, split seed 7",
    }


# What differs


def test_a_value_that_is_not_reached_again_is_a_difference(copied) -> None:
    folder = copied("general")
    (path,) = (folder / "fits").glob("*.safetensors")
    tensors = load_file(path)
    values = tensors["1"].copy()
    values[0, 0, 3] = 1 - values[0, 0, 3]
    path.write_bytes(save({**tensors, "1": values}))
    _edit(path.with_suffix(".json"), lambda r: r.update(sha256=sha256_file(path)))
    again = reproduce.reproduce(folder)
    (one,) = (one for one in again.differences if one.largest)
    assert (one.what, one.candidate) == ("all collections, 40 %, split seed 42, on beta", "small")
    assert one.largest == pytest.approx(abs(1 - 2 * values[0, 0, 3]))
    assert one.then - one.now == pytest.approx((2 * values[0, 0, 3] - 1) / 15, abs=1e-7)


def test_protocols_of_the_published_recipe_run_and_are_fitted_again(built, tmp_path) -> None:
    store = Store.open(built / "store")
    found = {}
    for protocol in ("general", "leave-one-domain-out"):
        _protocol(store, tmp_path / protocol, protocol, recipe=QUICK_PAPER)
        again = reproduce.reproduce(tmp_path / protocol).differences
        assert again
        assert max(one.largest for one in again) < 1e-6
        found[protocol] = read_results(tmp_path / protocol)
    assert [fit.chosen for fit in found["general"].fits] == ["paper"]
    assert len(found["leave-one-domain-out"].fits) > 1
    options = found["general"].head.configuration
    assert options["recipe"]["name"] == "paper"
    default = read_results(built / "general").head.configuration
    assert "name" not in default["recipe"]


def test_another_choice_is_no_reproduction(copied) -> None:
    folder = copied("general")
    (path,) = (folder / "fits").glob("*.json")
    chosen = json.loads(path.read_text("utf-8"))["chosen"]
    other = "small" if chosen != "small" else "era"
    _edit(path, lambda r: r.update(chosen=other))
    again = reproduce.reproduce(folder)
    assert again.largest == 0.0
    assert again.choices == [f"all collections, 40 %, split seed 42: {other} then, {chosen} now"]
    result = CliRunner().invoke(evaluate.main, ["reproduce", str(folder)])
    assert result.exit_code == 1
    assert "Another candidate ships: all collections" in result.stdout
    assert "NOT reproduced" in result.stdout


def test_other_versions_are_named(copied) -> None:
    folder = copied("each")
    _edit(folder / "results.json", lambda r: r["environment"].update(numpy="1.0", extra="3"))
    changed = reproduce.reproduce(folder).changed
    assert changed == ["extra 3 -> None", f"numpy 1.0 -> {environment()['numpy']}"]


def test_another_adapter_in_its_place_is_named(built, copied, tmp_path) -> None:
    folder, adapter = copied("measured"), copied("adapter")
    _edit(adapter / "config.json", lambda r: r.update(note="another"))
    assert reproduce.reproduce(folder, adapter=adapter).changed == ["adapter"]
    shutil.rmtree(adapter / "curve")
    with pytest.raises(InputError, match=r"20 %, split seed 42: not made again"):
        reproduce.reproduce(folder, adapter=adapter)
    with pytest.raises(InputError, match=r"other candidates|not made again"):
        reproduce.reproduce(folder, adapter=built / "paper")


def test_a_collection_of_another_version_is_an_error_in_words(built, copied, tmp_path) -> None:
    other = several(tmp_path / "store", [texts_of(n, labels={1, 2}) for n in DOMAINS])
    for name in ("each", "general", "measured"):
        with pytest.raises(
            StoreError, match=r"no collection 'alpha-[0-9a-f]{12}'; it holds: alpha"
        ):
            reproduce.reproduce(built / name, store=other.path)
    with pytest.raises(StoreError, match="no collection 'alpha-"):
        reproduce.reproduce(built / "adapter", store=other.path)


def test_a_newer_version_beside_the_old_one_changes_nothing(built, copied) -> None:
    store = Store.open(copied("store"))
    store.add_collection(texts_of("alpha", labels={1, 2}))
    _exactly_the_same(reproduce.reproduce(built / "each", store=store.path))
    _exactly_the_same(reproduce.reproduce(built / "measured", store=store.path))


def test_other_encoders_are_an_error_in_words(built, tmp_path, monkeypatch) -> None:
    other = several(tmp_path / "store", seed="other")
    for name in ("each", "measured"):
        with pytest.raises((StoreError, FingerprintError), match="hash-"):
            reproduce.reproduce(built / name, store=other.path)


# Moved, and missing


def test_a_store_and_an_adapter_that_were_moved_are_named(built, copied, tmp_path) -> None:
    store, adapter = copied("store"), copied("adapter")
    for name in ("each", "measured"):
        folder = copied(name)
        _configuration(folder, store="gone")
        with pytest.raises(StoreError, match="gone: not a store"):
            reproduce.reproduce(folder)
        _exactly_the_same(reproduce.reproduce(folder, store=store))
    _configuration(folder, adapter="lost")
    with pytest.raises(FormatError, match="lost: not an adapter folder"):
        reproduce.reproduce(folder, store=store)
    _exactly_the_same(reproduce.reproduce(folder, store=store, adapter=adapter))


def test_an_adapter_needs_to_be_told_its_store(built) -> None:
    with pytest.raises(InputError, match="give --store"):
        reproduce.reproduce(built / "adapter")


def test_what_is_nothing_to_run_again_is_said(built, tmp_path, monkeypatch) -> None:
    with pytest.raises(FormatError, match="neither results nor an adapter"):
        reproduce.reproduce(built)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(FormatError, match=r"results\.json: not an era-results file"):
        reproduce.reproduce(tmp_path)
    # A path that is not there must not stand for the folder that it would be in.
    monkeypatch.chdir(built / "each")
    with pytest.raises(StoreError, match="other: does not exist"):
        reproduce.reproduce(Path("other"))


def test_no_fit_is_not_reproduced(copied) -> None:
    folder = copied("each")
    for path in (folder / "fits").iterdir():
        path.unlink()
    with pytest.raises(FormatError, match="no fit yet"):
        reproduce.reproduce(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(protocol="best"),
        lambda r: r["configuration"].pop("store"),
        lambda r: r["configuration"].update(store=7),
        lambda r: r["configuration"].pop("split"),
        lambda r: r["configuration"].update(split=None),
        lambda r: r["configuration"].update(split="other"),
        lambda r: r["configuration"].update(test="half"),
        lambda r: r["configuration"].update(test=5),
        lambda r: r["configuration"].update(test=-3),
        lambda r: r["configuration"].update(validation=-1),
        lambda r: r["configuration"].update(validation=1e18),
        lambda r: r["configuration"].update(label_count=None),
        lambda r: r["configuration"].pop("recipe"),
        lambda r: r["configuration"].update(recipe="era"),
        lambda r: r["configuration"]["recipe"].update(unheard_of=1),
        lambda r: r["configuration"]["recipe"].update(iterations="many"),
        lambda r: r["configuration"]["recipe"].update(iterations=2.5),
        lambda r: r["configuration"]["recipe"].update(iterations=0),
        lambda r: r["configuration"]["recipe"].update(strengths=["a"]),
        lambda r: r["configuration"]["recipe"].update(strengths=8),
        lambda r: r["configuration"]["recipe"].update(reference_steps=[1]),
        lambda r: r["configuration"]["recipe"].update(reference_steps=[]),
        lambda r: r["configuration"].update(device=7),
        lambda r: r["configuration"].update(device="abacus"),
        lambda r: r["encoders"].pop("query"),
        lambda r: r["encoders"]["query"].update(fingerprint="0" * 64),
        lambda r: r.update(measures=["nDCG@10", "beauty"]),
    ],
)
def test_results_that_do_not_say_how_they_were_made_are_refused(copied, change) -> None:
    folder = copied("general")
    _edit(folder / "results.json", change)
    with pytest.raises(EraError):
        reproduce.reproduce(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["configuration"].pop("adapter"),
        lambda r: r["configuration"].update(adapter=None),
        lambda r: r["configuration"].update({"with": "abc"}),
        lambda r: r["configuration"].update({"with": None}),
        lambda r: r["configuration"].update({"with": [3]}),
        lambda r: r["collections"].update({"../../x": r["collections"].pop("gamma")}),
    ],
)
def test_measured_adapters_that_do_not_say_what_was_measured_are_refused(copied, change) -> None:
    folder = copied("measured")
    _edit(folder / "results.json", change)
    with pytest.raises(EraError):
        reproduce.reproduce(folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda r: r.pop("recipe")),
        ("config.json", lambda r: r["recipe"].pop("name")),
        ("config.json", lambda r: r["recipe"].update(iterations=None)),
        ("config.json", lambda r: r["collections"][1]["split"].update(test=float("nan"))),
        ("config.json", lambda r: r["collections"][0].update(split=[])),
        ("config.json", lambda r: r.update(encoders={})),
        ("config.json", lambda r: r.update(environment=7)),
        ("config.json", lambda r: r.update(aligned_with="gamma")),
        ("config.json", lambda r: r.update(aligned_with=[{"name": "../x", "digest": "0" * 64}])),
        ("metrics.json", lambda r: r.update(candidates={})),
        ("metrics.json", lambda r: r.update(candidates=[])),
        ("metrics.json", lambda r: r["candidates"]["era"].update(validation=None)),
        ("metrics.json", lambda r: r["candidates"]["era"].update(validation=float("nan"))),
        ("metrics.json", lambda r: r["candidates"].pop("era")),
        ("metrics.json", lambda r: r.update(version=2)),
    ],
)
def test_adapters_that_do_not_say_how_they_were_made_are_refused(
    built, copied, file, change
) -> None:
    folder = copied("adapter")
    _edit(folder / file, change)
    with pytest.raises(EraError) as caught:
        reproduce.reproduce(folder, store=built / "store")
    assert str(folder) in str(caught.value) or "collection" in str(caught.value)


# On the command line


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate.main, ["reproduce", *(str(one) for one in arguments)])


def test_the_command_says_reproduced_and_exits_with_0(built) -> None:
    result = _command(built / "each")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Reproduced: means differ by 0.0e+00 at most."
    assert "alpha, 40 %, split seed 42" in result.stdout
    assert "1 of 3: alpha, 40 % of the labels" in result.stderr


def test_the_command_says_not_reproduced_and_exits_with_1(copied) -> None:
    folder = copied("each")
    path = min((folder / "fits").glob("*.safetensors"))
    values = load_file(path)["0"]
    path.write_bytes(save({"0": np.clip(values + np.float32(1e-3), 0, 1)}))
    _edit(path.with_suffix(".json"), lambda r: r.update(sha256=sha256_file(path)))
    _edit(folder / "results.json", lambda r: r["environment"].update(torch="0.1"))
    result = _command(folder)
    assert result.exit_code == 1
    assert "NOT reproduced: means differ by 1.0e-03" in result.stdout
    assert "Changed since: torch 0.1 ->" in result.stdout
    assert "Traceback" not in result.output
    assert _command(folder, "--tolerance", "0.01").exit_code == 0
    result = _command(folder, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["same"] is False
    assert len(found["differences"]) == 18
    assert set(found["differences"][0]) == {"what", "candidate", "then", "now", "largest"}


def test_the_command_prints_plain_json_whatever_was_compared(built, copied, monkeypatch) -> None:
    """Adapters of other shapes are infinitely far apart, which JSON has no word for."""
    monkeypatch.setattr(reproduce, "_apart", lambda *_: float("inf"))
    result = _command(built / "paper", "--store", built / "store", "--json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(result.stdout, parse_constant=refuse)
    assert found["differences"][0]["largest"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing"], 1, "Error: missing: does not exist"),
        ([], 2, "Missing argument"),
        ([".", "--tolerance", "nan"], 2, "not a finite number"),
        (["."], 1, "neither results nor an adapter"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, arguments, code, words) -> None:
    monkeypatch.chdir(tmp_path)
    result = _command(*arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
