"""Adapter folders: what is written comes back, and what is damaged or hostile is refused."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import config_of, normal
from safetensors.numpy import load, save

from era_cache.config import SplitConfig
from era_cache.disk.files import sha256_file
from era_cache.disk.tensors import read_tensors
from era_cache.errors import FingerprintError, FormatError, InputError, StoreError
from era_cache.fitting.adapter import Adapter, Hidden, References, unit
from era_cache.fitting.adapter_config import AdapterConfig, Metrics, NamedEncoder
from era_cache.fitting.adapter_folder import (
    check_fingerprints,
    load_adapter,
    load_config,
    load_held_out,
    load_metrics,
    save_adapters,
)

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


def _save(
    folder: Path,
    adapters: dict[str, Adapter],
    chosen: str,
    held_out: dict[str, np.ndarray] | None = None,
) -> None:
    encoders = {side: NamedEncoder(**entry) for side, entry in ENCODERS.items()}
    config = AdapterConfig(chosen=chosen, encoders=encoders)
    save_adapters(folder, adapters, config, Metrics(primary="RR"), "# A card\n", held_out)


@pytest.fixture
def full(tmp_path) -> Path:
    """A folder whose chosen adapter, ``era-dual``, has everything."""
    adapters = {**_adapters(), "era-dual": _full()}
    _save(tmp_path / "full", adapters, "era-dual")
    return tmp_path / "full"


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "adapter"
    _save(path, _adapters(), "era-dual")
    return path


def _edit(path: Path, change: Callable[[dict], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def _replace_chosen(folder: Path, data: bytes) -> None:
    """Put other bytes where the chosen tensors are, and make the digest agree."""
    path = folder / "adapter.safetensors"
    path.write_bytes(data)
    _edit(
        folder / "config.json",
        lambda c: c["candidates"]["era-dual"].update(sha256=sha256_file(path)),
    )


# The folder


def test_every_candidate_comes_back_as_it_was(folder) -> None:
    for name, adapter in _adapters().items():
        if name == "era-dual":
            continue
        read = load_adapter(folder, name)
        assert read.views == adapter.views
        assert torch.equal(read.weight, adapter.weight)
        assert (read.bias is None) == (adapter.bias is None)
    assert torch.equal(load_adapter(folder, "paper").bias, _adapters()["paper"].bias)


def test_without_a_name_the_chosen_candidate_is_read(folder) -> None:
    assert torch.equal(load_adapter(folder).weight, _adapters()["era-dual"].weight)
    assert torch.equal(load_adapter(folder, "era-dual").weight, load_adapter(folder).weight)


def test_the_folder_holds_what_the_format_says(folder) -> None:
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "config.json",
        "metrics.json",
        "README.md",
        "adapter.safetensors",
        *(f"candidates/{name}.safetensors" for name in _adapters()),
    }
    config = config_of(folder)
    assert (config["format"], config["version"], config["chosen"]) == ("era-adapter", 1, "era-dual")
    entry = config["candidates"]["era-dual"]
    assert entry["views"] == ["small", "large"]
    assert entry["bias"] is False
    assert entry["shape"] == [3, 8]
    chosen = folder / "adapter.safetensors"
    assert entry["sha256"] == sha256_file(chosen)
    assert chosen.read_bytes() == (folder / "candidates/era-dual.safetensors").read_bytes()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == {"format": "era-metrics", "version": 1, "primary": "RR"}
    assert (folder / "README.md").read_text() == "# A card\n"


def test_saving_again_replaces_the_adapter(folder) -> None:
    other = Adapter(("small",), 2 * torch.eye(3))
    _save(folder, {"small": other}, "small")
    assert torch.equal(load_adapter(folder).weight, other.weight)
    with pytest.raises(FormatError, match="no candidate 'paper'"):
        load_adapter(folder, "paper")


def test_a_fit_that_cannot_be_written_keeps_the_adapter_that_was_there(folder, monkeypatch) -> None:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def fail(*_args: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr("era_cache.fitting.adapter_folder.write_json", fail)
    with pytest.raises(StoreError, match="disk full"):
        _save(folder, _adapters(), "small")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_new_adapter_outdates_curve_and_evaluation_and_leaves_other_files(folder) -> None:
    for name in ("curve/10/config.json", "evaluation/report.html", "notes/mine.txt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
    _save(folder, _adapters(), "small")
    assert not (folder / "curve").exists()
    assert not (folder / "evaluation").exists()
    assert (folder / "notes" / "mine.txt").read_text() == "x"
    assert load_config(folder).chosen == "small"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
def test_an_exchange_that_fails_leaves_the_old_folder_with_everything_in_it(
    folder, monkeypatch, error
) -> None:
    (folder / "notes.txt").write_text("mine")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    rename = Path.replace

    def fail(path: Path, target: Path) -> Path:
        # Only the step that puts the new folder in place.
        if target == folder and not path.name.endswith("-old"):
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        _save(folder, _adapters(), "small")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "adapter",
    [
        _full(),
        _full()._replace(references=()),
        _full()._replace(hidden=None),
        _full()._replace(references=_full().references[1:], bias=None),
        Adapter(("large",), normal(3, 5), references=_full().references[:1]),
    ],
    ids=["full", "hidden", "references", "memory", "large"],
)
def test_hidden_layer_and_references_come_back_as_they_were(tmp_path, adapter) -> None:
    _save(tmp_path / "x", {"era": adapter}, "era")
    read = load_adapter(tmp_path / "x")
    assert read.views == adapter.views
    assert torch.equal(read.weight, adapter.weight)
    assert (read.bias is None) == (adapter.bias is None)
    assert (read.hidden is None) == (adapter.hidden is None)
    for mine, theirs in zip(read.hidden or (), adapter.hidden or (), strict=True):
        assert torch.equal(mine, theirs)
    assert len(read.references) == len(adapter.references)
    for mine, theirs in zip(read.references, adapter.references, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)
        plain = {"keys": None, "values": None}
        assert mine._replace(**plain) == theirs._replace(**plain)
    views = {"small": normal(4, 3, seed=8), "large": normal(4, 5, seed=9)}
    assert torch.equal(read.apply(views), adapter.apply(views))


def test_the_description_of_a_full_adapter(full) -> None:
    entry = config_of(full)["candidates"]["era-dual"]
    assert entry["hidden"] == 6
    assert entry["references"] == [
        {
            "view": "large",
            "entries": 7,
            "temperature": 0.05,
            "step": 0.5,
            "steps": 2,
            "contrast": True,
        },
        {
            "view": "small",
            "entries": 4,
            "temperature": 0.1,
            "step": 0.25,
            "steps": 1,
            "contrast": False,
        },
    ]


def test_version_1_is_written_unless_a_candidate_needs_version_2(folder, full, tmp_path) -> None:
    assert load_config(folder).version == 1
    assert load_config(full).version == 2
    # Also where only a candidate that is not chosen needs it.
    for needs in (_full()._replace(hidden=None), _full()._replace(references=())):
        adapters = {**_adapters(), "era": needs}
        _save(tmp_path / "x", adapters, "small")
        assert load_config(tmp_path / "x").version == 2


def test_an_adapter_of_version_1_is_still_read(tmp_path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    bias = np.array([0.5, -1], dtype=np.float32)
    tensors = save({"weight": weight, "bias": bias})
    (tmp_path / "candidates").mkdir()
    for name in ("adapter.safetensors", "candidates/paper.safetensors"):
        (tmp_path / name).write_bytes(tensors)
    entry = {
        "views": ["large"],
        "bias": True,
        "shape": [2, 3],
        "sha256": sha256_file(tmp_path / "adapter.safetensors"),
    }
    record = {
        "format": "era-adapter",
        "version": 1,
        "chosen": "paper",
        "candidates": {"paper": entry},
    }
    (tmp_path / "config.json").write_text(json.dumps(record))
    adapter = load_adapter(tmp_path)
    assert adapter.views == ("large",)
    assert adapter.weight.tolist() == weight.tolist()
    assert adapter.bias.tolist() == bias.tolist()
    assert adapter.hidden is None
    assert adapter.references == ()


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


def test_held_out_values_come_back(tmp_path) -> None:
    _save(tmp_path / "x", _adapters(), "small", HELD_OUT)
    found = load_held_out(tmp_path / "x", list(HELD_OUT))
    assert {name: values.tolist() for name, values in found.items()} == {
        name: values.tolist() for name, values in HELD_OUT.items()
    }
    # An adapter without such values takes their place.
    _save(tmp_path / "x", _adapters(), "small")
    assert load_held_out(tmp_path / "x", list(HELD_OUT)) is None


@pytest.mark.parametrize("names", [["small.0"], ["small.0", "small.1", "era.0"], ["small.0", "x"]])
def test_held_out_values_of_other_names_are_refused(tmp_path, names) -> None:
    _save(tmp_path / "x", _adapters(), "small", HELD_OUT)
    with pytest.raises(FormatError, match=r"held-out\.safetensors: tensors"):
        load_held_out(tmp_path / "x", names)


def test_damaged_held_out_values_are_refused(tmp_path) -> None:
    _save(tmp_path / "x", _adapters(), "small", HELD_OUT)
    path = tmp_path / "x" / "held-out.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="not a valid safetensors file"):
        load_held_out(tmp_path / "x", list(HELD_OUT))


def test_a_strided_weight_is_saved_by_value(tmp_path) -> None:
    weight = normal(5, 3).T
    _save(tmp_path, {"small": Adapter(("large",), weight)}, "small")
    assert torch.equal(load_adapter(tmp_path).weight, weight)


# What is refused


def test_a_changed_byte_is_refused(folder) -> None:
    path = folder / "adapter.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"adapter\.safetensors: content and config"):
        load_adapter(folder)


def test_swapped_candidates_are_refused(folder) -> None:
    shutil.copy(folder / "candidates/small.safetensors", folder / "candidates/small+.safetensors")
    with pytest.raises(FormatError, match=r"content and config\.json differ"):
        load_adapter(folder, "small+")


def test_a_missing_tensor_file_is_reported(folder) -> None:
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(StoreError, match=r"adapter\.safetensors"):
        load_adapter(folder)


WEIGHT = np.ones((3, 8), dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": WEIGHT, "more": WEIGHT}, "expected float32"),
        ({"other": WEIGHT}, "expected float32"),
        ({"weight": WEIGHT, "bias": WEIGHT[:, 0].copy()}, "expected float32"),
        ({"weight": WEIGHT.astype(np.float64)}, "F64"),
        ({"weight": WEIGHT.astype(np.float16)}, "F16"),
        ({"weight": np.where(np.eye(3, 8) > 0, np.nan, WEIGHT)}, "not finite"),
        ({"weight": np.where(np.eye(3, 8) > 0, np.inf, WEIGHT)}, "not finite"),
        ({"weight": WEIGHT.T.copy()}, "shapes differ"),
        ({"weight": WEIGHT.reshape(1, 3, 8)}, "shapes differ"),
        ({"weight": WEIGHT.reshape(24)}, "shapes differ"),
    ],
    ids=str,
)
def test_other_tensors_than_described_are_refused(folder, tensors, message) -> None:
    tensors = {n: t.astype(np.float32) if "finite" in message else t for n, t in tensors.items()}
    _replace_chosen(folder, save(tensors))
    with pytest.raises(FormatError, match=message):
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
        (_file(b"{"), "not a valid"),
        (_file(b"[]"), "no JSON object"),
        (_file(b'"weight"'), "no JSON object"),
        (_file(b"\xff\xfe"), "not a valid"),
        (_file(b'{"weight": 3}'), "not a valid"),
        (_file(b'{"weight": {}}'), "not a valid"),
        (_file(b'{"weight": {"dtype": ["F32"]}}'), "not a valid"),
        (_file(b"[" * 60000), "not a valid"),
        (_file(_header(shape=[2], data_offsets=[0, 800]), b"\0" * 8), "not a valid"),
        (_file(_header(shape=[1 << 40], data_offsets=[0, 8]), b"\0" * 8), "not a valid"),
        (_file(_header(shape=[2], data_offsets=[0, 8]), b"\0" * 9), "not a valid"),
        (_file(_header(shape=[-2], data_offsets=[0, 8]), b"\0" * 8), "not a valid"),
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


def _entry(name: str, value: object) -> Callable[[dict], object]:
    return lambda config: config["candidates"]["era-dual"].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=3), "version"),
        (lambda c: c.update(format="era-store"), "era-store|era-adapter"),
        (lambda c: c.pop("candidates"), "damaged: no chosen candidate"),
        (lambda c: c.update(candidates=[]), "damaged"),
        (lambda c: c.update(chosen="nobody"), "no chosen candidate"),
        (lambda c: c["candidates"].update({"era-dual": None}), "damaged"),
        (lambda c: c["candidates"]["era-dual"].pop("sha256"), "damaged"),
        (_entry("views", 3), "damaged"),
        (_entry("shape", None), "damaged"),
        (_entry("views", []), "unknown views"),
        (_entry("views", ["small", "small"]), "unknown views"),
        (_entry("views", ["other"]), "unknown views"),
        (_entry("shape", [8, 3]), "shapes differ"),
        (_entry("bias", True), "expected float32"),
        (_entry("sha256", "0" * 64), "content and config.json differ"),
    ],
)
def test_unsound_configurations_are_refused(folder, change, message) -> None:
    _edit(folder / "config.json", change)
    with pytest.raises(FormatError, match=message):
        load_adapter(folder)


INFINITE = float("inf")


def _reference(**changes: object) -> Callable[[dict], object]:
    """Change what ``config.json`` says of the first reference table."""
    return lambda config: config["candidates"]["era-dual"]["references"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_entry("hidden", 5), "shapes differ"),
        (_entry("hidden", -6), "damaged"),
        (_entry("hidden", 10**30), "shapes differ"),
        (_entry("hidden", 0), "expected float32"),
        (_entry("hidden", None), "damaged"),
        (_entry("hidden", [6]), "damaged"),
        (_entry("hidden", "many"), "damaged"),
        (_entry("hidden", INFINITE), "not valid JSON"),
        (_entry("hidden", float("nan")), "not valid JSON"),
        (_entry("references", []), "expected float32"),
        (_entry("references", None), "damaged"),
        (_entry("references", 2), "damaged"),
        (_entry("references", [None, None]), "damaged"),
        (_entry("references", {"view": "large"}), "damaged"),
        (_entry("views", ["small"]), "references of a view it does not read"),
        (_reference(view="medium"), "references of a view it does not read"),
        (_reference(view=None), "damaged"),
        (_reference(entries=6), "shapes differ"),
        (_reference(entries=10**12), "shapes differ"),
        (_reference(entries=-7), "damaged"),
        (_reference(entries=0), "damaged"),
        (_reference(entries=INFINITE), "not valid JSON"),
        (_reference(entries=None), "damaged"),
        (_reference(temperature=0), "damaged"),
        (_reference(temperature=-0.05), "damaged"),
        (_reference(temperature=float("nan")), "not valid JSON"),
        (_reference(temperature=INFINITE), "not valid JSON"),
        (_reference(temperature=10**400), "damaged"),
        (_reference(step=-0.5), "damaged"),
        (_reference(step=float("nan")), "not valid JSON"),
        (_reference(step=INFINITE), "not valid JSON"),
        (_reference(step="big"), "damaged"),
        (_reference(steps=0), "damaged"),
        (_reference(steps=-1), "damaged"),
        (_reference(steps=10**9), "damaged"),
        (_reference(steps=INFINITE), "not valid JSON"),
    ],
)
def test_unsound_descriptions_of_references_are_refused(full, change, message) -> None:
    assert len(load_adapter(full).references) == 2
    _edit(full / "config.json", change)
    with pytest.raises(FormatError, match=message):
        load_adapter(full)


def test_references_that_do_not_fit_their_view_are_refused(full) -> None:
    _edit(full / "config.json", _reference(view="small"))
    with pytest.raises(FormatError, match="shapes differ"):
        load_adapter(full)


def test_version_1_has_no_references(full) -> None:
    _edit(full / "config.json", lambda c: c.update(version=1))
    with pytest.raises(FormatError, match="version 1 has no"):
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


@pytest.mark.parametrize("missing", ["view", "entries", "temperature", "step", "steps", "contrast"])
def test_an_incomplete_description_of_references_is_refused(full, missing) -> None:
    _edit(
        full / "config.json",
        lambda c: c["candidates"]["era-dual"]["references"][0].pop(missing),
    )
    with pytest.raises(FormatError, match="damaged"):
        load_adapter(full)


def _without(name: str) -> Callable[[dict], object]:
    return lambda tensors: tensors.pop(name)


def _with(name: str, *shape: int) -> Callable[[dict], object]:
    return lambda tensors: tensors.update({name: np.ones(shape, dtype=np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((_without(f"hidden.{part}"), "expected float32") for part in Hidden._fields),
        (_without("references.0.keys"), "expected float32"),
        (_without("references.1.values"), "expected float32"),
        (_with("references.2.keys", 7, 5), "expected float32"),
        (_with("hidden.more", 6), "expected float32"),
        (_with("hidden.weight", 6, 7), "shapes differ"),
        (_with("hidden.weight", 5, 8), "shapes differ"),
        (_with("hidden.bias", 6, 1), "shapes differ"),
        (_with("hidden.bias", 1), "shapes differ"),
        (_with("hidden.output", 6, 3), "shapes differ"),
        (_with("bias", 1), "shapes differ"),
        (_with("references.0.keys", 6, 5), "shapes differ"),
        (_with("references.0.keys", 7, 9), "shapes differ"),
        (_with("references.0.keys", 7, 0), "shapes differ"),
        (_with("references.0.keys", 35), "shapes differ"),
        (_with("references.0.keys", 7, 5, 1), "shapes differ"),
        (_with("references.0.values", 7, 4), "shapes differ"),
        (_with("references.0.values", 1, 3), "shapes differ"),
        (_with("weight", 24), "shapes differ"),
        (
            lambda t: t.update({"references.0.keys": np.full((7, 5), np.nan, dtype=np.float32)}),
            "not finite",
        ),
    ],
)
def test_other_hidden_layers_or_references_than_described_are_refused(
    full, change, message
) -> None:
    tensors = load(full.joinpath("adapter.safetensors").read_bytes())
    change(tensors)
    _replace_chosen(full, save(tensors))
    with pytest.raises(FormatError, match=message):
        load_adapter(full)


@pytest.mark.parametrize("chosen", [[], {}, 3, None])
def test_a_chosen_candidate_that_is_no_name_is_refused(folder, chosen) -> None:
    _edit(folder / "config.json", lambda c: c.update(chosen=chosen))
    with pytest.raises(FormatError, match="damaged"):
        load_config(folder)


@pytest.mark.parametrize("name", ["../../secret", "a/b", "/etc/x", "..", ""])
def test_a_candidate_whose_name_is_a_path_is_refused(folder, name) -> None:
    outside = folder.parent / "secret.safetensors"
    shutil.copy(folder / "candidates/small.safetensors", outside)
    _edit(
        folder / "config.json",
        lambda c: c["candidates"].update({name: c["candidates"]["small"]}),
    )
    if not name:  # as good as no name: the chosen one
        assert load_adapter(folder, name).views == ("small", "large")
        return
    with pytest.raises(FormatError, match="not a plain name"):
        load_adapter(folder, name)


def test_an_unknown_candidate_is_refused_with_those_that_are_there(folder) -> None:
    with pytest.raises(FormatError, match=r"no candidate 'era'; it has \['era-dual', 'paper'"):
        load_adapter(folder, "era")


def test_vectors_of_the_expected_encoders_are_accepted(folder) -> None:
    given = {side: str(entry["fingerprint"]) for side, entry in ENCODERS.items()}
    check_fingerprints(folder, load_config(folder), given)


@pytest.mark.parametrize("side", list(ENCODERS))
def test_vectors_of_another_encoder_are_refused_by_side_and_name(folder, side) -> None:
    given = {s: str(e["fingerprint"]) for s, e in ENCODERS.items()} | {side: "d" * 64}
    name, mine = ENCODERS[side]["name"], str(ENCODERS[side]["fingerprint"])[:12]
    words = side.replace("_", " ")
    message = rf"{words} side expects {name} \(fingerprint {mine}\).*fingerprint {'d' * 12}\. Fit"
    with pytest.raises(FingerprintError, match=message):
        check_fingerprints(folder, load_config(folder), given)


def test_a_side_that_the_adapter_does_not_name_is_refused(folder) -> None:
    with pytest.raises(FingerprintError, match="align side"):
        check_fingerprints(folder, load_config(folder), {"align": "a" * 64})
