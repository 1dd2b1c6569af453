"""The files of adapters: safetensors and JSON (docs/format.md); nothing is unpickled.

In: fitted adapters, or a folder that may come from anyone. Out: a folder, or checked adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from era_cache.disk.files import make_folder, os_errors, sha256_file, write_bytes
from era_cache.disk.folders import exchanged, restore
from era_cache.disk.json_files import from_plain, read_json, write_json
from era_cache.disk.tensors import read_tensors
from era_cache.errors import (
    FingerprintError,
    FormatError,
)
from era_cache.fitting.adapter import Adapter, Fusion, Hidden, References
from era_cache.fitting.adapter_config import (
    FORMAT,
    VERSION,
    AdapterConfig,
    CandidateRecord,
    FusionRecord,
    Metrics,
    Table,
)
from era_cache.fitting.candidates import unfused_name
from era_cache.fitting.replaced import check_target
from era_cache.types import FloatArray

__all__ = [
    "TABLE_SETTINGS",
    "check_fingerprints",
    "load_adapter",
    "load_config",
    "load_held_out",
    "load_metrics",
    "save_adapters",
    "tensors_of",
]

_OWN_FILES = frozenset(
    {"README.md", "adapter.safetensors", "candidates", "config.json", "curve", "evaluation"}
    | {"held-out.safetensors", "metrics.json"}
)
_HELD_OUT = "held-out.safetensors"
_LARGEST = 1e9
"""Of a weight; unit rows times it, squared and summed, stay far below what float32 holds."""
_LONGEST_REFERENCE = 1.001
TABLE_SETTINGS = ("view", "temperature", "step", "steps", "contrast", "pull")
"""What a reference table is beside its vectors."""


def tensors_of(adapter: Adapter) -> dict[str, FloatArray]:
    """Every tensor of an adapter by its name in files (docs/format.md), float32."""
    tensors = {"weight": adapter.weight}
    if adapter.bias is not None:
        tensors["bias"] = adapter.bias
    if adapter.hidden is not None:
        tensors |= {f"hidden.{name}": t for name, t in adapter.hidden._asdict().items()}
    for number, table in enumerate(adapter.references):
        tensors |= {f"references.{number}.keys": table.keys}
        tensors |= {f"references.{number}.values": table.values}
    return {name: t.detach().cpu().float().contiguous().numpy() for name, t in tensors.items()}


def _described(file: str, adapter: Adapter, digest: str) -> CandidateRecord:
    fusion = None
    if adapter.fusion is not None:
        fusion = FusionRecord(**adapter.fusion._asdict(), of=file)
    return CandidateRecord(
        views=adapter.views,
        bias=adapter.bias is not None,
        shape=(adapter.weight.shape[0], adapter.weight.shape[1]),
        hidden=0 if adapter.hidden is None else len(adapter.hidden.bias),
        references=tuple(
            Table(
                entries=len(table.keys), **{name: getattr(table, name) for name in TABLE_SETTINGS}
            )
            for table in adapter.references
        ),
        fusion=fusion,
        sha256=digest,
    )


def _same_tensors(one: Adapter, other: Adapter) -> bool:
    mine, theirs = tensors_of(one), tensors_of(other)
    same = all(np.array_equal(mine[name], theirs[name]) for name in mine.keys() & theirs.keys())
    return same and mine.keys() == theirs.keys()


def save_adapters(
    folder: Path,
    adapters: Mapping[str, Adapter],
    config: AdapterConfig,
    metrics: Metrics,
    card: str,
    held_out: Mapping[str, FloatArray] | None = None,
    *,
    overwrite: bool = False,
) -> str:
    """Write an adapter folder (docs/format.md).

    All of it is written beside the folder and put in its place at the end. The label curve and the
    evaluation of an older adapter go with it, if they may: the new one outdates them.

    Args:
        folder: made where it is missing; an older adapter of the same data in it is replaced.
        adapters: every candidate by name.
        config: what they were fitted on, and which one is used unless another is asked for.
        metrics: what held-out labels said of them.
        card: content of ``README.md``.
        held_out: values of the judging queries under each candidate, for a run that goes on later.
        overwrite: an adapter of other data, and results, may be replaced, too.

    Returns:
        What was replaced, in words; empty where nothing was.

    Raises:
        InputError: the folder holds something other than an adapter, or what may not be lost.
        StoreError: a file cannot be written.
    """
    replaced = check_target(folder, config, overwrite=overwrite)
    with exchanged(folder, _OWN_FILES) as staging:
        make_folder(staging / "candidates")
        _write_adapters(staging, adapters, config, metrics, held_out or {})
        write_bytes(staging / "README.md", card.encode("utf-8"))
    return replaced


def _write_adapters(
    folder: Path,
    adapters: Mapping[str, Adapter],
    config: AdapterConfig,
    metrics: Metrics,
    held_out: Mapping[str, FloatArray],
) -> None:
    from safetensors.numpy import save

    candidates = {}
    for name, adapter in adapters.items():
        # What a first stage joins is one file with what it joins, where it has the same tensors.
        plain = adapters.get(unfused_name(name), adapter)
        file = unfused_name(name) if _same_tensors(adapter, plain) else name
        path = folder / "candidates" / f"{file}.safetensors"
        if not path.exists():
            write_bytes(path, save(tensors_of(adapter)))
        candidates[name] = _described(file, adapter, sha256_file(path))
    write_bytes(folder / "adapter.safetensors", save(tensors_of(adapters[config.chosen])))
    if held_out:
        values = {name: np.asarray(v, dtype=np.float32) for name, v in held_out.items()}
        write_bytes(folder / _HELD_OUT, save(values))
    write_json(
        folder / "metrics.json",
        {"format": "era-metrics", "version": 1, **msgspec.to_builtins(metrics)},
    )
    version = max(map(_version_of, candidates.values()))
    config = msgspec.structs.replace(config, version=version, candidates=candidates)
    write_json(folder / "config.json", {"format": FORMAT, **msgspec.to_builtins(config)})


def _version_of(entry: CandidateRecord) -> int:
    """The first version that knows all of it: a reader of another would serve wrong vectors."""
    if entry.fusion is not None:
        return 4
    if any(table.pull for table in entry.references):
        return 3
    return 2 if entry.hidden or entry.references else 1


def load_config(folder: str | Path) -> AdapterConfig:
    """Read an adapter folder's ``config.json``.

    Raises:
        FormatError: not an adapter, damaged or newer.
        StoreError: it cannot be read.
    """
    folder = Path(folder)
    path = folder / "config.json"
    with os_errors("reading", path):
        restore(folder)
        if not path.is_file():
            raise FormatError(
                f"{folder}: not an adapter folder (no config.json). era-fit makes one."
            )
    return from_plain(read_json(path, FORMAT, VERSION), AdapterConfig, str(path))


def load_metrics(folder: Path) -> Metrics:
    """Read an adapter folder's ``metrics.json``.

    Raises:
        FormatError: damaged or newer.
        StoreError: it cannot be read.
    """
    path = folder / "metrics.json"
    return from_plain(read_json(path, "era-metrics", 1), Metrics, str(path))


def check_fingerprints(folder: Path, config: AdapterConfig, given: Mapping[str, str]) -> None:
    """Refuse vectors of other encoders than the adapter was fitted on.

    Args:
        folder: the adapter, for the message.
        config: from ``load_config``.
        given: side (``query``, ``small_query``, ``document``) to the fingerprint of the vectors.

    Raises:
        FingerprintError: one differs.
    """
    for side, fingerprint in given.items():
        expected = (config.encoders or {}).get(side)
        if expected is None or expected.fingerprint != fingerprint:
            known = "an encoder that it does not name"
            if expected is not None:
                known = f"{expected.name} (fingerprint {expected.fingerprint[:12]})"
            raise FingerprintError(
                f"{folder}: the adapter's {side.replace('_', ' ')} side expects {known}, "
                f"but the vectors have fingerprint {fingerprint[:12]}. Fit again on these vectors, "
                "or use the store that the adapter was fitted on."
            )


def load_adapter(folder: str | Path, name: str | None = None) -> Adapter:
    """Read one candidate of an adapter folder.

    Args:
        folder: the adapter.
        name: of the candidate; None is the chosen one.

    Raises:
        FormatError: unknown name, damaged, hostile or newer.
        StoreError: it cannot be read.
    """
    folder = Path(folder)
    config = load_config(folder)
    name = name or config.chosen
    entry = config.candidates.get(name)
    if entry is None:
        raise FormatError(f"{folder}: no candidate '{name}'; it has {sorted(config.candidates)}.")
    chosen = name == config.chosen
    file = name if entry.fusion is None else entry.fusion.of
    path = folder / ("adapter.safetensors" if chosen else f"candidates/{_plain(file)}.safetensors")
    names = {"weight"} | ({"bias"} if entry.bias else set())
    names |= {f"hidden.{part}" for part in Hidden._fields} if entry.hidden else set()
    tables = range(len(entry.references))
    names |= {f"references.{i}.{part}" for i in tables for part in ("keys", "values")}
    tensors = read_tensors(path, names, entry.sha256)
    _check_shapes(path, tensors, entry)
    _check_values(path, tensors)
    return _assembled(tensors, entry)


def _check_shapes(path: Path, tensors: Mapping[str, FloatArray], entry: CandidateRecord) -> None:
    """Compare every tensor's shape with what the configuration says and the others need."""
    weight = tensors["weight"]
    expected: dict[str, tuple[int, ...]] = {"weight": entry.shape}
    if weight.ndim == 2:
        d_out, d_in = weight.shape
        expected |= {"bias": (d_out,), "hidden.weight": (entry.hidden, d_in)}
        expected |= {"hidden.bias": (entry.hidden,), "hidden.output": (d_out, entry.hidden)}
        for number, table in enumerate(entry.references):
            keys = tensors[f"references.{number}.keys"]
            # The small view has the documents' dimensions; the large one has what is left.
            widths = {"small": d_out, "large": d_in - d_out * ("small" in entry.views)}
            width = widths[table.view] if keys.ndim == 2 else -1
            expected[f"references.{number}.keys"] = (table.entries, width)
            expected[f"references.{number}.values"] = (table.entries, d_out)
    if weight.ndim != 2 or any(t.shape != expected[name] for name, t in tensors.items()):
        raise FormatError(f"{path}: shapes differ from config.json.")


