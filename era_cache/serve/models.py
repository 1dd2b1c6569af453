"""The two query encoders of an adapter, checked against what it was fitted on.

In: model folders or names, and the description of the encoders in a store or an adapter. Out:
encoders whose fingerprint is the one recorded, and vectors of queries. Prompt, precision and
lengths are taken from the description, so that nobody has to say them a second time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from era_cache.encode.encoder import DEFAULT_KIND, Encoder, differences, encoder_as_recorded
from era_cache.errors import EncoderError, FingerprintError, FormatError, InputError
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.store.encoder_record import StoredSpec, render
from era_cache.store.precision import check_vectors
from era_cache.store.store import Store
from era_cache.types import FloatArray, Role

__all__ = [
    "MODEL_OPTIONS",
    "check_model",
    "encode_queries",
    "load_models",
    "missing_models",
    "specs_of_adapter",
]

MODEL_OPTIONS = {"large": "--query-model", "small": "--doc-model"}
"""View of an adapter to the option that names its model."""

_NOT_STORED = (
    "This query is not stored, so it has to be encoded (a stored one can be searched by its id)"
)
Specs = Mapping[str, StoredSpec]
"""View of an adapter to the encoder of its queries."""
Look = Literal["nowhere", "folders", "anywhere"]
"""Where models are looked for that nobody named."""


def specs_of_adapter(
    folder: Path, config: AdapterConfig, store: Store | None = None
) -> dict[str, StoredSpec]:
    """The query encoder of each view, as a store or else the adapter's folder describes it.

    Raises:
        FormatError: neither does: it is of an older version, was fitted on arrays, or is damaged.
    """
    found = {}
    for view, side in (("large", "query"), ("small", "small_query")):
        named, model = (config.encoders or {}).get(side), config.models.get(view)
        stored = store.find_encoder(named.fingerprint) if store and named else None
        if stored is not None:
            found[view] = stored.spec
            continue
        if named is None or model is None:
            raise FormatError(
                f"{folder}: does not say which model encodes its {view} queries: it was fitted on "
                "arrays, or by an older version. Fit again with era-fit, or encode yourself and "
                "map by RetrievalAdapter.load."
            )
        try:
            found[view] = StoredSpec(
                name=named.name,
                role=Role.QUERY,
                dim=named.dim,
                fingerprint=named.fingerprint,
                space=named.space,
                identity=model.identity,
                template=named.template,
                source=model.source,
            )
        except ValueError as error:
            raise FormatError(f"{folder / 'config.json'}: damaged: {error}.") from error
    return found


class _Place(NamedTuple):
    """Where a model is: as ``open_encoder`` takes it, and the revision of a hub name."""

    model: str
    revision: str | None = None


def _recorded_place(spec: StoredSpec, look: Look) -> _Place | None:
    """Where the model was when its vectors were made; None where it is not there any more."""
    source, kind = spec.source, spec.identity.get("kind")
    folder, model, revision = (source.get(name) for name in ("folder", "model", "revision"))
    if look == "nowhere":
        return None
    if isinstance(folder, str):
        # A stranger's record may name any folder, whose files would all be hashed.
        there = any((Path(folder) / name).is_file() for name in ("modules.json", "config.json"))
        return _Place(folder) if there else None
    if not isinstance(model, str) or look == "folders":
        return None
    if kind != DEFAULT_KIND:
        # A stranger's record must not say where texts and keys are sent.
        return None if "://" in model else _Place(f"{kind}:{model}")
    return _Place(model, revision) if isinstance(revision, str) else None


def load_models(
    specs: Specs,
    given: Mapping[str, str | None],
    *,
    device: str | None,
    look: Look = "nowhere",
    views: Sequence[str] = tuple(MODEL_OPTIONS),
) -> dict[str, Encoder]:
    """Find the models of views; their weights are read when the first query is encoded.

    Args:
        specs: what the adapter was fitted on.
        given: view to model, a folder or hub name; None where it is not given.
        device: torch device name; None chooses.
        look: for models that are not given where they were when vectors were made: in folders, as
            far as they are the same still, or anywhere, hubs included.
        views: whose models are wanted.

    Returns:
        View to encoder, of the models that were found. One that serves both views need be given
        once only.

    Raises:
        FingerprintError: a model is not the one that was recorded.
        EncoderError: one cannot be found.
    """
    if specs["large"].space == specs["small"].space:
        one = given.get("large") or given.get("small")
        given = {view: given.get(view) or one for view in MODEL_OPTIONS}
    models: dict[str, Encoder] = {}
    for view in MODEL_OPTIONS:
        if view not in views:
            continue
        twin = next((v for v in models if specs[v].fingerprint == specs[view].fingerprint), None)
        model = given.get(view)
        place = _Place(model) if model else _recorded_place(specs[view], look)
        if twin is not None and place is not None:
            models[view] = models[twin]
        elif model or look == "anywhere":
            models |= {} if place is None else {view: _opened(specs, view, place, device)}
        elif place is not None:
            with contextlib.suppress(EncoderError, FingerprintError):  # another one is there now
                models[view] = _opened(specs, view, place, device)
    return models


def _opened(specs: Specs, view: str, place: _Place, device: str | None) -> Encoder:
    found = encoder_as_recorded(specs[view], place.model, revision=place.revision, device=device)
    if hasattr(found, "counts_truncated"):
        found.counts_truncated = False
    check_model(found, specs, view)
    return found


def check_model(encoder: Encoder, specs: Specs, view: str) -> None:
    """Refuse another encoder than the one that the adapter's queries were encoded by.

    Raises:
        FingerprintError: its fingerprint differs; the message says what to pass.
    """
    option = MODEL_OPTIONS[view]
    found, listed = encoder.spec, differences(specs[view], encoder)
    if not listed:
        return
    message = (
        f"{option}: {found.name} (fingerprint {found.fingerprint(Role.QUERY)[:12]}) is not what "
        f"the adapter was fitted on, which is {specs[view].label()}"
    )
    others = [v for v in specs if v != view and _same_files(specs[v].identity, found.identity)]
    if others:
        raise FingerprintError(
            f"{message}. It is the model of {MODEL_OPTIONS[others[0]]}; exchange the two."
        )
    raise FingerprintError(
        f"{message}: {listed}. Pass the model that era-embed was given as {option}."
    )


def _same_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether it is one model, perhaps with other settings."""
    return one == other or (one.get("files") is not None and one["files"] == other.get("files"))


