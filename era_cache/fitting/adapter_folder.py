"""The files of adapters: safetensors and JSON (docs/format.md); nothing is unpickled.

In: fitted adapters, or a folder that may come from anyone. Out: a folder, or checked adapters.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.disk.files import os_errors, sha256_file, write_bytes
from era_cache.disk.json_files import read_json, write_json
from era_cache.disk.tensors import read_tensors
from era_cache.errors import (
    FingerprintError,
    FormatError,
    InputError,
    NewerError,
    StoreError,
)
from era_cache.fitting.adapter import VIEWS, Adapter, Hidden, References, unit
from era_cache.types import FloatArray

__all__ = [
    "OWN_FILES",
    "VIEWS",
    "Adapter",
    "check_fingerprints",
    "check_target",
    "load_adapter",
    "load_config",
    "load_held_out",
    "save_adapters",
    "unit",
]

FORMAT, VERSION = "era-adapter", 2
OWN_FILES = frozenset(
    {"README.md", "adapter.safetensors", "candidates", "config.json", "curve", "evaluation"}
    | {"held-out.safetensors", "metrics.json"}
)
_HELD_OUT = "held-out.safetensors"
_MOST_STEPS = 100
"""Steps of a reference table; more would only serve to keep a stranger's victim busy."""


def _tensors(adapter: Adapter) -> dict[str, Any]:
    tensors = {"weight": adapter.weight}
    if adapter.bias is not None:
        tensors["bias"] = adapter.bias
    if adapter.hidden is not None:
        tensors |= {f"hidden.{name}": t for name, t in adapter.hidden._asdict().items()}
    for number, table in enumerate(adapter.references):
        tensors |= {f"references.{number}.keys": table.keys}
        tensors |= {f"references.{number}.values": table.values}
    return {name: t.detach().cpu().float().contiguous().numpy() for name, t in tensors.items()}


def _description(adapter: Adapter) -> dict[str, Any]:
    """What ``config.json`` says of a candidate; the last two only where the adapter has them."""
    described: dict[str, Any] = {
        "views": list(adapter.views),
        "bias": adapter.bias is not None,
        "shape": list(adapter.weight.shape),
    }
    if adapter.hidden is not None:
        described["hidden"] = len(adapter.hidden.bias)
    if adapter.references:
        described["references"] = [
            {
                "view": table.view,
                "entries": len(table.keys),
                "temperature": table.temperature,
                "step": table.step,
                "steps": table.steps,
                "contrast": table.contrast,
            }
            for table in adapter.references
        ]
    return described


