"""A query adapter with its two text encoders, as one module of sentence-transformers.

It travels with the models that it runs. ``encode_query`` gives vectors in the space of
``encode_document``, the index's; ``encode`` alone is refused, as it says neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

try:
    from sentence_transformers.base.modules import InputModule
except ImportError:  # version 5
    from sentence_transformers.models import InputModule

__all__ = ["EraMap", "EraPair"]

RECORD, WEIGHTS = "era-export.json", "adapter.safetensors"


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows of length 1."""
    return torch.nn.functional.normalize(rows, dim=-1, eps=1e-12)


class EraMap(torch.nn.Module):
    """The map: linear, a residual layer, then references that correct where a query went.

    Args:
        views: what is joined, in this order: ``large``, ``small``.
        tables: settings of each reference table: view, temperature, step, steps, contrast, pull.
        tensors: weight (d_out, d_in), maybe bias and hidden.*, references.N.keys and .values.
    """

    def __init__(self, views: list[str], tables: list[dict[str, Any]], tensors: Any) -> None:
        super().__init__()
        self.views, self.tables = tuple(views), tables
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor.float())
        self.has = {name.replace(".", "_") for name in tensors}

    def forward(self, queries: dict[str, torch.Tensor]) -> torch.Tensor:
        """Map (n, d_view) rows of each view to (n, d_out) unit rows."""
        own: Any = self
        given = {view: unit(queries[view].float()) for view in self.views}
        joined = torch.cat([given[view] for view in self.views], dim=1)
        mapped = joined @ own.weight.T
        if "bias" in self.has:
            mapped = mapped + own.bias
        if "hidden_weight" in self.has:
            inner = torch.nn.functional.gelu(joined @ own.hidden_weight.T + own.hidden_bias)
            mapped = mapped + inner @ own.hidden_output.T
        mapped = unit(mapped)
        for number, table in enumerate(self.tables):
            keys = getattr(self, f"references_{number}_keys")
            values = getattr(self, f"references_{number}_values")
            sharp = table["temperature"]
            wanted = torch.softmax(given[table["view"]] @ keys.T / sharp, dim=1) @ values
            start = mapped
            for _ in range(table["steps"]):
                change = wanted
                if table["contrast"]:
                    change = wanted - torch.softmax(mapped @ values.T / sharp, dim=1) @ values
                moved = mapped + table["step"] * change
                if table["pull"]:
                    moved = moved + table["pull"] * (start - mapped)
                mapped = unit(moved)
        return mapped


class EraPair(InputModule):  # type: ignore[misc]
    """Queries through the adapter, documents through the small model."""

    config_file_name = RECORD
    save_in_root = True
    forward_kwargs: ClassVar[set[str]] = {"task"}
    folder: Path
    files: list[str]
    map: EraMap

    def __init__(self, config: dict[str, Any], stacks: dict[str, Any], era_map: EraMap) -> None:
        super().__init__()
        self.config, self.map = config, era_map
        self.stacks = torch.nn.ModuleDict(stacks)

    def _parts(self, task: str | None) -> Any:
        """Name to encoder, of those that read a text in this role."""
        if task == "query":
            return self.config["views"]
        if task == "document":
            return {"document": self.config["document"]}
        raise ValueError(
            "Queries and documents have different encoders here: call encode_query or "
            "encode_document, not encode."
        )

    def preprocess(
        self, inputs: Any, prompt: str | None = None, task: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Write each encoder's own prompt around the texts, and cut them into tokens.

        ``prompt`` is the instruction, where the encoders' prompts have a place for one.
        """
        del kwargs
        parts = self._parts(task)
        places = any("{instruction}" in part["template"] for part in parts.values())
        if prompt and not places:
            raise ValueError(
                "The encoders' own prompts are applied here, and have no place for another."
            )
        features: dict[str, Any] = {"task": task}
        for name, part in parts.items():
            before, after = part["template"].split("{text}")
            said = prompt or part["instruction"]
            before, after = (end.replace("{instruction}", said) for end in (before, after))
            texts = [f"{before}{text}{after}" for text in inputs]
            stack: Any = self.stacks[part["stack"]]
            cut = getattr(stack, "preprocess", stack.tokenize)
            for key, value in cut(texts, task=task).items():
                features[f"{name}:{key}"] = value
        return features

    def tokenize(self, texts: Any, **kwargs: Any) -> dict[str, Any]:
        """The same, as version 5 calls it."""
        return self.preprocess(texts, **kwargs)

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Add ``sentence_embedding``, (n, d_out)."""
        task = task or features.get("task")
        found = {}
        for name, part in self._parts(task).items():
            own = {k.split(":", 1)[1]: v for k, v in features.items() if k.startswith(name + ":")}
            vectors = self.stacks[part["stack"]](own, task=task)["sentence_embedding"]
            found[name] = vectors[:, : part["truncate_dim"]] if part["truncate_dim"] else vectors
        mapped = self.map(found) if task == "query" else found["document"].float()
        return {**features, "sentence_embedding": mapped}

    def get_embedding_dimension(self) -> int:
        """Dimensions of the index."""
        return int(self.map.get_buffer("weight").shape[0])

    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Copy what was loaded; nothing here is ever trained."""
        del args, kwargs
        for name in (RECORD, f"{__name__.rpartition('.')[2]}.py", *self.files):
            source, target = self.folder / name, Path(output_path, name)
            if source.resolve() != target.resolve():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> EraPair:
        """Load from a folder or hub name; files other than those of the export are refused."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {name: kwargs[name] for name in names if name in kwargs}
        folder = Path(cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub))
        record = json.loads((folder / RECORD).read_text("utf-8"))
        if record.get("format") != "era-adapter-export" or record.get("version") != 1:
            raise ValueError(f"{RECORD}: expected format era-adapter-export, version 1.")
        config, files = record["module"], [WEIGHTS]
        for stack in config["stacks"].values():
            files += [name for name in record["files"] if name.startswith(stack["folder"] + "/")]
        for name in files:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != record["files"][name]:
                    raise ValueError(f"{name}: not the file that was exported. Export again.")
        stacks = {
            name: cls.stack(folder / stack["folder"], stack)
            for name, stack in config["stacks"].items()
        }
        with safe_open(folder / WEIGHTS, "pt") as weights:
            tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
        era_map = EraMap(list(config["views"]), config["references"], tensors)
        module = cls(config, stacks, era_map)
        module.folder, module.files = folder, files
        module.eval()
        return module

    @staticmethod
    def stack(folder: Path, settings: dict[str, Any]) -> SentenceTransformer:
        """One encoder, as its vectors in the index or the fit were made."""
        dtype = getattr(torch, settings["precision"])
        key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
        model = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={key: dtype}
        )
        if settings["max_seq_length"] is not None:
            model.max_seq_length = settings["max_seq_length"]
        return model.to(dtype).eval()
