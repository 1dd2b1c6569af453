"""Encoders that are sentence-transformers models.

In: a model folder or hub name, prompt templates, precision. Out: an ``EncoderSpec`` (cheap: files
are hashed, no model is loaded) and, when texts must really be encoded, (n, d) float32 arrays.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.fast_linear import hasten
from era_cache.encode.load_model import EIGHT_BIT, load_model
from era_cache.encode.model_files import (
    hash_model,
    locate_model,
    model_config,
    model_name,
    model_width,
)
from era_cache.encode.model_tokens import TokenCounter, reader_of
from era_cache.encode.neighbours import neighbour_difference
from era_cache.encode.static_batches import static_encoder
from era_cache.encode.token_budget import MeasuredTexts, batches
from era_cache.errors import EncoderError, InputError
from era_cache.store.encoder_record import EncoderSpec, check_template
from era_cache.types import FloatArray, IntArray, Role

__all__ = ["SentenceTransformerEncoder"]

_MEASURED_FROM = 256
"""Texts of a run that is long enough to measure how much a vector depends on its batch."""
PRECISIONS = ("float32", "float16", "bfloat16", EIGHT_BIT)
_logger = logging.getLogger(__name__)


class SentenceTransformerEncoder:
    """A sentence-transformers model, from a local folder or a hub name.

    The model is loaded when the first text is encoded; until then only its files are hashed.

    Args:
        model: a folder, or a hub name (fetched by huggingface_hub into its own cache).
        settings: precision is ``float32``, ``float16`` or ``bfloat16`` weights and products, or
            ``8bit`` weights; templates that are None take the model's own prompts.

    Raises:
        EncoderError: the model cannot be found, hashed or used.
    """

    def __init__(self, model: str, settings: EncoderSettings) -> None:
        if settings.precision not in PRECISIONS:
            raise InputError(
                f"Precision '{settings.precision}': expected one of {', '.join(PRECISIONS)}."
            )
        self.folder, source = locate_model(model, settings.revision)
        files = hash_model(self.folder)
        config = model_config(self.folder)
        prompts = {
            str(k): str(v) for k, v in (config.get("prompts") or {}).items() if v is not None
        }
        source["similarity"] = str(config.get("similarity_fn_name") or "cosine")
        templates = {
            Role.QUERY: _template(settings.query_template, prompts, "query"),
            Role.DOCUMENT: _template(settings.document_template, prompts, "document"),
        }
        identity = {
            "kind": "sentence-transformers",
            "files": files,
            "backend": "torch",
            "precision": settings.precision,
            "max_seq_length": settings.max_seq_length,
            "truncate_dim": settings.truncate_dim,
            # Left out where it is the library's choice, as it always was.
            **({"attention": settings.attention} if settings.attention else {}),
        }
        self.spec = EncoderSpec(model_name(model), identity, templates, source)
        self.truncated = 0
        self.counts_truncated = True
        """Whether texts that are cut off are counted; for single queries it is not worth it."""
        self._counters: dict[Role, TokenCounter] = {}
        self._neighbours: float | None = None
        """How much a vector depends on its batch; None where that was not measured."""
        self._settings, self._batch_tokens = settings, settings.batch_tokens
        self._model: Any = None
        self._refuse_unused_width(model_width(self.folder))

    @property
    def width(self) -> int | None:
        """See ``Encoder``; as far as the files of the model's modules say it."""
        return model_width(self.folder, self._settings.truncate_dim)

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """See ``Encoder.encode``. Batches hold texts of similar length and a budget of tokens.

        Raises:
            EncoderError: the model cannot be loaded or fails on a text.
        """
        model = self._load()
        encode = model.encode_query if role is Role.QUERY else model.encode_document
        if not isinstance(texts, MeasuredTexts):
            texts = self.measured(texts, role)
        lengths = texts.lengths
        most = 2048 if lengths is None else 1024  # calls cost static models more than texts
        alike = self._settings.deterministic
        pending = list(batches(lengths, len(texts), self._batch_tokens, most, one_length=alike))
        if self._neighbours is None and lengths is not None and len(texts) >= _MEASURED_FROM:
            self._neighbours = neighbour_difference(encode, texts, lengths)
        static = static_encoder(model) if lengths is None else None
        while pending:
            rows = pending.pop(0)
            given = [texts[row] for row in rows]
            try:
                vectors = (
                    static(given)
                    if static is not None
                    else encode(
                        given,
                        prompt="",
                        batch_size=len(rows),
                        show_progress_bar=False,
                        convert_to_numpy=True,
                    )
                )
            except (RuntimeError, IndexError, ValueError) as error:
                if "out of memory" not in str(error).lower() or len(rows) == 1:
                    raise self._failure(error, texts, lengths, rows, role) from error
                _logger.warning("out of memory with %d texts in a batch; halving it", len(rows))
                half = len(rows) // 2
                pending[:0] = [rows[:half], rows[half:]]
                self._batch_tokens = max(512, self._batch_tokens // 2)
                continue
            self._refuse_unused_width(vectors.shape[1])
            yield rows, np.asarray(vectors, dtype=np.float32)

    def measured(self, texts: Sequence[str], role: Role) -> MeasuredTexts:
        """Texts with what ``encode`` has to know of their tokens; those cut off are counted.

        May be called in another thread than the one that encodes, so that it is done ahead.

        Raises:
            EncoderError: the model cannot be loaded, or has no tokenizer.
        """
        if not self.counts_truncated and self._fits(len(texts), role):
            return MeasuredTexts(texts, None)
        counter = self._counter(role)
        if counter.limit is None:  # static embeddings: their batches need no budget
            return MeasuredTexts(texts, None)
        kept, lengths = counter.measured(texts)
        self.truncated += sum(length > counter.limit for length in lengths)
        return MeasuredTexts(kept, [min(length, counter.limit) for length in lengths])

    def _fits(self, count: int, role: Role) -> bool:
        """Whether as many texts are one batch, however long they are."""
        limit = getattr(reader_of(self._load(), role), "max_seq_length", None) or math.inf
        return count * limit <= self._batch_tokens

    def _counter(self, role: Role) -> TokenCounter:
        if role not in self._counters:
            self._counters[role] = TokenCounter(self._load(), role, self.folder)
        return self._counters[role]

    def count_tokens(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of rendered texts, as far as the model reads them.

        Another thread may be encoding.

        Raises:
            EncoderError: the model cannot be loaded, or has no tokenizer.
        """
        counter = self._counter(role)
        lengths = counter.lengths(texts)
        return lengths if counter.limit is None else [min(n, counter.limit) for n in lengths]

    def full_lengths(self, texts: Sequence[str], role: Role) -> tuple[IntArray, int | None]:
        """Tokens of rendered texts, (n,), and how many the model reads; None for any number.

        Raises:
            EncoderError: the model cannot be loaded, or has no tokenizer.
        """
        counter = self._counter(role)
        return np.array(counter.lengths(texts), dtype=np.int64), counter.limit

    def provenance(self) -> dict[str, Any]:
        """See ``Encoder.provenance``."""
        packages = ("sentence-transformers", "transformers", "tokenizers", "torch")
        return {
            **{package: version(package) for package in packages},
            "device": str(self._load().device),
            "precision": self._settings.precision,
            "batch_tokens": self._batch_tokens,
            **({"one_length": True} if self._settings.deterministic else {}),
            **({} if self._neighbours is None else {"neighbour_difference": self._neighbours}),
            **{
                key: self.spec.source[key]
                for key in ("model", "revision")
                if key in self.spec.source
            },
        }

    def _load(self) -> Any:
        if self._model is None:
            model = load_model(self.folder, self._settings)
            if self._settings.max_seq_length is not None:
                self._limit_length(model, self._settings.max_seq_length)
            # The fingerprint was taken when this run began, perhaps long ago.
            if hash_model(self.folder) != self.spec.identity["files"]:
                raise EncoderError(
                    f"{self.folder}: the model's files changed after this run began. Nothing of "
                    "the new model was stored; run the command again."
                )
            self._refuse_unsupported(model)
            hasten(model)
            self._model = model
        return self._model

    def _refuse_unused_width(self, width: int | None) -> None:
        """A width that cuts nothing off would make another encoder of the same vectors."""
        wanted = self._settings.truncate_dim
        if width is not None and wanted is not None and wanted > width:
            raise InputError(
                f"{self.spec.name} makes vectors of {width} dimensions, so that a truncate-dim of "
                f"{wanted} would cut nothing off. Give at most {width}, or leave it out."
            )

    def _limit_length(self, model: Any, limit: int) -> None:
        for role in Role:
            reader = reader_of(model, role)
            if hasattr(reader, "max_seq_length"):
                with contextlib.suppress(AttributeError):  # of one that cannot be set
                    reader.max_seq_length = limit
            if getattr(reader, "max_seq_length", None) != limit:
                raise InputError(
                    f"{self.spec.name} has no maximum length to set for a {role.value}: it would "
                    f"read texts whole, whatever max-seq-length says ({limit}). Leave it out."
                )

    def _refuse_unsupported(self, model: Any) -> None:
        prompted = any(template != "{text}" for template in self.spec.templates.values())
        for module in model.modules():
            if prompted and getattr(module, "include_prompt", True) is False:
                raise EncoderError(
                    f"{self.spec.name} leaves the prompt out of pooling (include_prompt false), "
                    "which is not supported together with a prompt template. Use '{text}' as the "
                    "template of both roles, or another model."
                )

    def _failure(
        self,
        error: Exception,
        texts: Sequence[str],
        lengths: list[int] | None,
        rows: list[int],
        role: Role,
    ) -> EncoderError:
        """Say what failed: the text that has more tokens than the model has positions, or all."""
        reader = reader_of(self._model, role)
        configs = (getattr(module, "config", None) for module in reader.modules())
        tables = (getattr(config, "max_position_embeddings", None) for config in configs)
        places = min((number for number in tables if number), default=None)
        row = max(rows, key=lambda row: lengths[row] if lengths else 0)
        # Some models keep two of their positions for themselves.
        if lengths is None or places is None or lengths[row] <= places - 2:
            return EncoderError(f"{self.spec.name} failed on a batch of {len(rows)} texts: {error}")
        return EncoderError(
            f"{self.spec.name} failed on the {role.value} {texts[row][:60]!r}…: it has "
            f"{lengths[row]} tokens of those that the model is set to read "
            f"({reader.max_seq_length}), but the model has {places} positions. Give "
            f"--large-max-seq-length or --small-max-seq-length {places - 2}. ({error})"
        )


def _template(given: str | None, prompts: Mapping[str, str], name: str) -> str:
    """The template given, else what ``encode_query`` and ``encode_document`` would apply.

    These take the prompts named ``query`` and ``document``; a model's prompts of other names
    (``passage``) and its default prompt are theirs only where a caller asks for them.
    """
    if given is not None:
        return check_template(given)
    prompt = prompts.get(name, "")
    # A brace in a model's own prompt is text, not a placeholder of ours.
    if "{text}" in prompt or "{instruction}" in prompt:
        raise EncoderError(
            f"The model's own prompt {prompt!r} holds a placeholder; give a template."
        )
    return prompt + "{text}"
