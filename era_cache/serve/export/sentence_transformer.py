"""An adapter as a sentence-transformers model: its encoders' files, and the map behind them.

In: an adapter and the folders of its models. Out: a folder. Where one linear map is all there is,
modules of the library do it (a router with a route for queries and one for documents, or the query
side alone, which other servers read, too); else one module that travels in the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.disk.files import make_folder, os_errors, write_bytes
from era_cache.encode.model_files import hash_model
from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_folder import tensors_of
from era_cache.serve.export.arrays import table_settings
from era_cache.types import FloatArray

__all__ = ["Source", "needs_module", "write_folded", "write_module", "write_pair", "write_query"]

_LEGACY = "sentence_transformers.models."
"""Where every version of the library, and other servers, find its modules."""
_BUILT_IN = ("Transformer", "Pooling", "Normalize", "Dense", "StaticEmbedding", "LayerNorm")
_IDENTITY = "torch.nn.modules.linear.Identity"
_MODULE = "modeling_era"
_TOP = ("modules.json", "config_sentence_transformers.json", "router_config.json")


class Source(NamedTuple):
    """A model, as the adapter was fitted with it.

    ``identity`` is the encoder's, ``template`` its prompt in the role that is meant.
    """

    folder: Path
    identity: Mapping[str, Any]
    template: str

    @property
    def prefix(self) -> str | None:
        """What stands before the text; None where the prompt is more than that."""
        before, _, after = self.template.partition("{text}")
        return None if after or "{instruction}" in before else before


class _Module(NamedTuple):
    kind: str
    place: str
    """Folder below the model's; empty for the model's own."""


def _modules(folder: Path) -> list[_Module] | None:
    """The modules of a model whose files can be taken apart; None for any other."""
    try:
        records = json.loads((folder / "modules.json").read_bytes())
        found = [
            _Module(str(one["type"]).rpartition(".")[2], str(one["path"]))
            for one in records
            if str(one["type"]).startswith("sentence_transformers.")
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    plain = len(found) == len(records) and all(one.kind in _BUILT_IN for one in found)
    return found if plain and sum(not one.place for one in found) <= 1 else None


def needs_module(adapter: Adapter, sources: Sequence[Source]) -> str:
    """Why the library's own modules cannot express an adapter; empty where they can."""
    if len(adapter.views) > 1:
        return "it joins two encoders"
    if adapter.references:
        return "it has reference tables"
    if adapter.hidden is not None:
        return "it has a hidden layer"
    for source in sources:
        name, identity = source.folder.name, source.identity
        if _modules(source.folder) is None:
            return f"{name} has modules other than {', '.join(_BUILT_IN)}"
        if source.prefix is None:
            return f"the prompt of {name} is more than words before the text"
        if identity.get("precision") != "float32":
            return f"{name} runs in {identity.get('precision')}"
        if identity.get("truncate_dim") is not None:
            return f"{name} is cut to {identity['truncate_dim']} dimensions"
    return ""


def write_pair(out: Path, adapter: Adapter, query: Source, document: Source) -> None:
    """Write a router: queries through their model and the map, documents through theirs.

    Args:
        out: an empty folder.
        adapter: one for which ``needs_module`` gives nothing.
        query: the model of the view that it reads.
        document: the model of the index.
    """
    types: dict[str, str] = {}
    routes: dict[str, list[str]] = {}
    for route, source in (("query", query), ("document", document)):
        one_model = route == "document" and document.identity == query.identity
        names = types if one_model else _copied_modules(out, source, f"{route}_")
        routes[route] = list(names)
        types = {**types, **names}
    for name, kind in _write_map(out, adapter, "query_", len(routes["query"])).items():
        types[name] = _LEGACY + kind
        routes["query"].append(name)
    router = {
        "types": types,
        "structure": routes,
        "parameters": {"default_route": None, "allow_empty_key": False},
    }
    _write_json(out / "router_config.json", router)
    _write_json(out / "modules.json", [_entry(0, "", "Router")])
    _write_config(out, {"query": query.prefix or "", "document": document.prefix or ""})


