"""Adapter folders: what is written comes back, and what is damaged or hostile is refused."""

from __future__ import annotations

import json
import math
import operator
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from planted import config_of, normal, read_json
from safetensors.numpy import load, save

from era_cache.collection.config import SplitConfig
from era_cache.disk import folders
from era_cache.disk.files import sha256_file, temporary_name
from era_cache.disk.tensors import read_tensors
from era_cache.errors import FingerprintError, FormatError, InputError, StoreError
from era_cache.fitting.adapter import Adapter, Fusion, Hidden, References, unit
from era_cache.fitting.adapter_config import AdapterConfig, Metrics, NamedEncoder, Table
from era_cache.fitting.adapter_folder import (
    check_fingerprints,
    load_adapter,
    load_config,
    load_held_out,
    load_metrics,
    save_adapters,
    tensors_of,
)
from era_cache.fitting.replaced import check_target

ENCODERS = {
    "query": {"name": "big", "fingerprint": "a" * 64},
    "small_query": {"name": "little", "fingerprint": "b" * 64},
    "document": {"name": "little", "fingerprint": "c" * 64},
}


def _adapters() -> dict[str, Adapter]:
    return {
        "small": Adapter(("small",), torch.eye(3)),
        "era-dual": Adapter(("small", "large"), normal(3, 8)),
        "small+": Adapter(("small",), normal(3, 3)),
        "paper": Adapter(("large",), normal(3, 5), normal(3, seed=1)),
    }


def _full() -> Adapter:
    """Everything that an adapter can have."""
    tables = (
        References("large", unit(normal(7, 5)), unit(normal(7, 3)), 0.05, 0.5, 2),
        References("small", unit(normal(4, 3)), unit(normal(4, 3)), 0.1, 0.25, contrast=False),
    )
    hidden = Hidden(normal(6, 8, seed=2), normal(6, seed=3), normal(3, 6, seed=4))
    return Adapter(("small", "large"), normal(3, 8), normal(3, seed=1), hidden, tables)


def _assert_same(one: Adapter, two: Adapter) -> None:
    def flat(adapter: Adapter) -> list[object]:
        """All that it holds, in one order."""
        tables = [part for table in adapter.references for part in table]
        return [adapter.views, adapter.weight, adapter.bias, *(adapter.hidden or ()), *tables]

    for mine, theirs in zip(flat(one), flat(two), strict=True):
        same = torch.equal if isinstance(theirs, torch.Tensor) else operator.eq
        assert same(mine, theirs)


