"""Folders of results: what is written is read back, and strangers' folders are refused in words."""

from __future__ import annotations

import copy
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_results import made_results
from msgspec import structs
from report_pages import record_of
from safetensors.numpy import load_file, save

from era_cache.disk.files import sha256_file, write_bytes
from era_cache.disk.json_files import json_digest
from era_cache.errors import EraError, FormatError, InputError, NewerError, StoreError
from era_cache.evaluate import read_results as read_module
from era_cache.evaluate.read_results import read_results
from era_cache.evaluate.results import Extra, Fit, Results, job_name
from era_cache.evaluate.results_folder import ResultsFolder


def _write(folder: Path, results: Results, **options: bool) -> ResultsFolder:
    kept = ResultsFolder(folder, results.head, results.query_ids, **options)
    for fit in results.fits:
        kept.add(fit)
    return kept


def _plain(fit: Fit) -> Any:
    """A fit without arrays, to be compared."""
    measured = [
        (
            one.collection,
            one.candidates,
            one.query_rows.tolist(),
            one.values.tolist(),
            {name: [part.tolist() for part in h] for name, h in one.scores.items()},
        )
        for one in fit.measured
    ]
    return {**fit._asdict(), "measured": measured}


def _same(one: Results, two: Results) -> None:
    assert one.head == two.head
    assert list(one.head.collections) == list(two.head.collections)
    assert one.query_ids == two.query_ids
    assert sorted(map(_plain, one.fits), key=str) == sorted(map(_plain, two.fits), key=str)


@pytest.fixture(scope="module")
def results() -> Results:
    return made_results("each", seeds=(42, 43), labels=(0.2,))


@pytest.fixture(scope="module")
def written(results, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "results"
    _write(folder, results)
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / "results")


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What is written


@pytest.mark.parametrize(
    "protocol", ["adapter", "each", "general", "leave-one-domain-out", "domain-specific"]
)
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path, protocol) -> None:
    results = made_results(protocol, seeds=(42, 43), labels=(0.1, 0.2), steps=997)
    kept = _write(tmp_path / "a", results)
    _same(kept.results(), results)
    _same(read_results(tmp_path / "a"), results)
    # The record is the same, whichever of the two it is made of.
    assert json.dumps(record_of(read_results(tmp_path / "a"))) == json.dumps(record_of(results))


def test_the_files_are_those_of_the_format(folder, results) -> None:
    names = {job_name(fit.job) for fit in results.fits}
    assert set(_files(folder)) == {
        "results.json",
        "queries.json",
        *(f"fits/{name}.{ending}" for name in names for ending in ("json", "safetensors")),
    }
    head = json.loads((folder / "results.json").read_text("utf-8"))
    assert (head["format"], head["version"]) == ("era-results", 1)
    for fit in results.fits:
        path = folder / "fits" / f"{json_digest(fit.job)[:24]}.json"
        record = json.loads(path.read_text("utf-8"))
        assert (record["format"], record["version"]) == ("era-fit-results", 1)
        assert record["sha256"] == sha256_file(path.with_suffix(".safetensors"))
        tensors = load_file(path.with_suffix(".safetensors"))
        for i, one in enumerate(fit.measured):
            np.testing.assert_array_equal(tensors[str(i)], one.values)
            assert record["measured"][i]["query_rows"] == one.query_rows.tolist()


def test_writing_is_the_same_whatever_came_first(results, tmp_path) -> None:
    _write(tmp_path / "a", results)
    _write(tmp_path / "b", results._replace(fits=results.fits[::-1]))
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    order = [[job_name(f.job) for f in read_results(tmp_path / x).fits] for x in "ab"]
    assert order[0] == order[1]
    kept = ResultsFolder(tmp_path / "b", results.head, results.query_ids)
    assert [job_name(fit.job) for fit in kept.results().fits] == order[0]


def test_fits_are_added_to_those_that_are_there(results, tmp_path) -> None:
    kept = _write(tmp_path / "a", results._replace(fits=results.fits[:2]))
    assert [kept.get(fit.job) is not None for fit in results.fits[:3]] == [True, True, False]
    again = ResultsFolder(tmp_path / "a", results.head, results.query_ids)
    assert _plain(again.get(results.fits[1].job)) == _plain(results.fits[1])
    for fit in results.fits[2:]:
        again.add(fit)
    _same(read_results(tmp_path / "a"), results)