def write_query(out: Path, adapter: Adapter, query: Source) -> None:
    """Write the query side alone: the model's own modules, then Dense and Normalize.

    Arguments as for ``write_pair``. Servers that read Dense serve it as it is.
    """
    _copied_model(out, query)
    modules = _modules(query.folder) or []
    entries = [_entry(i, one.place, one.kind) for i, one in enumerate(modules)]
    for name, kind in _write_map(out, adapter, "", len(modules)).items():
        entries.append(_entry(len(entries), name, kind))
    _write_json(out / "modules.json", entries)
    _write_config(out, {"query": query.prefix or ""}, default="query")


def write_folded(out: Path, adapter: Adapter, query: Source) -> None:
    """Write the query side with the map multiplied into the model's last Dense layer.

    Raises:
        InputError: the model does not end with a linear Dense, or the map has a bias.
    """
    from safetensors.numpy import load_file, save

    modules = _modules(query.folder) or []
    body = modules[:-1] if modules and modules[-1].kind == "Normalize" else modules
    last = body[-1] if body else _Module("", "")
    place = query.folder / last.place
    config = json.loads((place / "config.json").read_bytes()) if last.kind == "Dense" else {}
    linear = config.get("activation_function") == _IDENTITY and not config.get("use_residual")
    if not linear or not (place / "model.safetensors").is_file() or adapter.bias is not None:
        raise InputError(
            f"{query.folder.name} does not end with a linear Dense layer that the map could be "
            "folded into. --to query-encoder adds one."
        )
    _copied_model(out, query)
    weight = adapter.weight.double().numpy()
    tensors = load_file(place / "model.safetensors")
    tensors = {
        name: np.ascontiguousarray(weight @ tensor.astype(np.float64), dtype=np.float32)
        for name, tensor in tensors.items()
    }
    write_bytes(out / last.place / "model.safetensors", save(tensors))
    _write_json(out / last.place / "config.json", {**config, "out_features": len(weight)})
    entries = [_entry(i, one.place, one.kind) for i, one in enumerate(body)]
    entries.append(_entry(len(body), f"{len(body)}_Normalize", "Normalize"))
    make_folder(out / f"{len(body)}_Normalize")
    _write_json(out / f"{len(body)}_Normalize" / "config.json", {})
    _write_json(out / "modules.json", entries)
    _write_config(out, {"query": query.prefix or ""}, default="query")


def write_module(
    out: Path,
    adapter: Adapter,
    views: Mapping[str, Source],
    document: Source,
    instruction: str,
) -> dict[str, Any]:
    """Write models, map and the module that runs them.

    Returns:
        What the module needs to know, for the folder's record.
    """
    from safetensors.numpy import save

    stacks: dict[str, dict[str, Any]] = {}
    parts = {}
    for name, source in {**views, "document": document}.items():
        settings = {
            "folder": _model_folder(out, source),
            "precision": source.identity["precision"],
            "max_seq_length": source.identity["max_seq_length"],
        }
        stack = next((key for key, one in stacks.items() if one == settings), f"s{len(stacks)}")
        stacks[stack] = settings
        parts[name] = {
            "stack": stack,
            "template": source.template,
            "instruction": instruction if "{instruction}" in source.template else "",
            "truncate_dim": source.identity["truncate_dim"],
        }
    write_bytes(out / "adapter.safetensors", save(tensors_of(adapter)))
    code = package_files("era_cache.serve.export").joinpath(f"{_MODULE}.py").read_bytes()
    write_bytes(out / f"{_MODULE}.py", code)
    entry = {"idx": 0, "name": "0", "path": "", "type": f"{_MODULE}.EraPair"}
    _write_json(out / "modules.json", [entry])
    _write_config(out, {"query": "", "document": ""})
    return {
        "views": {view: parts[view] for view in adapter.views},
        "document": parts["document"],
        "stacks": stacks,
        "references": table_settings(adapter),
    }