def _save(
    folder: Path,
    adapters: dict[str, Adapter],
    chosen: str,
    held_out: dict[str, np.ndarray] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    encoders = {side: NamedEncoder(**entry) for side, entry in ENCODERS.items()}
    config = AdapterConfig(chosen=chosen, encoders=encoders)
    metrics = Metrics(primary="RR")
    save_adapters(folder, adapters, config, metrics, "# A card\n", held_out, overwrite=overwrite)
    return folder


@pytest.fixture
def full(tmp_path) -> Path:
    """A folder whose chosen adapter, ``era-dual``, has everything."""
    return _save(tmp_path / "full", {**_adapters(), "era-dual": _full()}, "era-dual")


@pytest.fixture
def folder(tmp_path) -> Path:
    return _save(tmp_path / "adapter", _adapters(), "era-dual")


def _files(folder: Path) -> dict[Path, bytes]:
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _edit(path: Path, change: Callable[[dict], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def _entry(name: str, value: object) -> Callable[[dict], object]:
    """Change what ``config.json`` says of the chosen candidate."""
    return lambda config: config["candidates"]["era-dual"].update({name: value})


def _reference(**changes: object) -> Callable[[dict], object]:
    """Change what it says of the first reference table."""
    return lambda config: config["candidates"]["era-dual"]["references"][0].update(changes)


def _incomplete(missing: str) -> Callable[[dict], object]:
    """Leave out something of the first reference table."""
    return lambda config: config["candidates"]["era-dual"]["references"][0].pop(missing)


def _replace_chosen(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Put other tensors where the chosen ones are, and make the digest agree."""
    path = folder / "adapter.safetensors"
    path.write_bytes(save(tensors))
    _edit(folder / "config.json", _entry("sha256", sha256_file(path)))


# The folder


def test_the_folder_holds_what_the_format_says(folder) -> None:
    candidates = [f"candidates/{name}.safetensors" for name in _adapters()]
    names = ["config.json", "metrics.json", "README.md", "adapter.safetensors", *candidates]
    assert set(_files(folder)) == {folder / name for name in names}
    config = config_of(folder)
    assert (config["format"], config["version"], config["chosen"]) == ("era-adapter", 1, "era-dual")
    chosen = folder / "adapter.safetensors"
    entry = {"views": ["small", "large"], "bias": False, "shape": [3, 8]}
    assert config["candidates"]["era-dual"] == entry | {"sha256": sha256_file(chosen)}
    assert chosen.read_bytes() == (folder / "candidates/era-dual.safetensors").read_bytes()
    metrics = read_json(folder / "metrics.json")
    assert metrics == {"format": "era-metrics", "version": 1, "primary": "RR"}
    assert (folder / "README.md").read_text() == "# A card\n"


def test_saving_again_replaces_the_adapter(folder) -> None:
    other = Adapter(("small",), 2 * torch.eye(3))
    _save(folder, {"small": other}, "small")
    _assert_same(load_adapter(folder), other)
    assert list(load_config(folder).candidates) == ["small"]
    assert [path.name for path in (folder / "candidates").iterdir()] == ["small.safetensors"]


def test_a_fit_that_cannot_be_written_keeps_the_adapter_that_was_there(folder, monkeypatch) -> None:
    before = _files(folder)
    failing = Mock(side_effect=StoreError("disk full"))
    monkeypatch.setattr("era_cache.fitting.adapter_folder.write_json", failing)
    with pytest.raises(StoreError, match="disk full"):
        _save(folder, _adapters(), "small")
    assert _files(folder) == before


def test_a_new_adapter_outdates_curve_and_evaluation_and_leaves_other_files(folder) -> None:
    written = set(_files(folder))
    for name in ("curve/10/config.json", "evaluation/report.html", "notes/mine.txt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
    _save(folder, _adapters(), "small", overwrite=True)
    notes = folder / "notes" / "mine.txt"
    assert set(_files(folder)) == {*written, notes}
    assert notes.read_text() == "x"
    assert load_config(folder).chosen == "small"


def test_an_adapter_that_a_killed_run_took_away_is_found_and_comes_back(folder) -> None:
    before = _files(folder)
    away = folder.with_name(temporary_name(folders._ending(folder, "old")))
    folder.rename(away)
    assert load_config(folder).chosen == "era-dual"
    assert _files(folder) == before
    folder.rename(away)
    check_target(folder, None)
    assert _files(folder) == before


@pytest.mark.parametrize(
    "adapter",
    [
        *_adapters().values(),
        _full(),
        _full()._replace(references=()),
        _full()._replace(hidden=None),
        _full()._replace(references=_full().references[1:], bias=None),
        Adapter(("large",), normal(3, 5), references=_full().references[:1]),
        Adapter(("large",), normal(5, 3).T),  # strided
    ],
    ids=[*_adapters(), "full", "hidden", "references", "memory", "large", "strided"],
)
def test_a_candidate_comes_back_as_it_was(tmp_path, adapter) -> None:
    other = Adapter(("small",), normal(3, 3, seed=7))
    _save(tmp_path / "x", {"other": other, "era": adapter}, "era")
    # Without a name, the chosen one.
    for name, expected in ((None, adapter), ("era", adapter), ("other", other)):
        _assert_same(load_adapter(tmp_path / "x", name), expected)


def test_the_description_of_a_full_adapter(full) -> None:
    entry = config_of(full)["candidates"]["era-dual"]
    assert entry["hidden"] == 6
    names = ["view", "entries", "temperature", "step", "steps", "contrast", "pull"]
    tables = [("large", 7, 0.05, 0.5, 2, True, 0.0), ("small", 4, 0.1, 0.25, 1, False, 0.0)]
    assert entry["references"] == [dict(zip(names, table, strict=True)) for table in tables]


def test_version_1_is_written_unless_a_candidate_needs_version_2(folder, full, tmp_path) -> None:
    assert load_config(folder).version == 1
    assert load_config(full).version == 2
    # Also where only a candidate that is not chosen needs it.
    for needs in (_full()._replace(hidden=None), _full()._replace(references=())):
        adapters = {**_adapters(), "era": needs}
        _save(tmp_path / "x", adapters, "small")
        assert load_config(tmp_path / "x").version == 2


def test_a_pull_is_kept_and_makes_version_3(tmp_path) -> None:
    full = _full()
    pulled = full._replace(references=tuple(t._replace(pull=0.25) for t in full.references))
    _save(tmp_path / "x", {"era-zero": pulled}, "era-zero")
    assert load_config(tmp_path / "x").version == 3
    assert [table.pull for table in load_adapter(tmp_path / "x").references] == [0.25, 0.25]
    path = tmp_path / "x" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "version": 2}))
    with pytest.raises(FormatError, match="pull from version 3 on"):
        load_config(tmp_path / "x")


def test_an_adapter_of_version_1_is_still_read(tmp_path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    bias = np.array([0.5, -1], dtype=np.float32)
    (tmp_path / "adapter.safetensors").write_bytes(save({"weight": weight, "bias": bias}))
    entry = {"views": ["large"], "bias": True, "shape": [2, 3]}
    entry["sha256"] = sha256_file(tmp_path / "adapter.safetensors")
    record = {"format": "era-adapter", "version": 1, "chosen": "paper"}
    (tmp_path / "config.json").write_text(json.dumps({**record, "candidates": {"paper": entry}}))
    expected = Adapter(("large",), torch.from_numpy(weight), torch.from_numpy(bias))
    _assert_same(load_adapter(tmp_path), expected)


def test_what_the_first_writers_left_out_or_called_otherwise_is_read(folder) -> None:
    split = {"rule": "paper", "seed": 42, "labels": 0.2, "test": 0.5, "validation": 0.1}
    split |= {"queries": {"train": 12, "validation": 6, "test": 30}, "test_digest": "e" * 64}
    named = {"collection": {"name": "toy", "digest": "f" * 64}, "split": split}
    _edit(folder / "config.json", lambda c: c.update(named, more={"of": "a later writer"}))
    (fitted,) = load_config(folder).fitted_on()
    assert fitted.split.config() == SplitConfig(labels=0.2)
    entry = {"validation": 0.5, "options": {}}
    more = {"validation_queries": 6, "candidates": {"small": entry}}
    _edit(folder / "metrics.json", lambda m: m.update(more))
    metrics = load_metrics(folder)
    assert metrics.judging_queries is None
    assert metrics.candidates["small"].validation == 0.5


HELD_OUT = {"small.0": np.array([0.0, 0.5, 1.0]), "small.1": np.array([0.25])}


@pytest.fixture
def held_out(tmp_path) -> Path:
    return _save(tmp_path / "x", _adapters(), "small", HELD_OUT)


def test_held_out_values_come_back(held_out) -> None:
    found = load_held_out(held_out, list(HELD_OUT))
    assert set(found) == set(HELD_OUT)
    for name, values in HELD_OUT.items():
        np.testing.assert_array_equal(found[name], values)
    # An adapter without such values takes their place.
    _save(held_out, _adapters(), "small")
    assert load_held_out(held_out, list(HELD_OUT)) is None


@pytest.mark.parametrize("names", [["small.0"], ["small.0", "small.1", "era.0"], ["small.0", "x"]])
def test_held_out_values_of_other_names_are_refused(held_out, names) -> None:
    with pytest.raises(FormatError, match=r"held-out\.safetensors: tensors"):
        load_held_out(held_out, names)


def test_damaged_held_out_values_are_refused(held_out) -> None:
    path = held_out / "held-out.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="not a valid safetensors file"):
        load_held_out(held_out, list(HELD_OUT))


# What is refused


def test_changed_and_swapped_candidates_are_refused(folder) -> None:
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    shutil.copy(folder / "candidates/small.safetensors", folder / "candidates/small+.safetensors")
    for name in (None, "small+"):
        with pytest.raises(FormatError, match=r"\.safetensors: content and config\.json differ"):
            load_adapter(folder, name)


def test_a_missing_tensor_file_is_reported(folder) -> None:
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(StoreError, match=r"adapter\.safetensors"):
        load_adapter(folder)


def _file(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _header(**entry: object) -> bytes:
    return json.dumps({"weight": {"dtype": "F32", **entry}}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes is no adapter"),
        (b"12345678", "8 bytes is no adapter"),
        (struct.pack("<Q", 1 << 62) + b"{}", "header of 4611686018427387904 bytes"),
        (struct.pack("<Q", 3) + b"{}", "header of 3 bytes"),
        (_file(b" " * ((1 << 16) + 1)), "header of 65537 bytes"),
        *((_file(header), "no JSON object") for header in (b"[]", b'"weight"')),
        *((_file(header), "not a valid") for header in (b"{", b"\xff\xfe", b"[" * 60000)),
        *(
            (_file(b'{"weight": %s}' % entry), "not a valid")
            for entry in (b"3", b"{}", b'{"dtype": ["F32"]}')
        ),
        *(
            (_file(_header(shape=[size], data_offsets=[0, end]), b"\0" * length), "not a valid")
            for size, end, length in ((2, 800, 8), (1 << 40, 8, 8), (2, 8, 9), (-2, 8, 8))
        ),
    ],
)
def test_hostile_tensor_files_are_refused(tmp_path, data, message) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_tensors(path, {"weight"})


def test_a_sound_tensor_file_is_read(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_file(_header(shape=[2], data_offsets=[0, 8]), struct.pack("<2f", 1, 2)))
    assert read_tensors(path, {"weight"})["weight"].tolist() == [1.0, 2.0]


def test_a_folder_without_configuration_is_no_adapter(tmp_path) -> None:
    with pytest.raises(FormatError, match=r"not an adapter folder \(no config.json\)"):
        load_adapter(tmp_path)


NO_TABLES = [None, 2, [None, None], {"view": "large"}]
DAMAGED = {
    "entries": [-7, 0, None],
    "temperature": [0, -0.05, 1e-39, 1e39, 10**400],
    "view": [None],
}
DAMAGED |= {"step": [-0.5, "big", 1e30], "steps": [0, -1, 10**9], "pull": [-0.1, 1.5, "x"]}


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("version", [lambda c: c.update(version=5)]),
        ("version 1 has no", [lambda c: c.update(version=1)]),
        ("era-store|era-adapter", [lambda c: c.update(format="era-store")]),
        ("damaged: no chosen candidate", [lambda c: c.pop("candidates")]),
        ("no chosen candidate", [lambda c: c.update(chosen="nobody")]),
        *(("damaged", [lambda c, n=no: c.update(chosen=n)]) for no in ([], {}, 3, None)),
        ("damaged", [lambda c: c.update(candidates=[])]),
        ("damaged", [lambda c: c["candidates"].update({"era-dual": None})]),
        ("damaged", [lambda c: c["candidates"]["era-dual"].pop("sha256")]),
        ("damaged", [_entry("views", 3), _entry("shape", None)]),
        ("damaged", [_entry("hidden", value) for value in (-6, None, [6], "many")]),
        ("damaged", [_entry("references", value) for value in NO_TABLES]),
        ("damaged", [_reference(**{name: v}) for name, bad in DAMAGED.items() for v in bad]),
        ("damaged", [_incomplete(name) for name in Table.__struct_fields__ if name != "pull"]),
        ("unknown views", [_entry("views", v) for v in ([], ["small", "small"], ["other"])]),
        ("references of a view it does not read", [_entry("views", ["small"])]),
        ("references of a view it does not read", [_reference(view="medium")]),
        ("shapes differ", [_entry("shape", [8, 3]), *(_entry("hidden", n) for n in (5, 10**30))]),
        ("shapes differ", [_reference(view="small")]),
        ("shapes differ", [_reference(entries=count) for count in (6, 10**12)]),
        ("expected float32", [_entry("bias", False), _entry("hidden", 0)]),
        ("expected float32", [_entry("references", [])]),
        ("content and config.json differ", [_entry("sha256", "0" * 64)]),
        # Numbers that JSON does not have.
        ("not valid JSON", [_entry("hidden", math.inf), _entry("hidden", math.nan)]),
        ("not valid JSON", [_reference(temperature=math.nan), _reference(step=math.inf)]),
    ],
)
def test_unsound_configurations_are_refused(full, message, changes) -> None:
    assert len(load_adapter(full).references) == 2
    sound = (full / "config.json").read_text()
    for change in changes:
        (full / "config.json").write_text(sound)
        _edit(full / "config.json", change)
        with pytest.raises(FormatError, match=message):
            load_adapter(full)


def test_an_adapter_is_written_over_nothing_but_an_adapter(tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "evaluation").mkdir()
    adapters = {"small": Adapter(("small",), torch.eye(2))}
    with pytest.raises(InputError, match="holds other files"):
        _save(tmp_path, adapters, "small")
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "evaluation").is_dir()


def _ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype=dtype)


def _holding(value: float, *shape: int) -> np.ndarray:
    found = _ones(*shape)
    found.flat[0] = value
    return found


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        *(("expected float32", {f"hidden.{part}": None}) for part in Hidden._fields),
        ("expected float32", {"references.0.keys": None}),
        ("expected float32", {"references.1.values": None}),
        ("expected float32", {"bias": None}),
        ("expected float32", {"weight": None, "other": _ones(3, 8)}),
        ("expected float32", {"more": _ones(3, 8)}),
        ("expected float32", {"references.2.keys": _ones(7, 5)}),
        ("expected float32", {"hidden.more": _ones(6)}),
        ("F64", {"weight": _ones(3, 8, dtype=np.float64)}),
        ("F16", {"weight": _ones(3, 8, dtype=np.float16)}),
        ("not finite", {"weight": _holding(np.nan, 3, 8)}),
        ("not finite", {"weight": _holding(np.inf, 3, 8)}),
        ("not finite", {"references.0.keys": _holding(np.nan, 7, 5)}),
        ("'weight' holds numbers above 1e\\+09", {"weight": _holding(-3e38, 3, 8)}),
        ("'hidden.output' holds numbers above", {"hidden.output": _holding(1e10, 3, 6)}),
        ("'references.1.values' has rows longer than 1", {"references.1.values": _ones(4, 3)}),
        (
            "all weights are zero",
            {
                name: 0 * _ones(*shape)
                for name, shape in {
                    "weight": (3, 8),
                    "bias": (3,),
                    "hidden.weight": (6, 8),
                    "hidden.bias": (6,),
                    "hidden.output": (3, 6),
                }.items()
            },
        ),
        *(
            ("shapes differ", {name: _ones(*shape)})
            for name, shapes in {
                "weight": [(8, 3), (1, 3, 8), (24,)],
                "bias": [(1,)],
                "hidden.weight": [(6, 7), (5, 8)],
                "hidden.bias": [(6, 1), (1,)],
                "hidden.output": [(6, 3)],
                "references.0.keys": [(6, 5), (7, 9), (7, 0), (35,), (7, 5, 1)],
                "references.0.values": [(7, 4), (1, 3)],
            }.items()
            for shape in shapes
        ),
    ],
    ids=str,
)
def test_other_tensors_than_described_are_refused(full, message, changes) -> None:
    tensors = load((full / "adapter.safetensors").read_bytes()) | changes
    _replace_chosen(full, {name: t for name, t in tensors.items() if t is not None})
    with pytest.raises(FormatError, match=message):
        load_adapter(full)


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "adapter.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "link to a device", "sparse", "folder"])
def test_what_is_no_plain_file_of_sane_size_is_refused_before_it_is_read(
    folder, name, kind
) -> None:
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 200 << 30)
    with pytest.raises((FormatError, StoreError), match=re.escape(str(folder))):
        (load_metrics if name == "metrics.json" else load_adapter)(folder)


@pytest.mark.parametrize("name", ["../../secret", "a/b", "/etc/x", ".."])
def test_a_candidate_whose_name_is_a_path_is_refused(folder, name) -> None:
    outside = folder.parent / "secret.safetensors"
    shutil.copy(folder / "candidates/small.safetensors", outside)
    _edit(
        folder / "config.json",
        lambda c: c["candidates"].update({name: c["candidates"]["small"]}),
    )
    with pytest.raises(FormatError, match="not a plain name"):
        load_adapter(folder, name)


def test_an_empty_name_is_as_good_as_none(folder) -> None:
    assert load_adapter(folder, "").views == ("small", "large")


def test_an_unknown_candidate_is_refused_with_those_that_are_there(folder) -> None:
    with pytest.raises(FormatError, match=r"no candidate 'era'; it has \['era-dual', 'paper'"):
        load_adapter(folder, "era")


GIVEN = {side: entry["fingerprint"] for side, entry in ENCODERS.items()}


def test_vectors_of_the_expected_encoders_are_accepted(folder) -> None:
    check_fingerprints(folder, load_config(folder), GIVEN)


@pytest.mark.parametrize("side", list(ENCODERS))
def test_vectors_of_another_encoder_are_refused_by_side_and_name(folder, side) -> None:
    words, name, mine = side.replace("_", " "), ENCODERS[side]["name"], GIVEN[side][:12]
    message = rf"{words} side expects {name} \(fingerprint {mine}\).*fingerprint {'d' * 12}\. Fit"
    with pytest.raises(FingerprintError, match=message):
        check_fingerprints(folder, load_config(folder), GIVEN | {side: "d" * 64})


def test_a_side_that_the_adapter_does_not_name_is_refused(folder) -> None:
    with pytest.raises(FingerprintError, match="align side"):
        check_fingerprints(folder, load_config(folder), {"align": "a" * 64})


@pytest.mark.parametrize("chosen", ["era-dual", "bm25+era-dual"])
@pytest.mark.parametrize("tables", ["same", "other settings", "none", "another"])
def test_a_joined_candidate_shares_a_file_where_its_tensors_are_the_same(
    tmp_path, tables, chosen
) -> None:
    full = _full()
    table = full.references[0]
    own = {
        "same": full.references,
        "other settings": (table._replace(step=0.125), *full.references[1:]),
        "none": (),
        "another": (table._replace(values=unit(table.values.flip(0))), *full.references[1:]),
    }[tables]
    joined = full._replace(references=own, fusion=Fusion("bm25", 0.25))
    folder = _save(tmp_path / "x", {"era-dual": full, "bm25+era-dual": joined}, chosen)
    shared = tables in ("same", "other settings")
    files = {path.name for path in (folder / "candidates").iterdir()}
    assert files == {"era-dual.safetensors"} | (set() if shared else {"bm25+era-dual.safetensors"})
    assert load_config(folder).candidates["bm25+era-dual"].fusion.of == (
        "era-dual" if shared else "bm25+era-dual"
    )
    for name, adapter in (("era-dual", full), ("bm25+era-dual", joined)):
        back = load_adapter(folder, name)
        assert tensors_of(back).keys() == tensors_of(adapter).keys()
        for key, tensor in tensors_of(adapter).items():
            np.testing.assert_array_equal(tensors_of(back)[key], tensor)
        assert [t.step for t in back.references] == [t.step for t in adapter.references]
        assert back.fusion == adapter.fusion


def test_a_first_stage_is_kept_and_makes_version_4(tmp_path) -> None:
    plain, fusion = Adapter(("small",), torch.eye(3)), Fusion("bm25", 0.25)
    _save(
        tmp_path / "x",
        {"small": plain, "bm25+small": plain._replace(fusion=fusion)},
        "bm25+small",
    )
    assert load_config(tmp_path / "x").version == 4
    assert load_adapter(tmp_path / "x").fusion == fusion
    assert load_adapter(tmp_path / "x", "small").fusion is None
    assert [path.stem for path in (tmp_path / "x" / "candidates").iterdir()] == ["small"]
    path = tmp_path / "x" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "version": 3}))
    with pytest.raises(FormatError, match="joins from version 4 on"):
        load_config(tmp_path / "x")
    for changes in ({"weight": -1}, {"run": "../x"}, {"run": ""}, {"of": "../../x"}):
        entry = config["candidates"]["bm25+small"]
        wrong = {**entry, "fusion": {**entry["fusion"], **changes}}
        candidates = {**config["candidates"], "bm25+small": wrong}
        path.write_text(json.dumps({**config, "chosen": "small", "candidates": candidates}))
        with pytest.raises(FormatError):
            load_adapter(tmp_path / "x", "bm25+small")