def test_a_fit_that_another_run_added_stands_and_is_seen(results, tmp_path) -> None:
    one, two = (ResultsFolder(tmp_path / "a", results.head, results.query_ids) for _ in range(2))
    first = results.fits[0]
    assert two.get(first.job) is None
    one.add(first)
    assert _plain(two.get(first.job)) == _plain(first)
    before = _files(tmp_path / "a")
    third = ResultsFolder(tmp_path / "a", results.head, results.query_ids)
    third._fits.clear()  # as if it had been opened before the fit was added
    third.add(first._replace(reason="made twice"))
    assert _files(tmp_path / "a") == before
    assert third.results().fits[0].reason == first.reason


def test_a_run_that_died_while_writing_leaves_nothing_in_the_way(results, tmp_path) -> None:
    folder = tmp_path / "a"
    kept = _write(folder, results._replace(fits=results.fits[:1]))
    name = job_name(results.fits[1].job)
    # Killed after the values, and with staged files about.
    write_bytes(folder / "fits" / f"{name}.safetensors", b"half")
    for part in (folder, folder / "fits"):
        (part / ".tmp-elsewhere-1-x.json").write_text('{"format": "era-fit')
    assert len(read_results(folder).fits) == 1
    assert kept.get(results.fits[1].job) is None
    again = ResultsFolder(folder, results.head, results.query_ids)
    again.add(results.fits[1])
    assert len(read_results(folder).fits) == 2


@pytest.mark.parametrize("left", [[], ["fits"], ["fits", "queries.json"], [".tmp-a-1-b.json"]])
def test_a_run_that_died_at_its_start_is_gone_on_with(results, tmp_path, left) -> None:
    folder = tmp_path / "a"
    _write(folder, results._replace(fits=[]))
    for path in folder.iterdir():
        if path.name not in left:
            path.rmdir() if path.is_dir() else path.unlink()
    for name in left:
        if name.startswith("."):
            (folder / name).write_text("{")
    _write(folder, results)
    _same(read_results(folder), results)


def test_a_folder_with_other_files_is_left_alone(results, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\). Give a new folder"):
        ResultsFolder(tmp_path, results.head, results.query_ids)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        ResultsFolder(tmp_path / "thesis.tex", results.head, results.query_ids)


def test_fits_without_a_head_are_not_taken_over(folder, results) -> None:
    (folder / "results.json").unlink()
    with pytest.raises(InputError, match="holds other files"):
        ResultsFolder(folder, results.head, results.query_ids)


def test_a_folder_may_be_behind_a_link_but_none_inside_leads_out(results, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    _write(tmp_path / "link", results)
    _same(read_results(tmp_path / "real"), results)
    (tmp_path / "outside").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "fits").symlink_to("../outside")
    for anew in (False, True):
        with pytest.raises(FormatError, match="link"):
            _write(tmp_path / "b", results, anew=anew)
    assert list((tmp_path / "outside").iterdir()) == []


def test_files_are_replaced_and_not_written_through(results, tmp_path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "a" / "fits").mkdir(parents=True)
    name = job_name(results.fits[0].job)
    for path in ("results.json", "queries.json", f"fits/{name}.safetensors"):
        (tmp_path / "a" / path).symlink_to(tmp_path / "victim")
    with pytest.raises(FormatError, match="symbolic link"):
        _write(tmp_path / "a", results)
    _write(tmp_path / "a", results, anew=True)
    assert (tmp_path / "victim").read_text() == "mine"
    _same(read_results(tmp_path / "a"), results)


# Anew


def test_anew_replaces_what_was_measured(folder, results) -> None:
    (folder / "report.html").write_text("old")
    (folder / "fits" / "mine.txt").write_text("mine")
    fewer = results._replace(fits=results.fits[:1])
    _write(folder, fewer, anew=True)
    _same(read_results(folder), fewer)
    assert (folder / "fits" / "mine.txt").read_text() == "mine"
    other = made_results("each", {"delta": "web"})
    with pytest.raises(InputError, match=r"another collections.*--overwrite"):
        _write(folder, other, anew=True)
    _same(read_results(folder), fewer)
    _write(folder, other, anew=True, overwrite=True)
    (folder / "results.json").write_text("{")
    _write(folder, other, anew=True)
    _same(read_results(folder), other)


def test_anew_does_not_clear_away_the_fits_of_another_protocol(folder, results) -> None:
    before = _files(folder)
    other = made_results("adapter")
    with pytest.raises(InputError, match="results of the protocol 'each', which would be lost"):
        _write(folder, other, anew=True)
    (folder / "results.json").write_text('{"format": "era-results", "version": 2}')
    with pytest.raises(NewerError, match=r"results\.json: format version 2"):
        _write(folder, other, anew=True)
    assert set(_files(folder)) == set(before)


