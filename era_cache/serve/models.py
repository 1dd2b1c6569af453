"""The two query encoders of an adapter, checked against what it was fitted on.

In: model folders or names, and the store's description of the encoders. Out: encoders whose
fingerprint is the one recorded, and vectors of single queries. Prompt, precision and lengths are
taken from the description, so that nobody has to say them a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from era_cache.encode.encoders import Encoder, SentenceTransformerEncoder
from era_cache.errors import EncoderError, FingerprintError, FormatError, InputError
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
        models[view] = _as_recorded(model, specs[view], view, device)
        check_model(models[view], encoders, view)
    return models


def _as_recorded(model: str, spec: StoredSpec, view: str, device: str | None) -> Encoder:
    """A model with the settings of a recorded encoder."""
    identity = spec.identity
    if identity.get("kind") != "sentence-transformers":
        raise FingerprintError(
            f"{spec.label()} is no sentence-transformers model (kind "
            f"{str(identity.get('kind'))!r}), so {MODEL_OPTIONS[view]} cannot stand for it. Search "
            "for stored queries with --id, or encode your queries yourself."
        )
    lengths = [identity.get("max_seq_length"), identity.get("truncate_dim")]
    if any(not (n is None or (type(n) is int and n > 0)) for n in lengths):
        raise FormatError(f"{spec.label()}: recorded with impossible lengths {lengths}.")
    return SentenceTransformerEncoder(
        model,
        query_template=spec.template,
        document_template="{text}",  # documents are not encoded here
        precision=str(identity.get("precision")),
        max_seq_length=lengths[0],
        truncate_dim=lengths[1],
        device=device,
    )


def check_model(encoder: Encoder, encoders: Encoders, view: str) -> None:
    """Refuse another encoder than the one that the adapter's queries were encoded by.

    Raises:
        FingerprintError: its fingerprint differs; the message says what to pass.
    """
    specs = specs_of(encoders)
    expected, found = specs[view], encoder.spec
    fingerprint = found.fingerprint(Role.QUERY)
    if fingerprint == expected.fingerprint:
        return
    option = MODEL_OPTIONS[view]
    message = (
        f"{option}: {found.name} (fingerprint {fingerprint[:12]}) is not what the adapter was "
        f"fitted on, which is {expected.label()}"
    )
    others = [v for v in specs if v != view and _same_files(specs[v].identity, found.identity)]
    if others:
        raise FingerprintError(
            f"{message}. It is the model of {MODEL_OPTIONS[others[0]]}; exchange the two."
        )
    differing = _differing_files(found.identity, expected.identity)
    if differing:
        message += f"; these of its files differ: {differing}"
    raise FingerprintError(f"{message}. Pass the model that era-embed was given as {option}.")


def _same_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether it is one model, perhaps with other settings."""
    return one == other or (one.get("files") is not None and one["files"] == other.get("files"))


def _differing_files(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    ours, theirs = found.get("files"), expected.get("files")
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ""
    names = sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