def save_adapters(
    folder: Path,
    adapters: Mapping[str, Adapter],
    chosen: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    card: str,
    held_out: Mapping[str, FloatArray] | None = None,
) -> None:
    """Write an adapter folder (docs/format.md).

    All of it is written beside the folder and put in its place at the end, together with the label
    curve and the evaluation of an older adapter, which the new one outdates.

    Args:
        folder: made where it is missing; an older adapter in it is replaced.
        adapters: every candidate by name.
        chosen: the one that is used unless another is asked for.
        config: everything but ``format``, ``version``, ``chosen`` and ``candidates``.
        metrics: content of ``metrics.json``, less its format and version.
        card: content of ``README.md``.
        held_out: values of the judging queries under each candidate, for a run that goes on later.

    Raises:
        InputError: the folder holds something other than an adapter.
        StoreError: a file cannot be written.
    """
    check_target(folder)
    folder = folder.resolve()  # behind a link, the folder is exchanged and not the link
    staging = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
    with os_errors("creating", staging):
        shutil.rmtree(staging, ignore_errors=True)
        (staging / "candidates").mkdir(parents=True)
    try:
        _write_adapters(staging, adapters, chosen, config, metrics, card, held_out or {})
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(folder: Path) -> None:
    """Refuse to write an adapter over anything but an adapter.

    Raises:
        InputError: it is a file, or a folder that holds other things.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: this is a file; an adapter is a folder.")
    with os_errors("reading", folder):
        names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    try:
        read_json(folder / "config.json", FORMAT, VERSION)
    except NewerError:
        raise
    except (FormatError, StoreError) as error:
        raise InputError(
            f"{folder}: holds other files ({names[0]}, …). Give a new folder, or one that "
            "holds an adapter to replace."
        ) from error


def _put_in_place(staging: Path, folder: Path) -> None:
    """Exchange an older adapter for the new one; files that are not ours stay where they were.

    Nothing of the old folder is deleted, and nobody's files are moved, before the new one stands.
    """
    old = staging.with_name(staging.name + "-old")
    with os_errors("replacing", folder):
        if not folder.exists():
            staging.replace(folder)
            return
        folder.replace(old)
        try:
            staging.replace(folder)
        except BaseException:
            old.replace(folder)
            raise
        for path in old.iterdir():
            if path.name not in OWN_FILES:
                path.replace(folder / path.name)
        shutil.rmtree(old, ignore_errors=True)


def _write_adapters(
    folder: Path,
    adapters: Mapping[str, Adapter],
    chosen: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    card: str,
    held_out: Mapping[str, FloatArray],
) -> None:
    from safetensors.numpy import save

    candidates = {}
    for name, adapter in adapters.items():
        path = folder / "candidates" / f"{name}.safetensors"
        write_bytes(path, save(_tensors(adapter)))
        candidates[name] = {**_description(adapter), "sha256": sha256_file(path)}
    write_bytes(folder / "adapter.safetensors", save(_tensors(adapters[chosen])))
    if held_out:
        values = {name: np.asarray(v, dtype=np.float32) for name, v in held_out.items()}
        write_bytes(folder / _HELD_OUT, save(values))
    write_json(folder / "metrics.json", {"format": "era-metrics", "version": 1, **dict(metrics)})
    write_bytes(folder / "README.md", card.encode("utf-8"))
    # Whoever reads version 1 would drop what it does not know, and serve wrong vectors.
    new = any("hidden" in entry or "references" in entry for entry in candidates.values())
    version = VERSION if new else 1
    record = {"format": FORMAT, "version": version, "chosen": chosen, "candidates": candidates}
    write_json(folder / "config.json", {**record, **dict(config)})


def load_config(folder: Path) -> dict[str, Any]:
    """Read an adapter folder's ``config.json``.

    Raises:
        FormatError: not an adapter, damaged or newer.
        StoreError: it cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FormatError(f"{folder}: not an adapter folder (no config.json). era-fit makes one.")
    config: dict[str, Any] = read_json(path, FORMAT, VERSION)
    candidates, chosen = config.get("candidates"), config.get("chosen")
    if not (isinstance(candidates, dict) and isinstance(chosen, str) and chosen in candidates):
        raise FormatError(f"{path}: no chosen candidate.")
    return config