# Another command in the same folder


def _changed_head(results: Results, part: str) -> Any:
    head = results.head
    alpha = structs.replace(head.collections["alpha"], digest="f" * 64)
    options = head.configuration
    fields = {
        "protocol": {"protocol": "general"},
        "measures": {"measures": (*head.measures, "RR")},
        "collections": {"collections": {**head.collections, "alpha": alpha}},
        "encoders": {"encoders": {}},
        "adapters": {"adapters": {"a": "b"}},
        "recipe": {"configuration": {**options, "recipe": {"seed": 1}}},
        "split": {"configuration": {**options, "split": "source"}},
        "label count": {"configuration": {**options, "label_count": 5}},
    }
    return structs.replace(head, **fields[part])


@pytest.mark.parametrize(
    "part",
    [
        *("protocol", "measures", "collections", "encoders", "adapters"),
        *("recipe", "split", "label count"),
    ],
)
def test_results_of_something_else_are_not_added_to(folder, results, part) -> None:
    before = _files(folder)
    with pytest.raises(InputError, match=f"results of another {part}. Give a new folder") as caught:
        ResultsFolder(folder, _changed_head(results, part), results.query_ids)
    assert str(folder) in str(caught.value)
    assert _files(folder) == before


def test_what_does_not_change_a_fit_may_differ(folder, results) -> None:
    head = structs.replace(
        results.head,
        title="another",
        commands=("era-eval y",),
        notes=(),
        environment={"numpy": "3"},
        configuration={**results.head.configuration, "labels": [0.4]},
        collections=dict(reversed(results.head.collections.items())),
        extra=Extra(planned=("new",)),
    )
    kept = ResultsFolder(folder, head, results.query_ids)
    found = read_results(folder).head
    assert found == kept.results().head
    assert found.title == "another"
    assert list(found.collections) == ["gamma", "beta", "alpha"]
    # What the folder has is still planned to be there, and was run.
    assert found.extra.planned == (*results.head.extra.planned, "new")
    assert found.commands == ("era-eval x", "era-eval y")
    assert len(kept.results().fits) == len(results.fits)


# Hostile folders


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    record = json.loads(path.read_text("utf-8"))
    changed = change(record)
    path.write_text(json.dumps(record if changed is None else changed), "utf-8")


def _first(folder: Path) -> Path:
    return min((folder / "fits").glob("*.json"))


def _refused(folder: Path, file: Path, *words: str) -> None:
    """One of our errors that names the file; a path of it is enough."""
    with pytest.raises((FormatError, StoreError)) as caught:
        read_results(folder)
    assert str(file) in str(caught.value) or file.name in str(caught.value)
    for word in words:
        assert word in str(caught.value)