def missing_models(
    views: set[str],
    models: Mapping[str, Encoder],
    specs: Specs,
    why: str = _NOT_STORED,
) -> None:
    """Refuse what needs a model that is missing.

    Raises:
        InputError: it says ``why``, and which options to give.
    """
    lacking = [view for view in MODEL_OPTIONS if view in views and view not in models]
    if lacking:
        wanted = " and ".join(f"{MODEL_OPTIONS[view]} ({specs[view].name})" for view in lacking)
        raise InputError(
            f"{why}: give {wanted} (in Python query_model and doc_model). A model that lies where "
            "era-embed found it is found by itself."
        )


def encode_queries(
    encoder: Encoder, texts: Sequence[str], instructions: Sequence[str]
) -> FloatArray:
    """Encode queries with their prompt, each exactly once.

    Returns:
        (n, d) float32, as the model gave them, in the order of ``texts``.

    Raises:
        EncoderError: the model fails, or gives what cannot be compared.
    """
    rendered = render(encoder.spec.templates[Role.QUERY], texts, instructions)
    vectors: FloatArray | None = None
    filled = np.zeros(len(texts), dtype=bool)
    for rows, batch in encoder.encode(rendered, Role.QUERY):
        if batch.ndim != 2 or len(batch) != len(rows):
            break
        if vectors is None:
            vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
        vectors[rows] = batch
        filled[rows] = True
    if vectors is None or not filled.all():
        raise EncoderError(f"{encoder.spec.name} did not give one vector for each query.")
    name = encoder.spec.name
    checked = check_vectors(vectors, "float32", lambda row: f"query {texts[row][:40]!r}", name)
    return checked.to_float32()
