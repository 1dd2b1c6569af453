"""What results say of how they were made, read back as options.

In: the head of results, which anyone may have written. Out: the options of the run that made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from era_cache.collection.config import SplitConfig
from era_cache.errors import FormatError
from era_cache.evaluate.protocols import PROTOCOLS
from era_cache.evaluate.results import Results
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.settings import recorded_recipe
from era_cache.rank.measures import Measure, parse_measure
from era_cache.store.open_store import place_of
from era_cache.types import Where

__all__ = [
    "RecordedOptions",
    "recorded_options",
    "recorded_split",
]


class RecordedOptions(NamedTuple):
    """What results say of how they were made, as ``run_protocol`` and ``evaluate_folder`` take it.

    ``collections`` are names with versions.
    """

    store: Where
    adapter: Path | None
    others: list[Path]
    runs: dict[str, Path]
    collections: list[str]
    measures: list[Measure]
    device: str | None
    encoders: dict[str, str]
    split: SplitConfig
    recipe: FitConfig | PaperConfig
    documents: bool
    index_kind: str


def recorded_options(
    file: Path, then: Results, store: Where | None, adapter: Path | None
) -> RecordedOptions:
    """Read the options of a head.

    Raises:
        FormatError: they are incomplete or damaged.
    """
    options, head = then.head.configuration, then.head
    if head.protocol not in (*PROTOCOLS, "adapter"):
        raise FormatError(f"{file}: protocol {head.protocol!r} cannot be run again.")
    measured = head.protocol == "adapter"
    try:
        device = options.get("device")
        return RecordedOptions(
            store=store or place_of(_text(options["store"])),
            adapter=(adapter or Path(_text(options["adapter"]))) if measured else None,
            others=[Path(_text(other)) for other in options.get("with", [])],
            runs={name: Path(_text(run)) for name, run in options.get("run", {}).items()},
            collections=[f"{name}-{entry.digest[:12]}" for name, entry in head.collections.items()],
            measures=[parse_measure(name) for name in head.measures],
            device=None if device is None else _text(device),
            encoders={side: head.encoders[side].fingerprint for side in ("query", "document")},
            split=SplitConfig() if measured else recorded_split(options),
            recipe=FitConfig() if measured else recorded_recipe(options["recipe"]),
            documents=bool(options.get("documents", True)),
            index_kind=_text(options.get("index", "exact")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{file}: does not say how it was made: {error!r}.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def recorded_split(options: Mapping[str, Any]) -> SplitConfig:
    """Read the split of some options. Raises ``KeyError`` and ``TypeError``."""
    return SplitConfig(
        rule=_text(options["split"]),
        test=float(options["test"]),
        validation=float(options["validation"]),
        count=int(options["label_count"]),
    )