DEEP = json.loads("[" * 60 + "]" * 60)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda r: r.update(format="era-fit-results"),
        lambda r: r.update(version=0),
        lambda r: r.update(version=True),
        lambda r: r.pop("protocol"),
        lambda r: r.update(protocol=None),
        lambda r: r.update(title=["x"]),
        lambda r: r.update(title="\ud800"),
        lambda r: r.update(measures="nDCG@10"),
        lambda r: r.update(measures=["AP"]),
        lambda r: r.update(measures=["nDCG@10", "nDCG@10"]),
        lambda r: r.update(primary=None),
        lambda r: r.update(collections={}),
        lambda r: r.update(collections=[]),
        lambda r: r["collections"]["alpha"].update(documents=-1),
        lambda r: r["collections"]["alpha"].update(documents=1e300),
        lambda r: r["collections"]["alpha"].update(queries=float("nan")),
        lambda r: r["collections"]["alpha"].update(queries=True),
        lambda r: r["collections"]["alpha"].update(queries=10**30),
        lambda r: r["collections"]["alpha"].update(domain=7),
        lambda r: r["collections"].update(alpha=None),
        lambda r: r.update(encoders=[]),
        lambda r: r.update(encoders={"query": "x"}),
        lambda r: r["encoders"]["query"].pop("fingerprint"),
        lambda r: r.update(adapters={"a": 1}),
        lambda r: r.update(environment={"numpy": None}),
        lambda r: r.update(configuration=[]),
        lambda r: r["configuration"].update(x=float("nan")),
        lambda r: r["configuration"].update(x=float("inf")),
        lambda r: r["configuration"].update(x=10**400),
        lambda r: r["configuration"].update(x=DEEP),
        lambda r: r["configuration"].update({"\udfff": 1}),
        lambda r: r.update(costs={"what": "x"}),
        lambda r: r.update(costs=[{"what": "x", "value": 3}]),
        lambda r: r.update(costs=["x"]),
        lambda r: r.update(commands="era-eval"),
        lambda r: r.update(notes=[None]),
        lambda r: r.update(extra={"planned": 6}),
        lambda r: r["extra"].update(candidates=[]),
        lambda r: r.update(extra={"planned": [6]}),
        lambda r: r.update(extra={"int8": []}),
        lambda r: r.update(extra={"int8": {"small": {"AP": {}}}}),
        lambda r: r.update(extra={"int8": {"small": {"nDCG@10": {"mean": "high"}}}}),
    ],
)
def test_a_damaged_head_is_refused(folder, results, change) -> None:
    path = folder / "results.json"
    _edit(path, change)
    _refused(folder, path)
    with pytest.raises(EraError):
        ResultsFolder(folder, results.head, results.query_ids)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(ids=[]),
        lambda r: r["ids"].pop("alpha"),
        lambda r: r["ids"].update({"../../x": []}),
        lambda r: r["ids"].update(alpha="abc"),
        lambda r: r["ids"].update(alpha=[1]),
        lambda r: r["ids"].update(alpha=["\ud800"] * 12),
        lambda r: r["ids"].update(alpha=r["ids"]["alpha"][:1]),
        lambda r: r.update(version=2),
    ],
)
def test_damaged_query_ids_are_refused(folder, change) -> None:
    path = folder / "queries.json"
    _edit(path, change)
    with pytest.raises(FormatError) as caught:
        read_results(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda r: r.update(version=2),
        lambda r: r.pop("sha256"),
        lambda r: r.update(sha256="0" * 64),
        lambda r: r.pop("measured"),
        lambda r: r.update(measured=None),
        lambda r: r.update(measured={}),
        lambda r: r.update(measured=[]),
        lambda r: r.update(measured=["x"]),
        lambda r: r.update(measured=r["measured"] * 2),
        lambda r: r["measured"][0].update(collection="../../x"),
        lambda r: r["measured"][0].update(collection=["alpha"]),
        lambda r: r["measured"][0].update(candidates=["small"] * 4),
        lambda r: r["measured"][0].update(candidates="smal"),
        lambda r: r["measured"][0].update(candidates=["small", "aligned", "era", 3]),
        lambda r: r["measured"][0].update(candidates=["small", "aligned", "shipped", "era"]),
        lambda r: r["measured"][0].update(candidates=["a", "b", "c", "d"]),
        lambda r: r["measured"][0]["candidates"].pop(),
        lambda r: r["measured"][0].update(query_rows=[]),
        lambda r: r["measured"][0].update(query_rows=None),
        lambda r: r["measured"][0]["query_rows"].pop(),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, -1),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, 10**6),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, 10**30),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, float("nan")),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, 0.5),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, "0"),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, True),
        lambda r: r["measured"][0]["query_rows"].__setitem__(0, r["measured"][0]["query_rows"][1]),
        lambda r: r["measured"][0].update(query_rows=[[n] for n in r["measured"][0]["query_rows"]]),
        lambda r: r["measured"][0].update(query_rows=DEEP),
        lambda r: r["measured"][0].update(query_rows=list(range(500_000))),
        lambda r: r["measured"][0].update(scores=[]),
        lambda r: r["measured"][0].update(scores={"other": r["measured"][0]["scores"]["small"]}),
        lambda r: r["measured"][0]["scores"]["small"].pop("others"),
        lambda r: r["measured"][0]["scores"]["small"].update(others=[1] * 79),
        lambda r: r["measured"][0]["scores"]["small"].update(others=[-1] * 80),
        lambda r: r["measured"][0]["scores"]["small"].update(others=[2**62] * 80),
        lambda r: r["measured"][0]["scores"]["small"].update(others=[0.5] * 80),
        lambda r: r.pop("job"),
        lambda r: r.update(job={}),
        lambda r: r.update(job=[]),
        lambda r: r["job"].update(x=float("nan")),
        lambda r: r["job"].update(x="\ud800"),
        lambda r: r["job"].update(x=DEEP),
        lambda r: r.update(trained_on=None),
        lambda r: r.update(labels=-0.1),
        lambda r: r.update(labels=1.5),
        lambda r: r.update(labels=True),
        lambda r: r.update(labels="0.2"),
        lambda r: r.update(labels=float("nan")),
        lambda r: r.update(split_seed=-1),
        lambda r: r.update(split_seed=1.5),
        lambda r: r.update(split_seed=True),
        lambda r: r.update(split_seed=10**30),
        lambda r: r.update(split_seed="42"),
        lambda r: r.update(queries=[]),
        lambda r: r["queries"].update(train=-1),
        lambda r: r["queries"].update(train=1e308),
        lambda r: r["queries"].update(train="9"),
        lambda r: r["held_out"].update(era=float("nan")),
        lambda r: r["held_out"].update(era="0.5"),
        lambda r: r["held_out"].update(era=1e308),
        lambda r: r["held_out"].update(era=None),
        lambda r: r.update(held_out={"era": [1], "small": [2]}),
        lambda r: r.update(chosen="other"),
        lambda r: r.update(chosen=None),
        lambda r: r.update(chosen=["small"]),
        lambda r: r.update(reason=3),
        lambda r: r.update(seconds={"align": "1"}),
        lambda r: r.update(seconds={"align": float("inf")}),
        lambda r: r.update(seconds={"align": -1}),
        lambda r: r.update(seconds={"align": None}),
    ],
)
def test_a_damaged_fit_is_refused(folder, results, change) -> None:
    path = _first(folder)
    _edit(path, change)
    with pytest.raises(FormatError) as caught:
        read_results(folder)
    assert path.stem in str(caught.value)
    with pytest.raises(EraError):
        ResultsFolder(folder, results.head, results.query_ids)


