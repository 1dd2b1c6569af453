"""How many dimensions a sentence-transformers model's vectors have, by its configuration files.

In: a model folder. Out: a number, or None where only loading the model could tell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["model_width"]

_HEADER_LIMIT = 1 << 24


def model_width(folder: Path, truncate_dim: int | None = None) -> int | None:
    """Values of a vector, as far as the files of the model's modules say it.

    Args:
        folder: of the model.
        truncate_dim: leading dimensions kept; None keeps all.
    """
    width: int | None = None
    try:
        for module in json.loads((folder / "modules.json").read_bytes()):
            place, kind = folder / str(module["path"]), str(module["type"]).rpartition(".")[2]
            if kind != "Normalize":
                reader = _READERS.get(kind)
                width = reader(place) if reader else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # A check before the model itself is asked: what it cannot read, it does not judge.
        return None
    if width is None or truncate_dim is None:
        return width
    return min(width, truncate_dim)


def _pooling(place: Path) -> int:
    config = json.loads((place / "config.json").read_bytes())
    modes = config.get("pooling_mode")
    if modes is None:
        flags = [v for k, v in config.items() if k.startswith("pooling_mode_")]
        count = sum(flag is True for flag in flags)
    else:
        count = 1 if isinstance(modes, str) else len(modes)
    width = config.get("embedding_dimension") or config["word_embedding_dimension"]
    return int(width) * max(count, 1)


def _dense(place: Path) -> int:
    return int(json.loads((place / "config.json").read_bytes())["out_features"])


def _static(place: Path) -> int | None:
    """The second dimension of the only tensor; a safetensors file begins with its header."""
    with (place / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size)) if size <= _HEADER_LIMIT else {}
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return int(shapes[0][1]) if len(shapes) == 1 and len(shapes[0]) == 2 else None


_READERS = {"Pooling": _pooling, "Dense": _dense, "StaticEmbedding": _static}