def check_fingerprints(folder: Path, config: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Refuse vectors of other encoders than the adapter was fitted on.

    Args:
        folder: the adapter, for the message.
        config: from ``load_config``.
        given: side (``query``, ``small_query``, ``document``) to the fingerprint of the vectors.

    Raises:
        FingerprintError: one differs.
    """
    for side, fingerprint in given.items():
        expected = config.get("encoders", {}).get(side, {})
        if expected.get("fingerprint") != fingerprint:
            raise FingerprintError(
                f"{folder}: the adapter's {side.replace('_', ' ')} side expects "
                f"{expected.get('name')} (fingerprint {str(expected.get('fingerprint'))[:12]}), "
                f"but the vectors have fingerprint {fingerprint[:12]}. Fit again on these vectors, "
                "or use the store that the adapter was fitted on."
            )


def load_adapter(folder: Path, name: str | None = None) -> Adapter:
    """Read one candidate of an adapter folder.

    Args:
        folder: the adapter.
        name: of the candidate; None is the chosen one.

    Raises:
        FormatError: unknown name, damaged, hostile or newer.
        StoreError: it cannot be read.
    """
    config = load_config(folder)
    name = name or str(config["chosen"])
    entry = config["candidates"].get(name)
    if entry is None:
        raise FormatError(
            f"{folder}: no candidate '{name}'; it has {sorted(config['candidates'])}."
        )
    try:
        views = tuple(str(view) for view in entry["views"])
        shape, with_bias, digest = tuple(entry["shape"]), bool(entry["bias"]), str(entry["sha256"])
        hidden = int(entry.get("hidden", 0))
        tables = [_Table.of(table) for table in entry.get("references", [])]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{folder}: candidate '{name}' is incompletely described.") from error
    if not views or len(set(views)) != len(views) or not set(views) <= set(VIEWS):
        raise FormatError(f"{folder}: candidate '{name}' reads unknown views {views}.")
    if any(table.view not in views for table in tables):
        raise FormatError(
            f"{folder}: candidate '{name}' has references of a view it does not read."
        )
    if config["version"] == 1 and (hidden or tables):
        raise FormatError(f"{folder}: version 1 has no hidden layer and no references.")
    chosen = name == config["chosen"]
    path = folder / ("adapter.safetensors" if chosen else f"candidates/{_plain(name)}.safetensors")
    with os_errors("reading", path):
        if sha256_file(path) != digest:
            raise FormatError(f"{path}: content and config.json differ; damaged. Fit it again.")
    names = {"weight"} | ({"bias"} if with_bias else set())
    names |= {f"hidden.{part}" for part in Hidden._fields} if hidden else set()
    names |= {f"references.{i}.{part}" for i in range(len(tables)) for part in ("keys", "values")}
    tensors = read_tensors(path, names)
    _check_shapes(path, tensors, shape, hidden, tables, views)
    return _assembled(views, tensors, bool(hidden), tables)


class _Table(NamedTuple):
    """How ``config.json`` describes a reference table."""

    view: str
    entries: int
    temperature: float
    step: float
    steps: int
    contrast: bool

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Table:
        """Read one. Raises KeyError, TypeError, ValueError, OverflowError otherwise."""
        table = cls(
            str(entry["view"]),
            int(entry["entries"]),
            float(entry["temperature"]),
            float(entry["step"]),
            int(entry["steps"]),
            bool(entry["contrast"]),
        )
        sound = 0 < table.temperature < math.inf and 0 <= table.step < math.inf
        if not (sound and 1 <= table.steps <= _MOST_STEPS and table.entries >= 1):
            raise ValueError(f"impossible {table}")
        return table


def _check_shapes(
    path: Path,
    tensors: Mapping[str, FloatArray],
    shape: tuple[int, ...],
    hidden: int,
    tables: Sequence[_Table],
    views: Sequence[str],
) -> None:
    """Compare every tensor's shape with what the configuration says and the others need."""
    weight = tensors["weight"]
    expected: dict[str, tuple[int, ...]] = {"weight": shape}
    if weight.ndim == 2:
        d_out, d_in = weight.shape
        expected |= {"bias": (d_out,), "hidden.weight": (hidden, d_in)}
        expected |= {"hidden.bias": (hidden,), "hidden.output": (d_out, hidden)}
        for number, table in enumerate(tables):
            keys = tensors[f"references.{number}.keys"]
            # The small view has the documents' dimensions; the large one has what is left.
            widths = {"small": d_out, "large": d_in - d_out * ("small" in views)}
            width = widths[table.view] if keys.ndim == 2 else -1
            expected[f"references.{number}.keys"] = (table.entries, width)
            expected[f"references.{number}.values"] = (table.entries, d_out)
    if weight.ndim != 2 or any(t.shape != expected[name] for name, t in tensors.items()):
        raise FormatError(f"{path}: shapes differ from config.json.")


def _assembled(
    views: tuple[str, ...],
    tensors: Mapping[str, FloatArray],
    with_hidden: bool,
    tables: Sequence[_Table],
) -> Adapter:
    import torch

    parts = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    hidden = Hidden(*(parts[f"hidden.{part}"] for part in Hidden._fields)) if with_hidden else None
    references = tuple(
        References(
            table.view,
            parts[f"references.{number}.keys"],
            parts[f"references.{number}.values"],
            table.temperature,
            table.step,
            table.steps,
            table.contrast,
        )
        for number, table in enumerate(tables)
    )
    return Adapter(views, parts["weight"], parts.get("bias"), hidden, references)


def load_held_out(folder: Path, names: Sequence[str]) -> dict[str, FloatArray] | None:
    """Values of the judging queries that ``save_adapters`` was given, None where there are none.

    Raises:
        FormatError: damaged or hostile.
        StoreError: it cannot be read.
    """
    path = folder / _HELD_OUT
    return read_tensors(path, set(names)) if path.is_file() else None


def _plain(name: str) -> str:
    if not name.replace("-", "").replace("+", "").replace("_", "").isalnum():
        raise FormatError(f"candidate name {name!r} is not a plain name.")
    return name
