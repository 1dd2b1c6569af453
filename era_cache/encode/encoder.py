"""What an encoder is, and the kinds of encoders there are: ours, and those of other packages.

In: a model as the user names it. Out: an ``Encoder``: what it is at once, vectors on demand. A kind
is one class or function in a file of its own and one line in ``KINDS``; or, from another package,
an entry point of ``era_cache.encoders``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from era_cache.disk.registry import Registry
from era_cache.encode.config import EmbedConfig
from era_cache.encode.service import ServiceSettings
from era_cache.errors import EncoderError, FingerprintError, FormatError
from era_cache.store.encoder_record import EncoderSpec, StoredSpec
from era_cache.types import FloatArray, Role

__all__ = [
    "DEFAULT_KIND",
    "KINDS",
    "Encoder",
    "EncoderKind",
    "EncoderSettings",
    "differences",
    "encoder_as_recorded",
    "in_order",
    "open_encoder",
]

DEFAULT_KIND = "sentence-transformers"
KINDS = Registry(
    "era_cache.encoders",
    "kind of encoder",
    {
        DEFAULT_KIND: "era_cache.encode.sentence_transformers:SentenceTransformerEncoder",
        "onnx": "era_cache.encode.onnx_encoder:OnnxEncoder",
        "openai": "era_cache.encode.openai_api:OpenAIEncoder",
    },
)


class Encoder(Protocol):
    """Turns rendered texts into vectors.

    It may have more attributes: ``truncated``, the number of texts that were cut off so far;
    ``width``, the number of dimensions where that is known without loading the model; ``served``,
    true where only its vectors tell what it is (``served_probe``); ``measured``, which prepares
    texts for ``encode`` in another thread than the one that encodes; ``reasons``, why rows of the
    texts that were encoded last have no vector; ``encode_into``, which encodes rows of a part and
    commits them by itself, on other machines say (``ray_workers``).
    """

    @property
    def spec(self) -> EncoderSpec:
        """What it is; ``identity["kind"]`` is the name that its kind is registered under."""

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """Encode rendered texts in batches of the encoder's own choosing.

        Yields:
            (row numbers in ``texts``, their (b, d) float32 vectors); each row once, any order.
        """

    def provenance(self) -> dict[str, Any]:
        """What ran (JSON): library versions, device, precision, batch policy, truncated texts."""


@dataclass(frozen=True)
class EncoderSettings:
    """How a model is run.

    What changes a vector belongs into the identity, under the name it has here: an encoder is
    opened again, for single queries or to compare, with what its identity says.
    """

    query_template: str | None = None
    """Prompt of queries with ``{text}`` and maybe ``{instruction}``; None is the model's own."""
    document_template: str | None = None
    """The same of documents."""
    precision: str = "float32"
    """Of weights and products."""
    max_seq_length: int | None = None
    """Tokens kept; None is the model's own."""
    truncate_dim: int | None = None
    """Leading dimensions kept (Matryoshka); None keeps all."""
    attention: str | None = None
    """Implementation of attention (``flash_attention_2``, ``sdpa``, ``eager``); None is the
    library's own choice."""
    revision: str | None = None
    """Of a hub name; None is the newest."""
    device: str | None = None
    """Torch device name; None is cuda where there is one, else cpu."""
    batch_tokens: int = EmbedConfig.batch_tokens
    """Tokens of one batch, padding included."""
    deterministic: bool = False
    """Whether all texts of a batch have one length, so that none is padded."""
    service: ServiceSettings = field(default_factory=ServiceSettings)
    """How a model behind an address is asked."""


class EncoderKind(Protocol):
    """Opens models of one kind; must not load the model before it is asked to encode."""

    def __call__(self, model: str, settings: EncoderSettings, /) -> Encoder:
        """Open a model, named as the user did, without the prefix of the kind."""


def open_encoder(model: str, settings: EncoderSettings) -> Encoder:
    """Open a model.

    Args:
        model: ``KIND:`` and what this kind takes, where a kind of that name is registered; anything
            else is the folder or hub name of a sentence-transformers model. (A folder whose name
            begins like a kind is ``./KIND:…``.)
        settings: how to run it.

    Raises:
        EncoderError: it cannot be found or used.
        InputError: a setting makes no sense, or the package of the kind is broken.
    """
    kind, name = _kind_of(model)
    make: EncoderKind = KINDS.load(kind)
    encoder = make(name, settings)
    if encoder.spec.identity.get("kind") != kind:
        raise EncoderError(
            f"{model}: the encoder says that its kind is {encoder.spec.identity.get('kind')!r}, "
            f"but it is registered as '{kind}', and would not be found again. Mend its package."
        )
    return encoder


