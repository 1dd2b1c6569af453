"""The two query encoders of an adapter, checked against what it was fitted on.

In: model folders or names, and the store's description of the encoders. Out: encoders whose
fingerprint is the one recorded, and vectors of single queries. Prompt, precision and lengths are
taken from the description, so that nobody has to say them a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from era_cache.encode.encoder import Encoder, differences, encoder_as_recorded
from era_cache.errors import EncoderError, FingerprintError, InputError
from era_cache.fitting.encoder_pair import Encoders
from era_cache.store.encoder_record import StoredSpec, render
from era_cache.store.precision import check_vectors
from era_cache.types import FloatArray, Role

__all__ = ["MODEL_OPTIONS", "check_model", "encode_query", "load_models", "missing_models"]

MODEL_OPTIONS = {"large": "--query-model", "small": "--doc-model"}
"""View of an adapter to the option that names its model."""


def specs_of(encoders: Encoders) -> dict[str, StoredSpec]:
    """What the store says of the query encoder of each view."""
    return {"large": encoders.query.spec, "small": encoders.small_query.spec}


def load_models(
    encoders: Encoders, *, query_model: str | None, doc_model: str | None, device: str | None
) -> dict[str, Encoder]:
    """Find the models of both views; their weights are read when the first query is encoded.

    Args:
        encoders: what the adapter was fitted on.
        query_model: folder or hub name of the large model; None where it is not given.
        doc_model: the same for the small model.
        device: torch device name; None chooses.

    Returns:
        View to encoder, of the models given. One that serves both views need be given once only.

    Raises:
        FingerprintError: a model is not the one that was recorded.
        EncoderError: it cannot be found.
    """
    specs = specs_of(encoders)
    given = {"large": query_model, "small": doc_model}
    if specs["large"].space == specs["small"].space:
        given = {view: model or query_model or doc_model for view, model in given.items()}
    models: dict[str, Encoder] = {}
    for view, model in given.items():
        if model is None:
            continue
        twin = next((v for v in models if specs[v].fingerprint == specs[view].fingerprint), None)
        if twin is not None:
            models[view] = models[twin]
            continue
        models[view] = encoder_as_recorded(specs[view], model, device=device)
        check_model(models[view], encoders, view)
    return models


def check_model(encoder: Encoder, encoders: Encoders, view: str) -> None:
    """Refuse another encoder than the one that the adapter's queries were encoded by.

    Raises:
        FingerprintError: its fingerprint differs; the message says what to pass.
    """
    specs, option = specs_of(encoders), MODEL_OPTIONS[view]
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


def missing_models(views: set[str], models: Mapping[str, Encoder], encoders: Encoders) -> None:
    """Refuse to encode a query for which a model is missing.

    Raises:
        InputError: it says which options to give.
    """
    specs = specs_of(encoders)
    lacking = [view for view in MODEL_OPTIONS if view in views and view not in models]
    if lacking:
        wanted = " and ".join(f"{MODEL_OPTIONS[view]} ({specs[view].name})" for view in lacking)
        raise InputError(
            "This query is not one of the collection's, so it has to be encoded: start era-search "
            f"with {wanted}. Without models, search for a stored query by its id."
        )


def encode_query(encoder: Encoder, text: str, instruction: str) -> FloatArray:
    """Encode one query with its prompt.

    Returns:
        (1, d) float32, as the model gave it.

    Raises:
        EncoderError: the model fails, or gives what cannot be compared.
    """
    rendered = render(encoder.spec.templates[Role.QUERY], [text], [instruction])
    batches = [batch for _, batch in encoder.encode(rendered, Role.QUERY)]
    if len(batches) != 1 or batches[0].ndim != 2 or len(batches[0]) != 1:
        raise EncoderError(f"{encoder.spec.name} did not give one vector for one query.")
    name = encoder.spec.name
    return check_vectors(batches[0], "float32", lambda _row: "this query", name).to_float32()
