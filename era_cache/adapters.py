"""Adapters: linear maps from query views into the document space, and their files.

In: unit-length query vectors of one or two encoders. Out: unit-length vectors that are searched in
the existing index. Files are safetensors and JSON (docs/format.md); nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.errors import FingerprintError, FormatError
from era_cache.files import os_errors, read_json, sha256_file, write_bytes, write_json
from era_cache.types import FloatArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "OWN_FILES",
    "VIEWS",
    "Adapter",
    "check_fingerprints",
    "load_adapter",
    "load_config",
    "read_tensors",
    "save_adapters",
    "unit",
]

FORMAT, VERSION = "era-adapter", 1
VIEWS = ("large", "small")
OWN_FILES = frozenset(
    {"README.md", "adapter.safetensors", "candidates", "config.json", "curve", "evaluation"}
    | {"metrics.json"}
)
_TENSOR_LIMIT = 1 << 32
_HEADER_LIMIT = 1 << 16


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale each row of (n, d) to unit length; the one place where vectors are normalised."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=1, eps=1e-12)


class Adapter(NamedTuple):
    """A linear map of one or more query views into the document space.

    ``views`` are names from ``VIEWS``, concatenated in this order; ``weight`` is (d_out, d_in)
    float32, ``bias`` (d_out,) float32 or None.
    """

    views: tuple[str, ...]
    weight: torch.Tensor
    bias: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Adapter:
        """The same adapter with its tensors on a device."""
        bias = None if self.bias is None else self.bias.to(device)
        return Adapter(self.views, self.weight.to(device), bias)

    def apply(self, queries: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Map queries.

        Args:
            queries: view name to (n, d_view) float32; rows are scaled to unit length here.

        Returns:
            (n, d_out) float32, unit rows.

        Raises:
            FingerprintError: a view is missing or has another dimension than the adapter expects.
        """
        import torch

        missing = [view for view in self.views if view not in queries]
        if missing:
            raise FingerprintError(
                f"The adapter reads the views {self.views}; {missing} not given."
            )
        joined = torch.cat([unit(queries[view]) for view in self.views], dim=1)
        if joined.shape[1] != self.weight.shape[1]:
            raise FingerprintError(
                f"The adapter expects {self.weight.shape[1]} input dimensions for {self.views}; "
                f"the vectors have {joined.shape[1]}. They are of other encoders."
            )
        mapped = joined @ self.weight.T
        return unit(mapped if self.bias is None else mapped + self.bias)


def _tensors(adapter: Adapter) -> dict[str, Any]:
    tensors = {"weight": adapter.weight}
    if adapter.bias is not None:
        tensors["bias"] = adapter.bias
    return {name: t.detach().cpu().float().contiguous().numpy() for name, t in tensors.items()}


def save_adapters(
    folder: Path,
    adapters: Mapping[str, Adapter],
    chosen: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    card: str,
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

    Raises:
        StoreError: a file cannot be written.
    """
    folder = folder.resolve()  # behind a link, the folder is exchanged and not the link
    staging = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
    with os_errors("creating", staging):
        shutil.rmtree(staging, ignore_errors=True)
        (staging / "candidates").mkdir(parents=True)
    try:
        _write_adapters(staging, adapters, chosen, config, metrics, card)
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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
) -> None:
    from safetensors.numpy import save

    candidates = {}
    for name, adapter in adapters.items():
        path = folder / "candidates" / f"{name}.safetensors"
        write_bytes(path, save(_tensors(adapter)))
        candidates[name] = {
            "views": list(adapter.views),
            "bias": adapter.bias is not None,
            "shape": list(adapter.weight.shape),
            "sha256": sha256_file(path),
        }
    write_bytes(folder / "adapter.safetensors", save(_tensors(adapters[chosen])))
    write_json(
        folder / "metrics.json", {"format": "era-metrics", "version": VERSION, **dict(metrics)}
    )
    write_bytes(folder / "README.md", card.encode("utf-8"))
    record = {"format": FORMAT, "version": VERSION, "chosen": chosen, "candidates": candidates}
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
    import torch

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
    except (KeyError, TypeError) as error:
        raise FormatError(f"{folder}: candidate '{name}' is incompletely described.") from error
    if not views or len(set(views)) != len(views) or not set(views) <= set(VIEWS):
        raise FormatError(f"{folder}: candidate '{name}' reads unknown views {views}.")
    chosen = name == config["chosen"]
    path = folder / ("adapter.safetensors" if chosen else f"candidates/{_plain(name)}.safetensors")
    with os_errors("reading", path):
        if sha256_file(path) != digest:
            raise FormatError(f"{path}: content and config.json differ; damaged. Fit it again.")
    tensors = read_tensors(path, {"weight", "bias"} if with_bias else {"weight"})
    weight, bias = tensors["weight"], tensors.get("bias")
    if weight.ndim != 2 or weight.shape != shape or (bias is not None and bias.shape != shape[:1]):
        raise FormatError(f"{path}: shapes differ from config.json.")
    return Adapter(
        views, torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias)
    )


def _plain(name: str) -> str:
    if not name.replace("-", "").replace("+", "").replace("_", "").isalnum():
        raise FormatError(f"candidate name {name!r} is not a plain name.")
    return name


def read_tensors(path: Path, names: set[str]) -> dict[str, FloatArray]:
    """Read a safetensors file that must hold exactly ``names``, all float32 and finite.

    Raises:
        FormatError: anything else; sizes are checked before a byte of data is read.
        StoreError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with os_errors("reading", path):
        size = path.stat().st_size
        if not 8 < size <= _TENSOR_LIMIT:
            raise FormatError(f"{path}: {size} bytes is no adapter.")
        data = path.read_bytes()
    (header_size,) = struct.unpack("<Q", data[:8])
    if header_size > min(_HEADER_LIMIT, size - 8):
        raise FormatError(f"{path}: header of {header_size} bytes.")
    try:
        header = json.loads(data[8 : 8 + header_size])
        if not isinstance(header, dict):
            raise FormatError(f"{path}: its header is no JSON object.")
        dtypes = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        if set(dtypes) != names or set(dtypes.values()) != {"F32"}:
            raise FormatError(f"{path}: tensors {dtypes}, expected float32 {sorted(names)}.")
        tensors: dict[str, FloatArray] = load(data)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise FormatError(f"{path}: not a valid safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise FormatError(f"{path}: tensor '{name}' is not finite.")
    return tensors
