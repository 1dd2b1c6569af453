"""Model files: where a model lies, and the digest of every file of it that loading can touch.

In: a folder or hub name. Out: the folder, its files' digests, its own prompts, how wide its vectors
are. No model is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from era_cache.disk.files import POINTER, is_companion, is_pointer, os_errors, sha256_file
from era_cache.errors import EncoderError

__all__ = ["hash_model", "locate_model", "model_config", "model_name", "model_width"]

# Files that no PyTorch encoder reads: documentation, licences, other runtimes' copies.
_IGNORED_FILES = re.compile(
    r"(^|/)\.|^eval/|(^|/)([^/]*\.(md|txt\.lock|png|jpg|svg|onnx|onnx_data|h5|msgpack|ot|xml|gguf|lock)"
    r"|LICEN[CS]E[^/]*|NOTICE[^/]*|tf_model[^/]*|flax_model[^/]*|rust_model[^/]*)$|^(onnx|openvino)/"
)
_PICKLED_TWIN = re.compile(r"(^|/)pytorch_model[^/]*\.bin$")
_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_MOST_MODEL_FILES = 10_000
_HEADER_LIMIT = 1 << 24
_PLACES = ("subfolder", "gguf_file", "cache_dir", "adapter_kwargs")
"""Arguments of loading that lead to other files than those beside the configuration."""
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@/-]{0,199}")


def model_name(model: str) -> str:
    """Name for people, and for folder names: the last part of a folder or hub name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).name or "model").strip(".-")
    return (name or "model")[:48]


def locate_model(model: str, revision: str | None) -> tuple[Path, dict[str, Any]]:
    """Find a model's folder, fetching a hub name into the hub's own cache.

    Returns:
        The folder, and where it came from (JSON; changes no fingerprint).

    Raises:
        EncoderError: there is no such model.
    """
    folder = Path(model).expanduser()
    with os_errors("reading the model", folder):
        if folder.is_dir():
            if revision:
                raise EncoderError(f"{model}: a folder has no revision '{revision}'; leave it out.")
            return folder, {"model": folder.name, "folder": str(folder.resolve())}
        if folder.exists():
            raise EncoderError(f"{model}: this is a file; a model is a folder or a hub name.")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise EncoderError(f"{model}: no such folder. Give a model folder or a hub name.")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        # The hub's library takes it for a part of a path in its cache.
        raise EncoderError(f"{model}: {revision!r} is no commit, branch or tag.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # Only what PyTorch loads; the ignored patterns mirror _IGNORED_FILES.
        ignored = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf"]
        found = snapshot_download(model, revision=revision, ignore_patterns=ignored)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = reason.rstrip(".") + "."
        raise EncoderError(
            f"{model}: no such folder, and the model hub did not give it: {reason} "
            "Check the name, or download the model elsewhere and pass its folder."
        ) from error
    return Path(found), {"model": model, "revision": Path(found).name}


def hash_model(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the model folder that loading can touch."""
    with os_errors("reading the model", folder):
        names = _model_files(folder)
        safe = {Path(name).parent for name in names if Path(name).name in _SAFE_WEIGHTS}
        modules = _module_folders(folder)
        configs = [folder / name for name in names if name.endswith("config.json")]
        if sum(_chooses_weights(path) for path in configs):  # a sum reads all of them
            safe = set()
        files = {
            name: _digest(folder / name)
            for name in names
            if not _ignored(name, modules)
            # A pickled twin of safetensors weights is never loaded.
            and not (_PICKLED_TWIN.search(name) and Path(name).parent in safe)
        }
    if not files:
        raise EncoderError(f"{folder}: no model in this folder (no modules.json or config.json).")
    if "modules.json" not in files and "config.json" not in files:
        raise EncoderError(
            f"{folder}: neither modules.json nor config.json; not a sentence-transformers or "
            "transformers model."
        )
    if any(Path(name).name == "adapter_config.json" for name in files):
        raise EncoderError(
            f"{folder}: adapter_config.json means that part of the weights lies elsewhere, where a "
            "change would go unnoticed. Merge the adapter into its base model and save the whole."
        )
    return files


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        if is_pointer(file.read(64)):
            raise EncoderError(f"{path}: {POINTER}")
    return sha256_file(path)


def _module_folders(folder: Path) -> list[str]:
    """Folders below the model's that its modules are in, each with a slash behind it.

    ``modules.json`` names them; inside of a router, ``router_config.json``.
    """
    tops = [
        str(module["path"]) for module in _records(folder / "modules.json") if module.get("path")
    ]
    found = [PurePosixPath(place) for place in tops]
    for inside in (PurePosixPath(), *found[:]):
        for record in _records(folder / inside / "router_config.json"):
            routes = record.get("structure")
            for names in routes.values() if isinstance(routes, dict) else ():
                found += [inside / str(name) for name in (names if isinstance(names, list) else ())]
    for place in found:
        if place.is_absolute() or ".." in place.parts:
            raise EncoderError(
                f"{folder}: its modules name {str(place)!r}, which leads outside the model's "
                "folder, where a change would go unnoticed. Copy it into the folder."
            )
    return [f"{place}/" for place in found]


def _records(path: Path) -> list[dict[str, Any]]:
    """The JSON object or objects of a file; none of a file that is missing or does not load."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _ignored(name: str, modules: Sequence[str]) -> bool:
    """Whether loading never reads a file; a module's folder may have any name."""
    inside = max((place for place in modules if name.startswith(place)), key=len, default="")
    rest = name.removeprefix(inside)
    return bool(_IGNORED_FILES.search(rest)) or any(map(is_companion, rest.split("/")))


def _chooses_weights(path: Path) -> bool:
    """Whether a configuration says which form of the weights is loaded; none may lead elsewhere."""
    try:
        settings = list(_settings(json.loads(path.read_bytes())))
    except (ValueError, RecursionError, TypeError):
        return False  # nor can it be loaded
    for name, value in settings:
        if value and name in ("tokenizer_name_or_path", "processor_name"):
            raise EncoderError(
                f"{path}: takes its tokenizer from elsewhere ({name}), where a change would go "
                "unnoticed. Copy the tokenizer's files into the model's folder, and remove it."
            )
        if value and name in _PLACES:
            raise EncoderError(
                f"{path}: takes files from elsewhere ({name}: {value!r}), where a change could go "
                "unnoticed. Save the model without it."
            )
    return any(name in ("use_safetensors", "variant") for name, _ in settings)


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of a configuration at any depth."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from _settings(inner)


def _model_files(folder: Path) -> list[str]:
    """All files below a model folder, links to files and folders followed, as sorted names."""
    names: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        names += [(Path(parent) / name).relative_to(folder).as_posix() for name in files]
        if len(names) > _MOST_MODEL_FILES or len(Path(parent).relative_to(folder).parts) > 8:
            raise EncoderError(f"{folder}: too many files or folders for a model; check the path.")
    return sorted(name for name in names if (folder / name).is_file())


def model_config(folder: Path) -> dict[str, Any]:
    """The model's own prompts and similarity, where it has them."""
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("prompts") or {}, dict):
        raise EncoderError(f"{path}: not a sentence-transformers configuration.")
    return config


def model_width(folder: Path, truncate_dim: int | None = None) -> int | None:
    """Values of a vector, as far as the files of a sentence-transformers model say it.

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
