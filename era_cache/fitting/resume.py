"""What an interrupted fit left in its folder, for the run that goes on.

In: an adapter folder, what is fitted now. Out: candidates that need no fitting again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from era_cache.disk.json_files import canonical_json
from era_cache.errors import FormatError, InputError
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.adapter_folder import (
    load_adapter,
    load_config,
    load_held_out,
    load_metrics,
)
from era_cache.fitting.candidates import UNTRAINED
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.recipes import parts_of
from era_cache.fitting.tensors import FitData

__all__ = ["left_by"]

_SAME = (
    "collection",
    "collections",
    "aligned_with",
    "split",
    "encoders",
    "recipe",
    "alignment_documents",
)
"""Fields of ``config.json`` that a run which goes on must share with the one before."""


def left_by(
    folder: Path,
    data: Sequence[FitData],
    config: AdapterConfig,
    recipe: FitConfig | PaperConfig,
    candidate: str,
) -> tuple[dict[str, Fitted], bool]:
    """Candidates that an interrupted run left, and whether it had left none out after all.

    Args:
        folder: of the adapter.
        data: what is fitted on.
        config: what the folder must say of that.
        recipe: how it is fitted.
        candidate: which one is to ship, or ``auto``.

    Raises:
        InputError: another command made the folder.
        FormatError: it is damaged.
    """
    # To join a first stage takes the held-out queries as mapped, which no folder has.
    if isinstance(recipe, PaperConfig) or any(map(_has_lists, data)):
        return {}, False
    counts = [len(part.labels.judges) for part in parts_of(data, recipe)]
    ready = _interrupted(folder, config, counts)
    if not ready or load_metrics(folder).missing:
        return ready, False
    return ready, candidate in ("auto", load_config(folder).chosen)


def _has_lists(data: FitData) -> bool:
    return any(queries.first is not None for queries in (data.train, data.validation))


def _interrupted(folder: Path, config: AdapterConfig, judges: Sequence[int]) -> dict[str, Fitted]:
    """The trained candidates of an interrupted run on the same data with the same recipe.

    ``judges`` counts the judging queries of each collection.
    """
    if not (folder / "config.json").is_file():
        return {}
    old, metrics = load_config(folder), load_metrics(folder)
    differing = [part for part in _SAME if _plain(old, part) != _plain(config, part)]
    if differing:
        raise InputError(
            f"{folder}: fitted with another {', '.join(differing)}; --resume goes on with the same "
            "command only. Leave it out to fit again."
        )
    done = [name for name in old.candidates if name not in (*UNTRAINED, "paper")]
    fields = [f"{name}.{i}" for name in old.candidates for i in range(len(judges))]
    values = load_held_out(folder, fields) or {}
    whole = values and all(
        values[f"{name}.{i}"].shape == (count,) for name in done for i, count in enumerate(judges)
    )
    if not whole or not set(done) <= set(metrics.candidates):
        raise FormatError(f"{folder}: cannot be resumed from; leave --resume out to fit again.")
    return {
        name: Fitted(
            load_adapter(folder, name),
            tuple(values[f"{name}.{i}"].astype(np.float64) for i in range(len(judges))),
            dict(metrics.candidates[name].options),
        )
        for name in done
    }


def _plain(config: AdapterConfig, part: str) -> bytes:
    return canonical_json(msgspec.to_builtins(getattr(config, part)))
