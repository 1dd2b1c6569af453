"""What a new adapter would take the place of, and whether it may.

In: an adapter folder that may hold something, what is to be written. Out: words for what goes, or a
refusal: an adapter of other data, or results that somebody measured, are not lost by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from era_cache.disk.files import is_companion, os_errors
from era_cache.disk.folders import restore
from era_cache.disk.json_files import from_plain, read_json
from era_cache.disk.shown import clean
from era_cache.errors import FormatError, InputError, NewerError, StoreError
from era_cache.fitting.adapter_config import FORMAT, VERSION, AdapterConfig

__all__ = ["check_target"]

_RESULTS = {"curve": "label curve", "evaluation": "evaluation"}
"""Folders within an adapter's, which outdate with it, and what they are called."""


def check_target(folder: Path, new: AdapterConfig | None, *, overwrite: bool = False) -> str:
    """Refuse to write an adapter over anything but an adapter of the same data without results.

    Args:
        folder: where it is to go.
        new: what is to be written; None where that is not known yet, and only what no option can
            replace is refused.
        overwrite: another adapter, and results, may go.

    Returns:
        What is replaced, in words; empty where nothing is.

    Raises:
        InputError: it is a file, holds other things, or what it holds would be lost.
    """
    with os_errors("reading", folder):
        restore(folder)
        if not folder.exists():
            return ""
        if not folder.is_dir():
            raise InputError(f"{folder}: this is a file; an adapter is a folder.")
        if folder.is_mount():
            raise InputError(
                f"{folder}: a file system is mounted here, and a new adapter could not take its "
                f"place in one step. Give a folder in it, such as {folder / 'adapter'}."
            )
        names = sorted(path.name for path in folder.iterdir() if not is_companion(path.name))
    if not names:
        return ""
    path = folder / "config.json"
    try:
        plain = read_json(path, FORMAT, VERSION)
    except NewerError:
        raise
    except (FormatError, StoreError) as error:
        raise InputError(
            f"{folder}: holds other files ({names[0]}, …). Give a new folder, or one that "
            "holds an adapter to replace."
        ) from error
    if new is None:
        return ""
    results = " and ".join(text for name, text in _RESULTS.items() if name in names)
    held, problem = _compared(path, plain, new)
    instead = ""
    if results and not problem:
        problem, instead = f"its {results} would be lost", " --resume keeps what is finished."
    if problem and not overwrite:
        raise InputError(
            f"{folder}: holds {held}; {problem}. Give another folder, or replace it with "
            f"--overwrite (overwrite=True in Python).{instead}"
        )
    return held + (f", and its {results}" if results else "")


def _compared(path: Path, plain: dict[str, Any], new: AdapterConfig) -> tuple[str, str]:
    """What the folder holds, and how that differs from what is to be written."""
    try:
        old = from_plain(plain, AdapterConfig, str(path))
    except FormatError:
        return "a damaged adapter", "what it was fitted on cannot be read"
    names = ", ".join(clean(one.collection.name) for one in old.fitted_on()) or "arrays"
    held = f"the adapter {clean(old.chosen)}, fitted on {names}"
    ours, theirs = _identity(old), _identity(new)
    differing = [name for name in ours if ours[name] != theirs[name]]
    return held, f"the new one has another {', '.join(differing)}" if differing else ""


def _identity(config: AdapterConfig) -> Mapping[str, Any]:
    """What makes two adapters attempts at one thing: all but the recipe and what came of it."""
    fitted = config.fitted_on()
    collections = [one.collection for one in fitted] + list(config.aligned_with)
    encoders = config.encoders or {}
    return {
        "collection": {one.name for one in collections},
        "version of the collection": {one.name: one.digest for one in collections},
        "split": [msgspec.to_builtins(one.split) for one in fitted],
        "pair of encoders": {side: one.fingerprint for side, one in encoders.items()},
        "dimension": config.dimensions,
    }