def _check_values(path: Path, tensors: Mapping[str, FloatArray]) -> None:
    """Refuse numbers that no fit gives, and with which float32 would overflow or say nothing."""
    for name, tensor in tensors.items():
        if name.startswith("references."):
            if np.linalg.norm(tensor, axis=1).max(initial=0) > _LONGEST_REFERENCE:
                raise FormatError(f"{path}: tensor '{name}' has rows longer than 1.")
        elif np.abs(tensor).max(initial=0) > _LARGEST:
            raise FormatError(f"{path}: tensor '{name}' holds numbers above {_LARGEST:g}.")
    if not any(tensor.any() for name, tensor in tensors.items() if "references" not in name):
        raise FormatError(f"{path}: all weights are zero; it would map every query to nothing.")


def _assembled(tensors: Mapping[str, FloatArray], entry: CandidateRecord) -> Adapter:
    import torch

    parts = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    hidden = Hidden(*(parts[f"hidden.{part}"] for part in Hidden._fields)) if entry.hidden else None
    references = tuple(
        References(
            keys=parts[f"references.{number}.keys"],
            values=parts[f"references.{number}.values"],
            **{name: getattr(table, name) for name in TABLE_SETTINGS},
        )
        for number, table in enumerate(entry.references)
    )
    fusion = None if entry.fusion is None else Fusion(entry.fusion.run, entry.fusion.weight)
    return Adapter(entry.views, parts["weight"], parts.get("bias"), hidden, references, fusion)


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
