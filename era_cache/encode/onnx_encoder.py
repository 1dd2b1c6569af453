"""Encoders that onnxruntime runs: a graph, its tokenizer and its settings in one folder, no torch.

In: ``onnx:FOLDER``, made by ``era-embed onnx`` (``export_encoder``). Out: an ``EncoderSpec`` of the
folder's files, and vectors, which are another encoder's than those of the model that the graph was
made from: near, not equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from era_cache.disk.files import sha256_file
from era_cache.disk.json_files import Record, read_record
from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.model_files import model_name
from era_cache.encode.token_budget import batches, shortened
from era_cache.errors import EncoderError, FormatError, InputError
from era_cache.store.encoder_record import EncoderSpec, check_template
from era_cache.types import FloatArray, IntArray, Role

__all__ = ["GRAPH", "RECORD", "TOKENIZER", "OnnxEncoder", "OnnxRecord"]

GRAPH, TOKENIZER, RECORD = "model.onnx", "tokenizer.json", "era-onnx.json"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_MOST = 1024


class OnnxRecord(Record, frozen=True, kw_only=True):
    """``era-onnx.json``: how texts become the graph's inputs (docs/format.md)."""

    FORMAT = "era-onnx-encoder"
    VERSION = 1

    max_seq_length: Annotated[int, Meta(ge=1, le=1 << 20)]
    dim: Annotated[int, Meta(ge=1, le=1 << 20)]
    pad: Annotated[int, Meta(ge=0)]
    """Token that shorter texts of a batch are filled up with."""
    query_template: str
    document_template: str
    made_from: str
    """Space of the encoder that it was made from (64 hex)."""

    def __post_init__(self) -> None:
        for template in (self.query_template, self.document_template):
            check_template(template)


class OnnxEncoder:
    """A model that onnxruntime runs on the processor, in float32.

    Args:
        model: a folder that ``era-embed onnx`` wrote.
        settings: of which precision and device have no meaning here.

    Raises:
        EncoderError: the folder is incomplete or cannot be used.
    """

    def __init__(self, model: str, settings: EncoderSettings) -> None:
        self.folder = Path(model).expanduser()
        if not (self.folder / RECORD).is_file():
            raise EncoderError(
                f"{model}: no {RECORD} in it. `era-embed onnx MODEL --out {model}` makes one."
            )
        try:
            self._record = read_record(self.folder / RECORD, OnnxRecord)
        except (FormatError, InputError) as error:
            raise EncoderError(str(error)) from error
        names = [GRAPH, TOKENIZER, RECORD]
        names += [f"{GRAPH}.data"] if (self.folder / f"{GRAPH}.data").is_file() else []
        missing = [name for name in names if not (self.folder / name).is_file()]
        if missing:
            raise EncoderError(f"{model}: incomplete: no {', '.join(missing)}.")
        self._names, self._settings = names, settings
        limit = min(settings.max_seq_length or self._record.max_seq_length, 1 << 20)
        if limit > self._record.max_seq_length:
            raise InputError(
                f"{model}: reads {self._record.max_seq_length} tokens at most, not {limit}."
            )
        self._limit = limit
        identity = {
            "kind": "onnx",
            "files": self._digests(),
            "max_seq_length": settings.max_seq_length,
            "truncate_dim": settings.truncate_dim,
        }
        templates = {
            Role.QUERY: check_template(settings.query_template or self._record.query_template),
            Role.DOCUMENT: check_template(
                settings.document_template or self._record.document_template
            ),
        }
        source = {"model": model, "made_from": self._record.made_from}
        self.spec = EncoderSpec(model_name(model), identity, templates, source)
        self.truncated = 0
        self._session: Any = None
        self._tokenizer: Any = None

    @property
    def width(self) -> int:
        """See ``Encoder``."""
        return min(self._record.dim, self._settings.truncate_dim or self._record.dim)

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """See ``Encoder.encode``.

        Raises:
            EncoderError: the graph cannot be loaded or fails.
        """
        del role  # it is in the texts' templates
        self._load()
        kept, lengths = shortened(texts, self._limit, self._lengths)
        self.truncated += sum(length > self._limit for length in lengths)
        read = [min(length, self._limit) for length in lengths]
        alike = self._settings.deterministic
        for rows in batches(read, len(kept), self._settings.batch_tokens, _MOST, one_length=alike):
            given = self._inputs([kept[row] for row in rows])
            try:
                vectors = self._session.run(["vectors"], given)[0]
            except Exception as error:
                # The runtime's own errors have no common type.
                raise EncoderError(
                    f"{self.spec.name} failed on a batch of {len(rows)} texts: {error}"
                ) from error
            yield rows, np.asarray(vectors[:, : self.width], dtype=np.float32)

    def count_tokens(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of rendered texts, as far as the model reads them."""
        del role
        self._load()
        return [min(length, self._limit) for length in self._lengths(texts)]

    def full_lengths(self, texts: Sequence[str], role: Role) -> tuple[IntArray, int | None]:
        """Tokens of rendered texts, (n,), and how many the model reads."""
        del role
        self._load()
        return np.array(self._lengths(texts), dtype=np.int64), self._limit

    def provenance(self) -> dict[str, Any]:
        """See ``Encoder.provenance``."""
        self._load()
        return {
            **{name: version(name) for name in ("onnxruntime", "tokenizers")},
            "device": "cpu",
            "precision": "float32",
            "batch_tokens": self._settings.batch_tokens,
        }

    def _digests(self) -> dict[str, str]:
        return {name: sha256_file(self.folder / name) for name in self._names}

    def _load(self) -> None:
        if self._session is not None:
            return
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EncoderError(
                f"onnx:{self.folder}: the package {error.name} is missing: "
                "pip install 'era-cache[onnx]'."
            ) from error
        try:
            self._tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
            session = onnxruntime.InferenceSession(
                str(self.folder / GRAPH), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # Neither library has an error of its own for a file that is none.
            raise EncoderError(f"{self.folder}: cannot be loaded: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if self._digests() != self.spec.identity["files"]:
            raise EncoderError(f"{self.folder}: its files changed after this run began.")
        self._session = session
        self._wanted = {one.name for one in session.get_inputs()}

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in self._tokenizer.encode_batch(list(texts))]

    def _inputs(self, texts: list[str]) -> dict[str, IntArray]:
        """What the graph takes, (texts, tokens) int64 each."""
        self._tokenizer.enable_truncation(self._limit)
        try:
            found = self._tokenizer.encode_batch(texts)
        finally:
            self._tokenizer.no_truncation()
        longest = max(len(one.ids) for one in found)
        made = {name: np.zeros((len(found), longest), dtype=np.int64) for name in _INPUTS}
        made["input_ids"][:] = self._record.pad
        for row, one in enumerate(found):
            count = len(one.ids)
            made["input_ids"][row, :count] = one.ids
            made["attention_mask"][row, :count] = one.attention_mask
            made["token_type_ids"][row, :count] = one.type_ids
        return {name: rows for name, rows in made.items() if name in self._wanted}
