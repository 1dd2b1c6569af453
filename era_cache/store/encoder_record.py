"""Encoder specs: what an encoder is, as a digest that changes whenever a vector would.

In: a model's identity and prompt templates. Out: fingerprints, and the ``encoder.json`` that says
what produced the rows of one folder of a store (docs/format.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, field, to_builtins

from era_cache.disk.files import os_errors, safe_name, staged
from era_cache.disk.json_files import Record, canonical_json, json_digest, loads_json, read_record
from era_cache.disk.shown import is_name, require_unicode
from era_cache.errors import EncoderError, FormatError, InputError
from era_cache.store.names import encoder_folder_name
from era_cache.types import Role

__all__ = [
    "EncoderSpec",
    "StoredSpec",
    "check_template",
    "read_encoder_record",
    "read_stated_spec",
    "render",
    "stated_spec",
    "write_encoder_record",
]

_STATED_LIMIT = 1 << 16
_LONG = 60
"""Characters of a prompt that messages show."""
_PLACEHOLDER = re.compile(r"\{(text|instruction)\}")


class EncoderSpec(NamedTuple):
    """What an encoder is: everything that changes its vectors, and names for people.

    ``identity`` (JSON) describes the model; ``templates`` says what each role's text is put into;
    ``source`` (JSON) is where the model came from and changes nothing.
    """

    name: str
    identity: dict[str, Any]
    templates: dict[Role, str]
    source: dict[str, Any]

    @property
    def space(self) -> str:
        """Digest of the model itself, the same for both roles and all templates (64 hex)."""
        return json_digest(self.identity)

    def fingerprint(self, role: Role) -> str:
        """Digest of all that changes the vectors of one role (64 hex; docs/format.md)."""
        return _fingerprint(self.space, role, self.templates[role])


def _fingerprint(space: str, role: Role, template: str) -> str:
    return json_digest({"role": role.value, "space": space, "template": template})


class StoredSpec(Record, frozen=True):
    """One ``encoder.json``: the encoder of one role, as a store describes it (docs/format.md)."""

    FORMAT = "era-encoder"
    VERSION = 1

    name: str
    role: Role
    dim: Annotated[int, Meta(ge=1, le=1 << 20)]
    fingerprint: str
    space: str
    identity: dict[str, Any]
    template: str
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(f"{self.name[:40]!r} is no name of 1 to 200 printable characters")

    def label(self) -> str:
        """Name, short fingerprint and prompt, for messages."""
        about = f"{self.role.value}, fingerprint {self.fingerprint[:12]}"
        return f"{self.name} ({about}{self.prompt(', prompt ')})"

    def prompt(self, before: str = "") -> str:
        """The prompt in quotes, cut to a line, after some words; empty where texts are as given."""
        if self.template == "{text}":
            return ""
        shown = self.template if len(self.template) <= _LONG else f"{self.template[:_LONG]}…"
        return f"{before}{shown!r}"


def write_encoder_record(folder: Path, spec: EncoderSpec, role: Role, dim: int) -> None:
    """Write an ``encoder.json``, once it is sure that it can be read back as what it is.

    Raises:
        EncoderError: this description cannot be stored.
        StoreError: the folder cannot be written.
    """
    with staged(folder, ".json") as (temporary, commit):
        try:
            record = StoredSpec(
                name=spec.name,
                role=role,
                dim=dim,
                fingerprint=spec.fingerprint(role),
                space=spec.space,
                identity=spec.identity,
                template=spec.templates[role],
                source=spec.source,
            )
            fields = {"format": record.FORMAT, "version": record.VERSION, **to_builtins(record)}
            text = json.dumps(fields, indent=1, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
            read_encoder_record(temporary)
        except (FormatError, TypeError, ValueError, RecursionError) as error:
            raise EncoderError(
                f"The description of {spec.name} with {dim} dimensions cannot be stored: "
                f"{str(error).removeprefix(f'{temporary}: ')} It must be JSON (names of fields are "
                "text) of at most 4 MiB, with 1 to 1,048,576 dimensions."
            ) from error
        commit("encoder.json")


def read_encoder_record(path: Path, folder: str = "") -> StoredSpec:
    """Read an ``encoder.json`` and recompute its digests.

    Args:
        path: the file.
        folder: name of the encoder's folder, which must agree; empty is any.

    Raises:
        FormatError: not such a file, damaged, newer, or its digests are not its content's.
        StoreError: it cannot be read.
    """
    stored = read_record(path, StoredSpec)
    try:
        space = json_digest(stored.identity)
        fingerprint = _fingerprint(space, stored.role, stored.template)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: damaged: {error!r}") from error
    if (space, fingerprint) != (stored.space, stored.fingerprint):
        raise FormatError(f"{path}: the fingerprint does not match the description; damaged.")
    if folder and not folder.endswith(encoder_folder_name("", stored.role, fingerprint)):
        raise FormatError(
            f"{path}: holds the encoder {stored.label()}, which its folder's name contradicts. "
            "Rename it back or remove it."
        )
    return stored


def stated_spec(
    name: str, facts: Mapping[str, Any], templates: Mapping[Role, str] | None = None
) -> EncoderSpec:
    """Describe an encoder whose files are not at hand, such as an API's.

    Args:
        name: for people and folder names.
        facts: JSON; whatever changes its vectors belongs here, as it is the identity.
        templates: prompt of each role; None where texts are encoded as they are.

    Raises:
        InputError: the name cannot be used, or the facts are not JSON.
    """
    try:
        known = json.loads(canonical_json(dict(facts)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Facts of {name}: {error}. They must be JSON.") from error
    if known != facts:
        raise InputError(f"Facts of {name}: names of fields must be text, and lists lists.")
    prompts = {role: (templates or {}).get(role, "{text}") for role in Role}
    return EncoderSpec(
        safe_name(name), {"kind": "stated", "facts": known}, prompts, {"stated": True}
    )


def read_stated_spec(path: Path) -> EncoderSpec:
    """Read what a user states of an encoder whose files are not at hand, such as an API's.

    Args:
        path: JSON ``{"name": …, "model": …}`` with any further facts, and maybe ``templates``
            (``query``, ``document``). All facts but name and templates are the identity.

    Raises:
        InputError: not such a file; the message says what is wrong.
        StoreError: it cannot be read.
    """
    example = '{"name": "acme-3", "model": "acme/embed-3", "version": "2025-01", "dimensions": 512}'
    with os_errors("reading", path):
        if path.stat().st_size > _STATED_LIMIT:
            raise InputError(f"{path}: larger than {_STATED_LIMIT} bytes. Expected: {example}")
        data = path.read_bytes()
    try:
        facts = loads_json(data, str(path))
        if not isinstance(facts, dict):
            raise InputError(f"{path}: expected a JSON object such as {example}")
        name, given = facts.pop("name", None), facts.pop("templates", {})
        if not isinstance(name, str) or not isinstance(facts.get("model"), str):
            raise InputError(f"{path}: 'name' and 'model' must be text: {example}")
        if not isinstance(given, dict) or not set(given) <= {role.value for role in Role}:
            raise InputError(f"{path}: 'templates' may hold 'query' and 'document', nothing else.")
        templates = {role: check_template(str(given.get(role.value, "{text}"))) for role in Role}
        spec = stated_spec(name, facts, templates)
        json_digest(spec.templates[Role.QUERY] + spec.templates[Role.DOCUMENT] + spec.space)
    except (FormatError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}. Write, for example: {example}") from error
    return spec


def check_template(template: str) -> str:
    """Check a prompt template: it must hold ``{text}`` once, and may hold ``{instruction}``.

    Raises:
        InputError: it does not.
    """
    require_unicode(template, "the prompt template")
    if template.count("{text}") != 1 or template.count("{instruction}") > 1:
        raise InputError(
            f"Prompt template {template!r}: it must contain {{text}} exactly once and "
            "{instruction} at most once, for example 'Instruct: {instruction}\\nQuery: {text}'."
        )
    return template


def render(template: str, texts: Sequence[str], instructions: Sequence[str] | None) -> list[str]:
    """Put each text (and its instruction, else nothing) into the template."""
    if template == "{text}":
        return list(texts)
    filled = []
    for row, text in enumerate(texts):
        values = {"text": text, "instruction": instructions[row] if instructions else ""}
        # One pass, so that braces inside a text are never taken for placeholders.
        filled.append(_PLACEHOLDER.sub(lambda match: values[match[1]], template))  # noqa: B023
    return filled
