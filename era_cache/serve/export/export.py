"""Export an adapter: one function for every kind of folder.

In: an adapter folder and what to make of it. Out: the folder, tried before it stands where it was
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from era_cache.disk.files import write_bytes
from era_cache.encode.encoder import DEFAULT_KIND, Encoder
from era_cache.encode.load_model import EIGHT_BIT
from era_cache.errors import FormatError, InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.adapter_folder import load_adapter, load_config
from era_cache.serve.export.arrays import write_npz, write_safetensors
from era_cache.serve.export.card import export_card
from era_cache.serve.export.options import KINDS, MODEL_KINDS, VECTOR_KINDS, ExportOptions
from era_cache.serve.export.record import Expected, ExportRecord, exported_folder
from era_cache.serve.export.sentence_transformer import (
    Source,
    needs_module,
    write_folded,
    write_module,
    write_pair,
    write_query,
)
from era_cache.serve.export.vectors import adapted_queries, document_rows, write_vectors
from era_cache.serve.models import encode_queries, load_models, missing_models, specs_of_adapter
from era_cache.serve.source import open_source
from era_cache.store.encoder_record import StoredSpec, render
from era_cache.store.open_store import open_store
from era_cache.types import FloatArray, Progress, Role, silent

__all__ = ["ExportReport", "export_adapter"]

_TEXTS = ("a", "how do I sort a list of numbers?", "Bücher über Käfer", "x = [1, 2]; print(x) " * 9)
_CLOSE = {"float32": 1e-5}
_CLOSE_HALF = 2e-2
"""In half precision the rest of a batch moves a vector by this much."""


class ExportReport(NamedTuple):
    """What was written."""

    out: Path
    kind: str
    candidate: str
    form: str
    """Of a model: ``modules of the library``, or ``own module`` and why."""
    rows: int
    """Vectors; 0 for what is no vectors."""
    fusion: Mapping[str, Any] | None
    """First stage whose scores whoever ranks has to add."""
    notes: tuple[str, ...]


def export_adapter(
    folder: Path, out: Path, options: ExportOptions, progress: Progress = silent
) -> ExportReport:
    """Export a candidate of an adapter folder.

    Args:
        folder: that era-fit wrote.
        out: made where it is missing; an earlier export in it is replaced.
        options: what to make.
        progress: told how far it is.

    Raises:
        InputError: the kind cannot express the adapter, a package is missing, a model was moved and
            not named, or ``out`` holds something else.
        FingerprintError: a model is another than the adapter was fitted with.
        FormatError: not an adapter folder, damaged, or newer.
        StoreError: vectors are missing, or a file cannot be written.
    """
    config = load_config(folder)
    name = options.candidate or config.chosen
    adapter = load_adapter(folder, name)
    fusion = None if adapter.fusion is None else dict(adapter.fusion._asdict())
    record = ExportRecord(
        kind=options.kind,
        candidate=name,
        encoders=_expected(config, adapter),
        fusion=fusion,
    )
    job = _Job(folder, config, adapter, options, progress)
    with exported_folder(out) as (staging, settle):
        form, rows, module = job.write(staging, record)
        record = msgspec.structs.replace(record, module=module)
        write_bytes(staging / "README.md", export_card(folder, config, adapter, record).encode())
        settle(record)
        if options.check and options.kind in MODEL_KINDS:
            job.try_model(staging)
    return ExportReport(out, options.kind, name, form, rows, fusion, tuple(job.notes))


def _expected(config: AdapterConfig, adapter: Adapter) -> dict[str, Expected]:
    sides = {"large": "query", "small": "small_query", "document": "document"}
    encoders = config.encoders or {}
    small, joined = (int(length) for length in adapter.weight.shape)
    large = joined - small * ("small" in adapter.views)
    dimensions = {"document": small, "small": small, "large": large}
    return {
        name: Expected(
            name=encoders[side].name,
            fingerprint=encoders[side].fingerprint,
            template=encoders[side].template,
            dim=dimensions[name],
        )
        for name, side in sides.items()
        if side in encoders and (name == "document" or name in adapter.views)
    }


class _Job:
    """One export: the adapter, and its models once they are asked for."""

    def __init__(
        self,
        folder: Path,
        config: AdapterConfig,
        adapter: Adapter,
        options: ExportOptions,
        progress: Progress,
    ) -> None:
        self.folder, self.config, self.adapter = folder, config, adapter
        self.options, self.progress = options, progress
        self.notes: list[str] = []
        self._specs: dict[str, StoredSpec] = {}
        self._models: dict[str, Encoder] = {}

    def write(self, out: Path, record: ExportRecord) -> tuple[str, int, dict[str, Any]]:
        """Write the export's own files.

        Returns:
            (form of a model, rows of vectors, what a module needs to know).
        """
        kind = self.options.kind
        if kind in MODEL_KINDS:
            return self._write_model(out, kind)
        if kind == "onnx":
            from era_cache.serve.export.onnx_graph import write_graph, write_whole_graph

            write_graph(out, self.adapter, record)
            if self.options.whole:
                views = self.sources(self.adapter.views)
                write_whole_graph(out, self.adapter, views, self.options.instruction, record)
        elif kind == "npz":
            write_npz(out, self.adapter)
        elif kind == "safetensors":
            write_safetensors(out, self.adapter)
        elif kind in VECTOR_KINDS:
            return "", self._write_vectors(out, kind), {}
        else:
            raise InputError(f"--to {kind}: expected one of {', '.join(KINDS)}.")
        return "", 0, {}

    def sources(self, views: tuple[str, ...]) -> dict[str, Source]:
        """The models of views, opened and compared with what the adapter was fitted on.

        Raises:
            InputError: one was moved and not named, or is no sentence-transformers model.
            FingerprintError: one is another.
        """
        store = None if self.options.store is None else open_store(self.options.store)
        self._specs = specs_of_adapter(self.folder, self.config, store)
        given = {"large": self.options.query_model, "small": self.options.doc_model}
        self._models = load_models(
            self._specs, given, device=self.options.device, look="anywhere", views=views
        )
        why = "The files of models are copied into the export"
        missing_models(set(views), self._models, self._specs, why)
        found = {}
        for view in views:
            folder = getattr(self._models[view], "folder", None)
            own = self._specs[view].identity.get("kind") == DEFAULT_KIND
            if not (own and isinstance(folder, Path)):
                raise InputError(
                    f"{self._specs[view].name} is no sentence-transformers model, so its files "
                    "cannot be exported. --to onnx exports the adapter alone."
                )
            if self._specs[view].identity.get("precision") == EIGHT_BIT:
                raise InputError(
                    f"{self._specs[view].name} runs with 8-bit weights, which no export carries. "
                    "era-serve serves it; --to onnx, npz or safetensors exports the adapter alone."
                )
            found[view] = Source(folder, self._specs[view].identity, self._specs[view].template)
        return found

    def _write_model(self, out: Path, kind: str) -> tuple[str, int, dict[str, Any]]:
        adapter, instruction = self.adapter, self.options.instruction
        pair = kind == "sentence-transformers"
        wanted = tuple(dict.fromkeys((*adapter.views, "small"))) if pair else adapter.views
        sources = self.sources(wanted)
        views = {view: sources[view] for view in adapter.views}
        if not any("{instruction}" in source.template for source in views.values()):
            if instruction:
                raise InputError("--instruction: no prompt has a place for one. Leave it out.")
        else:
            self.notes.append(
                f"Prompts have a place for an instruction; it is {instruction!r} unless a prompt "
                "is given to encode_query."
            )
        document = None
        if pair:
            template = (self.config.encoders or {})["document"].template
            document = sources["small"]._replace(template=template)
        why = needs_module(adapter, [*views.values(), *([document] if document else [])])
        if document is not None and why:
            module = write_module(out, adapter, views, document, instruction)
            return f"own module: {why}", 0, module
        if why:
            raise InputError(
                f"--to {kind}: {self.options.candidate or self.config.chosen} cannot be one linear "
                f"map behind its encoder, because {why}. --to sentence-transformers expresses it; "
                f"{self._linear()}."
            )
        query = views[adapter.views[0]]
        if document is not None:
            write_pair(out, adapter, query, document)
        elif kind == "folded":
            write_folded(out, adapter, query)
        else:
            write_query(out, adapter, query)
        return "modules of the library", 0, {}

    def _linear(self) -> str:
        """Which candidates are one linear map, in words."""
        names = [
            name
            for name, one in self.config.candidates.items()
            if len(one.views) == 1 and not (one.references or one.hidden or one.fusion)
        ]
        return f"--candidate {' or '.join(names)} is linear" if names else "no candidate is linear"

    def _write_vectors(self, out: Path, kind: str) -> int:
        options = self.options
        if options.store is None:
            raise InputError(f"--to {kind} exports a store's vectors: give --store.")
        source = open_source(open_store(options.store), self.folder, options.collection)
        dim = int(self.adapter.weight.shape[0])
        if options.role == Role.QUERY.value:
            ids = source.collection.query_ids
            blocks = iter([adapted_queries(source, self.adapter)])
        else:
            ids, blocks = source.collection.doc_ids, document_rows(source, self.progress)
        write_vectors(out, kind, blocks, list(ids), dim)
        return len(ids)

    def try_model(self, out: Path) -> None:
        """Load an exported model as a user would, and compare its vectors of some texts with ours.

        Raises:
            FormatError: they differ.
        """
        from era_cache.serve.export.load import open_model

        model = open_model(out)
        said = [self.options.instruction] * len(_TEXTS)
        views = {
            view: encode_queries(self._models[view], list(_TEXTS), said)
            for view in self.adapter.views
        }
        half = any(s.identity["precision"] != "float32" for s in self._specs.values())
        close = _CLOSE_HALF if half else _CLOSE["float32"]
        found = np.asarray(model.encode_query(list(_TEXTS)), dtype=np.float32)
        _compare(out, "query", found, self.adapter.apply(views), close)
        if self.options.kind == "sentence-transformers":
            small = self._models["small"]
            template = (self.config.encoders or {})["document"].template
            texts = render(template, _TEXTS, said)
            expected = np.empty((len(texts), self.adapter.weight.shape[0]), dtype=np.float32)
            for rows, vectors in small.encode(texts, Role.DOCUMENT):
                expected[rows] = vectors
            found = np.asarray(model.encode_document(list(_TEXTS)), dtype=np.float32)
            _compare(out, "document", found, expected, close)


def _compare(out: Path, role: str, found: FloatArray, expected: FloatArray, close: float) -> None:
    difference = np.inf
    if found.shape == expected.shape:
        lengths = np.linalg.norm(expected, axis=1, keepdims=True)
        difference = float(np.abs(found / lengths - expected / lengths).max())
    if not difference <= close:
        raise FormatError(
            f"{out.name}: loaded again, the exported model gives other {role} vectors (largest "
            f"difference {difference:.1e}, {close:g} allowed). Nothing was exported."
        )