def _with_values(folder: Path, data: bytes) -> Path:
    """Replace a fit's values by others that its JSON names."""
    path = _first(folder)
    path.with_suffix(".safetensors").write_bytes(data)
    digest = sha256_file(path.with_suffix(".safetensors"))
    _edit(path, lambda r: r.update(sha256=digest))
    return path


def _values_of(folder: Path) -> np.ndarray:
    return load_file(_first(folder).with_suffix(".safetensors"))["0"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: {"0": v.astype(np.float64)},
        lambda v: {"0": v.astype(np.float16)},
        lambda v: {"0": v[:, :1]},
        lambda v: {"0": v[:0]},
        lambda v: {"0": v.reshape(-1)},
        lambda v: {"0": v.transpose(2, 1, 0).copy()},
        lambda v: {"0": np.where(v == v.max(), np.nan, v)},
        lambda v: {"0": np.where(v == v.max(), np.inf, v)},
        lambda v: {"0": v + 1},
        lambda v: {"0": v - 1},
        lambda v: {"0": v * np.float32(3e38)},
        lambda v: {"1": v},
        lambda v: {"0": v, "1": v},
        lambda _: {},
    ],
)
def test_values_that_are_no_values_are_refused(folder, change) -> None:
    path = _with_values(folder, save(change(_values_of(folder))))
    with pytest.raises(FormatError, match=path.stem):
        read_results(folder)


def _header(text: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + rest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"12345678",
        struct.pack("<Q", 2**63) + b"{}",
        _header(b"[]"),
        _header(b"{"),
        _header(b"\xff"),
        _header(b'{"0": 3}'),
        _header(b'{"0": {"dtype": ["F32"]}}'),
        _header(b'{"0": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"0000"),
        _header(b'{"0": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}', b"0000"),
        _header(b'{"0": {"dtype": "F32", "shape": [9999999999], "data_offsets": [0, 4]}}', b"0000"),
        _header(b"[" * 60_000 + b"]" * 5000),
    ],
)
def test_files_of_values_that_are_damaged_are_refused(folder, data) -> None:
    path = _with_values(folder, data)
    with pytest.raises(FormatError, match=path.stem):
        read_results(folder)


def test_swapped_values_are_refused(folder) -> None:
    one, two = sorted((folder / "fits").glob("*.safetensors"))[:2]
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    _refused(folder, one, "damaged. Remove both")


def test_missing_values_are_said(folder) -> None:
    path = _first(folder).with_suffix(".safetensors")
    path.unlink()
    with pytest.raises(StoreError, match=path.stem):
        read_results(folder)


def test_a_renamed_fit_is_refused(folder) -> None:
    path = _first(folder)
    for ending in (".json", ".safetensors"):
        path.with_suffix(ending).rename(folder / "fits" / f"{'0' * 24}{ending}")
    _refused(folder, folder / "fits" / f"{'0' * 24}.json", "not that of its job")


