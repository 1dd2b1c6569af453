"""Adapters as the paper's repository publishes them: a torch file of one weight and one bias.

In: such a file, and the two encoders whose vectors it maps. Out: an adapter folder. The file comes
from a stranger: it is read by torch's reader of weights only, which runs nothing.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from era_cache.disk.files import os_errors, regular_file, sha256_file
from era_cache.errors import FormatError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import (
    AdapterConfig,
    CandidateMetrics,
    FittedOn,
    Metrics,
    ModelRecord,
    NamedEncoder,
)
from era_cache.fitting.adapter_folder import save_adapters
from era_cache.fitting.sources import environment
from era_cache.store.encoder_record import EncoderSpec
from era_cache.types import Role

if TYPE_CHECKING:
    import torch

__all__ = ["import_weights", "read_weights"]

_NAMES = ("proj.weight", "proj.bias")
_LARGEST_FILE = 1 << 32
_CANDIDATE = "paper"


def read_weights(path: Path) -> Adapter:
    """Read a published adapter.

    Raises:
        FormatError: not such a file: other tensors, other shapes, values that are not finite, or
            anything but tensors in it.
        StoreError: it cannot be read.
    """
    import torch

    with os_errors("reading the weights", path), regular_file(path) as (descriptor, size):
        if size > _LARGEST_FILE:
            raise FormatError(f"{path}: larger than any adapter.")
        with open(descriptor, "rb", closefd=False) as file:
            data = io.BytesIO(file.read())
    try:
        found = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:
        # Of a hostile file torch's reader raises almost anything.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: no torch file of weights alone: {reason}") from error
    if not isinstance(found, dict) or set(found) != set(_NAMES):
        named = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise FormatError(
            f"{path}: expected {' and '.join(_NAMES)}, found {named[:200] or 'none'}."
        )
    weight, bias = (found[name] for name in _NAMES)
    _check(path, weight, bias)
    return Adapter(("large",), weight.float().contiguous(), bias.float().contiguous())


def _check(path: Path, weight: torch.Tensor, bias: torch.Tensor) -> None:
    import torch

    both = (weight, bias)
    if not all(isinstance(one, torch.Tensor) and one.is_floating_point() for one in both):
        raise FormatError(f"{path}: the values are no floating-point tensors.")
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.numel():
        shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        raise FormatError(f"{path}: expected a weight (d_out, d_in) and a bias (d_out,): {shapes}.")
    if not all(bool(torch.isfinite(one.float()).all()) for one in both):
        raise FormatError(f"{path}: has values that are not finite.")


def import_weights(
    path: Path,
    folder: Path,
    *,
    large: EncoderSpec,
    small: EncoderSpec,
    fitted_on: tuple[FittedOn, ...] = (),
    widths: tuple[int | None, int | None] = (None, None),
    overwrite: bool = False,
) -> Adapter:
    """Write an adapter folder of a published adapter.

    Args:
        path: the torch file.
        folder: to write.
        large: encoder of the queries.
        small: encoder of the documents.
        fitted_on: collections of a store with the split that is not to be measured on.
        widths: of the vectors of both, where known.
        overwrite: another adapter in the folder may be replaced.

    Raises:
        FormatError: the file is none, or of other encoders.
        InputError: the folder holds something else.
        StoreError: it cannot be written.
    """
    import torch

    adapter = read_weights(path)
    d_out, d_in = adapter.weight.shape
    for spec, known, width in ((large, widths[0], d_in), (small, widths[1], d_out)):
        if known is not None and known != width:
            raise FormatError(
                f"{path}: maps {d_in} to {d_out} dimensions, but {spec.name} has {known}. It is "
                "an adapter of another pair of models."
            )
    record = AdapterConfig(
        chosen=_CANDIDATE,
        choice_reason="published weights, compared with nothing here",
        collection=fitted_on[0].collection if fitted_on else None,
        split=fitted_on[0].split if fitted_on else None,
        collections=fitted_on if len(fitted_on) > 1 else (),
        encoders={
            "query": _named(large, Role.QUERY, d_in),
            "small_query": _named(small, Role.QUERY, d_out),
            "document": _named(small, Role.DOCUMENT, d_out),
            "align": _named(large, Role.DOCUMENT, d_in),
        },
        models={
            view: ModelRecord(identity=spec.identity, source=spec.source)
            for view, spec in (("large", large), ("small", small))
        },
        recipe={"name": "imported", "file": path.name, "sha256": sha256_file(path)},
        environment=environment(),
    )
    # Beside it today's index, which everything is compared with.
    adapters = {"small": Adapter(("small",), torch.eye(d_out)), _CANDIDATE: adapter}
    metrics = Metrics(candidates=dict.fromkeys(adapters, CandidateMetrics()))
    card = _card(path, large, small)
    save_adapters(folder, adapters, record, metrics, card, overwrite=overwrite)
    return adapter


def _named(spec: EncoderSpec, role: Role, dim: int) -> NamedEncoder:
    return NamedEncoder(
        name=spec.name,
        fingerprint=spec.fingerprint(role),
        space=spec.space,
        template=spec.templates[role],
        dim=dim,
    )


def _card(path: Path, large: EncoderSpec, small: EncoderSpec) -> str:
    return f"""# Retrieval adapter

Maps queries of {large.name} into the space of documents of {small.name}. Imported from published
weights ({path.name}): what they were trained on, and that these are the two models, is stated, not
checked.
"""