def _model_folder(out: Path, source: Source) -> str:
    """Copy a model whole, unless one with the same files is there."""
    for number in range(2):
        name = f"encoder_{number}"
        if not (out / name).exists():
            make_folder(out / name)
            _copy(source.folder, out / name, list(source.identity["files"]))
            return name
        if hash_model(out / name) == dict(source.identity["files"]):
            return name
    raise AssertionError("an adapter has two encoders")


def _copied_model(out: Path, source: Source) -> None:
    """Copy a model's files into the folder itself."""
    names = [name for name in source.identity["files"] if name not in _TOP]
    _copy(source.folder, out, names)
    _settle(out, source)


def _copied_modules(out: Path, source: Source, prefix: str) -> dict[str, str]:
    """Copy each module into a folder of its own; name to class of each."""
    modules = _modules(source.folder) or []
    places = {one.place for one in modules if one.place}
    found = {}
    for number, one in enumerate(modules):
        name = f"{prefix}{number}_{one.kind}"
        make_folder(out / name)
        inside = [
            file
            for file in source.identity["files"]
            if (file.startswith(f"{one.place}/") if one.place else _top(file, places))
        ]
        _copy(source.folder / one.place, out / name, [_below(file, one.place) for file in inside])
        if not one.place:
            _settle(out / name, source)
        found[name] = _LEGACY + one.kind
    return found


def _top(file: str, places: set[str]) -> bool:
    """Whether a file is of the module that lies in the model's own folder."""
    return file not in _TOP and not any(file.startswith(f"{place}/") for place in places)


def _below(file: str, place: str) -> str:
    return file.removeprefix(f"{place}/") if place else file


def _settle(folder: Path, source: Source) -> None:
    """Write into a transformer's own files what era-embed was told beside them."""
    path, limit = folder / "sentence_bert_config.json", source.identity["max_seq_length"]
    if limit is not None:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
        _write_json(path, {**config, "max_seq_length": limit})
    path = folder / "config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    stated = {name: "float32" for name in ("dtype", "torch_dtype") if name in config}
    if stated and any(config[name] != "float32" for name in stated):
        _write_json(path, {**config, **stated})


def _write_map(out: Path, adapter: Adapter, prefix: str, start: int) -> dict[str, str]:
    """Write the map as modules; folder to kind of each, in their order.

    Without a bias the map needs no rows of unit length: it keeps their length, and it is lost at
    the end.
    """
    from safetensors.numpy import save

    kinds = ["Dense", "Normalize"] if adapter.bias is None else ["Normalize", "Dense", "Normalize"]
    found = {f"{prefix}{start + i}_{kind}": kind for i, kind in enumerate(kinds)}
    for name, kind in found.items():
        make_folder(out / name)
        if kind == "Normalize":
            _write_json(out / name / "config.json", {})
            continue
        weight: FloatArray = adapter.weight.cpu().numpy()
        tensors = {"linear.weight": np.ascontiguousarray(weight)}
        if adapter.bias is not None:
            tensors["linear.bias"] = adapter.bias.cpu().numpy()
        write_bytes(out / name / "model.safetensors", save(tensors))
        config = {
            "in_features": weight.shape[1],
            "out_features": weight.shape[0],
            "bias": adapter.bias is not None,
            "activation_function": _IDENTITY,
        }
        _write_json(out / name / "config.json", config)
    return found


def _entry(number: int, place: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": place, "type": _LEGACY + kind}


def _write_config(out: Path, prompts: Mapping[str, str], default: str | None = None) -> None:
    """``default`` is the prompt of a plain ``encode``, where only one can be meant."""
    config = {
        "prompts": dict(prompts),
        "default_prompt_name": default,
        "similarity_fn_name": "cosine",
        "model_type": "SentenceTransformer",
    }
    _write_json(out / "config_sentence_transformers.json", config)


def _write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        with os_errors("copying", source / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