def test_links_and_pipes_in_the_place_of_files_are_refused(folder, tmp_path) -> None:
    for name in ("results.json", "queries.json", _first(folder).name, "values"):
        copied = shutil.copytree(folder, tmp_path / name)
        path = {
            "results.json": copied / name,
            "queries.json": copied / name,
            "values": _first(copied).with_suffix(".safetensors"),
        }.get(name, copied / "fits" / name)
        path.rename(tmp_path / f"{name}.moved")
        path.symlink_to(tmp_path / f"{name}.moved")
        with pytest.raises(FormatError, match="symbolic link"):
            read_results(copied)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises((FormatError, StoreError), match=r"not a regular file|no results here"):
            read_results(copied)


def test_what_is_no_folder_of_results_is_said(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FormatError, match="no results here"):
            read_results(path)
    (tmp_path / "results.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"results\.json: not valid JSON"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"results\.json: not valid JSON"):
        read_results(tmp_path)


def test_a_folder_without_fits_is_said(folder) -> None:
    shutil.rmtree(folder / "fits")
    with pytest.raises(StoreError, match="fits"):
        read_results(folder)


def test_gigantic_files_are_not_read(folder, monkeypatch) -> None:
    monkeypatch.setattr(read_module, "_FIT_LIMIT", 100)
    _refused(folder, _first(folder), "at most 100 are expected")
    monkeypatch.setattr(read_module, "_IDS_LIMIT", 100)
    _refused(folder, folder / "queries.json", "at most 100 are expected")


def test_names_like_paths_are_only_texts(tmp_path) -> None:
    """Nothing is written by such a name, and a report shows it."""
    results = made_results(
        "each", {"../../x": "..", "/etc/passwd": "web"}, candidates=("small", "../../y")
    )
    _write(tmp_path / "a" / "b", results)
    record = record_of(read_results(tmp_path / "a" / "b"))
    assert {row["name"] for row in record["candidates"]} == {"small", "../../y", "shipped"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


# Mutations


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be changed; of long lists the first two are enough."""
    if at:
        yield at
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _places(one, (*at, name))
    elif isinstance(value, list):
        for i, one in enumerate(value[:2]):
            yield from _places(one, (*at, i))


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**18, -(10**30), 2**63, 1e308, -0.5, 0.5, float("nan"), float("inf")]),
    st.sampled_from(
        ["", "x", "../../x", "small", "shipped", "\ud800", "\x00", "alpha", "<script>"]
    ),
    st.sampled_from([[], {}, [[]], {"a": {}}, [0], [None], ["x"], DEEP]),
)


def _record_or_refusal(folder: Path) -> str:
    """Read and analyse; what was refused, in words, or nothing."""
    try:
        found = read_results(folder)
    except (FormatError, StoreError, InputError) as error:
        return str(error)
    try:
        made = record_of(found)
    except (FormatError, InputError) as error:
        return f"{folder}: {error}"
    json.dumps(made, allow_nan=False, ensure_ascii=False).encode("utf-8")
    return ""


@given(data=st.data())
@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_stranger_writes_is_refused_or_makes_a_record(folder, data) -> None:
    """Never another exception, neither in reading nor in analysing; and it can be written again."""
    files = ["results.json", "queries.json", f"fits/{_first(folder).name}"]
    path = folder / data.draw(st.sampled_from(files))
    kept = path.read_bytes()
    record = json.loads(kept)
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(list(_places(record))))
        inside = record
        for part in parents:
            inside = inside[part]
        if isinstance(last, str) and data.draw(st.integers(0, 4)) == 0:
            del inside[last]
        else:
            inside[last] = copy.deepcopy(data.draw(HOSTILE))
    try:
        path.write_text(json.dumps(record))
        refused = _record_or_refusal(folder)
    finally:
        path.write_bytes(kept)
    assert not refused or str(folder) in refused


@given(st.binary(max_size=300), st.integers(0, 3))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_stand_for_values_are_refused(folder, data, kind) -> None:
    path = _first(folder)
    described, values = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()
    if kind:
        at = int.from_bytes(data[:3], "big") % len(values)
        data = values[:at] + data[3 : 3 + kind] + values[at + kind :]
    try:
        _with_values(folder, data)
        refused = _record_or_refusal(folder)
    finally:
        path.write_bytes(described)
        path.with_suffix(".safetensors").write_bytes(values)
    assert not refused or path.stem in refused