def _kind_of(model: str) -> tuple[str, str]:
    name, colon, rest = model.partition(":")
    return (name, rest) if colon and KINDS.knows(name) else (DEFAULT_KIND, model)


def encoder_as_recorded(
    spec: StoredSpec, model: str, *, revision: str | None = None, device: str | None = None
) -> Encoder:
    """Open a model with the settings of a stored encoder; whether it is the same is not checked.

    Args:
        spec: as stored.
        model: what to open, as ``open_encoder`` takes it.
        revision: of a hub name.
        device: torch device name.

    Raises:
        FingerprintError: what is stored was made by no kind of encoder that is at hand.
        FormatError: its settings are damaged.
        EncoderError: there is no such model.
    """
    identity, kind = spec.identity, str(spec.identity.get("kind"))
    if not KINDS.knows(kind):
        what = "was stated by an import" if kind == "stated" else f"is of kind '{kind}'"
        raise FingerprintError(
            f"{spec.label()} {what}: there is no model that could be run in its place. Kinds at "
            f"hand: {', '.join(KINDS.names())}. A stored query can be searched by its id."
        )
    lengths = {name: identity.get(name) for name in ("max_seq_length", "truncate_dim")}
    if any(not (n is None or (type(n) is int and n > 0)) for n in lengths.values()):
        raise FormatError(f"{spec.label()}: recorded with impossible lengths {lengths}; damaged.")
    words = {name: identity.get(name) for name in ("attention", "revision")}
    if any(not (one is None or isinstance(one, str)) for one in words.values()):
        raise FormatError(f"{spec.label()}: recorded with impossible settings {words}; damaged.")
    is_query = spec.role is Role.QUERY
    settings = EncoderSettings(
        # The other role's template does not matter; the model's own may be one we cannot read.
        query_template=spec.template if is_query else "{text}",
        document_template="{text}" if is_query else spec.template,
        precision=str(identity.get("precision", EncoderSettings.precision)),
        max_seq_length=lengths["max_seq_length"],
        truncate_dim=lengths["truncate_dim"],
        attention=words["attention"],
        revision=revision or words["revision"],
        device=device,
    )
    return open_encoder(model, settings)


def in_order(encoder: Encoder, texts: Sequence[str], role: Role) -> FloatArray:
    """Vectors of some rendered texts, (n, d) float32 in their order, as the encoder gives them.

    Raises:
        EncoderError: the encoder fails, or a text got no vector.
    """
    found: dict[int, FloatArray] = {}
    for rows, batch in encoder.encode(texts, role):
        found.update(zip(rows, batch, strict=True))
    if len(found) != len(texts):
        raise EncoderError(
            f"{encoder.spec.name} returned {len(found)} vectors for {len(texts)} texts."
        )
    return np.stack([found[row] for row in range(len(texts))])


def differences(stored: StoredSpec, encoder: Encoder) -> str:
    """Say in what an encoder is not the stored one, file by file; empty where it is the same."""
    given = encoder.spec
    if given.fingerprint(stored.role) == stored.fingerprint:
        return ""
    found = _differences(stored.identity, given.identity)
    if given.templates[stored.role] != stored.template:
        found.append(f"template {stored.template!r} stored, {given.templates[stored.role]!r}")
    return "; ".join(found[:5]) + ("; …" if len(found) > 5 else "")


def _differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    found = []
    files = stored.get("files"), given.get("files")
    old, new = (part if isinstance(part, dict) else {} for part in files)
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            found.append(f"file {name} is missing")
        elif name not in old:
            found.append(f"file {name} is new")
        elif old[name] != new[name]:
            found.append(f"file {name} has other content")
    facts = sorted((stored.keys() | given.keys()) - {"files"})
    return found + [
        f"{name} was {stored.get(name)!r}, is {given.get(name)!r}"
        for name in facts
        if stored.get(name) != given.get(name)
    ]
